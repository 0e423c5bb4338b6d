"""`:- llm(...)` in DeepProbLog programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from deepproblog_oracle import Classifier, Model, ours, query
from llm_stand_in import Server

DIGIT = "nn(net, [X], Y, [0, 1, 2]) :: digit(X, Y).\n"
LLM = (
    ":- use_module(library(byssus)).\n"
    ":- llm('Which kind is {{digit}}?', kind, [+digit, -name], [choices([a, b, c])]).\n"
)
RULES = (
    "q(X, K) :- digit(X, D), kind(D, K).\n"
    "pair(X, Y, K) :- digit(X, A), digit(Y, B), kind(A, K), kind(B, K).\n"
)
WRITTEN = """
0.6::kind(0, a); 0.2::kind(0, b); 0.2::kind(0, c).
0.2::kind(1, a); 0.6::kind(1, b); 0.2::kind(1, c).
0.2::kind(2, a); 0.2::kind(2, b); 0.6::kind(2, c).
"""
QUERIES = [
    query("q(i0, a)", 0),
    query("q(i1, b)", 0, 1).variable_output(),
    query("pair(i0, i1, c)", 0, 1),
]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    def answer(prompt: str) -> dict[str, float]:
        digit = int(prompt.split()[-1].rstrip("?"))
        return {name: 0.6 if i == digit else 0.2 for i, name in enumerate("abc")}

    return Server.install(answer, tmp_path, monkeypatch)


def solved(model: Model) -> list[dict[str, float]]:
    return [
        {str(answer): float(p.detach()) for answer, p in result.result.items()}
        for result in model.solve(QUERIES)
    ]


@pytest.mark.parametrize("provenance", ["exact", "sampled", "mixed"])
def test_as_annotated_disjunctions(provenance: str, server: Server) -> None:
    torch.manual_seed(0)
    module = Classifier(3)
    expected = solved(ours(DIGIT + RULES + WRITTEN, {"net": module}))
    about = {} if provenance == "exact" else {"samples": 300}
    model = ours(LLM + DIGIT + RULES, {"net": module}, provenance=provenance, **about)
    for found, wanted in zip(solved(model), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-6 if provenance == "exact" else 1e-4)
    assert sorted(server.prompts) == [f"Which kind is {digit}?" for digit in range(3)]
    assert model.solver.engine.blackboxes["kind"].report().calls == 3


def test_certain_answers(server: Server) -> None:
    torch.manual_seed(0)
    server.answer = lambda prompt: json.dumps({"answer": "a" if "0" in prompt else "b"})
    model = ours(LLM + DIGIT + RULES, {"net": Classifier(3)})
    first, second, _ = solved(model)
    assert set(map(str, second)) == {"q(tensor(images(1)),a)", "q(tensor(images(1)),b)"}
    assert sum(second.values()) == pytest.approx(1.0)
    assert 0 < next(iter(first.values())) < 1
