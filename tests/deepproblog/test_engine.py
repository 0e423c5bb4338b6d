"""Our engine against DeepProbLog's own: answers, losses and gradients."""

from __future__ import annotations

import pytest
import torch
from deepproblog.embeddings import OneHotEncoding
from problog.logic import Constant

from deepproblog_oracle import (
    Classifier,
    TrainObject,
    ours,
    pair,
    query,
    same_answers,
    same_step,
)

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
    models = pair(SMALL + ADDITION, {"net": Classifier(3)}, cache=cache)
    numbers = [(0, 1, 2), (2, 3, 0), (4, 5, 3), (1, 0, 2), (6, 6, 1), (7, 8, 4), (1, 2, 40)]
    queries = [query(f"addition(i0, i1, {z})", x, y) for x, y, z in numbers]
    if not named:
        queries = [q.substitute() for q in queries]
    same_answers(models, queries)
    same_step(models, queries)
    if cache and named:
        same_step(models, queries, loss="mse")
        same_step(models, queries, negatives=True)
        same_answers(models, [q.variable_output() for q in queries])


def test_ten_digits() -> None:
    models = pair(DIGIT + ADDITION, {"net": Classifier(10)})
    queries = [query(f"addition(i0, i1, {z})", z, z + 1) for z in (0, 7, 18)]
    same_answers(models, queries)
    same_step(models, queries)


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


def test_coins() -> None:
    """Two networks, one rule that compares, and an answer that is an atom."""
    program = """
nn(net1, [X], Y, [heads, tails]) :: coin(1, X, Y).
nn(net2, [X], Y, [heads, tails]) :: coin(2, X, Y).
outcome(X, X, win).
outcome(X, Y, loss) :- \\+ outcome(X, Y, win).
game(X, Outcome) :- coin(1, X, C1), coin(2, X, C2), outcome(C1, C2, Outcome).
"""
    models = pair(program, {"net1": Classifier(2), "net2": Classifier(2)})
    queries = [query(f"game(i0, {o})", x) for x, o in enumerate(["win", "loss", "win", "draw"])]
    same_answers(models, queries)
    for negatives in False, True:
        same_step(models, queries[:3], negatives=negatives)


def test_poker() -> None:
    """Learned probabilities of a disjunction, some below a sum of one, and rules that overlap."""
    program = """
t(0.2) :: rank(jack); t(0.3) :: rank(queen); 0.1 :: rank(king).
nn(net, [X], Z, [jack, queen, king]) :: card(X, Z).
t(0.7) :: bluff(X).
hand(Cards, pair) :- member(C, Cards), card(C, R), rank(R).
hand(Cards, high) :- \\+ hand(Cards, pair).
wins(Cards) :- hand(Cards, pair).
wins(Cards) :- member(C, Cards), bluff(C).
score(Cards, S) :- findall(R, (member(C, Cards), card(C, R)), L), length(L, S).
two :- rank(jack), bluff(1).
two :- \\+ rank(queen), bluff(2).
"""
    models = pair(program, {"net": Classifier(3)})
    queries = [query("hand([i0, i1], pair)", 0, 1), query("hand([i0, i1], high)", 2, 3, p=0.3)]
    queries += [query("wins([i0, i1])", 4, 5), query("two"), query("rank(R)"), query("rank(king)")]
    same_answers(models, queries)
    same_step(models, [*queries[:4], queries[5]])
    same_step(models, queries[:4], loss="mse")


def test_facts_and_several_inputs() -> None:
    """nn/2, alone and with two inputs; and nn/4 with a constant among its inputs."""
    program = """
nn(rain, [X]) :: rain(X).
nn(both, [X, Y]) :: both(X, Y).
nn(net, [X], Y, [a, b, c]) :: kind(X, Y).
q(X, Y) :- rain(X), \\+ rain(Y).
q(X, Y) :- both(X, Y), kind(X, a).
"""
    modules = {"rain": Classifier(1), "both": Classifier(1, inputs=2), "net": Classifier(3)}
    for batching in True, False:
        models = pair(program, modules, batching=batching)
        queries = [query("q(i0, i1)", 2 * i, 2 * i + 1, p=1.0 - i / 2, output=()) for i in range(3)]
        queries += [query("q(i0, i1)", 5, 5, output=()), query("q(i0, i1)", 0, 1)]
        same_answers(models, queries)
        same_step(models, queries)


def test_tensor_outputs() -> None:
    """nn/3: a network's output as a term, and as another network's input."""
    program = """
nn(encoder, [X], E) :: encode(X, E).
nn(head, [E], Y, [a, b]) :: label(E, Y).
nn(joint, [E, F], Y, [same, other]) :: matches(E, F, Y).
q(X, Y) :- encode(X, E), label(E, Y).
q2(X, Y, R) :- encode(X, E), encode(Y, F), matches(E, F, R).
q3(X, E) :- encode(X, E0), encode(E0, E).
"""
    modules = {
        "encoder": torch.nn.Linear(4, 4),
        "head": Classifier(2),
        "joint": Classifier(2, inputs=2),
    }
    # With a cache, DeepProbLog calls the encoder on the names that a substitution replaces.
    models = pair(program, modules, cache=False)
    queries = [query("q(i0, a)", 0), query("q(i0, b)", 1), query("q2(i0, i1, same)", 2, 3)]
    same_answers(models, queries)
    same_step(models, queries)
    models.ours.solver.cache.cache = True
    same_answers(models, queries)
    same_step(models, queries)
    encoded = [
        model.get_tensor(next(iter(model.solve([query("q3(i0, E)", 4)])[0].result)).args[1])
        for model in models
    ]
    torch.testing.assert_close(*encoded)


def test_answers_of_every_kind() -> None:
    """Certain, impossible, with variables left, and none: as DeepProbLog gives them."""
    program = (
        SMALL
        + ADDITION
        + """
only(1, 2).
0.3 :: p(1). 0.4 :: p(2).
pair(X, Y) :- p(X), p(Y), X \\= Y.
eq(X, X).
sure(X) :- digit(X, _).
"""
    )
    models = pair(program, {"net": Classifier(3)})
    texts = ["only(1, X)", "only(3, X)", "only(3, 4)", "pair(X, Y)", "pair(1, X)", "eq(A, B)"]
    texts += ["sure(i0)", "addition(i0, i1, Z)", "addition(i0, i1, 9)", "addition(i0, i1, 1.0)"]
    texts += ["addition(i0, i0, 2)", "addition(i0, Y, 2)", "pair(2, 1)"]
    for text in texts[:-2]:
        same_answers(models, [query(text, 0, 1)])
    same_answers(models, [query(text, 0, 1) for text in [*texts[:-2], texts[-1]]])
    same_step(
        models, [query("addition(i0, i1, 9)", 0, 1), query("pair(1, 2)"), query("sure(i0)", 2)]
    )


def test_goals_in_queries() -> None:
    """A negated query, and one whose last argument the rules call."""
    program = (
        SMALL
        + """
0.3 :: a. t(0.2) :: b.
both(X) :- digit(X, 1), b.
and([]).
and([H|T]) :- H, and(T).
"""
    )
    models = pair(program, {"net": Classifier(3)})
    texts = ["\\+ a", "\\+ b", "\\+ both(i0)", "and([a, b])", "and([b, digit(i0, 2)])"]
    same_answers(models, [query(text, 0) for text in texts])


def test_one_image_twice_in_a_query() -> None:
    """With a cache, DeepProbLog takes it for two images; without, for one. So do we."""
    program = SMALL + "differ(X, Y) :- digit(X, A), digit(Y, B), A =\\= B.\n"
    for cache in True, False:
        models = pair(program, {"net": Classifier(3)}, cache=cache)
        twice, once = query("differ(i0, i1)", 0, 0, output=()), query("differ(i0, i1)", 0, 1)
        same_answers(models, [twice, once, twice.substitute(), once.substitute()])


def test_the_rules_look_at_tensors() -> None:
    """Then their names matter."""
    program = (
        SMALL
        + """
first(tensor(images(0))).
q(X, Y) :- first(X), digit(X, Y).
q(X, Y) :- X = tensor(images(I)), I > 3, digit(X, Y).
"""
    )
    models = pair(program, {"net": Classifier(3)}, cache=False)
    queries = [query("q(i0, 1)", i) for i in (0, 1, 5)]
    answers = same_answers(models, queries)
    assert list(answers[1].values()) == [0.0]
    same_step(models, queries)


def test_what_is_computed_while_grounding() -> None:
    """Tensor predicates, labels that are tensors, and registered functions."""
    program = """
P :: a(I) :- list_to_tensor([0.25, 0.1, 0.4], T), between(0, 2, I), tensor_index(T, [I], P).
b :- list_to_tensor([0.8], T1), list_to_tensor([0.2], T2), less_than(T1, T2).
nn(encoder, [X], E) :: encode(X, E).
nn(net, [X], Y, [0,1,2]) :: digit(X, Y).
close(X, Y) :- encode(X, E), encode(Y, F), rbf(E, F, P), soft(P).
T :: soft(T).
square(X, Y) :- digit(X, D), squared(D, Y).
"""
    modules = {"encoder": torch.nn.Linear(4, 4), "net": Classifier(3)}
    models = pair(program, modules, cache=False)
    for model in models:
        model.register_foreign(lambda x: Constant(int(x) ** 2), "squared", 1, 1)
    queries = [query("a(I)"), query("b"), query("square(i0, 4)", 1), query("square(i0, Y)", 2)]
    queries += [query("close(i0, i1)", 0, 1)]
    same_answers(models, queries)
    same_step(models, [*queries[1:3], queries[4]])


def test_best_values_only() -> None:
    """A network with `k=`: its best values, in evaluation the best."""
    program = (
        SMALL + ADDITION + "other(X, Y) :- again(X, Y).\nnn(net2, [X], Y, [a, b]) :: again(X, Y).\n"
    )
    models = pair(program, {"net": Classifier(3), "net2": Classifier(2)}, cache=False, k={"net": 2})
    for model in models:
        model.eval()
    queries = [query("addition(i0, i1, Z)", 0, 1), query("other(i0, a)", 2)]
    answers = same_answers(models, queries)
    assert len(answers[0]) <= 4


def test_embeddings() -> None:
    program = "T :: close(X, Y) :- embed(X, E), embed(Y, F), rbf(E, F, T)."
    models = pair(program, cache=False)
    for model in models:
        torch.manual_seed(1)
        model.embeddings = OneHotEncoding(3)
    same_answers(models, [query("close(a, b)"), query("close(a, c)")])


def test_own_add() -> None:
    """A program's own predicate of a name that DeepProbLog has too."""
    program = SMALL + "add(X, Y, Z) :- digit(X, A), digit(Y, B), Z is A + B.\n"
    model = ours(program, {"net": Classifier(3)})
    (result,) = model.solve([query("add(i0, i1, Z)", 0, 1)])
    assert sum(map(float, result.result.values())) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("program", "queries"),
    [
        ("0.5 :: a; 0.5 :: b. c :- a, b. d :- a, a.", ["c", "d"]),
        ("0.5 :: a; 0.5 :: b. 0.5 :: a; 0.5 :: b. c :- a, b. d :- a, a.", ["c", "d"]),
        ("0.5 :: a(X); 0.5 :: b(X). c :- a(1), b(1). d :- a(1), b(2).", ["c", "d"]),
        ("0.8 :: d(_). e :- d(1), d(2). f :- d(1), e.", ["e", "f", "d(7)"]),
        ("0.6 :: a(_). 0.5 :: a(_). c :- a(1), a(2). d :- a(1), a(1).", ["c", "d"]),
        ("1.0e-8 :: a; 1.0e-8 :: b; 0.5 :: c. q :- a. q :- b.", ["q"]),
        ("0.99999999 :: a. 0.5 :: b. q :- a, b.", ["q"]),
        ("t(1.0e-8) :: a; t(1.0e-8) :: b; t(0.99999998) :: c. q :- a. q :- b.", ["q"]),
        ("1/4 :: a; 3/4 :: b. q :- a.", ["q", "b"]),
        ("P :: a(X) :- b(X), P is X / 10. b(1). b(3).", ["a(X)", "a(3)"]),
        ("a(X) :- X = 3.", ["a(X)", "a(3)", "a(4)"]),
        ("a(X) :- member(X, [1, 2]), \\+ b(X). 0.3 :: b(1).", ["a(X)", "a(1)"]),
        ("e(1, 2). 0.4 :: e(2, 3). p(X, Y) :- e(X, Y). p(X, Y) :- e(X, Z), p(Z, Y).", ["p(1, 3)"]),
    ],
)
def test_programs_without_networks(program: str, queries: list[str]) -> None:
    same_answers(pair(program), [query(text) for text in queries])


def test_a_function_of_text() -> None:
    models = pair("a(Text, I, Word) :- word(Text, I, Word).")
    for model in models:
        model.register_foreign(
            lambda text, i: Constant(text.value.split(" ")[int(i)]), "word", 2, 1
        )
    queries = [query(f'a("one two three", {i}, X)') for i in range(3)]
    answers = same_answers(models, queries)
    assert len(answers) == 3
    again = models.ours.solver.cache.get(queries[0])
    assert again.from_cache


def test_saturated_network() -> None:
    """A probability that is 0 but for rounding: the loss stays finite, the gradient flows."""
    module = Classifier(2)
    module.load_state_dict(
        {
            "linear.weight": torch.zeros(2, 4),
            "linear.bias": torch.tensor([0.0, -20.0]),
        }
    )
    models = pair("nn(net, [X], Y, [a, b]) :: c(X, Y). r(X) :- \\+ c(X, a).", {"net": module})
    queries = [query("c(i0, b)", 0), query("c(i0, a)", 0, p=0.0), query("r(i0)", 1, output=())]
    same_answers(models, queries)
    assert same_step(models, queries[:1]) > 10
    # In DeepProbLog these are 1 - p and divided by a sum, which rounding makes 0 or not quite 1.
    loss = TrainObject(models.ours).get_loss(queries, models.ours.solver.semiring.cross_entropy)
    assert loss < 30


def test_one_network_with_several_lists_of_values() -> None:
    """And once as a fact: the network is called once, its outputs read in several ways."""
    program = """
nn(net, [X], Y, [0, 1, 2]) :: digit(X, Y).
nn(net, [X], Y, [x, y, z]) :: letter(X, Y).
nn(net, [X], Y, [x, y, z]) :: again(X, Y).
nn(net, [X]) :: first(X).
q(X, Y, R) :- digit(X, 1), letter(Y, R).
q(X, Y, none) :- \\+ digit(X, 1), again(Y, x), first(X).
"""
    models = pair(program, {"net": Classifier(3)})
    queries = [
        query("q(i0, i0, y)", 0),
        query("q(i0, i1, x)", 0, 1),
        query("q(i0, i1, none)", 2, 1),
    ]
    same_answers(models, queries)
    same_step(models, queries)


def test_a_network_with_a_body() -> None:
    """DeepProbLog does not translate it; here each solution of the body is a choice."""
    program = """
0.4 :: on(X).
nn(net, [X], Y, [0, 1, 2]) :: digit(X, I, Y) :- between(1, 2, I), on(I).
q(X, Z) :- digit(X, 1, A), digit(X, 2, B), Z is A + B.
q(X, none) :- \\+ digit(X, 1, _).
"""
    model = ours(program + "nn(net, [X], Y, [0, 1, 2]) :: plain(X, Y).", {"net": Classifier(3)})
    asked = [query(f"plain(i0, {v})", 0) for v in range(3)]
    asked += [query("q(i0, 3)", 0), query("q(i0, none)", 0)]
    _, one, two, three, none = (float(*r.result.values()) for r in model.solve(asked))
    assert three == pytest.approx(0.4**2 * 2 * one * two, abs=1e-6)
    assert none == pytest.approx(0.6, abs=1e-6)


def test_inputs_that_the_rules_put_together() -> None:
    """A network whose inputs are a variable, a list when it is used."""
    models = pair("nn(net, L, Y, [0, 1, 2]) :: digit(L, Y). q(X, Y) :- L = [X], digit(L, Y).",
                  {"net": Classifier(3)}, cache=False)  # fmt: skip
    queries = [query("q(i0, 1)", 0), query("q(i0, 2)", 1)]
    same_answers(models, queries)
    same_step(models, queries)


def test_lists_of_numbers_as_output() -> None:
    class Plain(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> list[float]:
            return [0.2, 0.3, 0.5]

    models = pair(SMALL, {"net": Plain()}, batching=False)
    same_answers(models, [query("digit(i0, 1)", 0), query("digit(i0, 2)", 1)])
