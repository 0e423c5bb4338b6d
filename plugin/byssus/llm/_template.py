"""Prompt templates: the text of a question, with places for its arguments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from byssus.errors import DomainError, listed

__all__ = ["Template", "harmless"]

# What chat formats mark turns with. Servers put messages into one text and read these as control
# tokens, wherever they come from.
_CONTROL = re.compile(
    r"<\||\|>|<｜|｜>|\[\||\|\]|</?s>|<</?SYS>>|</?(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|"
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT)\]",
    re.IGNORECASE,
)

_SURROGATE = re.compile("[\ud800-\udfff]")

# What a template's own expressions raise.
_RAISED = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)

# In a template these are never an argument.
_TAKEN = {"self", "true", "false", "none", "True", "False", "None"}


def harmless(text: str) -> str:
    """The text with what servers would read as control tokens broken up by a space."""
    while (broken := _CONTROL.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)) != text:
        text = broken
    return text


class Template:
    """A text in Jinja's language: `{{name}}` is the argument of this name.

    Arguments are put in as they are, and never read as a template themselves; a tuple or list is
    joined by commas, and a truth value is `true` or `false`. Control tokens of chat formats are
    broken up in the result, see `harmless`.

    Args:
        text: the template.
        names: of the arguments.

    Raises:
        DomainError: the text is no template, or names an argument that there is not.
    """

    def __init__(self, text: str, names: Sequence[str]) -> None:
        if not isinstance(text, str) or not text.strip():
            raise DomainError(
                f"the prompt is {text!r}: give a text, with {{{{name}}}} for arguments"
            )
        self.text = text
        self.names = tuple(names)
        for i, name in enumerate(self.names):
            if not isinstance(name, str) or name in _TAKEN or name in self.names[:i]:
                raise DomainError(
                    f"{name!r} cannot name argument {i}: it is no text, another's, or Jinja's own"
                )
        found = self.variables(text)
        unknown = [name for name in found if name not in self.names]
        if unknown:
            there = f"there are {', '.join(self.names)}" if self.names else "there are none"
            raise DomainError(
                f"the prompt names {{{{{unknown[0]}}}}}, which is no argument of it; {there}"
            )

    @staticmethod
    def variables(text: str) -> list[str]:
        """The names that a template uses, in the order in which they first appear.

        Raises:
            DomainError: the text is no template.
        """
        from jinja2 import TemplateSyntaxError, meta

        try:
            used = meta.find_undeclared_variables(_environment().parse(text))
        except TemplateSyntaxError as error:
            raise DomainError(
                f"the prompt {text!r} is no template: {error.message}, line {error.lineno}; write "
                "{{name}} for an argument"
            ) from error

        def place(name: str) -> int:
            found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)
            return found.start() if found else len(text)

        return sorted(used, key=lambda name: (place(name), name))

    def render(self, values: Sequence[Any]) -> str:
        """The text with these values for the arguments.

        Raises:
            DomainError: there are not as many as arguments, or the template fails on them.
        """
        from jinja2 import TemplateError

        if len(values) != len(self.names):
            raise DomainError(
                f"the prompt takes {len(self.names)} arguments ({', '.join(self.names)}), and got "
                f"{len(values)}: {listed(values)}"
            )
        try:
            text: str = self._compiled.render(dict(zip(self.names, values, strict=True)))
        except (TemplateError, *_RAISED) as error:
            raise DomainError(
                f"the prompt {self.text!r} fails on {listed(values)}: {error}"
            ) from error
        if (found := _SURROGATE.search(text)) is not None:
            raise DomainError(f"{found[0]!r} in {listed(values)} is half a character: no text")
        return harmless(text)

    @cached_property
    def _compiled(self) -> Any:
        return _environment().from_string(self.text)

    def __getstate__(self) -> dict[str, Any]:
        return {"text": self.text, "names": self.names}


def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, finalize=_shown, keep_trailing_newline=True
    )


def _shown(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return ", ".join(str(_truth(one)) for one in value)
    return _truth(value)


def _truth(value: Any) -> Any:
    """A truth value as programs write it, where it may be a text that a model has answered."""
    return str(value).lower() if isinstance(value, bool) else value
