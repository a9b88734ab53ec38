"""Exact joint samples from the posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from sumout.errors import MemoryLimitError
from sumout.factors import FactorGraph
from sumout.infer.answers.readout import site_values
from sumout.infer.answers.result import PosteriorSamples
from sumout.infer.collapsing.settled import posterior_draws
from sumout.infer.queries.question import Question, Target, refuse_impossible, sites_of
from sumout.infer.queries.runs import samples_of_runs
from sumout.infer.solving.solve import plan_for, sample
from sumout.settings import settings
from sumout.text import memory


def posterior_samples(
    target: Target,
    num_samples: int,
    *,
    generator: torch.Generator | None = None,
    max_plate_nesting: int | None = None,
    enumeration: str = "parallel",
) -> Callable[..., PosteriorSamples]:
    """Independent samples of all summed-out sites together, given the observations.

    They are exact: drawn from the joint posterior itself, each variable given those that were drawn before it, in
    the reverse order of elimination. All samples are drawn at once.

    Args:
        target: a program, or a ``FactorGraph``.
        num_samples: how many.
        generator: where random numbers come from; torch's own generator, which ``torch.manual_seed`` seeds, if
            ``None``.
        max_plate_nesting, enumeration: as in ``log_evidence``.

    Returns:
        A function of the program's arguments (or of ``evidence=``) that returns ``PosteriorSamples``: values as the
        sites would have drawn them, or state indices for a graph, of shape ``(num_samples, *batch_shape)``; the
        ``log_prob`` of each sample.

    Raises:
        ValueError: if ``num_samples`` is not a whole number of at least 1.
        ImpossibleEvidenceError: if the observations have probability zero.
        EnumerationError, PlanError, MemoryLimitError: as in ``log_evidence``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(y):
    ...     x = sumout.sample("x", dist.Bernoulli(0.5))
    ...     z = sumout.sample("z", dist.Bernoulli(x))
    ...     sumout.sample("y", dist.Bernoulli(0.2 + 0.6 * z), obs=y)
    >>> drawn = posterior_samples(model, 1000)(torch.tensor(1.0))
    >>> drawn["x"].shape, bool((drawn["x"] == drawn["z"]).all())
    (torch.Size([1000]), True)
    >>> bool((drawn["x"].mean() - 0.8).abs() < 0.06), drawn.log_prob.exp().unique()
    (True, tensor([0.2000, 0.8000]))

    Source: Dawid, *Applications of a general propagation algorithm for probabilistic expert systems* (1992),
    section 7; for chains, forward filtering and backward sampling (Scott 2002).
    """
    if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
        raise ValueError(f"num_samples is {num_samples!r}: it is a whole number of at least 1.")
    question = Question(target, max_plate_nesting, enumeration)
    program = None if question.program is None else question.program.program

    def query(*args: Any, **kwargs: Any) -> PosteriorSamples:
        with torch.no_grad():
            runs = question.runs(args, kwargs)
            collapsed_draws = partial(posterior_draws, program, args=args, kwargs=kwargs, generator=generator)
            if runs[0].sites:
                return samples_of_runs(runs, num_samples, generator, _check_memory, collapsed_draws)
            graph, trace, _ = runs[0]
            plan = plan_for(graph, backward=True)
            _check_memory(graph, num_samples)
            drawn = sample(graph, num_samples, generator, plan=plan)
            refuse_impossible(graph, drawn.value)
            of_program = sites_of(trace)
            values = {
                name: site_values(of_program[name], choice) if name in of_program else choice.states
                for name, choice in ((name, drawn.choices[name]) for name in graph.variables)
            }
            collapsed, density = collapsed_draws(
                run=trace, count=num_samples, discrete=values, choices=drawn.choices
            )
        log_prob = drawn.log_prob + density
        return PosteriorSamples({**values, **collapsed}, plan, graph.states, log_prob, drawn.value)

    return query


def _check_memory(graph: FactorGraph, num_samples: int) -> None:
    copies = sum(
        math.prod(graph.plates[each].size for each in variable.plates)
        for variable in graph.variables.values()
    )
    needed = 16 * copies * num_samples  # States and values, both of eight bytes.
    if needed > settings.memory_limit:
        raise MemoryLimitError(
            f"{num_samples:,} samples of {copies:,} variables need {memory(needed)} and the limit is "
            f"{memory(settings.memory_limit)}. Draw fewer at a time, or raise the limit: "
            "settings.override(memory_limit=...)."
        )
