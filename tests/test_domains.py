"""Domains against brute force (itertools), and ISED's Tables 1 and 2 in literal numbers."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import time

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import tensor

from byssus.domains import (
    Boolean,
    Discrete,
    Domain,
    Float,
    Integer,
    List,
    Padded,
    Permutation,
    Tuple,
    check_probabilities,
)
from byssus.errors import (
    ByssusError,
    DomainError,
    EmptyBatchError,
    ProbabilityError,
    ShapeError,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SYMBOLS = Discrete("0123456789+-*/")
DIGIT = Integer(0, 9)

# Random domains, each with its values listed by hand

Pair = tuple[Domain, list]

leaves = st.one_of(
    st.tuples(st.integers(-3, 3), st.integers(0, 2)).map(
        lambda t: (Integer(t[0], t[0] + t[1]), list(range(t[0], t[0] + t[1] + 1)))
    ),
    st.just((Boolean(), [False, True])),
    st.lists(st.sampled_from([0, 1.0, True, "a", (1, "b"), None]), min_size=1, max_size=3).map(
        lambda vs: (Discrete(dict.fromkeys(vs)), list(dict.fromkeys(vs)))
    ),
    st.tuples(st.integers(1, 3), st.integers(0, 2)).map(
        lambda t: (Permutation(*t), list(itertools.permutations(range(t[1], t[0] + t[1]))))
    ),
)


def tuples(pairs: list[Pair]) -> Pair:
    return Tuple(*(d for d, _ in pairs)), list(itertools.product(*(vs for _, vs in pairs)))


@st.composite
def lists(draw: st.DrawFn, parts: st.SearchStrategy[Pair]) -> Pair:
    domain, values = draw(parts)
    longest = draw(st.integers(1, 3))
    shortest = draw(st.integers(0, longest))
    if shortest < longest and () in values:
        values = [value for value in values if value != ()]
    assume(len(values) ** longest <= 1000)
    try:
        built = List(domain, longest, shortest)
    except DomainError:  # elements that may be empty in another way: see test_lists_of_lists
        assume(False)
    lengths = range(shortest, longest + 1)
    return built, [v for n in lengths for v in itertools.product(values, repeat=n)]


pairs = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, min_size=1, max_size=3).map(tuples), lists(inner)),
    max_leaves=4,
).filter(lambda pair: pair[0].size <= 400)


def view_of(domain: Domain, values: list, lead: tuple[int, ...]):
    """One-hot views of certain values, every list in Padded."""
    if isinstance(domain, Tuple):
        parts = enumerate(domain.domains)
        return tuple(view_of(part, [v[i] for v in values], lead) for i, part in parts)
    if isinstance(domain, List):
        longest, filler = domain.max_length, next(iter(domain.domain))
        full = [e for v in values for e in (*v, *[filler] * (longest - len(v)))]
        lengths = tensor([len(v) for v in values]).reshape(lead)
        return Padded(view_of(domain.domain, full, (*lead, longest)), lengths)
    rows = torch.stack([domain.vectorize(v) for v in values])
    return rows.reshape(*lead, *rows.shape[1:])


@settings(deadline=None)
@given(pairs)
def test_values_agree_with_brute_force(pair: Pair) -> None:
    domain, values = pair
    assert domain.size == len(values)
    assert list(map(repr, domain.values)) == list(map(repr, values))
    assert list(domain) == values
    assert [domain.index(v) for v in values] == list(range(len(values)))
    assert all(v in domain for v in values)
    assert "no such value" not in domain


@settings(deadline=None)
@given(pairs)
def test_columns_round_trip(pair: Pair) -> None:
    domain, values = pair
    codes = [domain.encode(v) for v in values]
    assert len(set(codes)) == len(codes)
    assert all(
        len(code) == len(domain.widths)
        and all(-1 <= i < width for i, width in zip(code, domain.widths, strict=True))
        for code in codes
    )
    assert [repr(domain.decode(code)) for code in codes] == list(map(repr, values))
    assert domain.decode(np.array(codes[-1])) == domain.decode(tensor(codes[-1])) == values[-1]
    assert domain.enumerate().tolist() == list(map(list, codes))
    assert domain.enumerate().dtype == torch.long
    for start, stop in domain.permuted:
        for code in codes:
            part = sorted(code[start:stop])
            assert part in (list(range(stop - start)), [-1] * (stop - start))


@settings(deadline=None)
@given(pairs, st.data())
def test_masks_select_lengths(pair: Pair, data: st.DataObject) -> None:
    domain, values = pair
    codes = [list(domain.encode(v)) for v in values]
    masks = {tuple(i >= 0 for i in code) for code in codes}
    columns = len(domain.widths)
    masks.add(tuple(data.draw(st.lists(st.booleans(), min_size=columns, max_size=columns))))
    for mask in masks:
        expected = [code for code in codes if tuple(i >= 0 for i in code) == mask]
        assert domain.enumerate(mask).tolist() == expected
        assert domain.enumerate(mask).shape == (len(expected), columns)
        assert domain.count(mask) == len(expected)
        assert domain.count(torch.tensor(mask)) == len(expected)
    assert domain.count() == len(values)


@settings(deadline=None)
@given(pairs, st.data())
def test_flatten_inverts_vectorize(pair: Pair, data: st.DataObject) -> None:
    domain, values = pair
    batch = data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=4))
    columns = domain.flatten(view_of(domain, batch, (len(batch),)))
    codes = tensor([domain.encode(v) for v in batch])
    assert tuple(p.shape for p in columns.probs) == tuple((len(batch), w) for w in domain.widths)
    assert torch.equal(columns.mask, codes >= 0)
    for column, (probs, width) in enumerate(zip(columns.probs, domain.widths, strict=True)):
        check_probabilities(probs, "a column")
        index, real = codes[:, column], columns.mask[:, column]
        assert torch.equal(probs[real].argmax(-1), index[real])
        assert (probs[~real] == 1 / width).all()


@settings(deadline=None)
@given(pairs, st.data())
def test_aggregate_is_the_product_of_what_vectorize_marks(pair: Pair, data: st.DataObject) -> None:
    domain, values = pair
    value = data.draw(st.sampled_from(values))
    marks = flat(domain.vectorize(value, dtype=torch.float64))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    views = [torch.rand(m.shape, generator=generator, dtype=torch.float64) for m in marks]
    p = rebuilt(domain.vectorize(value), iter(views))
    hit = torch.cat([v[m == 1] for v, m in zip(views, marks, strict=True)])
    assume(len(hit))
    torch.testing.assert_close(domain.aggregate(value, p), hit.prod())
    torch.testing.assert_close(domain.aggregate(value, p, "min-max"), hit.min())


def flat(view) -> list[torch.Tensor]:
    return [view] if isinstance(view, torch.Tensor) else [t for part in view for t in flat(part)]


def rebuilt(view, tensors):
    if isinstance(view, torch.Tensor):
        return next(tensors)
    return tuple(rebuilt(part, tensors) for part in view)


@settings(deadline=None)
@given(pairs, pairs)
def test_identity(one: Pair, other: Pair) -> None:
    domain = one[0]
    domain.values  # noqa: B018 - a cache, which neither pickles nor counts
    again = eval(repr(domain))
    for same in (again, pickle.loads(pickle.dumps(domain)), copy.deepcopy(domain)):
        assert same == domain
        assert hash(same) == hash(domain)
    assert (domain == other[0]) == (repr(domain) == repr(other[0]))


# Table 1


@pytest.mark.parametrize(
    ("domain", "values", "widths"),
    [
        (Discrete("ab"), ("a", "b"), (2,)),
        (Integer(-1, 1), (-1, 0, 1), (3,)),
        (Boolean(), (False, True), (2,)),
        (
            Permutation(3),
            ((1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)),
            (3, 3, 3),
        ),
        (Permutation(2, start=0), ((0, 1), (1, 0)), (2, 2)),
        (
            Tuple(Integer(0, 1), Discrete("xy")),
            ((0, "x"), (0, "y"), (1, "x"), (1, "y")),
            (2, 2),
        ),
        (
            List(Boolean(), 2),
            ((), (False,), (True,), (False, False), (False, True), (True, False), (True, True)),
            (2, 2),
        ),
        (List(Integer(0, 1), 2, min_length=2), ((0, 0), (0, 1), (1, 0), (1, 1)), (2, 2)),
    ],
)
def test_table_1(domain: Domain, values: tuple, widths: tuple[int, ...]) -> None:
    assert domain.values == values
    assert domain.size == len(values)
    assert domain.widths == widths
    assert domain.finite


def test_sizes_are_never_listed() -> None:
    sudoku = List(List(Integer(1, 9), 9, min_length=9), 9, min_length=9)
    assert sudoku.size == 9**81
    assert sudoku.index([[9] * 9] * 9) == 9**81 - 1
    assert (
        Permutation(100).index(range_tuple := tuple(range(100, 0, -1))) == math.factorial(100) - 1
    )
    assert range_tuple in Permutation(100)
    assert Integer(0, 10**30).index(10**29) == 10**29
    assert next(iter(sudoku)) == ((1,) * 9,) * 9
    assert List(Integer(3, 3), 10**5).size == 10**5 + 1
    assert sudoku.count([True] * 81) == 9**81
    with pytest.raises(DomainError, match=r"values, and at most 1,000,000 are listed: iterate"):
        sudoku.values  # noqa: B018
    with pytest.raises(DomainError, match=r"values here, and at most .* sample from it"):
        sudoku.enumerate()


def test_enumerate_is_fast() -> None:
    start = time.perf_counter()
    assert Permutation(9).enumerate().shape == (362_880, 9)
    assert List(Integer(0, 9), 6).enumerate().shape == (1_111_111, 6)
    assert List(SYMBOLS, 7).enumerate([True] * 5 + [False] * 2).shape == (14**5, 7)
    assert time.perf_counter() - start < 10


def test_permuted_columns() -> None:
    assert DIGIT.permuted == ()
    assert Permutation(3).permuted == ((0, 3),)
    assert Tuple(DIGIT, Permutation(2), Permutation(3)).permuted == ((1, 3), (3, 6))
    assert List(Tuple(DIGIT, Permutation(2)), 2).permuted == ((1, 3), (4, 6))


def test_lists_of_lists() -> None:
    inner = List(DIGIT, 2)
    nested = List(inner, 3)
    assert nested == List(List(DIGIT, 2, min_length=1), 3)
    assert repr(nested) == "List(List(Integer(0, 9), 2, min_length=1), 3)"
    assert nested.encode([[1], [2, 3]]) == (1, -1, 2, 3, -1, -1)
    assert ((), (1,)) not in nested
    fixed = List(inner, 2, min_length=2)
    assert fixed.encode(((), (1,))) == (-1, -1, 1, -1)
    assert fixed.decode((-1, -1, 1, -1)) == ((), (1,))
    assert List(List(Float(), 2), 2).check_output([[], [1]]) == ((), (1.0,))
    with pytest.raises(DomainError, match=r"cannot vary in length: give min_length=1 to a list"):
        List(Tuple(inner, inner), 2)
    with pytest.raises(DomainError, match="cannot vary in length"):
        List(fixed, 2)


# Values by type


def test_types_are_told_apart() -> None:
    mixed = Discrete([1, True, 1.0, (1,), (True,)])
    assert mixed.size == 5
    assert [mixed.index(v) for v in (1, True, 1.0, (1,), [True])] == [0, 1, 2, 3, 4]
    assert mixed.matches(1, [True, 1.0, 1]) == [2]
    assert Discrete([0, 1]) != Discrete([False, True])
    assert Boolean() != Discrete([False, True])
    assert len({Discrete([1]), Discrete([True]), Discrete([1.0]), Discrete([1])}) == 3
    assert DIGIT != "Integer(0, 9)"


@pytest.mark.parametrize(
    ("domain", "value", "canonical"),
    [
        (DIGIT, np.int64(3), 3),
        (DIGIT, tensor(3), 3),
        (Boolean(), np.True_, True),
        (Discrete("ab"), np.str_("b"), "b"),
        (Discrete(np.arange(3)), 2, 2),
        (Discrete([(1, (2, 3))]), [1, [2, 3]], (1, (2, 3))),
        (Permutation(3), [3, 1, 2], (3, 1, 2)),
        (Permutation(3, start=0), np.argsort([3, 1, 2]), (1, 2, 0)),
        (Tuple(DIGIT, Boolean()), [np.int32(1), np.False_], (1, False)),
        (List(List(DIGIT, 2), 2), [[1], np.array([2, 3])], ((1,), (2, 3))),
        (Float(), 2, 2.0),
        (Float(), np.float32(0.5), 0.5),
        (Tuple(Float(), DIGIT), [1, 2], (1.0, 2)),
    ],
)
def test_check_output(domain: Domain, value: object, canonical: object) -> None:
    checked = domain.check_output(value)
    assert repr(checked) == repr(canonical)
    assert value in domain


@pytest.mark.parametrize(
    "domain",
    [
        Tuple(Discrete([0.0, 1, (1, 2), None]), Boolean()),
        List(Discrete([0.0, 1, (1, 2), None, True]), 2, min_length=2),
    ],
)
def test_tuples_that_are_looked_up_are_as_lists_that_are_not(domain: Domain) -> None:
    items = [0.0, -0.0, 0, 1, 1.0, True, False, (1, 2), [1, 2], None, "a", np.int64(1), np.True_]
    for pair in itertools.product(items, repeat=2):
        if list(pair) not in domain:
            with pytest.raises(DomainError):
                domain.check_output(pair)
            continue
        canonical = domain.check_output(list(pair))
        assert repr(domain.check_output(pair)) == repr(canonical)
        assert domain.decode(domain.encode(pair)) == canonical
        assert domain.encode(pair) == domain.encode(list(pair))


@pytest.mark.parametrize(
    ("domain", "value", "message"),
    [
        (DIGIT, 10, r"10 \(int\) is not a value of Integer\(0, 9\): give an int from 0 to 9"),
        (DIGIT, 3.0, r"3\.0 \(float\) is not a value of Integer"),
        (DIGIT, "3", r"'3' \(str\) is not"),
        (DIGIT, True, r"True \(bool\) is not"),
        (DIGIT, np.float64(2.5), r"\(float64\) is not a value"),
        (DIGIT, None, r"None \(NoneType\)"),
        (Boolean(), 1, r"1 \(int\) is not a value of Boolean\(\): give one of False, True"),
        (Discrete("ab"), "c", r"'c' \(str\) is not a value of Discrete.*: give one of 'a', 'b'"),
        (Discrete("ab"), {}, r"\{\} \(dict\) is not a value"),
        (Float(), True, r"True \(bool\) is not a value of Float\(0\.01\): give a finite"),
        (Float(), math.nan, r"nan \(float\)"),
        (Float(), math.inf, r"inf \(float\)"),
        (Float(), 10**400, r"\(int\) is not a value of Float"),
        (Float(), "1", r"'1' \(str\)"),
        (Permutation(3), (1, 2, 2), r"give each int from 1 to 3 once, in a tuple"),
        (Permutation(3), (1, 2), r"give each int from 1 to 3 once"),
        (Permutation(1), (), r"give each int from 1 to 1 once"),
        (Permutation(1), (True,), r"give each int from 1 to 1 once"),
        (Permutation(3), (0, 1, 2), r"it is one of Permutation\(3, start=0\)"),
        (Permutation(3), 5, r"5 \(int\) is not a value of Permutation\(3\)"),
        (Tuple(DIGIT, DIGIT), (1,), r"\(1,\) \(tuple\) is not .*: give a tuple of 2"),
        (Tuple(DIGIT, DIGIT), (1, "x"), r"part 1: 'x' \(str\) is not a value of Integer\(0, 9\)"),
        (List(DIGIT, 2), (1, 2, 3), r"give a tuple of 0 to 2 elements"),
        (List(Discrete("ab"), 2), "ab", r"'ab' \(str\) is not a value of List"),
        (List(DIGIT, 2), (1, 10), r"\(1, 10\) .* of List.*: element 1: 10 \(int\) is not"),
    ],
)
def test_values_refused(domain: Domain, value: object, message: str) -> None:
    assert value not in domain
    with pytest.raises(DomainError, match=message):
        domain.check_output(value)
    if domain.finite:
        for ask in (domain.index, domain.encode, domain.vectorize):
            with pytest.raises(DomainError, match=message):
                ask(value)


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(DomainError) as caught:
        List(DIGIT, 2).encode((1,) * 1000)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("domain", "indices", "message"),
    [
        (DIGIT, (10,), "index 10 is outside .*: give 0 to 9"),
        (DIGIT, (-1,), "index -1 is outside"),
        (DIGIT, (1, 2), "give 1 indices"),
        (List(DIGIT, 2), (-2, -1), "give 2 indices, -1 for padding"),
        (List(DIGIT, 2), (-1, 3), "give 0 to 2 elements, then -1"),
        (List(DIGIT, 2, min_length=1), (-1, -1), "give 1 to 2 elements, then -1"),
        (List(DIGIT, 2, min_length=2), (1, -1), "index -1 is outside"),
        (List(Tuple(DIGIT, DIGIT), 2), (1, -1, -1, -1), "index -1 is outside"),
        (Permutation(2), (0, 0), "give each int from 1 to 2 once"),
    ],
)
def test_indices_refused(domain: Domain, indices: tuple[int, ...], message: str) -> None:
    with pytest.raises(DomainError, match=message):
        domain.decode(indices)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Discrete([]), "give at least one value"),
        (lambda: Discrete(["a", "b", "a"]), "'a' comes twice, at 0 and 2: give it once"),
        (lambda: Discrete([1, np.int64(1)]), "1 comes twice"),
        (lambda: Discrete([[1]]), r"\[1\] \(list\) cannot be hashed: give a tuple for a list"),
        (lambda: Discrete([(1, [2])]), "cannot be hashed"),
        (lambda: Discrete({"a", "b"}), "give the values in order"),
        (lambda: Discrete(3), "give the values in order"),
        (lambda: Integer(2, 1), r"Integer\(2, 1\) is empty: give lo no greater than hi"),
        (lambda: Integer(0, 9.0), r"Integer: hi is 9\.0 \(float\): give an int"),
        (lambda: Integer(False, 1), r"Integer: lo is False \(bool\)"),
        (lambda: Float(0), "tolerance=0: give a positive number"),
        (lambda: Float("x"), "tolerance='x'"),
        (lambda: Permutation(0), r"Permutation\(0\) orders nothing"),
        (lambda: Permutation(2, start="a"), r"Permutation: start is 'a'"),
        (lambda: Tuple(), "give at least one part"),
        (lambda: Tuple(DIGIT, Boolean), r"part 1 of Tuple is .*Boolean.*: give a Domain.*Boolean"),
        (lambda: Tuple((DIGIT, DIGIT)), "part 0 of Tuple is "),
        (lambda: List(int, 3), "the element of List is <class 'int'>: give a Domain"),
        (lambda: List(DIGIT, 0), "max_length of 1 or more"),
        (lambda: List(DIGIT, 2, min_length=3), "give 0 <= min_length <= max_length"),
        (lambda: List(DIGIT, 2, min_length=-1), "give 0 <= min_length"),
        (lambda: List(DIGIT, None), "List: max_length is None"),
    ],
)
def test_domains_refused(build, message: str) -> None:
    with pytest.raises(DomainError, match=message):
        build()


def test_immutable() -> None:
    with pytest.raises(AttributeError, match=r"Integer\(0, 9\) is immutable"):
        DIGIT.lo = 3
    with pytest.raises(AttributeError, match="is immutable"):
        del DIGIT.lo


@pytest.mark.parametrize("domain", [Float(), Tuple(DIGIT, Float()), List(Float(), 2)])
def test_float_is_for_outputs(domain: Domain) -> None:
    assert not domain.finite
    value = {"Float": 1.0, "Tuple": (1, 1.0), "List": (1.0,)}[type(domain).__name__]
    view = torch.ones(1, 2, 1)
    for ask in (
        lambda: domain.size,
        lambda: domain.values,
        lambda: domain.widths,
        lambda: domain.permuted,
        lambda: iter(domain),
        lambda: domain.index(value),
        lambda: domain.encode(value),
        lambda: domain.decode([0]),
        lambda: domain.enumerate(),
        lambda: domain.count(),
        lambda: domain.count([True]),
        lambda: domain.flatten(view),
        lambda: domain.aggregate(value, view),
    ):
        with pytest.raises(DomainError, match="no finite list of values, so it is for outputs"):
            ask()


def test_matches() -> None:
    assert DIGIT.matches(3, [1, 3, 2, 3]) == [1, 3]
    assert DIGIT.matches(np.int64(3), [np.int64(3), None]) == [0]
    assert List(DIGIT, 2).matches([1, 2], [(1, 2), (1,), [1, 2]]) == [0, 2]
    assert Float(0.1).matches(1, [1.05, 1.2, 0.95, True, "x", math.nan]) == [0, 2]
    pair = Tuple(Float(0.1), DIGIT)
    assert pair.matches((1.0, 2), [(1.05, 2), (1.05, 3), (1.2, 2), (1.0,), None]) == [0]
    assert List(Float(0.1), 2).matches([1.0], [(1.0,), (1.0, 1.0), (), 1.0]) == [0]
    with pytest.raises(DomainError, match="12"):
        DIGIT.matches(12, [])


# Table 2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("domain", "value", "expected"),
    [
        (Integer(0, 2), 1, [0, 1, 0]),
        (Boolean(), True, [0, 1]),
        (Permutation(3), (2, 3, 1), [[0, 1, 0], [0, 0, 1], [1, 0, 0]]),
        (List(Integer(0, 1), 3), (1, 0), [[0, 1], [1, 0], [0, 0]]),
        (List(Integer(0, 1), 2), (), [[0, 0], [0, 0]]),
        (
            List(List(Integer(0, 1), 2), 2),
            ((1,), (0, 1)),
            [[[0, 1], [0, 0]], [[1, 0], [0, 1]]],
        ),
    ],
)
def test_vectorize(domain: Domain, value: object, expected: list, device: str) -> None:
    for dtype in (None, torch.float64):
        view = domain.vectorize(value, dtype=dtype, device=device)
        assert view.tolist() == expected
        assert view.dtype == (dtype or torch.get_default_dtype())
        assert view.device.type == device


def test_vectorize_structures() -> None:
    digit, flag = Tuple(Integer(0, 2), Boolean()).vectorize((2, False))
    assert (digit.tolist(), flag.tolist()) == ([0, 0, 1], [1, 0])
    digits, flags = List(Tuple(Integer(0, 2), Boolean()), 2).vectorize([(1, True)])
    assert digits.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert flags.tolist() == [[0, 1], [0, 0]]


def test_vectorize_float() -> None:
    assert Float().vectorize(2.0, [1.0, 3.5, 2.0, 8.0]).tolist() == [0, 0, 1, 0]  # section 3.2
    assert Float(1).vectorize(2, [1.0, 1.5, 3]).tolist() == [0, 1, 0]
    assert Float().vectorize(2).shape == (0,)
    assert Float().vectorize(2, [2], dtype=torch.float64).dtype == torch.float64
    number, flag = Tuple(Float(), Boolean()).vectorize((1, True), [(1.0, False), (2.0, True)])
    assert (number.tolist(), flag.tolist()) == ([1, 0], [0, 1])
    with pytest.raises(DomainError, match="no finite list"):
        List(Float(), 2).vectorize([1.0], [[1.0]])


@pytest.mark.parametrize("device", DEVICES)
def test_aggregate_of_the_paper(device: str) -> None:
    domain = List(SYMBOLS, 7)
    p = torch.full((3, 14), 0.07, device=device)
    p[0, 1], p[1, 10], p[2, 1] = 0.1, 0.05, 0.1
    least = domain.aggregate(["1", "+", "1"], p, "min-max")
    assert least.device.type == device
    assert least.shape == ()
    assert least.item() == pytest.approx(0.05)
    assert domain.aggregate(["1", "+", "1"], p).item() == pytest.approx(0.1 * 0.05 * 0.1)
    assert domain.aggregate(["1", "+"], p).item() == pytest.approx(0.1 * 0.05)
    for semiring in ("add-mult", "min-max"):
        assert domain.aggregate([], p, semiring).item() == 1
    with pytest.raises(ShapeError, match=r"p has fewer positions than .*: give one for each"):
        domain.aggregate(["1", "+", "1", "+"], p)


def test_aggregate_by_case() -> None:
    assert Integer(0, 2).aggregate(1, tensor([0.2, 0.5, 0.3])).item() == pytest.approx(0.5)
    p = tensor([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.5, 0.25, 0.25]])
    assert Permutation(3).aggregate((3, 1, 2), p).item() == pytest.approx(0.7 * 0.3 * 0.25)
    assert Permutation(3).aggregate((3, 1, 2), p, "min-max").item() == pytest.approx(0.25)
    pair = Tuple(Integer(0, 2), Boolean())
    view = (tensor([0.2, 0.5, 0.3]), tensor([0.1, 0.9]))
    assert pair.aggregate((2, True), view).item() == pytest.approx(0.27)
    assert pair.aggregate((2, True), list(view), "min-max").item() == pytest.approx(0.3)
    several = List(pair, 2)
    views = tuple(torch.stack([part, part]) for part in view)
    assert several.aggregate([(2, True)], views).item() == pytest.approx(0.27)
    assert several.aggregate([(2, True), (0, False)], views).item() == pytest.approx(0.27 * 0.02)


def test_aggregate_gradients() -> None:
    domain = List(Tuple(Integer(0, 2), Permutation(2)), 2)
    torch.manual_seed(0)
    digits = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    orders = torch.rand(2, 2, 2, dtype=torch.float64, requires_grad=True)
    for semiring in ("add-mult", "min-max"):
        assert torch.autograd.gradcheck(
            lambda a, b, s=semiring: domain.aggregate([(1, (2, 1)), (0, (1, 2))], (a, b), s),
            (digits, orders),
        )
    domain.aggregate([(1, (2, 1))], (digits, orders)).backward()
    torch.testing.assert_close(digits.grad[0, 1], (orders[0, 0, 1] * orders[0, 1, 0]).detach())
    assert digits.grad.count_nonzero() == 1
    zeros = torch.zeros(2, requires_grad=True)
    Boolean().aggregate(True, zeros).backward()
    assert zeros.grad.tolist() == [0, 1]


def test_aggregate_errors() -> None:
    with pytest.raises(ByssusError, match="semiring='max': give 'add-mult' or 'min-max'"):
        DIGIT.aggregate(1, torch.ones(10), "max")
    with pytest.raises(DomainError, match="11"):
        DIGIT.aggregate(11, torch.ones(10))
    with pytest.raises(ShapeError, match=r"shape \(1, 9\), and Integer\(0, 9\) expects \(1, 10\)"):
        DIGIT.aggregate(1, torch.ones(9))
    with pytest.raises(ShapeError, match="p is of type str: give a tensor"):
        DIGIT.aggregate(1, "p")


# Views


@pytest.mark.parametrize("device", DEVICES)
def test_flatten_by_case(device: str) -> None:
    digits = torch.rand(4, 10, device=device).softmax(-1)
    orders = torch.rand(4, 3, 3, device=device).softmax(-1)
    columns = Tuple(DIGIT, Permutation(3)).flatten((digits, orders))
    assert all(
        torch.equal(got, want)
        for got, want in zip(columns.probs, (digits, *orders.unbind(1)), strict=True)
    )
    assert columns.mask.all()
    assert columns.mask.shape == (4, 4)
    assert columns.mask.device.type == device
    assert DIGIT.flatten(digits).mask.tolist() == [[True]] * 4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ragged", [True, False])
def test_flatten_lists(device: str, ragged: bool) -> None:
    examples = [torch.rand(n, 4, device=device).softmax(-1) for n in (2, 0, 1)]
    padding = torch.full((3, 2, 4), torch.nan, device=device)
    for row, example in zip(padding, examples, strict=True):
        row[: len(example)] = example
    view = examples if ragged else Padded(padding.requires_grad_(), tensor([2, 0, 1]))
    columns = List(Integer(0, 3), 3).flatten(view)
    assert columns.mask.tolist() == [[True, True, False], [False] * 3, [True, False, False]]
    assert len(columns.probs) == 3
    for position, probs in enumerate(columns.probs):
        for row, example in zip(probs, examples, strict=True):
            whole = position < len(example)
            assert torch.equal(row, example[position] if whole else torch.full_like(row, 0.25))
    if not ragged:
        torch.stack(columns.probs).sum().backward()
        assert padding.grad.isfinite().all()
        assert padding.grad[1].count_nonzero() == 0


def test_flatten_nested_lists() -> None:
    domain = List(List(Integer(0, 3), 3), 2)
    view = torch.rand(2, 2, 3, 4).softmax(-1)
    outer, inner = tensor([2, 1]), tensor([[3, 1], [2, 0]])  # the 0 is in padding
    columns = domain.flatten(Padded(view, (outer, inner)))
    expected = [[True, True, True, True, False, False], [True, True] + [False] * 4]
    assert columns.mask.tolist() == expected
    assert torch.equal(columns.probs[3][0], view[0, 1, 0])
    assert (columns.probs[3][1] == 0.25).all()
    assert torch.equal(domain.flatten(Padded(Padded(view, inner), outer)).mask, columns.mask)
    assert domain.flatten(view).mask.all()
    assert domain.flatten(Padded(view, outer)).mask.sum().item() == 9
    with pytest.raises(ShapeError, match=r"length 0 at \[0, 1\]: give lengths from 1 to 3"):
        domain.flatten(Padded(view, (outer, tensor([[3, 0], [2, 0]]))))


def test_flatten_lists_of_tuples() -> None:
    domain = Tuple(List(Tuple(Integer(0, 3), Permutation(2)), 3), Boolean())
    digits, orders = torch.rand(5, 2, 4), torch.rand(5, 2, 2, 2)
    flags = torch.rand(5, 2)
    columns = domain.flatten((Padded((digits, orders), tensor([2, 1, 0, 2, 2])), flags))
    assert tuple(p.shape[1] for p in columns.probs) == domain.widths == (4, 2, 2) * 3 + (2,)
    assert columns.mask.sum(1).tolist() == [7, 4, 1, 7, 7]
    assert torch.equal(columns.probs[4], torch.where(columns.mask[:, 4:5], orders[:, 1, 0], 0.5))


@pytest.mark.parametrize(
    ("domain", "view", "message"),
    [
        (DIGIT, torch.ones(2, 9), r"x is a tensor of shape \(2, 9\), and Integer.* \(2, 10\)"),
        (DIGIT, torch.ones(2, 1, 10), r"shape \(2, 1, 10\), and .* expects \(2, 10\)"),
        (DIGIT, torch.tensor(1.0), r"x is a tensor of shape \(\): give the view of a batch"),
        (DIGIT, "view", "x is of type str: give the view of a batch"),
        (DIGIT, Padded(torch.ones(2, 10), tensor([1, 1])), "x is of type Padded, and"),
        (Permutation(3), torch.ones(2, 3, 4), r"\(2, 3, 4\), and .* expects \(2, 3, 3\)"),
        (Tuple(DIGIT, DIGIT), (torch.ones(2, 10),), "x is a tuple of 1, and .* a tuple of 2"),
        (Tuple(DIGIT, DIGIT), torch.ones(2, 10), "part 0 of|x is a tensor .* a tuple of 2"),
        (
            Tuple(DIGIT, Boolean()),
            (torch.ones(2, 10), torch.ones(2, 3)),
            r"part 1 of x is a tensor of shape \(2, 3\), and Boolean\(\) expects \(2, 2\)",
        ),
        (
            Tuple(DIGIT, Boolean()),
            (torch.ones(2, 10), torch.ones(3, 2)),
            r"part 1 of x .* \(3, 2\), and .* \(2, 2\)",
        ),
        (List(DIGIT, 3), torch.ones(2, 10), r"\(2, 10\), and .* \(2, 0 to 3 positions, \.\.\.\)"),
        (List(DIGIT, 3), torch.ones(2, 4, 10), "0 to 3 positions"),
        (List(DIGIT, 3, 3), torch.ones(2, 2, 10), "3 to 3 positions"),
        (List(DIGIT, 3), torch.ones(2, 3, 9), r"each element of x is .* expects \(2, 3, 10\)"),
        (
            List(DIGIT, 3),
            Padded(torch.ones(2, 2, 10), tensor([1, 3])),
            r"x has a list of length 3 at \[1\]: give lengths from 0 to 2",
        ),
        (List(DIGIT, 3), Padded(torch.ones(2, 2, 10), tensor([-1, 2])), r"length -1 at \[0\]"),
        (
            List(DIGIT, 3),
            Padded(torch.ones(2, 2, 10), tensor([1])),
            r"the lengths of x are a tensor of shape \(1,\).*: give integers of shape \(2,\)",
        ),
        (List(DIGIT, 3), Padded(torch.ones(2, 2, 10), torch.ones(2)), "float32: give integers"),
        (
            List(DIGIT, 3),
            Padded(torch.ones(2, 2, 10), [1, 2]),
            "the lengths of a Padded are of type int",
        ),
        (List(DIGIT, 3), Padded(torch.ones(2, 2, 10), ()), "the lengths of a Padded"),
        (
            List(DIGIT, 3),
            [torch.ones(2, 10), torch.ones(1, 9)],
            r"example 1 of x is a tensor of shape \(1, 9\), and example 0 .* only their lengths",
        ),
        (List(DIGIT, 3), [torch.ones(10)], r"example 0 of x .* give \(length, \.\.\.\)"),
        (List(DIGIT, 3), [[torch.ones(10)]], r"example 0 of x is a list of 1"),
        (
            Tuple(DIGIT, List(DIGIT, 3)),
            (torch.ones(2, 10), [torch.ones(2, 10)]),
            "part 1 of x is a list of 1, and a Python list holds one tensor for each of 2",
        ),
        (List(List(DIGIT, 2), 3), [[torch.ones(2, 10)]], "example 0 of x is a list"),
    ],
)
def test_views_refused(domain: Domain, view, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        domain.flatten(view, "x")


@pytest.mark.parametrize(
    ("domain", "view"),
    [
        (DIGIT, torch.ones(0, 10)),
        (List(DIGIT, 2), []),
        (Tuple(DIGIT, DIGIT), (torch.ones(0, 10), torch.ones(0, 10))),
        (List(DIGIT, 2), Padded(torch.ones(0, 2, 10), torch.ones(0, dtype=torch.long))),
    ],
)
def test_empty_batches(domain: Domain, view) -> None:
    with pytest.raises(EmptyBatchError, match="the view has no examples: give a batch of one"):
        domain.flatten(view)


def test_integer_tensors_are_refused() -> None:
    with pytest.raises(ProbabilityError, match=r"the view is of torch\.int64: give probabilities"):
        DIGIT.flatten(torch.ones(2, 10, dtype=torch.long))


def test_masks_refused() -> None:
    for ask in (DIGIT.count, DIGIT.enumerate):
        with pytest.raises(ShapeError, match=r"a mask of 2 entries .* each of its 1 columns"):
            ask([True, True])


# Probabilities


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_softmax_is_accepted(dtype: torch.dtype, device: str) -> None:
    logits = torch.randn(8, 3, 100, device=device, requires_grad=True)
    check_probabilities(logits.softmax(-1).to(dtype), "p")
    check_probabilities(torch.ones(0, 3), "p")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.5, 0.5], [math.nan, 1.0]], r"row 1 of p are not finite: .*; they are nan, 1\.0"),
        ([[math.inf, 0.0], [math.nan, 1.0]], r"row 0 of p are not finite"),
        ([[math.inf, -math.inf]], r"row 0 of p are not finite"),
        ([[0.5, 0.5], [1.5, -0.5]], r"row 1 of p are negative in part: .* not logits"),
        ([[0.5, 0.5], [0.5, 0.75]], r"row 1 of p sum to 1\.25: .*; they are 0\.5, 0\.75"),
        ([[0.5, 0.499]], r"row 0 of p sum to 0\.999"),
        ([[[0.5, 0.5], [0.5, 0.25]]], r"row \(0, 1\) of p sum to 0\.75"),
        ([0.5, 0.25], r"in p sum to 0\.75"),
    ],
)
def test_probabilities_refused(rows: list, message: str) -> None:
    with pytest.raises(ProbabilityError, match=message):
        check_probabilities(tensor(rows), "p")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1e-3, -1e-3]))
def test_tolerance_follows_the_dtype(seed: int, off: float) -> None:
    probs = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed)).softmax(-1)
    probs[1, 2] += off
    check_probabilities(probs.half(), "p")
    with pytest.raises(ProbabilityError, match="row 1 of p sum to"):
        check_probabilities(probs, "p")
