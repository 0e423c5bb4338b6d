"""Run programs, and say what they derive in plain Python values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

import byssus_scallop as scallopy
from byssus import ByssusError

__all__ = ["Case", "Fault", "check", "fails", "parametrized", "probabilities", "run", "tuples"]


BACKEND = "embedded"
"""Where programs run; see the fixture `backend`."""


@dataclass(frozen=True)
class Case:
    """A program and what it derives: relations and their tuples, in any order.

    A value alone stands for a tuple of one.

    Attributes:
        embedded: why it runs on the embedded engine alone, if it does.
    """

    name: str
    program: str
    expected: Mapping[str, Iterable[Any]]
    embedded: str = ""


@dataclass(frozen=True)
class Fault:
    """A program that is none, and what its error must say.

    Attributes:
        words: what stands in the message, in any order and case.
        line: the line that it points at.
        carets: texts that begin at its carets.
    """

    name: str
    program: str
    words: tuple[str, ...]
    line: int = 0
    carets: tuple[str, ...] = field(default=())


def parametrized(cases: Iterable[Case | Fault]) -> Any:
    """A decorator that runs a test for each case, under its name."""
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, id=case.name, marks=[pytest.mark.embedded(why)] if why else [])
            for case in cases
            for why in [getattr(case, "embedded", "")]
        ],
    )


def run(program: str, provenance: str = "unit", **options: Any) -> Any:
    """The context of a program that was run; inside Scallop "unit" is byssus's "exact"."""
    if BACKEND == "scallopy" and provenance == "unit":
        provenance = "exact"
    ctx = scallopy.ScallopContext(provenance=provenance, **options)
    ctx.add_program(program)
    ctx.run()
    return ctx


def tuples(ctx: Any, relation: str) -> list[Any]:
    """What was derived of a relation, without tags."""
    found = list(ctx.relation(relation))
    return found if ctx.provenance in ("unit", "proofs") else [row for _, row in found]


def probabilities(ctx: Any, relation: str) -> dict[Any, float]:
    """Each tuple's probability; a tuple of one stands as its value."""
    return {
        row[0] if len(row) == 1 else row: float(tag) for tag, row in list(ctx.relation(relation))
    }


def check(ctx: Any, expected: Mapping[str, Iterable[Any]]) -> None:
    """Compare what was derived, types included; floats need only be close."""
    for relation, rows in expected.items():
        wanted = [row if isinstance(row, tuple) else (row,) for row in rows]
        found = tuples(ctx, relation)
        assert len(found) == len(wanted), (relation, found, wanted)
        for one, other in zip(sorted(found), sorted(wanted), strict=True):
            assert _same(one, other), (relation, found, wanted)


def _same(found: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool:
    return len(found) == len(wanted) and all(
        type(a) is type(b)
        and (math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6) if isinstance(a, float) else a == b)
        for a, b in zip(found, wanted, strict=True)
    )


def fails(fault: Fault) -> None:
    """Run a program and check its error."""
    with pytest.raises(ByssusError) as info:
        run(fault.program)
    message = str(info.value)
    for word in fault.words:
        assert word.lower() in message.lower(), message
    if fault.line:
        assert f"line {fault.line}," in message, message
    lines = message.split("\n")
    for text in fault.carets:
        assert any(
            under.strip() == "^" and above[under.index("^") :].startswith(text)
            for above, under in itertools.pairwise(lines)
        ), message
