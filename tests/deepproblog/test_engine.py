"""Our engine against DeepProbLog's own: answers, losses and gradients."""

from __future__ import annotations

import pytest
import torch
from deepproblog_oracle import Classifier, image, images, pair, query, same_answers, same_step
from problog.logic import Constant, Term, Var, list2term

DIGIT = "nn(net, [X], Y, [0,1,2,3,4,5,6,7,8,9]) :: digit(X, Y).\n"
SMALL = "nn(net, [X], Y, [0,1,2]) :: digit(X, Y).\n"
ADDITION = "addition(X, Y, Z) :- digit(X, X2), digit(Y, Y2), Z is X2 + Y2.\n"
NUMBER = """
number([], R, R).
number([H|T], Acc, R) :- digit(H, N), Acc2 is N + 3 * Acc, number(T, Acc2, R).
number(X, Y) :- number(X, 0, Y).
multi_addition(X, Y, Z) :- number(X, X2), number(Y, Y2), Z is X2 + Y2.
"""
CARRY = """
result(X, Y, C, Carry, R) :- digit(X, D1), digit(Y, D2), S is D1 + D2 + C, Carry is S // 10,
    R is S mod 10.
add([], [], C, C, []).
add([X|Xs], [Y|Ys], Cin, Cout, [R|Rs]) :- add(Xs, Ys, Cin, C, Rs), result(X, Y, C, Cout, R).
multi_addition(Xs, Ys, [C|Rs]) :- add(Xs, Ys, 0, C, Rs).
"""
NOISY = """
t(0.1) :: noisy.
0.2::uniform(X,Y,0); 0.2::uniform(X,Y,1); 0.2::uniform(X,Y,2); 0.2::uniform(X,Y,3);
0.2::uniform(X,Y,4).
addition_noisy(X, Y, Z) :- noisy, uniform(X, Y, Z).
addition_noisy(X, Y, Z) :- \\+ noisy, digit(X, N1), digit(Y, N2), Z is N1 + N2.
"""

# DeepProbLog's own, of its own circuits.
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_addition(cache: bool, named: bool) -> None:
    models = pair(DIGIT + ADDITION, {"net": Classifier(10)}, cache=cache)
    numbers = [(0, 1, 7), (2, 3, 0), (4, 5, 18), (1, 0, 7), (6, 6, 8), (7, 8, 9), (1, 2, 40)]
    queries = [query(f"addition(i0, i1, {z})", x, y) for x, y, z in numbers]
    if not named:
        queries = [q.substitute() for q in queries]
    same_answers(models, queries)
    same_step(models, queries)
    same_step(models, queries, loss="mse")
    same_step(models, queries, negatives=True)
    same_answers(models, [q.variable_output() for q in queries])


def test_number() -> None:
    models = pair(SMALL + NUMBER, {"net": Classifier(3)})
    queries = [
        query(f"multi_addition([i0, i1], [i2, i3], {z})", *p)
        for p, z in [((0, 1, 2, 3), 4), ((4, 5, 6, 7), 9)]
    ]
    same_answers(models, queries)
    same_step(models, queries)


def test_carry() -> None:
    models = pair(DIGIT + CARRY, {"net": Classifier(10)})
    queries = [
        query(f"multi_addition([i0, i1], [i2, i3], [{c}, {d}, {e}])", *p)
        for p, (c, d, e) in [((0, 1, 2, 3), (0, 4, 7)), ((4, 5, 6, 7), (1, 0, 0))]
    ]
    same_answers(models, queries)
    same_step(models, queries)


@pytest.mark.parametrize("optimizer", [True, False])
def test_noisy_addition(optimizer: bool) -> None:
    models = pair(SMALL + NOISY, {"net": Classifier(3)}, optimizer=optimizer)
    queries = [query(f"addition_noisy(i0, i1, {z})", x, x + 1) for x, z in enumerate([0, 3, 4])]
    same_answers(models, queries)
    for negatives in False, True:
        same_step(models, queries, negatives=negatives)
