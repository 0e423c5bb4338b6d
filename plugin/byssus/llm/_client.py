"""One request to a server with OpenAI's protocol, through OpenAI's client."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from byssus.errors import LLMError, SettingsError

from ._settings import Model

__all__ = ["NotServedError", "Reply", "send"]


class NotServedError(LLMError):
    """A request that the server did not work on: it costs nothing."""


@dataclass(frozen=True)
class Reply:
    """What a server answered.

    Attributes:
        stored: what the cache keeps: the content, why it ended, and log-probabilities.
        usage: input and output tokens, or None where the server does not say.
    """

    stored: dict[str, Any]
    usage: tuple[int, int] | None


async def send(
    model: Model, request: Mapping[str, Any], *, timeout: float | None, retries: int
) -> Reply:
    """Send a request, again after rate limits and server errors as the client does.

    Args:
        model: where to.
        request: of chat completions.
        timeout: seconds an attempt.
        retries: attempts after the first.

    Raises:
        SettingsError: the client is not installed, or the server refuses the key.
        NotServedError: the server cannot be reached, or answers with an error, after all attempts.
        LLMError: there is no reply in time, or what comes is none.
    """
    client = await _client(model)
    import aiohttp
    import openai

    body = {**request, "stream": False}
    body |= body.pop("extra", {})
    where = f"the server at {model.where}"
    # A prompt goes to the server that was named, and to no other.
    options: Any = {"timeout": timeout, "max_retries": retries, "follow_redirects": False}
    try:
        # Not chat.completions.create: to make objects of a reply takes as long as all the rest.
        reply = await client.post("/chat/completions", body=body, cast_to=object, options=options)
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise SettingsError(
            f"{where} refuses the key: {_said(error, model)}; set BYSSUS_LLM_KEY, or key_env= in "
            f"{model.name}'s section of byssus.toml"
        ) from None
    except openai.NotFoundError as error:
        raise NotServedError(
            f"{where} does not know {model.name!r}: {_said(error, model)}; name a model that it "
            "serves, and see whether its base URL is right"
        ) from None
    except openai.APIStatusError as error:
        raise NotServedError(
            f"{where} answers {error.status_code}: {_said(error, model)}"
        ) from None
    except openai.APIConnectionError as error:
        raise _unanswered(error, model, timeout, retries) from None
    except aiohttp.ClientError as error:  # what the client does not know as an error of its own
        said = getattr(error, "message", "") or type(error).__name__  # its repr has the headers
        raise LLMError(f"{where} answers what is no HTTP: {model.shown(said)}") from None
    except (ValueError, RecursionError) as error:
        raise LLMError(f"{where} answers what is no JSON: {model.shown(error)}") from None
    try:
        read = _read(reply)
    except (TypeError, KeyError, IndexError, AttributeError):
        shown = model.shown(repr(reply))
        raise LLMError(f"{where} answers {shown}, which is no chat completion") from None
    # Caches are passed on. (A short key is a word that any answer may hold.)
    if model.key and len(model.key) >= _SECRET and model.key in str(read.stored):
        raise LLMError(f"{where} says the key back in its reply, which is not kept")
    return read


_SECRET = 16
"""Characters of a key that no answer holds by chance."""


def _unanswered(error: Exception, model: Model, timeout: float | None, retries: int) -> LLMError:
    """Why there is no answer. The client calls most of it a timeout."""
    import aiohttp

    where = f"the server at {model.where}"
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            return NotServedError(
                f"{where} cannot be reached ({cause}); start it, or set BYSSUS_LLM_BASE_URL or "
                'byssus.toml; mode="replay" needs none'
            )
    for cause in causes:
        if isinstance(cause, aiohttp.ServerTimeoutError | TimeoutError):
            return LLMError(
                f"{where} gave no answer in {timeout} s, in {retries + 1} attempts; raise "
                "timeout=, or see what it does"
            )
    return LLMError(f"{where} broke the connection off ({model.shown(repr(causes[-1]))})")


def _said(error: Any, model: Model) -> str:
    """The server's own words, without what the client adds: the request's headers and key."""
    body = error.body
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("detail") or body
    return model.shown(body) if body else f"no reason ({type(error).__name__})"


def _read(body: Any) -> Reply:
    choice = body["choices"][0]
    message = choice["message"]
    content = message.get("content")
    stored = {
        "content": content,
        "finish": choice.get("finish_reason"),
        "refusal": message.get("refusal"),
        "logprobs": _logprobs(choice.get("logprobs")),
        "served": body.get("model"),
    }
    if content is not None and not isinstance(content, str):
        raise TypeError
    usage = body.get("usage")
    counted = None
    if isinstance(usage, dict):
        read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(read) is type(written) is int and min(read, written) >= 0:
            counted = min(read, _LARGEST), min(written, _LARGEST)
    return Reply(stored, counted)


_LARGEST = 2**53
"""The most tokens that are believed: larger numbers are no floats."""


def _logprobs(found: Any) -> list[Any] | None:
    """`Token`s, of lists as JSON has them; None where a server says something else."""
    try:
        return [
            [_token(t), _logprob(t), [[_token(o), _logprob(o)] for o in top]]
            for t in found["content"]
            for top in [t["top_logprobs"]]
        ] or None
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        return None


def _token(found: Any) -> str:
    text, raw = found["token"], found.get("bytes")
    data = str(text).encode() if raw is None else bytes(list(raw))  # bytes(5) would be five
    return data.decode("utf-8", "surrogateescape")


def _logprob(found: Any) -> float:
    value = float(found["logprob"])
    if not value <= _ROUNDED:
        raise ValueError
    return max(value, _NEVER)


_ROUNDED = 0.01
"""The largest log-probability: some servers round those of near certainty to above 0."""
_NEVER = -9999.0
"""The smallest, as most servers say it: infinity is no JSON."""


_CLIENTS: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[tuple[str, str | None, bool], tuple[Any, AsyncGenerator[Any]]]
] = weakref.WeakKeyDictionary()
"""Those of each event loop: connections belong to one."""


async def _client(model: Model) -> Any:
    clients = _CLIENTS.setdefault(asyncio.get_running_loop(), {})
    key = model.base_url, model.key, model.openai
    if key not in clients:
        opened = _opened(model)
        clients[key] = await anext(opened), opened
    return clients[key][0]


async def _opened(model: Model) -> AsyncGenerator[Any]:
    """A client; a loop closes its generators when it ends, and with them the connections."""
    try:
        import openai

        http_client = openai.DefaultAioHttpClient()  # half the time a call of the other
    except (ImportError, RuntimeError) as error:
        raise SettingsError(
            "language models need OpenAI's client with aiohttp: pip install 'byssus[llm]'"
        ) from error
    client = openai.AsyncOpenAI(
        base_url=model.base_url,
        api_key=model.key or "none",
        http_client=http_client,
    )
    if not model.openai:
        # What the client takes from OPENAI_ORG_ID and the like is not for other servers.
        client.organization = client.project = None
        client._custom_headers = {}
    try:
        yield client
    finally:
        await client.close()
