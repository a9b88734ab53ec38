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

from sumout.distributions.conjugacy import INVERSE
from sumout.distributions.families import innermost
from sumout.lower.collapse.assembly import component
from sumout.lower.collapse.centering import center_of, centered
from sumout.lower.collapse.component import Component
from sumout.lower.collapse.conjugate import Arm, Rows, Star, star
from sumout.lower.collapse.gaussian import member
from sumout.lower.collapse.layout import extents, is_aligned, use_of
from sumout.lower.collapse.normal import NormalForm
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
    plates = extents(latent)
    for site, form in members:
        assert form.unit is not None
        use = use_of(form.unit, latent)
        dims = {frame.name: dim for dim, frame in site.frames.items()}
        events = len(site.fn.event_shape)
        if form.power != wanted or bool((use.event != 0).any()):
            return None
        if not all(plate in dims and is_aligned(use, plate, dims[plate], events) for plate in plates):
            return None
    kept = frozenset(plates)

    def solved(members: Sequence[tuple[CollapsedSite, NormalForm]]) -> Component:
        return component([member(*each, gaussian, dtype) for each in members], gaussian, discrete, kept)

    whole = solved(members)
    q, rest = whole.integral()
    # Half of every deviation is four times the precision: what log-determinants gain tells how many there are.
    n = (solved([(site, _halved(form)) for site, form in members]).integral().rest - rest) / math.log(2.0)
    center = center_of(whole, q, gaussian)
    if center is not None:
        q, rest = solved(centered(members, center)).integral()
    batch = whole.batch
    first = [place for place, name in enumerate(batch) if name not in plates]
    own = [name for name in plates if name in batch]
    order = [*first, *[batch.index(name) for name in own]]
    lead = {batch[place]: rest.shape[place] for place in first}
    shape = [*lead.values(), -1]
    q, n, rest = [each.permute(order).reshape(shape) for each in (q, n, rest)]
    element = torch.arange(rest.shape[-1], device=rest.device).expand(rest.shape)
    more = Rows(lead, element, (0.5 * n, 0.5 * q), rest)
    return CommonScale(star(latent, arms, dtype, [more]), whole)


def _halved(form: NormalForm) -> NormalForm:
    if form.scale_tril is not None:
        return form._replace(scale_tril=0.5 * form.scale_tril)
    assert form.scale is not None
    return form._replace(scale=0.5 * form.scale)
