"""Formulas: the order of their nodes, their cycles, and their least fixpoints."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byssus import ByssusError, Circuit, Formula, ProgramError
from oracle import count, formulas, holds, probabilities, worlds_of


class Truth:
    """The algebra of one world."""

    zero, one = False, True

    def __init__(self, world: tuple[int, ...]) -> None:
        self.world = world

    def literal(self, concept: int, value: int) -> bool:
        return self.world[concept] == value

    def add(self, a: bool, b: bool) -> bool:
        return a or b

    def mult(self, a: bool, b: bool) -> bool:
        return a and b

    def negate(self, a: bool) -> bool:
        return not a

    def equal(self, a: bool, b: bool) -> bool:
        return a == b


@settings(max_examples=100)
@given(formulas(max_worlds=40))
def test_evaluate_agrees_with_the_oracle(formula: Formula) -> None:
    for world in worlds_of(formula.widths):
        assert formula.evaluate(Truth(world)) == holds(formula, world)


@settings(max_examples=100)
@given(formulas())
def test_nodes_follow_what_they_name(formula: Formula) -> None:
    ends = {i: (start, stop) for start, stop in formula.cycles for i in range(start, stop)}
    for i, (kind, content) in enumerate(formula.nodes, 1):
        if kind == "literal":
            continue
        start, stop = ends.get(i, (i, i))
        for key in content:
            if key and abs(key) >= start:
                assert 0 < key < stop
    starts = [start for start, _ in formula.cycles]
    assert starts == sorted(starts)


@given(formulas(min_concepts=1))
def test_order_holds_every_concept(formula: Formula) -> None:
    assert sorted(formula.order()) == list(range(len(formula.widths)))


def test_order_is_that_of_first_use() -> None:
    nodes = {
        1: ("literal", (2, 0)),
        2: ("literal", (0, 0)),
        3: ("and", (2, 1)),
        4: ("literal", (1, 1)),
        5: ("or", (4, -3)),
    }
    assert Formula.from_graph([2, 2, 2, 2], nodes, [5]).order() == (1, 0, 2, 3)


def test_only_what_the_roots_need() -> None:
    nodes = {7: ("literal", (0, 0)), 9: ("literal", (1, 1)), 20: ("or", (9, None)), 3: ("and", ())}
    formula = Formula.from_graph([2, 2], nodes, [-20, 0, None, 3])
    assert formula.nodes == (("literal", (1, 1)), ("or", (1, None)), ("and", ()))
    assert formula.roots == (-2, 0, None, 3)
    assert not formula.cycles


def reachability(n: int, edges: list[tuple[int, int]]) -> Formula:
    """Root i: node i can be reached from node 0; edge e is Boolean concept e."""
    nodes: dict = {e + 1: ("literal", (e, 1)) for e in range(len(edges))}
    place = {v: len(edges) + 1 + v for v in range(n)}
    steps: dict = {v: [0] if v == 0 else [] for v in range(n)}
    for e, (a, b) in enumerate(edges):
        number = len(edges) + n + 1 + e
        nodes[number] = ("and", (place[a], e + 1))
        steps[b].append(number)
    nodes |= {place[v]: ("or", tuple(steps[v])) for v in range(n)}
    return Formula.from_graph([2] * len(edges), nodes, [place[v] for v in range(n)])


def reached(n: int, edges: list[tuple[int, int]]) -> list[bool]:
    found = {0}
    for _ in range(n):
        found |= {b for a, b in edges if a in found}
    return [v in found for v in range(n)]


@settings(max_examples=40)
@given(st.integers(2, 5), st.randoms(use_true_random=False))
def test_reachability_through_cycles(n: int, rng: random.Random) -> None:
    edges = [(rng.randrange(n), rng.randrange(n)) for _ in range(rng.randrange(1, 9))]
    formula = reachability(n, edges)
    weights = probabilities(formula.widths, 2)
    expected = torch.zeros(2, n, dtype=torch.float64)
    for world in worlds_of(formula.widths):
        there = [edge for edge, on in zip(edges, world, strict=True) if on]
        assert formula.evaluate(Truth(world)) == reached(n, there)
        weight = torch.stack([weights[:, 2 * e + on] for e, on in enumerate(world)]).prod(0)
        expected += weight[:, None] * torch.tensor(reached(n, there))
    torch.testing.assert_close(Circuit.compile(formula)(weights), expected)
    torch.testing.assert_close(count(formula, weights), expected)


@pytest.mark.parametrize(
    "nodes",
    [
        {1: ("or", (-1,))},
        {1: ("literal", (0, 1)), 2: ("or", (1, 3)), 3: ("and", (1, -2))},
        {1: ("or", (2,)), 2: ("or", (3,)), 3: ("or", (1, -2))},
    ],
)
def test_negation_within_a_cycle_is_refused(nodes: dict) -> None:
    with pytest.raises(ProgramError, match="negation"):
        Formula.from_graph([2], nodes, [max(nodes)])


def test_deep_graphs_need_no_recursion() -> None:
    nodes: dict = {1: ("literal", (0, 1))}
    for i in range(2, 5_000):
        nodes[i] = ("or", (i - 1, None))
    formula = Formula.from_graph([2], nodes, [4_999])
    assert formula.evaluate(Truth((1,))) == [True]
    nodes[2] = ("or", (1, 4_999))
    formula = Formula.from_graph([2], nodes, [4_999])
    assert formula.cycles == ((2, 5_000),)
    assert formula.evaluate(Truth((0,))) == [False]


@pytest.mark.parametrize(
    ("nodes", "roots", "message"),
    [
        ((("xor", (1, 2)),), (1,), "kind 'xor'"),
        ((("literal", (2, 0)),), (1,), r"literal \(2, 0\)"),
        ((("literal", (0, 2)),), (1,), r"literal \(0, 2\)"),
        ((("literal", (0, 1)),), (2,), "key 2 of a formula of 1 nodes"),
        ((("and", (-3,)),), (1,), "key -3"),
    ],
)
def test_what_is_no_formula(nodes: tuple, roots: tuple, message: str) -> None:
    with pytest.raises(ByssusError, match=message):
        Formula((2, 2), nodes, roots)
