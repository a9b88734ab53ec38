"""Stars: one delayed site with conjugate observations, whose natural coordinates add up.

Each observation says which element of the delayed site its parameter is a multiple of. So whatever the plates, what
it adds to the natural coordinates is added at that element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.distributions.conjugacy import FAMILIES, Family
from sumout.distributions.families import innermost
from sumout.effects.delayed.links import compact
from sumout.effects.hidden import Hidden
from sumout.errors import MemoryLimitError, ModelError
from sumout.lower.collapse.arms import Arm
from sumout.lower.collapse.normal import own_mask
from sumout.lower.collapse.rows import Rows, rows_of
from sumout.lower.collapse.sites import CollapsedSite
from sumout.settings import settings


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


_SHOWN = 6
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


def _adder(index: Tensor, count: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Adds rows to the elements at an index; much faster where each has its own, or all have one."""
    if index.numel() == count and torch.equal(index, torch.arange(count, device=index.device)):
        return torch.add
    if index.numel() and bool((compact(index) == index[0]).all()):
        return lambda sums, rows: sums.index_add(0, index[:1], rows.sum(0, keepdim=True))
    return lambda sums, rows: sums.index_add(0, index, rows)


def _refuse_power(latent: CollapsedSite) -> None:
    weight = latent.weight
    if latent.mask is None and own_mask(latent.fn) is True and isinstance(weight, float) and weight == 1.0:
        return
    raise ModelError(
        f"Site {latent.name!r} is delayed, and masked or scaled: its prior is no distribution any more. Put mask and "
        "scale around the observations only."
    )


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
