"""A ground program: an and-or graph over literals, which any provenance can evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from byssus._graph import strong_components
from byssus._sdd import Key, Node, fold
from byssus.errors import ByssusError, ProgramError

__all__ = ["Algebra", "Formula", "Key", "Node"]

T = TypeVar("T")


class Algebra(Protocol[T]):
    """A commutative semiring with negation over tags of type `T`: what evaluating rules needs.

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


@dataclass(frozen=True)
class Formula:
    """Rules, grounded.

    A node follows those that it names, except within a cycle: there it may name any, but none
    through a negation, and the meaning is the least fixpoint.

    Attributes:
        widths: the number of values of each concept.
        nodes: `("literal", (concept, value))`, `("and", keys)` or `("or", keys)`.
        roots: the keys of the outputs. A key is i for node i (counted from 1), -i for its
            negation, 0 for true, None for false.
        cycles: ranges `(start, stop)` of nodes that depend on one another.
    """

    widths: tuple[int, ...]
    nodes: tuple[Node, ...]
    roots: tuple[Key, ...]
    cycles: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        keys = [*self.roots]
        for kind, content in self.nodes:
            if kind in ("and", "or"):
                keys += content
            elif kind != "literal":
                raise ByssusError(f"a node of kind {kind!r}: there are 'literal', 'and' and 'or'")
            elif not (
                0 <= content[0] < len(self.widths) and 0 <= content[1] < self.widths[content[0]]
            ):
                raise ByssusError(
                    f"literal {content}: (concept, value) by position, of widths {self.widths}"
                )
        for key in keys:
            if key is not None and abs(key) > len(self.nodes):
                raise ByssusError(f"key {key} of a formula of {len(self.nodes)} nodes")

    @classmethod
    def from_graph(
        cls, widths: Sequence[int], nodes: Mapping[int, Node], roots: Sequence[Key]
    ) -> Formula:
        """Order the part of a graph that the roots need. The mapping's numbers are its own.

        Raises:
            ProgramError: a node depends on its own negation.
        """
        components = strong_components(
            lambda key: _children(nodes[key]), [abs(root) for root in roots if root]
        )
        number: dict[int, int] = {}
        cycles = []
        for component in components:
            start = len(number) + 1
            number.update((key, start + i) for i, key in enumerate(component))
            if len(component) > 1 or component[0] in map(abs, _children(nodes[component[0]])):
                cycles.append((start, start + len(component)))
                _refuse_negation(nodes, component)

        def renumber(key: Key) -> Key:
            return key if not key else number[key] if key > 0 else -number[-key]

        ordered = []
        for component in components:
            for key in component:
                kind, content = nodes[key]
                if kind != "literal":
                    content = tuple(renumber(child) for child in content)
                ordered.append((kind, content))
        return cls(
            tuple(widths), tuple(ordered), tuple(renumber(root) for root in roots), tuple(cycles)
        )

    def evaluate(self, algebra: Algebra[T]) -> list[T]:
        """The tag of each root."""
        return fold(self.nodes, self.cycles, self.roots, algebra)

    def part(self, root: Key) -> Formula:
        """The formula of one key, with the nodes that it needs."""
        return Formula.from_graph(self.widths, dict(enumerate(self.nodes, 1)), (root,))

    @property
    def concepts(self) -> set[int]:
        """The concepts of its literals."""
        return {content[0] for kind, content in self.nodes if kind == "literal"}

    def order(self) -> tuple[int, ...]:
        """The concepts by first use, depth first from the roots: those used together lie together.

        The size of a decision diagram depends on this order above all; the order in which the
        rules visit the concepts is what makes a recursion over them linear.
        """
        order: dict[int, None] = {}
        seen: set[int] = set()
        stack = [abs(root) for root in reversed(self.roots) if root]
        while stack:
            key = stack.pop()
            if key in seen:
                continue
            seen.add(key)
            kind, content = self.nodes[key - 1]
            if kind == "literal":
                order.setdefault(content[0])
            else:
                stack.extend(abs(child) for child in reversed(content) if child)
        order.update(dict.fromkeys(range(len(self.widths))))
        return tuple(order)


def _children(node: Node) -> list[int]:
    kind, content = node
    return [] if kind == "literal" else [abs(key) for key in content if key]


def _refuse_negation(nodes: Mapping[int, Node], component: Sequence[int]) -> None:
    within = set(component)
    for key in component:
        negated = [-child for child in nodes[key][1] if child and -child in within]
        if negated:
            raise ProgramError(
                f"node {key} needs the negation of node {negated[0]}, which depends on it: such a "
                "program has no least fixpoint; stratify the rules"
            )
