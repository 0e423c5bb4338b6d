"""Runs of Scallop's own engine over the tags of a provenance, round after round.

A round is one run of a copy of the context. What depends on it and is not Scallop's to do is done
after it, stratum by stratum: black boxes are called on what is newly asked, all at once, complete
relations are aggregated, and coins are tossed for new ground instances. The results are facts of
the next round. The last round has brought nothing new.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import get_ident, local
from time import monotonic
from typing import Any, TypeVar

import torch

from byssus import ByssusError

from ._algebra import Tags
from ._callbacks import Callbacks
from ._engine import Derivation, Engine, Limits, Row, Run
from ._ir import Aggregate, BlackBoxRelation, Program
from ._printing import Coin
from ._values import Entity

__all__ = ["OwnContext", "ScallopEngine"]

T = TypeVar("T")

_ROUNDS = 1_000
"""The most rounds in which black boxes may be asked, if there is no other limit."""


class ScallopEngine(Engine):
    """A program inside Scallop, which runs over any tags as one on the embedded engine does.

    Args:
        program: what the context holds.
        context: Scallop's internal context, with all rules.
        make: makes another one, for another thread.
        names: for each relation what it is called there.
        coins: for each head the rules that derive it by chance.
        seconds: the most that a run may take, where that can be told.
    """

    def __init__(
        self,
        program: Program,
        context: OwnContext,
        make: Callable[[], OwnContext],
        names: Mapping[str, str],
        coins: Mapping[str, Sequence[Coin]],
        seconds: float | None,
    ) -> None:
        super().__init__(program)
        self._contexts = local()
        self._contexts.own = context
        self._make = make
        self.names = names
        self.coins = coins
        self.seconds = seconds

    @property
    def context(self) -> OwnContext:
        """That of this thread."""
        own: OwnContext | None = getattr(self._contexts, "own", None)
        if own is None:
            own = self._contexts.own = self._make()
        # A function that Scallop calls may run the same program.
        return self._make() if own.callbacks.running else own

    def run(
        self,
        tags: Tags[T],
        facts: Mapping[str, Iterable[tuple[Row, T]]],
        *,
        generator: torch.Generator | None = None,
        limits: Limits = Limits(),  # noqa: B008  # it is frozen
    ) -> Run[T]:
        """Derive everything; the arguments are those of the embedded engine."""
        with self.staged():
            return _Rounds(self, tags, generator, limits).run(facts)


class _Here(local):
    """What other threads have left to this one to drop."""

    def __init__(self) -> None:
        self.left: list[Any] = []


_here = _Here()


class OwnContext:
    """Scallop's internal context, which only the thread that made it may use and let go of.

    Args:
        real: the context.
        callbacks: its provenance, of this context and its copies only.
    """

    def __init__(self, real: Any, callbacks: Callbacks[Any]) -> None:
        self.real = real
        self.callbacks = callbacks
        self._thread = get_ident()
        self._left = _here.left
        self._left.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def clone(self) -> OwnContext:
        """An independent copy."""
        return OwnContext(self.real.clone(), self.callbacks)

    def __del__(self) -> None:
        if self._thread != get_ident():
            # Any thread may collect garbage; the owner drops it when it makes the next context.
            # If it has ended, nobody does: in Rust the context holds on to what holds on to it.
            self._left.append(self.real)
            self.callbacks.left = self._left


class _Tables(dict[str, dict[Row, T]]):
    """The tuples and tags of the relations after a round, read when they are asked for."""

    def __init__(self, engine: ScallopEngine, context: OwnContext, tags: Tags[T]) -> None:
        super().__init__()
        self.engine = engine
        self.context = context
        self.tags = tags

    def __missing__(self, name: str) -> dict[Row, T]:
        context, ident = self.context, self.engine.names.get(name, name)
        read: list[tuple[T, Row]] = []
        context.callbacks.run(lambda: read.extend(context.relation(ident)))
        found = {row: tag for tag, row in read if self.tags.possible(tag)}
        declared = self.engine.program.relations.get(name)
        if declared is not None and "Entity" in declared.types:
            kinds = declared.types  # Scallop has numbers
            found = {_entities(row, kinds): tag for row, tag in found.items()}
        self[name] = found
        return found


class _Rounds(Derivation[T]):
    """One run of a program.

    Attributes:
        tables: what the last round has found.
    """

    engine: ScallopEngine
    tables: _Tables[T]

    def __init__(
        self,
        engine: ScallopEngine,
        tags: Tags[T],
        generator: torch.Generator | None,
        limits: Limits,
    ) -> None:
        super().__init__(engine, tags, generator, limits)
        # What byssus has derived, in the relations of the program.
        self.derived: dict[str, dict[Row, list[T]]] = defaultdict(lambda: defaultdict(list))
        self.tossed: dict[str, dict[Row, T]] = defaultdict(dict)
        # For each aggregation and black box over relations, what these held when it was done.
        self.read: dict[str, list[Mapping[Row, T]]] = {}
        seconds = engine.seconds
        self.deadline = None if seconds is None else monotonic() + seconds

    def run(self, facts: Mapping[str, Iterable[tuple[Row, T]]]) -> Run[T]:
        given = {
            name: [(tag, row) for row, tag in rows if self.tags.possible(tag)]
            for name, rows in facts.items()
        }
        limit = self.limits.iterations or _ROUNDS
        for round_ in range(limit + 1):
            self.tables = self.round(given)
            if round_ == limit or self.tags.incomplete or not self.advance():
                break
        if round_ == _ROUNDS:
            self.endless()
        for drop, count in self.tables.context.callbacks.dropped.items():
            self.dropped[drop] += count
        # All of them now: the run may be read in other threads, and Scallop's context not.
        return self.found({name: self.tables[name] for name in self.engine.program.relations})

    def rows(self, relation: str) -> Mapping[Row, T]:
        return self.tables[relation]

    def endless(self) -> None:
        boxes = self.engine.program.blackboxes
        if not boxes:
            raise ByssusError(
                f"a recursion has gone through rules with probabilities {_ROUNDS} times: bound it, "
                'set an iteration limit, or take backend="embedded"'
            )
        raise boxes[0].span.error(
            f"the black box {boxes[0].name} has been asked {_ROUNDS} times in a row for "
            "something new: bound the recursion that calls it, or set an iteration limit"
        )

    def round(self, given: Mapping[str, list[tuple[T, Row]]]) -> _Tables[T]:
        """One run of a copy of the context."""
        names, possible = self.engine.names, self.tags.possible
        context = self.engine.context.clone()
        context.callbacks.start(self.tags, self.deadline, self.limits.tuples)

        def run() -> None:
            for name, facts in given.items():
                context.add_facts(names.get(name, name), facts)
            for name, rows in self.derived.items():
                facts = [(tag, row) for row, tags in rows.items() for tag in tags if possible(tag)]
                context.add_facts(names[name], facts)
            for name, tossed in self.tossed.items():
                facts = [(tag, row) for row, tag in tossed.items() if possible(tag)]
                context.add_facts(name, facts)
            if self.limits.iterations is not None:
                context.set_iter_limit(self.limits.iterations)
            context.run()

        context.callbacks.run(run)
        return _Tables(self.engine, context, self.tags)

    # Between the rounds

    def advance(self) -> bool:
        """Do what is to be done in the lowest stratum that has anything; whether one has.

        What is above depends on it.
        """
        for stratum in self.engine.strata:
            new = False
            for name in stratum:
                for coin in self.engine.coins.get(name, ()):
                    new |= self.toss(coin)
                if declaration := self.engine.aggregate(name):
                    new |= self.aggregate(declaration)
            if new:
                return True
            for name in stratum:
                if box := self.engine.blackbox(name):
                    new |= self.ask(box)
            if new:
                return True
        return False

    def toss(self, coin: Coin) -> bool:
        """Toss coins for ground instances that are new; whether there are any."""
        known = self.tossed[coin.coins]
        before = len(known)
        for row in self.rows(coin.instances):
            key, probability = row, coin.probability
            if probability is None and not coin.alternatives:
                *rest, probability = row  # type: ignore[assignment]
                key = tuple(rest)
            if key in known:
                continue
            where = (coin.which, key)
            if coin.alternatives:
                known[key] = self.tags.choices(where, coin.alternatives)[coin.alternative]
            else:
                known[key] = self.tags.fact(where, probability)
        return len(known) > before

    def aggregate(self, declaration: Aggregate) -> bool:
        """Aggregate what has changed; whether the results may have."""
        name = declaration.head
        if not self.changed(name, (declaration.body, declaration.groups)):
            return False
        before = self.derived[name]
        self.derived[name] = self.aggregated(declaration)
        return bool(before or self.derived[name])

    def ask(self, box: BlackBoxRelation) -> bool:
        """Call a black box on what is new; whether it has answered anything."""
        if box.asked is not None:
            found = self.answered(box, box.asked)
            for row, tags in found.items():
                self.derived[box.name][row] += tags
            return bool(found)
        if not self.changed(box.name, box.over):
            return False
        self.derived[box.name] = self.read_over(box)
        return True

    def changed(self, name: str, relations: Iterable[str | None]) -> bool:
        """Whether relations hold something else than when this was done before."""
        now = [self.rows(one) for one in relations if one is not None]
        before = self.read.get(name)
        self.read[name] = now
        return before is None or not all(map(self.same, before, now))

    def same(self, a: Mapping[Row, T], b: Mapping[Row, T]) -> bool:
        return a.keys() == b.keys() and all(self.tags.equal(tag, b[row]) for row, tag in a.items())


def _entities(row: Row, kinds: Sequence[str]) -> Row:
    return tuple(
        [
            Entity(value) if kind == "Entity" else value  # type: ignore[call-overload]
            for value, kind in zip(row, kinds, strict=True)
        ]
    )
