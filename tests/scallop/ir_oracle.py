"""Brute force: what a lowered program derives, without tags, indexes, or cleverness."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from byssus_scallop import _ir
from byssus_scallop._lowering import Lowered, lower, strata
from byssus_scallop._operators import Dropped
from byssus_scallop._parser import parse_program
from byssus_scallop._syntax import Source

Row = tuple[Any, ...]
Tables = dict[str, set[Row]]


def lowered(text: str, **options: Any) -> Lowered:
    return lower(parse_program(Source(text)), **options)


def run(text: str, facts: dict[str, Iterable[Row]] | None = None, **options: Any) -> Tables:
    """All tuples of all relations of a program."""
    return evaluate(lowered(text, **options).program, facts or {})


def evaluate(
    program: _ir.Program,
    facts: dict[str, Iterable[Row]],
    steps: Callable[[_ir.Rule], Iterable[tuple[_ir.Step, ...]]] = lambda rule: [rule.steps],
) -> Tables:
    """The least model, stratum by stratum; `steps` gives orders to evaluate each rule in."""
    tables: Tables = {name: set() for name in program.relations}
    for fact in program.facts:
        if fact.tag is not False:
            tables[fact.relation].add(fact.values)
    for name, rows in facts.items():
        tables[name].update(map(tuple, rows))
    aggregates = {a.head: a for a in program.aggregates}
    boxes = {b.name: b for b in program.blackboxes}
    for stratum in strata(program):
        rules = [rule for rule in program.rules if rule.head in stratum]
        for name in stratum:
            if name in aggregates:
                tables[name].update(aggregated(aggregates[name], tables))
        changed = True
        while changed:
            before = sum(len(tables[name]) for name in stratum)
            for rule in rules:
                found = [set(instances(rule, order, tables)) for order in steps(rule)]
                assert all(one == found[0] for one in found), rule
                tables[rule.head].update(found[0])
            for name in stratum:
                if name in boxes:
                    tables[name].update(answers(boxes[name], tables))
            changed = sum(len(tables[name]) for name in stratum) > before
    return tables


def instances(rule: _ir.Rule, steps: tuple[_ir.Step, ...], tables: Tables) -> Iterator[Row]:
    for values in satisfied(list(steps), {}, tables):
        try:
            yield tuple(term(one, values) for one in rule.terms)
            if rule.tag is not None:
                term(rule.tag, values)
        except Dropped:
            continue


def satisfied(steps: list[_ir.Step], values: dict[str, Any], tables: Tables) -> Iterator[Any]:
    frontier = [values]
    for step in steps:
        frontier = [more for one in frontier for more in follow(step, one, tables)]
    return iter(frontier)


def follow(step: _ir.Step, values: dict[str, Any], tables: Tables) -> Iterator[dict[str, Any]]:
    try:
        if isinstance(step, _ir.Scan):
            for row in sorted(tables[step.relation], key=repr):
                yield from columns(step.columns, row, values)
        elif isinstance(step, _ir.Absent):
            if tuple(term(one, values) for one in step.terms) not in tables[step.relation]:
                yield values
        elif isinstance(step, _ir.Filter):
            if term(step.term, values):
                yield values
        elif isinstance(step, _ir.Let):
            assert step.name not in values
            yield {**values, step.name: term(step.term, values)}
        else:
            inputs = [term(one, values) for one in step.inputs]
            for tag, row in step.function(*inputs):
                if tag is not False:
                    yield from columns(step.columns, row, values)
    except Dropped:
        return


def columns(
    shape: tuple[_ir.Column, ...], row: Row, values: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    values = dict(values)
    assert len(shape) == len(row)
    for column, value in zip(shape, row, strict=True):
        if isinstance(column, _ir.Bind):
            assert column.name not in values
            values[column.name] = value
        elif isinstance(column, _ir.Check) and term(column.term, values) != value:
            return
    yield values


def term(one: _ir.Term, values: dict[str, Any]) -> Any:
    if isinstance(one, _ir.Const):
        return one.value
    if isinstance(one, _ir.Var):
        return values[one.name]
    return one.function(*[term(argument, values) for argument in one.arguments])


def answers(box: _ir.BlackBoxRelation, tables: Tables) -> Iterator[Row]:
    if box.asked is None:
        contents = [tuple(sorted(tables[name])) for name in box.over]
        arguments = [tuple(tuple(r[0] if len(r) == 1 else r for r in c) for c in contents)]
    else:
        arguments = list(tables[box.asked])
    for inputs, outcome in zip(arguments, box.box.evaluate(arguments), strict=True):
        for _, outputs in box.convert(outcome):
            yield ((*inputs, *outputs) if box.asked is not None else outputs)


def aggregated(declaration: _ir.Aggregate, tables: Tables) -> Iterator[Row]:
    size = declaration.group
    rows: dict[Row, set[Row]] = defaultdict(set)
    for row in tables[declaration.body]:
        rows[row[:size]].add(row[size:])
    if declaration.groups is not None:
        groups = [(row, row[:size]) for row in tables[declaration.groups]]
    elif size == 0:
        groups = [((), ())]
    else:
        groups = [(key, key) for key in rows]
    for group, key in groups:
        for result in results(declaration, rows.get(key, set())):
            yield (*group, *result)


def results(declaration: _ir.Aggregate, rows: set[Row]) -> Iterable[Row]:
    n = declaration.arguments
    values = [row[n:] for row in sorted(rows)]
    match declaration.operator:
        case "count":
            return [(len({row[n:] for row in rows} if n == 0 else rows),)]
        case "sum":
            return [(sum(v[0] for v in values),)]
        case "exists":
            return [(bool(rows),)]
        case "forall":
            return [(not rows,)]
        case "min" | "max" | "argmin" | "argmax":
            if not rows:
                return []
            pick = min if declaration.operator.endswith("min") else max
            best = pick(values)
            chosen = {row for row in rows if row[n:] == best}
            return {row[:n] for row in chosen} if "arg" in declaration.operator else chosen
    raise NotImplementedError(declaration.operator)
