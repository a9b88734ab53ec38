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


def pairs_from_order(problem: Problem, order: Iterable[str]) -> Pairs:
    """The contraction path of an elimination order.

    To eliminate a variable, the operands that contain it are multiplied, smallest first, and it is summed out
    of the last product. Equal operands thus pair up as a balanced tree, which can run as few batched steps.

    >>> sizes = dict.fromkeys("abc", 2)
    >>> pairs_from_order(Problem([frozenset("ab"), frozenset("bc"), frozenset("a")], frozenset("c"), sizes), "ab")
    [(2, 0), (3, 1)]
    """
    live: dict[int, frozenset[str]] = dict(enumerate(problem.operands))
    users: dict[str, set[int]] = {}
    for number, dims in live.items():
        for each in dims:
            users.setdefault(each, set()).add(number)
    pairs: Pairs = []

    def merge_all(numbers: Iterable[int]) -> None:
        heap = [(problem.elements(live[number]), number) for number in numbers]
        heapify(heap)
        while len(heap) > 1:
            (_, lhs), (_, rhs) = heappop(heap), heappop(heap)
            union = live.pop(lhs) | live.pop(rhs)
            number = len(problem.operands) + len(pairs)
            pairs.append((lhs, rhs))
            for each in union:
                users[each] -= {lhs, rhs}
            live[number] = frozenset(each for each in union if each in problem.keep or users[each])
            for each in live[number]:
                users[each].add(number)
            heappush(heap, (problem.elements(live[number]), number))

    for variable in order:
        merge_all(users[variable])
    merge_all(live)
    return pairs
