"""A plan and a graph become numbers: the answer, every belief, the best assignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sumout.execute import sweep
from sumout.execute.assign import Choice, best_assignment
from sumout.factors import FactorGraph
from sumout.plan import EliminationPlan


class Semiring(NamedTuple):
    """The algebra of a query, named by funsor's operations; products are sums of logarithms in both."""

    sum_op: str
    prod_op: str


LOG_SUM_EXP = Semiring("logaddexp", "add")
"""Variables are summed out: evidence and marginals."""

MAX_SUM = Semiring("max", "add")
"""Variables are maxed out: the most probable assignment."""


class Marginal(NamedTuple):
    """Probabilities with one dimension for each of ``plates``, then the variable's states."""

    probs: Tensor
    plates: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Result:
    """What running a plan gave.

    ``value`` is the logarithm of the sum (or the maximum) of the product of all factors, a scalar that is
    differentiable by the factors' tables.
    """

    plan: EliminationPlan
    graph: FactorGraph
    semiring: Semiring
    value: Tensor
    beliefs: tuple[Tensor, ...] = ()
    """For a plan with readouts, the derivative of ``value`` by each factor's log-table, probes included."""
    tape: sweep.Tape | None = None

    def marginal(self, name: str) -> Marginal:
        """The posterior marginal of a variable that the plan was made to read out."""
        index = dict(self.plan.readouts)[name]
        factors = (*self.plan.structure.factors, *self.plan.probes)
        inputs = factors[index].inputs
        plates = tuple(sorted(dict(self.plan.structure.variables)[name]))
        belief = self.beliefs[index]
        others = tuple(i for i, each in enumerate(inputs) if each != name and each not in plates)
        if others:
            belief = belief.sum(others)
        left = [each for i, each in enumerate(inputs) if i not in others]
        belief = belief.permute([left.index(each) for each in (*plates, name)])
        # The belief of a local variable is weighted by the scale of a subsampled plate, so it is normalised.
        return Marginal(belief / belief.sum(-1, keepdim=True), plates)

    @cached_property
    def assignment(self) -> dict[str, Choice]:
        """For ``MAX_SUM``, the best state of every variable, one index for each element of its plates."""
        if self.tape is None:
            raise ValueError("Only a result of execute(plan, graph, MAX_SUM) has a best assignment.")
        return best_assignment(self.plan, self.tape)


class _LogSumProduct(torch.autograd.Function):
    """The answer as one node of the autograd graph; its derivative is the explicit backward sweep."""

    @staticmethod
    def forward(ctx: Any, plan: EliminationPlan, *tables: Tensor) -> Tensor:
        tape = sweep.forward(plan, tables, keep=True)
        ctx.plan, ctx.tape, ctx.factors = plan, tape, len(tables)
        ctx.save_for_backward(*tables)
        return tape.value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tape = ctx.tape
        if torch.is_grad_enabled():
            # create_graph: the sweeps themselves are taped, to be differentiated again.
            tape = sweep.forward(ctx.plan, ctx.saved_tensors, keep=True)
        return (None, *sweep.backward(ctx.plan, tape, grads[0], ctx.factors))


class _Beliefs(torch.autograd.Function):
    """The answer and all beliefs; second derivatives tape the sweeps anew, if ever they are asked for."""

    @staticmethod
    def forward(ctx: Any, plan: EliminationPlan, *tables: Tensor) -> tuple[Tensor, ...]:
        ctx.plan = plan
        ctx.save_for_backward(*tables)
        return _sweep_both_ways(plan, tables)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            tables = (
                ctx.saved_tensors
                if again
                else [table.detach().requires_grad_() for table in ctx.saved_tensors]
            )
            outputs = _sweep_both_ways(ctx.plan, tables)
            used = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if out.requires_grad]
            wanted = [table for table in tables if table.requires_grad]
            found = iter(
                torch.autograd.grad(
                    [out for out, _ in used],
                    wanted,
                    [grad for _, grad in used],
                    create_graph=again,
                    allow_unused=True,
                )
            )
        return (None, *(next(found) if table.requires_grad else None for table in tables))


def _sweep_both_ways(plan: EliminationPlan, tables: Sequence[Tensor]) -> tuple[Tensor, ...]:
    tape = sweep.forward(plan, tables, keep=True)
    return tape.value, *sweep.backward(plan, tape, torch.ones_like(tape.value), len(tables))


def execute(plan: EliminationPlan, graph: FactorGraph, semiring: Semiring = LOG_SUM_EXP) -> Result:
    """Runs a plan on a graph's tables.

    Args:
        plan: from ``make_plan(graph.structure, ...)``; for marginals, made with their names.
        graph: the factors; all of one dtype and device, on which the work is done.
        semiring: ``LOG_SUM_EXP`` or ``MAX_SUM``.

    Raises:
        ValueError: if the plan was made for another structure.

    >>> import torch
    >>> from sumout.factors import FactorGraph
    >>> from sumout.plan import make_plan
    >>> graph = FactorGraph.from_tables({"coin": (["coin"], torch.tensor([0.25, 0.75]))})
    >>> execute(make_plan(graph.structure, ("coin",)), graph).marginal("coin").probs
    tensor([0.2500, 0.7500])
    """
    if plan.structure != graph.structure:
        raise ValueError(
            "The plan was made for another structure. Make one with make_plan(graph.structure, ...)."
        )
    tables = [factor.data for factor in graph.factors]
    like = tables[0] if tables else torch.zeros(())
    sizes = dict(plan.structure.sizes)
    tables += [like.new_zeros([sizes[each] for each in probe.inputs]) for probe in plan.probes]
    if not tables:
        return Result(plan, graph, semiring, like)
    if semiring == MAX_SUM:
        tape = sweep.forward(plan, tables, maximum=True, keep=True)
        return Result(plan, graph, semiring, tape.value, tape=tape)
    wants_grad = torch.is_grad_enabled() and any(table.requires_grad for table in tables)
    if plan.readouts:
        value, *beliefs = _Beliefs.apply(plan, *tables) if wants_grad else _sweep_both_ways(plan, tables)  # type: ignore[no-untyped-call]
        return Result(plan, graph, semiring, value, tuple(beliefs))
    value = _LogSumProduct.apply(plan, *tables) if wants_grad else sweep.forward(plan, tables).value  # type: ignore[no-untyped-call]
    return Result(plan, graph, semiring, value)
