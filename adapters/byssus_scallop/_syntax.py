"""The syntax tree of a `.scl` program. Every node knows the text that it was read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from byssus import ProgramError

__all__ = [
    "AlgebraicType",
    "AliasType",
    "ArgumentType",
    "Atom",
    "Attribute",
    "Binary",
    "Binding",
    "Call",
    "Case",
    "Cast",
    "Conditional",
    "Conjunction",
    "Constant",
    "Constants",
    "Constraint",
    "Disjunction",
    "EnumType",
    "Expression",
    "Fact",
    "FactSet",
    "Formula",
    "FunctionType",
    "Implication",
    "Import",
    "Item",
    "Negation",
    "New",
    "Node",
    "Object",
    "Quantifier",
    "Query",
    "Range",
    "Reduce",
    "ReduceRule",
    "RelationType",
    "RelationTypes",
    "Rule",
    "Source",
    "Span",
    "SubType",
    "TypeName",
    "Unary",
    "Variable",
    "Wildcard",
    "walk",
]


@dataclass(frozen=True)
class Source:
    """A text of a program, and the file that it comes from, if any."""

    text: str
    file: str | None = None


@dataclass(frozen=True)
class Span:
    """A stretch of a source: offsets of its first character and after its last."""

    source: Source
    start: int
    end: int

    def error(self, message: str) -> ProgramError:
        """An error that shows this place."""
        before = self.source.text[: self.start]
        line = before.count("\n") + 1
        column = self.start - (before.rfind("\n") + 1) + 1
        return ProgramError(
            message, file=self.source.file, line=line, column=column, text=self.source.text
        )

    @property
    def line(self) -> int:
        """The line where it starts, counted from 1."""
        return self.source.text.count("\n", 0, self.start) + 1

    def __str__(self) -> str:
        return self.source.text[self.start : self.end]

    def __repr__(self) -> str:
        return f"Span({str(self)!r})"


@dataclass(frozen=True, eq=False)
class Node:
    """A node: compared by identity, as equal texts may stand in many places."""

    span: Span = field(repr=False)


def walk(node: Any) -> Iterator[Node]:
    """A node and all below it, depth first, however deep."""
    pending = [node]
    while pending:
        one = pending.pop()
        if isinstance(one, Node):
            yield one
            pending += [getattr(one, part.name) for part in reversed(fields(one))]
        elif isinstance(one, tuple | list):
            pending += reversed(one)
        elif isinstance(one, dict):
            pending += reversed(one.values())


# Types


@dataclass(frozen=True, eq=False)
class TypeName(Node):
    """A type by name: `i32`, or one that the program declares."""

    name: str


@dataclass(frozen=True, eq=False)
class ArgumentType(Node):
    """`bound x: i32`; the name and the adornment may be absent."""

    type: TypeName
    name: str | None = None
    adornment: Literal["bound", "free"] | None = None


# Expressions


@dataclass(frozen=True, eq=False)
class Constant(Node):
    """A literal. `value` is a Python int, float, bool or str; DateTime and Duration as written."""

    kind: Literal["int", "float", "bool", "char", "string", "symbol", "datetime", "duration"]
    value: Any


@dataclass(frozen=True, eq=False)
class Variable(Node):
    """A variable, or the name of a constant."""

    name: str


@dataclass(frozen=True, eq=False)
class Wildcard(Node):
    """`_`."""


@dataclass(frozen=True, eq=False)
class Binary(Node):
    """`left op right`, op among + - * / % == != < <= > >= && || ^."""

    op: str
    left: Expression
    right: Expression


@dataclass(frozen=True, eq=False)
class Unary(Node):
    """`+x`, `-x`, `!x`."""

    op: str
    operand: Expression


@dataclass(frozen=True, eq=False)
class Cast(Node):
    """`x as T`."""

    operand: Expression
    type: TypeName


@dataclass(frozen=True, eq=False)
class Conditional(Node):
    """`if c then a else b`, or `c ? a : b`."""

    condition: Expression
    then: Expression
    otherwise: Expression


@dataclass(frozen=True, eq=False)
class Call(Node):
    """`$function(arguments)`; the name without its dollar."""

    function: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class New(Node):
    """`new Functor(arguments)`."""

    functor: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class Object(Node):
    """`Functor(arguments)` as a value: of a constant, or a pattern (`case`, arguments of atoms)."""

    functor: str
    arguments: tuple[Expression, ...]


Expression = (
    Constant | Variable | Wildcard | Binary | Unary | Cast | Conditional | Call | New | Object
)


# Formulas


@dataclass(frozen=True, eq=False)
class Atom(Node):
    """`predicate<type_arguments>(arguments)`."""

    predicate: str
    arguments: tuple[Expression, ...]
    type_arguments: tuple[TypeName, ...] = ()


@dataclass(frozen=True, eq=False)
class Negation(Node):
    """`not atom`."""

    atom: Atom


@dataclass(frozen=True, eq=False)
class Conjunction(Node):
    """`a and b`, `a, b`."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, eq=False)
class Disjunction(Node):
    """`a or b`."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, eq=False)
class Implication(Node):
    """`left implies right`."""

    left: Formula
    right: Formula


@dataclass(frozen=True, eq=False)
class Constraint(Node):
    """A Boolean expression as a formula."""

    expression: Expression


@dataclass(frozen=True, eq=False)
class Case(Node):
    """`case variable is pattern`."""

    variable: Variable
    pattern: Expression


@dataclass(frozen=True, eq=False)
class Range(Node):
    """`variable in start..stop` (`inclusive` for `..=`)."""

    variable: Variable
    start: Expression
    stop: Expression
    inclusive: bool


@dataclass(frozen=True, eq=False)
class Binding(Node):
    """A variable that an aggregation binds, `x` or `(x: i32)`."""

    name: str
    type: TypeName | None = None


@dataclass(frozen=True, eq=False)
class Reduce(Node):
    """`results := op!<parameters>[arguments](bindings: body where group_bindings: group)`.

    Attributes:
        operator_span: where the operator's name stands.
        single_world: whether an exclamation mark follows the operator.
        parameters: positional ones.
        named: named parameters.
        group: None where there is no `where`.
    """

    results: tuple[Variable | Wildcard, ...]
    operator: str
    operator_span: Span
    single_world: bool
    parameters: tuple[Constant, ...]
    named: dict[str, Constant]
    arguments: tuple[Variable, ...]
    bindings: tuple[Binding, ...]
    body: Formula
    group_bindings: tuple[Binding, ...] = ()
    group: Formula | None = None


@dataclass(frozen=True, eq=False)
class Quantifier(Node):
    """`exists(...)` or `forall(...)` with no result variable; `reduce.results` is empty."""

    negated: bool
    reduce: Reduce


Formula = (
    Atom
    | Negation
    | Conjunction
    | Disjunction
    | Implication
    | Constraint
    | Case
    | Range
    | Reduce
    | Quantifier
)


# Items


@dataclass(frozen=True, eq=False)
class Attribute(Node):
    """`@name(positional, key=value)`; values are Python values, lists and tuples of them."""

    name: str
    positional: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Import(Node):
    """`import "file.scl"`."""

    attributes: tuple[Attribute, ...]
    path: str


@dataclass(frozen=True, eq=False)
class AliasType(Node):
    """`type name = type`."""

    attributes: tuple[Attribute, ...]
    name: str
    type: TypeName


@dataclass(frozen=True, eq=False)
class SubType(Node):
    """`type name <: type`."""

    attributes: tuple[Attribute, ...]
    name: str
    type: TypeName


@dataclass(frozen=True, eq=False)
class EnumType(Node):
    """`type name = A | B = 3 | C`."""

    attributes: tuple[Attribute, ...]
    name: str
    members: tuple[tuple[str, Constant | None, Span], ...]


@dataclass(frozen=True, eq=False)
class AlgebraicType(Node):
    """`type name = Variant(types) | ...`."""

    attributes: tuple[Attribute, ...]
    name: str
    variants: tuple[tuple[str, tuple[TypeName, ...], Span], ...]


@dataclass(frozen=True, eq=False)
class RelationType(Node):
    """`name(argument types)`."""

    name: str
    arguments: tuple[ArgumentType, ...]


@dataclass(frozen=True, eq=False)
class RelationTypes(Node):
    """`type a(...), b(...)`."""

    attributes: tuple[Attribute, ...]
    relations: tuple[RelationType, ...]
    extern: bool = False


@dataclass(frozen=True, eq=False)
class FunctionType(Node):
    """`type $name(argument types) -> type`; the name without its dollar."""

    attributes: tuple[Attribute, ...]
    name: str
    arguments: tuple[ArgumentType, ...]
    result: TypeName


@dataclass(frozen=True, eq=False)
class Constants(Node):
    """`const A = 1, B: i32 = 2`."""

    attributes: tuple[Attribute, ...]
    assignments: tuple[tuple[str, TypeName | None, Expression, Span], ...]


@dataclass(frozen=True, eq=False)
class FactSet(Node):
    """`rel name = {0.3::(a, b), ...}`; exclusive if separated by semicolons."""

    attributes: tuple[Attribute, ...]
    name: str
    tuples: tuple[tuple[Constant | None, tuple[Constant | Variable, ...], Span], ...]
    exclusive: bool


@dataclass(frozen=True, eq=False)
class Fact(Node):
    """`rel tag::atom`."""

    attributes: tuple[Attribute, ...]
    tag: Expression | None
    atom: Atom


@dataclass(frozen=True, eq=False)
class Rule(Node):
    """`rel tag::head = body`.

    Attributes:
        heads: one atom; or several, all derived (`exclusive` false) or one of them (true).
    """

    attributes: tuple[Attribute, ...]
    tag: Expression | None
    heads: tuple[Atom, ...]
    exclusive: bool
    body: Formula


@dataclass(frozen=True, eq=False)
class ReduceRule(Node):
    """`rel name = op(...)`: the results of an aggregation are the relation; `results` is empty."""

    attributes: tuple[Attribute, ...]
    name: str
    reduce: Reduce


@dataclass(frozen=True, eq=False)
class Query(Node):
    """`query name` or `query atom`."""

    attributes: tuple[Attribute, ...]
    target: str | Atom


Item = (
    Import
    | AliasType
    | SubType
    | EnumType
    | AlgebraicType
    | RelationTypes
    | FunctionType
    | Constants
    | FactSet
    | Fact
    | Rule
    | ReduceRule
    | Query
)
