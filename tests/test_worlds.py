"""Worlds: what is drawn, how often, and what is told apart."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byssus import ByssusError, Concepts, exhaustive, independent
from byssus.worlds import count_repeats, number_worlds
from oracle import concepts_of, probabilities, world_weights, worlds_of


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """How far counts are off, in standard deviations of the chi-square distribution."""
    cells = expected > 0
    assert not counts[~cells].any()
    statistic = ((counts - expected)[cells] ** 2 / expected[cells]).sum()
    freedom = int(cells.sum()) - 1
    return float((statistic - freedom) / (2 * freedom) ** 0.5)


def test_frequencies() -> None:
    widths = (3, 2, 3)
    probs = probabilities(widths, 2)
    probs[0, :3] = torch.tensor([0.0, 0.25, 0.75])
    draws = 20_000
    worlds = independent(concepts_of(probs, widths), draws, torch.Generator().manual_seed(0))
    place = {world: i for i, world in enumerate(worlds_of(widths))}
    for row, expected in zip(worlds.indices.tolist(), world_weights(probs, widths), strict=True):
        counts = torch.zeros(len(place), dtype=torch.float64)
        for world in row:
            counts[place[tuple(world)]] += 1
        assert chi_square(counts, draws * expected) < 4


def test_reproducible(device: torch.device) -> None:
    concepts = concepts_of(probabilities((4, 5), 3).to(device), (4, 5))

    def draw(seed: int) -> torch.Tensor:
        worlds = independent(concepts, 20, torch.Generator().manual_seed(seed))
        assert worlds.indices.device.type == device.type
        return worlds.indices

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    torch.manual_seed(3)
    one = independent(concepts, 20).indices
    torch.manual_seed(3)
    assert torch.equal(one, independent(concepts, 20).indices)


def test_certain_and_slightly_negative_probabilities() -> None:
    probs = torch.tensor([[0.0, 1.0, 1.0 + 1e-8, -1e-8]])
    worlds = independent(concepts_of(probs, (2, 2)), 50)
    assert (worlds.indices == torch.tensor([1, 0])).all()
    assert worlds.distinct.sum() == 1
    assert not worlds.complete


def test_no_gradient_through_the_draw() -> None:
    probs = probabilities((3,), 1).requires_grad_()
    assert not independent(concepts_of(probs, (3,)), 5).indices.requires_grad


@settings(max_examples=50)
@given(
    st.lists(st.integers(1, 3), max_size=3),
    st.integers(1, 3),
    st.integers(1, 12),
    st.integers(0, 99),
    st.booleans(),
)
def test_distinct(widths: list[int], batch: int, samples: int, seed: int, masked: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, len(widths), generator=generator) < 0.5 if masked else None
    concepts = Concepts(probabilities(widths, batch, seed=seed), tuple(widths), mask)
    worlds = independent(concepts, samples, generator)
    assert worlds.indices.shape == (batch, samples, len(widths))
    if mask is not None:
        assert ((worlds.indices == -1) == ~mask[:, None]).all()
    repeats = count_repeats(worlds.indices, widths)
    for b, row in enumerate(worlds.indices.tolist()):
        seen: list[tuple[int, ...]] = []
        for i, world in enumerate(map(tuple, row)):
            assert bool(worlds.distinct[b, i]) == (world not in seen)
            assert repeats[b, i] == row.count(list(world))
            seen.append(world)


@pytest.mark.parametrize("widths", [(2, 3), (10,) * 30])  # one key; too large for one key
def test_number_worlds(widths: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(-1, 2, (2, 5, len(widths)), generator=generator)
    indices[1, :2] = indices[0, 3:]
    number, distinct = number_worlds(indices, widths)
    assert number.shape == (2, 5)
    assert torch.equal(distinct[number], indices)
    assert len(distinct.unique(dim=0)) == len(distinct) == len(indices.flatten(0, 1).unique(dim=0))


@given(st.lists(st.integers(1, 4), max_size=4))
def test_exhaustive(widths: list[int]) -> None:
    worlds = exhaustive(concepts_of(probabilities(widths, 2), widths))
    assert worlds.complete
    assert worlds.distinct.all()
    for row in worlds.indices.tolist():
        assert [tuple(world) for world in row] == list(worlds_of(widths))


def test_refusals() -> None:
    concepts = concepts_of(probabilities((4, 5), 1), (4, 5))
    assert exhaustive(concepts, 20).complete
    with pytest.raises(ByssusError, match="20 worlds, and samples=19"):
        exhaustive(concepts, 19)
    with pytest.raises(ByssusError, match="samples=0"):
        independent(concepts, 0)
    with pytest.raises(ByssusError, match="lists and permutations"):
        exhaustive(Concepts(concepts.probs, (4, 5), torch.tensor([[True, False]])))


def test_gather_and_of() -> None:
    widths = (2, 3)
    probs = probabilities(widths, 2)
    concepts = concepts_of(probs, widths)
    assert torch.equal(concepts.of(1), probs[:, 2:])
    gathered = concepts.gather(torch.tensor([[[1, -1], [0, 2]], [[-1, -1], [1, 0]]]))
    assert torch.equal(gathered[0], torch.tensor([[probs[0, 1], 1], [probs[0, 0], probs[0, 4]]]))
    assert torch.equal(gathered[1, 0], torch.ones(2))
    worlds = exhaustive(concepts)
    torch.testing.assert_close(
        concepts.gather(worlds.indices).prod(-1), world_weights(probs, widths)
    )
    assert worlds.indices.shape[1] == prod(widths)


def test_permuted_concepts_are_drawn_together() -> None:
    probs = probabilities((3, 3, 3, 2), 2)
    concepts = Concepts(probs, (3, 3, 3, 2), permuted=((0, 3),))
    worlds = independent(concepts, 200, torch.Generator().manual_seed(0))
    assert (worlds.indices[..., :3].sort(-1).values == torch.arange(3)).all()
    assert set(worlds.indices[..., 3].unique().tolist()) == {0, 1}
