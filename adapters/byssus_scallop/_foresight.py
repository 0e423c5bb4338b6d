"""What black boxes will be asked, found out without asking them.

The part of a program that does not depend on their answers is run. What is asked in it is all that
a black box can be asked, unless what it is asked depends on answers, its own or another's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace

from byssus import ByssusError, CompilationLimit, Plan

from ._aggregates import AGGREGATES
from ._concepts import ConceptTable
from ._engine import Engine, Limits, TooManyCalls, TooManyTuples
from ._ir import Program
from ._solver import Inputs, Solver, _relations, given_facts
from ._strata import dependencies
from ._tags import Ground

__all__ = ["foreseen"]


def foreseen(solver: Solver, inputs: Inputs, unknown: Collection[str] = ()) -> Plan:
    """What a run will do. Nothing is called.

    Args:
        solver: what will run.
        inputs: the facts; their probabilities make no difference.
        unknown: relations whose facts will come only then.
    """
    provenance, why = solver.settings.provenance, "asked for"
    found: dict[str, int | None] = {}
    limit: ByssusError | None = None
    try:
        found, limit = _asked(solver, inputs, unknown)
    except (CompilationLimit, TooManyTuples) as error:
        limit = error
    if provenance == "auto":
        provenance = "exact" if limit is None else "sampled"
        why = "if the program compiles and its calls fit their budgets; sampled if not"
        why = why if limit is None else str(limit)
    calls = {}
    for box in solver.engine.program.blackboxes:
        known = [n for n in (found.get(box.name), box.budget) if n is not None]
        calls[box.name] = min(known, default=None)
    table = ConceptTable(inputs.blocks)
    names = _relations(table)
    if provenance == "exact":
        sampled: set[str] = set()
    elif provenance == "mixed":
        sampled = set(names) - {names[concept] for concept in solver._exact_concepts(table)}
    else:
        sampled = set(names)
    return Plan(provenance, why, calls, tuple(sorted(sampled)))


def _asked(
    solver: Solver, inputs: Inputs, unknown: Collection[str]
) -> tuple[dict[str, int | None], TooManyCalls | None]:
    """How many calls each black box can be asked for, if that is known; and if one is for too many.

    These are more than are tabulated.
    """
    program, settings = solver.engine.program, solver.settings
    open_ = _depending(program, unknown)
    engine = Engine(
        replace(
            program,
            rules=tuple(rule for rule in program.rules if rule.head not in open_),
            aggregates=tuple(one for one in program.aggregates if one.head not in open_),
            blackboxes=(),
        )
    )
    tags = Ground(ConceptTable(inputs.blocks), settings.nodes, settings.seconds)
    limits = Limits(settings.iterations, settings.nodes)
    tables = engine.run(tags, given_facts(tags, inputs), limits=limits).tables
    found: dict[str, int | None] = {}
    excess = None
    for box in program.blackboxes:
        most = box.box.table_limit
        found[box.name] = None
        if open_.intersection(box.over or (box.asked,)):
            continue
        if box.asked is not None:
            count = len(tables[box.asked])
        else:
            contents = tags.contents([tables[name] for name in box.over], most)
            count = most + 1 if contents is None else len(contents)
        if box.asked is not None or count <= most:
            found[box.name] = count * box.times
        if count > most:
            excess = excess or TooManyCalls(box, count, most)
    return found, excess


def _depending(program: Program, unknown: Collection[str]) -> set[str]:
    """The relations that depend on answers of black boxes, or on what is unknown."""
    found = {*unknown, *(box.name for box in program.blackboxes)}
    # What these find depends on probabilities, or on chance.
    found |= {
        one.head
        for one in program.aggregates
        if AGGREGATES[one.operator].weighs or one.operator == "uniform"
    }
    graph = dependencies(program)
    uses = defaultdict(set)
    for head, used in graph.edges:
        uses[head].add(used)
    for component in graph.components:
        if any(not found.isdisjoint(uses[name]) for name in component):
            found.update(component)
    return found
