"""`byssus cache`: what is in a cache, and how it is pruned and moved."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from byssus.cli import main
from byssus.llm.cache import Cache, Cost, Entry, key_of

ONE = {"model": "m", "messages": [{"role": "user", "content": "a bed and\n a lamp"}]}
TWO = {
    "model": "n",
    "messages": [{"role": "system", "content": "Say \x1b[2J no"}, {"role": "user", "content": "é"}],
}
DAY = 86_400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "llm.db"
    cache = Cache(path)
    now = time.time()
    cache.add(
        [
            Entry(key_of(ONE), "m", ONE, {"content": "bedroom"}, now - 40 * DAY),
            Entry(key_of(TWO), "n", TWO, {"content": "lab\x1b[31m \u202e\ud800é"}, now),
        ]
    )
    cache.reserve("room", Cost(3, 1_000, 200, 0.5), {})
    cache.release(cache.reserve("other", Cost(1), {}))
    cache.close()
    return path


@pytest.fixture
def run(path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """The lines that a command says; a status other than 0 is an error."""

    def run(*arguments: object, cache: Path = path) -> list[str]:
        assert main(["cache", *map(str, arguments), "--cache", str(cache)]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out.splitlines()

    return run


@pytest.fixture
def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command says that fails."""

    def refused(*arguments: object, cache: Path = path) -> str:
        assert main(["cache", *map(str, arguments), "--cache", str(cache)]) == 1
        return capsys.readouterr().err

    return refused


Run = Callable[..., list[str]]


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_stats(run: Run, path: Path) -> None:
    size = path.stat().st_size
    *lines, last = run("stats", "--json")
    assert lines == [
        f"{path}: 2 entries, {size:,} bytes",
        "  m: 1 entry",
        "  n: 1 entry",
        "other has spent 0 calls, 0 tokens, 0 US dollars",
        "room has spent 3 calls, 1,200 tokens, 0.5 US dollars; of that reserved 3 calls, 1,200 "
        "tokens, 0.5 US dollars",
    ]
    found = json.loads(last)
    assert found["models"] == {"m": 1, "n": 1}
    assert (found["entries"], found["bytes"], found["path"]) == (2, size, str(path))
    room = {"calls": 3, "input_tokens": 1_000, "output_tokens": 200, "usd": 0.5}
    assert found["spent"]["room"] == {**room, "reserved": room}


def test_looking_changes_nothing(run: Run, path: Path) -> None:
    before = path.read_bytes(), path.stat().st_mtime_ns
    for arguments in (["stats"], ["list"], ["show", key_of(ONE)], ["spent"], ["prune", "--all"]):
        run(*arguments)
    assert names(path.parent) == ["llm.db"]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_list_is_safe_to_look_at(run: Run) -> None:
    first, second, end = run("list")
    assert first.startswith(key_of(TWO)[:12])
    assert first.endswith(r"  n  é -> lab\u001b[31m \u202e\ud800é")
    assert second.startswith(key_of(ONE)[:12])
    assert second.endswith("  m  a bed and a lamp -> bedroom")
    assert end == "2 entries, of which the newest 2 are listed"
    *lines, last = run("list", "--limit", 1, "--json")
    assert lines == [first, "2 entries, of which the newest 1 are listed"]
    found = json.loads(last)
    assert found["count"] == 2
    assert found["entries"][0]["answer"] == "lab\x1b[31m \u202e\ud800é"
    assert run("list", "--model", "m")[:-1] == run("list", "--contains", "lamp")[:-1] == [second]
    assert run("list", "--contains", "[31m", "--limit", 0)[:-1] == [first]
    assert run("list", "--contains", "Say \x1b")[:-1] == [first]
    # Of what was said alone: not of the form it is stored in.
    assert run("list", "--contains", "content") == ["0 entries, of which the newest 0 are listed"]


def test_show(run: Run, refused: Callable[..., str]) -> None:
    lines = run("show", key_of(TWO)[:9].upper())
    assert all(line.isprintable() for line in lines)
    found = json.loads("\n".join(lines))
    assert found["key"] == key_of(TWO)
    assert found["request"] == TWO
    assert found["reply"] == {"content": "lab\x1b[31m \u202e\ud800é"}
    assert "the keys of 2 entries of" in refused("show", "")
    assert "the keys of 0 entries of" in refused("show", "xyz%")


@pytest.mark.parametrize(
    "chosen",
    [
        ["--older-than", "30d"],
        ["--older-than", "720h"],
        ["--model", "m"],
        ["--contains", "bed and\n"],
        ["--key", key_of(ONE)[:12]],
    ],
    ids=" ".join,
)
def test_prune(run: Run, path: Path, chosen: list[str]) -> None:
    would = run("prune", *chosen)
    assert would == [f"would remove 1 of the 2 entries of {path}; --yes does it"]
    assert Cache(path).models() == {"m": 1, "n": 1}
    assert run("prune", *chosen, "--yes") == [f"removed 1 entry of {path}"]
    assert Cache(path).models() == {"n": 1}
    assert run("prune", "--all", "--yes") == [f"removed 1 entry of {path}"]
    assert Cache(path).models() == {}
    assert Cache(path).spent("room") == Cost(3, 1_000, 200, 0.5)


@pytest.mark.parametrize(
    "arguments",
    [
        ["prune"],
        ["prune", "--yes"],
        ["prune", "--all", "--model", "m"],
        ["prune", "--older-than", "30"],
        ["prune", "--older-than", "-1d"],
        ["prune", "--older-than", "d"],
        ["list", "--limit", "-1"],
        ["show"],
        [],
    ],
    ids=" ".join,
)
def test_bad_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(["cache", *arguments])
    assert refusal.value.code == 2


def test_export_and_import(run: Run, path: Path, tmp_path: Path) -> None:
    lines, other = tmp_path / "lines.jsonl", tmp_path / "new" / "other.db"
    lines.write_text("what was there")
    assert run("export", lines) == [f"exported 2 entries of {path}"]
    assert names(tmp_path) == ["lines.jsonl", "llm.db"]
    assert lines.read_text().isascii()
    assert run("import", lines, cache=other) == [
        f"imported 2 entries into {other}; 0 were there already"
    ]
    assert list(Cache(other).entries()) == list(Cache(path).entries())
    assert run("export", "-", cache=other) == lines.read_text().splitlines()
    # What is there stays.
    text = lines.read_text().replace("bedroom", "kitchen")
    lines.write_text(text + "\n" + json.dumps({"key": key_of({}), "request": {}, "reply": {}}))
    with lines.open("a") as file:
        file.write("\n")
    lines.write_text(lines.read_text().replace('"reply": {}', '"reply": {"content": null}'))
    assert run("import", lines, cache=other) == [
        f"imported 1 entry into {other}; 2 were there already"
    ]
    reply = Cache(other).get(key_of(ONE))
    assert reply == {"content": "bedroom"}
    assert len(run("list", cache=other)) == 4


def test_export_replaces_neither_the_cache_nor_a_device(
    run: Run, refused: Callable[..., str], path: Path, tmp_path: Path
) -> None:
    linked = tmp_path / "linked.db"
    linked.symlink_to(path)
    for itself in (path, linked):
        assert "is the cache itself" in refused("export", itself)
    assert len(list(Cache(path).entries())) == 2
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text)
        assert run("export", pipe) == [f"exported 2 entries of {path}"]
        assert len(read.result(10).splitlines()) == 2
    assert pipe.is_fifo()


def test_import_from_standard_input(
    run: Run, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(run("export", "-"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert run("import", "-", cache=tmp_path / "other.db")[0].startswith("imported 2 entries")


GOOD: dict[str, Any] = {"key": key_of(ONE), "request": ONE, "reply": {"content": "x"}}
BAD = {
    "[]": "an entry is an object of",
    "{": "Expecting",
    "\xff": "can't decode",
    json.dumps({**GOOD, "key": key_of(TWO)}): "is not that of the request",
    json.dumps({**GOOD, "key": None}): "the key None is not",
    json.dumps({**GOOD, "cost": 1}): "an entry is an object of",
    json.dumps({**GOOD, "request": "x"}): "are objects",
    json.dumps({**GOOD, "request": {"a": float("nan")}}): "no JSON",
    json.dumps({**GOOD, "reply": {}}): 'a reply has "content"',
    json.dumps({**GOOD, "reply": {"content": 3}}): 'a reply has "content"',
    json.dumps({**GOOD, "created": True}): "seconds since 1970",
    json.dumps({**GOOD, "created": 1e300}): "seconds since 1970",
    json.dumps({**GOOD, "created": 2**38 - 1}): "seconds since 1970",  # the year 10680
    "[" * 100_000: "recursion",
}


@pytest.mark.parametrize("line", BAD, ids=lambda line: ascii(line[-40:]))
def test_a_bad_line_is_named_and_nothing_imported(
    line: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    lines, other = tmp_path / "lines.jsonl", tmp_path / "other.db"
    lines.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + line.encode("latin-1") + b"\n")
    error = refused("import", lines, cache=other)
    assert f"{lines}, line 3: " in error
    assert BAD[line] in error
    assert "nothing was imported" in error
    assert not other.exists()


def test_spent(run: Run, refused: Callable[..., str]) -> None:
    assert list(json.loads(run("spent", "--json")[-1])) == ["other", "room"]
    lines = run("spent", "--reset", "room")
    assert lines[0] == "forgot that room had spent 3 calls, 1,200 tokens, 0.5 US dollars"
    assert list(json.loads(run("spent", "--json")[-1])) == ["other"]
    assert "'room' has spent nothing of" in refused("spent", "--reset", "room")


def test_no_cache(refused: Callable[..., str], tmp_path: Path, path: Path) -> None:
    for arguments in (["stats"], ["list"], ["export", "-"], ["prune", "--all", "--yes"]):
        assert "there is no cache" in refused(*arguments, cache=tmp_path / "none.db")
    assert "cannot be read" in refused("import", tmp_path / "none.jsonl")
    assert "cannot be written" in refused("export", tmp_path / "none" / "lines.jsonl")
    assert "cannot be written" in refused("export", tmp_path)
    assert names(tmp_path) == ["llm.db"]


def test_the_cache_of_the_environment(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BYSSUS_LLM_CACHE", str(path))
    assert main(["cache", "stats"]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: 2 entries")


def test_without_sqlalchemy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("byssus.llm._cli", "byssus.llm.cache"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    assert main(["cache", "stats"]) == 1
    assert "needs sqlalchemy: pip install 'byssus[llm]'" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`| head` is no error."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["cache", "export", "-", "--cache", str(path)]) == 0
        monkeypatch.undo()


def test_a_terminal_that_knows_ascii_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert main(["cache", "list", "--cache", str(path)]) == 0
    assert rb"  n  \xe9 -> lab\u001b[31m" in shown.getvalue()
