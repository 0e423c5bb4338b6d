"""The standard foreign predicates: the book's, and what the real Scallop gives at the edges."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from byssus_scallop._predicates import PREDICATES
from byssus_scallop._types import FAMILIES, TYPES
from byssus_scallop._values import Tensor

NAMES = [
    "datetime_ymd",
    "float_eq",
    "new_tag_variable",
    "range",
    "soft_eq",
    "soft_gt",
    "soft_lt",
    "soft_neq",
    "string_chars",
    "string_find",
    "string_index",
    "string_split",
    "tensor_shape",
]


def call(name: str, parameters: str, *inputs: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    """The tagged outputs of a predicate."""
    return list(PREDICATES[name].implement(tuple(parameters.split()))(*inputs))


def test_all_are_there() -> None:
    assert sorted(PREDICATES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_types_are_known(name: str) -> None:
    predicate = PREDICATES[name]
    assert predicate.name == name
    assert set(predicate.types) <= TYPES | predicate.generics.keys()
    assert set(predicate.generics.values()) <= FAMILIES.keys()
    assert predicate.bound <= len(predicate.types)


@pytest.mark.parametrize(
    ("name", "parameters", "inputs", "expected"),
    [
        ("range", "i32", (0, 5), [(0,), (1,), (2,), (3,), (4,)]),
        ("range", "u8", (250, 255), [(250,), (251,), (252,), (253,), (254,)]),
        ("range", "i32", (5, 1), []),
        ("string_chars", "", ("aïb",), [(0, "a"), (1, "ï"), (2, "b")]),
        ("string_index", "", ("aïb",), [(0,), (1,), (2,), (3,)]),
        ("string_find", "", ("aaaa", "aa"), [(0, 2), (2, 4)]),
        ("string_find", "", ("abc", ""), [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ("string_find", "", ("naïveï", "ï"), [(2, 4), (6, 8)]),
        ("string_find", "", ("abc", "d"), []),
        ("string_split", "", ("a,b,,c", ","), [("a",), ("b",), ("",), ("c",)]),
        ("string_split", "", ("abc", ""), [("",), ("a",), ("b",), ("c",), ("",)]),
        ("datetime_ymd", "", (datetime(2012, 9, 17, 10, tzinfo=UTC),), [(2012, 9, 17)]),
        ("tensor_shape", "", (Tensor(torch.ones(2, 3)),), [(0, 2), (1, 3)]),
        ("tensor_shape", "", (Tensor(torch.tensor(1.0)),), []),
        ("new_tag_variable", "", (), [()]),
        ("float_eq", "f32", (1.0, 1.0001), [()]),
        ("float_eq", "f64", (1.0, 1.01), []),
        ("float_eq", "f64", (math.inf, math.inf), [()]),
    ],
)
def test_certain(
    name: str, parameters: str, inputs: tuple[Any, ...], expected: list[tuple[Any, ...]]
) -> None:
    assert call(name, parameters, *inputs) == [(None, values) for values in expected]


@pytest.mark.parametrize(
    ("name", "probability"),
    [
        # Of 1 and 2, as the real Scallop prints them.
        ("soft_eq", 0.8868188839700739),
        ("soft_neq", 0.11318111602992609),
        ("soft_gt", 0.2689414213699951),
        ("soft_lt", 0.7310585786300049),
    ],
)
@pytest.mark.parametrize("type_", ["f32", "f64"])
def test_soft_comparisons(name: str, probability: float, type_: str) -> None:
    [(tag, values)] = call(name, type_, 1.0, 2.0)
    assert tag == pytest.approx(probability, abs=1e-12)
    assert values == ()


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_soft_comparisons_are_probabilities(a: float, b: float) -> None:
    tags = {
        name: call(name, "f64", a, b)[0][0]
        for name in ["soft_eq", "soft_neq", "soft_gt", "soft_lt"]
    }
    assert all(0 <= tag <= 1 for tag in tags.values())
    assert tags["soft_eq"] + tags["soft_neq"] == pytest.approx(1)
    assert tags["soft_gt"] + tags["soft_lt"] == pytest.approx(1)
    if a == b:
        assert (tags["soft_eq"], tags["soft_gt"]) == (1, 0.5)


def test_soft_equality_of_tensors() -> None:
    a, b, c = (Tensor(torch.tensor(v)) for v in ([1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]))
    for x, y, expected in [(a, a, 1.0), (a, b, 0.5), (a, c, 0.0)]:
        [(alike, _)] = call("soft_eq", "Tensor", x, y)
        [(unlike, _)] = call("soft_neq", "Tensor", x, y)
        assert alike.item() == pytest.approx(expected)
        assert unlike.item() == pytest.approx(1 - expected)


def test_soft_equality_of_tensors_has_a_gradient() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    [(tag, _)] = call("soft_eq", "Tensor", Tensor(x), Tensor(torch.tensor([2.0, 1.0])))
    tag.backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
