"""Scenes drawn from a seed: sets of objects, of which only the room they are in is told.

There are 47 classes of objects: five for each of nine rooms, and two that are found anywhere. An
object's image shows the pattern of its class, shifted by up to two pixels, under light that varies,
and noise. In a scene of 1 to 10 objects most belong to the room, some to another, some to none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

OBJECTS = {
    "kitchen": ("stove", "refrigerator", "kettle", "frying pan", "toaster"),
    "bathroom": ("toilet", "bathtub", "shower", "toothbrush", "towel"),
    "bedroom": ("bed", "pillow", "blanket", "wardrobe", "nightstand"),
    "living room": ("sofa", "television", "armchair", "coffee table", "fireplace"),
    "office": ("desk", "printer", "stapler", "computer", "filing cabinet"),
    "garage": ("car", "wrench", "lawn mower", "tire", "toolbox"),
    "gym": ("treadmill", "dumbbell", "barbell", "exercise bike", "punching bag"),
    "classroom": ("blackboard", "chalk", "globe", "textbook", "backpack"),
    "laboratory": ("microscope", "test tube", "beaker", "Bunsen burner", "pipette"),
}
ANYWHERE = ("clock", "ball")
ROOMS = list(OBJECTS)
NAMES = [name for names in OBJECTS.values() for name in names] + list(ANYWHERE)
ROOM_OF = {name: room for room, names in OBJECTS.items() for name in names}

MOST = 10  # objects in a scene
SIDE = 16  # pixels
_OWN, _ANYWHERE = 0.7, 0.1  # the share of objects of the room, and of those found anywhere
_SHIFT, _LIGHT, _NOISE = 2, 0.2, 0.6


@dataclass(frozen=True)
class Scenes:
    """Scenes; a network is shown the images and rooms, the names are for the evaluation alone.

    Attributes:
        images: float32 (scenes, 10, 16, 16), zeros where there is no object.
        present: whether there is an object, bool (scenes, 10).
        names: the position of each object's class in `NAMES`, int64 (scenes, 10).
        rooms: the position of each scene's room in `ROOMS`, int64 (scenes,).
    """

    images: Tensor
    present: Tensor
    names: Tensor
    rooms: Tensor

    def __getitem__(self, rows: Tensor) -> Scenes:
        """Some of the scenes."""
        return Scenes(self.images[rows], self.present[rows], self.names[rows], self.rooms[rows])


def found_in(name: str) -> list[str]:
    """In which rooms an object is found: its own, or any."""
    return [ROOM_OF[name]] if name in ROOM_OF else []


def draw_scenes(count: int, seed: int) -> Scenes:
    """Draw scenes, always the same for a seed."""
    random = np.random.default_rng(seed)
    rooms = random.integers(len(ROOMS), size=count)
    present = np.arange(MOST) < random.integers(1, MOST + 1, size=(count, 1))
    kind = random.random((count, MOST))
    # Another room: any of the eight, by a step of 1 to 8 around the list.
    others = (rooms[:, None] + random.integers(1, len(ROOMS), size=kind.shape)) % len(ROOMS)
    room = np.where(kind < _OWN, rooms[:, None], others)
    own = 5 * room + random.integers(5, size=kind.shape)
    nothing = 5 * len(ROOMS) + random.integers(len(ANYWHERE), size=kind.shape)
    names = np.where(kind < 1 - _ANYWHERE, own, nothing)
    images = np.zeros((count, MOST, SIDE, SIDE), np.float32)
    images[present] = _draw(names[present], random)
    return Scenes(*map(torch.from_numpy, (images, present, names, rooms)))


def _draw(names: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.float32]:
    """The images of objects, (objects, 16, 16)."""
    margin = np.arange(SIDE)
    rows, columns = random.integers(2 * _SHIFT + 1, size=(2, len(names), 1)) + margin
    seen = _patterns()[names[:, None, None], rows[:, :, None], columns[:, None, :]]
    light = 1 + _LIGHT * random.standard_normal((len(names), 1, 1))
    noise = random.standard_normal(seen.shape)
    return np.asarray(light * seen + _NOISE * noise, np.float32)


@cache
def _patterns() -> NDArray[np.float64]:
    """A pattern of blots for each class, larger than an image by what it may be shifted."""
    random = np.random.default_rng(0)
    size = SIDE + 2 * _SHIFT
    # Waves of up to three periods an image, with random phases.
    periods = np.fft.fftfreq(size) * size
    low = (np.abs(periods)[:, None] <= 3) & (np.abs(periods)[None] <= 3)
    noise = np.fft.fft2(random.standard_normal((len(NAMES), size, size)))
    blots = np.fft.ifft2(noise * low).real
    return np.asarray(blots / blots.std((1, 2), keepdims=True))
