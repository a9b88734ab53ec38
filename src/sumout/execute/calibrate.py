"""The rates of a device, measured: what plans are compared by."""

from __future__ import annotations

import statistics
import time

import torch

from sumout.execute.execute import execute
from sumout.factors import FactorGraph
from sumout.plan import Machine, make_plan

_STEPS, _STATES, _ENTRIES = 48, 512, 2**21
"""The sizes of three graphs: one costs launches alone, one multiply-adds, one entries."""


def calibrate(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64, repeats: int = 7
) -> Machine:
    """Measures a device, which takes about a second.

    Three graphs are run forwards and backwards: a chain of small steps, a product of two large matrices, a sum over a
    large table. The medians of their times give the seconds of a launch and the rates of multiply-adds and entries.

    Args:
        device: where sweeps are to run.
        dtype: of the tables.
        repeats: how often each graph is run.

    >>> from sumout.plan import planning
    >>> with planning(machine=calibrate(repeats=1)) as how:
    ...     how.machine.flops_per_second > 1e6
    True
    """
    chain = {
        f"f{t}": ([f"x{t}", f"x{t + 1}"], torch.zeros(2, 2, dtype=dtype, device=device))
        for t in range(_STEPS)
    }
    square = torch.zeros(_STATES, _STATES, dtype=dtype, device=device)
    table = torch.zeros(_ENTRIES, dtype=dtype, device=device)
    small, launches, _, _ = _run(chain, repeats)
    launch = small / launches
    large, launches, _, entries = _run({"f": (["x"], table)}, repeats)
    entry = max(large - launches * launch, 0.1 * large) / entries
    product, launches, flops, entries = _run({"f": (["x", "y"], square), "g": (["y", "z"], square)}, repeats)
    flop = max(product - launches * launch - entries * entry, 0.1 * product) / flops
    return Machine(1.0 / flop, 1.0 / entry, launch)


def _run(tables: dict[str, tuple[list[str], torch.Tensor]], repeats: int) -> tuple[float, int, int, int]:
    """The median time of a sweep there and back; its launches, multiply-adds and entries."""
    graph = FactorGraph.from_tables(tables, log=True)
    plan = make_plan(graph.structure, orders=("min_fill",))
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            execute(plan, graph, beliefs=True)
            if graph.factors[0].data.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    # The first run pays for what is made once.
    return statistics.median(times[1:]), plan.cost.launches, plan.cost.flops, plan.cost.entries
