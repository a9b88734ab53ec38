"""How the elements of delayed sites are matched with the elements of a site that depends on them.

A site may use a delayed one element by element in the plates that they share (aligned), pick an element of a plate
for each of its own (gathered), or mix a plate's elements (a sum, a difference of neighbours). In the first two cases
the elements of the plate stay independent of each other; in the last the plate is written out: its elements become
entries of one joint variable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.effects.delayed import Link
from sumout.effects.delayed.links import by_strides, compact
from sumout.errors import ModelError
from sumout.lower.collapse.sites import CollapsedSite

Coordinates = dict[str, Tensor]
"""For each plate of a delayed site, the element that each term of a link uses: shape ``(terms, *batch, *event)``."""


class Use(NamedTuple):
    """How a site uses one delayed site.

    Attributes:
        link: which elements, and the coefficients.
        coordinates: their elements of plates.
        event: their entry of the event, of the same shape.
        absent: the terms that are no part of the site, whatever the coefficients' values.
    """

    link: Link
    coordinates: Coordinates
    event: Tensor
    absent: Tensor


def extents(site: CollapsedSite) -> dict[str, tuple[int, int]]:
    """The plates of a delayed site: name -> (dimension, size), in the order of its dimensions."""
    shape = site.value.shape
    rank = len(shape) - len(site.fn.event_shape)
    frames = site.frames
    return {frames[dim].name: (dim, shape[rank + dim]) for dim in sorted(frames) if rank >= -dim}


def use_of(link: Link, latent: CollapsedSite) -> Use:
    """A link with its positions taken apart."""
    shape = latent.value.shape
    rank = len(shape) - len(latent.fn.event_shape)
    full = link.where.shape
    where = compact(link.where)
    digits = by_strides(where, [*shape[:rank], latent.event_size])
    if digits is not None:
        *places, event = digits
        absent = where.new_zeros((), dtype=torch.bool).expand(full)
        if not link.coef.requires_grad:  # A coefficient that only happens to be zero has derivatives.
            absent = compact(link.coef) == 0
        named = {rank + dim: name for name, (dim, _) in extents(latent).items()}
        coordinates = {named[place]: each.expand(full) for place, each in enumerate(places) if place in named}
        return Use(link, coordinates, event.expand(full), absent.expand(full))
    absent = where < 0
    if not link.coef.requires_grad:
        absent = absent | (compact(link.coef) == 0)
    where = where.clamp(min=0)
    rest = where.div(latent.event_size, rounding_mode="floor") if latent.event_size > 1 else where
    event = where - rest * latent.event_size if latent.event_size > 1 else where.new_zeros(()).expand(full)
    coordinates = {}
    by_place = {rank + dim: name for name, (dim, _) in extents(latent).items()}
    for place in reversed(range(rank)):
        if shape[place] > 1:
            more = rest.div(shape[place], rounding_mode="floor") if place else torch.zeros_like(rest)
            found, rest = rest - more * shape[place], more
        else:
            found = where.new_zeros(()).expand(full)
        name = by_place.get(place)
        if name is not None:
            coordinates[name] = found.expand(full)
    return Use(link, coordinates, _settled(event).expand(full), absent.expand(full))


def _settled(x: Tensor) -> Tensor:
    """The tensor with size one along dimensions in which it is constant."""
    for place, size in enumerate(x.shape):
        first = x.narrow(place, 0, min(1, size))
        if size > 1 and bool((x == first).all()):
            x = first
    return x


def is_aligned(use: Use, plate: str, dim: int, event_dims: int) -> bool:
    """Whether each element of the plate uses its own element of the delayed site; ``dim`` is the plate's."""
    found = use.coordinates[plate]
    axis = found.ndim - event_dims + dim
    if axis < 1:
        return False
    few = compact(found)
    own = torch.arange(found.shape[axis], device=found.device)
    own = own.reshape([-1 if each == axis else 1 for each in range(found.ndim)])
    return torch.equal(few, own) or bool(((few == own) | compact(use.absent)).all())


def gathered(uses: Iterable[Use], plate: str, event_dims: int) -> Tensor | None:
    """The one element of a plate that all delayed sites in it are used at, for each element of the batch.

    Returns:
        Shape ``batch``, or ``None`` if there is no such element.
    """
    common: Tensor | None = None
    for use in uses:
        found = use.coordinates.get(plate)
        if found is None:
            continue
        flat = found.flatten(found.ndim - event_dims) if event_dims else found.unsqueeze(-1)
        first = flat[0, ..., 0]
        if not bool((flat == first.unsqueeze(-1)).all()):
            return None
        if common is not None and not torch.equal(common, first):
            return None
        common = first
    return common


def refuse_subsample(site: CollapsedSite, latent: CollapsedSite) -> None:
    """Raises ``ModelError`` for a site outside of a subsampled plate that uses an element of it."""
    inside = {frame.name for frame in site.inner}
    for frame in latent.inner:
        if frame.dim is not None and frame.scale != 1.0 and frame.name not in inside:
            raise ModelError(
                f"Site {site.name!r} is outside of plate {frame.name!r}, which is a subsample, and uses elements of "
                f"site {latent.name!r} in it: there are none for what is left out. Take the whole plate."
            )


def written_plates(site: CollapsedSite, written: Collection[str]) -> list[tuple[str, int]]:
    """A site's plates that are written out, with their sizes, in the order of its entries: the slowest first."""
    return [(plate, size) for plate, (_, size) in reversed(extents(site).items()) if plate in written]


def in_shape(
    site: CollapsedSite,
    names: Sequence[str],
    values: Tensor,
    written: Collection[str],
    entries: int | None = None,
    lead: int = 0,
) -> tuple[tuple[str, ...], Tensor]:
    """What a component says of a site's entries, in the shape of the site's value.

    Args:
        site: the delayed site.
        names: the dimensions of ``values`` behind the first ``lead``: discrete variables and plates.
        values: shape ``(*lead, *names, entries)``, the entries those of the written plates' elements one by one.
        written: the plates that are written out.
        entries: how many an element has; those of its event, if ``None``.

    Returns:
        The discrete variables, and values of shape ``(*lead, *discrete, *batch of the site's value, entries)``, of the
        type of the site's value.
    """
    entries = site.event_size if entries is None else entries
    plates = extents(site)
    inside = written_plates(site, written)
    values = values.reshape([*values.shape[:-1], *[size for _, size in inside], entries])
    all_names = [*names, *[plate for plate, _ in inside]]
    discrete = [each for each in all_names if each not in plates]
    ordered = sorted([each for each in all_names if each in plates], key=lambda each: plates[each][0])
    order = [lead + all_names.index(each) for each in (*discrete, *ordered)]
    values = values.permute([*range(lead), *order, values.dim() - 1])
    shape = list(values.shape[: lead + len(discrete)])
    batch = [1] * (site.value.dim() - len(site.fn.event_shape))
    for each in ordered:
        batch[plates[each][0]] = plates[each][1]
    return tuple(discrete), values.reshape([*shape, *batch, entries]).to(site.value.dtype)
