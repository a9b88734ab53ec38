"""Which steps run together: steps that have the same shape and can run at the same time become one batched operation.

Steps are alike when the dimensions that play each part in them (kept by both operands, by one, summed out) have the
same sizes, whatever their names and order; they form a group, whose tables are stacked along a new first dimension.
A step may wait for others that are alike: groups are formed as late as the longest way to the answer allows (agenda
batching; Neubig, Goldberg and Dyer 2017, "On-the-fly operation batching in dynamic computation graphs").
A chain in balanced order thus becomes a parallel scan, with nothing made for chains.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from sumout.plan.eliminate import Elimination, Step
from sumout.plan.groups import Group, Names, Rows, Schedule

_MOST_ENTRIES = 2**24
"""Of a group's joint tables. A launch costs nothing beside so many, and they should not all be alive at once."""


class _Parts(NamedTuple):
    """A step whose dimensions are sorted by the part they play."""

    step: Step
    args: tuple[Names, ...]
    blocks: tuple[tuple[int, ...], ...]

    @property
    def entries(self) -> int:
        """Of the tables that the step reads and writes."""
        return math.prod(itertools.chain(*self.blocks))


class _Sorter:
    """Brings a step's dimensions into an order that depends on their sizes alone.

    The sort is stable, so that tables keep their order, and are not copied, where sizes are equal.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.size = sizes.__getitem__

    def parts(self, step: Step, dims: Sequence[Names]) -> _Parts:
        """The step by its parts; ``dims`` are those of all nodes, in their order."""
        if step.kind == "contract":
            return self._contraction(step, dims[step.args[0]], dims[step.args[1]])
        names = dims[step.args[0]]
        kept, of_kept = self._block([each for each in names if each not in step.over])
        gone, of_gone = self._block([each for each in names if each in step.over])
        sorted_step = Step(step.kind, step.args, step.over, kept, step.times, step.maximum)
        return _Parts(sorted_step, ((*kept, *gone),), (of_kept, of_gone))

    def _contraction(self, step: Step, lhs: Names, rhs: Names) -> _Parts:
        args, over = step.args, step.over
        batch_of: list[str] = []
        left_of: list[str] = []
        summed_of: list[str] = []
        for each in lhs:
            (left_of if each not in rhs else summed_of if each in over else batch_of).append(each)
        left, of_left = self._block(left_of)
        right, of_right = self._block([each for each in rhs if each not in lhs])
        summed, of_summed = self._block(summed_of)
        batch, of_batch = self._block(batch_of)
        straight = (*batch, *left, *summed), (*batch, *summed, *right)
        if of_right >= of_left:  # Mirror images are alike.
            mirrored = (*batch, *right, *summed), (*batch, *summed, *left)
            if of_right > of_left or _rank(mirrored, (rhs, lhs), args[::-1]) < _rank(
                straight, (lhs, rhs), args
            ):
                args, straight = args[::-1], mirrored
                left, of_left, right, of_right = right, of_right, left, of_left
        return _Parts(
            Step(step.kind, args, over, (*batch, *left, *right), step.times, step.maximum),
            straight,
            (of_batch, of_left, of_summed, of_right),
        )

    def _block(self, names: list[str]) -> tuple[Names, tuple[int, ...]]:
        if not names:
            return (), ()
        if len(names) == 1:
            return (names[0],), (self.size(names[0]),)
        names.sort(key=self.size)
        return tuple(names), tuple([self.size(each) for each in names])


def _rank(wanted: tuple[Names, Names], have: tuple[Names, Names], args: tuple[int, ...]) -> tuple[int, int]:
    """Which of two mirror images is taken: the one with fewer tables to turn, then the one with the factor last."""
    return (wanted[0] != have[0]) + (wanted[1] != have[1]), -args[0]


class _Agenda:
    """The steps that can run, by what they are alike in; tells which to run next."""

    def __init__(self, steps: Mapping[int, _Parts], factors: int, once: Container[int]) -> None:
        kinds: dict[object, int] = {}
        self.kind: dict[int, int] = {}
        self.user: dict[int, int] = {}
        self.waiting_for: dict[int, int] = {}
        for node, (step, _, blocks) in steps.items():
            alike = (step.kind, step.times, step.maximum, node in once, blocks)
            self.kind[node] = kinds.setdefault(alike, len(kinds))
            missing = 0
            for arg in step.args:
                self.user[arg] = node
                missing += arg >= factors
            self.waiting_for[node] = missing
        self.height: dict[int, int] = {}  # How many steps there are from here to the answer.
        for node in reversed(list(steps)):
            self.height[node] = 1 + self.height[self.user[node]] if node in self.user else 0
        self.unrun = Counter(self.kind.values())
        self.ready: dict[int, list[int]] = {}
        self.heap: list[tuple[bool, int, int, int]] = []
        self.pushed = 0
        for node, missing in self.waiting_for.items():
            if not missing:
                self._add(node)

    def _add(self, node: int) -> None:
        kind = self.kind[node]
        nodes = self.ready.setdefault(kind, [])
        nodes.append(node)
        self.pushed += 1
        # First those for which nothing is left to wait, then those with the longest way to go.
        heappush(self.heap, (len(nodes) < self.unrun[kind], -self.height[node], self.pushed, kind))

    def take(self) -> list[int]:
        """All steps of one kind that can run now; none if all steps have run."""
        while self.heap:
            nodes = self.ready.pop(heappop(self.heap)[3], None)
            if nodes is not None:
                return sorted(nodes)
        return []

    def done(self, nodes: Iterable[int]) -> None:
        """Tells that steps have run."""
        for node in nodes:
            self.unrun[self.kind[node]] -= 1
            user = self.user.get(node)
            if user is not None:
                self.waiting_for[user] -= 1
                if not self.waiting_for[user]:
                    self._add(user)


class _Scheduler:
    """Where every table is, and in which order its dimensions are."""

    def __init__(self, dims: Sequence[Names]) -> None:
        self.dims = list(dims)
        self.place: dict[int, tuple[int, int]] = {}
        self.groups: list[Group] = []

    def stack(self, nodes: Sequence[int], wanted: Sequence[Names]) -> tuple[Rows, ...]:
        """The nodes as runs of rows of the same source and order."""
        place, dims = self.place, self.dims
        runs: list[tuple[int | None, tuple[int, ...] | None, list[int]]] = []
        last: int | None = -1
        last_order: tuple[int, ...] | None = None
        for node, names in zip(nodes, wanted, strict=True):
            group, row = place.get(node) or (None, node)
            have = dims[node]
            order = None if names == have else (0, *[1 + have.index(each) for each in names])
            if group == last and order == last_order:
                runs[-1][2].append(row)
            else:
                runs.append((group, order, [row]))
                last, last_order = group, order
        return tuple([self._rows(*run) for run in runs])

    def _rows(self, group: int | None, order: tuple[int, ...] | None, rows: list[int]) -> Rows:
        if group is None:
            return Rows(None, tuple(rows), False, order)
        count = self.groups[group].rows
        return Rows(group, tuple(rows), len(rows) == count and rows == list(range(count)), order)

    def add(self, nodes: Sequence[int], members: Sequence[_Parts], once: bool) -> None:
        """Makes a group of steps that are alike."""
        first = members[0]
        dims = tuple([tuple([parts.args[side] for parts in members]) for side in range(len(first.args))])
        operands = tuple(
            [
                self.stack([parts.step.args[side] for parts in members], names)
                for side, names in enumerate(dims)
            ]
        )
        kind, times, maximum = first.step.kind, first.step.times, first.step.maximum
        steps = tuple([parts.step for parts in members])
        self.groups.append(Group(kind, steps, operands, dims, first.blocks, times, maximum, once))
        for row, node in enumerate(nodes):
            self.place[node] = (len(self.groups) - 1, row)


def schedule(
    elimination: Elimination,
    sizes: Mapping[str, int],
    factors: int,
    frugal: bool = False,
    varying: Container[int] | None = None,
) -> Schedule:
    """Groups the steps of an elimination into batched operations.

    Args:
        elimination: the steps.
        sizes: of all variables and plates.
        factors: how many factors there are, probes included; the first steps' operands.
        frugal: whether memory counts and not launches: then each step runs alone, as soon as its result is wanted.
        varying: the factors that differ from slice to slice, where what depends on none of them is to run once; it is
            in no group with the others then. Every step runs each time if ``None``.
    """
    scheduler, sorter = _Scheduler(elimination.dims), _Sorter(sizes)
    steps: dict[int, _Parts] = {}
    once: set[int] = set()
    for node, step in enumerate(elimination.steps, start=factors):
        steps[node] = sorter.parts(step, scheduler.dims)
        scheduler.dims[node] = steps[node].step.out
        if varying is not None and _alike(step, factors, varying, once):
            once.add(node)
    if frugal:
        for node in _depth_first(steps, [total.node for total in elimination.totals]):
            scheduler.add([node], [steps[node]], node in once)
    else:
        agenda = _Agenda(steps, factors, once)
        while nodes := agenda.take():
            most = max(1, _MOST_ENTRIES // max(1, steps[nodes[0]].entries))
            for start in range(0, len(nodes), most):
                some = nodes[start : start + most]
                scheduler.add(some, [steps[node] for node in some], nodes[0] in once)
            agenda.done(nodes)
    return _with_totals(scheduler, elimination)


def _alike(step: Step, factors: int, varying: Container[int], once: Container[int]) -> bool:
    """Whether a step is the same in all slices."""
    return all(arg in once if arg >= factors else arg not in varying for arg in step.args)


def _with_totals(scheduler: _Scheduler, elimination: Elimination) -> Schedule:
    nodes = [total.node for total in elimination.totals]
    dims = tuple([scheduler.dims[node] for node in nodes])
    if any(dims):  # Results of different shapes are not stacked.
        totals = tuple([scheduler.stack([node], [names])[0] for node, names in zip(nodes, dims, strict=True)])
    else:
        totals = scheduler.stack(nodes, dims)
    weights = tuple([total.weight for total in elimination.totals])
    return Schedule(tuple(scheduler.groups), totals, weights, dims)


def _depth_first(steps: Mapping[int, _Parts], totals: Iterable[int]) -> list[int]:
    """Each step after those that it needs, the larger part of these first: so few results wait at a time."""
    below: dict[int, int] = {}
    for node, parts in steps.items():
        below[node] = max([parts.entries, *[below.get(arg, 0) for arg in parts.step.args]])
    order: list[int] = []
    stack = [(node, False) for node in totals if node in steps]
    while stack:
        node, entered = stack.pop()
        if entered:
            order.append(node)
            continue
        stack.append((node, True))
        args = sorted([arg for arg in steps[node].step.args if arg in steps], key=below.__getitem__)
        stack += [(arg, False) for arg in args]  # The last one goes first.
    return order
