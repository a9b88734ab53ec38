"""Slices shared out among processes: each runs its own, and all have the whole answer in the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch.distributed as distributed
from torch import Tensor


class Team(NamedTuple):
    """The processes that work together: this one's number, how many they are, and their ``ProcessGroup``."""

    rank: int
    size: int
    group: Any

    def total(self, table: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        distributed.all_reduce(table, distributed.ReduceOp.SUM, self.group)
        return table

    def greatest(self, table: Tensor) -> Tensor:
        """The maximum over all processes, in place."""
        distributed.all_reduce(table, distributed.ReduceOp.MAX, self.group)
        return table


class _InForce(threading.local):
    def __init__(self) -> None:
        self.team: Team | None = None


_in_force = _InForce()


def current_team() -> Team | None:
    """The processes that share slices in this thread; ``None`` if it works alone."""
    return _in_force.team


@contextmanager
def spread(group: Any = None) -> Iterator[Team]:
    """Shares every question inside the ``with`` block out among processes.

    Plans are cut into at least as many slices as there are processes: some variables are fixed to one joint state after
    the other. Each process runs its part of the states, and gradients are spread in the same way; the answers, equal in
    all processes, are those of one to rounding. All processes must ask the same questions in the same order. Samples
    are the same in all if their generators are.

    Args:
        group: a ``torch.distributed.ProcessGroup``; the default one if ``None``. Gloo works on the CPU, NCCL on GPUs.

    Raises:
        RuntimeError: if ``torch.distributed`` has not been initialised.

    >>> import os, tempfile
    >>> import torch.distributed
    >>> from sumout import infer
    >>> from sumout.factors import FactorGraph
    >>> graph = FactorGraph.from_tables({"f": (["x", "y"], [[0.1, 0.2], [0.3, 0.4]]), "g": (["y"], [1.0, 2.0])})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=0, world_size=1)
    ...     with spread() as team:
    ...         print(team.size, infer.log_evidence(graph)().exp())
    ...     torch.distributed.destroy_process_group()
    1 tensor(1.6000)
    """
    if not distributed.is_available() or not distributed.is_initialized():
        raise RuntimeError(
            "spread shares work among the processes of torch.distributed, and there are none yet: call "
            "torch.distributed.init_process_group first."
        )
    before = _in_force.team
    _in_force.team = Team(distributed.get_rank(group), distributed.get_world_size(group), group)
    try:
        yield _in_force.team
    finally:
        _in_force.team = before
