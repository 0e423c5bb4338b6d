"""ProbLog programs as functions from worlds, and under `provenance="nesydm"`."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from byssus import (
    Boolean,
    ByssusError,
    ConceptError,
    Discrete,
    DomainError,
    Integer,
    ShapeError,
    TargetError,
    Tuple,
    blackbox,
)
from byssus.diffusion import MaskedDiffusion
from byssus_problog import Program
from world_programs import all_worlds, by_formula

SUM = """
    nn(digit, [X], D, [0,1,2]) :: digit(X, D).
    sum(Z) :- digit(a, X), digit(b, Y), Z is X + Y.
    query(sum(Z)).
"""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The function from worlds


def test_concepts_and_dimensions() -> None:
    """Networks by name; own facts after them; a query's answers together where they can be."""
    program = Program("""
        :- use_module(library(lists)).
        nn(digit, [X], D, [0,1,2]) :: digit(X, D).
        nn(rain, [X]) :: rain(X).
        t(0.4)::b.  0.2::c; 0.3::d.
        at(0, Z) :- digit(i2, Z), b.
        at(1, Z) :- digit(i10, X), digit(i2, Y), Z is X + Y.
        seen(X) :- member(X, [i2, i10]), digit(X, 2).
        query(at(0, Z)).
        query(at(1, Z)).
        query(rain(mon)).
        query(seen(X)).
        query(c).
        query(d).
    """)
    found = program.world_program()
    assert found.names == ("digit", "rain")
    assert found.domains == (Tuple(Discrete([0, 1, 2]), Discrete([0, 1, 2])), Boolean())
    truth = (False, True)
    dimensions = ((0, 1, 2), (0, 1, 2, 3, 4), truth, truth, truth, truth, truth)
    assert found.dimensions == dimensions
    assert found.own_widths == (2, 3)
    assert found.own is not None
    assert found.own().tolist() == pytest.approx([0.4, 0.6, 0.2, 0.3, 0.5])
    worlds = torch.tensor([[1, 2, 1, 0, 1], [2, 2, 0, 1, 2]])  # i2, i10, mon, b, c; d
    assert found.run(worlds).tolist() == [[1, 3, 1, 0, 1, 0, 1], [-1, 4, 0, 1, 1, 0, 0]]
    assert torch.equal(by_formula(found, all_worlds(found)), found.run(all_worlds(found)))


def test_formula_inside_a_recursion() -> None:
    program = Program("""
        nn(edge, [X, Y]) :: edge_(X, Y).
        edge(a, b) :- edge_(a, b).  edge(b, c) :- edge_(b, c).  edge(c, a) :- edge_(c, a).
        path(X, Y) :- edge(X, Y).
        path(X, Y) :- path(X, Z), edge(Z, Y).
        query(path(a, c)).
        query(path(c, c)).
        query(nowhere).
        nowhere :- edge(a, b), \\+ edge(a, b).
    """)
    found = program.world_program()
    worlds = all_worlds(found)
    ab, bc, ca = worlds.unbind(1)
    expected = torch.stack([ab & bc, ab & bc & ca, 0 * ab], 1)
    assert torch.equal(found.run(worlds), expected)
    assert torch.equal(by_formula(found, worlds), expected)


def test_a_black_box_that_is_tabulated() -> None:
    """Its failures are worlds without a value."""

    @blackbox(Integer(0, 2), Integer(0, 2), output=Integer(0, 2), on_error="discard")
    def minus(a: int, b: int) -> int:
        return [2, 1, 0][2 - (a - b)] if a >= b else 1 // 0

    text = SUM.replace("Z is X + Y", "minus(X, Y, Z)")
    found = Program(text + "query(sum(0)).", [minus], provenance="nesydm").world_program()
    assert found.dimensions == ((0, 1, 2),)
    worlds = all_worlds(found)
    a, b = worlds.unbind(1)
    expected = torch.where(a >= b, a - b, -1)[:, None]
    assert torch.equal(found.run(worlds), expected)
    assert torch.equal(by_formula(found, worlds), expected)
    assert minus.calls == 9


def digits_of(number: int) -> tuple[int, ...]:
    return tuple(map(int, f"{number:04d}"))


def make_add(calls: list[Any], budget: int | None = None) -> Any:
    output = Tuple(*[Integer(0, 9)] * 4)
    inputs = [Integer(0, 9)] * 6

    @blackbox(*inputs, output=output, budget=budget, on_error="discard")
    def add(*digits: int) -> tuple[int, ...]:
        calls.append(digits)
        if digits[0] == 9:
            raise ValueError
        a, b = (int("".join(map(str, part))) for part in (digits[:3], digits[3:]))
        return digits_of(a + b)

    return add


LEAF = """
    nn(digit, [X], D, [0,1,2,3,4,5,6,7,8,9]) :: digit(X, D).
    sum(Z) :- digit(1, A), digit(2, B), digit(3, C), digit(4, D), digit(5, E), digit(6, F),
              add(A, B, C, D, E, F, Z).
    query(sum(Z)).
"""


def test_a_leaf_call() -> None:
    """Each part of the black box's output is a dimension; only sampled worlds are called."""
    calls: list[Any] = []
    program = Program(
        LEAF,
        [make_add(calls)],
        provenance="nesydm",
        samples=50,
        generator=seeded(),
        diffusion={"samples": 50, "candidates": 50},
    )
    found = program.world_program()
    assert found.formula is None
    assert not found.tabulates
    assert found.dimensions == (tuple(range(10)),) * 4
    worlds = torch.tensor([[1, 2, 3, 4, 5, 6], [9, 9, 9, 0, 0, 1], [0, 9, 9, 9, 9, 9]])
    assert found.run(worlds).tolist() == [[0, 5, 7, 9], [-1] * 4, [1, 0, 9, 8]]
    assert len(calls) == 3
    logits = torch.zeros(1, 6, 10, requires_grad=True)
    y = program(digit=logits.softmax(-1))
    assert y.scores.shape == (1, len(y.values))
    y.loss([(0, 5, 7, 9)]).backward()
    assert bool((logits.grad != 0).any())
    y = program(digit=torch.tensor([[[1, 2, 3, 4, 5, 6]] * 3 + [[9] * 6]]))
    assert y[(0, 5, 7, 9)].tolist() == [0.75]
    assert y.lost.tolist() == [0.25]
    assert list(y.failures) == [("add", 9, 9, 9, 9, 9, 9)]


ASKED = """
    nn(digit, [X], D, [0,1,2]) :: digit(X, D).
    over(Z) :- digit(a, X), digit(b, Y), X > Y, minus(X, Y, Z).
"""


def make_minus(budget: int) -> Any:
    @blackbox(Integer(0, 2), Integer(0, 2), output=Integer(0, 2), budget=budget)
    def minus(a: int, b: int) -> int:
        return a - b

    return minus


def test_calls_beyond_the_budget() -> None:
    """They are made on the worlds that are run; the outputs have to be known all the same."""
    minus = make_minus(2)
    text = ASKED + "query(over(1)). query(over(2))."
    found = Program(text, [minus], provenance="nesydm").world_program()
    assert found.formula is None
    assert not found.tabulates
    worlds = torch.tensor([[2, 0], [1, 1], [1, 0]])
    assert found.run(worlds[:2]).tolist() == [[0, 1], [0, 0]]
    assert minus.calls == 1
    assert found.run(worlds).tolist() == [[0, 1], [0, 0], [1, 0]]
    program = Program(ASKED + "query(over(Z)).", [make_minus(2)], provenance="nesydm")
    y = program(digit=worlds[None])  # worlds alone need no outputs beforehand
    assert dict(zip(y.values, y.probs[0].tolist(), strict=True)) == pytest.approx(
        {1: 1 / 3, 2: 1 / 3}
    )
    with pytest.raises(ByssusError, match=r"needs to know all outputs beforehand: ask for each"):
        program(digit=torch.eye(3)[None, :2]).loss([1])


def test_answers_that_hardly_ever_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is too hard to tell, worlds are tried; one that gives two is an error later on."""
    monkeypatch.setattr("byssus_problog._rules._FEW_NODES", 1)
    text = """
        nn(bit, [X], D, [0,1]) :: bit(X, D).
        p(0) :- bit(a, 0).
        p(1) :- bit(a, 1).
        p(0) :- bit(b, 1), bit(c, 1), bit(d, 1), bit(e, 1).
        query(p(X)).
    """
    assert len(Program(text).world_program().dimensions) == 2
    monkeypatch.setattr("byssus_problog._worlds._TRIED", 1)
    found = Program(text).world_program()
    assert found.dimensions == ((0, 1),)
    assert found.run(torch.tensor([[1, 1, 1, 0, 1]])).tolist() == [[1]]
    with pytest.raises(ByssusError, match=r"a world gives several values of dimension 0 .*\[?0, 1"):
        found.run(torch.tensor([[1, 1, 1, 0, 1], [1, 1, 1, 1, 1]]))


# Worlds that are given


def test_given_worlds() -> None:
    """Each counts as often as it was drawn; the program's own facts are drawn for each."""
    text = SUM + "0.3::b. sum(9) :- b. query(b)."
    program = Program(text, provenance="nesydm", generator=seeded())
    worlds = torch.randint(3, (4, 5000, 2), generator=seeded(1))
    y = program(digit=worlds)
    sums = worlds.sum(-1)
    for z in range(5):
        torch.testing.assert_close(y[f"sum({z})"], (sums == z).float().mean(1))
    error = (0.3 * 0.7 / 5000) ** 0.5
    assert torch.allclose(y["b"], torch.tensor(0.3), atol=4 * error)
    assert torch.equal(y["b"], y["sum(9)"])
    assert not y.probs.requires_grad
    assert torch.equal(program(digit=worlds.int())["sum(3)"], y["sum(3)"])
    again = Program(text, provenance="nesydm", generator=seeded())(digit=worlds)
    assert torch.equal(again.probs, y.probs)


def test_given_worlds_of_several_networks() -> None:
    program = Program(
        """
        nn(digit, [X], D, [a,b,c]) :: digit(X, D).
        nn(rain, [X]) :: rain(X).
        wet(D) :- digit(1, D), rain(mon).
        query(wet(D)).
        """,
        provenance="nesydm",
    )
    rain = torch.tensor([[True, True, False, True]])
    y = program(digit=torch.tensor([[0, 0, 0, 2]]), rain=rain)  # one instance: (batch, worlds)
    assert y.values == ("a", "b", "c")
    assert y.probs.tolist() == [[0.5, 0.0, 0.25]]
    with pytest.raises(ShapeError, match=r"worlds are given for 'digit': give integers for each"):
        program(digit=torch.tensor([[0]]), rain=torch.rand(1, 1))
    with pytest.raises(ShapeError, match=r"different numbers of worlds: .*'digit': 1, 'rain': 4"):
        program(digit=torch.tensor([[0]]), rain=rain)
    with pytest.raises(ShapeError, match=r"\(2, 2, 2\): expected worlds \(batch, worlds, 1\)"):
        program(digit=torch.zeros(2, 2, 2, dtype=torch.int64), rain=rain)
    with pytest.raises(DomainError, match=r"digit has the value 3 .* go from 0 to 2"):
        program(digit=torch.tensor([[0, 3]]), rain=rain[:, :2])
    with pytest.raises(ConceptError, match=r"no network 'snow'"):
        program(digit=torch.tensor([[0]]), rain=rain[:, :1], snow=rain)


def test_worlds_of_a_model() -> None:
    """What a model draws is what the program takes."""
    program = Program(SUM, provenance="nesydm")
    model = MaskedDiffusion(Unmasking(), program=program, generator=seeded())
    x = torch.randn(3, 4, generator=seeded())
    worlds = model.sample(x, 200)
    y = program(model.named(worlds))
    expected = torch.stack([(worlds.sum(-1) == z).float().mean(1) for z in range(5)], 1)
    torch.testing.assert_close(y.probs, expected)
    assert y.bias == "unbiased, with no gradient"
    assert not y.coverage.any()
    assert y.loss(torch.tensor([0, 1, 2])) > 0


# Probabilities that are given


class Unmasking(nn.Module):
    """Two concepts of three values, each given what is unmasked of the other."""

    def __init__(self, values: int = 3) -> None:
        super().__init__()
        self.values = values
        self.linear = nn.Linear(4, 2 * values)
        self.other = nn.Embedding(values + 1, values)

    def forward(self, x: Tensor, c_t: Tensor) -> Tensor:
        return self.linear(x).reshape(-1, 2, self.values) + self.other(c_t.flip(1))


@pytest.mark.parametrize("how", ["values", "positions", "matrix"])
def test_loss_is_the_models(how: str) -> None:
    """`y.loss` is that of a model whose network says the probabilities."""
    options = {"gamma_h": 0.3, "gamma_c": 0.1}
    text = SUM + "t(0.4)::b. c :- b, digit(a, 2). query(c)."
    program = Program(text, provenance="nesydm", generator=seeded(), diffusion=options)
    logits = torch.randn(4, 2, 3, generator=seeded(1), requires_grad=True)
    y = program(digit=logits.softmax(-1))
    targets: Any = {
        "values": [(1, False), (2, True), (3, False), (4, True)],
        "positions": torch.tensor([[1, 0], [2, 1], [3, 0], [4, 1]]),
        "matrix": torch.tensor(
            [[0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 1]]
        ).float(),
    }[how]
    program.generator.set_state(seeded(2).get_state())
    loss = y.loss(targets)
    found = torch.autograd.grad(loss, [logits, *program.parameters()])
    model = MaskedDiffusion(
        lambda x, c_t: x.flatten(1), program=program, generator=seeded(2), **options
    )
    expected = model.loss(logits.log_softmax(-1), [(1, False), (2, True), (3, False), (4, True)])
    assert torch.allclose(loss, expected, atol=1e-6)
    wanted = torch.autograd.grad(expected, [logits, *program.parameters()])
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
        assert bool((a != 0).any())


def test_scores_are_unbiased() -> None:
    exact = Program(SUM)
    program = Program(SUM, provenance="nesydm", samples=200, generator=seeded())
    logits = torch.randn(1, 2, 3, generator=seeded(1), requires_grad=True)
    p = logits.softmax(-1)
    weight = torch.linspace(0, 1, 5)
    (expected,) = torch.autograd.grad((exact(digit=p).probs * weight).sum(), logits)
    found = torch.stack(
        [
            torch.autograd.grad((program(digit=logits.softmax(-1)).scores * weight).sum(), logits)[
                0
            ]
            for _ in range(100)
        ]
    )
    error = found.std(0) / 100**0.5
    assert bool(((found.mean(0) - expected).abs() <= 4 * error).all())
    assert program(digit=p).bias.startswith("a bound on -log P")


def test_wrong_targets() -> None:
    program = Program(SUM, provenance="nesydm")
    y = program(digit=torch.full((2, 2, 3), 1 / 3))
    with pytest.raises(TargetError, match=r"example 1 is 9"):
        y.loss(torch.tensor([0, 9]))
    with pytest.raises(TargetError, match=r"example 0 has no value in dimension 0 .* or several"):
        y.loss(torch.tensor([[1, 0, 1, 0, 0], [1, 0, 0, 0, 0]]))
    with pytest.raises(TargetError, match=r"3 targets for a batch of 2"):
        y.loss([1, 2, 3])


# Learning


def test_two_concepts() -> None:
    """Told only that the bits differ, the model learns both ways in which they may."""
    torch.manual_seed(0)
    program = Program("""
        nn(bit, [X]) :: bit(X).
        differ :- bit(a), \\+ bit(b).
        differ :- \\+ bit(a), bit(b).
        query(differ).
    """)
    network = Unmasking(values=2)
    model = MaskedDiffusion(
        network, program=program, gamma_h=1.6, weighting="paper", generator=seeded()
    )
    optimizer = torch.optim.Adam(network.parameters(), 0.05)
    x = torch.ones(16, 4)
    for _ in range(100):
        optimizer.zero_grad()
        model.loss(x, [True] * 16).backward()
        optimizer.step()
    found = model.predict(x[:1], generator=seeded(1))
    assert found.distribution[True].item() > 0.95
    assert all(0.2 < p < 0.8 for p in found.marginals[0][0].tolist())  # no bit is settled


def test_learning_from_probabilities() -> None:
    """The program's own loss, and tunable probabilities beside the network."""
    torch.manual_seed(0)
    program = Program(
        "t(0.5)::flip.\n"
        "nn(bit, [X]) :: bit(X).\n"
        "out :- bit(a), \\+ flip.  out :- \\+ bit(a), flip.  query(out). query(bit(a)).",
        provenance="nesydm",
        generator=seeded(),
        diffusion={"gamma_h": 0.0},
    )
    linear = nn.Linear(1, 1)
    optimizer = torch.optim.Adam([*linear.parameters(), *program.parameters()], 0.05)
    x = torch.randn(32, 1, generator=seeded(1))
    bit = x[:, 0] > 0
    for _ in range(80):
        optimizer.zero_grad()
        program(bit=linear(x).sigmoid()).loss(torch.stack([~bit, bit], 1)).backward()
        optimizer.step()
    assert program.tunable["flip"] > 0.8
    assert ((linear(x)[:, 0] > 0) == bit).float().mean() > 0.9


# What it cannot do


def test_evidence() -> None:
    text = SUM + "evidence(digit(a, 1))."
    with pytest.raises(ByssusError, match=r"the evidence 'digit\(a,1\)', and a diffusion model"):
        Program(text).world_program()
    with pytest.raises(ByssusError, match=r"ask for what is observed, as another query"):
        Program(text, provenance="nesydm")


def test_options() -> None:
    with pytest.raises(ByssusError, match=r"'mixed' and 'nesydm'"):
        Program(SUM, provenance="nesy")
    with pytest.raises(ByssusError, match=r"leave out `estimator` and `worlds`"):
        Program(SUM, provenance="nesydm", estimator="rloo")
    with pytest.raises(ByssusError, match=r"diffusion= is for provenance='nesydm', not 'auto'"):
        Program(SUM, diffusion={"gamma_h": 1.0})
    with pytest.raises(ByssusError, match=r"diffusion=3: give a dictionary"):
        Program(SUM, provenance="nesydm", diffusion=3)  # type: ignore[arg-type]
    with pytest.raises(ByssusError, match=r"a program without concepts: .* an nn\(\.\.\.\)"):
        Program("0.3::a.\nquery(a).").world_program()
    p = torch.full((1, 2, 3), 1 / 3)
    with pytest.raises(ByssusError, match=r"'gamma_z'"):
        Program(SUM, provenance="nesydm", diffusion={"gamma_z": 1.0})(digit=p).loss([1])
    with pytest.raises(ByssusError, match=r"diffusion= has program, and the program"):
        Program(SUM, provenance="nesydm", diffusion={"program": 1})(digit=p).loss([1])
    with pytest.raises(ShapeError, match=r"a tensor of probabilities"):
        Program(SUM)(digit=torch.zeros(1, 2, 3, dtype=torch.int64))


def test_plan_and_pickle(tmp_path: Path) -> None:
    program = Program(SUM, provenance="nesydm", generator=seeded())
    assert (program.provenance, program.plan().provenance) == ("nesydm", "nesydm")
    p = torch.full((1, 2, 3), 1 / 3)
    program(digit=p).loss(torch.tensor([1]))
    assert not program.state_dict()
    torch.save(program, tmp_path / "program.pt")
    again = torch.load(tmp_path / "program.pt", weights_only=False)
    assert again(digit=p).loss(torch.tensor([1])).isfinite()
    found = pickle.loads(pickle.dumps(program.world_program().run))
    assert found(torch.tensor([[1, 2]])).tolist() == [[3]]
