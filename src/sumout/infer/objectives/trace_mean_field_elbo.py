"""The evidence lower bound with divergences in closed form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from sumout.effects import Message, Trace
from sumout.effects.scoring import scale_and_mask
from sumout.effects.trace import sample_sites
from sumout.infer.objectives.elbo import ELBO
from sumout.infer.objectives.expectation import expectation
from sumout.infer.objectives.guide_run import GuideRun, places_of, run_of_guide
from sumout.infer.objectives.pair import Args, Kwargs, Program, trace_guide, trace_model
from sumout.infer.objectives.terms import Table, Term, factor_term
from sumout.infer.objectives.trace_elbo import check_steps, warn_if_marked
from sumout.lower import lower, lower_tensor


class TraceMeanField_ELBO(ELBO):
    """``log p(x | z) - KL(q(z) || p(z))`` at values drawn by the guide, the divergence in closed form where one is
    known.

    Site by site, ``log p - log q`` at a drawn value gives way to its mean, ``-KL``, wherever torch has a formula for
    the two distributions. That is right if what the model's distribution depends on was drawn by the guide before the
    site: where the guide draws in another order than the model, the site keeps its drawn value, as it does where
    masks or scales differ or there is no formula. Sites without a derivative of the value get score-function gradients.
    The arguments are those of ``ELBO``.

    >>> import torch, sumout
    >>> import sumout.distributions as dist
    >>> def model():
    ...     sumout.sample("z", dist.Normal(0.0, 1.0))
    >>> def guide():
    ...     sumout.sample("z", dist.Normal(1.0, 0.5))
    >>> loss = TraceMeanField_ELBO().loss(model, guide)  # whatever is drawn
    >>> round(loss, 4)
    0.8181

    Source: Kingma and Welling, *Auto-encoding variational Bayes* (2014), eq. 7.
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
        divergences = _divergences(model_trace, guide_trace.trace, run, places)
        kept = Trace()
        for site in sample_sites(model_trace):
            if site.name not in divergences:
                kept.nodes[site.name or ""] = site
        graph = lower(kept, multiplied=not run.scores)
        terms = [factor_term(factor, graph, site=places[factor.name]) for factor in graph.factors]
        numbers = {run.places[name] for name in divergences}
        of_guide = [term for term in run.terms if term.site not in numbers]
        of_both = [term for pair in divergences.values() for term in pair]
        return expectation([*terms, *of_guide, *of_both], run, graph.plates, places)


def _divergences(
    model: Trace, guide: Trace, run: GuideRun, places: Mapping[str, int]
) -> dict[str, list[Term]]:
    """The closed forms, by site."""
    found: dict[str, list[Term]] = {}
    latest = -1
    for site in sample_sites(model):
        name = site.name or ""
        if site.is_observed or name not in guide.nodes or guide.nodes[name].is_observed:
            continue
        place = run.places[name]
        if place > latest:  # All that the model has drawn before was drawn before by the guide too.
            divergence = _divergence(guide.nodes[name], site)
            if divergence is not None:
                found[name] = _terms(guide.nodes[name], divergence, place)
        latest = max(latest, place)
    return found


def _divergence(of_guide: Message, of_model: Message) -> Tensor | None:
    """For each element; ``None`` where there is no formula, or the two do not count alike."""
    masks = [site.mask for site in (of_guide, of_model)]
    if of_guide.scale is not of_model.scale and not _equal(of_guide.scale, of_model.scale):
        return None
    if masks[0] is not masks[1] and not _equal(*masks):
        return None
    try:
        divergence = kl_divergence(of_guide.fn, of_model.fn)
    except NotImplementedError:
        return None
    divergence = torch.as_tensor(divergence)  # A constant is a number.
    shape = np.broadcast_shapes(of_guide.batch_shape, divergence.shape)
    return scale_and_mask(divergence.expand(shape), of_guide)


def _terms(site: Message, divergence: Tensor, place: int) -> list[Term]:
    """Minus the divergence: it depends on what came before the site, and not on what was drawn there."""
    factor = lower_tensor(site, divergence)
    return [Term(Table(factor.inputs, factor.data), factor.plates, -1.0, place, of_guide=True, before=True)]


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool((one == other).all())
    return type(one) is type(other) and one == other
