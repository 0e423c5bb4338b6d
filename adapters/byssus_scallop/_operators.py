"""The operators of the language on values of each type.

As in Scallop, sums and differences of integers stop at the ends of their range. Where Scallop stops
altogether (division by zero) or, with other compiler flags, goes on with a wrong number (overflow
of a product), there is no result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from operator import add, mul, sub
from typing import Any

from byssus import ByssusError

from ._dates import shifted
from ._types import RANGES, TYPES
from ._values import Dropped, Duration, Tensor, rounded

__all__ = ["NAMES", "Dropped", "Operator", "operator", "result_types"]


@dataclass(frozen=True)
class Operator:
    """An operator on operands of certain types.

    Attributes:
        result: the type of the result.
        function: of the operands' values; it raises `Dropped` where there is no result.
        source: the same as a Python expression, with places `{0}` and `{1}` for operands (each
            once, in parentheses if need be) and names of `NAMES`. It assigns `_v`.
        written: the same in Scallop's language, where it means exactly the same there.
    """

    result: str
    function: Callable[..., Any]
    source: str
    written: str | None = None


def _overflow() -> Any:
    raise Dropped("overflow")


def _nan() -> Any:
    raise Dropped("not a number")


def _quotient(a: int, b: int) -> int:
    """Rounded towards zero."""
    if a >= 0 and b > 0:
        return a // b
    if b == 0:
        raise Dropped("division by zero")
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _remainder(a: int, b: int) -> int:
    """With the sign of the dividend."""
    if a >= 0 and b > 0:
        return a % b
    if b == 0:
        raise Dropped("division by zero")
    remainder = abs(a) % abs(b)
    return remainder if a >= 0 else -remainder


def _ratio(a: float, b: float) -> float:
    if b:
        return a / b
    return math.copysign(math.inf, a) * math.copysign(1.0, b) if a else math.nan


def _modulo(a: float, b: float) -> float:
    try:
        return math.fmod(a, b)
    except ValueError:
        return math.nan


def _later(when: datetime, by: Duration) -> datetime:
    try:
        return shifted(when, by)
    except OverflowError:
        raise Dropped("overflow") from None


def _earlier(when: datetime, by: Duration) -> datetime:
    return _later(when, -by)


def _between(end: datetime, start: datetime) -> Duration:
    return Duration.of(end - start)


def _part(duration: Duration, divisor: int) -> Duration:
    return Duration(_quotient(duration.months, divisor), _quotient(duration.nanoseconds, divisor))


def _tensors(symbol: str) -> Callable[[Any, Any], Tensor]:
    apply = {"+": add, "-": sub, "*": mul}[symbol]

    def combined(a: Any, b: Any) -> Tensor:
        x, y = (v.value if isinstance(v, Tensor) else v for v in (a, b))
        left, right = (tuple(getattr(v, "shape", ())) for v in (x, y))
        if left != right and not (symbol == "*" and () in (left, right)):
            raise Dropped("tensors of different shapes")
        return Tensor(apply(x, y), (symbol, a, b))

    return combined


NAMES: dict[str, Callable[..., Any]] = {
    "overflow": _overflow,
    "nan": _nan,
    "f32": rounded,
    "quotient": _quotient,
    "remainder": _remainder,
    "ratio": _ratio,
    "modulo": _modulo,
    "later": _later,
    "earlier": _earlier,
    "between": _between,
    "part": _part,
    "add_tensors": _tensors("+"),
    "subtract_tensors": _tensors("-"),
    "multiply_tensors": _tensors("*"),
}
"""What the sources of operators call."""

# The order is that of preference, where more than one type is possible.
_INTEGERS = sorted(RANGES, key=lambda name: (name != "i32", name != "u32"))
_ORDERED = [*_INTEGERS, "f32", "f64", "DateTime", "Duration"]
_COMPARED = ["i32", *sorted(TYPES - {"i32", "Tensor"})]


def _sources() -> dict[tuple[str, ...], tuple[str, str]]:
    """From an operator and the types of its operands to the type of the result and the source."""
    table: dict[tuple[str, ...], tuple[str, str]] = {}
    for name in _INTEGERS:
        least, greatest = RANGES[name]
        fits = f"_v if {least} <= (_v := {{0}} %s {{1}}) <= {greatest} else %s"
        for op in "+-":
            table[op, name, name] = name, fits % (op, f"{greatest} if _v > 0 else {least}")
        table["*", name, name] = name, fits % ("*", "overflow()")
        # The least integer divided by -1 is one more than the greatest.
        table["/", name, name] = (
            name,
            f"_v if (_v := quotient({{0}}, {{1}})) <= {greatest} else overflow()",
        )
        table["%", name, name] = name, "remainder({0}, {1})"
        table["+", name] = name, "{0}"
        if least:
            table["-", name] = name, f"_v if (_v := -{{0}}) <= {greatest} else overflow()"
    for name, checked in ("f32", "f32(%s)"), ("f64", "_v if (_v := %s) == _v else nan()"):
        for op in "+-*":
            table[op, name, name] = name, checked % f"{{0}} {op} {{1}}"
        table["/", name, name] = name, checked % "ratio({0}, {1})"
        table["%", name, name] = name, checked % "modulo({0}, {1})"
        table["+", name] = name, "{0}"
        table["-", name] = name, "-{0}"
    table["+", "String", "String"] = "String", "{0} + {1}"
    table["+", "DateTime", "Duration"] = "DateTime", "later({0}, {1})"
    table["+", "Duration", "DateTime"] = "DateTime", "later({1}, {0})"
    table["-", "DateTime", "Duration"] = "DateTime", "earlier({0}, {1})"
    table["-", "DateTime", "DateTime"] = "Duration", "between({0}, {1})"
    for op in "+-":
        table[op, "Duration", "Duration"] = "Duration", f"{{0}} {op} {{1}}"
    table["*", "Duration", "i32"] = table["*", "i32", "Duration"] = "Duration", "{0} * {1}"
    table["/", "Duration", "i32"] = "Duration", "part({0}, {1})"
    for op, function in ("+", "add_tensors"), ("-", "subtract_tensors"), ("*", "multiply_tensors"):
        for types in ("Tensor", "Tensor"), ("Tensor", "f64"), ("f64", "Tensor"):
            table[op, *types] = "Tensor", f"{function}({{0}}, {{1}})"
    # Not `and` and `or`: both operands are evaluated, so that one without a result always counts.
    for op, source in ("&&", "{0} & {1}"), ("||", "{0} | {1}"), ("^", "{0} ^ {1}"):
        table[op, "bool", "bool"] = "bool", source
    table["!", "bool"] = "bool", "not {0}"
    for op in ("==", "!="):
        for name in _COMPARED:
            table[op, name, name] = "bool", f"{{0}} {op} {{1}}"
    for op in ("<", "<=", ">", ">="):
        for name in _ORDERED:
            table[op, name, name] = "bool", f"{{0}} {op} {{1}}"
    return table


_SOURCES = _sources()


def _compiled(source: str, arity: int) -> Callable[..., Any]:
    parameters = ["a", "b"][:arity]
    text = f"lambda {', '.join(parameters)}: ({source.format(*parameters)})"
    function: Callable[..., Any] = eval(text, dict(NAMES))
    return function


def _written(op: str, *types: str) -> str | None:
    """An operator in Scallop's language, where Scallop cannot wrap around or panic."""
    if not set(types) <= {*RANGES, "bool", "char", "String", "f32", "f64"}:
        return None
    saturating = op in ("+", "-") and len(types) == 2 and types[0] in RANGES
    if saturating or op in ("==", "!=", "<", "<=", ">", ">=", "&&", "||", "^"):
        return f"({{0}} {op} {{1}})"
    return "(!{0})" if op == "!" else None


_OPERATORS = {
    key: Operator(result, _compiled(source, len(key) - 1), source, _written(*key))
    for key, (result, source) in _SOURCES.items()
}


def operator(op: str, operands: tuple[str, ...]) -> Operator:
    """The operator (one operand or two) on operands of these types.

    Raises:
        ByssusError: if there is none.
    """
    try:
        return _OPERATORS[op, *operands]
    except KeyError:
        types = " and ".join(operands)
        raise ByssusError(
            f"There is no operator {op} for {types}. Cast the operands with `as`."
        ) from None


def result_types(op: str, arity: int = 2) -> list[tuple[str, ...]]:
    """The types that an operator exists for: of its operands, then of its result; likely first."""
    return [
        (*key[1:], found.result)
        for key, found in _OPERATORS.items()
        if key[0] == op and len(key) == arity + 1
    ]
