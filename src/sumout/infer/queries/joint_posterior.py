"""The joint posterior of a group of variables: what entropies, mutual information and expectations are made of."""

from __future__ import annotations

from typing import Any

from sumout.infer.answers.joint import Joint
from sumout.infer.answers.readout import joint, joint_of
from sumout.infer.queries.question import (
    Question,
    check_names,
    refuse_continuous,
    refuse_impossible,
    sites_of,
)
from sumout.infer.queries.row_answers import marginals_of_rows
from sumout.infer.queries.runs import marginals_of_runs
from sumout.infer.solving.leaves import about
from sumout.infer.solving.solve import solve


def joint_posterior(
    question: Question, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Joint:
    """The joint table of some variables, given what a query was called with; of rows of evidence, the rows first.

    Where a program has some of them in some runs only, it is that given that all are there.

    Raises:
        EvidenceError: for a name that is not summed out.
        ImpossibleEvidenceError: if the observations have probability zero.
        EnumerationError, PlanError, MemoryLimitError: as in ``log_evidence``.
    """
    rows = question.table(args, kwargs)
    if rows is not None:
        tables, _, _ = marginals_of_rows(*rows, (names,))
        return joint_of(rows[0], {}, names, tables[names])
    runs = question.runs(args, kwargs)
    if runs[0].sites:
        found: Joint = marginals_of_runs(runs, (names,))[names]
        return found
    graph, trace, _ = runs[0]
    of_program = sites_of(trace)
    refuse_continuous(trace, names)
    check_names(graph.variables, [names], of_program)
    result = solve(about(graph, names), marginals=(names,))
    refuse_impossible(graph, result.value)
    return joint(graph, of_program, names, result.marginal(names))
