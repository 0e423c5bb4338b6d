"""Servers that lie: what `_client` makes of bytes that no honest server sends."""

from __future__ import annotations

import json
import pickle
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import byssus
from byssus import BlackBoxError, LLMError
from byssus.llm._client import _read
from llm_servers import VARIABLES

KEY = "sk-a1b2c3d4e5f6a7b8"


def completion(content: Any, *, usage: Any = None, logprobs: Any = None) -> dict[str, Any]:
    choice = {"message": {"content": content}, "finish_reason": "stop", "logprobs": logprobs}
    return {"choices": [choice], "usage": usage}


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2}, (5, 2)),
        ({"prompt_tokens": 10**400, "completion_tokens": 2}, (2**53, 2)),
        ({"prompt_tokens": -5, "completion_tokens": 2}, None),
        ({"prompt_tokens": 5}, None),
        ({"prompt_tokens": True, "completion_tokens": 2}, None),
        ({"prompt_tokens": "5", "completion_tokens": 2}, None),
        ([5, 2], None),
    ],
)
def test_usage(usage: Any, counted: tuple[int, int] | None) -> None:
    assert _read(completion("office", usage=usage)).usage == counted


@pytest.mark.parametrize(
    ("entry", "kept"),
    [
        ({"logprob": "-0.5"}, ["office", -0.5]),
        ({"logprob": float("-inf")}, ["office", -9999.0]),
        ({"logprob": -0.5, "bytes": [240]}, ["\udcf0", -0.5]),
        ({"logprob": float("nan")}, None),
        ({"logprob": float("inf")}, None),
        ({"logprob": 1000}, None),
        ({"logprob": 10**400}, None),
        ({"logprob": -0.5, "bytes": 10**10}, None),  # bytes(10**10) would be so many
        ({"logprob": -0.5, "bytes": [256]}, None),
        ({"logprob": -0.5, "token": "\ud83d"}, None),
        ({}, None),
    ],
)
def test_log_probabilities(entry: dict[str, Any], kept: list[Any] | None) -> None:
    token = {"token": "office", **entry}
    said = {"content": [{**token, "top_logprobs": [token]}]}
    stored = _read(completion("office", logprobs=said)).stored
    assert stored["logprobs"] == (kept and [[*kept, [kept]]])
    json.dumps(stored, allow_nan=False)


def answered(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\nConnection: close\r\n\r\n" + body


REPLIES = {
    "garbage": (b"\x00\x01 garbage\r\n\r\n", "answers what is no HTTP: Bad status line"),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        "answers what is no HTTP|broke the connection off",
    ),
    "deep": (answered(b"[" * 100_000 + b"]" * 100_000), "answers what is no JSON"),
    "moved": (
        b"HTTP/1.1 307 Moved\r\nLocation: /v1/else\r\nContent-Length: 0\r\n\r\n",
        "answers 307",
    ),
    "key": (answered(json.dumps(completion(f"It is {KEY}")).encode()), "says the key back"),
}


class Liar(socketserver.BaseRequestHandler):
    """Answers each request by what its prompt names."""

    requests: ClassVar[list[bytes]] = []

    def handle(self) -> None:
        data = b""
        while b"}" not in data[-1:]:
            data += self.request.recv(65536)
        self.requests.append(data)
        prompt = json.loads(data.partition(b"\r\n\r\n")[2])["messages"][-1]["content"]
        self.request.sendall(REPLIES[prompt][0])


@pytest.fixture
def liar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Liar, "requests", [])
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Liar) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("BYSSUS_LLM_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}/v1")
        monkeypatch.setenv("BYSSUS_LLM_MODEL", "liar")
        monkeypatch.setenv("BYSSUS_LLM_KEY", KEY)
        yield
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.usefixtures("liar")
def test_replies(name: str, tmp_path: Path) -> None:
    with pytest.raises(BlackBoxError, match=REPLIES[name][1]) as caught:
        byssus.llm("{{x}}", settings={"retries": 0})(name)
    assert isinstance(caught.value.cause, LLMError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert kept
    assert KEY not in str(caught.value)
    assert KEY.encode() not in kept


@pytest.mark.usefixtures("liar")
def test_what_is_for_openai_goes_to_no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "for-openai-key")
    monkeypatch.setenv("OPENAI_ORG_ID", "for-openai-organization")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "for-openai-project")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: for-openai-gateway")
    with pytest.raises(BlackBoxError):
        byssus.llm("{{x}}", settings={"retries": 0})("deep")
    (request,) = Liar.requests
    assert KEY.encode() in request
    assert b"for-openai" not in request
