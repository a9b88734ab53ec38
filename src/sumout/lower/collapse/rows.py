"""What single observations add to the natural coordinates of a delayed site, and to which of its elements."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sumout.distributions.conjugacy import FAMILIES
from sumout.distributions.families import innermost
from sumout.lower.collapse.arms import Arm
from sumout.lower.collapse.layout import refuse_subsample
from sumout.lower.collapse.normal import own_mask
from sumout.lower.collapse.sites import CollapsedSite


class Rows(NamedTuple):
    """What single observations add, and where: discrete variables first, then all the rest as one dimension."""

    sizes: dict[str, int]
    element: Tensor
    natural: tuple[Tensor, ...]
    base: Tensor

    def along(self, part: Tensor, names: Sequence[str], sizes: Mapping[str, int]) -> Tensor:
        """A part repeated along the discrete variables that it does not depend on."""
        own = list(self.sizes)
        part = part.permute(
            [*[own.index(each) for each in names if each in own], *range(len(own), part.dim())]
        )
        tail = part.shape[len(own) :]
        part = part.reshape([self.sizes.get(each, 1) for each in names] + list(tail))
        return part.expand([*[sizes[each] for each in names], *tail])

    def positions(self, names: Sequence[str], sizes: Mapping[str, int], count: int) -> Tensor:
        """The place of each row in the flattened natural coordinates."""
        lead = [sizes[each] for each in names]
        if not lead:
            return self.element
        first = torch.arange(math.prod(lead), device=self.element.device).reshape([*lead, 1])
        return (first * count + self.along(self.element, names, sizes)).reshape(-1)


def rows_of(arm: Arm, latent: CollapsedSite, event: int, dtype: torch.dtype) -> Rows:
    site = arm.site
    fn, value = innermost(site.fn), site.value
    extra = len(site.fn.event_shape) - len(fn.event_shape)
    fn = _in_type(fn, dtype)
    coef = arm.link.coef[0]
    element = arm.link.where[0]
    if event:
        element = element.flatten(-event)
        element = element[..., 0].div(element.shape[-1], rounding_mode="floor")
    masks = [mask for mask in (site.mask, own_mask(site.fn)) if mask is not None and mask is not True]
    value = value.to(dtype)
    for mask in masks:  # What is masked may be missing, and NaN.
        if isinstance(mask, Tensor):
            there = mask.reshape([*mask.shape, *[1] * len(site.fn.event_shape)])
            value = torch.where(there, value, 1.0)
    told = arm.rule.likelihood(fn, value, coef.to(dtype))
    natural = tuple(reversed(told.natural)) if arm.complement else told.natural
    power = site.weight
    parts = [element, told.base, *[each.flatten(-event)[..., 0] if event else each for each in natural]]
    shapes = [tuple(each.shape) for each in parts]
    shapes += [(*each.shape, *[1] * extra) for each in (*masks, power) if isinstance(each, Tensor)]
    rank = max(len(shape) for shape in shapes) - extra
    plates = [1] * max(rank, -min(site.frames, default=0))
    for dim, frame in site.frames.items():
        plates[dim] = frame.size
    shapes.append((*plates, *[1] * extra))
    full = np.broadcast_shapes(*shapes)
    found = site.enumerated(full[: len(full) - extra])
    places = [place for place, _ in found]
    order = [*places, *[each for each in range(len(full)) if each not in places]]
    sizes = {name: full[place] for place, name in found}
    times = 1.0
    own = {frame.name for frame in latent.inner}
    refuse_subsample(site, latent)
    for frame in site.inner:
        if frame.dim is not None and frame.name not in own:
            times *= frame.scale

    def flat(x: Tensor, tail: int = 0, neutral: float = 0.0) -> Tensor:
        ends = list(x.shape[x.dim() - tail :])
        x = x.expand([*full, *ends])
        for mask in masks:
            here: Any = (
                mask.reshape([*mask.shape, *[1] * (extra + tail)]) if isinstance(mask, Tensor) else mask
            )
            x = torch.where(here, x, neutral) if isinstance(mask, Tensor) else torch.full_like(x, neutral)
        if neutral:
            weight: Any = power
            if isinstance(power, Tensor):
                weight = power.reshape([*power.shape, *[1] * (extra + tail)])
            x = torch.where(torch.as_tensor(weight) > 0, x, neutral)
        else:
            if isinstance(power, Tensor):
                x = x * power.reshape([*power.shape, *[1] * (extra + tail)])
            if isinstance(power, Tensor):
                x = x * times if times != 1.0 else x
            elif power * times != 1.0:
                x = x * (power * times)
        x = x.permute([*order, *range(len(full), x.dim())])
        return x.reshape([*sizes.values(), -1, *ends])

    positions = element.expand(full).permute(order).reshape([*sizes.values(), -1])
    largest = FAMILIES[type(innermost(latent.fn))].largest
    told_all = [flat(each, event, -math.inf if at in largest else 0.0) for at, each in enumerate(natural)]
    return Rows(sizes, positions, tuple(told_all), flat(told.base))


def _in_type(fn: Any, dtype: torch.dtype) -> Any:
    """The distribution with its numbers in another type; delayed parameters are as they were."""
    found = copy.copy(fn)
    for name, each in vars(fn).items():
        if type(each) in (Tensor, torch.nn.Parameter) and each.is_floating_point():
            vars(found)[name] = each.to(dtype)
    return found
