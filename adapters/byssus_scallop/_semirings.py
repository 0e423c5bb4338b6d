"""Scallop's provenances: tags that are weights or proofs, and operations as Scallop defines them.

They are approximations, each of its own kind: `minmaxprob` and its like take facts for what they
are not (the probability of "a and b" is the lesser of the two), and the proofs count facts that
exclude one another as independent. Where a number is wanted, `exact` has it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from heapq import heappop, heappush
from itertools import count, pairwise
from math import inf, prod
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from byssus import ByssusError

from ._algebra import Tags, Unit

__all__ = ["NAMES", "Custom", "ScallopProvenance", "Semiring", "make"]

T = TypeVar("T")
Value = float | Tensor


class Semiring(Tags[T]):
    """Tags of which the results of Scallop's formulas are made.

    Attributes:
        name: what Scallop calls it.
        tagged: whether relations are read as pairs of a tag and a tuple; if not, as tuples.
    """

    worlds = False
    batched = False
    normalizes = False
    name = ""
    tagged = True

    def choices(self, key: Hashable, count: int) -> Sequence[T]:
        """Alternatives without probabilities, which in Scallop are of probability one each."""
        return self.alternatives(key, [1.0] * count)

    def weight(self, tag: T) -> float:
        """One, where tags are no probabilities."""
        return 1.0

    def output(self, tag: T) -> Any:
        """What is read next to a tuple."""
        return tag

    def number(self, probability: Any) -> float:
        """A fact's probability as one number."""
        if not isinstance(probability, Tensor):
            return float(probability)
        if probability.numel() != 1:
            raise ByssusError(
                f"provenance {self.name!r} takes one probability a fact, not a tensor of shape "
                f"{tuple(probability.shape)}: run the examples of a batch one by one"
            )
        return float(probability.item())


# Discrete ones


class UnitTags(Unit):
    """No tags: what holds, holds."""

    name = "unit"
    tagged = False

    def output(self, tag: bool) -> tuple[()]:
        """Nothing."""
        return ()


class Boolean(Semiring[bool]):
    """A tag is whether a fact holds."""

    name = "boolean"
    zero, one = False, True

    def fact(self, key: Hashable, probability: Any, group: Hashable | None = None) -> bool:
        return self.number(probability) > 0

    def add(self, a: bool, b: bool) -> bool:
        return a or b

    def mult(self, a: bool, b: bool) -> bool:
        return a and b

    def negate(self, a: bool) -> bool:
        return not a


class Natural(Semiring[int]):
    """A tag is the number of derivations; as it may grow for ever, a fixpoint waits for none."""

    name = "natural"
    zero, one = 0, 1

    def fact(self, key: Hashable, probability: Any, group: Hashable | None = None) -> int:
        if isinstance(probability, int):
            return int(probability)
        return int(self.number(probability) > 0)

    def add(self, a: int, b: int) -> int:
        return a + b

    def mult(self, a: int, b: int) -> int:
        return a * b

    def negate(self, a: int) -> int:
        return int(a == 0)

    def equal(self, a: int, b: int) -> bool:
        return True

    def possible(self, tag: int) -> bool:
        return tag != 0

    def certain(self, tag: int) -> bool:
        return tag == 1


class Tropical(Semiring[float]):
    """A tag is the least cost of a derivation: costs add up, and the lesser one wins."""

    name = "tropical"
    zero, one = inf, 0.0

    def fact(self, key: Hashable, probability: Any, group: Hashable | None = None) -> float:
        if isinstance(probability, bool):
            return self.one if probability else self.zero
        return self.number(probability)

    def add(self, a: float, b: float) -> float:
        return min(a, b)

    def mult(self, a: float, b: float) -> float:
        return a + b

    def negate(self, a: float) -> float:
        return self.one if a == self.zero else self.zero

    def output(self, tag: float) -> float:
        return int(tag) if tag.is_integer() else tag


# Probabilities: numbers


class MinMaxProb(Semiring[float]):
    """The lesser probability for "and", the greater for "or"."""

    name = "minmaxprob"
    normalizes = True
    zero, one = 0.0, 1.0

    def fact(self, key: Hashable, probability: Any, group: Hashable | None = None) -> float:
        return self.number(probability)

    def add(self, a: float, b: float) -> float:
        return max(a, b)

    def mult(self, a: float, b: float) -> float:
        return min(a, b)

    def negate(self, a: float) -> float:
        return 1 - a

    def possible(self, tag: float) -> bool:
        return tag > 0

    def weight(self, tag: float) -> float:
        return tag


class AddMultProb(MinMaxProb):
    """The product for "and", the sum (1 at most) for "or"; a fixpoint waits for no sum to grow."""

    name = "addmultprob"
    mult_source = "{0} * {1}"
    possible_source = "{0} > 0"

    def add(self, a: float, b: float) -> float:
        return min(a + b, 1.0)

    def mult(self, a: float, b: float) -> float:
        return a * b

    def equal(self, a: float, b: float) -> bool:
        return True

    def certain(self, tag: float) -> bool:
        return tag == 1


# Probabilities: tensors, of one probability an example


def _select(condition: bool | Tensor, a: Value, b: Value) -> Value:
    if isinstance(condition, Tensor):
        return torch.where(condition, a, b)
    return a if condition else b


class DiffProb(Semiring[Value]):
    """Tags are numbers where they are constant, else tensors, with their gradients."""

    batched = True
    zero, one = 0.0, 1.0
    least = 0.0
    """What is not more probable than this is dropped."""

    def fact(self, key: Hashable, probability: Any, group: Hashable | None = None) -> Value:
        return probability if isinstance(probability, Tensor) else float(probability)

    def negate(self, a: Value) -> Value:
        return 1 - a

    def equal(self, a: Value, b: Value) -> bool:
        same = a == b
        return bool(same.all()) if isinstance(same, Tensor) else same

    def possible(self, tag: Value) -> bool:
        above = tag > self.least
        return bool(above.any()) if isinstance(above, Tensor) else above

    def certain(self, tag: Value) -> bool:
        return not isinstance(tag, Tensor) and tag == 1

    def weight(self, tag: Value) -> Any:
        """The probability; a tensor of them, in a batch."""
        if isinstance(tag, Tensor):
            return tag.detach() if tag.numel() > 1 else tag.item()
        return tag

    def output(self, tag: Value) -> Tensor:
        return tag if isinstance(tag, Tensor) else torch.tensor(tag)


class DiffMinMaxProb(DiffProb):
    """As `minmaxprob`; the gradient goes to the one fact whose probability it is."""

    name = "diffminmaxprob"
    least = -0.0001

    def add(self, a: Value, b: Value) -> Value:
        return _select(a > b, a, b)

    def mult(self, a: Value, b: Value) -> Value:
        return _select(a > b, b, a)


class DiffAddMultProb(DiffProb):
    """As `addmultprob`; a sum that is cut off at 1 keeps its gradient."""

    name = "diffaddmultprob"

    def add(self, a: Value, b: Value) -> Value:
        total = a + b
        if isinstance(total, Tensor):
            return total + (total.clamp(0, 1) - total).detach()
        return min(total, 1.0)

    def mult(self, a: Value, b: Value) -> Value:
        return a * b

    def equal(self, a: Value, b: Value) -> bool:
        return True


class DiffAddMultProb2(DiffAddMultProb):
    """As `diffaddmultprob`, but a sum that is cut off (at 0.9999) has no gradient."""

    name = "diffaddmultprob2"

    def add(self, a: Value, b: Value) -> Value:
        total = a + b
        return total.clamp(max=0.9999) if isinstance(total, Tensor) else min(total, 0.9999)


class DiffNandMultProb(DiffProb):
    """The product for "and", `1 - (1 - a) (1 - b)` for "or": all derivations are independent."""

    name = "diffnandmultprob"
    distributive = False

    def add(self, a: Value, b: Value) -> Value:
        return 1 - (1 - a) * (1 - b)

    def mult(self, a: Value, b: Value) -> Value:
        return a * b

    def equal(self, a: Value, b: Value) -> bool:
        return True


class DiffNandMinProb(DiffNandMultProb):
    """The lesser probability for "and", `1 - (1 - a) (1 - b)` for "or"."""

    name = "diffnandminprob"

    def mult(self, a: Value, b: Value) -> Value:
        return _select(a < b, a, b)


class DiffMaxMultProb(DiffProb):
    """The product for "and", the greater one for "or": that of the most probable derivation."""

    name = "diffmaxmultprob"

    def add(self, a: Value, b: Value) -> Value:
        return _select(a > b, a, b)

    def mult(self, a: Value, b: Value) -> Value:
        return a * b


# Proofs

Clause = tuple[int, ...]
"""Literals in order, 2 i for fact i and 2 i + 1 for its negation: all of them hold."""

Dnf = tuple[Clause, ...]
"""Any of these proofs holds."""


class _Facts:
    """The uncertain facts that proofs are made of.

    Attributes:
        probabilities: one a fact.
        inputs: the tensors that these come from, by fact.
        groups: which facts exclude one another: those of one group.
    """

    def __init__(self) -> None:
        self.probabilities: list[float] = []
        self.inputs: dict[int, Tensor] = {}
        self.groups: list[Hashable | None] = []
        self._numbers: dict[Hashable, int] = {}

    def number(
        self, key: Hashable, probability: float, group: Hashable | None, tensor: Tensor | None
    ) -> int:
        number = self._numbers.setdefault(key, len(self.probabilities))
        if number == len(self.probabilities):
            self.probabilities.append(probability)
            self.groups.append(group)
            if tensor is not None:
                self.inputs[number] = tensor.reshape(())
        return number

    def conflict(self, facts: Iterable[int]) -> bool:
        """Whether two of these facts exclude each other."""
        groups = [group for fact in facts if (group := self.groups[fact]) is not None]
        return len(set(groups)) < len(groups)


class Proofs(Semiring[frozenset[frozenset[int]]]):
    """A tag is the set of all proofs, a proof the set of the facts in it. There is no negation."""

    name = "proofs"
    tagged = False
    zero: frozenset[frozenset[int]] = frozenset()
    one = frozenset([frozenset[int]()])

    def __init__(self) -> None:
        self.facts = _Facts()

    def fact(
        self, key: Hashable, probability: Any, group: Hashable | None = None
    ) -> frozenset[frozenset[int]]:
        if probability is False:
            return self.zero
        return frozenset([frozenset([self.facts.number(key, 1.0, group, None)])])

    def add(
        self, a: frozenset[frozenset[int]], b: frozenset[frozenset[int]]
    ) -> frozenset[frozenset[int]]:
        return a | b

    def mult(
        self, a: frozenset[frozenset[int]], b: frozenset[frozenset[int]]
    ) -> frozenset[frozenset[int]]:
        products = {x | y for x in a for y in b}
        return frozenset(proof for proof in products if not self.facts.conflict(proof))

    def negate(self, a: frozenset[frozenset[int]]) -> frozenset[frozenset[int]]:
        if a == self.zero:
            return self.one
        if a == self.one:
            return self.zero
        raise ByssusError(
            f"provenance {self.name!r} has no negation of uncertain facts, which `not` and "
            "aggregates need; take 'exact', 'topkproofs' or 'topbottomkclauses'"
        )

    def output(self, tag: frozenset[frozenset[int]]) -> list[list[int]]:
        return sorted(sorted(proof) for proof in tag)


class _Counted(Semiring[T]):
    """Tags made of facts, whose probabilities are weighted model counts."""

    distributive = False
    facts: _Facts

    def gradient(self, tag: T) -> tuple[float, dict[int, float]]:
        """The probability, and its derivative by that of each fact."""
        raise NotImplementedError

    def weight(self, tag: T) -> float:
        return self.gradient(tag)[0]

    def output(self, tag: T) -> Any:
        return self.weight(tag)


class TopKProofs(_Counted[Dnf]):
    """A tag is its k most probable proofs; its probability, that any of them holds.

    Facts are independent; a proof with two that exclude each other is none, but apart from that
    they are independent as well.

    Args:
        k: how many proofs are kept.
        disjunctions: whether facts that exclude one another are the values of one variable when
            probabilities are computed, and not independent.
    """

    name = "topkproofs"
    normalizes = True
    zero: Dnf = ()
    one: Dnf = ((),)

    def __init__(self, k: int, disjunctions: bool = False) -> None:
        self.k = k
        self.disjunctions = disjunctions
        self.facts = _Facts()
        self._probabilities: dict[Clause, float] = {}

    def fact(self, key: Hashable, probability: Any, group: Hashable | None = None) -> Dnf:
        if probability is True and group is None:
            return self.one
        if probability is False:
            return self.zero
        tensor = probability if isinstance(probability, Tensor) else None
        return ((2 * self.facts.number(key, self.number(probability), group, tensor),),)

    def add(self, a: Dnf, b: Dnf) -> Dnf:
        return self.sum((a, b))

    def sum(self, tags: Sequence[Dnf]) -> Dnf:
        # All at once or one by one, the best are the best.
        return self._keep([clause for tag in tags for clause in tag])

    def mult(self, a: Dnf, b: Dnf) -> Dnf:
        if a == self.one or b == self.one:
            return b if a == self.one else a
        return self._product(a, b, True)

    def negate(self, a: Dnf) -> Dnf:
        return self._negation(a, True)

    def equal(self, a: Dnf, b: Dnf) -> bool:
        return a == b

    def possible(self, tag: Dnf) -> bool:
        return bool(tag)

    def certain(self, tag: Dnf) -> bool:
        return () in tag

    def gradient(self, tag: Dnf) -> tuple[float, dict[int, float]]:
        facts = self.facts
        concepts = None
        if self.disjunctions:
            first: dict[Hashable, int] = {}
            used = sorted({literal >> 1 for clause in tag for literal in clause})
            # A fact on its own is a variable of its own; no group is named by a pair with None.
            concepts = tuple(
                (i, first.setdefault((None, i) if facts.groups[i] is None else facts.groups[i], i))
                for i in used
            )
        return _evaluate(_decide(tag, concepts), facts.probabilities)

    def _probability(self, clause: Clause) -> float:
        """That all of these facts hold, if they are independent."""
        found = self._probabilities.get(clause)
        if found is None:
            given = self.facts.probabilities
            found = prod(1 - given[x >> 1] if x & 1 else given[x >> 1] for x in clause)
            self._probabilities[clause] = found
        return found

    def _keep(self, clauses: Iterable[Clause]) -> Dnf:
        distinct = dict.fromkeys(clauses)
        if len(distinct) <= 1:
            return tuple(distinct)
        return tuple(sorted(distinct, key=self._probability, reverse=True)[: self.k])

    def _product(self, a: Dnf, b: Dnf, exclusive: bool) -> Dnf:
        return self._keep(
            clause
            for x in a
            for y in b
            if (clause := _merge(x, y)) is not None and not (exclusive and self._conflict(clause))
        )

    def _conflict(self, clause: Clause) -> bool:
        return self.facts.conflict([literal >> 1 for literal in clause if not literal & 1])

    def _negation(self, a: Dnf, exclusive: bool) -> Dnf:
        """The k best ways to fail every proof, by one of its literals each, the best ones first."""
        if not all(a):
            return self.zero
        choices = [sorted((x ^ 1 for x in c), key=self._literal, reverse=True) for c in a]
        order = count()
        first = (0,) * len(choices)
        heap: list[tuple[float, int, tuple[int, ...], tuple[int, ...]]] = []
        seen = {first}

        def push(indices: tuple[int, ...]) -> None:
            literals = tuple(sorted({c[i] for c, i in zip(choices, indices, strict=True)}))
            heappush(heap, (-self._probability(literals), next(order), indices, literals))

        push(first)
        found: list[Clause] = []
        while heap and len(found) < self.k:
            _, _, indices, literals = heappop(heap)
            if _consistent(literals) and not (exclusive and self._conflict(literals)):
                found.append(literals)
            for position, i in enumerate(indices):
                following = (*indices[:position], i + 1, *indices[position + 1 :])
                if i + 1 < len(choices[position]) and following not in seen:
                    seen.add(following)
                    push(following)
        return tuple(found)

    def _literal(self, literal: int) -> float:
        return self._probability((literal,))


def _merge(a: Clause, b: Clause) -> Clause | None:
    """The literals of both; None if they contradict each other."""
    merged = tuple(sorted({*a, *b}))
    return merged if _consistent(merged) else None


def _consistent(clause: Clause) -> bool:
    """Whether no fact comes with its negation."""
    return all(a ^ 1 != b for a, b in pairwise(clause))


class SampleKProofs(TopKProofs):
    """A tag is k of its proofs, drawn by their probabilities. There is no negation."""

    name = "samplekproofs"
    normalizes = False

    def __init__(self, k: int, seed: int) -> None:
        super().__init__(k)
        self._random = random.Random(seed)

    def negate(self, a: Dnf) -> Dnf:
        if a == self.zero or self.certain(a):
            return self.zero if a else self.one
        raise ByssusError(
            f"provenance {self.name!r} has no negation of uncertain facts, which `not` and "
            "aggregates need; take 'exact', 'topkproofs' or 'topbottomkclauses'"
        )

    def _keep(self, clauses: Iterable[Clause]) -> Dnf:
        distinct = tuple(dict.fromkeys(clauses))
        if len(distinct) <= self.k:
            return distinct
        weights = [self._probability(clause) for clause in distinct]
        if sum(weights) == 0:
            return distinct[: self.k]
        drawn: set[Clause] = set()
        # Some may be so improbable that k different ones take for ever.
        for clause in self._random.choices(distinct, weights, k=10 * self.k):
            drawn.add(clause)
            if len(drawn) == self.k:
                break
        return tuple(clause for clause in distinct if clause in drawn)


class _Signed(NamedTuple):
    """A formula: that any of these proofs holds, or that none of them does."""

    positive: bool
    proofs: Dnf


class TopBottomKClauses(_Counted[_Signed]):
    """A tag is k proofs, or k proofs of its negation: negation is free, and loses nothing.

    Scallop speaks of the k bottom clauses of a conjunctive normal form: those are the k top
    proofs of the negation, negated.

    Args:
        k: how many proofs are kept.
        disjunctions: as for `TopKProofs`.
    """

    name = "topbottomkclauses"
    normalizes = True
    zero = _Signed(True, ())
    one = _Signed(True, ((),))

    def __init__(self, k: int, disjunctions: bool = False) -> None:
        self.proofs = TopKProofs(k, disjunctions)
        self.proofs.name = self.name
        self.facts = self.proofs.facts

    def fact(self, key: Hashable, probability: Any, group: Hashable | None = None) -> _Signed:
        return _Signed(True, self.proofs.fact(key, probability, group))

    def add(self, a: _Signed, b: _Signed) -> _Signed:
        if not (a.positive or b.positive):
            return _Signed(False, self.proofs._product(a.proofs, b.proofs, False))
        return _Signed(True, self.proofs.add(self._positive(a), self._positive(b)))

    def mult(self, a: _Signed, b: _Signed) -> _Signed:
        if a.positive and b.positive:
            return _Signed(True, self.proofs.mult(a.proofs, b.proofs))
        return _Signed(False, self.proofs.add(self._negative(a), self._negative(b)))

    def negate(self, a: _Signed) -> _Signed:
        if len(a.proofs) == 1 and len(a.proofs[0]) == 1:
            return _Signed(a.positive, ((a.proofs[0][0] ^ 1,),))
        return _Signed(not a.positive, a.proofs)

    def possible(self, tag: _Signed) -> bool:
        return bool(tag.proofs) if tag.positive else all(tag.proofs)

    def certain(self, tag: _Signed) -> bool:
        return () in tag.proofs if tag.positive else not tag.proofs

    def gradient(self, tag: _Signed) -> tuple[float, dict[int, float]]:
        value, derivatives = self.proofs.gradient(tag.proofs)
        if tag.positive:
            return value, derivatives
        return 1 - value, {fact: -derivative for fact, derivative in derivatives.items()}

    def _positive(self, a: _Signed) -> Dnf:
        return a.proofs if a.positive else self.proofs.negate(a.proofs)

    def _negative(self, a: _Signed) -> Dnf:
        return self.proofs._negation(a.proofs, False) if a.positive else a.proofs


class _Gradients(_Counted[T]):
    """Proofs whose probabilities are read as tensors, with gradients to those that were given."""

    normalizes = False

    def output(self, tag: T) -> Tensor:
        return self.outputs([tag])[0]

    def outputs(self, tags: Sequence[T | None]) -> Tensor:
        """The probabilities of many tags; None stands for zero."""
        found = [(0.0, {}) if tag is None else self.gradient(tag) for tag in tags]
        inputs = self.facts.inputs
        used = sorted({fact for _, derivatives in found for fact in derivatives if fact in inputs})
        values = [value for value, _ in found]
        if not used:
            some = next(iter(inputs.values()), None)
            return torch.tensor(values) if some is None else some.new_tensor(values)
        given = torch.stack([inputs[fact] for fact in used])
        jacobian = [[derivatives.get(fact, 0.0) for fact in used] for _, derivatives in found]
        # Zero, but for its gradient.
        change = given.new_tensor(jacobian) @ (given - given.detach())
        return given.new_tensor(values) + change


class DiffTopKProofs(_Gradients[Dnf], TopKProofs):
    """`topkproofs` with gradients."""

    name = "difftopkproofs"


class DiffSampleKProofs(_Gradients[Dnf], SampleKProofs):
    """`samplekproofs` with gradients."""

    name = "diffsamplekproofs"


class DiffTopBottomKClauses(_Gradients[_Signed], TopBottomKClauses):
    """`topbottomkclauses` with gradients."""

    name = "difftopbottomkclauses"


# Weighted model counting


class _Decision(NamedTuple):
    """A node of a decision diagram: which fact holds, of some that exclude one another.

    Attributes:
        branches: facts, and the nodes that follow where they hold.
        other: the node that follows where none of them does.
    """

    branches: tuple[tuple[int, int], ...]
    other: int


@lru_cache(maxsize=1 << 14)
def _decide(
    proofs: Dnf, concepts: tuple[tuple[int, int], ...] | None
) -> tuple[int, tuple[_Decision, ...]]:
    """The decision diagram of: any of these proofs holds.

    Args:
        proofs: in the order of facts.
        concepts: for each fact the first that it excludes; None if all are independent.

    Returns:
        The root, and the nodes, children first. Node 0 is false, node 1 true, and those that are
        returned follow from 2.
    """
    concept = dict(concepts).__getitem__ if concepts is not None else lambda fact: fact
    start = frozenset(tuple(sorted(p, key=lambda x: (concept(x >> 1), x))) for p in proofs)
    numbers: dict[frozenset[Clause], int] = {}
    nodes: list[_Decision] = []
    open_: dict[frozenset[Clause], tuple[list[int], list[frozenset[Clause]]]] = {}
    stack = [start]
    while stack:
        state = stack[-1]
        if state in numbers:
            stack.pop()
            continue
        if not state or () in state:
            numbers[state] = int(bool(state))
            continue
        if state not in open_:
            first = min(concept(clause[0] >> 1) for clause in state)
            parts = [_split(clause, first, concept) for clause in state]
            facts = sorted({literal >> 1 for heads, _ in parts for literal in heads})
            open_[state] = (
                facts,
                [
                    frozenset(rest for heads, rest in parts if _holds(heads, fact))
                    for fact in (*facts, None)
                ],
            )
        facts, following = open_[state]
        waiting = [child for child in following if child not in numbers]
        if waiting:
            stack += waiting
            continue
        children = [numbers[child] for child in following]
        if len(set(children)) == 1:
            numbers[state] = children[0]
        else:
            numbers[state] = len(nodes) + 2
            nodes.append(_Decision(tuple(zip(facts, children, strict=False)), children[-1]))
    return numbers[start], tuple(nodes)


def _split(clause: Clause, first: int, concept: Callable[[int], int]) -> tuple[Clause, Clause]:
    """The literals of a concept, which come first, and the others."""
    size = 0
    while size < len(clause) and concept(clause[size] >> 1) == first:
        size += 1
    return clause[:size], clause[size:]


def _holds(literals: Clause, fact: int | None) -> bool:
    """Whether these literals of one concept hold where this fact of it does, or none."""
    return all((literal >> 1 == fact) != bool(literal & 1) for literal in literals)


def _evaluate(
    diagram: tuple[int, tuple[_Decision, ...]], probabilities: Sequence[float]
) -> tuple[float, dict[int, float]]:
    """The probability of a decision diagram, and its derivatives."""
    root, nodes = diagram
    values = [0.0, 1.0]
    rests = []
    for branches, other in nodes:
        rest = 1 - sum(probabilities[fact] for fact, _ in branches)
        rests.append(rest)
        value = rest * values[other]
        for fact, child in branches:
            value += probabilities[fact] * values[child]
        values.append(value)
    flows = [0.0] * len(values)
    flows[root] = 1.0
    derivatives: dict[int, float] = {}
    for number in range(len(values) - 1, 1, -1):
        (branches, other), flow = nodes[number - 2], flows[number]
        flows[other] += flow * rests[number - 2]
        for fact, child in branches:
            flows[child] += flow * probabilities[fact]
            change = flow * (values[child] - values[other])
            derivatives[fact] = derivatives.get(fact, 0.0) + change
    return values[root], derivatives


# By name


class ScallopProvenance:
    """What a provenance of your own is derived from; tags may be any objects.

    Override `zero`, `one`, `add` and `mult`, and `negate` if a program negates or aggregates.
    """

    def name(self) -> str:
        """What it is called."""
        return "custom-provenance"

    def tagging_fn(self, input_tag: Any) -> Any:
        """The tag of a fact that is given with `input_tag`; None stands for certain."""
        return self.one() if input_tag is None else input_tag

    def recover_fn(self, internal_tag: Any) -> Any:
        """What is read next to a tuple with this tag."""
        return internal_tag

    def discard(self, tag: Any) -> bool:
        """Whether tuples with this tag are not derived."""
        return False

    def zero(self) -> Any:
        """The tag of what does not hold."""
        raise NotImplementedError(f"{type(self).__name__} has no method zero()")

    def one(self) -> Any:
        """The tag of what is certain."""
        raise NotImplementedError(f"{type(self).__name__} has no method one()")

    def add(self, t1: Any, t2: Any) -> Any:
        """The tag of: either holds."""
        raise NotImplementedError(f"{type(self).__name__} has no method add(t1, t2)")

    def mult(self, t1: Any, t2: Any) -> Any:
        """The tag of: both hold."""
        raise NotImplementedError(f"{type(self).__name__} has no method mult(t1, t2)")

    def negate(self, t: Any) -> Any:
        """The tag of: it does not hold."""
        raise NotImplementedError(f"{type(self).__name__} has no method negate(t)")

    def collate(self, batch_outputs: list[list[Any]]) -> Any:
        """What a forward function returns: for each example the outputs' tags, None if absent."""
        return batch_outputs


class Custom(Semiring[Any]):
    """A provenance that a user has written as scallopy's `ScallopProvenance`.

    Args:
        provenance: an object with `zero`, `one`, `add`, `mult`, and if they are needed `negate`,
            `saturated`, `discard`, `tagging_fn`, `recover_fn`, `weight`.
    """

    name = "custom"
    distributive = False

    def __init__(self, provenance: Any) -> None:
        self.provenance = provenance
        self.zero, self.one = provenance.zero(), provenance.one()

    def fact(self, key: Hashable, probability: Any, group: Hashable | None = None) -> Any:
        return self.provenance.tagging_fn(probability)

    def add(self, a: Any, b: Any) -> Any:
        return self.provenance.add(a, b)

    def mult(self, a: Any, b: Any) -> Any:
        return self.provenance.mult(a, b)

    def negate(self, a: Any) -> Any:
        return self.provenance.negate(a)

    def equal(self, a: Any, b: Any) -> bool:
        saturated = getattr(self.provenance, "saturated", None)
        return True if saturated is None else bool(saturated(a, b))

    def possible(self, tag: Any) -> bool:
        return not self.provenance.discard(tag)

    def certain(self, tag: Any) -> bool:
        return tag is self.one

    def output(self, tag: Any) -> Any:
        return self.provenance.recover_fn(tag)


_SIMPLE: dict[str, type[Tags[Any]]] = {
    "unit": UnitTags,
    "diffnandmultprob2": DiffNandMultProb,
    "diffmaxmultprob2": DiffMaxMultProb,
    **{
        kind.name: kind
        for kind in (
            Boolean,
            Natural,
            Tropical,
            Proofs,
            MinMaxProb,
            AddMultProb,
            DiffMinMaxProb,
            DiffAddMultProb,
            DiffAddMultProb2,
            DiffNandMultProb,
            DiffNandMinProb,
            DiffMaxMultProb,
        )
    },
}
_BEST: dict[str, Callable[[int, bool], Tags[Any]]] = {
    "topkproofs": TopKProofs,
    "topbottomkclauses": TopBottomKClauses,
    "difftopkproofs": DiffTopKProofs,
    "difftopbottomkclauses": DiffTopBottomKClauses,
}
_DRAWN: dict[str, Callable[[int, int], Tags[Any]]] = {
    "samplekproofs": SampleKProofs,
    "diffsamplekproofs": DiffSampleKProofs,
}

NAMES: tuple[str, ...] = tuple(sorted([*_SIMPLE, *_BEST, *_DRAWN]))
"""The names of Scallop's provenances that there are."""


def make(
    name: str, *, k: int = 3, wmc_with_disjunctions: bool = False, seed: int = 12345678
) -> Tags[Any]:
    """A provenance of Scallop's.

    Args:
        name: one of `NAMES`.
        k: how many proofs or clauses are kept, for those that keep some.
        wmc_with_disjunctions: whether the facts of a disjunction are the values of one variable
            when probabilities are computed; independent of one another if not.
        seed: for those that draw proofs.

    Raises:
        ByssusError: there is none of this name, or k is not positive.
    """
    if k < 1:
        raise ByssusError(f"k is {k}: it is how many proofs are kept, 1 at least")
    if name in _SIMPLE:
        return _SIMPLE[name]()
    if name in _BEST:
        return _BEST[name](k, wmc_with_disjunctions)
    if name in _DRAWN:
        return _DRAWN[name](k, seed)
    raise ByssusError(
        f"there is no provenance {name!r}: there are 'exact', 'sampled', 'mixed', 'auto', "
        f"'nesydm', and of Scallop's {', '.join(map(repr, NAMES))}"
    )
