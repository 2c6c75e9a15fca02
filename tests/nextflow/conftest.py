"""Fixtures for runs of the pipeline on the engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Run, copy_pipeline, find_engine, once, runner
from helpers import run_stage

# What leads to the dataset; LD panels and traits only follow it.
STUDY_INPUTS = ("images", "mask", "genotypes", "covariates", "categorical_columns", "genome_build")


@pytest.fixture(scope="session")
def engine() -> str:
    """Return the Nextflow executable."""
    return find_engine()


@pytest.fixture(scope="session")
def nextflow(engine: str) -> Callable[..., Run]:
    """Return a function that runs ``nextflow run <pipeline> <arguments>`` in a folder."""
    return runner(engine)


@pytest.fixture(scope="session")
def pipeline_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the pipeline whose code a test may change."""
    return copy_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="session")
def chain_run(tmp_path_factory: pytest.TempPathFactory, nextflow) -> Run:
    """Return the finished run of the ``test`` profile, which simulates its study itself.

    It is done by a copy of the pipeline in ``pipeline``, whose code a test may change.
    """

    def make(folder: Path) -> Run:
        (folder / "pipeline").mkdir()
        pipeline = copy_pipeline(folder / "pipeline") / "main.nf"
        return kept(nextflow(folder, "-profile", "test", pipeline=pipeline), "results/test")

    return once(tmp_path_factory, "chain", make)


def kept(run: Run, outdir: str) -> Run:
    """Copy a run's results to ``kept``, for tests that read them when others run again."""
    if run.returncode == 0:
        shutil.copytree(run.folder / outdir, run.folder / "kept")
    return run


@pytest.fixture(scope="session")
def study_run(tmp_path_factory: pytest.TempPathFactory, nextflow) -> Run:
    """Return the finished run on images and genotypes of a ``small`` study, in ``study``.

    The first chromosome has complete calls, the second dosages, the third missing calls; there
    are several chunks a chromosome and several batches of images. The options of
    ``study_options`` run it again.
    """

    def make(folder: Path) -> Run:
        made = run_stage("simulate", "--preset", "small", "--seed", 3, "--out", folder / "study")
        assert made.returncode == 0, made.stderr
        lines = (folder / "study/study.yml").read_text().splitlines(keepends=True)
        inputs = [line for line in lines if line.partition(":")[0] in STUDY_INPUTS]
        assert len(inputs) == len(STUDY_INPUTS)
        (folder / "params.yml").write_text("".join(inputs))
        return kept(nextflow(folder, *study_options(folder)), "results")

    return once(tmp_path_factory, "study", make)


def study_options(folder: Path, chunk_variants: int = 300) -> list[object]:
    """Return the arguments of the run on a study."""
    return [
        "-params-file", folder / "params.yml", "--chunk_variants", chunk_variants,
        "--images_per_batch", 150, "--tail_draws", 1000, "--scan_parts", 1, "--all_hits", "true",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def study_arguments(study_run) -> list[object]:
    """Return the arguments of the finished run on the study."""
    return study_options(study_run.folder)
