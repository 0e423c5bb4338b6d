"""From a rule to a Python function: nested loops over indexed tables.

A rule is run millions of times, so it is not interpreted: its loops are written out as Python
source once, for each provenance's way of combining tags, and compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import _operators
from ._ir import (
    Absent,
    Apply,
    Bind,
    Check,
    Column,
    Const,
    Filter,
    Foreign,
    Let,
    Rule,
    Scan,
    Step,
    Term,
    Var,
)

__all__ = ["Compiled", "Style", "compile_rule"]

_LOOPS = 8
"""Loops in one function: Python nests at most 20 blocks."""

_DEPTH = 12
"""Operators within one another in one Python expression; deeper ones go through variables."""

_MANY = 16
"""From so many candidates on, those are looked up that a tag's worlds have at all."""

Compiled = Callable[..., None]
"""`rule(tables, tags, new, drop)`: adds what the rule derives to `new`."""


@dataclass(frozen=True)
class Style:
    """How generated code treats tags.

    Attributes:
        tagged: whether there are any.
        mult: Python source of the product of `{0}` and `{1}`, or None to call `tags.mult`.
        possible: source of whether tag `{0}` is possible, or None to call `tags.possible`.
        joins: whether `tags.join` narrows candidates down.
    """

    tagged: bool = True
    mult: str | None = None
    possible: str | None = None
    joins: bool = False


def compile_rule(
    rule: Rule,
    steps: Sequence[Step],
    style: Style,
    first: bool = False,
    old: frozenset[int] = frozenset(),
) -> Compiled:
    """Compile a rule.

    Args:
        rule: the rule.
        steps: its steps, in the order to run them in.
        style: how to treat tags.
        first: whether the first scan goes through what the last round has changed only.
        old: origins of scans that skip what the last round has changed.
    """
    return _Writer(rule, style, first, old).compile(steps)


class _Writer:
    """Writes one function, in parts that call each other."""

    def __init__(self, rule: Rule, style: Style, first: bool, old: frozenset[int]) -> None:
        self.rule = rule
        self.style = style
        self.first = first
        self.old = old
        self.variables: dict[str, str] = {}
        self.namespace: dict[str, Any] = dict(_operators.NAMES)
        self.namespace["Dropped"] = _operators.Dropped
        self.setup: list[str] = []
        self.tables: dict[tuple[str, str], str] = {}
        self.lines: list[str] = []
        self.indent = 2
        self.loops = 0
        self.part = 0
        self.count = 0
        self.tag: str | None = None
        self.bodies: list[list[str]] = []
        self.parameters: dict[int, list[str]] = {}

    def compile(self, steps: Sequence[Step]) -> Compiled:
        for step in steps:
            if self.loops >= _LOOPS:
                self.split()
            getattr(self, f"write_{type(step).__name__.lower()}")(step)
        self.write_head()
        self.bodies.append(self.lines)
        text = ["def rule(T, A, new, drop):", *self.setup]
        for part in range(len(self.bodies) - 1, 0, -1):
            names = ", ".join(self.parameters[part])
            text += [f"    def part{part}({names}):", "        for _ in (None,):"]
            text += ["    " + line for line in self.bodies[part]]
        text += ["    for _ in (None,):", *self.bodies[0]]
        exec("\n".join(text), self.namespace)
        compiled: Compiled = self.namespace["rule"]
        return compiled

    # Writing

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def split(self) -> None:
        """Go on in another function."""
        self.part += 1
        names = [*self.variables.values()] + ([self.tag] if self.tag else [])
        self.parameters[self.part] = names
        self.line(f"part{self.part}({', '.join(names)})")
        self.bodies.append(self.lines)
        self.lines, self.indent, self.loops = [], 2, 0

    def value(self, prefix: str, value: Any) -> str:
        name = self.name(prefix)
        self.namespace[name] = value
        return name

    def table(self, relation: str, what: str, expression: str) -> str:
        """A name for something of a table, looked up once a run."""
        if (relation, what) not in self.tables:
            name = self.tables[relation, what] = self.name("t")
            self.setup.append(f"    {name} = T[{relation!r}]{expression}")
        return self.tables[relation, what]

    def rows(self, relation: str) -> str:
        return self.table(relation, "rows", ".rows")

    def bind(self, variable: str) -> str:
        self.variables[variable] = self.name("v")
        return self.variables[variable]

    # Terms

    def term(self, term: Term) -> str:
        """An expression; what goes deep is put into variables first, without recursion."""
        done: dict[int, tuple[str, int]] = {}
        stack: list[tuple[Term, bool]] = [(term, False)]
        while stack:
            node, ready = stack.pop()
            if id(node) in done:
                continue
            if isinstance(node, Const):
                plain = type(node.value) in (int, bool) or (
                    type(node.value) is str and len(node.value) < 40
                )
                done[id(node)] = (f"({node.value!r})" if plain else self.value("k", node.value), 0)
            elif isinstance(node, Var):
                done[id(node)] = (self.variables[node.name], 0)
            elif not ready:
                stack.append((node, True))
                stack += [(argument, False) for argument in reversed(node.arguments)]
            else:
                arguments = [done[id(argument)][0] for argument in node.arguments]
                depth = 1 + max((done[id(a)][1] for a in node.arguments), default=0)
                if node.source is not None:
                    text = "(" + node.source.format(*arguments) + ")"
                else:
                    text = f"{self.value('f', node.function)}({', '.join(arguments)})"
                if depth >= _DEPTH:
                    text, depth = self.guarded(text), 0
                done[id(node)] = (text, depth)
        return done[id(term)][0]

    def guarded(self, text: str) -> str:
        """A variable for an expression; where it has no value the tuple is dropped."""
        name = self.name("x")
        self.line("try:")
        self.line(f"    {name} = {text}")
        self.line("except Exception as e:")
        self.line("    drop(e)")
        self.line("    continue")
        return name

    def evaluated(self, term: Term) -> str:
        """A term as something that can be written anywhere."""
        text = self.term(term)
        return self.guarded(text) if isinstance(term, Apply) else text

    # Tags

    def times(self, tag: str) -> None:
        """Multiply the tag so far by another one."""
        if not self.style.tagged:
            return
        if self.tag is None:
            self.tag = self.name("g")
            self.line(f"{self.tag} = {tag}")
            return
        before, self.tag = self.tag, self.name("g")
        product = self.style.mult or "mult({0}, {1})"
        possible = self.style.possible or "possible({0})"
        self.need("mult", self.style.mult)
        self.need("possible", self.style.possible)
        self.line(f"{self.tag} = {product.format(before, tag)}")
        self.line(f"if not {possible.format(self.tag)}: continue")

    def need(self, method: str, source: str | None) -> None:
        line = f"    {method} = A.{method}"
        if source is None and line not in self.setup:
            self.setup.append(line)

    # Steps

    def write_scan(self, scan: Scan) -> None:
        delta, self.first = self.first, False
        fresh = scan.origin in self.old
        keys, later = self.keys(scan.columns)
        rows = self.rows(scan.relation)
        terms = {i: self.evaluated(scan.columns[i].term) for i in keys}  # type: ignore[union-attr]
        row = self.name("r")
        if len(keys) == len(scan.columns):
            tuple_ = "(" + "".join(f"{terms[i]}, " for i in keys) + ")"
            self.line(f"{row} = {tuple_}")
            source = self.delta(scan.relation) if delta else rows
            self.line(f"if {row} not in {source}: continue")
        else:
            candidates = self.candidates(scan, keys, terms, delta, row)
            self.line(f"for {row} in {candidates}:")
            self.indent += 1
            self.loops += 1
            if delta:
                for i in keys:
                    self.line(f"if {row}[{i}] != {terms[i]}: continue")
            self.unpack(row, scan.columns, later)
        if fresh:
            self.line(f"if {row} in {self.delta(scan.relation)}: continue")
        self.times(f"{rows}[{row}]")

    def keys(self, columns: Sequence[Column]) -> tuple[list[int], list[int]]:
        """Columns whose values are known before the scan, and those to check after it."""
        keys: list[int] = []
        later: list[int] = []
        for i, column in enumerate(columns):
            if isinstance(column, Check):
                known = all(v in self.variables for v in _variables(column.term))
                (keys if known else later).append(i)
        return keys, later

    def delta(self, relation: str) -> str:
        return self.table(relation, "delta", ".delta")

    def candidates(
        self, scan: Scan, keys: list[int], terms: dict[int, str], delta: bool, row: str
    ) -> str:
        if delta:
            return self.delta(scan.relation)
        if keys:
            index = self.table(scan.relation, f"index {keys}", f".index({tuple(keys)!r})")
            key = terms[keys[0]] if len(keys) == 1 else f"({', '.join(terms[i] for i in keys)})"
            found = f"{index}.get({key}, ())"
        else:
            found, key = self.rows(scan.relation), "None"
        if not self.style.joins or self.tag is None:
            return found
        table = self.table(scan.relation, "table", "")
        name = self.name("c")
        self.line(f"{name} = {found}")
        self.line(f"if len({name}) > {_MANY}:")
        self.line(f"    {name} = A.join({self.tag}, {table}, {tuple(keys)!r}, {key}, {name})")
        return name

    def unpack(self, row: str, columns: Sequence[Column], later: Sequence[int]) -> None:
        """Bind a row's columns, and check those that are known by now."""
        bound = [(i, c.name) for i, c in enumerate(columns) if isinstance(c, Bind)]
        for i, variable in bound:
            self.line(f"{self.bind(variable)} = {row}[{i}]")
        for i in later:
            column = columns[i]
            assert isinstance(column, Check)
            self.line(f"if {row}[{i}] != {self.evaluated(column.term)}: continue")

    def write_absent(self, absent: Absent) -> None:
        rows = self.rows(absent.relation)
        terms = [self.evaluated(term) for term in absent.terms]
        row = self.name("r")
        self.line(f"{row} = ({''.join(f'{t}, ' for t in terms)})")
        if not self.style.tagged:
            self.line(f"if {row} in {rows}: continue")
            return
        if self.tag is None:
            self.tag = self.name("g")
            self.line(f"{self.tag} = A.one")
        held, product = self.name("h"), self.name("g")
        self.need("mult", self.style.mult)
        self.need("possible", self.style.possible)
        times = (self.style.mult or "mult({0}, {1})").format(self.tag, f"A.negate({held})")
        self.line(f"{product} = {self.tag}")
        self.line(f"{held} = {rows}.get({row})")
        self.line(f"if {held} is not None:")
        self.line(f"    {product} = {times}")
        self.line(
            f"    if not {(self.style.possible or 'possible({0})').format(product)}: continue"
        )
        self.tag = product

    def write_filter(self, step: Filter) -> None:
        self.line(f"if not {self.evaluated(step.term)}: continue")

    def write_let(self, let: Let) -> None:
        text = self.term(let.term)
        if isinstance(let.term, Apply):
            self.variables[let.name] = self.guarded(text)
        else:
            self.line(f"{self.bind(let.name)} = {text}")

    def write_foreign(self, foreign: Foreign) -> None:
        inputs = [self.evaluated(term) for term in foreign.inputs]
        predicate = self.value("p", foreign)
        arguments = "(" + "".join(f"{i}, " for i in inputs) + ")"
        held, row = self.name("h"), self.name("r")
        keys, later = self.keys(foreign.columns)
        terms = {i: self.evaluated(foreign.columns[i].term) for i in keys}  # type: ignore[union-attr]
        if "    foreign = T.foreign" not in self.setup:
            self.setup.append("    foreign = T.foreign")
        self.line(f"for {held}, {row} in foreign({predicate}, {arguments}, drop):")
        self.indent += 1
        self.loops += 1
        for i in keys:
            self.line(f"if {row}[{i}] != {terms[i]}: continue")
        self.unpack(row, foreign.columns, later)
        self.times(held)

    def write_head(self) -> None:
        rule = self.rule
        terms = [self.evaluated(term) for term in rule.terms]
        if rule.tag is not None:
            probability = self.evaluated(rule.tag)
            self.times(f"A.fact({self.instance()}, {probability})")
        if rule.exclusive is not None:
            _, alternative, count = rule.exclusive
            self.times(f"A.choices({self.instance()}, {count})[{alternative}]")
        row = self.name("r")
        self.line(f"{row} = ({''.join(f'{t}, ' for t in terms)})")
        if not self.style.tagged:
            self.line(f"if {row} not in {self.rows(rule.head)}: new[{row}] = True")
            return
        tag = "A.one" if rule.certain or self.tag is None else self.tag
        self.line(f"if {row} in new: new[{row}].append({tag})")
        self.line(f"else: new[{row}] = [{tag}]")

    def instance(self) -> str:
        """What tells this ground instance of the rule from others."""
        values = "".join(f"{self.evaluated(term)}, " for term in self.rule.key)
        return f"({self.value('k', self.rule.which)}, ({values}))"


def _variables(term: Term) -> list[str]:
    found, stack = [], [term]
    while stack:
        node = stack.pop()
        if isinstance(node, Var):
            found.append(node.name)
        elif isinstance(node, Apply):
            stack += node.arguments
    return found
