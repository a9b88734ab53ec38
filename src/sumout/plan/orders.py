"""Ways to order an elimination: one function a heuristic, one table that lists them.

- ``min_fill`` eliminates the variable that adds the fewest edges to the interaction graph (Kjærulff 1990);
- ``min_weight`` the one whose clique has the smallest table, ``min_degree`` the one with the fewest neighbours;
- ``weighted_fill`` the one whose new edges join the fewest pairs of states;
- ``greedy`` is the best of the first two and of several by fill with a little noise;
- ``absorbed`` is the same after small operands were multiplied into larger ones;
- ``balanced`` and ``scan`` eliminate in each round an independent set of variables that look alike, so that their
  steps can run as one batch.

All but the last begin with the eliminations that no order does better (``interaction.reduced``). None is best
everywhere, so the planner tries several and lets the cost model decide. Slower ones are in ``search``.
"""

from __future__ import annotations

from collections.abc import Callable

from sumout.plan.balanced import balanced, scan
from sumout.plan.contraction import Contraction, follow
from sumout.plan.interaction import Interaction, Key
from sumout.plan.opening import Opening, sure
from sumout.plan.problem import bits

PathFinder = Callable[[Opening], Contraction | None]
"""Takes what is known of a problem and returns its finished contraction, or ``None`` where it has none to offer."""


def min_fill(opening: Opening) -> Contraction:
    """Fewest new edges first; the smaller table breaks ties."""
    return opening.follow(opening.by_fill)


def min_weight(opening: Opening) -> Contraction:
    """Smallest clique table first."""
    return opening.follow(opening.by_weight)


def min_degree(opening: Opening) -> Contraction:
    """Fewest neighbours first; the smaller table breaks ties."""

    def key(graph: Interaction, variable: int) -> Key:
        return graph.near[variable].bit_count(), graph.weight[variable]

    return opening.follow(sure(opening.line(key)))


def weighted_fill(opening: Opening) -> Contraction:
    """The smallest sum, over the new edges, of the product of their ends' sizes first."""
    sizes = opening.problem.sizes

    def key(graph: Interaction, variable: int) -> Key:
        around, joined = graph.near[variable], 0
        if graph.fill[variable]:
            for each in bits(around):
                lacking = around & ~graph.near[each] & ~((2 << each) - 1)
                joined += sizes[each] * sum([sizes[other] for other in bits(lacking)])
        return joined, graph.weight[variable]

    return opening.follow(sure(opening.line(key)))


def greedy(opening: Opening) -> Contraction:
    """The order with the smallest cliques of several greedy ones."""
    return opening.follow(opening.best)


def absorbed(opening: Opening) -> Contraction:
    """The same order, after operands were multiplied into others that have all their variables.

    That makes larger tables, all at once, and fewer steps later on.
    """
    return follow(opening.problem, opening.best.order, opening.absorbed())


ORDERS: dict[str, PathFinder] = {
    "greedy": greedy,
    "absorbed": absorbed,
    "balanced": balanced,
    "scan": scan,
    "min_fill": min_fill,
    "min_weight": min_weight,
    "min_degree": min_degree,
    "weighted_fill": weighted_fill,
}
"""Every heuristic by name."""

BATCHING = ("balanced", "scan")
"""Those that make more flops for fewer launches."""

DEFAULT = ("greedy", "absorbed", "balanced", "scan")
"""Those that the planner tries when it is not told which."""
