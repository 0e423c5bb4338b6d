"""What language models answered, and what that cost: a SQLite file that processes share.

A reply is stored under a digest of its request, so it is asked for once. Spending is counted under
the names of black boxes: before a call the most that it can cost is *reserved*, where all processes
see it, and afterwards its cost takes the place of the reservation. A process that is killed leaves
its reservations behind, and they count as spent: its calls may have been made.

Reading never writes: not to the file, and at rest not beside it either.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from byssus.errors import BudgetExceeded, CacheError

__all__ = ["Cache", "Cost", "Entry", "get_cache", "key_of"]

_FORMAT = 1
_PATIENCE = 30.0  # seconds to wait while others write
_REMEMBERED = 16 * 2**20  # characters of JSON that are kept in memory
_PAGE = 500  # entries that are read at once
_DOLLAR = 10**12  # picodollars: sums of whole numbers are exact, those of fractions are not
_LARGEST = 2**53  # of any count: servers say how many tokens were used, and are not believed

_TABLES = sql.MetaData()
_FORMATS = sql.Table("byssus_cache", _TABLES, sql.Column("format", sql.Integer, nullable=False))
_ENTRIES = sql.Table(
    "entries",
    _TABLES,
    sql.Column("key", sql.Text, primary_key=True),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("request", sql.Text, nullable=False),  # JSON, as are replies
    sql.Column("reply", sql.Text, nullable=False),
    sql.Column("created", sql.Float, nullable=False),  # seconds since 1970
)


def _amounts() -> Iterator[sql.Column[int]]:
    names = ("calls", "input_tokens", "output_tokens", "picodollars")
    return (sql.Column(name, sql.BigInteger, nullable=False) for name in names)


# What each name has spent, with what it has reserved; and the reservations.
_SPENT = sql.Table("spent", _TABLES, sql.Column("name", sql.Text, primary_key=True), *_amounts())
_RESERVED = sql.Table(
    "reserved",
    _TABLES,
    sql.Column("id", sql.BigInteger().with_variant(sql.Integer, "sqlite"), primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    *_amounts(),
)
_AMOUNTS = tuple(_SPENT.c)[1:]

Reply: TypeAlias = dict[str, Any]
"""A JSON object: what a server answered."""


class Cost(NamedTuple):
    """What calls cost.

    Attributes:
        calls: how many there were.
        input_tokens: the tokens of their prompts.
        output_tokens: the tokens of their answers.
        usd: US dollars.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0

    @property
    def tokens(self) -> int:
        """Those of prompts and answers together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Cost) -> Cost:  # type: ignore[override]
        return Cost(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.usd + other.usd,
        )

    def __sub__(self, other: Cost) -> Cost:
        return self + Cost(-other.calls, -other.input_tokens, -other.output_tokens, -other.usd)


class Entry(NamedTuple):
    """A reply, with what it answers.

    Attributes:
        key: the digest of the request.
        model: the server's name of the model.
        request: the messages and settings that were sent.
        reply: what the server answered.
        created: when, in seconds since 1970.
    """

    key: str
    model: str
    request: dict[str, Any]
    reply: Reply
    created: float


class _Row(NamedTuple):
    """An entry as it is stored."""

    key: str
    model: str
    request: str
    reply: str
    created: float

    def entry(self) -> Entry:
        request, reply = _parsed(self.key, self.request), _parsed(self.key, self.reply)
        return Entry(self.key, self.model, request, reply, self.created)


class _Settlement(NamedTuple):
    """The end of a reservation; a cost of None is that which was reserved."""

    reservation: int
    cost: Cost | None = None
    row: _Row | None = None


def key_of(request: Mapping[str, Any]) -> str:
    """The SHA-256 digest of a request, 64 hexadecimal digits: of its JSON with sorted keys.

    Raises:
        CacheError: for a request that is no JSON.
    """
    return hashlib.sha256(_canonical(request).encode()).hexdigest()


def _parsed(key: str, text: str) -> Reply:
    try:
        reply: Reply = json.loads(text)
    except ValueError as error:
        raise CacheError(
            f"the entry {key[:12]} of the cache is no JSON ({error}): somebody has changed it. "
            "Give cache= another file, or bring back a copy of this one"
        ) from None
    return reply


def get_cache(path: str | os.PathLike[str]) -> Cache:
    """The cache at a path: one object in this process."""
    return _cache_of(_absolute(path))


class Cache:
    """Replies and spending, for any number of threads and processes.

    Nothing is opened or made until it is needed. What was stored is there after the process is
    killed; what could not be stored (the disk is full) stays in memory, and is stored before
    anything else is.

    Args:
        path: the file, made with its folder when something is first written.

    Raises:
        CacheError: by every method, if the file cannot be read or written, is no cache, or is one
            of another version. Nothing is changed then.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(_absolute(path))
        if "\0" in str(self.path):
            raise CacheError(f"{path!r} cannot be the path of a cache: it holds a NUL")
        self._lock = threading.Lock()
        self._reading: sql.Connection | None = None
        self._writing: sql.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._pending: list[_Settlement] = []
        # As text: a hundred thousand small lists would keep the garbage collector busy.
        self._recent: OrderedDict[str, str] = OrderedDict()
        self._remembered = 0
        _CACHES.add(self)

    def __repr__(self) -> str:
        return f"Cache({str(self.path)!r})"

    def __reduce__(self) -> tuple[Callable[..., Cache], tuple[str]]:
        return get_cache, (str(self.path),)

    # Replies

    def get(self, key: str) -> Reply | None:
        """The stored reply, or None if there is none."""
        with self._lock:
            if key in self._recent:
                self._recent.move_to_end(key)
                return _parsed(key, self._recent[key])
            for settlement in self._pending:
                if settlement.row is not None and settlement.row.key == key:
                    return settlement.row.entry().reply
            with self._reader() as connection:
                found = connection and connection.execute(_REPLY, {"key": key}).scalar()
            return self._remember(key, found) if found else None

    def store(
        self,
        key: str,
        *,
        request: Mapping[str, Any],
        reply: Mapping[str, Any],
        cost: Cost,
        reservation: int,
    ) -> Reply:
        """Store a reply, unless there is one, and its cost in the place of what was reserved.

        Returns:
            The reply that is stored now: the first one, if there was one already.

        Raises:
            CacheError: if it cannot be written. It is kept in memory: `get` finds it, and the next
                write stores it.
        """
        row = _Row(
            key, _text(request.get("model")), _canonical(request), json.dumps(reply), time.time()
        )
        stored = self._settle(_Settlement(reservation, cost, row))
        with self._lock:
            return self._remember(key, stored or row.reply)

    # Spending

    def reserve(
        self,
        name: str,
        most: Cost,
        limits: Mapping[str, float],
        everything: Mapping[str, float] = {},
    ) -> int:
        """Count what a call costs at most as spent, before it is made.

        Args:
            name: who spends.
            most: the most that the call can cost.
            limits: the most that the name may spend, of "calls", "tokens" and "usd".
            everything: the most that all names together may spend.

        Returns:
            The reservation, which `store`, `release` or `keep` ends.

        Raises:
            BudgetExceeded: if that would be more than a limit. Nothing is reserved then.
            CacheError: if it cannot be written.
        """
        name, amounts = _text(name), _row_of(most)
        reservation = secrets.randbits(62)
        with self._lock, self._transaction() as connection:
            if limits:
                spent = connection.execute(_SPENT_BY, {"by": name}).first()
                _check(spent, amounts, limits, name, "its budget")
            if everything:
                spent = connection.execute(_TOTAL).first()
                _check(spent, amounts, everything, name, f"the budget of all of {self.path}")
            connection.execute(_ADD_SPENT, {"name": name, **amounts})
            connection.execute(_ADD_RESERVED, {"id": reservation, "name": name, **amounts})
        return reservation

    def release(self, reservation: int) -> None:
        """End a reservation of a call that cost nothing."""
        with suppress(CacheError):  # it is pending, and the next to write says why
            self._settle(_Settlement(reservation, Cost()))

    def keep(self, reservation: int) -> None:
        """End a reservation of a call whose cost is unknown: what was reserved is spent."""
        with suppress(CacheError):
            self._settle(_Settlement(reservation))

    def spent(self, name: str | None = None) -> Cost:
        """What a name has spent and reserved; or all of them together."""
        with self._lock, self._reader() as connection:
            if connection is None:
                return Cost()
            row = (
                connection.execute(_TOTAL).first()
                if name is None
                else connection.execute(_SPENT_BY, {"by": _text(name)}).first()
            )
        return _cost(row)

    def spenders(self) -> dict[str, tuple[Cost, Cost]]:
        """For each name what it has spent, and what of that is only reserved.

        Reserved are calls under way, and those of processes that were killed.
        """
        with self._lock, self._reader() as connection:
            if connection is None:
                return {}
            spent = connection.execute(sql.select(_SPENT).order_by(_SPENT.c.name)).all()
            sums = [sql.func.sum(_RESERVED.c[amount.name]) for amount in _AMOUNTS]
            reserved = {
                row[0]: _cost(row[1:])
                for row in connection.execute(
                    sql.select(_RESERVED.c.name, *sums).group_by(_RESERVED.c.name)
                )
            }
        return {row[0]: (_cost(row[1:]), reserved.get(row[0], Cost())) for row in spent}

    def reset(self, name: str) -> Cost:
        """Forget what a name has spent, and return it. Calls under way will count from here."""
        with self._lock, self._transaction() as connection:
            spent = _cost(connection.execute(_SPENT_BY, {"by": _text(name)}).first())
            connection.execute(sql.delete(_SPENT).where(_SPENT.c.name == _text(name)))
            connection.execute(
                sql.update(_RESERVED)
                .where(_RESERVED.c.name == _text(name))
                .values(dict.fromkeys((amount.name for amount in _AMOUNTS), 0))
            )
        return spent

    # All entries

    def models(self) -> dict[str, int]:
        """How many entries each model has."""
        query = sql.select(_ENTRIES.c.model, sql.func.count()).group_by(_ENTRIES.c.model)
        with self._lock, self._reader() as connection:
            return {row[0]: row[1] for row in connection.execute(query)} if connection else {}

    def entries(self) -> Iterator[Entry]:
        """The entries, in the order of their keys."""
        page: list[_Row] = []
        while True:
            query = sql.select(_ENTRIES).order_by(_ENTRIES.c.key).limit(_PAGE)
            if page:
                query = query.where(_ENTRIES.c.key > page[-1].key)
            with self._lock, self._reader() as connection:
                page = [_Row(*row) for row in connection.execute(query)] if connection else []
            if not page:
                return
            for row in page:
                yield row.entry()

    def add(self, entries: Iterable[Entry]) -> int:
        """Store entries, all or none; those whose keys are there already are left as they are.

        Returns:
            How many were new.
        """
        rows = [
            _Row(
                entry.key,
                _text(entry.model),
                _canonical(entry.request),
                json.dumps(entry.reply),
                entry.created,
            )._asdict()
            for entry in entries
        ]
        with self._lock, self._transaction() as connection:
            return sum(connection.execute(_ADD_ENTRY, row).rowcount for row in rows)

    def remove(self, keys: Iterable[str]) -> int:
        """Remove entries, and give their room on disk back; return how many there were."""
        keys = list(keys)
        with self._lock, self._transaction() as connection:
            statement = sql.delete(_ENTRIES).where(_ENTRIES.c.key == sql.bindparam("by"))
            removed = sum(connection.execute(statement, {"by": key}).rowcount for key in keys)
            for key in keys:
                self._remembered -= len(self._recent.pop(key, ""))
        with self._lock, self._named_errors(), suppress(sqlite3.OperationalError):  # others read it
            self._writer().connection.cursor().execute("VACUUM")
        return removed

    def close(self) -> None:
        """Write what is pending and close the file; it is opened again when it is needed.

        Raises:
            CacheError: if what is pending cannot be written.
        """
        with self._lock, self._named_errors():
            try:
                if self._pending:
                    self._flush(self._writer())
            finally:
                # What was removed or replaced is not ours to put in order.
                self._check_identity()
                self._put_to_rest()
                self._disconnect()

    # Inside: all of it under the lock

    def _remember(self, key: str, text: str) -> Reply:
        self._remembered += len(text) - len(self._recent.pop(key, ""))
        self._recent[key] = text
        while self._remembered > _REMEMBERED:
            self._remembered -= len(self._recent.popitem(last=False)[1])
        return _parsed(key, text)

    def _settle(self, settlement: _Settlement) -> str | None:
        """End a reservation, now or when something can be written; return the stored reply."""
        with self._lock, self._named_errors():
            self._pending.append(settlement)
            return self._flush(self._writer())

    def _flush(self, connection: sql.Connection) -> str | None:
        """Write what is pending; return the stored reply of the last."""
        stored = None
        while self._pending:
            with connection.begin():
                stored = _settle(connection, self._pending[0])
            # An interrupt may come here: to settle twice is to settle once.
            del self._pending[0]
        return stored

    def _writer(self) -> sql.Connection:
        self._check_identity()
        if self._writing is None:
            self._writing = _open_to_write(self.path)
            self._identity = _identity(self.path)
        return self._writing

    @contextmanager
    def _reader(self) -> Iterator[sql.Connection | None]:
        """A connection that reads, or None where there is nothing to read yet."""
        with self._named_errors():
            self._check_identity()
            if self._reading is None and self._identity is not None:
                self._reading = _open_to_read(self.path)
            yield self._reading

    @contextmanager
    def _transaction(self) -> Iterator[sql.Connection]:
        """One transaction that writes, after those that are pending."""
        with self._named_errors():
            connection = self._writer()
            self._flush(connection)
            with connection.begin():
                yield connection

    def _check_identity(self) -> None:
        """Let go of a file that was removed or replaced."""
        identity = _identity(self.path)
        if identity != self._identity:
            self._disconnect()
            self._identity = identity

    def _disconnect(self) -> None:
        reading, writing = self._reading, self._writing
        self._reading = self._writing = self._identity = None
        if reading is not None:
            reading.close()
        if writing is not None:
            writing.close()

    def _put_to_rest(self) -> None:
        """Leave one file with everything in it, which can be read with no others beside it."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None
        if self._writing is not None:
            cursor = self._writing.connection.cursor()
            cursor.execute("PRAGMA busy_timeout = 0")
            with suppress(sqlite3.Error):  # others have it open
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                cursor.execute("PRAGMA journal_mode = DELETE")

    def _abandon(self) -> None:
        """Leave everything to the process that this one was forked from."""
        _INHERITED.append((self._reading, self._writing))
        self._lock = threading.Lock()
        self._reading = self._writing = self._identity = None
        self._pending = []

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._error(error.orig) from error
        except (OSError, sqlite3.Error) as error:
            raise self._error(error) from error

    def _error(self, error: BaseException | None) -> CacheError:
        name = getattr(error, "sqlite_errorname", "")
        mend = next(
            (mend for start, mend in _MENDS.items() if name.startswith(start)),
            "check its folder, or give another path",
        )
        kept = sum(settlement.row is not None for settlement in self._pending)
        pending = f" (replies that wait in memory to be written: {kept})" if kept else ""
        return CacheError(f"the cache {self.path}: {error}{pending}; {mend}")


_MENDS = {
    "SQLITE_FULL": "make room on its disk",
    "SQLITE_IOERR": "make room on its disk, or check it",
    "SQLITE_READONLY": 'make it writable, give another path, or only read it, by mode="replay"',
    "SQLITE_BUSY": f"another process has written to it for {_PATIENCE:.0f} s: end it",
    "SQLITE_NOTADB": "give another path: that is no SQLite database, and it was left as it is",
    "SQLITE_CORRUPT": "move it away, and begin a new one",
}


def _open(path: Path, **options: str) -> sql.Engine:
    if path.is_dir():
        raise CacheError(f"the cache {path} is a folder: give the path of a file")
    url = sql.URL.create("sqlite", database=path.as_uri(), query={"uri": "true", **options})
    engine = sql.create_engine(
        url,
        poolclass=NullPool,
        connect_args={"timeout": _PATIENCE, "check_same_thread": False},
        hide_parameters=True,
    )

    # SQLAlchemy's recipe: begin and commit as we say, and not where Python's driver guesses.
    @event.listens_for(engine, "connect")
    def _(connection: Any, _: object) -> None:
        connection.isolation_level = None

    return engine


def _open_to_read(path: Path) -> sql.Connection | None:
    """A connection that never writes; None for a file in which nothing was made yet."""
    try:
        return _checked(_open(path, mode="ro"), path)
    except DBAPIError as error:
        name = getattr(error.orig, "sqlite_errorname", "")
        if not name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
            raise
        if _is_in_use(path):
            # A process was killed. To put in order what it left is to write.
            _open_to_write(path).close()
            return _checked(_open(path, mode="ro"), path)
        # Nothing can be locked where nothing can be written.
        return _checked(_open(path, mode="ro", immutable="1"), path)


def _checked(engine: sql.Engine, path: Path) -> sql.Connection | None:
    connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        if _is_made(connection, path):
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


def _open_to_write(path: Path) -> sql.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = _open(path, mode="rwc")
    connection = engine.connect()
    try:
        # Before anything changes, so that a file of another kind stays as it is.
        with connection.begin():
            _is_made(connection, path)
        cursor = connection.connection.cursor()
        with suppress(sqlite3.OperationalError):  # it can be written without, only slower
            cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        event.listen(engine, "begin", _begin)
        with connection.begin():
            if not _is_made(connection, path):
                _TABLES.create_all(connection)
                connection.execute(sql.insert(_FORMATS), {"format": _FORMAT})
    except BaseException:
        connection.close()
        raise
    return connection


def _begin(connection: sql.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _is_made(connection: sql.Connection, path: Path) -> bool:
    """Whether the tables are there; raises if others are, or those of another version."""
    tables = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
    if not tables:
        return False
    if _FORMATS.name not in tables:
        raise CacheError(
            f"{path} is a SQLite database, and no cache of byssus: give another path; it was left "
            "as it is"
        )
    version = connection.execute(sql.select(_FORMATS.c.format)).scalar()
    if version != _FORMAT:
        raise CacheError(
            f"the cache {path} is of format {version}, and this version of byssus has format "
            f"{_FORMAT}: export it with the version that wrote it (`byssus cache export`) and "
            "import it into another path; it was left as it is"
        )
    return True


def _is_in_use(path: Path) -> bool:
    """Whether a log beside the file holds what belongs into it."""
    logs = (path.with_name(path.name + suffix) for suffix in ("-wal", "-journal"))
    return any(log.exists() and log.stat().st_size > 0 for log in logs)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 (twice as fast, and once a call)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


_REPLY = sql.select(_ENTRIES.c.reply).where(_ENTRIES.c.key == sql.bindparam("key"))
_SPENT_BY = sql.select(*_AMOUNTS).where(_SPENT.c.name == sql.bindparam("by"))
_TOTAL = sql.select(*(sql.func.sum(amount) for amount in _AMOUNTS))
_ADD_ENTRY = insert(_ENTRIES).on_conflict_do_nothing()
_ADD_RESERVED = sql.insert(_RESERVED)
_new = insert(_SPENT)
_ADD_SPENT = _new.on_conflict_do_update(
    index_elements=[_SPENT.c.name],
    set_={amount.name: amount + _new.excluded[amount.name] for amount in _AMOUNTS},
)
_END_RESERVED = (
    sql.delete(_RESERVED)
    .where(_RESERVED.c.id == sql.bindparam("by"))
    .returning(*tuple(_RESERVED.c)[1:])
)


def _settle(connection: sql.Connection, settlement: _Settlement) -> str | None:
    """End a reservation, if it has not ended; return the reply that is stored."""
    ended = connection.execute(_END_RESERVED, {"by": settlement.reservation}).first()
    if ended is not None and settlement.cost is not None:
        name, *reserved = ended
        cost = _row_of(settlement.cost)
        change = {
            amount: cost[amount] - before for amount, before in zip(cost, reserved, strict=True)
        }
        if any(change.values()):
            connection.execute(_ADD_SPENT, {"name": name, **change})
    row = settlement.row
    if row is None:
        return None
    if connection.execute(_ADD_ENTRY, row._asdict()).rowcount:
        return row.reply
    return str(connection.execute(_REPLY, {"key": row.key}).scalar())


def _check(
    spent: Iterable[Any] | None,
    more: Mapping[str, int],
    limits: Mapping[str, float],
    name: str,
    whose: str,
) -> None:
    before = dict(zip(more, _whole(spent), strict=True))
    for unit, limit in limits.items():
        columns, size = _UNITS[unit]
        held, added = (sum(row[column] for column in columns) for row in (before, more))
        if held + added > limit * size * (1 + 1e-14):  # 0.3 * 10**12 is a little less
            shown = [f"{value:,.10g} {unit}" for value in (added / size, limit, held / size)]
            raise BudgetExceeded(
                f"{name}: one more call, of at most {shown[0]}, would exceed {whose}, {shown[1]}: "
                f"{shown[2]} are spent, or reserved for calls under way. Raise the budget, or "
                "forget what was spent: `byssus cache spent --reset NAME`"
            )


_UNITS = {
    "calls": (("calls",), 1),
    "tokens": (("input_tokens", "output_tokens"), 1),
    "usd": (("picodollars",), _DOLLAR),
}


def _row_of(cost: Cost) -> dict[str, int]:
    amounts = (*cost[:3], cost.usd * _DOLLAR)
    return {
        column.name: round(min(max(0, amount), _LARGEST))
        for column, amount in zip(_AMOUNTS, amounts, strict=True)
    }


def _cost(row: Iterable[Any] | None) -> Cost:
    calls, inputs, outputs, picodollars = _whole(row)
    return Cost(calls, inputs, outputs, picodollars / _DOLLAR)


def _whole(row: Iterable[Any] | None) -> list[int]:
    """A row of amounts; nothing was spent where there is none."""
    return [amount or 0 for amount in row or (0,) * len(_AMOUNTS)]


def _canonical(request: Mapping[str, Any]) -> str:
    # All of it ASCII: JSON's escapes stand for what SQLite's text cannot hold.
    try:
        return json.dumps(request, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CacheError(f"a request that is no JSON has no place in a cache: {error}") from error


def _text(value: object) -> str:
    """A name as SQLite can hold it: lone surrogates are escaped."""
    return str(value).encode(errors="backslashreplace").decode()


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111


_CACHES: weakref.WeakSet[Cache] = weakref.WeakSet()
# A forked process must not close, which is to unlock, what it shares with its parent.
_INHERITED: list[object] = []


@functools.cache
def _cache_of(path: str) -> Cache:
    return Cache(path)


def _abandon_all() -> None:
    for cache in list(_CACHES):
        cache._abandon()


def _close_all() -> None:
    for cache in list(_CACHES):
        try:
            cache.close()
        except CacheError as error:
            warnings.warn(f"lost at the end of this process: {error}", RuntimeWarning, stacklevel=1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
atexit.register(_close_all)
