"""The same inputs give the same numbers, whatever their order and how they are cut into files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pgenlib
import pytest

import rvga_ld_blocks
from helpers import files_in, run_stage, run_stage_here
from heritability_study import block_file, heritability_args, make_study, write_ld_reference
from rvga.genetic_covariance import GeneticCovariance
from rvga.ld_reference import LdReference
from rvga.tables import read_table


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a study, its LD reference and the folder of its estimates."""
    made = make_study(tmp_path_factory.mktemp("study"))
    reference = write_ld_reference(made, run_stage, **{"ld-blocks": block_file(made.folder)})
    folder = tmp_path_factory.mktemp("result")
    estimate(made, reference, folder)
    return made, reference, folder


def estimate(made, reference: Path, folder: Path, sumstats: Path | None = None) -> None:
    """Write heritability and the correlation with the trait."""
    folder.mkdir(exist_ok=True)
    done = run_stage("heritability", heritability_args(made, reference, folder))
    assert done.returncode == 0, done.stderr
    done = run_stage(
        "cross_trait", "--dataset", made.dataset, "--ld-reference", reference,
        "--genetic-covariance", folder / "genetic_covariance.h5", "--trait", "height",
        "--sumstats", sumstats or made.sumstats, "--out", folder / "height.tsv",
        "--out-map", folder / "height.nii.gz", "--out-regions", folder / "height.regions.tsv",
        "--out-intercepts", folder / "height.intercepts.tsv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def require_same(folder: Path, other: Path) -> None:
    """All files of both folders have the same bytes."""
    assert files_in(folder) == files_in(other)
    for name in files_in(folder):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def read_panel(paths: list[Path]):
    """Return people, lines of variants and dosages (variants, people) of a panel's files."""
    lines, dosages = [], []
    for path in paths:
        people = path.with_suffix(".psam").read_text().splitlines()[1:]
        here = path.with_suffix(".pvar").read_text().splitlines()[1:]
        values = np.empty((len(here), len(people)), dtype=np.int8)
        with pgenlib.PgenReader(str(path).encode()) as reader:
            reader.read_range(0, len(here), values)
        lines += here
        dosages.append(values)
    return people, np.array(lines), np.vstack(dosages)


def write_panel(stem: Path, people, lines, dosages) -> Path:
    """Write a PLINK 2 set."""
    writer = pgenlib.PgenWriter(
        str(stem.with_suffix(".pgen")).encode(), dosages.shape[1], variant_ct=len(dosages),
        nonref_flags=False,
    )  # fmt: skip
    writer.append_biallelic_batch(np.ascontiguousarray(dosages))
    writer.close()
    stem.with_suffix(".pvar").write_text("\n".join(["#CHROM\tPOS\tID\tREF\tALT", *lines, ""]))
    stem.with_suffix(".psam").write_text("\n".join(["#IID\tSEX", *people, ""]))
    return stem.with_suffix(".pgen")


def test_order_of_people_and_variants_and_files_of_the_panels(study, tmp_path):
    """Panels with everything in another order, of one file or three, give the same bytes."""
    made, reference, folder = study
    rng = np.random.default_rng(3)
    panels = []
    for number, paths in enumerate((made.panel_1, made.panel_2)):
        people, lines, dosages = read_panel(paths)
        order, rows = rng.permutation(len(people)), rng.permutation(len(lines))
        people = [people[k] for k in order]
        # The first panel as one file, the second as three, each with a third of the variants.
        files = []
        for part, some in enumerate(np.array_split(rows, 1 + 2 * number)):
            stem = tmp_path / f"p{number}_{part}"
            files.append(write_panel(stem, people, lines[some], dosages[some][:, order]))
        panels.append(files[::-1])
    shuffled = made._replace(folder=tmp_path, panel_1=panels[0], panel_2=panels[1])
    other = write_ld_reference(shuffled, run_stage, **{"ld-blocks": block_file(tmp_path)})
    assert other.read_bytes() == reference.read_bytes()
    estimate(made, other, tmp_path / "out")
    require_same(tmp_path / "out", folder)


@pytest.mark.parametrize("size", [7, 100])
def test_pieces_in_which_panels_are_read(study, tmp_path, monkeypatch, size):
    """Only sums over variants are rounded in another way."""
    made, reference, folder = study
    monkeypatch.setattr(rvga_ld_blocks, "CHUNK", size)
    again = made._replace(folder=tmp_path)
    other = write_ld_reference(again, run_stage_here, **{"ld-blocks": block_file(tmp_path)})
    with LdReference.open(reference) as one, LdReference.open(other) as two:
        assert one.m == two.m
        assert one.block_start.tolist() == two.block_start.tolist()
        for (_, _, ours), (_, _, theirs) in zip(one.blocks(), two.blocks(), strict=True):
            np.testing.assert_array_equal(ours.M, theirs.M)
            np.testing.assert_allclose(ours.T, theirs.T, atol=1e-6)
    estimate(made, other, tmp_path / "out")
    for name, kind in (("heritability.tsv", "heritability"), ("height.tsv", "cross_trait")):
        ours, theirs = (read_table(at / name, kind) for at in (folder, tmp_path / "out"))
        for column in ours.select_dtypes("float64").columns:
            np.testing.assert_allclose(theirs[column], ours[column], rtol=1e-4, atol=1e-5)
    with (
        GeneticCovariance.open(folder / "genetic_covariance.h5") as one,
        GeneticCovariance.open(tmp_path / "out/genetic_covariance.h5") as two,
    ):
        np.testing.assert_allclose(two.moments.Gamma, one.moments.Gamma, rtol=1e-5, atol=1e-6)


def test_order_of_the_rows_of_a_trait(study, tmp_path):
    made, reference, folder = study
    header, *rows = made.sumstats.read_text().splitlines()
    order = np.random.default_rng(4).permutation(len(rows))
    table = tmp_path / "trait.tsv"
    table.write_text("\n".join([header, *(rows[k] for k in order), ""]))
    estimate(made, reference, tmp_path / "out", table)
    require_same(tmp_path / "out", folder)
