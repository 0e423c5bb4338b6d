"""Inference by circuits, against the enumeration of worlds and against the table of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, chain, pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from additions import addition
from byssus import Boolean, ByssusError, CompilationLimit, Formula, Integer, List
from byssus.diffusion import WorldProgram
from byssus.diffusion._compiled import Compiled
from byssus.diffusion._enumerated import Enumerated
from byssus.errors import ProbabilityError
from oracle import (
    check_frequencies,
    formulas,
    gradient,
    holds,
    probabilities,
    raw,
    world_weights,
    worlds_of,
)

close = {"atol": 1e-9, "rtol": 1e-6}


def program_of(formula: Formula, sizes: tuple[int, ...], own: int = 0) -> WorldProgram:
    """A formula as a program with dimensions of these sizes; the last concepts are its own."""
    concepts = len(formula.widths) - own

    def run(worlds: Tensor) -> Tensor:
        raise AssertionError("a compiled program is not run")

    return WorldProgram(
        names=tuple(f"c{i}" for i in range(concepts)),
        domains=tuple(Integer(0, width - 1) for width in formula.widths[:concepts]),
        dimensions=tuple(tuple(range(size)) for size in sizes),
        run=run,
        formula=formula,
        own_widths=formula.widths[concepts:],
    )


@st.composite
def programs(draw: st.DrawFn) -> WorldProgram:
    """Dimensions whose values need not exclude one another, and may all be missing."""
    formula = draw(formulas(min_concepts=1, max_worlds=60))
    cuts = draw(st.sets(st.integers(1, len(formula.roots)))) | {0, len(formula.roots)}
    sizes = tuple(b - a for a, b in pairwise(sorted(cuts)))
    return program_of(formula, sizes, draw(st.integers(0, 1)) if len(formula.widths) > 1 else 0)


def tables(program: WorldProgram, y: Tensor) -> Tensor:
    """Which worlds give what is observed of each dimension: (rows, dimensions, worlds)."""
    assert program.formula is not None
    table = torch.tensor([holds(program.formula, w) for w in worlds_of(program.widths)])
    starts = list(accumulate(program.sizes, initial=0))[:-1]
    return table.T[y.clamp_min(0) + torch.tensor(starts)] | (y < 0)[..., None]


def draw_codes(program: WorldProgram, rows: int, data: st.DataObject) -> Tensor:
    return torch.tensor(
        [[data.draw(st.integers(-1, size - 1)) for size in program.sizes] for _ in range(rows)]
    )


@pytest.mark.parametrize("vtree", ["auto", "balanced"])
@settings(max_examples=40)
@given(program=programs(), data=st.data())
@example(program=program_of(Formula((2,), (), (0, None, None, 0)), (2, 1, 1)), data=None)
@example(program=program_of(Formula((2,), (("literal", (0, 1)),), (-1, 1)), (2,)), data=None)
def test_agrees_with_enumeration(
    vtree: str, program: WorldProgram, data: st.DataObject | None
) -> None:
    rows = 3
    y = torch.zeros(rows, len(program.sizes), dtype=torch.int64)
    weights = probabilities(program.widths, rows)
    if data is not None:
        y = draw_codes(program, rows, data)
        for concept in data.draw(st.sets(st.integers(0, len(program.widths) - 1), max_size=2)):
            start, width = program.offsets[concept], program.widths[concept]
            weights[:, start : start + width] = 0
            weights[:, start + data.draw(st.integers(0, width - 1))] = 1
    compiled = Compiled(program, vtree=vtree)
    weights.requires_grad_()
    logs = raw(weights.log())
    gives = tables(program, y)
    worlds = world_weights(weights, program.widths)

    expected = (worlds[:, None] * gives).sum(-1)
    found = compiled.log_likelihoods(logs, y)
    torch.testing.assert_close(found.exp(), expected, **close)
    (wanted,) = gradient(expected.sum(), weights)
    (got,) = gradient(found.exp().sum(), logs)
    torch.testing.assert_close(got, wanted * weights, **close)

    joint = worlds * gives.all(1)
    likely = joint.sum(-1)
    torch.testing.assert_close(compiled.log_joint(logs, y).exp(), likely, **close)
    assert torch.equal(compiled.possible(y), gives.all(1).any(-1))

    some = likely > 0
    for row in range(rows):
        if not some[row]:
            for ask in (compiled.draw, compiled.entropy):
                with pytest.raises(ProbabilityError, match="weight 0"):
                    ask(logs[row : row + 1], y[row : row + 1])
    if not some.any():
        return
    posterior = joint[some] / likely[some, None]
    expected = -(posterior * posterior.where(posterior > 0, 1.0).log()).sum(-1)
    found = compiled.entropy(logs[some], y[some])
    torch.testing.assert_close(found, expected, **close)
    (wanted,) = gradient(expected.sum(), weights)
    (got,) = gradient(found.sum(), logs)
    assert got.isfinite().all()
    torch.testing.assert_close(got, wanted * weights, atol=1e-8, rtol=1e-6)

    draws = 1_000
    generator = torch.Generator().manual_seed(0)
    each = [part[some].repeat_interleave(draws, 0) for part in (logs, y)]
    drawn = compiled.draw(*each, generator).view(-1, draws, len(program.widths))
    for row, probs in zip(drawn, posterior.detach(), strict=True):
        check_frequencies(row, program.widths, probs)


def test_agrees_with_the_table() -> None:
    program = addition(1)
    table, compiled = Enumerated(program), Compiled(program)
    rows = 40
    worlds = torch.randint(10, (rows, 2), generator=torch.Generator().manual_seed(0))
    y = program.outputs(worlds)
    y[::3, 0] = y[1::4, 1] = -1
    log_probs = probabilities(program.widths, rows).log()
    unmasked = torch.full((rows, 20), -torch.inf, dtype=torch.float64)
    unmasked.scatter_(1, worlds + torch.tensor([0, 10]), 0.0)
    log_probs[20:, 10:] = unmasked[20:, 10:]
    log_probs = raw(log_probs)
    for name in ("log_likelihoods", "log_joint", "entropy"):
        found, expected = (getattr(way, name)(log_probs, y) for way in (compiled, table))
        torch.testing.assert_close(found, expected, **close)
        got, wanted = (gradient(result.sum(), log_probs) for result in (found, expected))
        torch.testing.assert_close(got, wanted, **close)
    drawn = program.outputs(compiled.draw(log_probs, y))
    assert torch.equal(drawn.masked_fill(y < 0, -1), y)
    every = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 10))
    assert torch.equal(compiled.possible(every), table.possible(every))


@pytest.mark.parametrize("reverse", [False, True])
def test_one_circuit_for_all_labels_stays_small(reverse: bool) -> None:
    # With what is observed of the sum before or after all digits, it has 45,000 nodes.
    program = addition(4)
    if reverse:  # the last digit of the sum first
        assert program.formula is not None
        roots = program.formula.roots
        starts = list(accumulate(program.sizes, initial=0))
        parts = [roots[a:b] for a, b in pairwise(starts)]
        formula = replace(program.formula, roots=tuple(chain(*parts[::-1])))
        program = program_of(formula, program.sizes[::-1])
    compiled = Compiled(program)
    assert compiled.joint.size < 200
    assert compiled.counts.size < 1_000


def test_draws_of_sums() -> None:
    program = addition(4)
    compiled = Compiled(program)
    rows = 200
    y = program.outputs(torch.randint(10, (rows, 8), generator=torch.Generator().manual_seed(0)))
    log_probs = probabilities(program.widths, rows, dtype=torch.float32).log()
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    first, again, other = (compiled.draw(log_probs, y, generator) for generator in generators)
    assert torch.equal(program.outputs(first), y)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # Two numbers that give 0000 and 9999 + 9999 have one way each.
    y = program.outputs(torch.tensor([[0] * 8, [9] * 8]))
    uniform = torch.zeros(2, 80)
    assert compiled.draw(uniform, y).tolist() == [[0] * 8, [9] * 8]
    torch.testing.assert_close(compiled.entropy(uniform, y), torch.zeros(2), atol=1e-5, rtol=0)


def test_worlds_without_a_value() -> None:
    # "Exactly one is true": which one? Of two that are true, the dimension has no value.
    literals = [("literal", (c, 1)) for c in range(2)]
    nodes = (*literals, ("and", (1, -2)), ("and", (-1, 2)))
    compiled = Compiled(program_of(Formula((2, 2), nodes, (3, 4, -1, 1)), (2, 2)))
    y = torch.tensor([[0, 1], [1, 0], [0, 0], [1, 1]])
    assert compiled.possible(y).tolist() == [True, True, False, False]
    log_probs = torch.tensor([[0.5, 0.5, 0.2, 0.8]]).log().expand(4, -1)
    likely = compiled.log_likelihoods(log_probs, y).exp()
    torch.testing.assert_close(likely[:2], torch.tensor([[0.1, 0.5], [0.4, 0.5]]))
    assert compiled.draw(log_probs[:2], y[:2]).tolist() == [[1, 0], [0, 1]]


def test_limits_pass_through() -> None:
    program = addition(2)
    with pytest.raises(CompilationLimit, match="limit of 20 nodes"):
        Compiled(program, nodes=20)
    with pytest.raises(CompilationLimit, match="limit of 0 seconds"):
        Compiled(program, seconds=0)


def test_what_cannot_be_compiled() -> None:
    program = addition(1)
    options: dict[str, Any] = {"names": program.names, "domains": program.domains}
    options |= {"dimensions": program.dimensions, "run": program.run}
    with pytest.raises(ByssusError, match="not known by its rules"):
        Compiled(WorldProgram(**options))
    formula = Formula((2, 2), (("literal", (0, 1)),), (-1, 1))
    options |= {"names": ("bits",), "domains": (List(Boolean(), 2),), "dimensions": ((0, 1),)}
    with pytest.raises(ByssusError, match=r"different lengths.*List"):
        Compiled(WorldProgram(**options, formula=formula))


def test_devices(device: torch.device) -> None:
    program = addition(1)
    compiled = Compiled(program).to(device)
    assert not compiled.state_dict()
    y = torch.tensor([[1, 8], [0, 0]], device=device)
    log_probs = torch.zeros(2, 20, device=device)
    drawn = compiled.draw(log_probs, y, torch.Generator().manual_seed(0))
    assert drawn.device.type == device.type
    assert drawn.tolist() == [[9, 9], [0, 0]]
    assert compiled.possible(y).all()
    assert compiled.log_likelihoods(log_probs, y).shape == (2, 2)
    torch.testing.assert_close(compiled.entropy(log_probs, y).cpu(), torch.zeros(2))
