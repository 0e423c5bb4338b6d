"""Grounding: a ProbLog program, and the answers of its black boxes, to a formula over concepts.

ProbLog's own engine grounds. Two things are added. `nn(...)` declarations become annotated
disjunctions whose labels name the network, as in DeepProbLog. And a call of a black box is asked,
not made: the engine notes the arguments and the context in which they are asked for (its
*guard*), answers from what is known, and is run again when more is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from problog.engine_unify import UnifyError, unify_value
from problog.errors import ProbLogError
from problog.formula import LogicFormula
from problog.logic import Term, is_ground, is_variable, term2list

from byssus import BlackBox, Boolean, ByssusError, Formula, ProbabilityError
from byssus.domains import typed
from byssus.formula import Key, Node

from ._database import LABEL, Database, Network
from ._engine import Arguments, Engine
from ._reading import Choice, read
from ._source import Source
from ._terms import bindings, order_key, to_python, to_term


@dataclass(frozen=True)
class Concept:
    """A categorical variable of the ground program.

    Attributes:
        name: its text.
        width: its number of values.
        network: the network that predicts it, or None.
        inputs: the term list that the network is given.
        probs: the probabilities of its values where no network predicts it.
    """

    name: str
    width: int
    network: str | None = None
    inputs: Term | None = None
    probs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Ask:
    """A black box asked for an argument tuple; `guard` says in which worlds."""

    box: str
    arguments: Arguments
    guard: Key


@dataclass(frozen=True)
class Ground:
    """A ground program.

    Attributes:
        nodes: the and-or graph, by node number.
        concepts: what the literals speak of.
        queries: the text of each query, ground, one an output.
        values: what the outputs are called in a `Distribution`.
        keys: the node of each query.
        evidence: nodes that are observed to be true.
        asks: what black boxes were asked, each with its guard.
    """

    nodes: dict[int, Node]
    concepts: tuple[Concept, ...]
    queries: tuple[str, ...]
    values: tuple[Hashable, ...]
    keys: tuple[Key, ...]
    evidence: tuple[Key, ...]
    asks: tuple[Ask, ...]

    def formula(self, roots: Iterable[Key]) -> Formula:
        """The part of the graph that the roots need."""
        return Formula.from_graph([c.width for c in self.concepts], self.nodes, tuple(roots))

    def conjoin(self, keys: Iterable[Key]) -> Key:
        """A new node: all of them."""
        return self._add("and", keys)

    def disjoin(self, keys: Iterable[Key]) -> Key:
        """A new node: any of them."""
        return self._add("or", keys)

    def _add(self, kind: str, keys: Iterable[Key]) -> Key:
        number = max(self.nodes, default=0) + 1
        self.nodes[number] = (kind, tuple(keys))
        return number


def negated(key: Key) -> Key:
    """The negation of a key."""
    return None if key == 0 else 0 if key is None else -key


@dataclass
class Grounder:
    """Grounds one program, given the answers known so far.

    Attributes:
        source: the program.
        boxes: the black boxes that it may call, by the name under which it does.
        networks: the networks that it declares, by name; known after the first grounding.
    """

    source: Source
    boxes: Mapping[str, BlackBox]
    networks: dict[str, Network] = field(default_factory=dict)
    _database: Database | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_database": None}  # ProbLog's does not pickle; it is parsed again

    def ground(self, known: Callable[[str, Arguments], Any]) -> Ground:
        """Ground the program.

        Args:
            known: a list of one answer to a black box's argument tuple, an empty list where it
                failed and has none, or None where it has not been called.

        Raises:
            ProgramError: a fault in the program's text, with file, line and a caret.
        """
        # An engine that has raised cannot be used again, so each grounding has its own.
        engine = Engine(asks=bool(self.boxes))
        for name, box in self.boxes.items():
            self._register(engine, name, box, known)
        target = LogicFormula()
        patterns = []
        with self.source.errors(self.boxes):
            if self._database is None:
                self._database = engine.prepare(Database.read(self.source, engine.get_builtins()))
                self.networks.update(self._database.networks)
            database = self._database
            for i, (query,) in enumerate(engine.query(database, Term("query", None))):
                if is_variable(query):
                    raise self.source.error("query(_) asks for nothing: name a predicate")
                engine.ground(database, query, target, label=f"query {i}")
                names = target.get_names(f"query {i}")
                answers = [(term, key) for term, key in names if is_ground(term)]
                patterns.append((query, sorted(answers, key=lambda item: order_key(item[0]))))
            evidence = engine.query(database, Term("evidence", None, None))
            evidence += engine.query(database, Term("evidence", None))
            engine.ground_evidence(database, target, evidence)
        if not patterns:
            raise self.source.error(
                "the program asks for nothing: add a line like `query(sum(X)).`"
            )
        observed = tuple(key for _, key in target.evidence())
        return self._read(target, patterns, observed, engine.asked)

    def _register(
        self, engine: Engine, name: str, box: BlackBox, known: Callable[[str, Arguments], Any]
    ) -> None:
        count = len(box.inputs)
        for arity in (count, count + 1) if box.output == Boolean() else (count + 1,):
            if f"{name}/{arity}" in engine.get_builtins():
                raise ByssusError(
                    f"the black box {name} would hide ProbLog's own {name}/{arity}: give it "
                    "another name, with a mapping {name: black box}"
                )
            engine.add_simple_builtin(name, arity, self._relation(name, box, known))

    def _relation(
        self,
        name: str,
        box: BlackBox,
        known: Callable[[str, Arguments], Any],
    ) -> Callable[..., list[tuple[Term, ...]]]:
        count = len(box.inputs)

        def call(*terms: Any, engine: Engine, **about: Any) -> list[tuple[Term, ...]]:
            for i, term in enumerate(terms[:count]):
                if is_variable(term) or not is_ground(term):
                    place = about["database"].lineno(about["location"]) or (None, None, None)
                    raise self.source.error(
                        f"argument {i + 1} of the black box {name} is not bound when it is called: "
                        "put the goals that bind it before the call",
                        place[1],
                        place[2],
                        place[0],
                    )
            arguments = tuple(to_python(term) for term in terms[:count])
            answer = known(name, arguments)
            engine.ask((name, arguments), answered=bool(answer), about=about)
            if not answer:
                return []
            if len(terms) == count:
                return [terms] if answer[0] is True else []
            asked, value = terms[count], to_term(answer[0])
            if not is_variable(asked) and is_ground(asked):
                # quoted or not, an atom is the same value
                same = asked == value or order_key(to_term(to_python(asked))) == order_key(value)
                return [terms] if same else []
            try:
                unify_value(asked, value, {})
            except UnifyError:
                return []
            return [(*terms[:count], value)]

        return call

    def _read(
        self,
        target: LogicFormula,
        patterns: list[tuple[Term, list[tuple[Term, Key]]]],
        evidence: tuple[Key, ...],
        asked: dict[tuple[str, Arguments], list[Key]],
    ) -> Ground:
        reader = _Reader(self, target)
        keys = [key for _, answers in patterns for _, key in answers]
        reader.read([*keys, *evidence, *(key for guards in asked.values() for key in guards)])
        ground = Ground(
            reader.nodes,
            tuple(reader.concepts),
            tuple(str(term) for _, answers in patterns for term, _ in answers),
            self._values(patterns),
            tuple(keys),
            evidence,
            (),
        )
        asks = tuple(
            Ask(box, arguments, guards[0] if len(guards) == 1 else ground.disjoin(guards))
            for (box, arguments), guards in asked.items()
        )
        return Ground(**{**vars(ground), "asks": asks})

    def _values(self, patterns: list[tuple[Term, list[tuple[Term, Key]]]]) -> tuple[Hashable, ...]:
        """The bindings of the variable, where one query has one; else the texts of the queries."""
        if len(patterns) == 1:
            (pattern, answers) = patterns[0]
            variables = [variable for variable, _ in bindings(pattern, pattern)]
            if len(set(map(str, variables))) == 1 and len(variables) == 1:
                found = [[value for _, value in bindings(pattern, term)] for term, _ in answers]
                if all(len(values) == 1 and is_ground(values[0]) for values in found):
                    names = tuple(to_python(values[0]) for values in found)
                    if len(set(map(typed, names))) == len(names):  # abc and "abc" are one in Python
                        return names
        return tuple(str(term) for _, answers in patterns for term, _ in answers)


class _Reader:
    """Reads the nodes of ProbLog's formula that are needed, and finds the concepts among them."""

    def __init__(self, grounder: Grounder, target: LogicFormula) -> None:
        self._grounder = grounder
        self._target = target
        self.nodes: dict[int, Node] = {}
        self.concepts: list[Concept] = []

    def read(self, keys: Iterable[Key]) -> None:
        self.nodes, choices = read(self._target, keys)
        networks = [choice for choice in choices if _label(choice) is not None]
        networks.sort(key=lambda choice: order_key(_label(choice)))
        for choice in networks:
            self._network_concept(choice)
        for choice in choices:
            if _label(choice) is None:
                self._constant_concept(choice)

    def _network_concept(self, choice: Choice) -> None:
        name, inputs, _ = next(iter(choice.atoms.values())).probability.args
        network = self._grounder.networks[str(to_python(name))]
        if not is_ground(inputs):
            raise self._grounder.source.error(
                f"the inputs {inputs} of network {network.name} are not bound when it is used"
            )
        for number, atom in choice.atoms.items():
            self.nodes[number] = ("literal", (len(self.concepts), int(atom.probability.args[2])))
        text = f"{network.name}({', '.join(map(str, term2list(inputs, deep=False)))})"
        self.concepts.append(Concept(text, len(network.values), network.name, inputs))

    def _constant_concept(self, choice: Choice) -> None:
        probs = []
        for position, (number, atom) in enumerate(choice.atoms.items()):
            probs.append(self._probability(atom))
            self.nodes[number] = ("literal", (len(self.concepts), position))
        total = sum(probs)
        if total > 1 + 1e-9:
            raise ProbabilityError(
                f"the probabilities of the disjunction of {choice.name} sum to {total:g}, above 1"
            )
        if total < 1 - 1e-9:  # else there is no world in which none of them holds
            probs.append(1.0 - total)
        self.concepts.append(Concept(str(choice.name), len(probs), probs=tuple(probs)))

    def _probability(self, atom: Any) -> float:
        label = atom.probability
        try:
            value = float(label.compute_value()) if isinstance(label, Term) else float(label)
        except (ProbLogError, TypeError, ValueError):
            raise self._grounder.source.error(
                f"{label}::{atom.name}: the probability is not a number; a probability that is "
                "learned comes from a network: nn(network, [Input]) :: head"
            ) from None
        if not 0.0 <= value <= 1.0:
            raise ProbabilityError(f"{label}::{atom.name}: a probability lies between 0 and 1")
        return value


def _label(choice: Choice) -> Term | None:
    """The network and inputs that a concept is predicted from, as a term; None if constant."""
    label = next(iter(choice.atoms.values())).probability
    return label(*label.args[:2]) if isinstance(label, Term) and label.functor == LABEL else None
