"""The uncertain facts of a program as concepts: categorical variables with probabilities."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from byssus import Concepts, ProbabilityError

__all__ = ["Block", "ConceptTable", "Weights", "rounding", "sums_to_one"]


def rounding(dtype: torch.dtype) -> float:
    """By how much probabilities of this type may miss [0, 1], and their sum one."""
    return 1e-4 if dtype in (torch.float32, torch.float64) else 1e-2


def sums_to_one(probabilities: Sequence[Any], slack: float) -> bool:
    """Whether numbers leave no room for none of the alternatives; a tensor may change."""
    if any(isinstance(p, Tensor) for p in probabilities):
        return False
    return bool(abs(sum(probabilities) - 1) <= slack)


@dataclass(frozen=True)
class Block:
    """Uncertain facts whose probabilities come side by side.

    Attributes:
        keys: what the facts are.
        exclusive: whether they are the values of one concept; if not, each is a Boolean one.
        complete: for exclusive ones: whether one of them holds for certain; if not, the concept
            has a first value more, which stands for none of them.
    """

    keys: tuple[Hashable, ...]
    exclusive: bool = False
    complete: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of values of each concept."""
        if not self.exclusive:
            return (2,) * len(self.keys)
        return (len(self.keys) + (not self.complete),)

    def columns(self, probs: Float[Tensor, "batch facts"]) -> Float[Tensor, "batch columns"]:
        """The probabilities of all values of the concepts."""
        if not self.exclusive:
            return torch.stack([1 - probs, probs], 2).flatten(1)
        if self.complete:
            return probs
        # Rounding may make the sum exceed one; no probability is negative.
        rest = (1 - probs.sum(1, keepdim=True)).clamp_min(0)
        return torch.cat([rest, probs], 1)

    def check(self, probs: Float[Tensor, "batch facts"]) -> None:
        """Raise a `ProbabilityError` for what is no probability."""
        with torch.no_grad():
            slack = rounding(probs.dtype)
            bad = ~((probs >= -slack) & (probs <= 1 + slack))
            if bool(bad.any()):
                example, fact = (int(i) for i in bad.nonzero()[0])
                raise ProbabilityError(
                    f"{_shown(self.keys[fact])} has probability {float(probs[example, fact])!r} in "
                    f"example {example}: it is to lie between 0 and 1; networks end in a softmax "
                    "or a sigmoid"
                )
            if self.exclusive and bool((sums := probs.sum(1)).gt(1 + slack).any()):
                example = int(sums.gt(1 + slack).nonzero()[0])
                raise ProbabilityError(
                    f"{_shown(self.keys[0])} and its alternatives have probabilities that sum to "
                    f"{float(sums[example])} in example {example}: at most 1 for facts that "
                    "exclude each other; separate them by commas if they do not"
                )


def _shown(key: Hashable) -> str:
    if isinstance(key, tuple) and len(key) >= 2 and isinstance(key[1], tuple):
        return f"{key[0]}({', '.join(map(repr, key[1]))})"
    return repr(key)


Weights = Sequence[Any]
"""For each block the probabilities of its facts: a tensor `(batch, facts)`, or `(1, facts)`."""


class ConceptTable:
    """Which fact is which value of which concept.

    Attributes:
        widths: the number of values of each concept.
        given: the blocks whose probabilities are given with each batch; they come first.
        start: the first concept that was not given.
        found: the probabilities of the facts that evaluation came upon, `(1, facts)` a block.
        varies: whether any of these came as a tensor, such as a network's, whose value may be
            another one at the next evaluation.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.widths: list[int] = []
        self.blocks: list[Block] = []
        self.found: list[Tensor] = []
        self.varies = False
        self._literals: dict[Hashable, tuple[int, int]] = {}
        for block in blocks:
            self._enter(block)
        self.given = len(blocks)
        self.start = len(self.widths)

    def literal(self, key: Hashable) -> tuple[int, int] | None:
        """The concept and the value that a fact is, by position; None if it is not known."""
        return self._literals.get(key)

    def append(self, block: Block, probabilities: Sequence[Any]) -> None:
        """Enter facts that evaluation came upon, with their probabilities (floats, tensors)."""
        tensors = [p for p in probabilities if isinstance(p, Tensor)]
        like = tensors[0] if tensors else torch.zeros((), dtype=torch.float64)
        row = torch.stack([torch.as_tensor(p, dtype=like.dtype).reshape(()) for p in probabilities])
        block.check(row[None])
        self.found.append(row[None])
        self.varies |= bool(tensors)
        self._enter(block)

    def concepts(self, weights: Weights, batch: int) -> Concepts:
        """The probabilities of a batch."""
        parts = [
            block.columns(probs)
            for block, probs in zip(self.blocks, [*weights, *self.found], strict=True)
        ]
        like = next((w for w in weights if isinstance(w, Tensor)), None)
        if like is None:
            like = torch.zeros(0, dtype=torch.float64)
        probs = [part.to(like).expand(batch, -1) for part in parts]
        return Concepts(torch.cat([like.new_zeros(batch, 0), *probs], 1), tuple(self.widths))

    def narrowed(self, concepts: Collection[int]) -> ConceptTable:
        """What was given, and of what evaluation came upon these concepts alone."""
        table = ConceptTable(self.blocks[: self.given])
        for i, (block, row) in enumerate(zip(self.blocks[self.given :], self.found, strict=True)):
            if self.start + i in concepts:  # each of these blocks is one concept
                table.found.append(row)
                table._enter(block)
        return table

    def _enter(self, block: Block) -> None:
        start = len(self.widths)
        for i, key in enumerate(block.keys):
            if block.exclusive:
                self._literals[key] = (start, i + (not block.complete))
            else:
                self._literals[key] = (start + i, 1)
        self.widths += block.widths
        self.blocks.append(block)
