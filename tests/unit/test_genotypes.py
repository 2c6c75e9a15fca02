"""Genotype files against the matrices that they were written from, and bad files."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from rvga import genotypes as genotypes_module
from rvga.errors import InputError
from rvga.genotypes import open_genotypes, read_variants
from small_study import dosages_of, hard_calls, subject_names, write_bed, write_pgen

M, N = 60, 37
NAMES = subject_names(N)


@pytest.fixture(scope="module")
def calls():
    return hard_calls(M, N, seed=1, missing=0.05)


@pytest.fixture(params=["bed", "pgen", "dosage"])
def a_set(request, tmp_path, calls):
    """Return a main file and what it should read as (NaN missing)."""
    if request.param == "bed":
        main, matrix = write_bed(tmp_path / "g", calls, NAMES), calls
    elif request.param == "pgen":
        main, matrix = write_pgen(tmp_path / "g", calls, NAMES), calls
    else:
        matrix = dosages_of(calls, seed=2)
        main = write_pgen(tmp_path / "g", matrix, NAMES)
    expected = matrix.astype(np.float32)
    expected[expected == -9] = np.nan
    return main, expected


def test_dosages_are_those_written(a_set):
    main, expected = a_set
    with open_genotypes(main) as genotypes:
        got = genotypes.dosages(np.arange(M), np.arange(N))
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, expected)
        assert genotypes.subject.tolist() == NAMES
        assert genotypes.n_variants == M


def test_any_variants_and_people_in_any_order(a_set):
    main, expected = a_set
    rows = np.array([30, 2, 36, 2, 0])
    index = np.array([7, 59, 3, 3, 0])
    with open_genotypes(main) as genotypes:
        np.testing.assert_array_equal(genotypes.dosages(index, rows), expected[index][:, rows])
        np.testing.assert_array_equal(
            genotypes.dosages(np.arange(5, 9), np.arange(3, 8)), expected[5:9, 3:8]
        )
        assert genotypes.dosages(np.array([], dtype=int), rows).shape == (0, 5)


@pytest.mark.parametrize("size", [1, 7, 60, 1000])
def test_blocks_make_up_the_range(a_set, size):
    main, expected = a_set
    rows = np.arange(0, N, 2)
    with open_genotypes(main) as genotypes:
        parts = list(genotypes.blocks(4, 50, size, rows))
    assert [part[0] for part in parts] == list(range(4, 50, size))
    assert parts[-1][1] == 50
    np.testing.assert_array_equal(np.concatenate([part[2] for part in parts]), expected[4:50, rows])


def test_reader_holds_no_more_than_a_few_blocks(a_set, monkeypatch):
    main, _ = a_set
    with open_genotypes(main) as genotypes:
        read = []
        raw = genotypes.raw
        monkeypatch.setattr(
            genotypes,
            "raw",
            lambda first, stop, rows: read.append((first, stop)) or raw(first, stop, rows),
        )
        blocks = genotypes.raw_blocks(0, M, 5, np.arange(N))
        next(blocks)
        blocks.close()
    assert max(stop - first for first, stop in read) <= 5
    # One handed out, one waiting, one in the reader's hands.
    assert len(read) <= 4


def test_hard_call_files_are_read_as_bytes(a_set):
    main, expected = a_set
    with open_genotypes(main) as genotypes:
        raw = genotypes.raw(0, M, np.arange(N))
        assert genotypes.has_dosages == (not np.array_equal(expected, np.round(expected), True))
        assert raw.dtype == (np.float32 if genotypes.has_dosages else np.int8)


def test_subject_index_follows_the_order_asked_for(a_set):
    with open_genotypes(a_set[0]) as genotypes:
        assert genotypes.subject_index(["s9", "s10", "s0"]).tolist() == [9, 10, 0]
        with pytest.raises(InputError, match=r"2 of 3 subjects .* the first is 'who'"):
            genotypes.subject_index(["s1", "who", "me"])


def test_family_ids(tmp_path, calls):
    main = write_bed(tmp_path / "g", calls, NAMES)
    with open_genotypes(main, subject_id="FID_IID") as genotypes:
        assert genotypes.subject[3] == "fs3_s3"


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not on PATH")
def test_effect_allele_is_the_one_that_plink_says(a_set, tmp_path):
    main, expected = a_set
    flag = "--bfile" if main.suffix == ".bed" else "--pfile"
    (tmp_path / "count").write_text("".join(f"rs{1000 + 10 * row}\tG\n" for row in range(M)))
    subprocess.run(
        ["plink2", flag, str(main.with_suffix("")), "--export", "A", "--export-allele", "count",
         "--out", "out", "--threads", "1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    lines = [line.split("\t") for line in (tmp_path / "out.raw").read_text().splitlines()]
    exported = np.array([words[6:] for words in lines[1:]])
    exported = np.where(exported == "NA", "nan", exported).astype(float).T
    with open_genotypes(main) as genotypes:
        assert set(genotypes.variants["effect_allele"]) == {"G"}
        got = genotypes.dosages(np.arange(M), np.arange(N))
    # PLINK prints the shortest decimal within half of the format's step of 2^-14.
    np.testing.assert_allclose(got, exported, rtol=0, atol=2**-15)
    np.testing.assert_allclose(expected, exported, rtol=0, atol=2**-15)


HEADER = "#CHROM\tPOS\tID\tREF\tALT"
FIRST = f"{HEADER}\n1\t5\trs1\tA\tG\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a.pvar",
            f'##x="y\n##z\n{HEADER}\tQUAL\tINFO\n'
            'chr1\t5\trs1\tA\tG\t.\tR2=.8,"\nX\t9\t.\tAC\tT\t.\t\n',
        ),
        ("b.pvar", "#CHROM\tID\tPOS\tALT\tREF\n01\trs1\t5\tG\tA\n23\t.\t9\tT\tAC\n"),
        ("bom.pvar", "\ufeff#CHROM\tPOS\tID\tREF\tALT\r\n1\t5\trs1\tA\tG\r\nX\t9\t.\tAC\tT\r\n"),
        ("c.pvar", "1\trs1\t5\tG\tA\nX\t.\t9\tT\tAC\n"),
        ("d.pvar", "1\trs1\t0\t5\tG\tA\nX\t.\t0\t9\tT\tAC\n"),
        ("e.bim", "1\trs1\t0\t5\tG\tA\n23\t.\t0\t9\tT\tAC\n"),
        ("f.bim", "1 rs1  0 5 G A\n 23 . 0 9 T AC\n"),
        ("g.bim", "1\trs1\t0.2\t5\tG\tA\r\nchrX\t.\t0\t9\tT\tAC\r\n"),
    ],
)  # fmt: skip
def test_forms_of_variant_files(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode())
    table = read_variants(path)
    assert list(table.columns) == [
        "chromosome", "base_pair_location", "variant_id", "effect_allele", "other_allele"
    ]  # fmt: skip
    assert table.to_numpy().tolist() == [["1", 5, "rs1", "G", "A"], ["X", 9, ".", "T", "AC"]]


@pytest.mark.parametrize("delimiter", ["\t", " "])
def test_range_of_a_long_file_is_that_of_the_whole(tmp_path, monkeypatch, delimiter):
    monkeypatch.setattr(genotypes_module, "_READ_BYTES", 2000)
    monkeypatch.setattr(genotypes_module, "_READ_LINES", 50)
    calls = hard_calls(300, 8, seed=1)
    main = write_bed(tmp_path / "g", calls, NAMES[:8])
    bim = main.with_suffix(".bim")
    bim.write_text(bim.read_text().replace("\t", delimiter))
    whole = read_variants(bim)
    assert len(whole) == 300
    for first, stop in ((0, 300), (0, 1), (120, 260), (299, 300)):
        with open_genotypes(main, variant_range=(first, stop)) as genotypes:
            assert genotypes.n_variants == 300
            pd.testing.assert_frame_equal(genotypes.variants, whole.loc[first : stop - 1])


def test_alleles_called_na_stay_text(tmp_path):
    path = tmp_path / "a.bim"
    path.write_text("1\tNA\t0\t5\tN\tA\n2\tnull\t0\t5\tT\tNA\n")
    table = read_variants(path)
    assert table["variant_id"].tolist() == ["NA", "null"]
    assert table["other_allele"].tolist() == ["A", "NA"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.pvar", f"##x\n{FIRST}1\t6\trs2\tA\tG,T\n", r"line 4 has several ALT alleles \(G,T\)"),
        ("a.pvar", f"{FIRST}1\t6\trs 2\tA\tG\n", "line 3 has 'rs 2' as variant_id"),
        ("a.pvar", f"{FIRST}1\t6\trs2\tA\t\n", "line 3 has '' as effect_allele"),
        ("a.pvar", f"{FIRST}1\t6\trs\x1b2\tA\tG\n", "as variant_id: empty, "),
        ("a.pvar", f"{FIRST}chrUn\t6\trs2\tA\tG\n", "line 3: chromosome 'chrUn'"),
        ("a.bim", "1\trs1\t0\t5\tG\tA\n0\trs2\t0\t5\tG\tA\n", r"line 2: chromosome '0' is unknown"),
        ("a.pvar", f"{FIRST}1\tfive\trs2\tA\tG\n", "line 3: position 'five'"),
        ("a.bim", "1 rs1 0 5 G A\n1 rs2 0 5.5 G A\n", r"line 2: position '5.5' is no number"),
        ("a.pvar", f"{FIRST}1\t6\trs2\n", r"line 3 has 3 columns instead of 5"),
        ("a.bim", "1\trs1\t0\t5\tG\tA\n1\trs2\t0\t-7\tG\tA\n", r"line 2 has position -7"),
        ("a.bim", "1\trs1\t0\n", r"line 1 has 3 columns; a \.bim file"),
        ("a.pvar", "#CHROM\tPOS\tID\tREF\n1\t5\trs1\tA\n", r"column 'ALT' is missing"),
        ("a.pvar", "#chrom\tPOS\tID\tREF\tALT\n", r"'#CHROM'"),
        ("a.pvar", "##only\n", r"holds no variant"),
        ("a.pvar", "", r"the file is empty"),
    ],
)  # fmt: skip
def test_bad_variant_files(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=rf"{name}: .*{message}"):
        read_variants(path)


def test_file_that_ends_before_its_first_variant(tmp_path):
    path = tmp_path / "a.pvar"
    path.write_text(HEADER + "\n")
    with pytest.raises(InputError, match="holds no variant"):
        read_variants(path)


def test_file_cut_short_is_refused(a_set):
    main, _ = a_set
    content = main.read_bytes()
    for size in (len(content) - 1, len(content) // 2, 14, 5):
        main.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"g\.(bed|pgen): .*cut short"):
            open_genotypes(main)


def test_other_number_of_people_or_variants_is_refused(a_set):
    main, _ = a_set
    people = main.with_suffix(".fam" if main.suffix == ".bed" else ".psam")
    variants = main.with_suffix(".bim" if main.suffix == ".bed" else ".pvar")
    text = people.read_text()
    # Four more people, so that a variant takes another byte in both formats.
    people.write_text(
        text + "".join(text.splitlines(True)[-1].replace("s36", f"t{i}") for i in range(4))
    )
    with pytest.raises(InputError, match=r"(fam|psam)"):
        open_genotypes(main)
    people.write_text(text)
    variants.write_text("".join(variants.read_text().splitlines(True)[:-1]))
    with pytest.raises(InputError, match=r"(bim|pvar)"):
        open_genotypes(main)


def test_foreign_and_missing_files(tmp_path, calls):
    with pytest.raises(InputError, match=r"no\.pgen: no such file"):
        open_genotypes(tmp_path / "no.pgen")
    main = write_bed(tmp_path / "g", calls, NAMES)
    main.with_suffix(".bim").rename(tmp_path / "kept.bim")
    with pytest.raises(InputError, match=r"g\.bim: no such file"):
        open_genotypes(main)
    with open_genotypes(main, tmp_path / "kept.bim", tmp_path / "g.fam") as genotypes:
        assert genotypes.n_variants == M
    foreign = tmp_path / "x.bed"
    foreign.write_text("chr1\t1\t2\n")
    with pytest.raises(InputError, match="not a PLINK file"):
        open_genotypes(foreign, tmp_path / "kept.bim", tmp_path / "g.fam")
    foreign.write_bytes(b"")
    with pytest.raises(InputError, match=r"x\.bed: the file is empty"):
        open_genotypes(foreign, tmp_path / "kept.bim", tmp_path / "g.fam")
    main.write_bytes(b"\x6c\x1b\x00" + main.read_bytes()[3:])
    with pytest.raises(InputError, match="sample-major"):
        open_genotypes(main, tmp_path / "kept.bim", tmp_path / "g.fam")
    (tmp_path / "g.vcf.gz").write_bytes(b"x")
    with pytest.raises(InputError, match="plink2 --make-pgen"):
        open_genotypes(tmp_path / "g.vcf.gz")


def test_damaged_records_name_the_file(tmp_path, calls):
    main = write_pgen(tmp_path / "g", dosages_of(calls, seed=2), NAMES)
    content = bytearray(main.read_bytes())
    content[-2000:] = b"\xff" * 2000
    main.write_bytes(bytes(content))
    with open_genotypes(main) as genotypes:
        with pytest.raises(InputError, match=r"g\.pgen: variants 1 to 60 cannot be decoded"):
            genotypes.raw(0, M, np.arange(N))
        with pytest.raises(InputError, match="cannot be decoded"):
            list(genotypes.blocks(0, M, 8, np.arange(N)))
