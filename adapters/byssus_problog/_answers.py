"""What a black box answers: one value, or several with or without probabilities.

Where answers are uncertain, a call is a random choice: one annotated disjunction for each argument
tuple, whichever goals ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from problog.engine_unify import UnifyError, unify_value
from problog.formula import LogicFormula
from problog.logic import Constant, Term, is_ground, is_list, is_variable

from byssus import DomainError
from byssus._calls import Arguments, Outcome
from byssus.formula import Key

from ._terms import order_key, to_python, to_term

__all__ = ["Answers", "chosen", "entries", "is_answer", "unifies"]

ANSWER = "$answer"
"""The options of a call's random choice are of the group `($answer, (call,))`."""


@dataclass(frozen=True)
class Answers:
    """The answers of one call, where they are not one value.

    Attributes:
        entries: each with its probability, or None where all of them hold. Those with a
            probability exclude one another.
    """

    entries: tuple[tuple[Hashable, float | None], ...]

    @classmethod
    def all_of(cls, values: Iterable[Any], check: Callable[[Any], Hashable]) -> Answers:
        """Several answers, all of which hold."""
        return cls(tuple((value, None) for value in dict.fromkeys(map(check, values))))

    @classmethod
    def one_of(cls, chances: Mapping[Any, Any], check: Callable[[Any], Hashable]) -> Answers:
        """One of several answers, each with its probability.

        Raises:
            DomainError: they are no probabilities, or sum to more than 1.
        """
        found: dict[Hashable, float] = {}
        for value, chance in chances.items():
            p = float(chance)
            if not 0 <= p <= 1 + 1e-6:
                raise DomainError(f"{value!r} has probability {p!r}: give one from 0 to 1")
            answer = check(value)
            found[answer] = found.get(answer, 0.0) + p
        total = sum(found.values())
        if total > 1 + 1e-6:
            raise DomainError(
                f"the probabilities of the answers {chances!r} sum to {total:g}, above 1: divide "
                "them by their sum"
            )
        scale = max(total, 1.0)
        return cls(tuple((value, p / scale) for value, p in found.items() if p > 0))


def entries(outcome: Outcome) -> tuple[tuple[Hashable, float | None], ...]:
    """The answers of a call that did not fail, see `Answers`."""
    return outcome.entries if isinstance(outcome, Answers) else ((outcome, None),)


def chosen(
    name: str, arguments: Arguments, option: int, p: float | None, term: Term, target: LogicFormula
) -> Key:
    """The node that says that a call gives one of its answers; None where it cannot.

    Args:
        name: the black box.
        arguments: what it is called on.
        option: the number of the answer.
        p: its probability, or None where it is certain.
        term: the call with this answer, as the rules write it.
        target: the formula.
    """
    if p is None or p >= 1:
        return 0
    # Written alike, however the rules quote it: the same call is the same choice.
    call = Term(name, *map(to_term, arguments))
    group = ANSWER, (call,)
    key: Key = target.add_atom((*group, option), Constant(p), group=group, name=term)
    return key


def is_answer(group: Any) -> bool:
    """Whether the atoms of a group are the answers of a call."""
    return isinstance(group, tuple) and group[0] == ANSWER


def unifies(term: Any, value: Term) -> bool:
    """Whether a term may be this value; quoted or not, an atom is the same."""
    if not is_variable(term) and is_ground(term):
        plain = isinstance(term, Constant) or term.arity == 0 or is_list(term)
        same = plain and order_key(to_term(to_python(term))) == order_key(value)
        return bool(term == value or same)
    try:
        unify_value(term, value, {})
    except UnifyError:
        return False
    return True
