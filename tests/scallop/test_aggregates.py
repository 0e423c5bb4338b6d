from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byssus import ByssusError, Exact, ProgramError
from byssus_scallop._aggregates import AGGREGATES, aggregate, result_types
from byssus_scallop._algebra import Tags, Unit
from byssus_scallop._ir import Aggregate
from byssus_scallop._semirings import make
from byssus_scallop._syntax import Source, Span

SPAN = Span(Source("rel r(n) = n := op(x: p(x))", "program.scl"), 12, 27)
WORLDS = 6


def declare(operator, types, *, arguments=0, parameters=(), named=None, single_world=False):
    return Aggregate(
        "r", operator, parameters, named or {}, single_world, "p", 0, arguments, types, SPAN
    )


class Bits(Tags[int]):
    """Tags are sets of worlds."""

    zero = 0

    def __init__(self, worlds: int = WORLDS) -> None:
        self.one = (1 << worlds) - 1

    def add(self, a, b):
        return a | b

    def mult(self, a, b):
        return a & b

    def negate(self, a):
        return self.one ^ a

    def weight(self, tag):
        return tag.bit_count() / self.one.bit_count()

    def worlds_of(self, tag):
        return {w for w in range(self.one.bit_length()) if tag >> w & 1}


class ExactTags(Tags[Any]):
    """Tags are decision diagrams."""

    def __init__(self, widths) -> None:
        self.exact = Exact(widths)
        self.zero, self.one = self.exact.zero, self.exact.one

    def add(self, a, b):
        return self.exact.add(a, b)

    def mult(self, a, b):
        return self.exact.mult(a, b)

    def negate(self, a):
        return self.exact.negate(a)

    def equal(self, a, b):
        return self.exact.equal(a, b)

    def worlds_of(self, tag):
        """The assignments in which it holds, counted as `itertools.product` gives them."""
        found = set()
        for number, world in enumerate(itertools.product(*map(range, self.exact.widths))):
            literals = [self.exact.literal(c, v) for c, v in enumerate(world)]
            if self.possible(reduce(self.mult, literals, tag)):
                found.add(number)
        return found


# What each aggregator means in one world


def f32(values, operation, start):
    result = np.float32(start)
    with np.errstate(all="ignore"):
        for value in values:
            result = operation(result, np.float32(value))
    return float(result)


def fits(value, kind):
    bounds = {"i8": (-128, 127), "i32": (-(2**31), 2**31 - 1), "u8": (0, 255)}
    return kind == "f32" or bounds[kind][0] <= value <= bounds[kind][1]


def joined(groups, separator):
    return {(separator.join(choice),) for choice in itertools.product(*groups)}


def reference(declaration, rows):
    """The results over these rows, all of which hold."""
    rows = sorted(rows)
    args, kind = declaration.arguments, (declaration.types or ("",))[-1]
    values = [row[args] for row in rows if len(row) > args]
    descending = declaration.named.get("desc", not declaration.named.get("asc", False))
    match declaration.operator:
        case "count":
            return {(len(rows),)}
        case "exists":
            return {(bool(rows),)}
        case "forall":
            return {(not rows,)}
        case "sum" | "prod" as operator:
            number, start = (np.add, 0) if operator == "sum" else (np.multiply, 1)
            exact = sum(values) if operator == "sum" else math.prod(values)
            total = f32(values, number, start) if kind == "f32" else exact
            return {(total,)} if fits(total, kind) else set()
        case "avg":
            if not rows:
                return set()
            if kind == "f32":
                return {(float(np.float32(f32(values, np.add, 0)) / np.float32(len(rows))),)}
            return {(math.trunc(sum(values) / len(values)),)}
        case "min" | "max" | "argmin" | "argmax" as operator:
            pick = min if operator.endswith("min") else max
            best = [r for r in rows if r[args:] == pick(row[args:] for row in rows)]
            return {r[:args] if operator.startswith("arg") else r for r in best}
        case "string_join":
            separator = (declaration.parameters or ("",))[0]
            if not (declaration.named.get("all") and args):
                return {(separator.join(values),)}
            groups = defaultdict(list)
            for row in rows:
                groups[row[:args]].append(row[args])
            return joined(groups.values(), separator)
        case "sort" | "argsort" as operator:
            ordered = sorted(rows, key=lambda row: row[args:], reverse=descending)
            cut = args if operator == "argsort" else None
            return {(i, *row[:cut]) for i, row in enumerate(ordered)}
        case "enumerate":
            return {(i, *row) for i, row in enumerate(rows)}
    raise AssertionError(declaration.operator)


SMALL = st.integers(-3, 3)
TEXT = st.sampled_from(["", "a", "b", "ab"])
FLOAT = st.sampled_from([0.1, 0.2, 1e8, -1.5]).map(lambda x: float(np.float32(x)))

CASES = [
    (declare("count", ("i32",)), st.tuples(SMALL)),
    (declare("count", ("i32", "String")), st.tuples(SMALL, TEXT)),
    (declare("exists", ()), st.just(())),
    (declare("exists", ("i32",)), st.tuples(SMALL)),
    (declare("forall", ("i32",)), st.tuples(SMALL)),
    (declare("sum", ("i32",)), st.tuples(SMALL)),
    (declare("sum", ("i32", "i8"), arguments=1), st.tuples(SMALL, st.sampled_from([100, -50, 1]))),
    (declare("sum", ("i32", "f32"), arguments=1), st.tuples(SMALL, FLOAT)),
    (declare("prod", ("i32", "u8"), arguments=1), st.tuples(SMALL, st.integers(0, 9))),
    (declare("prod", ("i32", "f32"), arguments=1), st.tuples(SMALL, FLOAT)),
    (declare("avg", ("i32", "i32"), arguments=1), st.tuples(SMALL, SMALL)),
    (declare("avg", ("i32", "f32"), arguments=1), st.tuples(SMALL, FLOAT)),
    (declare("min", ("i32",)), st.tuples(SMALL)),
    (declare("max", ("i32", "String")), st.tuples(SMALL, TEXT)),
    (declare("min", ("String", "i32"), arguments=1), st.tuples(TEXT, SMALL)),
    (declare("max", ("String", "i32", "i32"), arguments=1), st.tuples(TEXT, SMALL, SMALL)),
    (declare("argmin", ("String", "i32"), arguments=1), st.tuples(TEXT, SMALL)),
    (declare("argmax", ("i32", "String", "i32"), arguments=2), st.tuples(SMALL, TEXT, SMALL)),
    (declare("string_join", ("String",)), st.tuples(TEXT)),
    (declare("string_join", ("String",), parameters=(", ",)), st.tuples(TEXT)),
    (declare("string_join", ("i32", "String"), arguments=1), st.tuples(SMALL, TEXT)),
    (declare("string_join", ("String",), named={"all": True}), st.tuples(TEXT)),
    (
        declare(
            "string_join", ("i32", "String"), arguments=1, parameters=("+",), named={"all": True}
        ),
        st.tuples(st.integers(0, 2), TEXT),
    ),
    (declare("sort", ("i32",)), st.tuples(SMALL)),
    (declare("sort", ("String", "i32"), arguments=1, named={"asc": True}), st.tuples(TEXT, SMALL)),
    (declare("sort", ("String", "i32"), arguments=1, named={"desc": True}), st.tuples(TEXT, SMALL)),
    (declare("argsort", ("String", "i32"), arguments=1), st.tuples(TEXT, SMALL)),
    (declare("enumerate", ("i32", "String")), st.tuples(SMALL, TEXT)),
]


def named(case):
    declaration, _ = case
    return f"{declaration.operator}-{declaration.arguments}-{'-'.join(declaration.types)}"


def check_against_worlds(declaration, rows, algebra, worlds, grouped):
    """Each world, evaluated by itself, gives the same."""
    expected = defaultdict(set)
    held = {row: algebra.worlds_of(tag) for row, tag in rows}
    for world in worlds:
        here = [row for row in held if world in held[row]]
        if here or not grouped:
            for result in reference(declaration, here):
                expected[result].add(world)
    found = aggregate(declaration, rows, algebra, grouped=grouped)
    assert len(found) == len(dict(found))
    assert {result: algebra.worlds_of(tag) for result, tag in found} == expected


@pytest.mark.parametrize("case", CASES, ids=named)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), grouped=st.booleans())
def test_bitsets_against_enumeration(case, data, grouped):
    declaration, row = case
    tag = st.integers(1, 2**WORLDS - 1) | st.just(2**WORLDS - 1)
    rows = data.draw(st.dictionaries(row, tag, max_size=6))
    check_against_worlds(declaration, list(rows.items()), Bits(), range(WORLDS), grouped)


@st.composite
def diagrams(draw):
    """An algebra, and tags of it that are conjunctions and negations of literals."""
    algebra = ExactTags(draw(st.lists(st.integers(2, 3), min_size=1, max_size=3)))
    tags = []
    for _ in range(5):
        tag = algebra.one
        for _ in range(draw(st.integers(0, 2))):
            concept = draw(st.integers(0, len(algebra.exact.widths) - 1))
            value = draw(st.integers(0, algebra.exact.widths[concept] - 1))
            literal = algebra.exact.literal(concept, value)
            tag = algebra.mult(tag, draw(st.sampled_from([literal, algebra.negate(literal)])))
        tags.append(tag)
    return algebra, tags


@pytest.mark.parametrize("case", CASES, ids=named)
@settings(max_examples=10, deadline=None)
@given(data=st.data(), diagrams=diagrams(), grouped=st.booleans())
def test_diagrams_against_enumeration(case, data, diagrams, grouped):
    declaration, row = case
    algebra, tags = diagrams
    keys = data.draw(st.lists(row, max_size=5, unique=True))
    rows = list(zip(keys, tags, strict=False))
    worlds = range(math.prod(algebra.exact.widths))
    check_against_worlds(declaration, rows, algebra, worlds, grouped)


@pytest.mark.parametrize("case", CASES, ids=named)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_certain_tuples_need_no_worlds(case, data):
    declaration, row = case
    rows = [(row, True) for row in data.draw(st.lists(row, max_size=5, unique=True))]
    found = aggregate(declaration, rows, Unit(), grouped=False)
    assert found == [(result, True) for result, _ in found]
    assert {result for result, _ in found} == reference(declaration, [row for row, _ in rows])


@pytest.mark.parametrize(
    ("operator", "types", "arguments", "expected"),
    [
        ("count", ("i32",), 0, [(0,)]),
        ("sum", ("i32",), 0, [(0,)]),
        ("sum", ("f32",), 0, [(0.0,)]),
        ("prod", ("i32",), 0, [(1,)]),
        ("weighted_sum", ("f32",), 0, [(0.0,)]),
        ("exists", ("i32",), 0, [(False,)]),
        ("forall", ("i32",), 0, [(True,)]),
        ("string_join", ("String",), 0, [("",)]),
        ("avg", ("i32",), 0, []),
        ("weighted_avg", ("f32",), 0, []),
        ("min", ("i32",), 0, []),
        ("argmax", ("String", "i32"), 1, []),
        ("sort", ("i32",), 0, []),
        ("enumerate", ("i32",), 0, []),
        ("rank", ("i32",), 0, []),
        ("normalize", ("i32",), 0, []),
        ("disjunct", ("i32",), 0, []),
        ("top", ("i32",), 0, []),
    ],
)
@pytest.mark.parametrize("algebra", [Unit(), make("minmaxprob"), Bits()], ids=["unit", "w", "b"])
def test_nothing_to_aggregate(operator, types, arguments, expected, algebra):
    declaration = declare(operator, types, arguments=arguments)
    found = aggregate(declaration, [], algebra, grouped=False)
    assert found == [(result, algebra.one) for result in expected]


def test_exclamation_mark_counts_tuples():
    rows = [((i,), 0b001) for i in range(3)]
    declaration = declare("count", ("i32",), single_world=True)
    assert aggregate(declaration, rows, Bits(), grouped=False) == [((3,), Bits().one)]
    declaration = declare("min", ("i32",), single_world=True)
    assert aggregate(declaration, rows, Bits(), grouped=False) == [((0,), Bits().one)]
    declaration = declare("exists", ("i32",), single_world=True)
    assert aggregate(declaration, rows, Bits(), grouped=False) == [((True,), Bits().one)]


def test_weighted_averages_of_all_tuples():
    # Scallop's own test: (0.5 * 55 + 45 + 0.5 * 50) / 2
    rows = [((0, 55.0), 0.5), ((1, 45.0), 1.0), ((2, 50.0), 0.5)]
    declaration = declare("weighted_avg", ("i32", "f32"), arguments=1, single_world=True)
    found = aggregate(declaration, rows, make("minmaxprob"), grouped=False)
    assert found == [((48.75,), 1.0)]


def test_weights_within_worlds():
    # Weights 1/2 and 1; worlds 0-2 hold both tuples, worlds 3-5 the second alone.
    rows = [((4.0,), 0b000111), ((8.0,), 0b111111)]
    found = aggregate(declare("weighted_sum", ("f32",)), rows, Bits(), grouped=False)
    assert dict(found) == {(10.0,): 0b000111, (8.0,): 0b111000}


def test_overflow_and_what_is_no_number_are_reported():
    reasons: list[str] = []
    rows = [((0, 100), 0b11), ((1, 100), 0b01)]
    declaration = declare("sum", ("i32", "i8"), arguments=1)
    found = aggregate(declaration, rows, Bits(2), grouped=False, dropped=reasons.append)
    assert found == [((100,), 0b10)]
    assert reasons == ["overflow"]
    rows = [((0, math.inf), True), ((1, -math.inf), True)]
    declaration = declare("sum", ("i32", "f32"), arguments=1)
    assert aggregate(declaration, rows, Unit(), grouped=False, dropped=reasons.append) == []
    assert reasons == ["overflow", "not a number"]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({}, [(0, 2), (1, 1), (2, 0), (3, 3)]),
        ({"desc": True}, [(0, 2), (1, 1), (2, 0), (3, 3)]),
        ({"asc": True}, [(0, 0), (1, 3), (2, 1), (3, 2)]),
        ({"desc": False}, [(0, 0), (1, 3), (2, 1), (3, 2)]),
    ],
)
def test_rank(named, expected):
    # Scallop's own test.
    probability = [0.1, 0.3, 0.5, 0.1]
    rows = [((i,), p) for i, p in enumerate(probability)]
    declaration = declare("rank", ("i32",), named=named)
    found = aggregate(declaration, rows, make("minmaxprob"), grouped=False)
    assert found == [((i, d), probability[d]) for i, d in expected]


@pytest.mark.parametrize("name", ["minmaxprob", "addmultprob", "topkproofs"])
def test_normalize(name):
    for operator, expected in [
        ("normalize", [0.25, 0.75]),
        ("softmax", [math.exp(p) / (math.exp(0.1) + math.exp(0.3)) for p in (0.1, 0.3)]),
    ]:
        algebra = make(name)
        rows = [((s,), algebra.fact(s, p)) for s, p in [("+", 0.1), ("-", 0.3)]]
        found = aggregate(declare(operator, ("String",)), rows, algebra, grouped=True, group=(1,))
        assert [row for row, _ in found] == [("+",), ("-",)]
        assert [algebra.weight(tag) for _, tag in found] == pytest.approx(expected)


def test_samplers():
    algebra = Bits()
    rows = [((i,), tag) for i, tag in enumerate([0b000001, 0b001111, 0b000001, 0b111111])]

    def drawn(operator, *parameters, seed=0):
        declaration = declare(operator, ("i32",), parameters=parameters)
        generator = torch.Generator().manual_seed(seed)
        return aggregate(declaration, rows, algebra, grouped=False, generator=generator)

    assert drawn("top") == [rows[3]]
    assert drawn("unique") == [rows[3]]
    assert drawn("top", 3) == [rows[3], rows[1], rows[0]]
    assert dict(drawn("top", 9)) == dict(rows)
    assert dict(drawn("categorical", 4)) == dict(rows)
    for operator in ("categorical", "uniform"):
        assert drawn(operator, 2) == drawn(operator, 2)
        counts = np.zeros(4)
        for seed in range(400):
            for (value,), tag in drawn(operator, 1, seed=seed):
                assert tag == rows[value][1]
                counts[value] += 1
        probability = np.array([1, 4, 1, 6]) / 12 if operator == "categorical" else np.full(4, 0.25)
        assert np.abs(counts / 400 - probability).max() < 5 * 0.5 / 20


def test_ranking_needs_one_probability():
    algebra = make("diffaddmultprob")
    rows = [((i,), algebra.fact(i, torch.rand(3))) for i in range(2)]
    with pytest.raises(ProgramError, match=r"`top` .* 3 examples of the batch"):
        aggregate(declare("top", ("i32",)), rows, algebra, grouped=False)
    exact = ExactTags([2, 2])
    tagged = [((i,), exact.exact.literal(i, 1)) for i in range(2)]
    with pytest.raises(ProgramError, match=r"`rank` needs the probabilities"):
        aggregate(declare("rank", ("i32",)), tagged, exact, grouped=False)


def test_tuples_without_an_order():
    rows = [((complex(i, i),), 0b11) for i in range(2)]
    assert aggregate(declare("count", ("Tensor",)), rows, Bits(2), grouped=False) == [((2,), 0b11)]
    with pytest.raises(ProgramError, match="no order"):
        aggregate(declare("min", ("Tensor",)), rows, Bits(2), grouped=False)


def test_too_many_results(monkeypatch):
    monkeypatch.setattr("byssus_scallop._aggregates._MOST", 1000)
    algebra = ExactTags([2] * 10)
    rows = [((f"{i:02}",), algebra.exact.literal(i, 1)) for i in range(10)]
    with pytest.raises(ProgramError, match=r"`string_join` over 10 uncertain .*`string_join!`"):
        aggregate(declare("string_join", ("String",)), rows, algebra, grouped=False)


@pytest.mark.parametrize("operator", ["count", "sum", "exists", "min", "max"])
@pytest.mark.parametrize("grouped", [False, True])
def test_thirty_uncertain_tuples_take_well_under_a_second(operator, grouped):
    algebra = ExactTags([2] * 30)
    rows = [((i, i % 7), algebra.exact.literal(i, 1)) for i in range(30)]
    types = ("i32", "i32")
    arguments = 0 if operator in ("count", "exists") else 1
    started = time.perf_counter()
    found = aggregate(declare(operator, types, arguments=arguments), rows, algebra, grouped=grouped)
    assert time.perf_counter() - started < 1
    # Of 30 fair coins.
    probability = torch.tensor([[0.5, 0.5] * 30], dtype=torch.float64)
    circuit = algebra.exact.circuit([tag for _, tag in found])
    results = dict(zip([row for row, _ in found], circuit(probability)[0].tolist(), strict=True))
    if operator == "count":
        expected = {(n,): math.comb(30, n) / 2**30 for n in range(int(grouped), 31)}
        assert results == pytest.approx(expected)
    elif operator == "exists":
        assert results[(True,)] == pytest.approx(1 - 2**-30)
        assert len(results) == (1 if grouped else 2)
    elif operator == "sum":
        assert sum(results.values()) == pytest.approx(1 - grouped / 2**30)
        assert max(results) == (sum(i % 7 for i in range(30)),)
    else:
        # Ties share: of five tuples with value 0 (or four with 6), one holds in half the worlds.
        assert results[(0, 0) if operator == "min" else (6, 6)] == pytest.approx(0.5)


# Scallop's semirings: the sum over subsets


def subsets(declaration, rows, algebra):
    """Scallop's formula, written down."""
    found: dict[tuple, Any] = {}
    for chosen in itertools.product([False, True], repeat=len(rows)):
        tag = algebra.one
        for (_, other), holds in zip(rows, chosen, strict=True):
            tag = algebra.mult(tag, other if holds else algebra.negate(other))
        held = [row for (row, _), holds in zip(rows, chosen, strict=True) if holds]
        if algebra.possible(tag):
            for result in reference(declaration, held):
                found[result] = algebra.add(found[result], tag) if result in found else tag
    return found


PROBABILITY = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 1.0])
SUBSETS = [case for case in CASES if case[0].operator in ("count", "sum", "prod", "avg")]


@pytest.mark.parametrize("case", SUBSETS, ids=named)
@pytest.mark.parametrize(
    "name", ["minmaxprob", "addmultprob", "topkproofs", "topbottomkclauses", "diffnandmultprob"]
)
@settings(max_examples=15, deadline=None)
@given(data=st.data(), grouped=st.booleans())
def test_weights_against_subsets(case, name, data, grouped):
    declaration, row = case
    algebra = make(name, k=3)
    given_rows = data.draw(st.dictionaries(row, PROBABILITY, max_size=5))
    rows = [(row, algebra.fact(row, p)) for row, p in sorted(given_rows.items())]
    found = aggregate(declaration, rows, algebra, grouped=grouped)
    expected = subsets(declaration, rows, algebra)
    assert {row: algebra.weight(tag) for row, tag in found} == pytest.approx(
        {row: algebra.weight(tag) for row, tag in expected.items()}
    )


def test_minimum_of_proofs():
    # Scallop's own test.
    algebra = make("topkproofs", k=3)
    rows = [((n,), algebra.fact(n, p)) for n, p in [(1, 0.1), (3, 0.1), (5, 0.8), (7, 0.0)]]
    found = aggregate(declare("min", ("i32",)), rows, algebra, grouped=False)
    assert {row: algebra.weight(tag) for row, tag in found} == pytest.approx(
        {(1,): 0.1, (3,): 0.09, (5,): 0.648, (7,): 0.0}
    )


def test_string_join_all():
    # Scallop's own test.
    rows = [((0, "2"), 0.9), ((0, "3"), 0.1), ((1, "*"), 1.0), ((2, "5"), 1.0)]
    declaration = declare("string_join", ("i32", "String"), arguments=1, named={"all": True})
    found = aggregate(declaration, rows, make("minmaxprob"), grouped=False)
    assert dict(found) == {("2*5",): 0.9, ("3*5",): 0.1}


def test_count_of_one_uncertain_tuple():
    # Scallop's own test.
    rows = [((0,), 0.01)]
    found = aggregate(declare("count", ("i32",)), rows, make("addmultprob"), grouped=True)
    assert dict(found) == pytest.approx({(0,): 0.99, (1,): 0.01})


def test_disjunct_excludes():
    algebra = make("topkproofs")
    rows = [((i,), algebra.fact(i, 0.5)) for i in range(2)]
    (_, a), (_, b) = aggregate(declare("disjunct", ("i32",)), rows, algebra, grouped=False)
    assert algebra.weight(a) == algebra.weight(b) == 0.5
    assert not algebra.possible(algebra.mult(a, b))


# Types


@pytest.mark.parametrize(
    ("operator", "parameters", "named", "arguments", "bindings", "expected"),
    [
        ("count", (), {}, (), ("i32", "String"), ("usize",)),
        ("sum", (), {}, ("String",), ("f64",), ("f64",)),
        ("avg", (), {}, (), ("i8",), ("i8",)),
        ("weighted_avg", (), {}, (), ("f32",), ("f32",)),
        ("min", (), {}, (), ("i32", "bool"), ("i32", "bool")),
        ("max", (), {}, ("String",), ("f32",), ("String", "f32")),
        ("argmax", (), {}, ("String",), ("f32",), ("String",)),
        ("exists", (), {}, (), (), ("bool",)),
        ("forall", (), {}, (), ("i32",), ("bool",)),
        ("string_join", (" ",), {}, ("i32",), ("String",), ("String",)),
        ("string_join", (), {"all": True}, ("i32",), ("String",), ("String",)),
        ("sort", (), {"desc": True}, ("String",), ("f32",), ("usize", "String", "f32")),
        ("argsort", (), {}, ("String",), ("f32",), ("usize", "String")),
        ("enumerate", (), {}, (), ("String",), ("usize", "String")),
        ("rank", (), {"asc": True}, (), ("i32",), ("usize", "i32")),
        ("normalize", (), {}, (), ("String",), ("String",)),
        ("disjunct", (), {}, ("i32",), ("String",), ("i32", "String")),
        ("top", (), {}, (), ("i32",), ("i32",)),
        ("top", (3,), {}, (), ("i32",), ("i32",)),
        ("uniform", (3,), {}, (), ("i32",), ("i32",)),
    ],
)
def test_result_types(operator, parameters, named, arguments, bindings, expected):
    assert result_types(operator, parameters, named, arguments, bindings) == expected


@pytest.mark.parametrize(
    ("operator", "parameters", "named", "arguments", "bindings", "exclamation", "message"),
    [
        ("cuont", (), {}, (), ("i32",), False, "no aggregator 'cuont'; did you mean 'count'?"),
        ("count", (), {}, ("i32",), ("i32",), False, "takes no argument variables .* here are 1"),
        ("count", (), {}, (), (), False, "at least 1 binding variable"),
        ("sum", (), {}, (), ("i32", "i32"), False, "takes 1 binding variable .* here are 2"),
        ("sum", (), {}, (), ("String",), False, "variable of type Number, and this one is a Str"),
        ("weighted_sum", (), {}, (), ("i32",), False, "of type Float, and this one is a i32"),
        ("string_join", (), {}, (), ("i32",), False, "of type String, and this one is a i32"),
        ("argmin", (), {}, (), ("i32",), False, "at least 1 argument variable"),
        ("top", (1, 3, 5, 7), {}, (), ("i32",), False, "at most 1 parameter, and 4 are given"),
        ("top", (-1,), {}, (), ("i32",), False, "parameter 1 of `top` is a usize, and -1 is none"),
        ("uniform", (), {}, (), ("i32",), False, "takes 1 parameter, and 0 are given"),
        ("sort", (), {"dsc": True}, (), ("i32",), False, "no parameter 'dsc'; did you mean 'desc'"),
        ("sort", (), {"desc": 3}, (), ("i32",), False, "desc of `sort` is a bool, and 3 is none"),
        ("top", (), {}, (), ("i32",), True, "no form with an exclamation mark"),
    ],
)
def test_wrong_types(operator, parameters, named, arguments, bindings, exclamation, message):
    with pytest.raises(ByssusError, match=message):
        result_types(operator, parameters, named, arguments, bindings, exclamation)


def test_every_aggregator_is_tested_against_its_type():
    assert {case[0].operator for case in CASES} <= set(AGGREGATES)
