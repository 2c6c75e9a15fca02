"""GWAS-SSF tables by the standard: columns, codes, missing values, metadata."""

from __future__ import annotations

import gzip
import hashlib

import numpy as np
import pandas as pd
import pytest

from rvga.errors import InputError
from rvga.gwas_ssf import metadata_of, write_gwas_ssf

MANDATORY = [
    "chromosome", "base_pair_location", "effect_allele", "other_allele", "beta",
    "standard_error", "effect_allele_frequency",
]  # fmt: skip
METADATA = {
    "date_metadata_last_modified": "2026-01-02",
    "genome_assembly": "GRCh38",
    "trait_description": ["a: voxel #1"],
    "samples": [{"sample_size": 320, "sample_ancestry_category": "NR"}],
}


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "chromosome": ["1", "22", "X", "Y", "MT"],
            "base_pair_location": [5, 10, 15, 20, 25],
            "variant_id": ["rs5", "10:1:A:G", "rs7x", "rs12", "."],
            "effect_allele": ["A", "G", "T", "AC", "A"],
            "other_allele": ["G", "A", "C", "A", "G"],
            "effect_allele_frequency": [0.1, 0.5, 0.97, 0.2, 0.3],
            "beta": [0.1, -0.2, 0.3, np.nan, 1e-9],
            "standard_error": [0.01, 0.1, 0.1, np.nan, 1.0],
            "z": [10.0, -2.0, 3.0, np.nan, 0.0],
            "neg_log_10_p_value": [22.5, 1.3, 2.6, np.nan, 0.0],
        }
    )


def test_columns_codes_and_missing_values(frame, tmp_path):
    path = tmp_path / "a.tsv"
    assert write_gwas_ssf(frame, path, METADATA) == 1
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert lines[0] == [*MANDATORY, "p_value", "rsid"]
    assert [line[0] for line in lines[1:]] == ["1", "22", "23", "25"]
    assert [line[8] for line in lines[1:]] == ["rs5", "#NA", "#NA", "#NA"]
    np.testing.assert_allclose(
        [float(line[7]) for line in lines[1:]], 10 ** -np.array([22.5, 1.3, 2.6, 0]), rtol=1e-7
    )


def test_underflowing_p_turns_the_whole_file_to_logarithms(frame, tmp_path):
    frame.loc[1, "neg_log_10_p_value"] = 412.25
    path = tmp_path / "a.tsv"
    write_gwas_ssf(frame, path, METADATA)
    table = pd.read_csv(path, sep="\t")
    assert list(table.columns[:8]) == [*MANDATORY, "neg_log_10_p_value"]
    np.testing.assert_allclose(table["neg_log_10_p_value"], [22.5, 412.25, 2.6, 0])


def test_number_of_people_is_kept(frame, tmp_path):
    write_gwas_ssf(frame.assign(n=320), tmp_path / "a.tsv", METADATA)
    assert pd.read_csv(tmp_path / "a.tsv", sep="\t")["n"].tolist() == [320] * 4


def test_metadata_file(frame, tmp_path):
    path = tmp_path / "a.tsv.gz"
    write_gwas_ssf(frame, path, METADATA)
    text = (tmp_path / "a.tsv.gz-meta.yaml").read_text()
    assert text.splitlines() == [
        'coordinate_system: "1-based"',
        f'data_file_md5sum: "{hashlib.md5(path.read_bytes()).hexdigest()}"',
        'data_file_name: "a.tsv.gz"',
        "date_metadata_last_modified: 2026-01-02",
        'file_type: "GWAS-SSF v1.0"',
        'genome_assembly: "GRCh38"',
        "is_harmonised: false",
        "is_sorted: true",
        "minor_allele_freq_lower_limit: 0.03",
        "samples:",
        '  - sample_ancestry_category: "NR"',
        "    sample_size: 320",
        "trait_description:",
        '  - "a: voxel #1"',
    ]


def test_equal_tables_are_equal_bytes(frame, tmp_path):
    contents = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_gwas_ssf(frame, tmp_path / folder / "a.tsv.gz", METADATA)
        contents.append((tmp_path / folder / "a.tsv.gz").read_bytes())
    assert contents[0] == contents[1]
    assert gzip.decompress(contents[0]).startswith(b"chromosome\t")


def test_unsorted_rows_are_said_to_be(frame, tmp_path):
    write_gwas_ssf(frame.iloc[::-1], tmp_path / "a.tsv", METADATA)
    assert "is_sorted: false" in (tmp_path / "a.tsv-meta.yaml").read_text()


def test_table_without_a_row_keeps_its_header(frame, tmp_path):
    write_gwas_ssf(frame.iloc[:0], tmp_path / "a.tsv", METADATA)
    assert (tmp_path / "a.tsv").read_text().split("\t")[0] == "chromosome"


@pytest.mark.parametrize("key", ["date_metadata_last_modified", "genome_assembly"])
def test_metadata_that_the_standard_requires(frame, tmp_path, key):
    incomplete = {name: value for name, value in METADATA.items() if name != key}
    with pytest.raises(InputError, match=f"need '{key}'"):
        write_gwas_ssf(frame, tmp_path / "a.tsv", incomplete)
    assert not list(tmp_path.iterdir())


def test_other_name_is_refused(frame, tmp_path):
    with pytest.raises(InputError, match=r"a\.csv: .*must be named"):
        write_gwas_ssf(frame, tmp_path / "a.csv", METADATA)


def test_metadata_of_a_dataset():
    entries = metadata_of(
        {"n": 10, "genome_build": ""}, trait_description="t", date="2026-01-02", sex="M"
    )
    assert entries["genome_assembly"] == "NR"
    assert entries["samples"][0]["sample_size"] == 10
    assert entries["sex"] == "M"
