"""MaskedDiffusion: concepts that depend on each other, trained through a program (NeSyDM)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from byssus.diffusion._compiled import Compiled
from byssus.diffusion._enumerated import Enumerated
from byssus.diffusion._inputs import batch_size, mask_of, normalized, select
from byssus.diffusion._sampled import Sampled
from byssus.diffusion.inference import TABULATED, count_worlds, draw_worlds, uniform
from byssus.diffusion.prediction import Prediction, predict
from byssus.diffusion.program import WorldProgram, as_world_program
from byssus.diffusion.schedules import Schedule, as_schedule
from byssus.domains import Domain, Tuple
from byssus.errors import (
    ByssusError,
    CompilationLimit,
    EmptyBatchError,
    ShapeError,
    TargetError,
    listed,
)
from byssus.store import Store
from byssus.worlds import check_sampling, number_worlds

__all__ = ["Losses", "MaskedDiffusion"]


@dataclass(frozen=True)
class Losses:
    """The parts of the loss, averaged over the batch.

    Attributes:
        total: gamma_y x outputs + gamma_c x concepts - gamma_h x entropy; differentiable.
        concepts: the concept unmasking loss, a mean over columns.
        outputs: the output unmasking loss, a mean over the output dimensions that are observed.
        entropy: the variational entropy, a mean over columns, in nats.
        missed: the share of observed output dimensions whose likelihood is 0, or which no sample
            met; they teach nothing.
        violated: the share of examples whose world does not give the label where it is observed,
            with the program's own facts drawn anew.
        examples: of each example, what `total` is the mean of; differentiable.
    """

    total: Float[Tensor, ""]
    concepts: Float[Tensor, ""]
    outputs: Float[Tensor, ""]
    entropy: Float[Tensor, ""]
    missed: Float[Tensor, ""]
    violated: Float[Tensor, ""]
    examples: Float[Tensor, " batch"]


class MaskedDiffusion(nn.Module):
    """A masked diffusion model over the concepts of a program, learned from labels alone.

    Neurosymbolic Diffusion Models (NeSyDM). All concepts are masked at first, and unmasked a few
    at a time, each given those before it: so they may depend on one another. A network says what
    masked concepts are likely to be; that no mask is left, and that what is unmasked stays, is
    seen to here.

    The program is tabulated where it has few worlds, else compiled to a circuit where its rules are
    known, or tabulated up to 10,000 worlds; else it is run on sampled worlds. Tables and circuits
    make likelihoods, posterior samples and the conditional entropy exact.

    Args:
        unmasking_model: `unmasking_model(x, c_t)` gives logits `(batch, columns, values)` where
            all columns have as many values, else `(batch, sum of widths)` or a sequence of
            `(batch, width)`. `c_t`, int64 `(batch, columns)`, holds the position of each unmasked
            concept's value; that of the mask token of column i is `widths[i]`, also beyond the end
            of lists, so an embedding has one row more than there are values.
        concepts: the domain of each concept, by name, in a sequence, or one; those of the program
            if None.
        program: a black box, a Scallop module, a ProbLog Program, a `WorldProgram`; or a plain
            function of the concepts' values, with `outputs`.
        encoder: if given, what `unmasking_model` gets as x is `encoder(x)`, evaluated once for each
            input, however many worlds are drawn.
        outputs: the domain of a plain function's output.
        gamma_c: the weight of the concept unmasking loss.
        gamma_y: the weight of the output unmasking loss.
        gamma_h: the weight of the entropy.
        beta: where the program is sampled, what a violated output dimension costs a candidate.
        samples: S, the worlds of a likelihood, where the program is sampled.
        candidates: K, the worlds among which the posterior chooses, where the program is sampled.
        steps: T, the steps of a sampler; with None, or T of at least the number of columns, one
            column is unmasked in each (first hitting).
        schedule: "linear", "cosine", "geometric" or a `Schedule`.
        weighting: "code", as published: 1/t (with the linear schedule) for both losses; "paper":
            1/t for the concepts, 1 for the outputs, which makes the loss a bound; "auto": "code",
            but "paper" where the program has uncertain facts of its own, since the likelihood that
            they leave open, when nothing is masked any more, times 1/t has no finite mean.
        entropy: "conditional" on the label, "unconditional", or "auto": conditional where the
            program is not sampled.
        inference: "exact" insists on a table or circuit, "sampled" on samples.
        nodes: the most SDD nodes that compilation may hold.
        seconds: the most seconds that it may take.
        memory: the most bytes that it may take; see `byssus.Circuit.compile`.
        store: where compiled circuits are kept; by default that of `BYSSUS_STORE`, if any.
        generator: makes everything that is drawn reproducible.

    Attributes:
        program: what is asked of the program, see `WorldProgram`.
        widths: the number of values of each column.

    Raises:
        DomainError: concepts that do not fit the program.
        ByssusError: a setting that makes no sense, or a program with no output dimensions.

    Example:
        >>> @blackbox(Boolean(), Boolean(), output=Boolean())
        ... def xor(a, b):
        ...     return a != b
        >>> model = MaskedDiffusion(network, program=xor)  # network(x, c_t) -> (batch, 2, 2)
        >>> model.loss(x, torch.ones(len(x), dtype=torch.int64)).backward()
        >>> model.predict(x).distribution[True]
    """

    _tokens: Tensor  # of each column, the mask
    _offsets: Tensor  # of each column, its first literal
    _owner: Tensor  # of each literal, its column
    _position: Tensor  # of each literal, its value

    def __init__(
        self,
        unmasking_model: Callable[..., Any],
        concepts: Domain | Sequence[Domain] | Mapping[str, Domain] | None = None,
        program: Any = None,
        *,
        encoder: Callable[..., Any] | None = None,
        outputs: Domain | None = None,
        gamma_c: float = 1e-5,
        gamma_y: float = 1.0,
        gamma_h: float = 0.01,
        beta: float = 10.0,
        samples: int = 1024,
        candidates: int = 1024,
        steps: int | None = None,
        schedule: str | Schedule = "linear",
        weighting: str = "auto",
        entropy: str = "auto",
        inference: str = "auto",
        nodes: int | None = 5_000_000,
        seconds: float | None = 60.0,
        memory: int | None = None,
        store: Store | str | os.PathLike[str] | bool | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if program is None:
            raise ByssusError("program=None: give the program that the concepts are learned from")
        _one_of("weighting", weighting, ("auto", "code", "paper"))
        _one_of("entropy", entropy, ("auto", "conditional", "unconditional"))
        _one_of("inference", inference, ("auto", "exact", "sampled"))
        _count("samples", samples, 2, "leaving one out needs another")
        _count("candidates", candidates, 1, "the posterior chooses among them")
        if steps is not None:
            _count("steps", steps, 1, "all masks must be gone in the end")
        for name, weight in {"gamma_c": gamma_c, "gamma_y": gamma_y, "gamma_h": gamma_h}.items():
            if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
                raise ByssusError(f"{name}={weight!r}: give a weight of 0 or more")
        check_sampling(1, generator)
        for name, network in {"unmasking_model": unmasking_model, "encoder": encoder}.items():
            if not callable(network) and (encoder is not None or name != "encoder"):
                raise ByssusError(f"{name}={network!r}: give a network, or another callable")
        if not isinstance(beta, int | float) or not 0 < beta < float("inf"):
            raise ByssusError(f"beta={beta!r}: give a number above 0")
        self.unmasking_model = unmasking_model
        self.encoder = encoder
        self.program = as_world_program(program, concepts, outputs)
        self.widths = self.program.concept_widths
        # The program's parameters are learned too.
        self.rules = program if isinstance(program, nn.Module) else None
        self.gamma_c, self.gamma_y, self.gamma_h = gamma_c, gamma_y, gamma_h
        self.steps = steps
        self.schedule = as_schedule(schedule)
        self.weighting = weighting
        if weighting == "auto":
            self.weighting = "code" if self.program.own is None else "paper"
        self.generator = generator
        limits = {"nodes": nodes, "seconds": seconds, "memory": memory, "store": store}
        self.inference = _inference(self.program, inference, limits, (samples, candidates, beta))
        sampled = isinstance(self.inference, Sampled)
        if entropy == "conditional" and sampled:
            raise ByssusError(
                "entropy='conditional' needs a program that is tabulated or compiled, and this one "
                "is sampled: take 'unconditional'"
            )
        self.entropy = entropy
        if entropy == "auto":
            self.entropy = "unconditional" if sampled else "conditional"
        self.register_buffer("_tokens", torch.tensor(self.widths), persistent=False)
        offsets = torch.tensor(self.program.offsets[: len(self.widths)], dtype=torch.int64)
        self.register_buffer("_offsets", offsets, persistent=False)
        owner = [c for c, width in enumerate(self.widths) for _ in range(width)]
        self.register_buffer("_owner", torch.tensor(owner), persistent=False)
        position = [v for width in self.widths for v in range(width)]
        self.register_buffer("_position", torch.tensor(position), persistent=False)
        self._checked: set[tuple[int, ...]] = set()

    # Training

    def loss(
        self,
        x: Any,
        y: Any = None,
        lengths: Tensor | Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
        *,
        worlds: Int[Tensor, "batch columns"] | None = None,
        observed: Bool[Tensor, "batch dimensions"] | None = None,
    ) -> Float[Tensor, ""]:
        """The training loss: the NELBO with its weights, means over dimensions; see `losses`."""
        return self.losses(x, y, lengths, generator, worlds=worlds, observed=observed).total

    def losses(
        self,
        x: Any,
        y: Any = None,
        lengths: Tensor | Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
        *,
        worlds: Int[Tensor, "batch columns"] | None = None,
        observed: Bool[Tensor, "batch dimensions"] | None = None,
    ) -> Losses:
        """The training loss and its parts.

        For each example a world is drawn from the variational posterior, masked at a random time,
        and unmasked again. Neither draw is differentiated.

        With gamma_y = 0 no likelihoods are evaluated: `outputs` and `missed` are 0. For known
        `worlds` the program is not run then either, and `violated` is 0, unless the entropy is
        conditional on a label that is not given.

        Args:
            x: the inputs: a tensor, or a tuple, list or dictionary of tensors, batch first.
            y: the label of each example: values, or integers `(batch,)` or `(batch, dimensions)`,
                as `WorldProgram.targets` takes them. With `worlds`, what these give, if None; a
                dimension that they give no value counts as not observed.
            lengths: of each example's lists, `(batch,)`, by concept if there are several; or a
                Boolean mask `(batch, columns)`, False beyond the end. Full length if None.
            generator: in place of the model's own.
            worlds: the concepts, where they are known: they take the place of the posterior's. -1
                beyond the end of lists.
            observed: False where an output dimension of the label is not known; all are, if None.
                What y holds there has no meaning, and no part in the loss: a tensor may hold
                anything, a sequence any value of the dimension. `(batch,)` will do for an output of
                one dimension.

        Raises:
            TargetError: a label that the output does not have, or that no world gives.
            ShapeError: `worlds` or `observed` of another shape or type.
            ShapeError, ProbabilityError: the network's output has another shape, or holds NaN.
            ProbabilityError: an example of which no world that is possible gives the label, as
                where logits are -inf, or a list is too short.
        """
        check_sampling(1, generator)
        generator = generator or self.generator
        e, batch = self._encode(x)
        seen = self._observed(observed, batch)
        codes = None if y is None and worlds is not None else self._labels(y, batch, seen)
        if worlds is None:
            start = self._start(batch, lengths)
        else:
            worlds = self._known("worlds", worlds, batch)
            start = torch.where(worlds < 0, -1, self._tokens)
            conditional = self.gamma_h > 0 and self.entropy == "conditional"
            if self.gamma_y == 0 and not conditional:
                codes = None  # nothing depends on it
            elif codes is None:
                codes = self._given(worlds, generator).masked_fill(~seen, -1)
        first = self.log_probs(e, start)
        with torch.no_grad():
            world = worlds
            if world is None:
                world = self._generate(e, first, start, 1, codes, self.steps, generator)[:, 0]
            state, share, rate = self._masked(world, first, generator)
        log_probs = self.log_probs(e, state)
        count = (start >= 0).sum(1).clamp_min(1)
        weight = rate / share
        concepts = weight * self._unmasking(log_probs, world).sum(1) / count
        surprise, missed = self._surprise(log_probs, codes, generator)
        outputs = (rate if self.weighting == "paper" else weight) * surprise
        entropy = self._entropy(first, codes) / count
        examples = self.gamma_y * outputs + self.gamma_c * concepts - self.gamma_h * entropy
        return Losses(
            examples.mean(),
            concepts.detach().mean(),
            outputs.detach().mean(),
            entropy.detach().mean(),
            missed.to(examples.dtype),
            self._violated(world, codes, generator).to(examples.dtype),
            examples,
        )

    def bound(
        self,
        x: Any,
        y: Any,
        samples: int = 100,
        lengths: Tensor | Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
        *,
        observed: Bool[Tensor, "batch dimensions"] | None = None,
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """An estimate of the NELBO, an upper bound of -log p(y | x), and its standard error.

        With the paper's weighting, sums over dimensions (the observed ones; see `losses`), and the
        entropy of the posterior that is drawn from, column by column in a random order.

        Raises:
            ByssusError: the program is sampled, so that the posterior's entropy is not known.
        """
        _count("samples", samples, 2, "the standard error needs several")
        check_sampling(1, generator)
        if isinstance(self.inference, Sampled):
            raise ByssusError(
                "the bound needs the entropy of the posterior, and that a program that is "
                "tabulated or compiled; this one is sampled"
            )
        generator = generator or self.generator
        with torch.no_grad():
            e, batch = self._encode(x)
            y = self._labels(y, batch, self._observed(observed, batch))
            start = self._start(batch, lengths)
            first = self.log_probs(e, start)
            found = []
            for _ in range(samples):
                log_q: list[Tensor] = []
                world = self._generate(e, first, start, 1, y, None, generator, log_q)[:, 0]
                state, share, rate = self._masked(world, first, generator)
                log_probs = self.log_probs(e, state)
                concepts = self._unmasking(log_probs, world).sum(1)
                likely = self.inference.log_likelihoods(self._with_own(log_probs), y, generator)
                log_posterior = torch.stack(log_q).sum(0)
                found.append(rate / share * concepts - rate * likely.sum(1) + log_posterior)
            estimates = torch.stack(found)
        return estimates.mean(0), estimates.std(0) / samples**0.5

    def _masked(
        self, world: Tensor, like: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Worlds masked at a random time; the share that is masked then, and its rate."""
        t = 1 - uniform((len(world),), like, generator)  # never 0
        share, rate = self.schedule.masked(t), self.schedule.rate(t)
        hidden = uniform(world.shape, like, generator) < share[:, None]
        return torch.where(hidden & (world >= 0), self._tokens, world), share, rate

    def _surprise(
        self, log_probs: Tensor, y: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, ""]]:
        """The mean of -log p of what is observed of a label; the share of it that has p = 0."""
        if y is None or self.gamma_y == 0:
            nothing = log_probs.new_zeros(len(log_probs))
            return nothing, nothing.sum()
        likely = self.inference.log_likelihoods(self._with_own(log_probs), y, generator)
        missed = likely == -torch.inf
        likely = likely.masked_fill(missed, _LOG_MISSED).masked_fill(y < 0, 0.0)
        count = (y >= 0).sum(1)
        return -likely.sum(1) / count.clamp_min(1), missed.sum() / count.sum().clamp_min(1)

    def _entropy(self, first: Tensor, y: Tensor | None) -> Float[Tensor, " batch"]:
        if self.gamma_h == 0:
            return first.new_zeros(len(first))
        if y is not None and self.entropy == "conditional":
            return self.inference.entropy(self._with_own(first), y)
        possible = first.masked_fill(first == -torch.inf, 0.0)
        return -(first.exp() * possible).sum(1)

    def _unmasking(self, log_probs: Tensor, world: Tensor) -> Float[Tensor, "batch columns"]:
        """For each column that is masked, -log p of its value in the world; 0 for others."""
        at = world.clamp_min(0) + self._offsets
        return -log_probs.gather(1, at).masked_fill(world < 0, 0.0)

    def _violated(
        self, world: Tensor, y: Tensor | None, generator: torch.Generator | None
    ) -> Float[Tensor, ""]:
        if y is None or not isinstance(self.inference, Sampled):
            return world.new_zeros((), dtype=torch.get_default_dtype())
        return ((self._given(world, generator) != y) & (y >= 0)).any(1).float().mean()

    def _given(self, world: Tensor, generator: torch.Generator | None) -> Tensor:
        """What worlds give, (batch, dimensions)."""
        return self.program.outputs(self._complete(world[:, None], generator))[:, 0]

    # Sampling

    def sample(
        self,
        x: Any,
        n: int = 1,
        *,
        steps: int | None = None,
        lengths: Tensor | Mapping[str, Tensor] | None = None,
        known: Int[Tensor, "batch columns"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "batch n columns"]:
        """Worlds from the model, whatever the label; -1 beyond the end of lists.

        Args:
            x: the inputs.
            n: so many worlds for each.
            steps: T, in place of the model's own.
            lengths: as for `losses`.
            known: values that are given, by their positions, and -1 for what is not known: the rest
                is drawn given them, as the network has learned it.
            generator: in place of the model's own.
        """
        return self._sampled(x, None, n, steps, lengths, known, None, generator)

    def posterior_sample(
        self,
        x: Any,
        y: Any,
        n: int = 1,
        *,
        steps: int | None = None,
        lengths: Tensor | Mapping[str, Tensor] | None = None,
        known: Int[Tensor, "batch columns"] | None = None,
        observed: Bool[Tensor, "batch dimensions"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "batch n columns"]:
        """Worlds from the variational posterior: those that give the label; see `sample`.

        Where the program is sampled, a few may not give it. With `observed`, as for `losses`, they
        give what is known of the label.
        """
        return self._sampled(x, y, n, steps, lengths, known, observed, generator)

    def _sampled(
        self,
        x: Any,
        y: Any,
        n: int,
        steps: int | None,
        lengths: Tensor | Mapping[str, Tensor] | None,
        known: Tensor | None,
        observed: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        _count("n", n, 1, "worlds for each input")
        check_sampling(1, generator)
        generator = generator or self.generator
        steps = self.steps if steps is None else steps
        _count("steps", 1 if steps is None else steps, 1, "all masks must be gone in the end")
        with torch.no_grad():
            e, batch = self._encode(x)
            codes = None if y is None else self._labels(y, batch, self._observed(observed, batch))
            start = self._start(batch, lengths)
            if known is not None:
                known = self._known("known", known, batch)
                start = torch.where((known >= 0) & (start >= 0), known, start)
            first = self.log_probs(e, start)
            # What is drawn for an example takes so many numbers; memory is not to grow with all.
            cells = n * max(first.shape[1], 0 if codes is None else self.inference.cells)
            every = torch.arange(batch, device=first.device)
            parts = torch.split(every, max(1, _CELLS // cells))
            if len(parts) == 1:
                return self._generate(e, first, start, n, codes, steps, generator)
            drawn = []
            for rows in parts:
                labels = None if codes is None else codes[rows]
                given = select(e, rows), first[rows], start[rows]
                drawn.append(self._generate(*given, n, labels, steps, generator))
            return torch.cat(drawn)

    def _generate(
        self,
        e: Any,
        first: Tensor,
        start: Tensor,
        n: int,
        y: Tensor | None,
        steps: int | None,
        generator: torch.Generator | None,
        log_q: list[Tensor] | None = None,
    ) -> Int[Tensor, "batch n columns"]:
        """Unmask everything, from `start`, for which `first` are the log-probabilities.

        Args:
            e: the encoded inputs.
            first: (batch, literals).
            start: (batch, columns).
            n: worlds an example.
            y: the labels, of samples from the posterior.
            steps: T.
            generator: what is drawn is drawn from it.
            log_q: takes the log-probability of each column that is unmasked, first hitting.
        """
        batch, columns = start.shape
        masks = int((start == self._tokens).sum(1).max())
        example = torch.arange(batch, device=start.device).repeat_interleave(n)
        state = start[example]
        labels = None if y is None else y[example]
        one_by_one = steps is None or steps >= masks
        order = None
        if one_by_one:
            masked = state == self._tokens
            order = uniform(state.shape, first, generator).masked_fill(~masked, 2.0).argsort(1)
        count = masks if steps is None or one_by_one else steps
        log_probs, number = first.detach(), example
        for k in range(count):
            if k:
                log_probs, number = self._states(e, state, example)
            each = log_probs if len(log_probs) == len(state) and n == 1 else log_probs[number]
            if labels is None:
                drawn = draw_worlds(each, self.widths, generator)
            else:
                given = self._with_own(each)
                drawn = self.inference.draw(given, labels, generator)[:, :columns]
            if order is not None:
                at = order[:, k : k + 1]
                old = state.gather(1, at)
                new = torch.where(old == self._tokens[at], drawn.gather(1, at), old)
                if log_q is not None and labels is not None:
                    log_q.append(self._log_posterior(each, at, new, labels))
                state = state.scatter(1, at, new)
                continue
            times = torch.tensor([1 - k / count, 1 - (k + 1) / count], dtype=first.dtype)
            before, after = self.schedule.masked(times).tolist()
            masked = state == self._tokens
            if k < count - 1:
                share = (before - after) / before
                masked = masked & (uniform(state.shape, first, generator) < share)
            state = torch.where(masked, drawn, state)
        return state.reshape(batch, n, columns)

    def _log_posterior(
        self, log_probs: Tensor, at: Tensor, new: Tensor, y: Tensor
    ) -> Float[Tensor, " rows"]:
        """The log-probability with which one column is given its value, given the label."""
        chosen = torch.zeros_like(log_probs).masked_fill_(self._position != new, -torch.inf)
        fixed = torch.where((self._owner == at) & (new >= 0), chosen, log_probs)
        literal = (self._offsets[at] + new.clamp_min(0)).reshape(-1, 1)
        likely = log_probs.gather(1, literal)[:, 0].masked_fill(new[:, 0] < 0, 0.0)
        joint = self.inference.log_joint
        return likely + joint(self._with_own(fixed), y) - joint(self._with_own(log_probs), y)

    def _states(self, e: Any, state: Tensor, example: Tensor) -> tuple[Tensor, Tensor]:
        """The network's answer for each distinct state of an example; which is each row's."""
        rows = len(state)
        batch = int(example[-1]) + 1
        if rows == batch:
            return self.log_probs(e, state), example
        widths = (batch, *(width + 1 for width in self.widths))
        if _fits(widths):
            number, distinct = number_worlds(torch.cat([example[:, None], state], 1), widths)
            example, state = distinct[:, 0], distinct[:, 1:]
        else:
            number = torch.arange(rows, device=state.device)
        size = max(_ROWS, batch)  # as many as the caller gave can be done at once
        parts = [
            self.log_probs(select(e, some), part)
            for some, part in zip(torch.split(example, size), torch.split(state, size), strict=True)
        ]
        return torch.cat(parts), number

    # The network

    def forward(self, x: Any, c_t: Int[Tensor, "batch columns"]) -> Float[Tensor, "batch literals"]:
        """The unmasking model's probabilities, side by side, with both of its rules.

        No probability is left for the mask, and a concept that is unmasked keeps its value.

        Args:
            x: the inputs.
            c_t: partly masked concepts; -1 for padding.
        """
        e, batch = self._encode(x)
        shape = (batch, len(self.widths))
        if tuple(c_t.shape) != shape or c_t.dtype != torch.int64:
            raise ShapeError(
                f"c_t of shape {tuple(c_t.shape)} and {c_t.dtype}: give int64 of shape {shape}"
            )
        wrong = (c_t < -1) | (c_t > self._tokens)
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            raise ShapeError(
                f"c_t is {int(c_t[row, column])} in row {row}, column {column}: give the position "
                f"of a value, below {self.widths[column]}, the mask token, {self.widths[column]}, "
                "or -1 for padding"
            )
        return self.log_probs(e, c_t).exp()

    def log_probs(self, e: Any, c_t: Int[Tensor, "rows columns"]) -> Float[Tensor, "rows literals"]:
        """The logarithm of `forward`'s, of encoded inputs.

        A concept that is unmasked has 0 at its value and -inf elsewhere; padding -inf throughout.
        """
        tokens = torch.where(c_t < 0, self._tokens, c_t)
        try:
            answer = self.unmasking_model(e, tokens)
        except (IndexError, RuntimeError) as error:
            raise ByssusError(
                f"the unmasking model failed on c_t of shape {tuple(c_t.shape)}: {error}. The "
                f"mask token of column i is widths[i], here {listed(self.widths)}: an embedding or "
                "one-hot vector of concepts needs one more entry than there are values"
            ) from error
        log_probs = normalized(answer, len(c_t), self.widths, self.program.column_names)
        masked = (c_t == self._tokens).index_select(1, self._owner)
        kept = c_t.index_select(1, self._owner) == self._position
        carried = torch.zeros_like(log_probs).masked_fill_(~kept, -torch.inf)
        return torch.where(masked, log_probs, carried)

    def _encode(self, x: Any) -> tuple[Any, int]:
        e = x if self.encoder is None else self.encoder(x)
        batch = batch_size(e)
        if batch == 0:
            raise EmptyBatchError("x has no examples: give a batch of one or more")
        return e, batch

    def _with_own(self, log_probs: Tensor) -> Float[Tensor, "rows all"]:
        """Together with the log-probabilities of the program's own facts."""
        if self.program.own is None:
            return log_probs
        own = self.program.own().to(log_probs)
        tiny = torch.finfo(own.dtype).tiny
        own = own.clamp_min(tiny).log().masked_fill(own <= 0, -torch.inf)
        return torch.cat([log_probs, own.expand(len(log_probs), -1)], 1)

    def _complete(
        self, worlds: Int[Tensor, "batch n columns"], generator: torch.Generator | None
    ) -> Int[Tensor, "batch n all"]:
        """Worlds together with draws of the program's own facts."""
        program = self.program
        if program.own is None:
            return worlds
        like = program.own().detach()
        rows = like.log().expand(worlds.shape[0] * worlds.shape[1], -1)
        own = draw_worlds(rows, program.own_widths, generator)
        return torch.cat([worlds, own.reshape(*worlds.shape[:2], -1).to(worlds.device)], 2)

    # Inputs

    def _start(
        self, batch: int, lengths: Tensor | Mapping[str, Tensor] | None
    ) -> Int[Tensor, "batch columns"]:
        """All columns masked; -1 where there is none."""
        start = self._tokens.expand(batch, -1)
        if lengths is None:
            return start
        mask = mask_of(self.program, lengths, batch).to(start.device)
        return torch.where(mask, start, -1)

    def _labels(
        self, y: Any, batch: int, observed: Bool[Tensor, "batch dimensions"]
    ) -> Int[Tensor, "batch dimensions"]:
        codes = self.program.targets(y, observed)
        if len(codes) != batch:
            raise TargetError(f"{len(codes)} targets for a batch of {batch} examples")
        codes = codes.to(self._tokens.device).masked_fill(~observed, -1)
        rows = [tuple(row) for row in codes.tolist()]
        new = {row: i for i, row in enumerate(rows) if row not in self._checked}
        if new:
            possible = self.inference.possible(codes[list(new.values())]).tolist()
            for (row, i), can in zip(new.items(), possible, strict=True):
                if not can:
                    raise TargetError(
                        f"the target of example {i} is {self.program.value(row)!r}, which no world "
                        "gives: there is nothing to learn from it"
                    )
            if not isinstance(self.inference, Sampled):  # which takes all to be possible
                self._checked.update(new)
        return codes

    def _observed(
        self, observed: Bool[Tensor, "batch dimensions"] | None, batch: int
    ) -> Bool[Tensor, "batch dimensions"]:
        """What is known of labels, on the model's device: all, if None.

        Raises:
            ShapeError: it is no Boolean tensor of that shape.
        """
        shape = (batch, len(self.program.dimensions))
        if observed is None:
            return torch.ones(shape, dtype=torch.bool, device=self._tokens.device)
        if not isinstance(observed, Tensor) or observed.dtype != torch.bool:
            found = observed.dtype if isinstance(observed, Tensor) else repr(observed)
            raise ShapeError(f"observed of {found}: give Booleans of shape {shape}")
        if shape[1] == 1 and observed.dim() == 1:
            observed = observed[:, None]
        if tuple(observed.shape) != shape:
            raise ShapeError(
                f"observed of shape {tuple(observed.shape)}: give Booleans of shape {shape}"
            )
        return observed.to(self._tokens.device)

    def _known(
        self, what: str, worlds: Int[Tensor, "batch columns"], batch: int
    ) -> Int[Tensor, "batch columns"]:
        """Values that are given, on the model's device.

        Raises:
            ShapeError: they are no positions of values, one for each column.
        """
        shape = (batch, len(self.widths))
        if not isinstance(worlds, Tensor) or tuple(worlds.shape) != shape:
            found = tuple(worlds.shape) if isinstance(worlds, Tensor) else repr(worlds)
            raise ShapeError(f"{what} of shape {found}: give integers of shape {shape}")
        if worlds.is_floating_point() or worlds.is_complex() or worlds.dtype == torch.bool:
            raise ShapeError(f"{what} of {worlds.dtype}: give integers, the positions of values")
        worlds = worlds.to(self._tokens)
        wrong = (worlds < -1) | (worlds >= self._tokens)
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            raise ShapeError(
                f"{what} is {int(worlds[row, column])} in row {row}, column {column}: give the "
                f"position of a value, below {self.widths[column]}, or -1"
            )
        return worlds

    # Results

    def named(
        self, worlds: Int[Tensor, "batch n columns"]
    ) -> dict[str, Int[Tensor, "batch n ..."]]:
        """Worlds by concept: `(batch, n)` for a concept of one column, `(batch, n, columns)`."""
        parts = torch.split(worlds, [len(domain.widths) for domain in self.program.domains], 2)
        return {
            name: part[..., 0] if part.shape[2] == 1 else part
            for name, part in zip(self.program.names, parts, strict=True)
        }

    def values(self, worlds: Int[Tensor, "batch n columns"]) -> list[list[tuple[Any, ...]]]:
        """Worlds as the concepts' values: for each example, for each world, one a concept."""
        domain = Tuple(*self.program.domains)
        return [[domain.decode(world) for world in example] for example in worlds.tolist()]

    def predict(
        self,
        x: Any,
        votes: int = 1000,
        strategy: str = "PTM",
        mode: str = "true",
        *,
        steps: int | None = None,
        lengths: Tensor | Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> Prediction:
        """What the model says of outputs and concepts, by a vote of sampled worlds.

        Args:
            x: the inputs.
            votes: L, the worlds drawn for each.
            strategy: how outputs are chosen: "PTM", the most frequent output; "PMM", in each
                dimension the most frequent value; "TMP", what the most frequent world gives;
                "MMP", what the world of the most frequent values gives.
            mode: how concepts are chosen: "true", the most frequent world; "marginal", for each
                column the most frequent value.
            steps: T, in place of the model's own.
            lengths: as for `losses`.
            generator: in place of the model's own.
        """
        _one_of("strategy", strategy, ("PTM", "PMM", "TMP", "MMP"))
        _one_of("mode", mode, ("true", "marginal"))
        _count("votes", votes, 1, "worlds vote")
        generator = generator or self.generator
        worlds = self.sample(x, votes, steps=steps, lengths=lengths, generator=generator)
        with torch.no_grad():
            return predict(self.program, worlds, self._complete(worlds, generator), strategy, mode)

    def extra_repr(self) -> str:
        """What was chosen."""
        kind = type(self.inference).__name__.lower()
        return f"columns={len(self.widths)}, inference={kind}, entropy={self.entropy}"


_LOG_MISSED = torch.tensor(1e-8).log().item()
"""What a log-likelihood counts as that is -inf."""

_FEW = 256
"""Up to so many worlds a table is faster than a circuit."""

_ROWS = 1024
"""So many states are given to a network at once, whose inputs and features may be large."""

_CELLS = 20_000_000
"""So many numbers are held at once where worlds are drawn."""


def _inference(
    program: WorldProgram,
    asked: str,
    limits: Mapping[str, Any],
    sampling: tuple[int, int, float],
) -> Enumerated | Compiled | Sampled:
    if asked == "sampled":
        return Sampled(program, *sampling)
    worlds = count_worlds(program)
    tabulated = program.tabulates and worlds <= TABULATED
    compiled = program.formula is not None and not program.has_lists
    limit: CompilationLimit | None = None
    if compiled and not (tabulated and worlds <= _FEW):
        try:
            return Compiled(program, **limits)
        except CompilationLimit as reached:
            limit = reached
    if tabulated:
        return Enumerated(program)
    if asked == "exact":
        raise limit or ByssusError(
            f"inference='exact': the program has {worlds} worlds, and no rules that could be "
            f"compiled; at most {TABULATED} are tabulated"
        )
    if limit is not None:
        warnings.warn(f"sampled: {limit}", RuntimeWarning, stacklevel=3)
    return Sampled(program, *sampling)


def _fits(widths: Sequence[int]) -> bool:
    """Whether states can be told apart by one integer."""
    return prod(width + 1 for width in widths) < 2**62


def _one_of(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise ByssusError(f"{name}={value!r}: there are {', '.join(map(repr, known))}")


def _count(name: str, value: object, least: int, why: str) -> None:
    if type(value) is not int or value < least:
        raise ByssusError(f"{name}={value!r}: give a whole number of {least} or more; {why}")
