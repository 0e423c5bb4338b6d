"""`byssus run file.scl`: run a program and print what it queries."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from byssus import ByssusError

from ._llm import LanguageModel
from ._values import export, show
from .collection import in_order
from .context import ScallopContext

__all__ = ["run"]


def run(options: argparse.Namespace) -> None:
    """Run a `.scl` file as the command line says; see `byssus run --help`."""
    generator = None if options.seed is None else torch.Generator().manual_seed(options.seed)
    context = ScallopContext(
        provenance=options.provenance,
        backend=options.backend,
        samples=options.samples,
        generator=generator,
        arguments=options.arguments,
    )
    context.set_iter_limit(options.limit)
    context.import_file(options.file)
    for relation, facts in _facts(options.facts).items():
        groups, elements = _read(relation, facts)
        context.add_facts(relation, elements, groups)
    if options.plan:
        sys.stdout.write(f"{context.plan()}\n")
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        context.run()
        found = {name: _tuples(context, relation) for name, relation in _asked(context, options)}
    for warning in caught:
        sys.stderr.write(f"byssus: {warning.message}\n")
    for where, count in context.dropped.items():
        sys.stderr.write(f"byssus: dropped {count} tuple{'s' * (count > 1)}: {where}\n")
    for name, mass in context.lost.items():
        sys.stderr.write(f"byssus: {name}: worlds of probability {mass:.6g} lost to failed calls\n")
    for name, box in context.blackboxes.items():
        if isinstance(box, LanguageModel):
            sys.stderr.write(f"byssus: {name}: {box.report()}\n")
    for name, rows in found.items():
        sys.stdout.write(f"{name}: {{{', '.join(_shown(*row) for row in rows)}}}\n")
    if options.json:
        objects = {
            name: [
                {"tuple": [*map(export, row, types)], "probability": p} for p, row, types in rows
            ]
            for name, rows in found.items()
        }
        sys.stdout.write(json.dumps(objects, default=str) + "\n")


def _asked(context: ScallopContext, options: argparse.Namespace) -> list[tuple[str, str]]:
    """What to print, as (name, relation): queries, else all relations."""
    if options.query:
        for name in options.query:
            context.relation(name)  # refuses what there is not
        return [(name, name) for name in options.query]
    return context.query_relations() or [(name, name) for name in context.relations()]


def _tuples(
    context: ScallopContext, relation: str
) -> list[tuple[float, tuple[Any, ...], tuple[str, ...]]]:
    types = context.relation_types(relation)
    rows = in_order(context._rows(relation), types)
    return [(float(p) if context.requires_tag() else 1.0, row, types) for p, row in rows]


def _shown(probability: float, row: tuple[Any, ...], types: tuple[str, ...]) -> str:
    values = ", ".join(show(value, type_) for value, type_ in zip(row, types, strict=True))
    tuple_ = f"({values})"
    tag = f"{probability:.6g}"
    return tuple_ if tag == "1" else f"{tag}::{tuple_}"


def _facts(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ByssusError(f"--facts {path}: {error.strerror}") from error
    except ValueError as error:
        raise ByssusError(f"--facts {path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ByssusError(
            f'--facts {path}: give an object, {{"relation": [[1, 2], '
            '{"tuple": [2, 3], "probability": 0.5}]}'
        )
    return found


def _read(relation: str, facts: Any) -> tuple[list[list[int]] | None, list[Any]]:
    """The facts of a relation, and which of them are alternatives of one another."""
    if not isinstance(facts, list):
        raise ByssusError(f"--facts: {relation} is to be a list of facts, not {facts!r}")
    elements: list[Any] = []
    groups: dict[Any, list[int]] = {}
    for position, fact in enumerate(facts):
        if isinstance(fact, dict):
            unknown = set(fact) - {"tuple", "probability", "group"}
            if unknown or "tuple" not in fact:
                raise ByssusError(
                    f"--facts: a fact of {relation} is {fact!r}: it has a 'tuple', and may have a "
                    "'probability' and a 'group' of alternatives"
                )
            if "group" in fact:
                groups.setdefault(json.dumps(fact["group"]), []).append(position)
            row, tag = fact["tuple"], fact.get("probability")
        else:
            row, tag = fact, None
        elements.append((tag, tuple(row) if isinstance(row, list) else (row,)))
    return list(groups.values()) or None, elements
