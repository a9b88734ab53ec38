"""Directions as normals projected onto the sphere."""

from __future__ import annotations

import torch
import torch.nn.functional as F

import sumout.distributions as dist
from sumout.effects.primitives.sample import sample
from sumout.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult, determined


class ProjectedNormalReparam(Reparam):
    """Writes ``x ~ ProjectedNormal(concentration)``, a direction, by normal noise without parameters::

        x_normal ~ Normal(0, I),    x = (x_normal + concentration) / |x_normal + concentration|

    Hernandez-Stumpfhauser, Breidt, van der Woerd (2017), "The General Projected Normal Distribution of Arbitrary
    Dimension: Modeling and Bayesian Inference". The noise is unconstrained, and its density known in all
    dimensions, where that of the direction is known in few. For latent sites only.

    Raises:
        ModelError: when the program runs, if the site is not ``ProjectedNormal``, or observed.

    >>> import sumout
    >>> @sumout.poutine.reparam(config={"x": ProjectedNormalReparam()})
    ... def model():
    ...     return sumout.sample("x", dist.ProjectedNormal(torch.zeros(5)))
    >>> bool(model().norm().isclose(torch.tensor(1.0)))
    True
    """

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name, value = msg["name"], msg["value"]
        fn, event_dim = self._unwrap(msg["fn"])
        if not isinstance(fn, dist.ProjectedNormal):
            raise self._misfit(msg, "it is not ProjectedNormal", "Leave the site out of reparam's config.")
        self._must_be_latent(msg)
        # Of all noise that leads to a given value, that with distance one.
        noise = None if value is None else value - fn.concentration
        standard = dist.Normal(torch.zeros_like(fn.concentration), 1.0)
        noise = sample(
            f"{name}_normal", self._wrap(standard, event_dim), obs=noise, infer={"is_observed": False}
        )
        if value is None:
            value = F.normalize(noise + fn.concentration, dim=-1)
        return determined(value, event_dim)
