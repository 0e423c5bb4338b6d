"""`@llm` in programs, against enumeration of what the models may answer.

What they answer stands in a cache, and nothing is sent: `mode="replay"`.
"""

from __future__ import annotations

import asyncio
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
    top = [[text, math.log(p)] for text, p in texts.items() if p > 0]
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
        {"$room": ROOM},
        lambda s, t, ask: {(x, ask("$room", s)) for x in t},
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
                (t, (s,)): {"a": i / 11, "b": 1 - i / 11}
                for i, (s, t) in enumerate(
                    itertools.product(SOME, [(), ("desk",), ("lamp",), ("desk", "lamp")])
                )
            }
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
@pytest.mark.parametrize("name", CASES)
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


# The calls


def test_what_a_program_asks_goes_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a round asks, at once; each question once, ever."""
    sent: list[str] = []
    most = now = 0

    async def send(model: Any, request: Mapping[str, Any], timeout: float) -> Reply:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        sent.append(request["messages"][-1]["content"])
        return Reply({"content": sent[-1].upper(), "finish": "stop"}, (10, 5))

    monkeypatch.setattr(questions, "send", send)
    monkeypatch.setenv("BYSSUS_LLM_MODE", "auto")
    monkeypatch.setenv("BYSSUS_LLM_BASE_URL", "http://127.0.0.1:9/v1")
    program = """
        @llm("a {{x}}", budget=[("calls", 40)]) type f(bound x: i32, y: String)
        @llm("b {{x}}", concurrency=3) type $g(x: String) -> String
        type n(i32)
        rel q(y, $g(y)) = n(x) and f(x, y)
        rel r(y) = n(x) and f(x, y)
    """
    ctx = ScallopContext("exact")
    ctx.add_program(program)
    ctx.add_facts("n", [(0.5, (i,)) for i in range(20)])
    assert ctx.plan().calls == {"f": 20, "$g": None}
    assert sent == []
    for _ in range(2):
        ctx.run()
        assert result(ctx) == close({(f"A {i}", f"B A {i}"): 0.5 for i in range(20)})
        assert sorted(sent) == sorted(f"a {i}" for i in range(20)) + sorted(
            f"b A {i}" for i in range(20)
        )
    assert most == 20
    report = ctx.blackboxes["f"].report()
    assert (report.calls, report.cached, report.input_tokens, report.output_tokens) == (
        20, 0, 200, 100,
    )
    # Another process: all is in the cache.
    other = ScallopContext("exact")
    other.add_program(program)
    other.add_facts("n", [(0.5, (i,)) for i in range(20)])
    other.run()
    assert result(other) == result(ctx)
    assert other.blackboxes["f"].report().cached == 20
    assert len(sent) == 40


@pytest.mark.parametrize("provenance", [*BYSSUS, "unit", "topkproofs"])
def test_a_replay_that_misses_comes_through_as_itself(provenance: str) -> None:
    ctx = ScallopContext(provenance)
    on_error = WHICH.replace("]", '], on_error="discard"')
    ctx.add_program(FACTS + f"{on_error} type room(bound o: String, k: String)\n".replace(
        "objects", "o") + "rel q(k) = s(o) and room(o, k)")
    with pytest.raises(ReplayMiss, match=r"There are (pot, oven|desk|lamp)\. Which room\?' by small"):
        ctx.run()
        list(ctx.relation("q"))
    record(ctx, "room", ROOM)
    ctx.run()
    assert set(result(ctx)) == {"kitchen", "office", "lab"}


@pytest.mark.parametrize("on_error", ["raise", "discard", "lab"])
@pytest.mark.parametrize("provenance", ["exact", "auto", "unit", "topkproofs"])
def test_replies_that_are_no_answers(provenance: str, on_error: str) -> None:
    program = f"""
        @llm("{{{{o}}}}?", choices=["kitchen", "lab"], on_error="{on_error}", logprobs=false)
        type room(bound o: String, k: String)
        rel q(o, k) = s(o) and room(o, k)
    """
    ctx = ScallopContext(provenance)
    ctx.add_program(FACTS + program)
    wrong = {("pot, oven",): Raw("the garden"), ("desk",): "lab", ("lamp",): Raw('{"answer": 3}')}
    record(ctx, "room", wrong)
    if on_error == "raise":
        with pytest.raises(BlackBoxError, match="none of the choices") as info:
            ctx.run()
            list(ctx.relation("q"))
        assert isinstance(info.value.cause, LLMError)
        return
    ctx.run()
    expected = {("desk", "lab"): 0.3}
    if on_error == "lab":
        expected |= {("pot, oven", "lab"): 0.5, ("lamp", "lab"): 0.2}
    if provenance == "unit":
        expected = dict.fromkeys(expected, 1.0)
    assert result(ctx) == close(expected)
    if provenance in BYSSUS:
        assert ctx.lost == ({} if on_error == "lab" else {"q": close(0.7)})


def test_a_budget_ends_before_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(model: Any, request: Any, timeout: float) -> Reply:
        return Reply({"content": "a", "finish": "stop"}, (1, 1))

    monkeypatch.setattr(questions, "send", send)
    monkeypatch.setenv("BYSSUS_LLM_MODE", "auto")
    monkeypatch.setenv("BYSSUS_LLM_BASE_URL", "http://127.0.0.1:9/v1")
    program = """
        @llm("{{x}}?", budget=[("calls", 2)], on_error="discard") type f(bound x: i32, y: String)
        rel n = {0.5::1, 0.5::2, 0.5::3}
        rel q(x, y) = n(x) and f(x, y)
    """
    ctx = ScallopContext("exact")
    ctx.add_program(program)
    with pytest.raises(BudgetExceeded, match="2"):
        ctx.run()
    ctx = ScallopContext("auto")
    ctx.add_program(program)
    assert ctx.plan().provenance == "sampled"
    assert "3 calls of the black box f, more than 2" in ctx.plan().why
    assert ctx.plan().calls == {"f": 2}


# Scallop's own provenances, on its own engine too


@pytest.mark.parametrize("own", [False, True], ids=["embedded", "Scallop's"])
@pytest.mark.parametrize("provenance", ["unit", "minmaxprob", "topkproofs", "difftopkproofs"])
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")  # Scallop does
def test_under_scallops_own_provenances(provenance: str, own: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"backend": "embedded"}
    if own:
        pytest.importorskip("scallopy", reason="scallopy is not installed")
        options = {"backend": "scallopy"}
    file = tmp_path / "rooms.scl"
    file.write_text(f"""
        {WHICH} type room(bound objects: String, kind: String)
        @llm("{{{{x}}}}, {{{{n}}}}: what?", many=true, system="Be \\"brief\\".",
             settings=[("max_tokens", 99)], examples=[(("a", 1), [("b", 2)])], budget=[("calls", 9)])
        type more(bound x: String, bound n: i32, y: String, m: usize)
        @llm("The capital of {{{{x}}}}?") type $capital(x: String) -> String
        @llm("Is {{{{x}}}} heavy?", logprobs=false) type heavy(bound x: String)
        rel s = {{("desk")}}
        rel q(k) = s(o) and room(o, k)
        rel p(y, m) = s(o) and more(o, 3, y, m)
        rel c($capital(o)) = s(o) and heavy(o)
    """)
    ctx = ScallopContext(provenance, k=20, **options)
    ctx.import_file(str(file))
    record(ctx, "room", ROOM)
    record(ctx, "more", {("desk", 3): [("top", 1), ("leg", 4)]})
    record(ctx, "$capital", {("desk",): "Drawer"})
    record(ctx, "heavy", {("desk",): True})
    ctx.run()
    uncertain = {"kitchen": 0.1, "office": 0.9}
    assert result(ctx) == close(dict.fromkeys(uncertain, 1.0) if provenance == "unit" else uncertain)
    assert result(ctx, "p") == close({("top", 1): 1.0, ("leg", 4): 1.0})
    assert result(ctx, "c") == close({"Drawer": 1.0})
    assert ctx.blackboxes["room"].report().cached == 1
    question = ctx.blackboxes["more"].question
    (request,) = question.requests("desk", 3)
    assert request["max_tokens"] == 99
    roles = [message["role"] for message in request["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert request["messages"][0]["content"].startswith('Be "brief".')


def test_scallops_plugin_registry(tmp_path: Path) -> None:
    scallopy = pytest.importorskip("scallopy", reason="scallopy is not installed")
    registry = byssus_scallop.PluginRegistry(load_stdlib=True, load_from_entry_points=True)
    for provenance in ("topkproofs", "exact"):
        ctx = scallopy.ScallopContext(provenance=provenance)
        registry.load_into_ctx(ctx)
        assert ctx.blackboxes == {}
        ctx.add_program(FACTS + WHICH + "type room(bound objects: String, kind: String)")
        ctx.add_program("rel q(k) = s(o) and room(o, k)")
        record(ctx, "room", ROOM)
        ctx.run()
        assert set(result(ctx)) == {"kitchen", "office", "lab"}
        assert ctx.blackboxes["room"].report().cached == 3


def test_a_discarded_failure_is_asked_again_in_the_next_run() -> None:
    pytest.importorskip("scallopy", reason="scallopy is not installed")


# Modules


LEAF = {
    "margin": ["entire", "lobed", "serrate"],
    "shape": ["cordate", "lanceolate", "oblong", "oval", "ovate", "palmate"],
    "texture": ["glossy", "papery", "smooth"],
}
SPECIES = ["oak", "elm", "ash"]


def leaf(provenance: str = "exact", rest: str = "", **options: Any) -> Module:
    return Module(
        program=f"""
            @llm("A leaf has the margin {{{{margin}}}}, the shape {{{{shape}}}} and the texture "
                 "{{{{texture}}}}. What is it?", choices={json.dumps(SPECIES)})
            type leaf_id(bound margin: String, bound shape: String, bound texture: String,
                         species: String)
            type margin(String), shape(String), texture(String)
            rel species(s) = margin(m) and shape(h) and texture(t) and leaf_id(m, h, t, s)
            {rest}
        """.replace('"\n                 "', ""),
        provenance=provenance,
        input_mappings=LEAF,
        output_mappings={"species": SPECIES},
        **options,
    )


def leaves(module: Module) -> torch.Tensor:
    """Record all answers; the probabilities of the species of each leaf."""
    table = torch.rand(54, 3, generator=seeded(5), dtype=torch.float64)
    table = table / table.sum(1, keepdim=True)
    given = itertools.product(*LEAF.values())
    record(
        module.ctx,
        "leaf_id",
        {
            one: dict(zip(SPECIES, row, strict=True))
            for one, row in zip(given, table.tolist(), strict=True)
        },
    )
    return table.reshape(3, 6, 3, 3)


def features(seed: int = 0) -> dict[str, torch.Tensor]:
    return {
        name: torch.randn(4, len(values), dtype=torch.float64, generator=seeded(seed + i))
        .softmax(-1)
        .requires_grad_()
        for i, (name, values) in enumerate(LEAF.items())
    }


@pytest.mark.parametrize(
    "options",
    [
        {"provenance": "exact"},
        {"provenance": "auto"},
        {"provenance": "sampled", **EXHAUSTIVE, "estimator": "distinct"},
        {"provenance": "mixed", "sampled": "shape", **EXHAUSTIVE, "estimator": "distinct"},
    ],
    ids=["exact", "auto", "sampled", "mixed"],
)
def test_values_and_gradients(options: dict[str, Any]) -> None:
    module = leaf(**options)
    table = leaves(module)
    given = features()
    expected = torch.einsum("bi,bj,bk,ijks->bs", *given.values(), table)
    found = module(**given)
    assert torch.allclose(found, expected, atol=1e-6)
    weights = torch.rand(4, 3, generator=seeded(9), dtype=torch.float64)
    grads = torch.autograd.grad((found * weights).sum(), list(given.values()))
    wanted = torch.autograd.grad((expected * weights).sum(), list(given.values()))
    for grad, right in zip(grads, wanted, strict=True):
        assert torch.allclose(grad, right, atol=1e-6)


@pytest.mark.parametrize("provenance", ["sampled", "mixed", "nesydm"])
def test_random_worlds(provenance: str) -> None:
    """Frequencies, within four standard deviations."""
    count = 3000
    module = leaf(provenance, samples=count, generator=seeded(), **(
        {} if provenance == "nesydm" else {"estimator": "rloo"}
    ))
    table = leaves(module)
    given = {name: p.detach() for name, p in features(1).items()}
    expected = torch.einsum("bi,bj,bk,ijks->bs", *given.values(), table)
    error = (module(**given) - expected).abs()
    assert bool((error < 4 * (expected * (1 - expected) / count).sqrt() + 1e-9).all())


@pytest.mark.parametrize("provenance", ["exact", "sampled", "nesydm"])
def test_a_training_run_from_the_cache_repeats_exactly(provenance: str) -> None:
    def train() -> tuple[list[torch.Tensor], Module]:
        module = leaf(provenance, samples=20, generator=seeded())
        assert module.plan().calls == {"leaf_id": 54}
        leaves(module)
        torch.manual_seed(0)
        x = torch.randn(8, 5)
        networks = [torch.nn.Linear(5, len(values)) for values in LEAF.values()]
        parameters = [p for network in networks for p in network.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=0.1)
        for _ in range(3):
            given = {n: m(x).softmax(-1) for n, m in zip(LEAF, networks, strict=True)}
            loss = torch.nn.functional.binary_cross_entropy(
                module(**given).clamp(1e-6, 1 - 1e-6), torch.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return parameters, module

    (first, module), (second, _) = train(), train()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    report = module.ctx.blackboxes["leaf_id"].report()
    assert report.calls == report.failed == 0
    assert report.cached <= 54


def test_worlds_of_a_diffusion_model() -> None:
    module = leaf("nesydm", rest='rel palm() = shape("palmate")')
    answers = {one: SPECIES[i % 3] for i, one in enumerate(itertools.product(*LEAF.values()))}
    record(module.ctx, "leaf_id", answers)
    worlds = {name: torch.tensor([[0, 1]]) for name in LEAF}
    first, second = (answers[tuple(LEAF[name][i] for name in LEAF)] for i in (0, 1))
    found = module(**worlds)[0].tolist()
    assert found == [((first == s) + (second == s)) / 2 for s in SPECIES]
    assert module.world_program().run(torch.tensor([[2, 5, 2]])).tolist() == [[53 % 3]]


# What will be asked


def fails(*_: Any) -> Any:
    raise AssertionError("it was called")


def plan(program: str, provenance: str = "exact", mappings: Any = None, **options: Any) -> Any:
    ctx = ScallopContext(provenance, **options)
    for name in "fgh":
        ctx.register_blackbox(fails, name)
    ctx.add_program(program)
    for name, mapping in (mappings or {}).items():
        ctx.set_input_mapping(name, mapping)
    return ctx.forward_function(output_mappings={"q": None}).plan()


@pytest.mark.parametrize("provenance", BYSSUS)
def test_the_calls_of_a_program_are_known_beforehand(provenance: str) -> None:
    found = plan(
        """
        type a(x: i32), b(x: i32), d(i: i32, x: i32), e(x: i32)
        @blackbox("f") type f(bound x: i32, bound y: i32, z: i32)
        @blackbox("f", budget=7) type few(bound x: i32, bound y: i32, z: i32)
        @blackbox("g") type g(bound x: i32, y: i32)
        @blackbox("h", over=["a", "c"]) type h(n: i32)
        @blackbox("f") type late(bound x: i32, bound y: i32, z: i32)
        @blackbox("g") type own(bound x: i32, y: i32)
        @blackbox("g") type given(bound x: i32, y: i32)
        @blackbox("g") type unused(bound x: i32, y: i32)
        @llm("{{x}}?", votes=3) type vote(bound x: i32, y: String)
        rel c = {0.5::1}
        rel q(z) = a(x) and b(y) and x < y and f(x, y, z)
        rel q(z) = a(x) and b(y) and few(x, y, z)
        rel n(n) = n := count(i: d(i, 1))
        rel q(z) = n(x) and not a(x) and g(x, z)
        rel q(n) = h(n)
        rel q(z) = a(x) and g(x, y) and late(x, y, z)
        rel r = {1}
        rel r(y) = r(x) and own(x, y)
        rel q(z) = e(x) and given(x, z)
        rel q(x) = a(x) and vote(x, _)
        rel q(x) = d(0, x) and d(1, x) and d(0, y) and g(10 * x + y, x)
        """,
        provenance,
        {"a": range(3), "b": range(4), "d": {0: range(2), 1: range(2)}},
    )
    assert found.calls == {
        "f": 3 + 2 + 1,
        "few": 7,
        # 0, 1 or 2 in place of x; 00 and 11, where the alternatives of d(0, _) exclude 10 and 01.
        "g": None,
        "h": 6,
        "late": None,
        "own": None,
        "given": None,
        "unused": 0,
        "vote": 9,
    } | {"g": found.calls["g"]}
    assert found.calls["g"] == 3 + 2 + 2 - 1


def test_a_table_that_is_too_large() -> None:
    program = '@blackbox("f", over=["d"]) type f(y: i32)\ntype d(i32, i32)\nrel q(y) = f(y)'
    found = plan(program, "auto", {"d": {0: range(7), 1: range(14)}})
    assert (found.provenance, found.calls) == ("sampled", {"f": None})
    assert "more than 10000" in found.why
    found = plan(program, "mixed", {"d": {0: range(2), 1: range(3)}})
    assert (found.provenance, found.calls) == ("mixed", {"f": 9})
    program = '@blackbox("f") type f(bound x: i32, y: i32)\ntype d(i32)\nrel q(y) = d(x), f(x, y)'
    assert plan(program, "auto", {"d": range(9)}).why.startswith("if the program compiles")
    assert plan(program, nodes=3, mappings={"d": range(9)}).calls == {"f": None}


def test_the_plan_of_a_context() -> None:
    program = """
        @blackbox("f") type f(bound x: i32, y: i32)
        rel a = {1, 2, 3}
        type b(i32)
        rel q(y) = a(x) and b(z) and f(x + z, y)
    """
    ctx = ScallopContext("exact")
    ctx.register_blackbox(lambda x: x, "f")
    ctx.add_program(program)
    assert ctx.plan().calls == {"f": 0}
    ctx.add_facts("b", [(0.5, (1,)), (0.5, (2,))])
    assert ctx.plan().calls == {"f": 4}
    assert ctx.blackboxes["f"].calls == 0
    ctx.run()
    list(ctx.relation("q"))
    assert ctx.plan().calls == {"f": 4}
    assert ctx.plan().circuit is not None
    with pytest.raises(ByssusError, match="'topkproofs' has no plan"):
        ScallopContext("topkproofs", backend="embedded").plan()


def test_the_plan_of_a_module_that_has_run() -> None:
    module = leaf("exact")
    leaves(module)
    assert module.plan().circuit is None
    module(**features())
    assert module.plan().circuit is not None
    assert module.plan().calls == {"leaf_id": 54}


# Declarations


FAULTS = {
    '"{{y}}"': "y",
}
