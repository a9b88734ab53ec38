"""The model's part of a bound: its graph with all that the guide lacks summed out, as terms.

Variables that no factor connects are summed out apart from each other. What is left of each component is a table over
the guide's variables that it depends on, one for each element of the plates around the whole component.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.errors import EnumerationError
from sumout.factors import Factor, FactorGraph, Plate, Variable
from sumout.factors.unroll import unroll
from sumout.infer.objectives.guide_run import GuideRun
from sumout.infer.objectives.terms import Table, Term, factor_term, union
from sumout.infer.rows.batched import BatchedGraph, solve_elements
from sumout.infer.rows.weights import absorbed, weighted_parts, without_part
from sumout.infer.solving.solve import solve

Places = Mapping[str, int]
"""The numbers of sites in their run, by the names of their factors."""


class Component(NamedTuple):
    """Factors that variables connect.

    The plates around all of them, ``home``, and the guide's variables that they depend on are dimensions of the graph's
    answer: its batch.
    """

    graph: BatchedGraph
    home: frozenset[str]
    weight: float
    site: int

    def term(self, weights: Factor | None = None) -> Term:
        """What is left when the variables are summed out; with weights, each element's times its own."""
        table = Table(tuple(self.graph.batch), solve_elements(self.graph))
        if weights is not None:
            data = table.data * Table(weights.inputs, weights.data).along(table.names)
            table = table._replace(data=data)
        return Term(table, self.home, self.weight, self.site)


def model_terms(
    graph: FactorGraph,
    guide: GuideRun,
    places: Places,
    apart: bool = False,
    powers: Mapping[str, Factor] | None = None,
) -> list[Term]:
    """The terms of a model.

    Args:
        graph: of the model's run; its variables are summed out.
        guide: the guide's run, on whose variables the factors may depend.
        places: where each factor's site stands in the run.
        apart: whether components in which nothing is given are terms of their own too; otherwise there is one
            number for all of them.
        powers: scales of factors that differ from element to element of their plates.

    Raises:
        PlateError: if the factors of what is summed out in an element have different such scales.
        PlanError, MemoryLimitError: as ``solve`` does. Where a component depends on the guide's variables of all
            elements of a plate at once, the plate is written out.
    """
    terms: list[Term] = []
    for part in weighted_parts(graph, powers) if powers else ():
        if graph.variables.keys().isdisjoint(part.outer):
            terms.append(component_of(part.factors, graph, guide, places).term(part.weights))
            graph = without_part(graph, part)
        else:
            graph = absorbed(graph, part, guide.variables)
    if not guide.variables and not apart:
        return [*terms, Term(Table((), solve(graph).value))]
    together: list[Factor] = []
    for factors in groups(graph):
        seen = any(name in guide.variables for factor in factors for name in factor.inputs)
        if not apart and not seen:
            together += factors
        elif any(name in graph.variables for factor in factors for name in factor.inputs):
            terms.append(component_of(factors, graph, guide, places).term())
        else:
            terms += [factor_term(factor, graph, site=places.get(factor.name, 0)) for factor in factors]
    if together:
        terms.append(Term(Table((), solve(_part(together, graph)).value)))
    return terms


def component_of(factors: Sequence[Factor], graph: FactorGraph, guide: GuideRun, places: Places) -> Component:
    """A group of a model's factors with its variables; plates are written out where that is needed."""
    part = _part(factors, graph)
    given = guide.variables
    seen = {name: given[name] for factor in factors for name in factor.inputs if name in given}
    home = frozenset.intersection(*(variable.plates for variable in part.variables.values()))
    deeper = {plate for variable in seen.values() for plate in variable.plates - home}
    if deeper:
        part, seen = _written_out(part, guide, deeper)
    batch = {plate: graph.plates[plate].size for plate in sorted(home)}
    batch |= {name: variable.size for name, variable in seen.items()}
    weight = 1.0
    for plate in home:
        weight *= graph.plates[plate].scale
    inner = BatchedGraph(
        tuple([replace(factor, plates=factor.plates - home) for factor in part.factors]),
        {name: replace(variable, plates=variable.plates - home) for name, variable in part.variables.items()},
        {name: plate for name, plate in part.plates.items() if name not in home},
        batch=batch,
    )
    site = max(places.get(factor.name, 0) for factor in factors)
    return Component(inner, home, weight, site)


def _part(factors: Sequence[Factor], graph: FactorGraph) -> FactorGraph:
    """Some factors of a graph with their variables."""
    if len(factors) == len(graph.factors):
        return graph
    met = {name for factor in factors for name in factor.inputs}
    variables = {name: each for name, each in graph.variables.items() if name in met}
    return FactorGraph(tuple(factors), variables, graph.plates)


def summed_over_runs(
    runs: Sequence[list[Term]], guide: GuideRun, plates: Mapping[str, Plate], scale: float = 1.0
) -> Term:
    """The logarithm of the sum over runs of the model, each with another value of sites that steer it, as one term.

    ``scale`` is the power that the sum is raised to, with all that is in it.

    Raises:
        EnumerationError: if the sum depends on the guide's variables of all elements of a plate at once.
    """
    names, totals = totals_of_runs(runs, guide, plates)
    site = max((term.site for terms in runs for term in terms), default=0)
    return Term(Table(names[1:], (totals / scale).logsumexp(0) * scale), site=site)


RUN = "run of the model"
"""The name of a dimension."""


def totals_of_runs(runs: Sequence[list[Term]], guide: GuideRun, plates: Mapping[str, Plate]) -> Table:
    """The logarithm of what each run of the model is, along the dimension ``RUN``, which is the first.

    Raises:
        EnumerationError: as ``summed_over_runs``.
    """
    copies = guide.weights.local
    local = [
        copies.get(name, name)
        for terms in runs
        for term in terms
        for name in term.table.names
        if name in copies or (name in guide.variables and guide.variables[name].plates)
    ]
    if local:
        raise EnumerationError(
            f"Site {local[0]!r} of the guide is enumerated for each element of a plate, and the model enumerates other "
            "sites sequentially: their sum depends on the values of all elements at once. Enumerate the model's "
            "sites in parallel, or in the guide too."
        )
    names = union(*[term.table.names for terms in runs for term in terms])
    names = tuple([name for name in names if name not in plates])
    totals = []
    for terms in runs:
        total: Tensor | None = None
        for term in terms:
            data = term.table.data
            summed = [place for place, name in enumerate(term.table.names) if name in plates]
            missing = [plates[name].size for name in term.plates.difference(term.table.names)]
            data = (data.sum(summed) if summed else data) * (term.weight * math.prod(missing))
            kept = tuple([name for name in term.table.names if name not in plates])
            part = Table(kept, data).along(names)
            total = part if total is None else total + part
        totals.append(torch.zeros([1] * len(names)) if total is None else total)
    return Table((RUN, *names), torch.stack(torch.broadcast_tensors(*totals)))  # type: ignore[no-untyped-call]


def groups(graph: FactorGraph) -> list[list[Factor]]:
    """The factors of a graph in groups that share no variables, each in the graph's order.

    >>> graph = FactorGraph.from_tables(
    ...     {"a": (["x"], [0.5, 0.5]), "b": (["y"], [0.5, 0.5]), "c": (["x"], [0.1, 0.2]), "d": ([], 0.5)},
    ... )
    >>> [[factor.name for factor in group] for group in groups(graph)]
    [['a', 'c'], ['b'], ['d']]
    """
    group_of: dict[str, list[Factor]] = {}
    found: dict[int, list[Factor]] = {}
    order = {id(factor): place for place, factor in enumerate(graph.factors)}
    for factor in graph.factors:
        met = {id(group_of[name]): group_of[name] for name in factor.inputs if name in group_of}
        group = max(met.values(), key=len) if met else []
        for other in met.values():
            if other is not group:
                group += other
                del found[id(other)]
                for each in other:
                    group_of.update({name: group for name in each.inputs if name in graph.variables})
        group.append(factor)
        found[id(group)] = group
        group_of.update({name: group for name in factor.inputs if name in graph.variables})
    for group in found.values():
        group.sort(key=lambda factor: order[id(factor)])
    return sorted(found.values(), key=lambda group: order[id(group[0])])


def _written_out(
    graph: FactorGraph, guide: GuideRun, plates: Collection[str]
) -> tuple[FactorGraph, dict[str, Variable]]:
    """A component with plates written out, and the guide's variables that it then depends on.

    The guide's variables are written out too, each with its probabilities: what is summed out in the model ties all
    elements of the plates together.
    """
    own = len(graph.factors)
    known, given = guide.weights, guide.variables
    factors = [
        Factor(name, known.tables[name].names, known.tables[name].data, variable.plates)
        for name, variable in given.items()
    ]
    both = replace(graph, factors=(*graph.factors, *factors), variables={**graph.variables, **given})
    written, copies = unroll(both, plates)
    for (source, at), factor in zip(copies.factors, written.factors, strict=True):
        if source >= own and at:
            original = both.factors[source].name
            name = copies.at(original, dict(at))
            copy = written.variables[name]
            table = Table(factor.inputs, factor.data)
            known.add(name, table, copy.size, local=original if copy.plates else None)
    mine = [
        factor for (source, _), factor in zip(copies.factors, written.factors, strict=True) if source < own
    ]
    met = {name for factor in mine for name in factor.inputs}
    variables = {name: each for name, each in written.variables.items() if name in met}
    seen = {name: each for name, each in variables.items() if name in known.tables}
    inner = {name: each for name, each in variables.items() if name not in seen}
    return FactorGraph(tuple(mine), inner, graph.plates), seen
