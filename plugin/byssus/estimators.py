"""From worlds to scores and to a loss.

Each estimator sees the same `Sample`: worlds with differentiable weights, and which world gives
which output. It states what its scores are (`bias`), and turns them into a loss against a target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from byssus.errors import ByssusError
from byssus.worlds import Concepts, Worlds

__all__ = [
    "ISED",
    "RLOO",
    "Auto",
    "Distinct",
    "Estimator",
    "Frequencies",
    "IndeCateR",
    "Marginals",
    "Membership",
    "Sample",
    "as_estimator",
]


@dataclass(frozen=True)
class Membership:
    """Which world gives which output: one entry for each pair.

    Attributes:
        world: the entry's world, as its number in the flattened `(batch, worlds)`.
        output: the entry's output.
        share: the probability that the world gives the output, differentiable; None for 1. Below
            1 only where a world leaves some concepts to be summed out (`mixed`).
    """

    world: Int[Tensor, " entries"]
    output: Int[Tensor, " entries"]
    share: Float[Tensor, " entries"] | None = None


@dataclass(frozen=True)
class Sample:
    """The worlds of a batch and what they give.

    Attributes:
        concepts: the probabilities that the worlds were drawn from, differentiable.
        worlds: the worlds.
        membership: which world gives which output.
        outputs: the number of outputs.
        evaluate: what other worlds `(batch, m, concepts)` give; for estimators that ask.
        blocks: the outputs of each component of a structured output, which are scaled apart; one
            block of all outputs otherwise.
        evidence: whether the membership has one more output, in the worlds of which the evidence
            holds, and the others there only: scores are then given the evidence, as a ratio.
    """

    concepts: Concepts
    worlds: Worlds
    membership: Membership
    outputs: int
    evaluate: Callable[[Tensor], Membership]
    blocks: tuple[int, ...] = ()
    evidence: bool = False
    log_probs: Float[Tensor, "batch worlds concepts"] = field(init=False)
    log_weights: Float[Tensor, "batch worlds"] = field(init=False)

    def __post_init__(self) -> None:
        gathered = self.concepts.gather(self.worlds.indices)
        log_probs = gathered.clamp_min(torch.finfo(gathered.dtype).tiny).log()
        log_weights = log_probs.sum(-1)
        norm = self.concepts.log_norm()
        object.__setattr__(self, "blocks", self.blocks or (self.outputs,))
        object.__setattr__(self, "log_probs", log_probs)
        object.__setattr__(
            self, "log_weights", log_weights if norm is None else log_weights - norm[:, None]
        )

    def weights(self) -> Float[Tensor, "batch worlds"]:
        """The probabilities of the worlds as products, whose gradient is right at zero too.

        Except within permutations, which are normalised in log space: products may underflow.
        """
        gathered = self.concepts.gather(self.worlds.indices)
        norm = self.concepts.log_norm()
        if norm is None:
            return gathered.prod(-1)
        tied = torch.zeros(len(self.concepts.widths), dtype=torch.bool, device=gathered.device)
        for start, stop in self.concepts.permuted:
            tied[start:stop] = True
        log_tied = self.log_probs[..., tied].sum(-1) - norm[:, None]
        return gathered[..., ~tied].prod(-1) * log_tied.exp()

    def sum(
        self, values: Tensor, membership: Membership | None = None
    ) -> Float[Tensor, "batch outputs"]:
        """For each output, the sum of the values `(batch, worlds)` of the worlds that give it.

        The evidence, if there is any, is one more column.
        """
        m = self.membership if membership is None else membership
        entries = values.flatten()[m.world]
        if m.share is not None:
            entries = entries * m.share
        columns = self.outputs + self.evidence
        rows = m.world // values.shape[1]
        flat = entries.new_zeros(len(values) * columns)
        flat = flat.index_add(0, rows * columns + m.output, entries)
        return flat.reshape(len(values), columns)

    def log_reduce(
        self, log_values: Float[Tensor, "batch worlds"], how: str
    ) -> Float[Tensor, "batch outputs"]:
        """The logarithm of the sum or the largest value for each output; -inf where no world is."""
        m = self.membership
        entries = log_values.flatten()[m.world]
        if m.share is not None:
            entries = entries + m.share.clamp_min(torch.finfo(entries.dtype).tiny).log()
        columns = self.outputs + self.evidence
        cells = m.world // log_values.shape[1] * columns + m.output
        flat = entries.new_full((len(log_values) * columns,), -torch.inf)
        if how == "max":
            reduced = flat.scatter_reduce(0, cells, entries, "amax")
        else:
            largest = flat.scatter_reduce(0, cells, entries.detach(), "amax")
            sums = torch.zeros_like(flat).index_add(0, cells, (entries - largest[cells]).exp())
            empty = sums == 0
            log_sums = sums.masked_fill(empty, 1.0).log()
            reduced = torch.where(empty, -torch.inf, log_sums + largest)
        return reduced.reshape(len(log_values), columns)

    def given_evidence(self, joint: Float[Tensor, "batch all"]) -> Float[Tensor, "batch outputs"]:
        """From probabilities of the outputs, and of the evidence, to those of the outputs."""
        return joint[:, :-1] / joint[:, -1:] if self.evidence else joint

    def log_distinct(self) -> Float[Tensor, "batch outputs"]:
        """The logarithm of the outputs' share of the distinct worlds seen; see `Distinct`."""
        log_weights = self.distinct_log_weights()
        joint = self.log_reduce(log_weights, "sum")
        if self.evidence:
            return joint[:, :-1] - joint[:, -1:]
        return joint - torch.logsumexp(log_weights, 1, keepdim=True)

    def distinct_log_weights(self) -> Float[Tensor, "batch worlds"]:
        """The log-probabilities of the worlds, each counted once; -inf for its repetitions.

        Where a world need not give the same each time, its repetitions share its probability.
        """
        if self.worlds.repeats is not None:
            return self.log_weights - self.worlds.repeats.log()
        return self.log_weights.masked_fill(~self.worlds.distinct, -torch.inf)


class Estimator(Protocol):
    """Scores for the outputs, and a loss.

    Attributes:
        name: how it is asked for.
        bias: what its scores and gradients are, in expectation.
    """

    name: ClassVar[str]
    bias: ClassVar[str]

    def scores(self, sample: Sample) -> Float[Tensor, "batch outputs"]:
        """The estimator's own differentiable number for each output."""

    def loss(self, sample: Sample, target: Float[Tensor, "batch outputs"]) -> Float[Tensor, ""]:
        """The loss against targets, 1 where an output is (one of) the example's."""


@runtime_checkable
class OwnTargets(Protocol):
    """An estimator that reads the targets of `Distribution.loss` itself."""

    def target_loss(self, target: Any, outputs: int) -> Float[Tensor, ""]:
        """The loss against targets, of a distribution with so many outputs."""


def negative_log_likelihood(
    probs: Float[Tensor, "batch outputs"], target: Float[Tensor, "batch outputs"]
) -> Float[Tensor, ""]:
    """The mean of -log P(target); where P is 0 it is bounded and has no gradient."""
    likelihood = (probs * target).sum(1)
    return -likelihood.clamp_min(torch.finfo(probs.dtype).tiny).log().mean()


class Distinct:
    """P(y) = p(distinct worlds seen that give y) / p(all distinct worlds seen), in log space.

    Exact where all worlds have been seen.
    """

    name: ClassVar[str] = "distinct"
    bias: ClassVar[str] = "consistent; exact at coverage 1"

    def scores(self, sample: Sample) -> Float[Tensor, "batch outputs"]:
        """The probabilities."""
        if sample.worlds.complete:
            weights = sample.weights() * sample.worlds.distinct
            return sample.given_evidence(sample.sum(weights))
        return sample.log_distinct().exp()

    def loss(self, sample: Sample, target: Float[Tensor, "batch outputs"]) -> Float[Tensor, ""]:
        """Negative log-likelihood."""
        return negative_log_likelihood(self.scores(sample), target)


class Frequencies(Distinct):
    """How often an output occurs among worlds of which nothing else is known.

    They are `byssus.worlds.alike`: drawn by a model that does not say how likely each is.
    """

    name: ClassVar[str] = "frequencies"
    bias: ClassVar[str] = "unbiased, with no gradient"


@dataclass(frozen=True)
class ISED:
    """The estimator of ISED (Data-Efficient Learning with Neural Programs, section 3.4).

    The weights of the samples that give an output are added up (`add-mult`), or their largest
    smallest entry is taken (`min-max`), repetitions counted as drawn; each example's vector is
    scaled to Euclidean length 1 and compared with the target by binary cross-entropy, averaged
    over all entries. A training score, not a probability.

    The scaling is done in log space: the published floor of 1e-12 under the norm switches
    learning off at 16 inputs. Scores are at most `ceiling` in the cross-entropy, whose gradient is
    unbounded where a wrong output holds all of the vector: training collapses there.

    Attributes:
        semiring: "add-mult" or "min-max".
        paper: the published form, with the floor and without the ceiling.
        ceiling: the largest score that the cross-entropy sees.
    """

    semiring: str = "add-mult"
    paper: bool = False
    ceiling: float = 0.999
    name: ClassVar[str] = "ised"
    bias: ClassVar[str] = "biased: a score, in expectation a sum of squared probabilities, scaled"

    def __post_init__(self) -> None:
        if self.semiring not in ("add-mult", "min-max"):
            raise ByssusError(f"semiring={self.semiring!r}: ISED knows 'add-mult' and 'min-max'")

    def aggregate(self, sample: Sample) -> Float[Tensor, "batch outputs"]:
        """The logarithm of each output's weight before scaling; -inf where it was not sampled."""
        if self.semiring == "min-max":
            weights = sample.log_reduce(sample.log_probs.amin(-1), "max")
        else:
            weights = sample.log_reduce(sample.log_probs.sum(-1), "sum")
        return weights[:, : sample.outputs]  # scaled anyhow, with evidence or without

    def log_scores(self, sample: Sample) -> Float[Tensor, "batch outputs"]:
        """The logarithm of the scaled vector."""
        parts = torch.split(self.aggregate(sample), list(sample.blocks), 1)
        return torch.cat([part - self._log_length(part) for part in parts], 1)

    def _log_length(self, aggregate: Tensor) -> Float[Tensor, "batch 1"]:
        if self.paper:
            length: Tensor = torch.linalg.vector_norm(aggregate.exp(), dim=1, keepdim=True)
            return length.clamp_min(1e-12).log()
        # A row none of whose samples gave an output stays at -inf: no length, and no gradient.
        empty = (aggregate == -torch.inf).all(1, keepdim=True)
        return 0.5 * torch.logsumexp(2 * aggregate.masked_fill(empty, 0.0), 1, keepdim=True)

    def scores(self, sample: Sample) -> Float[Tensor, "batch outputs"]:
        """The scaled vector: Euclidean length 1 in each example."""
        return self.log_scores(sample).exp()

    def loss(self, sample: Sample, target: Float[Tensor, "batch outputs"]) -> Float[Tensor, ""]:
        """Binary cross-entropy over all entries; logarithms at least -100."""
        log_scores = self.log_scores(sample)
        if not sample.outputs:  # all worlds were lost, and outputs are those that occur
            return log_scores.sum()
        if self.paper:
            return binary_cross_entropy(log_scores.exp().clamp(0, 1), target)
        return self._cross_entropy(log_scores, target).mean() / sample.outputs

    def _cross_entropy(self, log_scores: Tensor, target: Tensor) -> Float[Tensor, " batch"]:
        """The binary cross-entropy of each example, summed over the outputs."""
        log_rest = torch.log1p(-log_scores.exp().clamp_max(self.ceiling))
        # where: an output that was not sampled is a constant, not 0 times infinity
        log_scores = torch.where(log_scores > -100, log_scores, -100.0)
        return -(target * log_scores + (1 - target) * log_rest).sum(1)


@dataclass(frozen=True)
class Auto(ISED):
    """`Distinct` for the examples whose samples cover enough, `ISED` for the others.

    The likelihood of few samples of many inputs learns nothing; the cross-entropy of scores or
    frequencies, on the other hand, has wrong optima: told only the sum of two digits, it makes a
    network in every few name all digits one too high or too low, where the likelihood does not.
    So this is the default.

    Attributes:
        coverage: the probability mass that an example's distinct samples must cover.
        sure: the probability mass from which on samples that miss the target count against it.
    """

    coverage: float = 0.5
    sure: float = 0.9
    name: ClassVar[str] = "auto"
    bias: ClassVar[str] = f"as distinct where samples cover enough; else {ISED.bias}"

    def log_scores(self, sample: Sample) -> Float[Tensor, "batch outputs"]:
        """The logarithm of the probabilities, or of the scaled vector."""
        log_probs, covered = self._distinct(sample)
        return torch.where(covered, log_probs, super().log_scores(sample))

    def loss(self, sample: Sample, target: Float[Tensor, "batch outputs"]) -> Float[Tensor, ""]:
        """Negative log-likelihood, or ISED's cross-entropy summed over the outputs."""
        log_probs, covered = self._distinct(sample)
        tiny = torch.finfo(log_probs.dtype).tiny
        # A target that no sample gives lies in what they leave: it has at most this probability.
        # Only where that is little is it held against what was seen: early in training it would
        # push towards the wrong optima again.
        seen = self._seen(sample)[:, 0].exp()
        left = torch.log1p(-seen.clamp_max(self.ceiling))
        left = torch.where(seen >= self.sure, left, left.detach())
        likelihood = torch.zeros_like(left)
        for probs, wanted in zip(
            *(torch.split(x, list(sample.blocks), 1) for x in (log_probs.exp(), target)),
            strict=True,
        ):
            hit = (probs * wanted).sum(1)
            log_hit = hit.clamp_min(tiny).log()
            missed = left if len(sample.blocks) == 1 else left * wanted.any(1)  # a list may end
            likelihood = likelihood + torch.where(hit > 0, log_hit, missed)
        rest = self._cross_entropy(super().log_scores(sample), target)
        return torch.where(covered[:, 0], -likelihood, rest).mean()

    def _distinct(self, sample: Sample) -> tuple[Float[Tensor, "batch outputs"], Tensor]:
        """The log-probabilities of `Distinct`, and whether the samples cover enough, (batch, 1)."""
        return sample.log_distinct(), self._seen(sample).exp() >= self.coverage

    def _seen(self, sample: Sample) -> Float[Tensor, "batch 1"]:
        return torch.logsumexp(sample.distinct_log_weights(), 1, keepdim=True)


class RLOO:
    """REINFORCE with the mean of the other samples as each sample's baseline.

    The scores are the frequencies of the outputs, and their gradients are unbiased. Of
    `-log P(y)` the gradient is a ratio: consistent, not unbiased; an example none of whose samples
    gives the target has none.
    """

    name: ClassVar[str] = "rloo"
    bias: ClassVar[str] = (
        "unbiased scores and, through a softmax, gradients; the gradient of -log P is consistent"
    )

    def scores(self, sample: Sample) -> Float[Tensor, "batch outputs"]:
        """Frequencies, with the gradient of the expected frequency."""
        count = sample.log_weights.shape[1]
        if count < 2:
            raise ByssusError("rloo needs at least 2 samples an example; raise `samples`")
        ones = torch.ones_like(sample.log_weights)
        frequency = sample.sum(ones) / count
        held = frequency.detach()
        share = sample.membership.share
        fixed = Membership(
            sample.membership.world,
            sample.membership.output,
            None if share is None else share.detach(),
        )
        surrogate = sample.sum(sample.log_weights, fixed)
        surrogate = surrogate - held * sample.log_weights.sum(1, keepdim=True)
        surrogate = surrogate / (count - 1)
        return sample.given_evidence(frequency + surrogate - surrogate.detach())

    def loss(self, sample: Sample, target: Float[Tensor, "batch outputs"]) -> Float[Tensor, ""]:
        """Negative logarithm of the target's frequency."""
        return negative_log_likelihood(self.scores(sample), target)


@dataclass(frozen=True)
class Marginals:
    """For outputs that do not exclude one another, such as the tuples of a relation.

    `Distinct` for the examples whose samples cover enough, `RLOO` for the others. (The scores of
    `ISED` are scaled over the outputs, as if one of them were right.)

    Attributes:
        coverage: the probability mass that an example's distinct samples must cover.
    """

    coverage: float = 0.5
    name: ClassVar[str] = "marginals"
    bias: ClassVar[str] = f"as distinct where samples cover enough; else {RLOO.bias}"

    def scores(self, sample: Sample) -> Float[Tensor, "batch outputs"]:
        """The probabilities, or the frequencies."""
        probs = Distinct().scores(sample)
        if sample.worlds.complete or sample.log_weights.shape[1] < 2:
            return probs
        seen = torch.logsumexp(sample.distinct_log_weights().detach(), 1, keepdim=True).exp()
        return torch.where(seen >= self.coverage, probs, RLOO().scores(sample))

    def loss(self, sample: Sample, target: Float[Tensor, "batch outputs"]) -> Float[Tensor, ""]:
        """Negative log-likelihood."""
        return negative_log_likelihood(self.scores(sample), target)


class IndeCateR:
    """IndeCateR (De Smet et al. 2023): every concept of every sample completed in every value.

    grad E[f] = sum over concepts d and values v of grad p_d(v) E[f(x with x_d := v)], which sums
    out each concept in turn. Unbiased as `RLOO` is, with lower variance, for (sum of the domain
    sizes) evaluations a sample: for black boxes that are vectorised or memoised, and for rules.
    """

    name: ClassVar[str] = "indecater"
    bias: ClassVar[str] = "unbiased scores and gradients; the gradient of -log P is consistent"

    def scores(self, sample: Sample) -> Float[Tensor, "batch outputs"]:
        """Frequencies, with the gradient of the expected frequency."""
        if sample.concepts.permuted:
            raise ByssusError(
                "indecater needs independent concepts, and those of a permutation are not: "
                "use 'rloo', 'ised' or 'distinct'"
            )
        batch, count, n = sample.worlds.indices.shape
        frequency = sample.sum(sample.log_weights.new_ones(batch, count)) / count
        surrogate = torch.zeros_like(frequency)
        for concept, width in enumerate(sample.concepts.widths):
            changed = sample.worlds.indices[:, :, None].repeat(1, 1, width, 1)
            exists = changed[:, :1, 0, concept] >= 0  # (batch, 1)
            if not exists.any():
                continue
            values = torch.arange(width, device=changed.device)
            changed[..., concept] = torch.where(exists[:, :, None], values, -1)
            membership = sample.evaluate(changed.reshape(batch, count * width, n))
            share = membership.share
            fixed = Membership(
                membership.world, membership.output, None if share is None else share.detach()
            )
            weight = sample.concepts.of(concept) * exists / count
            surrogate = surrogate + sample.sum(weight.repeat(1, count), fixed)
        return sample.given_evidence(frequency + surrogate - surrogate.detach())

    def loss(self, sample: Sample, target: Float[Tensor, "batch outputs"]) -> Float[Tensor, ""]:
        """Negative logarithm of the target's frequency."""
        return negative_log_likelihood(self.scores(sample), target)


_NAMED: dict[str, Callable[[], Estimator]] = {
    "auto": Auto,
    "distinct": Distinct,
    "ised": ISED,
    "rloo": RLOO,
    "indecater": IndeCateR,
    "marginals": Marginals,
}


def as_estimator(estimator: str | Estimator) -> Estimator:
    """The estimator of a name, or the one given."""
    if not isinstance(estimator, str):
        return estimator
    if estimator not in _NAMED:
        raise ByssusError(f"no estimator {estimator!r}: there are {', '.join(map(repr, _NAMED))}")
    return _NAMED[estimator]()
