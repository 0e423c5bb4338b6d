"""MaskedDiffusion against brute force: states, samplers, loss, bound."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from byssus import (
    Boolean,
    Discrete,
    Formula,
    Integer,
    List,
    ProbabilityError,
    ShapeError,
    TargetError,
    Tuple,
    blackbox,
)
from byssus.diffusion import MaskedDiffusion, WorldProgram
from diffusion_oracle import Network, Oracle, World

WIDTHS = (2, 3, 2)


def outputs(world: World) -> tuple[int, int]:
    """Two dimensions, neither of which says which world it was."""
    a, b, c = world
    return (a + b + c) % 3, int(a == c)


@blackbox(Integer(0, 1), Integer(0, 2), Integer(0, 1), output=Tuple(Integer(0, 2), Integer(0, 1)))
def rule(a: int, b: int, c: int) -> tuple[int, int]:
    return outputs((a, b, c))


def made(seed: int = 0, **options: Any) -> tuple[MaskedDiffusion, Oracle, Tensor]:
    """A model of an untrained network, the oracle for its first input, and the inputs."""
    network = Network(WIDTHS, seed=seed)
    x = torch.tensor([[0.3, -1.0], [1.2, 0.4]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    model = MaskedDiffusion(network, **{"program": rule, "generator": generator, **options})
    return model, Oracle(network, x[0], outputs), x


def by_rules() -> WorldProgram:
    """The same program as a formula: of each value, the worlds that give it."""
    nodes: list[Any] = [("literal", (c, v)) for c, width in enumerate(WIDTHS) for v in range(width)]
    key = {literal: i for i, (_, literal) in enumerate(nodes, 1)}
    giving: dict[tuple[int, int], list[int]] = {}
    for world in itertools.product(*map(range, WIDTHS)):
        nodes.append(("and", tuple(key[literal] for literal in enumerate(world))))
        for value in enumerate(outputs(world)):
            giving.setdefault(value, []).append(len(nodes))
    roots = []
    for value in sorted(giving):
        nodes.append(("or", tuple(giving[value])))
        roots.append(len(nodes))
    return WorldProgram(
        ("a", "b", "c"), rule.inputs, ((0, 1, 2), (0, 1)),
        lambda worlds: torch.tensor([outputs((a, b, c)) for a, b, c in worlds.tolist()]),
        formula=Formula(WIDTHS, tuple(nodes), tuple(roots)), tabulates=False,
    )  # fmt: skip


WAYS: dict[str, dict[str, Any]] = {
    "table": {"inference": "exact"},
    "circuit": {"inference": "exact", "program": by_rules()},
    "sampled": {"inference": "sampled", "candidates": 300},
}


def parts(labels: list[tuple[int | None, ...]]) -> tuple[Tensor, Tensor]:
    """Labels and what is observed of them: all but None, where there is a value that is none."""
    y = torch.tensor([[9 if value is None else value for value in label] for label in labels])
    return y, y != 9


def agrees(worlds: Tensor, expected: dict[World, float]) -> None:
    """Whether worlds occur as often as expected, by a chi-square test at about five sigma."""
    total = len(worlds)
    counts: dict[World, int] = {}
    for row in worlds.tolist():
        counts[tuple(row)] = counts.get(tuple(row), 0) + 1
    assert counts.keys() <= expected.keys()
    statistic = sum(
        (counts.get(world, 0) - total * p) ** 2 / (total * p) for world, p in expected.items()
    )
    freedom = len(expected) - 1
    assert statistic < freedom + 5 * math.sqrt(2 * max(1, freedom)) + 5


def test_masks_get_no_probability_and_unmasked_concepts_stay() -> None:
    model, oracle, x = made()
    for state in ((None, None, None), (1, None, None), (None, 2, 0), (0, 1, 1)):
        c_t = torch.tensor([[w if s is None else s for s, w in zip(state, WIDTHS, strict=True)]])
        probs = model(x[:1], c_t)
        torch.testing.assert_close(probs[0], torch.cat(oracle.unmasked(state)))


@pytest.mark.parametrize("y", [None, (1, 0)], ids=["prior", "posterior"])
@pytest.mark.parametrize("steps", [None, 1, 2, 5])
@pytest.mark.parametrize("n", [1, 4000])
def test_samplers(y: tuple[int, int] | None, steps: int | None, n: int) -> None:
    model, oracle, x = made(seed=3)
    rows = x[:1].expand(4000 // n, -1)
    if y is None:
        worlds = model.sample(rows, n, steps=steps)
    else:
        worlds = model.posterior_sample(rows, [y] * len(rows), n, steps=steps)
    assert worlds.shape == (4000 // n, n, 3)
    # As many steps as columns, or more, unmask one column after the other.
    agrees(worlds.flatten(0, 1), oracle.drawn(y, None if steps == 5 else steps))


@pytest.mark.parametrize("y", [None, (0, 0)], ids=["prior", "posterior"])
@pytest.mark.parametrize("steps", [None, 1, 3])
@pytest.mark.parametrize("known", [(None, 2, None), (1, None, 0), (None, None, None)])
def test_samplers_given_what_is_known(
    known: tuple[int | None, ...], steps: int | None, y: tuple[int, int] | None
) -> None:
    model, oracle, x = made(seed=3)
    given = torch.tensor([[-1 if value is None else value for value in known]])
    if y is None:
        worlds = model.sample(x[:1], 4000, steps=steps, known=given)
    else:
        worlds = model.posterior_sample(x[:1], [y], 4000, steps=steps, known=given)
    few = steps is not None and steps < known.count(None)
    agrees(worlds[0], oracle.drawn(y, steps if few else None, known))


def test_what_is_known_differs_between_examples() -> None:
    model, _, x = made(seed=3)
    known = torch.tensor([[0, 1, 1], [-1, -1, -1]])
    worlds = model.sample(x, 50, known=known)
    assert (worlds[0] == known[0]).all()
    assert len(worlds[1].unique(dim=0)) > 3


@pytest.mark.parametrize("y", [(1, None), (None, 0), (None, None)])
@pytest.mark.parametrize("inference", ["table", "circuit", "sampled"])
def test_samplers_given_part_of_the_label(inference: str, y: tuple[int | None, ...]) -> None:
    model, oracle, x = made(seed=3, **WAYS[inference])
    label, observed = parts([y])
    if inference == "sampled":
        rows = [part.expand(1000, -1) for part in (x[:1], label)]
        worlds = model.posterior_sample(*rows, observed=observed.expand(1000, -1))[:, 0]
    else:
        worlds = model.posterior_sample(x[:1], label, 4000, observed=observed)[0]
    agrees(worlds, oracle.drawn(y))


@pytest.mark.parametrize("inference", ["table", "circuit"])
def test_likelihoods_of_part_of_the_label(inference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a state that is given, the loss and its gradient by enumeration."""
    model, oracle, x = made(seed=2, **WAYS[inference], gamma_c=0.0, gamma_h=0.0)
    labels = [(1, 0), (2, None), (None, 1), (None, None)]
    worlds = torch.tensor([[0, 0, 1], [0, 2, 0], [1, 0, 1], [1, 1, 0]])
    states = [(None, None, None), (None, 2, None), (1, None, None), (None, None, 0)]
    count = len(labels)
    c_t = torch.tensor(
        [[w if s is None else s for s, w in zip(state, WIDTHS, strict=True)] for state in states]
    )
    one = torch.ones(count, dtype=torch.float64)
    monkeypatch.setattr(model, "_masked", lambda *_: (c_t, one, one))
    y, observed = parts(labels)
    rows = x[:1].expand(count, -1)
    losses = model.losses(rows, y, worlds=worlds, observed=observed)
    expected = []
    for state, label in zip(states, labels, strict=True):
        nats = -oracle.likelihoods(state, label).log().sum()
        expected.append(nats / max(1, sum(value is not None for value in label)))
    by_hand = torch.stack(expected)
    torch.testing.assert_close(losses.examples, by_hand, atol=1e-6, rtol=0)
    unlabelled = model.losses(rows, worlds=worlds, observed=observed)  # the worlds give the label
    assert torch.equal(unlabelled.examples, losses.examples)
    assert float(losses.examples[-1].detach()) == 0.0
    parameters = list(model.parameters())
    found = torch.autograd.grad(losses.total, parameters)
    for got, wanted in zip(found, torch.autograd.grad(by_hand.mean(), parameters), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("inference", ["exact", "sampled"])
def test_nothing_is_asked_of_calls_whose_output_is_not_observed(inference: str) -> None:
    """Of one dimension, not even that the call succeeds."""

    @blackbox(Integer(0, 2), output=Integer(1, 2), on_error="discard")
    def half(a: int) -> int:
        return {0: 1, 1: 2}[a]

    generator = torch.Generator().manual_seed(0)
    model = MaskedDiffusion(
        lambda x, c_t: x, program=half, inference=inference, generator=generator, candidates=300
    )
    x = torch.tensor([0.2, 0.3, 0.5]).log().expand(2000, -1)
    y = torch.full((2000,), 7)
    for observed in (torch.zeros(2000, dtype=torch.bool), torch.zeros(2000, 1, dtype=torch.bool)):
        worlds = model.posterior_sample(x, y, observed=observed)[:, 0]
        agrees(worlds, {(0,): 0.2, (1,): 0.3, (2,): 0.5})
    known = torch.tensor([[2], [0], [1]])
    for c, observed in itertools.product(known, (None, torch.tensor([False]))):
        losses = model.losses(x[:1], worlds=c[None], observed=observed)
        assert float(losses.missed) == float(losses.violated) == 0.0
    assert model.loss(x[:2], known[1:, 0] + 1, worlds=known[1:]).isfinite()


@pytest.mark.parametrize(
    ("observed", "words"),
    [
        (torch.ones(2, 3, dtype=torch.bool), r"of shape \(2, 3\): give Booleans of shape \(2, 2\)"),
        (torch.ones(2, dtype=torch.bool), r"of shape \(2,\): give Booleans"),
        (torch.ones(2, 2), r"of torch.float32: give Booleans of shape \(2, 2\)"),
        ([[True, False]] * 2, r"of \[\[True, False\], .*: give Booleans"),
    ],
)
def test_what_cannot_be_observed(observed: Any, words: str) -> None:
    model, _, x = made()
    for ask in (model.loss, model.posterior_sample, model.bound):
        with pytest.raises(ShapeError, match=f"observed {words}"):
            ask(x, [(1, 0)] * 2, observed=observed)
    with pytest.raises(ShapeError, match=f"observed {words}"):
        model.loss(x, worlds=torch.zeros(2, 3, dtype=torch.int64), observed=observed)


def test_labels_known_in_part_are_checked_in_that_part() -> None:
    model, _, x = made()
    y, observed = torch.tensor([[1, 9], [9, 0]]), torch.tensor([[True, False], [False, True]])
    model.loss(x, y, observed=observed)
    with pytest.raises(TargetError, match="of example 1 is 9 in dimension 0"):
        model.loss(x, y, observed=observed | observed[:1])
    with pytest.raises(TargetError, match="1 targets for a batch of 2 examples"):
        model.loss(x, y[:1], observed=observed)
    bits = Tuple(Boolean(), Boolean(), Boolean())
    three = MaskedDiffusion(
        lambda x, c_t: x.new_zeros(len(x), 2, 2), [Boolean(), Boolean()],
        lambda a, b: (a and b, a, a or b), outputs=bits,
    )  # fmt: skip
    seen = torch.tensor([[True, False, True]] * 2)
    with pytest.raises(TargetError, match=r"is \(True, None, False\), which no world gives"):
        three.loss(x, [(True, True, False)] * 2, observed=seen)


@pytest.mark.parametrize("inference", ["exact", "sampled"])
def test_without_gamma_y_known_worlds_need_no_program(inference: str) -> None:
    runs: list[int] = []

    def run(worlds: Tensor) -> Tensor:
        runs.append(len(worlds))
        return worlds

    program = WorldProgram(("a", "b"), (Boolean(), Boolean()), ((0, 1), (0, 1)), run)
    model = MaskedDiffusion(
        Network((2, 2)), program=program, inference=inference, entropy="unconditional",
        gamma_c=1.0, gamma_y=0.0,
    )  # fmt: skip
    runs.clear()
    x, worlds = torch.zeros(3, 2, dtype=torch.float64), torch.tensor([[0, 1], [1, 0], [1, 1]])
    for y in (None, worlds):
        losses = model.losses(x, y, worlds=worlds)
        losses.total.backward()
        assert [float(v) for v in (losses.outputs, losses.missed, losses.violated)] == [0.0] * 3
    assert not runs
    drawn = model.losses(x, worlds)  # the posterior needs it, but there is no likelihood
    assert float(drawn.outputs) == float(drawn.missed) == 0.0
    with pytest.raises(TargetError, match="targets None"):
        model.losses(x)


@pytest.mark.parametrize("weighting", ["code", "paper"])
def test_loss_of_known_worlds_in_expectation(weighting: str) -> None:
    """By hand over all masks at all times: a column is masked with probability t."""
    model, oracle, x = made(seed=2, weighting=weighting, gamma_c=1.0, gamma_y=0.0, gamma_h=0.0)
    world = (1, 2, 0)
    count = 40_000
    with torch.no_grad():
        losses = model.losses(x[:1].expand(count, -1), worlds=torch.tensor([world] * count))
        expected = 0.0
        for hidden in itertools.product((False, True), repeat=3):
            state = tuple(
                None if masked else value for masked, value in zip(hidden, world, strict=True)
            )
            parts = zip(oracle.unmasked(state), world, hidden, strict=True)
            nats = sum(-float(p[v].log()) for p, v, masked in parts if masked)
            m = sum(hidden)
            if m:  # the integral of t^(m - 1) (1 - t)^(3 - m) over t, a mean over columns
                beta = math.gamma(m) * math.gamma(4 - m) / math.gamma(4)
                expected += beta * nats / 3
    error = float(losses.examples.std()) / count**0.5
    assert abs(float(losses.total) - expected) < 5 * error


def test_known_worlds_teach_their_distribution() -> None:
    torch.manual_seed(0)
    network = Network(WIDTHS, seed=0)
    generator = torch.Generator().manual_seed(0)
    model = MaskedDiffusion(
        network, program=rule, gamma_c=1.0, gamma_y=0.0, gamma_h=0.0, generator=generator
    )
    wanted = {(0, 2, 1): 0.5, (1, 0, 0): 0.3, (1, 2, 1): 0.2}
    which = torch.multinomial(torch.tensor([*wanted.values()]), 256, True, generator=generator)
    worlds = torch.tensor([*wanted])[which]
    x = torch.zeros(256, 2, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(400):
        optimizer.zero_grad()
        model.loss(x, worlds=worlds).backward()
        optimizer.step()
    drawn = model.sample(x[:1], 5000)[0]
    for world in wanted:
        share = float((drawn == torch.tensor(world)).all(1).double().mean())
        assert abs(share - float((worlds == torch.tensor(world)).all(1).double().mean())) < 0.04


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (torch.zeros(2, 2, dtype=torch.int64), r"of shape \(2, 2\): give integers of shape"),
        (torch.zeros(2, 3), "of torch.float32: give integers"),
        (torch.tensor([[0, 0, 0], [0, 3, 0]]), "is 3 in row 1, column 1: give the position"),
        (torch.tensor([[0, 0, 0], [0, -2, 0]]), "is -2 in row 1, column 1"),
        ([[0, 0, 0]], "of shape .*: give integers of shape"),
    ],
)
def test_known_values_that_are_none(known: Any, words: str) -> None:
    model, _, x = made()
    with pytest.raises(ShapeError, match=f"known {words}"):
        model.sample(x, known=known)
    with pytest.raises(ShapeError, match=f"worlds {words}"):
        model.loss(x, worlds=known)


def test_examples_are_sampled_apart() -> None:
    model, _, x = made(seed=4)
    worlds = model.sample(x, 3000)
    for i in range(2):
        oracle = Oracle(model.unmasking_model, x[i], outputs)  # type: ignore[arg-type]
        agrees(worlds[i], oracle.drawn())


def test_sampling_is_reproducible() -> None:
    model, _, x = made()
    first, second = (
        model.sample(x, 50, generator=torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first, second)
    losses = [
        model.loss(x, [(1, 0), (2, 1)], generator=torch.Generator().manual_seed(6))
        for _ in range(2)
    ]
    assert torch.equal(*losses)


@pytest.mark.parametrize("weighting", ["code", "paper"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_loss_in_expectation(weighting: str, schedule: str) -> None:
    model, oracle, x = made(
        seed=1, weighting=weighting, schedule=schedule, gamma_c=0.5, gamma_h=0.3, gamma_y=2.0
    )
    y = (0, 1)
    count = 20_000
    rows, targets = x[:1].expand(count, -1), torch.tensor([y]).expand(count, -1)
    with torch.no_grad():
        losses = model.losses(rows, targets)
        # The loss by integrating over time, masks and posterior worlds.
        concepts = output = 0.0
        times = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
        share, rate = model.schedule.masked(times), model.schedule.rate(times)
        for world, p in oracle.drawn(y).items():
            for bits in range(8):
                masked = [bits >> d & 1 for d in range(3)]
                state = tuple(None if m else v for m, v in zip(masked, world, strict=True))
                chance = p * share ** sum(masked) * (1 - share) ** (3 - sum(masked))
                parts = oracle.unmasked(state)
                nll = -sum(math.log(parts[d][v]) for d, v in enumerate(world) if masked[d])
                likely = float(oracle.likelihoods(state, y).log().mean())
                concepts += float((chance * rate / share).mean()) * nll / 3
                weight = rate if weighting == "paper" else rate / share
                output -= float((chance * weight).mean()) * likely
        given = oracle.joint((None, None, None), y)
        given = given[given > 0]
        entropy = -float((given * given.log()).sum()) / 3
    assert float(losses.concepts) == pytest.approx(concepts, rel=0.1)
    assert float(losses.outputs) == pytest.approx(output, rel=0.1)
    assert float(losses.entropy) == pytest.approx(entropy, abs=1e-6)
    parts_together = 0.5 * losses.concepts + 2 * losses.outputs - 0.3 * losses.entropy
    assert float(losses.total) == pytest.approx(float(parts_together), abs=1e-6)
    assert float(losses.missed) == float(losses.violated) == 0.0


def test_unconditional_entropy() -> None:
    model, oracle, x = made(entropy="unconditional")
    parts = [part.detach() for part in oracle.unmasked((None, None, None))]
    expected = -sum(float((p * p.log()).sum()) for p in parts) / 3
    found = model.losses(x[:1], [(1, 0)]).entropy
    assert float(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_the_loss_is_a_bound(seed: int) -> None:
    model, oracle, x = made(seed=seed)
    for y in ((0, 0), (1, 1), (2, None)):
        label, observed = (part.expand(2000, -1) for part in parts([y]))
        rows = x[:1].expand(2000, -1)
        estimate, error = model.bound(rows, label, samples=2, observed=observed)
        mean, deviation = float(estimate.mean()), float(estimate.std()) / math.sqrt(2000)
        assert error.shape == (2000,)
        # Of the joint process, and of voting by what sampled worlds give.
        drawn = sum(oracle.drawn()[world] for world in oracle.drawn(y))
        assert mean + 4 * deviation > -oracle.log_likelihood(y)
        assert mean + 4 * deviation > -math.log(drawn)


def test_the_bound_is_tight_for_one_concept() -> None:
    """With one concept the posterior is exact: what remains is the output's own share."""
    network = Network((4,), seed=2)
    model = MaskedDiffusion(network, [Integer(0, 3)], lambda a: a // 2, outputs=Integer(0, 1))
    x = torch.zeros(4000, 2, dtype=torch.float64)
    oracle = Oracle(network, x[0], lambda world: (world[0] // 2,))
    mean = model.bound(x, [1] * 4000, samples=2)[0].mean()
    assert float(mean) >= -oracle.log_likelihood((1,)) - 0.02


def test_gradients_reach_the_network_from_every_part() -> None:
    for gammas in ({"gamma_c": 1.0}, {"gamma_y": 1.0}, {"gamma_h": 1.0}):
        model, _, x = made(**{"gamma_c": 0.0, "gamma_y": 0.0, "gamma_h": 0.0, **gammas})
        model.loss(x.repeat(8, 1), [(1, 0), (2, 1)] * 8).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert bool(parameter.grad.isfinite().all())
            assert bool((parameter.grad != 0).any())


def test_the_encoder_runs_once() -> None:
    class Encoder(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x

    encoder = Encoder()
    model, oracle, x = made(seed=3, encoder=encoder)
    model.loss(x, [(1, 0), (2, 1)])
    assert encoder.calls == 1
    worlds = model.sample(x[:1], 4000)
    assert encoder.calls == 2
    agrees(worlds[0], oracle.drawn())


def test_only_distinct_states_are_given_to_the_network() -> None:
    rows = []

    def network(x: Tensor, c_t: Tensor) -> Tensor:
        rows.append(len(c_t))
        return x.new_zeros(len(x), 2, 2)

    model = MaskedDiffusion(network, [Boolean(), Boolean()], lambda a, b: a, outputs=Boolean())
    model.sample(torch.zeros(3, 1), 1000)
    assert rows == [3, 3 * 4]


def test_inputs_of_several_parts() -> None:
    def network(x: dict[str, Any], c_t: Tensor) -> list[Tensor]:
        a, b = x["digits"]
        return [a, torch.cat([b, x["flag"]], 1)]

    model = MaskedDiffusion(
        network,
        {"a": Integer(0, 2), "b": Boolean()},
        lambda a, b: (a > 1) == b,
        outputs=Boolean(),
    )
    x = {"digits": (torch.zeros(5, 3), torch.zeros(5, 1)), "flag": torch.zeros(5, 1)}
    worlds = model.sample(x, 7)
    named = model.named(worlds)
    assert {name: tuple(part.shape) for name, part in named.items()} == {"a": (5, 7), "b": (5, 7)}
    values = model.values(worlds)
    assert values[4][6] == (int(worlds[4, 6, 0]), bool(worlds[4, 6, 1]))
    assert float(model.loss(x, torch.ones(5, dtype=torch.bool))) > 0


@pytest.mark.parametrize("inference", ["exact", "sampled"])
def test_lists_are_masked_beyond_their_lengths(inference: str) -> None:
    symbols = List(Discrete("ab"), 3, min_length=1)
    seen: list[Tensor] = []

    def network(x: Tensor, c_t: Tensor) -> Tensor:
        seen.append(c_t)
        return x

    @blackbox(symbols, output=Integer(0, 3))
    def count(word: tuple[str, ...]) -> int:
        return word.count("a")

    model = MaskedDiffusion(
        network, program=count, inference=inference, entropy="unconditional", samples=2000
    )
    torch.manual_seed(0)
    x = torch.randn(3, 3, 2, requires_grad=True)
    lengths = torch.tensor([1, 2, 3])
    worlds = model.sample(x, 500, lengths=lengths)
    assert bool((worlds[0, :, 1:] == -1).all() and (worlds[1, :, 2] == -1).all())
    assert bool((worlds[2] >= 0).all())
    assert {len(word) for (word,) in model.values(worlds)[1]} == {2}
    posterior = model.posterior_sample(x, [1, 1, 2], 200, lengths=lengths)
    given = [[word.count("a") for (word,) in example] for example in model.values(posterior)]
    assert given == [[1] * 200, [1] * 200, [2] * 200]
    losses = model.losses(x, [1, 1, 2], lengths)
    losses.total.backward()
    assert x.grad is not None
    assert bool((x.grad[0, 1:] == 0).all() and (x.grad[1, 2] == 0).all())
    probs = x.detach().softmax(-1)[0, 0]
    state = model.log_probs(x.detach(), model._start(3, lengths))
    likely = model.inference.log_likelihoods(state, torch.tensor([[1], [1], [2]]), None)
    assert float(likely[0]) == pytest.approx(float(probs[0].log()), abs=0.1)
    prediction = model.predict(x, 50, lengths=lengths)
    assert prediction.concepts[0].tolist()[1:] == [-1, -1]
    assert all(bool((c[seen_ < 0] >= 0).all()) for c, seen_ in zip(seen, seen, strict=True))


def test_the_programs_own_facts() -> None:
    """A coin of the program's decides whether the concept counts."""
    parameter = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def run(worlds: Tensor) -> Tensor:
        return (worlds[:, :1] * worlds[:, 1:]).long()

    program = WorldProgram(
        ("a",),
        (Boolean(),),
        ((False, True),),
        run,
        own_widths=(2,),
        own=lambda: torch.stack([1 - parameter, parameter]),
    )
    network = Network((2,), seed=1)
    model = MaskedDiffusion(network, program=program)
    assert model.weighting == "paper"  # a likelihood below 1 when nothing is masked, times 1/t
    x = torch.zeros(1, 2, dtype=torch.float64)
    state = model.log_probs(x, torch.tensor([[2]]))
    p = state.exp()[0, 1]
    likely = model.inference.log_likelihoods(model._with_own(state), torch.tensor([[1]]), None)
    likely.sum().backward()
    p, likely = p.detach(), likely.detach()
    assert float(likely) == pytest.approx(math.log(p * 0.3))
    assert float(parameter.grad) == pytest.approx(1 / 0.3)  # type: ignore[arg-type]
    assert model.posterior_sample(x, [True], 20).tolist() == [[[1]] * 20]
    distribution = model.predict(x, 4000).distribution
    expected = float(p) * 0.3
    assert float(distribution[True]) == pytest.approx(expected, abs=5 * math.sqrt(0.25 / 4000))
    parameter.data.zero_()
    with pytest.raises(ProbabilityError, match=r"row 1 .* has probability 0"):
        model.loss(x.expand(2, 2), [False, True])


def test_more_columns_than_an_integer_can_number() -> None:
    n = 70
    model = MaskedDiffusion(
        lambda x, c_t: x.new_zeros(len(x), n, 2),
        List(Boolean(), n, min_length=n),
        lambda bits: bits[0],
        outputs=Boolean(),
        samples=16,
        candidates=8,
        steps=4,
    )
    worlds = model.sample(torch.zeros(2, 1), 5)
    assert worlds.shape == (2, 5, n)
    assert float(model.loss(torch.zeros(2, 1), [True, False])) > 0


class Given(nn.Module):
    """Logits that are the input."""

    def forward(self, x: Tensor, c_t: Tensor) -> Tensor:
        return x


def test_a_whole_model_can_be_pickled() -> None:
    words = List(Discrete("ab"), 2)
    again = blackbox(words, output=words)(tuple)
    model = MaskedDiffusion(Given(), program=again, gamma_h=0.0)
    copy = pickle.loads(pickle.dumps(model))
    x = torch.randn(3, 2, 2)
    targets = [("a",), (), ("b", "a")]
    lengths = torch.tensor([1, 0, 2])
    first, second = (
        m.loss(x, targets, lengths, torch.Generator().manual_seed(0)) for m in (model, copy)
    )
    assert torch.equal(first, second)
    worlds = copy.predict(x, 20, lengths=lengths)
    assert [len(word) for word in worlds.outputs] == [1, 0, 2]  # type: ignore[arg-type]


def test_device(device: torch.device) -> None:
    network = Network((2, 2)).to(device)
    concepts = [Boolean(), Boolean()]
    model = MaskedDiffusion(network, concepts, lambda a, b: a != b, outputs=Boolean()).to(device)
    x = torch.zeros(4, 2, dtype=torch.float64, device=device)
    model.loss(x, [True] * 4, generator=torch.Generator().manual_seed(0)).backward()
    prediction = model.predict(x, 10)
    assert prediction.worlds.device.type == device.type
    assert prediction.distribution.probs.device.type == device.type


class Parts(NamedTuple):
    first: Tensor
    second: Tensor


def test_inputs_in_a_named_tuple() -> None:
    network = Network(WIDTHS)
    model = MaskedDiffusion(lambda x, c_t: network(x.first, c_t), program=rule)
    x = torch.zeros(2, 2, dtype=torch.float64)
    assert model.sample(Parts(x, x), 50).shape == (2, 50, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("inference", ["exact", "sampled"])
def test_networks_of_half_precision(dtype: torch.dtype, inference: str) -> None:
    """Their logits are few digits; what is drawn and summed has more."""
    model = MaskedDiffusion(
        lambda x, c_t: x.new_zeros(len(x), 7), program=rule, inference=inference,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    x = torch.zeros(4, 1, dtype=dtype)
    assert model.loss(x, [(0, 1)] * 4).dtype == torch.float32
    assert model.log_probs(x, torch.tensor([WIDTHS] * 4)).dtype == torch.float32


@pytest.mark.parametrize("y", [None, (0, 1)])
def test_many_worlds_are_drawn_example_by_example(
    y: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, oracle, x = made()
    monkeypatch.setattr("byssus.diffusion.model._CELLS", 1)
    monkeypatch.setattr("byssus.diffusion.model._ROWS", 2)
    worlds = model.sample(x, 4000) if y is None else model.posterior_sample(x, [y, y], 4000)
    assert worlds.shape == (2, 4000, 3)
    agrees(worlds[0], oracle.drawn(y))
