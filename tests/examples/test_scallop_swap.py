"""A script for Scallop, and the same with one line changed."""

from __future__ import annotations

import gzip
import runpy
import struct
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scripts

FOLDER = Path(__file__).parents[2] / "examples" / "scallop_swap"
needs_scallopy = pytest.mark.skipif(
    find_spec("scallopy") is None,
    reason="scallopy is not installed: it is built from Scallop's source",
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as MNIST's, of ten patterns under noise, which are quickly told apart."""
    folder = tmp_path_factory.mktemp("digits")
    random = np.random.default_rng(0)
    patterns = random.integers(0, 2, (10, 7, 7)).repeat(4, 1).repeat(4, 2) * 200
    for part, count in {"train": 2_000, "t10k": 500}.items():
        labels = random.integers(0, 10, count)
        images = patterns[labels] + random.integers(0, 56, (count, 28, 28))
        for name, array in {"images-idx3": images, "labels-idx1": labels}.items():
            header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            file = folder / f"{part}-{name}-ubyte.gz"
            file.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), 1))
    return folder


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
