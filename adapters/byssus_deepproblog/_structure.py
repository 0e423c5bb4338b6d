"""What the queries of a batch have in common: a template, grounded and compiled once.

Two queries share a template if they differ in the names of their tensors alone, or in their answer
where the rules do no more with an answer than compare it. What they differ in is the *binding* of
each.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deepproblog.query import Query
from problog.logic import Term, Var, is_variable, term2list
from problog.program import LogicProgram

from byssus import ByssusError
from byssus.diffusion.program import WorldProgram
from byssus_problog import Program, observed
from byssus_problog._terms import to_python, to_term
from byssus_problog._tokens import Token, tokens

from ._rules import PARAMETERS, parts, replaced

if TYPE_CHECKING:
    from ._diffusion import Diffusion


@dataclass
class Binding:
    """A query as a template and what it puts into it.

    Attributes:
        query: the query.
        key: tells templates apart.
        tensors: the terms that stand for the template's tensors, in order.
        observed: the answer's constants, where the template leaves them open.
    """

    query: Query
    key: Hashable
    tensors: list[Term]
    observed: list[Term]

    @property
    def template(self) -> Term:
        """The query that stands for all with this key."""
        names = {tensor: placeholder(i) for i, tensor in enumerate(self.tensors)}
        arguments = [replaced(argument, names) for argument in self.query.query.args]
        if self.observed:
            numbers = itertools.count()
            for i in sorted(_outputs(self.query)):
                arguments[i] = _opened(arguments[i], self.query.substitution, numbers)
        return self.query.query(*arguments)

    @cached_property
    def names(self) -> dict[Term, Term]:
        """What stands in the query for the terms of the template."""
        names: dict[Term, Term] = dict(self.query.substitution)
        for i, tensor in enumerate(self.tensors):
            names[placeholder(i)] = replaced(tensor, self.query.substitution)
        return names


def bind(query: Query, *, nameless: bool, observe: bool) -> Binding:
    """Take a query apart.

    Args:
        query: the query.
        nameless: whether the names of tensors do not matter.
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
            elif nameless and _is_tensor(part):
                key.append(("tensor", "number", tensors.setdefault(part, len(tensors))))
            elif part.args:
                key.append((part.functor, len(part.args)))
                stack += reversed(part.args)
            elif is_output and _is_open(part, query.substitution):
                key.append("observed")
                observed.append(part)
            else:
                key.append((type(part.functor), part.functor))
    return Binding(query, tuple(key), list(tensors), observed)


def _outputs(query: Query) -> set[int]:
    """The positions of the query's answer among its arguments."""
    count = len(query.query.args)
    if not count or query.query.functor in ("\\+", "not"):
        return set()
    return {i % count for i in query.output_ind}


def placeholder(number: int) -> Term:
    """What the template has in the place of a tensor."""
    return Term("tensor", Term(f"'${number}'"))


def _is_tensor(term: Any) -> bool:
    return bool(term.functor == "tensor") and len(term.args) == 1


def _is_open(term: Term, substitution: Mapping[Term, Term]) -> bool:
    return str(term.functor) != "[]" and term not in substitution


def _opened(term: Any, substitution: Mapping[Term, Term], numbers: Iterator[int]) -> Any:
    if is_variable(term) or _is_tensor(term):
        return term
    if term.args:
        return term.with_args(*(_opened(part, substitution, numbers) for part in term.args))
    return observed(next(numbers)) if _is_open(term, substitution) else term


class NameSeen(ByssusError):  # noqa: N818
    """A black box was to be called on what stands for another term."""


class TemplateProgram(Program):
    """The program of a template, whose black boxes may not see the template's own names.

    Args:
        program: the program's clauses.
        blackboxes: its black boxes.
        names: what stands in its query for other terms.
        options: the other arguments of `byssus_problog.Program`.

    Raises:
        NameSeen: a black box is called on one of the names.
    """

    def __init__(
        self, program: LogicProgram, blackboxes: Any, *, names: Iterable[Term], **options: Any
    ) -> None:
        self._names = set(map(str, names))
        super().__init__(program, blackboxes, **options)
        for call, _ in self._rules.ground.calls:
            for part in parts(list(call.arguments)):
                if not isinstance(part, Token):
                    self._check(str(part))

    def _known(self, box: str, arguments: tuple[Hashable, ...]) -> list[Hashable] | None:
        stack: list[Hashable] = [arguments]
        while stack:
            value = stack.pop()
            if isinstance(value, tuple):
                stack += value
            else:
                self._check(value)
        return super()._known(box, arguments)

    def _check(self, value: Hashable) -> None:
        if value in self._names or (isinstance(value, str) and "tensor('$" in value):
            raise NameSeen(value)


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
        diffusion: its diffusion model, under NeSyDM, once it has been used.
    """

    program: Program
    template: Term
    observes: bool
    ground_time: float
    compile_time: float = 0.0
    from_cache: bool = False
    diffusion: Diffusion | None = None
    inputs: dict[str, list[list[Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = instances(self.program)

    @cached_property
    def world_program(self) -> WorldProgram:
        """The program as a function from worlds."""
        return self.program.world_program()

    @cached_property
    def one_answer(self) -> bool:
        """Whether answers exclude one another, so that a query's own says all there is to say."""
        try:
            found = self.world_program
        except ByssusError:
            return False
        one = len(found.dimensions) == 1 and found.sizes[0] == len(self.program.values)
        return one or found.output is not None

    @cached_property
    def parameters(self) -> list[int]:
        """The learned facts that it needs, by their position in `model.parameters`."""
        return [int(arguments[0]) for arguments in self.inputs.get(PARAMETERS, [])]

    def answers(self, binding: Binding, values: Sequence[Hashable]) -> list[Term]:
        """The answers to a query, one an output of the program.

        Args:
            binding: the query.
            values: what the program calls its outputs.
        """
        if self.template.is_ground():
            return [replaced(binding.query.query, binding.query.substitution)]
        # Answers differ in few of their arguments.
        known: dict[Term, Term] = {}
        answers = []
        for answer in self._terms(values):
            for part in answer.args:
                if part not in known:
                    known[part] = replaced(part, binding.names)
            answers.append(answer.with_args(*(known[part] for part in answer.args)))
        return answers

    def _terms(self, values: Sequence[Hashable]) -> Sequence[Term]:
        """The outputs as instances of the template."""
        if not any(any(tokens(answer)) for answer in self.program.answers):
            return self.program.answers
        # An answer that holds a token is an output for each value of the token.
        variables = {str(variable) for variable in self.template.variables()}
        if len(variables) == 1:
            (name,) = variables
            return [replaced(self.template, {Var(name): to_term(value)}) for value in values]
        known = dict(zip(self.program.values, self.program.answers, strict=True))
        return [known[value] for value in values]


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
