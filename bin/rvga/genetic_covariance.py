"""From a minimal dataset and an LD reference to heritability and genetic correlation of voxels.

Examples
--------
>>> with GeneticCovariance.open("genetic_covariance.h5") as covariance:  # doctest: +SKIP
...     h2, error = covariance.heritability()
...     rho, error = covariance.row(17)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from rvga import balance, bands
from rvga import heritability as moments
from rvga.dataset import MinimalDataset
from rvga.errors import InputError
from rvga.false_discovery import false_discovery_rate
from rvga.formats import Envelope, open_as
from rvga.geometry import Geometry, geometry_of
from rvga.jackknife import group_starts, jackknife_standard_error, number_of_groups
from rvga.ld_products import N_CLASSES, SeenBlock, class_of, project_scores
from rvga.ld_reference import LdReference, StoredBlock
from rvga.parallel import ordered_map, read_ahead
from rvga.published import adjusted_ld_scores, cross_trait_intercepts
from rvga.sumstats import match_variants

FEWEST_SHARED = 200
LEAST_SHARE_OF_REFERENCE = 0.1
JACKKNIFE_GROUPS = 200
# Variants whose effects are read at once.
_ROWS_AT_ONCE = 2048
# Python with its libraries, before any data.
INTERPRETER_BYTES = 150 << 20


@dataclass(frozen=True)
class Match:
    """Where a table's variants are among those of an LD reference.

    Attributes
    ----------
    row : (m,) int64
        Row of the table for each reference variant, -1 where absent.
    sign : (m,) float64
        -1 where effect and other allele are swapped.
    counts : dict
        Numbers for the summary.
    """

    row: np.ndarray
    sign: np.ndarray
    counts: dict[str, int]


def match_dataset(dataset: MinimalDataset, reference: LdReference) -> Match:
    """Match a dataset's variants to a reference by position and alleles.

    Raises
    ------
    InputError
        They share too few variants.
    """
    row, sign, repeated = match_variants(reference.variants, dataset.variants)
    hit = row >= 0
    require_enough(int(hit.sum()), reference.m, dataset.path.name, reference.path.name)
    counts = {
        "n_reference_variants": reference.m,
        "n_dataset_variants": dataset.m,
        "n_shared_variants": int(hit.sum()),
        "n_alleles_swapped": int((sign[hit] < 0).sum()),
        "n_repeated_in_dataset": repeated,
    }
    return Match(row, sign, counts)


def require_enough(shared: int, m: int, first: str, second: str) -> None:
    """Refuse fewer shared variants than 200 or a tenth of the reference.

    Raises
    ------
    InputError
        With both numbers.
    """
    floor = max(FEWEST_SHARED, int(np.ceil(LEAST_SHARE_OF_REFERENCE * m)))
    if shared < floor:
        raise InputError(
            f"{first} and {second} share {shared} of the reference's {m} variants by position and "
            f"alleles (at least {floor} are needed); are they of the same genome build?"
        )


@dataclass(frozen=True)
class Columns:
    """Traces by column of M, all blocks one after another, over the variants that have scores.

    Attributes
    ----------
    start : (b + 1,) int64
        First column of each block, then their number.
    t_1, t_2 : (y,)
        Diagonals of M'D R D M, in a study of n people, and of M'D T D M.
    class_trace : (y, N_CLASSES)
        As in :class:`rvga.ld_products.BlockProducts`.
    class_size : (N_CLASSES,)
        Variants of the reference in each class.
    """

    start: np.ndarray
    t_1: np.ndarray
    t_2: np.ndarray
    class_trace: np.ndarray
    class_size: np.ndarray


class WeightedSums:
    """Sums of û'Ωû and its traces for one choice of the weights of M's columns, Ω = M C M'.

    Attributes
    ----------
    weight : (y,) or None
        Weight of each column of M, all blocks one after another; None is 1.
    total : BlockMoments
        Over all blocks.
    group_quadratic, group_t_1, group_t_2 : (g, c, c), (g,), (g,)
        By group of blocks.
    block_t_1, block_t_4 : (b,)
    """

    def __init__(self, weight: np.ndarray | None, group: np.ndarray, c: int):
        self.weight, self._group = weight, group
        self.total = moments.BlockMoments(np.zeros((c, c)), np.zeros((c, c)), 0.0, 0.0, 0.0)
        groups = int(group.max()) + 1
        self.group_quadratic = np.zeros((groups, c, c))
        self.group_t_1, self.group_t_2 = np.zeros((2, groups))
        self.block_t_1, self.block_t_4 = np.zeros((2, len(group)))

    def add(self, i: int, part: moments.BlockMoments) -> None:
        """Add the sums of block i."""
        g = self._group[i]
        self.total = self.total + part
        self.group_quadratic[g] += part.quadratic
        self.group_t_1[g] += part.t_1
        self.group_t_2[g] += part.t_2
        self.block_t_1[i], self.block_t_4[i] = part.t_1, part.t_4


def weights_of(
    reference: LdReference, n: float, method: str, *, trait: bool
) -> list[np.ndarray | None]:
    """Return the weights of M's columns that a method's sums are taken with, each (y,).

    They are of the reference and the study's size alone, over all variants of the reference.
    'balanced' has those for heritability and those for correlations, with a trait the latter
    first; others have the weight 1 (None).

    Raises
    ------
    ValueError
        The traces of the reference are not positive.
    """
    if method != "balanced":
        return [None]
    columns = reference.columns
    equation = balance.equations(columns["share"], reference.column_start)
    t_1, t_2 = columns["t_1"], columns["t_2"]
    precise = balance.precise_weights(equation, t_1, t_2, float(reference.m), n)
    size = np.bincount(class_of(reference.ld_score), minlength=N_CLASSES)
    traces, size = balance.class_traces(columns["class_trace"], t_2, size)
    balanced = balance.balanced_weights(equation, t_1, t_2, traces, size, n)
    return [precise, balanced] if trait else [balanced, precise]


@dataclass(frozen=True)
class Sums:
    """Sums over all blocks of a reference, and by group of blocks for the jackknife.

    Attributes
    ----------
    weighted : list of WeightedSums
        One for each of :func:`weights_of`; with a trait those after the first of the trait alone.
    group : (b,) int64
        Group of each block.
    row : (b,) int64
        Which A of the dataset each block's scores have: that of its chromosome.
    equations : Equations or None
        One for each block and band; None as published. Noise in ``squares`` is Σ/(n - p)
        everywhere: what offsets of a chromosome take off is put back.
    columns : Columns or None
        Traces by column of M; None as published.
    kept : (m,) bool
        Variants that have scores.
    ld_score : (m,)
        LD scores within blocks; as published from panel 1 as one, else from its halves.
    q : tuple of (k, c) arrays
        M'Dû of each block, which the band regression needs when its weights are known; empty as
        published.
    n_used, n_blocks_used : int
    """

    weighted: list[WeightedSums]
    group: np.ndarray
    row: np.ndarray
    equations: bands.Equations | None
    columns: Columns | None
    kept: np.ndarray
    ld_score: np.ndarray
    q: tuple[np.ndarray, ...]
    n_used: int
    n_blocks_used: int


def sum_over_blocks(
    dataset: MinimalDataset,
    reference: LdReference,
    match: Match,
    *,
    method: str,
    workers: int,
    trait: np.ndarray | None = None,
    progress=lambda items, total: items,
) -> Sums:
    """Pass once over the reference, block by block (method 5b; 5 when published).

    Parameters
    ----------
    method : {"balanced", "moments", "bands", "published"}
    workers : int
        Blocks worked on at once; the result does not depend on it.
    trait : (m,), optional
        û of an external trait by reference variant, NaN where absent; it becomes the last
        column, and only variants that both have are used.
    progress : callable
        Wraps the iteration: (items, total) -> items.
    """
    sizes = np.diff(reference.block_start)
    c = dataset.r + (trait is not None)
    samples = sample_of(dataset.r, trait is not None)
    published = method == "published"
    number = JACKKNIFE_GROUPS if published else number_of_groups(len(sizes), JACKKNIFE_GROUPS)
    group = group_starts(sizes, number)
    number = len(bands.EDGES)
    weights = weights_of(reference, float(dataset.n), method, trait=trait is not None)
    # With a trait the other weights are for its own heritability alone.
    alone = [k > 0 and trait is not None for k in range(len(weights))]
    weighted = [
        WeightedSums(weight, group, 1 if one else c)
        for weight, one in zip(weights, alone, strict=True)
    ]
    band_t_1, band_t_2 = np.zeros((2, len(sizes), number))
    squares = np.zeros((len(sizes), number, int(samples.max()) + 1))
    ld_score = np.zeros(reference.m) if published else reference.ld_score
    kept = np.zeros(reference.m, dtype=bool)
    projected: list[np.ndarray] = []
    row = np.zeros(len(sizes), dtype=np.int64)
    columns = None
    if not published:
        start, _ = reference.column_start, reference.columns
        columns = Columns(
            start, np.zeros(start[-1]), np.zeros(start[-1]), np.zeros((start[-1], N_CLASSES)),
            np.bincount(class_of(ld_score), minlength=N_CLASSES),
        )  # fmt: skip

    def inputs() -> Iterator[tuple]:
        for i, one in enumerate(_scores_by_block(dataset, reference.block_start, match, trait)):
            row[i] = one.A
            kept[reference.block_start[i] : reference.block_start[i + 1]] = one.kept
            yield i, one, one.kept, reference.stored(i, one.kept, with_M=True)

    def published_inputs() -> Iterator[tuple]:
        for i, (first, stop) in enumerate(pairwise(reference.block_start)):
            scores, row[i] = _all_scores(dataset, match, first, stop, method, trait)
            kept[first:stop] = np.isfinite(scores).all(axis=1)
            yield i, scores, kept[first:stop], reference.block(i)

    def work(item: tuple):
        i, scores, here, block = item
        used = int(here.sum())
        if published:
            n = reference.n_a, reference.n_b
            part = moments.published_block_moments(
                block.M, block.share, block.R_a, block.R_b, scores, *n
            )
            R_1 = (n[0] * block.R_a + n[1] * block.R_b) / np.float32(sum(n))
            return [part], used, adjusted_ld_scores(R_1, sum(n)), None
        M = block.M.astype(np.float64)
        products, block_t_1 = block.seen(M, dataset.n)
        q = project_scores(M, scores.values(dataset.n))
        band = bands.band_of(reference.columns_of(i, "share"))
        seen = SeenBlock(q, products, block_t_1, block.share_a, band)
        by_column = [seen.t_1, seen.t_2]
        by_column += [
            np.einsum("kc,kc->k", *[seen.q[:, samples == a]] * 2) for a in range(squares.shape[2])
        ]
        by_band = bands.band_sums(np.stack(by_column, axis=1), band, number)
        at = slice(columns.start[i], columns.start[i + 1])
        trait_seen = replace(seen, q=np.ascontiguousarray(q[:, -1:]))
        parts = [
            moments.moments_of(trait_seen if single else seen, None if one is None else one[at])
            for one, single in zip(weights, alone, strict=True)
        ]
        return parts, used, None, (by_band, seen)

    n_used = n_blocks_used = 0
    items = published_inputs() if published else read_ahead(inputs(), workers)
    done = progress(ordered_map(work, items, workers), len(sizes))
    for i, (parts, used, block_score, more) in enumerate(done):
        for one, part in zip(weighted, parts, strict=True):
            one.add(i, part)
        n_used += used
        n_blocks_used += used > 0
        if published:
            ld_score[reference.block_start[i] : reference.block_start[i + 1]] = block_score
            continue
        by_band, seen = more
        band_t_1[i], band_t_2[i], squares[i] = by_band[:, 0], by_band[:, 1], by_band[:, 2:]
        here = slice(columns.start[i], columns.start[i + 1])
        columns.t_1[here], columns.t_2[here] = seen.t_1, seen.t_2
        columns.class_trace[here] = seen.products.class_trace
        projected.append(seen.q)
    equations = None
    if not published:
        free = dataset.n - dataset.p
        expected = np.trace(dataset.Sigma) / free
        less = np.trace(dataset.A, axis1=1, axis2=2) / (dataset.n * free) - expected
        squares[:, :, 0] -= band_t_1 * less[row][:, None]
        equations = bands.Equations(
            band_t_1.ravel(),
            band_t_2.ravel(),
            squares.reshape(-1, squares.shape[2]),
            np.repeat(np.arange(len(sizes)), number),
            np.tile(np.arange(number), len(sizes)),
        )
    return Sums(
        weighted, group, row, equations, columns, kept, ld_score, tuple(projected), n_used,
        n_blocks_used,
    )  # fmt: skip


def noise_by_A(
    dataset: MinimalDataset, n_trait: float | None = None, *, published: bool = False
) -> np.ndarray:
    """Return κ = A_c/(n (n - p)) of the scores, by A, (a, r, r); with a trait, (a, r + 1, r + 1).

    û = G'P(S - o_c)/n on chromosome c. If a variant does nothing, its û² is A_jj/n times a squared
    correlation in n - p dimensions, of which the mean is 1/(n - p): the noise is A_c/(n (n - p))
    per unit of R, Σ/(n - p) without offsets (published: Σ/n). With a trait, last, κ is 0 between
    it and the components.
    """
    own = dataset.A / (dataset.n * (dataset.n if published else dataset.n - dataset.p))
    if n_trait is None:
        return own
    kappa = np.zeros((len(own), dataset.r + 1, dataset.r + 1))
    kappa[:, :-1, :-1], kappa[:, -1, -1] = own, 1 / n_trait
    return kappa


def sample_of(r: int, trait: bool) -> np.ndarray:
    """Return the sample of each phenotype: 0 for the components, 1 for a trait after them."""
    return np.concatenate([np.zeros(r, dtype=np.int64), np.ones(int(trait), dtype=np.int64)])


@dataclass(frozen=True)
class BandSums:
    """Normal equations of the band regression by group of blocks (method 5c).

    Attributes
    ----------
    normal : (g, a, a, 2, 2)
    right : (g, 2, c, c)
    weighted : BlockMoments or None
        Sums for Ω = M C M', C the coefficients of the components' estimate, for its closed form.
    block_t_4 : (b,) or None
        t₄ of each block with these coefficients.
    class_weight : (N_CLASSES,) or None
        How much the effects of each class of variants count with these coefficients.
    heritability : list of float
        h̄² of each sample, which the weights were found with.
    n_dropped : int
        Equations without positive traces.
    """

    normal: np.ndarray
    right: np.ndarray
    weighted: moments.BlockMoments | None
    block_t_4: np.ndarray | None
    class_weight: np.ndarray | None
    heritability: list[float]
    n_dropped: int


def sum_over_bands(
    dataset: MinimalDataset,
    reference: LdReference,
    match: Match,
    sums: Sums,
    samples: list[bands.Sample],
    *,
    workers: int,
    closed_form: bool,
    trait: np.ndarray | None = None,
    progress=lambda items, total: items,
) -> BandSums:
    """Return the band regression, with the weights that the pass over the reference gave.

    The products of the reference are passed over once more, and M and the correlations of blocks
    with missing variants, only where the closed form is asked for. Where the
    noise differs between chromosomes, the right sides are brought to its mean (weighted by t₁),
    so that one intercept is left.

    Parameters
    ----------
    samples : list of Sample
        The components' and, with a trait, the trait's.
    closed_form : bool

    Raises
    ------
    ValueError
        The bands do not suffice.
    """
    equations, m = sums.equations, float(reference.m)
    h2 = [bands.mean_heritability(equations, a, one, m) for a, one in enumerate(samples)]
    v = bands.inverse_variances(equations, samples, h2, m)
    matrices = bands.normal_matrices(equations, v, m)
    normal = np.zeros((int(sums.group.max()) + 1, *matrices.shape[1:]))
    np.add.at(normal, sums.group[equations.block], matrices)
    number = len(bands.EDGES)
    of = sample_of(dataset.r, trait is not None)
    right = np.zeros((len(normal), 2, len(of), len(of)))
    coefficient = bands.coefficients(equations, v[:, 0], m, samples[0].fixed)
    weighted = class_weight = block_t_4 = None
    if closed_form:
        zero = np.zeros((dataset.r,) * 2)
        weighted = moments.BlockMoments(zero, zero, 0.0, 0.0, 0.0)
        class_weight, block_t_4 = np.zeros(N_CLASSES), np.zeros(reference.n_blocks)
    columns = sums.columns

    def inputs() -> Iterator[tuple[int, StoredBlock | None]]:
        for i, (first, stop) in enumerate(pairwise(reference.block_start)):
            block = None
            if closed_form:
                block = reference.stored(i, sums.kept[first:stop])
            yield i, block

    def work(item: tuple[int, StoredBlock | None]):
        i, block = item
        here = slice(i * number, (i + 1) * number)
        traces = equations.t_1[here], equations.t_2[here]
        band = bands.band_of(reference.columns_of(i, "share"))
        sides = bands.block_right_sides(sums.q[i], band, *traces, v[here][:, of], m)
        if block is None:
            return sides, None, None
        M = None if block.M is None else block.M.astype(np.float64)
        products, block_t_1 = block.seen(M, dataset.n)
        own = SeenBlock(sums.q[i][:, : dataset.r], products, block_t_1, block.share_a, band)
        c = np.where(band >= 0, coefficient[here][np.maximum(band, 0)], 0.0)
        at = slice(columns.start[i], columns.start[i + 1])
        return sides, moments.moments_of(own, c), c @ columns.class_trace[at]

    done = ordered_map(work, read_ahead(inputs(), workers) if closed_form else inputs(), workers)
    if closed_form:
        done = progress(done, reference.n_blocks)
    for i, (sides, part, block_weight) in enumerate(done):
        right[sums.group[i]] += sides
        if part is not None:
            weighted = weighted + part
            block_t_4[i] = part.t_4
            class_weight += block_weight
    if len(dataset.A) > 1:
        kappa = noise_by_A(dataset)
        difference = kappa - moments.mean_noise(kappa, sums.row, sums.weighted[0].block_t_1)
        per_noise = np.zeros((len(normal), len(kappa), 2))
        at = sums.group[equations.block], sums.row[equations.block]
        np.add.at(per_noise, at, matrices[:, 0, 0, :, 1])
        right[:, :, : dataset.r, : dataset.r] -= np.einsum("gai,ajl->gijl", per_noise, difference)
    n_dropped = int((~equations.usable).sum())
    return BandSums(normal, right, weighted, block_t_4, class_weight, h2, n_dropped)


@dataclass(frozen=True)
class _BlockScores:
    """Effects of the components (and a trait's û) on the variants of one block, as read.

    Attributes
    ----------
    beta, a : (h, r), (h,)
        Of the variants that the dataset has.
    hit : (h,) int
        Their places in the block.
    sign : (h,)
    trait : (m_b,) or None
    kept : (m_b,) bool
        Variants that have all scores.
    A : int
        Row of the dataset's A.
    """

    beta: np.ndarray
    a: np.ndarray
    hit: np.ndarray
    sign: np.ndarray
    trait: np.ndarray | None
    kept: np.ndarray
    A: int

    def values(self, n: float) -> np.ndarray:
        """Return û (m_b, c), 0 where a variant is not kept."""
        factor = np.where(self.kept[self.hit], self.sign * np.sqrt(self.a / n), 0.0)[:, None]
        if len(self.hit) == len(self.kept):
            scores = self.beta * factor
        else:
            scores = np.zeros((len(self.kept), self.beta.shape[1]))
            scores[self.hit] = self.beta * factor
        if not self.kept.all():
            scores[~self.kept] = 0.0
        if self.trait is None:
            return scores
        return np.column_stack([scores, np.where(self.kept, self.trait, 0.0)])


def _scores_by_block(
    dataset: MinimalDataset, block_start: np.ndarray, match: Match, trait: np.ndarray | None
) -> Iterator[_BlockScores]:
    """Yield the effects that :func:`_scores` is made of, block by block, read in larger pieces.

    Raises
    ------
    InputError
        A block's variants have different A.
    """
    blocks = len(block_start) - 1
    first_block = 0
    while first_block < blocks:
        stop_block = first_block + 1
        while (
            stop_block < blocks
            and block_start[stop_block + 1] - block_start[first_block] <= _ROWS_AT_ONCE
        ):
            stop_block += 1
        row = match.row[block_start[first_block] : block_start[stop_block]]
        there = row[row >= 0]
        low, high = (int(there.min()), int(there.max()) + 1) if len(there) else (0, 0)
        found = dataset.components(low, high)
        for i in range(first_block, stop_block):
            here = slice(block_start[i], block_start[i + 1])
            hit = np.flatnonzero(match.row[here] >= 0)
            at = match.row[here][hit] - low
            A = _one_A(dataset, found.A_index[at])
            # Mostly a run of variants, of which a view will do.
            if len(at) and at[-1] - at[0] == len(at) - 1 and np.all(np.diff(at) == 1):
                at = slice(int(at[0]), int(at[-1]) + 1)
            beta, a = found.beta[at], found.a[at]
            kept = np.zeros(here.stop - here.start, dtype=bool)
            kept[hit] = np.isfinite(beta.sum(axis=1))
            if trait is not None:
                kept &= np.isfinite(trait[here])
            yield _BlockScores(
                beta, a, hit, match.sign[here][hit], None if trait is None else trait[here],
                kept, A,
            )  # fmt: skip
        first_block = stop_block


def _one_A(dataset: MinimalDataset, index: np.ndarray) -> int:
    """Return the row of A that all variants of a block have, 0 for none.

    Raises
    ------
    InputError
        They have different A.
    """
    of = np.unique(index)
    if len(of) > 1:
        raise InputError(
            f"{dataset.path}: variants of one LD block have different offsets (A_index "
            f"{of[0]} and {of[1]}), which belong to whole chromosomes: make the dataset again"
        )
    return int(of[0]) if len(of) else 0


def _all_scores(
    dataset: MinimalDataset,
    match: Match,
    first: int,
    stop: int,
    method: str,
    trait: np.ndarray | None,
) -> tuple[np.ndarray, int]:
    scores, row = _scores(dataset, match, first, stop, method)
    return scores if trait is None else np.column_stack([scores, trait[first:stop]]), row


def _scores(
    dataset: MinimalDataset, match: Match, first: int, stop: int, method: str
) -> tuple[np.ndarray, int]:
    """Return û (stop - first, r) of a block, NaN where the dataset has none, and the row of its A.

    Raises
    ------
    InputError
        The block's variants have different A.
    """
    row = match.row[first:stop]
    hit = np.flatnonzero(row >= 0)
    scores = np.full((stop - first, dataset.r), np.nan)
    if len(hit) == 0:
        return scores, 0
    low, high = int(row[hit].min()), int(row[hit].max()) + 1
    found = dataset.components(low, high)
    at = row[hit] - low
    A = _one_A(dataset, found.A_index[at])
    if method == "published":
        variance = dataset.A[A] / dataset.n
        values = moments.published_scores(found.z[at], variance, dataset.n)
    else:
        values = moments.component_scores(found.beta[at], found.a[at], dataset.n)
    scores[hit] = values * match.sign[first:stop][hit, None]
    return scores, A


def sums_memory(dataset: MinimalDataset, reference: LdReference, workers: int) -> float:
    """Return the bytes that the pass over the reference and the variant tables take."""
    largest = int(np.diff(reference.block_start).max())
    # As read: in work, waiting for it and read ahead; in work M and rows of R in double as well.
    read = (2 * workers + 2) * (reference.block_bytes() + 16 * largest * dataset.r)
    read += 2 * 40 * (_ROWS_AT_ONCE + largest) * dataset.r
    work = read + workers * 8 * 8 * largest**2
    # M'û of every block and the traces by column are kept for the band regression.
    tables = 716.0 * (dataset.m + reference.m)
    tables += 8.0 * int(reference.block_rank.sum()) * (dataset.r + 1 + 2 * (N_CLASSES + 3))
    # By group: û'Ωû for two weights, both right sides, Γ̂ and κ̂ without the group, twice, another
    # Γ̂ for correlations, and expected noise.
    return INTERPRETER_BYTES + work + tables + 8.0 * 12 * JACKKNIFE_GROUPS * (dataset.r + 1) ** 2


@dataclass(frozen=True)
class Intercept:
    """κ of the band regression with its intercept estimated, (c, c), and without each group.

    With offsets by chromosome it is the κ that the mean over chromosomes, weighted by t₁, has.
    """

    kappa: np.ndarray
    left_out: np.ndarray


class Correlation(NamedTuple):
    """Γ̂ for genetic correlations, without each group of blocks, and its blend factor."""

    moments: moments.Moments
    left_out: np.ndarray
    blend: float


@dataclass(frozen=True)
class Estimate:
    """Γ̂ of the components with all that its errors and tests need.

    Attributes
    ----------
    moments : rvga.heritability.Moments
    left_out : (g, r, r)
        Γ̂ without each group of blocks.
    blend : float or None
        Factor of :func:`rvga.heritability.blend_factor`; None as published.
    intercept : Intercept or None
    model_test : dict
        Mean h² by both estimators, their difference, its jackknife error and test; empty as
        published.
    numbers : dict
        For the summary.
    correlation : Correlation or None
        Another Γ̂ for genetic correlations; None where they are of the same.
    """

    moments: moments.Moments
    left_out: np.ndarray
    blend: float | None
    intercept: Intercept | None
    model_test: dict[str, float]
    numbers: dict[str, float]
    correlation: Correlation | None = None


def estimate_covariance(
    dataset: MinimalDataset,
    reference: LdReference,
    match: Match,
    *,
    method: str,
    fixed_intercept: bool,
    workers: int,
    progress=lambda items, total: items,
) -> tuple[Estimate, Sums]:
    """Return Γ̂ of the components by one method, with the other beside it as a test.

    Parameters
    ----------
    method : {"balanced", "moments", "bands", "published"}
        'balanced': moments with weights that count all classes of variants alike, and for
        correlations with those of least variance (:mod:`rvga.balance`).
    fixed_intercept : bool
        κ of unrelated people, Σ/(n - p) (A_c/(n (n - p)) on chromosome c with offsets), instead of
        the band regression's own.

    Raises
    ------
    ValueError
        The reference does not allow an estimate.
    """
    sums = sum_over_blocks(
        dataset, reference, match, method=method, workers=workers, progress=progress
    )
    m, factors = float(reference.m), reference.factors()
    by_A = noise_by_A(dataset, published=method == "published")
    first = sums.weighted[0]
    kappa = moments.mean_noise(by_A, sums.row, first.block_t_1)
    inverse_n = np.full_like(kappa, 1 / dataset.n)
    if method == "published":
        plain = moments.combine(
            first.total, kappa, inverse_n, m, factors, published=True, Sigma=dataset.Sigma,
            quartic_kappa=moments.mean_noise(by_A, sums.row, first.block_t_4),
        )  # fmt: skip
        left_out = moments.leave_one_out_Gamma(
            first.group_quadratic, first.group_t_1, first.group_t_2,
            moments.left_out_noise(by_A, sums.row, first.block_t_1, sums.group), m,
        )  # fmt: skip
        return Estimate(plain, left_out, None, None, {}, {}), sums
    variance = float(np.trace(dataset.Sigma))
    banded = sum_over_bands(
        dataset, reference, match, sums,
        [bands.Sample(dataset.n - dataset.p, variance, fixed_intercept)],
        workers=workers, closed_form=method == "bands", progress=progress,
    )  # fmt: skip
    of = sample_of(dataset.r, False)
    fixed = {(0, 0): kappa} if fixed_intercept else {}
    band_Gamma, _ = bands.solve(banded.normal.sum(axis=0), banded.right.sum(axis=0), of, fixed)
    band_left_out, _ = bands.leave_one_out(banded.normal, banded.right, of, fixed)
    _, free = bands.solve(banded.normal.sum(axis=0), banded.right.sum(axis=0), of, {})
    _, free_left_out = bands.leave_one_out(banded.normal, banded.right, of, {})
    intercept = Intercept(free, free_left_out)

    def by_moments(one: WeightedSums) -> tuple[moments.Moments, np.ndarray]:
        own = moments.mean_noise(by_A, sums.row, one.block_t_1)
        own_left_out = moments.left_out_noise(by_A, sums.row, one.block_t_1, sums.group)
        plain = moments.combine(
            one.total, own, inverse_n, m, factors, Sigma=dataset.Sigma,
            quartic_kappa=moments.mean_noise(by_A, sums.row, one.block_t_4),
        )  # fmt: skip
        if not fixed_intercept:
            # The intercept is that of the noise's mean over chromosomes by the first weights.
            own, own_left_out = free + (own - kappa), free_left_out + (own_left_out - kappa)
        Gamma = plain.scale * (one.total.quadratic - plain.t_1 * own)
        left_out = moments.leave_one_out_Gamma(
            one.group_quadratic, one.group_t_1, one.group_t_2, own_left_out, m
        )
        return replace(plain, Gamma=Gamma), left_out

    found, left_out = by_moments(first)
    test = _model_test(found.Gamma, left_out, band_Gamma, band_left_out, variance, method)
    blend = _blend(sums.columns, first.weight)
    correlation = None
    if method == "bands":
        part = banded.weighted
        quartic_kappa = moments.mean_noise(by_A, sums.row, banded.block_t_4)
        s = factors[1] * (part.quartic - part.t_4 * quartic_kappa)
        found = moments.Moments(
            band_Gamma, kappa, s, 1.0, part.t_1, factors[0] * part.t_4, inverse_n, dataset.Sigma
        )
        left_out = band_left_out
        blend = _blend_of_classes(sums.columns, banded.class_weight)
    elif method == "balanced":
        second = sums.weighted[1]
        correlation = Correlation(*by_moments(second), _blend(sums.columns, second.weight))
    numbers = {
        "mean_heritability_weights": banded.heritability[0],
        "n_bands": len(sums.equations.t_1), "n_bands_dropped": banded.n_dropped,
        "blend_factor": blend,
    }  # fmt: skip
    return Estimate(found, left_out, blend, intercept, test, numbers, correlation), sums


def _blend(columns: Columns, weight: np.ndarray | None) -> float:
    """Return the factor of the jackknife's excess for weights of M's columns."""
    traces = columns.class_trace if weight is None else columns.class_trace * weight[:, None]
    return _blend_of_classes(columns, traces.sum(axis=0))


def _blend_of_classes(columns: Columns, weight: np.ndarray) -> float:
    known = columns.class_size > 0
    size = columns.class_size[known]
    return moments.blend_factor(weight[known] / size, size / size.sum())


def _model_test(
    Gamma, left_out, band_Gamma, band_left_out, variance, method: str
) -> dict[str, float]:
    """Compare the mean h² of both estimators: their difference against its jackknife error."""
    one, other = np.trace(Gamma) / variance, np.trace(band_Gamma) / variance
    each = np.trace(left_out - band_left_out, axis1=1, axis2=2) / variance
    error = float(jackknife_standard_error(each))
    difference = float(one - other)
    return {
        f"heritability_{'balanced' if method == 'balanced' else 'moments'}": float(one),
        "heritability_bands": float(other),
        "model_difference": difference,
        "model_difference_standard_error": error,
        "model_test_z": difference / error if error > 0 else float("nan"),
        "model_test_neg_log_10_p_value": float(
            moments.neg_log_10_p_normal(np.array([difference]), np.array([error]), sides=2)[0]
        ),
    }


@dataclass(frozen=True)
class CrossEstimate:
    """Γ̂ of the components and, last, a trait.

    Attributes
    ----------
    Gamma : (r + 1, r + 1)
    left_out : (g, r + 1, r + 1)
    closed_form : Moments or None
        Of the moment estimator, where the samples have nobody in common.
    intercept : Intercept or None
        κ of the band regression, all of it estimated.
    expected_kappa : (r + 1, r + 1)
        κ where nobody is related or in both samples.
    n_used : int
    pseudo_values : bool
        Whether ρ is the jackknife's own point estimate, as published with people in common.
    trait_heritability : Moments or None
        Of the trait alone, by 'balanced' weights for heritability, where nobody is in common;
        None where its h² is that of ``Gamma``.
    """

    Gamma: np.ndarray
    left_out: np.ndarray
    closed_form: moments.Moments | None
    intercept: Intercept | None
    expected_kappa: np.ndarray
    n_used: int
    pseudo_values: bool = False
    trait_heritability: moments.Moments | None = None


def estimate_with_trait(
    dataset: MinimalDataset,
    reference: LdReference,
    match: Match,
    trait: np.ndarray,
    n_trait: float,
    *,
    method: str,
    overlap: bool,
    workers: int,
    trait_n: np.ndarray | None = None,
    progress=lambda items, total: items,
) -> CrossEstimate:
    """Return Γ̂ of the components and a trait over the variants that all of them have.

    Where people may be in common all intercepts are estimated by the band regression, and its
    slopes are used throughout, so that what the model gets wrong about where effects lie
    cancels in ρ.

    Parameters
    ----------
    trait : (m,)
        û of the trait, NaN where absent.
    n_trait : float
    method : {"balanced", "moments", "bands", "published"}
        Estimator where nobody is in common; 'balanced' is moments with the weights of least
        variance, because what they get wrong about where effects lie cancels in ρ, too. For the
        trait's own h², where it does not, the weights are those for heritability.
    overlap : bool
    trait_n : (m,), optional
        People by variant, which the published LD-score regression uses; ``n_trait`` without.

    Raises
    ------
    ValueError
        The reference does not allow an estimate over these variants.
    """
    m, r = float(reference.m), dataset.r
    sums = sum_over_blocks(
        dataset, reference, match, method=method, workers=workers, trait=trait, progress=progress
    )
    by_A = noise_by_A(dataset, n_trait, published=method == "published")
    first = sums.weighted[0]
    kappa = moments.mean_noise(by_A, sums.row, first.block_t_1)
    inverse_n, Sigma = np.zeros((2, r + 1, r + 1))
    inverse_n[:-1, :-1], inverse_n[-1, -1] = 1 / dataset.n, 1 / n_trait
    Sigma[:-1, :-1], Sigma[-1, -1] = dataset.Sigma, 1.0
    plain = moments.combine(
        first.total, kappa, inverse_n, m, reference.factors(), published=method == "published",
        quartic_kappa=moments.mean_noise(by_A, sums.row, first.block_t_4), Sigma=Sigma,
    )  # fmt: skip
    left_out = moments.leave_one_out_Gamma(
        first.group_quadratic, first.group_t_1, first.group_t_2,
        moments.left_out_noise(by_A, sums.row, first.block_t_1, sums.group), m,
    )  # fmt: skip
    if method == "published":
        if not overlap:
            return CrossEstimate(plain.Gamma, left_out, plain, None, kappa, sums.n_used)
        found = _published_intercepts(
            dataset, reference, match, sums, plain.Gamma, trait, n_trait, trait_n
        )
        rest = first.group_t_1.sum() - first.group_t_1
        return CrossEstimate(
            plain.Gamma - plain.t_1 * _estimated(found.kappa),
            left_out - rest[:, None, None] * _estimated(found.left_out),
            None, found, kappa, sums.n_used, pseudo_values=True,
        )  # fmt: skip
    samples = [
        bands.Sample(dataset.n - dataset.p, float(np.trace(dataset.Sigma)), not overlap),
        bands.Sample(n_trait, 1.0, not overlap),
    ]
    banded = sum_over_bands(
        dataset, reference, match, sums, samples, workers=workers, closed_form=False, trait=trait,
        progress=progress,
    )  # fmt: skip
    of = sample_of(r, True)
    normal, right = banded.normal.sum(axis=0), banded.right.sum(axis=0)
    free_Gamma, free = bands.solve(normal, right, of, {})
    free_left_out, free_kappas = bands.leave_one_out(banded.normal, banded.right, of, {})
    intercept = Intercept(free, free_kappas)
    if overlap:
        return CrossEstimate(free_Gamma, free_left_out, None, intercept, kappa, sums.n_used)
    if method != "bands":
        own = None
        if method == "balanced":
            own = moments.combine(
                sums.weighted[1].total, kappa[-1:, -1:], inverse_n[-1:, -1:], m,
                reference.factors(), Sigma=Sigma[-1:, -1:],
            )  # fmt: skip
        return CrossEstimate(
            plain.Gamma, left_out, plain, intercept, kappa, sums.n_used, trait_heritability=own
        )
    fixed = {(a, b): kappa[np.ix_(of == a, of == b)] for a in (0, 1) for b in (0, 1)}
    Gamma, _ = bands.solve(normal, right, of, fixed)
    without, _ = bands.leave_one_out(banded.normal, banded.right, of, fixed)
    return CrossEstimate(Gamma, without, None, intercept, kappa, sums.n_used)


def _published_intercepts(
    dataset, reference, match, sums: Sums, Gamma, trait, n_trait: float, trait_n
) -> Intercept:
    """Return κ of components and trait by LD-score regression; NaN where it is not estimated."""
    r, deviation = dataset.r, np.sqrt(np.diag(dataset.Sigma))
    people = np.full(reference.m, n_trait) if trait_n is None else trait_n
    product, row, used = np.empty((reference.m, r)), np.empty(reference.m, dtype=np.int64), 0
    for first, stop in pairwise(reference.block_start):
        scores, _ = _all_scores(dataset, match, first, stop, "published", trait)
        kept = np.flatnonzero(np.isfinite(scores).all(axis=1))
        here = slice(used, used + len(kept))
        row[here], used = first + kept, used + len(kept)
        z_trait = scores[kept, -1:] * np.sqrt(people[row[here], None])
        product[here] = scores[kept, :-1] * (np.sqrt(dataset.n) / deviation) * z_trait
    product, row = product[:used], row[:used]
    n_2 = people[row]
    of_block = np.repeat(np.arange(reference.n_blocks), np.diff(reference.block_start))
    used, group = np.unique(sums.group[of_block[row]], return_inverse=True)
    h2 = np.diag(Gamma)[:-1] / deviation**2, float(Gamma[-1, -1])
    intercept, without = cross_trait_intercepts(
        product, sums.ld_score[row], (float(dataset.n), n_2), h2, sums.weighted[0].total.t_1, group,
    )  # fmt: skip
    kappa = np.full((r + 1, r + 1), np.nan)
    left_out = np.full((int(sums.group.max()) + 1, r + 1, r + 1), np.nan)
    # A group without any of the variants is left out without change.
    each = np.tile(intercept, (len(left_out), 1))
    each[used] = without
    scale = deviation / np.sqrt(dataset.n * n_trait)
    kappa[:-1, -1] = kappa[-1, :-1] = intercept * scale
    left_out[:, :-1, -1] = left_out[:, -1, :-1] = each * scale
    return Intercept(kappa, left_out)


def _estimated(kappa: np.ndarray) -> np.ndarray:
    """Return κ with 0 where it was not estimated."""
    return np.nan_to_num(kappa)


class GeneticCovariance:
    """An open ``genetic_covariance.h5``: heritability and any genetic correlation of voxels.

    Attributes
    ----------
    bases : (N, r)
    moments : rvga.heritability.Moments
        Γ̂ of the components and what errors need.
    Sigma : (r, r)
    geometry : Geometry
    method : str
        'balanced', 'moments', 'bands' or 'published'.
    blend : float or None
        Part of the jackknife's excess that se_method 'auto' adds.
    correlation_moments, correlation_blend
        The same for genetic correlations, by 'balanced' of another Γ̂.
    """

    def __init__(self, envelope: Envelope):
        self.envelope = envelope
        self.path = envelope.path
        self.bases = envelope["bases"][...].astype(np.float64)
        self.N, self.r = self.bases.shape
        self.Sigma = envelope["Sigma"][...]
        self.n = float(envelope.attributes["n"])
        self.m = float(envelope.attributes["m"])
        self.method = str(envelope.attributes["heritability_method"])
        self.geometry: Geometry = geometry_of(envelope)
        self.coordinates = envelope["coordinates"][...]
        self.blend = float(envelope["blend_factor"][0]) if "blend_factor" in envelope else None
        t_2 = float(envelope.attributes["t_2"])
        self.moments = moments.Moments(
            Gamma=envelope["Gamma"][...],
            kappa=envelope["kappa"][...] if "kappa" in envelope else self.Sigma / self.n,
            s=envelope["s"][...],
            scale=1.0 if self.method == "published" else self.m / t_2,
            t_1=float(envelope.attributes["t_1"]),
            t_4=float(envelope.attributes["t_4"]),
            inverse_n=np.full((self.r, self.r), 1.0 / self.n),
            Sigma=self.Sigma,
        )
        self.correlation_moments, self.correlation_blend = self.moments, self.blend
        if "correlation/Gamma" in envelope:
            t_1, t_2, t_4 = map(float, envelope["correlation/traces"][...])
            self.correlation_moments = replace(
                self.moments,
                **{name: envelope[f"correlation/{name}"][...] for name in ("Gamma", "kappa", "s")},
                scale=self.m / t_2,
                t_1=t_1,
                t_4=t_4,
            )
            self.correlation_blend = float(envelope["correlation/blend_factor"][0])

    @classmethod
    def open(cls, path: str | Path) -> GeneticCovariance:
        """Open a file of kind 'genetic_covariance'.

        Raises
        ------
        InputError
            It is absent, damaged or another kind of file.
        """
        return open_as(path, "genetic_covariance", cls)

    @cached_property
    def left_out(self) -> np.ndarray:
        """Γ̂ without each group of blocks, (g, r, r)."""
        return self.envelope["left_out"][...]

    @cached_property
    def correlation_left_out(self) -> np.ndarray:
        """Γ̂ for genetic correlations without each group of blocks, (g, r, r)."""
        name = "correlation/left_out"
        return self.envelope[name][...] if name in self.envelope else self.left_out

    @cached_property
    def regions(self) -> tuple[list[str], np.ndarray]:
        """Names of the regions and the basis row of each one's mean image, (k,) and (k, r)."""
        return list(self.envelope.array("region_name")), self.envelope["region_rows"][...]

    def heritability(
        self, rows: np.ndarray | None = None, se_method: str = "closed_form"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return h² and its standard error as estimated, for voxels or for rows of bases (k, r).

        ``se_method`` is 'closed_form', 'jackknife', or 'auto' (between the two, method 5c).
        """
        rows = self.bases if rows is None else rows
        h2, error = moments.heritability(self.moments, rows)
        if se_method == "closed_form":
            return h2, error
        jackknife = moments.heritability_jackknife(self.left_out, self.Sigma, rows)
        return h2, self._error(error, jackknife, se_method, self.blend)

    def correlation(
        self, rows: np.ndarray, columns: np.ndarray, se_method: str = "closed_form"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ρ and its standard error between rows of bases, (I, r) and (J, r), as they are."""
        rho, error = moments.genetic_correlation(self.correlation_moments, rows, columns)
        if se_method == "closed_form":
            return rho, error
        jackknife = moments.genetic_correlation_jackknife(self.correlation_left_out, rows, columns)
        return rho, self._error(error, jackknife, se_method, self.correlation_blend)

    def _error(
        self, closed_form: np.ndarray, jackknife: np.ndarray, se_method: str, blend: float | None
    ) -> np.ndarray:
        if se_method == "jackknife":
            return jackknife
        if blend is None:
            raise InputError("se_method auto is not to be had for the published estimator")
        return moments.blended_error(closed_form, jackknife, blend)

    def row(self, voxel: int, se_method: str = "closed_form") -> tuple[np.ndarray, np.ndarray]:
        """Return ρ and its standard error of one voxel with every voxel, (N,) each.

        Raises
        ------
        InputError
            There is no such voxel.
        """
        if not 0 <= voxel < self.N:
            raise InputError(f"voxel {voxel} is not among the {self.N} voxels (0 to {self.N - 1})")
        rho, error = self.correlation(self.bases[voxel : voxel + 1], self.bases, se_method)
        return rho[0], error[0]

    def matrix(
        self, block_rows: int = 64, workers: int = 1
    ) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Yield (first, stop, ρ, standard error) of all voxels with all, by blocks of rows.

        ``workers`` blocks are worked on at once; the numbers do not depend on it.
        """

        def block(first: int) -> tuple[int, int, np.ndarray, np.ndarray]:
            stop = min(first + block_rows, self.N)
            return first, stop, *self.correlation(self.bases[first:stop], self.bases)

        return ordered_map(block, range(0, self.N, block_rows), workers)

    def phenotypic_correlation(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the sample's correlation between rows of bases, (I, J)."""
        variances = [np.einsum("vr,vr->v", b @ self.Sigma, b) for b in (rows, columns)]
        with np.errstate(divide="ignore", invalid="ignore"):
            return (rows @ self.Sigma @ columns.T) / np.sqrt(np.outer(*variances))

    def close(self) -> None:
        """Close the file."""
        self.envelope.close()

    def __enter__(self) -> GeneticCovariance:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def intercept_table(
    components: list[str], others: list[str], value: np.ndarray, expected: float, error: np.ndarray
) -> pd.DataFrame:
    """Return rows of the table 'intercepts' with a two-sided test of the expected value."""
    log_p = moments.neg_log_10_p_normal(value - expected, error, sides=2)
    return pd.DataFrame(
        {
            "component": pd.Series(components, dtype=object),
            "other": pd.Series(others, dtype=object),
            "intercept": value,
            "expected": expected,
            "standard_error": error,
            "neg_log_10_p_value": log_p,
            "false_discovery_rate": false_discovery_rate(log_p),
        }
    )


def three_axes(coordinates: np.ndarray) -> np.ndarray:
    """Return x, y and z, (3, k), of coordinates (k, d); NaN for an axis that there is none of."""
    axes = np.full((3, len(coordinates)), np.nan)
    used = min(3, coordinates.shape[1])
    axes[:used] = coordinates[:, :used].T
    return axes
