"""The report's numbers as text, its summaries and its sections."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from rvga import report


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (None, "–"), (float("nan"), "–"), (pd.NA, "–"), (12.0, "12")],
)
def test_count(value, text):
    assert report.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-1.5, "−1.5"), (5e-8, "5\u00a0×\u00a010⁻⁸"), (-2e9, "−2\u00a0×\u00a010⁹"),
     (None, "–"), (math.inf, "–"), (0, "0")],
)  # fmt: skip
def test_decimal(value, text):
    assert report.decimal(value) == text


@pytest.mark.parametrize(
    ("neg_log_10_p", "text"),
    [(0.0, "1"), (1.3010299956639813, "0.05"), (7.301029995663981, "5.0\u00a0×\u00a010⁻⁸"),
     (500.0, "1.0\u00a0×\u00a010⁻⁵⁰⁰"), (7.00001, "1.0\u00a0×\u00a010⁻⁷"),
     (6.9999999, "1.0\u00a0×\u00a010⁻⁷"),
     (float("nan"), "–"), (None, "–")],
)  # fmt: skip
def test_p_value_however_small(neg_log_10_p, text):
    assert report.p_value(neg_log_10_p) == text


def test_summaries_are_grouped_and_hold_back_lists():
    summaries = report.Summaries(
        [
            {
                "stage": "b",
                "numbers": {
                    "n": 5,
                    "ids": ["s1"],
                    "x": {"y": 1},
                    "kinship": {"n_pairs": 7, "ids": ["s1"]},
                },
                "warnings": ["w"],
            },
            {"stage": "a", "numbers": {"n": 1, "p": 4, "f": 0.5}, "warnings": ["w", "v"]},
            {"stage": "a", "numbers": {"n": 2, "p": 4, "f": 1.5, "t": "x"}, "warnings": ["w"]},
        ]
    )
    assert summaries.warnings() == [("a", "w", 2), ("a", "v", 1), ("b", "w", 1)]
    assert summaries.scalars() == [
        ("a", "tasks", "2"), ("a", "f", "0.5 to 1.5"), ("a", "n", "1 to 2; together 3"),
        ("a", "p", "4"), ("a", "t", "x"), ("b", "kinship.n_pairs", "7"), ("b", "n", "5"),
    ]  # fmt: skip
    assert summaries.one("c") == {}
    assert not summaries.ran("c")


def text_of(section: report.Section) -> str:
    return report.render("t", "0", [section])


def test_text_is_escaped_in_every_kind_of_block():
    nasty = "<script>&\"'"
    blocks = [
        report.Text(nasty),
        report.Note(nasty),
        report.Table([nasty], [[nasty]], nasty),
        report.Facts([(nasty, nasty, nasty)]),
        report.Flow([(nasty, "1", "1", "0", nasty, 10.0)], nasty),
        report.Items([nasty]),
        report.Plot(report.Picture(b"x", "image/png", nasty), nasty),
        report.Row([report.Plot(report.Picture(b"x", "image/png", nasty), nasty)]),
    ]
    page = report.render(nasty, nasty, [report.Section("one", nasty, blocks)])
    assert nasty not in page
    assert page.count("<script>") == 1
    assert page.count("&lt;script&gt;") >= 17


def test_figures_and_tables_are_numbered_in_order():
    plot = report.Plot(report.Picture(b"x", "image/png", "a"), "caption")
    table = report.Table(["c"], [["1"]], "caption")
    blocks = [plot, table, report.Row([plot, plot]), table]
    page = text_of(report.Section("one", "One", blocks))
    places = [page.index(f"<b>{name}.</b>") for name in
              ("Figure 1", "Table 1", "Figure 2", "Figure 3", "Table 2")]  # fmt: skip
    assert places == sorted(places)


def test_counts_have_a_column_for_every_reason_and_a_total():
    counts = {
        "1": {"read": 10, "written": 7, "dropped": {"too_rare": 3}, "missing": {"collinear": 1}},
        "X": {"read": 5, "written": 3, "dropped": {"too_rare": 1, "no data": 1}, "missing": {}},
    }
    table = report.counts_table(counts)
    assert table.columns == [
        "chromosome", "read", "in the dataset", "dropped: no data", "dropped: too rare",
        "kept without estimate: collinear",
    ]  # fmt: skip
    assert table.rows == [
        ["1", "10", "7", "0", "3", "1"],
        ["X", "5", "3", "1", "1", "0"],
        ["all", "15", "10", "1", "4", "1"],
    ]


def test_a_long_table_of_loci_is_cut_and_says_so():
    columns = [
        "locus", "chromosome", "start", "end", "lead_variant_id", "base_pair_location",
        "effect_allele", "other_allele", "effect_allele_frequency", "lead_voxel", "x_mm", "y_mm",
        "z_mm", "beta", "standard_error", "z", "neg_log_10_p_value", "neg_log_10_p_image_wide",
        "n_significant_voxels", "n_significant_variants", "n_clumps", "novel",
        "known_associations",
    ]  # fmt: skip
    row = [1, "1", 1, 2, "v", 1, "A", "G", 0.2, 3, 1.0, 2.0, 3.0, 0.1, 0.01, 10.0, 20.0, 18.0, 5,
           2, 1, np.nan, np.nan]  # fmt: skip
    loci = pd.DataFrame([row] * 450, columns=columns).astype({"novel": object})
    section = report.loci_section(loci)
    page = text_of(section)
    assert "The first 200 of 450" in page
    assert "Novelty is not known" in page
    assert page.count("<tr><td") == 200


def test_pairs_become_a_symmetric_matrix():
    pairs = pd.DataFrame({"region_1": ["b", "c"], "region_2": ["a", "a"], "x": [0.5, -0.2]})
    labels, matrix = report.square_of(pairs, "x")
    assert labels == ["b", "c", "a"]
    np.testing.assert_array_equal(matrix, matrix.T)
    assert matrix[0, 2] == 0.5
    assert np.isnan(matrix[0, 1])


def test_methods_mention_only_what_was_run():
    values = {
        "version": "1", "n": 100, "n_voxels": 50, "components": 4, "share": None,
        "bandwidth": None, "bandwidth_chosen": False, "n_eff": 3.0, "m": 0, "p": 0, "nu": 0,
        "minor_allele_count": 0, "genome_build": "", "critical_z": None, "significance": None,
        "level": None, "n_loci": None, "n_novel": None, "clump_r2": None, "clump_kb": None,
        "heritability_method": None, "m_heritability": None, "n_panel_1": None,
        "n_panel_2": None, "ld_share": None, "traits": 0,
    }  # fmt: skip
    page = text_of(report.methods_section(values))
    assert "100 subjects" in page
    assert "https://doi.org/10.1038/s41467-026-69816-z" in page
    for absent in ("regressed", "significant", "Heritability", "smoothed by", "external"):
        assert absent not in page.split("<main>")[1].split("</main>")[0]
    page = text_of(report.methods_section({**values, "m": 900, "p": 3, "nu": 96, "bandwidth": 0.0}))
    assert "900 variants" in page
    assert "2 covariates and an intercept" in page
    assert "were not smoothed" in page


@pytest.mark.parametrize(
    ("method", "overlap", "said", "not_said"),
    [
        ("balanced", 2, "2 external traits was estimated by band regression with free", "same way"),
        ("balanced", 0, "in the same way, taking nobody to be in both samples.", "band regression"),
        ("balanced", 1, "both samples; for 1 of them, whose people may be in the study, by band",
         "samples.</p>"),
        ("published", 2, "estimated with cross-trait LD-score intercepts and jack", "regression w"),
        ("bands", 0, "estimated by band regression with fixed intercepts, over bands", "with free"),
    ],
)  # fmt: skip
def test_methods_say_how_correlations_were_found(method, overlap, said, not_said):
    values = {
        "version": "1", "n": 100, "n_voxels": 50, "components": 4, "share": None,
        "bandwidth": None, "bandwidth_chosen": False, "n_eff": 3.0, "m": 0, "p": 0, "nu": 0,
        "minor_allele_count": 0, "genome_build": "", "critical_z": None, "significance": None,
        "level": None, "n_loci": None, "n_novel": None, "clump_r2": None, "clump_kb": None,
        "heritability_method": method, "m_heritability": 900, "n_panel_1": 70, "n_panel_2": 80,
        "ld_share": 0.98, "traits": 2, "traits_overlap": overlap, "intercept": "fixed",
        "se_method": "closed_form",
    }  # fmt: skip
    page = " ".join(text_of(report.methods_section(values)).split())
    page = page.split("<main>")[1].split("</main>")[0]
    assert said in page
    assert not_said not in page


def test_counts_stand_in_the_order_of_the_genome():
    counts = {name: {"read": 1, "written": 1} for name in ("10", "2", "1", "X")}
    assert [row[0] for row in report.counts_table(counts).rows] == ["1", "2", "10", "X", "all"]


def test_notes_on_the_model_and_its_data():
    def stage(name, **numbers):
        return {"stage": name, "numbers": numbers, "warnings": []}

    assert report.model_notes(report.Summaries([])) == []
    silent = [
        stage("fit_null", covariates_redundant=[]),
        stage("component_gwas", haploid_heterozygotes={}, arithmetic=["whole"]),
        stage("component_gwas", haploid_heterozygotes={}, arithmetic=["whole"]),
        stage("minimal_dataset", n_repeated=0),
    ]
    assert report.model_notes(report.Summaries(silent)) == []
    notes = report.model_notes(
        report.Summaries(
            [
                stage(
                    "fit_null",
                    covariates_redundant=["age2"],
                    kinship={
                        "n_people": 34,
                        "n_pairs": 17,
                        "n_pairs_listed": 900,
                        "threshold": 0.0442,
                    },
                    n_chromosomes_with_offsets=22,
                    variance_left_by_offsets=[0.9, 0.75, None],
                ),
                stage("component_gwas", haploid_heterozygotes={"X": 3}, arithmetic=["single"]),
                stage(
                    "component_gwas", haploid_heterozygotes={"X": 4, "Y": 1}, arithmetic=["whole"]
                ),
                stage("convert_genotypes", n_multiallelic_split=12, n_multiallelic_dropped=0),
                stage("minimal_dataset", n_repeated=2),
                stage(
                    "import_sumstats",
                    n_files=40,
                    format="regenie",
                    significant_digits=6,
                    agreement={
                        "n_variants": 8000,
                        "least_component_ratio": 0.99871,
                        "largest_component_ratio": 1.00213,
                        "information_share": 0.98765,
                    },
                ),
            ]
        )
    )
    text = "\n".join(notes)
    for part in (
        "say the same: age2.",
        "34 people of the sample have one of the third degree or nearer in it: 17 of the 900 pairs",
        "Over 8,000 variants",
        "are 0.9987 (lowest component) to 1.0021 (highest) times",
        "A variant carries 0.988 times the information",
        "22 chromosomes are offsets of the components; they leave 0.75 to 0.9 of the variance",
        "taken as missing: 7 on X, 1 on Y.",
        "multiplied in whole numbers, others in single precision",
        "12 variants with several alleles were split.",
        "2 variants repeat another",
        "imported from 40 files (regenie, 6 significant digits)",
    ):
        assert part in text
    assert "left out." not in text


def test_size_of_the_dataset_against_statistics_of_every_voxel():
    section = report.dataset_section(
        {"m": 1000, "r": 10, "variant_bytes": 22_000, "fixed_bytes": 18_000, "lambda_gc": None}, 500
    )
    (table,) = section.blocks
    assert [row[1] for row in table.rows] == ["22,000", "18,000", "40,000", "4,000,000"]
    assert table.rows[-1][2].startswith("100 times")
    assert "2.2 bytes a variant and component" in table.caption
