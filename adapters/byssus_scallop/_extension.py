"""byssus inside projects that import scallopy: its provenances, and the plugin with `@blackbox`.

scallopy asks a custom provenance for one operation at a time, and runs it once an example.
Importing this module teaches scallopy's contexts and forward functions what to do where the
provenance is one of byssus's: a context then has one of byssus's inside, and a batch is run at
once. Everywhere else they do what they did.
"""

from __future__ import annotations

import functools
import itertools
import json
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import scallopy
import scallopy.context
import scallopy.forward
import torch
from torch import Tensor

from byssus import ByssusError, Plan
from byssus._calls import Failure

from . import _parser
from ._blackbox import BlackBoxDeclaration, BlackBoxes, RegisterBlackBoxAction
from ._inside import Inside
from ._loading import load
from ._syntax import Source
from .context import BYSSUS, _file
from .input_mapping import InputMapping
from .input_output import CSVFileOptions
from .module import ForwardFunction

__all__ = ["BlackBoxPlugin", "Provenance"]

_Row = tuple[Any, ...]


class Provenance(scallopy.ScallopProvenance):  # type: ignore[misc]
    """One of byssus's provenances for `scallopy.ScallopContext(custom_provenance=...)`.

    Args:
        name: "exact", "sampled", "mixed" or "auto".
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
        self._last: Inside | None = None
        Inside(**self.options)  # refuses what does not fit

    def name(self) -> str:
        """What Scallop shows."""
        return f"byssus-{self.options['provenance']}"

    def collate(self, batch: Sequence[Sequence[Tensor | float | None]]) -> Tensor:
        """Tags of outputs, example by example, as a tensor `(batch, outputs)`."""
        like = next((t for row in batch for t in row if isinstance(t, Tensor)), torch.zeros(()))
        return torch.stack(
            [
                torch.stack([torch.as_tensor(0.0 if t is None else t).to(like) for t in row])
                for row in batch
            ]
        )

    @property
    def lost(self) -> dict[str, float]:
        """See `ScallopContext.lost`, of the last context that ran."""
        return {} if self._last is None else self._last.lost

    def plan(self) -> Plan:
        """See `ScallopContext.plan`, of the last context that ran."""
        if self._last is None:
            raise ByssusError("there is a plan after a run")
        return self._last.plan()

    def __deepcopy__(self, memo: dict[int, Any]) -> Provenance:
        return self  # scallopy copies it with each clone of a context

    def __getstate__(self) -> dict[str, Any]:
        return {"options": {**self.options, "generator": None}, "_last": None}


class _Internal:
    """What `scallopy.ScallopContext` has inside, where its provenance is one of byssus's."""

    def __init__(self, provenance: Provenance, inside: Inside | None = None) -> None:
        self.provenance = provenance
        self.inside = Inside(**provenance.options) if inside is None else inside

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = hasattr(type(self.inside), name)
        return getattr(self.inside if known else self.inside._internal, name)

    def enable_tensor_registry(self) -> None:
        """It is always on."""

    def clone(self) -> _Internal:
        """An independent copy."""
        return _Internal(self.provenance, self.inside.clone())

    def clone_with_new_provenance(self, provenance: str, k: int, wmc: bool) -> _Internal:
        """A copy under another of byssus's provenances."""
        options = {**self.provenance.options, "provenance": provenance}
        return _Internal(Provenance(provenance, **options), self.inside.clone(provenance))

    def run(self) -> None:
        """Derive everything."""
        self.provenance._last = self.inside
        self.inside.run()

    run_with_debug_tag = run

    def relation(self, name: str) -> list[tuple[Any, _Row]]:
        """The tuples of a relation, with their probabilities."""
        return list(self.inside.relation(name))

    relation_with_debug_tag = relation

    def add_relation(self, relation: str, load_csv: Any = None, demand: str | None = None) -> str:
        """Declare a relation, given as `name(types)`; its name."""
        file = ""
        if load_csv is not None:
            if isinstance(load_csv, str):
                load_csv = CSVFileOptions(load_csv)
            file = _file(load_csv) + " "
        self.inside._extend(_parser.parse_program(Source(f"{file}type {relation}")))
        return relation.partition("(")[0].strip()

    def check_tuple(self, relation: str, row: Any) -> bool:
        """Whether a tuple fits the types of a relation."""
        self.inside._require(relation)
        try:
            self.inside._convert(relation, row)
        except ByssusError:
            return False
        return True

    def check_tuples(self, relation: str, rows: Sequence[Any]) -> bool:
        """Whether tuples fit the types of a relation."""
        return all(self.check_tuple(relation, row) for row in rows)

    def remove_iter_limit(self) -> None:
        """Let recursions end by themselves."""
        self.inside.set_iter_limit(None)

    def set_non_incremental(self) -> None:
        """Runs are always of copies."""

    def set_k(self, k: int) -> None:
        """There are no proofs to count."""

    def input_tags(self) -> None:
        """Gradients take another way."""


_Forward = scallopy.forward.InternalScallopForwardFunction
_forward_init, _forward_call = _Forward.__init__, _Forward._call_with_dynamic_ctx


@functools.wraps(_forward_init)
def _init(
    self: Any,
    ctx: Any,
    output: Any = None,
    output_mapping: Any = None,
    output_mappings: Any = None,
    dispatch: str = "parallel",
    *options: Any,
    **named: Any,
) -> None:
    inside = _inside(ctx)
    # Whole batches are run at once, so Scallop need not warn that it will be serial.
    dispatch = dispatch if inside is None else "serial"
    _forward_init(self, ctx, output, output_mapping, output_mappings, dispatch, *options, **named)
    if inside is not None:
        self._byssus = ForwardFunction(inside, output, output_mapping, output_mappings, dispatch)


@functools.wraps(_forward_call)
def _call(
    self: Any,
    disjunctions: Any,
    output_relations: Any,
    input_facts: Mapping[str, Any],
    output_mappings: Any = None,
) -> Any:
    inside = _inside(self.ctx)
    if inside is None:
        return _forward_call(self, disjunctions, output_relations, input_facts, output_mappings)
    self._byssus.ctx = self.ctx._custom_provenance._last = inside
    _take_over(self.ctx, inside)
    result = self._byssus(
        disjunctions=disjunctions,
        output_relations=output_relations,
        output_mappings=output_mappings,
        **input_facts,
    )
    return _applied(result, self._torch_tensor_apply)


def _inside(ctx: Any) -> Inside | None:
    """Byssus's context in one of scallopy's, if there is one."""
    internal = ctx._internal
    return internal.inside if isinstance(internal, _Internal) else None


def _take_over(ctx: Any, inside: Inside) -> None:
    """Let byssus know what scallopy's context knows of its relations."""
    for name, given in ctx._input_mappings.items():
        if given is None or given.kind is None:
            continue
        known = inside._mappings.get(name)
        options = (
            given._source,
            given.disjunctive or None,
            given.disjunctive_dim,
            given.retain_threshold,
            given.retain_k,
            given.sample_dim,
            given.sample_strategy,
        )
        if known is None or vars(known).get("_options") != options:
            inside.set_input_mapping(name, InputMapping(*options))
            inside._mappings[name].__dict__["_options"] = options
    inside._retain = dict(ctx._input_retain_topk)
    plain = ctx._input_non_probabilistic.items()
    inside._non_probabilistic = {name for name, is_so in plain if is_so}


def _applied(result: Any, function: Any) -> Any:
    """A result with its tensors put on a device."""
    if isinstance(result, Tensor):
        return function(result)
    if isinstance(result, dict):
        return {name: _applied(value, function) for name, value in result.items()}
    if isinstance(result, tuple):
        return (result[0], function(result[1]))
    return result


_scallops_own = scallopy.context.InternalScallopContext


@functools.wraps(_scallops_own, updated=())
def _internal_context(
    provenance: str = "unit",
    k: int = 3,
    wmc_with_disjunctions: bool = False,
    custom_provenance: Any = None,
) -> Any:
    if provenance in BYSSUS:
        custom_provenance = Provenance(provenance)
    if isinstance(custom_provenance, Provenance):
        return _Internal(custom_provenance)
    return _scallops_own(
        provenance=provenance,
        k=k,
        wmc_with_disjunctions=wmc_with_disjunctions,
        custom_provenance=custom_provenance,
    )


scallopy.context.InternalScallopContext = _internal_context
_Forward.__init__, _Forward._call_with_dynamic_ctx = _init, _call


def scallops_own(provenance: str, custom: Any, *arguments: Any, **options: Any) -> Any:
    """A context of Scallop's own, under a provenance of its own, which knows `@blackbox`."""
    names = ("k", "wmc_with_disjunctions", "train_k", "test_k", "no_stdlib", "monitors")
    given = {name: value for name, value in options.items() if name in names and value}
    context = scallopy.ScallopContext(provenance, custom, *arguments, **given)
    BlackBoxPlugin().load_into_ctx(context)
    return context


# The plugin


class BlackBoxPlugin(scallopy.Plugin):  # type: ignore[misc]
    """Scallop's plugin that knows `@blackbox`, under Scallop's own provenances too.

    Found through the entry point group `scallop.plugin`. Files of functions are looked for beside
    the program that the command line names, else in the folder that `--blackbox-folder` names, else
    where the command runs.
    """

    def __init__(self) -> None:
        super().__init__("byssus")
        self.folder = Path()

    def setup_argparse(self, parser: ArgumentParser) -> None:
        """Add the option for the folder."""
        parser.add_argument(
            "--blackbox-folder", help="where files that @blackbox names are; beside the program"
        )

    def configure(self, args: Any = None, unknown_args: Sequence[str] = ()) -> None:
        """Read the command line: a dictionary or a namespace."""
        given = dict(args or {}) if isinstance(args, Mapping | None) else vars(args)
        if given.get("blackbox_folder"):
            self.folder = Path(given["blackbox_folder"])
        elif given.get("file"):
            self.folder = Path(given["file"]).parent

    def load_into_ctx(self, ctx: Any) -> None:
        """Make `@blackbox` known to a context."""
        if isinstance(ctx, Inside) or isinstance(ctx._internal, _Internal | _Asking):
            return
        ctx._internal = _Asking(ctx._internal, self.folder)


class _Asking:
    """Scallop's internal context with black boxes, under a provenance that is not byssus's.

    What a run asks of them is evaluated together, and the run repeated with the answers.
    """

    def __init__(self, real: Any, folder: Path, boxes: BlackBoxes | None = None) -> None:
        self.real = real
        self.folder = folder
        self.boxes = BlackBoxes() if boxes is None else boxes
        self.calls = _Calls()
        if boxes is None:
            attribute = scallopy.ForeignAttributeProcessor("blackbox", self._declare)
            real.register_foreign_attribute(attribute)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.real, name)

    def clone(self) -> _Asking:
        """An independent copy; the answers of calls are shared."""
        other = _Asking(self.real.clone(), self.folder, self.boxes)
        other.calls = self.calls
        return other

    def run(self) -> None:
        """Derive everything."""

        def once() -> Any:
            trial = self.real.clone()
            trial.run()
            return trial

        self.real = self.calls.complete(once)

    def run_batch(self, *arguments: Any) -> Any:
        """Run for each example."""
        return self.calls.complete(lambda: self.real.run_batch(*arguments))

    def _declare(self, item: Any, *positional: Any, **named: Any) -> Any:
        """What Scallop puts in the place of a declaration with `@blackbox`."""
        source = Source(_declaration(item, positional, named), str(self.folder / "program.scl"))
        (parsed,) = load(source)
        for action in self.boxes.processor().apply(parsed, parsed.attributes[0]):
            if isinstance(action, RegisterBlackBoxAction):
                return self.calls.registered(action.declaration)
        raise ByssusError(f"{source.text} declares no black box")


class _Calls:
    """What black boxes have been asked and have answered."""

    def __init__(self) -> None:
        self.boxes: dict[str, BlackBoxDeclaration] = {}
        self.answers: dict[tuple[str, _Row], list[tuple[Any, _Row]]] = {}
        self.asked: dict[tuple[str, _Row], None] = {}
        self.uncertain = ""
        # Answers with one number exclude one another; Scallop numbers those of facts from 0.
        self.numbers = itertools.count(1 << 32)

    def complete(self, run: Callable[[], Any]) -> Any:
        """Run, answer what was asked, and run again, until nothing new is asked."""
        while True:
            self.asked, self.uncertain = {}, ""
            result = run()
            if self.uncertain:
                raise ByssusError(
                    f"${self.uncertain} answers with probabilities, which functions lose under "
                    f"Scallop's provenances: declare it as a relation, `type {self.uncertain}"
                    "(bound ..., result)`, or take one of byssus's provenances"
                )
            if not self.asked:
                return result
            asked: dict[str, list[_Row]] = defaultdict(list)
            for name, row in self.asked:
                asked[name].append(row)
            for name, rows in asked.items():
                box = self.boxes[name]
                for row, outcome in zip(rows, box.box.evaluate(rows), strict=True):
                    # What fails and is discarded has no answers.
                    found = [] if isinstance(outcome, Failure) else box.convert(outcome)
                    number = next(self.numbers)
                    self.answers[name, row] = [
                        ((1.0, next(self.numbers)) if p is None else (float(p), number), outputs)
                        for p, outputs in found
                    ]

    def registered(self, box: BlackBoxDeclaration) -> Any:
        """A black box as a foreign predicate or function of Scallop's."""
        if box.over:
            raise ByssusError(
                f"{box.name} is over whole relations, in all worlds: take one of byssus's "
                f"provenances, {', '.join(BYSSUS)}"
            )
        self.boxes[box.name] = box
        kinds = [scallopy.predicate.Type(kind) for kind in box.types]
        if not box.function:
            return scallopy.ForeignPredicate(
                lambda *row: self._ask(box.name, row),
                box.name,
                [],
                kinds[: box.bound],
                kinds[box.bound :],
                "exclusive-prob",
                suppress_warning=True,
            )
        types = [scallopy.function.Type(kind) for kind in box.types]
        return scallopy.ForeignFunction(
            lambda *row: self._value(box.name, row),
            box.name,
            [],
            types[:-1],
            [],
            None,
            types[-1],
            suppress_warning=True,
        )

    def _ask(self, name: str, row: _Row) -> list[tuple[Any, _Row]]:
        if (name, row) not in self.answers:
            self.asked[name, row] = None
        return self.answers.get((name, row), [])

    def _value(self, name: str, row: _Row) -> Any:
        answers = self._ask(name, row)
        if any(probability < 1 for (probability, _), _ in answers):
            self.uncertain = name
        if not answers:
            raise LookupError  # which drops the tuple
        return answers[0][1][0]


def _declaration(item: Any, positional: Sequence[Any], named: Mapping[str, Any]) -> str:
    """The text of a declaration with `@blackbox`, from what Scallop's parser made of it."""
    arguments = [_literal(value) for value in positional]
    arguments += [f"{name}={_literal(value)}" for name, value in named.items()]
    attribute = f"@blackbox({', '.join(arguments)})"
    if item.is_function_decl():
        types = [kind.name() for kind in item.function_decl_arg_types()]
        shown = ", ".join(f"x{i}: {kind}" for i, kind in enumerate(types))
        result = item.function_decl_ret_type().name()
        return f"{attribute} type ${item.function_decl_name()}({shown}) -> {result}"
    if not item.is_relation_decl() or len(item.relation_decls()) != 1:
        raise ByssusError("it stands on the declaration of one relation or function")
    relation = item.relation_decl(0)
    columns = []
    for i, binding in enumerate(relation.arg_bindings):
        word = "" if binding.adornment is None else f"{binding.adornment} ".lower()
        name = f"x{i}" if binding.name is None else binding.name.name
        columns.append(f"{word}{name}: {binding.ty.name()}")
    return f"{attribute} type {relation.name.name}({', '.join(columns)})"


def _literal(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(value)
