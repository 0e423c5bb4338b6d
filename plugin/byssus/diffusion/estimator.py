"""NeSyDM's loss as an estimator: where a program is given probabilities, not an unmasking model.

A program under `provenance="nesydm"` keeps one model, `independent_model(program, options)`, and
makes a `Nelbo(model, probs)` for each batch, the estimator of its `Distribution`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from byssus.errors import ByssusError, TargetError
from byssus.estimators import RLOO, Sample

from .model import MaskedDiffusion
from .program import WorldProgram

__all__ = ["LIMITS", "Nelbo", "diffusion_model", "independent_model", "options_for"]

LIMITS = ("nodes", "seconds", "memory", "store")
"""The limits of an adapter's circuits that hold for those of its diffusion models too."""


class _Given(nn.Module):
    """The unmasking model that says the probabilities it is given, whatever is unmasked."""

    def forward(
        self, probs: Float[Tensor, "batch columns"], c_t: Int[Tensor, "batch concepts"]
    ) -> Float[Tensor, "batch columns"]:
        return probs.clamp_min(torch.finfo(probs.dtype).tiny).log()


def options_for(provenance: str, diffusion: Mapping[str, Any] | None) -> dict[str, Any]:
    """What an adapter is given as `diffusion=`, checked.

    Raises:
        ByssusError: it is no mapping, or the provenance is another one.
    """
    if not isinstance(diffusion, Mapping | None):
        raise ByssusError(
            f"diffusion={diffusion!r}: give a dictionary of arguments of MaskedDiffusion, such as "
            "{'gamma_h': 1.6}"
        )
    if provenance != "nesydm" and diffusion is not None:
        raise ByssusError(f"diffusion= is for provenance='nesydm', not {provenance!r}")
    return dict(diffusion or {})


def independent_model(program: WorldProgram, options: Mapping[str, Any]) -> MaskedDiffusion:
    """A diffusion model whose input is the probabilities of all concepts, side by side.

    Args:
        program: the program.
        options: arguments of `MaskedDiffusion`, such as `gamma_h=1.6`.

    Raises:
        ByssusError: an option that there is not.
    """
    return diffusion_model(_Given(), program, options)


def diffusion_model(
    unmasking_model: Callable[..., Any], program: WorldProgram, options: Mapping[str, Any]
) -> MaskedDiffusion:
    """The diffusion model of an adapter's program, which knows its concepts and outputs.

    Args:
        unmasking_model: see `MaskedDiffusion`.
        program: the program.
        options: the other arguments of `MaskedDiffusion`, such as `gamma_h=1.6`.

    Raises:
        ByssusError: an option that there is not.
    """
    taken = {"unmasking_model", "encoder", "concepts", "program", "outputs"} & set(options)
    if taken:
        raise ByssusError(
            f"diffusion= has {', '.join(sorted(taken))}, and the program and its concepts are "
            "given: for an unmasking model use byssus.diffusion.MaskedDiffusion"
        )
    try:
        with torch.inference_mode(False):  # its tables outlive the mode of its first use
            return MaskedDiffusion(unmasking_model, program=program, **options)
    except TypeError as error:
        raise ByssusError(f"diffusion={dict(options)!r}: {error}") from error


class Nelbo:
    """The negative evidence lower bound of NeSyDM, for concepts that are independent.

    The worlds of the sample give the scores, as with `rloo`; the loss draws its own.

    Args:
        model: the diffusion model, of `independent_model`; or what makes it, once there is a loss.
        probs: the probabilities of its concepts `(batch, columns)`.
    """

    name: ClassVar[str] = "nesydm"
    bias: ClassVar[str] = f"a bound on -log P; scores: {RLOO.bias}"

    def __init__(
        self,
        model: MaskedDiffusion | Callable[[], MaskedDiffusion],
        probs: Float[Tensor, "batch columns"],
    ) -> None:
        self._model, self.probs = model, probs

    @cached_property
    def model(self) -> MaskedDiffusion:
        """The diffusion model."""
        model = self._model
        return model if isinstance(model, MaskedDiffusion) else model()

    def scores(self, sample: Sample) -> Float[Tensor, "batch outputs"]:
        """Frequencies, with the gradient of the expected frequency."""
        return RLOO().scores(sample)

    def target_loss(self, target: Any, outputs: int) -> Float[Tensor, ""]:
        """The bound against the targets of `Distribution.loss`.

        Args:
            target: what `MaskedDiffusion.loss` takes; or zeros and ones, see `loss`.
            outputs: the number of outputs of the distribution.

        Raises:
            TargetError: a target that is no output, or targets that do not fit the batch.
        """
        if isinstance(target, Tensor) and target.dim() == 2:
            if target.shape[1] == outputs and outputs != len(self.model.program.dimensions):
                target = self._targets(target)
            elif bool(((target == 0) | (target == 1)).all()):
                target = target.long()
        return self.model.loss(self.probs, target)

    def loss(self, sample: Sample, target: Float[Tensor, "batch outputs"]) -> Float[Tensor, ""]:
        """The bound.

        Args:
            sample: the worlds; they have no part in it.
            target: zeros and ones. The outputs are the values of each dimension side by side; of
                one that is `(False, True)` they may be that it is true, alone.

        Raises:
            TargetError: an example without a value in a dimension, or with two.
        """
        return self.target_loss(target, target.shape[1])

    def _targets(self, target: Tensor) -> Tensor:
        """Targets as the model takes them: integers where values are, else positions."""
        dimensions = self.model.program.dimensions
        widths = [len(values) for values in dimensions]
        if sum(widths) != target.shape[1]:
            # repr: (0, 1) is equal to it
            widths = [1 if repr(v) == "(False, True)" else len(v) for v in dimensions]
        if sum(widths) != target.shape[1]:
            raise TargetError(
                f"targets of {target.shape[1]} outputs for an output of the dimensions "
                f"{[len(values) for values in dimensions]}"
            )
        columns = []
        for i, (part, values) in enumerate(
            zip(torch.split(target, widths, 1), dimensions, strict=True)
        ):
            if part.shape[1] == len(values):
                wrong = ((part > 0).sum(1) != 1).nonzero().flatten().tolist()
                if wrong:
                    raise TargetError(
                        f"the target of example {wrong[0]} has no value in dimension {i} of the "
                        "output, or several: each example has one of its values"
                    )
                code = part.argmax(1)
            else:
                code = (part[:, 0] > 0).long()
            if {type(value) for value in values} in ({int}, {bool}):
                code = torch.tensor([*values], device=code.device).long()[code]
            columns.append(code)
        return torch.stack(columns, 1)
