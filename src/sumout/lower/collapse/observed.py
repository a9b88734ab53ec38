"""What a site observes: checked, as no density is asked for it, and with something harmless where it is masked."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.checks import quickly_holds
from sumout.distributions.families import innermost
from sumout.effects.delayed import Delayed
from sumout.errors import ModelError
from sumout.lower.collapse.normal import own_mask
from sumout.lower.collapse.sites import CollapsedSite


def checked(site: CollapsedSite) -> CollapsedSite:
    """The site with its observed value checked; entries that are masked may be missing, and NaN.

    Raises:
        ModelError: for values outside of the support, unless validation is off; for masks and scales that depend on
            delayed sites.
    """
    for what, weight in (("mask", site.mask), ("mask", own_mask(site.fn)), ("scale", site.scale)):
        if isinstance(weight, Delayed):
            names = " and ".join(map(repr, weight.sites))
            raise ModelError(
                f"The {what} of site {site.name!r} depends on the delayed site {names}, which has no numbers yet. Draw "
                "it first, with poutine.barrier, or leave it out of collapse: infer={'collapse': False}."
            )
    value = site.value
    if isinstance(value, Delayed):
        return site
    base = innermost(site.fn)
    there = _there(site)
    if there is not True:
        mask = torch.as_tensor(there, device=value.device)
        mask = mask.reshape([*mask.shape, *[1] * len(site.fn.event_shape)])
        value = torch.where(mask, value, torch.ones_like(value) if value.is_floating_point() else 0)
        message = site.message.copy()
        message.value = value
        site = site._replace(message=message)
    if getattr(base, "_validate_args", False) and there is not False:
        _check(site, base, there)
    return site


def _there(site: CollapsedSite) -> Tensor | bool:
    """Where the site is not masked, of the shape of its batch."""
    there: Tensor | bool = True
    for mask in (site.mask, own_mask(site.fn)):
        if mask is not None and mask is not True:
            there = mask & there
    return there


def _check(site: CollapsedSite, base: Any, there: Tensor | bool) -> None:
    support = base.support
    if any(isinstance(each, Delayed) for each in vars(support).values()) or _are_counts(site.value, support):
        return
    if quickly_holds(support, site.value):
        return
    valid = support.check(site.value)
    if isinstance(there, Tensor):
        valid = valid | ~there.reshape(
            [*there.shape, *[1] * (len(site.fn.event_shape) - len(base.event_shape))]
        )
    if bool(valid.all()):
        return
    rank = site.value.ndim - support.event_dim
    wrong = site.value.expand(valid.shape + site.value.shape[rank:])[~valid]
    raise ModelError(
        f"Site {site.name!r} observes a value outside of the support of {type(base).__name__}, {support}: "
        f"{wrong[0].tolist()}. Correct the data, or mask what is missing."
    )


_WHOLE = (type(dist.constraints.nonnegative_integer), dist.constraints.integer_interval)


def _are_counts(value: Tensor, support: Any) -> bool:
    """Whether all entries are whole numbers within the bounds of a support of such: in fewer passes than it takes.

    ``False`` says nothing.
    """
    if not (isinstance(support, _WHOLE) and value.numel() and value.is_floating_point()):
        return False
    highest = getattr(support, "upper_bound", math.inf)
    least, most = value.detach().aminmax()
    if isinstance(highest, Tensor) and highest.numel() > 1:
        within = (value <= highest).all()
    else:
        within = (most <= highest) & (most < math.inf)
    return bool((least >= support.lower_bound) & within) and torch.equal(value.floor(), value)
