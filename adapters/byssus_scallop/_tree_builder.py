"""The syntax tree from the rules of `grammar.lark`, and what is wrong with what they let through.

The grammar reads atoms, values and aggregations alike, as `name(...)`. They stay a `_Call` until
what they stand in decides; a part is converted when its parent is built, never deeper than that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from lark import Token, Transformer, v_args

from byssus import ProgramError

from ._syntax import (
    AlgebraicType,
    AliasType,
    ArgumentType,
    Atom,
    Attribute,
    Binary,
    Binding,
    Call,
    Case,
    Cast,
    Conditional,
    Conjunction,
    Constant,
    Constants,
    Constraint,
    Disjunction,
    EnumType,
    Expression,
    Fact,
    FactSet,
    Formula,
    FunctionType,
    Implication,
    Import,
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
    RelationType,
    RelationTypes,
    Rule,
    Source,
    Span,
    SubType,
    TypeName,
    Unary,
    Variable,
    Wildcard,
)

__all__ = ["TreeBuilder"]

_Facts = tuple[tuple[Constant | None, tuple[Constant | Variable, ...], Span], ...]
_Declared = TypeVar("_Declared", Rule, ReduceRule, Fact, FactSet, Query)

_ARITHMETIC = frozenset("+-*/%")
_ESCAPE = re.compile(r"\\([trn0\"'\\])")
_ESCAPED = {"t": "\t", "r": "\r", "n": "\n", "0": "\0", '"': '"', "'": "'", "\\": "\\"}
_QUANTIFIERS = {"∃": "exists", "∀": "forall"}
# More digits than any type of integers has room for; and Python refuses to read thousands.
_MAX_DIGITS = 100


# What is not decided yet


class _Fault(NamedTuple):
    """Why a part cannot stand where it stands."""

    span: Span
    message: str

    def error(self) -> ProgramError:
        return self.span.error(self.message)


class _Named(NamedTuple):
    """`name = value` in parameters or attributes."""

    name: str
    value: Any
    span: Span


_Parameter = TypeName | Constant | _Named


class _Where(NamedTuple):
    """`where bindings: body`."""

    bindings: tuple[Binding, ...]
    body: Formula


@dataclass(frozen=True)
class _Call:
    """`name!<parameters>[columns](bindings: body where ...)`: an atom, an object, an aggregation.

    Attributes:
        parts: what stands in parentheses.
        arguments: the parts as values.
        bindings: the parts before a colon, if there is one.
        body: what follows the colon; without one, the parts of what can only be an aggregation.
    """

    span: Span
    name: str
    name_span: Span
    is_quantifier: bool
    single_world: bool
    parameters: tuple[_Parameter, ...]
    columns: tuple[Variable, ...] | None
    parts: tuple[_Part, ...]
    arguments: tuple[Expression, ...] | _Fault
    bindings: tuple[Binding, ...]
    body: Formula | None
    where: _Where | None

    @property
    def aggregates(self) -> bool:
        """Whether it can only be an aggregation."""
        marked = self.is_quantifier or self.single_world or self.columns is not None
        return marked or self.body is not None or self.where is not None


@dataclass(frozen=True)
class _Group:
    """`(a, b)`: a conjunction, or the results of an aggregation."""

    span: Span
    parts: tuple[_Part, ...]
    formula: Formula | _Fault


class _Heads(NamedTuple):
    parts: tuple[_Part, ...]
    exclusive: bool


class _Set(NamedTuple):
    """`{...}`."""

    facts: _Facts
    exclusive: bool
    span: Span


class _Variant(NamedTuple):
    """One of the alternatives in `type a = ...`; `types` only with parentheses."""

    name: str
    span: Span
    is_name: bool = True
    value: Constant | None = None
    types: tuple[TypeName, ...] | None = None


_Part = Expression | Formula | _Call | _Group | Binding


_MISPLACED_BINDING = (
    "a variable with its type stands only before the colon of an aggregation; to cast a value, "
    "write `x as i32`"
)


def _as_value(part: _Part) -> Expression | _Fault:
    if isinstance(part, Expression):
        return part
    if isinstance(part, _Call):
        if isinstance(part.arguments, _Fault):
            return part.arguments
        if not part.aggregates and not part.parameters:
            return Object(part.span, part.name, part.arguments)
        return _Fault(part.span, _unbound(part))
    if isinstance(part, _Group):
        return _Fault(part.span, "a tuple is not a value; give its elements one by one")
    if isinstance(part, Binding):
        return _Fault(part.span, _MISPLACED_BINDING)
    return _Fault(
        part.span,
        "a formula stands where a value is expected; values are joined with `&&`, `||` and `!`, "
        "formulas with `and`, `or` and `not`",
    )


def _as_values(parts: Sequence[_Part]) -> tuple[Expression, ...] | _Fault:
    values = []
    for part in parts:
        value = _as_value(part)
        if isinstance(value, _Fault):
            return value
        values.append(value)
    return tuple(values)


def _as_formula(part: _Part) -> Formula | _Fault:
    if isinstance(part, Formula):
        return part
    if isinstance(part, _Call):
        return _as_quantifier(part) if part.is_quantifier else _as_atom(part, "a formula")
    if isinstance(part, _Group):
        return part.formula
    if isinstance(part, Binding):
        return _Fault(part.span, _MISPLACED_BINDING)
    if isinstance(part, Binary):
        is_boolean = part.op not in _ARITHMETIC
    elif isinstance(part, Unary):
        is_boolean = part.op == "!"
    else:
        is_boolean = isinstance(part, Cast | Conditional | Call)
    if is_boolean:
        return Constraint(part.span, part)
    if isinstance(part, Variable):
        return _Fault(
            part.span,
            f"{part.name} alone is not a formula; write an atom, `{part.name}(...)`, or a "
            f"comparison, `{part.name} == ...`",
        )
    return _Fault(
        part.span,
        f"{_shown(part)} is a value, not a formula; write an atom, such as `p(x)`, or a "
        "comparison, such as `x == 1`",
    )


def _as_conjunction(span: Span, parts: Sequence[_Part]) -> Formula | _Fault:
    formulas = []
    for part in parts:
        formula = _as_formula(part)
        if isinstance(formula, _Fault):
            if isinstance(part, Variable) and isinstance(parts[-1], Reduce):
                return _Fault(
                    part.span,
                    "several results of an aggregation stand in parentheses: "
                    f"`({part.name}, ...) := {parts[-1].operator}(...)`",
                )
            return formula
        formulas.append(formula)
    return formulas[0] if len(formulas) == 1 else Conjunction(span, tuple(formulas))


def _as_atom(part: _Part, what: str) -> Atom | _Fault:
    if isinstance(part, _Call):
        if part.aggregates:
            return _Fault(part.span, _unbound(part))
        if isinstance(part.arguments, _Fault):
            return part.arguments
        types = []
        for parameter in part.parameters:
            if not isinstance(parameter, TypeName):
                return _Fault(
                    parameter.span,
                    f"the parameters of an atom are types, as in `{part.name}<i32>(...)`; if "
                    f"{part.name} is an aggregation, bind its result: `n := {part.name}<...>(...)`",
                )
            types.append(parameter)
        return Atom(part.span, part.name, part.arguments, tuple(types))
    if isinstance(part, Object):
        return Atom(part.span, part.functor, part.arguments)
    mend = f"`{part.name}(...)`" if isinstance(part, Variable) else "`p(x)`"
    return _Fault(part.span, f"{what} is a name with arguments, as {mend}, not {_shown(part)}")


def _as_quantifier(part: _Call, negation: Token | None = None) -> Quantifier | _Fault:
    if part.parameters or part.columns is not None:
        return _Fault(
            part.name_span,
            f"{part.name} takes no parameters here; write `{part.name}(x: p(x))`",
        )
    reduce = _as_reduce(part, (), part.span)
    if isinstance(reduce, _Fault):
        return reduce
    if negation is None:
        return Quantifier(part.span, False, reduce)
    return Quantifier(_join(_span(part.span.source, negation), part.span), True, reduce)


def _as_reduce(
    part: _Call, results: tuple[Variable | Wildcard, ...], span: Span
) -> Reduce | _Fault:
    body: Formula | _Fault | None = part.body
    if body is None and part.parts:
        body = _as_conjunction(_join(part.parts[0].span, part.parts[-1].span), part.parts)
    if body is None or isinstance(body, _Fault):
        return _Fault(
            part.span,
            f"{_shown(part)} is not an aggregation, which holds variables and a formula, as "
            f"`{part.name}(x: p(x))`; to compare values write `==`, to call a function `$f(x)`",
        )
    positional = []
    named: dict[str, Constant] = {}
    for parameter in part.parameters:
        if isinstance(parameter, Constant):
            positional.append(parameter)
            continue
        flag = Constant(parameter.span, "bool", True)
        value = flag if isinstance(parameter, TypeName) else parameter.value
        if parameter.name in named:
            return _Fault(parameter.span, f"{part.name} is given {parameter.name} twice; keep one")
        named[parameter.name] = value
    return Reduce(
        span,
        results=results,
        operator=part.name,
        operator_span=part.name_span,
        single_world=part.single_world,
        parameters=tuple(positional),
        named=named,
        arguments=part.columns or (),
        bindings=part.bindings,
        body=body,
        group_bindings=part.where.bindings if part.where else (),
        group=part.where.body if part.where else None,
    )


def _bindings(parts: Sequence[_Part]) -> tuple[Binding, ...]:
    bindings = []
    for part in parts:
        if isinstance(part, Variable):
            bindings.append(Binding(part.span, part.name))
        elif isinstance(part, Binding):
            bindings.append(part)
        else:
            raise part.span.error(
                "before the colon of an aggregation stand variables, `x` or `(x: i32)`, not "
                f"{_shown(part)}"
            )
    return tuple(bindings)


def _unbound(part: _Call) -> str:
    return (
        f"the result of the aggregation {part.name} must be bound to a variable; write "
        f"`n := {part.name}(...)` as a formula of its own"
    )


def _value(part: _Part) -> Expression:
    value = _as_value(part)
    if isinstance(value, _Fault):
        raise value.error()
    return value


def _operand(part: _Part) -> Expression:
    """A value that is computed, which an object is not."""
    value = _value(part)
    if not isinstance(value, Object):
        return value
    source, start = value.span.source, value.span.start
    if arrow := re.search(r"<-\s*$", source.text[max(0, start - 10) : start]):
        at = start - len(arrow[0])
        raise Span(source, at, at + 2).error(
            "between the head and the body of a rule stands `=` or `:-`, not `<-`"
        )
    name = value.functor
    raise value.span.error(
        f"{_shown(value)} has no value here; call a function as `${name}(...)`, create an entity "
        f"as `new {name}(...)`, match one as `case x is {name}(...)`, and join an atom by `and`"
    )


def _operands(parts: Sequence[_Part] | None) -> tuple[Expression, ...]:
    return tuple(_operand(part) for part in parts or ())


def _formula(part: _Part) -> Formula:
    formula = _as_formula(part)
    if isinstance(formula, _Fault):
        raise formula.error()
    return formula


def _conjunction(parts: Sequence[_Part]) -> Formula:
    formula = _as_conjunction(_join(parts[0].span, parts[-1].span), parts)
    if isinstance(formula, _Fault):
        raise formula.error()
    return formula


_Sound = TypeVar("_Sound")


def _sound(part: _Sound | _Fault) -> _Sound:
    if isinstance(part, _Fault):
        raise part.error()
    return part


def _join(first: Span, last: Span) -> Span:
    return Span(first.source, first.start, last.end)


def _span(source: Source, first: Token, last: Token | None = None) -> Span:
    start, end = first.start_pos, (first if last is None else last).end_pos
    assert start is not None
    assert end is not None
    return Span(source, start, end)


def _shown(part: _Part, limit: int = 40) -> str:
    span = part.span
    text = " ".join(span.source.text[span.start : min(span.end, span.start + limit)].split())
    return f"`{text}`" if span.end - span.start <= limit else f"`{text}...`"


# Its methods are called as the rules and tokens of the grammar are, on what their parts became.
@v_args(inline=True)
class TreeBuilder(Transformer[Token, Any]):
    """Builds the tree of `source` as lark reads it."""

    source = Source("")

    def _at(self, first: Token, last: Token | Node | Span | None = None) -> Span:
        """From a token to the end of another, of a node or of a span; or the token alone."""
        if isinstance(last, Node):
            last = last.span
        if isinstance(last, Span):
            return _join(_span(self.source, first), last)
        return _span(self.source, first, last)

    # Tokens

    def INT(self, token: Token) -> Constant:  # noqa: N802
        if len(token) > _MAX_DIGITS:
            raise self._at(token).error(
                f"an integer of {len(token)} digits fits no type; the largest, u128, has 39 digits"
            )
        return Constant(self._at(token), "int", int(token))

    def FLOAT(self, token: Token) -> Constant:  # noqa: N802
        return Constant(self._at(token), "float", float(token))

    def BOOL(self, token: Token) -> Constant:  # noqa: N802
        return Constant(self._at(token), "bool", token == "true")

    def CHAR(self, token: Token) -> Constant:  # noqa: N802
        return Constant(self._at(token), "char", _unescape(token[1:-1]))

    def STRING(self, token: Token) -> Constant:  # noqa: N802
        quotes = 3 if token.startswith('"""') else 1
        return Constant(self._at(token), "string", _unescape(token[quotes:-quotes]))

    def SYMBOL(self, token: Token) -> Constant:  # noqa: N802
        return Constant(self._at(token), "symbol", token[2:-1])

    def DATETIME(self, token: Token) -> Constant:  # noqa: N802
        return Constant(self._at(token), "datetime", token[2:-1])

    def DURATION(self, token: Token) -> Constant:  # noqa: N802
        return Constant(self._at(token), "duration", token[2:-1])

    # Items

    def program(self, *items: Item) -> list[Item]:
        return list(items)

    def single_rule(self, _rel: Token, rule: Rule | ReduceRule | Fact | FactSet) -> Item:
        return rule

    def single_expression(self, part: _Part) -> Expression:
        return _value(part)

    def import_file(
        self, attributes: tuple[Attribute, ...], keyword: Token, path: Constant
    ) -> Import:
        return Import(self._at(keyword, path), attributes, path.value)

    def sub_type(
        self, attributes: tuple[Attribute, ...], keyword: Token, name: Token, base: TypeName
    ) -> SubType:
        return SubType(self._at(keyword, base), attributes, str(name), base)

    def variants(
        self, attributes: tuple[Attribute, ...], keyword: Token, name: Token, *variants: _Variant
    ) -> AliasType | EnumType | AlgebraicType:
        span = _join(self._at(keyword), variants[-1].span)
        first = variants[0]
        if len(variants) == 1 and first.value is None and first.types is None:
            return AliasType(span, attributes, str(name), TypeName(first.span, first.name))
        odd = [v for v in variants if (v.types is None) != (first.types is None)]
        if odd:
            raise odd[0].span.error(
                f"the type {name} mixes members with and without parentheses; write `()` after "
                "every member that has no arguments, or after none"
            )
        for variant in variants:
            if not variant.is_name:
                raise variant.span.error(
                    f"{variant.name} is a type, which cannot be a member of {name}; wrap it, as "
                    f"`Some({variant.name})`, or rename it"
                )
        if first.types is None:
            return EnumType(
                span, attributes, str(name), tuple((v.name, v.value, v.span) for v in variants)
            )
        return AlgebraicType(
            span, attributes, str(name), tuple((v.name, v.types or (), v.span) for v in variants)
        )

    def relation_types(
        self, attributes: tuple[Attribute, ...], keyword: Token, *relations: RelationType
    ) -> RelationTypes:
        return RelationTypes(self._at(keyword, relations[-1]), attributes, relations)

    def extern_types(
        self,
        attributes: tuple[Attribute, ...],
        extern: Token,
        _type: Token,
        *relations: RelationType,
    ) -> RelationTypes:
        return RelationTypes(self._at(extern, relations[-1]), attributes, relations, extern=True)

    def function_type(
        self,
        attributes: tuple[Attribute, ...],
        keyword: Token,
        name: Token,
        arguments: tuple[ArgumentType, ...] | None,
        result: TypeName,
    ) -> FunctionType:
        span = self._at(keyword, result)
        return FunctionType(span, attributes, str(name), arguments or (), result)

    def constants(
        self,
        attributes: tuple[Attribute, ...],
        keyword: Token,
        *assignments: tuple[str, TypeName | None, Expression, Span],
    ) -> Constants:
        return Constants(_join(self._at(keyword), assignments[-1][3]), attributes, assignments)

    def declared(
        self, attributes: tuple[Attribute, ...], keyword: Token, node: _Declared
    ) -> _Declared:
        return replace(node, span=self._at(keyword, node), attributes=attributes)

    # Attributes

    def attributes(self, *attributes: Attribute) -> tuple[Attribute, ...]:
        return attributes

    def attribute(self, at: Token, name: Token, *arguments: Any) -> Attribute:
        positional = []
        keywords: dict[str, Any] = {}
        for argument in arguments:
            if not isinstance(argument, _Named):
                positional.append(argument)
            elif argument.name in keywords:
                raise argument.span.error(f"@{name} is given {argument.name} twice; keep one")
            else:
                keywords[argument.name] = argument.value
        return Attribute(self._at(at, name), str(name), tuple(positional), keywords)

    def keyword(self, name: Token, value: Any) -> _Named:
        return _Named(str(name), value, self._at(name))

    def attribute_constant(self, constant: Constant) -> Any:
        return constant.value

    def attribute_tuple(self, *values: Any) -> tuple[Any, ...]:
        return values

    def attribute_list(self, *values: Any) -> list[Any]:
        return list(values)

    # Types and constants

    def type_name(self, name: Token) -> TypeName:
        return TypeName(self._at(name), str(name))

    def types(self, *types: TypeName) -> tuple[TypeName, ...]:
        return types

    def variant(self, name: Token) -> _Variant:
        return _Variant(str(name), self._at(name), is_name=name.type == "NAME")

    def valued_variant(self, name: Token, value: Constant) -> _Variant:
        return _Variant(str(name), self._at(name, value), value=value)

    def functor(self, name: Token, types: tuple[TypeName, ...] | None, end: Token) -> _Variant:
        return _Variant(str(name), self._at(name, end), types=types or ())

    def relation_type(
        self, name: Token, arguments: tuple[ArgumentType, ...] | None, end: Token
    ) -> RelationType:
        return RelationType(self._at(name, end), str(name), arguments or ())

    def argument_types(self, *types: ArgumentType) -> tuple[ArgumentType, ...]:
        return types

    def argument_type(
        self, adornment: Token | None, name: Token | None, kind: TypeName
    ) -> ArgumentType:
        first = adornment or name
        return ArgumentType(
            kind.span if first is None else self._at(first, kind),
            kind,
            None if name is None else str(name),
            None if adornment is None else "bound" if adornment == "bound" else "free",
        )

    def assignment(
        self, name: Token, kind: TypeName | None, part: _Part
    ) -> tuple[str, TypeName | None, Expression, Span]:
        value = _value(part)
        return str(name), kind, value, self._at(name, value)

    # Rules and facts

    def rule(
        self, tag: _Part | None, heads: _Heads, definition: _Set | tuple[_Part, ...] | None
    ) -> Rule | ReduceRule | Fact | FactSet:
        first, last = heads.parts[0], heads.parts[-1]
        if definition is None:
            end = last.span
        elif isinstance(definition, _Set):
            end = definition.span
        else:
            end = definition[-1].span
        span = _join(first.span if tag is None else tag.span, end)
        if isinstance(definition, _Set):
            if tag is not None:
                raise tag.span.error(
                    "a set of facts takes no tag; tag its tuples: `{0.5::(1, 2), ...}`"
                )
            if not isinstance(first, Variable) or len(heads.parts) > 1:
                raise first.span.error(
                    f"a set of facts belongs to the name of a relation, not to {_shown(first)}; "
                    "write `rel name = {...}`"
                )
            return FactSet(span, (), first.name, definition.facts, definition.exclusive)
        if isinstance(first, Variable) and len(heads.parts) == 1 and definition is not None:
            return self._reduce_rule(tag, first, definition, span)
        what = "a fact" if definition is None else "the head of a rule"
        atoms = tuple(_sound(_as_atom(part, what)) for part in heads.parts)
        tag_value = None if tag is None else _value(tag)
        if definition is not None:
            return Rule(span, (), tag_value, atoms, heads.exclusive, _conjunction(definition))
        if len(atoms) > 1:
            raise last.span.error(
                "a fact is a single atom; write `rel` before each, or a body, `= ...`, after all"
            )
        return Fact(span, (), tag_value, atoms[0])

    def _reduce_rule(
        self, tag: _Part | None, head: Variable, body: tuple[_Part, ...], span: Span
    ) -> ReduceRule:
        if len(body) > 1 or not isinstance(body[0], _Call):
            raise head.span.error(
                f"{head.name} has no arguments; the head of a rule is an atom, "
                f"`{head.name}(x) = ...`, and without arguments stand a set of facts, "
                f"`{head.name} = {{...}}`, or an aggregation, `{head.name} = count(x: p(x))`"
            )
        if tag is not None:
            raise tag.span.error(
                "an aggregation takes no tag here; write it as a rule, "
                f"`tag::{head.name}(n) = n := {_shown(body[0])}`"
            )
        return ReduceRule(span, (), head.name, _sound(_as_reduce(body[0], (), body[0].span)))

    def conjunctive_heads(self, *parts: _Part) -> _Heads:
        return _Heads(parts, exclusive=False)

    def exclusive_heads(self, *parts: _Part) -> _Heads:
        return _Heads(parts, exclusive=True)

    def fact_set(self, start: Token, *facts: Any) -> _Set:
        *tuples, end = facts
        return _Set(tuple(tuples), exclusive=False, span=self._at(start, end))

    def exclusive_set(self, start: Token, *facts: Any) -> _Set:
        return self.fact_set(start, *facts)._replace(exclusive=True)

    def row(self, start: Token, *cells: Any) -> tuple[None, tuple[Any, ...], Span]:
        *values, end = cells
        return None, tuple(values), self._at(start, end)

    def single(self, cell: Constant | Variable) -> tuple[None, tuple[Any, ...], Span]:
        return None, (cell,), cell.span

    def tagged_row(
        self, tag: Constant, row: tuple[None, tuple[Any, ...], Span]
    ) -> tuple[Constant, tuple[Any, ...], Span]:
        return tag, row[1], _join(tag.span, row[2])

    def query(self, part: _Part) -> Query:
        if isinstance(part, Variable):
            return Query(part.span, (), part.name)
        return Query(part.span, (), _sound(_as_atom(part, "a query")))

    # Formulas

    def body(self, *parts: _Part) -> tuple[_Part, ...]:
        return parts

    def implication(self, left: _Part, right: _Part) -> Implication:
        return Implication(_join(left.span, right.span), _formula(left), _formula(right))

    def alternatives(self, *parts: _Part) -> Disjunction:
        span = _join(parts[0].span, parts[-1].span)
        return Disjunction(span, tuple(_formula(part) for part in parts))

    def conjunction(self, *parts: _Part) -> Conjunction:
        span = _join(parts[0].span, parts[-1].span)
        return Conjunction(span, tuple(_formula(part) for part in parts))

    def negation(self, token: Token, part: _Part) -> Negation | Quantifier:
        if isinstance(part, _Call) and part.is_quantifier:
            return _sound(_as_quantifier(part, token))
        if isinstance(part, _Call | Object):
            return Negation(self._at(token, part.span), _sound(_as_atom(part, "what is negated")))
        if isinstance(part, Formula | _Group):
            mend = (
                "give the formula a rule of its own and negate its head, or push `not` inwards, "
                "where `and` becomes `or`"
            )
        else:
            mend = "write the opposite comparison, such as `!=` for `==`, or `!x` for a value"
        raise part.span.error(
            f"`{token}` stands before an atom, exists or forall, not before {_shown(part)}; {mend}"
        )

    def reduction(self, left: _Part, symbol: Token, right: _Part) -> Reduce:
        results = left.parts if isinstance(left, _Group) else (left,)
        names = tuple(part for part in results if isinstance(part, Variable | Wildcard))
        if not isinstance(right, _Call) or len(names) < len(results):
            raise self._at(symbol).error(
                f"`{symbol}` binds the result of an aggregation to variables, as in "
                "`n := count(x: p(x))`; to compare two values, write `==`"
            )
        return _sound(_as_reduce(right, names, _join(left.span, right.span)))

    def in_range(self, part: _Part, start: _Part, dots: Token, stop: _Part) -> Range:
        if not isinstance(part, Variable):
            raise part.span.error(f"before `in` stands a variable, not {_shown(part)}")
        span = _join(part.span, stop.span)
        return Range(span, part, _operand(start), _operand(stop), inclusive=dots == "..=")

    def case(self, token: Token, part: _Part, pattern: _Part) -> Case:
        if not isinstance(part, Variable):
            raise part.span.error(f"between `case` and `is` stands a variable, not {_shown(part)}")
        return Case(self._at(token, pattern.span), part, _value(pattern))

    # Expressions

    def if_then_else(
        self, token: Token, condition: _Part, then: _Part, otherwise: _Part
    ) -> Conditional:
        span = self._at(token, otherwise.span)
        return Conditional(span, _operand(condition), _operand(then), _operand(otherwise))

    def ternary(self, condition: _Part, then: _Part, otherwise: _Part) -> Conditional:
        span = _join(condition.span, otherwise.span)
        return Conditional(span, _operand(condition), _operand(then), _operand(otherwise))

    def binary(self, left: _Part, op: Token, right: _Part) -> Binary:
        return Binary(_join(left.span, right.span), str(op), _operand(left), _operand(right))

    def unary(self, op: Token, part: _Part) -> Unary:
        return Unary(self._at(op, part.span), str(op), _operand(part))

    def negative(self, minus: Token, number: Constant) -> Constant:
        return Constant(self._at(minus, number.span), number.kind, -number.value)

    def cast(self, part: _Part, kind: TypeName) -> Cast:
        return Cast(_join(part.span, kind.span), _operand(part), kind)

    def wildcard(self, token: Token) -> Wildcard:
        return Wildcard(self._at(token))

    def variable(self, name: Token) -> Variable:
        return Variable(self._at(name), str(name))

    def group(self, start: Token, *parts: Any) -> _Part:
        *inner, end = parts
        span = self._at(start, end)
        if len(inner) > 1:
            return _Group(span, tuple(inner), _as_conjunction(span, inner))
        part: _Part = replace(inner[0], span=span)
        return part

    def typed(self, start: Token, name: Token, kind: TypeName, end: Token) -> Binding:
        return Binding(self._at(start, end), str(name), kind)

    def call(self, dollar: Token, name: Token, parts: tuple[_Part, ...] | None, end: Token) -> Call:
        return Call(self._at(dollar, end), str(name), _operands(parts))

    def new(self, token: Token, name: Token, parts: tuple[_Part, ...] | None, end: Token) -> New:
        return New(self._at(token, end), str(name), _operands(parts))

    def callee(self, name: Token) -> Token:
        return name

    def arguments(self, *parts: _Part) -> tuple[_Part, ...]:
        return parts

    def parameters(self, *parameters: Token | Constant | _Named) -> tuple[_Parameter, ...]:
        return tuple(self.type_name(p) if isinstance(p, Token) else p for p in parameters)

    def named_parameter(self, name: Token, value: Constant) -> _Named:
        return _Named(str(name), value, self._at(name, value))

    def columns(self, *columns: Variable) -> tuple[Variable, ...]:
        return columns

    def where(self, parts: tuple[_Part, ...], body: tuple[_Part, ...]) -> _Where:
        return _Where(_bindings(parts), _conjunction(body))

    def application(
        self,
        callee: Token,
        bang: Token | None,
        parameters: tuple[_Parameter, ...] | None,
        columns: tuple[Variable, ...] | None,
        parts: tuple[_Part, ...] | None,
        where: _Where | None,
        end: Token,
    ) -> _Call:
        given = parts or ()
        call = _Call(
            self._at(callee, end),
            _QUANTIFIERS.get(callee, str(callee)),
            self._at(callee),
            callee.type == "QUANTIFIER",
            bang is not None,
            parameters or (),
            columns,
            given,
            _as_values(given),
            (),
            None,
            where,
        )
        return replace(call, body=_conjunction(given)) if given and call.aggregates else call

    def aggregation(
        self,
        callee: Token,
        bang: Token | None,
        parameters: tuple[_Parameter, ...] | None,
        columns: tuple[Variable, ...] | None,
        parts: tuple[_Part, ...],
        body: tuple[_Part, ...],
        where: _Where | None,
        end: Token,
    ) -> _Call:
        return _Call(
            self._at(callee, end),
            _QUANTIFIERS.get(callee, str(callee)),
            self._at(callee),
            callee.type == "QUANTIFIER",
            bang is not None,
            parameters or (),
            columns,
            parts,
            _as_values(parts),
            _bindings(parts),
            _conjunction(body),
            where,
        )


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPED[found[1]], text)
