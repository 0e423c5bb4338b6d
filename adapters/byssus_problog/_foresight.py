"""What black boxes will be asked, found out without asking them."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from problog.logic import Term
from problog.program import LogicProgram

from byssus import BlackBox, ByssusError, Chances, Circuit, CompilationLimit, Plan

from ._engine import Arguments
from ._grounding import Ground, Grounder
from ._rules import named
from ._source import Source
from ._tokens import values_in
from .llms import gives_several, most_calls, votes

__all__ = ["plan"]

_ANSWERS = 100
"""A black box with at most so many answers is taken to give any of them."""

_TUPLES = 10_000
"""Calls of networks' values that are listed, to see which of them worlds support."""

_LIMITS: Mapping[str, Any] = {"nodes": 1_000_000, "seconds": 10.0}


def plan(
    program: str | Path | LogicProgram,
    blackboxes: Iterable[BlackBox] | Mapping[str, BlackBox] = (),
    *,
    query: Term | Sequence[Term] | None = None,
    provenance: str = "auto",
) -> Plan:
    """What a `Program` will ask of its black boxes, before any of them is called.

    A black box of few answers (choices, a test) is taken to give any of them. Of others it is not
    known what they lead to: where rules go on from their answers to more calls, how many these are
    is left open.

    Args:
        program: see `Program`; so are the other arguments.
        blackboxes: the black boxes.
        query: what to ask.
        provenance: what is asked for.

    Returns:
        A plan whose `calls` are the most calls of each black box, its votes counted one by one:
        as many as rules can ask for, or as its budget allows; None where neither is known.

    Raises:
        ProgramError: a fault in the program, with file, line and a caret.

    Example:
        >>> plan("leaf.pl").calls
        {'species': 54}
    """
    boxes = named(blackboxes)
    queries = [query] if isinstance(query, Term) else query
    grounder = Grounder(Source.read(program), boxes, queries, symbolic=bool(boxes))
    asked = _Asked(grounder.boxes)
    ground = grounder.ground(asked)
    sizes = _sizes(ground)
    if grounder.symbolic and sum(sizes.values()) <= _TUPLES:
        grounder.use_values()
        asked.open.clear()
        ground = grounder.ground(asked)
        sizes = _sizes(ground)
    count = dict.fromkeys(grounder.boxes, 0)
    for name in _possible(ground):
        count[name] += 1
    for name, size in sizes.items():
        count[name] += size
    database = grounder._database
    if database is None:
        raise ByssusError("the program was not read")
    unknown = _leads_to_calls(database.bodies, asked.open, set(grounder.boxes))
    fits = not unknown and all(
        count[name] <= box.table_limit for name, box in grounder.boxes.items()
    )
    calls: dict[str, int | None] = {}
    for name, box in grounder.boxes.items():
        found = None if unknown else count[name] * votes(box)
        known = [number for number in (found, most_calls(box)) if number is not None]
        calls[name] = min(known, default=None)
    why = "asked for"
    if provenance == "auto":
        provenance = "exact" if fits else "sampled"
        why = (
            "if the rules compile; sampled if not"
            if fits
            else "its calls do not all fit their budgets, or are not known beforehand"
        )
    return Plan(provenance, why, calls)


class _Asked:
    """Answers calls with all that they may give; with nothing where that is not known.

    Attributes:
        open: the black boxes of which it is not known.
    """

    def __init__(self, boxes: Mapping[str, BlackBox]) -> None:
        self._boxes = boxes
        self.open: set[str] = set()

    def __call__(self, name: str, arguments: Arguments) -> list[Hashable] | None:
        box = self._boxes[name]
        output = box.output
        if gives_several(box) or output is None or not output.finite or output.size > _ANSWERS:
            self.open.add(name)
            return None
        return [Chances(dict.fromkeys(output.values, 1 / output.size))]


def _sizes(ground: Ground) -> dict[str, int]:
    """How many tuples the calls on tokens are at most, for each black box."""
    found: dict[str, int] = {}
    for call, _ in ground.calls:
        widths = [ground.concepts[ground.tokens[value]].width for value in values_in(call)]
        found[call.box] = found.get(call.box, 0) + prod(widths)
    return found


def _possible(ground: Ground) -> Iterator[str]:
    """The black box of each call that some world supports."""
    try:
        circuit = Circuit.compile(ground.formula(ask.guard for ask in ground.asks), **_LIMITS)
        supported: Iterable[bool] = circuit.satisfiable
    except CompilationLimit:
        supported = [True] * len(ground.asks)
    return (ask.box for ask, can in zip(ground.asks, supported, strict=True) if can)


def _leads_to_calls(
    bodies: Sequence[tuple[tuple[str, ...], Term]], opened: Collection[str], boxes: set[str]
) -> bool:
    """Whether after a goal that rests on an open answer comes one that leads to a call."""
    if not opened:
        return False
    uses: dict[str, set[str]] = {}
    goals = [(heads, list(_names(body))) for heads, body in bodies]
    for heads, names in goals:
        for head in heads:
            uses.setdefault(head, set()).update(names)
    resting, leading = _using(uses, set(opened)), _using(uses, boxes)
    return any(
        name in resting and not leading.isdisjoint(names[i + 1 :])
        for _, names in goals
        for i, name in enumerate(names)
    )


def _using(uses: Mapping[str, set[str]], names: set[str]) -> set[str]:
    """The predicates that rest on some of these, themselves included."""
    found = set(names)
    while True:
        more = {head for head, used in uses.items() if head not in found and used & found}
        if not more:
            return found
        found |= more


def _names(term: Any) -> Iterator[str]:
    """The names of all goals in a body, and of the terms in them, as written."""
    stack = [term]
    while stack:
        part = stack.pop()
        if isinstance(part, Term):
            yield str(part.functor)
            stack += reversed(part.args)
