"""The child process of a compilation: a pickled job on standard input, its reports on the output.

PySDD cannot be interrupted and may end its process, so a compilation that may be large runs here,
where its parent (`byssus._compile`) can end it. Reports are pickles, one after the other: `ready`,
`at` (how far it is), and in the end `done` or `limit`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

_TICK = 0.1  # seconds between reports
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


class LimitReached(Exception):  # noqa: N818
    """A compilation outgrew its limit; the argument says which."""


class Check:
    """What is called after every operation on the diagrams; it raises `LimitReached`.

    Attributes:
        total: the operations that the formula takes, those of a fixpoint counted once.
        done: those that are done.
        held: the number of SDD nodes after the last of them.
        abandoned: whether to stop, since nobody waits any more.
    """

    def __init__(
        self,
        formula: Sequence[tuple[str, Any]],
        nodes: int | None,
        seconds: float | None = None,
        report: Callable[[int, int], None] = lambda done, held: None,
    ) -> None:
        sizes = (0 if kind == "literal" else len(content) for kind, content in formula)
        self._ends = list(accumulate(sizes, initial=0))  # of each node
        self.total = self._ends[-1]
        self.done = self.held = 0
        self.abandoned = False
        self._nodes = nodes
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._report = report
        self._reported = 0.0

    def __call__(self, sdd: Any, number: int) -> None:
        """Check the limits, after an operation for a node of the formula."""
        if self.done < self._ends[number]:
            self.done = max(self.done, self._ends[number - 1]) + 1
        self.held = sdd.manager.count()
        if self._nodes is not None and self.held > self._nodes:
            sdd.manager.garbage_collect()
            self.held = sdd.manager.count()
            if self.held > self._nodes:
                self._report(self.done, self.held)
                raise LimitReached("nodes")
        now = time.monotonic()
        if self.abandoned or (self._deadline is not None and now > self._deadline):
            raise LimitReached("seconds")
        if now - self._reported >= _TICK:
            self._reported = now
            self._report(self.done, self.held)


def _load_sdd() -> ModuleType:
    """The module beside this one, by its file: to import `byssus` would import torch."""
    spec = importlib.util.spec_from_file_location("_sdd", Path(__file__).with_name("_sdd.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["_sdd"] = module
    spec.loader.exec_module(module)
    return module


def _end_with(parent: int) -> None:
    """End this process when its parent ends, however that does."""

    def watch() -> None:
        os.read(0, 1)  # nothing more comes; the parent's end of the pipe closes when it ends
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":  # a thread waits while PySDD works: let the system do it
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _bound_memory(more: int) -> None:
    """Let this process take so many more bytes of address space than it has, where that works."""
    if sys.platform != "linux":
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def main() -> None:
    """Compile one job."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own waits until PySDD is done
    reports = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what PySDD may print must not come between the reports

    def send(*report: Any) -> None:
        pickle.dump(report, reports)
        reports.flush()

    parent, job, nodes, more = pickle.load(sys.stdin.buffer)
    _end_with(parent)
    sdd = _load_sdd()
    sdd.on_deep_stack(int)  # its stack takes address space too
    if more is not None:
        _bound_memory(more)
    send("ready")
    try:
        diagram = sdd.compile_formula(
            **job, check=Check(job["nodes"], nodes, report=lambda *at: send("at", *at))
        )
        send("done", type(diagram).__name__, tuple(diagram))
    except LimitReached as reached:
        send("limit", reached.args[0])
    except MemoryError:
        send("limit", "memory")


if __name__ == "__main__":
    main()
