"""From sampled worlds to predictions: who votes for what."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from byssus.diffusion.program import WorldProgram
from byssus.distribution import Distribution
from byssus.estimators import Frequencies, Membership, Sample
from byssus.provenance.sampled import mass_lost
from byssus.worlds import alike, number_worlds

__all__ = ["Prediction", "predict"]


@dataclass(frozen=True)
class Prediction:
    """What a model says of a batch.

    Attributes:
        distribution: over whole outputs: how many of the worlds give each. All values of an output
            of one dimension; else the outputs that occur. The share of worlds whose calls failed
            is `distribution.lost`.
        outputs: the output chosen for each example.
        codes: the same as positions among the values of each dimension; -1 where all worlds
            failed.
        concepts: the position of the value chosen for each column, -1 beyond the end of lists.
        marginals: for each column how often each value occurs among the worlds.
        worlds: the worlds that voted.
    """

    distribution: Distribution
    outputs: list[Hashable]
    codes: Int[Tensor, "batch dimensions"]
    concepts: Int[Tensor, "batch columns"]
    marginals: tuple[Float[Tensor, "batch width"], ...]
    worlds: Int[Tensor, "batch votes columns"]


def predict(
    program: WorldProgram,
    worlds: Int[Tensor, "batch votes columns"],
    complete: Int[Tensor, "batch votes all"],
    strategy: str,
    mode: str,
) -> Prediction:
    """Let worlds vote.

    Args:
        program: what they are worlds of.
        worlds: the worlds, without the program's own facts.
        complete: the worlds with them.
        strategy: "PTM", "PMM", "TMP" or "MMP".
        mode: "true" or "marginal".
    """
    given = program.outputs(complete)
    widths = program.concept_widths
    marginals = tuple(_frequencies(worlds[:, :, c], width) for c, width in enumerate(widths))
    concepts = _vote(worlds, widths, whole=mode == "true", pads=True)
    if strategy in ("PTM", "PMM"):
        codes = _vote(given, program.sizes, whole=strategy == "PTM")
    else:
        world = _vote(complete, program.widths, whole=strategy == "TMP", pads=True)
        codes = program.outputs(world)
    failed = (codes < 0).any(1).tolist()
    outputs = [
        None if fail else program.value(row)
        for row, fail in zip(codes.tolist(), failed, strict=True)
    ]
    return Prediction(
        _distribution(program, worlds, given), outputs, codes, concepts, marginals, worlds
    )


def _distribution(program: WorldProgram, worlds: Tensor, given: Tensor) -> Distribution:
    """The frequencies of outputs."""
    batch, votes = worlds.shape[:2]
    number, distinct = number_worlds(given, program.sizes)
    kept = (distinct >= 0).all(1)
    values: list[Hashable]
    if len(program.sizes) == 1:
        values = [program.value([code]) for code in range(program.sizes[0])]
        output = distinct[:, 0]
    else:
        values = [program.value(codes) for codes in distinct[kept].tolist()]
        output = kept.cumsum(0) - 1
    flat = number.flatten()
    valid = kept[flat].nonzero()[:, 0]
    membership = Membership(valid, output[flat[valid]])
    sample = Sample(*alike((batch, votes), worlds), membership, len(values), lambda _: membership)
    failed = (~kept[flat]).nonzero()[:, 0]
    lost = mass_lost(sample, Membership(failed, torch.zeros_like(failed)))
    return Distribution(
        values, sample=sample, estimator=Frequencies(), lost=lost, domain=program.output
    )


def _frequencies(values: Int[Tensor, "batch votes"], size: int) -> Float[Tensor, "batch size"]:
    """How often each value occurs, -1 not counted, as a share of the votes."""
    counts = torch.zeros(len(values), size + 1, device=values.device)
    counts.scatter_add_(1, values + 1, torch.ones_like(values, dtype=counts.dtype))
    return counts[:, 1:] / values.shape[1]


def _vote(
    rows: Int[Tensor, "batch votes columns"],
    widths: Sequence[int],
    *,
    whole: bool,
    pads: bool = False,
) -> Int[Tensor, "batch columns"]:
    """The most frequent row, or in each column the most frequent value; see `_most_frequent`."""
    if whole:
        return _most_frequent(rows, widths, pads)
    each = [_most_frequent(rows[:, :, c, None], (width,), pads) for c, width in enumerate(widths)]
    return torch.cat(each, 1)


def _most_frequent(
    rows: Int[Tensor, "batch votes columns"], widths: Sequence[int], pads: bool = False
) -> Int[Tensor, "batch columns"]:
    """The most frequent row of each example, the smallest of several.

    Args:
        rows: what is voted for; one with -1 in it only if there is no other, unless it is padding.
        widths: the number of values of each column.
        pads: whether -1 is padding.
    """
    number, distinct = number_worlds(rows, widths)  # numbered in ascending order
    count = len(distinct)
    example = torch.arange(len(rows), device=rows.device)[:, None]
    pairs, votes = torch.unique(example * count + number, return_counts=True)
    if not pads:
        votes = votes * (distinct[pairs % count] >= 0).all(1)
    best = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    rank = votes * count + (count - 1 - pairs % count)
    best = best.scatter_reduce(0, pairs // count, rank, "amax")
    return distinct[count - 1 - best % count]
