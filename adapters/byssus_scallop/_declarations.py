"""What a program declares: types, constants, algebraic data types, relations, attributes."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from byssus import ByssusError, ProgramError

from ._inference import conflict
from ._syntax import (
    AlgebraicType,
    AliasType,
    Attribute,
    Constants,
    EnumType,
    Expression,
    Fact,
    FactSet,
    FunctionType,
    Import,
    Item,
    Query,
    ReduceRule,
    RelationType,
    RelationTypes,
    Rule,
    Source,
    Span,
    SubType,
    TypeName,
)
from ._types import ALIASES, TYPES
from .foreign import ForeignPredicate

__all__ = [
    "ConstantDeclaration",
    "CsvFile",
    "Declarations",
    "RelationDeclaration",
    "Variant",
    "meant",
    "placed",
]


@dataclass(frozen=True)
class Variant:
    """A variant of an algebraic data type: `Cons(i32, List)`.

    Attributes:
        name: the functor.
        types: the types of its arguments.
        relation: the hidden relation of its entities, `(entity, *arguments)`.
        span: where it is declared.
    """

    name: str
    types: tuple[str, ...]
    relation: str
    span: Span


@dataclass(frozen=True)
class ConstantDeclaration:
    """A constant.

    Attributes:
        name: of the constant.
        type: its declared type, or None.
        value: an expression; the number itself for a member of an enumeration.
        position: the item that declares it, counted from 0: rules after it see it.
        span: where it is declared.
        type_span: where its type stands.
    """

    name: str
    type: str | None
    value: Expression | int
    position: int
    span: Span
    type_span: Span | None = None


@dataclass(frozen=True)
class CsvFile:
    """The file of a relation's facts, and how to read it (options of `_csv.read`)."""

    path: str
    options: dict[str, Any]
    span: Span


@dataclass
class RelationDeclaration:
    """The declared type of a relation.

    Attributes:
        name: of the relation.
        types: of its columns.
        columns: their names, where they have one.
        places: where each type stands.
        span: where it is declared.
        file: of its facts.
    """

    name: str
    types: tuple[str, ...]
    columns: tuple[str | None, ...]
    places: tuple[Span, ...]
    span: Span
    file: CsvFile | None = None


@dataclass(frozen=True)
class Demand:
    """Which arguments of an on-demand relation are bound ("bf"), and where that is said."""

    pattern: str
    span: Span


_ARGUMENTS = {"file": None, "demand": 1, "hidden": 0, "tagged": 0, "goal": 0}
"""Attributes of the language, and how many positional arguments they take, if it is fixed."""

_CHOICES = {"scheduler": ("lfp", "dfs", "astar", "beam"), "storage": ("sorted", "indexed_vec")}
_STANDARD = {*_ARGUMENTS, *_CHOICES, "no_temp_relation"}
_FILE_OPTIONS = ("deliminator", "has_header", "header", "has_probability", "keys", "fields")


def meant(name: str, known: Iterable[str]) -> str:
    """A hint at the name that was meant, or nothing."""
    close = difflib.get_close_matches(name, [one for one in known if "#" not in one], 1)
    return f"; did you mean `{close[0]}`?" if close else ""


@dataclass
class Declarations:
    """What the items of a program declare.

    Attributes:
        items: all items.
        relations: declared relations.
        variants: by functor.
        constants: by name.
        demands: the patterns of on-demand relations.
        hidden: relations that users do not see.
        outputs: the files of queries, by position of the item.
        handled: the attributes that processors have dealt with.
        blackboxes: names of relations and functions (with their dollar) that are black boxes.
        functions: names of foreign functions.
        predicates: foreign predicates by name.
    """

    items: Sequence[Item]
    handled: Collection[str] = ()
    blackboxes: Collection[str] = ()
    functions: Collection[str] = ()
    predicates: Mapping[str, ForeignPredicate] = field(default_factory=dict)
    relations: dict[str, RelationDeclaration] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)
    constants: dict[str, ConstantDeclaration] = field(default_factory=dict)
    demands: dict[str, Demand] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    outputs: dict[int, str] = field(default_factory=dict)
    _named: dict[str, tuple[TypeName | str, Span]] = field(default_factory=dict)
    _goal: tuple[str, Span] | None = None

    def read(self, relations: Mapping[str, tuple[str, ...]]) -> None:
        """Read all items, and the relations that Python code declares."""
        for item in self.items:
            self._check_attributes(item)
            if isinstance(item, AliasType | SubType):
                self._name_type(item.name, item.type, item.span)
            elif isinstance(item, EnumType):
                self._name_type(item.name, "usize", item.span)
            elif isinstance(item, AlgebraicType):
                self._name_type(item.name, "Entity", item.span)
        for name in self._named:
            self._resolve(name)
        for position, item in enumerate(self.items):
            if isinstance(item, EnumType):
                self._read_enum(item, position)
            elif isinstance(item, AlgebraicType):
                self._read_variants(item)
            elif isinstance(item, Constants):
                for name, kind, value, span in item.assignments:
                    declared = None if kind is None else self.type(kind)
                    place = None if kind is None else kind.span
                    self._add_constant(
                        ConstantDeclaration(name, declared, value, position, span, place)
                    )
            elif isinstance(item, RelationTypes):
                self._read_relations(item)
            elif isinstance(item, FunctionType):
                self._read_function(item)
            elif isinstance(item, Rule):
                self._read_rule(item)
            elif isinstance(item, Query) and (file := _find(item.attributes, "file")):
                self.outputs[position] = _csv_file(file).path
            if isinstance(item, Rule | Fact | FactSet | ReduceRule):
                self._check_defined(item)
        for name, types in relations.items():
            self._add_python(name, types)
        self._check_demands()

    # Types

    def type(self, name: TypeName) -> str:
        """The value type that a name of a type stands for."""
        text = ALIASES.get(name.name, name.name)
        if text in TYPES:
            return text
        if text not in self._named:
            hint = meant(text, [*self._named, *TYPES])
            raise name.span.error(f"unknown custom type `{name.name}`{hint}")
        return self._resolve(text)

    def python_type(self, name: str, where: Span) -> str:
        """The value type that a name given by Python code stands for."""
        return self.type(TypeName(where, name))

    def _name_type(self, name: str, meaning: TypeName | str, span: Span) -> None:
        if name in self._named:
            raise conflict(
                f"duplicated type declaration found for `{name}`. It is originally defined here:",
                self._named[name][1],
                "while we find a duplicated declaration here:",
                span,
            )
        if name in TYPES or name in ALIASES:
            raise span.error(f"`{name}` is a type of the language; choose another name")
        self._named[name] = meaning, span

    def _resolve(self, name: str) -> str:
        seen = [name]
        while True:
            meaning = self._named[seen[-1]][0]
            if isinstance(meaning, str):
                found = meaning
                break
            text = ALIASES.get(meaning.name, meaning.name)
            if text in TYPES:
                found = text
                break
            if text in seen:
                chain = " = ".join([*seen[seen.index(text) :], text])
                place = self._named[text][1]
                raise place.error(f"the type `{text}` is declared as itself: {chain}")
            if text not in self._named:
                hint = meant(text, [*self._named, *TYPES])
                raise meaning.span.error(f"unknown custom type `{text}`{hint}")
            seen.append(text)
        for one in seen:
            self._named[one] = found, self._named[one][1]
        return found

    def _read_variants(self, item: AlgebraicType) -> None:
        for name, types, span in item.variants:
            if name in self.variants:
                raise conflict(
                    f"duplicated Algebraic Data Type variant `{name}`. It is first declared here:",
                    self.variants[name].span,
                    "while we find a duplicated declaration here:",
                    span,
                )
            found = tuple(self.type(one) for one in types)
            relation = f"adt#{name}"
            self.variants[name] = Variant(name, found, relation, span)
            self.hidden.add(relation)
            self.relations[relation] = RelationDeclaration(
                relation,
                ("Entity", *found),
                (None,) * (1 + len(found)),
                (span, *(one.span for one in types)),
                span,
            )

    # Constants

    def _read_enum(self, item: EnumType, position: int) -> None:
        value = -1
        for name, given, span in item.members:
            if given is None:
                value += 1
            elif given.kind != "int":
                raise given.span.error(
                    f"bad enum value. Expected unsigned integers, found `{given.span}`"
                )
            elif given.value < 0:
                raise given.span.error(
                    f"enum value `{given.value}` found to be negative. Expected unsigned integers"
                )
            elif given.value <= value:
                raise span.error(
                    f"the enum ID `{given.value}` for variant `{name}` has already been assigned; "
                    f"give it one above {value}"
                )
            else:
                value = given.value
            self._add_constant(ConstantDeclaration(name, "usize", value, position, span))

    def _add_constant(self, constant: ConstantDeclaration) -> None:
        before = self.constants.get(constant.name)
        if before is not None:
            raise conflict(
                f"duplicated declaration of constant `{constant.name}`. First declared here:",
                before.span,
                "duplicate definition here:",
                constant.span,
            )
        self.constants[constant.name] = constant

    # Relations

    def _read_relations(self, item: RelationTypes) -> None:
        file = _find(item.attributes, "file")
        demand = _find(item.attributes, "demand")
        for relation in item.relations:
            types = tuple(self.type(argument.type) for argument in relation.arguments)
            if item.extern:
                self._check_extern(relation, types)
                continue
            self._check_name(relation.name, relation.span)
            if before := self.relations.get(relation.name):
                raise conflict(
                    f"duplicated relation type declaration found for `{relation.name}`. It is "
                    "originally defined here:",
                    before.span,
                    "while we find a duplicated declaration here:",
                    relation.span,
                )
            self.relations[relation.name] = RelationDeclaration(
                relation.name,
                types,
                tuple(argument.name for argument in relation.arguments),
                tuple(argument.type.span for argument in relation.arguments),
                relation.span,
                None if file is None else _csv_file(file),
            )
            self._mark(relation.name, len(types), item.attributes, relation.span)
            if relation.name in self.blackboxes:
                continue
            if demand is not None:
                self._demand(relation.name, demand)
            elif any(argument.adornment == "bound" for argument in relation.arguments):
                pattern = "".join(
                    "b" if argument.adornment == "bound" else "f" for argument in relation.arguments
                )
                self.demands[relation.name] = Demand(pattern, relation.span)

    def _check_extern(self, relation: RelationType, types: tuple[str, ...]) -> None:
        expected = self.predicates.get(relation.name)
        if expected is None:
            raise relation.span.error(
                f"the predicate `{relation.name}` is declared `extern` but is not registered as a "
                f"foreign predicate{meant(relation.name, self.predicates)}"
            )
        if expected.types != types:
            raise relation.span.error(
                f"the extern predicate `{relation.name}` is declared with the types "
                f"({', '.join(types)}), but the foreign predicate has ({', '.join(expected.types)})"
            )

    def _read_function(self, item: FunctionType) -> None:
        for argument in item.arguments:
            self.type(argument.type)
        self.type(item.result)
        if f"${item.name}" not in self.blackboxes and item.name not in self.functions:
            raise item.span.error(
                f"the function `${item.name}` is declared, but nothing says what it does: "
                "register it as a foreign function, or make it a black box with "
                '`@blackbox("file.py:name")`'
            )

    def _read_rule(self, item: Rule) -> None:
        demand = _find(item.attributes, "demand")
        for head in item.heads:
            self._mark(head.predicate, len(head.arguments), item.attributes, head.span)
            if demand is not None:
                self._demand(head.predicate, demand)

    def _mark(self, name: str, arity: int, attributes: Sequence[Attribute], span: Span) -> None:
        if _find(attributes, "hidden"):
            self.hidden.add(name)
        if goal := _find(attributes, "goal"):
            if arity:
                raise span.error(
                    f"@goal annotated relation must be of arity-0; however we find the relation "
                    f"`{name}` to have arity {arity}"
                )
            if self._goal is not None and self._goal[0] != name:
                raise conflict(
                    "There are more than one relations that are annotated with @goal, where there "
                    f"could be at most 1. One of them is `{self._goal[0]}`:",
                    self._goal[1],
                    f"and the second is `{name}`:",
                    goal.span,
                )
            self._goal = name, goal.span

    def _demand(self, name: str, attribute: Attribute) -> None:
        pattern = attribute.positional[0]
        if not isinstance(pattern, str) or set(pattern) - {"b", "f"}:
            raise attribute.span.error(
                f"invalid demand pattern {pattern!r}: it has a letter for each argument, b where "
                'it is bound and f where it is free, as in @demand("bf")'
            )
        before = self.demands.get(name)
        if before is not None and before.pattern != pattern:
            raise conflict(
                f"conflicting demand pattern for `{name}`. First defined here:",
                before.span,
                "re-defined here:",
                attribute.span,
            )
        self.demands[name] = Demand(pattern, attribute.span)

    def _check_demands(self) -> None:
        for item in self.items:
            if isinstance(item, Rule) and item.exclusive:
                for head in item.heads:
                    if head.predicate in self.demands:
                        raise item.span.error(
                            f"the predicate `{head.predicate}` is on demand, but occurs in a "
                            "disjunctive rule head; derive it from another relation"
                        )
        self.demands = {
            name: demand for name, demand in self.demands.items() if "b" in demand.pattern
        }

    def _check_name(self, name: str, span: Span) -> None:
        # One with type parameters is called with them, and so can be told from a relation.
        if name in self.predicates and not self.predicates[name].generics:
            raise span.error(
                f"the predicate `{name}` is being defined here, but it is also a foreign predicate "
                "which cannot be populated; choose another name"
            )

    def _check_defined(self, item: Rule | Fact | FactSet | ReduceRule) -> None:
        if isinstance(item, Rule):
            heads = [(head.predicate, head.span) for head in item.heads]
        elif isinstance(item, Fact):
            heads = [(item.atom.predicate, item.atom.span)]
        else:
            heads = [(item.name, item.span)]
        for name, span in heads:
            self._check_name(name, span)
            if name in self.blackboxes:
                raise span.error(
                    f"the relation `{name}` is a black box: its tuples come from calls, and "
                    "cannot be derived"
                )
            if isinstance(item, Fact | FactSet | ReduceRule) and _find(item.attributes, "hidden"):
                self.hidden.add(name)

    def _add_python(self, name: str, types: tuple[str, ...]) -> None:
        text = f"type {name}({', '.join(types)})"
        span = Span(Source(text), 5, len(text))
        self._check_name(name, span)
        found = tuple(self.python_type(one, span) for one in types)
        before = self.relations.get(name)
        if before is not None:
            if before.types != found:
                raise conflict(
                    f"the relation `{name}` is declared twice, with different types, here:",
                    before.span,
                    "and here:",
                    span,
                )
            return
        self.relations[name] = RelationDeclaration(
            name, found, (None,) * len(found), (span,) * len(found), span
        )
        if "#" in name:
            self.hidden.add(name)

    # Attributes

    def _check_attributes(self, item: Item) -> None:
        if isinstance(item, Import):
            return
        for attribute in item.attributes:
            name = attribute.name
            if name in self.handled:
                continue
            if name not in _STANDARD:
                known = sorted({*_STANDARD, *self.handled})
                raise attribute.span.error(
                    f"Unknown attribute `@{name}`{meant(name, known)}; register a processor for "
                    "it, or leave it out"
                )
            count = _ARGUMENTS.get(name)
            if count is not None and len(attribute.positional) != count:
                raise attribute.span.error(
                    f"@{name} takes {count or 'no'} argument{'' if count == 1 else 's'}, and here "
                    f"are {len(attribute.positional)}"
                )
            if name in _CHOICES:
                value = attribute.positional[0] if attribute.positional else None
                if not isinstance(value, str):
                    raise attribute.span.error(f'@{name} needs a name, as in @{name}("...")')
                if value not in _CHOICES[name]:
                    raise attribute.span.error(
                        f"Unknown {name} `{value}` for @{name} attribute; there are "
                        f"{', '.join(_CHOICES[name])}"
                    )


def _find(attributes: Sequence[Attribute], name: str) -> Attribute | None:
    return next((one for one in attributes if one.name == name), None)


def _csv_file(attribute: Attribute) -> CsvFile:
    """What `@file(...)` says."""
    span = attribute.span
    if len(attribute.positional) != 1 or not isinstance(path := attribute.positional[0], str):
        raise span.error('@file takes the path of a file, as in @file("edge.csv")')
    if not path.endswith(".csv"):
        raise span.error(f"@file reads and writes files that end in .csv, and {path!r} does not")
    options: dict[str, Any] = {}
    for key, value in attribute.keywords.items():
        if key not in _FILE_OPTIONS:
            raise span.error(f"@file has no option `{key}`{meant(key, _FILE_OPTIONS)}")
        options["header" if key == "has_header" else key] = _file_option(key, value, span)
    return CsvFile(path, options, span)


def _file_option(key: str, value: Any, span: Span) -> Any:
    if key == "deliminator":
        if isinstance(value, str) and len(value) == 1 and value.isascii():
            return value
        raise span.error(f"the deliminator of @file is one ASCII character, not {value!r}")
    if key in ("header", "has_header", "has_probability"):
        if isinstance(value, bool):
            return value
        raise span.error(f"{key} of @file is true or false, not {value!r}")
    if key == "keys" and isinstance(value, str):
        return [value]
    listed = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    if not listed or (key == "keys" and not value):
        raise span.error(f"{key} of @file is a list of strings, not {value!r}")
    return list(value)


def placed(span: Span, error: ByssusError) -> ProgramError:
    """An error without a place, at this place."""
    return error if isinstance(error, ProgramError) else span.error(str(error))
