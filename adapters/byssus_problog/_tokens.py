"""Symbolic tokens: terms that stand in the rules for a value that only a world decides.

While a program is grounded, the answer of a network, `digit(left, X)`, may be one token instead of
ten values. It flows through the rules like any ground term. A black box called on tokens is one
call, whose answer is a token again. So sixteen digits that rules only collect and hand over take
sixteen tokens and one call, where their values would take 10^16.

That is right only as long as nothing asks what a token is. What does (a constant in a rule's head,
arithmetic, a comparison, an aggregate) raises `Touched`, and the program is grounded again with
values in the place of that network's tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from problog.clausedb import ClauseIndex
from problog.logic import Term, is_ground, is_variable

CALL_TEST = "$test"
"""An atom with the label `$test(call, term)` holds where the call's answer is the term."""

OBSERVED = "$observed"
"""An atom with the label `$observed(i, value)` holds where the observation i is the value."""


class Touched(Exception):  # noqa: N818
    """Something in the program asks what a token is."""

    def __init__(self, *tokens: Token) -> None:
        super().__init__(*tokens)
        self.tokens = tokens


class Token(Term):  # type: ignore[misc]
    """An opaque ground term: equal to itself, and nobody knows to what else."""

    @property
    def signature(self) -> str:
        """What unification compares."""
        return _Signature(self)

    def with_args(self, *args: Any, **about: Any) -> Token:
        """A token has no arguments."""
        return self

    def with_probability(self, p: Any = None) -> Token:
        """A token has no probability."""
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and self.functor == other.functor

    def __hash__(self) -> int:
        return hash(self.functor)


class Value(Token):
    """The value that a network predicts for an input.

    Attributes:
        network: the network's name.
        inputs: the term list that it is given.
    """

    def __init__(self, network: str, inputs: Term, declaration: int) -> None:
        super().__init__(f"${network}({inputs})@{declaration}")
        self.network, self.inputs = network, inputs


class Call(Token):
    """The answer of a black box.

    Attributes:
        box: the name under which the rules call it.
        arguments: what it is called on: terms with tokens in them.
    """

    def __init__(self, box: str, arguments: tuple[Term, ...]) -> None:
        super().__init__(f"${box}({', '.join(map(str, arguments))})")
        self.box, self.arguments = box, arguments


class Observed(Token):
    """What each example says that an answer of the program is."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{OBSERVED}({number})")
        self.number = number


def observed(number: int) -> Term:
    """A term for a query, in place of a value that each example gives (`Program.forward`).

    Args:
        number: observations are counted from 0.
    """
    return Observed(number)


class _Signature(str):
    """A token's signature, which is equal to its own alone, and compared with any other touches."""

    token: Token

    def __new__(cls, token: Token) -> _Signature:
        self = super().__new__(cls, f"{token.functor}/0")
        self.token = token
        return self

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Signature):
            if self.token == other.token:
                return True
            raise Touched(self.token, other.token)
        raise Touched(self.token)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


class Index(ClauseIndex):  # type: ignore[misc]
    """An index of clauses that does not overlook those whose constant a token may be."""

    def find(self, arguments: Any) -> Any:
        """The clauses that may match the arguments of a call."""
        for by_key, argument in zip(self._ClauseIndex__index, arguments, strict=True):
            token = next(tokens(argument), None) if is_ground(argument) else None
            if token is not None and any(
                key is not None and _may_match(key, argument) for key in by_key
            ):
                raise Touched(token)
        return super().find(arguments)


def _may_match(key: Any, argument: Any) -> bool:
    """Whether a ground term would be the argument, were its tokens anything."""
    if isinstance(argument, Token):
        return True
    return bool(key.signature == argument.signature) and all(
        map(_may_match, key.args, argument.args)
    )


def tokens(term: Any) -> Iterator[Token]:
    """The tokens in a term."""
    stack = [term]
    while stack:
        part = stack.pop()
        if isinstance(part, Token):
            yield part
        elif not is_variable(part):
            stack += reversed(part.args)


def values_in(term: Any) -> dict[Value, None]:
    """The values that decide a term, those that its calls are made on included; in order."""
    found: dict[Value, None] = {}
    stack = [term]
    while stack:
        for token in tokens(stack.pop()):
            if isinstance(token, Value):
                found.setdefault(token)
            elif isinstance(token, Call):
                stack += token.arguments
    return found
