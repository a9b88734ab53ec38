"""The evidence lower bound by sampling the guide."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from sumout.effects import Message
from sumout.effects.trace import sample_sites
from sumout.infer.objectives.elbo import ELBO
from sumout.infer.objectives.estimator import subtract_guide
from sumout.infer.objectives.pair import Args, Kwargs, Program, check_plates, cost, trace_pair
from sumout.settings import settings


class Trace_ELBO(ELBO):
    """``log p(x, z) - log q(z)`` at values ``z`` drawn by the guide.

    Values that are differentiable by the guide's parameters give pathwise gradients, others score-function
    gradients, whose costs leave out what lies in other elements of the site's plates. Both are unbiased.
    The arguments are those of ``ELBO``. The methods raise ``PlateError`` for a dimension that no plate declares
    and ``ModelError`` for a site whose shapes differ between model and guide.

    >>> import sumout
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
        model_trace, guide_trace = trace_pair(model, guide, args, kwargs)
        model_trace.compute_log_prob()
        guide_trace.compute_score_parts()
        model_sites, guide_sites = sample_sites(model_trace), sample_sites(guide_trace)
        if self.strict_enumeration_warning:
            _warn_if_marked(guide_sites)
        if settings.validation:
            check_plates((*model_sites, *guide_sites))
        log_model = torch.as_tensor(model_trace.log_prob_sum())
        return subtract_guide(log_model, guide_sites, lambda: map(cost, model_sites))


def _warn_if_marked(guide: list[Message]) -> None:
    marked = [site.name for site in guide if site.infer.get("enumerate") == "parallel"]
    if marked:
        warnings.warn(
            f"Trace_ELBO samples sites that are marked for enumeration: {marked}. Use TraceEnum_ELBO to sum them "
            "out, or take the marks away.",
            stacklevel=6,
        )
