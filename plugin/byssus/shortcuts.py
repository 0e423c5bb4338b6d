"""Reasoning shortcuts: which meanings of the concepts the data cannot tell apart.

A network that learns concepts from the labels of a program may learn other concepts than were
meant, which explain every label as well. Such a *concept map* takes each value of a concept to
another (or the same) one so that every world of the data still gives its label: 2, 3, 4 as 3, 2, 3
where all that is ever seen of them is 2 + 3 = 5 and 2 + 4 = 6. The identity, the *truth*, is one of
the maps; the others are shortcuts.

All maps together are the models of a formula: its concepts are the values that occur in the data,
the value of such a concept is its image, and each world of the data demands that the images give
the world's label. That formula is compiled to a circuit, on which the maps are counted and listed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, prod
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byssus import _sdd, _vtree
from byssus._compile import check_limits
from byssus.circuit import Circuit
from byssus.diffusion._inputs import select
from byssus.diffusion.inference import TABULATED
from byssus.diffusion.program import WorldProgram, as_world_program
from byssus.domains import Discrete, Domain, List, Tuple
from byssus.errors import (
    ByssusError,
    CompilationLimit,
    DomainError,
    EmptyBatchError,
    ShapeError,
    TargetError,
    listed,
)
from byssus.formula import Formula, Key, Node
from byssus.worlds import check_sampling, number_worlds

__all__ = ["Shortcuts", "WorldModel", "shortcuts"]

_RULES = 1_000_000  # nodes of the formula: more take minutes to write down
_CELLS = 20_000_000  # numbers that are held at a time
_EXAMPLES = 64  # for which a model draws worlds at a time

ConceptMap = dict[str, dict[Hashable, Hashable]]
"""By the names of the concepts that share it, the image of each value that occurs."""


class WorldModel(Protocol):
    """What draws worlds for inputs, as a `MaskedDiffusion` does."""

    def sample(self, x: Any, n: int, *, generator: torch.Generator | None) -> Tensor:
        """`n` worlds for each input, (batch, n, columns).

        Where there are lists of different lengths it also gets `lengths=`, which columns exist.
        """


@dataclass(frozen=True)
class Shortcuts:
    """The concept maps under which every world of the data still gives its label.

    `str` of it is a report to read.

    Attributes:
        count: how many there are, the truth included; an integer where it is exact.
        standard_error: of an estimated count; 0 where it is exact.
        reason: why the count is an estimate; "" where it is exact.
        maps: those that are listed, the truth first: by the names of the concepts that share a
            map, the image of each value that occurs in the data.
        images: likewise, all images of each value, itself first: over all maps where the count is
            exact, over those that were met where not.
        belief: for each listed map the share of the model's worlds that are its image of the
            example's; None without a model. Maps agree on some worlds, so they do not sum to 1.
        other: the share of the model's worlds that are the image under none of them; None without
            a model.
    """

    count: int | float
    standard_error: float
    reason: str
    maps: tuple[ConceptMap, ...]
    images: Mapping[str, Mapping[Hashable, tuple[Hashable, ...]]]
    belief: Float[Tensor, " maps"] | None = None
    other: float | None = None

    @property
    def exact(self) -> bool:
        """Whether all maps were counted."""
        return not self.reason

    @property
    def determined(self) -> dict[str, tuple[Hashable, ...]]:
        """The values that the data determines: whose image is the same in all maps."""
        return {
            name: tuple(value for value, images in of.items() if len(images) == 1)
            for name, of in self.images.items()
        }

    def __str__(self) -> str:
        lines = [self._headline()]
        for name, of in self.images.items():
            determined = self.determined[name]
            lines.append(f"{name}: {len(determined)} of {len(of)} values are determined")
            if determined:
                lines[-1] += f", {listed(determined)}"
            for value, images in of.items():
                if len(images) > 1:
                    lines.append(f"  {value!r} may be {listed(images)}")
        texts = [_describe(concept_map) for concept_map in self.maps]
        if self.belief is None:
            some = "Those that were met" if not self.exact else f"The first {len(texts)}"
            lines.append("All of them:" if len(texts) == self.count else f"{some}:")
        else:
            lines.append("The share of the model's worlds that each map explains:")
            shares = [*self.belief.tolist(), self.other]
            texts = [
                f"{share:6.1%}  {text}"
                for share, text in zip(shares, [*texts, "none of these"], strict=True)
            ]
        return "\n".join(lines + [f"  {text}" for text in texts])

    def _headline(self) -> str:
        if not self.exact:
            return (
                f"About {self.count:.4g} concept maps give every world its label, the truth "
                f"included: a sampled estimate ({self.reason}) of standard error "
                f"{self.standard_error:.2g}. Maps that were never met are not in it."
            )
        if self.count == 1:
            return "Only the truth gives every world its label: there is no shortcut."
        return f"{self.count:,} concept maps give every world its label, the truth included."


def shortcuts(
    program: Any,
    data: Int[Tensor, "examples columns"] | Sequence[Sequence[Any]],
    model: WorldModel | None = None,
    *,
    x: Any = None,
    y: Any = None,
    concepts: Domain | Sequence[Domain] | Mapping[str, Domain] | None = None,
    outputs: Domain | None = None,
    shared: bool | Sequence[Hashable] = True,
    inference: str = "auto",
    limit: int = 100,
    samples: int = 1_000,
    votes: int = 100,
    nodes: int | None = 5_000_000,
    seconds: float | None = 60.0,
    generator: torch.Generator | None = None,
) -> Shortcuts:
    """Find the concept maps that the data cannot tell apart from the truth.

    A map is deterministic, and says of each concept value that occurs in the data what it is taken
    for. Values that do not occur are in no map.

    The count is exact where a circuit can be had: the program is tabulated where it has at most
    10,000 worlds, else its rules must be known. Where not, it is estimated: the image of one value
    after the other is drawn among those that contradict no world, mostly the value itself, and a
    map counts as the inverse of its probability. That is unbiased (Knuth, 1975, *Estimating the
    efficiency of backtrack programs*), but far from the truth maps are met rarely, and then weigh
    much.

    Args:
        program: what gives worlds their labels: a black box, a Scallop module, a ProbLog Program,
            a `WorldProgram`; or a plain function of the concepts' values, with `concepts` and
            `outputs`.
        data: the worlds that occur, with their true concepts: positions, `(examples, columns)`,
            -1 beyond the end of lists; or for each example one value a concept.
        model: what has learned the concepts, usually a `MaskedDiffusion`, in the mode that it is
            in: call `model.eval()` first.
        x: its inputs, an example each: a tensor, or tensors in tuples, lists or dictionaries.
        y: the labels, as for `MaskedDiffusion.loss`. They must be the program's, which are taken
            without them.
        concepts: the domains, where the program does not say so itself.
        outputs: the domain of a plain function's output.
        shared: which columns share a map, as those that one network recognises do. True: those of
            one domain; False: none; or for each column the name of its map.
        inference: "exact" insists on a circuit, "sampled" on an estimate.
        limit: how many maps are listed at most, the truth first.
        samples: how many maps are drawn for an estimate.
        votes: how many worlds the model draws for each example.
        nodes: the most SDD nodes that compilation may hold.
        seconds: the most seconds that it may take.
        generator: makes the estimate and the model's worlds reproducible.

    Raises:
        EmptyBatchError: no data.
        DomainError: a world that is none of the program's, or columns that share a map and have
            different values.
        TargetError: a label that is not the program's, or a world that has none.
        ShapeError: data, inputs or the model's worlds do not fit one another.
        CompilationLimit: `inference="exact"`, and a limit was reached.
        BudgetExceeded: the program is a black box of a smaller budget than a table takes.
        ByssusError: a setting that makes no sense; a program with probabilistic facts of its own,
            whose labels are no function of the concepts; or one that is too large to be tabulated,
            of unknown rules, where `inference="exact"`.

    Example:
        >>> @blackbox(Integer(0, 4), Integer(0, 4), output=Integer(0, 8))
        ... def add(a, b):
        ...     return a + b
        >>> pairs = [(0, 0), (0, 1), (1, 0), (2, 3), (3, 2), (2, 4), (4, 2)]
        >>> print(shortcuts(add, pairs))
        3 concept maps give every world its label, the truth included.
        a, b: 2 of 5 values are determined, 0, 1
          2 may be 2, 3, 4
          3 may be 3, 1, 2
          4 may be 4, 2, 3
        All of them:
          the truth
          2 -> 3, 3 -> 2, 4 -> 3
          2 -> 4, 3 -> 1, 4 -> 2
    """
    if inference not in ("auto", "exact", "sampled"):
        raise ByssusError(f"inference={inference!r}: give 'auto', 'exact' or 'sampled'")
    for name, number in {"limit": limit, "votes": votes}.items():
        if type(number) is not int or number < 1:
            raise ByssusError(f"{name}={number!r}: give a whole number, 1 or more")
    check_sampling(samples, generator)
    check_limits(nodes=nodes, seconds=seconds)
    if (model is None) != (x is None):
        raise ByssusError("a model's belief needs both: give `model` and its inputs, `x`")
    found = as_world_program(program, concepts, outputs)
    if found.own_widths:
        raise ByssusError(
            f"the program has {len(found.own_widths)} probabilistic facts of its own, so its "
            "labels are no function of the concepts: give one without them"
        )
    worlds = _worlds(found, data)
    task = _Task(found, worlds, y, shared)
    answer, reason = None, "it was asked for"
    if inference != "sampled":
        try:
            answer, reason = _count(task, limit, nodes, seconds), ""
        except CompilationLimit as large:
            if inference == "exact":
                raise
            reason = f"the circuit reached its limit of {large.limit}"
        except _TooLargeError as large:
            if inference == "exact":
                raise ByssusError(f"inference='exact': {large}; take 'sampled'") from None
            reason = str(large)
    if answer is None:
        answer = _estimate(task, limit, samples, generator)
    belief, other = None, None
    if model is not None:
        belief, other = _believe(task, answer.maps, worlds, model, x, votes, generator)
    return Shortcuts(
        answer.count,
        answer.error,
        reason,
        tuple(map(task.named, answer.maps.tolist())),
        task.possible(answer.images),
        belief,
        other,
    )


@dataclass(frozen=True)
class _Answer:
    """What there is: the maps that are listed, and of each slot the images over all maps."""

    count: int | float
    error: float
    maps: Int[Tensor, "maps slots"]
    images: list[list[int]]


class _TooLargeError(ByssusError):
    """A program or data for which no formula is written down."""


class _Task:
    """Which images each value may have: the data as constraints on them.

    A *slot* is a value that occurs, in one of the maps. A map is a row of images, one a slot; an
    image is a position among the values of its map's concepts.
    """

    def __init__(
        self, program: WorldProgram, worlds: Tensor, y: Any, shared: bool | Sequence[Hashable]
    ) -> None:
        self.program = program
        leaves = [leaf for domain in program.domains for leaf in _leaves(domain)]
        keys = _keys(program, leaves, shared)
        columns: dict[Hashable, list[int]] = defaultdict(list)
        for column, key in enumerate(keys):
            columns[key].append(column)
        self.names = tuple(_name(program, group) for group in columns.values())
        self.values = tuple(leaves[group[0]].values for group in columns.values())
        _, self.worlds = number_worlds(worlds, program.widths)
        self.labels = _labels(program, worlds, self.worlds, y)
        group_of = {column: g for g, group in enumerate(columns.values()) for column in group}
        occurring = {
            (group_of[column], value)
            for column, values in enumerate(self.worlds.t().tolist())
            for value in values
            if value >= 0
        }
        self.sources: list[tuple[int, int]] = sorted(occurring)
        if not self.sources:
            raise EmptyBatchError("the worlds of the data hold no value: all their lists are empty")
        for name, values in zip(self.names, self.values, strict=True):
            if len(set(values)) < len(values):
                raise DomainError(
                    f"{name} has the values {listed(values)}, of which some are equal to Python "
                    "and differ in type only: give others"
                )
        self.widths = tuple(len(self.values[group]) for group, _ in self.sources)
        self.truth = torch.tensor([value for _, value in self.sources], dtype=torch.int64)
        self._number = {source: slot for slot, source in enumerate(self.sources)}
        self._group_of = group_of
        self.slots = self.slots_of(self.worlds)

    def slots_of(self, worlds: Int[Tensor, "rows columns"]) -> Int[Tensor, "rows columns"]:
        """The slot of each value of a world; -1 where it has none."""
        table = torch.full((worlds.shape[1], max(self.program.widths) + 1), -1)
        for column, group in self._group_of.items():
            for value in range(self.program.widths[column]):
                table[column, value] = self._number.get((group, value), -1)
        return table[torch.arange(worlds.shape[1]), worlds]  # -1 is the last entry

    def image(self, slot: int, code: int) -> int:
        """An image from its number among the slot's: the value itself is number 0."""
        source = self.sources[slot][1]
        return source if code == 0 else code - (code <= source)

    def code(self, slot: int, image: int) -> int:
        """The inverse of `image`."""
        source = self.sources[slot][1]
        return 0 if image == source else image + (image < source)

    def named(self, images: Sequence[int]) -> ConceptMap:
        """A map in terms of values."""
        result: ConceptMap = {name: {} for name in self.names}
        for (group, value), image in zip(self.sources, images, strict=True):
            values = self.values[group]
            result[self.names[group]][values[value]] = values[image]
        return result

    def possible(self, images: Sequence[Sequence[int]]) -> dict[str, dict[Any, tuple[Any, ...]]]:
        """The images of each slot in terms of values, the value itself first."""
        result: dict[str, dict[Any, tuple[Any, ...]]] = {name: {} for name in self.names}
        for slot, ((group, value), found) in enumerate(zip(self.sources, images, strict=True)):
            values = self.values[group]
            ordered = sorted(found, key=partial(self.code, slot))
            result[self.names[group]][values[value]] = tuple(values[image] for image in ordered)
        return result


def _worlds(program: WorldProgram, data: Any) -> Int[Tensor, "examples columns"]:
    """The data as positions, each a world of the program."""
    domain = Tuple(*program.domains)
    columns = len(program.widths)
    if not isinstance(data, Iterable):
        raise DomainError(f"data={data!r}: give worlds, one or more")
    if not isinstance(data, Tensor):
        rows = []
        for i, world in enumerate(data):
            try:
                rows.append(domain.encode(tuple(world) if isinstance(world, list) else world))
            except DomainError as error:
                raise DomainError(
                    f"world {i} of the data, {world!r}, is none of the program's: {error}; give "
                    f"one value for each of {listed(program.names)}"
                ) from None
        data = torch.tensor(rows, dtype=torch.int64).reshape(len(rows), columns)
    worlds: Tensor = data
    if not worlds.numel():
        raise EmptyBatchError("no data: give the worlds that occur, one or more")
    if worlds.dim() != 2 or worlds.shape[1] != columns or worlds.is_floating_point():
        raise ShapeError(
            f"data of shape {tuple(worlds.shape)} and {worlds.dtype}: give integers, (examples, "
            f"{columns}), a column for each of {listed(program.column_names)}"
        )
    worlds = worlds.detach().long().cpu()
    for row in torch.unique(worlds, dim=0).tolist():
        try:
            domain.decode(row)
        except DomainError as error:
            i = int((worlds == torch.tensor(row)).all(1).nonzero()[0])
            raise DomainError(f"world {i} of the data is none of the program's: {error}") from None
    return worlds


def _labels(
    program: WorldProgram, worlds: Tensor, distinct: Tensor, y: Any
) -> Int[Tensor, "worlds dimensions"]:
    """What the distinct worlds give; the labels must be the same."""
    codes = program.outputs(distinct).cpu()
    if bool((codes < 0).any()):
        row = int((codes < 0).any(1).nonzero()[0])
        raise TargetError(
            f"the world {_text(program, distinct[row])} has no label: the program gives it none, "
            "or its call failed; leave it out"
        )
    if y is not None:
        wanted = program.targets(y).cpu()
        if len(wanted) != len(worlds):
            raise ShapeError(f"{len(wanted)} labels for {len(worlds)} worlds: give one for each")
        given = program.outputs(worlds).cpu()
        if not torch.equal(wanted, given):
            row = int((wanted != given).any(1).nonzero()[0])
            raise TargetError(
                f"the label of world {row} of the data, {_text(program, worlds[row])}, is "
                f"{program.value(wanted[row].tolist())!r}, and the program gives "
                f"{program.value(given[row].tolist())!r}: mend one of them"
            )
    return codes


def _text(program: WorldProgram, world: Tensor) -> str:
    values = Tuple(*program.domains).decode(world.tolist())
    return ", ".join(f"{n}={v!r}" for n, v in zip(program.names, values, strict=True))


def _leaves(domain: Domain) -> list[Discrete]:
    """The domain of each column."""
    if isinstance(domain, Tuple):
        return [leaf for part in domain.domains for leaf in _leaves(part)]
    if isinstance(domain, List):
        return _leaves(domain.domain) * domain.max_length
    assert isinstance(domain, Discrete)
    return [domain]


def _keys(
    program: WorldProgram, leaves: Sequence[Discrete], shared: bool | Sequence[Hashable]
) -> list[Hashable]:
    """What tells the map of a column."""
    if isinstance(shared, bool):
        return list(leaves) if shared else list(range(len(leaves)))
    keys = list(shared) if isinstance(shared, Sequence) else []
    if len(keys) != len(leaves):
        raise ShapeError(
            f"shared={shared!r}: give the name of a map for each column, which are "
            f"{listed(program.column_names)}"
        )
    first: dict[Hashable, int] = {}
    for column, key in enumerate(keys):
        other = first.setdefault(key, column)
        if leaves[other] != leaves[column]:
            names = program.column_names
            raise DomainError(
                f"shared={shared!r}: {names[other]} and {names[column]} share a map, and their "
                f"domains are {leaves[other]} and {leaves[column]}"
            )
    return keys


def _name(program: WorldProgram, group: Sequence[int]) -> str:
    """What the columns of a map are called: by their concepts where these are in it whole."""
    names = []
    start = 0
    for name, domain in zip(program.names, program.domains, strict=True):
        columns = range(start, start + len(domain.widths))
        start = columns.stop
        if set(columns) <= set(group):
            names.append(name)
        else:
            names += [program.column_names[column] for column in columns if column in group]
    return ", ".join(names)


def _describe(concept_map: ConceptMap) -> str:
    """What a map changes."""
    parts = []
    for name, images in concept_map.items():
        changed = ", ".join(f"{v!r} -> {image!r}" for v, image in images.items() if v != image)
        if changed:
            parts.append(changed if len(concept_map) == 1 else f"{name}: {changed}")
    return "; ".join(parts) or "the truth"


# Exact


def _count(task: _Task, limit: int, nodes: int | None, seconds: float | None) -> _Answer:
    """All maps, by a circuit."""
    formula = _formula(task)
    compiled = _vtree.compile_formula(
        formula, "auto", None, nodes=nodes, seconds=seconds, memory=None
    )
    circuit = Circuit(formula.widths, compiled.diagram)
    return _Answer(
        _models(formula.widths, compiled.diagram),
        0.0,
        _first(task, circuit, limit),
        _possible(task, circuit),
    )


def _formula(task: _Task) -> Formula:
    """True of the maps under which every world gives its label; a concept is a slot."""
    rules = _Rules(task)
    program = task.program
    tables: dict[tuple[bool, ...], _Table] = {}
    demands: dict[Key, None] = {}
    # Few different values first: they narrow the others down.
    for world in sorted(range(len(task.worlds)), key=lambda i: len(set(task.slots[i].tolist()))):
        pattern = tuple((task.worlds[world] >= 0).tolist())
        if pattern not in tables and Tuple(*program.domains).count(pattern) <= TABULATED:
            tables[pattern] = _Table(program, pattern)
        if pattern in tables:
            root = rules.tabulated(world, tables[pattern])
        elif program.formula is not None and all(pattern):
            root = rules.substituted(world, program.formula)
        else:
            raise _TooLargeError(
                f"the program has more than the {TABULATED:,} worlds that are tabulated, and its "
                "rules are not known"
            )
        demands[root] = None
    return Formula.from_graph(task.widths, rules.nodes, [rules.add("and", tuple(demands))])


class _Table:
    """What the worlds of one pattern of columns give, as a decision diagram over these columns.

    Its first nodes are the labels; then come `nodes`, each a column and its children.
    """

    def __init__(self, program: WorldProgram, pattern: tuple[bool, ...]) -> None:
        worlds = Tuple(*program.domains).enumerate(pattern)
        labels, ids = torch.unique(program.outputs(worlds).cpu(), dim=0, return_inverse=True)
        self.labels = {tuple(label): i for i, label in enumerate(labels.tolist())}
        self.nodes: list[tuple[int, list[int]]] = []
        for column in reversed([i for i, there in enumerate(pattern) if there]):
            groups = ids.reshape(-1, program.widths[column])
            rows, number = torch.unique(groups, dim=0, return_inverse=True)
            numbers = []
            for children in rows.tolist():
                if len(set(children)) == 1:
                    numbers.append(children[0])
                    continue
                numbers.append(len(labels) + len(self.nodes))
                self.nodes.append((column, children))
            ids = torch.tensor(numbers)[number]
        self.root = int(ids)


class _Rules:
    """The nodes of a formula over slots; equal ones are one."""

    def __init__(self, task: _Task) -> None:
        self.task = task
        self.nodes: dict[int, Node] = {}
        self._slots = task.slots.tolist()
        self._known: dict[Node, int] = {}
        self._parts: dict[tuple[int, ...], Formula] = {}

    def add(self, kind: str, content: Any) -> int:
        """The number of a node."""
        number = self._known.setdefault((kind, content), len(self._known) + 1)
        if number > _RULES:
            raise _TooLargeError(
                f"the rules over {len(self.task.worlds):,} different worlds take more than "
                f"{_RULES:,} nodes"
            )
        self.nodes[number] = kind, content
        return number

    def literal(self, world: int, column: int, image: int) -> int:
        """The node of: the value of a world's column has this image."""
        slot = self._slots[world][column]
        return self.add("literal", (slot, self.task.code(slot, image)))

    def tabulated(self, world: int, table: _Table) -> Key:
        """The key of: the image of a world gives its label."""
        known: dict[int, Key] = dict.fromkeys(table.labels.values())
        known[table.labels[tuple(self.task.labels[world].tolist())]] = 0

        def key(node: int) -> Key:
            if node not in known:
                column, children = table.nodes[node - len(table.labels)]
                parts = []
                for image, child in enumerate(children):
                    below = key(child)
                    if below is not None:
                        literal = self.literal(world, column, image)
                        parts.append(self.add("and", (literal, below)))
                known[node] = self.add("or", tuple(parts)) if parts else None
            return known[node]

        return key(table.root)

    def substituted(self, world: int, formula: Formula) -> Key:
        """The same, by the program's rules, in which images take the place of values."""
        label = tuple(self.task.labels[world].tolist())
        if label not in self._parts:
            sizes = self.task.program.sizes
            roots = [formula.roots[sum(sizes[:d]) + code] for d, code in enumerate(label)]
            nodes = dict(enumerate(formula.nodes, 1))
            self._parts[label] = Formula.from_graph(formula.widths, nodes, roots)
        part = self._parts[label]
        # Nodes of a cycle name later ones: they have their numbers beforehand.
        knot = [i for start, stop in part.cycles for i in range(start, stop)]
        numbers = {i: self.add("knot", (world, i)) for i in knot}

        def renumbered(keys: Sequence[Key]) -> tuple[Key, ...]:
            return tuple(k if not k else numbers[k] if k > 0 else -numbers[-k] for k in keys)

        for i, (kind, content) in enumerate(part.nodes, 1):
            if i in numbers:
                self.nodes[numbers[i]] = kind, renumbered(content)
            elif kind == "literal":
                numbers[i] = self.literal(world, *content)
            else:
                numbers[i] = self.add(kind, renumbered(content))
        return self.add("and", renumbered(part.roots))


def _models(widths: Sequence[int], diagram: _sdd.Diagram) -> int:
    """The number of models of the one root, in integers.

    Each node has the number of assignments to all concepts in which it holds. Those are exact
    multiples: a node's children do not mention its concept, nor a prime those of its sub.
    """
    total = prod(widths)
    counts = [0, total]
    if isinstance(diagram, _sdd.Decisions):
        for concept, nodes in diagram.levels:
            counts += [sum(counts[child] for child in node) // widths[concept] for node in nodes]
    else:
        for concept, values in diagram.leaves:
            counts.append(total * len(values) // widths[concept])
        for level in diagram.levels:
            counts += [sum(counts[p] * counts[s] for p, s in pairs) // total for pairs in level]
    return counts[diagram.roots[0]]


def _first(task: _Task, circuit: Circuit, limit: int) -> Int[Tensor, "maps slots"]:
    """The first maps in the order of `_Task.code`, so the truth before all others.

    Parts of maps are extended by one slot after the other, and kept where a map completes them. So
    no more of them are needed than maps.
    """
    codes = torch.full((1, len(task.widths)), -1)
    rows = max(1, _CELLS // (circuit.size + circuit.columns))
    for slot, width in enumerate(task.widths):
        codes = codes.repeat_interleave(width, 0)
        codes[:, slot] = torch.arange(width).repeat(len(codes) // width)
        found = [
            circuit.log_forward(torch.zeros(len(part), circuit.columns), part)[:, 0] > -torch.inf
            for part in torch.split(codes, rows)
        ]
        codes = codes[torch.cat(found)][:limit]
    return torch.tensor(
        [[task.image(slot, code) for slot, code in enumerate(row)] for row in codes.tolist()]
    )


def _possible(task: _Task, circuit: Circuit) -> list[list[int]]:
    """All images of each slot, over all maps."""
    images = []
    for slot, (start, width) in enumerate(zip(circuit.offsets, task.widths, strict=True)):
        log_weights = torch.zeros(width, circuit.columns)
        log_weights[:, start : start + width] = torch.eye(width).log()
        found = circuit.log_forward(log_weights)[:, 0] > -torch.inf
        images.append([task.image(slot, code) for code in found.nonzero().squeeze(1).tolist()])
    return images


# Estimated


def _estimate(task: _Task, limit: int, samples: int, generator: torch.Generator | None) -> _Answer:
    """Maps drawn value by value, each weighed by the inverse of its probability."""
    order, closing = _order(task)
    # Some two values change in a map: each more makes maps rarer, and weigh more.
    keep = max(0.5, 1 - 2 / len(order))
    maps = torch.full((samples, len(order)), -1)
    log_weights = torch.zeros(samples, dtype=torch.float64)
    for slot in order:
        width, truth = task.widths[slot], int(task.truth[slot])
        tried = maps.repeat_interleave(width, 0)
        tried[:, slot] = torch.arange(width).repeat(samples)
        good = _agree(task, tried, closing[slot]).reshape(samples, width)
        others = good.clone()
        others[:, truth] = False
        count = others.sum(1, keepdim=True)
        stay = torch.where(count > 0, good[:, truth, None] * keep, 1.0)
        probs = others * (1 - stay) / count.clamp_min(1)
        probs[:, truth] = stay[:, 0]
        device = None if generator is None else generator.device
        drawn = torch.multinomial(probs.to(device), 1, generator=generator).cpu()
        maps[:, slot] = drawn[:, 0]
        log_weights -= probs.gather(1, drawn)[:, 0].double().log()
        # What has come to a dead end goes on as the truth, which comes to none.
        dead = ~good.any(1)
        maps[dead] = torch.where(maps[dead] >= 0, task.truth, -1)
        log_weights[dead] = -torch.inf
    # That the truth is a map is known, and need not be estimated.
    weights = log_weights.exp().masked_fill((maps == task.truth).all(1), 0.0)
    met = torch.cat([task.truth[None], maps[weights > 0]])
    met = torch.unique(met, dim=0)
    met = met[(met != task.truth).sum(1).argsort(stable=True)]
    return _Answer(
        1 + float(weights.mean()),
        float(weights.std() / samples**0.5) if samples > 1 else inf,
        met[:limit],
        [column.unique().tolist() for column in met.t()],
    )


def _order(task: _Task) -> tuple[list[int], dict[int, list[int]]]:
    """The slots in an order in which worlds are soon complete; and the worlds that each completes.

    The next world is the one that lacks fewest.
    """
    missing = {i: set(row) - {-1} for i, row in enumerate(task.slots.tolist())}
    order: list[int] = []
    closing: dict[int, list[int]] = defaultdict(list)
    missing = {i: slots for i, slots in missing.items() if slots}
    while missing:
        nearest = min(missing, key=lambda i: len(missing[i]))
        for slot in sorted(missing[nearest]):
            order.append(slot)
            for i, slots in list(missing.items()):
                slots.discard(slot)
                if not slots:
                    closing[slot].append(i)
                    del missing[i]
    return order, closing


def _agree(
    task: _Task, maps: Int[Tensor, "maps slots"], worlds: Sequence[int]
) -> Bool[Tensor, " maps"]:
    """Under which maps these worlds have their labels."""
    good = torch.ones(len(maps), dtype=torch.bool)
    for world in worlds:
        left = good.nonzero().squeeze(1)
        if not len(left):
            break
        outputs = task.program.outputs(_mapped(maps[left], task.slots[world])).cpu()
        good[left] = (outputs == task.labels[world]).all(1)
    return good


def _mapped(
    maps: Int[Tensor, "maps slots"], slots: Int[Tensor, "*rows columns"]
) -> Int[Tensor, "maps *rows columns"]:
    """The images of worlds."""
    return maps[:, slots.clamp_min(0)].masked_fill(slots < 0, -1)


# Belief


def _believe(
    task: _Task,
    maps: Int[Tensor, "maps slots"],
    worlds: Int[Tensor, "examples columns"],
    model: WorldModel,
    x: Any,
    votes: int,
    generator: torch.Generator | None,
) -> tuple[Float[Tensor, " maps"], float]:
    """The share of the model's worlds that each map gives; and of those that none does."""
    _check_inputs(x, len(worlds))
    ragged = bool((worlds < 0).any())
    hits = torch.zeros(len(maps), dtype=torch.int64)
    none = 0
    for start in range(0, len(worlds), _EXAMPLES):
        part = slice(start, start + _EXAMPLES)
        given = {"lengths": worlds[part] >= 0} if ragged else {}
        some = select(x, torch.arange(len(worlds))[part])
        drawn = model.sample(some, votes, generator=generator, **given)
        expected = (len(worlds[part]), votes, worlds.shape[1])
        if tuple(drawn.shape) != expected:
            raise ShapeError(
                f"the model's worlds have the shape {tuple(drawn.shape)}, expected {expected}: is "
                "it a model of this program's concepts?"
            )
        unexplained = torch.ones(expected[:2], dtype=torch.bool)
        for i, images in enumerate(_mapped(maps, task.slots_of(worlds[part]))):
            same = (drawn.cpu() == images[:, None]).all(-1)
            hits[i] += same.sum()
            unexplained &= ~same
        none += int(unexplained.sum())
    total = len(worlds) * votes
    return hits / total, none / total


def _check_inputs(x: Any, examples: int) -> None:
    """Raise for inputs that have not as many examples."""
    if isinstance(x, Mapping | tuple | list):
        for part in x.values() if isinstance(x, Mapping) else x:
            _check_inputs(part, examples)
    elif not isinstance(x, Tensor) or not x.dim() or len(x) != examples:
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ShapeError(
            f"inputs x of shape {shape} for {examples} worlds: give tensors with an example for "
            "each world of the data"
        )
