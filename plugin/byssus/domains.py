"""The values that a concept or an output may take, and how a tensor describes a distribution.

A *domain* is the structural mapping of ISED (section 3.2): an ordered list of hashable values,
SET(τ) of its Table 1, together with the tensor view of a distribution over them, DIST(τ). Its
Table 2 goes from values to views (`Domain.vectorize`, δ) and gathers from a view the probability
of a value (`Domain.aggregate`, σ).

Whatever its structure, a finite domain flattens into **columns**, one categorical each: a
`Discrete` is one column, a `Permutation` of n things is n, a `Tuple` has the columns of all its
parts, a `List` those of its element, `max_length` times over. A value is one index per column,
and -1 where its lists have ended. Only a `Permutation` ties its columns together.

```python
pair = Tuple(Integer(0, 9), Boolean())
pair.size, pair.widths  # 20, (10, 2)
pair.encode((3, True))  # (3, 1)
pair.flatten((digits, flags)).probs  # digits (batch, 10) and flags (batch, 2)
```
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, permutations
from operator import index as index_of
from typing import Any, Literal, TypeAlias, TypeVar

import jaxtyping as jt
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from byssus.errors import (
    ByssusError,
    DomainError,
    EmptyBatchError,
    ProbabilityError,
    ShapeError,
    listed,
)

__all__ = [
    "Boolean",
    "Columns",
    "Discrete",
    "Domain",
    "Float",
    "Integer",
    "List",
    "Padded",
    "Permutation",
    "Semiring",
    "Tuple",
    "View",
    "check_probabilities",
    "typed",
]

MAX_VALUES = 1_000_000  # of Domain.values, a Python tuple
MAX_ROWS = 20_000_000  # of Domain.enumerate, a tensor

Semiring: TypeAlias = Literal["add-mult", "min-max"]
"""What `Domain.aggregate` does with the probabilities it gathers: multiply, or take the least."""

View: TypeAlias = "Tensor | Padded | Sequence[View]"
"""The tensor view of a batch of distributions: what `Domain.flatten` takes."""

Leaves: TypeAlias = tuple[tuple[Tensor, ...], Tensor]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Padded:
    """The view of a batch of lists that are not all of one length.

    Attributes:
        view: the view of a `List`, of as many positions as the longest list has; what it holds
            beyond a list's length is ignored.
        lengths: integers, (batch,). For a `List` of `List`s a tuple: the outer lengths (batch,),
            then the inner ones (batch, positions), and so on inwards.
    """

    view: View
    lengths: Tensor | tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Columns:
    """A batch of distributions, flattened into one categorical per column.

    Attributes:
        probs: one tensor (batch, width) a column.
        mask: (batch, columns), False where a column is padding; its row of `probs` is uniform.
    """

    probs: tuple[jt.Float[Tensor, "batch width"], ...]
    mask: jt.Bool[Tensor, "batch columns"]


class Domain(ABC):
    """An ordered list of values and the tensor view of a distribution over it.

    Domains are immutable, compare by what they hold, and can be hashed and pickled. Values are
    told apart by type: 1, 1.0 and True are three values. NumPy scalars count as the Python
    values that they hold, and lists and arrays as tuples.

    The members that concern columns, values or views raise `DomainError` in a domain that is
    not `finite`, that is a `Float` or a structure that holds one.
    """

    _args: tuple[Any, ...]  # rebuild the domain, and compare it
    _size: int | None
    _widths: tuple[int, ...]
    _permuted: tuple[tuple[int, int], ...]
    _skippable: bool  # some value occupies no column at all

    def _freeze(
        self,
        *args: Any,
        size: int | None,
        widths: tuple[int, ...] = (),
        permuted: tuple[tuple[int, int], ...] = (),
        skippable: bool = False,
        **fields: Any,
    ) -> None:
        self.__dict__.update(fields, _args=args, _size=size, _widths=widths)
        self.__dict__.update(_permuted=permuted, _skippable=skippable)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self!r} is immutable: make another domain")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self!r} is immutable: make another domain")

    @cached_property
    def _key(self) -> Any:
        return type(self), typed(self._args)

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Domain) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._args))})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._args

    # Values

    @property
    def finite(self) -> bool:
        """Whether the domain has a finite list of values, that is, holds no `Float`."""
        return self._size is not None

    @property
    def size(self) -> int:
        """The number of values; it may be far too many to list."""
        return self._finite(self._size)

    @cached_property
    def values(self) -> tuple[Any, ...]:
        """All values, in order.

        Raises:
            DomainError: there are more than 1,000,000; iterate, or sample.
        """
        if self.size > MAX_VALUES:
            raise DomainError(
                f"{_short(self)} has {self.size:,} values, and at most {MAX_VALUES:,} are listed: "
                "iterate over the domain, or sample from it"
            )
        return tuple(self)

    def __iter__(self) -> Iterator[Any]:
        self._finite(self._size)
        return self._iterate()

    def __contains__(self, value: object) -> bool:
        try:
            self.check_output(value)
        except DomainError:
            return False
        return True

    def index(self, value: Any) -> int:
        """The position of a value in the order of `values`, which is not listed for it.

        Raises:
            DomainError: the domain does not hold the value.
        """
        self._finite(self._size)
        return self._index(self.check_output(value))

    @abstractmethod
    def check_output(self, value: Any) -> Any:
        """The value as the domain writes it: tuples for lists, Python scalars for NumPy's.

        Raises:
            DomainError: the domain does not hold the value.
        """

    def matches(self, target: Any, values: Sequence[Any]) -> list[int]:
        """The positions in `values` of what equals a target, within the tolerance of a `Float`.

        Raises:
            DomainError: the domain does not hold the target.
        """
        target = self.check_output(target)
        if not self.finite:
            return [i for i, value in enumerate(values) if self._same(target, value)]
        key = typed(target)
        return [i for i, value in enumerate(values) if typed(value) == key]

    # Columns

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of symbols of each column."""
        return self._finite(self._widths)

    @property
    def permuted(self) -> tuple[tuple[int, int], ...]:
        """The column ranges [start, stop) that are `Permutation`s: their columns all differ."""
        return self._finite(self._permuted)

    def encode(self, value: Any) -> tuple[int, ...]:
        """A value as one index per column, -1 where its lists have ended.

        Raises:
            DomainError: the domain does not hold the value.
        """
        self._finite(self._size)
        return self._encode(self.check_output(value))

    def decode(self, indices: Sequence[int]) -> Any:
        """The value of one index per column: the inverse of `encode`.

        Raises:
            DomainError: the indices encode no value.
        """
        columns = tuple(map(index_of, _plain(indices)))
        if len(columns) != len(self.widths) or min(columns) < -1:
            raise DomainError(
                f"{_short(columns)} encodes no value of {_short(self)}: "
                f"give {len(self.widths)} indices, -1 for padding"
            )
        return self._decode(columns)

    def enumerate(self, mask: Sequence[bool] | None = None) -> jt.Int[Tensor, "rows columns"]:
        """Every value, encoded, in order.

        Args:
            mask: only the values that occupy exactly these columns, (columns,): lists of one
                length. No value may do so, and then there are no rows.

        Raises:
            DomainError: there are more than 20,000,000 rows; ask `count` first.
            ShapeError: the mask has not one entry per column.
        """
        if (rows := self.count(mask)) > MAX_ROWS:
            raise DomainError(
                f"{_short(self)} has {rows:,} values here, and at most {MAX_ROWS:,} are "
                "enumerated: sample from it"
            )
        return self._table(None if mask is None else tuple(map(bool, mask)))

    def count(self, mask: Sequence[bool] | None = None) -> int:
        """The number of rows of `enumerate(mask)`, by arithmetic.

        Raises:
            ShapeError: the mask has not one entry per column.
        """
        if mask is None:
            return self.size
        if len(mask) != len(self.widths):
            raise ShapeError(
                f"a mask of {len(mask)} entries for {_short(self)}: "
                f"give one for each of its {len(self.widths)} columns"
            )
        return self._count(tuple(map(bool, mask)))

    # Tensors

    def flatten(self, view: View, what: str = "the view") -> Columns:
        """A batch of distributions as one categorical per column.

        Args:
            view: by domain, `Discrete`: (batch, size); `Permutation`: (batch, n, n), a
                distribution for each position; `Tuple`: a tuple of its parts' views; `List`: the
                view of its element with a dimension of positions after the batch. Lists that
                differ in length come as `Padded`, or as a Python list of one tensor per example,
                the positions first. There may be fewer positions than `max_length`.
            what: how errors name the view.

        Raises:
            ShapeError: a tensor, or the length of a list, does not fit.
            EmptyBatchError: a batch of no examples.
            ProbabilityError: a tensor that is not of floating point. What it holds is left to
                `check_probabilities`.
        """
        self._finite(self._size)
        batch = _batch(self, view, what)
        if not batch:
            raise EmptyBatchError(f"{what} has no examples: give a batch of one or more")
        return Columns(*self._flatten(view, (batch,), None, what))

    def vectorize(
        self,
        y: Any,
        outputs: Sequence[Any] = (),
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor | tuple[Any, ...]:
        """δ of ISED's Table 2: the view, without a batch dimension, of a certain value.

        Args:
            y: the value.
            outputs: of the program, which a `Float` is compared with; a `Float` in a `Tuple`
                with its part of each.
            dtype: of the result; torch's default without it.
            device: of the result.

        Returns:
            One-hot rows in the form of the view; the rows after a list's end are zero.

        Raises:
            DomainError: the domain does not hold the value, or is a `List` with a `Float` in it.
        """
        columns = [torch.zeros(width, dtype=dtype, device=device) for width in self.widths]
        for column, index in zip(columns, self.encode(y), strict=True):
            if index >= 0:
                column[index] = 1
        return self._view(columns)

    def aggregate(self, r: Any, p: View, semiring: Semiring = "add-mult") -> jt.Float[Tensor, ""]:
        """σ of ISED's Table 2: what a view gives to the symbols of a value.

        Args:
            r: the value.
            p: a view without its batch dimension; of a list, at least as many positions as the
                value has.
            semiring: "add-mult" multiplies over the columns, "min-max" takes the least.

        Returns:
            A differentiable scalar; 1 for an empty list.

        Raises:
            DomainError: the domain does not hold the value.
            ShapeError: the view does not fit the domain, or is shorter than the value.
        """
        if semiring not in ("add-mult", "min-max"):
            raise ByssusError(f"semiring={semiring!r}: give 'add-mult' or 'min-max'")
        columns = self.flatten(_unsqueeze(p), "p, with a batch dimension of 1,")
        chosen = [(column, i) for column, i in enumerate(self.encode(r)) if i >= 0]
        if not columns.mask[0, [column for column, _ in chosen]].all():
            raise ShapeError(f"p has fewer positions than {_short(r)}: give one for each")
        if not chosen:
            return columns.probs[0].new_ones(())
        gathered = torch.stack([columns.probs[column][0, i] for column, i in chosen])
        return gathered.prod() if semiring == "add-mult" else gathered.amin()

    # What each kind of domain says for itself. Values come canonical, as check_output returns
    # them, and masks and indices with one entry per column.

    def _finite(self, answer: T | None) -> T:
        if answer is None or self._size is None:
            raise DomainError(
                f"{_short(self)} has no finite list of values, so it is for outputs only: "
                "use Discrete or Integer for an input"
            )
        return answer

    def _refuse(self, value: Any, mend: str) -> DomainError:
        kind = type(value).__name__
        return DomainError(f"{_short(value)} ({kind}) is not a value of {_short(self)}: {mend}")

    @abstractmethod
    def _iterate(self) -> Iterator[Any]: ...

    @abstractmethod
    def _index(self, value: Any) -> int: ...

    @abstractmethod
    def _encode(self, value: Any) -> tuple[int, ...]: ...

    @abstractmethod
    def _decode(self, columns: tuple[int, ...]) -> Any: ...

    @abstractmethod
    def _table(self, mask: tuple[bool, ...] | None) -> Tensor: ...

    @abstractmethod
    def _count(self, mask: tuple[bool, ...]) -> int: ...

    @abstractmethod
    def _flatten(
        self, view: View, lead: tuple[int, ...], valid: Tensor | None, what: str
    ) -> Leaves:
        """Columns of any leading shape.

        Args:
            view: tensors whose shapes begin with `lead`.
            lead: (batch,), and inside lists (batch, positions, ...).
            valid: which entries of `lead` are not padding, of that shape; None if none is.
            what: the name of the view.

        Returns:
            A tensor (*lead, width) a column, and their mask (*lead, columns).
        """

    @abstractmethod
    def _view(self, columns: Sequence[Tensor]) -> Tensor | tuple[Any, ...]:
        """The view, without a batch dimension, of one tensor (width,) a column."""

    def _same(self, target: Any, value: Any) -> bool:
        return bool(typed(target) == typed(value))


class Discrete(Domain):
    """One symbol out of a list: a single column; its view is (batch, size).

    Args:
        values: different hashable values, in order.

    Raises:
        DomainError: no values, one that cannot be hashed, one that comes twice, or a set, which
            has no order.
    """

    _symbols: Sequence[Any]
    _positions: dict[Any, int]

    def __init__(self, values: Iterable[Any]) -> None:
        if isinstance(values, AbstractSet) or not isinstance(values, Iterable):
            raise DomainError(f"Discrete({_short(values)}): give the values in order, in a list")
        symbols = tuple(values)
        for symbol in symbols:
            try:
                hash(symbol)
            except TypeError:
                raise DomainError(
                    f"Discrete: {_short(symbol)} ({type(symbol).__name__}) cannot be hashed: "
                    "give a tuple for a list, a frozenset for a set"
                ) from None
        symbols = tuple(map(_plain, symbols))
        self._symbolize(symbols, symbols)

    def _symbolize(self, symbols: tuple[Any, ...], *args: Any) -> None:
        positions: dict[Any, int] = {}
        for i, symbol in enumerate(symbols):
            if (first := positions.setdefault(typed(symbol), i)) != i:
                raise DomainError(
                    f"Discrete: {_short(symbol)} comes twice, at {first} and {i}: give it once"
                )
        if not symbols:
            raise DomainError("Discrete([]): give at least one value")
        size = len(symbols)
        self._freeze(*args, size=size, widths=(size,), _symbols=symbols, _positions=positions)

    def _position(self, value: Any) -> int | None:
        try:
            return self._positions.get(typed(value))
        except TypeError:
            return None

    def _mend(self) -> str:
        return f"give one of {listed(self._symbols)}"

    def check_output(self, value: Any) -> Any:  # noqa: D102
        if (position := self._position(value)) is None:
            raise self._refuse(value, self._mend())
        return self._symbols[position]

    def _iterate(self) -> Iterator[Any]:
        return iter(self._symbols)

    def _index(self, value: Any) -> int:
        position = self._position(value)
        assert position is not None
        return position

    def _encode(self, value: Any) -> tuple[int, ...]:
        return (self._index(value),)

    def _decode(self, columns: tuple[int, ...]) -> Any:
        (index,) = columns
        if not 0 <= index < len(self._symbols):
            raise DomainError(
                f"index {index} is outside {_short(self)}: give 0 to {self.size - 1}; "
                "-1 is for what follows the end of a List"
            )
        return self._symbols[index]

    def _table(self, mask: tuple[bool, ...] | None) -> Tensor:
        return torch.arange(self.size if mask is None or mask[0] else 0)[:, None]

    def _count(self, mask: tuple[bool, ...]) -> int:
        return self.size if mask[0] else 0

    def _flatten(
        self, view: View, lead: tuple[int, ...], valid: Tensor | None, what: str
    ) -> Leaves:
        probs = _leaf(self, view, lead, self.widths, valid, what)
        return (probs,), _active(probs, lead, valid, 1)

    def _view(self, columns: Sequence[Tensor]) -> Tensor:
        return columns[0]


class Integer(Discrete):
    """The integers from `lo` to `hi`, both included; a bool is not one of them.

    Raises:
        DomainError: a bound that is not an int, or `lo` above `hi`.
    """

    lo: int
    hi: int

    def __init__(self, lo: int, hi: int) -> None:
        lo, hi = _integer("Integer: lo", lo), _integer("Integer: hi", hi)
        if lo > hi:
            raise DomainError(f"Integer({lo}, {hi}) is empty: give lo no greater than hi")
        size = hi - lo + 1
        symbols = range(lo, hi + 1)
        self._freeze(lo, hi, size=size, widths=(size,), lo=lo, hi=hi, _symbols=symbols)

    def _position(self, value: Any) -> int | None:
        value = _plain(value)
        return value - self.lo if type(value) is int and self.lo <= value <= self.hi else None

    def _mend(self) -> str:
        return f"give an int from {self.lo} to {self.hi}"


class Boolean(Discrete):
    """False and True, in this order; 0 and 1 are not among them."""

    def __init__(self) -> None:
        self._symbolize((False, True))


class Float(Domain):
    """A finite real number, equal to another within a tolerance. For outputs only.

    ISED's Table 2 discretises a float over the outputs that a program gave: see `vectorize`. An
    int is accepted for a float; a bool, NaN and the infinities are not.

    Args:
        tolerance: two numbers are equal if they differ by less.

    Raises:
        DomainError: a tolerance that is not positive.
    """

    tolerance: float

    def __init__(self, tolerance: float = 0.01) -> None:
        if (number := _number(tolerance)) is None or number <= 0:
            raise DomainError(f"Float: tolerance={tolerance!r}: give a positive number")
        self._freeze(number, size=None, tolerance=number)

    def check_output(self, value: Any) -> float:  # noqa: D102
        if (number := _number(value)) is None:
            raise self._refuse(value, "give a finite int or float")
        return number

    def vectorize(  # noqa: D102
        self,
        y: Any,
        outputs: Sequence[Any] = (),
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> jt.Float[Tensor, " outputs"]:
        y = self.check_output(y)
        hits = [float(self._same(y, output)) for output in outputs]
        return torch.tensor(hits, dtype=dtype or torch.get_default_dtype(), device=device)

    def _same(self, target: Any, value: Any) -> bool:
        number = _number(value)
        return number is not None and abs(number - target) < self.tolerance

    def _iterate(self) -> Iterator[Any]:
        return self._finite(None)

    def _index(self, value: Any) -> int:
        return self._finite(None)

    def _encode(self, value: Any) -> tuple[int, ...]:
        return self._finite(None)

    def _decode(self, columns: tuple[int, ...]) -> Any:
        return self._finite(None)

    def _table(self, mask: tuple[bool, ...] | None) -> Tensor:
        return self._finite(None)

    def _count(self, mask: tuple[bool, ...]) -> int:
        return self._finite(None)

    def _flatten(
        self, view: View, lead: tuple[int, ...], valid: Tensor | None, what: str
    ) -> Leaves:
        return self._finite(None)

    def _view(self, columns: Sequence[Tensor]) -> Tensor:
        return self._finite(None)


class Permutation(Domain):
    """The orderings of n consecutive integers, as tuples, in lexicographic order.

    One column a position, over n symbols; the view is (batch, n, n), a distribution over the
    symbols for each position. Only orderings are values, although the columns of the view alone
    would allow repetitions: see `Domain.permuted`.

    Args:
        n: how many.
        start: the least of them. ISED's Table 1 counts from 1; give 0 for Python's indices.

    Raises:
        DomainError: `n` below 1, or not an int.
    """

    n: int
    start: int

    def __init__(self, n: int, start: int = 1) -> None:
        n, start = _integer("Permutation: n", n), _integer("Permutation: start", start)
        if n < 1:
            raise DomainError(f"Permutation({n}) orders nothing: give n of 1 or more")
        size = math.factorial(n)
        self._freeze(n, start, size=size, widths=(n,) * n, permuted=((0, n),), n=n, start=start)

    def __repr__(self) -> str:
        return f"Permutation({self.n}{'' if self.start == 1 else f', start={self.start}'})"

    def check_output(self, value: Any) -> tuple[int, ...]:  # noqa: D102
        items = _items(value)
        if items is not None:
            items = tuple(map(_plain, items))
            if all(type(item) is int for item in items):
                order = sorted(items)
                if order == list(range(self.start, self.start + self.n)):
                    return items
                if order and order == list(range(order[0], order[0] + self.n)):
                    mend = f"it is one of Permutation({self.n}, start={order[0]})"
                    raise self._refuse(value, mend)
        last = self.start + self.n - 1
        raise self._refuse(value, f"give each int from {self.start} to {last} once, in a tuple")

    def _iterate(self) -> Iterator[Any]:
        return permutations(range(self.start, self.start + self.n))

    def _index(self, value: Any) -> int:
        index, left = 0, list(range(self.start, self.start + self.n))
        for item in value:
            place = left.index(item)
            index = index * len(left) + place
            del left[place]
        return index

    def _encode(self, value: Any) -> tuple[int, ...]:
        return tuple(item - self.start for item in value)

    def _decode(self, columns: tuple[int, ...]) -> Any:
        return self.check_output(tuple(column + self.start for column in columns))

    def _table(self, mask: tuple[bool, ...] | None) -> Tensor:
        if mask is not None and not all(mask):
            return torch.empty(0, self.n, dtype=torch.long)
        rows = torch.zeros(1, 0, dtype=torch.long)
        for k in range(1, self.n + 1):
            # An ordering of k is its first symbol, then an ordering of the k - 1 others.
            first = torch.arange(k)[:, None, None].expand(k, len(rows), 1)
            rows = torch.cat((first, rows + (rows >= first)), dim=2).flatten(0, 1)
        return rows

    def _count(self, mask: tuple[bool, ...]) -> int:
        return self.size if all(mask) else 0

    def _flatten(
        self, view: View, lead: tuple[int, ...], valid: Tensor | None, what: str
    ) -> Leaves:
        probs = _leaf(self, view, lead, (self.n, self.n), valid, what)
        return probs.unbind(-2), _active(probs, lead, valid, self.n)

    def _view(self, columns: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(columns))


class Tuple(Domain):
    """A Python tuple with one value of each part; its view is a tuple of the parts' views.

    Args:
        *domains: the parts, at least one.

    Raises:
        DomainError: no parts, or a part that is not a `Domain`.
    """

    domains: tuple[Domain, ...]

    def __init__(self, *domains: Domain) -> None:
        if not domains:
            raise DomainError("Tuple(): give at least one part")
        for i, domain in enumerate(domains):
            _require_domain(domain, f"part {i} of Tuple")
        self._freeze(
            *domains,
            size=_product([domain._size for domain in domains]),
            widths=tuple(width for domain in domains for width in domain._widths),
            permuted=_permuted(domains),
            skippable=all(domain._skippable for domain in domains),
            domains=domains,
        )

    @cached_property
    def _tables(self) -> _Tables | None:
        return _tables_of(self.domains)

    def check_output(self, value: Any) -> tuple[Any, ...]:  # noqa: D102
        if (positions := _look_up(self._tables, value)) is not None:
            return tuple([d._symbols[i] for d, i in zip(self.domains, positions, strict=True)])  # type: ignore[attr-defined]
        items = _items(value)
        if items is None or len(items) != len(self.domains):
            raise self._refuse(value, f"give a tuple of {len(self.domains)}")
        return _check_items(self, value, self.domains, items, "part")

    def vectorize(  # noqa: D102
        self,
        y: Any,
        outputs: Sequence[Any] = (),
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> tuple[Any, ...]:
        parts = zip(self.domains, self.check_output(y), strict=True)
        return tuple(
            domain.vectorize(part, [output[i] for output in outputs], dtype=dtype, device=device)
            for i, (domain, part) in enumerate(parts)
        )

    def _same(self, target: Any, value: Any) -> bool:
        items = _items(value)
        return (
            items is not None
            and len(items) == len(self.domains)
            and all(d._same(t, v) for d, t, v in zip(self.domains, target, items, strict=True))
        )

    def _iterate(self) -> Iterator[Any]:
        return _tuples(self.domains)

    def _index(self, value: Any) -> int:
        return _rank(self.domains, value)

    def _encode(self, value: Any) -> tuple[int, ...]:
        if (positions := _look_up(self._tables, value)) is not None:
            return tuple(positions)
        parts = zip(self.domains, value, strict=True)
        return tuple(index for domain, part in parts for index in domain._encode(part))

    def _decode(self, columns: tuple[int, ...]) -> Any:
        parts = zip(self.domains, self._split(columns), strict=True)
        return tuple(domain._decode(part) for domain, part in parts)

    def _table(self, mask: tuple[bool, ...] | None) -> Tensor:
        masks = [None] * len(self.domains) if mask is None else self._split(mask)
        parts = zip(self.domains, masks, strict=True)
        return _cartesian([domain._table(part) for domain, part in parts])

    def _count(self, mask: tuple[bool, ...]) -> int:
        parts = zip(self.domains, self._split(mask), strict=True)
        return math.prod(domain._count(part) for domain, part in parts)

    def _flatten(
        self, view: View, lead: tuple[int, ...], valid: Tensor | None, what: str
    ) -> Leaves:
        if not isinstance(view, tuple | list) or len(view) != len(self.domains):
            raise ShapeError(
                f"{what} is {_kind(view)}, and {_short(self)} expects a tuple of "
                f"{len(self.domains)}, one view for each part"
            )
        parts = [
            domain._flatten(part, lead, valid, f"part {i} of {what}")
            for i, (domain, part) in enumerate(zip(self.domains, view, strict=True))
        ]
        probs = tuple(column for columns, _ in parts for column in columns)
        return probs, torch.cat([mask for _, mask in parts], dim=-1)

    def _view(self, columns: Sequence[Tensor]) -> tuple[Any, ...]:
        parts = zip(self.domains, self._split(columns), strict=True)
        return tuple(domain._view(part) for domain, part in parts)

    def _split(self, columns: Sequence[T]) -> list[tuple[T, ...]]:
        """The columns of each part."""
        entries = iter(columns)
        return [tuple(islice(entries, len(domain._widths))) for domain in self.domains]


class List(Domain):
    """Tuples of `min_length` to `max_length` values of one domain: the short ones first.

    The order is by length, then lexicographic. The view is the element's with one more
    dimension, of positions, after the batch; see `Domain.flatten` for lists of many lengths.

    In a list whose length varies every element occupies a column, or its columns could not tell
    where it ends. So the lists in such a list are not empty: `List(List(d, 2), 3)` is
    `List(List(d, 2, min_length=1), 3)`.

    Args:
        domain: of the elements.
        max_length: the greatest length, at least 1.
        min_length: the least.

    Raises:
        DomainError: a `domain` that is none, lengths that are not ints or not in order, or
            elements that may be empty in any other way than above.
    """

    domain: Domain
    max_length: int
    min_length: int

    def __init__(self, domain: Domain, max_length: int, min_length: int = 0) -> None:
        _require_domain(domain, "the element of List")
        longest = _integer("List: max_length", max_length)
        shortest = _integer("List: min_length", min_length)
        if not 0 <= shortest <= longest or longest < 1:
            raise DomainError(
                f"List: min_length={shortest}, max_length={longest}: "
                "give 0 <= min_length <= max_length, and max_length of 1 or more"
            )
        if domain.finite and domain._skippable and shortest < longest:
            domain = _occupied(domain)
        self._freeze(
            domain,
            longest,
            shortest,
            size=None if domain._size is None else _lists(domain._size, shortest, longest),
            widths=domain._widths * longest,
            permuted=_permuted([domain] * longest) if domain._permuted else (),
            skippable=not shortest or domain._skippable,
            domain=domain,
            max_length=longest,
            min_length=shortest,
        )

    def __repr__(self) -> str:
        least = f", min_length={self.min_length}" if self.min_length else ""
        return f"List({self.domain!r}, {self.max_length}{least})"

    @cached_property
    def _tables(self) -> _Tables | None:
        fixed = self.min_length == self.max_length
        return _tables_of([self.domain] * self.max_length) if fixed else None

    def check_output(self, value: Any) -> tuple[Any, ...]:  # noqa: D102
        if (positions := _look_up(self._tables, value)) is not None:
            return tuple([self.domain._symbols[i] for i in positions])  # type: ignore[attr-defined]
        items = _items(value)
        if items is None or not self.min_length <= len(items) <= self.max_length:
            raise self._refuse(
                value, f"give a tuple of {self.min_length} to {self.max_length} elements"
            )
        return _check_items(self, value, [self.domain] * len(items), items, "element")

    def _same(self, target: Any, value: Any) -> bool:
        items = _items(value)
        return (
            items is not None
            and len(items) == len(target)
            and all(self.domain._same(t, v) for t, v in zip(target, items, strict=True))
        )

    def _iterate(self) -> Iterator[Any]:
        for length in range(self.min_length, self.max_length + 1):
            yield from _tuples([self.domain] * length)

    def _index(self, value: Any) -> int:
        shorter = _lists(self.domain.size, self.min_length, len(value) - 1)
        return shorter + _rank([self.domain] * len(value), value)

    def _encode(self, value: Any) -> tuple[int, ...]:
        if (positions := _look_up(self._tables, value)) is not None:
            return tuple(positions)
        columns = [index for element in value for index in self.domain._encode(element)]
        return (*columns, *[-1] * (len(self._widths) - len(columns)))

    def _decode(self, columns: tuple[int, ...]) -> Any:
        if self._tables is not None and 0 <= min(columns) <= max(columns) < self.domain.size:
            return tuple([self.domain._symbols[i] for i in columns])  # type: ignore[attr-defined]
        length = self._length([index >= 0 for index in columns])
        if length is None:
            raise DomainError(
                f"{_short(columns)} encodes no value of {_short(self)}: give {self.min_length} to "
                f"{self.max_length} elements, then -1"
            )
        return tuple(map(self.domain._decode, self._split(columns)[:length]))

    def _table(self, mask: tuple[bool, ...] | None) -> Tensor:
        columns = len(self._widths)
        if mask is None:
            element = self.domain._table(None)
            lengths = range(self.min_length, self.max_length + 1)
            return torch.cat([_extend(_cartesian([element] * n), columns) for n in lengths])
        if (length := self._length(mask)) is None:
            return torch.empty(0, columns, dtype=torch.long)
        elements = self._split(mask)[:length]
        return _extend(_cartesian([self.domain._table(part) for part in elements]), columns)

    def _count(self, mask: tuple[bool, ...]) -> int:
        if (length := self._length(mask)) is None:
            return 0
        return math.prod(self.domain._count(part) for part in self._split(mask)[:length])

    def _flatten(
        self, view: View, lead: tuple[int, ...], valid: Tensor | None, what: str
    ) -> Leaves:
        if isinstance(view, list):
            view = _ragged(view, lead, what)
        lengths: Tensor | None = None
        if isinstance(view, Padded):
            view, lengths = _peel(view)
        first, axis = _first(view), len(lead)
        positions = -1 if first is None or first.ndim < axis + 2 else first.shape[axis]
        if first is None or not self.min_length <= positions <= self.max_length:
            allowed = f"{self.min_length} to {self.max_length} positions"
            raise ShapeError(
                f"{what} is {_kind(view)}, and {_short(self)} expects "
                f"({', '.join(map(str, lead))}, {allowed}, ...)"
            )
        if lengths is not None:
            valid = self._valid(lengths.to(first.device), lead, positions, valid, what)
        elif valid is not None:
            valid = valid[..., None].expand(*lead, positions)
        columns, mask = self.domain._flatten(
            view, (*lead, positions), valid, f"each element of {what}"
        )
        if positions < self.max_length:
            missing = (0, 0, 0, self.max_length - positions)
            columns = tuple(pad(column, missing, value=1 / column.shape[-1]) for column in columns)
            mask = pad(mask, missing, value=False)
        elements = zip(*(column.unbind(-2) for column in columns), strict=True)
        return tuple(column for element in elements for column in element), mask.flatten(-2)

    def _view(self, columns: Sequence[Tensor]) -> Tensor | tuple[Any, ...]:
        return _stack(list(map(self.domain._view, self._split(columns))))

    def _valid(
        self,
        lengths: Tensor,
        lead: tuple[int, ...],
        positions: int,
        valid: Tensor | None,
        what: str,
    ) -> Tensor:
        """Which positions are not padding, (*lead, positions)."""
        if lengths.shape != lead or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise ShapeError(
                f"the lengths of {what} are {_kind(lengths)} of {lengths.dtype}: "
                f"give integers of shape {lead}"
            )
        wrong = (lengths < self.min_length) | (lengths > positions)
        if valid is not None:
            wrong &= valid
        if wrong.any():
            place = wrong.nonzero()[0].tolist()
            raise ShapeError(
                f"{what} has a list of length {lengths[tuple(place)].item()} at {place}: give "
                f"lengths from {self.min_length} to {positions}, the positions of the tensor"
            )
        real = torch.arange(positions, device=lengths.device) < lengths[..., None]
        return real if valid is None else real & valid[..., None]

    def _length(self, mask: Sequence[bool]) -> int | None:
        """The length of the lists that occupy these columns; None if there are none."""
        if self.min_length == self.max_length:
            return self.max_length
        occupied = [any(part) for part in self._split(mask)]
        length = sum(occupied)
        return length if length >= self.min_length and all(occupied[:length]) else None

    def _split(self, columns: Sequence[T]) -> list[tuple[T, ...]]:
        """The columns of each position."""
        step = len(self.domain._widths)
        return [tuple(columns[i : i + step]) for i in range(0, len(self._widths), step)]


def check_probabilities(probs: jt.Float[Tensor, "*rows width"], what: str) -> None:
    """Check that every row is a distribution: finite, not negative, with sum one.

    The sum may be off by 1e-4 and by 1e-2 in half precision, an entry by 1e-6 below zero.

    Args:
        probs: rows of probabilities in the last dimension.
        what: how the error names them.

    Raises:
        ProbabilityError: naming the first offending row, and what it holds.
    """
    if not probs.numel():
        return
    probs = probs.detach()
    half = probs.dtype.itemsize < 4
    sums = probs.sum(-1, dtype=torch.float32 if half else None)
    tolerance = 1e-2 if half else 1e-4
    # One transfer from the device; a NaN or an infinity fails every comparison.
    lowest = probs.amin().to(sums.dtype)
    least, smallest, largest = torch.stack((lowest, *torch.aminmax(sums))).tolist()
    if least >= -1e-6 and smallest >= 1 - tolerance and largest <= 1 + tolerance:
        return
    right = ((sums - 1).abs() <= tolerance) & (probs.amin(-1) >= -1e-6)
    place = tuple((~right).nonzero()[0].tolist())
    row, total = probs[place], sums[place].item()
    if not row.isfinite().all():
        fault = "are not finite: the network diverged, or took the log of zero"
    elif row.amin() < -1e-6:
        fault = "are negative in part: give probabilities, as softmax does, not logits"
    else:
        fault = f"sum to {total:.6g}: give probabilities that sum to 1, as softmax does"
    where = f"row {place[0] if len(place) == 1 else place} of {what}" if place else what
    raise ProbabilityError(f"the probabilities in {where} {fault}; they are {listed(row.tolist())}")


# Values


# Of domains with one column, a table each from a value's type and itself to its position.
_Tables: TypeAlias = Sequence[dict[Any, int]]


def _tables_of(domains: Sequence[Domain]) -> _Tables | None:
    """The tables of parts that are nothing but symbols; None if others are among them."""
    if all(type(domain) in (Discrete, Boolean) for domain in domains):
        return [domain._positions for domain in domains]  # type: ignore[attr-defined]
    return None


def _look_up(tables: _Tables | None, value: Any) -> list[int] | None:
    """The positions of a tuple's values, the quick way; None if that is not enough."""
    if tables is None or type(value) is not tuple:
        return None
    try:
        return [table[type(item), item] for table, item in zip(tables, value, strict=True)]
    except (KeyError, TypeError, ValueError):
        return None


_SCALARS = frozenset((bool, int, float, str))


def _plain(value: Any) -> Any:
    """What NumPy or torch wrap, as Python's."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray | Tensor) else value


def typed(value: Any) -> Any:
    """A key that tells 1 from True and 1.0, and not a list from a tuple."""
    kind = type(value)
    if kind in _SCALARS:  # most are, and outputs of many dimensions have many
        return kind, value
    value = _plain(value)
    return tuple(map(typed, value)) if type(value) in (tuple, list) else (type(value), value)


def _items(value: Any) -> tuple[Any, ...] | None:
    value = _plain(value)
    return tuple(value) if isinstance(value, tuple | list) else None


def _number(value: Any) -> float | None:
    value = _plain(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _integer(name: str, value: Any) -> int:
    value = _plain(value)
    if type(value) is not int:
        raise DomainError(f"{name} is {_short(value)} ({type(value).__name__}): give an int")
    return value


def _require_domain(domain: Any, what: str) -> None:
    if not isinstance(domain, Domain):
        made = f", such as {domain.__name__}(...)" if isinstance(domain, type) else ""
        raise DomainError(f"{what} is {_short(domain)}: give a Domain{made}")


def _occupied(domain: Domain) -> Domain:
    """The domain without its empty list."""
    if isinstance(domain, List) and not domain.domain._skippable:
        return List(domain.domain, domain.max_length, 1)
    raise DomainError(
        f"a List of {_short(domain)}, whose values may all be empty lists, cannot vary in length: "
        "give min_length=1 to a list inside, or min_length=max_length to the outer one"
    )


def _check_items(
    domain: Domain, value: Any, domains: Sequence[Domain], items: tuple[Any, ...], kind: str
) -> tuple[Any, ...]:
    checked = []
    for i, (part, item) in enumerate(zip(domains, items, strict=True)):
        try:
            checked.append(part.check_output(item))
        except DomainError as error:
            raise domain._refuse(value, f"{kind} {i}: {error}") from None
    return tuple(checked)


def _product(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _lists(size: int, shortest: int, longest: int) -> int:
    """The number of lists of `shortest` to `longest` elements out of `size`."""
    if size == 1:
        return longest - shortest + 1
    return int(size ** (longest + 1) - size**shortest) // (size - 1)


def _rank(domains: Sequence[Domain], value: Sequence[Any]) -> int:
    index = 0
    for domain, part in zip(domains, value, strict=True):
        index = index * domain.size + domain._index(part)
    return index


def _tuples(domains: Sequence[Domain]) -> Iterator[tuple[Any, ...]]:
    """Tuples in lexicographic order; itertools.product would list every part first."""
    if not domains:
        yield ()
        return
    for first in domains[0]:
        for rest in _tuples(domains[1:]):
            yield (first, *rest)


def _short(value: Any, limit: int = 160) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


# Columns


def _permuted(domains: Sequence[Domain]) -> tuple[tuple[int, int], ...]:
    ranges, offset = [], 0
    for domain in domains:
        ranges += [(start + offset, stop + offset) for start, stop in domain._permuted]
        offset += len(domain._widths)
    return tuple(ranges)


def _cartesian(tables: Sequence[Tensor]) -> Tensor:
    """Every choice of one row of each, side by side, in lexicographic order."""
    rows = torch.empty(1, 0, dtype=torch.long)
    for table in tables:
        left = rows.repeat_interleave(len(table), dim=0)
        rows = torch.cat((left, table.repeat(len(rows), 1)), dim=1)
    return rows


def _extend(rows: Tensor, columns: int) -> Tensor:
    return pad(rows, (0, columns - rows.shape[1]), value=-1)


# Views


def _batch(domain: Domain, view: View, what: str) -> int:
    if isinstance(view, Padded):
        return _batch(domain, view.view, what)
    if isinstance(domain, List):
        return len(view) if isinstance(view, list) else _batch(domain.domain, view, what)
    if isinstance(domain, Tuple) and isinstance(view, tuple | list) and view:
        return _batch(domain.domains[0], view[0], f"part 0 of {what}")
    if not isinstance(view, Tensor) or not view.ndim:
        raise ShapeError(f"{what} is {_kind(view)}: give the view of a batch of {_short(domain)}")
    return view.shape[0]


def _first(view: View) -> Tensor | None:
    """The first tensor of a view."""
    while not isinstance(view, Tensor):
        if isinstance(view, Padded):
            view = view.view
        elif isinstance(view, tuple | list) and view:
            view = view[0]
        else:
            return None
    return view


def _leaf(
    domain: Domain,
    view: View,
    lead: tuple[int, ...],
    shape: tuple[int, ...],
    valid: Tensor | None,
    what: str,
) -> Tensor:
    """A tensor (*lead, *shape), checked, and uniform where it is padding."""
    if not isinstance(view, Tensor) or view.shape != (*lead, *shape):
        raise ShapeError(f"{what} is {_kind(view)}, and {_short(domain)} expects {(*lead, *shape)}")
    if not view.is_floating_point():
        raise ProbabilityError(f"{what} is of {view.dtype}: give probabilities in floating point")
    if valid is None:
        return view
    return view.where(valid.reshape(*lead, *[1] * len(shape)), 1 / shape[-1])


def _active(probs: Tensor, lead: tuple[int, ...], valid: Tensor | None, columns: int) -> Tensor:
    if valid is None:
        return torch.ones(*lead, columns, dtype=torch.bool, device=probs.device)
    return valid[..., None].expand(*lead, columns)


def _ragged(view: list[View], lead: tuple[int, ...], what: str) -> Padded:
    """One tensor an example, as a padded batch."""
    if len(lead) > 1 or len(view) != lead[0]:
        raise ShapeError(
            f"{what} is {_kind(view)}, and a Python list holds one tensor for each of {lead[0]} "
            "examples: give Padded for lists inside lists, a tuple for the parts of a Tuple"
        )
    tensors = [example for example in view if isinstance(example, Tensor)]
    for i, example in enumerate(view):
        if not isinstance(example, Tensor) or example.ndim < 2:
            raise ShapeError(f"example {i} of {what} is {_kind(example)}: give (length, ...)")
        if example.shape[1:] != tensors[0].shape[1:]:
            raise ShapeError(
                f"example {i} of {what} is {_kind(example)}, and example 0 "
                f"{_kind(tensors[0])}: only their lengths, the first dimension, may differ"
            )
    return Padded(
        pad_sequence(tensors, batch_first=True), torch.tensor([len(tensor) for tensor in tensors])
    )


def _peel(padded: Padded) -> tuple[View, Tensor]:
    """The outer lengths, and the view with the inner ones."""
    if isinstance(padded.lengths, Tensor):
        return padded.view, padded.lengths
    outer, *inner = padded.lengths or (None,)
    if not isinstance(outer, Tensor):
        raise ShapeError(f"the lengths of a Padded are {_kind(outer)}: give tensors of integers")
    return (Padded(padded.view, tuple(inner)) if inner else padded.view), outer


def _unsqueeze(view: View) -> View:
    """A batch of one."""
    if isinstance(view, Tensor):
        return view[None]
    if isinstance(view, tuple | list):
        return tuple(map(_unsqueeze, view))
    raise ShapeError(f"p is {_kind(view)}: give a tensor, or a tuple for the parts of a Tuple")


def _stack(views: Sequence[Any]) -> Tensor | tuple[Any, ...]:
    if isinstance(views[0], Tensor):
        return torch.stack(list(views))
    return tuple(map(_stack, zip(*views, strict=True)))


def _kind(view: Any) -> str:
    """A view in an error."""
    if isinstance(view, Tensor):
        return f"a tensor of shape {tuple(view.shape)}"
    if isinstance(view, tuple | list):
        return f"a {type(view).__name__} of {len(view)}"
    return f"of type {type(view).__name__}"
