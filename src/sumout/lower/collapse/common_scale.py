"""Gaussian sites whose standard deviations are known up to one common factor, which is delayed too.

With precisions ``u`` times what they would be for ``u = 1``, the integral over all Gaussian sites is, as a function of
``u``, that of a Gamma likelihood: ``exp(rest) * u ** (n / 2) * exp(-u * q / 2)``. So the normal-gamma family, Bayesian
regression with unknown noise and their like in any plates are a Gaussian component and a star.

Source: Bernardo and Smith, *Bayesian Theory* (1994), section 5.2 and appendix A.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.distributions.conjugacy import INVERSE
from sumout.distributions.families import innermost
from sumout.lower.collapse.arms import Arm
from sumout.lower.collapse.assembly import component
from sumout.lower.collapse.centering import center_of, centered
from sumout.lower.collapse.component import Component
from sumout.lower.collapse.conjugate import Star, star
from sumout.lower.collapse.gaussian import Member, match, member
from sumout.lower.collapse.layout import extents, refuse_subsample, use_of
from sumout.lower.collapse.normal import NormalForm
from sumout.lower.collapse.rows import Rows
from sumout.lower.collapse.sites import CollapsedSite


class CommonScale(NamedTuple):
    """The common factor, with all that it is told, and the Gaussian sites in units of it."""

    factor: Star
    gaussian: Component


def common_scale(
    members: Sequence[tuple[CollapsedSite, NormalForm]],
    arms: Sequence[Arm],
    latents: Mapping[str, CollapsedSite],
    discrete: Mapping[str, frozenset[str]],
    dtype: torch.dtype,
) -> CommonScale | None:
    """The integral of Gaussian sites with one unknown scale, or ``None`` where their scales differ otherwise.

    Args:
        members: the Gaussian sites, with scales in units of the unknown one.
        arms: observations of that alone.
        latents: all delayed sites.
        discrete: the plates of each enumerated site.
        dtype: in which to compute.
    """
    units = {form.unit.site for _, form in members if form.unit is not None}
    if len(units) != 1 or any(form.unit is None for _, form in members):
        return None
    (unit,) = units
    latent = latents[unit]
    wanted = 0.5 if type(innermost(latent.fn)) in INVERSE else -0.5
    gaussian = {name: each for name, each in latents.items() if name != unit}
    if any(form.power != wanted or has_events(form, latent) for _, form in members):
        return None
    if not matched([member(*each, gaussian, dtype, latent) for each in members], latent):
        return None
    plates = extents(latent)
    kept = frozenset(plates)

    def solved(members: Sequence[tuple[CollapsedSite, NormalForm]]) -> Component:
        whole = [member(*each, gaussian, dtype, latent) for each in members]
        return component(whole, gaussian, discrete, kept)

    whole = solved(members)
    q, rest = whole.integral()
    # Half of every deviation is four times the precision: what log-determinants gain tells how many there are.
    n = (solved([(site, _halved(form)) for site, form in members]).integral().rest - rest) / math.log(2.0)
    center = center_of(whole, q, gaussian)
    if center is not None:
        q, rest = solved(centered(members, center)).integral()
    more = rows_in(whole.batch, latent, (0.5 * n, 0.5 * q), rest)
    return CommonScale(star(latent, arms, dtype, [more]), whole)


def has_events(form: NormalForm, latent: CollapsedSite) -> bool:
    """Whether a site's scale is another entry of an event than the first."""
    assert form.unit is not None
    return bool((use_of(form.unit, latent).event != 0).any())


def matched(members: Sequence[Member], latent: CollapsedSite) -> bool:
    """Whether elements of the common scale's plates are problems of their own.

    Delayed sites are in all of these plates, and each observed row picks one element, of the scale and of all that it
    depends on.
    """
    for each in members:
        refuse_subsample(each.site, latent)
        for plate in extents(latent):
            found = match(each, plate)
            if found is None or (each.site.is_latent and isinstance(found, Tensor)):
                return False
    return True


def rows_in(batch: tuple[str, ...], latent: CollapsedSite, natural: tuple[Tensor, ...], base: Tensor) -> Rows:
    """What all Gaussian sites tell the scale together, from tensors that begin with a component's batch."""
    plates = extents(latent)
    first = [place for place, name in enumerate(batch) if name not in plates]
    own = [batch.index(name) for name in plates if name in batch]
    lead = {batch[place]: base.shape[place] for place in first}

    def flat(x: Tensor) -> Tensor:
        events = range(len(batch), x.ndim)
        return x.permute([*first, *own, *events]).reshape([*lead.values(), -1, *x.shape[len(batch) :]])

    base = flat(base)
    element = torch.arange(base.shape[-1], device=base.device).expand(base.shape)
    return Rows(lead, element, tuple([flat(each) for each in natural]), base)


def _halved(form: NormalForm) -> NormalForm:
    if form.scale_tril is not None:
        return form._replace(scale_tril=0.5 * form.scale_tril)
    assert form.scale is not None
    return form._replace(scale=0.5 * form.scale)
