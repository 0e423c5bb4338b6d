"""Small Scallop programs as data: made up by Hypothesis, printed, and evaluated world by world.

Nothing here uses byssus. A relation of one world is a set of tuples; rules are applied naively,
layer by layer, until nothing changes. What a program leaves to chance while it runs (a rule with a
tag, exclusive heads) is chosen when evaluation comes upon it: each way to choose is a world.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor

Value = int | str | bool
Row = tuple[Value, ...]
Env = dict[str, Value]
Database = dict[str, set[Row]]


# Programs


@dataclass(frozen=True)
class Var:
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Wild:
    def __str__(self) -> str:
        return "_"


@dataclass(frozen=True)
class Sum:
    """`var + offset`, or `left + right`."""

    left: Var
    right: Var | int

    def __str__(self) -> str:
        if isinstance(self.right, int) and self.right < 0:
            return f"{self.left} - {-self.right}"
        return f"{self.left} + {self.right}"


Term = Value | Var | Wild | Sum


def show(term: Term) -> str:
    if isinstance(term, bool):
        return "true" if term else "false"
    return f'"{term}"' if isinstance(term, str) else str(term)


@dataclass(frozen=True)
class Atom:
    relation: str
    args: tuple[Term, ...]

    def __str__(self) -> str:
        return f"{self.relation}({', '.join(map(show, self.args))})"


@dataclass(frozen=True)
class Not:
    atom: Atom

    def __str__(self) -> str:
        return f"not {self.atom}"


@dataclass(frozen=True)
class Compare:
    left: Term
    operator: str
    right: Term

    def __str__(self) -> str:
        return f"{show(self.left)} {self.operator} {show(self.right)}"


@dataclass(frozen=True)
class Equal:
    """`var == expression`; binds the variable. Printed either way round, or solved for a part."""

    var: Var
    value: Sum
    form: int = 0

    def __str__(self) -> str:
        if self.form == 1:
            return f"{self.value} == {self.var}"
        if self.form == 2 and isinstance(self.value.right, int):
            return f"{Sum(self.var, -self.value.right)} == {self.value.left}"
        return f"{self.var} == {self.value}"


@dataclass(frozen=True)
class Call:
    """`result == (factor * argument + offset) % 3`, by a black box that computes it.

    Printed as a predicate, or as a function. Each is a black box of its own.
    """

    name: str
    factor: int
    offset: int
    argument: Var
    result: Var | int
    function: bool = False
    negated: bool = False

    def compute(self, argument: int) -> int:
        return (self.factor * argument + self.offset) % 3

    def declaration(self) -> str:
        types = f"${self.name}(i32) -> i32" if self.function else f"{self.name}(bound i32, i32)"
        return f'@blackbox("{self.name}") type {types}'

    def __str__(self) -> str:
        if self.function:
            operator = "!=" if self.negated else "=="
            return f"{show(self.result)} {operator} ${self.name}({self.argument})"
        atom = f"{self.name}({self.argument}, {show(self.result)})"
        return f"not {atom}" if self.negated else atom


@dataclass(frozen=True)
class Either:
    """`(one or other)`, or `one implies other`, which is `not one or other`."""

    parts: tuple[Body, ...]
    implies: bool = False

    def __str__(self) -> str:
        if self.implies:
            one, other = self.parts
            assert isinstance(one[0], Not)
            return f"({one[0].atom} implies {joined(other)})"
        return "(" + " or ".join(map(joined, self.parts)) + ")"


@dataclass(frozen=True)
class Reduce:
    """`results := operator[arguments](bindings: body where group: groups)`.

    Attributes:
        group: the variables that the body shares with the head, or with `groups`.
        groups: the body of `where`; None for none.
    """

    results: tuple[Var, ...]
    operator: str
    arguments: tuple[Var, ...]
    bindings: tuple[Var, ...]
    body: Body
    group: tuple[Var, ...] = ()
    groups: Body | None = None
    other: tuple[Var, ...] = ()

    def __str__(self) -> str:
        some = ", ".join(map(str, self.results))
        results = f"({some})" if len(self.results) > 1 else some
        arguments = f"[{', '.join(map(str, self.arguments))}]" if self.arguments else ""
        bindings = ", ".join(map(str, self.bindings))
        body = joined(self.body)
        if self.operator == "forall":
            body = f"{self.body[0]} implies {self.body[1]}"
        where = ""
        if self.groups is not None:
            names = ", ".join(map(str, [*self.group, *self.other]))
            where = f" where {names}: {joined(self.groups)}"
        return f"{results} := {self.operator}{arguments}({bindings}: {body}{where})"


Literal = Atom | Not | Compare | Equal | Call | Either | Reduce
Body = tuple[Literal, ...]


def joined(body: Body) -> str:
    return " and ".join(map(str, body))


@dataclass(frozen=True)
class Rule:
    """Rules with several heads are exclusive; with a tag, each ground instance has a coin."""

    heads: tuple[Atom, ...]
    body: Body
    tag: float | None = None
    order: tuple[int, ...] = ()
    demand: str = ""

    def __str__(self) -> str:
        literals = [self.body[i] for i in self.order] if self.order else self.body
        heads = str(self.heads[0])
        if len(self.heads) > 1:
            heads = "{" + "; ".join(map(str, self.heads)) + "}"
        tag = "" if self.tag is None else f"{self.tag}::"
        demand = f'@demand("{self.demand}") ' if self.demand else ""
        return f"{demand}rel {tag}{heads} = {joined(tuple(literals))}"


@dataclass(frozen=True)
class Fact:
    relation: str
    row: Row


@dataclass
class Case:
    """A program with its facts.

    Attributes:
        types: the types of all relations' columns; those of `declared` are printed.
        certain: facts without a probability.
        concepts: groups of uncertain facts that exclude one another; most have one.
        layers: the rules; a layer reads itself positively and earlier ones in any way.
    """

    types: dict[str, tuple[str, ...]]
    declared: list[str]
    certain: list[Fact]
    concepts: list[tuple[Fact, ...]]
    layers: list[list[Rule]]
    outputs: list[str] = field(default_factory=list)

    @property
    def rules(self) -> list[Rule]:
        return [rule for layer in self.layers for rule in layer]

    @property
    def chance(self) -> bool:
        """Whether rules leave something to chance."""
        return any(rule.tag is not None or len(rule.heads) > 1 for rule in self.rules)

    @property
    def calls(self) -> list[Call]:
        """The black boxes."""
        return [one for rule in self.rules for one in calls_of(rule.body)]

    def declarations(self) -> list[str]:
        types = [f"type {name}({', '.join(self.types[name])})" for name in self.declared]
        return types + [call.declaration() for call in self.calls]

    def text(
        self,
        probs: Sequence[Sequence[float]] | None = None,
        order: Sequence[int] = (),
    ) -> str:
        """The program; with its facts, if their probabilities are given."""
        lines = [str(rule) for rule in self.rules]
        if probs is not None:
            lines += [f"rel {Atom(fact.relation, fact.row)}" for fact in self.certain]
            for facts, ps in zip(self.concepts, probs, strict=True):
                some = [
                    f"{p!r}::({', '.join(map(show, fact.row))})"
                    for fact, p in zip(facts, ps, strict=True)
                ]
                lines.append(f"rel {facts[0].relation} = {{{'; '.join(some)}}}")
        if order:
            lines = [
                lines[i] for i in sorted(range(len(lines)), key=lambda i: order[i % len(order)])
            ]
        return "\n".join(self.declarations() + lines)


# Evaluation in one world


class Undecided(Exception):  # noqa: N818
    """Evaluation has come upon something that is left to chance."""

    def __init__(self, key: object, options: tuple[float, ...]) -> None:
        super().__init__(key)
        self.key, self.options = key, options


def value_of(term: Term, env: Env) -> Value:
    if isinstance(term, Var):
        return env[term.name]
    if isinstance(term, Sum):
        left = env[term.left.name]
        right = env[term.right.name] if isinstance(term.right, Var) else term.right
        assert isinstance(left, int)
        assert isinstance(right, int)
        return left + right
    assert not isinstance(term, Wild)
    return term


def matches(args: Sequence[Term], row: Row, env: Env) -> Env | None:
    """The bindings with which the arguments are the row."""
    env = dict(env)
    for term, value in zip(args, row, strict=True):
        if isinstance(term, Wild):
            continue
        if isinstance(term, Var):
            if env.setdefault(term.name, value) != value:
                return None
        elif isinstance(term, Sum) and term.left.name not in env:
            assert isinstance(term.right, int)
            assert isinstance(value, int)
            env[term.left.name] = value - term.right
        elif value_of(term, env) != value:
            return None
    return env


COMPARISONS: dict[str, Callable[[Value, Value], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,  # type: ignore[operator]
    "<=": lambda a, b: a <= b,  # type: ignore[operator]
    ">": lambda a, b: a > b,  # type: ignore[operator]
    ">=": lambda a, b: a >= b,  # type: ignore[operator]
}


def solve(body: Body, env: Env, database: Database) -> Iterator[Env]:
    """All bindings with which the body holds, literal by literal."""
    if not body:
        yield env
        return
    for found in solve_one(body[0], env, database):
        yield from solve(body[1:], found, database)


def solve_one(literal: Literal, env: Env, database: Database) -> Iterator[Env]:
    if isinstance(literal, Atom):
        for row in list(database[literal.relation]):
            found = matches(literal.args, row, env)
            if found is not None:
                yield found
    elif isinstance(literal, Not):
        rows = database[literal.atom.relation]
        if all(matches(literal.atom.args, row, env) is None for row in rows):
            yield env
    elif isinstance(literal, Compare):
        if COMPARISONS[literal.operator](value_of(literal.left, env), value_of(literal.right, env)):
            yield env
    elif isinstance(literal, Equal):
        value = value_of(literal.value, env)
        if env.get(literal.var.name, value) == value:
            yield {**env, literal.var.name: value}
    elif isinstance(literal, Call):
        argument = env[literal.argument.name]
        assert isinstance(argument, int)
        found = matches([literal.result], (literal.compute(argument),), env)
        if literal.negated:
            if found is None:
                yield env
        elif found is not None:
            yield found
    elif isinstance(literal, Either):
        for part in literal.parts:
            yield from solve(part, env, database)
    else:
        names = [var.name for var in (*literal.group, *literal.other, *literal.results)]
        for row in reduced(literal, database):
            found = matches([Var(name) for name in names], row, env)
            if found is not None:
                yield found


def reduced(literal: Reduce, database: Database) -> set[Row]:
    """The tuples of an aggregation: its group, other variables of `where`, and the results."""

    def rows(body: Body, variables: Iterable[Var]) -> set[Row]:
        some = list(variables)
        return {tuple(env[v.name] for v in some) for env in solve(body, {}, database)}

    size = len(literal.group)
    groups: dict[Row, set[Row]] = {}
    body = literal.body
    if literal.operator == "forall":  # the counterexamples
        body = (body[0], negated(body[1]))
    for row in rows(body, (*literal.group, *literal.arguments, *literal.bindings)):
        groups.setdefault(row[:size], set()).add(row[size:])
    if literal.groups is not None:
        keys = rows(literal.groups, (*literal.group, *literal.other))
    else:
        keys = set(groups) if size else {()}
    return {
        (*key, *result)
        for key in keys
        for result in results(literal, sorted(groups.get(key[:size], ())))
    }


def negated(literal: Literal) -> Literal:
    if isinstance(literal, Compare):
        opposite = {"<": ">=", ">=": "<", ">": "<=", "<=": ">", "==": "!=", "!=": "=="}
        return replace(literal, operator=opposite[literal.operator])
    assert isinstance(literal, Atom)
    return Not(literal)


def results(literal: Reduce, rows: list[Row]) -> list[Row]:
    operator, arguments = literal.operator, len(literal.arguments)
    if operator == "count":
        return [(len(rows),)]
    if operator in ("sum", "prod"):
        total = 0 if operator == "sum" else 1
        for row in rows:
            value = row[arguments]
            assert isinstance(value, int)
            total = total + value if operator == "sum" else total * value
        return [(total,)]
    if operator == "exists":
        return [(bool(rows),)]
    if operator == "forall":
        return [(not rows,)]
    if not rows:
        return []
    pick = min if operator.endswith("min") else max
    best = pick(row[arguments:] for row in rows)
    chosen = [row for row in rows if row[arguments:] == best]
    return [row[:arguments] if operator.startswith("arg") else row for row in chosen]


def evaluate(case: Case, facts: Iterable[Fact], decided: Mapping[object, int]) -> Database:
    """All relations in one world."""
    database: Database = {name: set() for name in case.types}
    for fact in facts:
        database[fact.relation].add(fact.row)
    number = 0
    for layer in case.layers:
        numbered = [(number + i, rule) for i, rule in enumerate(layer)]
        number += len(layer)
        changed = True
        while changed:
            changed = False
            for index, rule in numbered:
                for head, row in derived(index, rule, database, decided):
                    if row not in database[head]:
                        database[head].add(row)
                        changed = True
    return database


def derived(
    index: int, rule: Rule, database: Database, decided: Mapping[object, int]
) -> Iterator[tuple[str, Row]]:
    for env in list(solve(rule.body, {}, database)):
        which = 0
        if rule.tag is not None:
            key = (index, "tag", tuple(sorted(env.items())))
            if key not in decided:
                raise Undecided(key, (1 - rule.tag, rule.tag))
            if not decided[key]:
                continue
        if len(rule.heads) > 1:
            used = {v for head in rule.heads for v in variables(head.args)}
            key = (index, "heads", tuple(sorted((n, env[n]) for n in used)))
            if key not in decided:
                raise Undecided(key, (1 / len(rule.heads),) * len(rule.heads))
            which = decided[key]
        head = rule.heads[which]
        yield head.relation, tuple(value_of(term, env) for term in head.args)


def variables(terms: Iterable[Term]) -> set[str]:
    found: set[str] = set()
    for term in terms:
        if isinstance(term, Var):
            found.add(term.name)
        elif isinstance(term, Sum):
            found |= variables([term.left, term.right])
    return found


# All worlds


@dataclass
class World:
    """One world: which alternative of each concept holds (0 for none), and what is derived.

    Attributes:
        chance: the probability of what the rules left to chance.
    """

    choice: tuple[int, ...]
    chance: float
    database: Database


class Oracle:
    """All worlds of a case."""

    def __init__(self, case: Case, most: int = 2000) -> None:
        self.case = case
        self.worlds: list[World] = []
        for choice in itertools.product(*(range(len(c) + 1) for c in case.concepts)):
            facts = [*case.certain, *chosen(case, choice)]
            waiting: list[tuple[dict[object, int], float]] = [({}, 1.0)]
            while waiting:
                decided, chance = waiting.pop()
                try:
                    database = evaluate(case, facts, decided)
                except Undecided as undecided:
                    for option, p in enumerate(undecided.options):
                        waiting.append(({**decided, undecided.key: option}, chance * p))
                    assume(len(waiting) + len(self.worlds) <= most)
                    continue
                self.worlds.append(World(choice, chance, database))

    def weights(self, probs: Sequence[Tensor]) -> Tensor:
        """The probability of each world, (batch, worlds); (batch, alternatives) a concept."""
        batch = max([len(p) for p in probs], default=1)
        weights = torch.tensor([[w.chance for w in self.worlds]], dtype=torch.float64)
        weights = weights.expand(batch, -1)
        for i, p in enumerate(probs):
            every = torch.cat([1 - p.sum(1, keepdim=True), p], 1)
            weights = weights * every[:, [w.choice[i] for w in self.worlds]]
        return weights

    def rows(self, relation: str) -> list[Row]:
        """The tuples that a relation has in any world."""
        found = {row for world in self.worlds for row in world.database[relation]}
        return sorted(found)

    def holds(self, relation: str, rows: Sequence[Row]) -> Tensor:
        """In which worlds tuples hold: (worlds, rows)."""
        table = [[row in world.database[relation] for row in rows] for world in self.worlds]
        return torch.tensor(table, dtype=torch.float64).reshape(len(self.worlds), len(rows))


def chosen(case: Case, choice: Sequence[int]) -> list[Fact]:
    return [facts[i - 1] for facts, i in zip(case.concepts, choice, strict=True) if i]


# Making programs up

INTS = st.integers(0, 2)
STRINGS = st.sampled_from(["a", "b"])


def values_of(kind: str) -> st.SearchStrategy[Value]:
    return STRINGS if kind == "String" else st.booleans() if kind == "bool" else INTS


class _Maker:
    """Draws the rules of a case."""

    def __init__(self, draw: st.DrawFn, types: dict[str, tuple[str, ...]], boxes: bool) -> None:
        self.draw = draw
        self.types = types
        self.names = (f"v{i}" for i in itertools.count())
        self.plain = False
        self.recursive = False
        self.boxes = boxes

    def maybe(self, one_in: int) -> bool:
        return self.draw(st.integers(1, one_in)) == 1

    def pick(self, bound: Mapping[str, str], kind: str) -> list[Var]:
        return [Var(name) for name, k in bound.items() if k == kind]

    def atom(self, relation: str, bound: dict[str, str], binds: bool) -> Atom:
        """An atom; a positive one binds variables."""
        args: list[Term] = []
        inside: dict[str, str] = {}
        for kind in self.types[relation]:
            known = self.pick(bound, kind) + (self.pick(inside, kind) if binds else [])
            options = ["constant"] + (["known"] * 3 if known else [])
            if binds:
                options += ["new"] * 5 + ([] if self.plain else ["wild"])
            if not binds:
                options.append("wild")
            if binds and kind == "i32" and not self.plain:
                options.append("shifted")
            what = self.draw(st.sampled_from(options))
            if what == "known":
                args.append(self.draw(st.sampled_from(known)))
            elif what == "wild":
                args.append(Wild())
            elif what == "constant":
                args.append(self.draw(values_of(kind)))
            else:
                var = Var(next(self.names))
                inside[var.name] = kind
                args.append(var)
                if what == "shifted":
                    args[-1] = Sum(var, self.draw(st.sampled_from([-1, 1])))
        if binds:
            bound.update(inside)
        return Atom(relation, tuple(args))

    def atom_with(self, relation: str, wanted: Mapping[str, str]) -> Atom | None:
        """An atom that binds these variables and no others."""
        args: list[Term] = []
        left = dict(wanted)
        for kind in self.types[relation]:
            var = next((name for name, k in left.items() if k == kind), None)
            if var is not None:
                del left[var]
                args.append(Var(var))
            else:
                args.append(self.draw(st.one_of(st.just(Wild()), values_of(kind))))
        return None if left else Atom(relation, tuple(args))

    def comparison(self, bound: Mapping[str, str]) -> Compare | None:
        if not bound:
            return None
        name = self.draw(st.sampled_from(sorted(bound)))
        kind = bound[name]
        operators = ["==", "!="] if kind in ("String", "bool") else list(COMPARISONS)
        others: list[Term] = [v for v in self.pick(bound, kind) if v.name != name]
        other = self.draw(st.sampled_from(others)) if others and self.maybe(2) else None
        right = self.draw(values_of(kind)) if other is None else other
        return Compare(Var(name), self.draw(st.sampled_from(operators)), right)

    def body(
        self,
        positive: Sequence[str],
        negative: Sequence[str],
        least: int = 0,
        most: int = 2,
        first: str | None = None,
    ) -> tuple[list[Literal], dict[str, str]]:
        """Literals in an order in which they can be solved, and the variables that they bind.

        With `first`, all the columns of this relation are among them.
        """
        bound: dict[str, str] = {}
        body: list[Literal] = []
        if first is not None:
            bound = {next(self.names): kind for kind in self.types[first]}
            body.append(Atom(first, tuple(map(Var, bound))))
        for _ in range(self.draw(st.integers(least, most))):
            body.append(self.atom(self.draw(st.sampled_from(positive)), bound, True))
        if self.maybe(3) and (ints := self.pick(bound, "i32")):
            left = self.draw(st.sampled_from(ints))
            right = self.draw(st.one_of(st.sampled_from([-1, 1, 2]), st.sampled_from(ints)))
            var = Var(next(self.names))
            body.append(Equal(var, Sum(left, right), self.draw(st.integers(0, 2))))
            bound[var.name] = "i32"
        if self.boxes and self.maybe(3) and (ints := self.pick(bound, "i32")):
            body.append(self.call(self.draw(st.sampled_from(ints)), bound))
        if self.maybe(4) and (compared := self.comparison(bound)):
            body.append(compared)
        if self.maybe(4) and negative:
            body.append(Not(self.atom(self.draw(st.sampled_from(negative)), bound, False)))
        if not self.plain and self.maybe(4):
            body += self.either(positive, bound)
        if not self.plain and negative and self.maybe(6):
            one = Not(self.atom(self.draw(st.sampled_from(negative)), bound, False))
            other = self.atom(self.draw(st.sampled_from(positive)), dict(bound), False)
            body.append(Either(((one,), (other,)), True))
        return body, bound

    def call(self, argument: Var, bound: dict[str, str]) -> Call:
        name = f"box{next(self.names)}"
        factor, offset = self.draw(st.integers(0, 2)), self.draw(st.integers(0, 2))
        result: Var | int = self.draw(INTS)
        negated = not self.recursive and self.maybe(4)
        if not negated and not self.maybe(3):
            result = Var(next(self.names))
            bound[result.name] = "i32"
        return Call(name, factor, offset, argument, result, self.maybe(2), negated)

    def either(self, positive: Sequence[str], bound: dict[str, str]) -> list[Literal]:
        relations = self.draw(st.lists(st.sampled_from(positive), min_size=2, max_size=2))
        wanted: dict[str, str] = {}
        shared = [k for k in self.types[relations[0]] if k in self.types[relations[1]]]
        if shared and self.maybe(2):
            wanted[next(self.names)] = self.draw(st.sampled_from(shared))
        parts: list[Body] = []
        for relation in relations:
            atom = self.atom_with(relation, wanted)
            assert atom is not None
            extra = self.comparison({**bound, **wanted}) if self.maybe(3) else None
            parts.append((atom,) if extra is None else (atom, extra))
        bound.update(wanted)
        return [Either(tuple(parts))]

    def head(self, relation: str, bound: Mapping[str, str], certainly: bool = False) -> Atom:
        args: list[Term] = []
        for kind in self.types[relation]:
            known = self.pick(bound, kind)
            if known and (certainly or not self.maybe(5)):
                var = self.draw(st.sampled_from(known))
                args.append(var)
            else:
                args.append(self.draw(values_of(kind)))
        return Atom(relation, tuple(args))

    def rule(
        self, relation: str, positive: Sequence[str], negative: Sequence[str], chance: bool
    ) -> Rule:
        """A rule for this relation."""
        tag, exclusive = None, False
        if chance and self.maybe(4):
            exclusive = self.maybe(2)
            tag = None if exclusive else 0.25
        self.plain = tag is not None or exclusive
        recursive = self.recursive = relation in positive
        least = 0 if self.maybe(8) and not recursive else 1
        body, bound = self.body(positive, negative, least)
        self.plain = self.recursive = False
        heads = [self.head(relation, bound)]
        if exclusive:
            heads = list(dict.fromkeys([*heads, self.head(relation, bound)]))
        elif tag is None and self.maybe(4):
            heads = [self.shifted(heads[0], bound, body)]
        # Recursion is to end: what it counts up, it must not count up for ever.
        for name in sorted(variables(heads[0].args)):
            grown = {e.var.name for e in body if isinstance(e, Equal)}
            grown |= {
                a.left.name
                for atom in body
                if isinstance(atom, Atom)
                for a in atom.args
                if isinstance(a, Sum)
            }
            if recursive and name in grown:
                body += [Compare(Var(name), "<", 4), Compare(Var(name), ">=", -1)]
        if not body:
            body = [self.atom_with(self.draw(st.sampled_from(positive)), {}) or Compare(0, "==", 0)]
        order = self.draw(st.permutations(range(len(body)))) if self.maybe(2) else ()
        return Rule(tuple(heads), tuple(body), tag, tuple(order))

    def shifted(self, head: Atom, bound: Mapping[str, str], body: list[Literal]) -> Atom:
        """The head with an expression in it."""
        args = list(head.args)
        for i, term in enumerate(args):
            if isinstance(term, Var) and bound[term.name] == "i32":
                args[i] = Sum(term, 1)
                body += [Compare(term, "<", 4), Compare(term, ">=", -1)]
        return Atom(head.relation, tuple(args))

    def reduction(self, name: str, below: Sequence[str]) -> Rule:
        """A rule for a new relation that aggregates earlier ones; it sets the relation's types."""
        wide = [r for r in below if self.types[r]]
        assume(wide)
        wide += 2 * [r for r in wide if len(self.types[r]) > 1]
        body, bound = self.body(below, below, most=1, first=self.draw(st.sampled_from(wide)))
        ints = self.pick(bound, "i32")
        every = [Var(n) for n in bound]
        operators = ["count", "min", "max", "exists", "forall"]
        operators += ["argmin", "argmax"] if len(every) > 1 else []
        operator = self.draw(st.sampled_from(operators + (["sum", "prod"] if ints else [])))
        if operator in ("sum", "prod"):
            bindings = [self.draw(st.sampled_from(ints))]
        else:
            bindings = [self.draw(st.sampled_from(every))]
            if operator in ("count", "min", "max", "exists") and len(every) > 1 and self.maybe(4):
                other = self.draw(st.sampled_from([v for v in every if v not in bindings]))
                bindings.append(other)
        left = [v for v in every if v not in bindings]
        arguments: list[Var] = []
        may = operator in ("sum", "prod", "min", "max") and left and self.maybe(3)
        if may or operator in ("argmin", "argmax"):
            arguments = [self.draw(st.sampled_from(left))]
        left = [v for v in left if v not in arguments]
        group: list[Var] = []
        groups: Body | None = None
        other_: list[Var] = []
        explicit = False
        if left and not self.maybe(3):
            group = [self.draw(st.sampled_from(left))]
            explicit = operator == "forall" or self.maybe(2)
        if explicit:
            kind = bound[group[0].name]
            candidates = [r for r in below if kind in self.types[r]]
            relation = self.draw(st.sampled_from(candidates))
            wanted = {group[0].name: kind}
            more = list(self.types[relation])
            more.remove(kind)
            if more and self.maybe(3):
                other_ = [Var(next(self.names))]
                wanted[other_[0].name] = self.draw(st.sampled_from(more))
            found = self.atom_with(relation, wanted)
            assert found is not None
            groups = (found,)
            bound.update(wanted)
        if operator == "forall":
            first = body[0]
            assert isinstance(first, Atom)
            needed = {var.name for var in (*bindings, *group)}
            assume(needed <= variables(first.args))
            inside = {n: bound[n] for n in variables(first.args)}
            second: Literal | None = self.comparison(inside)
            if second is None or self.maybe(2):
                second = self.atom(self.draw(st.sampled_from(below)), inside, False)
            body = [first, second]
        kinds = {
            "count": ("usize",),
            "exists": ("bool",),
            "forall": ("bool",),
            "sum": ("i32",),
            "prod": ("i32",),
        }.get(operator)
        if kinds is None:
            some = arguments if operator.startswith("arg") else arguments + bindings
            kinds = tuple(bound[v.name] for v in some)
        results = [Var(next(self.names)) for _ in kinds]
        reduce = Reduce(
            tuple(results),
            operator,
            tuple(arguments),
            tuple(bindings),
            tuple(body),
            tuple(group),
            groups,
            tuple(other_),
        )
        head = [*group, *other_, *results]
        types = [*(bound[v.name] for v in (*group, *other_)), *kinds]
        literals: list[Literal] = [reduce]
        if kinds[0] != "bool" and self.maybe(4):
            compared = self.comparison({results[0].name: kinds[0]})
            assert compared is not None
            literals.append(compared)
        elif kinds[0] == "bool" and self.maybe(2):
            literals.append(Compare(results[0], "==", self.draw(st.booleans())))
            head.remove(results[0])
            types.pop()
        order = self.draw(st.permutations(range(len(head))))
        self.types[name] = tuple(types[i] for i in order)
        return Rule((Atom(name, tuple(head[i] for i in order)),), tuple(literals))


@st.composite
def cases(
    draw: st.DrawFn,
    most: int = 64,
    chance: bool = True,
    aggregates: bool = True,
    demand: bool = True,
    boxes: bool = True,
) -> Case:
    """Programs with at most so many choices of their facts."""
    types: dict[str, tuple[str, ...]] = {}
    certain: list[Fact] = []
    concepts: list[tuple[Fact, ...]] = []
    worlds = 1
    kinds = st.sampled_from(["i32", "i32", "i32", "String"])
    sizes = st.sampled_from([0, 1, 1, 1, 2, 2, 2, 3])
    for name in ["e", "f", "g"][: draw(st.integers(1, 3))]:
        types[name] = tuple(draw(kinds) for _ in range(draw(sizes)))
        rows = st.tuples(*(values_of(kind) for kind in types[name]))
        certain += [Fact(name, row) for row in draw(st.lists(rows, max_size=3))]
        for _ in range(draw(st.integers(0 if concepts else 2, 5))):
            size = draw(st.sampled_from([1, 1, 1, 2, 3]))
            if worlds * (size + 1) > most:
                break
            some = list(dict.fromkeys(draw(rows) for _ in range(size)))
            worlds *= len(some) + 1
            concepts.append(tuple(Fact(name, row) for row in some))
    declared = list(types)
    maker = _Maker(draw, types, boxes)
    below = list(types)
    layers: list[list[Rule]] = []
    for depth in range(draw(st.integers(1, 3))):
        if aggregates and draw(st.booleans()):
            name = f"agg{depth}"
            layers.append([maker.reduction(name, below)])
            below.append(name)
            continue
        own = [f"r{depth}{letter}" for letter in "ab"[: draw(st.integers(1, 2))]]
        for name in own:
            types[name] = tuple(draw(kinds) for _ in range(draw(sizes)))
            if draw(st.booleans()):
                declared.append(name)
        layer = []
        for name in own:
            for number in range(draw(st.integers(1, 3))):
                recursive = number > 0 and draw(st.booleans())
                positive = below + (own if recursive else [])
                layer.append(maker.rule(name, positive, below, chance and not recursive))
        layers.append(layer)
        below += own
    case = Case(types, declared, certain, concepts, layers)
    case.outputs = [name for name in types if name not in ("e", "f", "g")]
    if demand and draw(st.integers(1, 4)) == 1:
        _demand(draw, maker, case)
    return case


def _demand(draw: st.DrawFn, maker: _Maker, case: Case) -> None:
    """Derive a relation that nothing else reads on demand only."""
    last = case.layers[-1]
    name = last[-1].heads[0].relation
    types = case.types[name]
    if not types or name.startswith("agg"):
        return
    read = {
        a.relation for rule in last if rule.heads[0].relation != name for a in atoms_of(rule.body)
    }
    if name in read or any(len(rule.heads) > 1 for rule in last):
        return
    pattern = "b" + "".join(draw(st.sampled_from("bf")) for _ in types[1:])
    bound = [i for i, letter in enumerate(pattern) if letter == "b"]
    for rule in last:  # what is demanded of the relation itself must be known from the head
        if rule.heads[0].relation != name:
            continue
        given = variables(rule.heads[0].args[i] for i in bound)
        for atom in atoms_of(rule.body):
            if atom.relation == name and not all(
                variables([atom.args[i]]) <= given and not isinstance(atom.args[i], Wild)
                for i in bound
            ):
                return
    case.layers[-1] = [
        replace(rule, demand=pattern) if rule.heads[0].relation == name else rule for rule in last
    ]
    args: list[Term] = []
    for kind, letter in zip(types, pattern, strict=True):
        args.append(draw(values_of(kind)) if letter == "b" else Var(next(maker.names)))
    free = [a for a in args if isinstance(a, Var)]
    case.types["asked"] = tuple(
        kind for kind, letter in zip(types, pattern, strict=True) if letter == "f"
    )
    case.layers.append([Rule((Atom("asked", tuple(free)),), (Atom(name, tuple(args)),))])
    case.outputs = [o for o in case.outputs if o != name] + ["asked"]


def calls_of(body: Body) -> Iterator[Call]:
    for literal in body:
        if isinstance(literal, Call):
            yield literal
        elif isinstance(literal, Either):
            for part in literal.parts:
                yield from calls_of(part)
        elif isinstance(literal, Reduce):
            yield from calls_of(literal.body)


def atoms_of(body: Body) -> Iterator[Atom]:
    for literal in body:
        if isinstance(literal, Atom):
            yield literal
        elif isinstance(literal, Not):
            yield literal.atom
        elif isinstance(literal, Either):
            for part in literal.parts:
                yield from atoms_of(part)
        elif isinstance(literal, Reduce):
            yield from atoms_of(literal.body)
            yield from atoms_of(literal.groups or ())
