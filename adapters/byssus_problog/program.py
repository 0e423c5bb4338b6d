"""Program: a ProbLog program as a torch module."""

from __future__ import annotations

import time
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from byssus import (
    BlackBox,
    ByssusError,
    Circuit,
    CompilationLimit,
    ConceptError,
    Concepts,
    Distribution,
    Estimator,
    Formula,
    IndeCateR,
    Mixed,
    Plan,
    ProbabilityError,
    ProgramError,
    Sampled,
    Worlds,
    independent,
)
from byssus._calls import Failure
from byssus._sdd import Sdd
from byssus.errors import listed
from byssus.estimators import Membership, Sample, as_estimator
from byssus.formula import Key
from byssus.provenance.sampled import circuit_membership, mass_lost, some_worlds
from byssus.worlds import Sampler, check_sampling

from ._engine import Arguments
from ._grounding import Ask, Ground, Grounder, negated
from ._inputs import Inputs
from ._source import Source

__all__ = ["Program"]

_UNKNOWN = Failure((), Exception(), "raised")


@dataclass(frozen=True)
class _Rules:
    """What has been grounded so far, with what black boxes have answered so far.

    Attributes:
        ground: the ground program.
        formula: its outputs; then the worlds lost to failed calls; then, if any, the evidence.
        pending: the asks that have no answer yet. The formula is right only in worlds that
            support none of them.
        failed: the asks whose calls failed and were discarded.
    """

    ground: Ground
    formula: Formula
    pending: tuple[Ask, ...]
    failed: tuple[Ask, ...]

    @cached_property
    def guards(self) -> Formula:
        """In which worlds each pending ask is asked."""
        return self.ground.formula(ask.guard for ask in self.pending)

    def __getstate__(self) -> dict[str, Any]:
        # diagrams do not pickle; they are made again
        return {name: value for name, value in vars(self).items() if name != "sdd"}

    @cached_property
    def sdd(self) -> Sdd:
        """The diagrams that all steps of `mixed` share."""
        return Sdd(self.formula.widths, self.formula.order())


class Program(nn.Module):
    """A ProbLog program that runs over a batch of concept probabilities, and learns.

    It is grounded once. Where its rules compile, every step is the evaluation of a circuit.

    Networks are declared as in DeepProbLog, `nn(digit, [X], D, [0, 1, 2]) :: digit(X, D).`, or
    `nn(rain, [X]) :: rain(X).` for a fact; their probabilities are given by name. Predicates of
    one more argument than a black box has are calls of it, of the same number if it is Boolean.

    Args:
        program: the path of a `.pl` file, or the text of a program.
        blackboxes: the black boxes that the rules call; or a mapping from other names to them.
        provenance: "exact", "sampled", "mixed", or "auto": exact where the calls fit the black
            boxes' budgets and the rules compile within `nodes` and `seconds`, else sampled.
        sampled: for "mixed", what is sampled, the rest being exact: networks ("digit") or single
            concepts ("digit(a)"). Half of the networks' concepts if not given.
        samples: worlds an example.
        estimator: "auto", "ised", "distinct", "rloo", "indecater", or an `Estimator`.
        worlds: where worlds come from, see `byssus.worlds`.
        generator: makes sampling reproducible.
        instances: for each network the inputs it is used on, in the order of the tensor's second
            dimension, if not the natural order of those that the queries need.
        nodes: the most SDD nodes that compilation may hold.
        seconds: the most seconds that it may take.

    Attributes:
        queries: the ground queries, one an output.
        instances: for each network, its inputs in the order of the tensor's second dimension.
        circuit: the compiled rules, or None.

    Raises:
        ProgramError: a fault in the program, with file, line and a caret.
        CompilationLimit: "exact" was asked for and does not compile within the limits.

    Example:
        >>> program = Program('''
        ...     nn(digit, [X], D, [0,1,2,3,4,5,6,7,8,9]) :: digit(X, D).
        ...     sum(Z) :- digit(a, X), digit(b, Y), Z is X + Y.
        ...     query(sum(Z)).
        ... ''')
        >>> y = program(digit=torch.full((1, 2, 10), 0.1))
        >>> y[18]
        tensor([0.0100])
    """

    def __init__(
        self,
        program: str | Path,
        blackboxes: Iterable[BlackBox] | Mapping[str, BlackBox] = (),
        *,
        provenance: str = "auto",
        sampled: Sequence[str] | None = None,
        samples: int = 100,
        estimator: str | Estimator = "auto",
        worlds: Sampler = independent,
        generator: torch.Generator | None = None,
        instances: Mapping[str, Sequence[Hashable]] | None = None,
        nodes: int | None = 5_000_000,
        seconds: float | None = 60.0,
    ) -> None:
        super().__init__()
        if provenance not in ("auto", "exact", "sampled", "mixed"):
            raise ByssusError(
                f"provenance={provenance!r}: there are 'auto', 'exact', 'sampled' and 'mixed'"
            )
        self._boxes = _named(blackboxes)
        check_sampling(samples, generator)
        random = [name for name, box in self._boxes.items() if not box.caller.memoised]
        if random:
            raise ByssusError(
                f"the black box {listed(random)} is random (memo=False), and rules may ask for a "
                "call in many places, each of which must see one answer: let it draw from a "
                "seed that is one of its arguments"
            )
        self._source = Source.read(program)
        self._grounder = Grounder(self._source, self._boxes)
        self._asked_for = provenance
        self._sampled_names = (sampled,) if isinstance(sampled, str) else sampled
        self._given_instances = {k: tuple(v) for k, v in (instances or {}).items()}
        for name, given in self._given_instances.items():
            if len(set(given)) < len(given):
                raise ConceptError(f"instances of {name}: {listed(given)} are not all different")
        self.samples = samples
        self.estimator = as_estimator(estimator)
        self.worlds = worlds
        self.generator = generator
        self._limits: dict[str, Any] = {"nodes": nodes, "seconds": seconds}
        self.circuit: Circuit | None = None
        self._compiles = True
        with self._staged():
            rules = self._settle()
            self._choose(rules)
            self._adopt(rules)

    @property
    def queries(self) -> tuple[str, ...]:
        """The ground queries, as ProbLog writes them, one an output."""
        return self._rules.ground.queries

    @property
    def values(self) -> tuple[Hashable, ...]:
        """What the outputs are called in the `Distribution`.

        The bindings of the variable, if there is one query with one variable; else `queries`.
        """
        return self._rules.ground.values

    @property
    def instances(self) -> dict[str, tuple[Hashable, ...]]:
        """For each network, its inputs in the order of the tensor's second dimension."""
        return dict(self._inputs.instances)

    @property
    def provenance(self) -> str:
        """The provenance that was chosen: "exact", "sampled" or "mixed"."""
        return self._provenance

    def plan(self) -> Plan:
        """What was chosen and why, the most calls of each black box, the size of the circuit."""
        pending = {ask.box for ask in self._rules.pending}
        asked = dict.fromkeys(self._boxes, 0)
        for ask in self._rules.ground.asks:
            asked[ask.box] += 1
        return Plan(
            self._provenance,
            self._why,
            {
                name: self._boxes[name].caller.budget if name in pending else count
                for name, count in asked.items()
            },
            tuple(self._rules.ground.concepts[c].name for c in self._sampled_concepts(self._rules)),
            None if self.circuit is None else self.circuit.size,
        )

    def forward(self, concepts: Mapping[str, Any] | None = None, /, **more: Any) -> Distribution:
        """Run the program.

        Args:
            concepts: for each network by name, the probabilities `(batch, instances, values)` of
                its concepts, the instances in the order of `instances`; or a mapping from
                instances to `(batch, values)`. With one instance `(batch, values)` will do. For a
                fact, `(batch, instances)` or `(batch,)`. A batch of 1 is shared by all examples.
            more: the same, as keywords.

        Raises:
            ConceptError: a network that the program does not have, or one that is missing.
            ShapeError: a tensor does not fit; `EmptyBatchError` for no examples.
            ProbabilityError: negative, not finite, or not summing to one.
            BlackBoxError, BudgetExceeded: a call failed; everything is as it was before.
        """
        if concepts is not None and not isinstance(concepts, Mapping):
            raise ConceptError(
                f"give the probabilities by the network's name, as in program("
                f"{next(iter(self._grounder.networks), 'digit')}=...), not a "
                f"{type(concepts).__name__}"
            )
        given = {**(concepts or {}), **more}
        if len(given) < len(concepts or {}) + len(more):
            twice = sorted(set(concepts or {}) & set(more))
            raise ConceptError(f"{listed(twice)} is given twice, in the mapping and as a keyword")
        before = sum(box.calls for box in self._boxes.values())
        with self._staged():
            if self._provenance == "exact":
                result = self._exact(self._rules, self._inputs.weights(given))
            else:
                result = self._estimate(given)
            result.failures = self._failures()
        result.calls = sum(box.calls for box in self._boxes.values()) - before
        return result

    def extra_repr(self) -> str:
        """Where the program came from, and what was chosen."""
        name = self._source.file or "<program>"
        return f"{name}, provenance={self._provenance!r}, outputs={len(self.queries)}"

    def _staged(self) -> ExitStack:
        """A transaction over all black boxes: if it fails, none remembers any of it."""
        stack = ExitStack()
        for box in {id(box): box for box in self._boxes.values()}.values():
            stack.enter_context(box.caller.staged())
        return stack

    # Grounding, and the answers of black boxes

    def _known(self, box: str, arguments: Arguments) -> list[Hashable] | None:
        outcome = self._boxes[box].caller.known(arguments, _UNKNOWN)
        if outcome is _UNKNOWN:
            return None
        return [] if isinstance(outcome, Failure) else [outcome]

    def _failures(self) -> dict[tuple[Hashable, ...], BaseException]:
        """The calls that failed, as (name, *arguments), with the cause."""
        found: dict[tuple[Hashable, ...], BaseException] = {}
        for ask in self._rules.failed:
            outcome = self._boxes[ask.box].caller.known(ask.arguments)
            if isinstance(outcome, Failure):
                found[ask.box, *ask.arguments] = outcome.cause
        return found

    def _ground(self) -> _Rules:
        ground = self._grounder.ground(self._known)
        pending, failed = [], []
        for ask in ground.asks:
            answer = self._known(ask.box, ask.arguments)
            if answer is None:
                pending.append(ask)
            elif not answer:
                failed.append(ask)
        keys: list[Key] = list(ground.keys)
        lost: Key = ground.disjoin(ask.guard for ask in failed) if failed else None
        if failed:
            keys = [ground.conjoin([key, negated(lost)]) for key in keys]
        # Of what is observed and lost, only what is observed counts.
        roots = [*keys, lost]
        if ground.evidence:
            observed = ground.conjoin(ground.evidence)
            roots = [*(ground.conjoin([key, observed]) for key in roots), observed]
        formula = ground.formula(roots)
        return _Rules(ground, formula, tuple(pending), tuple(failed))

    def _settle(self) -> _Rules:
        """Ground, call what is asked, and ground again, until nothing new is asked.

        A black box that is asked for more than its limit is left to the sampled worlds.
        """
        while True:
            rules = self._ground()
            if self._asked_for in ("sampled", "mixed"):
                return rules
            count = dict.fromkeys(self._boxes, 0)
            for ask in rules.ground.asks:
                count[ask.box] += 1
            asks = rules.pending
            if self._asked_for == "auto":
                asks = tuple(
                    ask for ask in asks if count[ask.box] <= self._boxes[ask.box].table_limit
                )
            asks = self._possible(rules, asks)
            if not asks:
                return rules
            self._call(asks)

    def _possible(self, rules: _Rules, asks: tuple[Ask, ...]) -> tuple[Ask, ...]:
        """Those asks that at least one world supports."""
        if not asks:
            return ()
        try:
            circuit = Circuit.compile(rules.ground.formula(a.guard for a in asks), **self._limits)
        except CompilationLimit:
            return asks
        return tuple(a for a, can in zip(asks, circuit.satisfiable, strict=True) if can)

    def _call(self, asks: Iterable[Ask]) -> None:
        by_box: dict[str, list[Arguments]] = {}
        for ask in asks:
            by_box.setdefault(ask.box, []).append(ask.arguments)
        for name, tuples in by_box.items():
            self._boxes[name].evaluate(tuples)

    # The choice of a provenance

    def _choose(self, rules: _Rules) -> None:
        """Settle on a provenance; called once."""
        asked, why = self._asked_for, "asked for"
        pending: tuple[Ask, ...] = ()
        if asked == "auto" or not rules.ground.queries:
            pending = self._possible(rules, rules.pending)
        if not rules.ground.queries and not pending:
            raise self._source.error(
                "no query has an answer in any world: do the rules derive what is asked for?"
            )
        if asked == "auto":
            if not pending:
                asked, why = "exact", "all calls fit the budgets, and the rules compile"
            else:
                names = sorted({ask.box for ask in pending})
                asked = "sampled"
                why = f"the calls of {', '.join(names)} do not fit its budget"
        self._provenance, self._why = asked, why
        if asked == "exact":
            try:
                self.circuit = Circuit.compile(rules.formula, **self._limits)
            except CompilationLimit as limit:
                if self._asked_for == "exact":
                    raise
                self._fall_back(rules, limit)
        if rules.ground.evidence and self._provenance != "exact":
            raise ProgramError(
                f"evidence needs the exact provenance, and this program is {self._provenance}: "
                f"{self._why}"
            )

    def _fall_back(self, rules: _Rules, limit: CompilationLimit) -> None:
        """Sample the concepts of those queries that do not compile; the others stay exact."""
        concepts, formula = rules.ground.concepts, rules.formula
        parts = [formula.part(root) for root in formula.roots[: len(rules.ground.queries)]]
        if len(parts) == 1:
            parts = []  # it is what has just been tried
        seconds = self._limits["seconds"]
        deadline = None if seconds is None else time.monotonic() + seconds
        relations, sampled = set(), set()
        # The small ones first: they may compile before the time of all together is over.
        for i in sorted(range(len(parts)), key=lambda i: len(parts[i].nodes)):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                Circuit.compile(parts[i], nodes=self._limits["nodes"], seconds=left)
            except CompilationLimit:
                relations.add(rules.ground.queries[i].split("(")[0])
                sampled |= parts[i].concepts
        if not sampled:  # there is one only, or each by itself compiles
            relations = {query.split("(")[0] for query in rules.ground.queries}
            sampled = set(range(len(concepts)))
        self._compiles = False
        self._provenance = "sampled" if len(sampled) == len(concepts) else "mixed"
        self._sampled_names = tuple(concepts[c].name for c in sorted(sampled))
        self._why = f"{', '.join(sorted(relations))}: {limit}"
        warnings.warn(f"sampled: {self._why}", RuntimeWarning, stacklevel=4)

    def _adopt(self, rules: _Rules) -> None:
        """Make new rules the program's, and compile them where that helps."""
        self._rules = rules
        self._inputs = self._find_inputs(rules)
        self._sampled_concepts(rules)  # checks their names
        if self._provenance == "exact" or rules.pending or not self._compiles:
            return
        try:
            self.circuit = Circuit.compile(rules.formula, **self._limits)
        except CompilationLimit:
            self.circuit = None  # the rules are evaluated over bitsets instead

    def _sampled_concepts(self, rules: _Rules) -> list[int]:
        concepts = rules.ground.concepts
        if self._provenance == "exact":
            return []
        if self._provenance == "sampled":
            return list(range(len(concepts)))
        if self._sampled_names is None:
            predicted = [c for c in rules.formula.order() if concepts[c].network is not None]
            return sorted(predicted[: (len(predicted) + 1) // 2])
        names = set(self._sampled_names)
        unknown = names - {c.name for c in concepts} - {c.network for c in concepts if c.network}
        if unknown and not rules.pending:  # answers may lead to more concepts
            raise ConceptError(
                f"sampled={sorted(unknown)}: the program has the concepts "
                f"{listed(c.name for c in concepts)}"
            )
        return [i for i, c in enumerate(concepts) if c.name in names or c.network in names]

    def _find_inputs(self, rules: _Rules) -> Inputs:
        return Inputs(self._grounder.networks, rules.ground.concepts, self._given_instances)

    # Running

    def _exact(self, rules: _Rules, weights: Tensor) -> Distribution:
        assert self.circuit is not None
        result = self.circuit.to(weights.device)(weights)
        outputs = len(rules.ground.values)
        probs, lost = result[:, :outputs], result[:, outputs]
        if rules.ground.evidence:
            observed = result[:, -1:]
            if bool((observed <= 0).any()):
                row = int((observed <= 0).flatten().nonzero()[0])
                raise ProbabilityError(
                    f"the evidence has probability 0 in example {row}: it contradicts the program"
                )
            probs, lost = probs / observed, lost / observed.squeeze(1)
        return Distribution(rules.ground.values, exact=probs, lost=lost)

    def _estimate(self, given: Mapping[str, Any]) -> Distribution:
        rules, circuit = self._rules, self.circuit
        concepts, worlds = self._draw(rules, given)
        while rules.pending:
            algebra: Any = self._algebra(rules, worlds)
            tags: list[Any] = rules.guards.evaluate(algebra)
            asks = [
                ask
                for ask, tag in zip(rules.pending, tags, strict=True)
                if not algebra.equal(tag, algebra.zero)
            ]
            if isinstance(self.estimator, IndeCateR) and self._possible(rules, rules.pending):
                raise ByssusError(
                    "indecater asks about worlds that were not sampled, so every call must be "
                    "affordable: raise the budget and use provenance 'auto', or another estimator"
                )
            if not asks:
                break
            self._call(asks)
            known, rules = rules.ground.concepts, self._ground()
            if rules.ground.concepts != known:  # the answers lead to concepts not drawn yet
                concepts, worlds = self._draw(rules, given)
        if rules is not self._rules:
            self._adopt(rules)
            circuit = self.circuit

        outputs = len(rules.ground.values)

        def membership(indices: Tensor) -> Membership:
            if circuit is not None:
                return circuit_membership(circuit.to(indices.device), concepts, indices)
            algebra: Any = self._algebra(rules, some_worlds(indices))
            tags: list[Any] = rules.formula.evaluate(algebra)
            if isinstance(algebra, Mixed):
                return algebra.membership(tags, concepts)
            result: Membership = algebra.membership(tags)
            return result

        everything = membership(worlds.indices)
        sample = Sample(
            concepts,
            worlds,
            _part(everything, 0, outputs),
            outputs,
            lambda indices: _part(membership(indices), 0, outputs),
        )
        lost = mass_lost(sample, _part(everything, outputs, outputs + 1))
        return Distribution(rules.ground.values, sample=sample, estimator=self.estimator, lost=lost)

    def _draw(self, rules: _Rules, given: Mapping[str, Any]) -> tuple[Concepts, Worlds]:
        inputs = self._inputs if rules is self._rules else self._find_inputs(rules)
        concepts = Concepts(inputs.weights(given), rules.formula.widths)
        chosen = self._sampled_concepts(rules)
        if len(chosen) == len(concepts.widths):
            return concepts, self.worlds(concepts, self.samples, self.generator)
        part = Concepts(
            torch.cat([concepts.probs[:, :0], *map(concepts.of, chosen)], 1),
            tuple(concepts.widths[c] for c in chosen),
        )
        drawn = self.worlds(part, self.samples, self.generator)
        shape = (*drawn.indices.shape[:2], len(concepts.widths))
        indices = drawn.indices.new_full(shape, -1)
        indices[:, :, chosen] = drawn.indices
        return concepts, Worlds(indices, drawn.distinct, drawn.complete)

    def _algebra(self, rules: _Rules, worlds: Worlds) -> Sampled | Mixed:
        widths = rules.formula.widths
        exact = (worlds.indices[0, 0] < 0).nonzero().flatten().tolist()
        if not exact and self._provenance == "sampled":
            return Sampled(widths, worlds, self.estimator)
        return Mixed(widths, worlds, exact, self.estimator, rules.sdd)


def _named(blackboxes: Iterable[BlackBox] | Mapping[str, BlackBox]) -> dict[str, BlackBox]:
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


def _part(membership: Membership, start: int, stop: int) -> Membership:
    """The entries of some outputs, renumbered from 0."""
    kept = (membership.output >= start) & (membership.output < stop)
    share = None if membership.share is None else membership.share[kept]
    return Membership(membership.world[kept], membership.output[kept] - start, share)
