"""How a diffusion model asks its program: by a table of all worlds, a circuit, or samples."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byssus.diffusion.program import WorldProgram

__all__ = [
    "TABULATED",
    "Inference",
    "count_worlds",
    "draw_worlds",
    "gathered",
    "padding",
    "uniform",
]

TABULATED = 10_000
"""A program over at most so many worlds is tabulated."""


class Inference(Protocol):
    """What is asked of a program, given the unmasking model's distribution over concepts.

    `log_probs` holds the logarithms of the literals' probabilities side by side, for all columns
    of a world; a concept that is unmasked has 0 at its value and -inf elsewhere, and a column
    beyond the end of a list -inf throughout. `y` holds the position of each output dimension's
    value; -1 where it is not observed. Every world gives that, also one that has no value there
    or whose call failed, since nothing is asked of it.
    """

    def log_likelihoods(
        self,
        log_probs: Float[Tensor, "rows literals"],
        y: Int[Tensor, "rows dimensions"],
        generator: torch.Generator | None,
    ) -> Float[Tensor, "rows dimensions"]:
        """The logarithm of the weighted model count of each output dimension's value."""

    def log_joint(
        self, log_probs: Float[Tensor, "rows literals"], y: Int[Tensor, "rows dimensions"]
    ) -> Float[Tensor, " rows"]:
        """The logarithm of the weighted model count of all dimensions' values together."""

    def draw(
        self,
        log_probs: Float[Tensor, "rows literals"],
        y: Int[Tensor, "rows dimensions"],
        generator: torch.Generator | None,
    ) -> Int[Tensor, "rows columns"]:
        """A world that gives the outputs, as likely as it is under the model."""

    def entropy(
        self, log_probs: Float[Tensor, "rows literals"], y: Int[Tensor, "rows dimensions"]
    ) -> Float[Tensor, " rows"]:
        """The entropy, in nats, of the model's distribution over the worlds that give them."""

    @property
    def cells(self) -> int:
        """How many numbers a draw holds for each row."""

    def possible(self, y: Int[Tensor, "rows dimensions"]) -> Bool[Tensor, " rows"]:
        """Whether any world gives the outputs."""


def uniform(
    shape: Sequence[int], like: Tensor, generator: torch.Generator | None
) -> Float[Tensor, "*shape"]:
    """Uniform numbers from 0 on and below 1, drawn on the generator's device."""
    device = like.device if generator is None else generator.device
    drawn = torch.rand(*shape, dtype=like.dtype, device=device, generator=generator)
    return drawn.to(like.device)


def draw_worlds(
    log_probs: Float[Tensor, "rows literals"],
    widths: Sequence[int],
    generator: torch.Generator | None,
) -> Int[Tensor, "rows columns"]:
    """A world for each row, its columns drawn independently."""
    rows = len(log_probs)
    device = log_probs.device if generator is None else generator.device
    race = torch.empty(log_probs.shape, dtype=log_probs.dtype, device=device)
    race = race.exponential_(generator=generator).to(log_probs.device)
    # The first of exponential clocks with these rates: cheaper than a draw a column.
    race = log_probs.detach().exp().div_(race.clamp_min_(torch.finfo(race.dtype).tiny))
    if len(set(widths)) == 1:
        return race.reshape(rows, len(widths), widths[0]).argmax(-1)
    parts = [part.argmax(-1) for part in torch.split(race, list(widths), 1)]
    return torch.stack(parts, 1) if parts else race.new_empty((rows, 0), dtype=torch.int64)


def gathered(
    log_probs: Float[Tensor, "rows literals"],
    worlds: Int[Tensor, "rows worlds columns"],
    offsets: Int[Tensor, " columns"],
) -> Float[Tensor, "rows worlds columns"]:
    """The log-probability of each column of each world; 0 where it has none."""
    rows, count, columns = worlds.shape
    at = (worlds.clamp_min(0) + offsets).reshape(rows, count * columns)
    found = log_probs.gather(1, at).reshape(rows, count, columns)
    return torch.where(worlds >= 0, found, 0.0)


def padding(
    log_probs: Float[Tensor, "rows literals"], widths: Sequence[int]
) -> Bool[Tensor, "rows columns"]:
    """Where a column does not exist: none of its literals is possible."""
    none = log_probs == -torch.inf
    return torch.stack([part.all(1) for part in torch.split(none, list(widths), 1)], 1)


def count_worlds(program: WorldProgram) -> int:
    """How many worlds a program has."""
    return prod((d.size for d in program.domains), start=prod(program.own_widths))
