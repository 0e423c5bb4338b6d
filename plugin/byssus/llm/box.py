"""`llm`: a prompt template as a black box."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from byssus._calls import Arguments, Caller, Failure, Outcome
from byssus.blackbox import BlackBox, Chances, Checked, _check_provenance, _hashable, _is_view
from byssus.domains import Boolean, Discrete, Domain, Tuple
from byssus.errors import ByssusError, DomainError
from byssus.estimators import Estimator
from byssus.plan import Plan
from byssus.worlds import check_sampling

from ._template import Template
from .question import Question, Report

__all__ = ["LLM", "PromptBox", "llm"]


def llm(
    prompt: str,
    *,
    inputs: Mapping[str, Domain] | Sequence[str] | None = None,
    output: Domain | type | Mapping[str, Any] | None = None,
    choices: Any = None,
    many: bool = False,
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
    name: str | None = None,
    provenance: str = "auto",
    samples: int = 100,
    estimator: str | Estimator = "auto",
    generator: torch.Generator | None = None,
    on_error: Hashable = "raise",
    timeout: float | None = 60.0,
    concurrency: int | None = None,
) -> LLM:
    """Make a prompt template a black box: from tensors a `Distribution`, from plain values a value.

    Answers are kept in a cache on disk. Where the model is, and the key for it, are read from the
    environment and byssus.toml when it is asked.

    Args:
        prompt: the template, in Jinja's language: `{{name}}` is an argument.
        inputs: the arguments' domains by name, in order; or their names alone, for calls on plain
            values; None for the names in the prompt, in their order there.
        output: what an answer is: str, int, float or bool, a `Domain`, or, for several values,
            these by name; any text without it.
        choices: what an answer may be: a list, an `enum.Enum`, a finite `Domain`.
        many: whether an answer is a list, which comes as a tuple.
        model: a section of byssus.toml, or a model of the server; None for the default.
        system: the system message.
        examples: pairs of arguments (a tuple, or the one value) and the answer.
        votes: how many times to ask, at temperature 1 unless set; an answer's probability is then
            its frequency.
        calibration: a temperature: probabilities to the power of 1 / calibration, scaled.
        logprobs: whether the log-probabilities of choices are an answer's probabilities. None:
            where the server gives them.
        mode: "auto" or "replay", which makes no call and raises `ReplayMiss` for what is not in the
            cache; None for that of `BYSSUS_LLM_MODE` or byssus.toml.
        budget: at most so many "calls", "tokens" and "usd", ever, over all processes that use the
            cache, for this name. A call is checked before it is made, against what it can cost.
        cache: its file; None for that of `BYSSUS_LLM_CACHE` or byssus.toml.
        settings: of requests, over the model's: temperature, max_tokens, seed, ...
        name: the relation's name; "llm" if not given.
        provenance: see `blackbox`; so are `samples`, `estimator`, `generator` and `on_error`.
        samples: worlds an example, where they are sampled.
        estimator: how worlds become scores and a loss.
        generator: makes sampling reproducible.
        on_error: "raise", "discard", or the output to take. Failed calls are not remembered.
        timeout: seconds that a call may take, with all its attempts.
        concurrency: how many calls go out at once; byssus.toml's, or 64.

    Raises:
        DomainError: the template, the choices or an option is wrong.
        SettingsError: byssus.toml or the settings are.

    Example:
        >>> room = byssus.llm(
        ...     "In which room is a {{thing}}?",
        ...     inputs={"thing": Discrete(["bed", "oven"])},
        ...     choices=["bedroom", "kitchen"],
        ... )
        >>> room(torch.tensor([[0.5, 0.5]])).probs  # doctest: +SKIP
        tensor([[0.5100, 0.4900]])
    """
    called = name or "llm"
    if inputs is None:
        inputs = Template.variables(prompt) if isinstance(prompt, str) else []
    domains = dict(inputs) if isinstance(inputs, Mapping) else None
    for argument, domain in (domains or {}).items():
        if not isinstance(domain, Domain):
            raise DomainError(f"{called}: the argument {argument} has {domain!r} for a domain")
    fields = _fields(output, choices)
    question = Question(
        prompt,
        name=called,
        arguments=list(inputs),
        fields=fields,
        many=many,
        choices=choices,
        model=model,
        system=system,
        examples=examples,
        votes=votes,
        calibration=calibration,
        logprobs=logprobs,
        mode=mode,
        budget=budget,
        cache=cache,
        settings=settings,
        timeout=timeout,
    )
    check_sampling(samples, generator)
    _check_provenance(provenance)
    declared = _domain(question, fields)
    caller = Caller(
        question,
        name=called,
        check_output=Checked(_hashable if declared is None else declared.check_output),
        concurrency=question.concurrency if concurrency is None else concurrency,
        timeout=timeout,
        on_error=on_error,
        remote=True,
    )
    return LLM(question, domains, declared, caller, provenance, samples, estimator, generator)


class PromptBox(BlackBox):
    """A black box that is a question to a language model, in Python or in a program's file."""

    function: Question

    @property
    def question(self) -> Question:
        """The template, and how it is asked."""
        return self.function

    @property
    def table_limit(self) -> int:
        """The largest domain that is tabulated: what its budget of calls is enough for."""
        return self.question.affordable(super().table_limit)

    def report(self) -> Report:
        """What has been asked so far, and what it cost."""
        return replace(self.question.report)


class LLM(PromptBox):
    """A prompt template as a black box; made by `llm`."""

    def __init__(
        self,
        question: Question,
        inputs: Mapping[str, Domain] | None,
        output: Domain | None,
        caller: Caller,
        provenance: str,
        samples: int,
        estimator: str | Estimator,
        generator: torch.Generator | None,
    ) -> None:
        domains = tuple((inputs or {}).values())
        super().__init__(
            question,
            question.name,
            # A black box has a domain at least; without domains it is called on plain values.
            domains or (Boolean(),),
            output,
            caller,
            provenance,
            samples,
            estimator,
            generator,
        )
        self.inputs = domains

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Tensors: the distribution over outputs. Plain values: the answer, the likeliest if many.

        Raises:
            BlackBoxError: a call failed, under `on_error="raise"`.
            CallRefused: a call was not made: the budget, the settings, the cache, a replay.
        """
        if not keywords and all(type(argument) is str for argument in arguments):
            known = self.caller.known(arguments)  # the short way: loops ask the same again
            if known is not None:
                return _settled(known)
        names = self.question.template.names
        unknown = [name for name in keywords if name not in names[len(arguments) :]]
        if unknown or len(arguments) + len(keywords) != len(names):
            raise ByssusError(
                f"{self.name} takes {', '.join(names) or 'no arguments'}; got {len(arguments)} by "
                f"position{' and ' + ', '.join(keywords) if keywords else ''}"
            )
        values = (*arguments, *(keywords[name] for name in names[len(arguments) :]))
        if any(map(_is_view, values)):
            if not self.inputs:
                raise ByssusError(
                    f"{self.name} has no domains, so it takes plain values: give inputs={{name: "
                    "domain}"
                )
            return super().__call__(*values)
        (outcome,) = self.caller.evaluate([tuple(map(_hashable, values))])
        return _settled(outcome)

    def plan(self) -> Plan:
        """What calling this on tensors will do; each vote is a call."""
        budget = self.question.budget.get("calls")
        if not self.inputs:
            most = None if self.question.template.names else self.question.votes
            why = "without domains it is called on plain values"
            return Plan("exact", why, {self.name: _least(most, budget)})
        plan = super().plan()
        times = self.question.votes
        calls = {
            name: _least(None if most is None else most * times, budget)
            for name, most in plan.calls.items()
        }
        return replace(plan, calls=calls)

    def evaluate(self, tuples: Sequence[Arguments]) -> list[Outcome]:
        """The answer to each argument tuple, or a `Failure`; see `BlackBox.evaluate`."""
        return super().evaluate(tuples) if self.inputs else self.caller.evaluate(tuples)


def _least(most: int | None, budget: float | None) -> int | None:
    given = [int(limit) for limit in (most, budget) if limit is not None]
    return min(given, default=None)


def _settled(outcome: Outcome) -> Hashable:
    """One answer: the likeliest."""
    if isinstance(outcome, Failure):
        raise outcome.cause
    return max(outcome, key=outcome.__getitem__) if isinstance(outcome, Chances) else outcome


def _fields(output: Any, choices: Any) -> dict[str, Any]:
    if isinstance(output, Mapping):
        if not output:
            raise DomainError("output={} asks for nothing: name the values of an answer")
        return dict(output)
    if output is None or choices is not None:
        return {"answer": str}
    return {"answer": output}


def _domain(question: Question, fields: Mapping[str, Any]) -> Domain | None:
    """The domain of the answers, where it is known."""
    if question.form.choices:
        given = fields["answer"] if len(fields) == 1 and "answer" in fields else None
        if isinstance(given, Domain):
            return given
        if given in (bool, "bool", "boolean"):
            return Boolean()
        return Discrete(question.form.choices)
    domains = [field for field in fields.values() if isinstance(field, Domain)]
    if question.form.many or len(domains) < len(fields):
        return None
    return domains[0] if len(domains) == 1 else Tuple(*domains)
