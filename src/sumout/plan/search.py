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
    draw = random.Random(0)
    least_total = opening.best.total
    best = min(opening.follow(opening.best), refined(opening.follow(opening.best)), key=opening.seconds)
    yield best
    tries, tried_for_best = 0, 0
    while time.perf_counter() < end - 0.1 * seconds and tries < _PATIENCE + 2 * tried_for_best:
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
    leaves = 6
    while leaves < 9 and time.perf_counter() < end:
        found = min(best, refined(best, leaves, parts=20), key=opening.seconds)
        leaves += found is best
        best = found
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
