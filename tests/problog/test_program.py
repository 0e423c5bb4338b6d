"""What a Program does: values, calls, sharing, evidence, features of ProbLog, persistence."""

from __future__ import annotations

import copy
import os
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from problog import get_evaluatable
from problog.program import PrologString
from torch import Tensor

import byssus
from byssus import (
    BlackBox,
    BlackBoxError,
    Boolean,
    BudgetExceeded,
    Discrete,
    Integer,
    ProbabilityError,
    ProgramError,
    Tuple,
    blackbox,
)
from byssus_problog import Program, demo

DIGIT = "nn(digit, [X], D, [0, 1, 2]) :: digit(X, D).\n"
SUM = DIGIT + "sum(Z) :- digit(a, X), digit(b, Y), Z is X + Y.\nquery(sum(Z)).\n"
CALL = DIGIT + "sum(Z) :- digit(a, X), digit(b, Y), add(X, Y, Z).\nquery(sum(Z)).\n"


def make_add(calls: list[tuple[int, int]], **options: object) -> BlackBox:
    @blackbox(Integer(0, 2), Integer(0, 2), output=Integer(0, 4), **options)
    def add(x: int, y: int) -> int:
        calls.append((x, y))
        return x + y

    return add


def random_probs(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).softmax(-1)


def hard_clauses(facts: int, seed: int = 0) -> str:
    """A conjunction of random clauses of three, which has no small circuit."""
    rng = random.Random(seed)
    clauses = [
        " ; ".join(rng.choice(["", "\\+ "]) + f"x({v})" for v in rng.sample(range(facts), 3))
        for _ in range(2 * facts)
    ]
    return "hard :- " + ", ".join(f"({clause})" for clause in clauses) + ".\n"


def test_auto_samples_only_what_does_not_compile() -> None:
    text = DIGIT + "nn(x, [I]) :: x(I).\neasy :- digit(a, 1), digit(b, 2).\n" + hard_clauses(60)
    with pytest.warns(RuntimeWarning, match="sampled: hard: .* 50000 nodes"):
        program = Program(text + "query(easy). query(hard).\n", nodes=50_000)
    assert program.provenance == "mixed"
    assert {name.split("(")[0] for name in program.plan().sampled} == {"x"}
    digit = random_probs(3, 2, 3).requires_grad_()
    y = program(digit=digit, x=torch.full((3, 60), 0.5, dtype=torch.float64))
    expected = digit[:, 0, 1] * digit[:, 1, 2]
    torch.testing.assert_close(y["easy"], expected)
    (got,) = torch.autograd.grad(y["easy"].sum(), digit)
    (wanted,) = torch.autograd.grad(expected.sum(), digit)
    torch.testing.assert_close(got, wanted)


def convolved(p: Tensor) -> Tensor:
    joint = p[:, 0, :, None] * p[:, 1, None, :]
    return torch.stack([joint.flip(2).diagonal(2 - z, 1, 2).sum(1) for z in range(5)], 1)


def answers(text: str, *boxes: BlackBox, **given: Tensor) -> dict[object, float]:
    program = Program(text, boxes)
    probs = program(given).probs[0].tolist()
    return {
        value: pytest.approx(p, abs=1e-6) for value, p in zip(program.values, probs, strict=True)
    }


# Values


def test_the_sum_of_two_digits() -> None:
    p = random_probs(4, 2, 3)
    result = Program(SUM)(digit=p)
    assert result.values == (0, 1, 2, 3, 4)
    assert torch.allclose(result.probs, convolved(p))


@pytest.mark.parametrize("provenance", ["auto", "exact", "sampled", "mixed"])
def test_every_provenance_gives_the_same_over_all_worlds(provenance: str) -> None:
    p = random_probs(4, 2, 3)
    program = Program(
        CALL, [make_add([])], provenance=provenance, worlds=byssus.exhaustive, estimator="distinct"
    )
    result = program(digit=p)
    assert sorted(result.values) == [0, 1, 2, 3, 4]
    for z in range(5):
        assert torch.allclose(result[z], convolved(p)[:, z])


@pytest.mark.parametrize("estimator", ["rloo", "indecater"])
@pytest.mark.parametrize("provenance", ["sampled", "mixed"])
@pytest.mark.parametrize(
    "text",
    [SUM, DIGIT + "q :- digit(a, X), \\+ digit(b, X).\nquery(q).\n"],
    ids=["sum", "negation"],
)
def test_gradients_are_unbiased(estimator: str, provenance: str, text: str) -> None:
    logits = torch.tensor([[[0.3, -0.2, 0.5], [0.1, 0.4, -0.6]]], dtype=torch.float64)
    logits.requires_grad_()
    program = Program(
        text,
        provenance=provenance,
        estimator=estimator,
        samples=20,
        generator=torch.Generator().manual_seed(7),
    )
    weight = torch.linspace(-1, 1, len(program.values) + 2, dtype=torch.float64)[1:-1]
    weight = weight + 0.5

    def gradient(scores: Tensor) -> Tensor:
        return torch.autograd.grad((scores * weight).sum(), logits)[0]

    exact = gradient(Program(text)(digit=logits.softmax(-1)).probs)
    draws = torch.stack([gradient(program(digit=logits.softmax(-1)).scores) for _ in range(300)])
    error = draws.std(0) / len(draws) ** 0.5
    # 6 entries in 8 tests: 3.5 standard errors somewhere is a chance of 2 %, and the seed is fixed
    assert ((draws.mean(0) - exact).abs() <= 3.5 * error + 1e-12).all()


def test_shared_concepts_get_the_sum_of_the_gradients() -> None:
    text = DIGIT + "nn(rain, [X]) :: rain(X).\nq(D) :- digit(a, D), rain(b).\nquery(q(D)).\n"
    program = Program(text)
    shared = random_probs(1, 1, 3).requires_grad_()
    rain = torch.tensor([[0.2], [0.9]], dtype=torch.float64)
    result = program(digit=shared, rain=rain)
    assert torch.allclose(result.probs, shared[:, 0] * rain)
    result.probs.sum().backward()
    assert torch.allclose(shared.grad, rain.sum().expand(1, 1, 3))


def test_instances_are_in_natural_order() -> None:
    text = (
        DIGIT + "q(D) :- digit(i10, D), digit(i2, D), digit(1, D), digit(f(3), D).\nquery(q(D)).\n"
    )
    assert Program(text).instances == {"digit": (1, "i2", "i10", "f(3)")}


def test_instances_may_be_given_with_unused_ones() -> None:
    program = Program(SUM, instances={"digit": ["z", "b", "a"]})
    p = random_probs(2, 3, 3)
    assert program.instances == {"digit": ("z", "b", "a")}
    assert torch.allclose(program(digit=p).probs, convolved(p[:, [2, 1]]))


def test_tensors_by_instance() -> None:
    p = random_probs(2, 2, 3)
    result = Program(SUM)(digit={"b": p[:, 1], "a": p[:, 0]})
    assert torch.allclose(result.probs, convolved(p))
    shared = Program(SUM)({"digit": {"b": p[:1, 1], "a": p[:, 0]}})
    assert torch.allclose(
        shared.probs, convolved(torch.stack([p[:, 0], p[:1, 1].expand(2, -1)], 1))
    )


def test_facts_take_several_shapes() -> None:
    program = Program("nn(r, [X]) :: r(X).\nq :- r(a).\nquery(q).\n")
    for table in ([0.3], [[0.3]], [[[0.3]]], [[[0.7, 0.3]]]):
        assert program(r=torch.tensor(table))["q"].item() == pytest.approx(0.3)


def test_several_queries_ground_negated_and_without_answers() -> None:
    text = "0.3::a(1). 0.6::a(2). b(X) :- a(X), X > 5.\n"
    text += "query(a(X)). query(b(X)). query(b(7)). query(\\+ a(2)).\n"
    assert answers(text) == {"a(1)": 0.3, "a(2)": 0.6, "b(7)": 0.0, "\\+a(2)": 0.4}


@pytest.mark.parametrize(
    ("evidence", "more"),
    [
        ("evidence(w).", ""),
        ("evidence(w, false).", ""),
        ("evidence(\\+ a(1)). evidence(w, true).", ""),
        ("evidence(a(X)).", "0.2::a(3)."),
        ("evidence(w). evidence(a(2), false).", "0.1::w."),
    ],
)
def test_evidence_conditions_as_problogs_does(evidence: str, more: str) -> None:
    text = (
        f"0.3::a(1). 0.6::a(2). {more} w :- a(1). w :- a(2).\n{evidence}\nquery(a(X)). query(w).\n"
    )
    expected = get_evaluatable().create_from(PrologString(text)).evaluate()
    found = Program(text)
    probs = found().probs[0].tolist()
    assert {str(k): pytest.approx(v, abs=1e-6) for k, v in expected.items()} == dict(
        zip(found.queries, probs, strict=True)
    )


def test_evidence_needs_a_possible_world() -> None:
    text = "0.3::a. b :- a. evidence(b). evidence(\\+ a). query(a).\n"
    with pytest.raises(ProgramError, match=r"the evidence \\\+a has probability 0") as caught:
        Program(text)
    assert (caught.value.line, caught.value.column) == (1, 39)
    text = "nn(a, []) :: a. evidence(a). query(a).\n"
    with pytest.raises(ProbabilityError, match="evidence has probability 0 in example 1"):
        Program(text)(a=torch.tensor([0.5, 0.0]))
    worlds = Program(text, provenance="sampled", worlds=byssus.exhaustive)
    with pytest.raises(ProbabilityError, match="evidence has probability 0 in example 1"):
        worlds(a=torch.tensor([0.5, 0.0]))
    with pytest.raises(ProbabilityError, match="100 worlds sampled for example 1 satisfies"):
        Program(text, provenance="sampled")(a=torch.tensor([0.5, 0.0]))


def test_what_is_lost_is_conditioned_too() -> None:
    box = blackbox(Integer(0, 2), output=Integer(0, 2), on_error="discard", name="box")(
        lambda x: 1 // x
    )
    text = "0.5::a(0); 0.3::a(1); 0.2::a(2).\nq(Y) :- a(X), box(X, Y).\n"
    result = Program(text + "w :- a(0). w :- a(1).\nevidence(w).\nquery(q(Y)).\n", [box])()
    assert result.lost.item() == pytest.approx(5 / 8)
    assert result[1].item() == pytest.approx(3 / 8)


# Black boxes


def test_calls_are_made_once_and_only_where_sampled_worlds_ask() -> None:
    calls: list[tuple[int, int]] = []
    program = Program(CALL, [make_add(calls)], provenance="sampled", samples=20)
    p = torch.tensor([[[0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]])
    assert program(digit=p).calls == 2
    assert sorted(calls) == [(1, 2), (2, 2)]
    assert program(digit=p).calls == 0
    assert program(digit=torch.tensor([[[1.0, 0, 0], [1.0, 0, 0]]])).calls == 1
    assert len(calls) == 3


def test_a_failed_step_changes_nothing() -> None:
    calls: list[tuple[int, int]] = []
    add = make_add(calls, budget=3)
    program = Program(CALL, [add], samples=50, generator=torch.Generator().manual_seed(0))
    assert program.provenance == "sampled"
    one = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]])
    with pytest.raises(BudgetExceeded, match="budget of 3 calls"):
        program(digit=torch.full((1, 2, 3), 1 / 3))
    assert calls == []
    assert program(digit=one).most_likely() == [4]
    assert calls == [(2, 2)]


def test_a_black_box_that_raises_leaves_the_others_as_they_were() -> None:
    fails = True
    seen = []

    @blackbox(Integer(0, 2), output=Integer(0, 2))
    def first(x: int) -> int:
        seen.append(x)
        return x

    @blackbox(Integer(0, 2), output=Integer(0, 2))
    def second(x: int) -> int:
        if fails:
            raise ValueError(x)
        return x

    text = DIGIT + "q(Z) :- digit(a, X), first(X, Y), second(Y, Z).\nquery(q(Z)).\n"
    program = Program(text, [first, second], provenance="sampled", samples=5)
    one = torch.tensor([[[0.0, 1.0, 0.0]]])
    for _ in range(2):
        with pytest.raises(BlackBoxError, match=r"second\(1\) raised ValueError"):
            program(digit=one)
    assert seen == [1, 1]  # not remembered
    fails = False
    assert program(digit=one)[1].item() == 1.0


def test_a_failure_is_lost_or_a_value() -> None:
    def half(x: int) -> int:
        if x % 2:
            raise ValueError(x)
        return x // 2

    text = DIGIT + "q(Y) :- digit(a, X), half(X, Y).\nquery(q(Y)).\n"
    p = random_probs(3, 1, 3)
    discard = blackbox(Integer(0, 2), output=Integer(0, 2), on_error="discard")(half)
    for provenance in ("exact", "sampled", "mixed"):
        program = Program(text, [discard], provenance=provenance, worlds=byssus.exhaustive)
        result = program(digit=p)
        assert torch.allclose(result.lost, p[:, 0, 1])
        assert torch.allclose(result.probs.sum(1) + result.lost, torch.ones(3).double())
    value = blackbox(Integer(0, 2), output=Integer(0, 2), on_error=2)(half)
    result = Program(text, [value])(digit=p)
    assert torch.allclose(result[2], p[:, 0, 1])
    assert not result.lost.any()


def test_no_call_that_a_known_answer_would_forbid() -> None:
    """What is below a negation waits for its answer; so a loop that a black box ends does end."""
    calls = []

    @blackbox(Integer(0, 9), output=Boolean())
    def done(n: int) -> bool:
        calls.append(n)
        return n >= 3

    text = "0.5::go(0).\nstep(N) :- go(N).\nstep(M) :- step(N), \\+ done(N), M is N + 1.\n"
    assert answers(text + "query(step(N)).\n", done) == {0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5}
    assert calls == [0, 1, 2, 3]


def test_nor_below_findall() -> None:
    calls = []

    @blackbox(Integer(0, 9), output=Integer(0, 18))
    def double(n: int) -> int:
        calls.append(n)
        return 2 * n

    text = ":- use_module(library(lists)).\n0.5::a(1). 0.25::a(2).\n"
    text += "q(Z) :- findall(Y, (a(X), double(X, Y)), L), sum_list(L, S), double(S, Z).\n"
    found = answers(text + "query(q(Z)).\n", double)
    assert found == {0: 0.375, 4: 0.375, 8: 0.125, 12: 0.125}
    assert sorted(calls) == [0, 1, 2, 4, 6]


def test_a_failing_call_below_findall_loses_its_worlds_alone() -> None:
    box = blackbox(Integer(0, 9), output=Integer(0, 9), on_error="discard", name="box")(
        lambda x: 4 // (x - 1)
    )
    text = "0.5::a(1). 0.25::a(2). 0.5::go.\n"
    text += "q(L) :- go, findall(Y, (a(X), box(X, Y)), L).\nquery(q(L)).\n"
    result = Program(text, [box])()
    assert result.lost.item() == pytest.approx(0.25)  # go and a(1)
    assert result[(4,)].item() == pytest.approx(0.5 * 0.5 * 0.25)
    assert result[()].item() == pytest.approx(0.5 * 0.5 * 0.75)


def test_black_boxes_take_and_give_structured_values() -> None:
    values = ["a b", "plain", -1, 1.5, "it's", True, ("x", ("y", 2)), ()]
    box = blackbox(Discrete(values), output=Discrete(values), name="same")(lambda x: x)
    atoms = ["'a b'", "plain", "-1", "1.5", "'it\\'s'", "true", "[x, [y, 2]]", "[]"]
    for value, atom in zip(values, atoms, strict=True):
        text = f"0.5::o({atom}).\nq(Y) :- o(X), same(X, Y).\nr :- o(X), same(X, X).\n"
        assert answers(text + "query(q(Y)).\n", box) == {value: 0.5}
        assert answers(text + "query(r).\n", box) == {"r": 0.5}


def test_a_tuple_is_a_list() -> None:
    swap = blackbox(
        Tuple(Integer(0, 1), Integer(0, 1)), output=Tuple(Integer(0, 1), Integer(0, 1)), name="swap"
    )(lambda pair: pair[::-1])
    text = "0.3::o([0, 1]).\nq(A) :- o(P), swap(P, [A, _]).\nquery(q(A)).\n"
    assert answers(text, swap) == {1: 0.3}


def test_a_black_box_under_another_name_called_and_queried() -> None:
    add = make_add([])
    assert Program("query(plus2(1, 2, X)).\n", {"plus2": add})()[3].item() == 1.0
    text = "0.5::o(1).\nq(Z) :- o(X), G = add(X, X, Z), call(G).\nquery(q(Z)).\n"
    assert answers(text, add) == {2: 0.5}


def test_no_call_in_a_world_that_cannot_be() -> None:
    calls: list[tuple[int, int]] = []
    text = "0.1::a; 0.2::b; 0.7::c.\nd :- a. d :- b. d :- c.\nq(X) :- \\+ d, add(1, 1, X).\n"
    assert answers(text + "query(q(2)).\n", make_add(calls)) == {"q(2)": 0.0}
    assert calls == []


def test_the_plan_says_what_will_be_called() -> None:
    plan = Program(CALL, [make_add([])]).plan()
    assert (plan.provenance, plan.calls, plan.sampled) == ("exact", {"add": 9}, ())
    plan = Program(CALL, [make_add([], budget=4)]).plan()
    assert (plan.provenance, plan.calls) == ("sampled", {"add": 4})
    assert plan.sampled == ("digit(a)", "digit(b)")


# Features of ProbLog


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5::a.\nq(X) :- a, between(1, 2, X).\nquery(q(X)).", {1: 0.5, 2: 0.5}),
        (
            ":- use_module(library(lists)).\n0.5::a(1). 0.5::a(2).\n"
            "q(S) :- findall(X, a(X), L), sum_list(L, S).\nquery(q(S)).",
            {0: 0.25, 1: 0.25, 2: 0.25, 3: 0.25},
        ),
        (
            ":- use_module(library(lists)).\n0.5::a.\n"
            "q(X) :- a, member(X, [c, b, 'A b', \"str\", -1, 1.5, f(x), [1, 2]]).\nquery(q(X)).",
            dict.fromkeys([-1, 1.5, "str", "A b", "b", "c", "f(x)", (1, 2)], 0.5),
        ),
        ("P::a(P) :- b(P). b(0.25).\nquery(a(X)).", {0.25: 0.25}),
        ("q(X) :- X = f(Y), Y = 2.\nquery(q(f(Z))).", {2: 1.0}),
        ("0.5::e(1, 2). 0.5::e(2, 1).\np(X, Y) :- e(X, Y).\np(X, Y) :- p(X, Z), p(Z, Y).\n"
         "query(p(1, X)).", {1: 0.25, 2: 0.5}),
        ("a. b :- \\+ a. c.\nquery(b). query(c).", {"b": 0.0, "c": 1.0}),
        ("0.3::e. p :- p. p :- \\+ r. r :- s. s :- r. s :- e.\nquery(p).", {"p": 0.7}),
    ],
)  # fmt: skip
def test_features(text: str, expected: dict[object, float]) -> None:
    assert answers(text) == expected


def test_negation_over_a_cycle_from_within_a_cycle() -> None:
    """ProbLog's engine takes this for a negative cycle; the program is stratified."""
    text = "0.3::e(0, 1). 0.5::e(1, 2).\nr(X, Y) :- e(X, Y).\nr(X, Y) :- r(X, Z), e(Z, Y).\n"
    assert answers(text + "p :- p.\np :- \\+ r(0, 2).\nquery(p).\n") == {"p": 0.85}


def test_a_file_that_consults_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "digits.pl").write_text(DIGIT)
    file = tmp_path / "sub" / "main.pl"
    file.write_text(":- consult('digits.pl').\n" + SUM.removeprefix(DIGIT))
    p = random_probs(2, 2, 3)
    for program in (Program(file), Program(str(file))):
        assert torch.allclose(program(digit=p).probs, convolved(p))


def test_errors_in_a_neighbour_show_the_neighbour(tmp_path: Path) -> None:
    (tmp_path / "other.pl").write_text("0.5::a.\nb :- a, nothing(1).\n")
    file = tmp_path / "main.pl"
    file.write_text(":- consult('other.pl').\nquery(b).\n")
    with pytest.raises(ProgramError, match=r"'nothing/1'") as caught:
        Program(file)
    assert caught.value.line == 2
    assert caught.value.file is not None
    assert caught.value.file.endswith("other.pl")
    assert "b :- a, nothing(1).\n            ^" in str(caught.value)


# Size


def test_sixteen_digits_by_a_recursion() -> None:
    items = ", ".join(f"i{i}" for i in range(16))
    text = "nn(digit, [X], D, [0,1,2,3,4,5,6,7,8,9]) :: digit(X, D).\n"
    text += "sum([], 0).\nsum([H|T], S) :- sum(T, R), digit(H, D), S is R + D.\n"
    started = time.monotonic()
    program = Program(f"{text}query(sum([{items}], S)).\n")
    assert time.monotonic() - started < 30  # 3 s on a quiet machine
    assert program.values == tuple(range(145))
    assert program.instances["digit"] == tuple(f"i{i}" for i in range(16))
    p = random_probs(4, 16, 10).requires_grad_()
    expected = torch.ones(4, 1, dtype=torch.float64)
    for i in range(16):
        terms = [
            torch.nn.functional.pad(expected * p[:, i, d : d + 1], (d, 9 - d)) for d in range(10)
        ]
        expected = torch.stack(terms).sum(0)
    assert torch.allclose(program(digit=p).probs, expected)


def test_long_chains_and_deep_recursion() -> None:
    rules = "".join(f"c{i}(X) :- c{i - 1}(X).\n" for i in range(1, 200))
    text = DIGIT + "c0(X) :- digit(a, X).\n" + rules + "query(c199(X)).\n"
    p = random_probs(2, 1, 3)
    assert torch.allclose(Program(text)(digit=p).probs, p[:, 0])
    count = "n(0, X) :- digit(a, X).\nn(N, X) :- N > 0, M is N - 1, n(M, X).\nquery(n(600, X)).\n"
    assert torch.allclose(Program(DIGIT + count)(digit=p).probs, p[:, 0])


# A module among modules


def test_nothing_to_save_or_to_train() -> None:
    program = Program(SUM)
    assert not program.state_dict()
    assert not list(program.parameters())


@pytest.mark.parametrize("provenance", ["exact", "sampled", "mixed"])
def test_copies_and_pickles_work(provenance: str) -> None:
    p = random_probs(2, 2, 3)
    program = Program(SUM, provenance=provenance, worlds=byssus.exhaustive, estimator="distinct")
    program(digit=p)
    for other in (copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        assert torch.allclose(other(digit=p).probs, convolved(p))


def test_a_copy_with_bitsets_and_black_boxes_works() -> None:
    calls: list[tuple[int, int]] = []
    program = Program(CALL, [make_add(calls)], provenance="mixed", sampled="digit(a)", samples=9)
    program(digit=random_probs(2, 2, 3))
    program.circuit = None
    program(digit=random_probs(2, 2, 3))
    assert copy.deepcopy(program)(digit=random_probs(2, 2, 3)).calls == 0


def test_precision_follows_the_tensors() -> None:
    program = Program("0.5::rain.\n" + SUM)
    for dtype in (torch.float32, torch.float64):
        p = random_probs(2, 2, 3).to(dtype)
        assert program(digit=p).probs.dtype == dtype
    p.requires_grad_()
    with torch.no_grad():
        assert not program(digit=p).probs.requires_grad
    with torch.inference_mode():
        program(digit=p)
    assert program(digit=p).probs.requires_grad


@pytest.mark.parametrize("provenance", ["exact", "sampled", "mixed"])
def test_devices(provenance: str, device: torch.device) -> None:
    p = random_probs(2, 2, 3).to(device)
    text = "0.5::w.\n" + SUM.replace("digit(a, X),", "digit(a, X), w,")
    program = Program(text, provenance=provenance, worlds=byssus.exhaustive, estimator="distinct")
    result = program(digit=p)
    assert result.probs.device.type == device.type
    assert torch.allclose(result.probs.cpu(), convolved(p.cpu()) / 2)


def test_programs_do_not_disturb_each_other() -> None:
    first = Program(CALL, [make_add([])])
    second = Program(CALL.replace("sum", "other"), [blackbox(
        Integer(0, 2), Integer(0, 2), output=Integer(0, 4), name="add"
    )(lambda x, y: x * y)])  # fmt: skip
    p = random_probs(2, 2, 3)
    assert torch.allclose(first(digit=p).probs, convolved(p))
    assert second.values == (0, 1, 2, 4)
    with pytest.raises(ProgramError):
        Program("query(add(1, 2, X)).\n")


def test_the_order_of_results_does_not_depend_on_hashes() -> None:
    script = """
import byssus, torch
from byssus_problog import Program, demo
names = byssus.Discrete(["x", "y", "z"])
box = byssus.blackbox(names, output=names, name="box")(lambda x: x)
program = Program('''
nn(a, [X], V, [x, y, z]) :: a(X, V).
nn(b, [X]) :: b(X).
0.5::c(x). 0.3::c(y); 0.2::c(z).
q(V, W) :- a(k, V), box(V, W), \\\\+ c(W).
q(V, W) :- a(l, V), a(m, W), b(V).
query(q(V, W)).
''', [box])
print(program.queries, program.instances, program.plan())
print([c.name for c in program._rules.ground.concepts], program.circuit.concepts)
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1
    assert "q(x,x)" in outputs.pop()


def test_a_black_box_and_its_program_pickle() -> None:
    program = Program(
        "nn(digit, [X], D, [0,1,2,3,4,5,6,7,8,9]) :: digit(X, D).\n"
        "sum(Z) :- digit(a, X), digit(b, Y), add(X, Y, Z).\nquery(sum(Z)).\n",
        [demo.add],
    )
    other = pickle.loads(pickle.dumps(program))
    p = random_probs(4, 2, 10)
    torch.testing.assert_close(other(digit=p).probs, program(digit=p).probs)
    assert pickle.loads(pickle.dumps(demo.add))(3, 4) == 7


def test_a_disjunction_is_sampled_under_the_name_of_its_first_head() -> None:
    text = "0.2::b(1); 0.5::b(2). 0.4::c.\na :- b(1), c. a :- b(2).\nquery(a).\n"
    program = Program(text, provenance="mixed", sampled=["b(1)"], worlds=byssus.exhaustive)
    assert program.plan().sampled == ("b(1)",)
    torch.testing.assert_close(program()["a"], torch.tensor([0.2 * 0.4 + 0.5]))
