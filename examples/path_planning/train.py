"""Learn what terrain costs from maps and their cheapest paths alone; Dijkstra is a black box.

    python train.py

README.md has the other settings and what they reach.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from maps import COSTS, TILE, Maps, cheapest_path, draw_maps
from torch import Tensor, nn

from byssus import BlackBox, Boolean, Discrete, List, Tuple, blackbox
from byssus.diffusion import Epoch, MaskedDiffusion, train

FULL = {
    **{"maps": 10_000, "test_maps": 1_000, "epochs": 40, "channels": 64},
    **{"steps": 20, "samples": 16, "learning_rate": 5e-4, "gamma_h": 0.002, "weighting": "code"},
}
SHORT = {"side": 6, "maps": 1_000, "test_maps": 200, "epochs": 60}


def planner(side: int) -> BlackBox:
    """Dijkstra's algorithm on maps of so many cells a side; an output dimension a cell."""
    cells = side * side
    box = blackbox(
        List(Discrete(COSTS), cells, min_length=cells),
        output=Tuple(*[Boolean()] * cells),
        memo=False,  # hardly any world comes twice
    )
    return box(cheapest_path)


class Encoder(nn.Module):
    """From images to features of each cell, (batch, channels, side, side)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.BatchNorm2d(3), nn.Conv2d(3, channels, TILE // 2, TILE // 2)),
            *(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 2, 2)),
            *(nn.BatchNorm2d(channels), nn.ReLU()),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.float() / 255)


class UnmaskingModel(nn.Module):
    """Adds to each cell what it is, or that it is masked; looks around; and names its cost."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(len(COSTS) + 1, channels)
        self.block = nn.Sequential(
            *(nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU()),
            nn.Conv2d(channels, channels, 3, 1, 1),
        )
        self.costs = nn.Linear(channels, len(COSTS))

    def forward(self, features: Tensor, c_t: Tensor) -> Tensor:
        cells = features + self.tokens(c_t).mT.unflatten(2, features.shape[2:])
        cells = torch.relu(cells + self.block(cells))
        return self.costs(cells.flatten(2).mT)


def accuracy(model: MaskedDiffusion, maps: Maps, votes: int) -> dict[str, float]:
    """The share of maps whose path is as cheap as can be, and of cells whose cost is right.

    `paths` are those that most worlds give, as in the paper (PTM); `paths of modes` those of the
    world that has in each cell its most frequent cost (MMP).
    """
    model.eval()
    counts = {"paths": 0.0, "paths of modes": 0.0, "costs": 0.0}
    for rows in torch.arange(len(maps.images)).split(100):
        for name, strategy in {"paths": "PTM", "paths of modes": "MMP"}.items():
            found = model.predict(maps.images[rows], votes, strategy, mode="marginal")
            best = torch.isclose(maps.cost_of(found.codes, rows), maps.cost[rows])
            counts[name] += best.sum().item()
        counts["costs"] += (found.concepts == maps.terrain[rows]).double().mean(1).sum().item()
    return {name: round(count / len(maps.images), 4) for name, count in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the paper's settings")
    parser.add_argument("--short", action="store_true", help="small maps, for a minute or two")
    parser.add_argument("--side", type=int, default=12)
    parser.add_argument("--maps", type=int, default=2_000, help="to train on")
    parser.add_argument("--test-maps", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--steps", type=int, default=2, help="T, of the samplers")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--samples", type=int, default=32, help="S, of a likelihood")
    parser.add_argument("--candidates", type=int, default=4, help="K, of the posterior")
    parser.add_argument("--gamma-h", type=float, default=0.01, help="the weight of the entropy")
    parser.add_argument("--weighting", default="paper", help="of the outputs; or code")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="end with the result as a JSON line")
    flags, _ = parser.parse_known_args()
    parser.set_defaults(**(FULL if flags.full else SHORT if flags.short else {}))
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    training = draw_maps(options.maps, options.side, 2 * options.seed + 1)
    test = draw_maps(options.test_maps, options.side, 2 * options.seed + 2)
    model = MaskedDiffusion(
        UnmaskingModel(options.channels),
        program=planner(options.side),
        encoder=Encoder(options.channels),
        gamma_c=1e-5,
        gamma_h=options.gamma_h,
        beta=12,
        samples=options.samples,
        candidates=options.candidates,
        steps=options.steps,
        weighting=options.weighting,
        generator=torch.Generator().manual_seed(options.seed),
    )

    def say(epoch: Epoch) -> None:
        parts = ", ".join(f"{name} {value:.3g}" for name, value in epoch.parts.items())
        print(f"epoch {epoch.number}: loss {epoch.loss:.4f} ({parts}); {epoch.seconds:.0f} s")
        if epoch.number % 5 == 0 or epoch.number == options.epochs:
            print(f"  test: {accuracy(model, test, votes=8)}", flush=True)

    history = train(
        model,
        training.images,
        training.paths,
        epochs=options.epochs,
        batch_size=options.batch_size,
        optimizer=torch.optim.RAdam(model.parameters(), lr=options.learning_rate),
        checkpoint=options.checkpoint,
        callback=say,
    )
    if options.json:
        losses = [round(epoch.loss, 4) for epoch in history]
        result = {"maps": options.maps, "losses": losses, **accuracy(model, test, votes=8)}
        print(json.dumps(result))


if __name__ == "__main__":
    main()
