"""Stars: one delayed site with conjugate observations, whose natural coordinates add up.

Each observation says which element of the delayed site its parameter is a multiple of. So whatever the plates, what
it adds to the natural coordinates is added at that element.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sumout.distributions.conjugacy import FAMILIES, INVERSE, LIKELIHOODS, Family, Rule
from sumout.distributions.families import innermost
from sumout.effects.delayed import Delayed, Link
from sumout.effects.delayed.links import compact, merged
from sumout.effects.hidden import Hidden
from sumout.errors import MemoryLimitError, ModelError
from sumout.lower.collapse.layout import refuse_subsample
from sumout.lower.collapse.normal import own_mask
from sumout.lower.collapse.sites import CollapsedSite
from sumout.settings import settings


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


class Star(NamedTuple):
    """A delayed site with all its observations.

    Attributes:
        latent: the site.
        names: the discrete variables that the natural coordinates depend on.
        prior, natural: natural coordinates before and after them, shape ``(*names, *batch of the site, *event)``.
        base: what is left of the observations' densities, ``(*names, *batch of the site)``.
    """

    latent: CollapsedSite
    names: tuple[str, ...]
    prior: tuple[Tensor, ...]
    natural: tuple[Tensor, ...]
    base: Tensor

    @property
    def family(self) -> Family:
        return FAMILIES[type(innermost(self.latent.fn))]

    def log_evidence(self) -> Tensor:
        """For each element of the site's batch, shape ``(*names, *batch)``."""
        normalizer, event = self.family.log_normalizer, self.family.event_dim
        once = tuple([compact(each, range(each.ndim - event)) for each in self.prior])
        return normalizer(self.natural) - normalizer(once) + self.base

    @property
    def posterior(self) -> tuple[Tensor, ...]:
        """The natural coordinates after all observations, in the type of the site's value."""
        return tuple([each.to(self.latent.value.dtype) for each in self.natural])


def star(latent: CollapsedSite, arms: Sequence[Arm], dtype: torch.dtype, more: Sequence[Rows] = ()) -> Star:
    """Adds up what a site's observations say, and whatever else adds to its natural coordinates.

    Raises:
        ModelError: for a delayed site that is itself masked or scaled.
        MemoryLimitError: if the joint values of the discrete sites that it depends on are too many.
    """
    family = FAMILIES[type(innermost(latent.fn))]
    _refuse_power(latent)
    event = family.event_dim
    extra = len(latent.fn.event_shape) - event
    batch = latent.value.shape[: latent.value.dim() - event]
    count = batch.numel()
    natural = [
        _named(latent, compact(each).to(dtype).expand(each.shape), extra, event)
        for each in family.natural(innermost(latent.fn))
    ]
    rows = [*[rows_of(arm, latent, event, dtype) for arm in arms], *more]
    sizes: dict[str, int] = {}
    for each in natural:
        sizes.update(each.sizes)
    for row in rows:
        sizes.update(row.sizes)
    names = tuple(sizes)
    lead = tuple(sizes.values())
    _check_memory(latent, {**sizes, **_hidden_sizes(rows)})
    prior = tuple([each.spread(names, lead, batch, event) for each in natural])
    total = math.prod(lead)
    sums = [each.reshape(total * count, *each.shape[len(lead) + len(batch) :]) for each in prior]
    base = prior[0].new_zeros(total * count)
    for row in rows:
        index = row.positions(names, sizes, count)
        parts = [row.along(part, names, sizes) for part in row.natural]
        flat = [part.reshape(-1, *each.shape[1:]) for each, part in zip(sums, parts, strict=True)]
        add = _adder(index, total * count)
        sums = [
            each.scatter_reduce(0, index, part, "amax") if at in family.largest else add(each, part)
            for at, (each, part) in enumerate(zip(sums, flat, strict=True))
        ]
        base = add(base, row.along(row.base, names, sizes).reshape(-1))
    summed = tuple([each.reshape(before.shape) for each, before in zip(sums, prior, strict=True)])
    return Star(latent, names, prior, summed, base.reshape([*lead, *batch]))


_COPIES = 8
"""So many numbers are there at a time for each joint value of discrete sites and each entry."""


def _hidden_sizes(rows: Sequence[Rows]) -> dict[str, int]:
    """The discrete sites whose values rows carry without dimensions, with their numbers of values."""
    parts = [part for row in rows for part in (row.element, row.base, *row.natural)]
    axes = [axis for part in parts if isinstance(part, Hidden) for axis in part.axes]
    return {axis.site: axis.size for axis in axes}


def _check_memory(latent: CollapsedSite, sizes: Mapping[str, int]) -> None:
    joint = math.prod(sizes.values())
    needed = joint * latent.value.numel() * _COPIES * 8
    if needed <= settings.memory_limit:
        return
    names = list(sizes)
    listed = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    raise MemoryLimitError(
        f"Site {latent.name!r} is integrated out, and what depends on it also depends on {len(names)} sites that are "
        f"summed out ({listed}): the exact integral has a term for each of their {joint:,} joint values, which takes "
        f"{needed:,} bytes (limit {settings.memory_limit:,}). Leave site {latent.name!r} to a guide or to sampling, "
        "infer={'collapse': False}: then each step is summed out by itself. (approximate='moment_matching' is for "
        "normal sites only.)"
    )


_SHOWN = 6


def _adder(index: Tensor, count: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Adds rows to the elements at an index; much faster where each has its own, or all have one."""
    if index.numel() == count and torch.equal(index, torch.arange(count, device=index.device)):
        return torch.add
    if index.numel() and bool((compact(index) == index[0]).all()):
        return lambda sums, rows: sums.index_add(0, index[:1], rows.sum(0, keepdim=True))
    return lambda sums, rows: sums.index_add(0, index, rows)


class _Named(NamedTuple):
    """A tensor whose first dimensions are discrete variables; then come a batch and an event."""

    sizes: dict[str, int]
    data: Tensor

    def spread(self, names: Sequence[str], lead: Sequence[int], batch: Sequence[int], event: int) -> Tensor:
        """The tensor expanded to ``(*lead, *batch, *event)``."""
        own = list(self.sizes)
        data, rank = self.data, len(batch)
        data = data.permute(
            [*[own.index(each) for each in names if each in own], *range(len(own), data.dim())]
        )
        tail = data.shape[len(own) :]
        inner = tail[: len(tail) - event]
        inner = inner[max(0, len(inner) - rank) :]
        shape = [self.sizes.get(each, 1) for each in names] + [1] * (rank - len(inner)) + list(inner)
        ends = list(tail[len(tail) - event :])
        return data.reshape(shape + ends).expand([*lead, *batch, *ends])


def _named(site: CollapsedSite, x: Tensor, extra: int, event: int) -> _Named:
    """A site's tensor with its enumerated dimensions in front; of what they were, dimensions of size one stay."""
    rank = x.dim() - event - extra
    found = site.enumerated(x.shape[: max(0, rank)])
    sizes = {name: x.shape[place] for place, name in found}
    places = [place for place, _ in found]
    data = x.permute([*places, *[each for each in range(x.dim()) if each not in places]])
    kept = [1 if place in places else x.shape[place] for place in range(x.dim())]
    return _Named(sizes, data.reshape([*sizes.values(), *kept]))


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
    full = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
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


def _refuse_power(latent: CollapsedSite) -> None:
    weight = latent.weight
    if latent.mask is None and own_mask(latent.fn) is True and isinstance(weight, float) and weight == 1.0:
        return
    raise ModelError(
        f"Site {latent.name!r} is delayed, and masked or scaled: its prior is no distribution any more. Put mask and "
        "scale around the observations only."
    )
