"""The evidence lower bound with the model's marked discrete sites summed out exactly."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from sumout.effects import Message
from sumout.errors import EnumerationError
from sumout.execute import execute
from sumout.factors import FactorGraph
from sumout.infer.elbo import ELBO
from sumout.infer.estimator import Frames, subtract_guide
from sumout.infer.pair import Program, check_plates, frames, sample_sites, trace_pair
from sumout.lower import lower
from sumout.plan import make_plan
from sumout.settings import settings


class TraceEnum_ELBO(ELBO):
    """``log Σ p(x, y, z) - log q(z)``, where the sum runs over all values of the model's marked sites ``y``.

    Sites of the model marked ``infer={"enumerate": "parallel"}`` (see ``config_enumerate``) that the guide lacks are
    summed out; the guide draws the others, ``z``. Without such ``z`` the loss is the exact negative log-evidence.
    Subsampled plates, masks and scales keep their meaning: a scale multiplies the logarithm of what was summed.
    The arguments are those of ``ELBO``. It raises what ``lower`` and ``make_plan`` raise,
    ``EnumerationError`` for sites of the guide that are marked for enumeration, which is not supported yet,
    and ``MemoryLimitError`` before anything is allocated.

    >>> import sumout
    >>> import sumout.distributions as dist
    >>> @sumout.infer.config_enumerate
    ... def model(x):
    ...     z = sumout.sample("z", dist.Bernoulli(0.5))
    ...     sumout.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)
    >>> loss = TraceEnum_ELBO().loss(model, lambda x: None, torch.tensor(1.0))
    >>> round(loss, 4)  # -log(0.5 * 0.2 + 0.5 * 0.8)
    0.6931

    Source: Obermeyer, Bingham, Jankowiak, Phan and Chen, *Tensor variable elimination for plated factor graphs*
    (2019), section 4.
    """

    _needs_nesting = True

    def _estimate(
        self,
        model: Program,
        guide: Program,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        nesting: int | None,
    ) -> Tensor:
        assert nesting is not None
        model_trace, guide_trace = trace_pair(model, guide, args, kwargs, first_available_dim=-1 - nesting)
        guide_sites = sample_sites(guide_trace)
        _check_guide(guide_sites)
        graph = lower(model_trace)
        if self.strict_enumeration_warning and not graph.variables:
            warnings.warn(
                "TraceEnum_ELBO found no site of the model to enumerate. Mark discrete sites that the guide lacks "
                "(config_enumerate), or use Trace_ELBO.",
                stacklevel=5,
            )
        log_model = _log_sum(graph)
        return subtract_guide(
            log_model, guide_sites, lambda: _costs(sample_sites(model_trace), graph, log_model)
        )


def _log_sum(graph: FactorGraph) -> Tensor:
    """The logarithm of the sum over all variables."""
    plan = make_plan(graph.structure)
    if graph.factors:
        itemsize = graph.factors[0].data.element_size()
        plan.check_memory(settings.memory_limit, itemsize, backward=torch.is_grad_enabled())
    return execute(plan, graph).value


def _costs(
    model: Iterable[Message], graph: FactorGraph, log_model: Tensor
) -> Iterable[tuple[Frames, Tensor]]:
    """The terms of the model's part: one for each site that no variable touches, and one for all the others."""
    touched = {
        factor.name for factor in graph.factors if not graph.variables.keys().isdisjoint(factor.inputs)
    }
    for site in model:
        if site.name not in touched:
            yield frames(site), site["log_prob"]
            log_model = log_model - site["log_prob_sum"]
    yield frozenset(), log_model


def _check_guide(guide: Iterable[Message]) -> None:
    for site in guide:
        if site.infer.get("enumerate") and not site.is_observed:
            raise EnumerationError(
                f"Site {site.name!r} of the guide is marked for enumeration, which is not supported in guides yet. "
                "Leave the site out of the guide and mark it in the model, or take the mark away to sample it."
            )
        if settings.validation:
            check_plates(site, site["log_prob"])
