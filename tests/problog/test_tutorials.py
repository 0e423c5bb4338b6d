"""The programs that ProbLog is taught with, each against what ProbLog computes in the same test."""

from __future__ import annotations

import pytest

from problog_reference import check

_COINS = """
0.5::heads1.
0.6::heads2.
"""
_MANY_COINS = "coin(c1). coin(c2). coin(c3). coin(c4).\n0.6::lands_heads(C) :- coin(C).\n"
_ALARM = """
0.7::burglary.
0.2::earthquake.
"""
_ALARM_RULES = """
0.9::alarm :- burglary, earthquake.
0.8::alarm :- burglary, \\+earthquake.
0.1::alarm :- \\+burglary, earthquake.
0.8::calls(john) :- alarm.
0.1::calls(john) :- \\+alarm.
0.7::calls(X) :- alarm, person(X).
person(mary).
"""
_ALARM_OPTIONS = """
0.01::b(high); 0.19::b(low); 0.8::b(none).
0.3::e(heavy); 0.2::e(mild); 0.5::e(none).
0.9::al(true); 0.1::al(false) :- b(high), e(heavy).
0.85::al(true); 0.15::al(false) :- b(high), \\+e(heavy).
0.6::al(true); 0.4::al(false) :- b(low), e(none).
0.5::al(true); 0.5::al(false) :- b(low), \\+e(none).
0.1::al(true); 0.9::al(false) :- b(none).
query(al(X)). query(b(X)).
"""
_DICE = """
1/6::d1(1); 1/6::d1(2); 1/6::d1(3); 1/6::d1(4); 1/6::d1(5); 1/6::d1(6).
0.15::d2(1); 0.15::d2(2); 0.15::d2(3); 0.15::d2(4); 0.15::d2(5); 0.25::d2(6).
"""
_SMOKERS = """
person(angelika). person(joris). person(jonas). person(dimitar).
friend(joris, jonas). friend(joris, angelika). friend(joris, dimitar). friend(angelika, jonas).
0.3::stress(X) :- person(X).
0.2::influences(X, Y) :- person(X), person(Y).
smokes(X) :- stress(X).
smokes(X) :- friend(X, Y), influences(Y, X), smokes(Y).
0.4::asthma(X) :- smokes(X).
"""
_GRAPH = """
0.6::edge(1, 2). 0.1::edge(1, 3). 0.4::edge(2, 5). 0.3::edge(2, 6). 0.3::edge(3, 4).
0.8::edge(4, 5). 0.2::edge(5, 6). 0.5::edge(6, 2).
"""
_PATH = """
path(X, Y) :- edge(X, Y).
path(X, Y) :- edge(X, Z), Y \\== Z, path(Z, Y).
"""
_UNDIRECTED = """
link(X, Y) :- edge(X, Y).
link(X, Y) :- edge(Y, X).
reach(X, Y) :- link(X, Y).
reach(X, Y) :- reach(X, Z), link(Z, Y).
"""
_BIAS = """
0.3::bias(C, 0.2); 0.4::bias(C, 0.5); 0.3::bias(C, 0.9) :- coin(C).
coin(c).
P::toss(C, N) :- toss_of(C, N), bias(C, P).
toss_of(c, N) :- between(1, 60, N).
query(bias(c, P)). query(toss(c, 60)).
"""
_WEATHER = """
0.5::weather(sun, 0); 0.5::weather(rain, 0) :- true.
0.6::weather(sun, T); 0.4::weather(rain, T) :- T > 0, T1 is T - 1, weather(sun, T1).
0.2::weather(sun, T); 0.8::weather(rain, T) :- T > 0, T1 is T - 1, weather(rain, T1).
0.9::umbrella(T) :- weather(rain, T).
0.2::umbrella(T) :- weather(sun, T).
"""
_BLOOD = """
person(a). person(b).
mother(m, a). father(f, a). mother(m, b). father(f, b).
1/3::mchrom(X, a); 1/3::mchrom(X, b); 1/3::mchrom(X, null) :- founder(X).
1/3::pchrom(X, a); 1/3::pchrom(X, b); 1/3::pchrom(X, null) :- founder(X).
founder(m). founder(f).
0.5::from(X, m); 0.5::from(X, p) :- child(X).
0.5::pfrom(X, m); 0.5::pfrom(X, p) :- child(X).
child(a). child(b).
mchrom(X, C) :- from(X, m), mother(M, X), mchrom(M, C).
mchrom(X, C) :- from(X, p), mother(M, X), pchrom(M, C).
pchrom(X, C) :- pfrom(X, m), father(F, X), mchrom(F, C).
pchrom(X, C) :- pfrom(X, p), father(F, X), pchrom(F, C).
0.90::type(X, a); 0.03::type(X, b); 0.03::type(X, o); 0.04::type(X, ab) :-
    pair(X, a).
0.03::type(X, a); 0.90::type(X, b); 0.03::type(X, o); 0.04::type(X, ab) :- pair(X, b).
0.97::type(X, o); 0.03::type(X, ab) :- pair(X, o).
0.97::type(X, ab); 0.03::type(X, o) :- pair(X, ab).
pair(X, a) :- mchrom(X, a), pchrom(X, a).
pair(X, a) :- mchrom(X, a), pchrom(X, null).
pair(X, a) :- mchrom(X, null), pchrom(X, a).
pair(X, b) :- mchrom(X, b), pchrom(X, b).
pair(X, b) :- mchrom(X, b), pchrom(X, null).
pair(X, b) :- mchrom(X, null), pchrom(X, b).
pair(X, o) :- mchrom(X, null), pchrom(X, null).
pair(X, ab) :- mchrom(X, a), pchrom(X, b).
pair(X, ab) :- mchrom(X, b), pchrom(X, a).
"""

_TUTORIALS = {
    # Tossing coins
    "two coins": _COINS + "two_heads :- heads1, heads2.\nquery(heads1). query(two_heads).",
    "some heads": _COINS + "some :- heads1.\nsome :- heads2.\nquery(some).",
    "two heads given some": _COINS
    + "some :- heads1. some :- heads2. two :- heads1, heads2.\nevidence(some). query(two).",
    "first-order coins": _MANY_COINS + "some :- lands_heads(_).\nquery(some).",
    "all coins": _MANY_COINS
    + "all :- \\+ tails.\ntails :- coin(C), \\+ lands_heads(C).\nquery(all).",
    "at least two heads": _MANY_COINS
    + "two :- lands_heads(X), lands_heads(Y), X \\== Y.\nquery(two). query(lands_heads(C)).",
    "how many heads": _MANY_COINS
    + "heads(N) :- findall(C, lands_heads(C), L), length(L, N).\nquery(heads(N)).",
    "coins and urns": (
        "0.4::heads.\n0.3::col(1, red); 0.7::col(1, blue).\n"
        "0.2::col(2, red); 0.3::col(2, green); 0.5::col(2, blue).\n"
        "win :- heads, col(_, red).\nwin :- col(1, C), col(2, C).\n"
        "query(win). query(col(2, green)).\n"
    ),
    "coins and urns, observed": (
        "0.4::heads.\n0.3::col(1, red); 0.7::col(1, blue).\n"
        "0.2::col(2, red); 0.3::col(2, green); 0.5::col(2, blue).\n"
        "win :- heads, col(_, red).\nwin :- col(1, C), col(2, C).\n"
        "evidence(col(2, green)). query(win). query(heads).\n"
    ),
    # Noisy-or
    "noisy-or": (
        "0.6::fever :- flu.\n0.3::fever :- cold.\n0.1::fever.\n0.2::flu. 0.5::cold.\n"
        "query(fever). query(flu). evidence(fever).\n"
    ),
    "noisy-or over many": (
        "topic(t1). topic(t2). topic(t3).\n0.4::active(T) :- topic(T).\n"
        "P::word(W) :- active(T), p(T, W, P).\n"
        "p(t1, w1, 0.5). p(t2, w1, 0.2). p(t2, w2, 0.7). p(t3, w2, 0.4).\n"
        "query(word(W)). query(active(T)). evidence(word(w2)).\n"
    ),
    "inhibited effects": (
        "0.5::smokes. 0.4::fit :- \\+ smokes. 0.8::fit.\n0.3::\\+ fit :- smokes.\n\\+ fit :- ill.\n"
        "0.1::ill.\nquery(fit). query(smokes). evidence(ill, false).\n"
    ),
    # Dice
    "rolling dice": _DICE + "sum(S) :- d1(A), d2(B), S is A + B.\nquery(sum(S)).",
    "dice given an even sum": _DICE
    + "odd(D) :- 1 is D mod 2.\neven(D) :- 0 is D mod 2.\nboth :- d1(A), d2(B), even(A), even(B).\n"
    "s(S) :- d1(A), d2(B), S is A + B.\neven_sum :- s(S), even(S).\n"
    "evidence(even_sum). query(both). query(d2(6)).",
    "rolling until a number": (
        "1/6::one(T); 1/6::two(T); 1/6::three(T); 1/2::high(T) :- roll(T).\n"
        "roll(0). roll(T) :- T > 0, T < 4, P is T - 1, three(P).\nroll(T) :- T > 0, T < 4, "
        "P is T - 1, high(P).\nwin(T) :- one(T).\nlose(T) :- two(T).\n"
        "won :- between(0, 3, T), win(T).\nlost :- between(0, 3, T), lose(T).\n"
        "query(won). query(lost).\n"
    ),
    # Bayesian networks
    "alarm": _ALARM + _ALARM_RULES + "query(alarm). query(calls(X)). query(burglary).",
    "alarm, one calls": _ALARM
    + _ALARM_RULES
    + "evidence(calls(john)). query(burglary). query(earthquake).",
    "alarm, neither calls": _ALARM
    + _ALARM_RULES
    + "evidence(calls(john), false). evidence(\\+calls(mary)). query(burglary). query(alarm).",
    "alarm, explained away": _ALARM
    + _ALARM_RULES
    + "evidence(alarm, true). evidence(earthquake, true). query(burglary).",
    "alarm, several values": _ALARM_OPTIONS,
    "alarm, several values, sounding": _ALARM_OPTIONS + "evidence(al(true)). evidence(e(mild)).",
    "alarm, several values, silent": _ALARM_OPTIONS + "evidence(al(true), false).",
    "alarm, first order": (
        "person(john). person(mary).\n" + _ALARM + "0.95::alarm :- burglary, earthquake.\n"
        "0.94::alarm :- burglary, \\+earthquake.\n0.29::alarm :- \\+burglary, earthquake.\n"
        "0.001::alarm :- \\+burglary, \\+earthquake.\n"
        "0.8::calls(X) :- alarm, person(X).\n0.1::calls(X) :- \\+alarm, person(X).\n"
        "evidence(calls(john), true). evidence(calls(mary), true).\nquery(burglary).\n"
    ),
    "a network with several values": (
        "0.4::cloud(no); 0.35::cloud(some); 0.25::cloud(full).\n"
        "0.05::rain :- cloud(no).\n0.2::rain :- cloud(some).\n0.8::rain :- cloud(full).\n"
        "0.5::sprinkler :- cloud(no).\n0.1::sprinkler :- \\+cloud(no).\n"
        "wet :- rain.\n0.9::wet :- sprinkler.\nevidence(wet). query(rain). query(cloud(C)).\n"
    ),
    # Monty Hall
    "Monty Hall": (
        "1/3::prize(1); 1/3::prize(2); 1/3::prize(3).\nselect_door(1).\nmember(X, [X|_]).\n"
        "member(X, [_|T]) :- member(X, T).\n"
        "0.5::open_door(A); 0.5::open_door(B) :- member(A, [1,2,3]), member(B, [1,2,3]), A < B,\n"
        "    \\+ prize(A), \\+ prize(B), \\+ select_door(A), \\+ select_door(B).\n"
        "open_door(A) :- member(A, [1,2,3]), \\+ prize(A), \\+ select_door(A),\n"
        "    member(B, [1,2,3]), prize(B), \\+ select_door(B), A \\= B.\n"
        "win_keep :- select_door(A), prize(A).\n"
        "win_switch :- member(A, [1,2,3]), \\+ select_door(A), prize(A), \\+ open_door(A).\n"
        "query(prize(_)). query(select_door(_)). query(open_door(_)). query(win_keep).\n"
        "query(win_switch).\n"
    ),
    # Social networks
    "smokers": _SMOKERS + "query(smokes(_)). query(asthma(_)).",
    "smokers, observed": _SMOKERS
    + "evidence(smokes(angelika), false). evidence(smokes(joris), true).\n"
    "evidence(influences(jonas, joris), false).\nquery(smokes(_)). query(asthma(_)).",
    "smokers in a circle": (
        "0.3::stress(1). 0.3::stress(2). 0.3::stress(3).\n"
        "0.4::inf(1, 2). 0.4::inf(2, 3). 0.4::inf(3, 1). 0.4::inf(2, 1).\n"
        "smokes(X) :- stress(X).\nsmokes(X) :- smokes(Y), inf(Y, X).\n"
        "query(smokes(X)). evidence(smokes(3), false).\n"
    ),
    # Graphs
    "reachability": _GRAPH + _PATH + "query(path(1, 5)). query(path(1, 6)).",
    "reachability from everywhere": _GRAPH + _PATH + "query(path(X, 6)).",
    "reachability, observed": _GRAPH
    + _PATH
    + "evidence(path(1, 6)). evidence(edge(2, 6), false). query(path(1, 5)). query(edge(1, 3)).",
    "undirected reachability": _GRAPH + _UNDIRECTED + "query(reach(1, 4)). query(reach(6, 3)).",
    "unreachable": _GRAPH + _PATH + "cut(X, Y) :- \\+ path(X, Y).\nquery(cut(1, 5)).",
    "paths as lists": (
        "0.6::edge(1, 2). 0.4::edge(2, 3). 0.3::edge(1, 3). 0.5::edge(3, 4).\n"
        "path(X, X, [X]).\npath(X, Y, [X|P]) :- edge(X, Z), path(Z, Y, P).\n"
        "query(path(1, 4, P)).\n"
    ),
    "a network of genes and proteins": (
        "0.8::dir(a, b). 0.7::dir(b, c). 0.4::dir(c, a). 0.9::rev(c, d). 0.5::rev(d, b).\n"
        "conn(X, Y) :- dir(X, Y).\nconn(X, Y) :- rev(Y, X).\n"
        "p(X, Y) :- conn(X, Y).\np(X, Y) :- conn(X, Z), p(Z, Y).\nquery(p(a, d)). query(p(d, X)).\n"
    ),
    # Learning from observations
    "the bias of a coin": _BIAS
    + "".join(f"evidence(toss(c, {n}), {'true' if n % 3 else 'false'}).\n" for n in range(1, 60)),
    "two coins of one kind": (
        "0.2::kind(fair); 0.8::kind(loaded).\np(fair, 0.5). p(loaded, 0.8).\n"
        "P::heads(C, T) :- kind(K), p(K, P), coin(C), t(T).\ncoin(1). coin(2). t(1). t(2).\n"
        "evidence(heads(1, 1)). evidence(heads(1, 2), false). query(kind(K)). query(heads(2, 1)).\n"
    ),
    # Over time
    "weather": _WEATHER + "query(weather(W, 8)).",
    "weather, observed": _WEATHER
    + "evidence(umbrella(1)). evidence(umbrella(2)). evidence(umbrella(3), false).\n"
    "query(weather(rain, 2)). query(weather(sun, 4)).",
    "a game of several rounds": (
        "0.5::state(0, 0); 0.5::state(0, 1).\n"
        "0.6::step(T, 1); 0.4::step(T, 2) :- t(T).\nt(0). t(1). t(2).\n"
        "state(T, S) :- T > 0, P is T - 1, state(P, S0), step(P, D), S is (S0 + D) mod 4.\n"
        "query(state(3, S)).\n"
    ),
    # Genes
    "blood types": _BLOOD + "query(type(a, T)). query(mchrom(a, C)).",
    "blood types, a sibling observed": _BLOOD + "evidence(type(b, o)). query(type(a, T)).",
    "Mendel's peas": (
        "0.5::gene(P, C, a); 0.5::gene(P, C, b) :- parent(P), child(C).\n"
        "parent(m). parent(f). child(1). child(2).\n"
        "white(C) :- child(C), gene(m, C, a), gene(f, C, a).\n"
        "purple(C) :- child(C), \\+ white(C).\n"
        "same :- white(1), white(2).\nsame :- purple(1), purple(2).\n"
        "evidence(purple(1)). query(same). query(white(2)).\n"
    ),
    # Lists, higher order, libraries
    "lists": (
        ":- use_module(library(lists)).\n0.5::in(a). 0.4::in(b). 0.3::in(c).\n"
        "set(S) :- findall(X, in(X), S).\nlast_of(X) :- set(S), last(S, X).\n"
        "other(X) :- set(S), member(X, [a,b,c]), \\+ member(X, S).\n"
        "query(set(S)). query(last_of(X)). query(other(X)).\n"
    ),
    "selecting from a list": (
        ":- use_module(library(lists)).\n"
        "draw(X, R) :- select_uniform(1, [red, green, blue], X, R).\n"
        "two(X, Y) :- draw(X, R), select_uniform(2, R, Y, _).\nquery(two(X, Y)).\n"
    ),
    "selecting by weight": (
        ":- use_module(library(lists)).\n"
        "q(X) :- select_weighted(a, [0.2, 0.3, 0.5], [x, y, z], X, _).\nquery(q(X)).\n"
    ),
    "bags of fruit": (
        ":- use_module(library(apply)).\n0.5::weigh(W, 1); 0.5::weigh(W, 2) :- item(W).\n"
        "item(a). item(b). item(c).\nadd(I, S, T) :- weigh(I, W), T is S + W.\n"
        "total(T) :- foldl(add, [a, b, c], 0, T).\nquery(total(T)).\n"
    ),
    "mapping over a list": (
        ":- use_module(library(apply)).\n0.3::flip(0, 1); 0.7::flip(0, 0). 0.2::flip(1, 0); "
        "0.8::flip(1, 1).\nq(L) :- maplist(flip, [0, 1, 1], L).\nquery(q(L)).\n"
    ),
    "higher order": (
        "0.4::p(1). 0.5::p(2). 0.3::r(2).\nholds(P, X) :- call(P, X).\n"
        "both(P, Q, X) :- holds(P, X), holds(Q, X).\nquery(both(p, r, X)). query(holds(p, X)).\n"
    ),
    "aggregates": (
        ":- use_module(library(aggregate)).\n0.5::sale(a, 3). 0.5::sale(a, 4). 0.4::sale(b, 5).\n"
        "total(S, T) :- aggregate(sum, P, S, sale(S, P), (S, T)).\n"
        "best(S, T) :- aggregate(max, P, S, sale(S, P), (S, T)).\nquery(total(S, T)).\n"
        "query(best(S, T)).\n"
    ),
    "collecting": (
        ":- use_module(library(collect)).\n"
        "0.5::age(ann, 30). 0.5::age(bob, 30). 0.4::age(cid, 40).\n"
        "q(A, L) :- (age(N, A) => A/list(N, L)).\nquery(q(A, L)).\n"
    ),
    "rules in order": (
        ":- use_module(library(cut)).\n0.6::rain.\ngo(1, stay) :- rain.\ngo(2, leave).\n"
        "q(X) :- cut(go(X)).\nquery(q(X)).\n"
    ),
    "strings": (
        ":- use_module(library(string)).\n0.5::first(a); 0.5::first(b).\n"
        "name(N) :- first(F), concat([F, '-', x], N).\nquery(name(N)).\n"
    ),
    "everybody": (
        "0.5::s(1). 0.4::s(2). 0.9::h(1). 0.7::h(2). 0.2::h(3).\n"
        "q :- forall(s(X), h(X)).\nquery(q).\n"
    ),
    "a bounded counter": (
        "0.5::more(N) :- between(0, 4, N).\ncount(0).\n"
        "count(N) :- N > 0, M is N - 1, count(M), more(M).\n"
        "stop(N) :- between(0, 4, N), count(N), \\+ more(N).\nquery(stop(N)).\n"
    ),
    "programs that call programs": (
        "0.3::a. 0.4::b :- a.\nP::c :- subquery(b, P).\nq(P) :- subquery(a, P, [b]).\n"
        "query(c). query(q(P)).\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", _TUTORIALS.values(), ids=_TUTORIALS)
def test_a_tutorial(text: str) -> None:
    check(text)
