from __future__ import annotations

import pickle
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from byssus import Boolean, ByssusError, DomainError, List, Padded, blackbox
from byssus.structure import ForLoop2D, Loop, Structure, canonical, equivalent, places
from structure.programs import drawing, loops

PROGRAMS = st.lists(loops(), max_size=4)


@given(loops())
def test_a_loop_draws_as_python_loops_do(loop: Loop) -> None:
    assert dict.fromkeys(places(loop), loop.cell) == drawing([loop])
    assert list(places(tuple(loop))) == list(product(loop.rows, loop.columns))
    found: list[tuple[int, ...]] = []
    code = str(loop).replace("draw(", "draw(row, column, ").replace(": for", ":\n for")
    exec(code, {"draw": lambda *drawn: found.append(drawn)})
    assert found == [(*place, loop.cell) for place in places(loop)]


@given(PROGRAMS, PROGRAMS)
def test_canonical_programs(one: list[Loop], other: list[Loop]) -> None:
    assert drawing(canonical(one)) == drawing(one)
    assert canonical(canonical(one)) == canonical(one)
    assert equivalent(one, other) == (drawing(one) == drawing(other))
    assert equivalent(one, canonical(one))


@given(loops(), loops())
def test_loops_that_draw_the_same_are_one_in_canonical_form(one: Loop, other: Loop) -> None:
    assert (canonical([one]) == canonical([other])) == (drawing([one]) == drawing([other]))


def test_the_values_of_the_domain() -> None:
    domain = ForLoop2D(2, 3, 2)
    assert domain.size == len(domain.values) == 2**3 * 3**3 * 2
    assert domain.widths == (2, 2, 2, 3, 3, 3, 2)
    for i, loop in enumerate(domain):
        assert isinstance(loop, Loop)
        assert domain.index(loop) == i
        assert domain.decode(domain.encode(loop)) == loop
        assert all(row < 2 and column < 3 for row, column in places(loop))
    assert isinstance(domain.decode((0,) * 7), Loop)
    assert (0, 2, 1, 0, 3, 1, 1) in domain
    assert [0, 2, 1, 0, 3, 1, 1] in domain


def test_domains_compare_and_travel() -> None:
    domain = ForLoop2D(4, 5, 6)
    assert repr(domain) == "ForLoop2D(4, 5, 6)"
    assert (domain.rows, domain.columns, domain.cells) == (4, 5, 6)
    assert pickle.loads(pickle.dumps(domain)) == domain == ForLoop2D(4, 5, 6) != ForLoop2D(5, 4, 6)
    assert Structure(4, 5, 6, 7) == List(domain, 7)


def test_programs_are_padded() -> None:
    domain = Structure(3, 3, 2, loops=2)
    program = (Loop(0, 3, 2, 0, 3, 2, 1),)
    assert domain.encode(program) == (0, 2, 1, 0, 2, 1, 1, *[-1] * 7)
    assert domain.decode(domain.encode(program)) == program
    view = domain.vectorize(program)
    columns = domain.flatten(Padded(tuple(part[None] for part in view), torch.tensor([1])))
    assert columns.mask.tolist() == [[True] * 7 + [False] * 7]


@blackbox(ForLoop2D(2, 2, 1), output=Boolean())
def on_the_diagonal(loop: Loop) -> bool:
    return (0, 0) in places(loop)


def test_a_black_box_over_loops() -> None:
    """What the columns say, independently, is summed over all loops."""
    torch.manual_seed(0)
    view = tuple(torch.rand(3, width).softmax(-1) for width in ForLoop2D(2, 2, 1).widths)
    found = on_the_diagonal(*[view])
    expected = torch.zeros(3)
    for loop in ForLoop2D(2, 2, 1):
        if (0, 0) in drawing([loop]):
            columns = zip(view, ForLoop2D(2, 2, 1).encode(loop), strict=True)
            expected += torch.stack([part[:, i] for part, i in columns]).prod(0)
    torch.testing.assert_close(found.probs[:, 1], expected)


@pytest.mark.parametrize(
    "value",
    [
        (0, 4, 1, 0, 3, 1, 0),
        (3, 3, 1, 0, 3, 1, 0),
        (0, 3, 0, 0, 3, 1, 0),
        (0, 3, 1, 0, 4, 1, 0),
        (0, 3, 1, -1, 3, 1, 0),
        (0, 3, 1, 0, 3, 1, 2),
        (0, 3, 1),
        "loop",
        5,
    ],
)
def test_no_loop_leaves_the_grid(value: object) -> None:
    with pytest.raises(DomainError, match=r"no loop \(top, bottom.*grid of 3 by 3 with 2"):
        ForLoop2D(3, 3, 2).check_output(value)
    assert value not in ForLoop2D(3, 3, 2)


@pytest.mark.parametrize(
    "value", [(1, 2), (0, 3, 0, 0, 3, 1, 0), (0, 3, 1, 0, 3, 0.5, 0), (-1,) * 7]
)
def test_what_is_no_loop(value: tuple[int, ...]) -> None:
    with pytest.raises(DomainError, match="is no loop: give seven integers"):
        canonical([value])


@pytest.mark.parametrize("arguments", [(0, 3, 1), (3, True, 1), (3, 3, 1.0)])
def test_grids_without_cells(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(DomainError, match=r"ForLoop2D: \w+=.*: give an integer, 1 or more"):
        ForLoop2D(*arguments)
    with pytest.raises(ByssusError):
        Structure(3, 3, 1, 0)
