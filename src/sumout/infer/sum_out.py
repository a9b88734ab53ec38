"""Some variables are summed out and the others are left: one factor graph becomes a smaller one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

import torch

from sumout.errors import PlanError
from sumout.execute import execute
from sumout.factors import Factor, FactorGraph, Variable
from sumout.infer.batched import BatchedGraph
from sumout.plan import EliminationPlan, make_plan
from sumout.plan.components import components
from sumout.settings import settings


def sum_out(graph: FactorGraph, names: Collection[str]) -> tuple[FactorGraph, list[EliminationPlan]]:
    """The factor graph of the other variables, with the same ``log Z``, and the plans that were run.

    Args:
        graph: without scales.
        names: the variables to sum out. Those that hang together become one factor over all others that they touch.

    Raises:
        PlanError: if a variable outside of a plate is to be summed, and one inside it that it touches is not: the sum
            is over all elements of the plate at once.
        MemoryLimitError: before anything is allocated, if a plan is larger than ``settings.memory_limit``.

    >>> pair = [[0.5, 0.5], [1.0, 0.0]]
    >>> smaller, _ = sum_out(FactorGraph.from_tables({"f": (["x", "y"], pair), "g": (["y", "z"], pair)}), ["y"])
    >>> [(factor.inputs, factor.data.exp()) for factor in smaller.factors]
    [(('x', 'z'), tensor([[0.7500, 0.2500],
            [0.5000, 0.5000]]))]
    """
    names = set(names)
    factors = [*_leaves_summed(graph, names), *_of_the_unmentioned(graph, names)]
    left: list[Factor] = []
    plans: list[EliminationPlan] = []
    for component in components(factors, names):
        if names.isdisjoint(component[0].inputs):
            left += component
            continue
        factor, plan = _summed(graph, component, names)
        left.append(factor)
        plans.append(plan)
    variables = {name: variable for name, variable in graph.variables.items() if name not in names}
    states = {name: labels for name, labels in graph.states.items() if name in variables}
    return FactorGraph(tuple(left), variables, graph.plates, states), plans


def _of_the_unmentioned(graph: FactorGraph, names: Iterable[str]) -> list[Factor]:
    """Factors of ones for variables without a factor, whose states count all the same."""
    mentioned = {name for factor in graph.factors for name in factor.inputs}
    like = graph.factors[0].data if graph.factors else torch.zeros(())
    return [
        Factor(
            f"ones over {name}",
            (name,),
            like.new_zeros(graph.variables[name].size),
            graph.variables[name].plates,
        )
        for name in names
        if name not in mentioned
    ]


def _leaves_summed(graph: FactorGraph, names: set[str]) -> list[Factor]:
    """The factors with variables that only one of them has summed out on the spot, again and again.

    Where the sum is the same for all states of the others, as it is of a conditional probability, it no longer
    mentions them: unobserved effects of a cause then do not tie it to other causes. Tables whose gradient is
    wanted are left as they are.
    """
    factors = dict(enumerate(graph.factors))
    users: dict[str, set[int]] = {}
    for place, factor in factors.items():
        for name in factor.inputs:
            if name in names:
                users.setdefault(name, set()).add(place)
    waiting = list(factors)
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
        if data.numel() > 1 and bool(data.amax() - data.amin() <= 4 * torch.finfo(data.dtype).eps):
            kept, data = (), data.mean()
        for name in factor.inputs:
            if name in names and name not in kept:
                users[name].discard(place)
                waiting += users[name]
        factors[place] = replace(factor, inputs=kept, data=data)
    return list(factors.values())


def _summed(graph: FactorGraph, component: list[Factor], names: set[str]) -> tuple[Factor, EliminationPlan]:
    """The factor of the variables that a component of summed ones touches."""
    inside = list(dict.fromkeys(name for factor in component for name in factor.inputs if name in names))
    touched = list(
        dict.fromkeys(
            name
            for factor in component
            for name in factor.inputs
            if name in graph.variables and name not in names
        )
    )
    home = frozenset().union(*(graph.variables[name].plates for name in touched))
    for name in inside:
        lacking = home - graph.variables[name].plates
        if lacking:
            kept = next(each for each in touched if lacking & graph.variables[each].plates)
            raise PlanError(
                f"{name!r} is summed out and touches {kept!r}, which is not and lives in the plate "
                f"{min(lacking)!r}, outside of which {name!r} is: the copies of {kept!r} are then tied together. "
                f"Sum out {kept!r} too, keep {name!r}, or write the plate as a loop."
            )
    batch = [*sorted(home), *touched]
    sizes = {each: graph.size(each) for each in batch}
    variables = {
        name: Variable(graph.variables[name].size, graph.variables[name].plates - home) for name in inside
    }
    plates = {name: plate for name, plate in graph.plates.items() if name not in home}
    factors = tuple([replace(factor, plates=factor.plates - home) for factor in component])
    part = BatchedGraph(factors, variables, plates, batch=sizes)
    plan = make_plan(part.structure)
    data = component[0].data
    backward = torch.is_grad_enabled() and any(factor.data.requires_grad for factor in component)
    plan.check_memory(settings.memory_limit, data.element_size(), backward)
    value = execute(plan, part).value
    return Factor(f"sum over {', '.join(inside)}", tuple(batch), value, home), plan
