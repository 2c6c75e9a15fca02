"""The chain on real genotypes: 489 Europeans of the 1000 Genomes Project, images simulated."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from exactness import compare
from helpers import TEST_DATA, run_stage
from rvga.genotypes import open_genotypes

DATA = TEST_DATA / "1000g_eur"
CHROMOSOMES = range(1, 23)
# As many as the LD reference needs to be tried.
LD_CHROMOSOMES = 4
LEAST_R2 = 0.1
NEARBY = 500_000

pytestmark = [
    pytest.mark.xdist_group("nextflow-real-genotypes"),
    pytest.mark.skipif(
        not all((DATA / f"chr{label}.bed").is_file() for label in CHROMOSOMES),
        reason=f"the genotypes of the 1000 Genomes Project are not in {DATA} (RVGA_TEST_DATA)",
    ),
]


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a tab-separated table."""
    with path.open() as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return the study: images upon the real genotypes, two halves of the people as panels."""
    folder = tmp_path_factory.mktemp("real")
    sheet = folder / "sheet.csv"
    lines = [f"{label},{(DATA / f'chr{label}.bed').resolve()}\n" for label in CHROMOSOMES]
    sheet.write_text("chromosome,path\n" + "".join(lines))
    options = ["--preset", "small", "--seed", 1, "--genotypes", sheet]
    made = run_stage("simulate", *options, "--out", folder / "study")
    assert made.returncode == 0, made.stderr
    for name in ("ld_panel_1.csv", "ld_panel_2.csv"):
        panel = (folder / "study" / name).read_text().splitlines(keepends=True)
        assert len(panel) == 1 + len(CHROMOSOMES)
        (folder / "study" / name).write_text("".join(panel[: 1 + LD_CHROMOSOMES]))
    return folder / "study"


@pytest.fixture(scope="module")
def results(study, nextflow):
    """Return the results of the run on every chromosome."""
    folder = study.parent
    options = ["--genome_build", "GRCh37", "--tail_draws", 2000, "--scan_parts", 2]
    run = nextflow(folder, "-params-file", study / "study.yml", *options)
    assert run.returncode == 0, run.text
    return folder / "results"


def test_the_chain_completes(results):
    assert (results / "report.html").stat().st_size > 100_000
    assert (results / "study.rvga.h5").is_file()
    with h5py.File(results / "study.rvga.h5") as dataset:
        present = set(dataset["variants/chromosome"][...].tolist())
    assert present == set(CHROMOSOMES)


def test_every_variant_read_is_counted(results):
    """Rare variants are the only ones left out, and none lacks an estimate."""
    with h5py.File(results / "private/subjects.h5") as file:
        sample = [name.decode() for name in file["subject"][...]]
    n_common = 0
    for label in CHROMOSOMES:
        with open_genotypes(DATA / f"chr{label}.bed") as genotypes:
            count = genotypes.dosages(
                np.arange(genotypes.n_variants), genotypes.subject_index(sample)
            ).sum(axis=1)
        n_common += int((np.minimum(count, 2 * len(sample) - count) >= 20).sum())
    with h5py.File(results / "study.rvga.h5") as dataset:
        a = dataset["a"][...]
    assert len(a) == n_common > 50_000
    assert np.isfinite(a).all()


def test_voxels_agree_with_least_squares(results, study):
    found = compare(results, study, 20, plink_variants=2000, least_squares_variants=40)
    for differences in found:
        assert differences.n_voxels == 20
        assert differences.n_without_estimate == 0
        differences.check()
    assert sum(differences.n_variants for differences in found) >= 40


def test_planted_loci_with_power_are_found(results):
    planted = rows(results / "truth_loci.tsv")
    strong = [row for row in planted if float(row["power"]) >= 0.95]
    assert len(planted) == 4
    assert len(strong) >= 2
    assert [row["variant_id"] for row in strong if row["found"] != "yes"] == []


def test_every_locus_has_a_causal_variant(results, study):
    """Each lead is in LD with a causal variant near it.

    Within these dense windows of 1 Mb most variants are near some causal one, but only about a
    sixth of them are correlated with one.
    """
    with h5py.File(study / "truth.h5") as truth:
        causal = [name.decode() for name in truth["causal/variant_id"][...]]
        chromosome = truth["causal/chromosome"][...]
    loci = pd.read_csv(results / "loci/loci.tsv", sep="\t")
    assert len(loci) >= 4
    alone = []
    for label, here in loci.groupby("chromosome"):
        with open_genotypes(DATA / f"chr{label}.bed") as genotypes:
            table = genotypes.variants
            place = dict(zip(table["variant_id"], table.index, strict=True))
            others = np.array(
                [place[causal[row]] for row in np.flatnonzero(chromosome == label)], dtype=int
            )
            everybody = np.arange(len(genotypes.subject))
            for lead in here["lead_variant_id"]:
                position = table["base_pair_location"]
                near = others[np.abs(position[others] - position[place[lead]]) <= NEARBY]
                dosages = genotypes.dosages(np.append(near, place[lead]), everybody)
                r2 = [np.corrcoef(dosage, dosages[-1])[0, 1] ** 2 for dosage in dosages[:-1]]
                if not any(value >= LEAST_R2 for value in r2):
                    alone.append(lead)
    assert alone == []


def test_heritability_is_finite_everywhere(results):
    table = pd.read_csv(results / "heritability/heritability.tsv", sep="\t")
    raw = table[["heritability_raw", "standard_error_raw"]].to_numpy()
    assert len(raw) > 100
    assert np.isfinite(raw).all()
    assert (raw[:, 1] > 0).all()
    with h5py.File(results / "heritability/genetic_covariance.h5") as covariance:
        assert np.isfinite(covariance["Gamma"][...]).all()
