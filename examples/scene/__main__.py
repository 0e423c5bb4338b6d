"""Name objects, from the rooms of scenes alone; a language model says where objects are found.

    python -m examples.scene --replay --short --json

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
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
from torch import Tensor, nn

import byssus_scallop as scallopy
from byssus import BudgetExceeded, ByssusError, Distribution

from .scenes import MOST, NAMES, ROOM_OF, ROOMS, Scenes, draw_scenes

FOLDER = Path(__file__).parent
PROGRAMS = {"llm": "scene.scl", "table": "table.scl", "whole": "whole.scl"}
RECORDED = {
    "BYSSUS_LLM_MODE": "replay",
    "BYSSUS_LLM_CACHE": str(FOLDER / "answers.db"),
    "BYSSUS_LLM_MODEL": "SmolLM2-135M-Instruct",
}
SHORT = {"scenes": 1_000, "epochs": 15}


def network() -> nn.Sequential:
    """From images of objects, (n, 1, 16, 16), to how well each name fits, (n, 47)."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, len(NAMES))),
    )


def scallop(program: str, samples: int, seed: int) -> scallopy.Module:
    """The program: from what objects may be to a `Distribution` over rooms."""
    whole = program == "whole"
    names = scallopy.Map({0: range(MOST), 1: NAMES}, disjunctive_dim=1)
    return scallopy.Module(
        file=str(FOLDER / PROGRAMS[program]),
        provenance="sampled" if whole else "exact",
        input_mappings={"object": names} | ({} if whole else {"looked_at": list(range(MOST))}),
        output_mappings={"scene": ROOMS},
        distribution=True,
        samples=samples,
        generator=torch.Generator().manual_seed(seed),
    )


class Model(nn.Module):
    """A network under a program."""

    def __init__(self, program: str, samples: int = 10, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.network = network()
        self.program = scallop(program, samples, seed)
        self.whole = program == "whole"

    def named(self, scenes: Scenes) -> Tensor:
        """How likely each object has each name, (scenes, 10, 47); 0 where there is none."""
        names = torch.zeros(*scenes.present.shape, len(NAMES))
        names[scenes.present] = self.network(scenes.images[scenes.present][:, None]).softmax(1)
        return names

    def rooms(self, names: Tensor, present: Tensor) -> Distribution:
        """What rooms scenes of such objects are; all objects are as likely to be looked at."""
        if self.whole:
            return self.program(object=names)
        return self.program(object=names, looked_at=present / present.sum(1, keepdim=True))

    def forward(self, scenes: Scenes) -> Distribution:
        return self.rooms(self.named(scenes), scenes.present)


def train(model: Model, scenes: Scenes, epochs: int, learning_rate: float, seed: int) -> None:
    """Learn from rooms alone."""
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    began = time.perf_counter()
    for epoch in range(1, epochs + 1):
        total = 0.0
        for rows in torch.randperm(len(scenes.rooms), generator=order).split(50):
            batch = scenes[rows]
            loss = model(batch).loss([ROOMS[room] for room in batch.rooms])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        seconds = time.perf_counter() - began
        print(f"epoch {epoch}: loss {total / len(scenes.rooms):.3f}; {seconds:.0f} s", flush=True)


@torch.no_grad()
def evaluate(model: Model, scenes: Scenes) -> dict[str, float]:
    """Shares of what is right, on scenes that were not trained on.

    `accuracy`: rooms of scenes. `rooms of objects`: rooms of single objects that belong to one, by
    the program. `names of rooms`: of these, names that belong to the same room; `names`: names.
    `true names`: rooms of scenes, if the network named all objects right.
    """
    names = model.named(scenes)
    known = F.one_hot(scenes.names, len(NAMES)).float() * scenes.present[..., None]
    home = torch.tensor([ROOMS.index(ROOM_OF[name]) if name in ROOM_OF else -1 for name in NAMES])
    alone = scenes.present & (home[scenes.names] >= 0)
    found = {
        "accuracy": _rooms(model, names, scenes.present) == scenes.rooms,
        "names of rooms": home[names[alone].argmax(1)] == home[scenes.names[alone]],
        "names": names[alone].argmax(1) == scenes.names[alone],
        "true names": _rooms(model, known, scenes.present) == scenes.rooms,
    }
    if not model.whole:  # for which each object would be a call
        one = torch.zeros(int(alone.sum()), MOST, len(NAMES))
        one[:, 0] = names[alone]
        there = torch.arange(MOST).expand(len(one), -1) == 0
        found["rooms of objects"] = _rooms(model, one, there) == home[scenes.names[alone]]
    return {name: round(right.double().mean().item(), 4) for name, right in found.items()}


def _rooms(model: Model, names: Tensor, present: Tensor) -> Tensor:
    parts = zip(names.split(500), present.split(500), strict=True)
    return torch.cat([model.rooms(*part).probs.argmax(1) for part in parts])


def main() -> None:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m examples.scene", description=summary)
    parser.add_argument("--program", choices=PROGRAMS, default="llm")
    parser.add_argument("--replay", action="store_true", help="answers that were recorded")
    parser.add_argument("--short", action="store_true", help="half a minute")
    parser.add_argument("--scenes", type=int, default=3_000, help="to train on")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--samples", type=int, default=10, help="of whole: worlds a scene")
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end with the result as a JSON line")
    flags, _ = parser.parse_known_args()
    parser.set_defaults(**(SHORT if flags.short else {}))
    options = parser.parse_args()

    torch.set_num_threads(1)
    if options.replay:
        os.environ.update(RECORDED)
    began = time.perf_counter()
    training = draw_scenes(options.scenes, 2 * options.seed + 1)
    test = draw_scenes(1_000, 2 * options.seed + 2)
    model = Model(options.program, options.samples, options.seed)
    try:
        train(model, training, options.epochs, options.learning_rate, options.seed)
        found: dict[str, Any] = evaluate(model, test)
    except BudgetExceeded as error:
        print(error)
        found = {"accuracy": None}
    (box,) = model.program.ctx.blackboxes.values()
    calls = box.calls
    if options.program != "table":
        report = box.report()
        calls = report.calls + report.cached
        print(report)
    weights = b"".join(part.numpy().tobytes() for part in model.network.state_dict().values())
    result = {
        "program": options.program,
        **found,
        "calls": calls,
        "seed": options.seed,
        "seconds": round(time.perf_counter() - began, 1),
        "weights": hashlib.sha256(weights).hexdigest(),
    }
    print(json.dumps(result) if options.json else result)


if __name__ == "__main__":
    try:
        main()
    except ByssusError as error:  # no server, or no answer: what to do about it is in its text
        sys.exit(str(error))
