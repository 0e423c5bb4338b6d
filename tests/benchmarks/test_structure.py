"""Programs of loops over 15 by 15 cells, on one thread: synthesis in under 50 ms, completion."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from byssus.structure import StructureDiffusion, render, synthesize
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


def test_completion(benchmark: BenchmarkFixture, rounds: int) -> None:
    """Of pictures of which a third is hidden, by one program each; what they show takes no time."""
    rng = np.random.default_rng(0)
    tiles = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.stack(
        [render(random_program(rng, 3, 4)[0], tiles, rows=15, columns=15) for _ in range(GRIDS)]
    )
    observed = torch.ones(GRIDS, 15, 15, dtype=torch.bool)
    observed[:, 10:] = False
    model = StructureDiffusion(15, 15)
    model.fit(images, epochs=1, batch_size=100, progress=False)
    benchmark.pedantic(model.complete, (images, observed), rounds=rounds, warmup_rounds=1)
    assert benchmark.stats.stats.median < 3 * BAR * GRIDS
