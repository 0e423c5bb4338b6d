"""Rendering: from a program to what it draws, as labels, as an image, or as tuples for rules.

Rules see a structure through `drawn`, a black box over the loops that hold in a world:

```
@blackbox("byssus.structure:drawn", over=["loop"])
type drawn(row: usize, column: usize, cell: usize)

type loop(order: usize, top: usize, bottom: usize, down: usize,
          left: usize, right: usize, across: usize, cell: usize)
rel blocked() = drawn(r, c, 0) and door(r, c)
```

In ProbLog it takes a list of lists, which `findall/3` makes:

```prolog
:- use_module(library(byssus)).
:- use_module(library(lists)).
:- blackbox('drawn.py', drawn, [+loops, -cells]).    % drawn.py: from byssus.structure import drawn
drawn(R, C, K) :- findall(L, loop(L), Loops), drawn(Loops, Cells), member([R, C, K], Cells).
```
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jaxtyping as jt
import torch
from torch import Tensor

from byssus.errors import DomainError, ShapeError
from byssus.structure.loops import as_loop, painting
from byssus.structure.synthesis import assemble, cut

__all__ = ["drawn", "render"]


def render(
    program: Iterable[Sequence[int]],
    cells: Any = None,
    *,
    rows: int,
    columns: int,
    onto: Any = None,
) -> Tensor:
    """What a program draws, as labels or as an image.

    Args:
        program: its loops; later ones draw over earlier ones.
        cells: the sub-images, (kinds, ..., h, w), as in `Synthesis.cells`.
        rows: of the grid.
        columns: of the grid.
        onto: with `cells`, the image that is drawn onto, (..., rows * h, columns * w); zeros
            without it.

    Returns:
        Without `cells` the number of the sub-image in each place, (rows, columns), -1 where nothing
        is drawn. With them the image, (..., rows * h, columns * w), in their type.

    Raises:
        DomainError: a loop is none, draws outside of the grid, or a sub-image that there is not.
        ShapeError: the sub-images are none, or do not fit the image that is drawn onto.
    """
    labels = _labels(program, rows, columns)
    if cells is None:
        return labels
    images = torch.as_tensor(cells)
    if images.ndim < 3:
        raise ShapeError(
            f"cells of shape {tuple(images.shape)}: give sub-images (kinds, ..., height, width)"
        )
    if (last := int(labels.max())) >= len(images):
        raise DomainError(
            f"the program draws the sub-image {last}, and cells has {len(images)}, counted from 0: "
            "give all of them"
        )
    if onto is None:
        grid = images.new_zeros(rows, columns, *images.shape[1:])
    else:
        grid = cut(onto, rows, columns).to(images)
        if grid.shape[2:] != images.shape[1:]:
            raise ShapeError(
                f"an image with cells of shape {tuple(grid.shape[2:])} for sub-images of shape "
                f"{tuple(images.shape[1:])}: give an image of {rows} by {columns} such cells"
            )
        grid = grid.clone()  # cells may be views of the image
    where = labels >= 0
    grid[where] = images[labels[where]]
    return assemble(grid)


def _labels(
    program: Iterable[Sequence[int]], rows: int, columns: int
) -> jt.Int[Tensor, "rows columns"]:
    if rows < 1 or columns < 1:
        raise ShapeError(f"a grid of {rows} rows and {columns} columns: give one of each at least")
    labels = torch.full((rows, columns), -1)
    for loop in map(as_loop, program):
        if not loop.rows or not loop.columns:
            continue
        if loop.rows[-1] >= rows or loop.columns[-1] >= columns:
            raise DomainError(
                f"{loop} draws at row {loop.rows[-1]}, column {loop.columns[-1]}, outside of the "
                f"grid of {rows} rows and {columns} columns: lower its bounds"
            )
        labels[loop.top : loop.bottom : loop.down, loop.left : loop.right : loop.across] = loop.cell
    return labels


def drawn(loops: Iterable[Sequence[int]]) -> list[tuple[int, int, int]]:
    """What loops draw, as rules take it: (row, column, cell), row by row, each place once.

    Args:
        loops: each of seven integers as in `Loop`; later ones draw over earlier ones. In rules
            they are a set, so they may have an eighth before these, by which they are ordered.

    Raises:
        DomainError: one is no loop.
    """
    given = [tuple(loop) for loop in loops]
    if given and all(len(loop) == 8 for loop in given):
        given = [loop[1:] for loop in sorted(given)]
    return [(row, column, cell) for (row, column), cell in sorted(painting(given).items())]
