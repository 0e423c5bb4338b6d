"""Terms as Python values and back, and their order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from problog.logic import Term

from byssus import ByssusError
from byssus_problog._terms import order_key, to_python, to_term

_SCALARS = (
    st.integers(-(10**12), 10**12)
    | st.integers(-(10**6), 10**6).map(lambda n: n / 64)  # ProbLog rounds to 15 decimal places
    | st.booleans()
    | st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"])).filter(
        lambda text: text not in ("true", "false")
    )
)
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=8)


@given(_VALUES)
def test_there_and_back(value: object) -> None:
    found = to_python(to_term(value))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("abc", "abc"),
        ("'abc'", "abc"),
        ("'A b'", "A b"),
        ('"a b"', "a b"),
        ('""', ""),
        ("''", ""),
        ("-3", -3),
        ("2.5", 2.5),
        ("true", True),
        ("[]", ()),
        ("[1,[a,'B']]", (1, ("a", "B"))),
        ("f(x,1)", "f(x,1)"),
    ],
)
def test_values_of_program_text(text: str, value: object) -> None:
    found = to_python(Term.from_string(text))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("value", [frozenset([1]), {"a": 1}, object(), 1j])
def test_no_counterpart(value: object) -> None:
    with pytest.raises(ByssusError, match="has no counterpart in ProbLog"):
        to_term(value)


def test_natural_order() -> None:
    texts = ["-1", "1.5", "2", "10", "a", "b", "i2", "i10", "f(2)", "f(10)", "g(1)", "f(1,1)"]
    terms = [Term.from_string(text) for text in texts]
    shuffled = terms[:]
    random.Random(0).shuffle(shuffled)
    assert sorted(shuffled, key=order_key) == terms
