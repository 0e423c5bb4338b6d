"""Evaluation of diagrams on any vtree: sums of prime times sub, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byssus import _sdd
from byssus._weights import denormalized, normalized, once

_SLACK = 256  # so many elements that are there for the shape alone cost less than another operation


class Group(NamedTuple):
    """Consecutive nodes of a level, as so many elements each: those that lack some get zeros."""

    nodes: int
    elements: int
    leaves: bool

    @property
    def edges(self) -> int:
        """So many numbers: of columns for leaves; else of primes, then of subs."""
        return self.nodes * self.elements * (1 if self.leaves else 2)


def grouped(
    diagram: _sdd.Products, offsets: Sequence[int], columns: int
) -> tuple[tuple[Group, ...], list[int]]:
    """The groups of a diagram, and their edges, one group after the other.

    An element that is missing is the column after the last, or false times false.
    """
    groups = []
    edges: list[int] = []
    leaves = [[offsets[concept] + v for v in values] for concept, values in diagram.leaves]
    for start, stop, width in _runs([len(leaf) for leaf in leaves]):
        groups.append(Group(stop - start, width, leaves=True))
        for leaf in leaves[start:stop]:
            edges += leaf + [columns] * (width - len(leaf))
    for level in diagram.levels:
        for start, stop, width in _runs([len(node) for node in level]):
            groups.append(Group(stop - start, width, leaves=False))
            for part in (0, 1):
                for node in level[start:stop]:
                    edges += [pair[part] for pair in node] + [0] * (width - len(node))
    return tuple(groups), edges


def _runs(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Cut a sequence into runs (start, stop, longest) whose padding is no more than they hold."""
    runs = []
    start = longest = held = 0
    for i, length in enumerate(lengths):
        wider = max(longest, length)
        if wider * (i + 1 - start) > 2 * (held + length) + _SLACK:
            runs.append((start, i, longest))
            start, wider, held = i, length, 0
        longest = wider
        held += length
    if lengths:
        runs.append((start, len(lengths), longest))
    return runs


class Evaluation(torch.autograd.Function):
    """All levels, bottom up, in one buffer with a row a node: autograd sees one operation."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,  # (*batch, columns)
        groups: tuple[Group, ...],
        edges: tuple[Tensor, ...],  # of each group
        roots: Tensor,
        owner: Tensor,  # the concept of each column
        concepts: int,
        sampled: Tensor | None,  # (concepts, rows)
        log: bool,
    ) -> Tensor:
        batch = weights.shape[:-1]
        columns = weights.reshape(batch.numel(), weights.shape[-1]).t().contiguous()
        rows = columns.shape[1]
        columns, totals, scale = normalized(columns, owner, concepts, sampled, log)
        if sampled is not None:
            columns = _decided(columns, owner, sampled, log)
        zero, one = (-torch.inf, 0.0) if log else (0.0, 1.0)
        padded = torch.cat([columns, columns.new_full((1, rows), zero)])
        nodes = columns.new_full((2 + sum(group.nodes for group in groups), rows), zero)
        nodes[1] = one
        start = 2
        for group, part in zip(groups, edges, strict=True):
            below = _elements(padded, nodes, group, part, log)
            out = nodes[start : start + group.nodes]
            if log:
                torch.logsumexp(below, 1, out=out)
            else:
                torch.sum(below, 1, out=out)
            start += group.nodes
        result = nodes.index_select(0, roots)
        result = result + scale if log else result * scale
        ctx.save_for_backward(padded, totals, nodes, roots, owner, sampled)
        ctx.groups, ctx.edges, ctx.log, ctx.shape = groups, edges, log, weights.shape
        return result.t().reshape(*batch, len(roots))

    @staticmethod
    @once
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        padded, totals, nodes, roots, owner, sampled = ctx.saved_tensors
        rows = padded.shape[1]
        grad_roots = grad_out.reshape(rows, len(roots)).t()
        grad = torch.zeros_like(nodes).index_add_(0, roots, grad_roots)
        grad_padded = torch.zeros_like(padded)
        end = len(nodes)
        for group, part in zip(reversed(ctx.groups), reversed(ctx.edges), strict=True):
            start = end - group.nodes
            above = grad[start:end, None]
            if ctx.log:
                out = nodes[start:end, None]
                share = _elements(padded, nodes, group, part, log=True).sub_(out).exp_()
                share = share.masked_fill_(out == -torch.inf, 0.0).mul_(above).view(-1, rows)
                if group.leaves:
                    grad_padded.index_add_(0, part, share)
                else:
                    primes, subs = part.view(2, -1)
                    grad.index_add_(0, primes, share)
                    grad.index_add_(0, subs, share)
            elif group.leaves:
                share = above.expand(-1, group.elements, -1).reshape(-1, rows)
                grad_padded.index_add_(0, part, share)
            else:
                primes, subs = part.view(2, -1)
                shape = (group.nodes, group.elements, rows)
                to_subs = nodes.index_select(0, primes).view(shape).mul_(above)
                to_primes = nodes.index_select(0, subs).view(shape).mul_(above)
                grad.index_add_(0, subs, to_subs.view(-1, rows))
                grad.index_add_(0, primes, to_primes.view(-1, rows))
            end = start
        reached = nodes.index_select(0, roots)
        grad_columns = denormalized(
            grad_padded[:-1], padded[:-1], totals, owner, sampled, grad_roots, reached, ctx.log
        )
        grad_weights = grad_columns.t().contiguous().reshape(ctx.shape)
        return grad_weights, None, None, None, None, None, None, None


def _elements(padded: Tensor, nodes: Tensor, group: Group, part: Tensor, log: bool) -> Tensor:
    """The values of the elements of a group's nodes, (nodes, elements, rows)."""
    if group.leaves:
        found = padded.index_select(0, part)
    else:
        primes, subs = part.view(2, -1)
        found = nodes.index_select(0, primes)
        other = nodes.index_select(0, subs)
        found = found.add_(other) if log else found.mul_(other)
    return found.view(group.nodes, group.elements, -1)


def _decided(columns: Tensor, owner: Tensor, sampled: Tensor, log: bool) -> Tensor:
    """The weights, of a concept that is sampled 1 for its value and 0 for the others."""
    first = torch.searchsorted(owner, owner)
    value = torch.arange(len(owner), device=owner.device) - first
    chosen = sampled.index_select(0, owner)
    one_hot = (chosen == value[:, None]).to(columns.dtype)
    return torch.where(chosen >= 0, one_hot.log() if log else one_hot, columns)
