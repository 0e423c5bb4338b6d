"""`@llm` in programs, against enumeration of what the models may answer.

What they answer stands in a cache, and nothing is sent: `mode="replay"`.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import byssus
import byssus_scallop
from byssus import (
    BlackBoxError,
    BudgetExceeded,
    ByssusError,
    Discrete,
    LLMError,
    ProgramError,
    ReplayMiss,
    blackbox,
)
from byssus.cli import main
from byssus.llm import question as questions
from byssus.llm._client import Reply
from byssus.llm.cache import Cost, get_cache, key_of
from byssus_scallop import Module, ScallopContext

Answers = Mapping[tuple[Any, ...], Any]
"""What is answered to arguments; a dictionary of choices and probabilities if that is uncertain."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, which is all that there is."""
    path = tmp_path / "llm.db"
    (tmp_path / "byssus.toml").write_text("")
    for name in ("BYSSUS_LLM_BASE_URL", "BYSSUS_LLM_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BYSSUS_CONFIG", str(tmp_path / "byssus.toml"))
    monkeypatch.setenv("BYSSUS_LLM_CACHE", str(path))
    monkeypatch.setenv("BYSSUS_LLM_MODEL", "small")
    monkeypatch.setenv("BYSSUS_LLM_MODE", "replay")
    return path


def reply(question: Any, answer: Any) -> dict[str, Any]:
    """What a server replies that answers so."""
    if not isinstance(answer, dict):
        content = answer if isinstance(answer, Raw) else question.form.example(answer, "json_schema")
        return {"content": str(content), "finish": "stop", "logprobs": None}
    shown = {question.form.example(choice, "json_schema"): p for choice, p in answer.items()}
    texts = {json.loads(content)["answer"]: p for content, p in shown.items()}
    best = max(texts, key=lambda text: texts[text])
    top = [[text, math.log(p)] for text, p in texts.items() if p]
    tokens = [['{"answer": "', 0.0, []], [best, math.log(texts[best]), top], ['"}', 0.0, []]]
    content = "".join(str(token[0]) for token in tokens)
    return {"content": content, "finish": "stop", "logprobs": tokens}


class Raw(str):
    """The content of a reply, whatever it is."""

    __slots__ = ()


def record(ctx: Any, name: str, answers: Answers) -> None:
    """Put answers to a relation's question into the cache; a list where there are votes."""
    question = ctx.blackboxes[name].question
    cache = get_cache(questions._settings.settings().cache)
    for arguments, answer in answers.items():
        requests = question.requests(*arguments)
        several = answer if question.votes > 1 else [answer]
        for request, one in zip(requests, several, strict=True):
            reservation = cache.reserve("recorded", Cost(1), {})
            cache.store(
                key_of(request),
                request=request,
                reply=reply(question, one),
                cost=Cost(1),
                reservation=reservation,
            )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6)


def result(ctx: Any, relation: str = "q") -> dict[Any, float]:
    rows = list(ctx.relation(relation))
    if not ctx.requires_tag():
        rows = [(1.0, row) for row in rows]
    found = {(row[0] if len(row) == 1 else row): float(p) for p, row in rows}
    return {row: p for row, p in found.items() if p > 0}


EXHAUSTIVE = {"worlds": byssus.exhaustive, "samples": 10**6}
EQUAL = {
    "exact": {"provenance": "exact"},
    "auto": {"provenance": "auto"},
    "sampled": {"provenance": "sampled", **EXHAUSTIVE},
    "mixed": {"provenance": "mixed", **EXHAUSTIVE},
    "mixed by s": {"provenance": "mixed", "sampled": "s", **EXHAUSTIVE},
}
BYSSUS = ["exact", "auto", "sampled", "mixed", "nesydm"]

# Programs: facts of `s` are alternatives, those of `t` independent.

ROOM = {
    ("pot, oven",): {"kitchen": 0.75, "office": 0.05, "lab": 0.2},
    ("desk",): {"kitchen": 0.1, "office": 0.9, "lab": 0.0},
    ("lamp",): {"kitchen": 0.25, "office": 0.25, "lab": 0.5},
}
SOME = {"pot, oven": 0.5, "desk": 0.3, "lamp": 0.2}
OTHERS = {"desk": 0.4, "lamp": 0.5}
FACTS = f"""
type s(String), t(String)
rel s = {{{"; ".join(f'{p}::("{value}")' for value, p in SOME.items())}}}
rel t = {{{", ".join(f'{p}::("{value}")' for value, p in OTHERS.items())}}}
"""
WHICH = '@llm("There are {{objects}}. Which room?", choices=["kitchen", "office", "lab"])'
Derive = Callable[[str, set[str], Callable[..., Any]], Iterable[Any]]

CASES: dict[str, tuple[str, dict[str, Answers], Derive]] = {
    "a relation": (
        WHICH + " type room(bound objects: String, kind: String)\n"
        "rel q(k) = s(o) and room(o, k)\nrel q(k) = t(o) and room(o, k)",
        {"room": ROOM},
        lambda s, t, ask: {ask("room", o) for o in {s, *t}},
    ),
    "a function": (
        WHICH + " type $room(objects: String) -> String\n"
        "rel q(x, $room(o)) = s(o) and t(x)",
        {"room": ROOM},
        lambda s, t, ask: {(x, ask("room", s)) for x in t},
    ),
    "a test, negated and counted": (
        '@llm("Is {{thing}} heavy?") type heavy(bound thing: String)\n'
        "rel light(o) = t(o) and not heavy(o)\nrel q(n) = n := count(o: light(o))",
        {"heavy": {("desk",): {True: 0.75, False: 0.25}, ("lamp",): {True: 0.5, False: 0.5}}},
        lambda s, t, ask: {sum(not ask("heavy", o) for o in t)},
    ),
    "one feeds another": (
        WHICH + " type room(bound objects: String, kind: String)\n"
        '@llm("What is as large as a {{kind}}?", logprobs=false, choices=["lab", "desk"])\n'
        "type like(bound kind: String, other: String)\n"
        "rel q(o, x) = s(o) and room(o, k) and like(k, x) and t(x)",
        {
            "room": ROOM,
            "like": {("kitchen",): "lab", ("office",): "desk", ("lab",): "desk"},
        },
        lambda s, t, ask: {(s, ask("like", ask("room", s)))} if ask("like", ask("room", s)) in t
        else set(),
    ),
    "several columns": (
        '@llm("{{a}} and {{n}}?", choices=["x", "y"])\n'
        "type f(bound a: String, bound n: i32, kind: String, size: f64, count: u8, good: bool)\n"
        "rel q(k, z, c, g) = s(o) and f(o, 7, k, z, c, g)",
        {"f": {(o, 7): (k, 0.5, n, k == "x") for n, (o, k) in enumerate(zip(SOME, "xyx"))}},
        lambda s, t, ask: {ask("f", s, 7)},
    ),
    "many, with no arguments": (
        '@llm("Which rooms are there?", many=true) type room(name: String, size: i32)\n'
        '@llm("What is in {{text}}?", many=true) type within(bound text: String, thing: String)\n'
        "rel q(x, n) = s(o) and within(o, x) and room(_, n)",
        {
            "room": {(): [("lab", 3), ("hall", 9)]},
            "within": {("pot, oven",): ["pot", "oven", "pot"], ("desk",): [], ("lamp",): ["x"]},
        },
        lambda s, t, ask: {(x, n) for x in ask("within", s) for _, n in ask("room")},
    ),
    "over relations": (
        '@llm("There are {{t}}, and {{s}}. Which room?", over=["t", "s"], choices=["a", "b"])\n'
        "type room(kind: String)\nrel q(k) = room(k)",
        {
            "room": {
                (t, (s,)): {"a": 0.1 * i, "b": 1 - 0.1 * i}
                for i, (s, t) in enumerate(
                    itertools.product(SOME, [(), ("desk",), ("lamp",), ("desk", "lamp")])
                )
                if i <= 10
            }
            | {(("desk", "lamp"), ("lamp",)): {"a": 0.0, "b": 1.0}}
            # The engine sees simple contradictions only.
            | {(t, ()): "a" for t in [(), ("desk",), ("lamp",), ("desk", "lamp")]}
        },
        lambda s, t, ask: {ask("room", tuple(sorted(t)), (s,))},
    ),
    "votes": (
        '@llm("What is {{o}}?", votes=4) type what(bound o: String, kind: String)\n'
        "rel q(k) = s(o) and what(o, k)",
        {
            "what": {
                ("pot, oven",): ["things", "pots", "things", "things"],
                ("desk",): ["things"] * 4,
                ("lamp",): ["a", "b", "c", "d"],
            }
        },
        lambda s, t, ask: {ask("what", s)},
    ),
    "calibration": (
        WHICH.replace("]", "], calibration=2.0") + " type room(bound objects: String, k: String)\n"
        "rel q(k) = s(o) and room(o, k)",
        {"room": ROOM},
        lambda s, t, ask: {ask("room", s)},
    ),
}


def chances(answer: Any, votes: bool, calibrated: bool) -> list[tuple[float, Any]]:
    """What may be answered, and how probable that is."""
    if votes:
        return [(1 / len(answer), one) for one in answer]
    if not isinstance(answer, dict):
        return [(1.0, answer)]
    weights = {one: p**0.5 if calibrated else p for one, p in answer.items()}
    return [(p / sum(weights.values()), one) for one, p in weights.items()]


def enumerated(answers: Mapping[str, Answers], derive: Derive, case: str = "") -> dict[Any, float]:
    """The probability of each tuple, by the worlds of facts and of all answers."""
    asked = [(name, given) for name, some in answers.items() for given in some]
    axes = [
        chances(answers[name][given], case == "votes", case == "calibration")
        for name, given in asked
    ]
    found: dict[Any, float] = {}
    for s, p in SOME.items():
        for held in itertools.product([True, False], repeat=len(OTHERS)):
            t = {o for o, is_so in zip(OTHERS, held, strict=True) if is_so}
            q = p * math.prod(w if o in t else 1 - w for o, w in OTHERS.items())
            for choice in itertools.product(*axes):
                weight = q * math.prod(chance for chance, _ in choice)
                if not weight:
                    continue
                world = dict(zip(asked, (one for _, one in choice), strict=True))

                def ask(name: str, *given: Any, world: Any = world) -> Any:
                    return world[name, given]

                for row in set(derive(s, t, ask)):
                    found[row] = found.get(row, 0) + weight
    return {row: p for row, p in found.items() if p > 1e-9}


@pytest.mark.parametrize("options", EQUAL.values(), ids=EQUAL)
@pytest.mark.parametrize("name", [name for name in CASES if name != "over relations"])
def test_enumeration(name: str, options: dict[str, Any]) -> None:
    program, answers, derive = CASES[name]
    ctx = ScallopContext(**options)
    ctx.add_program(FACTS + program)
    for relation, some in answers.items():
        record(ctx, relation, some)
    ctx.run()
    assert result(ctx) == close(enumerated(answers, derive, name))
    report = [box.report() for box in ctx.blackboxes.values()]
    assert sum(one.calls for one in report) == sum(one.failed for one in report) == 0
    assert sum(n or 0 for n in ctx.plan().calls.values()) == sum(one.cached for one in report)
