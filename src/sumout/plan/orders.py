"""Ways to order an elimination: one function a heuristic, one table that lists them.

- ``path`` asks opt_einsum for a pairwise path;
- ``min_fill`` eliminates the variable that adds the fewest edges to the interaction graph (Kjærulff 1990);
- ``min_weight`` the one whose clique has the smallest table;
- ``absorbed`` does the same after small operands were multiplied into larger ones;
- ``balanced`` in each round an independent set of variables that look alike, so that their steps can run as
  one batch: on a chain this is a parallel scan, on a tree all leaves at once.

None is best everywhere, so the planner tries all and lets the cost model decide.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import opt_einsum

from sumout.plan.problem import Contraction, Pairs, PathFinder, Problem, pairs_from_order


class _Interaction:
    """The graph in which the dimensions of one operand are neighbours; eliminating a node joins its neighbours."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.near: dict[str, set[str]] = {}
        for dims in problem.operands:
            for each in dims:
                self.near.setdefault(each, set()).update(dims)
        for each, others in self.near.items():
            others.discard(each)
        self.left = [each for each in self.near if each not in problem.keep]

    def those_left(self, contraction: Contraction) -> list[str]:
        """The variables that a contraction has not summed out yet; the others leave the graph."""
        for each in self.left:
            if not contraction.users[each]:
                self.eliminate(each)
        self.left = [each for each in self.left if each in self.near]
        return self.left

    def clique_size(self, variable: str) -> int:
        return self.problem.elements(self.near[variable]) * self.problem.sizes[variable]

    def fill(self, variable: str) -> int:
        around = self.near[variable]
        present = sum(len(self.near[each] & around) for each in around)
        return (len(around) * (len(around) - 1) - present) // 2

    def eliminate(self, variable: str) -> set[str]:
        around = self.near.pop(variable)
        for each in around:
            others = self.near[each]
            others |= around
            others -= {each, variable}
        return around


def _one_by_one(
    graph: _Interaction, score: Callable[[_Interaction, str], tuple[int, ...]], reach: int
) -> list[str]:
    """Eliminates the variable of the lowest score until none is left; ``reach`` is how far a score looks.

    Among equals the one goes first that was longest left alone: its operands have been ready for longest, and
    a chain is worked off from both ends, two steps at a time.
    """
    position = {each: number for number, each in enumerate(graph.left)}
    touched_at = dict.fromkeys(graph.left, 0)

    def key(each: str) -> tuple[int, ...]:
        return (*score(graph, each), touched_at[each], position[each])

    keys = {each: key(each) for each in graph.left}
    order: list[str] = []
    while keys:
        variable = min(keys, key=keys.__getitem__)
        del keys[variable]
        order.append(variable)
        around = graph.eliminate(variable) & keys.keys()
        touched_at.update(dict.fromkeys(around, len(order)))
        if reach > 1:
            around = around.union(*(graph.near[each] for each in around)) & keys.keys()
        for each in around:
            keys[each] = key(each)
    return order


def _fill(graph: _Interaction, variable: str) -> tuple[int, ...]:
    return graph.fill(variable), graph.clique_size(variable)


def _weight(graph: _Interaction, variable: str) -> tuple[int, ...]:
    return (graph.clique_size(variable),)


def min_fill(problem: Problem) -> Pairs:
    """Fewest new edges first; the smaller table breaks ties."""
    return pairs_from_order(problem, _one_by_one(_Interaction(problem), _fill, reach=2))


def min_weight(problem: Problem) -> Pairs:
    """Smallest clique table first."""
    return pairs_from_order(problem, _one_by_one(_Interaction(problem), _weight, reach=1))


def absorbed(problem: Problem) -> Pairs:
    """As ``min_weight``, after each operand was multiplied into one that has all its variables, if there is one.

    That makes larger tables, all at once, and fewer steps later on.
    """
    contraction, graph, _ = _absorb(problem)
    graph.those_left(contraction)
    for each in _one_by_one(graph, _weight, reach=1):
        contraction.multiply_all(contraction.users[each])
    contraction.multiply_all(contraction.live)
    return contraction.pairs


def balanced(problem: Problem) -> Pairs:
    """Rounds of variables no two of which are neighbours, those first of which there are many alike.

    Operands are absorbed before the first round, so that the rounds need not come back to them. No table is
    made that is larger than ``_ceiling``, as far as that can be avoided.
    """
    contraction, graph, ceiling = _absorb(problem)
    while left := graph.those_left(contraction):
        looks = {each: (graph.clique_size(each), len(graph.near[each])) for each in left}
        alike = Counter(look for look in looks.values() if look[0] <= ceiling)
        left.sort(key=lambda each: (-alike[looks[each]], looks[each]))
        # What looks like nothing else can wait: the end of a chain would cost every round a step of its own.
        many = alike[looks[left[0]]] // 2
        chosen: list[str] = []
        blocked: set[str] = set()
        for each in left:
            if each not in blocked and (alike[looks[each]] > many or not chosen):
                chosen.append(each)
                blocked |= graph.near[each]
        for each in chosen:
            contraction.multiply_all(contraction.users[each])
    contraction.multiply_all(contraction.live)
    return contraction.pairs


def _ceiling(problem: Problem) -> int:
    """The largest table of a ``min_weight`` order times the largest variable.

    As a bound of tables it admits the squared messages of a scan and no worse.
    """
    graph = _Interaction(problem)
    order = _one_by_one(_Interaction(problem), _weight, reach=1)
    largest = 1
    for variable in order:
        largest = max(largest, graph.clique_size(variable))
        graph.eliminate(variable)
    return largest * max((problem.sizes[each] for each in order), default=1)


def _absorb(problem: Problem) -> tuple[Contraction, _Interaction, int]:
    """Multiplies operands into others that have all their variables, spread evenly over those.

    No product is larger than the ``_ceiling``, which is returned too.
    """
    contraction, ceiling = Contraction(problem), _ceiling(problem)
    scopes = {number: dims - problem.keep for number, dims in contraction.live.items()}
    hosts: dict[int, list[int]] = {}
    for number in sorted(scopes, key=lambda number: len(scopes[number])):
        scope = scopes[number]
        if not scope:
            continue
        others = set.intersection(*(contraction.users[each] for each in scope)) - {number}
        wider = [
            (len(hosts.get(other, ())), other)
            for other in others
            if len(scopes[other]) > len(scope)
            and problem.elements(contraction.live[other] | contraction.live[number]) <= ceiling
        ]
        if wider:
            hosts.setdefault(min(wider)[1], []).append(number)
    for host, guests in hosts.items():
        if not any(host in others for others in hosts.values()):
            contraction.multiply_all([host, *guests])
    return contraction, _Interaction(problem), ceiling


def path(problem: Problem) -> Pairs:
    """opt_einsum's choice: optimal for a few operands, branching for some, greedy for many."""
    if len(problem.operands) < 2:
        return []
    names: dict[str, str] = {}
    for each in itertools.chain.from_iterable(map(sorted, problem.operands)):
        names.setdefault(each, opt_einsum.get_symbol(len(names)))
    inputs = [frozenset(names[each] for each in dims) for dims in problem.operands]
    output = frozenset(names[each] for each in problem.keep if each in names)
    sizes = {symbol: problem.sizes[each] for each, symbol in names.items()}
    linear = opt_einsum.paths.auto(inputs, output, sizes)
    pairs: Pairs = []
    for step in opt_einsum.paths.linear_to_ssa(linear):
        # A path may end in one step of several operands; products are associative.
        first = step[0]
        for other in step[1:]:
            pairs.append((first, other))
            first = len(inputs) + len(pairs) - 1
    return pairs


ORDERS: dict[str, PathFinder] = {
    "path": path,
    "min_fill": min_fill,
    "min_weight": min_weight,
    "absorbed": absorbed,
    "balanced": balanced,
}
"""Every heuristic by name; the planner tries them in this order and keeps the cheapest plan."""
