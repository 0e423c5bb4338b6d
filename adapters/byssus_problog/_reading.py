"""ProbLog's formula as an and-or graph over choices: the nodes, and which atoms exclude another."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

from problog.formula import LogicFormula

from byssus.formula import Key, Node


class Choice(NamedTuple):
    """Atoms of which at most one holds: a probabilistic fact, or the options of a disjunction.

    Attributes:
        name: the first atom's name, as it was written.
        atoms: by node number.
    """

    name: Any
    atoms: dict[int, Any]


def read(formula: LogicFormula, keys: Iterable[Key]) -> tuple[dict[int, Node], list[Choice]]:
    """The part of a formula that some keys need.

    Returns:
        its conjunctions and disjunctions by node number, and its choices. The atoms' nodes are for
        the caller to add, as literals of the concepts that it makes of the choices.
    """
    nodes: dict[int, Node] = {}
    atoms: dict[int, Any] = {}
    stack = [abs(key) for key in keys if key]
    while stack:
        number = stack.pop()
        if number in nodes or number in atoms:
            continue
        node = formula.get_node(number)
        kind = type(node).__name__
        if kind == "atom":
            atoms[number] = node
        else:
            nodes[number] = ("and" if kind == "conj" else "or", tuple(node.children))
            stack += [abs(child) for child in node.children if child]
    choices: dict[Hashable, dict[int, Any]] = {}
    for number in sorted(atoms):
        group, identifier = atoms[number].group, atoms[number].identifier
        key = ("fact", identifier) if group is None else group
        choices.setdefault(key, {})[number] = atoms[number]
    return nodes, [Choice(_name(choice), choice) for choice in choices.values()]


def _name(choice: dict[int, Any]) -> Any:
    return as_written(next(iter(choice.values())).name)


def as_written(name: Any) -> Any:
    """The head that an atom stands for: ProbLog names it choice(clause, option, head, ...)."""
    return name.args[2] if getattr(name, "functor", None) == "choice" else name
