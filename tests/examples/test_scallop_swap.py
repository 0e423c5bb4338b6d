"""A script for Scallop, and the same with one line changed."""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import scripts

FOLDER = Path(__file__).parents[2] / "examples" / "scallop_swap"
needs_scallopy = pytest.mark.skipif(
    find_spec("scallopy") is None,
    reason="scallopy is not installed: it is built from Scallop's source",
)


def result(script: str, digits: Path, *arguments: str) -> dict[str, Any]:
    short = "--n-epochs 2 --train-pairs 1000 --test-pairs 250 --batch-size 16 --learning-rate 0.002"
    return scripts.result(FOLDER / script, "--mnist", digits, *short.split(), *arguments)


def test_one_line_is_changed() -> None:
    assert scripts.changes(FOLDER / "with_scallop.py", FOLDER / "with_byssus.py") == [
        "-     import scallopy",
        "+     import byssus_scallop as scallopy",
    ]


def test_byssus_learns(digits: Path) -> None:
    found = result("with_byssus.py", digits, "--provenance", "exact")
    assert found["library"] == "byssus_scallop"
    assert found["provenance"] == "exact"
    assert found["epochs"] == 2
    assert found["seconds_per_epoch"] > 0
    assert found["accuracy"] > 0.9


@needs_scallopy
def test_as_accurate_as_scallop_in_less_time(digits: Path) -> None:
    theirs = result("with_scallop.py", digits)
    ours = result("with_byssus.py", digits, "--provenance", "exact")
    assert (theirs["library"], theirs["provenance"]) == ("scallopy", "difftopkproofs")
    assert ours["accuracy"] >= theirs["accuracy"]
    assert ours["seconds_per_epoch"] < theirs["seconds_per_epoch"]


@pytest.mark.parametrize(
    ("script", "library"), [("with_scallop.py", "scallopy"), ("with_byssus.py", "byssus_scallop")]
)
def test_a_missing_library_is_said(
    script: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(FOLDER / script), run_name="__main__")
    assert stop.value.code == (
        f"{library} is not installed: README.md, next to this script, says how to get it"
    )


def test_too_many_pairs_are_refused(digits: Path) -> None:
    with pytest.raises(AssertionError, match="1001 pairs: 2000 images make 1 to 1000"):
        result("with_byssus.py", digits, "--train-pairs", "1001")
