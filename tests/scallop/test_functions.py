"""The standard functions: the book's table, and what the real Scallop gives at the edges."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from byssus_scallop._functions import FUNCTIONS
from byssus_scallop._operators import Dropped
from byssus_scallop._types import FAMILIES, RANGES, TYPES
from byssus_scallop._values import Duration, Entity, Tensor

# All of Scallop's, but for $parse_entity.
NAMES = [
    "abs",
    "acos",
    "asin",
    "atan",
    "atan2",
    "ceil",
    "cos",
    "datetime_day",
    "datetime_month",
    "datetime_month0",
    "datetime_year",
    "dim",
    "dot",
    "exp",
    "exp2",
    "floor",
    "format",
    "hash",
    "log",
    "log2",
    "max",
    "min",
    "pow",
    "powf",
    "sign",
    "sin",
    "string_char_at",
    "string_concat",
    "string_index_of",
    "string_length",
    "string_lower",
    "string_replace",
    "string_trim",
    "string_upper",
    "substring",
    "tan",
]

BASE = datetime(2023, 1, 1, tzinfo=UTC)


def call(name: str, types: str, *arguments: Any) -> Any:
    """`$name(arguments)` of arguments and a result of these types; the reason if it has none."""
    *given, result = types.split()
    try:
        return FUNCTIONS[name].implement(tuple(given), result)(*arguments)
    except Dropped as dropped:
        return dropped.reason


def test_all_are_there() -> None:
    assert sorted(FUNCTIONS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_types_are_known(name: str) -> None:
    function = FUNCTIONS[name]
    assert function.name == name
    known = TYPES | FAMILIES.keys() | function.generics.keys()
    types = [*function.arguments, *function.optional, function.result]
    assert {*types, function.variadic or function.result} <= known
    assert set(function.generics.values()) <= FAMILIES.keys()


@pytest.mark.parametrize(
    ("name", "types", "arguments", "expected"),
    [
        # The book's table.
        ("abs", "i32 i32", (-1,), 1),
        ("acos", "f32 f32", (0.0,), 1.5708),
        ("atan", "f32 f32", (0.0,), 0.0),
        ("atan2", "f32 f32 f32", (0.0, 1.0), 0.0),
        ("ceil", "f32 f32", (0.5,), 1.0),
        ("cos", "f32 f32", (0.0,), 1.0),
        ("datetime_day", "DateTime u32", (BASE,), 1),
        ("datetime_month", "DateTime u32", (BASE,), 1),
        ("datetime_month0", "DateTime u32", (BASE,), 0),
        ("datetime_year", "DateTime i32", (BASE,), 2023),
        ("exp", "f32 f32", (0.0,), 1.0),
        ("exp2", "f32 f32", (2.0,), 4.0),
        ("floor", "f32 f32", (1.5,), 1.0),
        ("format", "String i32 String String", ("{} + {}", 3, "a"), "3 + a"),
        ("format", "String bool String", ("{}", True), "true"),
        ("hash", "String i32 f32 u64", ("a", 3, 5.5), 5862532063111067262),
        ("log", "f32 f32", (1.0,), 0.0),
        ("log2", "f32 f32", (4.0,), 2.0),
        ("max", "f32 f32 f32 f32", (4.0, 1.0, 9.5), 9.5),
        ("min", "f32 f32 f32 f32", (4.0, 1.0, 9.5), 1.0),
        ("pow", "i32 u32 i32", (2, 5), 32),
        ("powf", "f32 f32 f32", (4.0, 0.5), 2.0),
        ("sign", "f32 f32", (-3.0,), -1.0),
        ("sin", "f32 f32", (0.0,), 0.0),
        ("string_char_at", "String usize char", ("hello", 2), "l"),
        ("string_concat", "String String String String", ("hello", " ", "world"), "hello world"),
        ("string_index_of", "String String usize", ("hello world", "world"), 6),
        ("string_length", "String usize", ("hello",), 5),
        ("string_lower", "String String", ("LisA",), "lisa"),
        ("string_trim", "String String", ("  hello ",), "hello"),
        ("string_upper", "String String", ("LisA",), "LISA"),
        ("substring", "String usize String", ("hello world", 6), "world"),
        ("substring", "String usize String", ("hello", 3), "lo"),
        ("substring", "String usize usize String", ("hello", 1, 3), "el"),
        ("tan", "f32 f32", (0.0,), 0.0),
        # Other inputs.
        ("string_replace", "String String String String", ("abcb", "b", "-"), "a-c-"),
        ("abs", "u8 u8", (200,), 200),
        ("abs", "f64 f64", (-1.5,), 1.5),
        ("floor", "i8 i8", (-3,), -3),
        ("floor", "f64 f64", (-1.5,), -2.0),
        ("floor", "f64 f64", (math.inf,), math.inf),
        ("ceil", "f64 f64", (-1.5,), -1.0),
        ("sign", "i32 i32", (-5,), -1),
        ("sign", "i32 i32", (0,), 0),
        ("sign", "f64 f64", (0.0,), 0.0),
        ("sign", "u8 u8", (0,), 1),
        ("exp", "f32 f32", (1000.0,), math.inf),
        ("tan", "f32 f32", (1.0,), float(np.float32(1.5574077))),
        ("asin", "f64 f64", (1.0,), math.pi / 2),
        ("powf", "f64 f64 f64", (0.0, -1.0), math.inf),
        ("powf", "f64 f64 f64", (-10.0, 309.0), -math.inf),
        ("powf", "f32 f32 f32", (10.0, 39.0), math.inf),
        ("pow", "i32 u32 i32", (0, 0), 1),
        ("pow", "i32 u32 i32", (-1, 2**32 - 1), -1),
        ("max", "i32 i32 i32", (-7, 3), 3),
        ("string_concat", "String", (), ""),
        ("string_replace", "String String String String", ("aaa", "", "-"), "-a-a-a-"),
        ("string_trim", "String String", ("\u00a0 x\t\n\u3000",), "x"),
        ("string_trim", "String String", ("\x1fx",), "\x1fx"),
        ("string_upper", "String String", ("éa",), "éA"),
        ("string_lower", "String String", ("ÀB",), "Àb"),
        ("substring", "String usize String", ("hello", 5), ""),
        ("format", "String i32 f32 char String", ("{}{}: {}", 1, 1.0, "c"), "11: c"),
        ("format", "String i32 String", ("{{}}", 2), "{2}"),
        ("format", "String Symbol String", ("{}", "s"), "s"),
        (
            "format",
            "String DateTime Duration Entity String",
            ("{} {} {}", BASE, Duration(1, 0), Entity(255)),
            "2023-01-01 00:00:00 UTC R1MO P0D entity(0xff)",
        ),
        # Bytes, as in Scallop, but for single characters.
        ("string_length", "String usize", ("naïve",), 6),
        ("string_index_of", "String String usize", ("naïve", "v"), 4),
        ("substring", "String usize usize String", ("naïve", 2, 4), "ï"),
        ("string_char_at", "String usize char", ("naïve", 3), "v"),
        # No result.
        ("abs", "i32 i32", (-(2**31),), "overflow"),
        ("pow", "i32 u32 i32", (7, 40), "overflow"),
        ("pow", "u128 u32 u128", (2, 2**32 - 1), "overflow"),
        ("log", "f32 f32", (0.0,), "logarithm of no positive number"),
        ("log2", "f64 f64", (-1.0,), "logarithm of no positive number"),
        ("asin", "f32 f32", (2.0,), "not a number"),
        ("acos", "f32 f32", (-1.5,), "not a number"),
        ("powf", "f32 f32 f32", (-1.0, 0.5), "not a number"),
        ("sin", "f64 f64", (math.inf,), "not a number"),
        ("max", "i32", (), "no arguments"),
        ("string_char_at", "String usize char", ("hello", 5), "position outside a string"),
        ("substring", "String usize String", ("hello", 7), "position outside a string"),
        ("substring", "String usize usize String", ("hello", 3, 1), "position outside a string"),
        ("substring", "String usize String", ("héllo", 2), "position outside a string"),
        ("string_index_of", "String String usize", ("hello", "z"), "no such part of a string"),
        (
            "format",
            "String i32 String",
            ("{} {}", 1),
            "another number of places than of arguments in $format",
        ),
        ("hash", "Tensor u64", (Tensor(torch.ones(1)),), "a tensor has no hash"),
    ],
)
def test_functions(name: str, types: str, arguments: tuple[Any, ...], expected: Any) -> None:
    result = call(name, types, *arguments)
    if name == "acos" and isinstance(result, float):
        assert result == pytest.approx(expected, abs=1e-5)
    else:
        assert result == expected
        assert type(result) is type(expected)


@given(st.integers(*RANGES["i64"]), st.integers(0, 200))
def test_powers(base: int, exponent: int) -> None:
    least, greatest = RANGES["i64"]
    power = base**exponent
    expected = power if least <= power <= greatest else "overflow"
    assert call("pow", "i64 u32 i64", base, exponent) == expected


@given(st.floats(width=32, allow_nan=False))
def test_results_in_f32_are_f32(value: float) -> None:
    for name in ["sin", "cos", "exp", "atan", "log"]:
        result = call(name, "f32 f32", value)
        assert isinstance(result, str) or result == float(np.float32(result))


@given(st.text(st.characters(codec="utf-8")), st.integers(0, 20), st.integers(0, 20))
def test_substrings_are_those_of_utf_8(text: str, start: int, end: int) -> None:
    data = text.encode()
    try:
        expected = data[start:end].decode() if start <= end <= len(data) else None
    except UnicodeDecodeError:
        expected = None
    assert call("substring", "String usize usize String", text, start, end) == (
        "position outside a string" if expected is None else expected
    )


def test_tensors() -> None:
    a, b = Tensor(torch.tensor([1.0, 2.0])), Tensor(torch.tensor([3.0, 4.0]))
    assert call("dim", "Tensor usize", Tensor(torch.ones(2, 3))) == 2
    product = call("dot", "Tensor Tensor Tensor", a, b)
    assert product.value.item() == 11.0
    assert product == call("dot", "Tensor Tensor Tensor", a, b)
    for other in [Tensor(torch.ones(3)), Tensor(torch.ones(2, 2))]:
        reason = call("dot", "Tensor Tensor Tensor", a, other)
        assert reason == "tensors of different shapes"
