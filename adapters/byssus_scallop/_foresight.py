"""What black boxes will be asked, found out without asking them.

The part of a program that does not depend on their answers is run: what it asks is what will be
asked. Of the other rules those literals are left out that depend on answers; where variables are
bound without them, what the rules then ask is all that can be asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain

from byssus import ByssusError, CompilationLimit, Plan
from byssus.formula import Key

from ._aggregates import AGGREGATES
from ._concepts import ConceptTable
from ._engine import Engine, Limits, Row, TooManyCalls, TooManyTuples
from ._ir import Program, Rule
from ._planning import Atom, Literal, Negated, PlannedRule, literals_of, plan, variables
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
    known = _Known(program, unknown)
    found: dict[str, int | None] = {}
    excess = None
    tags = Ground(ConceptTable(inputs.blocks), settings.nodes, settings.seconds)
    tables = _derived(replace(program, rules=known.rules), known, tags, solver, inputs)
    for box in program.blackboxes:
        most = box.box.table_limit
        if not known.exact.issuperset(box.over or (box.asked,)):
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
    bounded = [box for box in program.blackboxes if box.asked in known.bounded]
    if bounded:
        tags = _Few(ConceptTable(inputs.blocks))
        program = replace(program, rules=(*known.rules, *known.weakened))
        with suppress(CompilationLimit, TooManyTuples):
            tables = _derived(program, known, tags, solver, inputs)
            found |= {box.name: len(tables[str(box.asked)]) * box.times for box in bounded}
    return found, excess


def _derived(
    program: Program, known: _Known, tags: Ground, solver: Solver, inputs: Inputs
) -> Mapping[str, Mapping[Row, Key]]:
    """The relations that are known, or of which it is known what they can hold."""
    aggregates = tuple(one for one in program.aggregates if one.head in known.exact)
    engine = Engine(replace(program, aggregates=aggregates, blackboxes=()))
    limits = Limits(solver.settings.iterations, solver.settings.nodes)
    return engine.run(tags, given_facts(tags, inputs), limits=limits).tables


class _Few(Ground):
    """A ground program that ends early: what is left out in it may be what keeps it small."""

    def __init__(self, table: ConceptTable) -> None:
        super().__init__(table)
        self.left = 1_000_000

    def mult(self, a: Key, b: Key) -> Key:
        self.left -= 1
        if self.left < 0:
            raise CompilationLimit("there is too much that may be asked")
        return super().mult(a, b)


class _Known:
    """What is known of relations before black boxes are called.

    Attributes:
        exact: those that do not depend on answers.
        bounded: those that hold nothing but what they hold with all literals that depend on
            answers left out of their rules.
        rules: of the exact ones.
        weakened: of the bounded ones, without these literals.
    """

    def __init__(self, program: Program, unknown: Collection[str]) -> None:
        self.exact: set[str] = set()
        self.bounded: set[str] = set()
        self.weakened: list[Rule] = []
        open_ = {*unknown, *(box.name for box in program.blackboxes)}
        # What these find depends on probabilities, or on chance.
        open_ |= {
            one.head
            for one in program.aggregates
            if AGGREGATES[one.operator].weighs or one.operator == "uniform"
        }
        aggregated = {one.head for one in program.aggregates}
        rules, uses = defaultdict(list), defaultdict(set)
        for rule in program.rules:
            rules[rule.head].append(rule)
        graph = dependencies(program)
        for head, used in graph.edges:
            uses[head].add(used)
        for component in graph.components:
            within = set(component)
            if within.isdisjoint(open_) and all(
                uses[name] <= self.exact | within for name in component
            ):
                self.exact |= within
                continue
            left = within - open_ - aggregated
            while bounded := {
                name: weak for name in left if (weak := self._weakened(rules[name])) is not None
            }:
                left -= bounded.keys()
                self.bounded |= bounded.keys()
                self.weakened += chain.from_iterable(bounded.values())
        self.rules = tuple(rule for rule in program.rules if rule.head in self.exact)

    def _weakened(self, rules: Sequence[Rule]) -> list[Rule] | None:
        """Rules without what is not known; None if one then does not say what it derives."""
        found: list[Rule] = []
        for rule in rules:
            literals = [literal for literal in literals_of(rule) if self._keeps(literal)]
            planned = plan(literals, partial=True)
            if any(name not in planned.bound for term in rule.terms for name in variables(term)):
                return None
            kept = [literals[i] for i in sorted(planned.order)]
            steps = tuple(plan(kept).steps)
            # Of no probability: it is derived where it may be.
            found.append(PlannedRule(rule.head, rule.terms, steps, rule.span, literals=(*kept,)))
        return found

    def _keeps(self, literal: Literal) -> bool:
        if isinstance(literal, Negated):
            return literal.relation in self.exact
        return not isinstance(literal, Atom) or literal.relation in self.exact | self.bounded
