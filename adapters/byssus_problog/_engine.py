r"""ProbLog's engine, with black boxes that are asked while it grounds, and called after.

The engine notes each call that it asks for, and in which worlds it does (the call's *guard*): those
in which the goals before it in its clause hold. It answers from what is known. A call that has no
answer yet fails, which is safe as long as more answers can only add to what is derived. Below a
negation or a `findall` they can take away: there, what rests on a call without an answer is held
back in the worlds that ask for it, until a later grounding knows the answer. So a rule like
`next(Y) :- state(X), \+ done(X), step(X, Y)` makes no call that its finished form does not make,
and no loop runs on because the call that ends it has not been answered.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from problog.engine import DefaultEngine
from problog.engine_stack import SimpleProbabilisticBuiltIn
from problog.eval_nodes import EvalAnd, EvalDefine, EvalNot
from problog.formula import LogicFormula
from problog.logic import Constant, Term, is_ground

from byssus.formula import Key

from ._database import VALUE, Database
from ._terms import to_python
from ._tokens import OBSERVED, Call, Observed, Token, Touched, Value, tokens

Arguments = tuple[Hashable, ...]
Asked = tuple[str, Arguments, Hashable] | Call
"""A call: a black box, its arguments and their types, for 1 is not 1.0; or a call on tokens."""

_AGGREGATES = ("findall", "all", "all_or_none")

_TRANSPARENT = {*(f"{name}/3" for name in _AGGREGATES), "=/2", *(f"call/{n}" for n in range(1, 10))}
"""The built-in predicates that may see tokens; those that ask what they are do it by unification"""

_COMPARE = {"is/2", "=/2", "=:=/2", "==/2"}
"""Those that may say what an observation is."""


@dataclass
class _Owner:
    """A goal, negation or aggregate, and what it rests on.

    Attributes:
        guards: where calls without an answer are asked, each in the formula that it speaks of.
        goals: the goals that it asks for.
        tokens: those that it made.
    """

    guards: list[tuple[LogicFormula, Key]] = field(default_factory=list)
    goals: dict[int, _Owner] = field(default_factory=dict)
    tokens: list[Token] = field(default_factory=list)

    def all_guards(self) -> list[tuple[LogicFormula, Key]]:
        """The guards of all calls without an answer below it."""
        return [guard for owner in self.below() for guard in owner.guards]

    def below(self) -> Iterator[_Owner]:
        """It, and what it asks for, directly or not."""
        seen = {id(self): self}
        stack = [self]
        while stack:
            owner = stack.pop()
            yield owner
            new = {i: goal for i, goal in owner.goals.items() if i not in seen}
            seen.update(new)
            stack += new.values()


@dataclass
class _Frame:
    """An aggregate under evaluation: a run of the engine within the engine."""

    owner: _Owner
    parent: int | None
    identifier: Key
    target: LogicFormula


class _OpenGoal(Exception):  # noqa: N818
    """A goal that is under evaluation in an outer run of the engine."""


class Engine(DefaultEngine):  # type: ignore[misc]
    """ProbLog's engine; `ask` is for black boxes.

    Args:
        asks: whether there are black boxes.
        symbolic: whether there may be tokens.

    Attributes:
        asked: for each call, in the order asked, its guards in the formula that is grounded to.
    """

    pointer: int
    cycle_root: Any

    def __init__(self, *, asks: bool = True, symbolic: bool = False) -> None:
        super().__init__()
        self._asks = asks or symbolic
        self._symbolic = symbolic
        self.asked: dict[Asked, list[Key]] = {}
        self._frames: list[_Frame] = []
        self._goals: dict[tuple[int, str, int], dict[Hashable, tuple[bool, _Owner]]] = {}
        self._unanswered = False
        self._base = 0
        for name in _AGGREGATES:
            builtin = self.get_builtin(self.get_builtins()[f"{name}/3"])
            builtin.base_function = self._aggregate(builtin.base_function)
        self._names = {id(self.get_builtin(i)): name for name, i in self.get_builtins().items()}
        self.add_simple_builtin(VALUE, 4, self._value)

    def prepare(self, db: Any) -> Any:
        """As ProbLog's, which would copy a `Database` into one of its own."""
        if not isinstance(db, Database):
            return super().prepare(db)
        db.engine = self
        self._process_directives(db)
        return db

    def ask(self, call: Asked, *, answered: bool, about: dict[str, Any]) -> None:
        """Note a call; `about` is what the engine told the built-in predicate."""
        self._unanswered |= not answered
        for owner, formula, before in self._walk(
            about["parent"], about["identifier"], about["target"]
        ):
            guard = formula.add_and([*before, 0])
            if not answered:
                owner.guards.append((formula, guard))
            if isinstance(call, Call):
                owner.tokens.append(call)
        # The walk may end within an aggregate, which has a formula of its own.
        outermost = self._frames[0].target if self._frames else about["target"]
        self.asked.setdefault(call, []).append(_copy(formula, guard, outermost))

    def eval_builtin(self, **about: Any) -> list[Any]:
        """Evaluate a built-in predicate; one of ProbLog's own may not see tokens."""
        name = self._names.get(id(about["node"])) if self._symbolic else None
        if name is not None:
            context = list(about["context"])
            known = [argument for argument in context if isinstance(argument, Observed)]
            if name in _COMPARE and len(known) == 1:
                about["node"] = SimpleProbabilisticBuiltIn(partial(self._observe, name))
            elif name not in _TRANSPARENT:
                seen = [token for argument in context for token in tokens(argument)]
                if seen:
                    raise Touched(*seen)
        actions: list[Any] = super().eval_builtin(**about)
        return actions

    def _value(
        self, network: Term, inputs: Term, declaration: Term, value: Any, **about: Any
    ) -> list[tuple[Any, ...]]:
        """`$value(network, inputs, declaration, Value)`: the token of a network's answer."""
        token = Value(str(to_python(network)), inputs, int(declaration))
        if not is_ground(inputs) or next(tokens(inputs), None) is not None or is_ground(value):
            raise Touched(token, *tokens(inputs), *tokens(value))
        for owner, _, _ in self._walk(about["parent"], about["identifier"], about["target"]):
            owner.tokens.append(token)
        return [(network, inputs, declaration, token)]

    def _observe(self, name: str, left: Any, right: Any, **about: Any) -> list[tuple[Any, Key]]:
        """Compare an observation with a term: it holds where the observation is that."""
        token, other = (left, right) if isinstance(left, Observed) else (right, left)
        if not is_ground(other) and name == "=/2":
            return [((token, token), 0)]
        if not is_ground(other) or (token is right and name == "is/2") or any(tokens(other)):
            raise Touched(token)
        if name in ("is/2", "=:=/2"):
            other = Constant(other.compute_value(self.functions))
        return [((left, right), self.observed(token, other, about["target"]))]

    def observed(self, token: Observed, other: Any, target: LogicFormula) -> Key:
        """The atom that holds where an observation is a term."""
        label = Term(OBSERVED, Constant(token.number), other)
        atom: Key = target.add_atom((OBSERVED, token.number, str(other)), label)
        return atom

    def eval_define(
        self, node: Any, context: Any, target: LogicFormula, parent: int | None, **more: Any
    ) -> list[Any]:
        """Evaluate a goal, and note what asks for it."""
        top = self.pointer
        goal = (node.functor, context)
        if self._base:
            open_ = target._cache.getEvalNode(goal)
            if open_ is not None and open_.pointer < self._base:
                raise _OpenGoal
        actions: list[Any] = super().eval_define(
            node=node, context=context, target=target, parent=parent, **more
        )
        if not self._asks:
            return actions
        goals = self._goals.setdefault((id(target), node.functor, len(context)), {})
        _, arguments = target._cache._reindex_vars(goal)
        ground = is_ground(*context)
        known = goals.get(tuple(arguments))
        if known is None and self.pointer == top and ground:
            # its answer came out of the table of a more general goal
            owners = [owner for is_ground_goal, owner in goals.values() if not is_ground_goal]
        else:
            owners = [goals.setdefault(tuple(arguments), (ground, _Owner()))[1]]
        if self.pointer > top:
            self.stack[top].owner = owners[0]
        for owner, _, _ in self._walk(parent, more.get("identifier"), target):
            owner.goals.update((id(goal), goal) for goal in owners)
        return actions

    def eval_neg(self, **more: Any) -> list[Any]:
        """Evaluate a negation."""
        if self.cycle_root is not None:
            self._complete(more["node"].child, **more)
        actions: list[Any] = self.eval_default(_Negation, **more)
        return actions

    def _complete(self, child: int, *, target: LogicFormula, **more: Any) -> None:
        """Evaluate what is negated in a run of its own, so that its answers are in the table.

        ProbLog joins a cycle that lies below a negation to one that is open above it, and takes
        that for a cycle through the negation. A goal that is open already is left to ProbLog,
        which knows whether there is such a cycle.
        """
        base, cycle_root, outer = self.pointer, self.cycle_root, self._base
        frame = _Frame(_Owner(), more["parent"], more["identifier"], target)
        self.cycle_root, self._base = None, base
        self._frames.append(frame)
        try:
            about = {
                name: more[name] for name in ("database", "context", "no_cache") if name in more
            }
            self.execute(child, target=target, subcall=True, identifier=None, **about)
        except _OpenGoal:
            for record in self.stack[base : self.pointer]:
                if isinstance(record, EvalDefine) and not record.is_cycle_child:
                    target._cache.deactivate((record.node.functor, record.context))
            self.stack[base : self.pointer] = [None] * (self.pointer - base)
            self.pointer = base
        finally:
            self._frames.pop()
            self.cycle_root, self._base = cycle_root, outer

    def unsettled(self, owner: _Owner, target: LogicFormula) -> Key:
        """The worlds in which a call below the owner has no answer yet."""
        if not self._unanswered:
            return None
        keys = [_copy(source, key, target) for source, key in owner.all_guards()]
        result: Key = target.add_or(keys) if keys else None
        return result

    def _aggregate(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def held_back(*terms: Any, **about: Any) -> list[tuple[Any, Key]]:
            target = about["target"]
            frame = _Frame(_Owner(), about["parent"], about["identifier"], target)
            self._frames.append(frame)
            try:
                results = function(*terms, **about)
            finally:
                self._frames.pop()
            made = [token for owner in frame.owner.below() for token in owner.tokens]
            if made:  # how many answers there are may depend on which values are the same
                raise Touched(*made)
            unsettled = self.unsettled(frame.owner, target)
            if unsettled is None:
                return list(results)
            settled = target.negate(unsettled)
            nodes = ((terms, target.add_and([node, settled])) for terms, node in results)
            return [(terms, node) for terms, node in nodes if node is not None]

        return held_back

    def _walk(
        self, parent: int | None, identifier: Key, target: LogicFormula
    ) -> Iterator[tuple[_Owner, LogicFormula, list[Key]]]:
        """What a goal serves, from the inside to the clause that it is written in.

        Each with the nodes of the goals before it, up to there, and the formula that they are of.
        On ProbLog's stack, a goal after a comma has the node of what came before it as identifier.
        The walk ends at the clause's own predicate: its table serves every caller.
        """
        keys: list[Key] = []
        depth = len(self._frames)
        root = _Owner()
        while True:
            if parent is None:
                depth -= 1
                if depth < 0:
                    yield root, target, keys
                    return
                frame = self._frames[depth]
                yield frame.owner, target, keys
                if frame.target is not target:
                    keys = [_copy(target, key, frame.target) for key in keys]
                parent, identifier, target = frame.parent, frame.identifier, frame.target
                continue
            record = self.stack[parent]
            if isinstance(record, EvalDefine) and not record.node.functor.startswith("_nocache_"):
                yield record.owner, target, keys
                return
            if isinstance(record, EvalAnd) and identifier is not None:
                keys = [*keys, identifier]
            elif isinstance(record, _Negation):
                yield record.owner, target, keys
            parent, identifier = record.parent, record.identifier


class _Negation(EvalNot):  # type: ignore[misc]
    """A negation that holds only where all calls below it have answers."""

    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        self.owner = _Owner()

    def notifyResult(self, arguments: Any, node: Key = 0, **more: Any) -> list[Any]:  # noqa: N802
        """Pass the result on, in the worlds where it is known."""
        unsettled = self.engine.unsettled(self.owner, self.target)
        if unsettled is not None:
            node = self.target.add_and([node, self.target.negate(unsettled)])
            if node is None:
                return []
        result: list[Any] = super().notifyResult(arguments, node, **more)
        return result


def _copy(source: LogicFormula, key: Key, target: LogicFormula) -> Key:
    """The same node in another formula."""
    if source is target or not key:
        return key
    copies: dict[int, Key] = {}
    stack = [abs(key)]
    while stack:
        number = stack[-1]
        node = source.get_node(number)
        kind = type(node).__name__
        if kind == "atom":
            copies[number] = target.add_atom(*node)
        else:
            missing = [abs(child) for child in node.children if child and abs(child) not in copies]
            if missing and number not in copies:
                copies[number] = None  # a way back into a cycle adds nothing
                stack += missing
                continue
            children = [_signed(target, copies, child) for child in node.children]
            add = target.add_and if kind == "conj" else target.add_or
            copies[number] = add(children)
        stack.pop()
    return _signed(target, copies, key)


def _signed(target: LogicFormula, copies: dict[int, Key], key: Key) -> Key:
    if not key:
        return key
    copy = copies[abs(key)]
    result: Key = copy if key > 0 else target.negate(copy)
    return result
