"""Synthesis: from a grid of cells to the program of for-loops that draws most of it.

What a program costs: 1 for each observed cell that it does not draw as it is, 4 where it draws
another there, and 1.5 a loop. So two cells in line that are alike are a loop, and a cell is drawn
wrongly only where this saves more than two loops; less, where wrong cells cost less. The search:

1. Of each class of cells it takes the maximal loops that draw no wrong cell, and those that a
   greedy search finds where wrong cells have their price.
2. The cheapest cover of the class by such loops is found by branch and bound.
3. Loops may be drawn over: each class is tried once more below all others, with the cells that
   these draw right as free ones.

The problem is that of Young, Bastani and Naik, "Learning Neurosymbolic Generative Models via
Program Synthesis" (ICML 2019).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import jaxtyping as jt
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byssus._graph import strong_components
from byssus.errors import DomainError, ShapeError
from byssus.structure.loops import Loop, looped

__all__ = ["Similarity", "Synthesis", "assemble", "cut", "synthesize"]

Similarity: TypeAlias = Callable[[Tensor, Tensor], Any]
"""From two batches of cells, (pairs, ...) each, whether the cells of each pair are alike."""

_LOOP = 1.5
_STEPS = 20_000
"""So many loops are looked at in a class by a search without a limit of time."""

_DEEPEST = 400.0
"""What a branch may cost: each level of the recursion costs 1 at least."""

MOST = 40
"""Cells in a row or column, which have 2,723 arithmetic progressions."""

_SLACK = 1e-6
_GAP = 1.5
"""By what ratio the differences within classes and between them are apart at least."""

Labels: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
Counts: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Synthesis:
    """The program that was found for a grid.

    Attributes:
        program: its loops, in the order in which they draw; the empty tuple where nothing repeats.
        labels: the class of each cell, (rows, columns), -1 where it is not observed. Those of
            images are numbered from the most frequent one on.
        cells: for images, the mean of each class, (classes, ...); None for a grid of labels.
        covered: which cells the program draws as they are, (rows, columns); only observed ones.
        cost: 1 for each observed cell that is not covered, `wrong` where another is drawn, and 1.5
            a loop. Cells of the background cost only where they are drawn over.
        optimal: whether it is proved that no program costs less of those whose loops draw no cell
            wrongly, be it drawn over or not.
    """

    program: tuple[Loop, ...]
    labels: jt.Int[Tensor, "rows columns"]
    cells: Tensor | None
    covered: jt.Bool[Tensor, "rows columns"]
    cost: float
    optimal: bool

    def extended(self) -> tuple[Loop, ...]:
        """The program, its loops run on through cells that are not observed.

        Each goes on up and down and then to both sides, by its own steps, until it would draw over
        an observed cell of another class, or leave the grid. A loop over one row has no step down,
        and one over one column none across, and does not go on that way.
        """
        labels = self.labels.numpy()
        found = []
        for loop in self.program:
            free = (labels == loop.cell) | (labels < 0)
            rows = _run_on(loop.rows, free[:, loop.columns].all(1))
            columns = _run_on(loop.columns, free[rows].all(0))
            found.append(looped(rows, columns, loop.cell))
        return tuple(found)


def _run_on(places: range, free: Mask) -> range:
    """A progression, gone on with in both directions as long as places are free."""
    if len(places) < 2:
        return places
    step, first, last = places.step, places[0], places[-1]
    while first >= step and free[first - step]:
        first -= step
    while last + step < len(free) and free[last + step]:
        last += step
    return range(first, last + 1, step)


def cut(image: Any, rows: int, columns: int) -> Tensor:
    """An image as a grid of cells.

    Args:
        image: (..., height, width), a tensor or an array.
        rows: how many rows of cells.
        columns: how many columns of cells.

    Returns:
        The cells, (rows, columns, ..., height / rows, width / columns).

    Raises:
        ShapeError: fewer than two dimensions, no rows or columns, or they do not divide the image.
    """
    pixels = torch.as_tensor(image)
    size = tuple(pixels.shape[-2:])
    if len(size) < 2 or min(rows, columns) < 1 or size[0] % rows or size[1] % columns:
        raise ShapeError(
            f"an image of shape {tuple(pixels.shape)} does not divide into {rows} rows and "
            f"{columns} columns of cells: crop or resize it to multiples of them"
        )
    height, width = size[0] // rows, size[1] // columns
    parts = pixels.reshape(*pixels.shape[:-2], rows, height, columns, width)
    return parts.movedim((-4, -2), (0, 1)).contiguous()


def assemble(cells: Any) -> Tensor:
    """The image of a grid of cells: the inverse of `cut`.

    Args:
        cells: (rows, columns, ..., h, w).

    Returns:
        The image, (..., rows * h, columns * w).

    Raises:
        ShapeError: fewer than four dimensions.
    """
    parts = torch.as_tensor(cells)
    if parts.ndim < 4:
        raise ShapeError(
            f"cells of shape {tuple(parts.shape)}: give (rows, columns, ..., height, width)"
        )
    rows, columns, *channels, height, width = parts.shape
    return parts.movedim((0, 1), (-4, -2)).reshape(*channels, rows * height, columns * width)


def synthesize(
    grid: Any,
    *,
    similarity: float | Similarity | None = None,
    observed: Any = None,
    background: int | None = None,
    wrong: float = 4.0,
    loops: int = 20,
    seconds: float | None = None,
) -> Synthesis:
    """The program of fewest for-loops that draws most cells of a grid, correctly.

    Cells that are not observed count neither for nor against a loop. Where nothing repeats, or
    nothing is observed, the program is the empty one.

    Args:
        grid: labels, integers (rows, columns), of which negative ones are not observed; or cells,
            (rows, columns, ...), as `cut` makes them, which are grouped into classes.
        similarity: of cells that are no labels: up to which root mean square difference two are
            alike; or a function that says so of pairs. Classes are what pairs link, directly or
            through others. Without it the difference is taken from the data: where, of those that
            link each cell to the next, the gap is widest, by ratio. Below a tenth of the standard
            deviation of all pixels differences count as none.
        observed: which cells are seen, (rows, columns); all of them without it. What the others
            hold does not matter; it may be NaN.
        background: a class that is not drawn, and need not be; of images, 0 is the most frequent.
            Give it where irregular cells are scattered over a wall, which no few loops cover.
        wrong: what a cell costs that is drawn as another, 1 or more. With 1.5, irregular cells
            seldom break a loop in parts: most programs are what they would be without them.
        loops: how many there may be, 0 or more; those that cover most are kept.
        seconds: search until the result is proved optimal, or for so long. Without it the search
            takes a bounded number of steps, and gives the same each time.

    Raises:
        ShapeError: a grid that is not rectangular, has no cells, or more than 40 in a row or
            column, or does not fit `observed`.
        DomainError: labels that are no integers, observed cells that are not finite, or another
            argument that is out of its range.

    Example:
        >>> found = synthesize([[0, 1, 0, 1], [2, 1, 3, 1]])
        >>> found.program
        (Loop(top=0, bottom=2, down=1, left=1, right=4, across=2, cell=1),
         Loop(top=0, bottom=1, down=1, left=0, right=3, across=2, cell=0))
    """
    values, seen = _read(grid, observed)
    if not isinstance(loops, int) or isinstance(loops, bool) or loops < 0:
        raise DomainError(f"loops={loops!r}: give an integer, 0 or more")
    if isinstance(wrong, bool) or not isinstance(wrong, int | float) or not 1 <= wrong < math.inf:
        raise DomainError(f"wrong={wrong!r}: give what a wrong cell costs, 1 or more")
    if seconds is not None and not 0 <= seconds < math.inf:
        raise DomainError(f"seconds={seconds!r}: give a number of seconds, 0 or more")
    cells = None
    if values.ndim == 2:
        if similarity is not None:
            raise DomainError(
                f"similarity={similarity!r} for a grid of labels, which are alike if they are the "
                "same: leave it out, or give cells (rows, columns, ...)"
            )
        labels = np.where(seen, values.numpy().astype(np.int64), -1)
    else:
        labels, cells = _classes(values, seen, similarity)
    if background is not None and not (isinstance(background, int) and background >= 0):
        raise DomainError(f"background={background!r}: give a class, an integer of 0 or more")
    deadline = None if seconds is None else time.monotonic() + seconds
    search = _Search(labels, background, wrong, deadline)
    program, optimal = search.run(loops)
    drawn = paint(program, labels.shape)
    return Synthesis(
        program,
        torch.from_numpy(labels),
        cells,
        torch.from_numpy((drawn == labels) & (drawn >= 0)),
        search.cost(program),
        optimal,
    )


def paint(program: Iterable[Loop], shape: tuple[int, ...]) -> Labels:
    """What a program draws, (rows, columns); -1 where it draws nothing."""
    drawn = np.full(shape, -1)
    for loop in program:
        drawn[loop.top : loop.bottom : loop.down, loop.left : loop.right : loop.across] = loop.cell
    return drawn


# Grids


def _read(grid: Any, observed: Any) -> tuple[Tensor, Mask]:
    """The grid as a tensor, and which of its cells are observed."""
    try:
        values = grid.detach().cpu() if isinstance(grid, Tensor) else torch.from_numpy(_array(grid))
    except (TypeError, ValueError) as error:
        raise ShapeError(
            f"the grid is not rectangular, or does not hold numbers: {error}; give a tensor or an "
            "array, (rows, columns) or (rows, columns, ...)"
        ) from None
    if values.ndim < 2 or not values.numel():
        raise ShapeError(
            f"a grid of shape {tuple(values.shape)}: give labels (rows, columns), or cells "
            "(rows, columns, ...), one at least"
        )
    if max(values.shape[:2]) > MOST:
        raise ShapeError(
            f"a grid of {values.shape[0]} by {values.shape[1]} cells: give at most {MOST} in a "
            "row or column, such as larger cells"
        )
    seen = np.ones(values.shape[:2], bool)
    if observed is not None:
        seen = np.asarray(observed.cpu() if isinstance(observed, Tensor) else observed)
        if seen.shape != values.shape[:2] or seen.dtype != bool:
            raise ShapeError(
                f"observed is {seen.dtype} of shape {seen.shape}: give a bool for each of the "
                f"{values.shape[0]} by {values.shape[1]} cells"
            )
    if values.ndim > 2:
        finite = values.isfinite().flatten(2).all(2).numpy()
        if (wrong := np.argwhere(seen & ~finite)).size:
            row, column = wrong[0].tolist()
            raise DomainError(
                f"the cell at row {row}, column {column} is not finite: mend it, or say that it is "
                "not observed, observed[row, column] = False"
            )
        return values, seen
    if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
        raise DomainError(
            f"a grid of labels of {values.dtype}: give integers, or cells (rows, columns, ...)"
        )
    return values, seen & (values.numpy() >= 0)


def _array(grid: Any) -> NDArray[Any]:
    array = np.asarray(grid)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"it is of type {array.dtype}")
    return np.ascontiguousarray(array)


def _classes(
    values: Tensor, seen: Mask, similarity: float | Similarity | None
) -> tuple[Labels, Tensor]:
    """The class of each cell, most frequent first, and the mean of each class."""
    values = values if values.dtype == torch.float64 else values.float()
    cells = values[torch.from_numpy(seen)]
    if callable(similarity):
        links = _linked_by(cells, similarity)
    else:
        if similarity is not None and not 0 <= similarity < math.inf:
            raise DomainError(
                f"similarity={similarity!r}: give a root mean square difference, 0 or more, or a "
                "function of two batches of cells"
            )
        links = _linked(cells.flatten(1), similarity)
    group = _components(len(cells), links)
    _, first, index, counts = np.unique(
        group, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(counts), np.int64)
    rank[np.lexsort((first, -counts))] = np.arange(len(counts))
    labels = np.full(seen.shape, -1)
    labels[seen] = rank[index]
    which = torch.from_numpy(labels[seen])
    means = cells.new_zeros(len(counts), *cells.shape[1:]).index_add_(0, which, cells)
    number = cells.new_zeros(len(counts)).index_add_(0, which, cells.new_ones(len(cells)))
    return labels, means / number.reshape(-1, *[1] * (cells.ndim - 1))


def _linked_by(cells: Tensor, similarity: Similarity) -> list[tuple[int, int]]:
    """The pairs of cells that a function says are alike."""
    links = []
    for i in range(len(cells) - 1):
        others = cells[i + 1 :]
        alike = torch.as_tensor(similarity(cells[i : i + 1].expand_as(others), others))
        if alike.shape != (len(others),) or alike.dtype != torch.bool:
            raise ShapeError(
                f"similarity gave {alike.dtype} of shape {tuple(alike.shape)} for {len(others)} "
                "pairs of cells: return a bool for each pair"
            )
        links += [(i, i + 1 + j) for j in alike.nonzero().flatten().tolist()]
    return links


def _linked(
    cells: jt.Float[Tensor, "cells values"], threshold: float | None
) -> list[tuple[int, int]]:
    """The links of a minimum spanning tree (Prim's) that are at most the threshold long."""
    count = len(cells)
    if count < 2:
        return []
    away = cells.new_zeros(count, count)
    one, other = torch.triu_indices(count, count, 1)
    away[one, other] = away[other, one] = torch.pdist(cells) / math.sqrt(cells.shape[1])
    inside = torch.zeros(count, dtype=torch.bool)
    nearest, parent = away[0].clone(), torch.zeros(count, dtype=torch.int64)
    last, links, lengths = 0, [], []
    for _ in range(count - 1):
        inside[last] = True
        closer = away[last] < nearest
        nearest[closer], parent[closer] = away[last][closer], last
        last = int(nearest.masked_fill(inside, math.inf).argmin())
        links.append((int(parent[last]), last))
        lengths.append(float(nearest[last]))
    longest = _gap(sorted(lengths), float(cells.std())) if threshold is None else threshold
    return [link for link, length in zip(links, lengths, strict=True) if length <= longest]


def _gap(lengths: list[float], contrast: float) -> float:
    """Up to which length links are within a class: below the widest gap, by ratio."""
    if not contrast:
        return 0.0
    # Smaller ones count as none: cells that are all equal would make any other gap look narrow.
    floor = contrast / 10
    ratios = [max(b, floor) / max(a, floor) for a, b in pairwise(lengths)]
    if ratios and max(ratios) >= _GAP:
        return lengths[ratios.index(max(ratios))]
    return math.inf if lengths[-1] <= contrast / 2 else -1.0


def _components(count: int, links: Iterable[tuple[int, int]]) -> Labels:
    """The number of the component of each item, of those that links connect."""
    linked: list[list[int]] = [[] for _ in range(count)]
    for one, other in links:
        linked[one].append(other)
        linked[other].append(one)
    found = np.empty(count, np.int64)
    for number, items in enumerate(strong_components(linked.__getitem__, range(count))):
        found[items] = number
    return found


# The search


@dataclass(frozen=True)
class _Progressions:
    """All arithmetic progressions within the places 0 to `length` - 1.

    Attributes:
        ranges: the progressions.
        taken: 1 where a place is of a progression, (progressions, length).
        within: 1 where another is strictly within one, (progressions, others).
    """

    ranges: list[range]
    taken: jt.Float[Tensor, "progressions length"]
    within: jt.Float[Tensor, "progressions others"]


@cache
def _progressions(length: int) -> _Progressions:
    ranges = [range(i, i + 1) for i in range(length)]
    ranges += [
        range(start, last + 1, step)
        for start in range(length)
        for step in range(1, length - start)
        for last in range(start + step, length, step)
    ]
    taken = torch.zeros(len(ranges), length)
    for row, places in enumerate(ranges):
        taken[row, list(places)] = 1
    sizes = taken.sum(1)
    within = (taken @ taken.T == sizes) & (sizes[:, None] > sizes)
    return _Progressions(ranges, taken, within.float())


class _Candidate(NamedTuple):
    """A loop: the cells of its class that it draws, as the bits of an integer, and its price."""

    cells: int
    price: float


class _Search:
    """The search for a program on a grid of labels, of which those below 0 are not observed."""

    def __init__(
        self, labels: Labels, background: int | None, wrong: float, deadline: float | None
    ) -> None:
        self.labels, self.deadline = labels, deadline
        self.more = wrong - 1  # than a cell that is not drawn
        self.observed = labels >= 0
        self.drawable = self.observed & (labels != (-1 if background is None else background))
        self.rows, self.columns = map(_progressions, labels.shape)
        kinds, counts = np.unique(labels[self.drawable], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        self.kinds = [int(kinds[i]) for i in order if counts[i] > 1]

    def run(self, most: int) -> tuple[tuple[Loop, ...], bool]:
        """The program, of at most so many loops, and whether it is proved optimal."""
        found = [self.cover(kind, np.zeros_like(self.observed)) for kind in self.kinds]
        layers = {kind: loops for kind, (loops, _) in zip(self.kinds, found, strict=True)}
        covered = np.isin(self.labels, self.kinds) & self.drawable
        bound = sum(cost for _, cost in found) + float((self.drawable & ~covered).sum())
        # Loops with wrong cells come first, where others may mend them.
        wrong = {loop: self.wrong(loop) for loops in layers.values() for loop in loops}
        program = sorted(wrong, key=lambda loop: -wrong[loop])
        cost = self.cost(program)
        for kind, loops in layers.items():
            rest = [loop for loop in program if loop not in loops]
            if not rest or not loops:
                continue
            free = self.observed & (paint(rest, self.labels.shape) == self.labels)
            below = self.cover(kind, free)[0] + rest
            if (less := self.cost(below)) < cost - 1e-6:
                program, cost = below, less
        kept = self.pruned(program, most)
        # Where wrong cells are cheap, a program may cost more than its covers promised.
        return tuple(kept), self.cost(kept) <= bound + _SLACK

    def cost(self, program: Iterable[Loop]) -> float:
        """What a program costs, see `Synthesis`."""
        program = list(program)
        drawn = paint(program, self.labels.shape)
        right = drawn == self.labels
        wrong = self.observed & (drawn >= 0) & ~right
        left = wrong | (self.drawable & ~right)
        return float(left.sum() + self.more * wrong.sum() + _LOOP * len(program))

    def wrong(self, loop: Loop) -> int:
        """How many cells a loop draws wrongly."""
        labels = self.labels[loop.rows][:, loop.columns]
        return int(((labels != loop.cell) & (labels >= 0)).sum())

    def pruned(self, program: list[Loop], most: int) -> list[Loop]:
        """The program without the loops that are missed least: useless ones, or too many."""
        cost = self.cost(program)
        while program:
            without = [program[:i] + program[i + 1 :] for i in range(len(program))]
            costs = list(map(self.cost, without))
            least = min(costs)
            if least > cost and len(program) <= most:
                break
            program, cost = without[costs.index(least)], least
        return program

    def cover(self, kind: int, free: Mask) -> tuple[list[Loop], float]:
        """The cheapest cover of a class by loops that draw only its cells, or free ones.

        Returns:
            The loops; some may draw wrong cells, where this is cheaper. And what a cover by loops
            that do not is proved to cost at least.
        """
        targets = self.drawable & (self.labels == kind)
        wrong = self.count(self.observed & (self.labels != kind) & ~free)
        width = self.labels.shape[1]
        bits = sum(1 << i for i in np.flatnonzero(targets).tolist())
        candidates: dict[int, float] = {}
        for down, across in [*self.maximal(targets, wrong), *self.tolerant(targets, wrong)]:
            line = sum(1 << column for column in self.columns.ranges[across])
            cells = line * sum(1 << width * row for row in self.rows.ranges[down]) & bits
            price = _LOOP + self.more * float(wrong[down, across])
            if price < candidates.get(cells, math.inf):
                candidates[cells] = price
        cover = _Cover([_Candidate(*item) for item in candidates.items()], self.deadline)
        proved = cover.search(bits)
        loops = []
        for chosen in cover.best:
            places = [i for i in range(self.labels.size) if chosen.cells >> i & 1]
            rows, columns = {i // width for i in places}, {i % width for i in places}
            loops.append(looped(_hull(rows), _hull(columns), kind))
        return loops, cover.cost if proved else -math.inf

    def count(self, cells: Mask) -> Counts:
        """How many of some cells each loop draws, (rows' progressions, columns' progressions)."""
        # Torch, whose threads users limit: NumPy's wait for one another on a busy machine.
        counted = self.rows.taken @ torch.from_numpy(cells).float() @ self.columns.taken.T
        return np.asarray(counted)

    def maximal(self, targets: Mask, wrong: Counts) -> Iterator[tuple[int, int]]:
        """Of the loops that draw no cell wrongly, and two right, those within no other."""
        clean = (self.count(targets) >= 2) & (wrong == 0)
        rows, columns = np.flatnonzero(clean.any(1)), np.flatnonzero(clean.any(0))
        counts = torch.from_numpy(clean[np.ix_(rows, columns)]).float()
        taller = self.rows.within[np.ix_(rows, rows)].T @ counts
        wider = counts @ self.columns.within[np.ix_(columns, columns)]
        for row, column in ((counts > 0) & (taller == 0) & (wider == 0)).nonzero().tolist():
            yield int(rows[row]), int(columns[column])

    def tolerant(self, targets: Mask, wrong: Counts) -> Iterator[tuple[int, int]]:
        """The loops that a greedy search takes, where wrong cells have their price."""
        left = targets.copy()
        while left.any():
            gains = self.count(left) - self.more * wrong
            best = int(gains.argmax())
            if gains.flat[best] <= _LOOP:
                break
            down, across = divmod(best, gains.shape[1])
            yield down, across
            left[np.ix_(self.rows.ranges[down], self.columns.ranges[across])] = False


def _hull(places: Iterable[int]) -> range:
    """The shortest arithmetic progression that holds some places."""
    ordered = sorted(places)
    step = math.gcd(*(place - ordered[0] for place in ordered[1:])) or 1
    return range(ordered[0], ordered[-1] + 1, step)


class _Cover:
    """Branch and bound for the cheapest cover: the loops' prices, and 1 for each cell left over.

    Attributes:
        best: the candidates of the cheapest cover that was found.
        cost: what it costs.
    """

    def __init__(self, candidates: list[_Candidate], deadline: float | None) -> None:
        self.candidates, self.deadline = candidates, deadline
        self.steps = _STEPS
        self.best: list[_Candidate] = []
        self.cost = math.inf

    def search(self, cells: int) -> bool:
        """Cover cells; whether the result is proved to be the cheapest."""
        self._greedy(cells)
        return self._branch(cells, 0.0, [], self.candidates)

    def _greedy(self, left: int) -> None:
        chosen: list[_Candidate] = []
        while self.candidates:
            gain, best = max(
                ((c.cells & left).bit_count() - c.price, i) for i, c in enumerate(self.candidates)
            )
            if gain <= 0:
                break
            chosen.append(self.candidates[best])
            left &= ~self.candidates[best].cells
        self.best = chosen
        self.cost = sum(c.price for c in chosen) + left.bit_count()

    def _branch(
        self, left: int, cost: float, chosen: list[_Candidate], candidates: Sequence[_Candidate]
    ) -> bool:
        if cost > _DEEPEST or self._spent(len(candidates)):
            return False
        if cost + left.bit_count() < self.cost - _SLACK:
            self.best, self.cost = chosen, cost + left.bit_count()
        useful: dict[int, _Candidate] = {}
        for candidate in candidates:
            new = candidate.cells & left
            if new.bit_count() > candidate.price and (
                new not in useful or candidate.price < useful[new].price
            ):
                useful[new] = candidate
        ranked = sorted(useful.items(), key=lambda item: item[1].price / item[0].bit_count())
        # A cell costs at least its share of the cheapest loop that draws it, or 1.
        bound, rest = cost, left
        for new, candidate in ranked:
            if both := new & rest:
                bound += both.bit_count() * candidate.price / new.bit_count()
                rest &= ~both
        if not ranked or bound + rest.bit_count() >= self.cost - _SLACK:
            return True
        once = twice = thrice = 0
        for new in useful:
            thrice |= twice & new
            twice |= once & new
            once |= new
        few = once & ~twice or twice & ~thrice or thrice
        cell = few & -few
        proved = True
        remaining = [candidate for _, candidate in ranked]
        for new, candidate in ranked:
            if new & cell:
                remaining.remove(candidate)
                proved &= self._branch(
                    left & ~new, cost + candidate.price, [*chosen, candidate], remaining
                )
        return self._branch(left & ~cell, cost + 1, chosen, remaining) and proved

    def _spent(self, steps: int) -> bool:
        if self.deadline is not None:
            return time.monotonic() > self.deadline
        self.steps -= steps
        return self.steps < 0
