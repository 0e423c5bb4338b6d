"""`byssus doctor`: what byssus works with, whether it is here, and what to do where it is not."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from byssus.errors import ByssusError

__all__ = ["run"]

_SCALLOP = (
    "to have it, build 0.2.5 or newer from its source: https://www.scallop-lang.org/; "
    "without it, .scl programs run on byssus's own engine"
)
_AGAIN = "install byssus again, into this environment"


@dataclass(frozen=True)
class _Part:
    """What byssus works with.

    Attributes:
        name: as its users write it.
        distribution: as pip calls it.
        purpose: what byssus does with it.
        mend: what to do where it is missing or broken.
        module: what is imported.
        check: tries it; it raises, or has something more to say.
    """

    name: str
    distribution: str
    purpose: str
    mend: str
    module: str
    check: Callable[[Any], str]


@dataclass(frozen=True)
class _Finding:
    """What was seen of a part; `problem` is None where it works."""

    version: str | None
    found: bool
    problem: str | None
    notes: tuple[str, ...] = ()


def run(*, as_json: bool) -> None:
    """Say what is here.

    Raises:
        ByssusError: if byssus cannot run a program with it.
    """
    sys.stdout.write(
        f"byssus {_version('byssus') or '(not installed)'} on Python {platform.python_version()}\n"
    )
    findings = {}
    for part in _PARTS:
        finding = findings[part.name] = _examine(part)
        _show(part.name, finding, part.purpose, part.mend)
    works = [name for name, finding in findings.items() if finding.problem is None]
    plugin = findings["scallop.plugin"] = _plugin()
    _show("scallop.plugin", plugin, "@blackbox in the command scallop", _AGAIN)
    if as_json:
        found = {
            name: {"version": f.version, "found": f.found, "problem": f.problem}
            for name, f in findings.items()
        }
        sys.stdout.write(json.dumps(found) + "\n")
    if not {"torch", "PySDD"} <= set(works) or set(_ENGINES).isdisjoint(works):
        raise ByssusError(
            f"torch, PySDD and one of {', '.join(_ENGINES)} are needed, and what works here is: "
            f"{', '.join(works) or 'nothing'}; the list says what to do"
        )


def _examine(part: _Part) -> _Finding:
    version, problem, notes = _version(part.distribution), None, ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")  # such as deprecations, which are for its authors
        warnings.simplefilter("always", UserWarning)
        try:
            notes = part.check(importlib.import_module(part.module))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of Scallop's is no Exception
            # byssus's library lies in ProbLog's folder, which without ProbLog is an empty package
            absent = isinstance(error, ModuleNotFoundError) and _package(error) == part.module
            if absent and version is None:
                return _Finding(None, False, "not installed")
            message = (str(error).splitlines() or [""])[0]
            problem = message if isinstance(error, ByssusError) else _named(error, message)
    warned = dict.fromkeys(str(warning.message) for warning in caught)
    return _Finding(version, True, problem, tuple(note for note in (notes, *warned) if note))


def _package(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]


def _named(error: BaseException, message: str) -> str:
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _show(name: str, finding: _Finding, purpose: str, mend: str) -> None:
    version = finding.version or "no version"
    if finding.problem is None:
        state, lines = version, finding.notes
    elif finding.found:
        state, lines = "broken", (f"{version}: {finding.problem}", *finding.notes, mend)
    else:
        state, lines = "missing", (mend,)
    sys.stdout.write(f"{name:<16}{state:<14}{purpose}\n")
    sys.stdout.writelines(f"{'':<16}- {line}\n" for line in lines)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch(torch: Any) -> str:
    if not torch.cuda.is_available():
        return "no CUDA device: on the CPU"
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"CUDA: {', '.join(devices)}"


def _pysdd(_: Any) -> str:
    manager = importlib.import_module("pysdd.sdd").SddManager(var_count=2)
    return _expect((manager.literal(1) & manager.literal(2)).model_count(), 1)


def _embedded(engine: Any) -> str:
    context = engine.ScallopContext(provenance="exact", backend="embedded")
    context.add_program("rel a = {0.5::(1)} rel b(x + 1) = a(x)")
    context.run()
    return _expect(list(context.relation("b")), [(0.5, (2,))]) or f"lark {_version('lark')}"


def _scallopy(scallopy: Any) -> str:
    version = _version("scallopy") or ""
    if version.startswith("0.1."):
        raise ByssusError("older than 0.2.5, for which byssus is made")
    if not hasattr(scallopy, "ScallopContext"):
        where = getattr(scallopy, "__file__", None) or list(getattr(scallopy, "__path__", []))
        raise ByssusError(f"no ScallopContext in {where}, so it was not built")
    truth = type(
        "Truth",
        (scallopy.ScallopProvenance,),
        {
            "zero": lambda _: False,
            "one": lambda _: True,
            "add": lambda _, a, b: a or b,
            "mult": lambda _, a, b: a and b,
            "negate": lambda _, a: not a,
            "saturated": lambda _, old, new: old == new,
        },
    )
    context = scallopy.ScallopContext(provenance="custom", custom_provenance=truth())
    context.add_program("rel a = {1} rel b(x + 1) = a(x)")
    context.run()
    return _expect(list(context.relation("b")), [(True, (2,))]) or "custom provenances run"


def _problog(_: Any) -> str:
    importlib.import_module("byssus_problog")  # which needs much of ProbLog's inside
    return ""


def _deepproblog(_: Any) -> str:
    importlib.import_module("byssus_deepproblog")  # which needs much of DeepProbLog's inside
    return ""


def _openai(_: Any) -> str:
    importlib.import_module("byssus.llm.cache")
    return str(importlib.import_module("byssus.llm._settings").described())


def _expect(found: Any, expected: Any) -> str:
    if found != expected:
        raise ByssusError(f"a program gives {found!r}, not {expected!r}")
    return ""


def _plugin() -> _Finding:
    plugins = importlib.metadata.entry_points(group="scallop.plugin")
    if any(plugin.value.startswith("byssus_scallop") for plugin in plugins):
        return _Finding(_version("byssus"), True, None)
    return _Finding(None, False, "not registered in the entry point group scallop.plugin")


_PARTS = (
    _Part(
        "torch",
        "torch",
        "tensors and gradients",
        "to install it: https://pytorch.org/get-started/locally/",
        "torch",
        _torch,
    ),
    _Part(
        "PySDD",
        "pysdd",
        "exact provenances",
        "to install it: https://pysdd.readthedocs.io/",
        "pysdd",
        _pysdd,
    ),
    _Part(
        "byssus_scallop",
        "byssus",
        ".scl programs, on an engine of byssus's own",
        _AGAIN,
        "byssus_scallop",
        _embedded,
    ),
    _Part("scallopy", "scallopy", ".scl programs inside Scallop", _SCALLOP, "scallopy", _scallopy),
    _Part(
        "ProbLog",
        "problog",
        "ProbLog programs",
        "to install it: https://problog.readthedocs.io/",
        "problog",
        _problog,
    ),
    _Part(
        "DeepProbLog",
        "deepproblog",
        "DeepProbLog models",
        "to install it: https://github.com/ML-KULeuven/deepproblog",
        "deepproblog",
        _deepproblog,
    ),
    _Part(
        "openai",
        "openai",
        "language models",
        "to install it: pip install 'byssus[llm]'",
        "openai",
        _openai,
    ),
)

_ENGINES = ("byssus_scallop", "scallopy", "ProbLog", "DeepProbLog")
