"""Programs from files, with what they import."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from byssus import ByssusError

from . import _parser
from ._syntax import Import, Item, Source, Span

__all__ = ["beside", "load"]


def beside(path: str, span: Span) -> Path:
    """A path of a program: relative to the program's file, else to where we are."""
    file = span.source.file
    if file is not None and not Path(path).is_absolute():
        there = Path(file).parent / path
        if there.exists():
            return there
    return Path(path)


def load(source: str | Path | Source, imported: Collection[str] = ()) -> list[Item]:
    """The items of a program, and of all that it imports, each file once.

    Args:
        source: a file, or a text.
        imported: files that are already there, as absolute paths.

    Raises:
        ProgramError: a syntax error; an import that is not there, or that imports itself.
    """
    if not isinstance(source, Source):
        source = _read(Path(source), None)
    return _Loader(imported).load(source)


class _Loader:
    def __init__(self, imported: Collection[str]) -> None:
        self.done = set(imported)
        self.items: list[Item] = []

    def load(self, root: Source) -> list[Item]:
        # A frame for each file that is being read: its path and the items that are left.
        frames = [(_key(root.file), iter(_parser.parse_program(root)))]
        while frames:
            path, items = frames[-1]
            item = next(items, None)
            if item is None:
                frames.pop()
                if path is not None:
                    self.done.add(path)
            elif not isinstance(item, Import):
                self.items.append(item)
            else:
                file = beside(item.path, item.span)
                key = _key(str(file))
                chain = [name for name, _ in frames]
                if key in chain:
                    names = [Path(name).name for name in chain[chain.index(key) :] if name]
                    cycle = " -> ".join([*names, file.name])
                    raise item.span.error(
                        f"the import of {item.path!r} is cyclic: {cycle}; move what both need "
                        "into a file of its own"
                    )
                if key not in self.done:
                    frames.append((key, iter(_parser.parse_program(_read(file, item.span)))))
        return self.items


def _key(file: str | None) -> str | None:
    return None if file is None else str(Path(file).resolve())


def _read(path: Path, span: Span | None) -> Source:
    try:
        return Source(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        message = f"cannot read the program {str(path)!r}: {reason}"
        if span is not None:
            raise span.error(message) from None
        raise ByssusError(message) from None
