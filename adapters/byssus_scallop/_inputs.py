"""From the facts that a user gives to the facts of a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from byssus import ByssusError

from ._concepts import Block, rounding, sums_to_one
from ._engine import Row
from ._solver import Inputs
from .input_mapping import InputMapping

__all__ = [
    "Entry",
    "check_tag",
    "dense_inputs",
    "entries",
    "fact_inputs",
    "is_certain",
    "merged",
]


@dataclass(frozen=True, eq=False)
class Entry:
    """A fact that was given.

    Attributes:
        row: its values, as the engine holds them.
        tag: None for certain, else a bool, a float or a scalar tensor.
        group: facts of one group are alternatives of one another; None for none.
        given: its values as the user gave them.
    """

    relation: str
    row: Row
    tag: Any = None
    group: Hashable | None = None
    given: Sequence[Any] = ()


def is_certain(tag: Any) -> bool:
    """Whether a tag says that the fact holds in every world."""
    return tag is None or tag is True


def entries(
    relation: str,
    elements: Iterable[Any],
    arity: int,
    convert: Callable[[Sequence[Any]], Row],
    disjunctions: Sequence[Sequence[int]] | None = None,
    custom: bool = False,
) -> list[Entry]:
    """Read facts as users give them: `row`, `(tag, row)`, and values in place of rows of one.

    Args:
        relation: what they are facts of.
        elements: the facts.
        arity: the number of columns of the relation.
        convert: from given values to a row, with errors that name the relation.
        disjunctions: lists of positions; the facts of one list are alternatives of one another.
        custom: whether a tag may be anything.
    """
    if isinstance(elements, str | Mapping) or not isinstance(elements, Iterable):
        raise ByssusError(
            f"facts of {relation} are a list of tuples, or of (probability, tuple), and "
            f"{elements!r} is a {type(elements).__name__}"
        )
    given = list(elements)
    groups: dict[int, Hashable] = {}
    if disjunctions is not None and not (
        isinstance(disjunctions, Sequence)
        and all(isinstance(some, Sequence) for some in disjunctions)
    ):
        raise ByssusError(
            f"disjunctions of {relation} are lists of positions, [[0, 1], [2, 3]], not "
            f"{disjunctions!r}"
        )
    for number, some in enumerate(disjunctions or ()):
        for position in some:
            if not isinstance(position, int) or not 0 <= position < len(given):
                raise ByssusError(
                    f"disjunctions of {relation}: there is no fact {position!r} among {len(given)}"
                )
            if position in groups:
                raise ByssusError(f"disjunctions of {relation}: fact {position} is in two of them")
            groups[position] = number
    found = []
    for position, element in enumerate(given):
        tag, values = _tagged(element, arity)
        group = groups.get(position)
        if (
            not custom and isinstance(tag, tuple) and len(tag) == 2
        ):  # (probability, number of its disjunction)
            tag, own = tag
            group = group if own is None else ("own", own)
        if not isinstance(values, tuple | list):
            values = (values,)
        if not custom:
            check_tag(relation, tag, element)
        found.append(Entry(relation, convert(values), tag, group, values))
    return found


def _tagged(element: Any, arity: int) -> tuple[Any, Any]:
    """Tell a fact with its tag from one without."""
    if isinstance(element, tuple) and len(element) == 2:
        tag, values = element
        if isinstance(values, tuple) or (arity == 1 and not isinstance(tag, str)):
            return tag, values
    return None, element


def check_tag(relation: str, tag: Any, element: Any) -> None:
    """Raise an error for what is no probability, whatever its value."""
    fine = tag is None or isinstance(tag, bool | int | float)
    if isinstance(tag, Tensor):
        fine = tag.numel() == 1
    if not fine:
        raise ByssusError(
            f"{relation} has the tag {tag!r}: a probability is a number or a tensor of one "
            f"element; given was {element!r}"
        )


def fact_inputs(given: Sequence[Entry], start: int = 0) -> Inputs:
    """The facts of one example: certain ones, independent ones, and groups of alternatives."""
    certain: dict[str, list[Row]] = defaultdict(list)
    grouped: dict[Hashable, tuple[list[Hashable], list[Any]]] = {}
    for number, entry in enumerate(given, start):
        if is_certain(entry.tag) and entry.group is None:
            certain[entry.relation].append(entry.row)
        elif entry.tag is not False:
            where = None if entry.group is None else (entry.relation, entry.group)
            keys, probs = grouped.setdefault(where, ([], []))
            keys.append((entry.relation, entry.row, number))
            probs.append(1.0 if is_certain(entry.tag) else entry.tag)
    return Inputs(
        tuple((name, tuple(rows)) for name, rows in certain.items()),
        tuple(
            Block(tuple(keys), where is not None, where is not None and sums_to_one(probs, 1e-9))
            for where, (keys, probs) in grouped.items()
        ),
        tuple(_row(probs) for _, probs in grouped.values()),
    )


def _row(probs: Sequence[Any]) -> Tensor:
    """Probabilities of one example as `(1, facts)`; float64 where none is a tensor."""
    tensors = [p for p in probs if isinstance(p, Tensor)]
    if not tensors:
        return torch.tensor([probs], dtype=torch.float64)
    kind = tensors[0]
    for other in tensors[1:]:
        kind = kind if torch.promote_types(kind.dtype, other.dtype) == kind.dtype else other
    if not kind.is_floating_point():
        kind = torch.zeros((), device=kind.device)
    return torch.stack(
        [torch.as_tensor(p, dtype=kind.dtype, device=kind.device).reshape(()) for p in probs]
    )[None]


def dense_inputs(
    relation: str,
    mapping: InputMapping,
    rows: Sequence[Row],
    tensor: Tensor,
    generator: torch.Generator | None,
    decide: bool,
    alike: bool,
) -> Inputs | list[Inputs]:
    """The facts of a relation that is given as a tensor `(batch, *mapping.shape)`.

    Args:
        relation: its name.
        mapping: what the positions of the tensor mean.
        rows: the tuples of the mapping, as the engine holds them.
        tensor: the probabilities.
        generator: makes categorical sampling reproducible.
        decide: where the mapping leaves it to the data whether facts are alternatives, whether
            they may be.
        alike: give all examples the same facts, those that are not retained with probability
            zero; if not, an example has those that are retained in it only, which is less work
            for whatever looks at all facts. The facts are then given example by example.
    """
    probs, keep = mapping.process(tensor, relation, generator)
    undecided = mapping.disjunctive is None and mapping.disjunctive_dim is None
    found = () if undecided and not decide else mapping.groups(probs)
    groups: Sequence[Sequence[int]] = found or (range(len(rows)),)
    exclusive = bool(found)
    if bool(keep.all()):
        return _block_inputs(relation, rows, groups, exclusive, probs)
    if alike:
        return _block_inputs(relation, rows, groups, exclusive, torch.where(keep, probs, 0.0))
    examples = []
    for row, kept in zip(probs, keep.tolist(), strict=True):
        some = [[i for i in group if kept[i]] for group in groups]
        parts = [group for group in some if group]
        examples.append(_block_inputs(relation, rows, parts, exclusive, row[None]))
    return examples


def _block_inputs(
    relation: str,
    rows: Sequence[Row],
    groups: Sequence[Sequence[int]],
    exclusive: bool,
    probs: Tensor,
) -> Inputs:
    """Groups of positions as blocks of facts."""
    blocks, weights = [], []
    for group in groups:
        part = probs if len(group) == len(rows) else probs[:, list(group)]
        keys = tuple((relation, rows[i], ("given", i)) for i in group)
        sums = part.detach().sum(1)
        complete = exclusive and bool(((sums - 1).abs() <= rounding(part.dtype)).all())
        blocks.append(Block(keys, exclusive, complete))
        weights.append(part)
    return Inputs((), tuple(blocks), tuple(weights), len(probs))


def merged(parts: Sequence[Inputs], batch: int) -> Inputs:
    """The facts of several sources together, for one batch."""
    worlds = [part.worlds for part in parts if part.worlds is not None]
    return Inputs(
        tuple(entry for part in parts for entry in part.certain),
        tuple(block for part in parts for block in part.blocks),
        tuple(weights for part in parts for weights in part.weights),
        batch,
        parts[-1].own if parts else 0,
        torch.cat(worlds, 2) if worlds else None,
    )
