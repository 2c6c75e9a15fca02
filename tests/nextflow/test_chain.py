"""The whole chain on the smallest simulated study, for real."""

from __future__ import annotations

import csv
import gzip
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dataflow import REACHED, runs_again
from engine import results

pytestmark = pytest.mark.xdist_group("nextflow-chain")

OUT = "results/test"


@pytest.fixture(scope="module")
def finished(chain_run):
    """Return the finished run of the ``test`` profile."""
    return chain_run


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
    # The sentence is on top, then comes the engine's report of the task, then the sentence again.
    said = [line for line in run.text.splitlines() if line.startswith("ERROR ~")]
    assert said[0] == said[2]
    assert "Error executing process" in said[1]
    assert re.match(r"ERROR ~ READ_IMAGES \(batch 00001\): mask/\S*mask.nii.gz: ", said[0])
    assert len(said) == 3
    assert "Traceback" not in run.text
    assert run.tasks("results") == {"FAILED": {"READ_IMAGES (batch 00001)"}}
    assert not (tmp_path / "results/report.html").exists()
    # The engine's own report repeats messages, which may name a subject.
    assert (tmp_path / "results/private/execution_report.html").is_file()
    assert not (tmp_path / "results/pipeline_info/execution_report.html").exists()


def in_bytes(text: str) -> float:
    """Return the bytes of a size as the engine's trace writes it (``1.5 GB``)."""
    # A task that ends within the first look at it has none.
    number, unit = (*text.split(), "B")[:2] if text != "-" else ("0", "B")
    return float(number) * 1024 ** ["B", "KB", "MB", "GB"].index(unit)


def test_the_plan_is_printed_before_the_first_task_of_the_study_and_comes_true(finished):
    lines = finished.text.splitlines()
    first = next(row for row, line in enumerate(lines) if line.startswith("Plan of the run"))
    after = next(row for row, line in enumerate(lines) if "READ_IMAGES" in line)
    assert first < after
    last = next(row for row in range(first, len(lines)) if lines[row].startswith("  total: "))
    planned = {line.split()[0]: line.split() for line in lines[first + 2 : last]}
    done: dict[str, int] = {}
    for row in finished.trace("kept"):
        name = row["name"].split(" ")[0].split(":")[-1].lower()
        done[name] = done.get(name, 0) + 1
    counted = {name: int(cells[1]) for name, cells in planned.items()} | {"simulate": 1}
    # A task a chromosome, but only where something is significant.
    assert 1 <= done.pop("clump_variants") <= counted.pop("clump_variants") == 3
    assert counted == done


def test_tasks_ask_for_the_memory_that_they_state_and_take(finished):
    stated = 0
    for row in finished.trace("kept"):
        [work] = (finished.folder / "work").glob(f"{row['hash']}*")
        asked = in_bytes(row["memory"])
        assert in_bytes(row["peak_rss"]) < asked, row["name"]
        said = re.findall(r"^memory: about ([\d,]+) MiB", (work / ".command.err").read_text(), re.M)
        for number in said:
            stated += 1
            assert int(number.replace(",", "")) * 2**20 < asked, row["name"]
    assert stated > 10


def test_the_end_tells_stages_findings_and_memory(finished):
    text = finished.text
    assert re.search(r"^stage +tasks +from cache +tried again +time of all", text, re.MULTILINE)
    assert re.search(r"^component_gwas +\d+ +0 +0 +\S+", text, re.MULTILINE)
    loci = len(rows(finished.folder / "kept/loci/loci.tsv"))
    assert f"Found: {loci} loci" in text
    assert re.search(r"^Done in .* of memory in a task\.$", text, re.MULTILINE)


def test_what_runs_again_after_options_and_code(finished, nextflow):
    """An early option, a late one and changed code; going back, all is as in the first run."""
    before = results(finished.folder)
    pipeline = finished.folder / "pipeline"
    after_selection = runs_again({"SELECT_SUBJECTS"}, REACHED)

    def resumed(*arguments):
        options = ("-profile", "test", "-resume", *arguments)
        run = nextflow(finished.folder, *options, pipeline=pipeline / "main.nf")
        assert run.returncode == 0, run.text
        again = run.processes("COMPLETED")
        assert again | run.processes("CACHED") == REACHED
        return again

    assert resumed("--min_coverage", "0.9") == after_selection
    assert "READ_IMAGES" not in after_selection
    assert resumed("--clump_r2", "0.2") == {"CLUMP_VARIANTS", "FIND_LOCI", "REPORT"}
    assert results(finished.folder) != before
    with (pipeline / "bin/rvga/report.py").open("a") as code:
        code.write("\n# Changed.\n")
    # Loci are made before; the report runs by its new code and comes out the same.
    assert resumed() == {"REPORT"}
    assert results(finished.folder) == before
