"""ProbLog from inside: black boxes that a program declares, or that an engine is given."""

from __future__ import annotations

import copy
import pickle
import runpy
import subprocess
import sys
import threading
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest
from problog import get_evaluatable
from problog.engine import DefaultEngine, UnknownClause
from problog.program import LogicProgram, PrologFile, PrologString
from problog.tasks import main as problog_main
from problog.tasks import problog_tasks

import byssus_problog
from byssus import (
    BlackBoxError,
    BlackBoxOutputError,
    Boolean,
    BudgetExceeded,
    ByssusError,
    DomainError,
    Integer,
    ProgramError,
    blackbox,
)
from byssus_problog import Program, read, register
from byssus_problog.blackboxes import load

ROOT = Path(__file__).parents[2]
LEAF = ROOT / "examples" / "problog" / "leaf.pl"
SPECIES = {"Carpinus betulus": 0.42, "Castanea sativa": 0.28, "Laurus nobilis": 0.15}
LIBRARY = ":- use_module(library(byssus)).\n"

FUNCTIONS = """
calls = []

def add(a, b):
    calls.append((a, b))
    return a + b

def half(n):
    if n % 2:
        raise ValueError("it is odd")
    return n // 2

def even(n):
    return n % 2 == 0

def divide(a, b):
    return a // b, a % b

def kinds(*values):
    return ",".join(type(value).__name__ for value in values)

async def later(n):
    return n + 1

constant = 5
"""


def write(folder: Path, program: str, **others: str) -> Path:
    """A program beside its functions, and other files."""
    (folder / "functions.py").write_text(FUNCTIONS, encoding="utf-8")
    for name, text in others.items():
        (folder / f"{name}.pl").write_text(text, encoding="utf-8")
    path = folder / "program.pl"
    path.write_text(LIBRARY + program, encoding="utf-8")
    return path


def stock(program: str | Path, engine: Any = None) -> dict[str, float]:
    """What ProbLog computes."""
    source = PrologFile(str(program)) if isinstance(program, Path) else PrologString(program)
    return stock_of(source, engine)


def stock_of(source: LogicProgram, engine: Any = None) -> dict[str, float]:
    formula = (engine or DefaultEngine()).ground_all(source)
    found = get_evaluatable().create_from(formula).evaluate()
    return {str(query): float(p) for query, p in found.items()}


def ours(program: str | Path) -> dict[str, float]:
    """What a `Program` computes."""
    ran = Program(program)
    return dict(zip(ran.queries, ran().probs[0].tolist(), strict=True))


@pytest.mark.filterwarnings("ignore:leaf_id.* failed:RuntimeWarning")
def test_example() -> None:
    expected = {f"species('{name}')": p for name, p in SPECIES.items()}
    assert stock(LEAF) == pytest.approx(expected)
    assert stock_of(read(LEAF)) == pytest.approx(expected)
    program = Program(LEAF)
    assert ours(LEAF) == pytest.approx(expected)
    assert program().lost.item() == pytest.approx(0.15)
    copies = copy.deepcopy(program), pickle.loads(pickle.dumps(program))
    for other in copies:
        assert other().probs.equal(program().probs)


PROGRAMS = [
    (  # declared after its use
        "0.4::n(1). 0.7::n(2). s(Z) :- n(X), n(Y), add(X, Y, Z). query(s(_)).\n"
        ":- blackbox('functions.py', add, [+a, +b, -sum]).",
        {"s(2)": 0.4, "s(3)": 0.28, "s(4)": 0.7},
    ),
    (  # a bound output, quoted or not
        ":- blackbox('functions.py', kinds, [+a, -name]).\n"
        "0.4::a. b :- a, kinds(x, str). c :- a, kinds(x, 'str'). d :- kinds(x, int).\n"
        "query(b). query(c). query(d).",
        {"b": 0.4, "c": 0.4, "d": 0.0},
    ),
    (  # a test
        ":- blackbox('functions.py', even, [+n]).\n"
        "0.4::n(1). 0.7::n(2). e :- n(X), even(X). o :- n(X), \\+ even(X). query(e). query(o).",
        {"e": 0.7, "o": 0.4},
    ),
    (  # several outputs, of which one is known
        ":- blackbox('functions.py', divide, [+a, +b, -quotient, -rest]).\n"
        "0.4::n(7). 0.7::n(6). q(Q, R) :- n(X), divide(X, 2, Q, R). query(q(_, _)).\n"
        "r :- n(X), divide(X, 2, _, 1). query(r).",
        {"q(3,0)": 0.7, "q(3,1)": 0.4, "r": 0.4},
    ),
    (  # types, and what a value is without one
        ":- blackbox('functions.py', kinds, [+a, +b, +c, +d, +e, -names]).\n"
        'k(N) :- kinds(1, 2.5, x, "text", [1, 2], N). query(k(_)).',
        {"k('int,float,str,str,tuple')": 1.0},
    ),
    (
        ":- blackbox('functions.py', kinds, [+str, +str, +float, +list, +int, -str]).\n"
        "k(N) :- kinds(1, true, 2, [1, 2], 3, N). query(k(_)).",
        {"k('str,str,float,list,int')": 1.0},
    ),
    (
        ":- blackbox('functions.py', later, [+n, -m]).\na(N) :- later(1, N). query(a(_)).",
        {"a(2)": 1},
    ),
    (  # a function of another name; a directive of several goals
        ":- use_module(library(lists)), blackbox('functions.py:add', total, [+a, +b, -c]).\n"
        "0.3::n(1). s(Z) :- n(X), total(X, 1, Z), member(Z, [1, 2]). query(s(_)).",
        {"s(2)": 0.3},
    ),
    (
        ":- blackbox('functions.py:add', 'Add', [+a, +b, -c]).\n"
        "s(Z) :- 'Add'(1, 2, Z). query(s(_)).",
        {"s(3)": 1.0},
    ),
    (
        ":- blackbox('functions.py:add', sum, [+float, +int, -c], [vectorized(true)]).\n"
        "s(Z) :- sum(1, 2, Z). query(s(_)).",
        {"s(3)": 1.0},
    ),
    (  # declared twice alike
        2 * ":- blackbox('functions.py', add, [+a, +b, -c]).\n"
        + "s(Z) :- add(1, 2, Z). query(s(_)).",
        {"s(3)": 1.0},
    ),
]


@pytest.mark.parametrize(("program", "expected"), PROGRAMS)
def test_declarations(program: str, expected: dict[str, float], tmp_path: Path) -> None:
    path = write(tmp_path, program)
    assert stock(path) == pytest.approx(expected)
    assert ours(path) == pytest.approx(expected, abs=1e-6)


def test_each_tuple_is_called_once(tmp_path: Path) -> None:
    program = (
        ":- blackbox('functions.py', add, [+a, +b, -c]).\n"
        "0.5::n(1). 0.5::n(2). s(Z) :- n(X), n(Y), add(X, Y, Z). query(s(_)).\n"
        "t(Z) :- n(X), n(Y), add(X, Y, Z). query(t(_))."
    )
    path = write(tmp_path, program)
    stock(path)
    from byssus._functions import load_function

    calls = load_function(tmp_path / "functions.py", "add").__globals__["calls"]
    assert sorted(calls) == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_files_that_are_consulted(tmp_path: Path) -> None:
    """A declaration's file is relative to the file that declares it."""
    inner = tmp_path / "inner"
    inner.mkdir()
    write(inner, "")
    (inner / "rules.pl").write_text(
        LIBRARY
        + ":- blackbox('functions.py', add, [+a, +b, -c]).\ns(Z) :- n(X), n(Y), add(X, Y, Z).\n",
        encoding="utf-8",
    )
    path = tmp_path / "program.pl"
    path.write_text(
        LIBRARY + ":- consult('inner/rules.pl').\n0.4::n(1). 0.7::n(2). query(s(_)).\n",
        encoding="utf-8",
    )
    expected = {"s(2)": 0.4, "s(3)": 0.28, "s(4)": 0.7}
    assert stock(path) == pytest.approx(expected)
    assert ours(path) == pytest.approx(expected)


def test_a_module_has_its_own(tmp_path: Path) -> None:
    sums = (
        ":- module(sums, [s/1]).\n" + LIBRARY + ":- blackbox('functions.py', add, [+a, +b, -c]).\n"
        "s(Z) :- add(1, 2, Z)."
    )
    path = write(tmp_path, ":- use_module('sums.pl').\nquery(s(_)).", sums=sums)
    assert stock(path) == {"s(3)": 1.0}
    assert ours(path) == {"s(3)": 1.0}


def test_a_black_box_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "boxes.py").write_text(
        "from byssus import Integer, blackbox\n"
        "@blackbox(Integer(0, 9), output=Integer(0, 9))\ndef next(n): return n + 1\n",
        encoding="utf-8",
    )
    declared = ":- blackbox('boxes.py', next, [+n, -m]).\n"
    path = write(tmp_path, declared + "0.4::n(1). a(X) :- n(Y), next(Y, X). query(a(_)).")
    assert stock(path) == pytest.approx({"a(2)": 0.4})
    assert ours(path) == pytest.approx({"a(2)": 0.4})
    path = write(tmp_path, declared + "a(X) :- next(12, X). query(a(_)).")
    for run in (stock, ours):
        with pytest.raises(DomainError, match="12"):
            run(path)


def test_one_from_python_stands_in_for_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        ":- blackbox('nowhere.py', add, [+a, +b, -c]).\ns(Z) :- add(1, 2, Z). query(s(_)).",
    )
    box = blackbox(Integer(0, 9), Integer(0, 9), name="add")(lambda a, b: a * b)
    assert Program(path, [box])().values == (2,)
    wrong = blackbox(Integer(0, 9), name="add")(lambda a: a)
    with pytest.raises(ProgramError, match="takes 1 arguments, and is declared with 2 inputs"):
        Program(path, [wrong])


# What is wrong: the text that the caret points at, and the message.

ERRORS = [
    (":- blackbox('nowhere.py', add, [+a, +b, -c]).", "there is no file nowhere.py"),
    (":- blackbox('broken.py', add, [+a, +b, -c]).", "broken.py cannot be loaded, ZeroDivision"),
    (":- blackbox('functions.py', ad, [+a, +b, -c]).", "no function 'ad'; it has add, divide"),
    (":- blackbox('functions.py', constant, [-c]).", "constant in .* is 5, which cannot be called"),
    (":- blackbox('functions.py', add, [+a, -c]).", r"add takes \(a, b\), .* with 1 inputs"),
    (":- blackbox('functions.py', add, [-c, +a, +b]).", "an input stands after an output"),
    (":- blackbox('functions.py', add, [a, b, c]).", r"a is neither an input, \+a, nor"),
    (":- blackbox('functions.py', add, a).", "the list of arguments is a, which is no list"),
    (":- blackbox('functions.py', X, [+a, -b]).", "is no name"),
    (":- blackbox(F, add, [+a, +b, -c]).", "is no file"),
    (":- blackbox('functions.py', add, [+a, +b, -c], [speed(5)]).", r"speed\(5\) is no option"),
    (":- blackbox('functions.py', add, [+a, +b, -c], [budget(x)]).", "budget= must be"),
    (":- blackbox('functions.py', add, [+a, +b, -c], [samples(x)]).", "samples='x'"),
    (":- blackbox('functions.py', add, [+a, +b, -c], 5).", "the options is 5, which is no list"),
    (
        ":- blackbox('functions.py', add, [+a, +b, -c]).\n"
        ":- blackbox('functions.py:half', add, [+a, -c]).",
        "add is declared twice",
    ),
]


@pytest.mark.parametrize("run", [stock, ours])
@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_wrong_declarations(text: str, message: str, run: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    path = write(tmp_path, text + "\na. query(a).")
    if "twice" in message and run is stock:
        text = text.replace("half', add, [+a, -c]", "divide', add, [+a, +b, -c]")
        path = write(tmp_path, text + "\na. query(a).")
    with pytest.raises(ProgramError, match=message) as caught:
        run(path)
    line = 3 if "twice" in message else 2
    assert (caught.value.file, caught.value.line) == (str(path), line)
    shown = str(caught.value).splitlines()
    assert shown[-2][shown[-1].index("^") :].startswith("blackbox(")


def test_builtins_of_the_same_name(tmp_path: Path) -> None:
    path = write(tmp_path, ":- blackbox('functions.py:add', plus, [+a, +b, -c]).\na. query(a).")
    for run in (stock, ours):
        with pytest.raises(ProgramError, match=r"plus/3.*rename") as caught:
            run(path)
        assert caught.value.line == 2


def test_clauses_of_the_same_name(tmp_path: Path) -> None:
    path = write(
        tmp_path, "even(3).\n:- blackbox('functions.py', even, [+n]).\na :- even(2). query(a)."
    )
    for run in (stock, ours):
        with pytest.raises(ByssusError, match="even"):
            run(path)


CALLS: list[tuple[str, str, type[ByssusError]]] = [
    ("half(X, Y)", "argument 1 of the black box half is not bound", ProgramError),
    ("half(3, Y)", "half.*it is odd", BlackBoxError),
    ("half(x, Y)", "not all arguments converted", BlackBoxError),
]


@pytest.mark.parametrize(("goal", "message", "error"), CALLS)
def test_calls_that_fail(goal: str, message: str, error: type[ByssusError], tmp_path: Path) -> None:
    declared = ":- blackbox('functions.py', half, [+n, -m]).\n"
    path = write(tmp_path, f"{declared}a(Y) :- {goal}.\nquery(a(_)).")
    for run in (stock, ours):
        with pytest.raises(error, match=message) as caught:
            run(path)
        if isinstance(caught.value, ProgramError):
            assert (caught.value.line, caught.value.column) == (3, 9)
        if run is stock:
            assert "program.pl, line 3, column 9" in str(caught.value)


def test_types_are_checked(tmp_path: Path) -> None:
    typed = ":- blackbox('functions.py:{}', f, [+{}, -{}]).\na(Y) :- f({}, Y). query(a(_))."
    for run in (stock, ours):
        with pytest.raises(DomainError, match="'x', which is not in"):
            run(write(tmp_path, typed.format("half", "int", "m", "x")))
        with pytest.raises(BlackBoxOutputError, match="'int' of type str is no int"):
            run(write(tmp_path, typed.format("kinds", "n", "int", 5)))
        with pytest.raises(BlackBoxOutputError, match="is not 2 outputs"):
            run(
                write(
                    tmp_path,
                    ":- blackbox('functions.py', half, [+n, -a, -b]).\n"
                    "a(Y) :- half(4, X, Y). query(a(_)).",
                )
            )


def test_options(tmp_path: Path) -> None:
    text = (
        ":- blackbox('functions.py', half, [+n, -m], [{}]).\n0.5::n(2); 0.25::n(3).\n"
        "h(Y) :- n(X), half(X, Y). query(h(_))."
    )
    path = write(tmp_path, text.format("on_error(discard), timeout(10)"))
    with pytest.warns(RuntimeWarning, match=r"half\(3,\) failed.*it is odd"):
        assert stock(path) == pytest.approx({"h(1)": 0.5})
    assert Program(path)().lost.item() == pytest.approx(0.25)
    path = write(tmp_path, text.format("on_error(7), check(1)"))
    assert stock(path) == pytest.approx({"h(1)": 0.5, "h(7)": 0.25})
    assert ours(path) == pytest.approx({"h(1)": 0.5, "h(7)": 0.25})
    path = write(tmp_path, text.format("samples(7), budget(1), on_error(discard)"))
    assert Program(path, provenance="sampled").samples == 7
    with pytest.raises(BudgetExceeded, match="budget of 1 calls"):
        stock(path)


# From Python


def box(function: Any, name: str = "f", **options: Any) -> Any:
    return blackbox(Integer(0, 9), name=name, **options)(function)


def test_register() -> None:
    program = "0.3::n(1). 0.4::n(2). a(Y) :- n(X), f(X, Y). query(a(_))."
    twice, square = box(lambda n: 2 * n), box(lambda n: n * n)
    one, other = DefaultEngine(), DefaultEngine()
    register(one, twice)
    register(other, square)
    # Interleaved: each engine knows its own.
    databases = [engine.prepare(PrologString(program)) for engine in (one, other)]
    formulas = [engine.ground_all(db) for engine, db in zip((one, other), databases, strict=True)]
    found = [
        {str(q): p for q, p in get_evaluatable().create_from(f).evaluate().items()}
        for f in formulas
    ]
    assert found == [
        pytest.approx({"a(2)": 0.3, "a(4)": 0.4}),
        pytest.approx({"a(1)": 0.3, "a(4)": 0.4}),
    ]
    assert twice.calls == square.calls == 2
    with pytest.raises(UnknownClause, match="f/2"):
        stock(program)


def test_register_a_test_and_other_names() -> None:
    engine = DefaultEngine()
    register(engine, box(lambda n: n > 1, output=Boolean()), "big")
    program = "n(1). n(2). a(X) :- n(X), big(X). b(B) :- big(1, B). query(a(_)). query(b(_))."
    assert stock(program, engine) == {"a(2)": 1.0, "b(false)": 1.0}
    with pytest.raises(ByssusError, match="big/1"):
        register(engine, box(lambda n: True, output=Boolean()), "big")
    with pytest.raises(ByssusError, match="succ/2"):
        register(engine, box(lambda n: n + 1, "succ"))
    with pytest.raises(ByssusError, match="not a black box"):
        register(engine, len)  # type: ignore[arg-type]


def test_threads(tmp_path: Path) -> None:
    """Programs that are loaded at the same time get their own declarations."""
    count, rounds = 4, 5
    for i in range(count):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "f.py").write_text(f"def f(n): return n + {i}\n", encoding="utf-8")
        (folder / "p.pl").write_text(
            LIBRARY + ":- blackbox('f.py', f, [+n, -m]).\na(Y) :- f(1, Y). query(a(_)).\n",
            encoding="utf-8",
        )
    wrong: list[Any] = []
    barrier = threading.Barrier(count)

    def run(i: int) -> None:
        for _ in range(rounds):
            barrier.wait()
            try:
                found = stock(tmp_path / str(i) / "p.pl")
            except Exception as error:
                wrong.append(error)
            else:
                if found != {f"a({i + 1})": 1.0}:
                    wrong.append((i, found))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_library_is_for_programs() -> None:
    with pytest.raises(ByssusError, match="is for programs"):
        load()
    assert problog_tasks["byssus"] == "byssus_problog.task"
    assert byssus_problog.CircuitFormula is get_evaluatable("byssus")


# The command lines


def test_command_of_problog() -> None:
    """`-L` stands for the installation, which puts the library into ProbLog's own folder."""
    folder = ROOT / "adapters" / "byssus_problog" / "library"
    command = [sys.executable, "-m", "problog", "-L", str(folder), str(LEAF)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert "species('Carpinus betulus'):\t0.42" in done.stdout
    assert f"{LEAF}:9: RuntimeWarning: leaf_id('entire', 'ovate', 'glossy') failed" in done.stderr


def test_command_with_byssus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "0.4::a. 0.5::b. c :- a. c :- b. query(c).")
    monkeypatch.setattr(sys, "argv", ["problog", "-k", "byssus", str(path)])
    with pytest.raises(SystemExit) as status:
        runpy.run_module("byssus_problog", run_name="__main__")
    assert not status.value.code
    assert capsys.readouterr().out.split() == ["c:", "0.7"]
    assert problog_main(["byssus", str(path), "--json"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == '{"c": 0.7}'


def test_wheel_has_the_library() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    forced = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    (file,) = (file for file, place in forced.items() if place == "problog/library/byssus.py")
    assert "load()" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, True])
def test_installation(editable: bool, tmp_path: Path) -> None:
    """The stock command finds the library after `pip install`, and not after `pip uninstall`."""
    venv.create(tmp_path, with_pip=True)
    python = str(tmp_path / "bin" / "python")
    (site,) = tmp_path.glob("lib/python*/site-packages")

    def pip(*arguments: str) -> None:
        subprocess.run([python, "-m", "pip", "-q", *arguments], check=True, cwd=ROOT)

    pip("install", "--no-deps", *(["-e"] if editable else []), ".")
    pip("install", "--no-deps", "problog")
    # What they need is taken from here.
    (site / "more.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    run = [str(tmp_path / "bin" / "problog"), str(LEAF)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd="/")
    assert "species('Carpinus betulus'):\t0.42" in done.stdout, done.stderr
    (site / "more.pth").unlink()
    pip("uninstall", "-y", "byssus")
    assert not (site / "problog" / "library" / "byssus.py").exists()
    assert (site / "problog" / "library" / "lists.pl").exists()
