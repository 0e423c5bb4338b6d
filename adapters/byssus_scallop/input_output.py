"""Options of the files that a relation is loaded from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from byssus import ByssusError

__all__ = ["CSVFileOptions"]


@dataclass(frozen=True)
class CSVFileOptions:
    """A CSV file, and how to read it: `context.add_relation("edge", (int, int), load_csv=...)`.

    Attributes:
        path: the file.
        deliminator: the character between values; a comma if None.
        has_header: whether the first row names the columns; so it does with `keys` or `fields`.
        has_probability: whether the first column is the facts' probability.
        keys: the columns (or the one) that identify a row; the relation is then
            `(*keys, field, value)`, with a tuple for each other column of each row.
        fields: the columns to take, in this order; all if None.
    """

    path: str
    deliminator: str | None = None
    has_header: bool = False
    has_probability: bool = False
    keys: Sequence[str] | None = None
    fields: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name in ("keys", "fields"):
            columns = getattr(self, name)
            if isinstance(columns, str):
                columns = [columns]
            elif columns is not None and not all(isinstance(column, str) for column in columns):
                raise ByssusError(f"{name}={columns!r}: give a list of columns' names")
            object.__setattr__(self, name, columns if columns is None else list(columns))
        if self.deliminator is not None and len(self.deliminator) != 1:
            raise ByssusError(f"deliminator={self.deliminator!r}: give one character")
        header = self.has_header or self.keys is not None or self.fields is not None
        object.__setattr__(self, "has_header", header)

    def with_deliminator(self, deliminator: str) -> CSVFileOptions:
        """The same with another deliminator."""
        return replace(self, deliminator=deliminator)

    def with_fields(self, fields: Sequence[str] | None) -> CSVFileOptions:
        """The same with these columns only."""
        return replace(self, fields=fields)

    def with_keys(self, keys: Sequence[str] | str | None) -> CSVFileOptions:
        """The same with other columns that identify a row."""
        return replace(self, keys=keys)
