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

from . import _adapted as adapted
from ._callbacks import CERTAIN, Callbacks, panics
from ._engine import Engine, Row
from ._inputs import Entry
from ._ir import Program
from ._printing import Coin, printed, scallops
from ._rounds import OwnContext, ScallopEngine
from ._syntax import Item
from .context import BYSSUS, ScallopContext
from .input_output import CSVFileOptions

__all__ = ["Inside"]


class Inside(ScallopContext, scallopy.ScallopContext):  # type: ignore[misc]
    """A context that is a `scallopy.ScallopContext`, and runs under byssus's provenances.

    Scallop compiles and runs the rules, which it reads in normal form (see `_printing`).
    """

    def __init__(self, *arguments: Any, backend: str = "auto", **options: Any) -> None:
        # Where Scallop cannot run a program, the embedded engine may.
        self._falls_back = backend == "auto"
        super().__init__(*arguments, **options)

    # What scallopy's own code reads

    @property
    def _internal(self) -> OwnContext:
        engine = self._ready()
        if isinstance(engine, ScallopEngine):
            return engine.context
        raise ByssusError(
            "the program runs on the embedded engine, as it has values that Scallop does not "
            "exchange with Python code: there is nothing of Scallop's to look at"
        )

    @property
    def _custom_provenance(self) -> Callbacks[Any]:
        return self._internal.callbacks

    def load_stdlib(self) -> None:
        """It is there: byssus knows all of it."""

    # The program

    def register_foreign_function(self, foreign_function: Any) -> None:
        """Make `$name` known: a foreign function of byssus or of scallopy."""
        super().register_foreign_function(adapted.function(foreign_function))

    def register_foreign_predicate(self, foreign_predicate: Any) -> None:
        """Make a predicate known: one of byssus or of scallopy."""
        super().register_foreign_predicate(adapted.predicate(foreign_predicate))

    def register_foreign_attribute(self, foreign_attribute: Any) -> None:
        """Make `@name` known: an attribute of byssus or of scallopy, such as a plugin's."""
        super().register_foreign_attribute(adapted.attribute(foreign_attribute))

    def add_relation(
        self, relation_name: str, relation_types: Any, *arguments: Any, **options: Any
    ) -> None:
        """Declare a relation; `load_csv` may be an object of scallopy's."""
        if isinstance(given := options.get("load_csv"), scallopy.io.CSVFileOptions):
            options["load_csv"] = CSVFileOptions(**vars(given))
        super().add_relation(relation_name, relation_types, *arguments, **options)

    def set_input_mapping(
        self, relation: str, input_mapping: Any, *arguments: Any, **options: Any
    ) -> None:
        """Say what the positions of a relation's tensor mean; it may be a `scallopy.Map`."""
        super().set_input_mapping(relation, adapted.mapping(input_mapping), *arguments, **options)

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

    # Inside

    def _extend(self, items: Sequence[Item], tags: Mapping[str, Any] | None = None) -> None:
        super()._extend(items, tags)
        self._engine = None  # it was made to see whether there is a fault

    def _ready(self) -> Engine:
        if self._engine is None:
            program = self._lowering().program
            try:
                self._engine = self._in_normal_form(program)
            except ByssusError:
                # The program is sound: it has been lowered.
                if not self._falls_back:
                    raise
                self._engine = Engine(program)
        return self._engine

    def _in_normal_form(self, program: Program) -> ScallopEngine:
        text = printed(program)
        certain = defaultdict(list)
        for fact in program.facts:
            if fact.tag is None and fact.group is None:
                certain[text.names[fact.relation]].append((None, fact.values))

        def make() -> OwnContext:
            callbacks: Callbacks[Any] = Callbacks()
            functions = [
                callbacks.function(one.name, one.function, one.arguments, one.result, one.span)
                for one in text.functions
            ]
            predicates = [
                callbacks.predicate(
                    one.name,
                    one.foreign.name,
                    list(map(scallops, one.foreign.kinds)),
                    len(one.foreign.inputs),
                    one.foreign.function,
                    one.span,
                )
                for one in text.predicates
            ]
            facts: dict[str, list[tuple[Any, Row]]]
            facts = {name: [(None, row)] for name, row in text.constants}
            facts[text.certain] = [(CERTAIN, ())]
            return _compiled(callbacks, functions, predicates, text.text, {**facts, **certain})

        coins: dict[str, list[Coin]] = defaultdict(list)
        for head, coin in text.coins:
            coins[head].append(coin)
        seconds = self._settings.seconds
        return ScallopEngine(program, make(), make, text.names, coins, seconds)

    def _program_facts(self) -> list[Entry]:
        facts = super()._program_facts()
        if not isinstance(self._ready(), ScallopEngine):
            return facts
        # The certain ones are in Scallop's context.
        return [fact for fact in facts if fact.tag is not None or fact.group is not None]


def _compiled(
    callbacks: Callbacks[Any],
    functions: Sequence[Any],
    predicates: Sequence[Any],
    text: str,
    facts: Mapping[str, Sequence[tuple[Any, Row]]],
) -> OwnContext:
    """A context of Scallop's, ready to run."""
    context = OwnContext(
        InternalScallopContext(provenance="custom", custom_provenance=callbacks), callbacks
    )

    def build() -> None:
        context.enable_tensor_registry()
        for function in functions:
            context.register_foreign_function(function)
        for predicate in predicates:
            context.register_foreign_predicate(predicate)
        context.add_program(text)
        for name, rows in facts.items():
            context.add_facts(name, rows)
        context.set_non_incremental()
        context.compile()

    if (error := panics(build)) is not None:
        raise ByssusError(
            f'Scallop does not take this program: take backend="embedded", and report it ({error})'
        ) from error
    return context
