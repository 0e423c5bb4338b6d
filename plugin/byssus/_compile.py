"""Compilation within a budget, in a child process where it may be large."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import inf, prod
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any, NamedTuple

from byssus import _compiler, _sdd
from byssus.errors import ByssusError, CompilationLimit
from byssus.formula import Formula

__all__ = ["Progress"]

# Of so few worlds no diagram is large, so every single operation is short, and to start a child
# would take longer. There may be many operations, and many diagrams: past these bounds, a child.
_SMALL = 20_000
_SMALL_NODES = 500_000
_SMALL_SECONDS = 0.5

_TICK = 0.1  # seconds
_START = 0.5  # seconds that the start of the child may take before they count
_PATIENCE = 2.0  # seconds until a bar is shown
_TABLES = 192 << 20  # bytes of address space of an SDD manager that is empty
_NODE, _VALUE = 1024, 128  # bytes that an SDD node takes at most, to be read included


@dataclass(frozen=True)
class Progress:
    """How far a compilation is.

    Attributes:
        done: the operations that are done; those that a fixpoint repeats are not counted again.
        total: all operations that the formula takes.
        nodes: the SDD nodes that are held.
        seconds: since the start.
        memory: the bytes that the compilation holds; None where that is not known.
    """

    done: int
    total: int
    nodes: int
    seconds: float
    memory: int | None = None


Show = bool | Callable[[Progress], None] | None
"""Who is told about progress, see `Circuit.compile`."""


class _Budget(NamedTuple):
    nodes: int | None
    seconds: float | None
    memory: int | None

    def memory_of_nodes(self, formula: Formula) -> int | None:
        """The bytes that the limit of nodes stands for: one operation alone may overrun it."""
        if self.nodes is None:
            return None
        return int(self.nodes) * (_NODE + _VALUE * max(formula.widths, default=1))


def check_limits(**limits: float | None) -> None:
    """Raise an error for what is no limit."""
    for name, limit in limits.items():
        number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if limit is not None and not (number and 0 <= limit < inf):
            raise ByssusError(f"{name}={limit!r}: a number, 0 or more, or None for no limit")
    if limits.get("memory") is not None and sys.platform != "linux":
        raise ByssusError(
            f"memory={limits['memory']}: this system ({sys.platform}) has no way to keep it; give "
            "`nodes=` instead, of some 300 bytes each"
        )


def compile_formula(
    formula: Formula,
    order: tuple[int, ...],
    *,
    vtree: _sdd.Tree | None = None,
    minimize: float = 0.0,
    nodes: int | None = None,
    seconds: float | None = None,
    memory: int | None = None,
    progress: Show = None,
) -> _sdd.Diagram:
    """Compile a formula as `byssus._sdd` does, within the limits of `Circuit.compile`."""
    started = time.monotonic()
    budget = _Budget(nodes, seconds, memory)
    job: dict[str, Any] = {
        "widths": formula.widths,
        "order": order,
        "nodes": formula.nodes,
        "cycles": formula.cycles,
        "roots": formula.roots,
        "vtree": vtree,
        "minimize": minimize,
    }
    with _shown(progress) as show:
        worlds = prod(formula.widths[concept] for concept in formula.concepts)
        if memory is None and worlds <= _SMALL and len(formula.nodes) <= _SMALL:
            diagram = _here(formula, job, budget, started, show)
            if diagram is not None:
                return diagram
        return _Child(formula, job, budget, started, show).run()


def _here(
    formula: Formula,
    job: dict[str, Any],
    budget: _Budget,
    started: float,
    show: Callable[[Progress], None],
) -> _sdd.Diagram | None:
    """Compile in this process; None if that proves too large."""
    nodes = _SMALL_NODES if budget.nodes is None else min(budget.nodes, _SMALL_NODES)
    seconds = _SMALL_SECONDS if budget.seconds is None else min(budget.seconds, _SMALL_SECONDS)
    check = _compiler.Check(formula.nodes, nodes, seconds)
    total = check.total
    try:
        minimize = min(job["minimize"], _SMALL_SECONDS)
        diagram = _sdd.compile_formula(**{**job, "minimize": minimize}, check=check)
    except _compiler.LimitReached as limit:
        which = limit.args[0]
        if {"nodes": nodes, "seconds": seconds}[which] != getattr(budget, which):
            return None
        reached = Progress(check.done, total, check.held, time.monotonic() - started)
        raise _error(formula, budget, which, reached) from None
    except BaseException:
        check.abandoned = True  # it runs on another thread
        raise
    show(Progress(total, total, check.held, time.monotonic() - started))
    return diagram


class _Child:
    """A child process that compiles, and is ended whatever happens here."""

    def __init__(
        self,
        formula: Formula,
        job: dict[str, Any],
        budget: _Budget,
        started: float,
        show: Callable[[Progress], None],
    ) -> None:
        self.formula, self.job, self.budget, self.show = formula, job, budget, show
        self.started = started
        self.at = Progress(0, _compiler.Check(formula.nodes, None).total, 0, 0.0)
        self.reports: Queue[tuple[Any, ...] | None] = Queue()

    def run(self) -> _sdd.Diagram:
        """Compile."""
        bounds = (self.budget.memory, self.budget.memory_of_nodes(self.formula))
        more = min((_TABLES + int(bound) for bound in bounds if bound is not None), default=None)
        content = pickle.dumps((os.getpid(), self.job, self.budget.nodes, more))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "MALLOC_ARENA_MAX": "1",  # further arenas reserve address space, which is limited
        }
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    # -P: the script's folder is our package; its modules must not shadow others.
                    [sys.executable, "-P", str(Path(_compiler.__file__))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment,
                )
            except OSError as error:
                raise ByssusError(
                    f"the compiler's process ({sys.executable}) does not start: {error}"
                ) from error
            talk = threading.Thread(target=_talk, args=(process, content, self.reports))
            talk.daemon = True
            try:
                talk.start()
                return self._follow(process, errors)
            finally:
                process.kill()
                process.wait()
                if talk.ident is not None:
                    talk.join(1)
                for pipe in (process.stdin, process.stdout):
                    with suppress(OSError):  # what the child has not read
                        if pipe is not None and not talk.is_alive():
                            pipe.close()

    def _follow(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> _sdd.Diagram:
        """Wait for the result, and keep the limits."""
        base = ready = None
        shown = self.started
        while True:
            now = time.monotonic()
            start = min(self.started + _START, now) if ready is None else ready
            self._measure(now, process.pid, base)
            left = _TICK
            if self.budget.seconds is not None:
                left = start + self.budget.seconds - now
                if left <= 0:
                    raise _error(self.formula, self.budget, "seconds", self.at)
            if self.budget.memory is not None and (self.at.memory or 0) > self.budget.memory:
                raise _error(self.formula, self.budget, "memory", self.at)
            if _is_leaving():
                raise KeyboardInterrupt
            if now - shown >= _TICK:
                shown = now
                self.show(self.at)
            try:
                report = self.reports.get(timeout=min(left, _TICK))
            except Empty:
                continue
            if report is None:
                raise self._death(process, errors)
            kind, *content = report
            if kind == "ready":
                ready = min(time.monotonic(), self.started + _START)
                base = _resident(process.pid)
            elif kind == "at":
                done, held = content
                self.at = replace(self.at, done=done, nodes=held)
            elif kind == "limit":
                raise self._limit(content[0])
            else:
                self.show(replace(self.at, done=self.at.total))
                name, parts = content
                diagram: _sdd.Diagram = getattr(_sdd, name)(*parts)
                return diagram

    def _measure(self, now: float, pid: int, base: int | None) -> None:
        resident = None if base is None else _resident(pid)
        memory = None if resident is None or base is None else max(0, resident - base)
        self.at = replace(self.at, seconds=now - self.started, memory=memory)

    def _limit(self, which: str) -> ByssusError:
        """The error of a limit that the child came upon."""
        operation = False
        if which == "memory":
            nodes = self.budget.memory_of_nodes(self.formula)
            if nodes is not None and (self.budget.memory is None or nodes < self.budget.memory):
                which, operation = "nodes", True
        return _error(self.formula, self.budget, which, self.at, operation)

    def _death(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> BaseException:
        """The error of a child that ended without a result."""
        try:
            status = process.wait(5)
        except subprocess.TimeoutExpired:
            return ByssusError(
                "the compiler's process sent what is no report: does a start-up file of Python's "
                "print to the standard output?"
            )
        errors.seek(0)
        text = errors.read()[-2000:].decode(errors="replace").strip()
        if re.search(r"\b[mc]alloc failed|\brealloc failed|MemoryError", text):
            return self._limit("memory")
        if status == -signal.SIGINT:
            return KeyboardInterrupt()  # Ctrl-C reaches the child too, and may miss this thread
        how = f"ended with status {status}"
        if status < 0:
            with suppress(ValueError):
                how = f"was ended by {signal.Signals(-status).name}"
        return ByssusError(
            f"the compiler's process {how}, after {self.at.done} of {self.at.total} operations, "
            f"with {self.at.nodes} SDD nodes; if memory ran out, set `memory=` or `nodes=`, or "
            f"sample\n{text}".rstrip()
        )


def _talk(
    process: subprocess.Popen[bytes], content: bytes, reports: Queue[tuple[Any, ...] | None]
) -> None:
    """Write the job and read the reports, until there are no more: then None."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):  # a child that has died may have said why
        process.stdin.write(content)
        process.stdin.flush()
    with suppress(Exception):  # the end; or what is no pickle, which can raise anything
        while True:
            reports.put(pickle.load(process.stdout))
    reports.put(None)


def _is_leaving() -> bool:
    """Whether the program is ending, and waits for this thread alone."""
    main = threading.main_thread()
    return threading.current_thread() is not main and not main.is_alive()


def _resident(pid: int) -> int | None:
    """The bytes of memory that a process takes, where the system tells."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def _error(
    formula: Formula, budget: _Budget, which: str, at: Progress, operation: bool = False
) -> CompilationLimit:
    limit = getattr(budget, which)
    if which == "seconds":
        within = f"its limit of {limit:.3g} seconds"
    elif which == "nodes":
        within = f"its limit of {limit} nodes"
    elif limit is None:
        within = "the memory that the system gave it"
    else:
        within = f"its limit of {limit} bytes of memory"
    held = "" if at.memory is None else f" in {at.memory / 1e6:.0f} MB"
    if operation:
        held += ", of which one operation would have made far more"
    reached = (
        f"in {at.seconds:.1f} s, {at.done} of {at.total} operations over {len(formula.widths)} "
        f"concepts, and {at.nodes} SDD nodes{held}"
    )
    return CompilationLimit(
        f"the circuit did not compile within {within} ({reached}); raise `{which}=`, try another "
        "`order=` or `vtree=`, or sample: provenance 'sampled', 'mixed' or 'auto'",
        limit=which,
        reached=reached,
    )


@contextmanager
def _shown(progress: Show) -> Iterator[Callable[[Progress], None]]:
    """Who is told about progress: a callable, or a bar."""
    if callable(progress):
        yield progress
        return
    visible = progress
    if progress is None:
        visible = sys.stderr is not None and sys.stderr.isatty()
    bar: Any = None

    def update(at: Progress) -> None:
        nonlocal bar
        if not visible or (progress is None and at.seconds < _PATIENCE):
            return
        if bar is None:
            from tqdm import tqdm

            bar = tqdm(total=at.total, desc="compiling", unit=" operations", leave=bool(progress))
            bar.start_t -= at.seconds
        bar.n = at.done
        memory = {} if at.memory is None else {"MB": round(at.memory / 1e6)}
        bar.set_postfix({"SDD nodes": at.nodes, **memory}, refresh=False)
        bar.refresh()

    try:
        yield update
    finally:
        if bar is not None:
            bar.close()
