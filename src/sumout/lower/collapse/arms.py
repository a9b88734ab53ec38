"""How an observed site is conjugate to the delayed one that it depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sumout.distributions.conjugacy import FAMILIES, INVERSE, LIKELIHOODS, Rule
from sumout.distributions.families import innermost
from sumout.effects.delayed import Delayed, Link
from sumout.effects.delayed.links import compact, merged
from sumout.lower.collapse.sites import CollapsedSite


class Arm(NamedTuple):
    """A site that is conjugate to a delayed one: by which rule, and through which link."""

    site: CollapsedSite
    rule: Rule
    link: Link
    complement: bool


def arm_of(site: CollapsedSite, latents: Mapping[str, CollapsedSite]) -> Arm | None:
    """How a site is conjugate to the one delayed site that it depends on; ``None`` if it is not."""
    base = innermost(site.fn)
    if isinstance(site.value, Delayed):
        return None
    found = None
    for rules in {id(each): each for each in LIKELIHOODS.values()}.values():
        for rule in rules.get(type(base), ()):
            parameter = _parameter(base, rule.name)
            if not isinstance(parameter, Delayed) or parameter.unknown or len(parameter.links) != 1:
                continue
            link = merged(parameter.links[0])
            family = type(innermost(latents[link.site].fn))
            if LIKELIHOODS.get(family) is not rules or link.terms != 1 or _others_delayed(base, rule):
                continue
            power = rule.power(base) if callable(rule.power) else rule.power
            if family in INVERSE and power is not None:
                power = -power
            if power is None or not math.isclose(parameter.power, power, rel_tol=1e-6):
                continue
            coef = link.coef
            direct = parameter.shift is None or _fixed_at(parameter.shift, 0.0)
            if not rule.scaled:
                if direct and _fixed_at(coef, 1.0):
                    found = Arm(site, rule, link, False)
                elif rule.complement and _fixed_at(parameter.const, 1.0) and _fixed_at(coef, -1.0):
                    found = Arm(site, rule, link, True)
            elif direct and _is_positive(compact(coef)) and is_whole(link, FAMILIES[family].event_dim):
                found = Arm(site, rule, link, False)
    return found


def _fixed_at(x: Tensor, value: float) -> bool:
    """Whether all entries are a number, and not only by chance: the evidence has derivatives by what is learned."""
    return not x.requires_grad and bool((x == value).all())


def _is_positive(x: Tensor) -> bool:
    """Whether all entries are positive and finite."""
    if not x.numel():
        return True
    least, most = x.detach().aminmax()  # NaN, if one is.
    return bool((least > 0) & (most < math.inf))


def _parameter(fn: Any, name: str) -> Any:
    """A parameter as the distribution was given it; others of its names are made from that."""
    return vars(fn).get(name) if name == "precision_matrix" else getattr(fn, name, None)


def is_whole(link: Link, event_dim: int) -> bool:
    """Whether a link has all entries of events in their order, times one number for each event."""
    if not event_dim:
        return True
    where, coef = link.where[0].flatten(-event_dim), compact(link.coef[0])
    first = where[..., :1]
    size = where.shape[-1]
    whole = (where == first + torch.arange(size, device=where.device)).all() & (first % size == 0).all()
    alone = coef.shape[coef.ndim - event_dim :].numel() == 1
    coef = coef.flatten(-event_dim)
    return bool(whole) and (alone or (not coef.requires_grad and bool((coef == coef[..., :1]).all())))


def _others_delayed(fn: Any, rule: Rule) -> bool:
    """Whether parameters besides the named one depend on delayed sites."""
    names = [each for each in getattr(fn, "arg_constraints", {}) if each not in (rule.name, *rule.instead)]
    return any(isinstance(getattr(fn, each, None), Delayed) for each in names)
