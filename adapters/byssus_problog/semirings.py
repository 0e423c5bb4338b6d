"""byssus's provenances as semirings of ProbLog's own: tensors in, one number an example out.

ProbLog's evaluatables add and multiply what a semiring makes of labels. Here that is a Python
float for a number, which is the same in all examples, and a tensor for anything that differs:
`(batch,)` under `exact`, `(batch, samples)` where concepts are sampled. There a sampled concept's
literals are 0 or 1 in each world and everything else keeps its probability, so that a tag is the
probability *given* the sampled values (collapsed sampling), and its mean is unbiased. Evidence is
a ratio of two means, not the mean of ratios.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

import torch
from jaxtyping import Float, Int
from problog.errors import ProbLogError
from problog.evaluator import Semiring
from problog.logic import AnnotatedDisjunction, Constant, Object, Term, Var
from problog.program import DefaultPrologFactory, LogicProgram, PrologString
from torch import Tensor

from byssus import (
    RLOO,
    ByssusError,
    ConceptError,
    Concepts,
    Distinct,
    Estimator,
    Marginals,
    ProbabilityError,
    ProgramError,
    ShapeError,
    Worlds,
    independent,
)
from byssus.errors import EmptyBatchError, listed
from byssus.estimators import Membership, Sample, as_estimator
from byssus.worlds import _first, check_sampling, number_worlds

from ._database import LABEL, Database, Network
from ._grounding import Concept
from ._inputs import Inputs
from ._source import Source
from ._terms import heads_of

__all__ = ["ConceptSemiring", "read", "semiring"]


_ANONYMOUS = "a tensor as a label"
"""The name of concepts whose tensors are labels themselves; they are never sampled."""


@dataclass(frozen=True)
class Literal:
    """A concept has a value, or has not: what it weighs is known once all concepts are.

    Attributes:
        concept: by number.
        value: by position.
        negated: whether it has not.
    """

    concept: int
    value: int
    negated: bool = False

    def __float__(self) -> float:
        raise ByssusError(
            "this evaluatable computes with plain numbers, whatever the semiring: use 'sdd', "
            "'ddnnf' or 'byssus' where there are tensors"
        )


class _Ratio(NamedTuple):
    """Two expectations, of which the quotient is asked."""

    numerator: Any
    denominator: Any


Tag: TypeAlias = "float | Tensor | Literal | _Ratio"


class ConceptSemiring(Semiring):  # type: ignore[misc]
    """A semiring whose labels may be tensors; made by `semiring`."""

    def __init__(
        self,
        concepts: Mapping[str, Any],
        sampled: Collection[str] | None,
        samples: int,
        estimator: Estimator,
        generator: torch.Generator | None,
        order: Mapping[str, tuple[Hashable, ...]],
    ) -> None:
        self._given = concepts
        self._all = sampled is None
        self._sampled = set(sampled or ())
        self.samples = samples
        self.estimator = estimator
        self.generator = generator
        self._order = order
        self._batch: tuple[int, str] = (1, "")
        self._networks: dict[str, Network] = {}
        self._concepts: list[Concept] = []
        self._numbers: dict[Hashable, int] = {}
        self._probs: list[Tensor] = []
        self._tensors: dict[int, Any] = {}
        self._drawn: dict[int, Tensor] = {}

    # Labels

    def value(self, a: Any) -> Tag:
        """What a label weighs."""
        if isinstance(a, Object):
            a = a.functor
        if isinstance(a, Tensor):
            number = self._concept(("tensor", id(a)), Concept(_ANONYMOUS, 2))
            self._tensors[number] = a
            return Literal(number, 1)
        if isinstance(a, Term) and a.functor == LABEL:
            return self._literal(a)
        if isinstance(a, Term) and not isinstance(a, Constant) and str(a) in self._given:
            number = self._concept(str(a), Concept(str(a), 2))
            self._tensors[number] = self._given[str(a)]
            return Literal(number, 1)
        try:
            probability = float(a)
        except (ProbLogError, TypeError, ValueError, AttributeError):
            raise ConceptError(
                f"the label {a} is no number, and the concepts are {listed(self._given)}: give its "
                f"probabilities, concepts={{{str(a)!r}: a tensor (batch,)}}"
            ) from None
        if not -1e-9 <= probability <= 1 + 1e-9:
            raise ProbabilityError(f"the label {a}: a probability lies between 0 and 1")
        return probability

    def _literal(self, label: Term) -> Literal:
        _, inputs, position, *declared = label.args
        if not declared:
            raise ConceptError(
                f"the label {label} does not say what its network is: read the program with "
                "byssus_problog.read"
            )
        network: Network = declared[0].functor
        known = self._networks.setdefault(network.name, network)
        if known != network:
            raise ConceptError(
                f"the network {network.name} has the values {listed(known.values)} in one program "
                f"and {listed(network.values)} in another: use a semiring for each"
            )
        concept = Concept.predicted(network, inputs)
        key = concept.name, *map(str, declared[1:])
        return Literal(self._concept(key, concept), int(position))

    def _concept(self, key: Hashable, concept: Concept) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self._concepts)
            self._concepts.append(concept)
        return self._numbers[key]

    def _checked(self, tensor: Any, what: str) -> Float[Tensor, " batch"]:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.dim() > 1:
            kind = (
                f"{tensor.dtype} of shape {tuple(tensor.shape)}"
                if isinstance(tensor, Tensor)
                else type(tensor).__name__
            )
            raise ShapeError(f"{what} is to be a tensor of probabilities (batch,), not {kind}")
        probs = tensor.reshape(1) if tensor.dim() == 0 else tensor
        if not len(probs):
            raise EmptyBatchError(f"{what} is empty: a batch has at least one example")
        self._join(len(probs), what)
        with torch.no_grad():
            wrong = ~((probs >= -1e-6) & (probs <= 1 + 1e-6))
            if bool(wrong.any()):
                row = int(wrong.nonzero()[0])
                raise ProbabilityError(
                    f"{what} is {probs[row].item():g} in example {row}: a probability lies "
                    "between 0 and 1"
                )
        return probs

    def _join(self, batch: int, what: str) -> None:
        """All batches have one size, or 1."""
        size, other = self._batch
        if batch == 1 or batch == size:
            return
        if size > 1:
            raise ShapeError(
                f"batches of different sizes: {other} has {size} examples and {what} {batch}; "
                "each must be the same, or 1"
            )
        self._batch = batch, what

    # Concepts

    def settle(self) -> None:
        """Find what the concepts weigh, and draw those that are sampled.

        Which instances a network has is known when all labels of a program have been seen.
        """
        if len(self._probs) == len(self._concepts):
            return
        new = range(len(self._probs), len(self._concepts))
        predicted = [c for c in self._concepts if c.network is not None]
        order = {name: given for name, given in self._order.items() if name in self._networks}
        inputs = Inputs(self._networks, predicted, order)
        known = {name: self._given[name] for name in inputs.instances if name in self._given}
        weights = inputs.weights(known, {})
        self._join(len(weights), "the concepts' probabilities")
        rows = (
            iter(torch.split(weights, [c.width for c in predicted], 1)) if predicted else iter(())
        )
        probs = []
        for i, concept in enumerate(self._concepts):
            if concept.network is not None:
                probs.append(next(rows))
            else:
                given = self._checked(self._tensors[i], concept.name)
                probs.append(torch.stack([1 - given, given], 1))
        self._probs = [p.expand(self._batch[0], -1) for p in probs]
        names = {name for c in self._concepts for name in (c.name, c.network)}
        unknown = sorted(self._sampled - names)
        if unknown:
            raise ConceptError(
                f"sampled={unknown}: the program's concepts are "
                f"{listed(c.name for c in self._concepts)}"
            )
        draw = [i for i in new if self._is_sampled(self._concepts[i])]
        if draw:
            worlds = independent(self._of(draw), self.samples, self.generator)
            self._drawn.update(zip(draw, worlds.indices.unbind(2), strict=True))

    def _is_sampled(self, concept: Concept) -> bool:
        if concept.name == _ANONYMOUS:
            return False
        return self._all or concept.name in self._sampled or concept.network in self._sampled

    def _of(self, concepts: Sequence[int]) -> Concepts:
        probs = torch.cat([self._probs[i] for i in concepts], 1)
        return Concepts(probs, tuple(self._concepts[i].width for i in concepts))

    def probabilities(self, concept: int) -> Float[Tensor, "batch values"]:
        """Of a concept by number."""
        self.settle()
        return self._probs[concept]

    def drawn(self, concept: int, *, again: bool = False) -> Int[Tensor, "batch samples"] | None:
        """The values of a sampled concept, or None; or as many others."""
        self.settle()
        if again and concept in self._drawn:
            return independent(self._of([concept]), self.samples, self.generator).indices[:, :, 0]
        return self._drawn.get(concept)

    def exact(self, literal: Literal) -> Float[Tensor, " batch"]:
        """What a literal weighs where it is not sampled."""
        probs = self.probabilities(literal.concept)
        chosen = probs[:, literal.value]
        # The other values, not the rest to 1: so the gradient is that of the program.
        return probs.sum(1) - chosen if literal.negated else chosen

    @property
    def batch(self) -> int:
        """The number of examples."""
        self.settle()
        if self._batch[0] > 1:
            return self._batch[0]
        # No label needed a tensor: what was given says how many examples there are.
        tensors = (t for t in self._given.values() if isinstance(t, Tensor) and t.dim())
        sizes = set(map(len, tensors)) - {1}
        return sizes.pop() if len(sizes) == 1 else 1

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device of the concepts'."""
        self.settle()
        return self._probs[0].detach() if self._probs else torch.empty(0)

    @property
    def samples_worlds(self) -> bool:
        """Whether any concept may be sampled."""
        return self.samples > 0

    # Arithmetic

    def tensor(self, a: Tag) -> float | Tensor:
        """A tag as what can be added and multiplied."""
        if isinstance(a, Literal):
            self.settle()
            drawn = self._drawn.get(a.concept)
            if drawn is not None:
                return ((drawn == a.value) != a.negated).to(self.like.dtype)
            a = self._wide(self.exact(a))
        elif isinstance(a, Tensor) and a.dim() == 1:
            a = self._wide(a)
        assert not isinstance(a, _Ratio)
        return a

    def _wide(self, a: Tensor) -> Tensor:
        return a[:, None] if self.samples_worlds else a

    def one(self) -> float:
        """True."""
        return 1.0

    def zero(self) -> float:
        """False."""
        return 0.0

    def is_one(self, value: Tag) -> bool:
        """Whether it is the number 1, in all examples."""
        return isinstance(value, float) and abs(value - 1) < 1e-12

    def is_zero(self, value: Tag) -> bool:
        """Whether it is the number 0, in all examples."""
        return isinstance(value, float) and abs(value) < 1e-12

    def plus(self, a: Tag, b: Tag) -> Tag:
        """The sum."""
        if self.is_zero(a):
            return b
        if self.is_zero(b):
            return a
        return self.tensor(a) + self.tensor(b)

    def times(self, a: Tag, b: Tag) -> Tag:
        """The product."""
        if self.is_one(a) or self.is_zero(b):
            return b
        if self.is_one(b) or self.is_zero(a):
            return a
        return self.tensor(a) * self.tensor(b)

    def negate(self, a: Tag) -> Tag:
        """What is left to 1."""
        if isinstance(a, Literal):
            return Literal(a.concept, a.value, not a.negated)
        return 1.0 - self.tensor(a)

    def neg_value(self, a: Any, key: Any = None) -> Tag:
        """What the negation of a label weighs."""
        return self.negate(self.value(a))

    def ad_complement(self, ws: Sequence[Tag], key: Any = None) -> Tag:
        """What is left to 1 by the options of a disjunction."""
        total: Tag = 0.0
        for weight in ws:
            total = self.plus(total, weight)
        self.settle()
        literals = [w for w in ws if isinstance(w, Literal)]
        concepts = {literal.concept for literal in literals}
        sampled = not concepts.isdisjoint(self._drawn)
        whole: float | Tensor = 1.0
        if len(literals) == len(ws) and len(concepts) == 1 and not sampled:
            whole = self._wide(self._probs[literals[0].concept].sum(1))
        rest = whole - self.tensor(total)
        least = rest if isinstance(rest, float) else rest.detach().amin().item()
        # Options that were drawn apart may hold together, which is right on the average.
        if least < (-1e-9 if isinstance(rest, float) else -1e-4) and not sampled:
            raise ProbabilityError(
                f"the probabilities of the disjunction {key} sum to {1 - least:g}, above 1"
            )
        return max(rest, 0.0) if isinstance(rest, float) else rest

    def to_evidence(self, pos_weight: Tag, neg_weight: Tag, sign: int) -> tuple[Tag, Tag]:
        """The weights of an atom that is observed, of which its own is kept.

        ProbLog's are 1 and 0; then a world in which a sampled concept contradicts the evidence
        would count.
        """
        return (pos_weight, 0.0) if sign > 0 else (0.0, neg_weight)

    def normalize(self, a: Tag, z: Tag) -> Tag:
        """Given the evidence, whose weight is `z`."""
        if self.is_one(z) or isinstance(a, _Ratio):
            return a
        a, z = self.tensor(a), self.tensor(z)
        if self.samples_worlds and not isinstance(z, float):
            return _Ratio(a, z)
        return self._divide(a, z)

    def _divide(self, a: float | Tensor, z: float | Tensor, why: str = "") -> float | Tensor:
        rows = torch.as_tensor(z).detach().flatten()
        if bool((rows <= 0).any()):
            row = int((rows <= 0).nonzero()[0])
            raise ProbabilityError(
                f"the evidence has probability 0 in example {row}: it contradicts the program{why}"
            )
        return a / z

    def result(self, a: Tag, formula: Any = None) -> Float[Tensor, " batch"]:
        """The probability, or its estimate, in each example."""
        if isinstance(a, _Ratio):
            why = ", or no sampled world agrees with it: raise `samples`, or use 'exact'"
            quotient = self._divide(self._score(a.numerator), self._score(a.denominator), why)
            return self._full(quotient)
        if isinstance(a, Tensor) and a.dim() == 1:
            return self._full(a)
        return self._full(self._score(self.tensor(a)) if self.samples_worlds else self.tensor(a))

    def _full(self, a: float | Tensor) -> Float[Tensor, " batch"]:
        if isinstance(a, float):
            return self.like.new_full((self.batch,), a)
        return a.expand(self.batch)

    def _score(self, tag: float | Tensor) -> float | Float[Tensor, " batch"]:
        """The estimate of a tag's mean over the worlds."""
        if isinstance(tag, float):
            return tag
        sampled = list(self._drawn)
        if not sampled:
            return tag[:, 0]
        indices = torch.stack([self._drawn[i] for i in sampled], 2)
        share = tag.expand(indices.shape[:2]).flatten()
        world = torch.arange(len(share), device=share.device)
        return self.scores(
            self._of(sampled), indices, Membership(world, torch.zeros_like(world), share), 1
        )[:, 0]

    def scores(
        self,
        concepts: Concepts,
        indices: Int[Tensor, "batch worlds concepts"],
        membership: Membership,
        outputs: int,
    ) -> Float[Tensor, "batch outputs"]:
        """The estimator's scores of worlds."""
        number, _ = number_worlds(indices, concepts.widths)
        worlds = Worlds(indices, _first(number))
        sample = Sample(concepts, worlds, membership, outputs, _refuse)
        scores: Tensor = self.estimator.scores(sample)
        return scores


def _refuse(indices: Tensor) -> NoReturn:
    raise ByssusError("a semiring's estimator sees the worlds that were drawn, and no others")


def semiring(
    provenance: str = "exact",
    concepts: Mapping[str, Any] | None = None,
    *,
    sampled: Sequence[str] | None = None,
    samples: int = 100,
    estimator: str | Estimator = "rloo",
    generator: torch.Generator | None = None,
    instances: Mapping[str, Sequence[Hashable]] | None = None,
) -> ConceptSemiring:
    """A semiring for `evaluate(semiring=...)` of ProbLog's evaluatables: sdd, ddnnf, byssus, ...

    Each query's result is a tensor `(batch,)`, differentiable to the tensors that were given. The
    label of a probabilistic fact may be a number; a tensor `(batch,)`, as `Object(tensor)` in the
    program or in `weights={term: Object(tensor)}`; a term that `concepts` names; or a network's,
    in a program that `read` has read. A batch of 1 is shared by all examples. Several evaluations
    with one semiring see the same worlds.

    Args:
        provenance: "exact"; "sampled", which draws the values of all `concepts`; or "mixed",
            which draws those that `sampled` names. The rest stays exact.
        concepts: for a network by its name, `(batch, instances, values)`, the instances in natural
            order, and all else that `Program` takes; for a label by its text, `(batch,)`.
        sampled: for "mixed": networks ("digit"), single concepts ("digit(left)") or labels.
        samples: worlds an example.
        estimator: "rloo" (frequencies, and unbiased gradients), "distinct" or "marginals".
        generator: makes sampling reproducible.
        instances: for each network its instances in the order of the tensor's second dimension.

    Raises:
        ByssusError: a setting that is out of range. What is wrong with labels and tensors is
            raised by the evaluation: `ConceptError`, `ShapeError` or `ProbabilityError`.

    Example:
        >>> program = read("p(1)::a. p(2)::b. c :- a. c :- b. query(c).")
        >>> formula = problog.get_evaluatable().create_from(program)
        >>> half = torch.tensor([0.5])
        >>> formula.evaluate(semiring=semiring("exact", {"p(1)": half, "p(2)": half}))
        {c: tensor([0.7500])}
    """
    if provenance not in ("exact", "sampled", "mixed"):
        raise ByssusError(f"provenance={provenance!r}: there are 'exact', 'sampled' and 'mixed'")
    if (provenance == "mixed") != (sampled is not None):
        raise ByssusError(
            "sampled= goes with provenance 'mixed': it names the concepts that are drawn"
        )
    check_sampling(samples, generator)
    chosen = as_estimator(estimator)
    if not isinstance(chosen, RLOO | Distinct | Marginals):
        raise ByssusError(
            f"estimator={estimator!r}: for queries that do not exclude one another there are "
            "'rloo', 'distinct' and 'marginals'"
        )
    if concepts is not None and not isinstance(concepts, Mapping):
        raise ConceptError(
            "give the probabilities by name, concepts={'digit': tensor}, not a "
            f"{type(concepts).__name__}"
        )
    names = [sampled] if isinstance(sampled, str) else sampled or ()

    return ConceptSemiring(
        dict(concepts or {}),
        None if provenance == "sampled" else names,
        0 if provenance == "exact" else samples,
        chosen,
        generator,
        {name: tuple(order) for name, order in (instances or {}).items()},
    )


# Programs with networks


def read(program: str | Path) -> LogicProgram:
    """A program for ProbLog's own engines, in which a network's declaration is a disjunction.

    `nn(digit, [X], D, [0, 1, 2]) :: digit(X, D)` becomes an annotated disjunction whose labels
    say what they are to a `semiring`; so in the files that it consults.

    Args:
        program: the path of a `.pl` file, or the text of a program.

    Raises:
        ProgramError: a fault in the program's text, with file, line and a caret.

    Example:
        >>> formula = problog.get_evaluatable().create_from(read("sum.pl"))
        >>> formula.evaluate(semiring=semiring("exact", {"digit": p}))
    """
    source = Source.read(program)
    rewriter = _Rewriter(builtins={})

    class Factory(DefaultPrologFactory):  # type: ignore[misc]
        def build_program(self, clauses: list[Term]) -> list[Term]:
            return [rewriter.labelled(clause) for clause in super().build_program(clauses)]

    root = "." if source.file is None else str(source.file.parent)
    files = [None] if source.file is None else [str(source.file.absolute())]
    result = PrologString(source.text, factory=Factory(), source_root=root, source_files=files)
    rewriter.of(source, result)
    with source.errors({}):
        list(result)
    return result


class _Rewriter(Database):
    """Rewrites the declarations of networks; it holds no clauses."""

    def of(self, source: Source, program: LogicProgram) -> None:
        """Say where the text is."""
        self._declaration = 0
        self._source = source
        self.source_files, self.line_info = program.source_files, program.line_info

    def labelled(self, statement: Term) -> Term:
        """The statement, its labels with the network and the number of the declaration."""
        labels = [getattr(head, "probability", None) for head in heads_of(statement)]
        if not any(getattr(label, "functor", None) == "nn" for label in labels):
            return statement
        self._declaration += 1
        result = self._rewrite(statement)
        assert isinstance(result, AnnotatedDisjunction)
        network = Object(self.networks[result.heads[0].probability.args[0].functor])
        names = sorted({str(v) for head in result.heads for v in head.variables()} - {"_"})
        # What tells its concepts apart: each instance of the clause has one of its own.
        about = network, Constant(self._declaration), Term("clause", *map(Var, names))
        heads = [
            head.with_probability(Term(LABEL, *head.probability.args, *about))
            for head in result.heads
        ]
        return AnnotatedDisjunction(heads, result.body, location=statement.location)

    def _error(self, statement: Term, message: str) -> ProgramError:
        try:
            return super()._error(statement, message)
        except IndexError:  # a file that the program consults
            return ProgramError(f"{message}: {statement}")
