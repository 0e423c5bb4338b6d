"""Calls: a callable, evaluated on many argument tuples.

A `Caller` owns everything that lies between asking for tuples and having their answers. A request
is deduplicated and looked up in the memo; what is new is checked against the budget and evaluated
in one of four ways (in the caller's thread, on a worker thread under a time limit, on an executor,
or as coroutines on an event loop); each answer goes through `check_output`; and the failures are
dealt with as `on_error` says. What the tuples mean is the business of `byssus.blackbox`.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib
import inspect
import os
import pickle
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from itertools import islice
from queue import SimpleQueue
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from byssus.errors import (
    BlackBoxError,
    BlackBoxOutputError,
    BlackBoxTimeout,
    BudgetExceeded,
    ByssusError,
    CallRefused,
    DomainError,
    NondeterministicError,
    listed,
)

__all__ = ["Arguments", "Caller", "Failure", "Outcome"]

MEMO_LIMIT = 1_000_000  # answers; beyond it the oldest are forgotten

Arguments: TypeAlias = tuple[Hashable, ...]


@dataclass(frozen=True)
class Failure:
    """The outcome of a call that gave no answer.

    Attributes:
        arguments: the argument tuple.
        cause: what the function raised, or what was wrong with its output. Its traceback is kept
            only under `on_error="raise"`: a memo of tracebacks would keep every frame alive.
        kind: whether the function raised, ran out of time, or returned a wrong output.
        value: the wrong output, for the kind "output".
        together: how many tuples the failed evaluation held; 1 unless the function is vectorised.
    """

    arguments: Arguments
    cause: Exception
    kind: Literal["raised", "timeout", "output"]
    value: object = field(default=None, compare=False)
    together: int = 1


Outcome: TypeAlias = Hashable | Failure


class Caller:
    """A callable with a memo, a budget and a policy for failures.

    Threads that evaluate at the same time take turns, so that a tuple that both ask for is
    evaluated once. A function may evaluate its own caller again, except from another thread (an
    executor's, or the worker's under `timeout`), where it would wait for itself.

    The memo holds the last million answers. A copy or a pickle keeps the memo and the count of
    calls, and drops the executor: the copy calls in its own thread until its `executor` is set.

    Attributes:
        calls: evaluations so far, those that failed and those that checked another included; a
            vectorised evaluation of n tuples counts n.
        executor: where ordinary functions run, or None for the caller's thread.
        budget: the most calls, ever, or None.
        memoised: whether each tuple is evaluated once.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        check_output: Callable[[object], Hashable],
        vectorized: bool = False,
        executor: Executor | None = None,
        concurrency: int = 16,
        timeout: float | None = None,
        on_error: Hashable = "raise",
        budget: int | None = None,
        memo: bool = True,
        check: int = 0,
        typed: bool = True,
        remote: bool = False,
    ) -> None:
        """Set up; nothing is called yet.

        Args:
            function: takes one argument tuple, as positional arguments. May be `async`.
            name: what messages call it.
            check_output: returns the canonical form of an output, or raises `DomainError`.
            vectorized: the function takes one numpy array an argument and returns a column (an
                array, list or tensor): one entry, or row, for each tuple.
            executor: where to submit each tuple (a vectorised function: the whole request).
            concurrency: how many calls of an async function run at once.
            timeout: seconds that a call may take, and a vectorised evaluation as a whole. On an
                executor they count from when its answer is waited for. A call that is out of
                time keeps its thread until it returns; an async one is cancelled at its `await`.
            on_error: "raise"; "discard", for a `Failure` as the outcome; or any other value, the
                outcome in place of a failure. An executor that breaks, and a vectorised function
                that returns no column of the right length, always raise.
            budget: the most calls, ever.
            memo: whether the function is pure, so that each tuple is evaluated once. Without it
                every tuple that is asked for is a draw of its own.
            check: how many tuples, the first ones, to evaluate a second time, to catch a function
                that is not pure. A function that uses a global random number generator is caught
                without it.
            typed: whether 1, 1.0 and True are different arguments. Where each argument has one
                type, it is faster not to look.
            remote: whether the function asks somewhere else. Its failures may pass, so they are not
                remembered; and what it does to random number generators is not its answers'.

        Raises:
            DomainError: if a setting is out of range, or `on_error` is no output.
        """

        def need(condition: bool, rule: str, value: object) -> None:
            if not condition:
                raise DomainError(f"{name}: {rule}, not {value!r}")

        need(callable(function), "the black box must be callable", function)
        need(_is_count(concurrency, 1), "concurrency= must be an integer, 1 or more", concurrency)
        need(_is_count(check, 0), "check= must be an integer, 0 or more", check)
        if budget is not None:
            need(_is_count(budget, 0), "budget= must be None or an integer, 0 or more", budget)
        if timeout is not None:
            is_duration = (
                isinstance(timeout, int | float)
                and not isinstance(timeout, bool)
                and 0 < timeout <= threading.TIMEOUT_MAX
            )
            need(is_duration, "timeout= must be None or a positive number of seconds", timeout)
        need(memo or not check, "check= is for a pure function: give 0 with memo=False", check)
        self._asynchronous = _is_async(function)
        if self._asynchronous:
            rule = "an async function takes no executor: give executor=None and set concurrency="
            need(executor is None, rule, executor)

        self.name = name
        self.calls = 0
        self.executor = executor
        self._function = function
        self._check_output = check_output
        self._vectorized = vectorized
        self._concurrency = concurrency
        self._timeout = timeout
        self.budget = budget
        self.memoised = memo
        self.typed = typed
        self._on_error = on_error
        if on_error not in ("raise", "discard"):
            try:
                self._on_error = check_output(on_error)
            except ByssusError as error:
                raise DomainError(
                    f'{name}: on_error= must be "raise", "discard" or an output of the black box, '
                    f"not {on_error!r}: {error}"
                ) from error
        self._unchecked = check
        self._doubtful = 0 if remote else _DOUBTFUL
        self._remote = remote
        self._memo: dict[Hashable, Outcome] = {}
        self._own()

    def _own(self) -> None:
        """Make what a copy cannot share."""
        self._lock = threading.RLock()
        _CALLERS.add(self)
        self._stages = _Stages()
        self._worker: _Worker | None = None

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {**self.__dict__, "executor": None, "_memo": self._memo.copy()}
        state["_function"] = carried(self._function)
        for name in ("_lock", "_stages", "_worker"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own()

    def evaluate(self, tuples: Sequence[Arguments]) -> list[Outcome]:
        """Answer every tuple, in order.

        If it raises, the memo is what it was before.

        Args:
            tuples: argument tuples. 1, 1.0 and True are different arguments.

        Returns:
            One outcome a tuple: the canonical output, or a `Failure` under `on_error="discard"`.

        Raises:
            BudgetExceeded: if the tuples that are new do not fit the budget. Raised before any
                call; but a vectorised function that failed is evaluated again by halves, and may
                run out then.
            BlackBoxError: if a call failed under `on_error="raise"` (the first in order; later
                ones are not started, or abandoned), or if the executor broke.
            NondeterministicError: if a function that is taken as pure gave two answers.
        """
        with self._lock, self.staged() as fresh:
            if not self.memoised:
                self._afford(len(tuples))
                return [self._settled(outcome) for outcome in self._run(tuples)]
            keys = [self._key(arguments) for arguments in tuples]
            new = {
                key: arguments
                for key, arguments in zip(keys, tuples, strict=True)
                if self._find(key) is _UNKNOWN
            }
            if new:
                self._afford(len(new))
                for key, outcome in zip(new, self._learn(list(new.values())), strict=True):
                    fresh[key] = self._settled(outcome)
                    if self._remote and isinstance(outcome, Failure):
                        self.passing.add(key)
            return [self._find(key) for key in keys]

    def known(self, arguments: Arguments, default: Outcome | None = None) -> Outcome | None:
        """Look a tuple up in the memo, calling nothing.

        Args:
            arguments: the argument tuple.
            default: what to return if it is not there. Give one where None is an output.

        Returns:
            Its outcome, or the default.
        """
        found = self._find(self._key(arguments))
        return default if found is _UNKNOWN else found

    @contextmanager
    def staged(self) -> Iterator[dict[Hashable, Outcome]]:
        """Make several evaluations one transaction of this thread.

        What is evaluated inside is known inside, and joins the memo (or the enclosing block) when
        the block ends. A block that raises leaves the memo as it was.

        Yields:
            The stage; of use to `evaluate` alone.
        """
        stack = self._stages.stack
        if not stack:
            self.passing.clear()
        stage: dict[Hashable, Outcome] = {}
        stack.append(stage)
        try:
            yield stage
        finally:
            stack.pop()
        if stack:
            stack[-1].update(stage)
        else:
            with self._lock:
                self._memo.update((k, o) for k, o in stage.items() if k not in self.passing)
                # Where sampled tuples hardly ever recur, the memo would grow without end.
                for key in list(islice(self._memo, max(0, len(self._memo) - MEMO_LIMIT))):
                    del self._memo[key]

    @property
    def passing(self) -> set[Hashable]:
        """What of this thread's `staged` block, open or the last, is not to be remembered."""
        return self._stages.passing

    def _key(self, arguments: Arguments) -> Hashable:
        return (arguments, _types(arguments)) if self.typed else arguments

    def _find(self, key: Hashable) -> Outcome:
        for stage in reversed(self._stages.stack):
            if key in stage:
                return stage[key]
        return self._memo.get(key, _UNKNOWN)

    def _afford(self, needed: int) -> None:
        if self.budget is not None and self.calls + needed > self.budget:
            raise BudgetExceeded(
                f"{self.name} has a budget of {self.budget} calls: {self.calls} are made and "
                f"{needed} more are needed. Give budget={self.calls + needed} or more, or sample "
                "fewer worlds"
            )

    def _learn(self, batch: Sequence[Arguments]) -> list[Outcome]:
        """Evaluate new tuples of a pure function, and check that it is one."""
        before = _rng_states() if self._doubtful else None
        outcomes = self._run(batch)
        moved = before is not None and before != _rng_states()
        self._unchecked -= self._repeat(batch, outcomes, self._unchecked, 1)
        if moved:
            self._doubtful -= self._repeat(batch, outcomes, self._doubtful, _REPEATS)
        return outcomes

    def _repeat(
        self, batch: Sequence[Arguments], outcomes: Sequence[Outcome], most: int, times: int
    ) -> int:
        """Evaluate up to `most` tuples again, as the budget allows, and return how many.

        A failure is no answer, and contradicts none.
        """
        answered = [
            (arguments, outcome)
            for arguments, outcome in zip(batch, outcomes, strict=True)
            if not isinstance(outcome, Failure)
        ]
        if self.budget is not None:
            most = max(0, min(most, (self.budget - self.calls) // times))
        chosen = answered[:most]
        for _ in range(times if chosen else 0):
            with closing(self._outcomes([arguments for arguments, _ in chosen])) as again:
                for (arguments, first), second in zip(chosen, again, strict=True):
                    if not isinstance(second, Failure) and not _same(first, second):
                        raise NondeterministicError(
                            f"{self._call(arguments)} answered {_shown(first)} and then "
                            f"{_shown(second)}, so its answers must not be kept: give memo=False "
                            "if it is meant to be random, or seed its generator inside it",
                            name=self.name,
                            arguments=arguments,
                        )
        return len(chosen)

    def _run(self, batch: Sequence[Arguments]) -> list[Outcome]:
        """Evaluate each entry, or raise at the first failure under `on_error="raise"`."""
        done: list[Outcome] = []
        with closing(self._outcomes(batch)) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, Failure) and self._on_error == "raise":
                    raise self._error(outcome) from outcome.cause
                done.append(outcome)
        return done

    def _settled(self, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Failure):
            return outcome
        return outcome if self._on_error == "discard" else self._on_error

    def _outcomes(self, batch: Sequence[Arguments]) -> Generator[Outcome]:
        """One outcome an entry, made as it is asked for."""
        if not batch:
            return
        if self._vectorized:
            yield from self._column_outcomes(batch)
            return
        with closing(self._replies(batch)) as replies:
            for arguments, reply in zip(batch, replies, strict=True):
                if isinstance(reply, _Caught):
                    yield self._failure(arguments, reply)
                else:
                    yield self._checked(arguments, reply)

    def _column_outcomes(self, batch: Sequence[Arguments]) -> Generator[Outcome]:
        """Evaluate columns; where they raise, go on by halves to find the tuples at fault."""
        columns = tuple(map(_column, zip(*batch, strict=True)))
        with closing(self._replies([columns], count=len(batch))) as replies:
            reply = next(replies)
        if not isinstance(reply, _Caught):
            entries = self._entries(batch, reply)
            yield from map(self._checked, batch, entries)
        elif len(batch) == 1 or self._on_error == "raise" or reply.kind == "timeout":
            yield from (self._failure(arguments, reply, len(batch)) for arguments in batch)
        else:
            self._afford(len(batch))
            middle = len(batch) // 2
            yield from self._column_outcomes(batch[:middle])
            yield from self._column_outcomes(batch[middle:])

    def _entries(self, batch: Sequence[Arguments], column: Any) -> list[object]:
        entries = column.tolist() if hasattr(column, "tolist") else column
        if isinstance(entries, list | tuple) and len(entries) == len(batch):
            rows = hasattr(column, "tolist") and getattr(column, "ndim", 1) > 1
            return [_frozen(entry) if rows else _plain(entry) for entry in entries]
        what = (
            f"a column of {len(entries)}"
            if isinstance(entries, list | tuple)
            else f"{_shown(column)}, which is no column,"
        )
        raise BlackBoxOutputError(
            f"{self.name} is vectorised and returned {what} for {len(batch)} argument tuples: "
            "return one entry for each",
            name=self.name,
            arguments=batch[0],
        )

    def _checked(self, arguments: Arguments, value: object) -> Outcome:
        try:
            return self._check_output(value)
        except ByssusError as error:
            return self._failure(arguments, _Caught(error, "output", value))

    def _failure(self, arguments: Arguments, caught: _Caught, together: int = 1) -> Failure:
        if self._on_error != "raise":
            caught.error.with_traceback(None)
        return Failure(arguments, caught.error, caught.kind, caught.value, together)

    def _error(self, failure: Failure) -> BlackBoxError:
        call = self._call(failure.arguments)
        if failure.together > 1:
            call += f", evaluated together with {failure.together - 1} more argument tuples,"
        otherwise = 'or set on_error= to "discard" or to an output to take in its place'
        error: type[BlackBoxError]
        if failure.kind == "raised":
            error = BlackBoxError
            what = f"{type(failure.cause).__name__}: {failure.cause}"
            message = f"raised {what}; mend it, {otherwise}"
            if isinstance(failure.cause, ByssusError):  # which says itself what to do
                message = f"failed: {failure.cause}; {otherwise}"
        elif failure.kind == "timeout":
            error = BlackBoxTimeout
            message = f"gave no answer in {self._timeout} s; raise timeout=, {otherwise}"
        else:
            error = BlackBoxOutputError
            message = (
                f"returned {_shown(failure.value)}, which is no output of it: {failure.cause}; "
                f"mend it or its output domain, {otherwise}"
            )
        return error(
            f"{call} {message}", name=self.name, arguments=failure.arguments, cause=failure.cause
        )

    def _call(self, arguments: Arguments) -> str:
        return f"{self.name}({listed(arguments)})"

    def _broken(self, error: Exception, mend: str) -> BlackBoxError:
        message = (
            f"{self.name} could not be evaluated on its {type(self.executor).__name__} "
            f"({type(error).__name__}: {error}); {mend}"
        )
        return BlackBoxError(message, name=self.name, arguments=(), cause=error)

    # The ways to call. Each yields one reply a job, in order: what the function returned, or a
    # `_Caught`. `count` is what a job adds to `calls`. Closing one drops what has not begun.

    def _replies(self, jobs: Sequence[tuple[Any, ...]], count: int = 1) -> Generator[Any]:
        if self._asynchronous:
            return self._from_coroutines(jobs, count)
        if self.executor is not None:
            return self._from_executor(self.executor, jobs, count)
        if self._timeout is not None:
            return self._from_worker(jobs, count)
        return self._inline(jobs, count)

    def _inline(self, jobs: Sequence[tuple[Any, ...]], count: int) -> Generator[Any]:
        for job in jobs:
            self.calls += count
            try:
                reply = self._function(*job)
            except CallRefused:
                raise
            except Exception as error:
                reply = _Caught(error)
            yield reply

    def _from_worker(self, jobs: Sequence[tuple[Any, ...]], count: int) -> Generator[Any]:
        for job in jobs:
            self.calls += count
            call = functools.partial(_in_context, copy_context(), self._function, job)
            future = self._hire().submit(call)
            try:
                reply = self._awaited(future)
            finally:
                if not future.done():
                    self._worker = None
            yield reply

    def _from_executor(
        self, executor: Executor, jobs: Sequence[tuple[Any, ...]], count: int
    ) -> Generator[Any]:
        function = self._function
        if isinstance(executor, ProcessPoolExecutor):
            try:
                function = _portable(function)
            except Exception as error:
                mend = "define it at the top level of a module, or use a ThreadPoolExecutor"
                raise self._broken(error, mend) from error
        futures: list[Future[Any]] = []
        try:
            try:
                futures.extend(executor.submit(function, *job) for job in jobs)
            except Exception as error:
                raise self._broken(error, "give it a new executor") from error
            yield from map(self._awaited, futures)
        finally:
            # A future that cannot be cancelled has been called, or soon will be.
            self.calls += count * sum(not future.cancel() for future in futures)

    def _from_coroutines(self, jobs: Sequence[tuple[Any, ...]], count: int) -> Generator[Any]:
        pending = deque(enumerate(jobs))
        replies: list[Any] = [None] * len(jobs)
        interrupts: list[BaseException] = []

        async def lane() -> None:
            while pending:
                i, job = pending.popleft()
                self.calls += count
                try:
                    replies[i] = await self._reply(job)
                except (KeyboardInterrupt, SystemExit, CallRefused) as interrupt:
                    # Raised here they would end the loop, with other lanes on it.
                    interrupts.append(interrupt)
                    pending.clear()
                if self._on_error == "raise" and isinstance(replies[i], _Caught):
                    pending.clear()

        async def lanes() -> None:
            await asyncio.gather(*(lane() for _ in range(min(self._concurrency, len(jobs)))))

        # Always on the worker: it works where this thread runs an event loop already, and its
        # one loop outlives the request, as the connections of an async client need.
        context = copy_context()
        future = self._hire().submit(lambda runner: runner.run(lanes(), context=context))
        try:
            future.result()
        except BaseException:
            pending.clear()
            self._worker = None
            raise
        if interrupts:
            raise interrupts[0]
        yield from replies

    async def _reply(self, job: tuple[Any, ...]) -> Any:
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                return await self._function(*job)
        except CallRefused:
            raise
        except Exception as error:
            return _Caught(error, "timeout" if limit.expired() else "raised")

    def _hire(self) -> _Worker:
        if self._worker is None or not self._worker.alive:
            self._worker = _Worker(self.name)
        return self._worker

    def _awaited(self, future: Future[Any]) -> Any:
        try:
            error = future.exception(self._timeout)
        except TimeoutError as late:
            if future.cancel():  # it never started: that says nothing of this tuple
                mend = "its workers are busy, perhaps with calls that hang: give it more workers"
                raise self._broken(late, f"{mend}, or a longer timeout") from late
            return _Caught(late, "timeout")
        except CancelledError as gone:
            raise self._broken(gone, "give it a new executor") from gone
        if error is None:
            return future.result()
        if not isinstance(error, Exception) or isinstance(error, CallRefused):
            raise error
        if isinstance(error, BrokenExecutor):
            mend = "a call may have ended its process: mend that, and give it a new executor"
            raise self._broken(error, mend) from error
        if isinstance(error, pickle.PicklingError):
            mend = "use arguments and outputs that pickle, or a ThreadPoolExecutor"
            raise self._broken(error, mend) from error
        return _Caught(error)


# A function that moves a global generator is believed once this many tuples, evaluated again
# this many times each, have agreed.
_DOUBTFUL = 8
_REPEATS = 3

_UNKNOWN = object()


@dataclass(frozen=True)
class _Caught:
    """A reply that is no value."""

    error: Exception
    kind: Literal["raised", "timeout", "output"] = "raised"
    value: object = None


class _Stages(threading.local):
    """The open `staged` blocks of each thread, innermost last."""

    def __init__(self) -> None:
        self.stack: list[dict[Hashable, Outcome]] = []
        self.passing: set[Hashable] = set()  # what is not to be remembered


_Job: TypeAlias = Callable[[asyncio.Runner], Any]


class _Worker:
    """A thread that does one job after another, on an event loop if a job wants one.

    It is a daemon, and ends with its last job once it is forgotten: to abandon a job that does not
    return, forget its worker.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[_Job, Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(
            target=_serve, args=(self._jobs,), name=f"byssus {name}", daemon=True
        )
        self._thread.start()
        weakref.finalize(self, self._jobs.put, None).atexit = False
        _WORKERS.add(self)

    @property
    def alive(self) -> bool:
        """False in a process forked from the worker's."""
        return self._thread.is_alive()

    def end(self) -> None:
        """End after the jobs that there are."""
        self._jobs.put(None)

    def wait(self, seconds: float) -> None:
        """Wait for the end, so many seconds at most."""
        self._thread.join(seconds)

    def submit(self, job: _Job) -> Future[Any]:
        future: Future[Any] = Future()
        # Running from the first, so that it cannot be cancelled and always gets its result.
        future.set_running_or_notify_cancel()
        self._jobs.put((job, future))
        return future


_WORKERS: weakref.WeakSet[_Worker] = weakref.WeakSet()
_CALLERS: weakref.WeakSet[Caller] = weakref.WeakSet()


def _unlock() -> None:
    """In a forked process: what another thread was doing, and had locked, nobody does here."""
    for caller in list(_CALLERS):
        caller._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


@atexit.register
def _end_workers() -> None:
    """Let workers close what their event loops hold, such as connections; but not wait long."""
    workers = list(_WORKERS)
    for worker in workers:
        worker.end()
    for worker in workers:
        worker.wait(_PATIENCE)


_PATIENCE = 0.5  # seconds


def _serve(jobs: SimpleQueue[tuple[_Job, Future[Any]] | None]) -> None:
    runner = asyncio.Runner()
    try:
        while (item := jobs.get()) is not None:
            _do(*item, runner)
            # A job refers to its caller, which must not live until the next job comes.
            del item
    finally:
        runner.close()


def _in_context(
    context: Context, function: Callable[..., Any], job: tuple[Any, ...], _: asyncio.Runner
) -> Any:
    return context.run(function, *job)


def _do(job: _Job, future: Future[Any], runner: asyncio.Runner) -> None:
    try:
        result = job(runner)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


@dataclass(frozen=True)
class _Named:
    """A decorated function: pickle finds its decorator's result under its name, so look inside."""

    module: str
    path: str

    def find(self) -> Any:
        owner: Any = importlib.import_module(self.module)
        return functools.reduce(getattr, self.path.split("."), owner).__wrapped__

    def __call__(self, *arguments: Any) -> Any:
        return self.find()(*arguments)


def _portable(function: Callable[..., Any]) -> Callable[..., Any]:
    """A form of the function that another process can load, or the exception of pickling it."""
    try:
        pickle.dumps(function)
    except Exception:
        named = _Named(getattr(function, "__module__", ""), getattr(function, "__qualname__", ""))
        try:
            found = named.find()
        except Exception:
            found = None
        if found is not function:
            raise
        return named
    return function


def carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """What stands for a function in a copy or a pickle; itself where there is no other form."""
    try:
        return _portable(function)
    except Exception:  # a copy can keep it, and pickle will say what is wrong
        return function


def _types(value: Hashable) -> Hashable:
    """What tells values apart that compare equal: 1, 1.0 and True, however deep."""
    if isinstance(value, tuple):
        return type(value), tuple(map(_types, value))
    if isinstance(value, frozenset):
        return type(value), frozenset((entry, _types(entry)) for entry in value)
    return type(value)


def _same(one: Outcome, other: Outcome) -> bool:
    return one == other or (one != one and other != other)  # NaN is the same answer as NaN


_DTYPES: dict[type, Any] = {bool: np.bool_, int: np.int64, float: np.float64, str: np.str_}


def _column(values: Sequence[Hashable]) -> np.ndarray[Any, Any]:
    """The values as an array that gives them back unchanged."""
    types = set(map(type, values))
    dtype = _DTYPES.get(types.pop()) if len(types) == 1 else None
    if dtype is np.str_ and any(str(value).endswith("\0") for value in values):
        dtype = None  # numpy strips them
    if dtype is not None:
        try:
            return np.array(values, dtype)
        except OverflowError:
            pass
    return np.fromiter(values, object, len(values))


def _plain(entry: Any) -> Any:
    return entry.tolist() if isinstance(entry, np.generic | torch.Tensor) else entry


def _frozen(row: Any) -> Any:
    return tuple(map(_frozen, row)) if isinstance(row, list) else row


def _rng_states() -> tuple[Hashable, ...]:
    """The states of the global generators that a function may draw from."""
    return (
        random.getstate(),
        pickle.dumps(np.random.get_state()),  # noqa: NPY002
        torch.get_rng_state().numpy().tobytes(),
    )


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        type(function).__call__
    )


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _shown(value: object, limit: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "..."
