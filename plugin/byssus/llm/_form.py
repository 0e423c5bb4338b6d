"""The form of answers: what a model is asked for, and what its replies say."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from enum import EnumMeta
from typing import Any

from byssus.domains import Boolean, Discrete, Domain, Float, Integer
from byssus.errors import DomainError, LLMError, listed

__all__ = ["Form", "Token"]

Token = tuple[str, float, list[tuple[str, float]]]
"""A token of a reply, its log-probability, and those of the likeliest tokens in its place.

Bytes that are no text by themselves are surrogates, as of `errors="surrogateescape"`.
"""

_KINDS = {
    "string": "string",
    "str": "string",
    "integer": "integer",
    "int": "integer",
    "number": "number",
    "float": "number",
}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
}
_ANSWER = "answer"
_ANSWERS = "answers"


class _Field:
    """One value of an answer.

    Attributes:
        choices: what it may be, by the text that stands for it; empty where that is open.
        schema: its JSON schema.
    """

    def __init__(self, name: str, what: Any, choices: Any) -> None:
        self.name = name
        self.choices: dict[str, Hashable] = {}
        self._domain: Domain | None = what if isinstance(what, Domain) else None
        self._kind = "string"
        if choices is not None:
            self._choose(_listed(choices))
        elif isinstance(what, Boolean) or what in (bool, "bool", "boolean"):
            self.choices = {"yes": True, "no": False}
        elif isinstance(what, Integer) and (what.size or 0) > _FEW:
            self._kind = "integer"
        elif isinstance(what, Float):
            self._kind = "number"
        elif isinstance(what, Discrete | Integer):
            self._choose(what.values)
        else:
            word = what if isinstance(what, str) else getattr(what, "__name__", repr(what))
            if word not in _KINDS:
                raise DomainError(
                    f"{name} is of type {word}, which no answer has: give str, int, float, bool, "
                    "or a Discrete, Integer, Boolean or Float"
                )
            self._kind = _KINDS[word]
        self.schema: dict[str, Any] = {"type": self._kind}
        if self.choices:
            self.schema = {"type": "string", "enum": list(self.choices)}
        elif isinstance(what, Integer):
            self.schema |= {"minimum": what.values[0], "maximum": what.values[-1]}

    def _choose(self, values: Sequence[Hashable]) -> None:
        if not values:
            raise DomainError(f"{self.name} has no choices: give at least one")
        for value in values:
            text = _text(value)
            if any("\ud800" <= c <= "\udfff" for c in text):
                raise DomainError(f"the choice {value!r} of {self.name} has half a character")
            if not text.strip() or _plain(text) in map(_plain, self.choices):
                raise DomainError(
                    f"the choices of {self.name} are {listed(values)}, and {value!r} cannot be "
                    "told from another: give each a text of its own"
                )
            self.choices[text] = value

    @property
    def open_text(self) -> bool:
        """Whether it is any text."""
        return not self.choices and self._kind == "string"

    def read(self, value: Any) -> Any:
        """The value that a part of a reply stands for.

        Raises:
            LLMError: it is none.
        """
        if self.choices:
            found = {_plain(text): choice for text, choice in self.choices.items()}
            if isinstance(value, bool) and set(map(type, self.choices.values())) == {bool}:
                return value
            key = _plain(_text(value)) if isinstance(value, Hashable) else None
            if key not in found:
                raise LLMError(
                    f"{_cut(value)} is none of the choices of {self.name}, {listed(self.choices)}"
                )
            return found[key]
        if isinstance(value, bool) or not isinstance(value, _TYPES[self._kind]):
            raise LLMError(f"{_cut(value)} is no {self._kind}, as {self.name} is to be")
        if isinstance(value, int | float) and self._kind == "number":
            if not math.isfinite(value):
                raise LLMError(f"{value!r} is no number, as {self.name} is to be")
            value = float(value)
        if self._domain is not None:
            try:
                return self._domain.check_output(value)
            except DomainError as error:
                raise LLMError(f"{_cut(value)} is no {self.name}: {error}") from None
        return value


class Form:
    """What is asked for: one value, several by name, whether something holds; once or many times.

    Args:
        fields: the names of the values and what they are: a `Domain`, or str, int, float or bool,
            or their names in JSON schema. None at all: whether something holds.
        choices: what the one value may be: a list, an `enum.Enum`, a finite `Domain`.
        many: whether an answer is a list.

    Raises:
        DomainError: they do not fit together.
    """

    def __init__(self, fields: Mapping[str, Any], choices: Any = None, many: bool = False) -> None:
        if choices is not None and len(fields) != 1:
            raise DomainError(
                f"choices= are for one value, and this asks for {len(fields)}: give those of each "
                "as a Discrete, or ask for one"
            )
        if many and not fields:
            raise DomainError("many= is for values, and this asks whether something holds")
        self.test = not fields
        self.many = many
        named = fields or {_ANSWER: bool}
        self.fields = [_Field(name, what, choices) for name, what in named.items()]

    @property
    def choices(self) -> list[Hashable]:
        """The values that an answer is one of, or none where that is open."""
        if self.many or len(self.fields) > 1:
            return []
        return list(self.fields[0].choices.values())

    @property
    def text(self) -> bool:
        """Whether an answer is the whole text of a reply."""
        return not self.many and len(self.fields) == 1 and self.fields[0].open_text

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema of a reply; None where it is text."""
        if self.text:
            return None
        names = [_ANSWER] if len(self.fields) == 1 else [field.name for field in self.fields]
        schemas = [field.schema for field in self.fields]
        one = _object(dict(zip(names, schemas, strict=True)))
        if not self.many:
            return one
        items = schemas[0] if len(self.fields) == 1 else one
        return _object({_ANSWERS: {"type": "array", "items": items}})

    def instruction(self, style: str) -> str | None:
        """What the model is told of the form; None where there is nothing to tell.

        Args:
            style: the model's `format` setting.
        """
        if self.text:
            return None
        if style == "text" and self.choices:
            return f"Answer with exactly one of these, and nothing else: {self._offered}."
        if style != "json_schema":
            return (
                "Answer with one JSON object and nothing else, of this JSON schema: "
                f"{json.dumps(self.schema, ensure_ascii=False)}"
            )
        return f"Answer with exactly one of: {self._offered}." if self.choices else None

    @property
    def _offered(self) -> str:
        return ", ".join(self.fields[0].choices)

    @property
    def length(self) -> int:
        """The tokens that a reply may take, where nobody says."""
        if not self.choices:
            return 1024 if self.many else 256
        return 40 + max(len(text.encode()) for text in self.fields[0].choices)

    def example(self, answer: Any, style: str) -> str:
        """A reply with this answer.

        Raises:
            DomainError: it is no answer.
        """
        if self.text:
            return str(answer)
        answers = list(answer) if self.many and isinstance(answer, list | tuple) else [answer]
        rows = []
        for one in answers:
            if len(self.fields) > 1 and isinstance(one, Mapping):
                one = tuple(one.get(field.name) for field in self.fields)
            values = one if len(self.fields) > 1 else (one,)
            if not isinstance(values, tuple | list) or len(values) != len(self.fields):
                raise DomainError(f"the example answer {one!r} has not {len(self.fields)} values")
            row = []
            for field, value in zip(self.fields, values, strict=True):
                known = {choice: text for text, choice in field.choices.items()}
                shown = known.get(value, value) if isinstance(value, Hashable) else value
                try:
                    field.read(shown)
                except LLMError as error:
                    raise DomainError(f"an example has the answer {answer!r}: {error}") from None
                row.append(_text(shown) if field.choices else shown)
            rows.append(row)
        if style == "text" and self.choices:
            return str(rows[0][0])
        names = [_ANSWER] if len(self.fields) == 1 else [field.name for field in self.fields]
        objects = [dict(zip(names, row, strict=True)) for row in rows]
        if not self.many:
            return json.dumps(objects[0], ensure_ascii=False)
        items = [row[0] for row in rows] if len(self.fields) == 1 else objects
        return json.dumps({_ANSWERS: items}, ensure_ascii=False)

    def read(self, content: str) -> Any:
        """The answer of a reply: a value, a tuple of values, or a list of those.

        Raises:
            LLMError: it is none.
        """
        if self.text:
            if not content.strip():
                raise LLMError("it is empty")
            return content.strip()
        if self.choices:
            try:
                return self.fields[0].read(content)  # bare, from a server that knows no schemas
            except LLMError:
                if "{" not in content:
                    raise
        reply = _json(content)
        if not self.many:
            return self._row(reply)
        rows = reply.get(_ANSWERS) if isinstance(reply, dict) else reply
        if not isinstance(rows, list):
            raise LLMError(f"{_cut(reply)} has no list {_ANSWERS!r}")
        if len(self.fields) > 1:
            return [self._row(row) for row in rows]
        return [self.fields[0].read(row) for row in rows]

    def _row(self, reply: Any) -> Any:
        if not isinstance(reply, dict):
            raise LLMError(f"{_cut(reply)} is no JSON object")
        names = [_ANSWER] if len(self.fields) == 1 else [field.name for field in self.fields]
        missing = [name for name in names if name not in reply]
        if missing:
            raise LLMError(f"{_cut(reply)} has no {missing[0]!r}")
        values = [f.read(reply[name]) for f, name in zip(self.fields, names, strict=True)]
        return values[0] if len(values) == 1 else tuple(values)

    def chances(self, tokens: Sequence[Token]) -> dict[Hashable, float] | None:
        """How likely each choice is by the log-probabilities of a reply; None if they do not say.

        The reply is followed token by token. At each, what the likeliest tokens in its place would
        have begun is set against the choices: the probability of a token that only one choice can
        begin with is that choice's; of one that several can (and that was not taken) it is shared
        between them. What begins no choice is left out, and the rest scaled to sum to one. A choice
        that is not among the likeliest tokens has probability 0.
        """
        taken = b"".join(_bytes(token) for token, _, _ in tokens)
        start, end = self._place(taken)
        texts = [_encoded(text, as_json=end is not None) for text in self.fields[0].choices]
        wanted = [text + (end or b"") for text in texts]
        mass = [0.0] * len(wanted)
        path, place = 0.0, 0
        for token, logprob, top in tokens:
            own = _bytes(token)
            place += len(own)
            if place <= start:
                continue
            # What the reply had of the choice before this token, and this token of what is before.
            before = taken[start : max(start, place - len(own))]
            shared = taken[min(start, place - len(own)) : start] if not before else b""
            if not _fitting(before + own[len(shared) :], wanted, exact=end is not None):
                return None
            for other, lp in ({_bytes(other): lp for other, lp in top} | {own: logprob}).items():
                if not other.startswith(shared):
                    continue  # another beginning of the whole reply
                fits = _fitting(before + other[len(shared) :], wanted, exact=end is not None)
                if other == own and len(fits) > 1:
                    continue  # the next tokens decide
                for i in fits:
                    mass[i] += math.exp(path + lp) / len(fits)
            path += logprob
            if len(_fitting(taken[start:place], wanted, exact=end is not None)) == 1:
                break
        else:  # it ended with a choice with which another begins
            whole = taken[start:].strip().lower()
            for i in [i for i, text in enumerate(texts) if text.lower() == whole]:
                mass[i] += math.exp(path)
        total = sum(mass)
        if not 0 < total < math.inf:
            return None
        values = self.fields[0].choices.values()
        return {value: p / total for value, p in zip(values, mass, strict=True)}

    def _place(self, taken: bytes) -> tuple[int, bytes | None]:
        """Where the choice begins in a reply, and what ends it."""
        found = re.search(rb'"' + _ANSWER.encode() + rb'"\s*:\s*"', taken)
        if found:
            return found.end(), b'"'
        return len(taken) - len(taken.lstrip(b" \t\r\n\"'`*")), None


_FEW = 64
"""An integer of at most so many values is a choice."""


def _fitting(begun: bytes, wanted: Sequence[bytes], *, exact: bool) -> list[int]:
    """Which texts a reply can be that begins like this; more may follow it if not `exact`."""
    begun = begun.lower()
    lower = [w.lower() for w in wanted]
    if exact:
        return [i for i, w in enumerate(lower) if w.startswith(begun) or begun.startswith(w)]
    begins = [i for i, w in enumerate(lower) if w.startswith(begun)]
    whole = [i for i, w in enumerate(lower) if begun.startswith(w) and w != begun]
    # "living room." is not "living", and "10" is not "1": of whole texts the longest counts.
    return begins + ([] if begins else sorted(whole, key=lambda i: -len(lower[i]))[:1])


def _encoded(text: str, *, as_json: bool) -> bytes:
    return (json.dumps(text, ensure_ascii=False)[1:-1] if as_json else text).encode()


def _bytes(token: str) -> bytes:
    return token.encode("utf-8", "surrogateescape")


def calibrated(chances: Mapping[Hashable, float], temperature: float) -> dict[Hashable, float]:
    """Probabilities to the power of 1 / temperature, scaled to sum to one."""
    largest = max(chances.values())
    powers = {value: (p / largest) ** (1 / temperature) for value, p in chances.items()}
    total = sum(powers.values())
    return {value: p / total for value, p in powers.items()}


def frequencies(answers: Iterable[Hashable]) -> dict[Hashable, float]:
    """How often each answer was given."""
    counts = Counter(answers)
    return {value: count / counts.total() for value, count in counts.items()}


def _listed(choices: Any) -> tuple[Hashable, ...]:
    if isinstance(choices, EnumMeta):
        return tuple(choices)
    if isinstance(choices, Domain):
        if not choices.finite:
            raise DomainError(f"choices={choices!r} has no list of values")
        return choices.values
    if isinstance(choices, str) or not isinstance(choices, Iterable):
        raise DomainError(f"choices={choices!r}: give a list, an Enum or a Domain")
    return tuple(choices)


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))


def _plain(text: str) -> str:
    """What a text is compared by: without case, quotes and what stands around it."""
    return text.strip().strip("\"'`*").rstrip(".!").strip().casefold()


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


_FENCED = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)


def _json(content: str) -> Any:
    text = content.strip()
    if fenced := _FENCED.match(text):
        text = fenced[1]
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LLMError(f"{_cut(content)} is no JSON: {error}") from None


def _cut(value: Any, limit: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "..."
