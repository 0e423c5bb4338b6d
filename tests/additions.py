"""The sum of two numbers by columns and carries, as a world program with its rules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from byssus import Formula, Integer
from byssus.diffusion import WorldProgram


def addition(digits: int) -> WorldProgram:
    """Of two numbers of so many digits, those of the sum; from the left, as one writes them."""
    nodes: dict[int, Any] = {}

    def add(kind: str, *content: int) -> int:
        nodes[len(nodes) + 1] = (kind, content)
        return len(nodes)

    def cases(keys: dict[tuple[int, ...], list[int]]) -> dict[int, int]:
        sums: dict[int, list[int]] = {}
        for parts, both in keys.items():
            sums.setdefault(sum(parts), []).append(add("and", *both))
        return {total: add("or", *ways) for total, ways in sums.items()}

    literal = [[add("literal", c, v) for v in range(10)] for c in range(2 * digits)]
    carries = {0: 0}
    outputs: list[list[Any]] = []
    for i in reversed(range(digits)):
        pairs = {
            (a, b): [literal[i][a], literal[digits + i][b]] for a in range(10) for b in range(10)
        }
        columns = cases(pairs)
        columns = cases(
            {(s, c): [key, carry] for s, key in columns.items() for c, carry in carries.items()}
        )
        outputs.append(
            [add("or", *(key for s, key in columns.items() if s % 10 == v)) for v in range(10)]
        )
        carries = {
            c: add("or", *(key for s, key in columns.items() if s // 10 == c)) for c in (0, 1)
        }
    outputs.append([-carries[1], carries[1]])
    roots = [key for values in reversed(outputs) for key in values]

    def run(worlds: Tensor) -> Tensor:
        places = 10 ** torch.arange(digits - 1, -1, -1)
        total = (worlds[:, :digits] + worlds[:, digits:]) @ places
        return total[:, None] // 10 ** torch.arange(digits, -1, -1) % 10

    return WorldProgram(
        names=tuple(f"{number}{i}" for number in "ab" for i in range(digits)),
        domains=(Integer(0, 9),) * (2 * digits),
        dimensions=((0, 1), *[tuple(range(10))] * digits),
        run=run,
        formula=Formula.from_graph([10] * (2 * digits), nodes, roots),
    )
