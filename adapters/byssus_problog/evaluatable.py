"""An evaluatable of ProbLog's that is byssus's circuit: `problog.get_evaluatable("byssus")`.

It reads ProbLog's formula, cycles included, compiles it, and evaluates it for all queries of a
batch at once: with numbers as ProbLog's own evaluatables do, or with tensors, by the semirings of
`byssus_problog.semiring`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import problog
import torch
from jaxtyping import Float, Int
from problog.constraint import ConstraintAD
from problog.core import transform
from problog.errors import InconsistentEvidenceError, ProbLogError
from problog.evaluator import Evaluatable, SemiringLogProbability, SemiringProbability
from problog.formula import LogicFormula
from problog.logic import Term
from problog.tasks import problog_tasks
from torch import Tensor

from byssus import ByssusError, Circuit, ConceptError, Concepts, Formula, ProbabilityError
from byssus.errors import listed
from byssus.formula import Key, Node
from byssus.provenance.sampled import circuit_membership

from ._reading import Choice, read
from .semirings import ConceptSemiring, Literal
from .semirings import semiring as make_semiring

__all__ = ["CircuitFormula", "EvidenceError"]


class EvidenceError(ProbabilityError, InconsistentEvidenceError):  # type: ignore[misc]
    """Evidence of probability 0; also one of ProbLog's errors."""

    def __init__(self, message: str) -> None:
        ProbLogError.__init__(self, message)

    __str__ = Exception.__str__


@dataclass(frozen=True)
class _Compiled:
    """A circuit, and what its literals are.

    Attributes:
        circuit: its outputs are the queries, then what is observed.
        choices: its concepts.
    """

    circuit: Circuit
    choices: tuple[Choice, ...]


class CircuitFormula(Evaluatable):  # type: ignore[misc]
    """A formula of ProbLog's as a circuit; made by `get_evaluatable("byssus").create_from(...)`.

    Args:
        nodes: the most SDD nodes that compilation may hold.
        seconds: the most seconds that it may take; ProbLog's `compile_timeout` is taken for it.
        options: of ProbLog's other transformations.
    """

    def __init__(
        self,
        nodes: int | None = 5_000_000,
        seconds: float | None = None,
        compile_timeout: float | None = None,
        **options: Any,
    ) -> None:
        self.formula = LogicFormula()
        self._limits: dict[str, Any] = {
            "nodes": nodes,
            "seconds": seconds or compile_timeout or 60.0,
        }
        self._compiled: dict[tuple[tuple[Key, ...], tuple[Key, ...]], _Compiled] = {}

    def evidence_all(self) -> Any:
        """The formula's evidence, as ProbLog gives it."""
        return self.formula.evidence_all()

    def evaluate(
        self,
        index: Key = None,
        semiring: Any = None,
        evidence: Mapping[Term, bool | None] | None = None,
        weights: Mapping[Any, Any] | None = None,
        *,
        keep_evidence: bool = False,
        **options: Any,
    ) -> Any:
        """The probabilities of the queries, or of one node, given the evidence.

        Args:
            index: a node; all queries without it.
            semiring: of `byssus_problog.semiring`, for tensors; without it, or with ProbLog's
                probabilities, plain numbers.
            evidence: by term, in place of the program's; None takes that of a term away.
            weights: by term or node, in place of the program's labels.
            keep_evidence: keep the program's evidence where `evidence` does not speak of it.
            options: of ProbLog's other evaluatables.

        Returns:
            By query, or of the node: a float, or a tensor `(batch,)`.

        Raises:
            EvidenceError: the evidence has probability 0; a `ProbabilityError` also where it
                has in an example.
            ProbabilityError: a label that is no probability.
            CompilationLimit: the formula does not compile within `nodes` and `seconds`.
        """
        plain = semiring is None or isinstance(
            semiring, SemiringProbability | SemiringLogProbability
        )
        if not plain and not isinstance(semiring, ConceptSemiring):
            raise ByssusError(
                f"the evaluatable byssus knows probabilities and the semirings that "
                f"byssus_problog.semiring makes, not {type(semiring).__name__}"
            )
        names = [name for name, _, _ in self.formula.labeled()]
        keys = [index] if index is not None else [key for _, key, _ in self.formula.labeled()]
        compiled = self._compile(tuple(keys), tuple(self._observed(evidence, keep_evidence)))
        labels = self._labels(weights or {})
        if plain:
            found = _Weights(compiled.choices, labels, make_semiring(), torch.float64)
        else:
            found = _Weights(compiled.choices, labels, semiring)
        results = self._evaluate(compiled, found, len(keys))
        if plain:
            numbers = [row.item() for row in results]
            return numbers[0] if index is not None else dict(zip(names, numbers, strict=True))
        return results[0] if index is not None else dict(zip(names, results, strict=True))

    def _observed(self, evidence: Mapping[Term, bool | None] | None, keep: bool) -> list[Key]:
        """The nodes that are observed to be true."""
        found: list[Key] = []
        names = {name for name, _, _ in self.formula.evidence_all()}
        unknown = [name for name in evidence or () if name not in names]
        if unknown:
            raise ConceptError(
                f"no evidence on {listed(map(str, unknown))}: the program has evidence on "
                f"{listed(map(str, names))}; ground it with the others as evidence too"
            )
        for name, key, value in self.formula.evidence_all():
            given = value > 0 if value else None
            if evidence is not None:
                given = evidence.get(name, given if keep else None)
            elif (key == 0 and value < 0) or (key is None and value > 0):
                truth = "true" if value > 0 else "false"
                raise EvidenceError(
                    f"the evidence {name} is {truth}, and the program says that it is not"
                )
            if given is not None:
                found.append(key if given else self.formula.negate(key))
        return found

    def _labels(self, weights: Mapping[Any, Any]) -> dict[int, Any]:
        """The labels of atoms, and of negated atoms with a minus before their number."""
        found = dict(self.formula.get_weights())
        for name, weight in weights.items():
            try:
                key = name if isinstance(name, int) else self.formula.get_node_by_name(name)
            except KeyError:
                named = listed(str(known) for known, _ in self.formula.get_names())
                raise ConceptError(
                    f"weights= names {name}, and the ground program has {named}: take it away, or "
                    "ask for what needs it"
                ) from None
            if key:
                found.pop(abs(key), None)
                found[key] = weight
        return found

    def _compile(self, keys: tuple[Key, ...], observed: tuple[Key, ...]) -> _Compiled:
        if (keys, observed) not in self._compiled:
            clauses = [
                tuple(clause)
                for constraint in self.formula.constraints()
                if not isinstance(constraint, ConstraintAD)
                for clause in constraint.as_clauses()
            ]
            needed = [*keys, *observed, *(key for clause in clauses for key in clause)]
            nodes, choices = read(self.formula, needed)
            number = max(nodes, default=0) + max((max(c.atoms) for c in choices), default=0)
            for c, choice in enumerate(choices):
                for position, atom in enumerate(choice.atoms):
                    nodes[atom] = ("literal", (c, position))
            extra = _Extra(nodes, number)
            together: list[Key] = [*observed, *(extra.add("or", clause) for clause in clauses)]
            roots: list[Key] = list(keys)
            if together:
                both = extra.add("and", together)
                roots = [*(extra.add("and", (key, both)) for key in keys), both]
            # Of every choice, the last value is that none of the atoms holds.
            widths = [len(choice.atoms) + 1 for choice in choices]
            formula = Formula.from_graph(widths, nodes, roots)
            circuit = Circuit.compile(formula, **self._limits)
            self._compiled[keys, observed] = _Compiled(circuit, tuple(choices))
        return self._compiled[keys, observed]

    def _evaluate(
        self, compiled: _Compiled, weights: _Weights, queries: int
    ) -> list[Float[Tensor, " batch"]]:
        circuit = compiled.circuit.to(weights.probs.device)
        if weights.indices is None:
            columns = circuit(weights.probs)
        else:
            concepts = Concepts(weights.probs, circuit.widths)
            membership = circuit_membership(circuit, concepts, weights.indices)
            columns = weights.semiring.scores(
                concepts, weights.indices, membership, circuit.outputs
            )
        if circuit.outputs > queries:
            observed = columns[:, queries:]
            impossible = (observed <= 0).flatten()
            if bool(impossible.any()):
                row = int(impossible.nonzero()[0])
                sampled = "" if weights.indices is None else ", or no sampled world agrees with it"
                raise EvidenceError(
                    f"the evidence has probability 0 in example {row}: it contradicts the program"
                    f"{sampled}"
                )
            columns = columns / observed
        return list(columns[:, :queries].unbind(1))


class _Extra:
    """Nodes beside those of a formula."""

    def __init__(self, nodes: dict[int, Node], last: int) -> None:
        self._nodes, self._last = nodes, last

    def add(self, kind: str, keys: Sequence[Key]) -> int:
        self._last += 1
        self._nodes[self._last] = (kind, tuple(keys))
        return self._last


class _Weights:
    """The weights of a circuit's literals in each example, and which of its concepts are drawn.

    Args:
        choices: the circuit's concepts.
        labels: of atoms, and of negated ones with a minus before their number.
        semiring: says what labels weigh.
        dtype: of numbers where there are no tensors; torch's default without it.

    Attributes:
        probs: the weights.
        indices: the values of the sampled concepts, -1 for the others; None where none is sampled.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        labels: Mapping[int, Any],
        semiring: ConceptSemiring,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.semiring = semiring
        options = [[self._tag(labels, atom) for atom in choice.atoms] for choice in choices]
        like = semiring.like
        self._zeros = like.new_zeros(semiring.batch, 0, dtype=dtype or like.dtype)
        self._used: set[int] = set()
        columns, drawn = [], []
        for choice, tags in zip(choices, options, strict=True):
            literals = [tag for tag in tags if isinstance(tag, Literal)]
            one = len(literals) == len(tags) and len({tag.concept for tag in literals}) == 1
            weights, worlds = (
                self._concept(literals) if one else (self._independent(choice, tags), None)
            )
            columns.append(weights.expand(semiring.batch, -1))
            drawn.append(worlds)
        self.probs: Float[Tensor, "batch columns"] = torch.cat([*columns, self._zeros], 1)
        self.indices: Int[Tensor, "batch worlds concepts"] | None = None
        worlds = next((some for some in drawn if some is not None), None)
        if worlds is not None:
            none = torch.full_like(worlds, -1)
            self.indices = torch.stack([none if d is None else d for d in drawn], 2)

    def _tag(self, labels: Mapping[int, Any], atom: int) -> Any:
        """What an atom weighs, and its negation where that is no rest to 1."""
        label, negative = (labels[atom], False) if atom in labels else (labels[-atom], True)
        if label is True:
            return _NEUTRAL
        if label is None or label is False:
            return float((label is None) != negative)
        return self.semiring.neg_value(label) if negative else self.semiring.value(label)

    def _concept(self, literals: Sequence[Literal]) -> tuple[Tensor, Tensor | None]:
        """The weights of values of one concept, and of all others; and the values drawn."""
        concept = literals[0].concept
        probs = self.semiring.probabilities(concept)
        values = [literal.value for literal in literals]
        others = [v for v in range(probs.shape[1]) if v not in values]
        weights = torch.cat([probs[:, values], probs[:, others].sum(1, keepdim=True)], 1)
        worlds = self.semiring.drawn(concept, again=concept in self._used)
        self._used.add(concept)
        if worlds is not None:
            position = torch.full((probs.shape[1],), len(values), device=worlds.device)
            position[values] = torch.arange(len(values), device=worlds.device)
            worlds = position[worlds]
        if literals[0].negated:  # an atom by itself
            weights, worlds = weights.flip(1), None if worlds is None else 1 - worlds
        return weights, worlds

    def _independent(self, choice: Choice, tags: Sequence[Any]) -> Tensor:
        """The weights of options that each have their own, and of none of them."""
        if _NEUTRAL in tags:
            return self._zeros.new_ones(1, len(tags) + 1)
        columns = [
            self.semiring.exact(tag)
            if isinstance(tag, Literal)
            else self._zeros.new_full((self.semiring.batch,), tag)
            for tag in tags
        ]
        together = torch.stack(columns, 1)
        rest = 1 - together.sum(1, keepdim=True)
        tolerance = 1e-9 if rest.dtype == torch.float64 else 1e-4
        least = rest.detach().amin().item()
        if least < -tolerance:
            raise ProbabilityError(
                f"the probabilities of the disjunction of {choice.name} sum to {1 - least:g}, "
                "above 1"
            )
        # What is left by rounding is no world.
        return torch.cat([together, rest.masked_fill(rest < 1e-12, 0.0)], 1)


_NEUTRAL = object()


@transform(LogicFormula, CircuitFormula)  # type: ignore[untyped-decorator]
def _from_formula(
    source: LogicFormula, destination: CircuitFormula, **options: Any
) -> CircuitFormula:
    destination.formula = source
    return destination


problog._evaluatables.setdefault("byssus", CircuitFormula)
problog_tasks.setdefault("byssus", "byssus_problog.task")
