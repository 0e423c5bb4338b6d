"""Sampled and mixed provenances: estimators, calls over relations, reproducibility."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import byssus
from byssus import ByssusError
from byssus_scallop import Module, ScallopContext, foreign_predicate


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6)


def softmax(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed)).softmax(-1)


SUM = """
type one(i32), two(i32)
rel total(x + y) = one(x) and two(y)
"""


def summing(size: int = 10, program: str = SUM, **options: Any) -> Module:
    return Module(
        program=program,
        input_mappings={"one": range(size), "two": range(size)},
        output_relation="total",
        output_mapping=list(range(2 * size - 1)),
        **options,
    )


def exact(p: Tensor, q: Tensor) -> Tensor:
    size = p.shape[1]
    joint = (p[:, :, None] * q[:, None, :]).flip(2)
    columns = [joint.diagonal(size - 1 - z, 1, 2).sum(1) for z in range(2 * size - 1)]
    return torch.stack(columns, 1)


# Sampling


@pytest.mark.parametrize("provenance", ["sampled", "mixed"])
def test_a_generator_makes_it_reproducible(provenance: str) -> None:
    p, q = softmax(4, 10), softmax(4, 10, seed=1)

    def run(seed: int) -> Tensor:
        module = summing(provenance=provenance, samples=20, generator=seeded(seed))
        return torch.stack([module(one=p, two=q), module(one=p, two=q)])

    first, again, other = run(1), run(1), run(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


@pytest.mark.embedded("no matter of the engine")
@pytest.mark.parametrize("estimator", ["auto", "ised", "distinct", "rloo", "indecater"])
@pytest.mark.parametrize("provenance", ["sampled", "mixed"])
def test_estimators_learn(provenance: str, estimator: str) -> None:
    """A few hundred steps of any estimator find the digits of one pair from its sum."""
    if provenance == "mixed" and estimator == "indecater":
        sampled: list[str] | None = ["one", "two"]
    else:
        sampled = None
    logits = torch.zeros(2, 1, 4, requires_grad=True)
    module = summing(
        4,
        provenance=provenance,
        samples=30,
        estimator=estimator,
        generator=seeded(3),
        sampled=sampled,
        distribution=True,
    )
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(60):
        p = logits.softmax(-1)
        loss = module(one=p[0], two=p[1]).loss([6])
        assert bool(loss.isfinite())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert logits.argmax(-1).flatten().tolist() == [3, 3]


@pytest.mark.parametrize("estimator", ["rloo", "indecater"])
@pytest.mark.parametrize(
    "rules",
    [
        "rel total(x + y) = one(x) and two(y)",
        "rel total(n) = n := count(x: one(x) and not two(x))",
        "rel same() = one(x), two(x)\nrel total(0) = same()\nrel total(1) = not same()",
    ],
    ids=["sum", "count", "negation"],
)
def test_gradients_are_unbiased(estimator: str, rules: str) -> None:
    logits = torch.tensor([[[0.3, -0.2, 0.5]], [[0.1, 0.4, -0.6]]], dtype=torch.float64)
    logits.requires_grad_()
    program = f"type one(i32), two(i32)\n{rules}"

    def gradient(module: Module) -> Tensor:
        p = logits.softmax(-1)
        scores = module(one=p[0], two=p[1])
        weight = torch.linspace(0.5, 1.5, scores.shape[1], dtype=torch.float64)
        return torch.autograd.grad((scores * weight).sum(), logits)[0]

    right = gradient(summing(3, program, provenance="exact"))
    module = summing(
        3, program, provenance="sampled", samples=20, estimator=estimator, generator=seeded(7)
    )
    draws = torch.stack([gradient(module) for _ in range(300)])
    error = draws.std(0) / math.sqrt(len(draws))
    assert bool(((draws.mean(0) - right).abs() < 4 * error + 1e-9).all())


@pytest.mark.parametrize("count", [10, 200])
def test_frequencies(count: int) -> None:
    p, q = softmax(3, 4), softmax(3, 4, seed=1)
    module = summing(4, provenance="sampled", samples=count, estimator="rloo", generator=seeded(5))
    draws = torch.stack([module(one=p, two=q) for _ in range(100)])
    right = exact(p, q)
    error = 5 * (right * (1 - right) / (count * 100)).sqrt()
    assert bool(((draws.mean(0) - right).abs() < error).all())


def test_the_mass_that_was_seen() -> None:
    p, q = softmax(3, 10), softmax(3, 10, seed=1)
    few = summing(provenance="sampled", samples=5, generator=seeded(), distribution=True)
    y = few(one=p, two=q)
    assert bool((y.coverage < 1).all())
    assert bool((y.bound <= exact(p, q) + 1e-9).all())
    assert bool((y.probs.sum(1) - 1).abs().max() < 1e-9)
    every = summing(
        provenance="sampled", samples=10**6, worlds=byssus.exhaustive, distribution=True
    )
    y = every(one=p, two=q)
    assert y.coverage.tolist() == close([1, 1, 1])
    assert torch.allclose(y.probs, exact(p, q))


@pytest.mark.parametrize("sampled", ["one", ["two"], []])
def test_mixed_is_exact_given_what_is_sampled(sampled: str | list[str]) -> None:
    # Certain facts of what is sampled leave one world, in which the rest is exact.
    p, q = softmax(3, 10), softmax(3, 10, seed=1)
    p[:], q[:] = (torch.eye(10)[3], q) if sampled == "one" else (p, torch.eye(10)[3])
    module = summing(provenance="mixed", sampled=sampled, samples=3, distribution=True)
    assert torch.allclose(module(one=p, two=q).probs, exact(p, q))


def test_mixed_needs_names_that_there_are() -> None:
    module = summing(provenance="mixed", sampled="tow")
    with pytest.raises(ByssusError, match="tow"):
        module(one=softmax(1, 10), two=softmax(1, 10))


def test_what_evaluation_comes_upon_is_sampled_too() -> None:
    """Rules with tags, exclusive heads and answers with probabilities are concepts as well."""
    program = """
    @blackbox("f")
    type f(bound x: i32, y: String)
    rel a = {0.5::1, 0.25::2}
    rel 0.5::b(x) = a(x)
    rel {c(x); d(x)} = b(x)
    rel q(x, y) = c(x) and f(x, y)
    """

    def f(x: int) -> dict[str, float]:
        return {"low": 0.75, "high": 0.25}

    def context(**options: Any) -> dict[Any, float]:
        ctx = ScallopContext(**options)
        ctx.register_blackbox(f)
        ctx.add_program(program)
        ctx.run()
        return {row: float(p) for p, row in ctx.relation("q")}

    right = context(provenance="exact")
    assert right == close(
        {
            (1, "high"): 0.125 / 4,
            (1, "low"): 0.125 * 3 / 4,
            (2, "high"): 0.0625 / 4,
            (2, "low"): 0.0625 * 3 / 4,
        }
    )
    for provenance in ("sampled", "mixed"):
        found = context(
            provenance=provenance, worlds=byssus.exhaustive, samples=10**6, estimator="distinct"
        )
        assert found == close(right)


# Black boxes


def boxed(program: str, f: Callable[..., Any], **options: Any) -> ScallopContext:
    ctx = ScallopContext(**options)
    ctx.register_blackbox(f, "f")
    ctx.add_program(program)
    return ctx


@pytest.mark.parametrize(
    "declaration",
    [
        "type f(bound x: i32, bound y: i32, z: i32)\nrel q(z) = a(x) and b(y) and f(x, y, z)",
        "type $f(x: i32, y: i32) -> i32\nrel q($f(x, y)) = a(x) and b(y)",
    ],
    ids=["predicate", "function"],
)
def test_only_sampled_worlds_are_asked(declaration: str) -> None:
    calls: list[tuple[int, int]] = []

    def f(x: int, y: int) -> int:
        calls.append((x, y))
        return x * 100 + y

    program = f'type a(i32), b(i32)\n@blackbox("f")\n{declaration}'
    ctx = boxed(program, f, provenance="sampled", samples=3, generator=seeded())
    for name in "ab":
        ctx.set_input_mapping(name, range(100))
    function = ctx.forward_function("q", distribution=True)
    p, q = softmax(4, 100), softmax(4, 100, seed=1)
    y = function(a=p, b=q)
    assert len(calls) == len(set(calls)) <= 12
    assert y.calls == len(calls)
    # Each output that was found comes of a call: of no other tuples have there been calls.
    assert sorted(y.values) == sorted(x * 100 + y for x, y in calls)
    assert bool((y.probs.sum(1) - 1).abs().max() < 1e-9)


LEAF = """
@blackbox("f", over=["symbol"], on_error="discard")
type f(y: f64)
type symbol(place: usize, sign: String)
rel value(y) = f(y)
"""
SIGNS = ["1", "2", "3", "+", "*"]


def formula(symbols: tuple[tuple[int, str], ...]) -> float:
    text = "".join(sign for _, sign in symbols)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(eval(text))


def leaf(length: int, **options: Any) -> tuple[ScallopContext, list[str]]:
    calls: list[str] = []

    def f(symbols: tuple[tuple[int, str], ...]) -> float:
        calls.append("".join(sign for _, sign in symbols))
        return formula(symbols)

    ctx = boxed(LEAF, f, **options)
    ctx.set_input_mapping("symbol", {0: range(length), 1: SIGNS}, disjunctive_dim=1)
    return ctx, calls


def test_a_call_over_a_relation() -> None:
    p = softmax(2, 3, 5).requires_grad_()
    ctx, calls = leaf(3, provenance="sampled", worlds=byssus.exhaustive, samples=10**4)
    y = ctx.forward_function("value", distribution=True)(symbol=p)
    assert sorted(calls) == sorted("".join(some) for some in product(SIGNS, repeat=3))
    right: dict[float, Any] = {}
    lost: Any = torch.zeros(2, dtype=torch.float64)
    for signs in product(range(5), repeat=3):
        weight = p[:, 0, signs[0]] * p[:, 1, signs[1]] * p[:, 2, signs[2]]
        try:
            value = formula(tuple((i, SIGNS[s]) for i, s in enumerate(signs)))
        except SyntaxError:
            lost = lost + weight
        else:
            right[value] = right.get(value, 0) + weight
    assert torch.allclose(y.lost, lost)
    assert sorted(y.values) == sorted(right)
    for value, column in zip(y.values, y.probs.unbind(1), strict=True):
        assert torch.allclose(column, right[value])
    (a,) = torch.autograd.grad(y.probs[:, 0].sum(), p)
    (b,) = torch.autograd.grad(right[y.values[0]].sum(), p)
    assert torch.allclose(a, b)


@pytest.mark.parametrize("provenance", ["sampled", "auto"])
def test_a_call_over_a_relation_of_any_size(provenance: str) -> None:
    ctx, calls = leaf(7, provenance=provenance, samples=50, generator=seeded())
    function = ctx.forward_function("value", distribution=True)
    p = softmax(16, 7, 5).requires_grad_()
    if provenance == "auto":
        with pytest.warns(RuntimeWarning, match="sampled: value: .*calls"):
            y = function(symbol=p)
    else:
        y = function(symbol=p)
    assert len(calls) == len(set(calls)) <= 16 * 50
    assert all(len(text) == 7 for text in calls)
    assert bool((y.lost > 0).any())
    target = torch.zeros(16, len(y.values), dtype=torch.float64)
    target[:, 0] = 1
    y.loss(target).backward()
    assert p.grad is not None
    assert bool(p.grad.isfinite().all())
    # What has been called is remembered.
    before = len(calls)
    again = function(symbol=p)
    assert len(calls) == len(set(calls))
    assert again.calls == len(calls) - before


@pytest.mark.parametrize("provenance", ["sampled", "mixed"])
def test_what_failed_calls_lose(provenance: str) -> None:
    def f(x: int) -> int:
        if x == 2:
            raise ValueError("no")
        return x + 10

    program = """
    @blackbox("f", on_error="discard")
    type f(bound x: i32, y: i32)
    type a(i32)
    rel q(y) = a(x) and f(x, y)
    """
    ctx = boxed(
        program, f, provenance=provenance, worlds=byssus.exhaustive, samples=64, sampled=["a"]
    )
    ctx.set_input_mapping("a", [1, 2, 3], disjunctive=False)
    p = torch.tensor([[0.5, 0.25, 0.2], [0.5, 0.0, 1.0]], dtype=torch.float64)
    y = ctx.forward_function("q", distribution=True)(a=p)
    assert y.lost.tolist() == close([0.25, 0])
    probs = dict(zip(y.values, y.probs.unbind(1), strict=True))
    assert probs[11].tolist() == close([0.375, 0.5])
    assert probs[13].tolist() == close([0.15, 1.0])
    assert {key[:2] for key in y.failures} == {("f", 2)}


def test_recursion_through_a_black_box_asks_what_is_reached() -> None:
    calls: list[int] = []

    def f(x: int) -> int:
        calls.append(x)
        return x // 2

    program = """
    @blackbox("f")
    type f(bound x: i32, y: i32)
    type start(i32)
    rel down(x) = start(x)
    rel down(y) = down(x) and x > 0 and f(x, y)
    rel last(x) = x := min(y: down(y))
    """
    ctx = boxed(program, f, provenance="sampled", samples=20, generator=seeded())
    ctx.set_input_mapping("start", [24, 10, 1000])
    p = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    y = ctx.forward_function("down", distribution=True)(start=p)
    assert sorted(calls) == [1, 2, 3, 5, 6, 10, 12, 24]
    assert dict(zip(y.values, y.probs[0].tolist(), strict=True))[0] == close(1.0)


def test_samples_of_a_black_box() -> None:
    """`samples=` of a declaration is how many worlds are drawn for it."""
    calls: list[Any] = []

    def f(values: tuple[int, ...]) -> int:
        calls.append(values)
        return sum(values)

    program = """
    @blackbox("f", over=["a"], samples=7)
    type f(y: i32)
    type a(i32)
    rel q(y) = f(y)
    """
    ctx = boxed(program, f, provenance="sampled", samples=1000, generator=seeded())
    ctx.set_input_mapping("a", range(20), disjunctive=False)
    ctx.forward_function("q")(a=torch.full((1, 20), 0.5))
    assert len(calls) <= 7


def test_probabilities_from_a_predicate_are_asked_for_anew() -> None:
    """A foreign predicate that is a network: what it says is trained, step by step."""
    weight = torch.zeros((), dtype=torch.float64, requires_grad=True)

    @foreign_predicate(name="likely", input_arg_types=["i32"], output_arg_types=[], tag_type="prob")
    def likely(x: int) -> Any:
        yield weight.sigmoid(), ()

    for provenance in ("exact", "sampled", "mixed"):
        ctx = ScallopContext(provenance=provenance, worlds=byssus.exhaustive, samples=64)
        ctx.register_foreign_predicate(likely)
        ctx.add_program("type a(i32)\nrel q(x) = a(x) and likely(x)")
        ctx.set_input_mapping("a", [1])
        function = ctx.forward_function("q", [1], distribution=True)
        for value in (0.0, 2.0):
            with torch.no_grad():
                weight.fill_(value)
            y = function(a=torch.tensor([[0.5]], dtype=torch.float64)).probs
            p = weight.sigmoid().item()
            assert y.item() == close(0.5 * p)
            (gradient,) = torch.autograd.grad(y.sum(), weight)
            assert gradient.item() == close(0.5 * p * (1 - p))


@pytest.mark.parametrize("estimator", ["auto", "ised"])
def test_outputs_that_do_not_exclude_one_another_are_not_scaled(estimator: str) -> None:
    module = Module(
        program="""
            type digit(i32)
            rel small() = digit(0) or digit(1)
            rel at_least(x) = digit(d) and x in 0..=d
        """,
        provenance="sampled",
        samples=500,
        estimator=estimator,
        generator=torch.Generator().manual_seed(0),
        input_mappings={"digit": range(10)},
        output_mappings={"small": (), "at_least": range(10)},
    )
    probs = torch.full((1, 10), 0.1, requires_grad=True)
    result = module(digit=probs)
    torch.testing.assert_close(result["small"], torch.tensor([0.2]))
    torch.testing.assert_close(result["at_least"], torch.arange(10, 0, -1)[None] / 10)
    result["small"].sum().backward()
    assert probs.grad is not None
    assert probs.grad[0, 0] > probs.grad[0, 5]


def test_few_samples_of_many_facts_are_counted() -> None:
    context = ScallopContext("sampled", samples=4_000, generator=torch.Generator().manual_seed(0))
    context.add_relation("p", int)
    context.add_facts("p", [(0.1, i) for i in range(40)])
    context.add_program("rel many() = n := count(x: p(x)) and n > 5")
    context.run()
    exact = context.clone(provenance="exact")
    exact.run()
    ((expected, _),) = exact.relation("many")
    ((found, _),) = context.relation("many")
    assert found == context.distribution("many").scores.item()
    # Five standard deviations of a mean of 4,000.
    assert found == pytest.approx(expected, abs=5 * (expected * (1 - expected) / 4_000) ** 0.5)
