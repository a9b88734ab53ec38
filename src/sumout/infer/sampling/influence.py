"""What was drawn in runs of a program, and what depends on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sumout.distributions.families import is_distribution
from sumout.effects import Message, Trace
from sumout.effects.handlers.sequential import is_sequential
from sumout.effects.steps import is_lookback, names_in_loop
from sumout.effects.trace import site_is_subsample
from sumout.errors import EnumerationError
from sumout.factors import FactorGraph
from sumout.infer.programs.sequential import SequentialRun

Run = SequentialRun[tuple[FactorGraph, Trace]]


def drawn(trace: Trace) -> dict[str, Message]:
    """The latent sites that have a value, those that handlers outside gave one included; choices of subsamples too."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site.type == "sample"
        and not site.is_observed
        and site.enum_dim is None
        and not is_sequential(site)
        and not is_lookback(site)
    }


def runs_along_values(site: Message) -> bool:
    if not isinstance(site.value, Tensor) or not is_distribution(site.plain_fn):
        return False
    rank = site.value.dim() - site.plain_fn.event_dim
    return any(rank >= -dim and site.value.shape[rank + dim] > 1 for dim in site.enum_dims or ())


def different(traces: Sequence[Trace], kept: Mapping[str, Message]) -> set[str]:
    """Sites that are not in all runs, or have another distribution in some."""
    found = set()
    for name, site in kept.items():
        if site_is_subsample(site):
            continue
        sites = [trace.nodes.get(name) for trace in traces]
        logs = [None if each is None else each["log_prob_sum"] for each in sites]
        if any(each is None or not _equal(each, logs[0]) for each in logs):
            found.add(name)
    return found


def shape_of(runs: Sequence[Run], dependent: Collection[str]) -> object:
    return frozenset(dependent), tuple(
        [(graph.structure, tuple(trace.observation_nodes)) for graph, trace in (run.result for run in runs)]
    )


def redrawn(run: Run, repeated: Run, dependent: Collection[str]) -> set[str]:
    """Which sites have another value in a repeated run.

    Raises:
        EnumerationError: if a factor changed with them.
    """
    (graph, trace), (graph_again, again) = run.result, repeated.result
    found = {
        name
        for name in dependent
        if name in trace.nodes
        and name in again.nodes
        and not _equal(trace.nodes[name].value, again.nodes[name].value)
    }
    own = {each for name in found for each in (name, *names_in_loop(trace.nodes[name]))}
    before = {factor.name: factor.data for factor in graph.factors if factor.name not in own}
    for factor in graph_again.factors:
        if factor.name in before and not _equal(before[factor.name], factor.data):
            raise EnumerationError(
                f"Site {min(found or dependent)!r} is latent, has no finite support, and depends on sites that are "
                f"summed out, and site {factor.name!r} depends on it: there is no exact posterior. Give it a value "
                "(condition, replay, posterior_samples), e.g. one that MCMC or a guide drew."
            )
    return found


def _equal(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return bool(one == other)
    return one.shape == other.shape and bool(torch.isclose(one, other, rtol=1e-6, equal_nan=True).all())
