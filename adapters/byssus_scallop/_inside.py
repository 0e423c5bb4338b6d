"""Contexts inside Scallop: its own compiler and engine, with byssus's tags.

Imports scallopy, so it is itself imported only where a context is to be inside Scallop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import scallopy
from scallopy.scallopy import InternalScallopContext

from byssus import ByssusError

from ._callbacks import Callbacks
from ._engine import Engine, Row
from ._inputs import Entry
from ._ir import Program, Relation
from ._lowering import Lowered
from ._printing import Coin, NotPrinted, printed
from ._rounds import ScallopEngine, panics
from ._syntax import Fact, FactSet, Item, Query, Rule, Source, Span
from .attribute import ForeignAttributeProcessor
from .context import BYSSUS, ScallopContext
from .foreign import ForeignFunction, ForeignPredicate

__all__ = ["Inside"]

_WHERE = Span(Source("", "<Python>"), 0, 0)


class Inside(ScallopContext, scallopy.ScallopContext):  # type: ignore[misc]
    """A context that is a `scallopy.ScallopContext`, and runs under byssus's provenances.

    Scallop compiles and runs the rules. It reads them in normal form (see `_printing`); or as they
    were written, where they use what only Scallop knows, such as what its plugins register.
    """

    def __init__(self, *arguments: Any, backend: str = "auto", **options: Any) -> None:
        self._callbacks: Callbacks[Any] = Callbacks()
        self._registered: list[tuple[str, Any]] = []
        # Where Scallop cannot run a program, the embedded engine may.
        self._falls_back = backend == "auto"
        super().__init__(*arguments, **options)

    # What scallopy's own code reads

    @property
    def _internal(self) -> Any:
        engine = self._ready()
        return engine.context if isinstance(engine, ScallopEngine) else None

    @property
    def _custom_provenance(self) -> Any:
        return self._callbacks

    # The program

    def register_foreign_function(self, foreign_function: Any) -> None:
        """Make `$name` known: a foreign function of byssus or of scallopy."""
        if isinstance(foreign_function, ForeignFunction):
            super().register_foreign_function(foreign_function)
        else:
            self._register("function", foreign_function)

    def register_foreign_predicate(self, foreign_predicate: Any) -> None:
        """Make a predicate known: one of byssus or of scallopy."""
        if isinstance(foreign_predicate, ForeignPredicate):
            super().register_foreign_predicate(foreign_predicate)
        else:
            self._register("predicate", foreign_predicate)

    def register_foreign_attribute(self, foreign_attribute: Any) -> None:
        """Make `@name` known: an attribute of byssus or of scallopy, such as a plugin's."""
        if isinstance(foreign_attribute, ForeignAttributeProcessor):
            super().register_foreign_attribute(foreign_attribute)
        elif foreign_attribute.name not in self._attributes:
            self._register("attribute", foreign_attribute)

    def _register(self, what: str, registered: Any) -> None:
        self._registered.append((what, registered))
        self._lowered = self._engine = self._solver = None

    def clone(
        self,
        provenance: str | None = None,
        k: int | None = None,
        wmc_with_disjunctions: bool | None = None,
        monitors: Sequence[str] | None = None,
    ) -> Inside:
        """A copy, to change without changing this one; under another of byssus's provenances."""
        if provenance is not None and provenance not in BYSSUS:
            raise ByssusError(
                f"a context inside Scallop cannot change to provenance {provenance!r}: make a "
                f"context of its own; this one changes to {', '.join(BYSSUS)}"
            )
        other = super().clone(provenance, k, wmc_with_disjunctions, monitors)
        assert isinstance(other, Inside)
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_callbacks": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._callbacks = Callbacks()

    # Inside

    def _extend(self, items: Sequence[Item], tags: Mapping[str, Any] | None = None) -> None:
        before = dict(self.__dict__)
        try:
            super()._extend(items, tags)
            self._engine = None  # it was made to see whether there is a fault
        except ByssusError:
            if not self._registered or tags or not _is_plain(items):
                raise
            # It may use what Scallop knows and byssus does not.
            self._items = (*self._items, *self._processed(items).items)
            self._lowered = self._engine = self._solver = None
            try:
                self._ready()
            except ByssusError:
                self.__dict__.update(before)
                raise

    def _lowering(self) -> Lowered:
        if self._lowered is None:
            self._ready()
        assert self._lowered is not None
        return self._lowered

    def _ready(self) -> Engine:
        if self._engine is None:
            try:
                lowered = super()._lowering()
                self._engine = self._in_normal_form(lowered.program)
            except ByssusError as fault:
                if isinstance(fault, NotPrinted) and self._falls_back:
                    self._engine = Engine(super()._lowering().program)
                elif _is_plain(self._items) and not self._declared_boxes and not self._rule_tags:
                    self._engine = self._as_written(fault)
                else:
                    raise
        return self._engine

    def _context(self) -> Any:
        """A context of Scallop's, without rules."""
        context: Any = InternalScallopContext(provenance="custom", custom_provenance=self._callbacks)
        context.enable_tensor_registry()
        return context

    def _in_normal_form(self, program: Program) -> ScallopEngine:
        """The program as byssus understands it."""
        text = printed(program)
        callbacks, context = self._callbacks, self._context()
        for one in text.functions:
            arguments = ["Any"] * one.arguments
            context.register_foreign_function(
                callbacks.function(one.name, one.function, arguments, one.result, one.span)
            )
        for other in text.predicates:
            foreign = other.foreign
            context.register_foreign_predicate(
                callbacks.predicate(
                    other.name,
                    foreign.name,
                    foreign.kinds,
                    len(foreign.inputs),
                    foreign.function,
                    other.span,
                )
            )

        def build() -> None:
            context.add_program(text.text)
            for name, row in text.constants:
                context.add_facts(name, [(None, row)])
            certain = defaultdict(list)
            for fact in program.facts:
                if fact.tag is None and fact.group is None:
                    certain[text.names[fact.relation]].append((None, fact.values))
            for name, rows in certain.items():
                context.add_facts(name, rows)
            context.set_non_incremental()
            context.compile()

        if (error := panics(build)) is not None:
            raise ByssusError(f"Scallop does not take this program: {error}") from error
        coins: dict[str, list[Coin]] = defaultdict(list)
        for head, coin in text.coins:
            coins[head].append(coin)
        seconds = self._settings.seconds
        return ScallopEngine(program, context, callbacks, text.names, coins, seconds)

    def _as_written(self, fault: ByssusError) -> ScallopEngine:
        """The program as Scallop understands it; if it does not either, there is a fault."""
        callbacks, context = self._callbacks, self._context()
        items = [item for item in self._items if not isinstance(item, Query)]

        def build() -> None:
            for what, one in self._registered:
                getattr(context, f"register_foreign_{what}")(one)
            for function in self._functions.values():
                context.register_foreign_function(
                    callbacks.function(
                        function.name,
                        function,
                        function.arguments,
                        function.result,
                        _WHERE,
                        optional=function.optional,
                        variadic=function.variadic,
                        generics=dict(function.generics),
                        silent=function.suppress_warning,
                    )
                )
            for predicate in self._predicates.values():
                context.register_foreign_predicate(
                    callbacks.predicate(
                        predicate.name,
                        predicate.name,
                        predicate.types,
                        predicate.bound,
                        predicate.implement(()),
                        _WHERE,
                    )
                )
            context.add_program("\n".join(map(_text_of, items)))
            context.set_non_incremental()
            context.compile()

        if (error := panics(build)) is not None:
            raise fault from error
        names = sorted(context.relations())
        relations = {
            name: Relation(name, ("",) * len(context.relation_field_names(name) or ()))
            for name in names
        }
        program = Program(relations)
        self._lowered = _Unread(program, {}, {})
        return ScallopEngine(program, context, callbacks, {}, {}, self._settings.seconds)

    def _program_facts(self) -> list[Entry]:
        facts = super()._program_facts()
        if not isinstance(self._ready(), ScallopEngine):
            return facts
        # The certain ones are in Scallop's context.
        return [fact for fact in facts if fact.tag is not None or fact.group is not None]


class _Unread(Lowered):
    """A program of which byssus knows the relations only."""

    def convert(self, relation: str, values: Sequence[Any]) -> Row:
        """A tuple as it is given."""
        return tuple(values)

    def entities(self, relation: str, values: Sequence[Any]) -> list[Any]:
        """Scallop takes entities apart itself."""
        return []


def _is_plain(items: Sequence[Item]) -> bool:
    """Whether Scallop reads from these items all that they say: no probabilities."""
    for item in items:
        if isinstance(item, FactSet):
            if item.exclusive or any(tag is not None for tag, _, _ in item.tuples):
                return False
        elif (isinstance(item, Fact | Rule) and item.tag is not None) or (
            isinstance(item, Rule) and item.exclusive
        ):
            return False
    return True


def _text_of(item: Item) -> str:
    """An item as it was written; one that was added by itself lacks its first word."""
    attributes = "".join(f"{attribute.span} " for attribute in item.attributes)
    text = str(item.span)
    bare = not isinstance(item, Fact | FactSet | Rule) or text.startswith("rel")
    return attributes + (text if bare else f"rel {text}")
