"""byssus's provenances for contexts of scallopy itself."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from byssus import ByssusError

__all__ = ["loaded", "provenance"]


def provenance(name: str, **options: Any) -> Any:
    """One of byssus's provenances, for a context of scallopy's own.

    The contexts and forward functions that scallopy makes with it are those of `byssus_scallop`
    with `backend="scallopy"`: they run whole batches at once, and have `lost`, `plan()`,
    `distribution()` and `register_blackbox()`.

    Args:
        name: "exact", "sampled", "mixed", "auto" or "nesydm".
        options: of `ScallopContext`: `samples`, `estimator`, `generator`, `nodes`, ...

    Example:
        >>> ctx = scallopy.ScallopContext(custom_provenance=byssus_scallop.provenance("exact"))
    """
    return loaded("provenance()").Provenance(name, **options)


def loaded(what: str) -> ModuleType:
    """The module that teaches scallopy; only when it is used, for it needs scallopy."""
    try:
        from . import _extension
    except ImportError as error:
        raise ByssusError(
            f"byssus_scallop.{what} needs Scallop's Python package ({error}): install it as its "
            "own site says, https://www.scallop-lang.org; `byssus doctor` says what there is"
        ) from error
    return _extension
