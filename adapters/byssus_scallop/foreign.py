"""Foreign functions and predicates: what Scallop's language calls but does not define.

```python
@foreign_function
def string_index_of(s1: str, s2: str) -> usize:
    return s1.index(s2)  # where it raises, the rule derives nothing

@foreign_predicate
def string_chars(s: str) -> Facts[None, tuple[usize, char]]:
    yield from enumerate(s)

@foreign_predicate
def similar(a: str, b: str) -> Facts[float, tuple[()]]:  # a probability, and no outputs
    yield difflib.SequenceMatcher(None, a, b).ratio(), ()
```

Both are registered with a context, and remain the plain functions that they were. In a function's
arguments `int` and `float` stand for any integer and any float; as its result, and in predicates,
they are `i32` and `f32`, as they are in relations.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ForwardRef, TypeVar, Union, cast, get_args, get_origin, overload

from byssus import ByssusError

from . import _values
from ._operators import Dropped
from ._types import FAMILIES, TYPES, python_type

__all__ = [
    "SUPPRESSED",
    "Decorated",
    "Facts",
    "ForeignFunction",
    "ForeignPredicate",
    "GenericTypeParameter",
    "exporter",
    "foreign_function",
    "foreign_predicate",
]

SUPPRESSED = "no result of a function with suppress_warning"
"""Why tuples are dropped of which nobody wants to hear."""

_Tag = TypeVar("_Tag")
_Row = TypeVar("_Row")

Facts = Iterator[Union[tuple[_Tag, _Row], _Row]]  # noqa: UP007 (names in quotes may stand for types)
"""What a foreign predicate yields: `Facts[tag, tuple of its outputs]`.

The tag is None (then it yields tuples), or `float`, `bool` or `Tensor` (then it yields pairs of a
tag and a tuple). Of one output the type may stand alone: `Facts[None, str]`.
"""


class GenericTypeParameter:
    """A type parameter of foreign functions: the same type at each of its uses.

    Example:
        >>> T = GenericTypeParameter("Number")
        >>> @foreign_function
        ... def add(*numbers: T) -> T:
        ...     return sum(numbers)
    """

    def __init__(self, type_family: Any = "Any") -> None:
        """The types that it stands for: `int`, `float`, `any`, `Number`, "SignedInteger", ...

        Raises:
            ByssusError: if it is no family of types.
        """
        self.type_family = _annotated(type_family)
        if self.type_family not in FAMILIES:
            raise ByssusError(
                f"{type_family!r} is no family of types: give one of {', '.join(FAMILIES)}"
            )

    def __repr__(self) -> str:
        return f"GenericTypeParameter({self.type_family!r})"


class Decorated:
    """What decorators make of a Python function: it is still called as one, and pickled by name."""

    name: str
    func: Callable[..., Any] | None

    def wrap(self) -> None:
        """Take over the function's name, module and documentation."""
        if self.func is not None:
            for name in ("__module__", "__name__", "__qualname__", "__doc__"):
                if hasattr(self.func, name):
                    object.__setattr__(self, name, getattr(self.func, name))
            object.__setattr__(self, "__wrapped__", self.func)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the Python function."""
        if self.func is None:
            raise ByssusError(f"{self.name} is built in, and cannot be called from Python")
        return self.func(*arguments, **keywords)

    def __reduce__(self) -> str | tuple[Any, ...]:
        # What stands where the function stood is pickled by its name, as the function would be.
        path = str(getattr(self, "__qualname__", ""))
        found: Any = sys.modules.get(self.__module__)
        for part in path.split("."):
            found = getattr(found, part, None)
        return path if found is self else cast(tuple[Any, ...], super().__reduce__())


@dataclass(frozen=True)
class ForeignFunction(Decorated):
    """A function of values, `$name(...)`: pure, partial, of one result.

    A type is a name (`"i32"`), a parameter of `generics`, or a family on its own (`"Integer"`,
    `"Any"`): each use of a family is free, each use of a parameter is the same type.

    Attributes:
        name: without the dollar.
        arguments: types of the arguments that must be given.
        result: the type of the result.
        implement: from the types of the actual arguments and of the result to the function; it
            raises `Dropped` (or, of users, anything) where there is no result.
        generics: type parameters and their families ("Number", "Integer", "Float", "Any", ...).
        optional: types of the arguments that may follow.
        variadic: the type of any number of arguments after these, or None.
        func: the Python function that was decorated, or None.
        suppress_warning: whether to be silent about tuples that it drops.
    """

    name: str
    arguments: tuple[str, ...]
    result: str
    implement: Callable[[tuple[str, ...], str], Callable[..., Any]]
    generics: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    variadic: str | None = None
    func: Callable[..., Any] | None = None
    suppress_warning: bool = False

    def __post_init__(self) -> None:
        self.wrap()

    def __repr__(self) -> str:
        arguments = [*self.arguments, *(f"{name}?" for name in self.optional)]
        if self.variadic is not None:
            arguments.append(f"{self.variadic}...")
        generics = ", ".join(f"{name}: {family}" for name, family in self.generics.items())
        return (
            f"extern fn ${self.name}{f'<{generics}>' if generics else ''}"
            f"({', '.join(arguments)}) -> {self.result}"
        )


@dataclass(frozen=True)
class ForeignPredicate(Decorated):
    """A relation that is computed: from bound arguments to tuples of the free ones.

    Attributes:
        name: of the predicate.
        types: of all arguments, the `bound` first ones being inputs. A type may be a parameter of
            `generics`, given in angle brackets in order: `range<i32>(0, 5, x)`.
        bound: the number of inputs.
        implement: from the values of the type parameters to the function, which is called with
            the inputs and gives an iterable of `(tag, outputs)`; see `_ir.Foreign`.
        generics: type parameters and their families; or the one type that each must be given as.
        func: the Python function that was decorated, or None.
        suppress_warning: whether to be silent about calls that it drops.
    """

    name: str
    types: tuple[str, ...]
    bound: int
    implement: Callable[[tuple[str, ...]], Callable[..., Iterable[tuple[Any, tuple[Any, ...]]]]]
    generics: Mapping[str, str] = field(default_factory=dict)
    func: Callable[..., Any] | None = None
    suppress_warning: bool = False

    def __post_init__(self) -> None:
        self.wrap()

    def __repr__(self) -> str:
        pattern = "b" * self.bound + "f" * (len(self.types) - self.bound)
        generics = f"<{', '.join(self.generics.values())}>" if self.generics else ""
        return f"extern pred {self.name}{generics}[{pattern}]({', '.join(self.types)})"


# Types of annotations

_ALIASES = {name.upper(): name for name in TYPES if name[0] in "iuf"} | {
    "ISize": "isize",
    "USize": "usize",
    "Char": "char",
    "Bool": "bool",
}
_FAMILY: dict[Any, str] = {int: "Integer", float: "Float", any: "Any", None: "Any", Any: "Any"}
_TAGS: dict[Any, str | None] = {
    None: None,
    types.NoneType: None,
    "none": None,
    float: "prob",
    bool: "bool",
    "prob": "prob",
    "bool": "bool",
    "diff-prob": "diff-prob",
    "Tensor": "diff-prob",
}


def _annotated(annotation: Any) -> str:
    """The type or family that an annotation names.

    Raises:
        ByssusError: if it names none.
    """
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    try:
        family = _FAMILY.get(annotation)
    except TypeError:  # nothing that can be looked up
        family = None
    name = family or python_type(annotation)
    return name if name in TYPES or name in FAMILIES else _ALIASES.get(name, name)


def _single(annotation: Any) -> str:
    """The one type that an annotation names; `int` is `i32`.

    Raises:
        ByssusError: if it names a family, or nothing.
    """
    name = _annotated(annotation)
    if annotation in (int, float):
        return python_type(annotation)
    if name in FAMILIES:
        raise ByssusError(f"{name} is a family of types: give one type")
    return name


def _resolve(function: Callable[..., Any], annotation: Any) -> Any:
    """An annotation in quotes (they all are after `from __future__ import annotations`)."""
    if not isinstance(annotation, str) or annotation in TYPES or annotation in FAMILIES:
        return annotation
    plain = inspect.unwrap(function)
    closure = inspect.getclosurevars(plain).nonlocals if inspect.isfunction(plain) else {}
    try:
        return eval(annotation, getattr(plain, "__globals__", {}), dict(closure))
    except NameError as error:
        raise ByssusError(
            f"{annotation!r} is not known where the function is defined ({error}): define it at "
            "the top level of its module, or leave out `from __future__ import annotations`"
        ) from None


def _without_none(annotation: Any) -> Any:
    """`T` of `T | None`, as optional arguments are annotated."""
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not types.NoneType]
        return parts[0] if len(parts) == 1 else annotation
    return annotation


def _named(function: Callable[..., Any], name: str | None) -> str:
    called = name or str(getattr(function, "__name__", ""))
    if not called.isidentifier():
        raise ByssusError(
            f"{called!r} is no name of a foreign function or predicate: give name='...'"
        )
    return called


def _parameters(what: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise ByssusError(
            f"{what}: its signature cannot be read ({error}): wrap it in a function with annotated "
            "arguments"
        ) from None
    for parameter in parameters:
        required = parameter.default is inspect.Parameter.empty
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and required:
            raise ByssusError(
                f"{what}: argument {parameter.name} is for keywords only, and rules give arguments "
                "by position: move it before the `*`, or give it a default"
            )
    positional = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    return [parameter for parameter in parameters if parameter.kind not in positional]


def _of_parameter(
    what: str,
    function: Callable[..., Any],
    parameter: inspect.Parameter,
    read: Callable[[Any], str],
) -> str:
    star = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else ""
    if parameter.annotation is inspect.Parameter.empty:
        raise ByssusError(
            f"{what}: argument {parameter.name} has no type: write `{star}{parameter.name}: int`, "
            "or another type"
        )
    try:
        return read(_without_none(_resolve(function, parameter.annotation)))
    except ByssusError as error:
        raise ByssusError(f"{what}: argument {parameter.name}: {error}") from None


# Values between the engine and Python code

_EXPORTED = frozenset({"DateTime", "Duration", "Entity", "Tensor"})
"""Types whose values Python code does not get as the engine holds them."""


def exporter(names: Sequence[str]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """What turns the engine's values into those for Python code."""
    if _EXPORTED.isdisjoint(names):
        return lambda values: values
    return lambda values: [
        _values.export(value, name) for value, name in zip(values, names, strict=True)
    ]


def _imported(value: Any, kind: str, what: str) -> Any:
    """A result as the engine holds it; of an entity's text the program makes the entity."""
    if kind == "Entity" and isinstance(value, str):
        return value
    return _values.convert(value, kind, what)


def _suppressing(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception:
            raise Dropped(SUPPRESSED) from None

    return call


def _implement_function(
    function: Callable[..., Any], name: str, suppress: bool, names: tuple[str, ...], result: str
) -> Callable[..., Any]:
    exported = exporter(names)
    what = f"the result of ${name}"

    def call(*arguments: Any) -> Any:
        return _imported(function(*exported(arguments)), result, what)

    return _suppressing(call) if suppress else call


def _implement_predicate(
    function: Callable[..., Any],
    name: str,
    suppress: bool,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    tag: str | None,
    parameters: tuple[str, ...],
) -> Callable[..., list[tuple[Any, tuple[Any, ...]]]]:
    exported = exporter(inputs)
    whats = [f"output {i} of {name}" for i in range(len(outputs))]

    def fact(yielded: Any) -> tuple[Any, tuple[Any, ...]]:
        given, row = None, yielded
        if tag is not None:
            if not isinstance(yielded, tuple | list) or len(yielded) != 2:
                raise ByssusError(f"{name} yields {yielded!r}: yield pairs `tag, (outputs)`")
            given, row = yielded
        if len(outputs) == 1 and not isinstance(row, tuple | list):
            row = (row,)
        if not isinstance(row, tuple | list) or len(row) != len(outputs):
            raise ByssusError(
                f"{name} yields {yielded!r}: yield a tuple of its {len(outputs)} outputs, "
                f"({', '.join(outputs)})"
            )
        return given, tuple(map(_imported, row, outputs, whats))

    def call(*arguments: Any) -> list[tuple[Any, tuple[Any, ...]]]:
        return [fact(yielded) for yielded in function(*exported(arguments))]

    return _suppressing(call) if suppress else call


# Decorators


@overload
def foreign_function(func: Callable[..., Any], /) -> ForeignFunction: ...


@overload
def foreign_function(
    name: str | None = None,
    arg_types: Sequence[Any] | None = None,
    opt_arg_types: Sequence[Any] | None = None,
    var_arg_type: Any | None = None,
    ret_type: Any | None = None,
    suppress_warning: bool = False,
) -> Callable[[Callable[..., Any]], ForeignFunction]: ...


def foreign_function(*positional: Any, **options: Any) -> Any:
    """Make a Python function one that rules call, `$name(x, y)`.

    Its types are its annotations. An argument with a default may be left out, and `*arguments` are
    any number. Where it raises, or returns what is no value of its result's type, the rule derives
    nothing; how often and why is counted. It is taken to be pure.

    Args:
        *positional: the function, or the name.
        **options: `name`; the function's if not given. `arg_types`, `opt_arg_types`,
            `var_arg_type`, `ret_type`: types in place of annotations. `suppress_warning`: whether
            to be silent about what is dropped.

    Raises:
        ByssusError: if an argument or the result has no type.
    """
    return _decorate(_foreign_function, positional, options)


@overload
def foreign_predicate(func: Callable[..., Any], /) -> ForeignPredicate: ...


@overload
def foreign_predicate(
    name: str | None = None,
    type_params: Sequence[Any] | None = None,
    input_arg_types: Sequence[Any] | None = None,
    output_arg_types: Sequence[Any] | None = None,
    tag_type: Any | None = None,
    suppress_warning: bool = False,
) -> Callable[[Callable[..., Any]], ForeignPredicate]: ...


def foreign_predicate(*positional: Any, **options: Any) -> Any:
    """Make a Python generator a relation: of its arguments, which are bound, and what it yields.

    Its types are its annotations, the result's being `Facts[tag, outputs]`. Where it raises, or
    yields what does not fit, there are no tuples for these arguments; how often and why is counted.

    Args:
        *positional: the function, or the name.
        **options: `name`; the function's if not given. `input_arg_types`, `output_arg_types`,
            `tag_type`: types in place of annotations. `type_params`: the types that stand in angle
            brackets where it is used. `suppress_warning`: whether to be silent about what is
            dropped.

    Raises:
        ByssusError: if an argument or an output has no type.
    """
    return _decorate(_foreign_predicate, positional, options)


def _decorate(make: Callable[..., Any], positional: Sequence[Any], options: dict[str, Any]) -> Any:
    """Support `@decorator` and `@decorator(options)`."""
    if len(positional) == 1 and not options and callable(positional[0]):
        return make(positional[0])
    inspect.signature(make).bind(None, *positional, **options)
    return lambda function: make(function, *positional, **options)


def _foreign_function(
    function: Callable[..., Any],
    name: str | None = None,
    arg_types: Sequence[Any] | None = None,
    opt_arg_types: Sequence[Any] | None = None,
    var_arg_type: Any | None = None,
    ret_type: Any | None = None,
    suppress_warning: bool = False,
) -> ForeignFunction:
    called = _named(function, name)
    what = f"the foreign function {called}"
    parameters: dict[GenericTypeParameter, str] = {}

    def read(annotation: Any) -> str:
        if isinstance(annotation, GenericTypeParameter):
            return parameters.setdefault(annotation, f"T{len(parameters)}")
        return _annotated(annotation)

    arguments = None if arg_types is None else [read(one) for one in arg_types]
    optional = None if opt_arg_types is None else [read(one) for one in opt_arg_types]
    variadic = None if var_arg_type is None else read(var_arg_type)
    found: dict[str, list[str]] = {"arguments": [], "optional": [], "variadic": []}
    for parameter in _parameters(what, function):
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            kind, given = "variadic", variadic is not None or arguments is not None
        elif parameter.default is inspect.Parameter.empty:
            kind, given = "arguments", arguments is not None
        else:
            kind, given = "optional", optional is not None
        if not given:
            found[kind].append(_of_parameter(what, function, parameter, read))
    if variadic is None and found["variadic"]:
        (variadic,) = found["variadic"]

    if ret_type is None:
        ret_type = inspect.signature(function).return_annotation
        if ret_type is inspect.Signature.empty or ret_type is None:
            raise ByssusError(f"{what} has no type of its result: write `-> int`, or another type")
    before = len(parameters)
    try:
        ret_type = _resolve(function, ret_type)
        generic = isinstance(ret_type, GenericTypeParameter)
        result = read(ret_type) if generic else _single(ret_type)
    except ByssusError as error:
        raise ByssusError(f"{what}: its result: {error}") from None
    if len(parameters) > before:
        raise ByssusError(
            f"{what}: the type of its result is a parameter that no argument has: give an argument "
            "the same parameter, or the result one type"
        )
    return ForeignFunction(
        called,
        tuple(found["arguments"] if arguments is None else arguments),
        result,
        functools.partial(_implement_function, function, called, suppress_warning),
        {name: parameter.type_family for parameter, name in parameters.items()},
        tuple(found["optional"] if optional is None else optional),
        variadic,
        function,
        suppress_warning,
    )


def _foreign_predicate(
    function: Callable[..., Any],
    name: str | None = None,
    type_params: Sequence[Any] | None = None,
    input_arg_types: Sequence[Any] | None = None,
    output_arg_types: Sequence[Any] | None = None,
    tag_type: Any | None = None,
    suppress_warning: bool = False,
) -> ForeignPredicate:
    called = _named(function, name)
    what = f"the foreign predicate {called}"
    if input_arg_types is None:
        inputs = []
        for parameter in _parameters(what, function):
            if parameter.default is not inspect.Parameter.empty:
                raise ByssusError(
                    f"{what}: argument {parameter.name} has a default, and a predicate has all of "
                    "its arguments: leave the default out"
                )
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                raise ByssusError(
                    f"{what}: it takes any number of arguments, *{parameter.name}, and a predicate "
                    "has so many: name them, or give input_arg_types="
                )
            inputs.append(_of_parameter(what, function, parameter, _single))
    else:
        inputs = [_single(one) for one in input_arg_types]
    if output_arg_types is None:
        tag_type, outputs = _facts(what, function)
    else:
        outputs = [_single(one) for one in output_arg_types]
    tag = _tag(what, tag_type)
    return ForeignPredicate(
        called,
        (*inputs, *outputs),
        len(inputs),
        functools.partial(
            _implement_predicate,
            function,
            called,
            suppress_warning,
            tuple(inputs),
            tuple(outputs),
            tag,
        ),
        {f"T{i}": _single(one) for i, one in enumerate(type_params or ())},
        function,
        suppress_warning,
    )


def _facts(what: str, function: Callable[..., Any]) -> tuple[Any, list[str]]:
    """The tag's type and the outputs' of a predicate's annotation."""
    mend = "write `-> Facts[None, tuple[int, str]]`, or `Facts[float, ...]` with probabilities"
    annotation = inspect.signature(function).return_annotation
    if annotation is inspect.Signature.empty:
        raise ByssusError(f"{what} has no type of its outputs: {mend}")
    try:
        annotation = _resolve(function, annotation)
        # An iterator over the union of pairs (tag, row) and rows.
        pair, row = get_args(get_args(annotation)[0])
        tag, _ = get_args(pair)
    except (ByssusError, IndexError, ValueError, TypeError) as error:
        why = f" ({error})" if isinstance(error, ByssusError) else ""
        raise ByssusError(f"{what}: its outputs are {annotation!r}{why}: {mend}") from None
    if row in (None, types.NoneType, tuple) or get_origin(row) is tuple:
        parts = get_args(row)
    else:
        parts = (row,)
    try:
        return tag, [_single(part) for part in parts]
    except ByssusError as error:
        raise ByssusError(f"{what}: its outputs: {error}") from None


def _tag(what: str, tag: Any) -> str | None:
    if isinstance(tag, ForwardRef):
        tag = tag.__forward_arg__
    name = getattr(tag, "__name__", None) if isinstance(tag, TypeVar | type) else None
    for key in (tag,) if name is None else (tag, name):
        try:
            return _TAGS[key]
        except (KeyError, TypeError):
            continue
    raise ByssusError(f"{what}: {tag!r} is no type of tags: give None, float, bool or Tensor")
