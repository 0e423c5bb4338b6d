"""A program that is only run: likelihoods by RLOO, posteriors by self-normalised importance."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from byssus.diffusion.inference import draw_worlds, gathered, padding
from byssus.diffusion.program import WorldProgram
from byssus.errors import ByssusError

__all__ = ["Sampled"]

_MISSED = 1e-8
"""What a likelihood counts as that no sample has met."""

_STEEP, _FLAT = 70.0, 100.0
"""The paper's M and U, which bound the logarithms of rewards."""


class Sampled(nn.Module):
    """Estimates from worlds drawn from the unmasking model.

    Args:
        program: the program.
        samples: S, worlds for a likelihood; 2 or more.
        candidates: K, worlds among which the posterior chooses.
        beta: the logarithm of the reward that a violated output dimension costs.
    """

    _offsets: Tensor

    def __init__(self, program: WorldProgram, samples: int, candidates: int, beta: float) -> None:
        super().__init__()
        self.program = program
        self.samples, self.candidates, self.beta = samples, candidates, beta
        offsets = torch.tensor(program.offsets, dtype=torch.int64)
        self.register_buffer("_offsets", offsets, persistent=False)

    def log_likelihoods(
        self,
        log_probs: Float[Tensor, "rows literals"],
        y: Int[Tensor, "rows dimensions"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "rows dimensions"]:
        """The logarithm of the frequency of each output dimension's value, with RLOO's gradient.

        -inf with no gradient where no sample has the value.
        """
        worlds = self._draw(log_probs, self.samples, generator)
        rewards = (~self._violations(worlds, y)).to(log_probs.dtype)
        mean = rewards.mean(1)
        # The mean of the other samples as baseline, divided by the mean of all.
        share = (rewards - mean[:, None]) / (mean.clamp_min(_MISSED) * (self.samples - 1))[:, None]
        log_worlds = gathered(log_probs, worlds, self._offsets).sum(-1)
        surrogate = torch.einsum("rs,rsd->rd", log_worlds, share)
        return mean.log() + (surrogate - surrogate.detach())

    def log_joint(
        self, log_probs: Float[Tensor, "rows literals"], y: Int[Tensor, "rows dimensions"]
    ) -> Float[Tensor, " rows"]:
        """Not estimated."""
        raise ByssusError("the likelihood of whole outputs is not estimated from samples")

    def draw(
        self,
        log_probs: Float[Tensor, "rows literals"],
        y: Int[Tensor, "rows dimensions"],
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "rows columns"]:
        """One of the candidates, by its reward exp(-beta x violated dimensions)."""
        log_probs = log_probs.detach()
        worlds = self._draw(log_probs, self.candidates, generator)
        violated = self._violations(worlds, y).sum(-1)
        cost = self.beta * violated.to(log_probs.dtype)
        least = torch.minimum(cost.mean(1), _STEEP + cost.amin(1))
        log_rewards = -(cost - least[:, None]).clamp_max(_FLAT)
        chosen = draw_worlds(log_rewards.log_softmax(1), (self.candidates,), generator)
        return worlds[torch.arange(len(worlds), device=worlds.device), chosen[:, 0]]

    def entropy(
        self, log_probs: Float[Tensor, "rows literals"], y: Int[Tensor, "rows dimensions"]
    ) -> Float[Tensor, " rows"]:
        """Not estimated: the entropy given the outputs needs all worlds or a circuit."""
        raise ByssusError(
            "the conditional entropy needs a program that is enumerated or compiled: use "
            "entropy='unconditional', or declare outputs and budgets that allow it"
        )

    @property
    def cells(self) -> int:
        """How many numbers a draw holds for each row."""
        return self.candidates * sum(self.program.widths)

    def possible(self, y: Int[Tensor, "rows dimensions"]) -> Bool[Tensor, " rows"]:
        """True: which outputs are possible is not known without running all worlds."""
        return torch.ones(len(y), dtype=torch.bool, device=y.device)

    def _violations(self, worlds: Tensor, y: Tensor) -> Bool[Tensor, "rows worlds dimensions"]:
        return (self.program.outputs(worlds) != y[:, None]) & (y >= 0)[:, None]

    def _draw(
        self, log_probs: Tensor, count: int, generator: torch.Generator | None
    ) -> Int[Tensor, "rows count columns"]:
        widths = self.program.widths
        repeated = log_probs.detach()[:, None].expand(-1, count, -1).flatten(0, 1)
        worlds = draw_worlds(repeated, widths, generator)
        worlds = worlds.reshape(len(log_probs), count, len(widths))
        if self.program.has_lists:
            worlds = worlds.masked_fill(padding(log_probs, widths)[:, None], -1)
        return worlds
