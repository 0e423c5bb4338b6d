"""ProbLog programs as functions from worlds, and under `provenance="nesydm"`."""

from __future__ import annotations

import itertools
import pickle
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, event, given, settings
from torch import Tensor, nn

from byssus import (
    Boolean,
    ByssusError,
    ConceptError,
    Discrete,
    DomainError,
    Integer,
    ShapeError,
    TargetError,
    Tuple,
    blackbox,
)
from byssus.diffusion import MaskedDiffusion, WorldProgram
from byssus.provenance.sampled import Sampled, some_worlds
from byssus_problog import Program
from problog_oracle import Case, Oracle, cases
from test_random_programs import Inputs, build

_SETTINGS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)

SUM = """
    nn(digit, [X], D, [0,1,2]) :: digit(X, D).
    sum(Z) :- digit(a, X), digit(b, Y), Z is X + Y.
    query(sum(Z)).
"""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_worlds(program: WorldProgram) -> Tensor:
    worlds = list(itertools.product(*map(range, program.widths)))
    return torch.tensor(worlds, dtype=torch.int64).reshape(len(worlds), len(program.widths))


def by_formula(program: WorldProgram, worlds: Tensor) -> Tensor:
    """What `run` gives, from the formula."""
    assert program.formula is not None
    algebra = Sampled(program.widths, some_worlds(worlds[None]))
    tags = iter(program.formula.evaluate(algebra))
    codes = torch.full((len(worlds), len(program.dimensions)), -1)
    for d, values in enumerate(program.dimensions):
        for code, tag in zip(range(len(values)), tags, strict=False):
            rows = torch.from_numpy(algebra.worlds_in(tag))
            assert bool((codes[rows, d] == -1).all())  # the values exclude one another
            codes[rows, d] = code
    assert next(tags, None) is None
    return codes


# The function from worlds


def check_worlds(case: Case) -> None:
    """What worlds give adds up to what enumeration says, and the formula says the same."""
    oracle = Oracle(case)
    program, _ = build(case, oracle, provenance="nesydm")
    if program is None:
        return
    world_program = program.world_program()
    worlds = all_worlds(world_program)
    codes = world_program.run(worlds)
    assert torch.equal(by_formula(world_program, worlds), codes)
    inputs = Inputs.make(case)
    columns = [table.flatten(1) for table in inputs.given(case, program).values()]
    if world_program.own is not None:
        columns.append(world_program.own().double().expand(2, -1))
    probs = torch.cat([*columns, torch.ones(2, 0, dtype=torch.float64)], 1)
    offsets = torch.tensor(world_program.offsets, dtype=torch.int64)
    weights = probs[:, worlds + offsets].prod(-1)
    expected = oracle.weights(inputs.probs)
    answers = {query: bits & ~oracle.lost for query, bits in oracle.answers().items()}
    queries = iter(program.queries)
    for d, values in enumerate(world_program.dimensions):
        named = [(1, next(queries))]
        truth = repr(values) == "(False, True)"  # (0, 1) is equal to it
        if not truth:
            named = list(enumerate([named[0][1], *itertools.islice(queries, len(values) - 1)]))
            event("answers that exclude one another")
            together = reduce(or_, (answers.get(q, 0) for _, q in named))
            assert sum(answers.get(q, 0).bit_count() for _, q in named) == together.bit_count()
        for code, query in named:
            found = weights @ (codes[:, d] == code).double()
            wanted = expected @ oracle.indicator(answers.get(query, 0))
            assert torch.allclose(found, wanted.expand(2), atol=1e-6)
        if truth:
            lost = weights @ (codes[:, d] == -1).double()
            assert torch.allclose(lost, (expected @ oracle.indicator(oracle.lost)).expand(2))
            event("lost", str(bool(oracle.lost)))
    assert next(queries, None) is None


@_SETTINGS
@given(case=cases(failing=True))
def test_random_programs(case: Case) -> None:
    check_worlds(case)


@pytest.mark.slow
@settings(_SETTINGS, max_examples=1000)
@given(case=cases(failing=True))
def test_random_programs_1000(case: Case) -> None:
    check_worlds(case)
