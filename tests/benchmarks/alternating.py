"""Timing of two things in one run, turn and turn about, for a machine that others use too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

Step = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """Medians over the rounds, in seconds a step."""

    ours: float
    theirs: float
    ratio: float

    def info(self, name: str) -> dict[str, float]:
        """For a benchmark's `extra_info`: milliseconds, and how many times faster we are."""
        return {f"{name}_ms": 1e3 * self.theirs, f"{name}_ratio": self.ratio}


def alternate(ours: Step, theirs: Step, rounds: int, repeats: tuple[int, int]) -> Comparison:
    """Time the two in turns, so many repeats a turn; the ratio is the median of the rounds' ratios.

    Where a turn is of several repeats, it begins with a call that is not timed: it would pay for
    the caches that the other one filled and the memory that it freed.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for step, repeat, found in zip((ours, theirs), repeats, times, strict=True):
            if repeat > 1:
                step()
            found.append(_time(step, repeat))
    ratios = [b / a for a, b in zip(*times, strict=True)]
    return Comparison(median(times[0]), median(times[1]), median(ratios))


def fastest(step: Step, rounds: int) -> float:
    """The least time of a step in seconds: what it costs when nothing else runs."""
    step()
    return min(_time(step, 1) for _ in range(rounds))


def _time(step: Step, repeat: int) -> float:
    started = perf_counter()
    for _ in range(repeat):
        step()
    return (perf_counter() - started) / repeat
