"""What a diffusion model asks of its program: of circuits, of a table of all worlds, of samples."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from additions import addition
from benchmarks.alternating import alternate, fastest
from byssus import Integer, blackbox
from byssus.diffusion import MaskedDiffusion
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


class Encoder(nn.Module):
    """The paper's network for a digit; of both digits of a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Conv2d(64, 128, 4, 2, 1), nn.ReLU(), nn.Flatten()),
            nn.Linear(1152, 5),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.flatten(0, 1)).unflatten(0, images.shape[:2])


class Unmasking(nn.Module):
    """The paper's linear layer: what the image says, and what either digit is so far."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.other = nn.Embedding(6, 5), nn.Embedding(6, 5)

    def forward(self, read: Tensor, c_t: Tensor) -> Tensor:
        return read + self.own(c_t) + self.other(c_t.flip(1))


def training(inference: str) -> Callable[[], None]:
    """A step of MNIST-Half: two images of digits below 5, their sum, 16 examples."""
    torch.manual_seed(0)

    @blackbox(Integer(0, 4), Integer(0, 4), output=Integer(0, 8))
    def add(a: int, b: int) -> int:
        return a + b

    model = MaskedDiffusion(
        Unmasking(),
        program=add,
        encoder=Encoder(),
        gamma_h=1.6,
        entropy="auto",
        inference=inference,
        samples=1024,
        candidates=1024,
    )
    optimizer = torch.optim.RAdam(model.parameters(), lr=9e-5)
    x, y = torch.rand(16, 2, 1, 28, 28), torch.randint(9, (16,))

    def step() -> None:
        optimizer.zero_grad()
        model.loss(x, y).backward()
        optimizer.step()

    return step


def test_training_step(benchmark: BenchmarkFixture, rounds: int) -> None:
    """With the exact loss and posterior, and with the paper's 1,024 samples of each."""
    exact = training("exact")
    comparison = alternate(exact, training("sampled"), rounds, (5, 5))
    benchmark.extra_info.update(comparison.info("sampled"))
    assert comparison.ratio > 1.1
    if rounds > 5:
        assert fastest(exact, 100) < 0.015
    benchmark.pedantic(exact, rounds=5 * rounds, warmup_rounds=3)
