"""byssus inside projects that import scallopy: its provenances, and the plugin with `@blackbox`.

Importing this module teaches two things to scallopy: a context that is made with one of byssus's
provenances is byssus's (see `_inside`), and so are its forward functions, which run a batch at
once; and plugins are found on every version of Python.
"""

from __future__ import annotations

import functools
import itertools
from argparse import ArgumentParser
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import scallopy
import scallopy.plugin.utils
import torch
from scallopy import Plugin, PluginRegistry
from scallopy.utils import HistoryAction
from torch import Tensor

from byssus import BlackBox, ByssusError
from byssus._calls import Failure

from ._blackbox import Answer, BlackBoxDeclaration
from ._inside import Inside
from ._llm import LanguageModel
from ._loading import load
from ._parser import parse_rule
from ._syntax import Atom, Item, Rule, Source, walk
from ._values import convert, export
from .context import BYSSUS, ScallopContext

__all__ = ["BlackBoxPlugin", "Plugin", "PluginRegistry", "Provenance", "scallops_own"]

_Row = tuple[Hashable, ...]
_COIN = "byssus_coin"
_ROUNDS = 1_000
_READING = ("relation", "relation_with_debug_tag", "relation_is_computed", "input_tags")


class Provenance(scallopy.ScallopProvenance):  # type: ignore[misc]
    """One of byssus's provenances for `scallopy.ScallopContext(custom_provenance=...)`.

    Args:
        name: "exact", "sampled", "mixed", "auto" or "nesydm".
        options: of `byssus_scallop.ScallopContext`: `samples`, `estimator`, `generator`, ...
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        if name not in BYSSUS:
            raise ByssusError(
                f"provenance {name!r}: byssus has {', '.join(BYSSUS)}; Scallop's own are given by "
                "name, provenance=..."
            )
        self.options = {"provenance": name, **options}
        Inside(**self.options)  # refuses what does not fit

    def name(self) -> str:
        """What Scallop shows."""
        return f"byssus-{self.options['provenance']}"

    def collate(self, batch: Sequence[Sequence[Any]]) -> Tensor:
        """Probabilities of outputs, example by example, None for none, as `(batch, outputs)`."""
        tags = [tag for row in batch for tag in row if isinstance(tag, Tensor)]
        like = tags[0] if tags else torch.zeros(())
        rows = [[0.0 if tag is None else tag for tag in row] for row in batch]
        return torch.stack([torch.stack([torch.as_tensor(t).to(like) for t in r]) for r in rows])


class Context(Inside):
    """What `scallopy.ScallopContext` makes where the provenance is one of byssus's."""

    def __init__(
        self, provenance: str = "unit", custom_provenance: Any = None, *arguments: Any, **named: Any
    ) -> None:
        if isinstance(custom_provenance, Provenance):
            given = dict(custom_provenance.options)
            provenance, custom_provenance = given.pop("provenance"), None
            named |= given
        super().__init__(provenance, custom_provenance, *arguments, **named)


def _new(
    cls: Any, provenance: str = "unit", custom_provenance: Any = None, *_: Any, **named: Any
) -> Any:
    """What makes scallopy's contexts."""
    ours = custom_provenance is None and provenance in BYSSUS
    ours |= isinstance(custom_provenance, Provenance) or isinstance(named.get("fork_from"), Inside)
    return object.__new__(Context if ours and cls is scallopy.ScallopContext else cls)


scallopy.ScallopContext.__new__ = staticmethod(_new)


def scallops_own(provenance: str, custom: Any, *arguments: Any, **options: Any) -> Any:
    """A context of Scallop's own, under a provenance of its own, which knows black boxes."""
    names = ("k", "wmc_with_disjunctions", "train_k", "test_k", "no_stdlib", "monitors")
    given = {name: value for name, value in options.items() if name in names and value}
    context = scallopy.ScallopContext(provenance, custom, *arguments, **given)
    BlackBoxPlugin().load_into_ctx(context)
    return context


# The plugin


class BlackBoxPlugin(Plugin):  # type: ignore[misc]
    """Scallop's plugin that knows `@blackbox` and `@llm`, under Scallop's own provenances too.

    Scallop finds it through the entry point group `scallop.plugin`. On Python 3.12 Scallop finds no
    plugins before this module is imported: say `registry.load_plugin(BlackBoxPlugin())`.
    """

    def __init__(self) -> None:
        super().__init__("byssus")

    def setup_argparse(self, parser: ArgumentParser) -> None:
        """There are no options."""

    def configure(self, args: Any = None, unknown_args: Sequence[str] = ()) -> None:
        """There are no options."""

    def load_into_ctx(self, ctx: Any) -> None:
        """Make `@blackbox` and `@llm` known to a context; before the programs that use it."""
        if isinstance(ctx, Inside) or isinstance(ctx._internal, _Asking):
            return
        ctx._internal = _Asking(ctx._internal, ctx.provenance)
        # A context is unpickled by doing again what was done to it.
        ctx._history_actions.append(HistoryAction("_load_byssus", (), {}))


def _blackboxes(context: Any) -> Mapping[str, BlackBox]:
    """The black boxes that the programs of a context declare, by name."""
    internal = context._internal
    return internal.known.blackboxes if isinstance(internal, _Asking) else {}


scallopy.ScallopContext._load_byssus = lambda self: BlackBoxPlugin().load_into_ctx(self)
scallopy.ScallopContext.blackboxes = property(_blackboxes)


def _found_entry_points(
    entry_points: Any,
    group: str,
    filter: Callable[[str], bool] | None = None,  # noqa: A002
) -> list[metadata.EntryPoint]:
    """The entry points of plugins, as Python has them from 3.12 on."""
    found = dict.fromkeys(entry_points.select(group=group))
    return [one for one in found if filter is None or filter(one.name)]


scallopy.plugin.utils._find_entry_points = _found_entry_points


class _Asking:
    """Scallop's internal context with black boxes, under a provenance that is not byssus's.

    What a run asks of them is evaluated together, and the run repeated with the answers.

    Scallop takes each use of a tuple of a foreign predicate as another chance. So a black box is
    one whose tuples are certain, and have a number more; of `leaf(x, y)` Scallop reads

        (leaf(x, y, byssus_k) and byssus_coin(byssus_k))

    where the coin is a relation that has the probabilities.
    """

    def __init__(self, real: Any, provenance: str) -> None:
        self.real = real
        # With black boxes it is never run itself, only copies of it; this is the last one.
        self.ran = real
        self.provenance = provenance
        self.calls = _Calls()
        self.boxes: tuple[str, ...] = ()
        # Whether it loads relations from files.
        self.files = False
        # It reads declarations, and knows the types that they name.
        self.known = ScallopContext(no_stdlib=True, backend="embedded")
        for name in ("blackbox", "llm"):
            declared = functools.partial(self.calls.declared, name)
            real.register_foreign_attribute(scallopy.ForeignAttributeProcessor(name, declared))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.ran if name in _READING else self.real, name)

    def clone(self) -> _Asking:
        """An independent copy; the answers of calls are shared."""
        ran = self.ran.clone()
        return self._with(real=ran if self.ran is self.real else self.real.clone(), ran=ran)

    def clone_with_new_provenance(self, provenance: str, *options: Any) -> _Asking:
        """A copy under another provenance."""
        if self.boxes:
            raise ByssusError(
                f"a context with black boxes, {', '.join(self.boxes)}, does not change its "
                f"provenance to {provenance!r}: make a context of its own"
            )
        real = self.real.clone_with_new_provenance(provenance, *options)
        return self._with(real=real, ran=real, provenance=provenance)

    def _with(self, **changed: Any) -> _Asking:
        other = object.__new__(_Asking)
        vars(other).update({**vars(self), **changed, "known": self.known.clone()})
        return other

    # The program

    def import_file(self, file_name: str) -> None:
        """Add the program of a file."""

        def add(real: Any, text: str | None) -> None:
            if text is None:
                real.import_file(file_name)
            else:
                real.add_program(text)

        self._add(lambda: load(file_name), add)

    def add_program(self, program: str) -> None:
        """Add a program."""
        read = Source(program)
        self._add(lambda: load(read), lambda real, text: real.add_program(text or program))

    def add_item(self, item: str) -> Any:
        """Add an item; what it queries."""
        read = Source(item)
        return self._add(lambda: load(read), lambda real, text: real.add_item(text or item))

    def add_rule(self, rule: str, **options: Any) -> None:
        """Add a rule."""
        self._add(
            lambda: [parse_rule(Source(rule))],
            lambda real, text: real.add_rule(text or rule, **options),
        )

    def add_relation(self, relation: str, load_csv: Any = None, **options: Any) -> Any:
        """Declare a relation."""
        self.files |= load_csv is not None
        return self.real.add_relation(relation, load_csv=load_csv, **options)

    def _add(
        self, read: Callable[[], Sequence[Item]], add: Callable[[Any, str | None], Any]
    ) -> Any:
        """Add items with the black boxes that they declare, or nothing of them."""
        try:
            items = read()
        except ByssusError as error:
            # Scallop may say more of it; only if there are black boxes byssus has to read it.
            self.calls.fault, items = error, []
        added = self.known._processed(items)
        names = [f"${name}" if box.function else name for name, box in added.boxes.items()]
        boxes = (*self.boxes, *names)
        trial = self.real.clone() if names else self.real
        if names and not self.boxes:
            self.calls.toss(trial)
        for box in added.boxes.values():
            self.calls.register(box, trial, self.provenance == "custom")
        found = add(trial, self.calls.with_coins(added.items, boxes))
        self.ran = trial if self.ran is self.real else self.ran
        self.real, self.boxes = trial, boxes
        self.known._items += tuple(added.items)
        self.known._declared_boxes |= added.boxes
        self.files |= any(one.name == "file" for item in added.items for one in item.attributes)
        return found

    def relations(self, include_hidden: bool = False) -> list[str]:
        """The names of the relations."""
        found = self.real.relations(include_hidden=include_hidden)
        return [name for name in found if include_hidden or name != _COIN]

    def num_relations(self, include_hidden: bool = False) -> int:
        """How many relations there are."""
        return len(self.relations(include_hidden))

    # Running

    def run(self) -> None:
        """Derive everything."""

        def once() -> Any:
            trial = self.real.clone() if self.boxes else self.real
            trial.run()
            return trial

        self.ran = self._complete(once)

    def run_batch(self, outputs: Any, inputs: Any, parallel: bool) -> Any:
        """Run for each example."""
        # Scallop's threads would wait for one another where they call Python code.
        parallel = parallel and not self.boxes
        return self._complete(lambda: self.real.run_batch(outputs, inputs, parallel))

    def _complete(self, run: Callable[[], Any]) -> Any:
        if self.boxes and self.files:
            raise ByssusError(
                f"the program has black boxes, {', '.join(self.boxes)}, and loads relations from "
                "files, which Scallop loses when a run is repeated with what they answer: give "
                f"facts, or take one of byssus's provenances, {', '.join(BYSSUS)}"
            )
        return self.calls.complete(run)


class _Calls:
    """What black boxes have been asked.

    Attributes:
        names: of the black boxes.
        fault: in the program that byssus read last.
        coins: for each uncertain answer its tag, as Scallop reads it, and its number.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.fault: ByssusError | None = None
        self.coins: list[tuple[tuple[float, int], tuple[int]]] = []
        # Of facts, of variables, and of alternatives; Scallop counts its alternatives from 0.
        self.numbers = itertools.count(1 << 32)
        self.asked: dict[tuple[_Box, _Row], None] = {}
        self.error: BaseException | None = None
        # What failed and may pass.
        self.passing: list[tuple[_Box, _Row]] = []

    def declared(self, attribute: str, item: Any, *_: Any, **__: Any) -> Any:
        """What Scallop does with a declaration: it leaves it out, for it is registered."""
        name = item.function_decl_name() if item.is_function_decl() else None
        name = item.relation_decl(0).name.name if name is None else name
        if name not in self.names:
            raise ByssusError(f"@{attribute}: byssus cannot read this program: {self.fault}")
        return scallopy.attribute.RemoveItemAction()

    def toss(self, context: Any) -> None:
        """Declare the coins."""
        kinds = [SimpleNamespace(type="usize")]
        context.register_foreign_predicate(
            scallopy.ForeignPredicate(
                lambda: self.coins, "byssus_toss", [], [], kinds, "exclusive-prob"
            )
        )
        context.add_program(f"rel {_COIN} = {{0}} rel {_COIN}(k) = byssus_toss(k)")

    def register(self, box: BlackBoxDeclaration, context: Any, custom: bool) -> None:
        """Make a black box a foreign predicate or function of Scallop's.

        Args:
            box: the black box.
            context: where.
            custom: whether the provenance is the user's own.
        """
        if box.over:
            raise box.span.error(
                f"{box.name} is over whole relations, in all worlds: take one of byssus's "
                f"provenances, {', '.join(BYSSUS)}"
            )
        for kind in box.types:
            if kind in ("Symbol", "Entity"):
                raise box.span.error(
                    f"{box.name} has a {kind}, which Scallop does not give to Python code: take "
                    "String"
                )
        self.names.add(box.name)
        kinds = [SimpleNamespace(kind="base", type=kind) for kind in (*box.types, "usize")]
        *free, number = kinds[box.bound :]
        bound, asked = kinds[: box.bound], _Box(box, self, custom or box.function)
        if box.function:
            context.register_foreign_function(
                scallopy.ForeignFunction(asked.value, box.name, [], bound, [], None, *free, True)
            )
        else:
            free = [*free, number]
            context.register_foreign_predicate(
                scallopy.ForeignPredicate(asked.ask, box.name, [], bound, free, "none", True)
            )

    def with_coins(self, items: Sequence[Item], boxes: Collection[str]) -> str | None:
        """The text of items in which the uses of black boxes have coins; None if none has any."""
        texts, changed = [], False
        for item in items:
            parts = list(walk(item))
            uses = [n for n in parts if isinstance(n, Atom) and n.predicate in boxes]
            for node in parts:
                wrong: list[Any] = [getattr(node, name, None) for name in ("atom", "target")]
                wrong += node.heads if isinstance(node, Rule) else ()
                for use in set(wrong) & set(uses):
                    raise use.span.error(
                        f"{use.predicate} is a black box, which is asked for its bound columns: it "
                        "is not derived, negated or queried; derive a relation from it for that"
                    )
            changed |= bool(uses)
            start = min([item.span.start, *(one.span.start for one in item.attributes)])
            text = item.span.source.text
            text, rest = text[start : item.span.end], start
            for atom in sorted(uses, key=lambda one: -one.span.start):
                coin = f"byssus_k{next(self.numbers)}"
                shown = ", ".join([*map(str, (one.span for one in atom.arguments)), coin])
                use = f"({atom.predicate}({shown}) and {_COIN}({coin}))"
                text = text[: atom.span.start - rest] + use + text[atom.span.end - rest :]
            texts.append(text)
        return "\n".join(texts) if changed else None

    def complete(self, run: Callable[[], Any]) -> Any:
        """Run, answer what was asked, and run again, until nothing new is asked."""
        for box, row in self.passing:
            box.answers.pop(row, None)
        self.passing.clear()
        for _ in range(_ROUNDS):
            self.asked, self.error = {}, None
            result = run()
            if self.error is not None:
                raise self.error
            if not self.asked:
                return result
            # What other black boxes are asked may depend on the answers of this one.
            first = next(iter(self.asked))[0]
            first.answer([row for box, row in self.asked if box is first])
        raise first.box.span.error(
            f"{first.box.name} has been asked {_ROUNDS} times in a row for something new: bound "
            "the recursion that calls it, or set an iteration limit"
        )


class _Box:
    """A black box as Scallop calls it, with its answers."""

    def __init__(self, box: BlackBoxDeclaration, calls: _Calls, certain: bool) -> None:
        self.box = box
        self.calls = calls
        self.certain = certain
        self.answers: dict[_Row, list[_Row]] = {}

    def ask(self, *given: Any) -> list[_Row]:
        """The answers, each with the number of its coin.

        What it raised would be printed, and forgotten.
        """
        box, calls = self.box, self.calls
        try:
            row = tuple(
                convert(value, kind, f"argument {i} of {box.name}")
                for i, (value, kind) in enumerate(zip(given, box.types, strict=False))
            )
            if row not in self.answers:
                calls.asked[self, row] = None
            return self.answers.get(row, [])
        except BaseException as error:
            calls.error = calls.error or error
            return []

    def value(self, *given: Any) -> Any:
        """The answer of a function; where there is none, it raises, which drops the tuple."""
        return self.ask(*given)[0][0]

    def answer(self, rows: Sequence[_Row]) -> None:
        """Call it on tuples."""
        box = self.box
        for row, outcome in zip(rows, box.box.evaluate(rows), strict=True):
            # What fails and is discarded has no answers.
            failed = isinstance(outcome, Failure)
            self.answers[row] = list(self.numbered([] if failed else box.convert(outcome)))
            if failed and isinstance(box.box, LanguageModel):
                self.calls.passing.append((self, row))

    def numbered(self, answers: Sequence[Answer]) -> Iterator[_Row]:
        """Answers with the numbers of their coins, 0 where they are certain."""
        box, calls = self.box, self.calls
        together = next(calls.numbers)
        for given, values in answers:
            probability = 1.0 if given is None else float(given)
            number = 0
            if probability < 1:
                if self.certain:
                    mend = (
                        f"declare a relation, `type {box.name}(bound ..., result)`, and take one "
                    )
                    if isinstance(box.box, LanguageModel):
                        mend = f"say logprobs=false; or {mend}"
                    raise box.span.error(
                        f"{box.name} answers with probabilities, which Scallop loses for functions "
                        "and under custom provenances: take one of byssus's provenances; or "
                        f"{mend}of Scallop's"
                    )
                number = next(calls.numbers)
                calls.coins.append(((probability, together), (number,)))
            if probability > 0:
                outputs = tuple(map(export, values, box.types[box.bound :]))
                yield (*outputs, number)
