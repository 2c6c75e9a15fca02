"""The whole chain on the smallest simulated study, for real."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytestmark = pytest.mark.xdist_group("nextflow-chain")

OUT = "results/test"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, nextflow):
    """Return the finished run of the ``test`` profile."""
    run = nextflow(tmp_path_factory.mktemp("chain"), "-profile", "test")
    assert run.returncode == 0, run.text
    return run


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a tab-separated table."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def test_report_is_one_file_that_needs_no_other(finished):
    report = finished.folder / OUT / "report.html"
    text = report.read_text()
    assert str(report) in finished.text
    assert "</html>" in text
    for address in ('src="http', "src='http", '<link rel="stylesheet"', "<script src"):
        assert address not in text


def test_every_result_is_published_where_the_table_says(finished):
    out = finished.folder / OUT
    text = """bases.h5 test.rvga.h5 report.html software_versions.tsv truth_comparison.tsv
        truth_loci.tsv private/subjects.h5 private/ldrs.h5 private/ldrs.tsv private/null.h5
        loci/tail.h5 loci/variants.tsv.gz loci/voxels.tsv loci/loci.tsv loci/lead_variants.tsv
        ld_reference/panel.ld.h5 heritability/heritability.tsv heritability/heritability.nii.gz
        heritability/genetic_correlation.tsv heritability/regions.tsv
        heritability/genetic_covariance.h5 heritability/intercepts.tsv
        cross_trait/cross_trait_regions.tsv pipeline_info/params.json
        pipeline_info/trace.tsv"""
    assert [name for name in text.split() if not (out / name).is_file()] == []
    assert list((out / "cross_trait").glob("*.tsv"))
    assert list(out.rglob("images.*.h5")) == []


def test_tables_agree_with_each_other(finished):
    out = finished.folder / OUT
    voxels = rows(out / "loci/voxels.tsv")
    assert len(voxels) == len(rows(out / "heritability/heritability.tsv")) > 100
    variants = rows(out / "loci/variants.tsv.gz")
    assert len(variants) > 100
    known = {row["variant_id"] for row in variants}
    assert {row["lead_variant_id"] for row in rows(out / "loci/loci.tsv")} <= known


def test_comparison_with_the_truth_is_printed(finished):
    table = rows(finished.folder / OUT / "truth_comparison.tsv")
    assert table
    for row in table:
        assert row["quantity"] in finished.text


def test_no_subject_id_outside_private(finished):
    out = finished.folder / OUT
    subjects = {row["subject"].encode() for row in rows(out / "private/ldrs.tsv")}
    assert len(subjects) > 20
    for path in out.rglob("*"):
        if path.is_file() and "private" not in path.parts:
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            assert not [name for name in subjects if len(name) > 3 and name in content], path


def test_parameters_of_the_run_are_kept(finished):
    kept = json.loads((finished.folder / OUT / "pipeline_info/params.json").read_text())
    assert kept["simulate"] == "small"
    assert kept["significance_level"] == 5e-8
    assert "outdir" not in kept


def test_everything_is_cached_the_second_time(finished, nextflow):
    again = nextflow(finished.folder, "-profile", "test", "-resume")
    assert again.returncode == 0, again.text
    assert set(again.tasks()) == {"CACHED"}


def test_a_stage_s_own_message_reaches_the_user(tmp_path, nextflow):
    """A mask that is no NIfTI file: the task fails once, with the entrypoint's sentence."""
    (tmp_path / "mask.nii.gz").write_text("no image")
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    (tmp_path / "covariates.tsv").write_text("subject\tage\na\t1\n")
    (tmp_path / "images.csv").write_text("subject,image\na,a.nii.gz\n")
    run = nextflow(
        tmp_path,
        "--images",
        "images.csv",
        "--mask",
        "mask.nii.gz",
        "--covariates",
        "covariates.tsv",
    )
    assert run.returncode == 2
    last = [line for line in run.text.splitlines() if line.startswith("ERROR ~")][-1]
    assert "mask.nii.gz" in last
    assert "READ_IMAGES" in last
    assert "Traceback" not in run.text
    assert run.tasks("results") == {"FAILED": {"READ_IMAGES (batch 00001)"}}
    assert not (tmp_path / "results/report.html").exists()
    # The engine's own report repeats messages, which may name a subject.
    assert (tmp_path / "results/private/execution_report.html").is_file()
    assert not (tmp_path / "results/pipeline_info/execution_report.html").exists()
