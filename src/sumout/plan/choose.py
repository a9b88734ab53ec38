"""Which paths to take: every heuristic is tried on every contraction of an outline, and the cheapest is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sumout.plan.contraction import Contraction, launching
from sumout.plan.cost import Machine
from sumout.plan.opening import Opening
from sumout.plan.orders import BATCHING, ORDERS, greedy
from sumout.plan.outline import Contract, Outline
from sumout.plan.problem import Problem
from sumout.plan.refine import refined

Paths = Mapping[int, Contraction]
"""A finished contraction for each problem, by ``id``: the outline holds equal problems as one."""


class Considered(NamedTuple):
    """A way of ordering that was tried, and what the cost model said of it."""

    order: str
    seconds: float
    flops: float
    launches: int


@dataclass(frozen=True)
class Choice:
    """The paths that won, the name of what found them, and all that was considered."""

    order: str
    paths: Paths
    considered: tuple[Considered, ...]
    safe: int
    """How many variables all orders eliminated first, because none does better."""


class Occurrence(NamedTuple):
    """A contraction, how often it occurs, and the levels at which it does.

    A stage's level is its place in the longest chain of stages that it needs.
    """

    problem: Problem
    times: int
    levels: frozenset[int]


def occurrences(outline: Outline, factors: int) -> dict[int, Occurrence]:
    """The different contractions of an outline by their ``id``, in the order of their first stages."""
    found: dict[int, Occurrence] = {}
    level = [0] * len(outline.dims)
    for node, stage in enumerate(outline.stages, start=factors):
        args = stage.args if isinstance(stage, Contract) else (stage.arg,)
        level[node] = 1 + max([level[arg] for arg in args])
        if isinstance(stage, Contract) and stage.problem is not None:
            key = id(stage.problem)
            _, count, levels = found.get(key, (stage.problem, 0, frozenset()))
            found[key] = Occurrence(stage.problem, count + 1, levels | {level[node]})
    return found


class Chooser:
    """Compares ways of ordering the contractions of one outline."""

    def __init__(self, problems: Mapping[int, Occurrence], machine: Machine) -> None:
        self.machine = machine
        self.problems = problems
        self.openings = {key: Opening(each.problem, machine) for key, each in problems.items()}
        self.best: Paths | None = None
        self.order = ""
        self.considered: list[Considered] = []

    @property
    def only_one(self) -> bool:
        """Whether there is nothing to choose: no contraction has more than two operands."""
        return all(len(problem.operands) < 3 for problem, _, _ in self.problems.values())

    def judge(self, order: str, paths: Paths) -> float:
        """Costs a candidate, and keeps it if it is the best so far."""
        flops = entries = 0.0
        launches: set[tuple[object, ...]] = set()
        repeats: set[tuple[object, ...]] = set()
        for key, (_, count, levels) in self.problems.items():
            contraction = paths[key]
            flops += count * contraction.flops
            entries += count * contraction.entries
            for each in levels:
                launches.update([(each, launch) for launch in contraction.launches])
                repeats.update([(each, launch) for launch in contraction.repeats])
        seconds = self.machine.seconds(flops, entries, launching(launches, repeats))
        if math.isnan(seconds):
            seconds = math.inf  # Of sizes that a float does not hold.
        if self.best is None or seconds < self.seconds:
            self.best, self.order = paths, order
            for key, opening in self.openings.items():
                opening.bound, opening.incumbent = seconds, paths[key]
        self.considered.append(Considered(order, seconds, flops, len(launches)))
        return seconds

    @property
    def seconds(self) -> float:
        """What the best candidate is estimated to take."""
        return min([each.seconds for each in self.considered], default=math.inf)

    def _worth_batching(self) -> bool:
        """Whether better batches could save a quarter of the time: of the same steps, as few as there are kinds."""
        assert self.best is not None
        saved = 0
        for key in self.problems:
            launches = self.best[key].launches
            saved += len(launches) - len({launch[1:] for launch in launches})
        return 4 * saved * self.machine.seconds_per_launch > self.seconds

    def alone(self, contraction: Contraction) -> float:
        """The seconds of one contraction by itself."""
        return self.machine.seconds(contraction.flops, contraction.entries, contraction.launching)

    def try_orders(self, orders: Iterable[str]) -> None:
        """Tries heuristics by name, then a mixture of the best for each contraction."""
        found: dict[str, Paths] = {}
        for order in orders:
            if order in BATCHING and self.best is not None and not self._worth_batching():
                continue
            paths = {key: ORDERS[order](opening) for key, opening in self.openings.items()}
            offered = {key: each for key, each in paths.items() if each is not None}
            if offered or not paths:
                rest = {} if len(offered) == len(paths) else self.best or self._greedy()
                found[order] = {**rest, **offered}
                self.judge(order, found[order])
            if self.only_one and found:
                return
        if not found:
            self.judge("greedy", self._greedy())
        elif len(found) > 1 and len(self.problems) > 1:
            mixed = {
                key: min([paths[key] for paths in found.values()], key=self.alone) for key in self.problems
            }
            self.judge("mixed", mixed)

    def _greedy(self) -> Paths:
        return {key: greedy(opening) for key, opening in self.openings.items()}

    def refine(self, leaves: int = 5, parts: int = 50) -> None:
        """Tries the best paths so far with their costliest parts rearranged, unless launches are most of the cost."""
        assert self.best is not None
        paths = dict(self.best)
        quarter = 0.25 * self.seconds
        for key, (_, count, _) in self.problems.items():
            contraction = paths[key]
            saved = self.machine.seconds(count * contraction.flops, count * contraction.entries, 0)
            if saved > max(self.machine.seconds_per_launch, quarter / len(self.problems)):
                paths[key] = refined(contraction, leaves, parts)
        if any(paths[key] is not self.best[key] for key in paths):
            self.judge(f"{self.order}, refined", paths)

    def search(
        self, order: str, find: Callable[[Opening, float], Iterator[Contraction]], seconds: float
    ) -> None:
        """Tries what a search finds for each contraction, which is given time by its share of the cost."""
        paths = dict(self.best or self._greedy())
        cost = {key: each.times * paths[key].flops for key, each in self.problems.items()}
        whole = sum(cost.values())
        offered = False
        for key, (problem, _, _) in self.problems.items():
            if len(problem.operands) > 2:
                share = cost[key] / whole if 0.0 < whole < math.inf else 1.0 / len(cost)
                for found in find(self.openings[key], share * seconds):
                    offered = True
                    if self.best is None or self.alone(found) < self.alone(paths[key]):
                        paths[key] = found
        if offered or self.best is None:
            self.judge(order if offered else "greedy", paths)

    def choice(self) -> Choice:
        """What has won."""
        assert self.best is not None
        safe = sum(
            [
                count * len(self.openings[key].reduced.first)
                for key, (problem, count, _) in self.problems.items()
                if len(problem.operands) > 2
            ]
        )
        return Choice(self.order, self.best, tuple(self.considered), safe)
