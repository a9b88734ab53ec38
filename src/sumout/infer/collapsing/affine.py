"""Posterior predictive distributions of normal sites that are not part of their parents' integral.

Those that discrete sites in plates choose are not: one integral over them would tie all elements of the plates
together. Given the choices, a prediction is an affine function of Gaussian sites with noise: normal with known moments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.execute import Marginal
from sumout.infer.collapsing.chosen import chosen_first, rank_of_plates, weights_of_choices
from sumout.infer.collapsing.mixed import Along, Mixed
from sumout.infer.collapsing.posterior import normal
from sumout.infer.collapsing.unfolded import Unfolded
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.component import Component
from sumout.lower.collapse.gaussian import Member, match, residual_rows


def normal_predictive(found: Unfolded, marginal: Marginal | None) -> Mixed | None:
    """The distribution of a normal prediction, or of one whose logarithm is normal.

    Args:
        found: the prediction.
        marginal: joint posterior probabilities of ``found.choices``; ``None`` where there are none.

    Returns:
        ``None`` where there is no closed form.
    """
    site, own, known, states = found.site, found.own, found.known, found.choices
    batch, event = torch.Size(own.batch), site.fn.event_shape
    rows = event.numel()
    root = own.form.scale_tril
    if root is None:
        assert own.form.scale is not None
        root = own.form.scale.expand([*batch, *event]).reshape([*batch, rows]).diag_embed()
    root = root.to(own.dtype)
    # Residuals in units of the noise; groups are independent given the discrete sites, and what they say adds up.
    picked: dict[str, Tensor] = {}
    center = torch.zeros([*[1] * (len(known) + len(batch)), rows], dtype=own.dtype)
    spread = torch.eye(rows, dtype=own.dtype)
    for group in found.groups:
        component = group.solution
        assert isinstance(component, Component)
        scope = tuple([name for name, each in found.integrals.items() if each is group])
        moments = component.joint_moments(scope)
        elements = _picked(own, moments.names, group)
        if elements is None:
            return None
        picked |= elements
        discrete = tuple([name for name in moments.names if name not in elements])
        plates = [name for name in moments.names if name in elements]
        order = [moments.names.index(name) for name in (*discrete, *plates)]
        index = (..., *[elements[name].expand(batch) for name in plates])
        mean = _at(moments.mean.permute(*order, -1), index, batch, 1)
        covariance = _at(moments.covariance.permute(*order, -2, -1), index, batch, 2)
        design, offset, _ = residual_rows(own, found.latents, component.written, scope)
        center = center + _along(known, discrete, (design @ mean.unsqueeze(-1)).squeeze(-1))
        spread = spread + _along(known, discrete, design @ covariance @ design.mT)
    center = (root @ (center + offset).unsqueeze(-1)).squeeze(-1)
    spread = root @ spread @ root.mT
    parts = []
    for each, ends in ((center, 1), (spread, 2)):
        each = each.expand([*known.values(), *batch, *each.shape[each.dim() - ends :]])
        parts.append(chosen_first(site, batch, Along(tuple(known), each.to(site.value.dtype))))
    flat = [each.over(tuple(states), states) for each in parts]
    rank = rank_of_plates(site, batch)
    plain = tuple(batch[len(batch) - rank :])
    weights = None
    if states:
        assert marginal is not None
        of_elements = {name: each.expand(batch).unsqueeze(-1) for name, each in picked.items()}
        weights = weights_of_choices(site, marginal, found.groups, of_elements, batch, plain)
        if weights is None:
            return None
    family, make = normal(event)

    def make_log(parts: Sequence[Tensor]) -> Any:
        fn = make(parts)
        if not event:
            return dist.LogNormal(fn.loc, fn.scale)
        return dist.TransformedDistribution(fn, [dist.transforms.ExpTransform()])

    if found.logs:
        return Mixed((f"log {family[0]}", family[1]), make_log, tuple(flat), plain, weights)
    return Mixed(family, make, tuple(flat), plain, weights)


def _along(known: Mapping[str, int], names: tuple[str, ...], x: Tensor) -> Tensor:
    """``(*names, *rest)`` along all discrete sites, with size one along those that it has not."""
    sizes = dict(zip(names, x.shape, strict=False))
    x = x.permute([*[names.index(name) for name in known if name in names], *range(len(names), x.dim())])
    return x.reshape([*[sizes.get(name, 1) for name in known], *x.shape[len(names) :]])


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
