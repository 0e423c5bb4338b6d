"""Learn to read digits from the sums of two, with a Scallop program between network and loss.

FOLDER holds MNIST's four IDX files, gzipped. README.md has the commands.
"""

import argparse
import gzip
import json
import struct
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
from torch import Tensor, nn

try:
    import byssus_scallop as scallopy
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is not installed: README.md, next to this script, says how to get it")


class Sum2Net(nn.Module):
    """From two images to the probabilities of the sums 0 to 18 of their digits."""

    def __init__(self, provenance: str, k: int) -> None:
        super().__init__()
        self.digit = nn.Sequential(
            *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
            nn.Softmax(1),
        )
        context = scallopy.ScallopContext(provenance=provenance, k=k)
        context.add_relation("digit_1", int, input_mapping=list(range(10)))
        context.add_relation("digit_2", int, input_mapping=list(range(10)))
        context.add_rule("sum_2(a + b) :- digit_1(a), digit_2(b)")
        self.sum_2 = context.forward_function(
            "sum_2", output_mapping=[(i,) for i in range(19)], dispatch="serial"
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.sum_2(digit_1=self.digit(first), digit_2=self.digit(second))


def mnist(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """One part of MNIST: normalised images (n, 1, 28, 28) and labels (n,)."""

    def idx(name: str) -> Tensor:
        data = gzip.decompress((folder / name).read_bytes())
        sizes = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
        return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).copy()).view(
            sizes
        )

    images = idx(f"{part}-images-idx3-ubyte.gz").float().unsqueeze(1) / 255
    return (images - 0.1307) / 0.3081, idx(f"{part}-labels-idx1-ubyte.gz").long()


def pairs_of(images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random pairs, no image in two of them: first images, second images, sums."""
    if not 1 <= count <= len(images) // 2:
        sys.exit(f"{count} pairs: {len(images)} images make 1 to {len(images) // 2}")
    first, second = torch.randperm(len(images))[: 2 * count].view(2, count)
    return images[first], images[second], labels[first] + labels[second]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--provenance", default="difftopkproofs")
    parser.add_argument("--top-k", type=int, default=3)
    parser.add_argument("--n-epochs", type=int, default=3)
    parser.add_argument("--train-pairs", type=int, default=10_000)
    parser.add_argument("--test-pairs", type=int, default=5_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--json", action="store_true", help="end with the result as a JSON line")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    *train, sums = pairs_of(*mnist(options.mnist, "train"), options.train_pairs)
    *test, test_sums = pairs_of(*mnist(options.mnist, "t10k"), options.test_pairs)
    net = Sum2Net(options.provenance, options.top_k)
    optimizer = torch.optim.Adam(net.parameters(), lr=options.learning_rate)
    accuracy, seconds = 0.0, 0.0
    for epoch in range(1, options.n_epochs + 1):
        started = time.perf_counter()
        net.train()
        for batch in torch.randperm(options.train_pairs).split(options.batch_size):
            output = net(train[0][batch], train[1][batch])
            loss = F.binary_cross_entropy(output, F.one_hot(sums[batch], 19).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds += time.perf_counter() - started
        net.eval()
        with torch.no_grad():
            batches = zip(*(images.split(options.batch_size) for images in test), strict=True)
            named = torch.cat([net(*batch).argmax(1) for batch in batches])
        accuracy = (named == test_sums).double().mean().item()
        print(f"epoch {epoch}: accuracy {accuracy:.4f}, {seconds / epoch:.2f} s an epoch")
    if options.json:
        result = {
            "library": scallopy.__name__,
            "provenance": options.provenance,
            "accuracy": round(accuracy, 4),
            "seconds_per_epoch": round(seconds / max(1, options.n_epochs), 3),
            "epochs": options.n_epochs,
            "train_pairs": options.train_pairs,
            "test_pairs": options.test_pairs,
            "seed": options.seed,
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
