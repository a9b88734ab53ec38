"""What a query would run, found out without running it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sumout.plan import EliminationPlan


class _Planned(BaseException):
    """Ends a query that is about to run a plan; no query catches it."""

    def __init__(self, plan: EliminationPlan) -> None:
        super().__init__(plan)
        self.plan = plan


class _Rehearsal(threading.local):
    on = False


_rehearsal = _Rehearsal()


def announce(plan: EliminationPlan) -> None:
    """Called wherever a plan is about to be run."""
    if _rehearsal.on:
        raise _Planned(plan)


def plan_of(query: Callable[..., Any]) -> Callable[..., EliminationPlan]:
    """The plan by which a query would be answered, found but not run.

    It is the same plan that the query then runs, with all that the query does first: observed variables are gone, and
    so is what tells nothing of what is asked. A query that runs several plans (``k_best``, an entropy's terms) gives
    the first; a program is run once, with its sites enumerated, to see what is to be planned.

    Args:
        query: what a function of ``sumout.infer`` returned, such as ``infer.marginals(graph)``.

    Returns:
        A function of the query's arguments that returns the plan.

    Raises:
        MemoryLimitError: if the query would be refused.
        ValueError: if the query answers without a plan, as samplers and objectives do.

    >>> from sumout.factors import FactorGraph
    >>> from sumout.infer import marginals
    >>> graph = FactorGraph.from_tables({"f": (["x", "y"], [[0.4, 0.1], [0.2, 0.3]])})
    >>> plan = plan_of(marginals(graph))(evidence={"x": 1})
    >>> plan.marginals, plan.width
    (('y',), 0)
    """

    def rehearsed(*args: Any, **kwargs: Any) -> EliminationPlan:
        before, _rehearsal.on = _rehearsal.on, True
        try:
            query(*args, **kwargs)
        except _Planned as found:
            return found.plan
        finally:
            _rehearsal.on = before
        raise ValueError(f"{query!r} ran no plan. Give what infer.marginals, log_evidence and others return.")

    return rehearsed
