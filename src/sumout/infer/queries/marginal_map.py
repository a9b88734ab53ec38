"""Marginal MAP: the best assignment of some variables, the others summed out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from sumout.errors import EnumerationError
from sumout.execute import LOG_SUM_EXP, MAX_SUM, Result
from sumout.infer.answers.readout import site_value
from sumout.infer.answers.result import MarginalAssignment
from sumout.infer.programs.graphs import ProgramGraph
from sumout.infer.queries.question import (
    Question,
    Target,
    check_names,
    group_of,
    refuse_impossible,
    refuse_scales,
    sites_of,
)
from sumout.infer.queries.runs import log_evidence_of_runs
from sumout.infer.solving.leaves import without_leaves
from sumout.infer.solving.solve import plan_for, solve


def marginal_map(
    target: Target,
    sites: str | Iterable[str],
    *,
    max_plate_nesting: int | None = None,
    enumeration: str = "parallel",
) -> Callable[..., MarginalAssignment]:
    """The most probable joint assignment of some sites, whatever the others are.

    All other sites are summed out first and only then is the maximum taken: sums and maxima do not change places.
    This makes for larger tables than either alone; the answer's ``width`` tells how large.

    Args:
        target: a program, or a ``FactorGraph``.
        sites: the name or names of the sites to be assigned.
        max_plate_nesting, enumeration: as in ``log_evidence``.

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
    question = Question(target, max_plate_nesting, enumeration)
    names = group_of(sites)

    def query(*args: Any, **kwargs: Any) -> MarginalAssignment:
        runs = question.runs(args, kwargs)
        check_names({name for run in runs for name in (*run.graph.variables, *run.sites)}, names)
        for run in runs:
            refuse_scales(run.graph, "A marginal MAP")
            _refuse_steering(run, names)
        found = [_of_run(run, names) for run in runs]
        best = max(range(len(runs)), key=lambda number: float(found[number][0].value.detach()))
        result, values = found[best]
        graph = runs[best].graph
        refuse_impossible(graph, result.value)
        states = {name: graph.states[name] for name in names if name in graph.states}
        widest = max((len(graph.variables.keys() & factor.inputs) for factor in graph.factors), default=1)
        return MarginalAssignment(
            values, result.plan, states, result.value, lambda: log_evidence_of_runs(runs), widest
        )

    return query


def _of_run(run: ProgramGraph, names: Sequence[str]) -> tuple[Result, dict[str, Tensor]]:
    """The best of one run, and the values of those sites that it has."""
    graph, of_program = run.graph, sites_of(run.trace)
    maximised = tuple([name for name in names if name in graph.variables])
    smaller = without_leaves(graph, [name for name in graph.variables if name not in maximised])
    # Where nothing is left to be assigned, all is summed out.
    plan = plan_for(smaller, maximised=maximised, backward=True)
    result = solve(smaller, MAX_SUM if maximised else LOG_SUM_EXP, plan=plan)
    values = {}
    if result.value > -torch.inf:
        for name in names:
            if name in run.sites:
                values[name] = run.sites[name].value
            elif name in of_program and name in maximised:
                values[name] = site_value(of_program[name], result.assignment[name])
            elif name in maximised:
                values[name] = result.assignment[name].states
    return result, values


def _refuse_steering(run: ProgramGraph, names: Sequence[str]) -> None:
    """Raises ``EnumerationError`` if a site that steers the program is to be summed out."""
    for name in run.sites:
        if name not in names:
            raise EnumerationError(
                f"Site {name!r} is enumerated sequentially and is not among those to be assigned, {tuple(names)}: the "
                "sum over it is one over runs of the program, and the maximum of a sum is not to be had from the runs' "
                "maxima. Name it too, or enumerate it in parallel."
            )
