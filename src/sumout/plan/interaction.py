"""The interaction graph: variables of one operand are neighbours, and eliminating one joins its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from sumout.plan.problem import Problem, bits, entries

_MANY = 150
"""New edges, from which on they are counted together."""

Key = float | tuple[float, ...]


class Interaction:
    """The graph in the middle of an elimination.

    Attributes:
        left: the variables that are still to be eliminated, as bits.
        near: the neighbours of each variable, as bits.
        weight: the log-size of each variable's clique: itself and its neighbours.
        fill: how many pairs of its neighbours are not neighbours yet.
        total: the entries of all cliques that were met so far: about the flops.
        largest: the log-size of the largest of them.
        message: the log-size of the largest clique without the variable that was eliminated with it.
        widest: the most variables of a clique.
    """

    def __init__(self, problem: Problem) -> None:
        count = len(problem.sizes)
        self.logs = problem.logs
        self.near = [0] * count
        for mask in set(problem.operands):
            for each in bits(mask):
                self.near[each] |= mask
        self.left = ((1 << count) - 1) & ~problem.keep
        self.weight = [problem.log_size(mask) for mask in self.near]
        self.near = [mask & ~(1 << each) for each, mask in enumerate(self.near)]
        self.fill = [self._missing(mask) for mask in self.near]
        self.total = 0.0
        self.largest = self.message = self.widest = 0

    def _missing(self, around: int) -> int:
        near = self.near
        degree = around.bit_count()
        present = sum([(near[each] & around).bit_count() for each in bits(around)])
        return (degree * (degree - 1) - present) // 2

    def copy(self) -> Interaction:
        """Another graph in the same state."""
        twin = object.__new__(Interaction)
        twin.logs, twin.left = self.logs, self.left
        twin.total, twin.largest, twin.message = self.total, self.largest, self.message
        twin.widest = self.widest
        twin.near, twin.weight, twin.fill = self.near[:], self.weight[:], self.fill[:]
        return twin

    def eliminate(self, variable: int) -> int:
        """Takes a variable out and joins its neighbours; returns those whose weight or fill is another now."""
        near, weight, fill = self.near, self.weight, self.fill
        bit, around, own = 1 << variable, near[variable], self.logs[variable]
        self.left &= ~bit
        self.total += entries(weight[variable])
        self.largest = max(self.largest, weight[variable])
        self.message = max(self.message, weight[variable] - own)
        outside = ~(around | bit)
        neighbours = bits(around)
        self.widest = max(self.widest, 1 + len(neighbours))
        for each in neighbours:
            mask = near[each]
            fill[each] -= (mask & outside).bit_count()
            near[each] = mask ^ bit
            weight[each] -= own
        if fill[variable] == 0:
            return around
        join = self._join if fill[variable] < _MANY else self._join_many
        return join(neighbours, around)

    def _join(self, neighbours: list[int], around: int) -> int:
        near, weight, fill, logs = self.near, self.weight, self.fill, self.logs
        changed = around
        for one in neighbours:
            bit = 1 << one
            mine = near[one]
            lacking = around & ~mine & ~((bit << 1) - 1)  # Each pair once: from its lower end.
            while lacking:
                low = lacking & -lacking
                lacking ^= low
                other = low.bit_length() - 1
                theirs = near[other]
                common = mine & theirs
                changed |= common
                while common:
                    lowest = common & -common
                    common ^= lowest
                    fill[lowest.bit_length() - 1] -= 1
                fill[one] += (mine & ~theirs).bit_count()
                fill[other] += (theirs & ~mine).bit_count()
                weight[one] += logs[other]
                weight[other] += logs[one]
                near[other] = theirs | bit
                mine |= low
            near[one] = mine
        return changed

    def _join_many(self, neighbours: list[int], around: int) -> int:
        """The same: looking at all again is quicker than at each new edge where there are many."""
        near, weight, fill, logs = self.near, self.weight, self.fill, self.logs
        changed = around
        for each in neighbours:
            changed |= near[each]
        for each in neighbours:
            added = around & ~near[each] & ~(1 << each)
            near[each] |= added
            weight[each] += sum([logs[other] for other in bits(added)])
        for each in bits(changed):
            fill[each] = self._missing(near[each])
        return changed


class Reduced(NamedTuple):
    """The variables that every order may eliminate first, and the graph that is left then."""

    first: list[int]
    graph: Interaction


def reduced(graph: Interaction) -> Reduced:
    """Eliminates, in place, what no order does better later.

    Simplicial variables, whose neighbours are neighbours already; and where none is left, series variables, which
    have two neighbours and no fewer states than one of them (Eijkhof, Bodlaender and Koster 2007, "Safe reduction
    rules for weighted treewidth"). In rounds, no two neighbours in one: a chain is worked off from both ends, and a
    tree from all its leaves.
    """
    first: list[int] = []

    def eliminate(candidates: Iterable[int]) -> int:
        changed = 0
        for each in candidates:
            if not changed >> each & 1:
                changed |= graph.eliminate(each)
                first.append(each)
        return changed & graph.left

    todo = graph.left
    while True:
        simplicial = [each for each in bits(todo) if graph.fill[each] == 0]
        if simplicial:
            todo = eliminate(simplicial)
            continue
        todo = eliminate([each for each in bits(graph.left) if _in_series(graph, each)])
        if not todo:
            return Reduced(first, graph)


def _in_series(graph: Interaction, variable: int) -> bool:
    around = graph.near[variable]
    if around.bit_count() != 2:
        return False
    one, other = bits(around)
    return graph.logs[variable] >= min(graph.logs[one], graph.logs[other])


def one_by_one(
    graph: Interaction, key: Callable[[Interaction, int], Key], bound: float = float("inf")
) -> list[int] | None:
    """Eliminates, in place, the variable of the lowest key until none is left.

    Among equals the one goes first whose key has stood for longest: its operands have been ready for longest.

    Args:
        graph: what is left.
        key: what a variable costs in the graph's present state.
        bound: gives up, and returns ``None``, when the cliques have more entries than this.
    """
    keys = {each: key(graph, each) for each in bits(graph.left)}
    heap = [(of_each, 0, each) for each, of_each in keys.items()]
    heapify(heap)
    order: list[int] = []
    while heap:
        of_variable, _, variable = heappop(heap)
        if keys.get(variable) != of_variable:
            continue  # Its key has changed since, and it stands in the heap again.
        del keys[variable]
        order.append(variable)
        changed = graph.eliminate(variable) & graph.left
        if graph.total > bound:
            return None
        for each in bits(changed):
            of_each = key(graph, each)
            if keys[each] != of_each:
                keys[each] = of_each
                heappush(heap, (of_each, len(order), each))
    return order
