"""What the tests share: running an entrypoint as its own process."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = REPOSITORY / "bin"
TEST_DATA = Path(os.environ.get("RVGA_TEST_DATA", REPOSITORY / "../shared/data"))


class StageResult(NamedTuple):
    """How an entrypoint ended: exit status and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def run_stage(
    stage: str, *args: object, cwd: Path | None = None, timeout: float = 120
) -> StageResult:
    """Run an entrypoint: the first of each stage as its own process, later ones within this one.

    Arguments are turned to text; a list or tuple among them is spread. ``--threads 1`` is
    added when no number of threads is given. To start a process and import what it needs takes
    longer than most of what is tested.
    """
    if cwd is None and stage in _STARTED:
        return run_stage_here(stage, *args)
    _STARTED.add(stage)
    return run_stage_process(stage, *args, cwd=cwd, timeout=timeout)


_STARTED: set[str] = set()


def run_stage_process(
    stage: str, *args: object, cwd: Path | None = None, timeout: float = 120
) -> StageResult:
    """Run ``bin/rvga_<stage>.py`` with the current interpreter, as :func:`run_stage` says."""
    done = subprocess.run(
        [sys.executable, str(BIN / f"rvga_{stage}.py"), *_words(args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        check=False,
    )
    return StageResult(done.returncode, done.stdout, done.stderr)


def run_stage_here(stage: str, *args: object) -> StageResult:
    """Run an entrypoint's ``main`` as its script would, but within this process."""
    from rvga import cli

    main = importlib.import_module(f"rvga_{stage}").main
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        try:
            cli.run(main, _words(args))
        except SystemExit as end:
            status = int(end.code or 0)
    return StageResult(status, out.getvalue(), errors.getvalue())


def _words(args: Sequence[object]) -> list[str]:
    words: list[str] = []
    for arg in args:
        words.extend(map(str, arg) if isinstance(arg, (list, tuple)) else [str(arg)])
    return words if "--threads" in words else [*words, "--threads", "1"]


def files_in(folder: Path) -> set[str]:
    """Return the names of all files below a folder, hidden ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class ImageStudy(NamedTuple):
    """A small study on disk, as :func:`make_image_study` writes it."""

    folder: Path
    subjects: list[str]
    images: list[Path]
    mask: Path
    covariates: Path
    psam: Path
    volumes: np.ndarray
    inside: np.ndarray

    def read_images(self, out: Path, rows: list[int] | None = None) -> StageResult:
        """Run READ_IMAGES over some of the subjects."""
        rows = list(range(len(self.subjects))) if rows is None else rows
        ids = out.with_suffix(".txt")
        ids.write_text("".join(self.subjects[row] + "\n" for row in rows))
        return run_stage(
            "read_images",
            *("--images", [self.images[row] for row in rows]),
            *("--subjects", ids, "--mask", self.mask, "--out", out),
        )

    def select(self, batches: list[Path], out: Path, *options: object) -> StageResult:
        """Run SELECT_SUBJECTS with the study's covariates and samples."""
        given = [str(option) for option in options]
        defaults: list[object] = []
        if "--covariates" not in given:
            defaults += ["--covariates", self.covariates, "--categorical-columns", "site"]
        if "--samples" not in given:
            defaults += ["--samples", self.psam]
        if "--out-coverage" not in given:
            defaults += ["--out-coverage", out.with_name("coverage.nii.gz")]
        return run_stage("select_subjects", "--images", batches, *defaults, *options, "--out", out)


def write_nifti(path: Path, volume: np.ndarray, affine: np.ndarray) -> Path:
    """Write a NIfTI-1 file."""
    import nibabel

    nibabel.Nifti1Image(volume, affine).to_filename(path)
    return path


def write_surface(path: Path, structure: str, points: np.ndarray, triangles: np.ndarray) -> Path:
    """Write a GIFTI surface."""
    import nibabel

    meta = nibabel.gifti.GiftiMetaData(
        {"AnatomicalStructurePrimary": structure} if structure else {}
    )
    arrays = [
        nibabel.gifti.GiftiDataArray(points, intent="NIFTI_INTENT_POINTSET", meta=meta),
        nibabel.gifti.GiftiDataArray(triangles, intent="NIFTI_INTENT_TRIANGLE"),
    ]
    path.write_bytes(nibabel.gifti.GiftiImage(darrays=arrays).to_bytes())
    return path


def write_metric(path: Path, values: np.ndarray) -> Path:
    """Write values of vertices in the format that the name tells."""
    import nibabel

    values = np.asarray(values, dtype=np.float32)
    if path.name.endswith(".gii"):
        array = nibabel.gifti.GiftiDataArray(values, datatype="NIFTI_TYPE_FLOAT32")
        path.write_bytes(nibabel.gifti.GiftiImage(darrays=[array]).to_bytes())
    elif path.name.endswith((".mgh", ".mgz")):
        nibabel.MGHImage(values.reshape(-1, 1, 1), np.eye(4)).to_filename(path)
    elif path.name.endswith(".txt"):
        path.write_text("\n".join(str(value) for value in values) + "\n")
    else:
        nibabel.freesurfer.write_morph_data(path, values)
    return path


def write_maps(path: Path, maps: np.ndarray, names: list[str] | None = None) -> Path:
    """Write a GIFTI file of several maps, with their names."""
    import nibabel

    arrays = [
        nibabel.gifti.GiftiDataArray(
            np.asarray(values, dtype=np.float32),
            meta=nibabel.gifti.GiftiMetaData({"Name": name}) if name else None,
        )
        for values, name in zip(maps, names or [""] * len(maps), strict=True)
    ]
    path.write_bytes(nibabel.gifti.GiftiImage(darrays=arrays).to_bytes())
    return path


def write_cifti(path: Path, maps: np.ndarray, names: list[str]) -> Path:
    """Write CIFTI dense scalars (maps, 2 v) of two cortices of v vertices."""
    from nibabel.cifti2 import BrainModelAxis, Cifti2Image, ScalarAxis

    v = maps.shape[1] // 2
    left, right = (
        BrainModelAxis.from_surface(np.arange(v), v, f"CORTEX_{side}") for side in ("LEFT", "RIGHT")
    )
    axes = (ScalarAxis(names), left + right)
    Cifti2Image(maps.astype(np.float32), header=axes).to_filename(path)
    return path


def make_image_study(folder: Path, n: int = 24, seed: int = 3) -> ImageStudy:
    """Write smooth random images on a 6 x 5 x 4 grid, covariates and a .psam file.

    Subjects are not in the order of their bytes, and the table of covariates is in yet another.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    shape = (6, 5, 4)
    affine = np.array([[2.0, 0, 0, -5], [0, 2, 0, -4], [0, 0, 2, -3], [0, 0, 0, 1]])
    inside = np.ones(shape, dtype=bool)
    inside[0, 0, :] = False
    mask = write_nifti(folder / "mask.nii.gz", inside.astype(np.uint8), affine)
    subjects = [f"s{number:03d}" for number in rng.permutation(n)]
    grid = np.indices(shape).reshape(3, -1).T
    waves = np.cos(grid @ rng.normal(size=(3, 6)) * 0.8)
    scores = rng.normal(size=(n, 6)) * np.array([5, 4, 3, 2, 1, 1])
    volumes = scores @ waves.T + 0.5 * rng.normal(size=(n, grid.shape[0])) + 10
    volumes = volumes.reshape(n, *shape).astype(np.float32)
    (folder / "images").mkdir(exist_ok=True)
    images = [
        write_nifti(folder / "images" / f"{subject}.nii.gz", volume, affine)
        for subject, volume in zip(subjects, volumes, strict=True)
    ]
    covariates = folder / "covariates.tsv"
    lines = ["subject\tage\tsex\tsite"]
    for subject in rng.permutation(subjects):
        age, sex = rng.uniform(40, 80), rng.integers(0, 2)
        lines.append(f"{subject}\t{age:.3f}\t{sex}\t{'abc'[rng.integers(0, 3)]}")
    covariates.write_text("\n".join(lines) + "\n")
    psam = folder / "study.psam"
    psam.write_text("#FID\tIID\tSEX\n" + "".join(f"f{s}\t{s}\t1\n" for s in sorted(subjects)))
    return ImageStudy(folder, subjects, images, mask, covariates, psam, volumes, inside)


def selected_study(folder: Path, n: int = 24) -> tuple[ImageStudy, Path, Path]:
    """Return a study after READ_IMAGES and SELECT_SUBJECTS, its images file and subjects file."""
    study = make_image_study(folder, n=n)
    images, subjects = folder / "images.h5", folder / "subjects.h5"
    for done in (study.read_images(images), study.select([images], subjects)):
        assert done.returncode == 0, done.stderr
    return study, images, subjects


def represented_study(
    folder: Path, components: int, *, ldrs: bool = False
) -> tuple[ImageStudy, Path, Path, Path]:
    """Return a study as :func:`selected_study` does, and its bases file; or its LDRs file."""
    study, images, subjects = selected_study(folder)
    bases, scores, out = folder / "bases.h5", folder / "scores.h5", folder / "ldrs.h5"
    given = ("--subjects", subjects)
    stages: list[tuple] = [
        ("fit_bases", "--images", images, *given, "--components", components, "--out", bases)
    ]
    if ldrs:
        given = (*given, "--bases", bases)
        stages += [
            ("project_images", "--images", images, *given, "--out", scores),
            ("make_ldrs", "--scores", scores, *given, "--out", out, "--table", folder / "ldrs.tsv"),
        ]
    for stage, *options in stages:
        done = run_stage(stage, *options)
        assert done.returncode == 0, done.stderr
    return study, images, subjects, out if ldrs else bases
