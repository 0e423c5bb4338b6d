"""Types, names and groundness: what is inferred, and what is refused with which words."""

from __future__ import annotations

import itertools

import pytest

from byssus import ProgramError
from scallop.ir_oracle import lowered


@pytest.mark.parametrize(
    ("program", "relation", "types"),
    [
        # Defaults: integers i32, floats f32, text String.
        ("rel r = {1, 2}", "r", ("i32",)),
        ("rel r(1.5, 'a', true, \"x\")", "r", ("f32", "char", "bool", "String")),
        ('rel r(t"2020-01-01", d"1d", s"a")', "r", ("DateTime", "Duration", "Symbol")),
        # A whole number may be a float, if another fact is one.
        ("rel r = {1, 2.5}", "r", ("f32",)),
        ("rel r = {-1, 2}", "r", ("i32",)),
        # Declarations, through rules in both directions.
        ("type a(usize)\nrel b(x) = a(x)", "b", ("usize",)),
        ("type b(u8)\nrel a = {1, 2}\nrel b(x) = a(x)", "a", ("u8",)),
        ("type b(u8)\nrel a = {1}\nrel b(x + y) = a(x), a(y)", "a", ("u8",)),
        ("type a(i64)\nrel b(x) = a(y), x == y + 1", "b", ("i64",)),
        ("type T = u16\ntype U <: T\ntype a(U)\nrel b(x) = a(x)", "b", ("u16",)),
        ("type C = RED | GREEN\nrel r = {RED}", "r", ("usize",)),
        ("type T = A() | B(i8)\nconst X = B(1)\nrel r(X)", "r", ("Entity",)),
        ("type T = A() | B(i8)\nrel r(x) = case e is B(x)", "r", ("i8",)),
        # Untyped constants take the type of each place.
        ("const N = 1\ntype a(u8), b(f64)\nrel a(N)\nrel b(N)\nrel c(x) = b(x)", "c", ("f64",)),
        ("const N: u8 = 1\nrel a(N)", "a", ("u8",)),
        # Operators.
        ("rel a(1)\nrel r(x as String) = a(x)", "r", ("String",)),
        ("rel a(1)\nrel r(x == 1, x < 2) = a(x)", "r", ("bool", "bool")),
        ('rel a("x")\nrel r(x + "y") = a(x)', "r", ("String",)),
        (
            'rel a(t"2020-01-01", d"1d")\nrel r(x + y, x - x) = a(x, y)',
            "r",
            ("DateTime", "Duration"),
        ),
        ('rel a(t"2020-01-01")\nrel r(y) = a(x), a(z), x == z + y', "r", ("Duration",)),
        ("type a(usize)\nrel r(if x == 1 then x else 2) = a(x)", "r", ("usize",)),
        # Functions and predicates, generic ones among them.
        ('rel r($string_length("a"))', "r", ("usize",)),
        ("type a(i8)\nrel r($abs(x)) = a(x)", "r", ("i8",)),
        ("type a(i8)\nrel r($max(x, y)) = a(x), a(y)", "r", ("i8",)),
        ('rel r(i, c) = string_chars("ab", i, c)', "r", ("usize", "char")),
        ("rel r(x) = range<u8>(0, 3, x)", "r", ("u8",)),
        ("rel r(x) = x in 0..3", "r", ("i32",)),
        # Aggregations: counts are usize, sums what is summed, in both directions.
        ("rel a = {1}\nrel r(n) = n := count(x: a(x))", "r", ("usize",)),
        ("rel a = {1.5}\nrel r(n) = n := sum(x: a(x))", "r", ("f32",)),
        ("type r(u8)\nrel a = {1}\nrel r(n) = n := sum(x: a(x))", "a", ("u8",)),
        ('rel a = {("x", 1)}\nrel r = max[s](n: a(s, n))', "r", ("String", "i32")),
        ('rel a = {("x", 1)}\nrel r = argmax[s](n: a(s, n))', "r", ("String",)),
        ("rel a = {1}\nrel r(b) = b := exists(x: a(x))", "r", ("bool",)),
        ("rel r(n) = n := count((x: u8): a(x))\nrel a = {1}", "a", ("u8",)),
        # What an aggregation binds is its own: another of that name may be of another type.
        (
            'rel a = {1}\nrel b = {"x"}\nrel r(n, m) = n := count(x: a(x)), m := max(x: b(x))',
            "r",
            ("usize", "String"),
        ),
        ('rel a = {"x"}\nrel r(x) = x := count(x: a(x))', "r", ("usize",)),
    ],
)
def test_types(program: str, relation: str, types: tuple[str, ...]) -> None:
    assert lowered(program).program.relations[relation].types == types


def fault(program: str, words: list[str], *carets: str) -> None:
    """What is refused: words of the message, and the texts at its carets, in order."""
    with pytest.raises(ProgramError) as info:
        lowered(program)
    message = str(info.value)
    for word in words:
        assert word in message, message
    lines = message.split("\n")
    shown = [
        above[under.index("^") :]
        for above, under in itertools.pairwise(lines)
        if under.strip() == "^"
    ]
    assert len(shown) == len(carets), message
    for text, caret in zip(shown, carets, strict=True):
        assert text.startswith(caret), message


UNIFY = "cannot unify types"


@pytest.mark.parametrize(
    ("program", "words", "carets"),
    [
        # Both places are shown.
        ('rel r = {1, "a"}', [UNIFY, "`numeric`", "`String`"], ["1,", '"a"']),
        ("type a(String)\nrel a(3)", ["`String`", "`numeric`"], ["String", "3"]),
        (
            "type a(usize), b(i32)\nrel a(x) = b(x)",
            ["`i32`", "`usize`"],
            ["i32", "usize", "x)"],
        ),
        (
            "const V: usize = 5\ntype r(u32)\nrel r = {V}",
            ["`u32`", "`usize`"],
            ["u32", "V: usize", "V}"],
        ),
        ("const A: String = 3", ["`numeric`", "`String`"], ["3", "String"]),
        ("const A: usize = -5", [UNIFY, "`usize`"], ["-5", "usize"]),
        ("type a(u8)\nrel a(-1)", [UNIFY, "`u8`"], ["u8", "-1"]),
        ("type a(u8)\nrel a(300)", ["300", "u8"], ["300"]),
        ("rel a(99999999999)", ["99999999999", "i32"], ["99999999999"]),
        (
            'rel a(1)\nrel r(x + "b") = a(x)',
            ["no matching rule found for `+`", "String"],
            ["1)", '"b"', 'x + "b"'],
        ),
        (
            "type a(f32)\nrel r(x as char) = a(x)",
            ["cannot cast type from `f32` to `char`"],
            ["x as char"],
        ),
        ("rel a(1)\nrel r(x) = a(x), x as u8", ["must have `bool` type", "`u8`"], ["x as u8"]),
        ('rel r($abs("x"))', [UNIFY, "`String`"], ["$abs", '"x"']),
        # Names.
        ("rel r(x) = edg(x)\ntype edge(i32)", ["unknown relation `edg`", "`edge`"], ["edg(x)"]),
        (
            "query edg\ntype edge(i32)",
            ["unknown relation `edg` used in query", "`edge`"],
            ["query edg"],
        ),
        ("rel a($abz(1))", ["unknown function `abz`", "`abs`"], ["$abz(1)"]),
        (
            "rel a(1)\nrel r(n) = n := cont(x: a(x))",
            ["unknown aggregate `cont`", "`count`"],
            ["cont"],
        ),
        ("type a(int)", ["unknown custom type `int`"], ["int"]),
        ("type a = b", ["unknown custom type `b`"], ["b"]),
        ("type a = b\ntype b = a", ["declared as itself", "a = b = a"], ["type a"]),
        ("const A = B", ["unknown constant `B`"], ["B"]),
        ("const A = B, B = C, C = A", ["defined by itself", "A -> B -> C -> A"], ["C = A"]),
        ("rel a = {X}", ["unknown variable `X`"], ["X"]),
        ("rel a(x, x + 1)", ["unknown variable `x`"], ["x, x"]),
        ("type T = A() | B()\nrel r(x) = case x is C()", ["variant `C`"], ["C()"]),
        ("type T = A() | B()\nrel r(x) = B(x)", ["case x is B"], ["B(x)"]),
        ("@foo\ntype a(i32)", ["Unknown attribute `@foo`"], ["@foo"]),
        ("type $f(x: i32) -> i32", ["`$f`", "nothing says what it does"], ["type $f"]),
        ("extern type p(i32)", ["`p`", "not registered"], ["p(i32)"]),
        # Declared twice.
        ("type a(i32)\ntype a(i32)", ["duplicated relation type"], ["a(i32)", "a(i32)"]),
        ("type a = i32\ntype a <: u8", ["duplicated type"], ["type a", "type a"]),
        ("const A = 1\nconst A = 2", ["duplicated declaration of constant"], ["A = 1", "A = 2"]),
        ("type a = A | B | A", ["duplicated declaration of constant `A`"], ["A |", "A"]),
        ("type T = A() | A()", ["variant `A`"], ["A() |", "A()"]),
        ("type K = A = 3 | B | C = 4", ["already been assigned"], ["C = 4"]),
        ("type string_chars(String)", ["foreign predicate"], ["string_chars"]),
        # Numbers of arguments.
        (
            "type a(i32, i32)\nrel r(x) = a(x)",
            ["arity mismatch", "Expected 2, found 1"],
            ["a(i32", "a(x)"],
        ),
        ("rel a = {(1, 2), 3}", ["arity mismatch", "a"], ["3"]),
        (
            "type T = A(i32) | B()\nconst X = A()",
            ["variant `A`", "Expected 1, found 0"],
            ["A(i32)", "A()"],
        ),
        ("rel r($abs(1, 2))", ["arguments for function `abs`, found 2"], ["$abs"]),
        (
            "rel r(x) = string_chars(x, 1)\ntype a(i32)",
            ["string_chars", "Expected 3"],
            ["string_chars"],
        ),
        (
            "rel a(1)\nrel r(x, y) = (x, y) := count(z: a(z))",
            ["1 output argument", "found 2"],
            ["(x, y) := count"],
        ),
        ("rel a(1)\nrel r(x) = x := sum(a(1))", ["`sum` takes 1"], ["sum"]),
        # Wildcards and aggregations where they cannot be.
        ("rel a(1)\nrel r(_) = a(_)", ["Invalid wildcard in the head"], ["_) = a"]),
        ("rel a(1)\nrel r(x) = a(x), x == _ + 1", ["Invalid wildcard"], ["_ + 1"]),
        ("rel a(1)\nrel r() = forall(x: a(x))", ["must be an `implies` formula"], ["forall"]),
        (
            "const x = 1\nrel a(1)\nrel r(n) = n := count(x: a(x))",
            ["variable binding"],
            ["x = 1", "x: a"],
        ),
        # Groundness.
        (
            "type e(i32, i32)\nrel p(a, c) = e(a, b)",
            ["argument of the head of a rule is ungrounded", "`c`"],
            ["c) = e"],
        ),
        ("type e(i32, i32)\nrel p(a, c) = e(a, c) or e(a, b)", ["ungrounded", "`c`"], ["c) = e"]),
        ("type e(i32)\nrel p(a) = e(a), a < b", ["constraint is ungrounded", "`b`"], ["b"]),
        ("type e(i32)\nrel p(a) = e(a), not e(b + 1)", ["negated atom", "`b`"], ["b + 1"]),
        ("type e(i32)\nrel p(x) = e(a), x * 2 == a", ["ungrounded", "`x`"], ["x * 2"]),
        ("rel p(x) = range<i32>(0, y, x)", ["foreign predicate `range`", "`y`"], ["y, x"]),
        ("rel p(x) = range<i32>(0, _, x)", ["foreign predicate `range`"], ["_, x"]),
        ("type e(i32)\nrel p(n) = n := count(x: e(y))", ["ungrounded", "`x`"], ["n := count"]),
        ('rel s = {"ab"}\nrel r(x) = s(y), "a" + x == y', ["ungrounded", "`x`"], ["x == y"]),
        # Tags.
        ('rel a(t"2024-01-01")\nrel x::r() = a(x)', ["`DateTime` cannot be casted"], ["x::r"]),
        (
            "type a(i32)\nrel 1.0 / n::r() = a(n)",
            ["no matching rule found for `/`"],
            ["1.0", "i32", "1.0 / n"],
        ),
        ("rel 1.5::a(1)", ["1.5", "probability"], ["1.5"]),
        ("rel a = {2::1}", ["2", "probability"], ["2::"]),
        # Attributes.
        ('@demand("bx")\nrel r(x, y) = a(x, y)\ntype a(i32, i32)', ["demand pattern"], ["@demand"]),
        ('@demand("b")\nrel r(x, y) = a(x, y)\ntype a(i32, i32)', ["Expected 2"], ["@demand"]),
        ("@goal rel r(x) = a(x)\ntype a(i32)", ["arity-0"], ["r(x)"]),
        ('@file("a.txt")\ntype a(i32)', [".csv"], ["@file"]),
        ('@file("no/such.csv")\ntype a(i32)', ["cannot read", "no/such.csv"], ["@file"]),
        (
            '@file("a.csv", delim=",")\ntype a(i32)',
            ["no option `delim`", "`deliminator`"],
            ["@file"],
        ),
        ('@scheduler("foo")\nrel r(x) = a(x)\ntype a(i32)', ["Unknown scheduler"], ["@scheduler"]),
    ],
)
def test_faults(program: str, words: list[str], carets: list[str]) -> None:
    fault(program, words, *carets)


def test_constants_are_seen_by_later_rules_only() -> None:
    program = lowered("rel a = {1, 2}\nrel r(x) = a(x)\nconst x = 2\nrel s(x) = a(x)").program
    assert [len(rule.steps[0].columns) for rule in program.rules] == [1, 1]
    r, s = program.rules
    assert type(r.steps[0].columns[0]).__name__ == "Bind"
    assert type(s.steps[0].columns[0]).__name__ == "Check"


def test_a_variable_that_is_not_shared_with_an_aggregation_is_pointed_out() -> None:
    found = lowered("rel a(1)\nrel b(1, 2)\nrel r(n) = a(x), n := count(y: b(x, y))")
    (warning,) = found.warnings
    assert "`x` in the aggregation is another variable" in warning
    assert "line 3, column 18" in warning
    assert (
        lowered("rel a(1)\nrel b(1, 2)\nrel r(x, n) = a(x), n := count(y: b(x, y))").warnings == ()
    )


def test_undefined_relations_can_be_allowed() -> None:
    found = lowered("rel r(x) = e(x, 1)\nquery q", allow_undefined=True)
    assert set(found.undefined) == {"e", "q"}
    assert found.program.relations["e"].types == ("i32", "i32")
    assert found.program.queries == ()


def test_conversion_of_tuples() -> None:
    found = lowered("type a(u8, String, f32)")
    assert found.convert("a", (1, "x", 2)) == (1, "x", 2.0)
    with pytest.raises(Exception, match="has 3 values"):
        found.convert("a", (1, "x"))
    with pytest.raises(Exception, match="argument 1 of a"):
        found.convert("a", (-1, "x", 2.0))


def test_entities_from_text() -> None:
    found = lowered("type L = Cons(i32, L) | Nil()\ntype r(L)\nconst X = Cons(1, Nil())\nrel r(X)")
    (entity,) = found.convert("r", ("Cons(1, Nil())",))
    assert entity == found.constants["X"]
    facts = found.entities("r", ("Cons(1, Nil())",))
    assert {fact.relation for fact in facts} == {"adt#Cons", "adt#Nil"}
    assert set(facts) <= set(found.program.facts)
    with pytest.raises(Exception, match="argument 1 of r is an Entity"):
        found.convert("r", ("Foo(1)",))
