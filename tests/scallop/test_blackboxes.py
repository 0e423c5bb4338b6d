"""Black boxes in rules, under every provenance, against enumeration of the worlds."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import byssus
from byssus import (
    BlackBoxError,
    BlackBoxOutputError,
    BudgetExceeded,
    ByssusError,
    Integer,
    NondeterministicError,
    blackbox,
)
from byssus_scallop import Module, ScallopContext

Row = tuple[Any, ...]
Facts = Mapping[str, list[tuple[float, Any]] | tuple[tuple[float, Any], ...]]
"""Facts with their probabilities: in a list independent ones, in a tuple alternatives."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6)


class Lost(Exception):  # noqa: N818
    """A call failed in this world."""


def worlds(facts: Facts) -> Iterator[tuple[float, dict[str, set[Any]]]]:
    """Every world with its probability."""
    axes: list[list[tuple[float, list[tuple[str, Any]]]]] = []
    for name, some in facts.items():
        if isinstance(some, tuple):
            rest = 1 - sum(p for p, _ in some)
            axes.append([*((p, [(name, value)]) for p, value in some), (rest, [])])
        else:
            axes += [[(p, [(name, value)]), (1 - p, [])] for p, value in some]
    for choice in product(*axes):
        weight = 1.0
        world: dict[str, set[Any]] = {name: set() for name in facts}
        for p, held in choice:
            weight *= p
            for name, value in held:
                world[name].add(value)
        if weight > 1e-12:
            yield weight, world


def enumerated(
    facts: Facts, derive: Callable[[dict[str, set[Any]]], Iterable[Any]]
) -> tuple[dict[Any, float], float]:
    """The probability of each tuple, and the mass that is lost."""
    found: dict[Any, float] = {}
    lost = 0.0
    for weight, world in worlds(facts):
        try:
            for value in set(derive(world)):
                found[value] = found.get(value, 0) + weight
        except Lost:
            lost += weight
    return found, lost


class Recorded:
    """A function and its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.calls: list[Row] = []

    def __call__(self, *arguments: Any) -> Any:
        self.calls.append(arguments)
        return self.function(*arguments)


def context(
    program: str, functions: Mapping[str, Callable[..., Any]], facts: Facts, **options: Any
) -> ScallopContext:
    ctx = ScallopContext(**options)
    for name, function in functions.items():
        ctx.register_blackbox(function, name)
    ctx.add_program(program)
    for name, some in facts.items():
        rows = [(p, v if isinstance(v, tuple) else (v,)) for p, v in some]
        ctx.add_facts(name, rows, [list(range(len(rows)))] if isinstance(some, tuple) else None)
    return ctx


def result(ctx: ScallopContext, relation: str = "q") -> dict[Any, float]:
    rows = {(r[0] if len(r) == 1 else r): float(p) for p, r in list(ctx.relation(relation))}
    return {row: p for row, p in rows.items() if p > 0}


EXHAUSTIVE = {"worlds": byssus.exhaustive, "samples": 10**6}
EQUAL = [
    {"provenance": "exact"},
    {"provenance": "auto"},
    {"provenance": "sampled", **EXHAUSTIVE},
    {"provenance": "mixed", **EXHAUSTIVE},
    {"provenance": "mixed", "sampled": "a", **EXHAUSTIVE},
]
EQUAL_IDS = ["exact", "auto", "sampled", "mixed", "mixed by a"]
PROVENANCES = ["exact", "auto", "sampled", "mixed"]


# Programs of all sorts


def halves(x: int) -> list[int]:
    if x == 5:
        raise ValueError("five")
    return [x // 2] if x > 1 else []


def reached(world: dict[str, set[Any]]) -> set[int]:
    found = set(world["a"])
    while True:
        if 5 in found:
            raise Lost
        more = {y for x in found for y in halves(x)} | {y for x, y in world["e"] if x in found}
        if more <= found:
            return found
        found |= more


def divided(x: int, y: int) -> int:
    return x // y


def quotients(world: dict[str, set[Any]]) -> set[int]:
    if world["a"] and 0 in world["b"]:
        raise Lost
    return {x // y for x in world["a"] for y in world["b"]}


THREE = [(0.3, 1), (0.4, 2), (0.3, 3)]
CASES: dict[str, tuple[str, dict[str, Callable[..., Any]], Facts, Callable[..., Iterable[Any]]]] = {
    "relation": (
        "@blackbox type f(bound x: i32, bound y: i32, z: i32)\ntype a(i32), b(i32)\n"
        "rel q(z) = a(x) and b(y) and f(x, y, z)",
        {"f": lambda x, y: x * y},
        {"a": tuple(THREE), "b": [(0.5, 1), (0.6, 2)]},
        lambda w: {x * y for x in w["a"] for y in w["b"]},
    ),
    "function that fails": (
        '@blackbox(on_error="discard") type $f(x: i32, y: i32) -> i32\ntype a(i32), b(i32)\n'
        "rel q($f(x, y)) = a(x) and b(y)",
        {"f": divided},
        {"a": tuple(THREE[:2]), "b": [(0.5, 0), (0.6, 2)]},
        quotients,
    ),
    "negation": (
        "@blackbox type f(bound x: i32, y: i32)\ntype a(i32), b(i32)\n"
        "rel q(x) = a(x) and not f(x, _)\nrel q(10 * x) = a(x) and b(y) and not f(x, y)",
        {"f": lambda x: [x + 1, x + 2] if x < 3 else []},
        {"a": THREE, "b": [(0.5, 3), (0.6, 2)]},
        lambda w: (
            {x for x in w["a"] if x == 3}
            | {10 * x for x in w["a"] for y in w["b"] if x == 3 or y not in (x + 1, x + 2)}
        ),
    ),
    "test in a count": (
        "@blackbox type f(bound x: i32)\ntype a(i32)\nrel q(n) = n := count(x: a(x) and f(x))",
        {"f": lambda x: x != 2},
        {"a": THREE},
        lambda w: {len(w["a"] - {2})},
    ),
    "implied for all": (
        "@blackbox type f(bound x: i32)\ntype a(i32)\nrel q(b) = b := forall(x: a(x) implies f(x))",
        {"f": lambda x: x < 3},
        {"a": THREE},
        lambda w: {3 not in w["a"]},
    ),
    "one feeds another and a maximum": (
        "@blackbox type f(bound x: i32, y: i32)\n@blackbox type g(bound x: i32, y: i32)\n"
        "type a(i32)\nrel r(y) = a(x) and f(x, y)\nrel q(n) = n := max(y: r(x) and g(x, y))",
        {"f": lambda x: {x, x + 1}, "g": lambda x: (10 * x + i for i in range(x % 3))},
        {"a": THREE},
        lambda w: sorted(10 * y + i for x in w["a"] for y in (x, x + 1) for i in range(y % 3))[-1:],
    ),
    "calls within calls": (
        "@blackbox type $f(x: i32) -> i32\n@blackbox type $g(x: i32, y: i32) -> i32\ntype a(i32)\n"
        "rel q($g($f(x), $f($f(x)))) = a(x)",
        {"f": lambda x: x + 1, "g": lambda x, y: x * y},
        {"a": THREE},
        lambda w: {(x + 1) * (x + 2) for x in w["a"]},
    ),
    "several columns": (
        "@blackbox type f(bound x: i32, y: i32, s: String)\ntype a(i32)\n"
        "rel q(y, s) = a(x) and f(x, y, s)",
        {"f": lambda x: [(x // i, str(i)) for i in (1, 2)]},
        {"a": THREE},
        lambda w: {(x // i, str(i)) for x in w["a"] for i in (1, 2)},
    ),
    "no bound column": (
        "@blackbox type f(y: i32)\ntype a(i32)\nrel q(x) = a(x) and f(x)",
        {"f": lambda: [1, 3]},
        {"a": THREE},
        lambda w: w["a"] & {1, 3},
    ),
    "recursion in which a call fails": (
        # 5 is asked for again and again, in more and more worlds.
        '@blackbox(on_error="discard") type f(bound x: i32, y: i32)\ntype a(i32), e(i32, i32)\n'
        "rel q(x) = a(x)\nrel q(y) = q(x) and f(x, y)\nrel q(y) = q(x) and e(x, y)",
        {"f": halves},
        {
            "a": [(0.3, 9), (0.4, 10), (0.3, 20)],
            "e": [(0.5, (9, 5)), (0.25, (1, 5)), (0.25, (2, 12))],
        },
        reached,
    ),
    "over relations, one of which is derived": (
        '@blackbox(over=["a", "b"]) type f(y: i32)\n@blackbox(over="c") type g(n: i32)\n'
        "type a(i32), b(i32, String)\nrel c(x) = a(x) and b(x, _)\nrel q(y, n) = f(y) and g(n)",
        {"f": lambda a, b: 10 * len(a) + len(b), "g": sum},
        {"a": THREE, "b": ((0.5, (1, "u")), (0.4, (2, "v")))},
        lambda w: {
            (10 * len(w["a"]) + len(w["b"]), sum(x for x in w["a"] if x in {y for y, _ in w["b"]}))
        },
    ),
    "over the answers of another": (
        '@blackbox type f(bound x: i32, y: i32)\n@blackbox(over="r") type h(n: i32)\ntype a(i32)\n'
        "rel r(y) = a(x) and f(x, y)\nrel q(n) = h(n) and n > 2",
        {"f": lambda x: [x, x % 2], "h": sum},
        {"a": THREE},
        lambda w: {n for n in [sum({y for x in w["a"] for y in (x, x % 2)})] if n > 2},
    ),
}


@pytest.mark.parametrize("options", EQUAL, ids=EQUAL_IDS)
@pytest.mark.parametrize("name", CASES)
def test_enumeration(name: str, options: dict[str, Any]) -> None:
    program, functions, facts, derive = CASES[name]
    boxes = {key: Recorded(function) for key, function in functions.items()}
    ctx = context(program, boxes, facts, **options)
    ctx.run()
    expected, lost = enumerated(facts, derive)
    assert result(ctx) == close(expected)
    assert ctx.lost.get("q", 0.0) == close(lost)
    count = 0
    for box in boxes.values():
        assert len(box.calls) == len(set(box.calls))
        count += len(box.calls)
    assert sum(n or 0 for n in ctx.plan().calls.values()) == count
    assert ctx.distribution("q").calls == count


UNCERTAIN = """
@blackbox(on_error="discard") type f(bound x: i32, y: i32)
type a(i32), b(i32)
rel r(y) = a(x) and f(x, y)
rel q(n) = n := count(y: r(y) and not b(y))
"""


def uncertain(x: int) -> Any:
    if x == 4:
        raise ValueError("four")
    return {5: 0.5, 6: 0.25} if x == 3 else [x, x % 2]


UNCERTAIN_FACTS: Facts = {
    "a": [(0.5, 1), (0.4, 2), (0.6, 3), (0.1, 4)],
    "b": [(0.5, 0), (0.3, 5), (0.5, 2)],
    "answer": ((0.5, 5), (0.25, 6)),
}


def count_uncertain(world: dict[str, set[Any]]) -> set[int]:
    if 4 in world["a"]:
        raise Lost
    answers = {y for x in world["a"] for y in (world["answer"] if x == 3 else (x, x % 2))}
    return {len(answers - world["b"])}


@pytest.mark.parametrize(
    "options",
    [*EQUAL, {"provenance": "mixed", "sampled": "f", **EXHAUSTIVE}],
    ids=[*EQUAL_IDS, "mixed by f"],
)
def test_answers_with_probabilities(options: dict[str, Any]) -> None:
    expected, lost = enumerated(UNCERTAIN_FACTS, count_uncertain)
    facts = {name: UNCERTAIN_FACTS[name] for name in "ab"}
    ctx = context(UNCERTAIN, {"f": uncertain}, facts, **options)
    ctx.run()
    assert result(ctx) == close(expected)
    assert ctx.lost["q"] == close(lost)
    if options["provenance"] == "mixed" and "sampled" in options:
        assert ctx.plan().sampled == (options["sampled"],)


@pytest.mark.parametrize("provenance", ["sampled", "mixed"])
def test_answers_with_probabilities_in_random_worlds(provenance: str) -> None:
    """Frequencies, within four standard deviations."""
    count = 4000
    expected, lost = enumerated(UNCERTAIN_FACTS, count_uncertain)
    facts = {name: UNCERTAIN_FACTS[name] for name in "ab"}
    options = {"sampled": ["a", "b", "f"]} if provenance == "mixed" else {}
    ctx = context(
        UNCERTAIN,
        {"f": uncertain},
        facts,
        provenance=provenance,
        samples=count,
        estimator="rloo",
        generator=seeded(),
        **options,
    )
    ctx.run()
    found = ctx.distribution("q")
    for value, score in zip(found.values, found.scores[0].tolist(), strict=True):
        p = expected[value]
        assert abs(score - p) < 4 * (p * (1 - p) / count) ** 0.5
    assert ctx.lost["q"] == pytest.approx(lost, abs=0.02)


# Calls


NESTED = """
@blackbox type f(bound x: i32, y: i32)
@blackbox type g(bound x: i32, y: i32)
@blackbox(over="r") type h(n: i32)
type a(i32)
rel r(y) = a(x) and f(x, y)
rel s(z) = r(y) and g(y, z)
rel q(n) = h(n)
"""


@pytest.mark.parametrize("provenance", ["sampled", "mixed"])
def test_uncertain_answers_that_are_asked_about(provenance: str) -> None:
    """What is called is what a world that counts asks for, in batch after batch."""
    boxes = {
        "f": Recorded(lambda x: {10 * x + i: 0.1 for i in range(10)}),
        "g": Recorded(lambda x: {x: 0.5, -x: 0.5}),
        "h": Recorded(sum),
    }
    ctx = context(NESTED, boxes, {}, provenance=provenance, samples=3, generator=seeded())
    ctx.set_input_mapping("a", range(1, 20))
    function = ctx.forward_function("s", distribution=True)
    p = torch.full((2, 19), 1 / 19)
    for _ in range(4):
        before = sum(len(box.calls) for box in boxes.values())
        y = function(a=p)
        assert y.calls == sum(len(box.calls) for box in boxes.values()) - before
        assert all(len(content) == 1 for (content,) in boxes["h"].calls)
        # Of three worlds an example, each of probability 1 in 19 * 10 * 2: the answers of calls
        # that a world does not ask for are no part of it.
        assert y.coverage.tolist() == pytest.approx([3 / 380] * 2, rel=1e-3)
    for box in boxes.values():
        assert len(box.calls) == len(set(box.calls))
    assert len(boxes["g"].calls) <= 4 * 6


def test_probabilities_of_answers_are_those_of_a_sample() -> None:
    """One answer of probability 1 in 10 each, in a batch with many other calls."""
    program = "@blackbox type f(bound x: i32, y: i32)\ntype a(i32)\nrel q(y) = a(x) and f(x, y)"
    ctx = context(
        program,
        {"f": lambda x: dict.fromkeys(range(10), 0.1)},
        {},
        provenance="sampled",
        samples=300,
        generator=seeded(),
    )
    ctx.set_input_mapping("a", range(8))
    y = ctx.forward_function("q", distribution=True)(a=torch.eye(8))
    assert y.coverage.tolist() == pytest.approx([1.0] * 8)
    assert torch.allclose(y.probs, torch.full((8, 10), 0.1))


@pytest.mark.parametrize("provenance", [*PROVENANCES, "unit", "topkproofs"])
def test_a_round_is_one_evaluation(provenance: str) -> None:
    sizes: list[int] = []

    def f(x: Any) -> Any:
        sizes.append(len(x))
        return x - 1

    program = (
        "@blackbox(vectorized=true) type f(bound x: i32, y: i32)\ntype a(i32)\n"
        "rel q(x) = a(x)\nrel q(y) = q(x) and x > 0 and f(x, y)"
    )
    ctx = context(program, {"f": f}, {}, provenance=provenance, samples=500, generator=seeded())
    some = [10, 20, 30]
    ctx.add_facts(
        "a", [(x,) for x in some] if provenance == "unit" else [(0.9, (x,)) for x in some]
    )
    ctx.run()
    list(ctx.relation("q"))
    assert sum(sizes) == 30
    assert len(sizes) <= 10
    ctx.run()
    assert sum(sizes) == 30


@pytest.mark.parametrize("provenance", [*PROVENANCES, "unit", "topkproofs"])
def test_a_failed_step_is_forgotten(provenance: str) -> None:
    broken = True

    def g(x: int) -> int:
        if broken:
            raise OSError("the service is down")
        return 2 * x

    first = Recorded(lambda x: {x + 1: 0.5, x + 2: 0.5} if broken else x + 3)
    program = (
        "@blackbox type f(bound x: i32, y: i32)\n@blackbox type g(bound x: i32, y: i32)\n"
        "type a(i32)\nrel r(y) = a(x) and f(x, y)\nrel q(y) = r(x) and g(x, y)"
    )
    ctx = context(program, {"f": first, "g": g}, {}, provenance=provenance, samples=50)
    ctx.add_facts("a", [(1,)] if provenance == "unit" else [(1.0, (1,))])
    with pytest.raises(BlackBoxError, match="the service is down"):
        ctx.run()
    broken = False
    ctx.run()
    found = [row if provenance == "unit" else row[1] for row in list(ctx.relation("q"))]
    assert found == [(8,)]
    assert first.calls == [(1,), (1,)]


def test_a_black_box_of_two_declarations_is_called_once() -> None:
    calls: list[int] = []

    @blackbox(Integer(0, 9), output=Integer(0, 9), budget=2)
    def f(x: int) -> int:
        calls.append(x)
        return (x + 1) % 10

    program = (
        '@blackbox("f") type f(bound x: i32, y: i32)\n@blackbox("f") type $h(x: i32) -> i32\n'
        "type a(i32)\nrel q(y, z) = a(x) and f(x, y) and z == $h(x)"
    )
    ctx = context(program, {"f": f}, {"a": [(0.5, 1), (0.5, 9)]}, provenance="exact")
    ctx.run()
    assert result(ctx) == close({(2, 2): 0.5, (0, 0): 0.5})
    assert sorted(calls) == [1, 9]
    assert ctx.distribution("q").calls == 2


@pytest.mark.parametrize(
    "body",
    [
        "a(x) and f(x, y) and e(x, z)",
        "f(x, y) and e(x, z) and a(x)",
        "a(x) and y == $g(x) and e(x, z) and x != 3",
    ],
)
def test_what_the_rest_of_a_body_rules_out_is_not_asked(body: str) -> None:
    """In whatever order it is written; so no world is lost to a call that it has no use for."""

    def f(x: int) -> int:
        if x == 2:
            raise ValueError("two")
        return x

    box = Recorded(f)
    program = f"""
    @blackbox("f", on_error="discard") type f(bound x: i32, y: i32)
    @blackbox("f", on_error="discard") type $g(x: i32) -> i32
    type a(i32), e(i32, i32)
    rel q(y, z) = {body}
    """
    facts: Facts = {"a": [(0.5, 1), (0.5, 2), (0.5, 4)], "e": [(0.5, (1, 7)), (0.5, (2, 3))]}
    ctx = context(program, {"f": box}, facts, provenance="exact")
    ctx.run()
    assert sorted(box.calls) == [(1,), (2,)]
    assert result(ctx) == close({(1, 7): 0.75 * 0.25})
    assert ctx.lost == {"q": close(0.25)}


def test_a_table_that_outgrows_its_budget_is_sampled() -> None:
    box = Recorded(lambda x: x % 3)
    program = (
        "@blackbox(budget=10) type f(bound x: i32, y: i32)\ntype a(i32)\nrel q(y) = a(x), f(x, y)"
    )

    def run(size: int) -> ScallopContext:
        ctx = context(program, {"f": box}, {}, provenance="auto", samples=5, generator=seeded())
        ctx.add_facts("a", [(1 / size, (i,)) for i in range(size)], [list(range(size))])
        ctx.run()
        return ctx

    ctx = run(10)
    assert result(ctx) == close({0: 0.4, 1: 0.3, 2: 0.3})
    assert ctx.plan().provenance == "exact"
    assert ctx.plan().calls == {"f": 10}
    box.calls.clear()
    with pytest.warns(
        RuntimeWarning, match=r"sampled: .*q.*20 calls of the black box f, more than 10"
    ):
        ctx = run(20)
    assert ctx.plan().provenance == "sampled"
    assert 0 < len(box.calls) <= 5


def test_the_exact_engine_sees_simple_contradictions() -> None:
    """`r(1)` fails only where `a(1)` and `a(3)` do."""
    box = Recorded(sum)
    program = (
        '@blackbox(over="r") type h(n: i32)\ntype a(i32)\n'
        "rel r(x) = a(x)\nrel r(1) = a(3)\nrel q(n) = h(n)"
    )
    facts: Facts = {"a": THREE}
    ctx = context(program, {"h": box}, facts, provenance="exact")
    ctx.run()
    expected, _ = enumerated(facts, lambda w: {sum(w["a"] | ({1} if 3 in w["a"] else set()))})
    assert result(ctx) == close(expected)
    assert sorted(box.calls) == [((),), ((1,),), ((1, 2),), ((1, 2, 3),), ((1, 3),), ((2,),)]


def test_mixed_does_not_enumerate_without_end() -> None:
    program = '@blackbox(over="a") type f(y: i32)\ntype a(i32, i32)\nrel q(y) = f(y)'
    ctx = context(program, {"f": len}, {}, provenance="mixed", sampled=[], samples=2)
    ctx.set_input_mapping("a", {0: range(7), 1: range(14)}, disjunctive_dim=1)
    with pytest.raises(ByssusError, match="10001 calls of the black box f, more than 10000"):
        ctx.forward_function("q")(a=torch.full((2, 7, 14), 1 / 14))


# What functions do


ONE = "type f(bound x: i32, y: %s)\nrel a = {0.5::1, 0.5::2}\nrel q(y) = a(x) and f(x, y)"


def one(function: Callable[..., Any], options: str = "", type_: str = "i32") -> ScallopContext:
    ctx = context(f"@blackbox{options} {ONE % type_}", {"f": function}, {}, provenance="exact")
    ctx.run()
    return ctx


def test_a_random_function_is_refused() -> None:
    with pytest.raises(ByssusError, match=r"memo=false.*return a dictionary"):
        one(lambda x: x, "(memo=false)")

    @blackbox(Integer(0, 9), memo=False)
    def f(x: int) -> int:
        return x

    with pytest.raises(ByssusError, match=r"f has memo=False.*return a dictionary"):
        one(f)
    calls: list[int] = []

    def numbered(x: int) -> int:
        calls.append(x)
        return len(calls)

    with pytest.raises(
        NondeterministicError, match=r"f\(1\) gave two different answers.*dictionary"
    ):
        one(numbered, "(check=1)")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("options", ["", '(on_error="discard")'])
def test_what_ends_the_process_is_not_discarded(error: type[BaseException], options: str) -> None:
    def f(x: int) -> int:
        raise error("now")

    with pytest.raises(error, match="now"):
        one(f, options)


def test_a_coroutine() -> None:
    async def f(x: int) -> list[int]:
        return [x, x + 1]

    assert result(one(f)) == close({1: 0.5, 2: 0.75, 3: 0.5})


@pytest.mark.parametrize(
    ("answer", "type_", "said"),
    [
        ("no", "i32", r"f\(1\) returned 'no'.*must be an int"),
        (1.5, "i32", r"f\(1\) returned 1\.5.*must be an int"),
        (float("nan"), "f32", r"f\(1\) returned nan.*must be a number"),
        (300, "i8", r"f\(1\) returned 300.*from -128 to 127"),
        ((1, 2), "i32", r"f\(1\) returned \(1, 2\).*return one value"),
        ([{"a": 1}], "i32", r"f\(1\) returned \[\{'a': 1\}\].*must be an int"),
        (None, "i32", r"f\(1\) returned None"),
    ],
)
def test_an_answer_that_does_not_fit(answer: Any, type_: str, said: str) -> None:
    with pytest.raises(BlackBoxOutputError, match=said):
        one(lambda x: answer, type_=type_)


@pytest.mark.embedded("Scallop does not give tensors back as it takes them")
def test_a_tensor_is_an_answer() -> None:
    ctx = one(lambda x: torch.ones(2) * x, type_="Tensor")
    found = sorted((row[0].tolist(), p) for p, row in list(ctx.relation("q")))
    assert found == [([1.0, 1.0], close(0.5)), ([2.0, 2.0], close(0.5))]


def test_answers_do_not_carry_a_graph_from_step_to_step() -> None:
    weight = torch.tensor(0.3, requires_grad=True)
    with pytest.raises(BlackBoxOutputError, match=r"depends on a network.*detach"):
        one(lambda x: {1: weight.sigmoid()})
    assert result(one(lambda x: {1: weight.sigmoid().detach()})) == close(
        {1: 1 - (1 - 0.5 * 0.574442517) ** 2}
    )


@pytest.mark.parametrize(
    ("type_", "given", "seen"),
    [
        *(
            pytest.param(*case, marks=pytest.mark.embedded("Scallop does not give dates back"))
            for case in [
                ("DateTime", "2020-01-01", "2020-01-01 00:00:00 UTC"),
                ("Duration", "P1D", "PT86400S"),
            ]
        ),
        ("Symbol", "s", "s"),
        ("char", "c", "c"),
        ("f64", 0.5, 0.5),
    ],
)
def test_all_forms_give_functions_the_same_values(type_: str, given: Any, seen: Any) -> None:
    found: list[Any] = []

    def f(content: Any) -> int:
        found.extend(content)
        return 1

    def g(value: Any) -> bool:
        found.append(value)
        return True

    def h(column: Any) -> list[bool]:
        found.extend(column.tolist())
        return [True] * len(column)

    program = f"""
    type a({type_})
    @blackbox(over="a") type f(n: i32)
    @blackbox type g(bound x: {type_})
    @blackbox(vectorized=true) type h(bound x: {type_})
    rel q(x) = a(x) and g(x) and h(x) and f(1)
    """
    ctx = context(program, {"f": f, "g": g, "h": h}, {"a": [(1.0, given)]}, provenance="exact")
    ctx.run()
    assert result(ctx) == close({seen: 1.0})
    assert found == [seen] * 3


@pytest.mark.parametrize("provenance", [*PROVENANCES, "unit"])
def test_recursion_without_end(provenance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("_engine", "_rounds"):
        monkeypatch.setattr(f"byssus_scallop.{module}._ROUNDS", 100)
    program = "@blackbox type f(bound x: i64, y: i64)\nrel q = {1}\nrel q(y) = q(x) and f(x, y)"
    ctx = context(program, {"f": lambda x: x + 1}, {}, provenance=provenance)
    with pytest.raises(
        ByssusError, match=r"(?s)asked 100 times in a row.*bound the recursion.*line 1"
    ):
        ctx.run()


def test_a_budget_ends_before_the_call() -> None:
    box = Recorded(lambda x: x)
    with pytest.raises(BudgetExceeded, match="budget of 1 calls"):
        one(box, "(budget=1)")
    assert box.calls == []


def test_files_are_relative_to_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules" / "code").mkdir(parents=True)
    (tmp_path / "rules" / "code" / "box.py").write_text("def twice(x):\n    return 2 * x\n")
    (tmp_path / "rules" / "main.scl").write_text(
        '@blackbox("code/box.py:twice") type $twice(x: i32) -> i32\n'
        '@blackbox("operator:add") type add(bound x: i32, bound y: i32, z: i32)\n'
        "rel a = {0.5::1, 0.5::2}\nrel q(z) = a(x) and add($twice(x), 1, z)\n"
    )
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    ctx = ScallopContext(provenance="exact")
    ctx.import_file("../rules/main.scl")
    ctx.run()
    assert result(ctx) == close({3: 0.5, 5: 0.5})


# Learning


@pytest.mark.parametrize(
    "options",
    [
        {"provenance": "exact"},
        {"provenance": "sampled", "worlds": byssus.exhaustive, "estimator": "distinct"},
        {"provenance": "mixed", "worlds": byssus.exhaustive, "estimator": "distinct"},
    ],
    ids=["exact", "sampled", "mixed"],
)
def test_gradients(options: dict[str, Any]) -> None:
    p = torch.randn(2, 3, 4, dtype=torch.float64, generator=seeded()).softmax(-1).requires_grad_()
    right = torch.stack(
        [
            torch.stack(
                [p[0, :, x] * p[1, :, y] for x in range(4) for y in range(4) if x * y % 3 == z]
            ).sum(0)
            for z in range(3)
        ],
        1,
    )
    weights = torch.rand(3, 3, dtype=torch.float64, generator=seeded(1))
    (expected,) = torch.autograd.grad((right * weights).sum(), p, retain_graph=True)
    program = (
        "@blackbox type f(bound x: i32, bound y: i32, z: i32)\ntype a(i32), b(i32)\n"
        "rel q(z) = a(x) and b(y) and f(x, y, z)"
    )
    ctx = context(program, {"f": lambda x, y: x * y % 3}, {}, samples=1000, **options)
    for name in "ab":
        ctx.set_input_mapping(name, range(4))
    y = ctx.forward_function("q", [0, 1, 2])(a=p[0], b=p[1])
    assert torch.allclose(y, right)
    (found,) = torch.autograd.grad((y * weights).sum(), p)
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("provenance", PROVENANCES)
def test_training(provenance: str) -> None:
    """Digits of which only a Python function of both is known."""
    box = Recorded(lambda x, y: x + y)
    program = (
        "@blackbox type f(bound x: i32, bound y: i32, z: i32)\ntype a(i32), b(i32)\n"
        "rel q(z) = a(x) and b(y) and f(x, y, z)"
    )
    ctx = context(program, {"f": box}, {}, provenance=provenance, samples=30, generator=seeded())
    for name in "ab":
        ctx.set_input_mapping(name, range(4))
    function = ctx.forward_function("q", list(range(7)), distribution=True)
    logits = torch.zeros(2, 8, 4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    targets = [6] * 4 + [0] * 4
    for _ in range(50):
        p = logits.softmax(-1)
        loss = function(a=p[0], b=p[1]).loss(targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert logits.argmax(-1).sum(0).tolist() == targets
    assert len(box.calls) == len(set(box.calls)) <= 16


# Speed


def seconds(step: Callable[[], object]) -> float:
    """Of processor time, the least of three."""
    found = []
    for _ in range(3):
        start = time.process_time()
        step()
        found.append(time.process_time() - start)
    return min(found)


def test_a_step_of_formulas() -> None:
    signs = [*"0123456789+-*/"]

    def value(symbols: tuple[tuple[int, str], ...]) -> float:
        return float(eval("".join(sign for _, sign in symbols)))

    program = (
        '@blackbox(over="symbol", on_error="discard", samples=100) type f(y: f64)\n'
        "type symbol(place: usize, sign: String)\nrel q(y) = f(y)"
    )
    ctx = context(program, {"f": value}, {}, provenance="sampled", generator=seeded())
    ctx.set_input_mapping("symbol", {0: range(7), 1: signs}, disjunctive_dim=1)
    function = ctx.forward_function("q", distribution=True)
    logits = 3 * torch.randn(16, 7, 14, generator=seeded())
    lengths = torch.arange(16) % 7 + 1
    p = logits.softmax(-1) * (torch.arange(7) < lengths[:, None])[:, :, None]
    p.requires_grad_()

    def step() -> None:
        function(symbol=p).loss([3.0] * 16).backward()

    step()
    assert seconds(step) < 0.2


@pytest.mark.parametrize("provenance", ["sampled", "mixed"])
def test_a_join_of_many_relations_is_one_by_world(provenance: str) -> None:
    """100 worlds of 8 and 16 digits: the product of their values would be 10**16."""
    batch = 64 if provenance == "sampled" else 4

    def took(count: int) -> float:
        names = [f"d{i}" for i in range(count)]
        variables = [f"x{i}" for i in range(count)]
        program = (
            f"type {', '.join(f'{n}(i32)' for n in names)}\nrel total({' + '.join(variables)}) = "
            + " and ".join(f"{n}({x})" for n, x in zip(names, variables, strict=True))
        )
        module = Module(
            program=program,
            provenance=provenance,
            samples=100,
            sampled=names if provenance == "mixed" else None,
            generator=seeded(),
            input_mappings=dict.fromkeys(names, range(10)),
            output_mappings={"total": range(9 * count + 1)},
        )
        p = {n: torch.full((batch, 10), 0.1) for n in names}
        return seconds(lambda: module(**p))

    assert took(8) < 1.5
    assert took(16) < 4


@pytest.mark.embedded("Scallop joins whole relations, the embedded engine by worlds")
def test_a_join_of_large_relations_is_one_by_world() -> None:
    """Two derived relations with a tuple for each of 6,400 worlds."""
    program = """
    type d(i32, i32), e(i32, i32)
    rel left(1000 * x + y) = d(0, x) and d(1, y)
    rel right(1000 * x + y) = e(0, x) and e(1, y)
    rel q(x % 7 + y % 7) = left(x) and right(y)
    """
    ctx = context(program, {}, {}, provenance="sampled", samples=100, generator=seeded())
    for name in "de":
        ctx.set_input_mapping(name, {0: range(2), 1: range(1000)}, disjunctive_dim=1)
    function = ctx.forward_function("q", range(13))
    p = torch.full((64, 2, 1000), 0.001)
    assert seconds(lambda: function(d=p, e=p)) < 3


def test_a_box_on_both_sides_of_a_negation_is_to_be_declared_twice() -> None:
    program = """
        {second}
        @blackbox("f") type f(bound x: i32, y: i32)
        rel e = {{0.5::1, 2}}
        rel a(y) = e(x) and f(x, y)
        rel b(x) = e(x) and not a(x)
        rel c(y) = b(x) and {name}(x, y)
    """
    ctx = ScallopContext("exact")
    ctx.register_blackbox(lambda x: x + 1, "f")
    with pytest.raises(byssus.ProgramError, match="black box f is asked both before and after"):
        ctx.add_program(program.format(second="", name="f"))
    second = '@blackbox("f") type g(bound x: i32, y: i32)'
    ctx.add_program(program.format(second=second, name="g"))
    ctx.run()
    # e(2) is certain and 2 = f(1): b(2) holds where e(1) does not.
    assert list(ctx.relation("c")) == [(0.5, (2,)), (0.5, (3,))]


@pytest.mark.parametrize("provenance", ["exact", "auto"])
def test_a_box_beside_its_own_negation(provenance: str) -> None:
    """One choice for each argument: by hand over the four pairs of answers."""
    program = """
        @blackbox("f") type f(bound x: String, y: String)
        rel both() = f("u", "a") and f("v", "a")
        rel one() = f("u", "a") and not f("v", "a")
        rel none() = not f("u", "a") and not f("v", "a")
        rel e = {0.5::"u", "w"}
        rel other(x) = e(x) and f(x, y) and not f(x, "a")
        query both
        query one
        query none
        query other
    """
    ctx = ScallopContext(provenance)
    ctx.register_blackbox(lambda x: {"a": 0.7, "b": 0.3} if x != "v" else {"a": 0.2, "b": 0.8}, "f")
    ctx.add_program(program)
    ctx.run()
    found = {name: list(ctx.relation(name)) for name in ("both", "one", "none", "other")}
    assert found["both"] == [(pytest.approx(0.14), ())]
    assert found["one"] == [(pytest.approx(0.56), ())]
    assert found["none"] == [(pytest.approx(0.24), ())]
    assert found["other"] == [(pytest.approx(0.15), ("u",)), (pytest.approx(0.3), ("w",))]
