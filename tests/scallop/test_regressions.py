"""What once went wrong, and what only unusual programs show."""

from __future__ import annotations

from pathlib import Path

import pytest

from byssus import ProgramError
from byssus.cli import main
from scallop.running import Case, Fault, check, fails, parametrized, run, tuples


def _printed(program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What `byssus run` prints for a program."""
    path = tmp_path / "program.scl"
    path.write_text(program, encoding="utf-8")
    assert main(["run", str(path), *more]) == 0
    return capsys.readouterr().out


def test_tuples_are_printed_in_the_order_of_their_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = _printed("rel a = {10, 9, -1}", tmp_path, capsys)
    assert printed == "a: {(-1), (9), (10)}\n"


def test_what_is_certain_but_for_rounding_is_printed_without_a_probability(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = "rel 0.3::a(1)\nrel a(2)"
    printed = _printed(program, tmp_path, capsys, "--provenance", "sampled", "--seed", "0")
    assert printed.endswith(", (2)}\n")


@pytest.mark.parametrize("provenance", ["unit", "proofs", "boolean", "natural"])
def test_provenances_without_probabilities_are_printed(
    provenance: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = "rel e = {(1, 2), (2, 3)}\nrel p(x, z) = e(x, y), e(y, z)\nquery p"
    assert _printed(program, tmp_path, capsys, "--provenance", provenance) == "p: {(1, 3)}\n"


@parametrized(
    [
        Case(
            "a user's relation may be called as a generic predicate is",
            "rel e = {(1, 2, 3)}\nrel range(a, b, c) = e(a, b, c)\nrel r(x) = range<i32>(0, 2, x)",
            {"range": [(1, 2, 3)], "r": [0, 1]},
        ),
        Case(
            "a difference that ends at zero does not equal zero as an argument",
            "type d(usize, String), n(usize, String)\n"
            'rel d = {(0, "1"), (1, "2")}\n'
            "rel n(x, s) = d(x, s)\n"
            "rel n(b - 1, $string_concat(s, t)) = d(b - 1, s), n(b, t)",
            {"n": [(0, "1"), (1, "2"), (0, "12")]},
        ),
        Case(
            "an aggregation in each alternative",
            "rel e = {(1, 2), (1, 3), (2, 3)}\n"
            "rel s(x, n) = (n := count(y: e(x, y))) or (e(_, x) and n := count(y: e(y, x)))",
            {"s": [(1, 2), (2, 1), (3, 2)]},
        ),
        Case(
            "two groups in one rule",
            "rel e = {(1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 2)}\n"
            "rel k(b, n, m) = n := count(c: e(_, b, c)), m := sum(c: e(_, b, c))",
            {"k": [(2, 3, 9), (3, 1, 3)]},
        ),
        Case(
            "an aggregation between two recursions",
            "rel e = {(1, 2), (2, 3)}\n"
            "rel r(x) = x := min(x: e(x, _))\n"
            "rel s(x) = r(x) or (s(y) and e(y, x))\n"
            "rel n(k) = k := count(x: s(x))\n"
            "rel m(x) = (n(k) and x == k + 10) or (m(y) and y < 15 and x == y + 1)",
            {"s": [1, 2, 3], "n": [3], "m": [13, 14, 15]},
        ),
        Case(
            "functions in the arguments of a negated atom",
            "rel p = {1, 2, 3}\nrel q = {-1, 3}\n"
            "rel r(x) = p(x), not q(-x)\nrel s(x) = p(x), not q($abs(x - 2) + 2)",
            {"r": [2, 3], "s": [2]},
        ),
        Case(
            "an exclusive head of two relations",
            "rel c = {1, 2}\nrel { red(x); blue(x) } = c(x)",
            {"red": [1, 2], "blue": [1, 2]},
        ),
        Case(
            "patterns of several depths",
            "type E = C(i32) | A(E, E)\nconst X = A(C(1), A(C(2), C(3)))\n"
            "rel all(x, y, z) = case X is A(C(x), A(C(y), C(z)))\n"
            "rel right(y) = case X is A(C(1), A(e, _)), case e is C(y)",
            {"all": [(1, 2, 3)], "right": [2]},
        ),
        Case(
            "names that begin as keywords do",
            "rel inn = {1}\nrel ored(x) = inn(x)\nrel asx(x) = ored(x)\n"
            "rel i32x(query1) = asx(query1)",
            {"i32x": [1]},
        ),
    ]
)
def test_unusual_programs(case: Case) -> None:
    check(run(case.program), case.expected)


@parametrized(
    [
        Fault(
            "a storage that there is not",
            '@storage("btree")\nrel a = {1}',
            ("storage", "btree", "sorted"),
            line=1,
            carets=("@storage",),
        ),
    ]
)
def test_faults(case: Fault) -> None:
    fails(case)


def test_alternatives_that_sum_to_more_than_one_are_shown() -> None:
    program = 'rel a(0)\nrel b = {(2, "x"); (2, "y")}'
    assert tuples(run(program, "minmaxprob"), "b") == [(2, "x"), (2, "y")]
    with pytest.raises(ProgramError, match=r"(?s)sum to 2: .*line 2, column 1"):
        run(program, "exact")
