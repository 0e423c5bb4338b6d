"""Circuits on all vtrees, against the enumeration of worlds."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from byssus import ByssusError, Circuit, CompilationLimit, Formula, ShapeError, _sdd, _vtree
from byssus.plan import Plan
from byssus_problog import Program
from oracle import (
    check_dtypes,
    conditioned,
    count,
    formulas,
    gradient,
    probabilities,
    raw,
    sum_formula,
)

close = {"atol": 1e-9, "rtol": 1e-6}
names = [name for name in _vtree.NAMES if name != "auto"]


def family(depth: int, width: int) -> Formula:
    """A complete binary tree of concepts, each one equal to its parent or one more."""
    nodes: dict[int, Any] = {}

    def add(kind: str, content: tuple[int, ...]) -> int:
        nodes[len(nodes) + 1] = (kind, content)
        return len(nodes)

    concepts = 2**depth - 1
    literal = [[add("literal", (c, v)) for v in range(width)] for c in range(concepts)]
    rules = []
    for c in range(1, concepts):
        parent = literal[(c - 1) // 2]
        ways = [(v, u) for v in range(width) for u in (v, (v + 1) % width)]
        rules.append(add("or", tuple(add("and", (parent[v], literal[c][u])) for v, u in ways)))
    return Formula.from_graph([width] * concepts, nodes, [add("and", tuple(rules))])


def pairs(n: int) -> Formula:
    """Concept i and concept n + i are both true, for some i."""
    nodes: dict[int, Any] = {c + 1: ("literal", (c, 1)) for c in range(2 * n)}
    for i in range(n):
        nodes[len(nodes) + 1] = ("and", (i + 1, n + i + 1))
    nodes[len(nodes) + 1] = ("or", tuple(range(2 * n + 1, 3 * n + 1)))
    return Formula.from_graph([2] * (2 * n), nodes, [len(nodes)])


@st.composite
def trees(draw: st.DrawFn, concepts: Sequence[int]) -> _sdd.Tree:
    """Any vtree over these concepts."""
    if len(concepts) == 1:
        return concepts[0]
    cut = draw(st.integers(1, len(concepts) - 1))
    return draw(trees(concepts[:cut])), draw(trees(concepts[cut:]))


def some_weights(formula: Formula, data: st.DataObject, *batch: int) -> Tensor:
    """Weights that do not sum to 1, some of them 0, perhaps all of a concept."""
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    weights = 2 * torch.rand(*batch, sum(formula.widths), generator=generator, dtype=torch.float64)
    if formula.widths:
        columns = st.integers(0, sum(formula.widths) - 1)
        weights[..., data.draw(st.lists(columns, max_size=3))] = 0
        concept = data.draw(st.integers(0, len(formula.widths) - 1))
        first = sum(formula.widths[:concept])
        weights[..., :1, first : first + formula.widths[concept]] = 0
    return weights.requires_grad_()


def check(circuit: Circuit, formula: Formula, weights: Tensor) -> None:
    """Values and gradients, in probabilities and in logarithms."""
    expected = count(formula, weights)
    found = circuit(weights)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, **close)
    up = torch.rand(expected.shape, dtype=torch.float64)
    (wanted,) = gradient((up * expected).sum(), weights)
    (got,) = torch.autograd.grad((up * found).sum(), weights)
    torch.testing.assert_close(got, wanted, **close)
    logs = raw(weights.log())
    result = circuit.log_forward(logs).exp()
    torch.testing.assert_close(result, expected, **close)
    (got,) = torch.autograd.grad((up * result).sum(), logs)
    torch.testing.assert_close(got, wanted * weights, **close)


@pytest.mark.parametrize("vtree", names)
@settings(max_examples=25)
@given(formula=formulas(), data=st.data(), batch=st.sampled_from([(1,), (3,), (2, 2)]))
@example(formula=Formula((), (), (0, None)), data=None, batch=(2,))
@example(formula=Formula((1,), (("literal", (0, 0)),), (1, -1)), data=None, batch=(2,))
@example(formula=Formula((3, 1, 2), (), (0, None, 0)), data=None, batch=(2,))
def test_agrees_with_enumeration(
    vtree: str, formula: Formula, data: st.DataObject | None, batch: tuple[int, ...]
) -> None:
    circuit = Circuit.compile(formula, vtree=vtree)
    assert circuit.vtree in names
    assert circuit.sizes[circuit.vtree] == circuit.size
    if data is None:
        check(circuit, formula, raw(probabilities(formula.widths, *batch)))
    else:
        check(circuit, formula, some_weights(formula, data, *batch))


@settings(max_examples=40)
@given(formulas(min_concepts=1), st.data(), st.booleans())
def test_any_vtree_and_what_the_search_makes_of_it(
    formula: Formula, data: st.DataObject, minimize: bool
) -> None:
    order = data.draw(st.permutations(range(len(formula.widths))))
    sdd = _sdd.Sdd(formula.widths, (data.draw(trees(order)),))
    tags = formula.evaluate(sdd)
    if minimize:
        before = sdd.manager.live_size()
        sdd.minimize(lambda: True)
        assert sdd.manager.live_size() <= before
        assert sorted(sdd.order) == [c for c, width in enumerate(formula.widths) if width > 1]
    weights = some_weights(formula, data, 2)
    for diagram in (sdd.products(tags), sdd.read(tags)):
        read = type(diagram)(*json.loads(json.dumps(diagram)))
        assert _sdd.well_formed(formula.widths, diagram)
        assert _sdd.well_formed(formula.widths, read)
        check(Circuit(formula.widths, read), formula, weights)


@settings(max_examples=25)
@given(formulas(min_concepts=1), st.data())
def test_sampled_concepts_are_conditioned_on(formula: Formula, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(formula.widths))))
    sdd = _sdd.Sdd(formula.widths, (data.draw(trees(order)),))
    circuit = Circuit(formula.widths, sdd.products(formula.evaluate(sdd)))
    weights = some_weights(formula, data, 3)
    sampled = [data.draw(st.booleans()) for _ in formula.widths]
    values = torch.tensor(
        [
            [
                data.draw(st.integers(0, width - 1)) if some else -1
                for some, width in zip(sampled, formula.widths, strict=True)
            ]
            for _ in range(3)
        ]
    )
    expected = torch.stack(
        [conditioned(formula, w, v) for w, v in zip(weights, values.tolist(), strict=True)]
    )
    (wanted,) = gradient(expected.sum(), weights)
    for found in (circuit(weights, values), circuit.log_forward(weights.log(), values).exp()):
        torch.testing.assert_close(found, expected, **close)
    (got,) = torch.autograd.grad(circuit(weights, values).sum(), weights)
    torch.testing.assert_close(got, wanted, **close)


def products(widths: Sequence[int], depth: int = 0) -> tuple[Formula, Circuit]:
    """A sum over an unlinear vtree."""
    formula, _ = sum_formula(widths)
    circuit = Circuit.compile(formula, vtree="balanced")
    sdd = _sdd.Sdd(widths, (((0, 1), *range(2, len(widths))),))
    return formula, Circuit(widths, sdd.products(formula.evaluate(sdd)), vtree=circuit.vtree)


def test_gradcheck() -> None:
    formula, circuit = products([3, 2, 3, 2])
    weights = raw(probabilities(formula.widths, 2))
    values = torch.tensor([[1, -1, -1, -1], [2, -1, -1, -1]])
    assert gradcheck(circuit, (weights,))
    assert gradcheck(lambda w: circuit(w, values), (weights,))
    assert gradcheck(circuit.log_forward, (raw(weights.log()),))


def test_devices_and_dtypes(device: torch.device) -> None:
    formula, circuit = products([4, 3, 2])
    check_dtypes(circuit, formula, device)


def test_shapes_are_checked_and_empty_batches_are_empty() -> None:
    formula, circuit = products([3, 2, 2])
    with pytest.raises(ShapeError, match=r"\(2, 4\).* must be 7"):
        circuit(torch.ones(2, 4))
    with pytest.raises(ShapeError, match=r"concept 0 .*some rows"):
        circuit(torch.ones(2, 7), torch.tensor([[0, 1, 0], [-1, 1, 0]]))
    assert circuit(torch.ones(0, 7)).shape == (0, len(formula.roots))
    none = torch.zeros(0, 3, dtype=torch.int64)
    assert circuit(torch.ones(0, 7), none).shape == (0, len(formula.roots))


def test_to_dot() -> None:
    _, circuit = products([3, 2, 2])
    text = circuit.to_dot(['a "b"', "c\\d", "e"])
    assert r"a \"b\"=" in text
    assert r"c\\d=" in text
    declared = re.findall(r"^  (\w+) \[label", text, re.M)
    assert len(declared) == len(set(declared))
    edges = re.findall(r"^  (\w+) -> (\w+);", text, re.M)
    assert {end for edge in edges for end in edge} <= set(declared) - {"0"}
    assert len([name for name in declared if name.isdigit()]) == circuit.size + 2


@pytest.mark.parametrize("vtree", names)
def test_the_child_process_compiles_the_same(vtree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    formula, _ = sum_formula([4] * 4)
    here = Circuit.compile(formula, vtree=vtree)
    monkeypatch.setattr("byssus._compile._SMALL", 0)
    there = Circuit.compile(formula, vtree=vtree)
    assert (here.vtree, here.sizes) == (there.vtree, there.sizes)
    for name, buffer in here.named_buffers():
        assert torch.equal(buffer, there.get_buffer(name))


# What each is good for


def test_concepts_that_share_rules_lie_together() -> None:
    formula = pairs(10)
    order = range(20)
    program = Circuit.compile(formula, vtree="program", order=order)
    grouped = Circuit.compile(formula, vtree="grouped", order=order)
    assert program.size == 2**11 - 2
    assert grouped.size == 20
    weights = probabilities(formula.widths, 2)
    torch.testing.assert_close(program(weights), grouped(weights))


def test_trees_are_small_on_balanced_vtrees() -> None:
    formula = family(5, 3)
    with pytest.raises(CompilationLimit):  # 29,518 nodes
        Circuit.compile(formula, vtree="program", nodes=20_000)
    grouped, balanced, minimized = (
        Circuit.compile(formula, vtree=vtree, nodes=20_000)
        for vtree in ("grouped", "balanced", "minimized")
    )
    assert grouped.size > 2 * balanced.size > 2.5 * minimized.size
    assert minimized.vtree == "minimized"
    assert minimized.sizes == {
        "program": None,
        "grouped": grouped.size,
        "balanced": balanced.size,
        "minimized": minimized.size,
    }
    weights = probabilities(formula.widths, 2)
    for circuit in (balanced, minimized):
        torch.testing.assert_close(circuit(weights), grouped(weights))


def test_the_search_also_holds_down_what_is_on_the_way() -> None:
    formula = pairs(11)

    def most(minimize: float) -> int:
        held = []
        diagram = _sdd.compile_formula(
            formula.widths,
            range(22),
            formula.nodes,
            formula.cycles,
            formula.roots,
            minimize=minimize,
            check=lambda sdd, number: held.append(sdd.manager.live_count()),
        )
        weights = probabilities(formula.widths, 2)
        true = weights[:, 1::2]
        torch.testing.assert_close(
            Circuit(formula.widths, diagram)(weights)[:, 0],
            1 - (1 - true[:, :11] * true[:, 11:]).prod(1),
        )
        return max(held)

    assert most(0.0) > 4_000
    assert most(30.0) < 3_000


def test_many_concepts() -> None:
    formula = pairs(60)
    weights = probabilities(formula.widths, 2)
    true = weights[:, 1::2]
    expected = 1 - (1 - true[:, :60] * true[:, 60:]).prod(1)
    for vtree in ("grouped", "balanced", "minimized"):
        circuit = Circuit.compile(formula, vtree=vtree, seconds=20.0)
        torch.testing.assert_close(circuit(weights)[:, 0], expected)


# The choice


def test_auto_takes_the_program_s_order_where_that_compiles() -> None:
    formula, _ = sum_formula([3, 3])
    circuit = Circuit.compile(formula)
    assert circuit.vtree == "program"
    assert circuit.sizes == {"program": circuit.size}


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_auto_goes_on_where_it_does_not(seconds: float | None) -> None:
    formula = pairs(12)
    circuit = Circuit.compile(formula, order=range(24), nodes=2_000, seconds=seconds)
    assert circuit.vtree == "grouped"
    assert circuit.sizes == {"program": None, "grouped": circuit.size}


def test_auto_says_what_it_tried() -> None:
    formula = family(3, 3)
    message = (
        r"limit of 30 nodes on any vtree \(program: in .*, and \d+ SDD nodes.*; "
        r"grouped: .*; balanced: .*\); raise `nodes=`"
    )
    with pytest.raises(CompilationLimit, match=message) as caught:
        Circuit.compile(formula, nodes=30)
    assert caught.value.limit == "nodes"


def test_wrong_arguments() -> None:
    formula, _ = sum_formula([2, 2])
    with pytest.raises(ByssusError, match=r"vtree='left': there are 'auto', 'program', "):
        Circuit.compile(formula, vtree="left")
    for order in ([0], [0, 0], [0, 2]):
        with pytest.raises(ByssusError, match=r"order=.*: give each of the 2 concepts once"):
            Circuit.compile(formula, order=order)


@given(formulas())
def test_orders_and_trees_are_of_all_concepts(formula: Formula) -> None:
    concepts = list(range(len(formula.widths)))
    for _, tree in _vtree._candidates(formula, None):
        assert sorted(_sdd.leaves(tree)) == concepts


def test_plan_shows_it() -> None:
    plan = Plan("exact", "asked for", circuit=7, vtree="grouped", sizes={"program": None})
    assert str(plan).endswith("circuit: 7 nodes, vtree grouped (program: a limit was reached)")


@pytest.mark.parametrize("vtree", _vtree.NAMES)
def test_programs(vtree: str) -> None:
    friends = [(i, max(0, i - 1 - i % 3)) for i in range(1, 8)]
    text = """
        smokes(X) :- stress(X).
        smokes(X) :- influences(X, Y), smokes(Y).
        smokes(X) :- influences(Y, X), smokes(Y).
        query(smokes(_)).
    """
    text += "".join(f"0.3::stress({i}).\n" for i in range(8))
    text += "".join(f"0.2::influences({a}, {b}).\n" for a, b in friends)
    program = Program(text, vtree=vtree, provenance="exact")
    plan = program.plan()
    assert plan.vtree in (vtree, *names)
    assert plan.sizes[plan.vtree] == plan.circuit
    expected = Program(text, vtree="program")().probs
    torch.testing.assert_close(program().probs, expected)


# What is read from elsewhere


@settings(max_examples=40)
@given(formulas(min_concepts=1), st.data())
def test_well_formed_finds_what_is_not(formula: Formula, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(formula.widths))))
    sdd = _sdd.Sdd(formula.widths, (data.draw(trees(order)),))
    diagram = sdd.products(formula.evaluate(sdd))
    size = 2 + _sdd.size(diagram)
    wrong = [
        diagram._replace(roots=[*diagram.roots, size]),
        diagram._replace(roots=[*diagram.roots, -1]),
        diagram._replace(roots=[*diagram.roots, True]),
        diagram._replace(leaves=[*diagram.leaves, (len(formula.widths), (0,))]),
        diagram._replace(leaves=[*diagram.leaves, (0, (formula.widths[0],))]),
        diagram._replace(leaves=[*diagram.leaves, (0, ())]),
        diagram._replace(leaves=[*diagram.leaves, (0, (0, 0))]),
        diagram._replace(levels=[*diagram.levels, [((size, 1),)]]),
        diagram._replace(levels=[*diagram.levels, [()]]),
        diagram._replace(levels=[*diagram.levels, [((1, 1),)]]),
        diagram._replace(levels=[*diagram.levels, [(1, 1)]]),
        diagram._replace(levels=None),
    ]
    if diagram.leaves:
        wrong.append(diagram._replace(levels=[*diagram.levels, [((2, 2),)]]))
    assert not any(_sdd.well_formed(formula.widths, other) for other in wrong)


def test_well_formed_decisions() -> None:
    right = _sdd.Decisions([(1, [(0, 1)]), (0, [(0, 2, 1)])], [3, 1])
    assert _sdd.well_formed((3, 2), right)
    wrong = [
        right._replace(roots=[4]),
        right._replace(levels=[(1, [(0, 1)]), (1, [(0, 2)])]),
        right._replace(levels=[(2, [(0, 1)])]),
        right._replace(levels=[(1, [(0, 2)])]),
        right._replace(levels=[(1, [(0, 1, 1)])]),
        right._replace(levels=[(1, [(0, None)])]),
        right._replace(levels=[1]),
    ]
    assert not any(_sdd.well_formed((3, 2), other) for other in wrong)
