"""Gaussian sites as factors in quadratic form.

Every site whose residual is affine in delayed Gaussian sites gives a factor: rows ``design @ x + offset`` of
independent standard normal residuals. Rows of plates in which none of its delayed sites lives are put together, which
multiplies the factor out over them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.effects.delayed import Delayed
from sumout.lower.collapse.layout import Use, extents, gathered, is_aligned, use_of
from sumout.lower.collapse.normal import NormalForm, own_mask
from sumout.lower.collapse.sites import CollapsedSite
from sumout.terms.gaussian import Quadratic


class GaussianFactor(NamedTuple):
    """A site's factor.

    ``names`` are the dimensions of its form and constant (plates and discrete variables), ``scope`` the delayed sites
    in the order of its rows.
    """

    names: tuple[str, ...]
    scope: tuple[str, ...]
    quadratic: Quadratic


class Member(NamedTuple):
    """A Gaussian site, with how it uses each delayed one; all of it broadcasts to ``(*batch, *event)``."""

    site: CollapsedSite
    form: NormalForm
    uses: dict[str, Use]
    event_dims: int
    batch: tuple[int, ...]
    power: Tensor | float
    """What the log-density is multiplied by, of shape ``batch`` or a number: masks and scales."""
    dtype: torch.dtype


def member(
    site: CollapsedSite, form: NormalForm, latents: Mapping[str, CollapsedSite], dtype: torch.dtype
) -> Member:
    """A site with the links of its residual taken apart."""
    event = tuple(site.fn.event_shape)
    events = len(event)
    power = _power(site)
    parts = [tuple(form.residual.shape), event]
    if form.scale is not None:
        parts.append(tuple(form.scale.shape))
    else:
        assert form.scale_tril is not None
        parts.append(tuple(form.scale_tril.shape[:-1]))
    if isinstance(power, Tensor):
        parts.append((*power.shape, *[1] * events))
    shape = torch.broadcast_shapes(*parts)  # type: ignore[no-untyped-call]
    residual = form.residual.expand(shape)
    uses = {}
    if isinstance(residual, Delayed):
        uses = {link.site: use_of(link, latents[link.site]) for link in residual.links}
    batch = tuple(shape[: len(shape) - events])
    return Member(site, form._replace(residual=residual), uses, events, batch, power, dtype)


def _power(site: CollapsedSite) -> Tensor | float:
    power = site.weight
    for mask in (site.mask, own_mask(site.fn)):
        if isinstance(mask, Tensor):
            power = mask.to(site.dtype) * power
        elif mask is False:
            power = power * 0.0
    return power


def match(member: Member, plate: str) -> int | Tensor | None:
    """How a site meets a plate of its delayed ones.

    Returns:
        The plate's dimension, if each element uses its own element of the delayed sites; for a site outside of the
        plate the element that each of its batch picks, of shape ``batch``; or ``None``: elements are mixed.
    """
    users = {name: use for name, use in member.uses.items() if plate in use.coordinates}
    dims = {frame.name: dim for dim, frame in member.site.frames.items()}
    dim = dims.get(plate)
    if dim is None:
        return gathered(users, plate, member.event_dims)
    aligned = all(is_aligned(use, plate, dim, member.event_dims) for use in users.values())
    return dim if aligned else None


def plates_of(member: Member) -> list[str]:
    """The plates in which delayed sites that a site uses live."""
    return sorted({plate for use in member.uses.values() for plate in use.coordinates})


def factor_of(
    member: Member, latents: Mapping[str, CollapsedSite], written: frozenset[str], kept: frozenset[str]
) -> GaussianFactor:
    """A site's factor.

    Args:
        member: the site.
        latents: all delayed sites.
        written: the plates that are written out.
        kept: plates that are not multiplied out in any case: each element is a problem of its own.
    """
    site, batch, rank = member.site, member.batch, len(member.batch)
    scope = tuple(sorted(member.uses))
    matches = {plate: match(member, plate) for plate in plates_of(member) if plate not in written}
    names: list[str] = []
    stay: list[int] = []
    times = 1.0
    for place in range(rank):
        dim = place - rank
        frame = site.frames.get(dim)
        if frame is None:
            if batch[place] > 1:
                names.append(site.name_of(dim, batch[place]))
                stay.append(place)
        elif frame.name in kept or frame not in site.inner or matches.get(frame.name) == dim:
            if batch[place] > 1 or frame.size == 1:
                names.append(frame.name)
                stay.append(place)
        else:  # Along dimensions of size one nothing varies.
            times *= frame.scale * (frame.size if batch[place] == 1 else 1)
    for frame in site.inner:
        if frame.dim is not None and -frame.dim > rank and frame.name not in kept:
            times *= frame.scale * frame.size
    gone = [place for place in range(rank) if place not in stay]
    rows, logs = _rows(member, latents, written, scope)
    power = member.power
    if isinstance(power, Tensor):
        power = power.expand(batch).permute([*stay, *gone]).unsqueeze(-1)
    rows = rows.permute([*stay, *gone, rank, rank + 1])
    logs = logs.permute([*stay, *gone, rank])
    picks = [(plate, found) for plate, found in matches.items() if isinstance(found, Tensor)]
    if picks:
        quadratic = _scattered(rows, logs * power, power, picks, (stay, gone), latents, batch)
        more = [plate for plate, _ in picks]
    else:
        weighted = rows * power.unsqueeze(-1) if isinstance(power, Tensor) else rows * power
        flat, more_rows = rows.flatten(len(stay), -2), weighted.flatten(len(stay), -2)
        quadratic = Quadratic(flat.mT @ more_rows, (logs * power).flatten(len(stay)).sum(-1))
        more = []
    form, rest = quadratic
    if times != 1.0:
        form, rest = form * times, rest * times
    return GaussianFactor((*names, *more), scope, Quadratic(form, rest))


def _rows(
    member: Member, latents: Mapping[str, CollapsedSite], written: frozenset[str], scope: tuple[str, ...]
) -> tuple[Tensor, Tensor]:
    """Residuals in units of their standard deviations.

    Returns:
        Rows ``[offset, design]``, shape ``(*batch, rows, 1 + entries of the scope)``, and the logarithm of the
        normalizing constant of each row, ``(*batch, rows)``.
    """
    batch = member.batch
    residual, scale, scale_tril, log_jacobian, *_ = member.form
    offset = (residual.const if isinstance(residual, Delayed) else residual).to(member.dtype)
    if isinstance(member.power, Tensor):  # What is masked may be missing, and NaN.
        off = (member.power == 0).expand(batch)
        offset = offset.masked_fill(off.reshape([*batch, *[1] * member.event_dims]), 0.0)
    rows = offset.shape[len(batch) :].numel()
    columns = [offset.reshape([*batch, rows, 1])]
    for name in scope:
        use, latent = member.uses[name], latents[name]
        entries, place = latent.event_size, use.event
        for plate, (_, size) in extents(latent).items():
            if plate in written:
                place = place + entries * use.coordinates[plate]
                entries *= size
        place = place.movedim(0, -1).reshape([*batch, rows, -1])
        coef = use.link.coef.to(member.dtype).movedim(0, -1).reshape([*batch, rows, -1])
        columns.append(coef.new_zeros([*batch, rows, entries]).scatter_add(-1, place, coef))
    joint = torch.cat(columns, -1)
    if scale_tril is not None:
        scale_tril = scale_tril.to(member.dtype)
        rows_of = torch.linalg.solve_triangular(scale_tril, joint, upper=False)
        logs = -scale_tril.diagonal(dim1=-2, dim2=-1).log()
    else:
        assert scale is not None
        scale = scale.to(member.dtype).expand(offset.shape).reshape([*batch, rows])
        rows_of = joint / scale.unsqueeze(-1)
        logs = -scale.log()
    logs = (logs - 0.5 * math.log(2 * math.pi)).expand([*batch, rows])
    if log_jacobian is not None:
        logs = logs + log_jacobian.expand(offset.shape).reshape([*batch, rows])
    return rows_of, logs


def _scattered(
    rows: Tensor,
    logs: Tensor,
    power: Tensor | float,
    picks: Iterable[tuple[str, Tensor]],
    places: tuple[list[int], list[int]],
    latents: Mapping[str, CollapsedSite],
    batch: tuple[int, ...],
) -> Quadratic:
    """Factors of single elements of the batch, added up by the elements of plates that they pick."""
    stay, gone = places
    sizes = {plate: size for latent in latents.values() for plate, (_, size) in extents(latent).items()}
    kept = [batch[place] for place in stay]
    count = math.prod(kept)
    index = torch.arange(count, device=rows.device).reshape([*kept, *[1] * len(gone)])
    shape = []
    for plate, found in picks:
        index = index * sizes[plate] + found.expand(batch).permute([*stay, *gone])
        shape.append(sizes[plate])
    weighted = rows * power.unsqueeze(-1) if isinstance(power, Tensor) else rows * power
    single = rows.mT @ weighted
    total = count * math.prod(shape)
    index = index.reshape(-1)
    form = single.new_zeros(total, *single.shape[-2:]).index_add(
        0, index, single.reshape(-1, *single.shape[-2:])
    )
    rest = logs.new_zeros(total).index_add(0, index, logs.sum(-1).reshape(-1))
    return Quadratic(form.reshape([*kept, *shape, *form.shape[-2:]]), rest.reshape([*kept, *shape]))
