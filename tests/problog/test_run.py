"""`byssus run file.pl` does what `problog file.pl` does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from problog.tasks import main as problog

from byssus.cli import main

ROOT = Path(__file__).parents[2]
LEAF = ROOT / "examples" / "problog" / "leaf.pl"

PROGRAMS = {
    "coins": "0.4::heads(c1). 0.7::heads(c2). some :- heads(_). query(heads(X)). query(some).",
    "alarm": """
        0.7::burglary. 0.2::earthquake. 0.9::alarm :- burglary, earthquake.
        0.8::alarm :- burglary, \\+earthquake. 0.1::alarm :- \\+burglary, earthquake.
        evidence(alarm, true). query(burglary). query(earthquake).
    """,
    "smokers": """
        0.3::stress(X) :- person(X). 0.2::influences(X, Y) :- person(X), person(Y).
        smokes(X) :- stress(X). smokes(X) :- friend(X, Y), influences(Y, X), smokes(Y).
        0.4::asthma(X) :- smokes(X).
        person(angelika). person(joris). person(jonas). person(dimitar).
        friend(joris, jonas). friend(joris, angelika). friend(joris, dimitar).
        friend(angelika, jonas). query(smokes(angelika)). query(asthma(_)).
    """,
    "reachability": """
        0.6::edge(1,2). 0.1::edge(1,3). 0.4::edge(2,5). 0.3::edge(2,6). 0.3::edge(3,4).
        0.8::edge(4,5). 0.2::edge(5,6). 0.5::edge(5,2).
        path(X,Y) :- edge(X,Y). path(X,Y) :- edge(X,Z), path(Z,Y). query(path(1,X)).
    """,
    "die": "1/6::die(1); 1/6::die(2); 0.5::die(3). query(die(_)). odd :- \\+ die(2). query(odd).",
    "lists": """
        0.5::in(X) :- member(X, [a, b, c]). :- use_module(library(lists)).
        n(L) :- findall(X, in(X), L). query(n(_)).
    """,
    "arithmetic": """
        0.3::n(1); 0.7::n(2). 0.5::m(10). s(Z) :- n(X), m(Y), Z is X * Y + 0.5. query(s(Z)).
    """,
    "nothing found": "a(1) :- fail. query(a(X)). query(a(Y)). query(b). b :- fail.",
    "certain": "a(X). query(a(Y)). query(b). b.",
    "some found": "0.5::a(1). b(1) :- fail. query(b(X)). query(a(Y)).",
    "negative evidence": "0.4::a; 0.3::b. c :- a. c :- b. query(b). evidence(\\+ a). query(c).",
    "quoted": "0.5::'a b'(\"text\", 'X', x, 1.5, f(g), [1, 2]). query('a b'(_, _, _, _, _, _)).",
    "between": """
        0.5::r(X) :- between(1, 4, X). t(N) :- findall(X, r(X), L), length(L, N). query(t(_)).
    """,
    "the same twice": "0.4::a. query(a). query(a).",
    "arguments": "P::a(P) :- member(P, [0.25, 0.5]). :- use_module(library(lists)). query(a(_)).",
}


def file(folder: Path, text: str, name: str = "program.pl") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_problog(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path, PROGRAMS[name])
    assert problog([path]) == 0
    expected = capsys.readouterr().out
    assert main(["run", path, "--json"]) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    assert shown == expected.splitlines()
    found = {query.strip(): float(p) for query, p in (row.rsplit(":", 1) for row in shown)}
    assert json.loads(last) == pytest.approx(found, abs=1e-7)
    assert torch.get_default_dtype() == torch.float32


def test_black_boxes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(LEAF), "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "species('Carpinus betulus'):\t0.42      "
    assert json.loads(printed.out.splitlines()[-1])["species('Laurus nobilis')"] == pytest.approx(
        0.15
    )
    assert printed.err == "byssus: worlds of probability 0.15 lost to failed calls\n"


@pytest.mark.parametrize("provenance", ["sampled", "mixed"])
def test_sampled(provenance: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path, PROGRAMS["coins"])
    outputs = []
    for seed in ("1", "1", "2"):
        options = ["--provenance", provenance, "--samples", "7", "--seed", seed, "--json"]
        assert main(["run", path, *options]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert json.loads(outputs[0].splitlines()[-1]).keys() == {"heads(c1)", "heads(c2)", "some"}


def test_nesydm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", file(tmp_path, "0.3::a.\nquery(a)."), "--provenance", "nesydm"]) == 0
    assert capsys.readouterr().out.split() == ["a:", "0.3"]
    text = "nn(d, [X], Y, [0, 1]) :: digit(X, Y).\nquery(digit(a, Y))."
    assert main(["run", file(tmp_path, text), "--provenance", "nesydm"]) == 1
    assert "the networks 'd' need tensors" in capsys.readouterr().err


# A formula of forty facts and sixty clauses over three of them: its diagram is not small.
CNF = "\n".join(
    [
        *(f"0.5::v({i})." for i in range(40)),
        *(
            f"q :- \\+v({(7 * i + 3) % 40}), v({(11 * i + 5) % 40}), v({(13 * i + 1) % 40})."
            for i in range(60)
        ),
        "query(q).",
    ]
)


def test_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path, CNF)
    assert main(["run", path, "--nodes", "100", "--seed", "0"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("q:\t")
    assert printed.err.startswith("byssus: sampled: q: the circuit did not compile")
    assert main(["run", path, "--nodes", "100", "--provenance", "exact"]) == 1
    assert "100 nodes" in capsys.readouterr().err


ERRORS = [
    ("a :- b\nb.\nquery(a).", ["program.pl, line 2", "^", "full stop"]),
    ("a :- c(1).\nquery(a).", ["program.pl, line 1, column 6", "'c/1'", "^"]),
    ("0.5::a. query(a). evidence(b). b :- fail.", ["evidence"]),
    ("0.5::a. p :- \\+ q, a. q :- \\+ p, a.\nquery(p).", ["negation", "^"]),
    ("a.", ["asks for nothing"]),
    ("nn(net, [X], Y, [0, 1]) :: d(X, Y). query(d(a, 1)).", ["'net'", "command line", "Program"]),
    (
        ":- use_module(library(byssus)).\n:- blackbox('no.py', f, [+a]).\na :- f(1). query(a).",
        ["line 2, column", "no file no.py", "^"],
    ),
    (":- use_module(library(nowhere)). a. query(a).", ["nowhere"]),
]


@pytest.mark.parametrize(("text", "words"), ERRORS)
def test_errors(
    text: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", file(tmp_path, text)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("byssus: ")
    assert [word for word in words if word not in printed.err] == [], printed.err


def test_options_of_the_other_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path, "a. query(a).")
    for options in (["--backend", "auto"], ["--facts", "f"], ["--query", "a"], ["--limit", "3"]):
        assert main(["run", path, *options]) == 1
        assert f"{options[0]} is for .scl programs" in capsys.readouterr().err
    assert main(["run", path, "--", "x"]) == 1
    assert "is for .scl programs" in capsys.readouterr().err
    assert main(["run", file(tmp_path, "", "a.scl"), "--nodes", "5"]) == 1
    assert "--nodes is for .pl programs" in capsys.readouterr().err
    assert main(["run", path, "--provenance", "topkproofs"]) == 1
    assert "'topkproofs'" in capsys.readouterr().err
    assert main(["run", "nowhere.pl"]) == 1
    assert "nowhere.pl" in capsys.readouterr().err


def test_many_worlds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = "0.7::a(X) :- between(1, 60, X).\nb :- a(1).\nq :- b, a(2).\nall(60).\n"
    rules += "all(X) :- a(X), between(1, 59, X), Y is X + 1, all(Y).\n"
    path = file(tmp_path, rules + "some :- \\+ all(1).\nquery(q). query(some).")
    options = ["--provenance", "sampled", "--samples", "2000", "--seed", "0", "--json"]
    assert main(["run", path, *options]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["q"] == pytest.approx(0.49, abs=0.05)
    assert found["some"] == pytest.approx(1, abs=0.01)


def test_worlds_half_of_which_are_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = "".join(f"0.9::a({i}).\nmany :- \\+ a({i}).\n" for i in range(20))
    path = file(tmp_path, rules + "query(many).")
    options = ["--provenance", "sampled", "--samples", "1000", "--seed", "0", "--json"]
    assert main(["run", path, *options]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["many"] == pytest.approx(1 - 0.9**20, abs=0.04)


def test_interrupted(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\ndef f(n):\n    print('on', flush=True)\n    time.sleep(60)\n",
        encoding="utf-8",
    )
    path = file(
        tmp_path, ":- blackbox('slow.py', f, [+n, -m]).\n0.5::a. b(X) :- a, f(1, X). query(b(_))."
    )
    command = [sys.executable, "-m", "byssus.cli", "run", path]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert time.monotonic() - start < 5
    assert (process.returncode, err) == (130, "byssus: interrupted\n")
