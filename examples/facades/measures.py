"""How good completed pictures are, in pixels, in cells, and in what their programs draw."""

from __future__ import annotations

import torch
from torch import Tensor

from byssus.structure import Completion, equivalent, synthesize

from .facades import Pictures, cells, pixels


def named(images: Tensor, tiles: Tensor) -> Tensor:
    """The kind that each cell looks most like, -1 for the background, (n, 15, 15).

    Args:
        images: completed ones, (n, channels, 120, 120).
        tiles: of each picture, `Pictures.tiles`.
    """
    shown = cells(images).flatten(3).flatten(1, 2)
    nearest = torch.cdist(shown, tiles.flatten(2)).argmin(2).unflatten(1, (15, 15))
    return torch.where(nearest == tiles.shape[1] - 1, -1, nearest)


def measures(completed: Tensor, pictures: Pictures, seen: Tensor) -> dict[str, float]:
    """What is wrong and right in the hidden cells of completed pictures.

    `pixels`: the mean squared error. `cells`: the share that looks like another kind than is there.
    `structure`: of the cells in which the true program draws, the share that looks as it says.

    Args:
        completed: images, (n, channels, 120, 120).
        pictures: as they were.
        seen: which cells the completion was given, (n, 15, 15).
    """
    errors = (completed - pictures.images).square().mean(1, keepdim=True)
    looks = named(completed, pictures.tiles)
    drawn = pictures.drawn
    regular = ~seen & (drawn >= 0)
    return {
        "pixels": errors[~pixels(seen)].mean().item(),
        "cells": (looks != pictures.labels)[~seen].double().mean().item(),
        "structure": (looks == drawn)[regular].double().mean().item(),
    }


def recovered(pictures: Pictures) -> float:
    """The share of programs that synthesis finds again from what they draw, nothing irregular.

    A program is found again by one that draws the same with no more loops.
    """
    same = 0
    for labels, program in zip(pictures.drawn, pictures.programs, strict=True):
        found = synthesize(labels + 1, background=0).program
        shifted = [loop._replace(cell=loop.cell - 1) for loop in found]
        same += equivalent(shifted, program) and len(found) <= len(program)
    return same / len(pictures.programs)


def made(pictures: Completion, training: Pictures) -> dict[str, float]:
    """What pictures are like that a model has made, beside those that it has learned from.

    `loops`: how many a program has, the background's left out, in the mean. `drawn`: the share of
    cells that show no background. `new`: the share of pictures that show what no other one shows,
    made or learned from, whatever it looks like. `real_loops`, `real_drawn`: of those learned from.
    """
    labels = pictures.labels[:, 0]
    background = labels.flatten(1).mode(1).values
    drawn = labels != background[:, None, None]
    known = [tuple(grid.flatten().tolist()) for grid in (*drawn, *(training.drawn >= 0))]
    loops = [
        loop
        for programs, wall in zip(pictures.programs, background.tolist(), strict=True)
        for loop in programs[0]
        if loop.cell != wall
    ]
    return {
        "loops": len(loops) / len(drawn),
        "drawn": drawn.double().mean().item(),
        "new": sum(known.count(grid) == 1 for grid in known[: len(drawn)]) / len(drawn),
        "real_loops": sum(map(len, training.programs)) / len(training.programs),
        "real_drawn": (training.drawn >= 0).double().mean().item(),
    }
