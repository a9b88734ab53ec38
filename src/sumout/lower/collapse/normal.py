"""What a family is given its parameters: normal in an affine function of delayed sites."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

import sumout.distributions as dist
from sumout.distributions.families import innermost
from sumout.effects.delayed import Delayed, Link


class NormalForm(NamedTuple):
    """A site whose residual ``loc - value`` is normal with mean zero.

    ``residual`` has the shape of the batch and the event; either ``scale``, which broadcasts with it, is its standard
    deviation entry by entry, or ``scale_tril`` is the Cholesky factor of the covariance of its last dimension. Where
    these are multiples of an unknown, delayed one, ``unit`` is its link (of one term), and they are the multiples.
    ``log_jacobian`` belongs to a change of variables.
    """

    residual: Delayed | Tensor
    scale: Tensor | None
    scale_tril: Tensor | None
    log_jacobian: Tensor | None = None
    unit: Link | None = None
    power: float = 1.0


def own_mask(fn: Any) -> Tensor | bool:
    """The masks of masked distributions that a distribution is made of."""
    mask: Tensor | bool = True
    while isinstance(fn, (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)):
        if isinstance(fn, dist.MaskedDistribution):
            mask = fn._mask & mask
        fn = fn.base_dist
    return mask


def _scale_tril(base: Any) -> Tensor:
    """The Cholesky factor of a covariance; of a multiple of a delayed one, the same multiple of its root."""
    for name, root in (("covariance_matrix", 0.5), ("precision_matrix", -0.5)):
        given = vars(base).get(name)
        if (
            isinstance(given, Delayed)
            and given.unknown is None
            and given.shift is None
            and len(given.links) == 1
        ):
            (link,) = given.links
            whole = (link.where == link.where[..., :1, :1]) | (link.coef == 0)
            if link.terms > 1 or not link.positive or not bool(whole.all()):
                continue
            known = dist.MultivariateNormal(base.loc.new_zeros(base.loc.shape), **{name: link.coef[0]})
            coef = known.scale_tril.unsqueeze(0)
            where = link.where[..., :1, :1].expand(coef.shape)
            return Delayed.made(coef[0], (link._replace(where=where, coef=coef),), None, root * given.power)
    return base._unbroadcasted_scale_tril  # type: ignore[no-any-return]


def normal_form(fn: Any, value: Any) -> NormalForm | None:
    """The site as a normal one; ``None`` for other families, or where the residual is not affine.

    >>> import torch
    >>> normal_form(dist.Normal(torch.zeros(3), 2.0), torch.ones(3)).residual
    tensor([-1., -1., -1.])
    """
    base = innermost(fn)
    log_jacobian: Tensor | None = None
    if type(base) is dist.LogNormal and isinstance(value, Tensor) and not isinstance(value, Delayed):
        value = value.log()
        log_jacobian = -value
        base = base.base_dist
    if type(base) is dist.Normal:
        found = NormalForm(base.loc - value, base.scale, None, log_jacobian)
    elif type(base) is dist.MultivariateNormal:
        found = NormalForm(base.loc - value, None, _scale_tril(base), log_jacobian)
    elif type(base) is dist.LowRankMultivariateNormal:
        found = NormalForm(base.loc - value, None, base.scale_tril, log_jacobian)
    else:
        return None
    if isinstance(found.residual, Delayed) and not found.residual.is_affine:
        return None
    spread = found.scale if found.scale_tril is None else found.scale_tril
    if not isinstance(spread, Delayed):
        return found
    if spread.unknown is not None or abs(spread.power) != 0.5 or len(spread.links) != 1:
        return None
    (link,) = spread.links
    if found.scale_tril is None:
        return found._replace(scale=link.coef[0], unit=link, power=spread.power)
    if not bool((link.where == link.where[..., :1, :1]).all()):
        return None
    link = link._replace(where=link.where[..., 0], coef=link.coef[..., 0])
    return found._replace(scale_tril=spread.links[0].coef[0], unit=link, power=spread.power)
