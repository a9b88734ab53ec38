"""Normal vectors whose precisions are multiples of one unknown matrix, which is delayed too: normal-Wishart.

Where all means are made of vectors entry by entry, with the same coefficients for each entry, the vectors' entries are
problems of their own but for the matrix ``W``: given it, the integral over all vectors is

    exp(D * rest) * |W| ** (n / 2) * exp(-tr(W Q) / 2),

``n`` and ``rest`` being those of one entry, ``Q[j, k]`` its quadratic form in the data of entries ``j`` and ``k``.

Source: Bernardo and Smith, *Bayesian Theory* (1994), section 5.2 and appendix A.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.families import innermost
from sumout.effects.delayed import Delayed, Link
from sumout.effects.delayed.links import compact
from sumout.lower.collapse.arms import is_whole
from sumout.lower.collapse.assembly import component
from sumout.lower.collapse.common_scale import matched, rows_in
from sumout.lower.collapse.component import Component
from sumout.lower.collapse.conjugate import Star, star
from sumout.lower.collapse.gaussian import Member, member
from sumout.lower.collapse.layout import extents, in_shape
from sumout.lower.collapse.normal import NormalForm, own_mask
from sumout.lower.collapse.sites import CollapsedSite


class CommonMatrix(NamedTuple):
    """The matrix with all that it is told, and the integral over one entry of the vectors, for each entry's data."""

    factor: Star
    entries: tuple[Component, ...]

    @property
    def gaussian(self) -> Component:
        return self.entries[0]

    def student(self, site: CollapsedSite) -> list[tuple[tuple[str, ...], Tensor]]:
        """The marginal posterior of a vector, a Student distribution.

        Returns:
            Degrees of freedom, mean, spread, and what the spread is to be multiplied by: each with the discrete
            variables that it depends on, which are its first dimensions; then comes the batch of the site's value.
        """
        single = first_entry(site)
        means = []
        for each in self.entries:
            names, mean, covariance = each.moments()[site.name]
            chosen, center = in_shape(single, names, mean, each.written)
            means.append(center[..., 0])
            variance = covariance.diagonal(dim1=-2, dim2=-1)
            spread = in_shape(single, names, variance, each.written)[1][..., 0]
        lead = len(self.factor.names)
        df, scatter = self.factor.natural[0][..., 0, 0], self.factor.natural[1]
        size = scatter.shape[-1]
        rank = means[0].dim() - len(chosen)
        batch = [*df.shape[:lead], *[1] * (rank - (df.dim() - lead)), *df.shape[lead:]]
        freedom = (df - size + 1).reshape(batch)
        own = self.factor.names
        ratio = scatter.reshape([*batch, size, size]) / freedom[..., None, None]
        dtype = means[0].dtype
        return [
            (own, freedom.to(dtype)),
            (chosen, torch.stack(means, -1)),
            (own, ratio.to(dtype)),
            (chosen, spread),
        ]


class _Form(NamedTuple):
    """A site of normal vectors: its residual, and what its precision is a multiple of the matrix by."""

    site: CollapsedSite
    residual: Delayed | Tensor
    times: Tensor
    unit: Link


def common_matrix(
    group: Sequence[CollapsedSite],
    latents: Mapping[str, CollapsedSite],
    discrete: Mapping[str, frozenset[str]],
    dtype: torch.dtype,
) -> CommonMatrix | None:
    """The integral of normal vectors with one unknown matrix, or ``None`` where they are not such."""
    matrices = [site for site in latents.values() if type(innermost(site.fn)) is dist.Wishart]
    if len(matrices) != 1 or len(matrices[0].fn.event_shape) != 2:
        return None
    (matrix,) = matrices
    forms = [
        _form(site, matrix, latents) for site in group if site is not matrix and site.name != matrix.name
    ]
    known = [form for form in forms if form is not None]
    if len(known) < len(forms):
        return None
    single = {name: first_entry(site) for name, site in latents.items() if name != matrix.name}
    size = matrix.value.shape[-1]

    unit = torch.eye(size, dtype=dtype, device=matrix.value.device)
    kept = frozenset(extents(matrix))

    def members(column: Tensor, widen: float = 1.0) -> list[Member]:
        return [member(*_entry(form, column, widen), single, dtype, matrix) for form in known]

    def solved(column: Tensor, widen: float = 1.0) -> Component:
        return component(members(column, widen), single, discrete, kept)

    if not matched(members(unit[0]), matrix):
        return None
    entries = tuple([solved(each) for each in unit])
    own = [each.integral().form for each in entries]
    rows = [
        [
            own[j] if j == k else 0.5 * (solved(unit[j] + unit[k]).integral().form - own[j] - own[k])
            for k in range(size)
        ]
        for j in range(size)
    ]
    scatter = torch.stack([torch.stack(row, -1) for row in rows], -2)
    rest = entries[0].integral().rest
    n = (solved(unit[0], widen=0.5).integral().rest - rest) / math.log(2.0)
    told = (n[..., None, None].expand(scatter.shape), scatter)
    more = rows_in(entries[0].batch, matrix, told, size * rest)
    return CommonMatrix(star(matrix, [], dtype, [more]), entries)


def _form(site: CollapsedSite, matrix: CollapsedSite, latents: Mapping[str, CollapsedSite]) -> _Form | None:
    base: Any = innermost(site.fn)
    if type(base) is not dist.MultivariateNormal or len(site.fn.event_shape) != 1:
        return None
    precision = vars(base).get("precision_matrix")
    if not isinstance(precision, Delayed) or not precision.is_affine or precision.shift is not None:
        return None
    if (
        precision.sites != (matrix.name,)
        or precision.links[0].terms != 1
        or not is_whole(precision.links[0], 2)
    ):
        return None
    residual = site.value - base.loc
    if isinstance(residual, Delayed):
        if not residual.is_affine or matrix.name in residual.sites:
            return None
        if not all(_by_entry(link, residual.shape[-1]) for link in residual.links):
            return None
        if any(latents[name].fn.event_shape != site.fn.event_shape for name in residual.sites):
            return None
    (unit,) = precision.links
    unit = unit._replace(where=unit.where[..., 0, 0], coef=unit.coef[..., 0, 0])
    return _Form(site, residual, unit.coef[0], unit)


def _by_entry(link: Link, size: int) -> bool:
    """Whether each entry of a vector is made of the same entry of vectors, and all in the same way."""
    there = link.where >= 0
    vector = link.where.div(size, rounding_mode="floor")
    same = (link.where - vector * size == torch.arange(size, device=link.where.device)) & (
        vector == vector[..., :1]
    )
    coef = compact(link.coef)
    even = coef.shape[-1] == 1 or (not coef.requires_grad and bool((coef == coef[..., :1]).all()))
    return even and bool((same | ~there).all()) and bool((there == there[..., :1]).all())


def first_entry(site: CollapsedSite) -> CollapsedSite:
    """A site of vectors as one of their first entries."""
    message = site.message.copy()
    value = site.value
    probe = value.probe if isinstance(value, Delayed) else value
    fn: Any = dist.Normal(probe.new_zeros(site.fn.batch_shape), 1.0)
    mask = own_mask(site.fn)
    message.plain_fn, message._fn = (fn if mask is True else fn.mask(mask)), None
    message.value = Delayed.of_site(site.name, probe[..., 0]) if isinstance(value, Delayed) else probe[..., 0]
    return site._replace(message=message)


def _entry(form: _Form, column: Tensor, widen: float) -> tuple[CollapsedSite, NormalForm]:
    """The site's form in one entry, its data summed up with the weights of a column."""
    residual = form.residual
    const = (residual.const if isinstance(residual, Delayed) else residual).to(column.dtype) @ column
    found: Delayed | Tensor = const
    if isinstance(residual, Delayed):
        size = residual.shape[-1]
        links = [
            link._replace(
                where=link.where[..., 0].div(size, rounding_mode="floor"),
                coef=link.coef[..., 0].to(column.dtype),
            )
            for link in residual.links
        ]
        found = Delayed.made(residual.probe[..., 0].to(column.dtype), tuple(links), const)
    return first_entry(form.site), NormalForm(
        found, widen * form.times.to(column.dtype).rsqrt(), None, unit=form.unit
    )
