"""The strict parser of later releases runs the same text with the same results."""

from __future__ import annotations

import pytest

from engine import REPOSITORY, results, runner

pytestmark = pytest.mark.xdist_group("nextflow-strict")


def test_small_study_by_the_strict_parser(tmp_path, chain_run):
    strict = REPOSITORY / ".engine/lint/bin/nextflow"
    if not strict.is_file():
        pytest.skip("Nextflow 25.04 is not in .engine/lint (make lint fetches it)")
    run = runner(str(strict))(
        tmp_path,
        "-profile",
        "test",
        environment={
            "NXF_SYNTAX_PARSER": "v2",
            "NXF_HOME": str(REPOSITORY / ".engine/lint/home"),
        },
    )
    assert run.returncode == 0, run.text
    assert "version 25.04" in run.text
    found, expected = results(tmp_path), results(chain_run.folder, "kept")
    assert set(found) == set(expected)
    # The report and its table of software name the engine's version.
    assert {name for name in found if found[name] != expected[name]} == {
        "report.html",
        "software_versions.tsv",
    }
