"""Entropy of the posterior, of all hidden variables together or of some."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from sumout.factors import FactorGraph
from sumout.infer.queries.joint_posterior import joint_posterior
from sumout.infer.queries.question import (
    Question,
    Target,
    group_of,
    refuse_collapsed,
    refuse_impossible,
    refuse_scales,
)
from sumout.infer.queries.runs import entropy_of_runs
from sumout.infer.solving.solve import solve

_NAME_THEM = "Name the sites whose entropy is wanted: entropy(program, [...])."


def entropy(
    target: Target,
    sites: str | Iterable[str] | None = None,
    *,
    max_plate_nesting: int | None = None,
    enumeration: str = "parallel",
) -> Callable[..., Tensor]:
    """The entropy of the posterior in nats: how much is not known after the observations.

    For all hidden variables together it is ``log Z`` less the expected logarithm of every factor, which takes one
    forward and one backward sweep and never a joint table; ``0 log 0`` is 0.

    Args:
        target: a program, or a ``FactorGraph``.
        sites: the name or names whose joint entropy is wanted; all hidden variables if ``None``.
        max_plate_nesting, enumeration: as in ``log_evidence``.

    Returns:
        A function of the program's arguments (or of ``evidence=``, for named sites also a table of rows). It returns a
        scalar; for named sites one number for each row and each element of their plates. Differentiable. Where a
        program has named sites in some runs only, it is the entropy given that they are there.

    Raises:
        ImpossibleEvidenceError: if the observations have probability zero.
        ModelError: for the entropy of all in a graph with subsampled plates or scales.
        EvidenceError, PlanError: as in ``marginals``, for named sites.
        EnumerationError, PlanError, MemoryLimitError: as in ``log_evidence``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model():
    ...     with sumout.plate("coins", 2):
    ...         sumout.sample("side", dist.Bernoulli(torch.tensor([0.5, 0.25])))
    >>> entropy(model)(), entropy(model, "side")()
    (tensor(1.2555), tensor([0.6931, 0.5623]))

    Source: Wainwright and Jordan, *Graphical models, exponential families, and variational inference* (2008),
    theorem 3.4 (the conjugate dual of the log-partition function).
    """
    question = Question(target, max_plate_nesting, enumeration)
    names = None if sites is None else group_of(sites)

    def query(*args: Any, **kwargs: Any) -> Tensor:
        if names is None:
            runs = question.runs(args, kwargs)
            for run in runs:
                refuse_collapsed(run.trace, "The entropy of all variables", _NAME_THEM)
                refuse_scales(run.graph, "The entropy of all variables")
            return entropy_of_runs(runs, _of_all) if runs[0].sites else _of_all(runs[0].graph)[0]
        return table_entropy(joint_posterior(question, names, args, kwargs).probs, len(names))

    return query


def _of_all(graph: FactorGraph) -> tuple[Tensor, Tensor]:
    """The entropy of a graph's variables, and the log-evidence."""
    result = solve(graph, beliefs=True)
    refuse_impossible(graph, result.value)
    total = result.value
    for belief, factor in zip(result.beliefs, graph.factors, strict=False):  # Probes are ones.
        total = total - (belief * torch.where(belief > 0, factor.data, 0.0)).sum()
    return total, result.value


def table_entropy(probs: Tensor, dims: int) -> Tensor:
    """The entropy of each table of probabilities over the last ``dims`` dimensions."""
    logs = torch.where(probs > 0, probs, 1.0).log()
    return -(probs * logs).sum(tuple(range(-dims, 0)))
