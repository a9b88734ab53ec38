"""A factor graph with variables summed out that only one table has, again and again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import torch

from sumout.factors import FactorGraph
from sumout.plan import Readout


def without_leaves(graph: FactorGraph, names: Collection[str]) -> FactorGraph:
    """The graph with some variables summed out on the spot: those that one factor alone mentions.

    Where the sum is the same for all states of the others, as it is of a conditional probability, it no longer
    mentions them, and may leave another variable to one factor alone. Unobserved effects of several causes then do not
    tie these together, however long the chain of effects: they are barren (Shachter, *Evaluating influence diagrams*,
    1986). Tables whose gradient is wanted are left as they are.

    Args:
        graph: without scales.
        names: the variables that may be summed out.

    Returns:
        A graph with the same ``log Z``.

    >>> weather = FactorGraph.from_tables(
    ...     {"sun": (["sun"], [0.5, 0.5]), "wind": (["wind"], [0.5, 0.5]),
    ...      "sails|sun,wind": (["sun", "wind", "sails"], [[[0.9, 0.1], [0.5, 0.5]], [[0.3, 0.7], [0.0, 1.0]]])},
    ... )
    >>> [factor.inputs for factor in without_leaves(weather, ["sails"]).factors]
    [('sun',), ('wind',), ()]
    """
    names = set(names)
    factors = list(graph.factors)
    users: dict[str, set[int]] = {}
    for place, factor in enumerate(factors):
        for name in names.intersection(factor.inputs):
            users.setdefault(name, set()).add(place)
    waiting = list(range(len(factors)))
    while waiting:
        place = waiting.pop()
        factor = factors[place]
        own = [
            name
            for name in factor.inputs
            if name in names and len(users[name]) == 1 and graph.variables[name].plates == factor.plates
        ]
        if not own or factor.data.requires_grad:
            continue
        kept = tuple([name for name in factor.inputs if name not in own])
        data = factor.data.logsumexp([factor.inputs.index(name) for name in own])
        # A variable that no other factor mentions is summed out later: its states count, also in a constant.
        needed = any(name in names and len(users[name]) == 1 for name in kept)
        if (
            not needed
            and data.numel() > 1
            and bool(data.amax() - data.amin() <= 4 * torch.finfo(data.dtype).eps)
        ):
            kept, data = (), data.mean()
        for name in names.intersection(factor.inputs).difference(kept):
            users[name].discard(place)
            waiting += users[name]
        factors[place] = replace(factor, inputs=kept, data=data)
    gone = {name for name, left in users.items() if not left}
    variables = {name: variable for name, variable in graph.variables.items() if name not in gone}
    states = {name: labels for name, labels in graph.states.items() if name in variables}
    return FactorGraph(tuple(factors), variables, graph.plates, states)


def about(graph: FactorGraph, wanted: Iterable[Readout]) -> FactorGraph:
    """The part of a graph that tells of some variables: the others are summed out where that costs nothing."""
    asked = {name for each in wanted for name in ((each,) if isinstance(each, str) else each)}
    rest = [name for name in graph.variables if name not in asked]
    if not rest or any(factor.scale != 1 for factor in graph.factors):
        return graph
    if any(plate.scale != 1 for plate in graph.plates.values()):
        return graph
    return without_leaves(graph, rest)


def barren(
    inputs: Sequence[Sequence[str]],
    hidden: Collection[str],
    constant: Callable[[int, tuple[str, ...]], bool],
) -> dict[int, tuple[str, ...]]:
    """Tables whose sum over variables that no other table has left is the same for all else, one after the other.

    In a Bayesian network these are the conditional probabilities of what was neither observed nor asked for, and has no
    effect that was (Shachter 1986). To leave them out changes the answer by a known factor. One table stays.

    Args:
        inputs: the variables of each table.
        hidden: those that may be summed out: not observed, nor asked for.
        constant: whether the sum of a table over some of its variables has equal entries.

    Returns:
        The numbers of the tables in the order in which they go, each with the variables that go with it.

    >>> barren([["a"], ["a", "b"], ["b", "c"]], ["b", "c"], lambda table, over: True)
    {2: ('c',), 1: ('b',)}
    """
    users: dict[str, set[int]] = {}
    for place, names in enumerate(inputs):
        for name in names:
            if name in hidden:
                users.setdefault(name, set()).add(place)
    gone: dict[int, tuple[str, ...]] = {}
    waiting = list(range(len(inputs)))
    while waiting and len(gone) + 1 < len(inputs):
        place = waiting.pop()
        own = tuple([name for name in inputs[place] if len(users.get(name, ())) == 1])
        if own and place not in gone and constant(place, own):
            gone[place] = own
            for name in inputs[place]:
                if name in users:
                    users[name].discard(place)
                    waiting += users[name]
    return gone
