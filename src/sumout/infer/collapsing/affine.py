"""Posterior predictive distributions of normal sites that are not part of their parents' integral.

Those that discrete sites in plates choose are not: one integral over them would tie all elements of the plates
together. Given the choices, a prediction is an affine function of Gaussian sites with noise: normal with known moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.families import innermost
from sumout.execute import Marginal
from sumout.infer.collapsing.chosen import choices_of, chosen_first, weights_of_choices
from sumout.infer.collapsing.mixed import Along, Mixed
from sumout.infer.collapsing.posterior import normal
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.component import Component
from sumout.lower.collapse.gaussian import Member, match, member, residual_rows
from sumout.lower.collapse.normal import normal_form
from sumout.lower.collapse.sites import CollapsedSite


def normal_predictive(site: CollapsedSite, integral: Integral, marginal: Marginal | None) -> Mixed | None:
    """The distribution of a normal prediction, or of one whose logarithm is normal.

    Args:
        site: the prediction.
        integral: of all that it depends on.
        marginal: joint posterior probabilities of ``choices_of(site, integral)``; ``None`` where there are none.

    Returns:
        ``None`` where there is no closed form.
    """
    component = integral.solution
    logs = isinstance(innermost(site.fn), dist.LogNormal)
    empty = site.message.copy()
    empty.value = (torch.ones_like if logs else torch.zeros_like)(site.value.probe)
    empty.is_observed = True
    form = normal_form(site.fn, empty.value)
    if not isinstance(component, Component) or form is None or form.unit is not None:
        return None
    own = member(site._replace(message=empty), form, integral.latents, torch.float64)
    scope = tuple(sorted(own.uses))
    found = component.joint_moments(scope)
    picked = _picked(own, found.names, integral)
    if picked is None:
        return None
    batch = torch.Size(site.message.batch_shape)
    discrete = tuple([name for name in found.names if name not in picked])
    index = (..., *[picked[name].expand(batch) for name in found.names if name in picked])
    order = [
        found.names.index(name) for name in (*discrete, *[name for name in found.names if name in picked])
    ]
    mean = _at(found.mean.permute(*order, -1), index, batch, 1)
    covariance = _at(found.covariance.permute(*order, -2, -1), index, batch, 2)
    design, offset, _ = residual_rows(own, integral.latents, component.written, scope)
    root = own.form.scale_tril
    if root is None:
        assert own.form.scale is not None
        spread = own.form.scale.expand([*own.batch, *site.fn.event_shape]).reshape([*own.batch, -1])
        root = spread.diag_embed()
    root = root.to(mean.dtype)
    center = -(root @ (offset.unsqueeze(-1) + design @ mean.unsqueeze(-1))).squeeze(-1)
    own_spread = design @ covariance @ design.mT + torch.eye(design.shape[-2], dtype=mean.dtype)
    own_spread = root @ own_spread @ root.mT
    lead = mean.shape[: len(discrete)]
    dtype = site.value.dtype
    states = choices_of(site, integral)
    parts = [
        chosen_first(
            site, batch, Along(discrete, each.expand([*lead, *batch, *each.shape[-events:]]).to(dtype))
        )
        for each, events in ((center, 1), (own_spread, 2))
    ]
    flat = [each.over(tuple(states), states) for each in parts]
    rank = min(-min(site.frames, default=0), len(batch))
    plain = tuple(batch[len(batch) - rank :])
    weights = None
    if states:
        assert marginal is not None
        elements = {name: each.expand(batch).unsqueeze(-1) for name, each in picked.items()}
        weights = weights_of_choices(site, marginal, integral, elements, plain)
        if weights is None:
            return None
    family, make = normal(site.fn.event_shape)

    def make_log(parts: Sequence[Tensor]) -> Any:
        fn = make(parts)
        if not site.fn.event_shape:
            return dist.LogNormal(fn.loc, fn.scale)
        return dist.TransformedDistribution(fn, [dist.transforms.ExpTransform()])

    if logs:
        return Mixed((f"log {family[0]}", family[1]), make_log, tuple(flat), plain, weights)
    return Mixed(family, make, tuple(flat), plain, weights)


def _picked(own: Member, names: Sequence[str], integral: Integral) -> dict[str, Tensor] | None:
    """For each plate among some dimensions the element that each of the site's batch uses; ``None`` if it has more."""
    found = {}
    for name in names:
        if name in integral.discrete:
            continue
        place = match(own, name)
        if place is None:
            return None
        if not isinstance(place, Tensor):
            place = torch.arange(own.site.frames[place].size).reshape([-1, *[1] * (-1 - place)])
        found[name] = place
    return found


def _at(x: Tensor, index: tuple[Any, ...], batch: Sequence[int], tail: int) -> Tensor:
    """``(*discrete, *plates, *tail)`` at elements of the plates: ``(*discrete, *batch, *tail)``."""
    count = len(index) - 1
    lead = x.dim() - count - tail
    if not count:
        return x.reshape([*x.shape[:lead], *[1] * len(batch), *x.shape[lead:]])
    place: tuple[Any, ...] = (*[slice(None)] * lead, *index[1:])
    return x[place]
