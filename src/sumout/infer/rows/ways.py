"""The ways in which the rows of a batch are answered, and the graph of rows that they run on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from sumout.execute import LOG_SUM_EXP, Choice, Marginal, Result, Semiring, execute
from sumout.factors import Factor, FactorGraph, Plate
from sumout.factors.evidence import MISSING, condition
from sumout.infer.rows.batched import BatchedGraph
from sumout.infer.solving.prepared import PreparedGraph, prepared_graph
from sumout.infer.solving.rehearsal import announce
from sumout.infer.solving.solve import solve
from sumout.infer.solving.spread import current_team
from sumout.plan import EliminationPlan, make_plan
from sumout.plan.structure import Readout


def ways(
    graph: FactorGraph,
    semiring: Semiring,
    observed: Mapping[str, Tensor],
    some: Mapping[str, Tensor],
    wanted: tuple[Readout, ...],
) -> Iterator[Way]:
    """The ways in which rows can be answered, the quickest first."""
    prepared = prepared_graph(graph) if semiring == LOG_SUM_EXP else None
    if prepared is not None:
        yield _Prepared(prepared, observed, some, wanted)
    if current_team() is None:
        yield _General(graph, semiring, wanted)
    yield _OneByOne(graph, semiring, wanted)


class Way(Protocol):
    """A way of answering rows."""

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""

    @property
    def device(self) -> torch.device:
        """Where the tables lie."""

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
        self.device = graph.factors[0].data.device if graph.factors else torch.device("cpu")

    def plan(self, observed: Mapping[str, Tensor], some: Mapping[str, Tensor], rows: int) -> EliminationPlan:
        """For so many rows; the tables of no more than one are made."""
        one = torch.zeros(1, dtype=torch.long)
        first = _batched(self.graph, at(observed, one), at(some, one))
        sizes = tuple([(name, rows if name in first.batch else size) for name, size in first.structure.sizes])
        return make_plan(first.structure._replace(sizes=sizes), self.wanted, unroll=True)

    def solve(self, observed: Mapping[str, Tensor], some: Mapping[str, Tensor]) -> Result:
        batch = _batched(self.graph, observed, some)
        plan = make_plan(batch.structure, self.wanted, unroll=True)
        announce(plan)
        return execute(plan, batch, self.semiring)


class _OneByOne:
    """Rows that cannot be a dimension, as where plates are written out or a plan runs in slices: each is a graph."""

    def __init__(self, graph: FactorGraph, semiring: Semiring, wanted: tuple[Readout, ...]) -> None:
        self.graph = graph
        self.semiring = semiring
        self.wanted = wanted
        self.itemsize = 8
        self.device = graph.factors[0].data.device if graph.factors else torch.device("cpu")

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
    batch = _batched(graph, at(observed, here), at(some, here))
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
        self.device = prepared.device
        self.names = tuple(sorted(observed)), wanted, tuple(sorted(some))

    def plan(self, observed: Mapping[str, Tensor], some: Mapping[str, Tensor], rows: int) -> EliminationPlan:
        return self.prepared.pattern(*self.names, rows).plan

    def solve(self, observed: Mapping[str, Tensor], some: Mapping[str, Tensor]) -> Result | None:
        columns = {name: column.to(self.prepared.device) for name, column in {**observed, **some}.items()}
        rows = len(next(iter(columns.values())))
        with torch.no_grad():
            return self.prepared.pattern(*self.names, rows).solve(columns)


def at(columns: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Some rows of all columns."""
    return {name: column[rows] for name, column in columns.items()}


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
