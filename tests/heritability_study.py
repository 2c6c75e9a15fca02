"""A small study with panels, a minimal dataset and an external trait, whose truth is known."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pgenlib

from rvga import bands, formats
from rvga.geometry import Geometry, add_geometry
from rvga.heritability import BlockProjection, project_block
from rvga.jackknife import group_starts, number_of_groups
from rvga.ld import standardise
from rvga.ld_reference import LdReference


def correlated_dosages(m: int, n: int, seed: int, decay: float = 0.8) -> np.ndarray:
    """Return dosages (m, n) of haplotypes that are thresholded autoregressive Gaussians."""
    rng = np.random.default_rng(seed)
    step = np.where(rng.random(m) < 0.02, 0.0, decay * rng.uniform(0.7, 1.2, size=m).clip(0, 1.1))
    threshold = rng.normal(0, 0.8, size=m)
    latent = rng.normal(size=2 * n)
    haplotypes = np.empty((m, 2 * n), dtype=np.int8)
    for k in range(m):
        a = min(step[k], 0.97)
        latent = a * latent + np.sqrt(1 - a * a) * rng.normal(size=2 * n)
        haplotypes[k] = latent > threshold[k]
    return haplotypes[:, :n] + haplotypes[:, n:]


def write_pgen(
    stem: Path, dosages: np.ndarray, chromosome: str, people: list[str], alleles=None, start=1000
) -> Path:
    """Write .pgen, .pvar and .psam; position of variant k is start + 100 k, ALT is counted."""
    writer = pgenlib.PgenWriter(
        str(stem.with_suffix(".pgen")).encode(),
        dosages.shape[1],
        variant_ct=len(dosages),
        nonref_flags=False,
    )
    writer.append_biallelic_batch(np.ascontiguousarray(dosages, dtype=np.int8))
    writer.close()
    alleles = alleles or [("A", "G")] * len(dosages)
    lines = [
        f"{chromosome}\t{start + 100 * k}\trs{chromosome}_{k}\t{ref}\t{alt}\n"
        for k, (ref, alt) in enumerate(alleles)
    ]
    stem.with_suffix(".pvar").write_text("#CHROM\tPOS\tID\tREF\tALT\n" + "".join(lines))
    stem.with_suffix(".psam").write_text("#IID\tSEX\n" + "".join(f"{p}\tNA\n" for p in people))
    return stem.with_suffix(".pgen")


class Study(NamedTuple):
    """Paths and truth of :func:`make_study`."""

    folder: Path
    panel_1: list[Path]
    panel_2: list[Path]
    dataset: Path
    sumstats: Path
    bases: np.ndarray
    scores: np.ndarray
    Sigma: np.ndarray
    n: int
    A: np.ndarray


def make_study(
    folder: Path,
    m: int = 350,
    n: int = 600,
    n_panel: int = 160,
    r: int = 3,
    h2: float = 0.5,
    seed: int = 1,
    shape: tuple[int, int, int] = (5, 4, 3),
    offsets: np.ndarray | None = None,
) -> Study:
    """Write two chromosomes of ``m`` variants: panels, dataset (float32), a trait of others.

    Components have genetic correlation 0 and heritability ``h2``; the trait has the effects of
    the first component. ``scores`` are the exact û of the dataset's variants. ``offsets`` (2, r)
    are shares of the environmental variance, nothing genetic, that an offset takes off the
    components on each chromosome.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    people = {"p1": n_panel, "p2": n_panel, "study": n, "trait": n}
    panels: dict[str, list[Path]] = {"p1": [], "p2": []}
    genotypes: dict[str, list[np.ndarray]] = {name: [] for name in people}
    for chromosome in ("1", "2"):
        dosages = correlated_dosages(m, sum(people.values()), seed * 10 + int(chromosome))
        at = 0
        for name, size in people.items():
            genotypes[name].append(dosages[:, at : at + size])
            at += size
            if name in panels:
                ids = [f"{name}_{i}" for i in range(size)]
                stem = folder / f"{name}_chr{chromosome}"
                panels[name].append(write_pgen(stem, genotypes[name][-1], chromosome, ids))
    study, trait = (standardise(np.vstack(genotypes[name])) for name in ("study", "trait"))
    effects = rng.normal(size=(2 * m, r))
    genetic = study.T @ effects
    values = np.sqrt(h2) * genetic / genetic.std(axis=0)
    scale = np.append([3.0, 2.0, 1.0], np.ones(max(r - 3, 0)))[:r]
    known = np.zeros((1, n, r))
    noise = rng.normal(size=(n, r))
    if offsets is not None:
        known = np.sqrt(offsets)[:, None] * rng.normal(size=(2, n, r))
        noise = np.sqrt(1 - offsets.sum(axis=0)) * noise + known.sum(axis=0)
    values += np.sqrt(1 - h2) * noise
    values = (values - values.mean(axis=0)) * scale
    Sigma = values.T @ values / n
    known = np.sqrt(1 - h2) * (known - known.mean(axis=1, keepdims=True)) * scale
    rest = values - known
    A = np.einsum("cij,cik->cjk", rest, rest)
    kept = study.var(axis=1) > 0.5
    a = np.where(kept, (np.vstack(genotypes["study"]).var(axis=1)) * n, np.nan)
    # The A, and the offsets, of each variant.
    row = np.repeat([0, len(A) - 1], m)
    u = np.vstack(
        [half @ rest[c] / n for half, c in zip(np.split(study, 2), row[::m], strict=True)]
    )
    nu = n - 2
    correlation = u / np.sqrt(np.einsum("cjj->cj", A)[row] / n)
    z = correlation * np.sqrt(nu / (1 - correlation**2))
    z[~kept] = np.nan
    grid = np.indices(shape).reshape(3, -1).T
    geometry = Geometry(np.diag([2.0, 2.0, 2.0, 1.0]), shape, grid)
    bases = np.linalg.qr(rng.normal(size=(len(grid), r)))[0].astype(np.float32)
    attributes = {
        "n": n, "p": 1, "coding": "float32", "n_eff": 2.0, "genome_build": "GRCh38",
        "sample_hash": "0" * 16, "minor_allele_count": 20, "counts": {}, "geometry_type": "nifti",
    }  # fmt: skip
    index = np.arange(2 * m) % m
    dataset = folder / "study.rvga.h5"
    with formats.create(dataset, "minimal", attributes) as writer:
        writer.add("z", z.astype(np.float32))
        writer.add("scale", np.ones(2 * m))
        writer.add("a", a)
        writer.add("A", A)
        writer.add("A_index", row)
        writer.add("Sigma", Sigma)
        writer.add("bases", bases)
        writer.add("eigenvalues", scale**2)
        writer.add("coordinates", geometry.coordinates)
        add_geometry(writer, geometry)
        chromosome = np.repeat([1, 2], m)
        writer.add("variants/chromosome", chromosome)
        writer.add("variants/base_pair_location", 1000 + 100 * index)
        writer.add(
            "variants/variant_id", [f"rs{c}_{k}" for c, k in zip(chromosome, index, strict=True)]
        )
        writer.add("variants/effect_allele", ["G"] * (2 * m))
        writer.add("variants/other_allele", ["A"] * (2 * m))
        frequency = np.vstack(genotypes["study"]).mean(axis=1) / 2
        writer.add("variants/effect_allele_frequency", frequency)
        writer.add("variants/missing_rate", np.zeros(2 * m))
    other = trait.T @ effects[:, 0]
    other = np.sqrt(h2) * other / other.std() + np.sqrt(1 - h2) * rng.normal(size=n)
    other = (other - other.mean()) / other.std()
    c = trait @ other / n
    se = np.sqrt((1 - c**2) / (n - 2))
    sumstats = folder / "trait.tsv"
    header = (
        "chromosome\tbase_pair_location\teffect_allele\tother_allele\tbeta\tstandard_error\tn\n"
    )
    sumstats.write_text(
        header
        + "".join(
            f"{chromosome[k]}\t{1000 + 100 * index[k]}\tG\tA\t{c[k]:.8g}\t{se[k]:.8g}\t{n}\n"
            for k in range(2 * m)
        )
    )
    return Study(folder, panels["p1"], panels["p2"], dataset, sumstats, bases, u, Sigma, n, A)


def write_ld_reference(study: Study, run_stage, **options: object) -> Path:
    """Run LD_BLOCKS for both chromosomes and LD_REFERENCE; return the reference."""
    extra = [word for name, value in options.items() for word in (f"--{name}", value)]
    chunks = []
    for chromosome in ("1", "2"):
        out = study.folder / f"ld.{chromosome}.h5"
        done = run_stage(
            "ld_blocks", "--chromosome", chromosome, "--panel-1", study.panel_1,
            "--panel-2", study.panel_2, *extra, "--out", out,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        chunks.append(out)
    reference = study.folder / "panel.ld.h5"
    done = run_stage("ld_reference", "--chunks", chunks[::-1], "--out", reference)
    assert done.returncode == 0, done.stderr
    return reference


def block_file(folder: Path, size: int = 25, m: int = 350) -> Path:
    """Write blocks of ``size`` variants for both chromosomes of a study; return the BED file."""
    path = folder / "blocks.bed"
    edges = [*range(999, 999 + 100 * m, 100 * size), 999 + 100 * m]
    path.write_text(
        "".join(
            f"{chromosome}\t{start}\t{end}\n"
            for chromosome in ("1", "2")
            for start, end in itertools.pairwise(edges)
        )
    )
    return path


def heritability_args(study: Study, reference: Path, folder: Path) -> list[object]:
    """Return the options of the HERITABILITY stage, its outputs in ``folder``."""
    return [
        "--dataset", study.dataset, "--ld-reference", reference,
        "--out", folder / "heritability.tsv", "--out-map", folder / "heritability.nii.gz",
        "--out-regions", folder / "regions.tsv",
        "--out-intercepts", folder / "intercepts.tsv",
        "--out-correlation", folder / "genetic_correlation.tsv",
        "--out-covariance", folder / "genetic_covariance.h5",
    ]  # fmt: skip


def study_rows(study: Study, reference: LdReference) -> np.ndarray:
    """Return the row of ``study.scores`` of each variant of the reference, (m,)."""
    position = reference.variants.base_pair_location.to_numpy()
    second = (reference.variants.chromosome == "2").to_numpy()
    return (position - 1000) // 100 + second * (len(study.scores) // 2)


class BandProducts(NamedTuple):
    """Each block and band of a reference as one equation, its group, and what it was made from."""

    seen: list[BlockProjection]
    t_1: np.ndarray
    t_2: np.ndarray
    Q: np.ndarray
    group: np.ndarray
    m: float


def band_products(study: Study, reference_path: Path, scores: np.ndarray) -> BandProducts:
    """Return traces (e,) and û'Ω_kû (e, c, c) of every block and band, block by block.

    ``scores`` (variants of the study, c) are û.
    """
    number = len(bands.EDGES)
    with LdReference.open(reference_path) as reference:
        scores, m = scores[study_rows(study, reference)], float(reference.m)
        people = reference.n_a, reference.n_b
        blocks, sizes = list(reference.blocks()), np.diff(reference.block_start)
    seen = [
        project_block(b.M, b.R_a, b.R_b, b.T, scores[i:j], *people, b.t_1_ratio, study.n)
        for i, j, b in blocks
    ]

    def sums(values) -> np.ndarray:
        return np.concatenate(
            [
                bands.band_sums(values(p), bands.band_of(b.share), number)
                for p, (_, _, b) in zip(seen, blocks, strict=True)
            ]
        )

    return BandProducts(
        seen,
        sums(lambda p: p.t_1),
        sums(lambda p: p.t_2),
        sums(lambda p: p.q[:, :, None] * p.q[:, None, :]),
        np.repeat(group_starts(sizes, number_of_groups(len(seen))), number),
        m,
    )
