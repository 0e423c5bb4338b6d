"""Synthesis of programs of loops, on one thread: 15 by 15 cells in under 50 ms."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from byssus.structure import synthesize
from structure.programs import irregular, random_program

GRIDS = 20
BAR = 0.05  # seconds


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_synthesis(benchmark: BenchmarkFixture, rounds: int, noise: float) -> None:
    rng = np.random.default_rng(0)
    grids = []
    for _ in range(GRIDS):
        _, grid = random_program(rng, rng.integers(2, 7), rng.integers(1, 6))
        grids.append(irregular(grid, rng, noise))
    following = cycle(grids)
    benchmark.pedantic(
        synthesize, setup=lambda: ((next(following),), {}), rounds=4 * rounds, warmup_rounds=2
    )
    assert benchmark.stats.stats.median < BAR
