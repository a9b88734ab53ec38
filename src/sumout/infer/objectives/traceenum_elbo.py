"""The evidence lower bound with the model's marked discrete sites summed out exactly."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sumout.effects import Message, Trace
from sumout.effects.steps import is_lookback, names_in_loop
from sumout.effects.trace import sample_sites
from sumout.errors import EnumerationError, ImpossibleEvidenceError
from sumout.factors import FactorGraph
from sumout.infer.answers.readout import latent_sites, site_marginal
from sumout.infer.objectives.elbo import ELBO
from sumout.infer.objectives.estimator import Frames, subtract_guide
from sumout.infer.objectives.pair import Args, Kwargs, Program, check_plates, cost, trace_pair
from sumout.infer.programs.agreement import check_agreement
from sumout.infer.solving.solve import solve
from sumout.lower import lower
from sumout.settings import settings


class TraceEnum_ELBO(ELBO):
    """``log Σ p(x, y, z) - log q(z)``, where the sum runs over all values of the model's marked sites ``y``.

    Sites of the model marked ``infer={"enumerate": "parallel"}`` (see ``config_enumerate``) that the guide
    lacks are summed out; the guide draws the others, ``z``. Without such ``z`` the loss is the exact negative
    log-evidence. Subsampled plates and masks keep their meaning; a scale multiplies the logarithm of the sum.
    The arguments are those of ``ELBO``. The methods raise what ``lower`` and ``make_plan`` raise;
    ``EnumerationError`` for sites of the guide that are marked for enumeration, which is not supported yet;
    ``MemoryLimitError`` before anything is allocated.

    >>> import sumout
    >>> import sumout.distributions as dist
    >>> @sumout.infer.config_enumerate
    ... def model(x):
    ...     z = sumout.sample("z", dist.Bernoulli(0.5))
    ...     sumout.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)
    >>> loss = TraceEnum_ELBO().loss(model, lambda x: None, torch.tensor(1.0))
    >>> round(loss, 4)  # -log(0.5 * 0.2 + 0.5 * 0.8)
    0.6931

    Source: Obermeyer, Bingham, Jankowiak, Phan and Chen, *Tensor variable elimination for plated factor
    graphs* (2019), section 4.
    """

    _needs_nesting = True

    def _estimate(
        self, model: Program, guide: Program, args: Args, kwargs: Kwargs, nesting: int | None
    ) -> Tensor:
        model_trace, guide_sites = _traces(model, guide, args, kwargs, nesting or 0)
        graph = lower(model_trace)
        check_agreement(self, lambda: model(*args, **kwargs), model_trace, graph)
        if self.strict_enumeration_warning and not graph.variables:
            warnings.warn(
                "TraceEnum_ELBO found no site of the model to enumerate. Mark discrete sites that the guide "
                "lacks (config_enumerate), or use Trace_ELBO.",
                stacklevel=5,
            )
        log_model = solve(graph).value
        return subtract_guide(log_model, guide_sites, lambda: _costs(model_trace, graph, log_model))

    def compute_marginals(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The marginal of every summed-out site, given the observations and one draw of the guide.

        Returns:
            A ``sumout.distributions`` object for each site, with the batch shape of its plates.

        Raises:
            ValueError: if there is more than one particle.
            ImpossibleEvidenceError: if the observations and the draw have probability zero.
        """
        if self.num_particles > 1:
            raise ValueError(
                f"compute_marginals takes one draw of the guide; this has num_particles={self.num_particles}."
            )
        nesting = self._nesting(model, guide, args, kwargs)
        model_trace, _ = _traces(model, guide, args, kwargs, nesting)
        graph = lower(model_trace)
        check_agreement(self, lambda: model(*args, **kwargs), model_trace, graph)
        result = solve(graph, marginals=tuple(graph.variables))
        if result.value.item() == -torch.inf:
            raise ImpossibleEvidenceError(
                "The observations and the guide's draw have probability zero under the model, so there is no "
                "posterior."
            )
        latent = latent_sites(model_trace)
        return {name: site_marginal(latent[name], result.marginal(name)) for name in graph.variables}


def _traces(
    model: Program, guide: Program, args: Args, kwargs: Kwargs, nesting: int
) -> tuple[Trace, list[Message]]:
    """The enumerated model's trace, and the sample sites of the guide."""
    model_trace, guide_trace = trace_pair(model, guide, args, kwargs, first_available_dim=-1 - nesting)
    guide_sites = sample_sites(guide_trace)
    _refuse_marks(guide_sites)
    guide_trace.compute_score_parts()
    if settings.validation:
        check_plates(guide_sites)  # Those of the model are checked by lower.
    return model_trace, guide_sites


def _costs(model: Trace, graph: FactorGraph, log_model: Tensor) -> Iterable[tuple[Frames, Tensor]]:
    """The terms of the model's part: one for each site that no variable touches, and one for all the others."""
    touched = {
        factor.name for factor in graph.factors if not graph.variables.keys().isdisjoint(factor.inputs)
    }
    for site in sample_sites(model):
        if not is_lookback(site) and touched.isdisjoint(names_in_loop(site)):
            yield cost(site)
            log_model = log_model - site["log_prob_sum"]
    yield frozenset(), log_model


def _refuse_marks(guide: Iterable[Message]) -> None:
    for site in guide:
        if site.infer.get("enumerate") and not site.is_observed:
            raise EnumerationError(
                f"Site {site.name!r} of the guide is marked for enumeration, which is not supported in guides "
                "yet. Leave the site out of the guide and mark it in the model, or take the mark away to sample it."
            )
