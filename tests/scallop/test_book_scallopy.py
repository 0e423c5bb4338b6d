"""The pages of Scallop's book on its Python binding, and the readmes of its repository."""

import itertools
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import byssus_scallop as scallopy
from byssus import ByssusError
from scallop.running import Case, check, parametrized, probabilities, run, tuples

EDGE_PATH = """
  rel edge = {(0, 1), (1, 2)}
  rel path(a, c) = edge(a, c) or path(a, b) and edge(b, c)
"""
SUM_2 = """
  type digit_1(a: i32), digit_2(b: i32)
  rel sum_2(a + b) = digit_1(a) and digit_2(b)
"""

# Getting started, context


@pytest.mark.parametrize("name", ["Context", "ScallopContext"])
def test_getting_started(name: str) -> None:
    ctx = getattr(scallopy, name)()
    ctx.add_relation("edge", (int, int))
    ctx.add_facts("edge", [(1, 2), (2, 3)])
    ctx.add_rule("path(a, c) = edge(a, c) or path(a, b) and edge(b, c)")
    ctx.run()
    assert list(ctx.relation("path")) == [(1, 2), (1, 3), (2, 3)]


def test_readme_of_the_binding() -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_relation("edge", (int, int))
    ctx.add_facts("edge", [(0, 1), (1, 2), (2, 3)])
    ctx.add_rule("path(a, c) = edge(a, c)")
    ctx.add_rule("path(a, c) = edge(a, b), path(b, c)")
    ctx.run()
    paths = ctx.relation("path")
    assert [f"elem: ({s}, {t})" for (s, t) in paths] == [
        "elem: (0, 1)",
        "elem: (0, 2)",
        "elem: (0, 3)",
        "elem: (1, 2)",
        "elem: (1, 3)",
        "elem: (2, 3)",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"provenance": "unit"},
        {"provenance": "minmaxprob"},
        {"provenance": "diffminmaxprob"},
        {"provenance": "topkproofs", "k": 5},
        {"provenance": "exact"},
    ],
    ids=lambda options: options["provenance"],
)
def test_configurations(options: dict[str, object]) -> None:
    ctx = scallopy.ScallopContext(**options)
    assert ctx.provenance == options["provenance"]
    ctx.add_program(EDGE_PATH)
    ctx.run()
    assert tuples(ctx, "path") == [(0, 1), (0, 2), (1, 2)]


def test_import_file(tmp_path: Path) -> None:
    path = tmp_path / "edge_path.scl"
    path.write_text(EDGE_PATH)
    ctx = scallopy.ScallopContext()
    ctx.import_file(str(path))
    ctx.run()
    assert list(ctx.relation("path")) == [(0, 1), (0, 2), (1, 2)]


def test_types_of_relations() -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_relation("my_relation", (scallopy.usize, "f64", int))
    ctx.add_relation("python", (int, bool, float, str))
    ctx.add_facts("my_relation", [(3, 0.1, -3)])
    ctx.add_facts("python", [(-1, True, 0.1, "text")])
    ctx.run()
    assert list(ctx.relation("my_relation")) == [(3, 0.1, -3)]
    # 0.1 is an f32 there.
    assert list(ctx.relation("python")) == [(-1, True, torch.tensor(0.1).item(), "text")]
    with pytest.raises((ByssusError, OverflowError)):
        ctx.add_facts("my_relation", [(-3, 0.1, -3)])


def test_facts_of_one_column() -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_relation("digit", int)
    ctx.add_facts("digit", [1, 2, 3])
    ctx.add_facts("digit", [(4,)])
    ctx.run()
    assert list(ctx.relation("digit")) == [(1,), (2,), (3,), (4,)]


@pytest.mark.parametrize("provenance", ["exact", "minmaxprob", "addmultprob", "topkproofs"])
def test_facts_with_probabilities(provenance: str) -> None:
    ctx = scallopy.ScallopContext(provenance=provenance)
    ctx.add_relation("digit", int)
    ctx.add_relation("color", (str, str))
    ctx.add_facts("digit", [(0.1, 1), (0.2, 2), (0.7, (3,))])
    ctx.add_facts("color", [(0.1, ("A", "blue")), (0.2, ("A", "green")), (None, ("B", "red"))])
    ctx.run()
    assert probabilities(ctx, "digit") == pytest.approx({1: 0.1, 2: 0.2, 3: 0.7})
    assert probabilities(ctx, "color") == pytest.approx(
        {("A", "blue"): 0.1, ("A", "green"): 0.2, ("B", "red"): 1.0}
    )


@pytest.mark.parametrize("provenance", ["exact", "topkproofs"])
def test_facts_that_are_alternatives(provenance: str) -> None:
    ctx = scallopy.ScallopContext(provenance=provenance)
    ctx.add_relation("digit", (str, int))
    facts = [(0.4, ("A", 0)), (0.6, ("A", 1)), (0.3, ("B", 0)), (0.7, ("B", 1))]
    ctx.add_facts("digit", facts, disjunctions=[[0, 1], [2, 3]])
    ctx.add_rule('both() = digit("A", 0) and digit("A", 1)')
    ctx.add_rule('pair() = digit("A", 0) and digit("B", 1)')
    ctx.run()
    assert not any(probabilities(ctx, "both").values())
    assert probabilities(ctx, "pair") == pytest.approx({(): 0.28})


def test_facts_without_tags_among_tagged_ones() -> None:
    ctx = scallopy.ScallopContext(provenance="minmaxprob")
    ctx.add_relation("edge", (int, int), non_probabilistic=True)
    ctx.add_facts("edge", [(0, 1), (1, 2)])
    assert ctx.relation_is_non_probabilistic("edge")
    ctx.run()
    assert list(ctx.relation("edge")) == [(1.0, (0, 1)), (1.0, (1, 2))]


def test_tropical_facts() -> None:
    ctx = scallopy.ScallopContext(provenance="tropical")
    ctx.add_relation("edge", (int, int))
    ctx.add_facts("edge", [(1, (1, 2)), (4, (2, 3)), (9, (1, 3))])
    ctx.add_rule("path(a, c) = edge(a, c) or path(a, b) and edge(b, c)")
    ctx.run()
    assert list(ctx.relation("path")) == [(1, (1, 2)), (5, (1, 3)), (4, (2, 3))]


def test_facts_after_a_run() -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_program(EDGE_PATH.replace("rel edge = {(0, 1), (1, 2)}", "type edge(i32, i32)"))
    ctx.add_facts("edge", [(0, 1)])
    ctx.run()
    assert list(ctx.relation("path")) == [(0, 1)]
    ctx.add_facts("edge", [(1, 2)])
    assert list(ctx.relation("path")) == [(0, 1)]
    ctx.run()
    assert list(ctx.relation("path")) == [(0, 1), (0, 2), (1, 2)]


def test_rule_after_a_run() -> None:
    ctx = run(EDGE_PATH)
    ctx.add_rule("ends(b) = path(_, b)")
    ctx.run()
    check(ctx, {"ends": [1, 2]})


def test_what_there_is() -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_program("type edge(from: i32, i32), node(i32)\nrel node(a) = edge(a, _)")
    assert ctx.has_relation("edge")
    assert not ctx.has_relation("path")
    assert sorted(ctx.relations()) == ["edge", "node"]
    assert ctx.num_relations() == 2
    assert not ctx.relation_is_computed("node")
    ctx.run()
    assert ctx.relation_is_computed("node")
    assert not ctx.requires_tag()
    assert scallopy.ScallopContext(provenance="minmaxprob").requires_tag()


@pytest.mark.parametrize(
    "fault",
    [
        lambda ctx: ctx.add_facts("edg", [(0, 1)]),
        lambda ctx: ctx.add_facts("edge", [(0, 1, 2)]),
        lambda ctx: ctx.add_facts("edge", [(0, "1")]),
        lambda ctx: ctx.add_relation("edge", (int, int)),
        lambda ctx: ctx.add_relation("other", complex),
        lambda ctx: ctx.add_rule("rel_ p(x) = edge(x, y"),
        lambda ctx: ctx.add_program("rel p(x) = edge(y, _)"),
        lambda ctx: ctx.relation("edg"),
        lambda ctx: ctx.relation("edge"),
        lambda ctx: ctx.import_file("nowhere.scl"),
        lambda ctx: ctx.set_non_probabilistic("edg"),
        lambda ctx: ctx.set_input_mapping("edge", range(10)),
        lambda ctx: ctx.register_foreign_function(abs),
        lambda ctx: ctx.register_foreign_predicate(abs),
        lambda ctx: ctx.forward_function("edge"),
        lambda _: scallopy.ScallopContext(provenance="unitt"),
    ],
)
def test_faults(fault: Callable[[object], object]) -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_relation("edge", (int, int))
    # What is a Python type is, in Scallop too, sometimes Python's error.
    with pytest.raises((ByssusError, TypeError, ValueError, IndexError)):
        fault(ctx)


# Branching


def test_branches() -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_relation("edge", (int, int))
    ctx.add_facts("edge", [(0, 1)])
    one = ctx.clone()
    one.add_facts("edge", [(1, 2)])
    one.add_rule("path(a, c) = edge(a, c) or path(a, b) and edge(b, c)")
    one.run()
    two = ctx.clone()
    two.add_relation("node", int)
    two.add_facts("node", [7])
    two.add_rule("node(a) = edge(a, _)")
    two.run()
    ctx.run()
    assert list(one.relation("path")) == [(0, 1), (0, 2), (1, 2)]
    assert list(two.relation("node")) == [(0,), (7,)]
    assert list(ctx.relation("edge")) == list(two.relation("edge")) == [(0, 1)]
    assert not ctx.has_relation("path")
    assert not two.has_relation("path")


def test_clone_with_another_provenance() -> None:
    ctx = scallopy.ScallopContext("topkproofs")
    ctx.add_relation("r", (int, int))
    ctx.add_facts("r", [(0.5, (1, 3)), (0.8, (2, 4))])
    certain = ctx.clone("unit")
    certain.run()
    assert list(certain.relation("r")) == [(1, 3), (2, 4)]
    ctx = scallopy.ScallopContext()
    ctx.add_relation("r", (int, int))
    ctx.add_facts("r", [(1, 3), (2, 4)])
    tagged = ctx.clone("topkproofs")
    tagged.run()
    assert list(tagged.relation("r")) == [(1.0, (1, 3)), (1.0, (2, 4))]


def test_save_and_load() -> None:
    ctx = scallopy.ScallopContext()
    ctx.add_relation("edge", (int, int))
    ctx.add_facts("edge", [(0, 1), (1, 2)])
    ctx.add_rule("path(a, c) = edge(a, c) or path(a, b) and edge(b, c)")
    loaded = pickle.loads(pickle.dumps(ctx))
    loaded.run()
    assert list(loaded.relation("path")) == [(0, 1), (0, 2), (1, 2)]


# Foreign functions and predicates


@scallopy.foreign_function
def my_sum(*args: scallopy.i32) -> scallopy.i32:
    return sum(args)


def test_foreign_function() -> None:
    # The book has `-> int`, a family, which real Scallop refuses as a result.
    ctx = scallopy.ScallopContext()
    ctx.register_foreign_function(my_sum)
    ctx.add_relation("I", (int, int))
    ctx.add_facts("I", [(1, 2), (2, 3), (3, 4)])
    ctx.add_rule("R($my_sum(a, b)) = I(a, b)")
    ctx.run()
    assert list(ctx.relation("R")) == [(3,), (5,), (7,)]
    assert my_sum(1, 2, 3) == 6


def test_foreign_function_as_the_book_has_it() -> None:
    @scallopy.foreign_function
    def book_sum(*args: int) -> int:
        s = 0
        for x in args:
            s += x
        return s

    ctx = scallopy.ScallopContext()
    ctx.register_foreign_function(book_sum)
    ctx.add_program("rel I = {(1, 2), (2, 3), (3, 4)}\nrel R($book_sum(a, b)) = I(a, b)")
    ctx.run()
    assert list(ctx.relation("R")) == [(3,), (5,), (7,)]


def test_generic_foreign_function() -> None:
    T = scallopy.GenericTypeParameter(scallopy.Number)  # noqa: N806

    @scallopy.foreign_function
    def add_up(*numbers: T) -> T:  # type: ignore[valid-type]
        return sum(numbers)

    ctx = scallopy.ScallopContext()
    ctx.register_foreign_function(add_up)
    ctx.add_relation("S", (scallopy.usize, scallopy.usize))
    ctx.add_facts("S", [(1, 2), (2, 3)])
    ctx.add_relation("B", (scallopy.i8, scallopy.i8, scallopy.i8))
    ctx.add_facts("B", [(1, 2, 3), (5, 6, 7)])
    ctx.add_rule("R($add_up(a, b)) = S(a, b)")
    ctx.add_rule("Q($add_up(a, b, c)) = B(a, b, c)")
    ctx.run()
    assert list(ctx.relation("R")) == [(3,), (5,)]
    assert list(ctx.relation("Q")) == [(6,), (18,)]


@pytest.mark.parametrize("suppress", [False, True])
def test_foreign_function_that_fails(suppress: bool) -> None:
    @scallopy.foreign_function(suppress_warning=suppress)
    def index_of(s1: str, s2: str) -> scallopy.usize:
        return s1.index(s2)

    ctx = scallopy.ScallopContext()
    ctx.register_foreign_function(index_of)
    ctx.add_relation("S", (str, str))
    ctx.add_facts("S", [("hello world", "hello"), ("hello world", "world"), ("hello world", "42")])
    ctx.add_rule("R($index_of(a, b)) = S(a, b)")
    ctx.run()
    assert list(ctx.relation("R")) == [(0,), (6,)]


def test_foreign_function_with_an_optional_argument() -> None:
    @scallopy.foreign_function
    def shifted(x: scallopy.i32, by: scallopy.i32 = None) -> scallopy.i32:
        return x + (10 if by is None else by)

    ctx = scallopy.ScallopContext()
    ctx.register_foreign_function(shifted)
    ctx.add_program("rel p = {1}\nrel r($shifted(x), $shifted(x, 1)) = p(x)")
    ctx.run()
    assert list(ctx.relation("r")) == [(11, 2)]


def test_foreign_predicate() -> None:
    @scallopy.foreign_predicate
    def my_range(a: int, b: int) -> scallopy.Facts[None, tuple[int]]:
        for i in range(a, b):
            yield (i,)

    ctx = scallopy.ScallopContext()
    ctx.register_foreign_predicate(my_range)
    ctx.add_rule("r(x) = my_range(1, 5, x)")
    ctx.run()
    assert list(ctx.relation("r")) == [(1,), (2,), (3,), (4,)]


@pytest.mark.parametrize("provenance", ["exact", "minmaxprob", "topkproofs"])
def test_foreign_predicate_with_probabilities(provenance: str) -> None:
    @scallopy.foreign_predicate
    def guess(s: str) -> scallopy.Facts[float, tuple[int, str]]:
        for i, letter in enumerate(s):
            yield (0.5 / (i + 1), (i, letter))

    ctx = scallopy.ScallopContext(provenance=provenance)
    ctx.register_foreign_predicate(guess)
    ctx.add_program('rel r(i, c) = guess("ab", i, c)')
    ctx.run()
    assert probabilities(ctx, "r") == pytest.approx({(0, "a"): 0.5, (1, "b"): 0.25})


def test_foreign_attribute() -> None:
    @scallopy.foreign_attribute
    def add_something(item, amount):  # type: ignore[no-untyped-def]
        assert item.is_function_decl()
        (argument,) = item.function_decl_arg_types()
        assert argument.is_i32()
        assert item.function_decl_ret_type().is_i32()

        @scallopy.foreign_function(name=item.function_decl_name())
        def add(x: scallopy.i32) -> scallopy.i32:
            return amount + x

        return add

    program = """
    @add_something(3)
    type $compute(x: {}) -> i32
    rel S = {{(1,)}}
    rel R($compute(x)) = S(x)
    """
    ctx = scallopy.ScallopContext()
    ctx.register_foreign_attribute(add_something)
    ctx.add_program(program.format("i32"))
    ctx.run()
    assert list(ctx.relation("R")) == [(4,)]
    other = scallopy.ScallopContext()
    other.register_foreign_attribute(add_something)
    with pytest.raises((ByssusError, AssertionError)):
        other.add_program(program.format("usize"))


# Modules


def _top_k(products: list[float], k: int) -> float:
    """Of proofs that share no fact, the k most probable ones, taken as independent."""
    return 1 - math.prod(1 - p for p in sorted(products)[-k:])


MERGES: dict[str, tuple[Callable[[float, float], float], Callable[[list[float]], float]]] = {
    "difftopkproofs": (lambda a, b: a * b, lambda ps: _top_k(ps, 3)),
    "diffminmaxprob": (min, max),
    "diffaddmultprob": (lambda a, b: a * b, sum),
    "diffnandmultprob": (lambda a, b: a * b, lambda ps: _top_k(ps, len(ps))),
    "diffmaxmultprob": (lambda a, b: a * b, max),
    "exact": (lambda a, b: a * b, sum),
}


def _digits(batch: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    one, two = torch.randn(2, batch, size, generator=generator).softmax(-1)
    return one, two


def _sums(one: Tensor, two: Tensor, provenance: str) -> Tensor:
    combine, gather = MERGES[provenance]
    size = one.shape[1]
    return torch.tensor(
        [
            [
                gather(
                    [
                        combine(a[i].item(), b[s - i].item())
                        for i in range(size)
                        if 0 <= s - i < size
                    ]
                )
                for s in range(2 * size - 1)
            ]
            for a, b in zip(one, two, strict=True)
        ]
    )


@pytest.mark.parametrize("provenance", MERGES)
def test_module(provenance: str) -> None:
    my_sum2 = scallopy.Module(
        program=SUM_2,
        input_mappings={"digit_1": range(10), "digit_2": range(10)},
        output_mappings={"sum_2": range(19)},
        provenance=provenance,
    )
    one, two = _digits(16, 10)
    result = my_sum2(digit_1=one, digit_2=two)
    assert result.shape == (16, 19)
    torch.testing.assert_close(result, _sums(one, two, provenance), atol=1e-5, rtol=0)


def test_module_with_the_books_softmax_over_the_batch() -> None:
    my_sum2 = scallopy.Module(
        program=SUM_2,
        input_mappings={"digit_1": range(10), "digit_2": range(10)},
        output_mappings={"sum_2": range(19)},
        provenance="difftopkproofs",
    )
    generator = torch.Generator().manual_seed(2)
    one, two = torch.softmax(torch.randn(2, 16, 10, generator=generator), dim=1)
    result = my_sum2(digit_1=one, digit_2=two)
    torch.testing.assert_close(result, _sums(one, two, "difftopkproofs"), atol=1e-5, rtol=0)


def test_gradients_of_the_exact_module() -> None:
    module = scallopy.Module(
        program=SUM_2,
        input_mappings={"digit_1": range(4), "digit_2": range(4)},
        output_mappings={"sum_2": range(7)},
        provenance="exact",
    )
    one, two = (digit.double().requires_grad_() for digit in _digits(3, 4))
    weights = torch.arange(7.0, dtype=torch.float64)
    (module(digit_1=one, digit_2=two).double() @ weights).sum().backward()
    # The expected sum of the digits is linear in the probabilities.
    numbers = torch.arange(4.0, dtype=torch.float64)
    expected = numbers * two.sum(-1, keepdim=True) + (two @ numbers)[:, None]
    torch.testing.assert_close(one.grad, expected.detach(), atol=1e-5, rtol=1e-5)


class MNISTSum2Net(nn.Module):
    """The readme's, with a linear layer for its network."""

    def __init__(self, provenance: str, k: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mnist_net = nn.Sequential(nn.Linear(4, 10), nn.Softmax(dim=1))

        # Scallop Context
        self.scl_ctx = scallopy.ScallopContext(provenance=provenance, k=k)
        self.scl_ctx.add_relation("digit_1", int, input_mapping=list(range(10)))
        self.scl_ctx.add_relation("digit_2", int, input_mapping=list(range(10)))
        self.scl_ctx.add_rule("sum_2(a + b) = digit_1(a), digit_2(b)")

        # The `sum_2` logical reasoning module
        self.sum_2 = self.scl_ctx.forward_function("sum_2", list(range(19)))

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        (a_imgs, b_imgs) = x

        # First recognize the two digits
        a_distrs = self.mnist_net(a_imgs)
        b_distrs = self.mnist_net(b_imgs)

        # Then execute the reasoning module; the result is a size 19 tensor
        result: Tensor = self.sum_2(digit_1=a_distrs, digit_2=b_distrs)
        return result


@pytest.mark.parametrize("provenance", ["exact", "difftopkproofs", "diffaddmultprob"])
def test_network(provenance: str) -> None:
    net = MNISTSum2Net(provenance, k=3)
    images = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    result = net((images[0], images[1]))
    assert result.shape == (8, 19)
    with torch.no_grad():
        expected = _sums(net.mnist_net(images[0]), net.mnist_net(images[1]), provenance)
    torch.testing.assert_close(result.detach(), expected, atol=1e-5, rtol=0)
    (1 - result[:, 5]).sum().backward()
    assert net.mnist_net[0].weight.grad is not None
    assert net.mnist_net[0].weight.grad.abs().sum() > 0


@pytest.fixture
def digit_context() -> scallopy.ScallopContext:
    ctx = scallopy.ScallopContext(provenance="diffminmaxprob")
    ctx.add_relation("digit_1", int, range(10))
    ctx.add_relation("digit_2", int, range(10))
    ctx.add_rule("sum_2(a + b) = digit_1(a) and digit_2(b)")
    ctx.add_rule("mult_2(a * b) = digit_1(a) and digit_2(b)")
    return ctx


PRODUCTS = sorted({(a * b,) for a, b in itertools.product(range(10), repeat=2)})


@pytest.mark.parametrize("dispatch", ["single", "serial", "parallel"])
def test_outputs(digit_context: scallopy.ScallopContext, dispatch: str) -> None:
    one, two = _digits(5, 10)

    def call(*arguments: object, output_mappings: object = None, **options: object) -> object:
        forward = digit_context.forward_function(
            *arguments, output_mappings=output_mappings, dispatch=dispatch
        )
        return forward(digit_1=one, digit_2=two, **options)

    sums = _sums(one, two, "diffminmaxprob")
    torch.testing.assert_close(call("sum_2", list(range(19))), sums)
    found, result = call("sum_2")
    assert sorted(found) == [(s,) for s in range(19)]
    torch.testing.assert_close(result[:, [found.index((s,)) for s in range(19)]], sums)
    torch.testing.assert_close(call("sum_2", [3, 30])[:, 0], sums[:, 3])
    assert not call("sum_2", [3, 30])[:, 1].any()
    torch.testing.assert_close(call("sum_2", (3,)), sums[:, 3])
    both = call(output_mappings={"sum_2": None, "mult_2": list(range(100))})
    assert sorted(both["sum_2"][0]) == [(s,) for s in range(19)]
    assert both["mult_2"].shape == (5, 100)
    assert [i for i in range(100) if both["mult_2"][:, i].any()] == [p for (p,) in PRODUCTS]
    assert call(output_mappings={"sum_2": range(19)}).shape == (5, 19)


def test_outputs_of_the_call(digit_context: scallopy.ScallopContext) -> None:
    one, two = _digits(5, 10)
    forward = digit_context.forward_function("sum_2")
    result = forward(digit_1=one, digit_2=two, output_mappings=[(i,) for i in range(19)])
    torch.testing.assert_close(result, _sums(one, two, "diffminmaxprob"))


def test_outputs_of_each_example(digit_context: scallopy.ScallopContext) -> None:
    one, two = _digits(4, 10)
    forward = digit_context.forward_function()
    results = forward(
        digit_1=one,
        digit_2=two,
        output_relations=[["sum_2", "mult_2"]] * 4,
        output_mappings={
            "sum_2": [(i,) for i in range(19)],
            "mult_2": [(i,) for i in range(82)],
        },
    )
    assert results["sum_2"].shape == (4, 19)
    assert results["mult_2"].shape == (4, 82)
    torch.testing.assert_close(results["sum_2"], _sums(one, two, "diffminmaxprob"))


def test_faults_of_forward_functions(digit_context: scallopy.ScallopContext) -> None:
    one, two = _digits(5, 10)
    with pytest.raises(ByssusError):
        digit_context.forward_function("add_3", list(range(28)))
    with pytest.raises(ByssusError):
        digit_context.forward_function("sum_2", [(i, i + 1) for i in range(19)])
    with pytest.raises((ByssusError, AssertionError)):
        digit_context.forward_function()(digit_1=one, digit_2=two)
    forward = digit_context.forward_function("sum_2", list(range(19)))
    with pytest.raises(ByssusError):
        forward()
    with pytest.raises(ByssusError):
        forward(digit_1=one, digit_2=two[:3])
    with pytest.raises(ByssusError):
        forward(digit_1=one[:, :9], digit_2=two)
    with pytest.raises((ByssusError, KeyError)):
        forward(digit_1=one, digit_3=two)


@pytest.mark.parametrize("provenance", ["exact", "difftopkproofs", "diffminmaxprob"])
def test_inputs_as_lists_of_facts(provenance: str) -> None:
    module = scallopy.Module(
        program=SUM_2,
        provenance=provenance,
        input_mappings={"digit_1": None, "digit_2": None},
        output_mappings={"sum_2": list(range(3))},
    )
    one, two = torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(3))

    def facts(digit: Tensor) -> list[list[tuple[Tensor, tuple[int]]]]:
        return [[(p, (i,)) for i, p in enumerate(row)] for row in digit]

    result = module(digit_1=facts(one), digit_2=facts(two))
    # The two ways to make 1 share no fact, and facts in lists are independent.
    a, b = one.T, two.T
    if provenance == "diffminmaxprob":
        ways = torch.maximum(torch.minimum(a[0], b[1]), torch.minimum(a[1], b[0]))
        rest = [torch.minimum(a[0], b[0]), torch.minimum(a[1], b[1])]
    else:
        ways = 1 - (1 - a[0] * b[1]) * (1 - a[1] * b[0])
        rest = [a[0] * b[0], a[1] * b[1]]
    torch.testing.assert_close(result, torch.stack([rest[0], ways, rest[1]], 1))


@pytest.mark.parametrize("provenance", ["exact", "difftopkproofs"])
def test_disjunctions_of_each_example(provenance: str) -> None:
    module = scallopy.Module(
        program="type digit(i32)\nrel both() = digit(0) and digit(1)\nrel any() = digit(_)",
        provenance=provenance,
        output_mappings={"both": (), "any": ()},
    )
    facts = [[(torch.tensor(0.4), (0,)), (torch.tensor(0.6), (1,))]] * 2
    result = module(digit=facts, disjunctions={"digit": [[[0, 1]], []]})
    torch.testing.assert_close(result["both"], torch.tensor([0.0, 0.24]))
    assert result["any"][1].item() == pytest.approx(0.76)
    if provenance == "exact":
        assert result["any"][0].item() == pytest.approx(1.0)


@pytest.mark.parametrize("provenance", ["exact", "difftopkproofs", "diffminmaxprob"])
def test_inputs_that_are_certain(provenance: str) -> None:
    module = scallopy.Module(
        program="""
        type edge(usize, usize)
        rel path(a, c) = edge(a, c) or (path(a, b) and edge(b, c))
        """,
        provenance=provenance,
        non_probabilistic=["edge"],
        output_relation="path",
    )
    mapping, result = module(edge=[[(0, 1), (1, 2)]])
    assert sorted(mapping) == [(0, 1), (0, 2), (1, 2)]
    torch.testing.assert_close(result, torch.ones(1, 3))


def test_inputs_that_differ_from_example_to_example() -> None:
    module = scallopy.Module(
        program="""
        type Expr = Const(i32) | Add(Expr, Expr)
        type root(id: i32, expr: Expr)
        rel eval(e, y) = case e is Const(y)
        rel eval(e, y1 + y2) = case e is Add(e1, e2) and eval(e1, y1) and eval(e2, y2)
        rel result(id, y) = root(id, e) and eval(e, y)
        """,
        provenance="diffminmaxprob",
        non_probabilistic=["root"],
        output_relation="result",
    )
    results, tensor = module(
        root=[
            [(1, "Add(Const(5), Const(3))"), (2, "Const(3)")],
            [(1, "Const(10)"), (2, "Add(Add(Const(1), Const(2)), Const(3))")],
            [(1, "Add(Add(Const(10), Const(2)), Const(2))")],
        ]
    )
    assert sorted(results) == [(1, 8), (1, 10), (1, 14), (2, 3), (2, 6)]
    # Columns by tuple: 8, 10, 14 of the first expression, 3 and 6 of the second.
    ordered = tensor[:, [results.index(row) for row in sorted(results)]]
    expected = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 1], [0, 0, 1, 0, 0]])
    torch.testing.assert_close(ordered, expected.float())


def test_training_and_testing_keep_different_numbers_of_proofs() -> None:
    module = scallopy.Module(
        program=SUM_2,
        input_mappings={"digit_1": range(3), "digit_2": range(3)},
        output_mappings={"sum_2": range(5)},
        train_k=1,
        test_k=3,
    )
    one, two = torch.tensor([[0.2, 0.5, 0.3]]), torch.tensor([[0.6, 0.1, 0.3]])
    ways = [0.2 * 0.3, 0.5 * 0.1, 0.3 * 0.6]
    module.train()
    assert module(digit_1=one, digit_2=two)[0, 2].item() == pytest.approx(0.18)
    module.eval()
    assert module(digit_1=one, digit_2=two)[0, 2].item() == pytest.approx(_top_k(ways, 3))


def test_facts_and_rules_of_a_module() -> None:
    module = scallopy.Module(
        relations=[("p", (int,)), ("q", (int,))],
        rules=["r(x + y) = p(x) and q(y)"],
        facts={"q": [(torch.tensor(0.5), (10,))]},
        input_mappings={"p": [0, 1]},
        output_relation="r",
        output_mapping=[10, 11],
        provenance="diffaddmultprob",
    )
    result = module(p=torch.tensor([[0.2, 0.8]]))
    torch.testing.assert_close(result, torch.tensor([[0.1, 0.4]]))


def test_program_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sum.scl"
    path.write_text(SUM_2)
    module = scallopy.Module(
        file=str(path),
        input_mappings={"digit_1": range(3), "digit_2": range(3)},
        output_relation="sum_2",
        output_mapping=range(5),
        provenance="diffaddmultprob",
    )
    one, two = _digits(2, 3)
    result = module(digit_1=one, digit_2=two)
    torch.testing.assert_close(result, _sums(one, two, "diffaddmultprob"))


def test_two_dimensional_input_mapping() -> None:
    module = scallopy.Module(
        program='type symbol(i32, String)\nrel plus(i) = symbol(i, "+")',
        input_mappings={"symbol": {0: range(2), 1: ["+", "-", "*"]}},
        output_mappings={"plus": [0, 1]},
        provenance="diffminmaxprob",
    )
    symbols = torch.rand(3, 2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module(symbol=symbols), symbols[:, :, 0])


def test_sampled_facts() -> None:
    ctx = scallopy.ScallopContext(provenance="diffminmaxprob")
    ctx.add_relation("digit", int, scallopy.Map(range(4), retain_k=2))
    forward = ctx.forward_function("digit", list(range(4)))
    result = forward(digit=torch.tensor([[0.1, 0.4, 0.2, 0.3]]))
    torch.testing.assert_close(result, torch.tensor([[0.0, 0.4, 0.0, 0.3]]))


def test_iteration_limit() -> None:
    ctx = scallopy.ScallopContext()
    ctx.set_iter_limit(2)
    ctx.add_relation("edge", (int, int))
    ctx.add_facts("edge", [(0, 1), (1, 2), (2, 3), (3, 4)])
    ctx.add_rule("path(a, c) = edge(a, c) or path(a, b) and edge(b, c)")
    ctx.run()
    expected = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4)]
    assert list(ctx.relation("path")) == expected
    ctx = ctx.clone()
    ctx.set_iter_limit(None)
    ctx.add_facts("edge", [(4, 5)])
    ctx.run()
    assert len(list(ctx.relation("path"))) == 15


def test_loading_csv(tmp_path: Path) -> None:
    path = tmp_path / "student.csv"
    path.write_text("id,name,year\n1,alice,2022\n2,bob,2023\n")
    ctx = scallopy.Context()
    fields = scallopy.io.CSVFileOptions(str(path), fields=["id", "name", "year"])
    ctx.add_relation("student", (int, str, int), load_csv=fields)
    keys = scallopy.io.CSVFileOptions(str(path), keys="id", fields=["name", "year"])
    ctx.add_relation("entry", (int, scallopy.Symbol, str), load_csv=keys)
    ctx.run()
    check(
        ctx,
        {
            "student": [(1, "alice", 2022), (2, "bob", 2023)],
            "entry": [
                (1, "name", "alice"),
                (1, "year", "2022"),
                (2, "name", "bob"),
                (2, "year", "2023"),
            ],
        },
    )


# The repository's readme, on the language

README = [
    Case(
        "facts",
        "rel digit(0, 1) // non-probabilitic\nrel 0.3::digit(0, 2) // probabilistic",
        {"digit": [(0, 1), (0, 2)]},
    ),
    Case(
        "set of facts",
        """
        rel digit = {
          0.4::(0, 1),
          0.3::(0, 2),
          0.1::(0, 3),
        }
        """,
        {"digit": [(0, 1), (0, 2), (0, 3)]},
    ),
    Case(
        "rules",
        """
        rel edge = {(0, 1), (1, 2)}
        rel path(a, b) :- edge(a, b)
        rel path(a, c) :- path(a, b), edge(b, c)
        rel same(a, c) = edge(a, c) or (same(a, b) and edge(b, c))
        """,
        {"path": [(0, 1), (0, 2), (1, 2)], "same": [(0, 1), (0, 2), (1, 2)]},
    ),
    Case(
        "repl",
        r"""
        rel edge = {(0, 1), (1, 2)}
        rel path(a, c) = edge(a, c) \/ path(a, b) /\ edge(b, c)
        query path
        """,
        {"path": [(0, 1), (0, 2), (1, 2)]},
    ),
    Case(
        "negation",
        """
        rel numbers(x) = x == 0 or (numbers(x - 1) and x <= 10)
        rel odd(1) = numbers(1)
        rel odd(x) = odd(x - 2), numbers(x)
        rel even(y) = numbers(y), ~odd(y)
        query even
        """,
        {"even": [0, 2, 4, 6, 8, 10]},
    ),
    Case(
        "animals",
        """
        rel is_a("giraffe", "mammal")
        rel is_a("tiger", "mammal")
        rel is_a("mammal", "animal")
        rel name(a, b) :- name(a, c), is_a(c, b)
        rel name = {
          0.3::(1, "giraffe"),
          0.7::(1, "tiger"),
          0.9::(2, "giraffe"),
          0.1::(2, "tiger"),
        }
        rel num_animals(n) :- n = count(o: name(o, "animal"))
        """,
        {"num_animals": [2]},
        embedded="what `unit` leaves out, `exact` counts world by world",
    ),
    Case(
        # The readme has `_ = max[c](...)`, which real Scallop refuses: two results, one variable.
        "count and maximum ((c, _) for _)",
        """
        rel object_color = {(0, "blue"), (1, "green"), (2, "blue")}
        rel color_count(c, n) :- n = count(o: object_color(o, c))
        rel max_color(c) :- (c, _) = max[c](n: color_count(c, n))
        """,
        {"color_count": [("blue", 2), ("green", 1)], "max_color": ["blue"]},
    ),
    Case(
        "top students ((s, _) for _)",
        """
        rel class_student_grade = {
          (0, "tom", 50),
          (0, "jerry", 70),
          (0, "alice", 60),
          (1, "bob", 80),
          (1, "sherry", 90),
          (1, "frank", 30),
        }

        rel class_top_student(c, s) = (s, _) = max[s](g: class_student_grade(c, s, g))
        """,
        {"class_top_student": [(0, "jerry"), (1, "sherry")]},
    ),
    Case(
        # The readme's subtype is called Symbol, which is a type by now.
        "types (Word for Symbol)",
        """
        type Word <: usize
        type ObjectId <: usize
        type edge(usize, usize)
        type obj_color(usize, String) // object is represented by a number
        type empty() // 0-arity relation
        type binary_expr(usize, String, usize, usize) // expr id, operator, lhs, rhs
        type said(ObjectId, Word)
        rel said = {(1, 2)}
        """,
        {"said": [(1, 2)], "empty": [], "edge": []},
    ),
]


@parametrized(README)
def test_readme(case: Case) -> None:
    check(run(case.program), case.expected)


@pytest.mark.parametrize("provenance", ["exact", "topkproofs"])
def test_probabilistic_rules_of_the_readme(provenance: str) -> None:
    program = """
    rel edge = {(0, 1)}
    rel 0.3::path(a, b) = edge(a, b)
    rel 0.5::path(b, c) = edge(c, b)
    """
    found = probabilities(run(program, provenance), "path")
    assert found == pytest.approx({(0, 1): 0.3, (1, 0): 0.5}, abs=1e-6)


# Debugging proofs: the probabilities of the page, whose provenance shows proofs too


@pytest.mark.parametrize("provenance", ["difftopkproofs", "exact"])
def test_debugging_proofs(provenance: str) -> None:
    module = scallopy.Module(
        provenance=provenance,
        k=3,
        program="""
        type digit_a(a: i32), digit_b(b: i32)
        rel sum_2(a + b) = digit_a(a) and digit_b(b)
        """,
        output_relation="sum_2",
        output_mapping=[2, 3, 4],
    )
    digit_a = [[(torch.tensor(0.1), (1,)), (torch.tensor(0.9), (2,))]]
    digit_b = [[(torch.tensor(0.9), (1,)), (torch.tensor(0.1), (2,))]]
    result = module(digit_a=digit_a, digit_b=digit_b)
    torch.testing.assert_close(result, torch.tensor([[0.09, 0.8119, 0.09]]))
