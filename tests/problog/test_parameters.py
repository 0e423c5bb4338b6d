"""Tunable probabilities, `t(_)::head`: values, gradients, persistence, and what they learn."""

from __future__ import annotations

import copy
import pickle
import random
from collections import Counter
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problog.learning.lfi import LFIProblem
from problog.logic import Term
from problog.program import PrologString
from torch import Tensor

import byssus
from byssus_problog import Program
from problog_reference import by_problog

_TEXT = """
t(_)::a. t(0.3)::b. t(_)::c(X) :- d(X). d(1). d(2).
t(_, X)::e(X, Y) :- d(X), d(Y). t(0.4)::f; t(_)::g; 0.2::h.
t(0.5)::k; t(0.3)::l; 0.2::m. t(_)::a :- b.
query(a). query(b). query(c(X)). query(e(X, Y)). query(f). query(g). query(h).
query(k). query(l). query(m). n :- \\+ f, \\+ g, \\+ h. query(n).
o :- \\+ k, \\+ l, \\+ m. query(o).
both :- c(1), c(2). query(both).
"""


def _seeded(text: str, seed: int = 0, **options: object) -> Program:
    generator = torch.Generator().manual_seed(seed)
    return Program(text, generator=generator, **{"provenance": "exact", **options})


def _values(program: Program) -> dict[str, float]:
    return {text: value.item() for text, value in program.tunable.items()}


def _with_values(text: str, values: Mapping[str, float]) -> str:
    """The program with numbers in the place of `t(...)`, of all that is asked here."""
    for old, new in values.items():
        text = text.replace(old, str(new), 1)
    return text


def test_what_is_tunable() -> None:
    program = _seeded(_TEXT)
    values = _values(program)
    assert set(values) == {"a", "b", "c(X)", "e(1,Y)", "e(2,Y)", "f", "g", "k", "l", "a :- b"}
    assert values["b"] == pytest.approx(0.3)
    assert values["f"] == pytest.approx(0.4)
    assert 0 < values["g"] < 0.4
    assert (values["k"], values["l"]) == (pytest.approx(0.5), pytest.approx(0.3))
    assert len(list(program.parameters())) == 8
    y = dict(zip(program.queries, program().probs[0].tolist(), strict=True))
    p = {**values, "x": values["a :- b"]}
    expected = {
        "a": 1 - (1 - p["a"]) * (1 - p["b"] * p["x"]),
        "b": p["b"],
        **{f"c({i})": p["c(X)"] for i in (1, 2)},
        **{f"e({i},{j})": p[f"e({i},Y)"] for i in (1, 2) for j in (1, 2)},
        "f": p["f"],
        "g": p["g"],
        "h": 0.2,
        "k": 0.5,
        "l": 0.3,
        "m": 0.2,
        "n": 1 - p["f"] - p["g"] - 0.2,
        "o": 0.0,
        "both": p["c(X)"] ** 2,
    }
    assert y == {query: pytest.approx(value, abs=1e-6) for query, value in expected.items()}


def test_heads_that_do_not_say_which_parameter_it_is() -> None:
    program = _seeded("t(_, Y)::a(X) :- b(X, Y). b(1, r). b(2, s). t(_)::c. t(_)::c. query(a(X)).")
    assert set(program.tunable) == {"a(X) :- b(X,r)", "a(X) :- b(X,s)", "c", "c (2)"}


def test_first_values_are_drawn() -> None:
    assert _values(_seeded(_TEXT, 1)) == _values(_seeded(_TEXT, 1))
    assert _values(_seeded(_TEXT, 1)) != _values(_seeded(_TEXT, 2))
    torch.manual_seed(3)
    first = _values(Program(_TEXT))
    torch.manual_seed(3)
    assert _values(Program(_TEXT)) == first


def test_a_program_with_numbers_in_their_place() -> None:
    rules = """
    A::rain. B::sprinkler :- \\+ rain.
    C::wet(X); D::dry(X); 0.3::frozen(X) :- rain, place(X). 0.9::wet(X) :- sprinkler, place(X).
    place(1). place(2). query(wet(X)). query(dry(1)). query(frozen(2)). evidence(wet(1)).
    """
    learned = {"A": "t(0.3)", "B": "t(0.6)", "C": "t(0.2)", "D": "t(0.1)"}
    program = _seeded(_with_values(rules, learned))
    expected = by_problog(_with_values(rules, {"A": 0.3, "B": 0.6, "C": 0.2, "D": 0.1}))
    found = dict(zip(program.queries, program().probs[0].tolist(), strict=True))
    assert found == {q: pytest.approx(p, abs=1e-6) for q, p in expected.items()}


_SMALL = """
nn(day, [X]) :: sunny(X).
t(0.3)::a(X) :- x(X). x(1). x(2). t(_)::b; t(0.2)::c; 0.3::d. t(_, X)::e(X) :- a(X), sunny(X).
q(1) :- a(1), \\+ b. q(2) :- e(_). q(3) :- e(1), c. q(4) :- d, a(2). query(q(X)).
"""


def test_gradients() -> None:
    program = _seeded(_SMALL).double()
    logits = list(program.logits.values())
    day = torch.tensor([[0.2, 0.9], [0.5, 0.3], [0.7, 0.7]], dtype=torch.float64)

    def probs(*values: Tensor) -> Tensor:
        named = dict(zip(program.state_dict(), values, strict=True))
        return torch.func.functional_call(program, named, ({"day": day},)).probs

    assert probs(*logits).shape == (3, 4)
    inputs = [value.detach().clone().requires_grad_() for value in logits]
    torch.autograd.gradcheck(probs, inputs, atol=1e-6)


@pytest.mark.parametrize("provenance", ["sampled", "mixed"])
def test_over_all_worlds_of_sampled_programs(provenance: str) -> None:
    text = _SMALL + "evidence(q(2)).\n"
    day = torch.tensor([[0.2, 0.9], [0.5, 0.3]], dtype=torch.float64)
    exact = _seeded(text).double()
    sampled = _seeded(text, provenance=provenance, worlds=byssus.exhaustive, samples=10**6).double()
    sampled.load_state_dict(exact.state_dict())
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    results = []
    for program in (exact, sampled):
        probs = program(day=day).probs
        (probs @ weights).sum().backward()
        results += [probs.detach(), *(p.grad for p in program.parameters())]
    half = len(results) // 2
    for a, b in zip(results[:half], results[half:], strict=True):
        torch.testing.assert_close(a, b)


def test_persistence() -> None:
    program, other = _seeded(_TEXT, 1), _seeded(_TEXT, 2)
    other.load_state_dict(program.state_dict())
    assert _values(other) == _values(program)
    for made in (copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        assert _values(made) == _values(program)
        assert torch.equal(made().probs, program().probs)
        with torch.no_grad():
            made.logits["a"][0] += 1
        assert _values(made) != _values(program)
    assert program.double()().probs.dtype == torch.float64
    program.logits["a"].requires_grad_(False)
    assert len([p for p in program.parameters() if p.requires_grad]) == 7


def test_names_that_torch_would_not_take() -> None:
    program = _seeded("t(_, X)::p(X, 'a.b') :- x(X). x(0.5). x(f(1.5)). query(p(X, Y)).")
    assert set(program.tunable) == {"p(0.5,'a.b')", "p(f(1.5),'a.b')"}
    assert len(program.state_dict()) == 2
    program = _seeded("t(_)::values. t(_)::training; t(_)::pop. query(values). query(pop).")
    assert set(program.tunable) == {"values", "training", "pop"}
    program().probs.sum().backward()
    assert all(p.grad is not None for p in program.parameters())
    assert pickle.loads(pickle.dumps(program)).state_dict().keys() == program.state_dict().keys()


def test_a_parameter_that_no_query_needs() -> None:
    program = _seeded("t(_)::a. t(_)::b. query(a).")
    assert set(program.tunable) == {"a", "b"}
    program()["a"].sum().backward()
    assert program.logits["b"].grad is None


# Learning


def _learn(program: Program, loss: Callable[[], Tensor], steps: int = 60) -> None:
    optimizer = torch.optim.LBFGS(
        program.parameters(), max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-10
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def _observed(examples: list[dict[str, bool]]) -> tuple[str, Tensor]:
    """A query for each different example that it is what happens; and how often it does."""
    counts = Counter(tuple(example.items()) for example in examples)
    rules = [
        f"seen({i}) :- " + ", ".join(a if value else "\\+ " + a for a, value in example) + "."
        for i, example in enumerate(counts)
    ]
    return "\n".join([*rules, "query(seen(X))."]), torch.tensor(list(counts.values()))


def _fit(text: str, examples: list[dict[str, bool]], seed: int = 0) -> tuple[Program, float]:
    """The most likely parameters, and the logarithm of the likelihood."""
    rules, counts = _observed(examples)
    program = _seeded(f"{text}\n{rules}", seed).double()

    def loss() -> Tensor:
        return -(counts * program().probs[0].log()).sum()

    _learn(program, loss)
    return program, -loss().item()


def _lfi(text: str, examples: list[dict[str, bool]]) -> dict[str, float]:
    random.seed(0)
    problem = LFIProblem(
        PrologString(text),
        [[(Term.from_string(a), value) for a, value in e.items()] for e in examples],
        min_improv=1e-12,
        max_iter=2000,
    )
    problem.run()
    return {
        str(name.with_probability()): problem.get_weights(i)[0][1]
        for i, name in enumerate(problem.names)
    }


def _likelihood(text: str, values: Mapping[str, float], examples: list[dict[str, bool]]) -> float:
    """The logarithm of the likelihood of other values."""
    rules, counts = _observed(examples)
    program = _seeded(f"{text}\n{rules}").double()
    with torch.no_grad():
        for name, logits in program.logits.items():
            parameter = program._grounder.parameters[name]
            shares = [values[option] for option in parameter.options]
            rest = parameter.clause.free - sum(shares)
            logits.copy_(torch.tensor([*shares, rest][: len(logits)]).clamp_min(1e-12).log())
        return float((counts * program().probs[0].log()).sum())


def test_complete_data_gives_frequencies() -> None:
    """Of each option where its body holds, and of each index by itself."""
    text = (
        "t(_)::rain. t(_, P)::wet(P) :- rain, place(P). place(1). place(2).\n"
        "t(_)::red; t(_)::green; 0.2::blue.\n"
    )
    rng = random.Random(0)
    examples = []
    for _ in range(200):
        rain = rng.random() < 0.3
        colour = rng.choices(["red", "green", "blue", None], [4, 1, 3, 2])[0]
        examples.append(
            {
                "rain": rain,
                **{f"wet({p})": rain and rng.random() < p / 3 for p in (1, 2)},
                **{c: c == colour for c in ("red", "green", "blue")},
            }
        )
    program, _ = _fit(text, examples)
    count = Counter(a for e in examples for a, value in e.items() if value)
    others = 200 - count["blue"]
    expected = {
        "rain": count["rain"] / 200,
        "wet(1)": count["wet(1)"] / count["rain"],
        "wet(2)": count["wet(2)"] / count["rain"],
        "red": 0.8 * count["red"] / others,
        "green": 0.8 * count["green"] / others,
    }
    assert _values(program) == {name: pytest.approx(p, abs=1e-3) for name, p in expected.items()}


_ALARM = """
t(0.4)::burglary. 0.2::earthquake.
t(0.5)::alarm :- burglary. t(0.6)::rings :- earthquake, \\+ burglary.
sounds :- alarm. sounds :- rings.
"""


@pytest.mark.parametrize("hidden", [("burglary",), ("burglary", "earthquake")])
def test_what_problogs_learning_from_interpretations_finds(hidden: tuple[str, ...]) -> None:
    rng = random.Random(1)
    examples = []
    for _ in range(60):
        burglary, earthquake = rng.random() < 0.6, rng.random() < 0.2
        sounds = rng.random() < (0.8 if burglary else 0.3 if earthquake else 0)
        example = {"burglary": burglary, "earthquake": earthquake, "sounds": sounds}
        kept = {a: value for a, value in example.items() if a not in hidden or rng.random() < 0.5}
        examples.append(kept)
    values = _lfi(_ALARM, examples)
    program, ours = _fit(_ALARM, examples)
    assert ours >= _likelihood(_ALARM, values, examples) - 1e-4
    assert _values(program) == {name: pytest.approx(p, abs=2e-3) for name, p in values.items()}


def test_options_are_learned_at_least_as_well() -> None:
    """ProbLog's own estimate of options that are seen in part is not the most likely one."""
    text = "t(0.3)::c(r); t(0.3)::c(g); 0.2::c(b). t(0.5)::s :- c(r). 0.1::s :- \\+ c(r)."
    rng = random.Random(2)
    examples = []
    for _ in range(50):
        colour = rng.choices(["r", "g", "b"], [5, 2, 2])[0]
        sees = rng.random() < (0.7 if colour == "r" else 0.1)
        seen = [f"c({colour})"] if rng.random() < 0.7 else []
        examples.append({"s": sees, **dict.fromkeys(seen, True)})
    values = _lfi(text, examples)
    program, ours = _fit(text, examples)
    assert ours >= _likelihood(text, values, examples) - 1e-4
    found = _values(program)
    assert found["c(r)"] + found["c(g)"] == pytest.approx(0.8, abs=1e-3)


def test_parameters_and_a_network_learn_together() -> None:
    """Told only whether it is wet, which is what the rules are unsure of."""
    text = """
    nn(day, [X]) :: rainy(X).
    t(0.5)::wet :- rainy(x). t(0.5)::wet :- \\+ rainy(x).
    query(wet).
    """
    program = _seeded(text)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 1, generator=generator)
    rainy = x[:, 0] > 0.3
    chance = torch.where(rainy, 0.9, 0.2)
    wet = (torch.rand(400, generator=generator) < chance).float()[:, None]
    network = torch.nn.Linear(1, 1)
    with torch.no_grad():
        network.weight.fill_(1.0)
        network.bias.fill_(0.0)
    optimizer = torch.optim.Adam([*program.parameters(), *network.parameters()], 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss = program(day=network(x).sigmoid()).loss(wet)
        loss.backward()
        optimizer.step()
    found = _values(program)
    assert found["wet"] > 0.8
    assert found["wet :- \\+rainy(x)"] < 0.3
    assert ((network(x)[:, 0] > 0) == rainy).float().mean() > 0.9


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    first=st.lists(st.one_of(st.none(), st.floats(0.05, 1.0)), min_size=1, max_size=4),
    fixed=st.lists(st.floats(0.05, 0.5), max_size=2),
    seed=st.integers(0, 9),
)
def test_the_options_share_what_is_left(
    first: list[float | None], fixed: list[float], seed: int
) -> None:
    total = sum(fixed) + sum(p for p in first if p is not None)
    scale = min(1.0, 0.9 / total) if total else 1.0
    first = [None if p is None else p * scale for p in first]
    fixed = [p * scale for p in fixed]
    heads = [f"t({'_' if p is None else p})::a({i})" for i, p in enumerate(first)]
    heads += [f"{p}::b({i})" for i, p in enumerate(fixed)]
    text = "; ".join(heads) + ".\nquery(a(X)). none :- \\+ a(_). query(none).\n"
    program = _seeded(text, seed).double()
    with torch.no_grad():
        before = _values(program)
        for i, p in enumerate(first):
            if p is not None:
                assert before[f"a({i})"] == pytest.approx(p, abs=1e-6)
        for logits in program.parameters():
            logits += torch.randn(logits.shape, dtype=torch.float64)
        values = _values(program)
        y = program()
    assert all(p > 0 for p in values.values())
    assert sum(values.values()) < 1 - sum(fixed) + 1e-9
    for i in range(len(first)):
        assert y[f"a({i})"].item() == pytest.approx(values[f"a({i})"], abs=1e-9)
    assert y["none"].item() == pytest.approx(1 - sum(values.values()), abs=1e-9)
