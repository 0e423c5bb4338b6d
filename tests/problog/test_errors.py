"""Each kind of bad input has its own error, with the offending value, the place and the mend."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from byssus import (
    BlackBox,
    BlackBoxError,
    BlackBoxOutputError,
    BlackBoxTimeout,
    BudgetExceeded,
    ByssusError,
    CompilationLimit,
    ConceptError,
    DomainError,
    Integer,
    NondeterministicError,
    ProbabilityError,
    ProgramError,
    ShapeError,
    blackbox,
)
from byssus.errors import EmptyBatchError
from byssus_problog import Program

DIGIT = "nn(digit, [X], D, [0, 1, 2]) :: digit(X, D).\n"
SUM = DIGIT + "sum(Z) :- digit(a, X), digit(b, Y), Z is X + Y.\nquery(sum(Z)).\n"
UNIFORM = torch.full((1, 2, 3), 1 / 3)


def box(function: Callable[..., object], **options: object) -> BlackBox:
    return blackbox(Integer(0, 9), output=Integer(0, 9), name="box", **options)(function)


# The text. Each with the place, the text from the caret on, and the message.

_TEXTS = [
    ("a :- b\nb.\nquery(a).", "b.", "a full stop is missing at the end of the clause before"),
    ("a.\nquery(a)", "", "the last clause has no full stop"),
    ("a :- b(1.\nquery(a).", "(1.", r"Unmatched character '\('"),
    ("a.\nb :- b(1)).\nquery(a).", ").", r"Unmatched character '\)'"),
    ("a :- X = [1, b(2).\nquery(a).", "[1, b(2).", r"Unmatched character '\['"),
    ("a.\na :- {b}.\nquery(a).", "{b}.", "Unexpected character '{': take it away"),
    ("b(x).\na :- b('x).\nquery(a).", "'x).", "Unmatched character ''': close it"),
    ("a.\n/* b.\nquery(a).", "/* b.", r"Unmatched character '/\*'"),
    ("a.\nSum(Z) :- a.", "(Z) :- a.", "starts with a capital letter"),
    ("a :- b c.\nquery(a).", "c.", "a comma or an operator is missing"),
    ("a :- b,.\nquery(a).", ",.", "a term beside an operator"),
    ("a :- X is 1 + * 2.\nquery(a).", "2.", "Expected binary operator"),
    (DIGIT + "a :- digt(x, 1).\nquery(a).", "digt(x, 1).", r"'digt/2': define it, mend its name"),
    (DIGIT + "a :- digit(x).\nquery(a).", "digit(x).", r"'digit/1'.*number of arguments"),
    ("a :- b(1, 2, 3).\nquery(a).", "b(1, 2, 3).", "'b/3'"),
    ("a.\nquery(b).", "b).", "No clauses found for 'b/0'"),
    ("a.\na :- (a -> a ; a).\nquery(a).", "-> a ; a).", "ProbLog has no if-then-else"),
    ("p(X) :- q(Y).\n0.5::q(1).\nquery(p(X)).", "p(X)).", "must get a value in its body"),
    ("0.5::p(X) :- q(Y).\nq(1).\nquery(p(X)).", "p(X) :- q(Y).", "has no value when it is used"),
    ("0.5::b.\n1.5::a.\nquery(a).", "a.", "lies between 0 and 1, not 1.5"),
    ("-0.5::a.\nquery(a).", "a.", "lies between 0 and 1, not -0.5"),
    ("0.7::a; 0.6::b.\nquery(a).", "; 0.6::b.", "sum to 1 at most, not 1.3"),
    ("t(_, f(X))::a(X).\nquery(a(1)).", "a(X).", r"has the form t\(_\), t\(0.3\) or t\(_, X, Y\)"),
    ("t(foo)::a.\nquery(a).", "a.", "foo is not a number: of a tunable probability"),
    ("t(0)::a.\nquery(a).", "a.", "the first value of a tunable probability lies above 0"),
    ("t(1)::a.\nquery(a).", "a.", r"t\(1\) would never change"),
    ("t(_)::a; 1.0::b.\nquery(a).", "; 1.0::b.", "leave nothing for its tunable options"),
    ("t(0.8)::a; 0.3::b.\nquery(a).", "; 0.3::b.", "leave nothing for its tunable options"),
    ("t(_)::a; P::b :- c(P).\nquery(a).", ":- c(P).", "P is not a number"),
    ("t(_, X)::a; t(_)::b :- c(X).\nquery(a).", ":- c(X).", "the same variables in t"),
    ("0.5::a. p :- \\+ q, a. q :- \\+ p, a.\nquery(p).", "\\+ p, a.", "on its own negation"),
    ("z(0). a(Z) :- z(X), Z is 1 / X.\nquery(a(Z)).", "is 1 / X.", "Division by zero"),
    ("a(Z) :- Z is X + 1.\nquery(a(Z)).", "is X + 1.", "Invalid argument types for call to 'is/2'"),
    ("a(Z) :- Z is foo + 1.\nquery(a(Z)).", "is foo + 1.", "Unknown function 'foo'"),
    ("a :- X > 1.\nquery(a).", "> 1.", "Invalid argument types for call to '>/2'"),
    ("nn(n, a, D, [0]) :: d(D).\nquery(d(D)).", "d(D).", "inputs of an nn declaration are a list"),
    ("nn(n, [X], D, 5) :: d(X, D).\nquery(d(a, D)).", "d(X, D).", "of different ground terms"),
    ("nn(n, [X], D, [0, 0]) :: d(X, D).\nquery(d(a, D)).", "d(X, D).", "different ground terms"),
    ("nn(n, [X], D, []) :: d(X, D).\nquery(d(a, D)).", "d(X, D).", "different ground terms"),
    ("nn(n, [X], d, [0]) :: d(X, D).\nquery(d(a, D)).", "d(X, D).", "a variable of the head"),
    ("nn(n, [X], D, [0, 1]) :: d(X).\nquery(d(a)).", "d(X).", "a variable of the head"),
    ("nn(n) :: d(X).\nquery(d(a)).", "d(X).", r"has the form nn\(network, \[Input, ...\]"),
    ("nn(N, [X], D, [0]) :: d(X, D).\nquery(d(a, D)).", "d(X, D).", "has the form"),
    ("nn(f(x), [X]) :: d(X).\nquery(d(a)).", "d(X).", "has the form"),
    ("nn(n, [X], D) :: d(X, D).\nquery(d(a, D)).", "d(X, D).", "nn/3 .* is not known"),
    ("nn(n, [X]) :: d(X); 0.3::e.\nquery(d(a)).", "; 0.3::e.", "stands alone"),
    (DIGIT + "nn(digit, [X]) :: d(X).\nquery(d(a)).", "d(X).", "digit is declared with the values"),
    (DIGIT + "a(D) :- digit(X, D).\nquery(a(D)).", "digit(X, D).", "the inputs of a network"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "spot", "message"), _TEXTS)
def test_faults_in_the_text(text: str, spot: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message) as caught:
        Program(text)
    line, column = caught.value.line, caught.value.column
    assert line is not None
    assert column is not None
    assert text.splitlines()[line - 1][column - 1 :] == spot
    shown, caret = str(caught.value).splitlines()[-2:]
    assert shown[len(caret) - 1 :] == spot
    assert caret.strip() == "^"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the program asks for nothing: add a line like `query"),
        ("% a comment\n", "the program asks for nothing"),
        ("0.5::a.\n", "the program asks for nothing"),
        ("a.\nquery(X).\n", "name a predicate"),
        ("0.5::a(1).\nb(X) :- a(X), X > 1.\nquery(b(X)).\n", "no query has an answer in any world"),
        ("P::a(P) :- b(P). b(x).\nquery(a(X)).\n", "the probability is not a number"),
        (":- consult('nope.pl').\na.\nquery(a).\n", "nope.pl"),
        ("is(X, Y) :- true.\nquery(is(1, 1)).\n", "give the predicate another name"),
        (
            "nothing.pl",
            "cannot read the program nothing.pl: No such file or directory; give the path",
        ),
    ],
)
def test_faults_without_a_place(text: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        Program(text)


def test_probabilities_that_are_computed() -> None:
    with pytest.raises(ProbabilityError, match=r"2::a\(2\): a probability lies between 0 and 1"):
        Program("P::a(P) :- b(P). b(2).\nquery(a(X)).\n")
    with pytest.raises(ProbabilityError, match=r"sum to 1.5, above 1"):
        Program("P::a; P::c :- b(P). b(0.75).\nquery(a). query(c).\n")
    for text in (
        "P::a :- b(P).\nb(1.5).\nquery(a).",
        "P::a; P::c :- b(P).\nb(0.7).\nquery(a). query(c).",
    ):
        with pytest.raises(ProbabilityError, match=r"(?s)line 2, column 3\n.*\n {6}\^$"):
            Program(text)


def test_answers_that_lead_to_more_instances() -> None:
    rules = "q :- digit(a, X), box(X, X), digit(b, 2).\nquery(q).\n"
    boxes = [box(lambda x: x)]
    program = Program(DIGIT + rules, boxes, provenance="sampled")
    with pytest.raises(ShapeError, match=r"Program\(..., instances=\{'digit': \['a', 'b'\]\}\)"):
        program(digit=UNIFORM[:, :1])
    named = Program(DIGIT + rules, boxes, provenance="sampled", instances={"digit": ["a", "b"]})
    torch.testing.assert_close(named(digit=UNIFORM).probs, torch.tensor([[1 / 3]]))


def test_files(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="Is a directory"):
        Program(tmp_path)
    file = tmp_path / "a.pl"
    file.write_text("a.\nb :- a\nquery(b).\n")
    with pytest.raises(ProgramError) as caught:
        Program(file)
    assert caught.value.file == str(file)
    assert f"{file}, line 3, column 1\n    query(b).\n    ^" in str(caught.value)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ProgramError, match="cannot read the program"):
        Program(file)
    with pytest.raises(ProgramError, match="a path, a text or a LogicProgram, not NoneType"):
        Program(None)  # type: ignore[arg-type]


# The arguments of Program


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"provenance": "x"}, ByssusError, "provenance='x': there are 'auto', 'exact'"),
        ({"estimator": "x"}, ByssusError, "no estimator 'x': there are"),
        (
            {"instances": {"digit": ["a"]}},
            ConceptError,
            "uses digit on 'b', which `instances` lacks",
        ),
        ({"instances": {"x": ["a"]}}, ConceptError, "instances of x: the program's networks are"),
        ({"instances": {"digit": "aab"}}, ConceptError, "'a', 'a', 'b' are not all different"),
        (
            {"provenance": "mixed", "sampled": ["x"]},
            ConceptError,
            r"sampled=\['x'\]: .* 'digit\(a\)'",
        ),
        ({"provenance": "exact", "nodes": 3}, CompilationLimit, "raise `nodes=`"),
        ({"blackboxes": [print]}, ByssusError, "is not a black box: decorate it"),
        ({"blackboxes": [box(abs), box(int)]}, ByssusError, "two black boxes are called box"),
        ({"blackboxes": [box(abs, memo=False)]}, ByssusError, r"'box' is random \(memo=False\)"),
        ({"blackboxes": {"is": box(abs)}}, ByssusError, "would hide ProbLog's own is/2"),
    ],
)
def test_bad_arguments(options: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Program(SUM, **options)  # type: ignore[arg-type]


def test_what_does_not_compile_is_sampled_with_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match="sampled: sum: the circuit did not compile"):
        program = Program(SUM, nodes=3)
    assert program.provenance == "sampled"
    assert program(digit=UNIFORM).probs.shape == (1, 5)


# Probabilities


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"digit": torch.full((1, 2, 4), 0.25)},
            ShapeError,
            r"\(1, 2, 4\): expected \(batch, 2, 3\)",
        ),
        (
            {"digit": torch.full((1, 3, 3), 1 / 3)},
            ShapeError,
            r"\(1, 3, 3\): .* instances 'a', 'b'",
        ),
        ({"digit": torch.tensor(1.0)}, ShapeError, r"of shape \(\)"),
        ({"digit": UNIFORM[0, 0]}, ShapeError, r"of shape \(3,\)"),
        ({"digit": torch.ones(1, 2, 3, dtype=torch.int64)}, ShapeError, "not torch.int64"),
        ({"digit": [[0.5]]}, ShapeError, "not list"),
        ({"digit": torch.ones(0, 2, 3)}, EmptyBatchError, "a batch has at least one example"),
        ({"digit": torch.tensor([[[-0.1, 0.6, 0.5]] * 2])}, ProbabilityError, "-0.1"),
        ({"digit": UNIFORM * torch.nan}, ProbabilityError, "not finite"),
        ({"digit": UNIFORM * 2}, ProbabilityError, "sum to 2"),
        ({"digit": UNIFORM, "x": UNIFORM}, ConceptError, "no network 'x'; it declares 'digit'"),
        ({}, ConceptError, r"probabilities of digit are missing: .* \(batch, 2, 3\)"),
        ({"digit": {"a": UNIFORM[:, 0]}}, ConceptError, "given for 'a'; the program uses it on"),
        ({"digit": {"a": UNIFORM[:, 0], "b": 3}}, ShapeError, "digit of 'b' must be a tensor"),
        (
            {"digit": {"a": UNIFORM[:, 0], "b": UNIFORM[:, 0, :2]}},
            ShapeError,
            "must have one number of values",
        ),
        (
            {"digit": {"a": UNIFORM[[0, 0], 0], "b": UNIFORM[[0, 0, 0], 0]}},
            ShapeError,
            "batches of different sizes: {'a': 2, 'b': 3}",
        ),
    ],
)
def test_bad_probabilities(given: dict[str, object], error: type, message: str) -> None:
    program = Program(SUM)
    with pytest.raises(error, match=message):
        program(given)
    assert program(digit=UNIFORM)[0].item() == pytest.approx(1 / 9)


def test_bad_batches_and_calls() -> None:
    text = DIGIT + "nn(r, [X]) :: rain(X).\nq(D) :- digit(a, D), rain(b).\nquery(q(D)).\n"
    program = Program(text)
    one, two = UNIFORM[[0, 0]][:, :1], torch.full((3, 1), 0.5)
    with pytest.raises(ShapeError, match=r"batches of different sizes: {'digit': 2, 'r': 3}"):
        program(digit=one, r=two)
    with pytest.raises(ProbabilityError):
        program(digit=one, r=torch.tensor([[1.5]]))
    with pytest.raises(ShapeError, match=re.escape("expected (batch, 1, 2) or (batch, 1)")):
        program(digit=one, r=torch.ones(1, 1, 3) / 3)
    with pytest.raises(ConceptError, match="by the network's name"):
        Program(SUM)(UNIFORM)
    with pytest.raises(ConceptError, match="'digit' is given twice"):
        Program(SUM)({"digit": UNIFORM}, digit=UNIFORM)


# Black boxes

_ASKS = "0.5::a(3).\nq(Y) :- a(X), box(X, Y).\nquery(q(Y)).\n"


def _slow(x: int) -> int:
    time.sleep(5)
    return x


@pytest.mark.parametrize(
    ("function", "options", "error", "message"),
    [
        (lambda x: 1 // (x - 3), {}, BlackBoxError, r"box\(3\) raised ZeroDivisionError"),
        (_slow, {"timeout": 0.05}, BlackBoxTimeout, r"box\(3\) gave no answer in 0.05 s"),
        (lambda x: "x", {}, BlackBoxOutputError, r"box\(3\) returned 'x'"),
        (lambda x: random.randrange(10), {}, NondeterministicError, r"box\(3\) answered"),
    ],
)
def test_calls_that_fail(
    function: Callable[..., object], options: dict[str, object], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        Program(_ASKS, [box(function, **options)])


def test_an_output_that_prolog_does_not_have() -> None:
    odd = blackbox(Integer(0, 9), name="box")(lambda x: frozenset([x]))
    with pytest.raises(ByssusError, match="has no counterpart in ProbLog"):
        Program(_ASKS, [odd])


def test_arguments_outside_the_domain_count_only_where_they_are_asked() -> None:
    text = "0.5::a(11). 0.5::a(3).\nq(Y) :- a(X), box(X, Y).\nquery(q(Y)).\n"
    with pytest.raises(DomainError, match=r"box\(11,\): argument 0 is 11, which is not in"):
        Program(text, [box(abs)])
    program = Program(text.replace("box(", "X < 10, box("), [box(abs)])
    assert program()[3].item() == 0.5


@pytest.mark.parametrize(
    ("text", "spot", "message"),
    [
        ("q(Y) :- box(X, Y).\nquery(q(Y)).", "box(X, Y).", "argument 1 of .* box is not bound"),
        (
            "q(Y) :- box(f(X), Y).\nquery(q(Y)).",
            "box(f(X), Y).",
            "put the goals that bind it before",
        ),
        ("q :- box(1, 2, 3).\nquery(q).", "box(1, 2, 3).", "call it with 2, not with 3"),
        ("q :- box(1).\nquery(q).", "box(1).", "call it with 2, not with 1"),
        ("q :- boxx(1, 2).\nquery(q).", "boxx(1, 2).", "is the black box box meant"),
    ],
)
def test_calls_in_the_wrong_form(text: str, spot: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message) as caught:
        Program(text, [box(abs)])
    line, column = caught.value.line, caught.value.column
    assert line is not None
    assert column is not None
    assert text.splitlines()[line - 1][column - 1 :] == spot


def test_a_predicate_of_the_same_name() -> None:
    with pytest.raises(ProgramError, match="a black box has this name; rename one of the two"):
        Program("box(X, Y) :- Y is X.\nquery(box(1, Y)).\n", [box(abs)])


def test_indecater_needs_affordable_calls() -> None:
    on_token = DIGIT + "q(Z) :- digit(a, X), box(X, Z).\nquery(q(Z)).\n"
    program = Program(on_token, [box(abs, budget=1)], estimator="indecater")
    with pytest.raises(BudgetExceeded, match="more are needed"):
        program(digit=UNIFORM[:, :1])
    on_value = DIGIT + "q(Z) :- digit(a, X), Y is 2 - X, box(Y, Z).\nquery(q(Z)).\n"
    program = Program(on_value, [box(abs, budget=1)], estimator="indecater")
    with pytest.raises(ByssusError, match="indecater asks about worlds that were not sampled"):
        program(digit=UNIFORM[:, :1])


def test_a_random_black_box_is_refused_at_once() -> None:
    @blackbox(Integer(0, 2), Integer(0, 2), output=Integer(0, 9), memo=False)
    def add(x: int, y: int) -> int:
        return random.randint(0, 9)

    text = DIGIT + "sum(Z) :- digit(a, X), digit(b, Y), add(X, Y, Z).\nquery(sum(Z)).\n"
    with pytest.raises(ByssusError, match="random"):
        Program(text, [add])


def test_failures_are_named_with_their_cause() -> None:
    @blackbox(Integer(0, 2), Integer(0, 2), output=Integer(0, 4), on_error="discard")
    def add(x: int, y: int) -> int:
        if (x, y) == (2, 1):
            raise RuntimeError("boom")
        return x + y

    text = DIGIT + "sum(Z) :- digit(a, X), digit(b, Y), add(X, Y, Z).\nquery(sum(Z)).\n"
    for provenance in ("exact", "sampled"):
        y = Program(text, [add], provenance=provenance)(digit=UNIFORM)
        ((arguments, cause),) = y.failures.items()
        assert arguments == ("add", 2, 1)
        assert str(cause) == "boom"
        assert y.lost.item() > 0


def test_values_that_python_cannot_tell_apart_keep_their_texts() -> None:
    y = Program('0.3::f(abc). 0.5::f("abc"). 0.2::f(1). 0.1::f(1.0). query(f(X)).')()
    assert [round(y[value].item(), 6) for value in y.values] == [0.2, 0.1, 0.5, 0.3]
    y = Program("0.2::f(1). 0.1::f(1.0). query(f(X)).")()
    assert y[1].item() == pytest.approx(0.2)
    assert y[1.0].item() == pytest.approx(0.1)
