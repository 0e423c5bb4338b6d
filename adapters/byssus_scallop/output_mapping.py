"""Which tuples of a relation are the columns of an output tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from byssus import ByssusError

__all__ = ["OutputMapping", "output_mapping"]


@dataclass(frozen=True)
class OutputMapping:
    """The tuples that an output tensor speaks of.

    Attributes:
        tuples: one a column.
        single: whether there is one tuple and no dimension for it: the tensor is `(batch,)`.
    """

    tuples: tuple[tuple[Any, ...], ...]
    single: bool = False


def output_mapping(mapping: Any, relation: str) -> OutputMapping | None:
    """What a user gives as the output mapping of a relation.

    Args:
        mapping: a list or a range of tuples, where a value stands for the tuple of it alone; one
            tuple (`()` for a relation without columns), whose tensor has no dimension for it; or
            None, for the tuples that occur.
        relation: whose it is, for messages.

    Raises:
        ByssusError: if it is something else, or an empty list.
    """
    if mapping is None or isinstance(mapping, OutputMapping):
        return mapping
    if isinstance(mapping, tuple):
        return OutputMapping((mapping,), single=True)
    if not isinstance(mapping, list | range):
        raise ByssusError(
            f"the output mapping of {relation} is {mapping!r}: give a list of tuples or values, a "
            "range, one tuple, or None for the tuples that occur"
        )
    if not len(mapping):
        raise ByssusError(
            f"the output mapping of {relation} is empty: give at least one tuple, or None for the "
            "tuples that occur"
        )
    for one in mapping:
        if isinstance(one, list | dict | set):
            raise ByssusError(
                f"the output mapping of {relation} has the element {one!r}: give tuples or values"
            )
    return OutputMapping(tuple(one if isinstance(one, tuple) else (one,) for one in mapping))
