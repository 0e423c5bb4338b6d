"""Where worlds come from: drawn independently from the concepts' probabilities, or all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byssus._permutations import log_permanent, sample_permutations
from byssus.errors import ByssusError

__all__ = [
    "Concepts",
    "Sampler",
    "Worlds",
    "alike",
    "exhaustive",
    "independent",
    "number_worlds",
]


@dataclass(frozen=True)
class Concepts:
    """The concepts of a batch: the probability of every literal, side by side.

    Attributes:
        probs: concept c occupies the `widths[c]` columns from `offsets[c]`.
        widths: the number of values of each concept.
        mask: False where an example does not have the concept (beyond the length of a list).
        permuted: ranges of concepts that together are a permutation, the rows of which `probs`
            describes: only permutations are worlds, with probability in proportion to the product.
    """

    probs: Float[Tensor, "batch columns"]
    widths: tuple[int, ...]
    mask: Bool[Tensor, "batch concepts"] | None = None
    permuted: tuple[tuple[int, int], ...] = ()

    @property
    def offsets(self) -> tuple[int, ...]:
        """The first column of each concept."""
        return tuple(accumulate(self.widths[:-1], initial=0)) if self.widths else ()

    def of(self, concept: int) -> Float[Tensor, "batch values"]:
        """The probabilities of one concept."""
        start = self.offsets[concept]
        return self.probs[:, start : start + self.widths[concept]]

    def gather(
        self, indices: Int[Tensor, "batch worlds concepts"]
    ) -> Float[Tensor, "batch worlds concepts"]:
        """The probability of each value of each world, differentiable; 1 where there is none."""
        batch, count, n = indices.shape
        offsets = torch.tensor(self.offsets, dtype=torch.int64, device=indices.device)
        columns = (indices.clamp_min(0) + offsets).reshape(batch, count * n)
        gathered = self.probs.gather(1, columns).reshape(batch, count, n)
        return torch.where(indices >= 0, gathered, 1.0)

    def log_norm(self) -> Float[Tensor, " batch"] | None:
        """The logarithm of what the products over worlds sum to; None where it is 0 throughout."""
        if not self.permuted:
            return None
        total = self.probs.new_zeros(len(self.probs))
        for start, stop in self.permuted:
            norm = log_permanent(self._rows(start, stop))
            if self.mask is not None:
                norm = torch.where(self.mask[:, start], norm, 0.0)
            total = total + norm
        return total

    def _rows(self, start: int, stop: int) -> Float[Tensor, "batch n n"]:
        return torch.stack([self.of(c) for c in range(start, stop)], 1)


@dataclass(frozen=True)
class Worlds:
    """The worlds of a batch.

    Attributes:
        indices: the value of each concept as an index into its domain; -1 where the concept does
            not exist or is summed out.
        distinct: the first occurrence of each world in its example, and no padding.
        complete: whether every world of the sampled concepts is among them.
        repeats: how often each world occurs in its example, where what a world gives is random;
            None where it gives the same each time.
    """

    indices: Int[Tensor, "batch worlds concepts"]
    distinct: Bool[Tensor, "batch worlds"]
    complete: bool = False
    repeats: Int[Tensor, "batch worlds"] | None = None


Sampler = Callable[[Concepts, int, torch.Generator | None], Worlds]
"""Draws so many worlds for each example of a batch."""


def independent(
    concepts: Concepts, samples: int, generator: torch.Generator | None = None
) -> Worlds:
    """Draw worlds independently, with replacement: `samples` for each example.

    Concepts are independent of one another, except that a permutation is drawn as a whole.
    """
    check_sampling(samples, generator)
    probs = concepts.probs.detach()
    device = probs.device
    if generator is not None:
        probs = probs.to(generator.device)
    batch = len(probs)
    indices = torch.empty(batch, samples, len(concepts.widths), dtype=torch.int64)
    indices = indices.to(probs.device)
    together = {c for start, stop in concepts.permuted for c in range(start, stop)}
    offsets = concepts.offsets
    for width in sorted({w for c, w in enumerate(concepts.widths) if c not in together}):
        same = [c for c, w in enumerate(concepts.widths) if w == width and c not in together]
        columns = [offsets[c] + v for c in same for v in range(width)]
        table = probs[:, columns].reshape(batch * len(same), width)
        # clamp: a probability may lie a rounding error below zero
        drawn = torch.multinomial(
            table.clamp_min(0), samples, replacement=True, generator=generator
        )
        indices[:, :, same] = drawn.reshape(batch, len(same), samples).transpose(1, 2)
    for start, stop in concepts.permuted:
        rows = torch.stack(
            [probs[:, offsets[c] : offsets[c] + stop - start] for c in range(start, stop)], 1
        )
        indices[:, :, start:stop] = sample_permutations(rows, samples, generator)
    indices = indices.to(device)
    if concepts.mask is not None:
        indices = indices.masked_fill(~concepts.mask[:, None], -1)
    return Worlds(indices, _first(number_worlds(indices, concepts.widths)[0]))


def check_sampling(samples: int, generator: torch.Generator | None) -> None:
    """Raise a `ByssusError` if one cannot sample like this."""
    if type(samples) is not int or samples < 1:
        raise ByssusError(f"samples={samples!r}: draw a whole number of worlds, 1 or more")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ByssusError(f"generator={generator!r} is no torch.Generator")


def exhaustive(
    concepts: Concepts, samples: int | None = None, generator: torch.Generator | None = None
) -> Worlds:
    """Every world, once. `samples` is the most that may be; there is nothing to draw."""
    count = prod(concepts.widths)
    if samples is not None and count > samples:
        raise ByssusError(
            f"{count} worlds, and samples={samples}: raise `samples`, or draw them instead"
        )
    if concepts.mask is not None or concepts.permuted:
        raise ByssusError("exhaustive worlds of lists and permutations: enumerate their domain")
    device = concepts.probs.device
    axes = [torch.arange(width, device=device) for width in concepts.widths]
    grid = torch.cartesian_prod(*axes).reshape(count, len(axes)) if axes else torch.empty(1, 0)
    indices = grid.long().expand(len(concepts.probs), -1, -1)
    return Worlds(indices, torch.ones(indices.shape[:2], dtype=torch.bool, device=device), True)


def alike(shape: Sequence[int], like: Tensor) -> tuple[Concepts, Worlds]:
    """Worlds that all count the same, each as often as it was drawn: how likely is not known.

    Args:
        shape: (batch, worlds).
        like: a tensor of their device and, if it is of floating point, type.
    """
    every = torch.ones(*shape, dtype=torch.bool, device=like.device)
    none = torch.empty(*shape, 0, dtype=torch.int64, device=like.device)
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    probs = torch.empty(shape[0], 0, dtype=dtype, device=like.device)
    return Concepts(probs, ()), Worlds(none, every, repeats=every.long())


def number_worlds(
    indices: Int[Tensor, "*batch concepts"], widths: Sequence[int]
) -> tuple[Int[Tensor, "*batch"], Int[Tensor, "distinct concepts"]]:
    """Number equal worlds equally; and the distinct worlds, by number."""
    shape, n = indices.shape[:-1], indices.shape[-1]
    rows = indices.reshape(shape.numel(), n)
    if prod(w + 1 for w in widths) < 2**62:
        key = rows.new_zeros(len(rows))
        for concept, width in enumerate(widths):
            key = key * (width + 1) + rows[:, concept] + 1
        unique, number = torch.unique(key, return_inverse=True)
        last = number.new_empty(len(unique))
        last[number] = torch.arange(len(rows), device=rows.device)
        distinct = rows[last]
    else:
        distinct, number = torch.unique(rows, dim=0, return_inverse=True)
    return number.reshape(shape), distinct


def count_repeats(
    indices: Int[Tensor, "batch worlds concepts"], widths: Sequence[int]
) -> Int[Tensor, "batch worlds"]:
    """How often each world occurs in its example."""
    number, distinct = number_worlds(indices, widths)
    rows = torch.arange(len(number), device=number.device)[:, None]
    which: Tensor
    counts: Tensor
    _, which, counts = torch.unique(
        rows * len(distinct) + number, return_inverse=True, return_counts=True
    )
    return counts[which].clone()


def _first(number: Int[Tensor, "batch worlds"]) -> Bool[Tensor, "batch worlds"]:
    """Where a number occurs for the first time in its row."""
    ordered, position = number.sort(dim=1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.zeros_like(first).scatter(1, position, first)
