"""Our decoder of genotype files against pgenlib's, bit for bit, and what it does with damage."""

from __future__ import annotations

import contextlib
import shutil
import subprocess

import numpy as np
import pgenlib
import pytest

from rvga import pgen
from rvga.errors import InputError
from rvga.genotypes import open_genotypes
from rvga.packed import MISSING_DOSAGE
from rvga.pgen import PackedReader, record_index
from small_study import (
    dosages_of,
    hard_calls,
    subject_names,
    write_bed,
    write_pgen,
    write_samples,
    write_variants,
)


def read_both(main, rows, first, stop, size=16):
    """Return the codes of variants by our decoder and by pgenlib."""
    found = []
    with open_genotypes(main) as genotypes:
        for always in (False, True):
            reader = PackedReader(genotypes, rows, first, stop, size, always_pgenlib=always)
            parts = [
                reader.read(low, min(low + size, stop)).codes.copy()
                for low in range(first, stop, size)
            ]
            found.append(np.concatenate(parts))
            reader.close()
    return found


def calls_of_every_form(m: int, n: int, seed: int) -> np.ndarray:
    """Return calls whose records take every form of the main track, neighbours alike."""
    rng = np.random.default_rng(seed)
    calls = hard_calls(m, n, seed=seed, missing=0.02)
    for row in range(m):
        form = row % 8
        if form in (1, 2) and row:
            # Nearly the variant before, or its opposite.
            calls[row] = calls[row - 1] if form == 1 else 2 - calls[row - 1]
            calls[row][calls[row - 1] < 0] = -9
            calls[row, rng.integers(0, n, max(1, n // 50))] = 1
        elif form in (3, 4, 5):
            calls[row] = (0, 2, -9)[form - 3]
            calls[row, rng.integers(0, n, max(1, n // 30))] = 1
            calls[row, rng.integers(0, n, max(1, n // 60))] = -9
        elif form == 6:
            calls[row] = np.where(rng.random(n) < 0.5, 0, 2)
            calls[row, rng.integers(0, n, max(1, n // 20))] = 1
    return calls


@pytest.mark.parametrize("n", [1, 5, 31, 32, 97, 256, 257, 5000, 66_000])
@pytest.mark.parametrize("kind", ["pgen", "bed", "dosages", "sparse", "dense", "phased"])
def test_codes_are_those_of_pgenlib(tmp_path, n, kind):
    m = 24 if n < 50_000 else 16
    names = subject_names(n)
    calls = calls_of_every_form(m, n, seed=n)
    stem = tmp_path / "g"
    rng = np.random.default_rng(n + 1)
    if kind == "bed":
        main = write_bed(stem, calls, names)
    elif kind == "pgen":
        main = write_pgen(stem, calls, names)
    elif kind == "phased":
        main = write_phased(stem, calls, names)
    else:
        share = {"dosages": 0.5, "sparse": 0.02, "dense": 1.0}[kind]
        dosages = dosages_of(calls, seed=4)
        exact = rng.random(calls.shape) >= share
        dosages[exact] = calls[exact]
        if kind == "dense":
            dosages = np.clip(dosages, 1 / 16384, 2 - 1 / 16384)
            dosages[calls < 0] = -9
        main = write_pgen(stem, dosages.astype(np.float32), names)
    everyone = np.arange(n)
    some = np.flatnonzero(rng.random(n) < 0.6)
    for rows in (everyone, some if len(some) else everyone):
        for first, stop in ((0, m), (3, m), (9, 10)):
            ours, theirs = read_both(main, rows, first, stop)
            np.testing.assert_array_equal(ours, theirs)


def write_phased(stem, calls, names):
    """Write a PLINK 2 set of phased calls."""
    m, n = calls.shape
    main = stem.with_name("g.pgen")
    alleles = np.empty((m, 2 * n), dtype=np.int32)
    alleles[:, ::2] = np.where(calls < 0, -9, calls // 2)
    alleles[:, 1::2] = np.where(calls < 0, -9, (calls + 1) // 2)
    with pgenlib.PgenWriter(
        str(main).encode(), n, variant_ct=m, nonref_flags=False, hardcall_phase_present=True
    ) as writer:
        for row in alleles:
            writer.append_alleles(np.ascontiguousarray(row), all_phased=True)
    write_variants(stem.with_name("g.pvar"), m)
    write_samples(stem.with_name("g.psam"), names)
    return main


def test_every_form_of_record_is_met(tmp_path):
    calls = calls_of_every_form(64, 500, seed=1)
    main = write_pgen(tmp_path / "g", calls, subject_names(500))
    kinds = record_index(main, 500, 0, 64).kinds & 7
    assert set(kinds) >= {0, 1, 4, 6, 7}
    sparse = dosages_of(calls, seed=2)
    keep = np.random.default_rng(1).random(calls.shape) < 0.98
    sparse[keep] = calls[keep]
    sparse[1::2] = dosages_of(calls, seed=2)[1::2]
    main = write_pgen(tmp_path / "d", sparse.astype(np.float32), subject_names(500))
    assert set(record_index(main, 500, 0, 64).kinds & 0x60) >= {0x20, 0x60}


@pytest.mark.parametrize("n", [97, 300])
def test_dosages_of_everyone_without_a_list(tmp_path, n):
    m = 8
    dosages = dosages_of(calls_of_every_form(m, n, seed=1), seed=3)
    dosages = np.where(dosages < 0, dosages, np.clip(dosages, 1 / 16384, 2 - 1 / 16384))
    main = write_pgen(tmp_path / "g", dosages.astype(np.float32), subject_names(n))
    everyone = np.arange(n)
    expected = read_both(main, everyone, 0, m)[1][:, :n]
    # The same as records of the form that gives a dosage, or none, to each person in turn.
    records = []
    for row in expected:
        missing = np.repeat(row == MISSING_DOSAGE, 2)
        bits = np.packbits(missing, bitorder="little").tobytes()
        records.append(bits + row.astype("<u2").tobytes())
    head = b"l\x1b\x10" + m.to_bytes(4, "little") + n.to_bytes(4, "little") + b"\x05"
    places = (12 + 8 + m + 2 * m).to_bytes(8, "little")
    lengths = b"".join(len(record).to_bytes(2, "little") for record in records)
    main.write_bytes(head + places + b"\x40" * m + lengths + b"".join(records))
    for rows in (everyone, everyone[::3]):
        ours, theirs = read_both(main, rows, 0, m)
        np.testing.assert_array_equal(ours[:, : len(rows)], expected[:, rows])
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not on PATH")
@pytest.mark.parametrize("phased", [False, True])
def test_files_that_plink_wrote(tmp_path, phased):
    n, m = 300, 40
    rng = np.random.default_rng(2)
    # Neighbours are alike, every third has its alleles exchanged.
    haplotypes = np.repeat(rng.random((2 * n, m // 5)) < 0.4, 5, axis=1)
    haplotypes ^= rng.random((2 * n, m)) < 0.005
    haplotypes[:, ::3] ^= True
    lines = ["##fileformat=VCFv4.2", '##FORMAT=<ID=DS,Number=A,Type=Float,Description="d">']
    lines.append("\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT",
                            *subject_names(n)]))  # fmt: skip
    for row in range(m):
        first, second = haplotypes[::2, row].astype(int), haplotypes[1::2, row].astype(int)
        noise = rng.normal(scale=0.1, size=n) * (rng.random(n) < (0.05 if row % 2 else 0.7))
        dosage = np.clip(first + second + noise, 0, 2)
        cells = [
            "./.:." if person % 50 == 7 else f"{a}|{b}:{d:.4f}"
            for person, (a, b, d) in enumerate(zip(first, second, dosage, strict=True))
        ]
        place = ["1", str(100 + row), f"v{row}", "A", "G", ".", ".", ".", "GT:DS"]
        lines.append("\t".join([*place, *cells]))
    (tmp_path / "g.vcf").write_text("\n".join(lines) + "\n")
    options = ["dosage=DS"] if phased else []
    subprocess.run(
        ["plink2", "--vcf", "g.vcf", *options, "--make-pgen", "--out", "g", "--threads", "1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    main = tmp_path / "g.pgen"
    kinds = record_index(main, n, 0, m).kinds
    assert np.any(kinds & 6 == 2), "no record refers to the one before it"
    assert np.any(kinds & 0x10), "no record is phased"
    assert np.any(kinds & 0x60) == phased
    for rows in (np.arange(n), np.arange(3, n, 2)):
        for first, stop in ((0, m), (7, m)):
            np.testing.assert_array_equal(*read_both(main, rows, first, stop))


def test_rare_files_are_left_to_pgenlib(tmp_path):
    calls = hard_calls(10, 30, seed=1)
    main = write_pgen(tmp_path / "g", calls, subject_names(30))
    content = bytearray(main.read_bytes())
    assert record_index(main, 30, 0, 10) is not None
    # A multiallelic record, and fixed-width files.
    index = record_index(main, 30, 0, 10)
    assert index.kinds.max() < 8
    content[12 + 8] |= 8
    main.write_bytes(bytes(content))
    assert record_index(main, 30, 0, 10) is None
    content[2] = 2
    main.write_bytes(bytes(content))
    assert record_index(main, 30, 0, 10) is None


def test_pieces_and_bases_give_the_same(tmp_path, monkeypatch):
    calls = calls_of_every_form(60, 400, seed=3)
    main = write_pgen(tmp_path / "g", dosages_of(calls, seed=1), subject_names(400))
    whole, _ = read_both(main, np.arange(400), 0, 60, size=60)
    monkeypatch.setattr(pgen, "_PIECE_BYTES", 500)
    for size in (1, 7, 60):
        np.testing.assert_array_equal(read_both(main, np.arange(400), 0, 60, size)[0], whole)


@pytest.mark.parametrize("kind", ["pgen", "dosages", "sparse"])
def test_damaged_records_never_do_harm(tmp_path, kind):
    m, n = 24, 300
    calls = calls_of_every_form(m, n, seed=5)
    raw = calls
    if kind != "pgen":
        raw = dosages_of(calls, seed=1)
        if kind == "sparse":
            keep = np.random.default_rng(1).random(calls.shape) < 0.97
            raw[keep] = calls[keep]
    main = write_pgen(tmp_path / "g", raw, subject_names(n))
    good = main.read_bytes()
    start = int(record_index(main, n, 0, m).offsets[0])
    rng = np.random.default_rng(6)
    refused = 0
    for _ in range(200):
        content = bytearray(good)
        for place in rng.integers(start, len(good), 5):
            content[place] = rng.integers(0, 256)
        main.write_bytes(bytes(content))
        with open_genotypes(main) as genotypes:
            reader = PackedReader(genotypes, np.arange(n), 0, m, m)
            # Whatever else it raises fails the test.
            with contextlib.suppress(InputError):
                reader.read(0, m)
                refused -= 1
            refused += 1
            reader.close()
    assert refused > 10


def test_file_cut_short_while_open_is_refused(tmp_path):
    main = write_pgen(tmp_path / "g", hard_calls(50, 400, seed=1), subject_names(400))
    with open_genotypes(main) as genotypes:
        reader = PackedReader(genotypes, np.arange(400), 0, 50, 50)
        main.write_bytes(main.read_bytes()[:-700])
        with pytest.raises(InputError, match=r"g\.pgen: variants .* damaged or cut short"):
            reader.read(0, 50)
        reader.close()


def test_people_out_of_order_are_a_mistake(tmp_path):
    main = write_pgen(tmp_path / "g", hard_calls(5, 9, seed=1), subject_names(9))
    with open_genotypes(main) as genotypes, pytest.raises(ValueError, match="file's order"):
        PackedReader(genotypes, np.array([3, 1]), 0, 5, 5)
