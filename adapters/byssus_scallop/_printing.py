"""Programs in normal form as text for Scallop's own compiler.

Under a custom provenance Scallop loses the probabilities of a text, and to aggregate uncertain
tuples it goes through all their subsets. So what depends on either is a relation that byssus fills
between runs: the answers of black boxes, the results of aggregations, and for a rule with a
probability its coins. The rule itself is cut in two; of `rel 0.5::path(x) = edge(x, y)` Scallop
reads

    rel byssus_inst_0(x, y) = edge(x, y)
    rel path(x) = byssus_inst_0(x, y) and byssus_coin_0(x, y)

but for the names of variables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from byssus import ByssusError

from ._ir import (
    Absent,
    Any_,
    Apply,
    Bind,
    Check,
    Column,
    Const,
    Filter,
    Foreign,
    Let,
    Program,
    Rule,
    Scan,
    Step,
    Term,
    Var,
)
from ._planning import Reversible
from ._syntax import Span
from ._types import TYPES

__all__ = ["Coin", "NotPrinted", "Printed", "printed", "scallops"]

_OURS = "byssus_"
_TRUE = "byssus_true"
_CERTAIN = "byssus_certain"
_ATOMS = 6
_OPERATORS = 12
"""Operators in an expression: Scallop reads deep ones on the stack, and has 127 a rule at most."""

_VARIABLE = re.compile(r"\bbyssus_v\d+\b")
_PLAIN = re.compile(r"[ !#-\[\]-~]*")  # printable, without quotes and backslashes


_COMPARISONS = frozenset(f"({{0}} {op} {{1}})" for op in ("!=", "<", "<=", ">", ">="))
_REFUSED = frozenset({"DateTime", "Duration", "Tensor"})
"""Types whose values Scallop does not give back as it takes them."""

_RESULTS = TYPES - _REFUSED
"""The types of what Scallop takes from Python."""


class NotPrinted(ByssusError):  # noqa: N818
    """A program that cannot be given to Scallop in normal form."""

    def __init__(self, what: str, span: Span | None = None) -> None:
        super().__init__(
            f"{what}{'' if span is None else f' in line {span.line}'}, which Scallop does not "
            'exchange with Python code: take backend="embedded"'
        )


@dataclass(frozen=True)
class Coin:
    """A rule whose ground instances hold by chance.

    Attributes:
        instances: the relation of its ground instances: the key, then the probability if it is
            computed.
        coins: the relation that says which of them hold: the key.
        which: what is the same for rules that are alternatives of one another.
        probability: None if there are alternatives, or if it is computed.
        alternative: which of the alternatives this rule is.
        alternatives: how many there are; 0 for a rule with a probability.
    """

    instances: str
    coins: str
    which: Hashable
    probability: float | bool | None
    alternative: int = 0
    alternatives: int = 0


@dataclass(frozen=True)
class Called:
    """A function of Python's that rules call.

    Attributes:
        name: in the text.
        function: raises `Dropped` where there is no result.
        arguments: how many there are.
        result: the type of the result.
        span: of the rule.
    """

    name: str
    function: Callable[..., Any]
    arguments: int
    result: str
    span: Span


@dataclass(frozen=True)
class Yielding:
    """A foreign predicate that rules scan; see `_ir.Foreign`.

    Attributes:
        name: in the text.
        foreign: the predicate.
        span: of the rule.
    """

    name: str
    foreign: Foreign
    span: Span


@dataclass
class Printed:
    """A program for Scallop.

    Attributes:
        text: its declarations and rules; facts are not in it.
        certain: the relation whose tuple turns the tag of another into one; see `Callbacks`.
        names: for each relation what it is called in the text.
        constants: relations of one fact each, for values that cannot be written.
        functions, predicates: what is to be registered before.
        coins: rules that hold by chance, with their heads.
    """

    text: str = ""
    certain: str = _CERTAIN
    names: dict[str, str] = field(default_factory=dict)
    constants: list[tuple[str, tuple[Hashable, ...]]] = field(default_factory=list)
    functions: list[Called] = field(default_factory=list)
    predicates: list[Yielding] = field(default_factory=list)
    coins: list[tuple[str, Coin]] = field(default_factory=list)


def scallops(kind: str) -> str:
    """The type in Scallop of a column: of one that takes values from Python's functions too."""
    return {"Entity": "u64", "Symbol": "String"}.get(kind, kind)


def printed(program: Program) -> Printed:
    """The text of a program.

    Raises:
        NotPrinted: it has values that Scallop does not exchange with Python code.
    """
    printer = _Printer(program)
    for rule in program.rules:
        printer.rule(rule)
    printer.found.text = "\n".join(printer.lines)
    return printer.found


class _Printer:
    def __init__(self, program: Program) -> None:
        self.found = Printed(constants=[(_TRUE, ())])
        self.lines = [f"type {name}()" for name in (_TRUE, _CERTAIN, f"{_OURS}none")]
        for i, (name, relation) in enumerate(program.relations.items()):
            plain = name.isidentifier() and name.isascii()
            if plain and name.startswith(_OURS):
                raise ByssusError(
                    f"the relation {name}: names that begin with {_OURS} are byssus's own; rename "
                    "it"
                )
            for kind in _REFUSED & set(relation.types):
                raise NotPrinted(f"{name} has a column of type {kind}")
            ident = self.found.names[name] = name if plain else f"{_OURS}r{i}"
            self.declare(ident, relation.types)
        self.functions: dict[tuple[int, str, int, int], Called] = {}
        self.variables: dict[str, str] = {}
        self.parts: list[str] = []
        self.count = self.joined = 0

    def declare(self, name: str, types: Iterable[str]) -> None:
        columns = ", ".join(f"c{i}: {kind}" for i, kind in enumerate(map(scallops, types)))
        self.lines.append(f"type {name}({columns})")

    def fresh(self) -> str:
        self.count += 1
        return f"{_OURS}v{self.count - 1}"

    # Rules

    def rule(self, rule: Rule) -> None:
        self.variables, self.parts, self.count, self.span = {}, [], 0, rule.span
        kinds = [type(step) for step in rule.steps]
        if Foreign in kinds and Scan not in kinds[: kinds.index(Foreign)]:
            self.parts.append(f"{_TRUE}()")  # else Scallop may find nothing to begin with
        for step in rule.steps:
            self.step(step)
        head = self.found.names[rule.head]
        if rule.certain:
            names = [self.named(term) for term in rule.terms]
            whole = self.part([self.body(names)], names)
            self.lines.append(f"rel {head}({', '.join(names)}) = {whole} and {_CERTAIN}()")
            return
        if rule.tag is None and rule.exclusive is None:
            terms = ", ".join([self.flat(term) for term in rule.terms])
            self.lines.append(f"rel {head}({terms}) = {self.body([terms])}")
            return
        self.chance(rule, head)

    def body(self, needed: Sequence[str]) -> str:
        """A body of a few atoms, in which the variables of some texts are bound."""
        parts = self.parts or [f"{_TRUE}()"]
        # Scallop's time to plan a body doubles with each atom.
        while len(parts) > _ATOMS:
            first, parts = parts[:_ATOMS], parts[_ATOMS:]
            later = set(_VARIABLE.findall(" ".join([*parts, *needed])))
            bound = dict.fromkeys(_VARIABLE.findall(" ".join(first)))
            parts = [self.part(first, [v for v in bound if v in later]), *parts]
        return " and ".join(parts)

    def part(self, body: Sequence[str], variables: Iterable[str]) -> str:
        """An atom of a relation of its own that a body derives."""
        atom = f"{_OURS}part_{self.joined}({', '.join(variables)})"
        self.joined += 1
        self.lines.append(f"rel {atom} = {' and '.join(body)}")
        return atom

    def chance(self, rule: Rule, head: str) -> None:
        """A rule that is cut in two: its ground instances, and those of them that hold."""
        key = [self.named(term) for term in rule.key]
        terms = [self.named(term) for term in rule.terms]
        tags = []
        probability = None
        if isinstance(rule.tag, Const):
            assert rule.tag.value is None or isinstance(rule.tag.value, float | int | bool)
            probability = rule.tag.value
        elif rule.tag is not None:
            tags = [self.named(rule.tag)]
        number = len(self.found.coins)
        instances, coins = f"{_OURS}inst_{number}", f"{_OURS}coin_{number}"
        whole = f"{_OURS}body_{number}"
        body = self.body([*terms, *key, *tags])
        shown = ", ".join
        self.lines += [
            f"rel {whole}({shown([*terms, *key, *tags])}) = {body}",
            f"rel {instances}({shown([*key, *tags])}) = "
            f"{whole}({shown([*('_' for _ in terms), *key, *tags])})",
            # It derives nothing, but says the types of the coins.
            f"rel {coins}({shown(key)}) = "
            f"{instances}({shown([*key, *('_' for _ in tags)])}) and {_OURS}none()",
            f"rel {head}({shown(terms)}) = "
            f"{whole}({shown([*terms, *key, *('_' for _ in tags)])}) and {coins}({shown(key)})",
        ]
        alternative = alternatives = 0
        if rule.exclusive is not None:
            _, alternative, alternatives = rule.exclusive
        coin = Coin(instances, coins, rule.which, probability, alternative, alternatives)
        self.found.coins.append((rule.head, coin))

    # Steps

    def step(self, step: Step) -> None:
        if isinstance(step, Scan):
            self.scan(self.found.names[step.relation], [], step.columns)
        elif isinstance(step, Absent):
            self.absent(step)
        elif isinstance(step, Filter):
            self.parts.append(self.formula(step.term))
        elif isinstance(step, Let):
            self.let(step)
        else:
            for kind in {*step.kinds} - _RESULTS:
                raise NotPrinted(f"{step.name} has a column of type {kind}", self.span)
            name = f"{_OURS}pred_{len(self.found.predicates)}"
            self.found.predicates.append(Yielding(name, step, self.span))
            self.scan(name, [self.flat(term) for term in step.inputs], step.columns)

    def absent(self, step: Absent) -> None:
        defined: list[str] = []
        terms = [self.flat(self.total(term, defined)) for term in step.terms]
        name = self.found.names[step.relation]
        if defined:
            columns = [self.fresh() for _ in terms]
            atom = f"{name}({', '.join(columns)})"
            name = self.part([atom], [*columns, *("true" for _ in defined)]).partition("(")[0]
            terms += defined
        atom = f"{name}({', '.join(terms)})"
        variables = list(filter(_VARIABLE.fullmatch, terms))
        if len(terms) > len(variables) > len(set(variables)):
            # Scallop does not negate an atom with both a constant and a variable twice.
            atom = self.part([atom], dict.fromkeys(variables))
        self.parts.append(f"not {atom}")

    def total(self, term: Term, defined: list[str]) -> Term:
        """A column that always has a value, which counts where all of `defined` are true.

        Beyond the range of its type a sum equals no column, but Scallop would drop the tuple.
        """
        if not isinstance(term, Reversible) or not term.exact:
            return term
        function = term.function
        arguments = tuple([self.total(argument, defined) for argument in term.arguments])
        has = Apply(lambda *values: function(*values) is not None, arguments, kind="bool")
        defined.append(self.flat(has))
        return Apply(lambda *values: function(*values) or 0, arguments, kind=term.kind)

    def scan(self, name: str, first: Sequence[str], columns: Sequence[Column]) -> None:
        shown = list(first)
        for column in columns:
            if isinstance(column, Bind):
                self.variables[column.name] = self.fresh()
                shown.append(self.variables[column.name])
            elif isinstance(column, Any_):
                shown.append("_")
            else:
                shown.append("")
        for i, column in enumerate(columns, len(first)):
            if isinstance(column, Check):
                shown[i] = self.flat(column.term)
        self.parts.append(f"{name}({', '.join(shown)})")

    def let(self, step: Let) -> None:
        text = self.term(step.term)
        self.variables[step.name] = self.defined(text) if isinstance(step.term, Apply) else text

    def formula(self, term: Term) -> str:
        text = self.term(term)
        if isinstance(term, Apply) and term.written in _COMPARISONS:
            return text[1:-1]  # in parentheses it is no formula
        # Of what is computed Scallop takes `== true` for an assignment, and checks nothing.
        return f"{text} != false"

    # Terms

    def term(self, term: Term) -> str:
        """An expression; without recursion, as they may be deep."""
        done: dict[int, str] = {}
        sizes: dict[int, int] = {}
        stack: list[tuple[Term, bool]] = [(term, False)]
        while stack:
            node, ready = stack.pop()
            if isinstance(node, Const):
                done[id(node)] = self.constant(node)
            elif isinstance(node, Var):
                done[id(node)] = self.variables[node.name]
            elif not ready:
                stack.append((node, True))
                stack += [(argument, False) for argument in node.arguments]
            else:
                for argument in node.arguments:
                    if sizes.get(id(argument), 0) > _OPERATORS / len(node.arguments):
                        done[id(argument)] = self.defined(done[id(argument)])
                        sizes[id(argument)] = 0
                sizes[id(node)] = 1 + sum(sizes.get(id(one), 0) for one in node.arguments)
                arguments = [done[id(argument)] for argument in node.arguments]
                if node.written is not None:
                    done[id(node)] = node.written.format(*arguments)
                else:
                    called = self.called(node)
                    done[id(node)] = f"${called.name}({', '.join(arguments)})"
        return done[id(term)]

    def flat(self, term: Term) -> str:
        """A term as a column of an atom: a variable or a constant."""
        text = self.term(term)
        return self.defined(text) if isinstance(term, Apply) else text

    def named(self, term: Term) -> str:
        """A term as a variable."""
        if isinstance(term, Var):
            text = self.variables[term.name]
            if _VARIABLE.fullmatch(text):
                return text
        return self.defined(self.term(term))

    def defined(self, text: str) -> str:
        """A variable with the value of an expression."""
        variable = self.fresh()
        definition = f"{variable} == {text}"
        if not _VARIABLE.search(text):
            # Scallop may compare nothing with what is computed of such a variable alone.
            definition = self.part([definition], [variable])
        self.parts.append(definition)
        return variable

    def constant(self, const: Const) -> str:
        value = const.value
        if isinstance(value, bool):
            return "true" if value else "false"
        if type(value) is int and 0 <= value < 2**31:
            return str(value)
        plain = type(value) is str and _PLAIN.fullmatch(value) and _OURS not in value
        if plain and const.kind in ("String", "Symbol", ""):
            return f'"{value}"'
        kind = const.kind or _kind(value)
        if kind in _REFUSED:
            raise NotPrinted(f"there is a constant of type {kind}", self.span)
        name = f"{_OURS}const_{len(self.found.constants)}"
        self.declare(name, [kind])
        self.found.constants.append((name, (value,)))
        variable = self.fresh()
        self.parts.append(f"{name}({variable})")
        return variable

    def called(self, node: Apply) -> Called:
        count = len(node.arguments)
        key = id(node.function), node.kind, count, self.span.start
        if key not in self.functions:
            name = f"{_OURS}f{len(self.found.functions)}"
            if node.kind not in _RESULTS:
                raise NotPrinted(f"a value of type {node.kind or '?'} is computed", self.span)
            called = Called(name, node.function, count, scallops(node.kind), self.span)
            self.functions[key] = called
            self.found.functions.append(called)
        return self.functions[key]


def _kind(value: Hashable) -> str:
    return {int: "i64", float: "f64", str: "String"}.get(type(value), "String")
