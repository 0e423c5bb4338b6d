"""Weights that need not sum to 1, in diagrams that leave out what does not matter.

A diagram that does not mention a concept counts its worlds as if its weights summed to 1. So they
are divided by their totals, and results multiplied by the product of the totals. Every output is
linear in the weights of each concept, so what these receive together is known (Euler's identity):
what the diagram did not pass on to them is due to their total.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from byssus.errors import ByssusError


def once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass that is not differentiated itself.

    torch's own `once_differentiable` has the second pass raise, but `torch.autograd.grad` leaves
    that out, and would silently give second derivatives that lack a term.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise ByssusError(
                "a circuit has first derivatives only: leave create_graph=True out of the "
                "backward pass"
            )
        return backward(ctx, *gradients)

    return checked


def normalized(
    columns: Tensor, owner: Tensor, concepts: int, sampled: Tensor | None, log: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The weights divided by the totals of their concepts, these totals, and their product.

    Args:
        columns: the weight of every literal, or its logarithm, (columns, rows).
        owner: the concept of each column.
        concepts: how many there are.
        sampled: (concepts, rows), -1 where a concept is summed out; the totals of others are 1.
        log: whether these are logarithms.
    """
    totals = _totals(columns, owner, concepts, log)
    if sampled is not None:
        totals = totals.masked_fill_(sampled >= 0, 0.0 if log else 1.0)
    if log:
        divisor = totals.masked_fill(totals == -torch.inf, 0.0)
        return columns - divisor.index_select(0, owner), totals, totals.sum(0)
    divisor = totals.masked_fill(totals == 0.0, 1.0)
    return columns / divisor.index_select(0, owner), totals, totals.prod(0)


def denormalized(
    grad: Tensor,
    columns: Tensor,
    totals: Tensor,
    owner: Tensor,
    sampled: Tensor | None,
    grad_roots: Tensor,
    reached: Tensor,
    log: bool,
) -> Tensor:
    """The gradient with respect to the weights, of that with respect to the normalized ones.

    Args:
        grad: what the diagram passed on, (columns, rows). Changed in place.
        columns: the normalized weights, (columns, rows).
        totals: from `normalized`.
        owner: the concept of each column.
        sampled: as for `normalized`.
        grad_roots: the gradient with respect to the outputs, (outputs, rows).
        reached: the outputs before they were multiplied by the totals, (outputs, rows).
        log: whether these are logarithms.
    """
    passed = torch.zeros_like(totals)
    # What the weights of each concept receive together, each times its normalized weight: (rows,).
    if log:
        whole = grad_roots.masked_fill(reached == -torch.inf, 0.0).sum(0)
        rest = whole - passed.index_add_(0, owner, grad)
        grad = grad.addcmul_(columns.exp(), rest.index_select(0, owner))
    else:
        whole = (grad_roots * reached).sum(0)
        rest = whole - passed.index_add_(0, owner, grad * columns)
        others = _product_of_others(totals)
        grad = grad.add_(rest.index_select(0, owner)).mul_(others.index_select(0, owner))
    if sampled is not None:
        grad = grad.masked_fill_((sampled >= 0).index_select(0, owner), 0.0)
    return grad


def _product_of_others(totals: Tensor) -> Tensor:
    """For each concept the product of the totals of all others, which may be 0."""
    zero = totals == 0
    if totals.device.type == "cpu" and not zero.any():  # elsewhere, to ask would take longer
        return totals.prod(0) / totals
    divisor = totals.masked_fill(zero, 1.0)
    other_zeros = zero.sum(0) - zero.int()
    return (divisor.prod(0) / divisor).masked_fill_(other_zeros > 0, 0.0)


def _totals(columns: Tensor, owner: Tensor, concepts: int, log: bool) -> Tensor:
    """The sum of each concept's weights, (concepts, rows)."""
    totals = columns.new_zeros(concepts, columns.shape[1])
    if not log:
        return totals.index_add_(0, owner, columns)
    largest = torch.full_like(totals, -torch.inf)
    largest = largest.scatter_reduce_(0, owner[:, None].expand_as(columns), columns, "amax")
    largest = largest.masked_fill_(largest == -torch.inf, 0.0)
    parts = (columns - largest.index_select(0, owner)).exp_()
    return totals.index_add_(0, owner, parts).log_().add_(largest)
