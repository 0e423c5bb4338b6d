"""Circuits: what a program computes, as a diagram evaluated level by level.

On a right-linear vtree the diagram is a multi-valued decision diagram. A level is a concept; the
value of its nodes is `sum_v p[concept, v] * value(child[:, v])`, one gather and one sum for the
whole batch. A concept that is sampled, not summed out, is an index instead of a distribution: its
level is the gather alone.

On any other vtree the value of a node is `sum_i value(prime[i]) * value(sub[i])`, and a level is
the nodes that need no other of the same level; see `byssus._products`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from byssus import _conditional, _sdd, _vtree
from byssus._compile import Progress, check_limits
from byssus._products import Evaluation, Group, grouped
from byssus._weights import denormalized, normalized, once
from byssus.errors import ShapeError, TargetError
from byssus.formula import Formula
from byssus.store import Store, find_store

__all__ = ["Circuit"]


class Circuit(nn.Module):
    """A compiled program: literal weights in, one number an output out; exact and differentiable.

    The weights of all literals stand side by side: concept c occupies the `widths[c]` columns
    from `offsets[c]`. A circuit has no parameters and its `state_dict` is empty: it is compiled
    again from the formula. First derivatives only.

    Attributes:
        widths: the number of values of each concept.
        offsets: the first column of each concept.
        size: the number of nodes.
        vtree: the name of its vtree.
        sizes: for each vtree that was tried the number of nodes, or None where a limit was reached.
        outputs: the number of outputs.

    Example:
        >>> nodes = ("literal", (0, 1)), ("literal", (1, 1)), ("or", (1, 2))
        >>> either = Formula((2, 2), nodes, roots=(3,))
        >>> circuit = Circuit.compile(either)
        >>> circuit(torch.tensor([[0.5, 0.5, 0.8, 0.2]]))
        tensor([[0.6000]])
    """

    _children: Tensor
    _roots: Tensor
    _owner: Tensor

    def __init__(
        self,
        widths: Sequence[int],
        diagram: _sdd.Diagram,
        *,
        vtree: str = "program",
        sizes: Mapping[str, int | None] | None = None,
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.offsets = tuple(sum(self.widths[:c]) for c in range(len(self.widths)))
        self.outputs = len(diagram.roots)
        self.size = _sdd.size(diagram)
        self._levels: tuple[_Level, ...] | tuple[Group, ...]
        if isinstance(diagram, _sdd.Decisions):
            self.concepts = tuple(concept for concept, _ in diagram.levels)
            self._levels = tuple(
                _Level(concept, self.offsets[concept], self.widths[concept], len(nodes))
                for concept, nodes in diagram.levels
            )
            children = [child for _, nodes in diagram.levels for node in nodes for child in node]
            self._smooth = _is_smooth(self.widths, diagram)
            self._evaluation: Any = _Evaluation
        else:
            self.concepts = tuple(dict.fromkeys(concept for concept, _ in diagram.leaves))
            self._levels, children = grouped(diagram, self.offsets, self.columns)
            self._smooth = False
            self._evaluation = Evaluation
        self.vtree = vtree
        self.sizes: dict[str, int | None] = {vtree: self.size} if sizes is None else dict(sizes)
        self._split: tuple[Tensor, tuple[Tensor, ...]] | None = None
        self._paired: tuple[Tensor, tuple[_conditional.Layer, ...]] | None = None
        owner = [c for c, width in enumerate(self.widths) for _ in range(width)]
        buffers = {"_children": children, "_roots": diagram.roots, "_owner": owner}
        for name, numbers in buffers.items():
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.int64), persistent=False)

    @classmethod
    def compile(  # type: ignore[override]  # nn.Module has a compile() of no arguments
        cls,
        formula: Formula,
        *,
        vtree: str = "auto",
        order: Sequence[int] | None = None,
        nodes: int | None = None,
        seconds: float | None = None,
        memory: int | None = None,
        progress: bool | Callable[[Progress], None] | None = None,
        store: Store | str | os.PathLike[str] | bool | None = None,
    ) -> Circuit:
        """Compile a formula.

        PySDD cannot be interrupted, so a formula whose diagram may be large is compiled in a
        child process, which is ended at the limit; or by Ctrl-C, from any thread.

        Args:
            formula: the ground program.
            vtree: which concepts lie together, on which the size of the circuit depends:

                - "program": decided on one after the other, in the order of their first use;
                - "grouped": one after the other, those together that share rules;
                - "balanced": those apart from each other that share few rules, in halves, quarters
                  and so on. Much smaller where rules form a tree;
                - "minimized": the smallest of these, made smaller by a local search;
                - "auto": "program"; where that reaches a limit, "grouped" and then "balanced",
                  each in half of the time that is left.
            order: the order in which to decide on the concepts, instead of that of first use.
            nodes: at most so many SDD nodes after every operation, and within one no more memory
                than several times as many take; None for no limit.
            seconds: at most so many seconds; None for no limit. The start of the child process is
                not counted, up to half a second.
            memory: at most so many bytes, beyond those of a process that has compiled nothing
                yet; None for no limit. On Linux only.
            progress: True for a progress bar on stderr, False for none, None for one where stderr
                is a terminal and compilation takes longer than two seconds; or a callable, which
                gets a `Progress` at most ten times a second, and in the end.
            store: a `byssus.Store` or the path of one, where the circuit is looked up before it
                is compiled, and kept after; None for the one whose path is the environment
                variable `BYSSUS_STORE`, if it is set; False for none. What is found there has
                no limits.

        Raises:
            CompilationLimit: a limit was reached, on every vtree that was tried.
            ByssusError: the child process died, or a limit is none.
        """
        order = None if order is None else tuple(map(int, order))
        _vtree.check(formula, vtree, order)
        check_limits(nodes=nodes, seconds=seconds, memory=memory)
        known = find_store(store)
        key = "" if known is None else known.key(formula, order, vtree)
        found = None if known is None else known.load(key, formula)
        if found is None:
            found = _vtree.compile_formula(
                formula,
                vtree,
                order,
                nodes=nodes,
                seconds=seconds,
                memory=memory,
                progress=progress,
            )
            if known is not None:
                known.save(key, found)
        return cls(formula.widths, found.diagram, vtree=found.vtree, sizes=found.sizes)

    @property
    def columns(self) -> int:
        """The number of literals: the last dimension of the weights."""
        return sum(self.widths)

    @property
    def satisfiable(self) -> list[bool]:
        """For each output, whether any world gives it."""
        return [root != 0 for root in self._roots.tolist()]

    def forward(
        self,
        weights: Float[Tensor, "*batch columns"],
        values: Int[Tensor, "*batch concepts"] | None = None,
    ) -> Float[Tensor, "*batch outputs"]:
        """The weighted model count of every output.

        Args:
            weights: the weight of every literal, usually its probability. They need not sum to 1.
            values: for a concept that is sampled, the index of its value; -1 for a concept that
                is summed out. The weights of sampled concepts are not used.

        Raises:
            ShapeError: the last dimension is not the number of literals, or a concept is sampled
                in some rows of the batch only.
        """
        return self._evaluate(weights, values, log=False)

    def log_forward(
        self,
        log_weights: Float[Tensor, "*batch columns"],
        values: Int[Tensor, "*batch concepts"] | None = None,
    ) -> Float[Tensor, "*batch outputs"]:
        """As `forward`, with logarithms in and out; -inf is allowed, and has gradient zero."""
        return self._evaluate(log_weights, values, log=True)

    def sample(
        self,
        log_weights: Float[Tensor, "*batch columns"],
        output: int | Int[Tensor, "*batch"] = 0,
        *,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "*batch concepts"]:
        """Draw a world for each row, in proportion to its weight, among those that give an output.

        Exact: there is no rejection and no approximation. A concept that the output does not
        depend on is drawn from its own weights.

        Args:
            log_weights: the logarithm of the weight of every literal; -inf where a concept cannot
                have a value. They need not be normalized.
            output: which output, the same for all rows or one for each.
            generator: the source of randomness. Where it lives on another device, the numbers are
                drawn there.

        Returns:
            The index of each concept's value.

        Raises:
            ProbabilityError: in some row no world of the output has a weight.
            ShapeError: the last dimension of the weights is not the number of literals.
            TargetError: there is no such output.
        """
        rows, roots = self._rows(log_weights.detach(), output)
        drawn = _conditional.sample(
            rows, self.widths, self._owner, self._layers(), roots, generator
        )
        return drawn.view(*log_weights.shape[:-1], len(self.widths))

    def entropy(
        self,
        log_weights: Float[Tensor, "*batch columns"],
        output: int | Int[Tensor, "*batch"] = 0,
    ) -> Float[Tensor, "*batch"]:
        """The entropy, in nats, of the worlds that `sample` draws; differentiable.

        Arguments and errors are those of `sample`. Weights of -inf have gradient zero.
        """
        rows, roots = self._rows(log_weights, output)
        found = _conditional.entropy(rows, self.widths, self._owner, self._layers(), roots)
        return found.view(log_weights.shape[:-1])

    def _rows(self, weights: Tensor, output: int | Tensor) -> tuple[Tensor, Tensor]:
        """The weights as rows, and for each the number of its root among all parts."""
        self._check_columns(weights)
        batch = weights.shape[:-1]
        outputs = torch.as_tensor(output, device=weights.device)
        if outputs.is_floating_point() or outputs.shape not in ((), batch):
            raise TargetError(
                f"output of shape {tuple(outputs.shape)} and {outputs.dtype}: give a number, or "
                f"whole numbers of shape {tuple(batch)}"
            )
        if outputs.numel() and not 0 <= int(outputs.min()) <= int(outputs.max()) < self.outputs:
            raise TargetError(
                f"output {output!r}: the circuit has {self.outputs}, from 0 to {self.outputs - 1}"
            )
        roots = self._roots[outputs.long()].expand(batch).reshape(batch.numel())
        return weights.reshape(batch.numel(), self.columns), roots + self.columns

    def _layers(self) -> tuple[_conditional.Layer, ...]:
        """The levels with their elements' two parts: literals first, then the nodes."""
        if self._paired is not None and self._paired[0] is self._children:
            return self._paired[1]
        layers = []
        for level, part in zip(self._levels, self._edges(), strict=True):
            if isinstance(level, _Level):
                children = part.view(level.nodes, level.width) + self.columns
                literals = torch.arange(level.offset, level.offset + level.width).to(part)
                layers.append(torch.stack([literals.expand_as(children), children]))
                continue
            assert isinstance(level, Group)
            parts = part.view(-1, level.nodes, level.elements)
            if level.leaves:
                layers.append(torch.cat([parts, torch.full_like(parts, self.columns + 1)]))
            else:
                layers.append(parts + self.columns)
        self._paired = (self._children, tuple(layers))
        return self._paired[1]

    def _check_columns(self, weights: Tensor) -> None:
        if weights.shape[-1] != self.columns:
            raise ShapeError(
                f"weights of shape {tuple(weights.shape)}: the last dimension must be "
                f"{self.columns}, the sum of the widths {self.widths}"
            )

    def _evaluate(self, weights: Tensor, values: Tensor | None, *, log: bool) -> Tensor:
        self._check_columns(weights)
        batch = weights.shape[:-1]
        sampled = None
        if values is not None:
            if values.shape != (*batch, len(self.widths)):
                raise ShapeError(
                    f"values of shape {tuple(values.shape)} with weights of shape "
                    f"{tuple(weights.shape)}: expected {(*batch, len(self.widths))}"
                )
            sampled = values.reshape(batch.numel(), len(self.widths)).t().contiguous()
        if self._evaluation is Evaluation:
            _summed(self.concepts, sampled)  # a concept is sampled in all rows or in none there too
        result: Tensor = self._evaluation.apply(
            weights,
            self._levels,
            self._edges(),
            self._roots,
            None if self._smooth else self._owner,
            len(self.widths),
            sampled,
            log,
        )
        return result

    def _edges(self) -> tuple[Tensor, ...]:
        """Of each level, the children of its nodes, one node after the other."""
        if self._split is None or self._split[0] is not self._children:  # moved to a device
            sizes = [level.edges for level in self._levels]
            self._split = (self._children, torch.split(self._children, sizes))
        return self._split[1]

    def to_dot(self, names: Sequence[str] | None = None) -> str:
        """The diagram in Graphviz's language; `names` are the concepts' names."""
        names = [f"c{c}" for c in range(len(self.widths))] if names is None else names
        names = [name.replace("\\", "\\\\").replace('"', '\\"') for name in names]
        lines = ["digraph circuit {", '  0 [label="⊥", shape=box];', '  1 [label="⊤", shape=box];']
        number = 2
        for level, part in zip(self._levels, self._edges(), strict=True):
            if isinstance(level, Group):
                lines += self._group_to_dot(level, part, number, names)
                number += level.nodes
                continue
            assert isinstance(level, _Level)
            for children in part.reshape(level.nodes, level.width).tolist():
                lines.append(f'  {number} [label="{names[level.concept]}"];')
                for child in dict.fromkeys(children):
                    on = ",".join(str(v) for v, other in enumerate(children) if other == child)
                    lines.append(f'  {number} -> {child} [label="{on}"];')
                number += 1
        for i, root in enumerate(self._roots.tolist()):
            lines.append(f'  y{i} [label="output {i}", shape=plain];')
            lines.append(f"  y{i} -> {root};")
        return "\n".join([*lines, "}"]) + "\n"

    def _group_to_dot(
        self, group: Group, part: Tensor, number: int, names: Sequence[str]
    ) -> list[str]:
        lines = []
        table = part.reshape(-1, group.nodes, group.elements).tolist()
        for n in range(group.nodes):
            if group.leaves:
                columns = [column for column in table[0][n] if column < self.columns]
                concept = int(self._owner[columns[0]])
                values = ",".join(str(column - self.offsets[concept]) for column in columns)
                lines.append(f'  {number + n} [label="{names[concept]}={values}"];')
                continue
            lines.append(f'  {number + n} [label="+"];')
            for i, pair in enumerate(zip(table[0][n], table[1][n], strict=True)):
                if 0 not in pair:
                    lines.append(f'  e{number + n}_{i} [label="×", shape=plain];')
                    lines += [f"  {number + n} -> e{number + n}_{i};"]
                    lines += [f"  e{number + n}_{i} -> {end};" for end in pair]
        return lines

    def extra_repr(self) -> str:
        """The numbers that tell circuits apart."""
        return f"concepts={len(self.widths)}, outputs={self.outputs}, size={self.size}"


class _Level(NamedTuple):
    """The nodes that decide on one concept: how many, and where its weights are."""

    concept: int
    offset: int
    width: int
    nodes: int

    @property
    def edges(self) -> int:
        """How many children they have."""
        return self.nodes * self.width


class _Evaluation(torch.autograd.Function):
    """All levels, bottom up, in one buffer with a row a node: autograd sees one operation.

    Left to autograd, each level is a handful of recorded operations and a copy of all the rows
    below; here the forward pass writes rows in place and the backward pass walks them top down.
    """

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,  # (*batch, columns)
        levels: tuple[_Level, ...],
        edges: tuple[Tensor, ...],  # of each level, the children of its nodes
        roots: Tensor,
        owner: Tensor | None,  # the concept of each column; None if no path leaves a level out
        concepts: int,
        sampled: Tensor | None,  # (concepts, rows)
        log: bool,
    ) -> Tensor:
        batch = weights.shape[:-1]
        columns = weights.reshape(batch.numel(), weights.shape[-1]).t().contiguous()
        rows = columns.shape[1]
        summed = _summed([level.concept for level in levels], sampled)
        totals = scale = None
        if owner is not None:
            columns, totals, scale = normalized(columns, owner, concepts, sampled, log)
        count = 2 + sum(level.nodes for level in levels)
        nodes = columns.new_full((count, rows), -torch.inf if log else 0.0)
        nodes[1] = 0.0 if log else 1.0
        start = 2
        for level, part, is_summed in zip(levels, edges, summed, strict=True):
            concept, offset, width, count = level
            out = nodes[start : start + count]
            if is_summed:
                below = nodes.index_select(0, part).view(count, width, rows)
                weight = columns[offset : offset + width]
                if log:
                    torch.logsumexp(below.add_(weight), 1, out=out)
                else:
                    torch.sum(below.mul_(weight), 1, out=out)
            else:
                assert sampled is not None
                chosen = part.view(count, width).gather(1, sampled[concept].expand(count, -1))
                torch.gather(nodes[:start], 0, chosen, out=out)
            start += count
        result = nodes.index_select(0, roots)
        if scale is not None:
            result = result + scale if log else result * scale
        ctx.save_for_backward(columns, totals, nodes, roots, owner, sampled)
        ctx.levels, ctx.edges, ctx.summed = levels, edges, summed
        ctx.log, ctx.shape = log, weights.shape
        return result.t().reshape(*batch, len(roots))

    @staticmethod
    @once
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        columns, totals, nodes, roots, owner, sampled = ctx.saved_tensors
        rows = columns.shape[1]
        grad_roots = grad_out.reshape(rows, len(roots)).t()
        grad = torch.zeros_like(nodes).index_add_(0, roots, grad_roots)
        grad_columns = torch.zeros_like(columns)
        end = len(nodes)
        for level, part, is_summed in zip(
            reversed(ctx.levels), reversed(ctx.edges), reversed(ctx.summed), strict=True
        ):
            concept, offset, width, count = level
            start = end - count
            above = grad[start:end, None]
            if is_summed:
                below = nodes.index_select(0, part).view(count, width, rows)
                weight = columns[offset : offset + width]
                grad_weight = grad_columns[offset : offset + width]
                if ctx.log:
                    out = nodes[start:end, None]
                    share = below.add_(weight).sub_(out).exp_()
                    share = share.masked_fill_(out == -torch.inf, 0.0).mul_(above)
                    torch.sum(share, 0, out=grad_weight)
                else:
                    torch.sum(below.mul_(above), 0, out=grad_weight)
                    share = torch.mul(above, weight, out=below)
                if start > 2:  # the lowest level lies on the terminals alone
                    grad.index_add_(0, part, share.view(-1, rows))
            else:
                chosen = part.view(count, width).gather(1, sampled[concept].expand(count, -1))
                grad[:start].scatter_add_(0, chosen, above.squeeze(1))
            end = start
        if totals is not None:
            reached = nodes.index_select(0, roots)
            grad_columns = denormalized(
                grad_columns, columns, totals, owner, sampled, grad_roots, reached, ctx.log
            )
        grad_weights = grad_columns.t().contiguous().reshape(ctx.shape)
        return grad_weights, None, None, None, None, None, None, None


def _is_smooth(widths: Sequence[int], decisions: _sdd.Decisions) -> bool:
    """Whether every path from an output to true decides on every concept."""
    if len(decisions.levels) < len(widths):
        return False
    below = {0, 1}
    start = 2
    for _, nodes in decisions.levels:
        if not all(child in below for node in nodes for child in node):
            return False
        below = {0, *range(start, start + len(nodes))}
        start += len(nodes)
    return all(root in below for root in decisions.roots)


def _summed(concepts: Sequence[int], sampled: Tensor | None) -> list[bool]:
    """Which concepts are summed out; a concept is sampled in all rows or in none."""
    if sampled is None or not sampled.numel():
        return [True] * len(concepts)
    lowest, highest = torch.stack(torch.aminmax(sampled.sign(), dim=1)).tolist()
    for concept in concepts:
        if lowest[concept] < 0 <= highest[concept]:
            raise ShapeError(
                f"values: concept {concept} is sampled in some rows and -1 in others; give it a "
                "value in all rows of the batch, or in none"
            )
    return [lowest[concept] < 0 for concept in concepts]
