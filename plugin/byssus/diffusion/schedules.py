"""Noise schedules: how likely a dimension is masked at a time between 0 and 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from byssus.errors import ByssusError

__all__ = ["Cosine", "Geometric", "Linear", "Schedule", "as_schedule"]


@runtime_checkable
class Schedule(Protocol):
    """From time to noise: nothing is masked at time 0, and everything at time 1.

    With the field's alpha, `masked` is 1 - alpha and `rate` is -alpha'.
    """

    def masked(self, t: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        """The probability that a dimension is masked, which increases with the time."""

    def rate(self, t: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        """Its derivative."""


@dataclass(frozen=True)
class Linear:
    """Masked with probability t; NeSyDM's own."""

    def masked(self, t: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        """The probability that a dimension is masked."""
        return t

    def rate(self, t: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        """Its derivative."""
        return torch.ones_like(t)


@dataclass(frozen=True)
class Cosine:
    """Masked with probability sin(pi t / 2): most of the time is spent among many masks."""

    def masked(self, t: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        """The probability that a dimension is masked."""
        return torch.sin(math.pi / 2 * t)

    def rate(self, t: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        """Its derivative."""
        return math.pi / 2 * torch.cos(math.pi / 2 * t)


@dataclass(frozen=True)
class Geometric:
    """Masked with probability 1 - exp(-least^(1 - t) most^t).

    Attributes:
        least: the noise at time 0, above 0; its own share is masked there.
        most: the noise at time 1; all but exp(-most) is masked there.
    """

    least: float = 1e-5
    most: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.least < self.most:
            raise ByssusError(
                f"Geometric(least={self.least}, most={self.most}): give 0 < least < most"
            )

    def masked(self, t: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        """The probability that a dimension is masked."""
        return -torch.expm1(-self._noise(t))

    def rate(self, t: Float[Tensor, "*times"]) -> Float[Tensor, "*times"]:
        """Its derivative."""
        noise = self._noise(t)
        return torch.exp(-noise) * noise * math.log(self.most / self.least)

    def _noise(self, t: Tensor) -> Tensor:
        return torch.exp(math.log(self.least) * (1 - t) + math.log(self.most) * t)


_NAMED: dict[str, Schedule] = {"linear": Linear(), "cosine": Cosine(), "geometric": Geometric()}


def as_schedule(schedule: str | Schedule) -> Schedule:
    """A schedule by its name, or as it is."""
    if isinstance(schedule, Schedule):
        return schedule
    if not isinstance(schedule, str) or schedule not in _NAMED:
        raise ByssusError(
            f"schedule={schedule!r}: there are {', '.join(map(repr, _NAMED))}; or give an object "
            "with the methods masked(t) and rate(t)"
        )
    return _NAMED[schedule]
