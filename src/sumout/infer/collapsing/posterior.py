"""Posteriors of collapsed sites in closed form: a distribution of the conjugate family, or a mixture of such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.common_matrix import CommonMatrix
from sumout.lower.collapse.common_scale import CommonScale
from sumout.lower.collapse.component import Component, Moments
from sumout.lower.collapse.conjugate import Star
from sumout.lower.collapse.layout import extents, in_shape, written_plates
from sumout.lower.collapse.sites import CollapsedSite


def posterior(
    integral: Integral, name: str, weights: Tensor | None = None, moments: Mapping[str, Moments] | None = None
) -> Any:
    """The marginal posterior of a collapsed site, with the batch shape that the site's value has in the program.

    Args:
        integral: the site's.
        name: the site.
        weights: posterior probabilities of the joint states of the discrete variables that the integral depends on,
            with the dimensions ``integral.names``; not needed where there are none but plates.
        moments: ``moments_of(integral)``, where it is known.

    Returns:
        Beta, Gamma, InverseGamma, Dirichlet; Normal, or MultivariateNormal where the event has dimensions; StudentT or
        MultivariateStudentT where the scale was integrated out, too; a ``MixtureSameFamily`` of these where discrete
        variables choose.
    """
    site, solution = integral.latents[name], integral.solution
    if isinstance(solution, CommonScale):
        if name == solution.factor.latent.name:
            names, parts = _of_star(solution.factor)
            kind = _conjugate_of(solution.factor)
        else:
            names, parts = _student(name, site, solution, moments)
            kind = _student_of(site)
    elif isinstance(solution, CommonMatrix):
        if name != solution.factor.latent.name:
            return dist.MultivariateStudentT(*solution.student(site))
        names, parts = _of_star(solution.factor)
        kind = _conjugate_of(solution.factor)
    elif isinstance(solution, Star):
        names, parts = _of_star(solution)
        kind = _conjugate_of(solution)
    else:
        found = (moments or solution.moments())[name]
        names, parts = _of_moments(site, found, solution)
        kind = _normal_of(site)
    plates = extents(site)
    chosen = [each for each in names if each not in plates]
    components = kind(parts)
    if not chosen:
        return components
    assert weights is not None
    return _mixture(components, kind, parts, names, chosen, site, integral, weights)


def moments_of(integral: Integral) -> dict[str, Moments]:
    """The first two moments of all Gaussian sites of a group, in units of the common scale where there is one."""
    solution = integral.solution
    if isinstance(solution, Star):
        return {}
    return (solution if isinstance(solution, Component) else solution.gaussian).moments()


def _of_star(star: Star) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Natural coordinates, the discrete variables first, then the batch of the site's value."""
    return star.names, star.posterior


def _conjugate_of(star: Star) -> Any:
    extra = len(star.latent.fn.event_shape) - star.family.event_dim

    def make(parts: Sequence[Tensor]) -> Any:
        found = star.family.distribution(tuple(parts))
        return found.to_event(extra) if extra else found

    return make


def _mixture(
    components: Any,
    kind: Any,
    parts: Sequence[Tensor],
    names: Sequence[str],
    chosen: Sequence[str],
    site: CollapsedSite,
    integral: Integral,
    weights: Tensor,
) -> Any:
    """One component for each joint state of the discrete variables, along the last batch dimension."""
    count = len(chosen)
    batch = components.batch_shape[count:]
    parts = [part.flatten(0, count - 1).movedim(0, len(batch)) for part in parts]
    # The weights have the discrete variables and some of the plates; the others do not matter.
    places = [integral.names.index(each) for each in chosen]
    plates = {each: dim for each, (dim, _) in extents(site).items() if each in integral.names}
    others = sorted(plates, key=lambda each: plates[each])
    weights = weights.permute([*[integral.names.index(each) for each in others], *places])
    shape = [1] * len(batch)
    for each in others:
        shape[plates[each]] = extents(site)[each][1]
    weights = weights.flatten(len(others)).reshape([*shape, -1]).expand([*batch, -1])
    return dist.MixtureSameFamily(dist.Categorical(probs=weights), kind(parts))


def _of_moments(
    site: CollapsedSite, moments: Moments, component: Component
) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Mean and covariance of each element: discrete variables first, then the batch of the site's value, the event."""
    names, mean, covariance = moments
    entries = site.event_size
    written = [size for _, size in written_plates(site, component.written)]
    blocks = _own_blocks(covariance, written, entries)
    chosen, mean = in_shape(site, names, mean, component.written)
    _, blocks = in_shape(site, names, blocks.flatten(-len(written) - 2), component.written, entries * entries)
    return chosen, (mean, blocks.reshape([*blocks.shape[:-1], entries, entries]))


def _own_blocks(covariance: Tensor, sizes: Sequence[int], entries: int) -> Tensor:
    """From the covariance of all elements the covariance of each element's own entries."""
    count = torch.Size(sizes).numel()
    lead = covariance.shape[:-2]
    blocks = covariance.reshape([*lead, count, entries, count, entries]).diagonal(
        dim1=len(lead), dim2=len(lead) + 2
    )
    return blocks.movedim(-1, len(lead)).reshape([*lead, *sizes, entries, entries])


def _normal_of(site: CollapsedSite) -> Any:
    event = site.fn.event_shape

    def make(parts: Sequence[Tensor]) -> Any:
        mean, covariance = parts
        if not event:
            return dist.Normal(mean[..., 0], covariance[..., 0, 0].sqrt())
        return _shaped(dist.MultivariateNormal(mean, covariance), event)

    return make


def _student(
    name: str, site: CollapsedSite, solution: CommonScale, moments: Mapping[str, Moments] | None
) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    found = (moments or solution.gaussian.moments())[name]
    names, (mean, covariance) = _of_moments(site, found, solution.gaussian)
    star = solution.factor
    shape, rate = star.posterior
    # To the discrete variables and the batch of the Gaussian site, which lives in all plates of the factor.
    rank = mean.dim() - 1 - len(names)
    own = shape.shape[len(star.names) :]
    aligned = []
    for each in (shape, rate):
        each = each.permute(
            [
                *[star.names.index(name) for name in names if name in star.names],
                *range(len(star.names), each.dim()),
            ]
        )
        sizes = [
            each.shape[[n for n in names if n in star.names].index(name)] if name in star.names else 1
            for name in names
        ]
        aligned.append(each.reshape([*sizes, *[1] * (rank - len(own)), *own]))
    shape, rate = [each.expand(mean.shape[:-1]) for each in aligned]
    return names, (2 * shape, mean, covariance * (rate / shape)[..., None, None])


def _student_of(site: CollapsedSite) -> Any:
    event = site.fn.event_shape

    def make(parts: Sequence[Tensor]) -> Any:
        df, mean, spread = parts
        if not event:
            return dist.StudentT(df, mean[..., 0], spread[..., 0, 0].sqrt())
        return _shaped(dist.MultivariateStudentT(df, mean, torch.linalg.cholesky(spread)), event)

    return make


def _shaped(vector: Any, event: torch.Size) -> Any:
    """A distribution of vectors as one of events of any shape."""
    if len(event) == 1:
        return vector
    reshape = torch.distributions.transforms.ReshapeTransform(torch.Size([event.numel()]), event)
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
