"""The embedded engine: semi-naive evaluation of rules over the tags of a provenance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from byssus import ByssusError
from byssus._calls import Failure

from ._aggregates import aggregate
from ._algebra import Tags, Unit
from ._codegen import Compiled, Style, compile_rule
from ._ir import Aggregate, BlackBoxRelation, Foreign, Program, Rule, Scan
from ._operators import Dropped
from ._planning import reorder
from ._strata import strata
from ._syntax import Span

__all__ = ["Database", "Derivation", "Engine", "Limits", "Row", "Run", "Table"]

T = TypeVar("T")
Row = tuple[Hashable, ...]

_ROUNDS = 1_000
"""The most rounds in which black boxes may be asked, if there is no other limit."""


class Table(Generic[T]):
    """The tuples of a relation.

    Attributes:
        rows: the tuples and their tags.
        delta: those that the last round has added or changed.
    """

    def __init__(self) -> None:
        self.rows: dict[Row, T] = {}
        self.delta: dict[Row, T] = {}
        self.worlds: Any = None
        self._indexes: dict[tuple[int, ...], dict[Any, list[Row]]] = {}

    def index(self, columns: tuple[int, ...]) -> dict[Any, list[Row]]:
        """The tuples by the values of some columns; the value itself if it is one column."""
        if columns not in self._indexes:
            self._indexes[columns] = {}
            self._enter(columns, self.rows)
        return self._indexes[columns]

    def grow(self, rows: Sequence[Row]) -> None:
        """Enter new tuples into the indexes that there are."""
        for columns in self._indexes:
            self._enter(columns, rows)

    def _enter(self, columns: tuple[int, ...], rows: Iterable[Row]) -> None:
        index = self._indexes[columns]
        if len(columns) == 1:
            (i,) = columns
            for row in rows:
                index.setdefault(row[i], []).append(row)
        else:
            for row in rows:
                index.setdefault(tuple([row[i] for i in columns]), []).append(row)


class Database(dict[str, Table[T]]):
    """The tables of a run, and the foreign predicates that it has evaluated."""

    def __init__(self, names: Iterable[str], tags: Tags[T]) -> None:
        super().__init__((name, Table()) for name in names)
        self.tags = tags
        self._known: dict[tuple[int, Row], list[tuple[T, Row]]] = {}

    def foreign(
        self, predicate: Foreign, inputs: Row, drop: Callable[[Exception], None]
    ) -> list[tuple[T, Row]]:
        """The tagged outputs of a foreign predicate, evaluated once for the same inputs."""
        key = (id(predicate.function), inputs)
        if key not in self._known:
            try:
                found = list(predicate.function(*inputs))
            except Exception as error:
                drop(error)
                found = []
            self._known[key] = [
                (self.tags.one if tag is None else self._tag(predicate, inputs, i, tag), outputs)
                for i, (tag, outputs) in enumerate(found)
            ]
        return self._known[key]

    def _tag(self, predicate: Foreign, inputs: Row, i: int, tag: Any) -> T:
        if tag is True:
            return self.tags.one
        if tag is False:
            return self.tags.zero
        return self.tags.fact((predicate.name, inputs, i), tag)


@dataclass(frozen=True)
class Limits:
    """What ends a run that would not end.

    Attributes:
        iterations: rounds of a recursion, after which it stops as it stands (as in Scallop).
        tuples: the most that all relations may hold together; more is an error.
        calls: the most calls that each black box may be asked for in all; more is `TooManyCalls`.
    """

    iterations: int | None = None
    tuples: int | None = None
    calls: Callable[[BlackBoxRelation], int | None] = field(default=lambda box: None)


class TooManyCalls(ByssusError):  # noqa: N818
    """More calls of a black box were asked for than a limit allows."""

    def __init__(self, box: BlackBoxRelation, asked: int, limit: int) -> None:
        super().__init__(
            f"the rules ask for {asked} calls of the black box {box.box.name}, more than {limit}: "
            "sample, raise its budget, or let the rules ask for less"
        )
        self.box = box


class TooManyTuples(ByssusError):  # noqa: N818
    """The relations have outgrown a limit."""


@dataclass
class Run(Generic[T]):
    """What a run has found.

    Attributes:
        tables: the tuples and tags of every relation.
        dropped: how many tuples were dropped, by place and reason.
        lost: the tags of the calls that failed and were discarded.
        failures: the calls that failed, as (name, *arguments), with the cause.
        asked: how many distinct calls of each black box were asked for.
        needed: for each call with uncertain answers, by its black box and arguments, the tag of
            where it was asked for; elsewhere what it answers makes no difference.
    """

    tables: dict[str, dict[Row, T]]
    dropped: dict[tuple[Span, str], int]
    lost: list[T]
    failures: dict[tuple[Hashable, ...], BaseException]
    asked: dict[str, int]
    needed: dict[tuple[str, Row], T]


class Engine:
    """A program, ready to run over any provenance.

    Args:
        program: the lowered program.

    Raises:
        ProgramError: negation or aggregation through recursion.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.strata = strata(program)
        self._rules: dict[str, list[Rule]] = defaultdict(list)
        for rule in program.rules:
            self._rules[rule.head].append(rule)
        self._aggregates = {a.head: a for a in program.aggregates}
        self._blackboxes = {b.name: b for b in program.blackboxes}
        # One may have several declarations.
        self._boxes = list({id(b.box): b.box for b in program.blackboxes}.values())
        self._compiled: dict[tuple[int, Style, int], Compiled] = {}

    def run(
        self,
        tags: Tags[T],
        facts: Mapping[str, Iterable[tuple[Row, T]]],
        *,
        generator: torch.Generator | None = None,
        limits: Limits = Limits(),
    ) -> Run[T]:
        """Derive everything.

        Args:
            tags: the provenance.
            facts: the tuples that are given, with their tags; one may be given several times.
            generator: for aggregators that draw at random.
            limits: what ends a run that would not end.
        """
        with self.staged():
            return _Evaluation(self, tags, generator, limits).run(facts)

    @property
    def calls(self) -> int:
        """How many calls of black boxes there have been."""
        return sum(box.calls for box in self._boxes)

    @contextmanager
    def staged(self) -> Iterator[None]:
        """Remember the answers of calls only if what is inside succeeds."""
        with ExitStack() as stack:
            for box in self._boxes:
                stack.enter_context(box.caller.staged())
            yield

    def rules(self, relations: Sequence[str]) -> Iterator[Rule]:
        """The rules that derive any of these relations."""
        for relation in relations:
            yield from self._rules.get(relation, ())

    def compiled(
        self, rule: Rule, style: Style, scan: int = -1, recursive: frozenset[str] = frozenset()
    ) -> Compiled:
        """A rule's function; over what the last round has changed at one of its scans, if given.

        Of several scans that may read what has changed, those before this one skip it: every
        instance is found once.
        """
        key = (id(rule), style, scan)
        if key not in self._compiled:
            if scan < 0:
                self._compiled[key] = compile_rule(rule, rule.steps, style)
            else:
                steps = reorder(rule, scan)
                old = frozenset(
                    step.origin
                    for step in steps
                    if isinstance(step, Scan) and step.relation in recursive and step.origin < scan
                )
                self._compiled[key] = compile_rule(rule, steps, style, True, old)
        return self._compiled[key]

    def aggregate(self, relation: str) -> Aggregate | None:
        """The aggregation that fills a relation, if one does."""
        return self._aggregates.get(relation)

    def blackbox(self, relation: str) -> BlackBoxRelation | None:
        """The black box that fills a relation, if one does."""
        return self._blackboxes.get(relation)


class Derivation(Generic[T]):
    """What a run derives beside its rules: aggregations, and the answers of black boxes.

    To be subclassed by what runs the rules.
    """

    def __init__(
        self,
        engine: Engine,
        tags: Tags[T],
        generator: torch.Generator | None,
        limits: Limits,
    ) -> None:
        self.engine = engine
        self.tags = tags
        self.generator = generator
        self.limits = limits
        self.dropped: dict[tuple[Span, str], int] = defaultdict(int)
        self.lost: dict[str, list[T]] = {}
        self.failed: list[tuple[str, Row]] = []
        self.failures: dict[tuple[Hashable, ...], BaseException] = {}
        self.needed: dict[tuple[str, Row], T] = {}
        self.asked: dict[str, int] = {}
        self.called: dict[str, set[Row]] = defaultdict(set)

    def rows(self, relation: str) -> Mapping[Row, T]:
        """The tuples of a relation so far, with their tags."""
        raise NotImplementedError

    def found(self, tables: dict[str, dict[Row, T]]) -> Run[T]:
        """What the run has found, once it is over."""
        lost = [tag for tags in self.lost.values() for tag in tags]
        # Read now: a recursion may have asked again, in other worlds, for what had failed.
        lost += [self.rows(relation).get(row, self.tags.zero) for relation, row in self.failed]
        for name, row in self.needed:
            box = self.engine.blackbox(name)
            if box is not None and box.asked is not None:
                self.needed[name, row] = self.rows(box.asked).get(row, self.tags.zero)
        return Run(tables, dict(self.dropped), lost, self.failures, self.asked, self.needed)

    def aggregated(self, declaration: Aggregate) -> dict[Row, list[T]]:
        """The results of an aggregation, whose body is complete."""
        tags = self.tags
        size = declaration.group
        groups: dict[Row, list[tuple[Row, T]]] = defaultdict(list)
        for row, tag in self.rows(declaration.body).items():
            groups[row[:size]].append((row[size:], tag))
        new: dict[Row, list[T]] = defaultdict(list)

        def dropped(reason: str) -> None:
            self.dropped[declaration.span, reason] += 1

        def results(key: Row, rows: list[tuple[Row, T]], grouped: bool) -> list[tuple[Row, T]]:
            return aggregate(
                declaration,
                rows,
                tags,
                grouped=grouped,
                group=key,
                generator=self.generator,
                dropped=dropped,
            )

        if declaration.groups is not None:
            for row, tag in self.rows(declaration.groups).items():
                for result, other in results(row, groups.get(row[:size], []), False):
                    new[(*row, *result)].append(tags.mult(tag, other))
        elif size == 0:
            for result, tag in results((), groups.get((), []), False):
                new[result].append(tag)
        else:
            for key, rows in groups.items():
                for result, tag in results(key, rows, True):
                    new[(*key, *result)].append(tag)
        return new

    # Black boxes

    def answered(self, box: BlackBoxRelation, relation: str) -> dict[Row, list[T]]:
        """Call a black box on what is new in a relation, and turn the answers into tuples."""
        asked = self.rows(relation)
        rows = [row for row in asked if row not in self.called[box.name]]
        self.called[box.name].update(rows)
        self.afford(box, len(self.called[box.name]))
        return self.call(box, rows, [asked[row] for row in rows])

    def afford(self, box: BlackBoxRelation, count: int) -> None:
        self.asked[box.name] = count * box.times
        limit = self.limits.calls(box)
        if limit is not None and count > limit:
            raise TooManyCalls(box, count, limit)

    def call(
        self, box: BlackBoxRelation, arguments: Sequence[Row], asked: Sequence[T]
    ) -> dict[Row, list[T]]:
        tags = self.tags
        leaf = box.asked is None
        new: dict[Row, list[T]] = defaultdict(list)
        outcomes = box.box.evaluate(list(arguments)) if arguments else []
        for row, tag, outcome in zip(arguments, asked, outcomes, strict=True):
            if isinstance(outcome, Failure):
                if box.asked is None:
                    self.lost[box.name].append(tag)
                else:
                    self.failed.append((box.asked, row))
                self.failures[box.name, *row] = outcome.cause
                continue
            inputs = () if leaf else row
            given = tag if leaf else tags.one
            outputs = list(box.convert(outcome))
            certain = [o for o in outputs if o[0] is None]
            for _, values in certain:
                new[(*inputs, *values)].append(given)
            uncertain = [o for o in outputs if o[0] is not None]
            if uncertain:
                self.needed[box.name, row] = tag
                alternatives = tags.alternatives((box.name, row), [p for p, _ in uncertain])
                for (_, values), one in zip(uncertain, alternatives, strict=True):
                    new[(*inputs, *values)].append(tags.mult(given, one))
        return new

    def read_over(self, box: BlackBoxRelation) -> dict[Row, list[T]]:
        """Call a black box on the contents that its relations have in the worlds."""
        self.lost[box.name] = []
        tables = [self.rows(name) for name in box.over]
        limit = self.limits.calls(box)
        contents = self.tags.contents(tables, limit)
        if contents is None:
            raise TooManyCalls(box, (limit or 0) + 1, limit or 0)
        self.afford(box, len(contents))
        arguments = [
            tuple(tuple(row[0] if len(row) == 1 else row for row in rows) for rows in content)
            for content, _ in contents
        ]
        return self.call(box, arguments, [tag for _, tag in contents])


class _Evaluation(Derivation[T]):
    """One run of a program."""

    def __init__(
        self,
        engine: Engine,
        tags: Tags[T],
        generator: torch.Generator | None,
        limits: Limits,
    ) -> None:
        super().__init__(engine, tags, generator, limits)
        self.style = Style(
            not isinstance(tags, Unit), tags.mult_source, tags.possible_source, tags.joins
        )
        self.tables: Database[T] = Database(engine.program.relations, tags)
        self.size = 0

    def run(self, facts: Mapping[str, Iterable[tuple[Row, T]]]) -> Run[T]:
        for stratum in self.engine.strata:
            self.evaluate(stratum, facts)
        return self.found({name: table.rows for name, table in self.tables.items()})

    def rows(self, relation: str) -> Mapping[Row, T]:
        return self.tables[relation].rows

    def evaluate(
        self, stratum: Sequence[str], facts: Mapping[str, Iterable[tuple[Row, T]]]
    ) -> None:
        """The least fixpoint of mutually recursive relations."""
        within = frozenset(stratum)
        rules = list(self.engine.rules(stratum))
        variants = [
            (rule, step.origin)
            for rule in rules
            for step in rule.steps
            if isinstance(step, Scan) and step.relation in within
        ]
        boxes = [box for name in stratum if (box := self.engine.blackbox(name))]
        recursive = bool(variants)
        for name in stratum:
            given: dict[Row, list[T]] = {}
            for row, tag in facts.get(name, ()):
                given.setdefault(row, []).append(tag)
            # Facts are tuples like others, but the first round reads them whole.
            self.merge(name, given, recursive)
            if declaration := self.engine.aggregate(name):
                self.merge(name, self.aggregated(declaration), recursive)
        new: dict[str, dict[Row, Any]] = {name: {} for name in stratum}
        for rule in rules:
            self.fire(self.engine.compiled(rule, self.style), rule, new)
        changed = self.merge_all(new, recursive)
        self.fixpoint(variants, within, changed)
        for round_ in range(_ROUNDS):
            answers = {box.name: self.answers(box) for box in boxes}
            if not self.merge_all(answers, recursive):
                return
            if round_ == (self.limits.iterations or _ROUNDS) - 1:
                if self.limits.iterations:
                    return
                raise boxes[0].span.error(
                    f"the black box {boxes[0].name} has been asked {_ROUNDS} times in a row for "
                    "something new: bound the recursion that calls it, or set an iteration limit"
                )
            self.fixpoint(variants, within, True)

    def fixpoint(
        self, variants: Sequence[tuple[Rule, int]], within: frozenset[str], changed: bool
    ) -> None:
        rounds = 1
        while changed and variants:
            if self.limits.iterations is not None and rounds >= self.limits.iterations:
                return
            rounds += 1
            new: dict[str, dict[Row, Any]] = {name: {} for name in within}
            for rule, scan in variants:
                self.fire(self.engine.compiled(rule, self.style, scan, within), rule, new)
            changed = self.merge_all(new, True)

    def fire(self, compiled: Compiled, rule: Rule, new: dict[str, dict[Row, Any]]) -> None:
        span = rule.span

        def drop(error: Exception) -> None:
            if isinstance(error, ByssusError):
                raise error
            reason = (
                str(error) if isinstance(error, Dropped) else f"{type(error).__name__}: {error}"
            )
            self.dropped[span, reason] += 1

        compiled(self.tables, self.tags, new[rule.head], drop)

    def merge_all(self, new: Mapping[str, dict[Row, Any]], recursive: bool) -> bool:
        changed = [self.merge(name, rows, recursive) for name, rows in new.items()]
        return any(changed)

    def merge(self, name: str, new: dict[Row, Any], recursive: bool) -> bool:
        """Add what has been derived; whether anything has changed."""
        table, tags = self.tables[name], self.tags
        rows = table.rows
        delta: dict[Row, T] = {}
        if not self.style.tagged:
            delta = {row: True for row, tag in new.items() if tag and row not in rows}  # type: ignore[misc]
            rows.update(delta)
            table.grow(list(delta))
            self.size += len(delta)
        else:
            added = []
            for row, found in new.items():
                old = rows.get(row)
                tag, changed = tags.insert(old, found, recursive)
                if old is None:
                    if not tags.possible(tag):
                        continue
                    added.append(row)
                elif not changed:
                    rows[row] = tag  # a little more, but not enough to go on with
                    continue
                rows[row] = delta[row] = tag
            table.grow(added)
            self.size += len(added)
        table.worlds = None
        # In place: generated code holds on to it.
        table.delta.clear()
        table.delta.update(delta)
        if self.limits.tuples is not None and self.size > self.limits.tuples:
            raise TooManyTuples(
                f"the relations hold more than {self.limits.tuples} tuples, the last of them in "
                f"{name}: bound the recursion, or raise the limit"
            )
        return bool(delta)

    def answers(self, box: BlackBoxRelation) -> dict[Row, list[T]]:
        """What a black box answers that it has not been asked before."""
        if self.tags.incomplete:
            return {}
        if box.asked is not None:
            return self.answered(box, box.asked)
        if self.called[box.name]:
            return {}
        self.called[box.name].add(())
        return self.read_over(box)
