"""One contraction to be ordered, in numbers: a variable is a bit, an operand the set of its bits, a size a logarithm.

Sets of names would say the same; as bits of an integer, a union or an intersection is one operation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

Pairs = list[tuple[int, int]]
"""A contraction path in static single assignment: operands count from 0, each pair's result is the next number."""

Path = tuple[tuple[int, int], ...]
"""The pairs of a path that is finished."""

UNIT = 2**20
"""What a factor of two adds to a log-size. Integers are added up without rounding, so that ties are ties."""


def log_size(size: int) -> int:
    """The logarithm of a size, in units.

    >>> log_size(8) // UNIT
    3
    """
    return round(math.log2(size) * UNIT)


def entries(logs: int) -> float:
    """How many entries a table of this log-size has, nearly; beyond 2**1000, which none has, all are alike.

    >>> round(entries(log_size(4) + log_size(3)), 3)
    12.0
    """
    return float(2.0 ** min(logs / UNIT, 1000.0))


def bits(mask: int) -> list[int]:
    """The numbers of the bits that are set.

    >>> bits(0b10110)
    [1, 2, 4]
    """
    found = []
    while mask:
        low = mask & -mask
        mask ^= low
        found.append(low.bit_length() - 1)
    return found


@dataclass(frozen=True, eq=False)
class Problem:
    """``operands`` are sets of variables; all variables but those of ``keep`` are to be summed out.

    ``sizes`` are those of the variables by number. Where numbers are given in the order of appearance, as
    ``problem`` does, contractions that differ by names alone are equal in all three.
    """

    operands: tuple[int, ...]
    keep: int
    sizes: tuple[int, ...]

    @cached_property
    def logs(self) -> list[int]:
        """The log-sizes of the variables."""
        return [log_size(size) for size in self.sizes]

    @cached_property
    def operand_sizes(self) -> list[float]:
        """The entries of the operands."""
        return [self.size(mask) for mask in self.operands]

    @cached_property
    def users(self) -> list[list[int]]:
        """For each variable the operands that have it."""
        users: list[list[int]] = [[] for _ in self.sizes]
        for number, mask in enumerate(self.operands):
            for each in bits(mask):
                users[each].append(number)
        return users

    def log_size(self, mask: int) -> int:
        """The log-size of a table over a set of variables."""
        logs, total = self.logs, 0
        while mask:
            low = mask & -mask
            mask ^= low
            total += logs[low.bit_length() - 1]
        return total

    def size(self, mask: int) -> float:
        """The entries of a table over a set of variables; infinite where a float ends."""
        sizes, total = self.sizes, 1.0
        while mask:
            low = mask & -mask
            mask ^= low
            total *= sizes[low.bit_length() - 1]
        return total

    @property
    def key(self) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
        """Equal for contractions that differ by names alone."""
        return self.operands, self.keep, self.sizes


def problem(operands: Iterable[Iterable[str]], keep: Iterable[str], sizes: Mapping[str, int]) -> Problem:
    """A contraction in numbers; variables of one state that are to go are left out, for they cost nothing.

    >>> problem(["ab", "bcd"], "c", {"a": 2, "b": 1, "c": 3, "d": 2})
    Problem(operands=(1, 6), keep=2, sizes=(2, 3, 2))
    """
    kept = frozenset(keep)
    bit_of: dict[str, int] = {}
    of_operands: list[int] = []
    found: list[int] = []
    for operand in operands:
        mask = 0
        for name in operand:
            bit = bit_of.get(name)
            if bit is None:
                size = sizes[name]
                bit = 1 << len(found) if size > 1 or name in kept else 0
                bit_of[name] = bit
                if bit:
                    found.append(size)
            mask |= bit
        of_operands.append(mask)
    return Problem(tuple(of_operands), sum(bit_of.get(each, 0) for each in kept), tuple(found))
