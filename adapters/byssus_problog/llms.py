r"""Language models in programs: a prompt template is a predicate.

```prolog
:- use_module(library(byssus)).
:- llm('There are {{objects}}. What type of room is most likely?',
       room, [+objects, -kind], [choices([kitchen, office, lab]), model(small)]).
:- llm('{{text}}\nWho works where?', works, [+text, -person, -place], [many(true)]).
:- llm('How old is {{person}}?', age, [+person, -years:int]).
:- llm('Can a {{animal}} fly?', flies, [+animal]).
```

`+` marks inputs, which the template names, and `-` outputs: one value, several, or none for whether
something holds. After a colon stands a type: `str` (which any text is), `int`, `float`, `bool`; or
a list of choices, `-kind:[kitchen, office, lab]`, which for one output are its `choices([...])`.

Where the answer is uncertain (choices, with a server that gives log-probabilities; `votes(n)`), a
call is an annotated disjunction over its answers: the same call is the same random choice,
whichever goals ask for it, and different calls are independent. With `many(true)` all answers of a
call hold.

The options are those of `byssus.llm`: `choices`, `many`, `model`, `system`, `examples` (each a list
of the inputs and then the outputs), `votes`, `calibration`, `logprobs`, `mode`, `budget` (as
`budget([calls(500), usd(2.0)])`), `settings` (as `settings([temperature(0.5)])`), `on_error`,
`timeout` and `concurrency`; and `samples`, the worlds an example where worlds are sampled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from problog.logic import is_ground, is_variable

from byssus import BlackBox, ByssusError, Discrete, Domain, DomainError
from byssus._calls import Caller
from byssus.blackbox import Checked
from byssus.llm.box import PromptBox
from byssus.llm.question import OPTIONS, Question
from byssus.worlds import check_sampling

from ._answers import Answers
from ._declarations import Anything, DeclaredBox, Made, items, output_of, read_modes, text
from ._terms import to_python

__all__ = ["LLMBox", "LLMDeclaration"]

_FORM = "llm('The template, with {{input}}.', name, [+input, ..., -output, ...])"
_TYPES = ("str", "int", "float", "bool")
_CALLING = ("on_error", "timeout", "concurrency", "samples")
_NAMED = ("budget", "settings")
"""Options whose value is a list of `name(value)`."""

Typed = tuple[str, str | tuple[Hashable, ...]]
"""An argument: its name, and its type or choices; "" where none is given."""


@dataclass(frozen=True)
class LLMDeclaration:
    """What `llm/3` or `llm/4` declares.

    Attributes:
        prompt: the template.
        name: of the predicate.
        inputs: the template's arguments.
        outputs: what it asks for.
        options: of `byssus.llm`.
    """

    prompt: str
    name: str
    inputs: tuple[Typed, ...]
    outputs: tuple[Typed, ...]
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def read(cls, arguments: Sequence[Any], folder: Path) -> LLMDeclaration:
        """Read the arguments of the directive.

        Args:
            arguments: its terms.
            folder: where its file is; of no use here.

        Raises:
            ByssusError: they are not of this form.
        """
        prompt, name, modes, *options = arguments
        inputs, outputs = (tuple(map(_typed, part)) for part in read_modes(modes, _FORM))
        listed = [argument for argument, kind in inputs if isinstance(kind, tuple)]
        if listed:
            raise ByssusError(f"{listed[0]} is an input, and choices are for outputs")
        names = [argument for argument, _ in (*inputs, *outputs)]
        twice = [argument for i, argument in enumerate(names) if argument in names[:i]]
        if twice:
            raise ByssusError(f"two arguments are called {twice[0]}: give each a name of its own")
        given = [_option(term) for part in options for term in items(part, "the options", _FORM)]
        twice = [option for i, (option, _) in enumerate(given) if option in dict(given[:i])]
        if twice:
            raise ByssusError(f"the option {twice[0]} is given twice: take one away")
        return cls(
            _unescaped(text(prompt, "template", _FORM)),
            text(name, "name", _FORM),
            inputs,
            outputs,
            tuple(given),
        )

    @property
    def samples(self) -> int | None:
        """The worlds an example that it asks for."""
        return dict(self.options).get("samples")

    def box(self) -> LLMBox:
        """The black box. Nothing is called, and no key is needed yet.

        Raises:
            ByssusError: the template, the choices or an option is wrong.
        """
        return LLMBox(self)

    def make(self) -> Made:
        """The parts of the black box."""
        options: dict[str, Any] = dict(self.options)
        calling = {name: options.pop(name) for name in _CALLING if name in options}
        samples = calling.pop("samples", 100)
        check_sampling(samples, None)
        timeout = calling.setdefault("timeout", 60.0)
        options.update((name, dict(options[name])) for name in _NAMED if name in options)
        if "examples" in options:
            options["examples"] = [self._example(shown) for shown in options["examples"]]
        fields = {
            name: Discrete(kind) if isinstance(kind, tuple) else kind or "str"
            for name, kind in self.outputs
        }
        question = Question(
            self.prompt,
            name=self.name,
            arguments=[name for name, _ in self.inputs],
            fields=fields,
            timeout=timeout,
            **options,
        )
        calling.setdefault("concurrency", question.concurrency)
        choices = question.form.choices if fields else ()
        domains = [kind if isinstance(kind, Domain) else Anything(kind) for kind in fields.values()]
        output = Discrete(choices) if choices else output_of(domains)
        inputs = tuple(Anything(str(kind)) for _, kind in self.inputs)
        caller = Caller(
            _Asked(question, inputs) if any(kind for _, kind in self.inputs) else question,
            name=self.name,
            check_output=_listed(output) if question.form.many else Checked(output.check_output),
            remote=True,
            **calling,
        )
        return Made(question, inputs, output, caller, samples)

    def _example(self, shown: Any) -> tuple[tuple[Hashable, ...], Hashable]:
        """An example as the arguments and the answer."""
        inputs, outputs = len(self.inputs), max(1, len(self.outputs))
        if not isinstance(shown, tuple) or len(shown) != inputs + (
            1 if dict(self.options).get("many") else outputs
        ):
            raise ByssusError(
                f"the example {shown!r} does not fit: give a list of the {inputs} inputs and then "
                "the outputs; with many(true), a list of answers in their place"
            )
        answer = shown[inputs:]
        return shown[:inputs], answer[0] if len(answer) == 1 else answer


class LLMBox(PromptBox, DeclaredBox):
    """A language model that a program declares."""

    declaration: LLMDeclaration


def arguments_of(box: BlackBox) -> int:
    """How many arguments a black box takes; a language model may have names, and no domains."""
    if isinstance(box.function, Question):
        return len(box.function.template.names)
    return len(box.inputs)


def is_uncertain(box: BlackBox) -> bool:
    """Whether a black box is known to give its answers with probabilities."""
    return isinstance(box.function, Question) and box.function.alternatives > 1


def gives_several(box: BlackBox) -> bool:
    """Whether all of several answers may hold."""
    return isinstance(box, LLMBox) and box.function.form.many


def most_calls(box: BlackBox) -> int | None:
    """How many calls the budget of a black box allows; None where it has none."""
    if isinstance(box.function, Question):
        limit = box.function.budget.get("calls")
        return None if limit is None else int(limit)
    return box.caller.budget


def votes(box: BlackBox) -> int:
    """How many calls are made for an argument tuple."""
    return box.function.votes if isinstance(box.function, Question) else 1


@dataclass(frozen=True)
class _Asked:
    """A question that is asked of values of rules, as its arguments' types want them."""

    question: Question
    inputs: tuple[Anything, ...]

    async def __call__(self, *arguments: Hashable) -> Any:
        values = [domain.convert(v) for domain, v in zip(self.inputs, arguments, strict=True)]
        return await self.question(*values)


def _listed(output: Domain) -> Callable[[object], Hashable]:
    """The check of a list of answers."""

    def check(answers: object) -> Answers:
        if not isinstance(answers, list | tuple):
            raise DomainError(f"{answers!r} is no list of answers")
        return Answers(tuple(dict.fromkeys(map(output.check_output, answers))))

    return check


# The terms of a directive


def _typed(term: Any) -> Typed:
    """The name and type of an argument."""
    name, kind = term.args if getattr(term, "functor", "") == "':'" else (term, None)
    if is_variable(name) or name.arity or not isinstance(to_python(name), str):
        raise ByssusError(f"{term} is no name of an argument: declare {_FORM}")
    called = str(to_python(name))
    if kind is None or str(kind) in _TYPES:
        return called, "" if kind is None else str(kind)
    values = to_python(kind) if not is_variable(kind) and is_ground(kind) else None
    if not isinstance(values, tuple):
        raise ByssusError(
            f"{kind} is no type of {called}: there are {', '.join(_TYPES)}, and lists of choices"
        )
    return called, values


def _option(term: Any) -> tuple[str, Hashable]:
    name = str(getattr(term, "functor", term))
    known = (*OPTIONS, *_CALLING)
    if name not in known or term.arity != 1 or not is_ground(term):
        raise ByssusError(
            f"{term} is no option of llm: there are "
            f"{', '.join(f'{option}(...)' for option in known)}"
        )
    (value,) = term.args
    if name in _NAMED:
        return name, tuple(map(_pair, items(value, f"{name}(...)", _FORM)))
    if name in ("choices", "examples"):
        items(value, f"{name}(...)", _FORM)
    found = to_python(value)
    return name, _unescaped(found) if name == "system" and isinstance(found, str) else found


def _pair(term: Any) -> tuple[str, Hashable]:
    if is_variable(term) or term.arity != 1:
        raise ByssusError(f"{term} is no name(value), as in budget([calls(500), usd(2.0)])")
    return str(term.functor), to_python(term.args[0])


_ESCAPES = {"n": "\n", "t": "\t"}


def _unescaped(text: str) -> str:
    """A text with the characters that stand for others put in: ProbLog leaves them as written."""
    return re.sub(r"\\([nt\\'\"])", lambda found: _ESCAPES.get(found[1], found[1]), text)
