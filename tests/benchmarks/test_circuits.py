"""Circuits, against KLay on the same SDDs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from pysdd.sdd import SddManager, SddNode, Vtree
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.alternating import alternate
from byssus import Circuit, Exact

BATCH = 64

# How many times faster than KLay at least, by digits: as KLay is by default (its "log" semiring),
# on the SDDs that its users would build, with a Boolean variable for each value.
BARS = {2: 5, 4: 5, 8: 10}


@cache
def sums(digits: int) -> tuple[Circuit, list[SddNode], Exact]:
    """The circuit and the SDDs of every sum of so many digits."""
    exact = Exact([10] * digits)
    tags = {0: exact.one}
    for digit in range(digits):
        longer: dict[int, SddNode] = {}
        for total, tag in tags.items():
            for value in range(10):
                case = exact.mult(tag, exact.literal(digit, value))
                longer[total + value] = exact.add(longer.get(total + value, exact.zero), case)
        tags = longer
    ordered = [tags[total] for total in range(9 * digits + 1)]
    return exact.circuit(ordered), ordered, exact


def digit_probs(digits: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(BATCH, digits, 10).softmax(-1)


def ladder(probs: Tensor) -> Tensor:
    """Of each Boolean variable the probability that it is true: this value, given none before."""
    before = probs.cumsum(-1) - probs
    return (probs / (1 - before))[..., :-1].clamp(0, 1).flatten(1)


def one_hot_sums(digits: int, folder: Path) -> list[SddNode]:
    """The SDDs of every sum, with a Boolean variable for each value of each digit."""

    def right_linear(parts: list[int]) -> int:
        top = parts[-1]
        for part in reversed(parts[:-1]):
            lines.append(f"I {len(lines)} {part} {top}")
            top = len(lines) - 1
        return top

    def leaf(variable: int) -> int:
        lines.append(f"L {len(lines)} {variable}")
        return len(lines) - 1

    lines: list[str] = []
    right_linear([right_linear([leaf(10 * d + v + 1) for v in range(10)]) for d in range(digits)])
    file = folder / f"{digits}.vtree"
    file.write_text(f"vtree {len(lines)}\n" + "\n".join(lines) + "\n")
    manager = SddManager.from_vtree(Vtree.from_file(str(file).encode()))
    tags = {0: manager.true()}
    for digit in range(digits):
        longer: dict[int, SddNode] = {}
        for value in range(10):
            literal = manager.true()
            for other in range(10):
                variable = 10 * digit + other + 1
                literal &= manager.literal(variable if other == value else -variable)
            for total, tag in tags.items():
                case = tag & literal
                longer[total + value] = longer.get(total + value, manager.false()) | case
        tags = longer
    return [tags[total] for total in range(9 * digits + 1)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("digits", [2, 4, 8])
def test_klay(benchmark: BenchmarkFixture, rounds: int, digits: int, tmp_path: Path) -> None:
    """On the SDDs of either encoding, in both of KLay's semirings: four ratios, one of them a bar.

    Our own encoding, which has one variable less and smaller SDDs, serves KLay too; its "real"
    semiring is the faster one, and underflows where ours, evaluated in probabilities, does.
    """
    klay = pytest.importorskip("klay", reason="the comparison needs klaycircuits")
    circuit, tags, _ = sums(digits)
    probs = digit_probs(digits)
    weights = probs.flatten(1).requires_grad_()
    upstream = torch.randn(BATCH, len(tags))
    ladders = ladder(probs.double()).float()
    encodings = {
        "one_hot": (one_hot_sums(digits, tmp_path), probs.flatten(1), torch.ones(1, 1)),
        "ladder": (tags, ladders, 1 - ladders),
    }

    def ours() -> None:
        circuit(weights).backward(upstream)

    ratios = {}
    for encoding, (sdds, true, false) in encodings.items():
        diagrams = klay.Circuit()
        for sdd in sdds:
            diagrams.add_sdd(sdd)
        for semiring in ("log", "real"):
            module = diagrams.to_torch_module(semiring=semiring, compile=False)
            positive, negative = [
                (w.log() if semiring == "log" else w).expand_as(true).clone().requires_grad_()
                for w in (true, false)
            ]
            result = module(positive, negative)
            result = result.exp() if semiring == "log" else result
            assert torch.allclose(result, circuit(weights), rtol=0, atol=1e-5)

            def theirs(module=module, positive=positive, negative=negative) -> None:
                module(positive, negative).backward(upstream)

            comparison = alternate(ours, theirs, 3 * rounds, (50, 10))
            name = f"klay_{encoding}_{semiring}"
            benchmark.extra_info.update(comparison.info(name))
            ratios[name] = comparison.ratio
    benchmark.pedantic(ours, rounds=10 * rounds, warmup_rounds=20)
    # The short version runs beside whatever else a machine does: it guards against regressions.
    assert ratios["klay_one_hot_log"] >= BARS[digits] * (1 if rounds > 5 else 0.6), ratios


@pytest.mark.parametrize("space", ["probabilities", "logarithms"])
@pytest.mark.parametrize("digits", [2, 4, 8, 16])
def test_step(benchmark: BenchmarkFixture, rounds: int, digits: int, space: str) -> None:
    circuit, tags, _ = sums(digits)
    probs = digit_probs(digits).flatten(1)
    weights = (probs.log() if space == "logarithms" else probs).requires_grad_()
    evaluate = circuit.log_forward if space == "logarithms" else circuit
    upstream = torch.randn(BATCH, len(tags))

    def step() -> None:
        evaluate(weights).backward(upstream)

    benchmark.extra_info["nodes"] = circuit.size
    benchmark.pedantic(step, rounds=5 * rounds, warmup_rounds=3)


@pytest.mark.parametrize("digits", [2, 4, 8])
def test_any_vtree(benchmark: BenchmarkFixture, rounds: int, digits: int) -> None:
    """The same SDDs read as sums of products, which any vtree has, and as decisions."""
    circuit, tags, exact = sums(digits)
    general = Circuit(exact.widths, exact.products(tags))
    weights = digit_probs(digits).flatten(1).requires_grad_()
    upstream = torch.randn(BATCH, len(tags))
    assert torch.allclose(general(weights), circuit(weights), rtol=0, atol=1e-5)

    def decisions() -> None:
        circuit(weights).backward(upstream)

    def products() -> None:
        general(weights).backward(upstream)

    comparison = alternate(decisions, products, 3 * rounds, (20, 20))
    benchmark.extra_info.update(comparison.info("products"))
    benchmark.pedantic(products, rounds=5 * rounds, warmup_rounds=3)
    assert comparison.ratio < 4
