"""Black boxes that a program declares: what a directive says, and the black box that it makes.

```prolog
:- use_module(library(byssus)).
:- blackbox('leaf.py', leaf_id, [+margin, +shape, +texture, -species]).
:- blackbox('leaf.py', leaf_id, [+margin, +shape, +texture, -species], [on_error(discard)]).
```

The file is relative to the program's; `'file.py:function'` names a function that is not called as
the predicate is. `+` marks inputs, which are bound when the predicate is called, and `-` outputs,
after them: with one, the function returns its value; with several, a tuple; with none, whether it
holds. The words are names, except that `int`, `float`, `str`, `bool` and `list` are types: the
function gets a value of this type, and what it returns is checked; `+n:int` has both. Where it
returns a dictionary from answers to probabilities, the call is one of them, with its probability.

`:- llm(...)` declares a language model, see `byssus_problog.llms`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from problog.logic import Clause, Term, Var, is_ground, is_list, is_variable, list2term, term2list

from byssus import BlackBox, Boolean, ByssusError, Domain, DomainError, Float
from byssus._calls import Caller
from byssus._functions import load_function
from byssus.blackbox import Checked, _hashable
from byssus.worlds import check_sampling

from ._terms import to_python

__all__ = ["Anything", "Declaration", "DeclaredBox", "FunctionDeclaration"]

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


class Several(Anything):
    """Several outputs: a tuple."""

    parts: tuple[Domain, ...]

    def __init__(self, *parts: Domain) -> None:
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


class Made(NamedTuple):
    """What a declared black box is made of.

    Attributes:
        function: what the user gave.
        inputs: what the arguments may be.
        output: what an answer may be.
        caller: calls it.
        samples: worlds an example.
    """

    function: Callable[..., Any]
    inputs: tuple[Domain, ...]
    output: Domain
    caller: Caller
    samples: int = 100


class Declaration(Protocol):
    """A directive that declares a black box."""

    @property
    def name(self) -> str:
        """The name of the predicate."""

    @property
    def inputs(self) -> Sequence[Any]:
        """The predicate's arguments that are bound when it is called, the first ones."""

    @property
    def outputs(self) -> Sequence[Any]:
        """Its other arguments."""

    @property
    def samples(self) -> int | None:
        """The worlds an example that it asks for."""

    def box(self) -> BlackBox:
        """The black box.

        Raises:
            ByssusError: it cannot be made as declared.
        """

    def make(self) -> Made:
        """The parts of a `DeclaredBox`."""


def clauses(declaration: Declaration) -> list[Clause]:
    """What the program needs beside the black box, which has one output: a list of several."""
    if len(declaration.outputs) < 2:
        return []
    inputs = [Var(f"I{i}") for i in range(len(declaration.inputs))]
    outputs = [Var(f"O{i}") for i in range(len(declaration.outputs))]
    packed = Term(declaration.name, *inputs, list2term(outputs))
    return [Clause(Term(declaration.name, *inputs, *outputs), packed)]


class DeclaredBox(BlackBox):
    """The black box of a declaration: its inputs and output have types at most, no domains.

    Attributes:
        declaration: the directive.
    """

    def __init__(self, declaration: Declaration) -> None:
        function, inputs, output, caller, samples = declaration.make()
        # A black box has finite domains, or none: these are only asked what they hold.
        super().__init__(
            function, declaration.name, (Boolean(),), output, caller, "auto", samples, "auto", None
        )
        self.inputs = inputs
        self.declaration = declaration

    def __reduce__(self) -> tuple[Any, ...]:
        # What is called is made again; its memo and count of calls go with the copy.
        state = self.caller.__getstate__()
        del state["_function"], state["_check_output"]
        return type(self), (self.declaration,), state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.caller.__setstate__({**vars(self.caller), **state})


@dataclass(frozen=True)
class FunctionDeclaration:
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
    def read(cls, arguments: Sequence[Any], folder: Path) -> FunctionDeclaration:
        """Read the arguments of the directive.

        Args:
            arguments: its terms.
            folder: where its file is.

        Raises:
            ByssusError: they are not of this form.
        """
        file, name, modes, *options = arguments
        where, _, function = text(file, "file", _FORM).partition(".py:")
        called = text(name, "name", _FORM)
        inputs, outputs = read_modes(modes, _FORM)
        return cls(
            called,
            folder / (f"{where}.py" if function else where),
            function or called,
            tuple(map(_word, inputs)),
            tuple(map(_word, outputs)),
            tuple(_option(term) for part in options for term in items(part, "the options", _FORM)),
        )

    @property
    def samples(self) -> int | None:
        """The worlds an example that it asks for."""
        return dict(self.options).get("samples")

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

    def make(self) -> Made:
        """The parts of a `DeclaredBox`."""
        function = load_function(self.file, self.function)
        inputs = tuple(map(Anything, self.inputs))
        output = output_of(tuple(map(Anything, self.outputs)))
        options: dict[str, Any] = dict(self.options)
        samples = options.pop("samples", 100)
        check_sampling(samples, None)
        caller = Caller(
            function if options.get("vectorized") else _converting(function, inputs),
            name=self.name,
            check_output=Checked(output.check_output),
            **options,
        )
        return Made(function, inputs, output, caller, samples)


def output_of(outputs: Sequence[Domain]) -> Domain:
    """What an answer of so many outputs may be."""
    if not outputs:
        return Boolean()
    return outputs[0] if len(outputs) == 1 else Several(*outputs)


def declared_samples(boxes: Iterable[BlackBox]) -> list[int]:
    """How many worlds an example the declarations of black boxes ask for, where they do."""
    asked = [box.declaration.samples for box in boxes if isinstance(box, DeclaredBox)]
    return [samples for samples in asked if samples is not None]


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


# The terms of a directive


def text(term: Any, what: str, form: str) -> str:
    """A term that is a text.

    Raises:
        ByssusError: it is none.
    """
    value = None if is_variable(term) or term.arity else to_python(term)
    if not isinstance(value, str):
        raise ByssusError(f"{term} is no {what}: declare {form}")
    return value


def read_modes(modes: Any, form: str) -> tuple[list[Any], list[Any]]:
    """The terms under the `+` and under the `-` of a list of arguments.

    Raises:
        ByssusError: it is no such list.
    """
    signs, words = [], []
    for mode in items(modes, "the list of arguments", form):
        # ProbLog reads -age:int as (-age):int.
        typed = not is_variable(mode) and mode.functor == "':'"
        signed = mode.args[0] if typed else mode
        sign = str(getattr(signed, "functor", "")).strip("'")
        if sign not in ("+", "-") or signed.arity != 1:
            raise ByssusError(
                f"{mode} is neither an input, +{mode}, nor an output, -{mode}: declare {form}"
            )
        signs.append(sign)
        words.append(mode.with_args(signed.args[0], mode.args[1]) if typed else signed.args[0])
    if signs != sorted(signs):  # "+" sorts before "-"
        raise ByssusError("an input stands after an output: put the inputs first")
    count = signs.count("+")
    return words[:count], words[count:]


def _word(term: Any) -> str:
    if not is_variable(term) and term.functor == "':'":
        term = term.args[1]
    return "" if is_variable(term) else str(to_python(term))


def items(term: Any, what: str, form: str) -> list[Any]:
    """The terms of a list.

    Raises:
        ByssusError: it is none.
    """
    if not is_variable(term) and str(term) == "[]":
        return []
    if is_variable(term) or not is_list(term):
        raise ByssusError(f"{what} is {term}, which is no list: declare {form}")
    found: list[Any] = term2list(term, deep=False)
    return found


def _option(term: Any) -> tuple[str, Hashable]:
    name = str(getattr(term, "functor", term))
    if name not in _OPTIONS or term.arity != 1 or not is_ground(term):
        raise ByssusError(
            f"{term} is no option of a black box: there are "
            f"{', '.join(f'{option}(...)' for option in _OPTIONS)}"
        )
    return name, to_python(term.args[0])
