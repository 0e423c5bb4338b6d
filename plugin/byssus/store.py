"""A store for compiled circuits: a folder that processes share."""

from __future__ import annotations

import hashlib
import json
import operator
import os
import re
import secrets
import stat
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from byssus import _sdd
from byssus.errors import ByssusError
from byssus.formula import Formula

__all__ = ["Store"]

_FORMAT = "byssus-circuit 1"
_SUFFIX = ".circuit"
# Nothing else is ever removed: the folder may be somebody's.
_NAME = re.compile(r"[0-9a-f]{64}\.circuit")
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_KINDS: dict[str, type[_sdd.Diagram]] = {
    kind.__name__: kind for kind in (_sdd.Decisions, _sdd.Products)
}

_RATIO = 100  # what claims to unpack to more than so many times its size is refused
# Not to wait for whoever writes to a pipe; and what Windows needs.
_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_BLOCK = 4096  # bytes: a file takes whole blocks of the disk
_LEFTOVER = 3600.0  # seconds after which a temporary file belongs to a writer that was killed
_AFTER_SWEEP = 0.9  # so much of the bound is kept, so that not every new file starts a sweep


class Stored(NamedTuple):
    """A diagram, and what its compilation found out.

    Attributes:
        diagram: itself.
        vtree: the name of its vtree.
        sizes: for each vtree that was tried the number of nodes, or None.
    """

    diagram: _sdd.Diagram
    vtree: str
    sizes: dict[str, int | None]


class _Refused(Exception):  # noqa: N818
    """A file that is not what its name says; the argument says why."""


class Store:
    """Compiled circuits in a folder: what one process has compiled, no other compiles again.

    A circuit is found by a hash of everything that it depends on: the ground program with its
    facts and the answers of its black boxes, the vtree, and the versions of byssus and PySDD.
    Probabilities are not part of it. A file is checked when it is read, in its checksum and in its
    structure; one that is damaged, or is not what its name says, is reported by a `RuntimeWarning`
    and compiled anew. Nothing in it is executed. Who can write to the folder can still put a
    well-formed wrong circuit there: share it with those whose results you would trust.

    Any number of processes may use one folder at once, and be killed at any time. A folder that
    cannot be written to is a `RuntimeWarning`, and one circuit less in it.

    Args:
        path: the folder; it is made when it is first needed.
        max_bytes: the size that the folder may have; beyond, the circuits go that were not used
            for the longest time. Where several processes write at once it may be exceeded by a
            twentieth for each.

    Attributes:
        path: the folder.
        max_bytes: the size that it may have.
        hits: the circuits that this object has found.
        misses: those that it has not, and that were compiled.

    Example:
        >>> import tempfile
        >>> nodes = ("literal", (0, 1)), ("literal", (1, 1)), ("or", (1, 2))
        >>> either = Formula((2, 2), nodes, roots=(3,))
        >>> store = Store(tempfile.mkdtemp())
        >>> for _ in range(2):
        ...     circuit = Circuit.compile(either, store=store)
        >>> len(store), store.hits, store.misses
        (1, 1, 1)
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int = 1_000_000_000) -> None:
        if not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < 1:
            raise ByssusError(
                f"max_bytes={max_bytes!r}: the bytes that a store may take, 1 or more"
            )
        self.path = Path(path).expanduser()
        self.max_bytes = max_bytes
        self.hits = self.misses = 0
        self._held: int | None = None  # bytes; None before the first sweep
        self._added = 0  # bytes since the last sweep

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, max_bytes={self.max_bytes})"

    def __len__(self) -> int:
        return len(self._files())

    def __bool__(self) -> bool:
        return True  # an empty store is a store

    @property
    def size(self) -> int:
        """The bytes that its circuits take on the disk."""
        return sum(_on_disk(entry) for entry in self._files().values())

    def clear(self) -> None:
        """Remove all circuits."""
        for path in self._files():
            _remove(path)
        self._held, self._added = None, 0

    # What `Circuit.compile` uses

    @staticmethod
    def key(formula: Formula, order: Sequence[int] | None, vtree: str) -> str:
        """The name of a circuit: a hash of all that it depends on."""
        from byssus import __version__

        spec = [
            [_FORMAT, __version__, version("pysdd")],
            [formula.widths, formula.nodes, formula.roots, formula.cycles],
            [None if order is None else list(order), vtree],
        ]
        text = json.dumps(spec, separators=(",", ":"), default=operator.index)
        return hashlib.sha256(text.encode()).hexdigest()

    def load(self, key: str, formula: Formula) -> Stored | None:
        """What is stored under this key; None if nothing is, or nothing that can be right."""
        path = self.path / (key + _SUFFIX)
        found = None
        try:
            found = _unpack(self._read(path), key, formula, self.max_bytes)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            self._warn(f"{path} cannot be read ({error}); the circuit is compiled anew")
        except _Refused as refused:
            self._warn(f"{path} is refused ({refused}); the circuit is compiled anew")
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        with suppress(OSError):  # where it is not ours, its age is its writer's affair
            os.utime(path)
        return found

    def save(self, key: str, stored: Stored) -> None:
        """Store a circuit; where that fails, warn."""
        content = _pack(stored, key, self.max_bytes)
        if content is None:
            self._warn(
                f"a circuit is larger than all of the store {self.path} may be, max_bytes="
                f"{self.max_bytes}; it is not stored"
            )
            return
        try:
            self._write(self.path / (key + _SUFFIX), content)
        except OSError as error:
            self._warn(f"a circuit cannot be stored in {self.path} ({error})")
            return
        size = _blocks(len(content))
        self._added += size
        if self._held is None or self._added > self.max_bytes // 20:
            self._sweep()
        else:
            self._held += size
            if self._held > self.max_bytes:
                self._sweep()

    # Files

    def _read(self, path: Path) -> bytes:
        descriptor = os.open(path, _READING)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _Refused("it is no file")
            if status.st_size > self.max_bytes:
                raise _Refused(f"it has {status.st_size} bytes, and max_bytes={self.max_bytes}")
            return file.read(status.st_size + 1)

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file so that others see all of it or nothing, whatever happens here."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{secrets.token_hex(8)}.tmp"
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            _remove(temporary)
            raise

    def _files(self) -> dict[Path, os.stat_result]:
        return {path: status for path, status in self._entries() if _NAME.fullmatch(path.name)}

    def _entries(self) -> Iterator[tuple[Path, os.stat_result]]:
        with suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(OSError):  # another process has just removed it
                    yield Path(entry.path), entry.stat(follow_symlinks=False)

    def _sweep(self) -> None:
        """Remove what killed writers left; and the least recently used circuits, if too large."""
        self._added = 0
        used: list[tuple[int, int, Path]] = []
        for path, status in self._entries():
            if _NAME.fullmatch(path.name):
                used.append((status.st_mtime_ns, _on_disk(status), path))
            elif _TEMPORARY.fullmatch(path.name) and time.time() - status.st_mtime > _LEFTOVER:
                _remove(path)
        held = sum(size for _, size, _ in used)
        if held > self.max_bytes:
            for _, size, path in sorted(used)[:-1]:
                if held <= _AFTER_SWEEP * self.max_bytes:
                    break
                if _remove(path):
                    held -= size
        self._held = held

    def _warn(self, text: str) -> None:
        warnings.warn(text, RuntimeWarning, stacklevel=4)


def find_store(store: Store | str | os.PathLike[str] | bool | None) -> Store | None:
    """The store that an argument `store=` means: None is that of `BYSSUS_STORE`, False is none."""
    if store is None:
        store = os.environ.get("BYSSUS_STORE") or False
    if store is False:
        return None
    if isinstance(store, str | os.PathLike):
        return _store_of(os.path.abspath(os.path.expanduser(store)))  # noqa: PTH100, PTH111
    if not isinstance(store, Store):
        raise ByssusError(
            f"store={store!r}: a byssus.Store, the path of one, None for that of BYSSUS_STORE, or "
            "False for none"
        )
    return store


@cache
def _store_of(path: str) -> Store:
    """One object a folder, which remembers how much it has written."""
    return Store(path)


def _pack(stored: Stored, key: str, max_bytes: int) -> bytes | None:
    """A file's content: format and checksum; a header; the diagram. None if it is too large."""
    text = json.dumps(stored.diagram, separators=(",", ":")).encode()
    packed = zlib.compress(text, 6)
    if len(text) > _RATIO * len(packed):
        packed = text
    header = {
        "key": key,
        "kind": type(stored.diagram).__name__,
        "vtree": stored.vtree,
        "sizes": stored.sizes,
        "bytes": len(text),
        "packed": packed is not text,
    }
    body = json.dumps(header).encode() + b"\n" + packed
    content = f"{_FORMAT} {hashlib.sha256(body).hexdigest()}\n".encode() + body
    return None if max(len(text), _blocks(len(content))) > max_bytes else content


def _unpack(content: bytes, key: str, formula: Formula, max_bytes: int) -> Stored:
    """The diagram of a file; raises `_Refused` if it cannot be right."""
    match = re.match(re.escape(_FORMAT).encode() + rb" ([0-9a-f]{64})\n", content)
    if match is None:
        raise _Refused(f"it does not begin with {_FORMAT!r}")
    body = content[match.end() :]
    if hashlib.sha256(body).hexdigest().encode() != match[1]:
        raise _Refused("its checksum is wrong")
    line, _, packed = body.partition(b"\n")
    try:
        header = json.loads(line)
        if header["key"] != key:
            raise _Refused("it is another circuit's")
        size = header["bytes"]
        if type(size) is not int or not 0 <= size <= min(max_bytes, _RATIO * len(packed)):
            raise _Refused(f"it claims to unpack to {size} bytes")
        text = packed
        if header["packed"]:
            inflater = zlib.decompressobj()
            text = inflater.decompress(packed, size + 1)
            if not inflater.eof or inflater.unused_data:
                raise _Refused("it unpacks to another size than it claims")
        if len(text) != size:
            raise _Refused("it unpacks to another size than it claims")
        diagram = _KINDS[header["kind"]](*json.loads(text))
        vtree, sizes = header["vtree"], header["sizes"]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, zlib.error) as error:
        raise _Refused(f"it cannot be read: {error!r}") from error
    if not (isinstance(vtree, str) and isinstance(sizes, Mapping) and _are_sizes(sizes)):
        raise _Refused("its header is wrong")
    if not (_sdd.well_formed(formula.widths, diagram) and len(diagram.roots) == len(formula.roots)):
        raise _Refused("its diagram is not well-formed")
    return Stored(diagram, vtree, dict(sizes))


def _are_sizes(sizes: Mapping[Any, Any]) -> bool:
    return all(size is None or type(size) is int for size in sizes.values())


def _on_disk(status: os.stat_result) -> int:
    return _blocks(status.st_size)


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
