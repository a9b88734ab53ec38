"""Max-marginals: how probable the best assignment is that has a given state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sumout.execute import MAX_SUM
from sumout.infer.answers.readout import spread_over_plates
from sumout.infer.answers.result import MaxMarginals
from sumout.infer.queries.question import (
    Question,
    Target,
    refuse_collapsed,
    refuse_impossible,
    refuse_scales,
    sites_of,
)
from sumout.infer.solving.solve import solve

_COLLAPSED = (
    "map_assignment maximises over continuous sites, too; marginals are those with all others integrated out."
)


def max_marginals(target: Target, *, max_plate_nesting: int | None = None) -> Callable[..., MaxMarginals]:
    """For each state of each summed-out site, the log-probability of the best joint assignment that has it.

    The difference of the two best states of a site tells how firmly the most probable assignment stands there.

    Args:
        target: a program, or a ``FactorGraph``.
        max_plate_nesting: as in ``log_evidence``.

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
    question = Question(target, max_plate_nesting)

    def query(*args: Any, **kwargs: Any) -> MaxMarginals:
        graph, trace = question(*args, **kwargs)
        refuse_collapsed(trace, "A max-marginal", _COLLAPSED)
        refuse_scales(graph, "A max-marginal")
        names = tuple(graph.variables)
        result = solve(graph, MAX_SUM, names)
        refuse_impossible(graph, result.value)
        of_program = sites_of(trace)
        values = {}
        for name in names:
            table, plates = result.marginal(name)
            values[name] = (
                spread_over_plates(of_program[name], table, plates) if name in of_program else table
            )
        return MaxMarginals(values, result.plan, graph.states, result.value)

    return query
