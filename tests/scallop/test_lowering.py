"""From syntax to rules: the forms that constructs take, and what they mean.

Meanings are checked with a naive evaluator (`ir_oracle`), in every order in which the engine may
evaluate a rule.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from byssus import ByssusError, Integer, List, ProgramError, blackbox
from byssus_scallop import _ir
from byssus_scallop._algebra import Unit
from byssus_scallop._blackbox import BlackBoxDeclaration
from byssus_scallop._engine import Engine
from byssus_scallop._ir import Absent, Any_, Apply, Bind, Const, Filter, Let, Rule, Scan, Var
from byssus_scallop._lowering import load, lower, reorder, strata
from byssus_scallop._parser import parse_program
from byssus_scallop._syntax import Source, Span
from scallop.ir_oracle import Row, Tables, evaluate, lowered

# Forms


def term(one: _ir.Term) -> str:
    if isinstance(one, Const):
        return repr(one.value)
    return one.name if isinstance(one, Var) else f"f({', '.join(map(term, one.arguments))})"


def column(one: _ir.Column) -> str:
    if isinstance(one, Bind):
        return f"+{one.name}"
    return "_" if isinstance(one, Any_) else term(one.term)


def step(one: _ir.Step) -> str:
    if isinstance(one, Scan):
        return f"{one.relation}({', '.join(map(column, one.columns))})"
    if isinstance(one, Absent):
        return f"not {one.relation}({', '.join(map(term, one.terms))})"
    if isinstance(one, Filter):
        return f"if {term(one.term)}"
    if isinstance(one, Let):
        return f"{one.name} = {term(one.term)}"
    return f"{one.name}!({', '.join([*map(term, one.inputs), *map(column, one.columns)])})"


def shown(rule: Rule) -> str:
    head = f"{rule.head}({', '.join(map(term, rule.terms))})"
    extra = "!" if rule.certain else ""
    return f"{head}{extra} :- {', '.join(map(step, rule.steps))}"


def forms(program: str, **options: Any) -> list[str]:
    return [shown(rule) for rule in lowered(program, **options).program.rules]


TYPES = "type a(i32), b(i32), e(i32, i32)\n"


@pytest.mark.parametrize(
    ("program", "rules"),
    [
        ("rel r(x, z) = e(x, y), e(y, z)", ["r(x, z) :- e(+x, +y), e(y, +z)"]),
        # The atom with the most columns known goes first, then the one written first.
        ("rel r(x) = a(x), e(1, y), e(y, x)", ["r(x) :- e(1, +y), e(y, +x), a(x)"]),
        # Filters, negations and equations follow as soon as they can.
        ("rel r(x) = a(x), b(y), x < 3", ["r(x) :- a(+x), if f(x, 3), b(+y)"]),
        ("rel r(x) = a(x), b(y), not b(x)", ["r(x) :- a(+x), not b(x), b(+y)"]),
        ("rel r(z) = a(x), b(y), z == x + 1", ["r(z) :- a(+x), z = f(x, 1), b(+y)"]),
        ("rel r(x) = e(x, x)", ["r(x) :- e(+x, x)"]),
        ("rel r(x) = a(x), x == 3", ["r(x) :- x = 3, a(x)"]),
        ("rel r(x) = a(y), x == y", ["r(x) :- a(+y), x = y"]),
        # An argument that is an expression: known, it is computed once; else it is solved.
        ("rel r(x) = a(x), b(x + 1)", ["r(x) :- a(+x), #1 = f(x, 1), b(#1)"]),
        ("rel r(x) = a(x - 1)", ["r(x) :- a(+#1), x = f(#1, 1)"]),
        ("rel r(x) = a(y), y == x + 2", ["r(x) :- a(+y), x = f(y, 2)"]),
        ("rel r(x) = e(x + 1, x)", ["r(x) :- e(+#1, +x), if f(#1, f(x, 1))"]),
        ("rel r(x) = e(x, x + 1)", ["r(x) :- e(+x, f(x, 1))"]),
        # Wildcards of negated atoms: a relation of the other columns.
        (
            "rel r(x) = a(x), not e(x, _)",
            ["e#0,_(v0) :- e(+v0, _)", "r(x) :- a(+x), not e#0,_(x)"],
        ),
        (
            "rel r(x) = a(x), not e(y, x)",
            ["e#_,0(v0) :- e(_, +v0)", "r(x) :- a(+x), not e#_,0(x)"],
        ),
        ("rel r() = not e(x, x)", ["e#x0,x0() :- e(+vx0, vx0)", "r() :- not e#x0,x0()"]),
        # Disjunctions.
        ("rel r(x) = a(x) or b(x)", ["r(x) :- a(+x)", "r(x) :- b(+x)"]),
        (
            "rel r(x) = (a(x) or b(x)), (x > 1 or x < 0)",
            [
                "r(x) :- a(+x), if f(x, 1)",
                "r(x) :- a(+x), if f(x, 0)",
                "r(x) :- b(+x), if f(x, 1)",
                "r(x) :- b(+x), if f(x, 0)",
            ],
        ),
        (
            "rel r(x) = a(x), (b(x) implies x > 1)",
            ["r(x) :- a(+x), not b(x)", "r(x) :- a(+x), if f(x, 1)"],
        ),
        # Heads.
        ("rel r(x) and s(y) = e(x, y)", ["r(x) :- e(+x, +y)", "s(y) :- e(+x, +y)"]),
        ("rel r(x + 1, 2) = a(x)", ["r(f(x, 1), 2) :- a(+x)"]),
        ("rel r(1 + 2)", ["r(f(1, 2)) :- "]),
        # Quantifiers in a body are the body, and so may be recursive.
        ("rel r(x) = exists(y: e(x, y))", ["r(x) :- e(+x, +y@1)"]),
        (
            "rel r(x, z) = e(x, z) or exists(y: r(x, y) and e(y, z))",
            ["r(x, z) :- e(+x, +z)", "r(x, z) :- r(+x, +y@1), e(y@1, +z)"],
        ),
        (
            "rel r(x) = a(x), not exists(y: e(x, y))",
            ["some#1(x) :- e(+x, +y@2)", "r(x) :- @1 = False, a(+x), not some#1(x)"],
        ),
        # Foreign predicates: with inputs that follow from others at once, else as any atom.
        (
            "rel r(x, y) = a(x), b(z), range<i32>(0, x, y)",
            ["r(x, y) :- a(+x), range!(0, x, +y), b(+z)"],
        ),
        ("rel r(x) = a(x), range<i32>(0, 9, x)", ["r(x) :- a(+x), range!(0, 9, x)"]),
        ("rel r(x) = range<i32>(0, 9, x), e(1, x)", ["r(x) :- e(1, +x), range!(0, 9, x)"]),
        ("rel r(x) = x in 0..=3", ["r(x) :- range!(0, f(3, 1), +x)"]),
        # Queries of atoms are relations that are named by their text.
        ("query e(1, x)", ["e(1, x)(1, x) :- e(1, +x)"]),
        ("query e(_, 1 + 1)", ["e(_, (1 + 1))(@1, @2) :- @2 = f(1, 1), e(+@1, @2)"]),
    ],
)
def test_forms(program: str, rules: list[str]) -> None:
    assert forms(TYPES + program) == rules


def test_a_rule_starts_where_it_is_told() -> None:
    text = TYPES + "rel r(x, w) = e(x, y), e(y + 1, z), z < 9, b(z), w == x + z"
    (rule,) = lowered(text).program.rules
    assert [one.origin for one in rule.steps if isinstance(one, Scan)] == [0, 1, 3]
    assert list(map(step, reorder(rule, 1))) == [
        "e(+#1, +z)",
        "if f(z, 9)",
        "y = f(#1, 1)",
        "e(+x, y)",
        "w = f(x, z)",
        "b(z)",
    ]
    # Rules that were written by hand are read back from their steps.
    plain = Rule(rule.head, rule.terms, rule.steps, rule.span)
    assert next(map(step, reorder(plain, 3))) == "b(+z)"


def test_alternatives_do_not_multiply_without_end() -> None:
    parts = ", ".join(f"(a(x) or b(x + {i}))" for i in range(40))
    program = lowered(TYPES + f"rel r(x) = {parts}").program
    assert len(program.rules) < 200
    assert any(rule.head.startswith("or#") for rule in program.rules)


def test_tags_and_exclusive_heads() -> None:
    program = lowered(
        "type a(i32), p(i32, f32)\nrel 0.5::r(x) = a(x)\nrel w::s(x) = p(x, w)\n"
        "rel {t(x); u(x, y)} = a(x), a(y)"
    ).program
    constant, variable, first, second = program.rules
    assert constant.tag == Const(0.5)
    assert constant.key == (Const(0), Var("x"))
    assert variable.tag == Var("w")
    assert variable.key == (Const(0), Var("w"), Var("x"))
    assert first.exclusive is not None
    assert second.exclusive is not None
    group, alternative, count = first.exclusive
    assert (alternative, count) == (0, 2)
    assert second.exclusive == (group, 1, 2)
    assert first.key == second.key == (Var("x"), Var("y"))


def test_facts() -> None:
    facts = lowered(
        'rel a(1)\nrel 0.3::a(2)\nrel b = {0.1::"x"; 0.9::"y"}\nrel c = {true::1, false::2, 1::3}\n'
        "rel d = {()}"
    ).program.facts
    assert [(f.relation, f.values, f.tag) for f in facts if f.relation != "b"] == [
        ("a", (1,), None),
        ("a", (2,), 0.3),
        ("c", (1,), True),
        ("c", (2,), False),
        ("c", (3,), 1.0),
        ("d", (), None),
    ]
    groups = {f.group for f in facts if f.relation == "b"}
    assert len(groups) == 1
    assert None not in groups
    assert {f.group for f in facts if f.relation != "b"} == {None}


def test_a_fact_of_an_expression_is_a_rule() -> None:
    assert forms("rel a(1 + 1)") == ["a(f(1, 1)) :- "]
    (rule,) = lowered("rel 1 / 2::a(1)").program.rules
    assert isinstance(rule.tag, Apply)


def test_aggregations() -> None:
    program = lowered(
        "type e(i32, String, f32), c(String, i32)\n"
        "rel r(g, n, t) = n := sum[k](v: e(k, g, v) where g: c(g, t)), c(g, t)"
    ).program
    (aggregate,) = program.aggregates
    assert (aggregate.operator, aggregate.group, aggregate.other, aggregate.arguments) == (
        "sum",
        1,
        1,
        1,
    )
    assert aggregate.types == ("i32", "f32")
    assert aggregate.groups is not None
    relations = program.relations
    assert relations[aggregate.body].types == ("String", "i32", "f32")
    assert relations[aggregate.groups].types == ("String", "i32")
    assert relations[aggregate.head].types == ("String", "i32", "f32")
    assert all(relations[n].hidden for n in (aggregate.head, aggregate.body, aggregate.groups))
    (top,) = lowered("rel a(1)\nrel r(x) = x := top<2>(x: a(x))").program.aggregates
    assert top.parameters == (2,)
    (sort,) = lowered("rel a(1)\nrel r = sort<desc>(x: a(x))").program.aggregates
    assert sort.named == {"desc": True}
    (count,) = lowered("rel a(1)\nrel r = count!(x: a(x))").program.aggregates
    assert count.single_world


# Meanings


def orders(rule: Rule) -> Iterable[tuple[_ir.Step, ...]]:
    yield rule.steps
    for one in rule.steps:
        if isinstance(one, Scan):
            yield reorder(rule, one.origin)


def derived(program: str, facts: dict[str, Iterable[Row]] | None = None, **options: Any) -> Tables:
    return evaluate(lowered(program, **options).program, facts or {}, orders)


E = "rel e = {(0, 1), (1, 2), (2, 3)}\n"
LIST = "type L = Nil() | Cons(i32, L)\n"


@pytest.mark.parametrize(
    ("program", "rows"),
    [
        # Rules and recursion.
        (E + "rel r(x, z) = e(x, z) or r(x, y) and e(y, z)",
         {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}),
        (E + "rel r(x) = e(x, y), not e(y, _)", {(2,)}),
        (E + "rel r(x) = e(x, _), not e(_, x)", {(0,)}),
        (E + "rel r(x) = e(x, y), e(y, x + 2)", {(0,), (1,)}),
        (E + "rel r(x) = e(x - 1, _)", {(1,), (2,), (3,)}),
        (E + "rel r(y) = e(x, y), x + y == 3", {(2,)}),
        (E + "rel r(x) = e(x, _) or x == 7", {(0,), (1,), (2,), (7,)}),
        # Equations bind in both directions.
        ("rel r(x, y) = x == 1 + 2, y - 1 == x", {(3, 4)}),
        # An unsigned number has no predecessor of 0: no column equals it.
        ("type a(usize), b(usize)\nrel a = {0, 1}\nrel b = {0}\nrel r(x) = a(x), b(x - 1)",
         {(1,)}),
        # The branch that is not taken need not have a value.
        ("rel a = {0, 2}\nrel r(if x == 0 then 0 else 10 / x) = a(x)", {(0,), (5,)}),
        ("rel a = {0, 2}\nrel r(10 / x) = a(x)", {(5,)}),
        # Quantifiers and aggregations.
        (E + "rel r() = exists(x: e(x, 3))", {()}),
        (E + "rel r() = not exists(x: e(x, 9))", {()}),
        (E + "rel r() = forall(x, y: e(x, y) implies x < y)", {()}),
        (E + "rel r() = forall(x, y: e(x, y) implies (x == 0 or y == 2))", set()),
        (E + "rel r(b) = b := forall(x, y: e(x, y) implies (x < y and not e(y, x)))", {(True,)}),
        (E + "rel r(n) = n := count(x: e(x, _))", {(3,)}),
        (E + "rel r = count(x: e(x, _))", {(3,)}),
        (E + "rel r(x, n) = n := count(y: e(x, y))", {(0, 1), (1, 1), (2, 1)}),
        (E + "rel r(x, n) = n := count(y: e(x, y) where x: e(_, x))", {(1, 1), (2, 1), (3, 0)}),
        (E + "rel r(x) = n := count(y: e(x, y) where x: e(_, x)), n == 0", {(3,)}),
        # As in Scallop a variable that is not of the head is not that of the body.
        (E + "rel a(1)\nrel r(n) = a(x), n := count(y: e(x, y))", {(3,)}),
        # But what the body lacks for a group comes from outside.
        (E + "rel r(x, n) = e(x, _), n := count(y: e(_, y), y > x)", {(0, 3), (1, 2), (2, 1)}),
        (E + "rel r(x, m) = m := max(n: n := count(y: e(x, y)))", {(0, 1), (1, 1), (2, 1)}),
        (E + "rel c(x, n) = n := count(y: e(x, y))\nrel r(x) = x := argmax[x](n: c(x, n))",
         {(0,), (1,), (2,)}),
        # Groups of `not exists` and `forall` that are known otherwise.
        (E + "rel r(x) = e(_, x), not exists(y: e(x, y))", {(3,)}),
        ("rel o = {(1, 7), (2, 7), (3, 8)}\nrel s = {3}\n"
         "rel r(c) = forall(x: o(x, c) implies s(x))", {(8,)}),
        ("rel o = {(1, 7), (2, 7), (3, 8)}\nrel s = {3}\nrel c = {7, 8, 9}\n"
         "rel r(c) = c(c), forall(x: o(x, c) implies s(x))", {(8,), (9,)}),
        # Negated formulas.
        (E + "rel a = {0, 2}\nrel r() = forall(x: a(x) implies exists(y: e(x, y)))", {()}),
        (E + "rel a = {0, 5}\nrel r() = forall(x: a(x) implies exists(y: e(x, y)))", set()),
        (E + "rel a = {0, 5}\nrel r(x) = a(x), not range<i32>(0, 3, x)", {(5,)}),
        ('rel s = {"ab", "b"}\nrel r(x) = s(x), not string_chars(x, _, \'a\')', {("b",)}),
        # Disjunctions beyond the limit.
        ("rel a = {1, 2, 3, 4}\nrel r(x) = a(x), (x == 1 or x == 2), (x < 3 or x > 4), "
         "(x != 1 or x == 7), (x == 2 or a(x)), (x > 1 or a(x))", {(2,)}),
        # Algebraic data types.
        (LIST + "const X = Cons(1, Cons(2, Nil()))\nrel n(l, 0) = case l is Nil()\n"
         "rel n(l, k + 1) = case l is Cons(_, t), n(t, k)\nrel r(k) = n(X, k)", {(2,)}),
        (LIST + "const X = Cons(1, Cons(2, Nil()))\nrel n(Nil(), 0)\n"
         "rel n(Cons(x, t), x + k) = n(t, k)\nrel r(k) = n(X, k)", {(3,)}),
        (LIST + "const X = Cons(4, Nil()), Y = Cons(5, X)\nrel a(Y)\n"
         "rel r(x, y) = a(Cons(x, Cons(y, Nil())))", {(5, 4)}),
        (LIST + "rel a(new Cons(1, new Nil()))\nrel r(x) = a(Cons(x, _))", {(1,)}),
        (LIST + "rel b = {1, 2}\nrel a(new Cons(x, n)) = b(x), n == new Nil()\n"
         "rel r(x) = a(l), case l is Cons(x, Nil())", {(1,), (2,)}),
        (LIST + "rel b = {1, 2}\nconst X = Cons(1, Nil())\nrel a(X)\n"
         "rel r(x) = b(x), not a(Cons(x, _))", {(2,)}),
        (LIST + 'rel a($parse_entity("Cons(3, Cons(4, Nil()))"))\n'
         "rel r(x, y) = a(Cons(x, Cons(y, _)))", {(3, 4)}),
        # Enumerations and constants.
        ("type C = RED | GREEN = 5 | BLUE\nrel a = {RED, BLUE}\nrel r(x) = a(x), x != RED",
         {(6,)}),
        ("const A = 2, B = A\nrel a = {1, 2}\nrel r(x) = a(x), x == B", {(2,)}),
        ("const A = B * 2, B = 3\nrel r(A + 1)", {(7,)}),
    ],
)  # fmt: skip
def test_meanings(program: str, rows: set[Row]) -> None:
    assert derived(program)["r"] == rows


FIB = (
    "type fib(bound x: i32, y: i32)\nrel fib = {(0, 1), (1, 1)}\n"
    "rel fib(x, y1 + y2) = fib(x - 1, y1) and fib(x - 2, y2) and x > 1\n"
)


def made_up(seed: int) -> str:
    """A program of the size that an eye can still check."""
    draw = random.Random(seed)
    arities = {"a": 1, "b": 2, "c": 2}
    lines = []
    for name, arity in arities.items():
        rows = {tuple(draw.randint(0, 4) for _ in range(arity)) for _ in range(draw.randint(1, 6))}
        lines.append(f"rel {name} = {{{', '.join(f'({str(row)[1:-1]})' for row in sorted(rows))}}}")

    def atom(bound: set[str], fresh: bool) -> str:
        name = draw.choice([n for n, arity in arities.items() if arity])
        arguments = []
        for _ in range(arities[name]):
            kind = draw.random()
            if kind < 0.7 or not bound:
                variable = draw.choice("xyzw" if fresh or not bound else sorted(bound))
                bound.add(variable)
                arguments.append(variable)
            elif kind < 0.8:
                arguments.append(str(draw.randint(0, 4)))
            elif kind < 0.9:
                arguments.append(f"{draw.choice(sorted(bound))} {draw.choice('+-')} 1")
            else:
                arguments.append("_")
        return f"{name}({', '.join(arguments)})"

    def body(depth: int) -> tuple[str, set[str]]:
        bound: set[str] = set()
        parts = [atom(bound, True) for _ in range(draw.randint(1, 2))]
        for _ in range(draw.randint(0, 2) if bound else 0):
            kind, one = draw.random(), draw.choice(sorted(bound))
            if kind < 0.3:
                parts.append(f"not {atom(set(bound), False)}")
            elif kind < 0.6:
                parts.append(f"{one} {draw.choice(['<', '!=', '=='])} {draw.choice(sorted(bound))}")
            elif kind < 0.7:
                new = draw.choice("xyzw")
                bound.add(new)
                parts.append(f"{new} == {one} + 1")
            elif depth and kind < 0.85:
                (left, some), (right, others) = body(0), body(0)
                bound |= some & others
                parts.append(f"({left} or {right})")
            elif depth:
                inner, some = body(0)
                if some:
                    one = draw.choice(sorted(some))
                    parts.append(f"{draw.choice(['', 'not '])}exists({one}: {inner})")
        return " and ".join(parts), bound

    for i in range(draw.randint(2, 4)):
        text, bound = body(1)
        head = [draw.choice(sorted(bound)) for _ in range(draw.randint(0, 2))] if bound else []
        lines.append(f"rel p{i}({', '.join(head)}) = {text}")
        arities[f"p{i}"] = len(head)
        if bound and draw.random() < 0.5:
            one = draw.choice(sorted(bound))
            group = sorted(bound - {one})[:1]
            op = draw.choice(["count", "sum", "max"])
            lines.append(f"rel q{i}({', '.join([*group, 'n'])}) = n := {op}({one}: {text})")
            arities[f"q{i}"] = 1 + len(group)
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(60))
def test_programs_mean_the_same_in_every_order(seed: int) -> None:
    program = lowered(made_up(seed)).program
    tables = evaluate(program, {}, orders)
    facts: dict[str, list[tuple[Row, bool]]] = {}
    for fact in program.facts:
        facts.setdefault(fact.relation, []).append((fact.values, True))
    found = Engine(program).run(Unit(), facts).tables
    assert {name: set(rows) for name, rows in found.items()} == tables


def test_demand() -> None:
    tables = derived(FIB + "query fib(10, y)")
    assert tables["fib(10, y)"] == {(10, 89)}
    assert tables["d#fib"] == {(i,) for i in range(11)}
    text = "type p(bound i32, i32), e(i32, i32)\nrel p(x, z) = e(x, z) or p(x, y) and e(y, z)"
    assert forms(text)[0] == "p(x, z) :- d#p(+x), e(x, +z)"


def test_what_is_not_demanded_is_not_derived() -> None:
    tables = derived(
        E + '@demand("bf")\nrel p(x, z) = e(x, z) or p(x, y) and e(y, z)\nrel r(z) = p(1, z)'
    )
    assert tables["p"] == {(1, 2), (1, 3)}
    assert tables["r"] == {(2,), (3,)}
    # Facts need no demand; nothing is derived if nothing is asked.
    assert derived(FIB + "query fib")["fib"] == {(0, 1), (1, 1)}


@pytest.mark.parametrize(
    ("use", "rows", "demanded"),
    [
        ("rel r(x) = a(x), not p(x, 3)", {(3,)}, {(1,), (3,)}),
        ("rel r(x) = a(x), not p(x, _)", {(3,)}, {(1,), (3,)}),
        ("rel r(x, n) = a(x), n := count(y: p(x, y))", {(1, 2)}, {(1,), (3,)}),
        ("rel r(x) = a(x), exists(y: p(x, y), y > 2)", {(1,)}, {(1,), (3,)}),
        # Filters come before demand.
        ("rel r(y) = a(x), p(x, y), x > 2", set(), {(3,)}),
    ],
)
def test_demand_of_each_use(use: str, rows: set[Row], demanded: set[Row]) -> None:
    tables = derived(
        E + "rel a = {1, 3}\ntype p(bound i32, i32)\n"
        "rel p(x, z) = e(x, z) or e(x, y) and p(y, z)\n" + use
    )
    assert tables["r"] == rows
    assert demanded <= tables["d#p"] <= demanded | {(2,), (3,)}


def test_demand_does_without_a_negation_that_would_make_a_cycle() -> None:
    tables = derived(
        E + "type p(bound i32)\nrel p(x) = e(x, _)\nrel q(x) = x == 1, p(x)\n"
        "rel r(x) = e(x, _), not q(x), p(x)"
    )
    assert tables["r"] == {(0,), (2,)}


def test_use_of_an_on_demand_relation_without_demand_is_pointed_out() -> None:
    found = lowered(E + "type p(bound i32, i32)\nrel p(x, y) = e(x, y)\nrel r(y) = p(_, y)")
    (warning,) = found.warnings
    assert "`p` is on demand" in warning
    assert "line 4, column 12" in warning


# Black boxes


def box(
    name: str, function: Any, types: tuple[str, ...], bound: int, *, call: bool = False,
    over: tuple[str, ...] = (),
) -> BlackBoxDeclaration:  # fmt: skip
    domains = [Integer(0, 9)] * bound or [List(Integer(0, 9), 9)] * len(over)
    made = blackbox(*domains)(function)

    def convert(outcome: Any) -> list[tuple[None, Row]]:
        if len(types) == bound:
            return [(None, ())] if outcome else []
        return [(None, (outcome,))]

    columns = (None,) * len(types)
    span = Span(Source(f"type {name}"), 5, 5 + len(name))
    return BlackBoxDeclaration(name, types, columns, bound, call, made, over, None, span, convert)


def test_black_box_as_a_predicate() -> None:
    asked: list[int] = []

    def double(x: int) -> int:
        asked.append(x)
        return 2 * x

    boxes = {"double": box("double", double, ("i32", "i32"), 1)}
    program = "rel a = {1, 2, 3}\nrel b = {1, 2}\nrel r(x, y) = a(x), double(x, y), b(x), x > 1"
    assert forms(program, blackboxes=boxes) == [
        "r(x, y) :- a(+x), if f(x, 1), b(x), double(x, +y)",
        "asked#double(x) :- a(+x), if f(x, 1), b(x)",
    ]
    assert derived(program, blackboxes=boxes)["r"] == {(2, 4)}
    # Nothing is asked that the rest of the body excludes.
    assert asked == [2]
    program = lowered(program, blackboxes=boxes).program
    (relation,) = program.blackboxes
    assert (relation.asked, relation.inputs, relation.outputs) == ("asked#double", 1, 1)
    assert strata(program).index(["asked#double"]) < strata(program).index(["double"])


def test_black_box_as_a_function() -> None:
    boxes = {"double": box("double", lambda x: 2 * x, ("i32", "i32"), 1, call=True)}
    tables = derived(
        "rel a = {1, 2, 6}\nrel r($double(x), $double($double(x)) + 1) = a(x), $double(x) < 9",
        blackboxes=boxes,
    )
    assert tables["r"] == {(2, 5), (4, 9)}
    assert tables["asked#$double"] == {(1,), (2,), (6,), (4,)}


def test_black_box_as_a_test_and_negated() -> None:
    boxes = {"even": box("even", lambda x: x % 2 == 0, ("i32",), 1)}
    program = "rel a = {1, 2}\nrel r(x) = a(x), even(x)\nrel s(x) = a(x), not even(x)"
    tables = derived(program, blackboxes=boxes)
    assert (tables["r"], tables["s"]) == ({(2,)}, {(1,)})


def test_black_box_through_recursion() -> None:
    boxes = {"next": box("next", lambda x: min(x + 3, 8), ("i32", "i32"), 1)}
    program = "rel r(0)\nrel r(y) = r(x), next(x, y)"
    assert derived(program, blackboxes=boxes)["r"] == {(0,), (3,), (6,), (8,)}
    assert ["asked#next", "next", "r"] in [
        sorted(s) for s in strata(lowered(program, blackboxes=boxes).program)
    ]


def test_black_box_over_relations() -> None:
    boxes = {"total": box("total", sum, ("i32",), 0, over=("a",))}
    program = "rel a = {1, 2, 6}\nrel r(x + 1) = total(x)"
    assert derived(program, blackboxes=boxes)["r"] == {(10,)}
    with pytest.raises(ProgramError, match=r"through recursion.*: total -> a -> total"):
        strata(lowered("rel a(x) = total(x)", blackboxes=boxes).program)
    with pytest.raises(ProgramError, match="over `b`, which is no relation"):
        lowered("rel a(1)", blackboxes={"t": box("t", sum, ("i32",), 0, over=("b",))})


def test_black_box_faults() -> None:
    boxes = {"next": box("next", lambda x: x + 1, ("i32", "i32"), 1)}
    with pytest.raises(ProgramError, match=r"(?s)black box `next` is ungrounded.*`x`.*column 17"):
        lowered("rel r(y) = next(x, y)", blackboxes=boxes)
    with pytest.raises(ProgramError, match="black box `next` is ungrounded"):
        lowered("rel r(y) = next(_, y)", blackboxes=boxes)
    with pytest.raises(ProgramError, match="cannot be derived"):
        lowered("rel next(1, 2)", blackboxes=boxes)
    with pytest.raises(ProgramError, match="Expected 2, found 1"):
        lowered("rel r(y) = next(y)", blackboxes=boxes)


# Strata


def test_strata() -> None:
    program = lowered(
        E + "rel p(x, z) = e(x, z) or p(x, y) and e(y, z)\n"
        "rel odd(x + 1) = even(x), x < 9\nrel even(0)\nrel even(x + 1) = odd(x), x < 9\n"
        "rel r(x) = even(x), not p(x, _)\nrel n(k) = k := count(x: r(x))"
    ).program
    found = strata(program)
    at = {name: i for i, some in enumerate(found) for name in some}
    assert set(at) == set(program.relations)
    assert at["odd"] == at["even"]
    assert at["e"] < at["p"] < at["r"] < at["n"]
    assert sorted(map(sorted, found)) == sorted(
        [["even", "odd"], *([name] for name in at if name not in ("odd", "even"))]
    )


@pytest.mark.parametrize(
    ("program", "words", "caret"),
    [
        ("rel a = {1}\nrel r(x) = a(x), not r(x)", "negation.*: r -> r", "not r(x)"),
        (
            "rel num = {0, 1}\nrel odd(x + 1) = even(x)\nrel even(x) = num(x), not odd(x)",
            "negation.*: even -> odd -> even",
            "not odd(x)",
        ),
        (
            "rel a = {1}\nrel r(n) = n := count(x: s(x))\nrel s(x as i32) = r(x) or a(x)",
            "aggregation.*: (r -> s -> r|s -> r -> s)",
            "n := count",
        ),
        (
            "rel a = {1}\nrel r(x) = a(x), not s(x, _)\nrel s(x, y) = r(x), r(y)",
            "negation.*: r -> s -> r",
            "not s(x, _)",
        ),
    ],
)
def test_unstratified(program: str, words: str, caret: str) -> None:
    with pytest.raises(ProgramError, match=f"(?s)cannot stratify.*{words}") as info:
        strata(lowered(program).program)
    lines = str(info.value).split("\n")
    assert lines[-2][lines[-1].index("^") :].startswith(caret)


# Files


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.scl").write_text(text)


def test_import(tmp_path: Path) -> None:
    write(
        tmp_path,
        a='import "b.scl"\nimport "c.scl"\nrel r(x) = b(x), c(x)',
        b='import "c.scl"\nrel b = {1, 2}',
        c="rel c = {2, 3}",
    )
    items = load(str(tmp_path / "a.scl"))
    assert len(items) == 3
    assert evaluate(lower(items).program, {})["r"] == {(2,)}
    assert load(tmp_path / "b.scl", [str(tmp_path / "c.scl")])[0] is not None
    assert len(load(tmp_path / "b.scl", [str((tmp_path / "c.scl").resolve())])) == 1


def test_import_faults(tmp_path: Path) -> None:
    write(
        tmp_path,
        a='rel a(1)\nimport "b.scl"',
        b='import "c.scl"',
        c='import "a.scl"',
        d='import "no.scl"',
        e='import "f.scl"',
        f="rel (",
    )
    with pytest.raises(ProgramError, match=r"a.scl -> b.scl -> c.scl -> a.scl") as cyclic:
        load(str(tmp_path / "a.scl"))
    assert cyclic.value.file == str(tmp_path / "c.scl")
    assert cyclic.value.line == 1
    with pytest.raises(ProgramError, match=r"cannot read the program .*no.scl") as missing:
        load(str(tmp_path / "d.scl"))
    assert missing.value.line == 1
    with pytest.raises(ProgramError) as inside:
        load(str(tmp_path / "e.scl"))
    assert inside.value.file == str(tmp_path / "f.scl")
    with pytest.raises(ByssusError, match="cannot read the program"):
        load(str(tmp_path / "no.scl"))


def test_facts_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("from,to\n1,2\n2,3\n")
    write(tmp_path, a='@file("e.csv", header=true)\ntype e(i32, i32)\nrel r(y) = e(1, y)')
    program = lower(load(tmp_path / "a.scl")).program
    assert evaluate(program, {})["r"] == {(2,)}
    # It is read again when it has changed.
    (tmp_path / "e.csv").write_text("from,to\n1,7\n")
    program = lower(load(tmp_path / "a.scl")).program
    assert evaluate(program, {})["r"] == {(7,)}
    write(tmp_path, b='type e(i32)\n@file("out.csv")\nquery e')
    (query,) = lower(load(tmp_path / "b.scl")).program.queries
    assert (query.relation, query.name, query.file) == ("e", "e", "out.csv")


# Size

DEEP = 3 * sys.getrecursionlimit()


@pytest.mark.parametrize(
    "program",
    [
        TYPES + "rel r(x0) = " + ", ".join(f"e(x{i}, x{i + 1})" for i in range(DEEP)),
        TYPES + "rel r(x0) = a(x0), " + ", ".join(f"x{i} + 1 == x{i + 1}" for i in range(DEEP)),
        TYPES + f"rel r({' + '.join(['x'] * DEEP)}) = a(x)",
        TYPES + "rel r(x) = " + " or ".join(f"a(x + {i})" for i in range(DEEP)),
        TYPES + "rel q0(x) = a(x)\n" + "\n".join(f"rel q{i + 1}(x) = q{i}(x)" for i in range(DEEP)),
        LIST + f"const X = {'Cons(1, ' * DEEP}Nil(){')' * DEEP}",
        LIST + f"rel r(x) = case x is {'Cons(1, ' * DEEP}Nil(){')' * DEEP}",
        LIST + f"rel r({'new Cons(1, ' * (DEEP // 2)}new Nil(){')' * (DEEP // 2)})",
        "const A0 = 1\n" + "\n".join(f"const A{i + 1} = A{i}" for i in range(DEEP)),
        "type A0 = i32\n" + "\n".join(f"type A{i + 1} = A{i}" for i in range(DEEP)),
    ],
    ids=["atoms", "equations", "sum", "or", "rules", "entity", "pattern", "new", "constants",
         "aliases"],
)  # fmt: skip
def test_nothing_is_too_long(program: str) -> None:
    found = lower(parse_program(Source(program))).program
    assert len(strata(found)) == len(found.relations)


def test_formulas_that_are_nested_too_deep_are_refused() -> None:
    text = TYPES + "rel r(x) = " + "(a(x) or (b(x), " * 300 + "a(x)" + "))" * 300
    with pytest.raises(ProgramError, match="nested more than"):
        lowered(text)


def test_many_facts_are_read_once() -> None:
    items = parse_program(
        Source("rel f = {" + ", ".join(f'({i}, "s{i}")' for i in range(5000)) + "}")
    )
    first, second = lower(items).program.facts, lower(items).program.facts
    assert len(first) == 5000
    assert first[0] is second[0]
