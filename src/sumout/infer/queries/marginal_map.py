"""Marginal MAP: the best assignment of some variables, the others summed out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sumout.execute import MAX_SUM
from sumout.infer.answers.readout import site_value
from sumout.infer.answers.result import MarginalAssignment
from sumout.infer.queries.question import (
    Question,
    Target,
    check_names,
    group_of,
    refuse_impossible,
    refuse_scales,
    sites_of,
)
from sumout.infer.solving.leaves import without_leaves
from sumout.infer.solving.solve import plan_for, solve


def marginal_map(
    target: Target, sites: str | Iterable[str], *, max_plate_nesting: int | None = None
) -> Callable[..., MarginalAssignment]:
    """The most probable joint assignment of some sites, whatever the others are.

    All other sites are summed out first and only then is the maximum taken: sums and maxima do not change places.
    This makes for larger tables than either alone; the answer's ``width`` tells how large.

    Args:
        target: a program, or a ``FactorGraph``.
        sites: the name or names of the sites to be assigned.
        max_plate_nesting: as in ``log_evidence``.

    Returns:
        A function of the program's arguments (or of ``evidence=``) that returns a ``MarginalAssignment``: values as
        in ``map_assignment``, and ``log_prob``, the logarithm of their joint probability with the observations
        (differentiable).

    Raises:
        EvidenceError: for a site that is not summed out.
        PlanError: if a site outside of a plate is summed out and one inside is not, which ties the plate's elements
            together, and the plate cannot be written out.
        ModelError: in a model with subsampled plates or scales.
        ImpossibleEvidenceError: if the observations have probability zero.
        EnumerationError, MemoryLimitError: as in ``log_evidence``.

    >>> from sumout.factors import FactorGraph
    >>> graph = FactorGraph.from_tables({"f": (["x", "y"], [[0.4, 0.0, 0.0], [0.2, 0.2, 0.2]])})
    >>> best = marginal_map(graph, ["x"])()
    >>> best["x"], best.log_prob.exp()  # though x = 0, y = 0 is the best assignment of both
    (tensor(1), tensor(0.6000))

    Source: Park and Darwiche, *Complexity results and approximation strategies for MAP explanations* (2004); the
    constrained order is that of Dechter, *Bucket elimination* (1999), section 6.
    """
    question = Question(target, max_plate_nesting)
    names = group_of(sites)

    def query(*args: Any, **kwargs: Any) -> MarginalAssignment:
        graph, trace = question(*args, **kwargs)
        check_names(graph.variables, names)
        refuse_scales(graph, "A marginal MAP")
        smaller = without_leaves(graph, [name for name in graph.variables if name not in names])
        plan = plan_for(smaller, maximised=names, backward=True)
        result = solve(smaller, MAX_SUM, plan=plan)
        refuse_impossible(graph, result.value)
        of_program = sites_of(trace)
        values = {
            name: site_value(of_program[name], result.assignment[name])
            if name in of_program
            else result.assignment[name].states
            for name in names
        }
        states = {name: graph.states[name] for name in names if name in graph.states}
        widest = max((len(graph.variables.keys() & factor.inputs) for factor in graph.factors), default=1)
        return MarginalAssignment(
            values, result.plan, states, result.value, lambda: solve(graph).value, widest
        )

    return query
