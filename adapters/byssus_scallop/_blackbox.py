"""Black boxes that a program declares.

```
@blackbox("leaf.py:leaf_id", samples=100, on_error="discard")
type leaf_id(bound margin: String, bound shape: String, species: String)

@blackbox("leaf.py:leaf_id")
type $leaf_id(margin: String, shape: String) -> String

@blackbox("formula.py:evaluate", over=["symbol"])
type value(result: f32)
```

The first argument is a file, relative to the program's, and a function in it; or `package.module`
and a function; or the name of a function that was registered from Python. Without it the
declaration's own name is looked for among those that were registered; and one registered under
the declaration's name stands in for any file.

**What is called.** The function gets the bound columns, all before the others, as positional
arguments; with `over`, the contents of whole relations, each a tuple (of rows; of values, for a
relation of one column).

**What it answers.** With one free column, its value; with several, a tuple; with none, whether it
holds. Several answers are a list, a set or a generator (with `many=True` any iterable), and none
an empty one. A dictionary from answers to probabilities, or a `byssus.Distribution` of one example,
is one of its answers with its probability: they exclude one another.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from byssus import (
    LLM,
    BlackBox,
    BlackBoxOutputError,
    Boolean,
    ByssusError,
    Distribution,
    DomainError,
    NondeterministicError,
)
from byssus._calls import Arguments, Caller, Outcome
from byssus._functions import find_function, load_file
from byssus.errors import listed

from . import _values
from ._syntax import ArgumentType, FunctionType, RelationType, RelationTypes, Span
from .attribute import AttributeAction, ForeignAttributeProcessor, ItemNode, RemoveItemAction
from .foreign import exporter

__all__ = [
    "Answer",
    "Answers",
    "BlackBoxDeclaration",
    "BlackBoxes",
    "ForeignBox",
    "Heading",
    "RegisterBlackBoxAction",
    "Shape",
    "read_heading",
]

Answer = tuple[Any, tuple[Hashable, ...]]
"""A probability (None for certain, else a float or a scalar tensor) and the free columns' values.

The uncertain ones among a call's answers exclude one another.
"""

_RANDOM = (
    "a black box that rules call must answer the same each time; if it is random, let it return a "
    "dictionary from its answers to their probabilities"
)
_CALLING = ("on_error", "budget", "timeout", "vectorized", "concurrency", "memo", "check")
_READING = ("samples", "over", "many")


@dataclass(frozen=True)
class BlackBoxDeclaration:
    """A relation or function of the program that is a black box.

    Attributes:
        name: of the relation, or of the function without its dollar.
        types: the value types of all columns, the bound ones first.
        columns: their names, None where there is none.
        bound: how many are arguments; 0 with `over`.
        function: whether it was declared as `type $name(...) -> T`; its one free column is last.
        box: what is called.
        over: relations whose whole contents are the arguments, one each.
        samples: worlds an example where it is sampled, or None for the program's.
        span: of the declaration.
        convert: from an outcome of `box` to the answers.
    """

    name: str
    types: tuple[str, ...]
    columns: tuple[str | None, ...]
    bound: int
    function: bool
    box: BlackBox
    over: tuple[str, ...]
    samples: int | None
    span: Span
    convert: Callable[[Any], list[Answer]]


@dataclass(frozen=True)
class RegisterBlackBoxAction(AttributeAction):
    """Declare a black box."""

    declaration: BlackBoxDeclaration


class ForeignBox(BlackBox):
    """A black box that rules ask: its arguments are whatever they derive, so have no domains.

    Its outcomes are tuples of `Answer`.
    """

    def __init__(
        self,
        source: _InFile | Callable[..., Any],
        name: str,
        answers: Answers,
        types: tuple[str, ...] | None,
        options: dict[str, Any],
    ) -> None:
        """Set up.

        Args:
            source: the function, or where it is.
            name: what messages call it.
            answers: what reads what it returns.
            types: of its arguments; None where these are relations' contents, or columns.
            options: of `Caller`.
        """
        function = source.find() if isinstance(source, _InFile) else source
        called = _adapted(function, types)
        # The columns have types, so equal values are of one.
        caller = Caller(called, name=name, check_output=answers, typed=False, **options)
        # A black box has a domain at least; this one's stands for none.
        super().__init__(function, name, (Boolean(),), None, caller, "auto", 100, "auto", None)
        self.inputs = ()
        self._made = source, name, answers, types, options

    def evaluate(self, tuples: Sequence[Arguments]) -> list[Outcome]:
        """What the function gives on each argument tuple, or a `Failure`."""
        try:
            return self.caller.evaluate(tuples)
        except NondeterministicError as error:
            raise NondeterministicError(
                f"{self.name}({listed(error.arguments)}) gave two different answers; {_RANDOM}, or "
                "seed its generator inside it",
                name=error.name,
                arguments=error.arguments,
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        # A function of a file is found there again; its memo and count of calls go with the copy.
        state = self.caller.__getstate__()
        del state["_function"], state["_check_output"]
        return type(self), self._made, state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.caller.__setstate__({**vars(self.caller), **state})


@dataclass(frozen=True)
class _InFile:
    """A function of a file or a module."""

    where: str
    path: str
    directory: Path

    def find(self) -> Callable[..., Any]:
        """Load it.

        Raises:
            ByssusError: if it is not there, or cannot be loaded.
        """
        return find_function(_load(self.where, self.directory), self.path, self.where)


class BlackBoxes:
    """The black boxes of a context: what it has registered, and what its programs declare.

    A declaration that is compiled again gets the box that it had, with its memo.
    """

    def __init__(self) -> None:
        self.registered: dict[str, Callable[..., Any]] = {}
        self._boxes: dict[Hashable, ForeignBox] = {}

    def register(self, function: Callable[..., Any], name: str | None = None) -> None:
        """Make a function, or a `byssus.blackbox`, known to `@blackbox` under a name.

        Args:
            function: what is called.
            name: the function's own if not given.

        Raises:
            ByssusError: if it cannot be called, or has no name.
        """
        if not callable(function):
            raise ByssusError(f"{function!r} cannot be called: register a function")
        called = name or getattr(function, "__name__", None) or getattr(function, "name", None)
        if not isinstance(called, str) or not called:
            raise ByssusError(f"{function!r} has no name: give name='...'")
        self.registered[called] = function

    def processor(self) -> ForeignAttributeProcessor:
        """The attribute `@blackbox`."""
        return ForeignAttributeProcessor("blackbox", self._process)

    def kept(self, key: Hashable, make: Callable[[], ForeignBox]) -> ForeignBox:
        """The black box of a declaration: the one that there is already, if there is one."""
        if key not in self._boxes:
            self._boxes[key] = make()
        return self._boxes[key]

    def _process(
        self, item: ItemNode, target: str | None = None, **options: Any
    ) -> list[AttributeAction]:
        heading = read_heading(item, options, _READING + _CALLING)
        shape, over = heading.shape, heading.over
        for name in ("many", "vectorized", "memo"):
            if not isinstance(options.get(name, False), bool):
                raise ByssusError(f"{name}={options[name]!r}: give true or false")
        if not options.get("memo", True):
            raise ByssusError(f"memo=false: {_RANDOM}")
        answers = heading.answers(options.get("many", False))
        source = self._find(item, shape.name, target)
        function = source.find() if isinstance(source, _InFile) else source
        _check_arity(function, shape.name, len(over) or shape.bound)
        calling = {name: options[name] for name in _CALLING if name in options}
        if not isinstance(function, BlackBox):
            plain = over or calling.get("vectorized", False)
            types = None if plain else shape.types[: shape.bound]
            key = (function, shape.types, answers, types, repr(sorted(calling.items())))
            box = self.kept(key, lambda: ForeignBox(source, shape.name, answers, types, calling))
            return heading.actions(box, list)
        if calling:
            name = next(iter(calling))
            raise ByssusError(
                f"{function.name} is a black box already: give {name}= to its decorator"
            )
        if not function.caller.memoised:
            raise ByssusError(f"{function.name} has memo=False: {_RANDOM}")
        return heading.actions(function, answers.convert)

    def _find(self, item: ItemNode, name: str, target: str | None) -> _InFile | Callable[..., Any]:
        if target is not None and not isinstance(target, str):
            raise ByssusError(f'{target!r} is no function: give "file.py:function", or its name')
        for one in (target, name):
            if one in self.registered:
                return self.registered[one]
        if target is None or ":" not in target:
            raise ByssusError(
                f"no black box {target or name!r} is registered: register one under this name, or "
                f'give a file and a function, @blackbox("file.py:{name}")'
            )
        where, _, path = target.rpartition(":")
        file = item.attribute.span.source.file
        return _InFile(where, path, (Path(file).parent if file is not None else Path()).resolve())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_boxes": {}}


@dataclass(frozen=True)
class Heading:
    """A declaration, and what its attribute says that any black box may.

    Attributes:
        shape: what is declared.
        over: relations whose whole contents are the arguments, one each.
        samples: worlds an example where it is sampled, or None for the program's.
    """

    shape: Shape
    over: tuple[str, ...]
    samples: int | None

    def answers(self, many: bool) -> Answers:
        """What reads the answers."""
        shape = self.shape
        free = slice(shape.bound, None)
        return Answers(shape.name, shape.types[free], shape.columns[free], many, shape.function)

    def actions(
        self, box: BlackBox, convert: Callable[[Any], list[Answer]]
    ) -> list[AttributeAction]:
        """What declares a black box in the item's place."""
        shape = self.shape
        declaration = BlackBoxDeclaration(
            shape.name,
            shape.types,
            shape.columns,
            shape.bound,
            shape.function,
            box,
            self.over,
            self.samples,
            shape.span,
            convert,
        )
        return [RemoveItemAction(), RegisterBlackBoxAction(declaration)]


def read_heading(item: ItemNode, options: Mapping[str, Any], known: Sequence[str]) -> Heading:
    """What an item declares.

    Args:
        item: the declaration.
        options: of its attribute; `over` and `samples` are read.
        known: the names of all that there are.

    Raises:
        ByssusError: the item is no declaration of a black box, or an option is wrong.
    """
    shape = _shape(item)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ByssusError(f"it takes no argument {unknown[0]!r}: it knows {', '.join(known)}")
    over = options.get("over", ())
    over = tuple(over) if isinstance(over, list | tuple) else (over,)
    if not all(isinstance(name, str) for name in over):
        raise ByssusError(f"over={options['over']!r}: give a list of relations' names")
    if over and (shape.bound or shape.function):
        raise ByssusError(
            f"{shape.name} is over whole relations, which are its arguments, and so takes no "
            "others: declare it as a relation with no column `bound`, or leave out over="
        )
    samples = options.get("samples")
    if samples is not None and (type(samples) is not int or samples < 1):
        raise ByssusError(f"samples={samples!r}: give a whole number of worlds, 1 or more")
    return Heading(shape, over, samples)


@dataclass(frozen=True)
class Shape:
    """What is declared."""

    name: str
    types: tuple[str, ...]
    columns: tuple[str | None, ...]
    bound: int
    function: bool
    span: Span


def _shape(item: ItemNode) -> Shape:
    node = item.node
    function = isinstance(node, FunctionType)
    if isinstance(node, FunctionType):
        declared: FunctionType | RelationType = node
    elif isinstance(node, RelationTypes) and len(node.relations) == 1:
        declared = node.relations[0]
    else:
        raise ByssusError(
            "it stands on the declaration of one relation, `type r(bound x: i32, y: i32)`, or of a "
            "function, `type $f(x: i32) -> i32`"
        )
    names = [argument.type.name for argument in declared.arguments]
    columns = [argument.name for argument in declared.arguments]
    if isinstance(declared, FunctionType):
        names.append(declared.result.name)
        columns.append(None)
    return Shape(
        declared.name,
        tuple(map(item.resolve, names)),
        tuple(columns),
        len(declared.arguments) if function else _bound(declared.name, declared.arguments),
        function,
        declared.span,
    )


def _bound(name: str, arguments: Sequence[ArgumentType]) -> int:
    """How many columns are bound; they come first."""
    words = [argument.adornment == "bound" for argument in arguments]
    if words != sorted(words, reverse=True):
        raise ByssusError(
            f"{name} has a bound column after one that is not: put the bound ones, which are the "
            "arguments, before the others"
        )
    return sum(words)


# Functions


def _load(where: str, directory: Path) -> ModuleType:
    if not where.endswith(".py"):
        try:
            return importlib.import_module(where)
        except Exception as error:
            raise ByssusError(
                f"the module {where} cannot be imported, {type(error).__name__}: {error}; for a "
                f"file write {where}.py"
            ) from error
    return load_file(directory / where)


def _check_arity(function: Callable[..., Any], name: str, count: int) -> None:
    if isinstance(function, BlackBox):
        # A language model may have names of arguments, and no domains.
        named = function.question.template.names if isinstance(function, LLM) else function.inputs
        if isinstance(function, ForeignBox) or len(named) == count:
            return
        takes = f"{len(named)} arguments"
    else:
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # one of C, which does not say
            return
        try:
            signature.bind(*range(count))
        except TypeError:
            takes = str(signature)
        else:
            return
    called = getattr(function, "__name__", repr(function))
    raise ByssusError(
        f"{called} takes {takes}, and {name} gives it {count} arguments: bind as many columns as "
        "the function has arguments"
    )


_EXPORTED = {datetime: "DateTime", _values.Duration: "Duration", _values.Tensor: "Tensor"}
"""Of the engine's own values, as which type they are exported."""


def _exported(value: Any) -> Any:
    """Values, however deep in tuples or an array, as Python code gets them."""
    if isinstance(value, tuple):
        return tuple(map(_exported, value))
    if isinstance(value, np.ndarray):
        if value.dtype != object:
            return value
        return np.fromiter(map(_exported, value), object, len(value))
    kind = _EXPORTED.get(type(value))
    return value if kind is None else _values.export(value, kind)


def _adapted(function: Callable[..., Any], types: Sequence[str] | None) -> Callable[..., Any]:
    """The function on the engine's values; what it generates is generated within the call."""
    exported = _exported if types is None else exporter(types)

    def gathered(answer: Any) -> Any:
        return list(answer) if isinstance(answer, Iterator) else answer

    call_of_class = type(function).__call__
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call_of_class):

        async def wait(*arguments: Any) -> Any:
            return gathered(await function(*exported(arguments)))

        return wait

    def call(*arguments: Any) -> Any:
        return gathered(function(*exported(arguments)))

    return call


# Answers


@dataclass(frozen=True)
class Answers:
    """From what a function returns to answers, which can be hashed and remembered."""

    name: str
    types: tuple[str, ...]
    columns: tuple[str | None, ...]
    many: bool
    function: bool

    def __call__(self, returned: Any) -> tuple[Answer, ...]:
        """The answers.

        Raises:
            ByssusError: says what does not fit.
        """
        if isinstance(returned, Distribution):
            returned = self._distribution(returned)
        if isinstance(returned, Mapping):
            return self._alternatives(returned)
        if (
            isinstance(returned, np.ndarray | Tensor)
            and returned.ndim
            and self.types != ("Tensor",)
        ):
            returned = returned.tolist()
        several = isinstance(returned, list | set | frozenset | Iterator)
        if self.many and not several:
            several = isinstance(returned, Iterable) and not isinstance(returned, str)
            if not several:
                raise DomainError(f"{returned!r} is not many answers: return a list of answers")
        if not several:
            return self._answers([returned])
        if self.function:
            raise DomainError(
                f"${self.name} is a function, with one answer: return it alone, or declare a "
                f"relation, `type {self.name}(bound ..., result)`"
            )
        return self._answers(returned)

    def convert(self, outcome: Any) -> list[Answer]:
        """The answers of a black box that was made elsewhere, and has checked its outputs.

        Raises:
            BlackBoxOutputError: if they do not fit the declaration.
        """
        try:
            return list(self(outcome))
        except ByssusError as error:
            raise BlackBoxOutputError(
                f"{self.name} returned {outcome!r}, which does not fit its declaration: {error}; "
                "mend the black box or the declaration",
                name=self.name,
                arguments=(),
                cause=error,
            ) from error

    def _answers(self, returned: Iterable[Any]) -> tuple[Answer, ...]:
        rows = map(self._row, returned)
        return tuple((None, row) for row in rows if row is not None)

    def _row(self, answer: Any) -> tuple[Hashable, ...] | None:
        """The free columns of one answer; None where it says that nothing holds."""
        if not self.types:
            if not isinstance(answer, bool | np.bool_):
                raise DomainError(
                    f"{self.name} has no free column, so it tells whether it holds: return True "
                    "or False"
                )
            return () if answer else None
        if len(self.types) == 1 and not isinstance(answer, tuple):
            answer = (answer,)
        if not isinstance(answer, tuple) or len(answer) != len(self.types):
            shown = ", ".join(self.types)
            raise DomainError(
                f"{answer!r} is no answer for the columns ({shown}): return a tuple of "
                f"{len(self.types)}"
                if len(self.types) > 1
                else f"{answer!r} is no answer for a column of type {shown}: return one value"
            )
        whats = [c or f"column {i} of the answer" for i, c in enumerate(self.columns)]
        try:
            row = tuple(map(_values.convert, answer, self.types, whats))
            for value in row:
                if isinstance(value, str):
                    value.encode()  # which Scallop does: it has no halves of characters
        except UnicodeEncodeError as error:
            raise DomainError(f"{answer!r} is no text: {error}") from None
        except ByssusError as error:
            raise DomainError(str(error).rstrip(".")) from None
        return row

    def _distribution(self, returned: Distribution) -> dict[Hashable, Any]:
        probs = returned.probs
        if len(probs) != 1:
            raise DomainError(
                f"a distribution over a batch of {len(probs)} examples is no answer of one call: "
                "return that of one example"
            )
        return dict(zip(returned.values, probs[0], strict=True))

    def _alternatives(self, returned: Mapping[Any, Any]) -> tuple[Answer, ...]:
        found = []
        total = 0.0
        for answer, probability in returned.items():
            try:
                given = probability.detach() if isinstance(probability, Tensor) else probability
                number = float(given)
            except (TypeError, ValueError):
                number = float("nan")
            if not 0 <= number <= 1 + _TOLERANCE:
                raise DomainError(
                    f"{answer!r} has the probability {probability!r}: give one from 0 to 1"
                )
            if isinstance(probability, Tensor) and probability.grad_fn is not None:
                raise DomainError(
                    f"the probability of {answer!r} depends on a network, and answers are "
                    "remembered over steps: detach() it, or give the network's probabilities as "
                    "facts"
                )
            total += number
            row = self._row(answer)
            # Of what cannot be, nothing more is to be asked.
            if row is not None and (number or isinstance(probability, Tensor)):
                found.append((probability if isinstance(probability, Tensor) else number, row))
        if total > 1 + _TOLERANCE:
            raise DomainError(
                f"its answers have probabilities that sum to {total:g}: they exclude one another, "
                "so give at most 1 in all"
            )
        return tuple(found)


_TOLERANCE = 1e-4
