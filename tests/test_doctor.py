"""`byssus doctor`: what is here, missing or broken; and which engine `byssus run` takes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import byssus_scallop
from byssus import ByssusError, _doctor
from byssus.cli import main
from byssus_scallop import _cli

Install = Callable[[str, Any, str | None], None]
Doctor = Callable[[], tuple[int, str, dict[str, Any]]]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a module, or none, in place of another, as the given version of its distribution."""
    versions: dict[str, str | None] = {}
    real = importlib.metadata.version

    def version(distribution: str) -> str:
        if distribution not in versions:
            return real(distribution)
        found = versions[distribution]
        if found is None:
            raise importlib.metadata.PackageNotFoundError(distribution)
        return found

    def put(name: str, module: Any, number: str | None) -> None:
        for part in [part for part in sys.modules if part.startswith(f"{name}.")]:
            monkeypatch.delitem(sys.modules, part)
        monkeypatch.setitem(sys.modules, name, module)
        versions[name] = number

    monkeypatch.setattr(importlib.metadata, "version", version)
    return put


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """The exit status, what was printed, and the JSON object."""

    def run() -> tuple[int, str, dict[str, Any]]:
        status = main(["doctor", "--json"])
        printed = capsys.readouterr()
        found: dict[str, Any] = json.loads(printed.out.splitlines()[-1])
        return status, printed.out + printed.err, found

    return run


class Scallop:
    """A scallopy, as far as the doctor goes; `fault` is raised by its engine."""

    ScallopProvenance = object

    def __init__(self, fault: BaseException | None = None, answer: Any = (True, (2,))) -> None:
        self.fault, self.answer = fault, answer

    def ScallopContext(self, provenance: str, custom_provenance: Any) -> Any:  # noqa: N802
        assert provenance == "custom"

        def run() -> None:
            if self.fault:
                raise self.fault
            assert custom_provenance.add(custom_provenance.zero(), custom_provenance.one())

        return SimpleNamespace(add_program=len, run=run, relation=lambda _: [self.answer])


class Panic(BaseException):
    pass


def command(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_this_environment() -> None:
    done = command("-m", "byssus.cli", "doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [*found] == [
        "torch",
        "PySDD",
        "byssus_scallop",
        "scallopy",
        "ProbLog",
        "DeepProbLog",
        "openai",
        "scallop.plugin",
    ]
    assert found["torch"] == {
        "version": importlib.metadata.version("torch"),
        "found": True,
        "problem": None,
    }
    assert found["byssus_scallop"]["problem"] is None
    assert f"lark {importlib.metadata.version('lark')}" in done.stdout


def test_the_core_imports_no_engine() -> None:
    engines = ("byssus_scallop", "byssus_problog", "scallopy", "problog", "deepproblog")
    done = command(
        "-c", f"import sys, byssus.cli; sys.exit(any(e in sys.modules for e in {engines}))"
    )
    assert done.returncode == 0, done.stderr


def test_scallopy_itself(doctor: Doctor) -> None:
    pytest.importorskip("scallopy", reason="scallopy is not installed", exc_type=ImportError)
    _, text, found = doctor()
    assert found["scallopy"]["problem"] is None
    assert "custom provenances run" in text


def test_a_build_that_does_not_load(tmp_path: Path) -> None:
    broken = 'raise ImportError("libscallop.so: cannot open\\nand more")\n'
    (tmp_path / "scallopy.py").write_text(broken, encoding="utf-8")
    done = command("-m", "byssus.cli", "doctor", "--json", path=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["scallopy"]["found"]
    assert found["scallopy"]["problem"] == "ImportError: libscallop.so: cannot open"
    assert "https://www.scallop-lang.org/" in done.stdout


def test_a_folder_that_was_not_built(tmp_path: Path) -> None:
    (tmp_path / "scallopy").mkdir()
    (tmp_path / "scallopy" / "__init__.py").touch()
    done = command("-m", "byssus.cli", "doctor", path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"no ScallopContext in {tmp_path / 'scallopy'}" in done.stdout


@pytest.mark.parametrize(
    ("module", "name", "page"),
    [
        ("scallopy", "scallopy", "https://www.scallop-lang.org/"),
        ("problog", "ProbLog", "https://problog.readthedocs.io/"),
        ("deepproblog", "DeepProbLog", "https://github.com/ML-KULeuven/deepproblog"),
        ("openai", "openai", "pip install 'byssus[llm]'"),
    ],
)
def test_a_missing_engine(
    module: str, name: str, page: str, install: Install, doctor: Doctor
) -> None:
    install(module, None, None)
    status, text, found = doctor()
    assert status == 0
    assert page in text
    assert f"{name:<16}missing" in text
    assert found[name] == {"version": None, "found": False, "problem": "not installed"}


def test_an_installed_engine_that_is_not_there(install: Install, doctor: Doctor) -> None:
    install("problog", None, "2.3.0")
    status, text, found = doctor()
    assert status == 0
    assert found["ProbLog"]["found"]
    assert found["ProbLog"]["problem"].startswith("ModuleNotFoundError: ")
    assert "ProbLog         broken" in text
    assert "- 2.3.0: ModuleNotFoundError" in text


@pytest.mark.parametrize(
    ("module", "version", "problem"),
    [
        (Scallop(), "0.2.5", None),
        (Scallop(), None, None),
        (Scallop(), "0.1.0", "older than 0.2.5, for which byssus is made"),
        (ModuleType("scallopy"), "0.2.5", "no ScallopContext in [], so it was not built"),
        (Scallop(Panic("in `add`\nbacktrace")), "0.2.5", "Panic: in `add`"),
        (Scallop(SystemExit()), "0.2.5", "SystemExit"),
        (
            Scallop(answer=(True, (3,))),
            "0.2.5",
            "a program gives [(True, (3,))], not [(True, (2,))]",
        ),
    ],
)
def test_scallopy(
    module: Any, version: str | None, problem: str | None, install: Install, doctor: Doctor
) -> None:
    install("scallopy", module, version)
    status, text, found = doctor()
    assert status == 0
    assert found["scallopy"] == {"version": version, "found": True, "problem": problem}
    assert ("custom provenances run" in text) == (problem is None)


@pytest.mark.parametrize(
    ("value", "found"),
    [("byssus_scallop.plugin:ByssusPlugin", True), ("others.byssus_scallop:Plugin", False)],
)
def test_the_plugin(
    value: str, found: bool, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entry_points(group: str) -> EntryPoints:
        return EntryPoints(
            [EntryPoint("byssus", value, group)] if group == "scallop.plugin" else []
        )

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    status, text, json_ = doctor()
    assert status == 0
    assert json_["scallop.plugin"]["found"] == found
    assert (json_["scallop.plugin"]["problem"] is None) == found
    assert ("scallop.plugin  missing" in text) != found


def test_devices(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"card {i}")
    assert "card 0, card 1" in doctor()[1]


def test_without_what_it_needs(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> bool:
        raise RuntimeError("driver\nmismatch")

    monkeypatch.setattr(torch.cuda, "is_available", fail)
    status, text, found = doctor()
    assert status == 1
    assert found["torch"]["problem"] == "RuntimeError: driver"
    assert "byssus: torch, PySDD and one of byssus_scallop, scallopy" in text


def test_without_any_engine(
    install: Install, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("scallopy", "problog", "deepproblog", "openai"):
        install(name, None, None)
    monkeypatch.delattr(byssus_scallop, "ScallopContext")
    status, text, found = doctor()
    assert status == 1
    assert found["byssus_scallop"]["problem"].startswith("AttributeError: ")
    assert "what works here is: torch, PySDD;" in text


def test_an_interrupt_is_none_of_its_findings(install: Install) -> None:
    install("scallopy", Scallop(KeyboardInterrupt()), "0.2.5")
    with pytest.raises(KeyboardInterrupt):
        _doctor.run(as_json=False)


@pytest.mark.parametrize(
    ("options", "backend"),
    [
        ([], "auto"),
        (["--backend", "embedded"], "embedded"),
        (["--backend", "scallopy"], "scallopy"),
    ],
)
def test_run_takes_a_backend(
    options: list[str], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def context(**arguments: Any) -> None:
        asked.append(arguments["backend"])
        raise ByssusError("enough")

    monkeypatch.setattr(_cli, "ScallopContext", context)
    assert main(["run", "any.scl", *options]) == 1
    assert asked == [backend]


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(SystemExit) as refusal:
        main(["run", "any.scl", "--backend", "souffle"])
    assert refusal.value.code == 2
