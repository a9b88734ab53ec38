"""Runs of programs in which collapsed sites have values: drawn from their exact posterior, or none integrated out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sumout.effects import Message, Trace
from sumout.effects.handlers import ReplayMessenger, trace
from sumout.effects.random_state import kept_rng_state
from sumout.execute import Choice
from sumout.infer.collapsing.predicted import predictions
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


def posterior_draws(
    program: Callable[..., Any] | None,
    run: Trace | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    count: int,
    discrete: Mapping[str, Tensor],
    choices: Mapping[str, Choice],
    generator: torch.Generator | None = None,
) -> tuple[dict[str, Tensor], Tensor | float]:
    """Joint samples of all sites that a run integrated out, and of those that only depend on them.

    Args:
        program: what was run with ``args`` and ``kwargs``; ``None`` for a graph, which has no such sites.
        run: of it.
        count: how many samples.
        discrete: samples of the values of discrete sites.
        choices: the same as states.
        generator: where random numbers come from; torch's own if ``None``.

    Returns:
        The samples by name, shape ``(count, *shape)``, and the logarithms of their joint densities given the discrete
        sites.
    """
    groups = groups_of(run)
    if program is None or run is None or not groups:
        return {}, 0.0
    with _seeded_by(generator):
        values, log_prob = draws_of(groups.values(), count, choices)
        sites = [group.predicted[name] for name, group in groups.items() if name in group.predicted]
        found = predictions(sites, count, values, choices)
        values.update(found.values)
        log_prob = log_prob + found.log_prob
        if found.left:  # Whatever the program makes of their parents: it is run once for each sample.
            settled = {**discrete, **values}
            more, density = _from_runs(program, run, args, kwargs, count, settled, found.left)
            values.update(more)
            log_prob = log_prob + density
    return values, log_prob


def _from_runs(
    program: Callable[..., Any],
    run: Trace,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    count: int,
    values: Mapping[str, Tensor],
    names: Sequence[str],
) -> tuple[dict[str, Tensor], Tensor]:
    drawn: dict[str, list[Tensor]] = {name: [] for name in names}
    logs = []
    for number in range(count):
        given = {name: value[number] for name, value in values.items()}
        nodes = settled_run(program, run, given, args, kwargs).nodes
        for name, found in drawn.items():
            found.append(nodes[name].value)
        logs.append(torch.stack([nodes[name]["log_prob_sum"] for name in names]).sum())
    return {name: torch.stack(found) for name, found in drawn.items()}, torch.stack(logs)


@contextmanager
def _seeded_by(generator: torch.Generator | None) -> Iterator[None]:
    """Random numbers follow from a generator's: families draw from torch's own only."""
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with kept_rng_state():
        torch.manual_seed(seed)
        yield
