"""Each benchmark has a short version, for every run of the tests, and a full one, `-m slow`."""

from __future__ import annotations

import pytest


@pytest.fixture(
    params=[pytest.param(5, id="short"), pytest.param(20, id="full", marks=pytest.mark.slow)]
)
def rounds(request: pytest.FixtureRequest) -> int:
    return request.param
