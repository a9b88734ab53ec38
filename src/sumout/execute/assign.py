"""The best assignment: the plan walked in reverse, each maximum taken where its parents' choices point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.execute.sweep import Tape
from sumout.plan import EliminationPlan


class Choice(NamedTuple):
    """State indices of a variable, one for each element of ``plates`` (the dimensions of ``states``)."""

    states: Tensor
    plates: tuple[str, ...]


def best_assignment(plan: EliminationPlan, tape: Tape) -> dict[str, Choice]:
    """A maximum of the joint distribution.

    Args:
        plan: the plan that was run.
        tape: its forward sweep with ``maximum=True`` and ``keep=True``.

    Returns:
        For every variable that some factor mentions, its state. Where several assignments are best, one of
        them is returned as a whole: no variable is chosen apart from the others.
    """
    plates = {name for name, _ in plan.structure.plates}
    chosen: dict[str, Choice] = {}
    for group, record in zip(reversed(plan.schedule.groups), reversed(tape.records), strict=True):
        if not record.operands:
            continue
        for row, step in enumerate(group.steps):
            if step.over:
                tables = [
                    (operand[row], dims[row])
                    for operand, dims in zip(record.operands, group.dims, strict=True)
                ]
                _choose(tables, step.over, plates, chosen)
    return chosen


def _choose(
    tables: list[tuple[Tensor, tuple[str, ...]]],
    over: tuple[str, ...],
    plates: set[str],
    chosen: dict[str, Choice],
) -> None:
    """Settles the variables ``over`` of one step, given the choices made for all its other variables."""
    around: dict[str, None] = {}
    for _, dims in tables:
        for each in dims:
            if each in plates:
                around[each] = None
            elif each not in over:
                around.update(dict.fromkeys(chosen[each].plates))
    axes = (*around, *over)
    total = sum(_pick(table, dims, axes, chosen) for table, dims in tables)
    assert isinstance(total, Tensor)
    sizes = total.shape[len(around) :]
    best = total.reshape(*total.shape[: len(around)], math.prod(sizes)).argmax(-1)
    for each, size in zip(reversed(over), reversed(sizes), strict=True):
        chosen[each] = Choice(best % size, tuple(around))
        best = best // size


def _pick(
    table: Tensor, dims: tuple[str, ...], axes: tuple[str, ...], chosen: Mapping[str, Choice]
) -> Tensor:
    """The entries of a table at the chosen states, with one dimension for each of ``axes``."""
    if not dims:
        return table.reshape((1,) * len(axes))
    index = []
    for each, size in zip(dims, table.shape, strict=True):
        if each in axes:
            index.append(_aligned(torch.arange(size, device=table.device), (each,), axes))
        else:
            index.append(_aligned(chosen[each].states, chosen[each].plates, axes))
    return table[tuple(index)]


def _aligned(index: Tensor, names: tuple[str, ...], axes: tuple[str, ...]) -> Tensor:
    """Moves the named dimensions to their places among ``axes``; the other axes have size one."""
    order = sorted(range(len(names)), key=lambda place: axes.index(names[place]))
    index = index.permute(order)
    shape = [1] * len(axes)
    for place, size in zip(order, index.shape, strict=True):
        shape[axes.index(names[place])] = size
    return index.reshape(shape)
