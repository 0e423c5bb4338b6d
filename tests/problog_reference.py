"""What ProbLog itself computes, and what a `Program` does, query text by query text."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import pytest
from problog import get_evaluatable
from problog.errors import ProbLogError
from problog.program import PrologFile, PrologString

from byssus import ByssusError
from byssus_problog import Program


def by_problog(program: str | Path) -> dict[str, float]:
    """The probabilities of the queries; those with no answer at all are left out."""
    model = PrologFile(str(program)) if isinstance(program, Path) else PrologString(program)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_evaluatable().create_from(model).evaluate()
    # A query without answers is reported as it was asked, with its variables and probability 0.
    return {str(q): float(p) for q, p in found.items() if q.is_ground() or p > 0}


def by_byssus(program: str | Path, **options: object) -> dict[str, float]:
    """The same of a `Program`."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The use of '")  # ProbLog's, of ==
        made = Program(program, **{"provenance": "exact", **options})
    return dict(zip(made.queries, made().probs[0].tolist(), strict=True))


def check(program: str | Path, **options: object) -> dict[str, float]:
    """Compare them to 1e-6, and return ProbLog's."""
    expected = by_problog(program)
    assert expected
    found = by_byssus(program, **options)
    assert found == {q: pytest.approx(p, abs=1e-6) for q, p in expected.items()}
    return expected


def check_refused(program: str | Path, *, match: str) -> ByssusError:
    """Check that ProbLog refuses a program, and that a `Program` does, with this message."""
    with pytest.raises(ProbLogError):
        by_problog(program)
    with pytest.raises(ByssusError, match=match) as ours:
        by_byssus(program)
    return ours.value
