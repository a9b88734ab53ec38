"""Searches that take as long as they are given: one function a search, one table that lists them.

``random`` tries greedy orders with noise, and rearranges the costliest parts of every path that is good. The others are
other libraries' (``borrowed``).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence

from sumout.plan.borrowed import branch, cotengra, dp, opt_greedy, random_greedy
from sumout.plan.choose import Chooser
from sumout.plan.contraction import Contraction
from sumout.plan.interaction import Interaction, Key
from sumout.plan.opening import Opening
from sumout.plan.orders import ORDERS
from sumout.plan.problem import UNIT
from sumout.plan.refine import refined

Search = Callable[[Opening, float], Iterator[Contraction]]
"""Takes what is known of a problem and the seconds that there are; yields contractions, the better ones later."""

_PATIENCE = 500
"""So many tries may find nothing better."""

_LEAST_SECONDS = 1.0
"""What a search by name is given where no time limit was set."""

_SHARE, _SECONDS, _PER_VARIABLE = 0.1, 5e-3, 2e-5
"""Where neither a search nor a time was asked for, a search takes this share of the time that the plan is estimated to
run, and not more than so many seconds and so many for each variable ..."""

_LONG_SHARE, _MOST_SECONDS = 0.01, 0.5
"""... or this share of it, if that is more, and not more than these seconds."""

_MANY = 10
"""Tries after which ``counted`` looks at the best path once more."""

_LAST_ROUNDS = ((5, 300), (6, 100), (7, 60), (8, 40))
"""How the best path is rearranged in the end: leaves of a part, and parts; each again as long as it helps."""

_PER_TRY, _PER_CHOICE, _PER_OPERAND = 2e-3, 2e-5, 5e-6
"""Seconds of a try of ``counted``: measured on one core of a current CPU."""


def _noisy(draw: random.Random) -> Callable[[Interaction, int], Key]:
    """A greedy key of one of four kinds, with noise of one of several strengths."""
    noise, exponential = draw.choice((0.03, 0.1, 0.3, 1.0)), draw.expovariate
    share = draw.choice((0.5, 1.0))
    kind = draw.randrange(5)
    if kind == 0:  # Small cliques.
        return lambda graph, each: graph.weight[each] + noise * UNIT * exponential(1.0)
    if kind == 1:  # Small messages.
        return lambda graph, each: (
            graph.weight[each] - share * graph.logs[each] + noise * UNIT * exponential(1.0)
        )
    if kind == 2:  # Small cliques, the more edges they add the later.
        return lambda graph, each: (
            graph.weight[each]
            + share * UNIT * (1 + graph.fill[each]).bit_length()
            + noise * UNIT * exponential(1.0)
        )
    return lambda graph, each: (graph.fill[each] * (1.0 + noise * exponential(1.0)), graph.weight[each])


def randomised(opening: Opening, seconds: float) -> Iterator[Contraction]:
    """Greedy orders with noise, always the same in the same problem; the best paths are rearranged in parts.

    It ends before its time where many tries in a row found nothing better.
    """
    end = time.perf_counter() + seconds
    best = _start(opening)
    for found in _tried(opening, best, lambda: time.perf_counter() < end - 0.15 * seconds):
        best = found
        yield best
    number = 0
    while number < len(_LAST_ROUNDS) and time.perf_counter() < end:
        found = min(best, refined(best, *_LAST_ROUNDS[number]), key=opening.seconds)
        number += found is best
        best = found
    yield best


def counted(opening: Opening, seconds: float) -> Iterator[Contraction]:
    """As ``randomised``, but tries are counted and not timed: so every process finds the same."""
    choices, operands = opening.reduced.graph.left.bit_count(), len(opening.problem.operands)
    tries = left = int(seconds / (_PER_TRY + choices * _PER_CHOICE + operands * _PER_OPERAND))
    if tries <= 0:
        return

    def more() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    best = _start(opening)
    for found in _tried(opening, best, more):
        best = found
        yield best
    if tries >= _MANY:
        yield min(best, refined(best, *_LAST_ROUNDS[0]), key=opening.seconds)


def _start(opening: Opening) -> Contraction:
    """What has won before, or the best greedy order."""
    if opening.incumbent is not None:
        return opening.incumbent
    best = opening.follow(opening.best)
    return min(best, refined(best), key=opening.seconds)


def _tried(opening: Opening, best: Contraction, more: Callable[[], bool]) -> Iterator[Contraction]:
    """The best contraction, and what greedy orders with noise find, as long as there may be ``more``: ever better."""
    yield best
    draw = random.Random(0)
    least_total = opening.best.total
    tries, tried_for_best = 0, 0
    while tries < _PATIENCE + 2 * tried_for_best and more():
        tries += 1
        line = opening.line(_noisy(draw), 1.5 * least_total)
        if line is None:
            continue
        least_total = min(least_total, line.total)
        found = opening.follow(line)
        if found.flops < 2.0 * best.flops:
            found = min(found, refined(found), key=opening.seconds)
        if opening.seconds(found) < opening.seconds(best):
            best, tried_for_best = found, tries
            yield best


SEARCHES: dict[str, Search] = {
    "random": randomised,
    "opt_greedy": opt_greedy,
    "random_greedy": random_greedy,
    "dp": dp,
    "branch": branch,
    "cotengra": cotengra,
}
"""Every search by name."""


def search(chooser: Chooser, orders: Sequence[str], seconds: float) -> None:
    """Fills a chooser with candidates: of the quick heuristics first, then of searches.

    Args:
        chooser: what compares them.
        orders: keys of ``ORDERS`` and ``SEARCHES``.
        seconds: the time of all searches together; if it is not zero and no search is named, it is ``random``'s.
            If it is zero and several heuristics are named, and no search, ``random`` still makes a try or two where
            that costs less than a tenth of the time that the plan is estimated to run, and more where it costs less
            than a hundredth: what takes a minute to run is worth some hundred tries.
    """
    named = [each for each in orders if each in SEARCHES]
    if len(named) < len(orders) or chooser.only_one:
        chooser.try_orders([each for each in orders if each in ORDERS])
        chooser.refine()
    if chooser.only_one:
        return
    if seconds > 0.0 and not named:
        named = ["random"]
    for name in named:
        chooser.search(name, SEARCHES[name], (seconds or _LEAST_SECONDS) / len(named))
    if not named and len(orders) > 1:
        variables = sum([len(problem.sizes) for problem, _, _ in chooser.problems.values()])
        few = min(_SHARE * chooser.seconds, _SECONDS + _PER_VARIABLE * variables)
        chooser.search("random", counted, max(few, min(_LONG_SHARE * chooser.seconds, _MOST_SECONDS)))
