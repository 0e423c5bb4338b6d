"""DeepProbLog's projects under `provenance="nesydm"`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from deepproblog.dataset import DataLoader, QueryDataset
from deepproblog.evaluate import get_confusion_matrix
from deepproblog.train import train_model
from torch import Tensor, nn

from byssus import ByssusError, Integer, ShapeError, TargetError, Tuple, blackbox
from byssus.diffusion import MaskedDiffusion
from byssus_problog import Program
from deepproblog_oracle import Classifier, Images, Model, gradients, ours, query

NETWORK = "nn(net, [X], Y, [0,1,2]) :: digit(X, Y).\n"
ADDITION = NETWORK + "addition(X, Y, Z) :- digit(X, A), digit(Y, B), Z is A + B.\n"
PAIRS = [(a, b) for a in range(3) for b in range(3)]
QUERIES = [query(f"addition(i0, i1, {a + b})", a, b) for a, b in PAIRS]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Joint(nn.Module):
    """An unmasking model: a digit's image, and what is unmasked of the other digit."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.other = nn.Embedding(4, 3)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor, c_t: Tensor) -> Tensor:
        self.shapes.append((*x.shape, *c_t.shape))
        return (self.linear(x) + self.other(c_t.flip(1))).softmax(-1)


def diffused(program: str, modules: Any = None, seed: int = 0, **options: Any) -> Model:
    generator = torch.Generator().manual_seed(seed)
    return ours(program, modules, provenance="nesydm", generator=generator, **options)


def answers(model: Model, queries: Any) -> list[dict[str, float]]:
    return [
        {str(term.args[-1]): p.item() for term, p in result.result.items()}
        for result in model.solve(queries)
    ]


@pytest.mark.parametrize("make", [partial(Classifier, 3), Joint], ids=["independent", "joint"])
def test_the_loss_is_the_models(make: Callable[[], nn.Module]) -> None:
    """DeepProbLog's cross-entropy of a query is the loss of a `MaskedDiffusion`, gradient too."""
    model = diffused(ADDITION, {"net": make()}, diffusion={"gamma_h": 0.3})
    model.train()
    results = model.solve(QUERIES)
    asked = [q.substitute().query for q in QUERIES]
    loss = sum(
        model.solver.semiring.cross_entropy(result, 1.0, 1 / len(asked), q=term)
        for result, term in zip(results, asked, strict=True)
    )
    network = model.networks["net"].network_module
    program = Program(ADDITION + "query(addition(i0, i1, Z)).")
    images = Images().tensors
    x = torch.stack([images[[a, b]] for a, b in PAIRS])

    def unmask(x: Tensor, c_t: Tensor) -> Tensor:
        joint = isinstance(network, Joint)
        found: Tensor = network(x, c_t) if joint else network(x)
        return found.log()

    reference = MaskedDiffusion(
        unmask, program=program, gamma_h=0.3, generator=torch.Generator().manual_seed(0)
    )
    expected = reference.loss(x, torch.tensor([a + b for a, b in PAIRS]))
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    parameters = dict(network.named_parameters())
    wanted = torch.autograd.grad(expected, list(parameters.values()))
    found = gradients(model)
    for name, gradient in zip(parameters, wanted, strict=True):
        assert torch.allclose(found[f"net.{name}"], gradient, atol=1e-5)
    losses = [-p.log().item() for result in results for p in result.result.values()]
    assert sum(losses) / len(losses) == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("make", [partial(Classifier, 3), Joint], ids=["independent", "joint"])
def test_learning(make: Callable[[], nn.Module], capsys: pytest.CaptureFixture[str]) -> None:
    """`train_model` and `get_confusion_matrix` as they are; digits as the sums need them."""
    model = diffused(ADDITION, {"net": make()}, samples=200, diffusion={"gamma_h": 0.01})
    (optimizer,) = (network.optimizer for network in model.networks.values())
    optimizer.param_groups[0]["lr"] = 0.5
    queries = QueryDataset(QUERIES)
    before = get_confusion_matrix(model, queries).accuracy()
    train_model(model, DataLoader(queries, 9, seed=0), 60, log_iter=1000)
    after = get_confusion_matrix(model, queries).accuracy()
    assert after > max(0.7, before)


def test_an_unmasking_model_sees_all_instances() -> None:
    module = Joint()
    model = diffused(ADDITION, {"net": module}, samples=50)
    model.train()
    model.solve(QUERIES)
    seen = model.networks["net"].network_module.shapes
    assert set(seen) == {(9, 2, 4, 9, 2)}
    model.eval()
    (result,) = answers(model, QUERIES[:1])
    assert list(result) == ["0"]
    (result,) = answers(model, [QUERIES[0].variable_output()])
    assert list(result) == list("01234")
    assert sum(result.values()) == pytest.approx(1.0)


def test_queries_that_are_true_or_false() -> None:
    """Without an answer of their own; and negative examples, whose answer is not this one."""
    program = NETWORK + "same(X, Y) :- digit(X, A), digit(Y, A).\n" + ADDITION[len(NETWORK) :]
    model = diffused(program, {"net": Classifier(3)}, samples=300)
    asked = [query("same(i0, i1)", i, j, p=p, output=()) for i, j, p in ((0, 1, 1.0), (0, 2, 0.0))]
    asked.append(query("addition(i0, i1, 2)", 0, 1, p=0.0))
    model.train()
    results = model.solve(asked)
    for result, wanted in zip(results, asked, strict=True):
        loss = model.solver.semiring.cross_entropy(result, wanted.p, 1.0)
        (p,) = result.result.values()
        likelihood = p if wanted.p else 1 - p
        assert loss == pytest.approx(-likelihood.log().item(), abs=1e-5)
    assert any(bool((g != 0).any()) for g in gradients(model).values())
    with pytest.raises(ByssusError, match=r"the target 0.0, and the query was solved with p=1"):
        model.solver.semiring.cross_entropy(results[0], 0.0, 1.0)
    network = model.networks["net"]
    network.optimizer = torch.optim.Adam(network.parameters(), 0.1)
    train_model(
        model, DataLoader(QueryDataset(asked[:2]), 2, seed=0), 150, log_iter=1000, verbose=0
    )
    model.eval()
    ((same,), (other,)) = (result.result.values() for result in model.solve(asked[:2]))
    assert same > other + 0.2


def test_an_answer_that_no_world_gives() -> None:
    """It is as improbable as under DeepProbLog, and not missing."""
    model = diffused(ADDITION, {"net": Classifier(3)})
    model.eval()
    found = answers(model, [query("addition(i0, i1, 7)", 0, 1), QUERIES[0]])
    assert found[0] == {"7": 0.0}
    assert found[1]["0"] > 0


def test_answers_that_do_not_exclude_one_another() -> None:
    """Each query is then a truth value of its own."""
    program = NETWORK + "seen(X, Y, D) :- digit(X, D).\nseen(X, Y, D) :- digit(Y, D).\n"
    model = diffused(program, {"net": Classifier(3)}, samples=400)
    asked = query("seen(i0, i1, 2)", 0, 1)
    model.eval()
    exact = ours(program, {"net": model.networks["net"].network_module})
    expected = answers(exact, [asked.variable_output()])[0]
    assert answers(model, [asked.variable_output()])[0] == pytest.approx(expected, abs=0.1)
    assert answers(model, [asked])[0] == pytest.approx({"2": expected["2"]}, abs=0.1)
    model.train()
    (p,) = model.solve([asked])[0].result.values()
    p.log().backward()
    assert any(bool((g != 0).any()) for g in gradients(model).values())


def test_rules_that_need_the_answer() -> None:
    program = NETWORK + "addition(X, Y, Z) :- Z > 1, digit(X, A), digit(Y, B), Z =:= A + B.\n"
    model = diffused(program, {"net": Classifier(3)}, samples=400)
    model.eval()
    exact = ours(program, {"net": model.networks["net"].network_module})
    asked = [query("addition(i0, i1, 2)", 0, 1), query("addition(i0, i1, 3)", 1, 2)]
    for found, expected in zip(answers(model, asked), answers(exact, asked), strict=True):
        assert found == pytest.approx(expected, abs=0.1)


def test_a_black_box_with_several_dimensions() -> None:
    """Called on sampled worlds only; each part of its answer is a dimension."""

    @blackbox(*[Integer(0, 2)] * 2, output=Tuple(Integer(0, 1), Integer(0, 9)), budget=5)
    def total(a: int, b: int) -> tuple[int, int]:
        return (a + b) // 10, (a + b) % 10

    program = NETWORK + "addition(X, Y, Z) :- digit(X, A), digit(Y, B), total(A, B, Z).\n"
    model = diffused(
        program,
        {"net": Classifier(3)},
        blackboxes=[total],
        diffusion={"samples": 8, "candidates": 8},
    )
    model.train()
    with torch.no_grad():  # so that no other digits are drawn
        linear = model.networks["net"].network_module.linear
        linear.weight.zero_()
        linear.bias.copy_(torch.tensor([0.0, 30.0, 0.0]))
    (result,) = model.solve([query("addition(i0, i1, [0, 2])", 0, 1)])
    (p,) = result.result.values()
    assert p.item() == pytest.approx(1.0, abs=0.01)
    assert total.calls <= 5


def test_learned_probabilities() -> None:
    """Beside a network, and alone."""
    program = (
        NETWORK
        + "t(0.5)::flip.\nout(X, Y) :- flip, digit(X, Y).\nout(X, 0) :- \\+ flip, digit(X, _).\n"
        + "t(0.3)::alone(1).\n"
    )
    model = diffused(program, {"net": Classifier(3)}, samples=2000)
    model.train()
    (result,) = model.solve([query("out(i0, 2)", 3)])
    model.solver.semiring.cross_entropy(result, 1.0, 1.0)
    assert gradients(model)["t(0)"] != 0
    model.eval()
    exact = ours(program, {"net": model.networks["net"].network_module})
    asked = [query("out(i0, X)", 3), query("alone(1)", output=())]
    for found, expected in zip(answers(model, asked), answers(exact, asked), strict=True):
        assert found == pytest.approx(expected, abs=0.05)


def test_what_it_cannot_do() -> None:
    model = diffused(ADDITION, {"net": Classifier(3)})
    model.train()
    with pytest.raises(ByssusError, match=r"p=0.5: .* with p=1 or p=0"):
        model.solve([query("addition(i0, i1, 2)", 0, 1, p=0.5)])
    with pytest.raises(TargetError, match=r"no world gives addition\(.*,7\); its answers"):
        model.solve([query("addition(i0, i1, 7)", 0, 1)])
    queries = DataLoader(QueryDataset(QUERIES), 3)
    with pytest.raises(ByssusError, match=r"has no loss .*: give the query its answer"):
        train_model(model, queries, 1, with_negatives=True)
    with pytest.raises(ByssusError, match=r"take cross_entropy"):
        train_model(model, queries, 1, loss_function_name="mse")
    module = Joint()
    module.forward = lambda x, c_t: torch.ones(len(x), 2, 4)  # type: ignore[method-assign]
    with pytest.raises(ShapeError, match=r"net of shape \(1, 2, 4\): expected \(batch, 2, 3\)"):
        diffused(ADDITION, {"net": module}).solve(QUERIES[:1])
    with pytest.raises(ByssusError, match=r"c_t, .* take provenance='nesydm'"):
        ours(ADDITION, {"net": Joint()})
    with pytest.raises(ByssusError, match=r"diffusion= is for provenance='nesydm'"):
        ours(ADDITION, {"net": Classifier(3)}, diffusion={}).solve(QUERIES[:1])
