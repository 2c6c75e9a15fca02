"""The pass over an LD reference: all variants or some of them, threads, pieces, what is read."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import h5py
import numpy as np
import pytest

from helpers import run_stage
from heritability_study import block_file, make_study, write_ld_reference
from rvga import genetic_covariance, ld_reference
from rvga import heritability as h
from rvga.dataset import MinimalDataset
from rvga.errors import InputError
from rvga.genetic_covariance import match_dataset, sum_over_blocks
from rvga.ld_reference import LdReference

# By shares of the variants of a block that are missing at random, or by place.
MISSING = ["none", "2 %", "10 %", "30 %", "an arm", "most of it"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a study and its reference of 14 blocks of 50 variants."""
    made = make_study(tmp_path_factory.mktemp("study"), n=300)
    blocks = block_file(made.folder, size=50)
    reference = write_ld_reference(made, run_stage, **{"ld-blocks": blocks})
    return made, reference


def thinned(match, missing: str):
    """Return the match with only some of the variants that both have."""
    row, m = match.row.copy(), len(match.row)
    if missing == "an arm":
        row[m // 6 : m // 2] = -1
    elif missing == "most of it":
        row[np.arange(m) % 3 > 0] = -1
    elif missing != "none":
        share = float(missing.split()[0]) / 100
        row[np.random.default_rng(3).permutation(m)[: round(share * m)]] = -1
    return replace(match, row=row)


def the_pass(dataset, reference, match, **options):
    return sum_over_blocks(dataset, reference, match, method="moments", workers=2, **options)


@pytest.mark.parametrize("with_trait", [False, True])
@pytest.mark.parametrize("missing", MISSING)
def test_sums_equal_those_of_whole_matrices(study, missing, with_trait):
    """From the stored correlations and M alone, in double, block by block."""
    made, path = study
    with MinimalDataset.open(made.dataset) as dataset, LdReference.open(path) as reference:
        match = thinned(match_dataset(dataset, reference), missing)
        effects = dataset.components()
        u = effects.beta * np.sqrt(effects.a / dataset.n)[:, None]
        u = np.where(match.row[:, None] >= 0, u[match.row] * match.sign[:, None], np.nan)
        trait = None
        if with_trait:
            trait = np.random.default_rng(1).normal(size=reference.m) / 20
            trait[::29] = np.nan
            u = np.column_stack([u, trait])
        found = the_pass(dataset, reference, match, trait=trait)
        people, total, used = (reference.n_a, reference.n_b), [], 0
        for first, stop, b in reference.blocks():
            matrices = (one.astype(float) for one in (b.M, b.R_a, b.R_b, b.T))
            total.append(h.block_moments(*matrices, u[first:stop], *people, b.t_1_ratio, dataset.n))
            used += np.isfinite(u[first:stop]).all(axis=1).sum()
    assert found.n_used == used == found.kept.sum()
    ours = found.weighted[0].total
    for name, relative in (
        ("quadratic", 1e-12), ("quartic", 1e-12), ("t_1", 1e-10), ("t_2", 1e-12), ("t_4", 1e-12),
    ):  # fmt: skip
        theirs = sum(np.asarray(getattr(one, name)) for one in total)
        size = relative * np.abs(theirs).max()
        np.testing.assert_allclose(getattr(ours, name), theirs, rtol=0, atol=size, err_msg=name)


@pytest.mark.parametrize(("method", "with_trait"), [("moments", False), ("balanced", True)])
def test_bytes_do_not_depend_on_threads_nor_on_how_much_is_read_at_once(
    study, monkeypatch, method, with_trait
):
    made, path = study
    found = []
    with MinimalDataset.open(made.dataset) as dataset, LdReference.open(path) as reference:
        match = thinned(match_dataset(dataset, reference), "2 %")
        trait = np.random.default_rng(1).normal(size=reference.m) / 20 if with_trait else None
        for workers, rows in ((1, 2048), (3, 2048), (2, 1), (2, 130)):
            monkeypatch.setattr(genetic_covariance, "_ROWS_AT_ONCE", rows)
            sums = sum_over_blocks(
                dataset, reference, match, method=method, workers=workers, trait=trait
            )
            each = [sums.equations.squares, sums.columns.t_1, sums.columns.t_2, *sums.q]
            for one in sums.weighted:
                total = one.total
                each += [total.quadratic, total.quartic, one.group_quadratic]
                each.append(np.array([total.t_1, total.t_2, total.t_4]))
            found.append(each)
    assert len(found[0]) == 3 + len(sums.q) + 4 * (1 + with_trait)
    for other in found[1:]:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("missing", ["none", "2 %", "an arm"])
def test_correlations_are_read_only_where_variants_are_missing(study, missing):
    made, path = study
    read = []

    class Watched(LdReference):
        def triangles(self, i):
            read.append(i)
            return super().triangles(i)

    with (
        MinimalDataset.open(made.dataset) as dataset,
        ld_reference.open_as(path, "ld", Watched) as reference,
    ):
        match = thinned(match_dataset(dataset, reference), missing)
        found = the_pass(dataset, reference, match)
        blocks = pairwise(reference.block_start)
        lacking = [i for i, (first, stop) in enumerate(blocks) if not found.kept[first:stop].all()]
    assert read == lacking
    assert bool(lacking) == (missing != "none")


def test_an_error_of_the_dataset_stops_the_pass(study):
    made, path = study
    with MinimalDataset.open(made.dataset) as dataset, LdReference.open(path) as reference:
        match = match_dataset(dataset, reference)
        match.row[-1] = dataset.m
        with pytest.raises(IndexError, match=f"of {dataset.m}"):
            the_pass(dataset, reference, match)


def test_damaged_blocks_are_told(study, tmp_path):
    """A byte of H that was changed is noticed where it is read, by its checksum."""
    made, path = study
    damaged = tmp_path / "damaged.ld.h5"
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        chunk = file["H"].id.get_chunk_info(0)
    content[chunk.byte_offset + 100] ^= 0xFF
    damaged.write_bytes(content)
    with MinimalDataset.open(made.dataset) as dataset, LdReference.open(damaged) as reference:
        match = match_dataset(dataset, reference)
        with pytest.raises(InputError, match="'H' cannot be read: the file is damaged"):
            the_pass(dataset, reference, match)
