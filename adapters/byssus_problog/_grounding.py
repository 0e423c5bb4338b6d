"""Grounding: a ProbLog program, and the answers of its black boxes, to a formula over concepts.

ProbLog's own engine grounds. Two things are added. `nn(...)` declarations become annotated
disjunctions whose labels name the network, as in DeepProbLog. And a call of a black box is asked,
not made: the engine notes the arguments and the context in which they are asked for (its
*guard*), answers from what is known, and is run again when more is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from problog.engine_unify import UnifyError, unify_value
from problog.errors import ProbLogError
from problog.formula import LogicFormula
from problog.logic import (
    AnnotatedDisjunction,
    Clause,
    Constant,
    Term,
    Var,
    is_ground,
    is_variable,
    term2list,
)
from problog.parser import ParseError
from problog.program import PrologString

from byssus import BlackBox, Boolean, ByssusError, Formula, ProbabilityError, ProgramError
from byssus.errors import listed
from byssus.formula import Key, Node

from ._engine import Engine
from ._terms import bindings, order_key, to_python, to_term

Arguments = tuple[Hashable, ...]

# Networks are concepts of this label in the ground program: $nn(network, inputs, position).
_LABEL = "$nn"


@dataclass(frozen=True)
class Source:
    """The text of a program, and where it came from."""

    text: str
    file: Path | None = None

    @classmethod
    def read(cls, program: str | Path) -> Source:
        """A path, or the text itself. A single line that ends in `.pl` is a path."""
        if isinstance(program, Path) or ("\n" not in program and program.strip().endswith(".pl")):
            file = Path(program)
            try:
                return cls(file.read_text(encoding="utf-8"), file)
            except OSError as error:
                raise ProgramError(
                    f"cannot read the program {file}: {error.strerror}; give the path of a .pl "
                    "file, or the program's text"
                ) from error
        return cls(program)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn ProbLog's errors into `ProgramError`s that show the place."""
        try:
            yield
        except ProbLogError as error:
            place = error.location if isinstance(error.location, tuple) else (None, None, None)
            file, line, column = (*place, None, None, None)[:3]
            if isinstance(error, ParseError) and column is not None:
                column += 1  # a parser's columns count from 0, an engine's from 1
            # `message` has the place appended; `base_message` has not.
            raise self.error(f"{error.base_message}", line, column, file) from error

    def error(
        self,
        message: str,
        line: int | None = None,
        column: int | None = None,
        file: str | None = None,
    ) -> ProgramError:
        """An error at a place in this program, or in a file that it consults."""
        text = self.text
        if file is not None and (self.file is None or Path(file) != self.file.absolute()):
            text = Path(file).read_text(encoding="utf-8") if Path(file).exists() else ""
        elif self.file is not None:
            file = str(self.file)
        return ProgramError(message, file=file, line=line, column=column, text=text)


@dataclass(frozen=True)
class Network:
    """A declared network: `nn(name, inputs, variable, values)`, or `nn(name, inputs)` for a fact.

    Attributes:
        name: the network's name.
        values: its values, in order; (False, True) for a fact.
    """

    name: str
    values: tuple[Hashable, ...]

    @property
    def is_fact(self) -> bool:
        """Whether it was declared without values."""
        return self.values == (False, True)


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

    def ground(self, known: Callable[[str, Arguments], Any]) -> Ground:
        """Ground the program.

        Args:
            known: a list of one answer to a black box's argument tuple, an empty list where it
                failed and has none, or None where it has not been called.

        Raises:
            ProgramError: a fault in the program's text, with file, line and a caret.
        """
        engine = Engine()
        for name, box in self.boxes.items():
            arities = [len(box.inputs) + 1]
            if box.output == Boolean():
                arities.append(len(box.inputs))
            for arity in arities:
                engine.add_simple_builtin(name, arity, self._relation(name, box, known))
        target = LogicFormula()
        patterns = []
        with self.source.errors():
            program = _Program(self.source, self.networks)
            database = engine.prepare(program)
            if len(program.source_files) == 1 and self.source.file is not None:
                database.source_files[0] = str(self.source.file.absolute())
            for i, (query,) in enumerate(engine.query(database, Term("query", None))):
                if not isinstance(query, Term) or is_variable(query):
                    raise self.source.error(f"query({query}): name a predicate to ask for")
                engine.ground(database, query, target, label=f"query {i}")
                names = target.get_names(f"query {i}")
                patterns.append((query, sorted(names, key=lambda item: order_key(item[0]))))
            evidence = engine.query(database, Term("evidence", None, None))
            evidence += engine.query(database, Term("evidence", None))
            engine.ground_evidence(database, target, evidence)
        if not patterns:
            raise self.source.error(
                "the program asks for nothing: add a line like `query(sum(X)).`"
            )
        observed = tuple(key for _, key in target.evidence())
        return self._read(target, patterns, observed, engine.asked)

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
            engine.ask((name, arguments), bool(answer), about)
            if not answer:
                return []
            if len(terms) == count:
                return [terms] if answer[0] is True else []
            value = to_term(answer[0])
            try:
                unify_value(terms[count], value, {})
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
                    return tuple(to_python(values[0]) for values in found)
        return tuple(str(term) for _, answers in patterns for term, _ in answers)


class _Program(PrologString):  # type: ignore[misc]
    """A program whose `nn` declarations are rewritten while it is read."""

    def __init__(self, source: Source, networks: dict[str, Network]) -> None:
        root = "." if source.file is None else str(source.file.parent)
        files = [None] if source.file is None else [str(source.file.absolute())]
        super().__init__(source.text, source_root=root, source_files=files)
        self._source = source
        self._networks = networks

    def __iter__(self) -> Iterator[Term]:
        for statement in super().__iter__():
            yield self._rewrite(statement)

    def _rewrite(self, statement: Term) -> Term:
        head, body = statement, Term("true")
        if isinstance(statement, Clause):
            head, body = statement.head, statement.body
        heads = statement.heads if isinstance(statement, AnnotatedDisjunction) else [head]
        labels = [h.probability for h in heads if isinstance(h, Term)]
        if not any(isinstance(label, Term) and label.functor == "nn" for label in labels):
            return statement
        if len(heads) > 1:
            raise self._error(statement, "an nn declaration stands alone, not in a disjunction")
        network, inputs, *rest = self._declaration(statement, labels[0])
        if not rest:
            options = [(head, Term(_LABEL, network, inputs, Constant(1)))]
        else:
            variable, values = rest
            options = [
                (
                    head.apply(_Substitution(variable.name, value)),
                    Term(_LABEL, network, inputs, Constant(i)),
                )
                for i, value in enumerate(values)
            ]
        return AnnotatedDisjunction(
            [option.with_probability(label) for option, label in options],
            body,
            location=statement.location,
        )

    def _declaration(self, statement: Term, label: Term) -> list[Any]:
        """The parts of a declaration, checked: name, inputs, and if given variable and values."""
        form = "nn(network, [Input, ...], Variable, [value, ...]) :: head"
        if label.arity == 3:
            raise self._error(
                statement, f"nn/3 (a network's output as a term) is not known: {form}"
            )
        if label.arity not in (2, 4) or label.args[0].arity > 0:
            raise self._error(statement, f"an nn declaration has the form {form}")
        name, inputs = str(to_python(label.args[0])), label.args[1]
        try:
            term2list(inputs, deep=False)
        except (ValueError, AttributeError):
            raise self._error(
                statement, f"the inputs of an nn declaration are a list: {form}"
            ) from None
        if label.arity == 2:
            self._declare(statement, Network(name, (False, True)))
            return [label.args[0], inputs]
        variable = label.args[2]
        if not isinstance(variable, Var):
            raise self._error(
                statement, f"the third argument of nn is a variable of the head: {form}"
            )
        try:
            values = term2list(label.args[3], deep=False)
        except (ValueError, AttributeError):
            values = []
        names = tuple(to_python(value) for value in values if is_ground(value))
        if not names or len(names) < len(values) or len(set(names)) < len(names):
            raise self._error(
                statement, "the values of an nn declaration are a list of different ground terms"
            )
        self._declare(statement, Network(name, names))
        return [label.args[0], inputs, variable, values]

    def _declare(self, statement: Term, network: Network) -> None:
        other = self._networks.setdefault(network.name, network)
        if other != network:
            raise self._error(
                statement,
                f"network {network.name} is declared with the values {listed(other.values)} "
                f"and again with {listed(network.values)}",
            )

    def _error(self, statement: Term, message: str) -> ProgramError:
        file, line, column = self.lineno(statement.location) or (None, None, None)
        return self._source.error(message, line, column, file)


class _Substitution:
    """Puts a value in the place of one variable, and leaves the others."""

    def __init__(self, name: str, value: Term) -> None:
        self._name, self._value = name, value

    def __getitem__(self, name: str) -> Term:
        return self._value if name == self._name else Var(name)


class _Reader:
    """Reads the nodes of ProbLog's formula that are needed, and finds the concepts among them."""

    def __init__(self, grounder: Grounder, target: LogicFormula) -> None:
        self._grounder = grounder
        self._target = target
        self.nodes: dict[int, Node] = {}
        self.concepts: list[Concept] = []

    def read(self, keys: Iterable[Key]) -> None:
        atoms: dict[int, Any] = {}
        stack = [abs(key) for key in keys if key]
        while stack:
            number = stack.pop()
            if number in self.nodes or number in atoms:
                continue
            node = self._target.get_node(number)
            kind = type(node).__name__
            if kind == "atom":
                atoms[number] = node
            else:
                self.nodes[number] = ("and" if kind == "conj" else "or", tuple(node.children))
                stack += [abs(child) for child in node.children if child]
        choices: dict[Hashable, dict[int, Any]] = {}
        for number in sorted(atoms):
            group = atoms[number].group
            identifier = atoms[number].identifier
            choices.setdefault(("fact", identifier) if group is None else group, {})[number] = (
                atoms[number]
            )
        networks, others = [], []
        for group in choices.values():
            first = next(iter(group.values())).probability
            (networks if isinstance(first, Term) and first.functor == _LABEL else others).append(
                group
            )
        networks.sort(
            key=lambda group: order_key(Term("n", *next(iter(group.values())).probability.args[:2]))
        )
        for group in networks:
            self._network_concept(group)
        for group in others:
            self._constant_concept(group)

    def _network_concept(self, group: dict[int, Any]) -> None:
        name, inputs, _ = next(iter(group.values())).probability.args
        network = self._grounder.networks[str(to_python(name))]
        if not is_ground(inputs):
            raise self._grounder.source.error(
                f"the inputs {inputs} of network {network.name} are not bound when it is used"
            )
        for number, atom in group.items():
            self.nodes[number] = ("literal", (len(self.concepts), int(atom.probability.args[2])))
        text = f"{network.name}({', '.join(map(str, term2list(inputs, deep=False)))})"
        self.concepts.append(Concept(text, len(network.values), network.name, inputs))

    def _constant_concept(self, group: dict[int, Any]) -> None:
        probs = []
        for position, (number, atom) in enumerate(group.items()):
            probs.append(self._probability(atom))
            self.nodes[number] = ("literal", (len(self.concepts), position))
        total = sum(probs)
        first = next(iter(group.values()))
        if total > 1 + 1e-9:
            raise ProbabilityError(
                f"the probabilities of the disjunction of {first.name} sum to {total:g}, above 1"
            )
        probs.append(max(0.0, 1.0 - total))
        self.concepts.append(Concept(str(first.name), len(probs), probs=tuple(probs)))

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
