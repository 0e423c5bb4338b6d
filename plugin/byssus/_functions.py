"""Functions of Python files that programs name."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from byssus.errors import ByssusError

__all__ = ["find_function", "load_file", "load_function"]

_LOCK = threading.RLock()
_MODULES: dict[tuple[Path, int], ModuleType] = {}


def load_function(file: Path, path: str) -> Callable[..., Any]:
    """A function of a file; see `load_file` and `find_function`."""
    return find_function(load_file(file), path, str(file))


def find_function(module: ModuleType, path: str, where: str) -> Callable[..., Any]:
    """A function of a module.

    Args:
        module: the module.
        path: the function's name, or a dotted path to it.
        where: what messages call the module.

    Raises:
        ByssusError: the module has nothing to call of this name.
    """
    try:
        found: Any = functools.reduce(getattr, path.split("."), module)
    except AttributeError:
        own = inspect.getmembers(module, inspect.isfunction)
        known = [name for name, value in own if value.__module__ == module.__name__]
        there = f"it has {', '.join(known)}" if known else "it has no functions"
        raise ByssusError(f"{where} has no function {path!r}; {there}") from None
    if not callable(found):
        raise ByssusError(f"{path} in {where} is {found!r}, which cannot be called")
    return cast(Callable[..., Any], found)


def load_file(file: Path) -> ModuleType:
    """Run a file as a module: once, and again where it has changed.

    Raises:
        ByssusError: the file is not there, or cannot be run.
    """
    file = file.resolve()
    try:
        modified = file.stat().st_mtime_ns
    except OSError as error:
        raise ByssusError(f"there is no file {file.name} in {file.parent}") from error
    with _LOCK:
        if (file, modified) not in _MODULES:
            try:
                _MODULES[file, modified] = _run(file)
            except Exception as error:
                raise ByssusError(
                    f"{file} cannot be loaded, {type(error).__name__}: {error}"
                ) from error
        return _MODULES[file, modified]


def _run(file: Path) -> ModuleType:
    """Run a file as a module, from its source: what Python has cached may be a second old."""
    module = ModuleType(f"byssus.functions.{file.stem}_{abs(hash(file)):x}")
    module.__file__ = str(file)
    code = compile(file.read_bytes(), str(file), "exec")
    # Dataclasses and pickle look their module up.
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(file.parent))
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    finally:
        sys.path.remove(str(file.parent))
    return module
