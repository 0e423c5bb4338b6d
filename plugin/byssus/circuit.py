"""Circuits: what a program computes, as a multi-valued decision diagram evaluated level by level.

A level is a concept; the value of its nodes is `sum_v p[concept, v] * value(child[:, v])`, one
gather and one sum for the whole batch. A concept that is sampled, not summed out, is an index
instead of a distribution: its level is the gather alone.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from byssus import _sdd
from byssus.errors import ByssusError, CompilationLimit, ShapeError
from byssus.formula import Formula

__all__ = ["Circuit"]

# Below this many worlds a diagram cannot grow large, and a child process would cost more.
_SMALL = 20_000


class Circuit(nn.Module):
    """A compiled program: literal weights in, one number an output out; exact and differentiable.

    The weights of all literals stand side by side: concept c occupies the `widths[c]` columns
    from `offsets[c]`. A circuit has no parameters and its `state_dict` is empty: the same formula
    always compiles to the same circuit. First derivatives only.

    Attributes:
        widths: the number of values of each concept.
        offsets: the first column of each concept.
        size: the number of nodes.
        outputs: the number of outputs.

    Example:
        >>> nodes = ("literal", (0, 1)), ("literal", (1, 1)), ("or", (1, 2))
        >>> either = Formula((2, 2), nodes, roots=(3,))
        >>> circuit = Circuit.compile(either)
        >>> circuit(torch.tensor([[0.5, 0.5, 0.8, 0.2]]))
        tensor([[0.6000]])
    """

    def __init__(self, widths: Sequence[int], decisions: _sdd.Decisions) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.offsets = tuple(sum(self.widths[:c]) for c in range(len(self.widths)))
        self.concepts = tuple(concept for concept, _ in decisions.levels)
        self.outputs = len(decisions.roots)
        self.size = sum(len(nodes) for _, nodes in decisions.levels)
        for i, (_, nodes) in enumerate(decisions.levels):
            children = torch.tensor(nodes, dtype=torch.int64)
            self.register_buffer(f"_children_{i}", children, persistent=False)
        roots = torch.tensor(decisions.roots, dtype=torch.int64)
        self.register_buffer("_roots", roots, persistent=False)

    @classmethod
    def compile(  # type: ignore[override]  # nn.Module has a compile() of no arguments
        cls,
        formula: Formula,
        *,
        order: Sequence[int] | None = None,
        nodes: int | None = None,
        seconds: float | None = None,
    ) -> Circuit:
        """Compile a formula.

        PySDD cannot be interrupted, so a formula whose diagram may be large is compiled in a
        child process, which is ended at the limit.

        Args:
            formula: the ground program.
            order: the order in which to decide on the concepts; by first use if not given.
            nodes: at most so many SDD nodes at any one time; None for no limit.
            seconds: at most so many seconds; None for no limit.

        Raises:
            CompilationLimit: the limit was reached.
        """
        job: dict[str, Any] = {
            "widths": formula.widths,
            "order": tuple(order) if order is not None else formula.order(),
            "nodes": formula.nodes,
            "cycles": formula.cycles,
            "roots": formula.roots,
            "node_limit": nodes,
            "seconds": seconds,
        }
        try:
            if prod(formula.widths) <= _SMALL and len(formula.nodes) <= _SMALL:
                decisions = _sdd.compile_formula(**job)
            else:
                decisions = _compile_in_child(job, seconds)
        except _sdd.LimitReached as limit:
            which = {
                "nodes": f"{nodes} nodes",
                "seconds": f"{seconds:g} seconds" if seconds else "",
            }
            raise CompilationLimit(
                f"the circuit did not compile within its limit of {which[limit.args[0]]} "
                f"({len(formula.nodes)} formula nodes over {len(formula.widths)} concepts); raise "
                f"`{limit.args[0]}=`, or sample: provenance 'sampled', 'mixed' or 'auto'"
            ) from None
        return cls(formula.widths, decisions)

    @property
    def columns(self) -> int:
        """The number of literals: the last dimension of the weights."""
        return sum(self.widths)

    @property
    def satisfiable(self) -> list[bool]:
        """For each output, whether any world gives it."""
        return [root != 0 for root in self.get_buffer("_roots").tolist()]

    def forward(
        self,
        weights: Float[Tensor, "*batch columns"],
        values: Int[Tensor, "*batch concepts"] | None = None,
    ) -> Float[Tensor, "*batch outputs"]:
        """The weighted model count of every output.

        Args:
            weights: the weight of every literal, usually its probability.
            values: for a concept that is sampled, the index of its value; -1 for a concept that
                is summed out. The weights of sampled concepts are not used.

        Raises:
            ShapeError: the last dimension is not the number of literals.
        """
        return self._evaluate(weights, values, log=False)

    def log_forward(
        self,
        log_weights: Float[Tensor, "*batch columns"],
        values: Int[Tensor, "*batch concepts"] | None = None,
    ) -> Float[Tensor, "*batch outputs"]:
        """As `forward`, with logarithms in and out; -inf is allowed, and has gradient zero."""
        return self._evaluate(log_weights, values, log=True)

    def _evaluate(self, weights: Tensor, values: Tensor | None, *, log: bool) -> Tensor:
        if weights.shape[-1] != self.columns:
            raise ShapeError(
                f"weights of shape {tuple(weights.shape)}: the last dimension must be "
                f"{self.columns}, the sum of the widths {self.widths}"
            )
        batch = weights.shape[:-1]
        flat = weights.reshape(-1, self.columns).t()
        sampled = None
        if values is not None:
            if values.shape != (*batch, len(self.widths)):
                raise ShapeError(
                    f"values of shape {tuple(values.shape)} with weights of shape "
                    f"{tuple(weights.shape)}: expected {(*batch, len(self.widths))}"
                )
            sampled = values.reshape(-1, len(self.widths)).t().contiguous()
        levels = [
            (c, self.offsets[c], self.get_buffer(f"_children_{i}"))
            for i, c in enumerate(self.concepts)
        ]
        roots = self.get_buffer("_roots")
        result: Tensor = _Levels.apply(  # type: ignore[no-untyped-call]
            flat, levels, roots, sampled, log
        )
        return result.t().reshape(*batch, self.outputs)

    def to_dot(self, names: Sequence[str] | None = None) -> str:
        """The diagram in Graphviz's language; `names` are the concepts' names."""
        names = [f"c{c}" for c in range(len(self.widths))] if names is None else names
        lines = ["digraph circuit {", '  0 [label="⊥", shape=box];', '  1 [label="⊤", shape=box];']
        number = 2
        for i, concept in enumerate(self.concepts):
            for children in self.get_buffer(f"_children_{i}").tolist():
                label = names[concept].replace("\\", "\\\\").replace('"', '\\"')
                lines.append(f'  {number} [label="{label}"];')
                for child in dict.fromkeys(children):
                    on = ",".join(str(v) for v, other in enumerate(children) if other == child)
                    lines.append(f'  {number} -> {child} [label="{on}"];')
                number += 1
        for i, root in enumerate(self.get_buffer("_roots").tolist()):
            lines.append(f'  y{i} [label="output {i}", shape=plain];')
            lines.append(f"  y{i} -> {root};")
        return "\n".join([*lines, "}"]) + "\n"

    def extra_repr(self) -> str:
        """The numbers that tell circuits apart."""
        return f"concepts={len(self.widths)}, outputs={self.outputs}, size={self.size}"


class _Levels(torch.autograd.Function):
    """All levels, bottom up, in one buffer with a row a node: autograd sees one operation.

    Left to autograd, each level is a handful of recorded operations and a copy of all the rows
    below; here the forward pass writes rows in place and the backward pass walks them top down.
    """

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,  # (columns, rows)
        levels: list[tuple[int, int, Tensor]],
        roots: Tensor,
        sampled: Tensor | None,  # (concepts, rows)
        log: bool,
    ) -> Tensor:
        count = 2 + sum(len(children) for _, _, children in levels)
        nodes = weights.new_empty(count, weights.shape[1])
        nodes[0] = -torch.inf if log else 0.0
        nodes[1] = 0.0 if log else 1.0
        start = 2
        summed = _summed(levels, sampled)
        for (concept, offset, children), is_summed in zip(levels, summed, strict=True):
            out = nodes[start : start + len(children)]
            if is_summed:
                weight = weights[offset : offset + children.shape[1]]
                below = nodes[:start][children]
                if log:
                    torch.logsumexp(below + weight, 1, out=out)
                else:
                    torch.sum(below * weight, 1, out=out)
            else:
                assert sampled is not None
                torch.gather(nodes[:start], 0, children[:, sampled[concept]], out=out)
            start += len(children)
        ctx.save_for_backward(weights, nodes, roots, sampled)
        ctx.levels, ctx.log, ctx.summed = levels, log, summed
        return nodes[roots]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        weights, nodes, roots, sampled = ctx.saved_tensors
        grad = torch.zeros_like(nodes).index_add_(0, roots, grad_out)
        grad_weights = torch.zeros_like(weights)
        end = len(nodes)
        for (concept, offset, children), is_summed in zip(
            reversed(ctx.levels), reversed(ctx.summed), strict=True
        ):
            start = end - len(children)
            above = grad[start:end]
            if is_summed:
                width = children.shape[1]
                weight = weights[offset : offset + width]
                below = nodes[:start][children]
                if ctx.log:
                    out = nodes[start:end, None]
                    share = torch.exp(below + weight - out)
                    share = above[:, None] * share.masked_fill_(out == -torch.inf, 0.0)
                    grad_weights[offset : offset + width] += share.sum(0)
                else:
                    share = above[:, None] * weight
                    grad_weights[offset : offset + width] += torch.einsum(
                        "nr,nvr->vr", above, below
                    )
                grad.index_add_(0, children.flatten(), share.flatten(0, 1))
            else:
                grad[:start].scatter_add_(0, children[:, sampled[concept]], above)
            end = start
        return grad_weights, None, None, None, None


def _summed(levels: list[tuple[int, int, Tensor]], sampled: Tensor | None) -> list[bool]:
    """Which levels are summed out; a concept is sampled in all rows or in none."""
    if sampled is None:
        return [True] * len(levels)
    return [not flag for flag in (sampled[[c for c, _, _ in levels], :1] >= 0).flatten().tolist()]


def _compile_in_child(job: dict[str, Any], seconds: float | None) -> _sdd.Decisions:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run(
            # -P: the folder of the script is our package, whose modules must not shadow others.
            [sys.executable, "-P", str(Path(_sdd.__file__))],
            input=pickle.dumps(job),
            capture_output=True,
            # The child keeps the limit itself between operations; one operation may overrun it.
            timeout=None if seconds is None else seconds + 2,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _sdd.LimitReached("seconds") from None
    if done.returncode != 0:
        raise ByssusError(
            f"the compiler's process ended with status {done.returncode}, perhaps for want of "
            f"memory: set `nodes=` lower, or sample\n{done.stderr.decode(errors='replace')}"
        )
    kind, result = pickle.loads(done.stdout)
    if kind == "limit":
        raise _sdd.LimitReached(result)
    return _sdd.Decisions(*result)
