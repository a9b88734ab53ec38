"""Batches of steps, and a schedule of them: what an executor runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from sumout.plan.eliminate import Step

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
    kept, gone; the operand is ``kept + gone``, the result ``kept``. ``maximum`` tells that the steps maximise even
    where others sum, ``once`` that they are the same in every slice of a plan, and run once for all of them.
    """

    kind: str
    steps: tuple[Step, ...]
    operands: tuple[tuple[Rows, ...], ...]
    dims: tuple[tuple[Names, ...], ...]
    blocks: tuple[tuple[int, ...], ...]
    times: float = 1.0
    maximum: bool = False
    once: bool = False

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
    """The groups in running order, and where the results are whose weighted sum is the answer.

    Where a structure has a batch, a result has those of its dimensions that it depends on, ``total_dims``.
    """

    groups: tuple[Group, ...]
    totals: tuple[Rows, ...]
    weights: tuple[float, ...]
    total_dims: tuple[Names, ...] = ()
