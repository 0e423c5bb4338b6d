"""Leaf calls: black boxes called on tokens, evaluated over sampled worlds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from problog.logic import Term, is_list
from torch import Tensor

from byssus import BlackBox, ByssusError
from byssus._calls import Failure, Outcome
from byssus.blackbox import Chances
from byssus.domains import Domain, typed
from byssus.estimators import Membership

from ._answers import entries
from ._database import Network
from ._grounding import Ground
from ._terms import to_python, to_term
from ._tokens import Call, Observed, Token, Value, tokens, values_in

_LISTED = 10_000  # outputs that are listed before any world is drawn

Rows = np.ndarray[Any, np.dtype[np.int64]]
"""Numbers of worlds: example times worlds an example, plus the world."""

Guards = Callable[[Tensor], Sequence[Rows | None]]
"""For each call the worlds `(batch, worlds, concepts)` that ask it; None for all."""


class Leaves:
    """The calls on tokens of some worlds, and what they give.

    Args:
        ground: the ground program.
        boxes: the black boxes, by the name under which it calls them.
        networks: its networks, by name.
        indices: the worlds `(batch, worlds, concepts)`, in which the tests of calls are open.
        guards: says which worlds ask which call.
        observed: for each observation, its value in each example.

    Attributes:
        indices: the worlds, with the tests of calls decided.
        lost: whether a call that a world asks has failed, `(batch * worlds,)`.
    """

    def __init__(
        self,
        ground: Ground,
        boxes: Mapping[str, BlackBox],
        networks: Mapping[str, Network],
        indices: Tensor,
        guards: Guards,
        observed: Sequence[Sequence[Hashable]],
    ) -> None:
        self._ground, self._boxes, self._observed = ground, boxes, observed
        self.indices = indices.clone()
        self._worlds = indices.shape[1]
        self._table = indices.reshape(-1, indices.shape[2]).cpu().numpy()
        self._values = {token: _column(networks[token.network].values) for token in ground.tokens}
        self._outcomes: dict[Call, list[Outcome]] = {call: [] for call, _ in ground.calls}
        self._codes = {call: np.full(len(self._table), -1) for call, _ in ground.calls}
        tests = [
            (number, *concept.test)
            for number, concept in enumerate(ground.concepts)
            if concept.test is not None
        ]
        self.indices[:, :, [number for number, _, _ in tests]] = 0
        while self._ask(guards(self.indices)):
            for number, call, other in tests:
                holds = torch.from_numpy(self._equal(call, other)).to(indices.device)
                self.indices[:, :, number] = holds.reshape(indices.shape[:2]).long()
        self.lost: np.ndarray[Any, np.dtype[np.bool_]] = np.zeros(len(self._table), np.bool_)
        for call, codes in self._codes.items():
            failed = [isinstance(outcome, Failure) for outcome in self._outcomes[call]]
            self.lost |= np.array([*failed, False])[codes]

    def add_lost(self, membership: Membership) -> Membership:
        """Worlds that are lost, and those that failed calls lose besides."""
        device = membership.world.device
        more = torch.from_numpy(np.flatnonzero(self.lost)).to(device)
        kept = torch.from_numpy(~self.lost).to(device)[membership.world].nonzero().squeeze(1)
        share = membership.share
        if share is not None:
            share = torch.cat([share[kept], share.new_ones(len(more))])
        world = torch.cat([membership.world[kept], more])
        return Membership(world, torch.zeros_like(world), share)

    def failures(self) -> dict[tuple[Hashable, ...], BaseException]:
        """The calls that failed, as (name, *arguments), with the cause."""
        return {
            (call.box, *outcome.arguments): outcome.cause
            for call, outcomes in self._outcomes.items()
            for outcome in outcomes
            if isinstance(outcome, Failure) and outcome.arguments
        }

    def values(self, term: Term, rows: Rows) -> tuple[list[Hashable], Rows]:
        """What a term with tokens is in some worlds, in Python.

        Returns:
            What it is in any of them, and which of these it is in each.
        """
        if isinstance(term, Call):
            return list(map(_plain, self._outcomes[term])), self._codes[term][rows]
        columns, codes = self._distinct(values_in(term), rows)
        return self._column(term, columns, int(codes.max(initial=-1)) + 1), codes

    def outcomes(self, call: Call, rows: Rows) -> tuple[list[Outcome], Rows]:
        """What a call gives in any world, and which of these it gives in some worlds."""
        return self._outcomes[call], self._codes[call][rows]

    def is_uncertain(self, call: Call) -> bool:
        """Whether a call gives some of its answers with probabilities."""
        return any(isinstance(outcome, Chances) for outcome in self._outcomes[call])

    def terms(self, term: Term, rows: Rows) -> tuple[list[Term], Rows]:
        """As `values`, as terms."""
        columns, codes = self._distinct(values_in(term), rows)
        count = int(codes.max(initial=-1)) + 1
        return [self._replaced(term, columns, i) for i in range(count)], codes

    def _ask(self, asked: Sequence[Rows | None]) -> bool:
        """Evaluate what is asked and not known; whether there was anything."""
        news = False
        for (call, _), rows in zip(self._ground.calls, asked, strict=True):
            codes = self._codes[call]
            new = np.flatnonzero(codes < 0) if rows is None else rows[codes[rows] < 0]
            if not len(new):
                continue
            news = True
            columns, which = self._distinct(values_in(call), new)
            outcomes = self._call(call, columns, int(which.max()) + 1)
            codes[new] = which + len(self._outcomes[call])
            self._outcomes[call] += outcomes
        return news

    def _distinct(
        self, values: Iterable[Value], rows: Rows
    ) -> tuple[dict[Value, list[Hashable]], Rows]:
        """The distinct combinations of some values in some worlds, and which each world has."""
        order = list(values)
        concepts = np.array([self._ground.tokens[value] for value in order], dtype=np.int64)
        part = self._table[rows][:, concepts]
        distinct, which = np.unique(part, axis=0, return_inverse=True)
        return {
            value: self._values[value][distinct[:, i]].tolist() for i, value in enumerate(order)
        }, which.reshape(-1)

    def _call(
        self, call: Call, columns: Mapping[Value, list[Hashable]], count: int
    ) -> list[Outcome]:
        arguments = [self._column(term, columns, count) for term in call.arguments]
        tuples = list(zip(*arguments, strict=True))
        # A call on what a failed call should have given has failed with it.
        failed = {
            i: part for i, row in enumerate(tuples) for part in row if isinstance(part, Failure)
        }
        outcomes = iter(
            self._boxes[call.box].evaluate([r for i, r in enumerate(tuples) if i not in failed])
        )
        return [failed[i] if i in failed else next(outcomes) for i in range(count)]

    def _column(
        self, term: Term, columns: Mapping[Value, list[Hashable]], count: int
    ) -> list[Hashable]:
        """A term in Python, for each combination of values."""
        if isinstance(term, Value):
            return columns[term]
        if isinstance(term, Call):
            return [_plain(outcome) for outcome in self._call(term, columns, count)]
        if not any(tokens(term)):
            return [to_python(term)] * count
        if is_list(term):
            items = []
            while is_list(term):
                items.append(self._column(term.args[0], columns, count))
                term = term.args[1]
            return list(zip(*items, strict=True))
        return [to_python(self._replaced(term, columns, i)) for i in range(count)]

    def _replaced(self, term: Term, columns: Mapping[Value, list[Hashable]], row: int) -> Term:
        """A term with what its tokens are in one combination of values."""
        if isinstance(term, Observed):
            return term  # it names the output for every example
        if isinstance(term, Token):
            one = {value: [column[row]] for value, column in columns.items()}
            return to_term(self._column(term, one, 1)[0])
        return term.with_args(*(self._replaced(part, columns, row) for part in term.args))

    def _equal(self, call: Call, other: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """In which worlds a call gives a term."""
        given = [typed(_plain(outcome)) for outcome in self._outcomes[call]]
        codes = self._codes[call]
        if isinstance(other, Observed):
            wanted = [typed(value) for value in self._observed[other.number]]
            pairs = zip(codes.tolist(), np.arange(len(codes)) // self._worlds, strict=True)
            return np.array([code >= 0 and given[code] == wanted[row] for code, row in pairs])
        if not isinstance(other, Token):
            value = typed(to_python(other))
            same = np.array([*(one == value for one in given), False])
            found: np.ndarray[Any, np.dtype[np.bool_]] = same[codes]
            return found
        rows = np.flatnonzero(codes >= 0)
        others, which = self.values(other, rows)
        holds = np.zeros(len(codes), dtype=np.bool_)
        holds[rows] = [
            code_other >= 0 and given[code] == typed(others[code_other])
            for code, code_other in zip(codes[rows].tolist(), which.tolist(), strict=True)
        ]
        return holds


class Outputs:
    """The outputs of a program, where an answer with tokens is one for each value that it has.

    Args:
        ground: the ground program.
        boxes: the black boxes, by the name under which it calls them.

    Attributes:
        values: what the outputs are called in a `Distribution`.
        domain: the domain of the outputs, or None.
    """

    def __init__(self, ground: Ground, boxes: Mapping[str, BlackBox]) -> None:
        named = ground.answers if ground.bindings is None else ground.bindings
        self._ground = ground
        self._made: dict[Hashable, Term] = {}
        self._terms = [
            term if any(not isinstance(token, Observed) for token in tokens(term)) else None
            for term in named
        ]
        self.domain: Domain | None = None
        called = {term.box if isinstance(term, Call) else None for term in named}
        if ground.bindings is not None and len(called) == 1 and None not in called:
            self.domain = boxes[called.pop()].output  # type: ignore[index]
        values: list[Hashable] = [
            value for value, term in zip(ground.values, self._terms, strict=True) if term is None
        ]
        self._open = True
        if self.domain is not None and self.domain.finite and self.domain.size <= _LISTED:
            values, self._open = list(self.domain.values), False
        self.values = values
        self._positions = {typed(value): i for i, value in enumerate(values)}
        self._fixed = [
            None if term is not None else self._positions[typed(value)]
            for value, term in zip(ground.values, self._terms, strict=True)
        ]

    @cached_property
    def answers(self) -> tuple[Term, ...]:
        """The outputs as terms."""
        fixed = dict(zip(self._fixed, self._ground.answers, strict=True))
        return tuple(
            fixed[i] if i in fixed else self._answer(value) for i, value in enumerate(self.values)
        )

    @cached_property
    def queries(self) -> tuple[str, ...]:
        """The texts of the answers."""
        return tuple(map(str, self.answers))

    def _answer(self, value: Hashable) -> Term:
        if self._ground.bindings is None:
            return self._made[value]
        call = next(term for term in self._terms if term is not None)
        answer = self._ground.answers[self._terms.index(call)]
        return answer.apply_term({call: to_term(value)})

    def place(self, membership: Membership, leaves: Leaves) -> Membership:
        """Which world gives which output, from which gives which answer.

        The first worlds say which outputs there are; those that give others later give none.
        """
        named = self._ground.answers if self._ground.bindings is None else self._ground.bindings
        if len(named) == 1 and isinstance(named[0], Call) and leaves.is_uncertain(named[0]):
            return self._place_chances(membership, leaves, named[0])
        answer, world = membership.output.cpu().numpy(), membership.world.cpu().numpy()
        output = np.full(len(answer), -1)
        for i, term in enumerate(self._terms):
            of_answer = np.flatnonzero((answer == i) & ~leaves.lost[world])
            if term is None:
                output[of_answer] = self._fixed[i]
            elif len(of_answer):
                names, codes = self._names(leaves, term, world[of_answer])
                output[of_answer] = np.array([self._position(name) for name in names])[codes]
        if self._open:
            self._sort(output)
        kept = np.flatnonzero(output >= 0)
        # Answers that mean the same output in a world give it once.
        share = membership.share
        _, first = np.unique(np.stack([world[kept], output[kept]]), axis=1, return_index=True)
        if share is None:
            kept = kept[np.sort(first)]
        elif len(first) < len(kept):
            raise ByssusError(
                "two answers of one query are the same in some worlds, and rest on concepts that "
                "are summed out: use provenance 'sampled'"
            )
        index = torch.from_numpy(kept).to(membership.world.device)
        return Membership(
            membership.world[index],
            torch.from_numpy(output[kept]).to(membership.world.device),
            None if share is None else share[index],
        )

    def _place_chances(self, membership: Membership, leaves: Leaves, call: Call) -> Membership:
        """The same where the only answer is that of a call, with its probabilities as shares."""
        world = membership.world.cpu().numpy()
        rows = np.flatnonzero(~leaves.lost[world])
        outcomes, codes = leaves.outcomes(call, world[rows])
        found = [[] if isinstance(o, Failure) else entries(o) for o in outcomes]
        counts = np.array([len(some) for some in found], dtype=np.int64)
        flat = [(self._position(_plain(v)), 1.0 if p is None else p) for f in found for v, p in f]
        # Which entry of which outcome each new one is.
        repeats = counts[codes]
        first = np.repeat((np.cumsum(counts) - counts)[codes], repeats)
        within = np.arange(len(first)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        output = np.array([position for position, _ in flat], dtype=np.int64)[first + within]
        chances = np.array([p for _, p in flat])[first + within]
        if self._open:
            self._sort(output)
        kept = np.flatnonzero(output >= 0)
        device = membership.world.device
        index = torch.from_numpy(np.repeat(rows, repeats)[kept]).to(device)
        share = torch.from_numpy(chances[kept]).to(device, torch.get_default_dtype())
        if membership.share is not None:
            share = share * membership.share[index]
        return Membership(membership.world[index], torch.from_numpy(output[kept]).to(device), share)

    def _names(self, leaves: Leaves, term: Term, rows: Rows) -> tuple[list[Hashable], Rows]:
        if self._ground.bindings is not None:
            return leaves.values(term, rows)
        terms, codes = leaves.terms(term, rows)
        self._made.update((str(term), term) for term in terms)
        return list(map(str, terms)), codes

    def _position(self, name: Hashable) -> int:
        if self._open and not isinstance(name, Failure) and typed(name) not in self._positions:
            self._positions[typed(name)] = len(self.values)
            self.values.append(name)
        return self._positions.get(typed(name), -1)

    def _sort(self, output: Rows) -> None:
        """Put the outputs into their natural order, once all are known."""
        self._open = False
        try:
            order = sorted(range(len(self.values)), key=self.values.__getitem__)  # type: ignore[arg-type]
        except TypeError:  # no common order: as they occurred
            return
        self.values = [self.values[i] for i in order]
        self._positions = {typed(value): i for i, value in enumerate(self.values)}
        self._fixed = [None if i is None else order.index(i) for i in self._fixed]
        rank = np.argsort(np.array(order, dtype=np.int64))
        output[output >= 0] = rank[output[output >= 0]]


def _column(values: Sequence[Hashable]) -> np.ndarray[Any, np.dtype[np.object_]]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _plain(outcome: Outcome) -> Hashable:
    """An outcome as the rules would see it."""
    if isinstance(outcome, Chances):
        raise ByssusError(
            f"a black box gives the answer {outcome!r} with probabilities, to a call on more "
            "tuples than fit its budget, and the rules do more with it than answer the only "
            "query: raise `budget=`, so that all calls are made"
        )
    return outcome if isinstance(outcome, Failure) else to_python(to_term(outcome))
