"""Dependence between sites, as a directed graph over their names."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from sumout.effects.message import Message
from sumout.effects.trace.sites import site_is_subsample
from sumout.errors import ModelError

Edges = dict[str, dict[str, None]]  # successors by site; a dict keeps the order in which edges were added


def dense_edges(nodes: Mapping[str, Message]) -> Iterator[tuple[str, str]]:
    """Every pair of sample sites, earlier first, that the plates do not declare independent.

    Two sites are independent where they lie in different elements of one iterated plate.

    >>> list(dense_edges({"x": Message(type="sample", name="x"), "y": Message(type="sample", name="y")}))
    [('x', 'y')]
    """
    past: list[tuple[str, Message]] = []
    for name, site in nodes.items():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        yield from ((past_name, name) for past_name, before in past if not _independent(before, site))
        past.append((name, site))


def _independent(one: Message, other: Message) -> bool:
    counters = {frame.name: frame.counter for frame in one["cond_indep_stack"]}
    return any(
        counters.get(frame.name, frame.counter) != frame.counter for frame in other["cond_indep_stack"]
    )


def topological_order(names: list[str], successors: Edges) -> list[str]:
    """The names with every edge leading forwards; otherwise in the given order.

    Raises:
        ModelError: if the edges form a cycle.

    >>> topological_order(["x", "y", "z"], {"z": {"x": None}})
    ['y', 'z', 'x']
    """
    waiting = dict.fromkeys(names, 0)
    for targets in successors.values():
        for target in targets:
            waiting[target] += 1
    order: list[str] = []
    position = {name: i for i, name in enumerate(names)}
    ready = [position[name] for name in names if waiting[name] == 0]  # a heap: sorted already
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(name)
        for target in successors.get(name, ()):
            waiting[target] -= 1
            if waiting[target] == 0:
                heapq.heappush(ready, position[target])
    if len(order) < len(names):
        stuck = [name for name in names if waiting[name] > 0]
        raise ModelError(f"The edges among {stuck} form a cycle, so there is no topological order.")
    return order
