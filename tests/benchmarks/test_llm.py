"""What calls of a language model cost beside the waiting, and what repeated asks cost."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import byssus
import llm_servers
from byssus import Discrete
from llm_servers import FaultServer

_LATENCY = 0.05
_PROMPTS = 1000


@pytest.fixture(scope="module")
def _server() -> Iterator[FaultServer]:
    with llm_servers.fault_server() as server:
        yield server


@pytest.fixture
def server(_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultServer:
    """A server on this machine that takes 50 ms for an answer."""
    _server.use(monkeypatch, tmp_path)
    _server.plan(latency=_LATENCY)
    return _server


def room(things: list[str], **options: Any) -> byssus.LLM:
    return byssus.llm(
        "Where is {{thing}}?",
        inputs={"thing": Discrete(things)},
        choices=["kitchen", "office", "lab"],
        **options,
    )


@pytest.mark.parametrize(
    ("prompts", "least"),
    [pytest.param(300, 5, id="short"), pytest.param(1000, 15, id="full", marks=pytest.mark.slow)],
)
def test_calls_at_once(
    server: FaultServer, benchmark: BenchmarkFixture, prompts: int, least: float
) -> None:
    """1,000 prompts are answered 15 times faster than one at a time; 100,000 asks after, at once.

    The short version has room for a machine that does other things meanwhile.
    """
    room(["the first"])("the first")  # what is imported once is not counted
    few = [f"number {i}" for i in range(20)]
    begun = time.perf_counter()
    room(few, concurrency=1)(torch.eye(len(few)))
    one = (time.perf_counter() - begun) / len(few)

    many = [f"thing {i}" for i in range(prompts)]
    asked = room(many)
    p = torch.full((1, prompts), 1 / prompts)
    benchmark.pedantic(asked, args=(p,), rounds=1)
    times_faster = one * prompts / benchmark.stats.stats.min
    assert asked.report().calls == prompts
    assert set(server.counts.values()) == {1}

    repeated = random.Random(0).choices(many, k=100_000)
    begun = time.perf_counter()
    for thing in repeated:
        asked(thing)
    repeated_s = time.perf_counter() - begun
    assert asked.report().calls == prompts
    assert sum(server.counts.values()) == len(few) + 1 + prompts

    benchmark.extra_info |= {"times_faster": times_faster, "repeated_s": repeated_s}
    assert times_faster >= least
    assert repeated_s < 1
