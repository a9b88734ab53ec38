"""Which steps run together: steps of one round that have the same shape become one batched operation.

A step's round is one more than the latest round of its operands. Steps of a round are alike when renaming
their dimensions makes them equal; they form a group, whose tables are stacked along a new first dimension.
A chain in balanced order thus becomes a parallel scan, with nothing made for chains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sumout.plan.eliminate import Elimination, Step


class Rows(NamedTuple):
    """Tables to be stacked: rows of an earlier group's result, or factors where ``group`` is ``None``.

    ``numbers`` lists them; ``whole`` tells that they are all rows of the group, in order.
    """

    group: int | None
    numbers: tuple[int, ...]
    whole: bool = False

    def as_slice(self) -> slice | None:
        """The rows as a slice if they are evenly spaced and ascending: a view instead of a copy."""
        first, last = self.numbers[0], self.numbers[-1]
        step = self.numbers[1] - first if len(self.numbers) > 1 else 1
        if step > 0 and self.numbers == tuple(range(first, last + 1, step)):
            return slice(first, last + 1, step)
        return None


@dataclass(frozen=True)
class Group:
    """Steps run as one operation.

    ``operands`` hold, for each argument, the rows to stack; a stacked operand has the shape
    ``(rows, *shapes[i])``. For a ``contract`` group, ``permutations`` bring the operands to
    ``(rows, *batch, *left, *summed)`` and ``(rows, *batch, *summed, *right)``; the result has the shape
    ``(rows, *batch, *left, *right)``. For ``sum`` and ``product`` groups, ``positions`` are the dimensions
    that go (the rows being dimension 0).
    """

    kind: str
    steps: tuple[Step, ...]
    operands: tuple[tuple[Rows, ...], ...]
    dims: tuple[tuple[tuple[str, ...], ...], ...]
    """For each argument, the names of its dimensions in each row."""
    shapes: tuple[tuple[int, ...], ...]
    out_shape: tuple[int, ...]
    permutations: tuple[tuple[int, ...], ...] = ()
    blocks: tuple[tuple[int, ...], ...] = ()
    """For a ``contract`` group, the sizes of the batch, left, summed and right dimensions."""
    positions: tuple[int, ...] = ()
    times: float = 1.0

    @cached_property
    def rows(self) -> int:
        """How many steps run at once."""
        return len(self.steps)

    @cached_property
    def full_shape(self) -> tuple[int, ...]:
        """The shape of all results together."""
        return (self.rows, *self.out_shape)

    @cached_property
    def matrices(self) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]:
        """For a ``contract`` group, the shapes of both operands and the result as batches of matrices."""
        batch, left, summed, right = (math.prod(block) for block in self.blocks)
        count = self.rows * batch
        return (count, left, summed), (count, summed, right), (count, left, right)

    @cached_property
    def permuted_shapes(self) -> tuple[tuple[int, ...], ...]:
        """For a ``contract`` group, the shapes of both operands after their permutations."""
        return tuple(
            (self.rows, *(shape[position - 1] for position in permutation))
            for shape, permutation in zip(self.shapes, self.permutations, strict=True)
        )

    @cached_property
    def inverse_permutations(self) -> tuple[tuple[int, ...] | None, ...]:
        """What undoes the permutations; ``None`` for one that changes nothing."""
        return tuple(_inverse((0, *permutation)) for permutation in self.permutations)

    @property
    def work(self) -> int:
        """The entries of the joint table that all steps together run over."""
        if self.kind == "contract":
            return self.rows * math.prod(math.prod(block) for block in self.blocks)
        return self.rows * math.prod(self.shapes[0])

    @property
    def written(self) -> int:
        """The entries of all results."""
        return self.rows * math.prod(self.out_shape)

    @property
    def read(self) -> int:
        """The entries of all operands."""
        return self.rows * sum(math.prod(shape) for shape in self.shapes)


@dataclass(frozen=True)
class Schedule:
    """The groups in running order, and where the scalar results are."""

    groups: tuple[Group, ...]
    totals: tuple[Rows, ...]
    weights: tuple[float, ...]


def _inverse(permutation: tuple[int, ...]) -> tuple[int, ...] | None:
    if permutation == tuple(range(len(permutation))):
        return None
    return tuple(sorted(range(len(permutation)), key=permutation.__getitem__))


def _pattern(step: Step, dims: Sequence[tuple[str, ...]], sizes: Mapping[str, int]) -> tuple[object, ...]:
    """The step with its dimensions renamed by order of appearance: equal for steps that are alike."""
    number: dict[str, int] = {}
    for arg in step.args:
        for each in dims[arg]:
            number.setdefault(each, len(number))
    return (
        step.kind,
        tuple(tuple(number[each] for each in dims[arg]) for arg in step.args),
        tuple(number[each] for each in step.over),
        tuple(sizes[each] for each in number),
        step.times,
    )


def _canonical(
    step: Step, dims: Sequence[tuple[str, ...]], sizes: Mapping[str, int]
) -> tuple[Step, tuple[object, ...]]:
    """Puts the operands of a product into the order that reads first, so that mirror images are alike."""
    pattern = _pattern(step, dims, sizes)
    if step.kind != "contract":
        # The operand's dimensions may have been put into another order than the step was made for.
        return step._replace(out=tuple(each for each in dims[step.args[0]] if each not in step.over)), pattern
    lhs, rhs = step.args
    ranks = len(dims[rhs]) - len(dims[lhs])
    mirrored = step._replace(args=(rhs, lhs), out=_out_dims(dims[rhs], dims[lhs], step.over))
    other = _pattern(mirrored, dims, sizes)
    if ranks > 0 or (ranks == 0 and other[1:] < pattern[1:]):
        return mirrored, other
    return step._replace(out=_out_dims(dims[lhs], dims[rhs], step.over)), pattern


def _out_dims(left: tuple[str, ...], right: tuple[str, ...], over: Sequence[str]) -> tuple[str, ...]:
    batch = tuple(each for each in left if each in right and each not in over)
    return (*batch, *(x for x in left if x not in right), *(x for x in right if x not in left))


def _stacked(
    nodes: Sequence[int], place: Mapping[int, tuple[int, int]], group_rows: Sequence[int]
) -> tuple[Rows, ...]:
    """The nodes as runs of rows of the same source."""
    runs: list[tuple[int | None, list[int]]] = []
    for node in nodes:
        group, row = place.get(node, (None, node))
        if runs and runs[-1][0] == group:
            runs[-1][1].append(row)
        else:
            runs.append((group, [row]))
    return tuple(
        Rows(group, tuple(index), group is not None and index == list(range(group_rows[group])))
        for group, index in runs
    )


def schedule(elimination: Elimination, sizes: Mapping[str, int], factors: int) -> Schedule:
    """Groups the steps of an elimination into rounds of batched operations.

    Args:
        elimination: the steps.
        sizes: of all variables and plates.
        factors: how many factors there are, probes included; the first steps' operands.
    """
    dims = list(elimination.dims)
    rounds = dict.fromkeys(range(factors), 0)
    alike: dict[tuple[object, ...], list[tuple[int, Step]]] = {}
    for offset, step in enumerate(elimination.steps):
        node = factors + offset
        rounds[node] = 1 + max(rounds[arg] for arg in step.args)
        step, pattern = _canonical(step, dims, sizes)
        dims[node] = step.out
        alike.setdefault((rounds[node], *pattern), []).append((node, step))
    place: dict[int, tuple[int, int]] = {}
    group_rows: list[int] = []
    groups: list[Group] = []
    for key in sorted(alike, key=lambda key: key[0]):  # type: ignore[arg-type, return-value]
        members = alike[key]
        steps = tuple(step for _, step in members)
        operands = tuple(
            _stacked([step.args[side] for step in steps], place, group_rows)
            for side in range(len(steps[0].args))
        )
        names = tuple(tuple(dims[step.args[side]] for step in steps) for side in range(len(steps[0].args)))
        groups.append(_group(steps, operands, names, sizes))
        for row, (node, _) in enumerate(members):
            place[node] = (len(groups) - 1, row)
        group_rows.append(len(members))
    totals = _stacked([total.node for total in elimination.totals], place, group_rows)
    return Schedule(tuple(groups), totals, tuple(total.weight for total in elimination.totals))


def _group(
    steps: tuple[Step, ...],
    operands: tuple[tuple[Rows, ...], ...],
    names: tuple[tuple[tuple[str, ...], ...], ...],
    sizes: Mapping[str, int],
) -> Group:
    """The shapes of a group, read off its first step."""
    step = steps[0]
    shapes = tuple(tuple(sizes[each] for each in side[0]) for side in names)
    out_shape = tuple(sizes[each] for each in step.out)
    if step.kind != "contract":
        positions = tuple(1 + names[0][0].index(each) for each in step.over)
        return Group(
            step.kind, steps, operands, names, shapes, out_shape, positions=positions, times=step.times
        )
    left, right = names[0][0], names[1][0]
    batch = [each for each in left if each in right and each not in step.over]
    only_left = [each for each in left if each not in right]
    only_right = [each for each in right if each not in left]
    permutations = (
        tuple(1 + left.index(each) for each in (*batch, *only_left, *step.over)),
        tuple(1 + right.index(each) for each in (*batch, *step.over, *only_right)),
    )
    blocks = tuple(
        tuple(sizes[each] for each in block) for block in (batch, only_left, step.over, only_right)
    )
    return Group(step.kind, steps, operands, names, shapes, out_shape, permutations, blocks)
