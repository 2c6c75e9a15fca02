"""Simulated genotypes, spatial effects and images whose truth is known; arrays in, arrays out."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.spatial import cKDTree

POPULATION_SIZE = 10_000
RECOMBINATION_RATE = 1e-8
_LEAST_SPACING = 50.0  # base pairs a variant, on average
_LOCAL_SHARE = 0.2  # of the chromosomes with causal variants: those with planted ones only


def generator(seed: int, stream: str, index: int = 0) -> np.random.Generator:
    """Return the random generator of one named part of a simulation.

    Parts have streams of their own, so that what one draws never moves another, in whatever
    order and by however many threads they are made.
    """
    return np.random.default_rng([seed, zlib.crc32(stream.encode()), index])


def simulate_chromosome(
    n_people: int, n_variants: int, length: float, minor_allele_frequency: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate one chromosome by the coalescent with recombination.

    Constant population of 10,000, 1e-8 recombinations a base pair and generation. Mutations
    are laid on the genealogy until enough variants are common enough, and a random part of
    those is kept, so the frequency spectrum above the limit is the neutral one.

    Parameters
    ----------
    n_people : int
        Diploid people.
    n_variants : int
        Variants wanted.
    length : float
        Base pairs.
    minor_allele_frequency : float
        Least minor allele frequency over all people.
    seed : int
        Seed of this chromosome.

    Returns
    -------
    position : (m,) array of int64
        0-based positions, ascending and distinct.
    genotypes : (m, n_people) array of int8
        Number of derived alleles.

    Raises
    ------
    ValueError
        The chromosome is too short for so many variants.
    """
    import msprime

    if n_variants > length / _LEAST_SPACING:
        raise ValueError(f"{n_variants} variants do not fit on {length:g} base pairs")
    rng = generator(seed, "chromosome")
    seeds = rng.integers(1, 2**31 - 1, size=16)
    genealogy = msprime.sim_ancestry(
        n_people,
        population_size=POPULATION_SIZE,
        recombination_rate=RECOMBINATION_RATE,
        sequence_length=length,
        random_seed=int(seeds[0]),
    )
    n_haplotypes = 2 * n_people
    expected = 4 * POPULATION_SIZE * length * np.log(1 / minor_allele_frequency - 1)
    rate = 1.3 * n_variants / expected
    for mutation_seed in seeds[1:]:
        mutated = msprime.sim_mutations(genealogy, rate=rate, random_seed=int(mutation_seed))
        count = _derived_counts(mutated)
        frequency = np.minimum(count, n_haplotypes - count) / n_haplotypes
        common = np.flatnonzero(frequency >= minor_allele_frequency)
        if common.size >= n_variants:
            break
        rate *= 1.5
    if common.size < n_variants:
        raise ValueError(f"{n_variants} variants do not fit on {length:g} base pairs")
    kept = np.sort(rng.choice(common, size=n_variants, replace=False))
    dropped = np.setdiff1d(np.arange(mutated.num_sites), kept)
    haplotypes = mutated.delete_sites(dropped, record_provenance=False).genotype_matrix()
    position = np.floor(mutated.sites_position[kept]).astype(np.int64)
    return position, (haplotypes[:, 0::2] + haplotypes[:, 1::2]).astype(np.int8)


def _derived_counts(genealogy) -> np.ndarray:
    """Return the number of derived haplotypes by site; 0 where a site mutated twice."""
    count = np.zeros(genealogy.num_sites, dtype=np.int64)
    for tree in genealogy.trees():
        for site in tree.sites():
            if len(site.mutations) == 1:
                count[site.id] = tree.num_samples(site.mutations[0].node)
    return count


def imputed_dosages(genotypes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return dosages as an imputation gives them: a fifth of the calls a little uncertain.

    An uncertain call moves towards its neighbour by at most 0.4, half of them by less than 0.1.

    Parameters
    ----------
    genotypes : (m, n) array of int8
        True genotypes.

    Returns
    -------
    (m, n) array of float32, within [0, 2]
    """
    shift = rng.random(genotypes.shape, dtype=np.float32) ** 2 * np.float32(0.4)
    shift *= rng.random(genotypes.shape, dtype=np.float32) < 0.2
    direction = np.where(
        genotypes == 0, 1, np.where(genotypes == 2, -1, 1 - 2 * (rng.random(genotypes.shape) < 0.5))
    )
    return genotypes + shift * direction.astype(np.float32)


def missing_calls(genotypes: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Return a copy of genotypes (m, n) with calls missing (-9) at random."""
    called = genotypes.copy()
    called[rng.random(genotypes.shape, dtype=np.float32) < rate] = -9
    return called


def choose_chromosomes(
    n: int, null_share: float, n_planted: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Share the causal variants out among chromosomes, of which some get none at all.

    A locus found on a chromosome without a causal variant is false for certain, which a locus
    among many background variants never is. Of the other chromosomes about a fifth have planted
    variants only, and the rest have the polygenic background, planted variants among it.

    Parameters
    ----------
    n : int
        Chromosomes.
    null_share : float
        Share of them that get no causal variant (to the nearest whole number, one at least
        is left).
    n_planted : int
        Planted variants.

    Returns
    -------
    planted : (n,) array of int
        Planted variants of each chromosome.
    background : (n,) array of bool
        Whether it has background variants.
    """
    order = rng.permutation(n)
    n_null = min(int(null_share * n + 0.5), n - 1)
    active = order[n_null:]
    n_local = min(int(_LOCAL_SHARE * len(active) + 0.5), n_planted, len(active) - 1)
    background = np.zeros(n, dtype=bool)
    background[active[n_local:]] = True
    planted = np.zeros(n, dtype=np.int64)
    np.add.at(planted, active[np.arange(n_planted) % len(active)], 1)
    return planted, background


def choose_causal(
    frequency: np.ndarray,
    n_planted: int,
    n_background: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose causal variants among those of a chromosome.

    Planted variants are common (minor allele frequency of .15 or more where there are such)
    and lie in separate parts of the chromosome; background variants have at least .01,
    the least that an LD reference takes.

    Parameters
    ----------
    frequency : (m,)
        Allele frequency by variant.

    Returns
    -------
    planted, background : arrays of int
        Places in ``frequency``, ascending and disjoint; fewer than asked for when there are
        too few variants.
    """
    minor = np.minimum(frequency, 1 - frequency)
    eligible = np.flatnonzero(minor >= 0.15)
    if eligible.size < n_planted:
        eligible = np.flatnonzero(minor >= 0.05)
    planted = []
    for part in np.array_split(eligible, n_planted) if n_planted else []:
        if part.size:
            quarter = part.size // 4
            planted.append(int(rng.choice(part[quarter : part.size - quarter])))
    others = np.setdiff1d(np.flatnonzero(minor >= 0.01), planted)
    background = rng.choice(others, size=min(n_background, others.size), replace=False)
    return np.sort(np.asarray(planted, dtype=np.int64)), np.sort(background)


def standardise(genotypes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale dosages (l, n), missing ones (NaN) at the mean.

    Returns
    -------
    standardised : (l, n)
        Mean 0 and variance 1 (divisor n) by row.
    deviation : (l,)
        Standard deviations before scaling.
    """
    mean = np.nanmean(genotypes, axis=1, keepdims=True)
    centred = np.nan_to_num(genotypes - mean)
    deviation = np.sqrt(np.mean(centred**2, axis=1))
    return centred / deviation[:, None], deviation


def farthest_points(coordinates: np.ndarray, number: int) -> np.ndarray:
    """Return voxels (number,) spread over the image, each farthest from those before."""
    chosen = [int(np.argmin(np.sum((coordinates - coordinates.mean(0)) ** 2, axis=1)))]
    distance = np.full(len(coordinates), np.inf)
    while len(chosen) < number:
        distance = np.minimum(
            distance, np.sum((coordinates - coordinates[chosen[-1]]) ** 2, axis=1)
        )
        chosen.append(int(np.argmax(distance)))
    return np.asarray(chosen)


def parcels(coordinates: np.ndarray, number: int, rounds: int = 20) -> np.ndarray:
    """Return labels 1…number (N,) of compact regions, by k-means on the coordinates."""
    centres = coordinates[farthest_points(coordinates, number)]
    for _ in range(rounds):
        label = cKDTree(centres).query(coordinates)[1]
        size = np.bincount(label, minlength=number)
        for axis in range(coordinates.shape[1]):
            total = np.bincount(label, coordinates[:, axis], minlength=number)
            centres[:, axis] = np.where(size > 0, total / np.maximum(size, 1), centres[:, axis])
    return label + 1


def bumps(coordinates: np.ndarray, centres: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Return Gaussian bumps (N, k) of standard deviation ``width`` (k,) around centres (k, d)."""
    squared = np.sum((coordinates[:, None, :] - centres[None]) ** 2, axis=2)
    return np.exp(-0.5 * squared / np.asarray(width) ** 2)


def smooth_field(coordinates: np.ndarray, width: float, rng: np.random.Generator) -> np.ndarray:
    """Return a random smooth field (N,) of mean 0 and variance 1."""
    centres = coordinates[farthest_points(coordinates, min(60, len(coordinates)))]
    field = bumps(coordinates, centres, np.full(len(centres), width)) @ rng.standard_normal(
        len(centres)
    )
    return (field - field.mean()) / field.std()


def unit_rows(patterns: np.ndarray) -> np.ndarray:
    """Scale the rows of ``patterns`` (N, k) to length one."""
    return patterns / np.linalg.norm(patterns, axis=1, keepdims=True)


def heritability_map(
    coordinates: np.ndarray, mean: float, width: float, rng: np.random.Generator
) -> np.ndarray:
    """Return a target heritability (N,) that varies smoothly from .1 to 1.9 times its mean."""
    field = smooth_field(coordinates, width, rng)
    _, place, count = np.unique(field, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # the mean one of equal values
    return np.minimum(mean * (0.1 + 1.8 * rank / len(coordinates)), 0.95)


def covariance_factor(patterns: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return F whose F F' is the covariance of voxels over the people at hand.

    Parameters
    ----------
    patterns : (N, f)
        Map of each factor.
    scores : (f, n)
        Realised factor scores of n people, correlated as it happens (linkage
        disequilibrium included).

    Returns
    -------
    F : (N, f)
        patterns L, with L L' the scores' sample covariance (divisor n).
    to_factors : (f, f)
        L^-1: ``to_factors @ scores`` are the uncorrelated scores that go with F.
    """
    centred = scores - scores.mean(axis=1, keepdims=True)
    L = np.linalg.cholesky(centred @ centred.T / centred.shape[1])
    return patterns @ L, np.linalg.inv(L)


def denoised_bases(factors: np.ndarray, noise: float, share: float = 0.75) -> np.ndarray:
    """Return the bases B (N, r) that smoothing and principal components would about find.

    The leading eigenvectors of M M' for the smooth part M (N, k) of the images, as many as
    explain ``share`` of its variance and of ``noise``, the variance left after smoothing. The
    share is below the usual 80 %, since smoothing also takes the finest of the smooth part.
    """
    left, singular, _ = np.linalg.svd(factors, full_matrices=False)
    cumulated = np.cumsum(singular**2) / (np.sum(singular**2) + noise)
    return left[:, : int(np.searchsorted(cumulated, share)) + 1]


def projected_variance(B: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Return b_v' B' F F' B b_v by voxel (N,) for a covariance factor F (N, f)."""
    return np.sum((B @ (B.T @ factor)) ** 2, axis=1)


def denoised_variance(
    B: np.ndarray, F: np.ndarray, E: np.ndarray, noise_variance: np.ndarray
) -> np.ndarray:
    """Return the variance (N,) of the denoised voxels, b_v' B'(F F' + E E' + D) B b_v."""
    inner = B.T @ (noise_variance[:, None] * B)
    noise = np.einsum("vr,vr->v", B @ inner, B)
    return projected_variance(B, F) + projected_variance(B, E) + noise


def denoised_heritability(
    B: np.ndarray, F: np.ndarray, E: np.ndarray, noise_variance: np.ndarray
) -> np.ndarray:
    """Return the true heritability (N,) of the image denoised by bases B (N, r)."""
    return projected_variance(B, F) / denoised_variance(B, F, E, noise_variance)


def noncentrality(B: np.ndarray, effect: np.ndarray, variance: np.ndarray, n: float) -> np.ndarray:
    """Return the non-centrality of each variant's t statistic at each denoised voxel.

    Parameters
    ----------
    B : (N, r)
        Bases.
    effect : (N, l)
        Effect on the raw voxels of one standard deviation of the dosage.
    variance : (N,)
        Variance of the denoised voxels.
    n : float
        People.

    Returns
    -------
    (N, l) array
        sqrt(n q / (1 - q)), q the share of the voxel's variance, with the effect's sign.
    """
    effect = B @ (B.T @ effect)
    share = np.minimum(effect**2 / variance[:, None], 0.999)
    return np.sign(effect) * np.sqrt(n * share / (1 - share))


def power(noncentrality_at_lead: np.ndarray, critical_z: float) -> np.ndarray:
    """Return the two-sided probability that |z| exceeds a critical value (normal scale)."""
    ncp = np.abs(noncentrality_at_lead)
    return special.ndtr(ncp - critical_z) + special.ndtr(-ncp - critical_z)


@dataclass(frozen=True)
class Images:
    """What the images of a study are made of, in image units.

    ``F`` (N, f) and ``to_factors`` (f, f) as of :func:`covariance_factor`, smooth residual ``E``
    (N, e), ``noise_variance`` (N,), ``mean`` (N,), ``covariate_effects`` (N, c) for one standard
    deviation of a covariate.
    """

    F: np.ndarray
    to_factors: np.ndarray
    E: np.ndarray
    noise_variance: np.ndarray
    mean: np.ndarray
    covariate_effects: np.ndarray

    def image(
        self, scores: np.ndarray, covariates: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return one person's image (N,) from uncorrelated factor scores and covariates."""
        value = self.mean + self.F @ scores + self.covariate_effects @ covariates
        value += self.E @ rng.standard_normal(self.E.shape[1])
        value += np.sqrt(self.noise_variance) * rng.standard_normal(len(value))
        return value.astype(np.float32)


def make_images(
    coordinates: np.ndarray,
    scores: np.ndarray,
    target_noncentrality: np.ndarray,
    *,
    heritability: float,
    n_residual_factors: int,
    n_covariates: int,
    unit: float,
    seed: int,
) -> Images:
    """Design images on a geometry so that heritability varies and planted loci are as strong
    as wanted in the denoised image.

    Parameters
    ----------
    coordinates : (N, d)
        Millimetres.
    scores : (f, n)
        Realised factor scores, variance one by row: first the planted variants (standardised
        dosages), then the background factors.
    target_noncentrality : (k,)
        Wanted for the lead voxel of each planted variant, in n people.
    heritability : float
        Mean share of the smooth part of the images that the background explains.
    n_residual_factors, n_covariates : int
        Columns of E and of the covariates' effects.
    unit : float
        Standard deviation of the smooth part in image units.
    seed : int
        Seed of the study.
    """
    n_voxels = len(coordinates)
    n_planted = len(target_noncentrality)
    n_background = len(scores) - n_planted
    volume = 0.5 * np.prod(np.ptp(coordinates, axis=0))
    wide = np.cbrt(volume / max(1, n_background))
    narrow = 0.7 * np.cbrt(volume / n_residual_factors)
    target = heritability_map(coordinates, heritability, 30.0, generator(seed, "heritability"))

    rng = generator(seed, "background")
    centres = coordinates[farthest_points(coordinates, n_background)]
    widths = np.linspace(0.35, 0.75, n_background)[rng.permutation(n_background)] * wide
    background = bumps(coordinates, centres, widths) * rng.choice([-1, 1], n_background)
    background = unit_rows(background) * np.sqrt(target)[:, None]

    centres = coordinates[farthest_points(coordinates, n_residual_factors)]
    E = bumps(coordinates, centres, np.full(n_residual_factors, narrow))
    E = unit_rows(E) * np.sqrt(1 - target)[:, None]
    rough = smooth_field(coordinates, 25.0, generator(seed, "noise"))
    noise_variance = 0.4 * np.clip(1 + 0.15 * rough, 0.5, 1.5)

    # Loci act away from the image's rim, where bases reproduce local patterns best.
    depth = cKDTree(coordinates).query(coordinates, k=min(33, n_voxels))[0].mean(axis=1)
    inner = np.flatnonzero(depth <= np.median(depth))
    rng = generator(seed, "planted")
    spread = farthest_points(coordinates[inner], max(1, n_planted))
    lead = inner[rng.permutation(spread)][:n_planted]
    width = rng.uniform(0.9, 1.2, n_planted) * narrow
    local = bumps(coordinates, coordinates[lead], width)
    amplitude = np.full(n_planted, 0.1)
    sign = rng.choice([-1.0, 1.0], n_planted)
    for _ in range(12 if n_planted else 0):
        planted = local * (amplitude * sign)
        F, _ = covariance_factor(np.hstack([planted, background]), scores)
        B = denoised_bases(np.hstack([F, E]), 0.02 * n_voxels)
        variance = denoised_variance(B, F, E, noise_variance)
        share = np.max((B @ (B.T @ planted)) ** 2 / variance[:, None], axis=0)
        wanted = target_noncentrality**2 / (scores.shape[1] + target_noncentrality**2)
        amplitude *= np.sqrt(wanted / np.maximum(share, 1e-12)).clip(0.5, 3.0)
    F, to_factors = covariance_factor(np.hstack([local * (amplitude * sign), background]), scores)

    mean = 0.45 + 0.06 * smooth_field(coordinates, 30.0, generator(seed, "mean"))
    covariate_effects = np.stack(
        [
            0.25 * smooth_field(coordinates, 40.0, generator(seed, "covariate effect", index))
            for index in range(n_covariates)
        ],
        axis=1,
    )
    return Images(
        F=unit * F,
        to_factors=to_factors,
        E=unit * E,
        noise_variance=unit**2 * noise_variance,
        mean=mean,
        covariate_effects=unit * covariate_effects,
    )


def background_effects(
    standardised: np.ndarray, n_factors: int, rng: np.random.Generator
) -> np.ndarray:
    """Return effects (l, n_factors) of standardised dosages (l, n) on background factors.

    Normal, so that no single variant is strong, and scaled so that each factor's score has
    variance one in the people at hand.
    """
    effect = rng.standard_normal((len(standardised), n_factors))
    scores = effect.T @ standardised
    return effect / scores.std(axis=1)


def trait_effects(
    standardised: np.ndarray,
    background: np.ndarray,
    heritability: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return effects (l,) of standardised dosages (l, n) on an external trait.

    The trait shares the first background factors (weights .75, -.5, .3) and has effects of its
    own at the same variants; its genetic variance in the people at hand is ``heritability``.

    Parameters
    ----------
    background : (l, k)
        Effects on the background factors.
    """
    weights = np.zeros(background.shape[1])
    weights[:3] = (0.75, -0.5, 0.3)[: len(weights)]
    own = rng.standard_normal(len(standardised))
    own *= np.sqrt(max(0.05, 1 - np.sum(weights**2))) / (own @ standardised).std()
    effect = background @ weights + own
    return effect * np.sqrt(heritability) / (effect @ standardised).std()


def covariates(
    n: int, male: np.ndarray, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return covariates by name and their scaled values (n, 5): age, sex, sites B and C, head.

    Parameters
    ----------
    n : int
        People.
    male : (n,) array of bool
    """
    age = np.round(rng.uniform(45, 80, n), 1)
    site = rng.choice(["A", "B", "C"], size=n, p=[0.5, 0.3, 0.2])
    head = np.round(1.4e6 + 1.0e5 * (male - 0.5) + 1.1e5 * rng.standard_normal(n), 0)
    columns = {"age": age, "sex": np.where(male, 1, 2), "site": site, "head_size": head}
    scaled = np.stack(
        [(age - 62.5) / 10.1, male - 0.5, site == "B", site == "C", (head - 1.4e6) / 1.2e5],
        axis=1,
    )
    return columns, scaled.astype(float)


def marginal_statistics(
    dosages: np.ndarray, trait: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Regress a trait on each variant alone, people with a missing call left out.

    Parameters
    ----------
    dosages : (m, n)
        NaN where missing.
    trait : (n,)

    Returns
    -------
    beta, standard_error, p_value, frequency, n : (m,) arrays
        NaN where a variant does not vary.
    """
    called = np.isfinite(dosages)
    n = called.sum(axis=1)
    x = np.where(called, dosages, 0.0)
    mean = x.sum(axis=1) / n
    xx = (x**2).sum(axis=1) - n * mean**2
    y = called @ trait
    xy = x @ trait - mean * y
    yy = called @ trait**2 - y**2 / n
    with np.errstate(divide="ignore", invalid="ignore"):
        xx = np.where(xx > 1e-9, xx, np.nan)
        beta = xy / xx
        standard_error = np.sqrt(np.maximum(yy - beta * xy, 0) / ((n - 2) * xx))
        p_value = 2 * special.stdtr(n - 2, -np.abs(beta / standard_error))
    return beta, standard_error, p_value, mean / 2, n
