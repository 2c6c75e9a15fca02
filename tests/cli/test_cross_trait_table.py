"""CROSS_TRAIT_TABLE: one table of traits and regions, one false-discovery rate."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import files_in, run_stage
from rvga.tables import TABLES, read_table, write_table


def table(folder, trait: str, seed: int, regions=("7", "12", "3")):
    """Write the table of one trait, one of its regions without an estimate."""
    log_p = np.random.default_rng(seed).exponential(1, len(regions))
    log_p[1] = np.nan
    frame = pd.DataFrame({name: [np.nan] * len(regions) for name in TABLES["cross_trait_regions"]})
    frame = frame.assign(
        trait=trait, region=list(regions), neg_log_10_p_value=log_p,
        genetic_correlation_raw=0.1 * seed, se_method="jackknife", reason="correlation beyond 1",
    )  # fmt: skip
    path = folder / f"{trait}.regions.tsv"
    write_table(frame, path, "cross_trait_regions")
    return path


def test_traits_are_joined_by_name_and_the_rate_is_over_all(tmp_path):
    paths = [table(tmp_path, name, seed) for seed, name in enumerate(("b", "10", "a"), start=1)]
    out = tmp_path / "out"
    done = run_stage(
        "cross_trait_table", "--tables", paths, "--out", out / "t.tsv", "--summary", out / "t.json"
    )
    assert done.returncode == 0, done.stderr
    found = read_table(out / "t.tsv", "cross_trait_regions")
    assert found.trait.tolist() == ["10"] * 3 + ["a"] * 3 + ["b"] * 3
    assert found.region.tolist() == ["7", "12", "3"] * 3
    tested = found.neg_log_10_p_value.notna()
    expected = stats.false_discovery_control(10 ** -found.neg_log_10_p_value[tested])
    np.testing.assert_allclose(found.false_discovery_rate[tested], expected, rtol=1e-6)
    numbers = json.loads((out / "t.json").read_text())["numbers"]
    assert (numbers["n_traits"], numbers["n_regions"], numbers["n_pairs"]) == (3, 3, 9)
    other = run_stage("cross_trait_table", "--tables", paths[::-1], "--out", out / "u.tsv")
    assert other.returncode == 0, other.stderr
    assert (out / "t.tsv").read_bytes() == (out / "u.tsv").read_bytes()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("twice", "trait 'a' is in another table too"),
        ("regions", "has other regions than 'a'"),
        ("two traits", "holds 2 traits where one is due"),
        ("missing", "no such file"),
    ],
)
def test_bad_input(tmp_path, case, message):
    given, out = tmp_path / "in", tmp_path / "out"
    given.mkdir()
    out.mkdir()
    first = table(given, "a", 1)
    if case == "twice":
        second = given / "copy.tsv"
        second.write_bytes(first.read_bytes())
    elif case == "regions":
        second = table(given, "b", 2, ("7", "12", "4"))
    elif case == "two traits":
        second = table(given, "b", 2)
        frame = read_table(second, "cross_trait_regions")
        frame.loc[0, "trait"] = "c"
        write_table(frame, second, "cross_trait_regions")
    else:
        second = given / "nothing.tsv"
    done = run_stage("cross_trait_table", "--tables", first, second, "--out", out / "t.tsv")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not files_in(out)
