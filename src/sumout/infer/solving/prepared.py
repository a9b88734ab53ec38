"""A plain factor graph that is asked again and again: its tables as probabilities, sliced by an index.

What a query of a network costs is mostly what comes before the arithmetic: slicing dozens of tables, building a graph,
finding its plan. All of it depends only on *which* variables are observed, so it is done once for each pattern of
observations, and kept as long as the graph lives. Small plans run as flat programs, others as sweeps on
probabilities; where these do not serve (tables that are being trained, plates, numbers too far apart), queries go
their general way, in logarithms.
"""

from __future__ import annotations

import math
import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from sumout.execute import LOG_SUM_EXP, Result
from sumout.execute.execute import read_out
from sumout.execute.flat import FlatProgram, TooFar
from sumout.execute.linear import Range, linear_sweep
from sumout.execute.transforms import forward_derivatives, transformed
from sumout.factors import FactorGraph
from sumout.factors.evidence import MISSING, Evidence, resolve_evidence
from sumout.infer.solving.leaves import barren
from sumout.infer.solving.rehearsal import announce
from sumout.infer.solving.spread import current_team
from sumout.plan import FactorShape, Structure, make_plan, planning
from sumout.plan.structure import Readout
from sumout.settings import settings

_KEPT = 64
"""Patterns of observations that are kept for a graph."""

_FLAT = 4_000_000
"""Joint entries up to which a flat program is made: its indices take some ten numbers for each."""

_FLAT_ENTRY, _SWEEP_ENTRY, _SWEEP_GROUP = 5.5e-9, 4e-10, 8e-5
"""Seconds for a joint entry of a flat program, for one of a sweep, and for a group of it: measured, both ways together,
on one core of a current CPU."""

Index = TypeVar("Index", int, Tensor)


class _Slice(NamedTuple):
    """A table whose observed variables are one dimension, the first; ``steps`` tells where each state is along it."""

    table: Tensor
    steps: tuple[tuple[str, int], ...]


class Tables(NamedTuple):
    """What a pattern is made from: all tables of a prepared graph, or those that matter."""

    tables: list[Tensor]
    inputs: list[tuple[str, ...]]
    ranges: list[Range]
    sizes: dict[str, int]
    offset: float


class PreparedGraph:
    """The tables of a graph without plates and powers as probabilities, each scaled to a maximum of one."""

    def __init__(self, graph: FactorGraph) -> None:
        self.sizes = {name: variable.size for name, variable in graph.variables.items()}
        self.inputs = [factor.inputs for factor in graph.factors]
        self.versions = _versions(graph)
        self.graph = weakref.ref(graph)
        self._labels = {
            (name, label): place
            for name, labels in graph.states.items()
            for place, label in enumerate(labels)
        }
        logs = [factor.data for factor in graph.factors]
        largest = torch.stack([each.amax() for each in logs]).tolist()
        shifts = [most if most > -math.inf else 0.0 for most in largest]
        self.offset = sum(shifts)
        self.tables = [(each - shift).exp() for each, shift in zip(logs, shifts, strict=True)]
        # An impossible entry is no small one.
        least = torch.stack([torch.where(each > -math.inf, each, math.inf).amin() for each in logs]).tolist()
        self.ranges = [Range(min(0.0, low - shift), 0.0) for low, shift in zip(least, shifts, strict=True)]
        tiny = torch.finfo(self.tables[0].dtype).tiny
        self.in_range = min(each.low for each in self.ranges) > math.log(tiny)
        """Whether all tables are right as probabilities; where they are not, only logarithms are."""
        self._patterns: OrderedDict[object, Pattern] = OrderedDict()
        self._sums: dict[tuple[int, tuple[str, ...]], float | None] = {}

    def relevant(self, observed: Collection[str], wanted: Sequence[Readout], some: Collection[str]) -> Tables:
        """The tables without those that tell nothing of what is asked (``leaves.barren``)."""
        asked = {name for each in wanted for name in ((each,) if isinstance(each, str) else each)}
        hidden = self.sizes.keys() - asked.union(observed, some)
        gone = barren(self.inputs, hidden, lambda place, over: self._sum(place, over) is not None)
        kept = [place for place in range(len(self.inputs)) if place not in gone]
        out = {name for own in gone.values() for name in own}
        return Tables(
            [self.tables[place] for place in kept],
            [self.inputs[place] for place in kept],
            [self.ranges[place] for place in kept],
            {name: size for name, size in self.sizes.items() if name not in out},
            self.offset + sum([math.log(self._sum(place, own) or 1.0) for place, own in gone.items()]),
        )

    def _sum(self, place: int, over: tuple[str, ...]) -> float | None:
        """A table summed over some of its variables, if that is the same number for all states of the others."""
        key = place, over
        if key not in self._sums:
            dims = [self.inputs[place].index(name) for name in over]
            total = self.tables[place].sum(dims)
            low, high = total.amin().item(), total.amax().item()
            alike = self.in_range and high - low <= 4 * torch.finfo(total.dtype).eps * high and low > 0.0
            self._sums[key] = 0.5 * (low + high) if alike else None
        return self._sums[key]

    @property
    def device(self) -> torch.device:
        return self.tables[0].device

    def states(self, evidence: Evidence) -> list[tuple[str, int]]:
        """Observed variables in alphabetical order with the indices of their states.

        Raises:
            EvidenceError: as ``FactorGraph.condition`` does.
        """
        found = []
        for name, value in evidence.items():
            state = self._labels.get((name, value)) if type(value) is str else value
            if type(state) is not int or not 0 <= state < self.sizes.get(name, 0):
                graph = self.graph()
                assert graph is not None
                state = resolve_evidence(graph, {name: value})[name]
                assert isinstance(state, int)  # There are no plates.
            found.append((name, state))
        return sorted(found)

    def pattern(
        self,
        observed: tuple[str, ...],
        wanted: tuple[Readout, ...],
        some: tuple[str, ...] = (),
        rows: int | None = None,
    ) -> Pattern:
        """What is made once for questions that are alike.

        Args:
            observed: the variables that are observed.
            wanted: what is to be read out.
            some: variables that are observed in some rows only.
            rows: for a table of evidence, how many rows there are at once.
        """
        with planning() as how:
            key = how, observed, wanted, some, rows
        found = self._patterns.get(key)
        if found is None:
            found = self._patterns[key] = Pattern(self, observed, wanted, some, rows)
            if len(self._patterns) > _KEPT:
                self._patterns.popitem(last=False)
        else:
            self._patterns.move_to_end(key)
        return found


class Pattern:
    """One pattern of observations: its plan, its slices, and for a small plan its flat program."""

    def __init__(
        self,
        prepared: PreparedGraph,
        observed: tuple[str, ...],
        wanted: tuple[Readout, ...],
        some: tuple[str, ...],
        rows: int | None,
    ) -> None:
        self.observed = observed
        self.some = some
        self._graph = prepared.graph
        relevant = prepared.relevant(observed, wanted, some)
        self.offset = relevant.offset
        self.in_logs = not prepared.in_range
        """Whether probabilities were once too far apart, so that sweeps are made in logarithms from then on."""
        self._row = _new_name("rows", prepared.sizes)
        self._sizes = relevant.sizes
        self._slices = [
            _slice(table, names, observed)
            for table, names in zip(relevant.tables, relevant.inputs, strict=True)
        ]
        self.plan = make_plan(self._structure(relevant, rows), wanted)
        self._one = torch.ones((), dtype=relevant.tables[0].dtype, device=prepared.device)
        self._states = [_indicators(self._sizes[name], self._one) for name in some]
        self.ranges = [
            *relevant.ranges,
            *[Range(0.0, 0.0)] * (len(some) + len(self.plan.probes)),
        ]
        self.flat = self._flat(relevant) if rows is None else None

    def _structure(self, relevant: Tables, rows: int | None) -> Structure:
        hidden = [name for name in self._sizes if name not in self.observed]
        batch = () if rows is None else (self._row,)
        factors = []
        for slice_, names in zip(self._slices, relevant.inputs, strict=True):
            kept = tuple([name for name in names if name not in self.observed])
            factors.append(FactorShape((*batch, *kept) if slice_.steps else kept))
        factors += [FactorShape((*batch, name)) for name in self.some]
        sizes = [(name, self._sizes[name]) for name in hidden]
        if rows is not None:
            sizes.append((self._row, rows))
        variables = tuple([(name, frozenset[str]()) for name in hidden])
        return Structure(tuple(factors), tuple(sizes), variables, (), batch)

    def _flat(self, relevant: Tables) -> FlatProgram | None:
        table = relevant.tables[0]
        entries, groups = self.plan.flops, len(self.plan.schedule.groups)
        quicker = entries * _FLAT_ENTRY < entries * _SWEEP_ENTRY + groups * _SWEEP_GROUP
        if not table.is_cpu or entries > _FLAT or not quicker or 100 * entries > settings.memory_limit:
            return None
        tables = [each.numpy() for each in relevant.tables]
        lows = [each.low for each in relevant.ranges]
        try:
            return FlatProgram(self.plan, tables, relevant.inputs, self._sizes, self.observed, lows)
        except TooFar:
            return None

    def fits(self, backward: bool) -> bool:
        """Whether the plan fits into ``settings.memory_limit`` as it is, not in slices."""
        return self.plan.bytes(self._one.element_size(), backward) <= settings.memory_limit_on(
            self._one.device
        )

    def solve(self, states: Mapping[str, int] | Mapping[str, Tensor]) -> Result | None:
        """The answer to one question, or to a table of them: states of what is observed, one or a column.

        ``None`` where probabilities are too far apart for anything but logarithms.
        """
        if self.in_logs:
            return None
        announce(self.plan)
        tables = [
            slice_.table if not slice_.steps else _picked(slice_, states)  # type: ignore[type-var]
            for slice_ in self._slices
        ]
        for name, indicators in zip(self.some, self._states, strict=True):
            column = states[name]
            assert isinstance(column, Tensor)
            tables.append(
                indicators.index_select(0, torch.where(column == MISSING, len(indicators) - 1, column))
            )
        sizes = dict(self.plan.structure.sizes)
        tables += [self._one.expand([sizes[each] for each in probe.inputs]) for probe in self.plan.probes]
        found = linear_sweep(self.plan, tables, self.ranges, read_out(self.plan))
        if found is None:
            self.in_logs = True
            return None
        value, shown = found
        graph = self._graph()
        assert graph is not None
        return Result(self.plan, graph, LOG_SUM_EXP, value + self.offset, shown=shown)

    def log_evidence(self, states: Sequence[int]) -> Tensor | None:
        """The log-evidence of one set of observations, the states in the order of ``observed``; ``None`` as above."""
        if not self.fits(backward=False):
            return None
        announce(self.plan)
        if self.flat is not None:
            try:
                return self._number(self.flat.log_evidence(states))
            except TooFar:
                self.flat = None
        result = self.solve(dict(zip(self.observed, states, strict=True)))
        return None if result is None else result.value

    def marginals(self, states: Sequence[int]) -> tuple[Tensor, Mapping[Readout, Tensor]] | None:
        """The log-evidence, and tables of what is to be read out; ``None`` as above."""
        if not self.fits(backward=True):
            return None
        announce(self.plan)
        if self.flat is not None:
            try:
                value, tables = self.flat.marginals(states)
            except TooFar:
                self.flat = None
            else:
                return self._number(value), FlatTables(self.flat, torch.from_numpy(tables))
        result = self.solve(dict(zip(self.observed, states, strict=True)))
        return None if result is None else (result.value, ResultTables(result))

    def _number(self, value: float) -> Tensor:
        return torch.tensor(value + self.offset, dtype=self._one.dtype)


class FlatTables(Mapping[Readout, Tensor]):
    """The marginals of a flat program, cut out of their array when they are looked at."""

    def __init__(self, program: FlatProgram, tables: Tensor) -> None:
        self._places = program.places
        self._tables = tables

    def __getitem__(self, name: Readout) -> Tensor:
        start, stop, shape = self._places[name]
        table = self._tables[start:stop]
        return table if len(shape) == 1 else table.reshape(shape)

    def __iter__(self) -> Iterator[Readout]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class ResultTables(Mapping[Readout, Tensor]):
    """The marginals of a result, read off when they are looked at."""

    def __init__(self, result: Result) -> None:
        self._result = result
        self._names = dict(result.plan.readouts)

    def __getitem__(self, name: Readout) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._result.marginal(name).probs

    def __iter__(self) -> Iterator[Readout]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def prepared_graph(graph: FactorGraph) -> PreparedGraph | None:
    """What is kept for a graph; ``None`` if it has plates or powers, or tables whose derivatives are wanted.

    There is nothing, too, while several processes share the work: plans are then cut into slices.
    """
    if current_team() is not None:
        return None
    if forward_derivatives() or transformed([factor.data for factor in graph.factors]):
        return None
    found = _kept.get(graph)
    if found is not None and found.versions == _versions(graph):
        return found
    _kept.pop(graph, None)
    if graph.plates or not graph.factors:
        return None
    for factor in graph.factors:
        if factor.scale != 1 or factor.data.requires_grad or factor.data.is_inference():
            return None
    found = _kept[graph] = PreparedGraph(graph)
    return found


_kept: weakref.WeakKeyDictionary[FactorGraph, PreparedGraph] = weakref.WeakKeyDictionary()


def _versions(graph: FactorGraph) -> list[int]:
    """Changes with every change of a table in place, and where derivatives come to be wanted."""
    return [-1 if factor.data.requires_grad else factor.data._version for factor in graph.factors]


def _slice(table: Tensor, names: Sequence[str], observed: Sequence[str]) -> _Slice:
    seen = [place for place, name in enumerate(names) if name in observed]
    if not seen:
        return _Slice(table, ())
    kept = [place for place in range(len(names)) if place not in seen]
    steps = []
    step = 1
    for place in reversed(seen):
        steps.append((names[place], step))
        step *= table.shape[place]
    rest = [table.shape[place] for place in kept]
    return _Slice(table.permute(*seen, *kept).reshape(step, *rest).contiguous(), tuple(steps))


def _picked(slice_: _Slice, states: Mapping[str, Index]) -> Tensor:
    """The entries of a table at given states: one table, or one for each row of columns."""
    (name, step), *more = slice_.steps
    index = states[name] if step == 1 else states[name] * step
    for name, step in more:
        index = index + states[name] * step
    return slice_.table[index] if isinstance(index, int) else slice_.table.index_select(0, index)


def _indicators(size: int, like: Tensor) -> Tensor:
    """For each state a table that allows it alone; then one that allows all."""
    return torch.cat([torch.eye(size, dtype=like.dtype, device=like.device), like.expand(1, size)])


def _new_name(name: str, taken: Mapping[str, object]) -> str:
    while name in taken:
        name += "'"
    return name
