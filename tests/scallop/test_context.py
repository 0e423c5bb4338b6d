"""Contexts: facts, runs, copies, and what they cost."""

import time
from typing import Any

import pytest
import torch

import byssus_scallop as scallopy
from byssus import ByssusError, ProbabilityError

PATH = "path(a, c) = edge(a, c) or path(a, b) and edge(b, c)"
DIFFERENTIABLE = ["exact", "difftopkproofs", "diffaddmultprob", "diffminmaxprob", "diffmaxmultprob"]


def edges(provenance: str = "exact") -> scallopy.ScallopContext:
    ctx = scallopy.ScallopContext(provenance=provenance)
    ctx.add_relation("edge", (int, int))
    ctx.add_rule(PATH)
    return ctx


@pytest.mark.parametrize("provenance", DIFFERENTIABLE)
def test_tags_are_scalars_with_gradients(provenance: str) -> None:
    p = torch.tensor(0.25, requires_grad=True)
    ctx = edges(provenance)
    ctx.add_facts("edge", [(p, (0, 1)), (None, (1, 2))])
    ctx.run()
    tags = [tag for tag, row in ctx.relation("path") if row in ((0, 1), (0, 2))]
    for tag in tags:
        assert tag.shape == ()
    torch.stack(tags).sum().backward()
    assert p.grad == 2.0


@pytest.mark.parametrize("provenance", ["exact", "unit", "minmaxprob", "difftopkproofs"])
def test_a_copy_has_the_results_and_is_independent(provenance: str) -> None:
    ctx = edges(provenance)
    tag = () if provenance == "unit" else (0.5,)

    def rows(of: scallopy.ScallopContext, name: str = "path") -> list[Any]:
        return [one if provenance == "unit" else one[1] for one in of.relation(name)]

    def fact(a: int, b: int) -> Any:
        return (*tag, (a, b)) if tag else (a, b)

    ctx.add_facts("edge", [fact(0, 1)])
    ctx.run()
    other = ctx.clone()
    assert rows(other) == [(0, 1)]
    other.add_facts("edge", [fact(1, 2)])
    other.add_rule("start(a) = path(a, _)")
    assert rows(other) == [(0, 1)]
    other.run()
    assert rows(other) == [(0, 1), (0, 2), (1, 2)]
    assert rows(other, "start") == [(0,), (1,)]
    assert rows(ctx) == [(0, 1)]
    assert not ctx.has_relation("start")


def test_facts_between_runs_add_up() -> None:
    ctx = edges()
    ctx.add_facts("edge", [(0.5, (0, 1))])
    ctx.run()
    ctx.add_facts("edge", [(0.5, (1, 2))])
    assert list(ctx.relation("path")) == [(0.5, (0, 1))]
    ctx.run()
    assert list(ctx.relation("path")) == [(0.5, (0, 1)), (0.25, (0, 2)), (0.5, (1, 2))]


def test_gradients_of_facts_and_of_tags_of_rules() -> None:
    def reached(x: torch.Tensor) -> torch.Tensor:
        ctx = scallopy.ScallopContext(provenance="exact")
        ctx.add_relation("edge", (int, int))
        ctx.add_facts(
            "edge", [(x[0], (0, 1)), (x[1], (0, 2)), (None, (1, 3))], disjunctions=[[0, 1]]
        )
        ctx.add_rule("path(a, c) = edge(a, c) or path(a, b) and edge(b, c)", tag=x[2])
        ctx.run()
        return torch.stack([tag for tag, _ in ctx.relation("path")])

    x = torch.tensor([0.3, 0.4, 0.6], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(reached, (x,))


def test_facts_that_do_not_matter_cost_nothing() -> None:
    ctx = scallopy.ScallopContext(provenance="exact")
    ctx.add_relation("edge", (int, int))
    ctx.add_rule("second(c) = edge(7, b) and edge(b, c)")
    start = time.perf_counter()
    ctx.add_facts("edge", [(0.5, (i, i + 1)) for i in range(20_000)])
    ctx.run()
    assert list(ctx.relation("second")) == [(0.25, (9,))]
    # Compiled over all 20,000 facts it takes minutes.
    assert time.perf_counter() - start < 30


def test_a_probability_is_checked_by_the_run() -> None:
    ctx = edges()
    ctx.add_facts("edge", [(1.5, (0, 1))])
    with pytest.raises(ProbabilityError, match=r"edge\(0, 1\) has probability 1.5"):
        ctx.run()


@pytest.mark.parametrize("tag", ["x", [0.5], torch.ones(3)])
def test_tags_of_rules_are_probabilities(tag: Any) -> None:
    ctx = edges()
    with pytest.raises(ByssusError, match="a probability is a number or a tensor of one element"):
        ctx.add_rule("start(a) = path(a, _)", tag=tag)


def test_facts_of_a_non_probabilistic_relation_have_no_tags() -> None:
    ctx = edges()
    ctx.set_non_probabilistic("edge")
    ctx.add_facts("edge", [(0, 1)])
    with pytest.raises(ByssusError, match="edge is non-probabilistic"):
        ctx.add_facts("edge", [(0.5, (1, 2))])


@pytest.mark.parametrize("disjunctions", [[0], [3], 5])
def test_disjunctions_are_lists_of_positions(disjunctions: Any) -> None:
    with pytest.raises(ByssusError, match="disjunctions of edge"):
        edges().add_facts("edge", [(0.5, (0, 1))], disjunctions=disjunctions)


def test_programs_are_text() -> None:
    ctx = edges()
    for add in (ctx.add_rule, ctx.add_program, ctx.add_item):
        with pytest.raises(ByssusError, match="a program is text"):
            add(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("provenance", "probabilistic", "disjunctions"),
    [
        ("exact", True, True),
        ("unit", False, False),
        ("proofs", False, True),
        ("minmaxprob", True, False),
        ("topkproofs", True, True),
        ("topbottomkclauses", True, True),
        ("diffminmaxprob", False, False),
        ("difftopkproofs", False, True),
    ],
)
def test_what_a_provenance_can_do(provenance: str, probabilistic: bool, disjunctions: bool) -> None:
    ctx = scallopy.ScallopContext(provenance=provenance)
    assert ctx.is_probabilistic() is probabilistic
    assert ctx.supports_disjunctions() is disjunctions


def test_rules_that_are_added_one_by_one_have_coins_of_their_own() -> None:
    ctx = scallopy.ScallopContext("exact")
    ctx.add_rule("0.5::a() = b()")
    ctx.add_rule("0.5::c() = b()")
    ctx.add_rule("both() = a() and c()")
    ctx.add_program("rel b()")
    ctx.run()
    assert list(ctx.relation("both")) == [(0.25, ())]
