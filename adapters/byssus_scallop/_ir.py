"""What the engine runs: rules in normal form, over typed relations.

A program is lowered to this form once. Every disjunction has become several rules, the parts of a
body stand in the order in which they are evaluated, every variable is bound before it is used, and
aggregations, demand and calls of black boxes have become relations of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byssus import BlackBox

    from ._syntax import Span

__all__ = [
    "Absent",
    "Aggregate",
    "Any_",
    "Apply",
    "Bind",
    "BlackBoxRelation",
    "Check",
    "Column",
    "Const",
    "Fact",
    "Filter",
    "Foreign",
    "Let",
    "Program",
    "Query",
    "Relation",
    "Rule",
    "Scan",
    "Step",
    "Term",
    "Var",
]

# Terms: expressions over variables that are bound


@dataclass(frozen=True)
class Const:
    """A value, as the engine holds it, and the name of its type where it is known."""

    value: Hashable
    kind: str = field(default="", compare=False)


@dataclass(frozen=True)
class Var:
    """A variable of the rule."""

    name: str


@dataclass(frozen=True)
class Apply:
    """A function of terms.

    Attributes:
        function: called with the arguments' values. It raises `Dropped` where it has no result
            (division by zero, overflow, a string that does not parse), and the tuple is dropped.
        source: a Python expression with places `{0}`, `{1}`, ... that does the same as the
            function and is faster (`"{0} < {1}"`), or None. Names in it: those of
            `_operators.NAMES`.
        kind: the name of its type.
        written: the same in Scallop's language, where it means exactly the same there.
    """

    function: Callable[..., Hashable]
    arguments: tuple[Term, ...]
    source: str | None = None
    kind: str = field(default="", compare=False)
    written: str | None = field(default=None, compare=False)


Term = Const | Var | Apply

# Columns of a scan


@dataclass(frozen=True)
class Bind:
    """Binds a variable that is not bound yet; not the same one twice in a scan."""

    name: str


@dataclass(frozen=True)
class Check:
    """The column equals this term; it may use variables bound by earlier columns and steps."""

    term: Term


@dataclass(frozen=True)
class Any_:  # noqa: N801
    """Whatever the column holds."""


Column = Bind | Check | Any_

# Steps of a body


@dataclass(frozen=True)
class Scan:
    """A positive atom.

    Attributes:
        relation: what is scanned.
        columns: what each column binds or must equal.
        origin: which scan of the rule it is, as written; the same after `reorder`.
    """

    relation: str
    columns: tuple[Column, ...]
    origin: int = -1


@dataclass(frozen=True)
class Absent:
    """A negated atom; all its terms are bound."""

    relation: str
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Filter:
    """A Boolean term that must be true."""

    term: Term


@dataclass(frozen=True)
class Let:
    """Binds a variable to the value of a term."""

    name: str
    term: Term


@dataclass(frozen=True)
class Foreign:
    """A foreign predicate, evaluated in place.

    Attributes:
        name: what it is called in messages.
        function: called with the values of `inputs`, gives an iterable of `(tag, outputs)`; a tag
            of None is certain, another is a probability (float or scalar tensor) or a bool.
        columns: for the outputs.
        kinds: the names of the types of all inputs and outputs.
    """

    name: str
    function: Callable[..., Any]
    inputs: tuple[Term, ...]
    columns: tuple[Column, ...]
    kinds: tuple[str, ...] = field(default=(), compare=False)


Step = Scan | Absent | Filter | Let | Foreign


@dataclass(frozen=True)
class Rule:
    """`head(terms) :- steps`.

    Attributes:
        span: where it comes from.
        tag: a term whose value (a float or a bool) is the rule's probability: each ground instance
            with its own is a concept of its own. None for 1.
        exclusive: for a rule with one of several heads: `(group, alternative, alternatives)`. The
            ground instances with the same group and the same values of `key` are one concept of
            so many values (all equally probable), and this rule holds at one of them.
        key: terms that tell ground instances apart, for `tag` and `exclusive`. For a tag these
            are all the variables of the body, for exclusive heads those of the heads, as in
            Scallop.
        certain: whether what it derives is certain where its body is possible at all: the tag of
            the head is then one. So derived are demand and entities.
    """

    head: str
    terms: tuple[Term, ...]
    steps: tuple[Step, ...]
    span: Span
    tag: Term | None = None
    exclusive: tuple[int, int, int] | None = None
    key: tuple[Term, ...] = ()
    certain: bool = False

    @property
    def which(self) -> Hashable:
        """What tells the rule from others, but not from its alternatives."""
        # Rules that are added one by one are texts of their own.
        group = () if self.exclusive is None else self.exclusive[:1]
        return ("rule", id(self.span.source), self.span.start, *group)


@dataclass(frozen=True)
class Aggregate:
    """A relation that aggregates another: `head(group, other, results)`.

    Attributes:
        head: the relation that it fills. Its columns: the group's (joined, then other), then the
            results.
        operator: "count", "sum", ...
        parameters: positional parameters, as values.
        named: named parameters.
        single_world: whether only tuples count, not worlds (`count!`).
        body: the relation that is aggregated. Its columns: the group (`group` many), the arguments
            (`arguments` many), the bindings.
        groups: the relation of explicit groups (`where`), or None. Its columns: the group's
            `group` many that are joined with the body, then `other` more.
        types: the types of the body's columns after the group's: arguments, then bindings.
        span: where it stands.
    """

    head: str
    operator: str
    parameters: tuple[Hashable, ...]
    named: dict[str, Hashable]
    single_world: bool
    body: str
    group: int
    arguments: int
    types: tuple[str, ...]
    span: Span
    groups: str | None = None
    other: int = 0


@dataclass(frozen=True)
class BlackBoxRelation:
    """A relation whose tuples come from calls.

    A call's arguments are the tuples of `asked`; its answers, appended to them, are the tuples of
    `name`. With `over`, the arguments are the contents of whole relations instead.

    Attributes:
        name: the relation of arguments and answers.
        asked: the relation of argument tuples, which rules derive; None with `over`.
        box: what is called.
        inputs, outputs: how many columns are arguments, and how many are answers.
        over: relations whose whole contents are the arguments, one each.
        convert: from an answer of the box to pairs of a probability (None for certain) and an
            output tuple; the uncertain ones exclude one another.
        samples: worlds an example where it is sampled, or None.
        span: where it was declared.
    """

    name: str
    asked: str | None
    box: BlackBox
    inputs: int
    outputs: int
    span: Span
    convert: Callable[[Any], list[tuple[Any, tuple[Hashable, ...]]]]
    over: tuple[str, ...] = ()
    samples: int | None = None

    @property
    def times(self) -> int:
        """How many calls an evaluation is: of a language model one for each vote."""
        question = getattr(self.box, "question", None)
        return 1 if question is None else int(question.votes)

    @property
    def budget(self) -> int | None:
        """The most calls that there may be, ever; None for no limit."""
        question = getattr(self.box, "question", None)
        budget = {} if question is None else question.budget
        return budget.get("calls", self.box.caller.budget)


@dataclass(frozen=True)
class Relation:
    """A relation: its column types by name ("i32", "String", ...), and whether users see it."""

    name: str
    types: tuple[str, ...]
    hidden: bool = False
    columns: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Fact:
    """A fact of the program's text or of a file.

    Attributes:
        tag: None for certain, else a probability or a bool.
        group: facts with one group are alternatives of one another; None for none.
    """

    relation: str
    values: tuple[Hashable, ...]
    tag: float | bool | None = None
    group: int | None = None


@dataclass(frozen=True)
class Query:
    """What is asked for: the relation to print, under this name; `file` for `@file` on a query."""

    relation: str
    name: str
    file: str | None = None


@dataclass(frozen=True)
class Program:
    """A lowered program."""

    relations: dict[str, Relation]
    rules: tuple[Rule, ...] = ()
    facts: tuple[Fact, ...] = ()
    aggregates: tuple[Aggregate, ...] = ()
    blackboxes: tuple[BlackBoxRelation, ...] = ()
    queries: tuple[Query, ...] = ()
