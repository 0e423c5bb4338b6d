"""byssus's provenances in contexts and modules of scallopy itself."""

# Without `from __future__ import annotations`, as scallopy reads the annotations themselves.

import copy
import gc
import io
import itertools
import logging
import pickle
import sys
import threading
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
    return {row[0] if len(row) == 1 else row: float(p) for p, row in list(ctx.relation(relation))}


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6)


def digits(batch: int = 3, size: int = 10, count: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, size)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(count)
    ]


def sums(p: Tensor, q: Tensor) -> Tensor:
    """The distribution of the sum, by enumeration."""
    batch, n = p.shape
    result = p.new_zeros(batch, 2 * n - 1)
    for i, j in itertools.product(range(n), repeat=2):
        result = result + torch.nn.functional.one_hot(torch.tensor(i + j), 2 * n - 1) * (
            p[:, i] * q[:, j]
        ).unsqueeze(1)
    return result


@scallopy.foreign_function
def doubled(x: int) -> scallopy.i32:
    return 2 * x


@scallopy.foreign_predicate
def near(a: int) -> scallopy.Facts[float, int]:
    yield 0.5, (a + 1,)
    yield 0.25, (a + 2,)


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
    assert tags[0, 3].item() == close(0.125)
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
    (tmp_path / "tags.csv").write_text("p\ta\tb\n0.25\t4\t5\n")
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
        str(tmp_path / "tags.csv"), deliminator="\t", has_header=True, has_probability=True
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
    ctx.load_stdlib()
    ctx.add_rule("near(x) = edge(x, y) and soft_eq<f32>(x as f32, x as f32)")
    ctx.run()
    assert found(ctx, "near") == close({0: 0.5})


def test_what_scallop_does_not_exchange() -> None:
    ctx = raw()
    ctx.add_program('type day(DateTime) rel later(x + d"1 day") = day(x)')
    ctx.add_facts("day", [(0.5, ("2020-01-01",))])
    ctx.run()
    assert found(ctx, "later") == close({"2020-01-02 00:00:00 UTC": 0.5})
    with pytest.raises(ByssusError, match="runs on the embedded engine"):
        ctx.get_front_ir()


def test_any_thread_may_collect_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    ctx = raw()
    ctx.add_program("rel a = {0.5::1} rel b(x) = a(x)")
    ctx.run()
    ctx.itself = ctx
    del ctx
    # Scallop's own panic where another thread drops them.
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()
    assert unraisable == []


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
    for other in [ctx, ctx.clone(), copy.deepcopy(ctx)]:
        other.run()
        assert found(other, "b") == close({2: 0.5})
        assert found(other, "c") == close({2: 0.25, 3: 0.125})


# Forward functions


def test_a_module() -> None:
    logits = digits()
    p, q = (x.softmax(-1) for x in logits)
    result = sum_module()(digit_1=p, digit_2=q)
    expected = sums(p, q)
    assert result.shape == (3, 19)
    assert torch.allclose(result, expected, atol=1e-6)
    weights = torch.linspace(0, 1, 19, dtype=torch.float64) ** 2
    grads = torch.autograd.grad((result * weights).sum(), logits, retain_graph=True)
    wanted = torch.autograd.grad((expected * weights).sum(), logits)
    for grad, other in zip(grads, wanted, strict=True):
        assert torch.allclose(grad, other, atol=1e-6)


@pytest.mark.parametrize("dispatch", ["single", "serial", "parallel"])
def test_there_is_no_warning(dispatch: str, caplog: pytest.LogCaptureFixture) -> None:
    p, q = (x.softmax(-1) for x in digits())
    with caplog.at_level(logging.WARNING):
        result = sum_module(dispatch=dispatch)(digit_1=p, digit_2=q)
    assert torch.allclose(result, sums(p, q), atol=1e-6)
    assert not caplog.records


def test_by_name() -> None:
    p, q = (x.softmax(-1) for x in digits())
    module = sum_module(custom_provenance=None, provenance="exact")
    assert torch.allclose(module(digit_1=p, digit_2=q), sums(p, q), atol=1e-6)


PROGRAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "negation": (
        """
        type digit_1(a: i32), digit_2(b: i32)
        rel out(x) = digit_1(x) and not digit_2(x)
        """,
        {"out": range(10)},
    ),
    "count": (
        """
        type digit_1(a: i32), digit_2(b: i32)
        rel even(0, x) = digit_1(x) and x % 2 == 0
        rel even(1, x) = digit_2(x) and x % 2 == 0
        rel out(n) = n := count(i, x: even(i, x))
        """,
        {"out": [0, 1, 2]},
    ),
    "a probability in the text": (
        """
        type digit_1(a: i32), digit_2(b: i32)
        rel 0.3::out(x) = digit_1(x)
        rel out(x) = digit_2(x) and digit_1(y) and y < x
        """,
        {"out": range(10)},
    ),
    "recursion": (
        """
        type digit_1(a: i32), digit_2(b: i32)
        rel out(x) = digit_1(x)
        rel out((x + y) % 10) = out(x) and digit_2(y)
        """,
        {"out": range(10)},
    ),
    "two outputs": (
        """
        type digit_1(a: i32), digit_2(b: i32)
        rel less() = digit_1(a) and digit_2(b) and a < b
        rel most(x) = x := max(x: digit_1(x) or digit_2(x))
        """,
        {"less": (), "most": list(range(10))},
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_are_those_of_the_embedded_engine(name: str) -> None:
    program, outputs = PROGRAMS[name]
    inputs = {"digit_1": range(10), "digit_2": range(10)}
    results, grads = [], []
    for embedded in (False, True):
        logits = digits()
        p, q = (x.softmax(-1) for x in logits)
        if embedded:
            module = byssus_scallop.Module(
                program=program,
                provenance="exact",
                backend="embedded",
                input_mappings=inputs,
                output_mappings=outputs,
            )
        else:
            module = sum_module(program=program, output_mappings=outputs)
        result = module(digit_1=p, digit_2=q)
        parts = list(result.values()) if isinstance(result, dict) else [result]
        together = torch.cat([part.reshape(3, -1) for part in parts], 1)
        weights = torch.linspace(1, 2, together.shape[1], dtype=torch.float64)
        (together * weights).sum().backward()
        results.append(together)
        grads.append([x.grad for x in logits])
    assert torch.allclose(*results, atol=1e-6)
    assert results[0].sum() > 0.5
    for grad, other in zip(*grads, strict=True):
        assert torch.allclose(grad, other, atol=1e-6)


@pytest.mark.parametrize(
    ("mapping", "shape"),
    [
        (range(3), (3, 3)),
        ([0, 1, 2], (3, 3)),
        ([(0,), (2,)], (3, 2)),
        ((1,), (3,)),
        (None, (3, 3)),
    ],
    ids=["range", "values", "tuples", "a tuple", "none"],
)
def test_output_mappings(mapping: Any, shape: tuple[int, ...]) -> None:
    ctx = raw()
    ctx.add_relation("digit", int, input_mapping=range(3))
    ctx.add_rule("out(x) = digit(x)")
    (p,) = (x.softmax(-1) for x in digits(size=3, count=1))
    for options in (
        {"output": "out", "output_mapping": mapping},
        {"output_mappings": {"out": mapping}},
    ):
        result = ctx.forward_function(dispatch="serial", **options)(digit=p)
        if mapping is None:
            rows, result = result
            order = [row[0] for row in rows]
        else:
            order = [row[0] if isinstance(row, tuple) else row for row in mapping]
        expected = p[:, order]
        assert result.shape == shape
        assert torch.allclose(result, expected.reshape(shape), atol=1e-6)


def test_outputs_of_each_example() -> None:
    ctx = raw()
    ctx.add_program(SUM + "rel product_2(a * b) = digit_1(a) and digit_2(b)")
    for name in ("digit_1", "digit_2"):
        ctx.set_input_mapping(name, range(10))
    p, q = (x.softmax(-1) for x in digits(batch=2))
    forward = ctx.forward_function()
    result = forward(
        output_relations=["sum_2", "product_2"],
        output_mappings={"sum_2": range(19), "product_2": [0, 81]},
        digit_1=p,
        digit_2=q,
    )
    assert torch.allclose(result["sum_2"][0], sums(p, q)[0], atol=1e-6)
    assert torch.allclose(result["product_2"][1, 1], p[1, 9] * q[1, 9], atol=1e-6)
    same = forward(output_relations="sum_2", output_mappings=list(range(19)), digit_1=p, digit_2=q)
    assert torch.allclose(same, sums(p, q), atol=1e-6)


def test_lists_of_facts() -> None:
    ctx = raw()
    ctx.add_relation("edge", (int, int))
    ctx.add_relation("start", int, non_probabilistic=True)
    ctx.add_rule("reach(x) = start(x) or reach(y) and edge(y, x)")
    forward = ctx.forward_function("reach", [1, 2])
    p = torch.tensor([0.5, 0.25, 0.75], dtype=torch.float64, requires_grad=True)
    result = forward(
        start=[[(0,)], [0]],
        edge=[[(p[0], (0, 1)), (p[1], (1, 2))], [(p[2], (0, 2)), (0.25, (0, 1))]],
        disjunctions={"edge": [[], [[0, 1]]]},
    )
    assert result.tolist() == [close([0.5, 0.125]), close([0.25, 0.75])]
    result.sum().backward()
    assert p.grad is not None
    assert p.grad.tolist() == close([1.25, 0.5, 1.0])


MAPPINGS: dict[str, tuple[str, Any, dict[str, Any], tuple[int, ...]]] = {
    "range": ("i32", range(4), {}, (4,)),
    "alternatives": ("i32", range(4), {"disjunctive": True}, (4,)),
    "some": ("i32", range(4), {"retain_k": 2}, (4,)),
    "likely ones": ("i32", range(4), {"retain_threshold": 0.3}, (4,)),
    "nested": ("i32, i32", [[(0, 0), (0, 1)], [(1, 0), (1, 1)]], {"disjunctive_dim": 1}, (2, 2)),
    "dictionary": ("i32, String", {0: range(2), 1: ["a", "b"]}, {}, (2, 2)),
    "rows": ("i32, String", {0: range(2), 1: ["a", "b"]}, {"retain_k": 1, "sample_dim": 1}, (2, 2)),
    "tuple": ("i32, i32", (3, 4), {}, ()),
    "value": ("i32", 3, {}, ()),
}


@pytest.mark.parametrize("name", MAPPINGS)
def test_input_mappings(name: str) -> None:
    types, mapping, options, shape = MAPPINGS[name]
    generator = torch.Generator().manual_seed(1)
    tensor = torch.rand((3, *shape), generator=generator, dtype=torch.float64)
    if options.get("disjunctive") or "disjunctive_dim" in options:
        tensor = tensor / (tensor.sum(-1, keepdim=True) * 1.25)
    free = ", ".join("xyz"[: types.count(",") + 1])
    program = (
        f"type r({types}) rel out({free}) = r({free}) rel two(n) = n := count({free}: r({free}))"
    )
    results = []
    for scallops in (True, False):
        if scallops:
            ctx = raw()
            map_ = scallopy.Map(mapping, **options)
        else:
            ctx = byssus_scallop.ScallopContext(provenance="exact", backend="embedded")
            map_ = byssus_scallop.Map(mapping, **options)
        ctx.add_program(program)
        ctx.set_input_mapping("r", map_)
        assert ctx.has_input_mapping("r")
        forward = ctx.forward_function(output_mappings={"two": [0, 1, 2], "out": None})
        results.append(forward(r=tensor))
    assert torch.allclose(results[0]["two"], results[1]["two"], atol=1e-6)
    rows, values = results[0]["out"]
    others = results[1]["out"]
    assert sorted(rows) == sorted(others[0])
    order = [others[0].index(row) for row in rows]
    assert torch.allclose(values, others[1][:, order], atol=1e-6)


def test_options_of_input_mappings() -> None:
    ctx = raw()
    ctx.add_relation("digit", int, input_mapping=scallopy.Map(range(4)), retain_topk=2)
    ctx.add_rule("out(x) = digit(x)")
    tensor = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    forward = ctx.forward_function("out", range(4))
    assert forward(digit=[[(p, i) for i, p in enumerate(tensor[0])]]).tolist() == [
        close([0, 0, 0.3, 0.4])
    ]
    ctx.set_sample_topk_facts("digit", 1)
    forward = ctx.forward_function("out", range(4))
    assert forward(digit=tensor).tolist() == [close([0, 0, 0, 0.4])]
    ctx.set_input_mapping("digit", range(4), disjunctive=True, retain_k=2)
    forward = ctx.forward_function("out", range(4))
    assert forward(digit=tensor).tolist() == [close([0, 0, 0.3, 0.4])]


def test_all_options_of_a_module(tmp_path: Path) -> None:
    file = tmp_path / "sum.scl"
    file.write_text("rel sum_2(a + b + c) = digit_1(a) and digit_2(b) and carry(c)")
    module = scallopy.Module(
        file=str(file),
        relations=[("digit_1", int), ("digit_2", int), ("carry", (int,))],
        rules=["big() = sum_2(x) and x > 10"],
        facts={"carry": [(None, (1,))]},
        custom_provenance=byssus_scallop.provenance("exact"),
        non_probabilistic=["digit_2"],
        input_mappings={"digit_1": range(10)},
        output_relation="big",
        output_mapping=(),
        k=3,
        train_k=2,
        test_k=5,
        wmc_with_disjunctions=True,
        early_discard=False,
        iter_limit=10,
        retain_topk={"digit_1": 2},
        sparse_jacobian=True,
    )
    p = torch.tensor([[0.0] * 7 + [0.1, 0.3, 0.6]])
    assert module(digit_1=p, digit_2=[[(1,)]]).tolist() == close([0.6])


def test_a_module_trains() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 10), torch.nn.Softmax(-1))
    module = sum_module()
    together = torch.nn.ModuleList([network, module])
    x, y = torch.eye(4)[[0, 1, 2, 3]], torch.eye(4)[[1, 2, 3, 0]]
    target = torch.nn.functional.one_hot(torch.tensor([3, 5, 7, 5]), 19).float()
    optimizer = torch.optim.Adam(together.parameters(), 0.1)
    losses = []
    for _ in range(60):
        together.train()
        result = module(digit_1=network(x), digit_2=network(y))
        loss = torch.nn.functional.binary_cross_entropy(result, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    together.eval()
    with torch.no_grad():
        assert module(digit_1=network(x), digit_2=network(y)).argmax(1).tolist() == [3, 5, 7, 5]
    assert losses[-1] < losses[0] / 5


def test_copies_of_a_module() -> None:
    p, q = (x.softmax(-1) for x in digits())
    module = sum_module()
    expected = sums(p, q)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    others = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
        module.to("cpu").double().eval(),
    ]
    for other in others:
        assert torch.allclose(other(digit_1=p, digit_2=q), expected, atol=1e-6)
    assert module.state_dict() == {}


def test_results_go_to_the_device_of_the_module() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no second device")
    p, q = (x.softmax(-1) for x in digits())
    result = sum_module().to("cuda")(digit_1=p.cuda(), digit_2=q.cuda())
    assert result.device.type == "cuda"
    assert torch.allclose(result.cpu(), sums(p, q), atol=1e-6)


@pytest.mark.parametrize("name", ["sampled", "mixed"])
def test_sampled_modules(name: str) -> None:
    p, q = (x.softmax(-1).float() for x in digits(seed=2))
    generator = torch.Generator().manual_seed(0)
    module = sum_module(
        custom_provenance=byssus_scallop.provenance(name, samples=20000, generator=generator)
    )
    result = module(digit_1=p, digit_2=q)
    assert result.dtype == torch.float32
    expected = sums(p, q)
    assert torch.allclose(result / result.sum(1, keepdim=True), expected, atol=0.03)
    result[:, 3].sum().backward()


# Foreign functions, predicates and attributes of scallopy

NUMBER = scallopy.GenericTypeParameter(scallopy.Number)


@scallopy.foreign_function
def total(*numbers: NUMBER) -> NUMBER:
    return sum(numbers)


@scallopy.foreign_function
def shout(text: str, times: scallopy.usize = None) -> str:
    if text == "bad":
        raise ValueError("it is bad")
    return text.upper() * (times or 1)


@scallopy.foreign_function(name="negated", arg_types=[], ret_type=bool)
def _negated() -> bool:
    return False


@scallopy.foreign_predicate
def between(a: scallopy.usize, b: scallopy.usize) -> scallopy.Facts[None, scallopy.usize]:
    yield from range(a, b)


@scallopy.foreign_predicate(output_arg_types=[], tag_type=scallopy.Tensor)
def likely(a: int) -> Any:
    yield torch.tensor(1 / (1 + a)), ()


@scallopy.foreign_predicate
def failing(a: int) -> scallopy.Facts[None, int]:
    yield a
    raise ValueError("it fails")


@scallopy.foreign_attribute
def adds(item: Any, amount: int) -> Any:
    (type_,) = item.function_decl_arg_types()
    assert type_.is_i32(), "it stands on a function of one i32"

    @scallopy.foreign_function(name=item.function_decl_name())
    def add(x: scallopy.i32) -> scallopy.i32:
        return x + amount

    return add


@scallopy.foreign_attribute
def joins(item: Any, separator: str = ",", *, tag: float | None = None) -> Any:
    relation = item.relation_decl(0)
    types = [binding.ty for binding in relation.arg_bindings]

    @scallopy.foreign_predicate(
        name=relation.name.name,
        input_arg_types=types[:-1],
        output_arg_types=types[-1:],
        tag_type=None if tag is None else float,
    )
    def join(*texts: str) -> Any:
        joined = (separator.join(texts),)
        yield joined if tag is None else (tag, joined)

    return join


@scallopy.foreign_attribute
def squares(item: Any) -> Any:
    (argument,) = item.function_decl_arg_types()

    @scallopy.foreign_function(
        name=item.function_decl_name(), ret_type=item.function_decl_ret_type()
    )
    def square(x: argument) -> Any:
        return x * x

    return square


@scallopy.foreign_attribute
def leaves(item: Any, what: str) -> Any:
    """Nothing, the item, or an error."""
    if what == "error":
        return scallopy.attribute.ErrorAction("it is an error")
    return [scallopy.attribute.RemoveItemAction()] if what == "out" else None


def registered(ctx: Any) -> Any:
    for function in (total, shout, doubled, _negated):
        ctx.register_foreign_function(function)
    for predicate in (near, between, likely, failing):
        ctx.register_foreign_predicate(predicate)
    for attribute in (adds, joins, squares, leaves):
        ctx.register_foreign_attribute(attribute)
    return ctx


def inside(**options: Any) -> Any:
    return byssus_scallop.ScallopContext(backend="scallopy", **options)


@pytest.fixture(params=["raw", "inside"])
def plugged(request: pytest.FixtureRequest) -> Any:
    """A context with all of these."""
    return registered(raw() if request.param == "raw" else inside(provenance="exact"))


def test_foreign_functions(plugged: Any) -> None:
    plugged.add_program(
        """
        rel a = {0.5::1, 0.25::2}
        rel word = {"hi", 0.5::"bad"}
        rel b($total(x, 1, x)) = a(x)
        rel f($total(1.5, y)) = y == 2.0
        rel c($shout(w), $shout(w, 2)) = word(w)
        rel 0.5::d($doubled(x)) = a(x) and $negated() == false
        """
    )
    plugged.run()
    assert found(plugged, "b") == close({3: 0.5, 5: 0.25})
    assert found(plugged, "f") == close({3.5: 1})
    assert found(plugged, "c") == close({("HI", "HIHI"): 1})
    assert found(plugged, "d") == close({2: 0.25, 4: 0.125})
    assert [why.rpartition(": ")[2] for why in plugged.dropped] == ["it is bad"]


def test_foreign_predicates(plugged: Any) -> None:
    plugged.add_program(
        """
        type a(usize)
        rel a = {0.5::1, 0.25::2}
        rel b(x, y) = a(x) and between(0, x, y)
        rel 0.5::c(y) = a(x) and near(x as i32, y)
        rel d(n) = n := count(y: c(y))
        rel e(x) = a(x) and likely(x as i32)
        rel f(y) = a(x) and failing(x as i32, y)
        """
    )
    plugged.run()
    assert found(plugged, "b") == close({(1, 0): 0.5, (2, 0): 0.25, (2, 1): 0.25})
    # Of each way to a tuple half are there: one coin for each x and y.
    one, two, three, four = 1, 0.5 * 0.5 * 0.5, 0.5 * 0.25 * 0.5, 0.25 * 0.25 * 0.5
    three = 1 - (1 - three) * (one - 0.25 * 0.5 * 0.5)
    assert found(plugged, "c") == close({2: two, 3: three, 4: four})
    assert found(plugged, "e") == close({1: 0.25, 2: 0.25 / 3})
    assert found(plugged, "f") == {}
    assert sum(found(plugged, "d").values()) == close(1)
    embedded = byssus_scallop.ScallopContext(provenance="exact", backend="embedded")
    embedded.add_program(
        """
        rel a = {0.5::1, 0.25::2}
        rel n = {0.5::(1, 2), 0.25::(1, 3), 0.5::(2, 3), 0.25::(2, 4)}
        rel 0.5::c(y) = a(x) and n(x, y)
        rel d(n) = n := count(y: c(y))
        """
    )
    embedded.run()
    assert found(plugged, "d") == close(found(embedded, "d"))
    assert any("it fails" in why for why in plugged.dropped)


def test_foreign_attributes(plugged: Any) -> None:
    plugged.add_program(
        """
        type Word = String
        type Number = i32
        @adds(3) type $more(x: i32) -> i32
        @squares type $square(x: Number) -> Number
        @joins type join(bound x: Word, bound y: Word, z: Word)
        @joins("-", tag=0.5) type dashed(bound x: String, bound y: String, z: String)
        @leaves("out") rel a = {5}
        @leaves("in") rel a = {0.5::1}
        rel word = {"x", 0.5::"y"}
        rel b($more(x)) = a(x)
        rel s($square($more(x))) = a(x)
        rel c(z) = word(x) and word(y) and x != y and join(x, y, z)
        rel d(z) = word(x) and word(y) and x != y and dashed(x, y, z)
        """
    )
    plugged.run()
    assert found(plugged, "a") == close({1: 0.5})
    assert found(plugged, "b") == close({4: 0.5})
    assert found(plugged, "s") == close({16: 0.5})
    assert found(plugged, "c") == close({"x,y": 0.5, "y,x": 0.5})
    assert found(plugged, "d") == close({"x-y": 0.25, "y-x": 0.25})


def test_with_black_boxes(plugged: Any, tmp_path: Path) -> None:
    (tmp_path / "leaf.py").write_text("def leaf(x):\n    return {x: 0.5, x + 1: 0.5}\n")
    (tmp_path / "main.scl").write_text(
        """
        @adds(3) type $more(x: i32) -> i32
        @blackbox("leaf.py:leaf") type leaf(bound x: i32, y: i32)
        type a(i32)
        rel 0.5::b($more(y)) = a(x) and leaf(x, y)
        rel c($doubled(y)) = b(x) and near(x, y)
        rel most(y) = y := max(y: c(y))
        """
    )
    plugged.import_file(str(tmp_path / "main.scl"))
    plugged.add_facts("a", [(0.5, (1,))])
    plugged.run()
    assert found(plugged, "b") == close({4: 0.125, 5: 0.125})
    # From 4 come 5 and 6, from 5 come 6 and 7; 4 and 5 exclude one another.
    assert found(plugged, "c") == close({10: 0.0625, 12: 0.03125 + 0.0625, 14: 0.03125})
    assert found(plugged, "most") == close(
        {10: 0.125 * 0.5 * 0.75, 12: 0.125 * 0.25 + 0.125 * 0.5 * 0.75, 14: 0.03125}
    )


def test_attributes_that_fail(plugged: Any) -> None:
    program = "rel a = {1}\n@adds(3) type $more(x: u32) -> i32"
    message = r"(?s)@adds: it stands on a function of one i32\n.*line 2"
    with pytest.raises(ProgramError, match=message):
        plugged.add_program(program)
    with pytest.raises(ProgramError, match="missing 1 required positional argument: 'amount'"):
        plugged.add_program("@adds type $more(x: i32) -> i32")
    with pytest.raises(ProgramError, match="it is an error"):
        plugged.add_program('@leaves("error") rel a = {1}')
    assert not plugged.has_relation("a")


def test_tags_that_are_refused(plugged: Any) -> None:
    @scallopy.foreign_predicate(
        input_arg_types=[], output_arg_types=[int], tag_type=scallopy.exclusive_prob
    )
    def choice() -> Any:
        yield (0.5, 1), (1,)

    with pytest.raises(ByssusError, match="choice has tags of type 'exclusive-prob'"):
        plugged.register_foreign_predicate(choice)


def test_things_that_are_not_registered(plugged: Any) -> None:
    with pytest.raises(ByssusError, match="is no foreign function"):
        plugged.register_foreign_function(len)
    with pytest.raises(ByssusError, match="is no foreign predicate"):
        plugged.register_foreign_predicate(len)
    with pytest.raises(ByssusError, match="is no attribute"):
        plugged.register_foreign_attribute(len)
    with pytest.raises(ByssusError, match=r"there is a function \$total already"):
        plugged.register_foreign_function(total)


# Black boxes


def test_failed_calls(tmp_path: Path) -> None:
    (tmp_path / "leaf.py").write_text("def half(x):\n    return 10 // x\n")
    file = tmp_path / "main.scl"

    def made(on_error: str) -> Any:
        file.write_text(
            f"""
            @blackbox("leaf.py:half", on_error="{on_error}") type half(bound x: i32, y: i32)
            type a(i32)
            rel b(y) = a(x) and half(x, y)
            """
        )
        ctx = raw()
        ctx.import_file(str(file))
        ctx.add_facts("a", [(0.5, (0,)), (0.25, (5,))])
        return ctx

    with pytest.raises(BlackBoxError, match="half"):
        made("raise").run()
    ctx = made("discard")
    ctx.run()
    # Where 0 is asked the whole world is lost.
    assert found(ctx, "b") == close({2: 0.125})
    assert ctx.lost == close({"b": 0.5})
    assert ctx.plan() is not None


def test_functions_of_python() -> None:
    calls = []

    def halves(x: int) -> int:
        calls.append(x)
        return x // 2

    ctx = raw()
    ctx.register_blackbox(halves)
    ctx.add_program("@blackbox type $halves(x: i32) -> i32 type a(i32) rel b($halves(x)) = a(x)")
    ctx.add_facts("a", [(0.5, (4,)), (0.25, (5,))], [[0, 1]])
    for _ in range(2):
        ctx.run()
        assert found(ctx, "b") == close({2: 0.75})
    assert sorted(calls) == [4, 5]
    distribution = ctx.distribution("b")
    assert float(distribution.probs.sum()) == close(0.75)


# What is refused, and what is left alone


def test_names_and_options() -> None:
    ctx = raw("sampled", samples=1)
    ctx.add_program("rel a = {0.5::1} rel b(x) = a(x)")
    ctx.run()
    assert found(ctx, "b").get(1, 0.0) in (0.0, 1.0)  # in the one world
    with pytest.raises(ByssusError, match="byssus has exact, sampled, mixed, auto"):
        byssus_scallop.provenance("topkproofs")
    with pytest.raises(ByssusError, match="samples"):
        byssus_scallop.provenance("sampled", samples=0)


@pytest.mark.parametrize(
    ("does", "message"),
    [
        (lambda ctx: ctx.add_facts("edges", [(0.5, (0, 1))]), "did you mean edge"),
        (lambda ctx: ctx.add_facts("edge", [(1.5, (0, 1))]), "1.5"),
        (lambda ctx: ctx.add_facts("edge", [(0.5, ("a", 1))]), "'a'"),
        (lambda ctx: ctx.set_input_mapping("edge", range(3)), "edge"),
        (lambda ctx: ctx.forward_function("paths"), "did you mean path"),
        (lambda ctx: ctx.add_program("rel path(x, y) = edge(x)"), "edge"),
        (lambda ctx: ctx.set_non_probabilistic("edges"), "did you mean edge"),
        (lambda ctx: ctx.set_sample_topk_facts("edge", 3), "no input mapping"),
        (lambda ctx: ctx.forward_function("path", dispatch="other"), "dispatch='other'"),
    ],
)
def test_mistakes(does: Callable[[Any], Any], message: str) -> None:
    ctx = raw()
    ctx.add_program("type edge(i32, i32) rel path(x, y) = edge(x, y)")

    def run() -> None:
        does(ctx)
        ctx.run()

    with pytest.raises(ByssusError, match=message):
        run()


def test_scallops_own_contexts_stay_as_they_are() -> None:
    byssus_scallop.provenance("exact")
    ctx = scallopy.ScallopContext(provenance="minmaxprob")
    assert type(ctx) is scallopy.ScallopContext
    ctx.add_relation("edge", (int, int))
    ctx.add_facts("edge", [(0.5, (0, 1)), (0.25, (1, 2))])
    ctx.add_rule("path(a, c) = edge(a, c) or path(a, b) and edge(b, c)")
    ctx.run()
    assert found(ctx, "path") == close({(0, 1): 0.5, (1, 2): 0.25, (0, 2): 0.25})
    for other in (ctx.clone(), copy.deepcopy(ctx), pickle.loads(pickle.dumps(ctx))):
        assert type(other) is scallopy.ScallopContext
        other.run()
        assert found(other, "path")[0, 2] == close(0.25)
    module = sum_module(provenance="diffnandmultprob2", custom_provenance=None, dispatch="serial")
    p, q = (torch.tensor([[0.0] * 3 + [1.0] + [0.0] * 6]) for _ in range(2))
    assert module(digit_1=p, digit_2=q)[0, 6] == close(1)


def test_every_public_method_is_tested() -> None:
    text = Path(__file__).read_text()
    public = {name for name in vars(scallopy.ScallopContext) if not name.startswith("_")}
    public.remove("blackboxes")  # byssus's
    assert [name for name in public if f".{name}(" not in text] == []


def test_tags_of_a_batch_are_collated() -> None:
    p = torch.tensor(0.25, requires_grad=True)
    batch = byssus_scallop.provenance("exact").collate([[p, None], [0.5, p * p]])
    batch.sum().backward()
    assert batch.tolist() == [[0.25, 0], [0.5, 0.0625]]
    assert p.grad == 1.5
