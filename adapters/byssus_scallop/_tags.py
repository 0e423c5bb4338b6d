"""byssus's provenances for the engine: grounding into a formula, sampled worlds, and both mixed."""

from __future__ import annotations

import operator
import time
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from byssus import Circuit, CompilationLimit, Formula, Mixed, Sampled
from byssus._sdd import Sdd
from byssus.formula import Key, Node
from byssus.provenance.mixed import MixedTag
from byssus.provenance.sampled import from_bits

from ._algebra import Row, Tags
from ._concepts import Block, ConceptTable, sums_to_one

__all__ = ["Ground", "MixedTags", "SampledTags"]

T = TypeVar("T")

_ROUNDING = 1e-6
_IMPLIED = 64
"""Of so many literals it is remembered that a conjunction implies them, to see contradictions."""


class _Uncertain(Tags[T]):
    """Tags over the concepts of a table, which grows as evaluation comes upon facts."""

    def __init__(self, table: ConceptTable) -> None:
        self.table = table

    def literal(self, concept: int, value: int) -> T:
        """The tag of: this concept has this value."""
        raise NotImplementedError

    def fact(self, key: Hashable, probability: Any, group: Hashable | None = None) -> T:
        if probability is True:
            return self.one
        if probability is False:
            return self.zero
        found = self.table.literal(key)
        if found is None:
            self.table.append(Block((key,)), [probability])
            found = self.table.literal(key)
            assert found is not None
        return self.literal(*found)

    def alternatives(self, key: Hashable, probabilities: Sequence[Any]) -> Sequence[T]:
        return self._exclusive(key, probabilities, sums_to_one(probabilities, _ROUNDING))

    def choices(self, key: Hashable, count: int) -> Sequence[T]:
        return self._exclusive(key, [1.0 / count] * count, True)

    def _exclusive(
        self, key: Hashable, probabilities: Sequence[Any], complete: bool
    ) -> Sequence[T]:
        keys = [(key, i) for i in range(len(probabilities))]
        if self.table.literal(keys[0]) is None:
            self.table.append(Block(tuple(keys), True, complete), probabilities)
        return [self.fact(k, p) for k, p in zip(keys, probabilities, strict=True)]


class Ground(_Uncertain[Key]):
    """A tag is a node of the ground program, which becomes a formula: exact, however often read.

    A tuple of a recursive relation is a node that further derivations are added to, so every
    instance of a rule is found once; what cycles mean is settled when the formula is evaluated.

    Args:
        table: the concepts.
        nodes: the most nodes; more raises `CompilationLimit`.
        seconds: the most seconds from now on; the same.
        concepts: the probabilities of one example, for aggregators that rank facts.
    """

    zero, one = None, 0

    def __init__(
        self,
        table: ConceptTable,
        nodes: int | None = None,
        seconds: float | None = None,
        concepts: Any = None,
    ) -> None:
        super().__init__(table)
        self.nodes: dict[int, tuple[str, Any]] = {}
        self._known: dict[tuple[str, Any], int] = {}
        # For each node the values that concepts may still have where it holds, one bit each.
        self._implied: dict[int, dict[int, int]] = {0: {}}
        self._most = nodes
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._concepts = concepts
        self._sdd: Sdd | None = None
        self._diagrams: dict[int, Any] = {}

    def literal(self, concept: int, value: int) -> Key:
        width = self.table.widths[concept]
        if width == 1:
            return 0
        # The first value of two is the negation of the second: they contradict each other.
        value_of = 1 if width == 2 else value
        positive = self._node("literal", (concept, value_of))
        bit = 1 << value_of
        self._implied[positive], self._implied[-positive] = (
            {concept: bit},
            {concept: (1 << width) - 1 ^ bit},
        )
        return positive if value or width > 2 else -positive

    def mult(self, a: Key, b: Key) -> Key:
        if a is None or b is None or a == -b != 0:
            return None
        if a == 0 or a == b:
            return b
        if b == 0:
            return a
        x, y = self._implications(a), self._implications(b)
        if len(x) > len(y):
            x, y = y, x
        for concept, values in x.items():
            if not y.get(concept, values) & values:
                return None
        key = self._node("and", (a, b) if a < b else (b, a))
        if key not in self._implied:
            implied = _met(x, y)
            if len(implied) > _IMPLIED:  # settled ones tell most
                implied = {c: values for c, values in implied.items() if not values & values - 1}
            if len(implied) <= _IMPLIED:
                self._implied[key] = implied
        return key

    def add(self, a: Key, b: Key) -> Key:
        return self.sum([a, b])

    def sum(self, tags: Sequence[Key]) -> Key:
        distinct = {tag: None for tag in tags if tag is not None}
        if not distinct:
            return None
        if 0 in distinct or any(-tag in distinct for tag in distinct):
            return 0
        if len(distinct) == 1:
            return next(iter(distinct))
        return self._node("or", tuple(distinct))

    def negate(self, a: Key) -> Key:
        return 0 if a is None else None if a == 0 else -a

    def insert(self, old: Key, tags: Sequence[Key], recursive: bool) -> tuple[Key, bool]:
        if not recursive:
            new = self.sum(tags if old is None else [old, *tags])
            return new, old is None or new != old
        if old == 0:
            return 0, False
        some = {tag: None for tag in tags if tag is not None}
        if old is None:
            if not some:
                return None, True
            if 0 in some:
                return 0, True
            key = len(self.nodes) + 1
            self.nodes[key] = ("or", some)
            self._check()
            return key, True
        # It was given this node when it was new; `possible` tuples only are kept.
        self.nodes[old][1].update(some)
        return old, False

    def equal(self, a: Key, b: Key) -> bool:
        """Whether two nodes mean the same worlds, however they were derived."""
        return a == b or self._diagram(a).id == self._diagram(b).id

    def possible(self, tag: Key) -> bool:
        return tag is not None

    def certain(self, tag: Key) -> bool:
        return tag == 0

    def weight(self, tag: Key) -> Any:
        concepts = None if self._concepts is None else self._concepts()
        if concepts is None or len(concepts.probs) != 1:
            raise CompilationLimit(
                "`top` and `categorical` rank facts by their probabilities, which differ between "
                "the examples of a batch: run them on single examples, or under provenance "
                "'sampled'"
            )
        return Circuit.compile(self.formula([tag]))(concepts.probs)[0, 0]

    def formula(self, roots: Sequence[Key]) -> Formula:
        """The ground program of these tags."""
        nodes: dict[int, Node] = {
            key: (kind, tuple(content)) for key, (kind, content) in self.nodes.items()
        }
        return Formula.from_graph(self.table.widths, nodes, list(roots))

    def _diagram(self, key: Key) -> Any:
        """The decision diagram of a node, which is the same for nodes that mean the same."""
        if self._sdd is None or len(self._sdd.widths) < len(self.table.widths):
            self._sdd = Sdd(self.table.widths, range(len(self.table.widths)))
            self._diagrams = {0: self._sdd.one}
        sdd, found = self._sdd, self._diagrams
        if key is None:
            return sdd.zero
        stack = [abs(key)]
        while stack:
            one = stack[-1]
            if one in found:
                stack.pop()
                continue
            kind, content = self.nodes[one]
            children = () if kind == "literal" else content
            waiting = [abs(child) for child in children if abs(child) not in found]
            if waiting:
                stack += waiting
                continue
            if kind == "literal":
                node = sdd.literal(*content)
            else:
                node = sdd.one if kind == "and" else sdd.zero
                for child in children:
                    part = sdd.negate(found[-child]) if child < 0 else found[child]
                    node = sdd.mult(node, part) if kind == "and" else sdd.add(node, part)
            found[one] = node
            self._afford(sdd.manager.count())
        return sdd.negate(found[-key]) if key < 0 else found[key]

    def _implications(self, key: int) -> dict[int, int]:
        """The values that a node leaves to concepts, as far as is remembered."""
        if key < 0 and key not in self._implied:
            kind, content = self.nodes[-key]
            found: dict[int, int] = {}
            if kind == "or" and len(content) <= _IMPLIED:
                for one in content:
                    found = _met(found, self._implied.get(-one, {}))
            self._implied[key] = found
        return self._implied.get(key, {})

    def _node(self, kind: str, content: Any) -> int:
        key = self._known.get((kind, content))
        if key is None:
            key = self._known[kind, content] = len(self.nodes) + 1
            self.nodes[key] = (kind, content)
            self._check()
        return key

    def _check(self) -> None:
        count = len(self.nodes)
        self._afford(count, late=not count % 1024)

    def _afford(self, count: int, late: bool = True) -> None:
        if self._most is not None and count > self._most:
            raise CompilationLimit(
                f"the ground program has more than {self._most} nodes: sample, or raise `nodes`"
            )
        if late and self._deadline is not None and time.monotonic() > self._deadline:
            raise CompilationLimit("grounding has used up its seconds: sample, or raise `seconds`")


def _met(x: dict[int, int], y: dict[int, int]) -> dict[int, int]:
    """The values that both leave to concepts."""
    return {**x, **{concept: x.get(concept, values) & values for concept, values in y.items()}}


class _Worlds(_Uncertain[T]):
    """Tags over sampled worlds.

    Attributes:
        incomplete: whether a fact came up whose concept had not been drawn; it then counted as
            certain, and the run has to be repeated over worlds that have the concept.
        met: the concepts that evaluation came upon.
    """

    joins = True

    def __init__(self, table: ConceptTable, drawn: int) -> None:
        super().__init__(table)
        self.incomplete = False
        self.met: set[int] = set()
        self._drawn = drawn

    def _is_drawn(self, concept: int) -> bool:
        if concept >= self.table.start:
            self.met.add(concept)
        if concept < self._drawn:
            return True
        self.incomplete = True
        return False

    def worlds_of(self, tag: T) -> int:
        """The worlds in which it may hold, as a bitset."""
        raise NotImplementedError

    def join(
        self, tag: T, table: Any, columns: tuple[int, ...], key: Any, rows: Collection[Row]
    ) -> Collection[Row]:
        # Looking a world up pays where the tag has fewer worlds than there are rows.
        worlds = self.worlds_of(tag)
        if worlds.bit_count() * 2 > len(rows):
            return rows
        if table.worlds is None:
            table.worlds = defaultdict(list)
            for row, other in table.rows.items():
                bits = self.worlds_of(other)
                for world in from_bits(bits, bits.bit_length()).tolist():
                    table.worlds[world].append(row)
        found: dict[Row, None] = {}
        for world in from_bits(worlds, worlds.bit_length()).tolist():
            found.update(dict.fromkeys(table.worlds.get(world, ())))
        if not columns:
            return found
        if len(columns) == 1:
            return [row for row in found if row[columns[0]] == key]
        return [row for row in found if tuple([row[i] for i in columns]) == key]


class SampledTags(_Worlds[int]):
    """A tag is a bitset over the worlds of the batch."""

    mult_source = "{0} & {1}"
    possible_source = "{0}"

    def __init__(self, table: ConceptTable, sampled: Sampled) -> None:
        super().__init__(table, len(sampled.widths))
        self.sampled = sampled
        self.zero, self.one = sampled.zero, sampled.one

    def literal(self, concept: int, value: int) -> int:
        return self.sampled.literal(concept, value) if self._is_drawn(concept) else self.one

    # Of C, as each is called for every tuple that is derived.
    add = staticmethod(operator.or_)  # type: ignore[assignment]
    mult = staticmethod(operator.and_)  # type: ignore[assignment]
    possible = staticmethod(operator.truth)  # type: ignore[assignment]

    def negate(self, a: int) -> int:
        return self.one ^ a

    def equal(self, a: int, b: int) -> bool:
        return a == b

    def worlds_of(self, tag: int) -> int:
        return tag

    def weight(self, tag: int) -> float:
        return tag.bit_count() / self.one.bit_count()

    def contents(
        self, tables: Sequence[Mapping[Row, int]], limit: int | None
    ) -> list[tuple[tuple[tuple[Row, ...], ...], int]] | None:
        entries = [
            (i, row, tag)
            for i, table in enumerate(tables)
            for row, tag in sorted(table.items(), key=lambda entry: entry[0])
        ]
        count = self.sampled.count
        held = np.zeros((len(entries), count), np.bool_)
        for number, (_, _, tag) in enumerate(entries):
            held[number, from_bits(tag, count)] = True
        patterns = np.packbits(held, axis=0).T
        worlds: dict[bytes, list[int]] = defaultdict(list)
        for world in range(count):
            worlds[patterns[world].tobytes()].append(world)
        if limit is not None and len(worlds) > limit:
            return None
        # The entries of each world, one world after the other.
        held_by = np.nonzero(held.T)[1].tolist()
        ends = np.cumsum(held.sum(0)).tolist()
        found = []
        for some in worlds.values():
            content: list[list[Row]] = [[] for _ in tables]
            first = some[0]
            for entry in held_by[ends[first - 1] if first else 0 : ends[first]]:
                i, row, _ = entries[entry]
                content[i].append(row)
            found.append((tuple(map(tuple, content)), sum(1 << world for world in some)))
        return found


class MixedTags(_Worlds[MixedTag]):
    """A tag says for each world which diagram over the exact concepts holds there."""

    def __init__(self, table: ConceptTable, mixed: Mixed) -> None:
        super().__init__(table, len(mixed.widths))
        self.mixed = mixed
        self.zero, self.one = mixed.zero, mixed.one

    def literal(self, concept: int, value: int) -> MixedTag:
        return self.mixed.literal(concept, value) if self._is_drawn(concept) else self.one

    def add(self, a: MixedTag, b: MixedTag) -> MixedTag:
        return self.mixed.add(a, b)

    def mult(self, a: MixedTag, b: MixedTag) -> MixedTag:
        if a is self.one:
            return b
        return a if b is self.one else self.mixed.mult(a, b)

    def negate(self, a: MixedTag) -> MixedTag:
        return self.mixed.negate(a)

    def equal(self, a: MixedTag, b: MixedTag) -> bool:
        return self.mixed.equal(a, b)

    def possible(self, tag: MixedTag) -> bool:
        return bool(tag)

    def worlds_of(self, tag: MixedTag) -> int:
        bits = 0
        for _, some in tag.values():
            bits |= some
        return bits
