from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import gc
import math
import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from byssus._calls import Caller, Failure, _column, _Named, _portable
from byssus.errors import (
    BlackBoxError,
    BlackBoxOutputError,
    BlackBoxTimeout,
    BudgetExceeded,
    ByssusError,
    DomainError,
    NondeterministicError,
)


def number(value):
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DomainError(f"{value!r} is no number")
    return value


def anything(value):
    return value


def caller(function, *, name="f", check_output=number, **settings):
    return Caller(function, name=name, check_output=check_output, **settings)


class Spy:
    """Records its calls, and fails on what it is told to fail on."""

    def __init__(self, bad=()):
        self.seen = []
        self.bad = set(bad)

    def __call__(self, x):
        self.seen.append(x)
        if x in self.bad:
            raise ValueError(f"bad {x}")
        return x * 10


class Columns(Spy):
    def __call__(self, column):
        self.seen.append(len(column))
        if self.bad.intersection(column.tolist()):
            raise ValueError("bad column")
        return column * 10


def ones(*values):
    return [(v,) for v in values]


def add(a, b):
    return a + b


# --- dedup and memo


def test_each_distinct_tuple_is_evaluated_once():
    spy = Spy()
    f = caller(spy)
    assert f.evaluate(ones(3, 1, 3)) == [30, 10, 30]
    assert f.evaluate(ones(1, 2)) == [10, 20]
    assert f.evaluate([]) == []
    assert spy.seen == [3, 1, 2]
    assert f.calls == 3


@given(st.lists(st.lists(st.integers(0, 5), max_size=8), max_size=5))
def test_answers_are_those_of_the_function(requests):
    spy = Spy()
    f = caller(spy)
    for request in requests:
        assert f.evaluate(ones(*request)) == [10 * x for x in request]
    assert Counter(spy.seen) == Counter({x for request in requests for x in request})


def test_equal_arguments_of_different_types_are_different():
    def kind(x):
        while isinstance(x, tuple | frozenset):
            (x,) = x
        return type(x).__name__

    f = caller(kind, check_output=anything)
    for wrap in (lambda x: x, lambda x: (x,), lambda x: ((x,),), lambda x: frozenset([x])):
        asked = ones(wrap(1), wrap(1.0), wrap(True), wrap(1))
        assert f.evaluate(asked) == ["int", "float", "bool", "int"]
    assert f.calls == 12


def test_known():
    f = caller(lambda x: None if x else 0, check_output=anything)
    assert f.known((1,)) is None
    assert f.known((1,), "unknown") == "unknown"
    f.evaluate(ones(0, 1))
    assert f.known((0,)) == 0
    assert f.known((1,), "unknown") is None
    assert f.known((0.0,)) is None


def test_without_memo_each_entry_is_a_draw():
    spy = Spy(bad=[2])
    f = caller(spy, memo=False, on_error=-1, budget=5)
    assert f.evaluate(ones(1, 1, 2)) == [10, 10, -1]
    assert f.known((1,)) is None
    with pytest.raises(BudgetExceeded):
        f.evaluate(ones(1, 1, 1))
    assert f.evaluate(ones(1, 1)) == [10, 10]
    assert f.calls == len(spy.seen) == 5


def test_stochastic_function_without_memo():
    f = caller(lambda x: random.random(), memo=False)
    assert len(set(f.evaluate(ones(*[1] * 20)))) == 20
    assert f.calls == 20


# --- budget


def test_budget_is_checked_before_any_call():
    spy = Spy()
    f = caller(spy, name="add", budget=3)
    f.evaluate(ones(1, 2))
    with pytest.raises(BudgetExceeded, match=r"add has a budget of 3 calls: 2 are .* 2 more .*=4"):
        f.evaluate(ones(1, 3, 4))
    assert spy.seen == [1, 2]
    assert f.evaluate(ones(1, 3, 3)) == [10, 30, 30]
    assert f.evaluate(ones(1, 2, 3)) == [10, 20, 30]
    with pytest.raises(BudgetExceeded):
        caller(spy, budget=0).evaluate(ones(1))


# --- failures


def test_a_failure_raises_with_its_arguments_and_cause():
    f = caller(lambda a, b: a // b, name="div")
    with pytest.raises(
        BlackBoxError, match=r"div\(3, 0\) raised ZeroDivisionError: .*on_error="
    ) as e:
        f.evaluate([(3, 1), (3, 0), (4, 0), (4, 1)])
    assert e.value.arguments == (3, 0)
    assert e.value.name == "div"
    assert isinstance(e.value.cause, ZeroDivisionError)
    assert e.value.__cause__ is e.value.cause
    assert e.value.cause.__traceback__ is not None
    assert f.calls == 2


def test_discard_memoises_the_failure():
    spy = Spy(bad=[2])
    f = caller(spy, on_error="discard")
    one, two = f.evaluate(ones(1, 2))
    assert one == 10
    assert isinstance(two, Failure)
    assert (two.arguments, two.kind, str(two.cause)) == ((2,), "raised", "bad 2")
    assert two.cause.__traceback__ is None
    assert f.evaluate(ones(2)) == [two]
    assert f.known((2,)) is two
    assert hash(two) == hash(two)
    assert spy.seen == [1, 2]


def test_a_value_in_place_of_a_failure_goes_through_check_output():
    f = caller(Spy(bad=[2]), on_error="7", check_output=int)
    assert f.evaluate(ones(1, 2)) == [10, 7]
    assert f.known((2,)) == 7
    with pytest.raises(DomainError, match=r'f: on_error= must be "raise", .* not None: None is no'):
        caller(Spy(), on_error=None)


@pytest.mark.parametrize(
    "settings",
    [{}, {"timeout": 5}, {"executor": "threads"}, {"vectorized": True}, {"asynchronous": True}],
)
def test_a_wrong_output_is_a_failure(settings):
    settings = dict(settings)

    def f(x):
        if settings.get("vectorized"):
            return [int(v) if v else "zero" for v in x]
        return x or "zero"

    async def g(x):
        return f(x)

    function = g if settings.pop("asynchronous", False) else f
    with ThreadPoolExecutor(2) as pool:
        if "executor" in settings:
            settings["executor"] = pool
        with pytest.raises(BlackBoxOutputError, match=r"f\(0\) returned 'zero'.*is no number") as e:
            caller(function, **settings).evaluate(ones(1, 0, 2))
        assert e.value.arguments == (0,)
        one, zero = caller(function, on_error="discard", **settings).evaluate(ones(1, 0))
        assert (one, zero.kind, zero.value) == (1, "output", "zero")
        assert caller(function, on_error=5, **settings).evaluate(ones(1, 0)) == [1, 5]


def test_check_output_canonicalises():
    assert caller(lambda x: x, check_output=round).evaluate(ones(1.2)) == [1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("way", ["inline", "worker", "vectorized", "threads", "async"])
def test_interrupts_propagate(error, way):
    def f(x):
        raise error

    async def g(x):
        await asyncio.sleep(0)
        raise error

    with ThreadPoolExecutor(1) as pool:
        settings = {
            "worker": {"timeout": 5},
            "vectorized": {"vectorized": True},
            "threads": {"executor": pool},
        }
        box = caller(g if way == "async" else f, on_error="discard", **settings.get(way, {}))
        with pytest.raises(error):
            box.evaluate(ones(1, 2))
    assert box.known((1,)) is None


# --- transactions


def test_a_failed_request_leaves_the_memo_but_counts_its_calls():
    spy = Spy(bad=[3])
    f = caller(spy)
    f.evaluate(ones(1))
    with pytest.raises(BlackBoxError):
        f.evaluate(ones(1, 2, 3, 4))
    assert f.known((2,)) is None
    assert f.calls == 3
    spy.bad.clear()
    assert f.evaluate(ones(1, 2, 3)) == [10, 20, 30]
    assert spy.seen == [1, 2, 3, 2, 3]


def test_staged_commits_at_the_end():
    spy = Spy()
    f = caller(spy)
    with f.staged():
        f.evaluate(ones(1))
        with f.staged():
            f.evaluate(ones(1, 2))
        assert f.evaluate(ones(2)) == [20]
        assert f.known((2,)) == 20
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(f.known, (2,)).result() is None
    assert f.known((1,)) == 10
    assert f.known((2,)) == 20
    assert spy.seen == [1, 2]


def test_staged_drops_what_raised():
    spy = Spy(bad=[9])
    f = caller(spy)
    f.evaluate(ones(0))

    def interrupted():
        with f.staged():
            with f.staged():
                f.evaluate(ones(1))
            assert f.known((1,)) == 10
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert (f.known((0,)), f.known((1,))) == (0, None)
    with f.staged():
        f.evaluate(ones(1))
        with pytest.raises(BlackBoxError):
            f.evaluate(ones(2, 9))
        assert f.known((2,)) is None
    assert (f.known((1,)), f.known((2,))) == (10, None)
    assert f.calls == 5


# --- vectorised


def test_vectorised_takes_columns():
    shapes = []

    def f(a, b):
        shapes.append((a.dtype, b.shape))
        return a + b

    for convert in (lambda c: c, list, torch.from_numpy, tuple):
        box = caller(lambda a, b, convert=convert: convert(f(a, b)), vectorized=True)
        out = box.evaluate([(1, 2), (3, 4), (1, 2)])
        assert out == [3, 7, 3]
        assert [type(v) for v in out] == [int] * 3
        assert box.calls == 2
    assert shapes == [(np.dtype(np.int64), (2,))] * 4


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], "int64"),
        ([1, 2.5], "object"),
        ([True, False], "bool"),
        ([True, 1], "object"),
        ([0.5, 1.0], "float64"),
        (["a", "bcd"], "<U3"),
        (["a\0", "b"], "object"),
        ([2**63, -1], "object"),
        ([(1, 2), (3, 4)], "object"),
        ([(1,), (3, 4)], "object"),
        ([None, "a"], "object"),
    ],
)
def test_columns_keep_their_values(values, dtype):
    column = _column(values)
    assert column.dtype == np.dtype(dtype)
    assert column.shape == (2,)
    assert list(map(repr, column.tolist())) == list(map(repr, values))


def test_vectorised_rows_and_entries_become_python_values():
    f = caller(lambda x: np.stack([x, x], 1), vectorized=True, check_output=anything)
    assert f.evaluate(ones(1, 2)) == [(1, 1), (2, 2)]
    g = caller(lambda x: [torch.tensor(1), np.float64(2)], vectorized=True)
    assert [type(v) for v in g.evaluate(ones(1, 2))] == [int, float]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (np.zeros(3), "a column of 3 for 2"),
        ([1], "a column of 1 for 2"),
        (7, "7, which is no column, for 2"),
        ("ab", "'ab', which is no column, for 2"),
        (np.array(1), "which is no column, for 2"),
        (None, "None, which is no column"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "discard", 0])
def test_vectorised_must_return_a_column(reply, message, on_error):
    f = caller(lambda x: reply, vectorized=True, on_error=on_error)
    with pytest.raises(BlackBoxOutputError, match=message):
        f.evaluate(ones(1, 2))


def test_vectorised_failure_raises_with_the_count():
    f = caller(Columns(bad=[3]), vectorized=True)
    with pytest.raises(BlackBoxError, match=r"f\(1\), .* with 3 more argument tuples, raised Val"):
        f.evaluate(ones(1, 2, 3, 4))
    assert f.calls == 4


def test_vectorised_failures_are_bisected():
    spy = Columns(bad=[3])
    f = caller(spy, vectorized=True, on_error="discard")
    out = f.evaluate(ones(*range(8)))
    assert [x for x in range(8) if isinstance(out[x], Failure)] == [3]
    assert out[3].arguments == (3,)
    assert out[3].together == 1
    assert spy.seen == [8, 4, 2, 2, 1, 1, 4]
    assert f.calls == sum(spy.seen)
    assert caller(Columns(bad=[0, 2]), vectorized=True, on_error=-1).evaluate(ones(0, 1, 2)) == [
        -1,
        10,
        -1,
    ]


def test_bisecting_stays_within_the_budget():
    f = caller(Columns(bad=[3]), vectorized=True, on_error="discard", budget=9)
    with pytest.raises(BudgetExceeded):
        f.evaluate(ones(*range(8)))
    assert f.calls == 8
    assert f.known((0,)) is None


# --- executors


def test_thread_pool():
    barrier = threading.Barrier(3, timeout=5)

    def f(x):
        barrier.wait()
        return -x

    with ThreadPoolExecutor(3) as pool:
        box = caller(f, executor=pool)
        assert box.evaluate(ones(1, 2, 3)) == [-1, -2, -3]
        assert box.calls == 3
        spy = Columns()
        assert caller(spy, executor=pool, vectorized=True).evaluate(ones(1, 2)) == [10, 20]
        assert spy.seen == [2]


def test_executor_counts_what_was_called():
    release = threading.Event()

    def f(x):
        if x == 0:
            raise ValueError
        release.wait(5)
        return x

    with ThreadPoolExecutor(1) as pool:
        box = caller(f, executor=pool)
        with pytest.raises(BlackBoxError, match=r"f\(0\) raised ValueError"):
            box.evaluate(ones(*range(20)))
        release.set()
        assert box.calls <= 3
        assert caller(Spy(bad=[1]), executor=pool, on_error=-1).evaluate(ones(0, 1)) == [0, -1]


def test_executor_timeout():
    release = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        box = caller(lambda x: x or release.wait(5), executor=pool, timeout=0.2, on_error=-1)
        assert box.evaluate(ones(0, 1)) == [-1, 1]
        release.set()


def test_a_shut_executor_is_an_error_whatever_on_error_says():
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(BlackBoxError, match=r"f could not be .* ThreadPoolExecutor .*new executor"):
        caller(Spy(), executor=pool, on_error="discard").evaluate(ones(1))


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        yield pool


def test_process_pool(processes):
    # The module of a test is not importable in another process; `math` is.
    box = caller(math.comb, executor=processes)
    assert box.evaluate([(4, 2), (5, 1), (4, 2)]) == [6, 5, 6]
    assert box.calls == 2
    with pytest.raises(BlackBoxError, match=r"f\(-1, 1\) raised ValueError") as e:
        box.evaluate([(-1, 1)])
    assert isinstance(e.value.__cause__, ValueError)


def test_process_pool_needs_a_function_that_pickles(processes):
    with pytest.raises(BlackBoxError, match=r"f could not be .* ProcessPool.*top level") as e:
        caller(lambda x: x, executor=processes, on_error="discard").evaluate(ones(1))
    assert e.value.__cause__ is e.value.cause
    with pytest.raises(BlackBoxError, match="top level"):
        caller(functools.partial(add, lambda: 0), executor=processes).evaluate(ones(1))


def test_a_decorated_function_is_found_by_its_name(monkeypatch):
    class Box:
        __wrapped__ = add

    function = add
    monkeypatch.setitem(globals(), "add", Box)
    monkeypatch.setitem(sys.modules, __name__, type("M", (), {"add": Box}))
    portable = _portable(function)
    assert portable == _Named(__name__, "add")
    assert pickle.loads(pickle.dumps(portable))(3, 4) == 7


def test_a_process_that_dies_is_an_error():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        box = caller(os._exit, executor=pool, on_error="discard")
        with pytest.raises(BlackBoxError, match="BrokenProcessPool"):
            box.evaluate(ones(1))
        with pytest.raises(BlackBoxError, match="new executor"):
            box.evaluate(ones(1))


# --- timeouts


def test_timeout_of_a_hanging_call():
    release = threading.Event()
    threads = []

    def f(x):
        threads.append(threading.current_thread())
        if x == 1:
            release.wait(5)
        return x

    start = time.monotonic()
    box = caller(f, timeout=0.2)
    with pytest.raises(BlackBoxTimeout, match=r"f\(1\) gave no answer in 0.2 s; raise timeout="):
        box.evaluate(ones(0, 1, 2))
    assert box.calls == 2
    box = caller(f, timeout=0.2, on_error="discard")
    zero, one, two, three = box.evaluate(ones(0, 1, 2, 3))
    assert (zero, one.kind, two, three) == (0, "timeout", 2, 3)
    assert time.monotonic() - start < 1
    a, b, c, d = threads[-4:]
    assert a is b
    assert b is not c
    assert c is d
    assert d.daemon
    release.set()
    b.join(5)
    assert not b.is_alive()


def test_timeout_from_another_thread_and_with_context():
    variable = contextvars.ContextVar("variable", default=0)

    def ask():
        variable.set(5)
        return caller(lambda x: x + variable.get(), timeout=5).evaluate(ones(1, 2))

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(ask).result() == [6, 7]


def test_a_timeout_that_the_function_raises_is_its_own():
    def f(x):
        raise TimeoutError("mine")

    async def g(x):
        raise TimeoutError("mine")

    for function in (f, g):
        (outcome,) = caller(function, timeout=5, on_error="discard").evaluate(ones(1))
        assert (outcome.kind, str(outcome.cause)) == ("raised", "mine")


def test_vectorised_timeout_is_for_the_whole():
    release = threading.Event()
    calls = []

    def f(x):
        calls.append(x)
        release.wait(5)
        return x

    box = caller(f, vectorized=True, timeout=0.2, on_error="discard")
    assert [o.kind for o in box.evaluate(ones(1, 2, 3))] == ["timeout"] * 3
    assert len(calls) == 1
    with pytest.raises(BlackBoxTimeout, match="with 1 more argument tuples, gave no answer"):
        caller(f, vectorized=True, timeout=0.2).evaluate(ones(1, 2))
    release.set()


def test_the_worker_ends_with_its_caller():
    threads = []

    def f(x):
        threads.append(threading.current_thread())
        return x

    box = caller(f, timeout=5)
    box.evaluate(ones(1, 2))
    reference = weakref.ref(box)
    del box
    gc.collect()
    assert reference() is None
    assert threads[0] is threads[1]
    threads[0].join(5)
    assert not threads[0].is_alive()


# --- coroutines


async def double(x):
    await asyncio.sleep(0)
    return 2 * x


class Doubler:
    async def __call__(self, x):
        return 2 * x


async def scaled(factor, x):
    return factor * x


@pytest.mark.parametrize("function", [double, Doubler(), functools.partial(scaled, 2)])
def test_async_functions(function):
    box = caller(function)
    assert box.evaluate(ones(1, 2, 1)) == [2, 4, 2]
    assert box.calls == 2


def test_async_within_a_running_loop():
    async def main():
        return caller(double).evaluate(ones(1, 2))

    assert asyncio.run(main()) == [2, 4]


def test_async_keeps_its_loop_and_context():
    variable = contextvars.ContextVar("variable", default=0)
    loops = []

    async def f(x):
        loops.append(asyncio.get_running_loop())
        return x + variable.get()

    variable.set(5)
    box = caller(f)
    assert box.evaluate(ones(1)) + box.evaluate(ones(2)) == [6, 7]
    assert loops[0] is loops[1]


def test_async_concurrency_limit():
    running, most = 0, 0

    async def f(x):
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(3):
            await asyncio.sleep(0)
        running -= 1
        return x

    assert caller(f, concurrency=4).evaluate(ones(*range(20))) == list(range(20))
    assert most == 4


def test_async_failures():
    started = []

    async def f(x):
        started.append(x)
        await asyncio.sleep(0 if x else 60)
        if x == 3:
            raise ValueError
        return x

    box = caller(f, timeout=0.2, on_error="discard")
    zero, one, two, three = box.evaluate(ones(0, 1, 2, 3))
    assert (zero.kind, one, two, three.kind) == ("timeout", 1, 2, "raised")
    started.clear()
    box = caller(f, timeout=0.2, concurrency=2)
    with pytest.raises(BlackBoxTimeout, match=r"f\(0\) gave no answer"):
        box.evaluate(ones(0, 3, *range(10, 20)))
    assert started == [0, 3]
    assert box.calls == 2


def test_async_vectorised():
    waits = []

    async def f(x):
        waits.append(len(x))
        return x * 2

    box = caller(f, vectorized=True)
    assert box.evaluate(ones(1, 2, 3)) == [2, 4, 6]
    assert waits == [3]
    assert box.calls == 3


# --- determinism


@pytest.mark.parametrize(
    "draw",
    [
        random.random,
        lambda: float(np.random.rand()),  # noqa: NPY002
        lambda: torch.rand(()).item(),
    ],
)
@pytest.mark.parametrize("way", ["inline", "vectorized", "worker"])
def test_global_generators_are_caught(draw, way):
    settings = {"inline": {}, "vectorized": {"vectorized": True}, "worker": {"timeout": 5}}[way]

    def f(x):
        return [draw() for _ in x] if way == "vectorized" else draw()

    box = caller(f, **settings)
    with pytest.raises(
        NondeterministicError, match=r"f\(1\) answered 0\.\d+ and .*memo=False"
    ) as e:
        box.evaluate(ones(1, 2))
    assert e.value.arguments == (1,)
    assert box.known((1,)) is None


def test_a_function_that_seeds_is_deterministic_and_believed():
    seen = []

    def f(x):
        seen.append(x)
        random.seed(x)
        return random.random()

    box = caller(f)
    box.evaluate(ones(1, 2, 3))
    assert len(seen) == box.calls == 3 + 3 * 3
    box.evaluate(ones(*range(10)))
    assert box.calls == 12 + 7 + 5 * 3
    box.evaluate(ones(*range(100)))
    assert box.calls == 34 + 90


def test_nan_agrees_with_itself():
    def f(x):
        random.seed(x)
        return float("nan")

    assert math.isnan(caller(f).evaluate(ones(1))[0])


def test_a_pure_function_is_not_checked():
    box = caller(Spy())
    box.evaluate(ones(*range(20)))
    assert box.calls == 20


def test_check_catches_a_counter():
    count = iter(range(100))
    box = caller(lambda x: next(count), check=1)
    with pytest.raises(NondeterministicError, match=r"f\(5\) answered 0 and then 2"):
        box.evaluate(ones(5, 6))
    assert caller(lambda x: next(count)).evaluate(ones(5)) == [3]


@pytest.mark.parametrize("vectorized", [False, True])
def test_check_repeats_the_first_tuples(vectorized):
    box = caller(Columns() if vectorized else Spy(), check=3, vectorized=vectorized)
    calls = []
    for request in (ones(1, 2), ones(1, 2), ones(3, 4), ones(5)):
        box.evaluate(request)
        calls.append(box.calls)
    assert calls == [4, 4, 7, 8]


def test_checks_are_skipped_where_the_budget_leaves_no_room():
    box = caller(Spy(), check=3, budget=4)
    box.evaluate(ones(1, 2, 3))
    assert box.calls == 4
    box = caller(lambda x: random.random(), budget=4)
    box.evaluate(ones(1, 2))
    assert box.calls == 4 - 2
    with pytest.raises(NondeterministicError):
        caller(lambda x: random.random(), budget=5).evaluate(ones(1, 2))


def test_failures_contradict_no_answer():
    tries = Counter()

    def f(x):
        tries[x] += 1
        if tries[x] == 2:
            raise ConnectionError
        return x

    box = caller(f, check=2)
    assert box.evaluate(ones(1, 2)) == [1, 2]
    box = caller(Spy(bad=[1]), on_error="discard", check=1)
    assert box.evaluate(ones(1, 2))[1] == 20
    assert box.calls == 3


# --- threads


def test_threads_that_ask_at_once_evaluate_once():
    spy = Spy()
    f = caller(spy)
    barrier = threading.Barrier(8, timeout=5)

    def ask(shift):
        barrier.wait()
        order = [(x + shift) % 50 for x in range(50)]
        return f.evaluate(ones(*order)) == [10 * x for x in order]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
    assert Counter(spy.seen) == Counter(range(50))
    assert f.calls == 50


def test_a_function_may_evaluate_its_own_caller():
    def fibonacci(n):
        return n if n < 2 else f.evaluate([(n - 1,)])[0] + f.evaluate([(n - 2,)])[0]

    f = caller(fibonacci)
    assert f.evaluate(ones(30)) == [832040]
    assert f.calls == 31


# --- settings, copies


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeout": 0}, "f: timeout= must be None or a positive number of seconds, not 0"),
        ({"timeout": -1.0}, "timeout="),
        ({"timeout": math.nan}, "timeout="),
        ({"timeout": math.inf}, "timeout="),
        ({"timeout": "1"}, "timeout="),
        ({"timeout": True}, "timeout="),
        ({"concurrency": 0}, "concurrency= must be an integer, 1 or more, not 0"),
        ({"concurrency": 1.5}, "concurrency="),
        ({"budget": -1}, "budget= must be None or an integer, 0 or more, not -1"),
        ({"budget": 1.0}, "budget="),
        ({"check": -1}, "check="),
        ({"check": 1, "memo": False}, "check= is for a pure function"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(DomainError, match=message):
        caller(add, **settings)


def test_what_cannot_be_called():
    with pytest.raises(DomainError, match="f: the black box must be callable, not 3"):
        caller(3)
    with ThreadPoolExecutor(1) as pool, pytest.raises(DomainError, match="takes no executor"):
        caller(double, executor=pool)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))])
def test_copies_keep_the_memo(duplicate):
    with ThreadPoolExecutor(1) as pool:
        f = caller(math.comb, executor=pool, check=2, budget=10)
        f.evaluate([(4, 2)])
        g = duplicate(f)
    assert g.executor is None
    assert g.known((4, 2)) == 6
    assert g.evaluate([(4, 2), (5, 2)]) == [6, 10]
    assert (f.calls, g.calls) == (2, 4)
    assert f.known((5, 2)) is None
    h = duplicate(caller(math.comb, timeout=5))
    assert h.evaluate([(4, 2)]) == [6]


def test_all_errors_have_one_root():
    with pytest.raises(ByssusError):
        caller(lambda x: 1 / x).evaluate(ones(0))


def test_the_memo_forgets_the_oldest_answers_beyond_its_limit(monkeypatch):
    monkeypatch.setattr("byssus._calls.MEMO_LIMIT", 3)
    spy = Spy()
    f = caller(spy)
    f.evaluate(ones(1, 2))
    f.evaluate(ones(3, 4))
    f.evaluate(ones(2, 3, 4))
    assert spy.seen == [1, 2, 3, 4]
    f.evaluate(ones(1))
    assert spy.seen == [1, 2, 3, 4, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # that is what this is about
def test_a_process_forked_while_another_thread_calls():
    begun, over = threading.Event(), threading.Event()

    def wait(x):
        if x == 0:
            begun.set()
            over.wait(30)
        return x

    waiting = caller(wait)
    thread = threading.Thread(target=waiting.evaluate, args=(ones(0),))
    thread.start()
    assert begun.wait(10)
    pid = os.fork()
    if not pid:
        os._exit(0 if waiting.evaluate(ones(1)) == [1] else 1)
    late = threading.Timer(10, os.kill, (pid, signal.SIGKILL))
    late.start()
    _, status = os.waitpid(pid, 0)
    late.cancel()
    over.set()
    thread.join()
    assert status == 0
