"""Minimal datasets of any size without a study, for tests of reading, size and damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from rvga import formats
from rvga.chromosomes import RANK
from rvga.coding import encode_z
from rvga.geometry import Geometry, add_geometry
from rvga.minimal import encoded_text, reserve_variants
from rvga.tables import VARIANT_COLUMNS

BLOCK = 1 << 14


def synthetic_variants(m: int, seed: int = 1, names: tuple[str, ...] = ("1", "2", "X")):
    """Return m variants in genome order, spread over some chromosomes."""
    rng = np.random.default_rng(seed)
    which = np.sort(rng.integers(0, len(names), m))
    gaps = rng.integers(1, 700, m)
    position = np.concatenate([gaps[which == k].cumsum() + 10_000 for k in range(len(names))])
    alleles = np.array(["A", "C", "G", "T"], dtype=object)
    first = rng.integers(0, 4, m)
    numbers = rng.integers(1_000, 1_000_000_000, m)
    return pd.DataFrame(
        {
            "chromosome": np.array(names, dtype=object)[which],
            "base_pair_location": position,
            "variant_id": [f"rs{number}" for number in numbers],
            "effect_allele": alleles[first],
            "other_allele": alleles[(first + rng.integers(1, 4, m)) % 4],
            "effect_allele_frequency": rng.uniform(0.01, 0.99, m),
        }
    )[list(VARIANT_COLUMNS)]


def write_dataset(
    path: Path,
    variants: pd.DataFrame,
    *,
    r: int = 6,
    n: int = 50_000,
    p: int = 15,
    n_voxels: int = 60,
    coding: str = "int16",
    genome_build: str = "GRCh38",
    seed: int = 2,
    largest: float | None = None,
) -> Path:
    """Write a minimal dataset of null statistics for the given variants, by blocks.

    Frequencies are counts of alleles among n people, and up to 1 % of the genotypes are missing.
    ``largest`` sets the z of the first variant's first component.
    """
    rng = np.random.default_rng(seed)
    m = len(variants)
    B = np.linalg.qr(rng.normal(size=(n_voxels, r)))[0]
    factor = rng.normal(size=(r, r)) + 3 * np.eye(r)
    A = n * factor @ factor.T
    side = int(np.ceil(n_voxels ** (1 / 3)))
    grid = np.argwhere(np.ones((side, side, side)))[:n_voxels].astype(np.int32)
    geometry = Geometry(np.diag([2.0, 2.0, 2.0, 1.0]), (side, side, side), grid)
    text = {
        name: encoded_text(variants[name])
        for name in ("variant_id", "effect_allele", "other_allele")
    }
    counts = {
        str(name): {"read": int(number), "written": int(number), "dropped": {}, "missing": {}}
        for name, number in variants["chromosome"].value_counts(sort=False).items()
    }
    attributes = {
        "n": n, "p": p, "coding": coding, "n_eff": 3.5, "geometry_type": "nifti",
        "genome_build": genome_build, "sample_hash": "0123456789abcdef",
        "minor_allele_count": 20.0, "counts": counts,
    }  # fmt: skip
    with formats.create(path, "minimal", attributes, parameters={}) as writer:
        writer.add("A", A[None])
        writer.add("Sigma", A / n)
        writer.add("bases", B)
        writer.add("eigenvalues", np.arange(r, 0, -1.0))
        writer.add("coordinates", geometry.coordinates)
        add_geometry(writer, geometry)
        widths = {name: values.dtype.itemsize for name, values in text.items()}
        columns = reserve_variants(writer, m, r, coding, widths)
        for name, values in text.items():
            columns[f"variants/{name}"][...] = values
        columns["variants/chromosome"][...] = variants["chromosome"].map(RANK).to_numpy()
        columns["variants/base_pair_location"][...] = variants["base_pair_location"].to_numpy()
        columns["A_index"][...] = np.zeros(m, dtype=np.int16)
        for first in range(0, m, BLOCK):
            rows = slice(first, min(first + BLOCK, m))
            size = rows.stop - first
            missing = rng.binomial(n, rng.choice([0.0, 0.001, 0.01], size))
            called = n - missing
            carried = rng.binomial(2 * called, variants["effect_allele_frequency"].to_numpy()[rows])
            frequency = carried / (2 * called)
            z = rng.standard_t(n - p - 1, (size, r))
            if first == 0 and largest is not None:
                z[0, 0] = largest
            codes, scale = encode_z(z, coding)
            columns["z"][rows] = codes
            columns["scale"][rows] = scale
            variance = np.maximum(frequency * (1 - frequency), 1e-6)
            columns["a"][rows] = 2 * called * variance * rng.normal(1, 0.01, size)
            columns["variants/effect_allele_frequency"][rows] = frequency
            columns["variants/missing_rate"][rows] = missing / n
    return path
