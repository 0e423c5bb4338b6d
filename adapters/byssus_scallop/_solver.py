"""From facts and their probabilities to distributions over tuples, under byssus's provenances."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from byssus import (
    ByssusError,
    Circuit,
    CompilationLimit,
    Concepts,
    Distribution,
    Estimator,
    Mixed,
    Plan,
    Sampled,
    Worlds,
    independent,
)
from byssus._sdd import Sdd
from byssus.errors import listed
from byssus.formula import Key
from byssus.worlds import Sampler, _first, number_worlds

from ._aggregates import AGGREGATES
from ._algebra import Tags
from ._concepts import Block, ConceptTable
from ._engine import Engine, Limits, Row, Run, TooManyCalls, TooManyTuples
from ._tags import Ground, MixedTags, SampledTags

__all__ = ["Answer", "Inputs", "Settings", "Solver", "given_facts"]

_STRUCTURES = 64
"""So many structures of facts are kept compiled, the most recently used."""


@dataclass(frozen=True)
class Settings:
    """How to infer.

    Attributes:
        provenance: "exact", "sampled", "mixed" or "auto".
        samples: worlds an example.
        estimator: how worlds become scores and a loss.
        worlds: where worlds come from.
        generator: makes sampling reproducible.
        nodes: the most nodes that grounding, and then compilation, may make.
        seconds: the most seconds that each may take.
        sampled: for "mixed", the relations whose facts are sampled; half of them if None.
        iterations: the most rounds of a recursion.
    """

    provenance: str = "auto"
    samples: int = 100
    estimator: str | Estimator = "auto"
    worlds: Sampler = independent
    generator: torch.Generator | None = None
    nodes: int | None = 5_000_000
    seconds: float | None = 60.0
    sampled: tuple[str, ...] | None = None
    iterations: int | None = None


@dataclass(frozen=True)
class Inputs:
    """The facts of a batch.

    Attributes:
        certain: facts with no probability, `(relation, rows)`.
        blocks: uncertain facts; a key is `(relation, row, number)`.
        weights: for each block the probabilities, `(batch, facts)` or `(1, facts)`.
        batch: the number of examples.
    """

    certain: tuple[tuple[str, tuple[Row, ...]], ...] = ()
    blocks: tuple[Block, ...] = ()
    weights: tuple[Tensor, ...] = ()
    batch: int = 1

    def to(self, dtype: torch.dtype) -> Inputs:
        """The same with probabilities of another type."""
        return replace(self, weights=tuple(w.to(dtype) for w in self.weights))

    def check(self) -> None:
        """Raise a `ProbabilityError` for what is no probability."""
        for block, probs in zip(self.blocks, self.weights, strict=True):
            block.check(probs)


@dataclass
class Answer:
    """What a relation holds.

    Attributes:
        rows: its tuples, one an output.
        distribution: their probabilities.
    """

    rows: tuple[Row, ...]
    distribution: Distribution


def given_facts(tags: Tags[Any], inputs: Inputs) -> dict[str, list[tuple[Row, Any]]]:
    """The facts of a batch as the engine takes them."""
    facts: dict[str, list[tuple[Row, Any]]] = {}
    for relation, rows in inputs.certain:
        facts.setdefault(relation, []).extend((row, tags.one) for row in rows)
    for block, probs in zip(inputs.blocks, inputs.weights, strict=True):
        group = block.keys[0] if block.exclusive else None
        for i, key in enumerate(block.keys):
            relation, row = key[0], key[1]  # type: ignore[index]
            tag = tags.fact(key, probs[:, i], group)
            facts.setdefault(relation, []).append((row, tag))
    return facts


@dataclass
class _Grounding:
    """A program grounded over one structure of facts."""

    table: ConceptTable
    ground: Ground
    run: Run[Key]
    circuits: dict[Any, tuple[tuple[tuple[Row, ...], ...], Circuit]] = field(default_factory=dict)


class Solver:
    """Runs a program over batches of facts; grounds and compiles each structure of facts once."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        asked = [box.samples for box in engine.program.blackboxes if box.samples is not None]
        self.settings = replace(settings, samples=max(asked)) if asked else settings
        self._groundings: OrderedDict[Hashable, _Grounding] = OrderedDict()
        self._pinned: tuple[Inputs, _Grounding] | None = None
        self._tables: OrderedDict[Hashable, ConceptTable] = OrderedDict()
        self._sdds: dict[Hashable, Sdd] = {}
        self._sampled_because: dict[Hashable, str] = {}
        # One may have several declarations.
        boxes = [declared.box for declared in engine.program.blackboxes]
        self._boxes = list({id(box): box for box in boxes}.values())
        self._calls = 0
        self.plan: Plan | None = None
        self.run: Run[Any] | None = None

    def answer(
        self, inputs: Inputs, outputs: Mapping[str, Sequence[Row] | None]
    ) -> dict[str, Answer]:
        """The distribution over the tuples of relations.

        Args:
            inputs: the facts.
            outputs: for each relation the tuples to report on, or None for those that are found.
        """
        inputs.check()
        before = self._called()
        with self._staged():
            result = self._answer(inputs, outputs)
        calls = self._called() - before
        if self._pinned is not None and self._pinned[0] is inputs:
            calls += self._calls
        assert self.run is not None
        for answer in result.values():
            answer.distribution.calls = calls
            answer.distribution.failures = dict(self.run.failures)
        return result

    def _called(self) -> int:
        return sum(box.calls for box in self._boxes)

    @contextmanager
    def _staged(self) -> Iterator[None]:
        """Remember the answers of calls only if all goes well."""
        with ExitStack() as stack:
            for box in self._boxes:
                stack.enter_context(box.caller.staged())
            yield

    def _answer(
        self, inputs: Inputs, outputs: Mapping[str, Sequence[Row] | None]
    ) -> dict[str, Answer]:
        provenance = self.settings.provenance
        if provenance in ("sampled", "mixed"):
            return self._estimate(inputs, outputs, provenance, "asked for")
        structure = (inputs.blocks, inputs.certain)
        if provenance == "exact":
            return self._exact(inputs, outputs, structure, "asked for")
        asked = (structure, tuple(outputs))
        if asked not in self._sampled_because:
            try:
                return self._exact(inputs, outputs, structure, "the program compiles")
            except (CompilationLimit, TooManyCalls, TooManyTuples) as limit:
                self._sampled_because[asked] = str(limit)
                warnings.warn(
                    f"sampled: {', '.join(outputs)}: {limit}", RuntimeWarning, stacklevel=4
                )
        why = self._sampled_because[asked]
        return self._estimate(inputs, outputs, "sampled", why)

    # Exact

    def _exact(
        self,
        inputs: Inputs,
        outputs: Mapping[str, Sequence[Row] | None],
        structure: Hashable,
        why: str,
    ) -> dict[str, Answer]:
        grounding = self._grounding(inputs, structure)
        self.run = grounding.run
        rows, circuit = self._circuit(grounding, outputs)
        concepts = grounding.table.concepts(inputs.weights, inputs.batch)
        result = circuit.to(concepts.probs.device)(concepts.probs)
        self.plan = Plan("exact", why, dict(grounding.run.asked), (), circuit.size)
        answers, start = {}, 0
        lost = result[:, -1]
        for name, some in zip(outputs, rows, strict=True):
            probs = result[:, start : start + len(some)]
            start += len(some)
            answers[name] = Answer(some, Distribution(_values(some), exact=probs, lost=lost))
        return answers

    def grounded(self, inputs: Inputs) -> Run[Key]:
        """What is derived from these facts at all, in any world; answers are then of this run."""
        before = self._called()
        with self._staged():
            grounding = self._grounding(inputs, (inputs.blocks, inputs.certain))
        self._calls = self._called() - before
        self._pinned = inputs, grounding
        return grounding.run

    def _grounding(self, inputs: Inputs, structure: Hashable) -> _Grounding:
        if self._pinned is not None and self._pinned[0] is inputs:
            return self._pinned[1]
        if structure in self._groundings:
            self._groundings.move_to_end(structure)
            return self._groundings[structure]
        settings = self.settings
        table = ConceptTable(inputs.blocks)
        ground = Ground(
            table,
            settings.nodes,
            settings.seconds,
            lambda: table.concepts(inputs.weights, inputs.batch),
        )
        auto = settings.provenance == "auto"
        limits = Limits(
            settings.iterations,
            settings.nodes,
            lambda box: box.box.table_limit if auto or box.over else None,
        )
        run = self.engine.run(
            ground, given_facts(ground, inputs), generator=settings.generator, limits=limits
        )
        grounding = _Grounding(table, ground, run)
        if self._lasts(table):
            self._groundings[structure] = grounding
            if len(self._groundings) > _STRUCTURES:
                self._groundings.popitem(last=False)
        return grounding

    def _lasts(self, table: ConceptTable) -> bool:
        """Whether what evaluation came upon is the same for the next batch."""
        if any(found.requires_grad for found in table.found):
            return False
        return not any(
            AGGREGATES[a.operator].weighs or a.operator == "uniform"
            for a in self.engine.program.aggregates
        )

    def _circuit(
        self, grounding: _Grounding, outputs: Mapping[str, Sequence[Row] | None]
    ) -> tuple[tuple[tuple[Row, ...], ...], Circuit]:
        key = tuple((name, None if rows is None else tuple(rows)) for name, rows in outputs.items())
        if key not in grounding.circuits:
            ground, tables = grounding.ground, grounding.run.tables
            lost = ground.sum(grounding.run.lost) if grounding.run.lost else None
            kept = ground.negate(lost)
            chosen = []
            roots: list[Key] = []
            for name, rows in outputs.items():
                table = tables[name]
                some = tuple(_sorted(table) if rows is None else rows)
                chosen.append(some)
                roots += [ground.mult(table.get(row), kept) for row in some]
            formula = ground.formula([*roots, lost])
            circuit = Circuit.compile(
                formula, nodes=self.settings.nodes, seconds=self.settings.seconds
            )
            if None in list(outputs.values()):
                # What holds in no world is not found.
                can = iter(circuit.satisfiable)
                chosen = [
                    tuple([row for row, it in zip(some, can, strict=False) if it])
                    if rows is None
                    else tuple([row for row, _ in zip(some, can, strict=False)])
                    for some, rows in zip(chosen, outputs.values(), strict=True)
                ]
                if sum(map(len, chosen)) < len(roots):
                    fixed = dict(zip(outputs, chosen, strict=True))
                    grounding.circuits[key] = self._circuit(grounding, fixed)
                    return grounding.circuits[key]
            grounding.circuits[key] = (tuple(chosen), circuit)
        return grounding.circuits[key]

    # Sampled

    def _estimate(
        self,
        inputs: Inputs,
        outputs: Mapping[str, Sequence[Row] | None],
        provenance: str,
        why: str,
    ) -> dict[str, Answer]:
        settings = self.settings
        structure = (inputs.blocks, inputs.certain)
        # Put back in the end: what a failed run came upon is forgotten.
        table = self._tables.pop(structure, None) or ConceptTable(inputs.blocks)
        kept = True
        worlds = None
        limits = Limits(settings.iterations, settings.nodes)
        while True:
            concepts = table.concepts(inputs.weights, inputs.batch)
            exact = self._exact_concepts(table) if provenance == "mixed" else []
            worlds = _draw(concepts, exact, settings, worlds)
            provided: Any
            if provenance == "mixed":
                sdd = Sdd(concepts.widths, range(len(concepts.widths)))
                provided = Mixed(concepts.widths, worlds, exact, settings.estimator, sdd)
            else:
                provided = Sampled(concepts.widths, worlds, settings.estimator)
            tags, run = self._evaluate(table, provided, inputs, limits)
            if tags.incomplete:
                continue
            if not kept or len(tags.met) == len(table.widths) - table.start:
                break
            # What earlier batches came upon, and this one did not, would only split its worlds.
            table, kept = ConceptTable(inputs.blocks), False
            worlds = replace(worlds, indices=worlds.indices[:, :, : table.start])
        if kept and self._lasts(table):
            self._tables[structure] = table
            if len(self._tables) > _STRUCTURES:
                self._tables.popitem(last=False)
        self.run = run
        decided = set(range(len(concepts.widths))) - set(exact)
        names = sorted({name for i, name in enumerate(_relations(table)) if i in decided})
        self.plan = Plan(provenance, why, dict(run.asked), tuple(names))
        answers = {}
        for name, rows in outputs.items():
            some = tuple(_sorted(run.tables[name]) if rows is None else rows)

            def again(other: Any, name: str = name, some: tuple[Row, ...] = some) -> list[Any]:
                tags, run = self._evaluate(table, other, inputs, limits)
                if tags.incomplete:
                    raise ByssusError(
                        f"the estimator {settings.estimator!r} asks about worlds that were not "
                        "drawn, in which more uncertain facts come up than in those that were: "
                        "take another one, such as 'rloo'"
                    )
                return _tags_of(tags, run, name, some)

            lost = tags.sum(run.lost) if run.lost else tags.zero
            distribution = provided.readout(
                _tags_of(tags, run, name, some), concepts, _values(some), lost=lost, rerun=again
            )
            answers[name] = Answer(some, distribution)
        return answers

    def _evaluate(
        self, table: ConceptTable, provided: Any, inputs: Inputs, limits: Limits
    ) -> tuple[Any, Run[Any]]:
        tags: Any = (MixedTags if isinstance(provided, Mixed) else SampledTags)(table, provided)
        facts = given_facts(tags, inputs)
        return tags, self.engine.run(tags, facts, generator=self.settings.generator, limits=limits)

    def _exact_concepts(self, table: ConceptTable) -> list[int]:
        """The concepts that `mixed` does not sample."""
        names = self.settings.sampled
        relations = _relations(table)
        if names is None:
            # What evaluation comes upon is sampled: it may be much, and must not shift the rest.
            return list(range((table.start + 1) // 2, table.start))
        unknown = set(names) - set(self.engine.program.relations)
        if unknown:
            raise ByssusError(
                f"sampled={sorted(unknown)}: the program has the relations "
                f"{listed(n for n, r in self.engine.program.relations.items() if not r.hidden)}"
            )
        return [i for i, relation in enumerate(relations) if relation not in names]


def _tags_of(tags: Any, run: Run[Any], name: str, rows: Iterable[Row]) -> list[Any]:
    """The tags of tuples, in the worlds that were not lost."""
    table = run.tables[name]
    found = [table.get(row, tags.zero) for row in rows]
    if not run.lost:
        return found
    kept = tags.negate(tags.sum(run.lost))
    return [tags.mult(tag, kept) for tag in found]


def _relations(table: ConceptTable) -> list[str]:
    """For each concept the relation that its facts are of."""
    relations: list[str] = []
    for block in table.blocks:
        name: Any = block.keys[0]
        while isinstance(name, tuple):
            name = name[0]
        relations += [str(name)] * len(block.widths)
    return relations


def _draw(
    concepts: Concepts, exact: Sequence[int], settings: Settings, before: Worlds | None
) -> Worlds:
    """Draw worlds of all but the exact concepts; of the new ones, if the others were drawn."""
    count = len(concepts.widths)
    # Worlds in which what has been called is what has to be called.
    known = 0 if before is None or before.complete else before.indices.shape[2]
    chosen = sorted(set(range(known, count)) - set(exact))
    if not known and len(chosen) == count:
        return settings.worlds(concepts, settings.samples, settings.generator)
    part = Concepts(
        torch.cat([concepts.probs[:, :0], *map(concepts.of, chosen)], 1),
        tuple(concepts.widths[c] for c in chosen),
    )
    drawn = (independent if known else settings.worlds)(part, settings.samples, settings.generator)
    indices = drawn.indices.new_full((*drawn.indices.shape[:2], count), -1)
    indices[:, :, chosen] = drawn.indices
    if not known:
        return replace(drawn, indices=indices)
    assert before is not None
    indices[:, :, :known] = before.indices
    return Worlds(indices, _first(number_worlds(indices, concepts.widths)[0]))


def _sorted(rows: Iterable[Row]) -> list[Row]:
    """Tuples in ascending order, where their values have one."""
    try:
        return sorted(rows)
    except TypeError:
        return list(rows)


def _values(rows: Sequence[Row]) -> list[Hashable]:
    """What outputs are called: a tuple of one is its value."""
    return [row[0] if len(row) == 1 else row for row in rows]
