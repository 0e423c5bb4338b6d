"""The standard functions, `$name(...)`.

Positions in strings count bytes of UTF-8, as in Scallop, except for `$string_char_at`, which counts
characters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np

from ._hash import hashed
from ._types import FAMILIES, RANGES
from ._values import Dropped, Tensor, display, rounded
from .foreign import ForeignFunction

__all__ = ["FUNCTIONS", "byte_offset"]

_FLOATS = FAMILIES["Float"]


def _float_function(
    name: str, compute: Callable[..., float], arity: int = 1, positive: bool = False
) -> ForeignFunction:
    """A function of floats; `positive` if of positive ones only."""

    def implement(types: tuple[str, ...], result: str) -> Callable[..., float]:
        def function(*arguments: float) -> float:
            if positive and arguments[0] <= 0:
                raise Dropped("logarithm of no positive number")
            try:
                value = compute(*arguments)
            except OverflowError:
                value = math.inf
            except ValueError:
                value = math.nan
            if value != value:
                raise Dropped("not a number")
            return rounded(value) if result == "f32" else value

        return function

    return ForeignFunction(name, ("T",) * arity, "T", implement, {"T": "Float"})


def _powf(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except (OverflowError, ValueError):
        # numpy tells the infinities, of either sign, from what is not a number.
        with np.errstate(all="ignore"):
            return float(np.power(base, exponent))


def _number_function(
    name: str, on_integer: Callable[[int, str], int], on_float: Callable[[float], float]
) -> ForeignFunction:
    """A function of a number whose result is of the same type."""

    def implement(types: tuple[str, ...], result: str) -> Callable[..., Any]:
        if result in _FLOATS:
            return on_float
        return lambda value: on_integer(value, result)

    return ForeignFunction(name, ("T",), "T", implement, {"T": "Number"})


def _plain(
    name: str, arguments: tuple[str, ...], result: str, function: Callable[..., Any], **more: Any
) -> ForeignFunction:
    """A function that does the same for all types."""
    return ForeignFunction(name, arguments, result, lambda types, result: function, **more)


def _fitting(value: int, type_: str) -> int:
    least, greatest = RANGES[type_]
    if not least <= value <= greatest:
        raise Dropped("overflow")
    return value


def _whole(rounding: Callable[[float], int], value: float) -> float:
    return float(rounding(value)) if math.isfinite(value) else value


def _extreme(pick: Callable[..., Any]) -> Callable[..., Any]:
    def function(*arguments: Any) -> Any:
        if not arguments:
            raise Dropped("no arguments")
        return pick(arguments)

    return function


def _power(types: tuple[str, ...], result: str) -> Callable[[int, int], int]:
    def power(base: int, exponent: int) -> int:
        # No type has more than 128 bits: do not compute what cannot fit.
        if exponent > 128 and abs(base) > 1:
            raise Dropped("overflow")
        return _fitting(base**exponent, result)

    return power


def _hash(types: tuple[str, ...], result: str) -> Callable[..., int]:
    return lambda *arguments: hashed(arguments, types)


def _format(types: tuple[str, ...], result: str) -> Callable[..., str]:
    def function(template: str, *arguments: Any) -> str:
        first, *rest = template.split("{}")
        if len(rest) != len(arguments):
            raise Dropped("another number of places than of arguments in $format")
        shown = map(display, arguments, types[1:])
        return first + "".join(a + b for a, b in zip(shown, rest, strict=True))

    return function


def byte_offset(text: str, index: int) -> int:
    """The number of bytes before a character."""
    return index if text.isascii() else len(text[:index].encode())


def _index_of(text: str, pattern: str) -> int:
    index = text.find(pattern)
    if index < 0:
        raise Dropped("no such part of a string")
    return byte_offset(text, index)


def _char_at(text: str, index: int) -> str:
    if index >= len(text):
        raise Dropped("position outside a string")
    return text[index]


def _substring(text: str, start: int, end: int | None = None) -> str:
    data = text.encode()
    end = len(data) if end is None else end
    try:
        if start <= end <= len(data):
            return data[start:end].decode()
    except UnicodeDecodeError:
        pass  # inside a character
    raise Dropped("position outside a string")


_UPPER = {c: c - 32 for c in range(ord("a"), ord("z") + 1)}
_LOWER = {c: c + 32 for c in range(ord("A"), ord("Z") + 1)}
# Unicode's White_Space; `str.strip` alone takes the separators U+001C to U+001F too.
_SPACE = "".join(c for c in map(chr, range(0x3001)) if c.isspace() and c not in "\x1c\x1d\x1e\x1f")


def _dot(a: Tensor, b: Tensor) -> Tensor:
    if len(a.value.shape) != 1 or tuple(a.value.shape) != tuple(b.value.shape):
        raise Dropped("tensors of different shapes")
    return Tensor(a.value @ b.value, ("dot", a, b))


def _datetime(name: str, result: str, function: Callable[[datetime], int]) -> ForeignFunction:
    return _plain(f"datetime_{name}", ("DateTime",), result, function)


def _sign_of_float(value: float) -> float:
    return float((value > 0) - (value < 0))


def _sign_of_integer(value: int, type_: str) -> int:
    # Of unsigned zero, too, Scallop's sign is 1.
    return (value > 0) - (value < 0) if RANGES[type_][0] else 1


def _same(value: int, type_: str) -> int:
    return value


_TEXT = ("String",)

FUNCTIONS: dict[str, ForeignFunction] = {
    function.name: function
    for function in [
        _number_function("abs", lambda value, type_: _fitting(abs(value), type_), abs),
        _number_function("floor", _same, lambda value: _whole(math.floor, value)),
        _number_function("ceil", _same, lambda value: _whole(math.ceil, value)),
        _number_function("sign", _sign_of_integer, _sign_of_float),
        _float_function("exp", math.exp),
        _float_function("exp2", math.exp2),
        _float_function("log", math.log, positive=True),
        _float_function("log2", math.log2, positive=True),
        _float_function("sin", math.sin),
        _float_function("cos", math.cos),
        _float_function("tan", math.tan),
        _float_function("asin", math.asin),
        _float_function("acos", math.acos),
        _float_function("atan", math.atan),
        _float_function("atan2", math.atan2, 2),
        _float_function("powf", _powf, 2),
        ForeignFunction("pow", ("T", "u32"), "T", _power, {"T": "Integer"}),
        _plain("max", (), "T", _extreme(max), generics={"T": "Number"}, variadic="T"),
        _plain("min", (), "T", _extreme(min), generics={"T": "Number"}, variadic="T"),
        _plain("string_concat", (), "String", lambda *parts: "".join(parts), variadic="String"),
        _plain("string_length", _TEXT, "usize", lambda text: byte_offset(text, len(text))),
        _plain("string_char_at", ("String", "usize"), "char", _char_at),
        _plain("substring", ("String", "usize"), "String", _substring, optional=("usize",)),
        _plain("string_upper", _TEXT, "String", lambda text: text.translate(_UPPER)),
        _plain("string_lower", _TEXT, "String", lambda text: text.translate(_LOWER)),
        _plain("string_trim", _TEXT, "String", lambda text: text.strip(_SPACE)),
        _plain("string_index_of", _TEXT * 2, "usize", _index_of),
        _plain("string_replace", _TEXT * 3, "String", str.replace),
        ForeignFunction("format", _TEXT, "String", _format, variadic="Any"),
        ForeignFunction("hash", (), "u64", _hash, variadic="Any"),
        _datetime("day", "u32", lambda when: when.day),
        _datetime("month", "u32", lambda when: when.month),
        _datetime("month0", "u32", lambda when: when.month - 1),
        _datetime("year", "i32", lambda when: when.year),
        _plain("dim", ("Tensor",), "usize", lambda tensor: len(tensor.value.shape)),
        _plain("dot", ("Tensor", "Tensor"), "Tensor", _dot),
    ]
}
"""By name, without the dollar; `parse_entity` apart, which needs a program's own types."""
