"""From a structure to a plan, once per structure."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from sumout.plan.cost import Machine, cost_of
from sumout.plan.eliminate import eliminate
from sumout.plan.orders import ORDERS
from sumout.plan.plan import EliminationPlan
from sumout.plan.schedule import schedule
from sumout.plan.structure import Readout, Structure, readouts


class PlanCacheInfo(NamedTuple):
    """Counters of the plan cache since it was last cleared."""

    hits: int
    misses: int
    size: int


@lru_cache(maxsize=1024)
def _make_plan(
    structure: Structure, marginals: tuple[Readout, ...], orders: tuple[str, ...], machine: Machine
) -> EliminationPlan:
    sizes = dict(structure.sizes)
    found, probes = readouts(structure, marginals)
    best: EliminationPlan | None = None
    considered: list[tuple[str, float]] = []
    for order in orders:
        elimination = eliminate(structure, probes, ORDERS[order])
        timetable = schedule(elimination, sizes, len(structure.factors) + len(probes))
        cost = cost_of(timetable)
        plan = EliminationPlan(structure, tuple(found.items()), probes, order, elimination, timetable, cost)
        considered.append((order, cost.seconds(machine)))
        if best is None or considered[-1][1] < best.cost.seconds(machine):
            best = plan
        if not any(step.kind == "contract" for step in elimination.steps):
            break  # Nothing is multiplied, so every order gives this plan.
    if best is None:
        raise ValueError(f"No heuristic was given; there are {', '.join(ORDERS)}.")
    return replace(best, considered=tuple(considered))


def make_plan(
    structure: Structure,
    marginals: tuple[Readout, ...] = (),
    orders: tuple[str, ...] = tuple(ORDERS),
    machine: Machine = Machine(),  # noqa: B008  (frozen)
) -> EliminationPlan:
    """The cheapest plan that the heuristics find; the same structure is planned only once.

    Args:
        structure: names, sizes and kinds of a factor graph (``FactorGraph.structure``).
        marginals: variables, and tuples of them, whose marginals are to be read out of a backward sweep.
        orders: the heuristics to try, keys of ``ORDERS``.
        machine: the rates by which costs are compared.

    Raises:
        PlanError: if the plates are not tree-shaped, or factors of one variable have different scales.

    >>> from sumout.plan import FactorShape
    >>> chain = Structure(
    ...     factors=tuple(FactorShape((f"x{t}", f"x{t + 1}")) for t in range(8)),
    ...     sizes=tuple((f"x{t}", 3) for t in range(9)),
    ...     variables=tuple((f"x{t}", frozenset()) for t in range(9)),
    ... )
    >>> plan = make_plan(chain, orders=("min_fill",))
    >>> plan.width, plan.largest
    (1, 9)
    """
    return _make_plan(structure, tuple(marginals), tuple(orders), machine)


def plan_cache_info() -> PlanCacheInfo:
    """How often a plan was found (hits) and made (misses).

    >>> clear_plan_cache()
    >>> plan_cache_info()
    PlanCacheInfo(hits=0, misses=0, size=0)
    """
    info = _make_plan.cache_info()
    return PlanCacheInfo(info.hits, info.misses, info.currsize)


def clear_plan_cache() -> None:
    """Forgets all plans and sets the counters to zero."""
    _make_plan.cache_clear()
