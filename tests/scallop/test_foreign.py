from __future__ import annotations

import copy
import pickle
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from byssus import (
    BlackBox,
    BlackBoxError,
    BlackBoxOutputError,
    Boolean,
    BudgetExceeded,
    ByssusError,
    Discrete,
    Distribution,
    Integer,
    ProgramError,
    blackbox,
)
from byssus._calls import Failure
from byssus_scallop import _values
from byssus_scallop import value_types as v
from byssus_scallop._blackbox import (
    BlackBoxDeclaration,
    BlackBoxes,
    ForeignBox,
    RegisterBlackBoxAction,
)
from byssus_scallop._operators import Dropped
from byssus_scallop._parser import parse_program
from byssus_scallop._syntax import Item, Source
from byssus_scallop.attribute import (
    AttributeAction,
    ErrorAction,
    ForeignAttributeProcessor,
    ItemNode,
    MultipleActions,
    NoAction,
    RegisterForeignFunctionAction,
    RegisterForeignPredicateAction,
    RemoveItemAction,
    TypeNode,
    cmd_arg,
    foreign_attribute,
    py_eval,
)
from byssus_scallop.foreign import (
    SUPPRESSED,
    Facts,
    ForeignFunction,
    ForeignPredicate,
    GenericTypeParameter,
    foreign_function,
    foreign_predicate,
)

T = GenericTypeParameter(v.Number)
U = GenericTypeParameter()


# Functions


@foreign_function
def my_sum(*numbers: T) -> T:
    """Adds up."""
    total = 0
    for number in numbers:
        total += number
    return total


@foreign_function(name="index_of", suppress_warning=True)
def my_index(s1: str, s2: str, start: int = 0) -> v.usize:
    return s1.index(s2, start)


def test_the_types_of_a_function_are_its_annotations() -> None:
    assert my_sum.name == "my_sum"
    assert (my_sum.arguments, my_sum.optional, my_sum.variadic) == ((), (), "T0")
    assert (my_sum.result, my_sum.generics) == ("T0", {"T0": "Number"})
    assert my_index.name == "index_of"
    assert (my_index.arguments, my_index.optional) == (("String", "String"), ("Integer",))
    assert (my_index.variadic, my_index.result) == (None, "usize")


@pytest.mark.parametrize(
    ("annotation", "argument"),
    [
        (int, "Integer"),
        (float, "Float"),
        (any, "Any"),
        (Any, "Any"),
        (v.Any, "Any"),
        (bool, "bool"),
        (v.bool, "bool"),
        (str, "String"),
        ("Symbol", "Symbol"),
        (v.u128, "u128"),
        (v.SignedInteger, "SignedInteger"),
        (v.DateTime, "DateTime"),
        (torch.Tensor, "Tensor"),
        (v.Tensor, "Tensor"),
        (TypeNode("i8"), "i8"),
    ],
)
def test_every_type_and_family_can_be_an_argument(annotation: Any, argument: str) -> None:
    def first(x, y=None):  # type: ignore[no-untyped-def]
        return 1

    first.__annotations__ = {"x": annotation, "y": annotation, "return": v.i32}
    made = foreign_function(first)
    assert (made.arguments, made.optional) == ((argument,), (argument,))
    beside = foreign_function("f", [annotation], [annotation], annotation, "i32")(lambda *x: 1)
    assert (beside.arguments, beside.optional, beside.variadic) == (
        (argument,),
        (argument,),
        argument,
    )


@pytest.mark.parametrize(
    ("annotation", "result"), [(int, "i32"), (float, "f32"), (bool, "bool"), ("f64", "f64")]
)
def test_a_result_is_of_one_type(annotation: Any, result: str) -> None:
    # the book's `def my_sum(*args: int) -> int`
    def first(*args):  # type: ignore[no-untyped-def]
        return 1

    first.__annotations__ = {"args": int, "return": annotation}
    assert foreign_function(first).result == result


def test_types_can_be_given_beside_the_function() -> None:
    @foreign_function(
        "join", arg_types=[str], opt_arg_types=["char"], var_arg_type=v.String, ret_type=str
    )
    def joined(a, b=" ", *c):  # type: ignore[no-untyped-def]
        return a + b + "".join(c)

    assert (joined.name, joined.arguments, joined.optional) == ("join", ("String",), ("char",))
    assert (joined.variadic, joined.result) == ("String", "String")
    assert joined("x", "y") == "xy"


def test_optional_arguments_may_say_so() -> None:
    @foreign_function
    def f(a: v.i32, b: v.i8 | None = None) -> v.i32:
        return a if b is None else b

    assert f.optional == ("i8",)


def test_a_function_remains_a_function() -> None:
    assert my_sum(1, 2, 3) == 6
    assert my_index("hello", "l", start=3) == 3
    assert my_sum.__doc__ == "Adds up."
    assert my_sum.func is not None
    assert pickle.loads(pickle.dumps(my_sum)) is my_sum
    assert copy.deepcopy(my_sum) is my_sum
    assert repr(my_index) == "extern fn $index_of(String, String, Integer?) -> usize"
    assert repr(my_sum) == "extern fn $my_sum<T0: Number>(T0...) -> T0"


def test_the_engine_gets_values_of_the_types_it_asked_for() -> None:
    @foreign_function
    def half(x: float) -> v.f32:
        return x / 2

    @foreign_function
    def next_day(d: v.DateTime) -> v.Duration:
        assert isinstance(d, str)
        return "1 day"

    assert half.implement(("f64",), "f32")(0.2) == _values.convert(0.1, "f32", "x")
    day = _values.convert("2020-01-31", "DateTime", "x")
    got = next_day.implement(("DateTime",), "Duration")(day)
    assert got == _values.convert("1 day", "Duration", "x")
    assert my_sum.implement(("i8", "i8"), "i8")(100, 27) == 127
    with pytest.raises(ByssusError, match=r"\$my_sum.*128"):
        my_sum.implement(("i8", "i8"), "i8")(100, 28)


def test_what_a_function_raises_passes_through() -> None:
    @foreign_function
    def fails(x: int) -> v.i32:
        raise KeyError(x)

    with pytest.raises(KeyError):
        fails.implement(("i32",), "i32")(1)
    with pytest.raises(Dropped, match=SUPPRESSED):
        my_index.implement(("String", "String"), "usize")("a", "b")


def _no_argument_type(a, b: v.i32) -> v.usize:  # type: ignore[no-untyped-def]
    return a


def _no_result_type(a: int):  # type: ignore[no-untyped-def]
    return a


def _strange(a: dict[str, int]) -> v.i32:
    return 1


def _free_generic(a: v.usize) -> T:
    return a


def _family(a: v.usize) -> v.Integer:
    return a


def _keyword(a: v.usize, *, b: int) -> v.usize:
    return a


def _unknown(a: Nowhere) -> v.usize:  # type: ignore[name-defined]
    return a


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_no_argument_type, "_no_argument_type: argument a has no type: write `a: int`"),
        (_no_result_type, "_no_result_type has no type of its result: write `-> int`"),
        (_strange, "_strange: argument a: dict.*is no type"),
        (_free_generic, "_free_generic: .* a parameter that no argument has"),
        (_family, "_family: its result: Integer is a family of types"),
        (_keyword, "_keyword: argument b is for keywords only"),
        (_unknown, "_unknown: argument a: 'Nowhere' is not known"),
        (lambda a: a, "is no name of a foreign function"),
    ],
)
def test_a_function_without_types_says_what_to_write(function: Any, message: str) -> None:
    with pytest.raises(ByssusError, match=message):
        foreign_function(function)


def test_a_built_in_function_is_not_called_from_python() -> None:
    built_in = ForeignFunction("abs", ("T",), "T", lambda types, result: abs, {"T": "Number"})
    assert built_in.implement(("i32",), "i32")(-3) == 3
    with pytest.raises(ByssusError, match="abs is built in"):
        built_in(-3)


@pytest.mark.parametrize("family", ["Text", "i32", [int]])
def test_a_generic_parameter_has_a_family(family: Any) -> None:
    with pytest.raises(ByssusError, match=r"famil|no type"):
        GenericTypeParameter(family)


def test_generic_parameters_are_told_apart() -> None:
    @foreign_function
    def choose(c: bool, a: T, b: U) -> U:
        return b

    assert choose.arguments == ("bool", "T0", "T1")
    assert (choose.result, choose.generics) == ("T1", {"T0": "Number", "T1": "Any"})
    assert GenericTypeParameter(int).type_family == "Integer"


# Predicates


@foreign_predicate
def my_range(a: int, b: int) -> Facts[None, tuple[int]]:
    for i in range(a, b):
        yield (i,)


@foreign_predicate
def letters(s: str) -> Facts[float, tuple[v.usize, v.char]]:
    for i, c in enumerate(s):
        yield 1 / (i + 1), (i, c)


def test_the_types_of_a_predicate_are_its_annotations() -> None:
    assert (my_range.name, my_range.types, my_range.bound) == ("my_range", ("i32",) * 3, 2)
    assert (letters.types, letters.bound) == (("String", "usize", "char"), 1)
    assert repr(my_range) == "extern pred my_range[bbf](i32, i32, i32)"


def test_a_predicate_yields_tags_and_tuples() -> None:
    assert my_range.implement(())(1, 5) == [(None, (i,)) for i in (1, 2, 3, 4)]
    assert letters.implement(())("ab") == [(1.0, (0, "a")), (0.5, (1, "b"))]
    assert list(my_range(1, 3)) == [(1,), (2,)]
    assert pickle.loads(pickle.dumps(my_range)) is my_range


@pytest.mark.parametrize(
    ("annotation", "types"),
    [
        (Facts[None, str], ("String",)),
        (Facts[None, tuple[str]], ("String",)),
        (Facts[None, tuple[()]], ()),
        (Facts[torch.Tensor, tuple], ()),
        (Facts[v.Tensor, tuple[v.i32, v.Symbol]], ("i32", "Symbol")),
        (Facts[float, None], ()),
        (Facts[bool, "usize"], ("usize",)),
        (Facts["prob", tuple["usize", str]], ("usize", "String")),
        (Facts[None, "USize"], ("usize",)),
    ],
)
def test_outputs(annotation: Any, types: tuple[str, ...]) -> None:
    def f():  # type: ignore[no-untyped-def]
        yield ()

    f.__annotations__ = {"return": annotation}
    assert foreign_predicate(f).types == types


def test_a_test_with_a_probability() -> None:
    @foreign_predicate
    def soft(x: float, y: float) -> Facts[torch.Tensor, tuple]:  # type: ignore[type-arg]
        yield torch.tensor(x - y).sigmoid(), ()

    ((tag, row),) = soft.implement(())(1.0, 1.0)
    assert (float(tag), row) == (0.5, ())


def test_types_of_predicates_can_be_given_beside_them() -> None:
    @foreign_predicate("join", input_arg_types=[str, "String"], output_arg_types=[v.String])
    def f(*args):  # type: ignore[no-untyped-def]
        yield (",".join(args),)

    assert (f.name, f.types, f.bound) == ("join", ("String",) * 3, 2)
    assert f.implement(())("a", "b") == [(None, ("a,b",))]

    @foreign_predicate(
        type_params=[v.Tensor], input_arg_types=["Tensor"], output_arg_types=[], tag_type=float
    )
    def positive(x):  # type: ignore[no-untyped-def]
        return [(0.25, ())]

    assert positive.generics == {"T0": "Tensor"}
    assert positive.implement(("Tensor",))(_values.Tensor(torch.ones(2))) == [(0.25, ())]


@pytest.mark.parametrize(
    ("yielded", "message"),
    [
        ((1, 2), r"yields \(1, 2\): yield a tuple of its 1 outputs, \(i32\)"),
        (("x",), "output 0 of f"),
        ("x", "output 0 of f"),
        (None, "output 0 of f"),
    ],
)
def test_what_does_not_fit_is_an_error(yielded: Any, message: str) -> None:
    @foreign_predicate
    def f(x: int) -> Facts[None, int]:
        yield yielded

    with pytest.raises(ByssusError, match=message):
        f.implement(())(1)


def test_a_tag_is_not_forgotten() -> None:
    @foreign_predicate
    def f(x: int) -> Facts[float, int]:
        yield 3

    with pytest.raises(ByssusError, match="f yields 3: yield pairs"):
        f.implement(())(1)

    @foreign_predicate(suppress_warning=True)
    def g(x: int) -> Facts[None, int]:
        raise ValueError

    with pytest.raises(Dropped, match=SUPPRESSED):
        g.implement(())(1)


def _no_facts(x: int) -> int:
    return x


def _no_outputs(x: int):  # type: ignore[no-untyped-def]
    yield x


def _default(x: int, y: int = 3) -> Facts[None, int]:
    yield x


def _variadic(*x: int) -> Facts[None, int]:
    yield 3


def _family_output(x: int) -> Facts[None, v.Number]:
    yield 3


def _nested(x: int) -> Facts[None, tuple[int, tuple[int, int]]]:
    yield 3, (3, 3)


def _natural(x: int) -> Facts[int, int]:
    yield 1, 3


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_no_facts, "_no_facts: its outputs are .*: write `-> Facts"),
        (_no_outputs, "_no_outputs has no type of its outputs: write `-> Facts"),
        (_default, "_default: argument y has a default"),
        (_variadic, r"_variadic: it takes any number of arguments, \*x"),
        (_family_output, "_family_output: its outputs: Number is a family"),
        (_nested, "_nested: its outputs: tuple.* is no type"),
        (_natural, "_natural: .*int.* is no type of tags"),
    ],
)
def test_a_predicate_without_types_says_what_to_write(function: Any, message: str) -> None:
    with pytest.raises(ByssusError, match=message):
        foreign_predicate(function)


# Attributes


def item(text: str, file: str | None = None) -> Item:
    (one,) = parse_program(Source(text, file))
    return one


def apply(
    processor: ForeignAttributeProcessor, text: str, resolve: Callable[[str], str] = str
) -> list[AttributeAction]:
    one = item(text)
    return processor.apply(one, one.attributes[0], resolve)


@foreign_attribute
def add_something(item, v1):  # type: ignore[no-untyped-def]
    assert item.is_function_decl(), "[@add_something] has to be on a function"
    types = item.function_decl_arg_types()
    assert len(types) == 1
    assert types[0].is_i32(), "[@add_something] expects a function (i32) -> i32"
    assert item.function_decl_ret_type().is_i32()

    @foreign_function(name=item.function_decl_name())
    def add(v2: v.i32) -> v.i32:
        return v1 + v2

    return add


@foreign_attribute
def string_join(item, separator=","):  # type: ignore[no-untyped-def]
    assert item.is_relation_decl()
    assert len(item.relation_decls()) == 1
    relation = item.relation_decl(0)
    types = [ab.ty for ab in relation.arg_bindings]
    assert all(one.is_string() for one in types)
    adornments = [ab.adornment for ab in relation.arg_bindings]
    assert all(a.is_bound() for a in adornments[:-1])
    assert adornments[-1] is None or adornments[-1].is_free()
    assert [ab.name.name for ab in relation.arg_bindings] == ["x", "y", "w"]

    @foreign_predicate(
        name=relation.name.name, input_arg_types=types[:-1], output_arg_types=types[-1:]
    )
    def f(*args):  # type: ignore[no-untyped-def]
        yield (separator.join(args),)

    return f


def test_an_attribute_makes_a_function() -> None:
    removed, registered = apply(add_something, "@add_something(3) type $compute(x: i32) -> i32")
    assert isinstance(removed, RemoveItemAction)
    assert isinstance(registered, RegisterForeignFunctionAction)
    made = registered.foreign_function
    assert (made.name, made.arguments, made.result) == ("compute", ("i32",), "i32")
    assert made.implement(("i32",), "i32")(1) == 4


@pytest.mark.parametrize("adornment", ["", "free "])
@pytest.mark.parametrize(
    ("argument", "joined"), [("", "a,b"), ('("-")', "a-b"), ('(separator="")', "ab")]
)
def test_an_attribute_makes_a_predicate(adornment: str, argument: str, joined: str) -> None:
    text = f"@string_join{argument} type j(bound x: String, bound y: String, {adornment}w: String)"
    removed, registered = apply(string_join, text)
    assert isinstance(removed, RemoveItemAction)
    assert isinstance(registered, RegisterForeignPredicateAction)
    made = registered.foreign_predicate
    assert (made.name, made.bound, made.types) == ("j", 2, ("String",) * 3)
    assert made.implement(())("a", "b") == [(None, (joined,))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@add_something(3) type $f(x: usize) -> i32", r"expects a function \(i32\) -> i32"),
        ("@add_something type $f(x: i32) -> i32", "missing 1 required .* 'v1'"),
        ("@add_something(1, 2) type $f(x: i32) -> i32", "takes 2 positional arguments"),
        ("@add_something(3) type f(x: i32)", r"\[@add_something\] has to be on a function"),
        ("@add_something(3) rel a = {1}", "has to be on a function"),
    ],
)
def test_a_failing_attribute_shows_its_place(text: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message) as error:
        apply(add_something, text)
    assert (error.value.line, error.value.column) == (1, 1)


def test_actions() -> None:
    def answering(result: Any) -> list[AttributeAction]:
        return apply(ForeignAttributeProcessor("a", lambda item: result), "@a type r(x: i32)")

    assert answering(None) == answering(NoAction()) == answering([]) == []
    nested = MultipleActions([NoAction(), RemoveItemAction(), MultipleActions([])])
    assert answering([nested, my_sum]) == [
        RemoveItemAction(),
        RemoveItemAction(),
        RegisterForeignFunctionAction(my_sum),
    ]
    with pytest.raises(ProgramError, match="@a: no good"):
        answering(ErrorAction("no good"))
    with pytest.raises(ProgramError, match="@a: it returns 3"):
        answering(3)


def test_what_an_attribute_sees() -> None:
    def look(item: ItemNode) -> None:
        seen.append(item)

    seen: list[ItemNode] = []
    text = "@a type r(bound x: Species, i8), s()"
    assert apply(ForeignAttributeProcessor("a", look), text, {"Species": "String"}.get) == []  # type: ignore[arg-type]
    (view,) = seen
    assert not view.is_function_decl()
    assert not view.is_query()
    r, s = view.relation_decls()
    assert (r.name.name, s.name.name, s.arg_bindings) == ("r", "s", [])
    first, second = r.arg_bindings
    assert (first.ty, first.ty.name(), second.name, second.adornment) == (
        "String",
        "String",
        None,
        None,
    )
    assert not first.ty.is_tensor()
    with pytest.raises(ByssusError, match="no declaration of a function"):
        view.function_decl_name()


@pytest.mark.parametrize(
    ("type_", "python", "text", "value"),
    [
        ("usize", int, "7", 7),
        ("i32", int, "7.0", 7),
        ("u128", int, str(2**100 + 1), 2**100 + 1),
        ("f64", float, "0.5", 0.5),
        ("bool", bool, "true", True),
        ("bool", bool, "False", False),
        ("Symbol", str, "x", "x"),
    ],
)
def test_types_parse_values(type_: str, python: type, text: str, value: Any) -> None:
    node = TypeNode(type_)
    assert node.to_python_type() is python
    assert node.parse_value(text) == value


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["-a", "3"], [(3,)]),
        (["--a-digit", "-3", "--other"], [(-3,)]),
        (["x", "--a-digit=4", "-h"], [(4,)]),
        (["--a-digi", "4"], [(5,)]),
        ([], [(5,)]),
    ],
)
def test_cmd_arg(arguments: list[str], facts: list[tuple[int]]) -> None:
    text = '@cmd_arg("-a", long="--a-digit", default=5) type digit(i32)'
    _, registered = apply(cmd_arg(arguments), text)
    assert isinstance(registered, RegisterForeignPredicateAction)
    made = registered.foreign_predicate
    assert (made.name, made.types, made.bound) == ("digit", ("i32",), 0)
    assert made.implement(())() == [(None, fact) for fact in facts]


def test_cmd_arg_without_a_default_gives_no_fact() -> None:
    _, registered = apply(cmd_arg(["a.scl"]), '@cmd_arg("-b") type b(String)')
    assert isinstance(registered, RegisterForeignPredicateAction)
    assert registered.foreign_predicate.implement(())() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('@cmd_arg("-n") type n(i32)', "@cmd_arg: -n is 'x' on the command line, .* i32"),
        ('@cmd_arg("-e") type n(i32)', "@cmd_arg: argument -e: expected one argument"),
        ('@cmd_arg("-n") type n(bool)', "no bool"),
        ('@cmd_arg("-n") type n(i32, i32)', "n has 2 columns"),
        ('@cmd_arg("-n") type n(i32), m(i32)', "declare one relation"),
        ('@cmd_arg("-n") type $n() -> i32', "declare one relation"),
    ],
)
def test_cmd_arg_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        apply(cmd_arg(["-n", "x", "-e"]), text)


def test_py_eval() -> None:
    _, registered = apply(py_eval, "@py_eval type $number(s: String) -> f32")
    assert isinstance(registered, RegisterForeignFunctionAction)
    made = registered.foreign_function
    assert (made.name, made.arguments, made.result) == ("number", ("String",), "f32")
    call = made.implement(("String",), "f32")
    assert call("(3 + 4) * 2") == 14.0
    with pytest.raises(Dropped):
        call("1 / 0")
    with pytest.raises(ProgramError, match="one String"):
        apply(py_eval, "@py_eval type $number(s: i32) -> f32")


def test_attributes_are_pickled() -> None:
    assert pickle.loads(pickle.dumps(py_eval)) is py_eval
    assert pickle.loads(pickle.dumps(add_something)) is add_something
    again = pickle.loads(pickle.dumps(cmd_arg(["-b", "x"])))
    _, registered = apply(again, '@cmd_arg("-b") type b(String)')
    copied = pickle.loads(pickle.dumps(registered.foreign_predicate))
    assert copied.implement(())() == [(None, ("x",))]


# Black boxes

LEAF = """
    from dataclasses import dataclass
    from helper_of_leaf import species

    @dataclass
    class Counter:
        n: "int" = 0

    counter = Counter()

    def leaf_id(margin: str, shape: str) -> str:
        counter.n += 1
        if shape == "none":
            raise ValueError("no leaf")
        return species[margin, shape]

    def many(n):
        yield from range(n)

    class Tools:
        @staticmethod
        def twice(n):
            return 2 * n

    NUMBER = 3
"""

HELPER = """
    species = {("entire", "ovate"): "fig", ("serrate", "linear"): "willow"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "leaf.py").write_text(textwrap.dedent(LEAF))
    (tmp_path / "helper_of_leaf.py").write_text(textwrap.dedent(HELPER))
    yield tmp_path
    sys.modules.pop("helper_of_leaf", None)


def declare(
    text: str,
    folder: Path | None = None,
    boxes: BlackBoxes | None = None,
    resolve: Callable[[str], str] = str,
) -> BlackBoxDeclaration:
    one = item(text, None if folder is None else str(folder / "program.scl"))
    actions = (boxes or BlackBoxes()).processor().apply(one, one.attributes[0], resolve)
    assert isinstance(actions[0], RemoveItemAction)
    assert isinstance(actions[1], RegisterBlackBoxAction)
    return actions[1].declaration


def answers(declaration: BlackBoxDeclaration, *arguments: Any) -> list[Any]:
    (outcome,) = declaration.box.evaluate([arguments])
    assert not isinstance(outcome, Failure), outcome
    return declaration.convert(outcome)


RELATION = "type leaf_id(bound m: String, bound h: String, s: String)"


def test_a_black_box_of_a_file(folder: Path) -> None:
    before = list(sys.path)
    declared = declare(
        f'@blackbox("leaf.py:leaf_id", samples=50, on_error="discard") {RELATION}', folder
    )
    assert sys.path == before
    assert (declared.name, declared.types) == ("leaf_id", ("String",) * 3)
    assert (declared.columns, declared.bound) == (("m", "h", "s"), 2)
    assert (declared.function, declared.over, declared.samples) == (False, (), 50)
    assert str(declared.span) == "leaf_id(bound m: String, bound h: String, s: String)"
    assert answers(declared, "entire", "ovate") == [(None, ("fig",))]
    assert answers(declared, "entire", "ovate") == [(None, ("fig",))]
    (failed,) = declared.box.evaluate([("entire", "none")])
    assert isinstance(failed, Failure)
    assert isinstance(failed.cause, ValueError)
    assert declared.box.calls == 2


def test_a_black_box_as_a_function(folder: Path) -> None:
    declared = declare(
        '@blackbox("leaf.py:leaf_id") type $leaf(m: String, h: String) -> Species',
        folder,
        resolve=lambda name: {"Species": "Symbol"}.get(name, name),
    )
    assert (declared.name, declared.function, declared.bound) == ("leaf", True, 2)
    assert declared.types == ("String", "String", "Symbol")
    assert answers(declared, "serrate", "linear") == [(None, ("willow",))]


def test_a_file_is_loaded_once_and_again_when_it_changes(folder: Path) -> None:
    boxes = BlackBoxes()
    text = f'@blackbox("leaf.py:leaf_id") {RELATION}'
    first = declare(text, folder, boxes)
    answers(first, "entire", "ovate")
    assert declare(text, folder, boxes).box is first.box
    assert declare(text, folder).box.function is first.box.function
    (folder / "leaf.py").write_text("def leaf_id(a, b):\n    return a + b\n")
    assert answers(declare(text, folder, boxes), "x", "y") == [(None, ("xy",))]


def test_other_places_of_a_function(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = '@blackbox("leaf.py:Tools.twice") type twice(bound a: i32, b: i32)'
    assert answers(declare(twice, folder), 4) == [(None, (8,))]
    dotted = '@blackbox("posixpath:join") type join(bound a: String, bound b: String, c: String)'
    assert answers(declare(dotted), "a", "b") == [(None, ("a/b",))]
    monkeypatch.chdir(folder)
    assert answers(declare(twice), 4) == [(None, (8,))]


def test_registered_functions_win(folder: Path) -> None:
    boxes = BlackBoxes()
    boxes.register(lambda m, h: "oak", name="leaf_id")
    boxes.register(lambda m, h: "elm", name="other")
    for target, species in [
        ("", "oak"),
        ('("leaf_id")', "oak"),
        ('("leaf.py:leaf_id")', "oak"),
        ('("other")', "elm"),
    ]:
        declared = declare(f"@blackbox{target} {RELATION}", folder, boxes)
        assert answers(declared, "entire", "ovate") == [(None, (species,))]


def test_a_black_box_of_byssus_is_taken_as_it_is() -> None:
    @blackbox(Integer(0, 9), Integer(0, 9), output=Integer(0, 18), on_error=0)
    def add(a: int, b: int) -> int:
        return a + b

    boxes = BlackBoxes()
    boxes.register(add)
    text = "type add(bound a: i8, bound b: i8, c: i8)"
    declared = declare(f"@blackbox {text}", boxes=boxes)
    assert declared.box is add
    assert answers(declared, 3, 4) == [(None, (7,))]
    with pytest.raises(ByssusError, match="12"):
        declared.box.evaluate([(3, 12)])
    with pytest.raises(ProgramError, match="add is a black box already: give budget="):
        declare(f"@blackbox(budget=3) {text}", boxes=boxes)
    with pytest.raises(ProgramError, match="takes 2 arguments, and add gives it 1"):
        declare("@blackbox type add(bound a: i8, c: i8)", boxes=boxes)
    wrong = declare("@blackbox type add(bound a: i8, bound b: i8, c: String)", boxes=boxes)
    with pytest.raises(BlackBoxOutputError, match=r"add returned 7.*c must be"):
        answers(wrong, 3, 4)


def test_over_whole_relations() -> None:
    boxes = BlackBoxes()
    boxes.register(lambda symbols, words: float(len(symbols) + len(words)), "size")
    declared = declare('@blackbox(over=["symbol", "word"]) type size(f32)', boxes=boxes)
    assert (declared.over, declared.bound, declared.types) == (("symbol", "word"), 0, ("f32",))
    assert answers(declared, ((0, "+"), (1, "-")), ("a",)) == [(None, (3.0,))]
    boxes.register(lambda symbols: 0, "one")
    assert declare('@blackbox(over="symbol") type one(i32)', boxes=boxes).over == ("symbol",)


def returning(value: Any, text: str, options: str = "") -> BlackBoxDeclaration:
    boxes = BlackBoxes()
    boxes.register(lambda *arguments: value, "f")
    return declare(f"@blackbox{options} {text}", boxes=boxes)


ONE = "type f(bound x: i32, y: i32)"
TWO = "type f(bound x: i32, y: i32, z: String)"
NONE = "type f(bound x: i32)"


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        (3, ONE, [(None, (3,))]),
        ((3,), ONE, [(None, (3,))]),
        ([3, 4], ONE, [(None, (3,)), (None, (4,))]),
        ([], ONE, []),
        ({5}, ONE, [(None, (5,))]),
        (torch.tensor(3), ONE, [(None, (3,))]),
        (torch.tensor([3, 4]), ONE, [(None, (3,)), (None, (4,))]),
        ((3, "a"), TWO, [(None, (3, "a"))]),
        ([(3, "a"), (4, "b")], TWO, [(None, (3, "a")), (None, (4, "b"))]),
        (True, NONE, [(None, ())]),
        (False, NONE, []),
        ({3: 0.25, 4: 0.75}, ONE, [(0.25, (3,)), (0.75, (4,))]),
        ({(3, "a"): 0.5}, TWO, [(0.5, (3, "a"))]),
        ({True: 0.3, False: 0.7}, NONE, [(0.3, ())]),
        ({3: 0.5}, "type $f(x: i32) -> i32", [(0.5, (3,))]),
    ],
)
def test_answers(value: Any, text: str, expected: list[Any]) -> None:
    assert answers(returning(value, text), 1) == expected


def test_many_answers(folder: Path) -> None:
    declared = declare('@blackbox("leaf.py:many") type many(bound n: i32, i: i32)', folder)
    assert answers(declared, 3) == [(None, (0,)), (None, (1,)), (None, (2,))]
    assert answers(declared, 3) == [(None, (0,)), (None, (1,)), (None, (2,))]
    assert answers(returning((3, 4), ONE, "(many=true)"), 1) == [(None, (3,)), (None, (4,))]


def test_a_distribution_is_an_answer() -> None:
    probs = torch.tensor([[0.25, 0.75]])

    @blackbox(Boolean(), output=Discrete(["fig", "oak"]))
    def known(x: bool) -> str:
        return "oak" if x else "fig"

    distribution = known(probs)
    assert isinstance(distribution, Distribution)
    (p, fig), (q, oak) = answers(returning(distribution, "type f(bound x: i32, y: String)"), 1)
    assert (fig, oak) == (("fig",), ("oak",))
    assert (p.item(), q.item()) == pytest.approx((0.25, 0.75))


@pytest.mark.parametrize(
    ("value", "text", "message"),
    [
        ("fig", ONE, r"f\(1\) returned 'fig'.*y must be an int"),
        (2**40, ONE, "y must be an int"),
        (None, ONE, "y must be"),
        ((3, 4), ONE, "is no answer for a column of type i32: return one value"),
        (3, TWO, r"is no answer for the columns \(i32, String\): return a tuple of 2"),
        (1, NONE, "tells whether it holds: return True or False"),
        ({3: 1.5}, ONE, "3 has the probability 1.5: give one from 0 to 1"),
        ({3: "x"}, ONE, "probability 'x'"),
        ({3: 0.6, 4: 0.6}, ONE, "sum to 1.2"),
        ([3, 4], "type $f(x: i32) -> i32", r"\$f is a function, with one answer"),
    ],
)
def test_answers_that_do_not_fit(value: Any, text: str, message: str) -> None:
    with pytest.raises(BlackBoxOutputError, match=message):
        answers(returning(value, text), 1)
    discarding = returning(value, text, '(on_error="discard")')
    (failed,) = discarding.box.evaluate([(1,)])
    assert isinstance(failed, Failure)


def test_many_answers_must_be_many() -> None:
    with pytest.raises(BlackBoxOutputError, match="3 is not many answers"):
        answers(returning(3, ONE, "(many=true)"), 1)


def test_settings_of_calls() -> None:
    boxes = BlackBoxes()

    def f(x: int) -> int:
        return 10 // x

    boxes.register(f)
    with pytest.raises(BlackBoxError, match=r"f\(0\) raised ZeroDivisionError"):
        answers(declare(f"@blackbox {ONE}", boxes=boxes), 0)
    assert answers(declare(f"@blackbox(on_error=7) {ONE}", boxes=boxes), 0) == [(None, (7,))]
    tight = declare(f"@blackbox(budget=1, timeout=10) {ONE}", boxes=boxes)
    with pytest.raises(BudgetExceeded):
        tight.box.evaluate([(1,), (2,)])
    boxes.register(lambda column: column * 2, "f")
    columns = declare(f"@blackbox(vectorized=true) {ONE}", boxes=boxes)
    assert columns.box.evaluate([(1,), (2,)]) == [((None, (2,)),), ((None, (4,)),)]

    async def waits(x: int) -> int:
        return x

    boxes.register(waits, "f")
    assert answers(declare(f"@blackbox(concurrency=2) {ONE}", boxes=boxes), 5) == [(None, (5,))]


def test_dates_reach_the_function_as_strings() -> None:
    boxes = BlackBoxes()
    boxes.register(lambda day: type(day) is str, "f")
    declared = declare("@blackbox type f(bound d: DateTime)", boxes=boxes)
    day = _values.convert("2020-01-31", "DateTime", "x")
    assert answers(declared, day) == [(None, ())]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'@blackbox("leave.py:leaf_id") {RELATION}', "there is no file leave.py in"),
        (f'@blackbox("leaf.py:leaf") {RELATION}', "leaf.py has no function 'leaf'; it has leaf_id"),
        (f'@blackbox("leaf.py:NUMBER") {RELATION}', "NUMBER in leaf.py is 3, which cannot be"),
        (f'@blackbox("broken.py:f") {RELATION}', "broken.py cannot be loaded, ZeroDivisionError"),
        (f'@blackbox("no_such_module:f") {RELATION}', "no_such_module cannot be imported"),
        (f'@blackbox("leaf_idd") {RELATION}', "no black box 'leaf_idd' is registered"),
        (f"@blackbox {RELATION}", "no black box 'leaf_id' is registered"),
        (f"@blackbox(3) {RELATION}", "3 is no function"),
        (f'@blackbox("leaf.py:leaf_id", sample=3) {RELATION}', "no argument 'sample'"),
        (f'@blackbox("leaf.py:leaf_id", samples=0) {RELATION}', "samples=0: give a whole number"),
        (f'@blackbox("leaf.py:leaf_id", timeout=0) {RELATION}', "timeout= must be"),
        (f'@blackbox("leaf.py:leaf_id", many=3) {RELATION}', "many=3: give true or false"),
        (f'@blackbox("leaf.py:leaf_id", on_error=3) {RELATION}', "on_error= must be"),
        (f'@blackbox("leaf.py:leaf_id", over=["x"]) {RELATION}', "over whole relations"),
        ('@blackbox("leaf.py:leaf_id", over=[3]) type x(i32)', "over="),
        (
            '@blackbox("leaf.py:leaf_id") type x(bound a: String, b: String)',
            r"leaf_id takes \(margin.*\).*, and x gives it 1 arguments",
        ),
        (
            '@blackbox("leaf.py:leaf_id") type x(a: String, bound b: String)',
            "x has a bound column after one that is not",
        ),
        ('@blackbox("leaf.py:leaf_id") type x(i32), y(i32)', "the declaration of one relation"),
        ('@blackbox("leaf.py:leaf_id") rel x = {1}', "the declaration of one relation"),
    ],
)
def test_a_bad_declaration_shows_its_place(folder: Path, text: str, message: str) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    before = list(sys.path)
    with pytest.raises(ProgramError, match=message) as error:
        declare("\n" + text, folder)
    assert error.value.line == 2
    assert error.value.file == str(folder / "program.scl")
    assert sys.path == before


def test_a_function_must_be_callable_and_named_to_be_registered() -> None:
    boxes = BlackBoxes()
    with pytest.raises(ByssusError, match="3 cannot be called"):
        boxes.register(3)  # type: ignore[arg-type]

    class Nameless:
        def __call__(self) -> int:
            return 1

    with pytest.raises(ByssusError, match="has no name"):
        boxes.register(Nameless())


def test_black_boxes_are_pickled_with_their_memo(folder: Path) -> None:
    declared = declare(f'@blackbox("leaf.py:leaf_id", budget=1) {RELATION}', folder)
    answers(declared, "entire", "ovate")
    for again in (pickle.loads(pickle.dumps(declared.box)), copy.deepcopy(declared.box)):
        assert isinstance(again, ForeignBox)
        assert again.calls == 1
        assert again.evaluate([("entire", "ovate")]) == [((None, ("fig",)),)]
        with pytest.raises(BudgetExceeded):
            again.evaluate([("serrate", "linear")])
    boxes = BlackBoxes()
    boxes.register(max, "f")
    declare("@blackbox type f(bound a: i32, bound b: i32, c: i32)", boxes=boxes)
    assert pickle.loads(pickle.dumps(boxes)).registered == {"f": max}
    assert isinstance(declared.box, BlackBox)
    assert isinstance(my_range, ForeignPredicate)
