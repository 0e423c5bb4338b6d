"""What a project does with a model: train, evaluate, save, ask what it is."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from deepproblog.dataset import DataLoader, Dataset, QueryDataset
from deepproblog.evaluate import get_confusion_matrix, get_fact_accuracy
from deepproblog.query import Query
from deepproblog.train import train_model
from problog.logic import Constant, Term, list2term

from byssus import ByssusError
from byssus_deepproblog.semiring import BatchSemiring
from byssus_deepproblog.solver import BatchSolver
from deepproblog_oracle import (
    Classifier,
    Model,
    Pair,
    gradients,
    ours,
    pair,
    query,
    same_answers,
    same_step,
)

PROGRAM = """
nn(net, [X], Y, [0,1,2]) :: digit(X, Y).
t(0.3) :: upside_down.
addition(X, Y, Z) :- digit(X, A), digit(Y, B), \\+ upside_down, Z is A + B.
addition(X, Y, Z) :- digit(X, A), digit(Y, B), upside_down, Z is 4 - A - B.
"""

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")


class Sums(Dataset):  # type: ignore[misc]
    def __init__(self, size: int = 12, p: float = 1.0) -> None:
        self.size, self.p = size, p

    def __len__(self) -> int:
        return self.size

    def to_query(self, i: int) -> Query:
        return query(f"addition(i0, i1, {i % 5})", 2 * i, 2 * i + 1, p=self.p)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def models() -> Pair:
    return pair(PROGRAM, {"net": Classifier(3)})


def weights(model: Model) -> list[float]:
    module = model.networks["net"].network_module
    return [*torch.cat([p.flatten() for p in module.parameters()]).tolist(), *model.parameters]


@pytest.mark.parametrize("how", [{}, {"loss_function_name": "mse"}, {"with_negatives": True}])
def test_training(models: Pair, how: dict[str, Any]) -> None:
    """The same weights after two epochs, losses logged alike."""
    losses = []
    for model in models:
        loader = DataLoader(Sums(), 4, shuffle=False)
        trained = train_model(model, loader, 2, log_iter=3, **how)
        losses.append(list(trained.logger.log_data["loss"].values()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert weights(models.ours) == pytest.approx(weights(models.theirs), abs=1e-6)


def test_evaluation(models: Pair) -> None:
    matrices = [get_confusion_matrix(model, Sums()) for model in models]
    assert (matrices[0].matrix == matrices[1].matrix).all()
    assert matrices[0].classes == matrices[1].classes
    facts = [get_fact_accuracy(model, Sums(), threshold=0.2) for model in models]
    assert (facts[0].matrix == facts[1].matrix).all()


def test_ground_dataset(models: Pair) -> None:
    """All queries are one template: one grounding, where DeepProbLog grounds each answer."""
    found = [model.ground_dataset(Sums()) for model in models]
    assert [len(f["ground_times"]) for f in found] == [5, 1]
    assert all(t > 0 for t in found[1]["ground_times"])


def test_times_of_a_result(models: Pair) -> None:
    for model in models:
        (result,) = model.solve([query("addition(i0, i1, 2)", 0, 1)])
        assert result.ground_time > 0
        assert result.compile_time >= 0
        assert result.eval_time > 0


def test_saved_state(tmp_path: Path, models: Pair) -> None:
    """What one engine saves the other loads."""
    train_model(models.ours, DataLoader(Sums(), 4), 1)
    file = tmp_path / "model.zip"
    models.ours.save_state(file, complete=True)
    models.theirs.load_state(file)
    assert weights(models.theirs) == weights(models.ours)


def test_hyperparameters() -> None:
    model = ours(PROGRAM, {"net": Classifier(3)}, provenance="auto", samples=7)
    about = json.loads(json.dumps(model.get_hyperparameters()))
    assert about["solver"]["engine"] == {"type": "byssus", "provenance": "auto", "samples": 7}


def test_a_loss_of_one_s_own(models: Pair) -> None:
    """Probabilities are tensors; what is made of them has the gradients of DeepProbLog's."""
    found = []
    for model in models:
        first, second = model.solve([query("addition(i0, i1, 2)", 0, 1), query("upside_down")])
        p, q = next(iter(first.result.values())), next(iter(second.result.values()))
        assert p.shape == q.shape == ()
        (p * q + p.log()).backward()
        found.append([model.networks["net"].network_module.linear.weight.grad])
        found[-1].append(torch.as_tensor(model.optimizer._params_grad[0]))
    for theirs, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


def test_losses_are_passed_back_together() -> None:
    """By the last one, by an optimizer's step, or by the next batch."""
    model = ours(PROGRAM, {"net": Classifier(3)})
    module = model.networks["net"].network_module
    queries = [query(f"addition(i0, i1, {z})", z, 2) for z in range(3)]

    def step(count: int) -> list[float]:
        results = model.solve(queries)
        for result, q in list(zip(results, queries, strict=True))[:count]:
            model.solver.semiring.cross_entropy(result, 1.0, 1.0, q.substitute().query)
        return results

    step(3)
    whole = module.linear.weight.grad.clone()
    assert whole.abs().sum() > 0
    module.zero_grad()
    results = step(2)
    assert module.linear.weight.grad is None
    BatchSemiring.cross_entropy(results[2], 1.0, 1.0)
    torch.testing.assert_close(module.linear.weight.grad, whole)
    module.zero_grad()
    step(2)
    model.solve(queries[:1])
    two = module.linear.weight.grad.clone()
    assert not torch.equal(two, whole)
    module.zero_grad()
    before = module.linear.weight.detach().clone()
    step(2)
    model.optimizer.step()
    torch.testing.assert_close(before - module.linear.weight, 0.1 * two)


def test_without_an_optimizer_each_loss_is_passed_back_at_once() -> None:
    model = ours(PROGRAM, {"net": Classifier(3)}, optimizer=False)
    results = model.solve([query(f"addition(i0, i1, {z})", z, 2) for z in range(3)])
    BatchSemiring.mse(results[0], 1.0, 1.0)
    assert model.networks["net"].network_module.linear.weight.grad is not None


def test_networks_are_called_once_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the distinct inputs of the batch."""
    model = ours(PROGRAM, {"net": Classifier(3)})
    seen = []
    model.networks["net"].network_module.register_forward_pre_hook(
        lambda _, inputs: seen.append(len(inputs[0]))
    )
    model.solve([query(f"addition(i0, i1, {z})", z % 2, 2) for z in range(5)])
    assert seen == [3]


def test_two_models_at_once() -> None:
    """They share nothing, though ProbLog's registry of foreign functions is one a process."""
    first = ours("a(X) :- f(X).", {})
    second = ours("a(X) :- f(X).", {})
    first.register_foreign(lambda: Term("one"), "f", 0, 1)
    second.register_foreign(lambda: Term("two"), "f", 0, 1)
    for model, name in (first, "one"), (second, "two"), (first, "one"):
        (result,) = model.solve([query("a(X)")])
        assert list(map(str, result.result)) == [f"a({name})"]
    assert isinstance(first.solver, BatchSolver)


def test_another_engine_of_one_model() -> None:
    """`set_engine` again, with and without a cache."""
    from byssus_deepproblog import Engine

    model = ours(PROGRAM, {"net": Classifier(3)})
    (before,) = model.solve([query("addition(i0, i1, 2)", 0, 1)])
    model.set_engine(Engine(model), cache=False)
    (after,) = model.solve([query("addition(i0, i1, 2)", 0, 1)])
    assert {k: float(v) for k, v in after.result.items()} == pytest.approx(
        {k: float(v) for k, v in before.result.items()}
    )


def test_sixteen_digits() -> None:
    """Sums of numbers of sixteen digits teach a network that reads them half right."""
    program = """
nn(net, [X], Y, [0,1,2,3,4,5,6,7,8,9]) :: digit(X, Y).
result(X, Y, C, Carry, R) :- digit(X, D1), digit(Y, D2), S is D1 + D2 + C, Carry is S // 10,
    R is S mod 10.
add([], [], C, C, []).
add([X|Xs], [Y|Ys], Cin, Cout, [R|Rs]) :- add(Xs, Ys, Cin, C, Rs), result(X, Y, C, Cout, R).
multi_addition(Xs, Ys, [C|Rs]) :- add(Xs, Ys, 0, C, Rs).
"""
    module = Classifier(10, features=10)
    module.load_state_dict({"linear.weight": 3 * torch.eye(10), "linear.bias": torch.zeros(10)})
    model = ours(program, {"net": module})
    draw = random.Random(0)
    pictures: dict[tuple[Constant], torch.Tensor] = {}
    queries = []
    for _ in range(4):
        numbers = [draw.randrange(10**16) for _ in range(2)]
        arguments = []
        for number in numbers:
            arguments.append([])
            for digit in map(int, f"{number:016}"):
                name = Constant(len(pictures))  # no picture twice: it would be one variable
                pictures[(name,)] = torch.eye(10)[digit]
                arguments[-1].append(Term("tensor", Term("digits", name)))
        arguments.append([Constant(int(d)) for d in f"{sum(numbers):017}"])
        queries.append(Query(Term("multi_addition", *map(list2term, arguments))))
    model.add_tensor_source("digits", pictures)
    trained = train_model(model, DataLoader(QueryDataset(queries), 4), 12, log_iter=4)
    losses = list(trained.logger.log_data["loss"].values())
    assert losses[-1] < losses[0] - 1
    assert len(model.solver._structures) == 1


def test_losses_of_one_s_own_query_by_query(models: Pair) -> None:
    """Each passed back by itself; and gradients asked for by name."""
    texts = ["addition(i0, i1, 2)", "addition(i0, i1, 3)", "upside_down", "addition(i0, i1, 1)"]
    found = []
    for model in models:
        for result in model.solve([query(text, 0, 1) for text in texts]):
            (p,) = result.result.values()
            (-p.log()).backward()
        found.append(gradients(model))
    for name, theirs in found[0].items():
        torch.testing.assert_close(found[1][name], theirs, atol=1e-6, rtol=1e-5, msg=name)
    again = []
    for model in models:
        (result,) = model.solve([query(texts[0], 0, 1)])
        (p,) = result.result.values()
        again.append(torch.autograd.grad(p.log(), list(model.networks["net"].parameters())))
    for theirs, mine in zip(*again, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


def test_second_derivatives_are_refused(models: Pair) -> None:
    """By an error: `torch.autograd.grad` would leave out what has none."""
    (result,) = models.ours.solve([query("addition(i0, i1, 2)", 0, 1)])
    (p,) = result.result.values()
    parameters = list(models.ours.networks["net"].parameters())
    with pytest.raises(ByssusError, match="leave create_graph=True out"):
        torch.autograd.grad(p.log(), parameters, create_graph=True)


def test_without_gradients(models: Pair) -> None:
    """Under `torch.no_grad()` the same probabilities; and gradients again after it."""
    asked = [query("addition(i0, i1, 2)", 0, 1), query("upside_down")]
    with torch.no_grad():
        same_answers(models, asked)
    same_step(models, asked)
