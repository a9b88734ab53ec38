"""Gaussian sites as factors.

Every site whose residual is affine in delayed Gaussian sites gives a factor: rows ``design @ x + offset`` of
independent standard normal residuals, or their squares where these keep enough digits. Rows of plates in which none of
its delayed sites lives are put together, which multiplies the factor out over them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sumout.effects.delayed import Delayed
from sumout.effects.delayed.links import broadcast, compact, joint_shape
from sumout.execute.filtering import times
from sumout.execute.gaussian import Factor
from sumout.lower.collapse.layout import Use, extents, gathered, is_aligned, use_of
from sumout.lower.collapse.normal import NormalForm, own_mask
from sumout.lower.collapse.sites import CollapsedSite
from sumout.terms.gaussian import Quadratic, Root


class GaussianFactor(NamedTuple):
    """A site's factor.

    ``names`` are the dimensions of its batch (plates and discrete variables), ``scope`` the delayed sites in the order
    of its entries.
    """

    names: tuple[str, ...]
    scope: tuple[str, ...]
    table: Factor

    @property
    def quadratic(self) -> Quadratic:
        """The factor, where it is one by its quadratic form."""
        assert isinstance(self.table, Quadratic)
        return self.table


COPIES = "sites that are alike"
"""The name of the dimension along which these lie."""


class Parts(NamedTuple):
    """A site's factor ``rest - 1/2 (const + 2 vector' x + x' precision x)``, whose precision is often the same
    throughout: ``precision``, ``vector`` and ``rest`` have size one along dimensions in which they repeat themselves.

    ``precision`` has the shape ``(*names, D, D)``, ``vector`` ``(*names, D)``, ``const`` and ``rest`` ``names``.
    """

    names: tuple[str, ...]
    scope: tuple[str, ...]
    precision: Tensor
    vector: Tensor
    const: Tensor
    rest: Tensor

    def joined(self) -> GaussianFactor:
        batch = self.const.shape
        corner = self.const[..., None, None]
        row = self.vector.expand([*batch, -1]).unsqueeze(-2)
        precision = self.precision.expand([*batch, *self.precision.shape[-2:]])
        form = torch.cat([torch.cat([corner, row], -1), torch.cat([row.mT, precision], -1)], -2)
        return GaussianFactor(self.names, self.scope, Quadratic(form, self.rest.expand(batch)))


class Member(NamedTuple):
    """A Gaussian site, with how it uses each delayed one; all of it broadcasts to ``(*batch, *event)``.

    ``unit`` is how it uses an unknown scale that all have in common, which is none of ``uses``. Sites that are alike
    are one member, with a first dimension of the batch for them: ``copies`` are the delayed sites of each in the order
    of ``uses``, which names those of the first.
    """

    site: CollapsedSite
    form: NormalForm
    uses: dict[str, Use]
    event_dims: int
    batch: tuple[int, ...]
    power: Tensor | float
    """What the log-density is multiplied by, of shape ``batch`` or a number: masks and scales."""
    dtype: torch.dtype
    unit: Use | None = None
    copies: tuple[tuple[str, ...], ...] = ()

    @property
    def single(self) -> tuple[int, ...]:
        """The batch of each of its sites."""
        return self.batch[1:] if self.copies else self.batch

    @property
    def met(self) -> list[Use]:
        """How it uses all delayed sites."""
        return [*self.uses.values(), *([] if self.unit is None else [self.unit])]


def member(
    site: CollapsedSite,
    form: NormalForm,
    latents: Mapping[str, CollapsedSite],
    dtype: torch.dtype,
    scale: CollapsedSite | None = None,
) -> Member:
    """A site with the links of its residual taken apart, and that of its scale, if ``scale`` is delayed."""
    event = tuple(site.fn.event_shape)
    events = len(event)
    power = power_of(site)
    parts = [tuple(form.residual.shape), event]
    if form.scale is not None:
        parts.append(tuple(form.scale.shape))
    else:
        assert form.scale_tril is not None
        parts.append(tuple(form.scale_tril.shape[:-1]))
    if isinstance(power, Tensor):
        parts.append((*power.shape, *[1] * events))
    shape = joint_shape(*parts)
    residual = form.residual if form.residual.shape == shape else form.residual.expand(shape)
    uses = {}
    if isinstance(residual, Delayed):
        uses = {link.site: use_of(link, latents[link.site]) for link in residual.links}
    batch = tuple(shape[: len(shape) - events])
    unit = None
    if scale is not None and form.unit is not None:
        unit = use_of(broadcast(form.unit, shape), scale)
    return Member(site, form._replace(residual=residual), uses, events, batch, power, dtype, unit)


def power_of(site: CollapsedSite) -> Tensor | float:
    """What a site's log-density is multiplied by, but for the scales of its plates."""
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
    users = [use for use in member.met if plate in use.coordinates]
    dims = {frame.name: dim for dim, frame in member.site.frames.items()}
    dim = dims.get(plate)
    if dim is None:
        return gathered(users, plate, member.event_dims)
    aligned = all(is_aligned(use, plate, dim, member.event_dims) for use in users)
    return dim if aligned else None


def plates_of(member: Member) -> list[str]:
    """The plates in which delayed sites that a site uses live."""
    return sorted({plate for use in member.met for plate in use.coordinates})


def factor_of(
    member: Member,
    latents: Mapping[str, CollapsedSite],
    written: frozenset[str],
    kept: frozenset[str],
    roots: bool = False,
) -> Parts | GaussianFactor:
    """A site's factor; in parts, unless it was added up from single elements, or is kept by its residuals.

    That of sites that are alike has their number as its first dimension, ``COPIES``.

    Args:
        member: the site.
        latents: all delayed sites.
        written: the plates that are written out.
        kept: plates that are not multiplied out in any case: each element is a problem of its own.
        roots: whether to keep residuals, and not their squares.
    """
    site, batch, rank = member.site, member.batch, len(member.batch)
    scope = tuple(member.uses)
    matches = {plate: match(member, plate) for plate in plates_of(member) if plate not in written}
    alike = bool(member.copies)
    names = [COPIES] * alike
    stay = [0] * alike
    copies = 1.0
    for place in range(alike, rank):
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
            copies *= frame.scale * (frame.size if batch[place] == 1 else 1)
    for frame in site.inner:
        if frame.dim is not None and -frame.dim > len(member.single) and frame.name not in kept:
            copies *= frame.scale * frame.size
    gone = [place for place in range(rank) if place not in stay]
    design, offset, logs = residual_rows(member, latents, written, scope)
    power = member.power
    if isinstance(power, Tensor):
        power = power.expand(batch).permute([*stay, *gone]).unsqueeze(-1)
    picks = [(plate, found) for plate, found in matches.items() if isinstance(found, Tensor)]
    if picks or gone or roots:
        design, logs = design.expand([*batch, *design.shape[-2:]]), logs.expand([*batch, logs.shape[-1]])
        offset = offset.expand([*batch, offset.shape[-1]])
    design = design.permute([*stay, *gone, rank, rank + 1])
    offset = offset.permute([*stay, *gone, rank])
    logs = logs.permute([*stay, *gone, rank]) * power
    if picks or roots:
        rows = torch.cat([offset.unsqueeze(-1), design], -1)
        more = [plate for plate, _ in picks]
        form: Factor
        if picks:
            form = _scattered(rows, logs, power, picks, (stay, gone), latents, batch, roots)
        else:
            rows = rows * power.sqrt().unsqueeze(-1) if isinstance(power, Tensor) else rows * math.sqrt(power)
            rest = logs.flatten(len(stay)).sum(-1)
            form = Root(rows.flatten(len(stay), -2), rest)
        return GaussianFactor((*names, *more), scope, form.multiplied([], copies))
    lead = len(stay)
    weighted = offset * power if isinstance(power, Tensor) or power != 1.0 else offset
    heavy = (
        design * power.unsqueeze(-1)
        if isinstance(power, Tensor)
        else design * power
        if power != 1.0
        else design
    )
    if gone:
        design, heavy = design.flatten(lead, -2), heavy.flatten(lead, -2)
        offset, weighted, logs = offset.flatten(lead), weighted.flatten(lead), logs.flatten(lead)
    precision, rest = design.mT @ heavy, logs.sum(-1)
    vector, const = _transformed(weighted, design), (offset * weighted).sum(-1)
    if copies != 1.0:
        precision, vector, const, rest = precision * copies, vector * copies, const * copies, rest * copies
    return Parts(tuple(names), scope, precision, vector, const.expand([batch[place] for place in stay]), rest)


def apart(member: Member, factor: Parts | GaussianFactor) -> list[Parts | GaussianFactor]:
    """The factors of single sites from that of all that are alike."""
    if not member.copies:
        return [factor]
    names, _, table = factor.joined() if isinstance(factor, Parts) else factor
    kind = type(table)
    tables = zip(table.table.unbind(), table.rest.unbind(), strict=True)
    return [
        GaussianFactor(names[1:], scope, kind(*each))
        for scope, each in zip(member.copies, tables, strict=True)
    ]


def _transformed(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Each vector times its matrix: ``(*batch, n)``, and ``(*batch, n, k)`` with sizes of one for repetitions."""
    if not vectors.ndim - 1:
        return vectors @ matrices
    if matrices.shape[-3] > 1 or vectors.shape[-2] == 1:
        return (vectors.unsqueeze(-2) @ matrices).squeeze(-2)
    return times(vectors, matrices.squeeze(-3))


def residual_rows(
    member: Member, latents: Mapping[str, CollapsedSite], written: frozenset[str], scope: tuple[str, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Residuals in units of their standard deviations.

    Returns:
        The design, shape ``(*batch, rows, entries of the scope)``, the offset, ``(*batch, rows)``, and the logarithm
        of the normalizing constant of each row, ``(*batch, rows)``, all of size one where they only repeat themselves.
    """
    batch = member.batch
    residual, scale, scale_tril, log_jacobian, *_ = member.form
    rank, event = len(batch), residual.shape[len(batch) :]
    rows = event.numel()
    offset = residual.const if isinstance(residual, Delayed) else residual
    offset = compact(offset, range(rank)).to(member.dtype)
    if isinstance(member.power, Tensor):  # What is masked may be missing, and NaN.
        off = (member.power == 0).expand(batch)
        offset = torch.where(off.reshape([*batch, *[1] * member.event_dims]), 0.0, offset)
    offset = offset.reshape([*offset.shape[:rank], rows])

    def once(x: Tensor) -> Tensor:
        """Terms ``(terms, *batch, *event)`` as ``(*batch, rows, terms)``, repetitions along the batch left out."""
        x = compact(x, range(1, 1 + rank)).movedim(0, -1)
        return x.reshape([*x.shape[:rank], rows, -1])

    columns = [offset.new_zeros([*[1] * rank, rows, 0])]
    for name in scope:
        use, latent = member.uses[name], latents[name]
        entries, place = latent.event_size, once(use.event)
        for plate, (_, size) in extents(latent).items():
            if plate in written:
                place = place + entries * once(use.coordinates[plate])
                entries *= size
        coef = once(use.link.coef).to(member.dtype)
        place, coef = torch.broadcast_tensors(place, coef)  # type: ignore[no-untyped-call]
        columns.append(coef.new_zeros([*coef.shape[:-1], entries]).scatter_add(-1, place, coef))
    shape = [max(sizes) for sizes in zip(*[each.shape[:-2] for each in columns], strict=True)] if rank else []
    design = torch.cat([each.expand([*shape, rows, each.shape[-1]]) for each in columns], -1)
    if scale_tril is not None:
        root = compact(scale_tril.expand([*batch, rows, rows]), range(rank)).to(member.dtype)
        logs = -root.diagonal(dim1=-2, dim2=-1).log()
        inverse = torch.linalg.solve_triangular(
            root, torch.eye(rows, dtype=root.dtype, device=root.device), upper=False
        )
        design, offset = inverse @ design, _transformed(offset, inverse.mT)
    else:
        assert scale is not None
        scale = compact(scale.expand([*batch, *event]), range(rank)).to(member.dtype)
        scale = scale.reshape([*scale.shape[:rank], rows])
        design, offset = design / scale.unsqueeze(-1), offset / scale
        logs = -scale.log()
    logs = logs - 0.5 * math.log(2 * math.pi)
    if log_jacobian is not None:
        logs = logs + log_jacobian.expand([*batch, *event]).reshape([*batch, rows])
    return design, offset, logs


def _scattered(
    rows: Tensor,
    logs: Tensor,
    power: Tensor | float,
    picks: Iterable[tuple[str, Tensor]],
    places: tuple[list[int], list[int]],
    latents: Mapping[str, CollapsedSite],
    batch: tuple[int, ...],
    roots: bool,
) -> Factor:
    """Factors of single elements of the batch, multiplied by the elements of plates that they pick."""
    stay, gone = places
    sizes = {plate: size for latent in latents.values() for plate, (_, size) in extents(latent).items()}
    kept = [batch[place] for place in stay]
    count = math.prod(kept)
    index = torch.arange(count, device=rows.device).reshape([*kept, *[1] * len(gone)])
    shape = []
    for plate, found in picks:
        index = index * sizes[plate] + found.expand(batch).permute([*stay, *gone])
        shape.append(sizes[plate])
    total = count * math.prod(shape)
    index = index.reshape(-1)
    rest = logs.new_zeros(total).index_add(0, index, logs.sum(-1).reshape(-1))
    if roots:
        rows = rows * power.sqrt().unsqueeze(-1) if isinstance(power, Tensor) else rows * math.sqrt(power)
        table = _side_by_side(rows.reshape(-1, *rows.shape[-2:]), index, total)
        return Root(table, rest).reshaped([*kept, *shape])
    single = rows.mT @ (rows * power.unsqueeze(-1) if isinstance(power, Tensor) else rows * power)
    single = single.reshape(-1, *single.shape[-2:])
    form = single.new_zeros(total, *single.shape[-2:]).index_add(0, index, single)
    return Quadratic(form, rest).reshaped([*kept, *shape])


def _side_by_side(rows: Tensor, index: Tensor, total: int) -> Tensor:
    """The rows that belong together, and rows of zeros: from ``(count, n, columns)`` to ``(total, more, columns)``."""
    while True:
        order = index.argsort(stable=True)
        rows, index = rows[order], index[order]
        counts = index.bincount(minlength=total)
        place = torch.arange(len(index), device=index.device) - (counts.cumsum(0) - counts)[index]
        size, columns = rows.shape[-2:]
        few = 4 * max(1, math.ceil(columns / size))
        most = int(counts.max())
        if most <= few:
            found = rows.new_zeros(total, most, size, columns)
            return found.index_put((index, place), rows).flatten(1, 2)
        # A few at a time, as elements may be of very different number.
        first = place % few == 0
        packed = rows.new_zeros(int(first.sum()), few, size, columns)
        packed = packed.index_put((first.cumsum(0) - 1, place % few), rows).flatten(1, 2)
        rows, index = Root(packed, packed.new_zeros(len(packed))).shortened().table, index[first]
