"""A table of evidence as batches of rows: graphs in which the rows are a dimension beside variables and plates.

A variable that is observed in all rows is gone, its tables looked up row by row. One that is observed in some rows
only stays, with a table over rows and states that says which states each row allows. Rows in which the same
variables are observed go together where they are many, for what is gone costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.execute import LOG_SUM_EXP, Result, Semiring
from sumout.factors import FactorGraph
from sumout.factors.evidence import MISSING
from sumout.infer.rows.progress import Progress
from sumout.infer.rows.read import EvidenceTable
from sumout.infer.rows.ways import Way, at, ways
from sumout.infer.solving.spread import current_team
from sumout.plan.structure import Readout
from sumout.settings import settings

_MANY = 1000
"""Rows of one pattern that are worth a plan of their own, whatever it saves."""

_PLANNING = 0.01
"""Seconds that finding a plan takes."""

_ROWS_AT_ONCE = (2048, 512, 128, 32)
"""Rows of a batch: as many as possible, for an operation costs something whatever their number ..."""

_ENTRIES_AT_ONCE = 2**20
"""... but not so many that a table of theirs has more entries than this: larger ones are slow to allocate."""


_Part = tuple[Tensor, set[str]]
"""Numbers of rows, and the variables that are observed in some of them only."""


class Batch(NamedTuple):
    """Some rows and their answer.

    ``rows`` are their numbers; ``result`` may have more rows, copies of the last. ``observed`` are the columns of the
    variables that are observed in all of them.
    """

    rows: Tensor
    result: Result
    observed: Mapping[str, Tensor]


def solve_rows(
    graph: FactorGraph,
    table: EvidenceTable,
    semiring: Semiring = LOG_SUM_EXP,
    wanted: tuple[Readout, ...] = (),
) -> Iterator[Batch]:
    """Answers all rows of a table, batch by batch.

    Args:
        graph: of which the rows are evidence.
        table: the rows.
        semiring: as in ``execute``.
        wanted: what is to be read out; of it, what is observed in all rows of a batch is left out.

    Raises:
        MemoryLimitError: before anything is allocated, if a single row needs more than ``settings.memory_limit``.
    """
    with Progress("rows", table.count) as progress:
        for rows, partly in _parts(graph, table, semiring, wanted):
            observed, some, hidden = _sorted_out(table, rows, partly, wanted)
            backward = semiring != LOG_SUM_EXP or bool(hidden) or _wants_grad(graph)
            left = ways(graph, semiring, observed, some, hidden)
            way = next(left)
            while not (size := _rows_at_once(way, observed, some, len(rows), backward)):
                way = next(left)
            for start in range(0, len(rows), size):
                part = torch.arange(start, start + size).clamp_(max=len(rows) - 1)
                while (result := way.solve(at(observed, part), at(some, part))) is None:
                    way = next(left)
                count = min(size, len(rows) - start)
                yield Batch(rows[start : start + count], result, at(observed, part[:count]))
                progress.advance(count)


def _wants_grad(graph: FactorGraph) -> bool:
    return torch.is_grad_enabled() and any(factor.data.requires_grad for factor in graph.factors)


def _sorted_out(
    table: EvidenceTable, rows: Tensor, partly: Collection[str], wanted: tuple[Readout, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[Readout, ...]]:
    """Of some rows, the columns that are whole, those that are not, and what is to be read out."""
    columns = {name: column[rows] for name, column in table.columns.items()}
    there = {name: column for name, column in columns.items() if not (column == MISSING).all()}
    if not there:  # The rows are a dimension of something, even if they say nothing.
        there = dict(list(columns.items())[:1])
        partly = {*partly, *there}
    observed = {name: column for name, column in there.items() if name not in partly}
    some = {name: column for name, column in there.items() if name in partly}
    return observed, some, tuple([each for each in wanted if each not in observed])


def _parts(
    graph: FactorGraph, table: EvidenceTable, semiring: Semiring, wanted: tuple[Readout, ...]
) -> list[_Part]:
    """Groups of rows, each with the variables that are observed in a part of them only.

    Rows with the same missing entries go together where that is quicker: with fewer variables, but a plan for each.
    """
    together, patterns = _patterns(table)
    joint = any(not isinstance(each, str) for each in wanted)
    if joint or len(patterns) < 2 or current_team() is not None:
        return [together]
    if len(patterns) * _MANY <= table.count:
        return patterns
    of_all = _seconds(graph, table, semiring, wanted, [together])
    if len(patterns) * _PLANNING >= of_all:
        return [together]
    some = patterns[:: (len(patterns) + 2) // 3]
    of_patterns = _seconds(graph, table, semiring, wanted, some) * len(patterns) / len(some)
    return patterns if of_patterns < of_all else [together]


def _seconds(
    graph: FactorGraph,
    table: EvidenceTable,
    semiring: Semiring,
    wanted: tuple[Readout, ...],
    parts: Sequence[_Part],
) -> float:
    """An estimate of the time that groups of rows take, by the plans of their quickest ways."""
    total = 0.0
    for rows, partly in parts:
        observed, some, hidden = _sorted_out(table, rows, partly, wanted)
        size = min(len(rows), _ROWS_AT_ONCE[0])
        plan = next(ways(graph, semiring, observed, some, hidden)).plan(observed, some, size)
        # Back takes twice as long as forth, and a product of maxima longer than one of sums.
        sweeps = 3.0 if hidden or semiring != LOG_SUM_EXP else 1.0
        total += _PLANNING + (sweeps * plan.seconds() * len(rows) / size if plan is not None else math.inf)
    return total


def _patterns(table: EvidenceTable) -> tuple[_Part, list[_Part]]:
    """All rows as one group; and as groups in which the same variables are missing."""
    missing = {name: (column == MISSING).reshape(table.count, -1) for name, column in table.columns.items()}
    partly = {name for name, each in missing.items() if each.any() and not each.all()}
    together = torch.arange(table.count), partly
    # A variable in plates may be missing in some elements of a row: then it is observed in a part.
    broken = {name for name in partly if (missing[name].any(1) != missing[name].all(1)).any()}
    whole = sorted(partly - broken)
    if not whole:
        return together, [together]
    flags = torch.stack([missing[name].all(1) for name in whole], 1)
    of_row = torch.unique(flags, dim=0, return_inverse=True)[1]
    order = of_row.argsort(stable=True).split(torch.bincount(of_row).tolist())
    return together, [(rows, broken) for rows in order]


def _rows_at_once(
    way: Way, observed: Mapping[str, Tensor], some: Mapping[str, Tensor], count: int, backward: bool
) -> int:
    """How many rows are taken at once; 0 if even one does not fit into the memory limit, or is no dimension."""
    for most in _ROWS_AT_ONCE:
        size = min(count, most)
        plan = way.plan(observed, some, size)
        if plan is None:
            return size
        if plan.unrolled:
            return 0
        largest = max((max(group.read, group.written) for group in plan.schedule.groups), default=0)
        if largest <= _ENTRIES_AT_ONCE:
            break
    while plan is not None and plan.bytes(way.itemsize, backward) > settings.memory_limit_on(way.device):
        if size == 1:
            return 0
        size = size // 2
        plan = way.plan(observed, some, size)
    return size
