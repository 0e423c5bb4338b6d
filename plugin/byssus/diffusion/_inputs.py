"""What comes from outside: inputs, lengths of lists, and what a network answers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from byssus.diffusion.program import WorldProgram
from byssus.domains import List, Tuple
from byssus.errors import DomainError, ProbabilityError, ShapeError, listed

__all__ = ["batch_size", "mask_of", "normalized", "select"]


def normalized(
    answer: Any, rows: int, widths: Sequence[int], names: Sequence[str]
) -> Float[Tensor, "rows literals"]:
    """The logarithms of the probabilities that a network's answer means, side by side.

    Args:
        answer: what the unmasking model gave.
        rows: the number of rows that it was given.
        widths: the number of values of each column.
        names: what errors call the columns.

    Raises:
        ShapeError: an answer of another shape.
        ProbabilityError: NaN, or infinity.
    """
    same = len(set(widths)) == 1
    allowed: list[tuple[int, ...]] = [(rows, sum(widths))]
    if same:
        allowed = [(rows, len(widths), widths[0]), *allowed]
    if not isinstance(answer, Tensor):
        parts = list(answer) if isinstance(answer, list | tuple) else None
        wanted = [(rows, width) for width in widths]
        if parts is None or [tuple(getattr(part, "shape", ())) for part in parts] != wanted:
            shapes = parts and [tuple(getattr(part, "shape", ())) for part in parts]
            raise ShapeError(
                f"the unmasking model gave {shapes or type(answer).__name__}: give logits of "
                f"shape {allowed[0]}, or one tensor (rows, width) for each column"
            )
        answer = torch.cat(parts, 1)
    elif tuple(answer.shape) not in allowed:
        raise ShapeError(
            f"the unmasking model gave logits of shape {tuple(answer.shape)}: give "
            f"{' or '.join(map(str, allowed))}, values only, with no entry for the mask"
        )
    if not answer.is_floating_point():
        raise ShapeError(f"the unmasking model gave {answer.dtype}: give floating point logits")
    # Noise, times and sums over worlds need more digits than half precision has.
    answer = answer.to(torch.promote_types(answer.dtype, torch.float32))
    if same:
        log_probs: Tensor = answer.reshape(rows, len(widths), widths[0]).log_softmax(-1).flatten(1)
    else:
        split = torch.split(answer.reshape(rows, sum(widths)), list(widths), 1)
        log_probs = torch.cat([part.log_softmax(-1) for part in split], 1)
    if bool(log_probs.isnan().any()):
        row, literal = log_probs.isnan().nonzero()[0].tolist()
        column = bisect_right(list(accumulate(widths)), literal)
        raise ProbabilityError(
            f"the unmasking model's logits of column {names[column]} hold "
            f"NaN or infinity in row {row}: a smaller learning rate, or finite inputs, may mend "
            "it"
        )
    return log_probs


def mask_of(
    program: WorldProgram, lengths: Tensor | Mapping[str, Tensor], batch: int
) -> Bool[Tensor, "batch columns"]:
    """Which columns exist, from the lengths of lists."""
    columns = len(program.concept_widths)
    if isinstance(lengths, Tensor) and lengths.dtype == torch.bool:
        if tuple(lengths.shape) != (batch, columns):
            raise ShapeError(f"a mask of shape {tuple(lengths.shape)}: expected {(batch, columns)}")
        whole = Tuple(*program.domains)
        for row in torch.unique(lengths, dim=0).tolist():
            try:
                whole.decode([int(there) - 1 for there in row])
            except DomainError as error:
                raise ShapeError(
                    f"the mask {row} is that of no world: only lists end, and all at their end: "
                    f"{error}"
                ) from None
        return lengths
    domains = dict(zip(program.names, program.domains, strict=True))
    lists = {name: domain for name, domain in domains.items() if isinstance(domain, List)}
    if isinstance(lengths, Tensor):
        if len(lists) != 1:
            raise ShapeError(
                f"lengths of shape {tuple(lengths.shape)}, and the lists are {listed(lists)}: give "
                "lengths={name: lengths} for each"
            )
        lengths = dict.fromkeys(lists, lengths)
    if not isinstance(lengths, Mapping):
        raise ShapeError(
            f"lengths of type {type(lengths).__name__}: give a tensor (batch,), or one by the name "
            "of each list"
        )
    unknown = lengths.keys() - lists.keys()
    if unknown:
        raise ShapeError(f"lengths of {listed(sorted(unknown))}: the lists are {listed(lists)}")
    parts = []
    for name, domain in domains.items():
        given = lengths.get(name)
        if given is None:
            parts.append(torch.ones(batch, len(domain.widths), dtype=torch.bool))
            continue
        assert isinstance(domain, List)
        if not isinstance(given, Tensor) or given.is_floating_point():
            raise ShapeError(f"lengths of {name}: give a tensor of {batch} integers")
        wrong = (given < domain.min_length) | (given > domain.max_length)
        if tuple(given.shape) != (batch,) or bool(wrong.any()):
            raise ShapeError(
                f"lengths of {name}: give {batch} integers from {domain.min_length} to "
                f"{domain.max_length}"
            )
        position = torch.arange(domain.max_length).repeat_interleave(len(domain.domain.widths))
        parts.append(position < given.cpu()[:, None])
    return torch.cat(parts, 1)


def batch_size(e: Any) -> int:
    """The number of examples of encoded inputs."""
    if isinstance(e, Tensor):
        if e.dim() == 0:
            raise ShapeError("x is a scalar: its first dimension must be the batch")
        return len(e)
    parts: list[Any] = []
    if isinstance(e, Mapping | list | tuple):
        parts = list(e.values()) if isinstance(e, Mapping) else list(e)
    sizes = {batch_size(part) for part in parts}
    if len(sizes) != 1:
        raise ShapeError(
            f"x ({type(e).__name__}) has batches of {listed(sorted(sizes)) or 'no'} examples: give "
            "a tensor, or a tuple, list or dictionary of tensors with one batch"
        )
    return sizes.pop()


def select(e: Any, rows: Tensor, device: torch.device | None = None) -> Any:
    """Some examples of inputs; on another device, if one is given."""
    if isinstance(e, Tensor):
        return e.index_select(0, rows.to(e.device)).to(device)
    if isinstance(e, Mapping):
        return {name: select(part, rows, device) for name, part in e.items()}
    parts = [select(part, rows, device) for part in e]
    return type(e)(*parts) if hasattr(e, "_fields") else type(e)(parts)
