"""`sampled`: a tag is a bitset, in which of the batch's worlds the fact holds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from byssus.circuit import Circuit
from byssus.distribution import Distribution
from byssus.estimators import Estimator, Membership, Sample, as_estimator
from byssus.worlds import Concepts, Worlds, number_worlds

__all__ = ["Sampled"]

_FEW = 4
"""Up to so many bits are faster found one by one than by unpacking all."""


class Sampled:
    """Tags are Python ints, a bit for each world of each example: one engine run for the batch.

    Args:
        widths: the number of values of each concept.
        worlds: the worlds, from `byssus.worlds`.
        estimator: how worlds become scores and a loss; a name or an `Estimator`.
    """

    def __init__(
        self, widths: Sequence[int], worlds: Worlds, estimator: str | Estimator = "auto"
    ) -> None:
        self.widths = tuple(widths)
        self.worlds = worlds
        self.estimator = as_estimator(estimator)
        self.count = worlds.distinct.numel()
        self.zero, self.one = 0, (1 << self.count) - 1
        self._columns = worlds.indices.reshape(self.count, len(self.widths)).t().cpu().numpy()
        self._literals: dict[tuple[int, int], int] = {}

    def literal(self, concept: int, value: int) -> int:
        """The worlds in which this concept has this value."""
        if (concept, value) not in self._literals:
            self._literals[concept, value] = to_bits(self._columns[concept] == value)
        return self._literals[concept, value]

    def add(self, a: int, b: int) -> int:
        """Union."""
        return a | b

    def mult(self, a: int, b: int) -> int:
        """Intersection."""
        return a & b

    def negate(self, a: int) -> int:
        """Complement."""
        return self.one ^ a

    def equal(self, a: int, b: int) -> bool:
        """Equality of sets."""
        return a == b

    def worlds_in(self, tag: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The worlds of a tag, as their numbers in the flattened `(batch, worlds)`."""
        return from_bits(tag, self.count)

    def membership(self, tags: Sequence[int]) -> Membership:
        """Which world gives which output."""
        device = self.worlds.indices.device
        found = list(map(self.worlds_in, tags))
        world = np.concatenate([*found, np.empty(0, np.int64)])
        output = np.repeat(np.arange(len(tags)), [len(f) for f in found])
        return Membership(torch.from_numpy(world).to(device), torch.from_numpy(output).to(device))

    def readout(
        self,
        tags: Sequence[int],
        concepts: Concepts,
        values: Sequence[Hashable],
        *,
        lost: int | None = None,
        rerun: Callable[[Sampled], Sequence[int]] | None = None,
        **about: Any,
    ) -> Distribution:
        """The estimate from the worlds.

        Args:
            tags: one an output.
            concepts: the probabilities that the worlds were drawn from.
            values: what the outputs are.
            lost: the worlds that were lost.
            rerun: evaluates the rules again, over other worlds; needed by `indecater` alone.
            about: passed on to `Distribution`.
        """

        def evaluate(indices: Tensor) -> Membership:
            if rerun is None:
                raise TypeError(f"{self.estimator.name} asks for other worlds: give `rerun`")
            other = Sampled(self.widths, some_worlds(indices), self.estimator)
            return other.membership(rerun(other))

        sample = Sample(concepts, self.worlds, self.membership(tags), len(tags), evaluate)
        lost_mass = None if lost is None else mass_lost(sample, self.membership([lost]))
        return Distribution(
            values, sample=sample, estimator=self.estimator, lost=lost_mass, **about
        )


def some_worlds(indices: Int[Tensor, "batch worlds concepts"]) -> Worlds:
    """Worlds of which nothing else is asked than what they give."""
    return Worlds(indices, torch.ones(indices.shape[:2], dtype=torch.bool, device=indices.device))


def mass_lost(sample: Sample, lost: Membership) -> Tensor:
    """The share of the seen probability mass whose worlds were lost, for each example.

    Given the evidence, if there is any: `lost` are then worlds in which it holds.
    """
    seen = sample.distinct_log_weights().detach().softmax(1)
    if sample.worlds.complete:
        seen = (sample.weights() * sample.worlds.distinct).detach()
    kept = seen.flatten()[lost.world]
    if lost.share is not None:
        kept = kept * lost.share.detach()
    mass = seen.new_zeros(len(seen)).index_add(0, lost.world // seen.shape[1], kept)
    return mass / sample.sum(seen)[:, -1].detach() if sample.evidence else mass


def circuit_membership(
    circuit: Circuit, concepts: Concepts, indices: Int[Tensor, "batch worlds concepts"]
) -> Membership:
    """Which world gives which output, by a circuit: worlds are rows of its batch.

    Concepts that are sampled (index at least 0) are decided, and the others summed out.
    """
    number, distinct = number_worlds(indices, concepts.widths)
    with torch.no_grad():
        # In log space any weight above zero survives, however many concepts are summed out.
        some = concepts.probs.new_zeros(1, circuit.columns).expand(len(distinct), -1)
        possible = circuit.log_forward(some, distinct)[number] > -torch.inf
    batch, _, outputs = possible.shape  # (batch, worlds, outputs)
    entries = possible.flatten().nonzero().squeeze(1)
    share = None
    if bool((indices[:, :1] < 0).any()):
        # A row for each world that an example has seen, however often.
        example = torch.arange(batch, device=number.device)[:, None]
        pairs = example * len(distinct) + number
        seen, row = torch.unique(pairs, return_inverse=True)
        rows = circuit(concepts.probs[seen // len(distinct)], distinct[seen % len(distinct)])
        share = rows[row].flatten()[entries]
    return Membership(entries // outputs, entries % outputs, share)


def to_bits(holds: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    """A vector of Booleans as an int, the first as its lowest bit."""
    return int.from_bytes(np.packbits(holds, bitorder="little").tobytes(), "little")


def from_bits(tag: int, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The positions of the bits that are set."""
    if tag.bit_count() <= _FEW:
        found = []
        while tag:
            low = tag & -tag
            found.append(low.bit_length() - 1)
            tag ^= low
        return np.array(found, np.int64)
    packed = np.frombuffer(tag.to_bytes((count + 7) // 8, "little"), np.uint8)
    bits = np.unpackbits(packed, count=count, bitorder="little")
    return np.flatnonzero(bits.view(np.bool_))  # numpy looks Booleans up faster than bytes
