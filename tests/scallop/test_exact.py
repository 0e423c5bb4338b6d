"""The exact provenance: aggregates over many facts, rules with tags, caching, calls, limits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from byssus import BlackBoxError, BudgetExceeded, ByssusError, CompilationLimit
from byssus_scallop import ScallopContext
from byssus_scallop._engine import Engine
from byssus_scallop._solver import Solver


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6)


def run(program: str, provenance: str = "exact", **options: Any) -> ScallopContext:
    ctx = ScallopContext(provenance=provenance, **options)
    ctx.add_program(program)
    ctx.run()
    return ctx


def probabilities(ctx: ScallopContext, relation: str) -> dict[Any, float]:
    found = {row[0] if len(row) == 1 else row: float(p) for p, row in ctx.relation(relation)}
    return {row: p for row, p in found.items() if p > 1e-12}


# Many facts under one aggregate, against dynamic programming

COUNT = 30
VALUES = [i % 5 - 1 for i in range(COUNT)]


def facts(count: int = COUNT) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, dtype=torch.float64, generator=generator).requires_grad_()


def accumulated(p: Tensor, values: list[int]) -> dict[int, Tensor]:
    """The distribution of the sum of the values whose facts hold."""
    found: dict[int, Tensor] = {0: torch.ones((), dtype=torch.float64)}
    for one, value in zip(p, values, strict=True):
        grown: dict[int, Tensor] = {}
        for total, weight in found.items():
            for to, part in ((total, weight * (1 - one)), (total + value, weight * one)):
                grown[to] = grown[to] + part if to in grown else part
        found = grown
    return found


def extreme(p: Tensor, values: list[int], order: Callable[[int], int]) -> dict[int, Tensor]:
    """The distribution of the first value in this order."""
    found: dict[int, Tensor] = {}
    none = torch.ones((), dtype=torch.float64)
    for value in sorted(set(values), key=order):
        absent = torch.stack([1 - p[i] for i, v in enumerate(values) if v == value]).prod()
        found[value] = none * (1 - absent)
        none = none * absent
    return found


def exists(p: Tensor) -> dict[bool, Tensor]:
    absent = (1 - p).prod()
    return {False: absent, True: 1 - absent}


AGGREGATES: dict[str, tuple[str, Callable[[Tensor], dict[Any, Tensor]]]] = {
    "count": ("count(i: a(i, v))", lambda p: accumulated(p, [1] * COUNT)),
    "sum": ("sum[i](v: a(i, v))", lambda p: accumulated(p, VALUES)),
    "exists": ("exists(i: a(i, v))", exists),
    "forall": (
        "forall(i: a(i, v) implies v < 0)",
        lambda p: {not k: x for k, x in exists(p[[v >= 0 for v in VALUES]]).items()},
    ),
    "min": ("min(v: a(i, v))", lambda p: extreme(p, VALUES, lambda v: v)),
    "max": ("max(v: a(i, v))", lambda p: extreme(p, VALUES, lambda v: -v)),
}


@pytest.mark.parametrize("operator", AGGREGATES)
def test_thirty_facts(operator: str) -> None:
    text, formula = AGGREGATES[operator]
    p = facts()
    start = time.process_time()
    ctx = ScallopContext(provenance="exact")
    ctx.add_program(f"type a(i: i32, v: i32)\nrel r(n) = n := {text}")
    ctx.add_facts("a", [(p[i], (i, v)) for i, v in enumerate(VALUES)])
    ctx.run()
    found = {row[0]: tag for tag, row in ctx.relation("r")}
    assert time.process_time() - start < 1
    right = formula(p)
    assert found.keys() == right.keys()
    for key, tag in found.items():
        assert tag.item() == close(right[key].item())
    key = max(right)
    for a, b in zip(
        torch.autograd.grad(found[key], p, retain_graph=True),
        torch.autograd.grad(right[key], p, retain_graph=True),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-9)


@pytest.mark.parametrize("groups", [2, 5])
def test_thirty_facts_in_groups(groups: int) -> None:
    p = facts()
    ctx = ScallopContext(provenance="exact")
    ctx.add_program(
        """
        type a(g: i32, i: i32)
        rel n(g, c) = c := count(i: a(g, i))
        rel most(g) = g := argmax[g](c: n(g, c) and c > 20)
        """
    )
    ctx.add_facts("a", [(p[i], (i % groups, i)) for i in range(COUNT)])
    ctx.run()
    found = {row: tag.item() for tag, row in ctx.relation("n")}
    for group in range(groups):
        some = p[[i % groups == group for i in range(COUNT)]]
        right = accumulated(some, [1] * len(some))
        # An implicit group is there only in the worlds in which one of its tuples is.
        assert (group, 0) not in found
        for count, q in right.items():
            if count:
                assert found[group, count] == close(q.item())


def test_alternatives_under_an_aggregate() -> None:
    program = """
    rel a = {0.2::1; 0.3::2}
    rel a = {0.5::1; 0.4::3; 0.1::4}
    rel n(c) = c := count(x: a(x))
    rel s(c) = c := sum(x: a(x))
    """
    ctx = run(program)
    # (first, second): 1 or 2 or nothing, and 1 or 3 or 4.
    assert probabilities(ctx, "n") == close({1: 0.5 + 0.2 * 0.5, 2: 0.2 * 0.5 + 0.3})
    assert probabilities(ctx, "s") == close(
        {
            1: 0.5 * 0.5 + 0.2 * 0.5,
            3: 0.5 * 0.4 + 0.3 * 0.5,
            4: 0.5 * 0.1 + 0.2 * 0.4,
            5: 0.2 * 0.1 + 0.3 * 0.4,
            6: 0.3 * 0.1,
        }
    )


# Rules with tags, exclusive heads: what Scallop's own engine gives under topkproofs, with k large

SCALLOP = [
    ("rel b = {1, 2}\nrel 0.8::h(x) = b(x)\nrel q() = h(1), h(2)", {(): 0.64}),
    ("rel b = {1, 2}\nrel 0.8::h(x) = b(x)\nrel q() = h(x)", {(): 0.96}),
    ("rel b = {(1, 2), (1, 3)}\nrel 0.8::q(x) = b(x, y)", {1: 0.96}),
    ("rel b = {1, 2, 3}\nrel 0.5::q() = b(x)", {(): 0.875}),
    ("rel b = {1, 2}\nrel 0.5::q(5) = b(x)", {5: 0.75}),
    ("rel b = {1}\nrel c = {1}\nrel 0.8::q(x) = b(x) or c(x)", {1: 0.96}),
    ("rel b = {1, 2}\nrel (0.4 + 0.4)::h(x) = b(x)\nrel q() = h(1), h(2)", {(): 0.64}),
    ("rel b = {(1, 0.5), (2, 0.5)}\nrel p::h(x) = b(x, p)\nrel q() = h(1), h(2)", {(): 0.25}),
    ("rel b = {(1, 0.5), (1, 0.25)}\nrel p::q(x) = b(x, p)", {1: 0.625}),
    ("rel b = {(1, 0.5), (2, 0.5)}\nrel p::q() = b(x, p)", {(): 0.75}),
    (
        "rel b = {0.5::1, 0.5::2}\nrel 0.5::q(n) = n := count(x: b(x))",
        {0: 0.125, 1: 0.25, 2: 0.125},
    ),
    ("rel b = {0.5::1, 0.5::2}\nrel u = {1, 2, 3}\nrel 0.5::q() = u(x), not b(x)", {(): 0.71875}),
    ("rel b = {1}\nrel 0.5::h(x) = b(x)\nrel g(x) = h(x)\nrel q(x) = h(x), g(x)", {1: 0.5}),
    ("rel b = {1}\nrel 0.5::h(x) = b(x)\nrel g(x) = h(x)\nrel q(x) = h(x), not g(x)", {}),
    ("rel a = {0.3::1, 0.5::1}\nrel q(x) = a(x)", {1: 0.65}),
    # Alternatives exclude each other, once for all the ways to derive their heads. (Those of
    # Scallop have the tag 1 each, byssus's are equally probable.)
    ("rel c = {1}\nrel {a(x, 0); a(x, 1)} = c(x)\nrel q(x) = a(x, 0), a(x, 1)", {}),
    ("rel c = {(1, 2), (1, 3)}\nrel {a(x, 0); a(x, 1)} = c(x, y)\nrel q(x) = a(x, 0), a(x, 1)", {}),
    ("rel c = {0.5::1}\nrel {a(x, 0); a(x, 1)} = c(x)\nrel q(x) = a(x, 0) or a(x, 1)", {1: 0.5}),
]


@pytest.mark.parametrize(("program", "expected"), SCALLOP, ids=range(len(SCALLOP)))
def test_as_scallop(program: str, expected: dict[Any, float]) -> None:
    assert probabilities(run(program), "q") == close(expected)


def test_alternative_heads_are_equally_probable() -> None:
    ctx = run("rel c = {0.5::1, 2}\nrel {a(x); b(x); d(x, x)} = c(x)\nrel ab() = a(1), a(2)")
    assert probabilities(ctx, "a") == close({1: 1 / 6, 2: 1 / 3})
    assert probabilities(ctx, "b") == close({1: 1 / 6, 2: 1 / 3})
    assert probabilities(ctx, "d") == close({(1, 1): 1 / 6, (2, 2): 1 / 3})
    assert probabilities(ctx, "ab") == close({(): 1 / 18})


def test_a_tag_from_python_is_one_coin() -> None:
    # A rule's own tag is tossed for each instance; a tag from Python is a fact (as in Scallop).
    weight = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    ctx = ScallopContext(provenance="exact")
    ctx.add_program("rel b = {1, 2}\nrel both() = h(1), h(2)\ntype h(i32)")
    ctx.add_rule("h(x) = b(x)", tag=weight)
    ctx.run()
    ((tag, _),) = list(ctx.relation("both"))
    assert tag.item() == close(0.8)
    (gradient,) = torch.autograd.grad(tag, weight)
    assert gradient.item() == close(1.0)


# Forward functions


def digits(batch: int, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, *shape, dtype=torch.float64, generator=generator)
    return logits.softmax(-1).requires_grad_()


SUM = """
type one(i32), two(i32)
rel total(x + y) = one(x) and two(y)
rel less() = one(x) and two(y) and x < y
"""


def summing(**options: Any) -> ScallopContext:
    ctx = ScallopContext(provenance="exact", **options)
    ctx.add_program(SUM)
    for name in ("one", "two"):
        ctx.set_input_mapping(name, range(10))
    return ctx


def convolved(p: Tensor, q: Tensor) -> Tensor:
    joint = p[:, :, None] * q[:, None, :]
    n = p.shape[1]
    return torch.stack(
        [joint.flip(2).diagonal(n - 1 - z, 1, 2).sum(1) for z in range(2 * n - 1)], 1
    )


def test_the_sum_of_two_digits() -> None:
    p, q = digits(8, 10), digits(8, 10, seed=1)
    y = summing().forward_function("total", range(19))(one=p, two=q)
    assert y.shape == (8, 19)
    right = convolved(p, q)
    assert torch.allclose(y, right, atol=1e-9)
    weight = torch.linspace(-1, 1, 19, dtype=torch.float64)
    for leaf in (p, q):
        a, b = (
            torch.autograd.grad((x * weight).sum(), leaf, retain_graph=True)[0] for x in (y, right)
        )
        assert torch.allclose(a, b, atol=1e-9)


def test_outputs_of_several_relations() -> None:
    p, q = digits(3, 10), digits(3, 10, seed=1)
    function = summing().forward_function(output_mappings={"total": [3, 40, 0], "less": ()})
    y = function(one=p, two=q)
    right = convolved(p, q)
    assert torch.allclose(y["total"][:, 0], right[:, 3])
    assert torch.equal(y["total"][:, 1], torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(y["total"][:, 2], right[:, 0])
    below = (p[:, :, None] * q[:, None, :]).triu(1).sum((1, 2))
    assert torch.allclose(y["less"], below)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How often the engine has run."""
    counted: list[int] = []
    for engine in (Engine, *Engine.__subclasses__()):
        original = engine.run

        def counting(self: Engine, *arguments: Any, run: Any = original, **options: Any) -> Any:
            counted.append(1)
            return run(self, *arguments, **options)

        monkeypatch.setattr(engine, "run", counting)
    return iter([counted])


def test_the_engine_runs_once_for_a_structure(runs: Iterator[list[int]]) -> None:
    counted = next(runs)
    function = summing().forward_function("total", range(19))
    for seed in range(3):
        function(one=digits(4 + seed, 10, seed=seed), two=digits(4 + seed, 10, seed=9))
    assert len(counted) == 1


def test_examples_are_grouped_by_structure(runs: Iterator[list[int]]) -> None:
    counted = next(runs)
    ctx = ScallopContext(provenance="exact")
    ctx.add_program("type edge(i32, i32)\nrel path(x, z) = edge(x, z) or path(x, y) and edge(y, z)")
    function = ctx.forward_function("path", [(0, 2)])
    p = torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    edges = [(0, 1), (1, 2), (0, 2)]
    some = [[(p[i, j], edge) for j, edge in enumerate(edges[: 2 + i % 2])] for i in range(6)]
    y = function(edge=some)
    assert len(counted) == 2
    through = p[:, 0] * p[:, 1]
    right = torch.where(torch.arange(6) % 2 == 1, 1 - (1 - through) * (1 - p[:, 2]), through)
    assert torch.allclose(y[:, 0], right)
    function(edge=[some[3], some[0]])
    function(edge=[some[5]])
    assert len(counted) == 2
    # Certain facts are structure as well.
    function(edge=[[(None, (0, 1)), (p[0, 0], (1, 2))]])
    assert len(counted) == 3


def test_structures_are_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byssus_scallop._solver._STRUCTURES", 3)
    ctx = ScallopContext(provenance="exact")
    ctx.add_program("type a(i32)\nrel n(c) = c := count(x: a(x))")
    function = ctx.forward_function("n", range(9))
    half = torch.tensor(0.5, dtype=torch.float64)
    for size in (1, 2, 3, 4, 5, 6, 7, 8, 2):
        y = function(a=[[(half, (i,)) for i in range(size)]])
        assert y[0, 0].item() == close(0.5**size)
    solver = ctx._solver
    assert isinstance(solver, Solver)
    assert len(solver._groundings) == 3


def test_more_facts_and_rules_are_seen(runs: Iterator[list[int]]) -> None:
    counted = next(runs)
    ctx = run("type a(i32)\nrel a = {0.5::1}\nrel n(c) = c := count(x: a(x))")
    assert probabilities(ctx, "n") == close({0: 0.5, 1: 0.5})
    before = len(counted)
    ctx.run()
    assert probabilities(ctx, "n") == close({0: 0.5, 1: 0.5})
    assert len(counted) == before
    ctx.add_facts("a", [(0.5, (2,))])
    assert probabilities(ctx, "n") == close({0: 0.5, 1: 0.5})
    ctx.run()
    assert probabilities(ctx, "n") == close({0: 0.25, 1: 0.5, 2: 0.25})
    ctx.add_rule("a(3) = a(1)")
    ctx.run()
    assert probabilities(ctx, "n") == close({0: 0.25, 1: 0.25, 2: 0.25, 3: 0.25})


# Black boxes


def boxed(
    program: str, function: Callable[..., Any], name: str = "f", **options: Any
) -> ScallopContext:
    ctx = ScallopContext(**{"provenance": "exact", **options})
    ctx.register_blackbox(function, name)
    ctx.add_program(program)
    return ctx


@pytest.mark.parametrize(
    "rules",
    [
        '@blackbox("f")\ntype f(bound x: i32, bound y: i32, z: i32)\n'
        "rel q(z) = a(x) and b(y) and f(x, y, z)",
        '@blackbox("f")\ntype $f(x: i32, y: i32) -> i32\nrel q($f(x, y)) = a(x) and b(y)',
        '@blackbox("f")\ntype $f(x: i32, y: i32) -> i32\n'
        "rel q(z) = a(x) and b(y) and z == $f(x, y)",
    ],
    ids=["predicate", "function in the head", "function in the body"],
)
def test_calls(rules: str) -> None:
    calls: list[tuple[int, int]] = []

    def f(x: int, y: int) -> int:
        calls.append((x, y))
        return x * y

    ctx = boxed("rel a = {0.5::1, 0.5::2}\nrel b = {0.4::3; 0.6::4}\n" + rules, f)
    for _ in range(2):
        ctx.run()
        assert probabilities(ctx, "q") == close({3: 0.2, 4: 0.3, 6: 0.2, 8: 0.3})
        assert sorted(calls) == [(1, 3), (1, 4), (2, 3), (2, 4)]


def test_impossible_arguments_are_not_asked() -> None:
    calls: list[tuple[int, int]] = []

    def f(x: int, y: int) -> bool:
        calls.append((x, y))
        return True

    ctx = boxed(
        """
        @blackbox("f")
        type f(bound x: i32, bound y: i32)
        rel a = {0.4::1; 0.3::2}
        rel q() = a(x) and a(y) and f(x, y)
        """,
        f,
    )
    ctx.run()
    assert probabilities(ctx, "q") == close({(): 0.7})
    assert sorted(calls) == [(1, 1), (2, 2)]


FAILING = """
@blackbox("f", on_error="discard")
type f(bound x: i32, y: i32)
rel a = {0.5::1, 0.25::2, 0.2::3}
rel q(y) = a(x) and f(x, y)
rel sure() = a(1)
"""


def fails_on_two(x: int) -> int:
    if x == 2:
        raise ValueError("two is too much")
    return x + 10


def test_what_a_failed_call_loses() -> None:
    ctx = boxed(FAILING, fails_on_two)
    ctx.run()
    # The worlds in which f(2) is asked are lost, with all that is derived in them.
    assert probabilities(ctx, "q") == close({11: 0.75 * 0.5, 13: 0.75 * 0.2})
    assert probabilities(ctx, "sure") == close({(): 0.75 * 0.5})
    assert ctx.lost == {"q": close(0.25), "sure": close(0.25)}
    function = ctx.forward_function("q", distribution=True)
    with pytest.raises(ByssusError):
        function()
    ctx = boxed(FAILING.replace("rel a = {0.5::1, 0.25::2, 0.2::3}", "type a(i32)"), fails_on_two)
    ctx.set_input_mapping("a", [1, 2, 3], disjunctive=False)
    y = ctx.forward_function("q", distribution=True)(a=torch.tensor([[0.5, 0.25, 0.2], [1, 0, 1]]))
    assert y.lost.tolist() == close([0.25, 0.0])
    assert dict(zip(y.values, y.probs[1].tolist(), strict=True)) == close({11: 1.0, 13: 1.0})
    assert list(y.failures) == [("f", 2)]


def test_a_failed_call_that_matters() -> None:
    ctx = boxed(FAILING.replace(', on_error="discard"', ""), fails_on_two)
    with pytest.raises(BlackBoxError, match="two is too much"):
        ctx.run()


@pytest.mark.parametrize("provenance", ["exact", "sampled", "auto"])
def test_a_budget(provenance: str) -> None:
    calls: list[int] = []

    def f(x: int) -> int:
        calls.append(x)
        return x % 3

    program = f"""
    @blackbox("f", budget=5)
    type f(bound x: i32, y: i32)
    rel a = {{{", ".join(f"0.5::{i}" for i in range(20))}}}
    rel q(y) = a(x) and f(x, y)
    """
    ctx = boxed(program, f, provenance=provenance, samples=4)
    if provenance == "auto":
        with (
            pytest.warns(RuntimeWarning, match="sampled: .*20 calls"),
            pytest.raises(BudgetExceeded),
        ):
            ctx.run()
    else:
        with pytest.raises(BudgetExceeded):
            ctx.run()
    assert len(calls) <= 5


def test_an_answer_with_a_distribution() -> None:
    def f(x: int) -> dict[str, float]:
        return {"low": 0.75, "high": 0.25} if x == 1 else {"high": 0.5}

    ctx = boxed(
        """
        @blackbox("f")
        type f(bound x: i32, y: String)
        rel a = {0.5::1, 0.5::2}
        rel q(x, y) = a(x) and f(x, y)
        rel two() = q(1, "low") and q(1, "high")
        rel high() = q(_, "high")
        """,
        f,
    )
    ctx.run()
    assert probabilities(ctx, "q") == close(
        {(1, "low"): 0.375, (1, "high"): 0.125, (2, "high"): 0.25}
    )
    assert probabilities(ctx, "two") == {}
    assert probabilities(ctx, "high") == close({(): 1 - 0.875 * 0.75})


@pytest.mark.parametrize("provenance", ["exact", "auto"])
def test_recursion_through_a_black_box(provenance: str) -> None:
    def collatz(x: int) -> int:
        return x // 2 if x % 2 == 0 else 3 * x + 1

    program = """
    @blackbox("f")
    type f(bound x: i32, y: i32)
    rel start = {0.25::6; 0.75::7}
    rel reached(x) = start(x)
    rel reached(y) = reached(x) and x != 1 and f(x, y)
    """
    ctx = boxed(program, collatz, provenance=provenance)
    ctx.run()
    found = probabilities(ctx, "reached")
    assert found[1] == close(1.0)
    assert found[3] == close(0.25)
    assert found[34] == close(0.75)
    assert found[10] == close(1.0)


def test_recursion_without_end_reaches_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("_engine", "_rounds"):
        monkeypatch.setattr(f"byssus_scallop.{module}._ROUNDS", 100)
    program = """
    @blackbox("f")
    type f(bound x: i64, y: i64)
    rel reached(0)
    rel reached(y) = reached(x) and f(x, y)
    """
    ctx = boxed(program, lambda x: x + 1)
    with pytest.raises(ByssusError, match="asked 100 times in a row"):
        ctx.run()
    ctx.set_iter_limit(5)
    ctx.run()
    assert 3 <= len(probabilities(ctx, "reached")) <= 10


@pytest.mark.parametrize("provenance", ["exact", "sampled"])
def test_a_call_over_a_relation(provenance: str) -> None:
    calls: list[tuple[int, ...]] = []

    def total(values: tuple[int, ...]) -> int:
        calls.append(values)
        return sum(values)

    program = """
    @blackbox("f", over=["a"])
    type f(y: i32)
    rel a = {0.5::1, 0.25::2, 4}
    rel q(y) = f(y)
    """
    generator = torch.Generator().manual_seed(0)
    ctx = boxed(program, total, provenance=provenance, samples=400, generator=generator)
    ctx.run()
    assert sorted(calls) == [(1, 2, 4), (1, 4), (2, 4), (4,)]
    # All worlds have been seen, so the sample is exact as well.
    assert probabilities(ctx, "q") == close({7: 0.125, 5: 0.375, 6: 0.125, 4: 0.375})


# Limits


def hard(count: int = 60, seed: int = 0) -> str:
    """A conjunction of random clauses of three, which has no small circuit."""
    draw = random.Random(seed)
    clauses = [
        " or ".join(draw.choice(["", "not "]) + f"x({v})" for v in draw.sample(range(count), 3))
        for _ in range(2 * count)
    ]
    some = ", ".join(f"0.5::{i}" for i in range(count))
    lines = [f"rel c{i}() = {clause}" for i, clause in enumerate(clauses)]
    body = " and ".join(f"c{i}()" for i in range(len(clauses)))
    return "\n".join([f"rel x = {{{some}}}", *lines, f"rel hard() = {body}", "rel easy() = x(1)"])


def test_exact_raises_at_its_limit() -> None:
    ctx = run(hard(), nodes=20_000)
    assert probabilities(ctx, "easy") == close({(): 0.5})
    with pytest.raises(CompilationLimit, match="20000"):
        ctx.relation("hard")


def test_seconds() -> None:
    ctx = run(hard(), seconds=0.5)
    start = time.monotonic()
    with pytest.raises(CompilationLimit, match=r"0\.5"):
        ctx.relation("hard")
    assert time.monotonic() - start < 10


def test_auto_samples_what_does_not_compile() -> None:
    generator = torch.Generator().manual_seed(0)
    ctx = run(hard(), "auto", nodes=20_000, samples=500, generator=generator)
    with pytest.warns(RuntimeWarning, match="sampled: hard: .*20000"):
        list(ctx.relation("hard"))
    assert ctx.plan().provenance == "sampled"


def test_grounding_has_a_limit() -> None:
    program = """
    rel a = {0.5::0}
    rel a(x + 1) = a(x)
    """
    ctx = ScallopContext(provenance="exact", nodes=1000)
    ctx.add_program(program)
    with pytest.raises(ByssusError, match="1000"):
        ctx.run()


# Aggregates that ask for probabilities


NORMALIZED = "type a(x: i32)\nrel n(x) = x := normalize(x: a(x))"


@pytest.mark.parametrize("provenance", ["exact", "auto"])
def test_what_depends_on_probabilities_is_found_anew(provenance: str) -> None:
    ctx = ScallopContext(provenance=provenance)
    ctx.add_program(NORMALIZED + "\nrel first(x) = (i, x) := rank(x: a(x)) and i == 0")
    ctx.set_input_mapping("a", [1, 2], disjunctive=False)
    normal = ctx.forward_function("n", [1, 2])
    first = ctx.forward_function("first", [1, 2])
    for given in ([0.2, 0.6], [0.6, 0.2]):
        p = torch.tensor([given], dtype=torch.float64, requires_grad=True)
        y = normal(a=p)
        assert y[0].tolist() == close([given[0] / 0.8, given[1] / 0.8])
        (gradient,) = torch.autograd.grad(y[0, 0], p)
        assert gradient[0].tolist() == close([given[1] / 0.64, -given[0] / 0.64])
        best = max(given)
        assert first(a=p)[0].tolist() == close([x if x == best else 0.0 for x in given])


def test_what_is_drawn_is_drawn_once_a_run() -> None:
    some = ", ".join(f"0.5::{i}" for i in range(100))
    ctx = ScallopContext(provenance="exact", generator=torch.Generator().manual_seed(0))
    ctx.add_program(f"rel a = {{{some}}}\nrel n(x) = x := uniform<1>(x: a(x))\nrel m(x) = n(x)")
    for _ in range(3):
        ctx.run()
        assert probabilities(ctx, "n") == probabilities(ctx, "m")


def test_auto_samples_only_what_it_must() -> None:
    ctx = run(hard(), "auto", nodes=20_000, generator=torch.Generator().manual_seed(0))
    with pytest.warns(RuntimeWarning, match="sampled: hard"):
        list(ctx.relation("hard"))
    assert probabilities(ctx, "easy") == close({(): 0.5})
    assert ctx.plan().provenance == "exact"
