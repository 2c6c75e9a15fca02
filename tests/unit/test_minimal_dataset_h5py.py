"""A reader of minimal datasets by docs/minimal_dataset.md, with h5py and numpy alone.

Nothing of the package is used to read; its own reader is what the numbers are compared with.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from dataset_files import synthetic_variants, write_dataset
from rvga import formats
from rvga.dataset import MinimalDataset
from small_study import hard_calls, make_study, run_dataset, subject_names, write_pgen

DOCUMENT = (Path(__file__).parents[2] / "docs" / "minimal_dataset.md").read_text()


class Reader:
    """The description, turned into a program."""

    def __init__(self, path):
        self.file = h5py.File(path, "r", locking=False)
        attributes = self.file.attrs
        assert self.text(attributes["format"]) == "rvga.minimal"
        assert attributes["format_version"] == 2
        self.nu = int(attributes["n"]) - int(attributes["p"]) - 1
        self.coding = self.text(attributes["coding"])
        self.A = self.file["A"][...]
        self.bases = self.file["bases"][...].astype(np.float64)

    @staticmethod
    def text(value):
        return bytes(value).rstrip(b"\0").decode()

    def components(self, rows):
        """Return z, beta, SE (k, r), a (k,) and A (k, r, r) of a slice of variants."""
        codes = self.file["z"][rows]
        z = codes.astype(np.float64)
        if self.coding == "int16":
            z[codes == -32768] = np.nan
            z = z * self.file["scale"][rows].astype(np.float64)[:, None]
        a = self.file["a"][rows].astype(np.float64)[:, None]
        A = self.A[self.file["A_index"][rows]]
        variance = np.array([np.diag(matrix) for matrix in A]).reshape(z.shape)
        beta = z * np.sqrt(variance / (a * (self.nu + z**2)))
        error = np.sqrt((variance - a * beta**2) / (self.nu * a))
        return z, beta, error, a[:, 0], A

    def phenotype(self, b, rows):
        """Return beta, SE, z (k,) of a row of weights b (r,)."""
        _, beta, _, a, A = self.components(rows)
        beta_v = beta @ b
        V = np.array([b @ matrix @ b for matrix in A])
        error = np.sqrt((V - a * beta_v**2) / (self.nu * a))
        return beta_v, error, beta_v / error

    def ids(self, rows):
        return [self.text(value) for value in self.file["variants/variant_id"][rows]]

    def find(self, chromosome, position):
        """Return the rows of a place, by bisection."""
        places = self.file["variants/chromosome"], self.file["variants/base_pair_location"]

        def first_not_below(wanted):
            low, high = 0, len(places[0])
            while low < high:
                middle = (low + high) // 2
                if (int(places[0][middle]), int(places[1][middle])) < wanted:
                    low = middle + 1
                else:
                    high = middle
            return low

        return first_not_below((chromosome, position)), first_not_below((chromosome, position + 1))

    def digest(self, *, attributes_only=False):
        state = hashlib.blake2b(digest_size=16)
        left_out = {"digest", "attributes_digest"}
        if not attributes_only:
            left_out |= {"rvga_version", "code"}
        for name in sorted(set(self.file.attrs) - left_out, key=str.encode):
            value = self.file.attrs[name]
            state.update(name.encode() + b"\0")
            if isinstance(value, bytes):
                state.update(value)
            elif isinstance(value, np.integer):
                state.update(np.array(value, "<i8").tobytes())
            else:
                state.update(np.array(value, "<f8").tobytes())
            state.update(b"\0")
        if attributes_only:
            return state.hexdigest()
        datasets = {}
        self.file.visititems(
            lambda name, item: (
                datasets.__setitem__(name, item) if isinstance(item, h5py.Dataset) else None
            )
        )
        for name in sorted(datasets, key=str.encode):
            values = datasets[name][...]
            state.update(name.encode() + b"\0" + values.dtype.str.encode() + b"\0")
            state.update(np.array(values.shape, "<i8").tobytes())
            state.update(values.tobytes())
        return state.hexdigest()


@pytest.fixture(scope="module", params=["int16", "float32"])
def path(tmp_path_factory, request):
    """Return a dataset with two A, and a variant without estimate (row 7)."""
    folder = tmp_path_factory.mktemp("study")
    study = make_study(folder, 120)
    calls = hard_calls(60, 120, seed=2, missing=0.02)
    main = write_pgen(folder / "a", calls, subject_names(120), "3")
    out = run_dataset(folder, study, [main], "--dataset-coding", request.param)
    lost = folder / "lost.rvga.h5"
    with (
        formats.open_file(out, "minimal") as old,
        formats.create(
            lost, "minimal", old.attributes, inputs=old.inputs, parameters=old.parameters
        ) as writer,
    ):
        for name in formats.KINDS["minimal"].datasets:
            if name not in old:
                continue
            values = old[name][...]
            if name == "a":
                values[7] = np.nan
            if name == "z":
                values[7] = -32768 if request.param == "int16" else np.nan
            if name == "A":
                values = np.concatenate([values, 1.5 * values])
            if name == "A_index":
                values[30:] = 1
            writer.add(name, values)
    return lost


def test_components_voxels_and_regions_are_the_same(path):
    reader = Reader(path)
    everything = slice(None)
    z, beta, error, a, _ = reader.components(everything)
    with MinimalDataset.open(path) as dataset:
        components = dataset.components()
        np.testing.assert_array_equal(components.z, z)
        np.testing.assert_allclose(components.beta, beta, rtol=1e-12)
        np.testing.assert_array_equal(components.a, a)
        assert np.isnan(a[7])
        np.testing.assert_array_equal(np.isnan(z).all(axis=1), np.isnan(a))
        assert np.isfinite(a).sum() > 50
        for k in range(dataset.r):
            table = dataset.component(k)
            np.testing.assert_allclose(table["beta"], beta[:, k], rtol=1e-9)
            np.testing.assert_allclose(table["standard_error"], error[:, k], rtol=1e-9)
            np.testing.assert_allclose(table["z"], z[:, k], rtol=1e-6)
        region = [3, 5, 11]
        for table, b in (
            (dataset.voxel(4), reader.bases[4]),
            (dataset.voxel(39), reader.bases[39]),
            (dataset.mean_of_voxels(region), reader.bases[region].mean(axis=0)),
        ):
            for got, name in zip(
                reader.phenotype(b, everything), ("beta", "standard_error", "z"), strict=True
            ):
                np.testing.assert_allclose(table[name], got, rtol=1e-9)
        labels = np.isin(np.arange(dataset.N), region) * 8
        np.testing.assert_array_equal(
            dataset.region_mean(labels, 8)["beta"], dataset.mean_of_voxels(region)["beta"]
        )
        assert dataset.variants["variant_id"].tolist() == reader.ids(everything)


def test_a_few_rows_are_read_by_themselves(path):
    reader = Reader(path)
    low, high = reader.find(3, 1100)
    with MinimalDataset.open(path) as dataset:
        view = dataset.region("3", 1100, 1100)
        assert (view.first, view.stop) == (low, high)
        assert dataset.variant_row("3:1100:A:G") == low
        np.testing.assert_allclose(
            dataset.variant("3:1100:A:G")["beta"].iloc[9],
            reader.phenotype(reader.bases[9], slice(low, high))[0][0],
            rtol=1e-9,
        )


def test_digests_are_as_described(path):
    reader = Reader(path)
    assert reader.digest() == reader.text(reader.file.attrs["digest"])
    stored = reader.text(reader.file.attrs["attributes_digest"])
    assert reader.digest(attributes_only=True) == stored
    with MinimalDataset.open(path) as dataset:
        assert dataset.digest == reader.digest()
        dataset.verify()


def test_layout_is_as_described(tmp_path):
    m, r = 40_000, 100
    path = write_dataset(tmp_path / "d.h5", synthetic_variants(m), r=r, n_voxels=120)
    with h5py.File(path, "r", locking=False) as file:
        found = {}
        file.visititems(
            lambda name, item: (
                found.__setitem__(name, item) if isinstance(item, h5py.Dataset) else None
            )
        )
        for name, dataset in found.items():
            packed = "m" in formats.KINDS["minimal"].datasets[name].dimensions and name != "z"
            assert dataset.fletcher32, name
            assert (dataset.compression, dataset.shuffle) == (
                ("gzip", True) if packed else (None, False)
            )
            assert np.prod(dataset.chunks) * dataset.dtype.itemsize <= 1 << 20
            if packed:
                assert dataset.chunks == (16_384,)
            assert dataset.dtype.byteorder in "<|="
        assert found["z"].chunks[1] == r
        assert np.prod(found["z"].chunks) * 2 <= 256 << 10
        for name in ("format", "counts", "inputs", "parameters", "digest"):
            assert isinstance(file.attrs[name], bytes)
        json.loads(file.attrs["counts"])


def test_the_document_lists_what_the_file_holds(path):
    kind = formats.KINDS["minimal"]
    listed = set(re.findall(r"`([\w/]+)`", DOCUMENT))
    with h5py.File(path, "r", locking=False) as file:
        assert set(file.attrs) <= listed
        names = []
        file.visit(names.append)
        assert {name for name in names if isinstance(file[name], h5py.Dataset)} <= listed
    required = {name for name, entry in kind.datasets.items() if not entry.optional}
    assert required | set(kind.attributes) <= listed
    assert f"| `format_version` | i8 | `{kind.version}`;" in DOCUMENT
