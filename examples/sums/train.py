"""Learn digits from the sums of n of them, with any estimator; ISED's RQ2 (its section 4.4).

    python train.py --mnist FOLDER --digits 8 --epochs 50

FOLDER holds MNIST's four IDX files, gzipped. Settings are the paper's: 5,000 training tuples (as
many as 60,000 images allow), 500 test tuples, batches of 16, Adam at 1e-3, 10 samples a digit.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import nn

from byssus import ISED, Integer, List, blackbox

sys.path.insert(0, str(Path(__file__).parents[1]))

from mnist import Digits, mnist


def normalised(digits: Digits) -> Digits:
    """Digits as the paper's network takes them."""
    images, labels = digits
    return (images - 0.1307) / 0.3081, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--digits", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--estimator", default="auto")
    parser.add_argument("--paper", action="store_true", help="ISED as published")
    parser.add_argument("--samples", type=int, help="10 a digit if not given")
    parser.add_argument("--seed", type=int, default=1357)
    options = parser.parse_args()
    n = options.digits

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)

    @blackbox(
        List(Integer(0, 9), n, min_length=n),
        output=Integer(0, 9 * n),
        samples=options.samples or 10 * n,
        estimator=ISED(paper=True) if options.paper else options.estimator,
        generator=generator,
        provenance="sampled",
    )
    def total(digits: tuple[int, ...]) -> int:
        return sum(digits)

    (images, labels), (test_images, test_labels) = map(normalised, mnist(options.mnist))
    count = min(5000, len(images) // n)
    train = torch.randperm(len(images), generator=generator)[: count * n].view(count, n)
    test = torch.randperm(len(test_images), generator=generator)[: 500 * n].view(-1, n)
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
        nn.Softmax(-1),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for epoch in range(1, options.epochs + 1):
        started = time.perf_counter()
        for batch in train[torch.randperm(count, generator=generator)].split(16):
            probs = net(images[batch].flatten(0, 1)).unflatten(0, batch.shape)
            loss = total(probs).loss(labels[batch].sum(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            named = net(test_images[test].flatten(0, 1)).argmax(-1).view(test.shape)
        digits = (named == test_labels[test]).double().mean()
        sums = (named.sum(1) == test_labels[test].sum(1)).double().mean()
        seconds = time.perf_counter() - started
        print(f"epoch {epoch}: sums {sums:.3f} digits {digits:.3f} ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
