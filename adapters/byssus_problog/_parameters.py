"""Tunable probabilities: `t(_)::head`, and what a program learns for it.

As in ProbLog's learning from interpretations. The tunable options of a clause, and the remainder
in which none of its options is chosen, share what the clause's fixed probabilities leave. There is
one set of parameters for a clause; for `t(_, X)::head` one for each value of X.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from problog.logic import Constant, Term, Var
from torch import Tensor, nn

_TAKEN = nn.ParameterDict()  # its attributes cannot name parameters

LABEL = "$t"
"""An option of a tunable clause has the label `$t(clause, option, index...)`."""


@dataclass(frozen=True)
class Tunable:
    """A clause some of whose probabilities are learned.

    Attributes:
        heads: the head of each option.
        fixed: the probability of each option; None where it is learned.
        initial: the first value of each probability that is learned, None where it is drawn.
        index: the arguments of `t` after the first.
        body: the body, for telling clauses of one head apart.
    """

    heads: tuple[Term, ...]
    fixed: tuple[float | None, ...]
    initial: tuple[float | None, ...]
    index: tuple[Var, ...]
    body: Term

    @property
    def free(self) -> float:
        """What the fixed probabilities leave."""
        return 1.0 - sum(p for p in self.fixed if p is not None)

    @property
    def remainder(self) -> bool:
        """Whether there may be a world in which no option is chosen."""
        return None in self.initial or self._left > 1e-9

    @property
    def _left(self) -> float:
        """What is left for the probabilities that are drawn, and the remainder."""
        return self.free - sum(p for p in self.initial if p is not None)

    @property
    def width(self) -> int:
        """The options, and the remainder."""
        return len(self.heads) + self.remainder

    def fault(self) -> str | None:
        """What is wrong with it, if anything."""
        wrong = [p for p in self.initial if p is not None and not 0 < p <= 1]
        if wrong:
            return f"t({wrong[0]:g}): the first value of a tunable probability lies above 0, to 1"
        if self.free <= 1e-9 or self._left < -1e-9 or (None in self.initial and self._left <= 1e-9):
            return (
                "the probabilities of a disjunction sum to 1 at most, and these leave nothing for "
                "its tunable options"
            )
        if len(self.initial) == 1 and not self.remainder:
            return (
                f"t({self.initial[0]:g}) would never change, since it is all that is left: give "
                "another first value"
            )
        return None

    def logits(self, generator: torch.Generator | None) -> Tensor:
        """Logits of the tunable options, and of the remainder if there is one."""
        drawn = [i for i, p in enumerate(self.initial) if p is None]
        shares = [0.0 if p is None else p for p in self.initial]
        if drawn:
            device = None if generator is None else generator.device
            random = torch.rand(len(drawn) + 1, generator=generator, device=device).clamp(1e-3)
            *some, rest = (random / random.sum() * self._left).tolist()
            for i, share in zip(drawn, some, strict=True):
                shares[i] = share
            shares.append(rest)
        elif self.remainder:
            shares.append(self._left)
        return torch.tensor(shares, dtype=torch.get_default_dtype()).log()

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability of each option, and of the remainder if there is one."""
        learned = iter(logits.softmax(0).mul(self.free).unbind())
        parts = [next(learned) if p is None else logits.new_tensor(p) for p in self.fixed]
        return torch.stack([*parts, *learned])


@dataclass(frozen=True)
class Parameter:
    """The parameters of a tunable clause, for one value of its index.

    Attributes:
        clause: the clause.
        options: for each tunable option, what it is called and its position in the clause.
    """

    clause: Tunable
    options: dict[str, int]


class Parameters(dict[str, Parameter]):
    """The parameters of a program, by name."""

    def __init__(self) -> None:
        self._names: dict[tuple[int, str], str] = {}

    def name(self, number: int, clause: Tunable, index: Sequence[Term]) -> str:
        """The name of a clause's parameters for one value of its index; new ones if need be."""
        key = number, str(Term("t", *index))
        if key not in self._names:
            binding = _Binding({v.name: t for v, t in zip(clause.index, index, strict=True)})
            body = str(clause.body.apply(binding))
            options: dict[str, int] = {}
            for i in (i for i, p in enumerate(clause.fixed) if p is None):
                head = clause.heads[i]
                texts = [str(head.apply(binding))]
                if body != "true":
                    texts.append(f"{texts[0]} :- {body}")
                if not set(clause.index) <= head.variables():
                    texts = texts[-1:]  # the head does not say which instance it is
                options[self._unused(texts, options)] = i
            # torch takes no name with a dot, nor one of an attribute
            name = "; ".join(options).replace(".", "·")
            name += "/0" * hasattr(_TAKEN, name)
            self._names[key] = name
            self[name] = Parameter(clause, options)
        return self._names[key]

    def _unused(self, texts: list[str], more: dict[str, int]) -> str:
        taken = {text for parameter in self.values() for text in parameter.options} | set(more)
        texts = [*texts, *(f"{texts[-1]} ({i})" for i in range(2, len(taken) + 3))]
        return next(text for text in texts if text not in taken)


class _Binding:
    """Puts values in the place of variables, and leaves the others."""

    def __init__(self, values: dict[str, Term]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Term:
        return self._values.get(name, Var(name))


def label(number: int, option: int, index: Sequence[Term]) -> Term:
    """The label of an option of a tunable clause."""
    return Term(LABEL, Constant(number), Constant(option), *index)
