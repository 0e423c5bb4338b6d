"""Terms of ProbLog as Python values, and back; and the order of terms."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any

from problog.logic import (
    AnnotatedDisjunction,
    Clause,
    Constant,
    Or,
    Term,
    is_list,
    is_variable,
    list2term,
)

from byssus import ByssusError

_PLAIN = re.compile(r"[a-z]\w*", re.ASCII)


def to_python(term: Any) -> Hashable:
    """A term as a Python value.

    Numbers and strings as themselves, atoms as `str`, `true` and `false` as `bool`, lists as
    tuples. Any other compound term becomes its text.
    """
    if isinstance(term, Constant):
        value = term.functor
        quoted = isinstance(value, str) and value[:1] == value[-1:] == '"' and len(value) > 1
        result: Hashable = value[1:-1] if quoted else value
        return result
    if is_list(term):
        items = []
        while is_list(term):
            items.append(to_python(term.args[0]))
            term = term.args[1]
        return tuple(items)
    if term.arity == 0:
        text = str(term.functor)
        if text == "[]":
            return ()
        if text in ("true", "false"):
            return text == "true"
        if len(text) > 1 and text[0] == text[-1] == "'":
            return text[1:-1].replace("\\'", "'")
        return text
    return str(term)


def to_term(value: Any) -> Term:
    """The inverse of `to_python`."""
    if isinstance(value, bool):
        return Term("true" if value else "false")
    if isinstance(value, int | float):
        return Constant(value)
    if isinstance(value, str):
        escaped = value.replace("'", "\\'")
        return Term(value if _PLAIN.fullmatch(value) else f"'{escaped}'")
    if isinstance(value, tuple | list):
        return list2term([to_term(item) for item in value])
    if value is None:
        return Term("null")
    raise ByssusError(
        f"{value!r} of type {type(value).__name__} has no counterpart in ProbLog: return a "
        "number, a bool, a string, or a tuple of these"
    )


def heads_of(statement: Any) -> list[Any]:
    """The heads of a fact, a clause or a disjunction."""
    if isinstance(statement, AnnotatedDisjunction):
        return list(statement.heads)
    if isinstance(statement, Or):
        return list(statement.to_list())
    return [statement.head if isinstance(statement, Clause) else statement]


def body_of(statement: Any) -> Term | None:
    """The body of a clause or a disjunction; None where it has none, or it is `true`."""
    if not isinstance(statement, Clause | AnnotatedDisjunction) or statement.body == Term("true"):
        return None
    body: Term = statement.body
    return body


def order_key(term: Any) -> tuple[Any, ...]:
    """A key by which terms sort as people count: 2 before 10, i2 before i10, a before b."""
    if is_variable(term):
        return (0,)
    if isinstance(term, Constant) and isinstance(term.functor, int | float):
        return (1, term.functor)
    name = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(term.functor))]
    if term.arity == 0:
        return (2, name)
    return (3, term.arity, name, [order_key(argument) for argument in term.args])


def bindings(pattern: Any, ground: Any) -> Iterator[tuple[Any, Term]]:
    """The variables of a pattern, each with what stands in its place."""
    if is_variable(pattern):
        yield pattern, ground
    elif isinstance(pattern, Term) and isinstance(ground, Term):
        for part, other in zip(pattern.args, ground.args, strict=True):
            yield from bindings(part, other)
