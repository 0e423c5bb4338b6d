"""Drawn leaves: grey images in which margin, shape and texture are seen, under noise.

A leaf is a closed outline (its shape), whose edge is displaced (its margin) and whose blade is
shaded (its texture). Every leaf is turned, scaled, moved and lit a little differently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.random import Generator
from torch import Tensor

MARGINS = ("entire", "lobed", "serrate")
SHAPES = ("cordate", "lanceolate", "oblong", "oval", "ovate", "palmate")
TEXTURES = ("glossy", "papery", "smooth")
FEATURES = (MARGINS, SHAPES, TEXTURES)

# The plants, and the margins, shapes and textures that their leaves have, equally often. Their
# names say what is typical, as those of Quercus lobata and Acer palmatum do.
SPECIES = {
    "entire ovate papery beech": (("entire",), ("ovate", "oval"), ("papery", "smooth")),
    "serrate ovate papery birch": (("serrate",), ("ovate", "oval"), ("papery", "smooth")),
    "serrate oval glossy camellia": (("serrate",), ("oval",), ("glossy",)),
    "lobed palmate glossy ivy": (("lobed",), ("palmate",), ("glossy",)),
    "entire oblong glossy laurel": (("entire",), ("oblong",), ("glossy", "smooth")),
    "serrate cordate papery linden": (("serrate",), ("cordate",), ("papery", "smooth")),
    "lobed palmate papery maple": (("lobed",), ("palmate",), ("papery",)),
    "lobed oblong smooth oak": (("lobed",), ("oblong", "oval"), ("papery", "smooth")),
    "entire lanceolate smooth oleander": (("entire",), ("lanceolate",), ("glossy", "smooth")),
    "lobed palmate smooth plane": (("lobed",), ("palmate",), ("smooth",)),
    "serrate lanceolate smooth willow": (
        *(("serrate",), ("lanceolate", "oblong"), ("papery", "smooth")),
    ),
}
SIDE = 64

_FINE = 3  # an outline is filled on a grid this many times as fine
_POINTS = 360


@dataclass(frozen=True)
class Leaves:
    """Drawn leaves.

    Attributes:
        images: grey, from 0 to 1.
        features: the positions of margin, shape and texture in `FEATURES`; to measure with, never
            to learn from.
        species: positions in `SPECIES`.
    """

    images: Float[Tensor, "leaves 1 side side"]
    features: Int[Tensor, "leaves 3"]
    species: Int[Tensor, " leaves"]


def draw_leaves(count: int, seed: int) -> Leaves:
    """So many leaves, as many of each species as of any other, in random order.

    Args:
        count: a multiple of the number of species, or up to one more of some species.
        seed: the same seed draws the same leaves.
    """
    random = np.random.default_rng(seed)
    species = random.permutation(np.arange(count) % len(SPECIES))
    looks = list(SPECIES.values())
    features = [
        [names.index(random.choice(seen)) for names, seen in zip(FEATURES, looks[s], strict=True)]
        for s in species
    ]
    images = [draw(*row, random) for row in features]
    return Leaves(
        torch.tensor(np.stack(images), dtype=torch.float32)[:, None],
        torch.tensor(features),
        torch.tensor(species),
    )


def draw(margin: int, shape: int, texture: int, random: Generator) -> np.ndarray:
    """One leaf, (side, side), its features by position."""
    outline = _displaced(_outline(SHAPES[shape], random), MARGINS[margin], random)
    outline -= (outline.max(0) + outline.min(0)) / 2
    outline *= random.uniform(0.78, 0.92) / np.abs(outline).max()
    turn = random.uniform(-0.35, 0.35)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shift = random.uniform(-0.06, 0.06, 2)
    covered = _filled(outline @ rotation.T + shift)
    y, x = np.mgrid[1 : -1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    own = np.stack([x, y], -1) - shift
    blade = _shading(TEXTURES[texture], own @ rotation, random)
    background = random.uniform(0.8, 0.95)
    image = covered * blade + (1 - covered) * background
    return np.clip(image + random.normal(0, 0.06, image.shape), 0, 1)


def _outline(shape: str, random: Generator) -> np.ndarray:
    """Points (x, y) around a blade of length 2, from its base and with its tip up."""
    t = np.linspace(-np.pi, np.pi, _POINTS, endpoint=False)
    width = random.uniform(0.92, 1.08)
    if shape == "palmate":  # five lobes around the stalk
        r = 0.42 + 0.58 * np.abs(np.cos(2.5 * t * 0.92)) ** 1.5
        r *= 1 - 0.12 * np.abs(t / np.pi)
        return np.stack([width * r * np.sin(t), r * np.cos(t)], 1)
    x, y = np.sin(t), np.cos(t)
    if shape == "lanceolate":
        x = 0.25 * np.sign(x) * np.abs(x) ** 1.6 * np.exp(-0.35 * y)
    elif shape == "oblong":
        x, y = (0.38 * np.sign(v) * np.abs(v) ** 0.6 for v in (x, y))
        y = y / 0.38
    elif shape == "oval":
        x = 0.66 * x
    elif shape == "ovate":
        x = 0.6 * np.sign(x) * np.abs(x) ** 1.15 * np.exp(-0.5 * y)
    else:  # cordate: a notch at the base
        x = 0.85 * np.sign(x) * np.abs(x) ** 1.1 * np.exp(-0.35 * y)
        y = y + 0.5 * (y < 0) * np.exp(-((x / 0.3) ** 2))
    return np.stack([width * x, y], 1)


def _displaced(outline: np.ndarray, margin: str, random: Generator) -> np.ndarray:
    """The outline with the teeth or lobes of its margin."""
    if margin == "entire":
        return outline
    step = np.roll(outline, -1, 0) - np.roll(outline, 1, 0)
    length = np.hypot(*step.T)
    along = np.cumsum(length) / length.sum()
    inward = np.stack([step[:, 1], -step[:, 0]], 1) / length[:, None]
    perimeter = length.sum() / 2
    if margin == "serrate":
        phase = along * round(perimeter / 0.24) + random.uniform()
        depth = 0.11 * (phase % 1)
    else:
        phase = along * round(perimeter / 0.62) + random.uniform()
        depth = 0.11 * (1 + np.cos(2 * np.pi * phase))
        depth *= np.minimum(1, np.abs(outline[:, 0]) / 0.35)
    return outline + depth[:, None] * inward


def _filled(outline: np.ndarray) -> np.ndarray:
    """How much of each pixel lies within the outline, by the even-odd rule."""
    fine = SIDE * _FINE
    rows = 1 - (np.arange(fine) + 0.5) * 2 / fine
    (x1, y1), (x2, y2) = outline.T, np.roll(outline, -1, 0).T
    row, edge = np.nonzero((y1 > rows[:, None]) != (y2 > rows[:, None]))
    x = x1[edge] + (rows[row] - y1[edge]) / (y2[edge] - y1[edge]) * (x2[edge] - x1[edge])
    column = np.clip(np.round((x + 1) / 2 * fine), 0, fine).astype(int)
    crossings = np.zeros((fine, fine + 1), int)
    np.add.at(crossings, (row, column), 1)
    inside = crossings.cumsum(1)[:, :-1] % 2
    return inside.reshape(SIDE, _FINE, SIDE, _FINE).mean((1, 3))


def _shading(texture: str, own: np.ndarray, random: Generator) -> np.ndarray:
    """The brightness of the blade at its own coordinates, (side, side, 2)."""
    x, y = own[..., 0], own[..., 1]
    blade = random.uniform(0.3, 0.42) + 0.05 * (random.uniform(-1, 1) * x + y)
    if texture == "glossy":  # a highlight beside the midrib
        where = random.choice([-1, 1]) * random.uniform(0.07, 0.12)
        centre = random.uniform(-0.15, 0.15)
        blade = blade + 0.45 * np.exp(-(((x - where) / 0.07) ** 2) - ((y - centre) / 0.4) ** 2)
    elif texture == "papery":  # veins that show, and creases
        veins = np.cos(2 * np.pi * (y - 0.8 * np.abs(x)) / random.uniform(0.2, 0.25))
        blade = blade + 0.1 * veins + random.normal(0, 0.05, blade.shape)
    return blade - 0.1 * np.exp(-((x / 0.02) ** 2))
