"""Maps drawn from tiles of terrain, and the cheapest path through them.

A map has `side` x `side` cells of five kinds of terrain, each of which has a cost; neighbours tend
to be alike. Its image shows a tile of 8 x 8 pixels for each cell: one of a few textures of its
kind, under light that varies from cell to cell, and noise. Everything is drawn from seeds.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
from torch import Tensor

COSTS = (0.8, 1.2, 5.3, 7.7, 9.2)
TILE = 8  # pixels
_TENTHS = {cost: round(10 * cost) for cost in COSTS}  # whole numbers: no rounding, exact ties

# sand, grass, forest, water, rock
_COLOURS = ((0.66, 0.58, 0.42), (0.42, 0.58, 0.34), (0.30, 0.46, 0.32), (0.34, 0.44, 0.56))
_COLOURS = (*_COLOURS, (0.50, 0.46, 0.44))
_TEXTURES = 4  # a kind
_LIGHT, _NOISE = 0.15, 0.08


@dataclass(frozen=True)
class Maps:
    """Maps; a network is shown the images and paths, the terrain is for the evaluation alone.

    Attributes:
        images: uint8 (maps, 3, 8 side, 8 side).
        terrain: the position of each cell's cost in `COSTS`, (maps, side * side).
        paths: 1 on the cheapest path, (maps, side * side).
    """

    images: Tensor
    terrain: Tensor
    paths: Tensor

    @property
    def cost(self) -> Tensor:
        """The cost of each path, (maps,)."""
        return self.cost_of(self.paths)

    def cost_of(self, paths: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """What other paths cost on some of the maps, (rows, side * side) -> (rows,)."""
        return (torch.tensor(COSTS, dtype=torch.float64)[self.terrain[rows]] * paths).sum(1)


def draw_maps(count: int, side: int, seed: int) -> Maps:
    """Draw maps, always the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    # Hills of three sizes; their quantiles are the kinds, so that each covers a fifth.
    height = torch.zeros(count, 1, side, side)
    for cells, share in ((3, 1.0), (6, 0.7), (side, 0.4)):
        hills = torch.randn(count, 1, cells, cells, generator=generator)
        height += share * F.interpolate(hills, (side, side), mode="bicubic", align_corners=True)
    height = (height - height.mean()) / height.std()
    cuts = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor([0.2, 0.4, 0.6, 0.8]))
    terrain = torch.bucketize(height.reshape(count, -1), cuts)
    costs = torch.tensor(COSTS, dtype=torch.float64)[terrain]
    paths = torch.tensor([cheapest_path(row) for row in costs.tolist()], dtype=torch.int64)
    return Maps(_draw(terrain, side, generator), terrain, paths)


def _draw(terrain: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """The images of maps."""
    textures = _textures()
    variant = torch.randint(_TEXTURES, terrain.shape, generator=generator)
    light = 1 + _LIGHT * torch.randn(*terrain.shape, 1, 1, 1, generator=generator)
    images = []
    for some in torch.arange(len(terrain)).split(500):
        tiles = textures[terrain[some], variant[some]] * light[some]
        tiles += _NOISE * torch.randn(tiles.shape, generator=generator)
        tiles = (tiles.clamp(0, 1) * 255).round().to(torch.uint8)
        rows = tiles.reshape(len(some), side, side, 3, TILE, TILE).permute(0, 3, 1, 4, 2, 5)
        images.append(rows.reshape(len(some), 3, side * TILE, side * TILE))
    return torch.cat(images)


@cache
def _textures() -> Tensor:
    """The tiles of each kind, (kinds, textures, 3, 8, 8); the same for all maps."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(COSTS), _TEXTURES)
    colour = torch.tensor(_COLOURS)[:, None] + 0.06 * torch.randn(*shape, 3, generator=generator)
    coarse = torch.randn(len(COSTS) * _TEXTURES, 1, 4, 4, generator=generator)
    grain = F.interpolate(coarse, (TILE, TILE), mode="nearest").reshape(*shape, 1, TILE, TILE)
    return colour[..., None, None] * (1 + 0.2 * grain)


def cheapest_path(costs: Sequence[float]) -> tuple[bool, ...]:
    """Dijkstra's algorithm: which cells are on the cheapest path from top left to bottom right.

    A step goes to one of the eight neighbours; a path costs the sum of its cells, first included.

    Args:
        costs: of the cells of a square map, row by row.
    """
    cells = len(costs)
    neighbours = _neighbours(cells)
    tenths = [_TENTHS[cost] for cost in costs]
    distances = [1 << 60] * cells
    distances[0] = tenths[0]
    before = [0] * cells
    queue = [tenths[0] * cells]  # a distance and a cell in one number
    while True:
        distance, cell = divmod(heapq.heappop(queue), cells)
        if cell == cells - 1:
            break
        if distance > distances[cell]:
            continue
        for neighbour in neighbours[cell]:
            reached = distance + tenths[neighbour]
            if reached < distances[neighbour]:
                distances[neighbour] = reached
                before[neighbour] = cell
                heapq.heappush(queue, reached * cells + neighbour)
    path = [False] * cells
    path[0] = True
    while cell:
        path[cell] = True
        cell = before[cell]
    return tuple(path)


@cache
def _neighbours(cells: int) -> list[list[int]]:
    side = round(cells**0.5)
    return [
        [
            r * side + c
            for r in range(max(0, row - 1), min(side, row + 2))
            for c in range(max(0, column - 1), min(side, column + 2))
            if (r, c) != (row, column)
        ]
        for row in range(side)
        for column in range(side)
    ]
