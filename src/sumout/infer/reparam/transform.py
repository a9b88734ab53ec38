"""The base of a transformed distribution as a site of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions.transforms import ComposeTransform

from sumout.distributions.families import is_distribution
from sumout.effects import get_mask
from sumout.effects.primitives.sample import sample
from sumout.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult, determined, sum_rightmost


class TransformReparam(Reparam):
    """Writes ``x ~ TransformedDistribution(base, f)`` as ``x_base ~ base``, ``x = f(x_base)``.

    Useful where the posterior has a simple shape before the transformation. The density of an observed site is
    kept too: the Jacobian stands in the site itself.

    Raises:
        ModelError: when the program runs, if the site's distribution is not a transformed one, or its base is none
            of ``sumout.distributions``; or if the site is observed and the transformation not bijective.

    >>> import torch, sumout, sumout.distributions as dist
    >>> @sumout.poutine.reparam(config={"x": TransformReparam()})
    ... def model():
    ...     return sumout.sample("x", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
    >>> trace = sumout.poutine.trace(model).get_trace()
    >>> trace.nodes["x_base"]["fn"]
    Independent(Normal(loc: torch.Size([2]), scale: torch.Size([2])), 1)
    >>> bool((trace.nodes["x"]["value"] == trace.nodes["x_base"]["value"].exp()).all())
    True
    """

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name, value, is_observed = msg["name"], msg["value"], msg["is_observed"]
        fn, event_dim = self._unwrap(msg["fn"])
        if not isinstance(fn, torch.distributions.TransformedDistribution):
            raise self._misfit(
                msg, "it is not a TransformedDistribution", "Leave the site out of reparam's config."
            )
        if not is_distribution(fn.base_dist):
            raise self._misfit(
                msg,
                f"its base is torch's {type(fn.base_dist).__name__}, which is not a site's distribution",
                "Write it as a TransformedDistribution of one in sumout.distributions.",
            )
        transform: Any = ComposeTransform(list(fn.transforms))
        base_event_dim = event_dim + sum(
            each.domain.event_dim - each.codomain.event_dim for each in fn.transforms
        )
        base = None if value is None else transform.inv(value)
        base = sample(
            f"{name}_base",
            self._wrap(fn.base_dist, base_event_dim),
            obs=base,
            infer={"is_observed": is_observed},
        )
        if value is None:
            value = transform(base)
        log_density = None
        if is_observed and get_mask() is not False:
            if not transform.bijective:
                raise self._misfit(
                    msg,
                    "its transformation is not bijective, and the site is observed",
                    "Leave the site out of reparam's config.",
                )
            jacobian = transform.log_abs_det_jacobian(base, value)
            log_density = -sum_rightmost(jacobian, base_event_dim - transform.domain.event_dim)
        return determined(value, event_dim, log_density)
