"""Estimators: the published numbers, direct implementations, and unbiasedness in many draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor
from torch.nn.functional import binary_cross_entropy

from byssus import (
    ISED,
    RLOO,
    Boolean,
    ByssusError,
    Distinct,
    Distribution,
    IndeCateR,
    Integer,
    List,
    Permutation,
    Tuple,
    Worlds,
    blackbox,
    independent,
)
from byssus.estimators import Membership, Sample, as_estimator
from byssus.worlds import Concepts, count_repeats
from oracle import brute_force, concepts_of, gradient, probabilities, raw, tangent

NAMES = ["auto", "distinct", "ised", "rloo", "indecater"]


def sampled(
    probs: Tensor,
    widths: Sequence[int],
    indices: Tensor,
    output: Callable[[tuple[int, ...]], int | None],
    outputs: int,
) -> Sample:
    """A sample of these worlds (batch, k, concepts); None is an output that was lost."""

    def evaluate(indices: Tensor) -> Membership:
        found = [output(tuple(world)) for world in indices.flatten(0, 1).tolist()]
        world = [i for i, y in enumerate(found) if y is not None]
        codes = [y for y in found if y is not None]
        return Membership(tensor(world, dtype=torch.int64), tensor(codes, dtype=torch.int64))

    seen = [[row.index(world) == i for i, world in enumerate(row)] for row in indices.tolist()]
    worlds = Worlds(indices, tensor(seen))
    return Sample(concepts_of(probs, widths), worlds, evaluate(indices), outputs, evaluate)


def drawn(
    probs: Tensor,
    widths: Sequence[int],
    k: int,
    output: Callable[[tuple[int, ...]], int | None],
    outputs: int,
    seed: int = 0,
) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    worlds = independent(concepts_of(probs, widths), k, generator)
    return sampled(probs, widths, worlds.indices, output, outputs)


# The paper's own numbers


def appendix_a1(dtype: torch.dtype = torch.float64) -> Sample:
    probs = raw(tensor([[0.1, 0.6, 0.3, 0.2, 0.1, 0.7]], dtype=dtype))
    return sampled(probs, (3, 3), tensor([[[1, 2], [1, 0], [2, 1]]]), sum, 5)


def test_ised_appendix_a1() -> None:
    sample = appendix_a1()
    add_mult = tensor([[0, 0.12, 0, 0.45, 0]], dtype=torch.float64)
    min_max = tensor([[0, 0.2, 0, 0.6, 0]], dtype=torch.float64)
    torch.testing.assert_close(ISED().aggregate(sample).exp(), add_mult)
    torch.testing.assert_close(ISED("min-max").aggregate(sample).exp(), min_max)
    target = tensor([[0, 0, 0, 1.0, 0]], dtype=torch.float64)
    for semiring, vector in [("add-mult", add_mult), ("min-max", min_max)]:
        unit = vector / math.sqrt(float((vector**2).sum()))
        for paper in (False, True):
            ised = ISED(semiring, paper=paper)
            torch.testing.assert_close(ised.scores(sample), unit)
            torch.testing.assert_close(
                ised.loss(sample, target), binary_cross_entropy(unit, target)
            )
    norm = math.hypot(0.12, 0.45)
    loss = -(math.log(0.45 / norm) + math.log(1 - 0.12 / norm)) / 5
    assert ISED().loss(sample, target).item() == pytest.approx(loss)


def test_exact_numbers_of_appendix_a1() -> None:
    add = blackbox(Integer(0, 2), Integer(0, 2), output=Integer(0, 4))(lambda a, b: a + b)
    p1, p2 = tensor([[0.1, 0.6, 0.3]]), tensor([[0.2, 0.1, 0.7]])
    expected = tensor([[0.02, 0.13, 0.19, 0.45, 0.21]])
    torch.testing.assert_close(add(p1, p2).probs, expected)


def test_ised_section_3_3() -> None:
    # 9 = 7 + 2 with .3, .8, .8, and 9 = 3 * 3 with .1, .1, .1
    probs = tensor([[0.3, 0.1, 0.8, 0.1, 0.8, 0.1]])
    sample = sampled(probs, (2, 2, 2), tensor([[[0, 0, 0], [1, 1, 1]]]), lambda _: 0, 1)
    assert ISED("min-max").aggregate(sample).exp().item() == pytest.approx(0.3)


def test_repetitions_count_as_published() -> None:
    probs = tensor([[0.25, 0.75]])
    sample = sampled(probs, (2,), tensor([[[1], [1], [0]]]), lambda w: w[0], 2)
    torch.testing.assert_close(ISED().aggregate(sample).exp(), tensor([[0.25, 1.5]]))
    torch.testing.assert_close(ISED("min-max").aggregate(sample).exp(), tensor([[0.25, 0.75]]))
    torch.testing.assert_close(Distinct().scores(sample), tensor([[0.25, 0.75]]))


# ISED, directly


def published(
    probs: Tensor, widths: Sequence[int], sample: Sample, output: Any, outputs: int, semiring: str
) -> Tensor:
    """The published vector, with plain products, sums and the floor under the norm."""
    parts = probs.split(list(widths), 1)
    rows = []
    for b, worlds in enumerate(sample.worlds.indices.tolist()):
        cells: list[Tensor] = [probs.new_zeros(())] * outputs
        for world in worlds:
            y = output(tuple(world))
            factors = torch.stack([part[b, v] for part, v in zip(parts, world, strict=True)])
            if semiring == "add-mult":
                cells[y] = cells[y] + factors.prod()
            else:
                cells[y] = torch.maximum(cells[y], factors.min())
        rows.append(torch.stack(cells))
    vector = torch.stack(rows)
    return vector / vector.norm(dim=1, keepdim=True).clamp_min(1e-12)


@pytest.mark.parametrize("semiring", ["add-mult", "min-max"])
@settings(max_examples=25)
@given(st.lists(st.integers(2, 4), min_size=2, max_size=4), st.integers(0, 999))
def test_ised_is_the_published_formula(semiring: str, widths: list[int], seed: int) -> None:
    outputs = sum(w - 1 for w in widths) + 1
    probs = raw(probabilities(widths, 3, seed=seed))
    sample = drawn(probs, widths, 6, sum, outputs, seed)
    vector = published(probs, widths, sample, sum, outputs, semiring)
    target = torch.nn.functional.one_hot(tensor([0, 1, outputs - 1]), outputs).double()
    expected = binary_cross_entropy(vector.clamp(0, 1), target)
    found = ISED(semiring, paper=True).loss(sample, target)
    torch.testing.assert_close(ISED(semiring, paper=True).scores(sample), vector)
    torch.testing.assert_close(ISED(semiring).scores(sample), vector)
    torch.testing.assert_close(found, expected)
    # where nothing is near the ceiling or the floor, all three are one
    if float(vector.detach().max()) < 0.99:
        torch.testing.assert_close(ISED(semiring).loss(sample, target), expected)
        (wanted,) = gradient(expected, probs)
        for loss in (found, ISED(semiring).loss(sample, target)):
            (got,) = gradient(loss, probs)
            torch.testing.assert_close(got, wanted, atol=1e-9, rtol=1e-6)


def sixteen(dtype: torch.dtype = torch.float32) -> Sample:
    probs = raw(torch.full((2, 160), 0.1, dtype=dtype))
    return drawn(probs, [10] * 16, 160, sum, 145)


@pytest.mark.parametrize("semiring", ["add-mult", "min-max"])
def test_sixteen_inputs(semiring: str) -> None:
    sample = sixteen()
    probs = sample.concepts.probs
    target = torch.zeros(2, 145)
    target[:, 72] = 1
    stable = ISED(semiring)
    torch.testing.assert_close(stable.scores(sample).norm(dim=1), torch.ones(2))
    (steep,) = gradient(stable.loss(sample, target), probs)
    assert steep.isfinite().all()
    assert steep.abs().max() > 1e-4
    if semiring == "add-mult":
        paper = ISED(paper=True)
        assert paper.scores(sample).norm(dim=1).max() < 0.1
        wrong = target.clone().fill_(0)  # the term that pushes wrong outputs down
        (flat,) = gradient(paper.loss(sample, wrong), probs)
        (pushed,) = gradient(stable.loss(sample, wrong), probs)
        uphill = torch.stack([g[:, :10] for g in (flat, pushed)])
        assert uphill[0].abs().max() < 0.05 * uphill[1].abs().max()


def test_many_inputs_do_not_underflow() -> None:
    probs = raw(torch.full((1, 810), 1 / 9).repeat_interleave(1, 1))
    sample = drawn(probs, [9] * 90, 20, lambda w: w[0], 9)
    for estimator in (ISED(), Distinct()):
        scores = estimator.scores(sample)
        assert scores.isfinite().all()
        assert scores.sum() > 0.9
        (g,) = gradient(scores[0, 0], probs)
        assert g.isfinite().all()


# Nothing is ever NaN


@pytest.mark.parametrize("estimator", [*NAMES, ISED("min-max"), ISED(paper=True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("worlds", "output", "target"),
    [
        ([[0, 1], [0, 1]], sum, 3),  # the target was not given
        ([[0, 1], [0, 1]], sum, 1),  # a score of exactly 1, for the target
        ([[0, 1], [0, 1]], lambda _: 0, 1),  # and for another
        ([[0, 1], [1, 1]], lambda _: None, 0),  # all worlds lost
        ([[1, 0], [1, 0]], sum, 1),  # a world of probability 0
        ([[1, 0], [0, 1], [0, 1]], lambda w: w[0], 1),  # in part
    ],
)
def test_finite_gradients(
    estimator: Any, dtype: torch.dtype, worlds: list, output: Any, target: int
) -> None:
    probs = raw(tensor([[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]], dtype=dtype))
    sample = sampled(probs, (2, 2), tensor([worlds, worlds]), output, 4)
    estimator = as_estimator(estimator)
    wanted = torch.zeros(2, 4, dtype=dtype)
    wanted[:, target] = 1
    distribution = Distribution(range(4), sample=sample, estimator=estimator)
    for number in (
        estimator.loss(sample, wanted),
        estimator.scores(sample).sum(),
        distribution.probs.sum(),
        distribution.bound.sum(),
        distribution.loss([target, target]),
        distribution.loss(wanted),
    ):
        assert number.isfinite()
        (g,) = gradient(number, probs)
        assert g.isfinite().all()


@pytest.mark.parametrize("estimator", NAMES)
def test_no_outputs_at_all(estimator: str) -> None:
    probs = raw(tensor([[0.5, 0.5]]))
    sample = sampled(probs, (2,), tensor([[[0], [1]]]), lambda _: None, 0)
    loss = Distribution((), sample=sample, estimator=as_estimator(estimator)).loss(["?"])
    assert loss.isfinite()
    (g,) = gradient(loss, probs)
    assert (g == 0).all()


# Structured outputs


@pytest.mark.parametrize("semiring", ["add-mult", "min-max"])
@pytest.mark.parametrize(
    ("domain", "function"),
    [
        (Tuple(Integer(0, 4), Boolean()), lambda a, b: (a + b, a > b)),
        (List(Integer(0, 2), 3), lambda a, b: (a,) * b),
        (List(Integer(0, 2), 2, min_length=2), lambda a, b: (b, a)),
        (Permutation(3), lambda a, b: ((1, 2, 3), (3, 1, 2), (2, 3, 1))[(a + b) % 3]),
    ],
)
def test_structured_outputs(domain: Any, function: Any, semiring: str) -> None:
    box = blackbox(
        Integer(0, 2),
        Integer(0, 2),
        output=domain,
        provenance="sampled",
        samples=5,
        estimator=ISED(semiring),
        generator=torch.Generator().manual_seed(4),
    )(function)
    p, q = (raw(probabilities((3,), 3, seed=s)) for s in (1, 2))
    targets = [function(0, 1), function(2, 2), function(1, 0)]
    result = box(p, q)
    worlds = result._the_sample.worlds.indices.tolist()
    total = torch.sum if semiring == "add-mult" else torch.amax
    losses, starts = [], [0, *itertools.accumulate(domain.widths)]
    for b, target in enumerate(targets):
        cells: dict[int, list[Tensor]] = {}
        for i, j in worlds[b]:
            weight = (
                p[b, i] * q[b, j] if semiring == "add-mult" else torch.minimum(p[b, i], q[b, j])
            )
            for start, code in zip(starts, domain.encode(function(i, j)), strict=False):
                if code >= 0:
                    cells.setdefault(start + code, []).append(weight)
        vector = torch.stack(
            [
                total(torch.stack(cells[c])) if c in cells else torch.zeros((), dtype=torch.float64)
                for c in range(starts[-1])
            ]
        )
        blocks = [
            block / block.norm().clamp_min(1e-300) for block in vector.split(list(domain.widths))
        ]
        wanted = torch.zeros(starts[-1], dtype=torch.float64)
        for start, code in zip(starts, domain.encode(target), strict=False):
            if code >= 0:
                wanted[start + code] = 1
        scores = torch.cat(blocks)
        rest = torch.log1p(-scores.clamp_max(0.999))
        logs = torch.where(scores > 0, scores.clamp_min(1e-300).log(), -100.0)
        losses.append(-(wanted * logs + (1 - wanted) * rest).mean())
    expected = torch.stack(losses).mean()
    found = result.loss(targets)
    torch.testing.assert_close(found, expected)
    for got, wanted in zip(gradient(found, p, q), gradient(expected, p, q), strict=True):
        assert got.isfinite().all()
        torch.testing.assert_close(got, wanted, atol=1e-9, rtol=1e-6)


# Score-function estimators


@settings(max_examples=25)
@given(st.lists(st.integers(2, 3), min_size=1, max_size=3), st.integers(2, 6), st.integers(0, 99))
def test_rloo_leaves_one_out(widths: list[int], k: int, seed: int) -> None:
    outputs = sum(w - 1 for w in widths) + 1
    probs = raw(probabilities(widths, 2, seed=seed))
    sample = drawn(probs, widths, k, sum, outputs, seed)
    scores = RLOO().scores(sample)
    parts = probs.split(widths, 1)
    for b, worlds in enumerate(sample.worlds.indices.tolist()):
        for y in range(outputs):
            hits = [float(sum(world) == y) for world in worlds]
            assert scores[b, y].item() == pytest.approx(sum(hits) / k, abs=1e-12)
            surrogate = torch.zeros((), dtype=torch.float64)
            for s, world in enumerate(worlds):
                baseline = (sum(hits) - hits[s]) / (k - 1)
                log_p = sum(part[b, v].log() for part, v in zip(parts, world, strict=True))
                surrogate = surrogate + (hits[s] - baseline) * log_p / k
            (wanted,) = gradient(surrogate, probs)
            (got,) = gradient(scores[b, y], probs)
            torch.testing.assert_close(got, wanted, atol=1e-9, rtol=1e-6)


@settings(max_examples=25)
@given(st.lists(st.integers(2, 3), min_size=1, max_size=3), st.integers(1, 4), st.integers(0, 99))
def test_indecater_completes_every_concept(widths: list[int], k: int, seed: int) -> None:
    outputs = sum(w - 1 for w in widths) + 1
    probs = raw(probabilities(widths, 2, seed=seed))
    sample = drawn(probs, widths, k, sum, outputs, seed)
    scores = IndeCateR().scores(sample)
    for b, worlds in enumerate(sample.worlds.indices.tolist()):
        for y in range(outputs):
            share = sum(sum(world) == y for world in worlds) / k
            assert scores[b, y].item() == pytest.approx(share, abs=1e-12)
            wanted = torch.zeros_like(probs)
            for d, width in enumerate(widths):
                for v in range(width):
                    changed = [[*w[:d], v, *w[d + 1 :]] for w in worlds]
                    wanted[b, sum(widths[:d]) + v] = sum(sum(w) == y for w in changed) / k
            (got,) = gradient(scores[b, y], probs)
            torch.testing.assert_close(got, wanted, atol=1e-9, rtol=1e-6)


def test_rloo_needs_two_samples() -> None:
    sample = drawn(probabilities((2,), 1), (2,), 1, sum, 2)
    with pytest.raises(ByssusError, match="at least 2 samples"):
        RLOO().scores(sample)


def test_indecater_refuses_permutations() -> None:
    box = blackbox(Permutation(3), provenance="sampled", estimator="indecater")(lambda p: p[0])
    with pytest.raises(ByssusError, match="permutation"):
        _ = box(probabilities((3,), 1, 3)).scores


DRAWS = 6_000


def gradients(estimator: Any, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """The gradient of each score in each of many draws, (draws, outputs, columns); the exact one.

    The draws are the batch: one call, and no example sees another.
    """
    widths, outputs = (3, 2, 2), 5
    probs = probabilities(widths, seed=7)
    exact = raw(probs)
    parts = [part[None] for part in exact.split(list(widths))]
    truth = brute_force(lambda *v: sum(v), [range(w) for w in widths], parts)
    wanted = torch.stack([gradient(truth[y].sum(), exact)[0] for y in range(outputs)])
    box = blackbox(
        *(Integer(0, w - 1) for w in widths),
        output=Integer(0, outputs - 1),
        provenance="sampled",
        samples=k,
        estimator=estimator,
        generator=torch.Generator().manual_seed(seed),
    )(lambda *v: sum(v))
    leaves = [raw(part.expand(DRAWS, -1)) for part in probs.split(list(widths))]
    scores = box(*leaves).scores
    found = torch.stack(
        [torch.cat(gradient(scores[:, y].sum(), *leaves), 1) for y in range(outputs)], 1
    )
    return tangent(found, widths), tangent(wanted, widths)


def unbiased(found: Tensor, wanted: Tensor) -> None:
    """All means lie within what the normal quantile allows for that many comparisons."""
    error = found.std(0) / len(found) ** 0.5
    z = ((found.mean(0) - wanted).abs() / error.clamp_min(1e-12))[error > 1e-12]
    certain = (found.mean(0) - wanted)[error <= 1e-12]
    assert (certain.abs() < 1e-9).all()
    # Bonferroni: a chance of 1 in 1,000 that any of them is further off
    limit = -torch.special.ndtri(tensor(0.0005 / z.numel(), dtype=torch.float64))
    assert z.max() < limit
    assert z.median() < 1.5


@pytest.mark.parametrize(
    ("name", "k"), [("rloo", 2), ("rloo", 8), ("indecater", 1), ("indecater", 4)]
)
def test_unbiased_gradients(name: str, k: int) -> None:
    unbiased(*gradients(name, k, seed=11))


def test_ised_is_biased() -> None:
    with pytest.raises(AssertionError):
        unbiased(*gradients("ised", 4, seed=11))


@pytest.mark.parametrize("k", [2, 6])
def test_indecater_varies_less_than_rloo(k: int) -> None:
    variance = [gradients(name, k, seed=5)[0].var(0).sum() for name in ("indecater", "rloo")]
    assert variance[0] < variance[1]


# Distinct


def test_distinct_by_hand() -> None:
    probs = raw(tensor([[0.1, 0.6, 0.3, 0.2, 0.1, 0.7]], dtype=torch.float64))
    sample = sampled(probs, (3, 3), tensor([[[1, 2], [1, 0], [1, 2], [2, 1]]]), sum, 5)
    result = Distribution(range(5), sample=sample)
    seen = 0.42 + 0.12 + 0.03
    torch.testing.assert_close(
        result.probs, tensor([[0, 0.12, 0, 0.45, 0]], dtype=torch.float64) / seen
    )
    torch.testing.assert_close(result.bound, tensor([[0, 0.12, 0, 0.45, 0]], dtype=torch.float64))
    assert result.coverage.item() == pytest.approx(seen)
    assert result.ess.item() == pytest.approx(seen**2 / (0.42**2 + 0.12**2 + 0.03**2))


@settings(max_examples=40)
@given(st.lists(st.integers(2, 4), min_size=1, max_size=3), st.integers(1, 30), st.integers(0, 99))
def test_distinct_properties(widths: list[int], k: int, seed: int) -> None:
    outputs = sum(w - 1 for w in widths) + 1
    probs = raw(probabilities(widths, 2, seed=seed))
    sample = drawn(probs, widths, k, sum, outputs, seed)
    result = Distribution(range(outputs), sample=sample)
    parts = probs.split(widths, 1)
    truth = brute_force(lambda *v: sum(v), [range(w) for w in widths], parts)
    true = torch.stack([truth[y] for y in range(outputs)], 1)
    assert (result.bound <= true + 1e-9).all()
    torch.testing.assert_close(result.probs.sum(1), torch.ones(2, dtype=torch.float64))
    for b, worlds in enumerate(sample.worlds.indices.tolist()):
        weights = [
            math.prod(part[b, v].item() for part, v in zip(parts, world, strict=True))
            for world in set(map(tuple, worlds))
        ]
        assert result.coverage[b].item() == pytest.approx(sum(weights))
        ess = sum(weights) ** 2 / sum(w * w for w in weights)
        assert result.ess[b].item() == pytest.approx(ess)
        if len(weights) == math.prod(widths):  # every world was seen
            torch.testing.assert_close(result.probs[b], true[b])
            (got,), (wanted,) = (gradient(x[b, 0].log(), probs) for x in (result.bound, true))
            torch.testing.assert_close(got, wanted)


def test_random_functions_share_the_mass_of_a_world() -> None:
    # Two worlds; what each gives was drawn anew each time.
    probs = tensor([[0.25, 0.75]], dtype=torch.float64)
    indices = tensor([[[0], [1], [1], [0], [1], [0]]])
    given = tensor([0, 1, 0, 1, 1, 1])
    concepts = Concepts(probs, (2,))
    distinct = tensor([[True, True, False, False, False, False]])
    worlds = Worlds(indices, distinct, repeats=count_repeats(indices, (2,)))
    sample = Sample(concepts, worlds, Membership(torch.arange(6), given), 2, lambda _: None)
    result = Distribution([0, 1], sample=sample)
    zero = 0.25 / 3 + 0.75 / 3
    torch.testing.assert_close(result.probs, tensor([[zero, 1 - zero]], dtype=torch.float64))
    assert result.coverage.item() == 0  # having seen a world does not settle what it gives
    assert not result.bound.any()
    assert result.ess.item() == pytest.approx(1 / (0.25**2 + 0.75**2))


def test_reproducible() -> None:
    def box(seed: int) -> Tensor:
        f = blackbox(
            Integer(0, 9),
            Integer(0, 9),
            output=Integer(0, 18),
            provenance="sampled",
            samples=10,
            generator=torch.Generator().manual_seed(seed),
        )(lambda a, b: a + b)
        return f(probabilities((10,), 3), probabilities((10,), 3)).probs

    assert torch.equal(box(1), box(1))
    assert not torch.equal(box(1), box(2))


# Names and settings


def test_estimators_by_name() -> None:
    for name in NAMES:
        estimator = as_estimator(name)
        assert estimator.name == name
        assert estimator.bias
    own = RLOO()
    assert as_estimator(own) is own
    with pytest.raises(ByssusError, match=r"no estimator 'IDES'.*'distinct', 'ised'"):
        as_estimator("IDES")
    with pytest.raises(ByssusError, match="semiring='max'"):
        ISED("max")


# Learning


def test_ised_learns_from_sixteen_inputs() -> None:
    # Worlds have a probability of 1e-16, far below the published floor: see test_sixteen_inputs.
    generator = torch.Generator().manual_seed(0)
    logits = torch.zeros(10, 10, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    losses = []
    for _ in range(80):
        digits = torch.randint(10, (16, 16), generator=generator)
        probs = logits[digits].softmax(-1).reshape(16, -1)
        concepts = concepts_of(probs, [10] * 16)
        worlds = independent(concepts, 100, generator)
        first = worlds.indices[..., 0].flatten()
        members = Membership(torch.arange(len(first)), first)
        sample = Sample(concepts, worlds, members, 10, lambda _, given=members: given)
        loss = ISED().loss(sample, torch.nn.functional.one_hot(digits[:, 0], 10).float())
        optimizer.zero_grad()
        loss.backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert (logits.argmax(1) == torch.arange(10)).all()


def test_a_dominant_wrong_output_is_no_cliff() -> None:
    # What made training collapse: a wrong output that holds nearly all of the vector.
    for rest in (1e-2, 1e-4, 1e-6):
        probs = raw(tensor([[1 - rest, rest]], dtype=torch.float64))
        sample = sampled(probs, (2,), tensor([[[0], [1]]]), lambda w: w[0], 2)
        target = tensor([[0.0, 1.0]], dtype=torch.float64)
        (steep,) = gradient(ISED().loss(sample, target), probs)
        assert (steep * probs).abs().max() < 100


def covered_and_not(blocks: tuple[int, ...] = ()) -> tuple[Sample, Tensor]:
    """An example whose samples cover .855 of the mass, and one whose samples cover 2 / 9."""
    peaked, flat = [0.9, 0.05, 0.05], [1 / 3] * 3
    rows = torch.tensor([peaked + peaked, flat + flat], dtype=torch.float64, requires_grad=True)
    indices = torch.tensor([[0, 0], [0, 1], [0, 0]]).expand(2, -1, -1)
    worlds = Worlds(indices, torch.tensor([[True, True, False]] * 2))
    if blocks:  # the two digits themselves, as a structured output
        cells = (indices + torch.tensor([0, 3])).flatten()
        membership = Membership(torch.arange(6).repeat_interleave(2), cells)
    else:
        membership = Membership(torch.arange(6), indices.sum(-1).flatten())
    outputs = sum(blocks) or 5
    concepts = Concepts(rows, (3, 3))
    return Sample(concepts, worlds, membership, outputs, lambda _: membership, blocks), rows


def test_auto_takes_probabilities_where_samples_cover_half_and_ised_where_not() -> None:
    sample, rows = covered_and_not()
    auto = as_estimator("auto")
    scores, distinct, ised = (e.scores(sample) for e in (auto, Distinct(), ISED()))
    torch.testing.assert_close(scores[0], distinct[0])
    torch.testing.assert_close(scores[1], ised[1])
    target = torch.eye(5, dtype=torch.float64)[[1, 0]]
    loss = auto.loss(sample, target)
    entropy = binary_cross_entropy(ised[1], target[1], reduction="sum")
    torch.testing.assert_close(loss, (-distinct[0, 1].log() + entropy) / 2)
    (grad,) = torch.autograd.grad(loss, rows)
    assert grad.isfinite().all()
    assert (grad.abs().sum(1) > 0).all()


def test_auto_pushes_down_what_was_seen_where_no_sample_gives_the_target() -> None:
    """The surer a model is of a wrong output, the larger its loss; if very sure, it unlearns."""
    losses = []
    for sure in (0.6, 0.8, 0.99):
        rows = torch.tensor([[sure, 1 - sure, 0]], dtype=torch.float64, requires_grad=True)
        concepts = Concepts(rows, (3,))
        worlds = Worlds(
            torch.zeros(1, 4, 1, dtype=torch.int64), torch.tensor([[True] + [False] * 3])
        )
        membership = Membership(torch.arange(4), torch.zeros(4, dtype=torch.int64))
        for outputs in (1, 3):  # discovered, or declared
            sample = Sample(concepts, worlds, membership, outputs, lambda _: Membership(*[]))
            target = torch.zeros(1, outputs, dtype=torch.float64)
            target[:, 1:2] = 1
            loss = as_estimator("auto").loss(sample, target)
            torch.testing.assert_close(loss.item(), -math.log(1 - sure))
            (grad,) = torch.autograd.grad(loss, rows)
            assert (grad[0, 0] > 0) == (sure > 0.9)
        losses.append(loss.item())
    assert losses == sorted(losses)


def test_auto_multiplies_the_likelihoods_of_the_components_of_an_output() -> None:
    sample, _ = covered_and_not((3, 3))
    target = torch.tensor([[1, 0, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0.0]], dtype=torch.float64)
    distinct, scores = Distinct().scores(sample)[0], ISED().scores(sample)[1]
    likelihood = distinct[0] * distinct[4]
    entropy = binary_cross_entropy(scores.clamp_max(0.999), target[1], reduction="sum")
    found = as_estimator("auto").loss(sample, target)
    # scores of 1 are held at the ceiling, and what was not sampled at exp(-100)
    assert found.isfinite()
    torch.testing.assert_close(found, (-likelihood.log() + entropy) / 2)


def test_auto_scores_outputs_that_do_not_exclude_one_another_one_by_one() -> None:
    sample, _ = covered_and_not()
    auto = as_estimator("auto")
    y = Distribution(range(5), sample=sample, estimator=auto)
    wanted = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 0, 0, 0.0]], dtype=torch.float64)
    expected = binary_cross_entropy(auto.scores(sample).clamp_max(0.999), wanted)
    torch.testing.assert_close(y.loss(wanted), expected)
