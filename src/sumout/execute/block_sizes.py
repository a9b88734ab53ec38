"""Of how many steps the blocks are that a chain of Gaussian factors is integrated in: what costs least."""

from __future__ import annotations

import math
from functools import lru_cache

_ROUND = 5e-4
"""Seconds that a round takes with its derivatives, however little there is to do."""
_MATRIX = 2.5e-6
"""Seconds for each matrix."""
_FLOP = 1e-9
"""Seconds for each operation on small matrices."""
_VECTOR_FLOP = 4e-10
"""Seconds for each operation on vectors, of which there are many for one matrix."""
_LARGEST = 64
"""Steps of a block."""


@lru_cache(maxsize=1024)
def schedule(steps: int, size: int, groups: int, series: int, even: bool) -> tuple[int, bool]:
    """How a chain is integrated: the steps of a block, and whether blocks are taken in order.

    >>> schedule(999, 4, 1, 1, even=True)  # One precision: few large blocks, side by side.
    (14, False)
    >>> schedule(100, 8, 10_000, 1, even=False)  # So many precisions that rounds cost nothing.
    (1, True)
    """
    best = (math.inf, 1, True)
    for block in range(1, min(steps, _LARGEST) + 1):
        options = (
            [(_cost_in_order, True)] if block == 1 else [(_cost_in_order, True), (_cost_of_rounds, False)]
        )
        for cost, in_order in options:
            best = min(best, (cost(steps, block, size, groups, series, even), block, in_order))
    return best[1:]


def _cost_in_order(steps: int, block: int, size: int, groups: int, series: int, even: bool) -> float:
    one = _cost(block * size, size, groups, groups * series)
    return math.ceil(steps / block) * one


def _cost_of_rounds(steps: int, block: int, size: int, groups: int, series: int, even: bool) -> float:
    total = 0.0
    rest = 0
    while steps > block:
        steps, left = divmod(steps, block)
        rest += left
        rows = groups * steps
        total += _cost((block - 1) * size, 2 * size, groups if even else rows, rows * series)
    return total + _cost((steps + rest) * size, size, groups, groups * series)


def _cost(inner: int, outer: int, matrices: int, vectors: int) -> float:
    """Seconds, roughly, for integrating some variables out of factors."""
    of_matrix = inner**3 / 3 + inner * inner * outer + inner * outer * outer + 20 * inner * inner
    of_vector = inner * inner + 2 * inner * outer + 10 * (inner + outer)
    return _ROUND + matrices * (_MATRIX + _FLOP * of_matrix) + vectors * _VECTOR_FLOP * of_vector
