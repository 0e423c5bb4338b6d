"""DeepProbLog's own engine, which ours must agree with: one model under each."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from problog.logic import Constant, Term
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from deepproblog.engines import ExactEngine
    from deepproblog.model import Model
    from deepproblog.network import Network
    from deepproblog.optimizer import SGD
    from deepproblog.query import Query
    from deepproblog.train import TrainObject

from byssus_deepproblog import Engine


class Classifier(nn.Module):
    """From vectors to the probabilities of so many values."""

    def __init__(self, values: int, features: int = 4, inputs: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(features * inputs, values)

    def forward(self, *x: Tensor) -> Tensor:
        logits = self.linear(torch.cat(x, -1))
        return logits.sigmoid() if logits.shape[-1] == 1 else logits.softmax(-1)


class Images:
    """A tensor source of so many random vectors."""

    def __init__(self, count: int = 64, features: int = 4) -> None:
        self.tensors = torch.randn(count, features, generator=torch.Generator().manual_seed(3))

    def __getitem__(self, index: tuple[Constant, ...]) -> Tensor:
        return self.tensors[int(index[0])]


def image(i: int) -> Term:
    return Term("tensor", Term("images", Constant(i)))


def query(text: str, *places: int, p: float = 1.0, output: Sequence[int] = (-1,)) -> Query:
    """A query as text in which i0, i1, ... are these images."""
    names = {Term(f"i{k}"): image(place) for k, place in enumerate(places)}
    return Query(Term.from_string(text), names, p, output)


@dataclass
class Pair:
    """One model under DeepProbLog's engine, and a copy of it under ours."""

    theirs: Model
    ours: Model

    def __iter__(self) -> Any:
        return iter((self.theirs, self.ours))


Modules = Mapping[str, nn.Module] | None


def pair(program: str, modules: Modules = None, **about: Any) -> Pair:
    """See `build`."""
    engines = ExactEngine, Engine
    return Pair(*(build(engine, program, modules, **about) for engine in engines))


def ours(program: str, modules: Modules = None, **about: Any) -> Model:
    """See `build`."""
    return build(Engine, program, modules, **about)


def build(
    engine: Any,
    program: str,
    modules: Modules,
    *,
    cache: bool = True,
    batching: bool = True,
    optimizer: bool = True,
    k: Mapping[str, int] | None = None,
    **options: Any,
) -> Model:
    """A model with copies of these modules as its networks; `options` are the engine's."""
    networks = []
    for name, module in copy.deepcopy(dict(modules or {})).items():
        network = Network(module, name, batching=batching, k=(k or {}).get(name))
        if optimizer and list(module.parameters()):
            network.optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        networks.append(network)
    model = Model(program, networks, load=False)
    model.set_engine(engine(model, **options), cache=cache)
    model.optimizer = SGD(model, 0.1)
    model.add_tensor_source("images", Images())
    return model


def gradients(model: Model) -> dict[str, Tensor]:
    """The gradients that an optimizer would find now."""
    if hasattr(model.solver, "flush"):
        model.solver.flush()
    found = {
        f"{name}.{parameter}": value.grad if value.grad is not None else torch.zeros_like(value)
        for name, network in model.networks.items()
        for parameter, value in network.network_module.named_parameters()
    }
    for i in range(len(model.parameters)):
        found[f"t({i})"] = torch.as_tensor(float(model.optimizer._params_grad[i]))
    return found


def same_answers(models: Pair, queries: Sequence[Query]) -> list[dict[Term, float]]:
    """Check that both engines give the same; return it."""
    results = [model.solve(queries) for model in models]
    for query_, theirs, ours in zip(queries, *results, strict=True):
        expected = {str(k): float(v) for k, v in theirs.result.items()}
        found = {str(k): float(v) for k, v in ours.result.items()}
        assert found == pytest.approx(expected, abs=1e-6), query_
    return [{k: float(v) for k, v in result.result.items()} for result in results[1]]


def same_step(
    models: Pair, queries: Sequence[Query], loss: str = "cross_entropy", negatives: bool = False
) -> float:
    """Check that both engines give the same loss and gradients; return the loss."""
    losses, found = [], []
    for model in models:
        model.optimizer.zero_grad()
        train = TrainObject(model)
        get = train.get_loss_with_negatives if negatives else train.get_loss
        losses.append(float(get(list(queries), getattr(model.solver.semiring, loss))))
        found.append(gradients(model))
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    for name, theirs in found[0].items():
        torch.testing.assert_close(found[1][name], theirs, atol=1e-6, rtol=1e-5, msg=name)
    return losses[1]
