"""Circuits against the enumeration of worlds."""

from __future__ import annotations

import random
import re
import time

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from byssus import Circuit, CompilationLimit, Exact, Formula, ShapeError
from byssus.errors import ByssusError
from oracle import check_dtypes, conditioned, count, formulas, probabilities, raw, sum_formula

close = {"atol": 1e-9, "rtol": 1e-6}


def random_cnf(variables: int, seed: int = 0, ratio: float = 4.2) -> Formula:
    """Three literals a clause, whose diagrams are exponential in any order."""
    rng = random.Random(seed)
    nodes = {v + 1: ("literal", (v, 1)) for v in range(variables)}
    clauses = []
    for _ in range(int(ratio * variables)):
        clause = [v * rng.choice([1, -1]) for v in rng.sample(range(1, variables + 1), 3)]
        nodes[len(nodes) + 1] = ("or", tuple(clause))
        clauses.append(len(nodes))
    nodes[len(nodes) + 1] = ("and", tuple(clauses))
    return Formula.from_graph([2] * variables, nodes, [len(nodes)])


@settings(max_examples=150)
@given(formulas(), st.integers(0, 99), st.sampled_from([(), (3,), (2, 3), (2, 1, 2)]))
@example(Formula((), (), (0, None)), 0, (2,))
@example(Formula((1,), (("literal", (0, 0)),), (1, -1)), 0, ())
@example(Formula((3, 1, 2), (), (0, None, 0)), 0, (2, 2))
@example(Formula((2,), (("literal", (0, 1)),), (1,)), 0, (0,))
def test_agrees_with_enumeration(formula: Formula, seed: int, batch: tuple[int, ...]) -> None:
    circuit = Circuit.compile(formula)
    weights = raw(probabilities(formula.widths, *batch, seed=seed))
    expected = count(formula, weights)
    found = circuit(weights)
    assert found.shape == (*batch, len(formula.roots))
    torch.testing.assert_close(found, expected, **close)
    logs = circuit.log_forward(weights.log())
    torch.testing.assert_close(logs.exp(), expected, **close)
    up = torch.rand(expected.shape, dtype=torch.float64)
    if expected.requires_grad:
        (wanted,) = torch.autograd.grad((up * expected).sum(), weights, allow_unused=True)
        for result in (found, logs.exp()):
            (got,) = torch.autograd.grad((up * result).sum(), weights)
            torch.testing.assert_close(got, wanted, **close)


@settings(max_examples=60)
@given(formulas(), st.data())
def test_sampled_concepts_are_conditioned_on(formula: Formula, data: st.DataObject) -> None:
    circuit = Circuit.compile(formula)
    weights = raw(probabilities(formula.widths, 3))
    sampled = [data.draw(st.booleans()) for _ in formula.widths]
    values = torch.tensor(
        [
            [
                data.draw(st.integers(0, width - 1)) if some else -1
                for some, width in zip(sampled, formula.widths, strict=True)
            ]
            for _ in range(3)
        ],
        dtype=torch.int64,
    ).reshape(3, len(formula.widths))
    expected = torch.stack(
        [conditioned(formula, w, v) for w, v in zip(weights, values.tolist(), strict=True)]
    )
    for found in (circuit(weights, values), circuit.log_forward(weights.log(), values).exp()):
        torch.testing.assert_close(found, expected, **close)
        if expected.requires_grad:
            (wanted,) = torch.autograd.grad(expected.sum(), weights, retain_graph=True)
            (got,) = torch.autograd.grad(found.sum(), weights)
            torch.testing.assert_close(got, wanted, **close)


def test_gradcheck() -> None:
    formula, _ = sum_formula([3, 2, 3])
    circuit = Circuit.compile(formula)
    weights = raw(probabilities(formula.widths, 2))
    values = torch.tensor([[1, -1, -1], [2, -1, -1]])
    assert gradcheck(circuit, (weights,))
    assert gradcheck(lambda w: circuit(w, values), (weights,))
    assert gradcheck(circuit.log_forward, (raw(weights.log()),))
    # .exp(): finite differences of a logarithm of 0 are not finite
    assert gradcheck(lambda w: circuit.log_forward(w, values).exp(), (raw(weights.log()),))


def test_log_weights_of_minus_infinity() -> None:
    formula, _ = sum_formula([3, 3])
    weights = torch.tensor([[0.0, 0.5, 0.5, 0.0, 0.0, 1.0]], dtype=torch.float64)
    logs = raw(weights.log())
    result = Circuit.compile(formula).log_forward(logs)
    torch.testing.assert_close(result.exp(), count(formula, weights))
    (got,) = torch.autograd.grad(result[result > -torch.inf].sum(), logs)
    assert got.isfinite().all()
    assert (got[weights == 0] == 0).all()
    (got,) = torch.autograd.grad(Circuit.compile(formula).log_forward(logs).exp().sum(), logs)
    assert got.isfinite().all()


def test_gradient_at_zero_probability() -> None:
    formula, _ = sum_formula([3, 3])
    weights = raw(torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0, 1.0]], dtype=torch.float64))
    (got,) = torch.autograd.grad(Circuit.compile(formula)(weights)[0, 2], weights)
    (wanted,) = torch.autograd.grad(count(formula, weights)[0, 2], weights)
    torch.testing.assert_close(got, wanted)


def test_devices_and_dtypes(device: torch.device) -> None:
    formula, _ = sum_formula([4, 3])
    check_dtypes(Circuit.compile(formula), formula, device)


def test_no_parameters_and_no_state() -> None:
    formula, _ = sum_formula([4, 3])
    circuit = Circuit.compile(formula)
    assert not circuit.state_dict()
    assert not list(circuit.parameters())
    model = torch.nn.Sequential(torch.nn.Linear(2, 7), circuit)
    model.load_state_dict({k: v for k, v in model.state_dict().items() if k.startswith("0")})
    assert repr(circuit) == f"Circuit(concepts=2, outputs=6, size={circuit.size})"


@settings(max_examples=30)
@given(formulas())
def test_deterministic(formula: Formula) -> None:
    one, two = (dict(Circuit.compile(formula).named_buffers()) for _ in range(2))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_child_process_compiles_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    formula, _ = sum_formula([5] * 4)
    here = dict(Circuit.compile(formula).named_buffers())
    monkeypatch.setattr("byssus._compile._SMALL", 0)
    there = dict(Circuit.compile(formula).named_buffers())
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)


@settings(max_examples=30)
@given(formulas(min_concepts=1), st.randoms())
def test_any_order_of_concepts(formula: Formula, rng: random.Random) -> None:
    order = list(range(len(formula.widths)))
    rng.shuffle(order)
    weights = probabilities(formula.widths, 2)
    found = Circuit.compile(formula, order=order)(weights)
    torch.testing.assert_close(found, count(formula, weights), **close)


def test_large_sum_is_small() -> None:
    formula, sums = sum_formula([10] * 8)
    circuit = Circuit.compile(formula)
    assert circuit.size < 5_000
    weights = probabilities(formula.widths, 2)
    polynomial = torch.ones(2, 1, dtype=torch.float64)
    for part in weights.split(10, 1):
        polynomial = torch.stack(
            [
                torch.nn.functional.conv1d(a[None, None], b.flip(0)[None, None], padding=9)[0, 0]
                for a, b in zip(polynomial, part, strict=True)
            ]
        )
    torch.testing.assert_close(circuit(weights), polynomial[:, sums], **close)


def test_wide_concepts() -> None:
    width = 1_500
    values = [("literal", (0, v)) for v in range(0, width, 7)]
    nodes = dict(enumerate(values, 1))
    nodes[len(nodes) + 1] = ("or", tuple(range(1, len(nodes) + 1)))
    weights = probabilities([width], 2)
    found = Circuit.compile(Formula.from_graph([width], nodes, [len(nodes)]))(weights)
    torch.testing.assert_close(found[:, 0], weights[:, ::7].sum(1))


@pytest.mark.parametrize("n", [150, 300])
def test_deep_diagrams(n: int) -> None:
    # Parity: PySDD recurses once a concept, and its stack overflowed at some 170.
    nodes: dict = {}

    def add(kind: str, *content: int) -> int:
        nodes[len(nodes) + 1] = (kind, content)
        return len(nodes)

    odd = None
    for c in range(n):
        one = add("literal", c, 1)
        below = odd
        odd = one if below is None else add("or", add("and", below, -one), add("and", -below, one))
    formula = Formula.from_graph([2] * n, nodes, [odd])
    weights = probabilities([2] * n, 2)
    expected = 0.5 - 0.5 * (1 - 2 * weights[:, 1::2]).prod(1)
    torch.testing.assert_close(Circuit.compile(formula)(weights)[:, 0], expected)
    exact = Exact([2] * n)
    torch.testing.assert_close(exact.circuit(formula.evaluate(exact))(weights)[:, 0], expected)


@pytest.mark.parametrize(("variables", "nodes"), [(12, 60), (75, 5_000)])  # here, in a child
@pytest.mark.parametrize("seconds", [None, 60.0])
def test_limit_of_nodes(variables: int, nodes: int, seconds: float | None) -> None:
    started = time.monotonic()
    with pytest.raises(CompilationLimit, match=rf"limit of {nodes} nodes .*`nodes=`"):
        Circuit.compile(random_cnf(variables), nodes=nodes, seconds=seconds)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("seconds", [1, 0.5])
def test_limit_of_seconds(seconds: float) -> None:
    started = time.monotonic()
    message = rf"limit of {seconds} seconds .*`seconds=`"
    with pytest.raises(CompilationLimit, match=message):
        Circuit.compile(random_cnf(75), seconds=seconds)
    assert time.monotonic() - started < seconds + 4


def test_limit_of_no_seconds() -> None:
    with pytest.raises(CompilationLimit, match="limit of 0 seconds"):
        Circuit.compile(random_cnf(12), seconds=0)


def test_a_limit_that_is_kept_changes_nothing() -> None:
    # The limit collects garbage on the way: the diagrams that are still needed must survive it.
    formula = random_cnf(12, ratio=3)
    free = dict(Circuit.compile(formula).named_buffers())
    with pytest.raises(CompilationLimit):
        Circuit.compile(formula, nodes=100)
    bound = dict(Circuit.compile(formula, nodes=300, seconds=60.0).named_buffers())
    assert all(torch.equal(free[name], bound[name]) for name in free)
    weights = probabilities(formula.widths, 1)
    torch.testing.assert_close(Circuit.compile(formula)(weights), count(formula, weights), **close)


def test_a_child_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byssus._compile._SMALL", 0)
    monkeypatch.setattr("sys.executable", "/bin/false")
    formula, _ = sum_formula([2, 2])
    with pytest.raises(ByssusError, match="process ended with status 1"):
        Circuit.compile(formula)


def test_shapes_are_checked() -> None:
    formula, _ = sum_formula([3, 2])
    circuit = Circuit.compile(formula)
    with pytest.raises(ShapeError, match=r"\(2, 4\).* must be 5"):
        circuit(torch.ones(2, 4))
    with pytest.raises(ShapeError, match=r"\(2, 3\).*expected \(2, 2\)"):
        circuit(torch.ones(2, 5), torch.zeros(2, 3, dtype=torch.int64))
    mixed = torch.tensor([[0, 1], [-1, 1]])
    with pytest.raises(ShapeError, match=r"concept 0 .*some rows"):
        circuit(torch.ones(2, 5), mixed)
    with pytest.raises(ShapeError, match=r"concept 0 .*some rows"):
        circuit(torch.ones(2, 5), mixed.flip(0))


def test_to_dot() -> None:
    formula, _ = sum_formula([3, 2])
    circuit = Circuit.compile(formula)
    text = circuit.to_dot(['a "b"', "c\\d"])
    assert text.startswith("digraph circuit {\n")
    assert text.endswith("}\n")
    assert text.count("{") == text.count("}") == 1
    assert r"a \"b\"" in text
    assert r"c\\d" in text
    declared = set(re.findall(r"^  (\w+) \[label", text, re.M))
    edges = re.findall(r"^  (\w+) -> (\w+)", text, re.M)
    assert {end for edge in edges for end in edge} <= declared
    assert len([n for n in declared if n.isdigit()]) == circuit.size + 2
    assert sum(name.startswith("y") for name in declared) == circuit.outputs
    for number in (n for n in declared if n.isdigit() and int(n) > 1):
        labels = re.findall(rf'^  {number} -> \d+ \[label="([\d,]+)"\]', text, re.M)
        values = sorted(int(v) for label in labels for v in label.split(","))
        assert values in ([0, 1, 2], [0, 1])


def test_empty_batch() -> None:
    formula, _ = sum_formula([3, 2])
    circuit = Circuit.compile(formula)
    assert circuit(torch.ones(0, 5)).shape == (0, 4)
    values = torch.zeros(0, 2, dtype=torch.int64)
    assert circuit(torch.ones(0, 5), values).shape == (0, 4)
