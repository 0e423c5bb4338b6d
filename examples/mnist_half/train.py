"""Digits 0 to 4 from the sums of pairs, with half of the pairs' kinds never seen (MNIST-Half)."""

from pairs import Task, main

TASK = Task(5, ((0, 0), (0, 1), (1, 0), (2, 3), (3, 2), (2, 4), (4, 2)))

if __name__ == "__main__":
    main(TASK, __doc__, epochs=250)
