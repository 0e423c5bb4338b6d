"""`mixed`: a tag says for each world which SDD over the exact concepts holds there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from pysdd.sdd import SddNode
from torch import Tensor

from byssus._sdd import Sdd
from byssus.circuit import Circuit
from byssus.distribution import Distribution
from byssus.estimators import Estimator, Membership, Sample, as_estimator
from byssus.provenance.sampled import Sampled, from_bits, mass_lost, some_worlds
from byssus.worlds import Concepts, Worlds

__all__ = ["Mixed", "MixedTag"]

MixedTag = dict[int, tuple[SddNode, int]]
"""By SDD id: a node and the worlds in which it is what holds. The bitsets are disjoint; worlds in
none of them are those in which nothing does."""


class Mixed:
    """Sampled concepts choose the world, exact concepts stay symbolic (collapsed sampling).

    The result is exact given the sampled part. With no exact concept it is `Sampled`, with no
    sampled concept `Exact`.

    Args:
        widths: the number of values of each concept.
        worlds: the worlds; the indices of exact concepts are -1.
        exact: the concepts that are not sampled.
        estimator: how worlds become scores and a loss; a name or an `Estimator`.
        sdd: the diagrams to use, so that several steps share them; new ones if None.
    """

    def __init__(
        self,
        widths: Sequence[int],
        worlds: Worlds,
        exact: Collection[int],
        estimator: str | Estimator = "auto",
        sdd: Sdd | None = None,
    ) -> None:
        self.widths = tuple(widths)
        self.worlds = worlds
        self.exact = frozenset(exact)
        self.estimator = as_estimator(estimator)
        self.sdd = Sdd(self.widths, range(len(self.widths))) if sdd is None else sdd
        self._bits = Sampled(self.widths, worlds, self.estimator)
        self.zero: MixedTag = {}
        self.one = self._tag(self.sdd.one, self._bits.one)

    def literal(self, concept: int, value: int) -> MixedTag:
        """In every world the SDD literal of an exact concept, or true in some worlds."""
        if concept in self.exact:
            return self._tag(self.sdd.literal(concept, value), self._bits.one)
        return self._tag(self.sdd.one, self._bits.literal(concept, value))

    def add(self, a: MixedTag, b: MixedTag) -> MixedTag:
        """Disjunction in each world."""
        only_a = self._combine(a, self._rest(b), lambda x, _: x)
        only_b = self._combine(b, self._rest(a), lambda x, _: x)
        return _union(_union(self._combine(a, b, lambda x, y: x | y), only_a), only_b)

    def mult(self, a: MixedTag, b: MixedTag) -> MixedTag:
        """Conjunction in each world."""
        return self._combine(a, b, lambda x, y: x & y)

    def negate(self, a: MixedTag) -> MixedTag:
        """Negation in each world."""
        inverted = self._combine(a, self.one, lambda x, _: ~x)
        return _union(inverted, self._rest(a))

    def equal(self, a: MixedTag, b: MixedTag) -> bool:
        """Equality of functions in each world."""
        return {i: bits for i, (_, bits) in a.items()} == {i: bits for i, (_, bits) in b.items()}

    def worlds_in(self, tag: MixedTag) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The worlds in which anything of a tag holds, by number."""
        bits = 0
        for _, some in tag.values():
            bits |= some
        return self._bits.worlds_in(bits)

    def membership(self, tags: Sequence[MixedTag], concepts: Concepts) -> Membership:
        """Which world gives which output, and with which probability over the exact concepts."""
        nodes = {i: node for tag in tags for i, (node, _) in tag.items()}
        position = {i: p for p, i in enumerate(nodes)}
        circuit = Circuit(self.widths, self.sdd.decisions(list(nodes.values())))
        device = concepts.probs.device
        # The sampled concepts are decided; which value they have no longer matters.
        decided = torch.tensor([-1 if c in self.exact else 0 for c in range(len(self.widths))])
        values = decided.to(device).expand(len(concepts.probs), -1)
        shares = circuit.to(device)(concepts.probs, values)
        world, output, node = [], [], []
        for y, tag in enumerate(tags):
            for i, (_, bits) in tag.items():
                found = torch.from_numpy(from_bits(bits, self._bits.count))
                world.append(found)
                output.append(torch.full_like(found, y))
                node.append(torch.full_like(found, position[i]))
        none = [torch.empty(0, dtype=torch.int64)]
        worlds, outputs, which = (torch.cat(x + none).to(device) for x in (world, output, node))
        share = shares[worlds // self.worlds.distinct.shape[1], which] if nodes else None
        return Membership(worlds, outputs, share)

    def readout(
        self,
        tags: Sequence[MixedTag],
        concepts: Concepts,
        values: Sequence[Hashable],
        *,
        lost: MixedTag | None = None,
        rerun: Callable[[Mixed], Sequence[MixedTag]] | None = None,
        **about: Any,
    ) -> Distribution:
        """The estimate from the worlds; the arguments are those of `Sampled.readout`."""

        def evaluate(indices: Tensor) -> Membership:
            if rerun is None:
                raise TypeError(f"{self.estimator.name} asks for other worlds: give `rerun`")
            other = Mixed(self.widths, some_worlds(indices), self.exact, self.estimator, self.sdd)
            return other.membership(rerun(other), concepts)

        sample = Sample(concepts, self.worlds, self.membership(tags, concepts), len(tags), evaluate)
        lost_mass = None if lost is None else mass_lost(sample, self.membership([lost], concepts))
        return Distribution(
            values, sample=sample, estimator=self.estimator, lost=lost_mass, **about
        )

    def _tag(self, node: SddNode, bits: int) -> MixedTag:
        return {} if node.is_false() or not bits else {node.id: (node, bits)}

    def _rest(self, a: MixedTag) -> MixedTag:
        """True in the worlds where nothing of `a` holds."""
        bits = self._bits.one
        for _, some in a.values():
            bits &= ~some
        return self._tag(self.sdd.one, bits)

    def _combine(
        self, a: MixedTag, b: MixedTag, operation: Callable[[SddNode, SddNode], SddNode]
    ) -> MixedTag:
        """Apply an operation in the worlds that both tags speak of."""
        result: MixedTag = {}
        for x, bits_x in a.values():
            for y, bits_y in b.values():
                if common := bits_x & bits_y:
                    result = _union(result, self._tag(operation(x, y), common))
        return result


def _union(a: MixedTag, b: MixedTag) -> MixedTag:
    """Both, of disjoint worlds."""
    result = dict(a)
    for i, (node, bits) in b.items():
        result[i] = (node, bits | result[i][1]) if i in result else (node, bits)
    return result
