"""Engine: in the place of DeepProbLog's `ExactEngine`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from deepproblog.engines import ExactEngine
from deepproblog.model import Model
from problog.logic import Term
from problog.program import LogicProgram

from byssus import BlackBox, ByssusError
from byssus.errors import listed
from byssus_problog import Program
from byssus_problog._rules import named
from byssus_problog._source import Source

from ._rules import Rules
from ._structure import TemplateProgram
from .solver import BatchSolver

__all__ = ["Engine"]

_OPTIONS = set(inspect.signature(Program).parameters) - {
    *("program", "blackboxes", "query", "provenance", "instances")
}


class Engine(ExactEngine):  # type: ignore[misc]
    """DeepProbLog's exact engine, for a batch at once; and byssus's other provenances.

    `model.set_engine(Engine(model), cache=True)` is the one line that changes in a project that
    uses `ExactEngine`. What a batch's queries share is grounded and compiled once, each network is
    called once on the distinct inputs of the batch, and losses are passed back together. Predicates
    that compute while they are grounded (`rbf`, `embed` and DeepProbLog's other tensor predicates,
    plain functions that are registered, networks with `k=`) are left to DeepProbLog, query by
    query.

    Args:
        model: the model.
        provenance: "exact", "sampled", "mixed", "auto" or "nesydm"; see `byssus_problog.Program`.
            Under "nesydm" the cross-entropy of a query in training is NeSyDM's loss, and in
            evaluation its probability is how often sampled worlds give it. A network whose
            module's `forward` has a parameter `c_t` is an unmasking model: it is given its inputs
            on all instances of each query, `(queries, instances, ...)`, and what is unmasked of
            them, `c_t` `(queries, instances)`, where the number of values stands for a mask; it
            gives probabilities `(queries, instances, values)`.
        blackboxes: black boxes that the rules call; or a mapping from other names to them.
        options: `samples`, `estimator`, `nodes`, `seconds`, `diffusion` and the other arguments
            of `byssus_problog.Program`.

    Raises:
        ByssusError: an option that there is not.

    Example:
        >>> model = Model("addition.pl", [network])
        >>> model.set_engine(Engine(model), cache=True)
    """

    rules: Rules

    def __init__(
        self,
        model: Model,
        provenance: str = "exact",
        blackboxes: Iterable[BlackBox] | Mapping[str, BlackBox] = (),
        **options: Any,
    ) -> None:
        unknown = sorted(options.keys() - _OPTIONS)
        if unknown:
            known = listed(sorted(_OPTIONS), len(_OPTIONS))
            raise ByssusError(f"Engine has no argument {listed(unknown)}; there are {known}")
        super().__init__(model)
        self.provenance = provenance
        self._boxes = named(blackboxes)
        self._options = options

    def prepare(self, db: LogicProgram) -> LogicProgram:
        """Translate the model's program; called by `model.set_engine`."""
        self.rules = Rules.read(db, self.model.networks)
        with Source("").errors({}):
            try:
                return super().prepare(self.rules.stock)
            except Exception:
                # Where ours finds fault with the program too, it says more of it.
                Program(self.rules.program, self._boxes, query=Term("true"))
                raise

    def register_foreign(
        self, func: Callable[..., Any], function_name: str, arity_in: int, arity_out: int
    ) -> None:
        """Make a Python function known to the rules; see `deepproblog.model.Model`.

        It is called while queries are grounded, so queries that use it are left to DeepProbLog.
        A `byssus.blackbox` is called on a whole batch.
        """
        if self._admits(func, function_name, arity_in + arity_out):
            super().register_foreign(func, function_name, arity_in, arity_out)

    def register_foreign_nondet(
        self, func: Callable[..., Any], function_name: str, arity_in: int, arity_out: int
    ) -> None:
        """The same for a function with several answers."""
        if self._admits(func, function_name, arity_in + arity_out):
            super().register_foreign_nondet(func, function_name, arity_in, arity_out)

    def _admits(self, function: Callable[..., Any], name: str, arity: int) -> bool:
        """Note a predicate; say whether DeepProbLog is to know it.

        Not a black box, nor its own predicate where the program has one of this name.
        """
        # Model.set_engine makes a solver of DeepProbLog's and then registers its predicates.
        if not isinstance(self.model.solver, BatchSolver):
            self.model.solver = BatchSolver(self.model.solver, self)
        if isinstance(function, BlackBox):
            self._boxes[name] = function
            self.model.solver.forget()
            return False
        signature = f"{name}/{arity}"
        if (
            signature in self.rules.defined
            and function.__module__ == "deepproblog.engines.builtins"
        ):
            return False
        self.rules.eager.add(signature)
        self.model.solver.forget()
        return True

    @property
    def blackboxes(self) -> Mapping[str, BlackBox]:
        """The black boxes that the rules may call; those that they declare, once one was asked."""
        return dict(self._boxes)

    def keep(self, folder: Path) -> None:
        """Keep circuits in a folder, unless another store is given."""
        self._options.setdefault("store", folder)

    def program(self, template: Term, names: Iterable[Term]) -> Program:
        """The program for queries like this one.

        Args:
            template: the query.
            names: what stands in it for other terms.

        Raises:
            NameSeen: a black box is called on one of them.
        """
        program = TemplateProgram(
            self.rules.program,
            self._boxes,
            names=names,
            query=template,
            provenance=self.provenance,
            **self._options,
        )
        self._boxes.update(program.blackboxes)  # declared ones are shared, with what they know
        return program

    def get_hyperparameters(self) -> dict[str, Any]:
        """What `model.get_hyperparameters()` says of it; all of it goes into JSON."""
        options = {name: _plain(value) for name, value in sorted(self._options.items())}
        return {"type": "byssus", "provenance": self.provenance, **options}


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else str(value)
