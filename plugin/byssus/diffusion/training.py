"""Long training: batches, a progress bar, and checkpoints that go on to the same result."""

from __future__ import annotations

import inspect
import math
import os
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from byssus.diffusion._inputs import select
from byssus.errors import ByssusError, EmptyBatchError, ShapeError
from byssus.worlds import check_sampling

__all__ = ["Epoch", "train"]

_FORMAT = "byssus-training 1"


@dataclass(frozen=True)
class Epoch:
    """One pass through the data.

    Attributes:
        number: which one, from 1 on.
        loss: the mean loss of an example.
        parts: the means of what the loss is made of, by name, where the model has `losses`, as
            `MaskedDiffusion` has: a method that gives a dataclass of `total` and others.
        seconds: how long it took, without the callback and the checkpoint.
    """

    number: int
    loss: float
    parts: dict[str, float]
    seconds: float


def train(
    model: nn.Module,
    x: Any,
    y: Any = None,
    *,
    epochs: int,
    batch_size: int = 16,
    optimizer: Optimizer | None = None,
    lengths: Any = None,
    worlds: Int[Tensor, "examples columns"] | None = None,
    observed: Bool[Tensor, "examples dimensions"] | None = None,
    generator: torch.Generator | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 1,
    progress: bool | None = None,
    callback: Callable[[Epoch], object] | None = None,
) -> list[Epoch]:
    """Train a model by its own loss, in batches that are drawn anew for each epoch.

    With a checkpoint, a run that was ended and is started again in the same way goes on after the
    last epoch that was saved, and ends with the same parameters, bit for bit; one that is finished
    only loads them. More `epochs` than before go on from there. What is saved are the model, the
    optimizer, and the states of the generator and of torch's global one, which dropout draws from:
    not what the program keeps by itself, nor Python's and numpy's generators.

    Args:
        model: a `MaskedDiffusion`, or any module with `loss(x, y)`, which takes `lengths=`,
            `worlds=` and `observed=` where they are given and may take `generator=`. It is left in
            training mode or not, as it was.
        x: the inputs of all examples: a tensor, example first, or a tuple, list or dictionary of
            them.
        y: their targets, as `model.loss` takes them; None where `worlds` say all.
        epochs: passes through the data in all.
        batch_size: examples a step; the last step of an epoch may have fewer.
        optimizer: over the model's parameters; RAdam with a learning rate of 1e-4 if not given.
        lengths: of the concepts that are lists, as `model.loss` takes them for all examples.
        worlds: the concepts of all examples, where they are known, as `model.loss` takes them.
        observed: what is known of the targets, as `model.loss` takes it for all examples.
        generator: draws the order of the examples, and is given to the loss; the model's own, or
            else torch's global one, if not given.
        checkpoint: a file; its folder is made. It is replaced in one move, so that a run may be
            ended at any time.
        every: epochs from one checkpoint to the next.
        progress: whether to show a bar; by default on a terminal.
        callback: called after each epoch, before the checkpoint. It is called again for an epoch
            that has to be repeated because the run was ended before that.

    Returns:
        The epochs, those of the checkpoint included.

    Raises:
        ShapeError: inputs, targets, lengths, worlds or `observed` of different numbers of examples.
        ByssusError: a loss that is not finite; a checkpoint that is damaged, cannot be written, or
            is of another model or of other settings.
    """
    for name, value in {"epochs": epochs, "batch_size": batch_size, "every": every}.items():
        if type(value) is not int or value < 1:
            raise ByssusError(f"{name}={value!r}: give a whole number, 1 or more")
    check_sampling(1, generator)
    more = {"lengths": lengths, "worlds": worlds, "observed": observed}
    more = {name: data for name, data in more.items() if data is not None}
    count = _count(x, y, more)
    if optimizer is None:
        if next(model.parameters(), None) is None:
            raise ByssusError(
                f"{type(model).__name__} has no parameters to train: its network is to be a module"
            )
        optimizer = torch.optim.RAdam(model.parameters(), lr=1e-4)
    if generator is None:
        generator = getattr(model, "generator", None)
    loss = _loss_of(model, generator)
    random = _Random(generator, next(model.parameters(), torch.empty(0)).device)
    settings = {
        "examples": str(count),
        "batch_size": str(batch_size),
        "inputs": str([tuple(tensor.shape[1:]) for tensor in _tensors(x)]),
        "seed": str(random.seed),
        "optimizer": _described(optimizer),
        "model": _described_model(model),
    }
    history: list[Epoch] = []
    path = None if checkpoint is None else Path(checkpoint).expanduser()
    if path is not None and path.exists():
        history = _load(path, model, optimizer, random, settings, epochs)

    def save() -> None:
        if path is not None:
            _save(path, model, optimizer, random, settings, history)

    if not history:
        save()  # what cannot be written is known now, and not after the first epoch
    training = model.training
    try:
        with _bar(progress, epochs * math.ceil(count / batch_size)) as bar:
            bar.update(len(history) * math.ceil(count / batch_size))
            for number in range(len(history) + 1, epochs + 1):
                model.train()
                started = time.perf_counter()
                sums: dict[str, float] = {}
                for rows in torch.split(random.permutation(count), batch_size):
                    given = {k: select(data, rows, random.device) for k, data in more.items()}
                    targets = _pick_targets(y, rows, random.device)
                    total, parts = loss(select(x, rows, random.device), targets, given)
                    if not math.isfinite(parts["total"]):
                        raise ByssusError(
                            f"the loss is {parts['total']} in epoch {number}: a smaller learning "
                            "rate may help, or the data or the network's output is not finite"
                        )
                    optimizer.zero_grad()
                    total.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    for name, part in parts.items():
                        sums[name] = sums.get(name, 0.0) + part * len(rows)
                    bar.update()
                seconds = time.perf_counter() - started
                means = {name: part / count for name, part in sums.items()}
                epoch = Epoch(number, means.pop("total"), means, seconds)
                bar.set_postfix({"epoch": number, "loss": f"{epoch.loss:.4g}"}, refresh=False)
                history.append(epoch)
                if callback is not None:
                    callback(epoch)
                if number % every == 0 or number == epochs:
                    save()
    finally:
        model.train(training)
    return history


def _bar(progress: bool | None, steps: int) -> Any:
    from tqdm import tqdm

    disable, delay = (None, 2) if progress is None else (not progress, 0)
    return tqdm(total=steps, desc="training", unit=" steps", disable=disable, delay=delay)


# The data


def _tensors(data: Any, what: str = "inputs") -> list[Tensor]:
    """The tensors of inputs, or of what else there is."""
    if isinstance(data, Mapping):
        data = list(data.values())
    if isinstance(data, tuple | list):
        return [tensor for part in data for tensor in _tensors(part, what)]
    if not isinstance(data, Tensor) or not data.dim():
        raise ShapeError(
            f"a {type(data).__name__} among the {what}: give tensors, example first, or a tuple, "
            "list or dictionary of them"
        )
    return [data]


def _count(x: Any, y: Any, more: Mapping[str, Any]) -> int:
    """The number of examples, which everything has."""
    counts = [len(tensor) for tensor in _tensors(x)]
    given = {name: [len(tensor) for tensor in _tensors(data, name)] for name, data in more.items()}
    if y is not None or "worlds" not in more:
        if not isinstance(y, Sized) or (isinstance(y, Tensor) and not y.dim()):
            raise ShapeError(f"targets {y!r}: give a tensor or a sequence, one an example")
        given = {"targets": [len(y)], **given}
    if not counts or set(counts) != {n for each in given.values() for n in each}:
        raise ShapeError(
            f"inputs of {counts} examples"
            + "".join(f", {name} of {each}" for name, each in given.items())
            + ": give each example one of each"
        )
    if counts[0] == 0:
        raise EmptyBatchError("there are no examples to train on")
    return counts[0]


def _pick_targets(y: Any, rows: Int[Tensor, " rows"], device: torch.device) -> Any:
    if y is None or isinstance(y, Tensor):
        return None if y is None else select(y, rows, device)
    return [y[row] for row in rows.tolist()]


# The loss

_Loss = Callable[[Any, Any, Mapping[str, Any]], tuple[Tensor, dict[str, float]]]


def _loss_of(model: nn.Module, generator: torch.Generator | None) -> _Loss:
    """The model's loss of a batch, and what it is made of where it says so."""
    whole = getattr(model, "loss", None)
    if not callable(whole):
        raise ByssusError(f"{type(model).__name__} has no loss(x, y): train needs a model with one")
    inparts = getattr(model, "losses", None)
    function = inparts if callable(inparts) else whole
    parameters = inspect.signature(function).parameters.values()
    drawn = any(p.name == "generator" or p.kind is p.VAR_KEYWORD for p in parameters)
    always = {"generator": generator} if drawn and generator is not None else {}

    def loss(x: Any, y: Any, more: Mapping[str, Any]) -> tuple[Tensor, dict[str, float]]:
        found = function(x, y, **more, **always)
        if isinstance(found, Tensor):
            return found, {"total": found.item()}
        parts = {name: part.item() for name, part in vars(found).items() if not part.dim()}
        return found.total, parts

    return loss


# The checkpoint


class _Random:
    """All that training draws from."""

    def __init__(self, generator: torch.Generator | None, device: torch.device) -> None:
        self.generator = generator
        self.device = device
        self._backend: Any = None if device.type == "cpu" else getattr(torch, device.type)

    @property
    def seed(self) -> int:
        return torch.initial_seed() if self.generator is None else self.generator.initial_seed()

    def permutation(self, count: int) -> Int[Tensor, " count"]:
        device = None if self.generator is None else self.generator.device
        return torch.randperm(count, generator=self.generator, device=device)

    def get(self) -> dict[str, Tensor]:
        states = {"global": torch.get_rng_state()}
        if self.generator is not None:
            states["generator"] = self.generator.get_state()
        if self._backend is not None:
            states[self.device.type] = self._backend.get_rng_state(self.device)
        return states

    def set(self, states: Mapping[str, Tensor]) -> None:
        torch.set_rng_state(states["global"])
        if self.generator is not None:
            self.generator.set_state(states["generator"])
        if self._backend is not None and self.device.type in states:
            self._backend.set_rng_state(states[self.device.type], self.device)


def _save(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    random: _Random,
    settings: dict[str, str],
    history: Sequence[Epoch],
) -> None:
    """Write a checkpoint so that there is all of it or what was there before."""
    content = {
        "format": _FORMAT,
        "settings": settings,
        "history": [asdict(epoch) for epoch in history],
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": random.get(),
    }
    temporary = path.with_name(f".{path.name}.tmp")  # a kill leaves no more than one
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ByssusError(f"the checkpoint {path} cannot be written: {error}") from error


def _load(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    random: _Random,
    settings: dict[str, str],
    epochs: int,
) -> list[Epoch]:
    """Go to where a checkpoint was saved; its epochs."""
    content = _read(path)
    other = "remove it, or give another file"
    for name, value in settings.items():
        if (there := content["settings"].get(name, value)) != value:
            raise ByssusError(
                f"the checkpoint {path} is of a run with {name} {there}, and this one has {value}: "
                f"{other}"
            )
    ours, theirs = model.state_dict(), content["model"]
    for name in [*ours, *theirs]:
        shapes = [tuple(s[name].shape) if name in s else None for s in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise ByssusError(
                f"the checkpoint {path} is of another model: {name} has the shape {shapes[0]} "
                f"there and {shapes[1]} here; {other}"
            )
    history = [Epoch(**epoch) for epoch in content["history"]]
    if len(history) > epochs:
        raise ByssusError(
            f"the checkpoint {path} has {len(history)} epochs already, and epochs={epochs}: {other}"
        )
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    random.set(content["random"])
    return history


def _read(path: Path) -> dict[str, Any]:
    mend = "remove it to begin anew, or put back a copy of it"
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()  # torch.load does not look at checksums
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ByssusError(f"the checkpoint {path} cannot be read ({error}): {mend}") from error
    if damaged is not None:
        raise ByssusError(f"the checkpoint {path} is damaged, a checksum is wrong: {mend}")
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ByssusError(f"{path} is no checkpoint of byssus: give another file")
    return content


def _described_model(model: nn.Module) -> str:
    """A model's settings: those of its attributes that are numbers or words."""
    plain = (
        f"{name}={value!r}"
        for name, value in vars(model).items()
        if isinstance(value, int | float | str) and not name.startswith("_") and name != "training"
    )
    return f"{type(model).__name__}({', '.join(plain)})"


def _described(optimizer: Optimizer) -> str:
    """An optimizer's settings, without what it has learned."""
    groups = []
    for group in optimizer.param_groups:
        given = {name: value for name, value in group.items() if name != "params"}
        plain = (
            f"{name}={value.tolist() if isinstance(value, Tensor) else value}"
            for name, value in given.items()
        )
        groups.append(f"{len(group['params'])} parameters, {', '.join(plain)}")
    return f"{type(optimizer).__name__}({'; '.join(groups)})"
