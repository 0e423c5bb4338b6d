"""CSV files: those of the book, and those that do not fit."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byssus import ByssusError
from byssus_scallop._csv import read, write

STUDENTS = "student_id,name,year,gender\n0001,alice,2020,female\n0002,bob,2021,male\n"
ENROLLMENT = (
    "student_id,course_id,enroll_time,grade\n"
    "0001,cse100,fa2020,a\n0001,cse101,sp2021,a\n0002,cse120,sp2021,b\n"
)


@pytest.mark.parametrize(
    ("text", "types", "options", "expected"),
    [
        # The book's.
        ("0,1\n1,2\n", "usize usize", {}, [(0, 1), (1, 2)]),
        ("from,to\n0,1\n1,2\n", "usize usize", {"header": True}, [(0, 1), (1, 2)]),
        ("0\t1\n1\t2\n", "usize usize", {"deliminator": "\t"}, [(0, 1), (1, 2)]),
        (
            STUDENTS,
            "usize String String",
            {"keys": "student_id"},
            [
                (1, "name", "alice"),
                (1, "year", "2020"),
                (1, "gender", "female"),
                (2, "name", "bob"),
                (2, "year", "2021"),
                (2, "gender", "male"),
            ],
        ),
        (
            ENROLLMENT,
            "usize String Symbol String",
            {"keys": ["student_id", "course_id"]},
            [
                (1, "cse100", "enroll_time", "fa2020"),
                (1, "cse100", "grade", "a"),
                (1, "cse101", "enroll_time", "sp2021"),
                (1, "cse101", "grade", "a"),
                (2, "cse120", "enroll_time", "sp2021"),
                (2, "cse120", "grade", "b"),
            ],
        ),
        (
            ENROLLMENT,
            "usize String String",
            {"fields": ["student_id", "course_id", "grade"]},
            [(1, "cse100", "a"), (1, "cse101", "a"), (2, "cse120", "b")],
        ),
        (
            ENROLLMENT,
            "usize String Symbol String",
            {"keys": ["student_id", "course_id"], "fields": ["grade"]},
            [
                (1, "cse100", "grade", "a"),
                (1, "cse101", "grade", "a"),
                (2, "cse120", "grade", "b"),
            ],
        ),
        # Others.
        (STUDENTS, "String u16", {"fields": ["name", "year"]}, [("alice", 2020), ("bob", 2021)]),
        (STUDENTS, "u16 String", {"fields": ["year", "name"]}, [(2020, "alice"), (2021, "bob")]),
        (
            '"a ""b"", c",1.5\n\n" x\n y",-2\n',
            "String f32",
            {},
            [('a "b", c', 1.5), (" x\n y", -2.0)],
        ),
        ("\ufeff1\n", "i32", {}, [(1,)]),
        ("1\r\n2\r\n", "i32", {}, [(1,), (2,)]),
        ("true,c,s\n", "bool char Symbol", {}, [(True, "c", "s")]),
        ("2020-01-31\n", "DateTime", {}, [(datetime(2020, 1, 31, tzinfo=UTC),)]),
        ("", "i32", {}, []),
        ("from,to\n", "i32 i32", {"header": True}, []),
    ],
)
def test_read(
    tmp_path: Path, text: str, types: str, options: dict[str, Any], expected: list[tuple[Any, ...]]
) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert list(read(path, types.split(), **options)) == [(None, values) for values in expected]


@pytest.mark.parametrize(
    ("text", "types", "options", "expected"),
    [
        ("0.3,1\ntrue,2\nfalse,3\n", "i32", {}, [(0.3, (1,)), (True, (2,)), (False, (3,))]),
        ("p,a\n0.3,1\n", "i32", {"header": True}, [(0.3, (1,))]),
        ("p,a,b\n0.3,1,2\n", "i32", {"fields": ["b"]}, [(0.3, (2,))]),
        (
            "p,a,b,c\n0.3,1,2,3\n",
            "i32 String String",
            {"keys": "a"},
            [(0.3, (1, "b", "2")), (0.3, (1, "c", "3"))],
        ),
    ],
)
def test_read_tags(
    tmp_path: Path, text: str, types: str, options: dict[str, Any], expected: list[Any]
) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(text)
    assert list(read(path, types.split(), has_probability=True, **options)) == expected


@pytest.mark.parametrize(
    ("text", "types", "options", "message"),
    [
        ("1,2\n3,x\n", "i32 u8", {}, r"Column 2 is 'x', which is no u8\.\n  .*facts\.csv, line 2"),
        ("a,b\n1,300\n", "i32 u8", {"header": True}, r"Column 2 \(b\) is '300', which is no u8"),
        ('"x\ny",1\nz,?\n', "String i32", {}, r"'\?', which is no i32\.\n.*line 3"),
        ("1,2\n3\n", "i32 i32", {}, r"A row has 1 values, not 2: \['3'\]\.\n.*line 2"),
        ("1,2,3\n", "i32 i32", {}, "A row has 3 values, not 2"),
        ("a,b\n1,2\n", "i32", {"header": True}, "has 2 values, but the relation has 1"),
        ("a,b\n1,2\n", "i32 i32", {"keys": "a"}, "has 3 values, but the relation has 2"),
        ("a,b\n1,2\n", "i32 i32", {"fields": ["a"]}, "has 1 values, but the relation has 2"),
        ("a,b\n1,2\n", "i32", {"fields": ["c"]}, "There is no column 'c', but a, b"),
        ("a,b\n1,2\n", "i32 Symbol String", {"keys": "c"}, "There is no column 'c', but a, b"),
        ("", "i32", {"fields": ["c"]}, "There is no column 'c'"),
        ("1;2\n", "i32 i32", {"deliminator": ";;"}, "one ASCII character, but is ';;'"),
        ("1\n", "i32", {"deliminator": "→"}, "one ASCII character"),
        ("1.5,2\n", "i32", {"has_probability": True}, "'1.5', which is no probability from 0 to 1"),
        ("maybe,2\n", "i32", {"has_probability": True}, "'maybe', which is no f64"),
    ],
)
def test_what_does_not_fit(
    tmp_path: Path, text: str, types: str, options: dict[str, Any], message: str
) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(text)
    with pytest.raises(ByssusError, match=message):
        list(read(path, types.split(), **options))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ByssusError, match=r"Cannot read .*none\.csv: No such file"):
        list(read(tmp_path / "none.csv", ["i32"]))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_bytes(b"\xff\xfe1\n")
    with pytest.raises(ByssusError, match="is not UTF-8"):
        list(read(path, ["i32"]))


def test_write(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write(path, [(1, "a"), (2, 'b "c"')], ["i32", "String"])
    # Values as queries print them, and these quoted as CSV does.
    assert path.read_text() == '1,"""a"""\n2,"""b \\""c\\"""""\n'
    write(path, [(1, 0.5)], ["i32", "f32"], deliminator="\t")
    assert path.read_text() == "1\t0.5\n"


def test_write_where_nothing_can_be(tmp_path: Path) -> None:
    with pytest.raises(ByssusError, match="Cannot write"):
        write(tmp_path / "none" / "out.csv", [(1,)], ["i32"])


@given(st.lists(st.tuples(st.integers(-9, 9), st.floats(width=32, allow_nan=False), st.booleans())))
def test_numbers_written_can_be_read(rows: list[tuple[int, float, bool]]) -> None:
    types = ["i8", "f32", "bool"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.csv"
        write(path, rows, types)
        assert list(read(path, types)) == [(None, row) for row in rows]
