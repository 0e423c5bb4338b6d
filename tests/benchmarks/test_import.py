"""What `import byssus` costs."""

from __future__ import annotations

import subprocess
import sys

from pytest_benchmark.fixture import BenchmarkFixture

# What byssus is made of comes first: torch alone may take two seconds on a slow disk.
_MEASURE = """
from time import perf_counter
import torch
started = perf_counter()
import byssus
print(perf_counter() - started)
"""


def test_import(benchmark: BenchmarkFixture, rounds: int) -> None:
    """byssus takes at most half a second beyond torch."""
    seconds = []

    def fresh() -> None:
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE], capture_output=True, text=True, check=True
        )
        seconds.append(float(done.stdout))

    benchmark.pedantic(fresh, rounds=max(2, rounds // 4))
    benchmark.extra_info["beyond_torch_s"] = min(seconds)
    assert min(seconds) < 0.5
