"""The tests of Scallop programs run on both backends: same test, same answers."""

from __future__ import annotations

from typing import Any

import pytest
from scallop import running

from byssus_scallop import context


@pytest.fixture(params=["embedded", "scallopy"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `backend="auto"` means in the test.

    A test, a module or a case that is marked `embedded("why")` runs on the embedded engine alone.
    """
    name: str = request.param
    monkeypatch.setattr(running, "BACKEND", name)
    chosen = context._context_class

    def class_of(backend: str, ours: bool) -> Any:
        return chosen(name if backend == "auto" and ours else backend, ours)

    monkeypatch.setattr(context, "_context_class", class_of)
    return name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Drop what the marker says is not for Scallop, and skip the rest where there is none."""
    try:
        import scallopy
    except ImportError:
        scallopy = None
    kept = []
    for item in items:
        inside = getattr(item, "callspec", None) and item.callspec.params.get("backend")
        if inside == "scallopy":
            if item.get_closest_marker("embedded"):
                continue
            if scallopy is None:
                item.add_marker(pytest.mark.skip(reason="scallopy is not installed"))
        kept.append(item)
    items[:] = kept
