"""Digits from the sums of two even or two odd ones, most pairs never seen (MNIST Even-Odd)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "mnist_half"))

from pairs import Task, main

PAIRS = ((0, 6), (2, 8), (4, 6), (4, 8), (1, 5), (3, 7), (1, 9), (3, 9))
TASK = Task(10, tuple(pair for a, b in PAIRS for pair in ((a, b), (b, a))), balanced=True)

if __name__ == "__main__":
    main(TASK, __doc__, epochs=500)
