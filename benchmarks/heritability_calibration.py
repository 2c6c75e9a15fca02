#!/usr/bin/env python3
"""Are h², ρ and their standard errors right? Monte Carlo with known truth (methods 5b and 5c).

Coalescent genotypes (msprime) for a study and two panels of other people; many pairs of
phenotypes a genotype draw, with correlated effects; each phenotype goes through the
same functions as the pipeline's components do. Prints, by estimator, architecture and true h², the
mean, its Monte-Carlo error, the SD between replicates, the mean SE and the coverage of the 95 %
interval; then the same for ρ and for the cross-trait ρ. Errors of 5b are the closed form, of 5c
the jackknife.

A scenario says where effects lie (`any`, `frequency`: variance ∝ 2pq, `low_ld` and `high_ld`: in
that quarter of the variants by LD score) and how many people of the other trait are in the study
(`overlap50`, `overlap100`, with environments of correlation .6).

    python benchmarks/heritability_calibration.py --draws 4 --pairs 60
    python benchmarks/heritability_calibration.py --scenario overlap50 low_ld --draws 4
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))

import threadpoolctl

from rvga import bands, jackknife, ld
from rvga import heritability as h

ENVIRONMENT = 0.6


class Scenario(NamedTuple):
    """Where effects lie, and the share of the smaller sample that both samples have."""

    placement: str = "any"
    overlap: float = 0.0


SCENARIOS = {
    "any": Scenario(),
    "frequency": Scenario("frequency"),
    "low_ld": Scenario("low_ld"),
    "high_ld": Scenario("high_ld"),
    "overlap50": Scenario(overlap=0.5),
    "overlap100": Scenario(overlap=1.0),
}


class Chromosome(NamedTuple):
    """One chromosome's genotypes (m, n) by group of people, and its reference blocks."""

    study: np.ndarray
    other: np.ndarray
    start: np.ndarray
    blocks: list[ld.LdBlock]
    traces: np.ndarray
    frequency: np.ndarray
    ld_score: np.ndarray

    def with_overlap(self, shared: int) -> Chromosome:
        """Return it with the study's last people as the first of the other sample."""
        if not shared:
            return self
        n_other = self.other.shape[1]
        both = np.hstack([self.study[:, -shared:], self.other[:, : n_other - shared]])
        return self._replace(other=ld.standardise(both))


def draw_genotypes(people: int, variants: int, megabases: float, seed: int) -> np.ndarray:
    """Return (variants, people) dosages of minor allele frequency above .01, by position."""
    import msprime

    ancestry = msprime.sim_ancestry(
        people,
        population_size=10_000,
        sequence_length=megabases * 1e6,
        recombination_rate=1e-8,
        random_seed=seed,
    )
    mutated = msprime.sim_mutations(
        ancestry, rate=1.3e-8, random_seed=seed, model=msprime.BinaryMutationModel()
    )
    haplotypes = mutated.genotype_matrix().astype(np.int8)
    dosages = haplotypes[:, ::2] + haplotypes[:, 1::2]
    frequency = dosages.mean(axis=1) / 2
    common = np.flatnonzero(np.minimum(frequency, 1 - frequency) > 0.012)
    chosen = np.random.default_rng(seed).permutation(common)[:variants]
    return dosages[np.sort(chosen)]


def draw_chromosome(args: argparse.Namespace, seed: int) -> Chromosome:
    """Return genotypes of two studies and the LD reference of two panels."""
    sizes = np.cumsum([args.n, args.n_other, args.n_panel, args.n_panel])
    dosages = draw_genotypes(sizes[-1], args.variants, args.megabases, seed)
    study, other, panel_1, panel_2 = np.split(dosages, sizes[:-1], axis=1)
    half_a, half_b = ld.split_halves(args.n_panel, seed)
    keep = np.ones(len(dosages), dtype=bool)
    for part in (panel_1, panel_2):
        frequency = ld.allele_frequency(part)
        keep &= np.minimum(frequency, 1 - frequency) >= 0.01
    G_a, G_b, G_2 = (
        ld.standardise(part[keep]) for part in (panel_1[:, half_a], panel_1[:, half_b], panel_2)
    )
    K = np.zeros((len(half_a), len(half_b)))
    ld.accumulate_kinship(K, G_a, G_b)
    cost = ld.BoundaryCost()
    cost.add(np.concatenate([G_a, G_b, G_2], axis=1))
    start = ld.choose_cuts(cost.result(), args.largest_block // 4, args.largest_block)
    blocks = [
        ld.make_block(G_a[i:j], G_b[i:j], G_2[i:j], K, args.share)
        for i, j in itertools.pairwise(start)
    ]
    thirds = [ld.standardise(panel_1[keep][:, t]) for t in ld.split_thirds(args.n_panel, seed)]
    between = ld.TracesBetweenBlocks(tuple(third.shape[1] for third in thirds))
    between.add_variants(thirds)
    for i, j, block in zip(start, start[1:], blocks, strict=False):
        between.add_block(*between.block(block.M, [third[i:j] for third in thirds]))
    score = [np.einsum("ij,ij->i", b.R_a, b.R_b, dtype=np.float64) for b in blocks]
    return Chromosome(
        ld.standardise(study[keep]),
        ld.standardise(other[keep]),
        start,
        blocks,
        between.result(),
        ld.allele_frequency(study[keep]),
        np.concatenate(score),
    )


def draw_phenotypes(
    chromosomes: list[Chromosome],
    h2: float,
    rho: float,
    causal: int,
    pairs: int,
    scenario: Scenario,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return phenotypes (n, 2 pairs) of the study, (n_other, pairs) of the other trait, and ρ.

    Columns 2k and 2k + 1 are a pair whose effects have correlation rho; column k of the other
    trait has the effects of column 2k + 1. Genetic values are scaled so that h² is exact in the
    people of both studies together, and ρ (pairs,) is the genetic values' correlation there:
    that is the estimand given the effects. Environments are independent but for the people
    that both samples have, whose environments of columns 2k and k have correlation .6.
    """
    m = sum(len(c.study) for c in chromosomes)
    n, n_other = chromosomes[0].study.shape[1], chromosomes[0].other.shape[1]
    genetic = np.zeros((n + n_other, 2 * pairs))
    root = np.linalg.cholesky(np.array([[1, rho], [rho, 1]]))
    weight, candidates = placement(chromosomes, scenario)
    chosen = np.zeros((m, pairs))
    for k in range(pairs):
        chosen[rng.permutation(candidates)[:causal], k] = 1
    chosen *= weight[:, None]
    effects = np.einsum("ij,jmk->mki", root, rng.normal(size=(2, m, pairs)))
    effects *= chosen[:, :, None]
    at = 0
    for c in chromosomes:
        here = effects[at : at + len(c.study)].reshape(len(c.study), -1).astype(np.float32)
        genetic += np.vstack([c.study.T @ here, c.other.T @ here])
        at += len(here)
    genetic -= genetic.mean(axis=0)
    genetic /= genetic.std(axis=0)
    realised = np.mean(genetic[:, ::2] * genetic[:, 1::2], axis=0)
    noise = np.sqrt(1 - h2)
    own, other = rng.normal(size=(n, 2 * pairs)), rng.normal(size=(n_other, pairs))
    shared = shared_people(chromosomes, scenario)
    if shared:
        other[:shared] *= np.sqrt(1 - ENVIRONMENT**2)
        other[:shared] += ENVIRONMENT * own[n - shared :, ::2]
    first = np.sqrt(h2) * genetic[:n] + noise * own
    second = np.sqrt(h2) * genetic[n:, 1::2] + noise * other
    return first, second, realised


def shared_people(chromosomes: list[Chromosome], scenario: Scenario) -> int:
    """Return how many people both samples have."""
    sizes = chromosomes[0].study.shape[1], chromosomes[0].other.shape[1]
    return round(scenario.overlap * min(sizes))


def placement(chromosomes: list[Chromosome], scenario: Scenario) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale of each variant's effect (m,) and the variants that can have one."""
    frequency = np.concatenate([c.frequency for c in chromosomes])
    score = np.concatenate([c.ld_score for c in chromosomes])
    everywhere = np.arange(len(score))
    if scenario.placement == "frequency":
        return np.sqrt(2 * frequency * (1 - frequency)), everywhere
    if scenario.placement in ("low_ld", "high_ld"):
        order = np.argsort(score if scenario.placement == "low_ld" else -score, kind="stable")
        return np.ones(len(score)), order[: len(score) // 4]
    return np.ones(len(score)), everywhere


def scores_of(genotypes: np.ndarray, phenotypes: np.ndarray) -> np.ndarray:
    """Return G'y/n, the scores of :func:`rvga.heritability.component_scores`."""
    return genotypes @ phenotypes / len(phenotypes)


class Estimates(NamedTuple):
    """Of the study's c phenotypes and, after them, the other trait's."""

    moments: h.Moments
    left_out: np.ndarray
    bands: tuple[np.ndarray, np.ndarray]
    bands_free: tuple[np.ndarray, np.ndarray]
    kappa: np.ndarray
    c: int


def estimate(chromosomes: list[Chromosome], phenotypes, other, n_halves, groups=200) -> Estimates:
    """Return the estimates of 5b and 5c (intercept fixed and free), each with its leave-outs."""
    y = phenotypes - phenotypes.mean(axis=0)
    x = (other - other.mean(axis=0)) / other.std(axis=0)
    c, n, n_other = y.shape[1], len(y), len(x)
    parts, sizes, projected = [], [], []
    for chromosome in chromosomes:
        u = np.hstack([scores_of(chromosome.study, y), scores_of(chromosome.other, x)])
        for i, j, block in zip(
            chromosome.start, chromosome.start[1:], chromosome.blocks, strict=False
        ):
            seen = h.project_block(block.M, block.R_a, block.R_b, block.T, u[i:j], *n_halves)
            parts.append(h.moments_of(seen))
            projected.append((seen.q, np.diag(seen.H_1), seen.t_2, bands.band_of(block.share)))
            sizes.append(j - i)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    m = sum(sizes)
    kappa = np.zeros((len(total.quadratic),) * 2)
    kappa[:c, :c] = y.T @ y / n**2
    kappa[c:, c:] = x.T @ x / n_other**2
    inverse_n = np.zeros_like(kappa)
    inverse_n[:c, :c], inverse_n[c:, c:] = 1 / n, 1 / n_other
    group = jackknife.group_starts(np.array(sizes), groups)
    merged = np.zeros((group.max() + 1, c, c))
    t_1, t_2 = np.zeros(len(merged)), np.zeros(len(merged))
    for g, part in zip(group, parts, strict=True):
        merged[g] += part.quadratic[:c, :c]
        t_1[g] += part.t_1
        t_2[g] += part.t_2
    left_out = h.leave_one_out_Gamma(merged, t_1, t_2, kappa[:c, :c], m)
    factors = ld.between_block_factors([one.traces for one in chromosomes])
    of = np.repeat([0, 1], [c, x.shape[1]])
    variances = float(np.sum(y * y) / n), float(x.shape[1])
    fixed = {(a, b): kappa[np.ix_(of == a, of == b)] for a in (0, 1) for b in (0, 1)}
    both = []
    for keep in (fixed, {}):
        samples = [
            bands.Sample(n, variances[0], bool(keep)),
            bands.Sample(n_other, variances[1], bool(keep)),
        ]
        normal, right = band_equations(projected, group, of, samples, m)
        Gamma, found = bands.solve(normal.sum(axis=0), right.sum(axis=0), of, keep)
        both.append(((Gamma, bands.leave_one_out(normal, right, of, keep)[0]), found))
    moments = h.combine(total, kappa, inverse_n, m, factors)
    return Estimates(moments, left_out, both[0][0], both[1][0], both[1][1], c)


def band_equations(projected, group, of, samples, m) -> tuple[np.ndarray, np.ndarray]:
    """Return the normal equations of the band regression by group of blocks."""
    number = len(bands.EDGES)
    t_1 = np.concatenate([bands.band_sums(one[1], one[3], number) for one in projected])
    t_2 = np.concatenate([bands.band_sums(one[2], one[3], number) for one in projected])
    squares = np.concatenate(
        [
            bands.band_sums(
                np.stack([(q[:, of == a] ** 2).sum(axis=1) for a in (0, 1)], axis=1), band, number
            )
            for q, _, _, band in projected
        ]
    )
    block = np.repeat(np.arange(len(projected)), number)
    equations = bands.Equations(t_1, t_2, squares, block, np.arange(len(block)) % number)
    h2 = [bands.mean_heritability(equations, a, one, m) for a, one in enumerate(samples)]
    v = bands.inverse_variances(equations, samples, h2, m)
    matrices = bands.normal_matrices(equations, v, m)
    normal = np.zeros((group.max() + 1, *matrices.shape[1:]))
    np.add.at(normal, group[block], matrices)
    right = np.zeros((len(normal), 2, len(of), len(of)))
    for i, (q, _, _, band) in enumerate(projected):
        here = slice(i * number, (i + 1) * number)
        right[group[i]] += bands.block_right_sides(q, band, t_1[here], t_2[here], v[here][:, of], m)
    return normal, right


def subset(x: h.Moments, keep: np.ndarray) -> h.Moments:
    """Return the moments of some of the phenotypes."""
    at = np.ix_(keep, keep)
    return h.Moments(x.Gamma[at], x.kappa[at], x.s[at], x.scale, x.t_1, x.t_4, x.inverse_n[at])


def replicate(chromosomes, n_halves, h2, rho, causal, pairs, scenario, rng) -> dict[str, list]:
    """Return (estimate, error, truth) of all phenotypes of one genotype draw, by estimator."""
    shared = shared_people(chromosomes, scenario)
    chromosomes = [one.with_overlap(shared) for one in chromosomes]
    y, x, realised = draw_phenotypes(chromosomes, h2, rho, causal, pairs, scenario, rng)
    found = estimate(chromosomes, y, x, n_halves)
    c, own = found.c, subset(found.moments, np.arange(found.c))
    Sigma = own.kappa / own.inverse_n[0, 0]
    estimates, errors = h.heritability(own, np.eye(c))
    out: dict[str, list] = {"h2": [(v, e, h2) for v, e in zip(estimates, errors, strict=True)]}
    out["jackknife"] = list(h.heritability_jackknife(found.left_out, Sigma, np.eye(c)))
    for name, (Gamma, left_out) in (("fixed", found.bands), ("free", found.bands_free)):
        values = np.diag(Gamma)[:c] / np.diag(Sigma)
        errors = h.heritability_jackknife(left_out[:, :c, :c], Sigma, np.eye(c))
        out[f"h2 bands {name}"] = [(v, e, h2) for v, e in zip(values, errors, strict=True)]
    r, se = h.genetic_correlation(own, np.eye(c)[::2], np.eye(c)[1::2])
    out["rho"] = list(zip(np.diag(r), np.diag(se), realised, strict=True))
    out["cross"], out["cross bands free"], out["intercept"] = [], [], []
    Gamma, left_out = found.bands_free
    true_kappa = y[len(y) - shared :, ::2].T @ x[:shared] / (len(y) * len(x))
    for k in range(pairs):
        pair = np.array([2 * k, c + k])
        one = subset(found.moments, pair)
        r, se, *_ = h.cross_trait_correlation(one, np.ones((1, 1)))
        out["cross"].append((r[0], se[0], realised[k]))
        at = np.ix_(pair, pair)
        r = h.cross_trait_ratio(Gamma[at], np.ones((1, 1)))[0]
        se = h.cross_trait_jackknife(left_out[:, *at], np.ones((1, 1)))[0]
        out["cross bands free"].append((r, se, realised[k]))
        scale = np.sqrt(len(y) * len(x) / Sigma[2 * k, 2 * k])
        out["intercept"].append((scale * found.kappa[at][0, 1], 0.0, scale * true_kappa[k, k]))
    return out


def line(label: str, triples: list, draws: int, extra: str = "") -> str:
    """Return one row of the table; the Monte-Carlo error comes from the genotype draws' means."""
    values = np.array(triples, dtype=float)
    deviation = values[:, 0] - values[:, 2]
    by_draw = np.array([np.nanmean(part) for part in np.split(deviation, draws)])
    finite = np.isfinite(values).all(axis=1)
    values, deviation = values[finite], deviation[finite]
    covered = np.abs(deviation) <= 1.96 * values[:, 1]
    error = by_draw.std(ddof=1) / np.sqrt(draws) if draws > 1 else np.nan
    return (
        f"{label:36s} {values[:, 2].mean():6.3f} {deviation.mean():7.3f} ({error:.3f}) "
        f"{deviation.std(ddof=1):7.3f} {np.sqrt(np.mean(values[:, 1] ** 2)):7.3f} "
        f"{covered.mean():6.2f} {int((~finite).sum()):5d} {extra}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=4, help="independent genotype draws")
    parser.add_argument("--pairs", type=int, default=60, help="pairs of phenotypes a draw")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--n-other", type=int, default=3000)
    parser.add_argument("--n-panel", type=int, default=1000)
    parser.add_argument("--chromosomes", type=int, default=5)
    parser.add_argument("--variants", type=int, default=3000, help="a chromosome")
    parser.add_argument("--megabases", type=float, default=12.0)
    parser.add_argument("--largest-block", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.98)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=["any"])
    args = parser.parse_args()
    m = args.chromosomes * args.variants
    cells = [(0.0, 0.0, m), (0.1, 0.5, m), (0.4, 0.0, m), (0.4, 0.5, m), (0.4, 0.5, 30)]
    results: dict = {(name, cell): {} for name in args.scenario for cell in cells}
    began = time.monotonic()
    half = args.n_panel // 2
    for draw in range(args.draws):
        seeds = args.seed + 1000 * draw + np.arange(args.chromosomes) + 1
        chromosomes = [draw_chromosome(args, int(seed)) for seed in seeds]
        for name, cell in results:
            rng = np.random.default_rng([args.seed, draw])
            h2, rho, causal = cell
            found = replicate(
                chromosomes, (half, args.n_panel - half), h2, rho, causal, args.pairs,
                SCENARIOS[name], rng,
            )  # fmt: skip
            for quantity, values in found.items():
                results[name, cell].setdefault(quantity, []).extend(values)
        print(f"draw {draw + 1}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(
        f"n = {args.n}, other trait n = {args.n_other}, panels of {args.n_panel}, m = {m}, share "
        f"{args.share}, {args.draws} genotype draws x {args.pairs} pairs"
    )
    for name in args.scenario:
        print(f"\nscenario {name}")
        print(f"{'':37s}truth    bias    (MC)     SD  rms SE  cover  lost")
        for cell in cells:
            print_cell(cell, m, results[name, cell], args.draws)


def print_cell(cell: tuple[float, float, int], m: int, found: dict[str, list], draws: int) -> None:
    """Print the rows of one true h², ρ and number of causal variants."""
    h2, _, causal = cell
    label = "all causal" if causal == m else f"{causal} causal"
    jack = np.array(found["jackknife"])
    print(line(f"h2 5b, {label}", found["h2"], draws,
               f"jackknife SE {np.sqrt(np.nanmean(jack**2)):.3f}"))  # fmt: skip
    for name in ("fixed", "free"):
        print(line(f"h2 5c {name}, {label}", found[f"h2 bands {name}"], draws))
    print(line(f"intercept 5c, {label}", found["intercept"], draws))
    if h2 > 0.2:
        print(line(f"rho 5b, {label}, h2 {h2}", found["rho"], draws))
        print(line(f"cross-trait rho 5b, {label}, h2 {h2}", found["cross"], draws))
        print(line(f"cross-trait rho 5c, {label}, h2 {h2}", found["cross bands free"], draws))


if __name__ == "__main__":
    with threadpoolctl.threadpool_limits(2):
        main()
