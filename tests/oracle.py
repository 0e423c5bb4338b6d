"""Brute force, which everything exact must agree with; and random formulas to try it on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod

import torch
from hypothesis import strategies as st
from torch import Tensor

from byssus.circuit import Circuit
from byssus.formula import Formula, Key, Node
from byssus.worlds import Concepts, Worlds

World = tuple[int, ...]


def holds(formula: Formula, world: World) -> list[bool]:
    """The roots in one world: rounds over all nodes, stratum by stratum, until nothing changes."""
    true = [True] + [False] * len(formula.nodes)

    def truth(key: Key) -> bool:
        return False if key is None else not true[-key] if key < 0 else true[key]

    def node(i: int) -> bool:
        kind, content = formula.nodes[i - 1]
        if kind == "literal":
            return world[content[0]] == content[1]
        return (all if kind == "and" else any)(truth(key) for key in content)

    start = 1
    while start <= len(formula.nodes):
        stop = dict(formula.cycles).get(start, start + 1)
        while any(node(i) != true[i] for i in range(start, stop)):
            for i in range(start, stop):
                true[i] = node(i)
        start = stop
    return [truth(root) for root in formula.roots]


def worlds_of(widths: Sequence[int]) -> Iterator[World]:
    return product(*(range(width) for width in widths))


def world_weights(weights: Tensor, widths: Sequence[int]) -> Tensor:
    """The product of the weights of each world: (..., columns) to (..., worlds)."""
    parts = weights.split(list(widths), -1) if widths else ()
    columns = [
        torch.stack([part[..., v] for part, v in zip(parts, world, strict=True)], -1).prod(-1)
        if world
        else weights.new_ones(weights.shape[:-1])
        for world in worlds_of(widths)
    ]
    return torch.stack(columns, -1)


def count(formula: Formula, weights: Tensor) -> Tensor:
    """The weighted model count of every root, differentiable: (..., columns) to (..., roots)."""
    table = [holds(formula, world) for world in worlds_of(formula.widths)]
    true = torch.tensor(table, dtype=weights.dtype).reshape(len(table), len(formula.roots))
    return world_weights(weights, formula.widths) @ true


def conditioned(formula: Formula, weights: Tensor, values: Sequence[int]) -> Tensor:
    """The count where concepts of a value of 0 or more have it, whatever their weights."""
    changed = list(weights.split(list(formula.widths), -1)) if formula.widths else [weights]
    for concept, value in enumerate(values):
        if value >= 0:
            changed[concept] = torch.zeros_like(changed[concept])
            changed[concept][..., value] = 1
    return count(formula, torch.cat(changed, -1))


def probabilities(
    widths: Sequence[int], *batch: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Random distributions side by side: (*batch, columns)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*batch, sum(widths), generator=generator, dtype=dtype)
    if not widths:
        return logits
    return torch.cat([part.softmax(-1) for part in logits.split(list(widths), -1)], -1)


def raw(probs: Tensor) -> Tensor:
    """A leaf, to differentiate with respect to."""
    return probs.detach().clone().requires_grad_()


def summed_out(worlds: Worlds, exact: Sequence[int]) -> Worlds:
    """The worlds of the other concepts."""
    indices = worlds.indices.clone()
    indices[..., list(exact)] = -1
    distinct = torch.zeros_like(worlds.distinct)
    for row, rows in enumerate(indices.tolist()):
        seen = set()
        for i, world in enumerate(map(tuple, rows)):
            distinct[row, i] = world not in seen
            seen.add(world)
    return Worlds(indices, distinct, worlds.complete)


def gradient(scalar: Tensor, *leaves: Tensor) -> list[Tensor]:
    """Gradients, zero where there is no path."""
    if not scalar.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(scalar, leaves, allow_unused=True, retain_graph=True)
    return [
        torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)
    ]


def concepts_of(probs: Tensor, widths: Sequence[int]) -> Concepts:
    return Concepts(probs, tuple(widths))


@st.composite
def formulas(
    draw: st.DrawFn,
    max_concepts: int = 6,
    max_width: int = 5,
    max_worlds: int = 400,
    min_concepts: int = 0,
    cycles: bool = True,
) -> Formula:
    """And-or graphs with negations, shared parts, constants, and positive cycles."""
    widths: list[int] = []
    for _ in range(draw(st.integers(min_concepts, max_concepts))):
        room = max_worlds // max(1, prod(widths))
        widths.append(draw(st.integers(1, max(1, min(max_width, room)))))
    nodes: dict[int, Node] = {}
    literals = [(c, v) for c, width in enumerate(widths) for v in range(width)]
    constants: list[Key] = [0, None]
    if literals:
        for literal in draw(st.lists(st.sampled_from(literals), max_size=8)):
            nodes[len(nodes) + 1] = ("literal", literal)

    def keys(names: Sequence[int], signed: bool) -> st.SearchStrategy[Key]:
        signs = (1, -1) if signed else (1,)
        some = [sign * name for name in names for sign in signs]
        return st.sampled_from(some + constants) if some else st.sampled_from(constants)

    kinds = st.sampled_from(["and", "or"])
    for _ in range(draw(st.integers(1, 6))):
        below = list(nodes)
        if cycles and draw(st.booleans()):  # a knot: positive keys of its own, any from below
            knot = list(range(len(nodes) + 1, len(nodes) + 1 + draw(st.integers(1, 4))))
            for name in knot:
                inside = draw(st.lists(keys(knot, signed=False), max_size=3))
                outside = draw(st.lists(keys(below, signed=True), max_size=3))
                nodes[name] = (draw(kinds), tuple(inside + outside))
        else:
            children = draw(st.lists(keys(below, signed=True), max_size=4))
            nodes[len(nodes) + 1] = (draw(kinds), tuple(children))
    roots = draw(st.lists(keys(list(nodes), signed=True), max_size=4))
    roots.append(draw(st.sampled_from([1, -1])) * len(nodes))
    return Formula.from_graph(widths, nodes, roots)


def sum_formula(widths: Sequence[int]) -> tuple[Formula, list[int]]:
    """One root for each sum of the concepts' values, by a chain of partial sums."""
    nodes: dict[int, Node] = {}

    def add(node: Node) -> int:
        nodes[len(nodes) + 1] = node
        return len(nodes)

    literal = {
        (c, v): add(("literal", (c, v))) for c, width in enumerate(widths) for v in range(width)
    }
    sums: dict[int, int] = {0: 0}
    for concept, width in enumerate(widths):
        ways: dict[int, list[int]] = {}
        for total, key in sums.items():
            for value in range(width):
                both = add(("and", (key, literal[concept, value])))
                ways.setdefault(total + value, []).append(both)
        sums = {total: add(("or", tuple(keys))) for total, keys in ways.items()}
    return Formula.from_graph(widths, nodes, list(sums.values())), list(sums)


def brute_force(
    function: Callable[..., object], values: Sequence[Sequence[object]], probs: Sequence[Tensor]
) -> dict[object, Tensor]:
    """The distribution of a function of independent arguments: output to (batch,)."""
    result: dict[object, Tensor] = {}
    for world in worlds_of([len(v) for v in values]):
        output = function(*(v[i] for v, i in zip(values, world, strict=True)))
        weight = torch.stack([p[:, i] for p, i in zip(probs, world, strict=True)]).prod(0)
        result[output] = result.get(output, 0) + weight
    return result


def check_frequencies(drawn: Tensor, widths: Sequence[int], probs: Tensor) -> None:
    """Whether worlds, (draws, concepts), occur as often as their probabilities, (worlds,), say.

    None of probability 0, and the others within seven standard errors and four draws: Hypothesis
    asks this of thousands of worlds.
    """
    number = {world: i for i, world in enumerate(worlds_of(widths))}
    at = torch.tensor([number[tuple(world)] for world in drawn.tolist()])
    found = at.bincount(minlength=len(number)) / len(drawn)
    assert (found[probs == 0] == 0).all()
    error = (probs * (1 - probs) / len(drawn)).sqrt()
    assert ((found - probs).abs() <= 7 * error + 4 / len(drawn)).all()


def tangent(grad: Tensor, widths: Sequence[int]) -> Tensor:
    """The part of a gradient that moves distributions to distributions, as softmax would have it.

    Score-function gradients are unbiased only along it: a baseline costs nothing there.
    """
    parts = grad.split(list(widths), -1) if widths else ()
    return torch.cat([grad[..., :0], *(p - p.mean(-1, keepdim=True) for p in parts)], -1)


def check_dtypes(circuit: Circuit, formula: Formula, device: torch.device) -> None:
    """A circuit gives the formula's counts in the type of its weights, on a device."""
    circuit = circuit.to(device, torch.float32)
    for dtype, tolerance in [(torch.float32, 1e-6), (torch.float64, 1e-12), (torch.bfloat16, 0.05)]:
        weights = probabilities(formula.widths, 5)
        found = circuit(weights.to(device, dtype))
        assert found.dtype == dtype
        assert found.device.type == device.type
        torch.testing.assert_close(
            found.cpu().double(), count(formula, weights), atol=tolerance, rtol=tolerance
        )
