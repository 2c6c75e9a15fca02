"""What is read for a region, a variant or a voxel, and that chunks are joined as a stream."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import helpers
import rvga_minimal_dataset
from dataset_files import synthetic_variants, write_dataset
from rvga import dataset as dataset_module
from rvga import formats, hdf5_safety
from rvga.chromosomes import RANK
from rvga.coding import encode_z
from rvga.dataset import MinimalDataset
from rvga.errors import InputError
from rvga.minimal import encoded_text, reserve_variants
from rvga.tables import VARIANT_COLUMNS
from small_study import make_study, run_here

M, R, N_VOXELS = 200_000, 4, 30


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Return a dataset of many variants."""
    out = tmp_path_factory.mktemp("dataset") / "d.rvga.h5"
    return write_dataset(out, synthetic_variants(M), r=R, n_voxels=N_VOXELS)


class Reads:
    """What is read of each dataset: number of values in all, and at most at once."""

    def __init__(self):
        self.total: Counter = Counter()
        self.most: Counter = Counter()

    def note(self, name, values):
        size = int(np.size(values))
        self.total[name] += size
        self.most[name] = max(self.most[name], size)


@pytest.fixture
def reads(monkeypatch):
    """Return a record of what is read of open files from here on."""
    record = Reads()
    read = hdf5_safety.CheckedDataset.__getitem__

    def noted(self, args, new_dtype=None):
        values = read(self, args, new_dtype)
        record.note(self.name.lstrip("/"), values)
        return values

    monkeypatch.setattr(hdf5_safety.CheckedDataset, "__getitem__", noted)
    return record


BY_VARIANT = [
    name for name, entry in formats.KINDS["minimal"].datasets.items() if "m" in entry.dimensions
]
# Bisection looks at about 18 rows of 200,000, four times.
BISECTION = 80


def test_opening_reads_no_variant(path, reads):
    with MinimalDataset.open(path) as dataset:
        assert dataset.m == M
    assert [name for name in BY_VARIANT if reads.total[name]] == []
    assert reads.total["bases"] == N_VOXELS * R


def test_a_region_reads_its_own_rows(path, reads):
    with MinimalDataset.open(path) as dataset:
        view = dataset.region("2", 1_000_000, 1_100_000)
        assert 200 < len(view) < 400
        table = view.voxel(3)
        assert len(table) == len(view.components().a) == len(view)
        assert view.component(1).shape == table.shape
        view.lead_voxels()
    for name in BY_VARIANT:
        rows = reads.total[name] / (R if name == "z" else 1)
        assert rows <= 5 * len(view) + BISECTION, name


def test_a_variant_by_place_reads_its_own_row(path, reads):
    with MinimalDataset.open(path) as dataset:
        wanted = dataset.variant_block(123_456, 123_457).iloc[0]
        name = ":".join(
            str(wanted[key])
            for key in ("chromosome", "base_pair_location", "other_allele", "effect_allele")
        )
        reads.total.clear()
        assert dataset.variant_row(name) == 123_456
        assert len(dataset.variant(name)) == N_VOXELS
    for name in BY_VARIANT:
        assert reads.total[name] <= 4 * R + 2 * BISECTION, name


def test_a_variant_by_id_streams_the_ids(path, reads, monkeypatch):
    monkeypatch.setattr(dataset_module, "_TEXT_BLOCK_BYTES", 1 << 18)
    with MinimalDataset.open(path) as dataset:
        name = dataset.variant_block(123_456, 123_457)["variant_id"].iloc[0]
        reads.total.clear()
        reads.most.clear()
        assert dataset.variant_row(name) == 123_456
        assert len(dataset.variant(name)) == N_VOXELS
        with pytest.raises(InputError, match="holds no variant"):
            dataset.variant_row("rs" + "9" * 40)
        with pytest.raises(InputError, match="holds no variant"):
            dataset.variant_row("nonsense:5:A:G")
    assert reads.most["variants/variant_id"] <= 1 << 18
    for name in set(BY_VARIANT) - {"variants/variant_id"}:
        assert reads.total[name] <= 4 * R, name


def test_a_voxel_is_read_by_blocks(path, reads):
    with MinimalDataset.open(path) as dataset:
        rows = 0
        for block in dataset.gwas_blocks(dataset.mean_weights([3])):
            rows += len(block)
    assert rows == M
    for name in BY_VARIANT:
        width = R if name == "z" else 1
        assert reads.most[name] <= dataset_module.BLOCK_VARIANTS * width, name
        if name != "variants/missing_rate":
            assert reads.total[name] == M * width, name


def test_blocks_agree_with_the_whole(path):
    with MinimalDataset.open(path) as dataset:
        whole = dataset.voxel(3)
        some = dataset.voxel(3, 100_000, 100_500)
        pd.testing.assert_frame_equal(some, whole.iloc[100_000:100_500].reset_index(drop=True))
        pd.testing.assert_frame_equal(whole[list(VARIANT_COLUMNS)], dataset.variants)
        with pytest.raises(IndexError):
            dataset.voxel(3, 5, M + 1)


# Joining chunks.


def write_shard(path, null, variants, *, seed=0, coding="int16", A_index=None):
    """Write a chunk of a study's component GWAS as the stage does."""
    rng = np.random.default_rng(seed)
    with formats.open_file(null, "null") as model:
        A, Sigma, digest = model["A"][...], model["Sigma"][...], model.digest
        n, p = model["Q"].shape
    m, r = len(variants), A.shape[1]
    counts = {
        str(name): {"read": int(number), "written": int(number), "dropped": {}, "missing": {}}
        for name, number in variants["chromosome"].value_counts(sort=False).items()
    }
    attributes = {
        "n": n, "p": p, "coding": coding, "n_eff": 0.0, "geometry_type": "", "genome_build": "",
        "sample_hash": "0123456789abcdef", "minor_allele_count": 20.0, "counts": counts,
    }  # fmt: skip
    text = {
        name: encoded_text(variants[name])
        for name in ("variant_id", "effect_allele", "other_allele")
    }
    with formats.create(
        path, "minimal", attributes, inputs={"null": digest},
        parameters={"minor_allele_frequency": 0.0},
    ) as writer:  # fmt: skip
        writer.add("A", A)
        writer.add("Sigma", Sigma)
        widths = {name: values.dtype.itemsize for name, values in text.items()}
        columns = reserve_variants(writer, m, r, coding, widths)
        # z says which variant it is, so that mixed-up rows are seen.
        z = rng.normal(size=(m, r))
        z[:, 0] = variants["base_pair_location"].to_numpy() % 1000 / 250
        codes, scale = encode_z(z, coding)
        columns["z"][...] = codes
        columns["scale"][...] = scale
        columns["a"][...] = variants["base_pair_location"].to_numpy() % 10_000 + 1
        columns["A_index"][...] = 0
        columns["variants/chromosome"][...] = variants["chromosome"].map(RANK).to_numpy()
        columns["variants/base_pair_location"][...] = variants["base_pair_location"].to_numpy()
        columns["variants/effect_allele_frequency"][...] = variants["effect_allele_frequency"]
        columns["variants/missing_rate"][...] = np.zeros(m)
        for name, values in text.items():
            columns[f"variants/{name}"][...] = values
    return path


def join(study, shards, out, *options):
    return run_here(
        rvga_minimal_dataset.main, "--chunks", shards, "--bases", study.bases, "--null", study.null,
        "--out", out, "--threads", 1, *options,
    )  # fmt: skip


@pytest.fixture
def small_blocks(monkeypatch):
    """Make the blocks that are copied at once much smaller than the whole."""
    monkeypatch.setattr(rvga_minimal_dataset, "COLUMN_CHUNK_ROWS", 64)
    monkeypatch.setattr(rvga_minimal_dataset, "BLOCK_BYTES", 1)


@pytest.fixture
def messy_variants():
    """Return variants with many of one place, in genome order of (place, id, alleles)."""
    variants = synthetic_variants(3_000, names=("1", "2", "X"))
    variants["base_pair_location"] //= 400
    keys = ["base_pair_location", "variant_id", "effect_allele", "other_allele"]
    rank = variants["chromosome"].map(RANK).rename("rank")
    order = variants.assign(rank=rank).sort_values(["rank", *keys]).index
    return variants.loc[order].reset_index(drop=True)


def test_chunks_that_overlap_come_out_the_same_however_they_are_cut(
    tmp_path, small_blocks, messy_variants
):
    study = make_study(tmp_path, 60)
    variants = messy_variants
    rng = np.random.default_rng(3)
    shuffled = variants.iloc[rng.permutation(len(variants))]
    odd = rng.random(len(variants)) < 0.3
    cuts = {
        "one": [variants],
        "in order": [variants.iloc[low : low + 430] for low in range(0, 3_000, 430)],
        "two files": [
            part.iloc[low : low + 311]
            for part in (variants[odd], variants[~odd])
            for low in range(0, len(part), 311)
        ],
        "unsorted": [shuffled.iloc[low : low + 700] for low in range(0, 3_000, 700)],
        "with an empty one": [variants.iloc[:50], variants.iloc[:0], variants.iloc[50:]],
    }
    for name, parts in cuts.items():
        folder = tmp_path / name
        folder.mkdir()
        shards = [
            write_shard(folder / f"{number}.h5", study.null, part)
            for number, part in enumerate(parts)
        ]
        done = join(study, shards[::-1], folder / "d.rvga.h5")
        assert done.returncode == 0, done.stderr
        with MinimalDataset.open(folder / "d.rvga.h5") as dataset:
            got = dataset.variants
            pd.testing.assert_frame_equal(got, variants[list(got)], check_exact=False, rtol=1e-6)
            position = variants["base_pair_location"].to_numpy()
            np.testing.assert_array_equal(dataset.components().a, position % 10_000 + 1)
            np.testing.assert_allclose(
                dataset.components().z[:, 0], position % 1000 / 250, atol=1e-3
            )


def test_the_same_chunks_cut_otherwise_give_the_same_bytes(tmp_path, small_blocks, messy_variants):
    """With z that belongs to the variant and not to the chunk."""
    study = make_study(tmp_path, 60)
    variants = messy_variants
    contents = []
    for step in (3_000, 170, 1_000):
        folder = tmp_path / str(step)
        folder.mkdir()
        shards = []
        for low in range(0, 3_000, step):
            part = variants.iloc[low : low + step]
            shards.append(write_shard(folder / f"{low}.h5", study.null, part))
            with formats.h5py.File(shards[-1], "r+") as file:
                rng = np.random.default_rng(1)
                every = encode_z(rng.normal(size=(3_000, file["z"].shape[1])))
                file["z"][...] = every[0][low : low + step]
                file["scale"][...] = every[1][low : low + step]
        assert join(study, shards, folder / "d.rvga.h5").returncode == 0
        contents.append((folder / "d.rvga.h5").read_bytes())
    assert contents[0] == contents[1] == contents[2]


def test_repeated_variants_are_counted_across_blocks_and_chunks(tmp_path, small_blocks):
    study = make_study(tmp_path, 60)
    variants = synthetic_variants(400, names=("5",))
    variants.loc[:, "base_pair_location"] = np.arange(400) // 4 + 100
    variants.loc[:, "variant_id"] = "rs5"
    variants.loc[:, "effect_allele"] = ["A", "G", "C", "A"] * 100
    variants.loc[:, "other_allele"] = ["G", "A", "T", "T"] * 100
    shards = [
        write_shard(tmp_path / f"{low}.h5", study.null, variants.iloc[low : low + 30])
        for low in range(0, 400, 30)
    ]
    done = join(study, shards, tmp_path / "d.rvga.h5")
    assert done.returncode == 0, done.stderr
    # A G and G A are the same two alleles.
    assert "100 of 400 variants repeat another" in done.stderr


def test_every_variant_gets_the_cross_product_of_its_chromosome(tmp_path):
    study = make_study(tmp_path, 60)
    with formats.open_file(study.null, "null") as old:
        Q, residual, A = old["Q"][...], old["residual_ldrs"][0], old["A"][0]
        subject, attributes = old.array("subject"), old.attributes
        inputs, Sigma = old.inputs, old["Sigma"][...]
    factors = {"2": 0.5, "1": 1.0, "X": 2.0}
    with formats.create(study.null, "null", attributes, inputs=inputs) as writer:
        writer.add("Q", Q)
        writer.add("residual_ldrs", np.array([residual * f for f in factors.values()]))
        writer.add("A", np.array([A * f**2 for f in factors.values()]))
        writer.add("A_chromosome", [RANK[name] for name in factors])
        writer.add("Sigma", Sigma)
        writer.add("subject", subject)
    variants = synthetic_variants(300)
    shards = [
        write_shard(tmp_path / f"{name}.h5", study.null, part)
        for name, part in variants.groupby("chromosome")
    ]
    done = join(study, shards, tmp_path / "d.rvga.h5")
    assert done.returncode == 0, done.stderr
    with MinimalDataset.open(tmp_path / "d.rvga.h5") as dataset:
        assert dataset.A.shape == (3, 5, 5)
        np.testing.assert_array_equal(dataset.Sigma, Sigma)
        index = dataset.components().A_index
        expected = [list(factors).index(name) for name in dataset.variants["chromosome"]]
        assert index.tolist() == expected
        # An estimate follows its own A: beta is in proportion to its root.
        part = dataset.components()
        unit = part.z * np.sqrt(1 / (part.a[:, None] * (dataset.nu + part.z**2)))
        factor = np.array([factors[name] for name in dataset.variants["chromosome"]])
        np.testing.assert_allclose(
            part.beta, unit * np.sqrt(np.diag(A)) * factor[:, None], rtol=1e-9
        )
    lonely = write_shard(tmp_path / "7.h5", study.null, synthetic_variants(9, names=("7",)))
    done = join(study, [*shards, lonely], tmp_path / "e.rvga.h5")
    assert done.returncode == 2
    assert "no residual cross-product for chromosome 7" in done.stderr
    assert not (tmp_path / "e.rvga.h5").exists()


def peak_kilobytes(study, shards, out):
    script = (
        "import re, sys\n"
        "import rvga_minimal_dataset\n"
        "rvga_minimal_dataset.main(sys.argv[1:])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1))\n"
    )
    words = ["--chunks", *shards, "--bases", study.bases, "--null", study.null, "--out", out]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words), "--threads", "1"],
        cwd=helpers.BIN, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read memory from")
def test_memory_of_joining_does_not_grow_with_the_variants(tmp_path):
    study = make_study(tmp_path, 60)
    size, peak = 20_000, {}
    variants = synthetic_variants(36 * size)
    shards = [
        write_shard(tmp_path / f"{k}.h5", study.null, variants.iloc[k * size : (k + 1) * size])
        for k in range(36)
    ]
    # Several blocks of 131,072 rows each time, so that all buffers are full.
    for number in (20, 36):
        peak[number] = peak_kilobytes(study, shards[:number], tmp_path / f"{number}.rvga.h5")
    print(f"peak memory in KiB by chunks of {size}: {peak}")
    # Less than 32 bytes for each of 320,000 more variants, a place and a row alone being 16.
    assert peak[36] - peak[20] < 10_000
