"""From a tensor's positions to tuples of a relation."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from byssus import ByssusError, ProbabilityError, ShapeError

from ._concepts import rounding

__all__ = ["InputMapping"]

_Value = int | float | str  # a bool is an int
_Kind = Literal["list", "dict", "tuple", "value"]


class InputMapping:
    """What a relation's input tensor says: at each position the probability of one tuple.

    A mapping is

    - a list (or range) of tuples, or of values, each the tuple of it alone: a tensor `(batch, n)`;
    - a list of such lists, however deep: `(batch, rows, n)`;
    - a dictionary from each dimension to its values: `{0: range(7), 1: ["+", "-"]}` speaks of
      tuples such as `(3, "+")`, by a tensor `(batch, 7, 2)`;
    - one tuple or value: a tensor `(batch,)`;
    - None: there are no tensors for this relation, only lists of facts.

    **Alternatives.** `disjunctive=True` makes all tuples alternatives of one another, at most one
    of which holds; with `disjunctive_dim=` those along this dimension are. `disjunctive=False`
    makes them independent facts. Unless one of them is given the data decide: where each row (the
    positions along the last dimension) of every example sums to one, as a softmax makes it, the
    tuples of a row are alternatives; otherwise they are independent, as they are in Scallop, which
    takes `False` where nothing is given. Sums are compared with a tolerance of 1e-4, of 1e-2 for
    half types; rows of zeros (padding) may stand beside rows that sum to one.

    **Fewer facts.** `retain_k` takes the most probable tuples of each example only (with
    `sample_strategy="categorical"`: those that so many draws find), along `sample_dim` if given;
    `retain_threshold` takes those at least so probable. The others do not hold.

    Attributes:
        kind: "list", "dict", "tuple", "value", or None.
        shape: of one example's tensor.
        tuples: all tuples, in the order of the tensor's positions.
        is_singleton: whether values stood for tuples.
    """

    def __init__(
        self,
        mapping: Any,
        disjunctive: bool | None = None,
        disjunctive_dim: int | None = None,
        retain_threshold: float | None = None,
        retain_k: int | None = None,
        sample_dim: int | None = None,
        sample_strategy: Literal["top", "categorical"] | None = None,
        supports_disjunctions: bool = False,
    ) -> None:
        """See the class.

        Args:
            mapping: as above; or another mapping, to be copied, whose options are replaced by
                those that are given.
            disjunctive: whether the tuples are alternatives; None to let the data decide.
            disjunctive_dim: the dimension along which they are.
            retain_threshold: the least probability.
            retain_k: how many tuples.
            sample_dim: the dimension along which to take so many.
            sample_strategy: "top" (if not given) or "categorical".
            supports_disjunctions: whether `process_tensor` says what is an alternative of what.

        Raises:
            ByssusError: if it is no mapping, or an option does not fit it.
        """
        if isinstance(mapping, InputMapping):
            self.__dict__ = copy.copy(mapping.__dict__)
        else:
            self.kind, self.shape, self.tuples = _read(mapping)
            first = mapping
            while isinstance(first, list | range):
                first = first[0]
            self.is_singleton = self.kind in ("list", "value") and not isinstance(first, tuple)
            self.disjunctive: bool | None = None
            self.disjunctive_dim: int | None = None
            self.retain_threshold: float | None = None
            self.retain_k: int | None = None
            self.sample_dim: int | None = None
            self.sample_strategy: Literal["top", "categorical"] = "top"
            self.supports_disjunctions = False
        given = {
            "disjunctive": disjunctive,
            "disjunctive_dim": disjunctive_dim,
            "retain_threshold": retain_threshold,
            "retain_k": retain_k,
            "sample_dim": sample_dim,
            "sample_strategy": sample_strategy,
            "supports_disjunctions": supports_disjunctions,
        }
        self.__dict__.update({name: value for name, value in given.items() if value is not None})
        for name in ("disjunctive_dim", "sample_dim"):
            dim = getattr(self, name)
            if dim is not None and not 0 <= dim < self.dimension:
                raise ByssusError(
                    f"{name}={dim} is no dimension of an input mapping of shape {self.shape}: "
                    f"give one of 0..{self.dimension - 1}"
                    if self.dimension
                    else f"{name}={dim}: an input mapping of one tuple has no dimensions"
                )
        if self.retain_k is not None and self.retain_k < 1:
            raise ByssusError(f"retain_k={self.retain_k}: give 1 or more")
        if self.sample_strategy not in ("top", "categorical"):
            raise ByssusError(
                f"sample_strategy={self.sample_strategy!r}: give 'top' or 'categorical'"
            )

    @property
    def dimension(self) -> int:
        """The number of dimensions of one example's tensor."""
        return len(self.shape)

    def all_tuples(self) -> Iterator[tuple[_Value, ...]]:
        """All tuples, in the order of the tensor's positions."""
        return iter(self.tuples)

    def all_indices(self) -> Iterator[tuple[int, ...]]:
        """All positions of one example's tensor."""
        return itertools.product(*map(range, self.shape))

    def __getitem__(self, index: tuple[int, ...]) -> tuple[_Value, ...]:
        """The tuple at a position."""
        flat = 0
        for i, size in zip(index, self.shape, strict=True):
            flat = flat * size + i
        return self.tuples[flat]

    def __repr__(self) -> str:
        return f"InputMapping({self.kind}, shape={self.shape})"

    def set_sample_topk_facts(self, amount: int) -> None:
        """Take the `amount` most probable tuples of each example only."""
        self.retain_k, self.sample_dim, self.sample_strategy = amount, None, "top"

    def process(
        self, tensor: Tensor, what: str = "the input", generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "batch n"], Bool[Tensor, "batch n"]]:
        """A batch of tensors as the probabilities of all tuples, and which to keep.

        Args:
            tensor: `(batch, *shape)`.
            what: whose it is, for messages.
            generator: makes categorical sampling reproducible.

        Returns:
            The probabilities, in the order of `tuples`, and whether each tuple is retained in
            each example.

        Raises:
            ShapeError: if the tensor has another shape.
            ProbabilityError: if it is to be sampled from and has negative or infinite entries.
        """
        if self.kind is None:
            raise ShapeError(
                f"{what} is a tensor, and the input mapping is None: give lists of facts, or an "
                "input mapping that says which tuple each position stands for"
            )
        if not tensor.ndim or tuple(tensor.shape[1:]) != self.shape:
            one = tuple(tensor.shape) == self.shape
            raise ShapeError(
                f"{what} has the shape {tuple(tensor.shape)}, and its input mapping wants "
                f"({', '.join(['batch', *map(str, self.shape)])})"
                + ("; for a batch of one example give tensor[None]" if one else "")
            )
        probs = tensor.reshape(len(tensor), len(self.tuples))
        keep = torch.ones_like(probs, dtype=torch.bool)
        if self.retain_k is not None:
            dim = self.sample_dim
            rows = probs.detach() if dim is None else tensor.detach().movedim(dim + 1, -1)
            retained = self._retained(rows, self.retain_k, what, generator)
            keep &= (retained if dim is None else retained.movedim(-1, dim + 1)).reshape(keep.shape)
        if self.retain_threshold is not None:
            keep &= probs.detach() >= self.retain_threshold
        return probs, keep

    def process_tensor(self, tensor: Tensor, batched: bool = False) -> list[Any]:
        """A tensor as lists of facts, `(probability, tuple)`, as `add_facts` takes them.

        Args:
            tensor: of one example, of `shape`, or of a batch.
            batched: whether to make a list of one example a batch of one.

        Returns:
            A list of facts, or of one an example. With `supports_disjunctions` each is
            `((probability, group), tuple)`, the group being None for independent facts.
        """
        one = tuple(tensor.shape) == self.shape
        probs, keep = self.process(tensor[None] if one else tensor)
        numbered = enumerate(self.groups(probs) if self.supports_disjunctions else ())
        group = {position: number for number, positions in numbered for position in positions}
        examples = []
        for row, kept in zip(probs, keep.tolist(), strict=True):
            facts: list[Any] = []
            for i, values in enumerate(self.tuples):
                if kept[i]:
                    tag = (row[i], group.get(i)) if self.supports_disjunctions else row[i]
                    facts.append((tag, values))
            examples.append(facts)
        return examples[0] if one and not batched else examples

    def groups(self, probs: Float[Tensor, "batch n"]) -> tuple[tuple[int, ...], ...]:
        """Which tuples are alternatives of one another; those in no group are independent.

        Args:
            probs: from `process`; looked at where the data are to decide.
        """
        if self.disjunctive is False and self.disjunctive_dim is None:
            return ()
        positions = torch.arange(len(self.tuples)).reshape(self.shape)
        if self.disjunctive_dim is not None:
            rows = positions.movedim(self.disjunctive_dim, -1)
        elif self.disjunctive or not self._decides(probs):
            return (tuple(range(len(self.tuples))),) if self.disjunctive else ()
        else:
            rows = positions
        return tuple(map(tuple, rows.reshape(-1, rows.shape[-1]).tolist()))

    def _decides(self, probs: Tensor) -> bool:
        """Whether each row is a distribution."""
        if not self.shape or not len(probs):
            return False
        rows = probs.detach().reshape(-1, self.shape[-1])
        # In float32 at least: a sum of half types rounds at every step.
        sums = rows.sum(-1, dtype=torch.promote_types(rows.dtype, torch.float32))
        ones = (sums - 1).abs() <= rounding(rows.dtype)
        empty = (rows == 0).all(-1)
        return bool((rows >= 0).all() and (ones | empty).all() and ones.any())

    def _retained(
        self, rows: Tensor, amount: int, what: str, generator: torch.Generator | None
    ) -> Bool[Tensor, "*rows n"]:
        """Which entries are among the so many of their row."""
        size = rows.shape[-1]
        if self.sample_strategy == "top":
            chosen = rows.topk(min(amount, size)).indices
        else:
            weights = rows.reshape(-1, size)
            if not bool((weights >= 0).all() and weights.isfinite().all()):
                raise ProbabilityError(
                    f"{what} cannot be sampled from: it has entries that are negative or infinite. "
                    "Give probabilities, of a softmax for instance"
                )
            # Rows of zeros have nothing to draw; what is drawn instead does not hold either.
            weights = torch.where(weights.sum(-1, keepdim=True) > 0, weights, 1.0)
            drawn = torch.multinomial(weights, amount, replacement=True, generator=generator)
            chosen = drawn.reshape(*rows.shape[:-1], amount)
        return torch.zeros_like(rows, dtype=torch.bool).scatter_(-1, chosen, True)


def _read(mapping: Any) -> tuple[_Kind | None, tuple[int, ...], tuple[tuple[_Value, ...], ...]]:
    """The kind, shape and tuples of a mapping."""
    if mapping is None:
        return None, (), ()
    if isinstance(mapping, list | range):
        return "list", *_read_list(mapping)
    if isinstance(mapping, dict):
        return "dict", *_read_dict(mapping)
    if isinstance(mapping, tuple):
        return "tuple", (), (_tuple(mapping),)
    if isinstance(mapping, _Value):
        return "value", (), ((mapping,),)
    raise ByssusError(
        f"{mapping!r} is no input mapping: give a list or range of tuples or values, a dictionary "
        "from dimensions to values, a tuple, a value, or None"
    )


def _tuple(values: tuple[Any, ...]) -> tuple[_Value, ...]:
    for value in values:
        if not isinstance(value, _Value):
            raise ByssusError(
                f"the input mapping's tuple {values!r} has the entry {value!r}: give an int, "
                "float, bool or str"
            )
    return values


def _read_list(
    mapping: list[Any] | range,
) -> tuple[tuple[int, ...], tuple[tuple[_Value, ...], ...]]:
    level: list[Any] = [mapping]
    shape: list[int] = []
    while isinstance(level[0], list | range):
        for part in level:
            if not isinstance(part, list | range):
                raise ByssusError(
                    f"the input mapping has {part!r} where other entries of dimension "
                    f"{len(shape)} are lists: nest all entries alike"
                )
            if len(part) != len(level[0]):
                raise ByssusError(
                    f"the input mapping has lists of {len(level[0])} and of {len(part)} entries in "
                    f"dimension {len(shape)}: make them as long as one another"
                )
        if not len(level[0]):
            raise ByssusError(
                f"the input mapping is empty in dimension {len(shape)}: give at least one entry"
            )
        shape.append(len(level[0]))
        level = [entry for part in level for entry in part]
    single = not isinstance(level[0], tuple)
    tuples: list[tuple[_Value, ...]] = []
    for entry in level:
        if isinstance(entry, list | range) or single is isinstance(entry, tuple):
            raise ByssusError(
                f"the input mapping has {level[0]!r} and {entry!r}: give values only, or tuples "
                "only, nested alike"
            )
        values = _tuple((entry,) if single else entry)
        if len(values) != len(tuples[0] if tuples else values):
            raise ByssusError(
                f"the input mapping has tuples of different lengths, {tuples[0]!r} and {values!r}"
            )
        tuples.append(values)
    return tuple(shape), tuple(tuples)


def _read_dict(
    mapping: dict[Any, Any],
) -> tuple[tuple[int, ...], tuple[tuple[_Value, ...], ...]]:
    columns: list[list[_Value]] = []
    if not mapping or set(mapping) != set(range(len(mapping))):
        raise ByssusError(
            f"the input mapping has the keys {list(mapping)}: give values for each dimension, "
            "{0: ..., 1: ...}, and leave none out"
        )
    for dim in range(len(mapping)):
        values = mapping[dim]
        if not isinstance(values, list | range) or not len(values):
            raise ByssusError(
                f"the input mapping has {values!r} for dimension {dim}: give a list or a range of "
                "at least one value"
            )
        columns.append(list(_tuple(tuple(values))))
    return tuple(map(len, columns)), tuple(itertools.product(*columns))
