"""Where language models are, and how they are asked: the environment and byssus.toml."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from byssus.errors import SettingsError

__all__ = ["Model", "Settings", "cache_path", "check_budget", "check_settings", "settings"]

_FILE = "byssus.toml"
_OPENAI = "https://api.openai.com/v1"

_ASKED: dict[str, type | tuple[type, ...]] = {
    "temperature": (int, float),
    "top_p": (int, float),
    "max_tokens": int,
    "seed": int,
    "frequency_penalty": (int, float),
    "presence_penalty": (int, float),
}
"""What is sent to the server as it is."""

_HANDLED: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "logprobs": bool,
    "top_logprobs": int,
    "omit": list,
    "extra": dict,
    "retries": int,
}
_SERVER: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "base_url": str,
    "key": str,
    "key_env": str,
    "prices": dict,
}
_LLM: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "cache": str,
    "mode": str,
    "concurrency": int,
    "budget": dict,
    "models": dict,
}
_FORMATS = ("json_schema", "json_object", "text")
MODES = ("auto", "replay")


@dataclass(frozen=True)
class Model:
    """A model, where it is served, and how it is asked.

    Attributes:
        name: what the server calls it.
        base_url: of the server.
        key: for the server; never shown.
        settings: of its section: those of requests, and how they are made.
        prices: US dollars a million tokens, of "input" and "output".
        openai: whether the server is one that OpenAI's own variables are for.
    """

    name: str
    base_url: str
    key: str | None = field(repr=False)
    settings: dict[str, Any]
    prices: dict[str, float]
    openai: bool

    @property
    def where(self) -> str:
        """The base URL without what may be secret in it."""
        return _public(self.base_url)

    def shown(self, text: object) -> str:
        """The beginning of a text of the server's, which may say the key back."""
        words = str(text)
        words = words.replace(self.key, "***") if self.key else words
        return words if len(words) <= _SHOWN else words[:_SHOWN] + "..."


_SHOWN = 300


def _is_base_url(url: str) -> bool:
    """Whether requests can go there. OpenAI's client has no use for users and queries."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is none
    except ValueError:
        return False
    good = parts.scheme in ("http", "https") and parts.hostname and url.isprintable()
    return bool(good) and not (" " in url or "@" in parts.netloc or parts.query or parts.fragment)


def _sendable(key: str, where: str) -> str:
    """A key as a header can hold it, without the end of line that a file has."""
    key = key.strip()
    if not (key.isascii() and key.isprintable() and key):
        raise SettingsError(f"the key in {where} is none: it is empty, or no printable ASCII")
    return key


def _public(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # nothing tells its parts apart
        return "..."
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


@dataclass(frozen=True)
class Settings:
    """What byssus.toml and the environment say.

    Attributes:
        file: byssus.toml, or None where there is none.
        sections: the models of byssus.toml.
        default: the name of the model where none is given.
        cache: the file of the cache.
        mode: "auto" or "replay".
        concurrency: how many calls go out at once.
        budget: of everything in the cache.
    """

    file: Path | None
    sections: Mapping[str, Mapping[str, Any]] = field(repr=False)  # they may hold keys
    default: str | None
    cache: Path
    mode: str
    concurrency: int
    budget: Mapping[str, float]

    def section(self, name: str | None) -> tuple[str, dict[str, Any]]:
        """What the server calls a model, and its section.

        Args:
            name: of a section of byssus.toml, or the server's; None for the default.

        Raises:
            SettingsError: no model is named anywhere.
        """
        chosen = name or self.default
        if chosen is None:
            raise SettingsError(
                "no model is named: set BYSSUS_LLM_MODEL, or give model= or, in byssus.toml, "
                '[llm] model = "..."'
            )
        section = dict(self.sections.get(chosen, {}))
        return str(section.get("model", chosen)), section

    def model(self, name: str | None) -> Model:
        """A model, with all that it takes to call it.

        Raises:
            SettingsError: no model is named, or its server needs a key and has none.
        """
        called, section = self.section(name)
        own = section.get("base_url")
        for variable in ("BYSSUS_LLM_BASE_URL", "OPENAI_BASE_URL"):
            if own is None and os.environ.get(variable):
                base_url = os.environ[variable]
                where = variable
                break
        else:
            base_url, where = own or _OPENAI, f"{self.file}" if own else "its default"
        if not _is_base_url(base_url):
            raise SettingsError(
                f"the base URL {_public(base_url)!r} of {called} ({where}) is none: give one such "
                "as http://127.0.0.1:8080/v1, with no user, password or query in it"
            )
        openai = base_url == _OPENAI or where == "OPENAI_BASE_URL"
        return Model(
            called,
            base_url,
            self._key(called, section, base_url, openai),
            section,
            dict(section.get("prices", {})),
            openai,
        )

    def _key(
        self, called: str, section: Mapping[str, Any], base_url: str, openai: bool
    ) -> str | None:
        if "key" in section:
            return _sendable(str(section["key"]), f"key= of {called} in {self.file}")
        # The key in OPENAI_API_KEY is not for any other server.
        variables = ["BYSSUS_LLM_KEY"]
        if "key_env" in section:
            variables = [str(section["key_env"])]
        elif openai:
            variables.append("OPENAI_API_KEY")
        for variable in variables:
            if os.environ.get(variable):
                return _sendable(os.environ[variable], variable)
        if "key_env" not in section and urlsplit(base_url).hostname in (
            "localhost",
            "127.0.0.1",
            "::1",
        ):
            return None
        raise SettingsError(
            f"there is no key for {called} at {_public(base_url)}: set {' or '.join(variables)} in "
            "the environment, or key_env= in its section of byssus.toml"
        )


def settings() -> Settings:
    """What byssus.toml and the environment say now.

    Raises:
        SettingsError: byssus.toml cannot be read, or says what it cannot.
    """
    file = _find()
    content = {} if file is None else _read(file, file.stat().st_mtime_ns)
    llm = dict(content.get("llm", {}))
    folder = Path.cwd() if file is None else file.parent
    path = os.environ.get("BYSSUS_LLM_CACHE")
    where = Path(path) if path else folder / llm.get("cache", Path(".byssus", "llm.db"))
    mode = os.environ.get("BYSSUS_LLM_MODE") or llm.get("mode", "auto")
    if mode not in MODES:
        raise SettingsError(f"the mode {mode!r} is none: there are {', '.join(MODES)}")
    return Settings(
        file,
        llm.get("models", {}),
        os.environ.get("BYSSUS_LLM_MODEL") or llm.get("model"),
        where.expanduser(),
        mode,
        llm.get("concurrency", 64),
        llm.get("budget", {}),
    )


def cache_path() -> Path:
    """The file of the cache, where none is given."""
    return settings().cache


def described() -> str:
    """Which model is asked where no other is named, and where answers are kept."""
    found = settings()
    kept = f"answers are kept in {found.cache}"
    try:
        model = found.model(None)
    except SettingsError as error:
        return f"{kept}; {error}"
    return f"{model.name} at {model.where}; {kept}"


def check_settings(given: Mapping[str, Any], where: str) -> None:
    """Check the settings of requests.

    Raises:
        SettingsError: one is unknown, or no value for it.
    """
    if not isinstance(given, Mapping):
        raise SettingsError(f"{where} is {given!r}: give settings by name, {{'max_tokens': 50}}")
    _check(given, _ASKED | _HANDLED, where)
    _in_range(given, where)


def check_budget(given: Mapping[str, Any], where: str) -> None:
    """Check a budget.

    Raises:
        SettingsError: it limits something unknown, or by no number.
    """
    known: dict[str, type | tuple[type, ...]] = {
        "calls": int,
        "tokens": int,
        "usd": (int, float),
    }
    if not isinstance(given, Mapping):
        raise SettingsError(f"{where} is {given!r}: give limits by name, {{'calls': 500}}")
    _check(given, known, where)
    for name, limit in given.items():
        if not limit >= 0:
            raise SettingsError(f"{where}: {name} is {limit!r}; give 0 or more")


def requested(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that are sent as they are."""
    return {name: given[name] for name in _ASKED if name in given}


def _find() -> Path | None:
    if given := os.environ.get("BYSSUS_CONFIG"):
        path = Path(given).expanduser()
        if not path.is_file():
            raise SettingsError(f"BYSSUS_CONFIG is {given!r}, which is no file")
        return path.absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / _FILE).is_file():
            return folder / _FILE
    return None


@cache
def _read(file: Path, modified: int) -> dict[str, Any]:
    """The content of byssus.toml; read again where it has changed."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from error
    _check(content, {"llm": dict}, str(file))
    llm = content.get("llm", {})
    _check(llm, _LLM, f"{file}, [llm]")
    if llm.get("concurrency", 1) < 1:
        raise SettingsError(f"{file}, [llm]: concurrency is {llm['concurrency']}; give 1 or more")
    check_budget(llm.get("budget", {}), f"{file}, [llm] budget")
    for name, section in llm.get("models", {}).items():
        where = f"{file}, [llm.models.{name}]"
        if not isinstance(section, dict):
            raise SettingsError(f"{where} is {section!r}, which is no section")
        _check(section, _SERVER | _ASKED | _HANDLED, where)
        _in_range(section, where)
        prices = section.get("prices", {})
        _check(prices, {"input": (int, float), "output": (int, float)}, f"{where} prices")
        if any(not price >= 0 for price in prices.values()) or len(prices) == 1:
            raise SettingsError(f"{where}: prices are {prices}; give input and output, 0 or more")
    return content


def _check(
    given: Mapping[str, Any], known: Mapping[str, type | tuple[type, ...]], where: str
) -> None:
    for name, value in given.items():
        if name not in known:
            raise SettingsError(f"{where}: there is no {name!r}; it knows {', '.join(known)}")
        if not isinstance(value, known[name]) or (
            isinstance(value, bool) and known[name] is not bool
        ):
            # A key that stands in the wrong place is not shown.
            raise SettingsError(f"{where}: {name} cannot be of type {type(value).__name__}")


_OURS = {"model", "messages", "stream", "n"}
"""What of a request is not for settings to say."""


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _in_range(given: Mapping[str, Any], where: str) -> None:
    but = f"but none of {', '.join(sorted(_OURS))}"
    rules: dict[str, tuple[Callable[[Any], bool], str]] = {
        "temperature": (lambda t: 0 <= t < math.inf, "0 or more"),
        "frequency_penalty": (math.isfinite, "a number"),
        "presence_penalty": (math.isfinite, "a number"),
        "top_p": (lambda p: 0 < p <= 1, "above 0, 1 at most"),
        "max_tokens": (lambda n: n >= 1, "1 or more"),
        "top_logprobs": (lambda n: n >= 1, "1 or more; many servers take 20 at most"),
        "retries": (lambda n: n >= 0, "0 or more"),
        "format": (lambda f: f in _FORMATS, f"one of {', '.join(_FORMATS)}"),
        "omit": (lambda o: all(isinstance(n, str) and n not in _OURS for n in o), f"names, {but}"),
        "extra": (lambda e: _is_json(e) and not _OURS & e.keys(), f"JSON by name, {but}"),
    }
    for name, (holds, rule) in rules.items():
        if name in given and not holds(given[name]):
            raise SettingsError(f"{where}: {name} is {given[name]!r}; give {rule}")
