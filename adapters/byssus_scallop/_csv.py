"""Facts from CSV files, and tuples to them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from byssus import ByssusError, ProgramError

from ._values import Dropped, parse, show

__all__ = ["read", "write"]


def read(
    path: str | Path,
    types: Sequence[str],
    *,
    header: bool = False,
    deliminator: str = ",",
    fields: Sequence[str] | None = None,
    keys: str | Sequence[str] | None = None,
    has_probability: bool = False,
) -> Iterator[tuple[float | bool | None, tuple[Any, ...]]]:
    """The facts of a file: `(tag, values)`, one a row but with `keys`.

    Args:
        path: the file.
        types: of the relation's columns.
        header: whether the first row names the columns; with `fields` or `keys` it always does.
        deliminator: the one character between values.
        fields: the columns to take, in this order.
        keys: the columns that identify a row. The relation is then `(*keys, field, value)`, one
            fact for each other column (of `fields`, if given).
        has_probability: whether the first column is the facts' tag: a probability, or a bool.

    Raises:
        ByssusError: if the file does not fit; says the file and the line.
    """
    keys = [keys] if isinstance(keys, str) else keys
    rows = _rows(path, deliminator)
    names: list[str] = []
    if header or fields is not None or keys is not None:
        _, names = next(rows, (1, []))
    first = 1 if has_probability else 0
    width = len(names) or first + len(types)
    columns = list(range(first, width)) if fields is None else _positions(fields, names, path)
    paired: list[int] = []
    if keys is not None:
        rest, columns = columns, _positions(keys, names, path)
        paired = sorted(set(rest) - set(columns))
    expected = len(columns) if keys is None else len(columns) + 2
    if len(types) != expected:
        raise _misfit(
            path, 1, f"A fact of it has {expected} values, but the relation has {len(types)}."
        )
    for line, row in rows:
        if len(row) != width:
            raise _misfit(path, line, f"A row has {len(row)} values, not {width}: {row!r}.")

        cells = _Cells(path, line, row, names)
        tag = cells.tag() if has_probability else None
        values = tuple(map(cells.value, columns, types))
        if keys is None:
            yield tag, values
        for column in paired:
            yield tag, (*values, names[column], cells.value(column, types[-1]))


class _Cells:
    """A row whose cells are parsed; an error says where they stand."""

    def __init__(self, path: str | Path, line: int, row: list[str], names: list[str]) -> None:
        self.path, self.line, self.row, self.names = path, line, row, names

    def value(self, column: int, type_: str) -> Any:
        text = self.row[column]
        try:
            return parse(text, type_)
        except Dropped:
            name = f" ({self.names[column]})" if self.names else ""
            message = f"Column {column + 1}{name} is {text!r}, which is no {type_}."
            raise _misfit(self.path, self.line, message) from None

    def tag(self) -> float | bool:
        if self.row[0] in ("true", "false"):
            return self.row[0] == "true"
        probability: float = self.value(0, "f64")
        if not 0 <= probability <= 1:
            message = f"Column 1 is {self.row[0]!r}, which is no probability from 0 to 1."
            raise _misfit(self.path, self.line, message)
        return probability


def _misfit(path: str | Path, line: int, message: str) -> ProgramError:
    return ProgramError(message, file=str(path), line=line)


def _positions(wanted: Sequence[str], names: list[str], path: str | Path) -> list[int]:
    for name in wanted:
        if name not in names:
            raise _misfit(path, 1, f"There is no column {name!r}, but {', '.join(names)}.")
    return [names.index(name) for name in wanted]


def _rows(path: str | Path, deliminator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows and the lines where they end, without the empty ones."""
    if len(deliminator) != 1 or not deliminator.isascii():
        raise ByssusError(f"The deliminator must be one ASCII character, but is {deliminator!r}.")
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=deliminator)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except OSError as error:
        raise ByssusError(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ByssusError(f"{path} is not UTF-8, but must be: {error}.") from None
    except csv.Error as error:
        raise _misfit(path, reader.line_num, f"It is no CSV: {error}.") from None


def write(
    path: str | Path,
    rows: Iterable[tuple[Any, ...]],
    types: Sequence[str],
    *,
    deliminator: str = ",",
) -> None:
    """Tuples to a file, values as queries print them.

    Raises:
        ByssusError: if the file cannot be written.
    """
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=deliminator, lineterminator="\n")
            writer.writerows([show(*cell) for cell in zip(row, types, strict=True)] for row in rows)
    except OSError as error:
        raise ByssusError(f"Cannot write {path}: {error.strerror}.") from None
