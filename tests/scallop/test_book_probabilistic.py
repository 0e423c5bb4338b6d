"""The pages of Scallop's book on probabilities.

Under "exact" with probabilities worked out by hand, and under Scallop's own provenances with what
the book states, or with what their semirings make of it.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import byssus_scallop as scallopy
from scallop.running import probabilities, run

ACTIONS = """
type Action = UP | DOWN | LEFT | RIGHT
rel predicted_action = {0.05::UP, 0.09::DOWN, 0.82::LEFT, 0.04::RIGHT}
"""
COLOR = """rel color = {0.1::"red", 0.8::"green", 0.1::"blue"}"""
COLORS = """
rel 0.1::color("red")
rel 0.8::color("green")
rel 0.1::color("blue")
"""
ALARM = """
rel 0.03::earthquake()
rel 0.20::burglary()
rel alarm() = earthquake() or burglary()
query alarm
"""
TAGGED = """
rel 0.8::alarm() = earthquake()
rel 0.1::earthquake()
query alarm // 0.08::alarm()
"""
FALL_OFF = """
// A few edges
rel edge = {(0, 1), (1, 2)}

// Compute the length of the paths (note that we encode length with floating point numbers)
rel path(x, y, 1.0) = edge(x, y)
rel path(x, z, l + 1.0) = path(x, y, l) and edge(y, z)

// Compute the probabilistic path using the fall off (1 / length)
rel 1.0 / l :: prob_path(x, y) = path(x, y, l)

// Perform the query with arbitrary
query prob_path // prob_path: {1.0::(0, 1), 0.5::(0, 2), 1.0::(1, 2)}
"""
SIZES = """
type OBJ = OBJ_A | OBJ_B
rel size = {0.8::(OBJ_A, "big"); 0.2::(OBJ_A, "small")} // obj A is very likely big
rel size = {0.1::(OBJ_B, "big"); 0.9::(OBJ_B, "small")} // obj B is very likely small
rel num_big = count(o: size(o, "big"))
rel num_big_or_small = count(o: size(o, _))
rel some_big(b) = b := exists(o: size(o, "big"))
rel no_big() = not exists(o: size(o, "big"))
rel all_big() = forall(o: size(o, _) implies size(o, "big"))
"""
SYMBOLS = """
rel symbols = {0.9::"+", 0.05::"-", 0.02::"3"}
rel top_symbol(s) = s := top<1>(s: symbols(s)) // 0.9::top_symbol("+")
"""

EXCLUSIVE = ("exact", "topkproofs")
"""Provenances that know of alternatives."""
PROBABILITIES = ("exact", "minmaxprob", "addmultprob", "topkproofs")


def close(expected: dict[object, float]) -> object:
    return pytest.approx(expected, abs=1e-6)


# Facts (index, facts)


@pytest.mark.parametrize("provenance", PROBABILITIES)
def test_tagged_facts(provenance: str) -> None:
    found = probabilities(run(ACTIONS, provenance), "predicted_action")
    assert found == close({0: 0.05, 1: 0.09, 2: 0.82, 3: 0.04})


@pytest.mark.parametrize("provenance", PROBABILITIES)
@pytest.mark.parametrize("program", [COLOR, COLORS], ids=["set", "facts"])
def test_both_forms_of_tagged_facts(provenance: str, program: str) -> None:
    found = probabilities(run(program, provenance), "color")
    assert found == close({"red": 0.1, "green": 0.8, "blue": 0.1})


def test_facts_with_commas_are_independent() -> None:
    ctx = run(f'{COLOR}\nrel both() = color("red") and color("green")', "exact")
    assert probabilities(ctx, "both") == close({(): 0.08})


A = [0.01, 0.86, 0.02, 0.01, 0.02, 0.01, 0.01, 0.02, 0.01, 0.03]
B = [0.75, 0.03, 0.02, 0.04, 0.05, 0.01, 0.02, 0.03, 0.03, 0.02]


def digits() -> str:
    sets = [
        "rel digit = {"
        + "; ".join(f"{p}::({image}, {n})" for n, p in enumerate(distribution))
        + "}"
        for image, distribution in (("A", A), ("B", B))
    ]
    return "\n".join(["type ImageID = A | B", "type digit(img_id: ImageID, number: i32)", *sets])


def test_exclusive_facts() -> None:
    program = f"""
    {digits()}
    rel sum(a + b) = digit(A, a) and digit(B, b)
    rel two_at_once() = digit(A, a) and digit(A, b) and a != b
    rel a_digit() = digit(A, _)
    """
    ctx = run(program, "exact")
    found = probabilities(ctx, "sum")
    expected = [0.0] * 19
    for (i, p), (j, q) in itertools.product(enumerate(A), enumerate(B)):
        expected[i + j] += p * q
    assert found == close(dict(enumerate(expected)))
    assert probabilities(ctx, "a_digit") == close({(): math.fsum(A)})
    assert not any(probabilities(ctx, "two_at_once").values())


@pytest.mark.parametrize("provenance", EXCLUSIVE)
def test_alternatives_never_hold_together(provenance: str) -> None:
    program = """
    rel coin = {0.5::"heads"; 0.5::"tails"}
    rel both() = coin("heads") and coin("tails")
    """
    assert not any(probabilities(run(program, provenance), "both").values())


# Rules (logic)


@pytest.mark.parametrize(
    ("provenance", "probability"),
    [("exact", 0.08), ("topkproofs", 0.08), ("addmultprob", 0.08), ("minmaxprob", 0.1)],
)
def test_tag_of_a_rule(provenance: str, probability: float) -> None:
    assert probabilities(run(TAGGED, provenance), "alarm") == close({(): probability})


@pytest.mark.parametrize("provenance", PROBABILITIES)
def test_tag_that_is_an_expression(provenance: str) -> None:
    found = probabilities(run(FALL_OFF, provenance), "prob_path")
    assert found == close({(0, 1): 1.0, (0, 2): 0.5, (1, 2): 1.0})


def test_tag_that_is_a_boolean() -> None:
    # Real Scallop as built cannot cast a bool to a tag, against its book.
    program = """
    rel digit_1 = {0.3::1; 0.7::2}
    rel digit_2 = {0.4::1; 0.6::2}
    rel constraint(x == y) = digit_1(x) and digit_2(y)
    rel b::sat() = constraint(b)
    """
    ctx = run(program, "exact")
    assert probabilities(ctx, "constraint") == close({False: 0.46, True: 0.54})
    assert probabilities(ctx, "sat") == close({(): 0.54})


@pytest.mark.parametrize(
    ("provenance", "tag"),
    [
        ("exact", 0.8),
        ("topkproofs", (0.8, None)),
        ("addmultprob", 0.8),
        ("exact", torch.tensor(0.8)),
        ("difftopkproofs", (torch.tensor(0.8), None)),
    ],
    ids=str,
)
def test_tag_of_a_rule_from_python(provenance: str, tag: object) -> None:
    ctx = scallopy.ScallopContext(provenance=provenance)
    ctx.add_relation("earthquake", ())
    ctx.add_facts("earthquake", [(torch.tensor(0.1) if "diff" in provenance else 0.1, ())])
    ctx.add_rule("alarm() = earthquake()", tag=tag)
    ctx.run()
    assert probabilities(ctx, "alarm") == close({(): 0.08})


@pytest.mark.parametrize("provenance", ["exact", "diffaddmultprob"])
def test_tag_of_a_rule_is_learned(provenance: str) -> None:
    weight = torch.tensor(0.8, requires_grad=True)
    ctx = scallopy.ScallopContext(provenance=provenance)
    ctx.add_relation("earthquake", ())
    ctx.add_facts("earthquake", [(torch.tensor(0.1), ())])
    ctx.add_rule("alarm() = earthquake()", tag=weight)
    ctx.run()
    ((tag, _),) = list(ctx.relation("alarm"))
    tag.backward()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(0.1)


@pytest.mark.parametrize("provenance", EXCLUSIVE)
def test_a_tagged_rule_tosses_a_coin_for_each_way_to_apply_it(provenance: str) -> None:
    program = """
    rel p = {1, 2}
    rel pair = {(1, 1), (1, 2)}
    rel 0.5::r(x) = p(x)
    rel both() = r(1) and r(2)
    rel 0.5::s(x) = pair(x, y)
    rel 0.05::earthquake()
    rel 0.90::burglary()
    rel 0.95::alarm() :- earthquake() or burglary()
    """
    ctx = run(program, provenance)
    assert probabilities(ctx, "both") == close({(): 0.25})
    assert probabilities(ctx, "s") == close({1: 0.75})
    assert probabilities(ctx, "alarm") == close({(): 1 - (1 - 0.95 * 0.05) * (1 - 0.95 * 0.9)})


# Provenances


@pytest.mark.parametrize(
    ("provenance", "probability"),
    [("exact", 0.224), ("topkproofs", 0.224), ("minmaxprob", 0.2), ("addmultprob", 0.23)],
)
def test_alarm(provenance: str, probability: float) -> None:
    assert probabilities(run(ALARM, provenance), "alarm") == close({(): probability})


@pytest.mark.parametrize("provenance", ["unit", "proofs"])
def test_alarm_without_probabilities(provenance: str) -> None:
    assert list(run(ALARM, provenance).relation("alarm")) == [()]


def test_alarm_from_worlds() -> None:
    generator = torch.Generator().manual_seed(0)
    ctx = run(ALARM, "sampled", samples=20_000, generator=generator)
    # Five standard deviations of a mean of 20,000.
    assert probabilities(ctx, "alarm") == {
        (): pytest.approx(0.224, abs=5 * math.sqrt(0.224 * 0.776 / 20_000))
    }


# Aggregation


@pytest.mark.parametrize("provenance", ["exact", "topkproofs", "addmultprob"])
def test_count_over_worlds(provenance: str) -> None:
    found = probabilities(run(SIZES, provenance), "num_big")
    assert found == close({0: 0.2 * 0.9, 1: 0.8 * 0.9 + 0.2 * 0.1, 2: 0.8 * 0.1})


def test_aggregates_over_worlds() -> None:
    ctx = run(SIZES, "exact")
    certain = {n: p for n, p in probabilities(ctx, "num_big_or_small").items() if p > 1e-9}
    assert certain == close({2: 1.0})
    assert probabilities(ctx, "some_big") == close({False: 0.18, True: 0.82})
    assert probabilities(ctx, "no_big") == close({(): 0.18})
    assert probabilities(ctx, "all_big") == close({(): 0.08})


@pytest.mark.embedded("runs under a provenance of Scallop's own")
def test_count_under_minmax() -> None:
    found = probabilities(run(SIZES, "minmaxprob"), "num_big")
    assert found == close({0: 0.2, 1: 0.8, 2: 0.1})


@pytest.mark.parametrize("provenance", ["minmaxprob", "addmultprob", "topkproofs"])
def test_one_world_with_an_exclamation_mark(provenance: str) -> None:
    program = "rel s = {0.9::1, 0.5::2}\nrel n = count!(x: s(x))"
    assert probabilities(run(program, provenance), "n") == close({2: 1.0})


@pytest.mark.parametrize("provenance", ["minmaxprob", "addmultprob", "topkproofs"])
def test_aggregates_of_probabilities(provenance: str) -> None:
    program = """
    rel s = {0.2::1, 0.6::2}
    rel v = {0.5::1.0, 0.25::4.0}
    rel softer(x) = x := softmax(x: s(x))
    rel normal(x) = x := normalize(x: s(x))
    rel ranked(i, x) = (i, x) := rank(x: s(x))
    rel average = weighted_avg!(x: v(x))
    rel total = weighted_sum!(x: v(x))
    """
    ctx = run(program, provenance)
    one, two = math.exp(0.2), math.exp(0.6)
    assert probabilities(ctx, "softer") == close({1: one / (one + two), 2: two / (one + two)})
    assert probabilities(ctx, "normal") == close({1: 0.25, 2: 0.75})
    assert probabilities(ctx, "ranked") == close({(0, 2): 0.6, (1, 1): 0.2})
    assert probabilities(ctx, "average") == close({2.0: 1.0})  # (0.5 * 1 + 0.25 * 4) / 0.75
    assert probabilities(ctx, "total") == close({1.5: 1.0})


# Sampling


@pytest.mark.parametrize("provenance", ["minmaxprob", "addmultprob", "topkproofs"])
def test_top(provenance: str) -> None:
    assert probabilities(run(SYMBOLS, provenance), "top_symbol") == close({"+": 0.9})


@pytest.mark.embedded("runs under a provenance of Scallop's own")
@pytest.mark.parametrize("sampler", ["categorical", "uniform"])
def test_samplers(sampler: str) -> None:
    program = f"""
    rel symbols = {{0.9::"+", 0.05::"-", 0.02::"3"}}
    rel sampled(s) = s := {sampler}<1>(s: symbols(s))
    """
    found = probabilities(run(program, "minmaxprob"), "sampled")
    ((symbol, probability),) = found.items()
    assert probability == pytest.approx({"+": 0.9, "-": 0.05, "3": 0.02}[symbol])


@pytest.mark.embedded("runs under a provenance of Scallop's own")
def test_samplers_without_probabilities() -> None:
    program = """
    rel numbers = {0, 1, 2, 3}
    rel few(x) = x := uniform<2>(x: numbers(x))
    rel first(x) = x := top<2>(x: numbers(x))
    """
    ctx = run(program)
    few = list(ctx.relation("few"))
    assert 1 <= len(few) <= 2
    assert set(few) <= {(0,), (1,), (2,), (3,)}
    assert list(ctx.relation("first")) == [(0,), (1,)]


# Example programs of Scallop's repository


@pytest.mark.parametrize("provenance", ["minmaxprob", "addmultprob"])
def test_less_than(provenance: str) -> None:
    one = [0.01, 0.01, 0.01, 0.91, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]
    two = [0.01, 0.01, 0.01, 0.02, 0.01, 0.01, 0.01, 0.90, 0.01, 0.01]
    found = probabilities(run(_less_than(one, two), provenance), "less_than")
    combine, gather = (min, max) if provenance == "minmaxprob" else (lambda p, q: p * q, sum)
    for holds in (False, True):
        pairs = [
            combine(p, q)
            for (i, p), (j, q) in itertools.product(enumerate(one), enumerate(two))
            if (i < j) is holds
        ]
        assert found[holds] == pytest.approx(gather(pairs), abs=1e-6)


def test_less_than_with_independent_digits() -> None:
    one, two = [0.5, 0.2, 0.7], [0.1, 0.6, 0.3]
    found = probabilities(run(_less_than(one, two), "exact"), "less_than")
    for holds in (False, True):
        expected = 0.0
        for world in itertools.product((False, True), repeat=6):
            weight = math.prod(p if w else 1 - p for p, w in zip(one + two, world, strict=True))
            first = [i for i in range(3) if world[i]]
            second = [i for i in range(3) if world[3 + i]]
            if any((i < j) is holds for i, j in itertools.product(first, second)):
                expected += weight
        assert found[holds] == pytest.approx(expected, abs=1e-6)


def _less_than(one: list[float], two: list[float]) -> str:
    sets = [
        f"rel digit_{k} = {{" + ", ".join(f"{p}::{n}" for n, p in enumerate(ps)) + "}"
        for k, ps in ((1, one), (2, two))
    ]
    return "\n".join([*sets, "rel less_than(a < b) = digit_1(a) and digit_2(b)"])


def test_animals() -> None:
    # Of the repository's readme.
    program = """
    // Knowledge base facts
    rel is_a("giraffe", "mammal")
    rel is_a("tiger", "mammal")
    rel is_a("mammal", "animal")

    // Knowledge base rules
    rel name(a, b) :- name(a, c), is_a(c, b)

    // Recognized from an image, maybe probabilistic
    rel name = {
      0.3::(1, "giraffe"),
      0.7::(1, "tiger"),
      0.9::(2, "giraffe"),
      0.1::(2, "tiger"),
    }

    // Count the animals
    rel num_animals(n) :- n = count(o: name(o, "animal"))
    """
    ctx = run(program, "exact")
    one, two = 1 - 0.7 * 0.3, 1 - 0.1 * 0.9
    assert probabilities(ctx, "num_animals") == close(
        {0: (1 - one) * (1 - two), 1: one * (1 - two) + (1 - one) * two, 2: one * two}
    )
