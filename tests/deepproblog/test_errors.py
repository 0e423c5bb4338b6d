"""What can be wrong with a project, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from deepproblog.query import Query
from deepproblog.semiring import Result
from deepproblog.semiring.graph_semiring import GraphSemiring
from problog.logic import Constant, Term
from torch import Tensor, nn

from byssus import ByssusError, ConceptError, ProbabilityError, ProgramError, ShapeError
from deepproblog_oracle import Classifier, Engine, Model, ours, query

SMALL = "nn(net, [X], Y, [0,1,2]) :: digit(X, Y).\n"


class Constantly(nn.Module):
    """Answers with the same row for all inputs."""

    def __init__(self, *row: float) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.tensor(row))

    def forward(self, x: Tensor) -> Tensor:
        return self.row.expand(len(x), -1)


def solve(model: Model, *texts: str) -> None:
    model.solve([query(text, 0, 1) for text in texts])


def test_unknown_network() -> None:
    with pytest.raises(ConceptError, match="declares the network 'net', and the model has 'other'"):
        ours(SMALL, {"other": Classifier(3)})


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ((0.2, float("nan"), 0.8), ProbabilityError, "not finite"),
        ((0.2, 0.3, 0.8), ProbabilityError, r"sum to 1\.3"),
        ((-1.0, 1.0, 1.0), ProbabilityError, "not logits"),
        ((0.5, 0.5), ShapeError, r"gives \(2,\) numbers.* the values \[0, 1, 2\]"),
    ],
)
def test_no_distribution(row: tuple[float, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        solve(ours(SMALL, {"net": Constantly(*row)}), "digit(i0, 1)")


def test_one_row_for_all_inputs() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(0, keepdim=True).softmax(-1)[:, :3]

    with pytest.raises(ShapeError, match="1 rows for 2 inputs"):
        solve(ours(SMALL, {"net": Mean()}), "digit(i0, 1)", "digit(i1, 1)")


def test_substitution_lacks_a_name() -> None:
    model = ours(SMALL, {"net": Classifier(3)})
    with pytest.raises(ConceptError, match=r"is called on i2.*substitution must say for which"):
        solve(model, "digit(i2, 1)")


def test_unknown_tensor_source() -> None:
    model = ours(SMALL, {"net": Classifier(3)})
    image = Term("tensor", Term("train", Constant(0)))
    with pytest.raises(ConceptError, match=r"no tensor\(train\(0\)\).* sources are 'images'"):
        model.solve([Query(Term("digit", image, Constant(1)))])


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("q(X) :- digt(X, 1).", "No clauses found for 'digt/2'"),
        ("q(X) :- digit(Z, 1).", "not bound|no value"),
        ("1.5 :: q(X) :- digit(X, 1).", "between 0 and 1"),
        ("q(X) :- \\+ q(X).", "negation"),
        ("t(0.2) :: q(X); t(0.3) :: r(X) :- digit(X, 1).", "disjunction that has a body"),
        ("between(X, Y, Z) :- digit(X, 1).", "between/3"),
        ("nn(net, [X], Y, [0, 1, 2], extra) :: q(X).", "is declared as nn"),
        ("nn(net, [X], Y, abc) :: q(X, Y).", "the values of an nn declaration are a list"),
    ],
)
def test_faults_of_the_program(program: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        solve(ours(SMALL + program, {"net": Classifier(3)}), "q(i0)")


def test_another_semiring() -> None:
    """One with other losses is kept; one that does not add and multiply is refused."""
    model = ours(SMALL, {"net": Classifier(3)})

    class Loss(GraphSemiring):  # type: ignore[misc]
        @staticmethod
        def brier(result: Result, target: float, weight: float, q: Term | None = None) -> float:
            return float(sum((p - target) ** 2 for p in result.result.values())) * weight

    model.set_engine(Engine(model), semiring=Loss)
    assert model.solver.semiring is Loss

    class Max(GraphSemiring):  # type: ignore[misc]
        def plus(self, a: Any, b: Any) -> Any:
            return max(a, b)

    with pytest.raises(ByssusError, match="semiring=Max has its own plus"):
        model.set_engine(Engine(model), semiring=Max)


def test_evidence_is_not_dropped_silently() -> None:
    with pytest.warns(RuntimeWarning, match="without the program's evidence"):
        ours(SMALL + "evidence(digit(a, 1)).", {"net": Classifier(3)})


def test_a_failed_step_leaves_the_model_as_it_was() -> None:
    model = ours(SMALL, {"net": Classifier(3)})
    with pytest.raises(ConceptError):
        solve(model, "digit(i0, 1)", "digit(i2, 1)")
    solve(model, "digit(i0, 1)")


def test_a_learned_probability_above_one() -> None:
    model = ours("t(0.2) :: a.")
    model.parameters[0] = 1.5
    with pytest.raises(ProbabilityError, match=r"parameters\[0\] is 1\.5"):
        solve(model, "a")


def test_a_library_of_another_prolog() -> None:
    with pytest.raises(ProgramError, match=r"no library\(clpfd\): the libraries are"):
        ours(":- use_module(library(clpfd)). q(1).")


@pytest.mark.parametrize("output", [None, {"a": 1}, "text"])
def test_no_tensor(output: Any) -> None:
    class Other(nn.Module):
        def forward(self, _: Tensor) -> Any:
            return output

    with pytest.raises(ShapeError, match=r"net gives \w+, .*: it must give a tensor"):
        solve(ours(SMALL, {"net": Other()}), "digit(i0, 1)")


def test_errors_of_deepproblog_s_own_grounding() -> None:
    model = ours("q(X) :- rbf(X, X, _), nope(X).")
    with pytest.raises(ProgramError, match="nope/1"):
        solve(model, "q(i0)")


def test_a_network_in_a_consulted_file(tmp_path: Path) -> None:
    """DeepProbLog translates the declarations of the model's own program alone."""
    file = tmp_path / "digits.pl"
    file.write_text(SMALL)
    model = ours(f":- consult('{file}').\nq(X) :- digit(X, 1).", {"net": Classifier(3)})
    with pytest.raises(ConceptError, match="net is declared in a file that the program consults"):
        solve(model, "q(i0)")
