"""byssus's semirings in ProbLog's evaluatables, and its evaluatable, against both."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problog import get_evaluatable
from problog.engine import DefaultEngine
from problog.errors import InconsistentEvidenceError
from problog.evaluator import SemiringProbability, SemiringSymbolic
from problog.logic import AnnotatedDisjunction, Clause, Object, Term
from problog.program import PrologString, SimpleProgram
from torch import Tensor

from byssus import (
    ByssusError,
    CompilationLimit,
    ConceptError,
    Integer,
    ProbabilityError,
    ProgramError,
    ShapeError,
    blackbox,
)
from byssus.errors import EmptyBatchError
from byssus_problog import Program, read, register, semiring

EVALUATABLES = ["sdd", "ddnnf", "byssus"]

DIGITS = """
nn(digit, [X], D, [0, 1, 2, 3, 4]) :: digit(X, D).
nn(wet, [X]) :: wet(X).
0.1 :: broken.
sum(Z) :- digit(i2, X), digit(i10, Y), Z is X + Y, \\+ broken.
sum(0) :- broken.
other :- wet(1), \\+ digit(i2, 3).
query(sum(_)). query(other).
"""


def uniform(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, dtype=torch.float64, generator=generator)


def digits(batch: int = 3) -> dict[str, Tensor]:
    return {"digit": uniform(batch, 2, 5).softmax(-1), "wet": uniform(batch, 1, seed=1)}


def evaluated(program: Any, name: str | None, ring: Any = None, **more: Any) -> dict[str, Any]:
    formula = get_evaluatable(name).create_from(program)
    return {str(query): p for query, p in formula.evaluate(semiring=ring, **more).items()}


def stacked(results: dict[str, Tensor], queries: tuple[str, ...]) -> Tensor:
    return torch.stack([results[query] for query in queries], 1)


# Exact


@pytest.mark.parametrize("evidence", ["", "evidence(low). low :- digit(i2, X), X < 3.\n"])
@pytest.mark.parametrize("name", [None, "sddx", *EVALUATABLES])
def test_networks(name: str | None, evidence: str, tmp_path: Path) -> None:
    path = tmp_path / "digits.pl"
    path.write_text(DIGITS + evidence, encoding="utf-8")
    logits, wet = uniform(3, 2, 5).requires_grad_(), uniform(3, 1, seed=1).requires_grad_()
    probs = {"digit": logits.softmax(-1), "wet": wet}
    program = Program(path)
    expected = program(probs)
    found = stacked(evaluated(read(path), name, semiring("exact", probs)), program.queries)
    assert found.shape == (3, 10)
    torch.testing.assert_close(found, expected.probs, rtol=0, atol=1e-12)
    for column in (2, 9):
        ours, theirs = (
            torch.autograd.grad(x[:, column].log().sum(), [logits, wet], retain_graph=True)
            for x in (found, expected.probs)
        )
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", EVALUATABLES)
def test_labels(name: str) -> None:
    """A tensor in the program, a term that is named, a number, and a batch of one."""
    program = SimpleProgram()
    one, many = torch.tensor([0.25]), torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    a, b, c, q = (Term(letter) for letter in "abcq")
    program += a.with_probability(Object(one))
    program += b.with_probability(Term("p", Term("x")))
    program += c.with_probability(PrologString("0.5 :: c.")[0].probability)
    program += Clause(q, a & b)
    program += Clause(q, c)
    program += Term("query", q)
    program += Term("query", a)
    found = evaluated(program, name, semiring("exact", {"p(x)": many}))
    torch.testing.assert_close(found["q"], 1 - 0.5 * (1 - 0.25 * many))
    torch.testing.assert_close(found["a"], torch.full((3,), 0.25))
    found["q"].sum().backward()
    torch.testing.assert_close(many.grad, torch.full((3,), 0.125))
    # The labels of an evaluation take the place of the program's.
    weights = {b: Object(torch.tensor([1.0, 0.0]))}
    found = evaluated(program, name, semiring("exact", {"p(x)": many}), weights=weights)
    torch.testing.assert_close(found["q"], torch.tensor([0.625, 0.5]))


@pytest.mark.parametrize("name", EVALUATABLES)
def test_tensors_in_a_disjunction(name: str) -> None:
    program = SimpleProgram()
    probs = uniform(4, 3).softmax(-1)[:, :2]
    heads = [Term("a", p=Object(probs[:, 0])), Term("b", p=Object(probs[:, 1]))]
    program += AnnotatedDisjunction(heads, Term("true"))
    for text in ("n :- \\+ a, \\+ b.", "either :- a.", "either :- b."):
        program += PrologString(text)[0]
    for query in ("n", "either", "b"):
        program += Term("query", Term(query))
    found = evaluated(program, name, semiring())
    torch.testing.assert_close(found["n"], 1 - probs.sum(1))
    torch.testing.assert_close(found["either"], probs.sum(1))
    torch.testing.assert_close(found["b"], probs[:, 1])


@pytest.mark.parametrize("name", [None, "ddnnf", "byssus"])
def test_black_boxes_and_networks(name: str | None) -> None:
    text = """
        nn(digit, [I], D, [0, 1, 2]) :: digit(I, D).
        0.1 :: broken.
        sum(Z) :- digit(left, X), digit(right, Y), add(X, Y, Z), \\+ broken.
        sum(0) :- broken.
        query(sum(Z)).
    """
    add = blackbox(Integer(0, 2), Integer(0, 2), output=Integer(0, 4), name="add")(int.__add__)
    engine = DefaultEngine()
    register(engine, add)
    formula = engine.ground_all(read(text))
    p = torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(0)).softmax(-1)
    found = (
        get_evaluatable(name)
        .create_from(formula)
        .evaluate(semiring=semiring(concepts={"digit": p}))
    )
    wanted = Program(text, [add])(digit=p)
    assert len(found) == 5
    for query, column in found.items():
        torch.testing.assert_close(column, wanted[int(query.args[0])])


def test_certain_queries_and_other_shapes() -> None:
    program = read(
        "nn(d, [X], D, [a, b]) :: d(X, D). t. f :- fail. query(t). query(f). query(d(x, a))."
    )
    one = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    for probs in (one, one[:, None], {"x": one}):
        for name in EVALUATABLES:
            found = evaluated(program, name, semiring("exact", {"d": probs}))
            assert {query: p.tolist() for query, p in found.items()} == {
                "t": [1.0, 1.0],
                "f": [0.0, 0.0],
                "d(x,a)": [0.25, 0.5],
            }
    ring = semiring("exact", {"d": torch.stack([one.flip(1), one], 1)}, instances={"d": ["y", "x"]})
    assert evaluated(program, "sdd", ring)["d(x,a)"].tolist() == [0.25, 0.5]


def test_files_that_are_consulted(tmp_path: Path) -> None:
    (tmp_path / "net.pl").write_text("nn(d, [X], D, [a, b]) :: d(X, D).\n", encoding="utf-8")
    path = tmp_path / "main.pl"
    path.write_text(":- consult('net.pl').\nquery(d(1, _)).\n", encoding="utf-8")
    found = evaluated(read(path), None, semiring("exact", {"d": torch.tensor([[0.25, 0.75]])}))
    assert {query: p.tolist() for query, p in found.items()} == {"d(1,a)": [0.25], "d(1,b)": [0.75]}
    with pytest.raises(ProgramError, match="inputs of an nn declaration") as caught:
        read("a.\nnn(n, a, D, [0]) :: d(D).\n")
    assert (caught.value.line, caught.value.column) == (2, 21)
    (tmp_path / "net.pl").write_text("nn(n, a, D, [0]) :: d(D).\n", encoding="utf-8")
    with pytest.raises(ProgramError, match="inputs of an nn declaration"):
        evaluated(read(path), None)


# Sampled


def close(scores: Tensor, probs: Tensor, samples: int) -> None:
    """Frequencies within five standard errors."""
    error = (probs * (1 - probs) / samples).sqrt().clamp_min(1 / samples)
    assert bool(((scores - probs).abs() <= 5 * error).all())


@pytest.mark.parametrize(
    ("name", "estimator"),
    [*((name, "rloo") for name in EVALUATABLES), ("sdd", "marginals"), ("byssus", "distinct")],
)
def test_sampled(name: str, estimator: str) -> None:
    samples = 2000
    probs = digits()
    program = Program(DIGITS)
    expected = program(probs).probs
    ring = semiring(
        "sampled",
        probs,
        samples=samples,
        estimator=estimator,
        generator=torch.Generator().manual_seed(3),
    )
    found = stacked(evaluated(read(DIGITS), name, ring), program.queries)
    close(found, expected, samples)


@pytest.mark.parametrize(
    ("name", "sampled"),
    [("sdd", None), ("byssus", None), ("ddnnf", ["digit(i2)"]), ("byssus", ["wet", "digit(i10)"])],
)
def test_gradients_are_unbiased(name: str, sampled: list[str] | None) -> None:
    """The mean of many estimates of the gradient is the gradient."""
    logits = uniform(1, 2, 5).requires_grad_()
    wet = uniform(1, 1, seed=1).requires_grad_()
    weights = torch.tensor(
        [0.0, 1.0, -1.0, 2.0, 0.5, 0.0, 0.0, 1.0, 0.0, -1.0], dtype=torch.float64
    )
    program = Program(DIGITS)

    def gradient(found: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad((found @ weights).mean(), [logits, wet]))

    expected = gradient(program(digit=logits.softmax(-1), wet=wet).probs)
    formula = get_evaluatable(name).create_from(read(DIGITS))
    batch, samples = 100, 40
    torch.manual_seed(0)

    def estimate() -> list[Tensor]:
        many = logits.softmax(-1).expand(batch, -1, -1), wet.expand(batch, -1)
        ring = semiring(
            "sampled" if sampled is None else "mixed",
            dict(zip(("digit", "wet"), many, strict=True)),
            sampled=sampled,
            samples=samples,
        )
        found = {str(query): p for query, p in formula.evaluate(semiring=ring).items()}
        return gradient(stacked(found, program.queries))

    estimates = [estimate() for _ in range(8)]
    for i, exact in enumerate(expected):
        each = torch.stack([estimate[i] for estimate in estimates])
        error = each.std(0) / math.sqrt(len(each))
        assert bool(((each.mean(0) - exact).abs() <= 5 * error + 1e-9).all())


@pytest.mark.parametrize("name", EVALUATABLES)
def test_evidence_is_a_ratio_of_expectations(name: str) -> None:
    text = DIGITS + "evidence(seen). seen :- digit(i2, 4), wet(1). seen :- digit(i10, 1).\n"
    probs = digits(2)
    program = Program(text)
    expected = program(probs).probs
    samples = 8000
    for options in ({"provenance": "sampled"}, {"provenance": "mixed", "sampled": ["digit(i2)"]}):
        ring = semiring(
            concepts=probs, samples=samples, generator=torch.Generator().manual_seed(5), **options
        )
        found = stacked(evaluated(read(text), name, ring), program.queries)
        close(found, expected, samples // 10)


def test_sampled_facts_and_what_stays_exact() -> None:
    program = PrologString("p(1)::a. p(2)::b. 0.3::c. q :- a. q :- b, c. query(q). query(c).")
    probs = {"p(1)": torch.tensor([0.2, 0.9]), "p(2)": torch.tensor([0.5, 0.5])}
    exact = evaluated(program, "sdd", semiring("exact", probs))
    for name in EVALUATABLES:
        generator = torch.Generator().manual_seed(0)
        ring = semiring("sampled", probs, samples=2000, generator=generator)
        found = evaluated(program, name, ring)
        close(found["q"], exact["q"], 2000)
        torch.testing.assert_close(found["c"], torch.tensor([0.3, 0.3]))
        ring = semiring("mixed", probs, sampled=["p(1)"], samples=2, generator=generator)
        shares = evaluated(program, name, ring)["q"]
        # One of two worlds, or none, or both; the rest is 0.15 exactly.
        assert all(min(abs(s - t) for t in (0.15, 0.575, 1.0)) < 1e-6 for s in shares.tolist())


ATOMS = ["digit(i2, 3)", "\\+ digit(i2, 3)", "wet(1)", "\\+ sum(4)"]


@pytest.mark.parametrize("name", EVALUATABLES)
@pytest.mark.parametrize("atom", ATOMS)
def test_evidence_on_an_atom(name: str, atom: str) -> None:
    """ProbLog gives an observed atom the weight 1; under sampled its worlds keep theirs."""
    text = DIGITS + f"evidence({atom}). query(digit(i2, _)).\n"
    probs = digits(2)
    program = Program(text)
    expected = program(probs).probs
    found = stacked(evaluated(read(text), name, semiring("exact", probs)), program.queries)
    torch.testing.assert_close(found, expected)
    generator = torch.Generator().manual_seed(5)
    ring = semiring("sampled", probs, samples=2000, generator=generator)
    found = stacked(evaluated(read(text), name, ring), program.queries)
    close(found, expected, 200)


@pytest.mark.parametrize(
    "text",
    [
        "nn(d, [X], D, [0, 1]) :: a(X, D). nn(d, [X], D, [0, 1]) :: b(X, D).\n"
        "q :- a(x, 1), b(x, 1). query(q).",
        "nn(d, [X], D, [0, 1]) :: a(X, Y, D) :- c(Y). c(1). c(2).\n"
        "q :- a(x, 1, 1), a(x, 2, 1). query(q).",
    ],
)
def test_two_concepts_of_one_instance(text: str) -> None:
    """Each instance of a declaration has a concept of its own, as in a `Program`."""
    probs = {"d": torch.tensor([[0.5, 0.5]])}
    assert Program(text)(probs).probs.item() == pytest.approx(0.25)
    for name in EVALUATABLES:
        assert evaluated(read(text), name, semiring("exact", probs))["q"].item() == 0.25
        ring = semiring("sampled", probs, samples=4000, generator=torch.Generator().manual_seed(0))
        close(evaluated(read(text), name, ring)["q"], torch.tensor([0.25]), 4000)


# The evaluatable


@st.composite
def programs(draw: st.DrawFn) -> str:
    """Facts, disjunctions, rules with cycles and negation of facts, evidence and queries.

    The probabilities of the facts are left open: {0}, {1}, {2}.
    """
    lines = [f"{{{i}}}::f{i}." for i in range(3)]
    lines.append("0.3::g0; 0.25::g1" + draw(st.sampled_from(["", "; 0.45::g2", "; 0.2::g2"])) + ".")
    basic = ["f0", "f1", "f2", "g0", "g1"]
    literal = st.sampled_from([*basic, *(f"\\+ {b}" for b in basic), "r0", "r1", "r2"])
    for i in range(3):
        for _ in range(draw(st.integers(1, 3))):
            body = draw(st.lists(literal, min_size=1, max_size=3))
            head = draw(st.sampled_from(["", "0.5::"])) + f"r{i}"
            lines.append(f"{head} :- {', '.join(body)}.")
    for literal_ in draw(st.lists(st.sampled_from([*basic, "r0", "r1"]), max_size=2, unique=True)):
        lines.append(f"evidence({draw(st.sampled_from(['', chr(92) + '+ ']))}{literal_}).")
    lines += [f"query(r{i})." for i in range(3)] + ["query(g1)."]
    return "\n".join(lines)


PROBABILITY = st.sampled_from([0.1, 0.5, 0.75, 1.0, 0.0])


@given(programs(), st.tuples(*3 * [PROBABILITY]))
@settings(max_examples=40)
def test_numbers_as_problog(text: str, probs: tuple[float, ...]) -> None:
    formula = DefaultEngine().ground_all(PrologString(text.format(*probs)))
    try:
        expected = get_evaluatable("sdd").create_from(formula).evaluate()
    except InconsistentEvidenceError:
        with pytest.raises(InconsistentEvidenceError):
            get_evaluatable("byssus").create_from(formula).evaluate()
        return
    for ring in (None, SemiringProbability()):
        found = get_evaluatable("byssus").create_from(formula).evaluate(semiring=ring)
        assert found == pytest.approx(expected, abs=1e-6)
        assert all(type(p) is float for p in found.values())
    found = get_evaluatable("sdd").create_from(formula).evaluate(semiring=semiring())
    assert {q: p.item() for q, p in found.items()} == pytest.approx(expected, abs=1e-6)


@given(programs(), st.lists(st.tuples(*3 * [PROBABILITY]), min_size=2, max_size=2))
@settings(max_examples=20)
def test_tensors_as_problog(text: str, rows: list[tuple[float, ...]]) -> None:
    """Each example of a batch is what ProbLog computes of its numbers."""
    names = [f"p({i})" for i in range(3)]
    columns = torch.tensor(rows, dtype=torch.float64).unbind(1)
    program = PrologString(text.format(*names))
    expected = []
    for row in rows:
        try:
            expected.append(evaluated(PrologString(text.format(*row)), "sdd"))
        except InconsistentEvidenceError:
            expected = []
            break
    for name in ("sdd", "byssus"):
        ring = semiring("exact", dict(zip(names, columns, strict=True)))
        if not expected:
            with pytest.raises((ProbabilityError, InconsistentEvidenceError)):
                evaluated(program, name, ring)
            continue
        found = evaluated(program, name, ring)
        for i, numbers in enumerate(expected):
            each = {query: p[i].item() for query, p in found.items()}
            assert each == pytest.approx(numbers, abs=1e-6)


def test_evidence_and_weights_at_evaluation() -> None:
    """As ProbLog's: evidence by term, one node, and labels in place of the program's."""
    a, b, c = Term("a"), Term("b"), Term("c")
    text = "0.4::a. 0.3::b; 0.2::d. c :- a. c :- b, \\+ d. query(c). query(b). evidence(a, true). "
    formula = DefaultEngine().ground_all(
        PrologString(text), evidence=[(a, True), (b, None), (c, None)]
    )
    both = [get_evaluatable(name).create_from(formula) for name in ("sdd", "byssus")]
    for evidence in (None, {}, {a: False}, {a: False, c: True}, {b: True}, {b: None, c: False}):
        for keep in (False, True):
            if keep and evidence == {b: None, c: False}:
                continue  # impossible
            found = [f.evaluate(evidence=evidence, keep_evidence=keep) for f in both]
            assert found[1] == pytest.approx(found[0], abs=1e-9), (evidence, keep)
    for weights in ({a: 0.9}, {b: 0.5, a: None}, {a: False}):
        found = [f.evaluate(evidence={}, weights=weights) for f in both]
        assert found[1] == pytest.approx(found[0], abs=1e-9), weights
    for name, index, _ in both[1].formula.labeled():
        assert both[1].evaluate(index=index) == pytest.approx(both[1].evaluate()[name])
    with pytest.raises(InconsistentEvidenceError):
        both[1].evaluate(evidence={c: False}, keep_evidence=True)
    with pytest.raises(ConceptError, match="no evidence on 'x'"):
        both[1].evaluate(evidence={Term("x"): True})
    with pytest.raises(ByssusError, match="not SemiringSymbolic"):
        both[1].evaluate(semiring=SemiringSymbolic())


def test_limits() -> None:
    facts = "".join(f"0.5::v({i}). " for i in range(40))
    rules = "".join(f"q :- v({7 * i % 40}), v({11 * i % 40}), \\+v({i % 40}). " for i in range(60))
    with pytest.raises(CompilationLimit, match="100 nodes"):
        get_evaluatable("byssus").create_from(facts + rules + "query(q).", nodes=100).evaluate()


# What is wrong

HALF = torch.tensor([0.5, 0.5])
ONE = "nn(d, [X], D, [0, 1]) :: d(X, D). query(d(a, 1)). query(d(b, 1))."
NAMED = "p::a. query(a)."
ERRORS: list[tuple[str, dict[str, Any], type[ByssusError], str]] = [
    (ONE, {}, ConceptError, "the probabilities of d are missing"),
    (ONE, {"d": HALF}, ShapeError, r"d of shape \(2,\): expected \(batch, 2, 2\)"),
    (ONE, {"d": torch.full((3, 1, 2), 0.5)}, ShapeError, r"\(3, 1, 2\).*instances 'a', 'b'"),
    (ONE, {"d": torch.full((3, 2, 2), 0.6)}, ProbabilityError, "sum to 1.2"),
    (ONE, {"d": torch.full((0, 2, 2), 0.5)}, EmptyBatchError, "at least one example"),
    (NAMED, {}, ConceptError, "the label p is no number, .* concepts={'p': a tensor"),
    (NAMED, {"p": torch.tensor([0.5, 1.5])}, ProbabilityError, "p is 1.5 in example 1"),
    (NAMED, {"p": torch.tensor([math.nan])}, ProbabilityError, "p is nan in example 0"),
    (NAMED, {"p": HALF[None]}, ShapeError, r"p is to be .*\(batch,\), not .*\(1, 2\)"),
    (NAMED, {"p": [0.5]}, ShapeError, "not list"),
    (NAMED, {"p": torch.empty(0)}, EmptyBatchError, "p is empty"),
    ("p::a. q::b. query(a). query(b).", {"p": HALF, "q": torch.ones(3)}, ShapeError, "2 examples"),
    ("p::a; q::b. query(a). query(b).", {"p": HALF, "q": HALF + 0.4}, ProbabilityError, "to 1.4"),
    ("1.5::a. query(a).", {}, ProbabilityError, "the label 1.5"),
    (
        "p::a. query(a). evidence(\\+ a).",
        {"p": torch.tensor([0.5, 1.0])},
        ProbabilityError,
        "the evidence has probability 0 in example 1",
    ),
]


@pytest.mark.parametrize("name", EVALUATABLES)
@pytest.mark.parametrize(("text", "concepts", "error", "message"), ERRORS)
def test_errors(
    text: str, concepts: dict[str, Any], error: type[ByssusError], message: str, name: str
) -> None:
    with pytest.raises(error, match=message):
        evaluated(read(text), name, semiring("exact", concepts))


@pytest.mark.parametrize("name", EVALUATABLES)
def test_no_sampled_world_agrees(name: str) -> None:
    rare = {"p": torch.tensor([1e-6])}
    ring = semiring("sampled", rare, samples=10, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ProbabilityError, match="no sampled world agrees"):
        evaluated("p::a. query(a). evidence(a).", name, ring)


def test_settings() -> None:
    for arguments, message in [
        ({"provenance": "exactly"}, "provenance='exactly'"),
        ({"provenance": "mixed"}, "sampled= goes with"),
        ({"provenance": "exact", "sampled": ["a"]}, "sampled= goes with"),
        ({"samples": 0}, "samples=0"),
        ({"estimator": "ised"}, "estimator='ised'"),
        ({"estimator": "nothing"}, "no estimator"),
        ({"concepts": [1]}, "by name"),
    ]:
        with pytest.raises(ByssusError, match=message):
            semiring(**arguments)  # type: ignore[arg-type]
    label = Term("$nn", Term("d"), Term("[]"), Term("0"))
    with pytest.raises(ConceptError, match=r"byssus_problog\.read"):
        semiring().value(label)
    program = PrologString("p::a. p::b. q :- a. q :- b. query(q).")
    with pytest.raises(ByssusError, match="plain numbers"):
        evaluated(program, "fsdd", semiring(concepts={"p": HALF}))


def test_a_weight_of_what_is_not_in_the_program() -> None:
    formula = get_evaluatable("byssus").create_from(PrologString("0.3::a. query(a)."))
    with pytest.raises(ConceptError, match=r"weights= names b, .* has 'a': take it away"):
        formula.evaluate(weights={Term("b"): 0.5})


def test_an_unknown_concept_to_sample() -> None:
    ring = semiring("mixed", {"p": HALF}, sampled=["r"])
    with pytest.raises(ConceptError, match=r"sampled=\['r'\].*'p'"):
        evaluated(NAMED, "sdd", ring)
