"""What Scallop derives: a table of small programs over all of its features.

The facts are those that Scallop's own tests pin down, or what its engine was seen to give.
"""

import math
from pathlib import Path

import pytest
import torch

import byssus_scallop as scallopy
from byssus import ByssusError
from scallop.running import Case, Fault, check, fails, parametrized, probabilities, run, tuples

CHAIN = "rel arc = {(1, 3), (2, 3), (3, 4)}"
REACH = [(1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]

RECURSION = [
    *[
        Case(f"closure, {name}", f"{CHAIN}\nrel reach(x, y) = {body}", {"reach": REACH})
        for name, body in [
            ("left", r"arc(x, y) \/ reach(x, z) /\ arc(z, y)"),
            ("right", "arc(x, y) or arc(x, z) and reach(z, y)"),
            ("both", "arc(x, y) or (reach(x, z) and reach(z, y))"),
        ]
    ],
    Case(
        "mutual recursion",
        """
        rel even(0)
        rel odd(n) = even(n - 1), n < 8
        rel even(n) = odd(n - 1), n < 8
        """,
        {"even": [0, 2, 4, 6], "odd": [1, 3, 5, 7]},
    ),
    Case(
        "mutual recursion counting up",
        "type even(i32)\nrel even(0)\nrel odd(n + 1) = even(n)\nrel even(n + 1) = odd(n), n < 6",
        {"even": [0, 2, 4, 6], "odd": [1, 3, 5, 7]},
    ),
    Case(
        "recursion from a constant",
        "rel n(x) = x == 0 or (n(x - 1) and x <= 4)",
        {"n": range(5)},
    ),
    Case(
        "evaluation of a table of expressions",
        """
        rel value(e, c) = number(e, c)
        rel value(e, a + b) = node(e, "+", l, r), value(l, a), value(r, b)
        rel value(e, a - b) = node(e, "-", l, r), value(l, a), value(r, b)
        rel number = {(0, 5), (1, 7), (2, 4)}
        rel node = {(3, "+", 0, 1), (4, "-", 3, 2)}
        rel result(y) = value(4, y)
        """,
        {"result": [8]},
    ),
    Case(
        "undirected paths",
        """
        rel arc = {(0, 1), (1, 2)}
        rel path(a, b) = arc(a, b) or (arc(a, c) and path(c, b))
        rel either(a, b) = path(a, b) or path(b, a)
        """,
        {"either": [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]},
    ),
    Case(
        "an unbounded set bounded by a demand",
        """
        rel wanted = {6}
        rel wanted(x - 1) = wanted(x), x > 1
        rel wanted(x - 2) = wanted(x), x > 1
        rel fib = {(0, 1), (1, 1)}
        rel fib(x, a + b) = wanted(x), fib(x - 1, a), fib(x - 2, b), x > 1
        rel result(y) = fib(6, y)
        """,
        {"result": [13]},
    ),
    Case(
        "nothing from nothing",
        """
        type event(i32, String)
        rel eventually(s, s, g) = event(s, g)
        rel eventually(s, e, g) = event(n, _) and eventually(n, e, g) and n == s + 1
        """,
        {"eventually": []},
    ),
    Case(
        "events in time",
        """
        rel event = {(0, "a"), (1, "a"), (2, "b"), (3, "c")}
        rel until(e, e, g) = event(e, g)
        rel until(s, e, g) =
          event(s, _) and ~event(s, g) and event(n, _) and until(n, e, g) and n == s + 1
        """,
        {
            "until": [
                *[(0, 0, "a"), (1, 1, "a"), (0, 2, "b"), (1, 2, "b"), (2, 2, "b")],
                *[(0, 3, "c"), (1, 3, "c"), (2, 3, "c"), (3, 3, "c")],
            ]
        },
    ),
    Case(
        "family relations by composition",
        """
        const MOTHER = 1, FATHER = 2, GRANDMOTHER = 3, GRANDFATHER = 4
        rel compose = {
          (MOTHER, MOTHER, GRANDMOTHER), (FATHER, FATHER, GRANDFATHER),
          (FATHER, MOTHER, GRANDMOTHER), (MOTHER, FATHER, GRANDFATHER),
        }
        rel context = {(FATHER, "bob", "john"), (MOTHER, "john", "alice")}
        rel kin(r, a, b) :- context(r, a, b)
        rel kin(t, a, b) :- kin(r, a, c), kin(s, c, b), compose(r, s, t)
        query kin(r, "bob", "alice")
        """,
        {'kin(r, "bob", "alice")': [(3, "bob", "alice")]},
    ),
]

JOINS = [
    Case(
        "equal values in an atom",
        "rel e = {(0, 1), (2, 2)}\nrel l(a, a) :- e(a, a)",
        {"l": [(2, 2)]},
    ),
    Case(
        "constant in the head",
        "rel e = {(0, 1), (1, 2)}\nrel s(a, 2) :- e(a, _)",
        {"s": [(0, 2), (1, 2)]},
    ),
    Case("comparison", "rel e = {(0, 1), (1, 2)}\nrel s(a) :- e(a, b), b > 1", {"s": [1]}),
    Case(
        "reversed join",
        """
        rel s = {(1, 2), (2, 3), (3, 4)}
        rel r = {(1, 2), (4, 3)}
        rel o(a, b) = s(b, a), r(a, b)
        """,
        {"o": [(4, 3)]},
    ),
    Case(
        "four atoms over the same variables",
        """
        rel s = {(1, 2), (2, 3), (3, 4), (4, 3)}
        rel r = {(1, 2), (3, 4), (4, 3)}
        rel o(a, b) = s(b, a), s(a, b), r(a, b), r(b, a)
        """,
        {"o": [(3, 4), (4, 3)]},
    ),
    Case(
        "repeated variables across atoms",
        'rel c = {("x", "y")}\nrel d(b, a) = c(b, a), c(h, h), c(h, a)',
        {"d": []},
    ),
    Case(
        "the same selective atom twice",
        'rel a = {("p", 3, 5), ("q", 6, 3), ("r", 4, 4)}\nrel b(y, x) = a(x, y, y), a(x, y, y)',
        {"b": [(4, "r")]},
    ),
    Case(
        "arithmetic in the head",
        "rel d = {(0, 2), (0, 3), (1, 4)}\nrel s(0, 1, x + y) = d(0, x), d(1, y)",
        {"s": [(0, 1, 6), (0, 1, 7)]},
    ),
    Case(
        "arithmetic in an equation",
        "rel d = {(0, 2), (0, 3), (1, 4)}\nrel s(c) = d(a, x), d(b, y), c == x + y, a == 0, b == 1",
        {"s": [6, 7]},
    ),
    Case(
        "a chain of equations",
        "rel R(s) = s == x + z, x == y + 1, y == z + 1, z == 1",
        {"R": [4]},
    ),
    Case(
        "a chain of equations beside an atom",
        "rel E(5)\nrel R(s, a) = s == x + z, x == y + 1, y == z + 1, z == 1, E(a)",
        {"R": [(4, 5)]},
    ),
    Case(
        "a variable is itself", "rel s = {(0, 1)}\nrel q(a, b) = s(a, b), a == a", {"q": [(0, 1)]}
    ),
    Case("no variables", "rel a(3)\nrel yes() = a(3)\nrel no() = a(4)", {"yes": [()], "no": []}),
    Case(
        "a relation that nobody asks for",
        'rel a = {(0, 1)}\nrel b = {("x"), ("y")}\nrel s(t, 1) = b(t)\nquery s',
        {"s": [("x", 1), ("y", 1)]},
    ),
    Case(
        "body mass index, with casts",
        """
        rel student = {(1, 185, 80, "a"), (2, 175, 70, "b")}
        rel bmi(i, w as f32 / ((h * h) as f32 / 10000.0)) = student(i, h, w, _)
        """,
        {"bmi": [(1, 80 / 3.4225), (2, 70 / 3.0625)]},
    ),
    Case(
        "integers where floats are declared",
        """
        type student(usize, f32, f32)
        rel student = {(1, 185, 80), (2, 175, 70)}
        rel bmi(i, w / (h * h / 10000.0)) = student(i, h, w)
        """,
        {"bmi": [(1, 80 / 3.4225), (2, 70 / 3.0625)]},
    ),
    Case(
        "cross product",
        "rel a = {1, 2}\nrel b = {3, 4}\nrel c(x, y) = a(x), b(y)",
        {"c": [(1, 3), (1, 4), (2, 3), (2, 4)]},
    ),
    Case(
        "conditional expression",
        "rel a = {true, false}\nrel b(y, x) = x == (if y then 3 else 4), a(y)",
        {"b": [(False, 4), (True, 3)]},
    ),
    Case(
        "conditional expression in the head",
        "rel a = {1, 5}\nrel b(if x > 2 then x else 0) = a(x)",
        {"b": [0, 5]},
    ),
    Case(
        "nested conjunction and disjunction",
        "rel a = {1, 2, 3}\nrel b = {2}\nrel c = {3}\nrel r(x) = a(x) and (b(x) or c(x))",
        {"r": [2, 3]},
    ),
]

NEGATION = [
    Case(
        "difference",
        "rel a = {(0, 1), (1, 2)}\nrel b = {(1, 1), (1, 2)}\nrel s(x, y) = a(x, y), ~b(x, y)",
        {"s": [(0, 1)]},
    ),
    Case(
        "negation over one column",
        "rel s = {(0, 1), (1, 2), (2, 3)}\nrel r = {1, 2}\nrel o(a, b) = s(a, b), not r(b)",
        {"o": [(2, 3)]},
    ),
    Case(
        # In a negated atom a variable of its own is a wildcard.
        "negation with a free variable",
        """
        rel s = {(0, 1), (1, 2), (2, 3)}
        rel r = {(1, 2), (2, 3)}
        rel o(a, b) = s(a, b), ~r(b, _)
        """,
        {"o": [(2, 3)]},
    ),
    Case(
        "negation of equal values",
        """
        rel s = {(0, 1), (1, 2), (2, 3)}
        rel r = {(1, 2), (2, 2)}
        rel o(a, b) = s(a, b), ~r(a, a)
        """,
        {"o": [(0, 1), (1, 2)]},
    ),
    Case(
        "negation with a constant",
        'rel a = {(0, 1)}\nrel b = {(0, 1, "o")}\nrel q() = a(x, y), ~b(x, y, "o")',
        {"q": []},
    ),
    Case(
        "negation of anything",
        'rel b("x")\nrel a() :- ~b(_)\nrel c() :- ~d(_)\ntype d(i32)',
        {"a": [], "c": [()]},
    ),
    Case(
        "negation of its own projection",
        'rel e = {(4, 4, "m"), (7, 8, "b")}\nrel h(d, x) = e(d, b, x), not e(d, d, x)',
        {"h": [(7, "b")]},
    ),
    Case(
        "complement within recursion's result",
        """
        rel n(x) = x == 0 or (n(x - 1) and x <= 6)
        rel odd(1) = n(1)
        rel odd(x) = odd(x - 2), n(x)
        rel even(x) = n(x), ~odd(x)
        """,
        {"even": [0, 2, 4, 6]},
    ),
    Case(
        "no incoming edge, by count",
        """
        rel node = {0, 1, 2}
        rel edge = {(0, 1), (1, 2)}
        rel source(x) = n = count(y: edge(y, x) where x: node(x)) and n == 0
        """,
        {"source": [0]},
    ),
    Case(
        "singletons among components",
        """
        rel node = {0, 1, 2, 3}
        rel edge = {(0, 1), (1, 0), (1, 2)}
        rel path(a, b) = edge(a, b) or (path(a, c) and edge(c, b))
        rel same(a, a) = node(a)
        rel same(a, b) = path(a, b) and path(b, a)
        rel paired(a) = same(a, b), a != b
        rel single(a) = node(a) and ~paired(a)
        """,
        {"single": [2, 3]},
    ),
    Case(
        "implication",
        """
        rel obj = {1, 2, 3}
        rel color = {(1, "blue"), (2, "red"), (3, "red")}
        rel shape = {(1, "cube"), (2, "cube"), (3, "ball")}
        rel fine(o) = obj(o) and (shape(o, "cube") => color(o, "blue"))
        """,
        {"fine": [1, 3]},
    ),
    Case(
        "way around enemies",
        """
        type Action = UP | RIGHT | DOWN | LEFT
        type cell(i8, i8), enemy(i8, i8), start(i8, i8), goal(i8, i8)
        rel node(x, y) = cell(x, y), not enemy(x, y)
        rel step(x, y, x, z, UP) = node(x, y), node(x, z), z == y + 1
        rel step(x, y, z, y, RIGHT) = node(x, y), node(z, y), z == x + 1
        rel step(x, y, x, z, DOWN) = node(x, y), node(x, z), z == y - 1
        rel step(x, y, z, y, LEFT) = node(x, y), node(z, y), z == x - 1
        rel way(x, y, x, y) = node(x, y)
        rel way(x, y, u, v) = way(x, y, s, t), step(s, t, u, v, _)
        rel score(a) = start(x, y), step(x, y, u, v, a), goal(gx, gy), way(u, v, gx, gy)
        rel cell = {(0, 2), (1, 2), (2, 2), (0, 1), (1, 1), (2, 1), (0, 0), (1, 0), (2, 0)}
        rel enemy = {(0, 1), (1, 1)}
        rel goal = {(0, 2)}
        rel start = {(0, 0)}
        """,
        {"score": [1]},
    ),
]

GROUPS = 'rel r = {(0, "a"), (1, "b"), (1, "a"), (0, "c"), (0, "d")}'
GRADES = """
rel grade = {(0, "tom", 50), (0, "jerry", 70), (0, "ann", 60), (1, "bob", 80), (1, "sue", 90)}
"""
SCENE = """
rel color = {(0, "red"), (1, "green"), (2, "blue"), (3, "blue")}
rel shape = {(0, "cube"), (1, "tube"), (2, "ball"), (3, "cube")}
rel shapes = {"cube", "tube", "ball"}
"""
SCORES = """
type score(id: String, name: String, points: f32)
rel score = {("13", "jam", 10.0), ("24", "tom", 6.0), ("57", "ann", 8.0)}
"""

AGGREGATES = [
    Case("count, of distinct values", f"{GROUPS}\nrel n(i) :- i = count(s: r(o, s))", {"n": [4]}),
    Case(
        "count, of each group",
        f"{GROUPS}\nrel n(o, i) :- i = count(s: r(o, s))",
        {"n": [(0, 3), (1, 2)]},
    ),
    Case("count, of nothing", "type p(i32)\nrel n(i) = i := count(x: p(x))", {"n": [0]}),
    Case(
        "count, where",
        """
        rel class = {0, 1, 2}
        rel student = {(0, "t"), (0, "j"), (1, "a"), (1, "b"), (2, "l")}
        rel cs = {"t", "a", "b"}
        rel n(c, i) :- i = count(s: student(c, s), cs(s) where c: class(c))
        """,
        {"n": [(0, 1), (1, 2), (2, 0)]},
    ),
    Case(
        "count, compared",
        """
        rel o = {1, 2, 3}
        rel a(n == 3) = n = count(x: o(x))
        rel b(y) = y == (n == 2), n = count(x: o(x))
        """,
        {"a": [True], "b": [False]},
    ),
    Case(
        "count over a join",
        """
        rel verb = {(1, "play"), (4, "play")}
        rel noun = {(2, "Tom"), (3, "Jerry")}
        rel agent = {(1, 2), (1, 3)}
        rel synonym = {(1, 4)}
        rel plays(n) = verb(v, "play"), agent(w, n), noun(n, _), synonym(w, v)
        rel how_many(c) = c = count(n: plays(n))
        """,
        {"how_many": [2]},
    ),
    Case(
        "sum, with keys",
        "rel s = {(0, 100), (1, 100), (2, 200)}\nrel t(x) = x := sum[p](v: s(p, v))",
        {"t": [400]},
    ),
    Case(
        "sum, of distinct values",
        "rel s = {(0, 100), (1, 100), (2, 200)}\nrel t(x) = x := sum(v: s(_, v))",
        {"t": [300]},
    ),
    Case(
        "sum, with two keys",
        """
        rel s = {("m", "t", 100), ("a", "t", 100), ("a", "j", 200)}
        rel t(x) = x := sum[d, p](v: s(d, p, v))
        """,
        {"t": [400]},
    ),
    Case(
        "sum, of each group",
        """
        rel s = {("m", "t", 100), ("a", "t", 100), ("a", "j", 100)}
        rel t(d, x) = x := sum[p](v: s(d, p, v))
        """,
        {"t": [("a", 200), ("m", 100)]},
    ),
    Case("sum, of nothing", "type p(i32)\nrel t(x) = x := sum(v: p(v))", {"t": [0]}),
    Case("product, of nothing", "type p(i32)\nrel t(x) = x := prod(v: p(v))", {"t": [1]}),
    Case(
        "average by sum and count",
        f"""
        {GRADES}
        rel average((s as f32) / (n as f32)) =
          s := sum[c, p](x: grade(c, p, x)), n := count(c, p: grade(c, p, _))
        """,
        {"average": [70.0]},
    ),
    Case(
        "average",
        "rel s = {(0, 55.0), (1, 45.0), (2, 50.0)}\nrel a(x) = x := avg[i](v: s(i, v))",
        {"a": [50.0]},
    ),
    Case(
        "weighted average without weights",
        "rel s = {(0, 55.0), (1, 45.0), (2, 50.0)}\nrel a(x) = x := weighted_avg[i](v: s(i, v))",
        {"a": [50.0]},
    ),
    Case(
        "maximum and minimum",
        "rel p = {3, 1, 2}\nrel a = max(x: p(x))\nrel b = min(x: p(x))",
        {"a": [3], "b": [1]},
    ),
    Case(
        "maximum of nothing",
        "type p(i32)\nrel a = max(x: p(x))\nrel b = min(x: p(x))",
        {"a": [], "b": []},
    ),
    Case(
        "maximum of pairs", "rel p = {(1, 5), (2, 0)}\nrel a = max(x, y: p(x, y))", {"a": [(2, 0)]}
    ),
    Case("maximum of strings", 'rel p = {"b", "ab"}\nrel a = max(x: p(x))', {"a": ["b"]}),
    Case(
        "argument of the maximum",
        'rel g = {("tom", 50.0), ("mary", 60.0)}\nrel best(n) = n := argmax[n](s: g(n, s))',
        {"best": ["mary"]},
    ),
    Case(
        "argument of the maximum, of each group",
        f"{GRADES}\nrel best(c, s) = s := argmax[s](g: grade(c, s, g))",
        {"best": [(0, "jerry"), (1, "sue")]},
    ),
    Case(
        "argument of the maximum, of counts, with a tie",
        """
        rel color = {(0, "blue"), (1, "green"), (2, "blue"), (3, "green"), (4, "red")}
        rel most(c) = c := argmax[c](n: n := count(o: color(o, c)))
        """,
        {"most": ["blue", "green"]},
    ),
    Case(
        "argument of the maximum, as a rule's body",
        'rel s = {("tom", 90), ("jerry", 80)}\nrel best = argmax[p](x: s(p, x))',
        {"best": ["tom"]},
    ),
    Case(
        "exists, as a value",
        """
        rel edge = {(0, 1), (1, 2)}
        rel path(x, y) = edge(x, y) or (path(x, z) and edge(z, y))
        rel a(b) = b := exists(path(0, 2))
        rel c(b) = b := exists(path(0, 3))
        """,
        {"a": [True], "c": [False]},
    ),
    Case(
        "exists, where, as a value",
        f'{SCENE}\nrel a(s, b) :- b = exists(o: color(o, "blue"), shape(o, s) where s: shapes(s))',
        {"a": [("ball", True), ("cube", True), ("tube", False)]},
    ),
    Case(
        "exists, where, as a formula",
        f'{SCENE}\nrel a(s) :- exists(o: color(o, "blue"), shape(o, s) where s: shapes(s))',
        {"a": ["ball", "cube"]},
    ),
    Case("not exists", f'{SCENE}\nrel a() :- not exists(o: color(o, "pink"))', {"a": [()]}),
    Case(
        "forall, as a value",
        f"""
        {SCENE}
        rel a(b) = b = forall(o: shape(o, "ball") => color(o, "blue"))
        rel c(b) = b = forall(o: shape(o, "cube") => color(o, "blue"))
        """,
        {"a": [True], "c": [False]},
    ),
    Case(
        "forall, where",
        """
        rel colors = {"blue", "red", "green"}
        rel color = {(1, "blue"), (2, "red"), (3, "red")}
        rel shape = {(1, "cube"), (2, "ball"), (3, "cube")}
        rel soft = {3}
        rel a(c, b) =
          b = forall(o: color(o, c) and shape(o, "cube") => soft(o) where c: colors(c))
        rel f(c) = forall(o: color(o, c) and shape(o, "cube") => soft(o) where c: colors(c))
        """,
        {"a": [("blue", False), ("green", True), ("red", True)], "f": ["green", "red"]},
    ),
    Case("string_join", 'rel s = {"b", "a"}\nrel j(x) = x := string_join(y: s(y))', {"j": ["ab"]}),
    Case(
        "string_join, separated",
        'rel s = {"b", "a"}\nrel j(x) = x := string_join<", ">(y: s(y))',
        {"j": ["a, b"]},
    ),
    Case(
        "string_join, ordered by an argument",
        'rel s = {(2, "a"), (1, "b")}\nrel j(x) = x := string_join<"-">[i](y: s(i, y))',
        {"j": ["b-a"]},
    ),
    Case(
        "top, of untagged facts", 'rel p = {"b", "a", "c"}\nrel t = top<1>(x: p(x))', {"t": ["a"]}
    ),
    Case(
        "top, of each group",
        'rel p = {(0, "x"), (0, "y"), (1, "y"), (1, "z")}\nrel t(i, s) :- s = top<1>(s: p(i, s))',
        {"t": [(0, "x"), (1, "y")]},
    ),
    Case(
        "enumerate",
        'rel p = {"tom", "ann"}\nrel e(i, x) = (i, x) := enumerate(x: p(x))',
        {"e": [(0, "ann"), (1, "tom")]},
    ),
    Case(
        "sort",
        f"""
        {SCORES}
        rel s(i, p) = (i, p) := sort<desc>(p: score(_, _, p))
        rel t(i, p) = (i, p) := sort<asc>(p: score(_, _, p))
        rel u(i, p) = (i, p) := sort(p: score(_, _, p))
        """,
        {
            "s": [(0, 10.0), (1, 8.0), (2, 6.0)],
            "u": [(0, 10.0), (1, 8.0), (2, 6.0)],
            "t": [(0, 6.0), (1, 8.0), (2, 10.0)],
        },
    ),
    Case(
        "sort, with arguments",
        f"{SCORES}\nrel s(i, d) = (i, d, p) := sort<desc>[d](p: score(d, _, p))",
        {"s": [(0, "13"), (1, "57"), (2, "24")]},
    ),
    Case(
        "argsort",
        f"{SCORES}\nrel s = argsort<desc>[d](p: score(d, _, p))",
        {"s": [(0, "13"), (1, "57"), (2, "24")]},
    ),
    Case(
        "nodes within three steps",
        """
        rel node = {0, 1, 2, 3, 4}
        rel edge = {(0, 1), (1, 2), (2, 0), (0, 3), (3, 4)}
        rel near(n, p, 1) = edge(n, p)
        rel near(n, p, k) = edge(n, q), near(q, p, k - 1), k <= 3
        rel within(n, c) = c = count(p: near(n, p, _) where n: node(n))
        """,
        {"within": [(0, 5), (1, 4), (2, 5), (3, 1), (4, 0)]},
    ),
    Case(
        "shortest paths",
        """
        rel edge = {(0, 1), (1, 2), (0, 2), (2, 3)}
        rel length(a, b, 1) = edge(a, b)
        rel length(a, c, x) = edge(a, b), length(b, c, x - 1), x <= 4
        rel shortest(a, b, x) = x = min(x: length(a, b, x))
        """,
        {"shortest": [(0, 1, 1), (0, 2, 1), (0, 3, 2), (1, 2, 1), (1, 3, 2), (2, 3, 1)]},
    ),
]

VALUES = [
    Case("number to string", "rel p = {1, -2}\nrel s(x as String) = p(x)", {"s": ["-2", "1"]}),
    Case("float to string", "rel p = {1.5, 2.0}\nrel s(x as String) = p(x)", {"s": ["1.5", "2"]}),
    Case(
        "string to usize", 'rel p = {"13", "14", "-1"}\nrel s(x as usize) = p(x)', {"s": [13, 14]}
    ),
    Case("string to i32", 'rel p = {"13", "-1", "a"}\nrel s(x as i32) = p(x)', {"s": [-1, 13]}),
    Case("bool to string", "rel p = {true}\nrel s(x as String) = p(x)", {"s": ["true"]}),
    Case("digit to float", "rel p = {'7'}\nrel s(x as f32) = p(x)", {"s": [7.0]}),
    Case("characters", r"rel c = {'1', '\t', ' '}", {"c": ["1", "\t", " "]}),
    Case(
        "no not-a-number",
        "rel a = {0.0, 3.0}\nrel b = {0.0, 1.0}\nrel q(x / y) = a(x) and b(y)",
        {"q": [0.0, 3.0, math.inf]},
    ),
    Case("strings added", 'rel n = {("A", "L")}\nrel f(a + " " + b) = n(a, b)', {"f": ["A L"]}),
    *[
        Case(f"escape {text}", f'rel s = {{"a{text}b"}}', {"s": [f"a{value}b"]})
        for text, value in [
            (r"\n", "\n"),
            (r"\n\n", "\n\n"),
            (r"\t", "\t"),
            (r"\0", "\0"),
            (r"\'", "'"),
            (r"\"", '"'),
            (r"\\", "\\"),
            (r"\r", "\r"),
        ]
    ],
    Case("unicode", 'rel s = {"ok 👍"}', {"s": ["ok 👍"]}),
    Case("long string", 'rel s = {"""one\n  two\nthree"""}', {"s": ["one\n  two\nthree"]}),
    Case(
        "long strings beside a short one",
        'rel s = {"""x\ny""", "z", """v\nw"""}',
        {"s": ["x\ny", "z", "v\nw"]},
    ),
    Case(
        "long string with quotes",
        'rel s = {"""says:\n"yes"\n""no""\nend"""}',
        {"s": ['says:\n"yes"\n""no""\nend']},
    ),
    Case("long string with escapes", r'rel s = {"""a\n\tb\\ \"\"\"c"""}', {"s": ['a\n\tb\\ """c']}),
    Case(
        "small constants",
        "const A: u8 = 135\nconst B: i32 = 246\nrel r(A + 1, B)",
        {"r": [(136, 246)]},
    ),
    Case("constants in a set", "const A: u8 = 135\nrel r = {(A, 3)}", {"r": [(135, 3)]}),
    Case(
        "constants of several types",
        "const A: u8 = 0, B: u32 = 1, C: i32 = -2, D: usize = 3\nrel r(A, B, C, D)",
        {"r": [(0, 1, -2, 3)]},
    ),
    Case("enum from ten", "type K = A = 10 | B | C\nrel r(A, B, C)", {"r": [(10, 11, 12)]}),
    Case(
        "enum with a gap",
        "type K = A = 3 | B | C = 10 | D\nrel r(A, B, C, D)",
        {"r": [(3, 4, 10, 11)]},
    ),
    Case(
        "typed constant among facts",
        "const V: usize = 5\ntype r(usize)\nrel r = {V, 3}",
        {"r": [3, 5]},
    ),
    Case(
        "comments",
        "rel a = { /* nothing */ (3, 5 /* , 4 */) } // end\n/* rel a(1, 1) */",
        {"a": [(3, 5)]},
    ),
    Case("empty set", "type a(i32)\nrel a = {}", {"a": []}),
    Case("old-style sets", "rel fib :- {(0, 1), (1, 1)}", {"fib": [(0, 1), (1, 1)]}),
    Case(
        "a number in brackets", 'rel b = {("x"), ("y")}\nrel c = {(1)}', {"b": ["x", "y"], "c": [1]}
    ),
    Case(
        "date of a year",
        'rel p = {t"2019-01-04T00:00:00Z"}\nrel r($datetime_year(d)) = p(d)',
        {"r": [2019]},
    ),
    Case(
        "date of a month",
        """
        rel p = {t"2019-01-04T00:00:00Z"}
        rel r($datetime_month(d), $datetime_month0(d), $datetime_day(d)) = p(d)
        """,
        {"r": [(1, 0, 4)]},
    ),
    Case(
        "date and days",
        """
        rel p = {t"2019-01-01T00:00:00Z"}
        rel q = {d"3d"}
        rel r($format("{}", a + b), $format("{}", a - b)) = p(a) and q(b)
        """,
        {"r": [("2019-01-04 00:00:00 UTC", "2018-12-29 00:00:00 UTC")]},
    ),
    Case(
        "months and a date",
        'rel p = {(d"3mo", t"2019-02-01")}\nrel r($format("{}", d + t)) = p(d, t)',
        {"r": ["2019-05-01 00:00:00 UTC"]},
    ),
    Case(
        "a month's end",
        'rel p = {(t"2020-01-31", d"1mo")}\nrel r($format("{}", t + d)) = p(t, d)',
        {"r": ["2020-02-29 00:00:00 UTC"]},
    ),
    Case(
        "durations added",
        'rel p = {(d"3d", d"2d")}\nrel r(x + y, x - y) = p(x, y)',
        {"r": [("PT432000S", "PT86400S")]},
    ),
    Case("negative durations", 'rel p = {(d"-3d", d"-5mo")}', {"p": [("-PT259200S", "R-5MO P0D")]}),
    Case(
        "dates compared",
        'rel p = {(t"2020-01-01", t"2020-01-02")}\nrel r(a < b) = p(a, b)',
        {"r": [True]},
    ),
    Case(
        "booleans",
        """
        rel v = {true, false}
        rel r(a, b, a && b, a || b, a ^ b, !a) = v(a), v(b)
        """,
        {
            "r": [
                (False, False, False, False, False, True),
                (False, True, False, True, True, True),
                (True, False, False, True, True, False),
                (True, True, True, True, False, False),
            ]
        },
    ),
]

FUNCTIONS = [
    Case(
        "$string_char_at in a recursion",
        """
        rel input("1357")
        rel at(0, $string_char_at(s, 0)) :- input(s), 0 < $string_length(s)
        rel at(i, $string_char_at(s, i)) :- input(s), i < $string_length(s), at(i - 1, _)
        """,
        {"at": [(0, "1"), (1, "3"), (2, "5"), (3, "7")]},
    ),
    Case("$string_char_at beyond the end", 'rel o($string_char_at("", 0))', {"o": []}),
    Case(
        "$max",
        "rel a = {1}\nrel b = {3}\nrel o($max(x, y), $min(x, y, 2)) = a(x), b(y)",
        {"o": [(3, 1)]},
    ),
    Case(
        "$string_length in an equation",
        'rel p = {"hello", "hi"}\nrel r(x, n) = p(x), n == $string_length(x)',
        {"r": [("hello", 5), ("hi", 2)]},
    ),
    Case(
        "$string_concat",
        'rel p = {"a", "b"}\nrel r(x) = p(a), p(b), a != b, x == $string_concat(a, " ", b)',
        {"r": ["a b", "b a"]},
    ),
    Case(
        "$abs",
        "rel p = {-1, 3}\nrel q = {-1.5, 3.5}\nrel r($abs(x)) = p(x)\nrel s($abs(x)) = q(x)",
        {"r": [1, 3], "s": [1.5, 3.5]},
    ),
    Case(
        "$substring",
        'rel p = {"hello world!"}\nrel r($substring(x, 0, 5), $substring(x, 6)) = p(x)',
        {"r": [("hello", "world!")]},
    ),
    Case(
        "$substring out of range",
        'rel r($substring("abc", 2, 9))\nrel s($substring("abc", 9))',
        {"r": [], "s": []},
    ),
    Case(
        "$floor, $ceil",
        "rel p = {-1.5, 3.8, 5.0}\nrel r($floor(x), $ceil(x)) = p(x)",
        {"r": [(-2.0, -1.0), (3.0, 4.0), (5.0, 5.0)]},
    ),
    Case(
        "$floor, $ceil of integers",
        "rel p = {-1, 50}\nrel r($floor(x), $ceil(x)) = p(x)",
        {"r": [(-1, -1), (50, 50)]},
    ),
    Case(
        "$exp, $exp2",
        "rel p = {-1.5, 0.0}\nrel r($exp(x), $exp2(x)) = p(x)",
        {"r": [(math.exp(-1.5), 2**-1.5), (1.0, 1.0)]},
    ),
    Case(
        "$log, $log2 of what has none",
        "rel p = {12.5, 1.0, -2.5}\nrel r($log(x), $log2(x)) = p(x)",
        {"r": [(math.log(12.5), math.log2(12.5)), (0.0, 0.0)]},
    ),
    Case(
        "$pow",
        "rel b = {2, 7}\nrel e = {3, 0}\nrel r(n) = b(x), e(y), n == $pow(x, y)",
        {"r": [1, 8, 343]},
    ),
    Case(
        "$powf",
        "rel b = {1.5}\nrel e = {-2.5, 0.0}\nrel r(n) = b(x), e(y), n == $powf(x, y)",
        {"r": [1.5**-2.5, 1.0]},
    ),
    Case(
        "$acos, $asin beyond their domain",
        "rel p = {-1.0, 0.0, 1.5}\nrel r($acos(x)) = p(x)\nrel s($asin(x)) = p(x)",
        {"r": [math.pi, math.pi / 2], "s": [-math.pi / 2, 0.0]},
    ),
    Case(
        "$atan, $atan2",
        "rel p = {-1.0, 1.0}\nrel r($atan(x)) = p(x)\nrel s($atan2(x, -2.5)) = p(x)",
        {"r": [-math.pi / 4, math.pi / 4], "s": [math.atan2(-1, -2.5), math.atan2(1, -2.5)]},
    ),
    Case(
        "$sin, $cos, $tan",
        "rel p = {1.0}\nrel r($sin(x), $cos(x), $tan(x)) = p(x)",
        {"r": [(math.sin(1), math.cos(1), math.tan(1))]},
    ),
    Case(
        "$sign of integers",
        "rel p = {-12, 34, 0}\nrel r(x, $sign(x)) = p(x)",
        {"r": [(-12, -1), (0, 0), (34, 1)]},
    ),
    Case(
        "$format",
        'rel p = {1.2, -3.4}\nrel r(x) = p(a), p(b), a < b, x == $format("{} {}", a, b)',
        {"r": ["-3.4 1.2"]},
    ),
    Case(
        "$format of all kinds",
        """rel r($format("{}{}{}{}{}", 'c', true, "s", 3, 2.5))""",
        {"r": ["ctrues32.5"]},
    ),
    Case(
        "$string_lower, $string_upper",
        'rel p = {"aBc 1."}\nrel r($string_lower(s), $string_upper(s)) = p(s)',
        {"r": [("abc 1.", "ABC 1.")]},
    ),
    Case(
        "$string_index_of",
        """
        rel p = {"o", "is", "Scallop", "xx"}
        rel r(t, i) = p(t), i == $string_index_of("Scallop is cool!", t)
        """,
        {"r": [("Scallop", 0), ("is", 8), ("o", 5)]},
    ),
    Case(
        "$string_trim",
        r'rel p = {" \t ABC 1 \n"}' "\nrel r($string_trim(s)) = p(s)",
        {"r": ["ABC 1"]},
    ),
    Case("$string_replace", 'rel r($string_replace("a-b-c", "-", "+"))', {"r": ["a+b+c"]}),
    Case(
        "nested calls",
        'rel r($string_length($string_concat("ab", $string_upper("c"))))',
        {"r": [3]},
    ),
]

PREDICATES = [
    Case("range", "rel r(y) = range<usize>(2, 5, y)", {"r": [2, 3, 4]}),
    Case("range, empty", "rel r(y) = range<i32>(5, 2, y)", {"r": []}),
    Case(
        "range after a join",
        "rel b = {3}\nrel r(y) = b(x) and range<usize>(0, x, y)",
        {"r": [0, 1, 2]},
    ),
    Case(
        "range as a test",
        """
        rel b = {3, 10}
        rel r(x) = b(x) and range<usize>(0, x, 5)
        rel s() = b(x) and range<usize>(0, x, 100)
        """,
        {"r": [10], "s": []},
    ),
    Case(
        "range by `in`",
        "rel a(x) = x in 0..3\nrel b(x) = x in 3..=5",
        {"a": [0, 1, 2], "b": [3, 4, 5]},
    ),
    Case(
        "two ranges by `in`",
        "rel g(x, y) = x in 2..4 and y in 5..=6",
        {"g": [(2, 5), (2, 6), (3, 5), (3, 6)]},
    ),
    Case(
        "string_chars",
        'rel s = {"hey"}\nrel r(i, c) = s(t), string_chars(t, i, c)',
        {"r": [(0, "h"), (1, "e"), (2, "y")]},
    ),
    Case("string_chars as a test", "rel r(i) = string_chars(\"hello\", i, 'l')", {"r": [2, 3]}),
    Case(
        "float_eq",
        """
        rel a() = float_eq<f32>(3.000001, 1.000001 + 2.000001)
        rel b() = 3.000001 == 1.000001 + 2.000001
        """,
        {"a": [()], "b": []},
    ),
    Case(
        "string_split",
        """
        rel r(p, o) = s(p), string_split("abcde ab cde abcde", p, o)
        rel s = {" ", "ab", "abcde"}
        """,
        {
            "r": [
                *[(" ", "ab"), (" ", "abcde"), (" ", "cde")],
                *[("ab", ""), ("ab", " cde "), ("ab", "cde"), ("ab", "cde ")],
                *[("abcde", ""), ("abcde", " ab cde ")],
            ]
        },
    ),
    Case(
        "string_find",
        'rel r(i, j) = string_find("abcde ab cde", "cde", i, j)',
        {"r": [(2, 5), (9, 12)]},
    ),
    Case(
        "datetime_ymd",
        'rel p = {t"2023-04-17T00:00:00Z"}\nrel r(y, m, d) = p(t), datetime_ymd(t, y, m, d)',
        {"r": [(2023, 4, 17)]},
    ),
    Case(
        "soft_eq without tags",
        'rel b = {("A", 3.0)}\nrel r(a) = b(a, x) and soft_eq<f32>(x, 3.0)',
        {"r": ["A"]},
    ),
]

DEMAND = [
    Case(
        "demand by an attribute",
        """
        rel fib = {(0, 1), (1, 1)}
        @demand("bf")
        rel fib(x, a + b) = fib(x - 1, a), fib(x - 2, b), x > 1
        query fib(9, y)
        """,
        {"fib(9, y)": [(9, 55)]},
    ),
    Case(
        "demand by a type",
        """
        type fib(bound i32, i32)
        rel fib = {(0, 1), (1, 1)}
        rel fib(x, a + b) = fib(x - 1, a), fib(x - 2, b), x > 1
        query fib(9, y)
        """,
        {"fib(9, y)": [(9, 55)]},
    ),
    *[
        Case(
            f"two bound arguments by {name}",
            f"""
            {declaration}
            rel upto(a, b, i) = a == i
            rel upto(a, b, i) = upto(a, b, i - 1), i < b
            query upto(1, 4, x)
            """,
            {"upto(1, 4, x)": [(1, 4, 1), (1, 4, 2), (1, 4, 3)]},
        )
        for name, declaration in [
            ("an attribute", '@demand("bbf")'),
            ("a type", "type upto(bound a: i32, bound b: i32, free i: i32)"),
        ]
    ],
    *[
        Case(
            f"paths, demand {pattern}",
            f"""
            rel edge = {{(0, 1), (1, 2), (2, 3)}}
            @demand("{pattern}")
            rel path(a, b) = edge(a, b) or path(a, c) and edge(c, b)
            query {query}
            """,
            {query: rows},
        )
        for pattern, query, rows in [
            ("fb", "path(_, 3)", [(0, 3), (1, 3), (2, 3)]),
            ("bf", "path(0, _)", [(0, 1), (0, 2), (0, 3)]),
        ]
    ],
    Case(
        "demand without facts",
        """
        type f(bound i: usize, bound j: usize)
        rel f(i, j) = range<usize>(i + 1, j, k) and c(i, k) and f(k + 1, j)
        type c(bound i: usize, bound j: usize)
        """,
        {"f": []},
    ),
    Case(
        "demand below negation",
        """
        @demand("bbb")
        rel ensure(s, e, g) = event(i, g), s <= i, i <= e
        rel event = {(0, "a"), (3, "o")}
        rel span = {(0, 2), (0, 4)}
        rel avoids(s, e) = span(s, e), not ensure(s, e, "o")
        """,
        {"avoids": [(0, 2)]},
    ),
]

QUERIES = [
    Case(
        "queries with constants",
        "rel s = {(0, 1), (1, 2), (0, 2)}\nquery s(0, _)\nquery s(_, 2)",
        {"s(0, _)": [(0, 1), (0, 2)], "s(_, 2)": [(0, 2), (1, 2)]},
    ),
    Case(
        "query with arithmetic",
        "rel s = {(1, 2), (2, 4), (1, 1), (2, 2)}\nquery s(a, a * 2)",
        {"s(a, (a * 2))": [(1, 2), (2, 4)]},
    ),
]

EXPR = "type Expr = Const(i32) | Add(Expr, Expr)"
MY_EXPR = "const E = Add(Const(5), Add(Const(3), Const(6)))"
LIST = "type List = Nil() | Cons(i32, List)\nconst L = Cons(1, Cons(2, Cons(4, Nil())))"
TREE = """
type Tree = Nil() | Node(i32, Tree, Tree)
const T = Node(1, Node(2, Nil(), Node(3, Nil(), Nil())), Node(4, Nil(), Nil()))
"""
MATCH = """
type RE = Char(char) | Nil() | Con(RE, RE) | Or(RE, RE) | Star(RE)
rel at(i) = input(s), string_chars(s, i, _)
rel m(r, i, i)     = case r is Nil(), at(i)
rel m(r, i, i + 1) = case r is Char(c), input(s), string_chars(s, i, c)
rel m(r, b, e)     = case r is Con(p, q), m(p, b, x), m(q, x, e)
rel m(r, b, e)     = case r is Or(p, _), m(p, b, e)
rel m(r, b, e)     = case r is Or(_, q), m(q, b, e)
rel m(r, i, i)     = case r is Star(_), at(i)
rel m(r, b, e)     = case r is Star(p), m(p, b, e)
rel m(r, b, e)     = case r is Star(p), m(p, b, x), m(r, x, e)
"""
SIMPLIFY = """
type Expr = Const(i32) | Var(String) | Add(Expr, Expr)
rel text(Const(i), i as String)
rel text(Var(v), v)
rel text(Add(p, q), $format("({} + {})", s, t)) = text(p, s) and text(q, t)
rel expr(p) = case p is Const(_) or case p is Var(_) or case p is Add(_, _)
rel same(p, p) = expr(p)
rel same(p, r) = same(p, q) and same(q, r)
rel same(p, new Add(b, a)) = case p is Add(a, b)
rel same(p, new Add(c, d)) = case p is Add(a, b) and same(a, c) and same(b, d)
rel same(p, new Const(a + b)) = case p is Add(Const(a), Const(b))
rel same(p, q) = case p is Add(q, Const(0))
rel weight(Const(_), 1)
rel weight(Var(_), 1)
rel weight(Add(p, q), v + w + 1) = weight(p, v) and weight(q, w)
rel best(p) = p := argmin[p](w: input(q) and same(q, p) and weight(p, w))
rel result(s) = best(p) and text(p, s)
"""

ENTITIES = [
    Case(
        "evaluation by case",
        f"""
        {EXPR}
        {MY_EXPR}
        rel eval(x, y) = case x is Const(y)
        rel eval(x, a + b) = case x is Add(l, r) and eval(l, a) and eval(r, b)
        rel result(y) = eval(E, y)
        """,
        {"result": [14]},
    ),
    Case(
        "evaluation by patterns in heads",
        f"""
        {EXPR}
        {MY_EXPR}
        rel eval(Const(y), y)
        rel eval(Add(l, r), a + b) = eval(l, a) and eval(r, b)
        rel result(y) = eval(E, y)
        """,
        {"result": [14]},
    ),
    Case(
        "sum of a list by case",
        f"""
        {LIST}
        rel total(l, 0) = case l is Nil()
        rel total(l, h + s) = case l is Cons(h, t) and total(t, s)
        rel result(y) = total(L, y)
        """,
        {"result": [7]},
    ),
    Case(
        "sum of a list by patterns",
        f"""
        {LIST}
        rel total(Nil(), 0)
        rel total(Cons(h, t), h + s) = total(t, s)
        rel result(y) = total(L, y)
        """,
        {"result": [7]},
    ),
    Case(
        "a pattern in the body",
        f"""
        {LIST}
        rel show(Nil(), "[]")
        rel show(Cons(x, Nil()), $format("[{{}}]", x))
        rel r(x) = show(Nil(), x)
        rel s(x) = show(Cons(4, Nil()), x)
        """,
        {"r": ["[]"], "s": ["[4]"]},
    ),
    Case(
        "depth of a tree by case",
        f"""
        {TREE}
        rel depth(t, 0) = case t is Nil()
        rel depth(t, $max(a, b) + 1) = case t is Node(_, l, r) and depth(l, a) and depth(r, b)
        rel result(y) = depth(T, y)
        """,
        {"result": [3]},
    ),
    Case(
        "depth of a tree by patterns",
        f"""
        {TREE}
        rel depth(Nil(), 0)
        rel depth(Node(_, l, r), $max(a, b) + 1) = depth(l, a) and depth(r, b)
        rel result(y) = depth(T, y)
        """,
        {"result": [3]},
    ),
    Case(
        "regular expression ab",
        f"""
        {MATCH}
        const R = Con(Char('a'), Char('b'))
        rel input("ab")
        rel result() = m(R, 0, 2)
        """,
        {"result": [()]},
    ),
    Case(
        "regular expression a*b",
        f"""
        {MATCH}
        const R = Con(Star(Char('a')), Char('b'))
        rel input("aaaab")
        rel result() = m(R, 0, 5)
        """,
        {"result": [()]},
    ),
    Case(
        "a scene described",
        """
        type Color = RED | GREEN | BLUE
        type Size = LARGE | SMALL
        type Expr = Scene() | OfColor(Color, Expr) | OfSize(Size, Expr)
        rel eval(e, o) = case e is Scene(), object(o)
        rel eval(e, o) = case e is OfColor(c, f), eval(f, o), color(o, c)
        rel eval(e, o) = case e is OfSize(s, f), eval(f, o), size(o, s)
        rel object = {0, 1, 2}
        rel color = {(0, RED), (1, GREEN), (2, RED)}
        rel size = {(0, LARGE), (1, SMALL), (2, SMALL)}
        const E = OfSize(SMALL, OfColor(RED, Scene()))
        rel result(o) = eval(E, o)
        """,
        {"result": [2]},
    ),
    Case(
        "simplified to a variable",
        f'{SIMPLIFY}\nconst P = Add(Add(Const(3), Const(-3)), Var("a"))\nrel input(P)',
        {"result": ["a"]},
    ),
    Case(
        "simplified to a constant",
        f"{SIMPLIFY}\nconst P = Add(Add(Const(3), Const(-3)), Const(5))\nrel input(P)",
        {"result": ["5"]},
    ),
    Case(
        "parsed at run time",
        """
        type Expr = Const(f32) | Add(Expr, Expr) | Sub(Expr, Expr)
        rel parsed($parse_entity("Sub(Add(Const(1), Const(3.5)), Const(2))"))
        type eval(bound e: Expr, v: f32)
        rel eval(e, v) = case e is Const(v)
        rel eval(e, a + b) = case e is Add(l, r) and eval(l, a) and eval(r, b)
        rel eval(e, a - b) = case e is Sub(l, r) and eval(l, a) and eval(r, b)
        rel result(v) = parsed(e) and eval(e, v)
        """,
        {"result": [2.5]},
    ),
    Case(
        "types inferred with environments",
        """
        type Op = EQ | ADD
        type Expr = Number(i32) | Boolean(bool) | Variable(String) | Binary(Op, Expr, Expr)
                  | Let(String, Expr, Expr)
        type Type = BOOL | INT
        type Env = Empty() | Bind(String, Type, Env)
        const EMPTY = Empty()
        type find(bound env: Env, bound var: String, free ty: Type)
        rel find(env, x, t) = case env is Bind(x, t, _)
        rel find(env, x, t) = case env is Bind(y, _, tl) and y != x and find(tl, x, t)
        type type_of(bound env: Env, bound expr: Expr, ty: Type)
        type inner(bound env: Env, bound expr: Expr, out: Env, cont: Expr)
        rel type_of(env, e, BOOL) = case e is Boolean(_)
        rel type_of(env, e, INT) = case e is Number(_)
        rel type_of(env, e, t) = case e is Variable(x) and find(env, x, t)
        rel type_of(env, e, BOOL) =
          case e is Binary(op, a, b) and op == EQ and type_of(env, a, t) and type_of(env, b, t)
        rel type_of(env, e, INT) =
          case e is Binary(op, a, b) and op == ADD and type_of(env, a, INT) and type_of(env, b, INT)
        rel type_of(env, e, t) = inner(env, e, sub, i) and type_of(sub, i, t)
        rel inner(env, e, new Bind(x, t, env), i) = case e is Let(x, b, i) and type_of(env, b, t)
        const GOOD = Let("x", Number(3), Binary(EQ, Variable("x"), Number(4)))
        const BAD = Let("x", Number(3), Binary(ADD, Variable("x"), Boolean(false)))
        rel good(t) = type_of(EMPTY, GOOD, t)
        rel bad(t) = type_of(EMPTY, BAD, t)
        """,
        {"good": [0], "bad": []},
    ),
    Case(
        "lambda terms to strings",
        """
        type Expr = Int(i32) | Var(String) | App(Expr, Expr) | Lambda(String, Expr)
        rel text(e, i as String) = case e is Int(i)
        rel text(e, s) = case e is Var(s)
        rel text(e, $format("({}) ({})", s, t)) = case e is App(f, a) and text(f, s) and text(a, t)
        rel text(e, $format("(λ{}.{})", x, s)) = case e is Lambda(x, b) and text(b, s)
        const P = App(Lambda("a", Var("a")), Int(1))
        rel result(s) = text(P, s)
        """,
        {"result": ["((λa.a)) (1)"]},
    ),
]

HEADS = [
    Case(
        "alternatives in the head",
        """
        rel v = {1, 2}
        rel { assign(x, true); assign(x, false) } = v(x)
        rel r(a || b) = assign(1, a) and assign(2, b)
        """,
        {"r": [False, True]},
    ),
    Case(
        "several heads",
        "rel e = {(0, 1), (1, 2)}\nrel {node(a), node(b)} = e(a, b)",
        {"node": [0, 1, 2]},
    ),
]

HIDDEN = [
    Case("an annotated relation", "@hidden\ntype a(i32)\nrel a = {1}\nrel b(x) = a(x)", {"b": [1]}),
]

ERRORS = [
    Fault("several characters", "rel a = {1}\nrel bad = {'asdf'}", (), 2),
    Fault("variable in a fact", "rel a = {1}\nrel bad(x, x + 1)", ("`x`",), 2),
    Fault("unknown function", "rel bad($asdf(1, 3))", ("unknown function", "asdf"), 1),
    Fault(
        "function's type",
        "type A(usize)\ntype B(i32)\nrel B($abs(x)) :- A(x)",
        ("cannot unify type",),
    ),
    Fault(
        "impossible cast",
        "type A(f32)\ntype B(char)\nrel B(x as char) = A(x)",
        ("cannot cast", "`f32`", "`char`"),
        3,
    ),
    Fault("relation declared twice", "type A(f32)\ntype A(char)", ("duplicate", "A"), 2),
    Fault("relation declared twice alike", "type A(f32)\ntype A(f32)", ("duplicate", "A"), 2),
    Fault("constant declared twice", "const ABC = 3\nconst ABC = 4", ("duplicate", "`ABC`"), 2),
    Fault("string constant of a number", "const ABC: String = 3", ("cannot unify",), 1),
    Fault("usize constant of a negative number", "const ABC: usize = -5", ("cannot unify",), 1),
    Fault(
        "constant of two types",
        "const V: usize = 5\ntype r(u32, usize)\nrel r = {(V, 3), (3, V)}",
        ("cannot unify",),
    ),
    Fault("enum values given twice", "type K = A = 3 | B | C = 4 | D", ("4",), 1),
    Fault(
        "aggregate without variables",
        "type edge(i32, i32)\nrel r() = x := sum(edge(1, 3))",
        ("sum", "1", "0"),
        2,
    ),
    Fault("unknown type", "type parse(bound q: String, e: Expr)", ("unknown", "`Expr`"), 1),
    Fault(
        "too many parameters", "rel p = {1}\nrel t(x) = x := top<1, 3, 5>(y: p(y))", ("top", "1"), 2
    ),
    Fault(
        "argmin without arguments", "rel p = {1}\nrel t(x) = x := argmin(y: p(y))", ("argmin",), 2
    ),
    Fault(
        "unknown parameter",
        'rel p = {"a"}\nrel t() = x := string_join<unknown>(y: p(y))',
        ("unknown",),
        2,
    ),
    Fault("unknown aggregate", "rel p = {1}\nrel t(x) = x := cout(y: p(y))", ("cout",), 2),
    Fault(
        "unknown attribute",
        "@foo((1, 2), 3, 4)\ntype r(a: i32, b: i32)",
        ("unknown attribute", "@foo"),
        1,
    ),
    Fault("two goals", "rel p = {1}\n@goal rel a() = p(1)\n@goal rel b() = p(1)", ("goal",)),
    Fault("goal with columns", "rel p = {1}\n@goal rel a(x) = p(x)", ("goal",)),
    Fault(
        "variant declared twice",
        "type E = Const(i32) | Add(E, E) | Add(E, E)",
        ("duplicate", "Add"),
        1,
    ),
    Fault(
        "variant of two types",
        "type E = Const(i32) | Add(E, E)\ntype F = Const(i32) | Sub(F, F)",
        ("duplicate", "Const"),
        2,
    ),
    Fault("entity that is not constant", f"{EXPR}\nconst X = Add(Const(x), Const(3))", ("`x`",), 2),
    Fault(
        "unknown variant",
        f"{EXPR}\nconst X = Sub(Const(5), Const(3))",
        ("unknown", "variant", "Sub"),
        2,
    ),
    Fault(
        "variant's arity",
        f"{EXPR}\nconst X = Add(Const(5), Const(3), Const(7))",
        ("arity", "Add"),
        2,
    ),
    Fault(
        "variant's type",
        f'{EXPR}\nconst X = Add(Const(5), Const("text"))',
        ("cannot unify types",),
        2,
    ),
    Fault("bad date", 'rel r = {t"ABCDEF"}', ("DateTime", "ABCDEF"), 1),
    Fault("bad duration", 'rel r = {d"ABCDEF"}', ("Duration", "ABCDEF"), 1),
    Fault("tag of a wrong type", "type p(i32)\nrel p(5)\nrel (1.0 / n)::f() = p(n)", ("type",), 3),
    Fault("tag of an unknown variable", "rel p()\nrel (1.0 / n)::f() = p()", ("`n`",), 2),
    Fault("tag that is a date", 'rel p(t"2024-01-01")\nrel t::f() = p(t)', ("DateTime", "tag"), 2),
    Fault(
        "arity",
        "type edge(usize, usize)\nrel path(a, b) :- edge(a, b, c), edge(a)",
        ("arity", "edge"),
        2,
    ),
    Fault("arity of facts", "rel edge = {(1, 2)}\nrel edge = {123}", ("arity", "edge"), 2),
    Fault("arity within a set", "rel edge = {(1, 2), (3, 4, 5)}", ("arity",), 1),
    Fault(
        "count of a wrong type",
        "type r(usize), s(i64)\nrel s(i) :- i = count(o: r(o))",
        ("cannot unify", "`i64`", "`usize`"),
        2,
    ),
    Fault(
        "strings and numbers compared",
        "type p(usize, String)\nrel r(a, b) :- p(a, b), a < b",
        ("`usize`", "`String`"),
        2,
    ),
    Fault("not of a number", "rel s() :- !(1 + 2)", ("type",), 1),
    Fault("a number as a formula", "rel s() :- -(1 + 2)", (), 1),
    Fault("query of a wrong type", 'rel s = {("a", 1)}\nquery s(3, _)', ("cannot unify",), 2),
    # Scallop warns and takes it to be empty.
    Fault("undeclared relation in a rule", "rel path(a, b) = edge(a, b)", ("edge",), 1, ("edge(",)),
    Fault("undeclared relation in a query", "query nothing", ("nothing",), 1),
    Fault("type declared twice", "type A <: usize\ntype A = usize", ("A",), 2),
    Fault("unknown supertype", "type A <: Nothing", ("Nothing",), 1),
    Fault(
        "unstratified numbers",
        "rel n = {0, 1, 2}\nrel even(0)\nrel odd(x + 1) = even(x)\nrel even(x) = n(x), ~odd(x)",
        ("stratif",),
    ),
]


@parametrized(
    [
        *RECURSION,
        *JOINS,
        *NEGATION,
        *AGGREGATES,
        *VALUES,
        *FUNCTIONS,
        *PREDICATES,
        *DEMAND,
        *QUERIES,
        *ENTITIES,
        *HEADS,
        *HIDDEN,
    ]
)
def test_program(case: Case) -> None:
    check(run(case.program), case.expected)


@parametrized(ERRORS)
def test_error(case: Fault) -> None:
    fails(case)


# Tags

SECH = 1 / math.cosh(1)
LOGISTIC = 1 / (1 + math.exp(-2))

TAGS = [
    ("rule, constant", "addmultprob", "rel p(5)\nrel 0.5::f(n) = p(n)", "f", {5: 0.5}),
    ("rule, integer", "addmultprob", "rel p(5)\nrel 1::f(n) = p(n)", "f", {5: 1.0}),
    (
        "rules with different tags",
        "addmultprob",
        "rel p(5)\nrel 0.5::f(n / 2) = p(n)\nrel 0.2::f(n + 1) = p(n)",
        "f",
        {2: 0.5, 6: 0.2},
    ),
    ("rule, variable", "addmultprob", "rel p(0.5)\nrel x::f() = p(x)", "f", {(): 0.5}),
    ("rule, expression", "addmultprob", "rel p(5.0)\nrel 1.0/x::f() = p(x)", "f", {(): 0.2}),
    (
        "count, one of four",
        "addmultprob",
        "rel d = {0.91::(0, 0), 0.01::(0, 1), 0.01::(0, 3)}\nrel r(n) :- n = count(o: d(o, 3))",
        "r",
        {0: 0.99, 1: 0.01},
    ),
    (
        "count, in one world",
        "minmaxprob",
        "rel o = {0.9::0, 0.5::1, 0.1::2}\nrel r(n) = n := count!(i: o(i))",
        "r",
        {3: 1.0},
    ),
    (
        "minimum",
        "topkproofs",
        "rel p = {0.1::1, 0.1::3, 0.8::5}\nrel m = min(n: p(n))",
        "m",
        {1: 0.1, 3: 0.09, 5: 0.648},
    ),
    (
        "weighted average in one world",
        "minmaxprob",
        """
        rel s = {0.5::(0, 55.0), 1.0::(1, 45.0), 0.5::(2, 50.0)}
        rel a(x) = x := weighted_avg![i](v: s(i, v))
        """,
        "a",
        {48.75: 1.0},
    ),
    (
        "all joined strings",
        "minmaxprob",
        """
        rel s = {0.9::(0, "2"); 0.1::(0, "3")}
        rel s = {1.0::(1, "*"), 1.0::(2, "5")}
        rel f(x) = x := string_join<all>[i](y: s(i, y))
        """,
        "f",
        {"2*5": 0.9, "3*5": 0.1},
    ),
    (
        "softmax of each group",
        "minmaxprob",
        'rel s = {0.1::(0, "2"); 0.1::(0, "3")}\nrel f(i, x) = x := softmax(x: s(i, x))',
        "f",
        {(0, "2"): 0.5, (0, "3"): 0.5},
    ),
    (
        "normalized of each group",
        "minmaxprob",
        """
        rel s = {0.1::(0, "a"), 0.1::(0, "b"), 0.1::(1, "c"), 0.3::(1, "d")}
        rel f(i, x) = x := normalize(x: s(i, x))
        """,
        "f",
        {(0, "a"): 0.5, (0, "b"): 0.5, (1, "c"): 0.25, (1, "d"): 0.75},
    ),
    *[
        (
            f"rank{parameters}",
            "minmaxprob",
            f"""
            rel d = {{0.1::0, 0.3::1, 0.5::2, 0.1::3}}
            rel f(i, x) = (i, x) := rank{parameters}(x: d(x))
            """,
            "f",
            ranks,
        )
        for parameters, ranks in [
            ("", {(0, 2): 0.5, (1, 1): 0.3, (2, 0): 0.1, (3, 3): 0.1}),
            ("<desc>", {(0, 2): 0.5, (1, 1): 0.3, (2, 0): 0.1, (3, 3): 0.1}),
            ("<asc>", {(0, 0): 0.1, (1, 3): 0.1, (2, 1): 0.3, (3, 2): 0.5}),
            ("<desc=false>", {(0, 0): 0.1, (1, 3): 0.1, (2, 1): 0.3, (3, 2): 0.5}),
        ]
    ],
    (
        "recursion through negation of tags",
        "minmaxprob",
        """
        rel enemy = {0.1::2, 0.8::3, 0.1::4, 0.1::5}
        rel edge = {(1, 2), (2, 5), (1, 3), (3, 5), (5, 4)}
        rel path(a, b) = edge(a, b), not enemy(b)
        rel path(a, c) = path(a, b), edge(b, c), not enemy(c)
        """,
        "path",
        {
            (a, b): 0.2 if b == 3 else 0.9
            for a, b in [(1, 2), (1, 3), (1, 4), (1, 5), (2, 4), (2, 5), (3, 4), (3, 5), (5, 4)]
        },
    ),
    (
        "shortest paths",
        "tropical",
        """
        type N = A | B | C | D
        rel e = {1::(A, B), 1::(B, C), 1::(C, D), 1::(A, D)}
        rel p(x, y) = e(x, y) or p(x, z) and e(z, y)
        """,
        "p",
        {(0, 1): 1, (0, 2): 2, (0, 3): 1, (1, 2): 1, (1, 3): 2, (2, 3): 1},
    ),
    (
        "cycle",
        "topkproofs",
        """
        rel e = {0.5::(0, 1), 0.5::(1, 0), 0.9::(1, 2)}
        rel p(x, y) = e(x, y) or p(x, z) and e(z, y)
        """,
        "p",
        {(0, 0): 0.25, (0, 1): 0.5, (0, 2): 0.45, (1, 0): 0.5, (1, 1): 0.25, (1, 2): 0.9},
    ),
    (
        "kinship constraint",
        "topkproofs",
        """
        rel c = {0.9::("father", "A", "B"); 0.1::("mother", "A", "B")}
        rel c = {0.7::("uncle", "B", "A"); 0.2::("son", "B", "A"); 0.1::("daughter", "B", "A")}
        rel ok() = c("father", a, b) and (c("son", b, a) or c("daughter", b, a))
        """,
        "ok",
        # Alternatives rule proofs out; what remains counts as independent.
        {(): 0.9 * (1 - (1 - 0.2) * (1 - 0.1))},
    ),
    (
        "kinship constraint, exactly",
        "exact",
        """
        rel c = {0.9::("father", "A", "B"); 0.1::("mother", "A", "B")}
        rel c = {0.7::("uncle", "B", "A"); 0.2::("son", "B", "A"); 0.1::("daughter", "B", "A")}
        rel ok() = c("father", a, b) and (c("son", b, a) or c("daughter", b, a))
        """,
        "ok",
        {(): 0.9 * (0.2 + 0.1)},
    ),
    ("soft_eq", "minmaxprob", "rel r() = soft_eq<f32>(1.0, 3.0)", "r", {(): SECH}),
    (
        "soft_neq",
        "minmaxprob",
        "rel r() = soft_neq<f32>(1.0, 3.0)",
        "r",
        {(): 1 - 1 / math.cosh(1)},
    ),
    (
        "soft_gt",
        "minmaxprob",
        "rel r() = soft_gt<f32>(3.0, 1.0)",
        "r",
        {(): LOGISTIC},
    ),
    ("soft_lt", "minmaxprob", "rel r() = soft_lt<f32>(3.0, 1.0)", "r", {(): 1 - LOGISTIC}),
]


@pytest.mark.parametrize(
    ("provenance", "program", "relation", "expected"),
    [t[1:] for t in TAGS],
    ids=[t[0] for t in TAGS],
)
def test_tags(provenance: str, program: str, relation: str, expected: dict[object, float]) -> None:
    found = probabilities(run(program, provenance), relation)
    assert found == pytest.approx(expected, abs=1e-6)


SAT = """
type assign(String, bool)
rel assign = {{1.0::("A", true); 1.0::("A", false)}}
rel assign = {{1.0::("B", true); 1.0::("B", false)}}
rel assign = {{1.0::("C", true); 1.0::("C", false)}}
rel var = {{(1, "A"), (2, "B"), (3, "C")}}
rel eval(f, r) :- var(f, v), assign(v, r)
rel eval(f, !r) :- negated(f, c), eval(c, r)
rel eval(f, l && r) :- conjoined(f, a, b), eval(a, l), eval(b, r)
rel eval(f, l || r) :- disjoined(f, a, b), eval(a, l), eval(b, r)
rel result(r) :- eval(9, r)
{}
"""


@pytest.mark.parametrize(
    ("formula", "values"),
    [
        (
            # (A and not B) or (B and not C)
            """
            rel negated = {(5, 2), (6, 3)}
            rel conjoined = {(7, 1, 5), (8, 2, 6)}
            rel disjoined = {(9, 7, 8)}
            """,
            [False, True],
        ),
        (
            # (A and not A) or (B and not B)
            """
            rel negated = {(5, 1), (6, 2)}
            rel conjoined = {(7, 1, 5), (8, 2, 6)}
            rel disjoined = {(9, 7, 8)}
            """,
            [False],
        ),
    ],
    ids=["satisfiable", "unsatisfiable"],
)
def test_alternatives_under_proofs(formula: str, values: list[bool]) -> None:
    check(run(SAT.format(formula), "proofs"), {"result": values})


def test_alternative_heads_under_proofs() -> None:
    program = """
    type F = Var(String) | Not(F) | And(F, F) | Or(F, F)
    rel { assign(v, true); assign(v, false) } = case f is Var(v)
    rel eval(f, r) = case f is Var(v) and assign(v, r)
    rel eval(f, !r) = case f is Not(c) and eval(c, r)
    rel eval(f, l && r) = case f is And(a, b) and eval(a, l) and eval(b, r)
    rel eval(f, l || r) = case f is Or(a, b) and eval(a, l) and eval(b, r)
    const FORMULA = Or(And(Var("A"), Not(Var("A"))), And(Var("B"), Not(Var("B"))))
    rel result(r) = eval(FORMULA, r)
    """
    check(run(program, "proofs"), {"result": [False]})


OVERFLOW = [
    ("usize", 0, "-", 1, 0),
    ("u8", 200, "+", 100, 255),
    ("u8", 3, "-", 5, 0),
    ("i8", 100, "+", 100, 127),
    ("i8", -100, "-", 100, -128),
    ("i32", 2147483647, "+", 1, 2147483647),
    ("i64", 9223372036854775807, "+", 1, 9223372036854775807),
]


@pytest.mark.parametrize(("name", "a", "operator", "b", "result"), OVERFLOW)
def test_sums_saturate(name: str, a: int, operator: str, b: int, result: int) -> None:
    program = f"type p({name}, {name})\nrel p = {{({a}, {b})}}\nrel r(x {operator} y) = p(x, y)"
    check(run(program), {"r": [result]})


# Contexts


def test_entities_given_as_text() -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_program(EXPR)
    ctx.add_relation("root", (int, scallopy.Entity))
    ctx.add_rule("eval(e, y) = case e is Const(y)")
    ctx.add_rule("eval(e, a + b) = case e is Add(l, r) and eval(l, a) and eval(r, b)")
    ctx.add_rule("result(i, y) = root(i, e) and eval(e, y)")
    ctx.add_facts("root", [(1, "Add(Const(5), Add(Const(3), Const(4)))"), (2, "Const(7)")])
    ctx.run()
    assert list(ctx.relation("result")) == [(1, 12), (2, 7)]


@pytest.mark.parametrize("text", ["Unknown(5)", "Add(Const(5), Const(3), Const(7))"])
def test_entities_that_are_none(text: str) -> None:
    # Scallop drops them without a word.
    ctx = scallopy.ScallopContext()
    ctx.add_program(f"{EXPR}\ntype root(e: Expr)")
    with pytest.raises(ByssusError, match="variant"):
        ctx.add_facts("root", [(text,)])


def test_entities_of_a_foreign_predicate() -> None:
    @scallopy.foreign_predicate
    def understand(s: str) -> scallopy.Facts[None, scallopy.Entity]:
        if s == "three and two":
            yield ("Add(Const(3), Const(2))",)

    ctx = scallopy.ScallopContext()
    ctx.register_foreign_predicate(understand)
    ctx.add_program(
        f"""
        {EXPR}
        rel eval(e, v) = case e is Const(v)
        rel eval(e, a + b) = case e is Add(l, r) and eval(l, a) and eval(r, b)
        rel prompt = {{"three and two", "nothing"}}
        rel result(v) = prompt(p) and understand(p, e) and eval(e, v)
        """
    )
    ctx.run()
    assert list(ctx.relation("result")) == [(5,)]


def test_a_foreign_predicate_that_fails() -> None:
    @scallopy.foreign_predicate(suppress_warning=True)
    def never(s: str) -> scallopy.Facts[None, str]:
        raise ValueError(s)

    ctx = scallopy.ScallopContext()
    ctx.register_foreign_predicate(never)
    ctx.add_program('rel r(y) = never("hello", y)')
    ctx.run()
    assert list(ctx.relation("r")) == []


def test_facts_of_programs_and_contexts_together() -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_program("type arc(usize, usize)\nrel arc = {(3, 4)}\nrel next(y) = arc(_, y)")
    ctx.add_facts("arc", [(1, 3)])
    ctx.run()
    assert list(ctx.relation("next")) == [(3,), (4,)]


def test_branches_from_a_computed_context() -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_relation("arc", (scallopy.usize, scallopy.usize))
    ctx.add_facts("arc", [(0, 1), (1, 2)])
    ctx.run()
    left, right = ctx.clone(), ctx.clone()
    left.add_rule("reach(a, c) = arc(a, c) or reach(a, b) and arc(b, c)")
    right.add_rule("reach(a, c) = arc(a, c) or arc(a, b) and reach(b, c)")
    left.run()
    right.run()
    assert list(left.relation("reach")) == list(right.relation("reach")) == [(0, 1), (0, 2), (1, 2)]
    right.add_rule("from_one(x, y) = reach(x, y) and x == 1")
    right.run()
    assert list(right.relation("from_one")) == [(1, 2)]


def test_independent_parts_of_a_program() -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_program(
        "type a(usize), b(usize)\nrel c(x + 1) = a(x)\nrel d(x + 1) = b(x)\nquery c\nquery d"
    )
    ctx.add_facts("a", [(0,)])
    ctx.add_facts("b", [(5,)])
    ctx.run()
    ctx.add_facts("b", [(7,)])
    ctx.run()
    assert list(ctx.relation("c")) == [(1,)]
    assert list(ctx.relation("d")) == [(6,), (8,)]


def test_demand_of_a_rule_from_python() -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_relation("fib", (int, int))
    ctx.add_facts("fib", [(0, 1), (1, 1)])
    ctx.add_rule("fib(x, y + z) = fib(x - 1, y), fib(x - 2, z), x > 1", demand="bf")
    ctx.add_rule("result(y) = fib(5, y)")
    ctx.run()
    assert list(ctx.relation("result")) == [(8,)]


@pytest.mark.embedded("runs under a provenance of Scallop's own")
def test_tagged_rules_from_python() -> None:
    ctx = scallopy.ScallopContext(provenance="minmaxprob")
    ctx.add_relation("speaks", (int, str))
    ctx.add_relation("lives_in", (int, str))
    ctx.add_facts("speaks", [(None, (0, "english")), (None, (1, "chinese"))])
    ctx.add_facts("lives_in", [(None, (0, "china")), (None, (1, "us"))])
    ctx.add_rule('born_in(a, "china") = lives_in(a, "china")', tag=0.8)
    ctx.add_rule('born_in(a, "china") = speaks(a, "chinese")', tag=0.6)
    ctx.run()
    assert list(ctx.relation("born_in")) == [(0.8, (0, "china")), (0.6, (1, "china"))]


@pytest.mark.parametrize(
    ("provenance", "probability"),
    [("minmaxprob", 0.5), ("addmultprob", 0.25), ("diffminmaxprob", 0.5), ("exact", 0.5)],
)
def test_a_tag_from_python_is_one_fact(provenance: str, probability: float) -> None:
    ctx = scallopy.ScallopContext(provenance=provenance)
    ctx.add_program("rel p = {1, 2}")
    ctx.add_rule("r(x) = p(x)", tag=0.5)
    ctx.add_rule("q() = r(1) and r(2)")
    ctx.run()
    assert probabilities(ctx, "q") == pytest.approx({(): probability})


@pytest.mark.embedded("runs under a provenance of Scallop's own")
def test_softmax_of_facts_from_python() -> None:
    ctx = scallopy.ScallopContext(provenance="minmaxprob")
    ctx.add_relation("digit", int)
    ctx.add_facts("digit", [(0.5, (i,)) for i in range(10)])
    ctx.add_rule("softer(n) = n := softmax(d: digit(d))")
    ctx.run()
    assert probabilities(ctx, "softer") == pytest.approx(dict.fromkeys(range(10), 0.1))


def test_hidden_relations() -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_program("@hidden\ntype a(i32, i32)\ntype b(i32, i32, i32)")
    assert ctx.relations() == ["b"]


@pytest.mark.embedded("runs under a provenance of Scallop's own")
@pytest.mark.parametrize("dispatch", ["single", "serial", "parallel"])
def test_most_probable_facts_of_each_group(dispatch: str) -> None:
    symbols = [*map(str, range(10)), "+", "-", "*", "/"]
    ctx = scallopy.ScallopContext(provenance="difftopkproofs")
    ctx.add_relation("symbol", (int, str), [(i, s) for i in range(3) for s in symbols])
    ctx.add_rule("sampled(i, s) :- s = top<3>(s: symbol(i, s))")
    forward = ctx.forward_function("sampled", dispatch=dispatch)
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randn(4, 3, 14, generator=generator).softmax(2)
    found, result = forward(symbol=predictions.reshape(4, -1))
    # Three facts of each of three groups in each example, with their probabilities.
    assert torch.count_nonzero(result, 1).tolist() == [9, 9, 9, 9]
    for example, row in enumerate(predictions):
        expected = {
            (i, symbols[j]): row[i, j].item()
            for i in range(3)
            for j in row[i].topk(3).indices.tolist()
        }
        kept = {t: p for t, p in zip(found, result[example].tolist(), strict=True) if p}
        assert kept == pytest.approx(expected)


@pytest.mark.embedded("runs under a provenance of Scallop's own")
def test_gradients_reach_the_networks() -> None:
    ctx = scallopy.ScallopContext(provenance="difftopkproofs")
    ctx.add_relation("digit_1", int, range(10))
    ctx.add_relation("digit_2", int, range(10))
    ctx.add_rule("sum_2(a + b) = digit_1(a) and digit_2(b)")
    forward = ctx.forward_function("sum_2", list(range(19)), sparse_jacobian=True)
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(4, 10, generator=generator).requires_grad_() for _ in range(2))
    result = forward(digit_1=one.softmax(1), digit_2=two.softmax(1))
    target = torch.zeros(4, 19)
    target[:, 0] = 1
    torch.nn.functional.binary_cross_entropy(result, target).backward()
    for logits in (one, two):
        assert logits.grad is not None
        assert logits.grad.abs().sum() > 0


def test_csv_of_each_kind(tmp_path: Path) -> None:
    table = tmp_path / "student.csv"
    table.write_text("id,name,year\n1,alice,2022\n2,bob,2023\n")
    check(
        run(f'@file("{table}", keys="id")\ntype student(id: String, field: Symbol, value: String)'),
        {
            "student": [
                *[("1", "name", "alice"), ("1", "year", "2022")],
                *[("2", "name", "bob"), ("2", "year", "2023")],
            ]
        },
    )
    check(
        run(f'@file("{table}", fields=["year", "id"])\ntype student(year: i32, id: String)'),
        {"student": [(2022, "1"), (2023, "2")]},
    )
    check(
        run(f'@file("{table}", header=true)\ntype student(id: u8, name: String, year: f32)'),
        {"student": [(1, "alice", 2022.0), (2, "bob", 2023.0)]},
    )


def test_tuples_come_in_ascending_order() -> None:
    ctx = run('rel a = {(2, "b"), (10, "a"), (-1, "c"), (2, "a")}\nrel b = {true, false}')
    assert tuples(ctx, "a") == [(-1, "c"), (2, "a"), (2, "b"), (10, "a")]
    assert tuples(ctx, "b") == [(False,), (True,)]
