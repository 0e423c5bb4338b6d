"""The command `byssus`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
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
    doctor = commands.add_parser(
        "doctor", help="say which engines byssus sees, and what to do about a missing one"
    )
    doctor.add_argument("--json", action="store_true", help="end with the result as a JSON object")
    options = parser.parse_args(arguments)
    try:
        if options.command == "doctor":
            _doctor.run(as_json=options.json)
        else:
            (_demo if options.command == "demo" else _run)(options)
    except ByssusError as error:
        sys.stderr.write(f"byssus: {error}\n")
        return 1
    return 0


def _add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="run a .scl program and print what it queries")
    run.add_argument("file", help="the program")
    run.add_argument(
        "--provenance",
        default="auto",
        help="auto (the default), exact, sampled, mixed; or one of Scallop's: unit, proofs, "
        "minmaxprob, addmultprob, topkproofs, ...",
    )
    run.add_argument(
        "--backend",
        choices=("auto", "embedded", "scallopy"),
        default="auto",
        help="whose engine: byssus's own or Scallop's",
    )
    run.add_argument(
        "--facts",
        metavar="FILE",
        help='more facts, as JSON: {"edge": [[0, 1], {"tuple": [1, 2], "probability": 0.5}]}',
    )
    run.add_argument(
        "--query", action="append", metavar="RELATION", help="print this, not what is queried"
    )
    run.add_argument("--limit", type=_count, metavar="N", help="end recursions after N rounds")
    run.add_argument("--samples", type=_count, default=100, help="worlds, where they are sampled")
    run.add_argument("--seed", type=_count, help="makes sampling reproducible")
    run.add_argument("--json", action="store_true", help="end with the result as a JSON object")
    run.add_argument("arguments", nargs="*", help="what @cmd_arg reads; after --")


def _run(options: argparse.Namespace) -> None:
    if not options.file.endswith(".scl"):
        raise ByssusError(f"{options.file}: byssus runs programs of Scallop's language, *.scl")
    # By name: the core knows no engine.
    importlib.import_module("byssus_scallop._cli").run(options)


def _demo(options: argparse.Namespace) -> None:
    try:
        # By name: the core knows no engine, and this one may not be installed.
        demo = importlib.import_module("byssus_problog.demo")
    except ImportError as error:
        raise ByssusError(f"the demo needs {error.name}: pip install 'byssus[demo]'") from error
    demo.run(
        provenance=options.provenance,
        epochs=options.epochs,
        seed=options.seed,
        as_json=options.json,
    )


def _count(text: str) -> int:
    count = int(text)
    if not 0 <= count < 2**63:
        raise argparse.ArgumentTypeError("a whole number from 0 on, of at most 63 bits")
    return count


if __name__ == "__main__":
    sys.exit(main())
