"""A finished run against independent least squares (design: exactness after int16 coding)."""

from __future__ import annotations

import shutil

import pytest

from exactness import compare
from helpers import run_stage

pytestmark = pytest.mark.xdist_group("nextflow-exactness")

VOXELS = 20
# What leads to the dataset; the LD panels and the trait only follow it.
INPUTS = ("images", "mask", "genotypes", "covariates", "categorical_columns", "genome_build")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, nextflow):
    """Return results and study of a run on the ``small`` study's images and genotypes.

    Its first chromosome has complete calls, its second dosages, its third missing calls.
    """
    folder = tmp_path_factory.mktemp("exactness")
    made = run_stage("simulate", "--preset", "small", "--seed", 3, "--out", folder / "study")
    assert made.returncode == 0, made.stderr
    lines = (folder / "study/study.yml").read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.partition(":")[0] in INPUTS]
    assert len(kept) == len(INPUTS)
    (folder / "params.yml").write_text("".join(kept))
    # Several chunks a chromosome and several batches of images.
    options = ["--chunk_variants", 300, "--images_per_batch", 150, "--tail_draws", 2000]
    run = nextflow(folder, "-params-file", folder / "params.yml", "--scan_parts", 1, *options)
    assert run.returncode == 0, run.text
    return folder / "results", folder / "study"


@pytest.fixture(scope="module")
def differences(finished):
    """Return the differences by oracle."""
    return {found.oracle: found for found in compare(*finished, VOXELS)}


def test_plink_agrees_where_no_genotype_is_missing(differences):
    if shutil.which("plink2") is None:
        pytest.skip("plink2 is not installed")
    found = differences["PLINK 2"]
    assert found.n_voxels == VOXELS
    # Two of the three chromosomes, one of them with dosages, less the rarest variants.
    assert found.n_variants > 800
    assert found.n_without_estimate == 0
    found.check()


def test_least_squares_on_mean_imputed_dosages_agree(differences):
    found = differences["statsmodels"]
    assert found.n_voxels == VOXELS
    assert found.n_variants == 60
    assert found.n_without_estimate == 0
    found.check()


def test_the_comparison_notices_another_sample(finished, tmp_path):
    """Two people's covariates exchanged: the rule is not kept any more."""
    results, study = finished
    copy = tmp_path / "study"
    copy.mkdir()
    shutil.copytree(study / "genotypes", copy / "genotypes")
    shutil.copy(study / "genotypes.csv", copy)
    lines = (study / "covariates.tsv").read_text().splitlines()
    first, second = [row for row, line in enumerate(lines) if "NA" not in line][1:3]
    ids = [lines[row].split("\t", 1) for row in (first, second)]
    lines[first], lines[second] = f"{ids[0][0]}\t{ids[1][1]}", f"{ids[1][0]}\t{ids[0][1]}"
    (copy / "covariates.tsv").write_text("\n".join(lines) + "\n")
    wrong = compare(results, copy, 4, least_squares_variants=6, plink_variants=6)
    for found in wrong:
        with pytest.raises(AssertionError, match="beta_in_se"):
            found.check()
