"""Aggregators: what they take and give, and what they mean over uncertain tuples.

Where a tag says in which worlds a tuple holds, an aggregate means in each world what it means over
the tuples of that world. No world is enumerated: the tuples are gone through once, and states in
which nothing that follows can differ are one state, so that a count of n tuples has n + 1 of them.
Other tags are weights, and the result is Scallop's formula: the sum, over the subsets of the
tuples, of the product of the tags in it and the negated tags out of it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from ctypes import c_float
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from byssus import ByssusError

from ._algebra import Tags
from ._ir import Aggregate
from ._operators import Dropped
from ._types import FAMILIES, RANGES

__all__ = ["AGGREGATES", "AggregateType", "aggregate", "result_types"]

T = TypeVar("T")
S = TypeVar("S")
Row = tuple[Any, ...]
Tagged = tuple[Row, T]

_MOST = 1 << 17
"""The most states of one aggregation."""


# Types


@dataclass(frozen=True)
class AggregateType:
    """What an aggregator takes and gives.

    Attributes:
        results: the types of the result variables; "arguments" and "bindings" stand for the types
            of all of these.
        arguments: the least and the greatest number of argument variables (`op[here](...)`).
        bindings: the same for binding variables (`op(here: ...)`).
        family: the family, or the one type, of which every binding variable must be.
        parameters: the types of the positional parameters; the first `mandatory` must be given.
        mandatory: how many of these must be given.
        named: the types of the named parameters.
        single_world: whether it may be followed by an exclamation mark.
        weighs: whether it asks for the probabilities of the tuples, so that it cannot look at the
            examples of a batch together.
    """

    results: tuple[str, ...]
    arguments: tuple[int, float] = (0, 0)
    bindings: tuple[int, float] = (1, math.inf)
    family: str = "Any"
    parameters: tuple[str, ...] = ()
    mandatory: int = 0
    named: Mapping[str, str] = field(default_factory=dict)
    single_world: bool = False
    weighs: bool = False


_ANY, _SOME, _ONE = (0, math.inf), (1, math.inf), (1, 1)
_SUM = AggregateType(("bindings",), _ANY, _ONE, "Number", single_world=True)
_WEIGHTED = AggregateType(("bindings",), _ANY, _ONE, "Float", single_world=True, weighs=True)
_MIN = AggregateType(("arguments", "bindings"), _ANY, single_world=True)
_ARGMIN = AggregateType(("arguments",), _SOME, single_world=True)
_EXISTS = AggregateType(("bool",), bindings=_ANY, single_world=True)
_ORDER = {"asc": "bool", "desc": "bool"}
_SORT = AggregateType(("usize", "arguments", "bindings"), _ANY, named=_ORDER)
_NORMALIZE = AggregateType(("bindings",), weighs=True)
_TOP = AggregateType(("bindings",), parameters=("usize",), weighs=True)
_DRAW = replace(_TOP, mandatory=1)

AGGREGATES: dict[str, AggregateType] = {
    "count": AggregateType(("usize",), single_world=True),
    "sum": _SUM,
    "prod": _SUM,
    "avg": _SUM,
    "weighted_sum": _WEIGHTED,
    "weighted_avg": _WEIGHTED,
    "min": _MIN,
    "max": _MIN,
    "argmin": _ARGMIN,
    "argmax": _ARGMIN,
    "exists": _EXISTS,
    "forall": _EXISTS,
    "string_join": AggregateType(
        ("String",),
        _ANY,
        _ONE,
        "String",
        parameters=("String",),
        named={"all": "bool"},
        single_world=True,
    ),
    "sort": _SORT,
    "argsort": replace(_SORT, results=("usize", "arguments"), arguments=_SOME),
    "enumerate": AggregateType(("usize", "bindings")),
    "rank": AggregateType(("usize", "bindings"), named=_ORDER, weighs=True),
    "normalize": _NORMALIZE,
    "softmax": _NORMALIZE,
    "disjunct": AggregateType(("arguments", "bindings"), _ANY),
    "top": _TOP,
    "unique": replace(_TOP, parameters=()),
    "categorical": _DRAW,
    "uniform": replace(_DRAW, weighs=False),
}
"""All aggregators by name.

The body of `forall` holds the counterexamples: that of `forall(x: p(x) implies q(x))` is `p(x) and
not q(x)`.
"""


def result_types(
    operator: str,
    parameters: Sequence[Hashable],
    named: Mapping[str, Hashable],
    argument_types: Sequence[str],
    binding_types: Sequence[str],
    single_world: bool = False,
) -> tuple[str, ...]:
    """The types of an aggregation's results.

    Args:
        operator: the aggregator.
        parameters: the values of its positional parameters.
        named: the values of its named ones.
        argument_types: types of the argument variables.
        binding_types: types of the binding variables.
        single_world: whether an exclamation mark follows it.

    Raises:
        ByssusError: without a place, where they do not fit.
    """
    kind = AGGREGATES.get(operator)
    if kind is None:
        raise ByssusError(f"there is no aggregator {operator!r}{_meant(operator, AGGREGATES)}")
    _check_count(operator, "argument", kind.arguments, len(argument_types))
    _check_count(operator, "binding", kind.bindings, len(binding_types))
    family = FAMILIES.get(kind.family, frozenset([kind.family]))
    for given in binding_types:
        if given not in family:
            raise ByssusError(
                f"`{operator}` takes a variable of type {kind.family}, and this one is a {given}; "
                "cast it with `as`"
            )
    if not kind.mandatory <= len(parameters) <= len(kind.parameters):
        number = _number(kind.mandatory, len(kind.parameters), "parameter")
        raise ByssusError(f"`{operator}` takes {number}, and {len(parameters)} are given")
    for i, (value, wanted) in enumerate(zip(parameters, kind.parameters, strict=False), 1):
        _check_parameter(operator, f"parameter {i}", value, wanted)
    for name, value in named.items():
        if name not in kind.named:
            has = f"it has {', '.join(kind.named)}" if kind.named else "it has none"
            raise ByssusError(
                f"`{operator}` has no parameter {name!r}{_meant(name, kind.named)}: {has}"
            )
        _check_parameter(operator, name, value, kind.named[name])
    if single_world and not kind.single_world:
        raise ByssusError(
            f"`{operator}` has no form with an exclamation mark; write `{operator}` without it"
        )
    parts = {"arguments": tuple(argument_types), "bindings": tuple(binding_types)}
    return tuple(one for part in kind.results for one in parts.get(part, (part,)))


def _meant(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _number(least: int, most: float, noun: str) -> str:
    plural = "" if most == 1 else "s"
    if least == most:
        return f"{least or 'no'} {noun}{plural}"
    return f"at least {least} {noun}" if most == math.inf else f"at most {most} {noun}{plural}"


def _check_count(operator: str, what: str, bounds: tuple[int, float], count: int) -> None:
    if not bounds[0] <= count <= bounds[1]:
        place = f"{operator}[...]" if what == "argument" else f"{operator}(...: body)"
        raise ByssusError(
            f"`{operator}` takes {_number(*bounds, f'{what} variable')} (`{place}`), and here are "
            f"{count}"
        )


def _check_parameter(operator: str, what: str, value: Hashable, wanted: str) -> None:
    fits = {
        "usize": isinstance(value, int) and not isinstance(value, bool) and value >= 0,
        "bool": isinstance(value, bool),
        "String": isinstance(value, str),
    }
    if not fits[wanted]:
        raise ByssusError(f"{what} of `{operator}` is a {wanted}, and {value!r} is none")


# Evaluation


def aggregate(
    declaration: Aggregate,
    rows: Sequence[Tagged[T]],
    algebra: Tags[T],
    *,
    grouped: bool,
    group: Hashable = (),
    generator: torch.Generator | None = None,
    dropped: Callable[[str], None] = lambda reason: None,
) -> list[Tagged[T]]:
    """The results of an aggregation over one group.

    Args:
        declaration: the aggregation.
        rows: the tuples of the group (arguments, then bindings) with their tags; each once.
        algebra: the provenance.
        grouped: whether the group is implicit: it is there only in the worlds in which a tuple
            of it is.
        group: what tells the group apart from the others of this aggregation, for aggregators
            that make new uncertain facts (`normalize`, `softmax`, `disjunct`).
        generator: for aggregators that draw at random.
        dropped: called with the reason for each result that could not be computed.

    Returns:
        The result tuples with their tags, each once.

    Raises:
        ProgramError: the probabilities of the tuples are needed, and the provenance does not have
            them; or there are too many different results.
    """
    call = _Call(
        declaration,
        _ordered(declaration, rows),
        algebra,
        not (grouped and algebra.worlds),
        group,
        generator,
        dropped,
    )
    return list(_merged(_OPERATORS[declaration.operator](call), algebra).items())


@dataclass(frozen=True)
class _Call(Generic[T]):
    """An aggregation of one group.

    Attributes:
        rows: in order.
        empty: whether there is a result where no row holds.
    """

    declaration: Aggregate
    rows: Sequence[Tagged[T]]
    algebra: Tags[T]
    empty: bool
    group: Hashable
    generator: torch.Generator | None
    dropped: Callable[[str], None]

    @property
    def arguments(self) -> int:
        return self.declaration.arguments

    @property
    def rows_that_count(self) -> Sequence[Tagged[T]]:
        """The rows; all of them certain, with an exclamation mark."""
        if not self.declaration.single_world:
            return self.rows
        return [(row, self.algebra.one) for row, _ in self.rows]

    def weights(self) -> list[Any]:
        """The probabilities of the rows: floats, or tensors of one probability an example."""
        try:
            return [self.algebra.weight(tag) for _, tag in self.rows]
        except NotImplementedError:
            raise self.error(
                "needs the probabilities of its tuples, which this provenance does not have"
            ) from None

    def floats(self) -> list[float]:
        """The probabilities of the rows, of a single example."""
        weights = self.weights()
        for weight in weights:
            if isinstance(weight, Tensor) and weight.numel() != 1:
                raise self.error(
                    "compares the probabilities of its tuples, which differ between the "
                    f"{weight.numel()} examples of the batch"
                )
        return [float(w.detach() if isinstance(w, Tensor) else w) for w in weights]

    def error(self, message: str) -> ByssusError:
        return self.declaration.span.error(
            f"`{self.declaration.operator}` {message}. Run single examples, or take provenance "
            "'sampled', or one of those that take the examples one by one: 'minmaxprob', "
            "'addmultprob', 'topkproofs', 'difftopkproofs'"
        )


def _ordered(declaration: Aggregate, rows: Sequence[Tagged[T]]) -> list[Tagged[T]]:
    try:
        return sorted(rows, key=lambda entry: entry[0])
    except TypeError:
        # Tensors have no order. Where it matters, there is no result to give.
        if declaration.operator in ("min", "max", "argmin", "argmax", "sort", "argsort"):
            raise declaration.span.error(
                f"`{declaration.operator}` compares values of types "
                f"{', '.join(declaration.types)}, which have no order"
            ) from None
        return list(rows)


def _merged(pairs: Iterable[tuple[S, T]], algebra: Tags[T]) -> dict[S, T]:
    """Each state once, with the tag of: any of its parts."""
    found: dict[S, list[T]] = {}
    for state, tag in pairs:
        if algebra.possible(tag):
            found.setdefault(state, []).append(tag)
    return {
        state: tags[0] if len(tags) == 1 else algebra.sum(tags) for state, tags in found.items()
    }


def _branch(
    states: Iterable[tuple[S, T]], row: Row, tag: T, step: Callable[[S, Row], S], algebra: Tags[T]
) -> Iterator[tuple[S, T]]:
    """The states after one more row, which may hold or not."""
    if algebra.certain(tag):
        yield from ((step(state, row), held) for state, held in states)
        return
    absent = algebra.negate(tag)
    for state, held in states:
        yield state, algebra.mult(held, absent)
        yield step(state, row), algebra.mult(held, tag)


def _fold(
    call: _Call[T], rows: Iterable[Tagged[T]], start: S, step: Callable[[S, Row], S]
) -> Iterable[tuple[S, T]]:
    """The states after all rows, each with the tag of: these rows hold and no others."""
    algebra = call.algebra
    states: Iterable[tuple[S, T]] = [(start, algebra.one)]
    for row, tag in rows:
        states = _settled(call, _branch(states, row, tag, step, algebra))
    return states


def _settled(call: _Call[T], states: Iterable[tuple[S, T]]) -> Iterable[tuple[S, T]]:
    algebra = call.algebra
    if algebra.distributive:
        settled = list(_merged(states, algebra).items())
    else:
        settled = [(state, tag) for state, tag in states if algebra.possible(tag)]
    if len(settled) > _MOST:
        declaration = call.declaration
        exclamation = (
            f", or write `{declaration.operator}!` for the one result of all tuples"
            if AGGREGATES[declaration.operator].single_world
            else ""
        )
        raise declaration.span.error(
            f"`{declaration.operator}` over {len(call.rows)} uncertain tuples has more than "
            f"{_MOST} cases to tell apart: sample (provenance 'sampled'){exclamation}"
        )
    return settled


def _finish(
    call: _Call[T], states: Iterable[tuple[S | None, T]], empty: Any, value: Callable[[S], Any]
) -> Iterator[Tagged[T]]:
    """Results from states: `empty` where no row holds (None for no result), else their value."""
    for state, tag in states:
        if state is None:
            if call.empty and empty is not None:
                yield (empty,), tag
            continue
        try:
            yield (value(state),), tag
        except Dropped as drop:
            call.dropped(drop.reason)


def _count(call: _Call[T]) -> Iterable[Tagged[T]]:
    def step(state: int | None, row: Row) -> int:
        return (state or 0) + 1

    return _finish(call, _fold(call, call.rows_that_count, None, step), 0, lambda state: state)


def _exists(call: _Call[T], positive: bool = True) -> Iterator[Tagged[T]]:
    algebra = call.algebra
    tags = [tag for _, tag in call.rows_that_count]
    if tags:
        yield (positive,), algebra.sum(tags)
    if not call.empty or any(map(algebra.certain, tags)):
        return
    none = algebra.one
    for tag in tags:
        none = algebra.mult(none, algebra.negate(tag))
    yield (not positive,), none


def _forall(call: _Call[T]) -> Iterator[Tagged[T]]:
    return _exists(call, False)


def _rounded(value: float, kind: str) -> float:
    """A value as one of a type of floats; of integers as it is."""
    return c_float(value).value if kind == "f32" else value


def _checked(value: Any, kind: str) -> Any:
    """A result as a value of its type."""
    if kind in RANGES and not RANGES[kind][0] <= value <= RANGES[kind][1]:
        raise Dropped("overflow")
    if value != value:
        raise Dropped("not a number")
    return value


def _sum(call: _Call[T]) -> Iterable[Tagged[T]]:
    column, kind = call.arguments, call.declaration.types[-1]

    def step(state: Any, row: Row) -> Any:
        return row[column] if state is None else _rounded(state + row[column], kind)

    states = _fold(call, call.rows_that_count, None, step)
    return _finish(call, states, 0 if kind in RANGES else 0.0, lambda state: _checked(state, kind))


def _prod(call: _Call[T]) -> Iterable[Tagged[T]]:
    column, kind = call.arguments, call.declaration.types[-1]

    def step(state: Any, row: Row) -> Any:
        return row[column] if state is None else _rounded(state * row[column], kind)

    states = _fold(call, call.rows_that_count, None, step)
    return _finish(call, states, 1 if kind in RANGES else 1.0, lambda state: _checked(state, kind))


def _avg(call: _Call[T]) -> Iterable[Tagged[T]]:
    column, kind = call.arguments, call.declaration.types[-1]

    def step(state: tuple[Any, int] | None, row: Row) -> tuple[Any, int]:
        if state is None:
            return row[column], 1
        return _rounded(state[0] + row[column], kind), state[1] + 1

    def value(state: tuple[Any, int]) -> Any:
        total, count = state
        if kind not in RANGES:
            return _checked(_rounded(total / _rounded(count, kind), kind), kind)
        # Integers are divided towards zero.
        return total // count if total >= 0 else -(-total // count)

    return _finish(call, _fold(call, call.rows_that_count, None, step), None, value)


def _weighted(call: _Call[T]) -> tuple[str, Iterable[tuple[tuple[float, float] | None, T]]]:
    """States of the sum of weight times value, and of the weights."""
    column, kind = call.arguments, call.declaration.types[-1]

    def step(state: tuple[float, float] | None, row: Row) -> tuple[float, float]:
        weight, value = row
        total, weights = state or (0.0, 0.0)
        product = _rounded(weight * value, kind)
        return _rounded(total + product, kind), _rounded(weights + weight, kind)

    rows = [
        ((_rounded(weight, kind), row[column]), tag)
        for weight, (row, tag) in zip(call.floats(), call.rows_that_count, strict=True)
    ]
    return kind, _fold(call, rows, None, step)


def _weighted_sum(call: _Call[T]) -> Iterable[Tagged[T]]:
    kind, states = _weighted(call)
    return _finish(call, states, 0.0, lambda state: _checked(state[0], kind))


def _weighted_avg(call: _Call[T]) -> Iterable[Tagged[T]]:
    kind, states = _weighted(call)

    def value(state: tuple[float, float]) -> float:
        if state[1] == 0:
            raise Dropped("division by zero")
        return _checked(_rounded(state[0] / state[1], kind), kind)  # type: ignore[no-any-return]

    return _finish(call, states, None, value)


def _extreme(call: _Call[T], last: bool) -> Iterator[Tagged[T]]:
    """The rows of least (or greatest) bindings: those that hold where no lesser one does."""
    algebra, arguments = call.algebra, call.arguments

    def bindings(entry: Tagged[T]) -> Row:
        return entry[0][arguments:]

    none = algebra.one
    for _, tied in groupby(sorted(call.rows_that_count, key=bindings, reverse=last), bindings):
        stratum = list(tied)
        yield from ((row, algebra.mult(none, tag)) for row, tag in stratum)
        for _, tag in stratum:
            if algebra.certain(tag):
                return
            none = algebra.mult(none, algebra.negate(tag))


def _min(call: _Call[T]) -> Iterator[Tagged[T]]:
    return _extreme(call, False)


def _max(call: _Call[T]) -> Iterator[Tagged[T]]:
    return _extreme(call, True)


def _argmin(call: _Call[T]) -> Iterator[Tagged[T]]:
    return ((row[: call.arguments], tag) for row, tag in _min(call))


def _argmax(call: _Call[T]) -> Iterator[Tagged[T]]:
    return ((row[: call.arguments], tag) for row, tag in _max(call))


def _string_join(call: _Call[T]) -> Iterable[Tagged[T]]:
    column, parameters = call.arguments, call.declaration.parameters
    separator = str(parameters[0]) if parameters else ""

    def step(state: str | None, row: Row) -> str:
        return str(row[column]) if state is None else f"{state}{separator}{row[column]}"

    states: Iterable[tuple[str | None, T]]
    if not call.declaration.named.get("all") or call.declaration.single_world:
        states = _fold(call, call.rows_that_count, None, step)
    elif column:
        states = _choose(call, step)
    elif call.algebra.worlds:
        states = _fold(call, call.rows, None, step)
    else:
        whole: str | None = None
        held = call.algebra.one
        for row, tag in call.rows:
            whole, held = step(whole, row), call.algebra.mult(held, tag)
        states = [(whole, held)]
    return _finish(call, states, "", lambda state: state)


def _choose(
    call: _Call[T], step: Callable[[str | None, Row], str]
) -> Iterable[tuple[str | None, T]]:
    """For each value of the arguments, any one of its rows."""
    algebra, arguments = call.algebra, call.arguments
    states: Iterable[tuple[str | None, T]] = [(None, algebra.one)]
    for _, alternatives in groupby(call.rows, lambda entry: entry[0][:arguments]):
        rows = list(alternatives)
        grown: list[tuple[str | None, T]] = [
            (step(state, row), algebra.mult(held, tag))
            for state, held in states
            for row, tag in rows
        ]
        # In a world without any of them, the arguments are not there either.
        if algebra.worlds and not any(algebra.certain(tag) for _, tag in rows):
            none = algebra.negate(algebra.sum([tag for _, tag in rows]))
            grown += [(state, algebra.mult(held, none)) for state, held in states]
        states = _settled(call, grown)
    return states


def _positions(call: _Call[T], rows: Sequence[Tagged[T]]) -> Iterator[Tagged[T]]:
    """Each row behind its position among those that hold."""
    algebra = call.algebra
    if not algebra.worlds:
        yield from (((i, *row), tag) for i, (row, tag) in enumerate(rows))
        return
    counts: Iterable[tuple[int, T]] = [(0, algebra.one)]
    for row, tag in rows:
        for count, held in counts:
            yield (count, *row), algebra.mult(held, tag)
        counts = _settled(call, _branch(counts, row, tag, lambda count, _: count + 1, algebra))


def _ascending(call: _Call[T]) -> bool:
    named = call.declaration.named
    return bool(named["asc"] if "asc" in named else not named.get("desc", True))


def _sort(call: _Call[T]) -> Iterator[Tagged[T]]:
    arguments = call.arguments
    rows = sorted(call.rows, key=lambda entry: entry[0][arguments:], reverse=not _ascending(call))
    return _positions(call, rows)


def _argsort(call: _Call[T]) -> Iterator[Tagged[T]]:
    return ((row[: call.arguments + 1], tag) for row, tag in _sort(call))


def _enumerate(call: _Call[T]) -> Iterator[Tagged[T]]:
    return _positions(call, call.rows)


def _by_weight(weights: Sequence[float], ascending: bool = False) -> list[int]:
    """Positions by weight; of equal weights, the first one first."""
    return sorted(range(len(weights)), key=lambda i: weights[i] if ascending else -weights[i])


def _rank(call: _Call[T]) -> Iterator[Tagged[T]]:
    for rank, i in enumerate(_by_weight(call.floats(), _ascending(call))):
        row, tag = call.rows[i]
        yield (rank, *row), tag


def _normalize(call: _Call[T], soft: bool = False) -> Iterable[Tagged[T]]:
    if not call.rows or not call.algebra.normalizes:
        return call.rows
    weights = call.weights()
    if soft:
        weights = [w.exp() if isinstance(w, Tensor) else math.exp(w) for w in weights]
    total = sum(weights)
    if not isinstance(total, Tensor) and total == 0:
        call.dropped("division by zero")
        return []
    tags = call.algebra.alternatives(
        (call.declaration.head, call.group), [weight / total for weight in weights]
    )
    return [(row, tag) for (row, _), tag in zip(call.rows, tags, strict=True)]


def _softmax(call: _Call[T]) -> Iterable[Tagged[T]]:
    return _normalize(call, True)


def _disjunct(call: _Call[T]) -> Iterator[Tagged[T]]:
    algebra, arguments = call.algebra, call.arguments
    for key, alternatives in groupby(call.rows, lambda entry: entry[0][:arguments]):
        rows = list(alternatives)
        tags = algebra.choices((call.declaration.head, call.group, key), len(rows))
        for (row, tag), one in zip(rows, tags, strict=True):
            yield row, algebra.mult(tag, one)


def _top(call: _Call[T]) -> Sequence[Tagged[T]]:
    count = int(call.declaration.parameters[0]) if call.declaration.parameters else 1  # type: ignore[call-overload]
    if len(call.rows) <= count:
        return call.rows
    return [call.rows[i] for i in _by_weight(call.floats())[:count]]


def _categorical(call: _Call[T]) -> Sequence[Tagged[T]]:
    return _draw(call, call.floats)


def _uniform(call: _Call[T]) -> Sequence[Tagged[T]]:
    return _draw(call, lambda: [1.0] * len(call.rows))


def _draw(call: _Call[T], weights: Callable[[], list[float]]) -> Sequence[Tagged[T]]:
    """As many rows as asked for, drawn with replacement: each that is drawn, once."""
    count = int(call.declaration.parameters[0])  # type: ignore[call-overload]
    if len(call.rows) <= count:
        return call.rows
    probabilities = torch.tensor(weights(), dtype=torch.float64)
    if not count or not bool(probabilities.sum() > 0):
        return []
    drawn = torch.multinomial(probabilities, count, replacement=True, generator=call.generator)
    return [call.rows[i] for i in sorted(set(drawn.tolist()))]


_OPERATORS: dict[str, Callable[[_Call[Any]], Iterable[Tagged[Any]]]] = {
    "count": _count,
    "sum": _sum,
    "prod": _prod,
    "avg": _avg,
    "weighted_sum": _weighted_sum,
    "weighted_avg": _weighted_avg,
    "min": _min,
    "max": _max,
    "argmin": _argmin,
    "argmax": _argmax,
    "exists": _exists,
    "forall": _forall,
    "string_join": _string_join,
    "sort": _sort,
    "argsort": _argsort,
    "enumerate": _enumerate,
    "rank": _rank,
    "normalize": _normalize,
    "softmax": _softmax,
    "disjunct": _disjunct,
    "top": _top,
    "unique": _top,
    "categorical": _categorical,
    "uniform": _uniform,
}
