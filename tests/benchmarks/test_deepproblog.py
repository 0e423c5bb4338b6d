"""Training steps of DeepProbLog's MNIST addition: its exact engine, and one line changed, ours."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest
import torch
from problog.logic import Constant, Term, list2term
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from benchmarks.alternating import alternate

pytest.importorskip("deepproblog", reason="the comparison needs deepproblog")

from byssus_deepproblog import Engine

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from deepproblog.engines import ExactEngine
    from deepproblog.examples.MNIST.network import MNIST_Net
    from deepproblog.model import Model
    from deepproblog.network import Network
    from deepproblog.query import Query
    from deepproblog.train import TrainObject

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")

BATCH = 32
DIGIT = "nn(mnist_net, [X], Y, [0,1,2,3,4,5,6,7,8,9]) :: digit(X, Y).\n"
ADDITION = DIGIT + "addition(X, Y, Z) :- digit(X, X2), digit(Y, Y2), Z is X2 + Y2.\n"
CARRY = (
    DIGIT
    + """
result(X, Y, C, Carry, R) :- digit(X, D1), digit(Y, D2), S is D1 + D2 + C,
    Carry is S // 10, R is S mod 10.
add([], [], C, C, []).
add([X|Xs], [Y|Ys], Cin, Cout, [R|Rs]) :- add(Xs, Ys, Cin, C, Rs), result(X, Y, C, Cout, R).
multi_addition(Xs, Ys, [C|Rs]) :- add(Xs, Ys, 0, C, Rs).
"""
)


class Images:
    """A tensor source: images, or what a network has said of them already."""

    def __init__(self, tensors: Tensor) -> None:
        self.tensors = [row.clone().requires_grad_(row.dim() == 1) for row in tensors]

    def __getitem__(self, index: tuple[Constant, ...]) -> Tensor:
        return self.tensors[int(index[0])]


def project(engine: Any, digits: int, *, networks: bool = True) -> Model:
    """The model, as a project would set it up."""
    torch.manual_seed(0)
    count = BATCH * 2 * digits
    if networks:
        source = Images(torch.rand(count, 1, 28, 28))
        module: nn.Module = MNIST_Net()
        parameters = list(module.parameters())
    else:
        source = Images(torch.randn(count, 10).softmax(-1))
        module, parameters = nn.Identity(), source.tensors
    network = Network(module, "mnist_net", batching=True)
    network.optimizer = torch.optim.SGD(parameters, lr=0.0)  # the same weights always
    model = Model(ADDITION if digits == 1 else CARRY, [network], load=False)
    model.set_engine(engine(model), cache=True)
    model.add_tensor_source("train", source)
    return model


def queries(digits: int) -> list[Query]:
    """A batch, as DeepProbLog's own dataset makes it."""
    draw = random.Random(0)
    names = [Term(f"p{i}") for i in range(2 * digits)]
    batch = []
    for example in range(BATCH):
        images = [Term("tensor", Term("train", Constant(example * len(names) + i)))
                  for i in range(len(names))]  # fmt: skip
        first, second = (draw.randrange(10**digits) for _ in range(2))
        total = f"{first + second:0{digits + 1}}"
        if digits == 1:
            term = Term("addition", *names, Constant(first + second))
        else:
            parts = [names[:digits], names[digits:], [Constant(int(d)) for d in total]]
            term = Term("multi_addition", *map(list2term, parts))
        batch.append(Query(term, dict(zip(names, images, strict=True))))
    return batch


def step_of(model: Model, batch: list[Query]) -> Callable[[], float]:
    """A step of `train_model`."""
    train = TrainObject(model)

    def step() -> float:
        model.optimizer.zero_grad()
        loss = train.get_loss(batch, model.solver.semiring.cross_entropy)
        model.optimizer.step()
        return float(loss)

    return step


def compare(
    benchmark: BenchmarkFixture, digits: int, rounds: int, repeats: int, *, networks: bool = True
) -> float:
    """How many times faster a cached step is; the losses must agree."""
    batch = queries(digits)
    ours, theirs = (
        step_of(project(engine, digits, networks=networks), batch)
        for engine in (Engine, ExactEngine)
    )
    assert ours() == pytest.approx(theirs(), abs=1e-5)
    compared = alternate(ours, theirs, rounds, (repeats, 1))
    benchmark.extra_info.update(compared.info("deepproblog"))
    benchmark.pedantic(ours, rounds=rounds)
    return compared.ratio


# The short versions are a guard, as the machine may be busy.


def test_one_digit(benchmark: BenchmarkFixture, rounds: int) -> None:
    assert compare(benchmark, 1, rounds // 2, 10) > 30 * (1 if rounds == 20 else 0.6)


def test_one_digit_without_the_network(benchmark: BenchmarkFixture, rounds: int) -> None:
    ratio = compare(benchmark, 1, rounds // 2, 10, networks=False)
    assert ratio > 100 * (1 if rounds == 20 else 0.6)


@pytest.mark.slow
def test_two_digits(benchmark: BenchmarkFixture) -> None:
    assert compare(benchmark, 2, 5, 10) > 60


@pytest.mark.slow
def test_three_digits(benchmark: BenchmarkFixture) -> None:
    assert compare(benchmark, 3, 3, 10) > 200


def test_first_step(benchmark: BenchmarkFixture, rounds: int) -> None:
    """Grounding and compilation included."""
    batch = queries(1)
    ratios = [0.0]
    while len(ratios) <= rounds // 4 or (max(ratios) < 10 and len(ratios) < 5):
        seconds = []
        for engine in Engine, ExactEngine:
            step = step_of(project(engine, 1), batch)
            started = perf_counter()
            step()
            seconds.append(perf_counter() - started)
        ratios.append(seconds[1] / seconds[0])
    benchmark.extra_info["deepproblog_ratio"] = max(ratios)
    benchmark.pedantic(step_of(project(Engine, 1), batch), rounds=1)
    assert max(ratios) > 10


def test_sixteen_digits(benchmark: BenchmarkFixture, rounds: int) -> None:
    """Which DeepProbLog cannot compile: a step, and before it the compilation."""
    batch = queries(16)
    started = perf_counter()
    step = step_of(project(Engine, 16), batch)
    step()
    benchmark.extra_info["first_step_s"] = perf_counter() - started
    benchmark.pedantic(step, rounds=rounds // 5)
