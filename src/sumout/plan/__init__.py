"""From a factor graph's structure to an elimination plan: names, sizes and kinds only.

Reading order: ``structure`` (what is planned), ``unroll`` (plates written out), ``outline`` (tensor variable
elimination); ``problem`` (one contraction), ``interaction``, ``contraction`` and ``opening`` (what heuristics work on),
``orders``, ``balanced``, ``refine`` and ``search`` (the heuristics), ``choose`` (which of them wins); ``eliminate``,
``groups`` and ``schedule`` (steps and batches), ``cost``; ``record`` and ``plan`` (the value), ``explain``, ``saved``
and ``show`` (what can be done with it); ``slices``, ``draft``, ``planning`` and ``make`` (all together, cached).
"""

from sumout.plan.cost import FLOPS_ALONE, Cost, Machine
from sumout.plan.eliminate import Step
from sumout.plan.groups import Group, Rows, Schedule
from sumout.plan.make import (
    PlanCacheInfo,
    clear_plan_cache,
    keep_plan,
    load_plan,
    make_plan,
    plan_cache_info,
)
from sumout.plan.orders import DEFAULT, ORDERS
from sumout.plan.plan import EliminationPlan
from sumout.plan.planning import Planning, planning
from sumout.plan.runs import Run, runs_of
from sumout.plan.search import SEARCHES
from sumout.plan.structure import FactorShape, Readout, Structure, readouts
from sumout.plan.unroll import Unrolled, unroll

__all__ = [
    "DEFAULT",
    "FLOPS_ALONE",
    "ORDERS",
    "SEARCHES",
    "Cost",
    "EliminationPlan",
    "FactorShape",
    "Group",
    "Machine",
    "PlanCacheInfo",
    "Planning",
    "Readout",
    "Rows",
    "Run",
    "Schedule",
    "Step",
    "Structure",
    "Unrolled",
    "clear_plan_cache",
    "keep_plan",
    "load_plan",
    "make_plan",
    "plan_cache_info",
    "planning",
    "readouts",
    "runs_of",
    "unroll",
]
