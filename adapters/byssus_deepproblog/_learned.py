"""Learned probabilities, `t(0.5) :: fact`, as the outputs of networks of their own.

Their values are `model.parameters`; their gradients go to `model.optimizer`, as in DeepProbLog.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from deepproblog.model import Model
from torch import Tensor

from byssus import ProbabilityError

from ._rules import PARAMETERS, Rules
from ._structure import Structure


class Learned:
    """The learned probabilities of a model.

    Args:
        model: the model.
        rules: its rules.
    """

    def __init__(self, model: Model, rules: Rules) -> None:
        self._model, self._rules = model, rules

    def fits(self, structure: Structure) -> bool:
        """Whether those of each disjunction sum to 1 at most.

        DeepProbLog's optimizer sees to that after its first step.
        """
        return all(
            sum(self._model.parameters[p] if isinstance(p, int) else p for p in disjunction)
            <= 1 + 1e-6
            for name, disjunction in self._rules.disjunctions.items()
            if name in structure.inputs
        )

    def tables(
        self, structures: Iterable[Structure], device: torch.device | None
    ) -> list[dict[str, Tensor]]:
        """For each structure the probabilities that its program is to be given, by network."""
        structures = list(structures)
        used = sorted({i for structure in structures for i in self._used(structure)})
        if not used:
            return [{} for _ in structures]
        numbers = [float(self._model.parameters[i]) for i in used]
        for i, number in zip(used, numbers, strict=True):
            if not 0.0 <= number <= 1.0:
                raise ProbabilityError(
                    f"model.parameters[{i}] is {number:g}: a probability lies between 0 and 1"
                )
        # A hook on a leaf would be called by each of two nested backward passes.
        values = torch.tensor(numbers, device=device, requires_grad=True) * 1.0
        optimizer = self._model.optimizer

        def pass_on(gradient: Tensor) -> None:
            for i, part in zip(used, gradient, strict=True):
                optimizer.add_parameter_gradient(i, part)

        if values.requires_grad:  # it does not under torch.no_grad()
            values.register_hook(pass_on)  # type: ignore[no-untyped-call]
        places = {parameter: place for place, parameter in enumerate(used)}
        return [dict(self._tables(structure, values, places)) for structure in structures]

    def _used(self, structure: Structure) -> Iterator[int]:
        yield from structure.parameters
        for name in structure.inputs.keys() & self._rules.disjunctions.keys():
            yield from (p for p in self._rules.disjunctions[name] if isinstance(p, int))

    def _tables(
        self, structure: Structure, values: Tensor, places: Mapping[int, int]
    ) -> Iterator[tuple[str, Tensor]]:
        if structure.parameters:
            yield PARAMETERS, values[[places[i] for i in structure.parameters]][None]
        for name, disjunction in self._rules.disjunctions.items():
            if name in structure.inputs:
                parts = [
                    values[places[p]] if isinstance(p, int) else values.new_tensor(p)
                    for p in disjunction
                ]
                row = torch.stack(parts)
                yield name, torch.cat([row, 1 - row.sum()[None]])[None, None]
