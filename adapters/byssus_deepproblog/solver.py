"""The solver: a batch of queries at once, where DeepProbLog's takes one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from deepproblog.arithmetic_circuit import ArithmeticCircuit
from deepproblog.query import Query
from deepproblog.semiring import Result
from deepproblog.semiring.graph_semiring import GraphSemiring
from deepproblog.solver import Solver
from problog.engine import UnknownClause
from problog.errors import ProbLogError
from problog.formula import LogicFormula
from problog.logic import Term
from torch import Tensor

from byssus import ByssusError, ConceptError, Distribution, ProgramError
from byssus.diffusion._inputs import select
from byssus.errors import listed
from byssus_problog import NotObservable
from byssus_problog._rules import NoAnswer
from byssus_problog._source import Source
from byssus_problog._terms import to_python
from byssus_problog._tokens import OBSERVED

from ._diffusion import Diffusion, inputs_of, unmasks
from ._learned import Learned
from ._networks import Arguments, Evaluation, call, tensor_source
from ._rules import PARAMETERS, replaced
from ._structure import Binding, NameSeen, Structure, bind
from .semiring import Answers, Batch, BatchSemiring, Bounds, Frequencies

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["BatchSolver"]


_KEPT = 1_000
"""So many structures are kept where there is no cache of all."""


class _Cache:
    """What queries are evaluated by; in the place of DeepProbLog's cache.

    Attributes:
        cache: whether queries are grounded before their substitution is applied, as DeepProbLog
            does with `cache=True`, or after.
    """

    def __init__(self, find: Callable[[Query], Any], forget: Callable[[], None], *, cache: bool):
        self._find = find
        self.invalidate = forget
        self.cache = cache

    def get(self, query: Query) -> Structure | ArithmeticCircuit:
        """The query's structure, or DeepProbLog's circuit for it."""
        found: Structure | ArithmeticCircuit = self._find(query)
        return found

    __getitem__ = get


@dataclass
class _Group:
    """The queries of a batch that share a structure.

    Attributes:
        structure: it.
        places: where the queries are in the batch.
        bindings: for each query what it puts into the template.
        rows: for each network, the rows of its output for all instances of all queries.
        given: for each unmasking model, what it is given: the arguments of each query's instances.
    """

    structure: Structure
    places: list[int] = field(default_factory=list)
    bindings: list[Binding] = field(default_factory=list)
    rows: dict[str, list[int]] = field(default_factory=dict)
    given: dict[str, list[list[Arguments]]] = field(default_factory=dict)


class BatchSolver(Solver):  # type: ignore[misc]
    """Solves a batch of queries as one, those that share a template by one circuit.

    Args:
        solver: DeepProbLog's, whose place it takes.
        engine: the engine.
    """

    def __init__(self, solver: Solver, engine: Engine) -> None:
        self.engine = engine
        self.model = solver.model
        self.program = solver.program
        self.sdd_auto_gc = solver.sdd_auto_gc
        self.semiring = _checked(solver.semiring)
        self.cache = _Cache(self._find, self.forget, cache=solver.cache.cache)
        if solver.cache.cache_file:
            engine.keep(solver.cache.cache_root)
        self._structures: dict[Hashable, Structure | None] = {}
        self._refused: set[Hashable] = set()
        self._circuits: dict[Term, ArithmeticCircuit] = {}
        self._learned = Learned(self.model, engine.rules)
        self._hooked: WeakSet[Any] = WeakSet()
        self._pending: list[Batch] = []
        self._nesydm = engine.provenance == "nesydm"
        self._unmasking = {
            name: self.model.networks[network]
            for name, (network, _) in engine.rules.declared.items()
            if unmasks(self.model.networks[network])
        }
        if self._unmasking and not self._nesydm:
            raise ByssusError(
                f"network {listed(self._unmasking)} has a parameter c_t, as an unmasking model "
                f"has, and provenance={engine.provenance!r} unmasks nothing: take "
                "provenance='nesydm'"
            )

    def forget(self) -> None:
        """Ground all queries anew."""
        self._structures.clear()
        self._refused.clear()
        self._circuits.clear()

    # Grounding

    def _find(self, query: Query) -> Structure | ArithmeticCircuit:
        structure, _ = self._bind(query)
        return self._circuit(query) if structure is None else structure

    def _bind(self, query: Query) -> tuple[Structure | None, Binding]:
        """The query's structure, None for DeepProbLog's own; and what it puts into it."""
        for binding in self._bindings(query):
            opened = self._nesydm and binding.query.query != query.query
            key: Hashable = ("opened", binding.key) if opened else binding.key
            if key in self._refused:
                continue
            known = binding.key in self._structures
            if not known:
                try:
                    found = self._ground(binding)
                except (NotObservable, NameSeen):
                    self._refused.add(key)
                    continue
                except ProgramError:
                    if not opened:
                        raise
                    self._refused.add(key)  # the rules need to know the answer
                    continue
                if not self.cache.cache and len(self._structures) >= _KEPT:
                    del self._structures[next(iter(self._structures))]
                self._structures[binding.key] = found
            structure = self._structures[binding.key]
            if opened and structure is not None and not structure.one_answer:
                self._refused.add(key)
                continue
            if structure is not None:
                structure.from_cache = known
            return structure, binding
        raise AssertionError("a query by itself has no names and observes nothing")

    def _bindings(self, query: Query) -> Iterator[Binding]:
        """Templates for a query, those first that more queries share."""
        if not self.cache.cache:
            query = query.substitute()
        nameless = self.engine.rules.nameless
        if self._nesydm:
            # With the answer open, all answers are one model. What is false may have others.
            if _answered(query) and (query.p == 1 or self.model.eval_mode):
                yield bind(query.variable_output(), nameless=nameless, observe=False)
            yield bind(query, nameless=nameless, observe=False)
            yield bind(query.substitute(), nameless=False, observe=False)
            return
        yield bind(query, nameless=nameless, observe=True)
        yield bind(query, nameless=nameless, observe=False)
        query = query.substitute()
        yield bind(query, nameless=False, observe=True)
        yield bind(query, nameless=False, observe=False)

    def _ground(self, binding: Binding) -> Structure | None:
        started = time.perf_counter()
        template = binding.template
        try:
            program = self.engine.program(template, binding.query.substitution)
        except ProgramError as error:
            unknown = error.__cause__
            if isinstance(error, NoAnswer):
                return None  # an answer may be false, or certain and have a variable in it
            if not isinstance(unknown, UnknownClause):
                raise
            if OBSERVED in unknown.signature:  # the answer is a goal
                raise NotObservable(str(error)) from error
            if unknown.signature.replace("'", "") in self.engine.rules.eager:
                return None
            if self.engine.rules.lists:
                raise
            self.engine.rules.add_lists()
            return self._ground(binding)
        return Structure(program, template, bool(binding.observed), time.perf_counter() - started)

    def _circuit(self, query: Query) -> ArithmeticCircuit:
        """DeepProbLog's own circuit."""
        query = query.substitute()
        if query.query in self._circuits:
            found: ArithmeticCircuit = self._circuits[query.query]
            found.from_cache = True
            return found
        store = self.engine.tensor_store.tensor_store
        tensors = len(store)
        started = time.perf_counter()
        try:
            ground = self.engine.engine.ground(
                self.program, query.query, label=LogicFormula.LABEL_QUERY
            )
        except ProbLogError as error:
            with Source("").errors({}):
                raise error
        seconds = time.perf_counter() - started
        circuit = ArithmeticCircuit(
            ground, self.semiring, ground_time=seconds, sdd_auto_gc=self.sdd_auto_gc
        )
        circuit.from_cache = False
        # One with tensors in it is good for as long as these, which change with the networks.
        drawn = any(network.k is not None for network in self.model.networks.values())
        if self.cache.cache and len(store) == tensors and not drawn:
            self._circuits[query.query] = circuit
        return circuit

    # Solving

    def solve(self, batch: Sequence[Query]) -> list[Result]:
        """The answers to a batch of queries, with their probabilities.

        Args:
            batch: the queries.

        Returns:
            for each query a result, whose probabilities are connected to the networks and to the
            learned probabilities.

        Raises:
            ProgramError: a query cannot be grounded.
            ShapeError: a network's output does not fit its declaration.
            ProbabilityError: it is no distribution.
        """
        self.flush()
        self._hook()
        self.engine.tensor_store.clear()
        results: list[Result | None] = [None] * len(batch)
        groups: dict[int, _Group] = {}
        evaluation = Evaluation(self.model, self.engine.rules.declared)
        for place, query in enumerate(batch):
            structure, binding = self._bind(query)
            if structure is None or not self._learned.fits(structure):
                results[place] = self._circuit(query).evaluate(self.model, {})
                continue
            group = groups.setdefault(id(structure), _Group(structure))
            self._add(group, place, binding, evaluation)
        diffused = [g for g in groups.values() if self._nesydm and g.structure.inputs]
        others = [g for g in groups.values() if not self._nesydm or not g.structure.inputs]
        evaluation.run()
        if diffused:
            self._diffuse(diffused, evaluation, batch, results)
        if others:
            self._solve(others, evaluation, results)
        assert None not in results
        return results

    def _add(self, group: _Group, place: int, binding: Binding, evaluation: Evaluation) -> None:
        group.places.append(place)
        group.bindings.append(binding)
        names = binding.names
        for name, instances in group.structure.inputs.items():
            if name.startswith(PARAMETERS):
                continue
            given = [
                tuple(replaced(argument, names) for argument in arguments)
                for arguments in instances
            ]
            if name in self._unmasking:
                group.given.setdefault(name, []).append(given)
            else:
                rows = group.rows.setdefault(name, [])
                rows += [evaluation.ask(name, arguments) for arguments in given]

    def _solve(
        self,
        groups: Sequence[_Group],
        evaluation: Evaluation,
        results: list[Result | None],
    ) -> None:
        started = time.perf_counter()
        learned = self._learned.tables((g.structure for g in groups), evaluation.device)
        outputs = [
            self._run(group, evaluation, tables)
            for group, tables in zip(groups, learned, strict=True)
        ]
        # What an estimator learns from, or else probabilities.
        parts: list[Tensor] = [y.probs if self.model.eval_mode else y.scores for y in outputs]
        flat = parts[0].flatten() if len(parts) == 1 else torch.cat([p.flatten() for p in parts])
        together = Batch(flat, self._pending if self._hooked else None)
        seconds = (time.perf_counter() - started) / max(1, sum(len(g.places) for g in groups))
        start = 0
        for group, part, y in zip(groups, parts, outputs, strict=True):
            structure = group.structure
            width = part.shape[1]
            for i, (place, binding) in enumerate(zip(group.places, group.bindings, strict=True)):
                row = start + (i * width if len(part) > 1 else 0)
                answers = structure.answers(binding, y.values)
                positions = {term: row + j for j, term in enumerate(answers)}
                results[place] = self._answers(group, together, positions, seconds)
            start += part.numel()

    def _answers(
        self, group: _Group, batch: Batch, positions: dict[Term, int], seconds: float
    ) -> Answers:
        structure = group.structure
        return Answers(
            batch,
            positions,
            certain=not structure.inputs,
            semiring=self.semiring,
            ground_time=structure.ground_time,
            compile_time=structure.compile_time,
            eval_time=seconds,
            proof=structure.program,
        )

    def _run(
        self, group: _Group, evaluation: Evaluation, learned: Mapping[str, Tensor]
    ) -> Distribution:
        """Run a structure's program for all its queries; one row will do if it has no network."""
        structure = group.structure
        tables = {**self._predicted(group, evaluation), **learned}
        columns = zip(*(binding.observed for binding in group.bindings), strict=True)
        return structure.program.forward(
            tables, observed=[list(map(to_python, column)) for column in columns]
        )

    def _predicted(self, group: _Group, evaluation: Evaluation) -> dict[str, Tensor]:
        """For each network its output `(queries, instances, ...)`."""
        tables = {}
        for name, rows in group.rows.items():
            output = evaluation.output(name, rows)
            count = len(group.structure.inputs[name])
            tables[name] = output.reshape(len(group.places), count, *output.shape[1:])
        return tables

    def _diffuse(
        self,
        groups: Sequence[_Group],
        evaluation: Evaluation,
        batch: Sequence[Query],
        results: list[Result | None],
    ) -> None:
        """Solve queries under NeSyDM: by losses in training, else by worlds."""
        started = time.perf_counter()
        learned = self._learned.tables((g.structure for g in groups), evaluation.device)
        losses: list[Tensor] = []
        shares: list[Tensor] = []
        found: list[tuple[_Group, int, bool, dict[Term, int]]] = []
        truths: list[bool] = []
        count = 0  # of the entries of shares
        for group, tables in zip(groups, learned, strict=True):
            structure = group.structure
            x = self._inputs(group, evaluation, tables)
            if structure.diffusion is None:
                structure.diffusion = Diffusion(structure, self._unmasking)
            queries = [batch[place].substitute() for place in group.places]
            trained = [i for i, q in enumerate(queries) if self._trains(q)]
            if trained:
                targets = [
                    structure.diffusion.target(
                        group.bindings[i], queries[i].query, true=queries[i].p == 1
                    )
                    for i in trained
                ]
                some = select(x, torch.tensor(trained))
                losses.append(structure.diffusion.losses(some, targets))
                for i in trained:
                    found.append((group, i, True, {queries[i].query: len(truths)}))
                    truths.append(queries[i].p == 1)
            asked = [i for i in range(len(queries)) if i not in set(trained)]
            if asked:
                part = structure.diffusion.frequencies(select(x, torch.tensor(asked)))
                part = torch.nn.functional.pad(part, (0, 1))  # for what no world gives
                for row, i in enumerate(asked):
                    answers = structure.answers(group.bindings[i], structure.program.values)
                    start = count + row * part.shape[1]
                    positions = {term: start + j for j, term in enumerate(answers)}
                    if queries[i].query.is_ground():
                        never = start + part.shape[1] - 1
                        positions = {queries[i].query: positions.get(queries[i].query, never)}
                    found.append((group, i, False, positions))
                shares.append(part.flatten())
                count += part.numel()
        pending = self._pending if self._hooked else None
        kind = Batch if self.model.eval_mode else Frequencies
        bounds = Bounds(torch.cat(losses), truths, pending) if losses else None
        worlds = kind(torch.cat(shares), None) if shares else None
        seconds = (time.perf_counter() - started) / len(found)
        for group, i, is_bound, positions in found:
            together = bounds if is_bound else worlds
            assert together is not None
            results[group.places[i]] = self._answers(group, together, positions, seconds)

    def _trains(self, query: Query) -> bool:
        """Whether a query is solved for its loss."""
        if self.model.eval_mode or not query.query.is_ground():
            return False
        if query.p not in (0, 1):
            raise ByssusError(
                f"{query.query} has p={query.p}: under provenance='nesydm' a query to learn from "
                "is true or false, with p=1 or p=0"
            )
        return True

    def _inputs(
        self, group: _Group, evaluation: Evaluation, learned: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """For each network its probabilities, or an unmasking model's inputs."""
        program, count = group.structure.program, len(group.places)
        tables = {**self._predicted(group, evaluation), **learned}
        x: dict[str, Any] = {}
        for name, instances in program.instances.items():
            if name in group.given:
                x[name] = inputs_of(self._unmasking[name], group.given[name])
            else:
                table = program._inputs.table(name, tables, instances)
                x[name] = table.expand(count, *table.shape[1:])
        return x

    def get_tensor(self, term: Term) -> Any:
        """What a term `tensor(...)` stands for; a network's output is computed if need be."""
        source = tensor_source(term)
        if source is not None and term.args[0] not in self.engine.tensor_store:
            (row,) = call(self.model, source[0], [source[1]])
            self.engine.tensor_store.store(row, term.args[0])
        try:
            return super().get_tensor(term)
        except KeyError as error:
            raise ConceptError(
                f"there is no {term}: the model's tensor sources are "
                f"{listed(self.model.tensor_sources) or 'none'}; give one with "
                "model.add_tensor_source(name, tensors)"
            ) from error

    # Losses

    def flush(self, *_: Any) -> None:
        """Pass back what losses have noted so far."""
        while self._pending:
            self._pending[-1].flush()

    def _hook(self) -> None:
        """Have optimizers tell when they are about to step."""
        for network in self.model.networks.values():
            optimizer = network.optimizer
            if isinstance(optimizer, torch.optim.Optimizer) and optimizer not in self._hooked:
                optimizer.register_step_pre_hook(self.flush)
                self._hooked.add(optimizer)


def _answered(query: Query) -> bool:
    """Whether a query has an answer, and says what it is."""
    return bool(
        query.query.is_ground()
        and len(query.output_ind)
        and query.query.args
        and query.query.functor not in ("\\+", "not")
    )


def _checked(semiring: type[Any]) -> type[Any]:
    """The semiring, whose losses are kept."""
    if semiring is GraphSemiring:
        return BatchSemiring
    changed = [
        name
        for name in ("plus", "times", "negate", "zero", "one", "value", "normalize")
        if getattr(semiring, name, None) is not getattr(GraphSemiring, name)
    ]
    if changed:
        raise ByssusError(
            f"semiring={semiring.__name__} has its own {', '.join(changed)}, and circuits here add "
            "and multiply probabilities: take a subclass of GraphSemiring that changes its losses "
            "alone, or DeepProbLog's ExactEngine"
        )
    return semiring
