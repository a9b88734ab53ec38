"""A table of evidence as batches of rows: graphs in which the rows are a dimension beside variables and plates.

A variable that is observed in all rows is gone, its tables looked up row by row. One that is observed in some rows
only stays, with a table over rows and states that says which states each row allows. Rows in which the same
variables are observed go together where they are many, for what is gone costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.errors import MemoryLimitError
from sumout.execute import LOG_SUM_EXP, Result, Semiring, execute
from sumout.factors import Factor, FactorGraph, Plate
from sumout.factors.evidence import condition
from sumout.infer.batched import BatchedGraph
from sumout.infer.progress import Progress
from sumout.infer.rows import MISSING, EvidenceTable
from sumout.plan import EliminationPlan, make_plan
from sumout.plan.structure import Readout
from sumout.settings import settings

_MANY = 1000
"""Rows of one pattern that are worth a plan of their own."""

_ROWS_AT_ONCE = 512
"""Rows of a batch: enough that their number is what counts, few enough that their tables stay in a cache."""


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
    joint = any(not isinstance(each, str) for each in wanted)
    with Progress("rows", table.count) as progress:
        for rows, partly in _patterns(table, apart=not joint):
            columns = {name: column[rows] for name, column in table.columns.items()}
            there = {name: column for name, column in columns.items() if not (column == MISSING).all()}
            if not there:  # The rows are a dimension of something, even if they say nothing.
                there = dict(list(columns.items())[:1])
                partly = partly.union(there)
            observed = {name: column for name, column in there.items() if name not in partly}
            some = {name: column for name, column in there.items() if name in partly}
            hidden = tuple([each for each in wanted if each not in observed])
            backward = semiring != LOG_SUM_EXP or bool(hidden) or _wants_grad(graph)
            first = _batched(graph, _at(observed, rows[:1] * 0), _at(some, rows[:1] * 0))
            plan = _plan(first, hidden, len(rows), backward)
            (size,) = (size for name, size in plan.structure.sizes if name in first.batch)
            for start in range(0, len(rows), size):
                part = torch.arange(start, start + size).clamp_(max=len(rows) - 1)
                batch = _batched(graph, _at(observed, part), _at(some, part))
                count = min(size, len(rows) - start)
                result = execute(plan, batch, semiring)
                yield Batch(rows[start : start + count], result, _at(observed, part[:count]))
                progress.advance(count)


def _at(columns: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: column[rows] for name, column in columns.items()}


def _wants_grad(graph: FactorGraph) -> bool:
    return torch.is_grad_enabled() and any(factor.data.requires_grad for factor in graph.factors)


def _patterns(table: EvidenceTable, apart: bool) -> list[tuple[Tensor, set[str]]]:
    """Groups of rows, each with the variables that are observed in a part of them only."""
    missing = {name: (column == MISSING).reshape(table.count, -1) for name, column in table.columns.items()}
    partly = {name for name, each in missing.items() if each.any() and not each.all()}
    everything = torch.arange(table.count)
    if not partly or not apart:
        return [(everything, partly)]
    # A variable in plates may be missing in some elements of a row: then it is observed in a part.
    broken = {name for name in partly if (missing[name].any(1) != missing[name].all(1)).any()}
    whole = sorted(partly - broken)
    flags = torch.stack([missing[name].all(1) for name in whole], 1) if whole else None
    if flags is None:
        return [(everything, partly)]
    patterns, of_row = torch.unique(flags, dim=0, return_inverse=True)
    if len(patterns) * _MANY > table.count:
        return [(everything, partly)]
    return [((of_row == number).nonzero().squeeze(1), broken) for number in range(len(patterns))]


def _plan(first: BatchedGraph, wanted: tuple[Readout, ...], count: int, backward: bool) -> EliminationPlan:
    """The plan of as many rows at once as fit into the memory limit; ``first`` is the graph of one row."""
    size = min(count, _ROWS_AT_ONCE)
    itemsize = first.factors[0].data.element_size()
    while True:
        sizes = tuple([(name, size if name in first.batch else each) for name, each in first.structure.sizes])
        plan = make_plan(first.structure._replace(sizes=sizes), wanted)
        try:
            plan.check_memory(settings.memory_limit, itemsize, backward)
        except MemoryLimitError:
            if size == 1:
                raise
            size = size // 2
        else:
            return plan


def _batched(graph: FactorGraph, observed: Mapping[str, Tensor], some: Mapping[str, Tensor]) -> BatchedGraph:
    """The graph of some rows."""
    rows = "rows"
    while rows in graph.variables or rows in graph.plates:
        rows += "'"
    columns = [*observed.values(), *some.values()]
    count = len(columns[0])
    inside = {
        name: replace(variable, plates=variable.plates | {rows}) if name in observed else variable
        for name, variable in graph.variables.items()
    }
    layered = replace(graph, variables=inside, plates={**graph.plates, rows: Plate(count)})
    evidence = {}
    for name, column in observed.items():
        order = [rows, *sorted(graph.variables[name].plates)]
        evidence[name] = column.permute([order.index(each) for each in sorted(order)])
    data = condition(layered, evidence)
    like = graph.factors[0].data if graph.factors else torch.zeros(())
    allowed = []
    for name, column in some.items():
        variable = graph.variables[name]
        states = torch.arange(variable.size)
        table = (column.unsqueeze(-1) == states) | (column == MISSING).unsqueeze(-1)
        logs = torch.where(table.to(like.device), like.new_zeros(()), -torch.inf)
        inputs = (rows, *sorted(variable.plates), name)
        allowed.append(Factor(f"rows of {name}", inputs, logs, variable.plates))
    plates = {name: plate for name, plate in data.plates.items() if name != rows}
    return BatchedGraph((*data.factors, *allowed), data.variables, plates, data.states, {rows: count})
