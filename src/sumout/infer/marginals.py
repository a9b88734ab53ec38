"""Posterior marginals, single and joint."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from sumout.infer.question import Question, Target, check_names, refuse_impossible, sites_of
from sumout.infer.readout import distribution_of, table_of
from sumout.infer.result import Marginals
from sumout.infer.row_answers import marginals_of_rows
from sumout.infer.solve import solve
from sumout.plan.structure import Readout


def marginals(
    target: Target, sites: Iterable[Readout] | str | None = None, *, max_plate_nesting: int | None = None
) -> Callable[..., Marginals]:
    """Posterior marginals of summed-out sites, single and joint, from one forward and one backward sweep.

    Args:
        target: a program, or a ``FactorGraph``.
        sites: the name or names that are wanted, a tuple of names for a joint distribution; the marginal of every
            site if ``None``.
        max_plate_nesting: as in ``log_evidence``.

    Returns:
        A function of the program's arguments (or of ``evidence=``) that returns ``Marginals``: a distribution for each
        name, a ``Joint`` table for each tuple of names. Where sites live in plates, there is one for each element,
        and one site of a tuple has to live in the plates of all others.

    Raises:
        ImpossibleEvidenceError: if the observations have probability zero.
        EvidenceError: if a wanted site is not one that is summed out.
        PlanError: as in ``log_evidence``, and if the sites of a group share no element of a plate.
        EnumerationError, MemoryLimitError: as in ``log_evidence``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(x):
    ...     z = sumout.sample("z", dist.Bernoulli(0.5))
    ...     sumout.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)
    >>> marginals(model)(torch.tensor(1.0))["z"].probs
    tensor(0.8000)
    """
    question = Question(target, max_plate_nesting)
    wanted = (sites,) if isinstance(sites, str) else None if sites is None else tuple(sites)

    def query(*args: Any, **kwargs: Any) -> Marginals:
        rows = question.table(args, kwargs)
        if rows is not None:
            graph = rows[0]
            tables, plan, log_evidence = marginals_of_rows(*rows, wanted)
            return Marginals(tables, partial(distribution_of, graph, {}), plan, graph.states, log_evidence)
        graph, trace = question(*args, **kwargs)
        asked = tuple(graph.variables) if wanted is None else wanted
        check_names(graph, asked)
        result = solve(graph, marginals=asked)
        refuse_impossible(graph, result.value)
        sites = sites_of(trace)
        tables = {each: table_of(sites, each, result.marginal(each)) for each in asked}
        return Marginals(
            tables, partial(distribution_of, graph, sites), result.plan, graph.states, result.value
        )

    return query
