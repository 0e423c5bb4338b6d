"""`exact`: a tag is a sentential decision diagram over the concepts' literals."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from pysdd.sdd import SddNode

from byssus._sdd import Sdd
from byssus.circuit import Circuit
from byssus.distribution import Distribution
from byssus.worlds import Concepts

__all__ = ["Exact"]


class Exact(Sdd):
    """Tags are SDD nodes: the engine runs once for all examples and all steps.

    Equal tags mean the same worlds and the other way round, so recursion through cycles,
    stratified negation and aggregates are exact.

    Args:
        widths: the number of values of each concept.
        order: the order in which circuits decide on the concepts; as given if None.

    Example:
        >>> exact = Exact([2, 2])
        >>> either = exact.add(exact.literal(0, 1), exact.literal(1, 1))
        >>> probs = torch.tensor([[0.5, 0.5, 0.8, 0.2]])
        >>> exact.readout([either], Concepts(probs, (2, 2)), ["either"]).probs
        tensor([[0.6000]])
    """

    def __init__(self, widths: Sequence[int], order: Sequence[int] | None = None) -> None:
        super().__init__(widths, range(len(widths)) if order is None else order)

    def circuit(self, tags: Sequence[SddNode]) -> Circuit:
        """The circuit whose outputs are these tags; evaluate it as often as you like."""
        return Circuit(self.widths, self.decisions(tags))

    def readout(
        self,
        tags: Sequence[SddNode],
        concepts: Concepts,
        values: Sequence[Hashable],
        *,
        lost: SddNode | None = None,
        **about: Any,
    ) -> Distribution:
        """Exact probabilities, through a circuit."""
        circuit = self.circuit([*tags, self.zero if lost is None else lost]).to(
            concepts.probs.device
        )
        result = circuit(concepts.probs)
        return Distribution(values, exact=result[:, :-1], lost=result[:, -1], **about)
