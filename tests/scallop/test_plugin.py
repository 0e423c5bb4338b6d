"""Scallop's plugin: black boxes under Scallop's own provenances, and what is not installed."""

from __future__ import annotations

import copy
import itertools
import pickle
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import byssus_scallop
from byssus import BlackBoxError, BlackBoxOutputError, ByssusError, ProgramError


@pytest.fixture
def scallopy() -> Any:
    return pytest.importorskip("scallopy", reason="scallopy is not installed")


FUNCTIONS = """
import os

def noted(name, *arguments):
    with open(os.path.join(os.path.dirname(__file__), "calls"), "a") as file:
        file.write(" ".join(map(str, (name, *arguments))) + "\\n")

def coin(x):
    noted("coin", x)
    return {x: 0.25, x + 10: 0.5}

def halves(x):
    noted("halves", x)
    return x // 2 if x else []

def picky(x):
    noted("picky", x)
    if x == 3:
        raise ValueError("three")
    return [x, 10 * x]

def plus(x):
    noted("plus", x)
    return x + 1

def holds(x):
    return x % 2 == 0

def wrong(x):
    return "text"

def day(when):
    return [(when.year if hasattr(when, "year") else when)]

def column(xs):
    noted("column", *xs)
    return xs + 1
"""

DECLARED = {
    "coin": '@blackbox("leaf.py:coin") type coin(bound x: i32, y: i32)',
    "halves": '@blackbox("leaf.py:halves") type halves(bound x: i32, y: i32)',
    "picky": '@blackbox("leaf.py:picky") type picky(bound x: i32, y: i32)',
    "lenient": '@blackbox("leaf.py:picky", on_error="discard") type picky(bound x: i32, y: i32)',
    "plus": '@blackbox("leaf.py:plus") type $plus(x: i32) -> i32',
    "holds": '@blackbox("leaf.py:holds") type holds(bound x: i32)',
    "wrong": '@blackbox("leaf.py:wrong") type wrong(bound x: i32, y: i32)',
    "vectorized": '@blackbox("leaf.py:column", vectorized=true) type column(bound x: i32, y: i32)',
}

TAGGED = ["minmaxprob", "addmultprob", "topkproofs", "topbottomkclauses", "diffminmaxprob"] + [
    f"diff{name}"
    for name in ("addmultprob", "nandmultprob", "maxmultprob", "topkproofs", "samplekproofs")
]
PROOFS = ["topkproofs", "topbottomkclauses", "difftopkproofs", "difftopbottomkclauses"]
"""Provenances that are exact with as many proofs as there are."""


@pytest.fixture
def made(scallopy: Any, tmp_path: Path) -> Callable[..., Any]:
    """A context of Scallop's with a program in a file, beside the functions that it names."""
    (tmp_path / "leaf.py").write_text(FUNCTIONS)

    def make(provenance: str, program: str, *boxes: str, **options: Any) -> Any:
        file = tmp_path / "main.scl"
        file.write_text("\n".join([*(DECLARED[box] for box in boxes), program]))
        ctx = scallopy.ScallopContext(provenance=provenance, k=20, **options)
        byssus_scallop.BlackBoxPlugin().load_into_ctx(ctx)
        ctx.import_file(str(file))
        return ctx

    return make


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], list[str]]:
    """What has been called so far."""

    def read() -> list[str]:
        file = tmp_path / "calls"
        return file.read_text().splitlines() if file.exists() else []

    return read


def found(ctx: Any, relation: str) -> dict[Any, float]:
    rows = list(ctx.relation(relation))
    if not ctx.requires_tag():
        rows = [(1.0, row) for row in rows]
    plain = ((p.item() if isinstance(p, torch.Tensor) else p, row) for p, row in rows)
    return {row[0] if len(row) == 1 else row: p for p, row in plain}


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6)


# Certain answers


@pytest.mark.parametrize("provenance", ["unit", "proofs", *TAGGED])
def test_certain_answers(provenance: str, made: Callable[..., Any]) -> None:
    ctx = made(
        provenance,
        """
        rel a = {6, 3}
        rel even(x) = a(x) and holds(x)
        rel more($plus(x)) = a(x)
        rel below(x, y) = a(x) and halves(x, y)
        rel below(x, z) = below(x, y) and halves(y, z)
        rel next(x, y) = a(x) and column(x, y)
        """,
        *("holds", "plus", "halves", "vectorized"),
    )
    ctx.run()
    assert found(ctx, "even") == close({6: 1})
    assert found(ctx, "more") == close({7: 1, 4: 1})
    below = {(6, 3): 1, (6, 1): 1, (6, 0): 1, (3, 1): 1, (3, 0): 1}
    assert found(ctx, "below") == close(below)
    assert found(ctx, "next") == close({(6, 7): 1, (3, 4): 1})
    assert "byssus_coin" not in ctx.relations()
    assert ctx.num_relations() == len(ctx.relations())


@pytest.mark.parametrize("provenance", ["unit", "topkproofs", "difftopbottomkclauses"])
def test_aggregates(provenance: str, made: Callable[..., Any]) -> None:
    program = """
        rel a = {6, 3}
        rel n(n) = n := count(x, y: a(x) and halves(x, y))
        rel most(x, y) = y := max(y: a(x) and picky(x, y))
        rel some(z) = z := exists(x: a(x) and halves(x, 3))
    """
    ctx = made(provenance, program, "halves", "lenient")
    ctx.run()
    assert found(ctx, "n") == {2: 1}
    assert found(ctx, "most") == {(6, 60): 1}
    assert found(ctx, "some") == {True: 1}


@pytest.mark.parametrize("provenance", ["minmaxprob", "topkproofs", "difftopkproofs"])
def test_probabilities_of_the_arguments(provenance: str, made: Callable[..., Any]) -> None:
    ctx = made(provenance, "rel a = {0.5::6, 0.25::7} rel b(y) = a(x) and halves(x, y)", "halves")
    ctx.run()
    assert found(ctx, "b") == close({3: 0.5 if provenance == "minmaxprob" else 0.625})


# Uncertain ones


def worlds() -> list[tuple[float, set[int], dict[int, int | None]]]:
    """Of 1 and 2, each there with one half, and of what `coin` says to each."""
    some: list[tuple[float, set[int], dict[int, int | None]]] = []
    for there in itertools.product([False, True], repeat=2):
        for said in itertools.product([(0.25, 0), (0.5, 10), (0.25, None)], repeat=2):
            weight = 0.25 * said[0][0] * said[1][0]
            answers = {
                x: None if add is None else x + add
                for x, (_, add) in zip((1, 2), said, strict=True)
            }
            some.append(
                (weight, {x for x, is_so in zip((1, 2), there, strict=True) if is_so}, answers)
            )
    return some


@pytest.mark.parametrize("provenance", PROOFS)
def test_uncertain_answers(provenance: str, made: Callable[..., Any]) -> None:
    ctx = made(
        provenance,
        """
        rel a = {0.5::1, 0.5::2}
        rel b(y) = a(x) and coin(x, y)
        rel c(y) = a(x) and coin(x, y)
        rel both(y) = b(y) and c(y)
        rel twice(y) = a(x) and coin(x, y) and coin(x, y)
        rel apart() = a(x) and coin(x, y) and coin(x, z) and y < z
        rel all() = b(11) and b(12)
        """,
        "coin",
    )
    ctx.run()
    expected: dict[int, float] = {}
    together = 0.0
    for weight, there, answers in worlds():
        held = {answers[x] for x in there}
        for y in held - {None}:
            expected[y] = expected.get(y, 0) + weight  # type: ignore[index,arg-type]
        together += weight * (held >= {11, 12})
    for name in ("b", "c", "both", "twice"):
        assert found(ctx, name) == close(expected), name
    assert found(ctx, "apart") == {}
    assert found(ctx, "all") == close({(): together})


def test_recursion_through_uncertain_answers(made: Callable[..., Any]) -> None:
    program = """
        type start(i32)
        rel reach(x) = start(x)
        rel reach(y) = reach(x) and coin(x, y) and y < 40
    """
    results = []
    for provenance in ("topkproofs", "exact"):
        ctx = made(provenance, program, "coin")
        ctx.add_facts("start", [(0.5, (1,)), (0.5, (11,))])
        ctx.run()
        results.append(found(ctx, "reach"))
    assert results[0] == close(results[1])
    assert results[0][21] == close(0.5 * 0.5 + 0.5 * 0.5 * 0.5 - 0.25 * 0.5 * 0.5)


@pytest.mark.parametrize("provenance", TAGGED)
def test_one_uncertain_answer(provenance: str, made: Callable[..., Any]) -> None:
    ctx = made(provenance, "rel a = {0.5::1} rel b(y) = a(x) and coin(x, y)", "coin")
    ctx.run()
    both = min if "min" in provenance else lambda p, q: p * q
    assert found(ctx, "b") == close({1: both(0.5, 0.25), 11: both(0.5, 0.5)})


def test_functions_have_certain_answers(made: Callable[..., Any]) -> None:
    program = """
        @blackbox("leaf.py:coin") type $toss(x: i32) -> i32
        rel a = {1}
        rel b($toss(x)) = a(x)
    """
    with pytest.raises(ProgramError, match=r"(?s)toss answers with probabilities.*line 2") as info:
        made("topkproofs", program).run()
    assert "declare a relation" in str(info.value)
    ctx = made("exact", program)
    ctx.run()
    assert found(ctx, "b") == close({1: 0.25, 11: 0.5})


def test_custom_provenances_of_the_user(scallopy: Any, made: Callable[..., Any]) -> None:
    program = "type a(i32) rel b(y) = a(x) and {}(x, y)"
    fact = [(torch.tensor(0.5), (6,))]
    ctx = made("diffnandmultprob2", program.format("halves"), "halves")
    ctx.add_facts("a", fact)
    ctx.run()
    assert found(ctx, "b") == close({3: 0.5})
    ctx = made("diffnandmultprob2", program.format("coin"), "coin")
    ctx.add_facts("a", fact)
    with pytest.raises(ByssusError, match="loses for functions and under custom provenances"):
        ctx.run()


# Calls


def test_each_call_is_made_once(made: Callable[..., Any], calls: Callable[[], list[str]]) -> None:
    program = """
        type a(i32)
        rel b(y) = a(x) and halves(x, y)
        rel c(y) = b(x) and halves(x, y)
        rel d($plus(x)) = b(x) or c(x)
    """
    ctx = made("minmaxprob", program, "halves", "plus")
    ctx.add_facts("a", [(0.5, (12,)), (0.25, (6,))])
    ctx.run()
    expected = {"halves 12", "halves 6", "halves 3", "plus 6", "plus 3", "plus 1"}
    assert sorted(calls()) == sorted(expected)
    assert found(ctx, "d") == close({7: 0.5, 4: 0.5, 2: 0.25})
    ctx.add_facts("a", [(0.5, (3,))])
    ctx.run()
    assert found(ctx, "d") == close({7: 0.5, 4: 0.5, 2: 0.5, 1: 0.5})
    assert sorted(calls()) == sorted(expected | {"halves 1", "plus 0"})
    for other in (ctx.clone(), copy.deepcopy(ctx), pickle.loads(pickle.dumps(ctx))):
        other.run()
        assert found(other, "d") == close({7: 0.5, 4: 0.5, 2: 0.5, 1: 0.5})


def test_calls_are_made_together(made: Callable[..., Any], calls: Callable[[], list[str]]) -> None:
    ctx = made("unit", "rel a = {1, 2, 3} rel b(y) = a(x) and column(x, y)", "vectorized")
    ctx.run()
    assert found(ctx, "b") == {2: 1, 3: 1, 4: 1}
    (call,) = calls()
    assert sorted(call.split()[1:]) == ["1", "2", "3"]


def test_what_is_not_needed_is_not_asked(
    made: Callable[..., Any], calls: Callable[[], list[str]]
) -> None:
    program = """
        rel a = {4, 6}
        rel known(x) = a(x) and holds(x)
        rel open(x) = a(x) and not known(x)
        rel b(y) = open(x) and picky(x, y)
    """
    ctx = made("unit", program, "holds", "picky")
    ctx.run()
    assert found(ctx, "b") == {}
    assert calls() == []


def test_failures(made: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    program = "rel a = {1, 3} rel b(y) = a(x) and picky(x, y)"
    with pytest.raises(BlackBoxError, match=r"picky\(3\) raised ValueError: three"):
        made("topkproofs", program, "picky").run()
    ctx = made("topkproofs", program, "lenient")
    ctx.run()
    assert found(ctx, "b") == close({1: 1, 10: 1})
    with pytest.raises(BlackBoxOutputError, match="text"):
        made("unit", "rel a = {1} rel b(y) = a(x) and wrong(x, y)", "wrong").run()
    assert capfd.readouterr().err == ""


def test_an_interrupt_is_heard(scallopy: Any, monkeypatch: pytest.MonkeyPatch, made: Any) -> None:
    from byssus_scallop import _extension

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    ctx = made("unit", "rel a = {1} rel b(y) = a(x) and halves(x, y)", "halves")
    monkeypatch.setattr(_extension, "convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ctx.run()


def test_endless_questions(
    scallopy: Any, monkeypatch: pytest.MonkeyPatch, made: Callable[..., Any]
) -> None:
    from byssus_scallop import _extension

    monkeypatch.setattr(_extension, "_ROUNDS", 20)
    program = "rel a = {1} rel a(y) = a(x) and column(x, y)"
    with pytest.raises(ProgramError, match="column has been asked 20 times in a row"):
        made("unit", program, "vectorized").run()
    ctx = made("unit", program, "vectorized")
    ctx.set_iter_limit(5)
    ctx.run()
    assert 3 <= len(found(ctx, "a")) <= 7


# Programs


def test_texts_rules_and_items(
    scallopy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaf.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    ctx = scallopy.ScallopContext(provenance="topkproofs", k=20)
    byssus_scallop.BlackBoxPlugin().load_into_ctx(ctx)
    ctx.add_relation("a", int)
    ctx.add_facts("a", [(0.5, 1)])
    ctx.run()
    ctx.add_program(f"type Number = i32 {DECLARED['coin'].replace('i32', 'Number')}")
    ctx.add_rule("b(y) = a(x) and coin(x, y)")
    ctx.add_rule("c(y) = a(x) and coin(x, y)", tag=(0.5, None))
    ctx.add_item("rel d(y) = b(y) and c(y)")
    assert ctx.add_item("query d") == ["d"]
    ctx.run()
    assert found(ctx, "d") == close({1: 0.0625, 11: 0.125})


def test_files_that_import_files(scallopy: Any, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "leaf.py").write_text(FUNCTIONS)
    (tmp_path / "lib" / "boxes.scl").write_text(
        "\n".join(DECLARED[name] for name in ("coin", "plus", "holds"))
    )
    file = tmp_path / "main.scl"
    file.write_text(
        """
        import "lib/boxes.scl"
        rel a = {1, 2}
        rel b(y) = a(x) and coin(x, y)  // beside a comment
        rel 0.5::c($plus(y)) = b(y)
        rel d(n) = n := count(x: a(x) and holds(x))
        """
    )
    ctx = scallopy.ScallopContext(provenance="topkproofs", k=50)
    byssus_scallop.BlackBoxPlugin().load_into_ctx(ctx)
    ctx.import_file(str(file))
    ctx.run()
    assert found(ctx, "b") == close({1: 0.25, 11: 0.5, 2: 0.25, 12: 0.5})
    assert found(ctx, "c") == close({2: 0.125, 12: 0.25, 3: 0.125, 13: 0.25})
    assert found(ctx, "d") == close({1: 1})


def test_files_of_facts(made: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("6\n")
    program = f'@file("{file}") type a(x: i32) rel b(y) = a(x) and halves(x, y)'
    with pytest.raises(
        ByssusError, match="has black boxes, halves, and loads relations from files"
    ):
        made("unit", program, "halves").run()
    ctx = made("exact", program, "halves")
    ctx.run()
    assert found(ctx, "b") == {3: 1}


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ('@blackbox("leaf.py:none") type f(bound x: i32, y: i32)', "has no function 'none'"),
        ('@blackbox("none.py:f") type f(bound x: i32, y: i32)', "there is no file none.py"),
        ('@blackbox("leaf.py:plus") type f(bound x: i32, bound y: i32)', "gives it 2 arguments"),
        ('@blackbox("leaf.py:plus", tries=2) type f(bound x: i32, y: i32)', "'tries'"),
        ('@blackbox("leaf.py:plus") type f(x: i32), g(x: i32)', "one relation"),
        ('@blackbox("leaf.py:plus", over=["a"]) type f(y: i32)', "over whole relations"),
        ('@blackbox("leaf.py:plus") type f(bound x: Symbol, y: i32)', "has a Symbol"),
        (DECLARED["plus"] + " rel a = {", "Syntax error"),
    ],
)
def test_mistakes(program: str, message: str, made: Callable[..., Any]) -> None:
    with pytest.raises(ByssusError if "rel a" not in program else Exception, match=message):
        made("unit", program)


@pytest.mark.parametrize(
    "use",
    ["rel b(x) = a(x) and not coin(x, 1)", "query coin(1, y)", "rel coin(x, 1) = a(x)"],
)
def test_uses_that_are_refused(use: str, made: Callable[..., Any]) -> None:
    with pytest.raises(ProgramError, match=r"(?s)coin is a black box.*main.scl.*line 2"):
        made("topkproofs", f"rel a = {{1}} {use}", "coin")


def test_nothing_of_a_program_with_a_mistake_is_kept(made: Callable[..., Any]) -> None:
    ctx = made("unit", "rel a = {6}")
    folder = Path(ctx._history_actions[-1].pos_args[0]).parent
    declared = DECLARED["halves"].replace("leaf.py", str(folder / "leaf.py"))
    with pytest.raises(Exception, match="unknown"):
        ctx.add_program(f"{declared} rel b(y) = a(x) and halves(x, $unknown(y))")
    ctx.add_program(f"{declared} rel b(y) = a(x) and halves(x, y)")
    ctx.run()
    assert found(ctx, "b") == {3: 1}


def test_copies_declare_their_own(made: Callable[..., Any], tmp_path: Path) -> None:
    ctx = made("unit", "rel a = {6}")
    results = []
    others = [ctx.clone(), ctx.clone()]
    for other, name in zip(others, ("halves", "plus"), strict=True):
        target = tmp_path / f"leaf.py:{name}"
        other.add_program(f'@blackbox("{target}") type f(bound x: i32, y: i32)')
        other.add_program("rel b(y) = a(x) and f(x, y)")
    for other in others:
        other.run()
        results.append(found(other, "b"))
    assert results == [{3: 1}, {7: 1}]
    with pytest.raises(ByssusError, match="does not change its provenance to 'minmaxprob'"):
        others[0].clone(provenance="minmaxprob")
    assert ctx.clone(provenance="minmaxprob").provenance == "minmaxprob"


# Forward functions


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")  # Scallop does
@pytest.mark.parametrize("dispatch", ["single", "serial", "parallel"])
@pytest.mark.parametrize("provenance", ["difftopkproofs", "diffaddmultprob"])
def test_forward_functions(
    provenance: str, dispatch: str, made: Callable[..., Any], calls: Callable[[], list[str]]
) -> None:
    program = """
        type digit(x: i32)
        rel out(z) = digit(x) and coin(x, y) and halves(y, z)
    """
    ctx = made(provenance, program, "coin", "halves")
    ctx.set_input_mapping("digit", range(4))
    forward = ctx.forward_function("out", range(8), dispatch=dispatch)
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]], requires_grad=True)
    expected = torch.zeros(2, 8)
    for x in range(4):
        for add, q in ((0, 0.25), (10, 0.5)):
            if x + add:
                column = torch.nn.functional.one_hot(torch.tensor((x + add) // 2), 8)
                part = p[:, x : x + 1] * q * column
                more = 1 - (1 - expected) * (1 - part)
                expected = more if provenance == "difftopkproofs" else expected + part
    weights = torch.linspace(0, 1, 8)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), p)
    for _ in range(2):
        result = forward(digit=p)
        assert torch.allclose(result, expected, atol=1e-6)
        (grad,) = torch.autograd.grad((result * weights).sum(), p)
        assert torch.allclose(grad, wanted, atol=1e-6)
    assert len(calls()) == len(set(calls())) == 4 + 8


# Finding the plugin


def test_the_registry(scallopy: Any, tmp_path: Path) -> None:
    registry = byssus_scallop.PluginRegistry(load_stdlib=True, load_from_entry_points=True)
    assert {"CmdArgPlugin", "PyEvalPlugin", "byssus"} <= set(registry.loaded_plugins())
    parser = ArgumentParser()
    parser.add_argument("file")
    registry.setup_argument_parser(parser)
    (tmp_path / "leaf.py").write_text(FUNCTIONS)
    file = tmp_path / "main.scl"
    file.write_text(
        DECLARED["coin"]
        + """
        @cmd_arg("-n") type number(x: i32)
        @py_eval type $eval(text: String) -> i32
        rel b(y) = number(x) and coin(x, y)
        rel c($eval($format("{} * 2", x))) = number(x)
        """
    )
    registry.configure(*parser.parse_known_args([str(file), "-n", "4"]))
    for provenance in ("minmaxprob", "topkproofs", "difftopkproofs", "exact", "auto"):
        ctx = scallopy.ScallopContext(provenance=provenance)
        registry.load_into_ctx(ctx)
        byssus_scallop.BlackBoxPlugin().load_into_ctx(ctx)  # once more does no harm
        ctx.import_file(str(file))
        ctx.run()
        assert found(ctx, "b") == close({4: 0.25, 14: 0.5})
        assert found(ctx, "c") == close({8: 1})


def test_one_plugin(scallopy: Any) -> None:
    registry = scallopy.PluginRegistry()
    registry.load_plugin(byssus_scallop.BlackBoxPlugin())
    assert registry.loaded_plugins() == ["byssus"]
    assert isinstance(byssus_scallop.BlackBoxPlugin(), byssus_scallop.Plugin)
    registry.configure()
    registry.setup_argument_parser(ArgumentParser())


def test_contexts_of_byssus_with_scallops_provenances(
    scallopy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaf.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    ctx = byssus_scallop.ScallopContext(provenance="topkproofs", backend="scallopy")
    assert type(ctx) is scallopy.ScallopContext
    ctx.add_program(f"{DECLARED['coin']} rel a = {{0.5::1}} rel b(y) = a(x) and coin(x, y)")
    ctx.run()
    assert found(ctx, "b") == close({1: 0.125, 11: 0.25})


def test_entry_points_of_every_python(scallopy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert byssus_scallop.PluginRegistry is scallopy.PluginRegistry
    ours = metadata.EntryPoint(
        "byssus", "byssus_scallop._extension:BlackBoxPlugin", "scallop.plugin"
    )
    other = metadata.EntryPoint("other", "nowhere:Plugin", "another.group")
    # What Python 3.12 gives, where Scallop expects a dictionary by group.
    monkeypatch.setattr(metadata, "entry_points", lambda: metadata.EntryPoints([ours, ours, other]))
    registry = scallopy.PluginRegistry(load_from_entry_points=True)
    assert registry.loaded_plugins() == ["byssus"]
    none = scallopy.PluginRegistry(
        load_from_entry_points=True, filter=lambda name: name != "byssus"
    )
    assert none.loaded_plugins() == []


def test_programs_without_black_boxes_are_scallops(scallopy: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1\n2\n")
    ctx = scallopy.ScallopContext(provenance="topkproofs")
    byssus_scallop.BlackBoxPlugin().load_into_ctx(ctx)
    ctx.add_relation("a", int, load_csv=str(tmp_path / "a.csv"))
    ctx.add_program("rel b(x) = a(x) and x > 1")
    with pytest.raises(Exception, match="Syntax error"):
        ctx.add_program("rel b(")
    ctx.run()
    assert found(ctx, "b") == close({2: 1})
    ctx.add_facts("a", [(0.5, (3,))])
    ctx.run()
    assert found(ctx, "b") == close({2: 1, 3: 0.5})


# Without scallopy


@pytest.mark.parametrize("name", ["BlackBoxPlugin", "Plugin", "PluginRegistry", "provenance()"])
def test_without_scallopy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [one for one in sys.modules if one.startswith("byssus_scallop._extension")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr(byssus_scallop, "_extension", raising=False)
    monkeypatch.setitem(sys.modules, "scallopy", None)

    def use() -> Any:
        if name == "provenance()":
            return byssus_scallop.provenance("exact")
        return getattr(byssus_scallop, name)

    with pytest.raises(ByssusError, match="needs Scallop's Python package") as info:
        use()
    assert name in str(info.value)
    assert "www.scallop-lang.org" in str(info.value)


def test_names_that_there_are_not() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Plugins'"):
        byssus_scallop.Plugins  # noqa: B018
    assert SimpleNamespace(**vars(byssus_scallop)).provenance is byssus_scallop.provenance
