"""What one gets wrong, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from byssus import (
    Boolean,
    ByssusError,
    DomainError,
    EmptyBatchError,
    Float,
    Integer,
    List,
    Permutation,
    ProbabilityError,
    ShapeError,
    TargetError,
    Tuple,
    blackbox,
)
from byssus.diffusion import MaskedDiffusion, WorldProgram

X = torch.zeros(4, 1)


def zeros(x: Tensor, c_t: Tensor) -> Tensor:
    return x.new_zeros(len(x), 2, 2)


def xor(network: Callable[..., Any] = zeros, **options: Any) -> MaskedDiffusion:
    return MaskedDiffusion(
        network, [Boolean(), Boolean()], lambda a, b: a != b, outputs=Boolean(), **options
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples=1: give a whole number of 2 or more; leaving one out"),
        ({"candidates": 0}, "candidates=0: give a whole number of 1 or more"),
        ({"steps": 0}, "steps=0: give a whole number of 1 or more"),
        ({"samples": 3.0}, "samples=3.0"),
        ({"gamma_c": -1.0}, "gamma_c=-1.0: give a weight of 0 or more"),
        ({"gamma_h": float("nan")}, "gamma_h=nan"),
        ({"beta": 0}, "beta=0: give a number above 0"),
        ({"weighting": "mine"}, "weighting='mine': there are 'auto', 'code', 'paper'"),
        ({"entropy": "none"}, "entropy='none': there are"),
        ({"inference": "mixed"}, "inference='mixed': there are"),
        ({"schedule": "fast"}, "schedule='fast'"),
        ({"schedule": ["linear"]}, r"schedule=\['linear'\]: there are"),
        ({"gamma_h": "much"}, "gamma_h='much': give a weight"),
        ({"generator": 3}, "generator=3 is no torch.Generator"),
        ({"network": None}, "unmasking_model=None: give a network"),
        ({"encoder": 3}, "encoder=3: give a network"),
        ({"entropy": "conditional", "inference": "sampled"}, "'conditional' needs a program that"),
    ],
)
def test_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ByssusError, match=message):
        xor(**options)


def test_programs() -> None:
    with pytest.raises(ByssusError, match="program=None: give the program"):
        MaskedDiffusion(zeros, [Boolean()])
    with pytest.raises(ByssusError, match="give the domain of its output, outputs="):
        MaskedDiffusion(zeros, [Boolean()], lambda a: a)
    with pytest.raises(ByssusError, match="is no program"):
        MaskedDiffusion(zeros, [Boolean()], 3)
    with pytest.raises(DomainError, match=r"concepts of widths \(2, 2\) .* \(2, 3\)"):
        MaskedDiffusion(
            zeros, [Boolean(), Boolean()],
            blackbox(Boolean(), Integer(0, 2), output=Boolean())(lambda a, b: a),
        )  # fmt: skip
    with pytest.raises(DomainError, match="the concept a is 3: give a domain"):
        MaskedDiffusion(zeros, {"a": 3}, lambda a: a, outputs=Boolean())  # type: ignore[dict-item]
    for output in (None, Float()):
        box = blackbox(Boolean(), output=output)(lambda a: 1.0)
        with pytest.raises(ByssusError, match="needs one of finite dimensions: give output="):
            MaskedDiffusion(zeros, program=box)
    with pytest.raises(DomainError, match="is a permutation"):
        MaskedDiffusion(zeros, Permutation(3), lambda p: True, outputs=Boolean())
    with pytest.raises(ByssusError, match="inference='exact': the program has 1048576 worlds"):
        MaskedDiffusion(
            zeros, List(Boolean(), 20, min_length=20), any, outputs=Boolean(), inference="exact"
        )


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.zeros(4, 2, 3), r"shape \(4, 2, 3\): give \(4, 2, 2\) or \(4, 4\), values only"),
        (torch.zeros(4, 2), r"shape \(4, 2\)"),
        ([torch.zeros(4, 2)], r"gave \[\(4, 2\)\]: give logits of shape"),
        ("logits", "gave str: give logits"),
        (torch.zeros(4, 2, 2, dtype=torch.int64), "gave torch.int64"),
    ],
)
def test_shapes_of_networks(answer: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        xor(lambda x, c_t: answer).loss(X, [True] * 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_networks_that_diverge(value: float) -> None:
    def network(x: Tensor, c_t: Tensor) -> Tensor:
        logits = zeros(x, c_t)
        logits[2, 1, 0] = value
        return logits

    with pytest.raises(ProbabilityError, match="of column c1 hold NaN or infinity in row 2"):
        xor(network).loss(X, [True] * 4)


def test_networks_that_do_not_know_the_mask_token() -> None:
    embedding = nn.Embedding(2, 4)
    with pytest.raises(ByssusError, match="needs one more entry than there are values"):
        xor(lambda x, c_t: embedding(c_t).reshape(-1, 2, 4)[..., :2]).sample(X)
    with pytest.raises(ByssusError, match="The mask token of column i is widths"):
        xor(lambda x, c_t: nn.functional.one_hot(c_t, 2).float()).sample(X)


def test_concepts_that_are_not_the_programs() -> None:
    @blackbox(Integer(0, 1), Boolean(), output=Boolean())
    def same(a: int, b: bool) -> bool:
        return a == b

    named = MaskedDiffusion(zeros, {"left": Integer(0, 1), "right": Boolean()}, same)
    assert named.program.names == ("left", "right")
    with pytest.raises(
        DomainError, match="the concept c0 has the values 1, 2 in `concepts`, and 0"
    ):
        MaskedDiffusion(zeros, [Integer(1, 2), Boolean()], same)
    with pytest.raises(DomainError, match="in the order 'b', 'a', and those of the program are"):
        MaskedDiffusion(zeros, {"b": Boolean(), "a": Integer(0, 1)}, same)
    with pytest.raises(DomainError, match="in the order 'b', 'a'"):
        MaskedDiffusion(
            zeros, {"b": Boolean(), "a": Boolean()}, lambda a, b: a > b, outputs=Boolean()
        )
    with pytest.raises(DomainError, match="concepts=2: give domains"):
        MaskedDiffusion(zeros, 2, same)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(4), r"float32 of shape \(4,\) for 4 worlds: give integers of shape \(4, 1\)"),
        (torch.zeros(4, 1), "float32"),
        ([0, 0, 0, 0], "gave a list"),
        (torch.full((4, 1), 2), "position 2 in dimension 0 of the output, which has 2 values"),
    ],
)
def test_what_a_program_answers(codes: Any, message: str) -> None:
    program = WorldProgram(("a", "b"), (Boolean(),) * 2, ((0, 1),), lambda worlds: codes)
    with pytest.raises(ByssusError, match=message):
        MaskedDiffusion(zeros, program=program)
    with pytest.raises(DomainError, match="1 names for 2 domains"):
        WorldProgram(("a",), (Boolean(),) * 2, ((0, 1),), lambda worlds: worlds)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (torch.full((4, 2), 3), "c_t is 3 in row 0, column 0: give the position of a value, below"),
        (torch.full((4, 2), -2), "c_t is -2"),
        (torch.full((4, 3), 2), r"c_t of shape \(4, 3\)"),
        (torch.full((4, 2), 2.0), "float32: give int64"),
    ],
)
def test_states(states: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        xor()(X, states)


def test_labels() -> None:
    model = xor()
    for y in (3, None):
        with pytest.raises(TargetError, match="give a tensor or a sequence"):
            model.loss(X, y)
    with pytest.raises(TargetError, match="2 targets for a batch of 4 examples"):
        model.loss(X, [True, False])
    with pytest.raises(TargetError, match="a target is no output of the program: 7"):
        model.loss(X, [True, True, True, 7])
    with pytest.raises(TargetError, match=r"the target of example 1 is 2 in dimension 0"):
        model.loss(X, torch.tensor([1, 2, 0, 1]))
    with pytest.raises(TargetError, match=r"shape \(4, 2\)"):
        model.loss(X, torch.zeros(4, 2, dtype=torch.int64))
    with pytest.raises(TargetError, match="float32"):
        model.loss(X, torch.zeros(4))
    both = MaskedDiffusion(
        zeros, [Boolean(), Boolean()], lambda a, b: (a and b, a or b),
        outputs=Tuple(Boolean(), Boolean()),
    )  # fmt: skip
    with pytest.raises(TargetError, match=r"example 1 is \(True, False\), which no world gives"):
        both.loss(X, [(True, True), (True, False), (False, True), (False, False)])
    with pytest.raises(TargetError, match="no output"):
        both.loss(X, [True] * 4)


def test_inputs() -> None:
    model = xor()
    with pytest.raises(EmptyBatchError, match="x has no examples"):
        model.sample(X[:0])
    with pytest.raises(ShapeError, match="x is a scalar"):
        model.sample(torch.tensor(1.0))
    with pytest.raises(ShapeError, match=r"x \(tuple\) has batches of 1, 4 examples"):
        model.sample((X, X[:1]))
    with pytest.raises(ByssusError, match="n=0: give a whole number of 1 or more"):
        model.sample(X, 0)
    with pytest.raises(ByssusError, match="steps=0"):
        model.sample(X, steps=0)
    with pytest.raises(ByssusError, match="votes=0"):
        model.predict(X, 0)
    with pytest.raises(ByssusError, match="strategy='best': there are 'PTM', 'PMM', 'TMP', 'MMP'"):
        model.predict(X, 5, "best")
    with pytest.raises(ByssusError, match="mode='mean'"):
        model.predict(X, 5, mode="mean")
    with pytest.raises(ByssusError, match="samples=1"):
        model.bound(X, [True] * 4, 1)
    with pytest.raises(ByssusError, match="the bound needs the entropy"):
        xor(inference="sampled").bound(X, [True] * 4)


def test_lengths() -> None:
    words = List(Boolean(), 3)
    model = MaskedDiffusion(
        lambda x, c_t: x.new_zeros(len(x), 3, 2), {"word": words}, any, outputs=Boolean()
    )
    assert model.sample(X, lengths={"word": torch.tensor([0, 1, 2, 3])}).shape == (4, 1, 3)
    with pytest.raises(ShapeError, match="lengths of word: give 4 integers from 0 to 3"):
        model.sample(X, lengths=torch.tensor([0, 1, 2, 4]))
    with pytest.raises(ShapeError, match="lengths of 'other': the lists are 'word'"):
        model.sample(X, lengths={"other": torch.tensor([0, 1, 2, 3])})
    with pytest.raises(ShapeError, match=r"a mask of shape \(4, 2\): expected \(4, 3\)"):
        model.sample(X, lengths=torch.ones(4, 2, dtype=torch.bool))
    for ends in ([True, False, True], [False, False, True]):
        with pytest.raises(ShapeError, match="is that of no world: only lists end"):
            model.loss(X, [True] * 4, torch.tensor([ends] * 4))
    with pytest.raises(ShapeError, match="is that of no world"):
        xor().loss(X, [True] * 4, torch.zeros(4, 2, dtype=torch.bool))
    with pytest.raises(ShapeError, match="lengths of type list"):
        model.sample(X, lengths=[0, 1, 2, 3])  # type: ignore[arg-type]
    for given in ([0, 1, 2, 3], torch.tensor([0.0, 1.0, 2.0, 3.0])):
        with pytest.raises(ShapeError, match="lengths of word: give a tensor of 4 integers"):
            model.sample(X, lengths={"word": given})  # type: ignore[dict-item]
    with pytest.raises(ProbabilityError, match=r"row 1 of the batch: .* lists may be too short"):
        model.loss(X, [True] * 4, torch.tensor([2, 0, 1, 3]))
    with pytest.raises(ShapeError, match="give lengths="):
        xor().sample(X, lengths=torch.tensor([1, 1, 1, 1]))
