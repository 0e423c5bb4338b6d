"""MNIST addition: its numbers, its rules, and a short run on made digits."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("problog")

SCRIPT = Path(__file__).parents[2] / "examples" / "mnist_add" / "train.py"


@pytest.fixture(autouse=True)
def own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The script's arguments, path and imports are its alone."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("mnist", None)


def script(run_name: str = "example") -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name=run_name)


@pytest.mark.parametrize("n", [1, 4, 15])
def test_numbers(n: int, digits: Path) -> None:
    names = script()
    source = sys.modules["mnist"].mnist(digits)[0]
    images, shown, sums = names["numbers"](source, n)
    assert images.shape == (2000 // (2 * n), 2 * n, 1, 28, 28)
    powers = 10 ** torch.arange(n + 1)
    first, second = ((part * powers[:n]).sum(1) for part in shown.split(n, 1))
    assert torch.equal((sums * powers).sum(1), first + second)
    known = {((i - 0.1307) / 0.3081).numpy().tobytes(): d for i, d in zip(*source, strict=True)}
    used = [image.numpy().tobytes() for image in images.flatten(0, 1)]
    assert len(set(used)) == len(used)  # each image once
    assert [known[image] for image in used] == shown.flatten().tolist()


def test_the_sizes_of_mnist() -> None:
    numbers = script()["numbers"]
    for n, training, testing in [(4, 7500, 1250), (15, 2000, 333)]:
        for images, count in [(60_000, training), (10_000, testing)]:
            labels = torch.zeros(images, dtype=torch.int64)
            assert len(numbers((torch.zeros(images, 1, 1, 1), labels), n)[0]) == count


@pytest.mark.parametrize("n", [1, 2])
def test_rules(n: int) -> None:
    program = script()["addition"](n).world_program()
    worlds = torch.cartesian_prod(*[torch.arange(10)] * (2 * n))
    powers = 10 ** torch.arange(n + 1)
    first, second = ((part * powers[:n]).sum(1) for part in worlds.split(n, 1))
    digits = program.outputs(worlds)
    values = [torch.tensor(values) for values in program.dimensions]
    given = torch.stack([v[d] for v, d in zip(values, digits.unbind(1), strict=True)], 1)
    assert torch.equal((given * powers).sum(1), first + second)


def test_a_short_run_measures(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sys.argv = f"train.py --short --json --epochs 1 --examples 40 --mnist {digits}".split()
    script("__main__")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["digits a number"] == 1
    assert 0 <= found["sums"] <= 100
    assert 0 <= found["digits"] <= 100
