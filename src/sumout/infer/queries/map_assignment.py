"""The most probable assignment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sumout.execute import MAX_SUM
from sumout.infer.answers.readout import site_value
from sumout.infer.answers.result import Assignment
from sumout.infer.collapsing.results import best_values, groups_of, left_out, maximised
from sumout.infer.programs.graphs import graph_of_trace
from sumout.infer.queries.question import Question, Target, refuse_impossible, sites_of
from sumout.infer.queries.row_answers import log_evidence_of_rows, map_of_rows
from sumout.infer.queries.runs import map_of_runs
from sumout.infer.rows.weights import for_maxima
from sumout.infer.solving.solve import solve


def map_assignment(
    target: Target, *, max_plate_nesting: int | None = None, enumeration: str = "parallel"
) -> Callable[..., Assignment]:
    """A most probable joint assignment of all summed-out sites, given the observations.

    Args:
        target: a program, or a ``FactorGraph``.
        max_plate_nesting, enumeration: as in ``log_evidence``.

    Returns:
        A function of the program's arguments (or of ``evidence=``) that returns an ``Assignment``: values as the
        sites would have drawn them, or state indices for a graph, with the plates' batch shape. Sites that ``collapse``
        integrates out are maximised over with all others: the joint density is largest at these values. Predictions
        that are not normal with a known scale are left out: the rest is as in the program without them.

    Raises:
        ImpossibleEvidenceError: if the observations have probability zero.
        ModelError: if a collapsed site has no most probable value.
        EnumerationError, PlanError, MemoryLimitError: as in ``log_evidence``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(x):
    ...     z = sumout.sample("z", dist.Bernoulli(0.5))
    ...     sumout.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)
    >>> best = map_assignment(model)(torch.tensor(1.0))
    >>> best["z"], best.log_prob.exp()
    (tensor(1.), tensor(0.4000))
    """
    question = Question(target, max_plate_nesting, enumeration)

    def query(*args: Any, **kwargs: Any) -> Assignment:
        rows = question.table(args, kwargs)
        if rows is not None:
            states, plan, log_prob = map_of_rows(*rows)
            return Assignment(states, plan, rows[0].states, log_prob, lambda: log_evidence_of_rows(*rows))
        runs = question.runs(args, kwargs)
        if runs[0].sites:
            return map_of_runs(runs)
        graph, trace, _ = runs[0]
        groups = groups_of(trace)
        of_maxima = graph_of_trace(maximised(trace)) if groups and trace is not None else graph
        result = solve(for_maxima(of_maxima), MAX_SUM)
        refuse_impossible(graph, result.value)
        of_program = sites_of(trace)
        values = {
            name: site_value(of_program[name], choice) if name in of_program else choice.states
            for name, choice in ((name, result.assignment[name]) for name in graph.variables)
        }
        values.update(best_values(groups, result.assignment) if groups else {})
        found = Assignment(values, result.plan, graph.states, result.value, lambda: solve(graph).value)
        found.left_out = left_out(groups)
        return found

    return query
