"""Forward sweeps in logarithms that are right for all numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sumout.execute import sweep
from sumout.execute.algebra import LogSum
from sumout.execute.kernels import Trust
from sumout.execute.per_plan import PerPlan
from sumout.plan import EliminationPlan

trust_in = PerPlan(
    lambda plan: {taped: [Trust.POSITIVE] * len(plan.schedule.groups) for taped in (False, True)}
)
"""How the matrix products of each plan are made; what had to be made again is remembered. Sweeps that autograd tapes,
to be differentiated again, are a matter of their own."""

DEFERRED = False
"""Whether results are looked at after the sweep on the CPU too, as they always are on other devices."""


def log_sum(
    plan: EliminationPlan, tables: Sequence[Tensor], keep: sweep.Keep | None = None
) -> tuple[sweep.Tape, LogSum]:
    """A forward sweep in logarithms that is right for all numbers, and the algebra for the way back.

    On a GPU a sweep runs through without waiting for its numbers, and is run again if one of them calls for it.
    """
    deferred = DEFERRED or not tables[0].is_cpu
    taped = torch.is_grad_enabled() and any(table.requires_grad for table in tables)
    while True:
        algebra = LogSum(trust_in(plan)[taped], deferred)
        tape = sweep.forward(plan, tables, algebra, keep)
        if not algebra.distrust():
            return tape, algebra
