"""The order in which a body is evaluated.

A body is a set of literals over terms. A plan puts them into an order in which every variable is
bound before it is used: filters, equations and negated atoms as soon as their variables are bound,
and of the atoms always the one with the most columns known, those as written first where that does
not decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

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
    Rule,
    Scan,
    Step,
    Term,
    Var,
)
from ._syntax import Span

__all__ = [
    "Ask",
    "Atom",
    "Equal",
    "Generator",
    "Literal",
    "Negated",
    "Plan",
    "PlannedRule",
    "Reversible",
    "Test",
    "Ungrounded",
    "literal_variables",
    "literals_of",
    "plan",
    "reorder",
    "variables",
]


@dataclass(frozen=True)
class Reversible(Apply):
    """A function that can be solved for its arguments, such as a sum.

    Attributes:
        solve: for each argument, from the result and the other arguments (in order) to the term
            that the argument is equal to; None where there is none.
        exact: whether it makes no difference in which direction it is used. (Sums of floats are
            rounded, and those of integers stop at the end of the range.) What is not exact is
            solved only for variables that no atom binds.
    """

    solve: tuple[Callable[[Term, tuple[Term, ...]], Term] | None, ...] = ()
    exact: bool = False


# Literals


@dataclass(frozen=True)
class Ask:
    """What a literal asks for: a tuple of a hidden relation, which is derived for it.

    Attributes:
        relation: the hidden relation.
        terms: the tuple.
        certain: whether it is demand, whose tags do not matter; else a call of a black box.
    """

    relation: str
    terms: tuple[Term, ...]
    certain: bool


@dataclass(frozen=True, eq=False)
class Atom:
    """A positive atom; None is a wildcard.

    Attributes:
        bound: columns that should be known before it is scanned.
        strict: whether they must be.
        first: whether it comes first, if nothing is bound yet.
    """

    relation: str
    terms: tuple[Term | None, ...]
    span: Span
    ask: Ask | None = None
    bound: tuple[int, ...] = ()
    strict: bool = False
    first: bool = False


@dataclass(frozen=True, eq=False)
class Negated:
    """A negated atom."""

    relation: str
    terms: tuple[Term, ...]
    span: Span
    ask: Ask | None = None


@dataclass(frozen=True, eq=False)
class Equal:
    """An equation."""

    left: Term
    right: Term
    span: Span


@dataclass(frozen=True, eq=False)
class Test:
    """A Boolean term that must be true."""

    __test__ = False

    term: Term
    span: Span


@dataclass(frozen=True, eq=False)
class Generator:
    """A foreign predicate; None is a wildcard."""

    name: str
    function: Callable[..., object]
    inputs: tuple[Term, ...]
    outputs: tuple[Term | None, ...]
    span: Span
    kinds: tuple[str, ...] = field(default=(), compare=False)


Literal = Atom | Negated | Equal | Test | Generator


@dataclass(frozen=True)
class PlannedRule(Rule):
    """A rule that remembers its body.

    Attributes:
        literals: of the body, without an order.
    """

    literals: tuple[Literal, ...] = field(default=(), compare=False, repr=False)


class Ungrounded(Exception):  # noqa: N818
    """A body that cannot be ordered.

    Attributes:
        literal: one that is left over.
        missing: the variables that nothing binds.
    """

    def __init__(self, literal: Literal, missing: Collection[str]) -> None:
        super().__init__(missing)
        self.literal = literal
        self.missing = missing


def variables(term: Term | None) -> Iterable[str]:
    """The variables of a term, from left to right, with repetitions."""
    if isinstance(term, Var):
        return (term.name,)
    if not isinstance(term, Apply):
        return ()
    found: list[str] = []
    stack: list[Term] = [term]
    while stack:
        node = stack.pop()
        if isinstance(node, Var):
            found.append(node.name)
        elif isinstance(node, Apply):
            stack.extend(reversed(node.arguments))
    return found


def literal_terms(literal: Literal) -> Iterable[Term | None]:
    """The terms of a literal."""
    if isinstance(literal, Atom | Negated):
        return literal.terms
    if isinstance(literal, Equal):
        return (literal.left, literal.right)
    if isinstance(literal, Test):
        return (literal.term,)
    return (*literal.inputs, *literal.outputs)


def literal_variables(literal: Literal) -> set[str]:
    """The variables of a literal."""
    return {name for term in literal_terms(literal) for name in variables(term)}


# Plans


@dataclass
class Plan:
    """An order of a body.

    Attributes:
        steps: the steps.
        order: the literals in the order in which they were dealt with.
        bound: the variables that they bind.
        relaxed: atoms that are scanned before the columns are known that should be.
        left: literals that nothing could be done with.
    """

    steps: list[Step] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    bound: set[str] = field(default_factory=set)
    relaxed: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)


def plan(literals: Sequence[Literal], first: int | None = None, partial: bool = False) -> Plan:
    """Order a body.

    Args:
        literals: the body.
        first: the position of the atom that must be scanned first.
        partial: leave out what cannot be ordered.

    Raises:
        Ungrounded: a literal's variables cannot be bound.
    """
    return _Planner(literals, first).run(partial)


class _Planner:
    def __init__(self, literals: Sequence[Literal], first: int | None) -> None:
        self.literals = list(literals)
        self.given = len(self.literals)
        self.first = first
        self.plan = Plan()
        self.bound = self.plan.bound
        self.fresh = 0
        self.done: set[int] = set()
        self.uses: dict[str, list[int]] = defaultdict(list)
        self.binders: dict[str, list[int]] = defaultdict(list)
        self.queue: list[int] = []
        # Atoms by how many columns are known; entries that are no longer true are skipped.
        self.heap: list[tuple[float, int]] = []
        self.counts: dict[int, float] = {}
        self.waiting: set[int] = set()
        for i in range(self.given):
            self.enter(i)

    def enter(self, i: int) -> None:
        literal = self.literals[i]
        for name in literal_variables(literal):
            self.uses[name].append(i)
        if isinstance(literal, Atom | Generator):
            terms = literal.terms if isinstance(literal, Atom) else literal.outputs
            # What must be known before an atom is scanned is not bound by it.
            needed = literal.bound if isinstance(literal, Atom) else ()
            for column, term in enumerate(terms):
                if isinstance(term, Var) and column not in needed:
                    self.binders[term.name].append(i)
        if isinstance(literal, Atom):
            self.rank(i, literal.terms)
        else:
            self.queue.append(i)
            if isinstance(literal, Generator) and not self.is_cheap(literal):
                self.rank(i, literal.outputs)

    def rank(self, i: int, terms: Sequence[Term | None]) -> None:
        """Note how many columns of an atom are known."""
        literal = self.literals[i]
        # A black box comes after the atoms that join with what is bound, which may spare a call,
        # and before those that do not.
        strict = isinstance(literal, Atom) and literal.strict
        self.counts[i] = 0.5 if strict else sum(map(self.known, terms)) or not terms
        heappush(self.heap, (-self.counts[i], i))

    @staticmethod
    def is_cheap(generator: Generator) -> bool:
        """Whether it is evaluated as soon as it can be: its inputs depend on what is bound."""
        return any(True for term in generator.inputs for _ in variables(term))

    def run(self, partial: bool) -> Plan:
        if self.first is not None:
            self.scan(self.first)
        self.settle()
        while (chosen := self.choose()) is not None:
            self.scan(chosen)
            self.settle()
        left = [i for i in range(len(self.literals)) if i not in self.done]
        if left and not partial:
            chosen = left[0]
            missing = [n for n in self.wanted(self.literals[chosen]) if n not in self.bound]
            raise Ungrounded(self.literals[chosen], list(dict.fromkeys(missing)))
        self.plan.left = [i for i in left if i < self.given]
        return self.plan

    def wanted(self, literal: Literal) -> Iterable[str]:
        """The variables that must be bound for a literal."""
        terms: Iterable[Term | None] = literal_terms(literal)
        if isinstance(literal, Generator):
            terms = literal.inputs
        elif isinstance(literal, Atom):
            terms = [literal.terms[i] for i in literal.bound]
        return (name for term in terms for name in variables(term))

    # What costs nothing

    def settle(self) -> None:
        """Deal with all that filters, computes, or follows from what is bound."""
        while self.queue:
            queue, self.queue = sorted(set(self.queue)), []
            for i in queue:
                if i not in self.done and self.try_literal(i):
                    self.finish(i)

    def finish(self, i: int) -> None:
        self.done.add(i)
        if i < self.given:
            self.plan.order.append(i)

    def bind(self, name: str) -> None:
        self.bound.add(name)
        for i in self.uses[name]:
            if i in self.done:
                continue
            literal = self.literals[i]
            if isinstance(literal, Atom):
                self.rank(i, literal.terms)
            else:
                self.queue.append(i)
                if i in self.counts:
                    assert isinstance(literal, Generator)
                    self.rank(i, literal.outputs)

    def known(self, term: Term | None) -> bool:
        return term is not None and all(name in self.bound for name in variables(term))

    def try_literal(self, i: int) -> bool:
        literal = self.literals[i]
        steps = self.plan.steps
        if isinstance(literal, Equal):
            return self.equate(literal)
        if isinstance(literal, Test):
            if self.known(literal.term):
                steps.append(Filter(literal.term))
                return True
        elif isinstance(literal, Negated):
            if all(map(self.known, literal.terms)):
                steps.append(Absent(literal.relation, literal.terms))
                return True
        elif isinstance(literal, Generator) and all(map(self.known, literal.inputs)):
            unbound = any(o is not None and not self.known(o) for o in literal.outputs)
            if self.is_cheap(literal) or not unbound:
                self.generate(literal)
                return True
        return False

    def equate(self, literal: Equal) -> bool:
        left, right = literal.left, literal.right
        if self.known(left) and self.known(right):
            self.plan.steps.append(
                Filter(Apply(_same, (left, right), "{0} == {1}", "bool", "({0} == {1})"))
            )
            return True
        if self.known(left):
            left, right = right, left
        if not self.known(right):
            return False
        solved = self.solve(left, right)
        if solved is None:
            return False
        name, term = solved
        self.plan.steps.append(Let(name, term))
        self.bind(name)
        return True

    def solve(self, term: Term, value: Term) -> tuple[str, Term] | None:
        """The one unbound variable of a term, and what it must be for the term to be a value."""
        unknown = [name for name in variables(term) if name not in self.bound]
        if len(unknown) != 1:
            return None
        waits = any(i not in self.done for i in self.binders[unknown[0]])
        while not isinstance(term, Var):
            assert isinstance(term, Apply)
            if not isinstance(term, Reversible) or (waits and not term.exact):
                return None
            (i,) = (i for i, one in enumerate(term.arguments) if not self.known(one))
            solve = term.solve[i]
            if solve is None:
                return None
            others = term.arguments[:i] + term.arguments[i + 1 :]
            term, value = term.arguments[i], solve(value, others)
        return term.name, value

    def generate(self, literal: Generator) -> None:
        columns, later = self.columns(literal.outputs, literal.span)
        self.plan.steps.append(
            Foreign(literal.name, literal.function, literal.inputs, tuple(columns), literal.kinds)
        )
        self.after(columns, later)

    # Scans

    def choose(self) -> int | None:
        """The atom to scan next: the one with the most columns known."""
        if not self.bound:
            for i in self.counts:
                literal = self.literals[i]
                if isinstance(literal, Atom) and literal.first and i not in self.done:
                    return i
        while self.heap:
            count, i = heappop(self.heap)
            if i in self.done or self.counts[i] != -count:
                continue
            literal = self.literals[i]
            if not isinstance(literal, Atom) or all(
                self.known(literal.terms[b]) for b in literal.bound
            ):
                return i
            self.waiting.add(i)
        left = [i for i in self.waiting - self.done if not _atom(self.literals[i]).strict]
        if not left:
            return None
        chosen = min(left, key=lambda i: (-self.counts[i], i))
        self.plan.relaxed.append(chosen)
        return chosen

    def scan(self, i: int) -> None:
        literal = self.literals[i]
        if isinstance(literal, Generator):
            self.generate(literal)
        else:
            assert isinstance(literal, Atom)
            columns, later = self.columns(literal.terms, literal.span)
            self.plan.steps.append(Scan(literal.relation, tuple(columns), i))
            self.after(columns, later)
        self.finish(i)

    def columns(self, terms: Sequence[Term | None], span: Span) -> tuple[list[Column], list[Equal]]:
        """What columns bind and check; and equations that hold after the scan."""
        columns: list[Column] = []
        later: list[Equal] = []
        here: set[str] = set()
        for term in terms:
            if term is None:
                columns.append(Any_())
            elif isinstance(term, Const):
                columns.append(Check(term))
            elif isinstance(term, Var):
                if term.name in self.bound or term.name in here:
                    columns.append(Check(term))
                else:
                    here.add(term.name)
                    columns.append(Bind(term.name))
            elif self.known(term):
                # Once before the scan, not for every tuple of it.
                name = self.new_name()
                self.plan.steps.append(Let(name, term))
                self.bound.add(name)
                columns.append(Check(Var(name)))
            elif all(name in self.bound or name in here for name in variables(term)):
                columns.append(Check(term))
            else:
                name = self.new_name()
                here.add(name)
                columns.append(Bind(name))
                later.append(Equal(Var(name), term, span))
        return columns, later

    def after(self, columns: Sequence[Column], later: Sequence[Equal]) -> None:
        for equation in later:
            self.literals.append(equation)
            self.enter(len(self.literals) - 1)
        for column in columns:
            if isinstance(column, Bind):
                self.bind(column.name)

    def new_name(self) -> str:
        self.fresh += 1
        return f"#{self.fresh}"


def _atom(literal: Literal) -> Atom:
    assert isinstance(literal, Atom)
    return literal


def _same(a: object, b: object) -> bool:
    return a == b


# Plans from other positions


def reorder(rule: Rule, first: int) -> tuple[Step, ...]:
    """The steps of a rule in an order that begins with a certain scan.

    Args:
        rule: the rule.
        first: the `origin` of the scan.
    """
    literals = literals_of(rule)
    return tuple(plan(literals, first).steps)


def literals_of(rule: Rule) -> tuple[Literal, ...]:
    """The body of a rule; read from its steps if it was written by hand."""
    if isinstance(rule, PlannedRule):
        return rule.literals
    scans = {step.origin: step for step in rule.steps if isinstance(step, Scan)}
    others = [step for step in rule.steps if not isinstance(step, Scan)]
    literals: list[Literal] = []
    # A scan keeps its origin, which is its position.
    while scans or others:
        if len(literals) in scans:
            step: Step = scans.pop(len(literals))
        elif others:
            step = others.pop(0)
        else:
            step = Filter(Const(True))
        literals.append(_literal(step, rule.span))
    return tuple(literals)


def _literal(step: Step, span: Span) -> Literal:
    if isinstance(step, Scan):
        return Atom(step.relation, tuple(map(_term, step.columns)), span)
    if isinstance(step, Absent):
        return Negated(step.relation, step.terms, span)
    if isinstance(step, Filter):
        return Test(step.term, span)
    if isinstance(step, Let):
        return Equal(Var(step.name), step.term, span)
    outputs = tuple(map(_term, step.columns))
    return Generator(step.name, step.function, step.inputs, outputs, span, step.kinds)


def _term(column: Column) -> Term | None:
    if isinstance(column, Bind):
        return Var(column.name)
    return column.term if isinstance(column, Check) else None
