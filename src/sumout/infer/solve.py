"""One graph, one question: plan, check the memory, execute."""

from __future__ import annotations

import torch

from sumout.execute import LOG_SUM_EXP, Result, Semiring, execute
from sumout.factors import FactorGraph
from sumout.plan import make_plan
from sumout.plan.structure import Readout
from sumout.settings import settings


def solve(
    graph: FactorGraph, semiring: Semiring = LOG_SUM_EXP, marginals: tuple[Readout, ...] = ()
) -> Result:
    """Eliminates all variables of a graph.

    Args:
        graph: what is to be solved.
        semiring: ``LOG_SUM_EXP`` or ``MAX_SUM``.
        marginals: variables, and tuples of them, whose marginals are to be read off the result.

    Raises:
        PlanError: if the plates are not tree-shaped.
        MemoryLimitError: before anything is allocated, if the plan is larger than ``settings.memory_limit``.
    """
    plan = make_plan(graph.structure, marginals)
    if graph.factors:
        tables = [factor.data for factor in graph.factors]
        backward = bool(marginals) or (
            torch.is_grad_enabled() and any(table.requires_grad for table in tables)
        )
        plan.check_memory(settings.memory_limit, tables[0].element_size(), backward)
    return execute(plan, graph, semiring)
