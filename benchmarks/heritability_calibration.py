#!/usr/bin/env python3
"""Are h², ρ and their standard errors right? Monte Carlo with known truth (method 5b).

Coalescent genotypes (msprime) for a study and two panels of other people; many pairs of
phenotypes a genotype draw, with correlated effects; each phenotype goes through the
same functions as the pipeline's components do. Prints, by architecture and true h², the mean,
its Monte-Carlo error, the SD between replicates, the mean closed-form and jackknife SE and the
coverage of the closed-form 95 % interval; then the same for ρ and for the cross-trait ρ.

    python benchmarks/heritability_calibration.py --draws 4 --pairs 60
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

from rvga import heritability as h
from rvga import jackknife, ld


class Chromosome(NamedTuple):
    """One chromosome's genotypes (m, n) by group of people, and its reference blocks."""

    study: np.ndarray
    other: np.ndarray
    start: np.ndarray
    blocks: list[ld.LdBlock]
    traces: np.ndarray


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
    return Chromosome(
        ld.standardise(study[keep]), ld.standardise(other[keep]), start, blocks, between.result()
    )


def draw_phenotypes(
    chromosomes: list[Chromosome], h2: float, rho: float, causal: int, pairs: int, rng
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return phenotypes (n, 2 pairs) of the study, (n_other, pairs) of the other trait, and ρ.

    Columns 2k and 2k + 1 are a pair whose effects have correlation rho; column k of the other
    trait has the effects of column 2k + 1. Genetic values are scaled so that h² is exact in the
    people of both studies together, and ρ (pairs,) is the genetic values' correlation there:
    that is the estimand given the effects. Environments are independent.
    """
    m = sum(len(c.study) for c in chromosomes)
    n, n_other = chromosomes[0].study.shape[1], chromosomes[0].other.shape[1]
    genetic = np.zeros((n + n_other, 2 * pairs))
    root = np.linalg.cholesky(np.array([[1, rho], [rho, 1]]))
    chosen = np.stack([rng.permutation(m) < causal for _ in range(pairs)], axis=1)
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
    first = np.sqrt(h2) * genetic[:n] + noise * rng.normal(size=(n, 2 * pairs))
    second = np.sqrt(h2) * genetic[n:, 1::2] + noise * rng.normal(size=(n_other, pairs))
    return first, second, realised


def scores_of(genotypes: np.ndarray, phenotypes: np.ndarray) -> np.ndarray:
    """Return G'y/n, the scores of :func:`rvga.heritability.component_scores`."""
    return genotypes @ phenotypes / len(phenotypes)


def estimate(chromosomes: list[Chromosome], phenotypes, other, n_halves, groups=200):
    """Return moments of the study alone and with the other trait's columns, and leave-outs."""
    y = phenotypes - phenotypes.mean(axis=0)
    x = (other - other.mean(axis=0)) / other.std(axis=0)
    c, n, n_other = y.shape[1], len(y), len(x)
    parts, sizes = [], []
    for chromosome in chromosomes:
        u = np.hstack([scores_of(chromosome.study, y), scores_of(chromosome.other, x)])
        for i, j, block in zip(
            chromosome.start, chromosome.start[1:], chromosome.blocks, strict=False
        ):
            parts.append(h.block_moments(block.M, block.R_a, block.R_b, block.T, u[i:j], *n_halves))
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
    return h.combine(total, kappa, inverse_n, m, factors), left_out, c


def subset(x: h.Moments, keep: np.ndarray) -> h.Moments:
    """Return the moments of some of the phenotypes."""
    at = np.ix_(keep, keep)
    return h.Moments(x.Gamma[at], x.kappa[at], x.s[at], x.scale, x.t_1, x.t_4, x.inverse_n[at])


def replicate(chromosomes, n_halves, h2, rho, causal, pairs, rng) -> dict[str, list]:
    """Return (estimate, error, truth) of all phenotypes of one genotype draw."""
    y, x, realised = draw_phenotypes(chromosomes, h2, rho, causal, pairs, rng)
    moments, left_out, c = estimate(chromosomes, y, x, n_halves)
    own = subset(moments, np.arange(c))
    estimates, errors = h.heritability(own, np.eye(c))
    out: dict[str, list] = {"h2": [(v, e, h2) for v, e in zip(estimates, errors, strict=True)]}
    jack = h.heritability_jackknife(left_out, own.kappa / own.inverse_n[0, 0], np.eye(c))
    out["jackknife"] = list(jack)
    r, se = h.genetic_correlation(own, np.eye(c)[::2], np.eye(c)[1::2])
    out["rho"] = list(zip(np.diag(r), np.diag(se), realised, strict=True))
    out["cross"] = []
    for k in range(pairs):
        one = subset(moments, np.array([2 * k, c + k]))
        r, se, *_ = h.cross_trait_correlation(one, np.ones((1, 1)))
        out["cross"].append((r[0], se[0], realised[k]))
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
    args = parser.parse_args()
    m = args.chromosomes * args.variants
    cells = [(0.0, 0.0, m), (0.1, 0.5, m), (0.4, 0.0, m), (0.4, 0.5, m), (0.4, 0.5, 30)]
    results: dict = {cell: {"h2": [], "jackknife": [], "rho": [], "cross": []} for cell in cells}
    began = time.monotonic()
    half = args.n_panel // 2
    for draw in range(args.draws):
        seeds = args.seed + 1000 * draw + np.arange(args.chromosomes) + 1
        chromosomes = [draw_chromosome(args, int(seed)) for seed in seeds]
        for cell in cells:
            rng = np.random.default_rng([args.seed, draw])
            h2, rho, causal = cell
            causal = min(causal, sum(len(c.study) for c in chromosomes))
            found = replicate(
                chromosomes, (half, args.n_panel - half), h2, rho, causal, args.pairs, rng
            )
            for name, values in found.items():
                results[cell][name] += values
        print(f"draw {draw + 1}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(
        f"n = {args.n}, other trait n = {args.n_other}, panels of {args.n_panel}, m = {m}, share "
        f"{args.share}, {args.draws} genotype draws x {args.pairs} pairs"
    )
    print(f"{'':37s}truth    bias    (MC)     SD  rms SE  cover  lost")
    for cell in cells:
        h2, rho, causal = cell
        label = "all causal" if causal == m else f"{causal} causal"
        found = results[cell]
        jack = np.array(found["jackknife"])
        extra = f"jackknife SE {np.sqrt(np.nanmean(jack**2)):.3f}"
        print(line(f"h2, {label}", found["h2"], args.draws, extra))
        if h2 > 0.2:
            print(line(f"rho, {label}, h2 {h2}", found["rho"], args.draws))
            print(line(f"cross-trait rho, {label}, h2 {h2}", found["cross"], args.draws))


if __name__ == "__main__":
    with threadpoolctl.threadpool_limits(2):
        main()
