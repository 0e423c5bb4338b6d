"""`byssus cache`: look at a cache of answers, prune it, move it."""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from byssus.errors import ByssusError, CacheError, listed
from byssus.llm import _settings
from byssus.llm.cache import Cache, Cost, Entry, key_of

__all__ = ["run"]

_WIDTH = 60
"""So much of a prompt or an answer is listed."""


def run(options: argparse.Namespace) -> None:
    """Do what the command line says; see `byssus cache --help`."""
    path = _settings.cache_path() if options.cache is None else Path(options.cache)
    if options.action != "import" and not path.exists():
        raise CacheError(f"there is no cache {path}: --cache names another")
    with closing(Cache(path)) as cache:
        try:
            _ACTIONS[options.action](cache, options)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads has seen enough: `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stats(cache: Cache, options: argparse.Namespace) -> None:
    models = cache.models()
    log = cache.path.with_name(cache.path.name + "-wal")
    size = sum(path.stat().st_size for path in (cache.path, log) if path.exists())
    _write(f"{cache.path}: {_counted(sum(models.values()))}, {size:,} bytes")
    for model, count in models.items():
        _write(f"  {model}: {_counted(count)}")
    spent = _write_spent(cache)
    if options.json:
        found = {"path": str(cache.path), "entries": sum(models.values()), "bytes": size}
        _write(json.dumps({**found, "models": models, "spent": spent}))


def _list(cache: Cache, options: argparse.Namespace) -> None:
    count = 0

    def counted() -> Iterator[Entry]:
        nonlocal count
        for count, entry in enumerate(_chosen(cache, options), 1):  # noqa: B007
            yield entry

    limit = options.limit or sys.maxsize
    entries = heapq.nlargest(limit, counted(), key=lambda entry: (entry.created, entry.key))
    for entry in entries:
        _write(
            f"{entry.key[:12]}  {_date(entry.created)}  {entry.model}  "
            f"{_cut(_prompt(entry))} -> {_cut(_answer(entry))}"
        )
    _write(f"{_counted(count)}, of which the newest {len(entries)} are listed")
    if options.json:
        rows = [
            {
                "key": entry.key,
                "model": entry.model,
                "created": entry.created,
                "prompt": _prompt(entry),
                "answer": _answer(entry),
            }
            for entry in entries
        ]
        _write(json.dumps({"count": count, "entries": rows}))


def _show(cache: Cache, options: argparse.Namespace) -> None:
    entry = _named(cache, options.key)
    found = {**entry._asdict(), "created": _date(entry.created)}
    _write(json.dumps(found, indent=2, ensure_ascii=False), newlines=True)


def _prune(cache: Cache, options: argparse.Namespace) -> None:
    chosen = _chosen(cache, options) if options.key is None else [_named(cache, options.key)]
    keys = [entry.key for entry in chosen]
    if options.yes:
        _write(f"removed {_counted(cache.remove(keys))} of {cache.path}")
        return
    count = sum(cache.models().values())
    _write(f"would remove {len(keys):,} of the {_counted(count)} of {cache.path}; --yes does it")


def _export(cache: Cache, options: argparse.Namespace) -> None:
    lines = (
        json.dumps(
            {
                "key": entry.key,
                "request": entry.request,
                "reply": entry.reply,
                "created": entry.created,
            }
        )
        + "\n"
        for entry in cache.entries()
    )
    if options.file == "-":
        sys.stdout.writelines(lines)
        return
    path, count = Path(options.file), 0
    part = path.parent / f".{path.name}.{os.getpid()}.part"
    try:
        if path.exists() and path.samefile(cache.path):
            raise CacheError(f"{path} is the cache itself: give another path")
        # Under its name when it is whole. What is no file (/dev/stdout, a pipe) is written to.
        whole = path.is_file() or not path.exists()
        with part.open("x", encoding="ascii") if whole else path.open("w") as file:
            for count, line in enumerate(lines, 1):  # noqa: B007
                file.write(line)
        if whole:
            part.replace(path)
    except OSError as error:
        raise CacheError(f"{path} cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    _write(f"exported {_counted(count)} of {cache.path}")


def _import(cache: Cache, options: argparse.Namespace) -> None:
    if options.file == "-":
        entries = list(_read(sys.stdin.buffer, "standard input"))
    else:
        try:
            with Path(options.file).open("rb") as file:
                entries = list(_read(file, options.file))
        except OSError as error:
            raise CacheError(f"{options.file} cannot be read: {error}") from error
    new = cache.add(entries)
    _write(f"imported {_counted(new)} into {cache.path}; {len(entries) - new:,} were there already")


def _spent(cache: Cache, options: argparse.Namespace) -> None:
    if options.reset is not None:
        if options.reset not in cache.spenders():
            raise ByssusError(
                f"{options.reset!r} has spent nothing of {cache.path}; there are "
                f"{listed(cache.spenders()) or 'no others'}"
            )
        _write(f"forgot that {options.reset} had spent {_amounts(cache.reset(options.reset))}")
    spent = _write_spent(cache)
    if options.json:
        _write(json.dumps(spent))


_ACTIONS: dict[str, Callable[[Cache, argparse.Namespace], None]] = {
    "stats": _stats,
    "list": _list,
    "show": _show,
    "prune": _prune,
    "export": _export,
    "import": _import,
    "spent": _spent,
}


def _named(cache: Cache, prefix: str) -> Entry:
    entries = [entry for entry in cache.entries() if entry.key.startswith(prefix.lower())]
    if len(entries) != 1:
        found = f" ({listed(entry.key for entry in entries)})" if entries else ""
        raise ByssusError(
            f"the keys of {_counted(len(entries))} of {cache.path} begin with {prefix!r}{found}; "
            "give the beginning of one, as `byssus cache list` shows it"
        )
    return entries[0]


def _chosen(cache: Cache, options: argparse.Namespace) -> Iterator[Entry]:
    age = getattr(options, "older_than", None)
    before = math.inf if age is None else time.time() - age
    for entry in cache.entries():
        if (
            entry.created <= before
            and options.model in (None, entry.model)
            and (options.contains is None or any(options.contains in t for t in _texts(entry)))
        ):
            yield entry


def _texts(entry: Entry) -> Iterable[str]:
    """What was said: the messages, and the answer."""
    yield _answer(entry)
    messages = entry.request.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and isinstance(message.get("content"), str):
            yield message["content"]


def _prompt(entry: Entry) -> str:
    _, *messages = _texts(entry)
    return messages[-1] if messages else ""


def _answer(entry: Entry) -> str:
    content = entry.reply["content"]
    return json.dumps(entry.reply) if content is None else str(content)


def _read(file: BinaryIO, name: str) -> Iterator[Entry]:
    """The entries of JSON lines."""
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield _entry(json.loads(line))
        except (ValueError, RecursionError, CacheError) as error:
            raise CacheError(
                f"{name}, line {number}: {error}; nothing was imported: mend or remove that line"
            ) from error


def _entry(line: Any) -> Entry:
    if not isinstance(line, dict) or not line.keys() <= {"key", "request", "reply", "created"}:
        raise CacheError('an entry is an object of "key", "request", "reply" and "created"')
    request, reply = line.get("request"), line.get("reply")
    if not isinstance(request, dict) or not isinstance(reply, dict):
        raise CacheError('"request" and "reply" are objects')
    if not isinstance(reply.get("content", ...), str | None):
        raise CacheError('a reply has "content", a string or null')
    if line.get("key") != key_of(request):
        raise CacheError(f"the key {line.get('key')!r} is not that of the request")
    created = line.get("created", time.time())
    if type(created) not in (int, float) or not 0 <= created < 2**37:  # dates end with 9999
        raise CacheError(f'"created" is in seconds since 1970, and not {created!r}')
    return Entry(line["key"], str(request.get("model")), request, reply, float(created))


def _write_spent(cache: Cache) -> dict[str, dict[str, Any]]:
    """Say who has spent what; return the same as a JSON object."""
    spenders = cache.spenders()
    for name, (cost, reserved) in spenders.items():
        under_way = f"; of that reserved {_amounts(reserved)}" if any(reserved) else ""
        _write(f"{name} has spent {_amounts(cost)}{under_way}")
    return {
        name: {**cost._asdict(), "reserved": reserved._asdict()}
        for name, (cost, reserved) in spenders.items()
    }


def _amounts(cost: Cost) -> str:
    return f"{cost.calls:,} calls, {cost.tokens:,} tokens, {cost.usd:,.10g} US dollars"


def _counted(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


def _cut(text: str) -> str:
    text = " ".join(text[: 8 * _WIDTH].split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."


def _write(text: str, newlines: bool = False) -> None:
    """A line; what models and data say cannot steer the terminal that it is shown on."""
    text = "".join(
        c if c.isprintable() or (newlines and c == "\n") else json.dumps(c)[1:-1] for c in text
    )
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
