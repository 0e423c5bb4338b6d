"""Training: what the loss gets, and runs that are ended and started again."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from byssus import Boolean, ByssusError, EmptyBatchError, Integer, ShapeError, blackbox
from byssus.diffusion import Epoch, MaskedDiffusion, train

X = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, :2].sum(1) > 0).long()


class Model(nn.Module):
    """A classifier with everything that has a state: dropout, running means, draws of its own."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.network = nn.Sequential(
            *(nn.Linear(5, hidden), nn.BatchNorm1d(hidden), nn.ReLU()),
            *(nn.Dropout(0.5), nn.Linear(hidden, 2)),
        )

    def loss(self, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(x.shape, generator=generator)
        return nn.functional.cross_entropy(self.network(x + 0.1 * noise), y)


class Ended(Exception):  # noqa: N818
    pass


def end_at(number: int) -> Callable[[Epoch], None]:
    def callback(epoch: Epoch) -> None:
        if epoch.number == number:
            raise Ended

    return callback


def seeded(seed: int = 2) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def parts(history: list[Epoch]) -> list[tuple[int, float]]:
    return [(epoch.number, epoch.loss) for epoch in history]


@pytest.mark.parametrize("own_generator", [True, False])
@pytest.mark.parametrize(("every", "ended"), [(1, 4), (3, 5), (2, 1)])
def test_a_run_that_was_ended_goes_on_to_the_same_parameters(
    own_generator: bool, every: int, ended: int, tmp_path: Path
) -> None:
    def run(name: str, callback: Callable[[Epoch], None] | None = None) -> Any:
        model = Model()
        history = train(
            *(model, X, Y),
            epochs=6,
            batch_size=4,
            optimizer=torch.optim.RAdam(model.parameters(), lr=1e-2),
            generator=seeded() if own_generator else None,
            checkpoint=tmp_path / name,
            every=every,
            callback=callback,
        )
        return model, history

    straight, history = run("straight.pt")
    with pytest.raises(Ended):
        run("ended.pt", end_at(ended))
    torch.rand(7)  # what else is drawn in between makes no difference
    resumed, again = run("ended.pt")
    assert same(resumed, straight)
    assert parts(again) == parts(history)
    assert [epoch.number for epoch in again] == [1, 2, 3, 4, 5, 6]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_finished_run_only_loads(tmp_path: Path) -> None:
    trained = Model()
    train(trained, X, Y, epochs=2, checkpoint=tmp_path / "sub" / "a.pt")
    again = Model()
    seen: list[Epoch] = []
    train(again, X, Y, epochs=2, checkpoint=tmp_path / "sub" / "a.pt", callback=seen.append)
    assert same(again, trained)
    assert not seen


def test_more_epochs_go_on(tmp_path: Path) -> None:
    straight = Model()
    train(straight, X, Y, epochs=5, generator=seeded())
    extended = Model()
    train(extended, X, Y, epochs=2, generator=seeded(), checkpoint=tmp_path / "a.pt")
    extended = Model()
    train(extended, X, Y, epochs=5, generator=seeded(), checkpoint=tmp_path / "a.pt")
    assert same(straight, extended)
    with pytest.raises(ByssusError, match="has 5 epochs already, and epochs=4: remove it"):
        train(Model(), X, Y, epochs=4, generator=seeded(), checkpoint=tmp_path / "a.pt")


def test_ctrl_c_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    train(Model(), X, Y, epochs=2, generator=seeded(), checkpoint=path)
    before = path.read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(Model(), X, Y, epochs=3, generator=seeded(), checkpoint=path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_callback_may_set_the_learning_rate(tmp_path: Path) -> None:
    def run(name: str, ended: int | None = None) -> nn.Module:
        model = Model()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

        def callback(epoch: Epoch) -> None:
            optimizer.param_groups[0]["lr"] = 0.1 / epoch.number
            torch.rand(3)
            if epoch.number == ended:
                raise Ended

        train(
            *(model, X, Y),
            epochs=4,
            optimizer=optimizer,
            checkpoint=tmp_path / name,
            callback=callback,
        )
        return model

    straight = run("straight.pt")
    with pytest.raises(Ended):
        run("ended.pt", 3)
    assert same(run("ended.pt"), straight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 8}, "batch_size 16, and this one has 8"),
        ({"x": X[:20], "y": Y[:20]}, "examples 23, and this one has 20"),
        ({"x": X[:, None]}, r"inputs \[\(5,\)\], and this one has \[\(1, 5\)\]"),
        ({"generator": seeded(3)}, "seed 2, and this one has 3"),
        ({"lr": 0.5}, r"lr=0.1.*, and this one has SGD\(6 parameters, lr=0.5"),
        ({"model": Model(9)}, r"another model: network.0.weight has the shape \(8, 5\) there and"),
    ],
)
def test_a_checkpoint_of_something_else(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    def run(
        model: nn.Module | None = None,
        x: Tensor = X,
        y: Tensor = Y,
        lr: float = 0.1,
        **settings: Any,
    ) -> None:
        model = model or Model()
        settings = {"generator": seeded(), **settings}
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        train(model, x, y, epochs=1, optimizer=optimizer, checkpoint=path, **settings)

    path = tmp_path / "a.pt"
    run()
    before = path.read_bytes()
    with pytest.raises(ByssusError, match=rf"the checkpoint .*a\.pt is of .*{message}"):
        run(**change)
    assert path.read_bytes() == before


def test_a_checkpoint_of_a_deeper_model(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    deeper = Model()
    deeper.more = nn.Linear(1, 1)
    few = [{"optimizer": torch.optim.SGD(m.network.parameters(), 0.1)} for m in (deeper, Model())]
    train(deeper, X, Y, epochs=1, checkpoint=path, **few[0])
    with pytest.raises(
        ByssusError, match=r"more.weight has the shape \(1, 1\) there and None here"
    ):
        train(Model(), X, Y, epochs=1, checkpoint=path, **few[1])


def test_damaged_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    train(Model(), X, Y, epochs=1, checkpoint=path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda entry: entry.file_size)
    inside = largest.header_offset + len(largest.FileHeader()) + largest.file_size // 2
    flipped = bytearray(content)
    flipped[inside + 64] ^= 1  # torch pads to 64 bytes
    for damaged in (content[: len(content) // 2], b"", bytes(flipped), b"no checkpoint"):
        path.write_bytes(damaged)
        with pytest.raises(ByssusError, match=r"a\.pt (cannot be read|is damaged).*remove it"):
            train(Model(), X, Y, epochs=1, checkpoint=path)
        assert path.read_bytes() == damaged
    torch.save({"weights": X}, path)
    with pytest.raises(ByssusError, match="is no checkpoint of byssus"):
        train(Model(), X, Y, epochs=1, checkpoint=path)


class Malicious:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    torch.save({"format": Malicious(tmp_path / "executed")}, tmp_path / "a.pt")
    with pytest.raises(ByssusError, match="cannot be read"):
        train(Model(), X, Y, epochs=1, checkpoint=tmp_path / "a.pt")
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_that_cannot_be_written_is_known_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = Model()
    with pytest.raises(ByssusError, match="cannot be written"):
        train(model, X, Y, epochs=1, checkpoint=tmp_path / "file" / "a.pt")
    assert same(model, Model())


class Recorder(nn.Module):
    """Keeps what its loss is called on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.calls: list[tuple[Any, Any, Any]] = []

    def loss(self, x: Any, y: Any, lengths: Any = None) -> Tensor:
        self.calls.append((x, y, lengths))
        return self.weight**2 + len(y)


def test_examples_keep_together() -> None:
    model = Recorder()
    n = torch.arange(7)
    x = {"image": n.float()[:, None], "more": (n, [n * 2])}
    y = [("label", i) for i in range(7)]
    train(model, x, y, epochs=2, batch_size=3, lengths={"word": n * 10}, generator=seeded())
    assert [len(y) for _, y, _ in model.calls] == [3, 3, 1] * 2
    orders = []
    for i in (0, 3):
        orders.append([label for _, y, _ in model.calls[i : i + 3] for _, label in y])
        assert sorted(orders[-1]) == list(range(7))
    assert orders[0] != orders[1]
    for images, labels, lengths in model.calls:
        numbers = [number for _, number in labels]
        assert images["image"].squeeze(1).tolist() == numbers
        assert images["more"][0].tolist() == numbers
        assert isinstance(images["more"][1], list)
        assert images["more"][1][0].tolist() == [2 * i for i in numbers]
        assert lengths["word"].tolist() == [10 * i for i in numbers]


class Knowing(Recorder):
    def loss(self, x: Any, y: Any, **more: Any) -> Tensor:
        self.calls.append((x, y, more))
        return self.weight**2


def test_known_worlds_keep_together_with_their_inputs() -> None:
    model = Knowing()
    n = torch.arange(7)
    observed = torch.stack([n > 2, n < 5], 1)
    train(model, n, epochs=1, batch_size=3, worlds=n[:, None] * 10, observed=observed)
    assert [len(x) for x, _, _ in model.calls] == [3, 3, 1]
    for x, y, more in model.calls:
        assert y is None
        assert more.keys() == {"worlds", "observed"}
        assert torch.equal(more["worlds"], x[:, None] * 10)
        assert torch.equal(more["observed"], observed[x])


def test_known_worlds_teach_a_diffusion_model() -> None:
    """Without labels, and without a run of the program."""

    @blackbox(Boolean(), Boolean(), output=Boolean())
    def never(a: bool, b: bool) -> bool:
        raise AssertionError

    torch.manual_seed(0)
    network = nn.Linear(5, 4)
    model = MaskedDiffusion(
        lambda x, c_t: network(x), program=never, inference="sampled", gamma_c=1.0,
        gamma_y=0.0, gamma_h=0.0, generator=seeded(),
    )  # fmt: skip
    model.network = network
    worlds = torch.stack([Y, 1 - Y], 1)
    options = {"optimizer": torch.optim.Adam(model.parameters(), 0.1), "worlds": worlds}
    history = train(model, X, epochs=30, **options)  # type: ignore[arg-type]
    assert history[-1].loss < history[0].loss / 3
    assert {history[-1].parts[name] for name in ("outputs", "missed", "violated")} == {0.0}
    found = model.sample(X, 20).double().mean(1).round().long()
    assert float((found == worlds).double().mean()) > 0.9


@dataclass
class Two:
    total: Tensor
    count: Tensor


class InParts(Recorder):
    def losses(self, x: Tensor, y: Tensor, **_: Any) -> Two:
        return Two(self.loss(x, y), torch.tensor(float(len(y))))


def test_means_are_over_examples_and_not_over_batches() -> None:
    (epoch,) = train(InParts(), X, Y, epochs=1, batch_size=20)
    assert epoch.parts == {"count": pytest.approx((20 * 20 + 3 * 3) / 23)}
    assert epoch.loss == pytest.approx(epoch.parts["count"])
    assert epoch.seconds > 0
    (epoch,) = train(Recorder(), X, Y, epochs=1, batch_size=20)
    assert epoch.parts == {}


def test_the_mode_of_the_model() -> None:
    model = Model().eval()
    modes = []

    def callback(_: Epoch) -> None:
        modes.append(model.training)
        model.eval()

    train(model, X, Y, epochs=2, callback=callback)
    assert modes == [True, True]
    assert not model.training


def test_the_model_s_own_generator_is_saved(tmp_path: Path) -> None:
    def run(name: str, callback: Callable[[Epoch], None] | None = None) -> nn.Module:
        model = Model()
        model.generator = seeded()  # type: ignore[assignment]
        train(model, X, Y, epochs=3, checkpoint=tmp_path / name, callback=callback)
        return model

    straight = run("straight.pt")
    with pytest.raises(Ended):
        run("ended.pt", end_at(2))
    assert same(run("ended.pt"), straight)


@pytest.mark.parametrize("inference", ["exact", "sampled"])
def test_a_diffusion_model_that_was_ended(inference: str, tmp_path: Path) -> None:
    @blackbox(Integer(0, 2), Boolean(), output=Integer(0, 3))
    def plus(a: int, b: bool) -> int:
        return a + b

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(4, 4)
            self.logits = nn.Linear(13, 5)

        def forward(self, x: Tensor, c_t: Tensor) -> Tensor:
            both = torch.cat([x, self.tokens(c_t).flatten(1)], 1)
            return self.logits(nn.functional.dropout(both, 0.2, self.training))

    def run(
        name: str, callback: Callable[[Epoch], None] | None = None, gamma_h: float = 0.01
    ) -> Any:
        torch.manual_seed(3)
        model = MaskedDiffusion(
            Network(), program=plus, inference=inference, samples=8, gamma_h=gamma_h
        )
        history = train(
            *(model, X, [int(v) + 1 for v in Y]),
            epochs=3,
            optimizer=torch.optim.RAdam(model.parameters(), lr=0.01),
            generator=seeded(),
            checkpoint=tmp_path / name,
            callback=callback,
        )
        return model, history

    straight, history = run("straight.pt")
    with pytest.raises(Ended):
        run("ended.pt", end_at(2))
    with pytest.raises(ByssusError, match=r"gamma_h=0\.01.*, and this one has .*gamma_h=0\.5"):
        run("ended.pt", gamma_h=0.5)
    resumed, again = run("ended.pt")
    assert same(resumed, straight)
    assert parts(again) == parts(history)
    assert {"concepts", "outputs", "entropy", "missed"} <= history[0].parts.keys()


class Diverging(Recorder):
    def loss(self, x: Any, y: Any, lengths: Any = None) -> Tensor:
        return super().loss(x, y) / (len(self.calls) < 5)


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    model = Diverging()
    with pytest.raises(ByssusError, match="the loss is inf in epoch 3: a smaller learning rate"):
        train(model, X, Y, epochs=3, batch_size=12, checkpoint=tmp_path / "a.pt")
    assert bool(model.weight.isfinite())


def test_bad_arguments() -> None:
    with pytest.raises(ByssusError, match=r"Linear has no loss\(x, y\)"):
        train(nn.Linear(5, 2), X, Y, epochs=1)
    for name, value in [("epochs", 0), ("batch_size", 0), ("every", -1), ("epochs", 1.5)]:
        with pytest.raises(ByssusError, match=re.escape(f"{name}={value}: give a whole number")):
            train(Model(), X, Y, **{"epochs": 1, name: value})  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"of \[23\] examples, targets of \[22\]: give each"):
        train(Model(), X, Y[1:], epochs=1)
    with pytest.raises(ShapeError, match=r"of \[23\] examples, worlds of \[22\]: give each"):
        train(Model(), X, epochs=1, worlds=Y[1:, None])
    with pytest.raises(ShapeError, match="targets None: give a tensor or a sequence"):
        train(Model(), X, epochs=1, observed=Y[:, None] > 0)
    with pytest.raises(ShapeError, match="targets 3: give a tensor or a sequence"):
        train(Model(), X, 3, epochs=1)
    with pytest.raises(ByssusError, match="generator=3 is no"):
        train(Model(), X, Y, epochs=1, generator=3)  # type: ignore[arg-type]
    with pytest.raises(ByssusError, match="Identity has no parameters to train"):
        train(nn.Identity(), X, Y, epochs=1)
    with pytest.raises(ShapeError, match=r"targets of \[23\], lengths of \[3\]"):
        train(Model(), X, Y, epochs=1, lengths=Y[:3])
    with pytest.raises(ShapeError, match="a float among the inputs"):
        train(Model(), [1.0], Y, epochs=1)
    with pytest.raises(ShapeError, match="a int among the worlds"):
        train(Model(), X, epochs=1, worlds=[[0]] * 23)  # type: ignore[arg-type]
    with pytest.raises(EmptyBatchError, match="no examples"):
        train(Model(), X[:0], Y[:0], epochs=1)


def test_a_bar_if_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    train(Recorder(), X, Y, epochs=2, progress=False)
    train(Recorder(), X, Y, epochs=2)  # no terminal
    assert capsys.readouterr().err == ""
    train(Recorder(), X, Y, epochs=2, progress=True)
    assert re.search(r"training: 100%.* 4/4 .*epoch=2, loss=", capsys.readouterr().err)
