"""What a minimal dataset weighs, measured on real variants (ids, positions, alleles)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dataset_files import synthetic_variants, write_dataset
from helpers import TEST_DATA
from rvga.chromosomes import RANK
from rvga.dataset import MinimalDataset
from rvga.minimal import dataset_bytes
from rvga.tables import VARIANT_COLUMNS

M, R = 20_000, 100
BIM = [TEST_DATA / "1000g_eur" / f"chr{number}.bim" for number in range(1, 23)]


def real_variants(m: int) -> pd.DataFrame:
    """Return the first variants of every chromosome, in all m, with allele frequencies."""
    names = ["chromosome", "variant_id", "cm", "base_pair_location", "effect_allele"]
    tables = [
        pd.read_csv(path, sep="\t", names=[*names, "other_allele"], dtype=str) for path in BIM
    ]
    whole = pd.concat(tables, ignore_index=True)
    whole["base_pair_location"] = whole["base_pair_location"].astype(int)
    # Neighbours stay neighbours, since their distance decides how well positions shrink.
    whole = whole.groupby("chromosome", sort=False).head(-(-m // 22)).iloc[:m]
    rank = whole["chromosome"].map(RANK)
    whole = whole.iloc[np.lexsort((whole["base_pair_location"], rank))].reset_index(drop=True)
    rng = np.random.default_rng(5)
    return whole.assign(effect_allele_frequency=0.005 + 0.49 * rng.beta(0.5, 2, len(whole)))[
        list(VARIANT_COLUMNS)
    ]


@pytest.mark.skipif(not all(path.is_file() for path in BIM), reason="real genotypes are not here")
def test_variants_take_at_most_2_2_bytes_a_component(tmp_path):
    variants = real_variants(M)
    assert len(variants) == M
    path = write_dataset(tmp_path / "d.rvga.h5", variants, r=R, n_voxels=500)
    size = dataset_bytes(path)
    print({key: round(value, 4) for key, value in size.items()})
    assert size["bytes_per_variant_and_component"] <= 2.2
    assert size["variant_bytes"] + size["fixed_bytes"] == path.stat().st_size
    with MinimalDataset.open(path) as dataset:
        assert dataset.size() == {
            key: size[key] for key in ("variant_bytes", "fixed_bytes", "file_bytes")
        }
        got = dataset.variants
    text = ["chromosome", "base_pair_location", "variant_id", "effect_allele", "other_allele"]
    pd.testing.assert_frame_equal(got[text], variants[text])


def test_bytes_at_another_number_of_variants(tmp_path):
    path = write_dataset(tmp_path / "d.rvga.h5", synthetic_variants(500), r=4, n_voxels=100)
    here, scaled = dataset_bytes(path), dataset_bytes(path, m=5_000)
    assert here["scaled_bytes"] == here["file_bytes"] == path.stat().st_size
    assert scaled["scaled_bytes"] == here["fixed_bytes"] + 10 * here["variant_bytes"]
    assert scaled["voxelwise_bytes"] == 8 * 5_000 * 100
    assert scaled["ratio"] == scaled["voxelwise_bytes"] / scaled["scaled_bytes"]
