"""Posterior predictive distributions of sites that depend on a collapsed one, in closed form.

A predictive distribution is a likelihood averaged over the posterior of its parameter (``PREDICTIVE``). Where discrete
sites choose among parameters, it is a mixture, with one component for each of their joint states.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sumout.distributions.families import innermost
from sumout.distributions.predictive import PREDICTIVE
from sumout.effects.delayed import Delayed
from sumout.execute import Marginal
from sumout.infer.collapsing.chosen import choices_of, chosen_first, rank_of_plates, weights_of_choices
from sumout.infer.collapsing.mixed import Along, Mixed
from sumout.infer.collapsing.posterior import star_of, states_of
from sumout.lower.collapse.arms import arm_of
from sumout.lower.collapse.collapse import Integral
from sumout.lower.collapse.layout import use_of
from sumout.lower.collapse.parameters import delayed_parameters
from sumout.lower.collapse.sites import CollapsedSite


def parents_of(site: CollapsedSite) -> set[str]:
    """The delayed sites that a site depends on."""
    return {name for value in delayed_parameters(site.fn) for name in value.sites}


def choices(site: CollapsedSite, integral: Integral) -> dict[str, int]:
    """The discrete sites that choose among distributions of a prediction, with their numbers of states."""
    return {**states_of(integral), **choices_of(site, site.message.batch_shape)}


def predictive(site: CollapsedSite, integral: Integral, marginal: Marginal | None = None) -> Mixed | None:
    """The distribution of a site that integrates to one.

    Args:
        site: the site.
        integral: of the site that it depends on.
        marginal: joint posterior probabilities of ``choices``; ``None`` where there are none.

    Returns:
        A distribution with the batch shape of the site's value, or ``None`` where there is no closed form.
    """
    parents = parents_of(site)
    star = star_of(integral, parents.pop()) if len(parents) == 1 else None
    probe = site.message.copy()
    probe.value = site.value.probe
    arm = arm_of(site._replace(message=probe), integral.latents)
    if star is None or arm is None:
        return None
    base = innermost(site.fn)
    average = PREDICTIVE.get(type(innermost(star.latent.fn)), {}).get(type(base))
    if average is None:
        return None
    states = choices(site, integral)
    event = star.family.event_dim
    batch = torch.Size(site.message.batch_shape)
    whole = batch + site.fn.event_shape[: len(site.fn.event_shape) - len(base.event_shape)]
    where = arm.link.where[0]
    where = where.expand(whole + where.shape[where.dim() - event :])
    parts = [part.reshape(*part.shape[: len(star.names)], -1)[..., where] for part in star.posterior]
    parts = parts[::-1] if arm.complement else parts
    dtype = parts[0].dtype
    first: tuple[Any, ...] = (..., *[0] * event)
    coef = arm.link.coef[0].expand(where.shape)[first]
    own = {name: value.to(dtype) for name, value in _own(base).items()}
    found = [chosen_first(site, batch, Along(star.names, part)) for part in parts]
    for value in (coef.to(dtype), *own.values()):
        rest = value.shape[value.dim() - len(base.event_shape) :] if value is own.get("loc") else ()
        found.append(chosen_first(site, batch, Along((), value.expand([*whole, *rest]))))
    flat = [each.over(tuple(states), states) for each in found]
    rank = rank_of_plates(site, batch)
    plain = tuple(batch[len(batch) - rank :])
    weights = None
    if states:
        assert marginal is not None
        inner = len(whole) - len(batch) + event
        coordinates = use_of(arm.link, integral.latents[star.latent.name]).coordinates
        picked = {
            plate: each[0].reshape(*each.shape[1 : each.dim() - inner], -1)
            for plate, each in coordinates.items()
        }
        weights = weights_of_choices(site, marginal, [integral], picked, batch, plain)
        if weights is None:
            return None
    extra = len(whole) - len(batch)
    total = getattr(base, "total_count", None)
    fixed = {} if total is None or isinstance(total, Tensor) else {"total_count": total}

    def make(parts: Sequence[Tensor]) -> Any:
        natural, (c, *others) = parts[: len(star.posterior)], parts[len(star.posterior) :]
        fn = average(SimpleNamespace(**fixed, **dict(zip(own, others, strict=True))), tuple(natural), c)
        return fn.to_event(extra) if extra else fn

    family = (f"predicted {type(base).__name__} {fixed or ''}", tuple(site.fn.event_shape))
    return Mixed(family, make, tuple(flat), plain, weights)


def _own(base: Any) -> dict[str, Tensor]:
    """The parameters of a likelihood besides the one that is delayed."""
    found = {name: getattr(base, name, None) for name in ("total_count", "concentration", "loc", "scale")}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, Tensor) and not isinstance(value, Delayed)
    }
