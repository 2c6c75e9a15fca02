"""FIT_NULL: least squares on covariates, whatever their units, and bad input."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from helpers import files_in, represented_study, run_stage, selected_study
from rvga import formats


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    files, _, subjects, ldrs = represented_study(tmp_path_factory.mktemp("study"), 4, ldrs=True)
    return files, subjects, ldrs


def fit(study, out, covariates=None, *options):
    """Run FIT_NULL."""
    return run_stage(
        "fit_null",
        *("--ldrs", study[2], "--subjects", study[1]),
        *("--covariates", covariates or study[0].covariates),
        *("--categorical-columns", "site", *options, "--out", out),
    )


def columns(study):
    """Return the design (n, p) with the intercept, made by hand."""
    rows = [line.split("\t") for line in study[0].covariates.read_text().splitlines()[1:]]
    return np.array(
        [
            [1, float(age), float(sex), site == "b", site == "c"]
            for _, age, sex, site in sorted(rows)
        ]
    )


def test_residuals_equal_least_squares(study, tmp_path):
    done = fit(study, tmp_path / "n.h5", None, "--summary", tmp_path / "n.json")
    assert done.returncode == 0, done.stderr
    with formats.open_file(study[2], "ldrs") as represented:
        S = represented["ldrs"][...]
    C = columns(study)
    residual = S - C @ np.linalg.lstsq(C, S, rcond=None)[0]
    with formats.open_file(tmp_path / "n.h5", "null") as found:
        Q = found["Q"][...]
        np.testing.assert_allclose(Q.T @ Q, np.eye(5), atol=1e-14)
        np.testing.assert_allclose(found["residual_ldrs"][0], residual, atol=1e-9)
        np.testing.assert_allclose(found["A"][0], residual.T @ residual, rtol=1e-9, atol=1e-7)
        np.testing.assert_array_equal(found["Sigma"][...], found["A"][0] / 24)
        assert found["A_chromosome"][...].tolist() == [0]
        assert found.array("subject").tolist() == sorted(study[0].subjects)
        used = json.loads(found.attributes["covariates"])
        assert used == ["age", "sex", "site=b", "site=c"]
        with formats.open_file(study[1], "subjects") as selected:
            assert found.attributes["sample_hash"] == selected.attributes["sample_hash"]
            found.require_made_from("subjects", selected)
    numbers = json.loads((tmp_path / "n.json").read_text())["numbers"]
    assert numbers == {
        "n": 24, "p": 5, "r": 4, "covariates_used": used, "covariates_redundant": [],
    }  # fmt: skip


def rewritten(study, path, change):
    """Write the covariates changed, a dict of columns a subject."""
    lines = study[0].covariates.read_text().splitlines()
    header = lines[0].split("\t")
    rows = [change(dict(zip(header, line.split("\t"), strict=True))) for line in lines[1:]]
    content = ["\t".join(rows[0])] + ["\t".join(map(str, row.values())) for row in rows]
    path.write_text("\n".join(content) + "\n")
    return path


def test_units_do_not_matter(study, tmp_path):
    other = rewritten(
        study,
        tmp_path / "c.tsv",
        lambda row: row | {"age": repr(float(row["age"]) * 3.156e7), "sex": int(row["sex"]) + 1},
    )
    assert fit(study, tmp_path / "one.h5").returncode == 0
    assert fit(study, tmp_path / "two.h5", other).returncode == 0
    with (
        formats.open_file(tmp_path / "one.h5", "null") as one,
        formats.open_file(tmp_path / "two.h5", "null") as two,
    ):
        for name in ("Q", "residual_ldrs", "A"):
            np.testing.assert_allclose(two[name][...], one[name][...], rtol=1e-10, atol=1e-10)


def test_a_redundant_covariate_is_named_not_fatal(study, tmp_path):
    other = rewritten(
        study,
        tmp_path / "c.tsv",
        lambda row: row | {"age_months": repr(float(row["age"]) * 12)},
    )
    done = fit(study, tmp_path / "n.h5", other, "--summary", tmp_path / "n.json")
    assert done.returncode == 0, done.stderr
    assert "WARNING: c.tsv: covariates 'age_months' follow from the others" in done.stderr
    assert fit(study, tmp_path / "plain.h5").returncode == 0
    with (
        formats.open_file(tmp_path / "n.h5", "null") as one,
        formats.open_file(tmp_path / "plain.h5", "null") as two,
    ):
        np.testing.assert_allclose(one["A"][...], two["A"][...])
    numbers = json.loads((tmp_path / "n.json").read_text())["numbers"]
    assert numbers["covariates_redundant"] == ["age_months"]


@pytest.mark.parametrize("words", [("1", "2"), ("1.0", "2.0"), ("M", "F"), ("male", "Female")])
def test_sexes_are_written_in_the_order_of_the_subjects(study, tmp_path, words):
    lines = study[0].covariates.read_text().splitlines()[1:]
    names = [line.split("\t")[0] for line in lines]
    sex_of = {name: 1 + row % 2 for row, name in enumerate(names)} | {names[3]: 0}
    texts = ("NA", *words)
    table = rewritten(
        study, tmp_path / "c.tsv", lambda row: row | {"is": texts[sex_of[row["subject"]]]}
    )
    options = ("--sex-column", "is", "--covariate-columns", "age")
    done = fit(study, tmp_path / "n.h5", table, *options)
    assert done.returncode == 0, done.stderr
    with formats.open_file(tmp_path / "n.h5", "null") as found:
        expected = [sex_of[name] for name in found.array("subject")]
        assert found["sex"][...].tolist() == expected
        assert found.parameters["sex_column"] == "is"
        # Taken as they are, not as a covariate, whose missing value would leave a person out.
        assert json.loads(found.attributes["covariates"]) == ["age", "site=b", "site=c"]


def test_a_word_that_is_no_sex_is_refused(study, tmp_path):
    table = rewritten(study, tmp_path / "c.tsv", lambda row: row | {"is": row["sex"]})
    options = ("--sex-column", "is", "--covariate-columns", "age")
    done = fit(study, tmp_path / "n.h5", table, *options)
    assert done.returncode == 2
    assert "has '0' in sex_column 'is'; write 1 or M (male), 2 or F (female), or NA" in done.stderr
    done = fit(study, tmp_path / "n.h5", None, "--sex-column", "gender")
    assert done.returncode == 2
    assert "column 'gender' is missing" in done.stderr
    assert not (tmp_path / "n.h5").exists()


def test_chosen_columns_only(study, tmp_path):
    done = fit(study, tmp_path / "n.h5", None, "--covariate-columns", "sex")
    assert done.returncode == 0, done.stderr
    with formats.open_file(tmp_path / "n.h5", "null") as found:
        assert json.loads(found.attributes["covariates"]) == ["sex", "site=b", "site=c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row | {"c": 5}, "covariate 'c' is constant in the sample of 24 subjects"),
        (lambda row: row | {"sex": "mf"[int(row["sex"])]}, "line 2, column 'sex': "),
        (lambda row: row | {"site": "a"}, "covariate 'site' is constant"),
        (lambda row: row | {"subject": "s001"}, "subject 's001' is there twice"),
        (lambda row: row | {"subject": "x" + row["subject"]}, "of the sample is not in the table"),
        (
            lambda row: row | {f"c{k}": math.sin(float(row["age"]) * (k + 1)) for k in range(20)},
            "24 subjects are too few for 24 covariates",
        ),
    ],
)
def test_bad_covariates_are_one_message_and_leave_nothing(study, tmp_path, change, message):
    other = rewritten(study, tmp_path / "c.tsv", change)
    done = fit(study, tmp_path / "n.h5", other, "--summary", tmp_path / "n.json")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("ERROR") == 1
    assert "Traceback" not in done.stderr
    assert files_in(tmp_path) == {"c.tsv"}


def test_files_of_different_runs_are_refused(study, tmp_path):
    _, _, subjects = selected_study(tmp_path / "other", n=20)
    done = run_stage(
        "fit_null",
        *("--ldrs", study[2], "--subjects", subjects),
        *("--covariates", study[0].covariates, "--out", tmp_path / "n.h5"),
    )
    assert done.returncode == 2
    assert "ldrs.h5 was not made from subjects.h5" in done.stderr
    assert not (tmp_path / "n.h5").exists()
