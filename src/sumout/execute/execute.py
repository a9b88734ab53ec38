"""A plan and a graph become numbers: the answer, every belief, the best assignment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sumout.execute import sweep
from sumout.execute.algebra import Maximum
from sumout.execute.assign import best_assignment
from sumout.execute.log_sweep import log_sum, log_sum_ahead
from sumout.execute.per_plan import PerPlan
from sumout.execute.sample import Samples, draw
from sumout.execute.transforms import derivatives, transformed
from sumout.execute.walk import Choice
from sumout.factors import FactorGraph
from sumout.plan import EliminationPlan
from sumout.plan.memory import KEPT_AT_ONCE
from sumout.plan.structure import Readout


class Semiring(NamedTuple):
    """The algebra of a query, named by funsor's operations; products are sums of logarithms in both."""

    sum_op: str
    prod_op: str


LOG_SUM_EXP = Semiring("logaddexp", "add")
"""Variables are summed out: evidence and marginals."""

MAX_SUM = Semiring("max", "add")
"""Variables are maxed out: the most probable assignment. With a plan that was made to maximise some variables
(``make_plan(..., maximised=...)``), these are, after all others were summed out."""


class Marginal(NamedTuple):
    """Numbers with one dimension for each of ``plates`` (a batch counts as such), then one for each variable's states.

    Probabilities, or with ``MAX_SUM`` the logarithms of what is possible with these states at best.
    """

    probs: Tensor
    plates: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Result:
    """What running a plan gave.

    ``value`` is the logarithm of the sum (or the maximum) of the product of all factors, differentiable by the
    factors' tables: a scalar, or of the shape of the structure's batch.
    """

    plan: EliminationPlan
    graph: FactorGraph
    semiring: Semiring
    value: Tensor
    beliefs: tuple[Tensor, ...] = ()
    """If asked for: for each factor, probes included, the derivative of ``value`` by its log-table; for ``MAX_SUM``,
    the maximum with each of its entries."""
    tape: sweep.Tape | None = None
    shown: Mapping[int, Tensor] = field(default_factory=dict)
    """The beliefs, by the numbers of factors, off which the plan's readouts are read."""

    def marginal(self, wanted: Readout) -> Marginal:
        """The marginal of a variable, or the joint one of several, that the plan was made to read out."""
        index = self._readouts[wanted]
        names = (wanted,) if isinstance(wanted, str) else wanted
        own, structure = len(self.plan.structure.factors), self.plan.structure
        inputs = (structure.factors[index] if index < own else self.plan.probes[index - own]).inputs
        home = frozenset().union(*(self._ordinals[name] for name in names))
        plates = (*structure.batch, *sorted(home))
        belief = self.shown[index]
        others = tuple(i for i, each in enumerate(inputs) if each not in names and each not in plates)
        if others:
            belief = belief.amax(others) if self.semiring == MAX_SUM else belief.sum(others)
        left = [each for i, each in enumerate(inputs) if i not in others]
        belief = belief.permute([left.index(each) for each in (*plates, *names)])
        if self.semiring == MAX_SUM:
            return Marginal(belief, plates)
        # The belief of a local variable is weighted by the scale of a subsampled plate, so it is normalised.
        return Marginal(belief / belief.sum(tuple(range(len(plates), belief.ndim)), keepdim=True), plates)

    @cached_property
    def _readouts(self) -> dict[Readout, int]:
        return dict(self.plan.readouts)

    @cached_property
    def _ordinals(self) -> dict[str, frozenset[str]]:
        return dict(self.plan.structure.variables)

    @cached_property
    def assignment(self) -> dict[str, Choice]:
        """For ``MAX_SUM``, the best state of every variable, one index for each element of its plates.

        A variable that was summed out, not maximised, has state 0.
        """
        if self.semiring != MAX_SUM:
            raise ValueError("Only a result of execute(plan, graph, MAX_SUM) has a best assignment.")
        tape = self.tape
        if tape is None:  # Max-marginals used it up on their way back.
            tape = sweep.forward(self.plan, _tables(self.plan, self.graph), Maximum(), "operands")
        return best_assignment(self.plan, tape)


class _LogSumProduct(torch.autograd.Function):
    """The answer as one node of the autograd graph; its derivative is the explicit backward sweep.

    Each table is given once; ``alike`` tells for each factor which is its.
    """

    @staticmethod
    def forward(ctx: Any, plan: EliminationPlan, alike: Sequence[int], *tables: Tensor) -> Tensor:
        needed = ctx.needs_input_grad[2:]
        wanted = frozenset(number for number, place in enumerate(alike) if needed[place])
        tape, algebra = log_sum(
            plan, [tables[place] for place in alike], "adjoint", wanted, at_once=KEPT_AT_ONCE
        )
        ctx.plan, ctx.alike, ctx.tape, ctx.algebra, ctx.wanted = plan, alike, tape, algebra, wanted
        ctx.save_for_backward(*tables)
        return tape.value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tape, algebra = ctx.tape, ctx.algebra
        if tape is None or torch.is_grad_enabled():
            # create_graph: the sweeps themselves are taped, to be differentiated again. Or this is not the first time.
            tables = ctx.saved_tensors
            tape, algebra = log_sum(
                ctx.plan,
                [tables[place] for place in ctx.alike],
                "adjoint",
                ctx.wanted,
                at_once=KEPT_AT_ONCE,
            )
        else:
            # The sweep back uses it up, so that memory is given back on the way.
            ctx.tape = ctx.algebra = None
        seeds = sweep.seeds(ctx.plan, grads[0])
        found = sweep.backward(ctx.plan, tape, algebra, seeds, ctx.wanted, ctx.alike)
        return (None, None, *[found.get(place) for place in range(len(ctx.saved_tensors))])


def _once(tables: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """The different tables, as the steps of a chain may have one, and which of them each is."""
    places: dict[int, int] = {}
    alike = [places.setdefault(id(table), len(places)) for table in tables]
    return list({id(table): table for table in tables}.values()), alike


class _Beliefs(torch.autograd.Function):
    """The answer and some beliefs; second derivatives tape the sweeps anew, if ever they are asked for."""

    @staticmethod
    def forward(
        ctx: Any, plan: EliminationPlan, wanted: frozenset[int], *tables: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.plan, ctx.wanted = plan, wanted
        ctx.save_for_backward(*tables)
        return _sweep_both_ways(plan, wanted, tables)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            # Views, as one tensor may be the table of several factors: each has its own derivative.
            tables = (
                [table.view_as(table) for table in ctx.saved_tensors]
                if again
                else [table.detach().requires_grad_() for table in ctx.saved_tensors]
            )
            outputs = _sweep_both_ways(ctx.plan, ctx.wanted, tables)
            return None, None, *derivatives(outputs, grads, tables, again)


read_out: PerPlan[frozenset[int]] = PerPlan(lambda plan: frozenset(number for _, number in plan.readouts))
"""The numbers of the factors off whose beliefs a plan's readouts are read."""


def _sweep_both_ways(
    plan: EliminationPlan,
    wanted: frozenset[int],
    tables: Sequence[Tensor],
    ahead: sweep.Ahead | None = None,
) -> tuple[Tensor, ...]:
    """The answer, and the beliefs of some factors, in the order of their numbers."""
    tape, algebra = log_sum(plan, tables, "adjoint", wanted, ahead)
    seeds = sweep.seeds(plan, torch.ones_like(tape.value))
    found = sweep.backward(plan, tape, algebra, seeds, wanted)
    return tape.value, *[found[number] for number in sorted(wanted)]


def execute(
    plan: EliminationPlan,
    graph: FactorGraph,
    semiring: Semiring = LOG_SUM_EXP,
    *,
    beliefs: bool = False,
    ahead: sweep.Ahead | None = None,
) -> Result:
    """Runs a plan on a graph's tables.

    Args:
        plan: from ``make_plan(graph.structure, ...)``; for marginals, made with their names.
        graph: the factors; all of one dtype and device, on which the work is done.
        semiring: ``LOG_SUM_EXP`` or ``MAX_SUM``.
        beliefs: whether those of all factors are wanted, and not only those that the plan's readouts are read off.
        ahead: of a sliced plan, ``execute_ahead``'s result for the same semiring and beliefs, and no derivatives.

    Raises:
        ValueError: if the plan was made for another structure.

    >>> import torch
    >>> from sumout.factors import FactorGraph
    >>> from sumout.plan import make_plan
    >>> graph = FactorGraph.from_tables({"coin": (["coin"], torch.tensor([0.25, 0.75]))})
    >>> execute(make_plan(graph.structure, ("coin",)), graph).marginal("coin").probs
    tensor([0.2500, 0.7500])
    """
    tables = _tables(plan, graph)
    if not tables:
        sizes = dict(plan.structure.sizes)
        return Result(plan, graph, semiring, torch.zeros([sizes[each] for each in plan.structure.batch]))
    wanted = frozenset(range(len(tables))) if beliefs else read_out(plan)
    if semiring == MAX_SUM:
        if plan.maximised:
            return Result(plan, graph, semiring, *_sum_then_maximum(plan, tables, bool(wanted)))
        algebra = Maximum()
        if not wanted:
            tape = sweep.forward(plan, tables, algebra, "operands", None, ahead)
            return Result(plan, graph, semiring, tape.value, (), tape)
        if plan.structure.batch:
            raise ValueError("Max-marginals of a batch are not made: ask for one of its elements at a time.")
        tape = sweep.forward(plan, tables, algebra, "results", wanted, ahead)
        seeds = [tape.value] * len(plan.schedule.weights)
        best = sweep.backward(plan, tape, algebra, seeds, wanted)
        return _with_beliefs(plan, graph, semiring, tape.value, beliefs, best)
    wants_grad = torch.is_grad_enabled() and any(table.requires_grad for table in tables)
    one_node = wants_grad and not transformed(tables)
    if wanted:
        value, *found = (
            _Beliefs.apply(plan, wanted, *tables)  # type: ignore[no-untyped-call]
            if one_node
            else _sweep_both_ways(plan, wanted, tables, ahead)
        )
        return _with_beliefs(
            plan, graph, semiring, value, beliefs, dict(zip(sorted(wanted), found, strict=True))
        )
    if one_node:
        different, alike = _once(tables)
        value = _LogSumProduct.apply(plan, alike, *different)  # type: ignore[no-untyped-call]
        return Result(plan, graph, semiring, value)
    return Result(plan, graph, semiring, log_sum(plan, tables, ahead=ahead)[0].value)


def execute_ahead(
    plan: EliminationPlan, graph: FactorGraph, semiring: Semiring = LOG_SUM_EXP, *, beliefs: bool = False
) -> sweep.Ahead | None:
    """What of a sliced plan is the same in every slice, to be run before them; ``None`` if that is nothing.

    Args:
        plan: a sliced one.
        graph: any of its slices.
        semiring, beliefs: as for ``execute``.
    """
    if not any(group.once for group in plan.schedule.groups) or plan.maximised:
        return None
    tables = _tables(plan, graph)
    wanted = frozenset(range(len(tables))) if beliefs else read_out(plan)
    if semiring == MAX_SUM:
        keep: sweep.Keep = "results" if wanted else "operands"
        return sweep.forward_ahead(plan, tables, Maximum(), keep, wanted or None)
    return log_sum_ahead(plan, tables, "adjoint" if wanted else None, wanted or None)


def _with_beliefs(
    plan: EliminationPlan,
    graph: FactorGraph,
    semiring: Semiring,
    value: Tensor,
    beliefs: bool,
    found: Mapping[int, Tensor],
) -> Result:
    of_all = tuple([found[number] for number in range(len(found))]) if beliefs else ()
    return Result(plan, graph, semiring, value, of_all, shown=found)


def _sum_then_maximum(
    plan: EliminationPlan, tables: Sequence[Tensor], beliefs: bool
) -> tuple[Tensor, tuple[Tensor, ...], sweep.Tape]:
    if beliefs:
        raise ValueError("A maximum over sums has no max-marginals: ask for its value and its assignment.")
    tape, _ = log_sum(plan, tables, "operands")
    return tape.value, (), tape


def sample(
    plan: EliminationPlan, graph: FactorGraph, count: int, generator: torch.Generator | None = None
) -> Samples:
    """Draws assignments of all variables in proportion to their products of factors.

    Args:
        plan: from ``make_plan(graph.structure)``.
        graph: the factors.
        count: how many samples.
        generator: where random numbers come from; torch's own if ``None``.

    Raises:
        ValueError: if the plan was made for another structure.
    """
    with torch.no_grad():
        tables = _tables(plan, graph)
        if not tables:
            return Samples(torch.zeros(()), {}, torch.zeros(count))
        return draw(plan, log_sum(plan, tables, "operands")[0], count, generator)


def _tables(plan: EliminationPlan, graph: FactorGraph) -> list[Tensor]:
    """The log-tables of a plan's factors, its probes included."""
    if plan.structure != graph.structure:
        raise ValueError(
            "The plan was made for another structure. Make one with make_plan(graph.structure, ...)."
        )
    tables = [factor.data for factor in graph.factors]
    like = tables[0] if tables else torch.zeros(())
    sizes = dict(plan.structure.sizes)
    return tables + [like.new_zeros([sizes[each] for each in probe.inputs]) for probe in plan.probes]
