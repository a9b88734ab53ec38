"""Forward sweeps in logarithms that are right for all numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from sumout.execute import sweep
from sumout.execute.algebra import LogSum
from sumout.execute.kernels import Trust
from sumout.execute.per_plan import PerPlan
from sumout.execute.transforms import forward_derivatives, transformed
from sumout.plan import EliminationPlan
from sumout.plan.memory import AT_ONCE

Found = TypeVar("Found")

trust_in = PerPlan(
    lambda plan: {taped: [Trust.POSITIVE] * len(plan.schedule.groups) for taped in (False, True)}
)
"""How the matrix products of each plan are made; what had to be made again is remembered. Sweeps that autograd tapes,
to be differentiated again, are a matter of their own."""

DEFERRED = False
"""Whether results are looked at after the sweep on the CPU too, as they always are on other devices."""


class _Collecting(threading.local):
    def __init__(self) -> None:
        self.wrong: list[Tensor] | None = None


_collecting = _Collecting()


@contextmanager
def unchecked() -> Iterator[list[Tensor]]:
    """Sweeps inside the ``with`` block do not look at their numbers, so that they can be traced and compiled.

    Yields:
        A list to which each sweep adds boolean scalars; if one of them is true, its result is *not* right, and has to
        be made again outside the block.

    >>> from sumout.execute import execute
    >>> from sumout.factors import FactorGraph
    >>> from sumout.plan import make_plan
    >>> square = torch.ones(2, 2)
    >>> graph = FactorGraph.from_tables({"f": (["x", "y"], square), "g": (["y", "z"], square)})
    >>> with unchecked() as wrong:
    ...     value = execute(make_plan(graph.structure), graph).value
    >>> value.exp(), any(wrong)
    (tensor(8.), False)
    """
    before = _collecting.wrong
    _collecting.wrong = []
    try:
        yield _collecting.wrong
    finally:
        _collecting.wrong = before


def log_sum(
    plan: EliminationPlan,
    tables: Sequence[Tensor],
    keep: sweep.Keep | None = None,
    wanted: frozenset[int] | None = None,
    ahead: sweep.Ahead | None = None,
    at_once: int = AT_ONCE,
) -> tuple[sweep.Tape, LogSum]:
    """A forward sweep in logarithms that is right for all numbers, and the algebra for the way back.

    What is kept, and for which factors, is told as to ``sweep.forward``. On a GPU a sweep runs through without waiting
    for its numbers, and is run again if one of them calls for it. Runs of groups are made at once up to ``at_once``
    entries.
    """
    return _checked(
        plan, tables, lambda algebra: sweep.forward(plan, tables, algebra, keep, wanted, ahead), at_once
    )


def log_sum_ahead(
    plan: EliminationPlan,
    tables: Sequence[Tensor],
    keep: sweep.Keep | None = None,
    wanted: frozenset[int] | None = None,
) -> sweep.Ahead:
    """What of a sliced plan is the same in every slice, in logarithms."""
    return _checked(plan, tables, lambda algebra: sweep.forward_ahead(plan, tables, algebra, keep, wanted))[0]


def _checked(
    plan: EliminationPlan, tables: Sequence[Tensor], run: Callable[[LogSum], Found], at_once: int = 0
) -> tuple[Found, LogSum]:
    """Runs a sweep, again and with less trust where its numbers call for it."""
    shared = tables if _share_storage(tables) else ()
    deferred = DEFERRED or _collecting.wrong is not None or not tables[0].is_cpu
    taped = torch.is_grad_enabled() and any(table.requires_grad for table in tables)
    seen = taped or _collecting.wrong is not None or forward_derivatives() or transformed(tables)
    while True:
        algebra = LogSum(trust_in(plan)[taped], deferred, shared, 0 if seen else at_once)
        found = run(algebra)
        if _collecting.wrong is not None:
            _collecting.wrong += algebra.wrong()
            return found, algebra
        if not algebra.distrust():
            return found, algebra


def _share_storage(tables: Sequence[Tensor]) -> bool:
    """Whether some tables lie in one place. What a transform shows of a tensor lies nowhere."""
    if transformed(tables) or tables[0].is_meta:
        return False
    return len({table.data_ptr() for table in tables}) < len(tables)
