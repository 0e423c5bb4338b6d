"""Programs made up clause by clause, sensible or not, against what ProbLog computes for them.

What ProbLog refuses must be refused, as a `ByssusError`; nothing else may be raised.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from math import prod

import pytest
import torch
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from problog import get_evaluatable
from problog.errors import ProbLogError
from problog.program import PrologString

import byssus
from byssus import ByssusError
from byssus_problog import Program

_EXAMPLES = int(os.environ.get("BYSSUS_EXAMPLES", "60"))
_SETTINGS = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)

# Of every clause; ProbLog asks it of those that queries need.
_STRICTER = ("a probability lies between 0 and 1", "sum to 1 at most")

Draw = Callable[..., object]


class _Grammar:
    """Draws the text of a program.

    Predicates of level 0 are facts; a body asks for predicates up to its head's level, so that
    there is recursion, also through negation. Lists and sums that grow are kept to heads that no
    body of the same level asks for: else grounding need not end, in ProbLog as here.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self.arity: dict[str, int] = {}
        self.level: dict[str, int] = {}
        self.lists: set[str] = set()

    def number(self, low: int, high: int) -> int:
        result = self._draw(st.integers(low, high))
        assert isinstance(result, int)
        return result

    def chance(self, percent: int) -> bool:
        return self.number(0, 99) >= 100 - percent

    def pick(self, *options: str) -> str:
        return options[self.number(0, len(options) - 1)]

    def program(self) -> str:
        lines = []
        for i in range(self.number(2, 4)):
            lines.append(self.facts(f"f{i}"))
        for level in range(1, self.number(2, 4)):
            names = [f"p{level}{letter}" for letter in "abc"[: self.number(1, 3)]]
            for name in names:
                self.arity[name] = self.number(0, 2)
                self.level[name] = level
            for name in names:
                lines += [self.rule(name) for _ in range(self.number(1, 2))]
            if self.chance(40):
                lines.append(self.aggregate(f"g{level}", level))
        lines += [self.query() for _ in range(self.number(1, 3))]
        lines += [self.evidence() for _ in range(self.pick_count())]
        if self.chance(30):
            lines.reverse()
        text = "".join(lines)
        if "member(" in text or "sum_list(" in text:
            text = f":- use_module(library(lists)).\n{text}"
        if self.chance(8):  # a slip of the pen
            at = self.number(0, len(text) - 1)
            text = text[:at] + self.pick("", "", "'", ",", "(", "X", "1") + text[at + 1 :]
        return text

    def pick_count(self) -> int:
        return (0, 0, 1, 1, 2)[self.number(0, 4)]

    # Heads

    def probability(self) -> str:
        return self.pick("0.1", "0.25", "0.3", "0.5", "0.8", "1/3", "0.0", "1.0", "(0.1 + 0.2)")

    def constant(self) -> str:
        return self.pick("0", "1", "2", "a", "0", "1")

    def facts(self, name: str) -> str:
        self.arity[name] = self.number(0, 2)
        self.level[name] = 0
        lines = []
        for _ in range(self.number(1, 3)):
            kind = self.number(0, 9)
            if kind < 5:
                lines.append(f"{self.probability()}::{self.ground(name)}.")
            elif kind < 6:
                lines.append(f"{self.ground(name)}.")
            elif kind < 9:
                count = self.number(2, 3)
                each = self.pick("0.2", "0.3", "1/3", "0.5" if count == 2 else "0.1")
                lines.append("; ".join(f"{each}::{self.ground(name)}" for _ in range(count)) + ".")
            else:
                lines.append(f"{self.probability()}::{self.atom(name, ['X', 'Y'])}.")
        return " ".join(lines) + "\n"

    def ground(self, name: str) -> str:
        return self._apply(name, [self.constant() for _ in range(self.arity[name])])

    def atom(self, name: str, variables: list[str]) -> str:
        values = [
            self.pick(*variables) if self.chance(75) else self.pick(self.constant(), "_")
            for _ in range(self.arity[name])
        ]
        return self._apply(name, values)

    @staticmethod
    def _apply(name: str, values: list[str]) -> str:
        return f"{name}({', '.join(values)})" if values else name

    def rule(self, name: str) -> str:
        level = self.level[name]
        variables = ["X", "Y", "Z"][: self.number(1, 3)]
        head = self._apply(
            name,
            [
                self.pick(*variables) if self.chance(80) else self.constant()
                for _ in range(self.arity[name])
            ],
        )
        body = ", ".join(self.goal(level, variables) for _ in range(self.number(1, 3)))
        if self.chance(85):  # most rules bind what their head shows
            body = ", ".join([*(self.binder(v) for v in variables if v in head), body])
        kind = self.number(0, 10)
        if kind < 6:
            return f"{head} :- {body}.\n"
        if kind < 8:
            return f"{self.probability()}::{head} :- {body}.\n"
        if kind == 8:
            return f"P::{head} :- {body}, P is ({self.pick(*variables)} + 1) / 10.\n"
        other = self.atom(name, variables)
        return f"0.3::{head}; {self.pick('0.7', '0.2')}::{other} :- {body}.\n"

    # Bodies

    def binder(self, variable: str) -> str:
        binary = [n for n, arity in self.arity.items() if arity and self.level[n] == 0]
        kind = self.number(0, 3)
        if kind == 0 or not binary:
            return f"between(0, {self.number(1, 2)}, {variable})"
        if kind == 1:
            return f"member({variable}, [{self.constant()}, {self.constant()}])"
        name = self.pick(*binary)
        return self._apply(name, [variable, *["_"] * (self.arity[name] - 1)])

    def goal(self, level: int, variables: list[str]) -> str:
        known = [n for n in self.arity if self.level[n] <= level and n not in self.lists]
        kind = self.number(0, 19)
        if kind < 9:
            return self.atom(self.pick(*known), variables)
        if kind < 13:
            lower = [n for n in known if self.level[n] < level] or known
            return f"\\+ {self.atom(self.pick(*(lower if self.chance(80) else known)), variables)}"
        if kind == 13:
            first, second = self.pick(*variables), self.pick(*variables)
            return f"{first} is ({second} + {self.number(0, 2)}) mod 3"
        if kind == 14:
            operator = self.pick("<", ">", "=:=", "=\\=", "=", "\\=", ">=", "@<")
            return f"{self.pick(*variables)} {operator} {self.pick(*variables, '1', '0')}"
        if kind == 15:
            a, b = (self.atom(self.pick(*known), variables) for _ in range(2))
            return f"({a} ; {b})"
        if kind == 16:
            a, b = (self.atom(self.pick(*known), variables) for _ in range(2))
            return f"\\+ ({a}, {b})"
        if kind == 17:
            name = self.pick(*known)
            return f"call({self.atom(name, variables)})"
        if kind == 18:
            return self.pick("true", "fail", "true", "nothing(1)" if self.chance(10) else "true")
        return self.binder(self.pick(*variables))

    def aggregate(self, name: str, level: int) -> str:
        self.arity[name], self.level[name] = 1, level
        lower = [n for n in self.arity if self.level[n] < level and n not in self.lists]
        inner = self.atom(self.pick(*lower), ["E", "F"])
        if self.chance(30):
            inner = f"({inner}, \\+ {self.atom(self.pick(*lower), ['E'])})"
        kind = self.pick("findall", "findall", "all")
        goal = f"{kind}({self.pick('E', 'E-F', 'E')}, {inner}, L)"
        end = self.pick("length(L, X)", "X = L", "sum_list(L, X)", "L = [X|_]", "member(X, L)")
        if end == "X = L":
            self.lists.add(name)
        return f"{name}(X) :- {goal}, {end}.\n"

    # Statements

    def query(self) -> str:
        name = self.pick(*self.arity)
        text = self.ground(name) if self.chance(30) else self.atom(name, ["X", "Y"])
        return f"query({self.pick('', '', '', chr(92) + '+ ')}{text}).\n"

    def evidence(self) -> str:
        text = self.ground(self.pick(*self.arity))
        if self.chance(30):
            text = self.atom(self.pick(*self.arity), ["X"])
        return self.pick(
            f"evidence({text}).\n",
            f"evidence({text}, true).\n",
            f"evidence({text}, false).\n",
            f"evidence(\\+ {text}).\n",
        )


@st.composite
def programs(draw: Draw) -> str:
    return _Grammar(draw).program()


class _TooLong(BaseException):
    pass


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The use of '")
        yield


def _by_problog(text: str) -> dict[str, float] | Exception:
    try:
        with _quiet(), _at_most(5):
            found = get_evaluatable("sdd").create_from(PrologString(text)).evaluate()
    except Exception as error:
        return error
    return {str(q): float(p) for q, p in found.items() if q.is_ground() or p > 0}


def _by_byssus(text: str) -> dict[str, float] | ByssusError:
    try:
        with _quiet(), _at_most(60):
            program = Program(text, provenance="exact")
            probs = program().probs[0].tolist()
    except ByssusError as error:
        return error
    return dict(zip(program.queries, probs, strict=True))


def compare(text: str) -> None:
    try:
        expected = _by_problog(text)
    except _TooLong:
        event("ProbLog takes too long")
        return
    found = _by_byssus(text)
    if isinstance(expected, Exception):
        known = isinstance(expected, ProbLogError)
        event(f"refused: {type(expected).__name__}{'' if known else ', not foreseen'}")
        assert isinstance(found, ByssusError), (text, expected, found)
    elif not expected:
        event("nothing is found")
        assert isinstance(found, ByssusError), (text, found)
    else:
        if isinstance(found, ByssusError) and any(part in str(found) for part in _STRICTER):
            event("refused by us, where ProbLog does not look")
            return
        event("answered")
        assert not isinstance(found, ByssusError), (text, expected, str(found))
        approximate = {query: pytest.approx(p, abs=1e-6) for query, p in expected.items()}
        assert found == approximate, text


def _sampled(program: Program) -> list[int]:
    return program._sampled_concepts(program._rules)


def compare_worlds(text: str, provenance: str) -> None:
    """All worlds of what is sampled give what the circuit gives, given evidence too."""
    try:
        with _quiet(), _at_most(10):
            exact = Program(text, provenance="exact")
            expected = exact()
    except (ByssusError, _TooLong):
        return
    names = [concept.name for concept in exact._rules.ground.concepts]
    with _quiet():
        program = Program(
            text,
            provenance=provenance,
            sampled=names[::2] if provenance == "mixed" else None,
            worlds=byssus.exhaustive,
            samples=5000,
        )
        if prod(program._rules.ground.concepts[c].width for c in _sampled(program)) > 5000:
            return
        found = program()
    event("compared")
    assert program.queries == exact.queries
    torch.testing.assert_close(found.probs, expected.probs, atol=1e-5, rtol=0, msg=text)
    assert found.coverage.item() == 1


@settings(_SETTINGS, max_examples=_EXAMPLES // 4)
@given(text=programs(), provenance=st.sampled_from(["sampled", "mixed"]))
def test_all_worlds_of_random_programs(text: str, provenance: str) -> None:
    compare_worlds(text, provenance)


@settings(_SETTINGS, max_examples=_EXAMPLES)
@given(text=programs())
def test_random_programs(text: str) -> None:
    compare(text)


@pytest.mark.slow
@settings(_SETTINGS, max_examples=1000)
@given(text=programs())
def test_a_thousand_random_programs(text: str) -> None:
    compare(text)
