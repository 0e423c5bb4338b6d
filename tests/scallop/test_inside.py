"""Contexts inside Scallop: threads, interrupts, and runs that do not end by themselves."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import byssus_scallop
from byssus import ByssusError, CompilationLimit
from byssus_scallop import Facts, ScallopContext, _callbacks, i64
from byssus_scallop._callbacks import Callbacks
from byssus_scallop._engine import TooManyTuples

pytest.importorskip("scallopy", reason="scallopy is not installed")

GRAPH = """
    rel edge = {0.5::(0, 1), 0.5::(1, 2), (2, 3)}
    rel path(a, b) = edge(a, b) or path(a, c) and edge(c, b)
    rel paths(n) = n := count(a, b: path(a, b))
"""
PATHS = {0: 1 / 4, 1: 0, 3: 1 / 4, 6: 1 / 4}
ENDLESS = "rel q = {0.5::0}\nrel q(x + 1) = q(x)"
LARGE = """
    type a(i64), b(i64), c(i64)
    rel q(x) = a(x) and b(y) and c(z) and x + y + z == 0
"""
"""What it goes through has a thousand million rows, what it derives has one."""


def context(program: str, provenance: str = "exact", **options: Any) -> ScallopContext:
    ctx = ScallopContext(provenance=provenance, backend="scallopy", **options)
    ctx.add_program(program)
    return ctx


def large(provenance: str = "exact", **options: Any) -> ScallopContext:
    ctx = context(LARGE, provenance, **options)
    for name in "abc":
        ctx.add_facts(name, [(0.5, (i,)) for i in range(1000)])
    return ctx


def found(ctx: ScallopContext, relation: str) -> dict[Any, float]:
    return {row[0] if len(row) == 1 else row: float(p) for p, row in list(ctx.relation(relation))}


# Threads: Scallop's contexts panic in all but the one that made them


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize("provenance", ["exact", "auto", "sampled", "mixed"])
def test_threads_run_and_read_one_context(provenance: str, other: ThreadPoolExecutor) -> None:
    options = {"samples": 400, "generator": torch.Generator().manual_seed(0)}
    ctx = context(GRAPH, provenance, **options)
    other.submit(ctx.run).result()
    first = found(ctx, "paths")
    assert other.submit(found, ctx, "path").result() == found(ctx, "path")
    ctx.run()
    ctx.add_facts("edge", [(3, 4)])
    other.submit(ctx.run).result()
    assert found(ctx, "path").keys() >= {(2, 4), (3, 4)}
    assert sum(first.values()) == pytest.approx(1)


def test_a_thread_compiles_once(other: ThreadPoolExecutor) -> None:
    ctx = context(GRAPH)
    internal = other.submit(lambda: id(ctx._internal)).result()
    assert internal == other.submit(lambda: id(ctx._internal)).result() != id(ctx._internal)


@pytest.mark.parametrize("ended", [False, True])
def test_any_thread_lets_go_of_a_context(ended: bool) -> None:
    # An error in letting go is one that nobody can catch, and so fails the test.
    with ThreadPoolExecutor(1) as pool:
        made = [pool.submit(context, GRAPH).result() for _ in range(3)]
        for ctx in made:
            pool.submit(ctx.run).result()
            ctx.run()
        if not ended:
            ctx = made.pop()
            ctx.itself = ctx  # type: ignore[attr-defined]
            del ctx
            gc.collect()
            pool.submit(context, GRAPH).result().run()
    made.clear()
    gc.collect()


def test_errors_travel_between_threads(other: ThreadPoolExecutor) -> None:
    ctx = context(ENDLESS, nodes=100)
    with pytest.raises(TooManyTuples, match="bound the recursion"):
        other.submit(ctx.run).result()
    gc.collect()


def test_threads_do_not_mix_their_runs() -> None:
    barrier = threading.Barrier(2)

    @byssus_scallop.foreign_function
    def slow(x: i64) -> i64:
        barrier.wait(10)
        return x + 1

    ctx = ScallopContext(provenance="exact", backend="scallopy")
    ctx.register_foreign_function(slow)
    ctx.add_program("rel a = {0.5::1}\nrel b($slow(x)) = a(x)\nrel c($slow(x)) = b(x)")
    copies = [ctx, ctx.clone()]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ScallopContext.run, copies))
    assert [found(one, "c") for one in copies] == [{3: 0.5}] * 2


def test_a_function_may_run_the_same_program() -> None:
    @byssus_scallop.foreign_function
    def below(x: i64) -> i64:
        if x == 0:
            return 0
        copy = ctx.clone()
        copy.add_facts("a", [(None, (x - 1,))])
        copy.run()
        return 1 + max(row[0] for _, row in copy.relation("b"))

    ctx = ScallopContext(provenance="exact", backend="scallopy")
    ctx.register_foreign_function(below)
    ctx.add_program("type a(i64)\nrel b($below(x)) = a(x)")
    start = ctx.clone()
    start.add_facts("a", [(0.5, (3,))])
    start.run()
    assert found(start, "b") == {3: 0.5}


# Interrupts


def interrupted(ctx: ScallopContext) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ctx.run()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at one of the first operations on tags."""
    monkeypatch.setattr(_callbacks, "_OFTEN", 64)
    monkeypatch.setattr(Callbacks, "_check", lambda *_: signal.raise_signal(signal.SIGINT))


@pytest.mark.usefixtures("interrupt")
@pytest.mark.parametrize("provenance", ["exact", "sampled", "mixed", "auto"])
@pytest.mark.parametrize("program", ["endless", "large"])
def test_an_interrupt_ends_a_run(
    program: str,
    provenance: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(_callbacks, "_GRACE", 0.1)
    options = {"seconds": None, "nodes": None}
    if program == "endless":
        ctx = context(ENDLESS, provenance, **options)  # type: ignore[arg-type]
    else:
        ctx = large(provenance, **options)
    interrupted(ctx)
    assert capfd.readouterr() == ("", "")
    monkeypatch.undo()
    # It is as it was before.
    ctx.set_iter_limit(2)
    ctx._facts = [entry for entry in ctx._facts if entry.row[0] < 10]
    ctx.run()
    assert found(ctx, "q")


@byssus_scallop.foreign_function
def asked(x: i64) -> i64:
    signal.raise_signal(signal.SIGINT)
    return x


@byssus_scallop.foreign_predicate
def yields(x: i64) -> Facts[float, i64]:
    signal.raise_signal(signal.SIGINT)
    yield 0.5, x


def box(x: int) -> int:
    signal.raise_signal(signal.SIGINT)
    return x


@pytest.mark.parametrize("rule", ["q($asked(x)) = a(x)", "q(y) = a(x) and yields(x, y)"])
def test_an_interrupt_ends_a_call(rule: str) -> None:
    ctx = ScallopContext(provenance="exact", backend="scallopy")
    ctx.register_foreign_function(asked)
    ctx.register_foreign_predicate(yields)
    ctx.add_program(f"type a(i64)\nrel a = {{1, 2}}\nrel {rule}")
    interrupted(ctx)


def test_an_interrupt_ends_a_black_box() -> None:
    ctx = ScallopContext(provenance="exact", backend="scallopy")
    ctx.register_blackbox(box)
    ctx.add_program(
        "@blackbox type box(bound x: i64, y: i64)\nrel a = {1, 2}\nrel q(y) = a(x) and box(x, y)"
    )
    interrupted(ctx)


@pytest.mark.usefixtures("interrupt")
def test_a_handler_of_the_users_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        ctx = context("rel n = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}\nrel q(x, y) = n(x) and n(y)")
        ctx.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert set(seen) == {signal.SIGINT}
    assert len(found(ctx, "q")) == 100


# Runs that are broken off


@pytest.mark.parametrize(
    ("run", "error"),
    [
        (lambda: large(seconds=0.3), CompilationLimit),
        (lambda: large("sampled", seconds=0.3), CompilationLimit),
        (lambda: context(ENDLESS, seconds=0.3, nodes=None), CompilationLimit),
        (lambda: context(ENDLESS, nodes=1000), ByssusError),
    ],
)
def test_nothing_is_written_of_a_run_that_is_broken_off(
    run: Callable[[], ScallopContext],
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(_callbacks, "_GRACE", 0.1)
    with pytest.raises(error, match=r"seconds|raise the limit"):
        run().run()
    assert capfd.readouterr() == ("", "")
