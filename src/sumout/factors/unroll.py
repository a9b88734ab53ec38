"""A factor graph with plates written out, by the plan for it in ``sumout.plan.unroll``: tables become views."""

from __future__ import annotations

from collections.abc import Iterable

from sumout.factors.graph import FactorGraph
from sumout.factors.parts import Factor, Variable
from sumout.plan import Unrolled
from sumout.plan import unroll as unroll_structure


def unroll(graph: FactorGraph, plates: Iterable[str]) -> tuple[FactorGraph, Unrolled]:
    """Writes plates out: one variable for each copy, and one factor for each element.

    Args:
        graph: the plated graph.
        plates: the names of the plates. One in which a factor has no variables stays a plate for that factor.

    Returns:
        A graph with the same sum over all assignments, and what became of each variable and factor.

    Raises:
        PlanError: if a plate is subsampled and variables live in it.

    >>> import torch
    >>> coins = FactorGraph.from_tables(
    ...     {"side": (["coin", "side"], torch.tensor([[0.5, 0.5], [0.1, 0.9]]))},
    ...     plates={"coin": 2}, ordinals={"side": ["coin"]},
    ... )
    >>> [(factor.inputs, factor.data.exp()) for factor in unroll(coins, ["coin"])[0].factors]
    [(('side[coin=0]',), tensor([0.5000, 0.5000])), (('side[coin=1]',), tensor([0.1000, 0.9000]))]
    """
    copies = unroll_structure(graph.structure, tuple(sorted(plates)))
    factors = []
    for shape, (source, at) in zip(copies.structure.factors, copies.factors, strict=True):
        factor, data = graph.factors[source], graph.factors[source].data
        inputs = list(factor.inputs)
        for plate, index in at:
            if plate in inputs:
                data = data.select(inputs.index(plate), index)
                inputs.remove(plate)
        name = factor.name + (f"[{','.join(f'{plate}={index}' for plate, index in at)}]" if at else "")
        factors.append(Factor(name, shape.inputs, data, shape.plates, factor.scale))
    sizes = dict(copies.structure.sizes)
    variables = {name: Variable(sizes[name], plates) for name, plates in copies.structure.variables}
    states = {
        new: labels
        for name, labels in graph.states.items()
        for new in (copies.copies[name][1].values() if name in copies.copies else (name,))
    }
    return FactorGraph(tuple(factors), variables, graph.plates, states), copies
