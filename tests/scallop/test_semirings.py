from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byssus import ByssusError
from byssus_scallop._semirings import NAMES, Custom, make

PROBABILITIES = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0]


def test_all_names_make_a_provenance():
    for name in NAMES:
        algebra = make(name, k=2)
        assert algebra.possible(algebra.one)
        assert algebra.certain(algebra.one)
        assert not algebra.certain(algebra.zero)


def test_unknown_name_lists_those_that_there_are():
    with pytest.raises(ByssusError, match=r"'difftopk': there are 'exact'.*'difftopkproofs'"):
        make("difftopk")


def test_k_is_positive():
    with pytest.raises(ByssusError, match="k is 0"):
        make("topkproofs", k=0)


@pytest.mark.parametrize("name", ["minmaxprob", "addmultprob", "topkproofs", "difftopkproofs"])
def test_one_example_at_a_time(name):
    algebra = make(name)
    with pytest.raises(ByssusError, match=rf"{name!r} takes one probability a fact, .* \(3,\)"):
        algebra.fact("a", torch.rand(3))
    assert algebra.weight(algebra.fact("b", torch.tensor(0.5))) == 0.5


# Operations on two facts of probabilities a and b


OPERATIONS = {
    "minmaxprob": (max, min),
    "addmultprob": (lambda a, b: min(a + b, 1), lambda a, b: a * b),
    "diffminmaxprob": (max, min),
    "diffaddmultprob": (lambda a, b: min(a + b, 1), lambda a, b: a * b),
    "diffaddmultprob2": (lambda a, b: min(a + b, 0.9999), lambda a, b: a * b),
    "diffnandmultprob": (lambda a, b: 1 - (1 - a) * (1 - b), lambda a, b: a * b),
    "diffnandminprob": (lambda a, b: 1 - (1 - a) * (1 - b), min),
    "diffmaxmultprob": (max, lambda a, b: a * b),
    "topkproofs": (lambda a, b: 1 - (1 - a) * (1 - b), lambda a, b: a * b),
    "difftopkproofs": (lambda a, b: 1 - (1 - a) * (1 - b), lambda a, b: a * b),
    "samplekproofs": (lambda a, b: 1 - (1 - a) * (1 - b), lambda a, b: a * b),
    "diffsamplekproofs": (lambda a, b: 1 - (1 - a) * (1 - b), lambda a, b: a * b),
    "topbottomkclauses": (lambda a, b: 1 - (1 - a) * (1 - b), lambda a, b: a * b),
    "difftopbottomkclauses": (lambda a, b: 1 - (1 - a) * (1 - b), lambda a, b: a * b),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("tensors", [False, True])
def test_or_and_and_not(name, tensors):
    either, both = OPERATIONS[name]
    for a, b in itertools.product(PROBABILITIES, repeat=2):
        algebra = make(name)
        x = algebra.fact("a", torch.tensor(a, dtype=torch.float64) if tensors else a)
        y = algebra.fact("b", torch.tensor(b, dtype=torch.float64) if tensors else b)
        assert algebra.weight(algebra.add(x, y)) == pytest.approx(either(a, b))
        assert algebra.weight(algebra.mult(x, y)) == pytest.approx(both(a, b))
        if "sample" not in name:
            assert algebra.weight(algebra.negate(x)) == pytest.approx(1 - a)
        kind = torch.Tensor if name.startswith("diff") else float
        assert isinstance(algebra.output(x), kind)


BATCHED = [name for name in OPERATIONS if make(name).batched]


@pytest.mark.parametrize("name", BATCHED)
def test_a_batch_is_its_examples(name):
    torch.manual_seed(0)
    algebra = make(name)
    probability = torch.rand(4, 5, dtype=torch.float64)

    def program(tags):
        a, b, c, d = tags
        return algebra.add(
            algebra.mult(a, algebra.negate(b)), algebra.sum([c, algebra.mult(d, algebra.one), 0.25])
        )

    together = probability.clone().requires_grad_()
    program([algebra.fact(i, p) for i, p in enumerate(together)]).sum().backward()
    alone = probability.clone().requires_grad_()
    results = [
        program([algebra.fact(i, p) for i, p in enumerate(example)]) for example in alone.unbind(1)
    ]
    torch.stack(results).sum().backward()
    assert torch.equal(together.grad, alone.grad)


@pytest.mark.parametrize("name", BATCHED)
def test_smooth_gradients(name):
    algebra = make(name)
    values = torch.tensor([0.1, 0.35, 0.2, 0.15], dtype=torch.float64, requires_grad=True)

    def program(values):
        a, b, c, d = (algebra.fact(i, p) for i, p in enumerate(values))
        return algebra.add(algebra.mult(a, algebra.negate(b)), algebra.add(algebra.mult(c, d), a))

    assert torch.autograd.gradcheck(program, (values,))


def test_minimum_passes_its_gradient_to_one_fact():
    algebra = make("diffminmaxprob")
    values = torch.tensor([0.3, 0.3, 0.9], requires_grad=True)
    a, b, c = (algebra.fact(i, p) for i, p in enumerate(values))
    # Of two equal ones, Scallop takes the first for "and" and the second for "or".
    algebra.mult(a, b).backward()
    assert values.grad.tolist() == [1, 0, 0]
    values.grad = None
    algebra.add(a, b).backward()
    assert values.grad.tolist() == [0, 1, 0]
    values.grad = None
    algebra.negate(algebra.add(a, c)).backward()
    assert values.grad.tolist() == [0, 0, -1]


def test_sum_that_is_cut_off_keeps_its_gradient():
    values = torch.tensor([0.7, 0.6], requires_grad=True)
    for name, value, gradient in [
        ("diffaddmultprob", 1.0, [1, 1]),
        ("diffaddmultprob2", 0.9999, [0, 0]),
    ]:
        algebra = make(name)
        total = algebra.add(*(algebra.fact(i, p) for i, p in enumerate(values)))
        assert total.item() == pytest.approx(value)
        values.grad = None
        total.backward()
        assert values.grad.tolist() == gradient


def test_what_is_dropped_and_what_is_saturated():
    assert make("diffminmaxprob").possible(0.0)
    assert not make("diffaddmultprob").possible(0.0)
    assert make("diffaddmultprob").possible(torch.tensor([0.0, 0.1]))
    assert not make("minmaxprob").possible(0.0)
    assert not make("minmaxprob").equal(0.1, 0.2)
    assert not make("diffmaxmultprob").equal(torch.tensor([0.1, 0.2]), torch.tensor([0.1, 0.3]))
    # A sum that grows for ever is not waited for.
    assert make("addmultprob").equal(0.1, 0.2)
    assert make("diffaddmultprob").equal(0.1, 0.2)
    assert make("diffnandmultprob").equal(0.1, 0.2)
    proofs = make("topkproofs", k=1)
    # A proof of probability zero is a proof.
    assert proofs.possible(proofs.fact("a", 0.0))


def test_discrete_ones():
    boolean = make("boolean")
    assert boolean.add(boolean.fact("a", False), boolean.fact("b", 0.3)) is True
    assert boolean.negate(boolean.fact("a", 0.3)) is False
    natural = make("natural")
    assert natural.output(natural.add(natural.mult(2, 3), 1)) == 7
    tropical = make("tropical")
    a, b = tropical.fact("a", 3), tropical.fact("b", 5)
    assert tropical.output(tropical.add(tropical.mult(a, b), tropical.fact("c", 9))) == 8
    assert tropical.add(tropical.zero, a) == a
    assert not tropical.possible(tropical.mult(tropical.zero, a))
    unit = make("unit")
    assert unit.output(unit.one) == ()
    assert not unit.tagged


def test_proofs():
    proofs = make("proofs")
    a, b, c = (proofs.fact(key, 0.5) for key in "abc")
    d, e = (proofs.fact(key, 0.5, "group") for key in "de")
    both = proofs.mult(proofs.add(a, b), c)
    assert proofs.output(both) == [[0, 2], [1, 2]]
    assert proofs.mult(d, e) == proofs.zero
    assert proofs.negate(proofs.zero) == proofs.one
    with pytest.raises(ByssusError, match="'proofs' has no negation"):
        proofs.negate(a)


# Proofs


def test_the_k_most_probable_proofs_are_kept():
    # As Scallop's own test: of ab and cd with 0.9 0.8 and 0.2 0.1, one is kept.
    for name in ("topkproofs", "topbottomkclauses"):
        algebra = make(name, k=1)
        a, b, c, d = (algebra.fact(i, p) for i, p in enumerate([0.9, 0.8, 0.2, 0.1]))
        tag = algebra.add(algebra.mult(a, b), algebra.mult(c, d))
        assert algebra.weight(tag) == pytest.approx(0.72)
        assert tag == algebra.mult(a, b)


def test_facts_that_exclude_each_other():
    algebra = make("topkproofs")
    a, b = (algebra.fact(key, p, "digit") for key, p in [("a", 0.9), ("b", 0.1)])
    assert algebra.mult(a, b) == algebra.zero
    # Scallop takes them for independent where it counts: 1 - 0.1 * 0.9, not 1.
    assert algebra.weight(algebra.add(a, b)) == pytest.approx(0.91)
    algebra = make("topkproofs", wmc_with_disjunctions=True)
    a, b = (algebra.fact(key, p, "digit") for key, p in [("a", 0.9), ("b", 0.1)])
    assert algebra.weight(algebra.add(a, b)) == pytest.approx(1.0)
    assert algebra.weight(algebra.mult(a, algebra.negate(b))) == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["topkproofs", "difftopbottomkclauses", "addmultprob"])
def test_alternatives_without_probabilities(name):
    algebra = make(name)
    a, b = algebra.choices("either", 2)
    assert algebra.weight(a) == algebra.weight(b) == 1.0
    assert algebra.possible(algebra.mult(a, b)) == (name == "addmultprob")


def test_the_same_fact_is_the_same():
    algebra = make("topkproofs")
    a = algebra.fact("a", 0.5)
    assert algebra.fact("a", 0.5) == a
    assert algebra.mult(a, a) == a
    assert algebra.mult(a, algebra.negate(a)) == algebra.zero
    assert algebra.weight(algebra.add(a, algebra.negate(a))) == pytest.approx(1)


def test_sampled_proofs():
    algebra = make("samplekproofs", k=2)
    facts = [algebra.fact(i, p) for i, p in enumerate([0.9, 0.5, 0.001, 0.001])]
    either = algebra.sum(facts)
    assert len(either) == 2
    assert algebra.sum(facts[:2]) == tuple(f[0] for f in facts[:2])
    with pytest.raises(ByssusError, match="no negation"):
        algebra.negate(either)
    counts = [0, 0, 0, 0]
    for seed in range(100):
        algebra = make("samplekproofs", k=1, seed=seed)
        facts = [algebra.fact(i, p) for i, p in enumerate([0.5, 0.3, 0.1, 0.1])]
        (proof,) = algebra.sum(facts)
        counts[facts.index((proof,))] += 1
    assert counts[0] > 30 > counts[2]


@st.composite
def formulas(draw, size=4):
    """A formula over so many facts, as nested tuples."""
    if size == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.integers(0, 4))
    kind = draw(st.sampled_from(["and", "or", "not"]))
    if kind == "not":
        return (kind, draw(formulas(size - 1)))
    return (kind, draw(formulas(size - 1)), draw(formulas(size - 1)))


def evaluate(formula, facts, add, mult, negate) -> Any:
    if isinstance(formula, int):
        return facts[formula]
    operation = {"and": mult, "or": add, "not": negate}[formula[0]]
    return operation(*(evaluate(part, facts, add, mult, negate) for part in formula[1:]))


def truth(formula, world):
    return evaluate(formula, world, lambda a, b: a or b, lambda a, b: a and b, lambda a: not a)


@pytest.mark.parametrize("name", ["topkproofs", "topbottomkclauses"])
@settings(max_examples=100, deadline=None)
@given(
    formula=formulas(),
    probabilities=st.lists(st.sampled_from(PROBABILITIES), min_size=5, max_size=5),
)
def test_with_all_proofs_the_probability_is_exact(name, formula, probabilities):
    algebra = make(name, k=10_000)
    facts = [algebra.fact(i, p) for i, p in enumerate(probabilities)]
    tag = evaluate(formula, facts, algebra.add, algebra.mult, algebra.negate)
    expected = sum(
        math.prod(p if holds else 1 - p for p, holds in zip(probabilities, world, strict=True))
        for world in itertools.product([False, True], repeat=5)
        if truth(formula, world)
    )
    assert algebra.weight(tag) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["topkproofs", "topbottomkclauses"])
@settings(max_examples=60, deadline=None)
@given(formula=formulas(3))
def test_disjunctions_are_variables_when_asked_for(name, formula):
    # Facts 0, 1, 2 are values of one variable, of which there may be none; 3 and 4 of another.
    probabilities = [0.5, 0.2, 0.1, 0.3, 0.7]
    groups = ["x", "x", "x", "y", "y"]
    algebra = make(name, k=10_000, wmc_with_disjunctions=True)
    facts = [algebra.fact(i, p, groups[i]) for i, p in enumerate(probabilities)]
    tag = evaluate(formula, facts, algebra.add, algebra.mult, algebra.negate)
    expected = 0.0
    for x, y in itertools.product([0, 1, 2, None], [3, 4, None]):
        weight = 0.2 if x is None else probabilities[x]
        weight *= 0.0 if y is None else probabilities[y]
        if truth(formula, [i in (x, y) for i in range(5)]):
            expected += weight
    assert algebra.weight(tag) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["difftopkproofs", "difftopbottomkclauses"])
@pytest.mark.parametrize("disjunctions", [False, True])
@settings(max_examples=20, deadline=None)
@given(formula=formulas(3))
def test_gradients_of_proofs(name, disjunctions, formula):
    values = torch.tensor([0.5, 0.25, 0.125, 0.3, 0.4], dtype=torch.float64, requires_grad=True)
    groups = ["x", "x", None, None, "x"]

    def program(values):
        algebra = make(name, k=1000, wmc_with_disjunctions=disjunctions)
        facts = [algebra.fact(i, p, groups[i]) for i, p in enumerate(values)]
        return algebra.output(evaluate(formula, facts, algebra.add, algebra.mult, algebra.negate))

    assert torch.autograd.gradcheck(program, (values,))


def test_many_outputs_at_once():
    algebra = make("difftopkproofs")
    values = torch.tensor([0.5, 0.25], requires_grad=True)
    a, b = (algebra.fact(i, p) for i, p in enumerate(values))
    constant = algebra.fact("c", 0.5)
    outputs = algebra.outputs([algebra.mult(a, b), None, algebra.one, algebra.mult(b, constant)])
    assert outputs.tolist() == [0.125, 0, 1, 0.125]
    outputs.sum().backward()
    assert values.grad.tolist() == [0.25, 1.0]
    assert make("difftopkproofs").outputs([((),), None]).tolist() == [1, 0]


def test_long_proofs_do_not_exhaust_the_stack():
    algebra = make("topkproofs", k=2)
    tag, other = algebra.one, algebra.one
    for i in range(3000):
        tag = algebra.mult(tag, algebra.fact(i, 0.999))
        if i % 2:
            other = algebra.mult(other, algebra.fact(i, 0.999))
    assert algebra.weight(algebra.add(tag, other)) == pytest.approx(0.999**1500)


def test_users_own_provenance():
    class Cost:
        def zero(self):
            return None

        def one(self):
            return 0

        def tagging_fn(self, tag):
            return self.one() if tag is None else tag

        def recover_fn(self, tag):
            return {"cost": tag}

        def discard(self, tag):
            return tag is None

        def add(self, a, b):
            return min(a, b)

        def mult(self, a, b):
            return a + b

        def saturated(self, old, new):
            return old == new

    algebra = Custom(Cost())
    a, b = algebra.fact("a", 3), algebra.fact("b", 4)
    assert algebra.output(algebra.add(algebra.mult(a, b), 9)) == {"cost": 7}
    assert not algebra.possible(algebra.zero)
    assert algebra.equal(3, 3)
    assert not algebra.equal(3, 4)
