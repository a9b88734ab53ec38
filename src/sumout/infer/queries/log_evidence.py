"""The evidence: how probable the observations are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sumout.infer.queries.question import Question, Target, refuse_nan
from sumout.infer.queries.row_answers import log_evidence_of_rows
from sumout.infer.queries.runs import log_evidence_of_runs
from sumout.infer.solving.solve import solve


def log_evidence(
    target: Target, *, max_plate_nesting: int | None = None, enumeration: str = "parallel"
) -> Callable[..., Tensor]:
    """The natural logarithm of the probability of all observations, every discrete latent site summed out.

    Args:
        target: a program, or a ``FactorGraph``.
        max_plate_nesting: tensor dimensions that the program's plates take up; found if ``None``.
        enumeration: how latent sites without a mark of their own are enumerated: ``"parallel"``, ``"sequential"`` or
            ``"auto"``; see ``config_enumerate``.

    Returns:
        A function of the program's arguments, or of ``evidence={name: state or index}`` for a graph. It returns
        a scalar, differentiable by the program's parameters; ``-inf`` for impossible observations.

    Raises:
        EnumerationError: if a latent site cannot be summed out.
        ModelError: if a log-probability is NaN.
        PlanError: if the plates are not tree-shaped.
        MemoryLimitError: before anything is allocated, if the plan is larger than ``settings.memory_limit``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(x):
    ...     z = sumout.sample("z", dist.Bernoulli(0.5))
    ...     sumout.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)
    >>> log_evidence(model)(torch.tensor(1.0)).exp()
    tensor(0.5000)
    """
    question = Question(target, max_plate_nesting, enumeration)

    def query(*args: Any, **kwargs: Any) -> Tensor:
        rows = question.table(args, kwargs)
        if rows is not None:
            return log_evidence_of_rows(*rows)
        quick = question.quick(args, kwargs)
        if quick is not None:
            prepared, states = quick
            pattern = prepared.pattern(tuple([name for name, _ in states]), ())
            found = pattern.log_evidence([state for _, state in states])
            if found is not None and not found.isnan():
                return found
        runs = question.runs(args, kwargs)
        if runs[0].sites:
            return log_evidence_of_runs(runs)
        graph = runs[0].graph
        value = solve(graph).value
        refuse_nan(graph, value)
        return value

    return query
