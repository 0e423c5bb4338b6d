"""The value types of the language: their names, their families, and which one is the default."""

from __future__ import annotations

from typing import Any, TypeVar

from byssus import ByssusError

__all__ = [
    "ALIASES",
    "FAMILIES",
    "RANGES",
    "TYPES",
    "castable",
    "default",
    "python_type",
]

_SIGNED = ("i8", "i16", "i32", "i64", "i128", "isize")
_UNSIGNED = ("u8", "u16", "u32", "u64", "u128", "usize")
_FLOATS = ("f32", "f64")
_OTHERS = ("bool", "char", "String", "Symbol", "DateTime", "Duration", "Entity", "Tensor")

TYPES: frozenset[str] = frozenset(_SIGNED + _UNSIGNED + _FLOATS + _OTHERS)
"""The names of all value types."""

FAMILIES: dict[str, frozenset[str]] = {
    "Any": TYPES,
    "Number": frozenset(_SIGNED + _UNSIGNED + _FLOATS),
    "Integer": frozenset(_SIGNED + _UNSIGNED),
    "SignedInteger": frozenset(_SIGNED),
    "UnsignedInteger": frozenset(_UNSIGNED),
    "Float": frozenset(_FLOATS),
    "FloatOrTensor": frozenset((*_FLOATS, "Tensor")),
}
"""Families by name; what Scallop calls the family of strings is the type `String` alone."""

ALIASES: dict[str, str] = {"&str": "String"}
"""Other names of types."""


def _range(name: str) -> tuple[int, int]:
    bits = 64 if name.endswith("size") else int(name[1:])
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if name[0] == "i" else (0, (1 << bits) - 1)


RANGES: dict[str, tuple[int, int]] = {name: _range(name) for name in _SIGNED + _UNSIGNED}
"""The least and the greatest value of each integer type."""

_DEFAULTS = ("i32", "u32", "f32", "String")


def default(types: frozenset[str]) -> str:
    """The type of an expression of which only this much is known.

    A family with `i32` in it (so integers, numbers, anything) is `i32`, unsigned integers are
    `u32`, floats `f32`, and text is `String`.
    """
    return next((name for name in _DEFAULTS if name in types), None) or min(types)


def castable(source: str, target: str) -> bool:
    """Whether `x as target` is allowed for an `x` of type `source`.

    Numbers are cast to one another, characters to numbers (the digit) and to strings, everything
    to `String`, and a `String` is parsed as anything but an entity or a tensor.
    """
    if source == target or target == "String":
        return True
    if source == "String":
        return target not in ("Entity", "Tensor")
    return source in {*FAMILIES["Number"], "char"} and target in FAMILIES["Number"]


_PYTHON: dict[Any, str] = {int: "i32", bool: "bool", float: "f32", str: "String"}


def python_type(type_: Any) -> str:
    """The name of the type that a Python object stands for.

    Args:
        type_: a Python type (`int` is `i32`, `float` is `f32`), an object of `value_types`, the
            class of torch's tensors, or a name, which may be one that a program declares.

    Raises:
        ByssusError: for anything else.
    """
    if isinstance(type_, TypeVar):
        return type_.__name__
    if isinstance(type_, str):
        return ALIASES.get(type_, type_)
    if isinstance(name := getattr(type_, "__name__", None), str) and name == "Tensor":
        return name
    try:
        return _PYTHON[type_]
    except (KeyError, TypeError):
        raise ByssusError(
            f"{type_!r} is no type of a relation. Give int, float, bool, str, a type of "
            "byssus_scallop such as usize, or a name such as 'usize'."
        ) from None
