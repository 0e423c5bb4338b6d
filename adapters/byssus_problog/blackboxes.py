"""Black boxes that a program declares, and those that ProbLog's own engine calls.

```prolog
:- use_module(library(byssus)).
:- blackbox('leaf.py', leaf_id, [+margin, +shape, +texture, -species]).
:- blackbox('leaf.py', leaf_id, [+margin, +shape, +texture, -species], [on_error(discard)]).
```

The file is relative to the program's; `'file.py:function'` names a function that is not called as
the predicate is. `+` marks inputs, which are bound when the predicate is called, and `-` outputs,
after them: with one, the function returns its value; with several, a tuple; with none, whether it
holds. The words are names, except that `int`, `float`, `str`, `bool` and `list` are types: the
function gets a value of this type, and what it returns is checked.

In a `Program` a call is what a call of any black box is. ProbLog's own engine knows but one way to
call Python: at once, while it grounds, for all values that an input may have.
"""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import problog
from problog.clausedb import ClauseDB
from problog.engine import ClauseDBEngine
from problog.engine_unify import UnifyError, unify_value
from problog.errors import ProbLogError
from problog.logic import (
    Clause,
    Constant,
    Term,
    Var,
    is_ground,
    is_list,
    is_variable,
    list2term,
    term2list,
)

from byssus import BlackBox, Boolean, ByssusError, Domain, DomainError, Float, ProgramError
from byssus._calls import Caller, Failure, Outcome
from byssus._functions import load_function
from byssus.blackbox import _hashable
from byssus.errors import _excerpt
from byssus.worlds import check_sampling

from ._terms import order_key, to_python, to_term

__all__ = ["Declaration", "DeclaredBox", "register"]

_FORM = "blackbox('file.py', name, [+input, ..., -output, ...])"
_OPTIONS = ("on_error", "budget", "timeout", "vectorized", "concurrency", "check", "samples")


class Anything(Float):
    """Whatever rules derive, as an input or output; or what is of one Python type.

    Like a `Float`, it has no list of values.

    Args:
        name: "int", "float", "str", "bool" or "list"; any other word stands for any value.
    """

    name: str

    def __init__(self, name: str = "") -> None:
        self._freeze(name, size=None, name=name)

    def check_output(self, value: Any) -> Any:
        """The value, which is hashable.

        Raises:
            DomainError: it is not of the type.
        """
        value = _hashable(value)
        right = {
            "int": type(value) is int,
            "float": isinstance(value, int | float) and not isinstance(value, bool),
            "bool": isinstance(value, bool),
            "str": isinstance(value, str | int | float),
            "list": isinstance(value, tuple),
        }
        if not right.get(self.name, True):
            raise DomainError(f"{value!r} of type {type(value).__name__} is no {self.name}")
        return value

    def _same(self, target: Any, value: Any) -> bool:
        return Domain._same(self, target, value)

    def __repr__(self) -> str:
        return f"the values of type {self.name}" if self.name else "all values"

    def convert(self, value: Any) -> Any:
        """A value of rules as a value of the type."""
        if self.name == "str":
            # Rules do not tell the atom 'true' from the truth, nor the text 5 from the number.
            return str(value).lower() if isinstance(value, bool) else str(value)
        if self.name == "float":
            return float(value)
        return list(value) if self.name == "list" else value


class _Several(Anything):
    """Several outputs: a tuple."""

    parts: tuple[Anything, ...]

    def __init__(self, *parts: Anything) -> None:
        self._freeze(*parts, size=None, name="", parts=parts)

    def check_output(self, value: Any) -> Any:
        """The value as a tuple.

        Raises:
            DomainError: it is no tuple of as many, or a part is not of its type.
        """
        value = super().check_output(value)
        if not isinstance(value, tuple) or len(value) != len(self.parts):
            raise DomainError(f"{value!r} is not {len(self.parts)} outputs: return a tuple of them")
        return tuple(part.check_output(item) for part, item in zip(self.parts, value, strict=True))


@dataclass(frozen=True)
class Declaration:
    """What `blackbox/3` or `blackbox/4` declares.

    Attributes:
        name: of the predicate.
        file: the Python file.
        function: the function in it.
        inputs: their names or types.
        outputs: the same.
        options: of `byssus.blackbox`.
    """

    name: str
    file: Path
    function: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def read(cls, arguments: Sequence[Any], folder: Path) -> Declaration:
        """Read the arguments of the directive.

        Args:
            arguments: its terms.
            folder: where its file is.

        Raises:
            ByssusError: they are not of this form.
        """
        file, name, modes, *options = arguments
        for what, term in (("file", file), ("name", name)):
            if is_variable(term) or not isinstance(to_python(term), str) or term.arity:
                raise ByssusError(f"{term} is no {what}: declare {_FORM}")
        where, _, function = str(to_python(file)).partition(".py:")
        signs, words = [], []
        for mode in _items(modes, "the list of arguments"):
            sign = str(getattr(mode, "functor", "")).strip("'")
            if sign not in ("+", "-") or mode.arity != 1:
                raise ByssusError(
                    f"{mode} is neither an input, +{mode}, nor an output, -{mode}: declare {_FORM}"
                )
            signs.append(sign)
            word = mode.args[0]
            words.append("" if is_variable(word) else str(to_python(word)))
        if signs != sorted(signs):  # "+" sorts before "-"
            raise ByssusError("an input stands after an output: put the inputs first")
        count = signs.count("+")
        return cls(
            str(to_python(name)),
            folder / (f"{where}.py" if function else where),
            function or str(to_python(name)),
            tuple(words[:count]),
            tuple(words[count:]),
            tuple(_option(term) for part in options for term in _items(part, "the options")),
        )

    def box(self) -> BlackBox:
        """Load the function, as a black box.

        Raises:
            ByssusError: it is not there, or does not fit the declaration.
        """
        function = load_function(self.file, self.function)
        if isinstance(function, BlackBox):
            return self._given(function)
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # one of C, which does not say
            return DeclaredBox(self)
        try:
            signature.bind(*range(len(self.inputs)))
        except TypeError:
            raise ByssusError(
                f"{self.function} takes {signature}, and is declared with {len(self.inputs)} "
                "inputs: give it one + for each of its arguments"
            ) from None
        return DeclaredBox(self)

    def _given(self, box: BlackBox) -> BlackBox:
        if self.options:
            raise ByssusError(
                f"{box.name} is a black box already: give {self.options[0][0]}= to its decorator"
            )
        if len(box.inputs) != len(self.inputs):
            raise ByssusError(
                f"{box.name} takes {len(box.inputs)} arguments, and is declared with "
                f"{len(self.inputs)} inputs: give it one + for each of its arguments"
            )
        if not self.outputs and box.output != Boolean():
            raise ByssusError(f"{box.name} is declared with no output, so make it Boolean()")
        if len(self.outputs) > 1:
            raise ByssusError(f"{box.name} is a black box already, with one output: declare one")
        return box

    def clauses(self) -> list[Clause]:
        """What the program needs beside the black box, which has one output: a list of several."""
        if len(self.outputs) < 2:
            return []
        inputs = [Var(f"I{i}") for i in range(len(self.inputs))]
        outputs = [Var(f"O{i}") for i in range(len(self.outputs))]
        packed = Term(self.name, *inputs, list2term(outputs))
        return [Clause(Term(self.name, *inputs, *outputs), packed)]


class DeclaredBox(BlackBox):
    """The black box of a declaration: its inputs and output have types at most, no domains."""

    def __init__(self, declaration: Declaration) -> None:
        function = load_function(declaration.file, declaration.function)
        inputs = tuple(map(Anything, declaration.inputs))
        outputs = tuple(map(Anything, declaration.outputs))
        output = outputs[0] if len(outputs) == 1 else _Several(*outputs) if outputs else Boolean()
        options: dict[str, Any] = dict(declaration.options)
        samples = options.pop("samples", 100)
        check_sampling(samples, None)
        caller = Caller(
            function if options.get("vectorized") else _converting(function, inputs),
            name=declaration.name,
            check_output=output.check_output,
            **options,
        )
        # A black box has finite domains, or none: these are only asked what they hold.
        super().__init__(
            function, declaration.name, (Boolean(),), output, caller, "auto", samples, "auto", None
        )
        self.inputs = inputs
        self.declaration = declaration

    def __reduce__(self) -> tuple[Any, ...]:
        # The function is found in its file again; its memo and count of calls go with the copy.
        state = self.caller.__getstate__()
        del state["_function"], state["_check_output"]
        return DeclaredBox, (self.declaration,), state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.caller.__setstate__({**vars(self.caller), **state})


def declared_samples(boxes: Iterable[BlackBox]) -> list[int]:
    """How many worlds an example the declarations of black boxes ask for, where they do."""
    asked = [dict(b.declaration.options) for b in boxes if isinstance(b, DeclaredBox)]
    return [options["samples"] for options in asked if "samples" in options]


def _converting(function: Callable[..., Any], inputs: tuple[Anything, ...]) -> Callable[..., Any]:
    """The function on the values of rules."""
    if not any(domain.name in ("str", "float", "list") for domain in inputs):
        return function

    def converted(arguments: tuple[Hashable, ...]) -> list[Any]:
        return [domain.convert(v) for domain, v in zip(inputs, arguments, strict=True)]

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wait(*arguments: Hashable) -> Any:
            return await function(*converted(arguments))

        return wait

    @functools.wraps(function)
    def call(*arguments: Hashable) -> Any:
        return function(*converted(arguments))

    return call


def _items(term: Any, what: str) -> list[Any]:
    if not is_variable(term) and str(term) == "[]":
        return []
    if is_variable(term) or not is_list(term):
        raise ByssusError(f"{what} is {term}, which is no list: declare {_FORM}")
    items: list[Any] = term2list(term, deep=False)
    return items


def _option(term: Any) -> tuple[str, Hashable]:
    name = str(getattr(term, "functor", term))
    if name not in _OPTIONS or term.arity != 1 or not is_ground(term):
        raise ByssusError(
            f"{term} is no option of a black box: there are "
            f"{', '.join(f'{option}(...)' for option in _OPTIONS)}"
        )
    return name, to_python(term.args[0])


# In ProbLog's own engine


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
        engine.add_simple_builtin(called, arity, _Relation(called, box))


def arities(box: BlackBox) -> tuple[int, ...]:
    """With how many arguments a black box is a predicate."""
    count = len(box.inputs)
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
    """What `library(byssus)` does: make `blackbox/3` and `/4` known to the program that loads it.

    ProbLog names the program in a global that all threads share, so it is taken from the caller.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "load_external_module":
        frame = frame.f_back
    if frame is None:
        raise ByssusError("library(byssus) is for programs: `:- use_module(library(byssus)).`")
    database: ClauseDB = frame.f_locals["self"]
    for arity in (3, 4):
        found = database.find(Term("_byssus_blackbox", *[None] * arity))
        if found is None or not database.get_node(found):
            database.add_extern("blackbox", arity, _declare, scope="byssus")


def _declare(*terms: Any, database: ClauseDB, **about: Any) -> list[tuple[Any, ...]]:
    """Evaluate the directive."""
    where = about["location"]
    # In a module, the names of predicates begin with the module's.
    prefix = str(about["call_origin"][0]).partition("blackbox/")[0]
    with _shown_by_problog(database, where, (ByssusError,)):
        declaration = Declaration.read(terms, folder(database, where))
        key = f"{prefix}{declaration.name}/{len(declaration.inputs) + len(declaration.outputs)}"
        known = database.data.setdefault("byssus", {})
        if known.get(key) == declaration:
            return [terms]
        if key in known:
            raise ByssusError(f"{declaration.name} is declared twice: take one declaration away")
        box = declaration.box()
        name, _, arity = key.rpartition("/")
        found = database.find(Term(name, *[None] * int(arity)))
        if (found is not None and database.get_node(found)) or database.get_builtin(key):
            raise ByssusError(
                f"{key} is also defined by clauses, or by ProbLog: rename one of the two"
            )
        relation = _Relation(declaration.name, box, len(declaration.outputs))
        database.add_extern(name, int(arity), relation)
        known[key] = declaration
    return [terms]


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
        outputs: how many arguments are outputs; None for one, or none where it is Boolean.
    """

    name: str
    box: BlackBox
    outputs: int | None = None

    def __call__(self, *terms: Any, database: ClauseDB, **about: Any) -> list[tuple[Any, ...]]:
        count = len(self.box.inputs)
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
            return self._answers(terms[:count], terms[count:], outcome)

    def _answers(
        self, inputs: tuple[Any, ...], asked: tuple[Any, ...], outcome: Outcome
    ) -> list[tuple[Any, ...]]:
        if not asked:
            return [inputs] if outcome is True else []
        values = outcome if self.outputs is not None and self.outputs > 1 else (outcome,)
        assert isinstance(values, tuple)
        found = []
        for term, value in zip(asked, map(to_term, values), strict=True):
            if not unifies(term, value):
                return []
            found.append(term if not is_variable(term) and is_ground(term) else value)
        return [(*inputs, *found)]


def unifies(term: Any, value: Term) -> bool:
    """Whether a term may be this value; quoted or not, an atom is the same."""
    if not is_variable(term) and is_ground(term):
        same = order_key(to_term(to_python(term))) == order_key(value) if _plain(term) else False
        return bool(term == value or same)
    try:
        unify_value(term, value, {})
    except UnifyError:
        return False
    return True


def _plain(term: Any) -> bool:
    return isinstance(term, Constant) or term.arity == 0 or is_list(term)


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
    return getattr(goal, "functor", None) == "blackbox" and goal.arity in (3, 4)


def _find_library() -> None:
    """Let ProbLog find `library(byssus)` where it does not lie in ProbLog's own folder.

    An installed byssus has put it there. This is for ProbLog in another place, and for a clone.
    """
    here = Path(__file__).parent
    for path in (here / "library", here.parent / "problog" / "library"):
        if (path / "byssus.py").exists() and str(path) not in problog.library_paths:
            problog.library_paths.append(str(path))


_find_library()
