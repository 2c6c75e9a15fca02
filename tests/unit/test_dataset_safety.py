"""A dataset from a stranger is data only: what is refused, and that damage is noticed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import helpers
from dataset_files import synthetic_variants, write_dataset
from rvga import formats, hdf5_safety
from rvga.dataset import MinimalDataset
from rvga.errors import InputError

M, R, N_VOXELS = 120, 4, 20
GEOMETRY = ("bases", "coordinates", "geometry/index")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Return a small dataset."""
    out = tmp_path_factory.mktemp("dataset") / "d.rvga.h5"
    return write_dataset(out, synthetic_variants(M), r=R, n_voxels=N_VOXELS)


def changed(path, tmp_path, change, *, stamped=True):
    """Return a copy that ``change`` was done to, with attributes stamped as a forger would."""
    copy = tmp_path / "bad.rvga.h5"
    shutil.copy(path, copy)
    with h5py.File(copy, "r+") as handle:
        change(handle)
        if stamped:
            try:
                digest = formats.attributes_digest(handle)
            except (TypeError, ValueError, RecursionError):
                return copy
            handle.attrs["attributes_digest"] = np.bytes_(digest.encode())
    return copy


def everything(path):
    """Return all that a dataset says, read by its own reader."""
    with MinimalDataset.open(path) as dataset:
        components = dataset.components()
        return [
            dataset.variants.to_csv(), components.z.tobytes(), components.beta.tobytes(),
            components.a.tobytes(), dataset.A.tobytes(), dataset.Sigma.tobytes(),
            dataset.bases.tobytes(), dataset.eigenvalues.tobytes(), dataset.coordinates.tobytes(),
            dataset.missing_rate.tobytes(), dataset.geometry.affine.tobytes(),
            dataset.geometry.index.tobytes(), dataset.geometry.shape, dataset.digest,
            sorted(dataset.attributes.items()), dataset.inputs,
        ]  # fmt: skip


def replace(handle, name, **options):
    del handle[name]
    return handle.create_dataset(name, **options)


def text(handle, key, value):
    handle.attrs[key] = np.bytes_(value.encode())


def bomb(handle):
    """Put 160 MB of zeros into a few hundred KB."""
    for name in GEOMETRY:
        columns, dtype = handle[name].shape[1], handle[name].dtype
        target = replace(
            handle, name, shape=(4_000_000, columns), dtype=dtype, chunks=(400_000, columns),
            compression="gzip", compression_opts=1,
        )  # fmt: skip
        target[...] = np.zeros(target.shape, dtype=dtype)


def bomb_of_variable_text(handle):
    target = replace(handle, "variants/variant_id", shape=(M,), dtype=h5py.string_dtype())
    target[...] = np.array(["x"] * M, dtype=object)


def foreign_filter(handle):
    replace(handle, "a", data=np.ones(M, dtype="f4"), chunks=(M,), compression="lzf")


def twice_packed(handle):
    values = handle["a"][...]
    del handle["a"]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((M,))
    plan.set_deflate(9)
    plan.set_deflate(9)
    space = h5py.h5s.create_simple((M,))
    h5py.h5d.create(handle.id, b"a", h5py.h5t.IEEE_F32LE, space, plan)
    handle["a"][...] = values


def huge_chunk(handle):
    replace(
        handle, "eigenvalues", shape=(1 << 24,), dtype="f8", chunks=(1 << 24,), compression="gzip"
    )


def references(handle):
    target = replace(handle, "eigenvalues", shape=(R,), dtype=h5py.ref_dtype)
    target[0] = handle["A"].ref


def region_references(handle):
    replace(handle, "eigenvalues", shape=(R,), dtype=h5py.regionref_dtype)


def pickled(handle):
    handle.create_dataset("evil", data=np.void(b"\x80\x04cos\nsystem\n"))


def hidden_in_a_group(handle):
    handle.create_dataset("variants/more", data=np.arange(3))


def soft_link(handle):
    handle["A_index_too"] = handle["A_index"]
    del handle["A_index"]
    handle["A_index"] = h5py.SoftLink("/A_index_too")


def many_attributes(handle):
    for number in range(300):
        handle.attrs[f"x{number}"] = number


def array_attribute(handle):
    handle.attrs["n"] = np.arange(1000)


def variable_attribute(handle):
    handle.attrs["counts"] = "{}"


def set_values(name, index, value):
    def change(handle):
        handle[name][index] = value

    return change


def set_all(name, value):
    def change(handle):
        handle[name][...] = value(handle[name][...])

    return change


def indefinite(A):
    direction = np.ones(len(A[0])) / np.sqrt(len(A[0]))
    return A - 2 * (direction @ A[0] @ direction) * np.outer(direction, direction)[None] / 2 * 1.9


DEEP = "[" * 100_000 + "]" * 100_000
FORGERIES = {
    "bomb": (bomb, "claim \\d+ bytes in a file of"),
    "text of variable length": (bomb_of_variable_text, "text of variable length"),
    "foreign filter": (foreign_filter, "HDF5 filter 32000"),
    "packed twice": (twice_packed, "packed more than once"),
    "huge chunk": (huge_chunk, "chunks of 134217728 bytes"),
    "references": (references, "'eigenvalues' has dtype object"),
    "region references": (region_references, "'eigenvalues' has dtype object"),
    "pickle": (pickled, "'evil' is not part of such a file"),
    "hidden": (hidden_in_a_group, "'variants/more' is not part of such a file"),
    "soft link": (soft_link, "not part of such a file"),
    "many attributes": (many_attributes, "foreign HDF5 file"),
    "array attribute": (array_attribute, "foreign HDF5 file"),
    "variable attribute": (variable_attribute, "foreign HDF5 file"),
    "deep inputs": (lambda h: text(h, "inputs", DEEP), "'inputs' is no JSON"),
    "inputs a list": (lambda h: text(h, "inputs", "[]"), "'inputs' is no JSON object"),
    "deep counts": (lambda h: text(h, "counts", DEEP), "'counts' makes no sense"),
    "wrong counts": (lambda h: text(h, "counts", '{"1": 3}'), "'counts' makes no sense"),
    "n as text": (lambda h: text(h, "n", "many"), "attribute 'n' is impossible"),
    "n infinite": (lambda h: h.attrs.__setitem__("n", np.inf), "attribute 'n' is impossible"),
    "Sigma NaN": (set_values("Sigma", (0, 0), np.nan), "not finite"),
    "bases infinite": (set_values("bases", (3, 0), np.inf), "not finite"),
    "bases absurd": (set_values("bases", (3, 0), 1e35), ""),
    "A absurd": (set_all("A", lambda A: A * 1e80), "absurd"),
    "A asymmetric": (set_values("A", (0, 0, 1), 1e5), "not a symmetric positive matrix"),
    "A indefinite": (set_all("A", indefinite), "not a symmetric positive matrix"),
    "Sigma negative": (set_values("Sigma", (1, 1), -1.0), "not a symmetric positive matrix"),
    "grid": (set_all("geometry/shape", lambda shape: shape * 10_000), "impossible size"),
    "coordinates": (set_values("coordinates", (0, 0), np.nan), "not finite"),
    "A_index": (set_values("A_index", 5, 1), "A_index is out of range"),
    "A_index negative": (set_values("A_index", 5, -1), "A_index is out of range"),
    "scale": (set_values("scale", 5, -1.0), "scale is negative"),
    "scale NaN": (set_values("scale", 5, np.nan), "scale is negative or not finite"),
    "a negative": (set_values("a", 5, -3.0), "a is not positive"),
    "a infinite": (set_values("a", 5, np.inf), "a is not positive"),
    "order": (set_values("variants/base_pair_location", 9, 1), "not in genome order"),
    "chromosome": (set_values("variants/chromosome", -1, 77), "outside 1 to 25"),
    "frequency": (set_values("variants/effect_allele_frequency", 7, 1.5), "frequency is imposs"),
    "position": (set_values("variants/base_pair_location", 0, -4), "a position or"),
    "text": (set_values("variants/variant_id", 0, b"\xff\xfe"), "not UTF-8"),
    "id of two lines": (set_values("variants/variant_id", 7, b"a\n1"), "'a.n1' of row 7 has white"),
    "id of two words": (set_values("variants/variant_id", 7, b"a 1"), "'a 1' of row 7 has white"),
    "id with a tab": (set_values("variants/variant_id", 0, b"a\t1"), "variant_id .* of row 0 has"),
    "id for a terminal": (set_values("variants/variant_id", 7, b"\x1b[2J"), "x1b.2J' of row 7 has"),
    "id turned round": (set_values("variants/variant_id", 7, "\u202ea".encode()), "of row 7 has"),
    "no allele": (set_values("variants/effect_allele", 9, b""), "allele '' of row 9 is empty"),
    "allele of space": (set_values("variants/other_allele", 9, b" "), "other_allele ' ' of row 9"),
    "build for a terminal": (lambda h: text(h, "genome_build", "\x1b[2J"), "'genome_build' is not"),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, entry in FORGERIES.items() if entry[1]])
def test_forged_file_is_refused(path, tmp_path, name):
    change, message = FORGERIES[name]
    bad = changed(path, tmp_path, change)
    with pytest.raises(InputError, match=message):
        everything(bad)


def test_file_of_the_same_content_is_not_refused(path, tmp_path):
    assert everything(changed(path, tmp_path, lambda handle: None)) == everything(path)


def test_large_but_finite_values_give_no_infinite_ones(path, tmp_path):
    bad = changed(path, tmp_path, FORGERIES["bases absurd"][0])
    with MinimalDataset.open(bad) as dataset:
        table = dataset.voxel(3)
    assert np.isfinite(table[["beta", "standard_error", "z"]]).all(axis=None)


def test_attribute_that_was_changed_is_noticed(path, tmp_path):
    bad = changed(path, tmp_path, lambda h: h.attrs.__setitem__("n", 60_000), stamped=False)
    with pytest.raises(InputError, match="attributes do not agree with their digest"):
        MinimalDataset.open(bad)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read memory from")
def test_bomb_is_refused_before_memory_is_taken(path, tmp_path):
    bad = changed(path, tmp_path, bomb)
    assert bad.stat().st_size < 2_000_000
    script = (
        "import re, sys\n"
        "from rvga.dataset import MinimalDataset\n"
        "from rvga.errors import InputError\n"
        "def peak():\n"
        "    status = open('/proc/self/status').read()\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', status).group(1))\n"
        "before = peak()\n"
        "try:\n"
        "    MinimalDataset.open(sys.argv[1])\n"
        "except InputError as error:\n"
        "    print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(bad)],
        capture_output=True, text=True, check=True, cwd=helpers.BIN,
    )  # fmt: skip
    # Kilobytes.
    assert int(done.stdout) < 20_000


def test_a_sound_file_with_much_compression_is_read(path, tmp_path):
    """Columns of equal values shrink a thousandfold without being a bomb."""
    variants = synthetic_variants(200_000).assign(variant_id="rs1")
    out = write_dataset(tmp_path / "d.h5", variants, r=1, n_voxels=5)
    with MinimalDataset.open(out) as dataset:
        assert (dataset.variants["variant_id"] == "rs1").all()


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_leads_to_a_message_and_never_to_other_numbers(path, tmp_path, flip):
    """Bytes that hold nothing (gaps between HDF5's structures) may change unnoticed."""
    expected = everything(path)
    content = path.read_bytes()
    bad = tmp_path / "bad.rvga.h5"
    noticed = unnoticed = 0
    for offset in range(flip % 97, len(content), 97):
        damaged = bytearray(content)
        damaged[offset] ^= flip
        bad.write_bytes(damaged)
        try:
            assert everything(bad) == expected, offset
            unnoticed += 1
        except InputError as error:
            noticed += bad.name in str(error)
    print(f"{noticed} flipped bytes were noticed, {unnoticed} hold nothing")
    assert noticed + unnoticed == len(range(flip % 97, len(content), 97))
    assert noticed > 10 * unnoticed


@pytest.mark.parametrize("kind", ["null", "bases"])
def test_flipped_bytes_of_other_files_are_noticed(tmp_path, kind):
    from small_study import make_study

    study = make_study(tmp_path, 40)
    file = getattr(study, kind)

    def all_of(path):
        with formats.open_file(path, kind) as envelope:
            names = [name for name in formats.KINDS[kind].datasets if name in envelope]
            return [envelope.array(name).tolist() for name in names], envelope.attributes

    expected, content = all_of(file), file.read_bytes()
    bad = tmp_path / "bad.h5"
    noticed = unnoticed = 0
    for offset in range(0, len(content), 61):
        damaged = bytearray(content)
        damaged[offset] ^= 0x10
        bad.write_bytes(damaged)
        try:
            assert all_of(bad) == expected, offset
            unnoticed += 1
        except InputError:
            noticed += 1
    assert noticed > 4 * unnoticed


def test_long_attribute_is_guarded_too(tmp_path):
    """HDF5 itself does not check attributes of more than 64 KiB."""
    out = tmp_path / "s.h5"
    flow = [{"step": "x" * 200_000, "n_in": 1, "n_out": 1, "reason": ""}]
    attributes = {name: "" for name in formats.KINDS["subjects"].attributes} | {"flow": flow}
    with formats.create(out, "subjects", attributes) as writer:
        for name, entry in formats.KINDS["subjects"].datasets.items():
            writer.add(name, ["a"] if entry.dtype == formats.TEXT else [0])
    content = bytearray(out.read_bytes())
    content[content.index(b"x" * 1000) + 100_000] ^= 1
    out.write_bytes(content)
    with pytest.raises(InputError, match="do not agree with their digest"):
        formats.open_file(out, "subjects")


def test_whole_file_is_compared_with_its_digest(path, tmp_path):
    with MinimalDataset.open(path) as dataset:
        dataset.verify()
    bad = changed(path, tmp_path, set_values("z", (3, 1), 7))
    with MinimalDataset.open(bad) as dataset, pytest.raises(InputError, match="its digest"):
        dataset.verify()


def test_json_is_not_nested_deeply():
    assert hdf5_safety.json_value('{"a": "[[[", "b": [1, {"c": "\\\\"}]}') == {
        "a": "[[[", "b": [1, {"c": "\\"}],
    }  # fmt: skip
    for words in (DEEP, "[" * 33 + "]" * 33, "{", ""):
        with pytest.raises(ValueError, match=r"nested|Expecting"):
            hdf5_safety.json_value(words)
    assert hdf5_safety.json_value("[" * 32 + "]" * 32) == json.loads("[" * 32 + "]" * 32)


def test_chunks_are_small_and_share_the_rows_evenly():
    for shape, itemsize in (((1,), 8), ((100_001, 7), 4), ((3, 5000, 5000), 8), ((2, 10**7), 8)):
        chunk = hdf5_safety.chunk_shape(shape, itemsize)
        assert all(1 <= part <= whole for part, whole in zip(chunk, shape, strict=True))
        assert np.prod(chunk) * itemsize <= 1 << 20
        rows = -(-shape[0] // chunk[0]) * chunk[0]
        assert rows - shape[0] < -(-shape[0] // chunk[0])
