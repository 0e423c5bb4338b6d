"""Metrics against what is counted by hand, example by example."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from byssus import EmptyBatchError, ProbabilityError, ShapeError, TargetError
from byssus.errors import ByssusError
from byssus.metrics import accuracy, calibration_error, exact_match, macro_f1, reliability


@st.composite
def labelled(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Predictions, targets, a mask of which some is true, and the number of classes."""
    classes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    examples = draw(st.integers(1, 8))

    def rows(low: int) -> Tensor:
        return tensor(
            [[draw(st.integers(low, size - 1)) for size in classes] for _ in range(examples)]
        )

    mask = [[draw(st.booleans()) for _ in classes] for _ in range(examples)]
    mask[draw(st.integers(0, examples - 1))][draw(st.integers(0, len(classes) - 1))] = True
    return rows(-1), rows(0), tensor(mask), classes


@given(labelled())
def test_accuracy_counts_entries(data) -> None:
    predicted, target, mask, _ = data
    entries = [
        p == t
        for ps, ts, ms in zip(predicted.tolist(), target.tolist(), mask.tolist(), strict=True)
        for p, t, m in zip(ps, ts, ms, strict=True)
        if m
    ]
    assert accuracy(predicted, target, mask).item() == pytest.approx(sum(entries) / len(entries))


@given(labelled())
def test_exact_match_counts_examples(data) -> None:
    predicted, target, mask, _ = data
    rows = [
        all(p == t for p, t, m in zip(ps, ts, ms, strict=True) if m)
        for ps, ts, ms in zip(predicted.tolist(), target.tolist(), mask.tolist(), strict=True)
        if any(ms)
    ]
    assert exact_match(predicted, target, mask).item() == pytest.approx(sum(rows) / len(rows))


@given(labelled())
def test_macro_f1_counts_classes(data) -> None:
    predicted, target, mask, classes = data
    columns = []
    for c, size in enumerate(classes):
        pairs = [
            (p, t)
            for p, t, m in zip(
                predicted[:, c].tolist(), target[:, c].tolist(), mask[:, c].tolist(), strict=True
            )
            if m
        ]
        scores = []
        for k in range(size):
            tp = sum(p == k == t for p, t in pairs)
            fp = sum(p == k != t for p, t in pairs)
            fn = sum(p != k == t for p, t in pairs)
            if tp + fp + fn:
                scores.append(2 * tp / (2 * tp + fp + fn))
        if pairs:
            columns.append(sum(scores) / len(scores))
    expected = sum(columns) / len(columns)
    assert macro_f1(predicted, target, classes, mask).item() == pytest.approx(expected)


@settings(max_examples=60)
@given(labelled(), st.integers(1, 12), st.integers(0, 99))
def test_calibration_counts_bins(data, bins: int, seed: int) -> None:
    _, target, mask, classes = data
    generator = torch.Generator().manual_seed(seed)
    votes = 20
    marginals = []
    for size in classes:
        drawn = torch.randint(size, (len(target), votes), generator=generator)
        marginals.append((drawn[..., None] == torch.arange(size)).double().sum(1) / votes)
    table = reliability(marginals, target, bins, mask)
    errors = []
    for c, probs in enumerate(marginals):
        held: dict[int, list[tuple[float, bool]]] = {}
        for row, t, m in zip(
            probs.tolist(), target[:, c].tolist(), mask[:, c].tolist(), strict=True
        ):
            if m:
                # the bin (i/bins, (i + 1)/bins], in whole votes
                ticks = round(max(row) * votes) * bins
                held.setdefault(max(0, -(-ticks // votes) - 1), []).append(
                    (max(row), row.index(max(row)) == t)
                )
        total = sum(map(len, held.values()))
        gaps = 0.0
        for i in range(bins):
            entries = held.get(i, [])
            assert table.count[c, i] == len(entries)
            if not entries:
                assert table.confidence[c, i].isnan()
                assert table.accuracy[c, i].isnan()
                continue
            confidence = sum(e[0] for e in entries) / len(entries)
            right = sum(e[1] for e in entries) / len(entries)
            assert table.confidence[c, i].item() == pytest.approx(confidence)
            assert table.accuracy[c, i].item() == pytest.approx(right)
            gaps += len(entries) / total * abs(confidence - right) if total else 0.0
        if total:
            errors.append(gaps)
    expected = sum(errors) / len(errors)
    assert calibration_error(marginals, target, bins, mask).item() == pytest.approx(
        expected, abs=1e-6
    )


def half_open(marginals: Tensor, target: Tensor, bins: int = 10) -> float:
    """An ECE that numbers bins from 1 and sums those from 0: what is above 0.9 is lost."""
    confidence, chosen = marginals.max(1)
    place = torch.bucketize(confidence, torch.arange(bins + 1) / bins)
    total = 0.0
    for i in range(bins):
        inside = place == i
        if inside.any():
            gap = confidence[inside].mean() - (chosen == target)[inside].float().mean()
            total += inside.float().mean().item() * abs(gap.item())
    return total


def test_the_last_bin_counts() -> None:
    marginals = tensor([[0.99, 0.01]]).expand(50, 2)
    target = torch.ones(50, dtype=torch.int64)  # always wrong
    assert calibration_error(marginals, target).item() == pytest.approx(0.99)
    assert half_open(marginals, target) == 0.0
    below = tensor([[0.85, 0.15]]).expand(50, 2)
    assert calibration_error(below, target).item() == pytest.approx(0.85)
    assert half_open(below, target) == pytest.approx(0.85)


def test_bins_are_closed_on_the_right() -> None:
    votes = torch.arange(500, 1001)
    marginals = torch.stack([votes / 1000, 1 - votes / 1000], 1)
    table = reliability(marginals, torch.zeros(len(votes), dtype=torch.int64))
    assert table.count.tolist() == [[0, 0, 0, 0, 1, 100, 100, 100, 100, 100]]
    assert table.confidence[0, 4] == 0.5


def test_forms_of_marginals() -> None:
    probs = torch.rand(6, 2, 3, generator=torch.Generator().manual_seed(0)).softmax(-1)
    target = tensor([[0, 1], [2, 2], [1, 0], [0, 0], [1, 1], [2, 0]])
    expected = calibration_error(probs, target)
    assert torch.equal(calibration_error(tuple(probs.unbind(1)), target), expected)
    alone = calibration_error(probs[:, 0], target[:, 0])
    assert torch.equal(calibration_error((probs[:, 0],), target[:, :1]), alone)
    half = calibration_error(probs.bfloat16(), target)
    torch.testing.assert_close(half, expected, atol=0.02, rtol=0)


def test_padding_may_hold_anything() -> None:
    marginals = (tensor([[0.8, 0.2], [math.nan, 7.0]]), tensor([[0.6, 0.4], [0.3, 0.7]]))
    target = tensor([[0, 1], [-1, 1]])
    found = calibration_error(marginals, target, mask=target >= 0)
    assert found.item() == pytest.approx(((1 - 0.8) + (0.6 + (1 - 0.7)) / 2) / 2)
    absent = torch.zeros(2, 1, dtype=torch.bool)
    mask = torch.cat([torch.ones(2, 1, dtype=torch.bool), absent], 1)
    first = calibration_error(marginals[1], tensor([1, 1]))
    both = calibration_error(marginals[::-1], tensor([[1, -1], [1, -1]]), mask=mask)
    assert torch.equal(first, both)


def test_a_data_set_is_not_a_mean_of_batches() -> None:
    target = torch.zeros(5, dtype=torch.int64)
    predicted = tensor([0, 0, 0, 0, 1])
    assert accuracy(predicted, target).item() == pytest.approx(0.8)
    assert exact_match(predicted, target).item() == pytest.approx(0.8)
    batches = [
        accuracy(p, t).item() for p, t in zip(predicted.split(4), target.split(4), strict=True)
    ]
    assert sum(batches) / 2 == pytest.approx(0.5)


def test_booleans_are_positions() -> None:
    target = tensor([True, False, True])
    assert accuracy(target, target).item() == 1
    assert macro_f1(tensor([1, 0, 0]), target.long(), 2).item() == pytest.approx(2 / 3)


def test_devices(device: torch.device) -> None:
    target = tensor([[0, 1], [1, 1]], device=device)
    marginals = torch.full((2, 2, 2), 0.5, device=device)
    for found in (
        accuracy(target, target),
        exact_match(target, target),
        macro_f1(target, target, 2),
        calibration_error(marginals, target),
    ):
        assert found.device.type == device.type
        assert found.isfinite()


ONE = tensor([[0.5, 0.5]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: accuracy(tensor([0]), tensor([[0]])), ShapeError, r"\(1,\) and targets.*\(1, 1\)"),
        (lambda: accuracy(tensor([0.0]), tensor([0])), ShapeError, "float32: give integers"),
        (lambda: accuracy([0], [0]), ShapeError, "predictions of type list: give a tensor"),
        (lambda: reliability(3, tensor([0])), ShapeError, "marginals of type int"),
        (lambda: accuracy(tensor(0), tensor(0)), ShapeError, r"shape \(\)"),
        (lambda: accuracy(tensor([0]), tensor([-1])), TargetError, r"\(0,\) is -1.*mask="),
        (lambda: accuracy(tensor([0]), tensor([0]), tensor([1])), ShapeError, "int64.*Booleans"),
        (lambda: accuracy(tensor([0]), tensor([0]), tensor([False])), EmptyBatchError, "none of"),
        (lambda: exact_match(tensor([0]), tensor([[0, 1]])), ShapeError, "give them the same"),
        (lambda: macro_f1(tensor([0]), tensor([2]), 2), TargetError, "target of column 0 is 2"),
        (lambda: macro_f1(tensor([3]), tensor([1]), 2), TargetError, "prediction of column 0 is 3"),
        (lambda: macro_f1(tensor([0]), tensor([0]), [2, 2]), ShapeError, "for 1 columns"),
        (lambda: macro_f1(tensor([0]), tensor([0]), 0), ShapeError, "classes=0"),
        (lambda: reliability(ONE, tensor([0]), bins=0), ByssusError, "bins=0"),
        (lambda: reliability(ONE, tensor([2])), TargetError, "is 2, and there are 2 values"),
        (lambda: reliability(ONE, tensor([0, 0])), ShapeError, "for 2 examples of 1 columns"),
        (lambda: reliability((ONE, ONE), tensor([0])), ShapeError, "one a column"),
        (lambda: reliability(tensor([0.5]), tensor([0])), ShapeError, r"shape \(1,\)"),
        (lambda: reliability(tensor([[1, 0]]), tensor([0])), ShapeError, "int64"),
        (lambda: reliability(ONE * math.nan, tensor([0])), ProbabilityError, "not finite"),
        (lambda: reliability(ONE * 1.5, tensor([0])), ProbabilityError, "column 0 sum to 1.5"),
        (lambda: reliability(tensor([[-1.0, 2.0]]), tensor([0])), ProbabilityError, "negative"),
    ],
)
def test_errors(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
