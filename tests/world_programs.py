"""What a `WorldProgram` gives: all of its worlds, and its formula evaluated over worlds."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from byssus.diffusion import WorldProgram
from byssus.provenance.sampled import Sampled, some_worlds


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
