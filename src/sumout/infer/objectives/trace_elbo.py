"""The evidence lower bound by sampling the guide."""

from __future__ import annotations

import warnings

from torch import Tensor

from sumout.effects import Message, Trace
from sumout.effects.steps import unrolled_step
from sumout.effects.trace import sample_sites
from sumout.infer.objectives.elbo import ELBO
from sumout.infer.objectives.expectation import expectation
from sumout.infer.objectives.guide_run import places_of, run_of_guide
from sumout.infer.objectives.pair import Args, Kwargs, Program, trace_guide, trace_model
from sumout.infer.objectives.terms import factor_term
from sumout.infer.programs.agreement import check_agreement
from sumout.lower import lower


class Trace_ELBO(ELBO):
    """``log p(x, z) - log q(z)`` at values ``z`` drawn by the guide.

    Values that are differentiable by the guide's parameters give pathwise gradients, others score-function
    gradients, whose costs leave out what comes before the site, in guide and model, and what lies in other elements of
    its plates. Both are unbiased.
    The arguments are those of ``ELBO``. The methods raise ``PlateError`` for a dimension that no plate declares
    and ``ModelError`` for a site whose shapes differ between model and guide.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model(x):
    ...     z = sumout.sample("z", dist.Normal(0.0, 1.0))
    ...     sumout.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def posterior(x):
    ...     sumout.sample("z", dist.Normal(x / 2, 0.5**0.5))
    >>> loss = Trace_ELBO(num_particles=10).loss(model, posterior, torch.tensor(1.0))
    >>> exact = -dist.Normal(0.0, 2**0.5).log_prob(torch.tensor(1.0))
    >>> bool(abs(loss - exact) < 1e-5)  # exact with any number of particles, as the guide is the posterior
    True

    Source: Ranganath, Gerrish and Blei, *Black box variational inference* (2014), eqs. 2 and 5; Kingma and
    Welling, *Auto-encoding variational Bayes* (2014), eq. 4.
    """

    def _estimate(
        self, model: Program, guide: Program, args: Args, kwargs: Kwargs, nesting: int | None
    ) -> Tensor:
        guide_trace = trace_guide(guide, args, kwargs)
        if self.strict_enumeration_warning:
            warn_if_marked(self, sample_sites(guide_trace.trace))
        model_trace = trace_model(model, guide_trace, args, kwargs)
        check_steps(self, guide, guide_trace.trace, args, kwargs)
        check_steps(self, model, model_trace, args, kwargs)
        run, places = run_of_guide(guide_trace.trace), places_of(model_trace)
        graph = lower(model_trace, multiplied=not run.scores)
        terms = [factor_term(factor, graph, site=places[factor.name]) for factor in graph.factors]
        return expectation([*terms, *run.terms], run, graph.plates, places)


TraceGraph_ELBO = Trace_ELBO
"""Pyro's name for the bound whose scores multiply only the costs that come of a draw: they always do here."""


def check_steps(objective: ELBO, program: Program, trace: Trace, args: Args, kwargs: Kwargs) -> None:
    """Compares a run in which a chain's steps were taken at once with one step by step, when its shapes are new.

    Raises:
        EnumerationError: if the two differ, as what is computed from step to step without a site does.
    """
    if any(unrolled_step(site) is not None for site in sample_sites(trace)):
        check_agreement(objective, lambda: program(*args, **kwargs), trace, lower(trace))


def warn_if_marked(objective: ELBO, guide: list[Message]) -> None:
    """Warns of sites that are marked for enumeration, of an objective that draws them."""
    marked = [site.name for site in guide if site.infer.get("enumerate") == "parallel"]
    if marked:
        warnings.warn(
            f"{type(objective).__name__} samples sites that are marked for enumeration: {marked}. Use "
            "TraceEnum_ELBO to "
            "sum them out, or take the marks away.",
            stacklevel=7,
        )
