"""Values and operators against Scallop's own results and Python's integers with bounds."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from byssus import ByssusError, DomainError
from byssus_scallop import value_types
from byssus_scallop._hash import hashed
from byssus_scallop._operators import NAMES, Dropped, operator, result_types
from byssus_scallop._types import FAMILIES, RANGES, TYPES, castable, default, python_type
from byssus_scallop._values import (
    Duration,
    Entity,
    Tensor,
    cast,
    convert,
    display,
    export,
    literal,
    parse,
    show,
)

INTEGERS = sorted(RANGES)
SECOND = 10**9
INF = math.inf


def integers(type_: str) -> st.SearchStrategy[int]:
    least, greatest = RANGES[type_]
    near = st.integers(0, 3).flatmap(lambda i: st.sampled_from([least + i, greatest - i]))
    return near | st.integers(least, greatest) | st.integers(max(least, -9), 9)


def apply(op: str, types: tuple[str, ...], *values: Any) -> Any:
    """The result of an operator; the reason if there is none. Its two forms must agree."""
    found = operator(op, types)
    given = dict(zip("ab", values, strict=False))
    source = found.source.format(*given)
    results = []
    for function in (found.function, lambda *_: eval(source, {**NAMES, **given})):
        try:
            results.append(function(*values))
        except Dropped as dropped:
            results.append(dropped.reason)
    assert results[0] == results[1]
    return results[0]


# Types


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (FAMILIES["Any"], "i32"),
        (FAMILIES["Number"], "i32"),
        (FAMILIES["SignedInteger"], "i32"),
        (FAMILIES["UnsignedInteger"], "u32"),
        (FAMILIES["Float"], "f32"),
        (frozenset({"String"}), "String"),
        (frozenset({"usize"}), "usize"),
    ],
)
def test_the_default_of_a_family(types: frozenset[str], expected: str) -> None:
    assert default(types) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (int, "i32"),
        (bool, "bool"),
        (float, "f32"),
        (str, "String"),
        (torch.Tensor, "Tensor"),
        ("usize", "usize"),
        ("&str", "String"),
        ("colour", "colour"),
        (value_types.i8, "i8"),
        (value_types.DateTime, "DateTime"),
        (value_types.Number, "Number"),
    ],
)
def test_python_objects_name_types(given: Any, expected: str) -> None:
    assert python_type(given) == expected


@pytest.mark.parametrize("given", [None, 3, list, [int], (int,)])
def test_what_is_no_type_is_refused(given: Any) -> None:
    with pytest.raises(ByssusError, match="no type of a relation"):
        python_type(given)


def test_every_type_has_a_python_object() -> None:
    assert set(value_types.__all__) >= TYPES


def test_ranges() -> None:
    assert RANGES["i8"] == (-128, 127)
    assert RANGES["u8"] == (0, 255)
    assert RANGES["isize"] == RANGES["i64"] == (-(2**63), 2**63 - 1)
    assert RANGES["u128"] == (0, 2**128 - 1)


# Arithmetic


@pytest.mark.parametrize("type_", INTEGERS)
@given(data=st.data())
def test_integer_arithmetic(type_: str, data: st.DataObject) -> None:
    least, greatest = RANGES[type_]
    a, b = data.draw(integers(type_)), data.draw(integers(type_))
    types = (type_, type_)
    assert apply("+", types, a, b) == min(max(a + b, least), greatest)
    assert apply("-", types, a, b) == min(max(a - b, least), greatest)
    assert apply("*", types, a, b) == (a * b if least <= a * b <= greatest else "overflow")
    if b == 0:
        assert apply("/", types, a, b) == apply("%", types, a, b) == "division by zero"
    else:
        quotient = (abs(a) // abs(b)) * (1 if a * b >= 0 else -1)
        assert apply("/", types, a, b) == (quotient if quotient <= greatest else "overflow")
        assert apply("%", types, a, b) == a - b * quotient
    for op, expected in [("<", a < b), ("<=", a <= b), (">", a > b), (">=", a >= b)]:
        assert apply(op, types, a, b) is expected
    assert apply("==", types, a, b) is (a == b)
    assert apply("!=", types, a, b) is (a != b)
    assert apply("+", (type_,), a) == a
    if least:
        assert apply("-", (type_,), a) == (-a if -a <= greatest else "overflow")


@pytest.mark.parametrize(
    ("op", "type_", "a", "b", "expected"),
    [
        # As the real Scallop prints them.
        ("/", "i32", -7, 2, -3),
        ("/", "i32", 7, -2, -3),
        ("%", "i32", -7, 2, -1),
        ("%", "i32", 7, -2, 1),
        ("+", "i32", 2**31 - 1, 1, 2**31 - 1),
        ("-", "i32", -(2**31), 1, -(2**31)),
        ("+", "u8", 200, 200, 255),
        ("-", "u8", 3, 100, 0),
        # Where it stops.
        ("/", "i32", -(2**31), -1, "overflow"),
        ("/", "i32", 1, 0, "division by zero"),
        ("/", "f32", 1.0, 0.0, INF),
        ("/", "f32", -1.0, 0.0, -INF),
        ("/", "f64", 1.0, -0.0, -INF),
        ("/", "f32", 0.0, 0.0, "not a number"),
        ("-", "f64", INF, INF, "not a number"),
        ("*", "f32", INF, 0.0, "not a number"),
        ("%", "f64", 5.5, 2.0, 1.5),
        ("%", "f64", -5.5, 2.0, -1.5),
        ("%", "f64", 1.0, 0.0, "not a number"),
        ("+", "f32", 3e38, 3e38, INF),
        ("*", "f64", -1e308, 10.0, -INF),
        ("+", "String", "a", "b", "ab"),
        ("&&", "bool", True, False, False),
        ("||", "bool", True, False, True),
        ("^", "bool", True, True, False),
        ("==", "Symbol", "a", "a", True),
        ("!=", "char", "a", "b", True),
    ],
)
def test_operators(op: str, type_: str, a: Any, b: Any, expected: Any) -> None:
    assert apply(op, (type_, type_), a, b) == expected


@given(st.floats(width=32, allow_nan=False), st.floats(width=32, allow_nan=False))
def test_f32_arithmetic_is_that_of_numpy(a: float, b: float) -> None:
    for op, ufunc in [("+", np.add), ("-", np.subtract), ("*", np.multiply), ("/", np.divide)]:
        with np.errstate(all="ignore"):
            expected = float(ufunc(np.float32(a), np.float32(b)))
        result = apply(op, ("f32", "f32"), a, b)
        assert result == ("not a number" if math.isnan(expected) else expected)


def test_both_operands_are_evaluated() -> None:
    source = operator("&&", ("bool", "bool")).source.format("(False)", "(1 // 0 == 1)")
    with pytest.raises(ZeroDivisionError):
        eval(source)


@pytest.mark.parametrize(
    ("op", "arity", "expected"),
    [
        ("+", 2, ("DateTime", "Duration", "DateTime")),
        ("+", 2, ("Duration", "DateTime", "DateTime")),
        ("-", 2, ("DateTime", "DateTime", "Duration")),
        ("*", 2, ("i32", "Duration", "Duration")),
        ("/", 2, ("Duration", "i32", "Duration")),
        ("*", 2, ("f64", "Tensor", "Tensor")),
        ("%", 2, ("u8", "u8", "u8")),
        ("<", 2, ("DateTime", "DateTime", "bool")),
        ("==", 2, ("Entity", "Entity", "bool")),
        ("!", 1, ("bool", "bool")),
        ("-", 1, ("f64", "f64")),
    ],
)
def test_result_types(op: str, arity: int, expected: tuple[str, ...]) -> None:
    assert expected in result_types(op, arity)


@pytest.mark.parametrize(
    ("op", "arity", "absent"),
    [
        ("<", 2, ("String", "String", "bool")),
        ("+", 2, ("char", "char", "char")),
        ("-", 2, ("String", "String", "String")),
        ("==", 2, ("Tensor", "Tensor", "bool")),
        ("+", 2, ("i32", "i64", "i64")),
        ("-", 1, ("u32", "u32")),
    ],
)
def test_operators_that_do_not_exist(op: str, arity: int, absent: tuple[str, ...]) -> None:
    assert absent not in result_types(op, arity)
    with pytest.raises(ByssusError, match="no operator"):
        operator(op, absent[:-1])


def test_i32_is_the_first_choice() -> None:
    for op in ["+", "-", "*", "/", "%", "<", "==", "!="]:
        assert result_types(op)[0][:2] == ("i32", "i32")


# Dates and lengths of time


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The book's.
        ("2020-01-01", utc(2020, 1, 1)),
        ("2019-11-29 08:08:05-08", utc(2019, 11, 29, 16, 8, 5)),
        ("4/8/2014 22:05", utc(2014, 4, 8, 22, 5)),
        ("September 17, 2012 10:09am", utc(2012, 9, 17, 10, 9)),
        ("2014/04/2 03:00:51", utc(2014, 4, 2, 3, 0, 51)),
        ("2014年04月08日", utc(2014, 4, 8)),
        # Those of the reader that Scallop uses.
        ("1511648546", utc(2017, 11, 25, 22, 22, 26)),
        ("1620021848429", utc(2021, 5, 3, 6, 4, 8, 429000)),
        ("2021-05-01T01:17:02.604456Z", utc(2021, 5, 1, 1, 17, 2, 604456)),
        ("Wed, 02 Jun 2021 06:31:39 GMT", utc(2021, 6, 2, 6, 31, 39)),
        ("2017-11-25 13:31:15 PST", utc(2017, 11, 25, 21, 31, 15)),
        ("2021-Feb-21", utc(2021, 2, 21)),
        ("oct. 7, 1970 11:15:26pm", utc(1970, 10, 7, 23, 15, 26)),
        ("14 May 2019 19:11:40.164", utc(2019, 5, 14, 19, 11, 40, 164000)),
        ("3.31.2014", utc(2014, 3, 31)),
        ("2014.03.30", utc(2014, 3, 30)),
        ("2014年04月08日11时25分18秒", utc(2014, 4, 8, 11, 25, 18)),
    ],
)
def test_dates(text: str, expected: datetime) -> None:
    assert literal("datetime", text, "DateTime") == expected
    assert parse(text, "DateTime") == expected
    assert convert(text, "DateTime", "x") == expected


def test_what_a_date_leaves_out_is_today_or_midnight() -> None:
    before = datetime.now(UTC)
    found = literal("datetime", "4:00pm", "DateTime")
    assert (found.hour, found.minute) == (16, 0)
    assert found.date() in (before.date(), datetime.now(UTC).date())
    found = literal("datetime", "May 27 02:45:27", "DateTime")
    assert (found.month, found.day, found.hour) == (5, 27, 2)
    assert found.year in (before.year, datetime.now(UTC).year)


@pytest.mark.parametrize(
    "text", ["", "foo", "12", "September 2012", "2020-13-01", "10:99", "1 May 2020 10:00 XYZ"]
)
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(DomainError, match="is no DateTime"):
        literal("datetime", text, "DateTime")
    with pytest.raises(Dropped):
        parse(text, "DateTime")


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("12 days", Duration(0, 12 * 86400 * SECOND), "PT1036800S"),
        ("15 days 20 seconds", Duration(0, (15 * 86400 + 20) * SECOND), "PT1296020S"),
        ("5", Duration(0, 5 * SECOND), "PT5S"),
        ("5 n", Duration(0, 5), "PT0.000000005S"),
        ("5 secs", Duration(0, 5 * SECOND), "PT5S"),
        ("5 m", Duration(0, 300 * SECOND), "PT300S"),
        ("5 h", Duration(0, 18000 * SECOND), "PT18000S"),
        ("5 d", Duration(0, 432000 * SECOND), "PT432000S"),
        ("5 w", Duration(0, 3024000 * SECOND), "PT3024000S"),
        ("5 M", Duration(5, 0), "R5MO P0D"),
        ("5 y", Duration(60, 0), "R60MO P0D"),
        ("1.5 hours", Duration(0, 5400 * SECOND), "PT5400S"),
        ("1.5 months", Duration(0, 3944619 * SECOND), "PT3944619S"),
        ("2y", Duration(24, 0), "R24MO P0D"),
        ("3m", Duration(0, 180 * SECOND), "PT180S"),
        ("3M", Duration(3, 0), "R3MO P0D"),
        ("3 weeks 2 hrs", Duration(0, 1821600 * SECOND), "PT1821600S"),
        ("1 nanosecond", Duration(0, 1), "PT0.000000001S"),
        ("7usecs", Duration(0, 7000), "PT0.000007S"),
        ("4msecs", Duration(0, 4 * 10**6), "PT0.004S"),
        ("1e3 s", Duration(0, 1000 * SECOND), "PT1000S"),
        ("1 day -1 hour", Duration(0, 82800 * SECOND), "PT82800S"),
        ("0 s", Duration(0, 0), "P0D"),
        ("1 year 2 months 3 days", Duration(14, 259200 * SECOND), "R14MO PT259200S"),
        ("-1 month", Duration(-1, 0), "R-1MO P0D"),
        ("-1 seconds", Duration(0, -SECOND), "-PT1S"),
        ("-1.5 seconds", Duration(0, -15 * 10**8), "-PT1.5S"),
        ("1 hour, 15 minutes and 29 seconds", Duration(0, 4529 * SECOND), "PT4529S"),
    ],
)
def test_durations(text: str, expected: Duration, shown: str) -> None:
    assert literal("duration", text, "Duration") == expected
    assert display(expected, "Duration") == shown


@pytest.mark.parametrize("text", ["", "foo", "3 foo", "5 days 3", "1e999999999 s", "days"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(DomainError, match="is no Duration"):
        literal("duration", text, "Duration")


@pytest.mark.parametrize(
    ("op", "types", "a", "b", "expected"),
    [
        ("+", "DateTime Duration", utc(2020, 1, 31), Duration(1, 0), utc(2020, 2, 29)),
        ("+", "Duration DateTime", Duration(1, 0), utc(2014, 4, 8, 22, 5), utc(2014, 5, 8, 22, 5)),
        (
            "-",
            "DateTime Duration",
            utc(2020, 1, 31),
            Duration(1, 86400 * SECOND),
            utc(2019, 12, 30),
        ),
        (
            "+",
            "DateTime Duration",
            utc(2020, 12, 15),
            Duration(-12, 1000),
            utc(2019, 12, 15, 0, 0, 0, 1),
        ),
        (
            "-",
            "DateTime DateTime",
            utc(2020, 3, 1),
            utc(2020, 2, 28),
            Duration(0, 2 * 86400 * SECOND),
        ),
        ("+", "Duration Duration", Duration(1, 2), Duration(3, 4), Duration(4, 6)),
        ("-", "Duration Duration", Duration(1, 2), Duration(3, 5), Duration(-2, -3)),
        ("*", "Duration i32", Duration(1, 2), 3, Duration(3, 6)),
        ("*", "i32 Duration", -3, Duration(0, 2), Duration(0, -6)),
        ("/", "Duration i32", Duration(7, 9), 2, Duration(3, 4)),
        ("/", "Duration i32", Duration(7, 9), 0, "division by zero"),
        ("<", "Duration Duration", Duration(0, 10**18), Duration(1, 0), True),
        ("<", "DateTime DateTime", utc(2020, 1, 1), utc(2021, 1, 1), True),
        ("+", "DateTime Duration", utc(9999, 1, 1), Duration(12, 0), "overflow"),
        ("+", "DateTime Duration", utc(9999, 1, 1), Duration(0, 10**30), "overflow"),
        ("-", "DateTime Duration", utc(1, 1, 1), Duration(0, 1000), "overflow"),
    ],
)
def test_arithmetic_of_dates(op: str, types: str, a: Any, b: Any, expected: Any) -> None:
    assert apply(op, tuple(types.split()), a, b) == expected


# Tensors


def test_tensors_are_the_same_by_identity() -> None:
    a, b = torch.ones(2), torch.ones(2)
    assert Tensor(a) == Tensor(a)
    assert hash(Tensor(a)) == hash(Tensor(a))
    assert Tensor(a) != Tensor(b)
    assert Tensor(a) != "tensor"


def test_tensors_of_the_same_expression_are_the_same() -> None:
    a, b = Tensor(torch.tensor([1.0, 2.0])), Tensor(torch.tensor([3.0, 4.0]))
    types = ("Tensor", "Tensor")
    total = apply("+", types, a, b)
    assert total.value.tolist() == [4.0, 6.0]
    assert apply("-", types, a, b).value.tolist() == [-2.0, -2.0]
    assert apply("*", ("Tensor", "f64"), a, 3.0).value.tolist() == [3.0, 6.0]
    assert apply("*", types, total, b) == apply("*", types, total, b)
    assert total != apply("+", types, b, a)


def test_tensors_of_different_shapes() -> None:
    a, b = Tensor(torch.ones(2)), Tensor(torch.ones(3))
    assert apply("+", ("Tensor", "Tensor"), a, b) == "tensors of different shapes"
    assert apply("+", ("Tensor", "f64"), a, 1.0) == "tensors of different shapes"


# Casts


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (-7, "i32", "u8", 249),
        (-7, "i32", "u64", 2**64 - 7),
        (-7, "i32", "f32", -7.0),
        (200, "u8", "i8", -56),
        (16777217, "i32", "f32", 16777216.0),
        (2.9, "f64", "i32", 2),
        (-2.9, "f64", "i32", -2),
        (-2.9, "f64", "u32", 0),
        (1e20, "f64", "i32", 2**31 - 1),
        (-INF, "f64", "i64", -(2**63)),
        (INF, "f32", "u128", 2**128 - 1),
        (0.1, "f64", "f32", float(np.float32(0.1))),
        (1e300, "f64", "f32", INF),
        ("7", "char", "i32", 7),
        ("7", "char", "f32", 7.0),
        ("a", "char", "i32", "text that is no i32"),
        ("²", "char", "i32", "text that is no i32"),
        ("12", "String", "i32", 12),
        ("+12", "String", "i32", 12),
        (" 12", "String", "i32", "text that is no i32"),
        ("1_000", "String", "i32", "text that is no i32"),
        ("3000000000", "String", "i32", "text that is no i32"),
        ("-1", "String", "u8", "text that is no u8"),
        ("٣", "String", "i32", "text that is no i32"),
        ("9" * 5000, "String", "i32", "text that is no i32"),
        ("1e3", "String", "f32", 1000.0),
        ("inf", "String", "f64", INF),
        ("-Infinity", "String", "f64", -INF),
        (".5", "String", "f64", 0.5),
        ("5.", "String", "f64", 5.0),
        (".", "String", "f64", "text that is no f64"),
        ("5 ", "String", "f64", "text that is no f64"),
        ("nan", "String", "f64", "text that is no f64"),
        ("true", "String", "bool", True),
        ("True", "String", "bool", "text that is no bool"),
        ("ab", "String", "char", "text that is no char"),
        (3, "i32", "String", "3"),
        (1.5, "f32", "String", "1.5"),
        (1.0, "f64", "String", "1"),
        (True, "bool", "String", "true"),
        ("c", "char", "String", "c"),
        ("s", "Symbol", "String", "s"),
        (utc(2020, 1, 1), "DateTime", "String", "2020-01-01 00:00:00 UTC"),
        (Duration(1, 0), "Duration", "String", "R1MO P0D"),
    ],
)
def test_casts(value: Any, source: str, target: str, expected: Any) -> None:
    assert castable(source, target)
    try:
        result = cast(source, target)(value)
    except Dropped as dropped:
        result = dropped.reason
    assert result == expected


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("f64", "bool"),
        ("bool", "i32"),
        ("i32", "char"),
        ("Symbol", "i32"),
        ("DateTime", "i64"),
        ("String", "Entity"),
        ("i32", "Tensor"),
    ],
)
def test_casts_that_do_not_exist(source: str, target: str) -> None:
    assert not castable(source, target)


@pytest.mark.parametrize("target", INTEGERS)
@given(data=st.data())
def test_integers_wrap_when_cast(target: str, data: st.DataObject) -> None:
    source = data.draw(st.sampled_from(INTEGERS))
    value = data.draw(integers(source))
    result = cast(source, target)(value)
    least, greatest = RANGES[target]
    assert least <= result <= greatest
    assert (result - value) % (greatest - least + 1) == 0


@given(st.floats(allow_nan=False), st.sampled_from(INTEGERS))
def test_floats_are_cut_when_cast(value: float, target: str) -> None:
    least, greatest = RANGES[target]
    bounded = min(max(value, least), greatest)
    assert cast("f64", target)(value) == int(bounded)


# Text


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        # As the real Scallop prints them.
        (0.1, "f32", "0.1"),
        (float(np.float32(95.2)), "f32", "95.2"),
        (95.2, "f64", "95.2"),
        (1e20, "f32", "100000000000000000000"),
        (float(np.float32(1e-7)), "f32", "0.0000001"),
        (16777216.0, "f32", "16777216"),
        (float(np.float32(1234567.8)), "f32", "1234567.8"),
        (-INF, "f64", "-inf"),
        (-0.0, "f64", "-0"),
        ("a\"b\n\tü'x\\", "String", '"a\\"b\\n\\tü\'x\\\\"'),
        ("e\u0301\u200b\0\r", "String", '"e\\u{301}\\u{200b}\\0\\r"'),
        ("q", "char", "'q'"),
        ("sym bol", "Symbol", 's"sym bol"'),
        (utc(2014, 4, 8, 22, 5), "DateTime", 't"2014-04-08 22:05:00 UTC"'),
        (utc(2014, 4, 8, 22, 5, 1, 20000), "DateTime", 't"2014-04-08 22:05:01.020 UTC"'),
        (utc(2014, 4, 8, 22, 5, 1, 7), "DateTime", 't"2014-04-08 22:05:01.000007 UTC"'),
        (Duration(1, 172800 * SECOND + 2 * 10**7), "Duration", 'd"R1MO PT172800.02S"'),
        (Duration(0, -SECOND), "Duration", 'd"-PT1S"'),
        (True, "bool", "true"),
        (False, "bool", "false"),
        (-5, "i8", "-5"),
        (Entity(0x4CD0D9E6652CDFC7), "Entity", "entity(0x4cd0d9e6652cdfc7)"),
    ],
)
def test_show(value: Any, type_: str, expected: str) -> None:
    assert show(value, type_) == expected


def test_what_python_code_gets() -> None:
    tensor = torch.ones(1)
    assert export(Tensor(tensor), "Tensor") is tensor
    assert export(utc(2020, 1, 1), "DateTime") == "2020-01-01 00:00:00 UTC"
    assert export(Duration(0, SECOND), "Duration") == "PT1S"
    assert export(Entity(5), "Entity") == 5
    assert export("s", "Symbol") == "s"


VALUES = {
    **{type_: st.integers(*RANGES[type_]) for type_ in INTEGERS},
    "f32": st.floats(width=32, allow_nan=False),
    "f64": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "char": st.characters(codec="utf-8"),
    "String": st.text(st.characters(codec="utf-8")),
    "Symbol": st.text(st.characters(codec="utf-8")),
    "DateTime": st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC)),
}


@pytest.mark.parametrize("type_", sorted(VALUES))
@given(data=st.data())
def test_what_is_shown_can_be_read(type_: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[type_])
    assert parse(display(value, type_), type_) == value
    assert convert(value, type_, "x") == value
    assert cast("String", type_)(cast(type_, "String")(value)) == value


# From Python


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        (3, "i32", 3),
        (3, "f32", 3.0),
        (95.2, "f32", 95.19999694824219),
        (95.2, "f64", 95.2),
        (np.int64(3), "u8", 3),
        (np.float32(0.5), "f64", 0.5),
        (np.bool_(True), "bool", True),
        (np.str_("a"), "String", "a"),
        (np.array(7), "usize", 7),
        (torch.tensor(7), "i8", 7),
        (torch.tensor(0.5), "f32", 0.5),
        (torch.tensor(True), "bool", True),
        ("a", "char", "a"),
        ("a", "Symbol", "a"),
        (datetime(2020, 1, 1, 5), "DateTime", utc(2020, 1, 1, 5)),
        (date(2020, 1, 1), "DateTime", utc(2020, 1, 1)),
        (
            datetime(2020, 1, 1, 5, tzinfo=timezone(timedelta(hours=2))),
            "DateTime",
            utc(2020, 1, 1, 3),
        ),
        (timedelta(days=1, microseconds=-1), "Duration", Duration(0, 86400 * SECOND - 1000)),
        (Duration(1, 2), "Duration", Duration(1, 2)),
        ("2 days", "Duration", Duration(0, 2 * 86400 * SECOND)),
        (5, "Entity", Entity(5)),
    ],
)
def test_convert(value: Any, type_: str, expected: Any) -> None:
    result = convert(value, type_, "argument 0 of r")
    assert result == expected
    assert type(result) is type(expected)


def test_convert_tensors() -> None:
    tensor = torch.ones(2, 3)
    wrapped = convert(tensor, "Tensor", "x")
    assert wrapped.value is tensor
    assert convert(wrapped, "Tensor", "x") is wrapped


@pytest.mark.parametrize(
    ("value", "type_", "message"),
    [
        (300, "i8", r"must be an int from -128 to 127 \(i8\), but is 300 \(int\)"),
        (-1, "usize", r"from 0 to 18446744073709551615 \(usize\), but is -1"),
        (3.0, "i32", r"but is 3\.0 \(float\)"),
        (True, "i32", r"but is True \(bool\)"),
        (1, "bool", r"must be a bool, but is 1 \(int\)"),
        (True, "f32", r"must be a number \(f32\)"),
        (math.nan, "f64", "not nan"),
        (torch.tensor(math.nan), "f32", "not nan"),
        ("ab", "char", "one character"),
        (5, "String", r"must be a string, but is 5 \(int\)"),
        (None, "Symbol", "but is None"),
        ("soon", "DateTime", "must be a datetime"),
        ("long", "Duration", "must be a timedelta"),
        (-1, "Entity", "must be an entity"),
        (5, "Tensor", "must be a tensor"),
        ([1], "i32", r"but is \[1\] \(list\)"),
        (torch.ones(1), "f32", "Tensor"),
        (10**400, "f64", "must be a number"),
    ],
)
def test_what_is_not_converted(value: Any, type_: str, message: str) -> None:
    with pytest.raises(DomainError, match=message) as error:
        convert(value, type_, "argument 0 of r")
    assert str(error.value).startswith("argument 0 of r must be ")


@pytest.mark.parametrize(
    ("kind", "value", "type_", "expected"),
    [
        ("int", 3, "u8", 3),
        ("int", 3, "f32", 3.0),
        ("float", 0.1, "f32", float(np.float32(0.1))),
        ("bool", True, "bool", True),
        ("char", "c", "char", "c"),
        ("string", "s", "String", "s"),
        ("symbol", "s", "Symbol", "s"),
    ],
)
def test_literals(kind: str, value: Any, type_: str, expected: Any) -> None:
    assert literal(kind, value, type_) == expected


def test_a_literal_that_does_not_fit() -> None:
    with pytest.raises(DomainError, match="the constant 300 must be an int from -128 to 127"):
        literal("int", 300, "i8")


# Hashes


@pytest.mark.parametrize(
    ("values", "types", "expected"),
    [
        # The book's example, and others from the real Scallop.
        (("a", 3, 5.5), ("String", "i32", "f32"), 5862532063111067262),
        ((), (), 13646096770106105413),
        (("c", True), ("char", "bool"), 17600117882573945410),
        (
            (-1, 3, 2, "ab", "c"),
            ("i8", "u64", "usize", "String", "String"),
            9320521599295714825,
        ),
        ((Duration(1, -SECOND),), ("Duration",), 7880148926207233598),
        ((Duration(1, -15 * 10**8),), ("Duration",), 3045713412270244834),
        ((Entity(0xC602BE95F85193BF),), ("Entity",), 13830444134402625057),
    ],
)
def test_hashes_are_those_of_scallop(
    values: tuple[Any, ...], types: tuple[str, ...], expected: int
) -> None:
    assert hashed(values, types) == expected


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=3), st.data())
def test_different_values_have_different_hashes(values: list[str], data: st.DataObject) -> None:
    others = data.draw(st.lists(st.text(st.characters(codec="utf-8")), max_size=3))
    assume(values != others)
    assert hashed(values, ["String"] * len(values)) != hashed(others, ["String"] * len(others))
