"""Sweeps on plain probabilities: no logarithm and no exponential is taken within them.

They are several times faster than sweeps in logarithms, and right as long as no product of two positive entries
underflows. That is known: for every table a bound on its least positive entry (and its largest) is carried along. Where
the bound of a product would come near underflow, the tables themselves are looked at, and scaled; where that does
not help, the sweep gives up, and another in logarithms takes its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.execute import kernels, sweep
from sumout.execute.algebra import OneByOne, Outgoing, Record, Sides, handed_back, shaped
from sumout.plan import EliminationPlan, Group, Rows


class Underflow(Exception):
    """Entries of a sweep are too far apart for plain probabilities."""


class Range(NamedTuple):
    """Bounds on the logarithms of the positive entries of a table."""

    low: float
    high: float


class Linear(OneByOne):
    """Sums and products of probabilities; ``backward`` hands back beliefs.

    Args:
        ranges: of the tables, the plan's probes included.
        like: one of the tables. Those that are not on a CPU are not looked at, for that would wait for the device.
    """

    def __init__(self, ranges: Sequence[Range], like: Tensor) -> None:
        info = torch.finfo(like.dtype)
        self.may_look = like.is_cpu
        self.limit = Range(math.log(info.tiny) - math.log(info.eps), math.log(info.max) + math.log(info.eps))
        self.tiny = info.tiny
        self.offset = 0.0
        """The logarithm of what was divided out."""
        self._of_tables = ranges
        self._of_groups: list[Range] = []

    def forward(self, number: int, group: Group, operands: tuple[Tensor, ...]) -> tuple[Tensor, Record]:
        x = operands[0]
        ranges = [self._range(side) for side in group.operands]
        if group.kind == "sum":
            result = x.sum(group.gone)
            self._of_groups.append(self._summed(ranges[0], group))
            return result, Record((x,), result=result)
        if group.kind == "product" or group.maximum:
            raise Underflow  # Plates have many elements: their products are made in logarithms.
        of_lhs, of_rhs, _ = group.matrices
        y = operands[1]
        if self._product(ranges).low < self.limit.low or self._product(ranges).high > self.limit.high:
            (x, y), ranges = self._rescaled(group, (x, y))
        lhs, rhs = x.reshape(of_lhs), y.reshape(of_rhs)
        both = self._product(ranges)
        if not group.blocks[2]:
            self._of_groups.append(both)
            return (lhs * rhs).reshape(group.result_shape), Record()
        self._of_groups.append(self._summed(both, group))
        product = _matmul(lhs, rhs)
        assert product.r is not None
        result = product.r.reshape(group.result_shape)
        return result, Record(product=product)

    def backward(self, group: Group, record: Record, incoming: Tensor, sides: Sides) -> Outgoing:
        if group.kind == "sum":
            (x,) = record.operands
            assert record.result is not None
            weight = incoming / record.result.clamp(min=self.tiny)
            return (x * weight.reshape(*group.result_shape, *[1] * len(group.gone)),)
        incoming, product = incoming.reshape(group.matrices[2]), record.product
        if product is None:
            return handed_back(group, None, incoming, sides)
        how, a, b, r = product
        assert r is not None
        # What comes back for an impossible entry is zero, and stays so. All that read the result have had their turn,
        # so its memory can be written over, and so can the joint table.
        weight = r.clamp_(min=self.tiny).reciprocal_().mul_(incoming)
        found: list[Tensor | None] = [None, None]
        if how == "joint":
            belief, flat = a.mul_(weight), int(incoming.shape[-2] != 1)
            found[1 - flat] = belief if sides[1 - flat] else None
            if sides[flat]:
                found[flat] = belief.sum(-2 if flat else -1, keepdim=True).mT
        else:
            found[0] = (weight @ b.mT).mul_(a) if sides[0] else None
            found[1] = (a.mT @ weight).mul_(b) if sides[1] else None
        return shaped(group, found)

    def total(self, result: Tensor) -> Tensor:
        return result.log()

    def _range(self, side: tuple[Rows, ...]) -> Range:
        """Of everything that an operand is stacked from."""
        lows, highs = [], []
        for rows in side:
            found = (
                [self._of_tables[number] for number in rows.numbers]
                if rows.group is None
                else [self._of_groups[rows.group]]
            )
            lows += [each.low for each in found]
            highs += [each.high for each in found]
        return Range(min(lows), max(highs))

    def _product(self, ranges: Sequence[Range]) -> Range:
        return Range(sum(each.low for each in ranges), sum(each.high for each in ranges))

    def _summed(self, range_: Range, group: Group) -> Range:
        summed = group.blocks[2] if group.kind == "contract" else group.blocks[1]
        high = range_.high + math.log(math.prod(summed))
        if high > self.limit.high:
            raise Underflow
        return Range(range_.low, high)

    def _rescaled(
        self, group: Group, operands: tuple[Tensor, Tensor]
    ) -> tuple[tuple[Tensor, Tensor], list[Range]]:
        """The operands with a maximum of one, and what their entries really are."""
        if not self.may_look:
            raise Underflow
        scaled, ranges = [], []
        for table in operands:
            largest = table.amax().item()
            if not 0 < largest < math.inf:
                raise Underflow
            table = table / largest
            self.offset += group.rows * math.log(largest)
            scaled.append(table)
            ranges.append(Range(math.log(torch.where(table > 0, table, 1.0).amin().item()), 0.0))
        if self._product(ranges).low < self.limit.low:
            raise Underflow
        return (scaled[0], scaled[1]), ranges


def _matmul(x: Tensor, y: Tensor) -> kernels.Product:
    if x.shape[-2] == 1 or y.shape[-1] == 1:
        joint = x.mT * y if x.shape[-2] == 1 else x * y.mT
        total = joint.sum(-2 if x.shape[-2] == 1 else -1, keepdim=True)
        return kernels.Product("joint", joint, joint[:0], total)
    return kernels.Product("positive", x, y, x @ y)


def linear_sweep(
    plan: EliminationPlan, tables: Sequence[Tensor], ranges: Sequence[Range], wanted: frozenset[int]
) -> tuple[Tensor, dict[int, Tensor]] | None:
    """The answer, and the beliefs that are wanted, from tables of probabilities; ``None`` if they underflow.

    Args:
        plan: without plates and powers.
        tables: probabilities scaled to a maximum of one, the plan's probes included.
        ranges: of the tables.
        wanted: the numbers of the factors whose beliefs are wanted; without any, nothing of the sweep is kept.
    """
    algebra = Linear(ranges, tables[0])
    try:
        tape = sweep.forward(plan, tables, algebra, "adjoint" if wanted else None, wanted)
    except Underflow:
        return None
    found: dict[int, Tensor] = {}
    if wanted:
        seeds = sweep.seeds(plan, torch.ones_like(tape.value))
        found = sweep.backward(plan, tape, algebra, seeds, wanted)
    return tape.value + algebra.offset, found
