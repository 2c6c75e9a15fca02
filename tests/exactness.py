"""Voxel statistics of a finished run against least squares that share no code with it.

The denoised image of a voxel is the LDRs times its row of the bases. It is regressed on each
variant and on the covariates of the user's own table, by PLINK 2 where no genotype is missing and
by statsmodels on mean-imputed dosages elsewhere (PLINK leaves out people without a genotype).

Run it by itself on any run of a simulated study::

    PYTHONPATH=bin:tests python tests/exactness.py RESULTS STUDY
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
import pgenlib

from rvga.dataset import MinimalDataset

KEY = ["chromosome", "base_pair_location", "variant_id", "effect_allele", "other_allele"]
BETA_BOUND = 2e-3  # of a standard error, after int16 coding
Z_BOUND = 2e-3
Z_RANGE = 60.0
SE_BOUND = 1e-5  # relative, beyond what an error of beta does to the standard error


class Differences(NamedTuple):
    """The largest differences between a run and one oracle; ``se_*`` are relative.

    ``se_excess`` is what remains of the standard error's relative difference after the two parts
    that are no error of the estimate: half a unit of the oracle's last printed digit, and what
    int16 coding of z does. With d = (β' - β) / SE, and SE² = (V - a β²) / (ν a),

        SE'² / SE² = 1 - (β'² - β²) / (ν SE²) = 1 - (2 z d + d²) / ν,

    so an error d of β moves SE by (|z| + |d|) |d| / ν at most: with d = 2e-4, |z| = 10 and
    ν = 290 by 7e-6, and by nothing to first order where z = 0.
    """

    oracle: str
    n_variants: int
    n_voxels: int
    largest_abs_z: float
    beta_in_se: float
    z: float
    se: float
    se_excess: float
    n_without_estimate: int

    def check(self) -> None:
        """Assert the bounds of the exactness rule after int16 coding."""
        assert self.n_variants > 0, self
        assert self.largest_abs_z <= Z_RANGE, self
        assert self.beta_in_se <= BETA_BOUND, self
        assert self.z <= Z_BOUND, self
        assert self.se_excess <= SE_BOUND, self


class Sample(NamedTuple):
    """People, covariates with the intercept, denoised images and their voxels' numbers."""

    subject: list[str]
    covariates: np.ndarray
    images: np.ndarray
    voxels: np.ndarray


def compare(
    results_folder: Path,
    study_folder: Path,
    n_voxels: int = 20,
    *,
    least_squares_variants: int = 60,
    plink_variants: int | None = None,
    categorical: tuple[str, ...] = ("site",),
) -> list[Differences]:
    """Compare ``MinimalDataset.voxel`` with independent least squares.

    Parameters
    ----------
    results_folder
        A run's ``outdir``, with ``bases.h5``, ``private/`` and one ``*.rvga.h5``.
    study_folder
        Its simulated study: ``covariates.tsv`` and ``genotypes.csv``.
    n_voxels
        Three quarters of them spread over the image, the others those with the largest |z|.
    least_squares_variants
        How many variants for statsmodels: half of them spread evenly, half the strongest.
    plink_variants
        How many for PLINK 2, chosen alike; None is every variant without missing calls.

    Returns
    -------
    list of Differences
        One for PLINK 2, where it is installed and such variants exist, and one for statsmodels.
        Without missing calls (or without PLINK 2) statsmodels takes variants with complete calls.
    """
    results_folder, study_folder = Path(results_folder), Path(study_folder).resolve()
    [path] = results_folder.glob("*.rvga.h5")
    with MinimalDataset.open(path) as dataset:
        sample = _sample(results_folder, study_folder, n_voxels, categorical)
        variants = dataset.variants
        tables = [dataset.voxel(int(voxel)) for voxel in sample.voxels]
        nu = dataset.nu
    for table in tables:
        pd.testing.assert_frame_equal(table[KEY], variants[KEY])
    ours = {
        name: np.column_stack([table[name] for table in tables])
        for name in ("beta", "standard_error", "z")
    }
    assert nu == len(sample.subject) - np.linalg.matrix_rank(sample.covariates) - 1
    strength = np.nan_to_num(np.abs(ours["z"])).max(axis=1)
    files = list(_genotype_files(study_folder, sample.subject, variants))
    has_missing = np.zeros(len(variants), dtype=bool)
    found = np.zeros(len(variants), dtype=bool)
    for file in files:
        found[file.dataset_row] = True
        has_missing[file.dataset_row] = file.has_missing
    assert found.all(), variants[~found]
    results = []
    complete = np.flatnonzero(~has_missing)
    if shutil.which("plink2") and len(complete):
        rows = _choose(complete, strength, plink_variants)
        theirs, half_digit = _plink(files, sample, rows, len(variants))
        results.append(_differences("PLINK 2", ours, theirs, half_digit, rows, nu))
    incomplete = np.flatnonzero(has_missing)
    rows = _choose(incomplete if len(incomplete) else complete, strength, least_squares_variants)
    theirs = _statsmodels(files, sample, rows, len(variants))
    results.append(_differences("statsmodels", ours, theirs, 0.0, rows, nu))
    return results


def _choose(rows: np.ndarray, strength: np.ndarray, number: int | None) -> np.ndarray:
    """Return some rows, half of them spread evenly and half the strongest, sorted."""
    if number is None or number >= len(rows):
        return rows
    spread = rows[np.linspace(0, len(rows) - 1, number - number // 2).astype(int)]
    left = np.setdiff1d(rows, spread)
    strongest = left[np.argsort(-strength[left], kind="stable")[: number // 2]]
    return np.sort(np.concatenate([spread, strongest]))


def _sample(results: Path, study: Path, n_voxels: int, categorical: tuple[str, ...]) -> Sample:
    with h5py.File(results / "private/subjects.h5") as file:
        subject = [name.decode() for name in file["subject"][...]]
    with h5py.File(results / "private/ldrs.h5") as file:
        assert [name.decode() for name in file["subject"][...]] == subject
        ldrs = file["ldrs"][...]
    with h5py.File(results / "bases.h5") as file:
        bases = file["bases"][...].astype(np.float64)
    text = {name: str for name in ("subject", *categorical)}
    table = pd.read_csv(study / "covariates.tsv", sep="\t", dtype=text).set_index("subject")
    table = pd.get_dummies(table.loc[subject], columns=list(categorical), drop_first=True)
    columns = table.to_numpy(dtype=np.float64)
    assert np.isfinite(columns).all()
    # PLINK refuses columns of very unequal scale; least squares do not depend on it.
    columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    covariates = np.column_stack([np.ones(len(subject)), columns])
    voxels = _voxels(results, len(bases), n_voxels)
    return Sample(subject, covariates, ldrs @ bases[voxels].T, voxels)


def _voxels(results: Path, total: int, number: int) -> np.ndarray:
    n_strong = number // 4
    table = pd.read_csv(results / "loci/voxels.tsv", sep="\t")
    strong = table.sort_values("largest_abs_z", ascending=False)["voxel"].to_numpy()[:n_strong]
    others = np.setdiff1d(np.arange(total), strong)
    spread = others[np.linspace(0, len(others) - 1, number - n_strong).astype(int)]
    return np.sort(np.concatenate([strong, spread]))


class _File(NamedTuple):
    """One genotype file: where its variants are in the dataset, and who is in the sample."""

    path: Path
    ids: pd.DataFrame  # columns FID (if any) and IID of the sample, in its order
    n_people: int
    person: np.ndarray  # rows of the file, in the sample's order
    index: np.ndarray  # variants of the file that the dataset has
    dataset_row: np.ndarray
    has_missing: np.ndarray

    def dosages(self, index: np.ndarray) -> np.ndarray:
        """Return dosages of the effect allele (variants, sample), -9 missing."""
        reader = pgenlib.PgenReader(str(self.path).encode(), raw_sample_ct=self.n_people)
        with reader:
            values = np.empty((len(index), self.n_people), dtype=np.float32)
            reader.read_dosages_list(index.astype(np.uint32), values)
        return values[:, self.person].astype(np.float64)


def _genotype_files(study: Path, subject: list[str], variants: pd.DataFrame) -> Iterator[_File]:
    row_of = {key: row for row, key in enumerate(variants[KEY].itertuples(index=False, name=None))}
    assert len(row_of) == len(variants)
    with (study / "genotypes.csv").open() as lines:
        paths = [study / line["path"] for line in csv.DictReader(lines)]
    for path in paths:
        ids, table = _plink_1(path) if path.suffix == ".bed" else _plink_2(path)
        person = pd.Index(ids["IID"]).get_indexer(subject)
        assert person.min() >= 0
        rows = np.array(
            [row_of.get(key, -1) for key in table[KEY].itertuples(index=False, name=None)]
        )
        index = np.flatnonzero(rows >= 0)
        file = _File(path, ids.iloc[person], len(ids), person, index, rows[index], np.empty(0))
        missing = [
            (file.dosages(index[first : first + 1024]) < 0).any(axis=1)
            for first in range(0, len(index), 1024)
        ]
        yield file._replace(has_missing=np.concatenate([np.zeros(0, dtype=bool), *missing]))


def _plink_1(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    options = {"sep": r"\s+", "header": None, "dtype": str, "na_filter": False}
    people = pd.read_csv(path.with_suffix(".fam"), usecols=[0, 1], names=["FID", "IID"], **options)
    table = pd.read_csv(
        path.with_suffix(".bim"),
        names=["chromosome", "variant_id", "cm", *(KEY[i] for i in (1, 3, 4))],
        **options,
    )
    return people, table.astype({"base_pair_location": int})


def _plink_2(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    people = pd.read_csv(path.with_suffix(".psam"), sep="\t", dtype=str)
    people = people.rename(columns=lambda name: name.lstrip("#"))
    names = dict(zip(("#CHROM", "POS", "ID", "ALT", "REF"), KEY, strict=True))
    lines = path.with_suffix(".pvar").read_text().splitlines()
    header = next(row for row, line in enumerate(lines) if line.startswith("#CHROM"))
    table = pd.read_csv(
        path.with_suffix(".pvar"), sep="\t", skiprows=header, dtype=str, na_filter=False
    ).rename(columns=names)
    return people[[name for name in ("FID", "IID") if name in people]], table.astype(
        {"base_pair_location": int}
    )


def _plink(
    files: list[_File], sample: Sample, rows: np.ndarray, m: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return β and SE (m, voxels) by PLINK 2, and half a unit of SE's last printed digit."""
    shape = (m, len(sample.voxels))
    result = {name: np.full(shape, np.nan) for name in ("beta", "standard_error")}
    half_digit = np.full(shape, np.nan)
    for file in files:
        wanted = np.isin(file.dataset_row, rows)
        if not wanted.any():
            continue
        row_of = dict(zip(file.index[wanted], file.dataset_row[wanted], strict=True))
        for voxel, lines in enumerate(_plink_lines(file, sample, file.index[wanted])):
            assert len(lines) == len(row_of)
            assert (lines["ERRCODE"] == ".").all(), lines[lines["ERRCODE"] != "."]
            assert (lines["OBS_CT"] == str(len(sample.subject))).all()
            assert (lines["A1"] == lines["ALT"]).all()
            at = [row_of[int(name)] for name in lines["ID"]]
            result["beta"][at, voxel] = lines["BETA"].astype(float)
            result["standard_error"][at, voxel] = lines["SE"].astype(float)
            half_digit[at, voxel] = [_half_digit(text) for text in lines["SE"]]
    return result, half_digit


def _plink_lines(file: _File, sample: Sample, index: np.ndarray) -> Iterator[pd.DataFrame]:
    """Yield the table that PLINK 2 prints for each voxel; ids are the variants' file indexes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, matrix in (("x", sample.covariates[:, 1:]), ("v", sample.images)):
            numbers = pd.DataFrame(matrix).map("{:.17g}".format).add_prefix(title)
            table = pd.concat([file.ids.reset_index(drop=True), numbers], axis=1)
            table = table.rename(columns={table.columns[0]: f"#{table.columns[0]}"})
            table.to_csv(folder / title, sep="\t", index=False)
        # Ids of one's own, since those of real files repeat.
        suffix = "bim" if file.path.suffix == ".bed" else "pvar"
        lines = file.path.with_suffix(f".{suffix}").read_text().splitlines()
        head = [line for line in lines if line.startswith("#")]
        body = [line.split() for line in lines if not line.startswith("#")]
        column = 1 if suffix == "bim" else 2
        for number, words in enumerate(body):
            words[column] = str(number)
        text = "\n".join([*head, *("\t".join(words) for words in body)]) + "\n"
        (folder / f"variants.{suffix}").write_text(text)
        (folder / "wanted").write_text("".join(f"{number}\n" for number in index))
        people = file.path.with_suffix(".fam" if suffix == "bim" else ".psam")
        words = (
            ["--bed", file.path, "--bim", "variants.bim", "--fam", people]
            if suffix == "bim"
            else ["--pgen", file.path, "--pvar", "variants.pvar", "--psam", people]
        )
        words += ["--extract", "wanted", "--covar", "x", "--pheno", "v", "--out", "out"]
        words += ["--glm", "omit-ref", "hide-covar"]
        words += [
            "cols=chrom,pos,ref,alt,test,nobs,beta,se,err",
            "--threads",
            "1",
            "--memory",
            "640",
        ]
        done = subprocess.run(
            ["plink2", *map(str, words)],
            cwd=folder, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        for voxel in range(sample.images.shape[1]):
            yield pd.read_csv(folder / f"out.v{voxel}.glm.linear", sep="\t", dtype=str)


def _half_digit(text: str) -> float:
    """Return half a unit of the last of the six significant digits that PLINK prints."""
    value = float(text)
    return 0.5 * 10.0 ** (np.floor(np.log10(value)) - 5) if value > 0 else np.nan


def _statsmodels(
    files: list[_File], sample: Sample, rows: np.ndarray, m: int
) -> dict[str, np.ndarray]:
    """Return β and SE (m, voxels) by statsmodels on mean-imputed dosages."""
    import statsmodels.api as sm

    result = {name: np.full((m, len(sample.voxels)), np.nan) for name in ("beta", "standard_error")}
    for file in files:
        wanted = np.isin(file.dataset_row, rows)
        dosages = file.dosages(file.index[wanted])
        dosages[dosages < 0] = np.nan
        for row, dosage in zip(file.dataset_row[wanted], dosages, strict=True):
            imputed = np.where(np.isnan(dosage), np.nanmean(dosage), dosage)
            design = np.column_stack([imputed, sample.covariates])
            for voxel, image in enumerate(sample.images.T):
                fit = sm.OLS(image, design).fit()
                result["beta"][row, voxel] = fit.params[0]
                result["standard_error"][row, voxel] = fit.bse[0]
    return result


def _differences(
    oracle: str,
    ours: dict[str, np.ndarray],
    theirs: dict[str, np.ndarray],
    half_digit: np.ndarray | float,
    rows: np.ndarray,
    nu: int,
) -> Differences:
    mine = {name: values[rows] for name, values in ours.items()}
    beta, se = theirs["beta"][rows], theirs["standard_error"][rows]
    digit = np.broadcast_to(half_digit, theirs["beta"].shape)[rows]
    without = ~np.isfinite(mine["beta"]).all(axis=1)
    assert np.isfinite(beta).all()
    assert np.isfinite(se).all()
    z = beta / se
    d = np.abs(mine["beta"] - beta)[~without] / se[~without]
    relative = np.abs(mine["standard_error"] / se - 1)[~without]
    coding = (np.abs(z[~without]) + d) * d / nu
    return Differences(
        oracle=oracle,
        n_variants=int((~without).sum()),
        n_voxels=z.shape[1],
        largest_abs_z=float(np.abs(z).max()),
        beta_in_se=float(d.max()),
        z=float(np.abs(mine["z"] - z)[~without].max()),
        se=float(relative.max()),
        se_excess=float((relative - coding - (digit / se)[~without]).max()),
        n_without_estimate=int(without.sum()),
    )


if __name__ == "__main__":
    for differences in compare(Path(sys.argv[1]), Path(sys.argv[2])):
        print(differences)
        differences.check()
