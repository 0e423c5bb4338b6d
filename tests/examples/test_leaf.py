"""Leaves: their drawings, their two programs, and short runs on recorded answers."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts import changes

pytest.importorskip("sqlalchemy")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "leaf"

Run = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    torch.set_num_threads(1)


@pytest.fixture
def leaves(_importable: None) -> Any:
    return import_module("examples.leaf.leaves")


@pytest.fixture
def script(_importable: None) -> Any:
    return import_module("examples.leaf.__main__")


@pytest.fixture
def run(script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The script with some flags: what it prints last."""
    for name in script.RECORDED:
        monkeypatch.setenv(name, "")  # and afterwards as it was

    def made(*flags: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["leaf", "--json", *map(str, flags)])
        script.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    return made


def test_drawings_are_seeded_and_balanced(leaves: Any) -> None:
    drawn = leaves.draw_leaves(110, 5)
    assert drawn.images.shape == (110, 1, 64, 64)
    assert 0 <= drawn.images.min() < 0.3 < 0.7 < drawn.images.max() <= 1
    assert drawn.species.bincount().tolist() == [10] * 11
    again, other = leaves.draw_leaves(110, 5), leaves.draw_leaves(110, 6)
    assert torch.equal(drawn.images, again.images)
    assert torch.equal(drawn.species, again.species)
    assert torch.equal(drawn.features, again.features)
    assert not torch.equal(drawn.images, other.images)


def test_the_key_is_right_for_what_is_drawn(leaves: Any) -> None:
    leaf_id = import_module("examples.leaf.leaf").leaf_id
    for plant, seen in leaves.SPECIES.items():
        assert {leaf_id(*features) for features in itertools.product(*seen)} == {plant}
        typical = tuple(plant.split()[:3])
        assert typical in itertools.product(*seen)
    plants = {leaf_id(*features) for features in itertools.product(*leaves.FEATURES)}
    assert plants == set(leaves.SPECIES)
    drawn = leaves.draw_leaves(220, 0)
    named = [
        leaf_id(*(values[i] for values, i in zip(leaves.FEATURES, row, strict=True)))
        for row in drawn.features.tolist()
    ]
    assert named == [list(leaves.SPECIES)[i] for i in drawn.species]


def test_features_can_be_seen(leaves: Any, script: Any) -> None:
    training, test = leaves.draw_leaves(880, 1), leaves.draw_leaves(440, 2)
    sizes = [len(values) for values in leaves.FEATURES]
    torch.manual_seed(0)
    network = script.network(sum(sizes))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 3)
    for _ in range(4):
        for rows in torch.randperm(880).split(16):
            parts = network(training.images[rows]).split(sizes, 1)
            loss = sum(
                torch.nn.functional.cross_entropy(part, column)
                for part, column in zip(parts, training.features[rows].unbind(1), strict=True)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        falling.step()
    network.eval()
    with torch.no_grad():
        parts = network(test.images).split(sizes, 1)
    for part, column in zip(parts, test.features.unbind(1), strict=True):
        assert (part.argmax(1) == column).double().mean() > 0.95


def test_the_programs_differ_in_one_line() -> None:
    before, after = changes(FOLDER / "tree.scl", FOLDER / "llm.scl")
    assert before.startswith("- @blackbox(")
    assert after.startswith("+ @llm(")


def test_recorded_answers_name_typical_leaves(
    leaves: Any, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in script.RECORDED.items():
        monkeypatch.setenv(name, value)
    model = script.Model("llm")
    features = [plant.split()[:3] for plant in leaves.SPECIES]
    seen = [
        torch.tensor([[float(value == row[i]) for value in values] for row in features])
        for i, values in enumerate(leaves.FEATURES)
    ]
    chances = model.plants(seen).probs
    torch.testing.assert_close(chances.sum(1), torch.ones(11))
    assert chances.diagonal().min() > 0.5
    assert chances.max() < 1  # it is not certain


def test_replay_gives_the_same_weights_twice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYSSUS_LLM_BASE_URL", "http://127.0.0.1:9/v1")  # nobody is there
    before = {path.name: _digest(path) for path in FOLDER.iterdir() if path.is_file()}
    flags = ("--replay", "--short", "--leaves", 110, "--epochs", 1)
    first, second = run(*flags), run(*flags)
    assert first["weights"] == second["weights"]
    assert first["accuracy"] == second["accuracy"]
    assert first["calls"] == second["calls"] == 54
    after = {path.name: _digest(path) for path in FOLDER.iterdir() if path.is_file()}
    assert after == before


@pytest.mark.parametrize("program", ["tree", "llm"])
def test_plants_are_learned_from_their_names(run: Run, program: str) -> None:
    found = run("--replay", "--program", program, "--leaves", 220, "--epochs", 3)
    assert found["calls"] == 54
    assert found["accuracy"] > 2 / 11  # it is getting better: one in eleven is chance
    assert found["true features"] > 0.8


@pytest.mark.slow
def test_the_command_of_the_readme() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.leaf", "--replay", "--short", "--json"],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("BYSSUS_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["accuracy"] > 0.9
    assert found["calls"] <= 120


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
