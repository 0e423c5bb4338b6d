"""Python modules that a program loads, each database with a registry of its own.

ProbLog notes in one attribute of one class, `problog_export.database`, where the functions of a
module go, and its libraries ask there later which database they serve: of several, the last one
loaded. Here a module that imports `problog.extern` gets a copy made for its database. Nothing that
is shared changes, so programs in other threads, and ProbLog's own, are not disturbed.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import problog
import problog.extern
from problog.clausedb import ClauseDB


def importer(database: ClauseDB) -> Callable[..., ModuleType]:
    """An `__import__` by which `problog.extern` is a copy of its own, for one database."""
    spec = importlib.util.find_spec("problog.extern")
    assert spec is not None
    assert spec.loader is not None
    extern = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extern)
    extern.problog_export.database = database
    package = ModuleType("problog")
    vars(package).update(vars(problog), extern=extern)
    ours: dict[int, ModuleType] = {id(problog.extern): extern, id(problog): package}

    def import_(name: str, *about: Any, **more: Any) -> ModuleType:
        module = builtins.__import__(name, *about, **more)
        return ours.get(id(module), module)

    return import_


def load(name: str, file: str, import_: Callable[..., ModuleType]) -> None:
    """Run a Python file as a module of this name, with an `__import__` of its own."""
    loader = importlib.machinery.SourceFileLoader(name, file)
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": import_}
    loader.exec_module(module)
