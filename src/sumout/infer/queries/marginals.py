"""Posterior marginals, single and joint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from sumout.factors import FactorGraph
from sumout.infer.answers.readout import distribution_of, table_of
from sumout.infer.answers.result import Marginals
from sumout.infer.collapsing.asked import InRun, posteriors, sought_of
from sumout.infer.collapsing.results import groups_of
from sumout.infer.queries.question import (
    Question,
    Target,
    check_names,
    group_of,
    readouts_of,
    refuse_impossible,
    sites_of,
)
from sumout.infer.queries.row_answers import marginals_of_rows
from sumout.infer.queries.runs import marginals_of_runs
from sumout.infer.solving.leaves import about
from sumout.infer.solving.prepared import PreparedGraph
from sumout.infer.solving.solve import solve
from sumout.plan.structure import Readout


def marginals(
    target: Target,
    sites: Iterable[Readout] | str | None = None,
    *,
    max_plate_nesting: int | None = None,
    enumeration: str = "parallel",
) -> Callable[..., Marginals]:
    """Posterior marginals of summed-out sites, single and joint, from one forward and one backward sweep.

    Args:
        target: a program, or a ``FactorGraph``.
        sites: the name or names that are wanted, a tuple of names for a joint distribution; the marginal of every
            site if ``None``.
        max_plate_nesting, enumeration: as in ``log_evidence``.

    Returns:
        A function of the program's arguments (or of ``evidence=``) that returns ``Marginals``: a distribution for each
        name, a ``Joint`` table for each tuple of names. Where sites live in plates, there is one for each element:
        for a tuple, of all plates of its sites. If these are not nested, one of them is written out.
        Where sites are enumerated sequentially, a program may have some in some runs only: their marginals are those
        given that they are there, and ``presence[name]`` is the probability of that.
        Sites that ``collapse`` integrated out have a distribution of their conjugate family (or normal, Student t), a
        ``MixtureSameFamily`` of these where discrete sites choose; steps of vectorized chains are named as in a loop.
        Sites that depend on these alone, such as predictions, are there if their distribution has a closed form.
        A tuple of collapsed sites that are normal together has their ``MultivariateNormal`` (with an unknown scale in
        common, a ``MultivariateStudentT``): entries one site after the other in the order of the names, events
        flattened; a batch of all plates that the sites live in.

    Raises:
        ImpossibleEvidenceError: if the observations have probability zero.
        EvidenceError: if a wanted site is not one that is summed out.
        PlanError: as in ``log_evidence``, and if a group's plates are at one dimension of a program.
        EnumerationError, MemoryLimitError: as in ``log_evidence``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(x):
    ...     z = sumout.sample("z", dist.Bernoulli(0.5))
    ...     sumout.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)
    >>> marginals(model)(torch.tensor(1.0))["z"].probs
    tensor(0.8000)
    """
    question = Question(target, max_plate_nesting, enumeration)
    wanted = None if sites is None else readouts_of(sites)

    def query(*args: Any, **kwargs: Any) -> Marginals:
        rows = question.table(args, kwargs)
        if rows is not None:
            graph = rows[0]
            tables, plan, log_evidence = marginals_of_rows(*rows, wanted)
            return Marginals(tables, partial(distribution_of, graph, {}), plan, graph.states, log_evidence)
        quick = question.quick(args, kwargs)
        if quick is not None:
            assert question.graph is not None
            found = _quickly(question.graph, *quick, wanted)
            if found is not None:
                return found
        runs = question.runs(args, kwargs)
        if runs[0].sites:
            return marginals_of_runs(runs, wanted)
        graph, trace, _ = runs[0]
        groups = groups_of(trace)
        asked = (*graph.variables, *groups) if wanted is None else wanted
        others = [name for each in asked for name in group_of(each) if name not in groups]
        check_names([*graph.variables, *groups], others)
        integrated = {each: one for each in asked if (one := sought_of(groups, each)) is not None}
        listed = tuple([each for each in asked if each not in integrated])
        of_program = sites_of(trace)
        check_names(graph.variables, listed, of_program)
        needed = [each.readout for each in integrated.values() if each.readout is not None]
        readouts = tuple(dict.fromkeys([*listed, *needed]))
        result = solve(about(graph, readouts), marginals=readouts)
        refuse_impossible(graph, result.value)
        tables = {each: table_of(of_program, each, result.marginal(each)) for each in listed}
        certain = result.value.new_ones(())
        continuous, unknown = posteriors(
            {each: [InRun(one, result.marginal, certain)] for each, one in integrated.items()}
        )
        if wanted is not None:
            for refuse in unknown.values():
                refuse()
        return Marginals(
            tables,
            partial(distribution_of, graph, of_program),
            result.plan,
            graph.states,
            result.value,
            continuous,
            unknown,
        )

    return query


def _quickly(
    graph: FactorGraph,
    prepared: PreparedGraph,
    states: list[tuple[str, int]],
    wanted: tuple[Readout, ...] | None,
) -> Marginals | None:
    """The answer for a graph that is kept prepared; ``None`` where that has none."""
    observed = tuple([name for name, _ in states])
    if wanted is None:
        asked: tuple[Readout, ...] = tuple([name for name in graph.variables if name not in observed])
    else:
        asked = wanted
        check_names({name for name in graph.variables if name not in observed}, asked)
    pattern = prepared.pattern(observed, asked)
    found = pattern.marginals([state for _, state in states])
    if found is None or not math.isfinite(found[0].item()):
        return None
    value, tables = found
    return Marginals(tables, partial(distribution_of, graph, {}), pattern.plan, graph.states, value)
