"""Tables of component statistics in the forms of several programs, from least squares."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

# Programs whose standard errors come from the residual variance without the variant.
SCORE = ("REGENIE", "REGENIE wide", "SAIGE", "fastGWA")
SINGLE = ("REGENIE", "PLINK 2", "PLINK 2 old", "SAIGE", "fastGWA", "GWAS-SSF")
WIDE = ("REGENIE wide", "BGENIE", "HEIG")


@dataclass(frozen=True)
class Statistics:
    """Least squares of every component on every variant; ``effect`` G, ``other`` A."""

    chromosome: str
    position: np.ndarray
    name: list[str]
    frequency: np.ndarray
    n: np.ndarray
    beta: np.ndarray
    error: np.ndarray
    score_error: np.ndarray

    def rows(self, chosen) -> Statistics:
        """Return some of the variants."""
        return replace(
            self,
            position=self.position[chosen],
            name=[self.name[row] for row in np.arange(len(self.name))[chosen]],
            frequency=self.frequency[chosen],
            n=self.n[chosen],
            beta=self.beta[chosen],
            error=self.error[chosen],
            score_error=self.score_error[chosen],
        )


def component_statistics(
    g: np.ndarray, covariates: np.ndarray, ldrs: np.ndarray, chromosome: str = "1"
) -> Statistics:
    """Fit every component (n, r) on every variant (m, n), one regression after another."""
    m, n = g.shape
    p = covariates.shape[1]
    beta, error, score_error = (np.empty((m, ldrs.shape[1])) for _ in range(3))
    null = ldrs - covariates @ np.linalg.lstsq(covariates, ldrs, rcond=None)[0]
    null_variance = (null**2).sum(axis=0) / (n - p)
    for row, genotype in enumerate(g):
        design = np.column_stack([covariates, genotype])
        solution = np.linalg.lstsq(design, ldrs, rcond=None)[0]
        left = ldrs - design @ solution
        inverse = np.linalg.inv(design.T @ design)[-1, -1]
        beta[row] = solution[-1]
        error[row] = np.sqrt((left**2).sum(axis=0) / (n - p - 1) * inverse)
        score_error[row] = np.sqrt(null_variance * inverse)
    position = 1000 + 10 * np.arange(m)
    names = [f"rs{place}" for place in position]
    return Statistics(
        chromosome, position, names, g.mean(axis=1) / 2, np.full(m, n), beta, error, score_error
    )


def write_components(
    folder: Path, s: Statistics, program: str, *, digits: int = 6, packed: bool = False
) -> tuple[list[Path], list[str]]:
    """Write a program's files; return them and the component that each holds."""
    folder.mkdir(exist_ok=True)
    r = s.beta.shape[1]
    if program == "HEIG":
        return [_heig(folder, s)], ["all"]
    error = s.score_error if program in SCORE else s.error

    def number(value: float) -> str:
        return f"{value:.{digits}g}"

    texts = {}
    if program in WIDE:
        texts["all"] = _wide(s, program, error, number)
    else:
        for j in range(r):
            texts[f"LDR{j + 1}"] = _single(s, program, s.beta[:, j], error[:, j], number)
    paths = []
    for name, text in texts.items():
        path = folder / f"{program.replace(' ', '_')}_{name}.txt{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        paths.append(path)
    return paths, list(texts)


def _single(s: Statistics, program: str, beta, error, number) -> str:
    header = {
        "REGENIE": "CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ N TEST BETA SE CHISQ LOG10P EXTRA",
        "PLINK 2": "#CHROM\tPOS\tID\tREF\tALT\tPROVISIONAL_REF?\tA1\tOMITTED\tA1_FREQ\tTEST\tOBS_CT"
        "\tBETA\tSE\tT_STAT\tNEG_LOG10_P\tERRCODE",
        "PLINK 2 old": "#CHROM\tPOS\tID\tREF\tALT\tA1\tTEST\tOBS_CT\tBETA\tSE\tT_STAT\tLOG10_P"
        "\tERRCODE",
        "SAIGE": "CHR\tPOS\tMarkerID\tAllele1\tAllele2\tAC_Allele2\tAF_Allele2\tMissingRate\tBETA"
        "\tSE\tTstat\tvar\tp.value\tN",
        "fastGWA": "CHR\tSNP\tPOS\tA1\tA2\tN\tAF1\tBETA\tSE\tP",
        "GWAS-SSF": "chromosome\tbase_pair_location\teffect_allele\tother_allele\tbeta"
        "\tstandard_error\teffect_allele_frequency\tp_value\trsid\tn",
    }[program]
    mark = "\t" if "\t" in header else " "
    lines = [header]
    for row in range(len(s.position)):
        b, e, f = number(beta[row]), number(error[row]), number(s.frequency[row])
        known = {
            "chromosome": s.chromosome, "CHR": s.chromosome, "CHROM": s.chromosome,
            "#CHROM": s.chromosome, "base_pair_location": s.position[row], "POS": s.position[row],
            "GENPOS": s.position[row], "ID": s.name[row], "SNP": s.name[row], "rsid": s.name[row],
            "MarkerID": s.name[row], "effect_allele": "G", "other_allele": "A", "ALLELE1": "G",
            "ALLELE0": "A", "REF": "A", "ALT": "G", "OMITTED": "A", "PROVISIONAL_REF?": "N",
            "A1": "G", "A2": "A", "Allele2": "G", "Allele1": "A", "A1FREQ": f, "A1_FREQ": f,
            "AF_Allele2": f, "AF1": f, "effect_allele_frequency": f, "N": s.n[row],
            "OBS_CT": s.n[row], "n": s.n[row], "TEST": "ADD", "BETA": b, "SE": e, "beta": b,
            "standard_error": e, "ERRCODE": ".", "EXTRA": "NA",
        }  # fmt: skip
        lines.append(mark.join(str(known.get(name, "0.5")) for name in header.split(mark)))
        if program in ("PLINK 2", "REGENIE"):
            # A covariate's row, which is not the variant's.
            known |= {"TEST": "AGE", "BETA": "77", "SE": "0.001"}
            lines.append(mark.join(str(known.get(name, "0.5")) for name in header.split(mark)))
    return "\n".join(lines) + "\n"


def _wide(s: Statistics, program: str, error: np.ndarray, number) -> str:
    r = s.beta.shape[1]
    if program == "BGENIE":
        header = ["chr", "rsid", "pos", "a_0", "a_1", "af", "info"]
        for j in range(r):
            header += [f"LDR{j + 1}_{what}" for what in ("beta", "se", "t")]
            header.append(f"LDR{j + 1}-log10p")
    else:
        header = ["CHROM", "GENPOS", "ID", "ALLELE0", "ALLELE1", "A1FREQ", "N", "TEST"]
        for j in range(r):
            header += [f"{what}.Y{j + 1}" for what in ("BETA", "SE", "CHISQ", "LOG10P")]
        header.append("EXTRA")
    lines = [" ".join(header)]
    for row in range(len(s.position)):
        f = number(s.frequency[row])
        if program == "BGENIE":
            words = [s.chromosome.zfill(2), s.name[row], s.position[row], "A", "G", f, 1]
        else:
            words = [s.chromosome, s.position[row], s.name[row], "A", "G", f, s.n[row], "ADD"]
        for j in range(r):
            words += [number(s.beta[row, j]), number(error[row, j]), "0.5", "0.5"]
        if program != "BGENIE":
            words.append("NA")
        lines.append(" ".join(map(str, words)))
    return "\n".join(lines) + "\n"


def _heig(folder: Path, s: Statistics) -> Path:
    """Write ``.snpinfo`` and ``.sumstats`` as HEIG's documents and readers have them."""
    lines = ["CHR\tPOS\tSNP\tA1\tA2\tMAF\tN"]
    for row in range(len(s.position)):
        words = [s.chromosome, s.position[row], s.name[row], "G", "A"]
        lines.append("\t".join(map(str, [*words, f"{s.frequency[row]:.3e}", s.n[row]])))
    (folder / "heig.snpinfo").write_text("\n".join(lines) + "\n")
    r = s.beta.shape[1]
    with h5py.File(folder / "heig.sumstats", "w") as file:
        file.attrs["n_snps"] = len(s.position)
        file.attrs["n_gwas"] = r
        file.attrs["n_blocks"] = -(-r // 20)
        for block in range(-(-r // 20)):
            part = slice(20 * block, 20 * block + 20)
            file[f"beta{block}"] = s.beta[:, part].astype("f4")
            file[f"z{block}"] = (s.beta / s.error)[:, part].astype("f4")
    return folder / "heig.sumstats"
