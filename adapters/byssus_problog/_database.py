"""ProbLog's clause database, whose `nn` declarations become annotated disjunctions.

Their labels name the network, as in DeepProbLog: the ground program says by them which literal of
which concept an atom is.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from problog.clausedb import ClauseDB
from problog.logic import (
    AnnotatedDisjunction,
    Clause,
    Constant,
    Or,
    Term,
    Var,
    is_ground,
    term2list,
)
from problog.program import PrologString

from byssus import ProgramError
from byssus.errors import listed

from ._source import Source
from ._terms import to_python

LABEL = "$nn"
"""A network's atom has the label `$nn(network, inputs, position)`."""

_FORM = "nn(network, [Input, ...], Variable, [value, ...]) :: head"


@dataclass(frozen=True)
class Network:
    """A declared network: `nn(name, inputs, variable, values)`, or `nn(name, inputs)` for a fact.

    Attributes:
        name: the network's name.
        values: its values, in order; (False, True) for a fact.
    """

    name: str
    values: tuple[Hashable, ...]

    @property
    def is_fact(self) -> bool:
        """Whether it was declared without values."""
        return self.values == (False, True)


class Database(ClauseDB):  # type: ignore[misc]
    """The clauses of a program and of the files that it consults.

    Attributes:
        networks: the networks that they declare.
    """

    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        self.networks: dict[str, Network] = {}
        self._source = Source("")

    @classmethod
    def read(cls, source: Source, builtins: dict[str, int]) -> Database:
        """Parse a program."""
        database = cls(builtins=builtins)
        database._source = source
        root = "." if source.file is None else str(source.file.parent)
        files = [None] if source.file is None else [str(source.file.absolute())]
        program = PrologString(source.text, source_root=root, source_files=files)
        database.source_root, database.source_files = root, files
        database.source_parent, database.line_info = [None], program.line_info[:]
        database.add_all(program)
        return database

    def add_all(self, program: Iterable[Term]) -> Any:
        """Add the clauses of a file, rewritten."""
        return super().add_all(map(self._rewrite, program))

    def _rewrite(self, statement: Term) -> Term:
        head, body = statement, Term("true")
        heads = [statement]
        if isinstance(statement, AnnotatedDisjunction):
            heads = statement.heads
        elif isinstance(statement, Clause):
            head, body = statement.head, statement.body
            heads = [head]
        elif isinstance(statement, Or):
            heads = statement.to_list()
        labels = [h.probability for h in heads if isinstance(h, Term)]
        if not any(isinstance(label, Term) and label.functor == "nn" for label in labels):
            self._check(statement, heads)
            return statement
        if len(heads) > 1:
            raise self._error(statement, "an nn declaration stands alone, not in a disjunction")
        options = list(self._options(statement, head, labels[0]))
        return AnnotatedDisjunction(options, body, location=statement.location)

    def _check(self, statement: Term, heads: list[Term]) -> None:
        """Probabilities that are numbers lie between 0 and 1."""
        labels = [h.probability for h in heads if isinstance(h, Term)]
        numbers = [label.functor for label in labels if isinstance(label, Constant)]
        for number in numbers:
            if not isinstance(number, int | float) or not 0 <= number <= 1:
                raise self._error(statement, f"a probability lies between 0 and 1, not {number}")
        if sum(numbers) > 1 + 1e-9:
            raise self._error(
                statement,
                f"the probabilities of a disjunction sum to 1 at most, not {sum(numbers):g}",
            )

    def _options(self, statement: Term, head: Term, label: Term) -> Iterator[Term]:
        """One head a value, each with the label of its literal."""
        if label.arity == 3:
            raise self._error(
                statement, f"nn/3 (a network's output as a term) is not known: {_FORM}"
            )
        name = label.args[0] if label.args else None
        if (
            label.arity not in (2, 4)
            or not isinstance(name, Term)
            or name.arity > 0
            or (isinstance(name, Var))
        ):
            raise self._error(statement, f"an nn declaration has the form {_FORM}")
        inputs = label.args[1]
        if self._items(inputs) is None:
            raise self._error(statement, f"the inputs of an nn declaration are a list: {_FORM}")
        if label.arity == 2:
            self._declare(statement, Network(str(to_python(name)), (False, True)))
            yield head.with_probability(Term(LABEL, name, inputs, Constant(1)))
            return
        variable = label.args[2]
        if not isinstance(variable, Var) or not any(
            variable.name == str(other) for part in head.args for other in part.variables()
        ):
            raise self._error(
                statement, f"the third argument of nn is a variable of the head: {_FORM}"
            )
        values = self._items(label.args[3]) or []
        names = tuple(to_python(value) for value in values if is_ground(value))
        if not names or len(names) < len(values) or len(set(names)) < len(names):
            raise self._error(
                statement, "the values of an nn declaration are a list of different ground terms"
            )
        self._declare(statement, Network(str(to_python(name)), names))
        for i, value in enumerate(values):
            option = head.apply(_Substitution(variable.name, value))
            yield option.with_probability(Term(LABEL, name, inputs, Constant(i)))

    def _declare(self, statement: Term, network: Network) -> None:
        other = self.networks.setdefault(network.name, network)
        if other != network:
            raise self._error(
                statement,
                f"network {network.name} is declared with the values {listed(other.values)} "
                f"and again with {listed(network.values)}",
            )

    def _items(self, term: Term) -> list[Term] | None:
        try:
            items: list[Term] = term2list(term, deep=False)
        except (ValueError, AttributeError):
            return None
        return items

    def _error(self, statement: Term, message: str) -> ProgramError:
        file, line, column = self.lineno(statement.location) or (None, None, None)
        return self._source.error(message, line, column, file)


class _Substitution:
    """Puts a value in the place of one variable, and leaves the others."""

    def __init__(self, name: str, value: Term) -> None:
        self._name, self._value = name, value

    def __getitem__(self, name: str) -> Term:
        return self._value if name == self._name else Var(name)
