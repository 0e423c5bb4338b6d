"""Compilation keeps its limits, leaves nothing behind, and says how far it is."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from byssus import ByssusError, Circuit, CompilationLimit, Formula, Progress, _compile
from oracle import count, probabilities, sum_formula
from test_circuit import random_cnf

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def two_sums(variables: int, modulus: int) -> Formula:
    """Two weighted sums that are small by themselves, and whose conjunction is their product."""
    rng = random.Random(0)
    nodes: dict = {}

    def add(kind: str, *content: int) -> int:
        nodes[len(nodes) + 1] = (kind, content)
        return len(nodes)

    ones = [add("literal", v, 1) for v in range(variables)]
    roots = []
    for _ in range(2):
        sums: dict[int, int] = {0: 0}
        for one in ones:
            weight = rng.randrange(modulus)
            terms: dict[int, list[int]] = {}
            for rest, key in sums.items():
                terms.setdefault(rest, []).append(add("and", key, -one))
                terms.setdefault((rest + weight) % modulus, []).append(add("and", key, one))
            sums = {rest: add("or", *keys) for rest, keys in terms.items()}
        roots.append(add("or", *list(sums.values())[::2]))
    return Formula.from_graph([2] * variables, nodes, [add("and", *roots)])


_others: set[int] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    """The processes that other tests have left running."""
    _others.clear()
    if sys.platform == "linux":
        _others.update(children())


def children(pid: int | str = "self") -> list[int]:
    """The processes that a process has started and that still run, without those of `others`."""
    own = os.getpid() if pid == "self" else int(pid)
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:  # it has just ended
            continue
        number = int(stat.parent.name)
        if int(parent) == own and state != "Z" and number not in _others:
            found.append(number)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds: float = 10.0) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.01)
    return time.monotonic() - started


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"seconds": 0.7}, r"limit of 0.7 seconds .*SDD nodes.*`seconds=`"),
        ({"nodes": 20_000}, r"limit of 20000 nodes .*SDD nodes.*`nodes=`"),
        ({"memory": 40_000_000}, r"limit of 40000000 bytes of memory .*`memory=`"),
        ({"seconds": 60.0, "nodes": 20_000, "memory": 10**9}, "limit of 20000 nodes"),
        ({"seconds": 60.0, "nodes": 10**9, "memory": 40_000_000}, "limit of 40000000 bytes"),
        ({"seconds": 0}, "limit of 0 seconds"),
        ({"memory": 0}, "limit of 0 bytes"),
        ({"nodes": 0}, "limit of 0 nodes"),
    ],
)
def test_limits(limit: dict, message: str) -> None:
    if "memory" in limit and sys.platform != "linux":
        pytest.skip("memory is limited on Linux")
    started = time.monotonic()
    with pytest.raises(CompilationLimit, match=message):
        Circuit.compile(random_cnf(60), vtree="program", **limit)
    assert time.monotonic() - started < 3
    if sys.platform == "linux":
        assert not children()


@linux
@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"seconds": 2}, "limit of 2 seconds"),
        ({"memory": 150_000_000}, "limit of 150000000 bytes of memory"),
    ],
)
def test_limits_hold_within_one_operation(limit: dict, message: str) -> None:
    formula = two_sums(26, 240)
    started = time.monotonic()
    with pytest.raises(CompilationLimit, match=message):
        Circuit.compile(formula, vtree="program", **limit)
    if "seconds" in limit:
        assert time.monotonic() - started < limit["seconds"] + 1
    assert not children()


@linux
def test_a_limit_of_nodes_is_one_of_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compile, "_NODE", 30)
    monkeypatch.setattr(_compile, "_VALUE", 0)
    with pytest.raises(CompilationLimit, match=r"limit of 1000000 nodes .* of which one op"):
        Circuit.compile(random_cnf(75), vtree="program", nodes=1_000_000)


@linux
def test_what_keeps_its_limits_is_not_disturbed() -> None:
    formula, _ = sum_formula([6] * 4)
    weights = probabilities(formula.widths, 2)
    expected = count(formula, weights)
    for limit in ({"nodes": 5_000}, {"seconds": 30.0}, {"memory": 20_000_000}):
        torch.testing.assert_close(Circuit.compile(formula, **limit)(weights), expected)


@pytest.mark.parametrize(
    "limit",
    [
        {"nodes": -1},
        {"seconds": float("nan")},
        {"memory": "1 GB"},
        {"nodes": True},
        {"nodes": float("inf")},
    ],
)
def test_limits_that_are_none(limit: dict) -> None:
    ((name, value),) = limit.items()
    with pytest.raises(ByssusError, match=rf"{name}={value!r}: a number, 0 or more, or None"):
        Circuit.compile(random_cnf(4), **limit)


def test_memory_cannot_be_limited_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(ByssusError, match=r"memory=1000: this system \(darwin\) .*`nodes=`"):
        Circuit.compile(random_cnf(4), memory=1_000)


def test_what_proves_large_here_is_left_to_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    formula, _ = sum_formula([5] * 4)
    started: list[object] = []
    popen = subprocess.Popen
    monkeypatch.setattr("subprocess.Popen", lambda *a, **o: (started.append(a), popen(*a, **o))[1])
    here = dict(Circuit.compile(formula).named_buffers())
    assert not started
    monkeypatch.setattr(_compile, "_SMALL_NODES", 50)
    there = dict(Circuit.compile(formula).named_buffers())
    assert len(started) == 1
    assert all(torch.equal(here[name], there[name]) for name in here)
    with pytest.raises(CompilationLimit, match="limit of 40 nodes"):
        Circuit.compile(formula, nodes=40, vtree="program")
    assert len(started) == 1


# Death


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_child_that_is_killed_is_an_error(number: signal.Signals) -> None:
    def kill(progress: Progress) -> None:
        for child in children():
            os.kill(child, number)

    with pytest.raises(ByssusError, match=rf"was ended by {number.name}, after \d+ of 1260 op"):
        Circuit.compile(random_cnf(75), progress=kill, vtree="program")


@linux
def test_ctrl_c_that_reaches_the_child_alone() -> None:
    # Ctrl-C reaches all processes of a terminal, and in a pool of threads no other sign comes.
    def interrupt(progress: Progress) -> None:
        for child in children():
            os.kill(child, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Circuit.compile(random_cnf(75), progress=interrupt)


@linux
def test_an_error_of_the_callback_ends_the_child() -> None:
    def fail(progress: Progress) -> None:
        assert children()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Circuit.compile(random_cnf(75), progress=fail)
    assert not children()


def test_a_python_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(ByssusError, match=r"/nowhere/python.* does not start"):
        Circuit.compile(random_cnf(75))


SCRIPT = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from byssus import Formula
from byssus._compile import compile_formula

formula = {formula!r}

def tell(progress):
    if progress.done > 0.78 * progress.total:  # where operations are slow
        print("compiling", flush=True)

def work():
    try:
        compile_formula(formula, formula.order(), progress=tell)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        raise

{start}
"""
MAIN = "work()"
THREAD = "thread = threading.Thread(target=work); thread.start(); thread.join()"
POOL = "with ThreadPoolExecutor() as pool: pool.submit(work).result()"
SLEEPER = "threading.Thread(target=work, daemon=True).start(); time.sleep(60)"


def run_script(start: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT).format(start=start, formula=random_cnf(75))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "compiling\n", process.communicate()
    return process


@linux
@pytest.mark.parametrize(
    ("start", "terminal"),
    [  # a pool waits for its threads; where the child gets no signal either, nothing tells them
        (MAIN, False),
        pytest.param(POOL, True, marks=pytest.mark.slow),
        (THREAD, False),
        pytest.param(MAIN, True, marks=pytest.mark.slow),
        pytest.param(THREAD, True, marks=pytest.mark.slow),
        pytest.param(SLEEPER, True, marks=pytest.mark.slow),
        pytest.param(SLEEPER, False, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c(start: str, terminal: bool) -> None:
    process = run_script(start)
    (child,) = children(process.pid)
    started = time.monotonic()
    if terminal:  # all processes get it
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    wait_for(lambda: not alive(child))
    assert time.monotonic() - started < 1
    _, errors = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    assert process.returncode != 0


@linux
@pytest.mark.parametrize("start", [MAIN, pytest.param(THREAD, marks=pytest.mark.slow)])
def test_a_parent_that_is_killed_takes_the_child_along(start: str) -> None:
    process = run_script(start)
    (child,) = children(process.pid)
    process.kill()
    process.communicate()
    assert wait_for(lambda: not alive(child), 5.0) < 1.0


# Progress


@linux
def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Progress] = []
    with pytest.raises(CompilationLimit):
        Circuit.compile(random_cnf(60), progress=seen.append, seconds=1, vtree="program")
    assert 3 <= len(seen) <= 16
    assert all(a.done <= b.done and a.seconds <= b.seconds for a, b in pairwise(seen))
    assert {at.total for at in seen} == {4 * 252}
    assert 700 < seen[-1].done < 4 * 252
    assert seen[-1].nodes > 10_000
    assert seen[-1].memory is not None
    assert 1e6 < seen[-1].memory < 1e9

    formula, _ = sum_formula([5] * 4)
    for small in (20_000, 0):
        monkeypatch.setattr(_compile, "_SMALL", small)
        seen.clear()
        Circuit.compile(formula, progress=seen.append)
        assert seen[-1].done == seen[-1].total > 0
        assert threading.active_count() < 10


def test_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    formula, _ = sum_formula([5] * 4)
    for progress in (None, False):
        Circuit.compile(formula, progress=progress)
        assert capsys.readouterr() == ("", "")
    Circuit.compile(formula, progress=True)
    out, err = capsys.readouterr()
    assert not out
    assert "compiling: 100%" in err
    assert "SDD nodes=" in err

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    Circuit.compile(formula)  # faster than two seconds
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(_compile, "_PATIENCE", 0.0)
    Circuit.compile(formula)
    assert "compiling: 100%" in capsys.readouterr().err
