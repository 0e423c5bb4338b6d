"""The worlds in which an output holds, in proportion to their weights: draws, and their entropy.

Both kinds of diagram are read alike here. A node is the sum of its elements, and an element the
product of two parts: of a decision, a literal and a child; of a leaf, a literal and true; else
prime and sub. Elements exclude one another and their parts have no concept in common, so a world
is drawn by choosing one element of each node that is reached, top down, and the entropy of a node
is that of this choice and, on the average, those of the parts (the chain rule). Concepts that were
not reached are independent of the rest, and have the distribution of their own weights.

All parts are numbered together: the literals, then the nodes as the diagram numbers them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byssus._weights import once
from byssus.errors import ProbabilityError

Layer = Int[Tensor, "2 nodes elements"]
"""Nodes that do not need one another: of each of their elements the two parts."""


def sample(
    log_weights: Float[Tensor, "rows columns"],
    widths: Sequence[int],
    owner: Int[Tensor, " columns"],
    layers: Sequence[Layer],
    roots: Int[Tensor, " rows"],
    generator: torch.Generator | None,
) -> Int[Tensor, "rows concepts"]:
    """Draw one world for each row, given its root; `owner` is the concept of each column."""
    dtype = torch.promote_types(log_weights.dtype, torch.float32)
    columns = _normalized(log_weights.to(dtype), widths)
    logs = _log_counts(columns, layers)
    _check(columns, logs, roots)
    values = _independent(columns, widths, generator)
    reached = torch.zeros_like(logs, dtype=torch.bool)
    reached[roots, torch.arange(len(roots), device=roots.device)] = True
    end = len(logs)
    for layer in reversed(layers):
        start = end - layer.shape[1]
        node, row = reached[start:end].nonzero(as_tuple=True)
        parts = layer[:, node]  # (2, those reached, elements)
        chosen = _choose(logs[parts, row[:, None]].sum(0), generator)
        reached[parts[:, torch.arange(len(row), device=row.device), chosen], row] = True
        end = start
    literal, row = reached[: len(columns)].nonzero(as_tuple=True)
    first = torch.searchsorted(owner, owner)
    values[row, owner[literal]] = literal - first[literal]
    return values


def entropy(
    log_weights: Float[Tensor, "rows columns"],
    widths: Sequence[int],
    owner: Int[Tensor, " columns"],
    layers: Sequence[Layer],
    roots: Int[Tensor, " rows"],
) -> Float[Tensor, " rows"]:
    """The entropy of the worlds of each row, given its root."""
    columns = _normalized(log_weights, widths)
    # Not special.entr, whose derivative is infinite at 0.
    surprise = -columns.exp() * columns.masked_fill(columns == -torch.inf, 0.0)
    own = columns.new_zeros(len(widths), columns.shape[1]).index_add(0, owner, surprise)
    # A part counts for what it has more than its concepts would have on their own, so that what
    # the diagram does not mention needs nothing.
    excess: Any = _Excess.apply
    found: Tensor = own.sum(0) + excess(columns, -own.index_select(0, owner), layers, roots)
    return found


class _Excess(torch.autograd.Function):
    """The entropies of the roots, less those of the concepts that the diagrams mention."""

    @staticmethod
    def forward(
        ctx: Any,
        columns: Tensor,  # (literals, rows), logarithms of what sums to 1 for each concept
        literals: Tensor,  # (literals, rows), the excess of each
        layers: Sequence[Layer],
        roots: Tensor,
    ) -> Tensor:
        logs = _log_counts(columns, layers)
        _check(columns, logs, roots)
        excess = torch.zeros_like(logs)
        excess[: len(literals)] = literals
        start = len(columns) + 2
        for layer in layers:
            end = start + layer.shape[1]
            share, terms = _elements(logs, excess, layer, start)
            torch.sum(share * terms, 1, out=excess[start:end])
            start = end
        ctx.save_for_backward(logs, excess, roots)
        ctx.layers, ctx.literals = layers, len(literals)
        return excess.gather(0, roots[None]).squeeze(0)

    @staticmethod
    @once
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        logs, excess, roots = ctx.saved_tensors
        grad_logs = torch.zeros_like(logs)
        grad_excess = torch.zeros_like(logs).scatter_(0, roots[None], grad_out[None])
        end = len(logs)
        for layer in reversed(ctx.layers):
            start = end - layer.shape[1]
            share, terms = _elements(logs, excess, layer, start)
            above = grad_excess[start:end, None]
            # The logarithms of the shares, as their softmax, cancel out of the derivative.
            terms = terms.sub_(excess[start:end, None]).mul_(above)
            to_logs = terms.add_(grad_logs[start:end, None]).mul_(share).flatten(0, 1)
            to_excess = share.mul_(above).flatten(0, 1)
            for part in layer:
                grad_logs.index_add_(0, part.flatten(), to_logs)
                grad_excess.index_add_(0, part.flatten(), to_excess)
            end = start
        return grad_logs[: ctx.literals], grad_excess[: ctx.literals], None, None


def _log_counts(columns: Tensor, layers: Sequence[Layer]) -> Tensor:
    """The logarithm of the weight of every part, (parts, rows), bottom up."""
    count = len(columns) + 2 + sum(layer.shape[1] for layer in layers)
    logs = columns.new_full((count, columns.shape[1]), -torch.inf)
    logs[: len(columns)] = columns
    logs[len(columns) + 1] = 0.0
    start = len(columns) + 2
    for layer in layers:
        end = start + layer.shape[1]
        torch.logsumexp(_sums(logs, layer), 1, out=logs[start:end])
        start = end
    return logs


def _elements(logs: Tensor, excess: Tensor, layer: Layer, start: int) -> tuple[Tensor, Tensor]:
    """Of each element its share of its node, and its entropy with what its choice adds."""
    products = _sums(logs, layer)
    impossible = products == -torch.inf
    products.sub_(logs[start : start + layer.shape[1], None]).masked_fill_(impossible, 0.0)
    return products.exp().masked_fill_(impossible, 0.0), _sums(excess, layer).sub_(products)


def _sums(table: Tensor, layer: Layer) -> Tensor:
    """For each element the sum of what a table has for its parts, (nodes, elements, rows)."""
    return table.index_select(0, layer.flatten()).view(*layer.shape, -1).sum(0)


def _normalized(log_weights: Tensor, widths: Sequence[int]) -> Float[Tensor, "columns rows"]:
    """The logarithms of probabilities; NaN where the weights of a concept are all zero."""
    if not widths:
        return log_weights.t()
    parts = [part.log_softmax(-1) for part in torch.split(log_weights, list(widths), -1)]
    return torch.cat(parts, -1).t().contiguous()


def _check(columns: Tensor, logs: Tensor, roots: Tensor) -> None:
    """Raise an error where no world has a weight."""
    reached = logs.gather(0, roots[None]).squeeze(0)
    wrong = ~reached.isfinite() | columns.isnan().any(0)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ProbabilityError(
            f"row {row} of the batch: the output has weight 0, or its weights are not numbers, so "
            "that no world can be drawn; give weights under which some world gives the output"
        )


def _independent(
    columns: Tensor, widths: Sequence[int], generator: torch.Generator | None
) -> Int[Tensor, "rows concepts"]:
    """Draw each concept from its own weights."""
    rows = columns.shape[1]
    values = torch.empty(rows, len(widths), dtype=torch.int64, device=columns.device)
    parts = torch.split(columns, list(widths)) if widths else ()
    for width in sorted(set(widths)):
        same = [c for c, other in enumerate(widths) if other == width]
        table = torch.stack([parts[c].t() for c in same], 1)
        values[:, same] = _choose(table.flatten(0, 1), generator).view(rows, len(same))
    return values


def _choose(
    log_weights: Float[Tensor, "rows values"], generator: torch.Generator | None
) -> Int[Tensor, " rows"]:
    """Choose a value for each row, in proportion to its weight; never one of weight 0.

    The value whose exponential variable, of a rate in proportion to its weight, comes first.
    """
    device = log_weights.device if generator is None else generator.device
    times = torch.empty(log_weights.shape, dtype=log_weights.dtype, device=device)
    times = times.exponential_(generator=generator).to(log_weights.device)
    times = times.clamp_min_(torch.finfo(times.dtype).tiny)  # some versions of torch draw a 0
    return (log_weights - times.log_()).argmax(1)
