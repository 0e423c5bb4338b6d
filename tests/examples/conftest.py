"""Data for the examples."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as MNIST's, of ten patterns under noise, which are quickly told apart."""
    folder = tmp_path_factory.mktemp("digits")
    random = np.random.default_rng(0)
    patterns = random.integers(0, 2, (10, 7, 7)).repeat(4, 1).repeat(4, 2) * 200
    for part, count in {"train": 2_000, "t10k": 500}.items():
        labels = random.integers(0, 10, count)
        images = patterns[labels] + random.integers(0, 56, (count, 28, 28))
        for name, array in {"images-idx3": images, "labels-idx1": labels}.items():
            header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            file = folder / f"{part}-{name}-ubyte.gz"
            file.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), 1))
    return folder
