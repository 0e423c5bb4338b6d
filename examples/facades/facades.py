"""Building fronts and grids of digits: pictures of 15 x 15 cells that programs of for-loops draw.

A loop is (top, bottom, down, left, right, across, kind): the ranges of its rows and of its columns,
and what it draws in each cell. Later loops draw over earlier ones; where none draws is background.
Some cells are not as the program says: nothing is there, or something else. Every cell is under a
light of its own and under noise. Everything is drawn from seeds, and what was drawn is told, so
that all can be checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
from torch import Tensor

SIDE = 15  # cells
CELL = 8  # pixels
KINDS = ("window", "arch", "shutters", "balcony", "door")
_WINDOW, _ARCH, _SHUTTERS, _BALCONY, _DOOR = range(len(KINDS))
_MISSING, _OTHER = 0.02, 0.02  # shares of what is drawn
_LIGHT, _NOISE = 0.03, 0.02
_TEXTURE = 0.15

Loop = tuple[int, int, int, int, int, int, int]
Program = tuple[Loop, ...]


@dataclass(frozen=True)
class Pictures:
    """Pictures; a model is shown the images, the rest is for the evaluation alone.

    Attributes:
        images: pixels from 0 to 1, (pictures, channels, 120, 120).
        programs: of each picture.
        labels: the kind that each cell shows, -1 where it is background; what the program draws but
            for the irregular cells, (pictures, 15, 15).
        tiles: each kind and, last, the background, as they are in a picture without light and
            noise, (pictures, kinds + 1, channels, 8, 8).
    """

    images: Tensor
    programs: tuple[Program, ...]
    labels: Tensor
    tiles: Tensor

    @property
    def drawn(self) -> Tensor:
        """What the programs draw, no cell being irregular, (pictures, 15, 15)."""
        return torch.from_numpy(np.stack([run(program) for program in self.programs]))

    def rendered(self, labels: Tensor) -> Tensor:
        """Images of other cells in these pictures' tiles, (pictures, 15, 15) -> as `images`."""
        return joined(self.tiles[torch.arange(len(labels))[:, None, None], labels])

    def __getitem__(self, rows: slice) -> Pictures:
        parts = (self.images[rows], self.programs[rows], self.labels[rows], self.tiles[rows])
        return Pictures(*parts)


def run(program: Program) -> np.ndarray:
    """What a program draws: the kind of each cell, -1 where it draws none, (15, 15)."""
    labels = np.full((SIDE, SIDE), -1)
    for top, bottom, down, left, right, across, kind in program:
        labels[top:bottom:down, left:right:across] = kind
    return labels


def cells(images: Tensor) -> Tensor:
    """Images as their cells, (n, channels, 120, 120) -> (n, 15, 15, channels, 8, 8)."""
    return images.unfold(2, CELL, CELL).unfold(3, CELL, CELL).permute(0, 2, 3, 1, 4, 5)


def joined(cells: Tensor) -> Tensor:
    """Cells as images, (n, 15, 15, channels, 8, 8) -> (n, channels, 120, 120)."""
    return cells.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def draw_facades(count: int, seed: int) -> Pictures:
    """Draw building fronts, always the same for a seed.

    Each has rows of windows, perhaps of two kinds in turn, often upper floors with windows of their
    own and balconies, and a door or a row of doors; walls, frames, glass and balconies are of its
    own make, colours and textures.
    """
    random = np.random.default_rng(seed)
    programs = [_building(random) for _ in range(count)]
    return _draw(programs, np.stack([_materials(random) for _ in range(count)]), random)


def draw_digits(count: int, seed: int, digits: tuple[Tensor, Tensor]) -> Pictures:
    """Draw grids on which digits repeat, always the same for a seed and for such digits.

    The kinds are 0 to 9; where a picture shows a digit, it shows the same image of it.

    Args:
        count: of pictures.
        seed: of what is drawn.
        digits: images of digits (n, 1, 28, 28), and what they show (n,), all ten among them.
    """
    random = np.random.default_rng(seed)
    images, shown = digits
    small = F.avg_pool2d(images[:, :, 2:26, 2:26], 24 // CELL)
    chosen = np.stack([random.choice(np.flatnonzero(shown == k), count) for k in range(10)], 1)
    tiles = np.concatenate([small.numpy()[chosen], np.zeros((count, 1, 1, CELL, CELL))], 1)
    paper, ink = random.uniform((0.05, 0.75), (0.3, 1.0), (count, 2)).T.reshape(2, -1, 1, 1, 1, 1)
    programs = [_pattern(random) for _ in range(count)]
    return _draw(programs, paper + (ink - paper) * tiles, random)


def _draw(programs: Sequence[Program], tiles: np.ndarray, random: np.random.Generator) -> Pictures:
    """What programs draw of tiles, with irregularities, light and noise."""
    labels = np.stack([run(program) for program in programs])
    draw = random.random(labels.shape)
    # Something else is one of the other kinds that the program draws, or any where it has but one.
    for grid, drawn in zip(labels, draw, strict=True):
        kinds = np.unique(grid[grid >= 0])
        for row, column in zip(*np.nonzero((grid >= 0) & (drawn < _OTHER)), strict=True):
            others = kinds if len(kinds) > 1 else np.arange(tiles.shape[1] - 1)
            grid[row, column] = random.choice(others[others != grid[row, column]])
    labels[(draw >= _OTHER) & (draw < _OTHER + _MISSING)] = -1
    shown = tiles[np.arange(len(labels))[:, None, None], labels]
    shown = shown * (1 + _LIGHT * random.standard_normal((*labels.shape, 1, 1, 1)))
    shown = shown + _NOISE * random.standard_normal(shown.shape)
    return Pictures(
        joined(torch.from_numpy(shown.clip(0, 1)).float()),
        tuple(programs),
        torch.from_numpy(labels),
        torch.from_numpy(tiles).float(),
    )


def _building(random: np.random.Generator) -> Program:
    """The program of a front: perhaps upper floors of their own, then lower ones, then the door."""
    program: list[Loop] = []
    ground = SIDE - 2
    top = int(random.integers(1, 3))
    upper, turns, balconies, doors = random.random(4)
    if upper < 0.5:
        cut = int(random.integers(1, 7))
        floors, apart, left = _steps(random)
        start = int(random.integers(min(floors, cut)))
        program.append((start, cut, floors, left, SIDE, apart, int(random.integers(3))))
        top = cut + int(random.integers(2))
    floors, apart, left = _steps(random)
    kind, other = (int(k) for k in random.permutation(3)[:2])
    if turns < 0.3:  # two kinds, column by column
        program.append((top, ground, floors, left, SIDE, 2 * apart, kind))
        program.append((top, ground, floors, left + apart, SIDE, 2 * apart, other))
    elif turns < 0.5:  # or floor by floor
        program.append((top, ground, 2 * floors, left, SIDE, apart, kind))
        program.append((top + floors, ground, 2 * floors, left, SIDE, apart, other))
    else:
        program.append((top, ground, floors, left, SIDE, apart, kind))
    if balconies < 0.5:
        first, every = left, apart
        if balconies < 0.3:  # under every second window
            first, every = left + apart * int(random.integers(2)), 2 * apart
        program.append((top + 1, ground, floors, first, SIDE, every, _BALCONY))
    columns = range(left, SIDE, apart)
    door = columns[int(random.integers(len(columns)))]
    right, across = (SIDE, 2 * apart) if doors < 0.3 else (door + 1, 1)
    program.append((ground, SIDE, 1, door, right, across, _DOOR))
    return tuple(program)


def _steps(random: np.random.Generator) -> tuple[int, int, int]:
    """From row to row, from column to column, and the first column."""
    down, across = (int(step) for step in random.choice((2, 3, 4), 2, p=(0.4, 0.4, 0.2)))
    return down, across, int(random.integers(across))


def _pattern(random: np.random.Generator) -> Program:
    """A pattern of digits: one over the whole grid, or one on each side of a line."""
    cut = int(random.integers(5, 11))
    halves = ((0, cut, 0, SIDE), (cut, SIDE, 0, SIDE))
    if random.random() < 0.5:
        halves = ((0, SIDE, 0, cut), (0, SIDE, cut, SIDE))
    areas = halves if random.random() < 0.5 else ((0, SIDE, 0, SIDE),)
    digits = iter(random.permutation(10).tolist())
    program: list[Loop] = []
    for top, bottom, left, right in areas:
        down, across, column = _steps(random)
        row = int(random.integers(down))
        program.append((top + row, bottom, down, left + column, right, across, next(digits)))
        if random.random() < 0.5:  # another between its rows, its columns, or both
            places = [place for place in np.ndindex(down, across) if place != (row, column)]
            row, column = places[int(random.integers(len(places)))]
            program.append((top + row, bottom, down, left + column, right, across, next(digits)))
    return tuple(program)


def _materials(random: np.random.Generator) -> np.ndarray:
    """What a building is made of: a tile of each kind and one of its wall, (6, 3, 8, 8)."""
    grey, warmth = random.uniform(0.45, 0.85), random.uniform(-0.05, 0.15)
    wall = np.broadcast_to(
        np.reshape((grey + warmth, grey, grey - warmth), (3, 1, 1)), (3, CELL, CELL)
    ).copy()
    match random.integers(3):
        case 0:  # bricks
            wall[:, 3::4] *= 0.8
            wall[:, :3, 2] *= 0.8
            wall[:, 4:7, 6] *= 0.8
        case 1:  # boards
            wall[:, ::2] *= 0.88
    frame = random.uniform(0.7, 1.0) if grey < 0.65 else random.uniform(0.1, 0.5)
    shade = random.uniform(0.1, 0.35)
    glass = np.reshape((shade, shade + 0.05, shade + random.uniform(0.05, 0.25)), (3, 1, 1))
    paint = random.uniform(0.1, 0.6, (3, 1, 1))

    window, arch, shutters, balcony, door = (wall.copy() for _ in KINDS)
    window[:, :7, 1:7] = frame
    window[:, 1:6, 2:6] = glass
    window[:, 3, 2:6] = frame
    arch[:, 1:8, 2:6] = frame
    arch[:, 0, 3:5] = frame
    arch[:, 1:7, 3:5] = glass
    shutters[:, 1:7, 1:7] = paint
    shutters[:, 2:7:2, 1:7] *= 0.7
    shutters[:, 1:7, 3:5] = glass
    balcony[:, :3, 2:6] = glass
    rail = [np.s_[:, 4:7, ::2], np.s_[:, 4:7], np.s_[:, 3:7:2]][random.integers(3)]
    balcony[rail] = paint
    balcony[:, 3] = balcony[:, 7] = frame
    door[:, :, 1:7] = paint
    door[:, 1:7, 2:6] *= 0.75
    # Stone, curtains and reflections, worn paint.
    textures = 1 + _TEXTURE * random.standard_normal((len(KINDS) + 1, 1, 4, 4))
    tiles = np.stack([window, arch, shutters, balcony, door, wall])
    return (tiles * textures.repeat(2, 2).repeat(2, 3)).clip(0, 1)


def seen(where: str, count: int, seed: int = 0) -> Tensor:
    """Which cells of pictures are seen where about a third is hidden, (count, 15, 15).

    Args:
        where: what is hidden: the "right" third, the "bottom" third, or a "block" of 72 to 80 cells
            that is anywhere, elsewhere in each picture.
        count: of pictures.
        seed: of where blocks are.
    """
    mask = torch.ones(count, SIDE, SIDE, dtype=torch.bool)
    if where == "right":
        mask[:, :, -SIDE // 3 :] = False
    elif where == "bottom":
        mask[:, -SIDE // 3 :] = False
    elif where == "block":
        random = np.random.default_rng(seed)
        for grid in mask:
            height = int(random.integers(7, 12))
            width = round(SIDE * SIDE / 3 / height)
            top = int(random.integers(SIDE - height + 1))
            left = int(random.integers(SIDE - width + 1))
            grid[top : top + height, left : left + width] = False
    else:
        raise ValueError(f"where={where!r}: give 'right', 'bottom' or 'block'")
    return mask


def pixels(mask: Tensor) -> Tensor:
    """What there is for each cell, such as a mask, for each pixel: (n, 1, 120, 120)."""
    return mask[:, None].repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
