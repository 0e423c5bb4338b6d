"""Types of expressions: sets of value types, narrowed until each expression has one.

Every expression has a cell. What is known of it (a declaration, a literal, an operator) narrows
the set of types that it may have; cells that must agree are unified. Where several types remain,
it is the default one (integers `i32`, floats `f32`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cache

from byssus import ProgramError

from ._syntax import Span
from ._types import FAMILIES, TYPES, default

__all__ = ["ANY", "Cell", "Inference", "conflict", "describe", "mask", "names", "place"]

_ORDER = sorted(TYPES)
_BIT = {name: 1 << i for i, name in enumerate(_ORDER)}


def _union(types: Sequence[str] | frozenset[str]) -> int:
    return sum(_BIT[name] for name in types)


_FAMILY = {name: _union(types) for name, types in FAMILIES.items()}
ANY = _FAMILY["Any"]
"""Every type."""

_NAMES = {
    ANY: "any",
    _FAMILY["Number"]: "numeric",
    _FAMILY["Integer"]: "integer",
    _FAMILY["SignedInteger"]: "signed integer",
    _FAMILY["UnsignedInteger"]: "unsigned integer",
    _FAMILY["Float"]: "float",
    _FAMILY["SignedInteger"] | _FAMILY["Float"]: "signed number",
}


def mask(name: str) -> int:
    """The set of types that a type or a family stands for, one bit a type."""
    return _BIT[name] if name in _BIT else _FAMILY[name]


@cache
def names(types: int) -> frozenset[str]:
    """The types of a set."""
    return frozenset(name for name, bit in _BIT.items() if types & bit)


@cache
def describe(types: int) -> str:
    """What a set of types is called in messages."""
    if types in _NAMES:
        return _NAMES[types]
    members = sorted(names(types), key=lambda name: (name != default(names(types)), name))
    return " or ".join(members) if len(members) < 4 else f"{', '.join(members[:3])}, ..."


def place(span: Span) -> str:
    """A place as errors show it, to be put into a message about another place."""
    return str(span.error("")).removeprefix("\n")


def conflict(first: str, where: Span, second: str, there: Span) -> ProgramError:
    """An error that shows two places."""
    return there.error(f"{first}\n{place(where)}\n{second}")


class Cell:
    """What is known of the type of an expression.

    Attributes:
        types: the types that it may have, one bit each.
        span: where that is known from.
    """

    __slots__ = ("parent", "span", "types", "users")

    def __init__(self, types: int, span: Span) -> None:
        self.types = types
        self.span = span
        self.parent: Cell | None = None
        self.users: list[_Choice] = []


def _root(cell: Cell) -> Cell:
    while cell.parent is not None:
        if cell.parent.parent is not None:
            cell.parent = cell.parent.parent
        cell = cell.parent
    return cell


class _Choice:
    """Cells whose types must together be one of several rows."""

    __slots__ = ("cells", "rows", "span", "waiting", "what")

    def __init__(
        self, cells: tuple[Cell, ...], rows: tuple[tuple[int, ...], ...], what: str, span: Span
    ) -> None:
        self.cells = cells
        self.rows = rows
        self.what = what
        self.span = span
        self.waiting = True


@cache
def _fitting(
    rows: tuple[tuple[int, ...], ...], types: tuple[int, ...]
) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """The rows that are still possible, and the types that they leave."""
    left = tuple(
        row for row in rows if all(one & known for one, known in zip(row, types, strict=True))
    )
    unions = [0] * len(types)
    for row in left:
        for i, one in enumerate(row):
            unions[i] |= one
    return left, tuple(unions)


class Inference:
    """The cells of a program."""

    def __init__(self) -> None:
        self._choices: list[_Choice] = []
        self._queue: deque[_Choice] = deque()

    def fresh(self, types: int, span: Span) -> Cell:
        """A new cell."""
        return Cell(types, span)

    def narrow(self, cell: Cell, types: int, span: Span, where: Span | None = None) -> None:
        """Say that a cell has one of these types.

        Args:
            cell: which one.
            types: a set of types.
            span: where this is known from.
            where: the expression that must have both, if it is another place.

        Raises:
            ProgramError: it cannot; both places are shown.
        """
        root = _root(cell)
        both = root.types & types
        if both == root.types:
            return
        if not both:
            raise _mismatch(root.types, root.span, types, span, where)
        root.types = both
        # What a literal says is worth showing only until a declaration says more.
        if both == types:
            root.span = span
        self._wake(root)

    def unify(self, first: Cell, second: Cell, where: Span) -> None:
        """Say that two cells have the same type, because of what stands at `where`."""
        a, b = _root(first), _root(second)
        if a is b:
            return
        both = a.types & b.types
        if not both:
            raise _mismatch(a.types, a.span, b.types, b.span, where)
        if b.types == both != a.types:
            a, b = b, a
        changed = a.types != both or b.types != both
        b.parent = a
        a.types = both
        a.users += b.users
        b.users = []
        if changed:
            self._wake(a)

    def choose(
        self, cells: Sequence[Cell], rows: tuple[tuple[int, ...], ...], what: str, span: Span
    ) -> None:
        """Say that the types of some cells are together one of these rows, the likely one first.

        Args:
            cells: which ones: operands, then the result.
            rows: sets of types, one for each cell.
            what: the operator, for messages.
            span: the expression.
        """
        choice = _Choice(tuple(cells), rows, what, span)
        self._choices.append(choice)
        self._queue.append(choice)
        for cell in cells:
            _root(cell).users.append(choice)

    def _wake(self, root: Cell) -> None:
        for choice in root.users:
            if not choice.waiting:
                choice.waiting = True
                self._queue.append(choice)

    def _propagate(self) -> None:
        while self._queue:
            choice = self._queue.popleft()
            choice.waiting = False
            known = tuple(_root(cell).types for cell in choice.cells)
            choice.rows, left = _fitting(choice.rows, known)
            if not choice.rows:
                raise _no_row(choice, known)
            for cell, types in zip(choice.cells, left, strict=True):
                self.narrow(cell, types, choice.span)

    def solve(self) -> None:
        """Narrow every cell as far as possible; where rows are left over, take the likely one."""
        self._propagate()
        for choice in self._choices:
            if len(choice.rows) > 1:
                known = tuple(_root(cell).types for cell in choice.cells)
                rows, _ = _fitting(choice.rows, known)
                for cell, types in zip(choice.cells, _likely(rows), strict=True):
                    self.narrow(cell, types, choice.span)
                self._propagate()

    def type(self, cell: Cell) -> str:
        """The type of a cell; the default one where several are possible."""
        return _default(_root(cell).types)

    def describe(self, cell: Cell) -> str:
        """What is known of a cell, for messages."""
        return describe(_root(cell).types)


@cache
def _default(types: int) -> str:
    return default(names(types))


def _likely(rows: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    return tuple(_BIT[_default(types)] for types in rows[0])


def _mismatch(a: int, first: Span, b: int, second: Span, where: Span | None) -> ProgramError:
    message = f"cannot unify types `{describe(a)}` and `{describe(b)}`"
    if where is not None and where not in (first, second):
        return where.error(
            f"{message}: the first is inferred here\n{place(first)}\nthe second is inferred here\n"
            f"{place(second)}\nand both are the type of"
        )
    return conflict(
        f"{message}, where the first is declared here",
        first,
        "and the second is declared here",
        second,
    )


def _no_row(choice: _Choice, types: tuple[int, ...]) -> ProgramError:
    *operands, result = [f"`{describe(one)}`" for one in types]
    given = " and ".join(operands)
    places = "".join(
        f"\n{name} is inferred here\n{place(_root(cell).span)}"
        for name, cell in zip(operands, choice.cells, strict=False)
        if _root(cell).span != choice.span
    )
    return choice.span.error(
        f"no matching rule found for `{choice.what}`: the operands have type {given}, while the "
        f"expression has type {result}; cast an operand with `as`{places}\nthe expression is"
    )
