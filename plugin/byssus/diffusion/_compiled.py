"""A program as circuits: one for each output value by itself, one for whole outputs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from byssus._compile import Progress
from byssus.circuit import Circuit
from byssus.diffusion.program import WorldProgram
from byssus.errors import ByssusError, listed
from byssus.formula import Formula, Node
from byssus.store import Store

__all__ = ["Compiled"]


class Compiled(nn.Module):
    """Exact inference by circuits, however many worlds there are.

    What an output dimension is observed to be is a concept of the circuit of whole outputs, so
    that one circuit serves all labels. Each dimension has one more value, after the others, which
    all worlds give: that it is not observed. (To allow any observed value instead would count a
    world as often as it has values, which need not be once.)

    Args:
        program: the program, with a formula.
        vtree: as for `byssus.Circuit.compile`, like all that follow.
        nodes: for each of the circuits.
        seconds: for both circuits together.
        memory: for each of the circuits.
        progress: a progress bar, or not.
        store: where circuits are kept.

    Attributes:
        counts: the circuit with an output for each value of each dimension, and that it is not
            observed.
        joint: the circuit of whole outputs; `counts` where there is one dimension.

    Raises:
        CompilationLimit: a limit was reached.
        ByssusError: the program has no formula.
    """

    _sizes: Tensor  # of each dimension, the values and that it is not observed
    _starts: Tensor

    def __init__(
        self,
        program: WorldProgram,
        *,
        vtree: str = "auto",
        nodes: int | None = None,
        seconds: float | None = None,
        memory: int | None = None,
        progress: bool | Callable[[Progress], None] | None = None,
        store: Store | str | os.PathLike[str] | bool | None = None,
    ) -> None:
        super().__init__()
        formula = program.formula
        if formula is None:
            raise ByssusError("a program that is not known by its rules cannot be compiled")
        if program.has_lists:
            raise ByssusError(
                f"rules over lists of different lengths, among {listed(program.domains)}, are not "
                "compiled; give List the same min_length and max_length"
            )
        sizes = tuple(size + 1 for size in program.sizes)
        formula = _with_unobserved(formula, program.sizes)
        options: dict[str, Any] = {"vtree": vtree, "nodes": nodes, "memory": memory}
        options |= {"progress": progress, "store": store}
        order = _order(formula, sizes)
        concepts = [concept for concept in order if concept < len(formula.widths)]
        started = time.monotonic()
        self.counts = Circuit.compile(formula, order=concepts, seconds=seconds, **options)
        self.joint = self.counts
        if len(sizes) > 1:
            left = seconds
            if seconds is not None:
                left = max(0.0, round(seconds - (time.monotonic() - started), 1))
            whole = _observed(formula, sizes)
            self.joint = Circuit.compile(whole, order=order, seconds=left, **options)
        self.register_buffer("_sizes", torch.tensor(sizes), persistent=False)
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        self.register_buffer("_starts", starts, persistent=False)

    def log_likelihoods(
        self,
        log_probs: Float[Tensor, "rows literals"],
        y: Int[Tensor, "rows dimensions"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "rows dimensions"]:
        """The logarithm of the weighted model count of each output dimension's value."""
        return self.counts.log_forward(log_probs).gather(1, self._at(y))

    def log_joint(
        self, log_probs: Float[Tensor, "rows literals"], y: Int[Tensor, "rows dimensions"]
    ) -> Float[Tensor, " rows"]:
        """The logarithm of the weighted model count of all dimensions' values together."""
        weights, output = self._given(log_probs, y)
        return self.joint.log_forward(weights).gather(1, output[:, None]).squeeze(1)

    def draw(
        self,
        log_probs: Float[Tensor, "rows literals"],
        y: Int[Tensor, "rows dimensions"],
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "rows columns"]:
        """A world that gives the outputs, as likely as it is under the model."""
        weights, output = self._given(log_probs, y)
        worlds = self.joint.sample(weights, output, generator=generator)
        return worlds[:, : len(self.counts.widths)]

    def entropy(
        self, log_probs: Float[Tensor, "rows literals"], y: Int[Tensor, "rows dimensions"]
    ) -> Float[Tensor, " rows"]:
        """The entropy of the model's distribution over the worlds that give the outputs."""
        return self.joint.entropy(*self._given(log_probs, y))

    @property
    def cells(self) -> int:
        """How many numbers a draw holds for each row."""
        return self.joint.size + self.joint.columns

    def possible(self, y: Int[Tensor, "rows dimensions"]) -> Bool[Tensor, " rows"]:
        """Whether any world gives the outputs."""
        weights = torch.zeros(len(y), self.counts.columns, device=y.device)
        return self.log_joint(weights, y) > -torch.inf

    def _given(
        self, weights: Tensor, y: Tensor
    ) -> tuple[Float[Tensor, "rows columns"], Int[Tensor, " rows"]]:
        """The weights and the output of the joint circuit."""
        at = self._at(y)
        if self.joint is self.counts:
            return weights, at[:, 0]
        observed = weights.new_full((len(y), self.joint.columns - weights.shape[1]), -torch.inf)
        observed.scatter_(1, at, 0.0)
        return torch.cat([weights, observed], 1), torch.zeros_like(at[:, 0])

    def _at(self, y: Tensor) -> Int[Tensor, "rows dimensions"]:
        """What is observed, among the values of all dimensions side by side."""
        return torch.where(y < 0, self._sizes - 1, y) + self._starts


def _with_unobserved(formula: Formula, sizes: tuple[int, ...]) -> Formula:
    """One more root for each dimension, after its values: true, that it is not observed."""
    roots = iter(formula.roots)
    more = [key for size in sizes for key in (*islice(roots, size), 0)]
    return replace(formula, roots=tuple(more))


def _observed(formula: Formula, sizes: tuple[int, ...]) -> Formula:
    """One root: every dimension has the value that one more concept for each says."""
    nodes: list[Node] = list(formula.nodes)

    def add(kind: str, content: tuple[int | None, ...]) -> int:
        nodes.append((kind, content))
        return len(nodes)

    roots = iter(formula.roots)
    dimensions = []
    for d, size in enumerate(sizes):
        seen = [add("literal", (len(formula.widths) + d, v)) for v in range(size)]
        dimensions.append(add("or", tuple(add("and", (next(roots), key)) for key in seen)))
    root = add("and", tuple(dimensions))
    return Formula((*formula.widths, *sizes), tuple(nodes), (root,), formula.cycles)


def _order(formula: Formula, sizes: tuple[int, ...]) -> list[int]:
    """The concepts by first use, and after the last that a dimension depends on, its observation.

    A diagram must remember what is still to be compared with an observation, so dimensions of few
    concepts come first: of a sum of numbers, the last digit.
    """
    scopes = _scopes(formula)
    roots = iter(formula.roots)
    of_dimension = [[next(roots) for _ in range(size)] for size in sizes]
    scope = [0] * len(sizes)
    for d, keys in enumerate(of_dimension):
        for key in keys:
            scope[d] |= scopes[abs(key)] if key else 0
    dimensions = sorted(range(len(sizes)), key=lambda d: scope[d].bit_count())
    ordered = tuple(key for d in dimensions for key in of_dimension[d])
    concepts = Formula(formula.widths, formula.nodes, ordered, formula.cycles).order()
    waiting = {d: scope[d] for d in dimensions}
    order: list[int] = []
    for concept in (None, *concepts):
        if concept is not None:
            order.append(concept)
            waiting = {d: rest & ~(1 << concept) for d, rest in waiting.items()}
        order += [len(formula.widths) + d for d, rest in waiting.items() if not rest]
        waiting = {d: rest for d, rest in waiting.items() if rest}
    return order


def _scopes(formula: Formula) -> list[int]:
    """The concepts below each node, as bits; of a cycle, those below all of it."""
    scopes = [0] * (len(formula.nodes) + 1)
    stops = dict(formula.cycles)
    start = 1
    while start < len(scopes):
        stop = stops.get(start, start + 1)
        below = 0
        for kind, content in formula.nodes[start - 1 : stop - 1]:
            if kind == "literal":
                below |= 1 << content[0]
            else:
                for key in content:
                    below |= scopes[abs(key)] if key else 0
        scopes[start:stop] = [below] * (stop - start)
        start = stop
    return scopes
