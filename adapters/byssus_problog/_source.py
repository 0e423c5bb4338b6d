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
from problog.engine_builtin import CallModeError, IndirectCallCycleError
from problog.engine_unify import OccursCheck
from problog.errors import NonGroundQuery, ProbLogError
from problog.eval_nodes import NegativeCycle
from problog.parser import ParseError
from problog.program import LogicProgram

from byssus import BlackBox, ByssusError, ProgramError

from ._tokens import Touched
from .llms import arguments_of

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
    "Operator priority clash": "put the inner term in brackets",
}

_MENDS: dict[type[ProbLogError], str] = {
    CallModeError: (
        "where a variable has no value, put the goals that bind it before this one; else it is a "
        "value of another kind"
    ),
    IndirectCallCycleError: "an aggregate is over what depends on it; take another predicate",
    NegativeCycle: "a predicate depends on its own negation, which has no meaning here",
    OccursCheck: "a variable stands for a term that it is part of; take another variable",
}

_GROUNDING = {
    "Unknown function": "compute it in rules, or in Python as a black box",
    "Non-probabilistic head": "give each option of a disjunction its probability",
    "Unexpected clause head": "a head is a predicate with arguments; is an operator in it meant?",
}

_LIBRARIES = {
    "lists": (
        "memberchk member append prefix select selectchk nextto delete nth0 nth1 last reverse "
        "same_length proper_length permutation flatten max_member min_member sum_list max_list "
        "min_list numlist is_set list_to_set intersection union subset subtract enum_groups "
        "select_uniform select_weighted"
    ),
    "apply": "maplist foldl include exclude partition convlist scanl foldl_noinit",
    "string": "concat join sub_string str2lst lst2str str2int",
    "assert": "assertz retract retractall",
    "aggregate": "aggregate avg sum",
    "collect": "=>",
    "control": "on_fail",
    "record": "recorda recordz recorded erase instance current_key",
    "db": "sqlite_load csv_load",
}

_OTHER_PROLOGS = {
    "ProbLog has no if-then-else; write a clause for each case": "-> *->",
    "ProbLog has no cut; write clauses that exclude one another": "!",
    "take assertz/1 of library(assert)": "assert asserta",
    "take findall/3, or all/3": "setof bagof aggregate_all",
    "take sort/2": "msort predsort keysort list_to_ord_set",
    "take concat/2 of library(string)": "atom_concat string_concat atomic_list_concat",
    "take write/1": "format print print_message tab",
    "take the directive away; ProbLog tables every predicate, and none needs a declaration": (
        "dynamic discontiguous multifile table set_prolog_flag style_check garbage_collect"
    ),
    "write the goal itself as a directive": "initialization",
    "take consult/1 or use_module/1": "ensure_loaded include load_files",
    "it is SWI-Prolog's; write it in rules, or in Python as a black box": (
        "atom_codes atom_chars atom_string atom_length atom_to_term char_code number_codes "
        "number_string number_vars string_chars string_codes string_code string_length "
        "string_lower string_upper string_to_atom split_string sub_atom term_to_atom term_string "
        "copy_term nb_setval nb_getval b_setval b_getval catch throw ignore repeat halt listing "
        "read read_term open close nl phrase tabling pairs_keys_values sumlist succ_or "
        "random random_between get_time with_output_to setup_call_cleanup dict_pairs assoc"
    ),
}
_DIRECTIVE = re.compile(r"\s*:-\s*(table|dynamic|discontiguous|multifile|initialization)\s")
_GRAMMAR = "ProbLog has no grammar rules (-->); write clauses over lists"

# What these mean of the first word of a line.
_FULL_STOP = dict.fromkeys(
    ("Ambiguous token role", "Expected binary operator"),
    "a full stop is missing at the end of the clause before",
)


@dataclass(frozen=True)
class Source:
    """The text of a program, and where it came from; or its clauses."""

    text: str
    file: Path | None = None
    clauses: LogicProgram | None = None

    @classmethod
    def read(cls, program: str | Path | LogicProgram) -> Source:
        """A path, the text itself, or clauses. A single line that ends in `.pl` is a path."""
        if isinstance(program, LogicProgram):
            return cls("", None, program)
        if not isinstance(program, str | Path):
            raise ProgramError(
                f"a program is a path, a text or a LogicProgram, not {type(program).__name__}: "
                f"{program!r}"
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
            if isinstance(error, ParseError):
                text = self._line(line, file)
                if not text[: column - 1].strip():
                    mend = _FULL_STOP.get(message, mend)
                if _DIRECTIVE.match(text):
                    mend = _mend_unknown("'dynamic/1'", {})
            if isinstance(error, UnknownClause) and "-->" in self.text:
                mend = f"{mend}. {_GRAMMAR}"
            raise self.error(
                f"{message}: {mend}" if mend else message, line, column, file
            ) from error
        except RecursionError as error:
            raise self.error(
                "the program recurses too deep while it is grounded: does a rule call itself with "
                "ever new arguments? Bound them"
            ) from error
        except (ByssusError, Touched, Warning):
            raise
        except Exception as error:  # of ProbLog, which does not foresee every program
            raise self.error(
                f"ProbLog fails on this program, {type(error).__name__}: {error}"
            ) from error

    def _line(self, number: int, file: str | None) -> str:
        lines = self._text(file).splitlines()
        return lines[number - 1] if number <= len(lines) else "?"

    def _text(self, file: str | None) -> str:
        """The text of this program, or of a file that it consults."""
        if file is None or (self.file is not None and Path(file) == self.file.absolute()):
            return self.text
        return Path(file).read_text(encoding="utf-8") if Path(file).exists() else ""

    def error(
        self,
        message: str,
        line: int | None = None,
        column: int | None = None,
        file: str | None = None,
    ) -> ProgramError:
        """An error at a place in this program, or in a file that it consults."""
        text = self._text(file)
        if self.file is not None and (file is None or Path(file) == self.file.absolute()):
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
    return next((mend for kind, mend in _MENDS.items() if isinstance(error, kind)), None) or next(
        (mend for part, mend in _GROUNDING.items() if part in message), None
    )


def _mend_unknown(message: str, boxes: Mapping[str, BlackBox]) -> str:
    found = re.search(r"'(.*)/(\d+)'", message)
    name, arity = (found[1].strip("'"), int(found[2])) if found else ("", 0)
    for library, names in _LIBRARIES.items():
        if name in names.split():
            return f"add `:- use_module(library({library})).`"
    for mend, names in _OTHER_PROLOGS.items():
        if name in names.split():
            return mend
    if name in boxes:
        count = arguments_of(boxes[name])
        return (
            f"the black box {name} takes {count} arguments and gives its answer as one more, so "
            f"call it with {count + 1}, not with {arity}"
        )
    close = difflib.get_close_matches(name, boxes, 1)
    if close:
        return f"is the black box {close[0]} meant?"
    return "define it, mend its name or number of arguments, or give it as a black box"
