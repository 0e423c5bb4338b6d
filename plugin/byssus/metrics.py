"""How good predictions are: accuracy, F1, and the calibration of probabilities.

Each metric takes a whole data set at once. The mean of what it gives on batches is another number
where these differ in size, as a last one does.

Predictions and targets are positions, as worlds and outputs hold them: `(examples,)`, or
`(examples, columns)` with a column for each concept or dimension of the output. Columns that an
example does not have, as those beyond the end of a list, are False in `mask=`; they do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byssus.domains import check_probabilities
from byssus.errors import ByssusError, EmptyBatchError, ShapeError, TargetError

__all__ = [
    "Reliability",
    "accuracy",
    "calibration_error",
    "exact_match",
    "macro_f1",
    "reliability",
]

Positions = Int[Tensor, "examples columns"] | Int[Tensor, " examples"]
Mask = Bool[Tensor, "examples columns"] | Bool[Tensor, " examples"]
Marginals = Sequence[Float[Tensor, "examples values"]] | Float[Tensor, "examples *columns values"]


def accuracy(
    predicted: Positions, target: Positions, mask: Mask | None = None
) -> Float[Tensor, ""]:
    """The share of entries that are right, over all examples and columns together (micro).

    Args:
        predicted: positions; -1, of no value, is wrong.
        target: positions, of the same shape.
        mask: which entries count, of the same shape; all without it.

    Raises:
        ShapeError: the shapes differ, or these are no integers.
        TargetError: a target below 0 that is not masked.
        EmptyBatchError: no entry counts.
    """
    right, there = _compared(predicted, target, mask)
    return (right & there).sum() / there.sum()


def exact_match(
    predicted: Positions, target: Positions, mask: Mask | None = None
) -> Float[Tensor, ""]:
    """The share of examples that are right in every column: the accuracy of whole outputs.

    Arguments and errors are those of `accuracy`. An example that is masked in every column does
    not count.
    """
    right, there = _compared(predicted, target, mask)
    some = there.any(1)
    return ((right | ~there).all(1) & some).sum() / some.sum()


def macro_f1(
    predicted: Positions,
    target: Positions,
    classes: int | Sequence[int],
    mask: Mask | None = None,
) -> Float[Tensor, ""]:
    """The mean of the F1 of each class, for each column, and then the mean over columns.

    The F1 of a class is `2 TP / (2 TP + FP + FN)`. A class that is neither predicted nor a target
    has none, and its column's mean is over the others; so is a column of no examples left out.

    Args:
        predicted: positions; -1, of no value, is no class: it misses the target's.
        target: positions, of the same shape.
        classes: how many classes there are; or how many in each column.
        mask: which entries count, of the same shape; all without it.

    Raises:
        ShapeError: the shapes differ, these are no integers, or `classes` has another length.
        TargetError: a target or a prediction that is no class.
        EmptyBatchError: no entry counts.
    """
    right, there = _compared(predicted, target, mask)
    predicted, target = (t.long().reshape(right.shape) for t in (predicted, target))
    columns = right.shape[1]
    sizes = [classes] * columns if isinstance(classes, int) else list(classes)
    if len(sizes) != columns or min(sizes, default=1) < 1:
        raise ShapeError(
            f"classes={classes!r} for {columns} columns: give one number, 1 or more, for all of "
            "them or one for each"
        )
    means = []
    for column, size in enumerate(sizes):
        rows = there[:, column]
        found, wanted, hits = (t[rows, column] for t in (predicted, target, right))
        if not len(wanted):
            continue
        for what, values in (("target", wanted), ("prediction", found)):
            if int(values.max()) >= size:
                raise TargetError(
                    f"a {what} of column {column} is {int(values.max())}, and there are {size} "
                    "classes, from 0; see `classes=`"
                )
        positive = wanted[hits].bincount(minlength=size)
        either = wanted.bincount(minlength=size) + found[found >= 0].bincount(minlength=size)
        means.append((2 * positive[either > 0] / either[either > 0]).mean())
    return torch.stack(means).mean()


@dataclass(frozen=True)
class Reliability:
    """How often predictions of each confidence are right: the table of a reliability diagram.

    Bin i, counted from 0, holds the confidences in (i/bins, (i + 1)/bins].

    Attributes:
        count: how many predictions a bin holds.
        confidence: their mean confidence; NaN where there are none.
        accuracy: the share of them that is right; NaN where there are none.
    """

    count: Int[Tensor, "columns bins"]
    confidence: Float[Tensor, "columns bins"]
    accuracy: Float[Tensor, "columns bins"]


def reliability(
    marginals: Marginals, target: Positions, bins: int = 10, mask: Mask | None = None
) -> Reliability:
    """How often predictions of each confidence are right, for each column.

    What is predicted is a column's most probable value, the first of several; its probability is
    the confidence.

    Args:
        marginals: the probabilities of each column's values: one tensor `(examples, values)` for
            each column, or one of shape `(examples, columns, values)` or `(examples, values)`.
        target: positions, `(examples, columns)` or, for one column, `(examples,)`.
        bins: how many of equal width there are.
        mask: which entries count, of the target's shape; all without it.

    Raises:
        ShapeError: the shapes do not fit one another, or targets are no integers.
        ProbabilityError: probabilities that are NaN, negative or do not sum to one.
        TargetError: a target that is no value.
        EmptyBatchError: no entry counts.
        ByssusError: no bins.
    """
    if type(bins) is not int or bins < 1:
        raise ByssusError(f"bins={bins!r}: give a whole number of bins, 1 or more")
    columns = _columns(marginals)
    target, there = _checked(target, mask)
    if target.shape[1] != len(columns) or any(len(p) != len(target) for p in columns):
        raise ShapeError(
            f"marginals of shapes {[tuple(p.shape) for p in columns]}, one a column, with targets "
            f"for {len(target)} examples of {target.shape[1]} columns"
        )
    tables = []
    for column, probs in enumerate(columns):
        rows = there[:, column]
        # A column that is not there may hold anything.
        probs = torch.where(rows[:, None], probs.detach(), 1 / probs.shape[1])
        check_probabilities(probs, f"marginals of column {column}")
        probs = probs.to(torch.promote_types(probs.dtype, torch.float32))
        wanted = target[rows, column]
        if len(wanted) and int(wanted.max()) >= probs.shape[1]:
            raise TargetError(
                f"a target of column {column} is {int(wanted.max())}, and there are "
                f"{probs.shape[1]} values, from 0"
            )
        chosen = probs[rows].argmax(1)
        confidence = probs[rows].gather(1, chosen[:, None]).squeeze(1)
        # Divided, not multiplied up: i/bins is rounded as a frequency of k/n is, so lies on it.
        edges = torch.arange(1, bins, device=probs.device, dtype=probs.dtype) / bins
        place = torch.bucketize(confidence, edges)  # edges[i - 1] < confidence <= edges[i]
        inside = place == torch.arange(bins, device=probs.device)[:, None]
        count = inside.sum(1)
        confident = torch.where(inside, confidence, 0).sum(1) / count
        tables.append((count, confident, (inside & (chosen == wanted)).sum(1) / count))
    return Reliability(*map(torch.stack, zip(*tables, strict=True)))


def calibration_error(
    marginals: Marginals, target: Positions, bins: int = 10, mask: Mask | None = None
) -> Float[Tensor, ""]:
    """The expected calibration error (ECE) of each column, and the mean over columns.

    That is how far confidence and accuracy are apart in each bin, weighted by the share of the
    predictions that it holds. All bins count, the last, (0.9, 1] of ten, included. A column of no
    examples is left out of the mean. Arguments and errors are those of `reliability`.
    """
    table = reliability(marginals, target, bins, mask)
    total = table.count.sum(1)
    gaps = torch.where(table.count > 0, (table.confidence - table.accuracy).abs(), 0)
    errors = (gaps * table.count).sum(1)[total > 0] / total[total > 0]
    return errors.mean()


def _compared(predicted: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which entries are right, and which count: (examples, columns)."""
    _check_positions(predicted, "predictions")
    _check_positions(target, "targets")
    if predicted.shape != target.shape:
        raise ShapeError(
            f"predictions of shape {tuple(predicted.shape)} and targets of shape "
            f"{tuple(target.shape)}: give them the same"
        )
    wanted, there = _checked(target, mask)
    return predicted.reshape(wanted.shape) == wanted, there


def _checked(target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Targets and which of them count: (examples, columns)."""
    _check_positions(target, "targets")
    there = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    if there.shape != target.shape or there.dtype != torch.bool:
        raise ShapeError(
            f"a mask of shape {tuple(there.shape)} and {there.dtype} for targets of shape "
            f"{tuple(target.shape)}: give Booleans of the same shape"
        )
    if not bool(there.any()):
        raise EmptyBatchError(
            f"none of the targets, of shape {tuple(target.shape)}, counts: give one or more"
        )
    wrong = there & (target < 0)
    if bool(wrong.any()):
        place = tuple(wrong.nonzero()[0].tolist())
        raise TargetError(
            f"the target at {place} is {int(target[place])}, which is no position; leave padding "
            "out: mask=target >= 0"
        )
    if target.dim() == 1:
        return target[:, None], there[:, None]
    return target, there


def _check_positions(positions: Tensor, what: str) -> None:
    if not isinstance(positions, Tensor):
        raise ShapeError(f"{what} of type {type(positions).__name__}: give a tensor of positions")
    if positions.dim() not in (1, 2) or positions.is_floating_point() or positions.is_complex():
        raise ShapeError(
            f"{what} of shape {tuple(positions.shape)} and {positions.dtype}: give integers, "
            "(examples,) or (examples, columns)"
        )


def _columns(marginals: Marginals) -> list[Tensor]:
    """One tensor (examples, values) a column."""
    if isinstance(marginals, Tensor):
        columns = list(marginals.unbind(1)) if marginals.dim() == 3 else [marginals]
    else:
        columns = list(marginals) if isinstance(marginals, Sequence) else [marginals]
    for probs in columns:
        if not isinstance(probs, Tensor):
            raise ShapeError(
                f"marginals of type {type(probs).__name__}: give a tensor, or one for each column"
            )
        if probs.dim() != 2 or not probs.shape[1] or not probs.is_floating_point():
            raise ShapeError(
                f"marginals of shape {tuple(probs.shape)} and {probs.dtype}: give probabilities, "
                "(examples, values) for each column"
            )
    return columns
