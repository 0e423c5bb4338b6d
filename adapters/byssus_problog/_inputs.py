"""Inputs: from the tensors that a program is given to the probabilities of its literals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from problog.logic import Term, term2list
from torch import Tensor

from byssus import ConceptError, DomainError, ShapeError
from byssus.domains import check_probabilities
from byssus.errors import EmptyBatchError, listed

from ._database import Network
from ._grounding import Concept
from ._terms import order_key, to_python


class Inputs:
    """Which probabilities a program needs, and where in the given tensors they are.

    Args:
        networks: those that the program declares, by name.
        concepts: those of the ground program.
        order: for each network, its instances in the order to use; natural order without.

    Attributes:
        instances: for each network that is used, its inputs in the order of the tensor's second
            dimension.
        parameters: the tunable probabilities that are used, by name.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        concepts: Sequence[Concept],
        order: Mapping[str, tuple[Hashable, ...]],
    ) -> None:
        self._networks = networks
        self.instances = self._find(concepts, order)
        starts: dict[str, int] = {}
        end = 0
        for name, instances in self.instances.items():
            starts[name] = end
            end += len(instances) * len(networks[name].values)
        self.parameters: dict[str, int] = {}
        for concept in concepts:
            if concept.parameter is not None and concept.parameter not in self.parameters:
                self.parameters[concept.parameter] = end
                end += concept.width
        columns: list[int] = []
        self._constants: list[float] = []
        for concept in concepts:
            if concept.parameter is not None:
                start = self.parameters[concept.parameter]
            elif concept.network is None:
                start = end + len(self._constants)
                self._constants += concept.probs
            else:
                position = self.instances[concept.network].index(instance_of(concept))
                start = starts[concept.network] + position * concept.width
            columns += range(start, start + concept.width)
        in_place = columns == list(range(end + len(self._constants)))
        self._columns = None if in_place else torch.tensor(columns, dtype=torch.int64)

    def _find(
        self, concepts: Sequence[Concept], order: Mapping[str, tuple[Hashable, ...]]
    ) -> dict[str, tuple[Hashable, ...]]:
        found: dict[str, dict[Hashable, Term]] = {}
        for concept in concepts:
            if concept.network is not None:
                found.setdefault(concept.network, {})[instance_of(concept)] = concept.inputs
        unknown = sorted(set(order) - set(self._networks))
        if unknown:
            raise ConceptError(
                f"instances of {', '.join(unknown)}: the program's networks are "
                f"{listed(self._networks)}"
            )
        result = {}
        for network, inputs in found.items():
            ordered = tuple(sorted(inputs, key=lambda instance: order_key(inputs[instance])))
            given = order.get(network, ordered)
            missing = [instance for instance in ordered if instance not in given]
            if missing:
                raise ConceptError(
                    f"the program uses {network} on {listed(missing)}, which `instances` lacks"
                )
            result[network] = given
        return result

    def weights(self, given: Mapping[str, Any], tunable: Mapping[str, Tensor]) -> Tensor:
        """The probabilities of all literals, `(batch, columns)`; see `Program.forward`.

        Args:
            given: of the networks, by name.
            tunable: of the parameters, by name: `(values,)`.
        """
        parts = self.predicted(given)
        batch = len(parts[0]) if parts else 1
        parts += [tunable[name].expand(batch, -1) for name in self.parameters]
        if self._constants or not parts:
            like = parts[0] if parts else torch.empty(0)
            parts.append(like.new_tensor(self._constants).expand(batch, -1))
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        if self._columns is None:
            return joined
        if self._columns.device != joined.device:
            self._columns = self._columns.to(joined.device)
        return joined.index_select(1, self._columns)

    def predicted(self, given: Mapping[str, Any]) -> list[Tensor]:
        """The probabilities that networks give, `(batch, instances * values)` for each."""
        self.check_names(given)
        tables = {name: self.table(name, given, self.instances[name]) for name in self.instances}
        return [table.flatten(1) for table in expanded(tables)]

    def worlds(self, given: Mapping[str, Any]) -> Tensor | None:
        """Worlds that are given, `(batch, worlds, columns)`: the positions of networks' values.

        None where probabilities are given.

        Raises:
            ConceptError: a network that the program does not have, or one that is missing.
            ShapeError: a tensor does not fit.
            DomainError: a position beyond a network's values.
        """
        integral = {name for name, table in given.items() if _is_integral(table)}
        if not integral:
            return None
        self.check_names(given)
        if not integral >= set(self.instances):
            raise ShapeError(
                f"worlds are given for {listed(sorted(integral))}: give integers for each of "
                f"{listed(self.instances)}, or probabilities for each"
            )
        tables = {}
        for name, instances in self.instances.items():
            table, width = given[name], len(self._networks[name].values)
            if table.dim() == 2 and len(instances) == 1:
                table = table[:, :, None]
            if table.dim() != 3 or table.shape[2] != len(instances) or not table.numel():
                raise ShapeError(
                    f"{name} of shape {tuple(given[name].shape)}: expected worlds (batch, worlds, "
                    f"{len(instances)}), one or more, for its instances {listed(instances)}"
                )
            wrong = table[(table < 0) | (table >= width)]
            if len(wrong):
                raise DomainError(
                    f"{name} has the value {int(wrong[0])} in some world, and the positions of "
                    f"its values go from 0 to {width - 1}"
                )
            tables[name] = table.long()
        counts = {name: table.shape[1] for name, table in tables.items()}
        if len(set(counts.values())) > 1:
            raise ShapeError(f"different numbers of worlds: {counts}; each must have the same")
        return torch.cat(expanded(tables), 2)

    def check_names(self, given: Mapping[str, Any]) -> None:
        """Raise a `ConceptError` for a network that the program does not declare."""
        for name in given:
            if name not in self._networks:
                raise ConceptError(
                    f"the program has no network {name!r}; it declares {listed(self._networks)}"
                )

    def table(self, name: str, given: Mapping[str, Any], instances: tuple[Hashable, ...]) -> Tensor:
        """One network's probabilities, `(batch, instances, values)`, checked."""
        network = self._networks[name]
        width = len(network.values)
        if name not in given:
            raise ConceptError(
                f"the probabilities of {name} are missing: give {name}= a tensor of shape "
                f"(batch, {len(instances)}, {width}), for its instances {listed(instances)}"
            )
        table = given[name]
        if isinstance(table, Mapping):
            table = self._stack(name, table, instances)
        if not isinstance(table, Tensor) or not table.is_floating_point():
            kind = table.dtype if isinstance(table, Tensor) else type(table).__name__
            raise ShapeError(f"{name} must be a tensor of probabilities, not {kind}")
        shape = tuple(table.shape)
        if network.is_fact and (table.dim() < 3 or table.shape[-1] == 1):
            if table.dim() == 1:
                table = table[:, None]
            table = table.reshape(table.shape[:2])
            table = torch.stack([1 - table, table], -1)
        elif table.dim() == 2 and len(instances) == 1:
            table = table[:, None]
        expected = (len(instances), width)
        if table.dim() != 3 or tuple(table.shape[1:]) != expected:
            wanted = f"(batch, {len(instances)}, {width})"
            if network.is_fact:
                wanted += f" or (batch, {len(instances)})"
            raise ShapeError(
                f"{name} of shape {shape}: expected {wanted}, for its instances "
                f"{listed(instances)} and values {listed(network.values)}"
            )
        if len(table) == 0:
            raise EmptyBatchError(f"{name} of shape {shape}: a batch has at least one example")
        check_probabilities(table, name)
        return table

    def _stack(
        self, name: str, table: Mapping[Hashable, Tensor], instances: tuple[Hashable, ...]
    ) -> Tensor:
        missing = [instance for instance in instances if instance not in table]
        if missing or len(table) > len(instances):
            raise ConceptError(
                f"{name} is given for {listed(table)}; the program uses it on {listed(instances)}"
            )
        parts = [table[instance] for instance in instances]
        for instance, part in zip(instances, parts, strict=True):
            if not isinstance(part, Tensor) or part.dim() not in (1, 2):
                what = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
                raise ShapeError(
                    f"{name} of {instance!r} must be a tensor of shape (batch, values), not {what}"
                )
        if len({part.shape[1:] for part in parts}) > 1:
            shapes = {instance: tuple(table[instance].shape) for instance in instances}
            raise ShapeError(f"{name}: all instances must have one number of values, not {shapes}")
        sizes = {len(part) for part in parts} - {1}
        if len(sizes) > 1:
            lengths = {instance: len(table[instance]) for instance in instances}
            raise ShapeError(
                f"{name}: batches of different sizes: {lengths}; each must be the same, or 1"
            )
        batch = sizes.pop() if sizes else 1
        return torch.stack([part.expand(batch, *part.shape[1:]) for part in parts], 1)


def expanded(tables: Mapping[str, Tensor]) -> list[Tensor]:
    """Tables with the same batch, where one of 1 is shared by all examples."""
    shapes = {name: len(table) for name, table in tables.items()}
    sizes = set(shapes.values()) - {1}
    if len(sizes) > 1:
        raise ShapeError(f"batches of different sizes: {shapes}; each must be the same, or 1")
    batch = sizes.pop() if sizes else 1
    return [table.expand(batch, *table.shape[1:]) for table in tables.values()]


def _is_integral(table: Any) -> bool:
    return isinstance(table, Tensor) and not (table.is_floating_point() or table.is_complex())


def instance_of(concept: Concept) -> Hashable:
    """The inputs of a network's concept: a value, or a tuple if there are several or none."""
    inputs = tuple(to_python(term) for term in term2list(concept.inputs, deep=False))
    return inputs[0] if len(inputs) == 1 else inputs
