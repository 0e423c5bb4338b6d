"""From the text of a `.scl` program to its syntax tree.

The grammar stands in `grammar.lark`. The tree is built while the text is read, from the leaves up
and without recursion, so that no program is nested too deep.
"""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any, cast

from lark import Lark, UnexpectedCharacters, UnexpectedToken

from byssus import ProgramError

from ._syntax import (
    Expression,
    Fact,
    FactSet,
    Item,
    Query,
    ReduceRule,
    RelationType,
    Rule,
    Source,
    TypeName,
)
from ._syntax_errors import bracket_fault, unexpected_characters, unexpected_token
from ._tree_builder import TreeBuilder

__all__ = [
    "parse_expression",
    "parse_item",
    "parse_program",
    "parse_query",
    "parse_relation_type",
    "parse_rule",
    "parse_type",
]


def parse_program(source: Source) -> list[Item]:
    """The items of a program, in order.

    Raises:
        ProgramError: the text is no program; the message shows the place and the mend.
    """
    return cast(list[Item], _parse(source, "program"))


def parse_item(source: Source) -> Item:
    """A single item, such as `type edge(x: i32, y: i32)`."""
    return cast(Item, _parse(source, "item"))


def parse_rule(source: Source) -> Rule | ReduceRule | Fact | FactSet:
    """A rule or fact, with `rel` or without: `path(a, c) = path(a, b), edge(b, c)`."""
    return cast(Rule | ReduceRule | Fact | FactSet, _parse(source, "single_rule"))


def parse_relation_type(source: Source) -> RelationType:
    """A relation and the types of its arguments: `edge(i32, i32)`."""
    return cast(RelationType, _parse(source, "relation_type"))


def parse_query(source: Source) -> Query:
    """What is queried: `path` or `path(0, x)`."""
    return cast(Query, _parse(source, "query"))


def parse_expression(source: Source) -> Expression:
    """An expression or an entity: `x + 1`, `Cons(1, Nil())`."""
    return cast(Expression, _parse(source, "single_expression"))


def parse_type(source: Source) -> TypeName:
    """The name of a type: `i32`, `Color`."""
    return cast(TypeName, _parse(source, "type_name"))


# The builder holds the source that is being read.
_LOCK = Lock()


@cache
def _lark() -> tuple[Lark, TreeBuilder]:
    """The parser, built when it is first used: this takes half a second."""
    builder = TreeBuilder()
    starts = ["program", "item", "single_rule", "relation_type", "query", "single_expression"]
    lark = Lark.open(
        "grammar.lark",
        rel_to=__file__,
        parser="lalr",
        lexer="basic",
        start=[*starts, "type_name"],
        transformer=builder,
    )
    return lark, builder


def _parse(source: Source, start: str) -> Any:
    with _LOCK:
        lark, builder = _lark()
        builder.source = source
        try:
            return lark.parse(source.text, start=start)
        except UnexpectedToken as error:
            raise unexpected_token(source, lark, error) from None
        except UnexpectedCharacters as error:
            raise unexpected_characters(source, error) from None
        except ProgramError as error:
            # A bracket that is not closed makes nonsense of what follows it.
            brackets = bracket_fault(source, lark, error.line or 1)
            if brackets is None:
                raise
            raise brackets from None
