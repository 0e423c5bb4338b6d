"""Provenances: what a tag is, and what its five operations and its readout are.

An engine evaluates rules over tags and need not know what they are. A provenance has two ends:
`literal` gives the tag of a concept's value, and `readout` turns the tags of the outputs into a
differentiable `Distribution`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, TypeVar

from byssus.distribution import Distribution
from byssus.formula import Algebra
from byssus.provenance.exact import Exact
from byssus.provenance.mixed import Mixed
from byssus.provenance.sampled import Sampled
from byssus.worlds import Concepts

__all__ = ["Exact", "Mixed", "Provenance", "Sampled"]

T = TypeVar("T")


class Provenance(Algebra[T], Protocol[T]):
    """An algebra of tags with a readout."""

    def readout(
        self, tags: Sequence[T], concepts: Concepts, values: Sequence[Hashable], **about: Any
    ) -> Distribution:
        """The distribution over outputs that have these tags.

        Args:
            tags: one an output.
            concepts: the probabilities of every literal.
            values: what the outputs are, one a tag.
            about: passed on to `Distribution`; `lost=` is a tag, of the worlds that were lost.
        """
