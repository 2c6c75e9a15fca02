"""External GWAS results in the shapes that programs write."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import TEST_DATA
from rvga.errors import InputError
from rvga.sumstats import match_variants, read_sumstats

SHAPES = {
    "GWAS-SSF": (
        "chromosome\tbase_pair_location\teffect_allele\tother_allele\tbeta\tstandard_error\t"
        "effect_allele_frequency\tp_value\trsid\tn\n"
        "1\t100\tG\tA\t0.2\t0.1\t0.3\t0.0455\trs1\t5000\n"
    ),
    "PLINK 2": (
        "#CHROM\tPOS\tID\tREF\tALT\tA1\tOMITTED\tA1_FREQ\tTEST\tOBS_CT\tBETA\tSE\tT_STAT\tP\tERRCODE\n"
        "1\t100\trs1\tG\tA\tG\tA\t0.3\tADD\t5000\t0.2\t0.1\t2\t0.0455\t.\n"
        "1\t100\trs1\tG\tA\tG\tA\t0.3\tAGE\t5000\t0.9\t0.1\t9\t1e-9\t.\n"
    ),
    "REGENIE": (
        "CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ N TEST BETA SE CHISQ LOG10P EXTRA\n"
        "1 100 rs1 A G 0.3 5000 ADD 0.2 0.1 4 1.342 NA\n"
    ),
    "SAIGE": (
        "CHR\tPOS\tMarkerID\tAllele1\tAllele2\tAC_Allele2\tAF_Allele2\tBETA\tSE\tp.value\tN\n"
        "1\t100\trs1\tA\tG\t10\t0.3\t0.2\t0.1\t0.0455\t5000\n"
    ),
    "LDSC": "SNP A1 A2 N Z\nrs1 G A 5000 2.0\n",
    "fastGWA": (
        "CHR\tSNP\tPOS\tA1\tA2\tN\tAF1\tBETA\tSE\tP\n"
        "1\trs1\t100\tg\ta\t5000\t0.3\t0.2\t0.1\t0.0455\n"
    ),
    "BOLT-LMM": (
        "SNP\tCHR\tBP\tGENPOS\tALLELE1\tALLELE0\tA1FREQ\tF_MISS\tBETA\tSE\tP_BOLT_LMM_INF\tN\n"
        "rs1\t1\t100\t0.1\tG\tA\t0.3\t0\t0.2\t0.1\t0.0455\t5000\n"
    ),
    "PLINK 2 without OMITTED": (
        "#CHROM\tPOS\tID\tREF\tALT\tA1\tTEST\tOBS_CT\tOR\tLOG(OR)_SE\tZ_STAT\tP\n"
        "1\t100\trs1\tG\tA\tG\tADD\t5000\t1.2214027581601699\t0.1\t2\t0.0455\n"
    ),
    "IEU table": (
        "SNP\tCHR\tBP\tA1\tA2\tINFO\tBETA\tSE\tLP\tN\tID\tP\n"
        "rs1\t1\t100\tA\tG\t1\t0.2\t0.1\t1.342\t5000\tieu-1\t0.0455\n"
    ),
    "IEU export": (
        "chr\tposition\tbeta\tse\tp\tn\tid\trsid\tea\tnea\teaf\ttrait\n"
        "1\t100\t0.2\t0.1\t0.0455\t5000\tieu-1\trs1\tG\tA\t0.3\theight\n"
    ),
    "GWAS-SSF harmonised": (
        "hm_variant_id\thm_rsid\thm_chrom\thm_pos\thm_other_allele\thm_effect_allele\thm_beta\t"
        "hm_odds_ratio\tchromosome\tbase_pair_location\teffect_allele\tother_allele\tbeta\t"
        "odds_ratio\tstandard_error\tp_value\tn\n"
        "1_100_A_G\trs1\t1\t100\tA\tG\t0.2\tNA\t1\t90\tA\tG\t-0.2\tNA\t0.1\t0.0455\t5000\n"
    ),
    "METAL": (
        "MarkerName\tAllele1\tAllele2\tWeight\tZscore\tP-value\tDirection\n"
        "rs1\tg\ta\t5000\t2.0\t0.0455\t++\n"
    ),
    "GWAS-VCF": (
        "##fileformat=VCFv4.2\n##SAMPLE=<ID=T,StudyType=Continuous>\n"
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tT\n"
        "1\t100\trs1\tA\tG\t.\tPASS\tAF=0.3\tES:SE:LP:AF:SS:ID\t0.2:0.1:1.342:0.3:5000:rs1\n"
    ),
    "GWAS-VCF of cases": (
        "##fileformat=VCFv4.2\n"
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tT\n"
        "1\t100\t.\tA\tG\t.\tPASS\tAF=0.3\tID:ES:SE:NC:SS:EZ\trs1:0.2:0.1:2500:5000:.\n"
    ),
    "odds ratio, commas": (
        "chr,bp,snp,ea,nea,or,se,n\nchr01,100,rs1,G,A,1.2214027581601699,0.1,5000\n"
    ),
    "like GWAS-SSF": (
        "chromosome\tbase_pair_location\teffect_allele\tother_allele\tor\tse\tn\n"
        "1\t100\tG\tA\t1.2214027581601699\t0.1\t5000\n"
    ),
    "quoted, commas": ('"","SNP","A1","A2","BETA","SE","N"\n"1","rs1","G","A",0.2,0.1,5000\n'),
    "quoted, white space": (
        '"SNP" "CHR" "BP" "A1" "A2" "BETA" "SE" "N"\n"rs1" 1 100 "G" "A" 0.2 0.1 5000\n'
    ),
    "quoted, white space in a cell": (
        '"SNP" "A1" "A2" "BETA" "SE" "N" "TRAIT"\n"rs1" "G" "A" 0.2 0.1 5000 "body mass index"\n'
    ),
    "quotes in rows only": (
        'SNP,A1,A2,BETA,SE,N,TRAIT\n"rs1","G","A",0.2,0.1,5000,"mass, of the body"\n'
    ),
    "FinnGen with n": (
        "#chrom\tpos\tref\talt\trsids\tnearest_genes\tpval\tmlogp\tbeta\tsebeta\taf_alt\tn\n"
        "1\t100\tA\tG\trs1\tA,B\t0.0455\t1.342\t0.2\t0.1\t0.3\t5000\n"
    ),
    "separators at the ends": ("SNP\tA1\tA2\tN\tBETA\tSE\nrs1\tG\tA\t5000\t0.2\t0.1\t\t\n"),
    "two-sided p and sign": (
        f"SNP\tA1\tA2\tN\tBETA\tP\nrs1\tG\tA\t5000\t0.2\t{2 * stats.norm.sf(2.0):.12g}\n"
    ),
}


def write(folder: Path, text: str, name: str = "trait.tsv") -> Path:
    path = folder / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["trait.txt", "trait.gz"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_row(tmp_path, shape, name):
    found = read_sumstats(write(tmp_path, SHAPES[shape], name)).table
    assert len(found) == 1
    row = found.iloc[0]
    assert (row.effect_allele, row.other_allele) == ("G", "A")
    assert row.z == pytest.approx(2.0, rel=1e-6)
    assert row.n == 5000
    if "chromosome" in found:
        assert (row.chromosome, row.base_pair_location) == ("1", 100)
    if "rsid" in found:
        assert row.rsid == "rs1"


def test_p_too_small_for_a_number_still_gives_z(tmp_path):
    text = "SNP A1 A2 N BETA LOG10P\nrs1 G A 9 -0.1 400\n"
    z = read_sumstats(write(tmp_path, text)).table.z[0]
    assert z < 0
    assert stats.norm.logsf(-z) + np.log(2) == pytest.approx(-400 * np.log(10), rel=1e-12)


def test_rows_are_dropped_by_reason(tmp_path):
    text = "SNP\tA1\tA2\tN\tZ\n" + "".join(
        f"rs{k}\t{a}\t{b}\t{n}\t{z}\n"
        for k, (a, b, n, z) in enumerate(
            [
                ("A", "G", 900, 1.0), ("A", "T", 900, 1.0), ("C", "G", 900, 1.0),
                ("A", "<DEL>", 900, 1.0), ("A", "A", 900, 1.0), ("A", "C", 900, "NA"),
                ("A", "C", "NA", 1.0), ("AT", "A", 900, 1.0), ("T", "C", 100, 1.0),
                ("T", "C", 650, 1.0), ("T", "C", 900, 1.0),
            ]
        )
    )  # fmt: skip
    found = read_sumstats(write(tmp_path, text))
    assert found.table.rsid.tolist() == ["rs0", "rs7", "rs9", "rs10"]
    assert found.dropped == {
        "alleles not valid": 2,
        "no z statistic": 1,
        "no sample size": 1,
        "strand-ambiguous alleles": 2,
        "sample size below two thirds of the 90th percentile": 1,
    }
    assert sum(found.dropped.values()) + len(found.table) == found.n_read


def test_sample_sizes_given_have_priority(tmp_path):
    path = write(tmp_path, "SNP A1 A2 N Z\nrs1 G A 5000 2.0\n")
    assert read_sumstats(path, n=77).table.n[0] == 77
    assert read_sumstats(path, n_cases=100, n_controls=300).table.n[0] == pytest.approx(300)
    cases = write(tmp_path, "SNP A1 A2 Nca Nco Z\nrs1 G A 100 300 2.0\n", "cases.txt")
    assert read_sumstats(cases).table.n[0] == pytest.approx(300)


def test_named_columns_win(tmp_path):
    path = write(tmp_path, "SNP A1 A2 N Z X\nrs1 G A 5000 2.0 3.5\n")
    found = read_sumstats(path, columns={"z": "X", "effect_allele": "A2", "other_allele": "A1"})
    assert found.table.z[0] == 3.5
    assert found.table.effect_allele[0] == "A"


BAD = {
    "no effect allele": ("SNP\tA2\tN\tZ\nrs1\tA\t5\t1\n", {}, "no effect-allele column; found"),
    "no other allele": ("SNP\tA1\tN\tZ\nrs1\tA\t5\t1\n", {}, "no other-allele column"),
    "no place": ("A1\tA2\tN\tZ\nA\tG\t5\t1\n", {}, "neither chromosome"),
    "no effect": ("SNP\tA1\tA2\tN\tP\nrs1\tA\tG\t5\t.1\n", {}, "no z, and no effect"),
    "no n": ("SNP\tA1\tA2\tZ\nrs1\tA\tG\t1\n", {}, "no sample size"),
    "only cases": ("SNP\tA1\tA2\tZ\nrs1\tA\tG\t1\n", {"n_cases": 5}, "belong together"),
    "empty": ("", {}, "is empty"),
    "header only": ("SNP\tA1\tA2\tN\tZ\n", {}, "no row"),
    "nothing usable": (
        "SNP\tA1\tA2\tN\tZ\nrs1\tA\tG\tNA\t1\nrs2\tA\tT\t5\t1\n", {},
        "none of its 2 rows can be used: 1 no sample size, 1 strand-ambiguous alleles",
    ),
    "text for a number": ("SNP\tA1\tA2\tN\tZ\nrs1\tA\tG\t5\tx\n", {}, "line 2: 'x'"),
    "column twice": ("SNP\tA1\tA1\tN\tZ\nrs1\tA\tG\t5\t1\n", {}, "stands twice"),
    "unknown role": ("SNP\tA1\tA2\tN\tZ\nrs1\tA\tG\t5\t1\n", {"columns": {"q": "A1"}}, "no role"),
    "absent column": (
        "SNP\tA1\tA2\tN\tZ\nrs1\tA\tG\t5\t1\n", {"columns": {"z": "Q"}}, "no column 'Q'",
    ),
    "log odds as odds": (
        "SNP\tA1\tA2\tN\tOR\tSE\nrs1\tA\tG\t5\t-0.2\t0.1\n", {}, "negative values",
    ),
    "no header": ("rs1\tA\tG\t5000\t0.4\nrs2\tA\tG\t5000\t0.1\n", {}, "has no header"),
    "two effect columns": (
        "SNP\tA1\tA2\tN\tBETA\tEFFECT\tSE\nrs1\tA\tG\t5\t1\t-1\t1\n", {},
        "'BETA' and 'EFFECT' could both be the beta",
    ),
    "effects that disagree": (
        "SNP\tA1\tA2\tN\tBETA\tOR\tSE\nrs1\tA\tG\t5\t1\t0.4\t1\n", {},
        r"'BETA' and 'OR' are two effects that disagree \(line 2\)",
    ),
    "N is 0": ("SNP\tA1\tA2\tN\tZ\nrs1\tA\tG\t0\t1\n", {}, "of its 1 rows .* 1 no sample size"),
    "p is 0": (
        "SNP\tA1\tA2\tN\tBETA\tP\nrs1\tA\tG\t9\t1\t.1\nrs2\tA\tG\t9\t1\t0\n", {},
        "line 3: p is given as 0",
    ),
    "p above 1": ("SNP\tA1\tA2\tN\tBETA\tP\nrs1\tA\tG\t9\t1\t3.5\n", {}, "line 2: a p outside"),
    "negative -log10 p": (
        "SNP\tA1\tA2\tN\tBETA\tLOG10P\nrs1\tA\tG\t9\t1\t-3\n", {}, "line 2: a negative -log10",
    ),
    "names of rows without a name": (
        "BETA SE N SNP A1 A2\n1 0.2 0.1 500 rs1 A G\n", {},
        "line 2 has 7 columns, the header 6; give each column its name",
    ),
    "quoted names of rows": (
        '"SNP" "A1" "A2" "N" "Z"\n"1" "rs1" "A" "G" 5 1\n', {}, "line 2 has 6 columns, the head",
    ),
    "a workbook": ("PK\x03\x04\x14\x00\x06\x00", {}, "is no text, but a binary file"),
    "infinite z": (
        "SNP\tA1\tA2\tN\tZ\nrs1\tA\tG\t9\t1\nrs2\tA\tG\t9\t-inf\n", {}, "line 3: z is infinite",
    ),
    "VCF of genotypes": (
        "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n1\t1\t.\tA\tC\t.\t.\t.\n",
        {}, "holds no GWAS results",
    ),
    "VCF of two traits": (
        "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tX\tY\n", {},
        "holds 2 traits",
    ),
    "VCF with text for a number": (
        "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tX\n"
        "1\t1\trs1\tA\tG\t.\t.\t.\tES:SE:SS\tq:1:9\n", {}, "line 3: 'q' for ES is not a number",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_named(tmp_path, case):
    text, options, message = BAD[case]
    with pytest.raises(InputError, match=message):
        read_sumstats(write(tmp_path, text), **options)


def test_a_gzip_file_cut_short_is_named(tmp_path):
    path = write(tmp_path, "SNP A1 A2 N Z\n" + "rs1 G A 5000 2.0\n" * 5000, "trait.gz")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"trait\.gz"):
        read_sumstats(path)


def test_a_named_effect_goes_before_another(tmp_path):
    text = "SNP\tA1\tA2\tN\tBETA\tOR\tSE\nrs1\tA\tG\t5\t1\t0.4\t1\n"
    path = write(tmp_path, text)
    assert read_sumstats(path, columns={"beta": "BETA"}).table.z[0] == pytest.approx(1)
    odds = read_sumstats(path, columns={"odds_ratio": "OR"}).table.z[0]
    assert odds == pytest.approx(np.log(0.4))


def test_a_score_of_saige_is_not_taken_for_z(tmp_path):
    text = (
        "CHR\tPOS\tMarkerID\tAllele1\tAllele2\tAF_Allele2\tBETA\tSE\tTstat\tp.value\tN_case\tN_ctrl\n"
        "1\t1\trs1\tA\tG\t0.3\t0.2\t0.1\t99\t0.05\t100\t300\n"
        "1\t2\trs2\tA\tG\t0.3\tNA\tNA\t99\t0.05\t100\t300\n"
    )
    found = read_sumstats(write(tmp_path, text))
    assert found.format == "SAIGE"
    assert found.table.rsid.tolist() == ["rs1"]
    assert found.dropped["no z statistic"] == 1
    assert found.table.n[0] == pytest.approx(300)


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("wanted", [None, lambda chunk: chunk["rsid"].str.endswith("3").to_numpy()])
def test_the_size_of_chunks_does_not_matter(tmp_path, rows, wanted):
    rng = np.random.default_rng(4)
    k = 60
    frame = pd.DataFrame(
        {
            "SNP": [f"rs{i}" for i in range(k)], "A1": rng.choice(list("ACGT"), k),
            "A2": rng.choice(list("ACGT"), k), "N": rng.integers(100, 900, k),
            "BETA": rng.normal(size=k), "SE": rng.choice([0.0, 1.0, 2.0], k),
        }
    )  # fmt: skip
    path = tmp_path / "trait.tsv"
    frame.to_csv(path, sep="\t", index=False)
    whole, pieces = (read_sumstats(path, wanted=wanted, rows=size) for size in (10**6, rows))
    pd.testing.assert_frame_equal(whole.table, pieces.table)
    assert whole.dropped == pieces.dropped
    assert sum(pieces.dropped.values()) + len(pieces.table) == pieces.n_read == k


def table(*rows: tuple) -> pd.DataFrame:
    columns = ("chromosome", "base_pair_location", "effect_allele", "other_allele", "rsid")
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(variant_id=frame.rsid)


def test_matching_handles_swaps_duplicates_and_strangers():
    reference = table(
        ("1", 10, "A", "G", "rs1"), ("1", 20, "A", "G", "rs2"), ("1", 20, "A", "C", "rs3"),
        ("2", 10, "A", "G", "rs4"), ("2", 30, "A", "G", "rs5"), ("X", 5, "AT", "A", "rs6"),
    )  # fmt: skip
    other = table(
        ("X", 5, "a", "at", "rs6"), ("1", 20, "C", "A", "rs3"), ("1", 10, "A", "G", "rs1"),
        ("2", 10, "A", "G", "rs4"), ("2", 10, "G", "A", "rs4b"), ("1", 20, "A", "T", "rs2"),
        (None, 30, "A", "G", "rs5"),
    )  # fmt: skip
    row, sign, repeated = match_variants(reference, other)
    assert row.tolist() == [2, -1, 1, -1, -1, 0]
    assert sign[[0, 2, 5]].tolist() == [1, -1, -1]
    assert repeated == 2
    row, sign, repeated = match_variants(reference, other, by="rsid")
    assert row.tolist() == [2, -1, 1, 3, 6, 0]
    assert repeated == 0


def test_nothing_matches_an_empty_table():
    row, sign, repeated = match_variants(table(("1", 10, "A", "G", "rs1")), table())
    assert (row.tolist(), sign.tolist(), repeated) == ([-1], [1.0], 0)


@pytest.mark.parametrize(
    ("name", "options", "shape", "effect"),
    [
        ("eduAttainOkbay.txt", {"n": 293723}, "table", "A1"),
        ("ieu-a-298.tsv.gz", {}, "IEU table", "A2"),
    ],
)
def test_published_tables(name, options, shape, effect):
    path = TEST_DATA / "sumstats" / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    found = read_sumstats(path, **options)
    assert found.format == shape
    assert found.n_read == len(found.table) + sum(found.dropped.values())
    assert len(found.table) > 50
    raw = pd.read_csv(path, sep="\t")
    first = raw[raw.iloc[:, 0] == found.table.rsid[0]].iloc[0]
    beta = first.get("Beta", first.get("BETA"))
    assert found.table.z[0] == pytest.approx(beta / first.SE)
    assert found.table.effect_allele[0] == first[effect]
    assert np.isfinite(found.table.z).all()


def test_a_published_gwas_vcf():
    path = TEST_DATA / "sumstats" / "ALSvcf.vcf.gz"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    found = read_sumstats(path)
    assert found.format == "GWAS-VCF"
    with gzip.open(path, "rt") as lines:
        first = next(line for line in lines if not line.startswith("#")).split("\t")
    effect, error = map(float, first[9].split(":")[:2])
    row = found.table.iloc[0]
    assert (row.rsid, row.other_allele, row.effect_allele) == tuple(first[2:5])
    assert row.z == pytest.approx(effect / error)
    # The head of the file has 20,806 cases and 59,804 controls.
    assert row.n == pytest.approx(4 / (1 / 20806 + 1 / 59804))
    assert found.n_read == len(found.table) + sum(found.dropped.values())
