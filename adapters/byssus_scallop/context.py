"""ScallopContext: a program, its facts, and its runs."""

from __future__ import annotations

import copy
import difflib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from byssus import (
    BlackBox,
    ByssusError,
    CompilationLimit,
    ConceptError,
    Distribution,
    Estimator,
    Plan,
    Progress,
    Store,
    independent,
)
from byssus.diffusion.estimator import options_for
from byssus.errors import listed
from byssus.worlds import Sampler, check_sampling

from . import _llm, _parser, _semirings
from ._algebra import Tags, Unit
from ._blackbox import BlackBoxDeclaration, BlackBoxes, RegisterBlackBoxAction
from ._engine import Engine, Limits, Row, Run, TooManyCalls, TooManyTuples
from ._foresight import foreseen
from ._functions import FUNCTIONS
from ._inputs import Entry, check_tag, dense_inputs, entries, fact_inputs, merged
from ._loading import load
from ._lowering import Lowered, lower
from ._predicates import PREDICATES
from ._solver import Answer, Inputs, Settings, Solver, given_facts
from ._syntax import (
    AlgebraicType,
    AliasType,
    Atom,
    Attribute,
    Conjunction,
    EnumType,
    FactSet,
    Item,
    Query,
    ReduceRule,
    Rule,
    Source,
    SubType,
)
from ._types import ALIASES, python_type
from ._worlds import Diffused, mapped_inputs
from .attribute import (
    ForeignAttributeProcessor,
    RegisterForeignFunctionAction,
    RegisterForeignPredicateAction,
    RemoveItemAction,
    cmd_arg,
    py_eval,
)
from .collection import ScallopCollection
from .foreign import SUPPRESSED, ForeignFunction, ForeignPredicate
from .input_mapping import InputMapping
from .input_output import CSVFileOptions

if TYPE_CHECKING:
    from .module import ForwardFunction

__all__ = ["BYSSUS", "ScallopContext"]

_EXAMPLE = 1 << 40
"""Facts of examples are numbered from here, those of the context from 0."""

BYSSUS = ("exact", "sampled", "mixed", "auto", "nesydm")
"""The provenances that are byssus's own."""

_PROBABILITIES = (
    "minmaxprob",
    "addmultprob",
    "topkproofs",
    "samplekproofs",
    "topbottomkclauses",
)
"""Those of Scallop's whose tags are read as numbers."""


@dataclass(frozen=True)
class _Added:
    """What new items of a program come to."""

    items: list[Item]
    functions: dict[str, ForeignFunction]
    predicates: dict[str, ForeignPredicate]
    boxes: dict[str, BlackBoxDeclaration]


class ScallopContext:
    """A Scallop program with its facts, which runs under a provenance.

    A drop-in for `scallopy.ScallopContext`, on an engine of its own.

    Args:
        provenance: byssus's "exact", "sampled", "mixed", "auto" (exact where the program compiles
            and its calls fit their budgets, else sampled), "nesydm" (over the worlds of a
            diffusion model, see `ForwardFunction.forward`); or Scallop's "unit", "proofs",
            "minmaxprob", "addmultprob", "topkproofs", "diffminmaxprob", "diffaddmultprob",
            "diffnandmultprob", "difftopkproofs", ... with Scallop's meaning.
        custom_provenance: a provenance that you have written for Scallop.
        k: proofs that top-k provenances keep; `train_k` and `test_k` for a module in training
            and not.
        wmc_with_disjunctions: as in Scallop.
        no_stdlib: without the attributes that come with Scallop.
        monitors: accepted, without effect.
        backend: "scallopy", Scallop's own engine; "embedded", the one that comes with byssus;
            "auto" takes scallopy for byssus's provenances where it is installed, and else the
            embedded one. With "scallopy" and a provenance of Scallop's the context is Scallop's.
        samples: worlds an example.
        estimator: "auto", "ised", "distinct", "rloo", "indecater", or an `Estimator`.
        worlds: where worlds come from, see `byssus.worlds`.
        generator: makes sampling reproducible.
        sampled: for "mixed", the relations whose facts are sampled.
        nodes: the most nodes that grounding, and then compilation, may make.
        seconds: the most seconds that each may take.
        memory: the most bytes that compilation may take; see `byssus.Circuit.compile`, as for the
            next two.
        progress: who is told how far compilation is; by default a bar on a terminal.
        store: where compiled circuits are kept; by default that of `BYSSUS_STORE`, if any.
        arguments: the command line that `@cmd_arg` reads.
        diffusion: for "nesydm", arguments of `byssus.diffusion.MaskedDiffusion`, for its loss
            where probabilities are given.

    Example:
        >>> ctx = ScallopContext(provenance="exact")
        >>> ctx.add_relation("edge", (int, int))
        >>> ctx.add_facts("edge", [(0.5, (0, 1)), (0.5, (1, 2))])
        >>> ctx.add_rule("path(a, c) = edge(a, c) or path(a, b) and edge(b, c)")
        >>> ctx.run()
        >>> list(ctx.relation("path"))
        [(0.5, (0, 1)), (0.25, (0, 2)), (0.5, (1, 2))]
    """

    def __new__(
        cls,
        provenance: str = "unit",
        custom_provenance: Any = None,
        *arguments: Any,
        backend: str = "auto",
        **options: Any,
    ) -> Any:
        """The context on the backend that is asked for."""
        if cls is not ScallopContext or options.get("fork_from") is not None:
            return object.__new__(cls)
        ours = custom_provenance is None and provenance in BYSSUS
        chosen = _context_class(backend, ours)
        if ours or backend != "scallopy":
            return object.__new__(chosen)
        from ._extension import scallops_own

        return scallops_own(provenance, custom_provenance, *arguments, **options)

    def __init__(
        self,
        provenance: str = "unit",
        custom_provenance: Any = None,
        k: int = 3,
        wmc_with_disjunctions: bool = False,
        train_k: int | None = None,
        test_k: int | None = None,
        fork_from: ScallopContext | None = None,
        no_stdlib: bool = False,
        monitors: Sequence[str] = (),
        *,
        backend: str = "auto",
        samples: int = 100,
        estimator: str | Estimator = "auto",
        worlds: Sampler = independent,
        generator: torch.Generator | None = None,
        sampled: Sequence[str] | str | None = None,
        nodes: int | None = 5_000_000,
        seconds: float | None = 60.0,
        memory: int | None = None,
        progress: bool | Callable[[Progress], None] | None = None,
        store: Store | str | os.PathLike[str] | bool | None = None,
        arguments: Sequence[str] = (),
        diffusion: Mapping[str, Any] | None = None,
    ) -> None:
        if fork_from is not None:
            self.__dict__.update(fork_from.clone().__dict__)
            return
        check_sampling(samples, generator)
        self._custom = custom_provenance
        self.provenance = provenance = "custom" if custom_provenance is not None else provenance
        for name, number in {"k": k, "train_k": train_k, "test_k": test_k}.items():
            if number is not None and (not isinstance(number, int) or number < 1):
                raise ByssusError(f"{name}={number!r}: how many proofs are kept, 1 or more")
        self._k, self._train_k, self._test_k = k, train_k, test_k
        self._wmc_with_disjunctions = wmc_with_disjunctions
        self._semiring()  # checks the name
        self._settings = Settings(
            provenance,
            samples,
            estimator,
            worlds,
            generator,
            nodes,
            seconds,
            (sampled,) if isinstance(sampled, str) else None if sampled is None else tuple(sampled),
            memory=memory,
            progress=progress,
            store=store,
            diffusion=_diffusion(provenance, estimator, diffusion),
        )
        self._items: tuple[Item, ...] = ()
        self._facts: list[Entry] = []
        self._singletons: set[str] = set()
        self._mappings: dict[str, InputMapping] = {}
        self._mapped_rows: dict[str, list[Row]] = {}
        self._retain: dict[str, int] = {}
        self._non_probabilistic: set[str] = set()
        self._functions: dict[str, ForeignFunction] = {}
        self._predicates: dict[str, ForeignPredicate] = {}
        self._boxes = BlackBoxes()
        self._attributes = {
            "blackbox": self._boxes.processor(),
            "llm": _llm.processor(self._boxes),
        }
        if not no_stdlib:
            self._attributes |= {"cmd_arg": cmd_arg(arguments), "py_eval": py_eval}
        self._declared_boxes: dict[str, BlackBoxDeclaration] = {}
        self._rule_tags: dict[str, Any] = {}
        self._lowered: Lowered | None = None
        self._engine: Engine | None = None
        self._solver: Solver | None = None
        self._answering: Solver | None = None
        self._computed: dict[str, Answer] = {}
        self._result: Run[Any] | None = None
        self._result_inputs: Inputs | None = None
        self._result_tags: Tags[Any] | None = None

    # The program

    def import_file(self, file_name: str) -> None:
        """Add the program of a file; what it imports is found relative to it."""
        self._extend(load(file_name))

    def add_program(self, program: str) -> None:
        """Add the items of a text; if there is a fault in it, nothing is added."""
        self._extend(load(Source(_text(program))))

    def add_item(self, item: str) -> list[str]:
        """Add an item; the names of the relations that it queries."""
        items = load(Source(_text(item)))
        self._extend(items)
        return [
            i.target if isinstance(i.target, str) else str(i.target.span)
            for i in items
            if isinstance(i, Query)
        ]

    def add_rule(self, rule: str, tag: Any = None, demand: str | None = None) -> None:
        """Add a rule.

        Args:
            rule: its text, without the keyword `rel`.
            tag: its probability, a number or a tensor; `(probability, None)` will do as well.
            demand: "bf" and the like: what of its head is bound, if it is to be on demand.
        """
        parsed = _parser.parse_rule(Source(_text(rule)))
        if self._custom is None:
            if isinstance(tag, tuple):
                tag = tag[0]
            check_tag("a rule", tag, rule)
        if demand is not None:
            if not isinstance(parsed, Rule | ReduceRule):
                raise ByssusError(f"demand={demand!r} is for a rule, and {rule!r} is none")
            attribute = Attribute(parsed.span, "demand", (demand,))
            parsed = replace(parsed, attributes=(*parsed.attributes, attribute))
        if tag is None:
            self._extend([parsed])
            return
        if not isinstance(parsed, Rule):
            raise ByssusError(f"tag={tag!r} is for a rule, and {rule!r} is none")
        name = f"tag#{len(self._rule_tags)}"
        self._extend([_with_atom(parsed, name)], {name: tag})

    def add_relation(
        self,
        relation_name: str,
        relation_types: Any,
        input_mapping: Any = None,
        retain_topk: int | None = None,
        non_probabilistic: bool = False,
        load_csv: CSVFileOptions | str | None = None,
    ) -> None:
        """Declare a relation.

        Args:
            relation_name: its name; or "name(types)" as in a program.
            relation_types: the types of its columns: Python types (`int` is i32, `float` f32,
                `str` String), names ("usize"), or `byssus_scallop.usize`; one alone for one column.
            input_mapping: what the positions of its tensor mean, see `InputMapping`.
            retain_topk: how many facts of a list are kept, the most probable ones.
            non_probabilistic: whether its facts are given without probabilities.
            load_csv: a CSV file that holds its facts.
        """
        single = not isinstance(relation_types, tuple)
        if isinstance(relation_types, list):
            raise ByssusError(
                f"the types of {relation_name} are {relation_types!r}: give a tuple of types, or "
                "one type"
            )
        types = (relation_types,) if single else tuple(relation_types)
        names = ", ".join(python_type(t) for t in types)
        declaration = f"type {relation_name}({names})"
        if load_csv is not None:
            options = load_csv if isinstance(load_csv, CSVFileOptions) else CSVFileOptions(load_csv)
            declaration = f"{_file(options)} {declaration}"
        self._extend(load(Source(declaration)))
        if single:
            self._singletons.add(relation_name)
        if retain_topk is not None:
            self._retain[relation_name] = retain_topk
        if non_probabilistic:
            self._non_probabilistic.add(relation_name)
        if input_mapping is not None:
            self.set_input_mapping(relation_name, input_mapping)

    def add_facts(
        self,
        relation: str,
        elems: Iterable[Any],
        disjunctions: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Add facts.

        Args:
            relation: what they are facts of.
            elems: tuples; or `(probability, tuple)`. A value will do for a tuple of one.
            disjunctions: lists of positions; the facts of one list are alternatives of one another.
        """
        self._require(relation)
        found = self._read_facts(relation, elems, disjunctions)
        number = len(self._facts)
        self._facts += [
            e if e.group is None else Entry(e.relation, e.row, e.tag, (number, e.group))
            for e in found
        ]

    # What is called

    def register_foreign_function(self, foreign_function: ForeignFunction) -> None:
        """Make `$name` known; register it before a program that uses it."""
        if not isinstance(foreign_function, ForeignFunction):
            raise ByssusError(
                f"{foreign_function!r} is no foreign function: decorate it with @foreign_function"
            )
        self._new_name(foreign_function.name, FUNCTIONS, self._functions, "function $")
        self._functions[foreign_function.name] = foreign_function

    def register_foreign_predicate(self, foreign_predicate: ForeignPredicate) -> None:
        """Make a predicate known; register it before a program that uses it."""
        if not isinstance(foreign_predicate, ForeignPredicate):
            raise ByssusError(
                f"{foreign_predicate!r} is no foreign predicate: decorate it with "
                "@foreign_predicate"
            )
        self._new_name(foreign_predicate.name, PREDICATES, self._predicates, "predicate ")
        self._predicates[foreign_predicate.name] = foreign_predicate

    def register_foreign_attribute(self, foreign_attribute: ForeignAttributeProcessor) -> None:
        """Make `@name` known; register it before a program that uses it."""
        if not isinstance(foreign_attribute, ForeignAttributeProcessor):
            raise ByssusError(
                f"{foreign_attribute!r} is no attribute: decorate it with @foreign_attribute"
            )
        self._attributes[foreign_attribute.name] = foreign_attribute

    def register_blackbox(
        self, function: BlackBox | Callable[..., Any], name: str | None = None
    ) -> None:
        """Make a function known to `@blackbox("name")`, in place of one in a file."""
        self._boxes.register(function, name)

    @staticmethod
    def _new_name(name: str, *known: Any) -> None:
        *tables, what = known
        if any(name in table for table in tables):
            raise ByssusError(f"there is a {what}{name} already: choose another name")

    # Settings

    def set_input_mapping(
        self,
        relation: str,
        input_mapping: Any,
        disjunctive: bool | None = None,
        disjunctive_dim: int | None = None,
        retain_threshold: float | None = None,
        retain_k: int | None = None,
        sample_dim: int | None = None,
        sample_strategy: Literal["top", "categorical"] = "top",
    ) -> None:
        """Say what the positions of a relation's tensor mean; see `InputMapping`."""
        self._require(relation)
        self._mapped_rows.pop(relation, None)
        if input_mapping is None:
            self._mappings.pop(relation, None)
            return
        mapping = (
            input_mapping
            if isinstance(input_mapping, InputMapping)
            else InputMapping(
                input_mapping,
                disjunctive,
                disjunctive_dim,
                retain_threshold,
                retain_k,
                sample_dim,
                sample_strategy,
            )
        )
        for row in mapping.tuples:
            self._convert(relation, row)
        self._mappings[relation] = mapping

    def has_input_mapping(self, relation: str) -> bool:
        """Whether the positions of the relation's tensor have a meaning."""
        return relation in self._mappings

    def set_sample_topk_facts(self, relation: str, amount: int) -> None:
        """Keep so many facts of a relation's tensor, the most probable ones."""
        if relation not in self._mappings:
            raise ByssusError(f"{relation} has no input mapping: give it one first")
        self._mappings[relation].set_sample_topk_facts(amount)

    def set_non_probabilistic(
        self, relation: str | Sequence[str], non_probabilistic: bool = True
    ) -> None:
        """Say that facts of relations are given without probabilities."""
        for name in [relation] if isinstance(relation, str) else relation:
            self._require(name)
            (self._non_probabilistic.add if non_probabilistic else self._non_probabilistic.discard)(
                name
            )

    def relation_is_non_probabilistic(self, relation: str) -> bool:
        """Whether facts of the relation are given without probabilities."""
        return relation in self._non_probabilistic

    def set_iter_limit(self, iter_limit: int | None = None) -> None:
        """End every recursion after so many rounds, as it stands; None for no limit."""
        if iter_limit is not None and (type(iter_limit) is not int or iter_limit < 1):
            raise ByssusError(f"iter_limit={iter_limit!r}: a whole number of rounds, 1 or more")
        self._settings = replace(self._settings, iterations=iter_limit)
        self._solver = None

    def set_early_discard(self, early_discard: bool = True) -> None:
        """Accepted for compatibility: what holds in no world is always dropped early."""

    # Running

    def compile(self) -> None:
        """Compile what has been added; `run` does it itself."""
        self._ready()

    def run(self) -> None:
        """Derive everything from the facts that were added.

        Raises:
            BlackBoxError: a call failed, under `on_error="raise"`.
            ByssusError: a limit was reached.
        """
        engine = self._ready()
        self._require_defined(entry.relation for entry in self._facts)
        self._computed = {}
        if self._custom is not None:
            self._result_tags, self._result = self._run_custom(self._entries())
            self._result_inputs = Inputs()
            return
        inputs = self._given()
        self._result_inputs = inputs
        if self.provenance in BYSSUS:
            self._answering = copy.copy(self._solved())
            names = [n for n, r in engine.program.relations.items() if not r.hidden]
            if self.provenance in ("exact", "auto"):
                self._prepare(inputs, names)
            else:
                self._computed = self._answering.answer(inputs, dict.fromkeys(names))
            return
        self._result_tags = tags = self._semiring()
        self._result = engine.run(
            tags,
            given_facts(tags, inputs),
            generator=self._settings.generator,
            limits=Limits(self._settings.iterations),
        )

    def run_batch(
        self, inputs: Mapping[str, Sequence[Any]], output_relation: str, parallel: bool = False
    ) -> list[ScallopCollection]:
        """Run over several examples: for each relation a list of facts an example."""
        sizes = {len(given) for given in inputs.values()}
        if len(sizes) != 1:
            raise ByssusError(f"the batch sizes differ: {sorted(sizes)}")
        found = []
        for example in range(sizes.pop()):
            branch = self.clone()
            for name, given in inputs.items():
                facts = given[example]
                groups = None
                if isinstance(facts, tuple):
                    facts, groups = facts
                branch.add_facts(name, facts, groups)
            branch.run()
            found.append(branch.relation(output_relation))
        return found

    def relation(self, name: str) -> ScallopCollection:
        """What the last run has found for a relation: iterates over `(probability, tuple)`.

        Over tuples under "unit" and "proofs". A probability is a float where all that were given
        are numbers, and a tensor that backpropagates to them where tensors were given.
        """
        return ScallopCollection(self.provenance, self._rows(name), self._types(name))

    def distribution(self, name: str) -> Distribution:
        """The distribution over a relation's tuples that the last run has found."""
        if self.provenance not in BYSSUS:
            raise ByssusError(f"provenance {self.provenance!r} gives tags, and no distribution")
        self._require(name)
        return self._answer_of(name).distribution

    @property
    def dropped(self) -> dict[str, int]:
        """How many tuples the last run has dropped, by reason and place.

        Division by zero, overflow, a string that does not parse: as in Scallop such a tuple is
        not derived.
        """
        runs = [self._result, None if self._answering is None else self._answering.run]
        found: dict[str, int] = {}
        for run in runs:
            for (span, reason), count in ({} if run is None else run.dropped).items():
                if reason == SUPPRESSED:
                    continue
                where = f"{span.source.file or '<program>'}, line {span.line}: {reason}"
                found[where] = found.get(where, 0) + count
        return found

    @property
    def lost(self) -> dict[str, float]:
        """The probability mass of the worlds that were lost to failed calls, by relation.

        Of the relations that have been read since the last run.
        """
        found = {n: float(a.distribution.lost[0]) for n, a in self._computed.items()}
        return {name: mass for name, mass in found.items() if mass > 0}

    def plan(self) -> Plan:
        """What the last run has chosen and why, its calls, and the size of its circuit.

        Before a run, what one will do with the facts that were added, and with those that input
        mappings name. How many calls it makes at most is known for black boxes whose arguments are
        not answers; nothing is called for that.

        Raises:
            ByssusError: under Scallop's own provenances, which have no plan.
        """
        if self._answering is not None and self._answering.plan is not None:
            return self._answering.plan
        return self._foreseen(())

    @property
    def blackboxes(self) -> Mapping[str, BlackBox]:
        """The black boxes that the program declares, by name: `"room"`, and functions as `"$room"`.

        `context.blackboxes["room"].report()` says what a language model has been asked.
        """
        boxes = self._declared_boxes.values()
        return {f"${box.name}" if box.function else box.name: box.box for box in boxes}

    def forward_function(
        self,
        output: str | None = None,
        output_mapping: Any = None,
        output_mappings: Mapping[str, Any] | None = None,
        dispatch: str = "parallel",
        debug_provenance: bool = False,
        jit: bool = False,
        jit_name: str = "",
        recompile: bool = False,
        sparse_jacobian: bool = False,
        *,
        distribution: bool = False,
    ) -> ForwardFunction:
        """The program as a torch module over batches.

        Args:
            output: the relation that is asked for.
            output_mapping: the tuples to report on, in the order of the result's columns; a single
                tuple for a result of one column; those that are found if None.
            output_mappings: the same for several relations.
            dispatch: "single", "serial" or "parallel"; all do the same here.
            debug_provenance: accepted, without effect.
            jit: accepted, without effect.
            jit_name: accepted, without effect.
            recompile: accepted, without effect.
            sparse_jacobian: accepted, without effect.
            distribution: give a `byssus.Distribution` in place of a tensor.
        """
        from .module import ForwardFunction

        if self.provenance not in (*BYSSUS, "custom") and "diff" not in self.provenance:
            raise ByssusError(
                f"provenance {self.provenance!r} is not differentiable: take one of byssus's, "
                f"{listed(BYSSUS)}, or one of Scallop's that begin with 'diff'"
            )
        return ForwardFunction(
            self, output, output_mapping, output_mappings, dispatch, distribution
        )

    # What there is

    def has_relation(self, relation: str) -> bool:
        """Whether the program has such a relation."""
        return relation in self._lowering().program.relations

    def relation_is_computed(self, relation: str) -> bool:
        """Whether the last run has computed the relation."""
        return self._result_inputs is not None and self.has_relation(relation)

    def relations(self, include_hidden: bool = False) -> list[str]:
        """The names of the relations."""
        found = self._lowering().program.relations
        return [name for name, r in found.items() if include_hidden or not r.hidden]

    def num_relations(self, include_hidden: bool = False) -> int:
        """How many relations there are."""
        return len(self.relations(include_hidden))

    def relation_field_names(self, relation: str) -> list[str | None] | None:
        """The names of a relation's columns, None for those without; None if not declared."""
        self._require(relation)
        columns = self._lowering().program.relations[relation].columns
        return list(columns) or None

    def relation_types(self, relation: str) -> tuple[str, ...]:
        """The types of a relation's columns."""
        self._require(relation)
        return self._types(relation)

    def query_relations(self) -> list[tuple[str, str]]:
        """What the program queries, as (name to print, relation)."""
        return [(query.name, query.relation) for query in self._lowering().program.queries]

    def requires_tag(self) -> bool:
        """Whether facts have tags at all."""
        return self.provenance not in ("unit", "proofs")

    def is_probabilistic(self) -> bool:
        """Whether tags are probabilities."""
        return self.provenance in BYSSUS or self.provenance in _PROBABILITIES

    def supports_disjunctions(self) -> bool:
        """Whether facts may be alternatives of one another."""
        return self.provenance in BYSSUS or any(n in self.provenance for n in ("proofs", "clauses"))

    # Copying

    def clone(
        self,
        provenance: str | None = None,
        k: int | None = None,
        wmc_with_disjunctions: bool | None = None,
        monitors: Sequence[str] | None = None,
    ) -> ScallopContext:
        """A copy, to change without changing this one; under another provenance if given."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        for name, value in vars(self).items():
            if isinstance(value, list | dict | set):
                setattr(other, name, copy.copy(value))
        other._mappings = {name: copy.copy(m) for name, m in self._mappings.items()}
        other._solver = None
        generator = self._settings.generator
        if generator is not None:
            other._settings = replace(
                self._settings, generator=_generator(generator.device, generator.get_state())
            )
        if provenance is not None:
            other.provenance = provenance
            other._settings = replace(other._settings, provenance=provenance)
            other._k = self._k if k is None else k
            if wmc_with_disjunctions is not None:
                other._wmc_with_disjunctions = wmc_with_disjunctions
            other._semiring()
            other._answering = other._result = other._result_inputs = None
            other._computed = {}
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> ScallopContext:
        return self.clone()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        # Compiled anew: generated functions and diagrams do not pickle.
        for name in ("_lowered", "_engine", "_solver", "_answering", "_result", "_result_inputs"):
            state[name] = None
        state["_result_tags"], state["_computed"] = None, {}
        generator = self._settings.generator
        if generator is not None:
            state["_settings"] = replace(self._settings, generator=None)
            state["_generator"] = (generator.device, generator.get_state())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        generator = state.pop("_generator", None)
        self.__dict__.update(state)
        if generator is not None:
            self._settings = replace(self._settings, generator=_generator(*generator))

    # Inside

    def _extend(self, items: Sequence[Item], tags: Mapping[str, Any] | None = None) -> None:
        """Add items, if the whole is a program with them."""
        added = self._processed(items)
        rule_tags = {**self._rule_tags, **(tags or {})}
        kept = [*self._items, *added.items]
        functions = {**self._functions, **added.functions}
        predicates = {**self._predicates, **added.predicates}
        boxes = {**self._declared_boxes, **added.boxes}
        lowered = self._lower(kept, functions, predicates, boxes, rule_tags)
        engine = Engine(lowered.program)  # refuses what is not stratified
        if self.provenance in BYSSUS:
            _check_alternatives(items)
        self._items = tuple(kept)
        self._functions, self._predicates, self._declared_boxes = functions, predicates, boxes
        self._rule_tags = rule_tags
        self._lowered, self._engine, self._solver = lowered, engine, None

    def _processed(self, items: Sequence[Item]) -> _Added:
        """What items are once their attributes have been looked at."""
        added = _Added([], {}, {}, {})
        resolve = self._type_resolver([*self._items, *items])
        for item in items:
            stays = True
            for attribute in item.attributes:
                processor = self._attributes.get(attribute.name)
                for action in (
                    () if processor is None else processor.apply(item, attribute, resolve)
                ):
                    if isinstance(action, RemoveItemAction):
                        stays = False
                    elif isinstance(action, RegisterForeignFunctionAction):
                        function = action.foreign_function
                        added.functions[function.name] = function
                    elif isinstance(action, RegisterForeignPredicateAction):
                        predicate = action.foreign_predicate
                        added.predicates[predicate.name] = predicate
                    elif isinstance(action, RegisterBlackBoxAction):
                        added.boxes[action.declaration.name] = action.declaration
            if stays:
                added.items.append(item)
        return added

    def _type_resolver(self, items: Sequence[Item]) -> Callable[[str], str]:
        """From the name of a type, which the program may declare, to a value type."""
        meanings = {i.name: i.type.name for i in items if isinstance(i, AliasType | SubType)}
        meanings |= {i.name: "usize" for i in items if isinstance(i, EnumType)}
        meanings |= {i.name: "Entity" for i in items if isinstance(i, AlgebraicType)}

        def resolve(name: str) -> str:
            for _ in range(len(meanings) + 1):
                name = meanings.get(name, name)
            return ALIASES.get(name, name)

        return resolve

    def _lower(
        self,
        items: Sequence[Item],
        functions: Mapping[str, ForeignFunction],
        predicates: Mapping[str, ForeignPredicate],
        boxes: Mapping[str, BlackBoxDeclaration],
        rule_tags: Mapping[str, Any],
    ) -> Lowered:
        return lower(
            items,
            functions={**FUNCTIONS, **functions},
            predicates={**PREDICATES, **predicates},
            relations=dict.fromkeys(rule_tags, ()),
            blackboxes=boxes,
            attributes=self._attributes,
            allow_undefined=True,  # what a rule uses may be declared after it
        )

    def _lowering(self) -> Lowered:
        if self._lowered is None:
            self._lowered = self._lower(
                self._items,
                self._functions,
                self._predicates,
                self._declared_boxes,
                self._rule_tags,
            )
        return self._lowered

    def _ready(self) -> Engine:
        if self._engine is None:
            self._engine = Engine(self._lowering().program)
        return self._engine

    def _solved(self) -> Solver:
        if self._solver is None:
            kind = Diffused if self.provenance == "nesydm" else Solver
            self._solver = kind(self._ready(), self._settings)
        return self._solver

    def _require(self, relation: str) -> None:
        if not self.has_relation(relation):
            known = self.relations()
            near = difflib.get_close_matches(relation, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {listed(known)}"
            raise ConceptError(f"there is no relation {relation!r}: {hint}")

    def _types(self, relation: str) -> tuple[str, ...]:
        return self._lowering().program.relations[relation].types

    def _dense(self, relation: str, tensor: Tensor) -> Inputs | list[Inputs]:
        """The facts of a relation that is given as a tensor; see `dense_inputs`."""
        mapping, rows = self._mappings[relation], self._rows_of(relation)
        # Scallop's own provenances take facts as independent unless they are said not to be.
        decide = self.provenance in BYSSUS
        # A fact that holds in no world costs a sampler nothing, and others everything.
        alike = self.provenance in ("sampled", "nesydm")
        return dense_inputs(
            relation, mapping, rows, tensor, self._settings.generator, decide, alike
        )

    def _rows_of(self, relation: str) -> list[Row]:
        """The tuples of a relation's input mapping, as the engine holds them."""
        if relation not in self._mapped_rows:
            rows = [self._convert(relation, row) for row in self._mappings[relation].tuples]
            self._mapped_rows[relation] = rows
        return self._mapped_rows[relation]

    def _require_defined(self, given: Iterable[str]) -> None:
        """Raise for a relation that rules use, and that nothing derives, declares or gives."""
        undefined = self._lowering().undefined
        for name in undefined.keys() - set(given):
            raise undefined[name]

    def _convert(self, relation: str, values: Sequence[Any]) -> Row:
        return self._lowering().convert(relation, values)

    def _read_facts(
        self, relation: str, elements: Iterable[Any], groups: Sequence[Sequence[int]] | None = None
    ) -> list[Entry]:
        found = entries(
            relation,
            elements,
            len(self._types(relation)),
            lambda values: self._convert(relation, values),
            groups,
            self._custom is not None,
        )
        tagged = next((entry for entry in found if entry.tag is not None), None)
        if tagged is not None and relation in self._non_probabilistic:
            raise ByssusError(
                f"{relation} is non-probabilistic, and its fact {tuple(tagged.given)!r} has the "
                f"tag {tagged.tag!r}: give tuples only"
            )
        return [*found, *self._parts(relation, found)]

    def _parts(self, relation: str, found: Sequence[Entry]) -> list[Entry]:
        """Of entities that are given as text: what they are made of are facts, too."""
        if "Entity" not in self._types(relation):
            return []
        lowered = self._lowering()
        parts = dict.fromkeys(
            part for entry in found for part in lowered.entities(relation, entry.given)
        )
        return [Entry(part.relation, part.values) for part in parts]

    def _facts_of(
        self, relation: str, elements: Iterable[Any], groups: Sequence[Sequence[int]] | None
    ) -> Inputs:
        """The facts of a relation of one example."""
        found = self._read_facts(relation, elements, groups)
        most = self._retain.get(relation)
        if most is not None and len(found) > most:
            found = sorted(found, key=lambda e: -1.0 if e.tag is None else -float(e.tag))[:most]
        return fact_inputs(found, _EXAMPLE)

    def _entries(self) -> list[Entry]:
        """The facts of the program and those that were added."""
        return [*self._program_facts(), *self._added()]

    def _added(self) -> list[Entry]:
        rules = [Entry(name, (), tag) for name, tag in self._rule_tags.items()]
        return [*rules, *self._facts]

    def _program_facts(self) -> list[Entry]:
        return [
            Entry(f.relation, f.values, f.tag, None if f.group is None else ("program", f.group))
            for f in self._lowering().program.facts
        ]

    def _given(self) -> Inputs:
        """The same as the facts of a batch of one."""
        return fact_inputs(self._entries())

    def _open(self) -> list[str]:
        """The relations whose facts can only come with a batch, and may be any."""
        program = self._lowering().program
        filled = {rule.head for rule in program.rules} | {a.head for a in program.aggregates}
        filled |= {fact.relation for fact in program.facts} | {e.relation for e in self._facts}
        filled |= {box.name for box in program.blackboxes}
        filled |= {name for name, mapping in self._mappings.items() if mapping.kind is not None}
        shown = (name for name, r in program.relations.items() if not r.hidden and "#" not in name)
        return [name for name in shown if name not in filled]

    def _foreseen(self, unknown: Collection[str]) -> Plan:
        """What a run will do, as far as that is known beforehand; see `foreseen`."""
        if self.provenance not in BYSSUS:
            raise ByssusError(
                f"provenance {self.provenance!r} has no plan: take one of byssus's, "
                f"{listed(BYSSUS)}"
            )
        # Of all facts: inside Scallop some are in its context.
        facts = [*ScallopContext._program_facts(self), *self._added()]
        parts = [
            mapped_inputs(name, self._rows_of(name), mapping)
            for name, mapping in self._mappings.items()
            if mapping.kind is not None
        ]
        return foreseen(self._solved(), merged([*parts, fact_inputs(facts)], 1), unknown)

    def _run_custom(self, facts: Sequence[Entry]) -> tuple[Tags[Any], Run[Any]]:
        """Run over facts whose tags may be any objects."""
        tags = self._semiring()
        given: dict[str, list[tuple[Row, Any]]] = {}
        for entry in facts:
            tag = tags.fact(entry.row, entry.tag, entry.group)
            given.setdefault(entry.relation, []).append((entry.row, tag))
        limits = Limits(self._settings.iterations)
        generator = self._settings.generator
        return tags, self._ready().run(tags, given, generator=generator, limits=limits)

    def _semiring(self, training: bool | None = None) -> Tags[Any]:
        if self.provenance in BYSSUS:
            return Unit()
        if self._custom is not None:
            return _semirings.Custom(self._custom)
        k = self._k
        if training is not None:
            own = self._train_k if training else self._test_k
            k = k if own is None else own
        return _semirings.make(
            self.provenance, k=k, wmc_with_disjunctions=self._wmc_with_disjunctions
        )

    def _prepare(self, inputs: Inputs, names: Sequence[str]) -> None:
        """Derive everything now, so that faults show; compile what is read when it is read."""
        assert self._answering is not None
        inputs.check()
        try:
            self._answering.grounded(inputs)
        except (CompilationLimit, TooManyCalls, TooManyTuples):
            if self.provenance == "exact":
                raise
            self._computed = self._answering.answer(inputs, dict.fromkeys(names))

    def _rows(self, name: str) -> list[tuple[Any, Row]]:
        """What the last run has found for a relation, as the engine holds it, with its tags."""
        self._require(name)
        if self._result_inputs is None:
            raise ByssusError(f"{name} has not been computed: call run() first")
        if self._result is not None:
            assert self._result_tags is not None
            output = self._result_tags.output
            found = [(output(tag), row) for row, tag in self._result.tables[name].items()]
            # Facts are a batch of one.
            return [(t.reshape(()) if isinstance(t, Tensor) else t, row) for t, row in found]
        answer = self._answer_of(name)
        probs = answer.probabilities()[0]
        differentiable = probs.requires_grad
        differentiable |= any(isinstance(entry.tag, Tensor) for entry in self._facts)
        differentiable |= any(isinstance(tag, Tensor) for tag in self._rule_tags.values())
        tags = list(probs.unbind()) if differentiable else probs.tolist()
        return list(zip(tags, answer.rows, strict=True))

    def _answer_of(self, name: str) -> Answer:
        if self._result_inputs is None or self._answering is None:
            raise ByssusError(f"{name} has not been computed: call run() first")
        if name not in self._computed:
            self._computed.update(self._answering.answer(self._result_inputs, {name: None}))
        return self._computed[name]

    def _answers(
        self, inputs: Inputs, outputs: Mapping[str, Sequence[Row] | None], training: bool
    ) -> dict[str, Answer]:
        """The outputs of a batch."""
        if self.provenance in BYSSUS:
            return self._solved().answer(inputs, outputs)
        examples = [inputs] if self._semiring().batched else _single_examples(inputs)
        runs = []
        for example in examples:
            tags = self._semiring(training)
            run = self._ready().run(
                tags,
                given_facts(tags, example),
                generator=self._settings.generator,
                limits=Limits(self._settings.iterations),
            )
            runs.append((tags, run, example.batch))
        answers = {}
        for name, rows in outputs.items():
            if rows is None:
                rows = sorted({row for _, run, _ in runs for row in run.tables[name]})
            like = next((w for w in inputs.weights), torch.zeros(()))
            parts = []
            for tags, run, batch in runs:
                zero = like.new_zeros(batch)
                found = tags.outputs([run.tables[name].get(row) for row in rows])
                columns = [torch.as_tensor(tag).to(zero).expand(batch) for tag in found]
                parts.append(torch.stack(columns, 1) if columns else like.new_zeros(batch, 0))
            values = [row[0] if len(row) == 1 else row for row in rows]
            answers[name] = Answer(tuple(rows), Distribution(values, exact=torch.cat(parts)))
        return answers


def _context_class(backend: str, ours: bool) -> type[ScallopContext]:
    """The class of a context: inside Scallop, or on the engine that comes with byssus."""
    if backend not in ("auto", "embedded", "scallopy"):
        raise ByssusError(
            f"backend={backend!r}: there are 'scallopy', 'embedded', and 'auto', which takes "
            "scallopy where it is installed"
        )
    if backend == "embedded" or (backend == "auto" and not ours):
        return ScallopContext
    try:
        # Only when it is used: this one needs scallopy.
        from ._inside import Inside
    except ImportError as error:
        if backend == "auto":
            return ScallopContext
        raise ByssusError(
            f"backend='scallopy' needs Scallop's Python package ({error}): install it as its own "
            "site says, https://www.scallop-lang.org, or take backend='embedded'; `byssus doctor` "
            "says what there is"
        ) from error
    return Inside


def _generator(device: torch.device, state: Tensor) -> torch.Generator:
    made = torch.Generator(device)
    made.set_state(state)
    return made


def _text(program: Any) -> str:
    if not isinstance(program, str):
        raise ByssusError(f"a program is text, and {program!r} is a {type(program).__name__}")
    return program


def _diffusion(
    provenance: str, estimator: str | Estimator, options: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    """The options of a diffusion model, checked."""
    checked = options_for(provenance, options)
    if provenance == "nesydm" and estimator != "auto":
        raise ByssusError(
            f"estimator={estimator!r} is for sampled and mixed: nesydm has a loss of its own, "
            "leave it out"
        )
    return checked


def _single_examples(inputs: Inputs) -> list[Inputs]:
    """A batch as batches of one."""
    return [
        Inputs(
            inputs.certain,
            inputs.blocks,
            tuple(w if len(w) == 1 else w[i : i + 1] for w in inputs.weights),
            1,
        )
        for i in range(inputs.batch)
    ]


def _file(options: CSVFileOptions) -> str:
    """`@file(...)` with these options."""
    keywords = {
        "deliminator": options.deliminator,
        "header": options.has_header,
        "has_probability": options.has_probability,
        "keys": options.keys,
        "fields": options.fields,
    }
    given = [f"{key}={json.dumps(value)}" for key, value in keywords.items() if value]
    return f"@file({', '.join([json.dumps(str(options.path)), *given])})"


def _check_alternatives(items: Iterable[Item]) -> None:
    """Refuse alternatives whose probabilities are more than one together."""
    for item in items:
        if not isinstance(item, FactSet) or not item.exclusive:
            continue
        tags = [1.0 if tag is None else float(tag.value) for tag, _, _ in item.tuples]
        if sum(tags) > 1 + 1e-4:
            raise item.span.error(
                f"the facts of {item.name} exclude each other, and have probabilities that sum to "
                f"{sum(tags):g}: at most 1; separate them by commas if they do not, or give each "
                "its probability, as in `{0.5::a; 0.5::b}`"
            )


def _with_atom(rule: Rule, name: str) -> Rule:
    """A rule that holds only where a nullary relation does."""
    atom = Atom(rule.span, name, ())
    return replace(rule, body=Conjunction(rule.span, (atom, rule.body)))
