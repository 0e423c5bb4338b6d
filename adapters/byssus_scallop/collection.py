"""The tuples of a relation, as Python code gets them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from . import _values

__all__ = ["ScallopCollection", "in_order"]

_UNTAGGED = ("unit", "proofs")


class ScallopCollection:
    """The tuples of a relation after a run, in ascending order.

    Iterating gives `(tag, tuple)`, or just tuples under the provenances `unit` and `proofs`.
    Values are ints, floats, bools and strings; dates and durations are strings too.

    Attributes:
        provenance: the name of the provenance that it was computed with.
    """

    def __init__(
        self,
        provenance: str,
        rows: Iterable[tuple[Any, tuple[Any, ...]]],
        types: Sequence[str],
    ) -> None:
        """Sort and export.

        Args:
            provenance: its name.
            rows: pairs of a tag, as users see it, and a tuple, as the engine holds it.
            types: the types of the columns.
        """
        self.provenance = provenance
        self._rows = in_order(rows, types)
        if not {"DateTime", "Duration", "Tensor"}.isdisjoint(types):
            self._rows = [
                (tag, tuple(map(_values.export, values, types))) for tag, values in self._rows
            ]
        self._types = tuple(types)

    def __iter__(self) -> Iterator[Any]:
        if self.provenance in _UNTAGGED:
            return (values for _, values in self._rows)
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        shown = []
        for tag, values in self._rows:
            prefix = "" if self.provenance in _UNTAGGED else f"{_number(tag)}::"
            shown.append(f"{prefix}({', '.join(map(repr, values))})")
        return "{" + ", ".join(shown) + "}"


def in_order(
    rows: Iterable[tuple[Any, tuple[Any, ...]]], types: Sequence[str]
) -> list[tuple[Any, tuple[Any, ...]]]:
    """Pairs of a tag and a tuple, as the engine holds it, by their tuples."""
    return sorted(rows, key=_order if "Tensor" in types else itemgetter(1))


def _order(pair: tuple[Any, tuple[Any, ...]]) -> list[tuple[bool, Any]]:
    """Tensors, which have no order, come last and as they come."""
    return [(True, 0) if isinstance(value, _values.Tensor) else (False, value) for value in pair[1]]


def _number(tag: Any) -> Any:
    return tag.item() if hasattr(tag, "item") and getattr(tag, "ndim", 1) == 0 else tag
