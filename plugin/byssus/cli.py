"""The command `byssus`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import byssus
from byssus import _doctor
from byssus.errors import ByssusError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 1 after a `ByssusError`, which goes to stderr."""
    parser = argparse.ArgumentParser(prog="byssus", description=byssus.__doc__)
    parser.add_argument("--version", action="version", version=f"byssus {byssus.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo", help="a network learns to read digits from their sums, through a black box"
    )
    demo.add_argument(
        "--provenance", choices=("exact", "sampled", "mixed", "auto"), default="exact"
    )
    demo.add_argument("--epochs", type=_count, default=5)
    demo.add_argument("--seed", type=_count, default=0)
    demo.add_argument("--json", action="store_true", help="end with the result as a JSON object")
    _add_run(commands)
    _add_cache(commands)
    doctor = commands.add_parser(
        "doctor", help="say which engines byssus sees, and what to do about a missing one"
    )
    doctor.add_argument("--json", action="store_true", help="end with the result as a JSON object")
    options = parser.parse_args(arguments)
    try:
        if options.command == "doctor":
            _doctor.run(as_json=options.json)
        else:
            {"demo": _demo, "run": _run, "cache": _cache}[options.command](options)
    except ByssusError as error:
        sys.stderr.write(f"byssus: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("byssus: interrupted\n")
        return 130
    return 0


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run", help="run a program, .scl or .pl, and print what it queries, with probabilities"
    )
    run.add_argument("file", help="the program: Scallop's, *.scl, or ProbLog's, *.pl")
    run.add_argument(
        "--provenance",
        default="auto",
        help="auto (the default), exact, sampled, mixed; or, of a .scl program, one of Scallop's: "
        "unit, proofs, minmaxprob, addmultprob, topkproofs, ...",
    )
    run.add_argument("--samples", type=_count, default=100, help="worlds, where they are sampled")
    run.add_argument("--seed", type=_count, help="makes sampling reproducible")
    run.add_argument("--json", action="store_true", help="end with the result as a JSON object")
    run.add_argument(
        "--plan",
        action="store_true",
        help="say what would be done, and with how many calls; make none",
    )
    problog = run.add_argument_group("of .pl programs")
    problog.add_argument(
        "--nodes", type=_count, metavar="N", help="compile within N nodes, 5 million by default"
    )
    problog.add_argument(
        "--seconds", type=float, metavar="S", help="compile within S seconds, 60 by default"
    )
    scallop = run.add_argument_group("of .scl programs")
    scallop.add_argument(
        "--backend",
        choices=("auto", "embedded", "scallopy"),
        help="whose engine: byssus's own or Scallop's",
    )
    scallop.add_argument(
        "--facts",
        metavar="FILE",
        help='more facts, as JSON: {"edge": [[0, 1], {"tuple": [1, 2], "probability": 0.5}]}',
    )
    scallop.add_argument(
        "--query", action="append", metavar="RELATION", help="print this, not what is queried"
    )
    scallop.add_argument("--limit", type=_count, metavar="N", help="end recursions after N rounds")
    scallop.add_argument("arguments", nargs="*", help="what @cmd_arg reads; after --")


def _add_cache(commands: Any) -> None:
    cache = commands.add_parser("cache", help="look at what language models answered; prune it")
    actions = cache.add_subparsers(dest="action", required=True)

    def add(name: str, what: str, json: bool = False) -> argparse.ArgumentParser:
        action: argparse.ArgumentParser = actions.add_parser(name, help=what)
        action.add_argument("--cache", metavar="PATH", help="not that of byssus.toml")
        if json:
            action.add_argument(
                "--json", action="store_true", help="end with the result as a JSON object"
            )
        return action

    add("stats", "how many entries of which models, and who has spent what", json=True)
    entries = add("list", "the newest entries", json=True)
    entries.add_argument("--model", metavar="M", help="those of this model")
    entries.add_argument("--contains", metavar="TEXT", help="those whose messages or answer do")
    entries.add_argument(
        "--limit", type=_count, default=20, metavar="N", help="so many, 20 by default; 0 for all"
    )
    show = add("show", "one entry, with all of its request and reply")
    show.add_argument("key", metavar="KEY", help="the beginning of its key")
    prune = add("prune", "remove entries; says how many, and removes them with --yes")
    which = prune.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--older-than", type=_age, metavar="AGE", help="30d: so many days; or h, m, s"
    )
    which.add_argument("--model", metavar="M", help="those of this model")
    which.add_argument("--contains", metavar="TEXT", help="those whose messages or answer do")
    which.add_argument("--key", help="the one whose key begins so")
    which.add_argument("--all", action="store_true", help="all of them")
    prune.add_argument("--yes", action="store_true", help="do it")
    export = add("export", "write all entries as JSON lines")
    export.add_argument("file", metavar="FILE", help="where to; - for standard output")
    imports = add("import", "add entries from JSON lines; none that is there is overwritten")
    imports.add_argument("file", metavar="FILE", help="where from; - for standard input")
    spent = add("spent", "who has spent what", json=True)
    spent.add_argument("--reset", metavar="NAME", help="forget what this one has spent")


_OPTIONS = {
    ".scl": ("backend", "facts", "query", "limit", "arguments"),
    ".pl": ("nodes", "seconds"),
}
"""Those that only programs of one language have."""


def _run(options: argparse.Namespace) -> None:
    language = Path(options.file).suffix
    if language not in _OPTIONS:
        raise ByssusError(
            f"{options.file}: byssus runs programs of Scallop's language, *.scl, and of ProbLog's, "
            "*.pl"
        )
    for other, names in _OPTIONS.items():
        for name in names if other != language else ():
            if getattr(options, name) not in (None, []):
                raise ByssusError(f"--{name} is for {other} programs, and this is {options.file}")
    # By name: the core knows no engine.
    if language == ".scl":
        options.backend = options.backend or "auto"
        importlib.import_module("byssus_scallop._cli").run(options)
        return
    options.nodes = 5_000_000 if options.nodes is None else options.nodes
    options.seconds = 60.0 if options.seconds is None else options.seconds
    try:
        module = importlib.import_module("byssus_problog._cli")
    except ImportError as error:
        raise ByssusError(
            f"a ProbLog program needs {_package(error)}: pip install 'byssus[problog]'"
        ) from error
    module.run(options)


def _cache(options: argparse.Namespace) -> None:
    try:
        module = importlib.import_module("byssus.llm._cli")
    except ImportError as error:
        raise ByssusError(
            f"a cache of answers needs {_package(error)}: pip install 'byssus[llm]'"
        ) from error
    module.run(options)


def _demo(options: argparse.Namespace) -> None:
    try:
        # By name: the core knows no engine, and this one may not be installed.
        demo = importlib.import_module("byssus_problog.demo")
    except ImportError as error:
        missing = _package(error)
        raise ByssusError(f"the demo needs {missing}: pip install 'byssus[demo]'") from error
    demo.run(
        provenance=options.provenance,
        epochs=options.epochs,
        seed=options.seed,
        as_json=options.json,
    )


def _package(error: ImportError) -> str:
    return str(error.name).partition(".")[0]


def _count(text: str) -> int:
    count = int(text)
    if not 0 <= count < 2**63:
        raise argparse.ArgumentTypeError("a whole number from 0 on, of at most 63 bits")
    return count


def _age(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
    if text[-1:] not in units:
        raise argparse.ArgumentTypeError("a number and a unit: 90s, 30m, 12h, 30d")
    return _count(text[:-1]) * units[text[-1]]


if __name__ == "__main__":
    sys.exit(main())
