"""The text of a program, and its faults: ProbLog's errors, with the place, a caret and the mend."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from problog.clausedb import AccessError
from problog.engine import NonGroundProbabilisticClause, UnknownClause
from problog.errors import NonGroundQuery, ProbLogError
from problog.eval_nodes import NegativeCycle
from problog.parser import ParseError

from byssus import BlackBox, ProgramError

_PARSING = {
    "Ambiguous token role": "a term is missing beside an operator, a comma or a full stop",
    "Incomplete statement": "the last clause has no full stop",
    "Unmatched character": "close it, or take it away",
    "Unexpected character": "take it away; text is put in quotes",
    "Expected binary operator": (
        "a comma or an operator is missing between two terms, or a term beside an operator, or a "
        "predicate's name starts with a capital letter (then it is a variable)"
    ),
    "Empty statement found": "take one full stop away",
}


# What these mean of the first word of a line.
_FULL_STOP = dict.fromkeys(
    ("Ambiguous token role", "Expected binary operator"),
    "a full stop is missing at the end of the clause before",
)


@dataclass(frozen=True)
class Source:
    """The text of a program, and where it came from."""

    text: str
    file: Path | None = None

    @classmethod
    def read(cls, program: str | Path) -> Source:
        """A path, or the text itself. A single line that ends in `.pl` is a path."""
        if not isinstance(program, str | Path):
            raise ProgramError(
                f"a program is a path or a text, not {type(program).__name__}: {program!r}"
            )
        if isinstance(program, Path) or ("\n" not in program and program.strip().endswith(".pl")):
            file = Path(program)
            try:
                return cls(file.read_text(encoding="utf-8"), file)
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise ProgramError(
                    f"cannot read the program {file}: {reason}; give the path of a .pl file, or "
                    "the program's text"
                ) from error
        return cls(program)

    @contextmanager
    def errors(self, boxes: Mapping[str, BlackBox]) -> Iterator[None]:
        """Turn ProbLog's errors into `ProgramError`s that show the place and the mend."""
        try:
            yield
        except ProbLogError as error:
            place = error.location if isinstance(error.location, tuple) else (None, None, None)
            file, line, column = (*place, None, None, None)[:3]
            if isinstance(error, ParseError) and line == 1:
                column += 1  # the parser's columns count from 0 in the first line, else from 1
            # `message` has the place appended; `base_message` has not.
            message = error.base_message.rstrip(".")
            mend = _mend(error, message, boxes)
            if isinstance(error, ParseError) and not self._before(line, column):
                mend = _FULL_STOP.get(message, mend)
            raise self.error(
                f"{message}: {mend}" if mend else message, line, column, file
            ) from error
        except RecursionError as error:
            raise self.error(
                "the program recurses too deep while it is grounded: does a rule call itself with "
                "ever new arguments? Bound them"
            ) from error

    def _before(self, line: int, column: int) -> str:
        """The text before a place in its line."""
        lines = self.text.splitlines()
        return lines[line - 1][: column - 1].strip() if line <= len(lines) else "?"

    def error(
        self,
        message: str,
        line: int | None = None,
        column: int | None = None,
        file: str | None = None,
    ) -> ProgramError:
        """An error at a place in this program, or in a file that it consults."""
        text = self.text
        if file is not None and (self.file is None or Path(file) != self.file.absolute()):
            text = Path(file).read_text(encoding="utf-8") if Path(file).exists() else ""
        elif self.file is not None:
            file = str(self.file)
        return ProgramError(message, file=file, line=line, column=column, text=text)


def _mend(error: ProbLogError, message: str, boxes: Mapping[str, BlackBox]) -> str | None:
    if isinstance(error, ParseError):
        return next((mend for start, mend in _PARSING.items() if message.startswith(start)), None)
    if isinstance(error, UnknownClause):
        return _mend_unknown(message, boxes)
    if isinstance(error, NonGroundProbabilisticClause):
        return (
            "a variable of this clause has no value when it is used; put the goals that bind it "
            "before the call, and the inputs of a network before its use"
        )
    if isinstance(error, NonGroundQuery):
        return "every variable of a rule's head must get a value in its body"
    if isinstance(error, AccessError) and (found := re.search(r"'(.*)/\d+'", message)):
        if found[1] in boxes:
            return "a black box has this name; rename one of the two"
        return "give the predicate another name"
    if isinstance(error, NegativeCycle):
        return "a predicate depends on its own negation, which has no meaning here"
    return None


def _mend_unknown(message: str, boxes: Mapping[str, BlackBox]) -> str:
    found = re.search(r"'(.*)/(\d+)'", message)
    name, arity = (found[1].strip("'"), int(found[2])) if found else ("", 0)
    if name == "->":
        return "ProbLog has no if-then-else; write a clause for each case"
    if name in boxes:
        count = len(boxes[name].inputs)
        return (
            f"the black box {name} takes {count} arguments and gives its answer as one more, so "
            f"call it with {count + 1}, not with {arity}"
        )
    close = difflib.get_close_matches(name, boxes, 1)
    if close:
        return f"is the black box {close[0]} meant?"
    return "define it, mend its name or number of arguments, or give it as a black box"
