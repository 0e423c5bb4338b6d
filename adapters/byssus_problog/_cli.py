"""`byssus run file.pl`: run a program and print what it queries, as `problog file.pl` does."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from problog.util import format_dictionary

from byssus import ByssusError, Marginals
from byssus.errors import listed

from ._foresight import plan
from ._rules import NoAnswer
from .llms import LLMBox
from .program import Program

__all__ = ["run"]


def run(options: argparse.Namespace) -> None:
    """Run a `.pl` file as the command line says; see `byssus run --help`."""
    if options.plan:
        sys.stdout.write(f"{plan(options.file, provenance=options.provenance)}\n")
        return
    generator = None if options.seed is None else torch.Generator().manual_seed(options.seed)
    # Distinct worlds are off by the mass not seen, frequencies by 1/sqrt(samples).
    marginals = Marginals(1 - max(options.samples, 1) ** -0.5)
    # As precise as ProbLog, whatever torch's default is.
    with _double(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        try:
            program = Program(
                Path(options.file),
                provenance=options.provenance,
                samples=options.samples,
                estimator="auto" if options.provenance == "nesydm" else marginals,
                generator=generator,
                nodes=options.nodes,
                seconds=options.seconds,
            )
        except NoAnswer as error:
            found, lost = dict.fromkeys(error.queries, 0.0), 0.0
        else:
            found, lost = _evaluate(program)
            for name, box in program.blackboxes.items():
                if isinstance(box, LLMBox):
                    sys.stderr.write(f"byssus: {name}: {box.report()}\n")
    for warning in caught:
        sys.stderr.write(f"byssus: {warning.message}\n")
    if lost > 0:
        sys.stderr.write(f"byssus: worlds of probability {lost:.6g} lost to failed calls\n")
    sys.stdout.write(f"{format_dictionary({_Shown(name): p for name, p in found.items()})}\n")
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")


class _Shown(str):
    """A query as it is printed: answers may hold line breaks, and what terminals obey."""

    __slots__ = ()

    def __str__(self) -> str:
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in self)


def _evaluate(program: Program) -> tuple[dict[str, float], float]:
    """The probability of each query, and that of the worlds that were lost."""
    if program.instances:
        raise ByssusError(
            f"the networks {listed(program.instances)} need tensors, which a command line does not "
            "have: give them to byssus_problog.Program, from Python"
        )
    result = program()
    found = dict(zip(program.queries, result.scores[0].tolist(), strict=True))
    return {**dict.fromkeys(program.unanswered, 0.0), **found}, result.lost[0].item()


@contextmanager
def _double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
