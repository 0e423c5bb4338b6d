"""Compilation within a budget, in a child process where it may be large."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

from byssus import _compiler, _sdd
from byssus.errors import ByssusError, CompilationLimit
from byssus.formula import Formula

# Below this many worlds a diagram cannot grow large, and a child process would cost more.
_SMALL = 20_000


def compile_formula(
    formula: Formula, order: tuple[int, ...], *, nodes: int | None, seconds: float | None
) -> _sdd.Decisions:
    """Compile a formula; the arguments are those of `Circuit.compile`."""
    job: dict[str, Any] = {
        "widths": formula.widths,
        "order": order,
        "nodes": formula.nodes,
        "cycles": formula.cycles,
        "roots": formula.roots,
    }
    limits: dict[str, Any] = {"nodes": nodes, "seconds": seconds}
    try:
        if prod(formula.widths) <= _SMALL and len(formula.nodes) <= _SMALL:
            return _sdd.compile_formula(**job, check=_compiler.limit(**limits))
        return _in_child(job, limits, seconds)
    except _compiler.LimitReached as limit:
        which = {"nodes": f"{nodes} nodes", "seconds": f"{seconds} seconds"}
        raise CompilationLimit(
            f"the circuit did not compile within its limit of {which[limit.args[0]]} "
            f"({len(formula.nodes)} formula nodes over {len(formula.widths)} concepts); raise "
            f"`{limit.args[0]}=`, or sample: provenance 'sampled', 'mixed' or 'auto'"
        ) from None


def _in_child(job: dict[str, Any], limits: dict[str, Any], seconds: float | None) -> _sdd.Decisions:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run(
            # -P: the folder of the script is our package, whose modules must not shadow others.
            [sys.executable, "-P", str(Path(_compiler.__file__))],
            input=pickle.dumps((job, limits)),
            capture_output=True,
            # The child keeps the limit itself between operations; one operation may overrun it.
            timeout=None if seconds is None else seconds + 2,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _compiler.LimitReached("seconds") from None
    if done.returncode != 0:
        raise ByssusError(
            f"the compiler's process ended with status {done.returncode}, perhaps for want of "
            f"memory: set `nodes=` lower, or sample\n{done.stderr.decode(errors='replace')}"
        )
    kind, result = pickle.loads(done.stdout)
    if kind == "limit":
        raise _compiler.LimitReached(result)
    return _sdd.Decisions(*result)
