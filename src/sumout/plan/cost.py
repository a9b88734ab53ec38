"""What a schedule costs, in flops, bytes and kernel launches, and about how long that takes.

A contraction is judged before it is scheduled, by the same three numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sumout.plan.groups import Schedule
from sumout.plan.memory import peak_of
from sumout.text import memory


@dataclass(frozen=True)
class Machine:
    """Rates by which costs are weighed: only their ratios matter for the choice of a plan.

    The defaults are of two cores of a current CPU running torch in float64: a batched product of small
    matrices does about 2e9 multiply-adds a second, a pass over memory with an exponential about 2e8 entries,
    and a group of steps has about 60 microseconds of overhead, its share of the backward sweep included.
    """

    flops_per_second: float = 2e9
    entries_per_second: float = 2e8
    seconds_per_launch: float = 6e-5

    def seconds(self, flops: float, entries: float, launches: float) -> float:
        """A rough running time, to compare plans by; infinite where a float ends."""
        try:
            return (
                flops / self.flops_per_second
                + entries / self.entries_per_second
                + launches * self.seconds_per_launch
            )
        except OverflowError:
            return float("inf")


def rounded(count: float) -> str:
    """A count in three digits, however large it is.

    >>> rounded(1234567), rounded(10**400)
    ('1.23e+06', '1e+400')
    """
    return f"{count:.3g}" if count < 1e300 else f"1e+{int(math.log10(count))}"


def figure(count: float) -> str:
    """A count with all its digits, as long as they can be read.

    >>> figure(1234567), figure(123456789012345)
    ('1,234,567', '1.23e+14')
    """
    return f"{count:,.0f}" if count < 1e12 else rounded(count)


def in_bytes(count: float) -> str:
    """So many bytes in a unit that fits, however many they are."""
    return memory(count) if count < 1e300 else f"{rounded(int(count) >> 60)} EiB"


FLOPS_ALONE = Machine(1e9, float("inf"), 0.0)
"""Nothing counts but multiply-adds, as in most of the literature."""


@dataclass(frozen=True)
class Cost:
    """``flops`` are multiply-adds; ``entries`` are table entries read and written; ``launches`` are groups."""

    flops: int
    entries: int
    launches: int
    peak_entries: int
    """The most table entries alive at once in a forward sweep, temporary copies included."""
    peak_with_backward: int
    """The same where the sweep is kept for a backward sweep or a walk, that included."""

    def seconds(self, machine: Machine) -> float:
        """A rough running time, to compare plans by."""
        return machine.seconds(self.flops, self.entries, self.launches)


def cost_of(schedule: Schedule) -> Cost:
    """Adds up a schedule without running it."""
    peak = peak_of(schedule)
    return Cost(
        flops=sum(group.work for group in schedule.groups),
        entries=sum(group.read + group.written for group in schedule.groups),
        launches=len(schedule.groups),
        peak_entries=peak.forward,
        peak_with_backward=peak.both,
    )
