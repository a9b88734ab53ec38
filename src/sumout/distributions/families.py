"""What the engine knows of each family of distributions.

``PARAMETERS`` lists families whose log-density is elementwise in the value and the named parameters (each
tuple is one way to parametrize them): many sites of such a family can be scored as one.
"""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions.utils import clamp_probs

from sumout.distributions.checks import lie_between

PARAMETERS: dict[type, tuple[tuple[str, ...], ...]] = {
    dist.Bernoulli: (("probs",), ("logits",)),
    dist.Exponential: (("rate",),),
    dist.Gamma: (("concentration", "rate"),),
    dist.Geometric: (("probs",), ("logits",)),
    dist.Laplace: (("loc", "scale"),),
    dist.Normal: (("loc", "scale"),),
    dist.Poisson: (("rate",),),
    dist.StudentT: (("df", "loc", "scale"),),
}


_LOG_SQRT_2_PI = math.log(2 * math.pi) / 2

_IN_FULL = (torch.float32, torch.float64)

_DISTRIBUTIONS: dict[type, bool] = {}


def is_distribution(fn: Any) -> bool:
    """Whether ``fn`` is one of Pyro's distributions; asked at every site, so the answer is kept by type.

    >>> is_distribution(dist.Normal(0.0, 1.0)), is_distribution(len)
    (True, False)
    """
    kind = type(fn)
    known = _DISTRIBUTIONS.get(kind)
    if known is None:
        known = _DISTRIBUTIONS[kind] = isinstance(fn, TorchDistributionMixin)
    return known


def innermost(fn: Any) -> Any:
    """The distribution under masks, expansions and reinterpretations of its batch.

    >>> innermost(dist.Bernoulli(0.5).expand([3]).to_event(1).mask(False))
    Bernoulli(probs: torch.Size([3]))
    """
    while isinstance(fn, (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)):
        fn = fn.base_dist
    return fn


def elementwise_parameters(fn: Any) -> tuple[str, ...] | None:
    """The names of the parameters that ``fn`` was made with, if its family's density is elementwise in them.

    ``None`` for other families, and where both forms of a parameter are present, one computed from the other.

    >>> elementwise_parameters(dist.Normal(0.0, 1.0))
    ('loc', 'scale')
    >>> elementwise_parameters(dist.Uniform(0.0, 1.0)) is None
    True
    """
    found = [names for names in PARAMETERS.get(type(fn), ()) if all(name in fn.__dict__ for name in names)]
    return found[0] if len(found) == 1 else None


def linear_form(fn: Any) -> tuple[Tensor, Tensor] | None:
    """``slope`` and ``offset`` for a family whose log-density is ``value * slope + offset``.

    Their logarithms are taken of the parameters alone, and sums over data become matrix products.
    (``logsigmoid`` is exact where ``softplus`` is cut off.)

    >>> import torch
    >>> slope, offset = linear_form(dist.Bernoulli(torch.tensor(0.25)))
    >>> (torch.tensor([0.0, 1.0]) * slope + offset).exp()
    tensor([0.7500, 0.2500])
    """
    if type(fn) is dist.Bernoulli:
        if "probs" in fn.__dict__:
            probs = clamp_probs(fn.probs)  # As torch does, which takes their logits.
            offset = torch.log1p(-probs)
            return probs.log() - offset, offset
        return fn.logits, F.logsigmoid(-fn.logits)
    return None


def log_density(fn: Any, value: Tensor, checked: bool) -> Tensor:
    """``fn.log_prob(value)``, with fewer passes over the numbers where there is a way.

    ``checked`` tells that the value is known to be in the support; torch extends some densities beyond it, as that of a
    Bernoulli to grey pixels between zero and one. Where the value of a Bernoulli is no number, neither is the
    log-probability, and its derivative is zero.

    >>> import torch
    >>> log_density(dist.Bernoulli(torch.tensor(0.25)), torch.tensor([0.0, 1.0]), checked=True).exp()
    tensor([0.7500, 0.2500])
    """
    dtype = fn._param.dtype if type(fn) is dist.Bernoulli else None
    if dtype is not None and value.dtype != dtype and torch.promote_types(value.dtype, dtype) == dtype:
        value = value.to(dtype)  # Torch would compute in the narrower of the two.
    if dtype is not None and not checked:
        missing = value.isnan()
        known: Tensor = fn.log_prob(value.masked_fill(missing, 0))
        return known.masked_fill(missing, torch.nan)
    if dtype == value.dtype and "probs" in fn.__dict__:
        eps = torch.finfo(fn.probs.dtype).eps  # as torch does, which takes these probabilities' logits
        probs = fn.probs if lie_between(fn.probs, eps, 1 - eps) else fn.probs.clamp(eps, 1 - eps)
        # ``where(value == 1, probs, 1 - probs)``, to the last digit; what is chosen by has the size of the value alone.
        is_one = (value == 1).to(dtype)
        return torch.addcmul(1 - is_one, probs, 2 * is_one - 1).log()
    if type(fn) is dist.Normal and value.dtype in _IN_FULL and fn.loc.dtype == fn.scale.dtype == value.dtype:
        # Three passes over the joint table and three back, where torch makes six and seven.
        value, loc = torch.broadcast_tensors(value, fn.loc)  # type: ignore[no-untyped-call]
        squared = F.mse_loss(value, loc, reduction="none")
        # A quotient, whose derivative takes no power of the variance: it would underflow sooner.
        scale: Tensor = fn.scale
        return (-scale.log() - _LOG_SQRT_2_PI) + squared / (-2 * scale**2)
    log_prob: Tensor = fn.log_prob(value)
    return log_prob
