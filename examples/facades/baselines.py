"""Completion by the nearest picture, by loops that run on, and by a convolutional autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
from torch import Tensor, nn

from byssus.structure import Completion, Loop, cut, render, synthesize

from .facades import CELL, SIDE, pixels, seen

_BATCH = 10
WHERE = ("right", "bottom", "block")


def nearest(images: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """Images whose hidden cells are those of the known image that is nearest where both are seen.

    Args:
        images: (n, channels, 120, 120); hidden pixels are not looked at.
        mask: which cells are seen, (n, 15, 15).
        known: the images to take from, (m, channels, 120, 120).
    """
    given = pixels(mask)
    weight = given.expand_as(images).flatten(1).float()
    flat = known.flatten(1)
    # The squared distance, without what is the same for all known images.
    distance = weight @ flat.square().T - 2 * (weight * images.flatten(1)) @ flat.T
    return torch.where(given, images, known[distance.argmin(1)])


def extended(images: Tensor, mask: Tensor) -> Tensor:
    """Images whose hidden cells are drawn by loops that run on from what is seen.

    Args:
        images: (n, channels, 120, 120); hidden pixels are not looked at.
        mask: which cells are seen, (n, 15, 15).
    """
    wall = Loop(0, SIDE, 1, 0, SIDE, 1, cell=0)
    drawn = []
    for image, observed in zip(images, mask, strict=True):
        cells = cut(image, SIDE, SIDE)
        found = synthesize(cells, observed=observed, background=0, wrong=1.5)
        program = (wall, *found.extended())
        drawn.append(render(program, found.cells, rows=SIDE, columns=SIDE))
    return torch.where(pixels(mask), images, torch.stack(drawn))


class Block(nn.Module):
    """Each code looks around, `reach` cells far, and at what is common to its row, column and all.

    Args:
        width: of the codes.
        reach: the dilation.
    """

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
        self.around = nn.Conv2d(width, width, 3, padding=reach, dilation=reach)
        self.common = nn.Conv2d(3 * width, width, 1)
        self.out = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 1))

    def forward(self, codes: Tensor) -> Tensor:
        found = self.norm(codes)
        means = [found.mean(over, keepdim=True).expand_as(found) for over in (3, 2, (2, 3))]
        out: Tensor = codes + self.out(self.around(found) + self.common(torch.cat(means, 1)))
        return out


class Autoencoder(nn.Module):
    """From the seen cells of an image to all of it: a code for each cell, which blocks refine.

    Args:
        channels: of the images.
        width: of the codes.
        reaches: the dilation of each block.
    """

    def __init__(
        self, channels: int, width: int = 64, reaches: Sequence[int] = (1, 2, 4, 1, 2, 4)
    ) -> None:
        super().__init__()
        self.encode = nn.Conv2d(channels + 2, width, CELL, CELL)
        self.place = nn.Parameter(torch.zeros(width, SIDE, SIDE))
        self.blocks = nn.Sequential(*(Block(width, reach) for reach in reaches))
        last = nn.Conv2d(width, channels * CELL * CELL, 1)
        for parameter in last.parameters():  # nothing is corrected at first
            nn.init.zeros_(parameter)
        self.decode = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), last, nn.PixelShuffle(CELL))
        trust = nn.Conv2d(width, 1, 1)
        nn.init.constant_(cast(Tensor, trust.bias), 2.0)  # 88 % at first
        self.trust = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), trust, nn.Sigmoid())

    def forward(self, images: Tensor, mask: Tensor, drawn: Completion | None = None) -> Tensor:
        """The images as they may be, (n, channels, 120, 120).

        Args:
            images: (n, channels, 120, 120); hidden pixels are not looked at.
            mask: which cells are seen, (n, 15, 15).
            drawn: what programs draw in hidden cells, which is trusted more or less, and corrected;
                without it the mean of what is seen.
        """
        given = pixels(mask)
        mean = (images * given).sum((2, 3), keepdim=True) / given.sum((2, 3), keepdim=True)
        start, sure = mean, torch.zeros(mask.shape)
        if drawn is not None:
            start = drawn.images()
            most = drawn.labels.mode(1, keepdim=True).values
            # The share of programs that draw the same.
            sure = (drawn.labels == most).float().mean(1)
        filled = torch.where(given, images, start) - mean
        codes = self.encode(torch.cat([filled, given.float(), pixels(sure)], 1)) + self.place
        codes = self.blocks(codes)
        out: Tensor = mean + pixels(self.trust(codes)[:, 0]) * (start - mean) + self.decode(codes)
        return out

    @torch.no_grad()
    def complete(self, images: Tensor, mask: Tensor, drawn: Completion | None = None) -> Tensor:
        """The images, with hidden cells as they may be."""
        self.eval()
        found = [
            self(images[rows], mask[rows], None if drawn is None else drawn.only(rows))
            for rows in torch.arange(len(images)).split(100)
        ]
        return torch.where(pixels(mask), images, torch.cat(found).clamp(0, 1))


def holes(count: int, seed: int) -> Tensor:
    """Which cells are hidden of pictures with holes of all three kinds, mixed, (count, 15, 15)."""
    each = [seen(where, -(-count // len(WHERE)), seed) for where in WHERE]
    order = torch.randperm(sum(map(len, each)), generator=torch.Generator().manual_seed(seed))
    return ~torch.cat(each)[order[:count]]


def train(
    images: Tensor,
    drawn: Completion | None = None,
    *,
    epochs: int,
    seed: int,
    learning_rate: float = 2e-3,
    say: Callable[[str], None] = lambda text: None,
) -> Autoencoder:
    """An autoencoder that has learned to complete images whose right, bottom or block is hidden.

    Args:
        images: to learn from.
        drawn: what programs draw in holes of these images, which it is to correct: of all images,
            once more of all, and so on. Without it holes are made anew for each epoch.
        epochs: passes through all images.
        seed: of the parameters, the order and the holes.
        learning_rate: the highest.
        say: takes a line for each epoch.
    """
    torch.manual_seed(seed)
    model = Autoencoder(images.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate)
    batches = -(-len(images) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=epochs * batches
    )
    for epoch in range(epochs):
        model.train()
        total = 0.0
        masks = ~holes(len(images), epoch + 1000 * seed) if drawn is None else drawn.observed
        for rows in torch.randperm(len(masks))[: len(images)].split(_BATCH):
            shown, mask, start = images[rows % len(images)], masks[rows], None
            if drawn is not None:
                # Half of the programs, others each time: what they draw is not to be learned.
                n = drawn.labels.shape[1]
                start = drawn.only(rows, torch.randperm(n)[: -(-n // 2)])
            found = model(shown, mask, start)
            errors = F.mse_loss(found, shown, reduction="none").mean(1, keepdim=True)
            hidden = ~pixels(mask)
            # What is seen is learned too, a little, as its textures are those of what is hidden.
            loss = errors[hidden].mean() + 0.1 * errors[~hidden].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        say(f"epoch {epoch + 1}: loss {total / len(images):.5f}")
    return model
