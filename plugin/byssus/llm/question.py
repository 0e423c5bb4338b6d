"""Questions: a prompt template as an async function from its arguments to an answer."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byssus.errors import DomainError, LLMError, ReplayMiss, SettingsError

from . import _settings
from ._client import NotServedError, send
from ._form import Form, calibrated, frequencies
from ._template import Template

if TYPE_CHECKING:
    from .cache import Cache, Cost

__all__ = ["OPTIONS", "Question", "Report"]

OPTIONS = (
    "choices",
    "many",
    "model",
    "system",
    "examples",
    "votes",
    "calibration",
    "logprobs",
    "mode",
    "budget",
    "settings",
)
"""The arguments of `Question` that a program's file may give."""


@dataclass
class Report:
    """What has been asked, and what it cost.

    Attributes:
        calls: requests that were sent.
        cached: answers that were in the cache.
        failed: requests that gave no answer, or none that fits.
        input_tokens: of the requests that were sent.
        output_tokens: of their replies.
        usd: their price; 0 where byssus.toml has no prices.
    """

    calls: int = 0
    cached: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0

    def __str__(self) -> str:
        price = f", {self.usd:.4f} US dollars" if self.usd else ""
        return (
            f"{self.calls} calls, {self.cached} answers from the cache, {self.failed} failures; "
            f"{self.input_tokens} tokens in, {self.output_tokens} out{price}"
        )


class Question:
    """A prompt template as an async function of its arguments.

    Awaited on values, it gives an answer: one value; a tuple of several; True or False for a test;
    a list of those with `many`. Where answers are uncertain, a dictionary from them to
    probabilities. Answers are kept in a cache, and what is there is not asked for again.

    Args:
        prompt: the template, see `Template`.
        name: what messages and budgets call it.
        arguments: the names of the arguments, in order.
        fields: the names of the values of an answer, and what they are, see `Form`.
        many: whether an answer is a list: one call, many tuples.
        choices: what the one value may be.
        model: a section of byssus.toml, or a model of the server; None for the default.
        system: the system message; no template.
        examples: pairs of arguments (a tuple, or the one value) and the answer.
        votes: how many times to ask; the answer is then uncertain, by the frequencies.
        calibration: a temperature: probabilities to the power of 1 / calibration.
        logprobs: whether the log-probabilities of the choices make the answer uncertain; None for
            where there are choices, one vote, and the server says them.
        mode: "auto" asks for what is not in the cache, "replay" never does; None for
            `BYSSUS_LLM_MODE` or byssus.toml.
        budget: at most so many "calls", "tokens" and "usd", ever, of all processes with this cache,
            for questions of this name.
        cache: its file; None for `BYSSUS_LLM_CACHE` or byssus.toml.
        settings: of requests, over those of the model: temperature, max_tokens, seed, ...
        timeout: seconds an attempt.

    Attributes:
        template: the prompt.
        form: of the answers.
        name: what messages and budgets call it.
        votes: how many times each question is asked.
        budget: the limits.
        report: what has been asked.

    Raises:
        DomainError: the template, the choices or an option is wrong.
        SettingsError: byssus.toml or the settings are.
    """

    def __init__(
        self,
        prompt: str,
        *,
        name: str,
        arguments: Sequence[str],
        fields: Mapping[str, Any],
        many: bool = False,
        choices: Any = None,
        model: str | None = None,
        system: str | None = None,
        examples: Sequence[tuple[Any, Any]] = (),
        votes: int = 1,
        calibration: float = 1.0,
        logprobs: bool | None = None,
        mode: str | None = None,
        budget: Mapping[str, float] | None = None,
        cache: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        timeout: float | None = 60.0,
    ) -> None:
        def need(condition: object, rule: str) -> None:
            if not condition:
                raise DomainError(f"{name}: {rule}")

        need(isinstance(many, bool), f"many={many!r}: give True or False")
        need(_is_count(votes), f"votes={votes!r}: give a whole number, 1 or more")
        need(
            isinstance(calibration, int | float) and 0 < calibration < float("inf"),
            f"calibration={calibration!r}: give a temperature above 0; 1 leaves probabilities",
        )
        need(logprobs in (None, True, False), f"logprobs={logprobs!r}: give True or False")
        need(mode in (None, *_settings.MODES), f"mode={mode!r}: there are 'auto' and 'replay'")
        need(model is None or (isinstance(model, str) and model), f"model={model!r}: a name")
        need(system is None or isinstance(system, str), f"system={system!r}: give a text")
        need(
            isinstance(examples, Sequence) and not isinstance(examples, str),
            f"examples={examples!r}: give a list of pairs of arguments and an answer",
        )
        need(isinstance(cache, str | Path | None), f"cache={cache!r}: give the path of a file")
        try:
            self.template = Template(prompt, arguments)
            self.form = Form(fields, choices, many)
        except DomainError as error:
            raise DomainError(f"{name}: {error}") from None
        need(not logprobs or bool(self.form.choices), "logprobs= is for an answer with choices")
        need(not (logprobs and votes > 1), "logprobs= and votes= are two ways; give one")
        need(
            votes == 1 or not many,
            "votes= are counted for one answer; with many= each list would be one",
        )
        self.name = name
        self.votes = votes
        self.calibration = calibration
        self.logprobs = logprobs
        self.report = Report()
        self._model = model
        self._mode = mode
        self._cache = None if cache is None else Path(cache).expanduser()
        _settings.check_budget({} if budget is None else budget, f"{name}: budget=")
        _settings.check_settings({} if settings is None else settings, f"{name}: settings=")
        self.budget = dict(budget or {})
        self._settings = dict(settings or {})
        self._timeout = timeout
        self._system = system
        self._examples = [self._example(pair) for pair in examples]
        self._own()

    def _own(self) -> None:
        """Make what a copy cannot share."""
        self._asking: weakref.WeakValueDictionary[Any, _Turn] = weakref.WeakValueDictionary()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_asking"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._own()

    def __repr__(self) -> str:
        return f"Question({self.template.text!r}, name={self.name!r})"

    @property
    def alternatives(self) -> int:
        """The most answers that are given with a probability; 1 where answers are certain."""
        if self.votes > 1:
            return min(self.votes, len(self.form.choices) or self.votes)
        return 1 if self.logprobs is False else max(1, len(self.form.choices))

    def affordable(self, limit: int) -> int:
        """Of so many argument tuples, how many its budget of calls is enough for."""
        calls = self.budget.get("calls")
        return limit if calls is None else min(limit, int(calls) // self.votes)

    @property
    def concurrency(self) -> int:
        """How many calls go out at once, by byssus.toml."""
        return _settings.settings().concurrency

    async def __call__(self, *values: Any) -> Any:
        """The answer.

        Raises:
            ReplayMiss: it is not in the cache, and `mode="replay"`.
            BudgetExceeded: a call would exceed the budget.
            SettingsError: there is no model, no key, or no client.
            CacheError: the cache cannot be read or written.
            LLMError: there is no answer, or none that fits.
        """
        now = _settings.settings()
        requests = self._requests(values, now)
        replies = await asyncio.gather(
            *(self._reply(request, now) for request in requests), return_exceptions=True
        )
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        try:
            return self._answer([reply for reply in replies if isinstance(reply, dict)])
        except LLMError as error:
            self.report.failed += 1
            raise LLMError(
                f"the reply of {requests[0]['model']} is no answer: {error}. It is kept (`byssus "
                f"cache show {_stored().key_of(requests[0])[:12]}`): change the question, or prune "
                "it"
            ) from None

    def requests(self, *values: Any) -> list[dict[str, Any]]:
        """What is sent for these arguments, one request a vote: all that decides the answer.

        Raises:
            DomainError: the template fails on them.
            SettingsError: no model is named.
        """
        return self._requests(values, _settings.settings())

    def _requests(self, values: tuple[Any, ...], now: _settings.Settings) -> list[dict[str, Any]]:
        prompt = self.template.render(values)
        called, section = now.section(self._model)
        asked = {**section, **self._settings}
        style = asked.get("format", "json_schema")
        request: dict[str, Any] = {"model": called, "messages": self._messages(prompt, style)}
        request |= {"temperature": 1.0 if self.votes > 1 else 0.0, "max_tokens": self.form.length}
        request |= _settings.requested(asked)
        if self.votes > 1 and request["temperature"] == 0:
            raise SettingsError(
                f"{self.name}: votes={self.votes} at temperature 0 would be {self.votes} times the "
                "same: give settings={'temperature': 1.0}"
            )
        schema = self.form.schema
        if schema is not None and style == "json_schema":
            described = {"name": "answer", "strict": True, "schema": schema}
            request["response_format"] = {"type": style, "json_schema": described}
        elif schema is not None and style == "json_object":
            request["response_format"] = {"type": style}
        wanted = asked.get("logprobs", True) if self.logprobs is None else self.logprobs
        if self.form.choices and self.votes == 1 and wanted:
            request |= {"logprobs": True, "top_logprobs": asked.get("top_logprobs", 20)}
        for unwanted in asked.get("omit", ()):
            request.pop(unwanted, None)
        if "extra" in asked:
            request["extra"] = asked["extra"]
        if self.votes == 1:
            return [request]
        first = request.get("seed", 0)
        return [{**request, "seed": first + vote} for vote in range(self.votes)]

    def _messages(self, prompt: str, style: str) -> list[dict[str, str]]:
        told = [self._system, self.form.instruction(style)]
        system = "\n".join(text for text in told if text)
        messages = [{"role": "system", "content": system}] if system else []
        for shown, answer in self._examples:
            messages += [
                {"role": "user", "content": shown},
                {"role": "assistant", "content": self.form.example(answer, style)},
            ]
        return [*messages, {"role": "user", "content": prompt}]

    def _example(self, pair: Any) -> tuple[str, Any]:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DomainError(
                f"{self.name}: the example {pair!r} is no pair of arguments and an answer"
            )
        arguments, answer = pair
        if len(self.template.names) != 1 or not isinstance(arguments, tuple | list):
            values = arguments if isinstance(arguments, tuple | list) else (arguments,)
        else:
            values = arguments if len(arguments) == 1 else (arguments,)
        try:
            self.form.example(answer, "json_schema")
            return self.template.render(tuple(values)), answer
        except DomainError as error:
            raise DomainError(f"{self.name}: an example does not fit: {error}") from None

    def _answer(self, replies: Sequence[Mapping[str, Any]]) -> Any:
        for reply in replies:
            if reply.get("refusal"):
                raise LLMError(f"the model refuses: {str(reply['refusal'])[:200]!r}")
            if reply["content"] is None:
                raise LLMError("it has no content")
            if reply.get("finish") == "length":
                raise LLMError(
                    f"{reply['content'][:200]!r} is cut off; give settings={{'max_tokens': ...}} "
                    "more"
                )
        answers = [self.form.read(reply["content"]) for reply in replies]
        if self.votes > 1:
            return calibrated(frequencies(answers), self.calibration)
        if self.form.choices and self.logprobs is not False and replies[0].get("logprobs"):
            try:
                chances = self.form.chances(replies[0]["logprobs"])
            except (TypeError, ValueError, OverflowError):  # an import may hold anything
                chances = None
            if chances is not None:
                return calibrated(chances, self.calibration)
        if self.logprobs:
            raise LLMError(
                "the server gave no log-probabilities of the choices; leave out logprobs=True, or "
                "ask one that does"
            )
        return answers[0]

    async def _reply(self, request: dict[str, Any], now: _settings.Settings) -> dict[str, Any]:
        """The reply, from the cache or from the server."""
        cache = _stored().get_cache(self._cache or now.cache)
        key = _stored().key_of(request)
        # Arguments that make the same prompt are asked for once.
        asked = asyncio.get_running_loop(), key
        turn = self._asking.setdefault(asked, _Turn())
        async with turn.lock:
            if turn.failure is not None:
                raise turn.failure
            found: dict[str, Any] | None = cache.get(key)
            if found is not None:
                self.report.cached += 1
                return found
            if (self._mode or now.mode) == "replay":
                raise ReplayMiss(
                    f"{self.name}: mode='replay', and the cache {cache.path} has no answer to "
                    f"{request['messages'][-1]['content'][:200]!r} by {request['model']}; record "
                    "it with mode='auto', or see what has changed in the question or its settings"
                )
            try:
                return await self._call(request, key, cache, now)
            except LLMError as error:
                turn.failure = error  # of those that wait now; who comes later asks again
                self._asking.pop(asked, None)
                raise

    async def _call(
        self, request: dict[str, Any], key: str, cache: Cache, now: _settings.Settings
    ) -> dict[str, Any]:
        model = now.model(self._model)
        most = self._most(request, model, now)
        reservation = cache.reserve(self.name, most, self.budget, now.budget)
        self.report.calls += 1
        asked = {"retries": _RETRIES, "omit": (), **model.settings, **self._settings}
        # A vote's seed, which tells its answer from another's, is in the key, but not sent.
        sent = {name: value for name, value in request.items() if name not in asked["omit"]}
        try:
            reply = await send(model, sent, timeout=self._timeout, retries=asked["retries"])
        except (NotServedError, SettingsError):
            cache.release(reservation)
            self.report.failed += 1
            raise
        except BaseException:  # a timeout, too: the server may have done the work
            cache.keep(reservation)
            self.report.failed += 1
            raise
        cost = most
        if reply.usage is not None:
            cost = _stored().Cost(1, *reply.usage, _usd(model, *reply.usage))
        self.report.input_tokens += cost.input_tokens
        self.report.output_tokens += cost.output_tokens
        self.report.usd += cost.usd
        return cache.store(
            key, request=request, reply=reply.stored, cost=cost, reservation=reservation
        )

    def _most(
        self, request: Mapping[str, Any], model: _settings.Model, now: _settings.Settings
    ) -> Cost:
        """What a request can cost: a token is a byte at least."""
        contents = [
            message["content"].encode("utf-8", "replace") for message in request["messages"]
        ]
        contents.append(json.dumps(request.get("response_format", "")).encode())  # it is read, too
        read = sum(map(len, contents)) + _FRAME * (1 + len(contents))
        written = request.get("max_tokens", request.get("extra", {}).get("max_completion_tokens"))
        limits = self.budget.keys() | now.budget.keys()
        if written is None and limits & {"tokens", "usd"}:
            raise SettingsError(
                f"{self.name}: without max_tokens a call has no bound, and there is a budget of "
                "tokens: leave it out of omit="
            )
        if "usd" in limits and not model.prices:
            raise SettingsError(
                f"{self.name}: there is a budget in US dollars, and {model.name} has no prices: "
                "give its section of byssus.toml prices = {input = ..., output = ...}"
            )
        written = written or 0
        most: Cost = _stored().Cost(1, read, written, _usd(model, read, written))
        return most


class _Turn:
    """Those that ask for the same at the same time: one calls, and its failure is that of all."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.failure: LLMError | None = None


def _stored() -> Any:
    """The module of the cache, which needs what only language models do."""
    try:
        from . import cache
    except ImportError as error:
        raise SettingsError(
            "answers of language models are kept with SQLAlchemy: pip install 'byssus[llm]'"
        ) from error
    return cache


_RETRIES = 4
_FRAME = 16
"""Tokens around a message."""


def _usd(model: _settings.Model, read: int, written: int) -> float:
    prices = model.prices
    if not prices:
        return 0.0
    return (read * prices["input"] + written * prices["output"]) / 1e6


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
