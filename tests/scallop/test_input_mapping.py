from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from byssus import ByssusError, ProbabilityError, ShapeError
from byssus_scallop import _values
from byssus_scallop.collection import ScallopCollection
from byssus_scallop.input_mapping import InputMapping
from byssus_scallop.input_output import CSVFileOptions
from byssus_scallop.output_mapping import OutputMapping, output_mapping

# Input mappings


@pytest.mark.parametrize(
    ("mapping", "kind", "shape", "single"),
    [
        (list(range(10)), "list", (10,), True),
        (range(10), "list", (10,), True),
        (["a", "b"], "list", (2,), True),
        ([(i,) for i in range(10)], "list", (10,), False),
        ([(i, j) for i in range(5) for j in range(5)], "list", (25,), False),
        ([[(i, j) for i in range(5)] for j in range(4)], "list", (4, 5), False),
        ([range(3), range(3)], "list", (2, 3), True),
        ([(), ()], "list", (2,), False),
        ((), "tuple", (), False),
        ((3, 5), "tuple", (), False),
        (3, "value", (), True),
        ("abc", "value", (), True),
        (True, "value", (), True),
        ({0: range(5), 1: range(4)}, "dict", (5, 4), False),
        ({0: range(3), 1: ["red", "green"], 2: [True]}, "dict", (3, 2, 1), False),
        ({1: range(3), 0: range(2)}, "dict", (2, 3), False),
        (None, None, (), False),
    ],
)
def test_kinds_and_shapes(
    mapping: Any, kind: str | None, shape: tuple[int, ...], single: bool
) -> None:
    made = InputMapping(mapping)
    assert (made.kind, made.shape, made.dimension) == (kind, shape, len(shape))
    if kind is not None:
        assert made.is_singleton is single
        assert len(made.tuples) == math.prod(shape)
        assert [made[index] for index in made.all_indices()] == list(made.all_tuples())


@pytest.mark.parametrize(
    ("mapping", "tuples"),
    [
        (range(3), ((0,), (1,), (2,))),
        ([["a", "b"], ["c", "d"]], (("a",), ("b",), ("c",), ("d",))),
        ({0: range(2), 1: ["-", "+"]}, ((0, "-"), (0, "+"), (1, "-"), (1, "+"))),
        ((3, 5), ((3, 5),)),
        (0.5, ((0.5,),)),
        (None, ()),
    ],
)
def test_tuples_in_the_order_of_positions(mapping: Any, tuples: Any) -> None:
    assert InputMapping(mapping).tuples == tuples


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ([(1, 2), (1,)], "tuples of different lengths"),
        ([], "empty in dimension 0"),
        ([[], [], []], "empty in dimension 1"),
        ([[3, 5, 8], [3, 5, 9], [3, 5]], "lists of 3 and of 2 entries"),
        ([1, (1,)], "values only, or tuples only"),
        ([(1,), 1], "values only, or tuples only"),
        ([[1], 2], "has 2 where other entries of dimension 1 are lists"),
        ([1, [2]], "nested alike"),
        ((3, 5, []), r"the entry \[\]"),
        ([(1, (2, 3))], r"the entry \(2, 3\)"),
        ([object()], "the entry <object"),
        ({}, r"the keys \[\]"),
        ({1: range(3)}, r"the keys \[1\]"),
        ({0: range(3), 1: []}, r"\[\] for dimension 1"),
        ({0: 3}, "3 for dimension 0"),
        ({0: [(1, 3, 5)]}, r"the entry \(1, 3, 5\)"),
        ({"1": [3]}, r"the keys \['1'\]"),
        ({-10: [3]}, r"the keys \[-10\]"),
        ({1, 2}, r"\{1, 2\} is no input mapping"),
        (b"abc", "b'abc' is no input mapping"),
    ],
)
def test_what_is_no_mapping(mapping: Any, message: str) -> None:
    with pytest.raises(ByssusError, match=message):
        InputMapping(mapping)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_dim": 1}, "sample_dim=1 is no dimension .* give one of 0..0"),
        ({"sample_dim": -10}, "sample_dim=-10"),
        ({"disjunctive_dim": 1}, "disjunctive_dim=1"),
        ({"retain_k": 0}, "retain_k=0"),
        ({"sample_strategy": "best"}, "sample_strategy='best'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ByssusError, match=message):
        InputMapping(range(10), **options)
    with pytest.raises(ByssusError, match="an input mapping of one tuple has no dimensions"):
        InputMapping(3, sample_dim=0)


def test_a_mapping_of_a_mapping_is_a_copy() -> None:
    first = InputMapping({0: range(3), 1: range(2)}, retain_k=2, sample_dim=1, disjunctive=True)
    again = InputMapping(first)
    assert (again.retain_k, again.sample_dim, again.disjunctive) == (2, 1, True)
    changed = InputMapping(first, retain_k=1, disjunctive=False)
    assert (changed.retain_k, changed.sample_dim, changed.disjunctive) == (1, 1, False)
    changed.set_sample_topk_facts(5)
    assert (changed.retain_k, changed.sample_dim) == (5, None)
    assert (first.retain_k, first.sample_dim) == (2, 1)
    assert copy.deepcopy(first).tuples == first.tuples


def test_probabilities_keep_their_gradient() -> None:
    mapping = InputMapping({0: range(2), 1: range(3)})
    tensor = torch.arange(12.0).reshape(2, 2, 3).requires_grad_()
    probs, keep = mapping.process(tensor)
    assert probs.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert keep.all()
    probs[:, 4].sum().backward()
    assert tensor.grad is not None
    assert tensor.grad.nonzero().tolist() == [[0, 1, 1], [1, 1, 1]]


def test_one_tuple_has_no_dimension() -> None:
    for mapping in (InputMapping(3), InputMapping(()), InputMapping(3, retain_k=1)):
        probs, keep = mapping.process(torch.tensor([0.25, 0.5]))
        assert probs.tolist() == [[0.25], [0.5]]
        assert keep.tolist() == [[True], [True]]
        assert mapping.groups(probs) == ()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 4), r"digit has the shape \(2, 4\), and its input mapping wants \(batch, 3\)$"),
        ((3,), r"wants \(batch, 3\); for a batch of one example give tensor\[None\]"),
        ((), r"the shape \(\)"),
        ((2, 3, 1), r"the shape \(2, 3, 1\)"),
    ],
)
def test_shapes_that_do_not_fit(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        InputMapping(range(3)).process(torch.rand(shape), "digit")


def test_no_mapping_takes_no_tensor() -> None:
    with pytest.raises(ShapeError, match="digit is a tensor, and the input mapping is None"):
        InputMapping(None).process(torch.rand(2, 3), "digit")


def test_the_most_probable_are_retained() -> None:
    rows = torch.tensor([[0.1, 0.5, 0.0, 0.4], [0.7, 0.1, 0.2, 0.0]])
    _, keep = InputMapping(range(4), retain_k=2).process(rows)
    assert keep.tolist() == [[False, True, False, True], [True, False, True, False]]
    _, keep = InputMapping(range(4), retain_k=9).process(rows)
    assert keep.all()


@pytest.mark.parametrize(("dim", "kept"), [(None, 3), (0, 9), (1, 15)])
@pytest.mark.parametrize("strategy", ["top", "categorical"])
def test_retaining_along_a_dimension(dim: int | None, kept: int, strategy: Any) -> None:
    mapping = InputMapping(
        {0: range(5), 1: range(3)}, retain_k=3, sample_dim=dim, sample_strategy=strategy
    )
    generator = torch.Generator().manual_seed(0)
    tensor = torch.rand(4, 5, 3, generator=generator)
    _, keep = mapping.process(tensor, generator=generator)
    assert keep.shape == (4, 15)
    counts = keep.sum(1)
    assert bool((counts == kept).all() if strategy == "top" else (counts <= kept).all())
    if dim is not None:
        along = keep.reshape(4, 5, 3).sum(dim + 1)
        assert bool((along == 3).all() if strategy == "top" else (along <= 3).all())
        if strategy == "top" and dim == 0:
            column = tensor[1, :, 2]
            assert set(column.topk(3).indices.tolist()) == set(
                keep.reshape(4, 5, 3)[1, :, 2].nonzero().flatten().tolist()
            )


def test_sampling_is_reproducible_and_follows_the_probabilities() -> None:
    mapping = InputMapping(range(3), retain_k=1, sample_strategy="categorical")
    tensor = torch.tensor([0.2, 0.3, 0.5]).expand(20_000, 3)

    def draw() -> torch.Tensor:
        return mapping.process(tensor, generator=torch.Generator().manual_seed(3))[1]

    keep = draw()
    assert bool((keep.sum(1) == 1).all())
    # three standard deviations of a mean of 20,000 draws are 0.011 at most
    assert keep.double().mean(0).tolist() == pytest.approx([0.2, 0.3, 0.5], abs=0.011)
    assert bool((keep == draw()).all())


def test_rows_of_zeros_can_be_sampled_from() -> None:
    mapping = InputMapping(range(3), retain_k=2, sample_strategy="categorical")
    _, keep = mapping.process(torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    assert keep[1].tolist() == [False, True, False]


@pytest.mark.parametrize("bad", [-0.5, float("nan"), float("inf")])
def test_only_probabilities_can_be_sampled_from(bad: float) -> None:
    mapping = InputMapping(range(2), retain_k=1, sample_strategy="categorical")
    with pytest.raises(ProbabilityError, match="digit cannot be sampled from"):
        mapping.process(torch.tensor([[bad, 0.5]]), "digit")


def test_a_threshold_retains_what_reaches_it() -> None:
    rows = torch.tensor([[0.5, 0.6, 0.4], [0.0, 0.1, 0.9]])
    _, keep = InputMapping(range(3), retain_threshold=0.5).process(rows)
    assert keep.tolist() == [[True, True, False], [False, False, True]]
    both = InputMapping(range(3), retain_threshold=0.5, retain_k=1)
    assert both.process(rows)[1].tolist() == [[False, True, False], [False, False, True]]


def test_facts_as_lists() -> None:
    row = torch.tensor([0.25, 0.5, 0.0])
    mapping = InputMapping(range(3), retain_threshold=0.1)
    assert mapping.process_tensor(row) == [(0.25, (0,)), (0.5, (1,))]
    assert mapping.process_tensor(row, batched=True) == [mapping.process_tensor(row)]
    assert [len(facts) for facts in mapping.process_tensor(row.expand(4, 3))] == [2] * 4
    pairs = InputMapping(
        {0: range(2), 1: ["a", "b"]}, disjunctive_dim=1, supports_disjunctions=True
    )
    assert pairs.process_tensor(torch.full((2, 2), 0.5)) == [
        ((0.5, 0), (0, "a")),
        ((0.5, 0), (0, "b")),
        ((0.5, 1), (1, "a")),
        ((0.5, 1), (1, "b")),
    ]
    free = InputMapping(range(1), disjunctive=False, supports_disjunctions=True)
    assert free.process_tensor(torch.ones(1)) == [((1.0, None), (0,))]


SUM = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.25, 0.25]])
OTHER = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.25, 0.3]])


@pytest.mark.parametrize(
    ("options", "probs", "groups"),
    [
        ({}, SUM, ((0, 1, 2),)),
        ({}, OTHER, ()),
        ({}, SUM.double() * (1 + 5e-5), ((0, 1, 2),)),
        ({}, SUM * (1 + 5e-4), ()),
        ({}, (SUM * (1 + 5e-3)).bfloat16(), ((0, 1, 2),)),
        ({}, (SUM * 1.05).half(), ()),
        ({}, torch.tensor([[1.5, -0.5, 0.0]]), ()),
        ({}, torch.tensor([[float("nan"), 1.0, 0.0]]), ()),
        ({}, torch.cat([SUM, torch.zeros(1, 3)]), ((0, 1, 2),)),
        ({}, torch.zeros(2, 3), ()),
        ({}, torch.zeros(0, 3), ()),
        ({"disjunctive": True}, OTHER, ((0, 1, 2),)),
        ({"disjunctive": False}, SUM, ()),
        ({"disjunctive_dim": 0}, OTHER, ((0, 1, 2),)),
    ],
)
def test_alternatives(options: dict[str, Any], probs: torch.Tensor, groups: Any) -> None:
    assert InputMapping(range(3), **options).groups(probs) == groups


def test_alternatives_of_several_dimensions() -> None:
    mapping = {0: range(2), 1: range(3)}
    rows = SUM[None].expand(4, -1, -1).reshape(4, 6)
    independent = torch.full((4, 6), 0.2)
    assert InputMapping(mapping).groups(rows) == ((0, 1, 2), (3, 4, 5))
    assert InputMapping(mapping).groups(independent) == ()
    assert InputMapping(mapping, disjunctive=True).groups(rows) == (tuple(range(6)),)
    # as scallopy's: the alternatives of one another differ in this dimension
    assert InputMapping(mapping, disjunctive_dim=0).groups(rows) == ((0, 3), (1, 4), (2, 5))
    assert InputMapping(mapping, disjunctive_dim=1).groups(rows) == ((0, 1, 2), (3, 4, 5))


# Output mappings


@pytest.mark.parametrize(
    ("mapping", "tuples", "single"),
    [
        (range(2), ((0,), (1,)), False),
        ([False, True], ((False,), (True,)), False),
        ([(1, "a"), (2, "b")], ((1, "a"), (2, "b")), False),
        (["ab"], (("ab",),), False),
        ([()], ((),), False),
        ((1, 2), ((1, 2),), True),
        ((), ((),), True),
    ],
)
def test_output_mappings(mapping: Any, tuples: Any, single: bool) -> None:
    made = output_mapping(mapping, "r")
    assert made == OutputMapping(tuples, single)
    assert output_mapping(made, "r") is made


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ([], "the output mapping of r is empty"),
        (range(0), "the output mapping of r is empty"),
        (3, "the output mapping of r is 3: give a list"),
        ("ab", "is 'ab': give a list"),
        ({0: [1]}, r"is \{0: \[1\]\}"),
        ([[1, 2]], r"has the element \[1, 2\]"),
    ],
)
def test_what_is_no_output_mapping(mapping: Any, message: str) -> None:
    with pytest.raises(ByssusError, match=message):
        output_mapping(mapping, "r")
    assert output_mapping(None, "r") is None


# Collections


def test_a_collection_is_sorted() -> None:
    rows = [(0.5, (2, "b")), (0.25, (10, "a")), (0.125, (2, "a"))]
    found = ScallopCollection("minmaxprob", rows, ("i32", "String"))
    assert list(found) == [(0.125, (2, "a")), (0.5, (2, "b")), (0.25, (10, "a"))]
    assert list(found) == list(found)
    assert len(found) == 3
    assert repr(found) == "{0.125::(2, 'a'), 0.5::(2, 'b'), 0.25::(10, 'a')}"
    assert found.provenance == "minmaxprob"


@pytest.mark.parametrize("provenance", ["unit", "proofs"])
def test_without_tags_there_are_tuples(provenance: str) -> None:
    found = ScallopCollection(provenance, [(True, (1,)), (True, (0,))], ("i32",))
    assert list(found) == [(0,), (1,)]
    assert repr(found) == "{(0), (1)}"


def test_values_as_python_has_them() -> None:
    types = ("DateTime", "Duration", "char", "bool", "f32")
    texts = ("2020-01-31", "2 days", "x", True, 0.5)
    row = tuple(map(_values.convert, texts, types, types))
    ((_, values),) = ScallopCollection("exact", [(1.0, row)], types)
    assert isinstance(values[0], str)
    assert values[0].startswith("2020-01-31")
    assert isinstance(values[1], str)
    assert values[2:] == ("x", True, 0.5)
    tensors = [(0.5, (_values.Tensor(torch.zeros(i)),)) for i in (2, 1)]
    assert [len(t) for _, (t,) in ScallopCollection("exact", tensors, ("Tensor",))] == [2, 1]


def test_order_of_values() -> None:
    def ordered(values: list[Any], type_: str) -> list[Any]:
        rows = [(1.0, (value,)) for value in values]
        return [value for _, (value,) in ScallopCollection("exact", rows, (type_,))]

    assert ordered([True, False], "bool") == [False, True]
    assert ordered([0.5, -1.0, float("inf")], "f64") == [-1.0, 0.5, float("inf")]


def test_tensors_as_tags() -> None:
    tag = torch.tensor(0.25, requires_grad=True)
    found = ScallopCollection("difftopkproofs", [(tag, (1,))], ("i32",))
    assert next(iter(found))[0] is tag
    assert repr(found) == "{0.25::(1)}"


# CSV options


def test_csv_options() -> None:
    plain = CSVFileOptions("a.csv")
    assert (plain.path, plain.deliminator, plain.has_header) == ("a.csv", None, False)
    assert (plain.has_probability, plain.keys, plain.fields) == (False, None, None)
    keyed = CSVFileOptions("a.csv", "\t", keys="id")
    assert (keyed.deliminator, keyed.keys, keyed.has_header) == ("\t", ["id"], True)
    assert plain.with_fields(["x", "y"]).has_header
    assert plain.with_keys(["a", "b"]).keys == ["a", "b"]
    assert plain.with_deliminator(";").deliminator == ";"
    assert plain.deliminator is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": [3]}, r"keys=\[3\]"),
        ({"fields": ["a", 3]}, "fields="),
        ({"deliminator": "ab"}, "deliminator='ab'"),
    ],
)
def test_csv_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ByssusError, match=message):
        CSVFileOptions("a.csv", **options)
