"""What a program has been grounded to, and how its sampled worlds are read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from byssus import (
    BlackBox,
    ByssusError,
    Circuit,
    CompilationLimit,
    Formula,
    ProbabilityError,
    ProgramError,
)
from byssus._sdd import Sdd
from byssus.estimators import Membership, Sample
from byssus.formula import Key

from ._grounding import Ask, Ground
from ._source import Source

_FEW_NODES, _FEW_SECONDS = 100_000, 5.0
"""What it may cost to find out whether outputs exclude one another."""


@dataclass(frozen=True)
class Rules:
    """What has been grounded so far, with what black boxes have answered so far.

    Attributes:
        ground: the ground program.
        formula: its outputs; then the worlds lost to failed calls; then, if any, the evidence.
        pending: the asks that have no answer yet. The formula is right only in worlds that
            support none of them.
        failures: the calls that failed and were discarded, as (name, *arguments), with the cause.
    """

    ground: Ground
    formula: Formula
    pending: tuple[Ask, ...]
    failures: dict[tuple[Hashable, ...], BaseException]

    @cached_property
    def guards(self) -> Formula:
        """In which worlds each pending ask is asked."""
        return self.ground.formula(ask.guard for ask in self.pending)

    @cached_property
    def call_guards(self) -> Formula:
        """In which worlds each call on tokens is made."""
        return self.ground.formula(guard for _, guard in self.ground.calls)

    def __getstate__(self) -> dict[str, Any]:
        # diagrams do not pickle; they are made again
        return {name: value for name, value in vars(self).items() if name != "sdd"}

    @cached_property
    def exclusive(self) -> bool:
        """Whether no world gives two outputs; False where that is hard to tell."""
        try:
            return self.exclude(range(len(self.ground.values)))
        except CompilationLimit:
            return False

    def exclude(self, answers: Sequence[int]) -> bool:
        """Whether no world gives two of some answers.

        Raises:
            CompilationLimit: it is hard to tell.
        """
        nodes = list(self.formula.nodes)
        roots: list[Key] = []
        before: Key = None
        for answer in answers:
            key = self.formula.roots[answer]
            nodes.append(("and", (key, before)))
            roots.append(len(nodes))
            nodes.append(("or", (key, before)))
            before = len(nodes)
        formula = Formula.from_graph(self.formula.widths, dict(enumerate(nodes, 1)), roots)
        circuit = Circuit.compile(formula, nodes=_FEW_NODES, seconds=_FEW_SECONDS)
        return not any(circuit.satisfiable)

    @cached_property
    def sdd(self) -> Sdd:
        """The diagrams that all steps of `mixed` share."""
        return Sdd(self.formula.widths, self.formula.order())


class NoAnswer(ProgramError):  # noqa: N818
    """A program none of whose queries has an answer in any world.

    Attributes:
        queries: what it asks.
    """

    def __init__(self, queries: Sequence[str], source: Source) -> None:
        super().__init__(
            "no query has an answer in any world: do the rules derive what is asked for?",
            file=None if source.file is None else str(source.file),
        )
        self.queries = tuple(queries)


def named(blackboxes: Iterable[BlackBox] | Mapping[str, BlackBox]) -> dict[str, BlackBox]:
    """Black boxes by the name under which rules call them."""
    if isinstance(blackboxes, BlackBox):
        blackboxes = [blackboxes]
    pairs = (
        list(blackboxes.items())
        if isinstance(blackboxes, Mapping)
        else [(getattr(box, "name", repr(box)), box) for box in blackboxes]
    )
    for name, box in pairs:
        if not isinstance(box, BlackBox):
            raise ByssusError(f"{name} is not a black box: decorate it with @byssus.blackbox")
        if [other for other, _ in pairs].count(name) > 1:
            raise ByssusError(
                f"two black boxes are called {name}: give a mapping from names to black boxes"
            )
    return dict(pairs)


def impossible(row: int) -> ProbabilityError:
    """The error of evidence that an example contradicts."""
    return ProbabilityError(
        f"the evidence has probability 0 in example {row}: it contradicts the program"
    )


def exclusive(rules: Rules, sample: Sample, compiled: bool) -> bool:
    """Whether the outputs are alternatives: there are several, and no world gives two."""
    if sample.outputs < 2:
        return False
    if len(rules.ground.answers) == 1:  # a token, which is one value in a world
        return True
    found = sample.membership
    world = found.world[found.output < sample.outputs]
    if not len(world) or int(torch.bincount(world).max()) < 2:
        return True
    # Where concepts are summed out, a world may give several that exclude one another all the same.
    return found.share is not None and compiled and rules.exclusive


def joined(outputs: Membership, evidence: Membership, number: int) -> Membership:
    """The outputs, and the evidence as the output of this number."""
    shares = [m.share for m in (outputs, evidence) if m.share is not None]
    if len(shares) == 1:
        one = shares[0]
        shares = [
            one.new_ones(len(m.world)) if m.share is None else m.share for m in (outputs, evidence)
        ]
    return Membership(
        torch.cat([outputs.world, evidence.world]),
        torch.cat([outputs.output, evidence.output + number]),
        torch.cat(shares) if shares else None,
    )


def part(membership: Membership, start: int, stop: int) -> Membership:
    """The entries of some outputs, renumbered from 0."""
    kept = (membership.output >= start) & (membership.output < stop)
    share = None if membership.share is None else membership.share[kept]
    return Membership(membership.world[kept], membership.output[kept] - start, share)
