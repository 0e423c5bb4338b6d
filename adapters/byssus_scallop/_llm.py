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
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from byssus import ByssusError
from byssus._calls import Arguments, Outcome

from ._blackbox import Answers, BlackBoxes, ForeignBox, Heading, Shape, read_heading
from ._types import FAMILIES
from .attribute import AttributeAction, ForeignAttributeProcessor, ItemNode

if TYPE_CHECKING:
    from byssus.llm.question import Question, Report

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


class LanguageModel(ForeignBox):
    """A language model that rules ask.

    Attributes:
        question: the prompt and its settings.
    """

    def __init__(
        self,
        question: Question,
        name: str,
        answers: Answers,
        types: tuple[str, ...] | None,
        options: dict[str, Any],
    ) -> None:
        super().__init__(question, name, answers, types, options)
        self.question = question
        self._rounded = [i for i, kind in enumerate(types or ()) if kind == "f32"]

    @property
    def table_limit(self) -> int:
        """The largest domain that is tabulated: what its budget of calls is enough for."""
        calls = self.question.budget.get("calls")
        limit = super().table_limit
        return limit if calls is None else min(limit, int(calls) // self.question.votes)

    def report(self) -> Report:
        """What has been asked so far, and what it cost."""
        return replace(self.question.report)

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
    boxes: BlackBoxes, item: ItemNode, prompt: str | None = None, **options: Any
) -> list[AttributeAction]:
    # Only where a program has one: it needs more than byssus does.
    from byssus.llm.question import OPTIONS, Question

    heading = read_heading(item, options, ("over", "samples", *_CALLING, *OPTIONS))
    shape = heading.shape
    if not isinstance(prompt, str):
        raise ByssusError(
            "it takes the prompt first, a text that names the arguments, "
            '@llm("What type of room has {{objects}}?")'
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
    calling = {"timeout": 60.0}
    calling |= {name: options[name] for name in _CALLING if name in options}
    question = Question(
        prompt,
        name=shape.name,
        arguments=_arguments(heading),
        fields=_fields(shape),
        timeout=calling["timeout"],
        **asking,
    )
    calling = {"concurrency": question.concurrency, "remote": True, **calling}
    answers = heading.answers(many)
    _check_choices(answers, question.form.choices)
    types = None if heading.over else shape.types[: shape.bound]
    key = ("llm", prompt, shape.types, heading.over, answers, repr(sorted(options.items())))
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


def _fields(shape: Shape) -> dict[str, str]:
    """The names of what is asked for, and what they are."""
    free = range(shape.bound, len(shape.types))
    names = (shape.name,) if shape.function else _named(shape, free)
    kinds = [shape.types[i] for i in free]
    for name, kind in zip(names, kinds, strict=True):
        if kind not in _KINDS:
            raise ByssusError(
                f"{name} is of type {kind}, which no language model answers: take String, bool, an "
                "integer type or a float type"
            )
    return {name: _KINDS[kind] for name, kind in zip(names, kinds, strict=True)}


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
        shown = '("calls", 500)' if name == "budget" else '("max_tokens", 64)'
        raise ByssusError(
            f"{name}={given!r}: give pairs of a name and a value, {name}=[{shown}]"
        ) from None


def _check_choices(answers: Answers, choices: Sequence[Hashable]) -> None:
    """Refuse a choice that its column cannot hold."""
    for choice in choices:
        try:
            answers(choice)
        except ByssusError as error:
            raise ByssusError(f"the choice {choice!r} does not fit: {error}") from None
