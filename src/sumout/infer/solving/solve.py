"""One graph, one question: plan, check the memory, execute."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sumout.errors import MemoryLimitError
from sumout.execute import LOG_SUM_EXP, MAX_SUM, Result, Samples, Semiring, execute
from sumout.execute import sample as execute_sample
from sumout.factors import FactorGraph
from sumout.factors.unroll import unroll
from sumout.infer.solving.joined import JoinedResult, joined_beliefs, joined_samples
from sumout.infer.solving.rehearsal import announce
from sumout.infer.solving.slices import Slices
from sumout.infer.solving.spread import current_team
from sumout.plan import EliminationPlan, Readout, Unrolled, make_plan
from sumout.settings import settings
from sumout.text import memory


def solve(
    graph: FactorGraph,
    semiring: Semiring = LOG_SUM_EXP,
    marginals: Sequence[Readout] = (),
    *,
    beliefs: bool = False,
    plan: EliminationPlan | None = None,
) -> Result:
    """Eliminates all variables of a graph.

    Plates that are not tree-shaped are written out. A plan that does not fit into memory is run in slices. Either way
    the result is as if it were not so.

    Args:
        graph: what is to be solved.
        semiring: ``LOG_SUM_EXP`` or ``MAX_SUM``.
        marginals: variables, and tuples of them, whose marginals are to be read off the result.
        beliefs: whether those of all factors are wanted.
        plan: what is to be run; one is made, or found, if ``None``.

    Raises:
        PlanError: if factors of one variable have different scales, or a plate would have to be written out that is
            subsampled.
        MemoryLimitError: before anything is allocated, if no plan is found that fits into ``settings.memory_limit``.
        ValueError: if the plan was made for another structure.

    >>> import torch
    >>> crossed = FactorGraph.from_tables(
    ...     {"f": (["i", "j", "a", "b"], torch.ones(2, 3, 2, 2))},
    ...     plates={"i": 2, "j": 3}, ordinals={"a": ["i"], "b": ["j"]},
    ... )
    >>> result = solve(crossed, marginals=["b"])
    >>> result.value.exp(), result.marginal("b").probs.shape, result.plan.unrolled
    (tensor(32.), torch.Size([3, 2]), ('i',))
    """
    if plan is None:
        plan = plan_for(graph, marginals, backward=beliefs or bool(marginals) or _wants_grad(graph))
    announce(plan)
    if not plan.unrolled and not plan.sliced:
        return execute(plan, graph, semiring, beliefs=beliefs)
    run_on, copies = _prepared(plan, graph)
    if plan.sliced:
        return _in_slices(plan, graph, run_on, copies, semiring, beliefs)
    inner = execute(plan, run_on, semiring, beliefs=beliefs)
    found = inner.beliefs
    if beliefs and copies is not None:
        found = joined_beliefs(graph, copies, found, semiring == MAX_SUM)
    return JoinedResult(
        plan,
        graph,
        semiring,
        inner.value,
        found,
        inner.tape,
        read=inner.marginal,
        choose=lambda: inner.assignment,
        copies=copies,
    )


def sample(
    graph: FactorGraph,
    count: int,
    generator: torch.Generator | None = None,
    *,
    plan: EliminationPlan | None = None,
) -> Samples:
    """Draws assignments of all variables in proportion to their products of factors.

    Args:
        graph: what is drawn from.
        count: how many samples.
        generator: where random numbers come from; torch's own if ``None``.
        plan: what is to be run; one is made, or found, if ``None``.

    Raises:
        PlanError, MemoryLimitError, ValueError: as ``solve``; also if there are more samples than fit into memory.
    """
    if plan is None:
        plan = plan_for(graph, backward=True)
    _check_samples(plan, graph, count)
    announce(plan)
    with torch.no_grad():
        run_on, copies = _prepared(plan, graph)
        if plan.sliced:
            drawn = Slices(plan, run_on, LOG_SUM_EXP).sample(count, generator)
        else:
            drawn = execute_sample(plan, run_on, count, generator)
        return joined_samples(graph, copies, drawn)


def _check_samples(plan: EliminationPlan, graph: FactorGraph, count: int) -> None:
    itemsize = graph.factors[0].data.element_size() if graph.factors else 4
    needed, limit = plan.bytes(itemsize, samples=count), _limit(graph)
    if needed > limit:
        raise MemoryLimitError(
            f"{count:,} samples of {len(graph.variables):,} variables need {memory(needed)} and the limit is "
            f"{memory(limit)}. Draw fewer at a time, or raise the limit: settings.override(memory_limit=...)."
        )


def plan_for(
    graph: FactorGraph,
    marginals: Sequence[Readout] = (),
    *,
    maximised: Sequence[str] = (),
    backward: bool = False,
) -> EliminationPlan:
    """A plan that fits into ``settings.memory_limit``.

    Args:
        graph: what is to be solved.
        marginals: variables, and tuples of them, whose marginals are to be read off the result.
        maximised: variables that are maximised after all others were summed out.
        backward: whether the forward sweep is kept.

    Raises:
        PlanError, MemoryLimitError: as ``solve``.
    """
    if not graph.factors:  # Without tables there is nothing to slice.
        return make_plan(graph.structure, tuple(marginals), maximised=maximised, unroll=True)
    team = current_team()
    limit, itemsize = _limit(graph), graph.factors[0].data.element_size()
    plan = make_plan(
        graph.structure,
        tuple(marginals),
        maximised=maximised,
        memory_limit=limit,
        itemsize=itemsize,
        backward=backward,
        slices=1 if team is None else team.size,
        unroll=True,
    )
    plan.check_memory(limit, itemsize, backward)
    return plan


def _limit(graph: FactorGraph) -> int:
    """The bytes that there are where a graph's tables lie."""
    return settings.memory_limit_on(graph.factors[0].data.device) if graph.factors else settings.memory_limit


def _wants_grad(graph: FactorGraph) -> bool:
    return torch.is_grad_enabled() and any(factor.data.requires_grad for factor in graph.factors)


def _prepared(plan: EliminationPlan, graph: FactorGraph) -> tuple[FactorGraph, Unrolled | None]:
    """The graph that the plan, or each of its slices, is run on."""
    if plan.asked != graph.structure:
        raise ValueError(
            "The plan was made for another structure. Make one with make_plan(graph.structure, ...)."
        )
    return unroll(graph, plan.unrolled) if plan.unrolled else (graph, None)


def _in_slices(
    plan: EliminationPlan,
    graph: FactorGraph,
    run_on: FactorGraph,
    copies: Unrolled | None,
    semiring: Semiring,
    beliefs: bool,
) -> Result:
    readouts: list[Readout] = list(plan.marginals)
    if copies is not None:
        sizes = {name: plate.size for name, plate in graph.plates.items()}
        readouts = [
            copies.readout(each, element)
            for each in plan.marginals
            for element in copies.elements(each, sizes)
        ]
    slices = Slices(plan, run_on, semiring, readouts, beliefs)
    value, tables, found = slices.solve()
    if copies is not None and beliefs:
        found = joined_beliefs(graph, copies, found, semiring == MAX_SUM)
    return JoinedResult(
        plan,
        graph,
        semiring,
        value,
        found,
        read=tables.__getitem__,
        choose=slices.assignment,
        copies=copies,
    )
