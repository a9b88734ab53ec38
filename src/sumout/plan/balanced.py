"""Orders whose steps can run as few batches: on a chain this is a parallel scan, on a tree all leaves at once."""

from __future__ import annotations

from sumout.plan.contraction import Contraction, follow
from sumout.plan.interaction import one_by_one
from sumout.plan.opening import Opening, weight
from sumout.plan.problem import bits, entries

_PATIENCE = 8
"""So many times, on average, a variable is looked at; where that is not enough, rounds do not pay."""


def balanced(opening: Opening) -> Contraction | None:
    """Rounds of variables no two of which are neighbours, those first of which there are many alike.

    Operands are absorbed before the first round, so that the rounds need not come back to them. No table is made
    that is larger than the opening's ``ceiling``, as far as that can be avoided. Where few are alike, the rest is
    eliminated one by one, smallest cliques first.
    """
    return _in_rounds(opening, opening.ceiling)


def scan(opening: Opening) -> Contraction | None:
    """As ``balanced``, with tables up to the cube of the largest message.

    So large are the steps of a parallel scan over a chain whose message has several variables: a factorial or
    higher-order chain, a ladder. ``None`` where ``balanced`` does the same, or where one such table is too much.
    """
    ceiling = 3 * opening.best.message
    if not opening.ceiling < ceiling or opening.hopeless(entries(ceiling)):
        return None
    return _in_rounds(opening, ceiling)


def _in_rounds(opening: Opening, ceiling: int) -> Contraction | None:
    contraction = opening.absorbed()
    users, graph = contraction.users, opening.graph.copy()
    patience = _PATIENCE * len(users)
    while patience > 0:
        for each in bits(graph.left):
            if not users[each]:
                graph.eliminate(each)  # It was summed out with another.
        left = bits(graph.left)
        patience -= len(left)
        if not left:
            break
        for each in _alike(graph.weight, graph.near, left, ceiling):
            contraction.multiply_all(users[each])
            graph.eliminate(each)
        if opening.hopeless(contraction.flops, contraction.entries, contraction.launching):
            return None
    rest = one_by_one(graph, weight)
    assert rest is not None  # Without a bound there is an order.
    return follow(opening.problem, rest, contraction)


def _alike(weights: list[int], near: list[int], left: list[int], ceiling: int) -> list[int]:
    """Variables of one round, by the size of their clique and the number of their neighbours."""
    classes: dict[tuple[int, int], list[int]] = {}
    for each in left:
        classes.setdefault((weights[each], near[each].bit_count()), []).append(each)
    ranked = sorted([(-len(those) if look[0] <= ceiling else 0, look) for look, those in classes.items()])
    # What looks like nothing else can wait: the end of a chain would cost every round a step of its own.
    many = -ranked[0][0] // 2
    chosen: list[int] = []
    blocked = 0
    for count, look in ranked:
        if -count <= many and chosen:
            break
        for each in classes[look]:
            if not blocked >> each & 1:
                chosen.append(each)
                blocked |= near[each]
                if many == 0:
                    return chosen
    return chosen
