"""A plan that does not fit into memory, run once for each joint state of some variables.

The answer is the sum (or the maximum) over the slices. A table of probabilities is the mean of the slices' tables,
weighted by their shares of the sum; for that every slice runs once and nothing of it is kept. Gradients run them again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sumout.execute import MAX_SUM, Choice, Marginal, Result, Samples, Semiring, execute
from sumout.execute import sample as execute_sample
from sumout.execute.execute import execute_ahead
from sumout.execute.transforms import derivatives, forward_derivatives, transformed
from sumout.factors import FactorGraph
from sumout.infer.solving.slice_table import SliceTable, State
from sumout.infer.solving.spread import Team, current_team
from sumout.plan import EliminationPlan, Readout


class Slices:
    """A sliced plan and the graph that it is run on.

    Args:
        plan: one with ``sliced`` variables.
        graph: the graph of which the plan's slices are conditions.
        semiring: ``LOG_SUM_EXP`` or ``MAX_SUM``.
        readouts: what is to be read out, the variables that are fixed included.
        beliefs: whether the beliefs of all factors are wanted.
    """

    def __init__(
        self,
        plan: EliminationPlan,
        graph: FactorGraph,
        semiring: Semiring,
        readouts: Sequence[Readout] = (),
        beliefs: bool = False,
    ) -> None:
        self.plan, self.graph, self.semiring, self.beliefs = plan, graph, semiring, beliefs
        self.team = current_team()
        self.readouts = tuple(readouts)
        self.tables = [self._table(each) for each in readouts]
        if beliefs:
            self.tables += [
                SliceTable(factor.inputs, tuple(factor.data.shape), number)
                for number, factor in enumerate(graph.factors)
            ]

    def _table(self, wanted: Readout) -> SliceTable:
        names = (wanted,) if isinstance(wanted, str) else wanted
        fixed = dict(self.plan.sliced)
        plates = sorted({plate for name in names for plate in self.graph.variables[name].plates})
        left = tuple([name for name in names if name not in fixed])
        dims = (*plates, *names)
        source: Readout | None = None
        if left:
            source = wanted if isinstance(wanted, str) else left
        return SliceTable(dims, tuple([self.graph.size(each) for each in dims]), source)

    def states(self) -> Iterator[State]:
        """Every joint state of the variables that are fixed."""
        names = [name for name, _ in self.plan.sliced]
        for state in itertools.product(*[range(size) for _, size in self.plan.sliced]):
            yield dict(zip(names, state, strict=True))

    def own_states(self) -> Iterator[State]:
        """Those of this process: all, unless the slices are spread."""
        if self.team is None:
            return self.states()
        return itertools.islice(self.states(), self.team.rank, None, self.team.size)

    def at(self, tables: Sequence[Tensor], state: State) -> FactorGraph:
        """The graph of one slice."""
        factors = tuple(
            [replace(factor, data=data) for factor, data in zip(self.graph.factors, tables, strict=True)]
        )
        return FactorGraph(factors, self.graph.variables, self.graph.plates).condition(state)

    def run_one(self, tables: Sequence[Tensor], state: State) -> Result:
        """One slice, by itself."""
        return execute(self.plan, self.at(tables, state), self.semiring, beliefs=self.beliefs)

    def run_all(self, tables: Sequence[Tensor], states: Iterable[State]) -> Iterator[tuple[State, Result]]:
        """One slice after the other, of tables whose derivatives are not wanted.

        What is the same in all of them is computed once; on the way back they pass through it one by one.
        """
        ahead, first = None, True
        for state in states:
            graph = self.at(tables, state)
            if first:
                ahead = execute_ahead(self.plan, graph, self.semiring, beliefs=self.beliefs)
                first = False
            yield state, execute(self.plan, graph, self.semiring, beliefs=self.beliefs, ahead=ahead)

    def read(self, result: Result) -> list[Tensor]:
        """What a slice gives for each of ``tables``."""
        found = []
        for table in self.tables:
            if table.source is None:
                # Of variables that are fixed, the best with their states is the best of the slice.
                found.append(result.value if self.maximum else torch.ones_like(result.value))
            elif isinstance(table.source, int):
                found.append(result.beliefs[table.source])
            else:
                found.append(result.marginal(table.source).probs)
        return found

    @property
    def maximum(self) -> bool:
        """Whether slices are compared and not added up."""
        return self.semiring == MAX_SUM

    def solve(self) -> tuple[Tensor, dict[Readout, Marginal], tuple[Tensor, ...]]:
        """The answer, the readouts, and the beliefs of all factors if they were asked for."""
        data = [factor.data for factor in self.graph.factors]
        wants_grad = torch.is_grad_enabled() and any(each.requires_grad for each in data)
        if forward_derivatives() or transformed(data) or (wants_grad and self.maximum and self.tables):
            value, *found = self.at_once(data)
        elif wants_grad and self.maximum:
            # A maximum has the derivative of the slice that has it.
            value, found = self.run_one(data, self.best_state(data)).value, []
        elif wants_grad:
            value, *found = _SumOfSlices.apply(self, *data)  # type: ignore[no-untyped-call]
        else:
            value, *found = self.add_up(data)
        marginals = {
            wanted: self._marginal(wanted, table) for wanted, table in zip(self.readouts, found, strict=False)
        }
        return value, marginals, tuple(found[len(self.readouts) :])

    def _marginal(self, wanted: Readout, table: Tensor) -> Marginal:
        names = (wanted,) if isinstance(wanted, str) else wanted
        plates = sorted({plate for name in names for plate in self.graph.variables[name].plates})
        return Marginal(table, tuple(plates))

    def add_up(self, data: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The answer and all tables, slice by slice; the tables are sums weighted by ``exp(value - greatest)``."""
        like = data[0]
        empty = -torch.inf if self.maximum else 0.0
        whole = [like.new_full(table.shape, empty) for table in self.tables]
        greatest, share = like.new_full((), -torch.inf), like.new_zeros(())
        with torch.no_grad():
            for state, result in self.run_all([each.detach() for each in data], self.own_states()):
                value = result.value
                if value == -torch.inf:
                    continue
                parts = self.read(result)
                if self.maximum:
                    greatest = torch.maximum(greatest, value)
                    for table, full, part in zip(self.tables, whole, parts, strict=True):
                        view = table.part(full, state)
                        view.copy_(torch.maximum(view, part))
                    continue
                shift = torch.maximum(greatest, value)
                old, new = (greatest - shift).exp(), (value - shift).exp()
                greatest, share = shift, share * old + new
                for table, full, part in zip(self.tables, whole, parts, strict=True):
                    full *= old
                    table.part(full, state).add_(part * new)
            if self.team is not None:
                greatest, share = self._of_the_team(self.team, greatest, share, whole)
        if self.maximum:
            return greatest, *whole
        total = torch.where(share > 0, share, 1.0)
        return greatest + share.log(), *[full / total for full in whole]

    def _of_the_team(
        self, team: Team, greatest: Tensor, share: Tensor, whole: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Puts together, in place, what all processes have found."""
        if self.maximum:
            for each in whole:
                team.greatest(each)
            return team.greatest(greatest), share
        own, greatest = greatest, team.greatest(greatest.clone())
        scale = torch.where(own > -torch.inf, (own - greatest).exp(), 0.0)
        for each in whole:
            team.total(each.mul_(scale))
        return greatest, team.total(share * scale)

    def at_once(self, data: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The same with all slices kept, so that it can be differentiated again and again, and in all ways."""
        results = [(state, self.run_one(data, state)) for state in self.states()]
        results = [(state, result) for state, result in results if result.value > -torch.inf]
        if not results:
            return self.add_up(data)
        values = torch.stack([result.value for _, result in results])
        if self.maximum:
            parts = [(state, self.read(result)) for state, result in results]
            return values.amax(), *[
                torch.stack([table.placed(each[place], state, -torch.inf) for state, each in parts]).amax(0)
                for place, table in enumerate(self.tables)
            ]
        value = torch.logsumexp(values, 0)
        whole = [value.new_zeros(table.shape) for table in self.tables]
        for state, result in results:
            share = (result.value - value).exp()
            whole = [
                full + table.placed(part * share, state)
                for table, full, part in zip(self.tables, whole, self.read(result), strict=True)
            ]
        return value, *whole

    def gradients(
        self, data: Sequence[Tensor], outputs: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """The derivatives of ``add_up``, slice by slice: each runs again, and nothing of it is kept."""
        value, whole, (of_value, *of_tables) = outputs[0], outputs[1:], grads
        total: list[Tensor | None] = [None] * len(data)
        wanted = [place for place, each in enumerate(data) if each.requires_grad]
        for state in self.own_states():
            leaves = [each.detach().requires_grad_(each.requires_grad) for each in data]
            with torch.enable_grad():
                result = self.run_one(leaves, state)
                if result.value == -torch.inf:
                    continue
                share = (result.value.detach() - value).exp()
                weight, outer = of_value * share, result.value.new_zeros(())
                for table, full, part, grad in zip(
                    self.tables, whole, self.read(result), of_tables, strict=True
                ):
                    here = table.part(grad, state)
                    inner = (here * part).sum()
                    weight = weight + share * (inner.detach() - (grad * full).sum())
                    outer = outer + share * inner
                objective = weight * result.value + outer
                found = torch.autograd.grad(objective, [leaves[place] for place in wanted], allow_unused=True)
            for place, each in zip(wanted, found, strict=True):
                if each is not None:
                    before = total[place]
                    total[place] = each if before is None else before + each
        if self.team is not None:
            for place in wanted:
                found_here = total[place]
                total[place] = self.team.total(
                    torch.zeros_like(data[place]) if found_here is None else found_here.contiguous()
                )
        return total

    def best_state(self, data: Sequence[Tensor]) -> State:
        """The slice with the largest maximum."""
        states = list(self.states())
        return states[int(self._values(data, states).argmax())]

    def _values(self, data: Sequence[Tensor], states: Sequence[State]) -> Tensor:
        """The answer of each slice."""
        values = data[0].new_full((len(states),), -torch.inf)
        step = slice(None) if self.team is None else slice(self.team.rank, None, self.team.size)
        numbers = range(len(states))[step]
        with torch.no_grad():
            results = self.run_all(data, [states[number] for number in numbers])
            for number, (_, result) in zip(numbers, results, strict=True):
                values[number] = result.value
        return values if self.team is None else self.team.greatest(values)

    def assignment(self) -> dict[str, Choice]:
        """A best assignment of all variables."""
        data = [factor.data.detach() for factor in self.graph.factors]
        state = self.best_state(data)
        found = dict(self.run_one(data, state).assignment)
        device = data[0].device
        for name, index in state.items():
            found[name] = Choice(torch.tensor(index, device=device), ())
        return found

    def sample(self, count: int, generator: torch.Generator | None = None) -> Samples:
        """Draws slices in proportion to their sums, then from each as many assignments as it was drawn."""
        data = [factor.data.detach() for factor in self.graph.factors]
        states = list(self.states())
        values = self._values(data, states)
        total = torch.logsumexp(values, 0)
        if not total.isfinite():
            return Samples(total, {}, values.new_zeros(0))
        logs = (values - total).double()
        chosen = torch.multinomial(logs.exp(), count, replacement=True, generator=generator)
        choices: dict[str, list[Tensor]] = {}
        plates: dict[str, tuple[str, ...]] = {}
        log_prob, places = [], []
        for number in sorted(set(chosen.tolist())):
            here = (chosen == number).nonzero().squeeze(-1)
            drawn = self._drawn(data, states[number], len(here), generator)
            places.append(here)
            log_prob.append(drawn.log_prob + logs[number].to(drawn.log_prob.dtype))
            for name, choice in drawn.choices.items():
                choices.setdefault(name, []).append(choice.states)
                plates[name] = choice.plates
        order = torch.cat(places).argsort()
        joined = {name: Choice(torch.cat(parts)[order], plates[name]) for name, parts in choices.items()}
        return Samples(total, joined, torch.cat(log_prob)[order])

    def _drawn(
        self, data: Sequence[Tensor], state: State, count: int, generator: torch.Generator | None
    ) -> Samples:
        drawn = execute_sample(self.plan, self.at(data, state), count, generator)
        fixed = {
            name: Choice(torch.full((count,), index, device=data[0].device), ())
            for name, index in state.items()
        }
        return drawn._replace(choices={**drawn.choices, **fixed})


class _SumOfSlices(torch.autograd.Function):
    """All slices as one node of the autograd graph, so that only one of them is in memory at a time."""

    @staticmethod
    def forward(ctx: Any, slices: Slices, *data: Tensor) -> tuple[Tensor, ...]:
        outputs = slices.add_up(data)
        ctx.slices, ctx.factors = slices, len(data)
        ctx.save_for_backward(*data, *outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        data, outputs = ctx.saved_tensors[: ctx.factors], ctx.saved_tensors[ctx.factors :]
        if not torch.is_grad_enabled():
            return None, *ctx.slices.gradients(data, outputs, grads)
        data = [each.view_as(each) for each in data]  # One tensor may be the table of several factors.
        again = ctx.slices.at_once(data)
        return None, *derivatives(again, grads, data, create_graph=True)
