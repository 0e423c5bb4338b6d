"""NeSyDM under DeepProbLog: the diffusion model of the queries that share a template.

A network whose module's `forward` has a parameter `c_t` is an unmasking model: it is called on the
inputs of all its instances in a query at once, and on what is unmasked of them. Any other network
predicts each instance by itself, whatever is unmasked.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from deepproblog.network import Network
from problog.logic import Term, is_variable
from torch import Tensor

from byssus import ShapeError, TargetError
from byssus.diffusion.estimator import diffusion_model
from byssus.diffusion.model import MaskedDiffusion
from byssus.errors import listed
from byssus_problog._terms import to_python

from ._networks import Arguments
from ._structure import Binding, Structure


def unmasks(network: Network) -> bool:
    """Whether a network is an unmasking model."""
    module = network.network_module
    try:
        return "c_t" in inspect.signature(getattr(module, "forward", module)).parameters
    except (TypeError, ValueError):  # not every callable says what it takes
        return False


def inputs_of(network: Network, asked: Sequence[Sequence[Arguments]]) -> tuple[Tensor, ...]:
    """What an unmasking model is given: its inputs on all instances of each query.

    Returns:
        for each of its arguments a tensor `(queries, instances, ...)`.

    Raises:
        ShapeError: the inputs are no tensors, or of different shapes.
    """
    rows = [[network.function(*arguments) for arguments in instances] for instances in asked]
    try:
        return tuple(
            torch.stack([torch.stack([inputs[i] for inputs in row]) for row in rows])
            for i in range(len(rows[0][0]))
        )
    except (TypeError, RuntimeError) as error:
        raise ShapeError(
            f"network {network.name} is an unmasking model, which is given the inputs of all "
            f"instances as tensors of one shape: {error}"
        ) from error


class Diffusion:
    """The diffusion model of a structure.

    Args:
        structure: it.
        unmasking: the unmasking models among its networks, by the name in the program.
    """

    def __init__(self, structure: Structure, unmasking: Mapping[str, Network]) -> None:
        self._structure, self._unmasking = structure, unmasking
        options = structure.program._diffusion
        self.model = diffusion_model(self._unmask, structure.world_program, options)

    def losses(self, x: Mapping[str, Any], targets: Sequence[Hashable]) -> Tensor:
        """The loss of each query, `(queries,)`.

        Args:
            x: by network the probabilities `(queries, instances, values)`, or an unmasking
                model's inputs.
            targets: the answers, see `target`.
        """
        return self._at(x).losses(dict(x), list(targets)).examples

    def frequencies(self, x: Mapping[str, Any]) -> Tensor:
        """How often sampled worlds give each answer, `(queries, answers)`."""
        model, program = self._at(x), self._structure.program
        found = program.forward(model.named(model.sample(dict(x), program.samples)))
        return found.probs

    def target(self, binding: Binding, term: Term, *, true: bool) -> Hashable:
        """The label of a query.

        Args:
            binding: the query, with a variable in the place of its answer.
            term: the query.
            true: whether it is to be true.

        Raises:
            TargetError: no world gives the answer.
        """
        template, program = self._structure.template, self.model.program
        if template.is_ground():
            return true
        if program.output is not None:
            (place,) = (i for i, part in enumerate(template.args) if is_variable(part))
            return to_python(term.args[place])
        answers = self._structure.answers(binding, self._structure.program.values)
        if term not in answers:
            raise TargetError(
                f"no world gives {term}; its answers are {listed(answers)}: there is nothing to "
                "learn from it"
            )
        return program.dimensions[0][answers.index(term)]

    def _at(self, x: Mapping[str, Any]) -> MaskedDiffusion:
        part = next(iter(x.values()))
        return self.model.to((part if isinstance(part, Tensor) else part[0]).device)

    def _unmask(self, x: Mapping[str, Any], c_t: Tensor) -> Tensor:
        program = self._structure.program
        parts = []
        start = 0
        for name, instances in program.instances.items():
            probs = x[name]
            if name in self._unmasking:
                of_network = c_t[:, start : start + len(instances)]
                answer = self._unmasking[name].network_module(*probs, c_t=of_network)
                probs = program._inputs.table(name, {name: answer}, instances)
            start += len(instances)
            parts.append(probs.flatten(1).clamp_min(torch.finfo(probs.dtype).tiny).log())
        return torch.cat(parts, 1)
