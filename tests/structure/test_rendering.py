from __future__ import annotations

from itertools import product
from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import byssus_scallop as scallopy
from byssus import Boolean, DomainError, ShapeError, blackbox, exhaustive
from byssus.structure import Loop, Structure, assemble, drawn, render
from byssus_problog import Program
from structure.programs import drawing, loops

PROGRAMS = st.lists(loops(), max_size=4)

# Loops with their probabilities; the second and third draw over the first.
WINDOWS = ((0.7, (0, 3, 2, 0, 3, 2, 1)), (0.4, (1, 2, 1, 0, 3, 1, 0)), (0.5, (2, 3, 1, 1, 3, 1, 0)))
DOOR = (1, 1)


@given(PROGRAMS)
def test_labels(program: list[Loop]) -> None:
    labels = render(program, rows=6, columns=7)
    found = {(r, c): int(labels[r, c]) for r, c in product(range(6), range(7)) if labels[r, c] >= 0}
    assert found == drawing(program)
    assert drawn(program) == [(*place, cell) for place, cell in sorted(drawing(program).items())]


@given(PROGRAMS)
def test_images(program: list[Loop]) -> None:
    cells = torch.rand(3, 2, 4, 5)
    under = torch.rand(2, 24, 35)
    image = render(program, cells, rows=6, columns=7, onto=under)
    blank = render(program, cells, rows=6, columns=7)
    for row, column in product(range(6), range(7)):
        part = slice(None), slice(4 * row, 4 * row + 4), slice(5 * column, 5 * column + 5)
        cell = drawing(program).get((row, column))
        assert torch.equal(image[part], under[part] if cell is None else cells[cell])
        assert torch.equal(blank[part], torch.zeros(2, 4, 5) if cell is None else cells[cell])


def test_what_is_drawn_onto_stays_as_it_is() -> None:
    under = torch.zeros(2, 2)
    render([Loop(0, 1, 1, 0, 1, 1, 0)], torch.ones(1, 2, 2), rows=1, columns=1, onto=under)
    assert not under.any()


def test_order_in_rules() -> None:
    one, other = (0, 1, 1, 0, 2, 1, 5), (0, 1, 1, 0, 1, 1, 6)
    assert drawn([one, other]) == [(0, 0, 6), (0, 1, 5)]
    assert drawn([(2, *other), (1, *one)]) == [(0, 0, 6), (0, 1, 5)]
    assert drawn([(1, *other), (2, *one)]) == [(0, 0, 5), (0, 1, 5)]
    assert drawn([]) == []


def test_errors() -> None:
    with pytest.raises(DomainError, match=r"draws at row 2, column 4, outside of the grid of 3 "):
        render([(0, 3, 2, 0, 5, 4, 0)], rows=3, columns=4)
    # A bound beyond the grid is none of its cells.
    assert (render([(0, 4, 2, 0, 5, 3, 0)], rows=3, columns=4) >= 0).sum() == 4
    with pytest.raises(DomainError, match="is no loop"):
        render([(0, 3, 2)], rows=3, columns=4)
    with pytest.raises(DomainError, match="is no loop"):
        drawn([(0, 3, 2)])
    with pytest.raises(DomainError, match="draws the sub-image 2, and cells has 2"):
        render([(0, 1, 1, 0, 1, 1, 2)], torch.zeros(2, 3, 3), rows=1, columns=1)
    with pytest.raises(ShapeError, match=r"cells of shape \(3, 3\)"):
        render([], torch.zeros(3, 3), rows=1, columns=1)
    with pytest.raises(ShapeError, match="an image with cells of shape"):
        render([], torch.zeros(2, 3, 3), rows=1, columns=1, onto=torch.zeros(4, 4))
    with pytest.raises(ShapeError, match="a grid of 0 rows"):
        render([], rows=0, columns=1)
    with pytest.raises(ShapeError, match="give \\(rows, columns"):
        assemble(torch.zeros(3, 3))


def worlds() -> list[tuple[float, dict[tuple[int, int], int]]]:
    """Every choice of loops with its probability, and what they draw."""
    found = []
    for held in product([True, False], repeat=len(WINDOWS)):
        weight = prod(p if yes else 1 - p for yes, (p, _) in zip(held, WINDOWS, strict=True))
        chosen = [loop for yes, (_, loop) in zip(held, WINDOWS, strict=True) if yes]
        found.append((weight, drawing(chosen)))
    return found


def aligned(cells: dict[tuple[int, int], int]) -> bool:
    """Whether all rows of windows have them in the same columns."""
    rows = {r: {c for q, c in cells if q == r} for r, _ in cells}
    return all(columns == next(iter(rows.values())) for columns in rows.values())


CLEAR = sum(weight for weight, cells in worlds() if DOOR not in cells)
ALIGNED = sum(weight for weight, cells in worlds() if aligned(cells))

SCALLOP = """
@blackbox("byssus.structure:drawn", over=["loop"])
type drawn(row: usize, column: usize, cell: usize)
type loop(order: usize, top: usize, bottom: usize, down: usize,
          left: usize, right: usize, across: usize, cell: usize)
rel crossed() = drawn(1, 1, _)
rel clear() = not crossed()
rel row(r) = drawn(r, _, _)
rel uneven() = drawn(r, c, _) and row(q) and not at(q, c)
rel at(r, c) = drawn(r, c, _)
rel aligned() = not uneven()
"""
PROBLOG = """
:- use_module(library(byssus)).
:- use_module(library(lists)).
:- blackbox('drawing.py', drawn, [+loops, -cells]).
drawn(R, C, K) :- findall(L, loop(L), Loops), drawn(Loops, Cells), member([R, C, K], Cells).
crossed :- drawn(1, 1, _).
clear :- \\+ crossed.
at(R, C) :- drawn(R, C, _).
uneven :- at(_, C), at(Q, _), \\+ at(Q, C).
aligned :- \\+ uneven.
query(clear).
query(aligned).
"""
OPTIONS = [
    {"provenance": "exact"},
    {"provenance": "sampled", "worlds": exhaustive},
    {"provenance": "sampled", "samples": 2000},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["exact", "exhaustive", "sampled"])
def test_rules_of_scallop(options: dict[str, object]) -> None:
    if "samples" in options:
        options = {**options, "generator": torch.Generator().manual_seed(0)}
    ctx = scallopy.ScallopContext(**options)
    ctx.add_program(SCALLOP)
    ctx.add_facts("loop", [(p, (i, *loop)) for i, (p, loop) in enumerate(WINDOWS)])
    ctx.run()
    for name, expected in (("clear", CLEAR), ("aligned", ALIGNED)):
        ((probability, _),) = ctx.relation(name)
        # All eight worlds are among the samples, so that theirs is the exact probability.
        assert float(probability) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=["exact", "exhaustive", "sampled"])
def test_rules_of_problog(options: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "drawing.py").write_text("from byssus.structure import drawn\n")
    facts = "".join(f"{p}::loop({list(loop)}).\n" for p, loop in WINDOWS)
    (tmp_path / "rules.pl").write_text(facts + PROBLOG)
    if "samples" in options:
        options = {**options, "generator": torch.Generator().manual_seed(0)}
    found = Program(tmp_path / "rules.pl", **options)()
    probabilities = dict(zip(map(str, found.values), found.probs[0].tolist(), strict=True))
    assert probabilities == pytest.approx({"clear": CLEAR, "aligned": ALIGNED}, abs=1e-5)


@blackbox(Structure(2, 2, 1, loops=1), output=Boolean(), budget=100)
def crosses(program: tuple[Loop, ...]) -> bool:
    return (1, 1, 0) in drawn(program)


def test_a_black_box_over_programs() -> None:
    torch.manual_seed(0)
    domain = Structure(2, 2, 1, loops=1)
    view = tuple(torch.rand(2, 1, width).softmax(-1) for width in domain.widths)
    expected = torch.zeros(2)
    for program in domain:
        if program and (1, 1) in drawing(program):
            columns = zip(view, domain.encode(program), strict=True)
            expected += torch.stack([part[:, 0, i] for part, i in columns]).prod(0)
    torch.testing.assert_close(crosses(view).probs[:, 1], expected)
