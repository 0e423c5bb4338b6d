"""Mixed: exact given the sampled part, and wholly exact where that is exhausted."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from byssus import Circuit, Distribution, Formula, Mixed, Sampled, Worlds, exhaustive, independent
from byssus.estimators import Sample, as_estimator
from byssus.provenance.sampled import circuit_membership
from byssus.worlds import Concepts
from oracle import (
    concepts_of,
    count,
    formulas,
    gradient,
    probabilities,
    raw,
    sum_formula,
    summed_out,
    tangent,
)

NAMES = ["auto", "distinct", "ised", "rloo", "indecater"]


def all_worlds(concepts: Concepts, exact: tuple[int, ...]) -> Worlds:
    """Every world of the sampled concepts."""
    worlds = summed_out(exhaustive(concepts), exact)
    first = worlds.distinct[0]
    return replace(worlds, indices=worlds.indices[:, first], distinct=worlds.distinct[:, first])


@settings(max_examples=25)
@given(formulas(max_concepts=4, max_worlds=60))
def test_exhausted_is_exact_for_every_split(formula: Formula) -> None:
    n = len(formula.widths)
    probs = raw(probabilities(formula.widths, 2))
    concepts = concepts_of(probs, formula.widths)
    expected = count(formula, probs)
    (wanted,) = gradient(expected.square().sum(), probs)
    for size in range(n + 1):
        for exact in combinations(range(n), size):
            mixed = Mixed(formula.widths, all_worlds(concepts, exact), exact)
            tags = formula.evaluate(mixed)
            result = mixed.readout(tags, concepts, range(len(tags)), lost=mixed.negate(tags[0]))
            torch.testing.assert_close(result.probs, expected)
            torch.testing.assert_close(result.lost, 1 - expected[:, 0].detach())
            (got,) = gradient(result.probs.square().sum(), probs)
            torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("estimator", NAMES)
@settings(max_examples=20)
@given(formulas(min_concepts=2, max_worlds=60), st.integers(2, 6), st.integers(0, 99))
def test_circuits_give_the_same_members(
    estimator: str, formula: Formula, samples: int, seed: int
) -> None:
    n = len(formula.widths)
    exact = [c for c in range(n) if (seed >> c) & 1]
    probs = raw(probabilities(formula.widths, 2, seed=seed))
    concepts = concepts_of(probs, formula.widths)
    drawn = independent(concepts, samples, torch.Generator().manual_seed(seed))
    worlds = summed_out(drawn, exact)
    mixed = Mixed(formula.widths, worlds, exact, estimator)
    tags = formula.evaluate(mixed)
    engine = mixed.readout(tags, concepts, range(len(tags)), rerun=formula.evaluate)
    circuit = Circuit.compile(formula)
    sample = Sample(
        concepts,
        worlds,
        circuit_membership(circuit, concepts, worlds.indices),
        len(tags),
        lambda indices: circuit_membership(circuit, concepts, indices),
    )
    direct = Distribution(range(len(tags)), sample=sample, estimator=as_estimator(estimator))
    target = seed % len(tags)
    for one, two in [
        (engine.probs, direct.probs),
        (engine.scores, direct.scores),
        (engine.bound, direct.bound),
        (engine.loss([target] * 2), direct.loss([target] * 2)),
    ]:
        torch.testing.assert_close(one, two)
        (got,), (wanted,) = (gradient(x.sum(), probs) for x in (one, two))
        assert got.isfinite().all()
        torch.testing.assert_close(got, wanted)


@settings(max_examples=30)
@given(formulas(min_concepts=2, max_worlds=40), formulas(min_concepts=2, max_worlds=40))
def test_laws(one: Formula, two: Formula) -> None:
    widths = tuple(map(max, *(f.widths + (1,) * 6 for f in (one, two))))
    concepts = concepts_of(probabilities(widths, 2), widths)
    exact = (0, 2, 4)
    worlds = summed_out(independent(concepts, 4, torch.Generator().manual_seed(0)), exact)
    m = Mixed(widths, worlds, exact)
    a, b = one.evaluate(m)[-1], two.evaluate(m)[-1]
    assert m.equal(m.negate(m.negate(a)), a)
    assert m.equal(m.add(a, a), a)
    assert m.equal(m.mult(a, a), a)
    assert m.equal(m.add(a, b), m.add(b, a))
    assert m.equal(m.add(a, m.negate(a)), m.one)
    assert m.equal(m.mult(a, m.negate(a)), m.zero)
    assert m.equal(m.negate(m.add(a, b)), m.mult(m.negate(a), m.negate(b)))
    assert m.equal(m.negate(m.mult(a, b)), m.add(m.negate(a), m.negate(b)))
    for tag in (a, b, m.add(a, b), m.negate(a)):
        seen = 0
        for node, bits in tag.values():
            assert not node.is_false()
            assert not seen & bits
            seen |= bits


def test_no_exact_concept_is_sampled() -> None:
    formula, sums = sum_formula([3, 2])
    probs = raw(probabilities((3, 2), 2))
    concepts = concepts_of(probs, (3, 2))
    worlds = independent(concepts, 5, torch.Generator().manual_seed(1))
    mixed, sampled = Mixed((3, 2), worlds, ()), Sampled((3, 2), worlds)
    one = mixed.readout(formula.evaluate(mixed), concepts, sums)
    two = sampled.readout(formula.evaluate(sampled), concepts, sums)
    torch.testing.assert_close(one.scores, two.scores)


@pytest.mark.parametrize(("name", "k"), [("rloo", 3), ("indecater", 2)])
def test_unbiased_gradients(name: str, k: int) -> None:
    """Of sampled and of exact concepts; the draws are the batch."""
    draws, widths = 4_000, (3, 2, 3)
    formula, sums = sum_formula(widths)
    probs = probabilities(widths)
    truth = raw(probs)
    expected = count(formula, truth)
    wanted = tangent(
        torch.stack([gradient(expected[y], truth)[0] for y in range(len(sums))]), widths
    )
    leaves = raw(probs.expand(draws, -1))
    concepts = concepts_of(leaves, widths)
    drawn = independent(concepts, k, torch.Generator().manual_seed(3))
    indices = drawn.indices.clone()
    indices[..., 1] = -1
    circuit = Circuit.compile(formula)

    def members(indices: Tensor):
        return circuit_membership(circuit, concepts, indices)

    sample = Sample(concepts, replace(drawn, indices=indices), members(indices), len(sums), members)
    scores = as_estimator(name).scores(sample)
    found = torch.stack([gradient(scores[:, y].sum(), leaves)[0] for y in range(len(sums))], 1)
    found = tangent(found, widths)
    error = found.std(0) / draws**0.5
    z = ((found.mean(0) - wanted).abs() / error.clamp_min(1e-12))[error > 1e-9]
    limit = -torch.special.ndtri(torch.tensor(0.0005 / z.numel(), dtype=torch.float64))
    assert z.max() < limit
    assert ((found.mean(0) - wanted).abs()[error <= 1e-9] < 1e-9).all()
    value = scores.detach()
    spread = value.std(0) / draws**0.5
    assert ((value.mean(0) - expected.detach()).abs() < 4 * spread + 1e-9).all()


def test_shared_diagrams() -> None:
    formula, sums = sum_formula([3, 3])
    probs = probabilities((3, 3), 2)
    concepts = concepts_of(probs, (3, 3))
    first = Mixed((3, 3), all_worlds(concepts, (1,)), (1,))
    for _ in range(3):
        mixed = Mixed((3, 3), all_worlds(concepts, (1,)), (1,), sdd=first.sdd)
        result = mixed.readout(formula.evaluate(mixed), concepts, sums)
        torch.testing.assert_close(result.probs, count(formula, probs))


def test_indecater_needs_the_rules() -> None:
    formula, sums = sum_formula([2, 2])
    concepts = concepts_of(probabilities((2, 2), 1), (2, 2))
    mixed = Mixed((2, 2), summed_out(independent(concepts, 3), [1]), [1], "indecater")
    result = mixed.readout(formula.evaluate(mixed), concepts, sums)
    with pytest.raises(TypeError, match="give `rerun`"):
        _ = result.scores
