from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from byssus import ByssusError, DomainError, EmptyBatchError, ShapeError
from byssus.structure import (
    Completion,
    Loop,
    StructureDiffusion,
    assemble,
    canonical,
    cut,
    equivalent,
    holes,
    render,
    synthesize,
)
from structure.programs import random_program

SIDE = 6
CLASSES = 3
SHAPES = [(6, 6), (4, 7), (1, 5), (5, 1), (1, 2), (2, 1)]
TILES = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(5))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patterns(
    count: int, seed: int = 0, tiles: Tensor = TILES, shape: tuple[int, int] = (SIDE, SIDE)
) -> tuple[Tensor, Tensor]:
    """Pictures of a wall with windows in even steps; and what is in each cell."""
    generator = seeded(seed)
    labels = torch.zeros(count, *shape, dtype=torch.int64)
    for grid in labels:
        down, across = torch.randint(2, 4, (2,), generator=generator).tolist()
        kind = int(torch.randint(1, 3, (1,), generator=generator))
        grid[shape[0] > 1 :: down, ::across] = kind
    images = torch.stack([assemble(tiles[grid]) for grid in labels])
    return images + 0.02 * torch.randn(images.shape, generator=generator), labels


def kinds(images: Tensor) -> Tensor:
    """Which of the tiles each cell is most like, (pictures, rows, columns)."""
    grids = torch.stack([cut(image, SIDE, SIDE) for image in images]).flatten(3)
    return torch.cdist(grids.flatten(0, 2), TILES.flatten(1)).argmin(1).reshape(-1, SIDE, SIDE)


def wide(mask: Tensor, tile: tuple[int, int] = (2, 2)) -> Tensor:
    """A mask of cells as one of pixels."""
    return mask.repeat_interleave(tile[0], 1).repeat_interleave(tile[1], 2)


@cache
def small(
    rows: int = SIDE, columns: int = SIDE, loops: int = 3, seed: int = 0
) -> StructureDiffusion:
    """A model that has learned nothing yet."""
    torch.manual_seed(seed)
    return StructureDiffusion(
        rows, columns, classes=CLASSES, entries=4, loops=loops, width=8, layers=2
    )


@cache
def learned() -> tuple[StructureDiffusion, list[float]]:
    """A model that has learned patterns, and its losses."""
    torch.manual_seed(0)
    model = StructureDiffusion(SIDE, SIDE, classes=CLASSES, entries=4, loops=2, width=48, layers=2)
    generator = seeded()
    # What is seen of nothing takes longest to learn.
    nothing = torch.ones(16, SIDE, SIDE, dtype=torch.bool)
    hidden = torch.cat([holes(48, SIDE, SIDE, generator), nothing])
    options: dict[str, Any] = {"epochs": 12, "batch_size": 20, "progress": False}
    found = model.fit(patterns(60)[0], hidden=hidden, generator=generator, **options)
    return model, [epoch.loss for epoch in found]


@pytest.fixture
def model() -> StructureDiffusion:
    return learned()[0]


def held_out(count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures that nothing was learned from, what is in their cells, and what is seen."""
    return *patterns(count, seed=1), ~holes(count, SIDE, SIDE, seeded(2))


def same(one: Completion, other: Completion) -> bool:
    tensors = ("labels", "tiles", "observed", "agreement")
    return one.programs == other.programs and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in tensors
    )


# Programs as worlds


@given(st.sampled_from(SHAPES), st.data())
def test_worlds_are_drawn_as_their_programs(shape: tuple[int, int], data: st.DataObject) -> None:
    model = small(*shape)
    world = st.tuples(*(st.integers(0, width - 1) for width in model.domain.widths))
    worlds = data.draw(st.lists(world, min_size=1, max_size=4))
    rows, columns = shape
    for drawn, each in zip(model._draw(torch.tensor(worlds)), worlds, strict=True):
        for program in (model.domain.decode(each), model._decode(each)):
            assert torch.equal(drawn.reshape(shape), render(program, rows=rows, columns=columns))
        # And back.
        again = model._encode(model.domain.decode(each))
        assert model.domain.decode(again.tolist()) in model.domain
        assert equivalent(model._decode(again.tolist()), model.domain.decode(each))


def test_the_order_of_loops_that_do_not_overlap_is_one() -> None:
    rng = np.random.default_rng(0)
    model = small(15, 15, 6)
    for _ in range(30):
        program, grid = random_program(rng, 4, 3)
        shuffled = [program[i] for i in rng.permutation(4)]
        world = model._encode(program)
        assert torch.equal(world, model._encode(shuffled))
        assert torch.equal(model._draw(world[None]).reshape(15, 15), torch.from_numpy(grid))


def test_loops_beyond_the_last_are_left_out() -> None:
    model = small(loops=2)
    program = [Loop(row, row + 1, 1, 0, 6, 1, row) for row in range(4)]
    assert model._decode(model._encode(program).tolist()) == tuple(program[:2])
    assert model._decode(model._encode([]).tolist()) == ()
    one_by_one = small(1, 2)
    assert one_by_one._decode(one_by_one._encode([]).tolist()) == ()


# What is learned


def test_held_out_pictures_are_completed(model: StructureDiffusion) -> None:
    """The rest is known from what is seen; walls alone are right in 83 % of the cells."""
    images, labels, mask = held_out(100)
    found = model.complete(images, mask, generator=seeded())
    assert found.agreement.mean() > 0.99
    completed = found.images()
    right = kinds(completed) == labels
    assert torch.equal(kinds(images), labels)
    assert right[~mask].float().mean() > 0.94 > (labels == 0)[~mask].float().mean() + 0.1
    assert right[~mask & (labels > 0)].float().mean() > 0.8
    hidden = ~wide(mask)
    wall = render([Loop(0, SIDE, 1, 0, SIDE, 1, 0)], TILES, rows=SIDE, columns=SIDE)
    errors = [(guess - images)[hidden].square().mean() for guess in (completed, wall)]
    assert errors[0] < 0.3 * errors[1]
    losses = learned()[1]
    assert len(losses) == 12
    assert losses[-1] < 0.5 * losses[0]


def test_made_pictures_are_drawn_by_whole_programs(model: StructureDiffusion) -> None:
    made = model.sample(100, generator=seeded())
    assert made.images().shape == (100, 12, 12)
    assert (made.agreement == 1).all()
    assert not made.observed.any()
    programs = [program for (program,) in made.programs]
    behind = [program[:1] and program[0][:6] == (0, SIDE, 1, 0, SIDE, 1) for program in programs]
    assert sum(map(bool, behind)) > 80
    repeating = [all(len(loop.rows) * len(loop.columns) > 1 for loop in p) for p in programs]
    assert sum(repeating) > 90
    assert len({program[1:] for program in programs}) > 5


def test_all_or_nothing_is_seen(model: StructureDiffusion) -> None:
    """In one batch with pictures that are seen in part, and in batches of their own."""
    images, _, mask = held_out(9)
    mask[:3], mask[3:6] = True, False
    for rows in (slice(None), slice(3), slice(3, 6)):
        found = model.complete(images[rows], mask[rows], 2, generator=seeded())
        completed = found.images()
        seen = mask[rows].flatten(1)
        assert torch.equal(completed[seen.all(1)], images[rows][seen.all(1)])
        assert (found.agreement[~seen.any(1)] == 1).all()
        assert (found.labels[~seen.any(1)] >= 0).all()
        assert not found.tiles[~seen.any(1), :CLASSES].any()


# Completions


def irregular(images: Tensor) -> Tensor:
    """Some cells are like no other, so that there are more classes than programs draw."""
    spoiled = images.clone()
    spoiled[:, :2, 4:6], spoiled[:, 6:8, :2], spoiled[:, 2:4, 2:4] = 3.0, -2.0, 5.0
    spoiled[:, 10:12, 8:10] = 8.0
    return spoiled


@pytest.mark.parametrize("n", [1, 3])
def test_what_a_completion_says_holds(model: StructureDiffusion, n: int) -> None:
    images, _, mask = held_out(12)
    images = irregular(images)
    mask[0], mask[1] = False, True
    found = model.complete(images, mask, n, generator=seeded())
    completed = found.images()
    assert torch.equal(found.observed, mask)
    assert torch.equal(found.tiles[:, CLASSES:], model.dictionary.expand(12, -1, -1, -1))
    for i, image in enumerate(images):
        cells = cut(image, SIDE, SIDE)
        assert torch.equal(found.cells[i], cells)
        classes = synthesize(cells, observed=mask[i], background=0, wrong=1.5)
        assert classes.cells is not None
        own = classes.cells[:CLASSES]
        assert torch.equal(found.tiles[i, : len(own)], own)
        assert not found.tiles[i, len(own) : CLASSES].any()
        usual = 0 if len(own) else CLASSES
        whole = []
        for k, program in enumerate(found.programs[i]):
            assert program == canonical(program)
            drawn = render(program, rows=SIDE, columns=SIDE)
            known = (classes.labels >= 0) & (classes.labels < CLASSES)
            share = (drawn == classes.labels)[known].float().mean() if known.any() else 1.0
            assert found.agreement[i, k] == pytest.approx(float(share))
            labels = torch.where(drawn < 0, usual, drawn)
            assert torch.equal(found.labels[i, k], labels)
            whole.append(assemble(found.tiles[i][labels]))
        seen = wide(mask[i : i + 1])[0]
        expected = torch.where(seen, image, torch.stack(whole).mean(0))
        torch.testing.assert_close(completed[i], expected)
        assert torch.equal(completed[i][seen], image[seen])


def test_several_programs_are_the_mean_of_each(model: StructureDiffusion) -> None:
    images, _, mask = held_out()
    found = model.complete(images, mask, 4, generator=seeded())
    each = [found.only(programs=i).images() for i in range(4)]
    torch.testing.assert_close(found.images(), torch.stack(each).mean(0))
    assert not torch.equal(each[0], each[1])


def test_some_of_a_completion(model: StructureDiffusion) -> None:
    images, _, mask = held_out(6)
    found = model.complete(images, mask, 3, generator=seeded())
    assert same(found.only(), found)
    rows = torch.tensor([4, 1])
    some = found.only(rows, [2, 0])
    assert some.programs == [[found.programs[i][k] for k in (2, 0)] for i in (4, 1)]
    assert torch.equal(some.labels, found.labels[[4, 1]][:, [2, 0]])
    assert torch.equal(some.agreement, found.agreement[[4, 1]][:, [2, 0]])
    whole = found.only(programs=[2, 0]).images()
    assert torch.equal(some.images(), whole[rows])
    assert same(found.only(5), found.only(slice(5, 6)))
    assert same(found.only(-1, 1), found.only([False] * 5 + [True], slice(1, 2)))
    assert found.only([]).images().shape == (0, 12, 12)


@pytest.mark.parametrize("hidden", [torch.nan, torch.inf, -1e9])
def test_what_is_hidden_does_not_matter(model: StructureDiffusion, hidden: float) -> None:
    images, _, mask = held_out(10)
    usual = model.complete(images, mask, 2, generator=seeded())
    found = model.complete(images.masked_fill(~wide(mask), hidden), mask, 2, generator=seeded())
    assert same(found, usual)
    assert torch.equal(found.images(), usual.images())


def test_many_pictures_are_done_in_parts(model: StructureDiffusion) -> None:
    images, _, mask = held_out(103)
    found = model.complete(images, mask, generator=seeded())
    generator = seeded()
    first = model.complete(images[:100], mask[:100], generator=generator)
    last = model.complete(images[100:], mask[100:], generator=generator)
    assert found.programs == first.programs + last.programs
    assert torch.equal(found.images(), torch.cat([first.images(), last.images()]))
    assert torch.equal(found.agreement, torch.cat([first.agreement, last.agreement]))


# Seeds, parameters, devices


def quick(images: Tensor, seed: int = 0, **options: Any) -> StructureDiffusion:
    torch.manual_seed(seed)
    shape = options.pop("shape", (SIDE, SIDE))
    model = StructureDiffusion(*shape, classes=2, entries=3, loops=2, width=8, layers=2)
    model.fit(images, epochs=1, generator=seeded(seed), progress=False, **options)
    return model


def test_a_seed_gives_the_same() -> None:
    images, _, mask = held_out(8)
    found = []
    for seed in (0, 0, 1):
        model = quick(patterns(6)[0], seed)
        generator = seeded(seed)
        drawn = model.complete(images, mask, 2, generator=generator)
        found.append((model.state_dict(), drawn, model.sample(3, generator=generator)))
    (state, drawn, made), (state_2, drawn_2, made_2), (state_3, drawn_3, _) = found
    assert all(torch.equal(state[name], state_2[name]) for name in state)
    assert same(drawn, drawn_2)
    assert same(made, made_2)
    assert not all(torch.equal(state[name], state_3[name]) for name in state)
    assert not same(drawn, drawn_3)


def copies(model: StructureDiffusion) -> Iterator[StructureDiffusion]:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other_cells = torch.rand(3, 2, 3, 3, generator=seeded(3))
    for fitted in (False, True):
        fresh = StructureDiffusion(
            SIDE, SIDE, classes=CLASSES, entries=4, loops=2, width=48, layers=2
        )
        if fitted:
            images, _ = patterns(3, tiles=other_cells)
            fresh.fit(images, epochs=1, progress=False)
        fresh.load_state_dict(torch.load(file, weights_only=True))
        file.seek(0)
        yield fresh
    yield copy.deepcopy(model)
    yield pickle.loads(pickle.dumps(model))


def test_models_travel(model: StructureDiffusion) -> None:
    """What is learned is all that there is; nothing is dropped out where it is loaded."""
    images, _, mask = held_out(5)
    usual = model.complete(images, mask, 2, generator=seeded())
    for other in copies(model):
        assert not other.training
        assert torch.equal(other.dictionary, model.dictionary)
        found = other.complete(images, mask, 2, generator=seeded())
        assert same(found, usual)
    narrow = StructureDiffusion(SIDE, SIDE, classes=CLASSES, entries=4, loops=2, width=8)
    with pytest.raises(RuntimeError, match="size mismatch"):
        narrow.load_state_dict(model.state_dict())


def test_training_ends() -> None:
    model = quick(patterns(3)[0])
    assert not any(module.training for module in model.modules())
    model.train()
    model.fit(patterns(3)[0], epochs=1, progress=False)
    assert not any(module.training for module in model.modules())
    # Pictures of other cells may come next.
    images, _ = patterns(3, tiles=torch.rand(3, 4, 3, 1))
    model.fit(images, epochs=1, progress=False)
    assert model.sample(2).images().shape == (2, 4, 18, 6)


def test_devices(model: StructureDiffusion, device: torch.device) -> None:
    images, _, mask = held_out(10)
    there = copy.deepcopy(model).to(device)
    found = there.complete(images.to(device), mask.to(device), 2, generator=seeded())
    assert {found.tiles.device.type, found.labels.device.type} == {"cpu"}
    completed = found.images()
    assert torch.equal(completed[wide(mask)], images[wide(mask)])
    assert found.agreement.mean() > 0.9
    assert there.sample(2, generator=seeded()).images().shape == (2, 12, 12)
    hidden = holes(4, SIDE, SIDE, seeded()).to(device)
    there.fit(patterns(3)[0].to(device), hidden=hidden, epochs=1, progress=False)
    assert there.complete(images, mask, generator=seeded()).images().isfinite().all()


# Shapes and types


@pytest.mark.parametrize("tile", [(1, 1), (3, 2), (3, 2, 2), (2, 3, 1, 2)])
@pytest.mark.parametrize("shape", [(4, 7), (1, 6), (6, 1), (2, 1)])
def test_shapes(shape: tuple[int, int], tile: tuple[int, ...]) -> None:
    *channels, height, width = tile
    tiles = torch.rand(3, *tile, generator=seeded(4))
    images, _ = patterns(4, 3, tiles, shape)
    if shape == (2, 1):
        images = images[:, ..., :height, :].repeat(*[1] * (images.ndim - 2), 2, 1)
    model = quick(images, shape=shape)
    assert model.dictionary.shape == (3, *tile)
    mask = ~holes(4, *shape, seeded())
    found = model.complete(images, mask, 2, generator=seeded())
    size = (*channels, shape[0] * height, shape[1] * width)
    assert images.shape == found.images().shape == (4, *size)
    assert model.sample(3).images().shape == (3, *size)
    assert found.labels.shape == (4, 2, *shape)
    assert found.tiles.shape == (4, 2 + 3, *tile)
    seen = wide(mask, (height, width)).reshape(4, *[1] * len(channels), *size[-2:])
    seen = seen.expand_as(images)
    assert torch.equal(found.images()[seen], images[seen])


def test_pictures_of_integers_and_arrays() -> None:
    images, _, mask = held_out(6)
    whole = (100 * images + 50).round().clamp(0, 255).to(torch.uint8)
    model = quick(whole)
    found = [
        model.complete(given, mask, generator=seeded())
        for given in (whole, whole.numpy(), whole.double(), whole.float(), whole.tolist())
    ]
    assert all(same(found[0], other) for other in found)
    completed = found[0].images()
    assert completed.dtype == torch.float32
    assert torch.equal(completed[wide(mask)], whole.float()[wide(mask)])
    assert completed.max() > 2  # in the pictures' own numbers


def test_pictures_in_which_nothing_varies() -> None:
    model = quick(torch.full((2, 12, 12), 0.7))
    mask = ~holes(2, SIDE, SIDE, seeded())
    assert len(model.dictionary) == 3
    torch.testing.assert_close(model.dictionary, torch.full((3, 2, 2), 0.7))
    assert model.complete(torch.full((2, 12, 12), 0.7), mask).images().shape == (2, 12, 12)


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (True, False):
        small().fit(patterns(2)[0], epochs=1, progress=shown)
        said = capsys.readouterr().err
        assert all((name in said) == shown for name in ("programs", "holes", "training"))


# Holes


@given(st.integers(1, 15), st.integers(1, 15), st.integers(0, 2**32))
def test_holes(rows: int, columns: int, seed: int) -> None:
    hidden = holes(5, rows, columns, seeded(seed))
    assert hidden.shape == (5, rows, columns)
    assert torch.equal(hidden, holes(5, rows, columns, seeded(seed)))
    for hole in hidden:
        across, down = hole.any(0), hole.any(1)
        assert torch.equal(hole, down[:, None] & across)
        for line in (across, down):
            places = line.nonzero().flatten()
            assert int(places[-1] - places[0]) + 1 == len(places)
        # One side is rounded, by half a cell.
        slack = (max(int(across.sum()), int(down.sum())) + 1) / 2
        area = int(hole.sum())
        assert rows * columns / 6 - slack <= area <= rows * columns / 2 + slack


def test_the_sizes_of_holes() -> None:
    for shape in ((15, 15), (15, 1), (1, 15), (40, 3)):
        hidden = holes(2000, *shape, seeded()).float()
        shares = hidden.mean((1, 2))
        assert shares.mean() == pytest.approx(1 / 3, abs=0.03)
        assert shares.max() < 0.7
        assert hidden.mean(0).min() > 0.01  # anywhere
    assert holes(0, 3, 4).shape == (0, 3, 4)
    with pytest.raises(DomainError, match="count=-1: give an integer, 0 or more"):
        holes(-1, 3, 4)
    with pytest.raises(DomainError, match="columns=0: give an integer, 1 or more"):
        holes(1, 3, 0)


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "classes=0: give an integer, 1 or more"),
        ({"classes": 2.0}, r"classes=2\.0: give an integer"),
        ({"entries": 0}, "entries=0"),
        ({"entries": -1}, "entries=-1"),
        ({"loops": 0}, "loops=0"),
        ({"loops": True}, "loops=True"),
        ({"width": 0}, "width=0"),
        ({"width": 6}, "width=6: give a multiple of 4"),
        ({"width": 16.0}, "width=16"),
        ({"layers": 1}, "layers=1: give an integer, 2 or more"),
        ({"rows": 0}, "rows=0"),
        ({"columns": "3"}, "columns='3'"),
        ({"rows": 41}, "a grid of 41 by 6 cells: give at most 40"),
        ({"rows": 1, "columns": 1}, "a grid of one cell: give two"),
    ],
)
def test_models_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DomainError, match=message):
        StructureDiffusion(**{"rows": SIDE, "columns": SIDE, **options})


GOOD = patterns(2)[0]
HOLE = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)


@pytest.mark.parametrize(
    ("images", "options", "error", "message"),
    [
        (GOOD[:0], {}, EmptyBatchError, "no images: give one at least"),
        (GOOD[0], {}, ShapeError, r"images of shape \(12, 12\): give \(batch, "),
        (GOOD[:, 1:], {}, ShapeError, r"shape \(11, 12\) does not divide into 6 rows and 6 "),
        ([[1, 2], [3]], {}, ShapeError, "the images are no tensor: .*give one"),
        ("images", {}, ShapeError, "the images are no tensor"),
        (
            GOOD.index_fill(1, torch.tensor(5), torch.nan)[1:],
            {},
            DomainError,
            "picture 0 is not finite in the cell at row 2, column 0: mend it",
        ),
        (
            torch.rand(2, 36, 36, generator=seeded()),
            {},
            DomainError,
            "no sub-image is in any picture twice: nothing repeats",
        ),
        (GOOD, {"hidden": HOLE[:, 1:]}, ShapeError, r"hidden is torch.bool of shape \(1, 5, 6\)"),
        (GOOD, {"hidden": HOLE[0]}, ShapeError, r"shape \(6, 6\): give .* \(holes, 6, 6\)"),
        (GOOD, {"hidden": HOLE.int()}, ShapeError, "hidden is torch.int32 .*: give a Boolean"),
        (GOOD, {"hidden": HOLE.numpy()}, ShapeError, "hidden is a ndarray: give a Boolean tensor"),
        (GOOD, {"hidden": HOLE[:0]}, ShapeError, "no holes: give one at least"),
        (GOOD, {"epochs": 0}, DomainError, "epochs=0: give an integer, 1 or more"),
        (GOOD, {"epochs": 1.5}, DomainError, r"epochs=1\.5"),
        (GOOD, {"batch_size": 0}, DomainError, "batch_size=0"),
        (GOOD, {"learning_rate": -1.0}, DomainError, "learning_rate=-1.0: give a number above 0"),
        (GOOD, {"learning_rate": "fast"}, DomainError, "learning_rate='fast'"),
        (GOOD, {"generator": 5}, ByssusError, "generator=5 is no torch.Generator"),
    ],
)
def test_what_cannot_be_learned_from(
    images: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = small(seed=1)
    with pytest.raises(error, match=message):
        model.fit(images, **{"epochs": 1, "progress": False, **options})
    assert not len(model.dictionary)


SEEN = ~HOLE.expand(2, -1, -1)


@pytest.mark.parametrize(
    ("images", "observed", "options", "error", "message"),
    [
        (GOOD[:0], SEEN[:0], {}, EmptyBatchError, "no images"),
        (GOOD[0], SEEN, {}, ShapeError, r"images of shape \(12, 12\)"),
        (GOOD[:, 1:], SEEN, {}, ShapeError, "does not divide"),
        (GOOD, SEEN[:1], {}, ShapeError, r"torch.bool of shape \(1, 6, 6\): .* \(2, 6, 6\)"),
        (GOOD, SEEN[:, 1:], {}, ShapeError, r"observed is torch.bool of shape \(2, 5, 6\)"),
        (GOOD, SEEN.float(), {}, ShapeError, "observed is torch.float32 .*give a Boolean tensor"),
        (GOOD, SEEN.numpy(), {}, ShapeError, "observed is a ndarray: give a Boolean tensor"),
        (GOOD, None, {}, ShapeError, "observed is a NoneType"),
        (GOOD * torch.nan, SEEN, {}, DomainError, "picture 0 is not finite in the cell at row 0"),
        (
            GOOD.repeat(1, 2, 1),
            SEEN,
            {},
            ShapeError,
            r"cells of shape \(4, 2\), and the model has learned from cells of shape \(2, 2\)",
        ),
        (GOOD[:, None], SEEN, {}, ShapeError, r"cells of shape \(1, 2, 2\), and the model"),
        (GOOD, SEEN, {"n": 0}, DomainError, "n=0: give an integer, 1 or more"),
        (GOOD, SEEN, {"n": 1.5}, DomainError, r"n=1\.5"),
        (GOOD, SEEN, {"generator": 5}, ByssusError, "generator=5 is no torch.Generator"),
    ],
)
def test_what_cannot_be_completed(
    model: StructureDiffusion,
    images: Any,
    observed: Any,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        model.complete(images, observed, **options)


def test_nothing_is_made_before_anything_is_learned(model: StructureDiffusion) -> None:
    for call in (lambda m: m.complete(GOOD, SEEN), lambda m: m.sample(2)):
        with pytest.raises(ByssusError, match=r"nothing has been learned yet: call fit\(images\)"):
            call(small(seed=1))
    for n in (0, -1, 1.5):
        with pytest.raises(DomainError, match=f"n={n}: give an integer, 1 or more"):
            model.sample(n)
