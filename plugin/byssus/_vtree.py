"""Vtrees: which concepts lie together, found from the structure of a formula.

The size of a diagram depends on its vtree above all. Concepts that occur together below a small
node of the formula should lie together: such a node's concepts are an edge of a hypergraph, and an
order of the concepts in which the edges are short, or a tree in which they are cut late, makes for
small diagrams.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from byssus import _compile
from byssus._sdd import Diagram, Tree, leaves, size
from byssus.errors import ByssusError, CompilationLimit, listed
from byssus.formula import Formula
from byssus.store import Stored

NAMES = ("auto", "program", "grouped", "balanced", "minimized")

_LARGE = 64  # a node of more concepts says little about which of them belong together
_NODES = 200_000  # of a formula, that are looked at
_TOTAL = 20_000  # concepts in all edges together, so that the search for an order takes seconds
_SMALL = 8  # of no more concepts are the edges along which a walk goes
_PATIENCE = 5  # rounds that an order need not get better
_MINIMIZED = 0.3  # of the time that is left, for each vtree that the search may start from


def hyperedges(formula: Formula) -> list[tuple[int, ...]]:
    """The sets of concepts, of two and more, that occur together below a node of the formula.

    The smallest of them, and those of the lowest nodes, if there are many. Below a node of a cycle
    is what it and its children in the cycle name outside of it.
    """
    nodes = formula.nodes[:_NODES]
    scopes: list[frozenset[int] | None] = [frozenset()]  # None: too many
    knots = [range(start, min(stop, len(nodes) + 1)) for start, stop in formula.cycles]
    knot_of = {number: knot for knot in knots for number in knot}

    def union(numbers: Iterable[int]) -> frozenset[int] | None:
        result: set[int] = set()
        for number in numbers:
            below = scopes[number]
            if below is None or len(result | below) > _LARGE:
                return None
            result |= below
        return frozenset(result)

    for number, (kind, content) in enumerate(nodes, 1):
        if kind == "literal":
            scopes.append(frozenset(content[:1]))
        else:
            knot = knot_of.get(number, ())
            scopes.append(union(abs(key) for key in content if key and abs(key) not in knot))
    found = dict.fromkeys(scopes)
    for number, knot in knot_of.items():
        inside = [key for key in nodes[number - 1][1] if key in knot]
        found[union([number, *inside])] = None
    ranked = sorted((scope for scope in found if scope is not None and len(scope) > 1), key=len)
    ends = accumulate(map(len, ranked))
    return [tuple(sorted(s)) for s, end in zip(ranked, ends, strict=True) if end <= _TOTAL]


def group(order: Sequence[int], edges: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """An order in which the edges are short, found from this one and from two walks."""
    adjacent: dict[int, set[int]] = {concept: set() for concept in order}
    for edge in edges:
        if len(edge) <= _SMALL:
            for concept in edge:
                adjacent[concept].update(edge)
    starts = [
        tuple(order),
        _walk(order, adjacent, deque.popleft),
        _walk(order, adjacent, deque.pop),
    ]
    return min((_shorten(start, edges) for start in starts), key=lambda o: _length(o, edges))


def _walk(
    order: Sequence[int],
    adjacent: Mapping[int, Collection[int]],
    take: Callable[[deque[int]], int],
) -> tuple[int, ...]:
    """All concepts, from one at the rim of the graph, breadth first or depth first."""

    def reach(start: int, seen: dict[int, None], take: Callable[[deque[int]], int]) -> None:
        waiting = deque([start])
        while waiting:
            concept = take(waiting)
            if concept not in seen:
                seen[concept] = None
                near = sorted(adjacent[concept], key=lambda c: (len(adjacent[c]), c))
                waiting.extend(near if take is deque.popleft else reversed(near))

    found: dict[int, None] = {}
    for concept in order:
        if concept not in found:
            component: dict[int, None] = {}
            reach(concept, component, deque.popleft)
            reach(next(reversed(component)), found, take)
    return tuple(found)


def _shorten(order: tuple[int, ...], edges: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Move every concept to the middle of its edges, again and again, while these get shorter.

    This is the FORCE heuristic of Aloul, Markov and Sakallah (2003): a concept is put at the mean
    of the centres of its edges, and those are then found anew.
    """
    edges_of: dict[int, list[int]] = {concept: [] for concept in order}
    for i, edge in enumerate(edges):
        for concept in edge:
            edges_of[concept].append(i)
    best, length, patience = order, _length(order, edges), _PATIENCE
    for _ in range(4 * len(order).bit_length()):
        place = {concept: i for i, concept in enumerate(order)}
        centres = [sum(place[concept] for concept in edge) / len(edge) for edge in edges]
        goals = {
            concept: sum(centres[i] for i in own) / len(own) if own else place[concept]
            for concept, own in edges_of.items()
        }
        order = tuple(sorted(order, key=lambda concept: (goals[concept], place[concept])))
        shorter = _length(order, edges)
        patience -= 1
        if shorter < length:
            best, length, patience = order, shorter, _PATIENCE
        if not patience:
            break
    return best


def _length(order: Sequence[int], edges: Sequence[Sequence[int]]) -> int:
    place = {concept: i for i, concept in enumerate(order)}
    spans = ([place[concept] for concept in edge] for edge in edges)
    return sum(max(span) - min(span) for span in spans)


def bisect(order: Sequence[int], edges: Sequence[Sequence[int]]) -> Tree:
    """A tree of logarithmic depth: the order is cut where fewest edges cross, again and again.

    A cut is made in the middle third.
    """
    if len(order) <= 2:
        return order[0] if len(order) == 1 else tuple(order)
    place = {concept: i for i, concept in enumerate(order)}
    crossing = [0] * (len(order) + 1)
    inside = []
    for edge in edges:
        found = [place[concept] for concept in edge if concept in place]
        if len(found) > 1:
            inside.append(edge)
            crossing[min(found) + 1] += 1
            crossing[max(found) + 1] -= 1
    for i in range(1, len(crossing)):
        crossing[i] += crossing[i - 1]
    middle = len(order) / 2
    low = (len(order) + 2) // 3
    cut = min(range(low, len(order) - low + 1), key=lambda i: (crossing[i], abs(i - middle)))
    return bisect(order[:cut], inside), bisect(order[cut:], inside)


def check(formula: Formula, vtree: str, order: Sequence[int] | None) -> None:
    """Raise an error where these are not what `Circuit.compile` takes."""
    if vtree not in NAMES:
        raise ByssusError(f"vtree={vtree!r}: there are {listed(NAMES)}")
    concepts = range(len(formula.widths))
    if order is not None and sorted(order) != list(concepts):
        raise ByssusError(f"order={tuple(order)}: give each of the {len(concepts)} concepts once")


def compile_formula(
    formula: Formula,
    vtree: str,
    order: Sequence[int] | None,
    *,
    seconds: float | None,
    **budget: Any,
) -> Stored:
    """Compile a formula on a vtree of this name; the arguments are those of `Circuit.compile`."""
    deadline = None if seconds is None else time.monotonic() + seconds

    def attempt(
        tree: tuple[Tree, ...], share: float | None = 1.0, minimize: float = 0.0
    ) -> Diagram:
        left = seconds  # all of it
        if deadline is not None and share is not None:
            left = share * max(0.0, deadline - time.monotonic())
        linear = all(isinstance(part, int) for part in tree)
        return _compile.compile_formula(
            formula,
            tuple(leaves(tree)),
            vtree=None if linear else tree,
            minimize=minimize,
            seconds=left,
            **budget,
        )

    sizes: dict[str, int | None] = {}
    limits: dict[str, CompilationLimit] = {}
    found: dict[str, Diagram] = {}
    trees: dict[str, tuple[Tree, ...]] = {}
    for name, tree in _candidates(formula, order):
        known = tree in trees.values()
        trees[name] = tree
        if name != vtree and (known or vtree not in ("auto", "minimized")):
            continue
        share = _MINIMIZED if vtree == "minimized" else 1.0 if name == "balanced" else 0.5
        try:
            diagram = attempt(tree, None if name == vtree else share)
        except CompilationLimit as limit:
            if name == vtree:
                raise
            sizes[name], limits[name] = None, limit
            continue
        sizes[name] = size(diagram)
        if vtree != "minimized":
            return Stored(diagram, name, sizes)
        found[name] = diagram
    if vtree == "minimized":
        best = min(found, key=lambda name: size(found[name]), default=None)
        start = trees[best or "grouped"]
        try:
            diagram = attempt(start, minimize=float("inf") if seconds is None else seconds / 6)
            sizes["minimized"] = size(diagram)
            if best is None or size(diagram) < size(found[best]):
                return Stored(diagram, "minimized", sizes)
        except CompilationLimit as limit:
            sizes["minimized"], limits["minimized"] = None, limit
        if best is not None:
            return Stored(found[best], best, sizes)
    raise _combined(limits, seconds, budget)


def _candidates(
    formula: Formula, order: Sequence[int] | None
) -> Iterator[tuple[str, tuple[Tree, ...]]]:
    """The vtrees that need no search, by name; `order` is the program's."""
    program = tuple(formula.order() if order is None else order)
    yield "program", program
    edges = hyperedges(formula)
    grouped = group(program, edges)
    yield "grouped", grouped
    tree = bisect(grouped, edges) if grouped else ()
    yield "balanced", (tree,) if isinstance(tree, int) else tree


def _combined(
    limits: Mapping[str, CompilationLimit], seconds: float | None, budget: Mapping[str, Any]
) -> CompilationLimit:
    """The error of several vtrees none of which led to a circuit."""
    which = list(dict.fromkeys(limit.limit for limit in limits.values()))
    given = {"seconds": seconds, **budget}
    units = {"memory": "bytes of memory"}
    within = " and ".join(
        "the system's memory" if given[name] is None else f"{given[name]} {units.get(name, name)}"
        for name in which
    )
    tried = "; ".join(f"{name}: {limit.reached}" for name, limit in limits.items())
    other = "" if "minimized" in limits else "try `vtree='minimized'`, "
    raise_ = " or ".join(f"`{name}=`" for name in which)
    return CompilationLimit(
        f"the circuit did not compile within its limit of {within} on any vtree ({tried}); raise "
        f"{raise_}, {other}or sample: provenance 'sampled', 'mixed' or 'auto'",
        limit=which[0],
        reached=tried,
    )
