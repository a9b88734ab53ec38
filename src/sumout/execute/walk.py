"""A plan walked in reverse: every variable is settled where all that its tables depend on is settled already.

The best assignment and posterior samples are both such walks; they differ in how a state is decided. A group's
variables are settled at once, for all elements of plates and all assignments in the making.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.execute.per_plan import PerPlan
from sumout.execute.sweep import Tape
from sumout.plan import EliminationPlan, Group
from sumout.plan.memory import WALK_CHUNK


class Choice(NamedTuple):
    """State indices of a variable, one for each element of ``plates`` (the dimensions of ``states``).

    A batch counts as plates, which come first. Where there are many assignments, they are dimension 0.
    """

    states: Tensor
    plates: tuple[str, ...]


Decide = Callable[[Tensor, slice], Tensor]
"""From log-weights ``(settled, assignments or 1, states)`` of some of the assignments to states ``(settled, ...)``."""


class _Operand(NamedTuple):
    """Where the entries of one operand lie in its flattened table.

    An entry is at ``start + sum of strides * states of the copies + over``; ``start`` and each of ``copies`` have
    one number for every copy that is settled, ``over`` one for every joint state of the variables that are.
    """

    start: Tensor
    copies: tuple[Tensor, ...]
    strides: tuple[int, ...]
    over: Tensor


class _Stop(NamedTuple):
    """One group of the walk: what it reads, and the copies that it settles with the numbers of their states."""

    group: int
    operands: tuple[_Operand, ...]
    settles: tuple[tuple[Tensor, int], ...]


@dataclass(frozen=True)
class _Route:
    """All stops, last group first. Copies of all variables are numbered; one more number stands for state 0."""

    stops: tuple[_Stop, ...]
    homes: dict[str, tuple[str, ...]]
    """The batch and plates of each variable that some factor mentions, in the order of its copies."""
    first: dict[str, int]
    sizes: dict[str, int]
    copies: int


def _route(plan: EliminationPlan) -> _Route:
    sizes = dict(plan.structure.sizes)
    ordinals = dict(plan.structure.variables)
    mentioned = {name for dims in plan.elimination.dims for name in dims}
    batch = plan.structure.batch
    homes = {name: (*batch, *sorted(ordinal)) for name, ordinal in ordinals.items() if name in mentioned}
    first: dict[str, int] = {}
    copies = 0
    for name, home in homes.items():
        first[name] = copies
        copies += math.prod(sizes[each] for each in home)
    route = _Route((), homes, first, sizes, copies)
    stops = [
        _stop(number, group, route)
        for number, group in reversed(list(enumerate(plan.schedule.groups)))
        if group.steps[0].over
        and group.kind != "product"
        and (group.maximum or not plan.maximised)  # What is summed out before a maximum has no state.
    ]
    return _Route(tuple(stops), homes, first, sizes, copies)


def _stop(number: int, group: Group, route: _Route) -> _Stop:
    summed = group.blocks[2] if group.kind == "contract" else group.blocks[1]
    over = [names[len(names) - len(summed) :] for names in group.dims[0]]
    around = [route.homes[names[0]] for names in over]
    settles = tuple(
        (
            torch.cat([_copies(names[place], home, route) for names, home in zip(over, around, strict=True)]),
            size,
        )
        for place, size in enumerate(summed)
    )
    operands = tuple(_operand(group, side, len(summed), around, route) for side in range(len(group.operands)))
    return _Stop(number, operands, settles)


def _operand(group: Group, side: int, count: int, around: list[tuple[str, ...]], route: _Route) -> _Operand:
    """The layout of a stacked operand: rows, then the dimensions, of which ``count`` are summed out."""
    shape = group.shapes[side]
    strides = [math.prod(shape[place + 1 :]) for place in range(len(shape))]
    before = len(group.blocks[0]) if side == 1 else len(shape) - 1 - count
    gone = range(1 + before, 1 + before + count)
    kept = [place for place in range(1, len(shape)) if place not in gone]
    over = torch.zeros(1, dtype=torch.long)
    for place in gone:
        over = (over[:, None] + strides[place] * torch.arange(shape[place])).reshape(-1)
    starts = []
    copies: list[list[Tensor]] = [[] for _ in kept]
    for row, (names, home) in enumerate(zip(group.dims[side], around, strict=True)):
        extent = [route.sizes[each] for each in home]
        start = torch.full(extent, row * strides[0], dtype=torch.long)
        for slot, place in enumerate(kept):
            name = names[place - 1]
            if name in home:
                start = start + strides[place] * _along(home, name, route)
                copies[slot].append(torch.full((math.prod(extent),), route.copies))
            else:
                copies[slot].append(_copies(name, home, route))
        starts.append(start.reshape(-1))
    columns = [torch.cat(each) for each in copies]
    # A dimension that is a plate in all rows needs no look-up.
    used = [slot for slot, column in enumerate(columns) if not (column == route.copies).all()]
    return _Operand(
        torch.cat(starts),
        tuple([columns[slot] for slot in used]),
        tuple([strides[kept[slot]] for slot in used]),
        over,
    )


def _along(home: tuple[str, ...], plate: str, route: _Route) -> Tensor:
    """The index of each element along one plate, with one dimension for each plate of ``home``."""
    place = home.index(plate)
    return torch.arange(route.sizes[plate]).reshape([-1 if each == place else 1 for each in range(len(home))])


def _copies(name: str, around: tuple[str, ...], route: _Route) -> Tensor:
    """The number of the variable's copy at each element of the plates ``around``, flattened."""
    number = torch.full([route.sizes[each] for each in around], route.first[name], dtype=torch.long)
    stride = 1
    for plate in reversed(route.homes[name]):
        number = number + stride * _along(around, plate, route)
        stride *= route.sizes[plate]
    return number.reshape(-1)


_routes: PerPlan[dict[torch.device, _Route]] = PerPlan(lambda plan: {})


def _route_on(plan: EliminationPlan, device: torch.device) -> _Route:
    """The route with its indices on a device, which is made once."""
    routes = _routes(plan)
    found = routes.get(device)
    if found is None:
        found = _route(plan)
        stops = []
        for stop in found.stops:
            operands = tuple(
                [
                    _Operand(
                        each.start.to(device),
                        tuple([copies.to(device) for copies in each.copies]),
                        each.strides,
                        each.over.to(device),
                    )
                    for each in stop.operands
                ]
            )
            settles = tuple([(copies.to(device), size) for copies, size in stop.settles])
            stops.append(_Stop(stop.group, operands, settles))
        found = routes[device] = replace(found, stops=tuple(stops))
    return found


def walk(plan: EliminationPlan, tape: Tape, decide: Decide, assignments: int = 1) -> dict[str, Choice]:
    """Settles all variables.

    Args:
        plan: the plan that was run.
        tape: its forward sweep, whose records keep the operands.
        decide: chooses states from log-weights.
        assignments: how many assignments are made at once.

    Returns:
        For every variable that some factor mentions, its states: of shape ``(assignments, *plates)``. Those of
        variables that the plan sums out before it maximises others are 0.
    """
    device = tape.value.device
    route = _route_on(plan, device)
    states = torch.zeros(route.copies + 1, assignments, dtype=torch.long, device=device)
    for stop in route.stops:
        operands = [each.reshape(-1) for each in tape.records[stop.group].operands]
        entries = len(stop.settles[0][0]) * len(stop.operands[0].over)
        columns = max(1, WALK_CHUNK // max(1, entries))
        for begin in range(0, assignments, columns):
            part = states[:, begin : begin + columns]
            weights: Tensor | None = None
            for table, layout in zip(operands, stop.operands, strict=True):
                found = table[_index(layout, part)]
                weights = found if weights is None else weights + found
            assert weights is not None
            chosen = decide(weights, slice(begin, begin + part.shape[1]))
            for copies, size in reversed(stop.settles):
                part[copies] = chosen % size
                chosen = chosen // size
    return {name: Choice(_of_variable(states, name, route), route.homes[name]) for name in route.homes}


def _index(layout: _Operand, states: Tensor) -> Tensor:
    """Flat positions, shape (settled, assignments or 1, joint states of what is settled)."""
    index = layout.start.unsqueeze(-1)
    for copies, stride in zip(layout.copies, layout.strides, strict=True):
        index = index + stride * states[copies]
    return index.unsqueeze(-1) + layout.over


def _of_variable(states: Tensor, name: str, route: _Route) -> Tensor:
    extent = [route.sizes[each] for each in route.homes[name]]
    first = route.first[name]
    return states[first : first + math.prod(extent)].movedim(-1, 0).reshape(-1, *extent)
