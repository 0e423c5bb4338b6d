"""The clauses of a DeepProbLog model, as a program that `byssus_problog` runs.

DeepProbLog's own translation has numbered the learned probabilities: `t(2)` is
`model.parameters[2]`. Here they become networks, whose outputs are these parameters; and a network
whose output is a tensor, `nn(encoder, [X], E) :: encode(X, E)`, becomes the plain fact
`encode(X, tensor(nn(encoder, [X])))`: the tensor's name says what to compute.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deepproblog.network import Network
from problog.logic import (
    AnnotatedDisjunction,
    Clause,
    Constant,
    Or,
    Term,
    Var,
    is_list,
    list2term,
    term2list,
)
from problog.program import SimpleProgram

from byssus import ConceptError, ProgramError
from byssus.errors import listed
from byssus_problog._terms import body_of, heads_of, to_python
from byssus_problog.blackboxes import directives, is_declaration

PARAMETERS = "$parameters"
"""The network of the learned facts: of the input i it says `model.parameters[i]`."""

EAGER = "$eager"
"""A goal that stands for what only DeepProbLog's own grounding can do."""

# They look into a term, or order terms: tensors with other names would not do as well.
_LOOK_INTO_TERMS = {
    *("=../2", "functor/3", "arg/3", "term_to_atom/2", "compare/3", "@</2", "@>/2", "@=</2"),
    *("@>=/2", "sort/2", "sort/4", "msort/2", "predsort/3", "setof/3", "bagof/3"),
}


@dataclass
class Rules:
    """A program for byssus, and one for DeepProbLog's own grounding.

    Attributes:
        program: for `byssus_problog.Program`.
        stock: the same for `ExactEngine`.
        disjunctions: for each learned annotated disjunction, as a network's name, its
            probabilities: numbers, and parameters by their position in `model.parameters`.
        declared: for each network of the program, the model's network, and its values; None
            for a fact.
        defined: the predicates that the program defines.
        eager: the predicates that only DeepProbLog's own grounding knows.
        nameless: whether the names of tensors do not matter to the rules.
        lists: whether the program has the library of lists.
    """

    program: SimpleProgram
    stock: SimpleProgram
    disjunctions: dict[str, tuple[float | int, ...]] = field(default_factory=dict)
    declared: dict[str, tuple[str, list[Term] | None]] = field(default_factory=dict)
    defined: set[str] = field(default_factory=set)
    eager: set[str] = field(default_factory=lambda: {f"{EAGER}/0"})
    nameless: bool = True
    lists: bool = False
    _aliases: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def read(cls, program: Iterable[Term], networks: Mapping[str, Network]) -> Rules:
        """Rewrite a model's program.

        Raises:
            ConceptError: it declares a network that the model does not have.
            ProgramError: a learned probability where DeepProbLog does not find it.
        """
        rules = cls(SimpleProgram(), SimpleProgram())
        for statement in program:
            signature = _functor(_head(statement))
            if signature in ("evidence/1", "evidence/2"):
                warnings.warn(
                    f"{statement}: DeepProbLog asks queries without the program's evidence: write "
                    "what is observed into the queries",
                    RuntimeWarning,
                    stacklevel=2,
                )
            if signature in ("query/1", "evidence/1", "evidence/2"):
                continue  # a model is asked by its queries alone
            if not any(map(is_declaration, directives(statement))):
                rules.stock.add_clause(statement)
            rules.nameless &= not any(
                part.signature in _LOOK_INTO_TERMS or part.signature == "tensor/1"
                for part in parts(statement)
            )
            rules.defined |= {_functor(head) for head in heads_of(statement)}
            for clause in rules._rewritten(statement, networks):
                rules.program.add_clause(clause)
        return rules

    def add_lists(self) -> None:
        """Let the program use ProbLog's library of lists, as `ExactEngine` lets every program.

        Most do not, and to read it takes longer than to ground many a query.
        """
        if not self.lists:
            self.lists = True
            lists = Term("use_module", Term("library", Term("lists.pl")))
            self.program.add_clause(Clause(Term("_directive"), lists))

    def _rewritten(self, statement: Term, networks: Mapping[str, Network]) -> Iterator[Term]:
        if isinstance(statement, AnnotatedDisjunction | Or):
            yield from self._disjunction(statement)
            return
        head, body = _head(statement), body_of(statement)
        label = head.probability
        if not isinstance(label, Term):
            yield statement
        elif label.functor == "nn":
            yield from self._network(statement, head, body, networks)
        elif label.functor == "t":
            number = _parameter(label, statement)
            network = Term("nn", Term(f"'{PARAMETERS}'"), list2term([Constant(number)]))
            yield _clause(head.with_probability(network), body)
        elif label.signature == "tensor/1":
            yield _clause(head.with_probability(None), Term(f"'{EAGER}'"))
        else:
            yield statement

    def _network(
        self, statement: Term, head: Term, body: Term | None, networks: Mapping[str, Network]
    ) -> Iterator[Term]:
        label = head.probability
        name = str(label.args[0]) if label.args else ""
        if label.arity not in (2, 3, 4):
            raise ProgramError(
                f"{statement}: a network is declared as nn(network, [Input, ...], Output, "
                "[value, ...]) :: head, without the values, or without the output too"
            )
        if name not in networks:
            raise ConceptError(
                f"the program declares the network {name!r}, and the model has "
                f"{listed(networks) or 'none'}: give Model(..., [Network(module, {name!r})])"
            )
        if label.arity == 3:
            if networks[name].k is not None:
                raise ProgramError(
                    f"{statement}: the output of {name} is a tensor, so there are no k=... best "
                    "values to take: leave k= out of its Network"
                )
            _, inputs, output = label.args
            tensor = Term("tensor", Term("nn", label.args[0], inputs))
            yield _clause(_bound(head.with_probability(None), output, tensor), body)
        elif (label.arity == 4 and networks[name].k is not None) or not is_list(label.args[1]):
            yield _clause(head.with_probability(None), Term(f"'{EAGER}'"))
        else:
            alias = self._declare(name, label)
            network = label.with_args(Term(f"'{alias}'"), *label.args[1:])
            yield _clause(head.with_probability(network), body)

    def _declare(self, name: str, label: Term) -> str:
        """The program's name for a network, one for each list of values that it has there."""
        values = label.args[3] if label.arity == 4 else Term("[]")
        known = sum(network == name for network, _ in self.declared.values())
        plain = str(to_python(label.args[0]))
        alias = self._aliases.setdefault(
            (name, str(values)), f"{plain}${known}" if known else plain
        )
        self.declared[alias] = (
            name,
            (term2list(values, deep=False) if is_list(values) else []) or None,
        )
        return alias

    def _disjunction(self, statement: Term) -> Iterator[Term]:
        """Learned probabilities of a disjunction become the output of one network.

        Its last value is that none of the heads holds.
        """
        heads, body = heads_of(statement), body_of(statement)
        labels = [head.probability for head in heads]
        if any(isinstance(label, Term) and label.signature == "tensor/1" for label in labels):
            for head in heads:
                yield _clause(head.with_probability(None), Term(f"'{EAGER}'"))
            return
        if not any(isinstance(label, Term) and label.functor == "t" for label in labels):
            yield statement
            return
        if body is not None:
            raise ProgramError(
                f"{statement}: DeepProbLog does not learn the probabilities of a disjunction that "
                "has a body: write the disjunction without it, and rules that join the two"
            )
        name = f"{PARAMETERS}{len(self.disjunctions)}"
        self.disjunctions[name] = tuple(
            _parameter(label, statement) if label.functor == "t" else float(label)
            for label in labels
        )
        variables = [Var(str(v)) for v in dict.fromkeys(v for h in heads for v in h.variables())]
        value = Var("Value_")
        values = list2term([Constant(i) for i in range(len(heads) + 1)])
        choice = Term(f"'{name}'", value, *variables)
        network = Term("nn", Term(f"'{name}'"), Term("[]"), value, values)
        yield choice.with_probability(network)
        for i, head in enumerate(heads):
            chosen = Term(f"'{name}'", Constant(i), *variables)
            yield Clause(head.with_probability(None), chosen)


def _parameter(label: Term, statement: Term) -> int:
    number = label.args[0] if label.arity == 1 else None
    if not isinstance(number, Constant) or not isinstance(number.functor, int):
        raise ProgramError(f"{statement}: a learned probability is written t(0.5) or t(_)")
    return number.functor


def _bound(head: Term, variable: Term, value: Term) -> Term:
    """The head with a value in the place of a variable."""
    return head.with_args(*(replaced(argument, {variable: value}) for argument in head.args))


def replaced(term: Any, mapping: Mapping[Any, Any]) -> Any:
    """A term whose parts that are keys of a mapping are its values."""
    found = mapping.get(term)
    if found is not None:
        return found
    if not isinstance(term, Term) or not term.args:
        return term
    arguments = [replaced(argument, mapping) for argument in term.args]
    if all(new is old for new, old in zip(arguments, term.args, strict=True)):
        return term
    return term.with_args(*arguments)


def _head(statement: Term) -> Term:
    return statement.head if isinstance(statement, Clause) else statement


def _clause(head: Term, body: Term | None) -> Term:
    return head if body is None else Clause(head, body)


def _functor(head: Term) -> str:
    return str(head.signature)


def parts(term: Any) -> Iterator[Term]:
    """A term and all terms in it."""
    stack = [term]
    while stack:
        part = stack.pop()
        if isinstance(part, list | tuple):
            stack += part
        elif isinstance(part, Term):
            yield part
            stack += part.args
