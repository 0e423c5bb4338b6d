"""Votes, against counting."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from byssus import Boolean, Integer, Tuple, blackbox
from byssus.diffusion import MaskedDiffusion
from byssus.diffusion.prediction import Prediction, predict
from byssus.diffusion.program import as_world_program


@blackbox(Integer(0, 2), Integer(0, 2), output=Tuple(Integer(0, 4), Boolean()), on_error="discard")
def rule(a: int, b: int) -> tuple[int, bool]:
    if a == b == 2:
        raise ValueError("two twos")
    return a + b, a > b


PROGRAM = as_world_program(rule)
worlds = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=9)


def most(items: list[Any]) -> Any:
    """The most frequent item, the smallest of several; None of none."""
    counts = Counter(items)
    return min(counts, key=lambda item: (-counts[item], item), default=None)


def voted(example: list[tuple[int, int]], strategy: str, mode: str) -> Prediction:
    drawn = torch.tensor([example])
    return predict(PROGRAM, drawn, drawn, strategy, mode)


@given(worlds)
def test_strategies(example: list[tuple[int, int]]) -> None:
    found = [rule(*w) for w in example if w != (2, 2)]
    true, marginal = most(example), tuple(most([w[c] for w in example]) for c in range(2))
    expected = {
        "PTM": most(found),
        "PMM": tuple(most([y[d] for y in found]) for d in range(2)) if found else None,
        "TMP": None if true == (2, 2) else rule(*true),
        "MMP": None if marginal == (2, 2) else rule(*marginal),
    }
    for strategy, output in expected.items():
        assert voted(example, strategy, "true").outputs == [output]
    assert voted(example, "PTM", "true").concepts.tolist() == [list(true)]
    assert voted(example, "PTM", "marginal").concepts.tolist() == [list(marginal)]


@given(worlds)
def test_frequencies(example: list[tuple[int, int]]) -> None:
    result = voted(example, "PTM", "true")
    counts = Counter(rule(*w) for w in example if w != (2, 2))
    assert set(result.distribution.values) == set(counts)
    for value, count in counts.items():
        assert float(result.distribution[value]) == pytest.approx(count / len(example))
    failed = example.count((2, 2)) / len(example)
    assert float(result.distribution.lost) == pytest.approx(failed, abs=1e-6)
    for c, marginal in enumerate(result.marginals):
        shares = [sum(w[c] == v for w in example) / len(example) for v in range(3)]
        assert marginal[0].tolist() == pytest.approx(shares)


def test_all_values_of_one_dimension_have_a_probability() -> None:
    model = MaskedDiffusion(
        lambda x, c_t: x.new_zeros(len(x), 1, 3), Integer(0, 2), lambda a: a, outputs=Integer(0, 9)
    )
    prediction = model.predict(torch.zeros(2, 1), 300)
    assert prediction.distribution.values == tuple(range(10))
    assert prediction.distribution.probs.shape == (2, 10)
    assert float(prediction.distribution.probs.sum()) == pytest.approx(2)
    assert prediction.distribution.bias == "unbiased, with no gradient"
    assert prediction.distribution.most_likely() == prediction.outputs
    assert float(prediction.distribution.loss([0, 1])) > 0
