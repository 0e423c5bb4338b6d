"""byssus's provenances in contexts and modules of scallopy itself."""

from __future__ import annotations

import copy
import io
import itertools
import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import byssus
import byssus_scallop
from byssus import BlackBoxError, ByssusError, ProgramError

scallopy: Any = pytest.importorskip("scallopy", reason="scallopy is not installed")

EXHAUSTIVE = {"worlds": byssus.exhaustive, "samples": 10**6}
EQUAL = [
    pytest.param({"name": "exact"}, id="exact"),
    pytest.param({"name": "auto"}, id="auto"),
    pytest.param({"name": "sampled", **EXHAUSTIVE}, id="sampled"),
    pytest.param({"name": "mixed", **EXHAUSTIVE}, id="mixed"),
]
"""Under all of these the answers are exact."""


def raw(name: str = "exact", **options: Any) -> Any:
    """A context as a user of scallopy makes it."""
    return scallopy.ScallopContext(
        provenance="custom", custom_provenance=byssus_scallop.provenance(name, **options)
    )


def found(ctx: Any, relation: str) -> dict[Any, float]:
    return {
        row[0] if len(row) == 1 else row: float(p) for p, row in list(ctx.relation(relation))
    }


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6)


def digits(batch: int = 3, size: int = 10, count: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, size)
    logits = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(count)
    ]
    return logits


def sums(p: Tensor, q: Tensor) -> Tensor:
    """The distribution of the sum, by enumeration."""
    batch, n = p.shape
    result = p.new_zeros(batch, 2 * n - 1)
    for i, j in itertools.product(range(n), repeat=2):
        result = result + torch.nn.functional.one_hot(torch.tensor(i + j), 2 * n - 1) * (
            p[:, i] * q[:, j]
        ).unsqueeze(1)
    return result


SUM = """
type digit_1(a: i32), digit_2(b: i32)
rel sum_2(a + b) = digit_1(a) and digit_2(b)
"""


def sum_module(**options: Any) -> Any:
    given = {
        "program": SUM,
        "custom_provenance": byssus_scallop.provenance("exact"),
        "input_mappings": {"digit_1": range(10), "digit_2": list(range(10))},
        "output_mappings": {"sum_2": range(19)},
    }
    return scallopy.Module(**{**given, **options})


# Contexts


@pytest.mark.parametrize("options", EQUAL)
def test_a_graph(options: dict[str, Any]) -> None:
    ctx = raw(**options)
    ctx.add_relation("edge", (int, int))
    ctx.add_facts("edge", [(0.5, (0, 1)), (0.25, (1, 2)), (0.5, (0, 2)), (None, (2, 0))])
    ctx.add_rule("path(a, c) = edge(a, c) or path(a, b) and edge(b, c)")
    ctx.run()
    back = 0.5 + 0.5 * 0.25 - 0.5 * 0.5 * 0.25
    expected = {
        (0, 1): 0.5,
        (0, 2): back,
        (0, 0): back,
        (1, 2): 0.25,
        (1, 0): 0.25,
        (1, 1): 0.125,
        (2, 0): 1.0,
        (2, 1): 0.5,
        (2, 2): back,
    }
    assert found(ctx, "path") == close(expected)


def test_what_it_is() -> None:
    ctx = raw()
    assert isinstance(ctx, scallopy.ScallopContext)
    assert isinstance(ctx, byssus_scallop.ScallopContext)
    assert ctx.provenance == "exact"
    assert byssus_scallop.provenance("exact").name() == "byssus-exact"


@pytest.mark.parametrize("options", EQUAL)
def test_alternatives(options: dict[str, Any]) -> None:
    ctx = raw(**options)
    ctx.add_relation("color", str)
    facts = [(0.5, ("red",)), (0.3, ("green",)), (0.5, ("dark",))]
    ctx.add_facts("color", facts, disjunctions=[[0, 1]])
    ctx.add_rule('both() = color("red") and color("green")')
    ctx.add_rule('either() = color("red") or color("green")')
    ctx.add_rule('dark() = color("red") and color("dark")')
    ctx.run()
    assert found(ctx, "both") == {}
    assert found(ctx, "either") == close({(): 0.8})
    assert found(ctx, "dark") == close({(): 0.25})


def test_values_alone_are_tuples_of_one() -> None:
    ctx = raw()
    ctx.add_relation("digit", int)
    ctx.add_facts("digit", [(0.5, 3), (0.25, 4)], disjunctions=[[0, 1]])
    ctx.add_rule("odd() = digit(x) and x % 2 == 1")
    ctx.run()
    assert found(ctx, "odd") == close({(): 0.5})


def test_tensors_as_tags() -> None:
    p = torch.tensor([0.5, 0.25], dtype=torch.float64, requires_grad=True)
    ctx = raw()
    ctx.add_relation("edge", (int, int))
    ctx.add_facts("edge", [(p[0], (0, 1)), (p[1], (1, 2)), (None, (2, 3))])
    ctx.add_rule("path(a, c) = edge(a, c) or path(a, b) and edge(b, c)")
    ctx.run()
    tags = {row: tag for tag, row in ctx.relation("path")}
    assert float(tags[0, 3]) == close(0.125)
    tags[0, 3].backward()
    assert p.grad is not None
    assert p.grad.tolist() == close([0.25, 0.5])


@pytest.mark.parametrize("tag", [0.4, (0.4, None), torch.tensor(0.4, dtype=torch.float64)])
def test_a_rule_with_a_tag(tag: Any) -> None:
    ctx = raw()
    ctx.add_relation("speaks", (str, str))
    ctx.add_facts("speaks", [(0.5, ("ann", "chinese"))])
    ctx.add_rule('born_in(a, "china") = speaks(a, "chinese")', tag=tag)
    ctx.run()
    assert found(ctx, "born_in") == close({("ann", "china"): 0.2})


@pytest.mark.parametrize("options", EQUAL)
def test_probabilities_in_the_text(options: dict[str, Any]) -> None:
    ctx = raw(**options)
    ctx.add_program(
        """
        rel weather = {0.2::"sun"; 0.8::"rain"}
        rel 0.5::late(x) = person(x) and weather("rain")
        rel person = {"ann", 0.5::"bob"}
        rel count(n) = n := count(x: late(x))
        rel nobody() = not late(_)
        """
    )
    ctx.run()
    assert found(ctx, "late") == close({"ann": 0.4, "bob": 0.2})
    # Given rain, ann is late with 1/2 and bob with 1/4.
    assert found(ctx, "count") == close({0: 0.2 + 0.8 * 0.375, 1: 0.8 * 0.5, 2: 0.8 * 0.125})
    assert found(ctx, "nobody") == close({(): 0.5})


def test_files(tmp_path: Path) -> None:
    (tmp_path / "part.scl").write_text("rel edge = {0.5::(0, 1), (1, 2)}")
    (tmp_path / "edges.csv").write_text("2,3\n3,4\n")
    (tmp_path / "tags.tsv").write_text("p\ta\tb\n0.25\t4\t5\n")
    file = tmp_path / "main.scl"
    file.write_text(
        """
        import "part.scl"
        rel path(a, c) = edge(a, c) or path(a, b) and (edge(b, c) or more(b, c) or tagged(b, c))
        """
    )
    ctx = raw()
    ctx.add_relation("more", (int, int), load_csv=str(tmp_path / "edges.csv"))
    options = scallopy.io.CSVFileOptions(
        str(tmp_path / "tags.tsv"), deliminator="\t", has_header=True, has_probability=True
    )
    ctx.add_relation("tagged", (int, int), load_csv=options)
    ctx.import_file(str(file))
    ctx.run()
    assert found(ctx, "path")[0, 4] == close(0.5)
    assert found(ctx, "path")[0, 5] == close(0.125)


def test_facts_without_probabilities() -> None:
    ctx = raw()
    ctx.add_relation("edge", (int, int), non_probabilistic=True)
    ctx.add_relation("node", int)
    assert ctx.relation_is_non_probabilistic("edge")
    ctx.set_non_probabilistic("node")
    ctx.set_non_probabilistic(["node"], False)
    assert not ctx.relation_is_non_probabilistic("node")
    ctx.add_facts("edge", [(0, 1), (1, 2)])
    ctx.add_facts("node", [(0.5, (2,))])
    ctx.add_rule("ends(a) = edge(a, b) and node(b)")
    ctx.run()
    assert found(ctx, "ends") == close({1: 0.5})


def test_facts_and_rules_after_a_run() -> None:
    ctx = raw()
    ctx.add_relation("edge", (int, int))
    ctx.add_facts("edge", [(0.5, (0, 1))])
    ctx.add_rule("path(a, c) = edge(a, c)")
    ctx.run()
    assert found(ctx, "path") == close({(0, 1): 0.5})
    ctx.run()
    assert found(ctx, "path") == close({(0, 1): 0.5})
    ctx.add_facts("edge", [(0.5, (1, 2))])
    ctx.add_rule("path(a, c) = path(a, b) and edge(b, c)")
    ctx.run()
    assert found(ctx, "path") == close({(0, 1): 0.5, (1, 2): 0.5, (0, 2): 0.25})


def test_limits() -> None:
    ctx = raw()
    ctx.add_program("rel n = {0} rel n(x + 1) = n(x) and x < 50")
    ctx.set_early_discard(False)
    ctx.set_iter_limit(3)
    ctx.run()
    some = len(found(ctx, "n"))
    assert 3 <= some <= 5
    ctx.set_iter_limit(None)
    ctx.run()
    assert len(found(ctx, "n")) == 51


def test_what_there_is() -> None:
    ctx = raw()
    ctx.add_program("type edge(from: i32, to: i32) rel path(a, c) = edge(a, c)")
    assert ctx.has_relation("path")
    assert not ctx.has_relation("road")
    assert ctx.num_relations() == 2
    assert set(ctx.relations()) == {"edge", "path"}
    assert ctx.num_relations(include_hidden=True) >= 2
    assert ctx.relation_field_names("edge") == ["from", "to"]
    assert not ctx.relation_is_computed("path")
    ctx.add_facts("edge", [(0.5, (0, 1))])
    ctx.run()
    assert ctx.relation_is_computed("path")
    assert ctx.requires_tag()
    assert ctx.is_probabilistic()
    assert ctx.supports_disjunctions()
    assert ctx.add_item("query path") == ["path"]
    assert ctx.add_item("rel road(a) = edge(a, b)") == []


def test_a_batch_of_facts() -> None:
    ctx = raw()
    ctx.add_program("type edge(from: i32, to: i32) rel path(a, c) = edge(a, c)")
    runs = ctx.run_batch({"edge": [[(0.5, (0, 1))], [(0.25, (1, 2))]]}, "path")
    assert [list(run) for run in runs] == [[(0.5, (0, 1))], [(0.25, (1, 2))]]


def test_debugging_does_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    ctx = raw()
    ctx.add_program("rel edge = {0.5::(0, 1)} rel path(a, c) = edge(a, c)")
    ctx.set_debug_front(True)
    ctx.set_debug_back(True)
    ctx.set_debug_ram(True)
    ctx.compile()
    ctx.run()
    assert found(ctx, "path") == close({(0, 1): 0.5})
    assert "path" in ctx.get_front_ir()
    ctx.dump_front_ir()
    assert "path" in capfd.readouterr().out


# Copies


def copies(ctx: Any) -> Iterator[Any]:
    yield ctx.clone()
    yield copy.deepcopy(ctx)
    yield pickle.loads(pickle.dumps(ctx))
    yield scallopy.ScallopContext(fork_from=ctx)


def test_copies() -> None:
    ctx = raw()
    ctx.add_relation("edge", (int, int))
    ctx.add_facts("edge", [(0.5, (0, 1))])
    ctx.add_rule("path(a, c) = edge(a, c) or path(a, b) and edge(b, c)")
    ctx.run()
    for other in copies(ctx):
        assert isinstance(other, scallopy.ScallopContext)
        other.add_facts("edge", [(0.5, (1, 2))])
        other.run()
        assert found(other, "path") == close({(0, 1): 0.5, (1, 2): 0.5, (0, 2): 0.25})
        assert found(ctx, "path") == close({(0, 1): 0.5})
    ctx.run()
    assert found(ctx, "path") == close({(0, 1): 0.5})


def test_copies_under_other_provenances() -> None:
    ctx = raw()
    ctx.add_program("rel a = {0.5::1} rel b(x) = a(x)")
    other = ctx.clone(provenance="sampled")
    other.run()
    assert other.provenance == "sampled"
    assert found(other, "b")[1] == pytest.approx(0.5, abs=0.2)
    with pytest.raises(ByssusError, match="cannot change to provenance 'topkproofs'"):
        ctx.clone(provenance="topkproofs")


def test_a_copy_has_what_was_registered() -> None:
    ctx = raw()
    ctx.register_foreign_function(doubled)
    ctx.register_foreign_predicate(near)
    ctx.add_program("type a(i32) rel b($doubled(x)) = a(x) rel c(y) = a(x) and near(x, y)")
    ctx.add_facts("a", [(0.5, (1,))])
    for other in [ctx, *copies(ctx)]:
        other.run()
        assert found(other, "b") == close({2: 0.5})
        assert found(other, "c") == close({2: 0.25, 3: 0.125})
