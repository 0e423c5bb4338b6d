"""Diffusion models by brute force: every state, every order, every world.

Of an output, None is what is not observed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor, nn

State = tuple[int | None, ...]
World = tuple[int, ...]
Output = Sequence[int | None]
Phi = Callable[[World], tuple[int, ...]]


class Network(nn.Module):
    """A small network that looks at everything, so that concepts depend on one another."""

    def __init__(self, widths: Sequence[int], inputs: int = 2, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.widths = tuple(widths)
        size = inputs + sum(width + 1 for width in widths)
        self.layers = nn.Sequential(
            nn.Linear(size, 16), nn.Tanh(), nn.Linear(16, sum(widths))
        ).double()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(3.0)

    def forward(self, x: Tensor, c_t: Tensor) -> Tensor:
        hot = [nn.functional.one_hot(c_t[:, i], width + 1) for i, width in enumerate(self.widths)]
        return self.layers(torch.cat([x, *hot], 1))


class Oracle:
    """A network's diffusion over worlds, for one input."""

    def __init__(self, network: Network, x: Tensor, phi: Phi) -> None:
        self.network, self.x, self.phi = network, x, phi
        self.widths = network.widths
        self.worlds = list(product(*(range(width) for width in self.widths)))

    def unmasked(self, state: State) -> list[Tensor]:
        """For each column its distribution: of the network, or certain where it is unmasked."""
        tokens = [w if s is None else s for s, w in zip(state, self.widths, strict=True)]
        logits = self.network(self.x[None], torch.tensor([tokens]))[0]
        return [
            part.softmax(0) if s is None else nn.functional.one_hot(torch.tensor(s), w).double()
            for s, w, part in zip(state, self.widths, logits.split(list(self.widths)), strict=True)
        ]

    def world_probs(self, state: State) -> Tensor:
        """The factorised distribution over worlds, given a state."""
        parts = self.unmasked(state)
        return torch.stack(
            [
                torch.stack([p[v] for p, v in zip(parts, world, strict=True)]).prod()
                for world in self.worlds
            ]
        )

    def gives(self, y: Output) -> Tensor:
        return self._gives_each(y).all(0)

    def _gives_each(self, y: Output) -> Tensor:
        given = [self.phi(world) for world in self.worlds]
        return torch.tensor([[v is None or g[d] == v for g in given] for d, v in enumerate(y)])

    def joint(self, state: State, y: Output | None) -> Tensor:
        """The distribution over worlds, given a state and perhaps the output."""
        probs = self.world_probs(state)
        if y is None:
            return probs
        probs = probs * self.gives(y)
        return probs / probs.sum()

    def likelihoods(self, state: State, y: Output) -> Tensor:
        """For each output dimension the probability of its value; 1 where it is not observed."""
        return (self.world_probs(state) * self._gives_each(y)).sum(1)

    def drawn(
        self,
        y: Output | None = None,
        steps: int | None = None,
        known: State | None = None,
    ) -> dict[World, float]:
        """The distribution of sampled worlds: first hitting, or in so many steps."""
        n = len(self.widths)
        start = known or (None,) * n
        states: dict[State, float] = {start: 1.0}
        for k in range(start.count(None) if steps is None else steps):
            following: dict[State, float] = {}
            for state, weight in states.items():
                joint = self.joint(state, y).tolist()
                masked = [d for d in range(n) if state[d] is None]
                for chosen, share in _chosen(masked, k, steps):
                    for world, prob in zip(self.worlds, joint, strict=True):
                        new = tuple(world[d] if d in chosen else state[d] for d in range(n))
                        following[new] = following.get(new, 0.0) + weight * share * prob
            states = following
        return {state: p for state, p in states.items() if p > 0}  # type: ignore[misc]

    def log_likelihood(self, y: Output) -> float:
        """log p(y | x) of the joint process: concepts and outputs are unmasked in random order."""
        n, m = len(self.widths), len(y)
        known: dict[tuple[State, tuple[bool, ...]], float] = {}

        def rest(state: State, shown: tuple[bool, ...]) -> float:
            """The probability that all outputs come out right from here on."""
            hidden = [d for d in range(n) if state[d] is None]
            outputs = [i for i in range(m) if not shown[i]]
            if not outputs:
                return 1.0
            if (state, shown) not in known:
                parts, right = self.unmasked(state), self.likelihoods(state, y)
                total = 0.0
                for d in hidden:
                    for v, p in enumerate(parts[d].tolist()):
                        total += p * rest((*state[:d], v, *state[d + 1 :]), shown)
                for i in outputs:
                    after = (*shown[:i], True, *shown[i + 1 :])
                    total += float(right[i]) * rest(state, after)
                known[state, shown] = total / (len(hidden) + len(outputs))
            return known[state, shown]

        with torch.no_grad():
            return math.log(rest((None,) * n, (False,) * m))


def _chosen(
    masked: Sequence[int], k: int, steps: int | None
) -> list[tuple[tuple[int, ...], float]]:
    """Which columns are unmasked in a step of the linear schedule, and how probable that is."""
    if steps is None:
        return [((d,), 1 / len(masked)) for d in masked]
    share = 1 / (steps - k)
    return [
        (
            tuple(d for d, take in zip(masked, taken, strict=True) if take),
            math.prod(share if take else 1 - share for take in taken),
        )
        for taken in product((False, True), repeat=len(masked))
    ]
