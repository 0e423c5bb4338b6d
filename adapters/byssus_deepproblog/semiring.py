"""The losses of a batch: each adds to one gradient, which is passed back once.

`train_model` computes a loss for each query, each with a backward pass of its own. Here a loss is
computed in plain numbers, and its gradient with respect to the query's probability is noted. When
all results of the batch have had their loss, or an optimizer is about to step, or the next batch is
to be solved, all that has been noted is passed back through the batch at once.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from deepproblog.semiring import Result
from deepproblog.semiring.graph_semiring import GraphSemiring
from problog.logic import Term
from torch import Tensor

from byssus import ByssusError

__all__ = ["Answers", "Batch", "BatchSemiring", "Bounds", "Frequencies"]


class Batch:
    """The probabilities of all answers to a batch of queries, and what losses say of them.

    Args:
        probs: the probabilities, `(answers,)`.
        pending: where a batch is noted that has something to pass back; None if each loss is to
            be passed back at once.
    """

    def __init__(self, probs: Tensor, pending: list[Batch] | None) -> None:
        self._probs = probs
        self._pending = pending
        self._gradient: dict[int, float] = {}
        self._waiting: set[int] = set()
        self.values: list[float] = probs.tolist()
        self.scalars: tuple[Tensor, ...] = _apart(probs).unbind()

    def expect(self, result: Answers) -> None:
        """A result that is to have a loss."""
        self._waiting.add(id(result))

    def add(self, result: Answers, position: int, gradient: float) -> None:
        """Note the gradient of a loss with respect to one probability."""
        if not self._probs.requires_grad:
            return
        if self._pending is not None and not self._gradient:
            self._pending.append(self)
        self._gradient[position] = self._gradient.get(position, 0.0) + gradient
        last = self._waiting == {id(result)}
        self._waiting.discard(id(result))
        if last or self._pending is None:
            self.flush()

    def flush(self) -> None:
        """Pass back what has been noted."""
        gradient = torch.zeros_like(self._probs)
        positions, numbers = list(self._gradient), list(self._gradient.values())
        gradient[positions] = gradient.new_tensor(numbers)
        self._gradient.clear()
        if self._pending is not None:
            self._pending.remove(self)
        # More may be noted later, and users may pass back losses of their own.
        self._probs.backward(gradient, retain_graph=True)  # type: ignore[no-untyped-call]


class Bounds(Batch):
    """Queries in training under NeSyDM: each has a loss, and `exp(-loss)` for a probability.

    Args:
        losses: the loss of each query, `(queries,)`.
        truths: whether it is a loss of the query's being true, or false.
        pending: see `Batch`.
    """

    def __init__(self, losses: Tensor, truths: list[bool], pending: list[Batch] | None) -> None:
        super().__init__(losses, pending)
        self._truths = truths
        likelihoods = (-losses).exp()
        true = torch.tensor(truths, device=losses.device)
        self.scalars = _apart(torch.where(true, likelihoods, 1 - likelihoods)).unbind()

    def loss(self, result: Answers, position: int, target: float, weight: float) -> float:
        """Note the gradient of a query's loss."""
        if target != self._truths[position]:
            raise ByssusError(
                f"the target {target}, and the query was solved with p={self._truths[position]:d}: "
                "under provenance='nesydm' a query's own p says what is learned"
            )
        self.add(result, position, weight)
        return self.values[position] * weight


class Frequencies(Batch):
    """Queries with variables in training under NeSyDM: how often worlds give each answer."""


class _Apart(torch.autograd.Function):
    """The probabilities, whose graph outlives a backward pass.

    Under DeepProbLog each query has a graph of its own, so a project that passes its own losses
    back one after the other need not say `retain_graph=True`.
    """

    @staticmethod
    def forward(ctx: Any, held: list[Tensor], *leaves: Tensor) -> Tensor:
        (ctx.probs,), ctx.leaves = held, leaves
        return held[0].detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        how = {"retain_graph": True, "create_graph": torch.is_grad_enabled()}
        return None, *torch.autograd.grad(ctx.probs, ctx.leaves, gradient, allow_unused=True, **how)


def _apart(probs: Tensor) -> Tensor:
    """The same numbers, for `_Apart`: as a function of the leaves of their graph."""
    if probs.grad_fn is None:
        return probs
    leaves: list[Tensor] = []
    seen: set[Any] = {probs.grad_fn}
    stack: list[Any] = [probs.grad_fn]
    while stack:
        node = stack.pop()
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                stack.append(following)
    apart: Tensor = _Apart.apply([probs], *leaves)  # type: ignore[no-untyped-call]
    return apart


class Answers(Result):  # type: ignore[misc]
    """A query's answers with their probabilities, which are entries of its batch's.

    Attributes:
        result: the probability of each answer, a scalar tensor; a float where no network and no
            learned probability takes part.
    """

    def __init__(
        self, batch: Batch, positions: dict[Term, int], *, certain: bool, **about: Any
    ) -> None:
        probs: Any = batch.values if certain else batch.scalars
        super().__init__({term: probs[i] for term, i in positions.items()}, **about)
        self.batch = batch
        self.positions = {} if certain else positions
        if self.positions:
            batch.expect(self)


class BatchSemiring(GraphSemiring):  # type: ignore[misc]
    """DeepProbLog's semiring, whose losses are passed back together."""

    @staticmethod
    def cross_entropy(
        result: Result,
        target: float,
        weight: float,
        q: Term | None = None,
        eps: float = 1e-12,
    ) -> float:
        """The cross-entropy of an answer's probability p: `-t log(p + eps) - (1-t) log(1-p + eps)`.

        Args:
            result: the answers.
            target: the probability t that the answer should have.
            weight: the loss is multiplied by it.
            q: the answer; the only one if not given.
            eps: keeps the logarithm finite.

        Returns:
            the loss; its gradient is passed back with the batch's.
        """
        place = _place(result, q)
        if place is None:
            loss: float = GraphSemiring.cross_entropy(result, target, weight, q, eps)
            return loss
        answers, position = place
        if isinstance(answers.batch, Bounds):
            return answers.batch.loss(answers, position, target, weight)
        p = answers.batch.values[position]
        positive, negative = max(p, 0.0) + eps, max(1.0 - p, 0.0) + eps
        value, gradient = 0.0, 0.0
        if target != 0.0:
            value -= target * math.log(positive)
            gradient -= target / positive if p >= 0.0 else 0.0
        if target != 1.0:
            value -= (1.0 - target) * math.log(negative)
            gradient += (1.0 - target) / negative if p <= 1.0 else 0.0
        answers.batch.add(answers, position, gradient * weight)
        return value * weight

    @staticmethod
    def mse(result: Result, target: float, weight: float, q: Term | None = None) -> float:
        """The squared difference of an answer's probability from the target; as `cross_entropy`."""
        place = _place(result, q)
        if place is None:
            loss: float = GraphSemiring.mse(result, target, weight, q)
            return loss
        answers, position = place
        if isinstance(answers.batch, Bounds):
            raise ByssusError("under provenance='nesydm' the loss is a bound: take cross_entropy")
        difference = answers.batch.values[position] - target
        answers.batch.add(answers, position, 2.0 * difference * weight)
        return difference**2 * weight


def _place(result: Result, q: Term | None) -> tuple[Answers, int] | None:
    """Where an answer's probability is in its batch; None where DeepProbLog's own losses do."""
    if not isinstance(result, Answers) or not result.positions:
        return None
    if isinstance(result.batch, Frequencies):
        raise ByssusError(
            "a query with a variable has no loss under provenance='nesydm': give the query its "
            "answer; with_negatives=True is not for it"
        )
    if q is None:
        if len(result.positions) > 1:
            return None  # it says that it needs to know which
        return result, next(iter(result.positions.values()))
    return result, result.positions[q]
