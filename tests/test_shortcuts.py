"""The concept maps that data cannot tell apart, against the enumeration of all maps."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from byssus import (
    Boolean,
    CompilationLimit,
    Discrete,
    DomainError,
    EmptyBatchError,
    Formula,
    Integer,
    List,
    ShapeError,
    Shortcuts,
    TargetError,
    Tuple,
    blackbox,
    shortcuts,
)
from byssus._vtree import compile_formula
from byssus.diffusion import WorldProgram, as_world_program
from byssus.errors import ByssusError
from byssus.shortcuts import ConceptMap, _models
from oracle import count, formulas, holds, sum_formula, worlds_of

MODULE = sys.modules[Shortcuts.__module__]  # its name in byssus is the function

HALF = [(0, 0), (0, 1), (1, 0), (2, 3), (3, 2), (2, 4), (4, 2)]
EVEN_ODD = [(0, 6), (2, 8), (4, 6), (4, 8), (1, 5), (3, 7), (1, 9), (3, 9)]
EVEN_ODD += [(b, a) for a, b in EVEN_ODD]


@blackbox(Integer(0, 4), Integer(0, 4), output=Integer(0, 8))
def half(a, b):
    return a + b


@blackbox(Integer(0, 9), Integer(0, 9), output=Integer(0, 18))
def add(a, b):
    return a + b


@blackbox(Boolean(), Boolean(), output=Boolean())
def xor(a, b):
    return a != b


def brute_force(program: WorldProgram, worlds: Tensor, groups: list[int]) -> list[ConceptMap]:
    """All maps under which every world has its label; columns of a group share one."""
    rows, labels = worlds.tolist(), program.outputs(worlds)
    sources = sorted({(g, v) for row in rows for g, v in zip(groups, row, strict=True) if v >= 0})
    values = {g: d.values for g, d in zip(groups, program.domains, strict=True)}
    names = {
        group: ", ".join(n for n, g in zip(program.names, groups, strict=True) if g == group)
        for group in groups
    }
    found = []
    for images in product(*(range(len(values[group])) for group, _ in sources)):
        image = dict(zip(sources, images, strict=True))
        mapped = [[image[key] for key in zip(groups, row, strict=True)] for row in rows]
        if torch.equal(program.outputs(tensor(mapped)), labels):
            concept_map: ConceptMap = {name: {} for name in names.values()}
            for (g, v), i in image.items():
                concept_map[names[g]][values[g][v]] = values[g][i]
            found.append(concept_map)
    return found


def check(found: Shortcuts, program: WorldProgram, worlds: Tensor, groups: list[int]) -> None:
    expected = brute_force(program, worlds, groups)
    assert found.exact
    assert found.count == len(expected)
    assert len(found.maps) == min(len(expected), 100)
    assert all(concept_map in expected for concept_map in found.maps)
    assert len(set(map(str, found.maps))) == len(found.maps)
    assert all(v == image for of in found.maps[0].values() for v, image in of.items())
    for name, of in found.images.items():
        for value, images in of.items():
            assert images[0] == value
            assert sorted(images) == sorted({m[name][value] for m in expected})


def test_half_of_the_digits() -> None:
    found = shortcuts(half, HALF)
    assert found.exact
    assert found.count == 3
    assert [[m["a, b"][v] for v in range(5)] for m in found.maps] == [
        [0, 1, 2, 3, 4],
        [0, 1, 3, 2, 3],
        [0, 1, 4, 1, 2],
    ]
    assert found.determined == {"a, b": (0, 1)}
    assert found.images["a, b"] == {0: (0,), 1: (1,), 2: (2, 3, 4), 3: (3, 1, 2), 4: (4, 2, 3)}
    assert str(found) == "\n".join(
        [
            "3 concept maps give every world its label, the truth included.",
            "a, b: 2 of 5 values are determined, 0, 1",
            "  2 may be 2, 3, 4",
            "  3 may be 3, 1, 2",
            "  4 may be 4, 2, 3",
            "All of them:",
            "  the truth",
            "  2 -> 3, 3 -> 2, 4 -> 3",
            "  2 -> 4, 3 -> 1, 4 -> 2",
        ]
    )


def test_even_and_odd_digits() -> None:
    found = shortcuts(add, tensor(EVEN_ODD), limit=5)
    assert found.count == 36
    assert len(found.maps) == 5
    assert found.maps[0]["a, b"] == {v: v for v in range(10)}
    assert found.determined == {"a, b": ()}
    assert found.images["a, b"][4] == (4, 5, 6, 7, 8, 9)
    evens = {(a, 2 + a, 4 + a, 6 - a, 8 - a) for a in range(6)}
    odds = {(1 + b, 3 + b, 5 - b, 7 - b, 9 - b) for b in range(6)}
    images = [m["a, b"] for m in shortcuts(add, EVEN_ODD).maps]
    assert {tuple(m[v] for v in range(0, 10, 2)) for m in images} == evens
    assert {tuple(m[v] for v in range(1, 10, 2)) for m in images} == odds
    assert shortcuts(add, EVEN_ODD, shared=False).count == 36**2


def test_all_pairs_leave_no_shortcut() -> None:
    found = shortcuts(add, list(product(range(10), repeat=2)))
    assert found.count == 1
    assert found.determined == {"a, b": tuple(range(10))}
    assert str(found).startswith("Only the truth gives every world its label")


@pytest.mark.parametrize("shared", [True, False])
def test_exclusive_or(shared: bool) -> None:
    program = as_world_program(xor)
    worlds = tensor(list(worlds_of([2, 2])))
    expected = brute_force(program, worlds, [0, 0] if shared else [0, 1])
    found = shortcuts(xor, worlds, shared=shared)
    assert found.count == len(expected) == 2  # negate both, or none
    flip = {False: True, True: False}
    assert found.maps[1] == ({"a, b": flip} if shared else {"a": flip, "b": flip})
    assert "a: False -> True, True -> False; b" in str(found) or shared


@st.composite
def problems(draw: st.DrawFn) -> tuple[WorldProgram, Tensor, list[int]]:
    """A random function of a few columns, some of its worlds, and which columns share a map."""
    groups = draw(st.lists(st.integers(0, 1), min_size=1, max_size=3))
    widths = [[2, 3][g] for g in groups]
    grid = list(worlds_of(widths))
    labels = draw(st.lists(st.integers(0, 2), min_size=len(grid), max_size=len(grid)))
    chosen = draw(st.lists(st.sampled_from(grid), min_size=1, max_size=6))
    table = dict(zip(grid, labels, strict=True))

    def run(worlds: Tensor) -> Tensor:
        return tensor([[table[tuple(row)]] for row in worlds.tolist()])

    names = tuple(f"c{i}" for i in range(len(groups)))
    domains = tuple(Integer(0, width - 1) for width in widths)
    return WorldProgram(names, domains, ((0, 1, 2),), run), tensor(chosen), groups


@settings(max_examples=50)
@given(problems(), st.booleans())
def test_agrees_with_enumeration(problem, shared: bool) -> None:
    program, worlds, groups = problem
    found = shortcuts(program, worlds, shared=shared, inference="exact")
    check(found, program, worlds, groups if shared else list(range(len(groups))))


def of_formula(formula: Formula) -> WorldProgram:
    """A Boolean dimension for each root, known by its rules."""

    def run(worlds: Tensor) -> Tensor:
        return tensor([[int(h) for h in holds(formula, tuple(w))] for w in worlds.tolist()])

    negated = {0: None, None: 0}
    roots = [key for root in formula.roots for key in (negated.get(root, -(root or 0)), root)]
    return WorldProgram(
        tuple(f"c{i}" for i in range(len(formula.widths))),
        tuple(Integer(0, width - 1) for width in formula.widths),
        ((False, True),) * len(formula.roots),
        run,
        replace(formula, roots=tuple(roots)),
    )


@settings(max_examples=40)
@given(formulas(min_concepts=1, max_concepts=3, max_width=3, max_worlds=12), st.data())
def test_rules_in_place_of_a_table(formula: Formula, data: st.DataObject) -> None:
    program = of_formula(formula)
    grid = list(worlds_of(formula.widths))
    worlds = tensor(data.draw(st.lists(st.sampled_from(grid), min_size=1, max_size=4)))
    groups = [formula.widths.index(width) for width in formula.widths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "TABULATED", 0)
        found = shortcuts(program, worlds, inference="exact")
    check(found, program, worlds, groups)


@settings(max_examples=40)
@given(formulas(), st.sampled_from(["program", "balanced"]))
def test_models_are_counted_in_integers(formula: Formula, vtree: str) -> None:
    ones = torch.ones(sum(formula.widths), dtype=torch.float64)
    formula = formula.part(formula.roots[0])
    compiled = compile_formula(formula, vtree, None, seconds=None, nodes=None, memory=None)
    assert _models(formula.widths, compiled.diagram) == count(formula, ones).item()


def test_large_counts_are_exact() -> None:
    domain = Discrete(range(100))
    constant = blackbox(*[domain] * 12, output=Boolean(), provenance="sampled")(lambda *c: True)
    data = tensor([range(12), range(12, 24)])
    rules = Formula((100,) * 12, (), (None, 0))
    program = replace(as_world_program(constant), formula=rules)
    found = shortcuts(program, data, limit=3)
    assert found.count == 100**24
    assert [len(images) for images in found.images.values()] == [24]
    assert len(found.maps) == 3


def test_rules_of_a_large_program() -> None:
    formula, sums = sum_formula([10] * 6)

    @blackbox(*[Integer(0, 9)] * 6, output=Integer(0, 54))
    def total(*digits):
        return sum(digits)

    assert sums == list(range(55))
    program = replace(as_world_program(total), formula=formula)
    data = [(0, 0, 0, 0, 0, 0), (1, 1, 1, 1, 1, 2), (9, 9, 9, 8, 8, 7), (3, 3, 2, 2, 1, 1)]
    found = shortcuts(program, data)
    images = {
        (f1, f2, f3, f7, f8, f9)
        for f1, f2, f3, f7, f8, f9 in product(range(10), repeat=6)
        if 5 * f1 + f2 == 7 and 2 * f3 + 2 * f2 + 2 * f1 == 12 and 3 * f9 + 2 * f8 + f7 == 50
    }
    assert found.count == len(images)
    assert total.calls < 100


def test_lists() -> None:
    @blackbox(List(Integer(0, 2), 3), Integer(5, 6), output=Integer(0, 12))
    def total(xs, y):
        return sum(xs) + y

    worlds = [((), 5), ((1,), 5), ((0, 2), 6), ((0, 1, 2), 6)]
    found = shortcuts(total, worlds)
    assert list(found.images) == ["xs", "y"]
    # 1 may not change, nor 0 + 2, nor 5; 6 is determined by 0 + 2 + 6 with 0 + 2 from 0 to 4
    expected = [
        {"xs": {0: a, 1: b, 2: c}, "y": {5: d, 6: e}}
        for a, b, c, d, e in product(range(3), range(3), range(3), (5, 6), (5, 6))
        if d == 5 and b + d == 6 and a + c + e == 8 and a + b + c + e == 9
    ]
    assert found.count == len(expected) == len(found.maps)
    assert all(m in expected for m in found.maps)
    encoded = tensor([Tuple(*total.inputs).encode(world) for world in worlds])
    assert shortcuts(total, encoded).maps == found.maps


def test_names_of_the_concepts_of_a_map() -> None:
    pair = Tuple(Integer(0, 1), Discrete("ab"))
    both = blackbox(pair, Integer(0, 1), output=Integer(0, 2))(lambda p, n: p[0] + n)
    found = shortcuts(both, [((0, "a"), 1), ((1, "b"), 1)])
    assert list(found.images) == ["p[0], n", "p[1]"]
    assert found.images["p[1]"] == {"a": ("a", "b"), "b": ("b", "a")}
    found = shortcuts(both, [((0, "a"), 1), ((1, "b"), 1)], shared=["first", "second", "third"])
    assert list(found.images) == ["p[0]", "p[1]", "n"]


def test_a_plain_function() -> None:
    found = shortcuts(
        lambda a, b: a * b, [(2, 3)], concepts=[Integer(1, 6)] * 2, outputs=Integer(1, 36)
    )
    assert found.count == 4  # 1 x 6, 2 x 3, 3 x 2, 6 x 1
    assert list(found.images) == ["c0, c1"]


def test_labels() -> None:
    assert shortcuts(half, HALF, y=[a + b for a, b in HALF]).count == 3
    assert shortcuts(half, tensor(HALF), y=tensor(HALF).sum(1)).count == 3
    with pytest.raises(TargetError, match=r"world 3 of the data, a=2, b=3, is 4.*gives 5"):
        shortcuts(half, HALF, y=tensor([0, 1, 1, 4, 5, 6, 6]))
    with pytest.raises(ShapeError, match="2 labels for 7 worlds"):
        shortcuts(half, HALF, y=[0, 1])
    with pytest.raises(TargetError, match="no output of the program"):
        shortcuts(half, HALF, y=[0, 1, 1, 40, 5, 6, 6])


def test_worlds_whose_calls_fail() -> None:
    @blackbox(Integer(0, 3), Integer(0, 3), output=Integer(0, 3), on_error="discard")
    def ratio(a, b):
        return a // b

    found = shortcuts(ratio, [(3, 1), (2, 2)])
    program = as_world_program(ratio)
    check(found, program, tensor([[3, 1], [2, 2]]), [0, 0])
    with pytest.raises(TargetError, match="the world a=1, b=0 has no label"):
        shortcuts(ratio, [(3, 1), (1, 0)])


# Estimates


@pytest.mark.parametrize(("program", "data", "exact"), [(half, HALF, 3), (add, EVEN_ODD, 36)])
def test_estimates(program, data, exact: int) -> None:
    generator = torch.Generator().manual_seed(1)
    found = shortcuts(program, data, inference="sampled", samples=3000, generator=generator)
    assert not found.exact
    assert found.standard_error > 0
    assert abs(found.count - exact) < 3 * found.standard_error
    known = shortcuts(program, data)
    assert found.maps[0] == known.maps[0]
    assert all(concept_map in known.maps for concept_map in found.maps)
    again = shortcuts(
        program, data, inference="sampled", samples=3000, generator=generator.manual_seed(1)
    )
    assert (again.count, again.maps) == (found.count, found.maps)
    assert "a sampled estimate (it was asked for) of standard error" in str(found)


def test_estimates_are_unbiased() -> None:
    generator = torch.Generator().manual_seed(0)
    means, errors = [], []
    for _ in range(30):
        found = shortcuts(half, HALF, inference="sampled", samples=200, generator=generator)
        means.append(found.count)
        errors.append(found.standard_error)
    mean = sum(means) / len(means)
    spread = math.sqrt(sum((m - mean) ** 2 for m in means) / (len(means) - 1))
    assert abs(mean - 3) < 3 * spread / math.sqrt(len(means))
    assert spread == pytest.approx(sum(errors) / len(errors), rel=0.4)


def test_what_is_too_large_is_estimated() -> None:
    @blackbox(*[Integer(0, 9)] * 5, output=Integer(0, 45))
    def total(*digits):
        return sum(digits)

    generator = torch.Generator().manual_seed(0)
    data = [(0, 0, 0, 0, 1), (0, 0, 0, 0, 2)]
    found = shortcuts(total, data, generator=generator)
    assert found.reason.startswith("the program has more than the 10,000 worlds")
    # 4 f(0) + f(1) = 1 and 4 f(0) + f(2) = 2: no shortcut, and none was met
    assert (found.count, len(found.maps)) == (1, 1)
    assert "never met" in str(found)
    with pytest.raises(ByssusError, match=r"inference='exact': the program .*take 'sampled'"):
        shortcuts(total, data, inference="exact")


def test_limits_of_the_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shortcuts(add, EVEN_ODD, nodes=1, generator=torch.Generator().manual_seed(0))
    assert found.reason == "the circuit reached its limit of nodes"
    with pytest.raises(CompilationLimit):
        shortcuts(add, EVEN_ODD, nodes=1, inference="exact")
    monkeypatch.setattr(MODULE, "_RULES", 10)
    found = shortcuts(add, EVEN_ODD, generator=torch.Generator().manual_seed(0))
    assert found.reason == "the rules over 16 different worlds take more than 10 nodes"


# Belief


class Model:
    """Draws what it was told to, whatever the generator."""

    def __init__(self, *worlds: Tensor) -> None:
        self.worlds = torch.stack(worlds, 1)  # (examples, draws, columns)
        self.asked: list[int] = []

    def sample(self, x, n, *, generator, lengths=None) -> Tensor:
        rows = x["image"].squeeze(1).long()
        assert torch.equal(x["more"][0], x["image"])
        self.asked.append(len(rows))
        drawn = self.worlds[rows]
        return drawn.repeat(1, math.ceil(n / drawn.shape[1]), 1)[:, :n]


def inputs(examples: int) -> dict:
    image = torch.arange(examples)[:, None].float()
    return {"image": image, "more": (image,)}


def test_belief() -> None:
    data = tensor(HALF)
    second = tensor([[[0, 1, 3, 2, 3][v] for v in world] for world in HALF])
    nothing = torch.full_like(data, 4)
    model = Model(data, second, second, nothing)
    found = shortcuts(half, data, model, x=inputs(7), votes=8)
    # On three of the seven worlds all maps agree; on the others the first two give one draw each.
    assert found.belief is not None
    expected = [(3 * 0.75 + 4 * 0.25) / 7, (3 * 0.75 + 4 * 0.5) / 7, 3 * 0.75 / 7]
    torch.testing.assert_close(found.belief, tensor(expected))
    assert found.other == pytest.approx(0.25)
    assert str(found).endswith(
        "The share of the model's worlds that each map explains:\n"
        "   46.4%  the truth\n"
        "   60.7%  2 -> 3, 3 -> 2, 4 -> 3\n"
        "   32.1%  2 -> 4, 3 -> 1, 4 -> 2\n"
        "   25.0%  none of these"
    )


def test_belief_over_many_examples() -> None:
    data = tensor(HALF).repeat(20, 1)
    model = Model(data)
    found = shortcuts(half, data, model, x=inputs(140), votes=3, limit=1)
    assert model.asked == [64, 64, 12]
    assert found.belief is not None
    assert (found.belief.tolist(), found.other) == ([1.0], 0.0)


def test_belief_about_lists() -> None:
    total = blackbox(List(Integer(0, 1), 2), output=Integer(0, 2))(lambda xs: sum(xs))
    data = tensor([[1, -1], [0, 1]])

    class OfLists(Model):
        def sample(self, x, n, *, generator, lengths=None) -> Tensor:
            assert torch.equal(lengths, data >= 0)
            return super().sample(x, n, generator=generator)

    found = shortcuts(total, data, OfLists(data), x=inputs(2))
    assert found.other == 0.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data": []}, EmptyBatchError, "no data"),
        ({"data": torch.zeros(0, 2, dtype=torch.int64)}, EmptyBatchError, "no data"),
        ({"data": [(0, 9)]}, DomainError, r"world 0 of the data, \(0, 9\), is none"),
        ({"data": [(0, 1), (0,)]}, DomainError, r"world 1 .*one value for each of 'a', 'b'"),
        ({"data": tensor([[0, 1], [0, 5]])}, DomainError, "world 1 of the data"),
        ({"data": tensor([[0, -1]])}, DomainError, "world 0 of the data"),
        ({"data": tensor([0, 1])}, ShapeError, r"shape \(2,\)"),
        ({"data": tensor([[0.0, 1.0]])}, ShapeError, "float32"),
        ({"shared": [0]}, ShapeError, "'a', 'b'"),
        ({"inference": "both"}, ByssusError, "inference='both'"),
        ({"limit": 0}, ByssusError, "limit=0"),
        ({"votes": 0}, ByssusError, "votes=0"),
        ({"samples": 0}, ByssusError, "samples=0"),
        ({"seconds": -1}, ByssusError, "seconds=-1"),
        ({"x": inputs(7)}, ByssusError, "needs both"),
        ({"model": Model(tensor(HALF))}, ByssusError, "needs both"),
        ({"model": Model(tensor(HALF)), "x": inputs(6)}, ShapeError, "for 7 worlds"),
        ({"model": Model(tensor(HALF)), "x": 5}, ShapeError, "x of shape int"),
        ({"model": Model(tensor(HALF)[:, :1]), "x": inputs(7)}, ShapeError, r"\(7, 100, 2\)"),
        ({"program": len}, ByssusError, "no program"),
    ],
)
def test_errors(arguments, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        shortcuts(**{"program": half, "data": HALF, **arguments})


def test_errors_of_programs() -> None:
    with pytest.raises(DomainError, match=r"a and b share a map.*Boolean\(\) and Integer\(0, 1\)"):
        shortcuts(
            blackbox(Boolean(), Integer(0, 1), output=Boolean())(lambda a, b: a),
            [(True, 0)],
            shared=[0, 0],
        )
    mixed = blackbox(Discrete([1, True, 2]), output=Boolean())(lambda a: a is True)
    with pytest.raises(DomainError, match="equal to Python"):
        shortcuts(mixed, [(1,), (2,)])
    noisy = replace(as_world_program(half), own_widths=(2,), own=lambda: tensor([0.1, 0.9]))
    with pytest.raises(ByssusError, match="1 probabilistic facts of its own"):
        shortcuts(noisy, HALF)
    empty = blackbox(List(Integer(0, 1), 2), output=Integer(0, 2))(lambda xs: sum(xs))
    with pytest.raises(EmptyBatchError, match="all their lists are empty"):
        shortcuts(empty, [((),)])
