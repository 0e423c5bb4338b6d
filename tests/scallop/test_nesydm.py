"""Programs as functions from worlds, and the provenance that runs over worlds that are given."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from byssus import ByssusError, DomainError, Integer, ShapeError, TargetError, blackbox
from byssus.diffusion import MaskedDiffusion, WorldProgram
from byssus_scallop import Map, Module, ScallopContext
from oracle import count, world_weights
from scallop.test_random_programs import make
from scallop.world_oracle import Case, Oracle, cases

SUM = """
type one(i32), two(i32)
rel total(x + y) = one(x) and two(y)
"""
EDGES = [(0, 1), (1, 2), (0, 2), (2, 1), (2, 3)]
PATH = """
type edge(i32, i32)
rel path(a, c) = edge(a, c) or path(a, b) and edge(b, c)
"""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def softmax(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed)).softmax(-1)


def module(program: str, inputs: dict[str, Any], outputs: dict[str, Any], **options: Any) -> Module:
    options = {"provenance": "nesydm", **options}
    return Module(program=program, input_mappings=inputs, output_mappings=outputs, **options)


def summing(size: int = 3, **options: Any) -> Module:
    values = range(size)
    return module(SUM, {"one": values, "two": values}, {"total": range(2 * size - 1)}, **options)


def paths(**options: Any) -> Module:
    edges = Map(EDGES, disjunctive=False)
    return module(PATH, {"edge": edges}, {"path": [(0, 1), (0, 3), (1, 3)]}, **options)


def boxed(program: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Module:
    """A module whose program is added once its black box is known."""
    made = module("", {}, {}, **options)
    made.ctx.register_blackbox(function)
    made.ctx.add_program(program)
    inputs, outputs = arguments
    for name, mapping in inputs.items():
        made.ctx.set_input_mapping(name, mapping)
    made.forward_fn = made.ctx.forward_function(output_mappings=outputs)
    return made


def all_worlds(program: WorldProgram) -> Tensor:
    rows = list(product(*map(range, program.widths)))
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), len(program.widths))


def concept_probabilities(program: WorldProgram, seed: int = 0) -> list[Tensor]:
    """A distribution for each column that is predicted, (1, width)."""
    return [softmax(1, w, seed=seed + i) for i, w in enumerate(program.concept_widths)]


def counts(program: WorldProgram, probs: Sequence[Tensor]) -> list[Tensor]:
    """For each root its weighted model count, by running all worlds."""
    own = [] if program.own is None else [program.own()[None]]
    together = torch.cat([*probs, *own], 1)
    weights = world_weights(together, program.widths)[0]
    codes = program.run(all_worlds(program))
    found = [
        weights[codes[:, d] == value].sum()
        for d, values in enumerate(program.dimensions)
        for value in range(len(values))
    ]
    if program.formula is not None:
        rules = count(program.formula, together)[0]
        torch.testing.assert_close(rules, torch.stack(found), atol=1e-9, rtol=0)
    return found


# Programs as functions from worlds


def test_a_sum() -> None:
    made = summing()
    program = made.world_program()
    assert program.names == ("one", "two")
    assert [domain.values for domain in program.domains] == [(0, 1, 2)] * 2
    assert program.dimensions == ((0, 1, 2, 3, 4),)
    assert program.own is None
    worlds = all_worlds(program)
    assert program.run(worlds).flatten().tolist() == worlds.sum(1).tolist()
    probs = concept_probabilities(program)
    right = summing(provenance="exact")(one=probs[0], two=probs[1])
    torch.testing.assert_close(torch.stack(counts(program, probs)), right[0])


def test_a_recursion_over_uncertain_facts() -> None:
    program = paths().world_program()
    assert program.concept_widths == (2,) * 5
    assert program.dimensions == ((False, True),) * 3
    for world, codes in zip(
        all_worlds(program).tolist(), program.run(all_worlds(program)).tolist(), strict=True
    ):
        reached = {e for e, holds in zip(EDGES, world, strict=True) if holds}
        for _ in EDGES:
            reached |= {(a, d) for a, b in reached for c, d in reached if b == c}
        assert codes == [pair in reached for pair in [(0, 1), (0, 3), (1, 3)]]
    counts(program, concept_probabilities(program))


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)
@given(case=cases(), data=st.data())
def test_programs_against_all_their_worlds(case: Case, data: st.DataObject) -> None:
    """Facts of some relations are concepts, those of others the program's own."""
    facts = list(dict.fromkeys(fact for concept in case.concepts for fact in concept))
    names = sorted({fact.relation for fact in facts})
    assume(names)
    facts.sort(key=lambda fact: fact.relation)
    case = replace(case, concepts=[(fact,) for fact in facts])
    oracle = Oracle(case, most=300)
    concepts = data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
    probs = [softmax(1, 2, seed=i)[:, 1:] for i in range(len(facts))]
    ctx = make(case, provenance="nesydm")
    for fact in case.certain:
        ctx.add_facts(fact.relation, [fact.row])
    for fact, p in zip(facts, probs, strict=True):
        if fact.relation not in concepts:
            ctx.add_facts(fact.relation, [(p[0, 0], fact.row)])
    for name in concepts:
        rows = [fact.row for fact in facts if fact.relation == name]
        ctx.set_input_mapping(name, Map(rows, disjunctive=False))
    rows = {name: oracle.rows(name) for name in case.outputs}
    outputs = {name: list(some) for name, some in rows.items() if some}
    assume(outputs)
    program = ctx.forward_function(output_mappings=outputs).world_program()
    assume(math.prod(program.widths) <= 3000)
    of = dict(zip(facts, probs, strict=True))
    given_ = [of[fact] for name in concepts for fact in facts if fact.relation == name]
    found = iter(counts(program, [torch.cat([1 - p, p], 1) for p in given_]))
    dimensions = iter(program.dimensions)
    weights = oracle.weights(probs)
    for name, some in outputs.items():
        right = (weights @ oracle.holds(name, some))[0]
        together = oracle.holds(name, some).sum(1)
        exclusive = len(some) > 1 and bool((together < 2).all())
        for row, p in zip(some, right, strict=True):
            if not exclusive:
                assert next(dimensions) == (False, True), case.text()
                assert float(next(found)) == pytest.approx(1 - float(p), abs=1e-6), case.text()
            assert float(next(found)) == pytest.approx(float(p), abs=1e-6), f"{row} {case.text()}"
        if exclusive:
            assert len(next(dimensions)) == len(some)


def test_mappings_say_what_is_an_alternative_of_what() -> None:
    def widths(mapping: Any, types: str = "i32, i32") -> tuple[tuple[int, ...], Any]:
        program = module(f"type a({types})\nrel q(x) = a(x, _)", {"a": mapping}, {"q": [0, 1]})
        domain = program.world_program().domains[0]
        return domain.widths, domain

    pairs = [(i, j) for i in range(2) for j in range(3)]
    assert widths(pairs)[0] == (6,)
    assert widths(Map(pairs, disjunctive=False))[0] == (2,) * 6
    assert widths([pairs[:3], pairs[3:]])[0] == (3, 3)
    assert widths(Map([pairs[:3], pairs[3:]], disjunctive=True))[0] == (6,)
    assert widths({0: range(2), 1: range(3)})[0] == (3, 3)
    by_column, domain = widths(Map({0: range(2), 1: range(3)}, disjunctive_dim=0))
    assert by_column == (2, 2, 2)
    assert domain.domains[1].values == ((0, 1), (1, 1))
    assert widths((0, 1))[0] == (2,)
    assert widths([[(0, 1)], [(1, 1)]])[0] == (2, 2)


def test_facts_and_tags_of_the_program_are_its_own() -> None:
    rain = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    program = """
    type a(i32)
    rel late = {0.2::1; 0.5::2}
    rel 0.6::heard(x) = a(x)
    rel {left(x); right(x)} = heard(x), not late(x)
    rel out("left") = left(x)
    rel out("right") = right(x)
    rel out("none") = n == 0, n := count(x: heard(x), not late(x))
    rel q() = wet() and out("none")
    """
    made = module(program, {"a": range(3)}, {"out": ["left", "right", "none"], "q": ()})
    made.ctx.add_relation("wet", ())
    made.ctx.add_facts("wet", [(rain, ())])
    found = made.world_program()
    assert found.dimensions == (("left", "right", "none"), (False, True))
    assert found.own is not None
    assert found.own().shape == (sum(found.own_widths),)
    probs = concept_probabilities(found)
    exact = made.ctx.clone("exact").forward_function(output_mappings={"out": None, "q": None})
    (rows, right), (_, wet) = exact(a=probs[0]).values()
    got = counts(found, probs)
    for row, p in zip(rows, right[0], strict=True):
        index = ["left", "right", "none"].index(row[0])
        assert got[index].item() == pytest.approx(p.item())
    assert got[4].item() == pytest.approx(wet.item())
    # What is learned is read anew.
    (gradient,) = torch.autograd.grad(got[4], rain)
    assert float(gradient) == pytest.approx(wet.item() / 0.3)
    with torch.no_grad():
        rain.fill_(0.5)
    assert found.own()[4].item() == 0.5


def test_later_additions_are_another_program() -> None:
    made = summing()
    before = made.world_program()
    made.ctx.add_rule("total(0) = one(2)")
    worlds = torch.tensor([[2, 2]])
    assert before.run(worlds).tolist() == [[4]]
    after = made.world_program()
    assert len(after.dimensions) == 5
    assert after.run(worlds).tolist() == [[1, 0, 0, 0, 1]]


CALLED = """
@blackbox("f")
type f(bound x: i32, bound y: i32, z: i32)
type one(i32), two(i32)
rel total(z) = one(x) and two(y) and f(x, y, z)
"""
DIGITS = {"one": range(3), "two": range(3)}


def test_a_black_box_within_its_budget_is_part_of_the_rules() -> None:
    asked: list[tuple[int, int]] = []

    def f(x: int, y: int) -> int:
        asked.append((x, y))
        return x * y

    program = boxed(CALLED, f, DIGITS, {"total": [0, 1, 2, 4]}).world_program()
    assert program.formula is not None
    counts(program, concept_probabilities(program))
    assert sorted(asked) == list(product(range(3), repeat=2))


def test_a_black_box_beyond_it_is_run() -> None:
    asked: list[tuple[int, int]] = []

    def f(x: int, y: int) -> int:
        asked.append((x, y))
        return x * y

    text = CALLED.replace('"f"', '"f", budget=4', 1)
    made = boxed(text, f, DIGITS, {"total": [0, 1, 2, 4]}, samples=3)
    with pytest.warns(RuntimeWarning, match=r"total: .* calls of the black box f"):
        program = made.world_program(exclusive={"total": True})
    assert program.formula is None
    assert not program.tabulates
    assert not asked
    assert program.run(torch.tensor([[2, 2], [1, 0]])).flatten().tolist() == [3, 0]
    assert sorted(asked) == [(1, 0), (2, 2)]
    assert program.run(torch.empty(0, 2, dtype=torch.int64)).shape == (0, 1)


def test_worlds_whose_calls_failed_have_no_value() -> None:
    def f(x: int, y: int) -> int:
        return x // y

    text = CALLED.replace('"f"', '"f", on_error="discard"', 1)
    made = boxed(text, f, DIGITS, {"total": [0, 1]})
    program = made.world_program()
    worlds = torch.tensor([[1, 1], [1, 0], [2, 1]])
    assert program.run(worlds).flatten().tolist() == [1, -1, -1]
    counts(program, concept_probabilities(program))
    outputs = made(one=worlds[None, :, 0], two=worlds[None, :, 1])
    assert outputs.tolist() == [[0, pytest.approx(1 / 3)]]
    distribution = made.ctx.forward_function(output_mappings={"total": None}, distribution=True)
    found = distribution(one=worlds[None, :, 0], two=worlds[None, :, 1])
    assert found.lost.tolist() == [pytest.approx(1 / 3)]
    assert list(found.failures) == [("f", 1, 0)]
    assert found.values == (1, 2)


def test_tuples_that_hardly_ever_hold_together() -> None:
    """Random worlds do not show it, the rules do; and if there are none, a run does."""
    names = [f"{side}{i}" for side in "ab" for i in range(7)]
    text = "\n".join(
        [
            *(f"type {name}()" for name in names),
            *(
                f"rel q({n}) = {', '.join(f'{s}{i}()' for i in range(7))}"
                for n, s in enumerate("ab")
            ),
        ]
    )
    inputs: dict[str, Any] = dict.fromkeys(names, ())
    program = module(text, inputs, {"q": [0, 1]}).world_program()
    assert program.dimensions == ((False, True),) * 2
    assert len(summing(40).world_program().dimensions) == 1
    program = module(text, inputs, {"q": [0, 1]}, provenance="sampled").world_program()
    assert program.dimensions == ((0, 1),)
    with pytest.raises(ByssusError, match=r"both \(0,\) and \(1,\) .*exclusive=\{'q': False\}"):
        program.run(torch.ones(1, 14, dtype=torch.int64))
    made = module(text, inputs, {"q": [0, 1]}, provenance="sampled")
    program = made.world_program(exclusive={"q": False})
    assert program.run(torch.ones(1, 14, dtype=torch.int64)).tolist() == [[1, 1]]


def test_programs_that_are_no_functions_from_worlds() -> None:
    def refused(match: str, text: str, inputs: Any, outputs: Any, **options: Any) -> None:
        with pytest.raises(ByssusError, match=match):
            module(text, inputs, outputs, **options).world_program()

    refused("declared output dimensions.*'total'", SUM, {"one": range(3)}, {"total": None})
    refused("declared output dimensions", SUM, {"one": range(3)}, {})
    refused("input mapping", SUM, {}, {"total": range(3)})
    mapping = Map(range(3), retain_k=2)
    refused("retain_k", SUM, {"one": mapping, "two": range(3)}, {"total": [0]})
    text = "type one(i32)\nrel q(x) = x := top<1>(y: one(y))"
    refused("`top` asks how probable", text, {"one": range(3)}, {"q": range(3)})
    text = "type one(i32)\nrel q(x) = x := uniform<1>(y: one(y))"
    refused("`uniform` .* draws some", text, {"one": range(3)}, {"q": range(3)})
    text = "type one(i32)\nrel 0.5::q(x) = one(x)"
    refused("comes upon uncertain", text, {"one": [0, 1]}, {"q": [0, 1]}, provenance="sampled")
    with pytest.raises(ByssusError, match="exclusive= has 'tottal'"):
        summing().world_program(exclusive={"tottal": True})
    for known in (True, {"total": "yes"}):
        with pytest.raises(ByssusError, match=r"exclusive=.*: give {relation: True or False}"):
            summing().world_program(exclusive=known)  # type: ignore[arg-type]
    twice = {"total": [0, 1, 1, 2]}
    refused(r"mapping of total has \(1,\) twice", SUM, {"one": range(3), "two": range(3)}, twice)


# Worlds that are given


def test_given_worlds() -> None:
    worlds = torch.randint(0, 3, (4, 50, 2), generator=seeded())
    one, two = worlds.unbind(2)
    expected = torch.stack([(worlds.sum(2) == v).double().mean(1) for v in range(5)], 1)
    result = summing()(one=one, two=two)
    torch.testing.assert_close(result.double(), expected, atol=1e-6, rtol=0)
    assert not result.requires_grad
    found = summing(distribution=True)(one=one.int(), two=two.int())
    torch.testing.assert_close(found.probs.double(), expected, atol=1e-6, rtol=0)
    assert found.coverage.tolist() == [0] * 4  # it does not know how probable they are
    assert float(found.loss([2] * 4)) == pytest.approx(
        -float(expected[:, 2].log().mean()), abs=1e-5
    )
    assert summing()(one=one[:, :1], two=two[:, :1]).sum(1).tolist() == [1] * 4
    rows, result = module(SUM, DIGITS, {"total": None})(one=one[:1, :2], two=two[:1, :2])
    assert rows == sorted({(v,) for v in worlds[0, :2].sum(1).tolist()})


def test_given_worlds_of_several_columns_and_facts() -> None:
    worlds = torch.randint(0, 2, (2, 40, 5), generator=seeded())
    made = paths()
    program = made.world_program()
    expected = torch.stack([program.outputs(w).double().mean(0) for w in worlds])
    torch.testing.assert_close(made(edge=worlds).double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(made(edge=worlds.bool()).double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(made(edge=list(worlds)).double(), expected, atol=1e-6, rtol=0)
    digits = [[(i, v) for v in range(3)] for i in range(4)]
    text = "type digit(i32, i32)\nrel total(s) = s := sum[i](v: digit(i, v))"
    several = module(text, {"digit": digits}, {"total": range(9)})
    worlds = torch.randint(0, 3, (1, 30, 4), generator=seeded())
    expected = torch.bincount(worlds.sum(2)[0], minlength=9)[None] / 30
    torch.testing.assert_close(several(digit=worlds), expected)
    torch.testing.assert_close(several(digit=worlds.reshape(1, 30, 2, 2)), expected)


def test_own_facts_are_drawn_along() -> None:
    text = """
    type a(i32)
    rel 0.25::heard(x) = a(x)
    rel b = {0.4::1}
    rel q(x) = heard(x)
    rel q(x) = a(x), b(x)
    """
    options = {"generator": seeded(1)}
    made = module(text, {"a": range(3)}, {"q": range(3)}, **options)
    count = 4000
    found = made(a=torch.tensor([[0] * count, [1] * count]))
    for got, right in ((found[0, 0], 0.25), (found[1, 1], 1 - 0.75 * 0.6)):
        assert abs(float(got) - right) < 4 * math.sqrt(right * (1 - right) / count)
    assert float(found[0, 1:].sum()) == 0
    options["generator"] = seeded(1)
    again = module(text, {"a": range(3)}, {"q": range(3)}, **options)
    assert torch.equal(again(a=torch.tensor([[0] * count, [1] * count])), found)


def test_certain_facts_of_examples_stay_as_they_are() -> None:
    text = "type a(i32), next(i32, i32)\nrel q(y) = a(x), next(x, y)"
    made = module(text, {"a": range(3)}, {"q": range(4)}, non_probabilistic=["next"])
    worlds = torch.tensor([[0, 1, 1, 2], [0, 0, 0, 0]])
    found = made(a=worlds, next=[[(0, 1), (1, 3)], [(0, 2)]])
    assert found.tolist() == [[0, 0.25, 0, 0.5], [0, 0, 1, 0]]


def test_worlds_that_do_not_fit() -> None:
    made, worlds = summing(), torch.zeros(2, 5, dtype=torch.int64)
    probs = softmax(2, 3)
    for match, one, two in [
        ("worlds of 'one', and probabilities of 'two'", worlds, probs),
        ("numbers of worlds differ", worlds, worlds[:, :3]),
        (r"one .*shape \(2,\) .*give integers \(batch, worlds\)", worlds[:, 0], worlds),
        (r"one .*shape \(2, 5, 2\)", worlds[..., None].expand(-1, -1, 2), worlds),
        ("no worlds", worlds[:, :0], worlds[:, :0]),
        ("different numbers of worlds", [worlds[0], worlds[0, :2]], worlds),
        ("complex64", torch.zeros(2, 5, dtype=torch.complex64), worlds),
    ]:
        with pytest.raises(ShapeError, match=match):
            made(one=one, two=two)
    for value in (-1, 3):
        with pytest.raises(DomainError, match=rf"one has the position {value} in world 1 .*0 to 2"):
            made(one=worlds.index_fill(1, torch.tensor(1), value), two=worlds)
    with pytest.raises(ShapeError, match="no probabilities"):
        summing(provenance="sampled")(one=worlds, two=worlds)


# Probabilities in place of worlds


def test_scores_of_probabilities_are_unbiased() -> None:
    logits = torch.tensor([[[0.3, -0.2, 0.5]], [[0.1, 0.4, -0.6]]], dtype=torch.float64)
    logits.requires_grad_()

    def gradient(made: Module) -> tuple[Tensor, Tensor]:
        p = logits.softmax(-1)
        scores = made(one=p[0], two=p[1])
        weight = torch.linspace(0.5, 1.5, 5, dtype=torch.float64)
        return scores.detach(), torch.autograd.grad((scores * weight).sum(), logits)[0]

    right = gradient(summing(provenance="exact"))
    made = summing(samples=30, generator=seeded(7))
    draws = [gradient(made) for _ in range(200)]
    for i in range(2):
        some = torch.stack([draw[i] for draw in draws])
        error = some.std(0) / math.sqrt(len(some))
        assert bool(((some.mean(0) - right[i]).abs() < 4 * error + 1e-9).all())


def test_the_loss_of_probabilities_is_the_diffusion_models() -> None:
    p, q = softmax(8, 3), softmax(8, 3, seed=1)
    targets = torch.randint(0, 5, (8,), generator=seeded())
    options = {"gamma_c": 0.1, "gamma_h": 0.2, "weighting": "paper"}
    made = summing(distribution=True, diffusion={**options, "generator": seeded(3)})
    distribution = made(one=p, two=q)
    assert "bound" in distribution.bias

    class Given(nn.Module):
        def forward(self, x: Tensor, c_t: Tensor) -> Tensor:
            return x.log()

    model = MaskedDiffusion(Given(), program=summing(), generator=seeded(3), **options)
    expected = model.loss(torch.cat([p, q], 1), targets)
    torch.testing.assert_close(distribution.loss(targets), expected)


@pytest.mark.parametrize("rules", [False, True])
def test_probabilities_are_learned_in_a_program_as_it_was(rules: bool) -> None:
    """One line is another in an existing project: the provenance."""
    noise = "rel 0.9::seen(z) = total(z)" if rules else "rel seen(z) = total(z)"
    outputs = {"seen": range(5)}
    options = {"distribution": True, "generator": seeded(3), "diffusion": {"gamma_h": 0.0}}
    made = module(f"{SUM}\n{noise}", DIGITS, outputs, **options)
    logits = torch.zeros(2, 2, 3, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(40):
        p = logits.softmax(-1)
        loss = made(one=p[0], two=p[1]).loss([0, 4])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert logits.argmax(-1).tolist() == [[0, 2], [0, 2]]


def test_tuples_that_do_not_exclude_each_other_have_a_loss_too() -> None:
    made = paths(distribution=True, generator=seeded(3), diffusion={"gamma_h": 0.0})
    logits = torch.zeros(1, 5, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    wanted = torch.tensor([[1, 0, 0]])
    for _ in range(60):
        loss = made(edge=logits.sigmoid()).loss(wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (made(edge=logits.sigmoid().round()).scores > 0.5).tolist() == [[True, False, False]]


def test_a_tag_of_the_program_is_learned() -> None:
    tag = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    text = f"{SUM}\ntype seen()"
    made = module(text, DIGITS, {"seen": ()}, distribution=True, diffusion={"gamma_h": 0.0})
    made.ctx.add_rule("seen() = total(2)", tag=tag)
    sure = torch.eye(3, dtype=torch.float64)[1][None] * (1 - 1e-9) + 1e-9 / 3
    total = torch.zeros(())
    for _ in range(2):  # each with a graph of its own
        (gradient,) = torch.autograd.grad(made(one=sure, two=sure).loss(torch.tensor([[1]])), tag)
        total = total + gradient
    assert float(total) < 0


@pytest.mark.parametrize("operator", ["top", "categorical", "uniform"])
def test_rules_that_worlds_do_not_decide(operator: str) -> None:
    """Not even to run: what they pick would not be what each world by itself gives."""
    text = f"type one(i32)\nrel q(x) = x := {operator}<1>(y: one(y))"
    made = module(text, {"one": range(3)}, {"q": range(3)})
    with pytest.raises(ByssusError, match=f"`{operator}` asks how probable"):
        made(one=torch.tensor([[0, 1]]))


def test_a_label_for_each_of_several_relations() -> None:
    rules = SUM + "rel product(x * y) = one(x) and two(y)"
    made = module(rules, DIGITS, {"total": range(5), "product": range(5)})
    model = MaskedDiffusion(lambda x, c_t: x, program=made)
    x = torch.zeros(2, 2, 3)
    assert model.loss(x, [(4, 4), (2, 1)]).isfinite()
    with pytest.raises(TargetError, match="example 0 has 1 values, and the output 2 dimensions"):
        model.loss(x, [4, 2])
    with pytest.raises(TargetError, match=r"\(2, 4\), which no world gives"):
        model.loss(x, [(4, 4), (2, 4)])


def test_losses_that_there_are_not() -> None:
    p = softmax(2, 3)
    undeclared = module(SUM, DIGITS, {"total": None}, distribution=True)(one=p, two=p)
    with pytest.raises(ByssusError, match=r"declared output dimensions.*total"):
        undeclared.loss([1, 1])
    with pytest.raises(ByssusError, match=r"estimator='ised' .*nesydm"):
        summing(estimator="ised")
    with pytest.raises(ByssusError, match="diffusion=3"):
        summing(diffusion=3)
    with pytest.raises(ByssusError, match="diffusion= is for provenance='nesydm', not 'exact'"):
        summing(provenance="exact", diffusion={"gamma_h": 1.0})
    made = summing(distribution=True, diffusion={"gama_h": 1})(one=p, two=p)
    with pytest.raises(ByssusError, match="gama_h"):
        made.loss([1, 1])
    with pytest.raises(TargetError):
        summing(distribution=True)(one=p, two=p).loss([1, 9])


# Models


def test_an_independent_model_named_worlds_and_predictions_agree() -> None:
    """What a model predicts is what the program says of its worlds."""

    def network(x: Tensor, c_t: Tensor) -> Tensor:
        return x.reshape(-1, 2, 3)

    made = summing()
    model = MaskedDiffusion(network, program=made, generator=seeded())
    x = torch.randn(4, 6, generator=seeded())
    prediction = model.predict(x, votes=200)
    result = made(**model.named(prediction.worlds))
    torch.testing.assert_close(result, prediction.distribution.probs, atol=1e-6, rtol=0)


def test_copies_of_a_model() -> None:
    """As an exponential moving average makes them."""
    p = torch.zeros(2, 6)
    model = MaskedDiffusion(lambda x, c_t: x.reshape(-1, 2, 3), program=summing())
    expected = model.loss(p, [0, 4], generator=seeded())
    copied = copy.deepcopy(model)
    assert float(copied.loss(p, [0, 4], generator=seeded())) == float(expected)
    worlds = torch.tensor([[[0, 1]]])
    assert copied.program.run(worlds[0]).tolist() == [[1]]


def test_a_program_of_your_own_twenty_lines() -> None:
    """A fault is seen by two sensors, which are told its sum alone."""
    program = Module(
        program="type left(i32), right(i32)\nrel sum(a + b) = left(a) and right(b)",
        provenance="nesydm",
        input_mappings={"left": range(3), "right": range(3)},
        output_mappings={"sum": range(5)},
    )

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen = nn.Linear(3, 3)  # shared by both concepts
            self.known = nn.Embedding(4, 3)  # three values and the mask

        def forward(self, x: Tensor, c_t: Tensor) -> Tensor:
            return self.seen(x) + self.known(c_t.flip(1))

    torch.manual_seed(1)
    digits = torch.randint(0, 3, (200, 2))
    x = nn.functional.one_hot(digits, 3) + 0.1 * torch.randn(200, 2, 3)
    model = MaskedDiffusion(Network(), program=program, gamma_h=0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for step in range(150):
        rows = slice(step * 40 % 200, step * 40 % 200 + 40)
        loss = model.loss(x[rows], digits[rows].sum(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prediction = model.predict(x, votes=50)
    right = [a == b for a, b in zip(prediction.outputs, digits.sum(1).tolist(), strict=True)]
    assert sum(right) / 200 > 0.95
    assert float((prediction.concepts == digits).double().mean()) > 0.95


# The context


def test_contexts_run_clone_and_copy() -> None:
    ctx = ScallopContext(provenance="nesydm", samples=3000, generator=seeded())
    ctx.add_program("rel a = {0.5::1, 0.25::2}\nrel q(x + 1) = a(x)")
    ctx.run()
    found = {row[0]: float(p) for p, row in ctx.relation("q")}
    assert found == {2: pytest.approx(0.5, abs=0.05), 3: pytest.approx(0.25, abs=0.05)}
    assert ctx.plan().provenance == "nesydm"
    for other in (copy.deepcopy(summing().ctx), summing(provenance="exact").ctx.clone("nesydm")):
        function = other.forward_function(output_mappings={"total": range(5)})
        one = torch.tensor([[0, 1]])
        assert function(one=one, two=one).tolist() == [[0.5, 0, 0.5, 0, 0]]


def test_under_scallops_own_provenances() -> None:
    made = summing(provenance="difftopkproofs", backend="embedded")
    assert made.world_program().run(torch.tensor([[1, 2]])).tolist() == [[3]]
    pytest.importorskip("scallopy", reason="scallopy is not installed")
    with pytest.raises(ByssusError, match="Scallop's own"):
        summing(provenance="difftopkproofs", backend="scallopy").world_program()


def test_a_black_box_with_domains_in_rules() -> None:
    """White-box rules and black boxes mix as elsewhere, in training too."""

    @blackbox(Integer(0, 2), Integer(0, 2), output=Integer(0, 4), name="f")
    def f(x: int, y: int) -> int:
        return x * y

    made = boxed(CALLED, f, DIGITS, {"total": [0, 1, 2, 4]})
    model = MaskedDiffusion(lambda x, c_t: x, program=made, gamma_h=0.0)
    x = torch.zeros(3, 2, 3, requires_grad=True)
    model.loss(x, [0, 1, 4]).backward()
    assert x.grad is not None
