"""Programs as torch modules, as projects written for Scallop build and call them."""

import copy
import io
import pickle
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

import byssus_scallop as scallopy
from byssus import ByssusError, ProgramError

SUM_2 = """
type digit_1(i32), digit_2(i32)
rel sum_2(a + b) = digit_1(a) and digit_2(b)
"""


def sum_2(provenance: str = "exact", **options: Any) -> scallopy.Module:
    return scallopy.Module(
        program=SUM_2,
        provenance=provenance,
        input_mappings={"digit_1": range(3), "digit_2": range(3)},
        output_mappings={"sum_2": range(5)},
        **options,
    )


def sums(a: Tensor, b: Tensor) -> Tensor:
    """The convolution of two distributions over three values."""
    return torch.stack(
        [sum(a[:, i] * b[:, s - i] for i in range(3) if 0 <= s - i < 3) for s in range(5)], 1
    )


def softmax(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(torch.randn(*shape, generator=generator, dtype=torch.float64), -1).to(
        dtype
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("provenance", ["exact", "auto", "diffaddmultprob"])
def test_the_type_of_the_result_is_that_of_the_inputs(provenance: str, dtype: torch.dtype) -> None:
    a = softmax(4, 3, seed=1, dtype=dtype).requires_grad_()
    b = softmax(4, 3, seed=2, dtype=dtype)
    result = sum_2(provenance)(digit_1=a, digit_2=b)
    result[:, 1].sum().backward()
    assert result.dtype == dtype
    assert a.grad is not None
    assert a.grad.dtype == dtype
    tolerance = 1e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-6
    torch.testing.assert_close(
        result.double(), sums(a.double(), b.double()), atol=tolerance, rtol=0
    )


@pytest.mark.parametrize("provenance", ["exact", "auto", "sampled", "mixed"])
def test_a_module_that_ran_in_inference_mode_trains_after_it(provenance: str) -> None:
    module = sum_2(provenance)
    a, b = softmax(4, 3, seed=1).requires_grad_(), softmax(4, 3, seed=2)
    with torch.inference_mode():
        module(digit_1=a, digit_2=b)
    module(digit_1=a, digit_2=b).pow(2).sum().backward()
    assert a.grad is not None
    assert a.grad.abs().sum() > 0


# Mappings that retain some facts

PAIRS = """
type digit(index: i32, value: i32)
rel pair(a, b) = digit(0, a) and digit(1, b)
"""


@pytest.mark.parametrize("provenance", ["exact", "auto", "difftopkproofs", "diffminmaxprob"])
def test_what_is_not_retained_is_not_found(provenance: str) -> None:
    probs = torch.tensor(
        [[[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], [[0.1, 0.8, 0.1], [0.5, 0.4, 0.1]]], requires_grad=True
    )
    module = scallopy.Module(
        program=PAIRS,
        provenance=provenance,
        k=9,
        input_mappings={
            "digit": scallopy.Map({0: range(2), 1: range(3)}, retain_k=1, sample_dim=1)
        },
        output_relation="pair",
    )
    tuples, result = module(digit=probs)
    assert tuples == [(0, 2), (1, 0)]
    product = provenance != "diffminmaxprob"
    first, second = (0.7 * 0.6, 0.8 * 0.5) if product else (0.6, 0.5)
    torch.testing.assert_close(result, torch.tensor([[first, 0.0], [0.0, second]]))
    result.sum().backward()
    assert probs.grad is not None
    if product:
        expected = torch.zeros(2, 2, 3)
        expected[0, 0, 0], expected[0, 1, 2] = 0.6, 0.7
        expected[1, 0, 1], expected[1, 1, 0] = 0.5, 0.8
        torch.testing.assert_close(probs.grad, expected)


def test_a_few_retained_symbols_make_a_small_problem() -> None:
    # Over all 14 ** 7 sequences this would not end.
    module = scallopy.Module(
        program="""
            type symbol(index: usize, value: i32)
            rel total(0, 0)
            rel total(i + 1, s + v) = total(i, s) and symbol(i, v)
            rel result(s) = total(7, s)
        """,
        provenance="exact",
        input_mappings={
            "symbol": scallopy.Map(
                {0: range(7), 1: [10**i for i in range(9)] + [3, 5, 7, 11, 13]},
                retain_k=2,
                sample_dim=1,
            )
        },
        output_relation="result",
    )
    tuples, result = module(symbol=softmax(3, 7, 14))
    assert 1 <= len(tuples) <= 3 * 2**7
    assert bool((result.sum(1) <= 1 + 1e-4).all())


def test_the_same_tuple_twice_in_a_mapping() -> None:
    ctx = scallopy.ScallopContext(provenance="exact")
    ctx.add_relation("digit", int, [1, 1, 2])
    ctx.add_rule("result(x) = digit(x)")
    result = ctx.forward_function("result", [1, 2])(digit=torch.tensor([[0.5, 0.2, 0.3]]))
    torch.testing.assert_close(result, torch.tensor([[0.7, 0.3]]))


# What is asked for at a call


def two_outputs() -> tuple[Any, Tensor]:
    ctx = scallopy.ScallopContext(provenance="exact")
    ctx.add_relation("digit", int, range(3))
    ctx.add_rule("same(x) = digit(x)")
    ctx.add_rule("next(x + 1) = digit(x)")
    return ctx.forward_function(), torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])


def test_outputs_and_mappings_of_a_call() -> None:
    function, x = two_outputs()
    assert torch.equal(
        function(digit=x, output_relations="same", output_mappings=[2, 0]), x[:, [2, 0]]
    )
    found = function(
        digit=x,
        output_relations=[["same", "next"]] * 2,
        output_mappings={"same": range(3), "next": (1,)},
    )
    torch.testing.assert_close(found["same"], x)
    torch.testing.assert_close(found["next"], x[:, 0])


def test_an_output_an_example() -> None:
    function, x = two_outputs()
    found = function(
        digit=x,
        output_relations=["same", "next"],
        output_mappings={"same": range(3), "next": range(1, 4)},
    )
    torch.testing.assert_close(found["same"], torch.stack([x[0], torch.zeros(3)]))
    torch.testing.assert_close(found["next"], torch.stack([torch.zeros(3), x[1]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_relations": "other"}, "there is no relation 'other'"),
        ({"output_relations": ["same"]}, "output_relations: 1 for 2 examples"),
        ({"output_relations": ["same", []]}, "give the name of a relation"),
        ({"output_relations": 5}, "give the name of a relation"),
        ({"output_relations": "same", "output_mappings": {"next": [1]}}, "output_mappings has"),
        ({"output_relations": ["same", "next"], "output_mappings": [1]}, "several relations"),
        ({}, "nothing is asked for"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, Any], message: str) -> None:
    function, x = two_outputs()
    with pytest.raises(ByssusError, match=message):
        function(digit=x, **options)


@pytest.mark.parametrize(
    ("given", "disjunctions", "message"),
    [
        ({"digit_1": torch.ones(1, 3) / 3}, {"digit_1": [[[0, 1]]]}, "given as a tensor"),
        ({"digit_1": [[(0.5, (1,))]]}, {"digit_2": [[[0]]]}, "its facts are not given"),
        ({"digit_1": [[(0.5, (1,))]]}, {"digit_1": [[0]]}, "are lists of positions"),
        ({"digit_1": [[(0.5, (1,))]]}, [[0]], "disjunctions="),
        ({"digit_1": [{1: 2}]}, {}, "is a dict"),
        ({"digit_1": [torch.ones(3) / 3, torch.ones(2) / 2]}, {}, "has the shape"),
    ],
)
def test_inputs_that_do_not_fit(given: Any, disjunctions: Any, message: str) -> None:
    with pytest.raises(ByssusError, match=message):
        sum_2()(disjunctions=disjunctions, **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_mappings": ["digit"]}, "input_mappings="),
        ({"facts": [1]}, "facts="),
        ({"output_mappings": ["digit"]}, "output_mappings="),
        ({"k": "3"}, "k='3'"),
        ({"train_k": 0}, "train_k=0"),
        ({"program": 5}, "a program is text"),
    ],
)
def test_modules_that_cannot_be_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ByssusError, match=message):
        scallopy.Module(**{"program": "type digit(i32)", **options})


# Modules as objects


@pytest.mark.parametrize("provenance", ["exact", "sampled", "auto", "difftopkproofs"])
def test_copies_say_the_same(provenance: str) -> None:
    module = sum_2(provenance, generator=torch.Generator().manual_seed(0))
    stored = io.BytesIO()
    torch.save(module, stored)
    stored.seek(0)
    copies = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(stored, weights_only=False),
    ]
    a, b = softmax(4, 3, seed=1), softmax(4, 3, seed=2)
    expected = module(digit_1=a, digit_2=b)
    for other in copies:
        assert torch.equal(other(digit_1=a, digit_2=b), expected)
        assert other.ctx is other.forward_fn.ctx
        assert other.ctx is not module.ctx
    assert not module.state_dict()
    assert not list(module.parameters())


@pytest.mark.embedded("runs under a provenance of Scallop's own")
def test_training_and_testing_keep_different_numbers_of_proofs() -> None:
    module = sum_2("difftopkproofs", train_k=9, test_k=1)
    a, b = softmax(4, 3, seed=1), softmax(4, 3, seed=2)
    # Proofs count facts as independent; two of them for a sum of 1.
    p, q = a[:, 0] * b[:, 1], a[:, 1] * b[:, 0]
    torch.testing.assert_close(module(digit_1=a, digit_2=b)[:, 1], p + q - p * q)
    module.eval()
    torch.testing.assert_close(module(digit_1=a, digit_2=b)[:, 1], torch.maximum(p, q))


def test_threads_share_a_module() -> None:
    module = sum_2()
    inputs = [(softmax(4, 3, seed=i), softmax(4, 3, seed=i + 50)) for i in range(6)]
    wrong: list[Any] = []

    def run(a: Tensor, b: Tensor) -> None:
        for _ in range(10):
            result = module(digit_1=a, digit_2=b)
            if not torch.allclose(result, sums(a, b), atol=1e-6):
                wrong.append(result)

    threads = [threading.Thread(target=run, args=pair) for pair in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("provenance", ["exact", "auto", "sampled", "mixed"])
def test_tensors_of_a_predicate_are_asked_for_at_every_call(provenance: str) -> None:
    weight = torch.tensor(0.25, requires_grad=True)

    @scallopy.foreign_predicate
    def kept(x: scallopy.i32) -> scallopy.Facts[Tensor, scallopy.i32]:
        yield weight, x

    def build() -> Any:
        ctx = scallopy.ScallopContext(
            provenance=provenance, generator=torch.Generator().manual_seed(0)
        )
        ctx.register_foreign_predicate(kept)
        ctx.add_relation("digit", int, [1])
        ctx.add_rule("result(y) = digit(x) and kept(x, y)")
        return ctx.forward_function("result", [1])

    function = build()
    x = torch.ones(1, 1)
    with torch.no_grad():
        before = function(digit=x)
        weight.fill_(0.75)
        after = function(digit=x)
    torch.testing.assert_close(before, torch.tensor([[0.25]]))
    torch.testing.assert_close(after, torch.tensor([[0.75]]))


# Provenances of one's own


class Sum(scallopy.ScallopProvenance):
    def zero(self) -> Any:
        return 0.0

    def one(self) -> Any:
        return 1.0

    def add(self, t1: Any, t2: Any) -> Any:
        return t1 + t2

    def mult(self, t1: Any, t2: Any) -> Any:
        return t1 * t2

    def collate(self, batch_outputs: list[list[Any]]) -> Any:
        return torch.stack(
            [
                torch.stack([torch.as_tensor(0.0 if tag is None else tag) for tag in tags])
                for tags in batch_outputs
            ]
        )


class Names(scallopy.ScallopProvenance):
    """The facts that were used, by a name that is their tag."""

    def tagging_fn(self, input_tag: Any) -> Any:
        return frozenset() if input_tag is None else frozenset([input_tag])

    def zero(self) -> Any:
        return None

    def one(self) -> Any:
        return frozenset()

    def add(self, t1: Any, t2: Any) -> Any:
        return t1 | t2

    def mult(self, t1: Any, t2: Any) -> Any:
        return t1 | t2


@pytest.mark.embedded("runs under a provenance of Scallop's own")
def test_a_custom_provenance_collates_its_tags() -> None:
    module = sum_2("custom", custom_provenance=Sum())
    a, b = softmax(4, 3, seed=1).requires_grad_(), softmax(4, 3, seed=2)
    result = module(digit_1=a, digit_2=b)
    torch.testing.assert_close(result, sums(a, b))
    result[:, 0].sum().backward()
    assert a.grad is not None
    torch.testing.assert_close(a.grad[:, 0], b[:, 0])


@pytest.mark.embedded("runs under a provenance of Scallop's own")
def test_custom_tags_are_any_objects() -> None:
    ctx = scallopy.ScallopContext(custom_provenance=Names())
    ctx.add_relation("edge", (int, int))
    ctx.add_facts("edge", [(("first", 1), (0, 1)), ("second", (1, 2)), (None, (2, 3))])
    ctx.add_rule("path(a, c) = edge(a, c) or path(a, b) and edge(b, c)")
    ctx.run()
    found = {row: tag for tag, row in ctx.relation("path")}
    assert found[0, 3] == {("first", 1), "second"}
    assert found[2, 3] == frozenset()
    function = ctx.forward_function("path")
    tuples, tags = function(edge=[[("third", (3, 4))], []])
    assert tags[0][tuples.index((2, 4))] == {"third"}
    assert tags[1][tuples.index((2, 4))] is None


def test_a_relation_that_nothing_gives_is_an_error() -> None:
    module = scallopy.Module(
        program="type d(i32)\nrel p(x) = d(x) and not q(x)",
        provenance="exact",
        input_mappings={"d": range(2)},
        output_relation="p",
    )
    probs = torch.tensor([[0.25, 0.75]])
    with pytest.raises(ProgramError, match="unknown relation `q`"):
        module(d=probs)
    _, result = module(d=probs, q=[[(None, (0,))]])
    torch.testing.assert_close(result, torch.tensor([[0.75]]))
