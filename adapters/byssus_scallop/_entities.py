"""Entities: names of the objects of algebraic data types."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from byssus import ByssusError, ProgramError

from . import _parser
from ._declarations import Variant
from ._syntax import Constant, Expression, Object, Source, Unary
from ._values import Dropped, Entity, literal

__all__ = ["EntityText", "entity_of", "text_of"]


def entity_of(variant: Variant, values: Sequence[Hashable]) -> Entity:
    """The entity of a variant with these arguments: the same ones, the same entity, always."""
    named = [
        Entity(value) if kind == "Entity" else value  # type: ignore[call-overload]
        for kind, value in zip(variant.types, values, strict=True)
    ]
    text = repr((variant.name, variant.types, tuple(named)))
    return Entity.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class EntityText:
    """An entity that was given as text.

    Attributes:
        entity: its name.
        parts: the tuples of variants that say what it and its parts are, by functor.
    """

    entity: Entity
    parts: dict[str, tuple[tuple[Hashable, ...], ...]]

    @staticmethod
    def parse(text: str, variants: Mapping[str, Variant]) -> EntityText:
        """Read `Cons(1, Nil())`.

        Raises:
            Dropped: it is no entity of these variants.
        """
        return _parse(text, tuple(variants.values()))

    @staticmethod
    def read(text: str, variants: Mapping[str, Variant]) -> EntityText:
        """The same, also of what `text_of` gives."""
        if text.startswith("#"):
            return EntityText(Entity(text[1:]), {})
        return EntityText.parse(text, variants)


def text_of(value: str | int) -> str:
    """An entity as text, whether it was given as its text or as its name."""
    return f"#{value:d}" if isinstance(value, Entity) else str(value)


@lru_cache(maxsize=10_000)
def _parse(text: str, known: tuple[Variant, ...]) -> EntityText:
    variants = {variant.name: variant for variant in known}
    try:
        root = _parser.parse_expression(Source(text))
    except ProgramError:
        raise Dropped("text that is no entity") from None
    order: list[tuple[Expression, str]] = []
    stack: list[tuple[Expression, str]] = [(root, "Entity")]
    while stack:
        node, kind = stack.pop()
        order.append((node, kind))
        if isinstance(node, Object):
            variant = variants.get(node.functor)
            if variant is None or len(variant.types) != len(node.arguments):
                raise Dropped("an entity of an unknown variant")
            stack += zip(node.arguments, variant.types, strict=True)
    done: dict[int, Hashable] = {}
    parts: dict[str, dict[tuple[Hashable, ...], None]] = {}
    for node, kind in reversed(order):
        if isinstance(node, Object):
            values = tuple([done[id(argument)] for argument in node.arguments])
            entity = entity_of(variants[node.functor], values)
            parts.setdefault(node.functor, {})[entity, *values] = None
            done[id(node)] = entity
        else:
            done[id(node)] = _literal(node, kind)
    found = done[id(root)]
    if not isinstance(found, Entity):
        raise Dropped("text that is no entity")
    return EntityText(found, {name: tuple(rows) for name, rows in parts.items()})


def _literal(node: Expression, kind: str) -> Hashable:
    if isinstance(node, Unary) and node.op == "-" and isinstance(node.operand, Constant):
        node = Constant(node.span, node.operand.kind, -node.operand.value)
    if not isinstance(node, Constant):
        raise Dropped("an entity with a variable")
    try:
        value: Any = literal(node.kind, node.value, kind)
    except ByssusError:
        raise Dropped(f"an entity with a value that is no {kind}") from None
    found: Hashable = value
    return found
