"""What a black box answers: one value, or several with or without probabilities.

Where answers are uncertain, a call is a random choice: one annotated disjunction for each argument
tuple, whichever goals ask for it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from problog.engine_unify import UnifyError, unify_value
from problog.formula import LogicFormula
from problog.logic import Constant, Term, is_ground, is_list, is_variable

from byssus._calls import Outcome
from byssus.blackbox import Chances
from byssus.formula import Key

from ._terms import order_key, to_python, to_term

__all__ = ["Answers", "entries", "is_answer", "solutions"]

ANSWER = "$answer"
"""The options of a call's random choice are of the group `($answer, (call,))`."""


@dataclass(frozen=True)
class Answers:
    """The answers of one call, all of which hold.

    Attributes:
        values: they; none for a call that has no answer.
    """

    values: tuple[Hashable, ...]


def entries(outcome: Outcome) -> list[tuple[Hashable, float | None]]:
    """The answers of a call that did not fail, each with its probability if it is uncertain."""
    if isinstance(outcome, Answers):
        return [(value, None) for value in outcome.values]
    if not isinstance(outcome, Chances):
        return [(outcome, None)]
    scale = max(1.0, math.fsum(outcome.values()))  # rounded, they may sum to a little more
    return [(value, p / scale) for value, p in outcome.items() if p > 0]


def solutions(
    name: str,
    inputs: Sequence[Any],
    asked: Sequence[Any],
    outcome: Outcome,
    target: LogicFormula,
) -> Iterator[tuple[tuple[Any, ...], Key]]:
    """What a call gives as a predicate: its arguments for each answer, and the node of that.

    Args:
        name: of the predicate.
        inputs: its arguments that are bound.
        asked: its other arguments, each an output; with none, it is a test.
        outcome: what the call has given.
        target: the formula.
    """
    for option, (answer, p) in enumerate(entries(outcome)):
        if not asked:
            if answer is not True:
                continue
            given: tuple[Any, ...] = ()
        else:
            values = (answer,) if len(asked) == 1 else answer
            assert isinstance(values, tuple)
            given = tuple(map(to_term, values))
            if not all(map(unifies, asked, given)):
                continue
        node = _chosen(Term(name, *inputs, *given), len(inputs), option, p, target)
        if node is not None:  # a formula may hold one sampled world only
            as_asked = zip(asked, given, strict=True)
            yield (*inputs, *(old if _is_ground(old) else new for old, new in as_asked)), node


def _chosen(term: Term, inputs: int, option: int, p: float | None, target: LogicFormula) -> Key:
    """The node that says that a call gives one of its answers.

    Args:
        term: the call with this answer, as the rules write it.
        inputs: how many of its arguments are the call's.
        option: the number of the answer.
        p: its probability, or None where it is certain.
        target: the formula.
    """
    if p is None or p > 1 - 1e-12:
        return 0
    # However the rules quote its arguments, the same call is the same choice.
    call = Term(term.functor, *(to_term(to_python(part)) for part in term.args[:inputs]))
    group = ANSWER, (call,)
    key: Key = target.add_atom((*group, option), Constant(p), group=group, name=term)
    return key


def _is_ground(term: Any) -> bool:
    return not is_variable(term) and bool(is_ground(term))


def is_answer(group: Any) -> bool:
    """Whether the atoms of a group are the answers of a call."""
    return isinstance(group, tuple) and group[0] == ANSWER


def unifies(term: Any, value: Term) -> bool:
    """Whether a term may be this value; quoted or not, an atom is the same."""
    if _is_ground(term):
        plain = isinstance(term, Constant) or term.arity == 0 or is_list(term)
        same = plain and order_key(to_term(to_python(term))) == order_key(value)
        return bool(term == value or same)
    try:
        unify_value(term, value, {})
    except UnifyError:
        return False
    return True
