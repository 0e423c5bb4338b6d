"""Black boxes in ProbLog's own engine, and in its programs: `library(byssus)`, and `register`.

What a program declares is in `byssus_problog._declarations`. In a `Program` a call is what a call
of any black box is. ProbLog's own engine knows but one way to call Python: at once, while it
grounds, for all values that an input may have.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import problog
from problog.clausedb import ClauseDB
from problog.engine import ClauseDBEngine
from problog.engine_stack import SimpleProbabilisticBuiltIn
from problog.errors import ProbLogError
from problog.logic import Clause, Term, is_ground, is_variable

from byssus import BlackBox, Boolean, ByssusError, ProgramError
from byssus._calls import Failure
from byssus.errors import _excerpt
from byssus.formula import Key

from ._answers import solutions
from ._declarations import Declaration, FunctionDeclaration
from ._terms import to_python
from .llms import LLMDeclaration, arguments_of

__all__ = ["register"]

_KINDS: Mapping[str, type[FunctionDeclaration] | type[LLMDeclaration]] = {
    "blackbox": FunctionDeclaration,
    "llm": LLMDeclaration,
}
"""The directives that declare black boxes, with three arguments or four."""


def register(engine: ClauseDBEngine, box: BlackBox, name: str | None = None) -> None:
    """Make a black box known to an engine of ProbLog, before `engine.prepare(program)`.

    The predicate has one argument more than the black box, its output; a `Boolean()` one is also a
    test, with no argument more. Calls are made while the program is grounded, each argument tuple
    once. Other engines do not know of it.

    Args:
        engine: a `problog.engine.DefaultEngine`.
        box: the black box.
        name: the predicate's name, the black box's own if not given.

    Raises:
        ByssusError: not a black box, or the engine has a predicate of this name.

    Example:
        >>> engine = DefaultEngine()
        >>> register(engine, add)
        >>> formula = engine.ground_all(PrologString("s(Z) :- add(3, 4, Z). query(s(Z))."))
        >>> get_evaluatable().create_from(formula).evaluate()
        {s(7): 1.0}
    """
    if not isinstance(box, BlackBox):
        raise ByssusError(f"{box!r} is not a black box: decorate it with @byssus.blackbox")
    called = name or box.name
    for arity in arities(box):
        if f"{called}/{arity}" in engine.get_builtins():
            raise ByssusError(
                f"the engine has {called}/{arity} already: give the black box another name, with "
                "name="
            )
    for arity in arities(box):
        relation = SimpleProbabilisticBuiltIn(_Relation(called, box))
        engine.add_builtin(called, arity, relation)


def arities(box: BlackBox) -> tuple[int, ...]:
    """With how many arguments a black box is a predicate."""
    count = arguments_of(box)
    return (count, count + 1) if box.output == Boolean() else (count + 1,)


def unbound(name: str, inputs: Sequence[Any]) -> str | None:
    """What is wrong with a call some of whose inputs have no value; None if all have."""
    for i, term in enumerate(inputs):
        if is_variable(term) or not is_ground(term):
            return (
                f"argument {i + 1} of the black box {name} is not bound when it is called: put the "
                "goals that bind it before the call"
            )
    return None


def load() -> None:
    """What `library(byssus)` does: make `blackbox` and `llm` known to the program that loads it.

    ProbLog names the program in a global that all threads share, so it is taken from the caller.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "load_external_module":
        frame = frame.f_back
    if frame is None:
        raise ByssusError("library(byssus) is for programs: `:- use_module(library(byssus)).`")
    database: ClauseDB = frame.f_locals["self"]
    for kind in _KINDS:
        for arity in (3, 4):
            found = database.find(Term(f"_byssus_{kind}", *[None] * arity))
            if found is None or not database.get_node(found):
                database.add_extern(kind, arity, partial(_declare, kind), scope="byssus")


def _declare(kind: str, *terms: Any, database: ClauseDB, **about: Any) -> list[tuple[Any, ...]]:
    """Evaluate the directive."""
    where = about["location"]
    # In a module, the names of predicates begin with the module's.
    prefix = str(about["call_origin"][0]).partition(f"{kind}/")[0]
    with _shown_by_problog(database, where, (ByssusError,)):
        declaration: Declaration = _KINDS[kind].read(terms, folder(database, where))
        key = f"{prefix}{declaration.name}/{len(declaration.inputs) + len(declaration.outputs)}"
        known = database.data.setdefault("byssus", {})
        if known.get(key) == declaration:
            return [terms]
        if key in known:
            raise ByssusError(f"{declaration.name} is declared twice: take one declaration away")
        box = declaration.box()
        name, _, arity = key.rpartition("/")
        head = Term(name, *[None] * int(arity))
        found = database.find(head)
        if (found is not None and database.get_node(found)) or database.get_builtin(key):
            raise ByssusError(
                f"{key} is also defined by clauses, or by ProbLog: rename one of the two"
            )
        relation = _Relation(declaration.name, box)
        database.add_extern(name, int(arity), relation)
        # What is added so is certain; a call may also be a random choice.
        database._set_node(database.find(head), builtin(name, int(arity), relation))
        known[key] = declaration
    return [terms]


class builtin(SimpleProbabilisticBuiltIn):  # type: ignore[misc]  # noqa: N801
    """A predicate in a program's database; ProbLog's engine knows it by the name of its class."""

    def __init__(self, functor: str, arity: int, relation: _Relation) -> None:
        super().__init__(relation)
        self.functor, self.arity = functor, arity


def folder(database: Any, location: Any) -> Path:
    """The folder of the file that a term is in."""
    number = location[0] if isinstance(location, tuple) else 0
    files = database.source_files
    file = files[number] if number < len(files) else None
    return Path(file).parent if file and file != "-" else Path(database.source_root or ".")


@dataclass(frozen=True)
class _Relation:
    """A black box as a predicate of ProbLog's, which calls it at once.

    Attributes:
        name: the predicate's.
        box: the black box.
    """

    name: str
    box: BlackBox

    def __call__(self, *terms: Any, database: ClauseDB, **about: Any) -> list[tuple[Any, Key]]:
        count = arguments_of(self.box)
        with _shown_by_problog(database, about["location"]):
            fault = unbound(self.name, terms[:count])
            if fault is not None:
                raise ByssusError(fault)
            arguments = tuple(to_python(term) for term in terms[:count])
            (outcome,) = self.box.evaluate([arguments])
            if isinstance(outcome, Failure):
                file, line, _ = place(database, about["location"])
                warnings.warn_explicit(
                    f"{self.name}{arguments!r} failed, and worlds that ask for it are lost: "
                    f"{outcome.cause}",
                    RuntimeWarning,
                    file or "<program>",
                    line or 0,
                )
                return []
            found = solutions(self.name, terms[:count], terms[count:], outcome, about["target"])
            return [
                (about["engine"].create_context(given, parent=about["context"]), node)
                for given, node in found
            ]


@contextmanager
def _shown_by_problog(
    database: ClauseDB, location: Any, kinds: tuple[type[ByssusError], ...] = ()
) -> Iterator[None]:
    """Say of errors where in the program they are, as ProbLog's command line shows its own.

    It prints a traceback for what is no `ProbLogError`.

    Args:
        database: the program.
        location: the place.
        kinds: errors that are the program's fault, beside plain ones.
    """
    try:
        yield
    except ByssusError as error:
        if isinstance(error, ProbLogError):  # of a call within
            raise
        file, line, column = place(database, location)
        text = _text(file)
        described: ByssusError = error
        if type(error) is ByssusError or isinstance(error, kinds):
            described = ProgramError(str(error), file=file, line=line, column=column, text=text)
        kind = type(described)
        names = {"__str__": kind.__str__, "__module__": kind.__module__}
        shown: Any = type(kind.__name__, (kind, ProbLogError), names)
        result: ByssusError = shown.__new__(shown)
        vars(result).update(vars(described), base_message=str(described), location=None)
        where = "" if described is not error else _excerpt(file, line, column, text)
        result.args = (str(described) + where,)
        raise result from error


def place(database: Any, location: Any) -> tuple[str | None, int | None, int | None]:
    """File, line and column of a location."""
    try:
        found = database.lineno(location, force_filename=True)
    except (IndexError, TypeError):
        found = None
    if found is None:
        return None, None, None
    file, line, column = found
    return (None if file is None else str(file)), line, column


def _text(file: str | None) -> str | None:
    try:
        return None if file is None else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def directives(statement: Any) -> Iterator[Any]:
    """The goals of a directive; none of any other statement."""
    if isinstance(statement, Clause) and statement.head.functor == "_directive":
        stack = [statement.body]
        while stack:
            goal = stack.pop()
            if getattr(goal, "functor", None) == "," and goal.arity == 2:
                stack += reversed(goal.args)
            else:
                yield goal


def is_library(goal: Any) -> bool:
    """Whether a goal is `use_module(library(byssus))`."""
    if getattr(goal, "functor", None) != "use_module" or goal.arity not in (1, 2):
        return False
    module = goal.args[0]
    return isinstance(module, Term) and str(module).replace("'", "") == "library(byssus)"


def is_declaration(goal: Any) -> bool:
    """Whether a goal declares a black box."""
    return getattr(goal, "functor", None) in _KINDS and goal.arity in (3, 4)


def read_declaration(goal: Any, folder: Path) -> Declaration:
    """What a goal declares.

    Args:
        goal: the goal.
        folder: where its file is.

    Raises:
        ByssusError: it is not of the form of a declaration.
    """
    declaration: Declaration = _KINDS[goal.functor].read(goal.args, folder)
    return declaration


def _find_library() -> None:
    """Let ProbLog find `library(byssus)` where it does not lie in ProbLog's own folder.

    An installed byssus has put it there. This is for ProbLog in another place, and for a clone.
    """
    here = Path(__file__).parent
    for path in (here / "library", here.parent / "problog" / "library"):
        if (path / "byssus.py").exists() and str(path) not in problog.library_paths:
            problog.library_paths.append(str(path))


_find_library()
