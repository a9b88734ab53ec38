"""The k most probable assignments."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sumout.execute import MAX_SUM, Choice
from sumout.factors import Factor, FactorGraph
from sumout.infer.answers.readout import site_values
from sumout.infer.answers.result import BestAssignments
from sumout.infer.programs.graphs import ProgramGraph
from sumout.infer.programs.score import log_joint
from sumout.infer.queries.gathered import Gathered
from sumout.infer.queries.question import (
    Question,
    Target,
    refuse_collapsed,
    refuse_impossible,
    refuse_nan,
    refuse_scales,
    sites_of,
)
from sumout.infer.queries.runs import all_sites, log_evidence_of_runs
from sumout.infer.solving.solve import plan_for, solve
from sumout.plan import EliminationPlan

_COLLAPSED = (
    "map_assignment maximises over continuous sites, too; "
    "marginal_map finds the best states of discrete ones with the others integrated out."
)


class MixedBest(BestAssignments):
    """``BestAssignments`` of which some may lack sites.

    ``present`` has for each name which assignments have it. Where they do not, the value is NaN, or -1 for integers.
    """

    present: Mapping[str, Tensor]


def k_best(
    target: Target, k: int, *, max_plate_nesting: int | None = None, enumeration: str = "parallel"
) -> Callable[..., BestAssignments]:
    """The ``k`` most probable joint assignments of all summed-out sites, given the observations, best first.

    All possible assignments are in one region at first. A sweep with max-marginals gives a region's best assignment
    and the value of its second best, with one variable in which they differ; fixing that variable's state, or
    excluding it, splits the region in two. The region whose second best is the best of all is split next, so
    each answer after the first costs two sweeps. Assignments are distinct and exact, also where many are equally
    probable.

    Args:
        target: a program, or a ``FactorGraph``.
        k: how many.
        max_plate_nesting, enumeration: as in ``log_evidence``.

    Returns:
        A function of the program's arguments (or of ``evidence=``) that returns ``BestAssignments``: values of shape
        ``(k, *batch_shape)``, fewer than ``k`` if fewer assignments are possible, and the ``log_prob`` of each, the
        logarithm of its joint probability with the observations (differentiable). Where sites are enumerated
        sequentially, an assignment may lack some; ``present[name]`` tells which have it.

    Raises:
        ValueError: if ``k`` is not a whole number of at least 1.
        ModelError: in a model with subsampled plates or scales.
        ImpossibleEvidenceError: if the observations have probability zero.
        EnumerationError, PlanError, MemoryLimitError: as in ``log_evidence``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model():
    ...     x = sumout.sample("x", dist.Bernoulli(0.4))
    ...     sumout.sample("y", dist.Bernoulli(0.1 + 0.8 * x))
    >>> best = k_best(model, 3)()
    >>> best["x"], best["y"], best.log_prob.exp()
    (tensor([0., 1., 0.]), tensor([0., 1., 1.]), tensor([0.5400, 0.3600, 0.0600]))

    Source: Yanover and Weiss, *Finding the M most probable configurations using loopy belief propagation* (2003),
    which is exact where max-marginals are, as here; the partition is Lawler's (1972) and Nilsson's (1998).
    """
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ValueError(f"k is {k!r}: it is a whole number of at least 1.")
    question = Question(target, max_plate_nesting, enumeration)

    def query(*args: Any, **kwargs: Any) -> BestAssignments:
        runs = question.runs(args, kwargs)
        for run in runs:
            refuse_collapsed(run.trace, "The list of the best assignments", _COLLAPSED)
            refuse_scales(run.graph, "The order of assignments")
        found = [best for run in runs if (best := _of_run(run, k)) is not None]
        if not found:
            refuse_impossible(runs[0].graph, torch.tensor(-torch.inf))
        log_prob = torch.cat([each.log_prob for each in found])
        # Sums in another order may differ in the last digit: what is shown is in the order of what is shown.
        order = log_prob.detach().argsort(descending=True, stable=True)[:k]
        names = dict.fromkeys([*all_sites(runs), *[name for each in found for name in each.values]])
        together = Gathered(
            len(log_prob), [name for name in names if any(name in each.values for each in found)]
        )
        start = 0
        for each in found:
            count = len(each.log_prob)
            together.put(torch.arange(start, start + count), each.values)
            start += count
        values = {name: value[order] for name, value in together.values.items()}
        graph = runs[0].graph
        answer = MixedBest(
            values, found[0].plan, graph.states, log_prob[order], lambda: log_evidence_of_runs(runs)
        )
        answer.present = {name: rows[order] for name, rows in together.present.items()}
        return answer

    return query


class _Best(NamedTuple):
    """The best assignments of one run."""

    values: Mapping[str, Tensor]
    log_prob: Tensor
    plan: EliminationPlan


def _of_run(run: ProgramGraph, k: int) -> _Best | None:
    """``None`` if the run is impossible."""
    search = _Search(run.graph)
    found = search.run(k)
    if not found:
        return None
    choices = {
        name: Choice(torch.stack([each[name].states for each in found]), search.homes[name])
        for name in run.graph.variables
    }
    log_prob = log_joint(run.graph, choices)
    of_program = sites_of(run.trace)
    values = {
        name: site_values(of_program[name], choice) if name in of_program else choice.states
        for name, choice in choices.items()
    }
    values |= {name: site.value.expand(len(found), *site.value.shape) for name, site in run.sites.items()}
    return _Best(values, log_prob, search.plan)


class _Region(NamedTuple):
    """Assignments that have some states and lack others, as log-tables of zeros and ``-inf`` for each variable."""

    masks: Mapping[str, Tensor]
    best: Mapping[str, Choice]
    second: float
    """The value of the second best assignment, which ``name`` at ``place`` (plates, then state) tells apart."""
    name: str
    place: tuple[int, ...]


class _Search:
    def __init__(self, graph: FactorGraph) -> None:
        self.homes = {name: tuple(sorted(variable.plates)) for name, variable in graph.variables.items()}
        self.graph = graph
        self.fixed = tuple([replace(factor, data=factor.data.detach()) for factor in graph.factors])
        self.like = self.fixed[0].data if self.fixed else torch.zeros(())
        self.open = self._masks()
        self.plan: EliminationPlan = plan_for(self._within(self.open), tuple(graph.variables), backward=True)

    def run(self, k: int) -> list[Mapping[str, Choice]]:
        """The best assignments, at most ``k``; an empty graph has one, an impossible one none."""
        first = self._region(self.open)
        if first is None:
            return []
        found = [first.best]
        number = itertools.count()  # Regions are not compared.
        regions = [(-first.second, next(number), first)]
        while len(found) < k and regions[0][0] < torch.inf:
            _, _, region = heapq.heappop(regions)
            mask = region.masks[region.name]
            without = mask.clone()
            without[region.place] = -torch.inf
            only = mask.clone()
            only[region.place[:-1]] = -torch.inf
            only[region.place] = 0.0
            inside = self._region({**region.masks, region.name: only})
            outside = self._region({**region.masks, region.name: without})
            assert inside is not None
            assert outside is not None
            found.append(inside.best)
            for each in (inside, outside):
                heapq.heappush(regions, (-each.second, next(number), each))
        return found

    def _masks(self) -> dict[str, Tensor]:
        sizes = dict(self.graph.structure.sizes)
        return {
            name: self.like.new_zeros([sizes[each] for each in (*home, name)])
            for name, home in self.homes.items()
        }

    def _within(self, masks: Mapping[str, Tensor]) -> FactorGraph:
        """The graph with a factor for each variable that says which states are in the region."""
        factors = [
            Factor(f"region of {name}", (*self.homes[name], name), mask, frozenset(self.homes[name]))
            for name, mask in masks.items()
        ]
        return FactorGraph((*self.fixed, *factors), self.graph.variables, self.graph.plates)

    def _region(self, masks: Mapping[str, Tensor]) -> _Region | None:
        """Looks for the best of a region, and for the second best; ``None`` if it is impossible."""
        result = solve(self._within(masks), MAX_SUM, plan=self.plan)
        refuse_nan(self.graph, result.value)
        if result.value == -torch.inf:
            return None
        best = result.assignment if masks else {}
        if not masks:
            return _Region(masks, best, -torch.inf, "", ())
        tables = []
        for name in masks:
            others = result.marginal(name).probs.clone()
            others.scatter_(-1, best[name].states.unsqueeze(-1), -torch.inf)
            tables.append(others.reshape(-1))
        second, place = (each.item() for each in torch.cat(tables).max(0))
        for name, table in zip(masks, tables, strict=True):
            if place < len(table):
                shape = masks[name].shape
                index = tuple(int(each) for each in torch.unravel_index(torch.tensor(place), shape))
                return _Region(masks, best, second, name, index)
            place -= len(table)
        raise AssertionError("the place is in one of the tables")
