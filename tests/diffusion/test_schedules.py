from __future__ import annotations

import pytest
import torch

from byssus import ByssusError
from byssus.diffusion import Cosine, Geometric, Linear, Schedule
from byssus.diffusion.schedules import as_schedule

SCHEDULES = [Linear(), Cosine(), Geometric(), Geometric(1e-3, 10.0)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_from_nothing_masked_to_everything(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64, requires_grad=True)
    masked = schedule.masked(t)
    assert float(masked[0].detach()) == pytest.approx(0, abs=2e-3)
    assert float(masked[-1].detach()) == pytest.approx(1, abs=1e-4)
    assert bool((masked.diff() > 0).all())
    (slope,) = torch.autograd.grad(masked.sum(), t)
    torch.testing.assert_close(schedule.rate(t.detach()), slope)


def test_by_name() -> None:
    assert [as_schedule(name) for name in ("linear", "cosine", "geometric")] == SCHEDULES[:3]
    assert as_schedule(SCHEDULES[3]) is SCHEDULES[3]
    with pytest.raises(ByssusError, match=r"schedule='sine'.*'linear'.*masked\(t\)"):
        as_schedule("sine")
    with pytest.raises(ByssusError, match="0 < least < most"):
        Geometric(0.0, 1.0)
