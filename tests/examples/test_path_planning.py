"""Maps and their cheapest paths; a short training run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import scripts

FOLDER = Path(__file__).parents[2] / "examples" / "path_planning"


@pytest.fixture(scope="module")
def maps() -> Any:
    spec = importlib.util.spec_from_file_location("path_planning_maps", FOLDER / "maps.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_maps_are_the_same_for_a_seed(maps: Any) -> None:
    one, same, other = (maps.draw_maps(20, 12, seed) for seed in (1, 1, 2))
    for part in ("images", "terrain", "paths"):
        assert torch.equal(getattr(one, part), getattr(same, part))
        assert not torch.equal(getattr(one, part), getattr(other, part))
    assert one.images.shape == (20, 3, 96, 96)
    assert one.images.dtype == torch.uint8
    assert one.terrain.shape == one.paths.shape == (20, 144)


def test_terrain_is_smooth_and_all_kinds_occur(maps: Any) -> None:
    terrain = maps.draw_maps(100, 12, 3).terrain.reshape(100, 12, 12)
    share = torch.bincount(terrain.flatten(), minlength=5) / terrain.numel()
    assert bool(((share > 0.15) & (share < 0.25)).all())
    near = (terrain[:, 1:] - terrain[:, :-1]).abs().double().mean()
    far = (terrain[:, 6:] - terrain[:, :6]).abs().double().mean()
    assert near < 0.7 * far


def test_images_show_the_terrain(maps: Any) -> None:
    """The mean colour of a tile says more than chance, and not all."""
    drawn = maps.draw_maps(100, 6, 4)
    tiles = drawn.images.double().unfold(2, 8, 8).unfold(3, 8, 8).mean((4, 5))
    colours = tiles.permute(0, 2, 3, 1).reshape(-1, 3)
    kinds = drawn.terrain.flatten()
    means = torch.stack([colours[kinds == kind].mean(0) for kind in range(5)])
    named = torch.cdist(colours, means).argmin(1)
    assert 0.4 < (named == kinds).double().mean() < 0.9


def bellman_ford(costs: list[float], side: int) -> float:
    """The cost of the cheapest path, by relaxing every step until nothing changes."""
    distance = [float("inf")] * len(costs)
    distance[0] = costs[0]
    while True:
        before = list(distance)
        for cell, other in steps(side):
            distance[other] = min(distance[other], distance[cell] + costs[other])
        if distance == before:
            return distance[-1]


def steps(side: int) -> list[tuple[int, int]]:
    cells = [(row, column) for row in range(side) for column in range(side)]
    return [
        (a * side + b, c * side + d)
        for a, b in cells
        for c, d in cells
        if max(abs(a - c), abs(b - d)) == 1
    ]


@given(st.data())
def test_the_cheapest_path(maps: Any, data: st.DataObject) -> None:
    side = data.draw(st.integers(1, 5))
    cost = st.sampled_from(maps.COSTS)
    costs = data.draw(st.lists(cost, min_size=side * side, max_size=side * side))
    path = maps.cheapest_path(costs)
    on = [cell for cell, there in enumerate(path) if there]
    assert sum(costs[cell] for cell in on) == pytest.approx(bellman_ford(costs, side))
    # It is a path: one can walk on it, and on nothing less, from corner to corner.
    reached = {0}
    for _ in on:
        reached |= {other for cell, other in steps(side) if cell in reached and other in on}
    assert reached == set(on)
    assert {0, side * side - 1} <= set(on)


def test_costs_of_paths(maps: Any) -> None:
    drawn = maps.draw_maps(5, 4, 0)
    costs = [[maps.COSTS[kind] for kind in row] for row in drawn.terrain.tolist()]
    assert drawn.cost.tolist() == pytest.approx([bellman_ford(row, 4) for row in costs])
    everywhere = drawn.cost_of(torch.ones(2, 16), slice(1, 3))
    assert everywhere.tolist() == pytest.approx([sum(row) for row in costs[1:3]])


SMALL = "--side 4 --maps 300 --test-maps 50 --batch-size 25 --learning-rate 0.01 --samples 16"


def test_a_short_run_learns() -> None:
    found = scripts.result(FOLDER / "train.py", *SMALL.split(), "--epochs", "5")
    assert found["maps"] == 300
    assert len(found["losses"]) == 5
    assert found["losses"][-1] < 0.8 * found["losses"][0]
    assert 0 <= found["paths"] <= 1


@pytest.mark.slow
def test_paths_are_learned() -> None:
    found = scripts.result(FOLDER / "train.py", "--short")
    assert found["paths"] > 0.9
