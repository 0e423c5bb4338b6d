"""The child process of a compilation: a pickled job on standard input, the result on its output.

PySDD cannot be interrupted and may end its process, so a compilation that may be large runs here,
where its parent (`byssus._compile`) can end it.
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


class LimitReached(Exception):  # noqa: N818
    """A compilation outgrew its limit; the argument says which."""


def limit(nodes: int | None, seconds: float | None) -> Callable[[Any], None]:
    """A check to make after every operation on the diagrams; raises `LimitReached`."""
    started = time.monotonic()

    def check(sdd: Any) -> None:
        if seconds is not None and time.monotonic() - started > seconds:
            raise LimitReached("seconds")
        if nodes is not None and sdd.manager.count() > nodes:
            sdd.manager.garbage_collect()
            if sdd.manager.count() > nodes:
                raise LimitReached("nodes")

    return check


def _load_sdd() -> ModuleType:
    """The module beside this one, by its file: to import `byssus` would import torch."""
    spec = importlib.util.spec_from_file_location("_sdd", Path(__file__).with_name("_sdd.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["_sdd"] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Compile one job."""
    job, limits = pickle.load(sys.stdin.buffer)
    result: tuple[str, Any]
    try:
        result = ("done", tuple(_load_sdd().compile_formula(**job, check=limit(**limits))))
    except LimitReached as reached:
        result = ("limit", reached.args[0])
    pickle.dump(result, sys.stdout.buffer)


if __name__ == "__main__":
    main()
