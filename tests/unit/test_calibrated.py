"""What is said of settings beyond the calibration, and of which not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rvga import calibrated

METHOD = Path(__file__).parents[2] / "docs" / "method.md"


@pytest.mark.parametrize(
    ("people", "share", "said"),
    [
        (1000, 0.98, []),
        (5000, 0.95, []),
        (999, 0.98, ["has 999 people, and heritability was calibrated with 1,000 or more"]),
        (999, 0.95, ["has 999 people, and heritability was calibrated with 1,000 or more"]),
        (1000, 0.99, ["ld_share is 0.99, and 0.98 is the largest that was calibrated"]),
        (1000, 0.9, ["ld_share is 0.9: below 0.95 heritability leans more on where effects lie"]),
        (300, 0.6, ["calibrated with 1,000 or more", "ld_share is 0.6: below 0.95"]),
    ],
)
def test_panels_and_shares(people, share, said):
    found = calibrated.beyond_panels(people, share)
    assert len(found) == len(said)
    assert all(words in text for words, text in zip(said, found, strict=True))


def test_the_price_of_a_small_share_is_that_of_the_tables():
    """Mean bias of h² of .4 by share .6 over all panels, effects in low-LD variants."""
    text = METHOD.read_text()
    tables = text.split("Panels and shares: h² by 5d")[1].split("The same by 5b.")
    said = calibrated.beyond_panels(5000, 0.6)[0]
    for table, words in zip(tables, ("it came out {} % too low", "by moments {} %"), strict=True):
        rows = [line.split("|") for line in table.splitlines() if "| wide low_ld |" in line]
        assert len(rows) == 4
        biases = [float(row[3].split(",")[0].replace("−", "-")) for row in rows]
        assert words.format(round(-100 * np.mean(biases) / 0.4)) in said


def test_excess_is_the_median_of_what_can_be_compared():
    jackknife, closed_form = np.array([3.0, 1.0, np.nan, 2.0, 1.0]), np.array([1.0, 1, 1, 1, 0])
    assert calibrated.jackknife_excess(jackknife, closed_form) == 2.0
    assert np.isnan(calibrated.jackknife_excess(np.array([np.nan]), np.ones(1)))


@pytest.mark.parametrize(
    ("excess", "groups", "number"),
    [(1.51, 50, 1), (1.5, 200, 0), (2.4, 49, 0), (float("nan"), 200, 0), (1.1, 200, 0)],
)
def test_few_causal_variants(excess, groups, number):
    found = calibrated.few_causal(excess, groups)
    assert len(found) == number
    assert all(f"are {excess:.1f} times those of the closed form" in text for text in found)


@pytest.mark.parametrize(
    ("h2", "error", "number"), [(0.2, 0.05, 1), (0.25, 0.05, 0), (-0.1, 0.05, 1), (0.2, np.nan, 0)]
)
def test_a_trait_of_few_standard_errors(h2, error, number):
    found = calibrated.weak_trait("height", h2, error)
    assert len(found) == number
    assert all("the heritability of height is" in text for text in found)


def test_the_docs_have_the_bounds():
    text = METHOD.read_text().split("Outside of these bounds")[1]
    for words in ("1,000 people", "500", "`ld_share` above .98", "below .95", "1.5 times"):
        assert words in text
