"""Program: a ProbLog program as a torch module."""

from __future__ import annotations

import os
import time
import warnings
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from problog.logic import Term
from problog.program import LogicProgram
from torch import Tensor, nn
from torch.nn.functional import one_hot

from byssus import (
    ISED,
    BlackBox,
    BudgetExceeded,
    ByssusError,
    Circuit,
    CompilationLimit,
    ConceptError,
    Concepts,
    Distribution,
    Estimator,
    IndeCateR,
    Marginals,
    Mixed,
    Plan,
    ProbabilityError,
    ProgramError,
    Progress,
    Sampled,
    ShapeError,
    Store,
    Worlds,
    independent,
)
from byssus._calls import Failure
from byssus.diffusion.estimator import LIMITS, Nelbo, independent_model, options_for
from byssus.diffusion.model import MaskedDiffusion
from byssus.diffusion.program import WorldProgram
from byssus.domains import typed
from byssus.errors import listed
from byssus.estimators import Membership, Sample, as_estimator
from byssus.formula import Key
from byssus.provenance.sampled import circuit_membership, mass_lost, some_worlds
from byssus.worlds import Sampler, check_sampling

from ._declarations import declared_samples
from ._engine import Arguments
from ._grounding import Ask, Ground, Grounder, negated, observation
from ._inputs import Inputs
from ._leaves import Leaves, Outputs, Rows
from ._rules import NoAnswer, Rules, exclusive, impossible, joined, named, part
from ._source import Source
from ._tokens import Observed, tokens, values_in
from ._worlds import extended, over_worlds, world_program
from .llms import most_calls, votes

__all__ = ["Program"]

_UNKNOWN = Failure((), Exception(), "raised")

_EXACT_CALLS = 1_000_000  # of one call on tokens, where exact is insisted on and no budget given

Observations = Sequence[Sequence[Hashable]]


class Program(nn.Module):
    """A ProbLog program that runs over a batch of concept probabilities, and learns.

    It is grounded once. Where its rules compile, every step is the evaluation of a circuit.

    Networks are declared as in DeepProbLog, `nn(digit, [X], D, [0, 1, 2]) :: digit(X, D).`, or
    `nn(rain, [X]) :: rain(X).` for a fact; their probabilities are given by name. Predicates of
    one more argument than a black box has are calls of it, of the same number if it is Boolean.

    A probability `t(_)` is learned, as in ProbLog's learning from interpretations: `t(0.3)` says
    where it starts, `t(_, X)` that there is one for each value of X. The tunable options of a
    clause and the remainder share what its other options leave. Evidence is conditioned on; in
    sampled worlds the result is then a ratio of two estimates, consistent and not unbiased.

    Args:
        program: the path of a `.pl` file, the text of a program, or its clauses (a `LogicProgram`).
        blackboxes: the black boxes that the rules call; or a mapping from other names to them.
            Those that the program declares need not be given; one that is given in spite of that
            stands in for the declared one.
        query: what to ask, in place of the program's own queries. `observed(i)` in it stands for a
            value that each example gives.
        provenance: "exact", "sampled", "mixed", "nesydm", or "auto": exact where the calls fit the
            black boxes' budgets and the rules compile within `nodes` and `seconds`, else sampled.
            "nesydm" runs over worlds that are given, as those of a `MaskedDiffusion`; given
            probabilities, it samples, and its loss is that of NeSyDM.
        sampled: for "mixed", what is sampled, the rest being exact: networks ("digit") or single
            concepts ("digit(a)"). Half of the networks' concepts if not given.
        samples: worlds an example, unless the program declares black boxes with `samples(...)`.
        estimator: "auto", "ised", "distinct", "rloo", "indecater", or an `Estimator`. Where outputs
            do not exclude one another, "marginals" takes the place of "auto" and "ised".
        worlds: where worlds come from, see `byssus.worlds`.
        generator: makes sampling reproducible, and the first values of `t(_)`.
        instances: for each network the inputs it is used on, in the order of the tensor's second
            dimension, if not the natural order of those that the queries need.
        vtree: which concepts lie together in circuits: "auto", "program", "grouped", "balanced" or
            "minimized", see `byssus.Circuit.compile`.
        nodes: the most SDD nodes that compilation may hold.
        seconds: the most seconds that it may take.
        memory: the most bytes that it may take; see `byssus.Circuit.compile`, as for the rest.
        progress: who is told how far compilation is; by default a bar on a terminal.
        store: where compiled circuits are kept; by default that of `BYSSUS_STORE`, if any.
        diffusion: for "nesydm", the arguments of `byssus.diffusion.MaskedDiffusion` for the loss,
            such as `gamma_h`.

    Attributes:
        queries: the ground queries, one an output.
        instances: for each network, its inputs in the order of the tensor's second dimension.
        circuit: the compiled rules, or None.
        logits: what is learned: for each tunable clause the logits of its tunable options, in
            order, and of the remainder if there is one.

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
        program: str | Path | LogicProgram,
        blackboxes: Iterable[BlackBox] | Mapping[str, BlackBox] = (),
        *,
        query: Term | Sequence[Term] | None = None,
        provenance: str = "auto",
        sampled: Sequence[str] | None = None,
        samples: int = 100,
        estimator: str | Estimator = "auto",
        worlds: Sampler = independent,
        generator: torch.Generator | None = None,
        instances: Mapping[str, Sequence[Hashable]] | None = None,
        vtree: str = "auto",
        nodes: int | None = 5_000_000,
        seconds: float | None = 60.0,
        memory: int | None = None,
        progress: bool | Callable[[Progress], None] | None = None,
        store: Store | str | os.PathLike[str] | bool | None = None,
        diffusion: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if provenance not in ("auto", "exact", "sampled", "mixed", "nesydm"):
            raise ByssusError(
                f"provenance={provenance!r}: there are 'auto', 'exact', 'sampled', 'mixed' and "
                "'nesydm'"
            )
        if provenance == "nesydm" and (estimator != "auto" or worlds is not independent):
            raise ByssusError(
                "provenance='nesydm' has a loss of its own, which draws its own worlds: leave out "
                "`estimator` and `worlds`, and see `diffusion`"
            )
        options = options_for(provenance, diffusion)
        self._boxes = named(blackboxes)
        check_sampling(samples, generator)
        random = [name for name, box in self._boxes.items() if not box.caller.memoised]
        if random:
            raise ByssusError(
                f"the black box {listed(random)} is random (memo=False), and rules may ask for a "
                "call in many places, each of which must see one answer: let it draw from a "
                "seed that is one of its arguments"
            )
        self._source = Source.read(program)
        queries = [query] if isinstance(query, Term) else query
        self._grounder = Grounder(self._source, self._boxes, queries, symbolic=bool(self._boxes))
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
        self._limits: dict[str, Any] = {
            "vtree": vtree,
            "nodes": nodes,
            "seconds": seconds,
            "memory": memory,
            "progress": progress,
            "store": store,
        }
        self._diffusion = {
            "generator": generator,
            **{name: self._limits[name] for name in LIMITS},
            **options,
        }
        self.circuit: Circuit | None = None
        self.logits = nn.ParameterDict()
        self._compiles = True
        self._grounder.declare()  # they join the transaction
        with self._staged():
            rules = self._settle()
            self.samples = max(declared_samples(self._boxes.values()), default=samples)
            self._choose(rules)
            self._adopt(rules)
        if provenance == "nesydm" and rules.ground.evidence:
            self.world_program()  # says that it takes none

    @property
    def queries(self) -> tuple[str, ...]:
        """The ground queries, as ProbLog writes them, one an output; see `answers`."""
        return self._outputs.queries

    @property
    def unanswered(self) -> tuple[str, ...]:
        """The queries with variables to which no world has an answer, as ProbLog writes them."""
        return tuple(self._grounder.unanswered)

    @property
    def values(self) -> tuple[Hashable, ...]:
        """What the outputs are called in the `Distribution`.

        The bindings of the variable, if there is one query with one variable; else `queries`.
        """
        return tuple(self._outputs.values)

    @property
    def instances(self) -> dict[str, tuple[Hashable, ...]]:
        """For each network, its inputs in the order of the tensor's second dimension."""
        observations = set(map(observation, self._rules.ground.observed))
        return {k: v for k, v in self._inputs.instances.items() if k not in observations}

    @property
    def answers(self) -> tuple[Term, ...]:
        """The ground queries, as terms, one an output.

        An output that a black box gives, called on more tuples than can be tabulated, is known
        once it has occurred in a batch, where the box's output domain is not listed.
        """
        return self._outputs.answers

    @property
    def blackboxes(self) -> Mapping[str, BlackBox]:
        """The black boxes that the rules may call, by the name under which they do.

        Of one that `:- llm(...)` declares, `report()` says what it has cost.
        """
        return dict(self._boxes)

    @property
    def tunable(self) -> dict[str, Tensor]:
        """The present value of each tunable probability `t(...)::head`, by the text of the head.

        Where two clauses have one head, the second's text is the clause.
        """
        values = {}
        for name, parameter in self._grounder.parameters.items():
            probs = self._tuned(name)
            values.update({text: probs[i] for text, i in parameter.options.items()})
        return values

    @property
    def provenance(self) -> str:
        """The provenance that was chosen: "exact", "sampled", "mixed" or "nesydm"."""
        return self._provenance

    def plan(self) -> Plan:
        """What was chosen and why, the most calls of each black box, the size of the circuit."""
        pending = {ask.box for ask in self._rules.pending}
        pending |= {call.box for call, _ in self._rules.ground.calls}
        asked = dict.fromkeys(self._boxes, 0)
        for ask in self._rules.ground.asks:
            asked[ask.box] += 1
        circuit = self.circuit
        return Plan(
            self._provenance,
            self._why,
            {
                name: most_calls(box) if name in pending else asked[name] * votes(box)
                for name, box in self._boxes.items()
            },
            tuple(self._rules.ground.concepts[c].name for c in self._sampled_concepts(self._rules)),
            None if circuit is None else circuit.size,
            None if circuit is None else circuit.vtree,
            {} if circuit is None else dict(circuit.sizes),
        )

    def world_program(self) -> WorldProgram:
        """The program as a function from worlds, for `byssus.diffusion.MaskedDiffusion`.

        Its concepts are the networks, each with its instances in the order of `instances`. The
        answers of a query with a variable are the values of one output dimension where they
        exclude one another; each other answer, and each ground query, is a dimension of its own,
        True or False.

        Raises:
            ByssusError: there is evidence; or outputs are not known before worlds are.
        """
        return world_program(self)

    def forward(
        self,
        concepts: Mapping[str, Any] | None = None,
        /,
        *,
        observed: Sequence[Sequence[Hashable]] = (),
        **more: Any,
    ) -> Distribution:
        """Run the program.

        Args:
            concepts: for each network by name, the probabilities `(batch, instances, values)` of
                its concepts, the instances in the order of `instances`; or a mapping from
                instances to `(batch, values)`. With one instance `(batch, values)` will do. For a
                fact, `(batch, instances)` or `(batch,)`. A batch of 1 is shared by all examples.
                Under "nesydm" also worlds: for each network the positions of its values, integers
                `(batch, worlds, instances)`, with one instance `(batch, worlds)`; the result is
                then how often each output occurs, without a gradient.
            observed: for `observed(i)` in the query, the values of all examples at position i.
            more: the probabilities, as keywords.

        Raises:
            ConceptError: a network that the program does not have, or one that is missing.
            ShapeError: a tensor does not fit; `EmptyBatchError` for no examples.
            ProbabilityError: negative, not finite, or not summing to one; or the evidence has
                probability 0 in an example, or holds in none of its sampled worlds.
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
        given |= self._observations(self._rules, observed, given)
        before = sum(box.calls for box in self._boxes.values())
        with self._staged():
            worlds = self._inputs.worlds(given) if self._provenance == "nesydm" else None
            if worlds is not None:
                result = over_worlds(self, worlds)
            elif self._provenance == "exact":
                result = self._exact(self._rules, self._weights(self._inputs, given))
            else:
                result = self._estimate(given, observed)
            result.failures = {**self._rules.failures, **result.failures}
        result.calls = sum(box.calls for box in self._boxes.values()) - before
        return result

    def _observations(
        self, rules: Rules, observed: Observations, given: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """What the examples observe, as tables of probabilities, `(batch, 1, values)`."""
        device = next((part.device for part in given.values() if isinstance(part, Tensor)), None)
        wanted = rules.ground.observed
        asked = {token for term in self._grounder.queries or () for token in tokens(term)}
        numbers = {token.number for token in asked if isinstance(token, Observed)}
        if set(range(len(observed))) != numbers or len(set(map(len, observed))) > 1:
            raise ConceptError(
                f"observed= has values of {len(observed)} observations, for "
                f"{listed(map(len, observed))} examples; the query has the observations "
                f"{sorted(numbers)}: give each a list of one value an example"
            )
        tables = {}
        for number, values in wanted.items():
            position = {typed(value): i for i, value in enumerate(values)}
            codes = [position.get(typed(value), len(values)) for value in observed[number]]
            table = one_hot(torch.tensor(codes), len(values) + 1)
            tables[observation(number)] = table[:, None].to(device, torch.get_default_dtype())
        return tables

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

    def _ground(self) -> Rules:
        ground = self._grounder.ground(self._known)
        if self._grounder.symbolic and not self._too_large(ground):
            self._grounder.use_values()  # every call can be made, so that all is exact
            ground = self._grounder.ground(self._known)
        pending, failed = [], []
        failures: dict[tuple[Hashable, ...], BaseException] = {}
        for ask in ground.asks:
            outcome = self._boxes[ask.box].caller.known(ask.arguments, _UNKNOWN)
            if outcome is _UNKNOWN:
                pending.append(ask)
            elif isinstance(outcome, Failure):
                failed.append(ask)
                failures[ask.box, *ask.arguments] = outcome.cause
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
        return Rules(ground, formula, tuple(pending), failures)

    def _too_large(self, ground: Ground) -> list[str]:
        """The black boxes that are called on more tuples of values than can be tabulated."""
        found = {}
        for call, _ in ground.calls:
            widths = [ground.concepts[ground.tokens[value]].width for value in values_in(call)]
            box = self._boxes[call.box]
            limit = box.table_limit
            if self._asked_for == "exact" and box.caller.budget is None:
                limit = _EXACT_CALLS
            if prod(widths) > limit:
                found[call.box] = prod(widths), limit
        if found and self._asked_for == "exact":
            name, (size, limit) = next(iter(found.items()))
            raise BudgetExceeded(
                f"{name}: exact needs all {size} argument tuples, and at most {limit} may be "
                "called; raise `budget=` or sample"
            )
        return sorted(found)

    def _settle(self) -> Rules:
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
            if self._asked_for != "exact":
                asks = tuple(
                    ask for ask in asks if count[ask.box] <= self._boxes[ask.box].table_limit
                )
            asks = self._possible(rules, asks)
            if not asks:
                return rules
            self._call(asks)

    def _possible(self, rules: Rules, asks: tuple[Ask, ...]) -> tuple[Ask, ...]:
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

    def _choose(self, rules: Rules) -> None:
        """Settle on a provenance; called once."""
        asked, why = self._asked_for, "asked for"
        pending: tuple[Ask, ...] = ()
        if asked == "auto" or not rules.ground.queries:
            pending = self._possible(rules, rules.pending)
        if not rules.ground.queries and not pending:
            raise NoAnswer(self._grounder.unanswered, self._source)
        if asked == "auto" and rules.ground.calls:
            names = self._too_large(rules.ground)
            why = f"the calls of {', '.join(names)} do not fit its budget"
            asked = "sampled"
            if all(guard == 0 for _, guard in rules.ground.calls):
                decided = set(rules.ground.tokens.values())
                free = [c for i, c in enumerate(rules.ground.concepts) if i not in decided]
                if len(rules.ground.answers) == 1 and any(c.test is None for c in free):
                    asked = "mixed"
                    self._sampled_names = ()
        elif asked == "auto":
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
            else:
                if rules.ground.evidence and not self.circuit.satisfiable[-1]:
                    raise self._contradiction(rules)

    def _contradiction(self, rules: Rules) -> ProgramError:
        """Which evidence no world satisfies that satisfies the evidence before it."""
        ground = rules.ground

        def contradicts(count: int) -> bool:
            first = ground.formula([ground.conjoin(ground.evidence[:count])])
            return not Circuit.compile(first, **self._limits).satisfiable[0]

        count = bisect_left(range(len(ground.evidence)), True, lo=1, key=contradicts)
        name, (file, line, column) = ground.facts[count - 1]
        return self._source.error(
            f"the evidence {name} has probability 0: it contradicts the program"
            + (", or the evidence before it" if count > 1 else ""),
            line,
            column,
            file,
        )

    def _fall_back(self, rules: Rules, limit: CompilationLimit) -> None:
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
                Circuit.compile(parts[i], **{**self._limits, "seconds": left})
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

    def _adopt(self, rules: Rules) -> None:
        """Make new rules the program's, and compile them where that helps."""
        self._rules = rules
        self._model: list[MaskedDiffusion] = []
        self._outputs = Outputs(rules.ground, self._boxes)
        self._inputs = self._find_inputs(rules)
        self._sampled_concepts(rules)  # checks their names
        if self._provenance == "exact" or rules.pending or not self._compiles:
            return
        try:
            self.circuit = Circuit.compile(rules.formula, **self._limits)
        except CompilationLimit:
            self.circuit = None  # the rules are evaluated over bitsets instead

    def _sampled_concepts(self, rules: Rules) -> list[int]:
        concepts = rules.ground.concepts
        if self._provenance == "exact":
            return []
        decided = set(rules.ground.tokens.values())  # calls need them
        if self._provenance != "mixed":
            # Which of its answers a call gives is summed out: few worlds ask for any one call.
            return [i for i, c in enumerate(concepts) if c.test is None and not c.answer]
        if self._sampled_names is None:
            predicted = [c for c in rules.formula.order() if concepts[c].network is not None]
            return sorted(decided.union(predicted[: (len(predicted) + 1) // 2]))
        names = set(self._sampled_names)
        unknown = names - {c.name for c in concepts} - {c.network for c in concepts if c.network}
        if unknown and not rules.pending:  # answers may lead to more concepts
            raise ConceptError(
                f"sampled={sorted(unknown)}: the program has the concepts "
                f"{listed(c.name for c in concepts)}"
            )
        return [
            i
            for i, c in enumerate(concepts)
            if c.name in names or c.network in names or i in decided
        ]

    def _weights(self, inputs: Inputs, given: Mapping[str, Any]) -> Tensor:
        return inputs.weights(given, {name: self._tuned(name) for name in inputs.parameters})

    def _tuned(self, name: str) -> Tensor:
        """The probabilities of a tunable clause, `(options,)`."""
        return self._grounder.parameters[name].clause.probabilities(self.logits[name])

    def _find_inputs(self, rules: Rules) -> Inputs:
        for name, parameter in self._grounder.parameters.items():
            if name not in self.logits:
                self.logits[name] = nn.Parameter(parameter.clause.logits(self.generator))
        return Inputs(self._grounder.networks, rules.ground.concepts, self._given_instances)

    # Running

    def _exact(self, rules: Rules, weights: Tensor) -> Distribution:
        assert self.circuit is not None
        circuit = self.circuit.to(weights.device)
        result = circuit(weights)
        outputs = len(rules.ground.values)
        if rules.ground.evidence:
            tiny = torch.finfo(weights.dtype).tiny
            if bool((result[:, -1] < 1e8 * tiny).any()):
                # the product of many probabilities may underflow
                logs = torch.where(weights > 0, weights.clamp_min(tiny).log(), -torch.inf)
                result = circuit.log_forward(logs)
                missing = (result[:, -1] == -torch.inf).nonzero().flatten().tolist()
                if missing:
                    raise impossible(missing[0])
                result = (result - result[:, -1:]).exp()
            else:
                result = result / result[:, -1:]
        probs, lost = result[:, :outputs], result[:, outputs]
        return Distribution(rules.ground.values, exact=probs, lost=lost)

    def _estimate(self, given: Mapping[str, Any], observed: Observations) -> Distribution:
        draw = partial(self._draw, given=given, observed=observed)
        sample, lost, failures = self._sample(draw, observed)
        self._check_evidence(sample)
        estimator = self.estimator
        if self._provenance == "nesydm" and self._inputs.instances:
            probs = torch.cat(self._inputs.predicted(given), 1)
            estimator = Nelbo(lambda: self._independent().to(probs.device), probs)
        elif isinstance(estimator, ISED) and not exclusive(
            self._rules, sample, self.circuit is not None
        ):
            estimator = Marginals()
        return Distribution(
            self._outputs.values,
            sample=sample,
            estimator=estimator,
            lost=mass_lost(sample, lost),
            domain=self._outputs.domain,
            failures=failures,
        )

    def _independent(self) -> MaskedDiffusion:
        """The model of NeSyDM's loss where probabilities are given."""
        if not self._model:  # in a list, since it is no part of the module's state
            self._model.append(independent_model(self.world_program(), self._diffusion))
        return self._model[0]

    def _sample(
        self, draw: Callable[[Rules], tuple[Concepts, Worlds]], observed: Observations
    ) -> tuple[Sample, Membership, dict[tuple[Hashable, ...], BaseException]]:
        """Worlds and what they give; those that are lost; and the calls that failed.

        Args:
            draw: draws worlds of the ground program, or has them.
            observed: see `forward`.
        """
        rules, circuit = self._rules, self.circuit
        concepts, worlds = draw(rules)
        while rules.pending:
            leaves = self._leaves(rules, worlds.indices, observed)
            decided = worlds.indices if leaves is None else leaves.indices
            algebra: Any = self._algebra(rules, decided)
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
            before, rules = rules, self._ground()
            if rules.ground.concepts != before.ground.concepts:  # some are not drawn yet
                concepts, fresh = draw(rules)
                worlds = extended(before, worlds, rules, fresh)
        if rules is not self._rules:
            self._adopt(rules)
            circuit = self.circuit

        answers = len(rules.ground.answers)

        def membership(indices: Tensor) -> Membership:
            if circuit is not None:
                return circuit_membership(circuit.to(indices.device), concepts, indices)
            algebra: Any = self._algebra(rules, indices)
            tags: list[Any] = rules.formula.evaluate(algebra)
            if isinstance(algebra, Mixed):
                return algebra.membership(tags, concepts)
            result: Membership = algebra.membership(tags)
            return result

        if rules.ground.symbolic:
            self._outputs = Outputs(rules.ground, self._boxes)
        outputs = self._outputs

        def given_by(indices: Tensor) -> tuple[Membership, Membership]:
            """Which world gives which output, and at last the evidence; and which are lost."""
            leaves = self._leaves(rules, indices, observed)
            everything = membership(indices if leaves is None else leaves.indices)
            found, lost = part(everything, 0, answers), part(everything, answers, answers + 1)
            if leaves is not None:
                failures.update(leaves.failures())
                found, lost = outputs.place(found, leaves), leaves.add_lost(lost)
            if rules.ground.evidence:
                given = part(everything, answers + 1, answers + 2)
                found = joined(found, given, len(outputs.values))
            return found, lost

        failures: dict[tuple[Hashable, ...], BaseException] = {}
        found, lost = given_by(worlds.indices)
        sample = Sample(
            concepts,
            worlds,
            found,
            len(outputs.values),
            lambda indices: given_by(indices)[0],
            evidence=bool(rules.ground.evidence),
        )
        return sample, lost, failures

    def _check_evidence(self, sample: Sample) -> None:
        """Raise where no world of an example satisfies the evidence."""
        if not sample.evidence:
            return
        complete = sample.worlds.complete
        with torch.no_grad():
            worlds = sample.weights() if complete else torch.ones_like(sample.log_weights)
            missing = (sample.sum(worlds)[:, -1] <= 0).nonzero().flatten().tolist()
        if missing and complete:
            raise impossible(missing[0])
        if missing:
            raise ProbabilityError(
                f"none of the {self.samples} worlds sampled for example {missing[0]} satisfies the "
                "evidence: raise `samples`, or take the exact provenance"
            )

    def _leaves(self, rules: Rules, indices: Tensor, observed: Observations) -> Leaves | None:
        """What the calls on tokens give in some worlds; None where there are none."""
        ground = rules.ground
        if not ground.calls:
            return None

        def guards(indices: Tensor) -> list[Rows | None]:
            if all(guard == 0 for _, guard in ground.calls):
                return [None] * len(ground.calls)
            algebra: Any = self._algebra(rules, indices)
            tags: list[Any] = rules.call_guards.evaluate(algebra)
            return [algebra.worlds_in(tag) for tag in tags]

        return Leaves(ground, self._boxes, self._grounder.networks, indices, guards, observed)

    def _draw(
        self, rules: Rules, given: Mapping[str, Any], observed: Observations
    ) -> tuple[Concepts, Worlds]:
        inputs = self._inputs if rules is self._rules else self._find_inputs(rules)
        if rules is not self._rules:  # answers may be compared with what is observed
            given = {**given, **self._observations(rules, observed, given)}
        try:
            weights = self._weights(inputs, given)
        except (ShapeError, ConceptError) as error:
            if inputs.instances == self._inputs.instances:
                raise
            raise type(error)(
                f"{error}. Answers of black boxes have led to more instances than `instances` "
                "had; name all that may come, as Program(..., instances="
                f"{ {name: list(some) for name, some in inputs.instances.items()} })"
            ) from error
        concepts = Concepts(weights, rules.formula.widths)
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

    def _algebra(self, rules: Rules, indices: Tensor) -> Sampled | Mixed:
        widths, worlds = rules.formula.widths, some_worlds(indices)
        exact = (indices[0, 0] < 0).nonzero().flatten().tolist()
        if not exact and self._provenance != "mixed":
            return Sampled(widths, worlds, self.estimator)
        return Mixed(widths, worlds, exact, self.estimator, rules.sdd)
