"""Programs: a step of training without its networks, and what it takes to get there."""

from __future__ import annotations

import warnings
from functools import cache
from time import perf_counter

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.alternating import alternate, fastest
from byssus import Concepts, Integer, List, Sampled, blackbox, independent

problog = pytest.importorskip("problog", reason="programs are ProbLog's")

from problog.engine import DefaultEngine  # noqa: E402
from problog.program import PrologString  # noqa: E402

from byssus_problog import Program, register  # noqa: E402

BATCH, SAMPLES = 64, 100

SMOKERS = """
smokes(X) :- stress(X).
smokes(X) :- influences(X, Y), smokes(Y).
smokes(X) :- influences(Y, X), smokes(Y).
query(smokes(_)).
"""

LEAF_CALL = """
digits([], []).
digits([I|Is], [D|Ds]) :- digit(I, D), digits(Is, Ds).
sum(Z) :- digits({}, A), digits({}, B), add(A, B, Z).
query(sum(_)).
"""

ADDITION = """
nn(mnist_net, [X], Y, [0,1,2,3,4,5,6,7,8,9]) :: digit(X, Y).
addition(X, Y, Z) :- digit(X, X2), digit(Y, Y2), Z is X2 + Y2.
"""

RECURSIVE_SUM = """
nn(mnist_net, [I], D, [0,1,2,3,4,5,6,7,8,9]) :: digit(I, D).
sum(0, 0).
sum(I, S) :- I > 0, J is I - 1, sum(J, T), digit(I, D), S is T + D.
query(sum(16, S)).
"""


def batch(digits: int) -> tuple[Tensor, Tensor]:
    """The probabilities of the digits, and the sums to learn from."""
    torch.manual_seed(0)
    probs = torch.randn(BATCH, digits, 10).softmax(-1).requires_grad_()
    return probs, torch.randint(0, 10, (BATCH, digits)).sum(1)


def addition(**options: object) -> Program:
    generator = torch.Generator().manual_seed(0)
    program = ADDITION + "query(addition(a, b, Z)).\n"
    return Program(program, samples=SAMPLES, generator=generator, **options)


@pytest.mark.filterwarnings("ignore")
def test_deepproblog(benchmark: BenchmarkFixture, rounds: int) -> None:
    """DeepProbLog's own addition, through its own training step, its cache warm."""
    pytest.importorskip("deepproblog", reason="the comparison needs deepproblog")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from deepproblog.engines import ExactEngine
        from deepproblog.model import Model
        from deepproblog.network import Network
        from deepproblog.query import Query
        from deepproblog.semiring.graph_semiring import GraphSemiring
        from deepproblog.train import TrainObject
    from problog.logic import Constant, Term

    probs, targets = batch(2)
    rows = [row.detach().requires_grad_() for row in probs.detach().flatten(0, 1)]

    class Rows:
        """The images: already what the network would say of them."""

        def __getitem__(self, index: tuple[Constant]) -> Tensor:
            return rows[int(index[0])]

    model = Model(ADDITION, [Network(torch.nn.Identity(), "mnist_net")], load=False)
    model.set_engine(ExactEngine(model), cache=True)
    model.add_tensor_source("train", Rows())
    a, b = Term("a"), Term("b")
    queries = [
        Query(
            Term("addition", a, b, Constant(target)),
            {
                name: Term("tensor", Term("train", Constant(2 * i + j)))
                for j, name in enumerate((a, b))
            },
        )
        for i, target in enumerate(targets.tolist())
    ]
    training = TrainObject(model)
    program = addition()

    def ours() -> None:
        program(mnist_net=probs).loss(targets).backward()

    def theirs() -> None:
        training.get_loss(queries, GraphSemiring.cross_entropy)

    solved = [
        result.result[query.substitute().query]
        for result, query in zip(model.solve(queries), queries, strict=True)
    ]
    found = program(mnist_net=probs).probs.gather(1, targets[:, None]).squeeze(1)
    assert torch.allclose(torch.stack(solved), found, rtol=0, atol=1e-5)
    ours()
    theirs()
    grads = torch.stack([row.grad for row in rows]).reshape(probs.shape)
    assert torch.allclose(grads, probs.grad, rtol=1e-4, atol=1e-5)

    comparison = alternate(ours, theirs, rounds, (10, 1))
    benchmark.extra_info.update(comparison.info("deepproblog"))
    benchmark.pedantic(ours, rounds=10 * rounds, warmup_rounds=5)
    assert comparison.ratio >= 300, comparison


@cache
def recursive_sum() -> tuple[Program, float]:
    """The program, and the least number of seconds that it took to construct."""
    least = float("inf")
    for _ in range(3):
        started = perf_counter()
        program = Program(RECURSIVE_SUM)
        least = min(least, perf_counter() - started)
        if least < 5:
            break
    return program, least


def test_sixteen_digits(benchmark: BenchmarkFixture, rounds: int) -> None:
    program, seconds = recursive_sum()
    probs, targets = batch(16)

    def step() -> None:
        program(mnist_net=probs).loss(targets).backward()

    benchmark.extra_info["construct_s"] = seconds
    benchmark.pedantic(step, rounds=3 * rounds, warmup_rounds=3)
    assert seconds < 5
    assert fastest(step, 3 * rounds) < 0.050


@pytest.mark.parametrize("what", ["forward", "step"])
@pytest.mark.parametrize("estimator", ["ised", "distinct", "rloo", "indecater"])
def test_sampled(benchmark: BenchmarkFixture, rounds: int, estimator: str, what: str) -> None:
    """The rules over all 64 x 100 worlds of a batch, in one pass."""
    program = addition(provenance="sampled", estimator=estimator)
    probs, targets = batch(2)

    def forward() -> object:
        return program(mnist_net=probs)

    def step() -> None:
        program(mnist_net=probs).loss(targets).backward()

    benchmark.pedantic(forward if what == "forward" else step, rounds=3 * rounds, warmup_rounds=2)
    if what == "forward":
        assert fastest(forward, 3 * rounds) < 0.020


def test_bitsets(benchmark: BenchmarkFixture, rounds: int) -> None:
    """The same as an engine runs it: each operation of the rules is one for all worlds."""
    probs, _ = batch(2)
    concepts = Concepts(probs.detach().flatten(1), (10, 10))
    generator = torch.Generator().manual_seed(0)

    def forward() -> Tensor:
        sampled = Sampled(concepts.widths, independent(concepts, SAMPLES, generator))
        tags = [sampled.zero] * 19
        for x in range(10):
            for y in range(10):
                case = sampled.mult(sampled.literal(0, x), sampled.literal(1, y))
                tags[x + y] = sampled.add(tags[x + y], case)
        return sampled.readout(tags, concepts, range(19)).scores

    benchmark.pedantic(forward, rounds=3 * rounds, warmup_rounds=2)
    assert fastest(forward, 3 * rounds) < 0.020


def test_mixed(benchmark: BenchmarkFixture, rounds: int) -> None:
    """One digit sampled, the other summed out."""
    program = addition(provenance="mixed")
    probs, targets = batch(2)

    def step() -> None:
        program(mnist_net=probs).loss(targets).backward()

    benchmark.pedantic(step, rounds=3 * rounds, warmup_rounds=2)


@pytest.mark.parametrize(("digits", "provenance"), [(2, "exact"), (2, "sampled"), (4, "sampled")])
def test_blackbox(benchmark: BenchmarkFixture, rounds: int, digits: int, provenance: str) -> None:
    """A function over digits: its table, or as many of its worlds as are sampled."""

    @blackbox(*[Integer(0, 9)] * digits, output=Integer(0, 9 * digits), provenance=provenance)
    def add(*values: int) -> int:
        return sum(values)

    probs, targets = batch(digits)

    def step() -> None:
        add(*probs.unbind(1)).loss(targets).backward()

    benchmark.pedantic(step, rounds=3 * rounds, warmup_rounds=2)
    benchmark.extra_info["calls"] = add.calls


@pytest.mark.parametrize("digits", [2, 16])
def test_leaf_call(benchmark: BenchmarkFixture, rounds: int, digits: int) -> None:
    """Two numbers added by a black box: grounding, where ProbLog calls it on all digits."""
    names = [[f"{side}{i}" for i in range(digits)] for side in "ab"]
    rules = LEAF_CALL.format(*(f"[{', '.join(side)}]" for side in names))
    text = "nn(mnist_net, [X], Y, [0,1,2,3,4,5,6,7,8,9]) :: digit(X, Y).\n" + rules
    number = List(Integer(0, 9), digits)

    def add(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        return int("".join(map(str, a))) + int("".join(map(str, b)))

    def ours() -> Program:
        # Ten thousand tuples would be tabulated.
        return Program(text, [blackbox(number, number, budget=9_999)(add)])

    def theirs() -> None:
        engine = DefaultEngine()
        register(engine, blackbox(number, number)(add))
        facts = "".join(
            "; ".join(f"0.1 :: digit({name}, {d})" for d in range(10)) + ".\n"
            for side in names
            for name in side
        )
        engine.ground_all(engine.prepare(PrologString(facts + rules)))

    if digits == 2:
        comparison = alternate(ours, theirs, 1, (5, 1))
        benchmark.extra_info.update(comparison.info("problog"))
        assert comparison.ratio > 10
    program = benchmark.pedantic(ours, rounds=rounds, warmup_rounds=1)
    assert len(program._rules.ground.calls) == 1
    seconds = fastest(lambda: program._grounder.ground(program._known), rounds)
    benchmark.extra_info["ground_ms"] = 1e3 * seconds


@pytest.mark.parametrize("vtree", ["program", "grouped", "balanced", "minimized"])
def test_vtrees(benchmark: BenchmarkFixture, rounds: int, vtree: str) -> None:
    """Smokers among 40 persons, whose friendships are a tree: nodes, and a step."""
    text = SMOKERS + "".join(f"0.3::stress({i}).\n" for i in range(1, 41))
    text += "".join(f"0.4::influences({i}, {i // 2}).\n" for i in range(2, 41))
    program = Program(text, provenance="exact", vtree=vtree)
    circuit = program.circuit
    assert circuit is not None
    benchmark.extra_info["nodes"] = circuit.size
    weights = torch.rand(BATCH, circuit.columns, requires_grad=True)

    def step() -> None:
        circuit(weights).sum().backward()

    benchmark.pedantic(step, rounds=3 * rounds, warmup_rounds=2)
