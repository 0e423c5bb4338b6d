"""The example of the paper (its section 2.2): told only that a != b, which is which?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from byssus import Boolean, blackbox
from byssus.diffusion import MaskedDiffusion


@blackbox(Boolean(), Boolean(), output=Boolean())
def xor(a: bool, b: bool) -> bool:
    return a != b


class Dependent(nn.Module):
    """What a concept is likely to be, given the other one or its mask."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 2)

    def forward(self, x: Tensor, c_t: Tensor) -> Tensor:
        return self.table(c_t.flip(1))


def trained() -> MaskedDiffusion:
    torch.manual_seed(0)
    model = MaskedDiffusion(
        Dependent(), program=xor, gamma_c=1e-3, gamma_h=2.0, weighting="paper",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    x = torch.zeros(16, 1)
    for _ in range(300):
        loss = model.loss(x, [True] * 16)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def shares(model: MaskedDiffusion) -> tuple[float, float]:
    """How probable the two solutions are."""
    worlds = model.sample(torch.zeros(1, 1), 2000)[0]
    return tuple(  # type: ignore[return-value]
        float((worlds == torch.tensor(w)).all(1).double().mean()) for w in ((0, 1), (1, 0))
    )


def test_the_diffusion_model_believes_both_solutions() -> None:
    first, second = shares(trained())
    assert first > 0.4
    assert second > 0.4
    assert first + second > 0.97


def test_an_independent_model_believes_one_or_errs() -> None:
    """Whatever it believes of a and b: if it is right in all worlds, it knows only one of them."""
    p = nn.Parameter(torch.tensor([[0.1, -0.1], [0.05, 0.0]]))
    optimizer = torch.optim.Adam([p], 0.05)
    for _ in range(300):
        a, b = p.softmax(-1)[:, None]
        loss = xor(a, b).loss([True])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    a, b = p.detach().softmax(-1)
    assert float(a[0] * b[1] + a[1] * b[0]) > 0.97
    assert min(float(a[0] * b[1]), float(a[1] * b[0])) < 0.03
