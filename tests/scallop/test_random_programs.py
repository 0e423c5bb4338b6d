"""Programs that Hypothesis makes up, against brute force over their worlds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, event, given, settings
from hypothesis import strategies as st
from torch import Tensor

import byssus
from byssus_scallop import ScallopContext
from scallop.world_oracle import Call, Case, Fact, Not, Oracle, Reduce, Row, atoms_of, cases, chosen

_SETTINGS = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)
_FEWER = settings(_SETTINGS, max_examples=40)
_MANY = settings(_SETTINGS, max_examples=1000)

Found = dict[str, dict[Row, Tensor]]
"""For each output its tuples, and their probabilities (batch,)."""


def probabilities(case: Case, batch: int = 1) -> list[Tensor]:
    """For each concept the probabilities of its alternatives, (batch, alternatives); leaves."""
    generator = torch.Generator().manual_seed(len(case.text()))
    made = []
    for facts in case.concepts:
        logits = torch.randn(batch, len(facts) + 1, dtype=torch.float64, generator=generator)
        made.append(logits.softmax(1)[:, 1:].clone().requires_grad_())
    return made


def make(case: Case, text: str | None = None, **options: Any) -> ScallopContext:
    ctx = ScallopContext(**options)
    for call in case.calls:
        ctx.register_blackbox(once(call), call.name)
    ctx.add_program(case.text() if text is None else text)
    return ctx


def once(call: Call) -> Callable[[int], int]:
    """What a black box computes; it is not to be called twice on the same."""
    called: set[int] = set()

    def function(argument: int) -> int:
        assert argument not in called
        called.add(argument)
        return call.compute(argument)

    return function


def inputs(
    case: Case, probs: Sequence[Tensor], example: int
) -> tuple[dict[str, list[Any]], dict[str, list[list[int]]]]:
    """The facts of an example as lists, and which of them exclude one another."""
    facts: dict[str, list[Any]] = {name: [] for name in ("e", "f", "g") if name in case.types}
    groups: dict[str, list[list[int]]] = {name: [] for name in facts}
    for fact in case.certain:
        facts[fact.relation].append((None, fact.row))
    for concept, p in zip(case.concepts, probs, strict=True):
        some = facts[concept[0].relation]
        if len(concept) > 1:
            groups[concept[0].relation].append([len(some) + i for i in range(len(concept))])
        some += [(p[example, i], fact.row) for i, fact in enumerate(concept)]
    return facts, groups


def forward(ctx: ScallopContext, some: Sequence[Case], probs: Sequence[Sequence[Tensor]]) -> Found:
    """A batch with an example of each case (of one program), through a forward function."""
    outputs = some[0].outputs
    function = ctx.forward_function(output_mappings=dict.fromkeys(outputs))
    given: dict[str, list[Any]] = {}
    groups: dict[str, list[Any]] = {}
    for case, p in zip(some, probs, strict=True):
        facts, disjunctions = inputs(case, p, 0)
        for name, rows in facts.items():
            given.setdefault(name, []).append(rows)
            groups.setdefault(name, []).append(disjunctions[name])
    result = function(disjunctions=groups, **given)
    if len(outputs) == 1:
        result = {outputs[0]: result}
    return {
        name: dict(zip(rows, tensor.unbind(1), strict=True))
        for name, (rows, tensor) in result.items()
    }


def examples_of(probs: Sequence[Tensor]) -> list[list[Tensor]]:
    return [[p[i : i + 1] for p in probs] for i in range(len(probs[0]))]


def run(case: Case, probs: Sequence[Tensor], **options: Any) -> Found:
    some = examples_of(probs)
    return forward(make(case, **options), [case] * len(some), some)


def expected(oracle: Oracle, probs: Sequence[Tensor]) -> Found:
    weights = oracle.weights(probs)
    found: Found = {}
    for name in oracle.case.outputs:
        rows = oracle.rows(name)
        table = weights @ oracle.holds(name, rows)
        found[name] = dict(zip(rows, table.unbind(1), strict=True))
    return found


def gradients(found: Found, leaves: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of a fixed combination of everything."""
    total = torch.zeros((), dtype=torch.float64)
    for number, name in enumerate(sorted(found)):
        for i, row in enumerate(sorted(found[name])):
            p = found[name][row]
            weight = torch.linspace(0.5, 1.5, len(p), dtype=torch.float64) + i % 7 + number
            total = total + (weight * p).sum()
    if not total.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    some = torch.autograd.grad(total, list(leaves), allow_unused=True, retain_graph=True)
    return [
        torch.zeros_like(leaf) if g is None else g for g, leaf in zip(some, leaves, strict=True)
    ]


def assert_same(found: Found, right: Found, leaves: Sequence[Tensor], case: Case) -> None:
    assert found.keys() == right.keys()
    for name, rows in right.items():
        assert found[name].keys() == rows.keys(), f"{name}:\n{case.text()}"
        for row, p in rows.items():
            other = found[name][row].double()
            assert torch.allclose(other, p, atol=1e-6, rtol=0), f"{name}{row}:\n{case.text()}"
    for a, b in zip(gradients(found, leaves), gradients(right, leaves), strict=True):
        assert torch.allclose(a, b, atol=1e-6, rtol=0), case.text()


def statistics(case: Case, oracle: Oracle) -> None:
    literals = [literal for rule in case.rules for literal in rule.body]
    event("negation", str(any(isinstance(x, Not) for x in literals)))
    for x in literals:
        if isinstance(x, Reduce):
            grouped = "where" if x.groups is not None else "implicit" if x.group else "none"
            event("aggregate", f"{x.operator}, group: {grouped}")
    recursive = any(
        atom.relation in {rule.heads[0].relation for rule in layer}
        for layer in case.layers
        for rule in layer
        for atom in atoms_of(rule.body)
    )
    event("recursion", str(recursive))
    event("black boxes", str(len(case.calls)))
    event("tags", str(any(rule.tag is not None for rule in case.rules)))
    event("exclusive heads", str(any(len(rule.heads) > 1 for rule in case.rules)))
    event("demand", str(any(rule.demand for rule in case.rules)))
    uncertain = 0
    for name in case.outputs:
        held = oracle.holds(name, oracle.rows(name)).mean(0)
        uncertain += int(((held > 0) & (held < 1)).sum())
    event("uncertain tuples", str(min(uncertain, 6)))


def check_exact(case: Case) -> None:
    oracle = Oracle(case)
    statistics(case, oracle)
    probs = probabilities(case, 2)
    assert_same(run(case, probs, provenance="exact"), expected(oracle, probs), probs, case)


@settings(_SETTINGS, max_examples=100)
@given(case=cases())
def test_exact(case: Case) -> None:
    check_exact(case)


@pytest.mark.slow
@_MANY
@given(case=cases(most=256))
def test_exact_1000(case: Case) -> None:
    check_exact(case)


@_FEWER
@given(case=cases(most=24))
def test_context(case: Case) -> None:
    """`add_facts`, `run` and `relation`."""
    probs = probabilities(case)
    ctx = make(case, provenance="exact")
    facts, groups = inputs(case, probs, 0)
    for name, some in facts.items():
        ctx.add_facts(name, some, groups[name])
    ctx.run()
    found = {name: {row: p[None] for p, row in ctx.relation(name)} for name in case.outputs}
    assert_same(found, expected(Oracle(case), probs), probs, case)


def check_gradient(case: Case) -> None:
    probs = probabilities(case)
    ctx = make(case, provenance="exact")

    def function(*some: Tensor) -> Tensor:
        found = forward(ctx, [case], [some])
        columns = [p.double() for rows in found.values() for p in rows.values()]
        return torch.stack([*columns, torch.zeros(1, dtype=torch.float64)])

    assert torch.autograd.gradcheck(function, tuple(probs))


@pytest.mark.embedded("no matter of the engine")
@_FEWER
@given(case=cases(most=24))
def test_gradcheck(case: Case) -> None:
    check_gradient(case)


@pytest.mark.slow
@_MANY
@given(case=cases(most=24))
def test_gradcheck_1000(case: Case) -> None:
    check_gradient(case)


def check_all_worlds(case: Case, sampled: Sequence[str] | None) -> None:
    """Sampled or mixed over all worlds of the sampled part is exact, in values and gradients."""
    probs = probabilities(case, 2)
    event("sampled", "all" if sampled is None else str(len(sampled)))
    found = run(
        case,
        probs,
        provenance="sampled" if sampled is None else "mixed",
        sampled=sampled,
        worlds=byssus.exhaustive,
        samples=10**6,
        estimator="distinct",
    )
    assert_same(found, expected(Oracle(case), probs), probs, case)


_SOME = st.none() | st.sets(st.sampled_from(["e", "f", "g"])).map(sorted)


@_FEWER
@given(case=cases(most=24), sampled=_SOME)
def test_all_worlds(case: Case, sampled: list[str] | None) -> None:
    some = None if sampled is None else [name for name in sampled if name in case.types]
    check_all_worlds(case, some)


@pytest.mark.slow
@_MANY
@given(case=cases(most=24), sampled=_SOME)
def test_all_worlds_1000(case: Case, sampled: list[str] | None) -> None:
    some = None if sampled is None else [name for name in sampled if name in case.types]
    check_all_worlds(case, some)


@pytest.mark.embedded("runs under a provenance of Scallop's own")
@_SETTINGS
@given(data=st.data(), case=cases(chance=False))
def test_unit(data: st.DataObject, case: Case) -> None:
    """In one world, without probabilities."""
    choice = [data.draw(st.integers(0, len(concept))) for concept in case.concepts]
    facts = [*case.certain, *chosen(case, choice)]
    alone = replace(case, certain=facts, concepts=[])
    (world,) = Oracle(alone).worlds
    ctx = make(case, provenance="unit")
    for fact in facts:
        ctx.add_facts(fact.relation, [fact.row])
    ctx.run()
    for name in case.outputs:
        assert set(ctx.relation(name)) == world.database[name], case.text()


@_FEWER
@given(case=cases(most=24))
def test_sampled(case: Case) -> None:
    """Frequencies over 2,000 worlds lie within five standard errors."""
    probs = probabilities(case)
    generator = torch.Generator().manual_seed(1)
    count = 2000
    found = run(
        case,
        probs,
        provenance="sampled",
        samples=count,
        estimator="rloo",
        generator=generator,
    )
    for name, rows in expected(Oracle(case), probs).items():
        assert found[name].keys() <= rows.keys()
        for row, p in rows.items():
            frequency = found[name].get(row, torch.zeros(1))
            error = 5 * (p * (1 - p) / count).clamp_min(0).sqrt() + 1e-6
            assert bool((frequency - p).abs() <= error + 5 / count), f"{name}{row}:\n{case.text()}"


@pytest.mark.embedded("no matter of the engine")
@_FEWER
@given(data=st.data(), case=cases(most=24))
def test_order(data: st.DataObject, case: Case) -> None:
    """The order of rules and facts does not matter; facts may stand in the text."""
    probs = probabilities(case)
    right = expected(Oracle(case), probs)
    numbers = [p[0].tolist() for p in probs]
    for order in ((), data.draw(st.permutations(range(12)))):
        ctx = make(case, case.text(numbers, order), provenance="exact")
        ctx.run()
        for name, rows in right.items():
            found = {row: p for p, row in ctx.relation(name)}
            assert found == pytest.approx({row: p.item() for row, p in rows.items()}, abs=1e-6)


@pytest.mark.embedded("no matter of the engine")
@_FEWER
@given(data=st.data(), case=cases(most=24))
def test_structures(data: st.DataObject, case: Case) -> None:
    """Examples with different facts in a batch are what each of them is alone."""
    some: list[Case] = []
    probs: list[list[Tensor]] = []
    for _ in range(4):
        certain = [fact for fact in case.certain if data.draw(st.booleans())]
        kept = data.draw(st.lists(st.booleans(), min_size=9, max_size=9))
        concepts = [c for c, keep in zip(case.concepts, kept, strict=False) if keep]
        some.append(replace(case, certain=certain, concepts=concepts))
        probs.append(probabilities(some[-1]))
    batch = forward(make(case, provenance="exact"), some, probs)
    for i, (one, p) in enumerate(zip(some, probs, strict=True)):
        right = expected(Oracle(one), p)
        for name in case.outputs:
            for row, column in batch[name].items():
                wanted = right[name].get(row, torch.zeros(1, dtype=torch.float64))
                assert torch.allclose(column[i].double(), wanted, atol=1e-6, rtol=0), one.text()
            assert right[name].keys() <= batch[name].keys()


@pytest.mark.embedded("no matter of the engine")
@_FEWER
@given(case=cases(most=24))
def test_tensors(case: Case) -> None:
    """Facts as tensors with an input mapping are the same as facts in lists."""
    batch = 3
    generator = torch.Generator().manual_seed(7)
    names = [name for name in ("e", "f", "g") if name in case.types]
    tuples: dict[str, list[Row]] = {}
    for facts in [(f,) for f in case.certain] + case.concepts:
        for fact in facts:
            rows = tuples.setdefault(fact.relation, [])
            if fact.row not in rows:
                rows.append(fact.row)
    assume(sum(map(len, tuples.values())) <= 6)
    given: dict[str, Tensor] = {}
    concepts: list[tuple[Fact, ...]] = []
    probs: list[Tensor] = []
    ctx = make(case, provenance="exact")
    for name in names:
        rows = tuples.get(name, [])
        if not rows:
            continue
        ctx.set_input_mapping(name, rows, disjunctive=False)
        tensor = torch.rand(batch, len(rows), dtype=torch.float64, generator=generator)
        given[name] = tensor.requires_grad_()
        for i, row in enumerate(rows):
            concepts.append((Fact(name, row),))
            probs.append(tensor[:, i : i + 1])
    assume(given)
    oracle = Oracle(replace(case, certain=[], concepts=concepts))
    function = ctx.forward_function(output_mappings=dict.fromkeys(case.outputs))
    result = function(**given)
    if len(case.outputs) == 1:
        result = {case.outputs[0]: result}
    found = {
        name: dict(zip(rows, tensor.unbind(1), strict=True))
        for name, (rows, tensor) in result.items()
    }
    assert_same(found, expected(oracle, probs), list(given.values()), case)
