"""How many table entries are alive at once while a schedule runs: a bound, known before anything is allocated.

What is counted is what ``execute`` makes: operands that have to be copied to lie together, results until they have been
read, and the temporary tables of each operation, in the way of making it that needs the most. Tables that are given are
not counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from sumout.plan.groups import Group, Rows, Schedule
from sumout.plan.runs import runs_of

CHUNK = 2**16
"""Entries up to which an operation makes its whole joint table; a larger one is made in parts, each no larger than this
or than what the operation reads and writes, whichever is more."""

AT_ONCE = 2**16
"""Entries up to which a run of groups is made at once, where nothing of a sweep is kept ..."""

KEPT_AT_ONCE = 2**22
"""... and where it is. What is larger is made group by group."""

WALK_CHUNK = 2**18
"""Entries of the weights of states that a walk back makes at once, if that is enough for one assignment."""

_FLAGS = 4
"""Truth values that take as much as an entry, in float32; it is more in float64."""


class Peak(NamedTuple):
    """The most entries alive at once."""

    forward: int
    """In a forward sweep of which nothing is kept."""
    both: int
    """In one that is kept, and in the way back."""


def peak_of(schedule: Schedule) -> Peak:
    """Follows a schedule forwards, and forwards and backwards, without running it."""
    number_of_totals = sum([len(rows.numbers) for rows in schedule.totals])
    last = 16 + 4 * number_of_totals * max([1, *[group.written for group in schedule.groups[-1:]]])
    held = _in_parts(schedule)
    forward, kept = _forward(schedule, held)
    runs = [run.entries for run in runs_of(schedule.groups).values()]
    forward += 2 * max([each for each in runs if each <= AT_ONCE], default=0)
    at_once = [each for each in runs if each <= KEPT_AT_ONCE]
    return Peak(
        forward + last, max(kept, _backward(schedule, held)) + sum(at_once) + max(at_once, default=0) + last
    )


def walk_bytes(schedule: Schedule, copies: Mapping[str, int], itemsize: int, assignments: int) -> int:
    """Bytes that settling all variables takes beside the sweep that was kept.

    Args:
        schedule: what was run.
        copies: how many copies each variable has.
        itemsize: bytes of a number; indices take eight.
        assignments: how many are made at once.
    """
    most = 0
    for group in schedule.groups:
        if group.kind == "product" or not group.steps[0].over:
            continue
        states = math.prod(group.blocks[2 if group.kind == "contract" else 1])
        entries = states * sum([copies[step.over[0]] for step in group.steps])
        most = max(most, entries, min(entries * assignments, WALK_CHUNK))
    largest = max([group.read for group in schedule.groups], default=0)
    # The states in the walk's own table and in those of each variable; two indices and five tables of weights.
    of_states = 2 * 8 * assignments * (1 + sum(copies.values()))
    return of_states + most * (3 * 8 + 5 * itemsize) + largest * itemsize + 4 * assignments * itemsize


def joint_part(group: Group) -> int:
    """The entries of the largest part of a joint table that is made at once."""
    return min(group.work, max(CHUNK, group.read + group.written))


def _forward(schedule: Schedule, held: frozenset[int]) -> tuple[int, int]:
    """The most at once in a forward sweep: of which nothing is kept, and which is kept."""
    groups = schedule.groups
    rows_left = [group.rows for group in groups]
    staying = _staying(schedule)
    alive = alive_or_kept = most = most_kept = 0
    for group in sorted(groups, key=lambda each: not each.once):
        now = copied = 0
        for side, shape in zip(group.operands, group.shapes, strict=True):
            copies, pieces = _stacked(side, math.prod(shape))
            now = max(now, copied + copies + pieces)
            copied += copies
        now = max(now, copied + _forward_work(group))
        most, most_kept = max(most, alive + now), max(most_kept, alive_or_kept + now)
        alive += group.written
        alive_or_kept += group.written + _kept(group)
        for side in group.operands:
            for rows in side:
                if rows.group is not None:
                    rows_left[rows.group] -= len(rows.numbers)
                    if rows_left[rows.group] == 0 and rows.group not in staying:
                        alive -= groups[rows.group].written
                        if rows.group not in held:
                            alive_or_kept -= groups[rows.group].written
    return most, most_kept


def _backward(schedule: Schedule, held: frozenset[int]) -> int:
    groups = schedule.groups
    of_held = sum([groups[number].written for number in held | _staying(schedule)])
    kept, handed_back, most = of_held + sum(map(_kept, groups)), 0, 0
    for group in reversed(groups):
        gathered = 2 * group.written
        most = max(most, kept + handed_back + gathered + _backward_work(group))
        if not group.once:
            kept -= _kept(group)
        handed_back += group.read  # The beliefs of factors stay, and with them what they are views of.
    return most


def _staying(schedule: Schedule) -> frozenset[int]:
    """Groups that run once and are read in every slice."""
    readers = [
        rows for group in schedule.groups if not group.once for side in group.operands for rows in side
    ]
    readers += schedule.totals
    return frozenset(
        [rows.group for rows in readers if rows.group is not None and schedule.groups[rows.group].once]
    )


def _stacked(side: tuple[Rows, ...], entries: int) -> tuple[int, int]:
    """Of an operand: the entries that are copied, and those of pieces that are copied before that."""
    copied = [len(rows.numbers) > 1 if rows.group is None else not _is_view(rows) for rows in side]
    if len(side) > 1:
        each = entries // sum([len(rows.numbers) for rows in side])
        return entries, sum(
            [each * len(rows.numbers) for rows, copy in zip(side, copied, strict=True) if copy]
        )
    return entries * (copied[0] + (side[0].order is not None)), 0


def _is_view(rows: Rows) -> bool:
    return rows.whole or isinstance(rows.index, slice)


def _in_parts(schedule: Schedule) -> frozenset[int]:
    """Groups whose results are read in several parts: a part that is kept as a view keeps all of it."""
    readers = [rows for group in schedule.groups for side in group.operands for rows in side]
    return frozenset([rows.group for rows in readers if rows.group is not None and not rows.whole])


def _kept(group: Group) -> int:
    """What the record of a group has at most: its operands, as they are or exponentiated, and its result."""
    return group.read + group.written


def _forward_work(group: Group) -> int:
    """Temporary tables beside the operands, and the result."""
    read, written = group.read, group.written
    if group.kind == "product":
        return 2 * written
    if group.kind == "sum":
        return read + 3 * written
    lhs, rhs = (math.prod(shape) for shape in group.shapes)
    count, left, summed = group.matrices[0]
    right = group.matrices[1][2]
    # On probabilities, operands may have to be scaled, and their least positive entries to be found.
    scaled = read + max(lhs, rhs) + -(-max(lhs, rhs) // _FLAGS)
    if not group.blocks[2]:
        return max(scaled, read + written)
    if left == 1 or right == 1:
        return max(scaled, read + max(lhs, rhs) + 3 * written)
    shifts = count * (left + right)
    # Looking for products that underflowed: which entries are possible, and of a part of the rows the products.
    looked_at = min(read + written, max(CHUNK, count * (summed + right)))
    exponentials = read + rhs + -(-rhs // _FLAGS) + -(-3 * looked_at // 2)
    in_logarithms = 2 * joint_part(group)
    return max(scaled, shifts + 2 * written + max(exponentials, in_logarithms))


def _backward_work(group: Group) -> int:
    """Temporary tables beside the record and what came back, and what is handed back."""
    if group.kind != "contract":
        return 3 * group.read + 2 * group.written
    joint = joint_part(group) if group.blocks[2] else 0
    return 3 * group.read + 3 * group.written + -(-group.written // _FLAGS) + 2 * joint
