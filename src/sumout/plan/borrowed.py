"""Paths that other libraries find: opt_einsum's optimizers, and cotengra's where it is installed."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from typing import Any

import opt_einsum

from sumout.errors import MissingExtraError
from sumout.plan.contraction import Contraction, along
from sumout.plan.opening import Opening
from sumout.plan.problem import Pairs, bits

_MOST_EXHAUSTIVE = 30
"""Operands that ``dp`` and ``branch`` are given at most: their time grows exponentially."""

Scopes = tuple[list[frozenset[str]], frozenset[str], dict[str, int]]
"""Operands, what is kept, and sizes, by opt_einsum's symbols."""


def _symbols(opening: Opening) -> Scopes:
    problem = opening.problem
    symbol = [opt_einsum.get_symbol(number) for number in range(len(problem.sizes))]
    inputs = [frozenset([symbol[each] for each in bits(mask)]) for mask in problem.operands]
    output = frozenset([symbol[each] for each in bits(problem.keep)])
    return inputs, output, dict(zip(symbol, problem.sizes, strict=True))


def _pairs(path: list[tuple[int, ...]], operands: int) -> Pairs:
    """A path in static single assignment, in pairs only; products are associative."""
    pairs: Pairs = []
    made: list[int] = []  # The number of each step's result.
    for step in path:
        numbers = [each if each < operands else made[each - operands] for each in step]
        first = numbers[0]
        for other in numbers[1:]:
            pairs.append((first, other))
            first = operands + len(pairs) - 1
        made.append(first)
    return pairs


def _by_opt_einsum(opening: Opening, optimizer: Any) -> Iterator[Contraction]:
    linear = optimizer(*_symbols(opening))
    ssa = opt_einsum.paths.linear_to_ssa(linear)
    yield along(opening.problem, _pairs(ssa, len(opening.problem.operands)))


def opt_greedy(opening: Opening, _: float) -> Iterator[Contraction]:
    """opt_einsum's greedy pairwise path."""
    return _by_opt_einsum(opening, opt_einsum.paths.greedy)


def random_greedy(opening: Opening, seconds: float) -> Iterator[Contraction]:
    """opt_einsum's greedy with noise, for as long as there is time."""
    return _by_opt_einsum(
        opening, opt_einsum.RandomGreedy(max_repeats=10**6, max_time=seconds, minimize="flops")
    )


def dp(opening: Opening, _: float) -> Iterator[Contraction]:
    """opt_einsum's dynamic programming: the best path; for up to 30 operands, as its time is exponential."""
    if len(opening.problem.operands) <= _MOST_EXHAUSTIVE:
        yield from _by_opt_einsum(opening, opt_einsum.DynamicProgramming(minimize="flops"))


def branch(opening: Opening, _: float) -> Iterator[Contraction]:
    """opt_einsum's search of the two best pairs at each step; for up to 30 operands."""
    if len(opening.problem.operands) <= _MOST_EXHAUSTIVE:
        yield from _by_opt_einsum(opening, opt_einsum.BranchBound(nbranch=2, minimize="flops"))


def cotengra(opening: Opening, seconds: float) -> Iterator[Contraction]:
    """cotengra's hyper-optimizer (Gray and Kourtis 2021), for as long as there is time; of the extra ``search``.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        library = importlib.import_module("cotengra")
    except ImportError:
        raise MissingExtraError("cotengra", "search", "The order 'cotengra'") from None
    inputs, output, sizes = _symbols(opening)
    # An operand without variables has no place in its graphs: it is multiplied in at the end.
    full = [number for number, scope in enumerate(inputs) if scope]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # About optional packages that it lacks.
        optimizer = library.HyperOptimizer(
            max_time=seconds, max_repeats=10**6, minimize="flops", parallel=False, progbar=False
        )
        try:
            tree = optimizer.search(
                [tuple(sorted(inputs[each])) for each in full], tuple(sorted(output)), sizes
            )
        except KeyError:
            return  # Its time ended before its first trial did.
    operands = len(inputs)
    rest = [number for number, scope in enumerate(inputs) if not scope]
    path = [
        tuple([full[each] if each < len(full) else operands + each - len(full) for each in step])
        for step in tree.get_ssa_path()
    ]
    pairs = _pairs(path, operands)
    for number in rest:
        pairs.append((operands + len(pairs) - 1 if pairs else full[0], number))
    yield along(opening.problem, pairs)
