"""Posteriors of collapsed sites in closed form: a distribution of the conjugate family, or a mixture of such."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.families import innermost
from sumout.execute import Marginal
from sumout.infer.collapsing.elements import batch_rank, own_moments
from sumout.infer.collapsing.mixed import Along, Mixed, weights_of
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.common_matrix import CommonMatrix
from sumout.lower.collapse.component import Component, Moments
from sumout.lower.collapse.conjugate import Star
from sumout.lower.collapse.layout import extents
from sumout.lower.collapse.sites import CollapsedSite

Family = tuple[tuple[str, tuple[int, ...]], Callable[[Sequence[Tensor]], Any]]


def posterior(integral: Integral, name: str, marginal: Marginal | None = None) -> Any:
    """The marginal posterior of a collapsed site, with the batch shape that the site's value has in the program.

    Args:
        integral: the site's.
        name: the site.
        marginal: joint posterior probabilities of ``integral.discrete``; not needed where there are none.

    Returns:
        Beta, Gamma, InverseGamma, Dirichlet, Pareto, Wishart; Normal, or MultivariateNormal where the event has
        dimensions; StudentT or MultivariateStudentT where the scale was integrated out, too; a ``MixtureSameFamily``
        of these where discrete variables choose.
    """
    return mixed_posterior(integral, name, marginal).distribution()


def mixed_posterior(
    integral: Integral,
    name: str,
    marginal: Marginal | None = None,
    moments: Mapping[str, Moments] | None = None,
) -> Mixed:
    """The same before it is made a distribution; ``moments`` are ``moments_of(integral)``, where these are known."""
    site = integral.latents[name]
    star = star_of(integral, name)
    if star is None:
        found = (moments or moments_of(integral))[name]
        return gaussian(integral, [site], site.fn.event_shape, found, marginal)
    extra = _extra(star)

    def make(parts: Sequence[Tensor]) -> Any:
        found = star.family.distribution(tuple(parts))
        return found.to_event(extra) if extra else found

    family = type(innermost(site.fn)).__name__, tuple(site.fn.event_shape)
    return mixture(
        states_of(integral),
        [site],
        (family, make),
        [Along(star.names, each) for each in star.posterior],
        marginal,
    )


def moments_of(integral: Integral) -> dict[str, Moments]:
    """The first two moments of all Gaussian sites of a group, in units of the common scale where there is one."""
    solution = integral.solution
    if isinstance(solution, Star):
        return {}
    return (solution if isinstance(solution, Component) else solution.gaussian).moments()


def gaussian(
    integral: Integral,
    sites: Sequence[CollapsedSite],
    event: Sequence[int],
    moments: Moments,
    marginal: Marginal | None,
) -> Mixed:
    """The posterior of Gaussian sites, one or several side by side, from their moments; ``event`` is its shape."""
    solution = integral.solution
    assert not isinstance(solution, Star)
    if isinstance(solution, CommonMatrix):
        (site,) = sites
        parts = [Along(names, each) for names, each in solution.student(site)]
        return mixture(states_of(integral), sites, _student(site.fn.event_shape), parts, marginal)
    component = solution if isinstance(solution, Component) else solution.gaussian
    mean, covariance = own_moments(sites, moments, component.written)
    if isinstance(solution, Component):
        return mixture(states_of(integral), sites, normal(event), [mean, covariance], marginal)
    star, rank = solution.factor, batch_rank(sites)
    first: tuple[Any, ...] = (..., *[0] * _extra(star))  # Only its first entry is a scale.
    found = []
    for each in (2 * star.posterior[0], star.posterior[1] / star.posterior[0]):
        each = each[first]
        own = each.shape[len(star.names) :]
        found.append(
            Along(star.names, each.reshape([*each.shape[: len(star.names)], *[1] * (rank - len(own)), *own]))
        )
    freedom, ratio = found
    parts = [freedom, mean, covariance, ratio]
    return mixture(states_of(integral), sites, _student(event), parts, marginal)


def mixture(
    states: Mapping[str, int],
    sites: Sequence[CollapsedSite],
    family: Family,
    parts: Sequence[Along],
    marginal: Marginal | None,
) -> Mixed:
    """Components for all joint states of discrete sites.

    Args:
        states: the discrete sites with their numbers of states.
        sites: whose posterior it is.
        family: what it is called, and how it is made.
        parts: along discrete sites, of shape ``(*batch, *rest)``; the batch is that of all sites together.
        marginal: of all the discrete sites together, in the order of ``states``.
    """
    rank = batch_rank(sites)
    flat = [each.over(tuple(states), states) for each in parts]
    batch = np.broadcast_shapes(*[each.shape[1 : 1 + rank] for each in flat])
    flat = [each.expand([-1, *batch, *each.shape[1 + rank :]]) for each in flat]
    weights = None
    if states:
        assert marginal is not None
        dims = {plate: dim for site in sites for plate, (dim, _) in extents(site).items()}
        weights = weights_of(marginal, dims, rank)
    return Mixed(*family, tuple(flat), tuple(batch), weights)


def states_of(integral: Integral) -> dict[str, int]:
    """The discrete sites that an integral depends on, with their numbers of states."""
    sizes = dict(zip(integral.names, integral.log_evidence.shape, strict=True))
    return {name: sizes[name] for name in integral.discrete}


def star_of(integral: Integral, name: str) -> Star | None:
    """The star that a site is the middle of; ``None`` for a Gaussian one."""
    solution = integral.solution
    if isinstance(solution, Component):
        return None
    star = solution if isinstance(solution, Star) else solution.factor
    return star if star.latent.name == name else None


def _extra(star: Star) -> int:
    """Event dimensions that ``to_event`` made of batch dimensions."""
    return len(star.latent.fn.event_shape) - star.family.event_dim


def normal(event: Sequence[int]) -> Family:
    """Of a mean and a covariance."""

    def make(parts: Sequence[Tensor]) -> Any:
        mean, covariance = parts
        if not event:
            return dist.Normal(mean[..., 0], covariance[..., 0, 0].sqrt())
        return _shaped(dist.MultivariateNormal(mean, covariance), event)

    return ("MultivariateNormal" if event else "Normal", tuple(event)), make


def _student(event: Sequence[int]) -> Family:
    """Of degrees of freedom, a mean, a spread, and possibly what the spread is to be multiplied by."""

    def make(parts: Sequence[Tensor]) -> Any:
        freedom, mean, spread, *times = parts
        for each in times:
            spread = spread * each[..., None, None]
        if not event:
            return dist.StudentT(freedom, mean[..., 0], spread[..., 0, 0].sqrt())
        return _shaped(dist.MultivariateStudentT(freedom, mean, torch.linalg.cholesky(spread)), event)

    return ("MultivariateStudentT" if event else "StudentT", tuple(event)), make


def _shaped(vector: Any, event: Sequence[int]) -> Any:
    """A distribution of vectors as one of events of any shape."""
    if len(event) == 1:
        return vector
    shape = torch.Size(event)
    reshape = torch.distributions.transforms.ReshapeTransform(torch.Size([shape.numel()]), shape)
    return _Shaped(vector, [reshape])


class _Shaped(dist.TransformedDistribution):  # type: ignore[misc]
    """The moments of a vector in another shape."""

    @property
    def mean(self) -> Tensor:
        found: Tensor = self.base_dist.mean
        return found.reshape(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        found: Tensor = self.base_dist.variance
        return found.reshape(self.batch_shape + self.event_shape)
