"""A finished run against independent least squares (design: exactness after int16 coding)."""

from __future__ import annotations

import shutil

import pytest

from exactness import compare

pytestmark = pytest.mark.xdist_group("nextflow-study")

VOXELS = 20


@pytest.fixture(scope="module")
def finished(study_run):
    """Return results and study of the run on the ``small`` study's images and genotypes."""
    return study_run.folder / "kept", study_run.folder / "study"


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
