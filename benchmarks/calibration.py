#!/usr/bin/env python3
"""Are h², ρ, cross-trait ρ and their standard errors right? Monte Carlo with known truth.

Coalescent genotypes (msprime) of a study, of another study and of two LD panels, all of different
people, are drawn anew for each genotype set; on each set many phenotypes are drawn and go through
the functions that the pipeline calls: moments (method 5b) and their weighted form (5d: 'balanced'
for h², 'precise' for correlations), band regression (5c) with the intercept fixed and free, the
published estimator with three pairs of shares, and the regressions of the
`ldsc` package where it can be imported (`ldscore`; put it on PYTHONPATH), with its defaults, on LD
scores as it defines them, of the same panels over whole chromosomes.

Pairs of phenotypes of a study have genetic correlation ρ and h² exactly in the population: that of
the effects through the correlations within chromosomes, of everybody drawn. (Were they exact in the
people of both studies, of whom the study is half, the sampling of genotypes, which standard errors
count, would be half of it in h² and ρ within the study and none with the other one's trait.)
Environments of a pair have correlation .6. The trait of the other study has the effects of the
second; its environment has correlation .6 with the first one's in people who are in both studies.
Where ρ varies, pairs take 0, .3, .7 and -.5 in turn.

Eight named scenarios, 50 pairs (100 phenotypes of the study, 50 traits) on each of 20 sets:

    null         h² 0, half of the people in both studies
    polygenic    h² .4, 5,000 causal variants anywhere, ρ 0
    oligogenic   h² .4, 20 causal variants anywhere, ρ varies
    weak         h² .2, 500 causal variants anywhere, ρ varies
    frequency    h² .4, 500 causal variants, variance of effects ∝ 2pq, ρ varies
    low_ld       h² .4, 500 causal variants in the quarter with the lowest LD scores, ρ varies
    high_ld      h² .4, 500 causal variants in the quarter with the highest, ρ varies
    overlap      h² .4, 500 causal variants anywhere, ρ varies, half of the people in both studies

Elsewhere 80 phenotypes and 40 traits on each of 5 sets (400 and 200 replicates; panels: 40 and 20):
h² 0, .05, .2, .4 × 20, 500, 5,000 causal variants anywhere, and the other placements with h² .4;
overlap of 0, 50 and 100 %; the structured sets, with two demes that parted 80 generations ago
(F_ST about .002), half of everybody from each, whose environments differ by a tenth of a standard
deviation; and the wide sets, with panels of 500, 1,000, 2,000 and 5,000 people and shares of .6 to
.98. Chromosomes are of 5 Mb, blocks of about 1.2 Mb.

Every set's results are a file of their own, so that a run can be stopped and goes on from there;
the tables are made from the files there are. Monte-Carlo errors come from the sets' means.

    python benchmarks/calibration.py --sets 20
    python benchmarks/calibration.py --tables
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))

import threadpoolctl

from rvga import balance, bands, jackknife, ld, ld_products
from rvga import heritability as h
from rvga import published as section_5

with np.errstate():
    # The package makes NumPy raise on any division by zero, everywhere.
    try:
        from ldscore import jackknife as ldsc_jackknife
        from ldscore import regressions as ldsc
    except ImportError:
        ldsc = ldsc_jackknife = None

ENVIRONMENT = 0.6
STRUCTURE = 0.0025
RHOS = (0.0, 0.3, 0.7, -0.5)
SHARES = (0.6, 0.8, 0.9, 0.95, 0.98)
PUBLISHED = ((0.98, 0.95), (0.90, 0.85), (0.85, 0.80))
# Weighted moments: for h², and for correlations.
WEIGHTED = ("balanced", "precise")
# Groups of the jackknife, of two blocks each: neighbours are correlated, which matters less in the
# groups of a whole genome (eight blocks).
GROUPS = 40
LDSC_PAIRS = 6
# Variants of the cross-trait regression are tried on so many pairs only.
VARIANT_PAIRS = 5


# First numbers of the genotype sets of each kind.
OFFSET = {"plain": 0, "wide": 200, "structured": 400, "grid": 600}


class Sizes(NamedTuple):
    """People, variants a chromosome and so on; the defaults are those of the tables."""

    study: int = 2500
    other: int = 2500
    panel: int = 1000
    wide_panels: tuple[int, ...] = (500, 1000, 2000, 5000)
    chromosomes: int = 20
    variants: int = 1000
    megabases: float = 5.0
    largest_block: int = 280


class Scenario(NamedTuple):
    """One cell: what is true of its phenotypes, and pairs of them on a genotype set."""

    h2: float
    causal: int
    placement: str = "any"
    rhos: tuple[float, ...] = RHOS
    overlap: float = 0.0
    pairs: int = 50


NAMED = {
    "null": Scenario(0.0, 500, rhos=(0.0,), overlap=0.5),
    "polygenic": Scenario(0.4, 5000, rhos=(0.0,)),
    "oligogenic": Scenario(0.4, 20),
    "weak": Scenario(0.2, 500),
    "frequency": Scenario(0.4, 500, "frequency"),
    "low_ld": Scenario(0.4, 500, "low_ld"),
    "high_ld": Scenario(0.4, 500, "high_ld"),
    "overlap": Scenario(0.4, 500, overlap=0.5),
}
PLACEMENTS = ("any", "frequency", "low_ld", "high_ld")


def grid() -> dict[str, Scenario]:
    """Return the cells of the sets of kind 'grid'."""
    cells = {"grid h2 0": Scenario(0.0, 500, rhos=(0.0,), pairs=40)}
    for h2, causal, where in itertools.product((0.05, 0.2, 0.4), (20, 500, 5000), PLACEMENTS):
        if h2 == 0.4 or where == "any":
            cells[f"grid h2 {h2} {causal} {where}"] = Scenario(h2, causal, where, pairs=40)
    for overlap in (0.5, 1.0):
        cells[f"grid overlap {overlap}"] = Scenario(0.4, 500, overlap=overlap, pairs=40)
    return cells


STRUCTURED = {
    "structured h2 0": Scenario(0.0, 500, rhos=(0.0,), pairs=40),
    "structured h2 0.4": Scenario(0.4, 500, pairs=40),
}
WIDE = {
    "wide null": Scenario(0.0, 500, rhos=(0.0,), pairs=20),
    **{
        f"wide {where}": Scenario(0.4, 500, where, pairs=20)
        for where in ("any", "low_ld", "high_ld")
    },
}


@dataclass(frozen=True)
class Block:
    """One LD block: its first variant, M, its traces, and d of the published pairs of shares.

    ``traces`` are t₁, t₂ and, by class of variants, what a reference holds of t₂, by column of M;
    ``ld_score`` is that of the published cross-trait regression.
    """

    first: int
    M: np.ndarray
    share: np.ndarray
    seen: h.BlockProjection
    published: tuple[float, ...]
    traces: tuple[np.ndarray, np.ndarray, np.ndarray]
    class_size: np.ndarray
    ld_score: np.ndarray

    def cut(self, share: float) -> Block:
        """Return the block with the columns of M for a smaller share."""
        k = ld.columns_for_share(self.share, share)
        s = self.seen
        seen = replace(
            s, q=s.q[:k], H_a=s.H_a[:k, :k], H_b=s.H_b[:k, :k], H_1=s.H_1[:k, :k], t_2=s.t_2[:k],
            RM_a=s.RM_a[:, :k], RM_b=s.RM_b[:, :k], t_1=s.t_1[:k],
        )  # fmt: skip
        traces = tuple(one[:k] for one in self.traces)
        return replace(self, M=self.M[:, :k], share=self.share[:k], seen=seen, traces=traces)


@dataclass(frozen=True)
class Reference:
    """Blocks of all chromosomes, the factors between blocks, and their groups."""

    blocks: list[Block]
    factors: tuple[float, float]
    group: np.ndarray
    m: float
    n: float

    def cut(self, share: float) -> Reference:
        """Return the reference with a smaller share."""
        return replace(self, blocks=[block.cut(share) for block in self.blocks])

    @cached_property
    def weights(self) -> dict[str, list[np.ndarray]]:
        """Weights of the columns of each block by estimator of :data:`WEIGHTED`."""
        start = np.concatenate([[0], np.cumsum([len(block.share) for block in self.blocks])])
        equation = balance.equations(np.concatenate([b.share for b in self.blocks]), start)
        t_1, t_2, by_class = (
            np.concatenate([block.traces[k] for block in self.blocks]) for k in range(3)
        )
        size = sum(block.class_size for block in self.blocks)
        traces, size = balance.class_traces(by_class, t_2, size)
        balanced = balance.balanced_weights(equation, t_1, t_2, traces, size, self.n)
        precise = balance.precise_weights(equation, t_1, t_2, self.m, self.n)
        found = (np.split(one, start[1:-1]) for one in (balanced, precise))
        return dict(zip(WEIGHTED, found, strict=True))


@dataclass(frozen=True)
class GenotypeSet:
    """Standardised genotypes (m, people) of both studies, the other one's by overlap.

    ``deme`` is ±1 by person of study and other, None without structure. ``ld_score`` (m,) is
    unbiased and over whole chromosomes; ``class_label`` classes of variants for errors;
    ``population`` the correlations within each chromosome, of everybody.
    """

    study: np.ndarray
    others: dict[float, np.ndarray]
    deme: np.ndarray | None
    frequency: np.ndarray
    ld_score: np.ndarray
    class_label: np.ndarray
    population: list[np.ndarray]
    references: dict[int, Reference]


def draw_chromosome(
    people: list[int], variants: int, megabases: float, seed: int, structured: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return (variants, people) dosages and the deme of each person, ±1.

    Minor allele frequencies are .02 and more. With structure there are two demes that parted 80
    generations ago; people are in random order, the same on every chromosome.
    """
    import msprime

    number = sum(people)
    if structured:
        demography = msprime.Demography.isolated_model([10_000, 10_000])
        demography.add_population(name="before", initial_size=10_000)
        demography.add_population_split(80, derived=["pop_0", "pop_1"], ancestral="before")
        samples = {"pop_0": (number + 1) // 2, "pop_1": number // 2}
        options = {"samples": samples, "demography": demography}
    else:
        options = {"samples": number, "population_size": 10_000}
    ancestry = msprime.sim_ancestry(
        **options, sequence_length=megabases * 1e6, recombination_rate=1e-8, random_seed=seed
    )
    mutated = msprime.sim_mutations(
        ancestry, rate=2e-9, random_seed=seed, model=msprime.BinaryMutationModel()
    )
    count = np.zeros(mutated.num_sites, dtype=np.int64)
    for tree in mutated.trees():
        for site in tree.sites():
            if len(site.mutations) == 1:
                count[site.id] = tree.num_samples(site.mutations[0].node)
    common = np.flatnonzero(np.minimum(count, 2 * number - count) >= 0.02 * 2 * number)
    if len(common) < variants:
        raise ValueError(f"{len(common)} common variants on {megabases} Mb, fewer than {variants}")
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.choice(common, variants, replace=False))
    rest = np.setdiff1d(np.arange(mutated.num_sites), kept)
    haplotypes = mutated.delete_sites(rest, record_provenance=False).genotype_matrix()
    dosages = (haplotypes[:, ::2] + haplotypes[:, 1::2]).astype(np.int8)
    deme = np.repeat([-1, 1], [(number + 1) // 2, number // 2])
    order = np.random.default_rng(number).permutation(number)
    return dosages[:, order], deme[order]


def standardised(dosages: np.ndarray) -> np.ndarray:
    """Return what :func:`rvga.ld.standardise` does of complete int8 dosages, faster."""
    G = dosages.astype(np.float32)
    G -= G.mean(axis=1, keepdims=True, dtype=np.float64)
    G /= G.std(axis=1, keepdims=True, dtype=np.float64)
    return G


class ReferenceParts:
    """Collects the blocks of one panel size, chromosome by chromosome."""

    def __init__(self, panel: int, n: int, largest: int, seed: int):
        self.n = n
        self.halves, self.thirds = ld.split_halves(panel, seed), ld.split_thirds(panel, seed)
        self.largest, self.blocks, self.traces, self.m = largest, [], [], 0

    def add(self, panel_1: np.ndarray, panel_2: np.ndarray) -> None:
        """Add one chromosome's dosages of both panels."""
        G_a, G_b, G_1, G_2 = (
            ld.standardise(part)
            for part in (*(panel_1[:, half] for half in self.halves), panel_1, panel_2)
        )
        K = np.zeros((G_a.shape[1], G_b.shape[1]))
        ld.accumulate_kinship(K, G_a, G_b)
        cost = ld.BoundaryCost()
        cost.add(np.concatenate([G_a, G_b, G_2], axis=1))
        start = ld.choose_cuts(cost.result(), self.largest // 2, self.largest)
        thirds = [ld.standardise(panel_1[:, third]) for third in self.thirds]
        between = ld.TracesBetweenBlocks(tuple(third.shape[1] for third in thirds))
        between.add_variants(thirds)
        for i, j in itertools.pairwise(start):
            block = ld.make_block(G_a[i:j], G_b[i:j], G_2[i:j], K, 0.98, G_1[i:j])
            between.add_block(*between.block(block.M, [third[i:j] for third in thirds]))
            self.blocks.append(self._seen(block, self.m + int(i), *K.shape))
        self.traces.append(between.result())
        self.m += len(G_a)

    def _seen(self, block: ld.LdBlock, first: int, n_a: int, n_b: int) -> Block:
        nobody = np.zeros((len(block.M), 0))
        seen = h.project_block(
            block.M, block.R_a, block.R_b, block.T, nobody, n_a, n_b, block.t_1_ratio, self.n
        )
        d = tuple(
            h.published_block_moments(
                block.M, block.share, block.R_a, block.R_b, nobody, n_a, n_b, *shares
            ).t_1
            for shares in PUBLISHED
        )
        products, ld_score = ld_products.block_products(block, n_a, n_b)
        R_1 = (n_a * block.R_a + n_b * block.R_b) / np.float32(n_a + n_b)
        return Block(
            first, block.M.astype(np.float32), block.share, seen, d,
            (products.t_1, products.t_2, products.class_trace),
            np.bincount(ld_products.class_of(ld_score), minlength=ld_products.N_CLASSES),
            section_5.adjusted_ld_scores(R_1, n_a + n_b),
        )  # fmt: skip

    def result(self) -> Reference:
        """Return the reference."""
        sizes = np.array([len(block.M) for block in self.blocks])
        factors = ld.between_block_factors(np.array(self.traces))
        group = jackknife.group_starts(sizes, GROUPS)
        return Reference(self.blocks, factors, group, float(self.m), float(self.n))


def ld_scores(panels: np.ndarray) -> np.ndarray:
    """Return sums of r² - (1 - r²)/(n - 2) over the chromosome, (m,), as `ldsc` defines them."""
    G = ld.standardise(panels)
    n = G.shape[1]
    r2 = ((G @ G.T) / np.float32(n)).astype(np.float64) ** 2
    return (r2 - (1 - r2) / (n - 2)).sum(axis=1)


def draw_set(sizes: Sizes, seed: int, kind: str) -> GenotypeSet:
    """Return a genotype set; a wide one has references of all panel sizes."""
    panels = sizes.wide_panels if kind == "wide" else (sizes.panel,)
    parts = {
        panel: ReferenceParts(panel, sizes.study, sizes.largest_block, seed) for panel in panels
    }
    people = [sizes.study, sizes.other, max(panels), max(panels)]
    study, other, frequency, score, population = [], [], [], [], []
    for number in range(sizes.chromosomes):
        dosages, deme = draw_chromosome(
            people, sizes.variants, sizes.megabases, seed * 1000 + number + 1, kind == "structured"
        )
        mine, theirs, panel_1, panel_2 = np.split(dosages, np.cumsum(people)[:-1], axis=1)
        keep = np.ones(len(dosages), dtype=bool)
        for panel, of in itertools.product(panels, (panel_1, panel_2)):
            p = of[:, :panel].mean(axis=1) / 2
            keep &= np.minimum(p, 1 - p) >= 0.01
        panel_1, panel_2 = panel_1[keep], panel_2[keep]
        for panel, reference in parts.items():
            reference.add(panel_1[:, :panel], panel_2[:, :panel])
        first = min(sizes.panel, max(panels))
        score.append(ld_scores(np.hstack([panel_1[:, :first], panel_2[:, :first]])))
        study.append(mine[keep])
        other.append(theirs[keep])
        frequency.append(mine[keep].mean(axis=1) / 2)
        everybody = standardised(dosages[keep])
        population.append((everybody @ everybody.T) / np.float32(everybody.shape[1]))
    mine, theirs = np.concatenate(study), np.concatenate(other)
    half = round(0.5 * min(sizes.study, sizes.other))
    whole = min(sizes.study, sizes.other)
    others = {0.0: standardised(theirs)}
    if kind in ("plain", "grid"):
        for overlap, shared in ((0.5, half), (1.0, whole)):
            both = np.hstack([mine[:, -shared:], theirs[:, : sizes.other - shared]])
            others[overlap] = standardised(both)
    return GenotypeSet(
        study=standardised(mine),
        others=others,
        deme=deme[: sizes.study + sizes.other] if kind == "structured" else None,
        frequency=np.concatenate(frequency),
        ld_score=np.concatenate(score),
        class_label=h.variant_classes(np.concatenate(score), np.concatenate(frequency)),
        population=population,
        references={panel: reference.result() for panel, reference in parts.items()},
    )


class Phenotypes(NamedTuple):
    """Of the study (n, 2 pairs), of the other trait (n_other, pairs), and the true ρ (pairs,)."""

    own: np.ndarray
    trait: np.ndarray
    rho: np.ndarray
    shared: int


def candidates_of(genotypes: GenotypeSet, placement: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the variants that can have effects, and the scale of each variant's effect (m,)."""
    m = len(genotypes.ld_score)
    if placement == "frequency":
        return np.arange(m), np.sqrt(2 * genotypes.frequency * (1 - genotypes.frequency))
    if placement == "any":
        return np.arange(m), np.ones(m)
    sign = {"low_ld": 1, "high_ld": -1}[placement]
    return np.argsort(sign * genotypes.ld_score, kind="stable")[: m // 4], np.ones(m)


def draw_effects(
    genotypes: GenotypeSet, scenario: Scenario, rho: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return effects (m, 2 pairs) with h² and ρ (pairs,) exact in the population.

    Columns 2k and 2k + 1 are a pair. At most all candidates are causal.
    """
    candidates, scale = candidates_of(genotypes, scenario.placement)
    effects = np.zeros((len(scale), 2 * len(rho)))
    causal = min(scenario.causal, len(candidates))
    for k in range(len(rho)):
        at = rng.choice(candidates, causal, replace=False)
        effects[at, 2 * k : 2 * k + 2] = rng.normal(size=(causal, 2)) * scale[at, None]
    first, second = effects[:, ::2], effects[:, 1::2]
    first /= np.sqrt(covariances(genotypes, first, first))
    second -= first * covariances(genotypes, first, second)
    second /= np.sqrt(covariances(genotypes, second, second))
    second *= np.sqrt(1 - rho**2)
    second += first * rho
    return effects * np.sqrt(scenario.h2)


def draw_phenotypes(
    genotypes: GenotypeSet, scenario: Scenario, rng: np.random.Generator
) -> Phenotypes:
    """Return phenotypes whose h² and ρ are exact in the population.

    Columns 2k and 2k + 1 are a pair; trait k has the effects of column 2k + 1.
    """
    theirs = genotypes.others[0.0]
    n, n_other, pairs = genotypes.study.shape[1], theirs.shape[1], scenario.pairs
    rho = np.resize(np.array(scenario.rhos), pairs)
    genetic = np.zeros((n + n_other, 2 * pairs))
    if scenario.h2 > 0:
        effects = draw_effects(genotypes, scenario, rho, rng).astype(np.float32)
        genetic = np.vstack([genotypes.study.T @ effects, theirs.T @ effects]).astype(np.float64)
    left = 1 - scenario.h2 - (STRUCTURE if genotypes.deme is not None else 0.0)
    own = np.sqrt(left) * correlated(rng.normal(size=(n, 2 * pairs)))
    trait = np.sqrt(left) * rng.normal(size=(n_other, pairs))
    shared = round(scenario.overlap * min(n, n_other))
    if shared:
        trait[:shared] *= np.sqrt(1 - ENVIRONMENT**2)
        trait[:shared] += ENVIRONMENT * own[n - shared :, ::2]
    if genotypes.deme is not None:
        own += np.sqrt(STRUCTURE) * genotypes.deme[:n, None]
        trait += np.sqrt(STRUCTURE) * genotypes.deme[n:, None]
    people = np.r_[n - shared : n, n : n + n_other - shared]
    return Phenotypes(genetic[:n] + own, genetic[people, 1::2] + trait, rho, shared)


def covariances(genotypes: GenotypeSet, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the population's covariance of genetic values of effects (m, k), column by column.

    Chromosomes are independent in it, whatever they are among those who were drawn.
    """
    total, at = np.zeros(first.shape[1]), 0
    for R in genotypes.population:
        here = slice(at, at + len(R))
        total += np.einsum("ik,ik->k", first[here], R @ second[here])
        at += len(R)
    return total


def correlated(noise: np.ndarray) -> np.ndarray:
    """Return noise whose columns 2k and 2k + 1 have correlation .6."""
    noise[:, 1::2] *= np.sqrt(1 - ENVIRONMENT**2)
    noise[:, 1::2] += ENVIRONMENT * noise[:, ::2]
    return noise


class Scores(NamedTuple):
    """û of the study's phenotypes and of the traits, in double; Σ of the former."""

    own: np.ndarray
    trait: np.ndarray
    z: np.ndarray
    z_trait: np.ndarray
    Sigma: np.ndarray
    n: float
    n_other: float

    @property
    def noise(self) -> np.ndarray:
        """κ of the study's phenotypes where nobody is related, one covariate taken out."""
        return self.Sigma / (self.n - 1)


def z_statistics(correlation: np.ndarray, n: int) -> np.ndarray:
    """Return t statistics of correlations with n people."""
    return correlation * np.sqrt((n - 2) / (1 - correlation**2))


def scores_of(genotypes: GenotypeSet, phenotypes: Phenotypes, overlap: float) -> Scores:
    """Return the scores that component GWAS and the other study's table would give."""
    y = phenotypes.own - phenotypes.own.mean(axis=0)
    x = phenotypes.trait - phenotypes.trait.mean(axis=0)
    x /= x.std(axis=0)
    n, n_other = len(y), len(x)
    u = (genotypes.study @ y.astype(np.float32)).astype(np.float64) / n
    r = (genotypes.others[overlap] @ x.astype(np.float32)).astype(np.float64) / n_other
    z_trait = z_statistics(r, n_other)
    return Scores(
        u, h.trait_scores(z_trait, n_other), z_statistics(u / y.std(axis=0), n), z_trait,
        y.T @ y / n, float(n), float(n_other),
    )  # fmt: skip


def project(reference: Reference, scores: np.ndarray) -> list[np.ndarray]:
    """Return M'û of each block."""
    return [
        b.M.T.astype(np.float64) @ scores[b.first : b.first + len(b.M)] for b in reference.blocks
    ]


class Moments(NamedTuple):
    """Γ̂ by moments of own phenotypes and, after them, traits; and without each group."""

    all: h.Moments
    left_out: np.ndarray
    total: h.BlockMoments
    by_group: tuple[np.ndarray, np.ndarray, np.ndarray]


def by_moments(
    reference: Reference,
    q: list[np.ndarray],
    s: Scores,
    weights: list[np.ndarray] | None = None,
) -> Moments:
    """Return method 5b's estimate of all phenotypes together; κ is 0 between the samples.

    ``weights`` are those of the columns of M by block; all 1 without.
    """
    c, t = s.own.shape[1], s.trait.shape[1]
    kappa, inverse_n, Sigma = np.zeros((3, c + t, c + t))
    kappa[:c, :c], inverse_n[:c, :c], Sigma[:c, :c] = s.noise, 1 / s.n, s.Sigma
    # Traits are taken one by one later; only their variances enter.
    kappa[c:, c:], inverse_n[c:, c:] = np.eye(t) / s.n_other, 1 / s.n_other
    Sigma[c:, c:] = np.eye(t)
    groups = int(reference.group.max()) + 1
    quadratic, t_1, t_2 = np.zeros((groups, c + t, c + t)), np.zeros(groups), np.zeros(groups)
    total = None
    weights = [None] * len(q) if weights is None else weights
    for g, block, one, c in zip(reference.group, reference.blocks, q, weights, strict=True):
        part = h.moments_of(replace(block.seen, q=one), c)
        total = part if total is None else total + part
        quadratic[g] += part.quadratic
        t_1[g] += part.t_1
        t_2[g] += part.t_2
    found = h.combine(total, kappa, inverse_n, reference.m, reference.factors, Sigma=Sigma)
    left_out = h.leave_one_out_Gamma(quadratic, t_1, t_2, kappa, reference.m)
    return Moments(found, left_out, total, (quadratic, t_1, t_2))


def some(x: h.Moments, keep: np.ndarray) -> h.Moments:
    """Return the moments of some of the phenotypes."""
    at = np.ix_(keep, keep)
    return h.Moments(
        x.Gamma[at], x.kappa[at], x.s[at], x.scale, x.t_1, x.t_4, x.inverse_n[at], x.Sigma[at]
    )


class Banded(NamedTuple):
    """The equations of the band regression: traces by block and band, and the weights."""

    equations: bands.Equations
    band: list[np.ndarray]


def band_equations(reference: Reference, q: list[np.ndarray], c: int) -> Banded:
    """Return the equations; squares are of all own phenotypes together, then of each trait."""
    number = len(bands.EDGES)
    band = [bands.band_of(block.share) for block in reference.blocks]
    sums = []
    for block, one, k in zip(reference.blocks, q, band, strict=True):
        columns = [block.seen.t_1, block.seen.t_2, (one[:, :c] ** 2).sum(axis=1)]
        sums.append(bands.band_sums(np.column_stack([*columns, one[:, c:] ** 2]), k, number))
    values = np.concatenate(sums)
    blocks = np.repeat(np.arange(len(band)), number)
    which = np.tile(np.arange(number), len(band))
    return Banded(bands.Equations(values[:, 0], values[:, 1], values[:, 2:], blocks, which), band)


def normal_equations(
    reference: Reference, banded: Banded, q: list[np.ndarray], v: np.ndarray, of: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return normal matrices and right sides by group of blocks, for v (e, samples)."""
    x, number = banded.equations, len(bands.EDGES)
    matrices = bands.normal_matrices(x, v, reference.m)
    normal = np.zeros((int(reference.group.max()) + 1, *matrices.shape[1:]))
    np.add.at(normal, reference.group[x.block], matrices)
    right = np.zeros((len(normal), 2, len(of), len(of)))
    for i, one in enumerate(q):
        here = slice(i * number, (i + 1) * number)
        right[reference.group[i]] += bands.block_right_sides(
            one, banded.band[i], x.t_1[here], x.t_2[here], v[here][:, of], reference.m
        )
    return normal, right


def band_closed_form(
    reference: Reference, banded: Banded, q: list[np.ndarray], v: np.ndarray, s: Scores,
    Gamma: np.ndarray, fixed: bool, label: np.ndarray,
) -> tuple[h.Moments, float]:  # fmt: skip
    """Return what the closed form of the band regression needs, and its blend factor."""
    x, number = banded.equations, len(bands.EDGES)
    coefficient = bands.coefficients(x, v, reference.m, fixed)
    total, weight = None, []
    for i, (block, one, band) in enumerate(zip(reference.blocks, q, banded.band, strict=True)):
        here = coefficient[i * number : (i + 1) * number]
        c = np.where(band >= 0, here[np.maximum(band, 0)], 0.0)
        part = h.moments_of(replace(block.seen, q=one), c)
        weight.append(h.variant_weights(block.seen, c))
        total = part if total is None else total + part
    kappa = s.noise
    signal = reference.factors[1] * (total.quartic - total.t_4 * kappa)
    found = h.Moments(
        Gamma, kappa, signal, 1.0, total.t_1, reference.factors[0] * total.t_4,
        np.full_like(kappa, 1 / s.n), s.Sigma,
    )  # fmt: skip
    return found, h.blend_factor(*h.class_means(np.concatenate(weight), label))


Found = dict[str, np.ndarray]


def triples(estimate, error, truth) -> np.ndarray:
    """Return (k, 3)."""
    return np.column_stack(np.broadcast_arrays(estimate, error, truth)).astype(float)


def add_errors(out: Found, name: str, value, truth, closed_form, jack, blend: float) -> None:
    """Add one estimate with its three errors."""
    out[f"{name}|closed_form"] = triples(value, closed_form, truth)
    out[f"{name}|jackknife"] = triples(value, jack, truth)
    out[f"{name}|auto"] = triples(value, h.blended_error(closed_form, jack, blend), truth)


def estimate_own(
    reference: Reference, genotypes: GenotypeSet, q: list[np.ndarray], s: Scores,
    moments: dict[str, Moments], scenario: Scenario, rho: np.ndarray,
) -> Found:  # fmt: skip
    """Return estimates of h² and ρ within the study, by moments and by bands.

    ``moments`` are those with weights of 1 ('moments') and the weighted ones.
    """
    c = s.own.shape[1]
    identity = np.eye(c)
    rows, columns = identity[::2], identity[1::2]
    out: Found = {}

    def add(name: str, found: h.Moments, left_out: np.ndarray, blend: float) -> None:
        value, error = h.heritability(found, identity)
        jack = h.heritability_jackknife(left_out, s.Sigma, identity)
        add_errors(out, f"h2|{name}", value, scenario.h2, error, jack, blend)
        if scenario.h2 > 0:
            r, se = (np.diag(one) for one in h.genetic_correlation(found, rows, columns))
            jack = np.diag(h.genetic_correlation_jackknife(left_out, rows, columns))
            add_errors(out, f"rho|{name}", r, rho, se, jack, blend)

    for name, found in moments.items():
        weights = reference.weights.get(name, [None] * len(reference.blocks))
        weight = [
            h.variant_weights(block.seen, one)
            for block, one in zip(reference.blocks, weights, strict=True)
        ]
        blend = h.blend_factor(*h.class_means(np.concatenate(weight), genotypes.class_label))
        add(name, some(found.all, np.arange(c)), found.left_out[:, :c, :c], blend)
    banded = band_equations(reference, q, c)
    of = np.zeros(c, dtype=np.int64)
    mine = [one[:, :c] for one in q]
    for name, fixed in (("bands_fixed", True), ("bands_free", False)):
        sample = bands.Sample(s.n, float(np.trace(s.Sigma)), fixed)
        h2 = bands.mean_heritability(banded.equations, 0, sample, reference.m)
        v = bands.inverse_variances(banded.equations, [sample], [h2], reference.m)
        normal, right = normal_equations(reference, banded, mine, v, of)
        keep = {(0, 0): s.noise} if fixed else {}
        Gamma, _ = bands.solve(normal.sum(axis=0), right.sum(axis=0), of, keep)
        left_out, _ = bands.leave_one_out(normal, right, of, keep)
        found, factor = band_closed_form(
            reference, banded, mine, v[:, 0], s, Gamma, fixed, genotypes.class_label
        )
        add(name, found, left_out, factor)
    return out


class Pair(NamedTuple):
    """A phenotype and the trait of the other study."""

    k: int
    moments: h.Moments
    sides: list[np.ndarray]
    rho: float
    h2: float

    @property
    def kappa(self) -> np.ndarray:
        """κ (2, 2) where nobody is in both studies."""
        return self.moments.kappa


def estimate_cross(
    reference: Reference, q: list[np.ndarray], s: Scores, by_weight: dict[str, Moments],
    scenario: Scenario, phenotypes: Phenotypes,
) -> Found:  # fmt: skip
    """Return estimates of ρ with the other trait, one trait at a time, and of its h².

    ``moments``, ``balanced`` and ``precise``: 5b with these weights, as if nobody were in both
    samples. ``moments_intercept``: 5b with the free regression's κ between the samples.
    ``bands_free``: slopes of the regression with all intercepts free; for the first pairs also
    ``bands_own``: those within a sample fixed, and ``bands_fixed``: all fixed, as if nobody were
    in both.
    """
    c, one_row, moments = s.own.shape[1], np.ones((1, 1)), by_weight["moments"]
    banded = band_equations(reference, q, c)
    variance = float(np.trace(s.Sigma))
    mean_h2 = {
        free: bands.mean_heritability(
            banded.equations, 0, bands.Sample(s.n, variance, not free), reference.m
        )
        for free in (True, False)
    }
    rows: dict[str, list] = {}
    for k, rho in enumerate(phenotypes.rho):
        at = np.array([2 * k, c + k])
        pair = Pair(k, some(moments.all, at), [one[:, at] for one in q], rho, scenario.h2)
        for name, one in by_weight.items():
            value, error, h2, h2_error = h.cross_trait_correlation(some(one.all, at), one_row)
            jack = h.cross_trait_jackknife(one.left_out[:, *np.ix_(at, at)], one_row)
            _put(rows, f"cross|{name}|closed_form", value[0], error[0], rho)
            _put(rows, f"cross|{name}|jackknife", value[0], jack[0], rho)
            _put(rows, f"h2_trait|{name}|closed_form", h2, h2_error, scenario.h2)
        for free in (True, False) if k < VARIANT_PAIRS else (True,):
            samples = [bands.Sample(n, v, not free) for n, v in ((s.n, variance), (s.n_other, 1))]
            h2s = (
                mean_h2[free],
                bands.mean_heritability(banded.equations, 1 + k, samples[1], reference.m),
            )
            own = replace(banded.equations, squares=banded.equations.squares[:, [0, 1 + k]])
            v = bands.inverse_variances(own, samples, list(h2s), reference.m)
            sums = normal_equations(reference, banded, pair.sides, v, np.arange(2))
            if free:
                kappa, kappas = _put_slopes(rows, "bands_free", pair, sums, {})
                _put_moments_with_intercept(rows, pair, moments, at, kappa, kappas, reference.m)
                _put_intercepts(rows, pair, s, kappa, kappas, true_intercept(phenotypes, k))
            else:
                own_only = {(a, a): pair.kappa[a : a + 1, a : a + 1] for a in (0, 1)}
                none = {(0, 1): np.zeros((1, 1)), (1, 0): np.zeros((1, 1))}
                _put_slopes(rows, "bands_own", pair, sums, own_only)
                _put_slopes(rows, "bands_fixed", pair, sums, own_only | none)
    return {name: np.array(values, dtype=float) for name, values in rows.items()}


def _put_slopes(rows, name: str, pair: Pair, sums, fixed: dict) -> tuple[np.ndarray, np.ndarray]:
    """Add ρ and the trait's h² by the slopes of the regression; return κ̂ and it without groups."""
    (normal, right), of, one_row = sums, np.arange(2), np.ones((1, 1))
    Gamma, kappa = bands.solve(normal.sum(axis=0), right.sum(axis=0), of, fixed)
    Gammas, kappas = bands.leave_one_out(normal, right, of, fixed)
    error = h.cross_trait_jackknife(Gammas, one_row)[0]
    _put(rows, f"cross|{name}|jackknife", h.cross_trait_ratio(Gamma, one_row)[0], error, pair.rho)
    error = h.heritability_jackknife(Gammas[:, 1:, 1:], one_row, one_row)[0]
    _put(rows, f"h2_trait|{name}|jackknife", Gamma[1, 1], error, pair.h2)
    return kappa, kappas


def _put_moments_with_intercept(rows, pair: Pair, moments: Moments, at, kappa, kappas, m) -> None:
    """Add ρ by moments with the regression's κ between the samples."""
    own, one_row = np.eye(2) > 0, np.ones((1, 1))
    between, without = np.where(own, pair.kappa, kappa), np.where(own, pair.kappa, kappas)
    total, (quadratic, t_1, t_2) = moments.total, moments.by_group
    at = np.ix_(at, at)
    Gamma = pair.moments.scale * (total.quadratic[at] - total.t_1 * between)
    Gammas = h.leave_one_out_Gamma(quadratic[:, *at], t_1, t_2, without, m)
    error = h.cross_trait_jackknife(Gammas, one_row)[0]
    value = h.cross_trait_ratio(Gamma, one_row)[0]
    _put(rows, "cross|moments_intercept|jackknife", value, error, pair.rho)


def _put_intercepts(rows, pair: Pair, s: Scores, kappa, kappas, truth: float) -> None:
    """Add κ between the samples on the scale of correlations, and nκ/Σ of the phenotype."""
    spread = jackknife.jackknife_standard_error(kappas)
    variance = s.Sigma[2 * pair.k, 2 * pair.k]
    scale = np.sqrt(s.n * s.n_other / variance)
    name = "bands_free|jackknife"
    _put(rows, f"intercept|{name}", scale * kappa[0, 1], scale * spread[0, 1], truth)
    scale = s.n / variance
    _put(rows, f"intercept_own|{name}", scale * kappa[0, 0], scale * spread[0, 0], 1.0)


def _put(rows: dict[str, list], name: str, *values: float) -> None:
    rows.setdefault(name, []).append(values)


def true_intercept(phenotypes: Phenotypes, k: int) -> float:
    """Return the phenotypic correlation in the shared people times their number / √(n n')."""
    n, n_other, shared = len(phenotypes.own), len(phenotypes.trait), phenotypes.shared
    own, trait = phenotypes.own[:, 2 * k], phenotypes.trait[:, k]
    products = own[n - shared :] @ trait[:shared] if shared else 0.0
    return float(products / (own.std() * trait.std() * np.sqrt(n * n_other)))


def estimate_published(
    reference: Reference, s: Scores, scenario: Scenario, rho: np.ndarray
) -> Found:
    """Return the published estimates with each pair of shares."""
    c = s.own.shape[1]
    scores = np.hstack([h.published_scores(s.z, s.Sigma, s.n), s.z_trait / np.sqrt(s.n_other)])
    out: Found = {}
    for which, (ld_share, inverse_share) in enumerate(PUBLISHED):
        q = project(reference.cut(inverse_share), scores)
        quadratic = sum(one.T @ one for one in q)
        d_of_block = np.array([block.published[which] for block in reference.blocks])
        d = float(d_of_block.sum())
        total = h.BlockMoments(quadratic, np.zeros_like(quadratic), d, 0.0, d)
        kappa, inverse_n, Sigma = np.zeros((3, *quadratic.shape))
        kappa[:c, :c], inverse_n[:c, :c], Sigma[:c, :c] = s.Sigma / s.n, 1 / s.n, s.Sigma
        t = len(kappa) - c
        kappa[c:, c:], inverse_n[c:, c:] = np.eye(t) / s.n_other, 1 / s.n_other
        Sigma[c:, c:] = np.eye(t)
        found = h.combine(total, kappa, inverse_n, reference.m, published=True, Sigma=Sigma)
        own, identity = some(found, np.arange(c)), np.eye(c)
        name = f"published_{ld_share:.2f}_{inverse_share:.2f}|closed_form"
        out[f"h2|{name}"] = triples(*h.heritability(own, identity), scenario.h2)
        if scenario.h2 == 0:
            continue
        r = h.genetic_correlation(own, identity[::2], identity[1::2])
        out[f"rho|{name}"] = triples(np.diag(r[0]), np.diag(r[1]), rho)
        cross = [
            h.cross_trait_correlation(some(found, np.array([2 * k, c + k])), np.ones((1, 1)))
            for k in range(t)
        ]
        out[f"cross|{name}"] = triples(
            [one[0][0] for one in cross], [one[1][0] for one in cross], rho
        )
        name = name.replace("published", "published_overlap").replace("closed_form", "jackknife")
        ratios = [
            published_with_intercept(reference, s, found, q, d_of_block, np.array([2 * k, c + k]))
            for k in range(t)
        ]
        out[f"cross|{name}"] = triples(*np.array(ratios).T, rho)
    return out


def published_with_intercept(
    reference: Reference, s: Scores, found: h.Moments, q: list[np.ndarray], d: np.ndarray,
    at: np.ndarray,
) -> tuple[float, float]:  # fmt: skip
    """Return ρ of a phenotype and a trait and its error as published with people in common.

    κ between the samples is the cross-trait LD-score intercept, found anew without each block; the
    estimate is the jackknife's own (as ``estimate_with_trait(method="published", overlap=True)``).
    """
    sizes = [len(block.M) for block in reference.blocks]
    own, trait = int(at[0]), int(at[1]) - s.own.shape[1]
    sigma = np.sqrt(s.Sigma[own, own])
    h2 = np.array([found.Gamma[own, own] / sigma**2]), float(found.Gamma[at[1], at[1]])
    intercept, without = section_5.cross_trait_intercepts(
        (s.z[:, own] * s.z_trait[:, trait])[:, None],
        np.concatenate([block.ld_score for block in reference.blocks]),
        (s.n, s.n_other), h2, float(d.sum()), np.repeat(np.arange(len(sizes)), sizes),
    )  # fmt: skip
    scale = sigma / np.sqrt(s.n * s.n_other)
    between = np.array([[0.0, 1.0], [1.0, 0.0]]) * scale
    kappa = found.kappa[np.ix_(at, at)]
    quadratic = np.stack([one[:, at].T @ one[:, at] for one in q])
    Gamma = found.Gamma[np.ix_(at, at)] - d.sum() * between * intercept[0]
    kappas = kappa + between * without[:, :1, None]
    Gammas = h.leave_one_out_Gamma(quadratic, d, np.zeros(len(d)), kappas, reference.m)
    one_row = np.ones((1, 1))
    ratios = np.stack([h.cross_trait_ratio(one, one_row) for one in Gammas])
    value = section_5.jackknife_estimate(h.cross_trait_ratio(Gamma, one_row), ratios)[0]
    return float(value), float(jackknife.jackknife_standard_error(ratios)[0])


def estimate_ldsc(
    genotypes: GenotypeSet, s: Scores, scenario: Scenario, rho: np.ndarray, blocks: int
) -> Found:
    """Return estimates of the `ldsc` package for the first pairs, with its defaults.

    Free intercepts, two steps with the cutoff 30, LD scores as weights, and as many jackknife
    blocks as the others have. The genetic correlation is put together as its class RG does
    (which NumPy 2.4 cannot run).
    """
    score = genotypes.ld_score[:, None]
    M = np.array([[float(len(score))]])
    rows: dict[str, list] = {}
    with np.errstate(divide="raise", invalid="raise"):
        for k in range(min(LDSC_PAIRS, s.trait.shape[1])):
            z = [s.z[:, [2 * k]], s.z[:, [2 * k + 1]], s.z_trait[:, [k]]]
            N = [np.full_like(score, n) for n in (s.n, s.n, s.n_other)]
            one = [
                ldsc.Hsq(zi**2, score, score, Ni, M, n_blocks=blocks, twostep=30)
                for zi, Ni in zip(z, N, strict=True)
            ]
            for found in one[:2]:
                _put(rows, "h2|ldsc|jackknife", found.tot, found.tot_se, scenario.h2)
            if scenario.h2 == 0:
                continue
            for quantity, j in (("rho", 1), ("cross", 2)):
                value = error = np.nan
                if one[0].tot > 0 and one[j].tot > 0:
                    value, error = ldsc_correlation(z, N, one, 0, j, score, M, blocks)
                _put(rows, f"{quantity}|ldsc|jackknife", value, error, rho[k])
    return {name: np.array(values, dtype=float) for name, values in rows.items()}


def ldsc_correlation(z, N, one, i: int, j: int, score, M, blocks: int) -> tuple[float, float]:
    """Return ldsc's genetic correlation and its error."""
    covariance = ldsc.Gencov(
        z[i], z[j], score, score, N[i], N[j], M, one[i].tot, one[j].tot, one[i].intercept,
        one[j].intercept, n_blocks=blocks, twostep=30,
    )  # fmt: skip
    value = covariance.tot / np.sqrt(one[i].tot * one[j].tot)
    try:
        below = np.sqrt(one[i].tot_delete_values * one[j].tot_delete_values)
        ratio = ldsc_jackknife.RatioJackknife(
            np.array([[value]]), covariance.tot_delete_values, below
        )
    except FloatingPointError:
        # h² without some block is negative.
        return float(value), np.nan
    return float(value), float(ratio.jknife_se.item())


def run_scenario(
    genotypes: GenotypeSet, scenario: Scenario, rng: np.random.Generator
) -> dict[str, Found]:
    """Return estimates by reference: '' is the panel size of the tables, else 'panel share'."""
    phenotypes = draw_phenotypes(genotypes, scenario, rng)
    s = scores_of(genotypes, phenotypes, scenario.overlap)
    wide = len(genotypes.references) > 1
    out: dict[str, Found] = {}
    for panel, whole in genotypes.references.items():
        for share in SHARES if wide else (0.98,):
            reference = whole.cut(share) if share < 0.98 else whole
            q = project(reference, np.hstack([s.own, s.trait]))
            moments = {"moments": by_moments(reference, q, s)}
            for name in WEIGHTED:
                moments[name] = by_moments(reference, q, s, reference.weights[name])
            found = estimate_own(reference, genotypes, q, s, moments, scenario, phenotypes.rho)
            if share < 0.98:
                found = {name: value for name, value in found.items() if "bands" not in name}
            else:
                found |= estimate_published(reference, s, scenario, phenotypes.rho)
                if scenario.h2 > 0 or scenario.overlap > 0:
                    found |= estimate_cross(reference, q, s, moments, scenario, phenotypes)
            if scenario.h2 == 0:
                found = {key: value for key, value in found.items() if not key.startswith("cross")}
            out[f"panel {panel} share {share}" if wide else ""] = found
    if ldsc is not None and scenario in (*NAMED.values(), *STRUCTURED.values()):
        blocks = int(next(iter(genotypes.references.values())).group.max()) + 1
        out[""] |= estimate_ldsc(genotypes, s, scenario, phenotypes.rho, blocks)
    return out


def run_set(kind: str, number: int, sizes: Sizes, scenarios: dict[str, Scenario], seed: int):
    """Return all estimates of one genotype set: 'scenario|quantity|estimator|error' → (k, 3)."""
    offset = OFFSET[kind]
    genotypes = draw_set(sizes, seed * 1000 + offset + number, kind)
    found = {}
    for name, scenario in scenarios.items():
        rng = np.random.default_rng([seed, offset + number, zlib.crc32(name.encode())])
        for where, values in run_scenario(genotypes, scenario, rng).items():
            title = f"{name} {where}".strip()
            found |= {f"{title}|{key}": value for key, value in values.items()}
    reference = next(iter(genotypes.references.values()))
    found["about"] = np.array(
        [reference.m, len(reference.blocks), int(reference.group.max()) + 1, *reference.factors]
    )
    return found


class Row(NamedTuple):
    """One line of a table; ``*_error`` are Monte-Carlo errors from the sets' means."""

    sets: int
    replicates: int
    lost: int
    truth: float
    bias: float
    bias_error: float
    sd: float
    se: float
    covered: float
    covered_error: float
    rejected: float
    rejected_error: float
    slope: float
    slope_error: float


def summarise(by_set: list[np.ndarray], one_sided: bool) -> Row:
    """Return bias, spread, coverage and rejections of 0 at 5 % from (estimate, error, truth)."""
    everything = np.concatenate(by_set)
    kept = [one[np.isfinite(one).all(axis=1)] for one in by_set]
    kept = [one for one in kept if len(one)]
    if not kept:
        return Row(len(by_set), 0, len(everything), *[np.nan] * 11)
    values = np.concatenate(kept)
    deviation = values[:, 0] - values[:, 2]
    covered = [np.abs(one[:, 0] - one[:, 2]) <= 1.96 * one[:, 1] for one in kept]
    rejected = [
        h.neg_log_10_p_normal(one[:, 0], one[:, 1], 1 if one_sided else 2) > -np.log10(0.05)
        for one in kept
    ]
    slope = slope_error = np.nan
    if np.ptp(values[:, 2]) > 0:
        slope = _slope(values)
        slope_error = _error([_slope(one) for one in kept if np.ptp(one[:, 2]) > 0])
    return Row(
        len(kept), len(values), len(everything) - len(values), values[:, 2].mean(),
        deviation.mean(), _error([np.mean(one[:, 0] - one[:, 2]) for one in kept]),
        # Truth may differ between replicates: spread of what is wrong.
        deviation.std(ddof=min(1, len(deviation) - 1)), values[:, 1].mean(),
        np.concatenate(covered).mean(), _error([np.mean(one) for one in covered]),
        np.concatenate(rejected).mean(), _error([np.mean(one) for one in rejected]),
        slope, slope_error,
    )  # fmt: skip


def _slope(values: np.ndarray) -> float:
    x = values[:, 2] - values[:, 2].mean()
    return float(x @ values[:, 0] / (x @ x))


def _error(means: list) -> float:
    """Return the standard error of a mean of independent sets."""
    return float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else np.nan


def read_results(folder: Path) -> dict[str, list[np.ndarray]]:
    """Return every cell's arrays, one a set."""
    cells: dict[str, list[np.ndarray]] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            for name in stored.files:
                cells.setdefault(name, []).append(stored[name])
    return cells


class Results:
    """Cells of the files there are: 'scenario|quantity|estimator|error' → (k, 3) by set."""

    def __init__(self, folder: Path):
        self.cells = read_results(folder)
        self.about = np.array(self.cells.pop("about"))

    def row(self, name: str, nought: bool = False) -> Row | None:
        """Return a cell's summary, of true values 0 only if so asked; None without such a cell."""
        by_set = self.cells.get(name)
        if by_set is None:
            return None
        if nought:
            by_set = [one[one[:, 2] == 0] for one in by_set]
        found = summarise(by_set, one_sided=name.split("|")[1].startswith("h2"))
        return found if found.replicates else None

    def best_published(
        self, scenario: str, quantity: str, kind: str = "published|closed_form", *, by: str = "rmse"
    ) -> tuple[str, Row] | None:
        """Return the pair of shares with the least error, and its summary.

        ``kind`` is 'published|closed_form', or 'published_overlap|jackknife' with the cross-trait
        intercept; ``by`` 'rmse', the root mean squared error, or 'sd', the spread alone.
        """
        found, (name, error) = [], kind.split("|")
        for ld_share, inverse_share in PUBLISHED:
            pair = f"{name}_{ld_share:.2f}_{inverse_share:.2f}"
            row = self.row(f"{scenario}|{quantity}|{pair}|{error}")
            if row is not None:
                size = row.sd if by == "sd" else rmse(row)
                found.append((size, f"{inverse_share:.2f}", row))
        return min(found, key=lambda one: one[0])[1:] if found else None


def rmse(row: Row) -> float:
    """Return the root mean squared error."""
    return float(np.hypot(row.bias, row.sd))


def number(x: float, digits: int = 3) -> str:
    """Return a number without the 0 before the point, with a minus sign; · where there is none."""
    if not np.isfinite(x):
        return "·"
    text = f"{abs(x):.{digits}f}"
    sign = "−" if x < 0 and float(text) > 0 else ""
    return sign + text.removeprefix("0")


def with_error(value: float, error: float) -> str:
    """Return 'value (Monte-Carlo error)'."""
    return f"{number(value)} ({number(error)})"


def shown(row: Row | None, *, full: bool = False, slope: bool = False) -> str:
    """Return 'bias, SD, coverage', fully with Monte-Carlo errors and the mean SE."""
    if row is None:
        return "·"
    parts = [with_error(row.bias, row.bias_error) if full else number(row.bias), number(row.sd)]
    if full:
        parts.append(number(row.se))
    parts.append(with_error(row.covered, row.covered_error) if full else number(row.covered))
    if slope:
        parts.append(with_error(row.slope, row.slope_error))
    return ", ".join(parts)


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print a table in Markdown."""
    if rows:
        print(f"\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
        for row in rows:
            print(f"| {' | '.join(row)} |")


# The default for each quantity.
DEFAULT = {"h2": "balanced", "rho": "precise", "cross": "precise"}
# Estimator and error of each column of the tables of h² and of ρ after the default's.
COLUMNS = {
    "5b": "moments|closed_form",
    "5c, κ = Σ/n": "bands_fixed|closed_form",
    "5c, κ free": "bands_free|jackknife",
}
CROSS = {
    "5d, nobody in common": "precise|closed_form",
    "5b, nobody in common": "moments|closed_form",
    "5c, κ free": "bands_free|jackknife",
    "ldsc": "ldsc|jackknife",
}
CROSS_PUBLISHED = {
    "published, nobody in common": "published|closed_form",
    "published, LD-score intercept": "published_overlap|jackknife",
}


def print_tables(folder: Path) -> None:
    """Print what there is as tables in Markdown."""
    results = Results(folder)
    counts = {kind: len(list(folder.glob(f"{kind}-*.npz"))) for kind in OFFSET}
    m, blocks, groups, *factors = results.about.mean(axis=0)
    print(
        f"Genotype sets: {counts}; {m:.0f} variants, {blocks:.0f} blocks, {groups:.0f} jackknife "
        f"groups; factors between blocks {factors[0]:.2f} and {factors[1]:.2f}. Cells are bias "
        "(Monte-Carlo error), SD, mean SE, coverage of the 95 % interval."
    )
    for quantity in ("h2", "rho"):
        print(f"\n{quantity}")
        _print_within(results, quantity, [*NAMED, *STRUCTURED])
    print("\nSpread against the published estimator")
    _print_spread(results)
    print("\nWith the other trait (last: slope on the truth)")
    _print_cross(results, [*NAMED, *(one for one in grid() if "overlap" in one), *STRUCTURED])
    print("\nRejections of 0 at 5 %")
    _print_rejections(results)
    print("\nIntercepts of the free regression: with the other trait, and nκ/Σ of the study")
    _print_intercepts(results)
    print("\nOther cells, 5d: h² by closed form, auto and jackknife; ρ")
    _print_grid(results)
    for estimator in ("balanced", "moments"):
        print(f"\nPanels and shares: bias, SD and coverage of h² by {estimator}; last 5c, κ = Σ/n")
        _print_panels(results, estimator)


def _print_within(results: Results, quantity: str, scenarios: list[str]) -> None:
    rows = []
    for scenario in scenarios:
        name = f"{scenario}|{quantity}|{DEFAULT[quantity]}"
        first = results.row(f"{name}|closed_form")
        if first is None:
            continue
        jack = results.row(f"{name}|jackknife")
        cells = [results.row(f"{scenario}|{quantity}|{one}") for one in COLUMNS.values()]
        published = results.best_published(scenario, quantity)
        rows.append(
            [
                scenario, str(first.replicates), shown(first, full=True),
                f"{number(jack.se)}, {number(jack.covered)}" if jack else "·",
                *(shown(one) for one in cells),
                f"{shown(published[1])} ({published[0]})" if published else "·",
                shown(results.row(f"{scenario}|{quantity}|ldsc|jackknife")),
            ]
        )  # fmt: skip
    header = ["", "n", "5d", "5d, jackknife: SE, coverage", *COLUMNS]
    print_table([*header, "published, best (share)", "ldsc"], rows)


def _print_spread(results: Results) -> None:
    """Print SDs as they are, divided by the slope on the truth, and root mean squared errors.

    The published estimator's slope for h² is that from 'null' to 'polygenic'; where ρ does not
    vary, its slope is that of 'overlap'.
    """
    for quantity, default in (("h2", "balanced"), ("rho", "precise")):
        rows = []
        for scenario in NAMED:
            ours = results.row(f"{scenario}|{quantity}|{default}|closed_form")
            least = results.best_published(scenario, quantity, by="sd")
            if ours is None or least is None:
                continue
            best = results.best_published(scenario, quantity)
            slopes = [
                _slope_of(results, scenario, quantity, one)
                for one in (f"{default}|closed_form", _pair_of(least[0]))
            ]
            ldsc_row = results.row(f"{scenario}|{quantity}|ldsc|jackknife")
            rows.append(
                [scenario, number(ours.sd), f"{number(least[1].sd)} ({least[0]})",
                 *(number(x) for x in slopes),
                 *(number(row.sd / x) for row, x in zip((ours, least[1]), slopes, strict=True)),
                 number(rmse(ours)), f"{number(rmse(best[1]))} ({best[0]})",
                 number(ldsc_row.sd) if ldsc_row else "·"]
            )  # fmt: skip
        header = ["SD", "SD, published (share)", "slope", "slope, published", "SD/slope",
                  "SD/slope, published", "RMSE", "RMSE, published (share)", "SD, ldsc"]  # fmt: skip
        print_table([f"{quantity} {default}", *header], rows)


def _pair_of(inverse_share: str) -> str:
    """Return estimator and error of the published pair with a share of the inverse."""
    pair = next(one for one in PUBLISHED if f"{one[1]:.2f}" == inverse_share)
    return f"published_{pair[0]:.2f}_{pair[1]:.2f}|closed_form"


def _slope_of(results: Results, scenario: str, quantity: str, name: str) -> float:
    if quantity == "h2":
        low, high = (results.row(f"{one}|h2|{name}") for one in ("null", "polygenic"))
        if low is None or high is None:
            return np.nan
        return 1 + (high.bias - low.bias) / (high.truth - low.truth)
    row = results.row(f"{scenario}|{quantity}|{name}")
    if row is not None and not np.isfinite(row.slope):
        row = results.row(f"overlap|{quantity}|{name}")
    return row.slope if row is not None else np.nan


def _print_cross(results: Results, scenarios: list[str]) -> None:
    rows = []
    for scenario in scenarios:
        cells = [results.row(f"{scenario}|cross|{one}") for one in CROSS.values()]
        if cells[0] is None:
            continue
        shared = [shown(one, full=k in (0, 2), slope=True) for k, one in enumerate(cells)]
        for kind in CROSS_PUBLISHED.values():
            best = results.best_published(scenario, "cross", kind)
            shared.append(f"{shown(best[1], slope=True)} ({best[0]})" if best else "·")
        rows.append([scenario, str(cells[0].replicates), *shared])
    print_table(["", "n", *CROSS, *CROSS_PUBLISHED], rows)


def _print_rejections(results: Results) -> None:
    rows = []
    for name in sorted(results.cells):
        scenario, quantity, estimator, error = name.split("|")
        row = None
        if quantity in ("h2", "h2_trait", "rho", "cross") and "panel" not in scenario:
            row = results.row(name, nought=True)
        if row is not None and "published" not in estimator and row.replicates >= 100:
            rows.append(
                [quantity, scenario, f"{estimator} {error}", str(row.replicates),
                 with_error(row.rejected, row.rejected_error)]
            )  # fmt: skip
    print_table(["", "scenario", "estimator", "n", "rejected"], sorted(rows))


def _print_intercepts(results: Results) -> None:
    rows = []
    for scenario in [*NAMED, *grid(), *STRUCTURED]:
        both = [
            results.row(f"{scenario}|{one}|bands_free|jackknife")
            for one in ("intercept", "intercept_own")
        ]
        if all(both):
            rows.append([scenario, number(both[0].truth), *(shown(one, full=True) for one in both)])
    print_table(["", "truth", "with the trait", "own"], rows)


def _print_grid(results: Results) -> None:
    rows = []
    for scenario in grid():
        h2 = [
            results.row(f"{scenario}|h2|balanced|{error}")
            for error in ("closed_form", "auto", "jackknife")
        ]
        if h2[0] is not None:
            others = [
                results.row(f"{scenario}|{one}|closed_form")
                for one in ("h2|moments", "h2|bands_fixed", "rho|precise")
            ]
            rows.append(
                [scenario.removeprefix("grid "), str(h2[0].replicates), shown(h2[0], full=True),
                 number(h2[1].covered), number(h2[2].covered), *map(shown, others)]
            )  # fmt: skip
    print_table(["", "n", "5d", "auto", "jackknife", "5b", "5c, κ = Σ/n", "ρ, 5d"], rows)


def _print_panels(results: Results, estimator: str) -> None:
    rows = []
    panels = sorted(
        {int(name.split(" panel ")[1].split()[0]) for name in results.cells if " panel " in name}
    )
    for scenario, panel in itertools.product(WIDE, panels):
        cells = [
            results.row(f"{scenario} panel {panel} share {share}|h2|{estimator}|closed_form")
            for share in SHARES
        ]
        cells.append(results.row(f"{scenario} panel {panel} share 0.98|h2|bands_fixed|closed_form"))
        if cells[-1] is not None:
            rows.append([scenario, str(panel), *(shown(one) for one in cells)])
    print_table(["", "panel", *(str(share) for share in SHARES), "5c"], rows)


def plan(sets: int) -> list[tuple[str, int]]:
    """Return the genotype sets in the order in which they are drawn, so that parts are useful."""
    order = []
    for number in range(sets):
        order.append(("plain", number))
        if number % 4 == 3:
            order += [(kind, number // 4) for kind in ("structured", "wide", "grid")]
    return order


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("work/calibration"))
    parser.add_argument("--sets", type=int, default=20, help="genotype sets")
    parser.add_argument("--minutes", type=float, default=np.inf, help="start no set after these")
    parser.add_argument("--kinds", nargs="+", default=list(OFFSET))
    parser.add_argument("--tables", action="store_true", help="only print what there is")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    if ldsc is None:
        print("ldsc is not installed: its rows are absent", file=sys.stderr)
    scenarios = {"plain": NAMED, "wide": WIDE, "structured": STRUCTURED, "grid": grid()}
    began = time.monotonic()
    for kind, number in [] if args.tables else plan(args.sets):
        path = args.results / f"{kind}-{number:03d}.npz"
        if kind not in args.kinds or path.exists():
            continue
        if time.monotonic() - began > 60 * args.minutes:
            break
        used = time.process_time()
        with threadpoolctl.threadpool_limits(args.threads):
            found = run_set(kind, number, Sizes(), scenarios[kind], args.seed)
        partial = path.with_suffix(".partial")
        with open(partial, "wb") as handle:
            np.savez(handle, **found)
        partial.rename(path)
        used = time.process_time() - used
        print(f"{path.name}: {used:.0f} s of processor time", file=sys.stderr, flush=True)
    print_tables(args.results)


if __name__ == "__main__":
    main()
