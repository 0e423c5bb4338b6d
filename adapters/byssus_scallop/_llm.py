"""Language models that a program asks.

```
@llm("There are {{objects}}. What type of room is most likely?", choices=["kitchen", "office"])
type room(bound objects: String, kind: String)

@llm("What is the capital of {{country}}?", model="small")
type $capital(country: String) -> String

@llm("Who is whose parent in this text? {{text}}", many=true)
type parent(bound text: String, name: String, child: String)

@llm("May one see {{object}} in an office?", over=["object"])
type office()
```

The first argument is a template, which names the bound columns, or the relations of `over`. The
free columns are what is asked for, by their names: text, integers, floats, Booleans; with none, it
is asked whether it holds. The model's answers are data, which are checked against the columns.

Options are those of `byssus.llm.question.Question` (dictionaries are lists of pairs,
`budget=[("calls", 500)]`), and `on_error`, `timeout`, `concurrency`, `samples` and `over`, as for
any black box.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from byssus import ByssusError, Discrete, Domain
from byssus._calls import Arguments, Outcome
from byssus.errors import listed
from byssus.llm.box import PromptBox
from byssus.llm.question import OPTIONS, Question

from ._blackbox import Answers, BlackBoxes, ForeignBox, Heading, Shape, read_heading
from ._types import FAMILIES
from ._values import convert
from .attribute import AttributeAction, ForeignAttributeProcessor, ItemNode

__all__ = ["LanguageModel", "processor"]

_CALLING = ("on_error", "timeout", "concurrency")
_KINDS = {
    "String": "string",
    "bool": "boolean",
    **dict.fromkeys(FAMILIES["Integer"], "integer"),
    **dict.fromkeys(FAMILIES["Float"], "number"),
}
_OPAQUE = ("Entity", "Tensor")
"""Types whose values have no text."""
_PAIRS = {
    "budget": '("calls", 500)',
    "settings": '("max_tokens", 64)',
    "choices": '("kind", ["kitchen", "office"])',
}


class LanguageModel(PromptBox, ForeignBox):
    """A language model that rules ask."""

    def __init__(
        self,
        question: Question,
        name: str,
        answers: Answers,
        types: tuple[str, ...] | None,
        options: dict[str, Any],
    ) -> None:
        super().__init__(question, name, answers, types, options)
        self._rounded = [i for i, kind in enumerate(types or ()) if kind == "f32"]

    def evaluate(self, tuples: Sequence[Arguments]) -> list[Outcome]:
        """The answers, or a `Failure`, for each argument tuple."""
        if self._rounded:
            tuples = [self._shortened(arguments) for arguments in tuples]
        return super().evaluate(tuples)

    def _shortened(self, arguments: Arguments) -> Arguments:
        """Numbers as they are written, 0.1 and not 0.10000000149011612."""
        found: list[Any] = list(arguments)
        for i in self._rounded:
            found[i] = float(str(np.float32(found[i])))
        return tuple(found)


def processor(boxes: BlackBoxes) -> ForeignAttributeProcessor:
    """The attribute `@llm`.

    Args:
        boxes: the black boxes of the context.
    """
    return ForeignAttributeProcessor("llm", functools.partial(_process, boxes))


def _process(
    boxes: BlackBoxes, item: ItemNode, prompt: str | None = None, *more: Any, **options: Any
) -> list[AttributeAction]:
    heading = read_heading(item, options, ("over", "samples", *_CALLING, *OPTIONS))
    shape = heading.shape
    if not isinstance(prompt, str) or more:
        raise ByssusError(
            "it takes the prompt, a text that names the arguments, and all else by name: "
            '@llm("What type of room has {{objects}}?", model="small")'
        )
    asking = {name: options[name] for name in OPTIONS if name in options}
    for name in ("budget", "settings"):
        if name in asking:
            asking[name] = _pairs(name, asking[name])
    many = asking.get("many", False) is True
    if many and shape.function:
        raise ByssusError(
            f"${shape.name} is a function, with one answer: leave out many=, or declare a "
            f"relation, `type {shape.name}(bound ..., result)`"
        )
    fields: dict[str, str | Domain]
    fields = {name: _KINDS[kind] for name, kind in _free(shape).items()}
    fields |= _chosen(shape, asking.pop("choices", None))
    calling = {"timeout": 60.0}
    calling |= {name: options[name] for name in _CALLING if name in options}
    question = Question(
        prompt,
        name=shape.name,
        arguments=_arguments(heading),
        fields=fields,
        timeout=calling["timeout"],
        **asking,
    )
    calling = {"concurrency": question.concurrency, "remote": True, **calling}
    answers = heading.answers(many)
    types = None if heading.over else shape.types[: shape.bound]
    names = question.template.names
    key = ("llm", prompt, names, shape.types, heading.over, answers, repr(sorted(options.items())))
    box = boxes.kept(key, lambda: LanguageModel(question, shape.name, answers, types, calling))
    return heading.actions(box, list)


def _arguments(heading: Heading) -> tuple[str, ...]:
    """What the template calls the arguments."""
    if heading.over:
        return heading.over
    shape = heading.shape
    names = _named(shape, range(shape.bound))
    for name, kind in zip(names, shape.types, strict=False):
        if kind in _OPAQUE:
            raise ByssusError(f"{name} is of type {kind}, which no prompt can show: take a String")
    return names


def _free(shape: Shape) -> dict[str, str]:
    """What is asked for: the types of the free columns, by their names."""
    free = range(shape.bound, len(shape.types))
    names = (shape.name,) if shape.function else _named(shape, free)
    found = dict(zip(names, (shape.types[i] for i in free), strict=True))
    for name, kind in found.items():
        if kind not in _KINDS:
            raise ByssusError(
                f"{name} is of type {kind}, which no language model answers: take String, bool, an "
                "integer type or a float type"
            )
    return found


def _chosen(shape: Shape, choices: Any) -> dict[str, Domain]:
    """The free columns of which it is given what they may be.

    Choices are pairs of a column and its values; or the values of the one column that can hold
    them.
    """
    free = _free(shape)
    if choices is None:
        return {}
    named: dict[str, Any] = {}
    if isinstance(choices, list) and choices and isinstance(choices[0], tuple):
        named = _pairs("choices", choices)
    elif len(free) == 1:
        named = dict.fromkeys(free, choices)
    else:
        fitting = [name for name, kind in free.items() if _misfit(kind, choices) is None]
        if len(fitting) != 1:
            which = f"{', '.join(fitting)} can all" if fitting else "no free column can"
            raise ByssusError(
                f"choices={choices!r}: {which} have these values; say which column does, "
                f"choices=[{_PAIRS['choices']}]"
            )
        named = dict.fromkeys(fitting, choices)
    for name, values in named.items():
        if name not in free:
            raise ByssusError(
                f"choices= are for {name!r}, which is no free column of {shape.name}: there are "
                f"{listed(free)}"
            )
        if not isinstance(values, list | tuple) or not values:
            raise ByssusError(f"choices={values!r}: give a list of the values that {name} may have")
        if error := _misfit(free[name], values):
            raise ByssusError(f"choices=: {name} cannot have all of these values: {error}")
    return {name: Discrete(values) for name, values in named.items()}


def _misfit(kind: str, values: Any) -> str | None:
    """Why a column of a type cannot hold some values; None if it can."""
    for value in values if isinstance(values, list | tuple) else ():
        try:
            convert(value, kind, "a value")
        except ByssusError as error:
            return str(error)
    return None


def _named(shape: Shape, columns: range) -> tuple[str, ...]:
    names = []
    for i in columns:
        name = shape.columns[i]
        if name is None:
            raise ByssusError(
                f"column {i} of {shape.name} has no name, and the language model is told of "
                f"columns by their names: give it one, as in `type {shape.name}(bound x: String, "
                "kind: String)`"
            )
        if name in names:
            raise ByssusError(f"{shape.name} has two columns {name!r}: give each a name of its own")
        names.append(name)
    return tuple(names)


def _pairs(name: str, given: Any) -> dict[str, Any]:
    """A dictionary, which programs write as pairs."""
    if isinstance(given, Mapping):
        return dict(given)
    try:
        return dict(given)
    except (TypeError, ValueError):
        raise ByssusError(
            f"{name}={given!r}: give pairs of a name and a value, {name}=[{_PAIRS[name]}]"
        ) from None
