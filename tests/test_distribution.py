"""Distributions: targets in every form, and what is said of outputs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor
from torch.nn.functional import binary_cross_entropy

from byssus import (
    Boolean,
    Discrete,
    Distribution,
    Float,
    Integer,
    List,
    TargetError,
    Tuple,
    Worlds,
    blackbox,
)
from byssus.estimators import ISED, Distinct, Membership, Sample, as_estimator
from oracle import concepts_of, gradient, raw

PROBS = tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], dtype=torch.float64)


def exact(values, domain=None, **about) -> Distribution:
    return Distribution(values, exact=PROBS, domain=domain, **about)


def sampled(values, estimator="ised", domain=None, given=(0, 1, 1, 0)) -> Distribution:
    probs = raw(tensor([[0.25, 0.75], [0.5, 0.5]], dtype=torch.float64))
    worlds = Worlds(tensor([[[0], [1]], [[1], [0]]]), torch.ones(2, 2, dtype=torch.bool))
    members = Membership(torch.arange(4), tensor(given))
    sample = Sample(concepts_of(probs, (2,)), worlds, members, len(values), lambda _: members)
    return Distribution(values, sample=sample, estimator=as_estimator(estimator), domain=domain)


def test_likelihood_of_values() -> None:
    expected = -(math.log(0.5) + math.log(0.6)) / 2
    for values, domain in [
        ("abc", None),
        ("abc", Discrete("abc")),
        ([(0, False), (0, True), (1, False)], None),
        ([2.0, 3.5, 7.25], Float()),
        ([2.0, 3.5, 7.25], None),
    ]:
        result = exact(values, domain)
        targets = [values[2], values[0]]
        assert result.loss(targets).item() == pytest.approx(expected)
        assert result.loss(tensor([2, 0])).item() == pytest.approx(expected)  # positions
        assert result.loss(tensor([2, 0], dtype=torch.int32)).item() == pytest.approx(expected)


def test_integer_tensors_hold_values_where_outputs_are_integers() -> None:
    result = exact([10, 0, 2], Integer(0, 10))
    expected = -(math.log(0.5) + math.log(0.3)) / 2
    assert result.loss(tensor([2, 0])).item() == pytest.approx(expected)
    assert result.loss([2, 0]).item() == pytest.approx(expected)
    assert exact([10, 0, 2]).loss(tensor([2, 0])).item() == pytest.approx(expected)


def test_boolean_targets() -> None:
    result = Distribution([False, True], exact=PROBS[:, :2], domain=Boolean())
    expected = -(math.log(0.3) + math.log(0.6)) / 2
    for target in ([True, False], tensor([True, False]), tensor([1, 0])):
        assert result.loss(target).item() == pytest.approx(expected)
    with pytest.raises(TargetError, match=r"example 1.*0 \(int\)"):
        result.loss([True, 0])


def test_lists_count_as_tuples() -> None:
    values = [(), (1,), (1, 2)]
    for domain in (None, List(Integer(0, 2), 2)):
        result = exact(values, domain)
        expected = -(math.log(0.5) + math.log(0.6)) / 2
        assert result.loss([[1, 2], []]).item() == pytest.approx(expected)
        assert torch.equal(result[[1, 2]], PROBS[:, 2])


def test_float_targets_within_the_tolerance() -> None:
    result = exact([1.0, 1.005, 2.0], Float(0.01))
    expected = -(math.log(0.2 + 0.3) + math.log(0.1)) / 2
    assert result.loss([1.002, 2]).item() == pytest.approx(expected)
    assert result.loss(tensor([1.002, 2.0], dtype=torch.float64)).item() == pytest.approx(expected)


def test_matrix_targets() -> None:
    target = tensor([[1, 0, 1], [0, 0, 1]])
    expected = binary_cross_entropy(PROBS, target.double())
    for form in (target, target.bool(), target.double()):
        assert exact("abc").loss(form).item() == pytest.approx(expected.item())
    result = sampled("ab")
    wanted = tensor([[0.0, 1], [1, 1]], dtype=torch.float64)
    assert torch.equal(result.loss(wanted), ISED().loss(result._the_sample, wanted))
    result = sampled("ab", "distinct")
    torch.testing.assert_close(result.loss(wanted), binary_cross_entropy(result.probs, wanted))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (["a"], "1 targets for a batch of 2"),
        (["a", "x"], "'x' of example 1 is no output"),
        (tensor([0, 3]), "target 3 is no position among 3"),
        (tensor([-1, 0]), "target -1 is no position"),
        (tensor(0), r"shape \(\)"),
        (tensor([0, 1, 2]), "3 targets"),
        (torch.zeros(2, 2), r"\(2, 2\): expected \(2, 3\)"),
        (torch.full((2, 3), 0.5), "zeros and ones"),
        (torch.zeros(2, 3, 1), r"\(2, 3, 1\)"),
        ([{"a"}, {"b"}], "set is no output"),
    ],
)
def test_target_errors(target, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        exact("abc").loss(target)


@pytest.mark.parametrize("build", [exact, sampled])
def test_targets_outside_the_domain(build) -> None:
    values = list(range(3 if build is exact else 2))
    for target in (7, "x", 1.5, True):
        with pytest.raises(TargetError, match=rf"example 1: {target!r} .*Integer\(0, 2\)"):
            build(values, domain=Integer(0, 2)).loss([0, target])
    # in the domain, though no world gave it: a possible target
    assert build(values[:2] + values[2:], domain=Integer(0, 5)).loss([0, 5]).isfinite()


def test_structured_targets_outside_the_domain() -> None:
    values = [(0, True), (1, False)]
    with pytest.raises(TargetError, match="a target outside Tuple"):
        sampled(values, domain=Tuple(Integer(0, 1), Boolean())).loss([(0, True), (2, True)])


def test_discovered_outputs() -> None:
    assert sampled("ab").loss(["z", "b"]).isfinite()  # another world may have given z
    table = blackbox(Integer(0, 2))(lambda x: "abc"[x])
    with pytest.raises(TargetError, match="'z' of example 0 is no output"):
        table(PROBS).loss(["z", "b"])


@pytest.mark.parametrize("estimator", ["distinct", "ised", "rloo"])
def test_a_missed_target_has_no_gradient_of_its_own(estimator: str) -> None:
    result = sampled("abc", estimator)
    loss = result.loss(["c", "c"])
    assert loss.isfinite()
    (g,) = gradient(loss, result._the_sample.concepts.probs)
    assert g.isfinite().all()


def test_most_likely_and_getitem() -> None:
    result = exact("abc")
    assert result.most_likely() == ["c", "a"]
    assert torch.equal(result["b"], PROBS[:, 1])
    with pytest.raises(TargetError, match=r"no output 'd': there are 'a', 'b', 'c'"):
        result["d"]
    none = Distribution((), exact=PROBS[:, :0])
    with pytest.raises(TargetError, match="no output was derived"):
        none.most_likely()
    assert none.coverage.tolist() == [1, 1]
    assert none.lost.tolist() == [0, 0]
    assert len(none) == 2


def test_what_is_exact() -> None:
    result = exact("abc", lost=tensor([0.0, 0.25]))
    assert result.bias == "exact"
    assert result.probs is result.scores is result.bound
    assert result.lost.tolist() == [0, 0.25]
    assert result.ess.tolist() == [math.inf] * 2
    assert repr(result) == "Distribution(exact, batch=2, values=['a', 'b', 'c'])"
    result = sampled("ab")
    assert "biased" in result.bias
    assert result.lost.tolist() == [0, 0]
    assert repr(result) == "Distribution(ISED, batch=2, values=['a', 'b'])"
    assert torch.equal(result.probs, Distinct().scores(result._the_sample))


def test_exact_or_sampled() -> None:
    with pytest.raises(TypeError, match="one of the two"):
        Distribution("ab")


def test_probability_zero_of_the_target() -> None:
    leaf = raw(tensor([[0.0, 1.0]]))
    result = Distribution("ab", exact=leaf * 1.0)
    (g,) = gradient(result.loss("a"), leaf)
    assert g.isfinite().all()


@pytest.mark.parametrize("target", [3, None])
def test_targets_come_in_a_list(target: object) -> None:
    with pytest.raises(TargetError, match="a list of one output for each"):
        exact("abc").loss(target)
