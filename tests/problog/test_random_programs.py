"""Programs that Hypothesis makes up, against brute force over their worlds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, event, given, reject, settings
from hypothesis import strategies as st
from problog import get_evaluatable
from problog.eval_nodes import NegativeCycle
from problog.program import PrologString
from torch import Tensor

import byssus
from byssus import BlackBox, Boolean, ByssusError, Integer, ProgramError, blackbox
from byssus_problog import Program
from problog_oracle import Arithmetic, Box, Case, Comparison, Goal, Oracle, cases
from world_programs import all_worlds, by_formula

_SETTINGS = settings(
    max_examples=1000,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)
_SOME = settings(_SETTINGS, max_examples=250)
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


def instances_of(case: Case) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for concept in case.concepts:
        if concept.network:
            found.setdefault(concept.network, []).append(concept.instance)
    return found


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

    def given(self, case: Case, program: Program | None = None) -> dict[str, Tensor]:
        """What the program takes: for the instances it lists, or for all that there are."""
        tables: dict[str, dict[object, Tensor]] = {}
        for concept, probs in zip(case.concepts, self.probs, strict=True):
            tables.setdefault(concept.network, {})[concept.instance] = probs
        used = instances_of(case) if program is None else program.instances
        return {
            name: torch.stack([tables[name][i] for i in instances], 1)
            for name, instances in used.items()
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


def build(
    case: Case, oracle: Oracle, **options: Any
) -> tuple[Program | None, list[tuple[str, tuple[int, ...]]]]:
    """The program, or None where rightly it has no answers; and the calls it will have made."""
    calls: list[tuple[str, tuple[int, ...]]] = []
    boxes = [make_box(box, calls) for box in case.boxes]
    try:
        return Program(case.text, boxes, **options), calls
    except ProgramError as error:
        if "Negative cycle" in str(error):
            event("ProbLog sees a negative cycle where there is none")
            reject()  # all our programs are stratified
        if "no query has an answer" not in str(error):
            raise
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


@settings(_SETTINGS, max_examples=30)
@given(case=cases(failing=True))
def test_the_oracle_is_the_same_world_by_world(case: Case) -> None:
    together = Oracle(case)
    for i, world in enumerate(together.worlds):
        alone = Oracle(case, [world])
        assert alone.lost == together.lost >> i & 1
        found = {query for query, bits in alone.answers().items() if bits}
        assert found == {query for query, bits in together.answers().items() if bits >> i & 1}


@_SOME
@given(case=cases())
def test_exact(case: Case) -> None:
    check_exact(case)


@pytest.mark.slow
@_SETTINGS
@given(case=cases())
def test_exact_1000(case: Case) -> None:
    check_exact(case)


@_FEWER
@given(case=cases(failing=True))
def test_lost(case: Case) -> None:
    check_exact(case)


def check_gradient(case: Case) -> None:
    oracle = Oracle(case)
    program, _ = build(case, oracle, provenance="exact")
    inputs = Inputs.make(case, batch=1)
    if program is None or not inputs.logits:
        return

    def run(*logits: Tensor) -> Tensor:
        return program(Inputs.make(case, list(logits), 1).given(case, program)).probs

    assert torch.autograd.gradcheck(run, tuple(inputs.logits))


@_SOME
@given(case=cases())
def test_gradcheck(case: Case) -> None:
    check_gradient(case)


@pytest.mark.slow
@_SETTINGS
@given(case=cases())
def test_gradcheck_1000(case: Case) -> None:
    check_gradient(case)


@_FEWER
@given(case=cases(boxes=False))
def test_against_problog(case: Case) -> None:
    oracle = Oracle(case)
    program, _ = build(case, oracle, provenance="exact")
    if program is None:
        return
    inputs = Inputs.make(case, batch=1)
    text = constants(case, inputs.probs)
    try:
        model = get_evaluatable().create_from(PrologString(text)).evaluate()
    except NegativeCycle:  # a fault of ProbLog's engine: all our programs are stratified
        return
    found = program(inputs.given(case, program)).probs[0]
    values = {str(query).replace(" ", ""): value for query, value in model.items()}
    for query, value in zip(program.queries, found.tolist(), strict=True):
        assert values.get(query, 0.0) == pytest.approx(value, abs=1e-6)


def constants(case: Case, probs: list[Tensor]) -> str:
    """The text with the networks' probabilities written in."""
    lines = [line for line in case.text.splitlines() if not line.startswith("nn(")]
    for line in set(case.text.splitlines()) - set(lines):
        network, pred = line[3 : line.index(",")], line.split(":: ")[1].split("(")[0]
        for concept, table in zip(case.concepts, probs, strict=True):
            if concept.network == network:
                p = [f"{int(x * 1e8) / 1e8:.8f}" for x in table[0].tolist()]  # at most 1 in all
                i = concept.instance
                if "_(X)" in line:
                    lines.append(f"{p[1]}::{pred}({i}).")
                else:
                    lines.append("; ".join(f"{x}::{pred}({i},{v})" for v, x in enumerate(p)) + ".")
    return "\n".join(lines)


def reference(case: Case) -> tuple[Oracle, Program | None, Inputs]:
    oracle = Oracle(case)
    program, _ = build(case, oracle, provenance="exact")
    return oracle, program, Inputs.make(case)


def by_query(program: Program, probs: Tensor, queries: tuple[str, ...]) -> Tensor:
    """The columns of these queries; zero for those that have no answer in the worlds seen."""
    columns = dict(zip(program.queries, probs.double().unbind(1), strict=True))
    zero = probs.new_zeros(len(probs), dtype=torch.float64)
    return torch.stack([columns.get(query, zero) for query in queries], 1)


def check_all_worlds(mask: int, sampled: int, case: Case) -> None:
    """Sampled or mixed over all worlds of the sampled part is exact, in values and gradients."""
    oracle, exact, inputs = reference(case)
    if exact is None:
        return
    result = exact(inputs.given(case, exact))
    kind = "mixed" if sampled else "sampled"
    names = [concept.name for concept in exact._rules.ground.concepts]
    chosen = [name for i, name in enumerate(names) if mask >> i & 1]
    event("kind", f"mixed, {len(chosen)} of {len(names)} sampled" if sampled else kind)
    program, calls = build(
        case,
        oracle,
        provenance=kind,
        sampled=chosen if sampled else None,
        worlds=byssus.exhaustive,
        samples=10**6,
        estimator="distinct",
        instances=instances_of(case),  # some are needed only once the answers of calls are known
    )
    if program is None:
        return
    for step in range(2):
        found = program(inputs.given(case))
        assert set(calls) <= {call for call, bits in oracle.asked.items() if bits}
        assert len(set(calls)) == len(calls)
        assert found.calls == (len(calls) if step == 0 else 0)
        probs = by_query(program, found.probs, exact.queries)
        assert_same(probs, result.probs.double().expand(probs.shape), inputs.logits)
        lost = result.lost.double().expand(found.lost.shape)
        assert torch.allclose(found.lost.double(), lost, atol=1e-6)


@_SOME
@given(mask=st.integers(0, 63), sampled=st.integers(0, 3), case=cases(failing=True))
def test_all_worlds(mask: int, sampled: int, case: Case) -> None:
    check_all_worlds(mask, sampled, case)


@pytest.mark.slow
@_SETTINGS
@given(mask=st.integers(0, 63), sampled=st.integers(0, 3), case=cases(failing=True))
def test_all_worlds_1000(mask: int, sampled: int, case: Case) -> None:
    check_all_worlds(mask, sampled, case)


@_FEWER
@given(
    case=cases(failing=True), kind=st.sampled_from(["sampled", "mixed"]), seed=st.integers(0, 99)
)
def test_rows_and_bitsets_agree(case: Case, kind: str, seed: int) -> None:
    """The compiled rules over rows of worlds and the formula over bitsets are one function."""
    oracle, exact, inputs = reference(case)
    if exact is None:
        return
    generator = torch.Generator()
    estimator = ["ised", "distinct", "rloo", "indecater"][seed % 4]
    program, _ = build(
        case,
        oracle,
        provenance=kind,
        samples=7,
        generator=generator,
        estimator=estimator,
        instances=instances_of(case),
    )
    if program is None:
        return
    given = inputs.given(case)
    try:
        # a step that learns new answers may draw again: learn all that these draws ask for first
        while generator.manual_seed(seed) and program(given).calls:
            pass
    except ByssusError as error:
        if estimator != "indecater":
            raise
        event("indecater", str(error).split(",")[0])
        return
    compiled = program.circuit is not None
    event("compiled", str(compiled))
    results = []
    for _ in range(2):
        generator.manual_seed(seed)
        result = program(given)
        target = torch.zeros(result.probs.shape, dtype=torch.float64)
        target[:, :1] = 1.0
        # the logarithm of a score that is 0 or 1 but for rounding is anything
        inside = (result.scores > 1e-9) & (result.scores < 1 - 1e-9)
        loss = result.loss(target) if inside.all() and result.values else torch.zeros(())
        results.append((result.probs, result.scores, result.lost, loss))
        program.circuit = None
    for rows, bits in zip(*results, strict=True):
        assert torch.allclose(rows, bits, atol=1e-6, equal_nan=True)
        for a, b in zip(
            gradients(rows, inputs.logits), gradients(bits, inputs.logits), strict=True
        ):
            assert torch.allclose(a, b, atol=1e-5, equal_nan=True)


def check_worlds(case: Case) -> None:
    """What worlds give adds up to what enumeration says, and the formula says the same."""
    oracle = Oracle(case)
    program, _ = build(case, oracle, provenance="nesydm")
    if program is None:
        return
    if not program.instances:
        with pytest.raises(ByssusError, match="a program without concepts"):
            program.world_program()
        return
    world_program = program.world_program()
    worlds = all_worlds(world_program)
    codes = world_program.run(worlds)
    assert torch.equal(by_formula(world_program, worlds), codes)
    inputs = Inputs.make(case)
    columns = [table.flatten(1) for table in inputs.given(case, program).values()]
    if world_program.own is not None:
        columns.append(world_program.own().double().expand(2, -1))
    probs = torch.cat([*columns, torch.ones(2, 0, dtype=torch.float64)], 1)
    offsets = torch.tensor(world_program.offsets, dtype=torch.int64)
    weights = probs[:, worlds + offsets].prod(-1)
    expected = oracle.weights(inputs.probs)
    answers = {query: bits & ~oracle.lost for query, bits in oracle.answers().items()}
    queries = iter(program.queries)
    for d, values in enumerate(world_program.dimensions):
        named = [(1, next(queries))]
        truth = repr(values) == "(False, True)"  # (0, 1) is equal to it
        if not truth:
            named = list(enumerate([named[0][1], *itertools.islice(queries, len(values) - 1)]))
            event("answers that exclude one another")
            together = reduce(or_, (answers.get(q, 0) for _, q in named))
            assert sum(answers.get(q, 0).bit_count() for _, q in named) == together.bit_count()
        for code, query in named:
            found = weights @ (codes[:, d] == code).double()
            wanted = expected @ oracle.indicator(answers.get(query, 0))
            assert torch.allclose(found, wanted.expand(2), atol=1e-6)
        if truth:
            lost = weights @ (codes[:, d] == -1).double()
            assert torch.allclose(lost, (expected @ oracle.indicator(oracle.lost)).expand(2))
            event("lost", str(bool(oracle.lost)))
    assert next(queries, None) is None


@settings(_SETTINGS, max_examples=40)
@given(case=cases(failing=True))
def test_world_programs(case: Case) -> None:
    check_worlds(case)


@pytest.mark.slow
@_SETTINGS
@given(case=cases(failing=True))
def test_world_programs_1000(case: Case) -> None:
    check_worlds(case)
