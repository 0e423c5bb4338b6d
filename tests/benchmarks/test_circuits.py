"""Circuits, against KLay on the same SDDs."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from pysdd.sdd import SddNode
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.alternating import alternate
from byssus import Circuit, Exact

BATCH = 64

# How many times faster than KLay at least, by digits and KLay's semiring, other processes running.
BARS = {2: {"real": 2, "log": 4}, 4: {"real": 3, "log": 5}, 8: {"real": 5, "log": 7}}


@cache
def sums(digits: int) -> tuple[Circuit, list[SddNode], Exact]:
    """The circuit and the SDDs of every sum of so many digits."""
    exact = Exact([10] * digits)
    tags = {0: exact.one}
    for digit in range(digits):
        longer: dict[int, SddNode] = {}
        for total, tag in tags.items():
            for value in range(10):
                case = exact.mult(tag, exact.literal(digit, value))
                longer[total + value] = exact.add(longer.get(total + value, exact.zero), case)
        tags = longer
    ordered = [tags[total] for total in range(9 * digits + 1)]
    return exact.circuit(ordered), ordered, exact


def digit_probs(digits: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(BATCH, digits, 10).softmax(-1)


def ladder(probs: Tensor) -> Tensor:
    """Of each Boolean variable the probability that it is true: this value, given none before."""
    before = probs.cumsum(-1) - probs
    return (probs / (1 - before))[..., :-1].clamp(0, 1).flatten(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("digits", [2, 4, 8])
def test_klay(benchmark: BenchmarkFixture, rounds: int, digits: int) -> None:
    """Against both its semirings: "log" is its default, "real" the faster one."""
    klay = pytest.importorskip("klay", reason="the comparison needs klaycircuits")
    circuit, tags, _ = sums(digits)
    probs = digit_probs(digits)
    weights = probs.flatten(1).requires_grad_()
    true = ladder(probs.double()).float()
    diagrams = klay.Circuit()
    for tag in tags:
        diagrams.add_sdd(tag)

    upstream = torch.randn(BATCH, len(tags))

    def ours() -> None:
        circuit(weights).backward(upstream)

    ratios = {}
    for semiring in ("real", "log"):
        module = diagrams.to_torch_module(semiring=semiring, compile=False)
        positive, negative = [
            (w.log() if semiring == "log" else w).clone().requires_grad_() for w in (true, 1 - true)
        ]
        result = module(positive, negative)
        result = result.exp() if semiring == "log" else result
        assert torch.allclose(result, circuit(weights), rtol=0, atol=1e-5)

        def theirs(module=module, positive=positive, negative=negative) -> None:
            module(positive, negative).backward(upstream)

        comparison = alternate(ours, theirs, 3 * rounds, (50, 10))
        benchmark.extra_info.update(comparison.info(f"klay_{semiring}"))
        ratios[semiring] = comparison.ratio
    benchmark.pedantic(ours, rounds=10 * rounds, warmup_rounds=20)
    for semiring, bar in BARS[digits].items():
        assert ratios[semiring] >= bar, benchmark.extra_info


@pytest.mark.parametrize("space", ["probabilities", "logarithms"])
@pytest.mark.parametrize("digits", [2, 4, 8, 16])
def test_step(benchmark: BenchmarkFixture, rounds: int, digits: int, space: str) -> None:
    circuit, tags, _ = sums(digits)
    probs = digit_probs(digits).flatten(1)
    weights = (probs.log() if space == "logarithms" else probs).requires_grad_()
    evaluate = circuit.log_forward if space == "logarithms" else circuit
    upstream = torch.randn(BATCH, len(tags))

    def step() -> None:
        evaluate(weights).backward(upstream)

    benchmark.extra_info["nodes"] = circuit.size
    benchmark.pedantic(step, rounds=5 * rounds, warmup_rounds=3)
