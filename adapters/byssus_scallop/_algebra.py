"""What the engine asks of a provenance: a semiring with negation, and tags of uncertain facts."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import reduce
from typing import Any, Generic, TypeVar

__all__ = ["Tags", "Unit"]

T = TypeVar("T")
Row = tuple[Any, ...]


class Tags(Generic[T]):
    """Tags of type `T`; to be subclassed.

    Attributes:
        zero: the tag of what holds in no world.
        one: the tag of what holds in every world.
        worlds: whether a tag says in which worlds a fact holds. Aggregates then mean what they
            mean in each world; else they are Scallop's own (an implicit group exists for certain).
        batched: whether one tag speaks of all examples of a batch.
        distributive: whether `mult` distributes over `add`, so that sums may be formed early.
        normalizes: whether `normalize` and `softmax` give tuples new probabilities.
        mult_source: Python source of the product of tags `{0}` and `{1}`, which generated code
            has in place of a call of `mult`; None for none.
        possible_source: the same for `possible`.
        joins: whether `join` narrows rows down.
        incomplete: whether this run has to be repeated, so that no more calls are made in it.
    """

    zero: T
    one: T
    worlds: bool = True
    batched: bool = True
    distributive: bool = True
    normalizes: bool = True
    mult_source: str | None = None
    possible_source: str | None = None
    joins: bool = False
    incomplete: bool = False

    def fact(self, key: Hashable, probability: Any, group: Hashable | None = None) -> T:
        """The tag of an uncertain fact.

        Args:
            key: what it is; the same key is the same fact.
            probability: a float, a bool, or a tensor: a scalar, or one probability an example.
            group: facts of one group are alternatives of one another.
        """
        raise NotImplementedError

    def alternatives(self, key: Hashable, probabilities: Sequence[Any]) -> Sequence[T]:
        """The tags of facts of which at most one holds."""
        return [self.fact((key, i), p, key) for i, p in enumerate(probabilities)]

    def choices(self, key: Hashable, count: int) -> Sequence[T]:
        """The tags of so many alternatives, one of which holds (a rule with exclusive heads)."""
        return self.alternatives(key, [1.0 / count] * count)

    def add(self, a: T, b: T) -> T:
        """Either holds."""
        raise NotImplementedError

    def mult(self, a: T, b: T) -> T:
        """Both hold."""
        raise NotImplementedError

    def negate(self, a: T) -> T:
        """It does not hold."""
        raise NotImplementedError

    def equal(self, a: T, b: T) -> bool:
        """Whether a fact's tag, grown from `a` to `b`, is to count as unchanged."""
        return bool(a == b)

    def possible(self, tag: T) -> bool:
        """Whether there is a world at all in which it holds; what is not possible is dropped."""
        return not self.equal(tag, self.zero)

    def certain(self, tag: T) -> bool:
        """Whether it holds in every world: aggregates need not ask what if it did not."""
        return self.equal(tag, self.one)

    def sum(self, tags: Sequence[T]) -> T:
        """Any of them holds; there is one at least."""
        return reduce(self.add, tags)

    def insert(self, old: T | None, tags: Sequence[T], recursive: bool) -> tuple[T, bool]:
        """The tag of a tuple that is derived with these tags, and whether it has changed.

        Args:
            old: its tag so far; None if it is new.
            tags: those that it is derived with now; one at least.
            recursive: whether rules that read it may still derive it.
        """
        if old is None:
            return self.sum(tags), True
        new = self.sum([old, *tags])
        return new, not self.equal(old, new)

    def weight(self, tag: T) -> float:
        """How probable a fact is, for `top` and `categorical`."""
        raise NotImplementedError

    def output(self, tag: T) -> Any:
        """What users get for a tag."""
        return tag

    def outputs(self, tags: Sequence[T | None]) -> Any:
        """What users get for several tags, None being that of no tuple: a list, or a tensor."""
        return [0.0 if tag is None else self.output(tag) for tag in tags]

    def join(
        self, tag: T, table: Any, columns: tuple[int, ...], key: Any, rows: Collection[Row]
    ) -> Collection[Row]:
        """Of many rows of a table those that some world of `tag` may have.

        Args:
            tag: what the rows are to be joined with.
            table: the `_engine.Table` that they are of.
            columns: the columns by which they were looked up.
            key: the value of these columns (a tuple of them, if there are several).
            rows: the rows.
        """
        return rows

    def contents(
        self, tables: Sequence[Mapping[Row, T]], limit: int | None
    ) -> list[tuple[tuple[tuple[Row, ...], ...], T]] | None:
        """What relations contain in the worlds: their rows in order, and the tag of just these.

        Args:
            tables: the rows of each relation, with tags.
            limit: the most different contents.

        Returns:
            None if there are more than the limit.
        """
        found: dict[tuple[tuple[Row, ...], ...], T] = {tuple(() for _ in tables): self.one}
        for i, table in enumerate(tables):
            for row, tag in sorted(table.items(), key=lambda entry: entry[0]):
                inverse = self.negate(tag)
                grown: dict[tuple[tuple[Row, ...], ...], T] = {}
                for content, held in found.items():
                    with_row = (*content[:i], (*content[i], row), *content[i + 1 :])
                    for state, part in (
                        (content, self.mult(held, inverse)),
                        (with_row, self.mult(held, tag)),
                    ):
                        if self.possible(part):
                            grown[state] = part
                found = grown
                if limit is not None and len(found) > limit:
                    return None
        return list(found.items())


class Unit(Tags[bool]):
    """No tags: what holds, holds."""

    zero, one = False, True

    def fact(self, key: Hashable, probability: Any, group: Hashable | None = None) -> bool:
        """Everything that is given is certain."""
        return probability is not False

    def add(self, a: bool, b: bool) -> bool:
        """Or."""
        return a or b

    def mult(self, a: bool, b: bool) -> bool:
        """And."""
        return a and b

    def negate(self, a: bool) -> bool:
        """Not."""
        return not a

    def weight(self, tag: bool) -> float:
        """All the same."""
        return 1.0
