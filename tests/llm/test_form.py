import enum
import json
import math
from collections.abc import Hashable
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byssus import Boolean, Discrete, DomainError, Float, Integer, LLMError, Permutation
from byssus.llm._form import Form, Token, calibrated, frequencies

ROOMS = ["kitchen", "office", "lab"]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("form", "reply", "answer"),
    [
        (Form({"a": str}), " Paris \n", "Paris"),
        (Form({"a": str}, ROOMS), '{"answer": "office"}', "office"),
        (Form({"a": str}, ROOMS), "Office.", "office"),
        (Form({"a": str}, Colour), '{"answer": "blue"}', Colour.BLUE),
        (Form({"a": str}, [1, 10]), '{"answer": "10"}', 10),
        (Form({"a": str}, [1, 10]), '{"answer": 10}', 10),
        (Form({"a": Integer(0, 9)}), '{"answer": "7"}', 7),
        (Form({"a": Integer(0, 999)}), '{"answer": 700}', 700),
        (Form({"a": int}), '{"answer": -3}', -3),
        (Form({"a": float}), '{"answer": 3}', 3.0),
        (Form({"a": Float()}), '```json\n{"answer": 0.5}\n```', 0.5),
        (Form({"a": bool}), '{"answer": "yes"}', True),
        (Form({"a": bool}), '{"answer": false}', False),
        (Form({"a": Boolean()}), '{"answer": "no"}', False),
        (Form({}), '{"answer": "yes"}', True),
        (Form({"n": str, "age": int}), '{"age": 30, "n": "Al"}', ("Al", 30)),
        (Form({"n": Discrete(ROOMS), "b": bool}), '{"n": "lab", "b": "no"}', ("lab", False)),
        (Form({"a": str}, many=True), '{"answers": ["x", "y"]}', ["x", "y"]),
        (Form({"a": str}, many=True), "[]", []),
        (Form({"n": str, "k": int}, many=True), '{"answers": [{"n": "x", "k": 1}]}', [("x", 1)]),
        (Form({"a": str}, ROOMS, many=True), '{"answers": ["lab", "lab"]}', ["lab", "lab"]),
    ],
)
def test_replies_are_read(form: Form, reply: str, answer: object) -> None:
    found = form.read(reply)
    assert found == answer
    assert type(found) is type(answer)
    assert form.read(form.example(answer, "json_schema")) == answer


@pytest.mark.parametrize(
    ("form", "reply", "words"),
    [
        (Form({"a": str}), "  ", "empty"),
        (Form({"a": str}, ROOMS), '{"answer": "garage"}', "'garage' is none of the choices of a"),
        (Form({"a": str}, ROOMS), "I think the lab", "none of the choices"),
        (Form({"a": str}, [0, 1]), '{"answer": true}', "none of the choices"),
        (Form({"a": int}), '{"answer": 3', "is no JSON"),
        (Form({"a": int}), '{"answer": 3.5}', "3.5 is no integer"),
        (Form({"a": int}), '{"answer": true}', "True is no integer"),
        (Form({"a": int}), "[3]", "is no JSON object"),
        (Form({"a": int}), '{"result": 3}', "has no 'answer'"),
        (Form({"a": Integer(0, 999)}), '{"answer": 1000}', "1000 is no a"),
        (Form({"a": float}), '{"answer": NaN}', "nan is no number"),
        (Form({"n": str, "k": int}), '{"n": "x"}', "has no 'k'"),
        (Form({"n": str, "k": int}), '{"n": 3, "k": 3}', "3 is no string, as n is to be"),
        (Form({"a": str}, many=True), '{"answers": "x"}', "has no list 'answers'"),
        (Form({"a": str}, many=True), '{"answers": [{}]}', "is no string"),
        (Form({"a": str}, many=True), "[" * 100_000, "is no JSON"),
    ],
)
def test_replies_that_do_not_fit(form: Form, reply: str, words: str) -> None:
    with pytest.raises(LLMError, match=words) as caught:
        form.read(reply)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("fields", "choices", "many", "words"),
    [
        ({"a": str}, [], False, "a has no choices"),
        ({"a": str}, ["x", "X "], False, "cannot be told from another"),
        ({"a": str}, ["x", ""], False, "cannot be told"),
        ({"a": str}, "xyz", False, "give a list, an Enum or a Domain"),
        ({"a": str}, 3, False, "give a list"),
        ({"a": str}, Float(), False, "has no list of values"),
        ({"a": str, "b": str}, ROOMS, False, "choices= are for one value, and this asks for 2"),
        ({}, None, True, "whether something holds"),
        ({"a": list}, None, False, "a is of type list"),
        ({"a": Permutation(3)}, None, False, "a is of type Permutation"),
    ],
)
def test_forms_that_cannot_be(fields: dict, choices: object, many: bool, words: str) -> None:
    with pytest.raises(DomainError, match=words):
        Form(fields, choices, many)


def test_schemas() -> None:
    schema = Form({"name": str, "room": Discrete(ROOMS), "age": Integer(0, 99)}, many=True).schema
    assert schema is not None
    items = schema["properties"]["answers"]["items"]
    assert items["required"] == ["name", "room", "age"]
    assert items["properties"]["room"] == {"type": "string", "enum": ROOMS}
    assert items["properties"]["age"] == {"type": "integer", "minimum": 0, "maximum": 99}
    assert Form({"a": str}).schema is None
    assert Form({}).schema["properties"]["answer"]["enum"] == ["yes", "no"]


@pytest.mark.parametrize("style", ["json_schema", "json_object", "text"])
def test_the_model_is_told_the_choices(style: str) -> None:
    told = Form({"a": str}, ROOMS).instruction(style)
    assert told is not None
    assert all(room in told for room in ROOMS)


# Log-probabilities


def spelled(text: str, cut: list[int]) -> list[str]:
    places = [0, *sorted({c % len(text) for c in cut} - {0}), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


@settings(max_examples=200)
@given(st.data())
def test_chances_are_those_of_a_model_that_spells(data: st.DataObject) -> None:
    # A model that says one character a token, each choice with the probability of its weight: every
    # token is another choice's or begins several, so there is nothing to share out off the path.
    first = "abcdefgh"
    heads = data.draw(st.lists(st.sampled_from(first), min_size=1, max_size=6, unique=True))
    words = [head + data.draw(st.text("xyz", max_size=3)) for head in heads]
    weights = [data.draw(st.floats(0.01, 1)) for _ in words]
    stray = data.draw(st.floats(0, 1))  # of tokens that begin no choice
    total = sum(weights) + stray
    probs = {word: w / total for word, w in zip(words, weights, strict=True)}
    taken = data.draw(st.sampled_from(words))
    top = [(word[0], math.log(p)) for word, p in probs.items()]
    as_json = data.draw(st.booleans())
    tokens: list[Token] = [(part, -3.0, []) for part in ('{"', 'answer":', ' "') if as_json]
    tokens.append((taken[0], math.log(probs[taken]), top))
    tokens += [(c, -0.5, [(c, -0.5), ("q", -1.0)]) for c in taken[1:]]
    if as_json:
        tokens.append(('"}', 0.0, []))
    found = Form({"a": str}, words).chances(tokens)
    assert found == pytest.approx({w: p / sum(probs.values()) for w, p in probs.items()})


def test_the_path_decides_where_choices_begin_alike() -> None:
    form = Form({"a": str}, ["living room", "living area", "lab"])
    tokens: list[Token] = [
        ('{"answer": "', 0.0, []),
        ("li", math.log(0.8), [("li", math.log(0.8)), ("la", math.log(0.2))]),
        ("ving ", 0.0, [("ving ", 0.0)]),
        ("room", math.log(0.75), [("room", math.log(0.75)), ("ar", math.log(0.25))]),
        ('"}', 0.0, []),
    ]
    found = form.chances(tokens)
    assert found == pytest.approx({"living room": 0.6, "living area": 0.2, "lab": 0.2})


def test_what_several_could_be_is_shared() -> None:
    form = Form({"a": str}, ["living room", "living area", "lab"])
    tokens: list[Token] = [("lab", math.log(0.4), [("liv", math.log(0.6))]), (".", 0.0, [])]
    found = form.chances(tokens)
    assert found == pytest.approx({"living room": 0.3, "living area": 0.3, "lab": 0.4})


@pytest.mark.parametrize("as_json", [False, True])
def test_a_choice_that_begins_another(as_json: bool) -> None:
    form = Form({"a": str}, [1, 10])
    after = '"}' if as_json else "."
    path = [('{"answer":"', 0.0, [])] if as_json else []
    one = ("1", math.log(0.9), [("1", math.log(0.9)), ("2", math.log(0.1))])
    stop = (after, math.log(0.6), [(after, math.log(0.6)), ("0", math.log(0.4))])
    assert form.chances([*path, one, stop]) == pytest.approx({1: 0.6, 10: 0.4})
    zero = ("0", math.log(0.4), [(after, math.log(0.6)), ("0", math.log(0.4))])
    end = (after, 0.0, [])
    assert form.chances([*path, one, zero, end]) == pytest.approx({1: 0.6, 10: 0.4})


def test_a_text_that_ends_at_once() -> None:
    tokens: list[Token] = [("1", -0.1, [("1", -0.1)])]
    assert Form({"a": str}, [1, 10]).chances(tokens) == {1: 1.0, 10: 0.0}


def test_tokens_across_the_beginning() -> None:
    form = Form({"a": str}, ["yes", "no"])
    start = ('{"answer":', 0.0, [])
    quoted = (' "yes', math.log(0.3), [(' "no', math.log(0.1)), ('"x', math.log(0.5))])
    assert form.chances([start, quoted, ('"}', 0.0, [])]) == pytest.approx(
        {"yes": 0.75, "no": 0.25}
    )


def test_a_fence_around_the_answer() -> None:
    form = Form({"a": str}, ["yes", "no"])
    tokens: list[Token] = [(t, -2.0, []) for t in ("```", "json\n", '{"answer": "')]
    tokens += [("no", math.log(0.5), [("yes", math.log(0.25))]), ('"}\n```', 0.0, [])]
    assert form.chances(tokens) == pytest.approx({"yes": 1 / 3, "no": 2 / 3})


def test_quotes_and_capitals_around_a_bare_answer() -> None:
    form = Form({"a": str}, ["yes", "no"])
    tokens: list[Token] = [('"', 0.0, []), ("No", math.log(0.5), [("Yes", math.log(0.25))])]
    assert form.chances([*tokens, ('"', 0.0, [])]) == pytest.approx({"yes": 1 / 3, "no": 2 / 3})
    path: list[Token] = [('{"answer": "', 0.0, [])]
    assert form.chances([*path, *tokens[1:], ('"}', 0.0, [])]) == pytest.approx(
        {"yes": 1 / 3, "no": 2 / 3}
    )


def test_half_characters_are_put_together() -> None:
    form = Form({"a": str}, ["é", "è"])
    half = "é".encode()[:1].decode("utf-8", "surrogateescape")
    acute, grave = (c.encode()[1:].decode("utf-8", "surrogateescape") for c in "éè")
    tokens: list[Token] = [
        ('{"answer": "', 0.0, []),
        (half, 0.0, [(half, 0.0)]),
        (acute, math.log(0.7), [(grave, math.log(0.3))]),
        ('"}', 0.0, []),
    ]
    assert form.chances(tokens) == pytest.approx({"é": 0.7, "è": 0.3})


def test_escapes_in_json() -> None:
    form = Form({"a": str}, ['say "a"', 'say "b"'])
    tokens: list[Token] = [
        ('{"answer": "', 0.0, []),
        ('say \\"', 0.0, []),
        ("b", math.log(0.7), [("a", math.log(0.3))]),
        ('\\""}', 0.0, []),
    ]
    assert form.chances(tokens) == pytest.approx({'say "a"': 0.3, 'say "b"': 0.7})


def test_log_probabilities_that_say_nothing() -> None:
    form = Form({"a": str}, ["yes", "no"])
    assert form.chances([("maybe", -0.1, [("perhaps", -1.0)])]) is None
    assert form.chances([]) is None


@given(
    st.dictionaries(st.integers(), st.floats(0.001, 1), min_size=1, max_size=5),
    st.floats(0.2, 5),
)
def test_calibration(weights: dict[Hashable, float], temperature: float) -> None:
    powers = {v: w ** (1 / temperature) for v, w in weights.items()}
    expected = {v: p / sum(powers.values()) for v, p in powers.items()}
    assert calibrated(weights, temperature) == pytest.approx(expected)


def test_calibration_to_certainty_does_not_underflow() -> None:
    assert calibrated({"a": 0.6, "b": 0.4}, 1e-3)["a"] == pytest.approx(1)


def test_frequencies() -> None:
    assert frequencies(["a", "b", "a", "a"]) == {"a": 0.75, "b": 0.25}


def test_examples_are_checked() -> None:
    with pytest.raises(DomainError, match="'garage' is none of the choices"):
        Form({"a": str}, ROOMS).example("garage", "json_schema")
    with pytest.raises(DomainError, match="has not 2 values"):
        Form({"a": str, "b": int}).example("x", "json_schema")
    shown = Form({"a": str, "b": int}, many=True).example([("x", 1)], "json_schema")
    assert json.loads(shown) == {"answers": [{"a": "x", "b": 1}]}


def test_each_word_is_cut_somewhere() -> None:
    # Wherever a tokenizer cuts the reply, a certain answer is certain.
    form = Form({"a": str}, ROOMS)
    reply = '{"answer": "office"}'
    for cut in product(range(1, len(reply)), repeat=2):
        tokens: list[Token] = [(part, 0.0, [(part, 0.0)]) for part in spelled(reply, list(cut))]
        assert form.chances(tokens) == {"kitchen": 0.0, "office": 1.0, "lab": 0.0}
