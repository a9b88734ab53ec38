"""What all heuristics begin with, computed once for a contraction and then shared by them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

from sumout.plan.contraction import Contraction, follow
from sumout.plan.cost import Machine
from sumout.plan.interaction import Interaction, Key, Reduced, one_by_one, reduced
from sumout.plan.problem import Problem, bits

_TRIES = 16
_TRIED = 1500
"""At most so many orders with noise are tried, and so many choices made in them, each counted for as many variables as
the largest clique has: what fits into two milliseconds."""


class Line(NamedTuple):
    """An elimination order and its cliques: the entries of all, the log-sizes of the largest one and of the largest
    message, and the most variables of one."""

    order: list[int]
    total: float
    largest: int
    message: int
    widest: int


def weight(graph: Interaction, variable: int) -> Key:
    """The clique's table."""
    return graph.weight[variable]


def fill(graph: Interaction, variable: int) -> Key:
    """The edges that are added; the smaller table breaks ties."""
    return graph.fill[variable], graph.weight[variable]


def noisy_fill(seed: int, amount: float) -> Callable[[Interaction, int], Key]:
    """``fill`` times ``1 + amount * x``, where each ``x`` is exponentially distributed."""
    draw, log = random.Random(seed).random, math.log
    return lambda graph, each: (graph.fill[each] * (1.0 - amount * log(1.0 - draw())), graph.weight[each])


class Opening:
    """A problem and what is known of it.

    Attributes:
        machine: the rates by which contractions are compared.
        bound: seconds above which one is of no interest any more.
        incumbent: the best contraction so far, if any was finished.
    """

    def __init__(self, problem: Problem, machine: Machine) -> None:
        self.problem = problem
        self.machine = machine
        self.bound = math.inf
        self.incumbent: Contraction | None = None

    def seconds(self, contraction: Contraction) -> float:
        """About how long a finished contraction takes."""
        return self.machine.seconds(contraction.flops, contraction.entries, contraction.launching)

    def hopeless(self, flops: float, entries: float = 0.0, launches: float = 0) -> bool:
        """Whether so many are too many, whatever comes on top of them."""
        return not self.machine.seconds(flops, entries, launches) <= self.bound

    @cached_property
    def graph(self) -> Interaction:
        """The interaction graph; to be copied before it is changed."""
        return Interaction(self.problem)

    @cached_property
    def reduced(self) -> Reduced:
        """The graph after its safe eliminations; to be copied before it is changed."""
        return reduced(self.graph.copy())

    def line(self, key: Callable[[Interaction, int], Key], bound: float = math.inf) -> Line | None:
        """The order of a key function, after the safe eliminations; ``None`` if its cliques pass the bound."""
        first, graph = self.reduced.first, self.reduced.graph.copy()
        rest = one_by_one(graph, key, bound)
        if rest is None:
            return None
        return Line([*first, *rest], graph.total, graph.largest, graph.message, graph.widest)

    @cached_property
    def by_fill(self) -> Line:
        """The order of fewest new edges."""
        return sure(self.line(fill))

    @cached_property
    def by_weight(self) -> Line:
        """The order of smallest cliques."""
        return sure(self.line(weight))

    @cached_property
    def best(self) -> Line:
        """The best of the two and of some by fill with noise: the more, the fewer choices there are.

        The same problem is given the same noise.
        """
        best = self.by_fill
        choices = self.reduced.graph.left.bit_count()
        if choices:
            best = self.line(weight, best.total) or best
        key = noisy_fill(0, 0.3)
        # Where launches are all that counts, a search for fewer flops is not worth its time.
        worth = 10.0 * self.machine.seconds(best.total, 0.0, 0) > self.machine.seconds_per_launch
        for _ in range(min(_TRIES, _TRIED // (choices * best.widest)) if choices > 3 and worth else 0):
            best = self.line(key, best.total) or best
        return best

    def follow(self, line: Line) -> Contraction:
        """The contraction of an order."""
        return follow(self.problem, line.order)

    @property
    def ceiling(self) -> int:
        """The log-size of the largest clique of the best order, times the largest variable: a bound of tables."""
        return self.best.largest + max(self.problem.logs, default=0)

    @cached_property
    def _absorbed(self) -> Contraction:
        """One that has multiplied operands into others that have all their variables.

        They are spread evenly over those, and no product is larger than the ``ceiling``.
        """
        contraction = Contraction(self.problem)
        host_of = self._hosts(contraction)
        guests: dict[int, list[int]] = {}
        for guest, host in host_of.items():
            while host in host_of:
                host = host_of[host]
            guests.setdefault(host, []).append(guest)
        for host, those in guests.items():
            contraction.multiply_all(
                [host, *those]
            )  # Nothing was multiplied before, so a slot is an operand.
        return contraction

    def _hosts(self, contraction: Contraction) -> dict[int, int]:
        problem, users, scopes, ceiling = self.problem, contraction.users, contraction.scopes, self.ceiling
        taken = [0] * len(scopes)
        local = [scope & ~problem.keep for scope in scopes]
        degree = [scope.bit_count() for scope in local]
        logs = list(map(problem.log_size, scopes))
        host_of: dict[int, int] = {}
        for number in sorted(range(len(scopes)), key=degree.__getitem__):
            if not local[number]:
                continue
            wider = [
                (taken[other], other)
                for other in set.intersection(*[users[each] for each in bits(local[number])])
                if degree[other] > degree[number]
                and logs[other] + problem.log_size(scopes[number] & problem.keep & ~scopes[other]) <= ceiling
            ]
            if wider:
                host = min(wider)[1]
                taken[host] += 1
                host_of[number] = host
        return host_of

    def absorbed(self) -> Contraction:
        """A contraction that has multiplied operands into others that have all their variables, to be gone on with."""
        return self._absorbed.copy()


def sure(line: Line | None) -> Line:
    """The order that there is where no bound was set."""
    assert line is not None
    return line
