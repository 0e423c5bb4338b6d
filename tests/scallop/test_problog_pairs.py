"""The same program in Scallop's language and in ProbLog's: the same probabilities."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from byssus import Boolean, Integer, blackbox
from byssus_scallop import ScallopContext

pytest.importorskip("problog")

from byssus_problog import Program

Answers = dict[tuple[str, tuple[Any, ...]], float]


@dataclass(frozen=True)
class Pair:
    """A program twice.

    Attributes:
        scl: in Scallop's language; the relations `asked` are compared.
        pl: in ProbLog's, with queries of the same names.
    """

    name: str
    asked: str
    scl: str
    pl: str


PAIRS = [
    Pair(
        "dice",
        "total",
        """
        rel one = {0.5::1; 0.3::2; 0.2::3}
        rel two = {0.1::1; 0.6::2; 0.3::3}
        rel total(x + y) = one(x) and two(y)
        """,
        """
        0.5::one(1); 0.3::one(2); 0.2::one(3).
        0.1::two(1); 0.6::two(2); 0.3::two(3).
        total(Z) :- one(X), two(Y), Z is X + Y.
        query(total(_)).
        """,
    ),
    Pair(
        "addition with carry",
        "result",
        """
        rel a0 = {0.7::9; 0.3::4}  rel a1 = {0.6::1; 0.4::7}
        rel b0 = {0.2::8; 0.8::1}  rel b1 = {0.5::2; 0.5::9}
        rel low(x + y) = a0(x) and b0(y)
        rel high(x + y + c / 10) = a1(x) and b1(y) and low(c)
        rel result(h * 10 + l % 10) = high(h) and low(l) and a1(x) and b1(y) and h == x + y + l / 10
        """,
        """
        0.7::a0(9); 0.3::a0(4).  0.6::a1(1); 0.4::a1(7).
        0.2::b0(8); 0.8::b0(1).  0.5::b1(2); 0.5::b1(9).
        low(L) :- a0(X), b0(Y), L is X + Y.
        result(R) :- low(L), a1(X), b1(Y), R is (X + Y + L // 10) * 10 + L mod 10.
        query(result(_)).
        """,
    ),
    Pair(
        "paths in a graph with cycles",
        "path",
        """
        rel edge = {0.1::(1, 2), 0.2::(2, 3), 0.3::(3, 1), 0.4::(2, 4), 0.5::(4, 2), 0.6::(3, 4)}
        rel path(x, y) = edge(x, y) or path(x, z) and edge(z, y)
        """,
        """
        0.1::edge(1,2). 0.2::edge(2,3). 0.3::edge(3,1). 0.4::edge(2,4). 0.5::edge(4,2).
        0.6::edge(3,4).
        path(X,Y) :- edge(X,Y).
        path(X,Y) :- path(X,Z), edge(Z,Y).
        query(path(_,_)).
        """,
    ),
    Pair(
        "an undirected graph",
        "connected",
        """
        rel edge = {0.9::("a", "b"), 0.8::("b", "c"), 0.7::("a", "c"), 0.6::("c", "d")}
        rel linked(x, y) = edge(x, y) or edge(y, x)
        rel reach(x, y) = linked(x, y) or reach(x, z) and linked(z, y)
        rel connected() = reach("a", "d")
        """,
        """
        0.9::edge(a,b). 0.8::edge(b,c). 0.7::edge(a,c). 0.6::edge(c,d).
        linked(X,Y) :- edge(X,Y).
        linked(X,Y) :- edge(Y,X).
        reach(X,Y) :- linked(X,Y).
        reach(X,Y) :- reach(X,Z), linked(Z,Y).
        connected :- reach(a,d).
        query(connected).
        """,
    ),
    Pair(
        "noisy or",
        "lit",
        """
        rel source = {0.3::1, 0.5::2, 0.9::3}
        rel wire = {0.9::(1, 0), 0.8::(2, 0), 0.1::(3, 0)}
        rel lit() = source(x) and wire(x, 0)
        """,
        """
        0.3::source(1). 0.5::source(2). 0.9::source(3).
        0.9::wire(1,0). 0.8::wire(2,0). 0.1::wire(3,0).
        lit :- source(X), wire(X,0).
        query(lit).
        """,
    ),
    Pair(
        "alternatives with a remainder",
        "none seen both",
        """
        rel colour = {0.2::"red"; 0.3::"green"; 0.1::"blue"}
        rel seen() = colour(_)
        rel none() = not colour(_)
        rel both() = colour("red") and colour("blue")
        """,
        """
        0.2::colour(red); 0.3::colour(green); 0.1::colour(blue).
        seen :- colour(_).
        none :- \\+ seen.
        both :- colour(red), colour(blue).
        query(none). query(seen). query(both).
        """,
    ),
    Pair(
        "alternatives of one certain choice",
        "warm cold",
        """
        rel colour = {0.2::"red"; 0.3::"orange"; 0.5::"blue"}
        rel warm() = colour("red") or colour("orange")
        rel cold() = not warm()
        """,
        """
        0.2::colour(red); 0.3::colour(orange); 0.5::colour(blue).
        warm :- colour(red).
        warm :- colour(orange).
        cold :- \\+ warm.
        query(warm). query(cold).
        """,
    ),
    Pair(
        "negation",
        "flies",
        """
        rel bird = {1.0::"tweety", 0.9::"polly", 0.4::"pingu"}
        rel penguin = {0.1::"polly", 0.8::"pingu"}
        rel flies(x) = bird(x) and not penguin(x)
        """,
        """
        bird(tweety). 0.9::bird(polly). 0.4::bird(pingu).
        0.1::penguin(polly). 0.8::penguin(pingu).
        flies(X) :- bird(X), \\+ penguin(X).
        query(flies(_)).
        """,
    ),
    Pair(
        "smokers",
        "smokes asthma",
        """
        rel person = {1, 2, 3, 4}
        rel friend = {(1, 2), (2, 1), (2, 4), (3, 2), (4, 2)}
        rel 0.3::stress(x) = person(x)
        rel 0.2::influences(x, y) = person(x) and person(y)
        rel 0.4::ill(x) = person(x)
        rel smokes(x) = stress(x) or friend(x, y) and influences(y, x) and smokes(y)
        rel asthma(x) = smokes(x) and ill(x)
        """,
        """
        person(1). person(2). person(3). person(4).
        friend(1,2). friend(2,1). friend(2,4). friend(3,2). friend(4,2).
        0.3::stress(X) :- person(X).
        0.2::influences(X,Y) :- person(X), person(Y).
        0.4::ill(X) :- person(X).
        smokes(X) :- stress(X).
        smokes(X) :- friend(X,Y), influences(Y,X), smokes(Y).
        asthma(X) :- smokes(X), ill(X).
        query(smokes(_)). query(asthma(_)).
        """,
    ),
    Pair(
        "alarm",
        "alarm calls",
        """
        rel burglary = {0.7::()}
        rel earthquake = {0.2::()}
        rel person = {"john", "mary"}
        rel 0.9::alarm() = burglary() and earthquake()
        rel 0.8::alarm() = burglary() and not earthquake()
        rel 0.1::alarm() = not burglary() and earthquake()
        rel 0.8::calls(x) = alarm() and person(x)
        rel 0.1::calls(x) = not alarm() and person(x)
        """,
        """
        0.7::burglary. 0.2::earthquake.
        person(john). person(mary).
        0.9::alarm :- burglary, earthquake.
        0.8::alarm :- burglary, \\+ earthquake.
        0.1::alarm :- \\+ burglary, earthquake.
        0.8::calls(X) :- alarm, person(X).
        0.1::calls(X) :- \\+ alarm, person(X).
        query(alarm). query(calls(_)).
        """,
    ),
    Pair(
        "a rule with a probability has a coin for each instance",
        "h some both",
        """
        rel b = {(1, 2), (1, 3), (2, 2)}
        rel 0.8::h(x) = b(x, y)
        rel some() = h(_)
        rel both() = h(1) and h(2)
        """,
        """
        b(1,2). b(1,3). b(2,2).
        0.8::h(X) :- b(X,Y).
        some :- h(_).
        both :- h(1), h(2).
        query(h(_)). query(some). query(both).
        """,
    ),
    Pair(
        "a probability that depends on values",
        "h all",
        """
        type b(x: i32, p: f64)
        rel b = {(1, 0.25), (2, 0.25), (3, 0.5)}
        rel p::h(x) = b(x, p)
        rel all() = h(1) and h(2) and h(3)
        """,
        """
        b(1,0.25). b(2,0.25). b(3,0.5).
        P::h(X) :- b(X,P).
        all :- h(1), h(2), h(3).
        query(h(_)). query(all).
        """,
    ),
    Pair(
        "monty hall",
        "wins_by_switching wins_by_staying",
        """
        rel door = {1, 2, 3}
        rel prize = {0.3333333333333333::1; 0.3333333333333333::2; 0.3333333333333333::3}
        rel {opens(2); opens(3)} = prize(1)
        rel opens(2) = prize(3)
        rel opens(3) = prize(2)
        rel wins_by_staying() = prize(1)
        rel wins_by_switching() = prize(x) and x != 1 and not opens(x)
        """,
        """
        0.3333333333333333::prize(1); 0.3333333333333333::prize(2); 0.3333333333333333::prize(3).
        0.5::opens(2); 0.5::opens(3) :- prize(1).
        opens(2) :- prize(3).
        opens(3) :- prize(2).
        wins_by_staying :- prize(1).
        wins_by_switching :- prize(X), X =\\= 1, \\+ opens(X).
        query(wins_by_switching). query(wins_by_staying).
        """,
    ),
    Pair(
        "exclusive heads for each instance",
        "colour same differ",
        """
        rel node = {0.9::1, 2, 0.5::3}
        rel {colour(x, "r"); colour(x, "g"); colour(x, "b")} = node(x)
        rel same() = colour(1, c) and colour(2, c)
        rel differ() = colour(2, c) and colour(3, d) and c != d
        """,
        """
        0.9::node(1). node(2). 0.5::node(3).
        1/3::colour(X,r); 1/3::colour(X,g); 1/3::colour(X,b) :- node(X).
        same :- colour(1,C), colour(2,C).
        differ :- colour(2,C), colour(3,D), C \\= D.
        query(colour(_,_)). query(same). query(differ).
        """,
    ),
    Pair(
        "a hidden markov model",
        "state weather_seen",
        """
        rel start = {0.6::"rain"; 0.4::"sun"}
        rel step1 = {0.7::("rain", "rain"); 0.3::("rain", "sun")}
        rel step1 = {0.4::("sun", "rain"); 0.6::("sun", "sun")}
        rel step2 = {0.7::("rain", "rain"); 0.3::("rain", "sun")}
        rel step2 = {0.4::("sun", "rain"); 0.6::("sun", "sun")}
        rel shows1 = {0.9::("rain", "umbrella"); 0.1::("rain", "none")}
        rel shows1 = {0.2::("sun", "umbrella"); 0.8::("sun", "none")}
        rel shows2 = {0.9::("rain", "umbrella"); 0.1::("rain", "none")}
        rel shows2 = {0.2::("sun", "umbrella"); 0.8::("sun", "none")}
        rel state(0, s) = start(s)
        rel state(1, t) = state(0, s) and step1(s, t)
        rel state(2, t) = state(1, s) and step2(s, t)
        rel weather_seen(o, q) = state(1, s) and shows1(s, o) and state(2, t) and shows2(t, q)
        """,
        """
        0.6::start(rain); 0.4::start(sun).
        0.7::step(T,rain,rain); 0.3::step(T,rain,sun) :- time(T).
        0.4::step(T,sun,rain); 0.6::step(T,sun,sun) :- time(T).
        0.9::shows(T,rain,umbrella); 0.1::shows(T,rain,none) :- time(T).
        0.2::shows(T,sun,umbrella); 0.8::shows(T,sun,none) :- time(T).
        time(1). time(2).
        state(0,S) :- start(S).
        state(T,S) :- time(T), U is T - 1, state(U,R), step(T,R,S).
        weather_seen(O,Q) :- state(1,S), shows(1,S,O), state(2,R), shows(2,R,Q).
        query(state(_,_)). query(weather_seen(_,_)).
        """,
    ),
    Pair(
        "coins and urns",
        "win",
        """
        rel heads = {0.4::()}
        rel col1 = {0.3::"red"; 0.7::"blue"}
        rel col2 = {0.2::"red"; 0.3::"green"; 0.5::"blue"}
        rel win() = heads() and col1("red")
        rel win() = heads() and col2("red")
        rel win() = col1(x) and col2(x)
        """,
        """
        0.4::heads.
        0.3::col1(red); 0.7::col1(blue).
        0.2::col2(red); 0.3::col2(green); 0.5::col2(blue).
        win :- heads, col1(red).
        win :- heads, col2(red).
        win :- col1(X), col2(X).
        query(win).
        """,
    ),
    Pair(
        "count",
        "n",
        """
        rel a = {0.2::1, 0.5::2, 0.9::3}
        rel n(c) = c := count(x: a(x))
        """,
        """
        0.2::a(1). 0.5::a(2). 0.9::a(3).
        item(1). item(2). item(3).
        b(X,1) :- a(X).
        b(X,0) :- item(X), \\+ a(X).
        n(C) :- b(1,X), b(2,Y), b(3,Z), C is X + Y + Z.
        query(n(_)).
        """,
    ),
    Pair(
        "sum",
        "s",
        """
        rel a = {0.2::1, 0.5::2, 0.9::4}
        rel s(c) = c := sum(x: a(x))
        """,
        """
        0.2::a(1). 0.5::a(2). 0.9::a(4).
        item(1). item(2). item(4).
        b(X,X) :- a(X).
        b(X,0) :- item(X), \\+ a(X).
        s(C) :- b(1,X), b(2,Y), b(4,Z), C is X + Y + Z.
        query(s(_)).
        """,
    ),
    Pair(
        "least and greatest",
        "least greatest",
        """
        rel a = {0.2::1, 0.5::2, 0.9::4}
        rel least(m) = m := min(x: a(x))
        rel greatest(m) = m := max(x: a(x))
        """,
        """
        0.2::a(1). 0.5::a(2). 0.9::a(4).
        item(1). item(2). item(4).
        less(X) :- a(Y), item(X), Y < X.
        more(X) :- a(Y), item(X), Y > X.
        least(X) :- a(X), \\+ less(X).
        greatest(X) :- a(X), \\+ more(X).
        query(least(_)). query(greatest(_)).
        """,
    ),
    Pair(
        "the best of each group",
        "best",
        """
        rel score = {0.5::("a", 1, 10), 0.3::("a", 2, 20), 0.8::("b", 1, 5), 0.4::("b", 2, 5)}
        rel best(g, i) = i := argmax[i](s: score(g, i, s))
        """,
        """
        mark(5). mark(10). mark(20).
        0.5::score(a,1,10). 0.3::score(a,2,20). 0.8::score(b,1,5). 0.4::score(b,2,5).
        beaten(G,S) :- score(G,_,R), mark(S), R > S.
        best(G,I) :- score(G,I,S), \\+ beaten(G,S).
        query(best(_,_)).
        """,
    ),
    Pair(
        "exists and forall",
        "some every",
        """
        rel item = {0.5::1, 0.4::2}
        rel good = {0.9::1, 0.3::2}
        rel some() = exists(x: item(x) and good(x))
        rel every() = forall(x: item(x) implies good(x))
        """,
        """
        0.5::item(1). 0.4::item(2).
        0.9::good(1). 0.3::good(2).
        some :- item(X), good(X).
        bad :- item(X), \\+ good(X).
        every :- \\+ bad.
        query(some). query(every).
        """,
    ),
    Pair(
        "a count for each group of a relation",
        "n",
        """
        rel group = {0.5::"a", "b"}
        rel inside = {0.3::("a", 1), 0.6::("b", 1), 0.7::("b", 2)}
        rel n(g, c) = c := count(x: inside(g, x) where g: group(g))
        """,
        """
        0.5::group(a). group(b).
        0.3::inside(a,1). 0.6::inside(b,1). 0.7::inside(b,2).
        known(a). known(b). item(1). item(2).
        i(G,X,1) :- inside(G,X).
        i(G,X,0) :- known(G), item(X), \\+ inside(G,X).
        n(G,C) :- group(G), i(G,1,X), i(G,2,Y), C is X + Y.
        query(n(_,_)).
        """,
    ),
    Pair(
        "expressions",
        "value",
        """
        type Expr = Num(i32) | Add(Expr, Expr) | Times(Expr, Expr)
        rel digit = {0.6::2; 0.4::3}
        rel chosen = {0.7::0; 0.3::1}
        const FIRST = Add(Num(1), Times(Num(2), Num(3)))
        const SECOND = Times(Add(Num(1), Num(2)), Num(3))
        rel tree(0, e) = e == FIRST
        rel tree(1, e) = e == SECOND
        rel eval(e, n) = case e is Num(n)
        rel eval(e, a + b) = case e is Add(x, y) and eval(x, a) and eval(y, b)
        rel eval(e, a * b) = case e is Times(x, y) and eval(x, a) and eval(y, b)
        rel value(v * d) = chosen(c) and tree(c, e) and eval(e, v) and digit(d)
        """,
        """
        0.6::digit(2); 0.4::digit(3).
        0.7::chosen(0); 0.3::chosen(1).
        tree(0, add(num(1), times(num(2), num(3)))).
        tree(1, times(add(num(1), num(2)), num(3))).
        eval(num(N), N).
        eval(add(X,Y), V) :- eval(X,A), eval(Y,B), V is A + B.
        eval(times(X,Y), V) :- eval(X,A), eval(Y,B), V is A * B.
        value(W) :- chosen(C), tree(C,E), eval(E,V), digit(D), W is V * D.
        query(value(_)).
        """,
    ),
    Pair(
        "lists",
        "total",
        """
        type List = Nil() | Cons(i32, List)
        rel weight = {0.5::1, 0.25::2, 0.75::3}
        const ALL = Cons(1, Cons(2, Cons(3, Nil())))
        rel sum(l, 0) = case l is Nil()
        rel sum(l, s + h) = case l is Cons(h, t) and sum(t, s) and weight(h)
        rel sum(l, s) = case l is Cons(h, t) and sum(t, s) and not weight(h)
        rel total(s) = sum(ALL, s)
        """,
        """
        0.5::weight(1). 0.25::weight(2). 0.75::weight(3).
        sum([], 0).
        sum([H|T], S) :- sum(T, R), weight(H), S is R + H.
        sum([H|T], S) :- sum(T, S), \\+ weight(H).
        total(S) :- sum([1,2,3], S).
        query(total(_)).
        """,
    ),
    Pair(
        "strings",
        "word",
        """
        rel first = {0.5::"a"; 0.5::"b"}
        rel last = {0.25::"x"; 0.75::"ax"}
        rel word(f + l) = first(f) and last(l)
        """,
        """
        0.5::first(a); 0.5::first(b).
        0.25::last(x); 0.75::last(ax).
        append_of(a,x,ax). append_of(a,ax,aax). append_of(b,x,bx). append_of(b,ax,bax).
        word(W) :- first(F), last(L), append_of(F,L,W).
        query(word(_)).
        """,
    ),
    Pair(
        "a game whose moves may be missing",
        "win",
        """
        rel move = {0.8::(1, 2), 0.5::(2, 3), 0.9::(1, 3), 0.3::(3, 4)}
        rel win3() = move(3, 4)
        rel win2() = move(2, 3) and not win3()
        rel win(1) = move(1, 2) and not win2() or move(1, 3) and not win3()
        rel win(2) = win2()
        rel win(3) = win3()
        """,
        """
        0.8::move(1,2). 0.5::move(2,3). 0.9::move(1,3). 0.3::move(3,4).
        win(X) :- move(X,Y), \\+ win(Y).
        query(win(1)). query(win(2)). query(win(3)).
        """,
    ),
    Pair(
        "mutual recursion",
        "even odd",
        """
        rel link = {0.9::(0, 1), 0.8::(1, 2), 0.7::(2, 0), 0.6::(2, 3)}
        rel even(0)
        rel odd(y) = even(x) and link(x, y)
        rel even(y) = odd(x) and link(x, y)
        """,
        """
        0.9::link(0,1). 0.8::link(1,2). 0.7::link(2,0). 0.6::link(2,3).
        even(0).
        odd(Y) :- even(X), link(X,Y).
        even(Y) :- odd(X), link(X,Y).
        query(even(_)). query(odd(_)).
        """,
    ),
    Pair(
        "the same fact twice",
        "h",
        """
        rel a = {0.3::1, 0.5::1, 0.2::2}
        rel h() = a(1) and a(2)
        """,
        """
        0.3::a(1). 0.5::a(1). 0.2::a(2).
        h :- a(1), a(2).
        query(h).
        """,
    ),
    Pair(
        "a rule that implies",
        "ok",
        """
        rel p = {0.3::1, 0.6::2}
        rel q = {0.5::1}
        rel n = {1, 2}
        rel ok(x) = n(x) and (p(x) implies q(x))
        """,
        """
        0.3::p(1). 0.6::p(2).
        0.5::q(1).
        n(1). n(2).
        ok(X) :- n(X), \\+ p(X).
        ok(X) :- n(X), q(X).
        query(ok(_)).
        """,
    ),
    Pair(
        "rock, paper, scissors",
        "outcome",
        """
        rel left = {0.2::"r"; 0.3::"p"; 0.5::"s"}
        rel right = {0.5::"r"; 0.25::"p"; 0.25::"s"}
        rel beats = {("r", "s"), ("s", "p"), ("p", "r")}
        rel outcome("left") = left(x) and right(y) and beats(x, y)
        rel outcome("right") = left(x) and right(y) and beats(y, x)
        rel outcome("draw") = left(x) and right(x)
        """,
        """
        0.2::left(r); 0.3::left(p); 0.5::left(s).
        0.5::right(r); 0.25::right(p); 0.25::right(s).
        beats(r,s). beats(s,p). beats(p,r).
        outcome(left) :- left(X), right(Y), beats(X,Y).
        outcome(right) :- left(X), right(Y), beats(Y,X).
        outcome(draw) :- left(X), right(X).
        query(outcome(_)).
        """,
    ),
]


def value(text: str) -> Any:
    text = text.strip().strip("'\"")
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def problog(text: str, *boxes: Any) -> Answers:
    program = Program(text, list(boxes), provenance="exact")
    probs = program({}).probs.reshape(-1).tolist()
    found = {}
    for query, p in zip(program.queries, probs, strict=True):
        name, _, rest = query.rstrip(")").partition("(")
        found[name, tuple(map(value, rest.split(","))) if rest else ()] = p
    return found


def scallop(ctx: ScallopContext, asked: str) -> Answers:
    ctx.run()
    return {(name, row): p for name in asked.split() for p, row in ctx.relation(name)}


def assert_same(found: Answers, right: Answers) -> None:
    assert right
    for key in found.keys() | right.keys():
        assert found.get(key, 0.0) == pytest.approx(right.get(key, 0.0), abs=1e-6), key


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name.replace(" ", "_"))
def test_pairs(pair: Pair) -> None:
    ctx = ScallopContext(provenance="exact")
    ctx.add_program(pair.scl)
    assert_same(scallop(ctx, pair.asked), problog(pair.pl))


def test_there_are_enough() -> None:
    assert len(PAIRS) >= 24


# Black boxes


@blackbox(Integer(0, 9), Integer(0, 9), output=Integer(0, 18))
def add(x: int, y: int) -> int:
    return x + y


@blackbox(Integer(0, 9), output=Boolean())
def prime(x: int) -> bool:
    return x in (2, 3, 5, 7)


@blackbox(Integer(0, 30), output=Integer(0, 30))
def halve(x: int) -> int:
    return x // 2


BOXES = [
    Pair(
        "a predicate",
        "total",
        """
        @blackbox("add")
        type add(bound x: i32, bound y: i32, z: i32)
        rel one = {0.5::1; 0.3::2; 0.2::3}
        rel two = {0.1::1; 0.6::2; 0.3::3}
        rel total(z) = one(x) and two(y) and add(x, y, z)
        """,
        """
        0.5::one(1); 0.3::one(2); 0.2::one(3).
        0.1::two(1); 0.6::two(2); 0.3::two(3).
        total(Z) :- one(X), two(Y), add(X,Y,Z).
        query(total(_)).
        """,
    ),
    Pair(
        "a function",
        "total",
        """
        @blackbox("add")
        type $add(x: i32, y: i32) -> i32
        rel one = {0.5::1; 0.3::2; 0.2::3}
        rel two = {0.1::1; 0.6::2; 0.3::3}
        rel total($add(x, y)) = one(x) and two(y)
        """,
        """
        0.5::one(1); 0.3::one(2); 0.2::one(3).
        0.1::two(1); 0.6::two(2); 0.3::two(3).
        total(Z) :- one(X), two(Y), add(X,Y,Z).
        query(total(_)).
        """,
    ),
    Pair(
        "a test, negated too",
        "good bad",
        """
        @blackbox("prime")
        type prime(bound x: i32)
        rel a = {0.5::4, 0.25::5, 0.75::7}
        rel good() = a(x) and prime(x)
        rel bad() = a(x) and not prime(x)
        """,
        """
        0.5::a(4). 0.25::a(5). 0.75::a(7).
        good :- a(X), prime(X).
        bad :- a(X), \\+ prime(X).
        query(good). query(bad).
        """,
    ),
    Pair(
        "recursion",
        "down",
        """
        @blackbox("halve")
        type halve(bound x: i32, y: i32)
        rel start = {0.5::24; 0.5::10}
        rel broken = {0.125::3}
        rel down(x) = start(x)
        rel down(y) = down(x) and x > 0 and not broken(x) and halve(x, y)
        """,
        """
        0.5::start(24); 0.5::start(10).
        0.125::broken(3).
        down(X) :- start(X).
        down(Y) :- down(X), X > 0, \\+ broken(X), halve(X,Y).
        query(down(_)).
        """,
    ),
]


@pytest.mark.parametrize("pair", BOXES, ids=lambda pair: pair.name.replace(" ", "_"))
def test_black_boxes(pair: Pair) -> None:
    ctx = ScallopContext(provenance="exact")
    for box in (add, prime, halve):
        ctx.register_blackbox(box)
    ctx.add_program(pair.scl)
    assert_same(scallop(ctx, pair.asked), problog(pair.pl, add, prime, halve))


# Gradients


@dataclass(frozen=True)
class Network:
    """A program over digits `digit(a, 0..2)`, `digit(b, 0..2)`, and rain on days 0 and 1."""

    asked: str
    scl: str
    pl: str


NETWORKS = [
    Network(
        "total",
        "rel total(x + y) = digit(0, x) and digit(1, y)",
        "total(Z) :- digit(0,X), digit(1,Y), Z is X + Y.  query(total(_)).",
    ),
    Network(
        "less",
        "rel less(x) = digit(0, x) and digit(1, y) and x < y and not rain(0)",
        "less(X) :- digit(0,X), digit(1,Y), X < Y, \\+ rain(0).  query(less(_)).",
    ),
    Network(
        "same wet",
        """
        rel same() = digit(0, x) and digit(1, x)
        rel wet(n) = n := count(d: rain(d))
        """,
        """
        same :- digit(0,X), digit(1,X).
        wet(0) :- \\+ rain(0), \\+ rain(1).
        wet(1) :- rain(0), \\+ rain(1).
        wet(1) :- rain(1), \\+ rain(0).
        wet(2) :- rain(0), rain(1).
        query(same). query(wet(_)).
        """,
    ),
    Network(
        "reach",
        """
        rel edge = {0.5::(1, 2), 0.25::(2, 0)}
        rel reach(x) = digit(0, x) and rain(0)
        rel reach(y) = reach(x) and edge(x, y)
        rel reach(y) = reach(x) and rain(1) and digit(1, y)
        """,
        """
        0.5::edge(1,2). 0.25::edge(2,0).
        reach(X) :- digit(0,X), rain(0).
        reach(Y) :- reach(X), edge(X,Y).
        reach(Y) :- reach(X), rain(1), digit(1,Y).
        query(reach(_)).
        """,
    ),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.asked.replace(" ", "_"))
def test_gradients(network: Network) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 2, 3, dtype=torch.float64, generator=generator).requires_grad_()
    rain = torch.rand(4, 2, dtype=torch.float64, generator=generator).requires_grad_()
    digit = logits.softmax(-1)

    program = Program(
        "nn(digit, [X], D, [0,1,2]) :: digit(X, D).\nnn(rain, [X]) :: rain(X).\n" + network.pl,
        provenance="exact",
        instances={"digit": [0, 1], "rain": [0, 1]},
    )
    given = {"digit": digit, "rain": rain}
    probs = program({name: given[name] for name in program.instances}).probs
    right: dict[tuple[str, tuple[Any, ...]], Tensor] = {}
    for query, column in zip(program.queries, probs.unbind(1), strict=True):
        name, _, rest = query.rstrip(")").partition("(")
        right[name, tuple(map(value, rest.split(","))) if rest else ()] = column

    ctx = ScallopContext(provenance="exact")
    ctx.add_program("type digit(i32, i32), rain(i32)\n" + network.scl)
    ctx.set_input_mapping("digit", {0: range(2), 1: range(3)}, disjunctive_dim=1)
    ctx.set_input_mapping("rain", range(2), disjunctive=False)
    names = network.asked.split()
    result = ctx.forward_function(output_mappings=dict.fromkeys(names))(digit=digit, rain=rain)
    if len(names) == 1:
        result = {names[0]: result}
    found = {
        (name, row): column
        for name, (rows, tensor) in result.items()
        for row, column in zip(rows, tensor.unbind(1), strict=True)
    }
    assert right
    assert found.keys() == right.keys()
    weight = torch.linspace(0.5, 1.5, 4, dtype=torch.float64)
    for key, column in right.items():
        assert torch.allclose(found[key].double(), column, atol=1e-6)
        for leaf in (logits, rain):
            a, b = (
                torch.autograd.grad(
                    (p * weight).sum(), leaf, retain_graph=True, materialize_grads=True
                )[0]
                for p in (found[key], column)
            )
            assert torch.allclose(a, b, atol=1e-6)
