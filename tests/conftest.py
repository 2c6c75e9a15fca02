"""Fixtures that all tests share."""

from __future__ import annotations

import pytest

import helpers


@pytest.fixture
def run_stage():
    """Return the function that runs an entrypoint."""
    return helpers.run_stage


# What takes longest starts first, so that the processors end together.
LONGEST_FIRST = (
    *("nextflow-chain", "nextflow-study", "nextflow-real-genotypes", "nextflow-stub"),
    *("nextflow-kinds", "nextflow-parameters", "slurm", "container", "local"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together that name no group, and put the longest groups first."""
    places = {}
    for number, item in enumerate(items):
        mark = item.get_closest_marker("xdist_group")
        if mark is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
        group = mark.args[0] if mark else ""
        rank = LONGEST_FIRST.index(group) if group in LONGEST_FIRST else len(LONGEST_FIRST)
        places[item] = (rank, number)
    items.sort(key=places.get)
