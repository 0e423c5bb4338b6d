"""Black boxes: tabulated against brute force, sampled within what they were asked for."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

import byssus
from byssus import (
    BlackBoxError,
    BlackBoxOutputError,
    Boolean,
    BudgetExceeded,
    ByssusError,
    Discrete,
    DomainError,
    EmptyBatchError,
    Float,
    Integer,
    List,
    NondeterministicError,
    Padded,
    Permutation,
    ProbabilityError,
    ShapeError,
    Tuple,
    blackbox,
)
from oracle import brute_force, gradient, probabilities, raw


class Spy:
    """Counts what it was called on."""

    __name__ = "spy"

    def __init__(self, function=lambda *x: sum(x), bad=()) -> None:
        self.function, self.bad = function, set(bad)
        self.seen: Counter = Counter()

    def __call__(self, *arguments):
        self.seen[arguments] += 1
        if arguments in self.bad:
            raise KeyError("broken")
        return self.function(*arguments)


def rows(width: int, batch: int = 3, seed: int = 0) -> Tensor:
    return raw(probabilities((width,), batch, seed=seed))


def agree(result: byssus.Distribution, truth: dict, *leaves: Tensor) -> None:
    """Values and gradients; outputs that never occur have probability 0."""
    assert result.bias == "exact"
    assert set(truth) <= set(result.values)
    for value in result.values:
        torch.testing.assert_close(
            result[value], torch.zeros_like(result[value]) + truth.get(value, 0)
        )
    weights = torch.linspace(1, 2, len(result.values), dtype=torch.float64)
    one = (result.probs * weights).sum()
    two = sum(
        (truth.get(v, torch.zeros(())) * w).sum()
        for v, w in zip(result.values, weights, strict=True)
    )
    for got, wanted in zip(gradient(one, *leaves), gradient(two, *leaves), strict=True):
        torch.testing.assert_close(got, wanted)


# Tabulated


@pytest.mark.parametrize(
    ("domains", "function", "output"),
    [
        ([Integer(0, 3), Integer(0, 2)], lambda a, b: a + b, Integer(0, 5)),
        ([Discrete("xyz"), Boolean()], lambda a, b: a if b else "none", None),
        ([Boolean(), Boolean(), Boolean()], lambda a, b, c: a + b + c > 1, Boolean()),
        (
            [Integer(0, 3), Integer(0, 2)],
            lambda a, b: (min(a, b), a > b),
            Tuple(Integer(0, 3), Boolean()),
        ),
        ([Integer(1, 3), Integer(1, 4)], lambda a, b: a / b, Float()),
    ],
)
def test_tabulated(domains, function, output) -> None:
    leaves = [rows(d.size, seed=i) for i, d in enumerate(domains)]
    truth = brute_force(function, [d.values for d in domains], leaves)
    spy = Spy(function)
    box = blackbox(*domains, output=output)(spy)
    agree(box(*leaves), truth, *leaves)
    assert set(spy.seen.values()) == {1}
    assert len(spy.seen) == box.calls == np.prod([d.size for d in domains])


def test_tuple_inputs() -> None:
    box = blackbox(Tuple(Integer(0, 2), Boolean()), output=Integer(0, 5))(
        lambda pair: pair[0] * 2 + pair[1]
    )
    p, q = rows(3), rows(2, seed=1)
    agree(box((p, q)), brute_force(lambda a, b: a * 2 + b, [range(3), (False, True)], [p, q]), p, q)


@pytest.mark.parametrize("form", ["padded", "list"])
def test_lists_of_many_lengths(form: str) -> None:
    spy = Spy(sum)
    box = blackbox(List(Integer(0, 2), 3), output=Integer(0, 6))(spy)
    lengths = [2, 0, 3, 1, 2] if form == "padded" else [2, 3, 1, 2]
    batch = len(lengths)
    leaf = raw(probabilities((3,), batch, 3))
    view = (
        Padded(leaf, tensor(lengths))
        if form == "padded"
        else [leaf[i, :n] for i, n in enumerate(lengths)]
    )
    result = box(view)
    expected = []
    for i, n in enumerate(lengths):
        truth = {0: torch.ones(1, dtype=torch.float64)}
        if n:
            parts = [leaf[i : i + 1, j] for j in range(n)]
            truth = brute_force(lambda *x: sum(x), [range(3)] * n, parts)
        expected.append(torch.cat([truth.get(y, torch.zeros(1)).double() for y in range(7)]))
    wanted = torch.stack(expected)
    torch.testing.assert_close(result.probs, wanted)
    (got,), (want,) = (gradient(x.square().sum(), leaf) for x in (result.probs, wanted))
    torch.testing.assert_close(got, want)
    assert box.calls == sum(3**n for n in set(lengths))
    before = box.calls
    box(leaf[:, :1])
    assert box.calls == before


def test_permutations_are_conditioned_on() -> None:
    box = blackbox(Permutation(3), Boolean(), output=Integer(1, 3))(lambda p, flip: p[2 * flip])
    p, q = raw(probabilities((3,), 2, 3)), rows(2, batch=2)
    weights: dict = {}
    for order in itertools.permutations(range(3)):
        weight = torch.stack([p[:, i, j] for i, j in enumerate(order)]).prod(0)
        for flip in (0, 1):
            y = order[2 * flip] + 1
            weights[y] = weights.get(y, 0) + weight * q[:, flip]
    total = sum(
        torch.stack([p[:, i, j] for i, j in enumerate(order)]).prod(0)
        for order in itertools.permutations(range(3))
    )
    agree(box(p, q), {y: w / total for y, w in weights.items()}, p, q)


def test_impossible_permutations_are_refused() -> None:
    box = blackbox(Permutation(4), output=Integer(1, 4))(lambda p: p[0])
    view = torch.stack([torch.eye(4), torch.eye(4)[[0] * 4]])  # the second: four things, one place
    torch.testing.assert_close(box(view[:1])[1].item(), 1.0)
    with pytest.raises(ProbabilityError, match=r"row 1 of .* gives every permutation"):
        box(view)


@settings(max_examples=20)
@given(st.integers(0, 99), st.sampled_from([torch.float32, torch.float64]))
def test_gradient_where_probabilities_are_zero_or_one(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    one_hot = torch.eye(3, dtype=dtype)
    p, q = (raw(one_hot[torch.randint(3, (2,), generator=generator)]) for _ in range(2))
    box = blackbox(Integer(0, 2), Integer(0, 2), output=Integer(0, 4))(lambda a, b: a + b)
    truth = brute_force(lambda a, b: a + b, [range(3)] * 2, [p, q])
    agree(box(p, q), truth, p, q) if dtype == torch.float64 else None
    for g in gradient(box(p, q).loss([0, 4]), p, q):
        assert g.isfinite().all()


def test_devices(device: torch.device) -> None:
    for provenance in ("exact", "sampled"):
        box = blackbox(
            Integer(0, 2), List(Integer(0, 1), 2), output=Integer(0, 4), provenance=provenance
        )(lambda a, b: a + sum(b))
        p = rows(3, 2).detach().to(device).requires_grad_()
        q = probabilities((2,), 2, 2).to(device)
        result = box(p, Padded(q, tensor([1, 2])))
        assert result.loss(tensor([0, 1], device=device)).device.type == device.type
        result.loss([0, 1]).backward()


# Plain calls, calls, memo


def test_plain_calls_are_the_plain_function() -> None:
    def power(base: int, exponent: int = 2) -> int:
        """Raise."""
        return base**exponent

    box = blackbox(Integer(0, 3), Integer(0, 3))(power)
    assert box(7) == 49
    assert box(base=2, exponent=5) == 32
    assert box("ab".upper() and 2, 3) == 8
    assert box.calls == 0
    assert (box.__name__, box.__doc__, box.__wrapped__) == ("power", "Raise.", power)
    assert repr(box) == "<black box power: (Integer(0, 3), Integer(0, 3)) -> anything>"


def test_memo_over_steps() -> None:
    spy = Spy()
    box = blackbox(Integer(0, 3), Integer(0, 3))(spy)
    first = box(rows(4), rows(4))
    assert (first.calls, box.calls) == (16, 16)
    again = box(rows(4, seed=5), rows(4))
    assert (again.calls, box.calls) == (0, 16)
    assert set(spy.seen.values()) == {1}


def test_sampling_calls_only_what_was_drawn() -> None:
    spy = Spy()
    box = blackbox(*[Integer(0, 9)] * 5, samples=12, generator=torch.Generator().manual_seed(0))(
        spy
    )
    leaves = [rows(10, seed=i) for i in range(5)]
    result = box(*leaves)
    worlds = {tuple(w) for w in result._the_sample.worlds.indices.flatten(0, 1).tolist()}
    assert set(spy.seen) == worlds
    assert set(spy.seen.values()) == {1}
    assert result.calls == len(worlds) <= 36
    assert set(result.values) == {sum(w) for w in worlds}
    assert result.values == tuple(sorted(result.values))


def test_indecater_counts_what_it_asks() -> None:
    box = blackbox(
        Integer(0, 2), Integer(0, 2), provenance="sampled", samples=2, estimator="indecater"
    )(Spy())
    result = box(rows(3, 1), rows(3, 1))
    before = result.calls
    _ = result.scores
    assert result.calls == box.calls > before


def test_without_memo_every_world_is_a_call() -> None:
    box = blackbox(Integer(0, 1), memo=False, samples=400, output=Boolean())(
        lambda x: random.random() < (0.9 if x else 0.2)
    )
    p = tensor([[0.3, 0.7]], dtype=torch.float64)
    random.seed(0)
    result = box(p)
    assert result.calls == box.calls == 400
    assert result.coverage.item() == 0
    assert result[True].item() == pytest.approx(0.3 * 0.2 + 0.7 * 0.9, abs=0.06)
    assert box(p).calls == 400
    assert result.loss([True]).isfinite()


def test_numpy_scalars_are_plain_values() -> None:
    box = blackbox(Integer(0, 3))(lambda x: np.int64(x // 2))
    result = box(rows(4))
    assert [type(v) for v in result.values] == [int, int]
    assert result.loss(tensor([1, 1, 0])).isfinite()


# Failures


@pytest.mark.parametrize("provenance", ["exact", "sampled"])
def test_a_failed_step_leaves_no_trace(provenance: str) -> None:
    spy = Spy(bad={(2, 1)})
    box = blackbox(Integer(0, 2), Integer(0, 2), provenance=provenance, samples=60)(spy)
    p = torch.full((3, 3), 1 / 3)
    with pytest.raises(BlackBoxError, match=r"spy\(2, 1\) raised KeyError") as caught:
        box(p, p)
    assert caught.value.arguments == (2, 1)
    assert isinstance(caught.value.cause, KeyError)
    assert not box._tables
    assert not box.caller._memo
    calls = box.calls
    spy.bad.clear()
    result = box(p, p)
    assert result.probs.isfinite().all()
    assert box.calls == calls + len(box.caller._memo)


def test_discarded_mass_is_reported_exactly() -> None:
    bad = {(2, 1), (0, 0)}
    spy = Spy(bad=bad)
    box = blackbox(Integer(0, 2), Integer(0, 2), output=Integer(0, 4), on_error="discard")(spy)
    p, q = rows(3), rows(3, seed=1)
    result = box(p, q)
    lost = sum(p[:, a] * q[:, b] for a, b in bad)
    torch.testing.assert_close(result.lost, lost.detach())
    torch.testing.assert_close(result.probs.sum(1), 1 - lost)
    assert set(result.failures) == bad
    assert all(isinstance(cause, KeyError) for cause in result.failures.values())
    assert box(p, q).calls == 0


def test_discarded_samples() -> None:
    box = blackbox(
        Integer(0, 2), output=Integer(0, 2), on_error="discard", provenance="sampled", samples=200
    )(Spy(lambda x: x, bad={(1,)}))
    p = tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    result = box(p)
    assert result.lost.item() == pytest.approx(0.5)
    torch.testing.assert_close(result.probs, tensor([[0.2, 0, 0.3]], dtype=torch.float64))


@pytest.mark.parametrize("estimator", ["ised", "distinct", "rloo"])
@pytest.mark.parametrize("provenance", ["exact", "sampled"])
@pytest.mark.parametrize(
    "output", [None, Integer(0, 3), Tuple(Integer(0, 1), Boolean()), List(Integer(0, 9), 6)]
)
def test_all_worlds_lost(estimator: str, provenance: str, output) -> None:
    bad = {(i,) for i in range(3)}
    box = blackbox(
        Integer(0, 2), output=output, on_error="discard", estimator=estimator, provenance=provenance
    )(Spy(bad=bad))
    leaf = rows(3)
    result = box(leaf)
    torch.testing.assert_close(result.lost, torch.ones_like(result.lost))
    assert result.coverage.shape == (3,)
    loss = result.loss([1 if output is None else next(iter(output))] * 3)
    assert loss.isfinite()
    (g,) = gradient(loss, leaf)
    assert (g == 0).all()


def test_a_value_in_place_of_failures() -> None:
    box = blackbox(Integer(0, 2), Integer(0, 2), output=Integer(-1, 4), on_error=-1)(
        Spy(bad={(2, 1)})
    )
    p, q = rows(3), rows(3, seed=1)
    result = box(p, q)
    torch.testing.assert_close(result[-1], p[:, 2] * q[:, 1])
    assert not result.failures
    assert (result.lost == 0).all()


def test_an_output_outside_its_domain() -> None:
    box = blackbox(Integer(0, 2), Integer(0, 2), output=Integer(0, 3))(Spy())
    with pytest.raises(BlackBoxOutputError, match=r"spy\(2, 2\) returned 4, which is no output"):
        box(rows(3), rows(3))
    for value in (float("nan"), {}, [1, {}]):
        with pytest.raises(BlackBoxOutputError):
            blackbox(Integer(0, 1))(lambda _, value=value: value)(rows(2))


def test_nondeterministic_functions() -> None:
    box = blackbox(Integer(0, 9), Integer(0, 9))(lambda a, b: random.randrange(100))
    with pytest.raises(NondeterministicError, match="memo=False"):
        box(rows(10), rows(10))
    counter = itertools.count()
    with pytest.raises(NondeterministicError):
        blackbox(Integer(0, 3), check=2)(lambda a: next(counter))(rows(4))


# Budgets and plans


def test_a_domain_beyond_the_budget_is_sampled() -> None:
    spy = Spy()
    box = blackbox(Integer(0, 9), Integer(0, 9), budget=99, samples=5)(spy)
    assert not box.tabulates()
    result = box(rows(10), rows(10))
    assert "biased" in result.bias
    assert box.calls <= 15
    assert blackbox(Integer(0, 9), Integer(0, 9), budget=100)(Spy()).tabulates()
    assert blackbox(*[Integer(0, 9)] * 4)(Spy()).tabulates()
    assert not blackbox(*[Integer(0, 9)] * 5)(Spy()).tabulates()


def test_budget_is_checked_before_any_call() -> None:
    spy = Spy()
    box = blackbox(Integer(0, 9), Integer(0, 9), budget=20, samples=100)(spy)
    with pytest.raises(BudgetExceeded, match=r"budget of 20 calls: 0 are made and .* more"):
        box(rows(10), rows(10))
    assert not spy.seen
    box = blackbox(Integer(0, 9), Integer(0, 9), budget=20, provenance="exact")(spy)
    with pytest.raises(BudgetExceeded, match="all 100 argument tuples, and at most 20"):
        box(rows(10), rows(10))
    assert not spy.seen


def test_tables_of_several_lengths_are_filled_together_or_not_at_all() -> None:
    spy = Spy(len)
    box = blackbox(List(Integer(0, 1), 4), budget=28)(spy)
    leaf = probabilities((2,), 2, 4)
    box(leaf[:1])  # 16 calls
    with pytest.raises(BudgetExceeded, match="16 are made and 14 more"):
        box(Padded(torch.cat([leaf] * 2)[:3], tensor([1, 2, 3])))
    assert box.calls == sum(spy.seen.values()) == 16
    assert len(box._tables) == 1


def test_plan() -> None:
    plan = blackbox(Integer(0, 9), Integer(0, 9))(Spy()).plan()
    assert (plan.provenance, plan.calls) == ("exact", {"spy": 100})
    assert "100 argument tuples fit" in str(plan)
    assert "at most 100 calls" in str(plan)
    plan = blackbox(*[Integer(0, 9)] * 7)(Spy()).plan()
    assert (plan.provenance, plan.calls) == ("sampled", {"spy": None})
    assert "distinct sampled arguments" in str(plan)
    assert blackbox(Integer(0, 9), provenance="sampled")(Spy()).plan().why == "asked for"
    assert "random" in blackbox(Integer(0, 9), memo=False)(Spy()).plan().why


# Outputs


def test_discovered_outputs_of_any_kind() -> None:
    box = blackbox(Integer(0, 3))(lambda x: [None, "a", (1, "b"), 2][x])
    p = rows(4)
    result = box(p)
    assert result.values == (None, "a", (1, "b"), 2)
    torch.testing.assert_close(result.probs, p)
    assert result.loss([None, (1, "b"), 2]).isfinite()


def test_float_outputs_with_a_tolerance() -> None:
    box = blackbox(Integer(1, 3), Integer(1, 3), output=Float(0.2), provenance="sampled")(
        lambda a, b: a / b
    )
    result = box(rows(3), rows(3))
    assert all(isinstance(v, float) for v in result.values)
    target = [1.1, 0.6, 3]
    matrix = tensor([[abs(v - t) < 0.2 for v in result.values] for t in target])
    assert matrix[1].sum() == 2  # 1/2 and 2/3
    assert result.loss(target).isfinite()
    assert result.loss(matrix).isfinite()


def test_evaluate() -> None:
    box = blackbox(Integer(0, 3), Integer(0, 3))(Spy())
    assert box.evaluate([(1, 2), (3, 3), (1, 2)]) == [3, 6, 3]
    assert box.calls == 2
    with pytest.raises(DomainError, match=r"spy\(1, 4\): argument 1 is 4"):
        box.evaluate([(1, 4)])


# Misuse


@pytest.mark.parametrize(
    ("views", "error", "message"),
    [
        ((torch.full((2, 4), 0.25), torch.full((2, 3), 1 / 3)), ShapeError, r"\(2, 4\).*\(2, 3\)"),
        ((torch.full((2, 3), 1 / 3), torch.full((3, 3), 1 / 3)), ShapeError, "batches of 2, 3"),
        (
            (torch.full((2, 3), 1 / 3), tensor([[0.5, 0.5, 0], [0.5, float("nan"), 0]])),
            ProbabilityError,
            "row 1 of argument 1 of spy are not finite.*nan",
        ),
        (
            (tensor([[1.5, -0.5, 0]]), torch.full((1, 3), 1 / 3)),
            ProbabilityError,
            "row 0 of argument 0 of spy are negative in part.*-0.5",
        ),
        (
            (torch.full((1, 3), 1 / 3), torch.full((1, 3), 0.5)),
            ProbabilityError,
            "argument 1 of spy sum to 1.5",
        ),
        ((torch.ones(0, 3), torch.ones(0, 3)), EmptyBatchError, "no examples"),
        (
            (torch.ones(1, 3, dtype=torch.int64), torch.full((1, 3), 1 / 3)),
            ProbabilityError,
            "int64",
        ),
        ((torch.full((1, 3), 1 / 3),), ByssusError, "takes 2 distributions by position; got 1"),
        ((torch.full((1, 3), 1 / 3), 2), ShapeError, "of type int"),
    ],
)
def test_views_are_checked(views, error, message: str) -> None:
    spy = Spy()
    with pytest.raises(error, match=message) as caught:
        blackbox(Integer(0, 2), Integer(0, 2))(spy)(*views)
    assert isinstance(caught.value, ByssusError)
    assert not spy.seen


def test_the_place_of_a_wrong_row_in_a_list() -> None:
    view = torch.full((2, 3, 2), 0.5)
    view[1, 2] = 0.7
    with pytest.raises(ProbabilityError, match=r"row \(1, 2\) of argument 0 of spy sum to 1.4"):
        blackbox(List(Integer(0, 1), 3))(Spy())(view)


def test_what_cannot_be_a_black_box() -> None:
    with pytest.raises(DomainError, match="needs the domain of each argument"):
        blackbox(lambda x: x)
    with pytest.raises(DomainError, match="argument 1 of the black box has 3"):
        blackbox(Integer(0, 1), 3)
    with pytest.raises(DomainError, match=r"output=.int"):
        blackbox(Integer(0, 1), output="int")
    with pytest.raises(DomainError, match="argument 0 is Float"):
        blackbox(Float())(len)
    with pytest.raises(ByssusError, match="provenance='mixed'"):
        blackbox(Integer(0, 1), provenance="mixed")
    with pytest.raises(ByssusError, match="no estimator 'magic'"):
        blackbox(Integer(0, 1), estimator="magic")(len)
    with pytest.raises(ByssusError, match="got 2 and b"):
        blackbox(Integer(0, 1), Integer(0, 1))(Spy())(rows(2), rows(2), b=1)


def test_outputs_are_told_apart_by_type() -> None:
    answers = [1, True, 1.0]
    for output in (Discrete(answers), None):
        box = blackbox(Integer(0, 2), output=output)(lambda x: answers[x])
        y = box(rows(3))
        assert list(map(type, y.values)) == [int, bool, float]
        for i, answer in enumerate(answers):
            torch.testing.assert_close(y[answer], rows(3)[:, i])
            torch.testing.assert_close(y.loss([answer] * len(y)), -rows(3)[:, i].log().mean())


def test_an_executor_that_never_started_a_call_is_to_blame_itself() -> None:
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        box = blackbox(Integer(0, 2), executor=pool, timeout=0.1, on_error="discard")(
            lambda x: gate.wait(5) if x == 0 else x
        )
        try:
            with pytest.raises(BlackBoxError, match="workers are busy"):
                box(rows(3))
        finally:
            gate.set()


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"samples": 0}, "samples=0"),
        ({"samples": 2.5}, "samples=2.5"),
        ({"generator": 3}, "3 is no"),
    ],
)
def test_settings_are_checked_at_once(settings_: dict, message: str) -> None:
    with pytest.raises(ByssusError, match=message):
        blackbox(Integer(0, 2), **settings_)(lambda x: x)


def test_distributions_are_given_by_position() -> None:
    box = blackbox(Integer(0, 2))(lambda x: x)
    with pytest.raises(ByssusError, match="by position"):
        box(x=rows(3))
