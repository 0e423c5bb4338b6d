"""Scallop programs with byssus's provenances: `import byssus_scallop as scallopy`.

The language of Scallop, on an engine of its own: nothing but byssus need be installed.

`BlackBoxPlugin`, `PluginRegistry` and `Plugin` are there where scallopy is installed: Scallop's own
plugins, and the one that knows `@blackbox`.
"""

from typing import Any as _Any

from . import input_output as io
from ._semirings import ScallopProvenance
from .attribute import ForeignAttributeProcessor, foreign_attribute
from .collection import ScallopCollection
from .context import ScallopContext
from .extension import provenance
from .foreign import (
    Facts,
    ForeignFunction,
    ForeignPredicate,
    GenericTypeParameter,
    foreign_function,
    foreign_predicate,
)
from .input_mapping import InputMapping
from .module import ForwardFunction, ScallopForwardFunction
from .value_types import (
    Any,
    DateTime,
    Duration,
    Entity,
    Float,
    Integer,
    Number,
    SignedInteger,
    String,
    Symbol,
    Tensor,
    UnsignedInteger,
    bool,  # noqa: A004  # as in scallopy
    char,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
)

Context = ScallopContext
Module = ScallopForwardFunction
Provenance = ScallopProvenance
Map = InputMapping
Generic = GenericTypeParameter
ff = foreign_function
fp = foreign_predicate


def __getattr__(name: str) -> _Any:
    if name in ("BlackBoxPlugin", "Plugin", "PluginRegistry"):
        from .extension import loaded

        return getattr(loaded(name), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Any",
    "Context",
    "DateTime",
    "Duration",
    "Entity",
    "Facts",
    "Float",
    "ForeignAttributeProcessor",
    "ForeignFunction",
    "ForeignPredicate",
    "ForwardFunction",
    "Generic",
    "GenericTypeParameter",
    "InputMapping",
    "Integer",
    "Map",
    "Module",
    "Number",
    "Provenance",
    "ScallopCollection",
    "ScallopContext",
    "ScallopForwardFunction",
    "ScallopProvenance",
    "SignedInteger",
    "String",
    "Symbol",
    "Tensor",
    "UnsignedInteger",
    "bool",
    "char",
    "f32",
    "f64",
    "ff",
    "foreign_attribute",
    "foreign_function",
    "foreign_predicate",
    "fp",
    "i8",
    "i16",
    "i32",
    "i64",
    "i128",
    "io",
    "isize",
    "provenance",
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "usize",
]
