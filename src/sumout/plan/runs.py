"""Runs: groups of a schedule that do the same again and again to what the one before made.

A chain that is eliminated from its ends is one: a vector of messages is multiplied by evidence, then by a matrix, many
times over. An executor takes such a run as one loop, and does all at once what need not wait for the vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain

from sumout.plan.groups import Group, Rows

_LEAST = 4
"""Cycles from which on it pays."""

_Like = tuple[object, ...]
"""What groups of a run have in common."""


@dataclass(frozen=True)
class Run:
    """Cycles of one or two groups: maybe a product of the carried table with a smaller one, element by element, and
    then one with another that sums something out.

    ``sides`` tell for each group of a cycle which operand is carried. The first group's comes from outside; each other
    one is the whole result of the group before. With ``cut`` the first cycle has its last group alone.
    """

    start: int
    cycles: int
    sides: tuple[int, ...]
    groups: tuple[Group, ...]
    """All of the run."""
    cut: bool = False

    @property
    def stop(self) -> int:
        """The number of the group after the last."""
        return self.start + len(self.groups)

    @cached_property
    def entries(self) -> int:
        """Of all tables that are read and written."""
        return sum([group.read + group.written for group in self.groups])

    @property
    def cycle(self) -> tuple[Group, ...]:
        """The groups of the last cycle; the others are like it."""
        return self.groups[-len(self.sides) :]

    @property
    def head_side(self) -> int:
        """Which operand of the first group is carried."""
        return self.sides[-1 if self.cut else 0]

    @property
    def head(self) -> tuple[Rows, ...]:
        """The carried operand of the first group."""
        return self.groups[0].operands[self.head_side]

    def numbers(self, place: int) -> range:
        """The numbers of the groups that stand in one place of their cycles."""
        period = len(self.sides)
        return range(self.start + (place + self.cut) % period, self.stop, period)

    @cached_property
    def others(self) -> tuple[tuple[Rows, ...], ...]:
        """For each place of a cycle the other operands: parts that each hold the rows of all cycles, in their order."""
        return tuple([self._others(place, self.cycles) for place in range(len(self.sides))])

    @cached_property
    def first_others(self) -> tuple[tuple[Rows, ...], ...]:
        """The same of the first cycle alone."""
        return tuple([self._others(place, 1) for place in range(len(self.sides))])

    def _others(self, place: int, count: int) -> tuple[Rows, ...]:
        groups = [self.groups[number - self.start] for number in self.numbers(place)[:count]]
        members = [group.operands[1 - self.sides[place]] for group in groups]
        return tuple(
            [
                Rows(
                    parts[0].group,
                    tuple(chain.from_iterable([each.numbers for each in parts])),
                    False,
                    parts[0].order,
                )
                for parts in zip(*members, strict=True)
            ]
        )


def runs_of(groups: Sequence[Group]) -> dict[int, Run]:
    """The longest runs, by the number of their first group."""
    found: dict[int, Run] = {}
    number = 0
    while number < len(groups):
        run = _run_from(groups, number, 2) or _cut_run(groups, number) or _run_from(groups, number, 1)
        if run is not None:
            found[number] = run
        number = number + 1 if run is None else run.stop
    return found


def _cut_run(groups: Sequence[Group], start: int) -> Run | None:
    """A run of two groups a cycle that begins with the second."""
    rest = _run_from(groups, start + 1, 2)
    if rest is None:
        return None
    first, side = groups[start], rest.sides[-1]
    if (
        _carried(groups, start + 1) != rest.sides[0]
        or _like(rest.groups[0], rest.sides[0]) != _like(rest.cycle[0], rest.sides[0])
        or _like(first, side, outside=True) != _headless(_like(rest.cycle[-1], side))
    ):
        return None  # The whole result of the first is carried, so nothing else reads it.
    return Run(start, rest.cycles + 1, rest.sides, (first, *rest.groups), cut=True)


def _run_from(groups: Sequence[Group], start: int, period: int) -> Run | None:
    # The second cycle tells what the first has to be like, for that may take any table as the carried one.
    second = range(start + period, start + 2 * period)
    if second.stop > len(groups):
        return None
    found = [_carried(groups, number) for number in second]
    sides = tuple([side for side in found if side is not None])
    if len(sides) < period or not _is_cycle(groups, second, sides):
        return None
    likes = [_like(groups[number], side) for number, side in zip(second, sides, strict=True)]
    cycles = 0
    while start + (cycles + 1) * period <= len(groups):
        numbers = range(start + cycles * period, start + (cycles + 1) * period)
        if not all(map(partial(_belongs, groups, start), numbers, sides, likes)):
            break
        cycles += 1
    if cycles < _LEAST:
        return None
    return Run(start, cycles, sides, tuple(groups[start : start + cycles * period]))


def _belongs(groups: Sequence[Group], start: int, number: int, side: int, like: _Like) -> bool:
    """Whether a group is the next of a run: like those in its place, its other operand made before the run."""
    group, outside = groups[number], number == start
    if _like(group, side, outside) != (_headless(like) if outside else like):
        return False
    if not outside and _carried(groups, number) != side:
        return False
    return all(rows.group is None or rows.group < start for rows in group.operands[1 - side])


def _carried(groups: Sequence[Group], number: int) -> int | None:
    """Which operand is the whole result of the group before."""
    for side, parts in enumerate(groups[number].operands):
        if len(parts) == 1 and parts[0].group == number - 1 and parts[0].whole:
            return side
    return None


def _is_cycle(groups: Sequence[Group], numbers: Sequence[int], sides: Sequence[int]) -> bool:
    """Whether the last group sums, and another before it multiplies by what has no dimensions of its own."""
    *before, last = [groups[number] for number in numbers]
    if any(each.kind != "contract" or each.maximum for each in (*before, last)) or not last.blocks[2]:
        return False
    for group, side in zip(before, sides, strict=False):
        _, left, summed, right = group.blocks
        if summed or (right if side == 0 else left):
            return False
    return True


def _like(group: Group, side: int, outside: bool = False) -> _Like:
    """What groups of a run have in common; ``outside`` leaves out where the carried operand comes from."""
    if group.kind != "contract":
        return ()
    parts = group.operands[1 - side]
    others = tuple([(rows.group, len(rows.numbers), rows.order) for rows in parts])
    order = None if outside else group.operands[side][0].order
    return group.kind, group.rows, group.blocks, group.maximum, group.once, others, order


def _headless(like: _Like) -> _Like:
    return (*like[:-1], None)
