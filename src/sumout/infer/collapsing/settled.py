"""Runs of programs in which collapsed sites have values: drawn from their exact posterior, or none integrated out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from sumout.effects import Message, Trace
from sumout.effects.handlers import ReplayMessenger, trace
from sumout.infer.collapsing.results import draws_of, groups_of
from sumout.infer.collapsing.uncollapsed import Uncollapsed


def with_collapsed_drawn(
    program: Callable[..., Any], run: Trace, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Trace:
    """A run with values for all sites: those that another run integrated out are drawn from their joint posterior.

    Args:
        program: what is run with ``args`` and ``kwargs``.
        run: of the same program; its latent sites keep their values.
    """
    groups = groups_of(run)
    if not groups:
        return run
    values, _ = draws_of(groups.values(), 1, {})
    return settled_run(program, run, {name: value[0] for name, value in values.items()}, args, kwargs)


def settled_run(
    program: Callable[..., Any],
    run: Trace,
    values: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Trace:
    """A run with the given values of collapsed sites, and those that other latent sites have in an earlier run."""
    given = Trace()
    for name, site in run.nodes.items():
        if site.type == "sample" and not site.is_observed:
            given.nodes[name] = site
    for name, value in values.items():
        given.nodes[name] = Message(type="sample", name=name, value=value)
    replayer = ReplayMessenger(trace=given)
    replayer.reports_unused = False  # In a chain steps have other names.
    return trace(Uncollapsed()(replayer(program))).get_trace(*args, **kwargs)
