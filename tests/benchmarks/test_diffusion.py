"""What a diffusion model asks of its program: of circuits, of a table of all worlds, of samples."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from additions import addition
from benchmarks.alternating import alternate
from byssus.diffusion._compiled import Compiled
from byssus.diffusion._enumerated import Enumerated
from byssus.diffusion._sampled import Sampled
from byssus.diffusion.inference import Inference

BATCH = 64


def asked(digits: int) -> tuple[Tensor, Tensor]:
    """The probabilities of the digits of two numbers, and the digits of their sums."""
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(BATCH, 2 * digits, 10, generator=generator).log_softmax(-1)
    digit = torch.randint(10, (BATCH, 2 * digits), generator=generator)
    return log_probs.flatten(1).requires_grad_(), addition(digits).run(digit)


def question(name: str, inference: Inference, digits: int) -> Callable[[], None]:
    log_probs, y = asked(digits)
    generator = torch.Generator().manual_seed(0)

    def draw() -> None:
        inference.draw(log_probs, y, generator)

    def entropy() -> None:
        inference.entropy(log_probs, y).sum().backward()

    def likelihoods() -> None:
        inference.log_likelihoods(log_probs, y).sum().backward()

    return {"draw": draw, "entropy": entropy, "likelihoods": likelihoods}[name]


@pytest.mark.parametrize("name", ["draw", "entropy", "likelihoods"])
@pytest.mark.parametrize("digits", [2, 4])
def test_inference(benchmark: BenchmarkFixture, rounds: int, digits: int, name: str) -> None:
    """Sums of two numbers: of two digits, with 10,000 worlds; of four, with 10^8.

    Samples are the paper's, 1024 of each kind, and their answers are estimates.
    """
    program = addition(digits)
    compiled = Compiled(program)
    ours = question(name, compiled, digits)
    benchmark.extra_info["nodes"] = (compiled.counts.size, compiled.joint.size)
    others: dict[str, Inference] = {}
    if digits == 2:
        others["table"] = Enumerated(program)
    elif name != "entropy":
        others["sampled"] = Sampled(program, samples=1024, candidates=1024, beta=10.0)
    for other, inference in others.items():
        comparison = alternate(ours, question(name, inference, digits), rounds, (5, 1))
        benchmark.extra_info.update(comparison.info(other))
        assert comparison.ratio > 3
    benchmark.pedantic(ours, rounds=5 * rounds, warmup_rounds=3)
