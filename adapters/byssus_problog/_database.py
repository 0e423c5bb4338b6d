"""ProbLog's clause database, whose `nn` declarations become annotated disjunctions.

Their labels name the network, as in DeepProbLog: the ground program says by them which literal of
which concept an atom is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import problog
from problog.clausedb import AccessError, ClauseDB, ConsultError
from problog.errors import ProbLogError, UserError
from problog.logic import (
    AnnotatedDisjunction,
    Clause,
    Constant,
    Term,
    Var,
    is_ground,
    term2list,
)
from problog.parser import ParseError
from problog.program import PrologString

from byssus import BlackBox, ByssusError, ProgramError
from byssus.errors import listed

from ._declarations import Declaration, clauses
from ._externs import importer, load
from ._parameters import Tunable
from ._parameters import label as tunable_label
from ._source import Source
from ._terms import body_of, heads_of, to_python
from ._tokens import Index
from .blackboxes import directives, folder, is_declaration, is_library, read_declaration
from .llms import arguments_of

LABEL = "$nn"
"""A network's atom has the label `$nn(network, inputs, position)`."""

VALUE = "$value"
"""The goal `$value(network, inputs, declaration, Value)` gives a token in place of the values."""

_LIBRARY = Path(problog.__file__).parent / "library"
_PURE = ("lists", "string")
"""Python modules of ProbLog's that do not change the database."""

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
        return self.values == (False, True) and all(isinstance(v, bool) for v in self.values)


class Database(ClauseDB):  # type: ignore[misc]
    """The clauses of a program and of the files that it consults.

    Attributes:
        networks: the networks that they declare.
        tunables: their clauses some of whose probabilities are learned.
        declared: the black boxes that they declare and that were not known.
        bodies: of each clause the names of its heads, and its body.
        unknown: what its directives have said of predicates that nothing defines.
        lasting: whether grounding leaves it as it was; not where Python modules may change it.
    """

    def __init__(self, **about: Any) -> None:
        self._is_symbolic: Callable[[str], bool] | None = None
        self._boxes: Mapping[str, BlackBox] = {}
        self._declarations: dict[str, Declaration] = {}
        self.declared: dict[str, BlackBox] = {}
        self.bodies: list[tuple[tuple[str, ...], Term]] = []
        self.lasting = True
        self.unknown: Any = None
        self._import: Callable[..., ModuleType] | None = None
        super().__init__(**about)
        self.networks: dict[str, Network] = {}
        self.tunables: list[Tunable] = []
        self._source = Source("")

    @classmethod
    def read(
        cls,
        source: Source,
        builtins: dict[str, int],
        is_symbolic: Callable[[str], bool] | None = None,
        boxes: Mapping[str, BlackBox] | None = None,
    ) -> Database:
        """Parse a program.

        Args:
            source: its text.
            builtins: the engine's built-in predicates.
            is_symbolic: says of which networks the values are tokens; None where no term is one.
            boxes: the black boxes that are known; they stand in for declared ones of their name.
        """
        database = cls(builtins=builtins)
        database._boxes = boxes or {}
        database._is_symbolic = is_symbolic
        database._source = source
        if source.clauses is not None:
            database.source_root = source.clauses.source_root or "."
            database.add_all(source.clauses)
            return database
        root = "." if source.file is None else str(source.file.parent)
        files = [None] if source.file is None else [str(source.file.absolute())]
        program = PrologString(source.text, source_root=root, source_files=files)
        database.source_root, database.source_files = root, files
        database.source_parent, database.line_info = [None], program.line_info[:]
        database.add_all(program)
        return database

    def _create_index(self, arity: int) -> Any:
        return super()._create_index(arity) if self._is_symbolic is None else Index(self, arity)

    def add_all(self, program: Iterable[Term]) -> Any:
        """Add the clauses of a file, rewritten."""
        return super().add_all(map(self._rewrite, self._declare_boxes(program)))

    def _add_head(self, head: Term, create: bool = True) -> Any:
        try:
            return super()._add_head(head, create)
        except AccessError as error:  # which says no place
            error.location = error.location or self.lineno(head.location)
            raise

    def consult(self, filename: Term, location: Any = None, my_scope: str | None = None) -> Any:
        """Read another file of clauses."""
        self._find(filename, location)
        try:
            return super().consult(filename, location, my_scope)
        except ParseError as error:
            if isinstance(error.location, tuple) and error.location[0] is None:
                error.location = (str(self.resolve_filename(filename)), *error.location[1:])
            raise

    def use_module(
        self, filename: Term, predicates: Any, location: Any = None, my_scope: str | None = None
    ) -> None:
        """Read a module: a library, or a file of clauses or of Python."""
        self._find(filename, location)
        try:
            super().use_module(filename, predicates, location, my_scope)
        except ConsultError as error:
            if error.location is not None:
                raise
            raise ConsultError(error.base_message, self.lineno(location)) from error.__cause__

    def _find(self, filename: Term, location: Any) -> None:
        """Raise if there is no such file."""
        found = self.resolve_filename(filename)
        if found is not None and Path(found).is_file():
            return
        if filename.functor == "library":
            files = [f for folder in problog.library_paths for f in Path(folder).glob("*.p[ly]")]
            names = ", ".join(sorted({file.stem for file in files}))
            message = f"there is no {filename}: the libraries are {names}"
        else:
            message = f"there is no file {found}: a path is relative to the file that names it"
        raise ConsultError(message, self.lineno(location))

    def load_external_module(self, filename: str) -> tuple[str, list[Term]]:
        """Load a Python module, and say which predicates it exports."""
        path = Path(filename)
        self._import = self._import or importer(self)
        try:
            load(path.stem, filename, self._import)
        except (ProbLogError, OSError, Warning):
            raise
        except Exception as error:
            raise ConsultError(
                f"{filename} raised {type(error).__name__} when it was loaded: {error}", None
            ) from error
        self.lasting &= path.parent == _LIBRARY and path.stem in _PURE
        exported: list[Term] = self._ClauseDB__extern[path.stem]
        return path.stem, exported

    def add_extern(
        self, predicate: str, arity: int, func: Callable[..., Any], scope: str | None = None
    ) -> None:
        """Add a predicate that is a Python function."""

        def call(*terms: Any, **about: Any) -> Any:
            try:
                return func(*terms, **about)
            except (ProbLogError, ByssusError, Warning):
                raise
            except Exception as error:
                raise UserError(
                    f"{predicate}/{arity} raised {type(error).__name__}: {error}",
                    self.lineno(about.get("location")),
                ) from error

        super().add_extern(predicate, arity, call, scope)

    def _declare_boxes(self, program: Iterable[Term]) -> Iterator[Term]:
        """The statements of a file, without the directives that declare black boxes."""
        for statement in program:
            goals = list(directives(statement))
            if not any(is_library(goal) or is_declaration(goal) for goal in goals):
                yield statement
                continue
            for goal in goals:
                if is_declaration(goal):
                    try:
                        yield from self._declare_box(goal)
                    except ByssusError as error:
                        raise self._error(goal, str(error)) from error
                elif not is_library(goal):
                    yield Clause(statement.head, goal, location=statement.location)

    def _declare_box(self, goal: Term) -> list[Clause]:
        """Note a declaration, and give the clauses that it stands for."""
        declaration = read_declaration(goal, folder(self, goal.location))
        name = declaration.name
        if name in self._declarations:
            if self._declarations[name] != declaration:
                raise ByssusError(f"{name} is declared twice: rename one, or take it away")
            return []
        self._declarations[name] = declaration
        if name not in self._boxes:
            predicate = f"{name}/{len(declaration.inputs) + 1}"
            if self.get_builtin(predicate) is not None:
                raise ByssusError(f"{predicate} is ProbLog's own: rename the black box")
            self.declared[name] = declaration.box()
        elif (takes := arguments_of(self._boxes[name])) != len(declaration.inputs):
            raise ByssusError(
                f"the black box {name} that was given takes {takes} "
                f"arguments, and is declared with {len(declaration.inputs)} inputs: give it one + "
                "for each of its arguments"
            )
        return clauses(declaration)

    def _rewrite(self, statement: Term) -> Term:
        heads, body = heads_of(statement), body_of(statement) or Term("true")
        self.bodies.append((tuple(str(getattr(head, "functor", "")) for head in heads), body))
        labels = [h.probability for h in heads if isinstance(h, Term)]
        kinds = {label.functor for label in labels if isinstance(label, Term)}
        if "t" in kinds:
            return self._tune(statement, heads, body)
        if "nn" not in kinds:
            self._check(statement, heads)
            return statement
        if len(heads) > 1:
            raise self._error(statement, "an nn declaration stands alone, not in a disjunction")
        (head,) = heads
        options = list(self._options(statement, head, labels[0]))
        name, inputs, *variable = labels[0].args
        symbolic = self._is_symbolic
        if variable and statement is head and symbolic and symbolic(str(to_python(name))):
            value = Term(VALUE, name, inputs, Constant(len(self)), variable[0])
            return Clause(head.with_probability(), value, location=statement.location)
        return AnnotatedDisjunction(options, body, location=statement.location)

    def _tune(self, statement: Term, heads: list[Term], body: Term) -> Term:
        """A clause with `t(...)` labels: each option's label names the clause and the option."""
        tunable = [head.probability for head in heads if _is_tunable(head)]
        indices = {tuple(v for v in t.args[1:] if str(v) != "_") for t in tunable}
        if not all(t.args and all(isinstance(v, Var) for v in t.args[1:]) for t in tunable):
            raise self._error(
                statement, "a tunable probability has the form t(_), t(0.3) or t(_, X, Y)"
            )
        if len(indices) > 1:
            raise self._error(
                statement, "the tunable options of a disjunction have the same variables in t(...)"
            )
        index = indices.pop()
        clause = Tunable(
            tuple(head.with_probability() for head in heads),
            tuple(
                None if _is_tunable(head) else self._number(head.probability, statement)
                for head in heads
            ),
            tuple(
                None if isinstance(t.args[0], Var) else self._number(t.args[0], statement)
                for t in tunable
            ),
            index,
            body,
        )
        fault = clause.fault()
        if fault is not None:
            raise self._error(statement, fault)
        number = len(self.tunables)
        self.tunables.append(clause)
        options = [
            head.with_probability(tunable_label(number, i, index)) for i, head in enumerate(heads)
        ]
        if len(options) == 1 and str(body) == "true":
            return options[0]
        return AnnotatedDisjunction(options, body, location=statement.location)

    def _number(self, term: Any, statement: Term) -> float:
        """A probability that is written as a number, or as arithmetic over numbers."""
        try:
            return float(term.compute_value())
        except (ProbLogError, AttributeError, TypeError, ValueError):
            raise self._error(
                statement,
                f"{term} is not a number: of a tunable probability the first value, and the "
                "probabilities beside it in a disjunction, are",
            ) from None

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


def _is_tunable(head: Any) -> bool:
    label = head.probability
    return isinstance(label, Term) and label.functor == "t"


class _Substitution:
    """Puts a value in the place of one variable, and leaves the others."""

    def __init__(self, name: str, value: Term) -> None:
        self._name, self._value = name, value

    def __getitem__(self, name: str) -> Term:
        return self._value if name == self._name else Var(name)
