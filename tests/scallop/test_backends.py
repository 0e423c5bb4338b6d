"""The embedded engine against Scallop's, with byssus's tags in both: same programs, same answers.

What each test of a program says of the answers is checked on both backends too (see `conftest`);
here are programs of which nobody has worked the answers out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from byssus_scallop import ScallopContext
from scallop.world_oracle import Call, Case, Rule, cases

pytest.importorskip("scallopy", reason="scallopy is not installed")

_SETTINGS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)

Found = dict[str, dict[tuple[Any, ...], float]]


def derived(text: str, backend: str, boxes: dict[str, Callable[..., Any]]) -> Found:
    """The probabilities of everything that a program derives, and why it drops tuples."""
    ctx = ScallopContext(provenance="exact", backend=backend)
    for name, box in boxes.items():
        ctx.register_blackbox(box, name)
    ctx.add_program(text)
    ctx.run()
    # A black box's own relation holds what it has been asked, which may be more than was needed.
    found = {
        name: {row: float(p) for p, row in ctx.relation(name)}
        for name in ctx.relations()
        if name not in boxes
    }
    return {**found, "dropped": {(why,): 1.0 for why in ctx.dropped}}


def check(text: str, boxes: dict[str, Callable[..., Any]] | None = None) -> Found:
    one = derived(text, "embedded", boxes or {})
    other = derived(text, "scallopy", boxes or {})
    assert one.keys() == other.keys(), text
    for name, rows in one.items():
        assert other[name] == pytest.approx(rows, abs=1e-6), f"{name}:\n{text}"
    return one


# Programs that are made up


def answering(call: Call, number: int) -> Callable[[int], Any]:
    """Two of three black boxes are not sure of what they answer."""

    def function(argument: int) -> Any:
        result = call.compute(argument)
        return {result: 0.5, (result + 1) % 3: 0.3} if number % 3 else result

    return function


def by_chance(rule: Rule) -> Rule:
    """The rule, with a coin for each of its ground instances."""
    plain = len(rule.heads) == 1 and not rule.demand and ":=" not in str(rule)
    return replace(rule, tag=0.25) if plain else rule


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, dict[str, Callable[..., Any]]]:
    """A program with facts, and its black boxes; recursion may go through rules by chance."""
    case: Case = draw(cases(most=24))
    if draw(st.booleans()):
        case = replace(case, layers=[list(map(by_chance, layer)) for layer in case.layers])
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    probs = [
        torch.rand(len(facts) + 1, generator=generator, dtype=torch.float64).softmax(0)[1:].tolist()
        for facts in case.concepts
    ]
    order = draw(st.permutations(range(12)))
    boxes = {call.name: answering(call, i) for i, call in enumerate(case.calls)}
    event("black boxes", str(len(boxes)))
    return case.text(probs, order), boxes


@_SETTINGS
@given(program=texts())
def test_random_programs(program: tuple[str, dict[str, Callable[..., Any]]]) -> None:
    check(*program)


@pytest.mark.slow
@settings(_SETTINGS, max_examples=2000)
@given(program=texts())
def test_random_programs_2000(program: tuple[str, dict[str, Callable[..., Any]]]) -> None:
    check(*program)


# Programs of features that those have not

P = "rel p = {0.1::1, 0.2::2, 0.7::3}\n"
E = "rel e = {0.1::(0, 1), 0.2::(1, 2), 0.3::(2, 0), 0.4::(2, 3), (3, 3)}\n"
LIST = "type List = Cons(i32, List) | Nil()\n"
EXPR = "type Expr = Num(i32) | Add(Expr, Expr)\n"

PROGRAMS = {
    "equalities that are false": """
        rel q(a) = p(a) and a == 1 and a == 2
        rel r(a, b) = p(a) and b == a + 1 and b == a
        rel s(x) = p(x) and y == x and z == y and z != 2 and p(z)
        rel t(x, y) = p(x) and p(y) and x == y + 1 and y == x - 1 and x != y
    """,
    "Boolean values": """
        rel q(x) = p(x) and p(y) and (x == y) == true
        rel r(x) = p(x) and (x == 1) == false
        rel s(b) = p(x) and b == (x == 1)
        rel t(x) = p(x) and (x > 1 && x < 3) and not s(x == 3)
    """,
    "an expression in a negated atom": """
        rel q(x) = p(x) and not p(x + 1)
        rel r(x) = e(x, y) and not e(y, x + 1)
        rel s(x) = e(x, y) and not e(x, 0) and not e(y, y)
        rel t(x) = h(_, x, y) and not h(x, 0, x) and not h(1, y, y)
        rel h(x, y, z) = e(x, y) and e(y, z)
    """,
    "many variables": """
        rel q(a, b, c, d, f, g) = p(a) and p(b) and p(c) and p(d) and p(f) and p(g)
            and a + b + c + d + f + g == 9 and a <= b and b <= c and c <= d and d <= f and f <= g
    """,
    "negation above recursion": """
        rel path(x, y) = e(x, y)
        rel path(x, z) = path(x, y) and e(y, z)
        rel unreached(x, y) = e(x, _) and e(_, y) and not path(x, y)
        rel far(x, y) = unreached(x, y) or far(x, z) and unreached(z, y)
        rel none(x) = e(x, _) and not far(x, _)
    """,
    "aggregates above recursion": """
        rel path(x, y) = e(x, y) or (path(x, z) and e(z, y))
        rel reached(x, n) = n := count(y: path(x, y))
        rel all(x, n) = n := count(y: path(x, y) where x: node(x))
        rel node = {0, 1, 2, 3, 4}
        rel first(y) = y := min(y: path(0, y))
        rel longest(x) = (x) := argmax[x](n: reached(x, n))
        rel total(n) = n := sum[x](m: reached(x, m))
        rel nowhere() = not exists(x: path(x, 1))
        rel every() = forall(x, y: e(x, y) implies path(y, x))
    """,
    "aggregates of aggregates": """
        rel n(x) = x := count(y: p(y))
        rel m(x) = x := max(y: n(y))
        rel k(x, b) = b := exists(y: p(y) and y > x where x: p(x))
        rel l(x) = x := count(y: k(y, true))
    """,
    "coins in a recursion": """
        rel infected(0)
        rel 0.6::infected(y) = infected(x) and e(x, y)
        rel healthy(x) = e(x, _) and not infected(x)
        rel number(n) = n := count(x: infected(x))
    """,
    "coins of different values": """
        rel weight = {(1, 0.25), (2, 0.5), (3, 1.0)}
        rel w::q(x) = p(x) and weight(x, w)
        rel w::q(x) = weight(x, w)
        rel 0.5::r() = q(x)
        rel 0.5::r() = p(1)
    """,
    "alternatives": """
        rel {heads(x); tails(x)} = p(x)
        rel {left(y); right(y); middle(x)} = e(x, y)
        rel odd(x) = heads(x) and not left(x)
        rel both(x) = heads(x) and tails(x)
        rel 0.5::s(x) = right(x) and not both(x)
    """,
    "demand": """
        @demand("bf") rel path(x, y) = e(x, y) or (e(x, z) and path(z, y))
        rel start = {0.5::0, 0.2::3}
        rel q(y) = start(x) and path(x, y)
        rel r(y) = e(_, y) and not q(y)
    """,
    "demand of a function": """
        @demand("bf") rel fib(x, y + z) = fib(x - 1, y) and fib(x - 2, z) and x > 1
        rel fib = {(0, 1), (1, 1)}
        rel q(x, y) = p(x) and fib(x + 2, y)
    """,
    "numbers of all sizes": """
        type a(i8), b(u8), c(i128, u128), d(usize)
        rel a = {-128, 127, -1, 0}
        rel b = {0, 1, 255}
        rel c = {(-170141183460469231731687303715884105728, 18446744073709551616)}
        rel d = {0, 1, 18446744073709551615}
        rel q(x) = a(x) and x < -1
        rel r(-x) = a(x)
        rel s(x as i8, x as i32, x as f32, x as String) = b(x)
        rel t(x, y - 1) = c(x, y)
        rel u(x - 1) = d(x)
        rel v(x + 1) = d(x)
        rel w(x, $abs(x)) = a(x)
    """,
    "sums that leave their range": """
        type a(u8)
        rel a = {0.5::0, 0.4::1, 0.3::2, 255}
        rel q(x) = a(x) and not a(x - 1)
        rel r(x, y) = a(x) and a(y) and not a(x - y - 1)
        rel s(x) = a(x) and a(x + 1)
        rel g = {0.5::(1, 1), 0.5::(1, 2), 0.3::(2, 1), (2147483647, 1)}
        rel edge(x, y) = g(x, y) and not g(x + 1, x + 1) and not g(x - 1, y)
    """,
    "deep expressions": f"""
        rel q(x{" + 1" * 500}) = p(x)
        rel r(x) = p(x) and (x > 1{" && x < 3" * 2000})
    """,
    "dropped": """
        rel q(x, 6 / (x - 1)) = p(x)
        rel r(x) = p(x) and 10 % (x - 2) == 0
        rel s = {"1", "b"}
        rel t(x as i32) = s(x)
    """,
    "floats": """
        type f(x: f32, y: f64)
        rel f = {0.1::(1.0, 0.1), 0.2::(0.1, 0.3), 0.3::(-2.5, 1.0)}
        rel q(x + 0.1, y / 3.0) = f(x, y)
        rel r(x) = f(x, _) and x == 0.1
        rel s(x, y) = f(x, _) and f(y, _) and x + y == 1.1
        rel t($sin(x), x as i32, y as f32) = f(x, y)
        rel u(x) = x := sum(x: f(x, _))
    """,
    "text": """
        rel s = {0.1::"a", 0.2::"bb", 0.3::"c\\"d\\\\", 0.4::"é\\n"}
        rel q(n, x) = s(x) and n == $string_length(x)
        rel r(x) = s(x) and $string_length(x) == 2
        rel t($format("{}-{}", x, y)) = s(x) and s(y) and x != y
        rel u(x) = s(x) and x == "c\\"d\\\\"
        rel v(x, c) = s(x) and string_chars(x, _, c) and c != 'b'
        rel w(x) = x := string_join<", ">(x: s(x))
    """,
    "symbols": """
        type s(x: Symbol)
        rel s = {0.5::s"b", s"a"}
        rel q(x) = s(x) and x != s"a"
        rel r(x as String) = s(x)
        rel t(x, y as Symbol) = s(x) and r(y)
        rel u(y) = s(x) and y == (if x == s"a" then s"yes" else x)
    """,
    "foreign predicates": """
        rel q(x) = range<i32>(0, 5, x) and x % 2 == 0
        rel r(x, y) = p(x) and range<i32>(0, x, y) and not p(y)
        rel s(x, i) = string_chars("abc", i, x) and i > 0
        rel t(x, y) = p(x) and p(y) and soft_lt<f32>(x as f32, y as f32)
        rel u() = t(x, x)
    """,
    "conditions": "rel q(z) = e(x, y) and z == (if x > y then y else (if x == 0 then 7 else x))",
    "entities of the text": f"""{LIST}
        const ONE = Cons(1, Nil()), TWO = Cons(2, Cons(1, Nil()))
        rel l = {{0.5::(ONE), 0.3::(TWO)}}
        @demand("bf") rel length(l, 0) = case l is Nil()
        @demand("bf") rel length(l, n + 1) = case l is Cons(_, m) and length(m, n)
        rel q(n) = l(x) and length(x, n)
        rel r(x) = l(x) and x != ONE
    """,
    "entities that rules make": f"""{LIST}
        rel l(new Nil())
        rel l(new Cons(x, m)) = l(m) and p(x) and length(m, n) and n < 2
        rel length(l, 0) = case l is Nil()
        rel length(l, n + 1) = case l is Cons(_, m) and length(m, n)
        rel q(n, k) = k := count(x: l(x) and length(x, n))
        rel r(x) = l(x) and x == new Cons(1, new Nil())
    """,
    "entities that are read": f"""{EXPR}
        rel text = {{0.5::"Add(Num(1), Num(2))", 0.3::"Num(7)", 0.1::"Nothing("}}
        rel e($parse_entity(s)) = text(s)
        rel value(e, n) = case e is Num(n)
        rel value(e, m + n) = case e is Add(l, r) and value(l, m) and value(r, n)
        rel q(n) = e(x) and value(x, n)
    """,
    "relations without tuples": """
        type a(i32), b()
        rel s(n) = n := count(x: a(x))
        rel m(n) = n := max(x: a(x))
        rel q() = exists(x: a(x))
        rel r() = not exists(x: a(x))
        rel t() = forall(x: a(x) implies x > 1) and not b()
        rel u(x) = a(x) or (b() and p(x))
    """,
    "no body": """
        rel q(x) = x == 1
        rel q(2)
        rel r(x, x) = q(x)
        rel s(x, y, x + y) = q(x) and q(y)
        rel t(x) = x == $abs(-3) and range(0, x, _)
    """,
    "names of Scallop's": """
        rel count(x) = p(x) and x > 1
        rel sum = {1, 2}
        rel string = {0.5::"a"}
        rel q(x) = count(x) and not sum(x)
        rel i(x) = string(x)
    """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    text = PROGRAMS[name]
    check(E * ("rel e(" not in text) + P + text)


BOXES: dict[str, Callable[..., Any]] = {
    "next": lambda x: {(x + 1) % 5: 0.6, x: 0.3},
    "both": lambda x: [x, x + 1],
    "small": lambda x: x < 2,
    "double": lambda x: 2 * x,
}
DECLARED = """
    @blackbox type next(bound i32, i32)
    @blackbox type both(bound i32, i32)
    @blackbox type small(bound i32)
    @blackbox type $double(i32) -> i32
"""


@pytest.mark.parametrize(
    "rules",
    [
        "rel walk(0) rel walk(y) = walk(x) and next(x, y) rel n(k) = k := count(x: walk(x))",
        "rel q(y) = p(x) and next(x, y) and small(y) rel r(x) = p(x) and not q(x)",
        "rel q(x) = p(x) and not small(x) rel r(n) = n := count(x: q(x) and next(x, x))",
        "rel 0.5::q(y) = p(x) and both(x, y) rel r(y) = q(x) and next(x, y) and not q(y)",
        "rel q($double(x)) = p(x) rel r(z) = q(y) and both(y, z) and $double(y) == 2 * y",
        "rel m(x) = x := max(y: p(y)) rel q(y) = m(x) and next(x, y) rel s(x) = q(x) and small(x)",
        "rel {a(y); b(y)} = p(x) and next(x, y) rel c(x) = a(x) and not small(x)",
        "rel s(n) = n := sum(y: p(x) and y == $double(x)) rel t(y) = s(x) and next(x, y)",
    ],
)
def test_black_boxes(rules: str) -> None:
    check(DECLARED + P + rules, BOXES)
