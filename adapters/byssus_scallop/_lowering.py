"""From the items of a program to what the engine runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

from byssus import ByssusError, ProgramError

from . import _csv
from ._blackbox import BlackBoxDeclaration
from ._declarations import Declarations, Variant, placed
from ._elaboration import (
    All,
    AnyOf,
    Core,
    CoreAtom,
    CoreGenerator,
    CoreNew,
    CoreNot,
    CoreParse,
    CoreReduce,
    CoreRule,
    CoreTest,
    Elaboration,
    Facts,
    Typed,
    core_variables,
    typed_variables,
)
from ._entities import EntityText, entity_of, text_of
from ._functions import FUNCTIONS
from ._inference import Cell, Inference
from ._ir import (
    Aggregate,
    Apply,
    BlackBoxRelation,
    Const,
    Fact,
    Program,
    Query,
    Relation,
    Rule,
    Term,
    Var,
)
from ._loading import beside, load
from ._operators import operator
from ._planning import (
    Ask,
    Atom,
    Equal,
    Generator,
    Literal,
    Negated,
    PlannedRule,
    Reversible,
    Test,
    Ungrounded,
    literal_variables,
    plan,
    reorder,
    variables,
)
from ._predicates import PREDICATES
from ._strata import dependencies, strata
from ._syntax import FactSet, Item, Span
from ._types import FAMILIES, RANGES, castable
from ._values import Dropped, cast, convert, literal
from .foreign import ForeignFunction, ForeignPredicate

__all__ = ["Lowered", "load", "lower", "reorder", "strata"]

_PARSE_ENTITY = ForeignFunction(
    "parse_entity", ("String",), "Entity", lambda arguments, result: lambda text: text
)
"""Its result is the text: what gives an entity may give its text, which is read afterwards."""

_ALTERNATIVES = 16
"""From so many alternatives of a body on, some are put into a relation of their own."""

_MOST_ALTERNATIVES = 4096


@dataclass(frozen=True)
class Lowered:
    """A program, ready for the engine.

    Attributes:
        program: what the engine runs.
        constants: the values of the program's constants.
        variants: of its algebraic data types, by functor.
        warnings: what is likely a mistake in it.
        undefined: relations that are used but neither derived nor declared, with the error.
    """

    program: Program
    constants: Mapping[str, Hashable]
    variants: Mapping[str, Variant]
    warnings: tuple[str, ...] = ()
    undefined: Mapping[str, ProgramError] = field(default_factory=dict)

    def convert(self, relation: str, values: Sequence[Any]) -> tuple[Hashable, ...]:
        """A tuple of Python values as the engine holds it.

        An entity may be given as its text, `"Cons(1, Nil())"`; see `entities`.

        Raises:
            ByssusError: it does not fit the relation.
        """
        types = self._types(relation, values)
        return tuple(
            [
                self._value(value, kind, f"argument {i} of {relation}")
                for i, (value, kind) in enumerate(zip(values, types, strict=True), 1)
            ]
        )

    check_tuple = convert

    def _types(self, relation: str, values: Sequence[Any]) -> tuple[str, ...]:
        types = self.program.relations[relation].types
        if len(values) != len(types):
            raise ByssusError(
                f"a tuple of {relation} has {len(types)} values ({', '.join(types)}), and "
                f"{tuple(values)!r} has {len(values)}"
            )
        return types

    def _value(self, value: Any, kind: str, what: str) -> Hashable:
        if kind == "Entity" and isinstance(value, str):
            return self._text(value, what).entity
        return convert(value, kind, what)  # type: ignore[no-any-return]

    def _text(self, value: str, what: str) -> EntityText:
        try:
            return EntityText.parse(value, self.variants)
        except Dropped as error:
            raise ByssusError(f"{what} is an Entity, and {value!r} is none: {error}") from None

    def entities(self, relation: str, values: Sequence[Any]) -> list[Fact]:
        """The facts that say what the entities are that a tuple gives as texts."""
        types = self._types(relation, values)
        facts = []
        for i, (value, kind) in enumerate(zip(values, types, strict=True), 1):
            if kind == "Entity" and isinstance(value, str):
                text = self._text(value, f"argument {i} of {relation}")
                facts += [
                    Fact(self.variants[functor].relation, row)
                    for functor, rows in text.parts.items()
                    for row in rows
                ]
        return facts


def lower(
    items: Sequence[Item],
    *,
    functions: Mapping[str, ForeignFunction] = FUNCTIONS,
    predicates: Mapping[str, ForeignPredicate] = PREDICATES,
    relations: Mapping[str, tuple[str, ...]] | None = None,
    blackboxes: Mapping[str, BlackBoxDeclaration] | None = None,
    attributes: Collection[str] = (),
    allow_undefined: bool = False,
) -> Lowered:
    """Lower a program.

    Args:
        items: the program.
        functions: foreign functions by name, the standard ones among them.
        predicates: foreign predicates by name, the standard ones among them.
        relations: relations that are declared elsewhere: their types, by name.
        blackboxes: the declarations of black boxes, which are not among the items.
        attributes: names of attributes on the items that have been dealt with.
        allow_undefined: do not raise for relations that are used but neither derived nor declared,
            which are then empty (`Lowered.undefined`).

    Raises:
        ProgramError: there is a fault in the program; it shows the place.
    """
    boxes = {}
    for box in (blackboxes or {}).values():
        boxes["$" + box.name if box.function else box.name] = box
    functions = {_PARSE_ENTITY.name: _PARSE_ENTITY, **functions}
    declarations = Declarations(
        items,
        handled=attributes,
        blackboxes=boxes,
        functions=functions,
        predicates=predicates,
    )
    declarations.read(relations or {})
    called = {box.name for box in boxes.values() if box.function}
    elaboration = Elaboration(declarations, Inference(), functions, predicates, called)
    elaboration.declare()
    for name, box in boxes.items():
        if name in elaboration.relations:
            raise box.span.error(f"the relation `{name}` is declared twice, once as a black box")
        elaboration.add_relation(name, box.types, box.span)
    for position, item in enumerate(items):
        elaboration.item(item, position)
    undefined = elaboration.check_known()
    for error in undefined.values():
        if not allow_undefined:
            raise error
    elaboration.types.solve()
    return _Lowering(declarations, elaboration, boxes).run(undefined)


_FACTS: WeakKeyDictionary[FactSet, tuple[Hashable, tuple[Fact, ...]]] = WeakKeyDictionary()


class _Lowering:
    """Makes rules in normal form out of typed ones."""

    def __init__(
        self,
        declarations: Declarations,
        elaboration: Elaboration,
        boxes: Mapping[str, BlackBoxDeclaration],
    ) -> None:
        self.declarations = declarations
        self.elaboration = elaboration
        self.boxes = boxes
        self.types = elaboration.types
        self.relations: dict[str, Relation] = {}
        self.rules: list[PlannedRule] = []
        self.facts: list[Fact] = []
        self.aggregates: list[Aggregate] = []
        self.constants: dict[str, Hashable] = {}
        self.entity_facts: dict[Fact, None] = {}
        self.warnings = list(elaboration.warnings)
        self.number = 0
        self.contexts = 0
        self.terms: dict[Typed, Term] = {}
        self.sums: dict[int, tuple[Term, str, tuple[int, int]]] = {}
        self.cells: dict[str, Cell] = {}
        self.made: dict[str, Const] = {}
        self.sources: dict[Literal, Core] = {}
        self.entities: dict[Literal, CoreNew | CoreParse] = {}
        self.projections: dict[str, str] = {}
        self.reduced: dict[CoreReduce, tuple[str, tuple[Term | None, ...]]] = {}
        self.derived: set[Hashable] = set()
        self.rule: CoreRule

    def run(self, undefined: Mapping[str, ProgramError]) -> Lowered:
        self.make_relations()
        self.make_constants()
        self.make_facts()
        for rule in self.elaboration.rules:
            self.lower_rule(rule)
        rules = self.stratified()
        program = Program(
            self.relations,
            tuple(rules),
            (*self.entity_facts, *self.facts),
            tuple(self.aggregates),
            tuple(self.make_boxes()),
            self.make_queries(undefined),
        )
        return Lowered(
            program,
            self.constants,
            self.declarations.variants,
            tuple(dict.fromkeys(self.warnings)),
            undefined,
        )

    # Relations, constants, facts

    def make_relations(self) -> None:
        declared = self.declarations
        for name, (cells, _) in self.elaboration.relations.items():
            types = tuple([self.types.type(cell) for cell in cells])
            columns: tuple[str | None, ...] = ()
            if name in declared.relations:
                columns = declared.relations[name].columns
            elif name in self.boxes:
                columns = self.boxes[name].columns
            hidden = name in declared.hidden or name.startswith("$")
            self.relations[name] = Relation(name, types, hidden, columns if any(columns) else ())
            demand = declared.demands.get(name)
            if demand is None:
                continue
            if len(demand.pattern) != len(types):
                raise demand.span.error(
                    f"arity mismatch for demand pattern `{demand.pattern}` of `{name}`. Expected "
                    f"{len(types)} letters, found {len(demand.pattern)}"
                )
            bound = tuple([types[i] for i in self.demanded(name)])
            self.add_relation(self.demand_name(name), bound)
        for name, demand in declared.demands.items():
            if name not in self.relations:
                raise demand.span.error(f"nothing derives the on-demand relation `{name}`")

    def demanded(self, name: str) -> tuple[int, ...]:
        """The bound columns of an on-demand relation."""
        pattern = self.declarations.demands[name].pattern
        return tuple([i for i, letter in enumerate(pattern) if letter == "b"])

    @staticmethod
    def demand_name(name: str) -> str:
        return f"d#{name}"

    def add_relation(self, name: str, types: tuple[str, ...]) -> None:
        """A hidden relation."""
        self.relations[name] = Relation(name, types, True)

    def new_name(self, kind: str) -> str:
        self.number += 1
        return f"{kind}#{self.number}"

    def make_constants(self) -> None:
        for name, typed in self.elaboration.constants.items():
            try:
                self.constants[name] = self.evaluate(typed)
            except Dropped as error:
                raise typed.span.error(f"the constant `{name}` has no value: {error}") from None

    def evaluate(self, root: Typed) -> Hashable:
        """The value of an expression of constants; its entities become facts."""
        order, stack = [], [root]
        while stack:
            node = stack.pop()
            order.append(node)
            stack.extend(node.arguments)
        done: dict[Typed, Hashable] = {}
        for node in reversed(order):
            values = tuple([done[one] for one in node.arguments])
            if node.kind == "entity":
                variant = self.declarations.variants[node.name]
                entity = entity_of(variant, values)
                self.entity_facts[Fact(variant.relation, (entity, *values))] = None
                done[node] = entity
            else:
                term = self.applied(node, tuple(map(Const, values)))
                done[node] = term.function(*values) if isinstance(term, Apply) else _value(term)
        return done[root]

    def make_facts(self) -> None:
        for fact in self.elaboration.facts:
            values = tuple([_value(self.term(one)) for one in fact.arguments])
            tag = None if fact.tag is None else _tag(fact.tag.value, fact.tag.span)
            self.facts.append(Fact(fact.relation, values, tag))
        for facts in self.elaboration.sets:
            self.facts += self.fact_set(facts)
        for name, declared in self.declarations.relations.items():
            if declared.file is not None:
                path = declared.file
                self.facts += _file_facts(name, path.path, declared.types, path.options, path.span)

    def fact_set(self, facts: Facts) -> tuple[Fact, ...]:
        types = self.relations[facts.relation].types
        named = tuple(
            [(i, self.term(one)) for column in facts.columns for i, one in column.named.items()]
        )
        key = types, facts.group, repr(named)
        known = _FACTS.get(facts.syntax)
        if known is not None and known[0] == key:
            return known[1]
        columns = [
            self.values(column, kind) for column, kind in zip(facts.columns, types, strict=True)
        ]
        rows = zip(*columns, strict=True) if columns else [()] * len(facts.syntax.tuples)
        found = tuple(
            [
                Fact(facts.relation, row, None if t is None else _tag(t.value, t.span), facts.group)
                for row, (t, _, _) in zip(rows, facts.syntax.tuples, strict=True)
            ]
        )
        _FACTS[facts.syntax] = key, found
        return found

    def values(self, column: Any, kind: str) -> list[Hashable]:
        """The values of a column of a fact set."""
        if set(column.kinds) <= {"int", "negative"} and kind in RANGES and not column.variables:
            values = [node.value for node in column.nodes]
            low, high = RANGES[kind]
            if low <= min(values) and max(values) <= high:
                return values
        found: list[Hashable] = []
        known: dict[Hashable, Hashable] = {}
        for i, node in enumerate(column.nodes):
            if i in column.named:
                found.append(_value(self.term(column.named[i])))
                continue
            key = node.kind, node.value
            if key not in known:
                known[key] = self.constant(node.kind, node.value, kind, node.span)
            found.append(known[key])
        return found

    def make_queries(self, undefined: Collection[str]) -> tuple[Query, ...]:
        found: dict[str, Query] = {}
        for relation, name, position, span in self.elaboration.queries:
            if relation not in self.relations:
                if relation in undefined:
                    continue
                raise span.error(
                    f"nothing says which columns `{relation}` has; declare it, as in "
                    f"`type {relation}(i32)`"
                )
            file = self.declarations.outputs.get(position)
            before = found.get(name)
            if before is None or file is not None:
                found[name] = Query(relation, name, file)
        return tuple(found.values())

    def make_boxes(self) -> Iterable[BlackBoxRelation]:
        for name, box in self.boxes.items():
            for over in box.over:
                if over not in self.relations:
                    raise box.span.error(
                        f"the black box `{name}` is over `{over}`, which is no relation"
                    )
            asked = None if box.over else f"asked#{name}"
            yield BlackBoxRelation(
                name,
                asked,
                box.box,
                box.bound,
                len(box.types) - box.bound,
                box.span,
                box.convert,
                box.over,
                box.samples,
            )
            if asked is not None and asked not in self.relations:
                self.add_relation(asked, box.types[: box.bound])

    # Terms

    def constant(self, kind: str, value: Any, target: str, span: Span) -> Hashable:
        try:
            found: Hashable = literal(kind, value, target)
        except ByssusError as error:
            raise placed(span, error) from None
        return found

    def term(self, root: Typed) -> Term:
        """A typed expression as a term."""
        if root in self.terms:
            return self.terms[root]
        order, stack = [], [root]
        while stack:
            node = stack.pop()
            if node not in self.terms:
                order.append(node)
                stack.extend(node.arguments)
        for node in reversed(order):
            if node not in self.terms:
                arguments = tuple([self.terms[one] for one in node.arguments])
                self.terms[node] = self.applied(node, arguments)
        return self.terms[root]

    def applied(self, node: Typed, arguments: tuple[Term, ...]) -> Term:
        """A term out of the terms of its arguments."""
        kind = node.kind
        if kind == "var":
            self.cells[node.name] = node.cell
            return Var(node.name)
        if kind == "const":
            target = self.types.type(node.cell)
            return Const(self.constant(node.name, node.value, target, node.span), target)
        if kind == "constant":
            return Const(self.constants[node.name], self.types.type(node.cell))
        types = tuple([self.types.type(one.cell) for one in node.arguments])
        result = self.types.type(node.cell)
        if kind in ("binary", "unary"):
            return self.operation(node.name, types, arguments, node.span)
        if kind == "cast":
            (source,) = types
            if not castable(source, node.name):
                raise node.span.error(f"cannot cast type from `{source}` to `{node.name}`")
            return Apply(cast(source, node.name), arguments, kind=node.name)
        if kind == "if":
            return _conditional(arguments, result)
        function = self.elaboration.functions[node.name]
        called = function.implement(types, result)
        if function.result == "Entity":
            return Apply(lambda *values: text_of(called(*values)), arguments, kind="String")
        return Apply(called, arguments, kind=result)

    def operation(
        self, op: str, types: tuple[str, ...], arguments: tuple[Term, ...], span: Span
    ) -> Term:
        """An operator applied to terms; sums and differences can be solved for their operands."""
        try:
            found = operator(op, types)
        except ByssusError as error:
            raise placed(span, error) from None
        if op not in ("+", "-") or len(types) != 2 or "String" in types:
            return Apply(found.function, arguments, found.source, found.result, found.written)
        left, right = types
        if op == "+":
            solve = (_solver("-", (found.result, right)), _solver("-", (found.result, left)))
        else:
            solve = (_solver("+", (found.result, right)), _solver("-", (left, found.result), True))
        term = Reversible(
            found.function, arguments, found.source, found.result, found.written, solve
        )
        if found.result in RANGES:
            self.sums[id(term)] = term, op, RANGES[found.result]
        return term

    def column(self, term: Term | None) -> Term | None:
        """A term as a column of an atom: what is equal to no integer equals no column."""
        if not isinstance(term, Reversible) or id(term) not in self.sums:
            return term
        chain: list[Reversible] = []
        arguments: tuple[Term, ...] = ()
        node: Term = term
        while isinstance(node, Reversible) and id(node) in self.sums:
            chain.append(node)
            inner = [one for one in node.arguments if isinstance(one, Apply)]
            if len(inner) != 1:
                break
            (node,) = inner
        found: Term | None = None
        for one in reversed(chain):
            _, op, bounds = self.sums[id(one)]
            arguments = tuple(
                [found if found is not None and isinstance(a, Apply) else a for a in one.arguments]
            )
            solve = _exact_solvers(op, bounds, one.kind)
            found = Reversible(_exact(op, bounds), arguments, None, one.kind, None, solve, True)
        return found

    def types_of(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple([self.types.type(self.cells[name]) for name in names])

    # Rules

    def lower_rule(self, rule: CoreRule) -> None:
        self.rule = rule
        self.cells, self.made = {}, {}
        head = tuple([self.term(one) for one in rule.arguments])
        for one in _all_typed(rule.body):
            self.cells[one.name] = one.cell
        tag = None if rule.tag is None else self.tag(rule.tag)
        key = tuple([self.term(one) for one in rule.key])
        needed = {n for t in (*head, *key) for n in variables(t)} | set(variables(tag))
        demand: list[Literal] = []
        if rule.head in self.declarations.demands:
            bound = tuple([self.column(head[i]) for i in self.demanded(rule.head)])
            demand = [Atom(self.demand_name(rule.head), bound, rule.span, first=True)]
        for i, part in enumerate(self.alternatives(rule.body, needed, set())):
            literals = self.body(part, needed, demand)
            exact = key
            if tag is not None and rule.exclusive is None:
                # What exists, exists once, by whichever of its variables.
                local = {
                    typed.name
                    for body, outside in rule.inlined
                    for typed in _all_typed(body)
                    if typed.name not in outside
                }
                own = {n for one in literals for n in literal_variables(one)} - local | needed
                exact = (Const(i), *(Var(name) for name in sorted(own)))
            self.add_rule(
                rule.head,
                head,
                literals,
                rule.span,
                tag=tag,
                exclusive=rule.exclusive,
                key=exact,
                typed=(*rule.arguments, *rule.key, *(() if rule.tag is None else (rule.tag,))),
            )

    def tag(self, typed: Typed) -> Term:
        """The probability of a rule."""
        kind = self.types.type(typed.cell)
        if kind != "bool" and kind not in FAMILIES["Number"]:
            raise typed.span.error(
                f"A value of type `{kind}` cannot be casted into a dynamic tag; a tag is a number "
                "or a bool"
            )
        if typed.kind == "const":
            return Const(_tag(typed.value, typed.span))
        term = self.term(typed)
        if kind in ("bool", "f64", "f32"):
            return term
        return Apply(cast(kind, "f64"), (term,), kind="f64")

    def add_rule(
        self,
        head: str,
        terms: tuple[Term, ...],
        literals: Sequence[Literal],
        span: Span,
        *,
        tag: Term | None = None,
        exclusive: tuple[int, int, int] | None = None,
        key: tuple[Term, ...] = (),
        typed: Sequence[Typed] = (),
        certain: bool = False,
    ) -> None:
        """A rule; and those that derive what its literals ask for, and its entities."""
        try:
            planned = plan(literals)
        except Ungrounded as error:
            raise self.ungrounded(error) from None
        for term in (*terms, *key, tag):
            for name in variables(term):
                if name not in planned.bound:
                    raise self.head_error(name, typed, span)
        self.rules.append(
            PlannedRule(
                head,
                terms,
                tuple(planned.steps),
                span,
                tag,
                exclusive,
                key,
                certain,
                literals=tuple(literals),
            )
        )
        order = [literals[i] for i in planned.order]
        self.ask(literals, order)
        for position, one in enumerate(order):
            if one in self.entities:
                self.derive_entities(one, order, position)

    def warn(self, span: Span, message: str) -> None:
        self.warnings.append(str(span.error(message)))

    def ask(self, literals: Sequence[Literal], order: Sequence[Literal]) -> None:
        """Rules that derive what the literals of a body ask for."""
        asking = [one for one in literals if isinstance(one, Atom | Negated) and one.ask]
        if not asking:
            return
        base = [one for one in literals if one not in asking]
        demanding = [one for one in asking if one.ask is not None and one.ask.certain]
        # As in Scallop, demand follows from all that it need not wait for.
        while demanding:
            planned = plan(base, partial=True)
            ready = [
                one
                for one in demanding
                if one.ask is not None
                and all(name in planned.bound for term in one.ask.terms for name in variables(term))
            ]
            if not ready:
                break
            before = [base[i] for i in planned.order]
            for one in ready:
                assert one.ask is not None
                self.derive_ask(one.ask, _connected(before, one.ask.terms), one.span)
            demanding = [one for one in demanding if one not in ready]
            base += [one for one in ready if isinstance(one, Atom)]
        for one in demanding:
            self.warn(
                one.span,
                f"`{one.relation}` is on demand, but nothing binds its bound arguments here: only "
                "what is demanded elsewhere is found",
            )
        # A black box is asked as little as possible: where all else holds that can be known before.
        for one in asking:
            if one.ask is None or one.ask.certain:
                continue
            # But not where the same box says no, for which it would wait for itself.
            earlier = {
                other
                for other in order[: order.index(one)]
                if not (isinstance(other, Negated) and other.relation == one.relation)
            }
            guard = [
                other
                for other in literals
                if other in earlier
                or not (isinstance(other, Atom | Negated) and other.ask is not None)
            ]
            planned = plan(guard, partial=True)
            needed = [name for term in one.ask.terms for name in variables(term)]
            if missing := [name for name in needed if name not in planned.bound]:
                raise self.ungrounded(Ungrounded(one, missing))
            self.derive_ask(one.ask, [guard[i] for i in planned.order], one.span)

    def derive_ask(self, ask: Ask, before: Sequence[Literal], span: Span) -> None:
        """A rule that derives what is asked for, if it is not known anyway."""
        known = _flat(ask.terms) and any(
            isinstance(one, Atom) and one.relation == ask.relation and one.terms == ask.terms
            for one in before
        )
        if not known:
            self.derive(ask.relation, ask.terms, before, span, ask.certain)

    def derive(
        self,
        head: str,
        terms: tuple[Term, ...],
        literals: Sequence[Literal],
        span: Span,
        certain: bool,
    ) -> None:
        """A rule for a hidden relation, once."""
        key = head, terms if _flat(terms) else tuple(map(id, terms)), tuple(map(id, literals))
        if key not in self.derived:
            self.derived.add(key)
            steps = tuple(plan(literals).steps)
            self.rules.append(
                PlannedRule(head, terms, steps, span, certain=certain, literals=tuple(literals))
            )

    def derive_entities(self, literal: Literal, order: Sequence[Literal], position: int) -> None:
        """The tuples of variants that describe the entities that a literal makes."""
        core = self.entities[literal]
        span = core.span
        if isinstance(core, CoreNew):
            made = self.made.get(core.result.name) or self.term(core.result)
            terms = (made, *self.entity_arguments(core))
            body = self.without_other_entities(terms, order if core.head else order[: position + 1])
            self.derive(core.variant.relation, terms, body, span, True)
            return
        # An entity that comes as text may have parts of any variant.
        raw = self.term(core.raw)
        for variant in self.declarations.variants.values():
            names = tuple([Var(f"@{i}#") for i in range(len(variant.types) + 1)])
            function = self._parts(variant)
            kinds = ("String", "Entity", *variant.types)
            parts = Generator(f"parts of {variant.name}", function, (raw,), names, span, kinds)
            self.derive(variant.relation, names, [*order[: position + 1], parts], span, True)

    def without_other_entities(
        self, terms: Sequence[Term], order: Sequence[Literal]
    ) -> list[Literal]:
        """A body without the new entities that neither it nor some terms are made of."""
        makers: dict[str, Literal] = {}
        plain: list[Literal] = []
        for one in order:
            if one in self.entities and isinstance(one, Equal) and isinstance(one.left, Var):
                makers[one.left.name] = one
            else:
                plain.append(one)
        if not makers:
            return plain
        stack = [name for term in terms for name in variables(term)]
        stack += [name for one in plain for name in literal_variables(one)]
        needed: set[Literal] = set()
        while stack:
            maker = makers.get(stack.pop())
            if maker is not None and maker not in needed:
                needed.add(maker)
                stack += literal_variables(maker)
        return [*plain, *(one for one in makers.values() if one in needed)]

    def _parts(self, variant: Variant) -> Callable[[Any], Any]:
        variants = self.declarations.variants

        def parts(raw: str) -> list[tuple[None, tuple[Hashable, ...]]]:
            rows = EntityText.read(raw, variants).parts.get(variant.name, ())
            return [(None, row) for row in rows]

        return parts

    # Bodies

    def alternatives(
        self, root: Core, needed: Collection[str], outside: set[str]
    ) -> list[list[Core]]:
        """The bodies, of literals, that a formula stands for.

        Args:
            root: the formula.
            needed: variables that the head uses.
            outside: variables of what else the formula is a part of.
        """
        if isinstance(root, AnyOf):
            return [one for part in root.parts for one in self.alternatives(part, needed, outside)]
        if not isinstance(root, All):
            return [[root]]
        plain: list[tuple[int, list[Core]]] = []
        several: list[tuple[int, list[list[Core]]]] = []
        names = [core_variables(part) for part in root.parts]
        shared = Counter(name for some in names for name in some)
        for i, part in enumerate(root.parts):
            if not isinstance(part, All | AnyOf):
                plain.append((i, [part]))
                continue
            others = {name for name, count in shared.items() if count > (name in names[i])}
            found = self.alternatives(part, needed, outside | others)
            if len(found) == 1:
                plain.append((i, found[0]))
            else:
                several.append((i, found))
        products = [plain]
        for at, (i, found) in enumerate(several):
            if len(products) > 1 and len(products) * len(found) > _ALTERNATIVES:
                later = {n for j, _ in several[at:] for n in names[j]}
                products = self.factored(products, {*needed, *outside, *later})
            products = [[*one, (i, more)] for one in products for more in found]
            if len(products) > _MOST_ALTERNATIVES:
                raise self.rule.span.error(
                    f"the body has more than {_MOST_ALTERNATIVES} alternatives; derive its "
                    "disjunctions as relations of their own"
                )
        return [
            [one for _, some in sorted(product, key=lambda p: p[0]) for one in some]
            for product in products
        ]

    def factored(
        self, products: list[list[tuple[int, list[Core]]]], needed: Collection[str]
    ) -> list[list[tuple[int, list[Core]]]]:
        """Bodies as one atom of a new relation that they derive, where they can stand alone."""
        bodies = [[one for _, some in product for one in some] for product in products]
        inside = {name for body in bodies for one in body for name in core_variables(one)}
        kept = tuple(sorted(inside & set(needed)))
        state = self.state()
        name = self.new_name("or")
        terms = tuple(map(Var, kept))
        try:
            for body in bodies:
                literals = self.body(body, kept, ())
                if not set(kept) <= plan(literals).bound:
                    self.restore(state)
                    return products
                self.add_rule(name, terms, literals, self.rule.span)
        except (Ungrounded, ProgramError):
            self.restore(state)
            return products
        self.add_relation(name, self.types_of(kept))
        arguments = tuple([Typed("var", one, (), self.cells[one], self.rule.span) for one in kept])
        return [[(-1, [CoreAtom(name, arguments, False, self.rule.span)])]]

    def state(self) -> tuple[Any, ...]:
        return (
            len(self.rules),
            len(self.aggregates),
            len(self.warnings),
            set(self.derived),
            dict(self.relations),
            dict(self.projections),
            dict(self.reduced),
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        rules, aggregates, warnings, self.derived, self.relations, self.projections, reduced = state
        del self.rules[rules:], self.aggregates[aggregates:], self.warnings[warnings:]
        self.reduced = reduced

    def body(
        self, parts: Sequence[Core], needed: Collection[str], given: Sequence[Literal]
    ) -> list[Literal]:
        """The literals of a conjunction.

        Args:
            parts: of the conjunction.
            needed: variables that are used outside of it.
            given: literals that it begins with.
        """
        counts = Counter(name for part in parts for name in core_variables(part))
        counts.update(needed)
        counts.update(name for one in given for name in literal_variables(one))
        out = list(given)
        deferred: list[CoreNot | CoreReduce] = []
        for part in parts:
            if isinstance(part, CoreNot | CoreReduce):
                deferred.append(part)
            else:
                self.add_literal(part, counts, out)
        for one in deferred:
            if isinstance(one, CoreNot):
                self.add_not(one, counts, out)
            else:
                self.add_reduce(one, counts, out)
        return out

    def add_literal(self, part: Core, counts: Mapping[str, int], out: list[Literal]) -> None:
        if isinstance(part, CoreAtom):
            if part.negated:
                self.note(self.negated(part, counts), part, out)
            else:
                self.note(self.atom(part), part, out)
        elif isinstance(part, CoreGenerator):
            for one in self.generator(part):
                self.note(one, part, out)
        elif isinstance(part, CoreTest):
            expression = part.expression
            if expression.kind == "binary" and expression.name == "==":
                left, right = map(self.term, expression.arguments)
                self.note(Equal(left, right, part.span), part, out)
            else:
                self.note(Test(self.term(expression), part.span), part, out)
        elif isinstance(part, CoreNew):
            literal = Equal(self.term(part.result), self.new_entity(part), part.span)
            self.entities[literal] = part
            self.note(literal, part, out)
        else:
            assert isinstance(part, CoreParse)
            literal = Equal(self.term(part.result), self.parsed(self.term(part.raw)), part.span)
            self.entities[literal] = part
            self.note(literal, part, out)

    def note(self, literal: Literal, source: Core, out: list[Literal]) -> None:
        self.sources[literal] = source
        out.append(literal)

    def new_entity(self, part: CoreNew) -> Term:
        """The entity that is made; at once, if it is made of constants."""
        variant = part.variant
        arguments = self.entity_arguments(part)
        values = [one.value for one in arguments if isinstance(one, Const)]
        if len(values) < len(arguments):
            return Apply(lambda *values: entity_of(variant, values), arguments, kind="Entity")
        self.made[part.result.name] = Const(entity_of(variant, values), "Entity")
        return self.made[part.result.name]

    def entity_arguments(self, part: CoreNew) -> tuple[Term, ...]:
        return tuple([self.made.get(one.name) or self.term(one) for one in part.arguments])

    def parsed(self, raw: Term) -> Term:
        """The entity that a text is that of."""
        variants = self.declarations.variants
        return Apply(lambda text: EntityText.read(text, variants).entity, (raw,), kind="Entity")

    def atom(self, part: CoreAtom) -> Atom:
        name = part.relation
        plain = tuple([None if one.kind == "wild" else self.term(one) for one in part.arguments])
        terms = tuple(map(self.column, plain))
        box = self.boxes.get(name)
        if box is not None and not box.over:
            bound = tuple(range(box.bound))
            self.check_inputs(part, terms[: box.bound], f"black box `{name}`")
            inputs = tuple([term for term in plain[: box.bound] if term is not None])
            asked = self.asked(name, box)
            return Atom(name, terms, part.span, Ask(asked, inputs, False), bound, True)
        if name not in self.declarations.demands:
            return Atom(name, terms, part.span)
        bound = self.demanded(name)
        wanted = tuple([plain[i] for i in bound])
        ask = None
        if all(term is not None for term in wanted):
            ask = Ask(self.demand_name(name), wanted, True)  # type: ignore[arg-type]
        else:
            self.warn(
                part.span,
                f"`{name}` is on demand, but a bound argument is a wildcard here: only what is "
                "demanded elsewhere is found",
            )
            bound = ()
        return Atom(name, terms, part.span, ask, bound)

    def asked(self, name: str, box: BlackBoxDeclaration) -> str:
        asked = f"asked#{name}"
        if asked not in self.relations:
            self.add_relation(asked, box.types[: box.bound])
        return asked

    def check_inputs(self, part: CoreAtom | CoreGenerator, terms: Sequence[Any], what: str) -> None:
        for one, term in zip(part.arguments, terms, strict=False):
            if term is None:
                raise one.span.error(
                    f"argument of the {what} is ungrounded: it is an input, and needs a value"
                )

    def generator(self, part: CoreGenerator) -> list[Literal]:
        """A foreign predicate; entities that it gives as text are looked up."""
        predicate = part.predicate
        terms = [None if one.kind == "wild" else self.term(one) for one in part.arguments]
        self.check_inputs(part, terms[: predicate.bound], f"foreign predicate `{predicate.name}`")
        function = predicate.implement(tuple([self.types.type(one) for one in part.generics]))
        kinds = [self.types.type(one.cell) for one in part.arguments]
        after: list[Literal] = []
        for i in range(predicate.bound, len(terms)):
            term = terms[i]
            if predicate.types[i] == "Entity":
                kinds[i] = "String"
            if predicate.types[i] == "Entity" and term is not None:
                name = f"{self.new_name('@raw')}"
                raw = Typed("var", name, (), part.arguments[i].cell, part.span)
                terms[i] = self.term(raw)
                core = CoreParse(part.arguments[i], raw, part.span)
                literal = Equal(term, self.parsed(self.term(raw)), part.span)
                self.entities[literal] = core
                after.append(literal)
        inputs = tuple([term for term in terms[: predicate.bound] if term is not None])
        outputs = tuple(terms[predicate.bound :])
        if "Entity" in predicate.types[predicate.bound :]:
            function = _texts_of(function, predicate.types[predicate.bound :])
        name = predicate.name
        return [Generator(name, function, inputs, outputs, part.span, tuple(kinds)), *after]

    def negated(self, part: CoreAtom, counts: Mapping[str, int]) -> Negated:
        """A negated atom; of variables that occur nowhere else there must be no values at all."""
        positive = self.atom(replace_negated(part))
        own = Counter(name for one in part.arguments for name in _names(one))
        local = {name for name in own if counts[name] == 1}
        terms = positive.terms
        pattern: list[str] = []
        kept: list[Term] = []
        for term in terms:
            names = set(variables(term))
            if term is None:
                pattern.append("_")
            elif isinstance(term, Var) and term.name in local:
                pattern.append("_" if own[term.name] == 1 else term.name)
            elif names & local:
                name = next(iter(names & local))
                raise self.place(part, name).error(
                    f"argument of a negated atom is ungrounded: nothing binds "
                    f"`{_plain(name)}`; bind it in a positive atom or an equation"
                )
            else:
                pattern.append(f"{len(kept)}")
                kept.append(term)
        relation = part.relation
        if len(kept) < len(terms):
            relation = self.projection(relation, pattern, part.span)
        return Negated(relation, tuple(kept), part.span, positive.ask)

    def projection(self, relation: str, pattern: Sequence[str], span: Span) -> str:
        """A relation of some columns of another one."""
        letters: dict[str, str] = {}
        shape = [
            p if p == "_" or p.isdigit() else letters.setdefault(p, f"x{len(letters)}")
            for p in pattern
        ]
        name = f"{relation}#{','.join(shape)}"
        if name not in self.projections:
            self.projections[name] = relation
            types = self.relations[relation].types
            kept = [i for i, p in enumerate(shape) if p.isdigit()]
            self.add_relation(name, tuple([types[i] for i in kept]))
            terms = tuple([None if p == "_" else Var(f"v{p}") for p in shape])
            head = tuple([Var(f"v{shape[i]}") for i in kept])
            # What is demanded or asked of the relation is so by those who negate it.
            self.derive(name, head, [Atom(relation, terms, span)], span, False)
        return name

    def add_not(self, part: CoreNot, counts: Mapping[str, int], out: list[Literal]) -> None:
        inside = core_variables(part)
        columns = tuple(sorted(name for name in inside if counts[name] > 1))
        name = self.subrelation("not", columns, part.formula, out, part.span)
        self.note(Negated(name, tuple(map(Var, columns)), part.span), part, out)

    # Rules of their own

    def subrelation(
        self,
        kind: str,
        columns: Sequence[str],
        formula: Core,
        context: Sequence[Literal],
        span: Span,
        name: str | None = None,
    ) -> str:
        """A hidden relation of the values of some variables for which a formula holds.

        Args:
            kind: what its name begins with.
            columns: the variables.
            formula: the formula.
            context: literals of the body that it stands in. They give values to those of its
                variables that it does not bind itself.
            span: where it stands.
            name: of the relation, if it has one already.
        """
        name = name or self.new_name(kind)
        self.add_relation(name, self.types_of(columns))
        terms = tuple(map(Var, columns))
        for part in self.alternatives(formula, columns, set()):
            literals = self.body(part, columns, ())
            planned = plan(literals, partial=True)
            lacking = {*columns} - planned.bound
            if lacking or planned.left or planned.relaxed:
                passed = self.passed(columns, lacking, literals, context)
                if passed is not None:
                    literals = self.body(part, columns, [passed])
            self.add_rule(name, terms, literals, span)
        return name

    def passed(
        self,
        columns: Sequence[str],
        lacking: Collection[str],
        literals: Sequence[Literal],
        context: Sequence[Literal],
    ) -> Atom | None:
        """An atom that gives values to variables, as many as are needed and the context has."""
        planned = plan(context, partial=True)
        used = {name for one in literals for name in literal_variables(one)}.union(lacking)
        shared = tuple([n for n in columns if n in planned.bound and n in used])
        if not shared:
            return None
        terms = tuple(map(Var, shared))
        order = _connected([context[i] for i in planned.order], terms)
        name = self.new_name("given")
        self.contexts += 1
        self.add_relation(name, self.types_of(shared))
        self.derive(name, terms, order, context[0].span, True)
        return Atom(name, terms, context[0].span, first=True)

    def add_reduce(self, part: CoreReduce, counts: Mapping[str, int], out: list[Literal]) -> None:
        if part.absent and part.group and part.where is None:
            # With the groups known, it is a negation; as an aggregation it has no empty groups.
            bound = plan(out, partial=True).bound
            if set(part.group) <= bound:
                name = self.subrelation("some", part.group, part.body, out, part.span)
                self.note(Negated(name, tuple(map(Var, part.group)), part.span), part, out)
                return
        if part in self.reduced:
            name, terms = self.reduced[part]
        else:
            before = self.contexts
            name, terms = self.aggregate(part, out)
            # What was given to it from this body does not fit another alternative of it.
            if self.contexts == before:
                self.reduced[part] = name, terms
        self.note(Atom(name, terms, part.span), part, out)

    def aggregate(
        self, part: CoreReduce, out: Sequence[Literal]
    ) -> tuple[str, tuple[Term | None, ...]]:
        """The relation of an aggregation, and its columns."""
        name = self.new_name("agg")
        span = part.span
        context = list(out)
        columns = [*part.group, *part.other]
        groups: str | None = None
        if part.where is not None:
            groups = self.subrelation("", columns, part.where, out, span, f"{name}#groups")
            context.append(Atom(groups, tuple(map(Var, columns)), span))
        elif part.domain is not None:
            groups = self.subrelation("", part.group, part.domain, out, span, f"{name}#groups")
        aggregated = (*part.arguments, *part.bindings)
        body = self.subrelation(
            "",
            (*part.group, *(one.name for one in aggregated)),
            part.body,
            context,
            span,
            f"{name}#body",
        )
        types = tuple([self.types.type(one.cell) for one in aggregated])
        results = tuple([self.types.type(one.cell) for one in part.results])
        self.add_relation(name, (*self.types_of(columns), *results))
        syntax = part.syntax
        self.aggregates.append(
            Aggregate(
                name,
                part.operator,
                tuple([one.value for one in syntax.parameters]),
                {key: one.value for key, one in syntax.named.items()},
                syntax.single_world,
                body,
                len(part.group),
                len(part.arguments),
                types,
                span,
                groups,
                len(part.other),
            )
        )
        terms = [None if one.kind == "wild" else self.term(one) for one in part.results]
        return name, (*map(Var, columns), *terms)

    # Errors

    def ungrounded(self, error: Ungrounded) -> ProgramError:
        """What to say about a literal whose variables nothing binds."""
        literal = error.literal
        source = self.sources.get(literal)
        name = next(iter(error.missing), "")
        place = literal.span if source is None else self.place(source, name)
        if isinstance(literal, Negated):
            what = "argument of a negated atom is ungrounded"
        elif isinstance(literal, Generator):
            what = f"argument of the foreign predicate `{literal.name}` is ungrounded"
        elif isinstance(literal, Atom):
            what = f"argument of the black box `{literal.relation}` is ungrounded"
        else:
            what = "constraint is ungrounded"
        shown = f"`{_plain(name)}`" if _plain(name) else "what it needs"
        return place.error(
            f"{what}: nothing binds {shown}; bind it in a positive atom or an equation"
        )

    def place(self, source: Core, name: str) -> Span:
        for one in _all_typed(source):
            if one.name == name:
                return one.span
        return source.span if not isinstance(source, All | AnyOf) else self.rule.span

    def head_error(self, name: str, typed: Sequence[Typed], span: Span) -> ProgramError:
        found = (v for one in typed for v in typed_variables(one) if v.name == name)
        place = next((one.span for one in found), span)
        shown = f"`{_plain(name)}`" if _plain(name) else "it"
        what = "argument of the head of a rule" if typed else "variable of an aggregation"
        return place.error(
            f"{what} is ungrounded: nothing in the body binds {shown}; bind it in a positive atom "
            "or an equation, in every alternative"
        )

    # Strata

    def stratified(self) -> list[Rule]:
        """The rules; demand does without negation where that would make a cycle."""
        while True:
            program = Program(self.relations, tuple(self.rules), aggregates=tuple(self.aggregates))
            graph = dependencies(program)
            cyclic = graph.negative_cycles()
            if not cyclic:
                return list(self.rules)
            changed = False
            for i, rule in enumerate(self.rules):
                component = graph.component.get(rule.head)
                if not rule.head.startswith("d#") or component not in cyclic:
                    continue
                kept = [
                    one
                    for one in rule.literals
                    if not self.is_negative(one, component, graph.component)
                ]
                if len(kept) == len(rule.literals):
                    continue
                try:
                    planned = plan(_connected(kept, rule.terms))
                except Ungrounded:
                    continue
                if all(n in planned.bound for t in rule.terms for n in variables(t)):
                    self.rules[i] = replace(
                        rule,
                        steps=tuple(planned.steps),
                        literals=tuple(_connected(kept, rule.terms)),
                    )
                    changed = True
            if not changed:
                return list(self.rules)

    def is_negative(
        self, literal: Literal, component: int | None, components: Mapping[str, int]
    ) -> bool:
        """Whether a literal of a demand rule negates or aggregates what the demand is for."""
        if not isinstance(literal, Atom | Negated):
            return False
        within = components.get(literal.relation) == component
        return within and (isinstance(literal, Negated) or literal.relation.startswith("agg#"))


def replace_negated(part: CoreAtom) -> CoreAtom:
    """The positive atom of a negated one."""
    return CoreAtom(part.relation, part.arguments, False, part.span)


def _names(typed: Typed) -> Iterable[str]:
    return (one.name for one in typed_variables(typed))


def _all_typed(root: Core) -> Iterable[Typed]:
    """The variables of a formula, of aggregations in it too."""
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Typed):
            yield from typed_variables(node)
        elif isinstance(node, All | AnyOf):
            stack.extend(reversed(node.parts))
        elif isinstance(node, CoreNot):
            stack.append(node.formula)
        elif isinstance(node, CoreReduce):
            stack += [node.body, *(one for one in (node.where, node.domain) if one is not None)]
            stack += [*node.arguments, *node.bindings, *node.results]
        elif isinstance(node, CoreTest):
            stack.append(node.expression)
        elif isinstance(node, CoreNew):
            stack += [node.result, *node.arguments]
        elif isinstance(node, CoreParse):
            stack += [node.result, node.raw]
        else:
            stack.extend(reversed(node.arguments))


def _plain(name: str) -> str:
    """What a variable is called in the program; nothing if it has no name there."""
    return name.partition("@")[0].partition("#")[0]


def _value(term: Term) -> Hashable:
    assert isinstance(term, Const)
    return term.value


def _tag(value: Any, span: Span) -> float | bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    raise span.error(f"the tag {value!r} is no probability: give a number from 0 to 1, or a bool")


def _flat(terms: Sequence[Term | None]) -> bool:
    return not any(isinstance(term, Apply) for term in terms)


def _connected(literals: Sequence[Literal], terms: Sequence[Term]) -> list[Literal]:
    """The literals that have to do with some terms, by the variables that they share."""
    known = {name for term in terms for name in variables(term)}
    names = [literal_variables(one) for one in literals]
    chosen: set[int] = {i for i, some in enumerate(names) if not some}
    queue = [i for i, some in enumerate(names) if some & known]
    by_name: dict[str, list[int]] = {}
    for i, some in enumerate(names):
        for name in some:
            by_name.setdefault(name, []).append(i)
    while queue:
        i = queue.pop()
        if i in chosen:
            continue
        chosen.add(i)
        for name in names[i] - known:
            known.add(name)
            queue += by_name[name]
    return [one for i, one in enumerate(literals) if i in chosen]


def _solver(
    op: str, types: tuple[str, str], swapped: bool = False
) -> Callable[[Term, tuple[Term, ...]], Term] | None:
    """How to compute an operand of a sum or difference from the result and the other operand."""
    try:
        found = operator(op, types)
    except ByssusError:
        return None

    def solve(result: Term, others: tuple[Term, ...]) -> Term:
        (other,) = others
        operands = (other, result) if swapped else (result, other)
        return Apply(found.function, operands, found.source, found.result, found.written)

    return solve


def _exact(op: str, bounds: tuple[int, int]) -> Callable[[Any, Any], int | None]:
    """A sum or difference of integers that is None where it leaves the range."""
    low, high = bounds
    sign = 1 if op == "+" else -1

    def compute(a: Any, b: Any) -> int | None:
        if a is None or b is None:
            return None
        result: int = a + sign * b
        return result if low <= result <= high else None

    return compute


def _exact_solvers(
    op: str, bounds: tuple[int, int], kind: str
) -> tuple[Callable[[Term, tuple[Term, ...]], Term], ...]:
    """How to compute each operand of such a sum or difference."""
    low, high = bounds

    def solver(function: Callable[[Any, Any], int]) -> Callable[[Term, tuple[Term, ...]], Term]:
        def checked(result: Any, other: Any) -> int:
            found = function(result, other)
            if not low <= found <= high:
                raise Dropped("overflow")
            return found

        return lambda result, others: Apply(checked, (result, others[0]), kind=kind)

    if op == "+":
        return (solver(lambda result, other: result - other),) * 2
    left = solver(lambda result, other: result + other)
    return left, solver(lambda result, other: other - result)


def _conditional(arguments: tuple[Term, ...], kind: str) -> Term:
    """`if`: the branch that is not taken need not have a value."""
    leaves: dict[str, int] = {}
    for argument in arguments:
        for name in variables(argument):
            leaves.setdefault(name, len(leaves))
    condition, then, otherwise = (_closure(argument, leaves) for argument in arguments)

    def choose(*values: Hashable) -> Hashable:
        return then(values) if condition(values) else otherwise(values)

    return Apply(choose, tuple(map(Var, leaves)), kind=kind)


def _texts_of(function: Callable[..., Any], kinds: Sequence[str]) -> Callable[..., Any]:
    """A foreign predicate that gives all entities as texts."""

    def with_texts(*inputs: Any) -> list[tuple[Any, tuple[Hashable, ...]]]:
        return [
            (
                tag,
                tuple(
                    [
                        text_of(value) if kind == "Entity" else value
                        for kind, value in zip(kinds, outputs, strict=True)
                    ]
                ),
            )
            for tag, outputs in function(*inputs)
        ]

    return with_texts


def _closure(root: Term, leaves: Mapping[str, int]) -> Callable[[tuple[Hashable, ...]], Hashable]:
    """A term as a function of the values of its variables; it goes through it without recursion."""
    program: list[Term] = []
    stack = [root]
    while stack:
        node = stack.pop()
        program.append(node)
        if isinstance(node, Apply):
            stack.extend(node.arguments)
    program.reverse()

    def evaluate(values: tuple[Hashable, ...]) -> Hashable:
        done: list[Hashable] = []
        for node in program:
            if isinstance(node, Const):
                done.append(node.value)
            elif isinstance(node, Var):
                done.append(values[leaves[node.name]])
            else:
                count = len(node.arguments)
                operands = done[len(done) - count :]
                del done[len(done) - count :]
                done.append(node.function(*operands))
        return done[0]

    return evaluate


_FILES: dict[Hashable, tuple[Fact, ...]] = {}


def _file_facts(
    relation: str, path: str, types: tuple[str, ...], options: Mapping[str, Any], span: Span
) -> tuple[Fact, ...]:
    """The facts of a CSV file, which is read again only if it has changed."""
    found = beside(path, span)
    try:
        status = found.stat()
        version = status.st_mtime_ns, status.st_size
        key = relation, str(found.resolve()), version, types, repr(options)
        if key not in _FILES:
            if len(_FILES) >= 16:
                _FILES.clear()
            rows = _csv.read(found, types, **options)
            _FILES[key] = tuple([Fact(relation, values, tag) for tag, values in rows])
        return _FILES[key]
    except OSError as error:
        raise span.error(f"cannot read {str(found)!r}: {error.strerror or error}") from None
    except ProgramError:
        raise
    except ByssusError as error:
        raise placed(span, error) from None
