"""From a factor graph's structure to an elimination plan: names, sizes and kinds only.

Reading order: ``structure`` (what is planned), ``problem`` and ``orders`` (one contraction and the heuristics
that order it), ``eliminate`` (plates: tensor variable elimination), ``schedule`` (batching), ``cost``,
``plan`` (the value), ``make`` (all together, cached).
"""

from sumout.plan.cost import Cost, Machine
from sumout.plan.eliminate import Step
from sumout.plan.make import PlanCacheInfo, clear_plan_cache, make_plan, plan_cache_info
from sumout.plan.orders import ORDERS
from sumout.plan.plan import EliminationPlan
from sumout.plan.schedule import Group, Rows, Schedule
from sumout.plan.structure import FactorShape, Structure, readouts

__all__ = [
    "ORDERS",
    "Cost",
    "EliminationPlan",
    "FactorShape",
    "Group",
    "Machine",
    "PlanCacheInfo",
    "Rows",
    "Schedule",
    "Step",
    "Structure",
    "clear_plan_cache",
    "make_plan",
    "plan_cache_info",
    "readouts",
]
