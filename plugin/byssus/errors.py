"""What can go wrong, one class a rule; each message names the offending value and the mend."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = [
    "BlackBoxError",
    "BlackBoxOutputError",
    "BlackBoxTimeout",
    "BudgetExceeded",
    "ByssusError",
    "CacheError",
    "CallRefused",
    "CompilationLimit",
    "ConceptError",
    "DomainError",
    "EmptyBatchError",
    "LLMError",
    "NondeterministicError",
    "ProbabilityError",
    "ProgramError",
    "ReplayMiss",
    "SettingsError",
    "ShapeError",
    "TargetError",
]


_WIDTH = 160
"""So much of a line of a program is shown."""


class ByssusError(Exception):
    """The root of every error that byssus raises."""


class DomainError(ByssusError, ValueError):
    """A value that its domain does not hold, or a domain that cannot be."""


class ShapeError(ByssusError, ValueError):
    """A tensor whose shape does not fit the concept that it describes."""


class EmptyBatchError(ShapeError):
    """A batch of no examples."""


class ProbabilityError(ByssusError, ValueError):
    """Probabilities that are negative, not finite, or do not sum to one."""


class ConceptError(ByssusError, KeyError):
    """A concept that the program does not have, or one that was not given."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; ours is a sentence.
        return str(self.args[0])


class TargetError(ByssusError, ValueError):
    """A target that is no output, or that does not fit the batch."""


class CompilationLimit(ByssusError):  # noqa: N818
    """A circuit that outgrew its limit of nodes, seconds or memory.

    Attributes:
        limit: which one: "nodes", "seconds" or "memory".
        reached: how far it got, in words.
    """

    def __init__(self, message: str, *, limit: str = "", reached: str = "") -> None:
        super().__init__(message)
        self.limit, self.reached = limit, reached


class CallRefused(ByssusError):  # noqa: N818
    """A call that was not made. It is no failed call, so `on_error=` has no say in it."""


class BudgetExceeded(CallRefused):
    """A call that would exceed the budget of its black box; raised before the call."""


class SettingsError(CallRefused):
    """Settings of a language model that are missing or wrong: no key, a fault in byssus.toml."""


class ReplayMiss(CallRefused):
    """An answer that is not in the cache, where `mode="replay"` makes no calls."""


class CacheError(CallRefused):
    """A cache of answers that cannot be read or written."""


class LLMError(ByssusError):
    """A language model that gave no answer, or one that does not fit what was asked."""


class BlackBoxError(ByssusError):
    """A black box that raised.

    Attributes:
        name: the black box.
        arguments: the argument tuple that it was called on.
        cause: the exception, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        name: str,
        arguments: tuple[Any, ...],
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.name = name
        self.arguments = arguments
        self.cause = cause

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), self.name, self.arguments, self.cause)


def _rebuild(
    cls: type[BlackBoxError],
    message: str,
    name: str,
    arguments: tuple[Any, ...],
    cause: BaseException | None,
) -> BlackBoxError:
    return cls(message, name=name, arguments=arguments, cause=cause)


class BlackBoxTimeout(BlackBoxError):  # noqa: N818
    """A black box that did not answer in time."""


class BlackBoxOutputError(BlackBoxError):
    """A black box that returned something outside its output domain."""


class NondeterministicError(BlackBoxError):
    """A black box that answered one argument tuple in two ways."""


class ProgramError(ByssusError):
    """A fault in the text of a program.

    Attributes:
        file: the program's file, or None for a string.
        line: the line, counted from 1, or None where it is not known.
        column: the column, counted from 1, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        text: str | None = None,
    ) -> None:
        self.file, self.line, self.column = file, line, column
        super().__init__(message + _excerpt(file, line, column, text))


def _excerpt(file: str | None, line: int | None, column: int | None, text: str | None) -> str:
    """Say where: file, line and column; and show the line with a caret under the spot."""
    if line is None:
        return "" if file is None else f"\n  in {file}"
    where = f"\n  {file or '<program>'}, line {line}"
    lines = [] if text is None else text.split("\n")
    if not 0 < line <= len(lines):
        return where
    shown = lines[line - 1].rstrip()
    if column is None:
        return f"{where}\n    {shown[:_WIDTH]}"
    # Of a long line, the part around the spot.
    start = max(0, column - _WIDTH // 2) if len(shown) > _WIDTH else 0
    shown = ("..." if start else "") + shown[start : start + _WIDTH]
    where += f", column {column}"
    column += 3 * (start > 0) - start
    indent = "".join(c if c == "\t" else " " for c in shown[: column - 1]).ljust(column - 1)
    return f"{where}\n    {shown}\n    {indent}^"


def listed(values: Iterable[Any], limit: int = 12) -> str:
    """Values for a message: their reprs, cut after `limit`."""
    shown = [repr(v) for _, v in zip(range(limit + 1), values, strict=False)]
    return ", ".join(shown[:limit]) + (", ..." if len(shown) > limit else "")
