"""Programs as torch modules: batches of facts in, tensors of probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from byssus import ByssusError, Distribution, EmptyBatchError, Plan, ShapeError
from byssus.diffusion import WorldProgram
from byssus.errors import listed

from ._engine import Row
from ._inputs import merged
from ._solver import Answer, Inputs
from ._worlds import given_worlds, module_program
from .context import ScallopContext
from .input_mapping import InputMapping
from .output_mapping import OutputMapping, output_mapping

__all__ = ["ForwardFunction", "ScallopForwardFunction"]

_Structure = Hashable


class ScallopForwardFunction(nn.Module):
    """A program as a torch module; `Module` for short.

    A drop-in for `scallopy.Module`.

    Args:
        file: the path of a `.scl` file.
        program: the text of a program.
        relations: `(name, types)` of relations to declare.
        rules: rules to add.
        facts: facts to add, by relation.
        provenance: see `ScallopContext`.
        non_probabilistic: relations whose facts are given without probabilities.
        input_mappings: for each relation what the positions of its tensor mean.
        output_relation: what is asked for; `output_mapping`: the tuples to report on.
        output_mappings: the same for several relations.
        retain_topk: for each relation how many facts are kept, the most probable ones.
        iter_limit: the most rounds of a recursion.
        options: the others of `ScallopContext` and of `forward_function`.

    Example:
        >>> sum_2 = Module(
        ...     program='''
        ...         type digit_1(a: i32), digit_2(b: i32)
        ...         rel sum_2(a + b) = digit_1(a) and digit_2(b)
        ...     ''',
        ...     provenance="exact",
        ...     input_mappings={"digit_1": range(10), "digit_2": range(10)},
        ...     output_mappings={"sum_2": range(19)},
        ... )
        >>> p = torch.full((16, 10), 0.1)
        >>> sum_2(digit_1=p, digit_2=p).shape
        torch.Size([16, 19])
    """

    def __init__(
        self,
        file: str | None = None,
        program: str | None = None,
        relations: Sequence[tuple[str, Any]] | None = None,
        rules: Sequence[str] | None = None,
        facts: Mapping[str, Sequence[Any]] | None = None,
        provenance: str = "difftopkproofs",
        custom_provenance: Any = None,
        non_probabilistic: Sequence[str] | str | None = None,
        input_mappings: Mapping[str, Any] | None = None,
        output_relation: str | None = None,
        output_mapping: Any = None,
        output_mappings: Mapping[str, Any] | None = None,
        k: int = 3,
        train_k: int | None = None,
        test_k: int | None = None,
        wmc_with_disjunctions: bool | None = None,
        early_discard: bool | None = None,
        iter_limit: int | None = None,
        retain_topk: Mapping[str, int] | None = None,
        jit: bool = False,
        jit_name: str = "",
        jit_recompile: bool = False,
        dispatch: str = "parallel",
        sparse_jacobian: bool = False,
        monitors: Sequence[str] = (),
        *,
        distribution: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.ctx = ScallopContext(
            provenance,
            custom_provenance,
            k,
            bool(wmc_with_disjunctions),
            train_k,
            test_k,
            monitors=monitors,
            **options,
        )
        for what, given in {
            "facts": facts,
            "input_mappings": input_mappings,
            "retain_topk": retain_topk,
        }.items():
            if not isinstance(given, Mapping | None):
                raise ByssusError(f"{what}={given!r}: give a dictionary by relation")
        if file is not None:
            self.ctx.import_file(file)
        if program is not None:
            self.ctx.add_program(program)
        for name, types in relations or ():
            self.ctx.add_relation(name, types)
        for rule in rules or ():
            self.ctx.add_rule(rule)
        if non_probabilistic is not None:
            self.ctx.set_non_probabilistic(non_probabilistic)
        for name, mapping in (input_mappings or {}).items():
            self.ctx.set_input_mapping(name, mapping)
        for name, amount in (retain_topk or {}).items():
            self.ctx.set_sample_topk_facts(name, amount)
        for name, elements in (facts or {}).items():
            self.ctx.add_facts(name, elements)
        self.ctx.set_iter_limit(iter_limit)
        if early_discard is not None:
            self.ctx.set_early_discard(early_discard)
        options = {"distribution": distribution}
        if not isinstance(self.ctx, ScallopContext):  # one of Scallop's own
            options = {"jit": jit, "recompile": jit_recompile, "sparse_jacobian": sparse_jacobian}
        self.forward_fn = self.ctx.forward_function(
            output_relation,
            output_mapping,
            output_mappings,
            dispatch=dispatch,
            jit_name=jit_name,
            **options,
        )

    def forward(self, *arguments: Any, **inputs: Any) -> Any:
        """Run the program on a batch; see `ForwardFunction.forward`."""
        return self.forward_fn(*arguments, **inputs)

    def plan(self) -> Plan:
        """What a batch takes; see `ForwardFunction.plan`."""
        return self._byssus("has no plan").plan()

    def world_program(self, *, exclusive: Mapping[str, bool] | None = None) -> WorldProgram:
        """The program as a function from worlds; see `ForwardFunction.world_program`."""
        function = self._byssus("runs on no worlds")
        return function.world_program(exclusive=exclusive)

    def _byssus(self, what: str) -> ForwardFunction:
        if not isinstance(self.forward_fn, ForwardFunction):
            raise ByssusError(
                f"a module of Scallop's own {what}: take one of byssus's provenances, "
                "such as provenance='nesydm'"
            )
        return self.forward_fn


class ForwardFunction(nn.Module):
    """A context's program over batches; made by `ScallopContext.forward_function`.

    Attributes:
        ctx: the context.
        outputs: the relations that are asked for.
        output_mappings: for each, which tuples are reported on; None for those that are found.
    """

    def __init__(
        self,
        ctx: ScallopContext,
        output: str | None = None,
        mapping: Any = None,
        output_mappings: Mapping[str, Any] | None = None,
        dispatch: str = "parallel",
        distribution: bool = False,
    ) -> None:
        super().__init__()
        if dispatch not in ("single", "serial", "parallel"):
            raise ByssusError(
                f"dispatch={dispatch!r}: there are 'single', 'serial' and 'parallel'; here they "
                "do the same"
            )
        self.ctx = ctx
        self.distribution = distribution
        self.register_buffer("_probe", torch.empty(0), persistent=False)
        if not isinstance(output_mappings, Mapping | None):
            raise ByssusError(
                f"output_mappings={output_mappings!r}: give {{relation: tuples}}, or "
                "`output_relation` and `output_mapping` for one relation"
            )
        asked = {output: mapping} if output else dict(output_mappings or {})
        self.output_mappings = {name: self._mapping(name, m) for name, m in asked.items()}
        self.outputs = list(asked)

    def forward(
        self,
        disjunctions: Mapping[str, Sequence[Any]] | None = None,
        output_relations: Any = None,
        output_mappings: Any = None,
        **inputs: Any,
    ) -> Any:
        """Run the program on a batch.

        Args:
            disjunctions: for each relation and each example, lists of positions of facts that
                are alternatives of one another.
            output_relations: what is asked for, if not as constructed: a name for all examples, or
                for each example a name or a list of names.
            output_mappings: the tuples to report on, if not as constructed.
            inputs: for each relation a tensor `(batch, *mapping.shape)` of probabilities, or for
                each example such a tensor or a list of facts `(probability, tuple)`. Under
                "nesydm" also worlds, as `MaskedDiffusion.named` gives them: integers
                `(batch, worlds)`, or `(batch, worlds, columns)` for a relation of several
                concepts, the positions of their values; for a fact of its own 0 or 1.

        Returns:
            `(batch, outputs)`; for a mapping that is a single tuple `(batch,)`; with no mapping
            `(tuples, (batch, tuples))`. A dictionary of these for several relations. They are
            probabilities under "exact" and Scallop's provenances, the estimator's scores under
            "sampled" and "mixed"; under "nesydm" frequencies, over the worlds that are given, or
            over worlds drawn from probabilities, with a gradient. With `distribution=True`,
            `byssus.Distribution` instead.

        Raises:
            ShapeError, ProbabilityError: a tensor that does not fit.
            ByssusError: an unknown relation, facts that do not fit, a call that failed.
        """
        batch = _batch_size(inputs)
        mappings = self._asked(output_relations, output_mappings, batch)
        ctx = self.ctx
        ctx._require_defined([*inputs, *(entry.relation for entry in ctx._facts)])
        disjunctions = _disjunctions(disjunctions, inputs, batch)
        if ctx.provenance == "nesydm":
            _check_worlds(inputs)
        if ctx._custom is not None:
            return self._custom(mappings, disjunctions, inputs, batch)
        dense: list[Inputs] = []
        sparse: list[list[Inputs]] = [[] for _ in range(batch)]
        for name, given in inputs.items():
            ctx._require(name)
            if isinstance(given, Tensor) or _alike(given):
                tensor = given if isinstance(given, Tensor) else torch.stack(list(given))
                part = self._dense(name, tensor)
                if isinstance(part, Inputs):
                    dense.append(part)
                else:
                    for example, one in enumerate(part):
                        sparse[example].append(one)
                continue
            groups = disjunctions.get(name)
            for example, facts in enumerate(given):
                if isinstance(facts, Tensor):
                    part = self._dense(name, facts[None])
                    sparse[example].append(part if isinstance(part, Inputs) else part[0])
                else:
                    own = None if groups is None else groups[example]
                    sparse[example].append(ctx._facts_of(name, facts, own))
        kind = _kind(inputs)
        own = ctx._given()
        own = replace(own, own=len(own.blocks))
        per_example = isinstance(output_relations, list)
        groups_: dict[_Structure, list[int]] = {}
        examples = [merged(parts, 1) if parts else Inputs() for parts in sparse]
        if per_example or any(sparse):
            for example, one in enumerate(examples):
                names = tuple(mappings[example]) if per_example else ()
                groups_.setdefault((one.certain, one.blocks, names), []).append(example)
        else:
            groups_[()] = list(range(batch))
        results: list[tuple[list[int], dict[str, Answer]]] = []
        for indices in groups_.values():
            asked = mappings[indices[0]] if per_example else mappings
            everything = len(indices) == batch
            parts = dense if everything else [_rows(part, indices) for part in dense]
            some = [examples[i] for i in indices]
            stacked = Inputs(
                some[0].certain,
                some[0].blocks,
                tuple(torch.cat(ws) for ws in zip(*[one.weights for one in some], strict=True)),
            )
            # Given ones first: they say what kind of tensor the result is.
            together = merged([*parts, stacked, own], len(indices)).to(kind)
            outputs = {name: None if m is None else m.tuples for name, m in asked.items()}
            results.append((indices, ctx._answers(together, outputs, self.training)))
        found = {
            name: self._combined(name, mapping, results, batch, kind)
            for name, mapping in _all_mappings(mappings)
        }
        return next(iter(found.values())) if len(found) == 1 else found

    def plan(self) -> Plan:
        """What a batch takes; nothing is called for that.

        How many calls it makes at most is known for black boxes whose arguments are not answers,
        where the facts are those of the program and of relations with an input mapping, with
        probabilities that sum to one as a softmax makes them; for others it is their budget, or
        None. After a batch also what was chosen for that and why, and the size of its circuit.

        Raises:
            ByssusError: under Scallop's own provenances, which have no plan.
        """
        ctx = self.ctx
        plan = ctx._foreseen(ctx._open())
        last = None if ctx._solver is None else ctx._solver.plan
        return plan if last is None else replace(last, calls=plan.calls)

    def world_program(self, *, exclusive: Mapping[str, bool] | None = None) -> WorldProgram:
        """The program as a function from worlds, such as a diffusion model learns through.

        Its concepts are the relations with an input mapping: one for each row of alternatives, as
        the mapping says; where it does not say, for each row of its last dimension. Facts that
        are no alternatives are Boolean concepts. Other uncertain facts, and rules with tags, are
        the program's own.

        An output relation is one dimension, whose values are the tuples of its output mapping, if
        no world gives two of them; else each tuple is a dimension of its own, False or True. A
        world that gives none of the tuples has no value. The dimensions of several relations come
        one after the other.

        What is later added to the context is not part of it.

        Args:
            exclusive: whether no world gives two tuples of a relation, where it is known. It is
                found out by running some worlds, and proved where the rules compile.

        Raises:
            ByssusError: an output without a mapping, no relation with an input mapping, a rule
                that asks how probable facts are.
            CompilationLimit: under "exact", the rules reach a limit; under others a warning, and
                the program is only run.
        """
        known = {} if exclusive is None else exclusive
        return module_program(self.ctx, self.output_mappings, known)

    def _mapping(self, name: str, mapping: Any) -> OutputMapping | None:
        self.ctx._require(name)
        made = output_mapping(mapping, name)
        if made is None:
            return None
        return OutputMapping(
            tuple(self.ctx._convert(name, row) for row in made.tuples), made.single
        )

    def _asked(self, relations: Any, mappings: Any, batch: int) -> Any:
        """For all examples, or in a list for each: the relations and their output mappings."""
        if relations is None:
            every = [self.outputs or list(mappings if isinstance(mappings, Mapping) else ())]
            if not every[0]:
                raise ByssusError(
                    "nothing is asked for: give the module an `output_relation` or "
                    "`output_mappings={relation: tuples}`"
                )
        elif isinstance(relations, str):
            every = [[relations]]
        elif isinstance(relations, list):
            every = [[one] if isinstance(one, str) else one for one in relations]
            if len(every) != batch:
                raise ByssusError(
                    f"output_relations: {len(every)} for {batch} examples; give a name or a list "
                    "of names an example, or one name for all"
                )
        else:
            every = [[]]
        if not all(isinstance(names, list | tuple) and names for names in every):
            raise ByssusError(
                f"output_relations={relations!r}: give the name of a relation, or for each example "
                "a name or a list of names"
            )
        distinct = dict.fromkeys(name for names in every for name in names)
        given: Mapping[str, Any] = {}
        if isinstance(mappings, Mapping):
            given = mappings
            if unknown := set(given) - set(distinct):
                raise ByssusError(
                    f"output_mappings has {listed(unknown)}: asked for are {listed(distinct)}"
                )
        elif mappings is not None:
            if len(distinct) > 1:
                raise ByssusError(
                    f"output_mappings={mappings!r}: several relations are asked for, so give "
                    f"{{relation: tuples}} for {listed(distinct)}"
                )
            given = dict.fromkeys(distinct, mappings)
        made = {
            name: self.output_mappings[name]
            if name in self.output_mappings and name not in given
            else self._mapping(name, given.get(name))
            for name in distinct
        }
        if isinstance(relations, list):
            return [{name: made[name] for name in names} for names in every]
        return made

    def _custom(
        self,
        mappings: Any,
        disjunctions: Mapping[str, Any],
        inputs: Mapping[str, Any],
        batch: int,
    ) -> Any:
        """The outputs under a provenance of the user's, whose tags may be any objects."""
        ctx = self.ctx
        runs = []
        for example in range(batch):
            facts = ctx._entries()
            for name, given in inputs.items():
                ctx._require(name)
                one = given[example]
                if isinstance(one, Tensor):
                    one = self._mapped(name).process_tensor(one)
                groups = disjunctions.get(name)
                facts += ctx._read_facts(name, one, None if groups is None else groups[example])
            runs.append(ctx._run_custom(facts))
        if isinstance(mappings, list):
            mappings = dict(_all_mappings(mappings))
        found = {}
        for name, mapping in mappings.items():
            tables = [run.tables[name] for _, run in runs]
            rows = sorted({r for table in tables for r in table}) if mapping is None else None
            columns = mapping.tuples if rows is None else rows
            result = ctx._custom.collate(
                [
                    [tags.output(table[row]) if row in table else None for row in columns]
                    for (tags, _), table in zip(runs, tables, strict=True)
                ]
            )
            if rows is not None:
                result = rows, result
            elif mapping.single and isinstance(result, Tensor):
                result = result.reshape(-1)
            found[name] = result
        return next(iter(found.values())) if len(found) == 1 else found

    def _mapped(self, name: str) -> InputMapping:
        """The input mapping of a relation that is given as a tensor."""
        if not self.ctx.has_input_mapping(name):
            raise ByssusError(
                f"{name} is given as a tensor and has no input mapping: say what its positions "
                f"mean, as in input_mappings={{{name!r}: range(10)}}"
            )
        return self.ctx._mappings[name]

    def _dense(self, name: str, tensor: Tensor) -> Inputs | list[Inputs]:
        """The facts of a relation that is given as a tensor; see `dense_inputs`."""
        mapping = self._mapped(name)
        if not tensor.is_floating_point():
            if self.ctx.provenance == "nesydm":
                return given_worlds(name, self.ctx._rows_of(name), mapping, tensor)
            raise ShapeError(
                f"{name}: a tensor of {tensor.dtype} holds no probabilities; give a floating "
                "point one"
            )
        return self.ctx._dense(name, tensor)

    def _combined(
        self,
        name: str,
        mapping: OutputMapping | None,
        results: Sequence[tuple[list[int], dict[str, Answer]]],
        batch: int,
        kind: torch.dtype,
    ) -> Any:
        """One result of those of all structures."""
        some = [(indices, found[name]) for indices, found in results if name in found]
        if mapping is not None:
            rows: tuple[Row, ...] = tuple(mapping.tuples)
        else:
            rows = tuple(dict.fromkeys(row for _, answer in some for row in answer.rows))
            if len(some) > 1:
                rows = tuple(sorted(rows))
        column = {row: i for i, row in enumerate(rows)}

        def spread(pick: Callable[[Distribution], Tensor]) -> Tensor:
            parts = [pick(answer.distribution) for _, answer in some]
            if len(some) == 1 and len(some[0][0]) == batch:
                return parts[0]
            wide = parts[0].new_zeros(batch, len(rows))
            for (indices, answer), part in zip(some, parts, strict=True):
                columns = [column[row] for row in answer.rows]
                at = torch.tensor(indices, device=wide.device)[:, None]
                to = torch.tensor(columns, dtype=torch.int64, device=wide.device)[None]
                wide = wide.index_put((at, to), part)
            return wide

        if self.distribution:
            if len(some) == 1 and len(some[0][0]) == batch:
                return some[0][1].distribution
            if self.ctx.provenance != "exact":
                raise ByssusError(
                    "distribution=True with worlds sampled needs examples with the same facts: "
                    "give them as tensors, or one structure at a time"
                )
            lost = torch.zeros(batch, dtype=some[0][1].distribution.probs.dtype)
            for indices, answer in some:
                lost = lost.index_put((torch.tensor(indices),), answer.distribution.lost)
            values = [row[0] if len(row) == 1 else row for row in rows]
            return Distribution(values, exact=spread(lambda d: d.probs), lost=lost)
        result = spread(lambda d: d.scores).to(kind)
        # Rounding may exceed one, which a cross-entropy refuses; the gradient stays as it is.
        result = result - (result - result.clamp(0, 1)).detach()
        probe = self.get_buffer("_probe")
        if probe.device.type != "cpu":
            result = result.to(probe.device)
        if mapping is None:
            return list(rows), result
        return result[:, 0] if mapping.single else result


def _alike(given: Sequence[Any]) -> bool:
    """Whether examples are tensors that can be stacked."""
    first = given[0]
    return isinstance(first, Tensor) and all(
        isinstance(one, Tensor) and one.shape == first.shape for one in given
    )


def _check_worlds(inputs: Mapping[str, Any]) -> None:
    """Refuse worlds that do not go together."""
    tensors = {
        name: given if isinstance(given, Tensor) else given[0]
        for name, given in inputs.items()
        if isinstance(given, Tensor) or isinstance(given[0], Tensor)
    }
    worlds = [name for name, tensor in tensors.items() if not tensor.is_floating_point()]
    if worlds and len(worlds) < len(tensors):
        raise ShapeError(
            f"worlds of {listed(worlds)}, and probabilities of "
            f"{listed(name for name in tensors if name not in worlds)}: give integers, the "
            "positions of values, for all of them, or floating point numbers for all"
        )
    counts = {}
    for name in worlds:
        given = inputs[name]
        if not isinstance(given, Tensor) and not _alike(given):
            raise ShapeError(
                f"{name}: examples with different numbers of worlds; give one tensor, (batch, "
                "worlds) or (batch, worlds, columns)"
            )
        if shape := tensors[name].shape[isinstance(given, Tensor) :]:  # others are refused later
            counts[name] = shape[0]
    if len(set(counts.values())) > 1:
        raise ShapeError(f"the numbers of worlds differ: {counts}")


def _disjunctions(given: Any, inputs: Mapping[str, Any], batch: int) -> Mapping[str, Any]:
    """Check what is said of alternatives."""
    if not given:
        return {}
    if not isinstance(given, Mapping):
        raise ByssusError(
            f"disjunctions={given!r}: give {{relation: lists of groups of positions}}, with one "
            "list of groups an example"
        )
    for name, groups in given.items():
        if name not in inputs:
            raise ByssusError(
                f"disjunctions of {name}: its facts are not given; given are {listed(inputs)}"
            )
        if isinstance(inputs[name], Tensor):
            raise ByssusError(
                f"disjunctions of {name}: it is given as a tensor; let its input mapping say what "
                "is an alternative of what, by `disjunctive` and `disjunctive_dim`"
            )
        if len(groups) != batch:
            raise ByssusError(
                f"disjunctions of {name}: {len(groups)} for {batch} examples; give one list "
                "of groups an example"
            )
    return given


def _batch_size(inputs: Mapping[str, Any]) -> int:
    if not inputs:
        raise EmptyBatchError("no facts are given: give them by relation, as in module(digit=...)")
    sizes = {}
    for name, given in inputs.items():
        if not isinstance(given, Tensor | list | tuple) or (
            isinstance(given, Tensor) and given.dim() == 0
        ):
            raise ByssusError(
                f"{name}: give a tensor whose first dimension is the batch, or a list with one "
                f"entry an example, not {type(given).__name__}"
            )
        sizes[name] = len(given)
    if len(set(sizes.values())) > 1:
        raise ShapeError(f"the batch sizes differ: {sizes}")
    size = next(iter(sizes.values()))
    if size == 0:
        raise EmptyBatchError(f"a batch of no examples: {listed(inputs)}")
    return size


def _kind(inputs: Mapping[str, Any]) -> torch.dtype:
    """The type of the result: that of the tensors that are given."""
    for given in inputs.values():
        for one in [given] if isinstance(given, Tensor) else given:
            if isinstance(one, Tensor) and one.is_floating_point():
                return one.dtype
    for given in inputs.values():
        for facts in given if isinstance(given, list | tuple) else ():
            for fact in facts:
                tag = fact[0] if isinstance(fact, tuple) and fact else None
                if isinstance(tag, Tensor) and tag.is_floating_point():
                    return tag.dtype
    return torch.get_default_dtype()


def _rows(part: Inputs, indices: Sequence[int]) -> Inputs:
    """Some examples of a batch."""
    at = torch.tensor(indices)
    weights = tuple(w if len(w) == 1 else w[at.to(w.device)] for w in part.weights)
    worlds = None if part.worlds is None else part.worlds[at.to(part.worlds.device)]
    return replace(part, weights=weights, batch=len(indices), worlds=worlds)


def _all_mappings(mappings: Any) -> list[tuple[str, OutputMapping | None]]:
    if isinstance(mappings, list):
        return list({name: mapping for one in mappings for name, mapping in one.items()}.items())
    return list(mappings.items())
