"""A table of evidence as batches of rows: graphs in which the rows are a dimension beside variables and plates.

A variable that is observed in all rows is gone, its tables looked up row by row. One that is observed in some rows
only stays, with a table over rows and states that says which states each row allows. Rows in which the same
variables are observed go together where they are many, for what is gone costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sumout.execute import LOG_SUM_EXP, Choice, Marginal, Result, Semiring, execute
from sumout.factors import Factor, FactorGraph, Plate
from sumout.factors.evidence import MISSING, condition
from sumout.infer.rows.batched import BatchedGraph
from sumout.infer.rows.progress import Progress
from sumout.infer.rows.read import EvidenceTable
from sumout.infer.solving.prepared import PreparedGraph, prepared_graph
from sumout.infer.solving.solve import solve
from sumout.infer.solving.spread import current_team
from sumout.plan import EliminationPlan, make_plan
from sumout.plan.structure import Readout
from sumout.settings import settings

_MANY = 1000
"""Rows of one pattern that are worth a plan of their own."""

_ROWS_AT_ONCE = (2048, 512, 128, 32)
"""Rows of a batch: as many as possible, for an operation costs something whatever their number ..."""

_ENTRIES_AT_ONCE = 2**20
"""... but not so many that a table of theirs has more entries than this: larger ones are slow to allocate."""


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
            ways = _ways(graph, semiring, observed, some, hidden)
            way = next(ways)
            while not (size := _rows_at_once(way, observed, some, len(rows), backward)):
                way = next(ways)
            for start in range(0, len(rows), size):
                part = torch.arange(start, start + size).clamp_(max=len(rows) - 1)
                while (result := way.solve(_at(observed, part), _at(some, part))) is None:
                    way = next(ways)
                count = min(size, len(rows) - start)
                yield Batch(rows[start : start + count], result, _at(observed, part[:count]))
                progress.advance(count)


def _ways(
    graph: FactorGraph,
    semiring: Semiring,
    observed: Mapping[str, Tensor],
    some: Mapping[str, Tensor],
    wanted: tuple[Readout, ...],
) -> Iterator[_Way]:
    """The ways in which rows can be answered, the quickest first."""
    prepared = prepared_graph(graph) if semiring == LOG_SUM_EXP else None
    if prepared is not None:
        yield _Prepared(prepared, observed, some, wanted)
    if current_team() is None:
        yield _General(graph, semiring, wanted)
    yield _OneByOne(graph, semiring, wanted)


class _Way(Protocol):
    """A way of answering rows."""

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""

    def plan(
        self, observed: Mapping[str, Tensor], some: Mapping[str, Tensor], rows: int
    ) -> EliminationPlan | None:
        """The plan of so many rows, none of whose tables are made; ``None`` if each row has its own."""

    def solve(self, observed: Mapping[str, Tensor], some: Mapping[str, Tensor]) -> Result | None:
        """The answer to some rows; ``None`` if it takes another way."""


class _General:
    """Batches in logarithms: of all graphs, all semirings, and with derivatives."""

    def __init__(self, graph: FactorGraph, semiring: Semiring, wanted: tuple[Readout, ...]) -> None:
        self.graph = graph
        self.semiring = semiring
        self.wanted = wanted
        self.itemsize = graph.factors[0].data.element_size() if graph.factors else 4

    def plan(self, observed: Mapping[str, Tensor], some: Mapping[str, Tensor], rows: int) -> EliminationPlan:
        """For so many rows; the tables of no more than one are made."""
        one = torch.zeros(1, dtype=torch.long)
        first = _batched(self.graph, _at(observed, one), _at(some, one))
        sizes = tuple([(name, rows if name in first.batch else size) for name, size in first.structure.sizes])
        return make_plan(first.structure._replace(sizes=sizes), self.wanted, unroll=True)

    def solve(self, observed: Mapping[str, Tensor], some: Mapping[str, Tensor]) -> Result:
        batch = _batched(self.graph, observed, some)
        return execute(make_plan(batch.structure, self.wanted, unroll=True), batch, self.semiring)


class _OneByOne:
    """Rows that cannot be a dimension, as where plates are written out or a plan runs in slices: each is a graph."""

    def __init__(self, graph: FactorGraph, semiring: Semiring, wanted: tuple[Readout, ...]) -> None:
        self.graph = graph
        self.semiring = semiring
        self.wanted = wanted
        self.itemsize = 8

    def plan(self, observed: Mapping[str, Tensor], some: Mapping[str, Tensor], rows: int) -> None:
        return None

    def solve(self, observed: Mapping[str, Tensor], some: Mapping[str, Tensor]) -> Result:
        count = len(next(iter({**observed, **some}.values())))
        graphs = [_single(self.graph, observed, some, row) for row in range(count)]
        results = [solve(graph, self.semiring, self.wanted) for graph in graphs]
        value = torch.stack([result.value for result in results])
        return _Stacked(results[0].plan, graphs[0], self.semiring, value, parts=tuple(results))


@dataclass(frozen=True, eq=False)
class _Stacked(Result):
    """The results of single rows as if they were one of all."""

    parts: tuple[Result, ...] = ()

    def marginal(self, wanted: Readout) -> Marginal:
        """As that of a batch, with the rows first."""
        found = [each.marginal(wanted) for each in self.parts]
        return Marginal(torch.stack([each.probs for each in found]), found[0].plates)

    @cached_property
    def assignment(self) -> dict[str, Choice]:
        """As that of a batch, with the rows first."""
        found = [each.assignment for each in self.parts]
        return {
            name: Choice(torch.stack([each[name].states for each in found]), choice.plates)
            for name, choice in found[0].items()
        }


def _single(
    graph: FactorGraph, observed: Mapping[str, Tensor], some: Mapping[str, Tensor], row: int
) -> FactorGraph:
    """The graph of one row, without a dimension for rows."""
    here = torch.tensor([row])
    batch = _batched(graph, _at(observed, here), _at(some, here))
    (rows,) = batch.batch
    factors = tuple(
        [
            replace(
                factor,
                inputs=tuple([each for each in factor.inputs if each != rows]),
                data=factor.data.squeeze(factor.inputs.index(rows)),
            )
            if rows in factor.inputs
            else factor
            for factor in batch.factors
        ]
    )
    return FactorGraph(factors, batch.variables, batch.plates, batch.states)


class _Prepared:
    """Batches of a graph that is kept prepared."""

    def __init__(
        self,
        prepared: PreparedGraph,
        observed: Mapping[str, Tensor],
        some: Mapping[str, Tensor],
        wanted: tuple[Readout, ...],
    ) -> None:
        self.prepared = prepared
        self.itemsize = prepared.tables[0].element_size()
        self.names = tuple(sorted(observed)), wanted, tuple(sorted(some))

    def plan(self, observed: Mapping[str, Tensor], some: Mapping[str, Tensor], rows: int) -> EliminationPlan:
        return self.prepared.pattern(*self.names, rows).plan

    def solve(self, observed: Mapping[str, Tensor], some: Mapping[str, Tensor]) -> Result | None:
        columns = {name: column.to(self.prepared.device) for name, column in {**observed, **some}.items()}
        rows = len(next(iter(columns.values())))
        with torch.no_grad():
            return self.prepared.pattern(*self.names, rows).solve(columns)


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


def _rows_at_once(
    way: _Way, observed: Mapping[str, Tensor], some: Mapping[str, Tensor], count: int, backward: bool
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
    while plan is not None and plan.bytes(way.itemsize, backward) > settings.memory_limit:
        if size == 1:
            return 0
        size = size // 2
        plan = way.plan(observed, some, size)
    return size


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
