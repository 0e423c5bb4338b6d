"""One thread, no Hypothesis deadline, and the devices that this machine has."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
# New examples at every run, but for CI, whose verdict must not depend on luck.
settings.register_profile("byssus", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("byssus")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # In the background of a shell it is ignored, and tests of interrupts would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=_DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)
