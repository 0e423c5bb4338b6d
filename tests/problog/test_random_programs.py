"""Programs that Hypothesis makes up, against brute force over their worlds."""

from __future__ import annotations

from dataclasses import dataclass

import byssus
import pytest
import torch
from byssus import BlackBox, Boolean, Integer, ProgramError, blackbox
from byssus_problog import Program
from hypothesis import HealthCheck, Phase, event, given, settings
from problog import get_evaluatable
from problog.program import PrologString
from problog_oracle import Arithmetic, Box, Case, Comparison, Goal, Oracle, cases
from torch import Tensor

_SETTINGS = settings(
    max_examples=1000,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)
_FEWER = settings(_SETTINGS, max_examples=150)


def make_box(box: Box, calls: list[tuple[str, tuple[int, ...]]]) -> BlackBox:
    def function(*row: int) -> int | bool:
        calls.append((box.name, row))
        value = box.table[row]
        return bool(value) if box.predicate else value

    return blackbox(
        *[Integer(0, 4)] * box.arity,
        output=Boolean() if box.predicate else Integer(0, 4),
        name=box.name,
        on_error="discard",
    )(function)


@dataclass
class Inputs:
    """The probabilities of a case's concepts: leaves, and what the oracle takes."""

    logits: list[Tensor]
    probs: list[Tensor]

    @classmethod
    def make(cls, case: Case, logits: list[Tensor] | None = None, batch: int = 2) -> Inputs:
        if logits is None:
            generator = torch.Generator().manual_seed(len(case.text))
            logits = [
                torch.randn(batch, c.width, dtype=torch.float64, generator=generator)
                for c in case.concepts
                if c.network
            ]
            for table in logits:
                table.requires_grad_()
        left = iter(logits)
        probs = []
        for concept in case.concepts:
            if concept.network:
                probs.append(next(left).softmax(1))
            else:
                probs.append(torch.tensor([concept.probs], dtype=torch.float64).expand(batch, -1))
        return cls(logits, probs)

    def given(self, case: Case, program: Program) -> dict[str, Tensor]:
        tables: dict[str, dict[object, Tensor]] = {}
        for concept, probs in zip(case.concepts, self.probs, strict=True):
            tables.setdefault(concept.network, {})[concept.instance] = probs
        return {
            name: torch.stack([tables[name][i] for i in instances], 1)
            for name, instances in program.instances.items()
        }


def gradients(value: Tensor, logits: list[Tensor]) -> list[Tensor]:
    """The gradients of a fixed combination of all entries."""
    weight = torch.linspace(0.5, 1.5, max(value.numel(), 1), dtype=value.dtype)[: value.numel()]
    total = (value * weight.reshape(value.shape)).sum()
    if not total.requires_grad or not logits:
        return [torch.zeros_like(table) for table in logits]
    return list(torch.autograd.grad(total, logits, materialize_grads=True, retain_graph=True))


def assert_same(found: Tensor, expected: Tensor, logits: list[Tensor]) -> None:
    found = found.double()  # without a network, nothing says what precision
    found = found.expand(expected.shape)
    assert torch.allclose(found, expected, atol=1e-6, rtol=0)
    for a, b in zip(gradients(found, logits), gradients(expected, logits), strict=True):
        assert torch.allclose(a, b, atol=1e-6, rtol=0)


def expected(oracle: Oracle, program: Program, probs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """What the oracle says of the program's queries, and of the mass lost."""
    weights = oracle.weights(probs)
    answers = oracle.answers()
    columns = [oracle.indicator(answers.get(query, 0) & ~oracle.lost) for query in program.queries]
    matrix = torch.stack(columns, 1)
    return weights @ matrix, weights @ oracle.indicator(oracle.lost)


def statistics(case: Case, oracle: Oracle) -> None:
    goals = [goal for rule in case.rules for goal in rule.body]
    boxes = {box.name for box in case.boxes}
    event("negation", str(any(isinstance(g, Goal) and g.negated for g in goals)))
    event("arithmetic", str(any(isinstance(g, Arithmetic) for g in goals)))
    event("comparison", str(any(isinstance(g, Comparison) for g in goals)))
    recursive = any(
        isinstance(g, Goal) and any({g.pred, r.head.pred} <= set(s) for s in case.strata[1:])
        for r in case.rules
        for g in r.body
    )
    event("recursion", str(recursive))
    event("boxes asked", str(min(len(oracle.asked), 5)))
    event(
        "negated box",
        str(any(isinstance(g, Goal) and g.negated and g.pred in boxes for g in goals)),
    )
    event("answers", str(min(len(oracle.answers()) // 3 * 3, 12)))
    event("worlds", str(len(oracle.worlds) // 20 * 20))
    uncertain = sum(bits not in (0, oracle.all) for bits in oracle.answers().values())
    event("uncertain answers", str(min(uncertain, 6)))
    event("lost", str(bool(oracle.lost)))


def build(case: Case, oracle: Oracle, **options: object) -> tuple[Program | None, list]:
    calls: list[tuple[str, tuple[int, ...]]] = []
    boxes = [make_box(box, calls) for box in case.boxes]
    try:
        return Program(case.text, boxes, **options), calls
    except ProgramError as error:
        assert "no query has an answer" in str(error)
        assert not any(bits & ~oracle.lost for bits in oracle.answers().values())
        return None, calls


def check_exact(case: Case) -> None:
    oracle = Oracle(case)
    statistics(case, oracle)
    program, calls = build(case, oracle, provenance="exact")
    possible = {call for call, bits in oracle.asked.items() if bits}
    assert len(set(calls)) == len(calls)
    if oracle.lost:
        assert set(calls) <= possible
    else:
        assert set(calls) == possible
    if program is None:
        return
    inputs = Inputs.make(case)
    result = program(inputs.given(case, program))
    probs, lost = expected(oracle, program, inputs.probs)
    answered = {query for query, bits in oracle.answers().items() if bits & ~oracle.lost}
    assert answered <= set(program.queries)
    assert_same(result.probs, probs, inputs.logits)
    assert_same(result.lost, lost, inputs.logits)


@_SETTINGS
@given(case=cases())
def test_exact(case: Case) -> None:
    check_exact(case)


@_FEWER
@given(case=cases(failing=True))
def test_lost(case: Case) -> None:
    check_exact(case)
