"""Sampled likelihoods and posteriors, against exact ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from byssus import Boolean, Integer, Tuple, blackbox
from byssus.diffusion import MaskedDiffusion
from byssus.diffusion._enumerated import Enumerated
from byssus.diffusion._sampled import Sampled
from byssus.diffusion.program import as_world_program


@blackbox(Integer(0, 2), Integer(0, 2), output=Tuple(Integer(0, 4), Boolean()))
def rule(a: int, b: int) -> tuple[int, bool]:
    return a + b, a > b


PROGRAM = as_world_program(rule)
Y = torch.tensor([[2, 0], [3, 1]])
PARTS = torch.tensor([[2, -1], [-1, 1]])


def log_probs(seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(2, 2, 3, dtype=torch.float64).log_softmax(-1).flatten(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_likelihoods_and_their_gradients() -> None:
    """RLOO's numerator is unbiased: times its own mean, so is the gradient of the frequency."""
    given = log_probs().requires_grad_()
    exact = Enumerated(PROGRAM).log_likelihoods(given, Y)
    expected = torch.stack(
        [
            torch.autograd.grad(exact[r, d].exp(), given, retain_graph=True)[0][r]
            for r in range(2)
            for d in range(2)
        ]
    )
    sampled = Sampled(PROGRAM, 20, 1, 10.0)
    draws, found, frequencies = 400, [], []
    for seed in range(draws):
        likely = sampled.log_likelihoods(given, Y, generator(seed))
        frequencies.append(likely.detach().exp())
        found.append(
            torch.stack(
                [
                    torch.autograd.grad(likely[r, d], given, retain_graph=True)[0][r]
                    * likely[r, d].detach().exp()
                    for r in range(2)
                    for d in range(2)
                ]
            )
        )

    # The gradient of log p is with respect to log-probabilities that need not sum to one: what
    # the network learns is the part that is left when their softmax is taken into account.
    def projected(gradient: Tensor) -> Tensor:
        p = given.detach().exp().reshape(2, 2, 3).repeat_interleave(2, 0)
        each = gradient.reshape(4, 2, 3)
        return (each - p * each.sum(-1, keepdim=True)).flatten()

    estimates = torch.stack([projected(g) for g in found])
    deviation = estimates.std(0) / math.sqrt(draws)
    assert bool(((estimates.mean(0) - projected(expected)).abs() < 5 * deviation + 1e-9).all())
    parts = sampled.log_likelihoods(given, PARTS, generator())
    (gradient,) = torch.autograd.grad((parts * (PARTS < 0)).sum(), given)
    assert bool((parts[PARTS < 0] == 0).all() and (gradient == 0).all())
    means = torch.stack(frequencies)
    error = means.std(0) / math.sqrt(draws)
    assert bool(((means.mean(0) - exact.detach().exp()).abs() < 5 * error).all())


def test_a_likelihood_that_no_sample_meets_teaches_nothing() -> None:
    given = torch.tensor([[0.0, -1e4, -1e4, 0.0, -1e4, -1e4]], requires_grad=True)
    likely = Sampled(PROGRAM, 4, 1, 10.0).log_likelihoods(given, torch.tensor([[4, 0]]), None)
    assert likely[0].tolist() == [-math.inf, 0.0]
    model = MaskedDiffusion(
        lambda x, c_t: x, program=rule, inference="sampled", samples=4, candidates=4, gamma_h=0.0,
        gamma_c=0.0,
    )  # fmt: skip
    x = torch.tensor([[10.0, -1e4, -1e4, 10.0, -1e4, -1e4]], requires_grad=True)
    torch.manual_seed(0)
    losses = [model.losses(x, [(4, False)]) for _ in range(50)]
    assert {float(part.missed) for part in losses} == {0.5}
    assert {float(part.violated) for part in losses} == {1.0}
    sum(part.total for part in losses).backward()  # type: ignore[union-attr]
    assert x.grad is not None
    assert bool((x.grad == 0).all())
    for observed, share in (((True, False), 1.0), ((False, True), 0.0), ((False, False), 0.0)):
        found = model.losses(x, [(4, False)], observed=torch.tensor([observed]))
        assert float(found.missed) == float(found.violated) == share
    assert float(found.total.detach()) == 0.0


@pytest.mark.parametrize("y", [Y[:1], PARTS[:1]], ids=["whole", "part"])
@pytest.mark.parametrize("beta", [0.5, 10.0])
def test_posterior(beta: float, y: Tensor) -> None:
    """With many candidates a pick is a draw from p(c) exp(-beta x violated dimensions)."""
    given = log_probs(1)[:1]
    exact = Enumerated(PROGRAM)
    weights = torch.stack(
        [given[0, w[0]] + given[0, 3 + w[1]] for w in exact.worlds.tolist()]
    ) - beta * ((exact.codes != y) & (y >= 0)).sum(1)
    expected = weights.softmax(0)
    draws = 3000
    picks = Sampled(PROGRAM, 2, 300, beta).draw(
        given.expand(draws, -1), y.expand(draws, -1), generator()
    )
    found = torch.bincount(picks[:, 0] * 3 + picks[:, 1], minlength=9) / draws
    assert bool(((found - expected).abs() < 5 * (expected / draws).sqrt() + 0.01).all())


def test_rewards_stay_finite_where_every_candidate_is_far_off() -> None:
    program = as_world_program(lambda *bits: bits, [Boolean()] * 40, Tuple(*[Boolean()] * 40))
    given = torch.tensor([[0.0, -50.0]] * 40).flatten()[None].log_softmax(-1)
    picks = Sampled(program, 2, 8, 1e3).draw(given, torch.ones(1, 40, dtype=torch.int64), None)
    assert picks.shape == (1, 40)


@pytest.mark.parametrize("seen", [None, (True, False)])
def test_the_loss_sampled_is_the_loss_exact(seen: tuple[bool, bool] | None) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor, c_t: Tensor) -> Tensor:
            other = torch.nn.functional.one_hot(c_t.flip(1), 4).double()
            return x.reshape(-1, 2, 3) + other[..., :3]

    x = log_probs(2)[:1]
    options = {"gamma_c": 0.1, "gamma_h": 0.1, "entropy": "unconditional", "weighting": "paper"}
    exact = MaskedDiffusion(Net(), program=rule, **options)  # type: ignore[arg-type]
    sampled = MaskedDiffusion(
        Net(), program=rule, inference="sampled", samples=256, candidates=256, beta=20.0,
        **options,  # type: ignore[arg-type]
    )  # fmt: skip
    rows, y = x.expand(1000, -1), Y[:1].expand(1000, -1)
    observed = None if seen is None else torch.tensor([seen]).expand(1000, -1)
    found = []
    for model in (exact, sampled):
        parts = [model.losses(rows, y, generator=generator(s), observed=observed) for s in range(8)]
        outputs = torch.stack([part.outputs for part in parts])
        concepts = torch.stack([part.concepts for part in parts])
        found.append((outputs, concepts))
    for one, other in zip(*found, strict=True):
        error = math.sqrt(float(one.var() + other.var()) / 8)
        assert abs(float(one.mean() - other.mean())) < 5 * error + 0.01 * float(one.mean())
