"""`byssus run`: from a file to what it queries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from byssus.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples" / "scallop"

PATHS = """
    type edge(i32, i32)
    rel path(a, c) = edge(a, c) or path(a, b) and edge(b, c)
    query path
"""


def file(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(EXAMPLES / "path.scl")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "path: {0.9::(0, 1), 0.86::(0, 2), 0.86::(0, 3), 0.8::(1, 2), 0.8::(1, 3), (2, 3)}",
        "reached(0, n): {0.09::(0, 1), 0.05::(0, 2), 0.81::(0, 3)}",
    ]
    assert main(["run", str(EXAMPLES / "leaf.scl")]) == 0
    printed = capsys.readouterr()
    assert printed.out == (
        'species: {0.42::("Carpinus betulus"), 0.28::("Castanea sativa"), 0.15::("Laurus nobilis")}'
        "\n"
    )
    assert "0.15 lost to failed calls" in printed.err


def test_facts_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"edge": [[0, 1], {"tuple": [1, 2], "probability": 0.25}]}
    arguments = [file(tmp_path, "a.scl", PATHS), "--json", "--provenance", "exact"]
    assert main(["run", *arguments, "--facts", file(tmp_path, "f.json", json.dumps(facts))]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last) == {
        "path": [
            {"tuple": [0, 1], "probability": 1.0},
            {"tuple": [0, 2], "probability": 0.25},
            {"tuple": [1, 2], "probability": 0.25},
        ]
    }


def test_alternatives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"a": [{"tuple": [i], "probability": 0.5, "group": 1} for i in range(2)]}
    program = file(
        tmp_path, "a.scl", "type a(i32)\nrel both() = a(0) and a(1)\nrel n = count(x: a(x))"
    )
    assert main(["run", program, "--facts", file(tmp_path, "f.json", json.dumps(facts))]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a: {0.5::(0), 0.5::(1)}",
        "both: {}",
        "n: {(1)}",
    ]


@pytest.mark.parametrize("provenance", ["unit", "proofs"])
def test_without_probabilities(
    provenance: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = file(tmp_path, "a.scl", PATHS + "rel edge = {0.5::(2, 10), 0.5::(10, 3)}")
    assert main(["run", program, "--provenance", provenance]) == 0
    assert capsys.readouterr().out == "path: {(2, 3), (2, 10), (10, 3)}\n"


def test_limit_query_and_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = file(tmp_path, "a.scl", "rel n(0)\nrel n(i + 1) = n(i)\nrel half = {0.5::0}")
    assert main(["run", program, "--limit", "3", "--query", "n"]) == 0
    assert capsys.readouterr().out.startswith("n: {(0), (1), (2)")
    outputs = []
    for seed in ("1", "1", "2"):
        options = ["--provenance", "sampled", "--samples", "7", "--seed", seed, "--limit", "1"]
        assert main(["run", program, *options, "--query", "half"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_what_is_dropped_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = file(tmp_path, "a.scl", "rel n = {0, 1, 2}\nrel h(4 / x) = n(x)\nquery h")
    assert main(["run", program]) == 0
    printed = capsys.readouterr()
    assert printed.out == "h: {(2), (4)}\n"
    assert "dropped 1 tuple: " in printed.err
    assert "a.scl, line 2: division by zero" in printed.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rel p(x = q(x)", ["a.scl, line 1", "^"]),
        ("rel p(x) = q(x)", ["unknown relation `q`", "line 1, column 12", "^"]),
        ("rel p(x) = not p(x) and q(x)\nrel q(1)", ["p", "line 1", "^"]),
        ('rel e = {(0, 1), (0, "1")}', ["cannot unify", "^"]),
        ('import "b.scl"', ["b.scl"]),
        ('import "a.scl"', ["cyclic", "a.scl"]),
        ('@file("t.csv") type e(i32)', ["t.csv"]),
        ("@wrong type e(i32)", ["wrong", "^"]),
    ],
)
def test_errors(
    text: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", file(tmp_path, "a.scl", text)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [word for word in words if word not in printed.err] == [], printed.err


@pytest.mark.parametrize(
    "facts", ["[1]", "{", '{"edge": 3}', '{"edge": [{"probability": 1}]}', '{"edg": []}']
)
def test_facts_that_do_not_fit(
    facts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = file(tmp_path, "f.json", facts)
    assert main(["run", file(tmp_path, "a.scl", PATHS), "--facts", given]) == 1
    assert capsys.readouterr().err.startswith("byssus: ")


def test_files_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nowhere.scl"]) == 1
    assert main(["run", "nowhere.txt"]) == 1
    assert "nowhere.txt" in capsys.readouterr().err
