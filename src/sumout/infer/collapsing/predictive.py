"""Posterior predictive distributions of sites that depend on a collapsed one, in closed form.

A predictive distribution is a likelihood averaged over the posterior of its parameter: for a Gamma rate that of a
Poisson is negative binomial, and so on.

Source: Bernardo and Smith, *Bayesian Theory* (1994), appendix A.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.families import innermost
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.conjugate import Arm, Star, arm_of
from sumout.lower.collapse.parameters import delayed_parameters
from sumout.lower.collapse.sites import CollapsedSite

Parts = Sequence[Tensor]
"""Natural coordinates of the parameter's posterior, those that each element depends on."""


def parent_of(site: CollapsedSite) -> str | None:
    """The one delayed site that a site depends on; ``None`` if there are more."""
    names = {name for value in delayed_parameters(site.fn) for name in value.sites}
    return names.pop() if len(names) == 1 else None


def predictive(site: CollapsedSite, integral: Integral, weights: Tensor | None = None) -> Any | None:
    """The distribution of a site that integrates to one.

    Args:
        site: the site.
        integral: of the site that it depends on.
        weights: posterior probabilities of the joint states of the discrete variables, with the dimensions
            ``integral.names``.

    Returns:
        A distribution with the batch shape of the site, or ``None`` where there is no closed form here: for other
        families, or where discrete sites in plates choose.
    """
    star = integral.solution
    if not isinstance(star, Star):
        return None
    probe = site.message.copy()
    probe.value = site.value.probe
    arm = arm_of(site._replace(message=probe), integral.latents)
    base, batch = innermost(site.fn), torch.Size(site.message.batch_shape)
    make = _FAMILIES.get((type(innermost(star.latent.fn)), type(base)))
    choices = len(star.names)
    if arm is None or make is None or site.enumerated(batch):
        return None
    if choices and (weights is None or integral.discrete != integral.names):
        return None
    whole = batch + site.fn.event_shape[: len(site.fn.event_shape) - len(base.event_shape)]
    parts = _parts(arm, star, whole)
    if choices:
        parts = [part.flatten(0, choices - 1).movedim(0, len(batch)) for part in parts]

    def wide(x: Tensor) -> Tensor:
        x = x.expand(whole)
        return x.unsqueeze(len(batch)) if choices else x

    fn = make(base, parts, wide, arm)
    extra = len(whole) - len(batch)
    fn = fn.to_event(extra) if extra else fn
    if not choices:
        return fn
    assert weights is not None
    probs = weights.permute([integral.names.index(name) for name in star.names]).flatten()
    return dist.MixtureSameFamily(dist.Categorical(probs=probs.expand([*batch, len(probs)])), fn)


def _parts(arm: Arm, star: Star, whole: torch.Size) -> list[Tensor]:
    """The natural coordinates that each element depends on, discrete variables first."""
    where = arm.link.where[0]
    where = where.expand(whole + where.shape[where.dim() - star.family.event_dim :])
    lead = len(star.names)
    parts = [part.reshape(*part.shape[:lead], -1)[..., where] for part in star.posterior]
    return parts[::-1] if arm.complement else parts


Make = Callable[[Any, Parts, Callable[[Tensor], Tensor], Arm], Any]


def _bernoulli(fn: Any, parts: Parts, wide: Callable[[Tensor], Tensor], arm: Arm) -> Any:
    a, b = parts
    return dist.Bernoulli(probs=a / (a + b))


def _binomial(fn: Any, parts: Parts, wide: Callable[[Tensor], Tensor], arm: Arm) -> Any:
    return dist.BetaBinomial(*parts, total_count=wide(fn.total_count))


def _categorical(fn: Any, parts: Parts, wide: Callable[[Tensor], Tensor], arm: Arm) -> Any:
    return dist.Categorical(probs=parts[0] / parts[0].sum(-1, keepdim=True))


def _one_hot(fn: Any, parts: Parts, wide: Callable[[Tensor], Tensor], arm: Arm) -> Any:
    return dist.OneHotCategorical(probs=parts[0] / parts[0].sum(-1, keepdim=True))


def _multinomial(fn: Any, parts: Parts, wide: Callable[[Tensor], Tensor], arm: Arm) -> Any:
    return dist.DirichletMultinomial(parts[0], total_count=fn.total_count)


def _poisson(fn: Any, parts: Parts, wide: Callable[[Tensor], Tensor], arm: Arm) -> Any:
    shape, rate = parts
    return dist.GammaPoisson(shape, rate / wide(arm.link.coef[0]))


def _exponential(fn: Any, parts: Parts, wide: Callable[[Tensor], Tensor], arm: Arm) -> Any:
    shape, rate = parts
    scale = rate / wide(arm.link.coef[0])
    # Lomax: a Pareto distribution that begins at zero.
    shift = torch.distributions.transforms.AffineTransform(-scale, torch.ones_like(scale))
    return dist.TransformedDistribution(dist.Pareto(scale, shape), [shift])


def _normal(fn: Any, parts: Parts, wide: Callable[[Tensor], Tensor], arm: Arm) -> Any:
    shape, rate = parts
    return dist.StudentT(2 * shape, wide(fn.loc), wide(arm.link.coef[0]) * (rate / shape).sqrt())


_FAMILIES: Mapping[tuple[type, type], Make] = {
    (dist.Beta, dist.Bernoulli): _bernoulli,
    (dist.Beta, dist.Binomial): _binomial,
    (dist.Dirichlet, dist.Categorical): _categorical,
    (dist.Dirichlet, dist.OneHotCategorical): _one_hot,
    (dist.Dirichlet, dist.Multinomial): _multinomial,
    (dist.Gamma, dist.Poisson): _poisson,
    (dist.Gamma, dist.Exponential): _exponential,
    (dist.Gamma, dist.Normal): _normal,
    (dist.InverseGamma, dist.Poisson): _poisson,
    (dist.InverseGamma, dist.Exponential): _exponential,
    (dist.InverseGamma, dist.Normal): _normal,
}
"""By the families of the parameter and of the site; ``u`` being gamma where the parameter is inverse gamma."""
