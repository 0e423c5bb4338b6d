"""Small ProbLog programs as data: made up by Hypothesis, printed, and evaluated by brute force.

Nothing here uses ProbLog or byssus. A relation is a dictionary from argument tuples to the set of
worlds in which they hold, as the bits of an int; rules are applied naively, stratum by stratum,
until nothing changes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from hypothesis import strategies as st
from torch import Tensor

Value = int | str  # a str is a variable
Row = tuple[int, ...]


@dataclass(frozen=True)
class Goal:
    """`pred(args)`, or its negation."""

    pred: str
    args: tuple[Value, ...] = ()
    negated: bool = False

    def __str__(self) -> str:
        text = f"{self.pred}({', '.join(map(str, self.args))})" if self.args else self.pred
        return f"\\+ {text}" if self.negated else text


@dataclass(frozen=True)
class Arithmetic:
    """`target is (left + right) mod modulus`."""

    target: str
    left: Value
    right: Value
    modulus: int

    def __str__(self) -> str:
        return f"{self.target} is ({self.left} + {self.right}) mod {self.modulus}"


@dataclass(frozen=True)
class Comparison:
    """`left < right`, `left =\\= right` or `left =:= right`."""

    left: Value
    operator: str
    right: Value

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right}"


Literal = Goal | Arithmetic | Comparison


@dataclass(frozen=True)
class Rule:
    """`head :- body`; with `choice`, it holds only where that option of a concept is chosen."""

    head: Goal
    body: tuple[Literal, ...] = ()
    choice: tuple[int, int] | None = None  # concept, value


@dataclass(frozen=True)
class Concept:
    """A categorical variable: constant probabilities, or an instance of a network."""

    width: int
    probs: tuple[float, ...] = ()
    network: str = ""
    instance: int = 0


@dataclass(frozen=True)
class Box:
    """A black box as a table; a missing row is a call that fails."""

    name: str
    arity: int
    predicate: bool  # Boolean: true for the rows whose value is 1
    table: dict[Row, int] = field(hash=False)


@dataclass(frozen=True)
class Case:
    """A program.

    `lines` are its text without queries; `rules` its meaning; `strata` the predicates in the order
    in which they are evaluated.
    """

    concepts: tuple[Concept, ...]
    rules: tuple[Rule, ...]
    strata: tuple[tuple[str, ...], ...]
    boxes: tuple[Box, ...]
    lines: tuple[str, ...]
    queries: tuple[Goal, ...]
    size: int  # of the domain of all values

    @property
    def text(self) -> str:
        return "\n".join([*self.lines, *(f"query({query})." for query in self.queries)])

    def __repr__(self) -> str:
        tables = "".join(f"\n% {b.name}/{b.arity}: {b.table}" for b in self.boxes)
        return f"\n{self.text}{tables}\n"


class Oracle:
    """All worlds of a case, and what holds in them.

    Attributes:
        holds: for each predicate and row, the worlds as bits.
        asked: for each black box and row, the worlds in which it is asked.
        lost: the worlds in which a call fails.
    """

    def __init__(self, case: Case, worlds: list[Row] | None = None) -> None:
        self.case = case
        if worlds is None:
            worlds = list(itertools.product(*(range(c.width) for c in case.concepts)))
        self.worlds = worlds
        self.all = (1 << len(worlds)) - 1
        self.boxes = {box.name: box for box in case.boxes}
        self.holds: dict[str, dict[Row, int]] = {}
        self.asked: dict[tuple[str, Row], int] = {}
        self.lost = 0
        literal = {
            (c, v): sum(1 << i for i, world in enumerate(worlds) if world[c] == v)
            for c, concept in enumerate(case.concepts)
            for v in range(concept.width)
        }
        for stratum in case.strata:
            rules = [rule for rule in case.rules if rule.head.pred in stratum]
            changed = True
            while changed:
                changed = False
                for rule in rules:
                    start = self.all
                    for binding, bits in list(self._solve(rule.body, {}, start)):
                        if rule.choice is not None:
                            bits &= literal[rule.choice]
                        row = _apply(rule.head.args, binding)
                        table = self.holds.setdefault(rule.head.pred, {})
                        if bits & ~table.get(row, 0):
                            table[row] = table.get(row, 0) | bits
                            changed = True

    def _solve(
        self, body: tuple[Literal, ...], binding: dict[str, int], bits: int
    ) -> Iterator[tuple[dict[str, int], int]]:
        if not bits:
            return
        if not body:
            yield binding, bits
            return
        goal, rest = body[0], body[1:]
        if isinstance(goal, Arithmetic):
            left, right = _apply((goal.left, goal.right), binding)
            value = (left + right) % goal.modulus
            yield from self._solve(rest, {**binding, goal.target: value}, bits)
        elif isinstance(goal, Comparison):
            left, right = _apply((goal.left, goal.right), binding)
            if {"<": left < right, "=\\=": left != right, "=:=": left == right}[goal.operator]:
                yield from self._solve(rest, binding, bits)
        elif goal.pred in self.boxes:
            box = self.boxes[goal.pred]
            row = _apply(goal.args[: box.arity], binding)
            self.asked[box.name, row] = self.asked.get((box.name, row), 0) | bits
            value = box.table.get(row)
            if value is None:
                self.lost |= bits
            if box.predicate:
                answers = [row] if value == 1 else []
            else:
                answers = [] if value is None else [(*row, value)]
            table = dict.fromkeys(answers, self.all)
            yield from self._match(goal, table, rest, binding, bits)
        else:
            yield from self._match(goal, self.holds.get(goal.pred, {}), rest, binding, bits)

    def _match(
        self,
        goal: Goal,
        table: dict[Row, int],
        rest: tuple[Literal, ...],
        binding: dict[str, int],
        bits: int,
    ) -> Iterator[tuple[dict[str, int], int]]:
        if goal.negated:
            yield from self._solve(rest, binding, bits & ~table.get(_apply(goal.args, binding), 0))
            return
        for row, where in list(table.items()):
            extended = dict(binding)
            for argument, value in zip(goal.args, row, strict=True):
                known = extended.setdefault(argument, value) if _is_variable(argument) else argument
                if known != value:
                    break
            else:
                yield from self._solve(rest, extended, bits & where)

    def weights(self, probs: list[Tensor]) -> Tensor:
        """The probability of each world, `(batch, worlds)`, from `(batch, values)` a concept."""
        index = torch.tensor(self.worlds, dtype=torch.int64).reshape(len(self.worlds), len(probs))
        result = torch.ones(1, len(self.worlds), dtype=torch.float64)
        for c, table in enumerate(probs):
            result = result * table[:, index[:, c]]
        return result

    def indicator(self, bits: int) -> Tensor:
        """The worlds of a bitset as a vector of zeros and ones."""
        flags = [bits >> i & 1 for i in range(len(self.worlds))]
        return torch.tensor(flags, dtype=torch.float64)

    def answers(self) -> dict[str, int]:
        """The ground queries, as ProbLog writes them, that hold in some world."""
        result: dict[str, int] = {}
        for query in self.case.queries:
            table = self.holds.get(query.pred, {})
            if query.negated:
                result[f"\\+{_text(query.pred, query.args)}"] = self.all & ~table.get(query.args, 0)
                continue
            found = {row: bits for row, bits in table.items() if bits and _fits(query.args, row)}
            if not found and not any(map(_is_variable, query.args)):
                found = {query.args: 0}
            result.update((_text(query.pred, row), bits) for row, bits in found.items())
        return result


def _text(pred: str, row: tuple[Value, ...]) -> str:
    return f"{pred}({','.join(map(str, row))})" if row else pred


def _is_variable(argument: Value) -> bool:
    return isinstance(argument, str)


def _fits(pattern: tuple[Value, ...], row: Row) -> bool:
    return all(_is_variable(a) or a == b for a, b in zip(pattern, row, strict=True))


def _apply(args: tuple[Value, ...], binding: dict[str, int]) -> Row:
    return tuple(binding[a] if isinstance(a, str) else a for a in args)


# Making programs up

_MAX_WORLDS = 96


@st.composite
def cases(draw: Callable[..., object], *, failing: bool = False, boxes: bool = True) -> Case:
    """Programs with at most 6 concepts of at most 5 values, and a few rules over them.

    Args:
        failing: whether black boxes may fail on some rows.
        boxes: whether there are black boxes.
    """
    return _Maker(draw, failing, boxes).make()


class _Maker:
    def __init__(self, draw: Callable[..., object], failing: bool, boxes: bool) -> None:
        self.draw, self.failing, self.with_boxes = draw, failing, boxes
        self.lines: list[str] = []
        self.rules: list[Rule] = []
        self.concepts: list[Concept] = []
        self.arity: dict[str, int] = {}
        self.worlds = 1
        self.fresh = itertools.count()

    def number(self, low: int, high: int) -> int:
        result = self.draw(st.integers(low, high))
        assert isinstance(result, int)
        return result

    def chance(self, percent: int) -> bool:
        return self.number(0, 99) >= 100 - percent

    def make(self) -> Case:
        self.size = self.number(2, 4)
        for _ in range(self.number(1, 4)):
            self.add_concepts()
        base = tuple(self.arity)
        boxes = tuple(self.boxes()) if self.with_boxes else ()
        strata = [base]
        self.box_list = boxes
        lower = list(base)
        for level in range(self.number(1, 3)):
            preds = [f"p{level}{letter}" for letter in "ab"[: self.number(1, 2)]]
            self.arity.update((pred, self.number(0, 2)) for pred in preds)
            for pred in preds:
                for _ in range(self.number(1, 3)):
                    self.add_rule(pred, preds, lower)
            if self.chance(25):
                self.add_reachability(level, lower)
                preds.append(f"r{level}")
            strata.append(tuple(preds))
            lower += preds
        queries = [
            Goal(pred, tuple(f"Q{i}" for i in range(self.arity[pred])))
            for stratum in strata[1:]
            for pred in stratum
        ]
        return Case(
            tuple(self.concepts),
            tuple(self.rules),
            tuple(strata),
            boxes,
            tuple(self.lines),
            tuple(queries),
            self.size,
        )

    # Concepts

    def add_concepts(self) -> None:
        kind = self.number(0, 5)
        if kind == 0:
            self.add_facts()
        elif kind == 1:
            self.add_disjunction()
        elif kind == 2:
            self.add_neural_facts()
        else:
            self.add_network()

    def room(self, width: int) -> bool:
        return len(self.concepts) < 6 and self.worlds * width <= _MAX_WORLDS

    def new_concept(self, concept: Concept) -> int:
        self.concepts.append(concept)
        self.worlds *= concept.width
        return len(self.concepts) - 1

    def probability(self, most: float = 1.0) -> float:
        return round(self.number(1, 19) / 20 * most, 4)

    def add_facts(self) -> None:
        pred = f"f{len(self.arity)}"
        self.arity[pred] = self.number(0, 2)
        rows: set[Row] = set()
        for _ in range(self.number(1, 3)):
            row = tuple(self.number(0, self.size - 1) for _ in range(self.arity[pred]))
            if row in rows or not self.room(2):
                continue
            rows.add(row)
            if self.chance(10):
                self.lines.append(f"{_text(pred, row)}.")
                self.rules.append(Rule(Goal(pred, row)))
                continue
            p = self.probability()
            concept = self.new_concept(Concept(2, (p, 1 - p)))
            self.lines.append(f"{p}::{_text(pred, row)}.")
            self.rules.append(Rule(Goal(pred, row), (), (concept, 0)))
        if not rows:
            del self.arity[pred]

    def add_disjunction(self) -> None:
        pred = f"d{len(self.arity)}"
        count = self.number(2, 4)
        remainder = self.chance(60)
        if not self.room(count + remainder):
            return
        weights = [self.number(1, 9) for _ in range(count + remainder)]
        probs = [round(w / sum(weights), 3) for w in weights]
        probs[-1] = round(1 - sum(probs[:-1]), 3)
        concept = self.new_concept(Concept(len(probs), tuple(probs)))
        self.arity[pred] = 1
        heads = []
        for v in range(count):
            value = min(v, self.size - 1)  # two options may have one head
            heads.append(f"{probs[v]}::{pred}({value})")
            self.rules.append(Rule(Goal(pred, (value,)), (), (concept, v)))
        self.lines.append("; ".join(heads) + ".")

    def add_neural_facts(self) -> None:
        network, pred = f"net{len(self.arity)}", f"n{len(self.arity)}"
        count = self.number(1, 2)
        if not self.room(2**count):
            return
        self.arity[pred] = 1
        # X comes from a relation, so that a call with any argument is bound
        some = f"i{pred}"
        self.lines.append(f"nn({network}, [X]) :: {pred}_(X).")
        self.lines.append(f"{pred}(X) :- {some}(X), {pred}_(X).")
        for i in range(count):
            concept = self.new_concept(Concept(2, network=network, instance=i))
            self.lines.append(f"{some}({i}).")
            self.rules.append(Rule(Goal(pred, (i,)), (), (concept, 1)))

    def add_network(self) -> None:
        network, pred = f"net{len(self.arity)}", f"v{len(self.arity)}"
        width = self.number(2, 5)
        count = self.number(1, 3)
        if not self.room(width):
            return
        self.arity[pred] = 2
        some = f"i{pred}"
        values = ", ".join(map(str, range(width)))
        self.lines.append(f"nn({network}, [X], V, [{values}]) :: {pred}_(X, V).")
        self.lines.append(f"{pred}(X, V) :- {some}(X), {pred}_(X, V).")
        for i in range(count):
            if not self.room(width):
                break
            concept = self.new_concept(Concept(width, network=network, instance=i))
            self.lines.append(f"{some}({i}).")
            self.rules.extend(Rule(Goal(pred, (i, v)), (), (concept, v)) for v in range(width))

    # Rules

    def boxes(self) -> Iterator[Box]:
        for i in range(self.number(0, 2)):
            arity, predicate = self.number(1, 2), self.chance(40)
            # calls may come with any value that occurs: networks have up to 5
            rows = itertools.product(range(5), repeat=arity)
            factors = [self.number(0, 4) for _ in range(3)]
            modulus = 2 if predicate else self.size
            holes = self.number(2, 5) if self.failing else 0
            table = {
                row: (factors[0] + sum(f * x for f, x in zip(factors[1:], row, strict=False)))
                % modulus
                for row in rows
                if not holes or (sum(row) + factors[0]) % holes
            }
            yield Box(f"b{i}", arity, predicate, table)

    def add_rule(self, pred: str, same: list[str], lower: list[str]) -> None:
        bound: list[str] = []
        body: list[Literal] = []
        for _ in range(self.number(1, 4)):
            goal = self.goal(bound, same, lower)
            if goal is None:
                continue
            body.append(goal)
        head = Goal(pred, tuple(self.bound_argument(bound) for _ in range(self.arity[pred])))
        text = ", ".join(map(str, body))
        if (
            self.chance(12)
            and self.room(3)
            and not any(isinstance(a, str) for a in head.args)
            and not any(
                isinstance(a, str) for goal in body if isinstance(goal, Goal) for a in goal.args
            )
        ):
            other = self.chance(50)
            probs = (0.25, 0.35, 0.4) if other else (0.3, 0.7)
            concept = self.new_concept(Concept(len(probs), probs))
            heads = [head, Goal(pred, tuple((int(a) + 1) % self.size for a in head.args))]
            self.rules.extend(
                Rule(h, tuple(body), (concept, v)) for v, h in enumerate(heads[: 1 + other])
            )
            left = "; ".join(f"{p}::{h}" for p, h in zip(probs, heads[: 1 + other], strict=False))
            self.lines.append(f"{left} :- {text}." if body else f"{left}.")
            return
        self.rules.append(Rule(head, tuple(body)))
        self.lines.append(f"{head} :- {text}." if body else f"{head}.")

    def argument(self, bound: list[str]) -> Value:
        """A constant, a bound variable, or a new one."""
        kind = self.number(0, 5)
        if kind == 0:
            return self.number(0, self.size - 1)
        if kind <= 2 and bound:
            return bound[self.number(0, len(bound) - 1)]
        return f"X{next(self.fresh)}"

    def bound_argument(self, bound: list[str]) -> Value:
        if bound and self.chance(85):
            return bound[self.number(0, len(bound) - 1)]
        return self.number(0, self.size - 1)

    def goal(self, bound: list[str], same: list[str], lower: list[str]) -> Literal | None:
        kind = self.number(0, 11)
        if kind <= 1 and self.box_list:
            return self.box_goal(bound)
        if kind == 2 and bound:
            target = f"X{next(self.fresh)}"
            left, right = self.bound_argument(bound), self.bound_argument(bound)
            bound.append(target)
            return Arithmetic(target, left, right, self.size)
        if kind == 3 and len(bound) > 1:
            operator = ("<", "=\\=", "=:=")[self.number(0, 2)]
            return Comparison(self.bound_argument(bound), operator, self.bound_argument(bound))
        if kind <= 5 and lower:
            pred = lower[self.number(0, len(lower) - 1)]
            args = tuple(self.bound_argument(bound) for _ in range(self.arity[pred]))
            return Goal(pred, args, negated=True)
        if kind <= 7:
            pred = same[self.number(0, len(same) - 1)]
        elif lower:
            pred = lower[self.number(0, len(lower) - 1)]
        else:
            return None
        args = tuple(self.argument(bound) for _ in range(self.arity[pred]))
        bound.extend(a for a in dict.fromkeys(args) if isinstance(a, str) and a not in bound)
        return Goal(pred, args)

    def box_goal(self, bound: list[str]) -> Goal:
        box = self.box_list[self.number(0, len(self.box_list) - 1)]
        inputs = tuple(self.bound_argument(bound) for _ in range(box.arity))
        negated = self.chance(30)
        if box.predicate:
            return Goal(box.name, inputs, negated)
        if negated or (bound and self.chance(30)):
            return Goal(box.name, (*inputs, self.bound_argument(bound)), negated)
        target = f"X{next(self.fresh)}"
        bound.append(target)
        return Goal(box.name, (*inputs, target))

    def add_reachability(self, level: int, lower: list[str]) -> None:
        """Paths over the pairs of some relation."""
        pairs = [pred for pred in lower if self.arity[pred] == 2]
        edge = (
            Goal(pairs[self.number(0, len(pairs) - 1)], ("X", "Y"))
            if pairs
            else Goal(lower[0], tuple("XY"[: self.arity[lower[0]]]))
        )
        if len(edge.args) < 2:
            edge = Goal(edge.pred, (self.number(0, 1),) * len(edge.args))
        path = f"r{level}"
        self.arity[path] = 2
        start = (edge,) if pairs else (edge, Arithmetic("Y", 0, 1, 2), Arithmetic("X", 0, 0, 2))
        step = Goal(edge.pred, ("Z", "Y")) if pairs else Goal(path, ("Z", "Y"))
        self.rules.append(Rule(Goal(path, ("X", "Y")), start))
        body: tuple[Literal, ...] = (Goal(path, ("X", "Z")), step)
        if pairs and self.chance(40):
            body = body[::-1]  # right recursion
        predicates = [box for box in self.box_list if box.predicate]
        if predicates and self.chance(60):
            box = predicates[self.number(0, len(predicates) - 1)]
            body = (*body, Goal(box.name, ("Z", "Y")[: box.arity], self.chance(40)))
        self.rules.append(Rule(Goal(path, ("X", "Y")), body))
        for rule in self.rules[-2:]:
            self.lines.append(f"{rule.head} :- {', '.join(map(str, rule.body))}.")
