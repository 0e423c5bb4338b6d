"""Black boxes, sampled worlds, budgets and stores under DeepProbLog."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from deepproblog.dataset import DataLoader, QueryDataset
from deepproblog.query import Query
from deepproblog.train import train_model

from byssus import ByssusError, CompilationLimit, Integer, blackbox
from deepproblog_oracle import Classifier, Engine, Model, ours, query

SMALL = "nn(net, [X], Y, [0,1,2]) :: digit(X, Y).\n"
ADDITION = SMALL + "addition(X, Y, Z) :- digit(X, A), digit(Y, B), total(A, B, Z).\n"
RULES = SMALL + "addition(X, Y, Z) :- digit(X, A), digit(Y, B), Z is A + B.\n"
ALL_PAIRS = [query(f"addition(i0, i1, {a + b})", a, b) for a in range(3) for b in range(3)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@blackbox(Integer(0, 2), Integer(0, 2), output=Integer(0, 4))
def total(a: int, b: int) -> int:
    return a + b


def probabilities(model: Model, queries: Sequence[Query]) -> list[float]:
    return [
        p if isinstance(p, float) else p.item()
        for result in model.solve(queries)
        for p in result.result.values()
    ]


@pytest.mark.parametrize("provenance", ["exact", "auto", "sampled", "mixed"])
def test_blackbox(provenance: str) -> None:
    """The same probabilities as rules give, since 300 samples see all of nine worlds."""
    module = Classifier(3)
    white = ours(RULES, {"net": module})
    generator = torch.Generator().manual_seed(0)
    black = ours(
        ADDITION,
        {"net": module},
        provenance=provenance,
        blackboxes=[total],
        samples=300,
        generator=generator,
    )
    for model in white, black:
        model.eval()
    queries = [query(f"addition(i0, i1, {z})", z, z + 1) for z in range(5)]
    for asked in queries, [q.variable_output() for q in queries]:
        expected = probabilities(white, asked)
        assert probabilities(black, asked) == pytest.approx(expected, abs=1e-5)


def test_declared_blackbox(tmp_path: Path) -> None:
    """In the program, as `:- blackbox(...)`."""
    file = tmp_path / "leaf.py"
    file.write_text("def total(a, b):\n    return a + b\n")
    declared = f":- blackbox('{file}', total, [+integer(0, 2), +integer(0, 2), -integer(0, 4)]).\n"
    model = ours(declared + ADDITION, {"net": Classifier(3)})
    (result,) = model.solve([ALL_PAIRS[4].variable_output()])
    assert sum(p.item() for p in result.result.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "provenance", ["exact", "sampled", pytest.param("mixed", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("program", [ADDITION, RULES], ids=["blackbox", "rules"])
def test_learning(provenance: str, program: str) -> None:
    """Digits from their sums, through sampled worlds too."""
    model = ours(
        program,
        {"net": Classifier(3)},
        provenance=provenance,
        blackboxes=[total] if program == ADDITION else [],
        samples=20,
        generator=torch.Generator().manual_seed(0),
    )
    train_model(model, DataLoader(QueryDataset(ALL_PAIRS), 3, seed=0), 40, log_iter=1000)
    model.eval()
    assert min(probabilities(model, ALL_PAIRS)) > 0.5


def test_budget() -> None:
    """Of nodes: an error under exact, a warning and samples under auto."""
    program = (
        SMALL
        + """
path(X, Y) :- edge(X, Y).
path(X, Y) :- edge(X, Z), path(Z, Y).
edge(a, b) :- digit(i0, 0). edge(b, c) :- digit(i1, 0). edge(a, c) :- digit(i2, 0).
edge(c, b) :- digit(i0, 1).
reach(I, J, K) :- path(a, c).
"""
    )
    asked = [query("path(a, c)", 0, 1, 2, output=())]
    with pytest.raises(CompilationLimit):
        ours(program, {"net": Classifier(3)}, nodes=3).solve(asked)
    model = ours(program, {"net": Classifier(3)}, provenance="auto", nodes=3, samples=200)
    with pytest.warns(RuntimeWarning, match="sampled"):
        (p,) = probabilities(model, asked)
    exact = ours(program, {"net": model.networks["net"].network_module})
    assert p == pytest.approx(probabilities(exact, asked)[0], abs=0.05)


def test_options_are_checked() -> None:
    with pytest.raises(ByssusError, match=r"no argument 'nodse'; there are .*'nodes'"):
        ours(RULES, {"net": Classifier(3)}, nodse=3)


def test_black_boxes_do_not_see_the_names_of_templates(tmp_path: Path) -> None:
    """A box that is called on an image is called on the image's own name, query by query."""
    file = tmp_path / "names.py"
    file.write_text("def name_of(image):\n    return str(image)\n")
    program = f":- blackbox('{file}', name_of, [+image, -name]).\n" + SMALL
    program += "q(X, Name) :- digit(X, 1), name_of(X, Name).\n"
    for cache in True, False:
        model = ours(program, {"net": Classifier(3)}, cache=cache)
        results = model.solve([query("q(i0, Name)", i) for i in range(2)])
        names = [str(answer.args[1]) for result in results for answer in result]
        assert names == ["'tensor(images(0))'", "'tensor(images(1))'"]


def test_store(tmp_path: Path) -> None:
    """`cache_root` is where circuits are kept."""
    model = ours(RULES, {"net": Classifier(3)})
    model.set_engine(Engine(model), cache=True, cache_root=tmp_path)
    before = probabilities(model, ALL_PAIRS)
    assert any(tmp_path.rglob("*"))
    model.set_engine(Engine(model), cache=True, cache_root=tmp_path)
    assert probabilities(model, ALL_PAIRS) == before


@blackbox(Integer(0, 5), Integer(0, 5), Integer(0, 5), Integer(0, 5), output=Integer(0, 20))
def four(*digits: int) -> int:
    return sum(digits)


@pytest.mark.parametrize("free", ["Z", "Z, W"])
def test_a_call_on_what_networks_say(free: str) -> None:
    """A black box that is called on digits as they are sampled: one call in the rules."""
    program = """
nn(net, [X], Y, [0,1,2,3,4,5]) :: digit(X, Y).
total([A, B, C, D], Z) :- digit(A, A1), digit(B, B1), digit(C, C1), digit(D, D1),
    four(A1, B1, C1, D1, Z).
total(L, Z, W) :- total(L, Z), digit(i0, W).
"""
    model = ours(
        program, {"net": Classifier(6)}, provenance="sampled", blackboxes=[four], samples=50
    )
    model.eval()
    asked = [query(f"total([i0, i1, i2, i3], {free})", *range(k, k + 4)) for k in range(2)]
    for k, result in enumerate(model.solve(asked)):
        assert sum(p.item() for p in result.result.values()) == pytest.approx(1.0, abs=1e-5)
        assert all(str(answer.args[0]).startswith(f"[tensor(images({k})), ") for answer in result)
        assert all(0 <= int(answer.args[1]) <= 20 for answer in result)
    assert len(model.solver._structures) == 1


def test_registered_blackbox() -> None:
    """`model.register_foreign` of a black box: it is called on the whole batch, each tuple once."""
    module = Classifier(3)
    white, black = ours(RULES, {"net": module}), ours(ADDITION, {"net": module})
    black.register_foreign(total, "total", 2, 1)
    expected = probabilities(white, ALL_PAIRS)
    assert probabilities(black, ALL_PAIRS) == pytest.approx(expected, abs=1e-5)
    assert not black.solver._circuits
