"""The types of Scallop as Python objects: for relations of a context and for annotations.

`context.add_relation("digit", (i32, usize))`; `def lower(s: String) -> String: ...`
"""

from __future__ import annotations

from typing import TypeVar

__all__ = [
    "Any",
    "DateTime",
    "Duration",
    "Entity",
    "Float",
    "Integer",
    "Number",
    "SignedInteger",
    "String",
    "Symbol",
    "Tensor",
    "UnsignedInteger",
    "bool",
    "char",
    "f32",
    "f64",
    "i8",
    "i16",
    "i32",
    "i64",
    "i128",
    "isize",
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "usize",
]

# Type variables, as only they may stand both alone and inside `Facts[float, tuple[i32, i32]]`.
i8 = TypeVar("i8")
i16 = TypeVar("i16")
i32 = TypeVar("i32")
i64 = TypeVar("i64")
i128 = TypeVar("i128")
isize = TypeVar("isize")
u8 = TypeVar("u8")
u16 = TypeVar("u16")
u32 = TypeVar("u32")
u64 = TypeVar("u64")
u128 = TypeVar("u128")
usize = TypeVar("usize")
f32 = TypeVar("f32")
f64 = TypeVar("f64")
bool = TypeVar("bool")  # noqa: A001
char = TypeVar("char")
String = TypeVar("String")
Symbol = TypeVar("Symbol")
DateTime = TypeVar("DateTime")
Duration = TypeVar("Duration")
Entity = TypeVar("Entity")
Tensor = TypeVar("Tensor")

# Families, of which a use stands for any one member.
Any = TypeVar("Any")
Number = TypeVar("Number")
Integer = TypeVar("Integer")
SignedInteger = TypeVar("SignedInteger")
UnsignedInteger = TypeVar("UnsignedInteger")
Float = TypeVar("Float")
