"""Foreign attributes: Python functions that turn a declaration into a foreign function.

```python
@foreign_attribute
def adds(item, amount):
    @foreign_function(name=item.function_decl_name())
    def add(x: i32) -> i32:
        return x + amount

    return add
```

Registered with a context, it makes `@adds(3) type $compute(x: i32) -> i32` the function that adds
three. What the function gets as `item` is a view of the declaration with the names that Scallop's
has.
"""

from __future__ import annotations

import functools
from argparse import ArgumentError, ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from byssus import ByssusError, ProgramError

from ._syntax import Attribute, FunctionType, Item, RelationType, RelationTypes
from ._types import FAMILIES
from .foreign import (
    Decorated,
    ForeignFunction,
    ForeignPredicate,
    foreign_function,
    foreign_predicate,
)

__all__ = [
    "AttributeAction",
    "ErrorAction",
    "ForeignAttributeProcessor",
    "ItemNode",
    "MultipleActions",
    "NoAction",
    "RegisterForeignFunctionAction",
    "RegisterForeignPredicateAction",
    "RemoveItemAction",
    "TypeNode",
    "cmd_arg",
    "foreign_attribute",
    "py_eval",
]

# What an attribute asks for


class AttributeAction:
    """What is to be done with the item that the attribute stands on."""


@dataclass(frozen=True)
class NoAction(AttributeAction):
    """Leave the item as it is."""


@dataclass(frozen=True)
class RemoveItemAction(AttributeAction):
    """Take the item out of the program."""


@dataclass(frozen=True)
class ErrorAction(AttributeAction):
    """Refuse the program."""

    msg: str


@dataclass(frozen=True)
class RegisterForeignFunctionAction(AttributeAction):
    """Register a foreign function."""

    foreign_function: ForeignFunction


@dataclass(frozen=True)
class RegisterForeignPredicateAction(AttributeAction):
    """Register a foreign predicate."""

    foreign_predicate: ForeignPredicate


@dataclass(frozen=True)
class MultipleActions(AttributeAction):
    """Several actions, in this order."""

    actions: Sequence[AttributeAction]


# What an attribute sees


class _Node:
    """`is_something()` is false for all that a node is not."""

    def __getattr__(self, name: str) -> Callable[[], bool]:
        if name.startswith("is_"):
            return lambda: False
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


class TypeNode(str):
    """A type: its name, and `is_string()`, `is_i32()`, ..."""

    def name(self) -> str:
        """The type's name, `"i32"`."""
        return str(self)

    def to_python_type(self) -> type[int | float | bool | str]:
        """The Python type of its values.

        Raises:
            ByssusError: if they have none.
        """
        if self in FAMILIES["Integer"] or self in FAMILIES["Float"]:
            return int if self in FAMILIES["Integer"] else float
        if self == "bool":
            return bool
        if self == "Tensor":
            raise ByssusError("the values of Tensor are of no plain Python type")
        return str

    def parse_value(self, text: Any) -> int | float | bool | str:
        """A value from text, as language models and command lines give it."""
        python = self.to_python_type()
        if python is bool:
            return str(text) in ("true", "True")
        if python is int and not isinstance(text, int):
            try:
                return int(text)
            except ValueError:
                return int(float(text))
        return python(text)

    def __getattr__(self, name: str) -> Callable[[], bool]:
        if name.startswith("is_"):
            return lambda: self.lower() == name.removeprefix("is_")
        raise AttributeError(f"a type has no attribute {name!r}")


@dataclass(frozen=True)
class NameNode(_Node):
    """A name."""

    name: str


@dataclass(frozen=True)
class AdornmentNode(_Node):
    """`bound` or `free`."""

    word: str

    def is_bound(self) -> bool:
        """Whether it is `bound`."""
        return self.word == "bound"

    def is_free(self) -> bool:
        """Whether it is `free`."""
        return self.word == "free"


@dataclass(frozen=True)
class ArgumentNode(_Node):
    """An argument of a declaration; `name` and `adornment` are None where they are not written."""

    name: NameNode | None
    ty: TypeNode
    adornment: AdornmentNode | None


@dataclass(frozen=True)
class RelationNode(_Node):
    """The declaration of one relation."""

    name: NameNode
    arg_bindings: list[ArgumentNode]


class ItemNode(_Node):
    """An item of a program, as an attribute sees it.

    Attributes:
        node: the item.
        attribute: the attribute.
        resolve: from the name of a type, which the program may declare, to a value type.
    """

    def __init__(self, node: Item, attribute: Attribute, resolve: Callable[[str], str]) -> None:
        self.node = node
        self.attribute = attribute
        self.resolve = resolve

    def is_function_decl(self) -> bool:
        """Whether it is `type $f(...) -> T`."""
        return isinstance(self.node, FunctionType)

    def function_decl_name(self) -> str:
        """The function's name."""
        return self._function().name

    def function_decl_arg_types(self) -> list[TypeNode]:
        """The types of the function's arguments."""
        return [self._type(argument.type.name) for argument in self._function().arguments]

    def function_decl_ret_type(self) -> TypeNode:
        """The type of the function's result."""
        return self._type(self._function().result.name)

    def is_relation_decl(self) -> bool:
        """Whether it is `type r(...)`."""
        return isinstance(self.node, RelationTypes)

    def relation_decls(self) -> list[RelationNode]:
        """The relations that it declares."""
        if not isinstance(self.node, RelationTypes):
            raise ByssusError("this is no declaration of a relation")
        return [self._relation(relation) for relation in self.node.relations]

    def relation_decl(self, i: int) -> RelationNode:
        """One of the relations that it declares."""
        return self.relation_decls()[i]

    def _function(self) -> FunctionType:
        if not isinstance(self.node, FunctionType):
            raise ByssusError("this is no declaration of a function")
        return self.node

    def _relation(self, relation: RelationType) -> RelationNode:
        arguments = [
            ArgumentNode(
                None if argument.name is None else NameNode(argument.name),
                self._type(argument.type.name),
                None if argument.adornment is None else AdornmentNode(argument.adornment),
            )
            for argument in relation.arguments
        ]
        return RelationNode(NameNode(relation.name), arguments)

    def _type(self, name: str) -> TypeNode:
        return TypeNode(self.resolve(name))


class ForeignAttributeProcessor(Decorated):
    """A foreign attribute.

    Attributes:
        name: the attribute's name, without the at-sign.
        processor: called with the item and the attribute's arguments. It returns None (nothing is
            to be done), a foreign function or predicate (which takes the item's place), an action,
            or a list of these.
    """

    def __init__(self, name: str, processor: Callable[..., Any]) -> None:
        self.name = name
        self.func = self.processor = processor
        self.wrap()

    def __repr__(self) -> str:
        return f"ForeignAttributeProcessor(@{self.name})"

    def apply(
        self, item: Item, attribute: Attribute, resolve: Callable[[str], str] = str
    ) -> list[AttributeAction]:
        """What is to be done with an item, in this order; none of it `NoAction` or several.

        Args:
            item: what the attribute stands on.
            attribute: the attribute.
            resolve: from a type's name to a value type, for types that the program declares.

        Raises:
            ProgramError: with the attribute's place, whatever the function raises.
        """
        try:
            view = ItemNode(item, attribute, resolve)
            result = self.processor(view, *attribute.positional, **attribute.keywords)
            return list(_actions(result))
        except ProgramError:
            raise
        except Exception as error:
            why = str(error) or type(error).__name__
            raise attribute.span.error(f"@{self.name}: {why}") from error


def _actions(result: Any) -> Iterator[AttributeAction]:
    if isinstance(result, list | MultipleActions):
        for one in result.actions if isinstance(result, MultipleActions) else result:
            yield from _actions(one)
    elif isinstance(result, ForeignFunction):
        yield from (RemoveItemAction(), RegisterForeignFunctionAction(result))
    elif isinstance(result, ForeignPredicate):
        yield from (RemoveItemAction(), RegisterForeignPredicateAction(result))
    elif isinstance(result, ErrorAction):
        raise ByssusError(result.msg)
    elif isinstance(result, AttributeAction):
        if not isinstance(result, NoAction):
            yield result
    elif result is not None:
        raise ByssusError(
            f"it returns {result!r}: return None, a foreign function or predicate, or an action"
        )


def foreign_attribute(function: Callable[..., Any]) -> ForeignAttributeProcessor:
    """Make a Python function an attribute of declarations, `@name(arguments)`."""
    return ForeignAttributeProcessor(str(getattr(function, "__name__", "attribute")), function)


# The standard ones


def cmd_arg(arguments: Sequence[str]) -> ForeignAttributeProcessor:
    """The attribute `@cmd_arg("-n", long="--number", default=3)` on `type number(i32)`.

    The relation holds the value of the argument on the command line, or the default, or nothing.

    Args:
        arguments: the command line, of which only what attributes name is looked at.
    """
    return ForeignAttributeProcessor("cmd_arg", functools.partial(_cmd_arg, tuple(arguments)))


def _cmd_arg(
    arguments: Sequence[str],
    item: ItemNode,
    short: str,
    *,
    long: str | None = None,
    default: Any = None,
) -> ForeignPredicate:
    if not item.is_relation_decl() or len(item.relation_decls()) != 1:
        raise ByssusError('declare one relation with it, `@cmd_arg("-n") type number(i32)`')
    relation = item.relation_decl(0)
    if len(relation.arg_bindings) != 1:
        raise ByssusError(
            f"{relation.name.name} has {len(relation.arg_bindings)} columns, and an argument of "
            "the command line is one value: declare one column"
        )
    type = relation.arg_bindings[0].ty  # noqa: A001
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(*([short] if long is None else [short, long]), dest="value")
    try:
        given = parser.parse_known_args(list(arguments))[0].value
        if type == "bool" and given not in (None, "true", "True", "false", "False"):
            raise ValueError
        value = default if given is None else type.parse_value(given)
    except ArgumentError as error:
        raise ByssusError(f"{error} on the command line: give a value, a {type}") from None
    except ValueError:
        raise ByssusError(f"{short} is {given!r} on the command line, which is no {type}") from None
    decorate = foreign_predicate(
        name=relation.name.name, input_arg_types=[], output_arg_types=[type]
    )
    return decorate(functools.partial(_one, value))


def _one(value: Any) -> list[tuple[Any]]:
    return [] if value is None else [(value,)]


@foreign_attribute
def py_eval(item: ItemNode, *, suppress_warning: bool = True) -> ForeignFunction:
    """The attribute `@py_eval` on `type $name(text: String) -> T`: Python evaluates the text."""
    if not item.is_function_decl() or item.function_decl_arg_types() != ["String"]:
        raise ByssusError("declare a function of one String with it, `type $f(s: String) -> f32`")
    decorate = foreign_function(
        name=item.function_decl_name(),
        ret_type=item.function_decl_ret_type(),
        suppress_warning=suppress_warning,
    )
    return decorate(_evaluate)


def _evaluate(text: str) -> Any:
    return eval(text, {})
