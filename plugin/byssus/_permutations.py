"""Permutations whose probability is in proportion to the product of one entry a row.

The normaliser is a permanent. A table over sets of columns (Bellman; Held and Karp) gives it in
O(2^n n), and, walked backwards, exact samples.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byssus.errors import DomainError

_LARGEST = 14


@cache
def _layers(n: int) -> list[tuple[Tensor, Tensor]]:
    """For each size i: the sets of i columns; which set of i - 1 is left without each member.

    `previous` and `member`, both (sets, i): positions in the layer before, and columns.
    """
    if n > _LARGEST:
        raise DomainError(
            f"a Permutation of {n} as an input: its normaliser takes 2^{n} sums; at most "
            f"{_LARGEST} elements, or a List of Integers whose black box rejects the others"
        )
    position = {0: 0}
    layers = []
    for size in range(1, n + 1):
        sets = [s for s in range(1 << n) if s.bit_count() == size]
        members = [[j for j in range(n) if s >> j & 1] for s in sets]
        previous = [
            [position[s & ~(1 << j)] for j in m] for s, m in zip(sets, members, strict=True)
        ]
        layers.append((torch.tensor(previous), torch.tensor(members)))
        position = {s: i for i, s in enumerate(sets)}
    return layers


def _tables(rows: Float[Tensor, "batch n n"]) -> list[Float[Tensor, "batch sets"]]:
    """For each set of columns, the log of the sum over the ways to fill the first rows with it."""
    log_rows = rows.clamp_min(torch.finfo(rows.dtype).tiny).log()
    tables = [log_rows.new_zeros(len(rows), 1)]
    for i, (previous, member) in enumerate(_layers(rows.shape[1])):
        previous, member = previous.to(rows.device), member.to(rows.device)
        tables.append(torch.logsumexp(tables[-1][:, previous] + log_rows[:, i][:, member], -1))
    return tables


def log_permanent(rows: Float[Tensor, "batch n n"]) -> Float[Tensor, " batch"]:
    """The logarithm of the sum, over all permutations, of the product of their entries."""
    return _tables(rows)[-1][:, 0]


def sample_permutations(
    rows: Float[Tensor, "batch n n"], samples: int, generator: torch.Generator | None = None
) -> Int[Tensor, "batch samples n"]:
    """Draw permutations exactly, with replacement."""
    tables = _tables(rows)
    log_rows = rows.clamp_min(torch.finfo(rows.dtype).tiny).log()
    batch, n = len(rows), rows.shape[1]
    current = torch.zeros(batch, samples, dtype=torch.int64, device=rows.device)
    drawn = torch.empty(batch, samples, n, dtype=torch.int64, device=rows.device)
    for i in reversed(range(n)):
        previous, member = (t.to(rows.device) for t in _layers(n)[i])
        before, columns = previous[current], member[current]  # (batch, samples, i + 1)
        flat = (batch, samples * (i + 1))
        weight = tables[i].gather(1, before.reshape(flat)) + log_rows[:, i].gather(
            1, columns.reshape(flat)
        )
        chance = weight.reshape(batch * samples, i + 1).softmax(-1)
        choice = torch.multinomial(chance, 1, generator=generator).reshape(batch, samples, 1)
        drawn[:, :, i] = columns.gather(2, choice)[:, :, 0]
        current = before.gather(2, choice)[:, :, 0]
    return drawn
