"""What scallopy's own decorators and plugins make, as byssus's, so that it mixes with all else.

Imports scallopy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import scallopy
import scallopy.attribute
from scallopy.scallopy import InternalScallopContext

from byssus import ByssusError

from ._callbacks import panics
from ._syntax import Fact, FactSet, Item, Rule
from .attribute import (
    AttributeAction,
    ErrorAction,
    ForeignAttributeProcessor,
    ItemNode,
    MultipleActions,
    NoAction,
    RegisterForeignFunctionAction,
    RegisterForeignPredicateAction,
    RemoveItemAction,
)
from .foreign import (
    ForeignFunction,
    ForeignPredicate,
    GenericTypeParameter,
    foreign_function,
    foreign_predicate,
)
from .input_mapping import InputMapping

__all__ = ["attribute", "function", "mapping", "predicate"]


def function(given: Any, resolve: Callable[[str], str] = str) -> Any:
    """A foreign function of scallopy as one of byssus; anything else as it is.

    Args:
        given: the function.
        resolve: from the name of a type, which a program may declare, to a value type.
    """
    if not isinstance(given, scallopy.ForeignFunction):
        return given
    generics = [GenericTypeParameter(family) for family in given.generic_type_params]

    def read(kind: Any) -> Any:
        if kind.kind == "generic":
            return generics[kind.id]
        return resolve(kind.type) if kind.kind == "base" else kind.type_family

    made: ForeignFunction = foreign_function(
        given.name,
        [read(kind) for kind in given.static_arg_types],
        [read(kind) for kind in given.optional_arg_types],
        None if given.var_arg_types is None else read(given.var_arg_types),
        read(given.return_type),
        given.suppress_warning,
    )(given.func)
    return made


def predicate(given: Any, resolve: Callable[[str], str] = str) -> Any:
    """A foreign predicate of scallopy as one of byssus; anything else as it is."""
    if not isinstance(given, scallopy.ForeignPredicate):
        return given
    if given.tag_type not in ("none", "prob", "bool", "diff-prob"):
        raise ByssusError(
            f"the foreign predicate {given.name} has tags of type {given.tag_type!r}: give None, "
            "float, bool or Tensor; results that exclude one another are those of a black box that "
            "returns a dictionary from results to probabilities"
        )
    made: ForeignPredicate = foreign_predicate(
        given.name,
        [resolve(kind.type) for kind in given.type_params],
        [resolve(kind.type) for kind in given.input_arg_types],
        [resolve(kind.type) for kind in given.output_arg_types],
        given.tag_type,
        given.suppress_warning,
    )(given.func)
    return made


def attribute(given: Any) -> Any:
    """A foreign attribute of scallopy as one of byssus; anything else as it is."""
    if not isinstance(given, scallopy.ForeignAttributeProcessor):
        return given
    return ForeignAttributeProcessor(given.name, functools.partial(_processed, given))


def mapping(given: Any) -> Any:
    """An input mapping of scallopy as one of byssus; anything else as it is."""
    if not isinstance(given, scallopy.InputMapping):
        return given
    return InputMapping(
        None if given.kind is None else given._source,
        # Scallop's default; the data may still decide.
        given.disjunctive or None,
        given.disjunctive_dim,
        given.retain_threshold,
        given.retain_k,
        given.sample_dim,
        given.sample_strategy,
    )


def _text_of(item: Item) -> str:
    """An item as it was written, without attributes; one that was added alone lacks a word."""
    text = str(item.span)
    bare = not isinstance(item, Fact | FactSet | Rule) or text.startswith("rel")
    return text if bare else f"rel {text}"


def _processed(given: Any, view: ItemNode, *positional: Any, **named: Any) -> AttributeAction:
    """What an attribute does with what Scallop's own parser makes of a declaration."""
    reader = _Reader(given.name)
    context: Any = InternalScallopContext(provenance="unit")
    context.register_foreign_attribute(reader)
    error = panics(lambda: context.add_program(f"@{given.name} {_text_of(view.node)}"))
    if reader.item is None:
        raise ByssusError(f"Scallop does not read this item: {error}") from error
    done = given.processor(reader.item, *positional, **named)
    return _action(scallopy.attribute.parse_processor_action(done), view.resolve)


class _Reader:
    """An attribute that keeps the item, of which Scallop is to do nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.item: Any = None

    def apply(self, item: Any, attribute: Any) -> Any:
        """What Scallop calls."""
        self.item = scallopy.AstNode.parse(item)
        return scallopy.attribute.RemoveItemAction()


def _action(action: Any, resolve: Callable[[str], str]) -> AttributeAction:
    if action.name == "multiple":
        return MultipleActions([_action(one, resolve) for one in action.actions])
    if action.name == "error":
        return ErrorAction(action.msg)
    if action.name == "register_foreign_function":
        return RegisterForeignFunctionAction(function(action.foreign_function, resolve))
    if action.name == "register_foreign_predicate":
        return RegisterForeignPredicateAction(predicate(action.foreign_predicate, resolve))
    return RemoveItemAction() if action.name == "remove_item" else NoAction()
