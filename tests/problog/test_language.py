"""What ProbLog has in a program, one small case each, against ProbLog itself in the same test."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from problog import get_evaluatable
from problog.extern import problog_export
from problog.program import PrologFile
from torch import Tensor

import byssus
from byssus import ByssusError, ConceptError, ProbabilityError, ProgramError
from byssus_problog import Program
from problog_reference import by_problog, check, check_refused

_B = "0.5::b(1). 0.4::b(2). 0.3::b(3).\n"
_E = "0.5::e(1, 2). 0.5::e(2, 1). 0.4::e(2, 3). 0.7::e(3, 1).\n"
_LISTS = ":- use_module(library(lists)).\n"

_CASES = {
    # Evidence
    "evidence": "0.5::a. 0.4::b. c :- a. c :- b. evidence(c). query(a). query(b).",
    "evidence true and false": (
        "0.5::a. 0.4::b. c :- a. c :- b. evidence(c, true). evidence(b, false). query(a)."
    ),
    "negative evidence": "0.5::a. 0.4::b. c :- a. c :- b. evidence(\\+ c). query(a). query(d). d.",
    "evidence on nothing": "0.5::a. 0.4::b. evidence(a, none). query(a). query(b).",
    "evidence with a variable": (
        "0.5::a(1). 0.4::a(2). 0.3::c. evidence(a(X)). query(c). query(a(1))."
    ),
    "evidence by a rule": (
        "0.5::a(1). 0.4::a(2). 0.9::c :- a(1). evidence(a(X)) :- X = 1. query(c). query(a(2))."
    ),
    "evidence on a certain fact": "a. 0.5::b. evidence(a). query(b).",
    "evidence that something fails": "0.5::b. a :- fail. evidence(\\+ a). query(b).",
    "evidence on an option": "0.2::a; 0.3::b. evidence(\\+ a). query(b).",
    "evidence in a cycle": _E
    + "p(X, Y) :- e(X, Y). p(X, Y) :- p(X, Z), e(Z, Y). evidence(p(1, 1)). query(e(2, 1)).",
    "evidence given twice": "0.5::a. 0.4::b. evidence(a). evidence(a). query(a). query(b).",
    "unlikely evidence": "0.0001::a. 0.001::b. c :- a, b. evidence(c). query(a). 0.5::d. query(d).",
    # Queries
    "a query of no probability": "0.5::b(1). query(b(2)).",
    "a query twice": "0.5::a. query(a). query(a).",
    "a query with variables": _E + "query(e(X, Y)).",
    "a query by a rule": "0.5::a(1). 0.2::a(2). query(a(X)) :- X = 1.",
    "a query by a library": _LISTS + "0.5::a(1). 0.2::a(2). query(a(X)) :- member(X, [1, 2]).",
    "a negated query": "0.5::b. query(\\+ b).",
    "a query with not": "0.5::b. query(not b).",
    "a query of arithmetic": "query(X is 1 + 2).",
    "a query of a predicate of ProbLog's": "query(between(1, 3, X)).",
    "an anonymous variable": "0.5::a(1, 2). 0.4::a(1, 3). q(X) :- a(X, _). query(q(_)).",
    "what holds for all values": "b(X). query(b(X)). 0.5::c. query(c).",
    "a query with structure": "0.5::a(f(1, [x])). query(a(f(X, Y))).",
    # Annotated disjunctions
    "options and nothing": "0.2::a; 0.3::b. query(a). query(b). n :- \\+ a, \\+ b. query(n).",
    "options that fill": "0.5::a; 0.5::b. query(a). query(b). n :- \\+ a, \\+ b. query(n).",
    "options as fractions": "1/3::a; 1/3::b; 1/3::c. query(a). query(b). query(c).",
    "options of one head": "0.3::a; 0.4::a. query(a).",
    "options over a variable": (
        "0.3::a(X); 0.4::b(X) :- c(X). c(1). 0.5::c(2). query(a(X)). query(b(X))."
    ),
    "options with computed probabilities": (
        "P::a(X); Q::b(X) :- c(X, P, Q). c(1, 0.2, 0.3). c(2, 0.1, 0.5). query(a(X)). query(b(X))."
    ),
    "options with their own variables": (
        "1/2::p(X, l); 1/2::p(X, r) :- n(X). n(1). n(2). s :- p(1, D), p(2, D). query(s)."
    ),
    "a body with two proofs": "0.5::c(1). 0.5::c(2). 0.3::a; 0.7::b :- c(_). query(a). query(b).",
    "a body with two proofs, counted apart": (
        "0.5::c(1). 0.5::c(2). 0.3::a(X); 0.7::b(X) :- c(X). q :- a(_). query(q). query(b(2))."
    ),
    "options that depend on options": (
        "0.4::a(1); 0.6::a(2). 0.5::b(1); 0.5::b(2) :- a(1). 0.1::b(1); 0.9::b(2) :- a(2).\n"
        "query(b(X))."
    ),
    # Probabilities
    "a probabilistic rule": "0.5::a. 0.4::b :- a. 0.3::b. query(b).",
    "a probabilistic rule over a variable": _B + "0.5::c(X) :- b(X). query(c(X)).",
    "one choice for all proofs": _B + "0.5::c :- b(X). query(c).",
    "fractions": "1/19::x. query(x). 3/4::y :- x. query(y).",
    "expressions": "(1 - 0.3)::x. 1 - 0.3::y. sqrt(0.25)::z. query(x). query(y). query(z).",
    "zero and one": "0.0::x. 1.0::y. 0::v. 1::w. z :- x. z :- y. query(x). query(y). query(v). "
    "query(w). query(z).",
    "a probability from a fact": "P::a(X) :- w(X, P). w(1, 0.3). w(2, 0.6). query(a(X)).",
    "a probability from arithmetic": "P::a(X) :- b(X), P is X / 10. b(2). b(3). query(a(X)).",
    "a probability from an uncertain fact": (
        "0.5::w(0.2); 0.5::w(0.8). P::a :- w(P). query(a). query(w(X))."
    ),
    "a fact of all values": "0.3::a(X). query(a(1)). b :- a(1), a(2). query(b).",
    "small and large": "1.0e-5::a. 0.99999::b. c :- a, b. query(c).",
    # Negation and cycles
    "negation": _B + "c(X) :- b(X), \\+ b(1). query(c(X)).",
    "negation of a conjunction": "0.5::a. 0.4::b. c :- \\+ (a, b). query(c).",
    "negation of a disjunction": "0.5::a. 0.4::b. c :- \\+ (a ; b). query(c).",
    "double negation": "0.5::a. c :- \\+ (\\+ a). query(c).",
    "not": "0.5::a. c :- not(a). d :- not a. query(c). query(d).",
    "negation with a free variable": _B + "c :- \\+ b(_). query(c).",
    "left recursion": _E + "p(X, Y) :- p(X, Z), e(Z, Y). p(X, Y) :- e(X, Y). query(p(1, X)).",
    "two cycles": "0.5::a. 0.4::b. p :- q. q :- p. p :- a. q :- r. r :- q. r :- b. query(p).",
    "a cycle to itself": "p(X) :- p(X). 0.5::p(1). query(p(X)).",
    "negation above a cycle": _E
    + "p(X, Y) :- e(X, Y). p(X, Y) :- e(X, Z), p(Z, Y). far(X) :- e(X, _), \\+ p(X, 1). "
    "query(far(X)).",
    "negation that is stratified by arguments": (
        "0.5::m(1, 2). 0.5::m(2, 3). 0.4::m(1, 3). win(X) :- m(X, Y), \\+ win(Y). query(win(X))."
    ),
    "a disjunction in a body": "0.5::a. 0.4::b. c :- (a ; b), (\\+ a ; b). query(c).",
    # Terms
    "comparison": (
        "q(1) :- a @< b. q(2) :- f(a) @> b. q(3) :- 1 =:= 1.0. q(4) :- 1 =\\= 2. "
        "q(5) :- \\+ a = b. q(6) :- f(_) \\= g(_). q(7) :- a @=< a. q(8) :- 2 >= 2. "
        "q(X) :- compare(X, 1, 2). query(q(X))."
    ),
    "identity": "q(1) :- X = a, X == a. q(2) :- a \\== b. q(3) :- \\+ 1 == 1.0. query(q(X)).",
    "types": (
        "q(1) :- atom(a). q(2) :- integer(1). q(3) :- number(1.0). q(4) :- float(1.0). "
        "q(5) :- compound(f(x)). q(6) :- var(_). q(7) :- X = 1, nonvar(X). q(8) :- is_list([a]). "
        "q(9) :- atomic(a). q(10) :- ground(f(x)). q(11) :- callable(a). q(12) :- simple(a). "
        "q(13) :- \\+ atom(1). q(14) :- \\+ is_list(a). q(15) :- \\+ float(1). query(q(X))."
    ),
    "terms and their parts": (
        "q(X, Y) :- functor(f(a, b), X, Y). r(X) :- arg(2, f(a, b), X). s(L) :- f(a, b) =.. L. "
        "t(T) :- T =.. [g, 1]. u(F) :- functor(F, h, 1), arg(1, F, x). query(q(X, Y)). "
        "query(r(X)). query(s(X)). query(t(X)). query(u(X))."
    ),
    "texts": (
        "0.5::a('Hello World'). 0.4::a(\"text\"). 0.2::a('é'). "
        "q(X) :- a(X), X \\= 'é'. query(a(X)). query(q(X))."
    ),
    "quoted predicates": "0.5::'Big One'(x). 0.4::'a b'. query('Big One'(X)). query('a b').",
    "operators as terms": "0.5::a(x-1). 0.4::a(y/2). 0.3::a(-3). query(a(X)). query(a(_ - Y)).",
    "lists as terms": (
        "0.5::a([]). 0.4::a([1|[2]]). q(H, T) :- a([H|T]). query(q(X, Y)). query(a(X))."
    ),
    "numbers": "0.5::a(1.0). 0.4::a(1). 0.3::a(1.5e2). 0.2::a(0x1F). query(a(X)).",
    "comments": "% one\n0.5::a. /* two\n lines */ query(a). % three",
    "an atom that is like a number": "0.5::a('1'). 0.4::a(1). query(a(X)).",
    # Goals over goals
    "findall": _B + _LISTS + "q(S) :- findall(X, b(X), L), sum_list(L, S). query(q(S)).",
    "findall of pairs": _B + "q(L) :- findall(X-Y, (b(X), b(Y), X < Y), L). query(q(L)).",
    "findall over a negation": _B
    + "q(N) :- findall(X, (b(X), \\+ b(1)), L), length(L, N). query(q(N)).",
    "findall over a cycle": _E
    + "p(X, Y) :- e(X, Y). p(X, Y) :- e(X, Z), p(Z, Y).\n"
    "q(N) :- findall(Y, p(1, Y), L), length(L, N). query(q(N)).",
    "findall within findall": _B
    + "q(L) :- findall(X-M, (b(X), findall(Y, (b(Y), Y > X), M)), L). query(q(L)).",
    "all": _B + "q(L) :- all(X, b(X), L). query(q(L)).",
    "all or none": _B + "q(L) :- all_or_none(X, b(X), L). query(q(L)).",
    "forall": _B + "0.7::c(1). 0.2::c(2). c(3). q :- forall(b(X), c(X)). query(q).",
    "call": _B + "q(X) :- call(b, X). r(X) :- G = b(X), call(G). s(X) :- G = b(X), G. "
    "query(q(X)). query(r(X)). query(s(X)).",
    "call with more arguments": "0.5::a(1, 2, 3). q(X) :- G = a(1), call(G, 2, X). query(q(X)).",
    "once": _B + "q(X) :- once(b(X)). query(q(X)).",
    "try_call": _B + "q(X) :- try_call(b(X)). r :- try_call(nothing(1)). query(q(X)). query(r).",
    "subquery": "0.3::a. 0.4::b :- a. P::c :- subquery(b, P). query(c).",
    "subquery given evidence": "0.3::a. 0.4::b :- a. q(P) :- subquery(a, P, [\\+ b]). query(q(P)).",
    "between and succ": (
        "0.5::b. q(X) :- between(1, 4, X), b. r(X) :- succ(X, 4). s(X) :- plus(1, X, 3). "
        "query(q(X)). query(r(X)). query(s(X))."
    ),
    "clauses as data": "0.5::a. b(X) :- X = 1. q(B) :- clause(b(_), B). query(q(B)).",
    "numbering variables": "q(X) :- X = f(_, _), numbervars(X, 0, _). query(q(X)). a. query(a).",
    "unknown predicates that fail": ":- unknown(fail). 0.5::a :- foo. a. query(a). query(foo).",
    "no table": ":- nocache(b, 1). 0.5::c. b(X) :- c, X = 1. query(b(X)).",
    "printing": "0.5::b. q :- write(hello), nl, writenl(a, b), b. query(q).",
    "a directive that fails": ":- fail. 0.5::a. query(a).",
    "sorting": "0.5::b. q(X) :- sort([c, a, b, a], X), b. query(q(X)).",
    "length": (
        "0.5::b. q(X) :- length([a, b], X), b. r(X) :- length(X, 2). query(q(X)). s. query(s)."
    ),
    # Libraries
    "lists": _LISTS
    + "0.5::b. q(a, X) :- reverse([1, 2, 3], X), b. q(b, X) :- nth0(1, [a, b], X). "
    "q(c, X) :- last([1, 2], X). q(d, X) :- max_list([1, 5, 2], X). q(e, X) :- nth1(1, [a, b], X). "
    "q(f, X) :- select(2, [1, 2, 3], X). q(g, X) :- subtract([1, 2], [2], X). "
    "q(h, X) :- numlist(1, 4, X). q(i, X) :- permutation([1, 2], X). "
    "q(j, X) :- union([1], [2], X). "
    "q(k, X) :- list_to_set([1, 2, 1], X). q(l, X) :- memberchk(X, [a, b]). "
    "q(m, X) :- flatten([1, [2, [3]]], X). q(n, X) :- intersection([1, 2], [2, 3], X). "
    "query(q(N, X)).",
    "append": _LISTS + "0.5::b. q(X, Y) :- append(X, Y, [1, 2]), b. query(q(X, Y)).",
    "uncertain lists": _LISTS + _B + "q(L) :- findall(X, b(X), M), reverse(M, L). query(q(L)).",
    "a weighted choice": _LISTS
    + "q(X) :- select_weighted(i, [0.2, 0.8], [a, b], X, _). query(q(X)).",
    "a uniform choice": _LISTS + "q(X) :- select_uniform(i, [a, b, c], X, _). query(q(X)).",
    "groups": _LISTS + "q(G, V) :- enum_groups([a, b, a], [1, 2, 3], G, V). query(q(G, V)).",
    "apply": (
        ":- use_module(library(apply)). 0.5::f(1). 0.5::f(2). f(3). inc(X, Y) :- Y is X + 1.\n"
        "q(1, S) :- include(f, [1, 2, 3], S). q(2, S) :- exclude(f, [1, 2, 3], S).\n"
        "q(3, S) :- maplist(inc, [1, 2], S). q(4, S) :- foldl(plus, [1, 2], 0, S).\n"
        "q(5, A-B) :- partition(f, [1, 2], A, B). query(q(N, S))."
    ),
    "aggregate": (
        ":- use_module(library(aggregate)). 0.5::w(a, 1). 0.5::w(a, 2). 0.5::w(b, 1).\n"
        "q(G, S) :- aggregate(sum, X, G, w(G, X), (G, S)).\n"
        "r(G, S) :- aggregate(avg, X, G, w(G, X), (G, S)). query(q(G, S)). query(r(G, S))."
    ),
    "collect": (
        ":- use_module(library(collect)). 0.5::w(a, 1). 0.5::w(a, 2).\n"
        "q(L) :- (w(_, X) => list(X, L)). query(q(L))."
    ),
    "string": (
        ":- use_module(library(string)). 0.5::b. q(X) :- concat([a, b, 1], X), b. "
        "r(X) :- join('-', [a, b], X). s(X) :- str2lst(abc, X). "
        "query(q(X)). query(r(X)). query(s(X))."
    ),
    "assert": (
        ":- use_module(library(assert)). c(0). :- assertz(c(1)), assertz(c(2)), retract(c(0)). "
        "0.5::b. q(X) :- c(X), b. query(q(X))."
    ),
    "assert within rules": (
        ":- use_module(library(assert)). 0.5::b. c(0). q(X) :- assertz(c(7)), c(X), b. query(q(X))."
    ),
    "record": (
        ":- use_module(library(record)). 0.5::b. q(X) :- recorda(k, 1), current_key(X), b. "
        "query(q(X))."
    ),
    "scope": ":- use_module(library(scope)). 0.5::b. s(1):a. q :- s(1):a, b. query(q).",
    "record and recorded": (
        ":- use_module(library(record)). :- recordz(k, f(1)), recordz(k, f(2)). 0.5::b. "
        "q(X) :- recorded(k, f(X)), b. query(q(X))."
    ),
    "control": (
        ":- use_module(library(control)). 0.5::b. r(1, x) :- b. r(2, y). "
        "q(X) :- cut(r(X), [1, 2]). q(z) :- on_fail(b, fail). query(q(X))."
    ),
    "cut": (
        ":- use_module(library(cut)). 0.5::b. r(1, x) :- b. r(2, y). q(X) :- cut(r(X)). "
        "query(q(X))."
    ),
    "some of a library": (
        ":- use_module(library(lists), [member/2]). q(X) :- member(X, [a]). query(q(X))."
    ),
    "a library's predicates by another name": (
        ":- use_module(library(lists), [member/2 as among]). q(X) :- among(X, [a]). query(q(X))."
    ),
    "unused clauses": "0.5::a. b :- nothing. 0.5::c(X) :- d(X). query(a).",
}  # fmt: skip


@pytest.mark.parametrize("text", _CASES.values(), ids=_CASES)
def test_a_feature(text: str) -> None:
    check(text)


_FUNCTIONS = (
    "3 - 5", "2 * 3", "7 / 2", "7 // 2", "-7 // 2", "7 mod 3", "-7 mod 3", "7 rem 3", "-7 rem 3",
    "2 ** 3", "2 ** (-1)", "2 ^ 3", "5 /\\ 3", "5 \\/ 3", "5 xor 3", "\\ 5", "1 << 3", "8 >> 2",
    "7 div 2", "abs(-3)", "sign(-2)", "sign(0.5)", "min(2, 3)", "max(2, 3)", "sqrt(4)", "exp(0)",
    "log(1)", "sin(0)", "cos(0)", "tan(0)", "asin(0)", "acos(1)", "atan(0)", "atan(1, 2)",
    "atan2(1, 2)", "sinh(0)", "cosh(0)", "tanh(0)", "asinh(0)", "acosh(1)", "atanh(0)", "pi", "e",
    "inf", "epsilon", "floor(2.5)", "ceiling(2.5)", "round(2.5)", "round(3.5)", "truncate(-2.5)",
    "integer(2.5)", "float(2)", "float_integer_part(2.5)", "float_fractional_part(2.5)",
    "lgamma(3)", "gamma(3)", "erf(0)", "erfc(0)", "-3", "+3", "1.5e3", "0x10", "1 / 3",
    "(1 + 2) * 3",
)  # fmt: skip


def test_arithmetic() -> None:
    """Every function that ProbLog knows."""
    facts = "".join(f"0.5::q({i}, X) :- X is {f}.\n" for i, f in enumerate(_FUNCTIONS))
    assert len(check(facts + "query(q(N, X)).")) == len(_FUNCTIONS)


@pytest.mark.parametrize(
    ("text", "spot", "message"),
    [
        ("0.5::a. p :- a, \\+ q. q :- a, \\+ p. query(p).", "\\+ p. query", "on its own negation"),
        ("0.5::b. a :- b. query(c).", "c).", "No clauses found for 'c/0'"),
        ("0.5::b. foo::a :- b. query(a).", "foo::a", "foo::a: the probability is not a"),
        ("?::b. a :- b. query(a).", "?::b", "the probability is not a number"),
        ("normal(0, 1)::a. query(a).", "normal", "the probability is not a number"),
        ("0.5::c. b(X) :- c. query(b(X)).", "b(X)).", "must get a value in its body"),
        ("0.5::a(1). evidence(b). query(a(X)).", "b). query", "'b/0'"),
        ("a(X) :- X is log(2, 8). query(a(X)).", "is log", "Unknown function 'log'/2: compute"),
        ("a(X) :- X is Y. query(a(X)).", "is Y", "put the goals that bind it before this one"),
        ("a(X) :- X is 1 = 1. query(a(X)).", "= 1", "put the inner term in brackets"),
        ("0.5::a. b :- error('no ', a). query(b).", "error(", "no a"),
        # What ProbLog does not have, and SWI-Prolog does
        ("0.5::a. b :- (a -> c ; d). c. d. query(b).", "-> c", "ProbLog has no if-then-else"),
        ("0.5::a. b :- a *-> c ; d. c. d. query(b).", "*-> c", "ProbLog has no if-then-else"),
        ("0.5::a. b :- a, !. query(b).", "!. query", "ProbLog has no cut"),
        ("a --> b. query(a).", "a).", "ProbLog has no grammar rules"),
        (":- use_module(library(clpfd)). a. query(a).", "use_module", "there is no library.clpfd"),
        (":- use_module('nope.pl'). a. query(a).", "use_module", "there is no file ./nope.pl"),
        (":- consult(nope). a. query(a).", "consult", "there is no file ./nope: a path is"),
        ("0.5::a. b :- assertz(c). query(b).", "assertz", r"add .*\(library\(assert\)\)"),
        ("b(X) :- member(X, [1]). query(b(X)).", "member", r"add .*\(library\(lists\)\)"),
        ("b(X) :- maplist(b, [], X). query(b(X)).", "maplist", r"\(library\(apply\)\).`"),
        ("b :- format('~w', [x]). query(b).", "format", "take write/1"),
        ("a(1). b(L) :- setof(X, a(X), L). query(b(L)).", "setof", "take findall/3, or all/3"),
        ("b(L) :- atom_concat(a, b, L). query(b(L)).", "atom_concat", "take concat/2 of library"),
        ("b(L) :- atom_codes(abc, L). query(b(L)).", "atom_codes", "it is SWI-Prolog's; write"),
        ("b :- nb_setval(x, 1). query(b).", "nb_setval", "it is SWI-Prolog's"),
        (":- dynamic foo/1. a. query(a).", "foo/1", "take the directive away"),
        (":- table p/2. a. query(a).", "p/2", "take the directive away"),
        (":- dynamic(foo/1). a. query(a).", "dynamic", "take the directive away"),
        (":- initialization(main). main. a. query(a).", "initial", "the goal itself as a"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, spot: str, message: str) -> None:
    error = check_refused(text, match=message)
    assert isinstance(error, ProgramError)
    assert error.line == 1
    assert error.column is not None
    assert text[error.column - 1 :].startswith(spot)


@pytest.mark.slow  # ProbLog finds it by recursing as deep as it can
def test_an_aggregate_over_itself() -> None:
    text = "0.5::a. q(L) :- findall(X, q(X), L). query(q(L))."
    check_refused(text, match="an aggregate is over what depends on it")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b :- X = f(X). query(b).", "a variable stands for a term that it is part of"),
        ("a; b. query(a).", "give each option of a disjunction its probability"),
        ("0.3::a; b. query(a).", "give each option of a disjunction its probability"),
        ("0.5::a. query((a, a)).", "No clauses found for ',/2'"),
        ("0.5::a. :- module(m, [a/0]). query(a).", "'module' directive should appear at top"),
        ("0.7::a; 0.6::b. query(a). query(b).", "sum to 1 at most, not 1.3"),
        ("2::a. query(a).", "lies between 0 and 1, not 2"),
        ("0.5::a. query(a). b(1). b(X) :- b(Y), X is Y / 0. :- b(_).", "Division by zero"),
    ],
)
def test_what_is_refused_somewhere(text: str, message: str) -> None:
    check_refused(text, match=message)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("0.5::a.\nevidence(a).\nevidence(\\+ a).\nquery(a).", 3, r"the evidence \\\+a has prob"),
        ("0.5::a. b :- a, fail.\nevidence(b).\nquery(a).", 2, "the evidence b has probability 0"),
        ("0.5::b.\na :- fail.\nevidence(a).\nquery(b).", 3, "the evidence a has probability 0"),
        ("a. 0.5::b.\nevidence(b).\nevidence(\\+ a).\nquery(b).", 3, r"the evidence \\\+a has"),
        ("0.5::a; 0.5::b.\nevidence(a, true).\nevidence(b, true).\nquery(b).", 3, "the evidence b"),
    ],
)
def test_contradicting_evidence(text: str, line: int, message: str) -> None:
    error = check_refused(text, match=message)
    assert isinstance(error, ProgramError)
    assert error.line == line


def test_evidence_of_probability_zero() -> None:
    check_refused("0.0::a. evidence(a). query(a).", match="evidence has probability 0 in example 0")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_much_evidence_does_not_underflow(dtype: torch.dtype) -> None:
    evidence = "".join(f"evidence(h({i})).\n" for i in range(40))
    rules = "P::h(_) :- p(P). p(1.1e-9) :- c. p(1.0e-9) :- \\+ c.\nquery(c).\n"
    program = Program("nn(c, []) :: c.\n" + rules + evidence, provenance="exact")
    c = torch.tensor([0.5, 0.01, 1.0], dtype=dtype, requires_grad=True)
    y = program(c=c)["c"]
    odds = 1.1**40
    p = c.detach().double()
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    expected = p * odds / (1 - p + p * odds)
    torch.testing.assert_close(y.double(), expected, atol=tolerance, rtol=0)
    (gradient,) = torch.autograd.grad(y[:2].sum(), c)
    wanted = odds / (1 - p + p * odds).square()
    torch.testing.assert_close(gradient[:2].double(), wanted[:2], rtol=100 * tolerance, atol=0)


def test_deliberate_differences() -> None:
    """What ProbLog accepts and we do not: what asks for nothing, and what is no probability."""
    assert by_problog("0.5::b(1) :- fail. query(b(X)).") == {}
    with pytest.raises(ProgramError, match="no query has an answer in any world"):
        Program("0.5::b(1) :- fail. query(b(X)).")
    assert by_problog("0.5::a.") == {}
    with pytest.raises(ProgramError, match="the program asks for nothing"):
        Program("0.5::a.")
    assert by_problog("0.6::a; 0.7::b. query(a).") == {"a": 0.6}
    with pytest.raises(ProgramError, match=r"sum to 1 at most, not 1\.3"):
        Program("0.6::a; 0.7::b. query(a).")


# Evidence and sampled worlds

_OBSERVED = """
nn(d, [X], Y, [0, 1, 2]) :: d(X, Y).
0.3::a(1). 0.6::a(2). 0.2::w.
w :- a(1).
w :- a(2), d(x, 1).
s(Z) :- d(x, A), d(y, B), Z is A + B.
evidence(w). evidence(\\+ s(0)).
"""


def _digits(batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(batch, 2, 3, dtype=torch.float64, generator=generator).softmax(-1)
    return p.requires_grad_()


def _gradient(probs: Tensor, p: Tensor) -> Tensor:
    weights = torch.arange(1, probs.shape[1] + 1, dtype=probs.dtype)
    (result,) = torch.autograd.grad((probs * weights).sum(), p, retain_graph=True)
    return result


@pytest.mark.parametrize("estimator", ["auto", "distinct", "ised", "rloo", "indecater"])
@pytest.mark.parametrize("provenance", ["sampled", "mixed"])
@pytest.mark.parametrize("queries", ["query(a(1)). query(s(Z)).", "query(s(Z))."])
def test_evidence_over_all_worlds_is_exact(provenance: str, estimator: str, queries: str) -> None:
    p = _digits()
    exact = Program(_OBSERVED + queries, provenance="exact")(d=p)
    program = Program(
        _OBSERVED + queries,
        provenance=provenance,
        worlds=byssus.exhaustive,
        samples=10**6,
        estimator=estimator,
    )
    for compiled in (True, False):
        if not compiled:
            program.circuit = None
        y = program(d=p)
        torch.testing.assert_close(y.probs, exact.probs)
        torch.testing.assert_close(_gradient(y.probs, p), _gradient(exact.probs, p))
        torch.testing.assert_close(y.scores, exact.probs)
        torch.testing.assert_close(y.coverage, torch.ones(3, dtype=torch.float64))


def test_gradients_given_evidence() -> None:
    program = Program(_OBSERVED + "query(a(1)). query(s(Z)).", provenance="exact")
    p = _digits(2).detach().log().requires_grad_()
    torch.autograd.gradcheck(lambda p: program(d=p.softmax(-1)).probs, [p], atol=1e-6)


def test_evidence_where_rules_do_not_compile() -> None:
    rng = random.Random(0)
    clauses = [
        " ; ".join(rng.choice(["", "\\+ "]) + f"x({v})" for v in rng.sample(range(40), 3))
        for _ in range(60)
    ]
    hard = "hard :- " + ", ".join(f"({clause})" for clause in clauses) + ".\n"
    text = (
        "nn(x, [I]) :: x(I). 0.3::a. 0.6::b.\neasy :- a. easy :- b.\n"
        + hard
        + "query(easy). query(a). query(hard). evidence(easy).\n"
    )
    with pytest.warns(RuntimeWarning, match="sampled: .*hard"):
        program = Program(text, nodes=2_000, samples=2000)
    assert program.provenance == "sampled"  # what is asked, given what rests on all the rest
    y = program(x=torch.full((2, len(program.instances["x"])), 0.5))
    assert y["easy"].tolist() == pytest.approx([1.0, 1.0])
    assert y.scores[:, y.values.index("a")].tolist() == pytest.approx([0.3 / 0.72] * 2, abs=0.05)


@pytest.mark.parametrize("estimator", ["rloo", "indecater", "distinct"])
@pytest.mark.parametrize("provenance", ["sampled", "mixed"])
def test_evidence_in_sampled_worlds(provenance: str, estimator: str) -> None:
    """A ratio of estimates: its mean over many draws is off by less than 1/samples."""
    p = _digits(1)
    queries = "query(a(1)). query(s(2))."
    exact = Program(_OBSERVED + queries, provenance="exact")(d=p)
    program = Program(
        _OBSERVED + queries,
        provenance=provenance,
        samples=2000,
        estimator=estimator,
        generator=torch.Generator().manual_seed(0),
    )
    draws = [program(d=p) for _ in range(10)]
    for y in draws:
        assert (y.bound <= exact.probs + 1e-9).all()
        assert y.bias.startswith("a ratio, consistent, not unbiased, of estimates: ")
    scores = torch.stack([y.scores.detach() for y in draws])
    error = scores.mean(0) - exact.probs
    assert (error.abs() <= 4 * scores.std(0) / 10**0.5 + 1e-3).all()
    if estimator == "distinct":
        return  # its gradient is biased by the worlds that were not seen
    gradients = torch.stack([_gradient(y.scores, p) for y in draws])
    error = gradients.mean(0) - _gradient(exact.probs, p)
    assert (error.abs() <= 5 * gradients.std(0) / 10**0.5 + 1e-2).all()


def test_evidence_that_no_sampled_world_satisfies() -> None:
    program = Program("1.0e-9::a. 0.5::b. evidence(a). query(b).", provenance="sampled")
    with pytest.raises(ProbabilityError, match="none of the 100 worlds sampled for example 0 sat"):
        program()


def test_what_is_lost_is_conditioned_in_sampled_worlds() -> None:
    box = byssus.blackbox(
        byssus.Integer(0, 2), output=byssus.Integer(0, 2), on_error="discard", name="box"
    )(lambda x: 1 // x)
    text = (
        "0.5::a(0); 0.3::a(1); 0.2::a(2).\nq(Y) :- a(X), box(X, Y).\n"
        "w :- a(0). w :- a(1).\nevidence(w).\nquery(q(Y)).\n"
    )
    for provenance in ("sampled", "mixed"):
        result = Program(text, [box], provenance=provenance, worlds=byssus.exhaustive)()
        assert result.lost.item() == pytest.approx(5 / 8)
        assert result[1].item() == pytest.approx(3 / 8)
    result = Program(text, [box], provenance="sampled", samples=5000)()
    assert result.lost.item() == pytest.approx(5 / 8, abs=1e-6)


@pytest.mark.parametrize(
    ("queries", "estimator"),
    [
        ("query(s(Z)).", "Auto"),  # alternatives
        ("query(s(2)).", "Marginals"),  # a Boolean
        ("query(d(x, 1)). query(d(y, 1)).", "Marginals"),
        ("query(s(2)). query(s(3)).", "Auto"),
        ("big(Z) :- s(Y), between(0, 4, Z), Z < Y.\nquery(big(Z)).", "Marginals"),
    ],
)
@pytest.mark.parametrize("provenance", ["sampled", "mixed"])
def test_outputs_that_do_not_exclude_one_another(
    provenance: str, queries: str, estimator: str
) -> None:
    rules = _OBSERVED[: _OBSERVED.index("evidence")]
    program = Program(rules + queries, provenance=provenance, samples=1000)
    p = _digits()
    y = program(d=p)
    assert type(y._estimator).__name__ == estimator
    exact = Program(rules + queries, provenance="exact")(d=p)
    assert y.bias.startswith("as distinct where samples cover enough")
    torch.testing.assert_close(y.probs, exact.probs, atol=0.1, rtol=0)
    if estimator == "Marginals":
        torch.testing.assert_close(y.scores, exact.probs, atol=0.1, rtol=0)


# Files and Python modules


def test_consult(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "facts.pl").write_text("0.5::a(1). 0.4::a(2).\n:- consult('parts/more.pl').\n")
    (tmp_path / "parts" / "more.pl").write_text("0.3::a(3).\n")
    file = tmp_path / "main.pl"
    file.write_text(":- consult('facts.pl').\n:- consult(facts).\nb :- a(X), X > 1.\nquery(b).\n")
    check(file)


def test_a_fault_in_a_file_that_is_consulted(tmp_path: Path) -> None:
    (tmp_path / "facts.pl").write_text("0.5::a.\n\nb :- a\nc.\n")
    (tmp_path / "more.pl").write_text(":- consult('facts.pl').\n")
    file = tmp_path / "main.pl"
    file.write_text(":- consult('more.pl').\nquery(a).\n")
    with pytest.raises(ProgramError, match="a full stop is missing at the end of the") as caught:
        Program(file)
    assert caught.value.file is not None
    assert Path(caught.value.file).name == "facts.pl"
    assert (caught.value.line, caught.value.column) == (4, 1)
    (tmp_path / "facts.pl").write_text("0.5::a.\nb :- c(1).\n")
    file.write_text(":- consult('more.pl').\nquery(b).\n")
    with pytest.raises(ProgramError, match="No clauses found for 'c/1'") as caught:
        Program(file)
    assert Path(str(caught.value.file)).name == "facts.pl"
    assert str(caught.value).endswith("    b :- c(1).\n         ^")


def test_a_module_of_clauses(tmp_path: Path) -> None:
    (tmp_path / "m.pl").write_text(":- module(m, [f/1]).\nf(X) :- g(X).\n0.5::g(1). 0.4::g(2).\n")
    file = tmp_path / "main.pl"
    file.write_text(":- use_module('m.pl').\n0.9::g(7).\nq(X) :- f(X), \\+ g(7).\nquery(q(X)).\n")
    check(file)


_PYTHON = """
from problog.extern import problog_export, problog_export_nondet, problog_export_raw
import problog.extern
from problog.logic import Constant

assert problog.extern.problog_export is problog_export
OFFSET = {offset}

@problog_export("+int", "-int")
def shifted(x):
    return x + OFFSET

@problog_export_nondet("+int", "-int")
def below(x):
    return list(range(x))

@problog_export("+int", "-int")
def broken(x):
    return x // 0

@problog_export("+term")
def remember(term):
    problog_export.database += term
    return ()
"""
_USES = """
:- use_module('{name}.py').
0.5::b(1). 0.4::b(2).
q(Y) :- b(X), shifted(X, Y).
r(Y) :- b(X), below(X, Y).
:- remember(seen({offset})).
query(q(Y)). query(r(Y)). query(seen(X)).
"""


def _modules(folder: Path, *offsets: int) -> list[Path]:
    files = []
    for offset in offsets:
        (folder / f"m{offset}").mkdir()
        (folder / f"m{offset}" / "shift.py").write_text(_PYTHON.format(offset=offset))
        file = folder / f"m{offset}" / "main.pl"
        file.write_text(_USES.format(name="shift", offset=offset))
        files.append(file)
    return files


def test_a_python_module(tmp_path: Path) -> None:
    (file,) = _modules(tmp_path, 10)
    found = check(file)
    assert found["q(11)"] == pytest.approx(0.5)
    assert found["seen(10)"] == pytest.approx(1.0)


def test_a_python_module_that_fails(tmp_path: Path) -> None:
    (file,) = _modules(tmp_path, 10)
    file.write_text(":- use_module('shift.py').\nq(Y) :-\n  broken(1, Y).\nquery(q(Y)).\n")
    with pytest.raises(ProgramError, match="broken/2 raised ZeroDivisionError") as caught:
        Program(file)
    assert (caught.value.line, caught.value.column) == (3, 3)
    (file.parent / "shift.py").write_text("import nothing_of_the_sort\n")
    with pytest.raises(ProgramError, match=r"shift.py raised ModuleNotFoundError when") as caught:
        Program(file)
    assert caught.value.line == 1


def test_a_table_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("Name,Age\nann,30\nbob,40\n")
    file = tmp_path / "main.pl"
    file.write_text(
        ":- use_module(library(db)).\n:- csv_load('people.csv', person).\n"
        "0.5::p(X) :- person(X, A), A > 35.\nquery(p(X)).\n"
    )
    assert list(check(file)) == ["p('bob')"]


def test_a_semiring_in_a_program() -> None:
    text = (
        ":- use_module(library(aproblog)).\n"
        ":- use_semiring(plus, times, zero, one, neg, false, false).\n0.5::a.\nquery(a).\n"
    )
    with pytest.raises(ProgramError, match="the program has a semiring of its own"):
        Program(text)


def test_programs_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Nor ProbLog's own that run beside them."""
    first, second = _modules(tmp_path, 10, 20)
    expected = [by_problog(first), by_problog(second)]
    before = problog_export.database
    a, b = Program(first), Program(second)
    assert problog_export.database is before
    for program, answers in ((a, expected[0]), (b, expected[1])):
        other = copy.deepcopy(program)  # grounded again, after the others
        other._grounder.ground(other._known)
        found = dict(zip(other.queries, other().probs[0].tolist(), strict=True))
        assert found == {q: pytest.approx(p) for q, p in answers.items()}


def test_programs_in_threads(tmp_path: Path) -> None:
    files = _modules(tmp_path, *range(10, 16))
    found: dict[int, object] = {}
    barrier = threading.Barrier(len(files))

    def run(i: int, evaluate: Callable[[Path], object]) -> None:
        barrier.wait()
        try:
            for _ in range(3):
                found[i] = evaluate(files[i])
        except BaseException as error:
            found[i] = error

    # Without `by_problog` and `by_byssus`, which silence the whole process.
    def ours(file: Path) -> object:
        program = Program(file, provenance="exact")
        return dict(zip(program.queries, program().probs[0].tolist(), strict=True))

    def theirs(file: Path) -> object:
        found = get_evaluatable().create_from(PrologFile(str(file))).evaluate()
        return {str(query): p for query, p in found.items()}

    # one of ProbLog's own among them: two would disturb each other
    threads = [
        threading.Thread(target=run, args=(i, ours if i else theirs)) for i in range(len(files))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, file in enumerate(files):
        assert found[i] == {q: pytest.approx(p) for q, p in by_problog(file).items()}


def test_asserted_clauses_are_forgotten_when_grounding_again() -> None:
    add = byssus.blackbox(byssus.Integer(0, 9), output=byssus.Integer(0, 9), name="add")(
        lambda x: x + 1
    )
    text = (
        ":- use_module(library(assert)).\n0.5::b(1). 0.4::b(2).\n"
        "c(0).\nq(N, Y) :- assertz(c(7)), b(X), add(X, Y), findall(C, c(C), L), length(L, N).\n"
        "query(q(N, Y)).\n"
    )
    program = Program(text, [add], provenance="exact")
    assert set(program.queries) == {"q(2,2)", "q(2,3)"}


def test_errors_are_byssus_errors() -> None:
    with pytest.raises(ConceptError, match="no network 'd'"):
        Program("0.5::a. query(a).")(d=torch.rand(1, 2))
    with pytest.raises(ByssusError):
        Program("0.5::a. query(a) query(b).")
