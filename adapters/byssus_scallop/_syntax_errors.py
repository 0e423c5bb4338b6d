"""Syntax errors in words: what was found, what could stand there, and the likely mend."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

from lark import Lark, Token, UnexpectedCharacters, UnexpectedToken
from lark.lexer import PatternStr

from byssus import ProgramError

from ._syntax import Source, Span

__all__ = ["bracket_fault", "unexpected_characters", "unexpected_token"]

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_DECLARATIONS = frozenset({"IMPORT", "EXTERN", "TYPE", "CONST", "REL", "QUERY"})
_WORDS = (
    "import extern type const rel relation query case is if then else new bound free exists "
    "forall not and or implies where in as true false"
)
_KEYWORDS = frozenset(_WORDS.split())

_CONSTANT = frozenset(
    {"INT", "FLOAT", "BOOL", "CHAR", "STRING", "SYMBOL", "DATETIME", "DURATION", "MINUS"}
)
_EXPRESSION = _CONSTANT | {
    *("NAME", "LPAR", "PLUS", "BANG", "WILDCARD", "DOLLAR", "NEW", "IF", "QUANTIFIER")
}
_OPERATOR = frozenset(
    {
        *("PLUS", "MINUS", "STAR", "SLASH", "PERCENT", "LESS", "GREATER", "COMPARISON", "BOOLEAN"),
        *("AS", "QMARK", "IN"),
    }
)
_UNREADABLE = "UNREADABLE"
_UNCLOSED_STRING = "this string is not closed; end it with the quotes that it starts with"
# What stands for many tokens: the words, the token that tells, and all that it covers.
_GROUPS: tuple[tuple[str, frozenset[str], frozenset[str]], ...] = (
    ("a formula", frozenset({"NOT"}), _EXPRESSION | {"NOT", "CASE"}),
    ("an expression", frozenset({"NEW"}), _EXPRESSION),
    ("a constant", frozenset({"INT"}), _CONSTANT),
    ("a type", frozenset({"PRIMITIVE"}), frozenset({"PRIMITIVE", "NAME", "ADORNMENT"})),
    ("`(`", frozenset({"LPAR"}), frozenset({"LPAR", "LSQB", "BANG", "_TYPE_OPEN"})),
    ("an operator", _OPERATOR, _OPERATOR),
    ("`:=`", frozenset({"ASSIGN"}), frozenset({"ASSIGN", "EQUAL"})),
    ("`and`", frozenset({"_AND"}), frozenset({"_AND"})),
    ("`or`", frozenset({"_OR"}), frozenset({"_OR", "_IMPLIES"})),
    ("a declaration", frozenset({"QUERY"}), _DECLARATIONS | {"AT", "$END"}),
)
_NAMES = {
    "$END": "the end",
    "NAME": "a name",
    "STRING": "a string",
    "REL": "`rel`",
    "RANGE": "`..`",
}
# Operators of other languages, as the two tokens that they are read as.
_MISREAD = {
    "<>": "not equal is written `!=`",
    "=<": "at most is written `<=`",
    "===": "equal is written `==`",
    "!==": "not equal is written `!=`",
}


def unexpected_token(source: Source, lark: Lark, error: UnexpectedToken) -> ProgramError:
    """The error for a token that cannot stand where it stands."""
    tokens = _lexed(lark, source)
    before = [t for t in tokens if _end(t) <= _start(error.token)]
    token = error.token
    if token.type == "$END":
        before = tokens
        end = _end(tokens[-1]) if tokens else 0
        token = Token("$END", "", start_pos=end, end_pos=end)
    place = Span(source, _start(token), _end(token))
    unclosed = _unclosed_comment(source, place.start) or _unclosed_string(source, before, token)
    if unclosed is not None:
        return unclosed
    brackets = _bracket_fault(source, tokens, place.line)
    if brackets is not None:
        return brackets
    expected = frozenset(error.accepts)
    found = _found(token)
    hint = _hint(source, token, before, expected)
    return place.error(
        f"expected {_listed(lark, expected)}, found {found}" + (f"; {hint}" if hint else "")
    )


def unexpected_characters(source: Source, error: UnexpectedCharacters) -> ProgramError:
    """The error for a character with which nothing can start."""
    text, start = source.text, cast(int, error.pos_in_stream)
    place = Span(source, start, start + 1)
    character, before, line = text[start], text[:start], text[start:].split("\n", 1)[0]
    if character == '"':
        if before.endswith('""'):
            place = Span(source, start - 2, start + 1)
        return place.error(_UNCLOSED_STRING)
    if character == "'":
        if re.match(r"'[^']*'", line):
            return place.error(
                "single quotes hold exactly one character; write a string in double quotes"
            )
        return place.error("this character is not closed; write it as `'c'`")
    if character == "." and before[-1:].isdigit():
        hint = "a float has digits after its point: `1.0`"
    elif character == "." and not line[1:].strip():
        hint = "no full stop ends a declaration; take it away"
    elif character == "#":
        hint = "a comment starts with `//`"
    elif character == "&":
        hint = "write `and` between formulas, `&&` between values"
    elif character == "\\":
        hint = "negation is written `not`, disjunction `or`, conjunction `and`"
    elif character in "“”„«»‘’`":
        hint = 'a string stands in straight double quotes: `"..."`'
    elif character.isalpha():
        hint = (
            "names are made of the letters a to z and A to Z, digits and `_`; other text stands in "
            "double quotes"
        )
    else:
        hint = "take it away, or put the text that it belongs to in double quotes"
    return place.error(f"{character!r} has no meaning here; {hint}")


def bracket_fault(source: Source, lark: Lark, line: int) -> ProgramError | None:
    """The error for a bracket that is not closed, or closes nothing, if it explains another.

    Args:
        source: the program.
        lark: its parser.
        line: where the other error was found.
    """
    return _bracket_fault(source, _lexed(lark, source), line)


def _bracket_fault(source: Source, tokens: Sequence[Token], line: int) -> ProgramError | None:
    opened: list[Token] = []
    for token in tokens:
        if token in _CLOSING:
            opened.append(token)
            continue
        if token.type == _UNREADABLE or (_runs_over(token) and _last_line(source, token) >= line):
            return None
        closes = token in _CLOSING.values()
        if closes and opened and _CLOSING[opened[-1]] == token:
            opened.pop()
            continue
        if not closes and not (opened and token.type in _DECLARATIONS):
            continue
        place = Span(source, _start(token), _end(token))
        if place.line < line:
            return None
        if opened:
            return _unclosed(source, opened[-1], line, f"{_found(token)} in line {place.line}")
        if place.line > line:
            return None
        return place.error(f"this `{token}` closes nothing; take it away, or open a bracket before")
    return _unclosed(source, opened[-1], line, "the end of the text") if opened else None


def _unclosed(source: Source, token: Token, line: int, found: str) -> ProgramError | None:
    place = Span(source, _start(token), _end(token))
    if place.line > line:
        return None
    return place.error(
        f"this `{token}` is not closed; `{_CLOSING[token]}` must come before {found}"
    )


def _unclosed_comment(source: Source, start: int) -> ProgramError | None:
    # The lexer reads a comment without an end as the operators `/` and `*`.
    for opening in (start - 1, start):
        if opening >= 0 and source.text.startswith("/*", opening):
            return Span(source, opening, opening + 2).error(
                "this comment is not closed; end it with `*/`"
            )
    return None


def _unclosed_string(source: Source, before: Sequence[Token], token: Token) -> ProgramError | None:
    # The lexer reads three quotes without an end as an empty string, and the start of another.
    if token.type != "STRING" or not before or before[-1] != '""':
        return None
    if _end(before[-1]) < _start(token):
        return None
    return Span(source, _start(before[-1]), _end(token)).error(_UNCLOSED_STRING)


def _hint(
    source: Source, token: Token, before: Sequence[Token], expected: frozenset[str]
) -> str | None:
    last = before[-1] if before else None
    previous = "" if last is None else str(last)
    gap = source.text[0 if last is None else _end(last) : _start(token)]
    # What was read as `last` and `token` may be meant as one.
    joined = "" if gap else previous + token
    starts_line = last is None or "\n" in gap
    after = frozenset({"REL", "TYPE"}) <= expected
    if joined in _MISREAD:
        return _MISREAD[joined]
    string = next((t for t in reversed(before) if t.type == "STRING"), None)
    on = Span(source, _start(token), _end(token)).line
    if string is not None and _runs_over(string) and _last_line(source, string) == on:
        line = Span(source, _start(string), _end(string)).line
        return f"the string that starts in line {line} runs over its end; is a quote missing there?"
    if token.type == "NAME":
        lower = token.lower()
        if lower in _KEYWORDS and lower != token:
            return f"keywords are written in lower case: `{lower}`"
        if last is not None and last.type == "NAME" and previous.lower() in _KEYWORDS:
            return f"keywords are written in lower case: `{previous.lower()}`"
        if joined and previous == "_":
            return "a name starts with a letter"
        if after and starts_line:
            return (
                "a fact or a rule starts with `rel`, the declaration of a type with `type`, a "
                "query with `query`"
            )
        if "TAG" not in expected and "_AND" in expected:
            return "is `and`, `or` or a comma missing?"
        if "TAG" in expected and last is not None and last.type in ("INT", "FLOAT"):
            return f"after a tag stands `::`, as in `{previous}::{token}(...)`"
    if token in _KEYWORDS:
        if token.type in _DECLARATIONS and starts_line:
            return f"what stands before it is not complete: something is missing after `{previous}`"
        if token == "is":
            return "to compare with the value of an expression, write `==`"
        if "NAME" in expected:
            return f"`{token}` is a keyword, which cannot be a name"
    if token.type == "PRIMITIVE" and "NAME" in expected:
        return (
            f"`{token}` is a type, which cannot be a name or a value; the types of a relation are "
            "declared with `type`, as in `type edge(x: i32, y: i32)`"
        )
    if token == "_" and "NAME" in expected:
        return "a name starts with a letter"
    if token in ("=", ":=", ":-"):
        if previous in ("=", ":=") or "COMPARISON" in expected:
            return "to compare two values, write `==`"
        if after:
            return "between the head and the body of a rule stands `=` or `:-`"
    if token.type in ("COMPARISON", "LESS", "GREATER") and "PLUS" in expected:
        return "comparisons do not chain; compare twice, and join the comparisons with `and`"
    if token.type == "RANGE":
        return "a range is a formula of its own: `x in 0..5`"
    return _hint_on_separator(token, last, expected, after)


def _hint_on_separator(
    token: Token, last: Token | None, expected: frozenset[str], after: bool
) -> str | None:
    if token == ",":
        if "DEFINE" in expected:
            return (
                "write `rel` before every fact; several heads of a rule stand in braces, "
                "`{p(x), q(x)} = ...`"
            )
        if "_OR" in expected:
            return "a comma does not mix with `or`; put parentheses around the disjunction"
    if token.type in ("_OR", "_IMPLIES") and "COMMA" in expected:
        return f"a comma does not mix with `{token}`; put parentheses around what it joins"
    if token == ";":
        if "_OR" in expected:
            return "alternatives are joined by `or`, and nothing ends a declaration"
        if after:
            return "nothing ends a declaration; take it away"
        return "tuples are separated all by `,`, or all by `;` if just one of them holds"
    if token == "|" and "_OR" in expected:
        return "write `or` between formulas, `||` between values"
    if token == "%" and after:
        return "a comment starts with `//`"
    if token == "{" and "PRIMITIVE" in expected:
        return "facts are given with `rel`: `rel name = {...}`"
    if last is not None and token.type == "$END":
        return f"something is missing after `{last}`"
    return None


def _runs_over(token: Token) -> bool:
    """Whether a string goes on over the end of a line, as one does whose quote was forgotten."""
    return token.type == "STRING" and "\n" in token and not token.startswith('"""')


def _last_line(source: Source, token: Token) -> int:
    return source.text.count("\n", 0, _end(token)) + 1


def _listed(lark: Lark, expected: frozenset[str]) -> str:
    """Tokens in words: groups of them by one name each."""
    rest = set(expected)
    words = []
    for group, needed, covered in _GROUPS:
        if needed & rest:
            rest -= covered
            words.append(group)
    words = [*sorted(_word(lark, name) for name in rest), *words]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _word(lark: Lark, name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    pattern = lark.get_terminal(name).pattern
    return f"`{pattern.value}`" if isinstance(pattern, PatternStr) else name.lower()


def _found(token: Token) -> str:
    shown = " ".join(token.split())
    shown = shown if len(shown) <= 40 else f"{shown[:36]} ..."
    if token.type == "$END":
        return "the end of the text"
    if token in _KEYWORDS:
        return f"the keyword `{token}`"
    if token.type in ("NAME", "STRING"):
        return f"the {token.type.lower()} `{shown}`"
    return f"`{shown}`"


def _lexed(lark: Lark, source: Source) -> list[Token]:
    """The tokens, up to the first character that starts none, which ends them."""
    tokens = []
    try:
        for token in lark.lex(source.text):
            tokens.append(token)
    except UnexpectedCharacters as error:
        start = error.pos_in_stream
        tokens.append(Token(_UNREADABLE, "", start_pos=start, end_pos=start))
    return tokens


def _start(token: Token) -> int:
    return cast(int, token.start_pos)


def _end(token: Token) -> int:
    return cast(int, token.end_pos)
