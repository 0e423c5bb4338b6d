"""Exact: SDD tags against the enumeration of worlds, and the laws of a Boolean algebra."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from byssus import Exact, Formula
from oracle import concepts_of, count, formulas, gradient, probabilities, raw


@settings(max_examples=80)
@given(formulas())
def test_readout_agrees_with_enumeration(formula: Formula) -> None:
    exact = Exact(formula.widths)
    probs = raw(probabilities(formula.widths, 3))
    tags = formula.evaluate(exact)
    result = exact.readout(
        tags, concepts_of(probs, formula.widths), range(len(tags)), lost=exact.negate(tags[0])
    )
    expected = count(formula, probs)
    torch.testing.assert_close(result.probs, expected)
    torch.testing.assert_close(result.lost, 1 - expected[:, 0])
    assert result.bias == "exact"
    assert (result.coverage == 1).all()
    assert (result.ess == torch.inf).all()
    (got,), (wanted,) = (gradient(x.square().sum(), probs) for x in (result.probs, expected))
    torch.testing.assert_close(got, wanted)


def test_gradcheck() -> None:
    exact = Exact([3, 2])
    either = exact.add(exact.literal(0, 1), exact.mult(exact.literal(0, 2), exact.literal(1, 0)))

    def readout(probs: torch.Tensor) -> torch.Tensor:
        return exact.readout([either], concepts_of(probs, (3, 2)), ["yes"]).probs

    assert gradcheck(readout, (raw(probabilities((3, 2), 2)),))


@settings(max_examples=50)
@given(formulas(min_concepts=1), formulas(min_concepts=1), st.data())
def test_laws(one: Formula, two: Formula, data: st.DataObject) -> None:
    widths = tuple(map(max, *(f.widths + (1,) * 6 for f in (one, two))))
    exact = Exact(widths)
    a, b = one.evaluate(exact)[-1], two.evaluate(exact)[-1]
    assert exact.equal(exact.negate(exact.negate(a)), a)
    assert exact.equal(exact.add(a, a), a)
    assert exact.equal(exact.mult(a, a), a)
    assert exact.equal(exact.add(a, exact.negate(a)), exact.one)
    assert exact.equal(exact.mult(a, exact.negate(a)), exact.zero)
    assert exact.equal(exact.negate(exact.add(a, b)), exact.mult(exact.negate(a), exact.negate(b)))
    assert exact.equal(exact.negate(exact.mult(a, b)), exact.add(exact.negate(a), exact.negate(b)))


def test_values_exhaust_and_exclude() -> None:
    exact = Exact([4, 1])
    values = [exact.literal(0, v) for v in range(4)]
    anything = exact.zero
    for value in values:
        assert exact.equal(exact.mult(anything, value), exact.zero)
        anything = exact.add(anything, value)
    assert exact.equal(anything, exact.one)
    assert exact.equal(exact.literal(1, 0), exact.one)
    assert not exact.equal(values[0], values[1])


def test_wrong_literals_and_orders() -> None:
    exact = Exact([2, 3])
    for concept, value in [(0, 2), (2, 0), (0, -1), (-1, 0)]:
        with pytest.raises(ValueError, match="no value"):
            exact.literal(concept, value)
    with pytest.raises(ValueError, match="permutation"):
        Exact([2, 3], order=[0, 0])
