"""Random models: answers, losses and gradients as under DeepProbLog's own engine."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepproblog_oracle import Classifier, pair, query, same_answers, same_step

HEAD = """
nn(net, [X], Y, [0, 1, 2]) :: digit(X, Y).
nn(rain, [X]) :: rain(X).
0.3 :: coin(1). 0.6 :: coin(2).
t(0.2) :: noisy(X).
t(0.3) :: kind(0); t(0.1) :: kind(1); 0.4 :: kind(2).
"""

LITERALS = ["rain(X)", "rain(Y)", "coin(1)", "coin(2)", "noisy(1)", "noisy(2)"]
LITERALS += [f"digit({x}, {v})" for x in "XY" for v in range(3)] + [f"kind({v})" for v in range(3)]
OF_THE_ANSWER = [
    f"{sign}{goal}" for sign in ("", "\\+ ") for goal in ("coin(Z)", "noisy(Z)", "Z > 1")
]
BINDING = ["digit(X, Z)", "digit(Y, Z)", "kind(Z)", "digit(X, A), digit(Y, B), Z is A + B"]

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")


@st.composite
def programs(draw: st.DrawFn) -> str:
    """Rules for p(X, Y, Z), and for q(X, Y, Z) on top of it."""
    lines = [HEAD]
    for name in "pq":
        for _ in range(draw(st.integers(1, 3))):
            some = draw(st.lists(st.sampled_from(LITERALS), max_size=3))
            if name == "q":
                some += draw(st.lists(st.just("p(X, Y, 1)"), max_size=1))
            body = [f"\\+ {literal}" if draw(st.booleans()) else literal for literal in some]
            binding = draw(st.sampled_from([*BINDING, *(["p(X, Y, Z)"] if name == "q" else [])]))
            body.insert(draw(st.integers(0, len(body))) if name == "p" else 0, binding)
            body += draw(st.lists(st.sampled_from(OF_THE_ANSWER), max_size=1))
            lines.append(f"{name}(X, Y, Z) :- {', '.join(body)}.")
    return "\n".join(lines)


@settings(max_examples=8)
@given(
    programs(),
    st.booleans(),
    st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from("pq"),
            *(st.integers(0, 3), st.integers(0, 3), st.integers(0, 4)),
            st.sampled_from([1.0, 1.0, 0.0, 0.3]),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_random_models(
    program: str,
    cache: bool,
    negatives: bool,
    asked: list[tuple[str, int, int, int, float]],
) -> None:
    torch.manual_seed(0)
    models = pair(program, {"net": Classifier(3), "rain": Classifier(1)}, cache=cache)
    queries = [query(f"{name}(i0, i1, {z})", x, y, p=p) for name, x, y, z, p in asked]
    same_answers(models, queries)
    same_answers(models, [q.variable_output() for q in queries])
    same_step(models, queries)
    if negatives:
        same_step(models, queries, negatives=True)
    if all(float(p) > 1e-3 for r in models.theirs.solve(queries) for p in r.result.values()):
        same_step(models, queries, loss="mse")
