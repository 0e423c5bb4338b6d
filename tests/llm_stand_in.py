"""A stand-in for a server of language models: a function in the place of byssus's client."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from byssus.llm._client import Reply


class Server:
    """Answers prompts.

    Attributes:
        answer: from a prompt to a reply: a text, what goes into JSON, an exception, or
            probabilities of the choices.
        prompts: what it was asked.
    """

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self.answer = answer
        self.prompts: list[str] = []

    @classmethod
    def install(
        cls, answer: Callable[[str], Any], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Server:
        """Have byssus ask it, with settings and a cache in this folder."""
        (folder / "byssus.toml").write_text(
            '[llm]\nmodel = "small"\n'
            '[llm.models.small]\nmodel = "tiny"\nbase_url = "http://127.0.0.1:9/v1"\n',
            encoding="utf-8",
        )
        for name in ("MODEL", "BASE_URL", "KEY", "MODE"):
            monkeypatch.delenv(f"BYSSUS_LLM_{name}", raising=False)
        monkeypatch.setenv("BYSSUS_CONFIG", str(folder / "byssus.toml"))
        monkeypatch.setenv("BYSSUS_LLM_CACHE", str(folder / "llm.db"))
        server = cls(answer)
        monkeypatch.setattr(importlib.import_module("byssus.llm.question"), "send", server.send)
        return server

    async def send(self, model: Any, request: Mapping[str, Any], *_: Any, **__: Any) -> Reply:
        prompt = request["messages"][-1]["content"]
        self.prompts.append(prompt)
        answer = self.answer(prompt)
        if isinstance(answer, Exception):
            raise answer
        tokens = None
        if isinstance(answer, dict) and all(isinstance(p, float) for p in answer.values()):
            best = max(answer, key=answer.__getitem__)
            top = [[f'{choice}"', math.log(p)] for choice, p in answer.items()]
            tokens = [
                ['{"answer": "', 0.0, []],
                [f'{best}"', math.log(answer[best]), top],
                ["}", 0.0, []],
            ]
            answer = {"answer": best}
        content = answer if isinstance(answer, str) else json.dumps(answer)
        stored = {"content": content, "finish": "stop", "refusal": None, "logprobs": tokens}
        return Reply(stored, (10, 2))
