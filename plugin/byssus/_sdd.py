"""Sentential decision diagrams over categorical concepts, and their multi-valued reading.

A concept of V values has V - 1 Boolean variables. An assignment means the value of the first
variable that is true, or the last value if none is: every assignment means exactly one value, so
SDDs are equal if and only if the functions are, and false if and only if no world satisfies them.
(With one variable a value, assignments that are not one-hot would break both.)

Each concept's variables lie together in the vtree, as a block. Within it they are balanced:
right-linear, the literals of V values would take V^2 nodes. Above the blocks the vtree is
right-linear, each block a left child, so that an SDD is a multi-valued decision diagram over the
concepts, which `decisions` reads off; or it is any other, and `products` reads off its sums of
prime times sub.

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
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from pysdd.sdd import SddManager, SddNode, Vtree

Key = int | None
"""A node of a formula: i for node i counted from 1, -i for its negation, 0 true, None false."""

Node = tuple[str, Any]
"""("literal", (concept, value)), ("and", keys) or ("or", keys)."""

Tree = int | tuple["Tree", ...]
"""A vtree over concepts: one concept, or parts, right-linear; (0, 1, 2) is (0, (1, 2))."""

P = ParamSpec("P")
R = TypeVar("R")

_STACK = 1 << 29  # bytes, of address space: what is not used takes no memory
_SHALLOW = 64  # levels of a vtree, for which the usual stack of 8 MB is enough by far
_GAIN = 0.01  # a pass of the search for a vtree that gains less is the last
_GROWN = 2_000  # nodes, from which on it is also made while the formula compiles


class Decisions(NamedTuple):
    """A multi-valued decision diagram, bottom up.

    Diagram node 0 is false and 1 is true. `levels` holds, for each concept that is decided on,
    from the last in the order to the first, the concept and its nodes; a node is the tuple of its
    children, one a value. Nodes are numbered through, from 2. `roots` are node numbers.
    """

    levels: list[tuple[int, list[tuple[int, ...]]]]
    roots: list[int]


class Products(NamedTuple):
    """A sentential decision diagram over concepts, bottom up.

    Diagram node 0 is false and 1 is true. A leaf is a concept and those of its values, ascending,
    of which it has one. A node of `levels` is the sum of its elements, pairs (prime, sub) of node
    numbers: the product of both. Primes of a node exclude one another, and prime and sub have no
    concept in common. A level needs those before it. Nodes are numbered through, from 2: leaves,
    then levels. `roots` are node numbers.
    """

    leaves: list[tuple[int, tuple[int, ...]]]
    levels: list[list[tuple[tuple[int, int], ...]]]
    roots: list[int]


Diagram = Decisions | Products


def size(diagram: Diagram) -> int:
    """The number of nodes."""
    if isinstance(diagram, Decisions):
        return sum(len(nodes) for _, nodes in diagram.levels)
    return len(diagram.leaves) + sum(map(len, diagram.levels))


def well_formed(widths: Sequence[int], diagram: Diagram) -> bool:
    """Whether a diagram that was read from somewhere has the structure of its kind.

    That primes exclude one another is not checked. Lists may stand for tuples.
    """
    try:
        if isinstance(diagram, Decisions):
            number = _check_decisions(widths, diagram)
        else:
            number = _check_products(widths, diagram)
        return all(type(root) is int and 0 <= root < number for root in diagram.roots)
    except (TypeError, ValueError, IndexError, KeyError):
        return False


def _check_decisions(widths: Sequence[int], decisions: Decisions) -> int:
    """The number of its nodes."""
    number = 2
    seen = set()
    for concept, nodes in decisions.levels:
        if concept in seen or type(concept) is not int or not 0 <= concept < len(widths):
            raise ValueError(concept)
        seen.add(concept)
        for node in nodes:
            if len(node) != widths[concept] or not all(
                type(child) is int and 0 <= child < number for child in node
            ):
                raise ValueError(node)
        number += len(nodes)
    return number


def _check_products(widths: Sequence[int], products: Products) -> int:
    """The number of its nodes."""
    scopes = [0, 0]  # the concepts of each node, as bits
    for concept, values in products.leaves:
        if type(concept) is not int or concept < 0 or not values:
            raise ValueError(concept)
        if not all(type(v) is int and 0 <= v < widths[concept] for v in values):
            raise ValueError(values)
        if any(a >= b for a, b in pairwise(values)):
            raise ValueError(values)
        scopes.append(1 << concept)
    for level in products.levels:
        above = []
        for node in level:
            scope = 0
            for prime, sub in node:
                if type(prime) is not int or type(sub) is not int or min(prime, sub) < 0:
                    raise ValueError(node)
                if scopes[prime] & scopes[sub]:
                    raise ValueError(node)
                scope |= scopes[prime] | scopes[sub]
            if not scope:
                raise ValueError(node)
            above.append(scope)
        scopes += above
    return len(scopes)


def fold(
    nodes: Sequence[Node],
    cycles: Sequence[tuple[int, int]],
    roots: Sequence[Key],
    algebra: Any,
    after: Callable[[int], None] = lambda number: None,
) -> list[Any]:
    """Evaluate a formula over an algebra of tags (`byssus.formula.Algebra`).

    Nodes that depend on each other, the ranges `cycles`, get their least fixpoint. `after` is
    called after every operation, with the number of the node that it was for.
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
                after(i)
        else:
            result = algebra.zero
            for key in content:
                result = algebra.add(result, tag(key))
                after(i)
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


def leaves(tree: Tree) -> list[int]:
    """The concepts of a vtree, from left to right."""
    return [tree] if isinstance(tree, int) else [c for part in tree for c in leaves(part)]


class Sdd:
    """A PySDD manager whose variables are concepts of `widths` values.

    Args:
        widths: the number of values of each concept.
        vtree: over all concepts. A plain sequence of them is the order in which diagrams decide
            on them.
    """

    def __init__(self, widths: Sequence[int], vtree: Sequence[Tree]) -> None:
        order = leaves(tuple(vtree))
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
        self.manager = SddManager.from_vtree(self._vtree(tuple(vtree)))
        self._owner = {
            first + i: concept
            for concept, first in self._offsets.items()
            for i in range(widths[concept] - 1)
        }
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
        bits = partial(self._bits, values)
        rank = {concept: i for i, concept in enumerate(self.order)}
        # Until all are known, a diagram node is (rank, position); terminals are (-1, 0), (-1, 1).
        keep = list(roots)  # an SDD id is only unique while its node is referenced

        def children(node: SddNode) -> tuple[int, list[SddNode]]:
            concept, inside = self._concepts[node.vtree().position()]
            assert concept is not None  # the vtree is right-linear
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

    def products(self, roots: Sequence[SddNode]) -> Products:
        """Read SDD nodes as one diagram of sums and products."""
        values: dict[tuple[int, int], int] = {}
        bottom: dict[tuple[int, int], tuple[int, int]] = {}  # (concept, bits) -> its number
        # Until all are known, a node's number is (level, position); terminals are (-1, 0), (-1, 1).
        numbers = {self.zero.id: (-1, 0), self.one.id: (-1, 1)}
        above: list[list[list[tuple[tuple[int, int], tuple[int, int]]]]] = []
        keep = list(roots)  # an SDD id is only unique while its node is referenced
        open_: dict[int, list[tuple[SddNode, SddNode]]] = {}
        stack = list(roots)
        while stack:
            node = stack[-1]
            if node.id in numbers:
                stack.pop()
                continue
            concept, inside = self._concepts[node.vtree().position()]
            if inside and concept is not None:
                leaf = (concept, self._bits(values, concept, node))
                numbers[node.id] = bottom.setdefault(leaf, (0, len(bottom)))
                keep.append(stack.pop())
                continue
            if node.id not in open_:
                open_[node.id] = [pair for pair in node.elements() if not pair[1].is_false()]
                keep.append(node)
                keep += [part for pair in open_[node.id] for part in pair]
            elements = open_[node.id]
            waiting = [part for pair in elements for part in pair if part.id not in numbers]
            if waiting:
                stack += waiting
                continue
            below = [(numbers[prime.id], numbers[sub.id]) for prime, sub in elements]
            level = max(0, *(part[0] for pair in below for part in pair))
            if level == len(above):
                above.append([])
            numbers[node.id] = (level + 1, len(above[level]))
            above[level].append(below)
            stack.pop()

        # Nodes of about the same number of elements lie together: they are evaluated together.
        final = {(-1, 0): 0, (-1, 1): 1}
        for position in range(len(bottom)):
            final[0, position] = len(final)
        levels = []
        for i, nodes in enumerate(above, 1):
            ranked = sorted(range(len(nodes)), key=lambda n: len(nodes[n]))
            levels.append(
                [tuple(sorted((final[p], final[s]) for p, s in nodes[n])) for n in ranked]
            )
            for n in ranked:
                final[i, n] = len(final)
        spread = [
            (c, tuple(v for v in range(self.widths[c]) if mask >> v & 1)) for c, mask in bottom
        ]
        return Products(spread, levels, [final[numbers[root.id]] for root in roots])

    def read(self, roots: Sequence[SddNode]) -> Diagram:
        """Read SDD nodes as the diagram that evaluates fastest."""
        linear = all(concept is not None for concept, _ in self._concepts.values())
        return self.decisions(roots) if linear else self.products(roots)

    def _bits(self, values: dict[tuple[int, int], int], concept: int, node: SddNode) -> int:
        """The values of a concept that a node within its block stands for, as bits."""
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
                    known |= self._bits(values, concept, prime) & self._bits(values, concept, sub)
            values[concept, node.id] = known
        return known

    def minimize(self, proceed: Callable[[], bool]) -> None:
        """Look for a vtree on which the diagrams that are held are smaller.

        Local search, as in PySDD's own, over the nodes above the concepts' blocks only: passes
        over them, in each the best of the twelve arrangements of three subtrees around every pair
        of parent and child, until a pass gains little.

        Args:
            proceed: whether to go on; asked again and again.
        """
        self.manager.garbage_collect()  # vtree operations need a manager without dead nodes
        before, size = float("inf"), self.manager.live_size()
        while size < (1 - _GAIN) * before and proceed():
            before = size
            for root in self._above():
                for right in (True, False):
                    child = root.right() if right else root.left()
                    if proceed() and self._is_above(child):
                        root = self._rearrange(root, child, proceed)
            size = self.manager.live_size()
        self._concepts = self._read_concepts()

    def _rearrange(self, root: Vtree, child: Vtree, proceed: Callable[[], bool]) -> Vtree:
        """Move to the best arrangement of the subtrees of a node and its child; the new root."""
        manager = self.manager

        def move(step: int, limited: int) -> bool:
            # Rotating and swapping the child's parts in turn leads through all twelve and back;
            # either is its own inverse.
            nonlocal root, child
            if step % 2:
                return bool(child.swap(manager, limited))
            rotates_right = root.left() == child
            moved = (
                root.rotate_right(manager, limited)
                if rotates_right
                else child.rotate_left(manager, limited)
            )
            if moved:
                root, child = child, root
            return bool(moved)

        manager.init_vtree_size_limit(manager.vtree())
        best = manager.live_size()
        for first in (0, 1):  # one way round, and where an operation grows too large, the other
            done = at = 0
            while done < 11 and proceed() and move(first + done, 1):
                done += 1
                size = manager.live_size()
                if size < best:
                    best, at = size, done
            complete = done == 11
            while done > at:
                done -= 1
                move(first + done, 0)
            if at or complete:
                break
        return root

    def _concept(self, vtree: Vtree) -> int:
        """The concept of the first variable below a vtree node."""
        while not vtree.is_leaf():
            vtree = vtree.left()
        return self._owner[vtree.var()]

    def _is_above(self, vtree: Vtree) -> bool:
        """Whether a vtree node is above the blocks."""
        return bool(vtree.var_count() >= self.widths[self._concept(vtree)])

    def _above(self) -> list[Vtree]:
        """The vtree nodes above the blocks, each after those below it."""
        found = []
        stack = [self.manager.vtree()] if self.order else []
        while stack:
            vtree = stack.pop()
            if self._is_above(vtree):
                found.append(vtree)
                stack += [vtree.left(), vtree.right()]
        return found[::-1]

    def _vtree(self, tree: Tree) -> Vtree:
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

        def node(tree: Tree) -> int | None:
            if isinstance(tree, int):
                if self.widths[tree] == 1:
                    return None
                first = self._offsets[tree]
                return balanced(range(first, first + self.widths[tree] - 1))
            parts = [part for part in map(node, tree) if part is not None]
            if not parts:
                return None
            top = parts.pop()
            while parts:
                top = join(parts.pop(), top)
            return top

        if node(tree) is None:
            leaf(1)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "concepts.vtree"
            file.write_text(f"vtree {len(lines)}\n" + "\n".join(lines) + "\n")
            return Vtree.from_file(str(file).encode())

    def _read_concepts(self) -> dict[int, tuple[int | None, bool]]:
        """For each vtree node, by position: its concept, and whether it lies within its block.

        The concept of a node above the blocks is that of the block which is its left child, or
        None. Puts `order` right.
        """
        concepts: dict[int, tuple[int | None, bool]] = {}
        stack = [self.manager.vtree()] if self.order else []
        self.order = []
        while stack:
            vtree = stack.pop()
            concept = self._concept(vtree)
            if self._is_above(vtree):
                left = vtree.left()
                block = None if self._is_above(left) else concept
                concepts[vtree.position()] = (block, False)
                stack += [vtree.right(), left]
                continue
            self.order.append(concept)
            inside = [vtree]
            while inside:
                vtree = inside.pop()
                concepts[vtree.position()] = (concept, True)
                if not vtree.is_leaf():
                    inside += [vtree.left(), vtree.right()]
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
    vtree: Tree | None = None,
    minimize: float = 0.0,
    check: Callable[[Sdd, int], None] = lambda sdd, number: None,
) -> Diagram:
    """Compile a formula to a diagram.

    Args:
        widths: the number of values of each concept.
        order: the order in which to decide on them.
        nodes: the formula's nodes, and so on: see `byssus.Formula`.
        cycles: its cycles.
        roots: its roots.
        vtree: over the concepts; right-linear, in their order, if None.
        minimize: seconds to look for better vtrees, when the diagrams have grown and in the end.
        check: called after every operation, with the number of the formula's node that it was
            for; what it raises ends the compilation.
    """

    def compiled() -> Diagram:
        sdd = Sdd(widths, order if vtree is None else (vtree,))
        grown, left = _GROWN, minimize

        def search() -> None:
            nonlocal grown, left
            if left > 0:
                started = time.monotonic()
                sdd.minimize(lambda: time.monotonic() - started < left)
                left -= time.monotonic() - started
                grown = max(_GROWN, 2 * sdd.manager.live_count())

        def after(number: int) -> None:
            if sdd.manager.live_count() > grown:
                search()
            check(sdd, number)

        tags = fold(nodes, cycles, roots, sdd, after if minimize else partial(check, sdd))
        search()
        return sdd.read(tags)

    return on_deep_stack(compiled)
