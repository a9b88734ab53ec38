"""From a question to the engine's result, by the plan that the command line asks for."""

from __future__ import annotations

import time
from collections.abc import Mapping

from sumout.cli.network import Question
from sumout.execute import LOG_SUM_EXP, Result, Semiring, execute
from sumout.factors import FactorGraph
from sumout.plan import ORDERS, EliminationPlan, Machine, make_plan
from sumout.settings import settings


def solve(
    question: Question,
    evidence: Mapping[str, int],
    marginals: tuple[str, ...] = (),
    semiring: Semiring = LOG_SUM_EXP,
) -> Result:
    """Eliminates all nodes that are not observed.

    Raises:
        MemoryLimitError: before anything is allocated, if the plan is larger than the limit.
    """
    graph, plan = planned(question, evidence, marginals)
    if graph.factors:
        plan.check_memory(settings.memory_limit, graph.factors[0].data.element_size(), bool(marginals))
    return execute(plan, graph, semiring)


def planned(
    question: Question, evidence: Mapping[str, int], marginals: tuple[str, ...] = ()
) -> tuple[FactorGraph, EliminationPlan]:
    """The graph with the evidence put in, and its plan.

    With a time limit the heuristics are tried one by one until it has passed; the first is always tried.
    """
    graph = question.graph.condition(evidence) if evidence else question.graph
    orders = question.planning.optimizers or tuple(ORDERS)
    limit = question.planning.time_limit
    if limit is None:
        return graph, make_plan(graph.structure, marginals, orders)
    start = time.monotonic()
    best: EliminationPlan | None = None
    for order in orders:
        plan = make_plan(graph.structure, marginals, (order,))
        if best is None or plan.cost.seconds(Machine()) < best.cost.seconds(Machine()):
            best = plan
        if time.monotonic() - start >= limit:
            break
    assert best is not None  # there is at least one order
    return graph, best
