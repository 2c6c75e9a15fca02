"""The container image, and the pipeline inside it."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from engine import REPOSITORY, results
from rvga.version import VERSION

pytestmark = pytest.mark.xdist_group("container")


def inside(image, *command: str) -> str:
    """Return what a command prints inside the image."""
    return subprocess.run(
        ["ch-run", "--set-env", str(image), "--", *command],
        env={**os.environ, "USER": os.environ.get("USER", "root")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_packages_are_those_of_the_lock_and_no_code_of_ours(image):
    def plain(name: str) -> str:
        return re.sub("[-_.]+", "-", name).lower()

    listed = json.loads(inside(image, "python", "-m", "pip", "list", "--format=json"))
    installed = {plain(row["name"]): row["version"] for row in listed}
    locked = dict(
        line.split(" ")[0].split("==")
        for line in (REPOSITORY / "containers/requirements.lock").read_text().splitlines()
        if "==" in line and not line.startswith(("#", " "))
    )
    assert locked
    assert {name: installed.get(plain(name)) for name in locked} == locked
    assert not list(image.glob("opt/rvga/lib/python3*/site-packages/rvga*"))
    assert "PLINK v2" in inside(image, "plink2", "--version")
    assert not (image / "usr/bin/gcc").exists()


def test_image_says_what_it_is_and_has_a_user_without_rights(image):
    said = json.loads(image.with_suffix(".json").read_text())["OCIv1"]["config"]
    assert said["User"] == "rvga"
    assert said["Labels"]["org.opencontainers.image.title"] == "rvga"
    assert said["Labels"]["org.opencontainers.image.version"] == VERSION
    assert not list((image / "var/lib/apt/lists").glob("*_Packages*"))


def test_results_equal_those_of_a_run_without_a_container(tmp_path, image, nextflow, local_run):
    run = nextflow(tmp_path, "-profile", "test,charliecloud", "--container", image)
    assert run.returncode == 0, run.text
    ours, theirs = results(tmp_path), results(local_run.folder)
    # Two builds of Python name themselves in the table of versions.
    for name in ("software_versions.tsv", "report.html"):
        assert ours.pop(name)
        theirs.pop(name)
    assert ours == theirs
