"""What Scallop's engine calls while it runs: a provenance over any `Tags`, functions, predicates.

An exception that leaves a callback is a panic in Rust. So it is kept, from then on every callback
answers with zero, so that the run ends soon, and `run` raises it. So is what a signal raises.

Scallop loses the tags of foreign predicates under a custom provenance: it takes `one()` for each.
It calls `one()` right after the predicate, once for each tuple that was yielded and in their order,
so `one()` gives the tags that are due.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, Generic, TypeVar

from byssus import ByssusError, CompilationLimit

from ._algebra import Tags, Unit
from ._engine import TooManyTuples
from ._operators import Dropped
from ._syntax import Span

__all__ = ["CERTAIN", "Callbacks", "panics"]

T = TypeVar("T")
R = TypeVar("R")
Row = tuple[Hashable, ...]

_GRACE = 1.0
"""Seconds in which a run that has failed may end by itself, before it is broken off."""

CERTAIN: Any = object()
"""A tag whose product with any other is one: that of a fact which makes others certain."""

_OFTEN = 1024
_DERIVATIONS = 10
"""A tuple may be derived so many times; Scallop does not say how many there are."""


class Callbacks(Generic[T]):
    """A provenance as Scallop calls it. One run at a time, each begun by `start`.

    Attributes:
        dropped: how many tuples were dropped, by place and reason.
        left: see `OwnContext`.
        running: whether Scallop is at work.
        mult: both.
        discard: whether it holds in no world.
    """

    mult: Callable[[T, T], T]
    discard: Callable[[T], bool]

    def __init__(self) -> None:
        self.left: list[Any] = []
        self.running = False
        self._stderr: int | None = None
        self.start(Unit(), None)  # type: ignore[arg-type]

    def start(self, tags: Tags[T], deadline: float | None, tuples: int | None = None) -> None:
        """Begin a run.

        Args:
            tags: the provenance.
            deadline: a `time.monotonic` at which it is to be over.
            tuples: the most that are to be derived.
        """
        self.error: BaseException | None = None
        self.dropped: dict[tuple[Span, str], int] = defaultdict(int)
        self._tags = tags
        self._due: deque[T] = deque()
        self._known: dict[tuple[str, Row], list[tuple[T, Row]]] = {}
        self._deadline = deadline
        self._most = tuples
        self._raises = False
        for name in ("one", "add", "negate", "saturated"):
            vars(self).pop(name, None)
        # Closures, as Scallop calls these two for every tuple that it comes upon.
        self.mult = self._mult(tags.mult, tags.one)
        self.discard = self._discard(tags.possible)

    def run(self, work: Callable[[], Any]) -> None:
        """Let Scallop work, and raise in the end what was raised in between."""
        main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGINT) if main else None
        if callable(handler):
            signal.signal(signal.SIGINT, functools.partial(self._interrupted, handler))
        self.running = True
        try:
            panic = panics(work)
        finally:
            self.running = False
            if callable(handler):
                signal.signal(signal.SIGINT, handler)
            if self._stderr is not None:
                os.dup2(self._stderr, 2)
                os.close(self._stderr)
                self._stderr = None
        if self.error is not None:
            raise self.error
        if panic is not None:
            raise ByssusError(f"Scallop: {panic}") from panic

    def _interrupted(
        self, handler: Callable[..., Any], number: int, frame: FrameType | None
    ) -> None:
        """Do what is done at an interrupt, but raise nothing into Rust."""
        try:
            handler(number, frame)
        except BaseException as error:
            if self._raises:
                raise
            self.fail(error)

    # The provenance

    def name(self) -> str:
        """What Scallop shows."""
        return "byssus"

    def tagging_fn(self, tag: Any) -> Any:
        """Facts come with tags of their own."""
        return tag

    def recover_fn(self, tag: Any) -> Any:
        """And leave with them."""
        return tag

    def zero(self) -> T:
        """The tag of what does not hold."""
        return self._tags.zero

    def one(self) -> T:
        """The tag of what holds, or that of a tuple that a predicate has just yielded."""
        return self._due.popleft() if self._due else self._tags.one

    def add(self, a: T, b: T) -> T:
        """Either."""
        try:
            return self._tags.add(a, b)
        except BaseException as error:
            return self.fail(error)

    def _mult(self, product: Callable[[T, T], T], one: T) -> Callable[[T, T], T]:
        operations = 0

        def mult(a: T, b: T) -> T:
            nonlocal operations
            try:
                operations += 1
                if not operations % _OFTEN:
                    self._check()
                if a is CERTAIN or b is CERTAIN:
                    return one
                return product(a, b)
            except BaseException as error:
                return self.fail(error)

        return mult

    def negate(self, a: T) -> T:
        """Not."""
        try:
            return self._tags.negate(a)
        except BaseException as error:
            return self.fail(error)

    def saturated(self, old: T, new: T) -> bool:
        """Whether a tag has stopped growing."""
        try:
            return bool(self._tags.equal(old, new))
        except BaseException as error:
            self.fail(error)
            return True

    def _discard(self, possible: Callable[[T], bool]) -> Callable[[T], bool]:
        derived = 0

        def discard(tag: T) -> bool:
            nonlocal derived
            try:
                derived += 1
                if not derived % _OFTEN:
                    self._check(derived)
                return tag is not CERTAIN and not possible(tag)
            except BaseException as error:
                self.fail(error)
                return True

        return discard

    def fail(self, error: BaseException) -> T:
        """Keep an error, and let the run come to its end."""
        zero = self._tags.zero
        if self.error is None:
            self.error = error
            self._due.clear()
            end = time.monotonic() + _GRACE

            def nothing(*_: Any) -> T:
                if time.monotonic() > end:
                    self._panic(error)
                return zero

            vars(self).update(one=nothing, add=nothing, mult=nothing, negate=nothing)
            vars(self).update(saturated=lambda *_: True, discard=lambda _: True)
        return zero

    def _panic(self, error: BaseException) -> None:
        """Leave Rust: of what goes on and on, such as a large join, there is no other way out.

        It is in a copy of the context. What Rust writes of it is no news.
        """
        if self._stderr is None:
            self._stderr = os.dup(2)
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
        raise error

    def _check(self, derived: int = 0) -> None:
        if self._due:
            raise ByssusError(
                "this version of scallopy takes the tags of foreign predicates in another order "
                'than byssus gives them: take backend="embedded", and report it'
            )
        if self._most is not None and derived > self._most * _DERIVATIONS:
            raise TooManyTuples(
                f"the rules have derived {derived} tuples, where the relations are to hold "
                f"{self._most} at most: bound the recursion, or raise the limit"
            )
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise CompilationLimit(
                "the run has used up its seconds: bound the recursion, or raise `seconds`"
            )

    # Functions and predicates

    def function(
        self, name: str, function: Callable[..., Any], arguments: int, result: str, where: Span
    ) -> Any:
        """A function as Scallop reads foreign ones.

        What it raises is counted, and drops the tuple.

        Args:
            name: of the function in Scallop.
            function: what is called.
            arguments: how many there are, of any types.
            result: the type of the result.
            where: what it is that drops what the function does not take.
        """

        def call(*values: Any) -> Any:
            if self.error is not None:
                return None
            try:
                return self._called(function, *values)
            except (ByssusError, KeyboardInterrupt, SystemExit) as error:
                self.fail(error)
            except Exception as error:
                self._drop(where, error)
            return None

        return SimpleNamespace(
            name=name,
            func=call,
            suppress_warning=True,
            generic_type_params=[],
            static_arg_types=[SimpleNamespace(kind="family", type_family="Any")] * arguments,
            optional_arg_types=[],
            var_arg_types=None,
            return_type=SimpleNamespace(kind="base", type=result),
        )

    def predicate(
        self,
        name: str,
        shown: str,
        types: Sequence[str],
        bound: int,
        function: Callable[..., Iterable[tuple[Any, Row]]],
        where: Span,
    ) -> Any:
        """A predicate as Scallop reads foreign ones, with the tags of its tuples.

        Args:
            name: of the predicate in Scallop.
            shown: its name in messages, and in what tells its tuples apart.
            types: of all columns, the `bound` first ones being arguments.
            bound: how many these are.
            function: from the arguments to `(tag, outputs)`.
            where: what it is that drops what the function does not take.
        """

        def call(*row: Any) -> list[tuple[None, Row]]:
            if self.error is not None:
                return []
            try:
                found = self._yielded(shown, row, function, where)
            except (ByssusError, KeyboardInterrupt, SystemExit) as error:
                self.fail(error)
                return []
            self._due.extend(tag for tag, _ in found)
            return [(None, outputs) for _, outputs in found]

        return _Predicate(
            call,
            name=name,
            type_params=[],
            types=[SimpleNamespace(type=kind) for kind in types],
            tag_type="none",
            bound=bound,
            suppress_warning=True,
        )

    def _yielded(
        self,
        name: str,
        row: Row,
        function: Callable[..., Iterable[tuple[Any, Row]]],
        where: Span,
    ) -> list[tuple[T, Row]]:
        """The tuples of a predicate, evaluated once for the same arguments."""
        if (name, row) not in self._known:
            try:
                found = self._called(lambda: list(function(*row)))
            except (ByssusError, KeyboardInterrupt, SystemExit):
                raise
            except Exception as error:
                found = []
                self._drop(where, error)
            self._known[name, row] = [
                (self._fact((name, row, i), tag), outputs) for i, (tag, outputs) in enumerate(found)
            ]
        return self._known[name, row]

    def _called(self, function: Callable[..., R], *arguments: Any) -> R:
        """Call what may take its time: an interrupt ends it."""
        self._raises = True
        try:
            return function(*arguments)
        finally:
            self._raises = False

    def _fact(self, key: Hashable, tag: Any) -> T:
        if tag is None or tag is True:
            return self._tags.one
        return self._tags.zero if tag is False else self._tags.fact(key, tag)

    def _drop(self, where: Span, error: Exception) -> None:
        plain = isinstance(error, Dropped)
        self.dropped[where, str(error) if plain else f"{type(error).__name__}: {error}"] += 1


def panics(work: Callable[[], Any]) -> BaseException | None:
    """The error that Scallop ends with, if it does; a panic in Rust is no `Exception`."""
    try:
        work()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return error
    return None


class _Predicate(SimpleNamespace):
    """A foreign predicate as Scallop reads it."""

    def __init__(self, function: Callable[..., Any], **attributes: Any) -> None:
        super().__init__(func=function, **attributes)

    def __call__(self, *arguments: Any) -> Any:
        return self.func(*arguments)

    def all_argument_types(self) -> list[Any]:
        """The types of all columns."""
        return list(self.types)

    def num_bounded(self) -> int:
        """How many columns are arguments."""
        return int(self.bound)
