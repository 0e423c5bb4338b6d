"""StructureDiffusion: which programs draw pictures, learned from pictures.

Pictures are completed and made in two stages, as in Young, Bastani and Naik, "Learning
Neurosymbolic Generative Models via Program Synthesis" (ICML 2019): first a program, then what it
draws.

1. Programs are synthesised from whole pictures. Their loops draw the picture's own sub-images,
   numbered from the most frequent one on, or entries of a dictionary of sub-images of all pictures,
   where the picture's own is not seen. The first loop draws the background.
2. A `MaskedDiffusion` learns their distribution, given what is seen of a picture: the numbers of
   the loops are its concepts, and what they draw its output.
3. A picture is completed by programs from the posterior: the label is what is seen, and what is
   hidden is not observed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jaxtyping as jt
import torch
from torch import Tensor, nn

from byssus.diffusion import Epoch, MaskedDiffusion, WorldProgram, train
from byssus.errors import ByssusError, DomainError, EmptyBatchError, ShapeError
from byssus.structure._networks import Encoder, UnmaskingModel
from byssus.structure.loops import Loop, Structure, canonical, equivalent
from byssus.structure.synthesis import assemble, cut, synthesize

__all__ = ["Completion", "StructureDiffusion", "holes"]

_WRONG = 1.5
"""What a wrong cell costs: irregular cells are not to break loops in parts."""

_BETA = 4.0
"""What a seen cell costs that a program does not draw: -log of how frequent irregular ones are."""

_STEPS, _CANDIDATES = 8, 16
_EXAMPLES = 10
"""So many holes are made in each picture to learn from; in one of them all is hidden."""

_PICTURES = 100
"""So many pictures are completed at once."""


@dataclass(frozen=True, eq=False)
class Completion:
    """Pictures, and what programs draw where nothing of them was seen.

    Attributes:
        programs: those of each picture, (batch, n). Their loops draw `tiles`.
        labels: what they draw, (batch, n, rows, columns): places among `tiles`.
        tiles: of each picture, the sub-images that its programs draw, (batch, classes + entries,
            ..., h, w): its own, from the most frequent one on, then those of the dictionary.
        cells: the pictures' cells, (batch, rows, columns, ..., h, w).
        observed: which of them were seen, (batch, rows, columns).
        agreement: the share of the seen cells that each program draws as they are, (batch, n); 1
            where nothing was seen.
    """

    programs: list[list[tuple[Loop, ...]]]
    labels: jt.Int[Tensor, "batch n rows columns"]
    tiles: Tensor
    cells: Tensor
    observed: jt.Bool[Tensor, "batch rows columns"]
    agreement: jt.Float[Tensor, "batch n"]

    def images(self) -> Tensor:
        """The pictures, completed, (batch, ..., height, width); what was seen is as it was.

        With several programs, the mean of what they draw: the guess whose squared error is expected
        to be least.
        """
        pictures = torch.arange(len(self.tiles))[:, None, None]
        drawn = sum(self.tiles[pictures, labels] for labels in self.labels.unbind(1))
        seen = self.observed.reshape(*self.observed.shape, *[1] * (self.cells.ndim - 3))
        grid = torch.where(seen, self.cells, drawn / self.labels.shape[1])
        return torch.stack([assemble(picture) for picture in grid])

    def only(self, pictures: Any = slice(None), programs: Any = slice(None)) -> Completion:
        """That of some pictures, by some of their programs: what chooses rows of a tensor."""
        rows = torch.arange(len(self.labels))[pictures].tolist()
        columns = torch.arange(self.labels.shape[1])[programs].tolist()
        return Completion(
            [[self.programs[row][column] for column in columns] for row in rows],
            self.labels[rows][:, columns],
            self.tiles[rows],
            self.cells[rows],
            self.observed[rows],
            self.agreement[rows][:, columns],
        )


class _Seen(NamedTuple):
    """What is seen of pictures.

    Attributes:
        classes: of each cell, (batch, cells): one of the picture's own, another, or hidden.
        entries: of each cell the nearest in the dictionary, (batch, cells), or hidden.
        program: that is synthesised from what is seen, (batch, columns).
    """

    classes: Tensor
    entries: Tensor
    program: Tensor


class StructureDiffusion(nn.Module):
    """A masked diffusion model over the programs that draw pictures.

    Args:
        rows: of cells in a picture, up to 40.
        columns: of cells in a picture, up to 40.
        classes: how many of a picture's own sub-images programs draw, the most frequent ones.
        entries: how many sub-images the dictionary has.
        loops: how many a program may have, that of the background among them.
        width: of the networks' features, a multiple of 4.
        layers: of each network.

    Attributes:
        dictionary: sub-images of all pictures, (entries, ..., h, w), most frequent first; empty
            before `fit`.
        diffusion: the distribution of programs, a `MaskedDiffusion`. `fit` makes it.

    Raises:
        DomainError: a number that is too small, or a grid of one cell.

    Example:
        >>> model = StructureDiffusion(rows=15, columns=15)
        >>> model.fit(images)  # (n, channels, 120, 120), any numbers
        >>> model.complete(others, observed).images()  # observed: (n, 15, 15)
        >>> model.sample(4).images()
    """

    dictionary: Tensor

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        classes: int = 8,
        entries: int = 64,
        loops: int = 8,
        width: int = 64,
        layers: int = 3,
    ) -> None:
        super().__init__()
        self.domain = Structure(rows, columns, classes + entries, loops)
        if rows * columns == 1:
            raise DomainError("a grid of one cell: give two cells at least, which could repeat")
        self.rows, self.columns, self.classes, self.entries = rows, columns, classes, entries
        self.loops = loops
        self.register_buffer("dictionary", torch.empty(0))
        cells = tuple(range(classes + entries))
        drawn = WorldProgram(("program",), (self.domain,), (cells,) * (rows * columns), self._draw)
        self.diffusion = MaskedDiffusion(
            UnmaskingModel(loops, self.domain.widths[:7], width, layers),
            program=drawn,
            encoder=Encoder(rows, columns, classes + 2, entries + 1, width, layers - 1),
            gamma_c=1.0,  # the programs are known: the concepts are learned by themselves
            gamma_y=0.0,
            gamma_h=0.0,
            beta=_BETA,
            candidates=_CANDIDATES,
            steps=_STEPS,
            inference="sampled",
        )

    # Training

    def fit(
        self,
        images: Any,
        *,
        hidden: jt.Bool[Tensor, "holes rows columns"] | None = None,
        epochs: int = 10,
        batch_size: int = 25,
        learning_rate: float = 2e-3,
        generator: torch.Generator | None = None,
        progress: bool | None = None,
    ) -> list[Epoch]:
        """Learn from whole pictures: their programs, their sub-images, and how to complete them.

        Each picture is an example ten times, with another hole each time; in one all is hidden.

        Args:
            images: (batch, ..., height, width), all seen.
            hidden: True where cells are hidden; holes are drawn from these. By default rectangles,
                see `holes`.
            epochs: passes through all examples.
            batch_size: examples a step.
            learning_rate: the highest; it rises at first, and falls to 0 in the end.
            generator: draws holes, sub-images to begin with, and the training; torch's global one
                initialises the networks and draws dropout.
            progress: as for `byssus.diffusion.train`.

        Raises:
            EmptyBatchError: no pictures.
            ShapeError: pictures that do not divide into cells, or holes of another grid.
            DomainError: no sub-image is in any picture twice.
        """
        cells = self._cells(images)
        if hidden is None:
            hidden = holes(64, self.rows, self.columns, generator)
        if tuple(hidden.shape[1:]) != (self.rows, self.columns) or not len(hidden):
            raise ShapeError(
                f"holes of shape {tuple(hidden.shape)}: give (holes, {self.rows}, {self.columns})"
            )
        found = [synthesize(picture, background=0, wrong=_WRONG) for picture in cells]
        repeated = []
        for synthesis in found:
            assert synthesis.cells is not None
            often = torch.bincount(synthesis.labels.flatten()) > 1
            repeated.append(synthesis.cells[often])
        self.dictionary = _means(torch.cat(repeated), self.entries, generator)

        seen, worlds = [], []
        for synthesis in found:
            entries = self._nearest(synthesis.cells)
            which = torch.randint(len(hidden), (_EXAMPLES - 1,), generator=generator)
            whole = torch.ones(1, self.rows, self.columns, dtype=torch.bool)
            for hole in torch.cat([hidden[which].cpu(), whole]):
                labels = synthesis.labels.masked_fill(hole, -1)
                one, own = self._seen(labels, entries)
                program = [
                    loop._replace(cell=self._cell(loop.cell, own, entries))
                    for loop in (self._background(0), *synthesis.program)
                ]
                seen.append(one)
                worlds.append(self._encode(program))
        x = tuple(torch.stack(part) for part in zip(*seen, strict=True))
        optimizer = torch.optim.AdamW(self.diffusion.parameters(), learning_rate, weight_decay=0.02)
        steps = epochs * -(-len(worlds) // batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
        hook = optimizer.register_step_post_hook(lambda *_: schedule.step())
        try:
            return train(
                self.diffusion,
                x,
                worlds=torch.stack(worlds),
                epochs=epochs,
                batch_size=batch_size,
                optimizer=optimizer,
                generator=generator,
                progress=progress,
            )
        finally:
            hook.remove()
            self.eval()

    # Use

    def complete(
        self,
        images: Any,
        observed: jt.Bool[Tensor, "batch rows columns"],
        n: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> Completion:
        """Pictures with their hidden cells drawn by programs from the posterior.

        Args:
            images: (batch, ..., height, width); what hidden cells hold does not matter.
            observed: which cells are seen.
            n: programs for each picture.
            generator: what is drawn is drawn from it.

        Raises:
            ByssusError: before `fit`.
            ShapeError: pictures that do not divide into cells as those of `fit`, or do not fit
                `observed`.
        """
        cells = self._cells(images)
        shape = (len(cells), self.rows, self.columns)
        if not isinstance(observed, Tensor) or tuple(observed.shape) != shape:
            found = tuple(observed.shape) if isinstance(observed, Tensor) else repr(observed)
            raise ShapeError(f"observed of shape {found}: give Booleans of shape {shape}")
        if observed.dtype != torch.bool:
            raise ShapeError(f"observed of {observed.dtype}: give Booleans of shape {shape}")
        if not len(self.dictionary):
            raise ByssusError("nothing has been learned yet: call fit(images) first")
        if cells.shape[3:] != self.dictionary.shape[1:]:
            raise ShapeError(
                f"cells of shape {tuple(cells.shape[3:])}, and the model has learned from cells of "
                f"shape {tuple(self.dictionary.shape[1:])}: resize the pictures"
            )
        parts = zip(
            torch.split(cells, _PICTURES), torch.split(observed.cpu(), _PICTURES), strict=True
        )
        done = [self._complete(*part, n, generator) for part in parts]
        return Completion(
            [programs for part in done for programs in part.programs],
            *(
                torch.cat([getattr(part, name) for part in done])
                for name in ("labels", "tiles", "cells", "observed", "agreement")
            ),
        )

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Completion:
        """New pictures, each drawn by a program of its own.

        Raises:
            ByssusError: before `fit`.
        """
        height, width = self.dictionary.shape[-2:] if len(self.dictionary) else (1, 1)
        channels = self.dictionary.shape[1:-2]
        images = self.dictionary.new_zeros(n, *channels, self.rows * height, self.columns * width)
        unseen = torch.zeros(n, self.rows, self.columns, dtype=torch.bool)
        return self.complete(images, unseen, generator=generator)

    def _complete(
        self, cells: Tensor, observed: Tensor, n: int, generator: torch.Generator | None
    ) -> Completion:
        seen = []
        tiles = self.dictionary.new_zeros(
            len(cells), self.classes + len(self.dictionary), *self.dictionary.shape[1:]
        )
        tiles[:, self.classes :] = self.dictionary
        for own, picture, mask in zip(tiles, cells, observed, strict=True):
            found = synthesize(picture, observed=mask, background=0, wrong=_WRONG)
            assert found.cells is not None
            first = found.cells[: self.classes]
            own[: len(first)] = first
            seen.append(self._seen(found.labels, self._nearest(found.cells))[0])
        x = _Seen(*(torch.stack(part) for part in zip(*seen, strict=True)))
        known = x.classes < self.classes
        device = next(self.diffusion.parameters()).device
        given = tuple(part.to(device) for part in x)
        if bool(known.any()):
            label = x.classes.where(known, 0).to(device)
            worlds = self.diffusion.posterior_sample(
                given, label, n, observed=known.to(device), generator=generator
            )
        else:
            worlds = self.diffusion.sample(given, n, generator=generator)
        worlds = worlds.cpu()
        drawn = self._draw(worlds.flatten(0, 1)).reshape(len(cells), n, -1)
        right = ((drawn == x.classes[:, None]) & known[:, None]).sum(2)
        agreement = torch.where(
            known.any(1, keepdim=True), right / known.sum(1, keepdim=True).clamp_min(1), 1.0
        )
        # Where a program draws nothing, the most frequent sub-image is.
        usual = torch.where(known.any(1), 0, self.classes)[:, None, None]
        labels = torch.where(drawn < 0, usual, drawn)
        return Completion(
            [[self._decode(world) for world in few] for few in worlds.tolist()],
            labels.reshape(len(cells), n, self.rows, self.columns),
            tiles,
            cells,
            observed,
            agreement,
        )

    # Pictures, cells and programs

    def _cells(self, images: Any) -> Tensor:
        pictures = torch.as_tensor(images).float()
        if pictures.ndim < 3:
            raise ShapeError(
                f"images of shape {tuple(pictures.shape)}: give (batch, ..., height, width)"
            )
        if not len(pictures):
            raise EmptyBatchError("there are no images: give one at least")
        return torch.stack([cut(one, self.rows, self.columns) for one in pictures.cpu()])

    def _nearest(self, cells: Tensor | None) -> Tensor:
        """The dictionary's entry that each sub-image is most like."""
        assert cells is not None
        away = torch.cdist(cells.to(self.dictionary).flatten(1), self.dictionary.flatten(1))
        return away.argmin(1).cpu()

    def _seen(self, labels: Tensor, entries: Tensor) -> tuple[_Seen, dict[int, int]]:
        """What is seen, and the number of each class among the picture's own.

        Args:
            labels: the class of each cell, (rows, columns), -1 where it is hidden.
            entries: of each class in the dictionary.
        """
        counts = torch.bincount(labels[labels >= 0])
        frequent = counts.argsort(descending=True, stable=True)
        order = frequent[: int((counts > 0).sum())].tolist()
        own = {label: number for number, label in enumerate(order[: self.classes])}
        classes = torch.full_like(labels, self.classes + 1)
        nearest = torch.full_like(labels, self.entries)
        for label in order:
            at = labels == label
            classes[at] = own.get(label, self.classes)
            nearest[at] = entries[label]
        program = []
        if order:
            found = synthesize(labels, background=order[0], wrong=_WRONG).program
            program = [self._background(0)]
            program += [loop._replace(cell=own[loop.cell]) for loop in found if loop.cell in own]
        return _Seen(classes.flatten(), nearest.flatten(), self._encode(program)), own

    def _cell(self, label: int, own: dict[int, int], entries: Tensor) -> int:
        """What a loop draws: a sub-image of the picture's own, or else of the dictionary."""
        return own[label] if label in own else self.classes + int(entries[label])

    def _background(self, cell: int) -> Loop:
        return Loop(0, self.rows, 1, 0, self.columns, 1, cell)

    def _encode(self, program: Sequence[Loop]) -> jt.Int[Tensor, " columns"]:
        """A program as a world: its loops in order, then such as draw nothing."""
        loops = canonical(program)
        # One order for all programs that differ in nothing else.
        ordered = sorted(loops, key=lambda loop: (loop.cell, loop.top, loop.left))
        if equivalent(ordered, loops):
            loops = tuple(ordered)
        none = Loop(self.rows - 1, 1, 1, self.columns - 1, 1, 1, 0)
        filled = (*loops[: self.loops], *[none] * (self.loops - len(loops)))
        return torch.tensor(self.domain.encode(filled))

    def _decode(self, world: Sequence[int]) -> tuple[Loop, ...]:
        return canonical(self.domain.decode(world))

    def _draw(self, worlds: jt.Int[Tensor, "worlds columns"]) -> jt.Int[Tensor, "worlds cells"]:
        """What programs draw, -1 where they draw nothing; all worlds at once."""
        rows = torch.arange(self.rows, device=worlds.device)
        columns = torch.arange(self.columns, device=worlds.device)
        drawn = worlds.new_full((len(worlds), self.rows, self.columns), -1)
        for loop in worlds.reshape(len(worlds), self.loops, 7).unbind(1):
            # Positions: bounds and steps are counted from 1.
            top, bottom, down, left, right, across, cell = loop[:, :, None].unbind(1)
            down_to = (rows >= top) & (rows <= bottom) & ((rows - top) % (down + 1) == 0)
            along = (columns >= left) & (columns <= right) & ((columns - left) % (across + 1) == 0)
            drawn = torch.where(down_to[:, :, None] & along[:, None], cell[:, :, None], drawn)
        return drawn.flatten(1)


def holes(
    count: int, rows: int, columns: int, generator: torch.Generator | None = None
) -> jt.Bool[Tensor, "count rows columns"]:
    """Rectangles to hide, of a sixth to a half of all cells, anywhere.

    Returns:
        True where a cell is hidden.
    """
    hidden = torch.zeros(count, rows, columns, dtype=torch.bool)
    for hole in hidden:
        area, shape, down, along = torch.rand(4, generator=generator).tolist()
        share = 1 / 6 + area / 3
        height = min(rows, max(1, round(rows * share**shape)))
        width = min(columns, max(1, round(rows * columns * share / height)))
        top, left = int(down * (rows - height + 1)), int(along * (columns - width + 1))
        hole[top : top + height, left : left + width] = True
    return hidden


def _means(cells: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Means of so many groups of like cells (Lloyd's algorithm), those of the largest groups first.

    Where there are fewer cells, the first stands for what is missing.

    Raises:
        DomainError: there are none.
    """
    if not len(cells):
        raise DomainError(
            "no sub-image is in any picture twice: nothing repeats, or cells are cut wrongly"
        )
    values = cells.flatten(1)
    start = torch.randperm(len(values), generator=generator)[:count]
    means = values[start].clone()
    for _ in range(20):
        group = torch.cdist(values, means).argmin(1)
        number = torch.bincount(group, minlength=len(means))
        sums = torch.zeros_like(means).index_add_(0, group, values)
        means = torch.where(number[:, None] > 0, sums / number[:, None].clamp_min(1), means)
    order = torch.bincount(group, minlength=len(means)).argsort(descending=True, stable=True)
    order = torch.cat([order, order[:1].expand(count - len(order))])
    return means[order].reshape(-1, *cells.shape[1:])
