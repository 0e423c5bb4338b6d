"""The two servers, started once: one with a real model, and one with every fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import llm_servers
from llm_servers import FaultServer, Served


@pytest.fixture(scope="session")
def real_server() -> Iterator[Served]:
    """SmolLM2-135M on loopback, on one thread."""
    with llm_servers.real_server() as server:
        yield server


@pytest.fixture(scope="session")
def fault_server() -> Iterator[FaultServer]:
    with llm_servers.fault_server() as server:
        yield server


@pytest.fixture
def smollm(real_server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The real server as the one that byssus asks, with a cache of this test."""
    real_server.use(monkeypatch, tmp_path)
    return real_server


@pytest.fixture
def faulty(
    fault_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FaultServer:
    """The fault server as the one that byssus asks, with a cache of this test."""
    fault_server.use(monkeypatch, tmp_path)
    fault_server.plan()
    return fault_server
