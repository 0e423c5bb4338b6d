"""Sentential decision diagrams over categorical concepts, and their multi-valued reading.

A concept of V values has V - 1 Boolean variables. An assignment means the value of the first
variable that is true, or the last value if none is: every assignment means exactly one value, so
SDDs are equal if and only if the functions are, and false if and only if no world satisfies them.
(With one variable a value, assignments that are not one-hot would break both.)

The vtree is right-linear over the concepts, each concept's variables together as a left child, so
that an SDD is a multi-valued decision diagram over the concepts, which `decisions` reads off.
Within a concept it is balanced: right-linear, the literals of V values would take V^2 nodes.

PySDD recurses down the vtree with some 50 kB of stack a level, and a stack that overflows ends the
process: operations over many concepts run on a thread with a stack of their own size.

This module imports only PySDD, so that the child process of a compilation starts fast (see
`byssus._compile`).
"""

from __future__ import annotations

import operator
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from pysdd.sdd import SddManager, SddNode, Vtree

Key = int | None
"""A node of a formula: i for node i counted from 1, -i for its negation, 0 true, None false."""

Node = tuple[str, Any]
"""("literal", (concept, value)), ("and", keys) or ("or", keys)."""


P = ParamSpec("P")
R = TypeVar("R")

_STACK = 1 << 29  # bytes, of address space: what is not used takes no memory
_SHALLOW = 64  # levels of a vtree, for which the usual stack of 8 MB is enough by far


class Decisions(NamedTuple):
    """A multi-valued decision diagram, bottom up.

    Diagram node 0 is false and 1 is true. `levels` holds, for each concept that is decided on,
    from the last in the order to the first, the concept and its nodes; a node is the tuple of its
    children, one a value. Nodes are numbered through, from 2. `roots` are node numbers.
    """

    levels: list[tuple[int, list[tuple[int, ...]]]]
    roots: list[int]


def fold(
    nodes: Sequence[Node],
    cycles: Sequence[tuple[int, int]],
    roots: Sequence[Key],
    algebra: Any,
    after: Callable[[Any], None] = lambda tag: None,
) -> list[Any]:
    """Evaluate a formula over an algebra of tags (`byssus.formula.Algebra`).

    Nodes that depend on each other, the ranges `cycles`, get their least fixpoint. `after` sees
    the result of every operation.
    """
    tags = [algebra.one] + [algebra.zero] * len(nodes)
    negations: dict[int, Any] = {}

    def tag(key: Key) -> Any:
        if key is None:
            return algebra.zero
        if key >= 0:
            return tags[key]
        if key not in negations:
            negations[key] = algebra.negate(tags[-key])
        return negations[key]

    def update(i: int) -> bool:
        kind, content = nodes[i - 1]
        if kind == "literal":
            result = algebra.literal(*content)
        elif kind == "and":
            result = algebra.one
            for key in content:
                result = algebra.mult(result, tag(key))
                after(result)
        else:
            result = algebra.zero
            for key in content:
                result = algebra.add(result, tag(key))
                after(result)
        changed = not algebra.equal(tags[i], result)
        tags[i] = result
        return changed

    i = 1
    ends = dict(cycles)
    while i <= len(nodes):
        stop = ends.get(i)
        if stop is None:
            update(i)
            i += 1
        else:
            while sum(map(update, range(i, stop))):  # any() would stop at the first
                pass
            i = stop
    return [tag(root) for root in roots]


class Sdd:
    """A PySDD manager whose variables are concepts of `widths` values, decided on in `order`."""

    def __init__(self, widths: Sequence[int], order: Sequence[int]) -> None:
        if sorted(order) != list(range(len(widths))):
            raise ValueError(f"order {order} is not a permutation of {len(widths)} concepts")
        self.widths = tuple(widths)
        # A concept of one value has no variable. PySDD fails without variables at all: a spare.
        self.order = [c for c in order if widths[c] > 1]
        self._offsets: dict[int, int] = {}
        count = 0
        for concept in self.order:
            self._offsets[concept] = count + 1
            count += widths[concept] - 1
        self._levels = len(self.order) + max(widths, default=1).bit_length()
        self.manager = SddManager.from_vtree(self._vtree(max(count, 1)))
        self._concepts = self._read_concepts()
        self.one: SddNode = self.manager.true()
        self.zero: SddNode = self.manager.false()
        self._literals: dict[tuple[int, int], SddNode] = {}
        # For each concept, by v: none of its first v variables is true.
        self._none = {concept: [self.one] for concept in self.order}

    def literal(self, concept: int, value: int) -> SddNode:
        """The SDD of: this concept has this value."""
        node = self._literals.get((concept, value))
        if node is None:
            if not (0 <= concept < len(self.widths) and 0 <= value < self.widths[concept]):
                raise ValueError(f"no value {value} in concept {concept} of {self.widths}")
            node = self.one
            if self.widths[concept] > 1:
                first = self._offsets[concept]
                none = self._none[concept]
                for variable in range(first + len(none) - 1, first + value):
                    none.append(none[-1] & self.manager.literal(-variable))
                node = none[value]
                if value < self.widths[concept] - 1:
                    node = node & self.manager.literal(first + value)
            self._literals[concept, value] = node
        return node

    def add(self, a: SddNode, b: SddNode) -> SddNode:
        """Disjunction."""
        return self._operate(operator.or_, a, b)

    def mult(self, a: SddNode, b: SddNode) -> SddNode:
        """Conjunction."""
        return self._operate(operator.and_, a, b)

    def negate(self, a: SddNode) -> SddNode:
        """Negation."""
        return self._operate(operator.invert, a)

    def equal(self, a: SddNode, b: SddNode) -> bool:
        """Equality of functions: SDDs are canonical."""
        return bool(a.id == b.id)

    def _operate(self, operation: Callable[..., SddNode], *nodes: SddNode) -> SddNode:
        if self._levels <= _SHALLOW:
            return operation(*nodes)
        return on_deep_stack(operation, *nodes)

    def decisions(self, roots: Sequence[SddNode]) -> Decisions:
        """Read SDD nodes as one multi-valued decision diagram, reduced."""
        # (concept, SDD id) -> the set of values, as bits, of a node within a concept
        values: dict[tuple[int, int], int] = {}
        numbers: dict[int, tuple[int, ...]] = {}
        unique: dict[int, dict[tuple[int, ...], tuple[int, ...]]] = {c: {} for c in self.order}
        rank = {concept: i for i, concept in enumerate(self.order)}
        # Until all are known, a diagram node is (rank, position); terminals are (-1, 0), (-1, 1).
        keep = list(roots)  # an SDD id is only unique while its node is referenced

        def bits(concept: int, node: SddNode) -> int:
            width = self.widths[concept]
            every = (1 << width) - 1
            if node.is_true():
                return every
            if node.is_false():
                return 0
            known = values.get((concept, node.id))
            if known is None:
                if node.is_literal():
                    known = 1 << (abs(node.literal) - self._offsets[concept])
                    known = known if node.literal > 0 else every & ~known
                else:
                    known = 0
                    for prime, sub in node.elements():
                        known |= bits(concept, prime) & bits(concept, sub)
                values[concept, node.id] = known
            return known

        def children(node: SddNode) -> tuple[int, list[SddNode]]:
            concept, inside = self._concepts[node.vtree().position()]
            width = self.widths[concept]
            if inside:
                mask = bits(concept, node)
                return concept, [self.one if mask >> v & 1 else self.zero for v in range(width)]
            subs = [self.zero] * width
            for prime, sub in node.elements():
                mask = bits(concept, prime)
                for v in range(width):
                    if mask >> v & 1:
                        subs[v] = sub
            return concept, subs

        numbers[self.zero.id], numbers[self.one.id] = (-1, 0), (-1, 1)
        open_: dict[int, tuple[int, list[SddNode]]] = {}
        stack = list(roots)
        while stack:
            node = stack[-1]
            if node.id in numbers:
                stack.pop()
                continue
            if node.id not in open_:
                open_[node.id] = children(node)
                keep.append(node)
                keep += open_[node.id][1]
            concept, subs = open_[node.id]
            waiting = [sub for sub in subs if sub.id not in numbers]
            if waiting:
                stack += waiting
                continue
            below = tuple(numbers[sub.id] for sub in subs)
            if len(set(below)) == 1:
                numbers[node.id] = below[0]
            else:
                table = unique[concept]
                flat = tuple(x for pair in below for x in pair)
                numbers[node.id] = table.setdefault(flat, (rank[concept], len(table)))
            stack.pop()

        starts = {-1: 0}
        start = 2
        levels = []
        for concept in reversed(self.order):
            if unique[concept]:
                starts[rank[concept]] = start
                start += len(unique[concept])
                flats = list(unique[concept])
                levels.append((concept, flats))
        numbered = [
            (c, [tuple(starts[f[i]] + f[i + 1] for i in range(0, len(f), 2)) for f in flats])
            for c, flats in levels
        ]
        return Decisions(numbered, [starts[numbers[r.id][0]] + numbers[r.id][1] for r in roots])

    def _vtree(self, count: int) -> Vtree:
        """Right-linear over concepts; each concept's variables balanced, as a left child."""
        lines: list[str] = []

        def leaf(variable: int) -> int:
            lines.append(f"L {len(lines)} {variable}")
            return len(lines) - 1

        def join(left: int, right: int) -> int:
            lines.append(f"I {len(lines)} {left} {right}")
            return len(lines) - 1

        def balanced(variables: range) -> int:
            if len(variables) == 1:
                return leaf(variables[0])
            middle = len(variables) // 2
            return join(balanced(variables[:middle]), balanced(variables[middle:]))

        blocks = []
        for concept in self.order:
            first = self._offsets[concept]
            blocks.append(balanced(range(first, first + self.widths[concept] - 1)))
        top = blocks.pop() if blocks else leaf(1)
        while blocks:
            top = join(blocks.pop(), top)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "concepts.vtree"
            file.write_text(f"vtree {len(lines)}\n" + "\n".join(lines) + "\n")
            return Vtree.from_file(str(file).encode())

    def _read_concepts(self) -> dict[int, tuple[int, bool]]:
        """For each vtree node, by position: its concept, and whether it lies within its block."""
        owner = {
            first + i: concept
            for concept, first in self._offsets.items()
            for i in range(self.widths[concept] - 1)
        }
        concepts: dict[int, tuple[int, bool]] = {}
        spine = self.manager.vtree()
        for concept in self.order[:-1]:
            concepts[spine.position()] = (concept, False)
            inside = [spine.left()]
            while inside:
                vtree = inside.pop()
                concepts[vtree.position()] = (concept, True)
                if not vtree.is_leaf():
                    inside += [vtree.left(), vtree.right()]
            spine = spine.right()
        inside = [spine]
        while inside:
            vtree = inside.pop()
            if self.order:
                concepts[vtree.position()] = (self.order[-1], True)
            if not vtree.is_leaf():
                inside += [vtree.left(), vtree.right()]
        assert all(concepts[self.manager.vtree_of_var(v).position()][0] == owner[v] for v in owner)
        return concepts


@cache
def _deep() -> ThreadPoolExecutor:
    """One thread with a large stack; started at once, while the size is set."""
    before = threading.stack_size(_STACK)
    try:
        executor = ThreadPoolExecutor(1, "byssus-sdd")
        executor.submit(int).result()
    finally:
        threading.stack_size(before)
    return executor


if hasattr(os, "register_at_fork"):  # not on Windows; a fork has no threads
    os.register_at_fork(after_in_child=_deep.cache_clear)


def on_deep_stack(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function where PySDD can recurse deeply."""
    if threading.current_thread().name.startswith("byssus-sdd"):
        return function(*args, **kwargs)
    return _deep().submit(function, *args, **kwargs).result()


def compile_formula(
    widths: Sequence[int],
    order: Sequence[int],
    nodes: Sequence[Node],
    cycles: Sequence[tuple[int, int]],
    roots: Sequence[Key],
    check: Callable[[Sdd], None] = lambda sdd: None,
) -> Decisions:
    """Compile a formula to a decision diagram.

    Args:
        widths: the number of values of each concept.
        order: the order in which to decide on them.
        nodes: the formula's nodes, and so on: see `byssus.Formula`.
        cycles: its cycles.
        roots: its roots.
        check: called after every operation; what it raises ends the compilation.
    """

    def compiled() -> Decisions:
        sdd = Sdd(widths, order)
        return sdd.decisions(fold(nodes, cycles, roots, sdd, lambda _: check(sdd)))

    return on_deep_stack(compiled)
