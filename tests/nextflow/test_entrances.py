"""Entrances between images and dataset: LDRs from a table, and statistics of other programs."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from component_tables import component_statistics, write_components
from engine import run_several, say_to_each
from exactness import KEY, _genotype_files, _sample
from rvga import formats
from rvga.dataset import MinimalDataset

pytestmark = pytest.mark.xdist_group("nextflow-study")

FILES = (
    "ldrs.tsv bases.h5 covariates.tsv g.pgen g.pvar g.psam a.txt b.txt A.tsv k.txt 1.loco 2.loco"
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Return a folder of files without content, for runs of the stubs."""
    folder = tmp_path_factory.mktemp("stub")
    for name in FILES.split():
        (folder / name).touch()
    (folder / "genotypes.csv").write_text("chromosome,path\n1,g.pgen\n")
    (folder / "sheet.csv").write_text(
        "component,path,chromosome\nLDR1,a.txt,chr1\nLDR2,b.txt,1\nLDR1,a.txt,2\nLDR2,b.txt,2\n"
    )
    (folder / "twice.csv").write_text("component,path\nLDR1,a.txt\n1,b.txt\n")
    (folder / "name.csv").write_text("component,path\nLDR0,a.txt\n")
    (folder / "absent.csv").write_text("component,path\nLDR1,c.txt\n")
    (folder / "pred.list").write_text(f"LDR1 {folder}/1.loco\nLDR2 2.loco\n")
    (folder / "short.list").write_text("LDR1 1.loco\nLDR2\n")
    return folder


LDRS = {"ldrs": "ldrs.tsv", "bases": "bases.h5", "covariates": "covariates.tsv"}
PRODUCT = {"residual_cross_product": "A.tsv", "n_subjects": 100, "n_covariates": 3}
AFTER = {"FIT_NULL", "MINIMAL_DATASET", "IMAGE_TAIL", "SCAN_VOXELS", "FIND_LOCI", "REPORT"}


ENTRANCES = {
    "ldrs and genotypes": (
        {**LDRS, "genotypes": "genotypes.csv", "loco_predictions": "pred.list", "kinship": "k.txt"},
        {"IMPORT_LDRS", "PLAN_CHUNKS", "COMPONENT_GWAS", "CLUMP_VARIANTS", *AFTER},
    ),
    "ldrs and statistics": (
        {**LDRS, "component_sumstats": "sheet.csv"},
        {"IMPORT_LDRS", "IMPORT_SUMSTATS", *AFTER},
    ),
    "cross-product and statistics": (
        {**PRODUCT, "bases": "bases.h5", "component_sumstats": "sheet.csv"},
        {"IMPORT_SUMSTATS", *AFTER},
    ),
    "ldrs alone": (LDRS, {"IMPORT_LDRS", "REPORT"}),
}


@pytest.fixture(scope="module")
def entered(empty, nextflow, pipeline_copy):
    """Return what each entrance reaches, from one start of the engine."""
    cases = [{**given, "scan_parts": 1} for given, _ in ENTRANCES.values()]
    return dict(zip(ENTRANCES, run_several(nextflow, pipeline_copy, empty, cases), strict=True))


@pytest.mark.parametrize("entrance", list(ENTRANCES))
def test_what_an_entrance_reaches(entered, entrance):
    stages, case = ENTRANCES[entrance][1], entered[entrance]
    assert case.processes() == stages
    if "IMPORT_SUMSTATS" in stages:
        groups = [h["group"] for (name, _), h in case.hashes.items() if name == "IMPORT_SUMSTATS"]
        assert sorted(groups) == ["00001", "00002"]
    said = "association and all after it: give --genotypes" in " ".join(case.not_run)
    assert said == ("MINIMAL_DATASET" not in stages)


MISTAKES = {
    "ldrs alone": ({"ldrs": "ldrs.tsv"}, "--ldrs needs --bases and --covariates too"),
    "statistics alone": (
        {"component_sumstats": "sheet.csv"},
        "--component_sumstats needs --bases and either --ldrs and --covariates, or",
    ),
    "no number of people": (
        {"residual_cross_product": "A.tsv", "component_sumstats": "sheet.csv", "bases": "bases.h5"},
        "--residual_cross_product needs --n_subjects and --n_covariates too",
    ),
    "two starts": (
        {**LDRS, **PRODUCT},
        "--ldrs and --residual_cross_product are different starting points",
    ),
    "predictions of nothing": (
        {**PRODUCT, "component_sumstats": "sheet.csv", "bases": "bases.h5"}
        | {"loco_predictions": "pred.list"},
        "--loco_predictions are taken off LDRs",
    ),
    "component twice": (
        {**LDRS, "component_sumstats": "twice.csv"},
        "twice.csv, line 3: component '1' stands there twice (first at twice.csv, line 2)",
    ),
    "no component": (
        {**LDRS, "component_sumstats": "name.csv"},
        "name.csv, line 2: component 'LDR0' is no component",
    ),
    "no file": (
        {**LDRS, "component_sumstats": "absent.csv"},
        "c.txt: no such file (column path)",
    ),
    "short list": (
        {**LDRS, "genotypes": "genotypes.csv", "loco_predictions": "short.list"},
        "short.list, line 2: a component and a file are due",
    ),
}


@pytest.fixture(scope="module")
def refused(empty, nextflow, pipeline_copy):
    """Return what is said to each mistake, from one start of the engine."""
    cases = [given for given, _ in MISTAKES.values()]
    return dict(zip(MISTAKES, say_to_each(nextflow, pipeline_copy, empty, cases), strict=True))


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_has_one_message(refused, mistake):
    assert MISTAKES[mistake][1] in refused[mistake]
    assert len(refused[mistake].splitlines()) == 1


def test_a_mistake_ends_the_run_before_any_task(empty, nextflow):
    given, message = MISTAKES["short list"]
    arguments = [word for name, value in given.items() for word in (f"--{name}", value)]
    run = nextflow(empty, "-stub-run", *arguments, "--outdir", "mistakes")
    assert run.returncode == 2, run.text
    assert message in run.text
    assert "Submitted process" not in run.text


@pytest.fixture(scope="module")
def finished(study_run, tmp_path_factory):
    """Return a folder with results and study of a finished run, to launch others in."""
    folder = tmp_path_factory.mktemp("entrances")
    (folder / "results").symlink_to(study_run.folder / "kept")
    (folder / "study").symlink_to(study_run.folder / "study")
    return folder


def dataset(folder: Path) -> MinimalDataset:
    [path] = folder.glob("*.rvga.h5")
    return MinimalDataset.open(path)


def start(folder: Path) -> tuple:
    """Return the arguments that stand for images: LDRs and bases of the finished run."""
    return (
        *("--ldrs", folder / "results/private/ldrs.tsv", "--bases", folder / "results/bases.h5"),
        *("--covariates", folder / "study/covariates.tsv", "--categorical_columns", "site"),
        *("--genome_build", "GRCh38", "--tail_draws", 1000, "--scan_parts", 1),
    )


def test_ldrs_of_a_table_give_the_same_dataset(finished, nextflow):
    arguments = ("--genotypes", finished / "study/genotypes.csv", "--outdir", "again")
    run = nextflow(finished, *start(finished), *arguments)
    assert run.returncode == 0, run.text
    assert not run.processes("COMPLETED", "again") & {"READ_IMAGES", "FIT_BASES", "MAKE_LDRS"}
    with dataset(finished / "results") as one, dataset(finished / "again") as two:
        assert two.variants[KEY].equals(one.variants[KEY])
        for name in ("n", "p", "sample_hash", "counts"):
            assert two.attributes[name] == one.attributes[name]
        first, second = one.components(), two.components()
        # The table prints eight digits, which may turn a code by one.
        scale = np.abs(first.z).max(axis=1, keepdims=True) / 32767
        assert np.abs(second.z - first.z).max() <= 1.1 * scale.max()
        np.testing.assert_allclose(second.a, first.a, rtol=1e-9)


def plink_tables(finished: Path, folder: Path, names: list[str]) -> list[str]:
    """Run PLINK 2 on every component and both chromosomes without missing calls; return rows."""
    ldrs = (finished / "results/private/ldrs.tsv").read_text()
    (folder / "ldrs.txt").write_text(ldrs.replace("subject", "#IID", 1))
    covariates = (finished / "study/covariates.tsv").read_text()
    (folder / "covariates.txt").write_text(covariates.replace("subject", "#IID", 1))
    rows = []
    with (finished / "study/genotypes.csv").open() as lines:
        paths = {row["chromosome"]: row["path"] for row in csv.DictReader(lines)}
    for chromosome in ("1", "2"):
        main = finished / "study" / paths[chromosome]
        given = "--bfile" if main.suffix == ".bed" else "--pfile"
        done = subprocess.run(
            ["plink2", given, main.with_suffix(""), "--pheno", "ldrs.txt", "--covar",
             "covariates.txt", "--covar-variance-standardize", "--glm", "log10", "cols=+a1freq",
             "--maf", "0.01", "--mac", "20", "--keep", "ldrs.txt", "--out", chromosome,
             "--threads", "1", "--memory", "640"],
            cwd=folder, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        rows += [f"{name},{chromosome}.{name}.glm.linear,{chromosome}" for name in names]
    return rows


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
def test_statistics_of_plink_and_regenie_give_the_same_dataset(finished, nextflow):
    """PLINK 2 on complete chromosomes; a REGENIE table of least squares where calls lack."""
    folder = finished / "tables"
    folder.mkdir()
    with dataset(finished / "results") as own:
        variants, first = own.variants, own.components()
    names = [f"LDR{j + 1}" for j in range(first.z.shape[1])]
    rows = plink_tables(finished, folder, names)
    sample = _sample(finished / "results", finished / "study", 1, ("site",))
    ldrs = pd.read_csv(finished / "results/private/ldrs.tsv", sep="\t", index_col=0, dtype={0: str})
    [file] = [
        file
        for file in _genotype_files(finished / "study", sample.subject, variants)
        if variants["chromosome"][file.dataset_row[0]] == "3"
    ]
    assert file.has_missing.any()
    g = file.dosages(file.index)
    g[g < 0] = np.nan
    g = np.where(np.isnan(g), np.nanmean(g, axis=1, keepdims=True), g)
    here = variants.iloc[file.dataset_row]
    statistics = component_statistics(g, sample.covariates, ldrs[names].to_numpy(), "3")
    statistics.position[:] = here["base_pair_location"]
    statistics.name[:] = here["variant_id"]
    alleles = here[["other_allele", "effect_allele"]].to_numpy().tolist()
    paths, _ = write_components(folder, statistics, "REGENIE")
    for name, path in zip(names, paths, strict=True):
        lines = path.read_text().splitlines()
        pairs = iter([alleles[row] for row in range(len(alleles)) for _ in range(2)])
        body = [
            " ".join([*line.split()[:3], *next(pairs), *line.split()[5:]]) for line in lines[1:]
        ]
        path.write_text("\n".join([lines[0], *body]) + "\n")
        rows.append(f"{name},{path.name},3")
    (folder / "sheet.csv").write_text("component,path,chromosome\n" + "\n".join(rows) + "\n")
    arguments = ("--component_sumstats", folder / "sheet.csv", "--outdir", "imported")
    run = nextflow(finished, *start(finished), *arguments)
    assert run.returncode == 0, run.text
    with dataset(finished / "imported") as imported:
        theirs, second = imported.variants, imported.components()
        # Tables do not tell which variants one person dominates, so these are there too.
        both = theirs["variant_id"].isin(variants["variant_id"]).to_numpy()
        with dataset(finished / "results") as own:
            counts = own.attributes["counts"]
        counts = json.loads(counts) if isinstance(counts, str) else counts
        dominated = sum(row["dropped"].get("few_carriers", 0) for row in counts.values())
        assert dominated == (~both).sum()
        theirs = theirs[both].reset_index(drop=True)
        assert theirs["variant_id"].tolist() == variants["variant_id"].tolist()
        same = (theirs["effect_allele"] == variants["effect_allele"]).to_numpy()
        # PLINK 2 counts the minor allele.
        assert 0 < (~same).sum() < len(same)
        sign = np.where(same, 1.0, -1.0)[:, None]
        # Twice the coding's half unit, and six printed digits of beta and SE each.
        bound = 2 * np.abs(first.z).max(axis=1, keepdims=True) / 65534 + 1e-4
        z, a = second.z[both], second.a[both]
        assert np.isfinite(z).all()
        assert (np.abs(sign * z - first.z) <= bound + 2e-5 * np.abs(first.z)).all()
        np.testing.assert_allclose(a, first.a, rtol=2e-5)
        for voxel in (0, 100):
            with dataset(finished / "results") as own:
                mine = own.voxel(voxel)
            found = imported.voxel(voxel)[both].reset_index(drop=True)
            assert np.abs(sign[:, 0] * found["z"] - mine["z"]).max() <= 2e-3
            np.testing.assert_allclose(found["standard_error"], mine["standard_error"], rtol=5e-5)


def test_a_cross_product_stands_for_people(finished, nextflow):
    """HEIG's pair, made of the run's own statistics, with A, n and the number of covariates."""
    from component_tables import Statistics

    folder = finished / "heig"
    with formats.open_file(finished / "results/private/null.h5", "null") as null:
        A, (n, p) = null["A"][0], null["Q"].shape
    header = "\t".join(f"LDR{j + 1}" for j in range(len(A)))
    lines = ["\t".join(map(repr, row)) for row in A.tolist()]
    (finished / "A.tsv").write_text("\n".join([header, *lines]) + "\n")
    with dataset(finished / "results") as own:
        rows = np.flatnonzero((own.variants["chromosome"] == "1").to_numpy())
        variants, first = own.variants.iloc[rows], own.components()
        error = first.beta[rows] / first.z[rows]
        mine = own.voxel(5).iloc[rows]
    statistics = Statistics(
        "1", variants["base_pair_location"].to_numpy(), variants["variant_id"].tolist(),
        variants["effect_allele_frequency"].to_numpy(), np.full(len(rows), n), first.beta[rows],
        error, error,
    )  # fmt: skip
    [path], _ = write_components(folder, statistics, "HEIG")
    (folder / "sheet.csv").write_text(f"component,path\nall,{path.name}\n")
    run = nextflow(
        finished,
        *("--component_sumstats", folder / "sheet.csv", "--bases", finished / "results/bases.h5"),
        *("--residual_cross_product", finished / "A.tsv", "--n_subjects", n),
        *("--n_covariates", p - 1, "--genome_build", "GRCh38", "--tail_draws", 1000),
        *("--scan_parts", 1, "--outdir", "people"),
    )
    assert run.returncode == 0, run.text
    assert not (finished / "people/private/subjects.h5").exists()
    with dataset(finished / "people") as imported:
        found = imported.voxel(5)
        assert (imported.n, imported.p) == (n, p)
        assert np.abs(found["z"].to_numpy() - mine["z"].to_numpy()).max() <= 2e-3
