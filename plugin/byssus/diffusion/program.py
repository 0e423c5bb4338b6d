"""What a diffusion model asks of a program: a function from worlds to outputs of dimensions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byssus._calls import Failure
from byssus.blackbox import BlackBox, Chances, blackbox
from byssus.domains import Discrete, Domain, List, Permutation, Tuple, typed
from byssus.errors import ByssusError, DomainError, ShapeError, TargetError, listed
from byssus.formula import Formula
from byssus.worlds import number_worlds

__all__ = ["HasWorldProgram", "WorldProgram", "as_world_program"]


@dataclass(frozen=True)
class WorldProgram:
    """A program as a function from worlds to an output of one or more dimensions.

    A world has a column for each concept, as `Domain.widths` has them, and then one for each of
    the program's own probabilistic facts, which no model predicts.

    Attributes:
        names: what the concepts are called, one a domain.
        domains: their domains.
        dimensions: for each dimension of the output its values.
        run: from worlds `(rows, columns)` to the position of each dimension's value, `(rows,
            dimensions)`; -1 where it has none, or the call failed. Rows are all different.
        formula: the rules, if they are known: over the columns of a world, a root for each value
            of each dimension, dimension by dimension.
        own_widths: the number of values of each of the program's own facts.
        own: their probabilities, side by side `(own columns,)`, differentiable.
        output: the domain of the whole output, if it is declared.
        tabulates: whether all worlds may be run, if they are few.
    """

    names: tuple[str, ...]
    domains: tuple[Domain, ...]
    dimensions: tuple[tuple[Hashable, ...], ...]
    run: Callable[[Int[Tensor, "rows columns"]], Int[Tensor, "rows dimensions"]] = field(repr=False)
    formula: Formula | None = field(default=None, repr=False)
    own_widths: tuple[int, ...] = ()
    own: Callable[[], Float[Tensor, " own"]] | None = field(default=None, repr=False)
    output: Domain | None = None
    tabulates: bool = True

    def __post_init__(self) -> None:
        if len(self.names) != len(self.domains):
            raise DomainError(
                f"{len(self.names)} names for {len(self.domains)} domains: give one each"
            )
        if not self.dimensions:
            raise ByssusError(
                "a program without output dimensions: declare its outputs, as in "
                "blackbox(..., output=Integer(0, 18))"
            )
        if not self.domains:
            raise ByssusError(
                "a program without concepts: declare what a network predicts, an nn(...) of "
                "ProbLog or an input mapping of Scallop"
            )
        for name, domain in zip(self.names, self.domains, strict=True):
            if domain.permuted:
                raise DomainError(
                    f"{name}: {domain} is a permutation, whose entries are not unmasked one by "
                    "one; use Discrete over its values"
                )
        if self.formula is not None:
            roots = sum(map(len, self.dimensions))
            if self.formula.widths != self.widths or len(self.formula.roots) != roots:
                raise ByssusError(
                    f"a formula of widths {self.formula.widths} with {len(self.formula.roots)} "
                    f"roots, for worlds of widths {self.widths} and {roots} output values"
                )

    @cached_property
    def concept_widths(self) -> tuple[int, ...]:
        """The number of values of each column that is predicted."""
        return tuple(width for domain in self.domains for width in domain.widths)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """The number of values of each column of a world."""
        return self.concept_widths + self.own_widths

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """What errors call the predicted columns."""
        return tuple(
            name if len(domain.widths) == 1 else f"{name}[{i}]"
            for name, domain in zip(self.names, self.domains, strict=True)
            for i in range(len(domain.widths))
        )

    @cached_property
    def has_lists(self) -> bool:
        """Whether a column may be beyond the end of a list."""
        return any(_optional(domain) for domain in self.domains)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of values of each dimension of the output."""
        return tuple(map(len, self.dimensions))

    def outputs(self, worlds: Int[Tensor, "*rows columns"]) -> Int[Tensor, "*rows dimensions"]:
        """What worlds give, each distinct one evaluated once."""
        number, distinct = number_worlds(worlds, self.widths)
        codes = self.run(distinct)
        shape = (len(distinct), len(self.dimensions))
        if (
            not isinstance(codes, Tensor)
            or tuple(codes.shape) != shape
            or codes.dtype.is_floating_point
        ):
            raise ShapeError(
                f"the program's run gave {_shape_of(codes)} for {len(distinct)} worlds: give "
                f"integers of shape {shape}, the position of each dimension's value"
            )
        high = codes.cpu() >= torch.tensor(self.sizes)
        if bool(high.any()):
            row, d = high.nonzero()[0].tolist()
            raise DomainError(
                f"the program's run gave position {int(codes[row, d])} in dimension {d} of the "
                f"output, which has {self.sizes[d]} values: give 0 to {self.sizes[d] - 1}, or -1"
            )
        return codes.to(worlds.device)[number]

    def value(self, codes: Sequence[int]) -> Hashable:
        """An output's value: of its one dimension, or a tuple.

        With a code of -1, which is not observed, a tuple of the dimensions' values, None there.
        """
        if min(codes) < 0:
            each = zip(self.dimensions, codes, strict=True)
            return tuple(None if code < 0 else values[code] for values, code in each)
        if self.output is not None:
            return self.output.decode(  # type: ignore[no-any-return]
                [-1 if d[c] is _ABSENT else c for d, c in zip(self.dimensions, codes, strict=True)]
            )
        values = tuple(d[code] for d, code in zip(self.dimensions, codes, strict=True))
        return values[0] if len(values) == 1 else values

    def targets(
        self, target: Any, observed: Bool[Tensor, "batch dimensions"] | None = None
    ) -> Int[Tensor, "batch dimensions"]:
        """Targets as positions among the values of each dimension.

        Args:
            target: an integer or Boolean tensor, `(batch,)` or `(batch, dimensions)`, which holds
                the values where all are integers or Booleans, and their positions where not; or
                one value for each example, a tuple or list where there are several dimensions.
            observed: False where a tensor may hold anything; the position there means nothing.

        Raises:
            TargetError: a value that the output does not have.
        """
        if isinstance(target, Tensor):
            return self._tensor_targets(target, observed)
        if not isinstance(target, Iterable):
            raise TargetError(f"targets {target!r}: give a tensor or a sequence, one an example")
        if self.output is not None:
            try:
                encoded = [self.output.encode(value) for value in target]
            except DomainError as error:
                raise TargetError(f"a target is no output of the program: {error}") from None
            codes = torch.tensor(encoded, dtype=torch.int64)
            codes = codes.reshape(len(encoded), len(self.sizes))
            absent = torch.tensor([size - 1 for size in self.sizes])
            return torch.where(codes < 0, absent, codes)
        several = len(self.dimensions) > 1
        rows = [list(v) if several and isinstance(v, Iterable) else [v] for v in target]
        return torch.tensor(
            [self._row(i, row) for i, row in enumerate(rows)], dtype=torch.int64
        ).reshape(len(rows), len(self.dimensions))

    def _row(self, example: int, row: Sequence[Any]) -> list[int]:
        if len(row) != len(self.dimensions):
            raise TargetError(
                f"the target of example {example} has {len(row)} values, and the output "
                f"{len(self.dimensions)} dimensions"
            )
        codes = []
        for i, (value, positions) in enumerate(zip(row, self._positions, strict=True)):
            value = tuple(value) if isinstance(value, list) else value
            if typed(value) not in positions:
                raise TargetError(
                    f"the target of example {example} is {value!r} in dimension {i} of the "
                    f"output, which has the values {listed(self.dimensions[i])}"
                )
            codes.append(positions[typed(value)])
        return codes

    def _tensor_targets(self, target: Tensor, observed: Tensor | None) -> Tensor:
        shape = (len(target) if target.dim() else 0, len(self.dimensions))
        if target.dim() == 1 and shape[1] == 1:
            target = target[:, None]
        if tuple(target.shape) != shape or target.is_floating_point() or target.is_complex():
            raise TargetError(
                f"targets of shape {tuple(target.shape)} and {target.dtype}: give integers of "
                f"shape {('batch', shape[1]) if shape[1] > 1 else ('batch',)}"
            )
        if observed is None:
            observed = torch.ones_like(target, dtype=torch.bool)
        if len(observed) != len(target):
            raise TargetError(f"{len(target)} targets for a batch of {len(observed)} examples")
        target = target.long()
        codes = torch.empty_like(target)
        for i, values in enumerate(self.dimensions):
            kinds = {type(value) for value in values}
            listed_values = list(values) if kinds in ({int}, {bool}) else list(range(len(values)))
            table = torch.tensor(listed_values, dtype=torch.int64, device=target.device)
            same = target[:, i, None] == table
            wrong = ~same.any(1) & observed[:, i].to(target.device)
            if bool(wrong.any()):
                row = int(wrong.nonzero()[0])
                raise TargetError(
                    f"the target of example {row} is {int(target[row, i])} in dimension {i} of "
                    f"the output, which has the values {listed(listed_values)}"
                )
            codes[:, i] = same.int().argmax(1)
        return codes

    @cached_property
    def _positions(self) -> tuple[dict[Hashable, int], ...]:
        return tuple({typed(value): i for i, value in enumerate(d)} for d in self.dimensions)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The first of each column's literals, all side by side."""
        return tuple(accumulate(self.widths, initial=0))[:-1]


@runtime_checkable
class HasWorldProgram(Protocol):
    """A program that knows how to be a function from worlds: those of the adapters are."""

    def world_program(self) -> WorldProgram:
        """The program as a function from worlds."""


def _shape_of(codes: object) -> str:
    if isinstance(codes, Tensor):
        return f"{codes.dtype} of shape {tuple(codes.shape)}"
    return f"a {type(codes).__name__}"


class _Absent:
    """The value of a list's entry beyond its end."""

    def __repr__(self) -> str:
        return "absent"

    def __reduce__(self) -> str:
        return "_ABSENT"  # there is one


_ABSENT = _Absent()


def as_world_program(
    program: Any,
    concepts: Domain | Sequence[Domain] | Mapping[str, Domain] | None = None,
    outputs: Domain | None = None,
) -> WorldProgram:
    """A program as a function from worlds.

    Args:
        program: a black box; a program of an adapter; a plain function of the concepts' values; or
            a `WorldProgram`.
        concepts: what the columns of a world mean, where the program does not say so itself.
        outputs: the domain of a plain function's output.

    Raises:
        DomainError: the concepts do not fit the program.
        ByssusError: the program has no declared output, or is none.
    """
    given = None if concepts is None else _named(concepts)
    box = program if isinstance(program, BlackBox) else None
    if isinstance(program, WorldProgram):
        found = program
    elif isinstance(program, HasWorldProgram):
        found = program.world_program()
    elif box is not None:
        found = _of_blackbox(box, given)
    elif callable(program) and given is not None:
        if outputs is None:
            raise ByssusError(
                f"{getattr(program, '__name__', program)!r} is a plain function: give the domain "
                "of its output, outputs=Integer(0, 18), or declare it with @blackbox"
            )
        box = blackbox(*given.values(), output=outputs)(program)
        found = _of_blackbox(box, given)
    else:
        raise ByssusError(
            f"{program!r} is no program: give a black box, a Scallop module, a ProbLog Program, or "
            "a function together with `concepts` and `outputs`"
        )
    if given is not None:
        named = tuple(given) if isinstance(concepts, Mapping) else found.names
        own = found.names if box is None else _arguments(box)
        if named != own and sorted(named) == sorted(own):
            raise DomainError(
                f"concepts in the order {listed(named)}, and those of the program are "
                f"{listed(own)}: give them in the program's"
            )
        _check(found, given)
    return found


def _named(concepts: Domain | Sequence[Domain] | Mapping[str, Domain]) -> dict[str, Domain]:
    if isinstance(concepts, Domain):
        concepts = [concepts]
    if not isinstance(concepts, Iterable):
        raise DomainError(f"concepts={concepts!r}: give domains, as [Integer(0, 9), Boolean()]")
    if not isinstance(concepts, Mapping):
        concepts = {f"c{i}": domain for i, domain in enumerate(concepts)}
    for name, domain in concepts.items():
        if not isinstance(domain, Domain):
            raise DomainError(f"the concept {name} is {domain!r}: give a domain, as Integer(0, 9)")
    return dict(concepts)


def _check(program: WorldProgram, given: Mapping[str, Domain]) -> None:
    widths = tuple(width for domain in given.values() for width in domain.widths)
    if widths != program.concept_widths:
        raise DomainError(
            f"concepts of widths {widths} for a program over concepts of widths "
            f"{program.concept_widths}, {listed(program.column_names)}: their domains do not fit"
        )
    ours, theirs = (
        [symbols for domain in domains for symbols in _symbols(domain)]
        for domains in (given.values(), program.domains)
    )
    for column, name in enumerate(program.column_names):
        if ours[column] != theirs[column]:
            raise DomainError(
                f"the concept {name} has the values {listed(ours[column])} in `concepts`, and "
                f"{listed(theirs[column])} in the program: give it the program's domain"
            )


def _of_blackbox(box: BlackBox, given: Mapping[str, Domain] | None) -> WorldProgram:
    output = box.output
    if output is None or not output.finite:
        raise ByssusError(
            f"{box.name} has {'no declared output' if output is None else f'the output {output}'}, "
            "and a diffusion model needs one of finite dimensions: give output=Integer(0, 18), or "
            "a Tuple of the dimensions' domains"
        )
    dimensions = tuple(_symbols(output))
    run = _Calls(box, Tuple(*box.inputs), output, tuple(map(len, dimensions)))
    fits = given is not None and len(given) == len(box.inputs)
    names = tuple(given) if given is not None and fits else _arguments(box)
    return WorldProgram(
        names, box.inputs, dimensions, run, output=output, tabulates=box.tabulates()
    )


@dataclass(frozen=True)
class _Calls:
    """Runs a black box on worlds."""

    box: BlackBox
    domain: Domain
    output: Domain
    sizes: tuple[int, ...]

    def __call__(self, worlds: Int[Tensor, "rows columns"]) -> Int[Tensor, "rows dimensions"]:
        # Without the checks of `decode` and `encode`: worlds and checked outcomes pass them.
        tuples = [self.domain._decode(tuple(row)) for row in worlds.tolist()]
        rows = []
        for outcome in self.box.caller.evaluate(tuples):
            if isinstance(outcome, Failure):
                rows.append([-1] * len(self.sizes))
                continue
            if isinstance(outcome, Chances):
                raise ByssusError(
                    f"{self.box.name} is uncertain, it answers {outcome!r}, and a diffusion model "
                    "needs outputs: let it answer one (of a language model: logprobs=False), or "
                    "call it from a rule of a program"
                )
            codes = zip(self.output._encode(outcome), self.sizes, strict=True)
            rows.append([code if code >= 0 else size - 1 for code, size in codes])
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), len(self.sizes))


def _arguments(box: BlackBox) -> tuple[str, ...]:
    """What a black box calls its arguments."""
    try:
        names = tuple(inspect.signature(box.function).parameters)
    except (TypeError, ValueError):
        names = ()
    if len(names) != len(box.inputs):
        return tuple(f"c{i}" for i in range(len(box.inputs)))
    return names


def _symbols(domain: Domain) -> list[tuple[Hashable, ...]]:
    """For each column of a domain its values; of one that can be absent, that too."""
    if isinstance(domain, Discrete):
        return [domain.values]
    if isinstance(domain, Permutation):
        return [tuple(range(domain.start, domain.start + domain.n))] * domain.n
    if isinstance(domain, Tuple):
        return [symbols for part in domain.domains for symbols in _symbols(part)]
    assert isinstance(domain, List)
    each = _symbols(domain.domain)
    optional = [(*symbols, _ABSENT) for symbols in each]
    return each * domain.min_length + optional * (domain.max_length - domain.min_length)


def _optional(domain: Domain) -> bool:
    """Whether a value may leave columns out."""
    if isinstance(domain, Tuple):
        return any(map(_optional, domain.domains))
    if isinstance(domain, List):
        return domain.min_length < domain.max_length or _optional(domain.domain)
    return False
