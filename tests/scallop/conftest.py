"""The tests that run Scallop programs run on both backends: same test, same answers."""

from __future__ import annotations

import functools
import re
from collections.abc import Generator
from typing import Any

import pytest

from byssus import ByssusError
from byssus_scallop import context
from byssus_scallop.context import BYSSUS
from scallop import running

_BOTH = frozenset(
    f"test_{name}"
    for name in (
        "blackboxes",
        "book_language",
        "book_probabilistic",
        "context",
        "exact",
        "llm",
        "module",
        "nesydm",
        "problog_pairs",
        "random_programs",
        "regressions",
        "run",
        "sampled",
        "scallop_suite",
    )
)
"""The modules whose programs run on both; the others run none, or none on a backend."""

_SOME = frozenset(("test_book_scallopy",))
"""Of these the tests that are parametrised; the others run under provenances of Scallop's own."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on both backends, unless it is marked `embedded("why")`."""
    module = metafunc.module.__name__.rpartition(".")[2]
    both = module in _BOTH or (
        module in _SOME and not {"provenance", "case"}.isdisjoint(metafunc.fixturenames)
    )
    if both and not metafunc.definition.get_closest_marker("embedded"):
        metafunc.parametrize("backend", ["embedded", "scallopy"], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run once what is under a provenance of Scallop's own, which has one backend."""
    again = [item for item in items if _is_again(getattr(item, "callspec", None))]
    items[:] = [item for item in items if item not in set(again)]
    config.hook.pytest_deselected(items=again)


def _is_again(callspec: Any) -> bool:
    given = {} if callspec is None else callspec.params
    return given.get("backend") == "scallopy" and given.get("provenance", "exact") not in BYSSUS


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Dates, durations and tensors are the embedded engine's: a difference, which is documented."""
    try:
        return (yield)
    except ByssusError as error:
        if re.search(r"type (DateTime|Duration|Tensor).* does not exchange", str(error)):
            pytest.skip(f"a difference: {error}")
        raise


@pytest.fixture(autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `backend="auto"` means in the test."""
    name: str = getattr(request, "param", "embedded")
    if name == "scallopy":
        if request.node.get_closest_marker("embedded"):  # one case of a test
            pytest.skip(f"a difference: {request.node.get_closest_marker('embedded').args[0]}")
        pytest.importorskip("scallopy", reason="scallopy is not installed")
        # Not "auto", which would run on the embedded engine what Scallop cannot.
        from byssus_scallop._inside import Inside

        monkeypatch.setattr(
            Inside, "__init__", functools.partialmethod(Inside.__init__, backend="scallopy")
        )
    monkeypatch.setattr(running, "BACKEND", name)
    chosen = context._context_class

    def class_of(backend: str, ours: bool) -> Any:
        return chosen(name if backend == "auto" and ours else backend, ours)

    monkeypatch.setattr(context, "_context_class", class_of)
    return name
