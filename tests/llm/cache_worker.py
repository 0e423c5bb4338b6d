"""One of the processes that share a cache: `python cache_worker.py TASK PATH [ARGUMENT...]`."""

from __future__ import annotations

import json
import random
import resource
import sys
import types
from pathlib import Path


def without_torch() -> None:
    """Make `byssus.llm.cache` importable without the rest of byssus, which takes seconds."""
    package = Path(__file__).parents[2] / "plugin" / "byssus"
    for name, folder in {"byssus": package, "byssus.llm": package / "llm"}.items():
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module


if __name__ == "__main__":
    without_torch()

from byssus.errors import BudgetExceeded, CacheError  # noqa: E402
from byssus.llm.cache import Cache, Cost, key_of  # noqa: E402


def request(i: int) -> dict:
    return {"model": "m", "messages": [{"role": "user", "content": f"prompt {i}"}]}


def contend(cache: Cache, who: str, keys: str, limit: str) -> dict:
    """Ask for the same keys as everybody, in another order, until the budget is spent."""
    order = list(range(int(keys)))
    random.Random(who).shuffle(order)
    seen, made = {}, 0
    for i in order:
        key = key_of(request(i))
        if cache.get(key) is None:
            try:
                reservation = cache.reserve("shared", Cost(1, 10, 10, 0.1), {"calls": int(limit)})
            except BudgetExceeded:
                break
            made += 1
            reply = {"content": f"{who} says {i}"}
            cost = Cost(1, 7, 2, 0.1)
            cache.store(key, request=request(i), reply=reply, cost=cost, reservation=reservation)
        seen[i] = cache.get(key)["content"]
    return {"made": made, "seen": seen}


def forever(cache: Cache, who: str) -> None:
    """Store, and say what was stored, until killed."""
    i = 0
    while True:
        reservation = cache.reserve(who, Cost(1, 10, 10), {})
        made = request(f"{who} {i}")
        reply = {"content": f"{i} " * 300}
        cache.store(
            key_of(made), request=made, reply=reply, cost=Cost(1, 7, 2), reservation=reservation
        )
        sys.stdout.write(f"{key_of(made)}\n")
        sys.stdout.flush()
        i += 1


def full(cache: Cache, limit: str) -> dict:
    """Store until no file can grow, then lift the limit and store again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    cache.release(cache.reserve("full", Cost(1), {}))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
    stored, error = 0, ""
    while not error:
        made = request(stored)
        try:
            reservation = cache.reserve("full", Cost(1), {})
            cache.store(
                key_of(made),
                request=made,
                reply={"content": "x" * 20_000},
                cost=Cost(1),
                reservation=reservation,
            )
            stored += 1
        except CacheError as raised:
            error = str(raised)
    waiting = cache.get(key_of(made)) is not None
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    cache.release(cache.reserve("full", Cost(1), {}))
    return {"stored": stored, "error": error, "waiting": waiting}


if __name__ == "__main__":
    _, task, path, *arguments = sys.argv
    cache = Cache(path)
    result = {"contend": contend, "forever": forever, "full": full}[task](cache, *arguments)
    sys.stdout.write(json.dumps(result) + "\n")
