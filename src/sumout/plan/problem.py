"""One contraction to be ordered: operands that share variables of one ordinal, and what must be kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

Pairs = list[tuple[int, int]]
"""A contraction path in static single assignment: operands count from 0, each pair's result is the next number."""


@dataclass(frozen=True)
class Problem:
    """``operands`` are sets of dimensions; all dimensions but ``keep`` are to be summed out."""

    operands: Sequence[frozenset[str]]
    keep: frozenset[str]
    sizes: Mapping[str, int]

    def elements(self, dims: Iterable[str]) -> int:
        """The number of entries of a table over these dimensions."""
        return math.prod(self.sizes[each] for each in dims)


PathFinder = Callable[[Problem], Pairs]


class Contraction:
    """A contraction in the making: the operands that are left, and the pairs that were multiplied so far."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.pairs: Pairs = []
        self.live: dict[int, frozenset[str]] = dict(enumerate(problem.operands))
        self.users: dict[str, set[int]] = {}
        for number, dims in self.live.items():
            for each in dims:
                self.users.setdefault(each, set()).add(number)

    def multiply(self, lhs: int, rhs: int) -> int:
        """Multiplies two operands and sums out what no other needs; returns the number of the result."""
        union = self.live.pop(lhs) | self.live.pop(rhs)
        number = len(self.problem.operands) + len(self.pairs)
        self.pairs.append((lhs, rhs))
        for each in union:
            self.users[each] -= {lhs, rhs}
        left = frozenset(each for each in union if each in self.problem.keep or self.users[each])
        for each in left:
            self.users[each].add(number)
        self.live[number] = left
        return number

    def multiply_all(self, numbers: Iterable[int]) -> None:
        """Multiplies operands, always the two smallest: equal ones pair up as a balanced tree."""
        heap = [(self.problem.elements(self.live[number]), number) for number in numbers]
        heapify(heap)
        while len(heap) > 1:
            (_, lhs), (_, rhs) = heappop(heap), heappop(heap)
            number = self.multiply(lhs, rhs)
            heappush(heap, (self.problem.elements(self.live[number]), number))


def pairs_from_order(problem: Problem, order: Iterable[str]) -> Pairs:
    """The contraction path of an elimination order.

    To eliminate a variable, the operands that contain it are multiplied, and it is summed out of the last
    product.

    >>> sizes = dict.fromkeys("abc", 2)
    >>> pairs_from_order(Problem([frozenset("ab"), frozenset("bc"), frozenset("a")], frozenset("c"), sizes), "ab")
    [(2, 0), (3, 1)]
    """
    contraction = Contraction(problem)
    for variable in order:
        contraction.multiply_all(contraction.users[variable])
    contraction.multiply_all(contraction.live)
    return contraction.pairs
