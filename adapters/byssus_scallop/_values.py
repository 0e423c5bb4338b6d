"""Values: how the engine holds them, where they come from, and how they are shown.

Integers are Python ints, floats are floats (those of type `f32` rounded to one), text of any kind
is a str. A date is an aware `datetime` in UTC, to the microsecond. Not-a-number is no value.
"""

from __future__ import annotations

import functools
import re
import struct
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from byssus import DomainError

from ._dates import DateError, Duration, parse_datetime, parse_duration
from ._types import FAMILIES, RANGES

__all__ = [
    "Dropped",
    "Duration",
    "Entity",
    "Tensor",
    "cast",
    "convert",
    "display",
    "export",
    "literal",
    "parse",
    "rounded",
    "show",
]

_FLOATS = FAMILIES["Float"]
_NUMBERS = FAMILIES["Number"]


class Dropped(Exception):  # noqa: N818
    """An expression without a result; its tuple is dropped and the reason counted.

    Attributes:
        reason: a few words of a small set ("overflow", "division by zero", "not a number").
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Entity(int):
    """An entity: the 64-bit name of an object of an algebraic data type."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"entity({self:#x})"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as a value: the same as another if it is the same object, or the same expression.

    Attributes:
        value: the tensor.
        origin: the operation that it comes from and its operands; None for one that was given.
    """

    value: Any
    origin: tuple[Any, ...] | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensor):
            return NotImplemented
        if self.origin is None or other.origin is None:
            return self.value is other.value
        return self.origin == other.origin

    def __hash__(self) -> int:
        return hash(id(self.value) if self.origin is None else self.origin)


_FLOAT32 = struct.Struct("f")


def rounded(value: float) -> float:
    """The closest `f32`; infinite where there is none.

    Raises:
        Dropped: for not-a-number.
    """
    try:
        (value,) = _FLOAT32.unpack(_FLOAT32.pack(value))
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    if value != value:
        raise Dropped("not a number")
    return value


# From Python


def convert(value: Any, type_: str, what: str) -> Any:
    """A user's Python value as a value of a type.

    Args:
        value: Python's own, a numpy scalar, or a tensor of no dimensions. DateTime and Duration
            also as strings.
        type_: the name of a value type.
        what: what is given, for the message: "argument 2 of edge".

    Raises:
        DomainError: if it is none of the type; says what was expected and what came.
    """
    if type_ == "Tensor":
        if isinstance(value, Tensor):
            return value
        if hasattr(value, "shape"):
            return Tensor(value)
        raise _unexpected(value, type_, what)
    given = value
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    try:
        if type_ in RANGES:
            if isinstance(value, int) and not isinstance(value, bool):
                least, greatest = RANGES[type_]
                if least <= value <= greatest:
                    return int(value)
        elif type_ in _FLOATS:
            if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
                return rounded(float(value)) if type_ == "f32" else float(value)
        elif type_ == "bool":
            if isinstance(value, bool):
                return value
        elif type_ == "char":
            if isinstance(value, str) and len(value) == 1:
                return str.__str__(value)
        elif type_ in ("String", "Symbol"):
            if isinstance(value, str):
                return str.__str__(value)
        elif type_ == "DateTime":
            if isinstance(value, datetime):
                return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)
            if isinstance(value, date):
                return datetime(value.year, value.month, value.day, tzinfo=UTC)
            if isinstance(value, str):
                return parse_datetime(value)
        elif type_ == "Duration":
            if isinstance(value, Duration):
                return value
            if isinstance(value, timedelta):
                return Duration.of(value)
            if isinstance(value, str):
                return parse_duration(value)
        elif (
            type_ == "Entity"
            and isinstance(value, int)
            and not isinstance(value, bool)
            and 0 <= value <= RANGES["u64"][1]
        ):
            return Entity(value)
    except (DateError, OverflowError):
        pass
    raise _unexpected(given, type_, what)


_EXPECTED = {
    "char": "a string of one character (char)",
    "String": "a string",
    "Symbol": "a string (Symbol)",
    "DateTime": "a datetime, or a string such as '2020-01-31 10:00' (DateTime)",
    "Duration": "a timedelta, or a string such as '3 days 2 hours' (Duration)",
    "Entity": "an entity",
    "Tensor": "a tensor",
    "bool": "a bool",
    "f32": "a number (f32), and not nan",
    "f64": "a number (f64), and not nan",
}


def _unexpected(value: Any, type_: str, what: str) -> DomainError:
    if type_ in RANGES:
        expected = "an int from {} to {} ({})".format(*RANGES[type_], type_)
    else:
        expected = _EXPECTED.get(type_, f"a {type_}")
    return DomainError(f"{what} must be {expected}, but is {value!r} ({value.__class__.__name__}).")


# From the program


def literal(kind: str, value: Any, type_: str) -> Any:
    """The value of a constant of the program (`_syntax.Constant`) as a type.

    Raises:
        DomainError: without a place, if it is none.
    """
    if kind == "datetime":
        try:
            return parse_datetime(value)
        except DateError:
            raise DomainError(
                f'{value!r} is no DateTime: write t"2020-01-31" or t"2020-01-31 10:30:00".'
            ) from None
    if kind == "duration":
        try:
            return parse_duration(value)
        except DateError:
            raise DomainError(
                f'{value!r} is no Duration: write numbers with units, as in d"3 days 2 hours".'
            ) from None
    return convert(value, type_, f"the constant {value!r}")


# From text

_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?(inf|infinity|([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?)", re.IGNORECASE)


def parse(text: str, type_: str) -> Any:
    """A value from text: of a CSV file, or a String that is cast.

    Raises:
        Dropped: if the text is no value of the type.
    """
    if type_ in RANGES:
        if _INTEGER.fullmatch(text):
            try:
                return _in_range(int(text), type_)
            except ValueError:
                pass  # more digits than Python reads
    elif type_ in _FLOATS:
        if _FLOAT.fullmatch(text):
            return rounded(float(text)) if type_ == "f32" else float(text)
    elif type_ == "bool":
        if text in ("true", "false"):
            return text == "true"
    elif type_ == "char":
        if len(text) == 1:
            return text
    elif type_ in ("String", "Symbol"):
        return text
    elif type_ in ("DateTime", "Duration"):
        try:
            return parse_datetime(text) if type_ == "DateTime" else parse_duration(text)
        except DateError:
            pass
    raise Dropped(f"text that is no {type_}")


def _in_range(value: int, type_: str) -> int:
    least, greatest = RANGES[type_]
    if not least <= value <= greatest:
        raise Dropped(f"text that is no {type_}")
    return value


# From one type to another


def cast(source: str, target: str) -> Callable[[Any], Any]:
    """The function that `as` is, between two types that are `castable`; it may raise Dropped.

    An integer that the target has no room for loses its upper bits. A float loses its fraction,
    and becomes the closest integer that there is. A character is a digit.
    """
    if source == target:
        return _same
    if target == "String":
        return functools.partial(display, type_=source)
    if source == "String" or (source == "char" and target in _FLOATS):
        return functools.partial(parse, type_=target)
    if source == "char":
        return functools.partial(_digit, type_=target)
    if target == "f32":
        return lambda value: rounded(float(value))
    if target == "f64":
        return float
    least, greatest = RANGES[target]
    if source in _FLOATS:
        return lambda value: (
            least if value <= least else greatest if value >= greatest else int(value)
        )
    low, high = RANGES[source]
    if least <= low and high <= greatest:
        return _same
    size = greatest - least + 1
    return lambda value: (value - least) % size + least


def _same(value: Any) -> Any:
    return value


def _digit(character: str, type_: str) -> int:
    if character not in "0123456789":
        raise Dropped(f"text that is no {type_}")
    return int(character)


# To text


def show(value: Any, type_: str) -> str:
    """A value as a query prints it, strings in quotes."""
    if type_ == "String":
        return '"' + "".join(map(_escaped, value)) + '"'
    if type_ == "char":
        return f"'{value}'"
    if type_ in _QUOTED:
        return f'{_QUOTED[type_]}"{display(value, type_)}"'
    return display(value, type_)


_QUOTED = {"Symbol": "s", "DateTime": "t", "Duration": "d"}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable() and not unicodedata.category(character).startswith("M"):
        return character
    return f"\\u{{{ord(character):x}}}"


def display(value: Any, type_: str) -> str:
    """A value as `as String` and `$format` make it, without quotes."""
    if type_ in _FLOATS:
        number = np.float32(value) if type_ == "f32" else np.float64(value)
        return np.format_float_positional(number, unique=True, trim="-")
    if type_ == "bool":
        return "true" if value else "false"
    if type_ == "DateTime":
        return _datetime_text(value)
    if type_ == "Entity":
        return f"entity({value:#x})"
    return "tensor" if type_ == "Tensor" else str(value)


def _datetime_text(value: datetime) -> str:
    precision = "milliseconds" if value.microsecond % 1000 == 0 else "microseconds"
    timespec = precision if value.microsecond else "seconds"
    return value.replace(tzinfo=None).isoformat(" ", timespec) + " UTC"


def export(value: Any, type_: str) -> Any:
    """A value as Python code gets it from scallopy: dates and durations as strings."""
    if type_ in ("DateTime", "Duration"):
        return display(value, type_)
    return value.value if type_ == "Tensor" else value
