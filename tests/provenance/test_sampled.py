"""Sampled: bitset tags over all worlds are exact; over some, the same as circuits say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byssus import Circuit, Distribution, Exact, Formula, Sampled, Worlds, exhaustive, independent
from byssus.estimators import Sample, as_estimator
from byssus.provenance.sampled import circuit_membership, from_bits, to_bits
from oracle import (
    concepts_of,
    count,
    formulas,
    gradient,
    probabilities,
    raw,
    sum_formula,
)

NAMES = ["auto", "distinct", "ised", "rloo", "indecater"]


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bits(holds: list[bool]) -> None:
    tag = to_bits(np.array(holds))
    assert [bool(tag >> i & 1) for i in range(len(holds))] == holds
    assert from_bits(tag, len(holds)).tolist() == [i for i, h in enumerate(holds) if h]


@settings(max_examples=60)
@given(formulas(max_worlds=200))
def test_all_worlds_are_exact(formula: Formula) -> None:
    probs = raw(probabilities(formula.widths, 2))
    concepts = concepts_of(probs, formula.widths)
    sampled = Sampled(formula.widths, exhaustive(concepts))
    tags = formula.evaluate(sampled)
    about: Any = {"lost": sampled.negate(tags[0])}
    result = sampled.readout(tags, concepts, range(len(tags)), **about)
    expected = count(formula, probs)
    torch.testing.assert_close(result.probs, expected)
    torch.testing.assert_close(result.lost, 1 - expected[:, 0].detach())
    assert result.bias == "exact"
    assert (result.coverage == 1).all()
    (got,), (wanted,) = (gradient(x.square().sum(), probs) for x in (result.probs, expected))
    torch.testing.assert_close(got, wanted)
    exact = Exact(formula.widths)
    other = exact.readout(formula.evaluate(exact), concepts, range(len(tags))).probs
    torch.testing.assert_close(result.probs, other)
    (also,) = gradient(other.square().sum(), probs)
    torch.testing.assert_close(got, also)


@pytest.mark.parametrize("estimator", NAMES)
@settings(max_examples=20)
@given(formulas(min_concepts=1, max_worlds=100), st.integers(2, 8), st.integers(0, 99))
def test_circuits_give_the_same_members(
    estimator: str, formula: Formula, samples: int, seed: int
) -> None:
    probs = raw(probabilities(formula.widths, 3, seed=seed))
    concepts = concepts_of(probs, formula.widths)
    worlds = independent(concepts, samples, torch.Generator().manual_seed(seed))
    sampled = Sampled(formula.widths, worlds, estimator)
    tags = formula.evaluate(sampled)
    outputs = range(len(tags))
    engine = sampled.readout(tags, concepts, outputs, rerun=formula.evaluate)
    circuit = Circuit.compile(formula)

    sample = Sample(
        concepts,
        worlds,
        circuit_membership(circuit, concepts, worlds.indices),
        len(tags),
        lambda indices: circuit_membership(circuit, concepts, indices),
    )
    direct = Distribution(outputs, sample=sample, estimator=as_estimator(estimator))
    target = torch.zeros(3, len(tags), dtype=torch.float64)
    target[:, seed % len(tags)] = 1
    for one, two in [
        (engine.probs, direct.probs),
        (engine.scores, direct.scores),
        (engine.bound, direct.bound),
        (engine.loss([seed % len(tags)] * 3), direct.loss([seed % len(tags)] * 3)),
        (engine.loss(target), direct.loss(target)),
    ]:
        torch.testing.assert_close(one, two)
        (got,), (wanted,) = (gradient(x.sum(), probs) for x in (one, two))
        assert got.isfinite().all()
        torch.testing.assert_close(got, wanted)


@given(st.integers(0, 99))
def test_laws(seed: int) -> None:
    concepts = concepts_of(probabilities((3, 2), 2, seed=seed), (3, 2))
    s = Sampled((3, 2), independent(concepts, 7, torch.Generator().manual_seed(seed)))
    a, b = s.literal(0, 1), s.literal(1, 0)
    assert s.equal(s.negate(s.negate(a)), a)
    assert s.add(a, a) == a == s.mult(a, a)
    assert s.negate(s.add(a, b)) == s.mult(s.negate(a), s.negate(b))
    assert s.negate(s.mult(a, b)) == s.add(s.negate(a), s.negate(b))
    assert s.add(a, s.negate(a)) == s.one
    assert s.mult(a, s.negate(a)) == s.zero
    assert s.add(s.add(s.literal(0, 0), a), s.literal(0, 2)) == s.one


def test_lost_is_the_share_of_what_was_seen() -> None:
    probs = torch.tensor([[0.1, 0.2, 0.7]], dtype=torch.float64)
    concepts = concepts_of(probs, (3,))
    worlds = Worlds(
        torch.tensor([[[1], [2], [1]]]), torch.tensor([[True, True, False]]), complete=False
    )
    sampled = Sampled((3,), worlds)
    result = sampled.readout([sampled.literal(0, 2)], concepts, ["y"], lost=sampled.literal(0, 1))
    assert result.coverage.item() == pytest.approx(0.9)
    assert result.lost.item() == pytest.approx(0.2 / 0.9)


def test_indecater_needs_the_rules() -> None:
    formula, _ = sum_formula([2, 2])
    concepts = concepts_of(probabilities((2, 2), 1), (2, 2))
    sampled = Sampled((2, 2), independent(concepts, 3), "indecater")
    result = sampled.readout(formula.evaluate(sampled), concepts, range(3))
    with pytest.raises(TypeError, match="give `rerun`"):
        _ = result.scores


def test_devices(device: torch.device) -> None:
    formula, sums = sum_formula([3, 3])
    probs = probabilities((3, 3), 2).to(device).requires_grad_()
    concepts = concepts_of(probs, (3, 3))
    for estimator in NAMES:
        sampled = Sampled((3, 3), independent(concepts, 9), estimator)
        tags = formula.evaluate(sampled)
        result = sampled.readout(tags, concepts, sums, rerun=formula.evaluate)
        loss = result.loss([0, 1])
        assert loss.device.type == result.coverage.device.type == device.type
        loss.backward()
