"""Reading a table of covariates."""

from __future__ import annotations

import numpy as np
import pytest

from rvga.covariates import read_covariates, read_sexes
from rvga.errors import InputError


def write(tmp_path, text, name="covariates.tsv"):
    """Write a table and return its path."""
    path = tmp_path / name
    path.write_text(text)
    return path


TABLE = (
    "subject\tage\tsite\tsex\nb\t50.5\ty\t1\na\t40\tx\t0\nc\tNA\tz\t1\nd\t60\t\t0\ne\t7\tx\tnan\n"
)


@pytest.mark.parametrize("mark", ["\t", ",", ";", " "])
def test_delimiters(tmp_path, mark):
    text = "subject\tage\tsex\nb\t50.5\t1\na\t40\t0\n".replace("\t", mark)
    table = read_covariates(write(tmp_path, text))
    assert table.subject == ["b", "a"]
    assert table.columns == ["age", "sex"]
    np.testing.assert_array_equal(table.design(["a", "b"])[0], [[40, 0], [50.5, 1]])


def test_missing_values_make_a_subject_incomplete(tmp_path):
    table = read_covariates(write(tmp_path, TABLE), categorical=["site"])
    assert table.complete == ["b", "a"]
    table = read_covariates(write(tmp_path, TABLE), ["age"])
    assert table.complete == ["b", "a", "d", "e"]


def test_categories_become_indicators_of_all_levels_but_the_first(tmp_path):
    text = "subject,site\na,y\nb,x\nc,z\nd,x\n"
    table = read_covariates(write(tmp_path, text), categorical=["site"])
    matrix, names = table.design(list("abcd"))
    assert names == ["site=y", "site=z"]
    np.testing.assert_array_equal(matrix, [[1, 0], [0, 0], [0, 1], [0, 0]])
    # Levels are those of the sample, not of the table.
    matrix, names = table.design(["a", "c"])
    assert names == ["site=z"]
    with pytest.raises(InputError, match="'site' is constant in the sample of 2"):
        table.design(["b", "d"])


def test_columns_are_used_in_the_order_named(tmp_path):
    table = read_covariates(write(tmp_path, TABLE), ["sex", "age"], ["site"])
    assert table.columns == ["sex", "age", "site"]


@pytest.mark.parametrize(
    ("subject_id", "expected"), [("IID", ["a", "b"]), ("FID_IID", ["f_a", "g_b"])]
)
def test_family_and_individual_ids(tmp_path, subject_id, expected):
    text = "#FID\tIID\tage\nf\ta\t1\ng\tb\t2\n"
    table = read_covariates(write(tmp_path, text), subject_id=subject_id)
    assert table.subject == expected
    assert table.columns == ["age"]


def test_only_ids_means_no_covariates(tmp_path):
    table = read_covariates(write(tmp_path, "subject\na\nb\n"))
    assert table.design(["b", "a"])[0].shape == (2, 0)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "is empty"),
        ("subject\tage\n", {}, "no subjects"),
        ("id\tage\na\t1\n", {}, "column 'subject' is missing"),
        ("IID\tage\na\t1\n", {"subject_id": "FID_IID"}, "column 'FID' is missing"),
        ("subject\tage\tage\na\t1\t2\n", {}, "'age' is there twice"),
        ("subject\tage\na\t1\n", {"columns": ["sex"]}, "'sex' is missing; the columns are"),
        ("subject\tage\na\t1\n", {"categorical": ["sex"]}, "'sex' is missing"),
        ("subject\tage\na\t1\n", {"columns": ["subject"]}, "holds ids"),
        ("subject\tage\na\t1\nb\n", {}, "line 3 has 1 fields, but the header has 2"),
        ("subject\tage\n\t1\n", {}, "line 2 has no subject id"),
        ("subject\tage\na\t1\nb\t2\na\t3\n", {}, r"'a' is there twice \(lines 2 and 4\)"),
        ("subject\tage\na\t1\nb\told\n", {}, "line 3, column 'age': 'old' is not a number"),
        ("subject\tage\na\tinf\n", {}, "line 2, column 'age': 'inf' is not a number"),
    ],
)
def test_bad_tables(tmp_path, text, options, message):
    with pytest.raises(InputError, match=message):
        read_covariates(write(tmp_path, text), **options)


def test_sexes_of_others_are_not_looked_at(tmp_path):
    path = write(tmp_path, "subject\tsex\na\t1.0\nb\t0\nc\t2.0\nd\tNA\n")
    assert read_sexes(path, "sex", ["d", "c", "a", "e"]).tolist() == [0, 2, 1, 0]
    with pytest.raises(InputError, match="subject 'b' has '0' in sex_column 'sex'"):
        read_sexes(path, "sex", ["a", "b"])


def test_a_sample_beyond_the_table_is_refused(tmp_path):
    table = read_covariates(write(tmp_path, TABLE), categorical=["site"])
    with pytest.raises(InputError, match="subject 'q' of the sample is not in the table"):
        table.design(["a", "q"])
    with pytest.raises(InputError, match="subject 'c' of the sample has a missing value"):
        table.design(["a", "b", "c"])
