from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from byssus import DomainError, ShapeError
from byssus.structure import (
    Loop,
    Structure,
    Synthesis,
    assemble,
    canonical,
    cut,
    equivalent,
    render,
    synthesize,
)
from structure.programs import Labels, drawing, irregular, random_program

GRIDS = arrays(
    np.int64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.integers(-1, 2)
)


def cost(
    program: tuple[Loop, ...], labels: Labels, background: int = -1, wrong: float = 4.0
) -> float:
    cells = drawing(program)
    total = 1.5 * len(program)
    for place, label in np.ndenumerate(labels):
        if label >= 0 and place in cells and cells[place] != label:
            total += wrong
        elif label not in (-1, background) and place not in cells:
            total += 1
    return total


def least(labels: Labels, background: int = -1) -> float:
    """The least cost of loops that draw no cell wrongly: dynamic programming over sets of cells."""
    height, width = labels.shape
    total = 0.0
    for kind in set(labels[labels >= 0].tolist()) - {background}:
        sets = set()
        for top, left in product(range(height), range(width)):
            for down, across in product(range(1, height + 1), range(1, width + 1)):
                for bottom, right in product(
                    range(top + 1, height + 1), range(left + 1, width + 1)
                ):
                    drawn = drawing([(top, bottom, down, left, right, across, kind)])
                    if all(labels[place] in (-1, kind) for place in drawn):
                        sets.add(frozenset(place for place in drawn if labels[place] == kind))

        @cache
        def rest(left: frozenset[tuple[int, int]]) -> float:
            if not left:
                return 0.0
            place = min(left)
            with_loops = (1.5 + rest(left - cells) for cells in sets if place in cells)  # noqa: B023
            return min(1 + rest(left - {place}), *with_loops)

        total += rest(frozenset(map(tuple, np.argwhere(labels == kind).tolist())))
    return total


def check(found: Synthesis, labels: Labels, background: int = -1, wrong: float = 4.0) -> None:
    """What a result says of itself holds."""
    rows, columns = labels.shape
    assert np.array_equal(found.labels, np.where(labels < 0, -1, labels))
    drawn = render(found.program, rows=rows, columns=columns)
    assert torch.equal(found.covered, (drawn == found.labels) & (drawn >= 0))
    assert found.cost == pytest.approx(cost(found.program, labels, background, wrong))
    assert found.program == canonical(found.program)
    if found.program:
        assert found.program in Structure(rows, columns, int(labels.max()) + 1, 20)


@given(GRIDS)
def test_no_program_without_wrong_cells_is_cheaper(labels: Labels) -> None:
    found = synthesize(labels)
    check(found, labels)
    assert found.optimal
    assert found.cost <= least(labels)


@given(GRIDS)
def test_background_need_not_be_drawn(labels: Labels) -> None:
    found = synthesize(labels, background=0)
    check(found, labels, background=0)
    assert all(loop.cell for loop in found.program)
    assert found.cost <= least(labels, background=0)


PRICES = st.sampled_from([1, 1.5, 2.5, 4.0, 10.0]) | st.floats(1, 100)


@given(GRIDS, st.sampled_from([None, 0]), PRICES)
def test_the_price_of_wrong_cells(labels: Labels, background: int | None, wrong: float) -> None:
    """Costs are as they say; what is said to be optimal is."""
    found = synthesize(labels, background=background, wrong=wrong)
    none = -1 if background is None else background
    check(found, labels, none, wrong)
    if found.optimal or wrong >= 4:
        assert found.cost <= least(labels, none) + 1e-6


def test_what_is_not_proved() -> None:
    """No program costs more than 3.5 whose loops draw no cell wrongly, and this one does."""
    labels = np.array([[2, 0, 0], [1, 0, 0], [2, 2, -1]])
    found = synthesize(labels, background=0, wrong=1.5)
    assert least(labels, background=0) == 3.5
    assert found.optimal == (found.cost <= 3.5)


@pytest.mark.parametrize("background", [False, True])
def test_programs_survive_irregular_cells(background: bool) -> None:
    """Where they are cheap, most programs are what they would be without them."""
    survived = dict.fromkeys([1.5, 4.0], 0)
    for wrong in survived:
        rng = np.random.default_rng(3)
        for _ in range(80):
            _, grid = random_program(rng, rng.integers(1, 5), rng.integers(1, 4), cells=6)
            clean = np.where(grid < 0, 50, grid) if background else irregular(grid, rng)
            noisy = clean.copy()
            odd = rng.random(grid.shape) < 0.04
            noisy[odd] = 1000 + np.arange(odd.sum())
            wall = 50 if background else None
            usual, found = (synthesize(g, background=wall, wrong=wrong) for g in (clean, noisy))
            survived[wrong] += len(found.program) == len(usual.program) and equivalent(
                found.program, usual.program
            )
    assert survived[1.5] > 0.85 * 80
    assert survived[4.0] < 0.65 * 80


# Loops that go on


def went_on(loop: Loop, labels: Labels) -> set[tuple[int, int]]:
    """Where a loop draws that goes on through free cells, found cell by cell."""
    rows, columns = list(loop.rows), list(loop.columns)

    def free(row: int, column: int) -> bool:
        inside = 0 <= row < labels.shape[0] and 0 <= column < labels.shape[1]
        return inside and labels[row, column] in (-1, loop.cell)

    if len(rows) > 1:
        for end, step in ((0, -loop.down), (-1, loop.down)):
            while all(free(rows[end] + step, column) for column in columns):
                rows.insert(0 if end == 0 else len(rows), rows[end] + step)
    if len(columns) > 1:
        for end, step in ((0, -loop.across), (-1, loop.across)):
            while all(free(row, columns[end] + step) for row in rows):
                columns.insert(0 if end == 0 else len(columns), columns[end] + step)
    return set(product(rows, columns))


HIDDEN = arrays(
    np.int64,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    elements=st.sampled_from([-1, -1, 0, 0, 0, 1, 2]),
)


@given(HIDDEN, st.sampled_from([None, 1]), st.sampled_from([1.5, 4.0]))
def test_loops_go_on(labels: Labels, background: int | None, wrong: float) -> None:
    found = synthesize(labels, background=background, wrong=wrong)
    longer = found.extended()
    assert longer == canonical(longer)
    assert len(longer) == len(found.program)
    for loop, more in zip(found.program, longer, strict=True):
        before, after = drawing([loop]), drawing([more])
        assert set(after) == went_on(loop, labels)
        assert before.keys() <= after.keys()
        assert more.cell == loop.cell
        assert all(labels[place] in (-1, loop.cell) for place in after.keys() - before.keys())
        assert set(after) == went_on(more, labels)  # it does not go on any more
    drawn, extended = drawing(found.program), drawing(longer)
    for place, label in np.ndenumerate(labels):
        assert label < 0 or extended.get(place) in (drawn.get(place), label)


@pytest.mark.parametrize("where", ["right", "left", "bottom", "top"])
def test_a_hidden_third_is_completed(where: str) -> None:
    """Where loops run to the edge."""
    hidden = np.zeros((15, 15), bool)
    turned = {
        "right": hidden,
        "left": hidden[:, ::-1],
        "bottom": hidden.T,
        "top": hidden.T[:, ::-1],
    }
    turned[where][:, 10:] = True
    for down, across in product((2, 3), (2, 4)):
        for above, before in product(range(down), range(across)):
            labels = np.zeros((15, 15), int)
            labels[above::down, before::across] = 1
            seen = np.where(hidden, -1, labels)
            drawn = render(synthesize(seen).extended(), rows=15, columns=15)
            assert np.array_equal(drawn, labels)
            windows = synthesize(seen, background=0).extended()
            assert windows == canonical([(above, 15, down, before, 15, across, 1)])


def test_loops_that_end_before_what_is_hidden_do_not_go_on() -> None:
    labels = np.zeros((15, 15), int)
    labels[2:7:2, 2:7:2] = 1
    labels[:, 10:] = -1
    found = synthesize(labels, background=0)
    assert found.extended() == found.program == (Loop(2, 7, 2, 2, 7, 2, 1),)


@given(GRIDS, st.integers(0, 2), st.data())
def test_unobserved_cells_do_not_count(labels: Labels, other: int, data: st.DataObject) -> None:
    seen = data.draw(arrays(bool, labels.shape))
    hidden, replaced = np.where(seen, labels, -1), np.where(seen, labels, other)
    found, same = synthesize(hidden), synthesize(torch.from_numpy(replaced), observed=seen)
    assert found.program == same.program
    assert found.cost == same.cost
    check(same, hidden)


def test_clean_grids() -> None:
    """At least 98 % are recovered: the same is drawn, by no more loops."""
    rng = np.random.default_rng(1)
    recovered = 0
    for _ in range(300):
        loops, kinds = rng.integers(2, 7), rng.integers(1, 6)
        program, grid = random_program(rng, loops, kinds)
        found = synthesize(irregular(grid, rng))
        recovered += equivalent(found.program, program) and len(found.program) <= len(program)
    assert recovered >= 0.98 * 300


def test_noisy_grids() -> None:
    """At least 90 % of the regular cells are covered where 5 % of all are wrong."""
    rng = np.random.default_rng(2)
    covered = regular = 0
    for _ in range(100):
        _, grid = random_program(rng, rng.integers(2, 7), rng.integers(1, 6))
        labels = irregular(grid, rng, noise=0.05)
        right = (grid >= 0) & (labels == grid)
        covered += (synthesize(labels).covered.numpy() & right).sum()
        regular += right.sum()
    assert covered >= 0.9 * regular


def test_loops_are_drawn_over() -> None:
    wall = np.zeros((15, 15), int)
    wall[1:12:3, 2:14:4] = 1
    wall[13:, 7] = 2
    found = synthesize(wall)
    assert found.program[0] == Loop(0, 15, 1, 0, 15, 1, 0)
    assert set(found.program[1:]) == {Loop(1, 11, 3, 2, 11, 4, 1), Loop(13, 15, 1, 7, 8, 1, 2)}
    assert found.covered.all()
    assert found.cost == 4.5


def test_a_wrong_cell_in_a_loop() -> None:
    labels = np.arange(100, 325).reshape(15, 15)
    labels[1:14:3, 1:14:3] = 0
    labels[7, 7] = 99
    found = synthesize(labels)
    assert found.program == (Loop(1, 14, 3, 1, 14, 3, 0),)
    assert found.cost == 225 - 24 + 3 + 1.5


def test_nothing_to_find() -> None:
    different = synthesize(np.arange(12).reshape(3, 4))
    assert (different.program, different.cost, different.optimal) == ((), 12, True)
    for hidden in (
        synthesize(np.full((3, 4), -1)),
        synthesize(np.ones((3, 4), int), observed=np.zeros((3, 4), bool)),
        synthesize(torch.full((3, 4, 2, 2), torch.nan), observed=torch.zeros(3, 4).bool()),
    ):
        assert (hidden.program, hidden.cost, hidden.optimal) == ((), 0, True)
        assert (hidden.labels == -1).all()
        assert not hidden.covered.any()


def test_limits() -> None:
    labels = np.array([[0, 0, 0, 0], [1, 1, 2, 2], [1, 1, 3, 4]])
    assert len(synthesize(labels).program) == 3
    few = synthesize(labels, loops=2)
    assert {loop.cell for loop in few.program} == {0, 1}
    assert not few.optimal
    assert synthesize(labels, loops=0).program == ()
    noise = np.random.default_rng(0).integers(0, 2, (15, 15))
    at_once = synthesize(noise, seconds=0)
    assert at_once.program
    assert not at_once.optimal
    assert synthesize(labels, seconds=5).optimal
    assert synthesize(noise).program == synthesize(noise).program


# Images


def test_cut_and_assemble() -> None:
    image = torch.rand(2, 3, 8, 15)
    cells = cut(image, 4, 5)
    assert cells.shape == (4, 5, 2, 3, 2, 3)
    assert torch.equal(cells[1, 2], image[..., 2:4, 6:9])
    assert torch.equal(assemble(cells), image)
    assert cut(np.zeros((4, 4)), 2, 2).dtype == torch.float64
    for rows, columns in ((3, 5), (4, 4), (0, 5)):
        with pytest.raises(ShapeError, match=r"image of shape \(8, 15\) does not divide into"):
            cut(torch.zeros(8, 15), rows, columns)
    with pytest.raises(ShapeError, match="does not divide"):
        cut(torch.zeros(8), 1, 1)


def pictures(noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells of 3 classes with noise, and cells that are like no other; and their classes."""
    torch.manual_seed(0)
    labels = torch.arange(10, 70).reshape(6, 10)
    labels[::2, ::3], labels[1::2, 1:9:2], labels[4, 1:3] = 0, 1, 2
    cells = torch.rand(70, 3, 8, 8)[labels]
    return cells + noise * torch.randn(cells.shape), labels


@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.05])
def test_classes_are_found_in_the_data(noise: float) -> None:
    cells, labels = pictures(noise)
    found = synthesize(cells)
    assert equivalent(found.program, synthesize(labels).program)
    for kind in (0, 1, 2):
        assert torch.equal(found.labels == kind, labels == kind)
        torch.testing.assert_close(found.cells[kind], cells[labels == kind].mean(0))
    image = render(found.program, found.cells, rows=6, columns=10)
    drawn = cut(image, 6, 10)[found.covered]
    assert (drawn - cells[found.covered]).square().mean().sqrt() < 1.5 * noise + 1e-5


def test_similarity() -> None:
    cells, labels = pictures(0.05)
    usual = synthesize(cells)
    threshold = synthesize(cells, similarity=0.15)
    assert torch.equal(threshold.labels, usual.labels)
    told = synthesize(
        cells, similarity=lambda a, b: (a - b).square().flatten(1).mean(1).sqrt() < 0.15
    )
    assert torch.equal(told.labels, usual.labels)
    assert (synthesize(cells, similarity=0).labels.unique().numel()) == 60
    assert not synthesize(cells, similarity=9.0).labels.any()
    with pytest.raises(ShapeError, match=r"similarity gave torch\.float32 of shape"):
        synthesize(cells, similarity=lambda a, b: (a - b).flatten(1).sum(1))
    assert (usual.labels == labels)[usual.covered].all()


def test_equal_cells_among_noisy_ones() -> None:
    cells, labels = pictures(0.05)
    cells[labels == 1] = 0.5
    assert equivalent(synthesize(cells).program, synthesize(labels).program)


def test_cells_that_are_all_alike_or_all_different() -> None:
    one = torch.rand(1, 1, 4, 4).expand(3, 5, 4, 4)
    assert synthesize(one).program == (Loop(0, 3, 1, 0, 5, 1, 0),)
    assert synthesize(one + 0.01 * torch.randn(3, 5, 4, 4)).program == (Loop(0, 3, 1, 0, 5, 1, 0),)
    assert synthesize(torch.zeros(3, 5, 4, 4)).program == (Loop(0, 3, 1, 0, 5, 1, 0),)
    assert synthesize(torch.rand(3, 5, 4, 4)).program == ()
    assert synthesize(torch.rand(1, 1, 4, 4)).program == ()


def test_partly_seen_images() -> None:
    cells, labels = pictures(0.0)
    seen = torch.ones(6, 10, dtype=torch.bool)
    seen[:, 7:] = False
    cells[:, 7:] = torch.nan
    found = synthesize(cells, observed=seen)
    assert torch.equal(found.labels[seen] == 0, labels[seen] == 0)
    assert (found.labels[~seen] == -1).all()
    assert not found.covered[~seen].any()
    assert synthesize((255 * cells).nan_to_num().to(torch.uint8), observed=seen).program


@pytest.mark.parametrize(
    ("grid", "options", "error", "message"),
    [
        ([[1, 2], [3]], {}, ShapeError, "not rectangular"),
        ([["a", "b"]], {}, ShapeError, "does not hold numbers"),
        ([1, 2, 3], {}, ShapeError, r"a grid of shape \(3,\)"),
        (np.zeros((0, 3), int), {}, ShapeError, r"a grid of shape \(0, 3\)"),
        (np.zeros((2, 41), int), {}, ShapeError, "a grid of 2 by 41 cells: give at most 40"),
        ([[1.0, 2.0]], {}, DomainError, "a grid of labels of torch.float64: give integers"),
        ([[True, False]], {}, DomainError, "a grid of labels of torch.bool"),
        (torch.full((2, 2, 3), torch.nan), {}, DomainError, "row 0, column 0 is not finite"),
        ([[1, 2]], {"observed": [[True]]}, ShapeError, "give a bool for each of the 1 by 2"),
        ([[1, 2]], {"observed": [[1, 0]]}, ShapeError, "observed is int64"),
        ([[1, 2]], {"similarity": 0.5}, DomainError, "for a grid of labels"),
        (np.zeros((2, 2, 3)), {"similarity": -1}, DomainError, "root mean square difference"),
        ([[1, 2]], {"loops": -1}, DomainError, "loops=-1"),
        ([[1, 2]], {"seconds": -1}, DomainError, "seconds=-1"),
        ([[1, 2]], {"wrong": 0.5}, DomainError, "wrong=0.5: give what a wrong cell costs, 1 or"),
        ([[1, 2]], {"wrong": -4}, DomainError, "wrong=-4"),
        ([[1, 2]], {"wrong": True}, DomainError, "wrong=True"),
        ([[1, 2]], {"wrong": "4"}, DomainError, "wrong='4'"),
        ([[1, 2]], {"wrong": None}, DomainError, "wrong=None"),
        ([[1, 2]], {"wrong": float("nan")}, DomainError, "wrong=nan"),
        ([[1, 2]], {"wrong": float("inf")}, DomainError, "wrong=inf"),
        ([[1, 2]], {"background": "wall"}, DomainError, "background='wall'"),
    ],
)
def test_errors(
    grid: object, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        synthesize(grid, **options)
