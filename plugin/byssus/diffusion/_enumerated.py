"""A program as a table of all its worlds."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from byssus.diffusion.inference import padding
from byssus.diffusion.program import WorldProgram
from byssus.domains import Tuple
from byssus.errors import ProbabilityError

__all__ = ["Enumerated"]


class Enumerated(nn.Module):
    """Exact inference by a table: every world, once, with what it gives.

    Args:
        program: the program.
    """

    worlds: Tensor  # (worlds, columns), -1 beyond the end of lists
    codes: Tensor  # (worlds, dimensions)
    _literals: Tensor

    def __init__(self, program: WorldProgram) -> None:
        super().__init__()
        worlds = Tuple(*program.domains).enumerate()
        if program.own_widths:
            axes = [torch.arange(width) for width in program.own_widths]
            own = torch.cartesian_prod(*axes).reshape(-1, len(axes))
            worlds = torch.cat(
                [worlds.repeat_interleave(len(own), 0), own.repeat(len(worlds), 1)], 1
            )
        offsets = torch.tensor(program.offsets, dtype=torch.int64)
        # A column that a world does not have is one more literal, after all others.
        absent = sum(program.widths) + torch.arange(len(offsets))
        literals = torch.where(worlds >= 0, worlds + offsets, absent)
        self.register_buffer("worlds", worlds, persistent=False)
        self.register_buffer("codes", program.outputs(worlds), persistent=False)
        self.register_buffer("_literals", literals.t().contiguous(), persistent=False)
        self._widths = program.widths
        self._lists = bool((worlds < 0).any())

    def log_likelihoods(
        self,
        log_probs: Float[Tensor, "rows literals"],
        y: Int[Tensor, "rows dimensions"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "rows dimensions"]:
        """The logarithm of the weighted model count of each output dimension's value."""
        log_worlds = self._log_worlds(log_probs)
        likely = []
        for d in range(y.shape[1]):
            same = _same(y[:, d, None], self.codes[:, d])
            likely.append(_log_sum(log_worlds.masked_fill(~same, -torch.inf)))
        return torch.stack(likely, 1)

    def log_joint(
        self, log_probs: Float[Tensor, "rows literals"], y: Int[Tensor, "rows dimensions"]
    ) -> Float[Tensor, " rows"]:
        """The logarithm of the weighted model count of all dimensions' values together."""
        return _log_sum(self._given(log_probs, y))

    def draw(
        self,
        log_probs: Float[Tensor, "rows literals"],
        y: Int[Tensor, "rows dimensions"],
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "rows columns"]:
        """A world that gives the outputs, as likely as it is under the model.

        Raises:
            ProbabilityError: no such world has a probability.
        """
        given = self._given(log_probs.detach(), y)
        device = given.device if generator is None else generator.device
        race = torch.empty(given.shape, dtype=given.dtype, device=device)
        race = race.exponential_(generator=generator).to(given.device)
        # Gumbel noise is minus the logarithm of an exponential clock.
        chosen = (given - race.clamp_min(torch.finfo(given.dtype).tiny).log()).argmax(1)
        none = given.gather(1, chosen[:, None]) == -torch.inf
        if none.any():
            raise ProbabilityError(
                f"row {int(none.nonzero()[0, 0])} of the batch: every world that gives its outputs "
                "has probability 0, so that none can be drawn; give the program's facts and the "
                "network's answers probabilities above 0, or leave the example out; its lists "
                "may be too short"
            )
        return self.worlds[chosen]

    def entropy(
        self, log_probs: Float[Tensor, "rows literals"], y: Int[Tensor, "rows dimensions"]
    ) -> Float[Tensor, " rows"]:
        """The entropy of the model's distribution over the worlds that give the outputs."""
        log_given = self._given(log_probs, y).log_softmax(1)
        # where: 0 log 0 is 0, and so is its gradient.
        return -(log_given.exp() * log_given.masked_fill(log_given == -torch.inf, 0.0)).sum(1)

    @property
    def cells(self) -> int:
        """How many numbers a draw holds for each row."""
        return len(self.worlds)

    def possible(self, y: Int[Tensor, "rows dimensions"]) -> Bool[Tensor, " rows"]:
        """Whether any world gives the outputs."""
        return self._matches(y).any(1)

    def _log_worlds(self, log_probs: Tensor) -> Float[Tensor, "rows worlds"]:
        if self._lists:
            absent = torch.where(padding(log_probs, self._widths), 0.0, -torch.inf)
            log_probs = torch.cat([log_probs, absent.to(log_probs.dtype)], 1)
        total = log_probs.new_zeros(len(log_probs), len(self.worlds))
        for literals in self._literals:
            total = total + log_probs.index_select(1, literals)
        return total

    def _given(self, log_probs: Tensor, y: Tensor) -> Float[Tensor, "rows worlds"]:
        return self._log_worlds(log_probs).masked_fill(~self._matches(y), -torch.inf)

    def _matches(self, y: Tensor) -> Bool[Tensor, "rows worlds"]:
        return _same(y[:, None], self.codes).all(-1)


def _same(y: Tensor, codes: Tensor) -> Bool[Tensor, "*shape"]:
    """Where outputs are the observed ones; everywhere where nothing is observed."""
    return (y == codes) | (y < 0)


def _log_sum(log_worlds: Tensor) -> Float[Tensor, " rows"]:
    """`logsumexp`, with no gradient where all are -inf."""
    none = (log_worlds == -torch.inf).all(1)
    return log_worlds.masked_fill(none[:, None], 0.0).logsumexp(1).masked_fill(none, -torch.inf)
