"""MNIST-Half and MNIST Even-Odd: their splits, and short runs on made digits."""

from __future__ import annotations

import json
import runpy
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ["mnist_half", "mnist_even_odd"]


@pytest.fixture(autouse=True)
def own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts' arguments, path and imports are theirs alone."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [str(EXAMPLES / "mnist_half"), *sys.path])
    yield
    for name in ("pairs", "mnist"):
        sys.modules.pop(name, None)


def script(name: str, run_name: str = "example") -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name / "train.py"), run_name=run_name)


def run(name: str, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """What a script prints last."""
    sys.argv = ["train.py", "--json", *map(str, arguments)]
    script(name, "__main__")
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_half() -> None:
    task = script("mnist_half")["TASK"]
    assert task.digits == 5
    assert set(task.seen) == {(0, 0), (0, 1), (1, 0), (2, 3), (3, 2), (2, 4), (4, 2)}
    assert len(task.unseen) == 18


def test_even_odd() -> None:
    task = script("mnist_even_odd")["TASK"]
    unordered = {(0, 6), (2, 8), (4, 6), (4, 8), (1, 5), (3, 7), (1, 9), (3, 9)}
    assert task.digits == 10
    assert len(task.seen) == 16
    assert {tuple(sorted(pair)) for pair in task.seen} == unordered
    assert len(task.unseen) == 84


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("mnist_half", [2940, 840, 420, 1080]), ("mnist_even_odd", [6720, 1920, 960, 5040])],
)
def test_splits(name: str, sizes: list[int], digits: Path) -> None:
    task = script(name)["TASK"]
    pairs = sys.modules["pairs"]
    found = pairs.splits(task, digits)
    assert [len(part.sums) for part in found.values()] == sizes
    seen, unseen = set(task.seen), set(task.unseen)
    assert seen.isdisjoint(unseen)
    assert seen | unseen == set(product(range(task.digits), repeat=2))
    # Of Even-Odd's kinds of pairs, half have the sum 10; the paper's loaders balance the sums.
    often = dict.fromkeys(seen, 420)
    if name == "mnist_even_odd":
        often = {pair: 280 if sum(pair) == 10 else 560 for pair in seen}
        assert Counter(found["train"].sums.tolist()) == dict.fromkeys((6, 10, 12), 2240)
    rest = [dict.fromkeys(*some) for some in ((seen, 120), (seen, 60), (unseen, 60))]
    for part, counts in zip(found.values(), [often, *rest], strict=True):
        assert Counter(map(tuple, part.digits.tolist())) == counts
        assert torch.equal(part.sums, part.digits.sum(1))
        assert part.images.shape == (len(part.sums), 2, 1, 28, 28)
        assert part.images.min() >= 0
        assert part.images.max() <= 1
    assert torch.equal(found["train"].images, pairs.splits(task, digits)["train"].images)
    again = pairs.splits(task, digits, seed=1)["train"].images
    assert not torch.equal(found["train"].images, again)


def test_images_are_of_their_digits(digits: Path) -> None:
    task = script("mnist_half")["TASK"]
    pairs = sys.modules["pairs"]
    sources = [
        {i.numpy().tobytes(): d for i, d in zip(*part, strict=True)}
        for part in sys.modules["mnist"].mnist(digits)
    ]
    for name, part in pairs.splits(task, digits, 10).items():
        source = sources[name not in ("train", "validation")]
        shown = [source[image.numpy().tobytes()] for image in part.images.flatten(0, 1)]
        assert shown == part.digits.flatten().tolist()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", ["diffusion", "independent"])
def test_a_short_run_measures(
    name: str, model: str, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = "--short --epochs 1 --pairs 4 --votes 5"
    found = run(name, capsys, "--mnist", digits, "--model", model, *short.split())
    assert found["model"] == model
    for part in ("test", "unseen pairs"):
        assert set(found[part]) == {"sums", "digits", "calibration error"}
        assert all(0 <= value <= 100 for value in found[part].values())


def test_goes_on_from_a_checkpoint(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--mnist", digits, "--pairs", 4, "--votes", 5, "--checkpoint"]
    run("mnist_half", capsys, *options, tmp_path / "a", "--epochs", 1)
    stopped = run("mnist_half", capsys, *options, tmp_path / "a", "--epochs", 2, "--every", 1)
    whole = run("mnist_half", capsys, *options, tmp_path / "b", "--epochs", 2, "--every", 1)
    del stopped["milliseconds a step"], whole["milliseconds a step"]
    assert stopped == whole


def test_needs_mnist_unless_short(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("mnist_half", capsys)
    assert "--mnist FOLDER" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="four IDX files"):
        run("mnist_half", capsys, "--mnist", "nowhere")
