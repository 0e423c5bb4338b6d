"""The cache: nothing lost, doubled or overspent, whatever happens to its processes."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byssus.errors import BudgetExceeded, CacheError
from byssus.llm import cache as module
from byssus.llm.cache import Cache, Cost, Entry, get_cache, key_of

WORKER = Path(__file__).with_name("cache_worker.py")
ONE = Cost(1)
HOSTILE = ["\0", "a\0b", "\ud800", "'; DROP TABLE entries; --", "\x1b[2J", "é🦉\u2028", "x" * 2**20]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "llm.db"


@pytest.fixture
def cache(path: Path) -> Iterator[Cache]:
    cache = Cache(path)
    yield cache
    cache.close()


def request(text: str, **settings: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **settings}


def store(cache: Cache, text: str, answer: str, cost: Cost = ONE, name: str = "box") -> str:
    """Make a call; returns the answer that is stored then."""
    reservation = cache.reserve(name, Cost(1, 100, 100), {})
    asked = request(text)
    reply = {"content": answer, "logprobs": None}
    return cache.store(
        key_of(asked), request=asked, reply=reply, cost=cost, reservation=reservation
    )["content"]


def answer(cache: Cache, text: str) -> str | None:
    reply = cache.get(key_of(request(text)))
    return None if reply is None else reply["content"]


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def check_integrity(path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def worker(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def forked(function: Callable[[], None], *, unprivileged: bool = False) -> None:
    """Run in a forked process, which files may refuse even where the tests are root's."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are other threads: so it is
        child = os.fork()
    if child == 0:
        code = 1
        try:
            if unprivileged and os.geteuid() == 0:
                os.setuid(65534)
            function()
            code = 0
        except BaseException as error:
            sys.stderr.write(f"in the forked process: {error!r}\n")
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Replies


def test_a_reply_is_stored_once_and_the_first_stays(cache: Cache, path: Path) -> None:
    assert answer(cache, "p") is None
    assert store(cache, "p", "first") == "first"
    assert store(cache, "p", "second") == "first"
    assert answer(cache, "p") == "first"
    assert answer(Cache(path), "p") == "first"
    assert [entry.reply["content"] for entry in cache.entries()] == ["first"]
    assert cache.models() == {"m": 1}


def test_the_key_is_of_all_of_the_request_and_not_of_its_order() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of(request("p")) != key_of(request("p", temperature=0.5))
    with pytest.raises(CacheError, match="no JSON"):
        key_of({"a": float("nan")})
    with pytest.raises(CacheError, match="no JSON"):
        key_of({"a": {1}})


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_comes_back_as_it_went_in(text: str, path: Path) -> None:
    cache, name = Cache(path), text[:100]
    asked = request(text) | {"model": name}
    for _ in range(2):
        reservation = cache.reserve(name, Cost(1), {"calls": 2})
        cache.store(
            key_of(asked),
            request=asked,
            reply={"content": text, text[:9]: [text[:9]]},
            cost=Cost(1),
            reservation=reservation,
        )
    with pytest.raises(BudgetExceeded):
        cache.reserve(name, Cost(1), {"calls": 2})
    cache.close()
    again = Cache(path)
    assert again.get(key_of(asked)) == {"content": text, text[:9]: [text[:9]]}
    assert [entry.request for entry in again.entries()] == [asked]
    assert again.spent(name) == again.spent() == Cost(2)
    check_integrity(path)


def test_memory_is_bounded(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 500)
    for i in range(50):
        store(cache, str(i), "x" * 40)
    assert len(cache._recent) <= 10
    assert store(cache, "long", "x" * 1000) == "x" * 1000
    assert len(cache._recent) == 0
    assert [answer(cache, str(i)) for i in range(50)] == ["x" * 40] * 50


def test_one_object_a_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = get_cache(path)
    assert get_cache(str(path)) is cache
    monkeypatch.chdir(path.parents[1])
    assert get_cache("folder/llm.db") is cache
    assert pickle.loads(pickle.dumps(cache)) is cache
    assert repr(cache) == f"Cache({str(path)!r})"


def test_entries_can_be_added_and_removed(cache: Cache, path: Path) -> None:
    store(cache, "0", "here")
    entries = [
        Entry(key_of(request(str(i))), "m", request(str(i)), {"content": "x" * 5000}, float(i))
        for i in range(1_200)
    ]
    assert cache.add(entries) == 1_199
    assert cache.add(entries) == 0
    assert sum(1 for _ in cache.entries()) == 1_200
    assert answer(cache, "0") == "here"
    before = path.stat().st_size
    assert cache.remove([entry.key for entry in entries] + ["no key"]) == 1_200
    assert answer(cache, "0") is None
    cache.close()
    assert path.stat().st_size < before / 10


# Spending


def test_the_budget_is_checked_before_a_call(cache: Cache) -> None:
    most = Cost(1, 100, 20, 0.1)
    for limits in ({"calls": 2}, {"tokens": 240}, {"usd": 0.2}, {"usd": 0.29, "calls": 9}):
        name = str(limits)
        first = cache.reserve(name, most, limits)
        cache.reserve(name, most, limits)
        with pytest.raises(BudgetExceeded, match="would exceed its budget"):
            cache.reserve(name, most, limits)
        cache.release(first)
        cache.reserve(name, most, limits)
        assert cache.spent(name) == most + most
    spent = cache.spent()
    assert spent == Cost(8, 800, 160, 0.8)
    with pytest.raises(BudgetExceeded, match=r"of at most 120 tokens.*all of .*llm.db, 1,000 tok"):
        cache.reserve("other", most, {}, {"tokens": 1_000})
    cache.reserve("other", most, {}, {"tokens": 1_080, "usd": float("inf")})


def test_dollars_add_up(cache: Cache) -> None:
    """As they do on paper: ten times 0.1 is 1."""
    for _ in range(10):
        cache.reserve("box", Cost(1, usd=0.1), {"usd": 1.0})
    with pytest.raises(BudgetExceeded, match=r"1e-12 usd.*budget, 1 usd: 1 usd are spent"):
        cache.reserve("box", Cost(1, usd=1e-12), {"usd": 1.0})
    cache.reserve("box", Cost(1, usd=1e-13), {"usd": 1.0})


def test_the_counts_of_a_server_are_not_believed(cache: Cache) -> None:
    store(cache, "p", "yes", Cost(1, -(10**30), 10**30, float("inf")))
    assert cache.spent() == Cost(1, 0, 2**53, 2**53 / 1e12)


def test_a_reservation_ends_once(cache: Cache) -> None:
    reservation = cache.reserve("box", Cost(1, 10, 10), {})
    asked = request("p")
    for _ in range(2):
        cache.store(
            key_of(asked),
            request=asked,
            reply={"content": "a"},
            cost=Cost(1, 3, 4),
            reservation=reservation,
        )
        cache.keep(reservation)
        cache.release(reservation)
        assert cache.spent() == Cost(1, 3, 4)


COSTS = st.builds(
    Cost, st.just(1), st.integers(0, 9), st.integers(0, 9), st.sampled_from([0.0, 0.1, 0.3])
)
LIMITS = st.dictionaries(
    st.sampled_from(["calls", "tokens", "usd"]), st.sampled_from([0, 2, 5, 0.3, 0.7, 30])
)
NAMES = st.sampled_from(["a", "b"])
ACTIONS = st.one_of(
    st.tuples(st.just("reserve"), NAMES, COSTS, LIMITS, LIMITS),
    st.tuples(st.sampled_from(["release", "keep"]), st.integers(0, 9)),
    st.tuples(st.just("store"), st.integers(0, 9), COSTS, st.sampled_from("pqr")),
    st.tuples(st.just("reset"), NAMES),
    st.tuples(st.just("close")),
)


def exact(cost: Cost) -> tuple[Fraction, ...]:
    return (*map(Fraction, cost[:3]), Fraction(str(round(cost.usd, 9))))


def fits(spent: Any, most: Cost, limits: dict[str, float]) -> bool:
    calls, inputs, outputs, usd = (a + b for a, b in zip(spent, exact(most), strict=True))
    found = {"calls": calls, "tokens": inputs + outputs, "usd": usd}
    return all(found[unit] <= Fraction(str(limit)) for unit, limit in limits.items())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), ACTIONS), max_size=25))
def test_spending_is_that_of_a_plain_model(actions: list[tuple[bool, tuple[Any, ...]]]) -> None:
    """Two caches on one file agree, at each step, with a few lines of dictionaries."""
    zero = (Fraction(0),) * 4
    spent: dict[str, Any] = {}
    open_: list[tuple[int, str, Any]] = []  # as they were reserved, in order
    answers: dict[str, str] = {}

    def add(name: str, *amounts: Any) -> None:
        spent[name] = tuple(map(sum, zip(spent.get(name, zero), *amounts, strict=True)))

    with tempfile.TemporaryDirectory() as folder:
        both = Cache(f"{folder}/llm.db"), Cache(f"{folder}/llm.db")
        for step, (first, (action, *arguments)) in enumerate(actions):
            cache = both[first]
            if action == "reserve":
                name, most, limits, everything = arguments
                total = tuple(map(sum, zip(zero, *spent.values(), strict=True)))
                if fits(spent.get(name, zero), most, limits) and fits(total, most, everything):
                    reservation = cache.reserve(name, most, limits, everything)
                    open_.append((reservation, name, exact(most)))
                    add(name, exact(most))
                else:
                    with pytest.raises(BudgetExceeded):
                        cache.reserve(name, most, limits, everything)
            elif action in ("release", "keep", "store") and open_:
                reservation, name, reserved = open_.pop(arguments[0] % len(open_))
                if action == "keep":
                    cache.keep(reservation)
                    continue
                add(name, tuple(-amount for amount in reserved))
                if action == "release":
                    cache.release(reservation)
                    continue
                _, cost, text = arguments
                add(name, exact(cost))
                asked, reply = request(text), {"content": str(step)}
                stored = cache.store(
                    key_of(asked), request=asked, reply=reply, cost=cost, reservation=reservation
                )
                assert stored == {"content": answers.setdefault(text, str(step))}
            elif action == "reset":
                (name,) = arguments
                assert exact(cache.reset(name)) == spent.pop(name, zero)
                open_ = [(r, n, zero if n == name else amounts) for r, n, amounts in open_]
            elif action == "close":
                cache.close()
            for cache in both:
                assert {text: answer(cache, text) for text in answers} == answers
                found = {name: exact(cost) for name, (cost, _) in cache.spenders().items()}
                assert {n: c for n, c in found.items() if any(c)} == {
                    n: c for n, c in spent.items() if any(c)
                }
        for cache in both:
            cache.close()


def test_what_is_only_reserved_is_said(cache: Cache) -> None:
    cache.reserve("killed", Cost(1, 5), {})
    cache.keep(cache.reserve("failed", Cost(1, 6), {}))
    assert cache.spenders() == {
        "failed": (Cost(1, 6), Cost()),
        "killed": (Cost(1, 5), Cost(1, 5)),
    }


# Many threads and processes


def test_threads_share_a_cache(cache: Cache) -> None:
    done: list[str] = []

    def work(who: str) -> None:
        for i in range(20):
            try:
                done.append(store(cache, str(i), who))
            except BudgetExceeded:
                return

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.spent() == Cost(160)
    assert len(done) == 160
    assert cache.models() == {"m": 20}


def test_processes_share_a_cache_and_its_budget(path: Path) -> None:
    keys, limit = 120, 100
    workers = [worker("contend", path, f"w{i}", keys, limit) for i in range(3)]
    results = [json.loads(process.communicate(timeout=60)[0]) for process in workers]
    assert sum(result["made"] for result in results) == limit
    cache = Cache(path)
    assert cache.spent("shared") == Cost(100, 700, 200, 10.0)
    assert cache.spenders() == {"shared": (Cost(100, 700, 200, 10.0), Cost())}
    stored = {entry.request["messages"][0]["content"]: entry for entry in cache.entries()}
    for result in results:
        for i, content in result["seen"].items():
            assert stored[f"prompt {i}"].reply["content"] == content
    # Two may have asked the same at the same time, and no more than that is lost.
    seen = {i for result in results for i in result["seen"]}
    assert len(stored) == len(seen) <= limit
    check_integrity(path)
    assert set(files(path)) == {"llm.db"}


def test_what_was_stored_survives_a_kill(path: Path) -> None:
    workers = [worker("forever", path, f"w{i}") for i in range(3)]
    said: list[str] = []
    for i, process in enumerate(workers):
        assert process.stdout is not None
        said.append(process.stdout.readline())  # it is writing
        time.sleep(0.05 + 0.03 * i)
        process.send_signal(signal.SIGKILL)
        said += process.communicate()[0].splitlines()
    cache = Cache(path)
    stored = {entry.key: entry for entry in cache.entries()}
    said = [key.strip() for key in said if len(key.strip()) == 64]
    assert len(said) >= 3
    assert set(said) <= set(stored)
    for key, entry in stored.items():
        assert key == key_of(entry.request)
    # Of each, one call at most was made and not stored, or stored and not said.
    assert len(stored) <= len(said) + 3
    for name, (spent, reserved) in cache.spenders().items():
        mine = sum(
            e.request["messages"][0]["content"].startswith(f"prompt {name} ")
            for e in stored.values()
        )
        assert reserved in (Cost(), Cost(1, 10, 10))
        assert spent == Cost(mine, 7 * mine, 2 * mine) + reserved
    assert store(cache, "after", "fine") == "fine"
    cache.close()
    check_integrity(path)
    assert set(files(path)) == {"llm.db"}


def test_a_forked_process_has_its_own_connections(cache: Cache, path: Path) -> None:
    store(cache, "before", "parent")
    assert answer(Cache(path), "before") == "parent"

    def child() -> None:
        assert cache._writing is None
        assert store(cache, "child", "child") == "child"
        assert store(cache, "before", "child") == "parent"
        cache.close()

    forked(child)
    assert answer(cache, "child") == "child"
    assert store(cache, "after", "parent") == "parent"
    assert cache.spent() == Cost(4)
    cache.close()
    check_integrity(path)


def test_a_fork_while_a_thread_holds_the_cache(cache: Cache) -> None:
    store(cache, "p", "a")
    with cache._lock:
        forked(lambda: store(cache, "q", "b"))
    assert answer(cache, "q") == "b"


# Reading only


def test_reading_leaves_files_and_folders_alone(path: Path) -> None:
    cache = Cache(path)
    assert answer(cache, "p") is None
    assert cache.spent() == cache.spent("box") == Cost()
    assert list(cache.entries()) == []
    assert cache.models() == cache.spenders() == {}
    cache.close()
    assert not path.parent.exists()
    store(cache, "p", "a")
    cache.close()
    before, status = files(path), path.stat()
    assert set(before) == {"llm.db"}
    reader = Cache(path)
    assert answer(reader, "p") == "a"
    assert answer(reader, "q") is None
    assert files(path) == before
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    reader.close()
    assert files(path) == before


def test_a_reader_sees_what_others_write(path: Path) -> None:
    reader, writer = Cache(path), Cache(path)
    assert answer(reader, "0") is None
    for i in range(3):
        store(writer, str(i), str(i))
        assert answer(reader, str(i)) == str(i)
        writer.close()
    assert answer(reader, "0") == "0"
    # The reader kept the log beside the file from being folded in; the file is whole all the same.
    alone = path.with_name("copy.db")
    alone.write_bytes(path.read_bytes())
    reader.close()
    assert [answer(Cache(alone), str(i)) for i in range(3)] == ["0", "1", "2"]


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_cache_that_cannot_be_written_can_be_read(public: Path, journal: str) -> None:
    path = public / "llm.db"
    cache = Cache(path)
    store(cache, "p", "a")
    cache.close()
    connection = sqlite3.connect(path)
    assert connection.execute(f"PRAGMA journal_mode = {journal}").fetchone() == (journal.lower(),)
    connection.close()
    before = files(path)
    path.chmod(0o444)
    public.chmod(0o555)

    def read() -> None:
        reader = Cache(path)
        assert answer(reader, "p") == "a"
        assert answer(reader, "q") is None
        with pytest.raises(CacheError, match=r"llm\.db.*make it writable"):
            reader.reserve("box", Cost(1), {})
        assert answer(reader, "p") == "a"
        reader.close()

    forked(read, unprivileged=True)
    assert files(path) == before


def test_a_log_that_cannot_be_read_is_not_passed_over(public: Path) -> None:
    """What was written last is in it."""
    path = public / "llm.db"
    cache = Cache(path)
    forked(lambda: store(cache, "p", "a") and None)  # ends without closing
    assert path.with_name("llm.db-wal").stat().st_size > 0
    path.with_name("llm.db-shm").unlink()
    path.chmod(0o444)
    public.chmod(0o555)

    def read() -> None:
        with pytest.raises(CacheError, match=r"llm\.db"):
            answer(Cache(path), "p")

    forked(read, unprivileged=True)
    public.chmod(0o755)
    path.chmod(0o644)
    assert answer(Cache(path), "p") == "a"


def test_reading_after_a_kill_in_the_first_write(path: Path) -> None:
    """Before there is a write-ahead log, a process that is killed leaves half a file."""
    cache = Cache(path)
    for i in range(50):
        store(cache, str(i), "x" * 1000)
    cache.close()

    def write() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE entries SET reply = 'half'")
        os._exit(0)

    forked(write)
    assert path.with_name("llm.db-journal").stat().st_size > 0
    reader = Cache(path)
    assert {answer(reader, str(i)) for i in range(50)} == {"x" * 1000}
    reader.close()
    check_integrity(path)


def test_a_folder_that_cannot_be_made(public: Path) -> None:
    public.chmod(0o555)

    def write() -> None:
        with pytest.raises(CacheError, match=r"Permission denied.*another path"):
            Cache(public / "more" / "llm.db").reserve("box", Cost(1), {})

    forked(write, unprivileged=True)


# What can be wrong


def test_another_version_is_left_as_it_is(path: Path) -> None:
    cache = Cache(path)
    store(cache, "p", "a")
    cache.close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE byssus_cache SET format = 7")
    connection.close()
    before = files(path)
    for action in (
        lambda cache: answer(cache, "p"),
        lambda cache: cache.reserve("box", Cost(1), {}),
        lambda cache: cache.spent(),
    ):
        with pytest.raises(CacheError, match=r"is of format 7, .* has format 1: export it"):
            action(Cache(path))
    assert files(path) == before


def test_a_file_of_another_kind_is_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"margin: serrate\n" * 500)
    for action in (lambda c: answer(c, "p"), lambda c: c.reserve("box", Cost(1), {})):
        with pytest.raises(CacheError, match=r"not a database.*another path"):
            action(Cache(path))
    assert files(path) == {"llm.db": b"margin: serrate\n" * 500}
    path.unlink()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE entries (key)")
    connection.close()
    before = files(path)
    for action in (lambda c: answer(c, "p"), lambda c: c.reserve("box", Cost(1), {})):
        with pytest.raises(CacheError, match="no cache of byssus"):
            action(Cache(path))
    assert files(path) == before


def test_an_empty_file_becomes_a_cache(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    cache = Cache(path)
    assert answer(cache, "p") is None
    assert store(cache, "p", "a") == "a"
    cache.close()


def test_a_damaged_file_is_an_error(path: Path) -> None:
    cache = Cache(path)
    for i in range(100):
        store(cache, str(i), "x" * 1000)
    cache.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(CacheError, match=r"malformed.*move it away"):
        list(Cache(path).entries())


def test_no_path_for_a_cache(path: Path) -> None:
    path.mkdir(parents=True)
    for bad in (path, Path(__file__) / "llm.db"):
        with pytest.raises(CacheError, match=bad.name):
            Cache(bad).reserve("box", Cost(1), {})
    with pytest.raises(CacheError, match="NUL"):
        Cache("a\0b")


def test_a_path_of_odd_characters(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "%41?mode=memory#é.db"
    cache = Cache(path)
    store(cache, "p", "a")
    cache.close()
    assert set(files(path)) == {path.name}
    assert answer(Cache(path), "p") == "a"


def limit_pages(cache: Cache, pages: int) -> None:
    cache._writer().connection.cursor().execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_loses_nothing(cache: Cache, path: Path) -> None:
    store(cache, "0", "a")
    first, second = (cache.reserve("box", Cost(1, 100, 100), {}) for _ in range(2))
    limit_pages(cache, 1)  # as many as there are
    asked, reply = request("1"), {"content": "x" * 50_000}
    with pytest.raises(CacheError, match=r"full \(replies .*: 1\); make room"):
        cache.store(
            key_of(asked), request=asked, reply=reply, cost=Cost(1, 5, 5), reservation=first
        )
    assert cache.get(key_of(asked)) == reply
    cache.release(second)
    assert Cache(path).get(key_of(asked)) is None
    with pytest.raises(CacheError, match=r"full \(replies"):
        cache.reserve("box", Cost(1), {})
    with pytest.raises(CacheError, match=r"full \(replies"):
        cache.close()
    assert cache.get(key_of(asked)) == reply  # a new connection has no limit
    assert store(cache, "2", "b") == "b"
    assert cache._pending == []
    assert Cache(path).get(key_of(asked)) == reply
    assert cache.spent() == Cost(3, 5, 5)
    assert cache.spenders()["box"][1] == Cost()


def test_a_limit_on_the_size_of_files(path: Path) -> None:
    result = json.loads(worker("full", path, 300_000).communicate(timeout=60)[0])
    assert "make room on its disk" in result["error"]
    assert result["waiting"]
    cache = Cache(path)
    assert cache.models() == {"m": result["stored"] + 1}
    assert cache.spent() == Cost(result["stored"] + 1)
    check_integrity(path)


def test_what_cannot_be_written_at_the_end_is_said(path: Path) -> None:
    cache = Cache(path)
    reservation = cache.reserve("box", Cost(1), {})
    limit_pages(cache, 1)
    asked, reply = request("1"), {"content": "x" * 50_000}
    with pytest.raises(CacheError):
        cache.store(
            key_of(asked), request=asked, reply=reply, cost=Cost(1), reservation=reservation
        )
    with pytest.warns(RuntimeWarning, match=r"lost at the end of this process: .*full"):
        module._close_all()
    cache.close()


def test_a_writer_that_does_not_end(
    cache: Cache, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    store(cache, "0", "a")
    reservation = cache.reserve("box", Cost(1), {})
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    asked = request("1")
    with pytest.raises(CacheError, match=r"locked .*another process"):
        cache.store(
            key_of(asked),
            request=asked,
            reply={"content": "b"},
            cost=Cost(1),
            reservation=reservation,
        )
    assert answer(cache, "0") == "a"
    assert answer(Cache(path), "0") == "a"
    other.execute("ROLLBACK")
    other.close()
    store(cache, "2", "c")
    assert answer(Cache(path), "1") == "b"
    assert cache.spent() == Cost(3)


def test_errors_say_nothing_of_what_was_asked(cache: Cache) -> None:
    reservation = cache.reserve("box", Cost(1), {})
    limit_pages(cache, 1)
    asked, reply = request("a secret " * 9_999), {"content": "another secret"}
    with pytest.raises(CacheError) as raised:
        cache.store(
            key_of(asked), request=asked, reply=reply, cost=Cost(1), reservation=reservation
        )
    error: BaseException | None = raised.value
    while error is not None:
        assert "secret" not in str(error)
        error = error.__cause__
    with pytest.raises(CacheError):
        cache.close()


@pytest.mark.parametrize("removed", ["llm.db", "llm.db*"])
def test_a_file_that_was_removed_is_made_again(cache: Cache, path: Path, removed: str) -> None:
    store(cache, "0", "a")
    reservation = cache.reserve("box", Cost(1), {})
    for file in path.parent.glob(removed):
        file.unlink()
    asked = request("1")
    cache.store(
        key_of(asked), request=asked, reply={"content": "b"}, cost=Cost(1), reservation=reservation
    )
    assert answer(Cache(path), "1") == "b"
    assert answer(Cache(path), "0") is None
    check_integrity(path)


def test_a_call_is_cheap(cache: Cache) -> None:
    """Half a millisecond at most to reserve, and as much to store, on a quiet machine."""
    reserving, storing = [], []
    for i in range(200):
        asked = request(f"{i} " * 100)
        key = key_of(asked)
        began = time.perf_counter()
        reservation = cache.reserve("box", Cost(1, 9, 9, 0.1), {"calls": 999}, {"usd": 999})
        reserving.append(time.perf_counter() - began)
        began = time.perf_counter()
        cache.store(
            key, request=asked, reply={"content": "x"}, cost=Cost(1), reservation=reservation
        )
        storing.append(time.perf_counter() - began)
    assert statistics.quantiles(reserving, n=10)[0] < 0.5e-3
    assert statistics.quantiles(storing, n=10)[0] < 0.5e-3


def test_an_entry_that_somebody_has_changed(tmp_path: Path) -> None:
    request = {"model": "m", "messages": []}
    key = key_of(request)
    with closing(Cache(tmp_path / "a.db")) as cache:
        cache.store(key, request=request, reply={}, cost=Cost(), reservation=0)
    with closing(sqlite3.connect(tmp_path / "a.db")) as file, file:
        file.execute("UPDATE entries SET reply = 'no JSON'")
    cache = Cache(tmp_path / "a.db")
    for use in (lambda: cache.get(key), lambda: list(cache.entries())):
        with pytest.raises(CacheError, match=f"the entry {key[:12]} of the cache is no JSON"):
            use()
