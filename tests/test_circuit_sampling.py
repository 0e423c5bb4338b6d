"""Draws from circuits and their entropy, against the enumeration of worlds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from byssus import ByssusError, Circuit, Formula, ShapeError, _sdd
from byssus.errors import ProbabilityError, TargetError
from oracle import (
    check_frequencies,
    formulas,
    gradient,
    holds,
    probabilities,
    raw,
    sum_formula,
    world_weights,
    worlds_of,
)

close = {"atol": 1e-9, "rtol": 1e-6}


def circuits(formula: Formula) -> list[Circuit]:
    """One of decisions, and one of products on the same vtree, and one of those on another."""
    sdd = _sdd.Sdd(formula.widths, range(len(formula.widths)))
    products = Circuit(formula.widths, sdd.products(formula.evaluate(sdd)))
    vtrees = [Circuit.compile(formula, vtree=vtree) for vtree in ("program", "balanced")]
    return [*vtrees, products]


def posterior(formula: Formula, weights: Tensor, outputs: Sequence[int]) -> Tensor:
    """The probability of every world given that row's output, (rows, worlds); NaN if impossible."""
    table = torch.tensor([holds(formula, world) for world in worlds_of(formula.widths)])
    joint = world_weights(weights, formula.widths) * table.T[list(outputs)]
    return joint / joint.sum(-1, keepdim=True)


def entropy_of(probs: Tensor) -> Tensor:
    """The entropy of each row, whose derivative at 0 is 0."""
    return -(probs * probs.where(probs > 0, 1.0).log()).sum(-1)


def sparse_weights(widths: Sequence[int], rows: int, data: st.DataObject) -> Tensor:
    """Weights that are not normalized and partly 0; some concepts are one-hot."""
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    parts = [torch.empty(rows, 0, dtype=torch.float64)]
    for width in widths:
        part = 2 * torch.rand(rows, width, generator=generator, dtype=torch.float64) + 0.01
        kept = data.draw(st.lists(st.integers(0, width - 1), max_size=2))
        if kept:
            mask = torch.zeros(width, dtype=torch.float64)
            mask[kept] = 1
            part = part * mask
        parts.append(part)
    return torch.cat(parts, -1)


@settings(max_examples=40)
@given(formulas(max_worlds=60), st.data())
@example(Formula((), (), (0,)), None)
@example(Formula((1,), (("literal", (0, 0)),), (1,)), None)
@example(Formula((3, 1, 2), (), (None, 0)), None)
def test_draws_agree_with_enumeration(formula: Formula, data: st.DataObject | None) -> None:
    rows, draws = 2, 2_000
    outputs = [len(formula.roots) - 1] * rows
    weights = probabilities(formula.widths, rows)
    if data is not None:
        outputs = [data.draw(st.integers(0, len(formula.roots) - 1)) for _ in range(rows)]
        weights = sparse_weights(formula.widths, rows, data)
    expected = posterior(formula, weights, outputs)
    logs = weights.log()[:, None].expand(-1, draws, -1)
    asked = torch.tensor(outputs)[:, None].expand(-1, draws)
    for circuit in circuits(formula):
        generator = torch.Generator().manual_seed(0)
        if expected.isnan().any():
            with pytest.raises(ProbabilityError, match=r"row \d+ of the batch.*weight 0"):
                circuit.sample(logs, asked, generator=generator)
            continue
        values = circuit.sample(logs, asked, generator=generator)
        assert values.shape == (rows, draws, len(formula.widths))
        assert values.dtype == torch.int64
        for drawn, row in zip(values, expected, strict=True):
            check_frequencies(drawn, formula.widths, row)


@settings(max_examples=60)
@given(formulas(), st.data())
@example(Formula((), (), (0,)), None)
@example(Formula((1,), (("literal", (0, 0)),), (1,)), None)
@example(Formula((3, 1, 2), (), (None, 0)), None)
def test_entropy_agrees_with_enumeration(formula: Formula, data: st.DataObject | None) -> None:
    rows = 3
    outputs = [len(formula.roots) - 1] * rows
    weights = probabilities(formula.widths, rows)
    if data is not None:
        outputs = [data.draw(st.integers(0, len(formula.roots) - 1)) for _ in range(rows)]
        weights = sparse_weights(formula.widths, rows, data)
    weights.requires_grad_()
    probs = posterior(formula, weights, outputs)
    for circuit in circuits(formula):
        logs = raw(weights.log())
        if probs.isnan().any():
            with pytest.raises(ProbabilityError, match="weight 0"):
                circuit.entropy(logs, torch.tensor(outputs))
            continue
        expected = entropy_of(probs)
        found = circuit.entropy(logs, torch.tensor(outputs))
        torch.testing.assert_close(found, expected, **close)
        up = torch.rand(rows, dtype=torch.float64)
        (wanted,) = gradient((up * expected).sum(), weights)
        (got,) = gradient((up * found).sum(), logs)
        torch.testing.assert_close(got, wanted * weights, atol=1e-8, rtol=1e-6)


def test_many_draws() -> None:
    # A chi-square test at about four standard deviations; the last concept does not matter.
    formula, sums = sum_formula([3, 2, 4])
    formula = Formula((*formula.widths, 2), formula.nodes, formula.roots)
    weights, draws = probabilities(formula.widths, 1), 50_000
    expected = posterior(formula, weights, [sums.index(3)])[0]
    possible = expected > 0
    for circuit in circuits(formula):
        logs = weights.log().expand(draws, -1)
        generator = torch.Generator().manual_seed(0)
        values = circuit.sample(logs, sums.index(3), generator=generator)
        number = (values * torch.tensor([16, 8, 2, 1])).sum(1)
        seen = number.bincount(minlength=len(expected))[possible] / draws
        probs = expected[possible]
        statistic = draws * ((seen - probs) ** 2 / probs).sum()
        freedom = len(probs) - 1
        assert statistic < freedom + 4 * math.sqrt(2 * freedom)


def parity(n: int) -> Formula:
    """An even and an odd number of n concepts is true."""
    nodes: dict[int, Any] = {c + 1: ("literal", (c, 1)) for c in range(n)}
    odd = 1
    for c in range(2, n + 1):
        size = len(nodes)
        nodes[size + 1] = ("and", (odd, -c))
        nodes[size + 2] = ("and", (-odd, c))
        nodes[size + 3] = ("or", (size + 1, size + 2))
        odd = size + 3
    return Formula.from_graph([2] * n, nodes, [-odd, odd])


def test_gradcheck() -> None:
    formula, _ = sum_formula([3, 2, 3])
    logs = probabilities(formula.widths, 2).log()
    for circuit in circuits(formula):
        outputs = torch.tensor([3, 2])
        assert gradcheck(lambda w, c=circuit, o=outputs: c.entropy(w, o), (raw(logs),))
        with pytest.raises(ByssusError, match="first derivatives only"):
            circuit.entropy(raw(logs)).sum().backward(create_graph=True)


def test_many_concepts() -> None:
    n, rows = 40, 50
    logs = probabilities([2] * n, rows, dtype=torch.float32).log()
    for vtree in ("program", "balanced"):
        circuit = Circuit.compile(parity(n), vtree=vtree)
        outputs = torch.arange(rows) % 2
        drawn = circuit.sample(logs, outputs)
        assert torch.equal(drawn.sum(1) % 2, outputs)
        uniform = circuit.entropy(torch.zeros(3, 2 * n))
        expected = torch.full((3,), (n - 1) * math.log(2))
        torch.testing.assert_close(uniform, expected)


def test_the_generator_decides() -> None:
    formula, _ = sum_formula([4, 4, 4])
    logs = torch.zeros(200, 12)
    for circuit in circuits(formula):
        first, again, other = (
            circuit.sample(logs, 5, generator=torch.Generator().manual_seed(seed))
            for seed in (0, 0, 1)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        torch.manual_seed(0)
        assert torch.equal(circuit.sample(logs, 5), first)


def test_extreme_weights() -> None:
    # In probabilities all of these are 0.
    formula, sums = sum_formula([3, 3])
    logs = torch.tensor([[-900.0, -800.0, -1000.0, -900.0, -1000.0, -800.0]]).expand(50, 6)
    for circuit in circuits(formula):
        drawn = circuit.sample(logs, sums.index(2))
        assert (drawn == torch.tensor([0, 2])).all()
        assert circuit.entropy(logs, sums.index(2)).max() < 1e-6


def test_shapes_dtypes_and_devices(device: torch.device) -> None:
    formula, sums = sum_formula([3, 2])
    for circuit in circuits(formula):
        circuit = circuit.to(device)
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            logs = probabilities([3, 2], 4, 5).to(device, dtype).log()
            outputs = torch.randint(4, (4, 5), device=device)
            drawn = circuit.sample(logs, outputs, generator=torch.Generator().manual_seed(0))
            assert drawn.shape == (4, 5, 2)
            assert drawn.device.type == device.type
            assert torch.equal(torch.tensor(sums, device=device)[outputs], drawn.sum(-1))
            entropy = circuit.entropy(logs, outputs)
            assert entropy.shape == (4, 5)
            assert entropy.dtype == dtype
        assert circuit.sample(torch.zeros(5, device=device), 2).shape == (2,)
        assert circuit.sample(torch.zeros(0, 5, device=device)).shape == (0, 2)
        assert circuit.entropy(torch.zeros(0, 5, device=device)).shape == (0,)


def test_what_cannot_be_drawn() -> None:
    formula, sums = sum_formula([3, 2])
    for circuit in circuits(formula):
        logs = torch.zeros(2, 5)
        with pytest.raises(ShapeError, match=r"\(2, 4\).* must be 5"):
            circuit.sample(torch.zeros(2, 4))
        with pytest.raises(TargetError, match=r"output 4: the circuit has 4, from 0 to 3"):
            circuit.sample(logs, 4)
        with pytest.raises(TargetError, match=r"shape \(3,\).*of shape \(2,\)"):
            circuit.entropy(logs, torch.zeros(3, dtype=torch.int64))
        with pytest.raises(TargetError, match=r"torch\.float32"):
            circuit.sample(logs, torch.zeros(2))
        logs[1, :3] = torch.tensor([-torch.inf, -torch.inf, 0])
        assert (circuit.sample(logs, sums.index(2))[1] == torch.tensor([2, 0])).all()
        with pytest.raises(ProbabilityError, match=r"row 1 .*weight 0"):
            circuit.sample(logs, sums.index(0))
        logs[1, :3] = -torch.inf
        for ask in (circuit.sample, circuit.entropy):
            with pytest.raises(ProbabilityError, match=r"row 1 .*weight 0"):
                ask(logs, sums.index(1))
            with pytest.raises(ProbabilityError, match=r"row 0 .*not numbers"):
                ask(logs * torch.nan)
