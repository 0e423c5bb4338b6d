"""Which relations depend on which, and the order to derive them in."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator

from byssus import ProgramError
from byssus._graph import strong_components

from ._ir import Absent, Program, Rule, Scan
from ._planning import Atom, Negated, PlannedRule
from ._syntax import Span

__all__ = ["Graph", "dependencies", "strata"]


class Graph:
    """Dependencies between relations.

    Attributes:
        edges: `(relation, what it depends on)`; with a place where it negates or aggregates it,
            and how that is called.
        components: sets of relations that depend on one another, those they depend on first.
        component: the number of each relation's.
    """

    def __init__(
        self,
        names: Iterable[str],
        edges: dict[tuple[str, str], tuple[Span, str] | None],
    ) -> None:
        self.edges = edges
        self.names = list(names)
        self._next: dict[str, list[str]] = defaultdict(list)
        for head, used in edges:
            self._next[head].append(used)
        self.components = strong_components(self._next.__getitem__, self.names)
        self.component = {
            name: i for i, component in enumerate(self.components) for name in component
        }

    def negative_edges(self) -> Iterator[tuple[str, str, Span, str]]:
        """Negations and aggregations through recursion: `(relation, what it negates, ...)`."""
        for (head, used), negative in self.edges.items():
            if negative is not None and self.component[head] == self.component[used]:
                yield head, used, *negative

    def negative_cycles(self) -> set[int]:
        """The components in which a relation depends on its own negation or aggregation."""
        return {self.component[head] for head, _, _, _ in self.negative_edges()}

    def path(self, start: str, goal: str) -> list[str]:
        """The shortest way along dependencies, within a component."""
        before: dict[str, str | None] = {start: None}
        queue = deque([start])
        while queue and goal not in before:
            name = queue.popleft()
            for one in self._next[name]:
                if one not in before and self.component[one] == self.component[start]:
                    before[one] = name
                    queue.append(one)
        found = [goal]
        while (name_before := before[found[-1]]) is not None:
            found.append(name_before)
        return found[::-1]


def dependencies(program: Program) -> Graph:
    """The dependencies between the relations of a program."""
    edges: dict[tuple[str, str], tuple[Span, str] | None] = {}

    def add(head: str, used: str, negative: tuple[Span, str] | None = None) -> None:
        if edges.get((head, used)) is None:
            edges[head, used] = negative

    for rule in program.rules:
        for used, negated in _uses(rule):
            add(rule.head, used, None if negated is None else (negated, "negation"))
    for aggregate in program.aggregates:
        for read in (aggregate.body, aggregate.groups):
            if read is not None:
                add(aggregate.head, read, (aggregate.span, "aggregation"))
    for box in program.blackboxes:
        if box.asked is not None:
            add(box.name, box.asked)
        for used in box.over:
            add(box.name, used, (box.span, "a black box over whole relations"))
    names = dict.fromkeys([*program.relations, *(name for edge in edges for name in edge)])
    return Graph(names, edges)


def _uses(rule: Rule) -> Iterator[tuple[str, Span | None]]:
    if isinstance(rule, PlannedRule):
        for one in rule.literals:
            if isinstance(one, Atom):
                yield one.relation, None
            elif isinstance(one, Negated):
                yield one.relation, one.span
        return
    for step in rule.steps:
        if isinstance(step, Scan):
            yield step.relation, None
        elif isinstance(step, Absent):
            yield step.relation, rule.span


def strata(program: Program) -> list[list[str]]:
    """Sets of mutually recursive relations, in an order in which they can be derived.

    Raises:
        ProgramError: a relation depends on its own negation or aggregation.
    """
    graph = dependencies(program)
    for head, used, span, what in graph.negative_edges():
        raise _unstratified(program, graph, head, used, span, what)
    return graph.components


def _unstratified(
    program: Program, graph: Graph, head: str, used: str, span: Span, what: str
) -> ProgramError:
    cycle = [head, *graph.path(used, head)]
    shown = [name for name in cycle if not _is_hidden(program, name)]
    if not shown:
        shown = [_readable(name) for name in cycle]
    if len(shown) == 1 or shown[0] != shown[-1]:
        shown.append(shown[0])
    mend = (
        "Break the cycle, for instance by deriving what is negated or aggregated without the others"
    )
    asked = [name.removeprefix("asked#") for name in cycle if name.startswith("asked#")]
    if asked:
        mend = (
            f"The black box {asked[0]} is asked both before and after: declare it a second time, "
            "under another name, for one of the two (answers with probabilities are then two "
            "choices, not one)"
        )
    return span.error(
        f"cannot stratify the program: {what} through recursion, as each of these depends on the "
        f"next: {' -> '.join(shown)}. {mend}"
    )


def _is_hidden(program: Program, name: str) -> bool:
    relation = program.relations.get(name)
    return "#" in name or (relation is not None and relation.hidden and name.startswith("$"))


def _readable(name: str) -> str:
    return name.removeprefix("d#").removeprefix("asked#").removeprefix("adt#")
