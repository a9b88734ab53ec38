"""Max-marginals: how probable the best assignment is that has a given state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sumout.execute import MAX_SUM, Result
from sumout.infer.answers.readout import spread_over_plates
from sumout.infer.answers.result import MaxMarginals
from sumout.infer.programs.graphs import ProgramGraph
from sumout.infer.queries.gathered import check_alike
from sumout.infer.queries.question import (
    Question,
    Target,
    refuse_collapsed,
    refuse_impossible,
    refuse_scales,
    sites_of,
)
from sumout.infer.queries.runs import all_sites, certain
from sumout.infer.solving.solve import solve

_COLLAPSED = (
    "map_assignment maximises over continuous sites, too; marginals are those with all others integrated out."
)


def max_marginals(
    target: Target, *, max_plate_nesting: int | None = None, enumeration: str = "parallel"
) -> Callable[..., MaxMarginals]:
    """For each state of each summed-out site, the log-probability of the best joint assignment that has it.

    The difference of the two best states of a site tells how firmly the most probable assignment stands there.

    Args:
        target: a program, or a ``FactorGraph``.
        max_plate_nesting, enumeration: as in ``log_evidence``.

    Returns:
        A function of the program's arguments (or of ``evidence=``) that returns ``MaxMarginals``: for each
        name the logarithms of joint probabilities with the observations, shape ``(*batch_shape, states)``; ``-inf``
        for states that are impossible.

    Raises:
        ModelError: in a model with subsampled plates or scales.
        ImpossibleEvidenceError: if the observations have probability zero.
        EnumerationError, PlanError, MemoryLimitError: as in ``log_evidence``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model():
    ...     x = sumout.sample("x", dist.Bernoulli(0.4))
    ...     sumout.sample("y", dist.Bernoulli(0.1 + 0.8 * x))
    >>> best = max_marginals(model)()
    >>> best["x"].exp(), best["y"].exp()
    (tensor([0.5400, 0.3600]), tensor([0.5400, 0.3600]))

    Source: Wainwright, Jaakkola and Willsky, *Tree consistency and bounds on the performance of the max-product
    algorithm* (2004), equation 5; Cowell and others, *Probabilistic Networks and Expert Systems* (1999), section 6.4.1.
    """
    question = Question(target, max_plate_nesting, enumeration)

    def query(*args: Any, **kwargs: Any) -> MaxMarginals:
        runs = question.runs(args, kwargs)
        for run in runs:
            refuse_collapsed(run.trace, "A max-marginal", _COLLAPSED)
            refuse_scales(run.graph, "A max-marginal")
        results = [solve(run.graph, MAX_SUM, tuple(run.graph.variables)) for run in runs]
        best = torch.stack([result.value for result in results]).amax(0)
        refuse_impossible(runs[0].graph, best)
        values: dict[str, Tensor] = {}
        for run, result in zip(runs, results, strict=True):
            for name, table in _of_run(run, result).items():
                before = values.setdefault(name, table)
                check_alike(name, before.shape, table.shape)
                values[name] = torch.maximum(before, table)
        values = {name: values[name] for name in (*all_sites(runs), *values) if name in values}
        return MaxMarginals(values, results[0].plan, runs[0].graph.states, best)

    return query


def _of_run(run: ProgramGraph, result: Result) -> dict[str, Tensor]:
    """The max-marginals in one run: those of sequential sites are of the state that they have in it."""
    of_program = sites_of(run.trace)
    found = {name: torch.where(certain(site), result.value, -torch.inf) for name, site in run.sites.items()}
    for name in run.graph.variables:
        table, plates = result.marginal(name)
        found[name] = spread_over_plates(of_program[name], table, plates) if name in of_program else table
    return found
