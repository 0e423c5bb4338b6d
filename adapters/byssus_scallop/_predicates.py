"""The standard foreign predicates.

As for functions, positions in strings count bytes of UTF-8, except in `string_chars`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from ._functions import byte_offset
from ._values import Tensor, rounded
from .foreign import ForeignPredicate

__all__ = ["PREDICATES"]

_Tagged = Iterable[tuple[Any, tuple[Any, ...]]]


def _certain(
    name: str,
    types: tuple[str, ...],
    bound: int,
    function: Callable[..., Iterable[tuple[Any, ...]]],
) -> ForeignPredicate:
    """A predicate whose tuples are certain, on types that are fixed."""

    def tagged(*inputs: Any) -> _Tagged:
        return ((None, outputs) for outputs in function(*inputs))

    return ForeignPredicate(name, types, bound, lambda types: tagged)


def _range(types: tuple[str, ...]) -> Callable[..., _Tagged]:
    return lambda begin, end: ((None, (i,)) for i in range(begin, end))


def _find(text: str, pattern: str) -> Iterator[tuple[int, int]]:
    length = byte_offset(pattern, len(pattern))
    index = text.find(pattern)
    while index >= 0:
        start = byte_offset(text, index)
        yield start, start + length
        index = text.find(pattern, index + max(1, len(pattern)))


def _split(text: str, pattern: str) -> Iterator[tuple[str]]:
    # At an empty pattern a string is split before, between and after all characters.
    parts = text.split(pattern) if pattern else ["", *text, ""]
    return ((part,) for part in parts)


def _date(when: datetime) -> list[tuple[int, int, int]]:
    return [(when.year, when.month, when.day)]


def _sigmoid(x: float) -> float:
    # Of two equal forms, the one that does not overflow.
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))


def _bell(x: float) -> float:
    """The hyperbolic secant of x/2: 1 at 0, and 0 far from it."""
    e = math.exp(-abs(x) / 2)
    return 2 * e / (1 + e * e)


def _cosine(x: Tensor, y: Tensor) -> Any:
    """How alike two tensors are, from 0 to 1; differentiable."""
    import torch

    a, b = (torch.as_tensor(v.value) for v in (x, y))
    return (torch.cosine_similarity(a, b, dim=0) + 1) / 2


def _soft(
    name: str,
    probability: Callable[[float], float],
    on_tensors: Callable[[Tensor, Tensor], Any] | None = None,
) -> ForeignPredicate:
    """A comparison of two numbers that holds with a probability, a function of their difference."""

    def implement(types: tuple[str, ...]) -> Callable[..., _Tagged]:
        if on_tensors is not None and types[0] == "Tensor":
            return lambda a, b: [(on_tensors(a, b), ())]
        if types[0] == "f32":
            return lambda a, b: [(probability(_difference(a, b, rounded)), ())]
        return lambda a, b: [(probability(_difference(a, b, float)), ())]

    family = "Float" if on_tensors is None else "FloatOrTensor"
    return ForeignPredicate(name, ("T", "T"), 2, implement, {"T": family})


def _difference(a: float, b: float, rounding: Callable[[float], float]) -> float:
    # Two infinities are equal, though their difference is not a number.
    return 0.0 if a == b else rounding(a - b)


def _float_eq(types: tuple[str, ...]) -> Callable[..., _Tagged]:
    def close(a: float, b: float) -> _Tagged:
        return [(None, ())] if abs(_difference(a, b, rounding)) < threshold else []

    rounding = rounded if types[0] == "f32" else float
    threshold = rounding(0.001)
    return close


PREDICATES: dict[str, ForeignPredicate] = {
    predicate.name: predicate
    for predicate in [
        ForeignPredicate("range", ("T", "T", "T"), 2, _range, {"T": "Integer"}),
        _certain("string_chars", ("String", "usize", "char"), 1, enumerate),
        _certain(
            "string_index",
            ("String", "usize"),
            1,
            lambda text: ((i,) for i in range(byte_offset(text, len(text)))),
        ),
        _certain("string_find", ("String", "String", "usize", "usize"), 2, _find),
        _certain("string_split", ("String", "String", "String"), 2, _split),
        _certain("datetime_ymd", ("DateTime", "i32", "u32", "u32"), 1, _date),
        _certain(
            "tensor_shape",
            ("Tensor", "usize", "i64"),
            1,
            lambda tensor: enumerate(map(int, tensor.value.shape)),
        ),
        _certain("new_tag_variable", (), 0, lambda: [()]),
        ForeignPredicate("float_eq", ("T", "T"), 2, _float_eq, {"T": "Float"}),
        _soft("soft_eq", _bell, _cosine),
        _soft("soft_neq", lambda x: 1 - _bell(x), lambda x, y: 1 - _cosine(x, y)),
        _soft("soft_gt", _sigmoid),
        _soft("soft_lt", lambda x: _sigmoid(-x)),
    ]
}
"""By name."""
