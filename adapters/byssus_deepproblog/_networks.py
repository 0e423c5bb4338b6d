"""The networks' outputs for a whole batch: each network is called once, on its distinct inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from deepproblog.model import Model
from problog.logic import Constant, Term, term2list
from torch import Tensor

from byssus import ByssusError, ConceptError, ShapeError

Arguments = tuple[Any, ...]


class Evaluation:
    """What networks are asked while a batch is solved, and what they say.

    Args:
        model: the networks are its.
        declared: what the program calls them; see `Rules`.
    """

    def __init__(self, model: Model, declared: Mapping[str, tuple[str, list[Term] | None]]) -> None:
        self._model, self._declared = model, declared
        self._rows: dict[str, dict[Arguments, int]] = {}
        self._outputs: dict[str, Tensor] = {}

    def ask(self, network: str, arguments: Arguments) -> int:
        """The row of the network's output for these arguments."""
        if network not in self._declared:
            raise ConceptError(
                f"network {network} is declared in a file that the program consults, and a model "
                "knows the networks of its own program alone: declare it there"
            )
        rows = self._rows.setdefault(self._declared[network][0], {})
        return rows.setdefault(arguments, len(rows))

    @property
    def device(self) -> torch.device | None:
        """Where the networks' outputs are."""
        return next((output.device for output in self._outputs.values()), None)

    def run(self) -> None:
        """Call the networks, those first whose outputs are inputs of others."""
        levels: list[dict[str, dict[Arguments, Term]]] = []
        for rows in self._rows.values():
            for arguments in rows:
                _find_tensors(arguments, levels)
        store = self._model.solver.engine.tensor_store
        for level in levels:
            for name, asked in level.items():
                output = call(self._model, name, asked)
                for row, term in zip(output, asked.values(), strict=True):
                    store.store(row, term)
        for name, rows in self._rows.items():
            self._outputs[name] = self._rows_of(name, rows)

    def output(self, network: str, rows: Sequence[int]) -> Tensor:
        """The network's output in these rows: `(rows, values)`, or `(rows,)` for a fact."""
        name, values = self._declared[network]
        output = self._outputs[name]
        if values is None:
            output = output.flatten(1)[:, 0] if output.dim() > 1 else output
        elif output.dim() != 2 or output.shape[1] != len(values):
            raise ShapeError(
                f"network {name} gives {tuple(output.shape[1:])} numbers for an input; the "
                f"program declares the values {values}: it must give the probability of each, "
                f"({len(values)},)"
            )
        if len(rows) == len(output) and all(i == row for i, row in enumerate(rows)):
            return output
        return output.index_select(0, torch.tensor(rows, device=output.device))

    def _rows_of(self, name: str, asked: Mapping[Arguments, int]) -> Tensor:
        output = call(self._model, name, asked)
        if not isinstance(output, Tensor):
            try:
                output = torch.stack([torch.as_tensor(row) for row in output])
            except (TypeError, ValueError, RuntimeError) as error:
                raise ShapeError(
                    f"network {name} gives {type(output).__name__}, {error}: it must give a tensor "
                    "of probabilities"
                ) from error
        if len(output) != len(asked):
            raise ShapeError(
                f"network {name} gives {len(output)} rows for {len(asked)} inputs: with "
                "batching=True it is given all inputs of a batch and has a row for each"
            )
        return output


def call(model: Model, name: str, asked: Iterable[Arguments]) -> Any:
    """A network's outputs, one for each argument list.

    Raises:
        ConceptError: the network does not take what the program gives it.
    """
    network = model.networks[name]
    arguments = [list(each) for each in asked]
    try:
        return network(arguments)
    except ByssusError:
        raise
    except Exception as error:
        if network.batching and "equal size" in str(error):
            # Inputs of different sizes, which DeepProbLog would not have met in one call.
            return [network([each])[0] for each in arguments]
        atoms = [part for each in arguments for part in each if _is_atom(part)]
        if not atoms:
            raise
        raise ConceptError(
            f"network {name} is called on {atoms[0]}, and raises {type(error).__name__}: {error}; "
            f"if {atoms[0]} stands for a tensor, the query's substitution must say for which"
        ) from error


def tensor_source(term: Any) -> tuple[str, Arguments] | None:
    """The network and its arguments if the term is `tensor(nn(network, arguments))`."""
    if not isinstance(term, Term) or term.functor != "tensor" or len(term.args) != 1:
        return None
    inner = term.args[0]
    if not isinstance(inner, Term) or inner.functor != "nn" or len(inner.args) != 2:
        return None
    return str(inner.args[0]), tuple(term2list(inner.args[1], False))


def _find_tensors(arguments: Arguments, levels: list[dict[str, dict[Arguments, Term]]]) -> int:
    """Note the networks' outputs among the arguments, below those that need them."""
    depth = 0
    for argument in arguments:
        source = tensor_source(argument)
        if source is None:
            continue
        level = _find_tensors(source[1], levels)
        if level == len(levels):
            levels.append({})
        levels[level].setdefault(source[0], {})[source[1]] = argument.args[0]
        depth = max(depth, level + 1)
    return depth


def _is_atom(term: Any) -> bool:
    return isinstance(term, Term) and not isinstance(term, Constant) and not term.args
