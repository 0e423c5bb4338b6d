"""Provenances: what a tag is, and what its five operations and its readout are.

An engine evaluates rules over tags and need not know what they are. A provenance has two ends:
`literal` gives the tag of a concept's value, and `readout` turns the tags of the outputs into a
differentiable `Distribution`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, TypeVar

from byssus.distribution import Distribution
from byssus.provenance.exact import Exact
from byssus.provenance.mixed import Mixed
from byssus.provenance.sampled import Sampled
from byssus.worlds import Concepts

__all__ = ["Exact", "Mixed", "Provenance", "Sampled"]

T = TypeVar("T")


class Provenance(Protocol[T]):
    """A commutative semiring with negation over tags of type `T`, and its two ends.

    Attributes:
        zero: the tag of what holds in no world.
        one: the tag of what holds in every world.
    """

    zero: T
    one: T

    def literal(self, concept: int, value: int) -> T:
        """The tag of: this concept has this value (both by position)."""

    def add(self, a: T, b: T) -> T:
        """The tag of: either holds."""

    def mult(self, a: T, b: T) -> T:
        """The tag of: both hold."""

    def negate(self, a: T) -> T:
        """The tag of: it does not hold."""

    def equal(self, a: T, b: T) -> bool:
        """Whether two tags mean the same worlds; a fixpoint is reached when they do."""

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
