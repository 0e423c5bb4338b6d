"""Grounding: a ProbLog program, and the answers of its black boxes, to a formula over concepts.

ProbLog's own engine grounds. Two things are added. `nn(...)` declarations become annotated
disjunctions whose labels name the network, as in DeepProbLog. And a call of a black box is asked,
not made: the engine notes the arguments and the context in which they are asked for (its
*guard*), answers from what is known, and is run again when more is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from problog.engine_stack import SimpleProbabilisticBuiltIn
from problog.errors import ProbLogError
from problog.formula import LogicFormula
from problog.logic import Term, is_ground, is_variable, list2term, term2list

from byssus import BlackBox, ByssusError, Formula, ProbabilityError, ProgramError
from byssus.domains import typed
from byssus.formula import Key, Node

from ._answers import is_answer, solutions
from ._database import LABEL, Database, Network
from ._engine import Arguments, Asked, Engine
from ._parameters import LABEL as TUNABLE
from ._parameters import Parameters
from ._reading import Choice, as_written, read
from ._source import Source
from ._terms import bindings, order_key, to_python, to_term
from ._tokens import CALL_TEST, OBSERVED, Call, Observed, Token, Touched, Value, tokens, values_in
from .blackboxes import arities, unbound
from .llms import arguments_of, gives_several, is_uncertain

Place = tuple[str | None, int | None, int | None]
_NOWHERE: Place = (None, None, None)

_LISTED = 1_000  # answers of a call that rules look at


@dataclass(frozen=True)
class Concept:
    """A categorical variable of the ground program.

    Attributes:
        name: its text.
        width: its number of values.
        network: the network that predicts it, or None.
        inputs: the term list that the network is given.
        probs: the probabilities of its values where no network predicts it.
        test: a call and what its answer may be, where the other concepts decide this one: its
            value 1 says that it is.
        parameter: the name of the parameters that its probabilities are learned by, or None.
        answer: whether it is which of its uncertain answers a call gives.
    """

    name: str
    width: int
    network: str | None = None
    inputs: Term | None = None
    probs: tuple[float, ...] = ()
    test: tuple[Call, Term] | None = None
    parameter: str | None = None
    answer: bool = False

    @classmethod
    def predicted(cls, network: Network, inputs: Term) -> Concept:
        """The concept that a network predicts for an input."""
        text = f"{network.name}({', '.join(map(str, term2list(inputs, deep=False)))})"
        return cls(text, len(network.values), network.name, inputs)


@dataclass(frozen=True)
class Ask:
    """A black box asked for an argument tuple; `guard` says in which worlds."""

    box: str
    arguments: Arguments
    guard: Key


class NotObservable(ProgramError):  # noqa: N818
    """A program that does more with an observation than compare it."""


@dataclass(frozen=True)
class Ground:
    """A ground program.

    Attributes:
        nodes: the and-or graph, by node number.
        concepts: what the literals speak of.
        answers: the ground queries as terms, one an output. One with tokens stands for an output
            for each value that they have in some world.
        bindings: of each answer the binding of the variable, where one query has one; None else.
        keys: the node of each query.
        evidence: nodes that are observed to be true.
        asks: what black boxes were asked, each with its guard.
        calls: the calls on tokens, each with its guard.
        tokens: the concept of each token that is a network's.
        observed: for each observation that the rules look at, the values that they compare it
            with; the last value of its concept is any other.
        facts: of each evidence the text, and the file, line and column.
        patterns: the queries, and how many of the answers are each one's.
    """

    nodes: dict[int, Node]
    concepts: tuple[Concept, ...]
    answers: tuple[Term, ...]
    bindings: tuple[Term, ...] | None
    keys: tuple[Key, ...]
    evidence: tuple[Key, ...]
    asks: tuple[Ask, ...]
    calls: tuple[tuple[Call, Key], ...] = ()
    tokens: dict[Value, int] = field(default_factory=dict)
    observed: dict[int, tuple[Hashable, ...]] = field(default_factory=dict)
    facts: tuple[tuple[str, Place], ...] = ()
    patterns: tuple[tuple[Term, int], ...] = ()

    @property
    def symbolic(self) -> bool:
        """Whether there are tokens."""
        return bool(self.tokens)

    @cached_property
    def queries(self) -> tuple[str, ...]:
        """The text of each answer."""
        return tuple(map(str, self.answers))

    @cached_property
    def values(self) -> tuple[Hashable, ...]:
        """What the outputs are called in a `Distribution`: bindings, or texts."""
        return self.queries if self.bindings is None else tuple(map(to_python, self.bindings))

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


def _nothing(name: str, arguments: Arguments) -> None:
    """What is known of black boxes at first."""


@dataclass
class Grounder:
    """Grounds one program, given the answers known so far.

    Attributes:
        source: the program.
        boxes: the black boxes that it may call, by the name under which it does; those that it
            declares are added by `declare`.
        queries: what to ask in place of the program's own queries; None for these.
        networks: the networks that it declares, by name; known after the first grounding.
        parameters: its tunable probabilities, by name.
        symbolic: whether the answers of networks may be tokens, as they are at first where there
            are black boxes.
        by_value: the networks whose answers are values all the same, since the rules look at them.
        listed: the black boxes whose answers to calls on tokens are listed, for the same reason.
        unanswered: the queries that had no answer at all in the last grounding.
    """

    source: Source
    boxes: dict[str, BlackBox]
    queries: Sequence[Term] | None = None
    networks: dict[str, Network] = field(default_factory=dict)
    parameters: Parameters = field(default_factory=Parameters)
    symbolic: bool = False
    by_value: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    unanswered: list[str] = field(default_factory=list)
    _database: Database | None = None
    _first: tuple[Engine, Database] | None = None  # as `declare` has read it
    _known: Callable[..., Any] = _nothing

    def __getstate__(self) -> dict[str, Any]:
        # ProbLog's does not pickle; it is parsed again
        return {**vars(self), "_database": None, "_first": None, "_known": _nothing}

    def ground(self, known: Callable[[str, Arguments], Any]) -> Ground:
        """Ground the program.

        Args:
            known: a list of one answer to a black box's argument tuple, an empty list where it
                failed and has none, or None where it has not been called.

        Raises:
            ProgramError: a fault in the program's text, with file, line and a caret.
            NotObservable: the rules ask what an observation is.
        """
        while True:
            try:
                return self._ground(known)
            except Touched as touched:
                self._show(touched.tokens)
            except Exception:
                if not self.symbolic:
                    raise
                self.use_values()  # whatever is wrong, it is to be said of values

    def declare(self) -> None:
        """Read the program for the black boxes that it declares.

        Raises:
            ProgramError: a fault in the program's text, with file, line and a caret.
        """
        self._first = self._read_program(lambda *call: self._known(*call))

    def _read_program(self, known: Callable[[str, Arguments], Any]) -> tuple[Engine, Database]:
        """An engine, and the program as it reads it."""
        # An engine that has raised cannot be used again, so each grounding has its own.
        observing = any(any(tokens(query)) for query in self.queries or ())
        engine = Engine(asks=bool(self.boxes), symbolic=self.symbolic or observing)
        for name, box in self.boxes.items():
            self._register(engine, name, box, known)
        with self.source.errors(self.boxes):
            if self._database is None or not self._database.lasting:
                self._database = self._prepare(engine, observing=observing)
                self._database.unknown = engine.unknown
        engine.unknown = self._database.unknown
        database = self._database
        if not database.declared:
            return engine, database
        # The clauses before a declaration were read without it.
        self.symbolic |= not self.boxes
        self.boxes.update(database.declared)
        self._database = None
        return self._read_program(known)

    def use_values(self) -> None:
        """Use no tokens from now on."""
        self.symbolic, self._database, self._first = False, None, None

    def _is_symbolic(self, network: str) -> bool:
        return self.symbolic and network not in self.by_value

    def _show(self, touched: Sequence[Token]) -> None:
        """Put values in the place of tokens that the rules look at."""
        for token in touched:
            if isinstance(token, Observed):
                raise NotObservable(
                    f"the rules ask what the observation {token.number} is, other than by `is`, "
                    "`=`, `=:=` or `==`: give the program its value, as a part of the query"
                )
        for token in touched:
            if isinstance(token, Call) and token.box not in self.listed:
                output = self.boxes[token.box].output
                if output is not None and output.finite and output.size <= _LISTED:
                    self.listed.add(token.box)
                    continue
            self.by_value |= {value.network for value in values_in(token)}
        self._database = self._first = None

    def _ground(self, known: Callable[[str, Arguments], Any]) -> Ground:
        self._known = known
        first, self._first = self._first, None
        engine, database = first or self._read_program(known)
        target = LogicFormula()
        patterns = []
        found: set[str] = set()  # two queries may ask for the same
        with self.source.errors(self.boxes):
            asked = self.queries
            if asked is None:
                asked = [query for (query,) in engine.query(database, Term("query", None))]
            unanswered: list[str] = []
            for i, query in enumerate(asked):
                if is_variable(query):
                    raise self.source.error("query(_) asks for nothing: name a predicate")
                engine.ground(database, query, target, label=f"query {i}")
                names = target.get_names(f"query {i}")
                # One with variables holds for all values if it is certain; else nothing was found.
                answers = [
                    (term, key)
                    for term, key in names
                    if (is_ground(term) or key == 0) and str(term) not in found
                ]
                found.update(str(term) for term, _ in answers)
                unanswered += [str(term) for term, key in names if not is_ground(term) and key != 0]
                patterns.append((query, sorted(answers, key=lambda item: order_key(item[0]))))
            self.unanswered = unanswered
            evidence = engine.query(database, Term("evidence", None, None))
            evidence += engine.query(database, Term("evidence", None))
            engine.ground_evidence(database, target, evidence)
            places = {str(abs(term)): database.lineno(term.location) for term, *_ in evidence}
        if not patterns:
            raise self.source.error(
                "the program asks for nothing: add a line like `query(sum(X)).`"
            )
        observed = target.evidence()
        ground = self._read(target, patterns, tuple(key for _, key in observed), engine.asked)
        facts = tuple(
            (("" if truth > 0 else "\\+") + str(name), places.get(str(name)) or _NOWHERE)
            for name, _, truth in target.evidence_all()
            if truth
        )
        return replace(ground, facts=facts)

    def _prepare(self, engine: Engine, *, observing: bool) -> Database:
        """Read the program."""
        symbolic = self._is_symbolic if self.symbolic or observing else None
        database: Database = engine.prepare(
            Database.read(self.source, engine.get_builtins(), symbolic, self.boxes)
        )
        if database.has_data("semiring"):
            raise self.source.error(
                "the program has a semiring of its own (use_semiring of library(aproblog)), and a "
                "Program computes probabilities: run it with ProbLog"
            )
        self.networks.update(database.networks)
        for i, clause in enumerate(database.tunables):
            if not clause.index:
                self.parameters.name(i, clause, ())
        return database

    def _register(
        self, engine: Engine, name: str, box: BlackBox, known: Callable[[str, Arguments], Any]
    ) -> None:
        for arity in arities(box):
            if f"{name}/{arity}" in engine.get_builtins():
                raise ByssusError(
                    f"the black box {name} would hide ProbLog's own {name}/{arity}: give it "
                    "another name, with a mapping {name: black box}"
                )
            relation = SimpleProbabilisticBuiltIn(self._relation(name, box, known))
            engine.add_builtin(name, arity, relation)

    def _relation(
        self,
        name: str,
        box: BlackBox,
        known: Callable[[str, Arguments], Any],
    ) -> Callable[..., list[tuple[tuple[Term, ...], Key]]]:
        count = arguments_of(box)

        def call(*terms: Any, engine: Engine, **about: Any) -> list[tuple[tuple[Term, ...], Key]]:
            fault = unbound(name, terms[:count])
            if fault is not None:
                file, line, column = about["database"].lineno(about["location"]) or _NOWHERE
                raise self.source.error(fault, line, column, file)
            given = [token for term in terms[:count] for token in tokens(term)]
            if any(isinstance(token, Observed) for token in given):
                raise Touched(*given)
            if given:
                if gives_several(box):
                    raise Touched(*given)
                token = Call(name, terms[:count])
                engine.ask(token, answered=True, about=about)
                return self._answers(token, terms, about["target"])
            arguments = tuple(to_python(term) for term in terms[:count])
            answer = known(name, arguments)
            engine.ask((name, arguments, typed(arguments)), answered=bool(answer), about=about)
            if not answer:
                return []
            asked, target = terms[count:], about["target"]
            if asked and isinstance(asked[0], Observed):
                return [
                    (terms, target.add_and([node, engine.observed(asked[0], given[-1], target)]))
                    for given, node in solutions(name, terms[:count], (None,), answer[0], target)
                ]
            looked_at = [token for term in asked for token in tokens(term)]
            if looked_at:
                raise Touched(*looked_at)
            return list(solutions(name, terms[:count], asked, answer[0], target))

        return call

    def _answers(
        self, call: Call, terms: tuple[Any, ...], target: LogicFormula
    ) -> list[tuple[tuple[Term, ...], Key]]:
        """What a call on tokens gives: a token, or tests of what its answer is."""
        given = terms[: len(call.arguments)]
        output = self.boxes[call.box].output
        looked_at = len(terms) == len(given) or not is_variable(terms[-1])
        if looked_at and is_uncertain(self.boxes[call.box]):
            raise Touched(*values_in(call))
        if len(terms) == len(given):
            return [(terms, _test(call, to_term(True), target))]
        asked = terms[-1]
        if is_variable(asked) and call.box in self.listed:
            assert output is not None
            values = map(to_term, output.values)
            return [((*given, value), _test(call, value, target)) for value in values]
        if is_variable(asked):
            return [((*given, call), 0)]
        if not is_ground(asked) or (not isinstance(asked, Token) and any(tokens(asked))):
            raise Touched(call, *tokens(asked))
        return [(terms, _test(call, asked, target))]

    def _read(
        self,
        target: LogicFormula,
        patterns: list[tuple[Term, list[tuple[Term, Key]]]],
        evidence: tuple[Key, ...],
        asked: Mapping[Asked, list[Key]],
    ) -> Ground:
        answers = [answer for _, some in patterns for answer in some]
        keys = [key for _, key in answers]
        bound = self._bindings(patterns)
        for call in asked:
            # Only the one answer of a program can be a call whose answer is uncertain.
            if isinstance(call, Call) and is_uncertain(self.boxes[call.box]) and [call] != bound:
                raise Touched(*values_in(call))
        reader = _Reader(self, target)
        roots = [*keys, *evidence, *(key for guards in asked.values() for key in guards)]
        calls = [call for call in asked if isinstance(call, Call)]
        terms = [*(term for term, _ in answers), *calls]
        reader.read(roots, dict.fromkeys(value for term in terms for value in values_in(term)))
        ground = Ground(
            reader.nodes,
            tuple(reader.concepts),
            tuple(term for term, _ in answers),
            None if bound is None else tuple(bound),
            tuple(keys),
            evidence,
            (),
            (),
            reader.tokens,
            reader.observed,
            patterns=tuple((pattern, len(some)) for pattern, some in patterns),
        )

        def guard(call: Any) -> Key:
            guards = asked[call]
            return guards[0] if len(guards) == 1 else ground.disjoin(guards)

        asks = tuple(Ask(*call[:2], guard(call)) for call in asked if not isinstance(call, Call))
        return replace(ground, asks=asks, calls=tuple((call, guard(call)) for call in calls))

    def _bindings(self, patterns: list[tuple[Term, list[tuple[Term, Key]]]]) -> list[Term] | None:
        """The bindings of the variable, where one query has one and they can be told apart."""
        if len(patterns) != 1:
            return None
        (pattern, answers) = patterns[0]
        found = [list(bindings(pattern, term)) for term, _ in answers]
        if any(len(some) != 1 or not is_ground(some[0][1]) for some in found):
            return None
        terms = [some[0][1] for some in found]
        names = set(map(typed, map(to_python, terms)))
        return terms if len(names) == len(terms) else None  # abc and "abc" are one in Python


class _Reader:
    """Reads the nodes of ProbLog's formula that are needed, and finds the concepts among them."""

    def __init__(self, grounder: Grounder, target: LogicFormula) -> None:
        self._grounder = grounder
        self._target = target
        self.nodes: dict[int, Node] = {}
        self.concepts: list[Concept] = []
        self.tokens: dict[Value, int] = {}
        self.observed: dict[int, tuple[Hashable, ...]] = {}

    def read(self, keys: Iterable[Key], values: Iterable[Value]) -> None:
        self.nodes, choices = read(self._target, keys)
        for choice in choices:
            # It is another choice, or the same as another, as the token is one value or another.
            seen = tuple(_chosen_by(choice))
            if seen:
                raise Touched(*seen)
        by_label: dict[str | None, list[Choice]] = {}
        for choice in choices:
            by_label.setdefault(_functor(choice), []).append(choice)
        networks: list[tuple[Term, Choice | Value]] = [
            (_label(choice), choice) for choice in by_label.pop(LABEL, ())
        ]
        tests = by_label.pop(CALL_TEST, [])
        for choice in tests:
            call, other = next(iter(choice.atoms.values())).probability.args
            values = [*values, *values_in(call), *values_in(other)]
        networks += [
            (Term(LABEL, Term(value.network), value.inputs), value)
            for value in dict.fromkeys(values)
        ]
        networks.sort(key=lambda item: order_key(item[0]))
        for label, source in networks:
            self._network_concept(label, source)
        self._observed_concepts(by_label.pop(OBSERVED, []))
        for choice in by_label.pop(TUNABLE, []):
            self._tunable_concept(choice)
        for choice in itertools.chain.from_iterable(by_label.values()):
            self._constant_concept(choice)
        for choice in tests:
            self._test_concept(choice)

    def _network_concept(self, label: Term, source: Choice | Value) -> None:
        name, inputs = label.args
        network = self._grounder.networks[str(to_python(name))]
        if not is_ground(inputs):
            raise self._grounder.source.error(
                f"the inputs {inputs} of network {network.name} are not bound when it is used"
            )
        if next(tokens(inputs), None) is not None:
            raise Touched(*tokens(inputs))
        number = len(self.concepts)
        if isinstance(source, Value):
            self.tokens[source] = number
        else:
            for key, atom in source.atoms.items():
                self.nodes[key] = ("literal", (number, int(atom.probability.args[2])))
        self.concepts.append(Concept.predicted(network, inputs))

    def _observed_concepts(self, choices: list[Choice]) -> None:
        found: dict[int, dict[Hashable, list[int]]] = {}
        for choice in choices:
            for key, atom in choice.atoms.items():
                number, value = map(to_python, atom.probability.args)
                assert isinstance(number, int)
                found.setdefault(number, {}).setdefault(typed(value), []).append(key)
                self.observed[number] = (*self.observed.get(number, ()), value)
        for number in sorted(found):
            values = self.observed[number] = tuple(
                {typed(v): v for v in self.observed[number]}.values()
            )
            name = observation(number)
            for position, value in enumerate(values):
                for key in found[number][typed(value)]:
                    self.nodes[key] = ("literal", (len(self.concepts), position))
            self._grounder.networks[name] = Network(name, (*values, None))
            self.concepts.append(Concept(name, len(values) + 1, name, list2term([])))

    def _test_concept(self, choice: Choice) -> None:
        for key, atom in choice.atoms.items():
            call, other = atom.probability.args
            self.nodes[key] = ("literal", (len(self.concepts), 1))
            test = Concept(f"{call} = {other}", 2, probs=(1.0, 1.0), test=(call, other))
            self.concepts.append(test)

    def _tunable_concept(self, choice: Choice) -> None:
        database = self._grounder._database
        assert database is not None
        number, _, *index = next(iter(choice.atoms.values())).probability.args
        clause = database.tunables[int(number)]
        for key, atom in choice.atoms.items():
            self.nodes[key] = ("literal", (len(self.concepts), int(atom.probability.args[1])))
        parameter = self._grounder.parameters.name(int(number), clause, index)
        self.concepts.append(Concept(str(choice.name), clause.width, parameter=parameter))

    def _constant_concept(self, choice: Choice) -> None:
        probs = []
        for position, (number, atom) in enumerate(choice.atoms.items()):
            probs.append(self._probability(atom))
            self.nodes[number] = ("literal", (len(self.concepts), position))
        total = sum(probs)
        if total > 1 + 1e-9:
            message = (
                f"the probabilities of the disjunction of {choice.name} sum to {total:g}, above 1: "
                "divide them by their sum"
            )
            raise ProbabilityError(str(self._error(message, atom.probability)))
        if total < 1 - 1e-9:  # else there is no world in which none of them holds
            probs.append(1.0 - total)
        answer = is_answer(atom.group)
        self.concepts.append(
            Concept(str(choice.name), len(probs), probs=tuple(probs), answer=answer)
        )

    def _probability(self, atom: Any) -> float:
        label, name = atom.probability, as_written(atom.name)
        try:
            value = float(label.compute_value()) if isinstance(label, Term) else float(label)
        except (ProbLogError, TypeError, ValueError):
            raise self._error(
                f"{label}::{name}: the probability is not a number; one that is learned is "
                "t(_), or comes from a network: nn(network, [Input]) :: head",
                label,
            ) from None
        if not 0.0 <= value <= 1.0:
            message = (
                f"{label}::{name}: a probability lies between 0 and 1; mend what it is computed "
                "from, or keep it apart by a test, P =< 1"
            )
            raise ProbabilityError(str(self._error(message, label)))
        return value

    def _error(self, message: str, label: Any) -> ProgramError:
        """An error at the place of a label."""
        database = self._grounder._database
        location = getattr(label, "location", None)
        place = database.lineno(location) if database is not None and location else None
        file, line, column = place or _NOWHERE
        return self._grounder.source.error(message, line, column, file)


def observation(number: int) -> str:
    """The name under which the values of an observation are given."""
    return f"{OBSERVED}({number})"


def _test(call: Call, other: Term, target: LogicFormula) -> Key:
    """The atom that holds where the answer of a call is a term."""
    key: Key = target.add_atom((CALL_TEST, str(call), str(other)), Term(CALL_TEST, call, other))
    return key


def _chosen_by(choice: Choice) -> Iterator[Token]:
    """The tokens in the substitution of a probabilistic clause."""
    group = next(iter(choice.atoms.values())).group
    if isinstance(group, tuple):
        for term in group[1]:
            yield from tokens(term)


def _functor(choice: Choice) -> str | None:
    """What kind of label the atoms of a choice have; None for a probability."""
    label = next(iter(choice.atoms.values())).probability
    functor = label.functor if isinstance(label, Term) else None
    return functor if functor in (LABEL, CALL_TEST, OBSERVED, TUNABLE) else None


def _label(choice: Choice) -> Term:
    """The network and inputs that a concept is predicted from, as a term."""
    label = next(iter(choice.atoms.values())).probability
    return label(*label.args[:2])
