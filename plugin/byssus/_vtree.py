"""Vtrees: which concepts lie together, found from the structure of a formula.

The size of a diagram depends on its vtree above all. Concepts that occur together below a small
node of the formula should lie together: such a node's concepts are an edge of a hypergraph, and an
order of the concepts in which the edges are short, or a tree in which they are cut late, makes for
small diagrams.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from byssus._sdd import Tree
from byssus.formula import Formula

NAMES = ("auto", "program", "grouped", "balanced", "minimized")

_LARGE = 64  # a node of more concepts says little about which of them belong together
_ROUNDS = 50


def hyperedges(formula: Formula) -> list[tuple[int, ...]]:
    """The sets of concepts, of two and more, that occur together below a node of the formula."""
    scopes: list[frozenset[int] | None] = [frozenset()]  # None: too many
    for kind, content in formula.nodes:
        scope: set[int] | None = {content[0]} if kind == "literal" else set()
        if kind != "literal":
            for key in content:
                below = scopes[abs(key)] if key and abs(key) < len(scopes) else frozenset()
                if below is None or scope is None or len(scope | below) > _LARGE:
                    scope = None
                    break
                scope |= below
        scopes.append(None if scope is None else frozenset(scope))
    found = dict.fromkeys(scope for scope in scopes if scope is not None and len(scope) > 1)
    return [tuple(sorted(scope)) for scope in found]


def group(order: Sequence[int], edges: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """An order in which the edges are short: every concept moves to the middle of its edges.

    This is the FORCE heuristic of Aloul, Markov and Sakallah (2003): the concepts are put at the
    mean of the centres of their edges, and those are then found anew, while the edges get shorter.
    """
    edges_of: dict[int, list[int]] = defaultdict(list)
    for i, edge in enumerate(edges):
        for concept in edge:
            edges_of[concept].append(i)
    best = tuple(order)
    length = _length(best, edges)
    current, patience = best, 5
    for _ in range(_ROUNDS):
        place = {concept: i for i, concept in enumerate(current)}
        centres = [sum(place[concept] for concept in edge) / len(edge) for edge in edges]

        def goal(concept: int, place: dict[int, int] = place, c: list[float] = centres) -> float:
            own = edges_of.get(concept)
            return sum(c[i] for i in own) / len(own) if own else float(place[concept])

        moved = tuple(sorted(current, key=lambda concept: (goal(concept), place[concept])))
        if moved == current or not patience:
            break
        current = moved
        if (shorter := _length(current, edges)) < length:
            best, length = current, shorter
        else:
            patience -= 1
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


def choose(formula: Formula, name: str, order: Sequence[int] | None) -> Tree:
    """The vtree of this name, but for "auto" and "minimized"; `order` is the program's."""
    program = tuple(formula.order() if order is None else order)
    if name == "program":
        return program
    edges = hyperedges(formula)
    grouped = group(program, edges)
    return grouped if name == "grouped" or len(grouped) < 2 else bisect(grouped, edges)
