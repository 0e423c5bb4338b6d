"""From the syntax tree to rules over typed expressions: names resolved, sugar gone.

Each expression gets a cell of the type inference, and what is known of its type is said there.
Variables that are local to an aggregation get names of their own; patterns, calls of black boxes
and new entities become literals of the body.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from byssus import ByssusError, ProgramError

from ._aggregates import AGGREGATES, result_types
from ._declarations import ConstantDeclaration, Declarations, Variant, meant, placed
from ._inference import ANY, Cell, Inference, conflict, mask
from ._operators import result_types as operator_types
from ._syntax import (
    Atom,
    Binary,
    Binding,
    Call,
    Case,
    Cast,
    Conditional,
    Conjunction,
    Constant,
    Constraint,
    Disjunction,
    Expression,
    Fact,
    FactSet,
    Formula,
    Implication,
    Item,
    Negation,
    New,
    Node,
    Object,
    Quantifier,
    Query,
    Range,
    Reduce,
    ReduceRule,
    RelationTypes,
    Rule,
    Span,
    Unary,
    Variable,
    Wildcard,
)
from ._types import FAMILIES, default
from .foreign import ForeignFunction, ForeignPredicate

__all__ = [
    "All",
    "AnyOf",
    "Core",
    "CoreAtom",
    "CoreFact",
    "CoreGenerator",
    "CoreNew",
    "CoreNot",
    "CoreParse",
    "CoreReduce",
    "CoreRule",
    "CoreTest",
    "Elaboration",
    "Facts",
    "Typed",
    "core_variables",
    "typed_variables",
]

_DEEPEST = 120
"""So deep may formulas be nested."""

# Typed expressions


@dataclass(eq=False, slots=True)
class Typed:
    """An expression and the cell of its type.

    Attributes:
        kind: "const", "constant" (one of the program, by name), "var", "wild", "binary", "unary",
            "cast", "if", "call" or "entity" (of a constant).
        name: of the variable, constant, operator, function or functor; the kind of a literal.
        arguments: operands.
        cell: of its type.
        span: where it stands.
        value: of a literal.
    """

    kind: str
    name: str
    arguments: tuple[Typed, ...]
    cell: Cell
    span: Span
    value: Any = None


def typed_variables(typed: Typed) -> Iterator[Typed]:
    """The variables of an expression, from left to right."""
    if not typed.arguments:
        if typed.kind == "var":
            yield typed
        return
    stack = [typed]
    while stack:
        node = stack.pop()
        if node.kind == "var":
            yield node
        stack.extend(reversed(node.arguments))


# Bodies


@dataclass(eq=False, slots=True)
class All:
    """A conjunction."""

    parts: tuple[Core, ...]


@dataclass(eq=False, slots=True)
class AnyOf:
    """A disjunction."""

    parts: tuple[Core, ...]


@dataclass(eq=False, slots=True)
class CoreAtom:
    """An atom."""

    relation: str
    arguments: tuple[Typed, ...]
    negated: bool
    span: Span


@dataclass(eq=False, slots=True)
class CoreGenerator:
    """An atom of a foreign predicate; `generics` are the cells of its type parameters."""

    predicate: ForeignPredicate
    generics: tuple[Cell, ...]
    arguments: tuple[Typed, ...]
    span: Span


@dataclass(eq=False, slots=True)
class CoreTest:
    """A constraint."""

    expression: Typed
    span: Span


@dataclass(eq=False, slots=True)
class CoreNew:
    """`result == new variant(arguments)`; `head` if it stands in the head of a rule."""

    variant: Variant
    result: Typed
    arguments: tuple[Typed, ...]
    head: bool
    span: Span


@dataclass(eq=False, slots=True)
class CoreParse:
    """`result` is the entity whose text (or which itself) is the value of `raw`."""

    result: Typed
    raw: Typed
    span: Span


@dataclass(eq=False, slots=True)
class CoreNot:
    """There is no way to satisfy a formula; variables that occur only in it are its own."""

    formula: Core
    span: Span


@dataclass(eq=False, slots=True)
class CoreReduce:
    """An aggregation.

    Attributes:
        syntax: the aggregation as written.
        operator: the aggregator.
        group: variables that tell groups apart, known inside and outside.
        other: further ones of explicit groups, known outside only.
        arguments, bindings: variables of the body.
        body: what is aggregated.
        where: what the explicit groups are.
        domain: for `forall` with implicit groups: what says which groups there are.
        results: variables and wildcards.
        absent: whether only the absence of tuples is asked for (`not exists`, `forall`).
    """

    syntax: Reduce
    operator: str
    group: tuple[str, ...]
    other: tuple[str, ...]
    arguments: tuple[Typed, ...]
    bindings: tuple[Typed, ...]
    body: Core
    where: Core | None
    domain: Core | None
    results: tuple[Typed, ...]
    absent: bool
    span: Span


CoreLiteral = CoreAtom | CoreGenerator | CoreTest | CoreNew | CoreParse | CoreNot | CoreReduce
Core = All | AnyOf | CoreLiteral


def core_variables(core: Core) -> set[str]:
    """The variables of a formula that are visible outside of it."""
    found: set[str] = set()
    stack: list[Core] = [core]
    while stack:
        node = stack.pop()
        if isinstance(node, All | AnyOf):
            stack.extend(node.parts)
        elif isinstance(node, CoreNot):
            stack.append(node.formula)
        elif isinstance(node, CoreReduce):
            found.update(node.group, node.other)
            found.update(one.name for one in node.results if one.kind == "var")
        else:
            found.update(one.name for one in literal_variables(node))
    return found


def literal_variables(
    literal: CoreAtom | CoreGenerator | CoreTest | CoreNew | CoreParse,
) -> Iterator[Typed]:
    """The variables of a literal."""
    if isinstance(literal, CoreAtom | CoreGenerator):
        parts: tuple[Typed, ...] = literal.arguments
    elif isinstance(literal, CoreTest):
        parts = (literal.expression,)
    elif isinstance(literal, CoreNew):
        parts = (literal.result, *literal.arguments)
    else:
        parts = (literal.result, literal.raw)
    for part in parts:
        yield from typed_variables(part)


# Items


@dataclass(eq=False)
class CoreRule:
    """A rule with one head.

    Attributes:
        exclusive: `(group, alternative, alternatives)` of one of several heads.
        key: the variables of all heads of such a rule.
        inlined: what exists and stands in the body itself, with the variables from outside of it.
    """

    head: str
    arguments: tuple[Typed, ...]
    body: Core
    span: Span
    tag: Typed | None = None
    exclusive: tuple[int, int, int] | None = None
    key: tuple[Typed, ...] = ()
    inlined: tuple[tuple[Core, frozenset[str]], ...] = ()


@dataclass(eq=False)
class CoreFact:
    """A fact of constants."""

    relation: str
    arguments: tuple[Typed, ...]
    tag: Typed | None
    span: Span


@dataclass(eq=False)
class Facts:
    """A set of facts: its columns, and the group if its facts exclude one another."""

    syntax: FactSet
    relation: str
    columns: tuple[_Column, ...]
    group: int | None


@dataclass(eq=False)
class _Column:
    """A column of a fact set.

    Attributes:
        nodes: its constants.
        kinds: which kinds of literals it has, with the first of each.
        named: constants of the program, by position.
    """

    nodes: tuple[Constant | Variable, ...]
    kinds: dict[str, Constant] = field(default_factory=dict)
    variables: dict[int, Variable] = field(default_factory=dict)
    named: dict[int, Typed] = field(default_factory=dict)


_COLUMNS: WeakKeyDictionary[FactSet, tuple[_Column, ...]] = WeakKeyDictionary()


def _columns(facts: FactSet) -> tuple[_Column, ...]:
    """The columns of a fact set, looked at once."""
    if facts in _COLUMNS:
        return _COLUMNS[facts]
    arity = len(facts.tuples[0][1])
    for _, values, span in facts.tuples:
        if len(values) != arity:
            raise span.error(
                f"arity mismatch in set for relation `{facts.name}`: the first tuple has "
                f"{arity} values, and this one {len(values)}"
            )
    found = []
    for nodes in zip(*(values for _, values, _ in facts.tuples), strict=True):
        column = _Column(nodes)
        for i, node in enumerate(nodes):
            if isinstance(node, Constant):
                kind = "negative" if node.kind == "int" and node.value < 0 else node.kind
                if kind not in column.kinds:
                    column.kinds[kind] = node
            else:
                column.variables[i] = node
        found.append(column)
    _COLUMNS[facts] = tuple(found)
    return _COLUMNS[facts]


_KINDS = {
    "int": mask("Number"),
    "negative": mask("SignedInteger") | mask("Float"),
    "float": mask("Float"),
    "bool": mask("bool"),
    "char": mask("char"),
    "string": mask("String"),
    "symbol": mask("Symbol"),
    "datetime": mask("DateTime"),
    "duration": mask("Duration"),
}

_POSITIONS = {
    Binary: "binary expression",
    Unary: "unary expression",
    Cast: "type cast",
    Conditional: "if-then-else expression",
    Call: "arguments of a function",
    New: "arguments of a new entity",
}


class _Scope:
    """The variables of a rule, or of the body of an aggregation.

    Attributes:
        names: what the variables are called in the rule.
        own: those that are local by declaration (bindings, arguments).
    """

    def __init__(
        self,
        rule: _RuleScope | None = None,
        parent: _Scope | None = None,
        passed: Collection[str] = (),
    ) -> None:
        self.rule = rule if isinstance(rule, _RuleScope) else self
        self.parent = parent
        self.passed = passed
        self.names: dict[str, str] = {}
        self.own: set[str] = set()

    def resolve(self, name: str) -> str:
        if name in self.names:
            return self.names[name]
        if self.parent is not None and name in self.passed:
            return self.parent.resolve(name)
        self.names[name] = name if self.parent is None else f"{name}@{next(self.counter)}"
        return self.names[name]

    def declare(self, name: str) -> None:
        self.own.add(name)
        self.names[name] = f"{name}@{next(self.counter)}"

    @property
    def counter(self) -> Iterator[int]:
        assert isinstance(self.rule, _RuleScope)
        return self.rule.numbers


class _RuleScope(_Scope):
    """The variables of a rule.

    Attributes:
        position: of its item.
        constant: whether variables must be constants: in a fact.
    """

    def __init__(self, position: int, constant: bool = False) -> None:
        super().__init__()
        self.position = position
        self.constant = constant
        self.numbers = itertools.count(1)
        self.cells: dict[str, Cell] = {}
        self.inner: list[tuple[_Scope, Span]] = []
        self.inlined: list[tuple[Core, frozenset[str]]] = []


@dataclass(frozen=True, eq=False)
class _Negated(Node):
    """The negation of a formula that has no dual."""

    formula: Formula


@dataclass
class _Extras:
    """Literals that an expression needs."""

    literals: list[CoreLiteral] = field(default_factory=list)
    head: bool = False


class Elaboration:
    """The rules of a program.

    Attributes:
        rules, facts, sets: of the program.
        queries: `(relation, name, position, span)`.
        relations: the cells of each relation's columns, and where it was first seen.
        uses: where each relation is first used in a body.
        defined: relations that something derives or declares.
        constants: of the program, by name.
        heads: relations that items of the program define.
        warnings: what is likely a mistake.
    """

    def __init__(
        self,
        declarations: Declarations,
        inference: Inference,
        functions: Mapping[str, ForeignFunction],
        predicates: Mapping[str, ForeignPredicate],
        boxes: Collection[str],
    ) -> None:
        self.declarations = declarations
        self.types = inference
        self.functions = functions
        self.predicates = predicates
        self.boxes = boxes
        self.rules: list[CoreRule] = []
        self.facts: list[CoreFact] = []
        self.sets: list[Facts] = []
        self.queries: list[tuple[str, str, int, Span]] = []
        self.relations: dict[str, tuple[list[Cell], Span]] = {}
        self.uses: dict[str, Span] = {}
        self.defined: set[str] = set()
        self.constants: dict[str, Typed] = {}
        self.warnings: list[str] = []
        self.heads = {name for item in declarations.items for name in _heads(item)}
        self.groups = itertools.count()

    # Relations

    def declare(self) -> None:
        """Enter the declared relations and the constants."""
        for declared in self.declarations.relations.values():
            cells = [
                self.types.fresh(mask(kind), span)
                for kind, span in zip(declared.types, declared.places, strict=True)
            ]
            self.relations[declared.name] = cells, declared.span
            self.defined.add(declared.name)
        for name in self._constant_order():
            constant = self.declarations.constants[name]
            self.constants[name] = self._elaborate_constant(constant)

    def add_relation(self, name: str, types: Sequence[str], span: Span) -> None:
        """Enter a relation that is neither declared nor derived: a black box."""
        self.relations[name] = [self.types.fresh(mask(one), span) for one in types], span
        self.defined.add(name)

    def columns(self, name: str, arity: int, span: Span) -> list[Cell]:
        """The cells of a relation's columns."""
        if name not in self.relations:
            self.relations[name] = [self.types.fresh(ANY, span) for _ in range(arity)], span
        cells, first = self.relations[name]
        if len(cells) != arity:
            if name.startswith("adt#"):
                raise span.error(
                    f"arity mismatch for algebraic data type variant `{name[4:]}`. Expected "
                    f"{len(cells) - 1}, found {arity - 1}"
                )
            raise conflict(
                f"arity mismatch for relation `{name.removeprefix('$')}`. Expected {len(cells)}, "
                f"found {arity}. It is first seen here:",
                first,
                "and with another number of arguments here:",
                span,
            )
        return cells

    # Constants

    def _constant_order(self) -> list[str]:
        """The constants, each after those that it is made of."""
        constants = self.declarations.constants
        order: list[str] = []
        state: dict[str, int] = {}
        for root in constants:
            stack = [root]
            while stack:
                name = stack[-1]
                if state.get(name) == 2:
                    stack.pop()
                    continue
                value = constants[name].value
                needed = [] if isinstance(value, int) else list(_expression_names(value))
                if state.get(name) == 1:
                    state[name] = 2
                    order.append(name)
                    stack.pop()
                    continue
                state[name] = 1
                for one in needed:
                    if one not in constants:
                        raise _find_variable(value, one).span.error(
                            f"unknown constant `{one}` in the value of `{name}`"
                            f"{meant(one, constants)}"
                        )
                    if state.get(one) == 1:
                        path = [n for n in stack if state.get(n) == 1]
                        cycle = " -> ".join([*path[path.index(one) :], one])
                        raise constants[name].span.error(
                            f"the constant `{name}` is defined by itself: {cycle}"
                        )
                    if one not in state:
                        stack.append(one)
        return order

    def _elaborate_constant(self, constant: ConstantDeclaration) -> Typed:
        span = constant.span
        if isinstance(constant.value, int):
            cell = self.types.fresh(mask("usize"), span)
            return Typed("const", "int", (), cell, span, constant.value)
        extras = _Extras()
        typed = self.expression(
            constant.value, _RuleScope(len(self.declarations.items), True), extras, entity=True
        )
        if extras.literals:
            raise extras.literals[0].span.error(
                "non-constant expression found in a constant: calls of black boxes and `new` have "
                "no place here"
            )
        if constant.type is not None:
            self.types.narrow(
                typed.cell, mask(constant.type), constant.type_span or span, typed.span
            )
        return typed

    def _constant(self, name: str, span: Span) -> Typed:
        """A use of a constant."""
        typed = self.constants[name]
        declared = self.declarations.constants[name].type
        if typed.kind == "const":
            # A literal has no type of its own: each use may give it another.
            types = _kinds(typed) if declared is None else mask(declared)
            place = span if declared is None else self.declarations.constants[name].span
            return Typed("const", typed.name, (), self.types.fresh(types, place), span, typed.value)
        return Typed("constant", name, (), typed.cell, span)

    # Expressions

    def expression(
        self, root: Expression, scope: _Scope, extras: _Extras, entity: bool = False
    ) -> Typed:
        """An expression; `entity` where objects are values: in constants."""
        if isinstance(root, Variable | Constant):
            return self._node(root, (), scope, extras, entity)
        done: dict[int, Typed] = {}
        for node in _bottom_up(root):
            operands = tuple([done[id(one)] for one in _operands(node)])
            for one in operands:
                if one.kind == "wild":
                    where = _POSITIONS.get(type(node), "entity")
                    raise one.span.error(f"Invalid wildcard in the {where}; give it a name")
            done[id(node)] = self._node(node, operands, scope, extras, entity)
        return done[id(root)]

    def _node(
        self,
        node: Expression,
        operands: tuple[Typed, ...],
        scope: _Scope,
        extras: _Extras,
        entity: bool,
    ) -> Typed:
        types, span = self.types, node.span
        if isinstance(node, Variable):
            return self.variable(node, scope)
        if isinstance(node, Constant):
            return self.literal(node)
        if isinstance(node, Wildcard):
            return Typed("wild", "_", (), types.fresh(ANY, span), span)
        if isinstance(node, Binary):
            cell = types.fresh(ANY, span)
            left, right = operands
            if node.op in ("==", "!="):
                types.narrow(cell, mask("bool"), span)
                types.unify(left.cell, right.cell, span)
            else:
                cells = (left.cell, right.cell, cell)
                types.choose(cells, _rows(node.op, 2), node.op, span)
            return Typed("binary", node.op, operands, cell, span)
        if isinstance(node, Unary):
            cell = types.fresh(ANY, span)
            types.choose((operands[0].cell, cell), _rows(node.op, 1), node.op, span)
            return Typed("unary", node.op, operands, cell, span)
        if isinstance(node, Cast):
            target = self.declarations.type(node.type)
            cell = types.fresh(mask(target), node.type.span)
            return Typed("cast", target, operands, cell, span)
        if isinstance(node, Conditional):
            condition, then, otherwise = operands
            types.narrow(condition.cell, mask("bool"), condition.span)
            types.unify(then.cell, otherwise.cell, span)
            return Typed("if", "if", operands, then.cell, span)
        if isinstance(node, Call):
            return self.call(node, operands, scope, extras)
        if isinstance(node, New):
            variant = self.variant(node.functor, len(operands), span)
            self._fit(variant, operands)
            result = self.fresh(scope, mask("Entity"), span)
            extras.literals.append(CoreNew(variant, result, operands, extras.head, span))
            return result
        if entity:
            variant = self.variant(node.functor, len(operands), span)
            self._fit(variant, operands)
            cell = types.fresh(mask("Entity"), span)
            return Typed("entity", node.functor, operands, cell, span)
        raise span.error(
            f"`{node.functor}(...)` is a pattern and cannot stand here: to make an entity, write "
            f"`new {node.functor}(...)`; to look into one, `case x is {node.functor}(...)`"
        )

    def variable(self, node: Variable, scope: _Scope) -> Typed:
        """A variable, or a constant."""
        name = node.name
        rule = scope.rule
        assert isinstance(rule, _RuleScope)
        constant = self.declarations.constants.get(name)
        if constant is not None and (rule.constant or constant.position <= rule.position):
            return self._constant(name, node.span)
        if rule.constant:
            raise node.span.error(
                f"unknown variable `{name}`: a fact holds constants only"
                f"{meant(name, self.declarations.constants)}"
            )
        return self.named(scope.resolve(name), rule, node.span)

    def named(self, name: str, rule: _Scope, span: Span) -> Typed:
        """A variable by its name in the rule."""
        assert isinstance(rule, _RuleScope)
        if name not in rule.cells:
            rule.cells[name] = self.types.fresh(ANY, span)
        return Typed("var", name, (), rule.cells[name], span)

    def fresh(self, scope: _Scope, types: int, span: Span) -> Typed:
        """A new variable."""
        rule = scope.rule
        assert isinstance(rule, _RuleScope)
        typed = self.named(f"@{next(rule.numbers)}", rule, span)
        self.types.narrow(typed.cell, types, span)
        return typed

    def literal(self, node: Constant) -> Typed:
        """A literal."""
        typed = Typed("const", node.kind, (), self.types.fresh(ANY, node.span), node.span)
        typed.value = node.value
        self.types.narrow(typed.cell, _kinds(typed), node.span)
        return typed

    def variant(self, functor: str, arity: int, span: Span) -> Variant:
        """The variant of a functor with so many arguments."""
        variants = self.declarations.variants
        if functor not in variants:
            raise span.error(
                f"unknown algebraic data type variant `{functor}`{meant(functor, variants)}"
            )
        found = variants[functor]
        if len(found.types) != arity:
            raise conflict(
                f"arity mismatch for algebraic data type variant `{functor}`. Expected "
                f"{len(found.types)}, found {arity}. It is declared here:",
                found.span,
                "and used here:",
                span,
            )
        return found

    def _fit(self, variant: Variant, arguments: Sequence[Typed]) -> None:
        cells, _ = self.relations[variant.relation]
        for cell, argument in zip(cells[1:], arguments, strict=True):
            self.types.unify(cell, argument.cell, argument.span)

    def call(
        self, node: Call, operands: tuple[Typed, ...], scope: _Scope, extras: _Extras
    ) -> Typed:
        """A call of a foreign function, or of a black box."""
        types, span = self.types, node.span
        if node.function in self.boxes:
            relation = f"${node.function}"
            cells = self.relations[relation][0]
            if len(cells) != len(operands) + 1:
                raise span.error(
                    f"the black box `{relation}` takes {len(cells) - 1} arguments, found "
                    f"{len(operands)}"
                )
            result = self.fresh(scope, ANY, span)
            for cell, one in zip(cells, (*operands, result), strict=True):
                types.unify(cell, one.cell, one.span)
            extras.literals.append(CoreAtom(relation, (*operands, result), False, span))
            return result
        function = self.functions.get(node.function)
        if function is None:
            known = [*self.functions, *self.boxes]
            raise span.error(f"unknown function `{node.function}`{meant(node.function, known)}")
        expected = (*function.arguments, *function.optional)
        fits = len(function.arguments) <= len(operands)
        if function.variadic is None:
            fits = fits and len(operands) <= len(expected)
        if not fits:
            least = len(function.arguments)
            takes = f"{least}" if len(expected) == least else f"{least} to {len(expected)}"
            takes = f"at least {least}" if function.variadic is not None else takes
            raise span.error(
                f"bad number of arguments for function `{node.function}`, found {len(operands)}: "
                f"it takes {takes}"
            )
        generics = {
            name: types.fresh(mask(family), span) for name, family in function.generics.items()
        }
        for i, operand in enumerate(operands):
            kind = expected[i] if i < len(expected) else function.variadic
            assert kind is not None
            if kind in generics:
                types.unify(generics[kind], operand.cell, operand.span)
            else:
                types.narrow(operand.cell, mask(kind), span, operand.span)
        if function.result in generics:
            cell = generics[function.result]
        else:
            cell = types.fresh(mask(function.result), span)
        typed = Typed("call", node.function, operands, cell, span)
        if function.result != "Entity":
            return typed
        entity = self.fresh(scope, mask("Entity"), span)
        extras.literals.append(CoreParse(entity, typed, span))
        return entity

    # Formulas

    def formula(self, node: Formula | _Negated, scope: _Scope, heads: Collection[str]) -> Core:
        """A formula; `heads` are the variables that group the aggregations in it."""
        return self._formula(node, scope, heads, 0)

    def _formula(
        self, node: Formula | _Negated, scope: _Scope, heads: Collection[str], depth: int
    ) -> Core:
        if depth > _DEEPEST:
            raise node.span.error(
                f"formulas are nested more than {_DEEPEST} deep here; derive the inner ones as "
                "relations of their own"
            )
        if isinstance(node, Conjunction | Disjunction):
            parts = tuple([self._formula(p, scope, heads, depth + 1) for p in node.parts])
            return All(parts) if isinstance(node, Conjunction) else AnyOf(parts)
        if isinstance(node, Implication):
            left = self._formula(_negate(node.left), scope, heads, depth + 1)
            return AnyOf((left, self._formula(node.right, scope, heads, depth + 1)))
        if isinstance(node, Atom):
            return self.atom(node, scope)
        if isinstance(node, Negation):
            return self.negated(node, scope)
        if isinstance(node, _Negated):
            inner = self._formula(node.formula, scope, heads, depth + 1)
            return CoreNot(inner, node.span)
        if isinstance(node, Constraint):
            extras = _Extras()
            typed = self.expression(node.expression, scope, extras)
            try:
                self.types.narrow(typed.cell, mask("bool"), node.span)
            except ProgramError:
                raise node.span.error(
                    "constraint must have `bool` type, but found "
                    f"`{self.types.describe(typed.cell)}` type"
                ) from None
            return _with(extras, CoreTest(typed, node.span))
        if isinstance(node, Case):
            return self.case(node, scope)
        if isinstance(node, Range):
            return self.range(node, scope)
        if isinstance(node, Quantifier):
            return self.quantifier(node, scope, heads, depth)
        return self.reduce(node, scope, heads, depth)

    def atom(self, node: Atom, scope: _Scope) -> Core:
        """A positive atom, with the patterns in its arguments."""
        extras = _Extras()
        arguments = self.arguments(node.arguments, scope, extras)
        literal = self.applied(node, arguments, scope)
        return _with(extras, literal)

    def arguments(
        self, nodes: Sequence[Expression], scope: _Scope, extras: _Extras
    ) -> tuple[Typed, ...]:
        """Arguments of an atom; a pattern becomes a variable and atoms of variants."""
        found = []
        for node in nodes:
            if isinstance(node, Object):
                variable = self.fresh(scope, mask("Entity"), node.span)
                self.pattern(variable, node, scope, extras)
                found.append(variable)
            else:
                found.append(self.expression(node, scope, extras))
        return tuple(found)

    def pattern(self, variable: Typed, root: Object, scope: _Scope, extras: _Extras) -> None:
        """Atoms that say that a variable is an entity of a certain form."""
        stack = [(variable, root)]
        while stack:
            entity, node = stack.pop()
            variant = self.variant(node.functor, len(node.arguments), node.span)
            arguments = []
            for argument in node.arguments:
                if isinstance(argument, Object):
                    inner = self.fresh(scope, mask("Entity"), argument.span)
                    stack.append((inner, argument))
                    arguments.append(inner)
                else:
                    arguments.append(self.expression(argument, scope, extras))
            self._fit(variant, arguments)
            literal = CoreAtom(variant.relation, (entity, *arguments), False, node.span)
            extras.literals.append(literal)

    def applied(
        self, node: Atom, arguments: tuple[Typed, ...], scope: _Scope
    ) -> CoreAtom | CoreGenerator:
        """A predicate, applied to arguments."""
        predicate = self.predicates.get(node.predicate)
        if predicate is not None and (
            node.type_arguments or not predicate.generics or node.predicate not in self.heads
        ):
            return self.generator(predicate, node, arguments)
        if node.type_arguments:
            raise node.span.error(
                f"unknown foreign predicate `{node.predicate}`"
                f"{meant(node.predicate, self.predicates)}"
            )
        self.uses.setdefault(node.predicate, node.span)
        cells = self.columns(node.predicate, len(arguments), node.span)
        for cell, argument in zip(cells, arguments, strict=True):
            self.types.unify(cell, argument.cell, argument.span)
        return CoreAtom(node.predicate, arguments, False, node.span)

    def generator(
        self, predicate: ForeignPredicate, node: Atom, arguments: tuple[Typed, ...]
    ) -> CoreGenerator:
        """An atom of a foreign predicate."""
        if len(arguments) != len(predicate.types):
            raise node.span.error(
                f"arity mismatch for foreign predicate `{predicate.name}`. Expected "
                f"{len(predicate.types)}, found {len(arguments)}"
            )
        given = [self.declarations.type(one) for one in node.type_arguments]
        if given and len(given) != len(predicate.generics):
            raise node.span.error(
                f"the foreign predicate `{predicate.name}` has {len(predicate.generics)} type "
                f"parameters, found {len(given)}"
            )
        generics: dict[str, Cell] = {}
        for i, (name, family) in enumerate(predicate.generics.items()):
            cell = self.types.fresh(mask(family), node.span)
            if given:
                self.types.narrow(cell, mask(given[i]), node.type_arguments[i].span)
            generics[name] = cell
        for i, (kind, argument) in enumerate(zip(predicate.types, arguments, strict=True)):
            try:
                if kind in generics:
                    self.types.unify(generics[kind], argument.cell, argument.span)
                else:
                    self.types.narrow(argument.cell, mask(kind), argument.span)
            except ProgramError as error:
                raise argument.span.error(
                    f"cannot unify the type of argument {i + 1} of foreign predicate "
                    f"`{predicate.name}`, which is `{kind}`:\n{error}\nin"
                ) from None
        return CoreGenerator(predicate, tuple(generics.values()), arguments, node.span)

    def negated(self, node: Negation, scope: _Scope) -> Core:
        """A negated atom."""
        atom = node.atom
        if any(isinstance(argument, Object) for argument in atom.arguments):
            return CoreNot(self.atom(atom, scope), node.span)
        extras = _Extras()
        literal = self.applied(atom, self.arguments(atom.arguments, scope, extras), scope)
        if isinstance(literal, CoreGenerator):
            return _with(extras, CoreNot(literal, node.span))
        literal.negated, literal.span = True, node.span
        return _with(extras, literal)

    def case(self, node: Case, scope: _Scope) -> Core:
        """`case x is pattern`."""
        extras = _Extras()
        variable = self.variable(node.variable, scope)
        if isinstance(node.pattern, Object):
            self.types.narrow(variable.cell, mask("Entity"), node.pattern.span, node.span)
            self.pattern(variable, node.pattern, scope, extras)
            return All(tuple(extras.literals))
        typed = self.expression(node.pattern, scope, extras)
        return _with(extras, self.equation(variable, typed, node.span))

    def equation(self, left: Typed, right: Typed, span: Span) -> CoreTest:
        """`left == right`."""
        self.types.unify(left.cell, right.cell, span)
        cell = self.types.fresh(mask("bool"), span)
        return CoreTest(Typed("binary", "==", (left, right), cell, span), span)

    def range(self, node: Range, scope: _Scope) -> Core:
        """`x in a..b` is `range(a, b, x)`."""
        stop = node.stop
        if node.inclusive:
            stop = Binary(stop.span, "+", stop, Constant(stop.span, "int", 1))
        extras = _Extras()
        atom = Atom(node.span, "range", (node.start, stop, node.variable))
        arguments = self.arguments(atom.arguments, scope, extras)
        return _with(extras, self.generator(self.predicates["range"], atom, arguments))

    def quantifier(
        self, node: Quantifier, scope: _Scope, heads: Collection[str], depth: int
    ) -> Core:
        """`exists(...)` and `forall(...)` without a result."""
        reduce = node.reduce
        negated = node.negated != (reduce.operator == "forall")
        if not negated and not reduce.single_world:
            # What exists can stand in the body itself: so it may be recursive.
            body = _counterexamples(reduce) if reduce.operator == "forall" else reduce.body
            outside = _visible(reduce.group, heads) if reduce.group is not None else heads
            inner = self._inner(reduce, scope, outside)
            found = self._formula(body, inner, _inner_heads(reduce, body, outside), depth + 1)
            assert isinstance(scope.rule, _RuleScope)
            known = frozenset(map(scope.resolve, inner.passed))
            scope.rule.inlined.append((found, known))
            if reduce.group is None:
                return found
            return All((found, self._formula(reduce.group, scope, heads, depth + 1)))
        value = self.fresh(scope, mask("bool"), node.span)
        literal = self._reduce(reduce, (value,), scope, heads, depth, node)
        cell = self.types.fresh(mask("bool"), node.span)
        goal = Typed("const", "bool", (), cell, node.span, not node.negated)
        return All((literal, self.equation(value, goal, node.span)))

    def _inner(self, reduce: Reduce, scope: _Scope, outside: Collection[str]) -> _Scope:
        """The scope of the body of an aggregation; of the variables outside it knows some."""
        rule = scope.rule
        assert isinstance(rule, _RuleScope)
        own = {b.name for b in reduce.bindings} | {a.name for a in reduce.arguments}
        inner = _Scope(rule, scope, set(outside) - own)
        for binding in reduce.bindings:
            constant = self.declarations.constants.get(binding.name)
            if constant is not None and constant.position <= rule.position:
                raise conflict(
                    f"constant variable `{binding.name}` occurring in a variable binding. Consider "
                    "changing the name of the variable binding. The constant is declared here:",
                    constant.span,
                    "and the binding is here:",
                    binding.span,
                )
        for name in own:
            inner.declare(name)
        rule.inner.append((inner, reduce.span))
        return inner

    def reduce(self, node: Reduce, scope: _Scope, heads: Collection[str], depth: int) -> Core:
        """`results := op(...)`."""
        extras = _Extras()
        results = tuple([self.expression(one, scope, extras) for one in node.results])
        for one in results:
            if one.kind not in ("var", "wild"):
                raise one.span.error(
                    f"`{one.span}` is a constant, and cannot be the result of an aggregation"
                )
        return self._reduce(node, results, scope, heads, depth, None)

    def result_cells(
        self, node: Reduce, arguments: Sequence[Typed], bindings: Sequence[Typed]
    ) -> list[Cell]:
        """The cells of the results of an aggregation, one for each."""
        kind = AGGREGATES.get(node.operator)
        if kind is None:
            raise node.operator_span.error(
                f"unknown aggregate `{node.operator}`{meant(node.operator, AGGREGATES)}"
            )
        some = kind.family if kind.family not in FAMILIES else default(FAMILIES[kind.family])
        try:
            result_types(
                node.operator,
                [one.value for one in node.parameters],
                {name: one.value for name, one in node.named.items()},
                ["i32"] * len(arguments),
                [some] * len(bindings),
                node.single_world,
            )
        except ByssusError as error:
            raise placed(node.operator_span, error) from None
        for one in bindings:
            self.types.narrow(one.cell, mask(kind.family), node.operator_span, one.span)
        cells: list[Cell] = []
        for name in kind.results:
            if name == "arguments":
                cells += [one.cell for one in arguments]
            elif name == "bindings":
                cells += [one.cell for one in bindings]
            else:
                cells.append(self.types.fresh(mask(name), node.operator_span))
        return cells

    def _reduce(
        self,
        node: Reduce,
        results: tuple[Typed, ...],
        scope: _Scope,
        heads: Collection[str],
        depth: int,
        quantifier: Quantifier | None,
    ) -> CoreReduce:
        body: Formula = node.body
        domain: Core | None = None
        if node.operator == "forall":
            body = _counterexamples(node)
        names = _visible(node.body, heads) | _bound_names(node.body)
        own = {b.name for b in node.bindings} | {a.name for a in node.arguments}
        where: Core | None = None
        if node.group is not None:
            visible = _visible(node.group, {b.name for b in node.group_bindings})
            for binding in node.group_bindings:
                if binding.name not in visible:
                    raise binding.span.error(
                        f"the group variable `{binding.name}` does not occur in the formula after "
                        "the colon"
                    )
            where = self._formula(
                node.group, scope, [b.name for b in node.group_bindings], depth + 1
            )
            for binding in node.group_bindings:
                self._annotate(binding, scope)
            group = [name for name in visible if name in names and name not in own]
            other = [name for name in visible if name not in group]
        else:
            group = [n for n in names if n in heads and n not in own]
            other = []
        group = [name for name in sorted(group) if self._is_variable(name, scope)]
        other = [name for name in sorted(other) if self._is_variable(name, scope)]
        inner = self._inner(node, scope, group)
        nested = _inner_heads(node, body, group)
        found = self._formula(body, inner, nested, depth + 1)
        if node.operator == "forall" and node.group is None and group:
            assert isinstance(node.body, Implication)
            domain = self._formula(node.body.left, inner, nested, depth + 1)
        for binding in node.bindings:
            self._annotate(binding, inner)
        arguments = tuple([self.variable(one, inner) for one in node.arguments])
        bindings = tuple(
            [self.named(inner.resolve(b.name), scope.rule, b.span) for b in node.bindings]
        )
        cells = self.result_cells(node, arguments, bindings)
        if len(cells) != len(results):
            raise node.span.error(
                f"in aggregate `{node.operator}`, {len(cells)} output argument(s) is expected, "
                f"found {len(results)}"
            )
        for cell, result in zip(cells, results, strict=True):
            self.types.unify(cell, result.cell, result.span)
        absent = quantifier is not None and not node.single_world
        return CoreReduce(
            node,
            node.operator,
            tuple(scope.resolve(name) for name in group),
            tuple(scope.resolve(name) for name in other),
            arguments,
            bindings,
            found,
            where,
            domain,
            results,
            absent,
            node.span,
        )

    def _is_variable(self, name: str, scope: _Scope) -> bool:
        rule = scope.rule
        assert isinstance(rule, _RuleScope)
        constant = self.declarations.constants.get(name)
        return constant is None or constant.position > rule.position

    def _annotate(self, binding: Binding, scope: _Scope) -> None:
        if binding.type is not None:
            typed = self.named(scope.resolve(binding.name), scope.rule, binding.span)
            kind = self.declarations.type(binding.type)
            self.types.narrow(typed.cell, mask(kind), binding.type.span, binding.span)

    # Items

    def item(self, item: Item, position: int) -> None:
        """A rule, a fact, facts, or a query."""
        if isinstance(item, FactSet):
            self.fact_set(item)
        elif isinstance(item, Fact):
            self.fact(item, position)
        elif isinstance(item, Rule):
            self.rule(item, position)
        elif isinstance(item, ReduceRule):
            self.reduce_rule(item, position)
        elif isinstance(item, Query):
            self.query(item, position)

    def fact_set(self, item: FactSet) -> None:
        """`rel name = {...}`."""
        self.defined.add(item.name)
        if not item.tuples:
            return
        columns = _columns(item)
        cells = self.columns(item.name, len(columns), item.tuples[0][2])
        for cell, column in zip(cells, columns, strict=True):
            for kind, node in column.kinds.items():
                self.types.narrow(cell, _KINDS[kind], node.span)
            for i, variable in column.variables.items():
                if variable.name not in self.constants:
                    raise variable.span.error(
                        f"unknown variable `{variable.name}`: a fact holds constants only"
                        f"{meant(variable.name, self.constants)}"
                    )
                typed = self._constant(variable.name, variable.span)
                self.types.unify(cell, typed.cell, variable.span)
                column.named[i] = typed
        group = next(self.groups) if item.exclusive else None
        self.sets.append(Facts(item, item.name, columns, group))

    def fact(self, item: Fact, position: int) -> None:
        """`rel tag::atom`."""
        plain = all(isinstance(one, Constant | Variable) for one in item.atom.arguments)
        patterns = any(isinstance(one, Object) for one in item.atom.arguments)
        scope = _RuleScope(position if patterns else len(self.declarations.items), not patterns)
        extras = _Extras(head=True)
        arguments = self.arguments(item.atom.arguments, scope, extras)
        for one in arguments:
            if one.kind == "wild":
                raise one.span.error("Invalid wildcard in the fact; give a value")
        tag = None if item.tag is None else self.expression(item.tag, scope, extras)
        self._define(item.atom, arguments)
        if plain and (tag is None or tag.kind == "const"):
            self.facts.append(CoreFact(item.atom.predicate, arguments, tag, item.atom.span))
        else:
            body = All(tuple(extras.literals))
            rule = CoreRule(item.atom.predicate, arguments, body, item.atom.span, tag)
            self.rules.append(rule)

    def _define(self, atom: Atom, arguments: Sequence[Typed]) -> None:
        self.defined.add(atom.predicate)
        if atom.type_arguments:
            raise atom.span.error("the head of a rule takes no types in angle brackets")
        cells = self.columns(atom.predicate, len(arguments), atom.span)
        for cell, argument in zip(cells, arguments, strict=True):
            self.types.unify(cell, argument.cell, argument.span)

    def rule(self, item: Rule, position: int) -> None:
        """`rel tag::head = body`, with one head or several."""
        if item.exclusive:
            scope = _RuleScope(position)
            self._rule(item, item.heads, scope)
            return
        for head in item.heads:
            self._rule(item, (head,), _RuleScope(position))

    def _rule(self, item: Rule, heads: tuple[Atom, ...], scope: _RuleScope) -> None:
        names = {n for h in heads for a in h.arguments for n in _expression_names(a)}
        extras = _Extras(head=True)
        arguments = []
        for head in heads:
            found = self.arguments(head.arguments, scope, extras)
            for one in found:
                if one.kind == "wild":
                    raise one.span.error("Invalid wildcard in the head of rule; give it a value")
            self._define(head, found)
            arguments.append(found)
        tag = None if item.tag is None else self.expression(item.tag, scope, extras)
        body = self.formula(item.body, scope, names)
        if extras.literals:
            body = All((body, *extras.literals))
        self._warn(scope)
        if not item.exclusive:
            (found,) = arguments
            name, inlined = heads[0].predicate, tuple(scope.inlined)
            self.rules.append(CoreRule(name, found, body, item.span, tag, inlined=inlined))
            return
        group = next(self.groups)
        key = {one.name: one for found in arguments for a in found for one in typed_variables(a)}
        for i, (head, found) in enumerate(zip(heads, arguments, strict=True)):
            self.rules.append(
                CoreRule(
                    head.predicate,
                    found,
                    body,
                    item.span,
                    tag,
                    (group, i, len(heads)),
                    tuple(key.values()),
                )
            )

    def _warn(self, scope: _RuleScope) -> None:
        for inner, span in scope.inner:
            shared = [n for n in inner.names if n in scope.names and n not in inner.own]
            for name in shared:
                self.warnings.append(
                    str(
                        span.error(
                            f"`{name}` in the aggregation is another variable than `{name}` "
                            "outside of it, as the aggregation is not grouped by it: put it into "
                            "the head, or after `where`"
                        )
                    )
                )

    def reduce_rule(self, item: ReduceRule, position: int) -> None:
        """`rel name = op(...)`."""
        scope = _RuleScope(position)
        span = item.reduce.span
        arguments = [self._placeholder(span) for _ in item.reduce.arguments]
        bindings = [self._placeholder(span) for _ in item.reduce.bindings]
        count = len(self.result_cells(item.reduce, arguments, bindings))
        results = tuple(self.fresh(scope, ANY, span) for _ in range(count))
        literal = self._reduce(item.reduce, results, scope, (), 0, None)
        self._warn(scope)
        self.defined.add(item.name)
        cells = self.columns(item.name, count, item.span)
        for cell, result in zip(cells, results, strict=True):
            self.types.unify(cell, result.cell, span)
        self.rules.append(CoreRule(item.name, results, literal, item.span))

    def _placeholder(self, span: Span) -> Typed:
        return Typed("wild", "_", (), self.types.fresh(ANY, span), span)

    def query(self, item: Query, position: int) -> None:
        """`query name` or `query atom`."""
        if isinstance(item.target, str):
            name, span = item.target, item.span
        else:
            name, span = item.target.predicate, item.target.span
        if name in self.predicates and name not in self.heads:
            raise span.error(f"the foreign predicate `{name}` cannot be queried; derive a relation")
        if isinstance(item.target, str):
            self.queries.append((name, name, position, span))
            return
        text = _shown_atom(item.target)
        if all(found != text for _, found, _, _ in self.queries):
            scope = _RuleScope(position)
            extras = _Extras()
            head: list[Typed] = []
            arguments: list[Typed] = []
            more: list[CoreLiteral] = []
            for one in self.arguments(item.target.arguments, scope, extras):
                if one.kind in ("var", "const", "constant"):
                    head.append(one)
                    arguments.append(one)
                    continue
                variable = self.fresh(scope, ANY, one.span)
                head.append(variable)
                arguments.append(variable)
                if one.kind != "wild":
                    more.append(self.equation(variable, one, one.span))
            literal = self.applied(item.target, tuple(arguments), scope)
            body = All((literal, *extras.literals, *more))
            cells = self.columns(text, len(head), span)
            for cell, typed in zip(cells, head, strict=True):
                self.types.unify(cell, typed.cell, typed.span)
            self.rules.append(CoreRule(text, tuple(head), body, span))
            self.defined.add(text)
        self.queries.append((text, text, position, span))

    def check_known(self) -> dict[str, ProgramError]:
        """The relations that are used but neither derived nor declared, with the error."""
        errors = {}
        known = [name for name in self.defined if "#" not in name and not name.startswith("$")]
        for name, span in self.uses.items():
            if name in self.defined:
                continue
            if name in self.declarations.variants:
                hint = f"; `{name}` is a variant: write `case x is {name}(...)`"
            elif name in AGGREGATES:
                hint = f"; for the aggregator, write `n := {name}(...)`"
            else:
                hint = meant(name, [*known, *self.predicates]) or (
                    f"; declare it with `type {name}(...)`, or derive it"
                )
            errors[name] = span.error(f"unknown relation `{name}`{hint}")
        for name, _, _, span in self.queries:
            if name not in self.defined and name not in errors:
                errors[name] = span.error(
                    f"unknown relation `{name}` used in query{meant(name, known)}"
                )
        return errors


# Names


def _heads(item: Item) -> Iterable[str]:
    if isinstance(item, Rule):
        return (head.predicate for head in item.heads)
    if isinstance(item, FactSet | ReduceRule):
        return (item.name,)
    if isinstance(item, Fact):
        return (item.atom.predicate,)
    return (one.name for one in item.relations) if isinstance(item, RelationTypes) else ()


def _operands(node: Expression) -> tuple[Expression, ...]:
    if isinstance(node, Binary):
        return (node.left, node.right)
    if isinstance(node, Unary | Cast):
        return (node.operand,)
    if isinstance(node, Conditional):
        return (node.condition, node.then, node.otherwise)
    if isinstance(node, Call | New | Object):
        return node.arguments
    return ()


def _bottom_up(root: Expression) -> Iterator[Expression]:
    """The nodes of an expression, operands before what they are operands of."""
    order, stack = [], [root]
    while stack:
        node = stack.pop()
        order.append(node)
        stack.extend(_operands(node))
    return reversed(order)


def _expression_names(root: Expression) -> Iterator[str]:
    return (node.name for node in _expression_variables(root))


def _expression_variables(root: Expression) -> Iterator[Variable]:
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Variable):
            yield node
        stack.extend(reversed(_operands(node)))


def _find_variable(root: Expression | int, name: str) -> Variable:
    assert not isinstance(root, int)
    return next(node for node in _expression_variables(root) if node.name == name)


def _visible(formula: Formula, heads: Collection[str]) -> set[str]:
    """The names of a formula that mean the same outside, if aggregations group by `heads`."""
    found: set[str] = set()
    stack: list[Formula] = [formula]
    while stack:
        node = stack.pop()
        if isinstance(node, Conjunction | Disjunction):
            stack.extend(node.parts)
        elif isinstance(node, Implication):
            stack += [node.left, node.right]
        elif isinstance(node, Reduce | Quantifier):
            reduce = node.reduce if isinstance(node, Quantifier) else node
            found.update(one.name for one in reduce.results if isinstance(one, Variable))
            if reduce.group is not None:
                stack.append(reduce.group)
            else:
                own = {b.name for b in reduce.bindings} | {a.name for a in reduce.arguments}
                inside = _visible(reduce.body, heads)
                found |= {name for name in inside if name in heads and name not in own}
        else:
            found.update(name for one in _parts(node) for name in _expression_names(one))
    return found


def _bound_names(formula: Formula) -> set[str]:
    """The names of a formula outside of the aggregations in it."""
    return _visible(formula, ())


def _parts(node: Atom | Negation | Constraint | Case | Range) -> tuple[Expression, ...]:
    if isinstance(node, Atom):
        return node.arguments
    if isinstance(node, Negation):
        return node.atom.arguments
    if isinstance(node, Constraint):
        return (node.expression,)
    if isinstance(node, Case):
        return (node.variable, node.pattern)
    return (node.variable, node.start, node.stop)


def _inner_heads(reduce: Reduce, body: Formula, group: Iterable[str]) -> set[str]:
    """The variables that group aggregations inside the body of an aggregation.

    As in Scallop these are its own variables; and of the variables of its group those that nothing
    else in the body binds, which Scallop cannot deal with.
    """
    own = {b.name for b in reduce.bindings} | {a.name for a in reduce.arguments}
    return own | (set(group) - _bound_names(body))


def _counterexamples(node: Reduce) -> Formula:
    """What must not exist for `forall(...)` to be true."""
    body = node.body
    if not isinstance(body, Implication):
        raise node.span.error(
            "the body of forall aggregation must be an `implies` formula, as in "
            "`forall(x: p(x) implies q(x))`"
        )
    return Conjunction(body.span, (body.left, _negate(body.right)))


_COMPLEMENTS = {"==": "!=", "!=": "=="}


def _negate(formula: Formula | _Negated) -> Any:
    if isinstance(formula, _Negated):
        return formula.formula
    span = formula.span
    if isinstance(formula, Atom):
        return Negation(span, formula)
    if isinstance(formula, Negation):
        return formula.atom
    if isinstance(formula, Conjunction):
        return Disjunction(span, tuple(map(_negate, formula.parts)))
    if isinstance(formula, Disjunction):
        return Conjunction(span, tuple(map(_negate, formula.parts)))
    if isinstance(formula, Implication):
        return Conjunction(span, (formula.left, _negate(formula.right)))
    if isinstance(formula, Constraint):
        inner = formula.expression
        if isinstance(inner, Binary) and inner.op in _COMPLEMENTS:
            op = _COMPLEMENTS[inner.op]
            return Constraint(span, Binary(inner.span, op, inner.left, inner.right))
        return Constraint(span, Unary(inner.span, "!", inner))
    if isinstance(formula, Quantifier):
        return Quantifier(span, not formula.negated, formula.reduce)
    if isinstance(formula, Reduce):
        raise span.error(
            "an aggregation with a result cannot be negated; bind the result and compare it, or "
            "derive a relation from it"
        )
    return _Negated(span, formula)


def _kinds(typed: Typed) -> int:
    negative = typed.name == "int" and typed.value < 0
    return _KINDS["negative" if negative else typed.name]


def _rows(op: str, arity: int) -> tuple[tuple[int, ...], ...]:
    key = op, arity
    if key not in _ROWS:
        _ROWS[key] = tuple(tuple(map(mask, row)) for row in operator_types(op, arity))
    return _ROWS[key]


_ROWS: dict[tuple[str, int], tuple[tuple[int, ...], ...]] = {}


def _with(extras: _Extras, literal: CoreLiteral) -> Core:
    return All((*extras.literals, literal)) if extras.literals else literal


# Text


def _shown_atom(atom: Atom) -> str:
    types = f"<{', '.join(one.name for one in atom.type_arguments)}>" if atom.type_arguments else ""
    return f"{atom.predicate}{types}({', '.join(map(_shown, atom.arguments))})"


def _shown(root: Expression) -> str:
    """An expression as Scallop prints it: operators in parentheses."""
    done: dict[int, str] = {}
    for node in _bottom_up(root):
        parts = [done[id(one)] for one in _operands(node)]
        if isinstance(node, Binary):
            text = f"({parts[0]} {node.op} {parts[1]})"
        elif isinstance(node, Unary):
            text = f"({node.op}{parts[0]})"
        elif isinstance(node, Cast):
            text = f"({parts[0]} as {node.type.name})"
        elif isinstance(node, Conditional):
            text = f"if {parts[0]} then {parts[1]} else {parts[2]}"
        elif isinstance(node, Call):
            text = f"${node.function}({', '.join(parts)})"
        elif isinstance(node, New | Object):
            new = "new " if isinstance(node, New) else ""
            text = f"{new}{node.functor}({', '.join(parts)})"
        else:
            text = str(node.span)
        done[id(node)] = text
    return done[id(root)]
