"""A program as a function from worlds: for diffusion models, and for worlds that are given.

A world has a column for each instance of each network, in the order of `Program.instances`, and
one for each of the program's own probabilistic facts and disjunctions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from problog.logic import is_ground
from torch import Tensor

from byssus import (
    Boolean,
    ByssusError,
    CompilationLimit,
    Concepts,
    Discrete,
    Distribution,
    Formula,
    Tuple,
    Worlds,
    independent,
)
from byssus.diffusion.program import WorldProgram, _symbols
from byssus.domains import Domain, typed
from byssus.errors import listed
from byssus.estimators import Frequencies, Membership
from byssus.formula import Key, Node
from byssus.provenance.sampled import Sampled, mass_lost, some_worlds
from byssus.worlds import _first, alike, number_worlds

from ._database import Network
from ._grounding import Concept, negated, observation
from ._inputs import instance_of
from ._leaves import Outputs
from ._rules import Rules
from ._terms import bindings, to_python
from ._tokens import Token, tokens

if TYPE_CHECKING:
    from .program import Program

_TRIED = 1_000
"""Worlds that are tried where it is too hard to tell whether answers exclude one another."""


def world_program(program: Program) -> WorldProgram:
    """See `Program.world_program`."""
    run = _Run(program)
    rules = program._rules
    rest = run.calls or rules.ground.calls  # on calls that do not fit their budgets
    instances = program.instances
    return WorldProgram(
        tuple(instances),
        tuple(_domain(program._grounder.networks[n], len(some)) for n, some in instances.items()),
        run.dimensions,
        run,
        None if rest else run.formula(rules),
        tuple(fact.width for fact in run.facts),
        run.own if run.facts else None,
        run.output,
        tabulates=not rest,
    )


def over_worlds(program: Program, worlds: Tensor) -> Distribution:
    """How often each output is given by worlds `(batch, worlds, networks' columns)`."""
    instances = program.instances

    def draw(rules: Rules) -> tuple[Concepts, Worlds]:
        facts = _own_facts(rules)
        probs = _own_probabilities(program, facts).to(worlds.device).detach()
        own = Concepts(probs.expand(len(worlds), -1), tuple(fact.width for fact in facts))
        drawn = independent(own, worlds.shape[1], program.generator).indices
        return _Columns(instances, facts).place(torch.cat([worlds, drawn], 2), rules)

    given, lost, failures = program._sample(draw, ())
    concepts, drawn = alike(worlds.shape[:2], worlds)
    sample = replace(given, concepts=concepts, worlds=drawn)
    return Distribution(
        program.values,
        sample=sample,
        estimator=Frequencies(),
        lost=mass_lost(sample, lost),
        domain=program._outputs.domain,
        failures=failures,
    )


def extended(before: Rules, worlds: Worlds, rules: Rules, fresh: Worlds) -> Worlds:
    """Worlds of new rules, alike to worlds of the rules before in the concepts of these.

    Else worlds would ask for other calls each time that answers lead to more concepts.

    Args:
        before: the rules before.
        worlds: their worlds.
        rules: the new rules.
        fresh: worlds of these.
    """
    if fresh.complete or worlds.complete or fresh.indices.shape[1] != worlds.indices.shape[1]:
        return fresh
    columns = {name: i for i, name in enumerate(_names(before.ground.concepts))}
    observed = set(map(observation, rules.ground.observed))  # whose values may be others now
    indices = fresh.indices.clone()
    for i, name in enumerate(_names(rules.ground.concepts)):
        if name in columns and rules.ground.concepts[i].network not in observed:
            indices[:, :, i] = worlds.indices[:, :, columns[name]]
    number, _ = number_worlds(indices, rules.formula.widths)
    return Worlds(indices, _first(number), repeats=fresh.repeats)


def _own_facts(rules: Rules) -> list[Concept]:
    """The concepts that no network predicts and nothing else decides."""
    return [c for c in rules.ground.concepts if c.network is None and c.test is None]


def _own_probabilities(program: Program, facts: Sequence[Concept]) -> Tensor:
    """The probabilities of some facts, side by side."""
    like = next(iter(program.logits.values()), torch.empty(0))
    parts = [
        like.new_tensor(fact.probs) if fact.parameter is None else program._tuned(fact.parameter)
        for fact in facts
    ]
    return torch.cat([like.new_empty(0), *parts])


class _Columns:
    """Which column of a world tells which concept."""

    def __init__(
        self, instances: Mapping[str, tuple[Hashable, ...]], facts: Sequence[Concept]
    ) -> None:
        names: list[Hashable] = [(name, i) for name, some in instances.items() for i in some]
        names += _names(facts)
        self._columns = {name: column for column, name in enumerate(names)}

    def of(self, concepts: Sequence[Concept]) -> list[int | None]:
        """The column of each concept; None for one that others decide."""
        found: list[int | None] = []
        for concept, name in zip(concepts, _names(concepts), strict=True):
            if concept.test is None and name not in self._columns:
                raise ByssusError(
                    f"the answers of black boxes have led to {concept.name}, which the worlds do "
                    "not have: name all instances that may come, Program(..., instances=...), or "
                    "raise the budget, so that all calls are made beforehand"
                )
            found.append(None if concept.test is not None else self._columns[name])
        return found

    def place(self, worlds: Tensor, rules: Rules) -> tuple[Concepts, Worlds]:
        """Worlds `(batch, worlds, columns)` as those of a ground program."""
        columns = self.of(rules.ground.concepts)
        indices = worlds.new_full((*worlds.shape[:2], len(columns)), -1)
        decided = [i for i, column in enumerate(columns) if column is not None]
        indices[:, :, decided] = worlds[:, :, [c for c in columns if c is not None]]
        widths = rules.formula.widths
        # Nothing is asked of their probabilities.
        ones = torch.ones(1, sum(widths), device=worlds.device).expand(len(worlds), -1)
        return Concepts(ones, widths), some_worlds(indices)


def _names(concepts: Iterable[Concept]) -> list[Hashable]:
    """What tells concepts apart, from one grounding to the next."""
    seen: Counter[str] = Counter()
    names: list[Hashable] = []
    for concept in concepts:
        if concept.network is not None:
            names.append((concept.network, instance_of(concept)))
            continue
        seen[concept.name] += 1
        names.append((None, concept.name, seen[concept.name]))
    return names


def _domain(network: Network, instances: int) -> Domain:
    each = Boolean() if network.is_fact else Discrete(network.values)
    return each if instances == 1 else Tuple(*[each] * instances)


class _Run:
    """Runs a program on worlds.

    Attributes:
        facts: the program's own.
        calls: what some worlds ask and what is not known.
        dimensions: the values of each dimension of the output.
        output: the domain of the whole output, where a black box declares it.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        rules = program._rules
        ground = rules.ground
        if ground.evidence:
            raise ByssusError(
                f"the program has the evidence {listed(fact for fact, _ in ground.facts)}, and a "
                "diffusion model conditions on its outputs: ask for what is observed, as another "
                "query"
            )
        if ground.observed or any(True for p, _ in ground.patterns for _ in tokens(p)):
            raise ByssusError(
                "the program's query has observations: for a diffusion model, ask with a variable "
                "in their place"
            )
        self.calls = program._possible(rules, rules.pending)
        self.facts = _own_facts(rules)
        self._columns = _Columns(program.instances, self.facts)
        self.output: Domain | None = None
        self._roots: list[tuple[Key, ...]] = []
        outputs = program._outputs
        if outputs.domain is not None:
            self.output, self.dimensions = _declared(outputs)
            return
        if any(isinstance(t, Token) for answer in ground.answers for t in tokens(answer)):
            raise _unknown("rest on calls on sampled worlds")
        self._places: dict[Hashable, tuple[int, int]] = {}
        dimensions: list[tuple[Hashable, ...]] = []
        start = 0
        for pattern, count in ground.patterns:
            answers = range(start, start + count)
            start += count
            if not is_ground(pattern) and self.calls:
                raise _unknown(f"of {pattern} rest on calls that are not made beforehand")
            groups = (
                [answers] if count > 1 and exclusive(rules, answers) else [[a] for a in answers]
            )
            for group in groups:
                values = _values(ground.answers, pattern, group)
                dimensions.append(values if len(group) > 1 else (False, True))
                for code, answer in enumerate(group):
                    place = (len(dimensions) - 1, code if len(group) > 1 else 1)
                    self._places[typed(ground.values[answer])] = place
                self._roots.append(tuple(rules.formula.roots[answer] for answer in group))
        self.dimensions = tuple(dimensions)

    def formula(self, rules: Rules) -> Formula:
        """The rules over the columns of worlds, a root for each value of each dimension."""
        formula = rules.formula
        columns = self._columns.of(rules.ground.concepts)
        nodes: dict[int, Node] = {}
        for number, (kind, content) in enumerate(formula.nodes, 1):
            if kind == "literal":
                content = (columns[content[0]], content[1])
            nodes[number] = (kind, content)
        lost = formula.roots[len(rules.ground.answers)]
        roots: list[Key] = []
        for keys in self._roots:
            if len(keys) == 1:
                number = len(nodes) + 1
                nodes[number] = ("and", (negated(keys[0]), negated(lost)))
                roots.append(number)
            roots += keys
        networks = self._program._grounder.networks
        widths = [
            len(networks[name].values)
            for name, some in self._program.instances.items()
            for _ in some
        ]
        return Formula.from_graph([*widths, *(fact.width for fact in self.facts)], nodes, roots)

    def own(self) -> Tensor:
        """The probabilities of the program's own facts."""
        return _own_probabilities(self._program, self.facts)

    def __call__(self, worlds: Tensor) -> Tensor:
        """The position of each dimension's value in worlds `(rows, columns)`; -1 where none is."""
        program = self._program
        with program._staged():
            sample, lost, _ = program._sample(
                lambda rules: self._columns.place(worlds[None], rules), ()
            )
        device = worlds.device
        table = torch.tensor(self._table(program.values), dtype=torch.int64, device=device)
        found = _drawn(sample.membership, len(worlds), program.generator)
        entries = table.reshape(len(program.values), -1, 2)[found.output]  # (entries, places, 2)
        count = len(self.dimensions)
        cells = (found.world[:, None] * count + entries[:, :, 0]).flatten()
        several = (torch.bincount(cells, minlength=1) > 1).nonzero().flatten().tolist()
        if several:
            raise ByssusError(
                f"a world gives several values of dimension {several[0] % count} of the output, "
                f"{listed(self.dimensions[several[0] % count])}, where none of many worlds did: "
                "ask for each by a query of its own"
            )
        nothing = [0 if place else -1 for place in self._defaults]
        codes = torch.tensor(nothing, device=device).repeat(len(worlds), 1)
        codes.view(-1)[cells] = entries[:, :, 1].flatten()
        codes[lost.world] = -1
        return codes

    @property
    def _defaults(self) -> list[bool]:
        """For each dimension whether it is that an answer holds: where not, it is False."""
        if self.output is not None:
            return [False] * len(self.dimensions)
        return [len(keys) == 1 for keys in self._roots]

    def _table(self, values: Sequence[Hashable]) -> list[list[tuple[int, int]]]:
        """For each output the dimensions that it settles, and the positions of their values."""
        if self.output is not None:
            rows = [self.output.encode(value) for value in values]
            return [
                [
                    (i, code if code >= 0 else len(self.dimensions[i]) - 1)
                    for i, code in enumerate(row)
                ]
                for row in rows
            ]
        unknown = [value for value in values if typed(value) not in self._places]
        if unknown:
            raise ByssusError(
                f"the answers of black boxes have led to the output {unknown[0]!r}, which the "
                "program did not have before: raise the budget, so that all calls are made "
                "beforehand"
            )
        return [[self._places[typed(value)]] for value in values]


def _drawn(membership: Membership, worlds: int, generator: torch.Generator | None) -> Membership:
    """Of outputs that a world gives with probabilities, and that exclude one another, one or none.

    Args:
        membership: which world gives which output.
        worlds: how many worlds there are.
        generator: makes it reproducible.
    """
    if membership.share is None:
        return membership
    world, share = membership.world, membership.share.detach()
    none = (1 - share.new_zeros(worlds).index_add(0, world, share)).clamp_min(0)
    # The largest of Gumbel variables shifted by logarithms is each with its probability.
    uniform = torch.rand(len(share) + worlds, generator=generator).to(share)
    keys = torch.cat([share, none]).log() - (-uniform.log()).log()
    key, best = keys[: len(share)], keys[len(share) :]
    best = best.scatter_reduce(0, world, key, "amax")
    kept = (key == best[world]).nonzero().squeeze(1)
    return Membership(world[kept], membership.output[kept])


def _declared(outputs: Outputs) -> tuple[Domain, tuple[tuple[Hashable, ...], ...]]:
    """The domain of the calls that are the answers, and the values of its columns."""
    domain = outputs.domain
    assert domain is not None
    if not domain.finite:
        raise _unknown(f"are of {domain}, which is not finite")
    if domain.permuted:
        raise _unknown(f"are of {domain}, which has no columns of its own")
    return domain, tuple(_symbols(domain))


def _unknown(why: str) -> ByssusError:
    return ByssusError(
        f"the answers {why}, and a diffusion model needs to know all outputs beforehand: ask for "
        "each by a query of its own, without a variable; or let one black box of a finite output, "
        "as a Tuple of Integers, give the answer of the only query"
    )


def _values(
    answers: Sequence[object], pattern: object, group: Sequence[int]
) -> tuple[Hashable, ...]:
    """What answers of a query are called: the bindings of its variable, or their texts."""
    found = [list(bindings(pattern, answers[answer])) for answer in group]
    if all(len(some) == 1 and is_ground(some[0][1]) for some in found):
        values = [to_python(some[0][1]) for some in found]
        if len(set(map(typed, values))) == len(values):  # abc and "abc" are one in Python
            return tuple(values)
    return tuple(str(answers[answer]) for answer in group)


def exclusive(rules: Rules, answers: Sequence[int]) -> bool:
    """Whether no world gives two of some answers; False where one of many tried worlds does."""
    try:
        return rules.exclude(answers)
    except CompilationLimit:
        widths = rules.formula.widths
        generator = torch.Generator().manual_seed(0)
        probs = torch.cat([torch.full((1, width), 1 / width) for width in widths], 1)
        worlds = independent(Concepts(probs, widths), _TRIED, generator)
        tags = rules.formula.evaluate(Sampled(widths, worlds))
        seen = 0
        for answer in answers:
            if seen & tags[answer]:
                return False
            seen |= tags[answer]
        return True
