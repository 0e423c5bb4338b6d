"""Random programs of loops, and an oracle that draws them in plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from byssus.structure import Loop

Labels = NDArray[np.int64]


def drawing(program: Iterable[Sequence[int]]) -> dict[tuple[int, int], int]:
    """(row, column) to cell, by nested for-loops."""
    found = {}
    for top, bottom, down, left, right, across, cell in program:
        for row in range(top, bottom, down):
            for column in range(left, right, across):
                found[row, column] = cell
    return found


def loops(side: int = 5, kinds: int = 3) -> st.SearchStrategy[Loop]:
    """Any loops, some of which draw nothing, and some beyond the side."""
    start, step = st.integers(0, side - 1), st.integers(1, side)
    return st.builds(Loop, start, step, step, start, step, step, st.integers(0, kinds - 1))


def random_program(
    rng: np.random.Generator, loops: int, kinds: int, side: int = 15, cells: int = 2
) -> tuple[list[Loop], Labels]:
    """Loops that may touch and interleave but do not overlap; and what they draw, -1 elsewhere."""
    grid = np.full((side, side), -1)
    program: list[Loop] = []
    while len(program) < loops:
        down, across = rng.integers(1, 5, 2).tolist()
        rows, columns = rng.integers(1, 6, 2).tolist()
        height, width = (rows - 1) * down + 1, (columns - 1) * across + 1
        if rows * columns < cells or height > side or width > side:
            continue
        top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
        places = slice(top, top + height, down), slice(left, left + width, across)
        if (grid[places] < 0).all():
            kind = int(rng.integers(kinds))
            grid[places] = kind
            program.append(Loop(top, top + height, down, left, left + width, across, kind))
    return program, grid


def irregular(grid: Labels, rng: np.random.Generator, noise: float = 0.0) -> Labels:
    """A grid whose empty cells, and some others at random, are like no other cell."""
    labels = grid.copy()
    odd = (grid < 0) | (rng.random(grid.shape) < noise)
    labels[odd] = 100 + np.arange(odd.sum())
    return labels
