"""Black boxes: a Python callable as a relation between its arguments and its output.

Given distributions over its arguments, a black box gives the distribution over its outputs. Where
its domain fits the budget, every argument tuple is evaluated once and the result is exact; where
it does not, worlds are sampled (ISED).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from byssus._calls import Arguments, Caller, Failure, Outcome, carried
from byssus.distribution import Distribution
from byssus.domains import Domain, Padded, Tuple, check_probabilities, typed
from byssus.errors import (
    BudgetExceeded,
    ByssusError,
    DomainError,
    ProbabilityError,
    ShapeError,
    listed,
)
from byssus.estimators import Estimator, Membership, Sample, as_estimator
from byssus.plan import Plan
from byssus.provenance.sampled import mass_lost
from byssus.worlds import (
    Concepts,
    Worlds,
    check_sampling,
    count_repeats,
    independent,
    number_worlds,
)

__all__ = ["BlackBox", "Chances", "blackbox"]

# Without a budget, a domain of at most so many tuples is tabulated.
_TABULATED = 10_000


def blackbox(
    *inputs: Domain,
    output: Domain | None = None,
    name: str | None = None,
    provenance: str = "auto",
    samples: int = 100,
    estimator: str | Estimator = "auto",
    generator: torch.Generator | None = None,
    budget: int | None = None,
    on_error: Hashable = "raise",
    timeout: float | None = None,
    vectorized: bool = False,
    executor: Executor | None = None,
    concurrency: int = 16,
    memo: bool = True,
    check: int = 0,
) -> Callable[[Callable[..., Any]], BlackBox]:
    """Make a callable a black box: from tensors a `Distribution`, from plain values a value.

    Each distinct argument tuple is evaluated once, ever. `async def` functions run concurrently. A
    function that is uncertain returns a dictionary from outputs, which exclude one another, to
    their probabilities.

    Args:
        inputs: the domain of each argument.
        output: the domain of the output; None where it is not known, then the outputs are those
            that occur.
        name: the relation's name; the function's if not given.
        provenance: "auto" tabulates what fits the budget and samples the rest; "exact" insists on
            the table, "sampled" on sampling.
        samples: worlds an example, where they are sampled.
        estimator: "auto", "ised", "distinct", "rloo", "indecater", or an `Estimator`.
        generator: makes sampling reproducible.
        budget: the most calls, ever; also the largest domain that is tabulated (10,000 without).
        on_error: "raise"; "discard", which reports the probability mass in `Distribution.lost`; or
            the output to take in place of a failure.
        timeout: seconds a call; from any thread.
        vectorized: the function takes columns (numpy arrays) and returns a column.
        executor: where the calls run, any `concurrent.futures.Executor`.
        concurrency: how many calls of an `async def` function run at once.
        memo: False for a function that is random: it is called anew for every sampled world.
        check: call the first so many tuples twice, to catch a function that is not deterministic.
            (One that draws from the global random generators is caught anyway.)

    Example:
        >>> @blackbox(Integer(0, 9), Integer(0, 9), output=Integer(0, 18))
        ... def add(a, b):
        ...     return a + b
        >>> add(3, 4)
        7
        >>> p = torch.full((1, 10), 0.1)
        >>> add(p, p)[18]
        tensor([0.0100])
    """

    def decorate(function: Callable[..., Any]) -> BlackBox:
        called = name or str(getattr(function, "__name__", type(function).__name__))
        caller = Caller(
            function,
            name=called,
            check_output=Checked(_hashable if output is None else output.check_output),
            vectorized=vectorized,
            executor=executor,
            concurrency=concurrency,
            timeout=timeout,
            on_error=on_error,
            budget=budget,
            memo=memo,
            check=check,
        )
        return BlackBox(
            function, called, inputs, output, caller, provenance, samples, estimator, generator
        )

    if len(inputs) == 1 and not isinstance(inputs[0], Domain) and callable(inputs[0]):
        raise DomainError(
            "@blackbox needs the domain of each argument: @blackbox(Integer(0, 9), ..., output=...)"
        )
    for i, domain in enumerate(inputs):
        if not isinstance(domain, Domain):
            raise DomainError(f"argument {i} of the black box has {domain!r} for a domain")
    if output is not None and not isinstance(output, Domain):
        raise DomainError(f"output={output!r} is no domain; leave it out where it is not known")
    check_sampling(samples, generator)
    _check_provenance(provenance)
    return decorate


class Chances(Mapping[Hashable, float]):
    """An answer that is uncertain: outputs that exclude one another, and their probabilities.

    Like other outcomes it can be hashed. What is left to 1 is the probability of no output.
    """

    def __init__(self, probs: Mapping[Hashable, float]) -> None:
        self._probs = dict(probs)

    def __getitem__(self, value: Hashable) -> float:
        return self._probs[value]

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._probs)

    def __len__(self) -> int:
        return len(self._probs)

    def __hash__(self) -> int:
        return hash(frozenset(self._probs.items()))

    def __repr__(self) -> str:
        return repr(self._probs)


_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Checked:
    """The check of an output, for answers that may be dictionaries of outputs.

    Attributes:
        check_output: the check of one output.
    """

    check_output: Callable[[object], Hashable]

    def __call__(self, answer: object) -> Hashable:
        """The answer in its canonical form.

        Raises:
            DomainError: an output is none, or the probabilities cannot be.
        """
        if not isinstance(answer, Mapping):
            return self.check_output(answer)
        probs: dict[Hashable, float] = {}
        for value, probability in answer.items():
            if not isinstance(probability, int | float | np.floating) or not (
                0 <= probability <= 1 + _TOLERANCE
            ):
                raise DomainError(
                    f"{value!r} has the probability {probability!r}: give a number from 0 to 1"
                )
            output = self.check_output(value)
            probs[output] = probs.get(output, 0.0) + float(probability)
        if not probs:
            raise DomainError("it has no outputs: raise an exception where there is none")
        total = math.fsum(probs.values())
        if total > 1 + _TOLERANCE:
            raise DomainError(
                f"its outputs have probabilities that sum to {total:g}: they exclude one another, "
                "so give at most 1 in all"
            )
        return Chances(probs)


@dataclass(frozen=True)
class _Table:
    """Every world of one pattern of lengths, and what it gives."""

    worlds: Int[Tensor, "worlds concepts"]
    outcomes: list[Outcome]


class BlackBox:
    """A callable as a relation; made by `blackbox`.

    Attributes:
        name: the relation's name.
        inputs: the domain of each argument.
        output: the domain of the output, or None.
        samples: worlds an example, where they are sampled.
        estimator: how worlds become scores and a loss.
        generator: makes sampling reproducible.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        inputs: Sequence[Domain],
        output: Domain | None,
        caller: Caller,
        provenance: str,
        samples: int,
        estimator: str | Estimator,
        generator: torch.Generator | None,
    ) -> None:
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.name = name
        self.inputs = tuple(inputs)
        self.output = output
        self.caller = caller
        self.provenance = provenance
        self.samples = samples
        self.estimator = as_estimator(estimator)
        self.generator = generator
        self._domain = Tuple(*self.inputs)
        self._tables: dict[tuple[bool, ...], _Table] = {}
        for i, domain in enumerate(self.inputs):
            if not domain.finite:
                raise DomainError(
                    f"{name}: argument {i} is {domain}, which has no finite list of values; Float "
                    "is for outputs"
                )

    @property
    def calls(self) -> int:
        """How many evaluations of the function byssus has made so far."""
        return self.caller.calls

    @property
    def table_limit(self) -> int:
        """The largest domain that is tabulated."""
        return _TABULATED if self.caller.budget is None else self.caller.budget

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Tensors: the distribution over outputs. Plain values: the plain function.

        Args:
            arguments: for each argument the tensor view of a batch of distributions over its
                domain, see `byssus.domains`.
            keywords: for the plain function only.

        Raises:
            ShapeError: a view does not fit its domain.
            ProbabilityError: negative, not finite, or not summing to one.
            BlackBoxError: a call failed, under `on_error="raise"`.
            BudgetExceeded: the calls would exceed the budget; none of them was made.
        """
        if not any(map(_is_view, [*arguments, *keywords.values()])):
            return self.function(*arguments, **keywords)
        if keywords or len(arguments) != len(self.inputs):
            raise ByssusError(
                f"{self.name} takes {len(self.inputs)} distributions by position; got "
                f"{len(arguments)}{' and ' + ', '.join(keywords) if keywords else ''}"
            )
        before = self.calls
        concepts = self._concepts(arguments)
        with self.caller.staged():
            lengths = concepts.mask
            if lengths is None:
                lengths = torch.ones(1, len(concepts.widths), dtype=torch.bool)
            if self.tabulates(lengths):
                worlds, number, outcomes = self._tabulate(concepts)
            else:
                worlds = independent(concepts, self.samples, self.generator)
                if not self.caller.memoised:
                    repeats = count_repeats(worlds.indices, concepts.widths)
                    worlds = replace(worlds, repeats=repeats)
                number, outcomes = self._evaluate(worlds.indices)
            result = self._readout(concepts, worlds, number, outcomes)
        result.calls = self.calls - before
        return result

    def evaluate(self, tuples: Sequence[Arguments]) -> list[Outcome]:
        """What the function gives on each argument tuple, or a `Failure`.

        Raises:
            DomainError: an argument outside its domain.
            BlackBoxError: a call failed, under `on_error="raise"`.
            BudgetExceeded: the calls would exceed the budget; none of them was made.
        """
        for arguments in tuples:
            for i, (domain, value) in enumerate(zip(self.inputs, arguments, strict=True)):
                if value not in domain:
                    raise DomainError(
                        f"{self.name}{arguments!r}: argument {i} is {value!r}, which is not in "
                        f"{domain}; widen the domain or keep the rules from asking"
                    )
        return self.caller.evaluate(tuples)

    def tabulates(self, mask: Bool[Tensor, "batch columns"] | None = None) -> bool:
        """Whether every argument tuple is evaluated, for lists of these lengths, or of any."""
        if self.provenance == "sampled" or not self.caller.memoised:
            return False
        if mask is None:
            size = self._domain.size
        else:
            size = sum(self._domain.count(row) for row in torch.unique(mask, dim=0).tolist())
        if size <= self.table_limit:
            return True
        if self.provenance == "exact":
            raise BudgetExceeded(
                f"{self.name}: exact needs all {size} argument tuples, and at most "
                f"{self.table_limit} may be called; raise `budget=` or sample"
            )
        return False

    def plan(self) -> Plan:
        """What calling this black box on tensors will do."""
        size = self._domain.size
        if self.tabulates():
            why = f"its {size} argument tuples fit the limit of {self.table_limit}"
            return Plan("exact", why, {self.name: size})
        why = f"{size} argument tuples, {self.table_limit} are tabulated at most"
        if self.provenance == "sampled" or not self.caller.memoised:
            why = "asked for" if self.provenance == "sampled" else "the function is random"
        return Plan("sampled", why, {self.name: self.caller.budget})

    def __getstate__(self) -> dict[str, Any]:
        function = carried(self.function)
        return {**self.__dict__, "function": function, "__wrapped__": function}

    def __repr__(self) -> str:
        domains = ", ".join(map(repr, self.inputs))
        return f"<black box {self.name}: ({domains}) -> {self.output or 'anything'}>"

    def _concepts(self, arguments: Sequence[Any]) -> Concepts:
        probs: list[Tensor] = []
        masks: list[Tensor] = []
        for i, (domain, argument) in enumerate(zip(self.inputs, arguments, strict=True)):
            what = f"argument {i} of {self.name}"
            columns = domain.flatten(argument, what)
            for width in set(domain.widths):
                same = [p for p in columns.probs if p.shape[1] == width]
                check_probabilities(torch.stack(same, 1) if len(same) > 1 else same[0], what)
            probs += columns.probs
            masks.append(columns.mask)
        if len({len(mask) for mask in masks}) > 1:
            raise ShapeError(
                f"the arguments of {self.name} have batches of {listed(map(len, masks))} "
                "examples: give each the same number"
            )
        mask = torch.cat(masks, 1)
        concepts = Concepts(
            torch.cat(probs, 1),
            self._domain.widths,
            None if bool(mask.all()) else mask,
            self._domain.permuted,
        )
        norm = concepts.log_norm()
        if norm is not None and bool((norm < math.log(torch.finfo(norm.dtype).tiny)).any()):
            row = int(norm.argmin())
            raise ProbabilityError(
                f"row {row} of {self.name} gives every permutation probability 0: no permutation "
                "takes only entries above 0 of its rows"
            )
        return concepts

    def _tabulate(self, concepts: Concepts) -> tuple[Worlds, Tensor, list[Outcome]]:
        """All worlds of each example; the number of each world's outcome; the outcomes."""
        batch, n = len(concepts.probs), len(concepts.widths)
        device = concepts.probs.device
        if concepts.mask is None:
            (table,) = self._all((True,) * n)
            size = len(table.worlds)
            indices = table.worlds.to(device).expand(batch, -1, -1)
            number = torch.arange(size, device=device).expand(batch, -1)
            return (
                Worlds(indices, torch.ones_like(number, dtype=torch.bool), True),
                number,
                table.outcomes,
            )
        patterns, which = torch.unique(concepts.mask, dim=0, return_inverse=True)
        tables = self._all(*map(tuple, patterns.tolist()))
        most = max(len(table.worlds) for table in tables)
        worlds = torch.full((len(tables), most, n), -1)
        numbers = torch.zeros(len(tables), most, dtype=torch.int64)
        there = torch.zeros(len(tables), most, dtype=torch.bool)
        outcomes: list[Outcome] = []
        for i, table in enumerate(tables):
            size = len(table.worlds)
            worlds[i, :size] = table.worlds
            numbers[i, :size] = torch.arange(size) + len(outcomes)
            there[i, :size] = True
            outcomes += table.outcomes
        complete = Worlds(worlds.to(device)[which], there.to(device)[which], True)
        return complete, numbers.to(device)[which], outcomes

    def _all(self, *masks: tuple[bool, ...]) -> list[_Table]:
        """The tables of these patterns of lengths, all or none of which are filled."""
        new = {mask: self._domain.enumerate(mask) for mask in masks if mask not in self._tables}
        tuples = [self._domain.decode(row) for worlds in new.values() for row in worlds.tolist()]
        outcomes = iter(self.caller.evaluate(tuples))
        made = {m: _Table(worlds, list(islice(outcomes, len(worlds)))) for m, worlds in new.items()}
        if not self.caller.passing:
            self._tables |= made
        return [made.get(mask) or self._tables[mask] for mask in masks]

    def _evaluate(self, indices: Tensor) -> tuple[Tensor, list[Outcome]]:
        """The number of each world's outcome, and the outcomes."""
        if self.caller.memoised:
            number, distinct = number_worlds(indices, self._domain.widths)
        else:  # a random function: every world is a draw of its own
            distinct = indices.reshape(-1, indices.shape[-1])
            number = torch.arange(len(distinct), device=indices.device).reshape(indices.shape[:-1])
        return number, self.caller.evaluate([self._domain.decode(r) for r in distinct.tolist()])

    def _readout(
        self, concepts: Concepts, worlds: Worlds, number: Tensor, outcomes: list[Outcome]
    ) -> Distribution:
        values = self._values(outcomes)
        positions = {typed(value): i for i, value in enumerate(values)}

        def membership(number: Tensor, outcomes: list[Outcome], there: Tensor) -> Membership:
            if any(isinstance(outcome, Chances) for outcome in outcomes):
                return self._shares(number, outcomes, there, positions)
            codes = torch.tensor([_code(o, positions) for o in outcomes], device=number.device)
            code = codes[number].masked_fill(~there, _NOWHERE).flatten()
            world = (code >= 0).nonzero().squeeze(1)
            return Membership(world, code[world])

        def evaluate(indices: Tensor) -> Membership:
            # Estimators ask about neighbours, some of which give outputs that no sample gave.
            before = self.calls
            number, outcomes = self._evaluate(indices)
            result.calls += self.calls - before
            return membership(number, outcomes, torch.ones_like(number, dtype=torch.bool))

        there = worlds.distinct if worlds.complete else torch.ones_like(worlds.distinct)
        sample = Sample(
            concepts, worlds, membership(number, outcomes, there), len(values), evaluate
        )
        failures = {o.arguments: o.cause for o in outcomes if isinstance(o, Failure)}
        lost = None
        if failures:
            failed = torch.tensor([isinstance(o, Failure) for o in outcomes], device=number.device)
            world = (failed[number] & there).flatten().nonzero().squeeze(1)
            lost = mass_lost(sample, Membership(world, torch.zeros_like(world)))
        result = Distribution(
            values,
            sample=sample,
            estimator=self.estimator,
            lost=lost,
            domain=self.output,
            failures=failures,
        )
        return result

    def _shares(
        self,
        number: Tensor,
        outcomes: list[Outcome],
        there: Tensor,
        positions: dict[Hashable, int],
    ) -> Membership:
        """Which world gives which output with which probability, where answers are uncertain."""
        shares = torch.zeros(len(outcomes), len(positions))
        for row, outcome in enumerate(outcomes):
            for value, probability in _chances(outcome):
                if (code := positions.get(typed(value))) is not None:
                    shares[row, code] = probability
        share = shares.to(number.device)[number] * there[..., None]
        entries = share.flatten().nonzero().squeeze(1)
        outputs = len(positions)
        return Membership(entries // outputs, entries % outputs, share.flatten()[entries])

    def _values(self, outcomes: list[Outcome]) -> tuple[Hashable, ...]:
        """The declared outputs where they can be listed, else those that occur."""
        output = self.output
        if output is not None and output.finite and output.size <= _TABULATED:
            return output.values
        seen = {typed(value): value for o in outcomes for value, _ in _chances(o)}.values()
        try:
            return tuple(sorted(seen))  # type: ignore[type-var]
        except TypeError:  # no common order: as they occurred
            return tuple(seen)


_NOWHERE = -1


def _chances(outcome: Outcome) -> list[tuple[Hashable, float]]:
    """The outputs of a call, with their probabilities."""
    if isinstance(outcome, Failure):
        return []
    return list(outcome.items()) if isinstance(outcome, Chances) else [(outcome, 1.0)]


def _check_provenance(provenance: object) -> None:
    if provenance not in ("auto", "exact", "sampled"):
        raise ByssusError(
            f"provenance={provenance!r}: a black box knows 'auto', 'exact' and 'sampled'"
        )


def _code(outcome: Outcome, positions: dict[Hashable, int]) -> int:
    return _NOWHERE if isinstance(outcome, Failure) else positions.get(typed(outcome), _NOWHERE)


def _is_view(argument: Any) -> bool:
    """Whether this is (part of) the tensor view of a domain, and not a plain value."""
    if isinstance(argument, tuple | list):
        return any(_is_view(part) for part in argument)
    return isinstance(argument, Tensor | Padded)


def _hashable(value: object) -> Hashable:
    """An output of no declared domain: anything that can be told apart and is equal to itself."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list):
        value = tuple(value)
    if not isinstance(value, Hashable) or isinstance(value, Tensor):
        raise DomainError(
            f"{value!r} of type {type(value).__name__} cannot be an output: return a hashable value"
        )
    try:
        hash(value)
    except TypeError:
        raise DomainError(f"{listed([value])} holds something unhashable") from None
    if value != value:
        raise DomainError("NaN cannot be an output: raise an exception, or return None")
    return value
