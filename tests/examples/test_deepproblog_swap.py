"""A script for DeepProbLog, and the same with one line changed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import scripts

FOLDER = Path(__file__).parents[2] / "examples" / "deepproblog_swap"
SHORT = "--train-pairs 320 --test-pairs 20"


def result(script: str, arguments: str) -> dict[str, Any]:
    return scripts.result(FOLDER / script, *arguments.split())


def test_one_line_is_changed() -> None:
    assert scripts.changes(FOLDER / "with_deepproblog.py", FOLDER / "with_byssus.py") == [
        "- from deepproblog.engines import ExactEngine",
        "+ from byssus_deepproblog import Engine as ExactEngine",
    ]


needs_both = pytest.mark.skipif(
    find_spec("deepproblog") is None or find_spec("mlxtend") is None,
    reason="the example needs deepproblog and mlxtend",
)


@needs_both
def test_byssus_runs() -> None:
    found = result("with_byssus.py", SHORT)
    assert len(found["losses"]) == 2
    assert 0 <= found["accuracy"] <= 1


@needs_both
@pytest.mark.slow
def test_the_same_losses_in_less_time() -> None:
    theirs, ours = (result(f"with_{name}.py", SHORT) for name in ("deepproblog", "byssus"))
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=1e-5)
    assert ours["accuracy"] == theirs["accuracy"]
    assert ours["seconds"] < theirs["seconds"] / 10


@needs_both
@pytest.mark.slow
def test_byssus_learns() -> None:
    assert result("with_byssus.py", "--train-pairs 10000 --epochs 3")["accuracy"] > 0.8
