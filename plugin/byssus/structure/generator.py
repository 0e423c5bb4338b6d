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

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jaxtyping as jt
import torch
from torch import Tensor, nn

from byssus.diffusion import Epoch, MaskedDiffusion, WorldProgram, train
from byssus.errors import ByssusError, DomainError, EmptyBatchError, ShapeError
from byssus.structure._networks import HEADS, Encoder, UnmaskingModel
from byssus.structure.loops import Loop, Structure, canonical, equivalent
from byssus.structure.synthesis import MOST, Synthesis, assemble, cut, synthesize
from byssus.worlds import check_sampling

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
            ..., h, w): its own, from the most frequent one on, zeros where it has fewer, then those
            of the dictionary.
        cells: the pictures' cells, float32, (batch, rows, columns, ..., h, w).
        observed: which of them were seen, (batch, rows, columns).
        agreement: of the seen cells that show one of these sub-images of the picture's own, the
            share that each program draws as they are, (batch, n); 1 where nothing was seen.
    """

    programs: list[list[tuple[Loop, ...]]]
    labels: jt.Int[Tensor, "batch n rows columns"]
    tiles: Tensor
    cells: Tensor
    observed: jt.Bool[Tensor, "batch rows columns"]
    agreement: jt.Float[Tensor, "batch n"]

    def images(self) -> Tensor:
        """The pictures, completed, (batch, ..., height, width), float32; what was seen is kept.

        With several programs, the mean of what they draw: the guess whose squared error is expected
        to be least.
        """
        pictures = torch.arange(len(self.tiles))[:, None, None]
        drawn = sum(self.tiles[pictures, labels] for labels in self.labels.unbind(1))
        seen = self.observed.reshape(*self.observed.shape, *[1] * (self.cells.ndim - 3))
        grid = torch.where(seen, self.cells, drawn / self.labels.shape[1])
        return assemble(grid.movedim(0, 2))

    def only(self, pictures: Any = slice(None), programs: Any = slice(None)) -> Completion:
        """That of some pictures, by some of their programs: what chooses rows of a tensor.

        One number chooses a batch of one.
        """
        rows = torch.arange(len(self.labels))[pictures].reshape(-1).tolist()
        columns = torch.arange(self.labels.shape[1])[programs].reshape(-1).tolist()
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
        program: that is synthesised from what is seen, its loops run on, (batch, columns).
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
        loops: how many a program may have, that of the background among them; of pictures with
            more, the last are not learned.
        width: of the networks' features, a multiple of 4.
        layers: of the network that proposes loops, 2 or more; that which reads pictures has one
            less.

    Attributes:
        dictionary: sub-images of all pictures, (entries, ..., h, w), most frequent first; empty
            before `fit`.
        diffusion: the distribution of programs, a `MaskedDiffusion`; `fit` trains it.

    Raises:
        DomainError: a number that is out of its range, or a grid of one cell.

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
        numbers = {"rows": rows, "columns": columns, "classes": classes, "entries": entries}
        for name, value in {**numbers, "loops": loops, "width": width}.items():
            _whole(name, value, 1)
        _whole("layers", layers, 2)
        if max(rows, columns) > MOST:
            raise DomainError(
                f"a grid of {rows} by {columns} cells: give at most {MOST} in a row or column, "
                "such as larger cells"
            )
        if width % HEADS:
            raise DomainError(f"width={width}: give a multiple of {HEADS}")
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
            encoder=Encoder(rows, columns, classes, entries, width, layers - 1),
            gamma_c=1.0,  # the programs are known: the concepts are learned by themselves
            gamma_y=0.0,
            gamma_h=0.0,
            beta=_BETA,
            candidates=_CANDIDATES,
            steps=_STEPS,
            inference="sampled",
        )
        self.eval()  # nothing is dropped out but in `fit`, also if parameters are loaded instead

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
            generator: of the CPU; draws holes, sub-images to begin with, and the training; torch's
                global one initialises the networks and draws dropout.
            progress: as for `byssus.diffusion.train`.

        Returns:
            The epochs of the training.

        Raises:
            EmptyBatchError: no pictures.
            ShapeError: pictures that do not divide into cells, or holes of another grid.
            DomainError: no sub-image is in any picture twice, a pixel is not finite, or another
                argument is out of its range.
        """
        _whole("epochs", epochs, 1)
        _whole("batch_size", batch_size, 1)
        if not isinstance(learning_rate, int | float) or not 0 < learning_rate < math.inf:
            raise DomainError(f"learning_rate={learning_rate!r}: give a number above 0")
        check_sampling(1, generator)
        cells = self._cells(images)
        _check_finite(cells)
        if hidden is None:
            hidden = holes(64, self.rows, self.columns, generator)
        hidden = _booleans("hidden", hidden, ("holes", self.rows, self.columns))
        if not len(hidden):
            raise ShapeError("hidden has no holes: give one at least, or leave it out")
        pictures = _shown(cells, "programs", progress)
        found = [synthesize(picture, background=0, wrong=_WRONG) for picture in pictures]
        repeated = []
        for synthesis in found:
            assert synthesis.cells is not None
            often = torch.bincount(synthesis.labels.flatten()) > 1
            repeated.append(synthesis.cells[often])
        self.dictionary = _means(torch.cat(repeated), self.entries, generator)

        seen, worlds = [], []
        for synthesis in _shown(found, "holes", progress):
            entries = self._nearest(synthesis.cells)
            which = torch.randint(len(hidden), (_EXAMPLES - 1,), generator=generator)
            whole = torch.ones(1, self.rows, self.columns, dtype=torch.bool)
            for hole in torch.cat([hidden[which], whole]):
                labels = synthesis.labels.masked_fill(hole, -1)
                usual = next(iter(_by_frequency(labels)), None)
                rest = synthesize(labels, background=usual, wrong=_WRONG)
                one, own = self._seen(rest, entries)
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
            EmptyBatchError: no pictures.
            ShapeError: pictures that do not divide into cells as those of `fit`, or do not fit
                `observed`.
            DomainError: a pixel that is seen is not finite, or n is below 1.
        """
        _whole("n", n, 1)
        check_sampling(1, generator)
        cells = self._cells(images)
        observed = _booleans("observed", observed, (len(cells), self.rows, self.columns))
        _check_finite(cells, observed)
        if not len(self.dictionary):
            raise ByssusError("nothing has been learned yet: call fit(images) first")
        if cells.shape[3:] != self.dictionary.shape[1:]:
            raise ShapeError(
                f"cells of shape {tuple(cells.shape[3:])}, and the model has learned from cells of "
                f"shape {tuple(self.dictionary.shape[1:])}: resize the pictures"
            )
        parts = zip(torch.split(cells, _PICTURES), torch.split(observed, _PICTURES), strict=True)
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
            DomainError: n is below 1.
        """
        _whole("n", n, 1)
        height, width = self.dictionary.shape[-2:] if len(self.dictionary) else (1, 1)
        channels = self.dictionary.shape[1:-2]
        images = self.dictionary.new_zeros(n, *channels, self.rows * height, self.columns * width)
        unseen = torch.zeros(n, self.rows, self.columns, dtype=torch.bool)
        return self.complete(images, unseen, generator=generator)

    def _complete(
        self, cells: Tensor, observed: Tensor, n: int, generator: torch.Generator | None
    ) -> Completion:
        seen = []
        dictionary = self.dictionary.cpu()
        tiles = dictionary.new_zeros(
            len(cells), self.classes + len(dictionary), *dictionary.shape[1:]
        )
        tiles[:, self.classes :] = dictionary
        for own, picture, mask in zip(tiles, cells, observed, strict=True):
            found = synthesize(picture, observed=mask, background=0, wrong=_WRONG)
            assert found.cells is not None
            first = found.cells[: self.classes]
            own[: len(first)] = first
            seen.append(self._seen(found, self._nearest(found.cells))[0])
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
            # With nothing to check loops against, one number after the other.
            steps = len(self.domain.widths)
            worlds = self.diffusion.sample(given, n, steps=steps, generator=generator)
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

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        # The dictionary has the shape of the cells that `fit` was given.
        saved = state_dict.get(f"{prefix}dictionary")
        if saved is not None:
            self.dictionary = self.dictionary.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _cells(self, images: Any) -> Tensor:
        try:
            pictures = torch.as_tensor(images).float()
        except (TypeError, ValueError) as error:
            raise ShapeError(
                f"the images are no tensor: {error}; give one, (batch, ..., height, width), or an "
                "array"
            ) from None
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

    def _seen(self, found: Synthesis, entries: Tensor) -> tuple[_Seen, dict[int, int]]:
        """What is seen, and the number of each class among the picture's own.

        Args:
            found: from what is seen, the most frequent class being the background.
            entries: of each class in the dictionary.
        """
        order = _by_frequency(found.labels)
        own = {label: number for number, label in enumerate(order[: self.classes])}
        classes = torch.full_like(found.labels, self.classes + 1)
        nearest = torch.full_like(found.labels, self.entries)
        for label in order:
            at = found.labels == label
            classes[at] = own.get(label, self.classes)
            nearest[at] = entries[label]
        program = [self._background(0)] if order else []
        program += [
            loop._replace(cell=own[loop.cell]) for loop in found.extended() if loop.cell in own
        ]
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
        # Of the dictionary, as there may be no other sub-image.
        none = Loop(self.rows - 1, 1, 1, self.columns - 1, 1, 1, self.classes)
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
    """Rectangles to hide, of about a sixth to a half of all cells, anywhere.

    Returns:
        True where a cell is hidden.

    Raises:
        DomainError: no rows or columns, or fewer than no holes.
    """
    for name, value, least in (("count", count, 0), ("rows", rows, 1), ("columns", columns, 1)):
        _whole(name, value, least)
    hidden = torch.zeros(count, rows, columns, dtype=torch.bool)
    for hole in hidden:
        size, shape, down, along = torch.rand(4, generator=generator).tolist()
        share = 1 / 6 + size / 3
        area = rows * columns * share
        # Where there are few columns, one of full height is too much.
        height = min(rows, max(1, round(min(rows * share**shape, area))))
        width = min(columns, max(1, round(area / height)))
        top, left = int(down * (rows - height + 1)), int(along * (columns - width + 1))
        hole[top : top + height, left : left + width] = True
    return hidden


def _by_frequency(labels: Tensor) -> list[int]:
    """The classes of a grid, the most frequent one first; not -1, which is hidden."""
    counts = torch.bincount(labels[labels >= 0])
    frequent = counts.argsort(descending=True, stable=True)
    return [int(label) for label in frequent[: int((counts > 0).sum())]]


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


def _whole(name: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:
        raise DomainError(f"{name}={value!r}: give an integer, {least} or more")


def _booleans(name: str, given: Any, shape: tuple[int | str, ...]) -> Tensor:
    """What is given, if it is a Boolean tensor of a shape, of which the first may be any."""
    found = f"a {type(given).__name__}"
    if isinstance(given, Tensor):
        fits = given.ndim == len(shape) and tuple(given.shape[1:]) == shape[1:]
        if fits and shape[0] in (len(given), "holes") and given.dtype == torch.bool:
            return given.cpu()
        found = f"{given.dtype} of shape {tuple(given.shape)}"
    wanted = ", ".join(map(str, shape))
    raise ShapeError(f"{name} is {found}: give a Boolean tensor of shape ({wanted})")


def _check_finite(cells: Tensor, observed: Tensor | None = None) -> None:
    wrong = ~cells.isfinite().flatten(3).all(3)
    if observed is not None:
        wrong &= observed
    if bool(wrong.any()):
        picture, row, column = wrong.nonzero()[0].tolist()
        raise DomainError(
            f"picture {picture} is not finite in the cell at row {row}, column {column}: mend it, "
            "or leave it out"
        )


def _shown(items: Any, what: str, progress: bool | None) -> Iterable[Any]:
    """Items, with a bar as that of `byssus.diffusion.train`."""
    from tqdm import tqdm

    disable, delay = (None, 2) if progress is None else (not progress, 0)
    shown: Iterable[Any] = tqdm(items, what, unit=" pictures", disable=disable, delay=delay)
    return shown
