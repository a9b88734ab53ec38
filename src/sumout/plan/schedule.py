"""Which steps run together: steps of one round that have the same shape become one batched operation.

A step's round is one more than the latest round of its operands. Steps of a round are alike when the
dimensions that play each part in them (kept by both operands, by one, summed out) have the same sizes,
whatever their names and order; they form a group, whose tables are stacked along a new first dimension.
A chain in balanced order thus becomes a parallel scan, with nothing made for chains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sumout.plan.eliminate import Elimination, Step

Names = tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """Tables to be stacked: rows of an earlier group's result, or factors where ``group`` is ``None``.

    ``numbers`` lists them; ``whole`` tells that they are all rows of the group, in order. ``order`` is the
    order in which their dimensions are wanted (the rows being dimension 0), ``None`` where they have it.
    """

    group: int | None
    numbers: tuple[int, ...]
    whole: bool = False
    order: tuple[int, ...] | None = None

    @cached_property
    def index(self) -> slice | list[int]:
        """The rows as an index: a slice, for a view instead of a copy, where they ascend in even steps."""
        first, last = self.numbers[0], self.numbers[-1]
        step = self.numbers[1] - first if len(self.numbers) > 1 else 1
        if step > 0 and self.numbers == tuple(range(first, last + 1, step)):
            return slice(first, last + 1, step)
        return list(self.numbers)

    @cached_property
    def back(self) -> tuple[int, ...] | None:
        """The order that undoes ``order``."""
        if self.order is None:
            return None
        return tuple(sorted(range(len(self.order)), key=self.order.__getitem__))


@dataclass(frozen=True)
class Group:
    """Steps run as one operation.

    ``operands`` hold, for each argument, the rows to stack; ``dims`` the names of its dimensions in each row,
    in the order in which the operation takes them. ``blocks`` are the sizes of dimensions by the part they
    play. For ``contract``: kept by both (batch), left, summed, right; the operands are ``batch + left +
    summed`` and ``batch + summed + right``, the result ``batch + left + right``. For ``sum`` and ``product``:
    kept, gone; the operand is ``kept + gone``, the result ``kept``.
    """

    kind: str
    steps: tuple[Step, ...]
    operands: tuple[tuple[Rows, ...], ...]
    dims: tuple[tuple[Names, ...], ...]
    blocks: tuple[tuple[int, ...], ...]
    times: float = 1.0

    @cached_property
    def rows(self) -> int:
        """How many steps run at once."""
        return len(self.steps)

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the stacked operands, rows first."""
        if self.kind != "contract":
            kept, gone = self.blocks
            return ((self.rows, *kept, *gone),)
        batch, left, summed, right = self.blocks
        return (self.rows, *batch, *left, *summed), (self.rows, *batch, *summed, *right)

    @cached_property
    def result_shape(self) -> tuple[int, ...]:
        """The shape of all results together, rows first."""
        if self.kind != "contract":
            return (self.rows, *self.blocks[0])
        batch, left, _, right = self.blocks
        return (self.rows, *batch, *left, *right)

    @cached_property
    def gone(self) -> tuple[int, ...]:
        """For ``sum`` and ``product``, the dimensions of the stacked operand that go."""
        kept, gone = self.blocks
        return tuple(range(1 + len(kept), 1 + len(kept) + len(gone)))

    @cached_property
    def matrices(self) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]:
        """For ``contract``, the shapes of both operands and the result as batches of matrices."""
        batch, left, summed, right = (math.prod(block) for block in self.blocks)
        count = self.rows * batch
        return (count, left, summed), (count, summed, right), (count, left, right)

    @cached_property
    def work(self) -> int:
        """The entries of the joint table that all steps together run over."""
        return self.rows * math.prod(math.prod(block) for block in self.blocks)

    @cached_property
    def written(self) -> int:
        """The entries of all results."""
        return math.prod(self.result_shape)

    @cached_property
    def read(self) -> int:
        """The entries of all operands."""
        return sum(math.prod(shape) for shape in self.shapes)


@dataclass(frozen=True)
class Schedule:
    """The groups in running order, and where the scalar results are.

    Where a structure has a batch, a result has those of its dimensions that it depends on, ``total_dims``.
    """

    groups: tuple[Group, ...]
    totals: tuple[Rows, ...]
    weights: tuple[float, ...]
    total_dims: tuple[Names, ...] = ()


class _Parts(NamedTuple):
    """A step whose dimensions are sorted by the part they play."""

    step: Step
    args: tuple[Names, ...]
    blocks: tuple[tuple[int, ...], ...]


def _sorted_parts(step: Step, dims: Sequence[Names], sizes: Mapping[str, int]) -> _Parts:
    """Brings a step's dimensions into an order that depends on their sizes alone.

    The sort is stable, so that tables keep their order, and are not copied, where sizes are equal.
    """

    def sort(names: Iterable[str]) -> Names:
        return tuple(sorted(names, key=sizes.__getitem__))

    def measure(*blocks: Names) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(sizes[each] for each in block) for block in blocks)

    over = set(step.over)
    if step.kind != "contract":
        (arg,) = step.args
        kept, gone = sort(x for x in dims[arg] if x not in over), sort(x for x in dims[arg] if x in over)
        return _Parts(step._replace(out=kept), ((*kept, *gone),), measure(kept, gone))
    lhs, rhs = step.args
    left, right = (
        sort(x for x in dims[lhs] if x not in dims[rhs]),
        sort(x for x in dims[rhs] if x not in dims[lhs]),
    )
    # Mirror images are alike.
    if measure(right) > measure(left):
        lhs, rhs, left, right = rhs, lhs, right, left
    summed = sort(x for x in dims[lhs] if x in over)
    batch = sort(x for x in dims[lhs] if x in dims[rhs] and x not in over)
    step = step._replace(args=(lhs, rhs), out=(*batch, *left, *right))
    args = (*batch, *left, *summed), (*batch, *summed, *right)
    return _Parts(step, args, measure(batch, left, summed, right))


class _Scheduler:
    """Where every table is, and in which order its dimensions are."""

    def __init__(self, dims: Sequence[Names]) -> None:
        self.dims = list(dims)
        self.place: dict[int, tuple[int, int]] = {}
        self.groups: list[Group] = []

    def stack(self, nodes: Sequence[int], wanted: Sequence[Names]) -> tuple[Rows, ...]:
        """The nodes as runs of rows of the same source and order."""
        runs: list[tuple[int | None, tuple[int, ...] | None, list[int]]] = []
        for node, names in zip(nodes, wanted, strict=True):
            group, row = self.place.get(node, (None, node))
            order = None
            if names != self.dims[node]:
                order = (0, *(1 + self.dims[node].index(each) for each in names))
            if runs and runs[-1][:2] == (group, order):
                runs[-1][2].append(row)
            else:
                runs.append((group, order, [row]))
        return tuple(
            Rows(
                group,
                tuple(rows),
                group is not None and rows == list(range(self.groups[group].rows)),
                order,
            )
            for group, order, rows in runs
        )

    def add(self, members: Sequence[tuple[int, _Parts]]) -> None:
        """Makes a group of steps that are alike."""
        first = members[0][1]
        dims = tuple(tuple(parts.args[side] for _, parts in members) for side in range(len(first.args)))
        operands = tuple(
            self.stack([parts.step.args[side] for _, parts in members], names)
            for side, names in enumerate(dims)
        )
        steps = tuple(parts.step for _, parts in members)
        self.groups.append(Group(first.step.kind, steps, operands, dims, first.blocks, first.step.times))
        for row, (node, _) in enumerate(members):
            self.place[node] = (len(self.groups) - 1, row)


def schedule(elimination: Elimination, sizes: Mapping[str, int], factors: int) -> Schedule:
    """Groups the steps of an elimination into rounds of batched operations.

    Args:
        elimination: the steps.
        sizes: of all variables and plates.
        factors: how many factors there are, probes included; the first steps' operands.
    """
    scheduler = _Scheduler(elimination.dims)
    rounds = dict.fromkeys(range(factors), 0)
    alike: dict[tuple[object, ...], list[tuple[int, _Parts]]] = {}
    for node, step in enumerate(elimination.steps, start=factors):
        rounds[node] = 1 + max(rounds[arg] for arg in step.args)
        parts = _sorted_parts(step, scheduler.dims, sizes)
        scheduler.dims[node] = parts.step.out
        alike.setdefault((rounds[node], step.kind, step.times, parts.blocks), []).append((node, parts))
    for key in sorted(alike, key=lambda key: key[0]):  # type: ignore[arg-type, return-value]
        scheduler.add(alike[key])
    nodes = [total.node for total in elimination.totals]
    total_dims = tuple([scheduler.dims[node] for node in nodes])
    if any(total_dims):  # Results of different shapes are not stacked.
        totals = tuple(
            [scheduler.stack([node], [dims])[0] for node, dims in zip(nodes, total_dims, strict=True)]
        )
    else:
        totals = scheduler.stack(nodes, total_dims)
    weights = tuple(total.weight for total in elimination.totals)
    return Schedule(tuple(scheduler.groups), totals, weights, total_dims)
