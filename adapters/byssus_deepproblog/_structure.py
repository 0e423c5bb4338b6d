"""What the queries of a batch have in common: a template, grounded and compiled once.

Two queries share a template if they differ in the names of their tensors alone, or in their answer
where the rules do no more with an answer than compare it. What they differ in is the *binding* of
each.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from deepproblog.query import Query
from problog.logic import Term, is_variable, term2list

from byssus_problog import Program, observed
from byssus_problog._terms import to_python

from ._rules import PARAMETERS, replaced

NETWORK_OUTPUT = "nn"
"""`tensor(nn(network, inputs))` is what the network computes from the inputs."""


@dataclass
class Binding:
    """A query as a template and what it puts into it.

    Attributes:
        key: tells templates apart.
        tensors: the terms that stand for the template's tensors, in order.
        observed: the answer's constants, where the template leaves them open.
    """

    key: Hashable
    tensors: list[Term]
    observed: list[Term]


class Templates:
    """How queries are taken apart.

    Args:
        nameless: whether the names of tensors do not matter.
    """

    def __init__(self, *, nameless: bool) -> None:
        self._nameless = nameless

    def bind(self, query: Query, *, observe: bool) -> Binding:
        """Take a query apart.

        Args:
            query: the query, whose substitution is not looked at but for what it replaces.
            observe: whether to leave the constants of its answer open.
        """
        tensors: dict[Term, int] = {}
        observed: list[Term] = []
        key: list[Hashable] = [query.query.functor]
        outputs = _outputs(query) if observe else set()
        for i, argument in enumerate(query.query.args):
            stack = [argument]
            is_output = i in outputs
            while stack:
                part = stack.pop()
                if is_variable(part):
                    key.append(("variable", str(part)))
                elif self._nameless and _is_tensor(part):
                    key.append(("tensor", tensors.setdefault(part, len(tensors))))
                elif part.args:
                    key.append((part.functor, len(part.args)))
                    stack += reversed(part.args)
                elif is_output and _is_open(part, query.substitution):
                    key.append("observed")
                    observed.append(part)
                else:
                    key.append((type(part.functor), part.functor))
        return Binding(tuple(key), list(tensors), observed)

    def template(self, query: Query, binding: Binding) -> Term:
        """The query that stands for all with this key."""
        names: dict[Term, Term] = {
            tensor: placeholder(i) for i, tensor in enumerate(binding.tensors)
        }
        arguments = [replaced(argument, names) for argument in query.query.args]
        if binding.observed:
            count = iter(range(len(binding.observed)))
            for i in sorted(_outputs(query)):
                arguments[i] = _opened(arguments[i], query.substitution, count)
        return query.query(*arguments)


def _outputs(query: Query) -> set[int]:
    """The positions of the query's answer among its arguments."""
    count = len(query.query.args)
    return {i % count for i in query.output_ind} if count else set()


def placeholder(number: int) -> Term:
    """What the template has in the place of a tensor."""
    return Term("tensor", Term(f"'${number}'"))


def _is_tensor(term: Any) -> bool:
    return bool(term.functor == "tensor") and len(term.args) == 1


def _is_open(term: Term, substitution: Mapping[Term, Term]) -> bool:
    return str(term.functor) != "[]" and term not in substitution


def _opened(term: Any, substitution: Mapping[Term, Term], count: Any) -> Any:
    if is_variable(term) or _is_tensor(term):
        return term
    if term.args:
        return term.with_args(*(_opened(part, substitution, count) for part in term.args))
    return observed(next(count)) if _is_open(term, substitution) else term


@dataclass
class Structure:
    """A template's ground program.

    Attributes:
        program: it.
        template: the query that it answers.
        inputs: for each network, the argument lists of its instances, in their order.
        observes: whether the answer's constants are given with each example.
        ground_time: the seconds that grounding and compiling took.
        compile_time: 0; it is part of the above.
        from_cache: whether the last look-up found it made.
    """

    program: Program
    template: Term
    observes: bool
    ground_time: float
    compile_time: float = 0.0
    from_cache: bool = False
    inputs: dict[str, list[list[Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = instances(self.program)

    @cached_property
    def parameters(self) -> list[int]:
        """The learned facts that it needs, by their position in `model.parameters`."""
        return [int(arguments[0]) for arguments in self.inputs.get(PARAMETERS, [])]

    def answers(self, query: Query, names: Mapping[Term, Term]) -> list[Term]:
        """The answers to a query, one an output of the program.

        Args:
            query: the query.
            names: what stands in it for the terms of the template.
        """
        if self.template.is_ground():
            return [query.substitute().query]
        # Answers differ in few of their arguments.
        known: dict[Term, Term] = {}
        answers = []
        for answer in self.program.answers:
            for part in answer.args:
                if part not in known:
                    known[part] = replaced(part, names)
            answers.append(answer.with_args(*(known[part] for part in answer.args)))
        return answers


def instances(program: Program) -> dict[str, list[list[Any]]]:
    """The argument lists of each network, in the order of its tensor's second dimension."""
    found: dict[str, list[Any]] = {name: [None] * len(i) for name, i in program.instances.items()}
    for concept in program._rules.ground.concepts:
        if concept.network in found:
            arguments = term2list(concept.inputs, deep=False)
            values = tuple(map(to_python, arguments))
            instance = values[0] if len(values) == 1 else values
            position = program.instances[concept.network].index(instance)
            found[concept.network][position] = arguments
    return found
