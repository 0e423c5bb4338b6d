"""Structure as programs: lists of 2D for-loops, each of which repeats a sub-image over a grid.

After Young, Bastani and Naik, "Learning Neurosymbolic Generative Models via Program Synthesis"
(ICML 2019). A program draws its loops in order, later ones over earlier ones.

```python
windows = Loop(top=1, bottom=12, down=3, left=2, right=14, across=4, cell=0)  # 4 x 3 of them
door = Loop(13, 14, 1, 7, 8, 1, cell=1)
domain = Structure(rows=15, columns=15, cells=2, loops=6)  # programs as a structural mapping
domain.encode((windows, door))  # seven columns a loop, -1 where the program has ended
```
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from byssus.domains import Integer, List, Tuple
from byssus.errors import DomainError

__all__ = ["ForLoop2D", "Loop", "Structure", "canonical", "equivalent", "places"]


class Loop(NamedTuple):
    """`for row in range(top, bottom, down): for column in range(left, right, across): draw(cell)`.

    It draws nothing where a bound is not beyond its start.

    Attributes:
        top: the first row.
        bottom: beyond the last row.
        down: the step from row to row, 1 or more.
        left: the first column.
        right: beyond the last column.
        across: the step from column to column, 1 or more.
        cell: which sub-image is drawn.
    """

    top: int
    bottom: int
    down: int
    left: int
    right: int
    across: int
    cell: int = 0

    @property
    def rows(self) -> range:
        """The rows in which it draws."""
        return range(self.top, self.bottom, self.down)

    @property
    def columns(self) -> range:
        """The columns in which it draws."""
        return range(self.left, self.right, self.across)

    def __str__(self) -> str:
        return (
            f"for row in range({self.top}, {self.bottom}, {self.down}): for column in "
            f"range({self.left}, {self.right}, {self.across}): draw({self.cell})"
        )


_FIELDS = ", ".join(Loop._fields)


def as_loop(value: Sequence[int]) -> Loop:
    """Seven integers as a `Loop`.

    Raises:
        DomainError: they are not seven, no integers, negative, or a step is 0.
    """
    try:
        loop = Loop._make(int(number) for number in value if number == int(number))
    except (TypeError, ValueError, OverflowError):
        loop = None
    if loop is None or min(loop) < 0 or not loop.down or not loop.across:
        raise DomainError(
            f"{value!r} is no loop: give seven integers ({_FIELDS}), none negative, steps of 1 or "
            "more"
        )
    return loop


def places(loop: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where a loop draws: (row, column), row by row.

    Raises:
        DomainError: it is no loop.
    """
    made = as_loop(loop)
    return product(made.rows, made.columns)


def painting(program: Iterable[Sequence[int]]) -> dict[tuple[int, int], int]:
    """Which sub-image is drawn where: (row, column) to cell."""
    return {place: int(loop[6]) for loop in program for place in places(loop)}


def canonical(program: Iterable[Sequence[int]]) -> tuple[Loop, ...]:
    """The same program with each loop in the one form that all loops have which draw the same.

    Bounds follow the last row and column that are drawn, a step that is never taken is 1, and loops
    that draw nothing are left out. The order stays, as later loops draw over earlier ones.

    Raises:
        DomainError: one is no loop.
    """
    found = []
    for loop in map(as_loop, program):
        rows, columns = loop.rows, loop.columns
        if rows and columns:
            found.append(looped(rows, columns, loop.cell))
    return tuple(found)


def looped(rows: Sequence[int], columns: Sequence[int], cell: int) -> Loop:
    """The canonical loop over rows and columns in even steps."""
    bounds = [
        (along[0], along[-1] + 1, along[1] - along[0] if len(along) > 1 else 1)
        for along in (rows, columns)
    ]
    return Loop(*bounds[0], *bounds[1], cell)


def equivalent(one: Iterable[Sequence[int]], other: Iterable[Sequence[int]]) -> bool:
    """Whether two programs draw the same.

    Raises:
        DomainError: one holds what is no loop.
    """
    return painting(one) == painting(other)


class ForLoop2D(Tuple):
    """The loops over a grid of cells, each of which draws one of some sub-images.

    A value is a `Loop`, or a tuple of its seven numbers, and has a column for each. None leaves the
    grid: starts, bounds and steps are within it.

    Args:
        rows: of the grid, 1 or more.
        columns: of the grid, 1 or more.
        cells: how many sub-images there are, 1 or more.

    Raises:
        DomainError: one of them is no integer of 1 or more.
    """

    rows: int
    columns: int
    cells: int

    def __init__(self, rows: int, columns: int, cells: int) -> None:
        for name, value in (("rows", rows), ("columns", columns), ("cells", cells)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise DomainError(f"ForLoop2D: {name}={value!r}: give an integer, 1 or more")
        axes = [
            domain
            for length in (rows, columns)
            for domain in (Integer(0, length - 1), Integer(1, length), Integer(1, length))
        ]
        super().__init__(*axes, Integer(0, cells - 1))
        self.__dict__.update(_args=(rows, columns, cells), rows=rows, columns=columns, cells=cells)

    def check_output(self, value: Any) -> Loop:
        """The value as a `Loop`.

        Raises:
            DomainError: it is none, or leaves the grid.
        """
        try:
            return Loop(*super().check_output(value))
        except DomainError as error:
            raise DomainError(
                f"{value!r} is no loop ({_FIELDS}) over a grid of {self.rows} by {self.columns} "
                f"with {self.cells} sub-images: {error}"
            ) from None

    def _iterate(self) -> Iterator[Loop]:
        return (Loop(*value) for value in super()._iterate())

    def _decode(self, columns: tuple[int, ...]) -> Loop:
        return Loop(*super()._decode(columns))


def Structure(rows: int, columns: int, cells: int, loops: int) -> List:  # noqa: N802
    """Programs of at most so many loops: `List(ForLoop2D(rows, columns, cells), loops)`.

    Raises:
        DomainError: one of them is no integer of 1 or more.
    """
    return List(ForLoop2D(rows, columns, cells), loops)
