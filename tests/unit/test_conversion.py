"""BGEN, VCF and BCF files: their heads, their people, and plink2's part."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from genotype_files import (
    bgen_dosages,
    export,
    join_bgen,
    needs_plink2,
    write_bgen,
    write_sample_file,
    write_vcf,
    write_vcf_lines,
)
from rvga import conversion
from rvga.conversion import convert
from rvga.errors import InputError
from rvga.genotype_samples import people_of, read_sample_table
from rvga.genotype_sources import read_source, source_format, source_stem
from rvga.genotypes import open_genotypes
from rvga.vcf_split import split_multiallelic
from small_study import dosages_of, hard_calls, write_pgen

M, N = 40, 23
# Ids that a reader may take apart at the underscore, or for numbers.
NAMES = [f"0{number}_a_{number}" for number in range(N)]
HALF_STEP = 0.51 / 16384


@pytest.fixture(scope="module")
def calls():
    return hard_calls(M, N, seed=1, missing=0.05)


@pytest.fixture(scope="module")
def dosages(calls):
    return dosages_of(calls, seed=2)


def converted(path, samples=None, **options):
    """Convert a file; return what was done, and subjects, variants and dosages as they read."""
    source = read_source(path, source_format(path))
    out = path.parent / "out" / source_stem(path)
    done = convert(source, people_of(source, samples), out, **options)
    with open_genotypes(out.with_name(out.name + ".pgen")) as genotypes:
        values = genotypes.dosages(np.arange(genotypes.n_variants), np.arange(done.n_samples))
        return done, genotypes.subject.tolist(), genotypes.variants, values


def with_nan(values):
    return np.where(values == -9, np.nan, values)


# -------------------------------------------------------------------------------------------
# Values
# -------------------------------------------------------------------------------------------


@needs_plink2
@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
@pytest.mark.parametrize("inside", [True, False])
def test_bgen_reads_as_its_probabilities(tmp_path, dosages, compression, inside):
    path = write_bgen(
        tmp_path / "g.bgen", dosages, ids=NAMES if inside else None, compression=compression
    )
    samples = (
        None if inside else write_sample_file(tmp_path / "g.sample", [("f", s) for s in NAMES])
    )
    done, subjects, variants, values = converted(path, samples)
    np.testing.assert_allclose(values, with_nan(bgen_dosages(dosages)), atol=HALF_STEP)
    assert subjects == NAMES
    assert (done.n_variants, done.n_left_out, done.field) == (M, 0, "probabilities")
    assert set(variants["effect_allele"]) == {"G"}
    assert set(variants["other_allele"]) == {"A"}


@needs_plink2
@pytest.mark.parametrize("end", [".vcf", ".vcf.gz"])
def test_vcf_dosages_are_read_where_declared(tmp_path, dosages, end):
    done, subjects, _, values = converted(write_vcf(tmp_path / f"g{end}", dosages, NAMES))
    np.testing.assert_allclose(values, with_nan(dosages), atol=HALF_STEP)
    assert subjects == NAMES
    assert done.field == "DS"


@needs_plink2
def test_vcf_calls_are_read_without_dosages_and_stay_hard_calls(tmp_path, calls):
    path = write_vcf(tmp_path / "g.vcf", calls, NAMES)
    done, _, _, values = converted(path)
    np.testing.assert_array_equal(values, with_nan(calls))
    assert done.field == "GT"
    with open_genotypes(tmp_path / "out/g.pgen") as genotypes:
        assert not genotypes.has_dosages
    # What other stages filter by goes with the variants.
    header, first = (tmp_path / "out/g.pvar").read_text().splitlines()[-M - 1 : -M + 1]
    assert dict(zip(header.split("\t"), first.split("\t"), strict=True))["INFO"] == "R2=0.1"


@needs_plink2
@pytest.mark.parametrize("words", [("bcf", "vcf-dosage=DS-force"), ("bcf",)])
def test_bcf_reads_as_vcf_does(tmp_path, calls, dosages, words):
    matrix = dosages if len(words) > 1 else calls
    main = write_pgen(tmp_path / "g", matrix, NAMES)
    done, subjects, _, values = converted(export(main, tmp_path / "x.bcf", *words))
    np.testing.assert_allclose(values, with_nan(matrix), atol=1e-5 + HALF_STEP)
    assert subjects == NAMES
    assert done.field == ("DS" if len(words) > 1 else "GT")


@needs_plink2
def test_the_exporter_of_plink2_is_read_back(tmp_path, dosages):
    """16 bits a probability, so the grid of PLINK 2 files is met again."""
    main = write_pgen(tmp_path / "g", dosages, NAMES)
    for version in ("bgen-1.2", "bgen-1.3"):
        path = export(main, tmp_path / "x.bgen", version, "ref-first")
        _, subjects, variants, values = converted(path)
        np.testing.assert_allclose(values, with_nan(dosages), atol=2 / 16384)
        assert subjects == NAMES
        assert set(variants["effect_allele"]) == {"G"}


@needs_plink2
def test_same_bytes_at_any_number_of_threads(tmp_path, dosages):
    path = write_vcf(tmp_path / "g.vcf.gz", dosages, NAMES)
    contents = []
    for threads in (1, 2):
        converted(path, threads=threads)
        contents.append([(tmp_path / f"out/g{end}").read_bytes() for end in conversion.ENDS])
    assert contents[0] == contents[1]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "g.pgen", "g.psam", "g.pvar"
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------
# Variants
# -------------------------------------------------------------------------------------------

THREE = ["p_1", "p_2", "p_3"]


@needs_plink2
@pytest.mark.parametrize("dosage", [False, True])
def test_several_alternative_alleles_become_several_variants(tmp_path, dosage):
    def line(position, alternatives, info, *cells):
        cells = [cell if dosage else cell.split(":")[0] for cell in cells]
        form = "GT:DS" if dosage else "GT"
        fixed = f"1\t{position}\trs{position}\tA\t{alternatives}\t.\tPASS\t{info}\t{form}"
        return "\t".join([fixed, *cells])

    lines = [
        line(10, "G", "R2=0.5;AF=0.5", "0/0:0.25", "0/1:1", "1/1:2"),
        line(20, "G,T", "R2=0.5;AF=0.25,0.125", "1|2:0.75,1", "0/2:0,1.25", "./.:."),
    ]
    path = write_vcf_lines(tmp_path / "g.vcf", THREE, lines, dosage=dosage)
    done, _, variants, values = converted(path)
    assert variants["effect_allele"].tolist() == ["G", "G", "T"]
    assert variants["base_pair_location"].tolist() == [10, 20, 20]
    expected = [[0, 1, 2], [1, 0, np.nan], [1, 1, np.nan]]
    if dosage:
        expected = [[0.25, 1, 2], [0.75, 0, np.nan], [1, 1.25, np.nan]]
    np.testing.assert_allclose(values, expected, atol=HALF_STEP)
    assert (done.n_multiallelic_split, done.n_multiallelic_dropped) == (1, 0)
    pvar = (tmp_path / "out/g.pvar").read_text()
    assert "R2=0.5;AF=0.25\n" in pvar
    assert "R2=0.5;AF=0.125\n" in pvar


@needs_plink2
def test_several_alternative_alleles_of_bcf_are_left_out_or_refused(tmp_path):
    lines = [
        f"1\t{position}\trs\tA\t{alt}\t.\tPASS\t.\tGT\t0/1\t1/1\t0/0"
        for position, alt in ((10, "G"), (20, "G,T"))
    ]
    made = tmp_path / "made"
    path = write_vcf_lines(tmp_path / "g.vcf", THREE, lines)
    conversion.subprocess.run(
        ["plink2", "--vcf", path, "--const-fid", "0", "--make-pgen", "--out", made],
        check=True, capture_output=True,
    )  # fmt: skip
    done, _, variants, _ = converted(export(made.with_suffix(".pgen"), tmp_path / "x.bcf", "bcf"))
    assert variants["base_pair_location"].tolist() == [10]
    assert done.n_multiallelic_dropped == 1


@needs_plink2
def test_contigs_and_other_chromosomes_are_left_out_and_counted(tmp_path):
    lines = [
        f"{name}\t{10 + row}\trs{row}\tA\tG\t.\tPASS\t.\tGT\t0/1\t1/1\t0/0"
        for row, name in enumerate(["chr1", "chr1", "chr2", "chr1_KI270706v1_random"])
    ]
    path = write_vcf_lines(tmp_path / "g.vcf", THREE, lines)
    done, _, variants, _ = converted(path)
    assert variants["chromosome"].tolist() == ["1", "1", "2"]
    assert done.n_left_out == 1
    done, _, variants, _ = converted(path, chromosome="2")
    assert variants["chromosome"].tolist() == ["2"]
    assert done.n_left_out == 3
    with pytest.raises(InputError, match=r"g\.vcf: holds no variant of chromosome 7"):
        converted(path, chromosome="7")


@needs_plink2
@pytest.mark.parametrize(
    ("written", "asked", "expected"),
    [("01", "all", "1"), ("chr7", "7", "7"), ("", "7", "7"), ("NA", "X", "X"), ("26", "all", "MT")],
)
def test_chromosome_names_of_bgen(tmp_path, dosages, written, asked, expected):
    path = write_bgen(tmp_path / "g.bgen", dosages, chromosome=written)
    rows = [("0", name) for name in NAMES]
    samples = write_sample_file(tmp_path / "g.sample", rows, ["1"] * N)
    done, _, variants, _ = converted(path, samples, chromosome=asked)
    assert set(variants["chromosome"]) == {expected}
    assert done.n_variants == M


@needs_plink2
def test_bgen_without_chromosome_names_needs_one(tmp_path, dosages):
    path = write_bgen(tmp_path / "g.bgen", dosages, ids=NAMES, chromosome="")
    with pytest.raises(InputError, match=r"g\.bgen: names no chromosome inside"):
        converted(path)


@needs_plink2
def test_bgen_variants_that_cannot_be_used_are_left_out_and_counted(tmp_path, dosages):
    parts = [
        write_bgen(tmp_path / "a.bgen", dosages, ids=NAMES),
        write_bgen(tmp_path / "b.bgen", dosages[:3], ids=NAMES, alleles=("A", "G", "T")),
        write_bgen(tmp_path / "c.bgen", dosages[:5], ids=NAMES, chromosome="chrUn_1"),
        write_bgen(tmp_path / "d.bgen", dosages[:2], ids=NAMES, chromosome="2"),
    ]
    path = join_bgen(tmp_path / "g.bgen", *parts)
    done, _, variants, values = converted(path)
    assert (done.n_multiallelic_dropped, done.n_left_out, done.n_variants) == (3, 5, M + 2)
    assert variants["chromosome"].tolist() == ["1"] * M + ["2"] * 2
    np.testing.assert_array_equal(values[:2], values[M:])
    done, _, variants, _ = converted(path, chromosome="2")
    assert (done.n_multiallelic_dropped, done.n_left_out, done.n_variants) == (0, M + 8, 2)
    with pytest.raises(InputError, match=r"b\.bgen: holds no variant .* with two alleles"):
        converted(parts[1])


# -------------------------------------------------------------------------------------------
# X
# -------------------------------------------------------------------------------------------


def x_study(folder, position=30_000_000):
    """Write a VCF file with men's haploid calls on X."""
    lines = [f"X\t{position}\trx\tA\tG\t.\tPASS\t.\tGT:DS\t0:0.125\t0/1:1.25\t1:0.875"]
    return write_vcf_lines(folder / "g.vcf", THREE, lines, dosage=True)


@needs_plink2
def test_haploid_calls_on_x_come_on_the_scale_of_two(tmp_path):
    samples = tmp_path / "g.psam"
    samples.write_text("#IID\tSEX\np_3\t1\np_1\t1\np_2\t2\n")
    done, subjects, _, values = converted(x_study(tmp_path), samples)
    np.testing.assert_allclose(values, [[0.25, 1.25, 1.75]], atol=2 * HALF_STEP)
    assert subjects == THREE
    assert (tmp_path / "out/g.psam").read_text() == "#IID\tSEX\np_1\t1\np_2\t2\np_3\t1\n"
    assert done.n_need_sex == 1


@needs_plink2
def test_bgen_of_men_on_x_comes_back_on_the_scale_of_two(tmp_path, dosages):
    """The exporter of plink2 writes men's genotypes on X with one copy."""
    men = np.arange(N) % 2 == 0
    matrix = np.where(men & (dosages > -9), 2 * np.round(dosages / 2), dosages)
    main = write_pgen(tmp_path / "g", matrix.astype(np.float32), NAMES, "X", 30_000_000)
    lines = [f"{name}\t{1 if man else 2}\n" for name, man in zip(NAMES, men, strict=True)]
    main.with_suffix(".psam").write_text("#IID\tSEX\n" + "".join(lines))
    path = export(main, tmp_path / "x.bgen", "bgen-1.2", "ref-first")
    done, _, _, values = converted(path, tmp_path / "x.sample", genome_build="GRCh38")
    np.testing.assert_allclose(values, with_nan(matrix), atol=2 / 16384)
    assert done.n_need_sex == M
    sexes = [line.split()[-1] for line in (tmp_path / "out/x.psam").read_text().splitlines()]
    assert sexes == ["SEX", *(line.split()[1] for line in lines)]


@needs_plink2
def test_x_needs_sexes_but_not_in_the_pseudoautosomal_regions(tmp_path):
    with pytest.raises(InputError, match=r"1 variants on chromosome X or Y.*nobody's sex is known"):
        converted(x_study(tmp_path))
    assert list((tmp_path / "out").iterdir()) == []
    done, *_ = converted(x_study(tmp_path, 155_000_000), genome_build="GRCh37")
    assert done.n_need_sex == 0
    with pytest.raises(InputError, match="nobody's sex is known"):
        converted(x_study(tmp_path, 155_000_000), genome_build="GRCh38")


# -------------------------------------------------------------------------------------------
# People
# -------------------------------------------------------------------------------------------


def test_rows_of_a_sample_file_follow_the_genotypes(tmp_path, dosages):
    source = read_source(write_bgen(tmp_path / "g.bgen", dosages, ids=NAMES), "bgen")
    samples = tmp_path / "g.psam"
    lines = [f"f{row}\t{name}\t{1 + row % 2}" for row, name in enumerate(NAMES)]
    samples.write_text("#FID\tIID\tSEX\n" + "\n".join(reversed(lines)) + "\n")
    people = people_of(source, samples)
    assert people.iid == NAMES
    assert people.fid == [f"f{row}" for row in range(N)]
    assert people.sex == [str(1 + row % 2) for row in range(N)]


def test_joined_ids_are_family_and_individual(tmp_path, dosages):
    ids = [f"f{row} s{row}" for row in range(N)]
    source = read_source(write_bgen(tmp_path / "g.bgen", dosages, ids=ids), "bgen")
    assert people_of(source, None).fid[1] == "f1"
    assert people_of(source, None).iid[1] == "s1"
    pairs = [(f"f{row}", f"s{row}") for row in range(N)]
    people = people_of(source, write_sample_file(tmp_path / "g.sample", pairs, ["F"] * N))
    assert people.iid == [f"s{row}" for row in range(N)]
    assert set(people.sex) == {"2"}


def test_ids_without_meaning_are_none(tmp_path, dosages):
    ids = [f"(anonymous_sample_{row + 1})" for row in range(N)]
    assert read_source(write_bgen(tmp_path / "g.bgen", dosages, ids=ids), "bgen").ids is None


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.psam", "##x\n#IID\tSEX\na\t1\nb\t0\n", [("0", "a", "1"), ("0", "b", "NA")]),
        ("a.fam", "f a 0 0 2 -9\nf b 0 0 0 -9\n", [("f", "a", "2"), ("f", "b", "NA")]),
        ("a.sample", "ID_1 ID_2 missing Sex\n0 0 0 D\nf a 0 1\n", [("f", "a", "1")]),
        ("a.sample", "ID sex\n0 D\na female\nb NA\n", [("0", "a", "2"), ("0", "b", "NA")]),
    ],
)
def test_sample_files(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_text(content)
    table = read_sample_table(path)
    assert list(zip(table.fid, table.iid, table.sex, strict=True)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("#IID\tSEX\na\t1\na\t1\n", r"subject '0 a' is there twice \(lines 2 and 3\)"),
        ("#FID\tSEX\na\t1\n", "line 1 is not the header of a .psam file"),
        ("ID_1 ID_2 missing\na a 0\n", "line 2 of an Oxford .sample file"),
        ("f\n", "line 1 has 1 columns, too few for ids"),
        ("#IID\tSEX\n", "holds no subjects"),
    ],
)
def test_bad_sample_files(tmp_path, content, message):
    path = tmp_path / "a.sample"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_sample_table(path)


def test_people_of_another_set_are_refused(tmp_path, dosages):
    ids = write_bgen(tmp_path / "ids.bgen", dosages, ids=NAMES)
    none = write_bgen(tmp_path / "none.bgen", dosages)
    short = write_sample_file(tmp_path / "a.sample", [("0", name) for name in NAMES[1:]])
    with pytest.raises(InputError, match=r"does not list 1 of the 23 samples.*'00_a_0'"):
        people_of(read_source(ids, "bgen"), short)
    with pytest.raises(InputError, match=r"lists 22 people, but .*none\.bgen holds 23"):
        people_of(read_source(none, "bgen"), short)
    with pytest.raises(InputError, match=r"none\.bgen: has no sample ids inside; name its"):
        people_of(read_source(none, "bgen"), None)
    prefixed = write_sample_file(tmp_path / "b.sample", [("0", f"sub-{name}") for name in NAMES])
    with pytest.raises(InputError, match="hint: the ids match after dropping the prefix 'sub-'"):
        people_of(read_source(ids, "bgen"), prefixed)


# -------------------------------------------------------------------------------------------
# Files that are none
# -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [".bgen", ".vcf", ".vcf.gz", ".bcf"])
def test_absent_empty_and_foreign_files(tmp_path, end):
    path = tmp_path / f"g{end}"
    form = source_format(path)
    with pytest.raises(InputError, match="no such file"):
        read_source(path, form)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="the file is empty"):
        read_source(path, form)
    path.write_bytes(gzip.compress(b"chromosome,position\n1,2\n" * 9))
    with pytest.raises(InputError, match=r"not a (BGEN|VCF|BCF) file"):
        read_source(path, form)
    with pytest.raises(InputError, match="the name ends in none of"):
        source_format(tmp_path / "g.gen")


def test_heads_cut_short(tmp_path, calls, dosages):
    bgen = write_bgen(tmp_path / "g.bgen", dosages, ids=NAMES)
    bgen.write_bytes(bgen.read_bytes()[:90])
    with pytest.raises(InputError, match="cut short or damaged within its head"):
        read_source(bgen, "bgen")
    vcf = write_vcf(tmp_path / "g.vcf.gz", calls, NAMES)
    vcf.write_bytes(vcf.read_bytes()[:60])
    with pytest.raises(InputError, match="cannot be decompressed"):
        read_source(vcf, "vcf")


@needs_plink2
def test_block_compressed_file_without_its_end(tmp_path, calls):
    main = write_pgen(tmp_path / "g", calls, NAMES)
    path = export(main, tmp_path / "x.bcf", "bcf")
    path.write_bytes(path.read_bytes()[:-28])
    with pytest.raises(InputError, match="its last block is missing"):
        read_source(path, "bcf")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "a"], r"sample 'a' is there twice \(samples 1 and 3\)"),
        (["a", "b c", "d"], "sample 'b c' has a space in its id"),
        ([], "holds no sample, only variants"),
    ],
)
def test_bad_ids_of_vcf(tmp_path, ids, message):
    path = write_vcf_lines(tmp_path / "g.vcf", ids, [])
    with pytest.raises(InputError, match=message):
        read_source(path, "vcf")


@needs_plink2
@pytest.mark.parametrize("kind", ["bgen", "vcf.gz", "vcf"])
def test_damage_in_the_middle_leaves_nothing(tmp_path, dosages, kind):
    path = tmp_path / f"g.{kind}"
    if kind == "bgen":
        write_bgen(path, dosages, ids=NAMES)
    else:
        write_vcf(path, dosages, NAMES)
    path.write_bytes(path.read_bytes()[:-150])
    with pytest.raises(InputError, match=rf"g\.{kind}: plink2 cannot convert the file: \S.{{15}}"):
        converted(path)
    assert list((tmp_path / "out").iterdir()) == []


def test_damaged_line_to_split(tmp_path):
    lines = ["1\t10\trs\tA\tG,T\t.\tPASS\t.\tGT:DS\t0/1:1\t0/0:0,0\t0/0:0,0"]
    path = write_vcf_lines(tmp_path / "g.vcf", THREE, lines, dosage=True)
    with pytest.raises(
        InputError, match=r"g\.vcf: line 8 with several ALT alleles cannot be split"
    ):
        split_multiallelic(path, tmp_path / "copy.vcf.gz")


def fake_plink2(folder, monkeypatch, script):
    """Put a program of the name plink2 first on PATH."""
    folder.mkdir()
    program = folder / "plink2"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("echo 'Error: File write failure: No space left on device.'; exit 5", OSError, "No space"),
        ("echo 'Error: Out of memory.'; exit 1", MemoryError, "Out of memory"),
        ("kill -9 $$", MemoryError, "ended with status -9"),
        ("exit 0", InputError, "ended with status 0"),
        (
            "echo 'Error: first'; echo; echo 'Error: a message that is folded'\n"
            "echo 'over lines.'; echo 'End time: x'\n"
            "exit 3",
            InputError,
            r"g\.vcf: plink2 cannot convert the file: a message that is folded over lines$",
        ),
    ],
)
def test_how_plink2_fails(tmp_path, calls, monkeypatch, script, error, message):
    path = write_vcf(tmp_path / "g.vcf", calls, NAMES)
    fake_plink2(tmp_path / "bin", monkeypatch, script)
    with pytest.raises(error, match=message):
        converted(path)
    assert list((tmp_path / "out").iterdir()) == []


def test_without_plink2(tmp_path, calls, monkeypatch):
    path = write_vcf(tmp_path / "g.vcf", calls, NAMES)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="plink2 is not on PATH; it converts BGEN, VCF and BCF"):
        converted(path)
