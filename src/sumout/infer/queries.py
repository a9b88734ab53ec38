"""Exact queries: evidence, marginals and the most probable assignment of a program or a factor graph.

Each reads like its definition: make the graph, plan, check the memory, execute, read off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from sumout.effects import Trace
from sumout.errors import EvidenceError, ImpossibleEvidenceError, ModelError, nearest
from sumout.execute import MAX_SUM
from sumout.factors import FactorGraph
from sumout.infer.program import EnumeratedProgram
from sumout.infer.readout import graph_marginal, graph_state, latent_sites, site_marginal, site_value
from sumout.infer.result import Assignment, Marginals
from sumout.infer.solve import solve
from sumout.lower import lower

Target = Callable[..., Any] | FactorGraph
"""What can be asked: a program, called with its own arguments, or a graph, called with ``evidence={...}``."""


class _Question:
    """Turns a call of a query into the graph to be solved, and for a program the trace it came from."""

    def __init__(self, target: Target, max_plate_nesting: int | None) -> None:
        self.graph = target if isinstance(target, FactorGraph) else None
        self.program = (
            None if isinstance(target, FactorGraph) else EnumeratedProgram(target, max_plate_nesting)
        )

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[FactorGraph, Trace | None]:
        if self.program is not None:
            trace = self.program.trace(*args, **kwargs)
            return lower(trace), trace
        assert self.graph is not None
        evidence = kwargs.pop("evidence", {})
        if args or kwargs:
            raise TypeError("A query of a FactorGraph takes one argument, evidence={name: state or index}.")
        return (self.graph.condition(evidence) if evidence else self.graph), None


def log_evidence(target: Target, *, max_plate_nesting: int | None = None) -> Callable[..., Tensor]:
    """The natural logarithm of the probability of all observations, every discrete latent site summed out.

    Args:
        target: a program, or a ``FactorGraph``.
        max_plate_nesting: tensor dimensions that the program's plates take up; found if ``None``.

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
    question = _Question(target, max_plate_nesting)

    def query(*args: Any, **kwargs: Any) -> Tensor:
        graph, _ = question(*args, **kwargs)
        value = solve(graph).value
        _refuse_nan(graph, value)
        return value

    return query


def marginals(
    target: Target, sites: Iterable[str] | str | None = None, *, max_plate_nesting: int | None = None
) -> Callable[..., Marginals]:
    """The posterior marginal of every summed-out site, from one forward and one backward sweep.

    Args:
        target: a program, or a ``FactorGraph``.
        sites: the name or names that are wanted; all if ``None``.
        max_plate_nesting: as in ``log_evidence``.

    Returns:
        A function of the program's arguments (or of ``evidence=``) that returns ``Marginals``.

    Raises:
        ImpossibleEvidenceError: if the observations have probability zero.
        EvidenceError: if a wanted site is not one that is summed out.
        EnumerationError, PlanError, MemoryLimitError: as in ``log_evidence``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(x):
    ...     z = sumout.sample("z", dist.Bernoulli(0.5))
    ...     sumout.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)
    >>> marginals(model)(torch.tensor(1.0))["z"].probs
    tensor(0.8000)
    """
    question = _Question(target, max_plate_nesting)
    wanted = (sites,) if isinstance(sites, str) else None if sites is None else tuple(sites)

    def query(*args: Any, **kwargs: Any) -> Marginals:
        graph, trace = question(*args, **kwargs)
        names = _names(graph, wanted)
        result = solve(graph, marginals=names)
        _refuse_impossible(graph, result.value)
        latent = {} if trace is None else latent_sites(trace)
        values = {
            name: site_marginal(latent[name], result.marginal(name))
            if name in latent
            else graph_marginal(result.marginal(name))
            for name in names
        }
        return Marginals(values, result.plan, graph.states, result.value)

    return query


def map_assignment(target: Target, *, max_plate_nesting: int | None = None) -> Callable[..., Assignment]:
    """A most probable joint assignment of all summed-out sites, given the observations.

    Args:
        target: a program, or a ``FactorGraph``.
        max_plate_nesting: as in ``log_evidence``.

    Returns:
        A function of the program's arguments (or of ``evidence=``) that returns an ``Assignment``: values as the
        sites would have drawn them, or state indices for a graph, with the plates' batch shape.

    Raises:
        ImpossibleEvidenceError: if the observations have probability zero.
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
    question = _Question(target, max_plate_nesting)

    def query(*args: Any, **kwargs: Any) -> Assignment:
        graph, trace = question(*args, **kwargs)
        result = solve(graph, MAX_SUM)
        _refuse_impossible(graph, result.value)
        latent = {} if trace is None else latent_sites(trace)
        values = {
            name: site_value(latent[name], choice) if name in latent else graph_state(graph, name, choice)
            for name, choice in ((name, result.assignment[name]) for name in graph.variables)
        }
        return Assignment(values, result.plan, graph.states, result.value, lambda: solve(graph).value)

    return query


def _names(graph: FactorGraph, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    if wanted is None:
        return tuple(graph.variables)
    for name in wanted:
        if name not in graph.variables:
            raise EvidenceError(
                f"{name!r} is not summed out, so it has no marginal: it is observed, or there is no such name."
                f"{nearest(name, graph.variables)}"
            )
    return wanted


def _refuse_nan(graph: FactorGraph, value: Tensor) -> None:
    if value.isnan():
        # An infinite density and an impossible one are NaN together, though neither is alone.
        for kind, found in (("NaN", Tensor.isnan), ("infinite", Tensor.isposinf)):
            names = [repr(factor.name) for factor in graph.factors if found(factor.data).any()]
            if names:
                raise ModelError(
                    f"The log-probability is {kind} at {', '.join(names)}. Look for parameters and data there that "
                    "are not numbers, or at the edge of a support."
                )
        raise ModelError(
            "The log-probability is NaN, though no single site's is: look for very large parameters."
        )


def _refuse_impossible(graph: FactorGraph, value: Tensor) -> None:
    _refuse_nan(graph, value)
    if value == -torch.inf:
        raise ImpossibleEvidenceError(
            "The observations have probability zero under the model, so there is no posterior. "
            "log_evidence gives -inf for them; observe less to find the contradiction."
        )
