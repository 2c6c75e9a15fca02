"""Fixtures that all tests share."""

from __future__ import annotations

import pytest

import helpers


@pytest.fixture
def run_stage():
    """Return the function that runs an entrypoint as its own process."""
    return helpers.run_stage
