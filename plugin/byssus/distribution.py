"""Distribution: what a program or a black box says of its outputs, differentiable."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from byssus.domains import Domain, typed
from byssus.errors import DomainError, TargetError, listed
from byssus.estimators import (
    ISED,
    Distinct,
    Estimator,
    Membership,
    OwnTargets,
    Sample,
    negative_log_likelihood,
)

__all__ = ["Distribution", "Target"]

Target = Tensor | Sequence[Hashable]
"""What `Distribution.loss` takes: see there."""


class Distribution:
    """Probabilities of the outputs for each example of a batch, and the loss against targets.

    Exact, or estimated from sampled worlds. `probs` are always probabilities (of the `distinct`
    estimator where worlds were sampled); `scores` and `loss` are those of the estimator that was
    asked for.

    Attributes:
        values: the outputs, one a column.
        domain: the declared domain of the outputs, or None where they were discovered.
        calls: how many black-box calls were made for this batch.
        failures: the calls that failed and whose worlds were discarded, with the cause.
    """

    def __init__(
        self,
        values: Sequence[Hashable],
        *,
        exact: Float[Tensor, "batch outputs"] | None = None,
        sample: Sample | None = None,
        estimator: Estimator | None = None,
        lost: Float[Tensor, " batch"] | None = None,
        domain: Domain | None = None,
        calls: int = 0,
        failures: Mapping[tuple[Hashable, ...], BaseException] | None = None,
    ) -> None:
        if (exact is None) == (sample is None):
            raise TypeError("a Distribution is exact or sampled: give one of the two")
        self.values = tuple(values)
        self.domain = domain
        self.calls = calls
        self.failures = dict(failures or {})
        self._exact = exact
        self._sample = sample
        self._estimator = estimator or Distinct()
        self._lost = lost

    @cached_property
    def probs(self) -> Float[Tensor, "batch outputs"]:
        """The probability of each output.

        From sampled worlds: p(distinct worlds seen that give it) / p(distinct worlds seen).
        """
        return self._exact if self._exact is not None else Distinct().scores(self._the_sample)

    @cached_property
    def scores(self) -> Float[Tensor, "batch outputs"]:
        """The estimator's own numbers: probabilities where exact, else see the estimator."""
        if self._is_exact:
            return self.probs
        return self._estimator.scores(self._the_sample)

    @cached_property
    def bound(self) -> Float[Tensor, "batch outputs"]:
        """A lower bound on each probability: the mass of the distinct worlds that give it.

        Given evidence, as if it held in all worlds that were not seen. 0 for a black box that is
        random.
        """
        if self._is_exact:
            return self.probs
        if self._random:
            return torch.zeros_like(self.probs)
        sample = self._the_sample
        mass = sample.log_reduce(sample.distinct_log_weights(), "sum").exp()
        if not sample.evidence:
            return mass
        return mass[:, :-1] / (mass[:, -1:] + 1 - self.coverage[:, None])

    @cached_property
    def coverage(self) -> Float[Tensor, " batch"]:
        """The probability mass of the distinct worlds seen; 1 where the result is exact.

        0 for a black box that is random: having seen a world does not settle what it gives.
        """
        if self._is_exact:
            return self.probs.new_ones(len(self))
        if self._random:
            return self.probs.new_zeros(len(self))
        log_weights = self._the_sample.distinct_log_weights().detach()
        return torch.logsumexp(log_weights, 1).exp().clamp_max(1.0)

    @cached_property
    def lost(self) -> Float[Tensor, " batch"]:
        """The mass of the worlds whose black-box calls failed, under `on_error="discard"`."""
        return torch.zeros_like(self.coverage) if self._lost is None else self._lost

    @cached_property
    def ess(self) -> Float[Tensor, " batch"]:
        """The effective number of distinct worlds, `(sum p)^2 / sum p^2`; infinite where exact."""
        if self._is_exact:
            return torch.full_like(self.coverage, torch.inf)
        sample = self._the_sample
        distinct = sample.worlds.distinct
        log_weights = sample.log_weights.detach().masked_fill(~distinct, -torch.inf)
        return torch.exp(2 * torch.logsumexp(log_weights, 1) - torch.logsumexp(2 * log_weights, 1))

    @property
    def bias(self) -> str:
        """What the scores and their gradients are, in expectation."""
        if self._is_exact:
            return "exact"
        if self._the_sample.evidence:
            return f"a ratio, consistent, not unbiased, of estimates: {self._estimator.bias}"
        return self._estimator.bias

    def loss(self, target: Target) -> Float[Tensor, ""]:
        """The loss, averaged over the batch.

        Where the result is exact, the negative log-likelihood of the targets; where worlds were
        sampled, the loss of the estimator.

        Args:
            target: one output for each example: a sequence of values; or an integer tensor
                `(batch,)`, which holds the values themselves where all outputs are integers, and
                their positions in `values` where not. Or a tensor `(batch, outputs)` of zeros and
                ones for outputs that do not exclude each other: then the loss is the binary
                cross-entropy over all of them, but under "nesydm" its own.

        Raises:
            TargetError: a target that is no output, or targets that do not fit the batch.
        """
        if not self._is_exact and isinstance(self._estimator, OwnTargets):
            return self._estimator.target_loss(target, len(self.values))
        if isinstance(target, Tensor) and target.dim() == 2:
            return self._binary_loss(target)
        exact = self._is_exact
        domain = self.domain
        evidence = self._sample is not None and self._sample.evidence
        scaled = isinstance(self._estimator, ISED) and not exact and not evidence
        if scaled and domain is not None and domain.finite and len(domain.widths) > 1:
            return self._structured_loss(domain, self._list(target))
        matrix = self._matrix(target)
        if exact:
            return negative_log_likelihood(self.probs, matrix)
        return self._estimator.loss(self._the_sample, matrix)

    def most_likely(self) -> list[Hashable]:
        """The output with the highest probability, for each example."""
        if not self.values:
            raise TargetError("no output was derived in any world: there is no most likely one")
        return [self.values[i] for i in self.probs.detach().argmax(1).tolist()]

    def __getitem__(self, value: Hashable) -> Float[Tensor, " batch"]:
        """The probabilities of one output."""
        value = _frozen(value)
        position = self._positions.get(typed(value))
        if position is None:
            raise TargetError(f"no output {value!r}: there are {listed(self.values)}")
        return self.probs[:, position]

    def __len__(self) -> int:
        return len(self._sample.log_weights if self._sample is not None else self.probs)

    def __repr__(self) -> str:
        kind = "exact" if self._is_exact else type(self._estimator).__name__
        return f"Distribution({kind}, batch={len(self)}, values=[{listed(self.values, 6)}])"

    @property
    def _the_sample(self) -> Sample:
        assert self._sample is not None
        return self._sample

    @property
    def _random(self) -> bool:
        return self._sample is not None and self._sample.worlds.repeats is not None

    @property
    def _is_exact(self) -> bool:
        return self._exact is not None or self._complete

    @property
    def _complete(self) -> bool:
        return self._sample is not None and self._sample.worlds.complete

    @cached_property
    def _positions(self) -> dict[Hashable, int]:
        return {typed(value): i for i, value in enumerate(self.values)}

    def _binary_loss(self, target: Tensor) -> Float[Tensor, ""]:
        expected = (len(self), len(self.values))
        if tuple(target.shape) != expected:
            raise TargetError(
                f"targets of shape {tuple(target.shape)}: expected {expected}, zeros and ones for "
                f"each output, or {expected[:1]}, one output for each example"
            )
        wanted = target.to(self.probs.dtype)
        if not bool(((wanted == 0) | (wanted == 1)).all()):
            raise TargetError("targets of shape (batch, outputs) must be zeros and ones")
        if not self._is_exact and isinstance(self._estimator, ISED):
            # Auto's own loss is a likelihood, of outputs that exclude one another.
            return ISED.loss(self._estimator, self._the_sample, wanted)
        return binary_cross_entropy(self.scores.clamp(0, 1), wanted)

    def _list(self, target: Target) -> list[Hashable]:
        """The targets as values."""
        if isinstance(target, Tensor):
            if target.dim() != 1:
                raise TargetError(
                    f"targets of shape {tuple(target.shape)}: expected ({len(self)},)"
                )
            values = target.tolist()
            if not target.is_floating_point() and not self._integers:
                for i in values:
                    if not 0 <= i < len(self.values):
                        raise TargetError(
                            f"target {i} is no position among {len(self.values)} outputs; a "
                            "tensor holds positions where the outputs are not all integers"
                        )
                values = [self.values[i] for i in values]
        else:
            if not isinstance(target, Iterable):
                raise TargetError(f"targets {target!r}: a list of one output for each example")
            values = list(map(_frozen, target))
        if len(values) != len(self):
            raise TargetError(f"{len(values)} targets for a batch of {len(self)} examples")
        return values

    @cached_property
    def _integers(self) -> bool:
        return all(type(value) is int for value in self.values)

    def _matrix(self, target: Target) -> Float[Tensor, "batch outputs"]:
        """1 where an output matches the target of the example."""
        like = self._the_sample.log_weights if self._exact is None else self._exact
        if isinstance(target, Tensor):
            matches = self._compare(target.to(like.device))
            if matches is not None:
                return matches.to(like.dtype)
        matrix = torch.zeros(len(self), len(self.values), dtype=like.dtype, device=like.device)
        known: dict[Hashable, list[int]] = {}
        rows, columns = [], []
        for row, value in enumerate(self._list(target)):
            key = typed(value)  # 1 is not True
            if key not in known:
                known[key] = self._find(value, row)
            rows += [row] * len(known[key])
            columns += known[key]
        matrix[rows, columns] = 1.0
        return matrix

    def _compare(self, target: Tensor) -> Tensor | None:
        """`_matrix` of integers in one operation; None where not each of them is an output."""
        integral = not (target.is_floating_point() or target.is_complex())
        if target.dtype == torch.bool or not integral or target.shape != (len(self),):
            return None
        if self.domain is not None and not self.domain.finite:
            return None
        codes: Sequence[Any] = self.values if self._integers else range(len(self.values))
        try:
            columns = torch.tensor(codes, dtype=torch.int64, device=target.device)
        except (RuntimeError, ValueError, OverflowError):  # a value of more than 64 bits
            return None
        matches = target[:, None] == columns
        return matches if bool(matches.any(1).all()) else None

    def _find(self, value: Hashable, row: int) -> list[int]:
        if self.domain is not None:
            try:
                return self.domain.matches(value, self.values)
            except DomainError as error:
                raise TargetError(f"the target of example {row}: {error}") from None
        if typed(value) in self._positions:
            return [self._positions[typed(value)]]
        if self._exact is None and (not self._complete or self.failures):
            return []  # another world may have given it
        raise TargetError(
            f"target {value!r} of example {row} is no output: there are {listed(self.values)}"
        )

    def _structured_loss(self, domain: Domain, targets: list[Hashable]) -> Float[Tensor, ""]:
        """ISED's loss where the output has components: one vector a component (its table 2)."""
        assert isinstance(self._estimator, ISED)
        sample, widths = self._the_sample, domain.widths
        device = sample.log_weights.device
        offsets = torch.tensor([sum(widths[:c]) for c in range(len(widths))], device=device)

        def cells(values: Sequence[Hashable]) -> tuple[Tensor, Tensor]:
            codes = torch.tensor(
                [domain.encode(v) for v in values], dtype=torch.int64, device=device
            ).reshape(len(values), len(widths))
            return codes + offsets, codes >= 0

        columns, exists = cells(self.values)
        m = sample.membership
        kept = exists[m.output]
        share = None if m.share is None else m.share[:, None].expand(kept.shape)[kept]
        world = m.world[:, None].expand(kept.shape)[kept]
        spread = replace(
            sample,
            membership=Membership(world, columns[m.output][kept], share),
            outputs=sum(widths),
            blocks=tuple(widths),
        )
        try:
            wanted, there = cells(targets)
        except DomainError as error:
            raise TargetError(f"a target outside {domain}: {error}") from error
        matrix = sample.log_weights.new_zeros(len(self), sum(widths))
        matrix.scatter_add_(1, wanted.clamp_min(0), there.to(matrix.dtype))
        return self._estimator.loss(spread, matrix)


def _frozen(value: Any) -> Any:
    """Lists as tuples, as outputs are; what cannot be hashed is no output."""
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    if not isinstance(value, Hashable):
        raise TargetError(f"{value!r} of type {type(value).__name__} is no output: it has no hash")
    return value
