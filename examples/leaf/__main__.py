"""Learn to see margins, shapes and textures of leaves, told of each leaf the plant alone.

    python -m examples.leaf --replay --short --json

README.md has the other settings and what they reach.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import byssus_scallop as scallopy
from byssus import ByssusError, Distribution

from .leaves import FEATURES, SPECIES, Leaves, draw_leaves

FOLDER = Path(__file__).parent
NAMES = ("margin", "shape", "texture")
PLANTS = list(SPECIES)
RECORDED = {
    "BYSSUS_LLM_MODE": "replay",
    "BYSSUS_LLM_CACHE": str(FOLDER / "answers.db"),
    "BYSSUS_LLM_MODEL": "SmolLM2-135M-Instruct",
}
SHORT = {"epochs": 8}


def network(values: int) -> nn.Sequential:
    """From images of leaves, (n, 1, 64, 64), to how well each value of a feature fits."""
    last = nn.Linear(512, values)
    nn.init.zeros_(last.weight)  # who begins with no opinion does not get stuck in it as often
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 6, 2, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), last),
    )


class Model(nn.Module):
    """Three networks under a program."""

    def __init__(
        self, program: str, provenance: str = "exact", samples: int = 100, seed: int = 0
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.networks = nn.ModuleList(network(len(values)) for values in FEATURES)
        self.program = scallopy.Module(
            file=str(FOLDER / f"{program}.scl"),
            provenance=provenance,
            input_mappings=dict(zip(NAMES, map(list, FEATURES), strict=True)),
            output_mappings={"species": PLANTS},
            distribution=True,
            samples=samples,
            generator=torch.Generator().manual_seed(seed),
        )

    def seen(self, images: Tensor) -> list[Tensor]:
        """How likely each margin, shape and texture is."""
        return [network(images).softmax(1) for network in self.networks]

    def plants(self, seen: list[Tensor]) -> Distribution:
        """How likely each plant is that has such leaves."""
        return self.program(**dict(zip(NAMES, seen, strict=True)))

    def forward(self, images: Tensor) -> Distribution:
        return self.plants(self.seen(images))


def train(model: Model, leaves: Leaves, epochs: int, learning_rate: float, seed: int) -> None:
    """Learn from the plants' names alone."""
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.networks.parameters(), lr=learning_rate)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, epochs)
    began = time.perf_counter()
    model.train()
    for epoch in range(1, epochs + 1):
        total = 0.0
        for rows in torch.randperm(len(leaves.species), generator=order).split(16):
            loss = model(leaves.images[rows]).loss([PLANTS[i] for i in leaves.species[rows]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        falling.step()
        seconds = time.perf_counter() - began
        mean = total / len(leaves.species)
        print(f"epoch {epoch}: loss {mean:.3f}; {seconds:.0f} s", flush=True)


@torch.no_grad()
def evaluate(model: Model, leaves: Leaves) -> dict[str, float]:
    """Shares of what is right, on leaves that were not trained on.

    `accuracy`: plants. `margin`, `shape`, `texture`: what the networks see. `true features`:
    plants, if the networks saw all features right.
    """
    model.eval()
    seen = model.seen(leaves.images)
    columns = leaves.features.unbind(1)
    true = [
        nn.functional.one_hot(column, len(values)).float()
        for column, values in zip(columns, FEATURES, strict=True)
    ]
    found = {"accuracy": model.plants(seen).probs.argmax(1) == leaves.species}
    for name, chances, column in zip(NAMES, seen, columns, strict=True):
        found[name] = chances.argmax(1) == column
    found["true features"] = model.plants(true).probs.argmax(1) == leaves.species
    return {name: round(right.double().mean().item(), 4) for name, right in found.items()}


def main() -> None:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m examples.leaf", description=summary)
    parser.add_argument("--program", choices=("tree", "llm"), default="llm")
    parser.add_argument("--replay", action="store_true", help="answers that were recorded")
    parser.add_argument("--short", action="store_true", help="half a minute")
    parser.add_argument("--leaves", type=int, default=880, help="to train on")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--provenance", default="exact", help="or sampled, mixed, auto")
    parser.add_argument("--samples", type=int, default=100, help="worlds a leaf, if sampled")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end with the result as a JSON line")
    flags, _ = parser.parse_known_args()
    parser.set_defaults(**(SHORT if flags.short else {}))
    options = parser.parse_args()

    torch.set_num_threads(1)
    if options.replay:
        os.environ.update(RECORDED)
    began = time.perf_counter()
    training = draw_leaves(options.leaves, 2 * options.seed + 1)
    test = draw_leaves(440, 2 * options.seed + 2)
    try:
        model = Model(options.program, options.provenance, options.samples, options.seed)
        print(model.program.ctx.plan())
        train(model, training, options.epochs, options.learning_rate, options.seed)
        found = evaluate(model, test)
    except ByssusError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    (box,) = model.program.ctx.blackboxes.values()
    if options.program == "llm":
        print(box.report())
    weights = b"".join(part.numpy().tobytes() for part in model.networks.state_dict().values())
    result = {
        "program": options.program,
        **found,
        "calls": box.calls,
        "seed": options.seed,
        "seconds": round(time.perf_counter() - began, 1),
        "weights": hashlib.sha256(weights).hexdigest(),
    }
    print(json.dumps(result) if options.json else result)


if __name__ == "__main__":
    main()
