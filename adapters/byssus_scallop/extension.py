"""byssus's provenances for contexts of scallopy itself."""

from __future__ import annotations

from typing import Any

from byssus import ByssusError

__all__ = ["provenance"]


def provenance(name: str, **options: Any) -> Any:
    """One of byssus's provenances, for a context of scallopy's own.

    The contexts and forward functions that are made with it run whole batches at once, as those of
    `byssus_scallop` do. What failed calls have lost is in `lost` of the provenance, what the last
    run has chosen in `plan()`.

    Args:
        name: "exact", "sampled", "mixed" or "auto".
        options: of `ScallopContext`: `samples`, `estimator`, `generator`, `nodes`, ...

    Example:
        >>> ctx = scallopy.ScallopContext(custom_provenance=byssus_scallop.provenance("exact"))
    """
    try:
        # Only when it is used: this one needs scallopy.
        from ._extension import Provenance
    except ImportError as error:
        raise ByssusError(
            f"provenances for scallopy need scallopy ({error}): install it as its own site says, "
            "https://www.scallop-lang.org; `byssus doctor` says what there is"
        ) from error
    return Provenance(name, **options)
