"""Graphs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

__all__ = ["strong_components"]

K = TypeVar("K", bound=Hashable)


def strong_components(successors: Callable[[K], Iterable[K]], roots: Iterable[K]) -> list[list[K]]:
    """The strongly connected components reachable from the roots, successors first (Tarjan 1972).

    Args:
        successors: the nodes that a node points to.
        roots: where to begin.
    """
    index: dict[K, int] = {}
    low: dict[K, int] = {}
    path: list[K] = []
    on_path: set[K] = set()
    components = []
    for root in roots:
        if root in index:
            continue
        work = [(root, iter(successors(root)))]
        index[root] = low[root] = len(index)
        path.append(root)
        on_path.add(root)
        while work:
            key, following = work[-1]
            for one in following:
                if one not in index:
                    index[one] = low[one] = len(index)
                    path.append(one)
                    on_path.add(one)
                    work.append((one, iter(successors(one))))
                    break
                if one in on_path:
                    low[key] = min(low[key], index[one])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[key])
                if low[key] == index[key]:
                    component = [path.pop()]
                    while component[-1] != key:
                        component.append(path.pop())
                    on_path.difference_update(component)
                    components.append(component[::-1])
    return components
