"""The declared tables."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from rvga import tables
from rvga.errors import InputError


def chunks() -> pd.DataFrame:
    """Return a small table."""
    return pd.DataFrame(
        {
            "file": ["g1", "g1"],
            "chunk": [1, 2],
            "chromosome": ["01", "X"],
            "first_variant": [0, 500],
            "n_variants": [500, 20],
        }
    )


@pytest.mark.parametrize("name", ["x.tsv", "x.tsv.gz"])
def test_what_is_written_is_read(tmp_path, name):
    tables.write_table(chunks(), tmp_path / name, "chunks")
    found = tables.read_table(tmp_path / name, "chunks")
    pd.testing.assert_frame_equal(found, chunks(), check_dtype=False)
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_equal_tables_are_equal_byte_for_byte(tmp_path):
    for name in ("one.tsv.gz", "two.tsv.gz"):
        tables.write_table(chunks(), tmp_path / name, "chunks")
    assert (tmp_path / "one.tsv.gz").read_bytes() == (tmp_path / "two.tsv.gz").read_bytes()
    text = gzip.decompress((tmp_path / "one.tsv.gz").read_bytes()).decode()
    assert text.splitlines()[0] == "file\tchunk\tchromosome\tfirst_variant\tn_variants"


def test_missing_values_are_na_and_labels_stay_text(tmp_path):
    frame = pd.DataFrame(
        {
            "quantity": ["007", "x"],
            "value": ["0.50", "NA?"],
            "goal": [np.nan, "1"],
            "reached": ["yes", np.nan],
        }
    )
    tables.write_table(frame, tmp_path / "x.tsv", "truth_comparison")
    assert "007\t0.50\tNA\tyes" in (tmp_path / "x.tsv").read_text()
    found = tables.read_table(tmp_path / "x.tsv", "truth_comparison")
    assert found["quantity"].tolist() == ["007", "x"]
    assert found["value"].tolist() == ["0.50", "NA?"]
    assert found["goal"].isna().tolist() == [True, False]


@pytest.mark.parametrize("name", ["rs1", 'a"b', "a\tb", "a\nb", "a\rb", "", None, True])
def test_fast_lines_are_those_of_pandas(name):
    rng = np.random.default_rng(3)
    number = np.concatenate(
        [
            rng.normal(size=50) * 10.0 ** rng.integers(-300, 300, 50),
            [0.0, -0.0, np.nan, np.inf, 1e8],
        ]
    )
    rows = len(number)
    frame = pd.DataFrame(
        {
            "text": np.array([f"x{k}" for k in range(rows - 1)] + [name], dtype=object),
            "number": number,
            "single": number.astype("f4"),
            "whole": np.arange(rows) - 3,
            "some": pd.arrays.IntegerArray(np.arange(rows), np.arange(rows) % 7 == 0),
            "some_numbers": pd.array([1.5, pd.NA] + [2.0] * (rows - 2), dtype="Float64"),
        }
    )
    expected = frame.to_csv(
        sep="\t", na_rep="NA", index=False, header=False, float_format="%.8g", lineterminator="\n"
    )
    assert tables.lines_of(frame).decode() == expected
    assert tables.lines_of(frame.iloc[:0]) == b""


def test_only_ldrs_may_have_more_columns(tmp_path):
    wide = chunks().assign(extra=1)
    with pytest.raises(ValueError, match="'chunks' has columns"):
        tables.write_table(wide, tmp_path / "x.tsv", "chunks")
    with pytest.raises(ValueError, match="'chunks' has columns"):
        tables.write_table(chunks()[["chunk"]], tmp_path / "x.tsv", "chunks")
    assert list(tmp_path.iterdir()) == []
    ldrs = pd.DataFrame({"subject": ["1", "NA12878"], "LDR1": [0.1, 1e-9]})
    tables.write_table(ldrs, tmp_path / "x.tsv", "ldrs")
    found = tables.read_table(tmp_path / "x.tsv", "ldrs")
    assert found["subject"].tolist() == ["1", "NA12878"]


def test_files_that_are_another_table_are_refused(tmp_path):
    path = tmp_path / "x.tsv"
    with pytest.raises(InputError, match="no such file"):
        tables.read_table(path, "chunks")
    path.write_text("file\tchunk\tchromosome\ng\t1\t2\n")
    with pytest.raises(InputError, match="column 'first_variant' is missing"):
        tables.read_table(path, "chunks")
