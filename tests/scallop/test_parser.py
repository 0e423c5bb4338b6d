"""The parser: every construct of the language, as a tree written out with all its parentheses."""

from __future__ import annotations

import importlib.util
import threading
import time
from typing import Any

import lark
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byssus import ProgramError
from byssus_scallop import _parser
from byssus_scallop._parser import (
    parse_expression,
    parse_item,
    parse_program,
    parse_query,
    parse_relation_type,
    parse_rule,
    parse_type,
)
from byssus_scallop._syntax import (
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
    Fact,
    FactSet,
    FunctionType,
    Implication,
    Import,
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
    SubType,
    TypeName,
    Unary,
    Variable,
    Wildcard,
    walk,
)


def items(text: str) -> list[Any]:
    return parse_program(Source(text, "test.scl"))


def item(text: str) -> Any:
    (one,) = items(text)
    assert one.span.end == len(text.rstrip())
    return one


def body(text: str) -> str:
    return shown(item(f"rel r() = {text}").body)


def value(text: str) -> str:
    return shown(item(f"rel r({text})").atom.arguments[0])


def commas(parts: Any) -> str:
    return ", ".join(map(shown, parts))


def shown(node: Any) -> str:
    """A formula or expression, with the name of its class wherever that is not evident."""
    match node:
        case Constant(kind=kind, value=given):
            return f"{given!r}" if kind in ("int", "float", "string") else f"{kind}:{given!r}"
        case Variable(name=name) | TypeName(name=name):
            return name
        case Wildcard():
            return "_"
        case Binary(op=op, left=left, right=right):
            return f"({shown(left)} {op} {shown(right)})"
        case Unary(op=op, operand=operand):
            return f"({op} {shown(operand)})"
        case Cast(operand=operand, type=kind):
            return f"({shown(operand)} as {kind.name})"
        case Conditional(condition=condition, then=then, otherwise=otherwise):
            return f"(if {shown(condition)} then {shown(then)} else {shown(otherwise)})"
        case Call(function=name, arguments=arguments):
            return f"${name}({commas(arguments)})"
        case New(functor=name, arguments=arguments):
            return f"new {name}({commas(arguments)})"
        case Object(functor=name, arguments=arguments):
            return f"object {name}({commas(arguments)})"
        case Atom(predicate=name, arguments=arguments, type_arguments=types):
            return f"{name}{f'<{commas(types)}>' if types else ''}({commas(arguments)})"
        case Negation(atom=atom):
            return f"not {shown(atom)}"
        case Conjunction(parts=parts):
            return f"and[{commas(parts)}]"
        case Disjunction(parts=parts):
            return f"or[{commas(parts)}]"
        case Implication(left=left, right=right):
            return f"[{shown(left)} implies {shown(right)}]"
        case Constraint(expression=expression):
            return f"check {shown(expression)}"
        case Case(variable=variable, pattern=pattern):
            return f"case {shown(variable)} is {shown(pattern)}"
        case Range(variable=variable, start=start, stop=stop, inclusive=inclusive):
            dots = "..=" if inclusive else ".."
            return f"{shown(variable)} in {shown(start)}{dots}{shown(stop)}"
        case Binding(name=name, type=kind):
            return name if kind is None else f"({name}: {kind.name})"
        case Quantifier(negated=negated, reduce=reduce):
            return f"{'not ' if negated else ''}{shown(reduce)}"
        case Reduce():
            return shown_reduce(node)
    raise AssertionError(node)


def shown_reduce(node: Reduce) -> str:
    assert str(node.operator_span) in (node.operator, "∃", "∀")
    given = [shown(one) for one in node.parameters]
    given += [f"{name}={shown(one)}" for name, one in node.named.items()]
    group = "" if node.group is None else f" where {commas(node.group_bindings)}: "
    return "".join(
        [
            f"({commas(node.results)}) := " if node.results else "",
            node.operator + "!" * node.single_world,
            f"<{', '.join(given)}>" if given else "",
            f"[{commas(node.arguments)}]" if node.arguments else "",
            f"({commas(node.bindings)}: {shown(node.body)}",
            group + (shown(node.group) if group else "") + ")",
        ]
    )


# Literals


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("0", "int", 0),
        ("00012", "int", 12),
        ("340282366920938463463374607431768211455", "int", 2**128 - 1),
        ("-5", "int", -5),
        ("- 5", "int", -5),
        ("3.25", "float", 3.25),
        ("-3.25", "float", -3.25),
        ("1.5e3", "float", 1500.0),
        ("1.5e-3", "float", 0.0015),
        ("2e3", "float", 2000.0),
        ("true", "bool", True),
        ("false", "bool", False),
        ("'a'", "char", "a"),
        ("' '", "char", " "),
        ("'é'", "char", "é"),
        (r"'\n'", "char", "\n"),
        (r"'\t'", "char", "\t"),
        (r"'\''", "char", "'"),
        (r"'\\'", "char", "\\"),
        ('"abc"', "string", "abc"),
        ('""', "string", ""),
        (r'"a\tb\nc\rd\0e\"f\'g\\h"', "string", "a\tb\nc\rd\0e\"f'g\\h"),
        (r'"\\n"', "string", r"\n"),
        (r'"\d"', "string", r"\d"),
        ('"// no comment /* here */"', "string", "// no comment /* here */"),
        ('"two\nlines"', "string", "two\nlines"),
        ('"ünï∀"', "string", "ünï∀"),
        ('"""with "quotes" and\nlines"""', "string", 'with "quotes" and\nlines'),
        ('""""""', "string", ""),
        ('s"symbol"', "symbol", "symbol"),
        ('t"2020-01-01"', "datetime", "2020-01-01"),
        ('d"12 days"', "duration", "12 days"),
    ],
)
def test_literals(text: str, kind: str, expected: Any) -> None:
    for constant in (
        item(f"rel r({text})").atom.arguments[0],
        item(f"rel r = {{{text}}}").tuples[0][1][0],
    ):
        assert isinstance(constant, Constant)
        assert (constant.kind, constant.value) == (kind, expected)
        assert type(constant.value) is type(expected)
        assert str(constant.span) == text


# Expressions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", "x"),
        ("_", "_"),
        ("a + b * c", "(a + (b * c))"),
        ("(a + b) * c", "((a + b) * c)"),
        ("a - b - c", "((a - b) - c)"),
        ("a / b % c", "((a / b) % c)"),
        ("x-1", "(x - 1)"),
        ("x - 1", "(x - 1)"),
        ("x -1", "(x - 1)"),
        ("x - -1", "(x - -1)"),
        ("-x + 1", "((- x) + 1)"),
        ("+x", "(+ x)"),
        ("!x", "(! x)"),
        ("!!x", "(! (! x))"),
        ("-(1)", "(- 1)"),
        ("a + 1 < b * 2", "((a + 1) < (b * 2))"),
        ("a == b && c != d", "((a == b) && (c != d))"),
        ("a && b || c ^ d", "(((a && b) || c) ^ d)"),
        ("(a < b) == c", "((a < b) == c)"),
        ("a <= b", "(a <= b)"),
        ("a >= b", "(a >= b)"),
        ("a<b", "(a < b)"),
        ("a<-1", "(a < -1)"),
        ("x as i32", "(x as i32)"),
        ("x as i32 as String", "((x as i32) as String)"),
        ("x as Color", "(x as Color)"),
        ("-128 as i8", "(-128 as i8)"),
        ("-x as i8", "(- (x as i8))"),
        ("(a + b) as f32", "((a + b) as f32)"),
        ("a + b as f32", "(a + (b as f32))"),
        ("if a < b then a else b", "(if (a < b) then a else b)"),
        ("if a then 1 else if b then 2 else 3", "(if a then 1 else (if b then 2 else 3))"),
        ("a ? 1 : b ? 2 : 3", "(if a then 1 else (if b then 2 else 3))"),
        ("(a ? 1 : 2) + 3", "((if a then 1 else 2) + 3)"),
        ("$f()", "$f()"),
        ("$f(x, $g(y + 1),)", "$f(x, $g((y + 1)))"),
        ('$format("{}", x)', "$format('{}', x)"),
        ("new Cons(1, new Nil())", "new Cons(1, new Nil())"),
        ("Cons(1, Cons(x, Nil()))", "object Cons(1, object Cons(x, object Nil()))"),
        ("((x))", "x"),
        ("order", "order"),
        ("island - newest * types", "(island - (newest * types))"),
        ("nothing + i320 + Strings + truest", "(((nothing + i320) + Strings) + truest)"),
    ],
)
def test_expressions(text: str, expected: str) -> None:
    assert value(text) == expected
    assert shown(parse_expression(Source(text))) == expected


def test_expressions_know_their_text() -> None:
    text = "rel r(x) = p(x, y), (x + 1) * $f(y) == -2, not q(new C(x) as T)"
    spans = {type(node): str(node.span) for node in walk(item(text)) if not isinstance(node, Rule)}
    assert spans[Negation] == "not q(new C(x) as T)"
    assert spans[Constraint] == "(x + 1) * $f(y) == -2"
    assert spans[Call] == "$f(y)"
    assert spans[Cast] == "new C(x) as T"
    assert spans[Conjunction] == text.split("= ", 1)[1]


# Formulas


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p()", "p()"),
        ("p(x, 1, _, y + 1,)", "p(x, 1, _, (y + 1))"),
        ("p(x), q(y), r(z)", "and[p(x), q(y), r(z)]"),
        ("p(x) and q(y) and r(z)", "and[p(x), q(y), r(z)]"),
        (r"p(x) /\ q(y) \/ r(z)", "or[and[p(x), q(y)], r(z)]"),
        ("p(x) or q(y) and r(z)", "or[p(x), and[q(y), r(z)]]"),
        ("(p(x) or q(x)) and r(x)", "and[or[p(x), q(x)], r(x)]"),
        ("(p(x) or q(x)), r(x)", "and[or[p(x), q(x)], r(x)]"),
        ("p(x), q(x) and r(x)", "and[p(x), and[q(x), r(x)]]"),
        ("(p(x), q(x)) or r(x)", "or[and[p(x), q(x)], r(x)]"),
        ("p(x), (a + b) == c", "and[p(x), check ((a + b) == c)]"),
        ("((a + b)) == c", "check ((a + b) == c)"),
        ("(a == b)", "check (a == b)"),
        ("(p(x))", "p(x)"),
        ("not p(x)", "not p(x)"),
        ("~p(x), ~ q(x)", "and[not p(x), not q(x)]"),
        ("(not p(x)) or (~q(x))", "or[not p(x), not q(x)]"),
        ("p(x) implies q(x)", "[p(x) implies q(x)]"),
        ("p(x) and s(x) => q(x) or r(x)", "[and[p(x), s(x)] implies or[q(x), r(x)]]"),
        ("a < b and c > d", "and[check (a < b), check (c > d)]"),
        ("a < b, c > d", "and[check (a < b), check (c > d)]"),
        ("a < b, c > (d)", "and[check (a < b), check (c > d)]"),
        ("a<b, c> d", "and[check (a < b), check (c > d)]"),
        ("a < b and c > (d + 1)", "and[check (a < b), check (c > (d + 1))]"),
        ("!x", "check (! x)"),
        ("x as bool", "check (x as bool)"),
        ("$f(x)", "check $f(x)"),
        ("a && b || c", "check ((a && b) || c)"),
        ("range<i32>(0, 5, x)", "range<i32>(0, 5, x)"),
        ("range < i32 > (0, 5, x)", "range<i32>(0, 5, x)"),
        ("f<i32, String>(x)", "f<i32, String>(x)"),
        ("f<i32 , Color>(x), a < b", "and[f<i32, Color>(x), check (a < b)]"),
        ("x in 0..5", "x in 0..5"),
        ("x in 0..=5", "x in 0..=5"),
        ("x in (a + 1)..b and p(x)", "and[x in (a + 1)..b, p(x)]"),
        ("case e is Cons(x, _)", "case e is object Cons(x, _)"),
        (
            "case e is Add(Const(1), f) and p(f)",
            "and[case e is object Add(object Const(1), f), p(f)]",
        ),
        ("p(Cons(x, Nil()))", "p(object Cons(x, object Nil()))"),
    ],
)
def test_formulas(text: str, expected: str) -> None:
    assert body(text) == expected
    assert shown(item(f"rel r() :- {text}").body) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n := count(x: p(x))", "(n) := count(x: p(x))"),
        ("n = count(x: p(x))", "(n) := count(x: p(x))"),
        ("n := count(x, y: p(x), q(y))", "(n) := count(x, y: and[p(x), q(y)])"),
        ("n := count(x: p(x) or q(x))", "(n) := count(x: or[p(x), q(x)])"),
        ("n := count((x: i32), y: p(x, y))", "(n) := count((x: i32), y: p(x, y))"),
        ("n := count(p(x))", "(n) := count(: p(x))"),
        ("n := count(p(x), x < 3)", "(n) := count(: and[p(x), check (x < 3)])"),
        ("n := count!(x: p(x))", "(n) := count!(x: p(x))"),
        ("_ := count(x: p(x))", "(_) := count(x: p(x))"),
        ("n := count(x: p(x) where y: q(y))", "(n) := count(x: p(x) where y: q(y))"),
        (
            "n := count(x: p(x) where y, (z: u8): q(y), r(z))",
            "(n) := count(x: p(x) where y, (z: u8): and[q(y), r(z)])",
        ),
        ("n := count(p(x) where y: q(y))", "(n) := count(: p(x) where y: q(y))"),
        ("(x, y) := argmin[z](w: p(z, w))", "(x, y) := argmin[z](w: p(z, w))"),
        ("(x, _,) = argmax[a, b,](c: p(a, b, c))", "(x, _) := argmax[a, b](c: p(a, b, c))"),
        ('s := string_join<" ">(x: p(x))', "(s) := string_join<' '>(x: p(x))"),
        (
            r's := string_join<"\">", all>(x: p(x))',
            "(s) := string_join<'\">', all=bool:True>(x: p(x))",
        ),
        ("x := top<1>(x: p(x))", "(x) := top<1>(x: p(x))"),
        ("x := top < 1 > (x: p(x))", "(x) := top<1>(x: p(x))"),
        ("x := top!<3>[a](x: p(x, a))", "(x) := top!<3>[a](x: p(x, a))"),
        ("x := sort<desc>[a](x: p(x))", "(x) := sort<desc=bool:True>[a](x: p(x))"),
        ("x := sort<asc = false>(x: p(x))", "(x) := sort<asc=bool:False>(x: p(x))"),
        (
            "x := op<1, -2.5, a = 'c', b>(x: p(x))",
            "(x) := op<1, -2.5, a=char:'c', b=bool:True>(x: p(x))",
        ),
        ("b := exists(x: p(x))", "(b) := exists(x: p(x))"),
        ("b := forall(x: p(x) => q(x))", "(b) := forall(x: [p(x) implies q(x)])"),
        ("exists(x: p(x))", "exists(x: p(x))"),
        ("exists(p(3))", "exists(: p(3))"),
        ("∃(x: p(x)) and ∀(x: q(x))", "and[exists(x: p(x)), forall(x: q(x))]"),
        ("not exists(x: p(x))", "not exists(x: p(x))"),
        ("~forall!(x: p(x) implies q(x))", "not forall!(x: [p(x) implies q(x)])"),
        (
            "p(x), n := max(y: q(x, y)), n > 3",
            "and[p(x), (n) := max(y: q(x, y)), check (n > 3)]",
        ),
        (
            "n := count(x: m := max(y: p(x, y)) and q(m))",
            "(n) := count(x: and[(m) := max(y: p(x, y)), q(m)])",
        ),
    ],
)
def test_aggregations(text: str, expected: str) -> None:
    assert body(text) == expected


# Rules and facts


@pytest.mark.parametrize(
    ("text", "tag", "heads", "exclusive", "formula"),
    [
        ("rel a(x) = p(x)", None, ["a(x)"], False, "p(x)"),
        ("rel a(x) :- p(x)", None, ["a(x)"], False, "p(x)"),
        ("relation a(x) = p(x)", None, ["a(x)"], False, "p(x)"),
        ("rel a() = p(x)", None, ["a()"], False, "p(x)"),
        ("rel 0.3::a(x) = p(x)", "0.3", ["a(x)"], False, "p(x)"),
        ("rel 1.0 / l :: a(x) = p(x, l)", "(1.0 / l)", ["a(x)"], False, "p(x, l)"),
        ("rel p::a(x) = p(x, p)", "p", ["a(x)"], False, "p(x, p)"),
        ("rel (p + q)::a(x) = r(x, p, q)", "(p + q)", ["a(x)"], False, "r(x, p, q)"),
        ("rel a(x) and b(x) = p(x)", None, ["a(x)", "b(x)"], False, "p(x)"),
        (r"rel a(x) /\ b(x) /\ c() = p(x)", None, ["a(x)", "b(x)", "c()"], False, "p(x)"),
        ("rel {a(x), b(x)} = p(x)", None, ["a(x)", "b(x)"], False, "p(x)"),
        ("rel {a(x), b(x),} = p(x)", None, ["a(x)", "b(x)"], False, "p(x)"),
        ("rel {a(x); b(x)} = p(x)", None, ["a(x)", "b(x)"], True, "p(x)"),
        ("rel 0.5::{a(x); b(x); c(x);} = p(x)", "0.5", ["a(x)", "b(x)", "c(x)"], True, "p(x)"),
        ("rel a(x + 1, C(x)) = p(x)", None, ["a((x + 1), object C(x))"], False, "p(x)"),
    ],
)
def test_rules(text: str, tag: str | None, heads: list[str], exclusive: bool, formula: str) -> None:
    for rule in (item(text), parse_rule(Source(text)), parse_rule(Source(text.split(" ", 1)[1]))):
        assert isinstance(rule, Rule)
        assert (None if rule.tag is None else shown(rule.tag)) == tag
        assert [shown(head) for head in rule.heads] == heads
        assert rule.exclusive is exclusive
        assert shown(rule.body) == formula


@pytest.mark.parametrize("define", ["=", ":-"])
def test_an_aggregation_is_a_relation(define: str) -> None:
    rule = item(f"rel n {define} count(x: p(x))")
    assert isinstance(rule, ReduceRule)
    assert rule.name == "n"
    assert shown(rule.reduce) == "count(x: p(x))"
    assert shown(item("rel b = exists(x: p(x))").reduce) == "exists(x: p(x))"
    assert shown(item("rel t = top<3>[a](x: p(x, a))").reduce) == "top<3>[a](x: p(x, a))"
    assert isinstance(parse_rule(Source("n = count(x: p(x))")), ReduceRule)


@pytest.mark.parametrize(
    ("text", "tag", "atom"),
    [
        ('rel edge(0, "a")', None, "edge(0, 'a')"),
        ("rel edge()", None, "edge()"),
        ("rel 0.8::edge(1, -2)", "0.8", "edge(1, -2)"),
        ("rel 1 - 0.3 :: edge(A)", "(1 - 0.3)", "edge(A)"),
        ("rel true::edge(1)", "bool:True", "edge(1)"),
        ("rel tree(Node(1, Leaf()))", None, "tree(object Node(1, object Leaf()))"),
    ],
)
def test_facts(text: str, tag: str | None, atom: str) -> None:
    fact = item(text)
    assert isinstance(fact, Fact)
    assert (None if fact.tag is None else shown(fact.tag)) == tag
    assert shown(fact.atom) == atom


@pytest.mark.parametrize(
    ("text", "exclusive", "tuples"),
    [
        ("{}", False, []),
        ("{()}", False, [(None, [])]),
        ("{1, 2}", False, [(None, ["1"]), (None, ["2"])]),
        ("{1,}", False, [(None, ["1"])]),
        ("{(1)}", False, [(None, ["1"])]),
        ("{(-1, -5), (0, 3,),}", False, [(None, ["-1", "-5"]), (None, ["0", "3"])]),
        ("{(A, x), B}", False, [(None, ["A", "x"]), (None, ["B"])]),
        ('{0.3::("a", 1), 0.7::"b"}', False, [("0.3", ["'a'", "1"]), ("0.7", ["'b'"])]),
        ("{0.9::0; 0.1::1}", True, [("0.9", ["0"]), ("0.1", ["1"])]),
        ("{(A, 0); 0.5::(A, 1);}", True, [(None, ["A", "0"]), ("0.5", ["A", "1"])]),
        ('{t"2020-01-01"::(1, true)}', False, [("datetime:'2020-01-01'", ["1", "bool:True"])]),
    ],
)
def test_fact_sets(text: str, exclusive: bool, tuples: list[Any]) -> None:
    facts = item(f"rel r = {text}")
    assert isinstance(facts, FactSet)
    assert facts.name == "r"
    assert facts.exclusive is exclusive
    assert [
        (None if tag is None else shown(tag), [shown(one) for one in values])
        for tag, values, _ in facts.tuples
    ] == tuples


def test_tuples_know_their_text() -> None:
    facts = item("rel r = {0.3::(1, 2), (3, 4), 5}")
    assert [str(span) for _, _, span in facts.tuples] == ["0.3::(1, 2)", "(3, 4)", "5"]


def test_items_know_their_text() -> None:
    text = "@a(1)\nrel 0.5::p(x) = q(x)\n\ntype q(i32)  \n// end\n"
    rule, types = items(text)
    assert str(rule.span) == "rel 0.5::p(x) = q(x)"
    assert rule.span.line == 2
    assert str(types.span) == "type q(i32)"


# Types


def test_aliases_and_subtypes() -> None:
    alias, sub = items("type ID = usize type Name <: &str")
    assert isinstance(alias, AliasType)
    assert (alias.name, alias.type.name) == ("ID", "usize")
    assert isinstance(sub, SubType)
    assert (sub.name, sub.type.name) == ("Name", "&str")


def test_enums() -> None:
    enum = item("type Color = RED | GREEN = 3 | BLUE")
    assert isinstance(enum, EnumType)
    assert enum.name == "Color"
    assert [(name, value and value.value) for name, value, _ in enum.members] == [
        ("RED", None),
        ("GREEN", 3),
        ("BLUE", None),
    ]
    assert [str(span) for _, _, span in enum.members] == ["RED", "GREEN = 3", "BLUE"]


@pytest.mark.parametrize("bar", ["", "| "])
def test_algebraic_types(bar: str) -> None:
    kind = item(f"type List = {bar}Cons(i32, List,) | Nil()")
    assert isinstance(kind, AlgebraicType)
    assert [(name, [t.name for t in types]) for name, types, _ in kind.variants] == [
        ("Cons", ["i32", "List"]),
        ("Nil", []),
    ]
    assert [str(span) for _, _, span in kind.variants] == ["Cons(i32, List,)", "Nil()"]


def argument(one: ArgumentType) -> tuple[str | None, str | None, str]:
    return one.adornment, one.name, one.type.name


def test_relation_types() -> None:
    types = item("type edge(x: i32, i32), path(bound x: Color, free String, y: char,), empty()")
    assert isinstance(types, RelationTypes)
    assert not types.extern
    assert [(r.name, [argument(a) for a in r.arguments]) for r in types.relations] == [
        ("edge", [(None, "x", "i32"), (None, None, "i32")]),
        ("path", [("bound", "x", "Color"), ("free", None, "String"), (None, "y", "char")]),
        ("empty", []),
    ]
    extern = item("extern type edge(i32)")
    assert isinstance(extern, RelationTypes)
    assert extern.extern


_TYPES = (
    "i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize f32 f64 char bool &str String Symbol "
    "DateTime Duration Entity Tensor Color"
)


@pytest.mark.parametrize("name", _TYPES.split())
def test_type_names(name: str) -> None:
    assert parse_type(Source(name)).name == name
    assert item(f"type r({name})").relations[0].arguments[0].type.name == name


def test_function_types() -> None:
    function = item("type $leaf(m: String, bound h: i32, f32) -> String")
    assert isinstance(function, FunctionType)
    assert function.name == "leaf"
    assert [argument(a) for a in function.arguments] == [
        (None, "m", "String"),
        ("bound", "h", "i32"),
        (None, None, "f32"),
    ]
    assert function.result.name == "String"
    assert item("type $now() -> DateTime").arguments == ()


# Constants, imports, queries, attributes


def test_constants() -> None:
    constants = item('const A = 1, B: u8 = -2, C = Cons(1, Nil()), D = "x"')
    assert isinstance(constants, Constants)
    assert [
        (name, kind and kind.name, shown(value), str(span))
        for name, kind, value, span in constants.assignments
    ] == [
        ("A", None, "1", "A = 1"),
        ("B", "u8", "-2", "B: u8 = -2"),
        ("C", None, "object Cons(1, object Nil())", "C = Cons(1, Nil())"),
        ("D", None, "'x'", 'D = "x"'),
    ]


def test_imports() -> None:
    one = item('import "lib/graph.scl"')
    assert isinstance(one, Import)
    assert one.path == "lib/graph.scl"


def test_queries() -> None:
    name, atom, typed = items("query path query path(0, x) query range<i32>(0, 5, x)")
    assert all(isinstance(query, Query) for query in (name, atom, typed))
    assert name.target == "path"
    assert shown(atom.target) == "path(0, x)"
    assert shown(typed.target) == "range<i32>(0, 5, x)"
    assert parse_query(Source("path")).target == "path"
    target = parse_query(Source(" path(0, x) ")).target
    assert shown(target) == "path(0, x)"


def test_attributes() -> None:
    one = item(
        '@hidden @file("a.csv", header=true, keys=["a", "b"], -1,) @p((1, 2.5, ()), []) rel r = {}'
    )
    assert [(a.name, a.positional, a.keywords) for a in one.attributes] == [
        ("hidden", (), {}),
        ("file", ("a.csv", -1), {"header": True, "keys": ["a", "b"]}),
        ("p", ((1, 2.5, ()), []), {}),
    ]
    assert all(isinstance(a, Attribute) for a in one.attributes)


@pytest.mark.parametrize(
    "text",
    [
        'import "a.scl"',
        "type A = i32",
        "type A <: i32",
        "type A = B | C",
        "type A = B() | C()",
        "type a(i32)",
        "extern type a(i32)",
        "type $a(i32) -> i32",
        "const A = 1",
        "rel a = {1}",
        "rel a(1)",
        "rel a(x) = b(x)",
        "rel a = count(x: b(x))",
        "query a",
        "query a(1)",
    ],
)
def test_every_item_takes_attributes(text: str) -> None:
    plain = parse_item(Source(text))
    assert plain.attributes == ()
    (attribute,) = parse_item(Source(f"@note(1) {text}")).attributes
    assert (attribute.name, attribute.positional) == ("note", (1,))
    assert str(attribute.span) == "@note"


def test_relation_types_from_python() -> None:
    one = parse_relation_type(Source("edge(bound x: i32, String)"))
    assert isinstance(one, RelationType)
    assert one.name == "edge"
    assert [argument(a) for a in one.arguments] == [("bound", "x", "i32"), (None, None, "String")]


def test_space_and_comments() -> None:
    text = (
        "\ufeff// a rel b\n/* rel c(1) * / ** */rel\ta(1)/**/rel b /* x */ (2)//\r\n\r\nrel c(3)//"
    )
    assert [shown(one.atom) for one in items(text)] == ["a(1)", "b(2)", "c(3)"]
    assert items("") == items(" \n// nothing\n") == []


# Programs of Scallop's book


@pytest.mark.parametrize(
    ("program", "kinds"),
    [
        (
            """
            type edge(x: i32, y: i32)
            rel edge = {(0, 1), (1, 2)}
            rel path(x, y) = edge(x, y) or path(x, z) and edge(z, y)
            query path
            """,
            [RelationTypes, FactSet, Rule, Query],
        ),
        (
            """
            type fib(bound x: i32, y: i32)
            rel fib = {(0, 1), (1, 1)}
            rel fib(x, y1 + y2) = fib(x - 1, y1) and fib(x - 2, y2) and x > 1
            query fib(10, y)
            """,
            [RelationTypes, FactSet, Rule, Query],
        ),
        (
            """
            type Expr = Const(i32) | Add(Expr, Expr) | Sub(Expr, Expr)
            const MY_EXPR = Add(Const(1), Sub(Const(5), Const(3)))
            rel eval(e, y) = case e is Const(y)
            rel eval(e, y1 + y2) = case e is Add(e1, e2) and eval(e1, y1) and eval(e2, y2)
            rel result(y) = eval(MY_EXPR, y)
            """,
            [AlgebraicType, Constants, Rule, Rule, Rule],
        ),
        (
            """
            type kinship(p1: String, p2: String, k: usize)
            const FATHER = 0, MOTHER: usize = 1
            rel image_size = {(0, 512.0)}
            rel num_per_color(c, n) = n := count(o: color(o, c) where c: colors(c))
            rel result = argmax[p](s: score(p, s))
            rel forgot(p) = person(p), not exists(i: umbrella(p, i))
            """,
            [RelationTypes, Constants, FactSet, Rule, ReduceRule, Rule],
        ),
        (
            """
            rel digit_1 = {0.9::0; 0.1::1}
            rel digit_2 = {0.2::0; 0.8::1}
            rel sum_2(a + b) = digit_1(a) and digit_2(b)
            rel 1.0 / n :: pick(x) = p(x), n := count(y: p(y))
            rel at(x, y) = { grid(x, y); away() } // not a rule
            """.replace("rel at(x, y) = { grid(x, y); away() } // not a rule", ""),
            [FactSet, FactSet, Rule, Rule],
        ),
        (
            """
            @file("edge.csv", deliminator="\\t", has_header=true, keys="id", fields=["from", "to"])
            type edge(from: usize, to: usize)
            @demand("bf")
            rel path(x, y) = edge(x, y)
            rel { heads(c); tails(c) } = coin(c)
            type Symbol3 <: Symbol
            rel color(o, "red" as Symbol3) = object(o), o in 0..=5
            rel text($string_concat(a, " ", $substring(b, 0, 3))) = name(a, b) and a != b
            """,
            [RelationTypes, Rule, Rule, SubType, Rule, Rule],
        ),
    ],
)
def test_programs_of_the_book(program: str, kinds: list[type[Node]]) -> None:
    assert [type(one) for one in items(program)] == kinds


# Errors


@pytest.mark.parametrize(
    ("text", "words", "caret"),
    [
        # Declarations
        ("edge(1, 2)", ["expected a declaration", "name `edge`", "starts with `rel`"], (1, 1)),
        ("rel a(1)\nb(2)", ["found the name `b`", "starts with `rel`"], (2, 1)),
        ("Rel a(1)", ["lower case: `rel`"], (1, 1)),
        ("rel edge(x: i32)", ["`i32` is a type", "`type edge(x: i32, y: i32)`"], (1, 13)),
        ("rel edge(i32, i32)", ["`i32` is a type"], (1, 10)),
        ("type edge = {(1, 2)}", ["found `{`", "`rel name = {...}`"], (1, 13)),
        ("type a(x i32)", ["expected `)`, `,` or `:`", "found `i32`"], (1, 10)),
        ("type A = B | C(i32)", ["type A mixes members", "`()`"], (1, 14)),
        ("type A = i32 | B", ["i32 is a type", "member of A"], (1, 10)),
        ("type $f(x: i32)", ["expected `->`", "the end of the text"], (1, 16)),
        ("import foo", ["expected a string", "name `foo`"], (1, 8)),
        ("const A", ["expected `:` or `=`"], (1, 8)),
        ("@a(k=1, k=2) rel a(1)", ["@a is given k twice"], (1, 9)),
        ("@a(b) rel a(1)", ["found `)`"], (1, 5)),
        ("query", ["expected an expression", "something is missing after `query`"], (1, 6)),
        ("query 3", ["a query is a name", "not `3`"], (1, 7)),
        # Names
        ("rel type(x) = a(x)", ["`type` is a keyword, which cannot be a name"], (1, 5)),
        ("type query(i32)", ["`query` is a keyword"], (1, 6)),
        ("rel a(_x) = b(_x)", ["a name starts with a letter"], (1, 8)),
        ("rel größe(1)", ["'ö' has no meaning here", "letters a to z"], (1, 7)),
        # Facts and rules
        ("rel a(1).", ["no full stop ends a declaration"], (1, 9)),
        ("rel a(x) :- b(x).\nrel c(1)", ["no full stop ends a declaration"], (1, 17)),
        ("rel a(x) <- b(x)", ["stands `=` or `:-`, not `<-`"], (1, 10)),
        ("rel a(x) := b(x)", ["found `:=`", "stands `=` or `:-`"], (1, 10)),
        ("rel a(1), b(2)", ["found `,`", "`rel` before every fact"], (1, 9)),
        ("rel a(1) and b(2)", ["a fact is a single atom"], (1, 14)),
        ("rel x < y", ["a fact is a name with arguments", "not `x < y`"], (1, 5)),
        ("rel n = 3", ["n has no arguments", "`n = {...}`"], (1, 5)),
        ("rel n = edge(a, b)", ["`edge(a, b)` is not an aggregation"], (1, 9)),
        ("rel 0.5::a = {1}", ["tag its tuples"], (1, 5)),
        ("rel a(x) = {1}", ["a set of facts belongs to the name of a relation"], (1, 5)),
        ("rel 0.5::n = count(x: p(x))", ["takes no tag"], (1, 5)),
        ("rel 0.5 a(1)", ["after a tag stands `::`"], (1, 9)),
        ("rel a = {1, 2; 3}", ["separated all by `,`, or all by `;`"], (1, 14)),
        ("rel a = {0.5::p(1)}", ["found `(`"], (1, 16)),
        # Formulas
        ("rel a(x) = b(x),", ["expected a formula", "missing after `,`"], (1, 17)),
        ("rel a(x) = b(x) and\nrel c(1)", ["keyword `rel`", "missing after `and`"], (2, 1)),
        ("rel a(x) = b(x) b(y)", ["is `and`, `or` or a comma missing?"], (1, 17)),
        ("rel a(x) = b(x) AND c(x)", ["lower case: `and`"], (1, 17)),
        ("rel a(x) = NOT b(x)", ["lower case: `not`"], (1, 16)),
        ("rel a(x) = b(x); c(x)", ["alternatives are joined by `or`"], (1, 16)),
        ("rel a(x) = b(x) | c(x)", ["write `or` between formulas"], (1, 17)),
        ("rel a(x) = b(x) & c(x)", ["'&' has no meaning", "`and` between formulas"], (1, 17)),
        (r"rel a(x) = b(x), \+ c(x)", ["negation is written `not`"], (1, 18)),
        ("rel a(x) = b(x) or c(x), d(x)", ["a comma does not mix with `or`"], (1, 24)),
        ("rel a(x) = b(x), c(x) or d(x)", ["a comma does not mix with `or`"], (1, 23)),
        ("rel a(x) = not (b(x) and c(x))", ["`not` stands before an atom", "inwards"], (1, 16)),
        ("rel a(x) = not x == 3", ["opposite comparison"], (1, 16)),
        ("rel a(x) = b(x), x", ["x alone is not a formula"], (1, 18)),
        ("rel a(x) = b(x), x + 1", ["`x + 1` is a value, not a formula"], (1, 18)),
        ("rel a(x) = b(x), (x, y)", ["x alone is not a formula"], (1, 19)),
        ("rel a(x) = b(x), x = 3", ["to compare two values, write `==`"], (1, 20)),
        ("rel a(x) = b(x), y = x + 1", ["to compare two values, write `==`"], (1, 20)),
        ("rel a(x) = b(x), x + 1 = 3", ["to compare two values, write `==`"], (1, 24)),
        ("rel a(x) = b(x), y is x + 1", ["write `==`"], (1, 20)),
        ("rel a(x) = b(x), x <> 3", ["not equal is written `!=`"], (1, 21)),
        ("rel a(x) = b(x), x =< 3", ["at most is written `<=`"], (1, 21)),
        ("rel a(x) = b(x), 0 < x < 3", ["comparisons do not chain"], (1, 24)),
        ("rel a(0..5)", ["`x in 0..5`"], (1, 8)),
        ("rel a(x) = 1 in 0..5", ["before `in` stands a variable"], (1, 12)),
        ("rel a(x) = case 1 is A(x)", ["between `case` and `is` stands a variable"], (1, 17)),
        ("rel a(x) = if x then 1", ["expected `else`"], (1, 23)),
        # Values and aggregations
        ("rel a(b(x) and c(x))", ["a formula stands where a value is expected"], (1, 7)),
        ("rel a(x) = b(x, (y, z))", ["a tuple is not a value"], (1, 17)),
        ("rel a(x) = b(x), x == f(x)", ["call a function as `$f(...)`"], (1, 23)),
        ("rel a($f(g(x)))", ["`$g(...)`"], (1, 10)),
        ("rel a((x: i32))", ["only before the colon of an aggregation"], (1, 7)),
        ("rel a(n) = n := f(x)", ["`f(x)` is not an aggregation", "`==`"], (1, 17)),
        ("rel a(n) = count(x: b(x))", ["must be bound", "`n := count(...)`"], (1, 12)),
        ("rel a(count(x: b(x)))", ["must be bound"], (1, 7)),
        ("rel a(n) = n := count(x + 1: b(x))", ["stand variables", "`x + 1`"], (1, 23)),
        ("rel a(n) = n := top<k=1, k=2>(x: b(x))", ["top is given k twice"], (1, 26)),
        ("rel a(n) = x, y := argmax[x](y: b(x, y))", ["`(x, ...) := argmax(...)`"], (1, 12)),
        ("rel a(x) = b<3>(x)", ["parameters of an atom are types"], (1, 14)),
        ("rel a(" + "9" * 5000 + ")", ["an integer of 5000 digits fits no type"], (1, 7)),
        # Brackets, strings, comments
        ("rel a(x = b(x)\nrel c(1)", ["this `(` is not closed", "`rel` in line 2"], (1, 6)),
        (
            "rel a(x) = (b(x), c(x)\n\ntype d(i32)",
            ["`(` is not closed", "`type` in line 3"],
            (1, 12),
        ),
        ("rel a = {(1, 2], 3}", ["this `(` is not closed", "`]`"], (1, 10)),
        ("rel a = {(1, 2)", ["this `{` is not closed", "the end of the text"], (1, 9)),
        ("rel a(x) = b(x))", ["this `)` closes nothing"], (1, 16)),
        ('@file("a.csv" rel a = {}', ["this `(` is not closed"], (1, 6)),
        ('rel a("abc)\nrel b(1)', ["this string is not closed"], (1, 7)),
        ('rel a("""abc")', ["this string is not closed"], (1, 7)),
        ('rel a("b)\nrel c("d")', ["the string that starts in line 1 runs over"], (2, 8)),
        ("rel a('abc')", ["exactly one character"], (1, 7)),
        ("rel a('')", ["exactly one character"], (1, 7)),
        ("rel a('x)", ["this character is not closed"], (1, 7)),
        ("rel a(“x”)", ['straight double quotes: `"..."`'], (1, 7)),
        ("rel a(1)\n/* no end", ["this comment is not closed"], (2, 1)),
        ("rel a(x) = b(x) /* no end", ["this comment is not closed"], (1, 17)),
        ("% comment", ["a comment starts with `//`"], (1, 1)),
        ("# comment", ["a comment starts with `//`"], (1, 1)),
        ("rel a(1.)", ["`1.0`"], (1, 8)),
    ],
)
def test_errors(text: str, words: list[str], caret: tuple[int, int]) -> None:
    with pytest.raises(ProgramError) as caught:
        items(text)
    error, message = caught.value, str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert (error.file, error.line, error.column) == ("test.scl", *caret), message
    place = message.splitlines()
    assert place[-3] == f"  test.scl, line {caret[0]}, column {caret[1]}"
    assert place[-2] == "    " + text.split("\n")[caret[0] - 1][:160]  # the start of a long line
    assert place[-1] == " " * (3 + caret[1]) + "^"


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_item, "rel a(1) rel b(2)"),
        (parse_item, ""),
        (parse_rule, "rel"),
        (parse_rule, "query a"),
        (parse_relation_type, "edge"),
        (parse_query, "query a"),
        (parse_expression, "a and b"),
        (parse_expression, "(a, b)"),
        (parse_type, "1"),
    ],
)
def test_errors_of_single_texts(parse: Any, text: str) -> None:
    with pytest.raises(ProgramError):
        parse(Source(text))


def test_a_fault_leaves_nothing_behind() -> None:
    with pytest.raises(ProgramError):
        items("rel a((")
    assert shown(item("rel a(1)").atom) == "a(1)"


_SYMBOLS = "( ) [ ] { } < > , ; : :: := :- = == != . .. ..= + - * / % ! ? $ @ | || && ^ ~ => _ ->"
_WORDS = "rel type query const import extern if then else case is in new and or not where exists"
_OTHERS = 'p x A 1 2.5 "s" \' " """ // /* */ i32 count true bound \\ é #'
_PIECES = [*_SYMBOLS.split(), *_WORDS.split(), *_OTHERS.split(), "\n", "\x00", "\ud800"]


@given(st.lists(st.sampled_from(_PIECES), max_size=25), st.sampled_from(["", " "]))
def test_no_text_escapes(pieces: list[str], space: str) -> None:
    _parse_anything(space.join(pieces))


@given(st.text(max_size=40))
def test_no_characters_escape(text: str) -> None:
    _parse_anything(text)


def _parse_anything(text: str) -> None:
    parsers: tuple[Any, ...] = (
        parse_program,
        parse_item,
        parse_rule,
        parse_relation_type,
        parse_query,
        parse_expression,
        parse_type,
    )
    for parse in parsers:
        try:
            tree = parse(Source(text))
        except ProgramError:
            continue
        assert all(0 <= n.span.start <= n.span.end <= len(text) for n in walk(tree))


# Size


@pytest.mark.parametrize(
    ("start", "middle", "end"),
    [
        ("rel a(x) = " + "(" * 3000, "p(x)", ")" * 3000),
        ("rel a(" + "(" * 3000, "x + 1", ")" * 3000 + ")"),
        ("rel a(" + "Cons(1, " * 3000, "Nil()", ")" * 3000 + ")"),
        ("const A = " + "Cons(1, " * 3000, "Nil()", ")" * 3000),
        ("rel a(" + "-" * 3000, "x", ")"),
        ("rel a(" + "if x then 1 else " * 3000, "x", ")"),
        ("rel a(n) = " + "n := count(n: " * 3000, "p(n)", ")" * 3000),
        ("rel a() = " + "exists(" * 3000, "p(1)", ")" * 3000),
        ("rel a() = " + "(" * 3000 + "p(1)", "", ", q(1))" * 3000),
        ("@a(" + "[" * 3000, "1", "]" * 3000 + ") rel a(1)"),
        ("rel a(x) = " + "p(x) and " * 3000, "p(x)", ""),
    ],
)
def test_deep_programs(start: str, middle: str, end: str) -> None:
    assert sum(1 for _ in walk(items(start + middle + end))) > 0
    with pytest.raises(ProgramError):
        items(f"{start}{middle} and {end}")


def test_many_facts() -> None:
    items("")
    text = "rel edge = {" + ", ".join(f"0.5::({i}, {i + 1})" for i in range(20_000)) + "}"
    start = time.perf_counter()
    facts = item(text)
    assert time.perf_counter() - start < 10
    assert len(facts.tuples) == 20_000


def test_threads_do_not_mix_their_sources() -> None:
    found: dict[int, list[Any]] = {}

    def parse(number: int) -> None:
        found[number] = items(f"rel a{number}({number})\n" * 200)

    threads = [threading.Thread(target=parse, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, facts in found.items():
        assert all(str(fact.span) == f"rel a{number}({number})" for fact in facts)


def test_the_grammar_is_built_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("the grammar was built")

    monkeypatch.setattr(lark.Lark, "open", refuse)
    spec = importlib.util.spec_from_file_location("byssus_scallop._fresh", _parser.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(AssertionError, match="was built"):
        module.parse_query(Source("path"))
