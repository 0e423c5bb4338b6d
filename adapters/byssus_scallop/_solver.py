"""From facts and their probabilities to distributions over tuples, under byssus's provenances."""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from byssus import (
    ISED,
    ByssusError,
    Circuit,
    CompilationLimit,
    Concepts,
    Distribution,
    Estimator,
    Marginals,
    Mixed,
    Plan,
    Progress,
    Sampled,
    Store,
    Worlds,
    independent,
)
from byssus._sdd import Sdd
from byssus.errors import listed
from byssus.estimators import Frequencies
from byssus.formula import Formula, Key
from byssus.provenance.sampled import from_bits, some_worlds
from byssus.worlds import Sampler, _first, alike, number_worlds

from ._aggregates import AGGREGATES
from ._algebra import Tags
from ._concepts import Block, ConceptTable
from ._engine import Engine, Limits, Row, Run, TooManyCalls, TooManyTuples
from ._ir import BlackBoxRelation
from ._tags import Ground, MixedTags, SampledTags

__all__ = ["Answer", "Inputs", "Settings", "Solver", "given_facts"]

_STRUCTURES = 64
"""So many structures of facts are kept compiled, the most recently used."""


@dataclass(frozen=True)
class Settings:
    """How to infer.

    Attributes:
        provenance: "exact", "sampled", "mixed", "auto" or "nesydm".
        samples: worlds an example.
        estimator: how worlds become scores and a loss.
        worlds: where worlds come from.
        generator: makes sampling reproducible.
        nodes: the most nodes that grounding, and then compilation, may make.
        seconds: the most seconds that each may take.
        sampled: for "mixed", the relations whose facts are sampled; half of them if None.
        iterations: the most rounds of a recursion.
        memory: the most bytes that compilation may take.
        progress: who is told how far compilation is.
        store: where compiled circuits are kept.
        diffusion: for "nesydm", arguments of `byssus.diffusion.MaskedDiffusion`.
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
    memory: int | None = None
    progress: bool | Callable[[Progress], None] | None = None
    store: Store | str | os.PathLike[str] | bool | None = None
    diffusion: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """The facts of a batch.

    Attributes:
        certain: facts with no probability, `(relation, rows)`.
        blocks: uncertain facts; a key is `(relation, row, number)`.
        weights: for each block the probabilities, `(batch, facts)` or `(1, facts)`.
        batch: the number of examples.
        own: how many of the blocks, the last, are of the program's own facts.
        worlds: the worlds to run over, `(batch, worlds, columns)`, if they are given: the values
            of the concepts of the first blocks.
    """

    certain: tuple[tuple[str, tuple[Row, ...]], ...] = ()
    blocks: tuple[Block, ...] = ()
    weights: tuple[Tensor, ...] = ()
    batch: int = 1
    own: int = 0
    worlds: Tensor | None = None

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

    def probabilities(self) -> Tensor:
        """The probability of each tuple, `(batch, rows)`: the best that the worlds tell."""
        sample = self.distribution._sample
        return self.distribution.probs if sample is None else Marginals().scores(sample)


def given_facts(tags: Tags[Any], inputs: Inputs) -> dict[str, list[tuple[Row, Any]]]:
    """The facts of a batch as the engine takes them."""
    facts: dict[str, list[tuple[Row, Any]]] = {}
    for relation, rows in inputs.certain:
        facts.setdefault(relation, []).extend((row, tags.one) for row in rows)
    for block, probs in zip(inputs.blocks, inputs.weights, strict=True):
        group = block.keys[0] if block.exclusive else None
        # At once: a view a fact would cost a step of autograd each.
        for key, prob in zip(block.keys, probs.unbind(1), strict=True):
            relation, row = key[0], key[1]  # type: ignore[index]
            tag = tags.fact(key, prob, group)
            facts.setdefault(relation, []).append((row, tag))
    return facts


@dataclass
class _Compiled:
    """Outputs as a circuit.

    Attributes:
        rows: of each relation the tuples.
        columns: where the probabilities that the circuit reads are among those of all concepts.
    """

    rows: tuple[tuple[Row, ...], ...]
    circuit: Circuit
    columns: Tensor


@dataclass
class _Grounding:
    """A program grounded over one structure of facts."""

    table: ConceptTable
    ground: Ground
    run: Run[Key]
    circuits: dict[Any, _Compiled] = field(default_factory=dict)


class Solver:
    """Runs a program over batches of facts; grounds and compiles each structure of facts once."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        asked = [box.samples for box in engine.program.blackboxes if box.samples is not None]
        self.settings = replace(settings, samples=max(asked)) if asked else settings
        self._groundings: OrderedDict[Hashable, _Grounding] = OrderedDict()
        self._pinned: tuple[Inputs, _Grounding] | None = None
        self._tables: OrderedDict[Hashable, ConceptTable] = OrderedDict()
        self._sampled_because: dict[Hashable, str] = {}
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
        before = self.engine.calls
        with self.engine.staged():
            result = self._answer(inputs, outputs)
        calls = self.engine.calls - before
        if self._pinned is not None and self._pinned[0] is inputs:
            calls += self._calls
        assert self.run is not None
        for answer in result.values():
            answer.distribution.calls = calls
            answer.distribution.failures = dict(self.run.failures)
        return result

    def _answer(
        self, inputs: Inputs, outputs: Mapping[str, Sequence[Row] | None]
    ) -> dict[str, Answer]:
        provenance = self.settings.provenance
        if provenance in ("sampled", "mixed", "nesydm"):
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
                if len(self._sampled_because) > _STRUCTURES:
                    del self._sampled_because[next(iter(self._sampled_because))]
                warnings.warn(
                    f"sampled: {', '.join(outputs)}: {limit}", RuntimeWarning, stacklevel=4
                )
        return self._estimate(inputs, outputs, "sampled", self._sampled_because[asked])

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
        compiled = self._circuit(grounding, outputs)
        rows, circuit = compiled.rows, compiled.circuit
        probs = grounding.table.concepts(inputs.weights, inputs.batch).probs
        if len(compiled.columns) < probs.shape[1]:
            probs = probs.index_select(1, compiled.columns.to(probs.device))
        result = circuit.to(probs.device)(probs)
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
        before = self.engine.calls
        with self.engine.staged():
            grounding = self._grounding(inputs, (inputs.blocks, inputs.certain))
        self._calls = self.engine.calls - before
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
        auto = settings.provenance in ("auto", "nesydm")
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
        if table.varies:
            return False
        return not any(
            AGGREGATES[a.operator].weighs or a.operator == "uniform"
            for a in self.engine.program.aggregates
        )

    def _circuit(
        self, grounding: _Grounding, outputs: Mapping[str, Sequence[Row] | None]
    ) -> _Compiled:
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
            formula, columns = _needed(ground.formula([*roots, lost]))
            # What is kept serves later calls, in training too.
            with torch.inference_mode(False):
                circuit = self._compile(formula)
                at = torch.tensor(columns, dtype=torch.int64)
            if None in list(outputs.values()):
                # What holds in no world is not found.
                can = iter(circuit.satisfiable)
                chosen = [
                    tuple([row for row in some if next(can) or rows is not None])
                    for some, rows in zip(chosen, outputs.values(), strict=True)
                ]
                if sum(map(len, chosen)) < len(roots):
                    fixed = dict(zip(outputs, chosen, strict=True))
                    grounding.circuits[key] = self._circuit(grounding, fixed)
                    return grounding.circuits[key]
            grounding.circuits[key] = _Compiled(tuple(chosen), circuit, at)
        return grounding.circuits[key]

    def _compile(self, formula: Formula) -> Circuit:
        """A circuit, within the limits."""
        return Circuit.compile(
            formula,
            nodes=self.settings.nodes,
            seconds=self.settings.seconds,
            memory=self.settings.memory,
            progress=self.settings.progress,
            store=self.settings.store,
        )

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
        narrowed = False
        worlds: Worlds | None = None
        if inputs.worlds is not None:
            worlds = some_worlds(inputs.worlds)
        while True:
            concepts = table.concepts(inputs.weights, inputs.batch)
            exact = self._exact_concepts(table) if provenance == "mixed" else []
            worlds = _draw(concepts, exact, settings, worlds)
            provided: Any
            if provenance == "mixed":
                sdd = Sdd(concepts.widths, range(len(concepts.widths)))
                provided = Mixed(concepts.widths, worlds, exact, settings.estimator, sdd)
            else:
                asked = settings.estimator
                if provenance == "nesydm":
                    asked = "rloo" if inputs.worlds is None else Frequencies()
                provided = Sampled(concepts.widths, worlds, asked)
            # A world that was drawn gives one argument of a call over relations, an exact concept
            # as many as it has values.
            limits = Limits(
                settings.iterations, settings.nodes, partial(_most_calls, worlds.distinct.numel())
            )
            tags, run = self._evaluate(table, provided, inputs, limits)
            if tags.incomplete:
                continue
            if narrowed or len(tags.met) == len(table.widths) - table.start:
                break
            # What earlier batches came upon, and this one did not, would only split its worlds.
            worlds = replace(
                worlds, indices=worlds.indices[:, :, [*range(table.start), *sorted(tags.met)]]
            )
            table, narrowed = table.narrowed(tags.met), True
        if self._lasts(table):
            self._tables[structure] = table
            if len(self._tables) > _STRUCTURES:
                self._tables.popitem(last=False)
        self.run = run
        decided = set(range(len(concepts.widths))) - set(exact)
        names = sorted({name for i, name in enumerate(_relations(table)) if i in decided})
        self.plan = Plan(provenance, why, dict(run.asked), tuple(names))
        boxed = {box.name for box in self.engine.program.blackboxes}
        relevant = worlds
        if inputs.worlds is not None:
            concepts, worlds = alike(worlds.distinct.shape, concepts.probs)
            relevant = worlds
        elif provided.estimator.name != "indecater":  # it asks for every concept of every world
            relevant = _relevant(worlds, table, tags, run)
        answers = {}
        estimator = provided.estimator
        for name, rows in outputs.items():
            some = tuple(_sorted(run.tables[name]) if rows is None else rows)
            # The tuples of a black box's own relation hold whether it is asked for them or not.
            provided.worlds = worlds if name in boxed else relevant

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
            found = _tags_of(tags, run, name, some)
            provided.estimator = self._estimator(estimator, inputs, concepts, name, rows)
            if isinstance(estimator, ISED) and not _exclusive(tags, found):
                provided.estimator = Marginals()
            distribution = provided.readout(found, concepts, _values(some), lost=lost, rerun=again)
            answers[name] = Answer(some, distribution)
        return answers

    def _estimator(
        self,
        asked: Estimator,
        inputs: Inputs,
        concepts: Concepts,
        name: str,
        rows: Sequence[Row] | None,
    ) -> Estimator:
        """The estimator for the tuples of a relation."""
        return asked

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


def _exclusive(tags: Any, found: Sequence[Any]) -> bool:
    """Whether the outputs are alternatives: there are several, and no world gives two."""
    seen = tags.zero
    for tag in found:
        if tags.possible(tags.mult(seen, tag)):
            return False
        seen = tags.add(seen, tag)
    return len(found) > 1


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


def _needed(formula: Formula) -> tuple[Formula, list[int]]:
    """A formula over the concepts that it has only, and the columns of their probabilities."""
    used = sorted(formula.concepts)
    number = {concept: i for i, concept in enumerate(used)}
    starts = [0, *accumulate(formula.widths)]
    nodes = tuple(
        (kind, (number[content[0]], content[1])) if kind == "literal" else (kind, content)
        for kind, content in formula.nodes
    )
    widths = tuple(formula.widths[concept] for concept in used)
    columns = [column for c in used for column in range(starts[c], starts[c + 1])]
    return replace(formula, widths=widths, nodes=nodes), columns


def _relevant(worlds: Worlds, table: ConceptTable, tags: Any, run: Run[Any]) -> Worlds:
    """The worlds without the answers of calls that they do not ask for.

    Each world has drawn the answers of all calls of the batch; those that it has no use for would
    make it improbable, and different from others that are the same to the program.
    """
    indices = worlds.indices.clone()
    for key, tag in run.needed.items():
        found = table.literal((key, 0))
        if found is None or worlds.complete:
            continue
        asked = torch.zeros(worlds.distinct.numel(), dtype=torch.bool)
        asked[torch.from_numpy(from_bits(tags.worlds_of(tag), len(asked)))] = True
        indices[..., found[0]][~asked.reshape(worlds.distinct.shape).to(indices.device)] = -1
    if bool((indices == worlds.indices).all()):
        return worlds
    numbers, _ = number_worlds(indices, table.widths)
    return replace(worlds, indices=indices, distinct=_first(numbers))


def _most_calls(worlds: int, box: BlackBoxRelation) -> int | None:
    return max(worlds, box.box.table_limit) if box.over else None


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
    samples = before.indices.shape[1] if before is not None and known else settings.samples
    drawn = (independent if known else settings.worlds)(part, samples, settings.generator)
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
