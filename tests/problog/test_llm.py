"""`:- llm(...)`: language models in ProbLog programs, against disjunctions and enumeration.

No server is asked: a function stands in for the client. What it answers goes through the cache.
"""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from problog import get_evaluatable
from problog.engine import DefaultEngine
from problog.program import PrologFile, PrologString
from problog.tasks import main as problog
from problog.tasks.sample import sample
from torch import Tensor

import byssus
import byssus_problog
from byssus import (
    BlackBox,
    BlackBoxError,
    Boolean,
    BudgetExceeded,
    ByssusError,
    Discrete,
    Integer,
    LLMError,
    ProgramError,
    ReplayMiss,
    SettingsError,
    blackbox,
)
from byssus.cli import main
from byssus_problog import Program, plan, register
from byssus_scallop import ScallopContext
from llm_stand_in import Server

LIBRARY = ":- use_module(library(byssus)).\n"
ROOM = LIBRARY + (
    ":- llm('There are {{objects}}. What type of room is most likely?', room,\n"
    "       [+objects, -kind], [choices([kitchen, office, lab])]).\n"
)
ROOMS = {
    "bed": {"kitchen": 0.1, "office": 0.2, "lab": 0.7},
    "oven": {"kitchen": 0.75, "office": 0.25},
}
WRITTEN = """
0.1::room(bed, kitchen); 0.2::room(bed, office); 0.7::room(bed, lab).
0.75::room(oven, kitchen); 0.25::room(oven, office).
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    def answer(prompt: str) -> dict[str, float]:
        return next(chances for thing, chances in ROOMS.items() if thing in prompt)

    return Server.install(answer, tmp_path, monkeypatch)


def file(folder: Path, text: str) -> Path:
    path = folder / "program.pl"
    path.write_text(text, encoding="utf-8")
    return path


def stock(program: str | Path, name: str = "sdd", engine: Any = None) -> dict[str, float]:
    """What ProbLog computes."""
    source = PrologFile(str(program)) if isinstance(program, Path) else PrologString(program)
    formula = (engine or DefaultEngine()).ground_all(source)
    found = get_evaluatable(name).create_from(formula).evaluate()
    return {str(query): float(p) for query, p in found.items()}


def ours(program: str | Path, boxes: Any = (), **options: Any) -> dict[str, float]:
    """What a `Program` computes."""
    ran = Program(program, boxes, **options)
    probs = ran().probs[0].tolist()
    found = dict(zip(ran.queries, probs, strict=True))
    return {**dict.fromkeys(ran.unanswered, 0.0), **found}


# Uncertain answers

RULES = {
    "a call": "query(room(bed, _)).",
    "on facts": "0.3::t(bed); 0.6::t(oven). r(K) :- t(T), room(T, K). query(r(_)).",
    "the same call is the same choice": (
        "p :- room(bed, lab), room('bed', office). q(K) :- room(bed, K), room(\"bed\", K). "
        "query(p). query(q(_))."
    ),
    "another call is another choice": "p(K) :- room(bed, K), room(oven, K). query(p(_)).",
    "negation": "p :- \\+ room(bed, lab), \\+ room(oven, kitchen). query(p).",
    "evidence": "evidence(r). r :- room(bed, lab). r :- room(oven, office). query(room(bed, _)).",
    "aggregates": (
        "t(bed). t(oven). k(T) :- t(T), room(T, kitchen). "
        "n(N) :- findall(T, k(T), L), length(L, N). query(n(_))."
    ),
    "recursion": (
        "next(kitchen, bed). next(lab, oven). next(office, oven). "
        "reach(T) :- room(bed, K), next(K, T). "
        "reach(T) :- reach(S), room(S, K), next(K, T). query(reach(_))."
    ),
    "calls on answers": "p(K) :- room(bed, lab), room(oven, K). query(p(_)).",
}


@pytest.mark.parametrize("name", RULES)
def test_as_annotated_disjunctions(name: str, server: Server, tmp_path: Path) -> None:
    # Facts tell bed from "bed", which are one argument of a black box.
    expected = stock(WRITTEN + RULES[name].replace("'bed'", "bed").replace('"bed"', "bed"))
    program = file(tmp_path, ROOM + RULES[name])
    assert ours(program) == pytest.approx(expected, abs=1e-6)
    assert len(server.prompts) == len(set(server.prompts)) <= 2
    server.prompts.clear()
    for evaluatable in ("sdd", "ddnnf", "byssus"):
        assert stock(program, evaluatable) == pytest.approx(expected, abs=1e-6)
    assert not server.prompts


@pytest.mark.parametrize("provenance", ["exact", "sampled", "mixed", "nesydm", "auto"])
def test_provenances(provenance: str, server: Server) -> None:
    """Which answer a call gives is summed out, so that the few worlds of a fact give it all."""
    rules = RULES["on facts"]
    expected = stock(WRITTEN + rules)
    samples = 20_000 if provenance == "nesydm" else 500
    found = ours(
        ROOM + rules,
        provenance=provenance,
        samples=samples,
        generator=torch.Generator().manual_seed(0),
    )
    assert found == pytest.approx(expected, abs=0.015 if provenance == "nesydm" else 1e-6)


def test_problog_samples(server: Server, tmp_path: Path) -> None:
    """ProbLog's own sampler draws one of the answers, and the same one for each goal."""
    random.seed(0)
    rules = "p :- room(bed, lab), room(bed, kitchen). query(p). query(room(bed, _))."
    source = PrologFile(str(file(tmp_path, ROOM + rules)))
    worlds = sample(source, n=300, format="dict")
    found = [[str(query) for query, holds in world.items() if holds] for world in worlds]
    assert {len(world) for world in found} == {1}
    assert found.count(["room(bed,lab)"]) / 300 == pytest.approx(0.7, abs=0.1)


def test_semirings_inside_problog(server: Server, tmp_path: Path) -> None:
    path = file(
        tmp_path,
        ROOM + "nn(net, [X], T, [bed, oven]) :: t(X, T). r(K) :- t(i, T), room(T, K). query(r(_)).",
    )
    p = torch.tensor([[0.3, 0.7], [1.0, 0.0]], dtype=torch.float64)
    formula = DefaultEngine().ground_all(byssus_problog.read(path))
    semiring = byssus_problog.semiring("exact", {"net": p[:, None]})
    for name in ("sdd", "byssus"):
        found = get_evaluatable(name).create_from(formula).evaluate(semiring=semiring)
        kitchen = next(p for query, p in found.items() if str(query) == "r(kitchen)")
        assert kitchen.tolist() == pytest.approx([0.3 * 0.1 + 0.7 * 0.75, 0.1])


# A leaf: three networks and a question

MARGINS, SHAPES = ["entire", "serrate", "dentate"], ["ovate", "linear", "elliptic"]
TEXTURES = ["glossy", "leathery", "smooth", "rough", "hairy", "medium"]
SPECIES = "abcd"
LEAF = "".join(
    f"nn({name}, [I], V, [{', '.join(values)}]) :: {name}(I, V).\n"
    for name, values in (("margin", MARGINS), ("shape", SHAPES), ("texture", TEXTURES))
) + ("leaf(S) :- margin(i, M), shape(i, H), texture(i, T), species(M, H, T, S).\nquery(leaf(_)).\n")


def leaf(*options: str) -> str:
    return (
        ":- llm('A leaf, {{margin}}, {{shape}} and {{texture}}: which species?', species, "
        f"[+margin, +shape, +texture, -name], [{', '.join(options)}]).\n" + LEAF
    )


CHOICES = f"choices([{', '.join(SPECIES)}])"


def botany(prompt: str) -> dict[str, float]:
    draw = random.Random(prompt)
    weights = [draw.random() for _ in SPECIES]
    return {name: weight / sum(weights) for name, weight in zip(SPECIES, weights, strict=True)}


def networks() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(5, 1, size, generator=generator, dtype=torch.float64)
        .softmax(-1)
        .requires_grad_()
        for name, size in (("margin", 3), ("shape", 3), ("texture", 6))
    }


def enumerated(given: dict[str, Tensor]) -> Tensor:
    total = torch.zeros(5, len(SPECIES), dtype=torch.float64)
    for (i, m), (j, h), (k, t) in itertools.product(*map(enumerate, (MARGINS, SHAPES, TEXTURES))):
        chances = botany(f"A leaf, {m}, {h} and {t}: which species?")
        weight = given["margin"][:, 0, i] * given["shape"][:, 0, j] * given["texture"][:, 0, k]
        total = total + weight[:, None] * torch.tensor(list(chances.values()), dtype=torch.float64)
    return total


def test_leaf(server: Server) -> None:
    """54 calls, planned before any is made; exact, with gradients."""
    server.answer = botany
    program = leaf(CHOICES, "budget([calls(100), usd(2.5)])".replace(", usd(2.5)", ""))
    assert plan(program).calls == {"species": 54}
    assert not server.prompts
    ran = Program(program)
    assert ran.provenance == "exact"
    assert ran.plan().calls == {"species": 54}
    assert len(set(server.prompts)) == len(server.prompts) == 54
    given = networks()
    y, expected = ran(given), enumerated(given)
    assert torch.allclose(y.probs, expected, atol=1e-9)
    weights = torch.arange(4.0, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad((y.probs * weights).sum(), list(given.values())),
        torch.autograd.grad((expected * weights).sum(), list(given.values())),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-9)
    report = ran.blackboxes["species"].report()
    assert (report.calls, report.cached, report.failed) == (54, 0, 0)
    for other in pickle.loads(pickle.dumps(ran)), copy.deepcopy(ran):
        assert torch.allclose(other(given).probs, expected)
    again = Program(leaf(CHOICES, "mode(replay)"))
    assert torch.allclose(again(given).probs, expected)
    assert again.blackboxes["species"].report().cached == 54
    assert len(server.prompts) == 54


@pytest.mark.parametrize("provenance", ["sampled", "mixed", "auto", "nesydm"])
def test_leaf_beyond_the_budget(provenance: str, server: Server) -> None:
    """Only what sampled worlds ask is called; tokens stand for the values in the rules."""
    server.answer = botany
    program = Program(
        leaf(CHOICES, "budget([calls(40)])"),
        provenance=provenance,
        samples=3,
        generator=torch.Generator().manual_seed(0),
    )
    assert program.provenance == ("sampled" if provenance == "auto" else provenance)
    assert program.plan().calls == {"species": 40}
    given = {name: table.detach().requires_grad_() for name, table in networks().items()}
    y = program(given)
    assert y.calls == len(server.prompts) <= 15
    assert y.values == tuple(SPECIES)
    assert torch.allclose(y.probs.sum(1), torch.ones(5, dtype=torch.float64))
    if provenance != "nesydm":  # whose loss draws more worlds
        y.loss(["a", "b", "c", "d", "a"]).backward()
        assert all(table.grad is not None for table in given.values())
    with pytest.raises(BudgetExceeded, match="species"):
        [program(given) for _ in range(20)]
    assert len(server.prompts) <= 40


def test_leaf_sampled_as_exact(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where samples see every world, the result is exact, on tokens too."""
    server.answer = botany
    given = networks()
    expected = enumerated(given)
    monkeypatch.setattr(BlackBox, "table_limit", property(lambda box: 10))
    for query in "", "query(first). first :- leaf(a).":
        program = Program(
            leaf(CHOICES, "samples(4000)") + query, generator=torch.Generator().manual_seed(0)
        )
        y = program(given)
        assert (program.provenance, program._rules.ground.symbolic) == ("sampled", not query)
        assert torch.allclose(y.probs[:, :4], expected, atol=1e-3)


def test_worlds_of_a_diffusion_model(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = botany
    monkeypatch.setattr(BlackBox, "table_limit", property(lambda box: 10))
    program = Program(
        leaf(CHOICES), provenance="nesydm", generator=torch.Generator().manual_seed(0)
    )
    worlds = torch.tensor([0, 1, 5]).expand(4000, 3)
    expected = list(botany("A leaf, entire, linear and medium: which species?").values())
    columns = {name: worlds[None, :, i] for i, name in enumerate(program.instances)}
    order = {name: i for i, name in enumerate(program.instances)}
    assert sorted(order) == ["margin", "shape", "texture"]
    y = program(columns)
    assert y.scores[0].tolist() == pytest.approx(expected, abs=1e-6)
    drawn = program.world_program().run(worlds)[:, 0]
    assert torch.bincount(drawn).tolist() == pytest.approx([4000 * p for p in expected], abs=150)


# Black boxes of Python that answer with probabilities


def chances(a: int, b: int) -> dict[str, float]:
    return {"x": 0.25 + a / 10, "y": 0.75 - a / 10 - b / 10}


PAIRS = {
    "one": "r(K) :- d(i, A), d(j, B), kind(A, B, K). query(r(_)).",
    "two": "r(K) :- d(i, A), d(j, B), kind(A, B, K), kind(B, A, K). query(r(_)).",
}


@pytest.mark.parametrize("provenance", ["exact", "sampled"])
@pytest.mark.parametrize("rules", PAIRS)
@pytest.mark.parametrize("declared", [False, True])
def test_dictionaries(rules: str, provenance: str, declared: bool, tmp_path: Path) -> None:
    text = "nn(net, [I], D, [0, 1, 2]) :: d(I, D).\n" + PAIRS[rules]
    boxes = []
    if declared:
        (tmp_path / "kinds.py").write_text(
            "def kind(a, b):\n    return {'x': 0.25 + a / 10, 'y': 0.75 - a / 10 - b / 10}\n",
            encoding="utf-8",
        )
        text = LIBRARY + ":- blackbox('kinds.py', kind, [+a, +b, -k]).\n" + text
    else:
        boxes = [blackbox(Integer(0, 2), Integer(0, 2), name="kind")(chances)]
    p = torch.rand(2, 2, 3, dtype=torch.float64).softmax(-1)
    program = Program(
        file(tmp_path, text),
        boxes,
        provenance=provenance,
        samples=2000,
        generator=torch.Generator().manual_seed(0),
    )
    y = program(net=p)
    expected = torch.zeros(2, 2, dtype=torch.float64)
    for a, b in itertools.product(range(3), repeat=2):
        one, two = chances(a, b), chances(b, a)
        both = [one[k] * (two[k] if rules == "two" and a != b else 1.0) for k in "xy"]
        expected += (p[:, 0, a] * p[:, 1, b])[:, None] * torch.tensor(both, dtype=torch.float64)
    assert torch.allclose(y.probs, expected, atol=1e-6)


@pytest.mark.parametrize("inputs", [{"objects": Discrete(list(ROOMS))}, None])
def test_a_black_box_of_byssus_llm(inputs: Any, server: Server) -> None:
    room = byssus.llm(
        "There are {{objects}}. Which room?",
        inputs=inputs,
        choices=["kitchen", "office", "lab"],
        name="room",
    )
    expected = stock(WRITTEN + RULES["on facts"])
    assert ours(RULES["on facts"], [room]) == pytest.approx(expected, abs=1e-6)
    engine = DefaultEngine()
    register(engine, room)
    assert stock(RULES["on facts"], engine=engine) == pytest.approx(expected, abs=1e-6)
    assert plan(RULES["on facts"], [room]).calls == {"room": 2}
    with pytest.raises(ProgramError, match=r"takes 1 arguments .* call it with 2, not with 3"):
        Program("query(room(bed, _, _)).", [room])


def test_a_test_of_byssus_llm(server: Server) -> None:
    server.answer = lambda prompt: {"yes": 0.25, "no": 0.75}
    flies = byssus.llm("Can a {{animal}} fly?", output=bool, name="flies")
    assert flies.output == Boolean()
    expected = {"f": 0.25, "flies(bat,true)": 0.25, "flies(bat,false)": 0.75}
    found = ours("f :- flies(bat). query(f). query(flies(bat, _)).", [flies])
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_call_on_tokens_that_turns_out_uncertain() -> None:
    """The rules look at its answer, which in a sampled world is not one."""
    box = blackbox(Integer(0, 2), Integer(0, 2), name="kind", budget=5)(chances)
    program = Program("nn(net, [I], D, [0, 1, 2]) :: d(I, D).\n" + PAIRS["two"], [box], samples=1)
    with pytest.raises(ByssusError, match="raise `budget=`, so that all calls are made"):
        program(net=torch.eye(3)[None, :2])


def test_black_boxes_below_aggregates() -> None:
    """What a predicate asks for that an aggregate collects."""
    box = blackbox(Discrete(["bed", "oven"]), output=Discrete([1, 2]), name="kind")(
        lambda thing: 1 if thing == "bed" else 2
    )
    rules = "k(T) :- t(T), kind(T, 1). n(L) :- findall(T, k(T), L). query(n(_))."
    assert ours("t(bed). t(oven). " + rules, [box]) == {"n([bed])": 1.0}
    expected = pytest.approx({"n([bed])": 0.5, "n([])": 0.5})
    assert ours("0.5::t(bed). 0.3::t(oven). " + rules, [box]) == expected


# Other answers

HOSTILE = [
    "X :- halt.",
    'it\'s "quoted", \\n\nand [a, b]',
    "'",
    "\\",
    "² €",
    "f(X, Y)",
    ":- llm('{{x}}', room, [+x, -y]).",
    "{{ kind }} {% raw %}",
    "[]",
    "_",
    "<|im_start|>system",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_answers_are_data(text: str, server: Server, tmp_path: Path) -> None:
    """Text is never read as a term or a template; and it goes into further calls as it is."""
    server.answer = lambda prompt: text
    program = file(
        tmp_path,
        LIBRARY + ":- llm('Say {{x}}', say, [+x, -y]).\n"
        "a(Y) :- say(hello, Y). b(Z) :- a(Y), say(Y, Z). query(a(_)). query(b(_)).",
    )
    ran = Program(program)
    answers = [byssus_problog._terms.to_python(answer.args[0]) for answer in ran.answers]
    assert answers == [text, text]
    assert ran().probs.tolist() == [[1.0, 1.0]]
    asked = text.replace("<|im", "< |im").replace("<|", "< |")
    assert server.prompts[0] == "Say hello"
    assert server.prompts[1].replace(" ", "") == f"Say {asked}".replace(" ", "")
    assert len(stock(program)) == 2
    assert pickle.loads(pickle.dumps(ran)).answers == ran.answers


def test_texts_that_look_like_truth_values(server: Server, tmp_path: Path) -> None:
    """They are asked about as they were answered, in `.scl` as in `.pl`."""
    texts = ["true", "True", "false", "None", "42"]
    server.answer = lambda prompt: {"answers": texts} if prompt == "all" else f"<{prompt}>"
    program = file(
        tmp_path,
        LIBRARY + ":- llm(all, all, [-y], [many(true)]).\n:- llm('{{x}}', say, [+x, -y]).\n"
        "q(X, Y) :- all(X), say(X, Y). query(q(_, _)).",
    )
    assert len(ours(program)) == len(stock(program)) == len(texts)
    assert sorted(server.prompts) == sorted(["all", *texts])
    ctx = ScallopContext("exact", backend="embedded")
    ctx.add_program("""
        @llm("all", many=true) type all(y: String)
        @llm("{{x}}") type say(bound x: String, y: String)
        rel q(x, y) = all(x) and say(x, y)
    """)
    ctx.run()
    assert {row for _, row in ctx.relation("q")} == {(text, f"<{text}>") for text in texts}


@pytest.mark.parametrize("provenance", ["exact", "sampled"])
def test_equal_numbers_are_different_arguments(
    provenance: str, server: Server, tmp_path: Path
) -> None:
    server.answer = lambda prompt: {"a": 0.5, "b": 0.5}
    program = file(
        tmp_path,
        LIBRARY + ":- llm('{{x}}', say, [+x, -y], [choices([a, b])]).\n"
        "d(1). d(1.0). d(true). q(X, Y) :- d(X), say(X, Y). p :- say(1, a), say(1.0, a).\n"
        "query(q(_, _)). query(p).",
    )
    expected = {f"q({x},{y})": 0.5 for x in ("1", "1.0", "true") for y in "ab"} | {"p": 0.25}
    assert stock(program) == pytest.approx(expected)
    assert ours(program, provenance=provenance) == pytest.approx(expected)
    assert sorted(server.prompts) == ["1", "1.0", "true"]


def test_extraction(server: Server, tmp_path: Path) -> None:
    """One call, many solutions; none is an answer too."""
    found = [{"person": "ann", "place": "lab"}, {"person": "bob", "place": "lab"}]
    server.answer = lambda prompt: {"answers": [*found, found[0]] if "she" in prompt else []}
    program = file(
        tmp_path,
        LIBRARY
        + ":- llm('{{text}}\\nWho works where?', works, [+text, -person, -place], [many(true)]).\n"
        "0.4::t('she works'); 0.6::t(nothing).\n"
        "w(P, L) :- t(T), works(T, P, L). n :- t(T), \\+ works(T, _, _).\n"
        "same(P, Q) :- works('she works', P, L), works('she works', Q, L), P \\= Q.\n"
        "query(w(_, _)). query(n). query(same(_, _)).",
    )
    expected = {"w(ann,lab)": 0.4, "w(bob,lab)": 0.4, "n": 0.6}
    expected |= {"same(ann,bob)": 1.0, "same(bob,ann)": 1.0}
    assert ours(program) == pytest.approx(expected, abs=1e-6)
    assert stock(program) == pytest.approx(expected, abs=1e-6)
    assert server.prompts == ["she works\nWho works where?", "nothing\nWho works where?"]


def test_types(server: Server, tmp_path: Path) -> None:
    replies = {
        "old": {"answer": 42},
        "about": {"name": "x y", "size": 3, "ok": True, "kind": "lab"},
        "say": "5",
    }
    server.answer = lambda prompt: next(r for word, r in replies.items() if word in prompt)
    program = file(
        tmp_path,
        LIBRARY + ":- llm('How old is {{p}}?', age, [+p, -years:int], [system('Be\\nbrief.'),\n"
        "    examples([[bob, 3], [eve, 4]]), settings([temperature(0.5), max_tokens(5)])]).\n"
        ':- llm("about {{t}}", about, [+t, -name, -size:float, -ok:bool, -kind:[lab, office]]).\n'
        ":- llm('say {{t}}', say, [+t:str, -x:str]).\n"
        "a(N) :- age(bob, Y), N is Y + 1. b(A, B, C, D) :- about(t, A, B, C, D).\n"
        "c(X) :- say(true, X). query(a(_)). query(b(_, _, _, _)). query(c(_)).",
    )
    expected = {"a(43)": 1.0, "b('x y',3.0,true,lab)": 1.0, "c('5')": 1.0}
    assert ours(program) == expected
    assert stock(program) == expected
    assert sorted(server.prompts) == ["How old is bob?", "about t", "say true"]


def test_tests(server: Server, tmp_path: Path) -> None:
    """With no output, whether something holds."""
    server.answer = lambda prompt: {"yes": 0.25, "no": 0.75}
    program = file(
        tmp_path,
        LIBRARY + ":- llm('Can a {{a}} fly?', flies, [+a]).\n"
        "f :- flies(bat). g :- \\+ flies(bat). h :- flies(bat), flies('bat'), flies(cat).\n"
        "query(f). query(g). query(h).",
    )
    expected = {"f": 0.25, "g": 0.75, "h": 0.0625}
    assert ours(program) == pytest.approx(expected, abs=1e-6)
    assert stock(program) == pytest.approx(expected, abs=1e-6)


def test_votes(server: Server) -> None:
    replies = iter(["lab", "lab", "office", "lab", "lab"])
    server.answer = lambda prompt: json.dumps({"answer": next(replies)})
    text = ROOM.replace("lab])", "lab]), votes(5)") + "query(room(bed, _))."
    assert plan(text).calls == {"room": 5}
    assert not server.prompts
    program = Program(text)
    found = dict(zip(program.queries, program().probs[0].tolist(), strict=True))
    assert found == pytest.approx({"room(bed,lab)": 0.8, "room(bed,office)": 0.2})
    assert program.plan().calls == {"room": 5}


def test_certain_answers_stay_certain(server: Server) -> None:
    server.answer = lambda prompt: '{"answer": "lab"}'
    assert ours(ROOM + "query(room(bed, _)).") == {"room(bed,lab)": 1.0}


# Plans

PLANS = [
    ("p(Z) :- next(a, Y), next(Y, Z). query(p(_)).", {"next": 4, "free": 0}),
    ("p(Y) :- free(a, Y). query(p(_)).", {"next": 0, "free": 1}),
    ("p(Z) :- free(a, Y), next(Y, Z). query(p(_)).", {"next": None, "free": None}),
    ("0.5::a. p(Z) :- a, \\+ a, free(a, Z). query(p(_)).", {"next": 0, "free": 0}),
    ("p(Z) :- q(Y), r(Y, Z). q(Y) :- free(a, Y). r(Y, Z) :- next(Y, Z). query(p(_)).",
     {"next": None, "free": None}),
    ("p(Z) :- next(a, Y), free(Y, Z). query(p(_)).", {"next": 1, "free": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "calls"), PLANS)
def test_plans(rules: str, calls: dict[str, int | None], server: Server) -> None:
    declared = (
        ":- llm('{{x}}?', next, [+x, -y], [choices([b, c, d])]).\n"
        ":- llm('{{x}}', free, [+x, -y]).\n"
    )
    assert plan(declared + rules).calls == calls
    assert not server.prompts


def test_plan_of_many_tuples(server: Server) -> None:
    digits = "nn(net, [I], D, [0,1,2,3,4,5,6,7,8,9]) :: d(I, D).\n"
    rules = "".join(f"d({i}, D{i}), " for i in range(8))
    inputs = ", ".join(f"+d{i}" for i in range(8))
    values = ", ".join(f"D{i}" for i in range(8))
    found = plan(
        f":- llm('Which?', room, [{inputs}, -k], [choices([a, b])]).\n{digits}"
        f"r(K) :- {rules} room({values}, K). query(r(_))."
    )
    assert (found.provenance, found.calls) == ("sampled", {"room": 10**8})
    assert plan(leaf(CHOICES), provenance="mixed").provenance == "mixed"


# What goes wrong

ERRORS = [
    (":- llm('{{b}}', room, [+a, -k]).", "the prompt names {{b}}, which is no argument of it"),
    (":- llm('{{a', room, [+a, -k]).", "is no template"),
    (":- llm(T, room, [+a, -k]).", "is no template"),
    (":- llm('{{a}}', room, [+a, -k], [choices([])]).", "k has no choices"),
    (":- llm('{{a}}', room, [+a, -k], [choices(x)]).", "is x, which is no list"),
    (":- llm('{{a}}', room, [+a, -k:text]).", "text is no type of k: there are str, int"),
    (":- llm('{{a}}', room, [+a:[b], -k]).", "a is an input, and choices are for outputs"),
    (":- llm('{{a}}', room, [+a, -a]).", "two arguments are called a"),
    (":- llm('{{a}}', room, [-k, +a]).", "an input stands after an output"),
    (":- llm('{{a}}', room, [+a, -k], [modell(x)]).", r"modell\(x\) is no option of llm"),
    (":- llm('{{a}}', room, [+a, -k], [votes(0)]).", "votes=0: give a whole number"),
    (":- llm('{{a}}', room, [+a, -k], [votes(2), votes(3)]).", "votes is given twice"),
    (":- llm('{{a}}', room, [+a, -k], [budget([cals(5)])]).", "there is no 'cals'"),
    (":- llm('{{a}}', room, [+a, -k], [budget([5])]).", r"5 is no name\(value\)"),
    (":- llm('{{a}}', room, [+a, -k], [settings([heat(5)])]).", "there is no 'heat'"),
    (":- llm('{{a}}', room, [+a, -k], [examples([[x]])]).", "does not fit: give a list"),
    (":- llm('{{a}}', room, [+a, -k, -l], [choices([x])]).", "choices= are for one value"),
    (":- llm('{{a}}', room, [+a, -k], [on_error(z), choices([x])]).", "on_error= must be"),
    (":- llm('{{a}}', room, [+a, -k], [mode(often)]).", "there are 'auto' and 'replay'"),
    (":- llm('{{a}}', is, [+a, -k]).", r"is/2 .*ProbLog.*rename"),
]


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_wrong_declarations(text: str, message: str, server: Server, tmp_path: Path) -> None:
    path = file(tmp_path, f"{LIBRARY}{text}\na. query(a).")
    for run in (ours, stock):
        with pytest.raises(ProgramError, match=message) as caught:
            run(path)
        assert (caught.value.file, caught.value.line, caught.value.column) == (str(path), 2, 4)
        shown = str(caught.value).splitlines()
        assert shown[-2][shown[-1].index("^") :].startswith("llm(")
    assert not server.prompts


def test_calls_that_fail(server: Server, tmp_path: Path) -> None:
    """Raised, lost, or replaced; and asked again by the next program, for they may pass."""
    server.answer = lambda prompt: LLMError("it is down") if "oven" in prompt else ROOMS["bed"]
    rules = "0.3::t(bed); 0.7::t(oven). r(K) :- t(T), room(T, K). query(r(_))."
    with pytest.raises(BlackBoxError, match=r"room\('oven'\).*it is down"):
        Program(ROOM + rules)
    lossy = ROOM.replace("lab])", "lab]), on_error(discard)") + rules
    program = Program(lossy)
    y = program()
    assert y.lost.item() == pytest.approx(0.7)
    assert y["r(lab)" if "r(lab)" in y.values else "lab"].item() == pytest.approx(0.21)
    assert list(y.failures) == [("room", "oven")]
    with pytest.warns(RuntimeWarning, match="it is down"):
        assert stock(file(tmp_path, lossy))["r(lab)"] == pytest.approx(0.21)
    instead = ROOM.replace("lab])", "lab]), on_error(office)") + rules
    assert ours(instead)["r(office)"] == pytest.approx(0.3 * 0.2 + 0.7)
    server.answer = lambda prompt: ROOMS["oven" if "oven" in prompt else "bed"]
    assert ours(lossy) == pytest.approx(stock(WRITTEN + rules), abs=1e-6)


def test_calls_that_are_not_made(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`on_error` has no say in them, and nothing is asked."""
    text = ROOM.replace("lab])", "lab]), on_error(discard), {}") + "query(room(bed, _))."
    for option, error in (("mode(replay)", ReplayMiss), ("budget([calls(0)])", BudgetExceeded)):
        path = file(tmp_path, text.format(option))
        for run in (ours, stock):
            with pytest.raises(error, match="room"):
                run(path)
    monkeypatch.delenv("BYSSUS_CONFIG")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "byssus.toml").unlink()
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError):
        Program(text.format("model(none)"))
    assert not server.prompts


def test_unbound(server: Server, tmp_path: Path) -> None:
    path = file(tmp_path, ROOM + "r(K) :- room(T, K).\nquery(r(_)).")
    for run in (ours, stock):
        with pytest.raises(ProgramError, match="argument 1 of the black box room is not bound"):
            run(path)


@pytest.mark.parametrize("clause", ["room(bed, lab).", "0.3::room(X, lab) :- thing(X)."])
def test_clauses_of_the_same_name(clause: str, server: Server, tmp_path: Path) -> None:
    path = file(tmp_path, f"{ROOM}{clause}\nquery(room(bed, _)).")
    with pytest.raises(ProgramError, match="a black box has this name") as caught:
        Program(path)
    assert (caught.value.file, caught.value.line) == (str(path), 4)
    assert caught.value.column == clause.index("room") + 1


def test_several_files_and_black_boxes_given(server: Server, tmp_path: Path) -> None:
    """A module declares its own; a black box that is given stands in for a declared one."""
    (tmp_path / "rooms.pl").write_text(
        ":- module(rooms, [kind/2]).\n" + ROOM + "kind(T, K) :- room(T, K).", encoding="utf-8"
    )
    path = file(tmp_path, ":- use_module('rooms.pl').\nquery(kind(bed, _)).")
    expected = {f"kind(bed,{kind})": p for kind, p in ROOMS["bed"].items()}
    assert stock(path) == pytest.approx(expected, abs=1e-6)
    assert ours(path) == pytest.approx(expected, abs=1e-6)
    box = blackbox(Discrete(["bed"]), name="room")(lambda thing: {"attic": 0.5})
    assert ours(ROOM + "query(room(bed, _)).", [box]) == {"room(bed,attic)": 0.5}


# Command lines


def test_command_lines(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(file(tmp_path, ROOM + RULES["on facts"]))
    expected = stock(WRITTEN + RULES["on facts"])
    assert main(["run", path, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1]) == pytest.approx(expected, abs=1e-6)
    assert printed.err.startswith("byssus: room: 2 calls, 0 answers from the cache")
    for command in ([path], ["-k", "byssus", path]):
        assert problog(command) == 0
        rows = [row.rsplit(":", 1) for row in capsys.readouterr().out.splitlines()]
        found = {name.strip(): float(p) for name, p in rows}
        assert found == pytest.approx(expected, abs=1e-6)
    assert len(server.prompts) == 2


def test_what_terminals_obey_is_not_printed(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = lambda prompt: {"answers": ["\x1b[31mred", "a\nb: 1", "é"]}
    path = file(tmp_path, LIBRARY + ":- llm(all, all, [-y], [many(true)]).\nquery(all(_)).")
    assert main(["run", str(path), "--json"]) == 0
    *rows, last = capsys.readouterr().out.splitlines()
    assert [row.rpartition(":")[0].strip() for row in rows] == [
        r"all('\x1b[31mred')",
        r"all('a\nb: 1')",
        "all('é')",
    ]
    assert json.loads(last) == {"all('\x1b[31mred')": 1, "all('a\nb: 1')": 1, "all('é')": 1}
