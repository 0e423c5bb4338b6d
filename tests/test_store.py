"""The store: what it gives is what was compiled, whatever happens to its files and processes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import byssus
from byssus import ByssusError, Circuit, Formula, Store, store
from oracle import count, formulas, probabilities, sum_formula

close = {"atol": 1e-9, "rtol": 1e-6}
FORMULA = sum_formula([4, 3])[0]
OTHER = sum_formula([3, 4])[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "circuits"


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BYSSUS_STORE", raising=False)


def same(one: Circuit, two: Circuit) -> bool:
    first, second = dict(one.named_buffers()), dict(two.named_buffers())
    return all(torch.equal(first[name], second[name]) for name in first)


def only(folder: Path) -> Path:
    (path,) = folder.glob("*.circuit")
    return path


def sealed(header: dict, payload: bytes) -> bytes:
    """A file whose checksum is right."""
    body = json.dumps(header).encode() + b"\n" + payload
    return f"byssus-circuit 1 {hashlib.sha256(body).hexdigest()}\n".encode() + body


def parts(content: bytes) -> tuple[dict, bytes]:
    _, header, payload = content.split(b"\n", 2)
    return json.loads(header), payload


@settings(max_examples=25)
@given(formulas(), st.sampled_from(["program", "grouped", "balanced", "auto"]))
def test_a_stored_circuit_is_the_same(formula: Formula, vtree: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        compiled = Circuit.compile(formula, vtree=vtree, store=folder)
        kept = Store(folder)
        found = Circuit.compile(formula, vtree=vtree, store=kept)
        assert (kept.hits, kept.misses, len(kept)) == (1, 0, 1)
        assert same(compiled, found)
        assert (compiled.vtree, compiled.sizes) == (found.vtree, found.sizes)
        weights = probabilities(formula.widths, 2)
        torch.testing.assert_close(found(weights), count(formula, weights), **close)


def test_what_is_found_is_not_compiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Circuit.compile(FORMULA, store=folder)
    monkeypatch.setattr("byssus._vtree.compile_formula", None)
    Circuit.compile(FORMULA, store=folder, nodes=0, seconds=0)
    with pytest.raises(TypeError, match="not callable"):
        Circuit.compile(OTHER, store=folder)


def test_a_program_is_compiled_once(folder: Path) -> None:
    pytest.importorskip("problog")
    from byssus_problog import Program

    text = """
        nn(digit, [X], D, [0, 1, 2]) :: digit(X, D).
        0.3 :: flip. 0.6 :: shift.
        sum(Z) :- digit(a, X), digit(b, Y), flip, Z is X + Y.
        query(sum(Z)). evidence(shift).
    """
    probs = torch.tensor([[[0.2, 0.3, 0.5], [0.1, 0.6, 0.3]]])
    expected = Program(text)(digit=probs).probs
    for _ in range(2):
        kept = Store(folder)
        torch.testing.assert_close(Program(text, store=kept)(digit=probs).probs, expected)
    assert kept.misses == 0
    assert kept.hits > 0
    changed = Store(folder)
    Program(text.replace("X + Y", "X * Y"), store=changed)
    assert changed.misses > 0


def test_a_scallop_program_is_compiled_once(folder: Path) -> None:
    from byssus_scallop import ScallopContext

    for hits in (0, 1):
        kept = Store(folder)
        ctx = ScallopContext(provenance="exact", backend="embedded", store=kept)
        ctx.add_relation("edge", (int, int))
        ctx.add_facts("edge", [(0.5, (0, 1)), (0.5, (1, 2))])
        ctx.add_rule("path(a, c) = edge(a, c) or path(a, b) and edge(b, c)")
        ctx.run()
        assert list(ctx.relation("path")) == [(0.5, (0, 1)), (0.25, (0, 2)), (0.5, (1, 2))]
        assert (kept.hits, kept.misses) == (hits, 1 - hits)


def test_the_argument(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYSSUS_STORE", str(folder))
    Circuit.compile(FORMULA, store=False)
    assert not folder.exists()
    Circuit.compile(FORMULA)
    assert len(Store(folder)) == 1
    monkeypatch.setenv("BYSSUS_STORE", "")
    Circuit.compile(OTHER)
    assert len(Store(folder)) == 1
    Circuit.compile(OTHER, store=str(folder))
    assert len(Store(folder)) == 2
    with pytest.raises(ByssusError, match=r"store=3: a byssus\.Store, the path of one"):
        Circuit.compile(FORMULA, store=3)
    for size in (0, 1.5, True):
        with pytest.raises(ByssusError, match=f"max_bytes={size}"):
            Store(folder, size)


def test_the_key_holds_all_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    literal = ("literal", (0, 1))
    both = (literal, ("literal", (1, 1)), ("and", (1, 2)))
    keys = {
        Store.key(Formula((2, 2), both, (3,)), None, "auto"),
        Store.key(Formula((2, 3), both, (3,)), None, "auto"),
        Store.key(Formula((2, 2), (*both[:2], ("or", (1, 2))), (3,)), None, "auto"),
        Store.key(Formula((2, 2), (*both[:2], ("and", (2, 1))), (3,)), None, "auto"),
        Store.key(Formula((2, 2), (*both[:2], ("and", (1, -2))), (3,)), None, "auto"),
        Store.key(Formula((2, 2), both, (2,)), None, "auto"),
        Store.key(Formula((2, 2), both, (None,)), None, "auto"),
        Store.key(Formula((2, 2), both, (0,)), None, "auto"),
        Store.key(Formula((2, 2), both, (3,), ((3, 4),)), None, "auto"),
        Store.key(Formula((2, 2), both, (3,)), (0, 1), "auto"),
        Store.key(Formula((2, 2), both, (3,)), (1, 0), "auto"),
        Store.key(Formula((2, 2), both, (3,)), None, "balanced"),
    }
    assert len(keys) == 12
    with monkeypatch.context() as patch:
        patch.setattr(byssus, "__version__", "0.0.0")
        keys.add(Store.key(Formula((2, 2), both, (3,)), None, "auto"))
    monkeypatch.setattr(store, "version", lambda name: f"{name} 0.0.0")
    keys.add(Store.key(Formula((2, 2), both, (3,)), None, "auto"))
    assert len(keys) == 14


# Files that are not what they should be


def refused(folder: Path, match: str, formula: Formula = FORMULA) -> None:
    """The circuit is right all the same; a warning says why; and the file is right again."""
    kept = Store(folder)
    with pytest.warns(RuntimeWarning, match=match):
        circuit = Circuit.compile(formula, store=kept)
    assert (kept.hits, kept.misses) == (0, 1)
    assert same(circuit, Circuit.compile(formula, store=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(circuit, Circuit.compile(formula, store=kept))
    assert (kept.hits, kept.misses) == (1, 1)


def test_truncated_files(folder: Path) -> None:
    Circuit.compile(FORMULA, store=folder)
    content = only(folder).read_bytes()
    for size in (0, 1, 20, 85, len(content) // 2, len(content) - 1):
        only(folder).write_bytes(content[:size])
        refused(folder, "is refused")
    only(folder).write_bytes(content + b"\0")
    refused(folder, "checksum")


def test_the_file_of_another_circuit(folder: Path) -> None:
    Circuit.compile(OTHER, store=folder)
    theirs = only(folder).read_bytes()
    only(folder).unlink()
    Circuit.compile(FORMULA, store=folder)
    only(folder).write_bytes(theirs)
    refused(folder, "another circuit's")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kind": "Formula"}, "cannot be read"),
        ({"kind": "Products"}, "cannot be read"),
        ({"kind": None}, "cannot be read"),
        ({"kind": []}, "cannot be read"),
        ({"bytes": -1}, "claims to unpack to -1"),
        ({"bytes": True}, "claims to unpack"),
        ({"bytes": 10**12}, "claims to unpack to 1000000000000"),
        ({"bytes": 7}, "another size"),
        ({"packed": False}, "another size"),
        ({"sizes": {"program": "7"}}, "header"),
        ({"sizes": [7]}, "header"),
        ({"vtree": 3}, "header"),
    ],
)
def test_headers_that_are_wrong(folder: Path, change: dict, match: str) -> None:
    Circuit.compile(FORMULA, store=folder)
    header, payload = parts(only(folder).read_bytes())
    only(folder).write_bytes(sealed({**header, **change}, payload))
    refused(folder, match)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "7",
        "[[], []]",
        "[[], [0]]",  # FORMULA has more outputs
        "[[[0, [[0, 1]]]], [2]]",
        "[[[0, [[0, 1, 0, 1e1]]]], [2, 2, 2, 2, 2, 2]]",
        "[[[0, [[0, 1, 0, 2]]]], [2, 2, 2, 2, 2, 2]]",
        "[[[0, [[0, 1, 0, -1]]]], [2, 2, 2, 2, 2, 2]]",
        "[[[0, [[0, 1, 0, true]]]], [2, 2, 2, 2, 2, 2]]",
        "[[[7, [[0, 1, 0, 0]]]], [2, 2, 2, 2, 2, 2]]",
        "[[[0, [[0, 1, 0, 0]]], [0, [[0, 1, 0, 2]]]], [2, 2, 2, 2, 2, 2]]",
        "[[[0, [[0, 1, 0, 0]]]], [3, 2, 2, 2, 2, 2]]",
        "[[[0, [[0, 1, 0, 0]]]], [NaN, 2, 2, 2, 2, 2]]",
        "[" * 100_000,
        "not JSON",
        "\u00ff",
        "9" * 5_000,
    ],
)
def test_diagrams_that_are_none(folder: Path, text: str) -> None:
    Circuit.compile(FORMULA, store=folder)
    header, _ = parts(only(folder).read_bytes())
    payload = zlib.compress(text.encode("latin1"))
    header = {**header, "bytes": len(text), "packed": True}
    if len(text) > 50 * len(payload):
        header, payload = {**header, "packed": False}, text.encode("latin1")
    only(folder).write_bytes(sealed(header, payload))
    refused(folder, "is refused")


def test_a_bomb(folder: Path) -> None:
    Circuit.compile(FORMULA, store=folder)
    header, _ = parts(only(folder).read_bytes())
    payload = zlib.compress(b"[" + b" " * 50_000_000 + b"]", 9)
    only(folder).write_bytes(sealed({**header, "bytes": 50_000_002}, payload))
    refused(folder, "claims to unpack to 50000002")
    only(folder).write_bytes(sealed({**header, "bytes": 2_000}, payload))
    refused(folder, "another size than it claims")
    with only(folder).open("wb") as file:
        file.truncate(2_000_000_000)  # takes no disk
    refused(folder, "it has 2000000000 bytes")


def test_what_compresses_too_well_is_kept_plain(folder: Path) -> None:
    formula = Formula((20_000,), (("literal", (0, 7)),), (1,))
    circuit = Circuit.compile(formula, store=folder)
    header, payload = parts(only(folder).read_bytes())
    assert not header["packed"]
    assert len(payload) == header["bytes"]
    assert same(circuit, Circuit.compile(formula, store=folder))


def test_what_is_no_file(folder: Path) -> None:
    Circuit.compile(FORMULA, store=folder)
    path = only(folder)
    path.unlink()
    path.mkdir()
    kept = Store(folder)
    with pytest.warns(RuntimeWarning) as caught:
        circuit = Circuit.compile(FORMULA, store=kept)
    assert len(caught) == 2  # neither read nor written
    assert same(circuit, Circuit.compile(FORMULA, store=False))
    path.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        refused(folder, "it is no file")


class Mutation:
    """Changes to a file, applied one after the other."""

    def __init__(self, changes: list[tuple[str, int, int]]) -> None:
        self.changes = changes

    def __repr__(self) -> str:
        return f"Mutation({self.changes})"

    def __call__(self, content: bytes) -> bytes:
        data = bytearray(content)
        for kind, place, value in self.changes:
            at = place % (len(data) + 1)
            if kind == "set" and at < len(data):
                data[at] = value
            elif kind == "insert":
                data.insert(at, value)
            elif kind == "delete":
                del data[at : at + value % 16]
            elif kind == "cut":
                del data[at:]
        return bytes(data)


mutations = st.builds(
    Mutation,
    st.lists(
        st.tuples(
            st.sampled_from(["set", "insert", "delete", "cut"]),
            st.integers(0, 5_000),
            st.integers(0, 255),
        ),
        min_size=1,
        max_size=4,
    ),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.one_of(mutations, st.binary(max_size=300)), resealed=st.booleans())
def test_no_bytes_give_a_wrong_circuit(
    tmp_path: Path, change: Mutation | bytes, resealed: bool
) -> None:
    folder = tmp_path / "circuits"
    expected = Circuit.compile(FORMULA, store=folder)
    right = only(folder).read_bytes()
    if isinstance(change, bytes):
        content = change
    elif resealed:  # with a checksum that is right, the rest is checked
        content = change(right.split(b"\n", 1)[1])
        digest = hashlib.sha256(content).hexdigest()
        content = f"byssus-circuit 1 {digest}\n".encode() + content
    else:
        content = change(right)
    only(folder).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Circuit.compile(FORMULA, store=folder)
    if not resealed or isinstance(change, bytes):
        assert same(found, expected)
    assert found(torch.ones(1, 7)).shape == (1, 6)  # at least a circuit
    only(folder).write_bytes(right)


# Size


def formula_of(number: int) -> Formula:
    return Formula((300,), (("literal", (0, number)),), (1,))


def test_the_size_is_bounded(folder: Path) -> None:
    kept = Store(folder, max_bytes=10 * 4096)
    for number in range(40):
        Circuit.compile(formula_of(number), store=kept)
        os.utime(
            folder / (Store.key(formula_of(number), None, "auto") + ".circuit"), (number, number)
        )
        Circuit.compile(formula_of(0), store=kept)
        assert kept.size <= kept.max_bytes
    assert 8 <= len(kept) <= 10
    assert kept.misses == 40  # the first one is used all the time, and stays
    assert kept.hits == 40
    kept.hits = kept.misses = 0
    Circuit.compile(formula_of(39), store=kept)
    Circuit.compile(formula_of(1), store=kept)
    assert (kept.hits, kept.misses) == (1, 1)
    kept.clear()
    assert (len(kept), kept.size) == (0, 0)
    assert bool(kept)


def test_what_is_larger_than_the_store(folder: Path) -> None:
    kept = Store(folder, max_bytes=4096)
    wide = Formula((20_000,), (("literal", (0, 7)),), (1,))
    with pytest.warns(RuntimeWarning, match=r"larger than all of the store .* max_bytes=4096"):
        Circuit.compile(wide, store=kept)
    assert len(kept) == 0


def test_leftovers_of_killed_writers_are_removed(folder: Path) -> None:
    folder.mkdir()
    old, new = folder / f".{'0' * 16}.tmp", folder / f".{'1' * 16}.tmp"
    theirs = [folder / "notes.txt", folder / "house.circuit", folder / ".editor.tmp"]
    for path in (old, new, *theirs):
        path.write_text("x" * 10_000)
    for path in (old, *theirs):
        os.utime(path, (time.time() - 7200,) * 2)
    kept = Store(folder, max_bytes=4096)
    for formula in (FORMULA, OTHER):
        Circuit.compile(formula, store=kept)
    assert not old.exists()
    assert new.exists()
    assert (len(kept), kept.size) == (1, 4096)
    kept.clear()
    assert len(kept) == 0
    assert all(path.exists() for path in theirs)


# Folders that cannot be used


def test_a_folder_that_cannot_be_written_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_text("a file")
    with pytest.warns(RuntimeWarning, match="a circuit cannot be stored in"):
        circuit = Circuit.compile(FORMULA, store=folder)
    assert same(circuit, Circuit.compile(FORMULA, store=False))
    folder.unlink()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        Circuit.compile(FORMULA, store=folder)
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_read_only_folder(folder: Path) -> None:
    Circuit.compile(FORMULA, store=folder)
    folder.chmod(0o500)
    try:
        kept = Store(folder)
        Circuit.compile(FORMULA, store=kept)
        assert kept.hits == 1
        with pytest.warns(RuntimeWarning, match="cannot be stored"):
            Circuit.compile(OTHER, store=kept)
    finally:
        folder.chmod(0o700)


# Many processes

# Processes are forked from one that has imported torch, which takes longer than all the rest.
NURSERY = """
import os, random, signal, sys, time, warnings
import torch
torch.set_num_threads(1)
warnings.simplefilter("error")
from byssus import Circuit, Store
from oracle import count, probabilities, sum_formula

folder, seconds = sys.argv[1], float(sys.argv[2])
cases = []
for a in (2, 3, 5):
    for b in (2, 3, 4):
        formula, _ = sum_formula([a, b])
        weights = probabilities(formula.widths, 1)
        cases.append((formula, weights, count(formula, weights)))

def use(store, cases):
    for formula, weights, expected in cases:
        assert torch.allclose(Circuit.compile(formula, store=store)(weights), expected)

def start(work):
    pid = os.fork()
    if pid:
        return pid
    os.nice(10)  # the killer goes first
    try:
        work()
        os._exit(0)
    except BaseException as error:
        os.write(2, repr(error).encode())
        os._exit(1)

def forever():
    store = Store(folder, max_bytes=5 * 4096)  # so small that all write all the time
    rng = random.Random(os.getpid())
    while True:
        use(store, [rng.choice(cases)])
        time.sleep(rng.random() / 10)

def finish():
    use(Store(folder), cases)

def again():
    store = Store(folder)
    use(store, cases)
    print(store.hits, store.misses, flush=True)

rng = random.Random(0)
processes = [start(forever) for _ in range(20)]
kills, end = 0, time.monotonic() + seconds
while time.monotonic() < end or kills < 20:
    time.sleep(rng.random() / 50)
    i = rng.randrange(20)
    os.kill(processes[i], signal.SIGKILL)
    _, status = os.waitpid(processes[i], 0)
    assert os.WIFSIGNALED(status), "a worker failed"
    kills += 1
    processes[i] = start(forever)
for pid in processes:
    os.kill(pid, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), "a worker failed"
print(kills, flush=True)
for work in (finish, again):
    assert os.waitpid(start(work), 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("seconds", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_twenty_processes_under_a_killer(folder: Path, seconds: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NURSERY, str(folder), str(seconds)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=seconds + 120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    kills, hits, misses = map(int, done.stdout.split())
    assert kills >= 20
    assert (hits, misses) == (9, 0)  # the second process compiles nothing
    for path in folder.glob("*.circuit"):
        first, body = path.read_bytes().split(b"\n", 1)
        assert first.split()[-1].decode() == hashlib.sha256(body).hexdigest()
    # What killed writers left is there until it is old.
    for path in folder.glob(".*.tmp"):
        os.utime(path, (0, 0))
    Circuit.compile(formula_of(0), store=Store(folder))
    assert not list(folder.glob(".*.tmp"))
