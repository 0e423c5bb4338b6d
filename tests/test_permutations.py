"""Permanents and exact samples of permutations, against brute force."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from byssus import DomainError
from byssus._permutations import log_permanent, sample_permutations


def rows_of(n: int, batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(batch, n, n, generator=generator, dtype=torch.float64).softmax(-1)


def products(rows: Tensor) -> Tensor:
    n = rows.shape[1]
    every = torch.tensor(list(permutations(range(n))))
    return rows[:, torch.arange(n), every].prod(-1)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_log_permanent(n: int) -> None:
    rows = rows_of(n).requires_grad_()
    expected = products(rows).sum(1).log()
    found = log_permanent(rows)
    torch.testing.assert_close(found, expected)
    wanted, got = (torch.autograd.grad(x.sum(), rows)[0] for x in (expected, found))
    torch.testing.assert_close(got, wanted)
    if n < 5:
        assert gradcheck(log_permanent, (rows,))


def test_zeros() -> None:
    identity = torch.eye(4, dtype=torch.float64)[None].requires_grad_()
    found = log_permanent(identity)
    torch.testing.assert_close(found, torch.zeros(1, dtype=torch.float64))
    (got,) = torch.autograd.grad(found.sum(), identity)
    assert got.isfinite().all()
    impossible = torch.zeros(1, 4, 4).index_fill(2, torch.tensor([0]), 1.0)
    assert log_permanent(impossible).isfinite().all()


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_frequencies(n: int) -> None:
    rows = rows_of(n, batch=2)
    draws = 20_000
    drawn = sample_permutations(rows, draws, torch.Generator().manual_seed(0))
    weights = products(rows)
    expected = draws * weights / weights.sum(1, keepdim=True)
    for row, wanted in zip(drawn.tolist(), expected, strict=True):
        counts = torch.tensor([row.count(list(p)) for p in permutations(range(n))])
        assert counts.sum() == draws
        statistic = float(((counts - wanted) ** 2 / wanted).sum())
        freedom = len(wanted) - 1
        assert statistic < freedom + 4 * (2 * freedom) ** 0.5 + 1e-9


def test_certain_permutations_are_drawn() -> None:
    order = torch.tensor([2, 0, 1])
    rows = torch.nn.functional.one_hot(order, 3).float()[None]
    assert (sample_permutations(rows, 50) == order).all()


def test_reproducible() -> None:
    rows = rows_of(5)
    one, two, other = (
        sample_permutations(rows, 30, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_too_many() -> None:
    with pytest.raises(DomainError, match="Permutation of 15"):
        log_permanent(torch.full((1, 15, 15), 1 / 15))
