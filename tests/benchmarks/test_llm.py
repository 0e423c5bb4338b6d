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


def test_calls_at_once(server: FaultServer, benchmark: BenchmarkFixture) -> None:
    """1,000 prompts are answered 15 times faster than one at a time; 100,000 asks after, at once.

    That the first calls import the client and connect counts for both.
    """
    few = [f"number {i}" for i in range(20)]
    room(["the first"])("the first")
    begun = time.perf_counter()
    room(few, concurrency=1)(torch.eye(len(few)))
    one = (time.perf_counter() - begun) / len(few)

    many = [f"thing {i}" for i in range(_PROMPTS)]
    asked = room(many)
    p = torch.full((1, _PROMPTS), 1 / _PROMPTS)
    benchmark.pedantic(asked, args=(p,), rounds=1)
    times_faster = one * _PROMPTS / benchmark.stats.stats.min
    benchmark.extra_info["times_faster"] = times_faster
    assert asked.report().calls == _PROMPTS
    assert set(server.counts.values()) == {1}
    assert times_faster > 15

    repeated = random.Random(0).choices(many, k=100_000)
    begun = time.perf_counter()
    for thing in repeated:
        asked(thing)
    benchmark.extra_info["repeated_s"] = time.perf_counter() - begun
    assert asked.report().calls == _PROMPTS
    assert sum(server.counts.values()) == len(few) + 1 + _PROMPTS
    assert benchmark.extra_info["repeated_s"] < 1
    print(one, benchmark.extra_info)
