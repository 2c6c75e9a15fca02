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

import numpy as np
import pandas as pd

from rvga import bands
from rvga import heritability as moments
from rvga.dataset import MinimalDataset
from rvga.errors import InputError
from rvga.false_discovery import false_discovery_rate
from rvga.formats import Envelope, open_as
from rvga.geometry import Geometry, geometry_of
from rvga.jackknife import group_starts, jackknife_standard_error, number_of_groups
from rvga.ld import LdBlock
from rvga.ld_reference import LdReference
from rvga.parallel import ordered_map
from rvga.published import adjusted_ld_scores, cross_trait_intercepts
from rvga.sumstats import match_variants

FEWEST_SHARED = 200
LEAST_SHARE_OF_REFERENCE = 0.1
JACKKNIFE_GROUPS = 200
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
class Sums:
    """Sums over all blocks of a reference, and by group of blocks for the jackknife.

    Attributes
    ----------
    total : BlockMoments
    group : (b,) int64
        Group of each block.
    group_quadratic, group_t_1, group_t_2 : (g, c, c), (g,), (g,)
    row : (b,) int64
        Which A of the dataset each block's scores have: that of its chromosome.
    block_t_1, block_t_4 : (b,)
    equations : Equations or None
        One for each block and band; None as published. Noise in ``squares`` is Σ/(n - p)
        everywhere: what offsets of a chromosome take off is put back.
    variant_weight : (m,) or None
        How much the effect of each variant counts; None as published.
    ld_score : (m,)
        LD scores within blocks; as published from panel 1 as one, else from its halves.
    q : tuple of (k, c) arrays
        M'Dû of each block, which the band regression needs when its weights are known; empty as
        published.
    n_used, n_blocks_used : int
    """

    total: moments.BlockMoments
    group: np.ndarray
    group_quadratic: np.ndarray
    group_t_1: np.ndarray
    group_t_2: np.ndarray
    row: np.ndarray
    block_t_1: np.ndarray
    block_t_4: np.ndarray
    equations: bands.Equations | None
    variant_weight: np.ndarray | None
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
    method : {"moments", "bands", "published"}
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
    quadratic = np.zeros((int(group.max()) + 1, c, c))
    t_1, t_2 = np.zeros(len(quadratic)), np.zeros(len(quadratic))
    band_t_1, band_t_2 = np.zeros((2, len(sizes), number))
    squares = np.zeros((len(sizes), number, int(samples.max()) + 1))
    weight, ld_score = np.zeros((2, reference.m))
    projected: list[np.ndarray] = []
    row = np.zeros(len(sizes), dtype=np.int64)
    block_t_1, block_t_4 = np.zeros((2, len(sizes)))

    def inputs() -> Iterator[tuple[LdBlock, np.ndarray]]:
        for i, (first, stop, block) in enumerate(reference.blocks()):
            scores, row[i] = _all_scores(dataset, match, first, stop, method, trait)
            yield block, scores

    def work(item: tuple[LdBlock, np.ndarray]):
        block, scores = item
        n = reference.n_a, reference.n_b
        if published:
            part = moments.published_block_moments(
                block.M, block.share, block.R_a, block.R_b, scores, *n
            )
            R_1 = (n[0] * block.R_a + n[1] * block.R_b) / np.float32(sum(n))
            used = int(np.isfinite(scores).all(axis=1).sum())
            return part, used, adjusted_ld_scores(R_1, sum(n)), None
        seen = moments.project_block(
            block.M, block.R_a, block.R_b, block.T, scores, *n, block.t_1_ratio, dataset.n
        )
        columns = [seen.t_1, seen.t_2]
        columns += [(seen.q[:, samples == a] ** 2).sum(axis=1) for a in range(squares.shape[2])]
        by_band = bands.band_sums(np.stack(columns, axis=1), bands.band_of(block.share), number)
        return (
            moments.moments_of(seen), seen.used, seen.ld_score,
            (by_band, moments.variant_weights(seen), seen.q),
        )  # fmt: skip

    total = moments.BlockMoments(np.zeros((c, c)), np.zeros((c, c)), 0.0, 0.0, 0.0)
    n_used = n_blocks_used = 0
    done = progress(ordered_map(work, inputs(), workers), len(sizes))
    for i, (part, used, block_score, more) in enumerate(done):
        g = group[i]
        total = total + part
        quadratic[g] += part.quadratic
        t_1[g] += part.t_1
        t_2[g] += part.t_2
        block_t_1[i], block_t_4[i] = part.t_1, part.t_4
        n_used += used
        n_blocks_used += used > 0
        here = slice(reference.block_start[i], reference.block_start[i + 1])
        ld_score[here] = block_score
        if more is not None:
            by_band, weight[here], q = more
            band_t_1[i], band_t_2[i], squares[i] = by_band[:, 0], by_band[:, 1], by_band[:, 2:]
            projected.append(q)
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
        total, group, quadratic, t_1, t_2, row, block_t_1, block_t_4, equations,
        None if published else weight, ld_score, tuple(projected), n_used, n_blocks_used,
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
    variant_weight : (m,) or None
        How much the effect of each variant counts with these coefficients.
    heritability : list of float
        h̄² of each sample, which the weights were found with.
    n_dropped : int
        Equations without positive traces.
    """

    normal: np.ndarray
    right: np.ndarray
    weighted: moments.BlockMoments | None
    block_t_4: np.ndarray | None
    variant_weight: np.ndarray | None
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

    The reference is passed over once more only where the closed form is asked for. Where the
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
    normal = np.zeros((len(sums.group_t_1), *matrices.shape[1:]))
    np.add.at(normal, sums.group[equations.block], matrices)
    number = len(bands.EDGES)
    of = sample_of(dataset.r, trait is not None)
    right = np.zeros((len(normal), 2, len(of), len(of)))
    coefficient = bands.coefficients(equations, v[:, 0], m, samples[0].fixed)
    weighted = variant_weight = block_t_4 = None
    if closed_form:
        zero = np.zeros((dataset.r,) * 2)
        weighted = moments.BlockMoments(zero, zero, 0.0, 0.0, 0.0)
        variant_weight, block_t_4 = np.zeros(reference.m), np.zeros(reference.n_blocks)

    def inputs() -> Iterator[tuple]:
        for i in range(reference.n_blocks):
            if closed_form:
                first, stop = int(reference.block_start[i]), int(reference.block_start[i + 1])
                scores, _ = _all_scores(dataset, match, first, stop, "bands", trait)
                yield i, reference.block(i), scores
            else:
                yield i, reference.share(i), None

    def work(item: tuple):
        i, block, scores = item
        here = slice(i * number, (i + 1) * number)
        traces = equations.t_1[here], equations.t_2[here]
        band = bands.band_of(block.share if closed_form else block)
        sides = bands.block_right_sides(sums.q[i], band, *traces, v[here][:, of], m)
        if not closed_form:
            return sides, None, None
        seen = moments.project_block(
            block.M, block.R_a, block.R_b, block.T, scores, reference.n_a, reference.n_b,
            block.t_1_ratio, dataset.n,
        )  # fmt: skip
        c = np.where(band >= 0, coefficient[here][np.maximum(band, 0)], 0.0)
        own = replace(seen, q=seen.q[:, : dataset.r])
        return sides, moments.moments_of(own, c), moments.variant_weights(seen, c)

    done = ordered_map(work, inputs(), workers)
    if closed_form:
        done = progress(done, reference.n_blocks)
    for i, (sides, part, block_weight) in enumerate(done):
        right[sums.group[i]] += sides
        if part is not None:
            weighted = weighted + part
            block_t_4[i] = part.t_4
            here = slice(reference.block_start[i], reference.block_start[i + 1])
            variant_weight[here] = block_weight
    if len(dataset.A) > 1:
        kappa = noise_by_A(dataset)
        difference = kappa - moments.mean_noise(kappa, sums.row, sums.block_t_1)
        per_noise = np.zeros((len(normal), len(kappa), 2))
        at = sums.group[equations.block], sums.row[equations.block]
        np.add.at(per_noise, at, matrices[:, 0, 0, :, 1])
        right[:, :, : dataset.r, : dataset.r] -= np.einsum("gai,ajl->gijl", per_noise, difference)
    n_dropped = int((~equations.usable).sum())
    return BandSums(normal, right, weighted, block_t_4, variant_weight, h2, n_dropped)


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
    of = np.unique(found.A_index[at])
    if len(of) > 1:
        raise InputError(
            f"{dataset.path}: variants of one LD block have different offsets (A_index "
            f"{of[0]} and {of[1]}), which belong to whole chromosomes: make the dataset again"
        )
    if method == "published":
        variance = dataset.A[of[0]] / dataset.n
        values = moments.published_scores(found.z[at], variance, dataset.n)
    else:
        values = moments.component_scores(found.beta[at], found.a[at], dataset.n)
    scores[hit] = values * match.sign[first:stop][hit, None]
    return scores, int(of[0])


def sums_memory(dataset: MinimalDataset, reference: LdReference, workers: int) -> float:
    """Return the bytes that the pass over the reference and the variant tables take."""
    largest = int(np.diff(reference.block_start).max())
    work = (workers + 2) * (8 * 8 * largest**2 + reference.block_bytes() + 16 * largest * dataset.r)
    # M'û of every block is kept for the band regression.
    tables = 716.0 * (dataset.m + reference.m)
    tables += 8.0 * int(reference.block_rank.sum()) * (dataset.r + 1)
    # By group: û'Ωû, both right sides, Γ̂ and κ̂ without the group, twice, and expected noise.
    return INTERPRETER_BYTES + work + tables + 8.0 * 9 * JACKKNIFE_GROUPS * (dataset.r + 1) ** 2


@dataclass(frozen=True)
class Intercept:
    """κ of the band regression with its intercept estimated, (c, c), and without each group.

    With offsets by chromosome it is the κ that the mean over chromosomes, weighted by t₁, has.
    """

    kappa: np.ndarray
    left_out: np.ndarray


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
    """

    moments: moments.Moments
    left_out: np.ndarray
    blend: float | None
    intercept: Intercept | None
    model_test: dict[str, float]
    numbers: dict[str, float]


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
    method : {"moments", "bands", "published"}
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
    kappa = moments.mean_noise(by_A, sums.row, sums.block_t_1)
    kappa_left_out = moments.left_out_noise(by_A, sums.row, sums.block_t_1, sums.group)
    inverse_n = np.full_like(kappa, 1 / dataset.n)
    traces = sums.group_t_1, sums.group_t_2
    plain = moments.combine(
        sums.total, kappa, inverse_n, m, factors, published=method == "published",
        quartic_kappa=moments.mean_noise(by_A, sums.row, sums.block_t_4), Sigma=dataset.Sigma,
    )  # fmt: skip
    if method == "published":
        left_out = moments.leave_one_out_Gamma(sums.group_quadratic, *traces, kappa_left_out, m)
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
    own_kappa, own_left_out = kappa, kappa_left_out
    if not fixed_intercept:
        own_kappa, own_left_out = free, free_left_out + (kappa_left_out - kappa)
    Gamma = plain.scale * (sums.total.quadratic - plain.t_1 * own_kappa)
    left_out = moments.leave_one_out_Gamma(sums.group_quadratic, *traces, own_left_out, m)
    test = _model_test(Gamma, left_out, band_Gamma, band_left_out, variance)
    weight, found = sums.variant_weight, replace(plain, Gamma=Gamma)
    if method == "bands":
        part, weight = banded.weighted, banded.variant_weight
        quartic_kappa = moments.mean_noise(by_A, sums.row, banded.block_t_4)
        s = factors[1] * (part.quartic - part.t_4 * quartic_kappa)
        found = moments.Moments(
            band_Gamma, kappa, s, 1.0, part.t_1, factors[0] * part.t_4, inverse_n, dataset.Sigma
        )
        left_out = band_left_out
    frequency = reference.variants["effect_allele_frequency"].to_numpy(dtype=float)
    label = moments.variant_classes(sums.ld_score, frequency)
    blend = moments.blend_factor(*moments.class_means(weight, label))
    numbers = {
        "mean_heritability_weights": banded.heritability[0],
        "n_bands": len(sums.equations.t_1), "n_bands_dropped": banded.n_dropped,
        "blend_factor": blend,
    }  # fmt: skip
    return Estimate(found, left_out, blend, intercept, test, numbers), sums


def _model_test(Gamma, left_out, band_Gamma, band_left_out, variance) -> dict[str, float]:
    """Compare the mean h² of both estimators: their difference against its jackknife error."""
    one, other = np.trace(Gamma) / variance, np.trace(band_Gamma) / variance
    each = np.trace(left_out - band_left_out, axis1=1, axis2=2) / variance
    error = float(jackknife_standard_error(each))
    difference = float(one - other)
    return {
        "heritability_moments": float(one),
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
    """

    Gamma: np.ndarray
    left_out: np.ndarray
    closed_form: moments.Moments | None
    intercept: Intercept | None
    expected_kappa: np.ndarray
    n_used: int
    pseudo_values: bool = False


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
    method : {"moments", "bands", "published"}
        Estimator where nobody is in common.
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
    kappa = moments.mean_noise(by_A, sums.row, sums.block_t_1)
    inverse_n, Sigma = np.zeros((2, r + 1, r + 1))
    inverse_n[:-1, :-1], inverse_n[-1, -1] = 1 / dataset.n, 1 / n_trait
    Sigma[:-1, :-1], Sigma[-1, -1] = dataset.Sigma, 1.0
    plain = moments.combine(
        sums.total, kappa, inverse_n, m, reference.factors(), published=method == "published",
        quartic_kappa=moments.mean_noise(by_A, sums.row, sums.block_t_4), Sigma=Sigma,
    )  # fmt: skip
    left_out = moments.leave_one_out_Gamma(
        sums.group_quadratic, sums.group_t_1, sums.group_t_2,
        moments.left_out_noise(by_A, sums.row, sums.block_t_1, sums.group), m,
    )  # fmt: skip
    if method == "published":
        if not overlap:
            return CrossEstimate(plain.Gamma, left_out, plain, None, kappa, sums.n_used)
        found = _published_intercepts(
            dataset, reference, match, sums, plain.Gamma, trait, n_trait, trait_n
        )
        rest = sums.group_t_1.sum() - sums.group_t_1
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
    if method == "moments":
        return CrossEstimate(plain.Gamma, left_out, plain, intercept, kappa, sums.n_used)
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
        product, sums.ld_score[row], (float(dataset.n), n_2), h2, sums.total.t_1, group,
    )  # fmt: skip
    kappa = np.full((r + 1, r + 1), np.nan)
    left_out = np.full((len(sums.group_t_1), r + 1, r + 1), np.nan)
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
        'moments', 'bands' or 'published'.
    blend : float or None
        Part of the jackknife's excess that se_method 'auto' adds.
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
        return h2, self._error(error, jackknife, se_method)

    def correlation(
        self, rows: np.ndarray, columns: np.ndarray, se_method: str = "closed_form"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ρ and its standard error between rows of bases, (I, r) and (J, r), as they are."""
        rho, error = moments.genetic_correlation(self.moments, rows, columns)
        if se_method == "closed_form":
            return rho, error
        jackknife = moments.genetic_correlation_jackknife(self.left_out, rows, columns)
        return rho, self._error(error, jackknife, se_method)

    def _error(self, closed_form: np.ndarray, jackknife: np.ndarray, se_method: str) -> np.ndarray:
        if se_method == "jackknife":
            return jackknife
        if self.blend is None:
            raise InputError("se_method auto is not to be had for the published estimator")
        return moments.blended_error(closed_form, jackknife, self.blend)

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
