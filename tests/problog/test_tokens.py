"""Leaf calls: networks' answers as tokens in the rules, and black boxes called on them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st
from problog.logic import Constant, Term, list2term

import byssus
from byssus import Boolean, Discrete, Integer, List, ProbabilityError, blackbox, exhaustive
from byssus_problog import NotObservable, Program, observed

NN = "nn(digit, [X], D, [0, 1, 2, 3]) :: digit(X, D).\n"
COLOUR = "nn(colour, [X], C, [red, green]) :: colour(X, C).\n"
FACTS = ":- use_module(library(lists)).\n0.3 :: rain.\n0.4 :: wind; 0.5 :: storm.\n"

DIGIT = Integer(0, 3)
NUMBERS = {
    "add": blackbox(DIGIT, DIGIT, output=Integer(0, 6))(lambda a, b: a + b),
    "half": blackbox(Integer(0, 6), output=Integer(0, 3))(lambda a: a // 2),
    "more": blackbox(DIGIT, DIGIT, output=Boolean())(lambda a, b: a > b),
    "total": blackbox(List(DIGIT, 3), output=Integer(0, 9))(sum),
    "divide": blackbox(DIGIT, DIGIT, output=Integer(0, 3), on_error="discard")(lambda a, b: a // b),
    "paint": blackbox(DIGIT, Discrete(["red", "green"]))(lambda d, c: f"{c}{d % 2}"),
}

PROGRAMS = {
    "one call": "q(Z) :- digit(a, X), digit(b, Y), add(X, Y, Z).",
    "a bound output": "q :- digit(a, X), digit(b, Y), add(X, Y, 3).",
    "some bound outputs": "q(Z) :- digit(a, X), digit(b, Y), member(Z, [2, 3]), add(X, Y, Z).",
    "the output is a token": "q :- digit(a, X), digit(b, Y), digit(c, Z), add(X, Y, Z).",
    "a test": "q :- digit(a, X), digit(b, Y), more(X, Y).",
    "a negated test": r"q :- digit(a, X), digit(b, Y), \+ more(X, Y).",
    "nested": "q(Z) :- digit(a, X), digit(b, Y), add(X, Y, S), half(S, Z).",
    "a list": "q(Z) :- digit(a, X), digit(b, Y), digit(c, W), total([X, Y, W], Z).",
    "a recursive list": """
        all([], []).
        all([I|Is], [D|Ds]) :- digit(I, D), all(Is, Ds).
        q(Z) :- all([a, b, c], L), total(L, Z).""",
    "where it rains": r"""
        q(Z) :- rain, digit(a, X), digit(b, Y), add(X, Y, Z).
        q(Z) :- \+ rain, storm, digit(a, X), digit(c, Y), add(X, Y, Z).""",
    "the same output twice": """
        q(Z) :- digit(a, X), digit(b, Y), add(X, Y, Z).
        q(Z) :- digit(c, X), half(X, Z).""",
    "an output besides": "q(Z) :- digit(a, X), digit(b, Y), add(X, Y, Z).\nq(9) :- wind.",
    "texts": "q(X, Z) :- digit(a, X), digit(b, Y), add(X, Y, Z).",
    "a call decides on a call": """
        q(Z) :- digit(a, X), digit(b, Y), more(X, Y), add(X, Y, Z).
        q(7) :- digit(a, X), digit(b, Y), add(X, Y, 1).""",
    "two networks": "q(Z) :- digit(a, X), colour(b, C), paint(X, C, Z).",
    "rules look at one": "q(Z) :- digit(a, X), colour(a, green), half(X, Z).",
    "rules look at all": "q(Z) :- digit(a, X), digit(b, Y), S is X + Y, half(S, Z).",
    "rules look at the answer": "q :- digit(a, X), digit(b, Y), add(X, Y, Z), Z > 3.",
    "a rule for each answer": """
        name(0, none). name(1, one). name(2, few). name(N, many) :- N > 2.
        q(W) :- digit(a, X), digit(b, Y), add(X, Y, Z), name(Z, W).""",
    "aggregates": "q(L) :- findall(X, digit(a, X), L).\nq(S) :- digit(a, X), half(X, S).",
    "a compound output": "q(f(Z, rain)) :- rain, digit(a, X), digit(b, Y), add(X, Y, Z).",
    "comparing": "q(Z) :- digit(a, X), digit(b, Y), X =:= Y, add(X, Y, Z).",
    "unequal": r"q(Z) :- digit(a, X), digit(b, Y), X \= Y, add(X, Y, Z).",
    "the kind": "q(Z) :- digit(a, X), integer(X), half(X, Z).",
    "one value": "q(Z) :- digit(a, 2), digit(b, Y), half(Y, Z).",
    "one digit of two": "q(Z) :- member(I, [a, b]), digit(I, X), half(X, Z).",
    "failures": "q(Z) :- digit(a, X), digit(b, Y), divide(X, Y, Z).",
    "failures where it rains": "q(Z) :- rain, digit(a, X), digit(b, Y), divide(X, Y, Z).\nq(8).",
    "failures within": "q(Z) :- digit(a, X), digit(b, Y), divide(X, Y, S), half(S, Z).",
}


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, every call is too large to be tabulated."""
    module = sys.modules["byssus.blackbox"]  # byssus.blackbox is the function
    return lambda: monkeypatch.setattr(module, "_TABULATED", 0)


def _tables(program: Program, batch: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tables = {}
    for name, instances in program.instances.items():
        width = 2 if name == "colour" else 4
        table = torch.rand(batch, len(instances), width, generator=generator, dtype=torch.float64)
        tables[name] = (table / table.sum(-1, keepdim=True)).requires_grad_()
    return tables


def _by_value(y: byssus.Distribution) -> dict[Any, torch.Tensor]:
    return {value: y.probs[:, i] for i, value in enumerate(y.values)}


@pytest.mark.parametrize("rules", PROGRAMS.values(), ids=PROGRAMS)
def test_all_worlds_give_what_exact_gives(rules: str, large: Callable[[], None]) -> None:
    head = "q(X, Z)" if "q(X, Z)" in rules else "q" if "q :-" in rules else "q(Z)"
    text = NN + COLOUR + FACTS + rules + f"\nquery({head})."
    exact = Program(text, NUMBERS, provenance="exact")
    tables = _tables(exact)
    wanted = exact(tables)
    large()
    sampled = Program(text, NUMBERS, provenance="sampled", worlds=exhaustive, samples=2_000)
    found = sampled(tables)
    torch.testing.assert_close(found.lost, wanted.lost, atol=1e-6, rtol=0)
    answers, oracle = _by_value(found), _by_value(wanted)
    zero = torch.zeros(3, dtype=torch.float64)
    for value in answers | oracle:
        torch.testing.assert_close(
            answers.get(value, zero), oracle.get(value, zero), atol=1e-6, rtol=0
        )
    target = torch.rand(3, dtype=torch.float64)
    for value, column in oracle.items():
        if column.requires_grad:
            ours = torch.autograd.grad(
                answers[value] @ target, list(tables.values()), retain_graph=True, allow_unused=True
            )
            theirs = torch.autograd.grad(
                column @ target, list(tables.values()), retain_graph=True, allow_unused=True
            )
            for a, b in zip(ours, theirs, strict=True):
                if a is not None and b is not None:
                    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@st.composite
def pipelines(draw: st.DrawFn) -> str:
    """Rules that hand what networks say on to black boxes, and now and then look at it."""
    rules = []
    for _ in range(draw(st.integers(1, 3))):
        goals, variables = [], []
        for i in range(draw(st.integers(1, 3))):
            goals.append(f"digit({draw(st.sampled_from('abc'))}, X{i})")
            variables.append(f"X{i}")
        for i in range(draw(st.integers(1, 3))):
            a, b = (draw(st.sampled_from(variables)) for _ in range(2))
            kind = draw(st.sampled_from(["mod", "mod", "total", "more", "not", "=", "fact", "is"]))
            out = draw(st.sampled_from([f"Y{i}", f"Y{i}", f"Y{i}", "2", variables[-1]]))
            if kind in ("mod", "total"):
                given = f"[{a}, {b}, {a}]" if kind == "total" else f"{a}, {b}"
                goals.append(f"{kind}({given}, {out})")
                variables += [out] * (out == f"Y{i}")
            elif kind == "is" and draw(st.integers(0, 5)) == 0:
                goals.append(f"Y{i} is ({a} + {b}) mod 4")
                variables.append(f"Y{i}")
            elif kind == "=":
                goals.append(f"Y{i} = {a}")
                variables.append(f"Y{i}")
            elif kind == "fact":
                goals.append(draw(st.sampled_from(["rain", r"\+ wind", "storm"])))
            else:
                goals.append(r"\+ " * (kind == "not") + f"more({a}, {b})")
        rules.append(f"q({draw(st.sampled_from(variables))}) :- {', '.join(goals)}.")
    return "\n".join(rules)


@settings(max_examples=60, deadline=None, derandomize=True, phases=(Phase.generate,))
@given(rules=pipelines(), mixed=st.booleans())
def test_random_pipelines(rules: str, mixed: bool) -> None:
    boxes = {
        "mod": blackbox(DIGIT, DIGIT, output=DIGIT)(lambda a, b: (2 * a + b) % 4),
        "total": blackbox(List(DIGIT, 3), output=DIGIT)(lambda row: sum(row) % 4),
        "more": NUMBERS["more"],
    }
    text = NN + FACTS + rules + "\nquery(q(_))."
    try:
        exact = Program(text, boxes, provenance="exact")
    except byssus.ProgramError as error:
        if "no query has an answer" not in str(error):
            raise
        return
    tables = _tables(exact)
    wanted = _by_value(exact(tables))
    with patch.object(sys.modules["byssus.blackbox"], "_TABULATED", 0):
        kind = "mixed" if mixed else "sampled"
        program = Program(
            text,
            boxes,
            provenance=kind,
            sampled=[] if mixed else None,
            worlds=exhaustive,
            samples=2_000,
            instances={"digit": exact.instances.get("digit", ())} if exact.instances else None,
        )
        event(f"{kind}, {len(program._rules.ground.calls)} calls on tokens")
        try:
            found = program(tables)
        except byssus.ByssusError as error:
            if not mixed or "two answers of one query" not in str(error):
                raise
            return
    answers, zero = _by_value(found), torch.zeros(3, dtype=torch.float64)
    for value in answers | wanted:
        ours, theirs = (by.get(value, zero).double() for by in (answers, wanted))
        torch.testing.assert_close(*torch.broadcast_tensors(ours, theirs), atol=1e-6, rtol=0)


def test_tokens_are_used_only_where_nothing_looks(large: Callable[[], None]) -> None:
    large()
    looks = {"rules look at all", "aggregates", "comparing", "unequal", "the kind", "one value"}
    for name, rules in PROGRAMS.items():
        head = "q(X, Z)" if "q(X, Z)" in rules else "q" if "q :-" in rules else "q(Z)"
        text = NN + COLOUR + FACTS + rules + f"\nquery({head})."
        program = Program(text, NUMBERS, provenance="sampled")
        assert program._rules.ground.symbolic == (name not in looks), name


@pytest.mark.parametrize("provenance", ["auto", "sampled", "mixed"])
def test_two_numbers_of_sixteen_digits(provenance: str) -> None:
    @blackbox(List(Integer(0, 9), 16), List(Integer(0, 9), 16))
    def add(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        return int("".join(map(str, a))) + int("".join(map(str, b)))

    left, right = (",".join(f"{side}{i}" for i in range(16)) for side in "ab")
    text = f"""
        nn(digit, [X], D, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) :: digit(X, D).
        digits([], []).
        digits([X|Xs], [D|Ds]) :- digit(X, D), digits(Xs, Ds).
        sum(A, B, Z) :- digits(A, X), digits(B, Y), add(X, Y, Z).
        query(sum([{left}], [{right}], Z)).
    """
    Program(text, [add], provenance=provenance)  # what is imported at first is not counted
    start = time.perf_counter()
    program = Program(text, [add], provenance=provenance, samples=20)
    assert time.perf_counter() - start < 5.0  # by values it would never end
    assert len(program._rules.ground.calls) == 1
    assert program.plan().calls == {"add": None}
    digits = torch.randint(10, (4, 32), generator=torch.Generator().manual_seed(1))
    logits = 8.0 * torch.nn.functional.one_hot(digits, 10)
    table = logits.softmax(-1).requires_grad_()
    numbers = [int("".join(map(str, row))) for row in digits.reshape(8, 16).tolist()]
    sums = [numbers[2 * i] + numbers[2 * i + 1] for i in range(4)]
    y = program(digit=table)
    assert y.most_likely() == sums
    assert add.calls <= 4 * 20
    y.loss(sums).backward()
    assert table.grad is not None
    assert bool((table.grad != 0).any())


def test_exact_refuses_what_it_cannot_call() -> None:
    digits = ",".join(f"i{i}" for i in range(9))
    box = blackbox(List(Integer(0, 3), 20), output=None)(sum)
    text = (
        NN
        + f"""
        all([], []).
        all([I|Is], [D|Ds]) :- digit(I, D), all(Is, Ds).
        q(Z) :- all([{digits},{digits}], L), total(L, Z).
        query(q(Z))."""
    )
    text = text.replace("i0,", "j0,", 1).replace("i1,", "j1,", 1)
    with pytest.raises(byssus.BudgetExceeded, match="exact needs all"):
        Program(text, {"total": box}, provenance="exact")


def test_guards_keep_calls_from_worlds_that_do_not_ask(large: Callable[[], None]) -> None:
    large()
    asked = []

    @blackbox(DIGIT, DIGIT)
    def add(a: int, b: int) -> int:
        asked.append((a, b))
        return a + b

    text = (
        NN
        + r"""
        low(X) :- less(X).
        q(Z) :- digit(a, X), digit(b, Y), less(X), add(X, Y, Z).
        query(q(Z))."""
    )
    less = blackbox(DIGIT, output=Boolean(), name="less")(lambda d: d < 1)
    program = Program(text, [add, less], provenance="sampled", worlds=exhaustive)
    program(_tables(program))
    assert sorted(asked) == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_evidence_on_a_call(large: Callable[[], None]) -> None:
    large()
    text = (
        NN
        + """
        s(Z) :- digit(a, X), digit(b, Y), add(X, Y, Z).
        evidence(s(3)).
        query(digit(a, X))."""
    )
    program = Program(text, NUMBERS, provenance="sampled", worlds=exhaustive)
    table = torch.full((1, 2, 4), 0.25)
    y = program(digit=table)
    torch.testing.assert_close(y.probs, torch.full((1, 4), 0.25))


# Observations


ADDITION = """
nn(digit, [X], D, [0,1,2,3,4,5,6,7,8,9]) :: digit(X, D).
addition(X, Y, Z) :- digit(X, A), digit(Y, B), Z is A + B.
result(X, Y, C, Carry, R) :- digit(X, A), digit(Y, B), S is A + B + C, Carry is S // 10,
    R is S mod 10.
carry([], [], C, C, []).
carry([X|Xs], [Y|Ys], Cin, Cout, [R|Rs]) :- carry(Xs, Ys, Cin, C, Rs), result(X, Y, C, Cout, R).
numbers(Xs, Ys, [C|Rs]) :- carry(Xs, Ys, 0, C, Rs).
"""


@pytest.mark.parametrize("provenance", ["exact", "sampled"])
def test_an_observed_sum(provenance: str) -> None:
    query = Term("addition", Term("a"), Term("b"), observed(0))
    program = Program(
        ADDITION, query=query, provenance=provenance, worlds=exhaustive, samples=20_000
    )
    table = torch.rand(4, 2, 10, dtype=torch.float64).softmax(-1).requires_grad_()
    sums = [0, 7, 18, 99]
    y = program(digit=table, observed=[sums])
    wanted = torch.stack(
        [
            sum(
                (table[i, 0, a] * table[i, 1, s - a] for a in range(10) if 0 <= s - a < 10),
                table.new_zeros(()),
            )
            for i, s in enumerate(sums)
        ]
    )
    assert y.probs.shape == (4, 1)
    torch.testing.assert_close(y.probs[:, 0], wanted, atol=1e-6, rtol=0)


def test_observed_digits_of_a_sum() -> None:
    inputs = [list2term([Term(f"{side}{i}") for i in range(3)]) for side in "xy"]
    query = Term("numbers", *inputs, list2term([observed(i) for i in range(4)]))
    program = Program(ADDITION, query=query, provenance="exact")
    table = torch.rand(2, 6, 10, dtype=torch.float64).softmax(-1).requires_grad_()
    y = program(digit=table, observed=[[0, 1], [5, 2], [0, 9], [3, 0]])
    for row, digits in enumerate([[0, 5, 0, 3], [1, 2, 9, 0]]):
        bound = Term("numbers", *inputs, list2term([Constant(d) for d in digits]))
        other = Program(ADDITION, query=bound, provenance="exact")
        torch.testing.assert_close(y.probs[row], other(digit=table).probs[row])


def test_an_observation_beside_a_call(large: Callable[[], None]) -> None:
    large()
    text = NN + "s(X, Y, Z) :- digit(X, A), digit(Y, B), add(A, B, Z)."
    query = Term("s", Term("a"), Term("b"), observed(0))
    program = Program(text, NUMBERS, query=query, worlds=exhaustive)
    y = program(digit=torch.full((2, 2, 4), 0.25), observed=[[0, 3]])
    torch.testing.assert_close(y.probs, torch.tensor([[1 / 16], [4 / 16]]))


def test_what_rules_ask_of_an_observation_is_refused() -> None:
    text = NN + "big(X, Z) :- digit(X, D), Z > 2, D = Z."
    with pytest.raises(NotObservable, match="observation 0"):
        Program(text, query=Term("big", Term("a"), observed(0)))


def test_a_call_on_an_observation_is_refused() -> None:
    text = NN + "s(X, Z) :- digit(X, A), half(Z, A)."
    with pytest.raises(NotObservable, match="observation 0"):
        Program(text, NUMBERS, query=Term("s", Term("a"), observed(0)))


def test_observations_must_fit() -> None:
    program = Program(ADDITION, query=Term("addition", Term("a"), Term("b"), observed(0)))
    table = torch.full((2, 2, 10), 0.1)
    with pytest.raises(byssus.ConceptError, match="observed="):
        program(digit=table)
    with pytest.raises(byssus.ShapeError, match="batches of different sizes"):
        program(digit=table, observed=[[1, 2, 3]])
    with pytest.raises(ProbabilityError):
        program(digit=table * 2, observed=[[1, 2]])
