"""The forward sweep over a plan's groups, and the backward sweep that gives every factor's belief.

A sweep works on raw tensors and knows a plan's groups, not what they stand for. Every row of a group's
result is used exactly once, so the backward sweep assigns adjoints and never accumulates them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.execute import kernels
from sumout.plan import EliminationPlan, Group, Rows


class Record(NamedTuple):
    """What the backward sweep or the choice of an assignment needs of one group: no more is kept."""

    operands: tuple[Tensor, ...] = ()
    product: kernels.Product | None = None


class Tape(NamedTuple):
    """A forward sweep: the answer (a scalar), and a record for every group if asked for."""

    value: Tensor
    records: list[Record]


def stack_rows(parts: tuple[Rows, ...], tables: Sequence[Tensor], results: Sequence[Tensor | None]) -> Tensor:
    """One tensor ``(rows, ...)`` of factors and earlier results; a view where the rows allow one."""
    pieces = []
    for part in parts:
        if part.group is None:
            piece = _stacked([tables[number] for number in part.numbers])
        else:
            source = results[part.group]
            assert source is not None  # A schedule never reads a group before it has run.
            piece = source if part.whole else source[part.index]
        pieces.append(piece if part.order is None else piece.permute(part.order))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _stacked(tables: list[Tensor]) -> Tensor:
    """Tables along a new first dimension; a view where they lie evenly spaced in one storage already.

    That is how the tables of sites come that were scored together.
    """
    first = tables[0]
    if len(tables) == 1:
        return first.unsqueeze(0)
    if first.numel() < 1024 or torch.is_grad_enabled():
        return torch.stack(tables)  # A view would hide the other tables from autograd.
    start, strides, storage = first.storage_offset(), first.stride(), first.untyped_storage().data_ptr()
    step = tables[1].storage_offset() - start
    if step < 0:
        return torch.stack(tables)  # A stride is never negative.
    for row, table in enumerate(tables):
        if (
            table.storage_offset() != start + row * step
            or table.stride() != strides
            or table.untyped_storage().data_ptr() != storage
        ):
            return torch.stack(tables)
    return first.as_strided((len(tables), *first.shape), (step, *strides), start)


def forward(
    plan: EliminationPlan, tables: Sequence[Tensor], *, maximum: bool = False, keep: bool = False
) -> Tape:
    """Runs a plan.

    Args:
        plan: from ``make_plan``.
        tables: log-tables of all factors, the plan's probes included.
        maximum: whether variables are maxed out instead of summed out.
        keep: whether records are kept; without them, results are freed as soon as they have been read.
    """
    groups = plan.schedule.groups
    results: list[Tensor | None] = []
    records: list[Record] = []
    unread = [group.rows for group in groups]
    for group in groups:
        operands = tuple(stack_rows(side, tables, results) for side in group.operands)
        result, record = _run(group, operands, maximum)
        results.append(result)
        if keep:
            records.append(record)
        _free(group, results, unread)
    scalars = stack_rows(plan.schedule.totals, tables, results)
    weights = plan.schedule.weights
    if any(weight != 1.0 for weight in weights):
        scalars = scalars * scalars.new_tensor(weights)
    return Tape(scalars.sum(), records)


def _run(group: Group, operands: tuple[Tensor, ...], maximum: bool) -> tuple[Tensor, Record]:
    x = operands[0]
    if group.kind == "sum":
        result = x.amax(group.gone) if maximum else kernels.log_sum_exp(x, group.gone)
        return result, Record(operands)
    if group.kind == "product":
        result = x.sum(group.gone) if group.gone else x
        return result * group.times if group.times != 1.0 else result, Record()
    of_lhs, of_rhs, _ = group.matrices
    lhs, rhs = x.reshape(of_lhs), operands[1].reshape(of_rhs)
    if not group.blocks[2]:
        return (lhs + rhs).reshape(group.result_shape), Record()
    if maximum:
        return kernels.max_matmul(lhs, rhs).reshape(group.result_shape), Record(operands)
    result, product = kernels.log_matmul(lhs, rhs)
    return result.reshape(group.result_shape), Record(product=product)


def _free(group: Group, results: list[Tensor | None], unread: list[int]) -> None:
    for side in group.operands:
        for rows in side:
            if rows.group is not None:
                unread[rows.group] -= len(rows.numbers)
                if unread[rows.group] == 0:
                    results[rows.group] = None


def backward(plan: EliminationPlan, tape: Tape, grad: Tensor, factors: int) -> list[Tensor]:
    """The derivative of the answer by every factor's log-table, times ``grad``: the factors' beliefs.

    Args:
        plan: the plan that ``tape`` was recorded from, with ``keep=True`` and ``maximum=False``.
        tape: the forward sweep.
        grad: a scalar.
        factors: how many factors there are, the plan's probes included.
    """
    groups = plan.schedule.groups
    adjoints: list[list[tuple[Rows, Tensor]]] = [[] for _ in groups]
    of_factors: list[Tensor | None] = [None] * factors
    weights = grad * grad.new_tensor(plan.schedule.weights)
    _hand_back(plan.schedule.totals, weights, adjoints, of_factors)
    for number in range(len(groups) - 1, -1, -1):
        group = groups[number]
        incoming = _gather(adjoints[number], group)
        adjoints[number] = []
        for side, outgoing in zip(
            group.operands, _adjoint(group, tape.records[number], incoming), strict=True
        ):
            _hand_back(side, outgoing, adjoints, of_factors)
    missing = [index for index, each in enumerate(of_factors) if each is None]
    assert not missing, missing  # Every factor is an operand of exactly one step.
    return [each for each in of_factors if each is not None]


def _adjoint(group: Group, record: Record, grad: Tensor) -> tuple[Tensor, ...]:
    if group.kind == "sum":
        return (kernels.log_sum_exp_adjoint(record.operands[0], grad, group.gone),)
    if group.kind == "product":
        if group.times != 1.0:
            grad = grad * group.times
        shape = (*group.result_shape, *[1] * len(group.gone))
        return (grad.reshape(shape).expand(group.shapes[0]),)
    grad = grad.reshape(group.matrices[2])
    if record.product is None:
        of_lhs, of_rhs = grad.sum(-1), grad.sum(-2)
    else:
        of_lhs, of_rhs = kernels.log_matmul_adjoint(record.product, grad)
    return of_lhs.reshape(group.shapes[0]), of_rhs.reshape(group.shapes[1])


def _hand_back(
    parts: tuple[Rows, ...],
    grad: Tensor,
    adjoints: list[list[tuple[Rows, Tensor]]],
    of_factors: list[Tensor | None],
) -> None:
    """Gives each source its rows of a stacked operand's adjoint."""
    start = 0
    for part in parts:
        piece = grad[start : start + len(part.numbers)] if len(parts) > 1 else grad
        start += len(part.numbers)
        if part.back is not None:
            piece = piece.permute(part.back)
        if part.group is None:
            for index, row in zip(part.numbers, piece.unbind(0), strict=True):
                of_factors[index] = row
        else:
            adjoints[part.group].append((part, piece))


def _gather(pieces: list[tuple[Rows, Tensor]], group: Group) -> Tensor:
    """A group's adjoint from the pieces that its readers handed back."""
    if len(pieces) == 1 and pieces[0][0].whole:
        return pieces[0][1]
    stacked = torch.cat([piece for _, piece in pieces])
    order = _inverse(tuple([rows.numbers for rows, _ in pieces]))
    return stacked if order is None else stacked[order]


@lru_cache(maxsize=4096)
def _inverse(numbers: tuple[tuple[int, ...], ...]) -> list[int] | None:
    """Where each row is among rows that come in this order; ``None`` if they are in order."""
    order = [row for part in numbers for row in part]
    if order == list(range(len(order))):
        return None
    return sorted(range(len(order)), key=order.__getitem__)
