"""Conjugate families: densities of a parameter ``x`` that stay in their family when data arrive.

A family's density is ``exp(sum of natural[k] * t[k](x) - log_normalizer(natural))``, in coordinates in which
observations *add* to what is called ``natural`` here; a likelihood says what it adds (``LIKELIHOODS``). The evidence of
data is the difference of the log-normalizers, plus what the likelihoods have apart from ``x``.

Source: Fink, *A compendium of conjugate priors* (1997).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

Natural = tuple[Tensor, ...]


class Family(NamedTuple):
    """A family of conjugate priors.

    Attributes:
        natural: the natural coordinates of a distribution, each of its batch shape (and event shape).
        log_normalizer: of natural coordinates; of the batch shape.
        distribution: the distribution of natural coordinates.
        event_dim: the dimensions of an event; natural coordinates have them, too.
        largest: the coordinates of which observations do not add up, but the largest counts.
    """

    natural: Callable[[Any], Natural]
    log_normalizer: Callable[[Natural], Tensor]
    distribution: Callable[[Natural], Any]
    event_dim: int = 0
    largest: frozenset[int] = frozenset()


def _beta(natural: Natural) -> Tensor:
    a, b = natural
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _dirichlet(natural: Natural) -> Tensor:
    (concentration,) = natural
    return torch.lgamma(concentration).sum(-1) - torch.lgamma(concentration.sum(-1))


def _gamma(natural: Natural) -> Tensor:
    a, b = natural
    return torch.lgamma(a) - a * b.log()


def _pareto(natural: Natural) -> Tensor:
    log_scale, alpha = natural
    return -alpha.log() - alpha * log_scale


def _wishart(natural: Natural) -> Tensor:
    df, scatter = natural[0][..., 0, 0], natural[1]
    size = scatter.shape[-1]
    log_det = 2 * torch.linalg.cholesky(scatter).diagonal(dim1=-2, dim2=-1).log().sum(-1)
    found: Tensor = 0.5 * df * (size * math.log(2) - log_det) + torch.mvlgamma(0.5 * df, size)
    return found


def _of_wishart(fn: Any) -> Natural:
    scatter = fn.precision_matrix
    return fn.df[..., None, None].expand(scatter.shape), scatter


FAMILIES: dict[type, Family] = {
    dist.Beta: Family(
        lambda fn: (fn.concentration1, fn.concentration0), _beta, lambda natural: dist.Beta(*natural)
    ),
    dist.Dirichlet: Family(
        lambda fn: (fn.concentration,), _dirichlet, lambda natural: dist.Dirichlet(*natural), 1
    ),
    dist.Gamma: Family(lambda fn: (fn.concentration, fn.rate), _gamma, lambda natural: dist.Gamma(*natural)),
    dist.InverseGamma: Family(
        lambda fn: (fn.concentration, fn.rate), _gamma, lambda natural: dist.InverseGamma(*natural)
    ),
    dist.Pareto: Family(
        lambda fn: (fn.scale.log(), fn.alpha),
        _pareto,
        lambda natural: dist.Pareto(natural[0].exp(), natural[1]),
        largest=frozenset({0}),
    ),
    dist.Wishart: Family(
        _of_wishart,
        _wishart,
        lambda natural: dist.Wishart(natural[0][..., 0, 0], precision_matrix=natural[1]),
        2,
    ),
}


class Observation(NamedTuple):
    """What a likelihood adds to the natural coordinates, and to the logarithm of the evidence."""

    natural: Natural
    base: Tensor


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    return _log_factorial(n) - _log_factorial(k) - _log_factorial(n - k)


def _log_factorial(n: Tensor) -> Tensor:
    return (n + 1).lgamma_()  # In place, as memory for millions of rows takes longer than what is done there.


Likelihood = Callable[[Any, Tensor, Tensor], Observation]
"""From a distribution, an observed value, and the ``c`` by which the parameter is a multiple of a power of ``x``."""


def _bernoulli(fn: Any, y: Tensor, c: Tensor) -> Observation:
    return Observation((y, 1 - y), torch.zeros_like(y))


def _binomial(fn: Any, y: Tensor, c: Tensor) -> Observation:
    return Observation((y, fn.total_count - y), _log_choose(fn.total_count, y))


def _geometric(fn: Any, y: Tensor, c: Tensor) -> Observation:
    return Observation((torch.ones_like(y), y), torch.zeros_like(y))


def _negative_binomial(fn: Any, y: Tensor, c: Tensor) -> Observation:
    r = fn.total_count
    return Observation((y, r.expand(np.broadcast_shapes(r.shape, y.shape))), _log_choose(y + r - 1, y))


def _categorical(fn: Any, y: Tensor, c: Tensor) -> Observation:
    counts = torch.nn.functional.one_hot(y.long(), c.shape[-1]).to(c.dtype)
    return Observation((counts,), counts.new_zeros(y.shape))


def _one_hot(fn: Any, y: Tensor, c: Tensor) -> Observation:
    return Observation((y,), y.new_zeros(y.shape[:-1]))


def _multinomial(fn: Any, y: Tensor, c: Tensor) -> Observation:
    return Observation((y,), _log_factorial(y.sum(-1)) - _log_factorial(y).sum(-1))


def _poisson(fn: Any, y: Tensor, c: Tensor) -> Observation:
    return Observation((y, c), (y * c.log()).sub_(_log_factorial(y)))


def _exponential(fn: Any, y: Tensor, c: Tensor) -> Observation:
    return Observation((torch.ones_like(y), c * y), c.log())


def _gamma_rate(fn: Any, y: Tensor, c: Tensor) -> Observation:
    shape = fn.concentration
    base = shape * c.log() + torch.xlogy(shape - 1, y) - torch.lgamma(shape)
    return Observation((shape, c * y), base)


def _inverse_gamma_rate(fn: Any, y: Tensor, c: Tensor) -> Observation:
    shape = fn.concentration
    base = shape * c.log() - torch.xlogy(shape + 1, y) - torch.lgamma(shape)
    return Observation((shape, c / y), base)


def _normal_scale(fn: Any, y: Tensor, c: Tensor) -> Observation:
    square = 0.5 * ((y - fn.loc) / c) ** 2
    return Observation((torch.full_like(square, 0.5), square), (-0.5 * math.log(2 * math.pi) - c.log()))


def _log_normal_scale(fn: Any, y: Tensor, c: Tensor) -> Observation:
    log = y.log()
    (half, square), base = _normal_scale(fn, log, c)
    return Observation((half, square), base - log)


def _half_normal_scale(fn: Any, y: Tensor, c: Tensor) -> Observation:
    square = 0.5 * (y / c) ** 2
    return Observation((torch.full_like(square, 0.5), square), (0.5 * math.log(2 / math.pi) - c.log()))


def _laplace_scale(fn: Any, y: Tensor, c: Tensor) -> Observation:
    distance = (y - fn.loc).abs() / c
    return Observation((torch.ones_like(distance), distance), -(2 * c).log())


def _weibull_scale(fn: Any, y: Tensor, c: Tensor) -> Observation:
    shape = fn.concentration
    ratio = (y / c) ** shape
    base = shape.log() - shape * c.log() + torch.xlogy(shape - 1, y)
    return Observation((torch.ones_like(ratio), ratio), base)


def _pareto_shape(fn: Any, y: Tensor, c: Tensor) -> Observation:
    excess = c * (y / fn.scale).log()
    return Observation((torch.ones_like(excess), excess), (c.log() - y.log()))


def _uniform_high(fn: Any, y: Tensor, c: Tensor) -> Observation:
    ratio = y / c
    return Observation((ratio.log(), torch.ones_like(ratio)), -c.log())


def _normal_precision(fn: Any, y: Tensor, c: Tensor) -> Observation:
    c = c[..., 0, 0]
    residual = y - fn.loc
    scatter = c[..., None, None] * residual.unsqueeze(-1) * residual.unsqueeze(-2)
    size = y.shape[-1]
    return Observation((torch.ones_like(scatter), scatter), 0.5 * size * (c.log() - math.log(2 * math.pi)))


class Rule(NamedTuple):
    """A likelihood in the parameter ``name``, which is to be ``c * u ** power``.

    ``u`` is ``x``, or ``1 / x`` for inverse families. ``power`` may depend on the distribution. ``complement`` tells
    that the parameter may also be ``1 - x``, and ``scaled`` that ``c`` need not be one.
    """

    name: str
    likelihood: Likelihood
    power: float | Callable[[Any], float | None] = 1.0
    complement: bool = False
    scaled: bool = True
    instead: tuple[str, ...] = ("probs", "logits")
    """Other names of the same parameter."""


def _weibull_power(fn: Any) -> float | None:
    shape = torch.as_tensor(fn.concentration)
    if shape.requires_grad:  # The scale is that power for this value only.
        return None
    first = float(shape.reshape(-1)[0])
    return -1.0 / first if bool((shape == first).all()) else None


def _from_zero(fn: Any) -> float | None:
    low = fn.low
    return 1.0 if not low.requires_grad and type(low) is Tensor and bool((low == 0).all()) else None


_PROBABILITY: dict[type, tuple[Rule, ...]] = {
    dist.Bernoulli: (Rule("probs", _bernoulli, complement=True, scaled=False),),
    dist.Binomial: (Rule("probs", _binomial, complement=True, scaled=False),),
    dist.Geometric: (Rule("probs", _geometric, complement=True, scaled=False),),
    dist.NegativeBinomial: (Rule("probs", _negative_binomial, complement=True, scaled=False),),
}
_PROBABILITIES: dict[type, tuple[Rule, ...]] = {
    dist.Categorical: (Rule("probs", _categorical, scaled=False),),
    dist.OneHotCategorical: (Rule("probs", _one_hot, scaled=False),),
    dist.Multinomial: (Rule("probs", _multinomial, scaled=False),),
}
_RATE: dict[type, tuple[Rule, ...]] = {
    dist.Poisson: (Rule("rate", _poisson),),
    dist.Exponential: (Rule("rate", _exponential),),
    dist.Gamma: (Rule("rate", _gamma_rate),),
    dist.InverseGamma: (Rule("rate", _inverse_gamma_rate),),
    dist.Normal: (Rule("scale", _normal_scale, -0.5),),
    dist.LogNormal: (Rule("scale", _log_normal_scale, -0.5),),
    dist.HalfNormal: (Rule("scale", _half_normal_scale, -0.5),),
    dist.Laplace: (Rule("scale", _laplace_scale, -1.0),),
    dist.Weibull: (Rule("scale", _weibull_scale, _weibull_power),),
    dist.Pareto: (Rule("alpha", _pareto_shape),),
}

_BOUND: dict[type, tuple[Rule, ...]] = {
    dist.Uniform: (Rule("high", _uniform_high, _from_zero),),
}
_PRECISION: dict[type, tuple[Rule, ...]] = {
    dist.MultivariateNormal: (
        Rule("precision_matrix", _normal_precision, instead=("covariance_matrix", "scale_tril")),
    ),
}

LIKELIHOODS: dict[type, dict[type, tuple[Rule, ...]]] = {
    dist.Beta: _PROBABILITY,
    dist.Dirichlet: _PROBABILITIES,
    dist.Gamma: _RATE,
    dist.InverseGamma: _RATE,
    dist.Pareto: _BOUND,
    dist.Wishart: _PRECISION,
}
"""For each family of priors the likelihoods that are conjugate to it."""

POSITIVE = frozenset({dist.Beta, dist.Dirichlet, dist.Gamma, dist.InverseGamma, dist.Pareto})
"""Families of positive values, entry by entry."""

GAUSSIAN = (dist.Normal, dist.MultivariateNormal, dist.LowRankMultivariateNormal)
"""Families that are normal in their value, given what their means are made of."""

INVERSE = frozenset({dist.InverseGamma})
"""Families whose ``u`` is ``1 / x``."""
