"""What a sweep does at each group: the operations of one algebra, and what they leave for the way back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from sumout.execute import kernels
from sumout.execute.kernels import Trust
from sumout.execute.run_shape import Shape
from sumout.execute.scan import Scan, scan
from sumout.plan import Group, Run


class Record(NamedTuple):
    """What is kept of one group: no more than what its reader needs."""

    operands: tuple[Tensor, ...] = ()
    product: kernels.Product | None = None
    result: Tensor | None = None


Sides = tuple[bool, ...]
"""Which operands of a group something has to go back to."""

Outgoing = tuple[Tensor | None, ...]
"""What goes back to each operand."""


class Algebra(Protocol):
    """Sums and products on tables; a group is known by its number."""

    def forward(self, number: int, group: Group, operands: tuple[Tensor, ...]) -> tuple[Tensor, Record]:
        """The group's result, and what ``backward`` needs."""

    def backward(self, group: Group, record: Record, incoming: Tensor, sides: Sides) -> Outgoing:
        """From what came back for the group's result to what goes back to its operands, those of ``sides`` at least."""

    def total(self, result: Tensor) -> Tensor:
        """A result without variables as a logarithm."""

    def scans(self, run: Run) -> bool:
        """Whether a run may be made at once."""

    def scan(self, run: Run, shape: Shape, head: Tensor, others: Sequence[Tensor]) -> Scan | None:
        """A run made at once (see ``scan``); ``None`` if its numbers call for another way."""


class OneByOne:
    """What an algebra says that makes no run at once."""

    def scans(self, run: Run) -> bool:
        return False

    def scan(self, run: Run, shape: Shape, head: Tensor, others: Sequence[Tensor]) -> Scan | None:
        return None


def multiplied(group: Group, x: Tensor) -> Tensor:
    """A product over plates, in logarithms."""
    result = x.sum(group.gone) if group.gone else x
    return result * group.times if group.times != 1.0 else result


def spread(group: Group, incoming: Tensor) -> Tensor:
    """What came back for a sum or a product over some dimensions, for each of their elements."""
    return incoming.reshape(*group.result_shape, *[1] * len(group.gone)).expand(group.shapes[0])


def handed_back(group: Group, product: kernels.Product | None, incoming: Tensor, sides: Sides) -> Outgoing:
    """The beliefs of a product's operands; without variables that are summed out nothing was kept."""
    if product is not None:
        return shaped(group, kernels.log_matmul_adjoint(product, incoming, sides))
    return shaped(
        group, [incoming.sum(dim) if wanted else None for dim, wanted in zip((-1, -2), sides, strict=True)]
    )


def shaped(group: Group, found: Sequence[Tensor | None]) -> Outgoing:
    """Matrices in the shapes of a group's operands."""
    return tuple(
        [
            None if each is None else each.reshape(shape)
            for each, shape in zip(found, group.shapes, strict=True)
        ]
    )


class LogSum:
    """Sums of probabilities given as logarithms; ``backward`` hands back beliefs, the derivatives by log-tables.

    Where a plan maximises some variables after all others were summed out, it does.

    Args:
        trust: how each group's matrix product is made. It is raised where that turns out to be not enough.
        deferred: whether this is found out after the sweep, by ``distrust``, so that nothing waits for the device
            within it; else a product is made again on the spot.
        tables: those of the sweep. What is kept of one that many factors share, as steps of a
            chain do, is kept once.
        at_once: up to how many entries runs are made at once; one cannot differentiate through that.
    """

    def __init__(
        self, trust: list[Trust], deferred: bool, tables: Sequence[Tensor] = (), at_once: int = 0
    ) -> None:
        self.trust = trust
        self.deferred = deferred
        self.at_once = at_once
        self._wrong: list[tuple[int, Tensor]] = []
        self._tables = tables
        self._exponentials: WeakValueDictionary[object, Tensor] = WeakValueDictionary()

    def forward(self, number: int, group: Group, operands: tuple[Tensor, ...]) -> tuple[Tensor, Record]:
        if group.maximum:
            return Maximum().forward(number, group, operands)
        x = operands[0]
        if group.kind == "sum":
            return kernels.log_sum_exp(x, group.gone), Record(operands)
        if group.kind == "product":
            return multiplied(group, x), Record()
        lhs, rhs = x.reshape(group.matrices[0]), operands[1].reshape(group.matrices[1])
        if not group.blocks[2]:
            return (lhs + rhs).reshape(group.result_shape), Record()
        result, product, wrong = kernels.log_matmul(
            lhs, rhs, self.trust[number], partial(self._exponential, group)
        )
        if wrong is not None:
            if self.deferred:
                self._wrong.append((number, wrong))
            elif wrong.item():
                self._distrust(number)
                return self.forward(number, group, operands)
        return result.reshape(group.result_shape), Record(product=product)

    def backward(self, group: Group, record: Record, incoming: Tensor, sides: Sides) -> Outgoing:
        if group.kind == "sum":
            return (kernels.log_sum_exp_adjoint(record.operands[0], incoming, group.gone),)
        if group.kind == "product":
            return (spread(group, incoming * group.times if group.times != 1.0 else incoming),)
        incoming = incoming.reshape(group.matrices[2])
        return handed_back(group, record.product, incoming, sides)

    def _exponential(self, group: Group, side: int, x: Tensor, shift: Tensor) -> Tensor:
        """The exponential of an operand; that of a table may be there already, in the record of another group."""
        parts = group.operands[side]
        if not self._tables or any(rows.group is not None for rows in parts):
            return kernels.exponential(side, x, shift)
        # Tables live as long as the sweep, so where one lies no other can.
        tables = [self._tables[number] for rows in parts for number in rows.numbers]
        orders = tuple([(rows.order, len(rows.numbers)) for rows in parts])
        key = side, x.shape, orders, *[(each.data_ptr(), each.stride(), each.shape) for each in tables]
        found = self._exponentials.get(key)
        if found is None:
            found = self._exponentials[key] = kernels.exponential(side, x, shift)
        return found

    def total(self, result: Tensor) -> Tensor:
        return result

    def scans(self, run: Run) -> bool:
        return run.entries <= self.at_once and self.trust[run.start] < Trust.LOGS

    def scan(self, run: Run, shape: Shape, head: Tensor, others: Sequence[Tensor]) -> Scan | None:
        made = scan(run, shape, head, others, self.trust[run.start] is Trust.ZEROS)
        if self.deferred:
            self._wrong.append((run.start, made.wrong))
        elif made.wrong.item():
            self._distrust(run.start)
            return self.scan(run, shape, head, others) if self.scans(run) else None
        return made

    def wrong(self) -> list[Tensor]:
        """What was put off: boolean scalars, of which none may be true."""
        return [wrong for _, wrong in self._wrong]

    def distrust(self) -> bool:
        """Looks at what was put off, all at once; whether the sweep has to be run again, with less trust."""
        if not self._wrong:
            return False
        found = torch.stack(self.wrong()).tolist()
        for (number, _), wrong in zip(self._wrong, found, strict=True):
            if wrong:
                self._distrust(number)
        return any(found)

    def _distrust(self, number: int) -> None:
        # Another thread may have done so since: the plan is theirs as well.
        self.trust[number] = Trust(min(self.trust[number] + 1, Trust.LOGS))


class Maximum(OneByOne):
    """Maxima in the place of sums; ``backward`` hands back max-marginals.

    What comes back for a result is, for each of its entries, the best value of an assignment that uses the entry.
    What all else contributes to it is the difference to the result, and an entry of an operand adds to that what
    the group makes of it.
    """

    def forward(self, number: int, group: Group, operands: tuple[Tensor, ...]) -> tuple[Tensor, Record]:
        x = operands[0]
        if group.kind == "sum":
            return x.amax(group.gone), Record()
        if group.kind == "product":
            return multiplied(group, x), Record()
        of_lhs, of_rhs, _ = group.matrices
        lhs, rhs = x.reshape(of_lhs), operands[1].reshape(of_rhs)
        result = kernels.max_matmul(lhs, rhs) if group.blocks[2] else lhs + rhs
        return result.reshape(group.result_shape), Record()

    def backward(self, group: Group, record: Record, incoming: Tensor, sides: Sides) -> Outgoing:
        if group.kind == "product":
            return (spread(group, incoming),)
        result = record.result
        assert result is not None
        if group.kind == "sum":
            return (record.operands[0] + spread(group, _others(incoming, result)),)
        of_lhs, of_rhs, of_result = group.matrices
        incoming = incoming.reshape(of_result)
        best: list[Tensor | None] = [None, None]
        if not group.blocks[2]:
            best = [
                incoming.amax(dim) if wanted else None for dim, wanted in zip((-1, -2), sides, strict=True)
            ]
        else:
            lhs, rhs = record.operands[0].reshape(of_lhs), record.operands[1].reshape(of_rhs)
            others = _others(incoming, result.reshape(of_result))
            if sides[0]:
                best[0] = kernels.plus(kernels.max_matmul(others, rhs.mT), lhs)
            if sides[1]:
                best[1] = kernels.plus(kernels.max_matmul(lhs.mT, others), rhs)
        return shaped(group, best)

    def total(self, result: Tensor) -> Tensor:
        return result


def _others(best: Tensor, result: Tensor) -> Tensor:
    """What is possible beside an entry of a result; nothing beside one that is impossible."""
    return torch.where(result > -torch.inf, best - result, -torch.inf)
