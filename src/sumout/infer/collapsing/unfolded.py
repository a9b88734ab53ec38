"""Normal predictions as affine functions of integrated sites and of noises: predictions in between are unfolded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

import sumout.distributions as dist
from sumout.distributions.families import innermost
from sumout.effects.delayed import Delayed, Link
from sumout.effects.hidden.value import Hidden
from sumout.infer.collapsing.chosen import choices_of
from sumout.infer.collapsing.posterior import states_of
from sumout.lower.collapse.collapse import Integral, collapsed
from sumout.lower.collapse.component import Component
from sumout.lower.collapse.gaussian import Member, member
from sumout.lower.collapse.layout import is_aligned, use_of
from sumout.lower.collapse.normal import NormalForm, normal_form
from sumout.lower.collapse.sites import CollapsedSite


class Unfolded(NamedTuple):
    """A prediction given integrated sites and noises.

    Attributes:
        site: the prediction, with the dimensions of all enumerated sites that choose its distribution.
        own: how it uses the integrated sites and the noises.
        integrals: of these, by their names.
        logs: whether its logarithm is normal.
    """

    site: CollapsedSite
    own: Member
    integrals: Mapping[str, Integral]
    logs: bool

    @property
    def groups(self) -> list[Integral]:
        return list({id(each): each for each in self.integrals.values()}.values())

    @property
    def latents(self) -> dict[str, CollapsedSite]:
        return {name: each.latents[name] for name, each in self.integrals.items()}

    @property
    def known(self) -> dict[str, int]:
        """The discrete sites that the integrals depend on, with their numbers of states."""
        return {name: size for each in self.groups for name, size in states_of(each).items()}

    @property
    def choices(self) -> dict[str, int]:
        """The discrete sites that choose among its distributions."""
        return {**self.known, **choices_of(self.site, self.own.batch)}


def unfolded(
    site: CollapsedSite, integrals: Mapping[str, Integral], predicted: Mapping[str, CollapsedSite]
) -> Unfolded | None:
    """A prediction as an affine function with normal noise; ``None`` where it is none.

    Args:
        site: the prediction.
        integrals: of integrated sites, by their names.
        predicted: predictions, by their names, on which it may depend.
    """
    logs = isinstance(innermost(site.fn), dist.LogNormal)
    form = _form(site, logs)
    if form is None or not isinstance(form.residual, Delayed):
        return None
    known = dict(integrals)
    noises: dict[str, CollapsedSite] = {}
    found = _without_predictions(site, form.residual, predicted, noises)
    if found is None:
        return None
    residual, site = found
    for name, noise in noises.items():
        (known[name],) = collapsed([noise], {})
    if not all(_is_gaussian(known[link.site]) for link in residual.links):
        return None
    latents = {link.site: known[link.site].latents[link.site] for link in residual.links}
    own = member(site, form._replace(residual=residual), latents, torch.float64)
    # What is masked is predicted as well.
    return Unfolded(site, own._replace(power=1.0), {name: known[name] for name in sorted(latents)}, logs)


def _is_gaussian(integral: Integral) -> bool:
    """Whether its sites are normal given the discrete ones, and their moments are kept."""
    if isinstance(integral.log_evidence, Hidden) or integral.approximation is not None:
        return False
    return isinstance(integral.solution, Component)


def _form(site: CollapsedSite, logs: bool) -> NormalForm | None:
    """The site as a normal one, with its value (or that's logarithm) zero."""
    zero = (torch.ones_like if logs else torch.zeros_like)(site.value.probe)
    form = normal_form(site.fn, zero)
    return form if form is not None and form.unit is None else None


def _without_predictions(
    site: CollapsedSite,
    value: Delayed,
    predicted: Mapping[str, CollapsedSite],
    noises: dict[str, CollapsedSite],
) -> tuple[Delayed, CollapsedSite] | None:
    """A value of a site's shape as a function of integrated sites and ``noises``, which are added to."""
    links = tuple([link for link in value.links if link.site not in predicted])
    found: Any = Delayed.made(value.probe, links, value.shift) if links else value.const
    for link in value.links:
        if link.site not in predicted:
            continue
        parent = predicted[link.site]
        expanded = _expanded(parent, predicted, noises)
        if expanded is None:
            return None
        whole, parent = expanded
        if whole.shape == parent.value.shape:
            entries = whole.reshape(-1)[link.where.clamp(min=0)]
            found = found + (link.coef * entries).sum(0)
        elif site.fn.event_shape or parent.fn.event_shape or not _is_own_element(site, link, parent):
            return None
        else:
            found = found + link.coef.sum(0) * whole
        own = {**(parent.message.enum_dims or {}), **(site.message.enum_dims or {})}
        message = site.message.copy()
        message.enum_dims = own
        site = site._replace(message=message)
    return found, site


def _expanded(
    site: CollapsedSite, predicted: Mapping[str, CollapsedSite], noises: dict[str, CollapsedSite]
) -> tuple[Delayed, CollapsedSite] | None:
    """A prediction's value: its mean and a multiple of a noise, along the values of what chooses them."""
    form = _form(site, False)
    if form is None or not isinstance(form.residual, Delayed):
        return None
    mean = _without_predictions(site, form.residual, predicted, noises)
    if mean is None:
        return None
    name = f"noise of {site.name}"
    probe = torch.zeros_like(site.value.probe)
    noise: Any = Delayed.of_site(name, probe)
    if name not in noises:
        message = site.message.copy()
        message.name, message.value, message.enum_dims, message.mask = name, noise, None, None
        message.plain_fn = dist.Normal(probe, torch.ones_like(probe)).to_event(len(site.fn.event_shape))
        message._fn, message._plates_shape = None, None
        noises[name] = CollapsedSite(message, 1.0, None, site.inner)
    if form.scale is not None:
        return mean[0] + form.scale * noise, mean[1]
    assert form.scale_tril is not None
    return mean[0] + (form.scale_tril @ noise.unsqueeze(-1)).squeeze(-1), mean[1]


def _is_own_element(site: CollapsedSite, link: Link, parent: CollapsedSite) -> bool:
    """Whether each element of all plates of a parent is used by the same element of a site."""
    use = use_of(link, parent)
    dims = {frame.name: dim for dim, frame in site.frames.items()}
    return all(
        plate in dims and is_aligned(use, plate, dims[plate], len(site.fn.event_shape))
        for plate in use.coordinates
    )
