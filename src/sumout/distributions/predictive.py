"""Posterior predictive distributions: a likelihood averaged over the conjugate posterior of its parameter.

Source: Bernardo and Smith, *Bayesian Theory* (1994), appendix A.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.transforms import ExpTransform, PowerTransform

from sumout.distributions.compound import BetaNegativeBinomial, GammaGamma
from sumout.distributions.conjugacy import Natural

Predictive = Callable[[Any, Natural, Tensor], Any]
"""From a likelihood, natural coordinates of its parameter's posterior (``FAMILIES``), and the ``c`` by which the
parameter is a multiple of a power of ``x``; all broadcast. Complements have their coordinates in turned order."""


def _bernoulli(fn: Any, natural: Natural, c: Tensor) -> Any:
    a, b = natural
    return dist.Bernoulli(probs=a / (a + b))


def _binomial(fn: Any, natural: Natural, c: Tensor) -> Any:
    return dist.BetaBinomial(*natural, total_count=fn.total_count)


def _geometric(fn: Any, natural: Natural, c: Tensor) -> Any:
    a, b = natural
    return BetaNegativeBinomial(b, a, torch.ones_like(a))


def _negative_binomial(fn: Any, natural: Natural, c: Tensor) -> Any:
    a, b = natural
    return BetaNegativeBinomial(a, b, fn.total_count)


def _categorical(fn: Any, natural: Natural, c: Tensor) -> Any:
    return dist.Categorical(probs=natural[0] / natural[0].sum(-1, keepdim=True))


def _one_hot(fn: Any, natural: Natural, c: Tensor) -> Any:
    return dist.OneHotCategorical(probs=natural[0] / natural[0].sum(-1, keepdim=True))


def _multinomial(fn: Any, natural: Natural, c: Tensor) -> Any:
    return dist.DirichletMultinomial(natural[0], total_count=fn.total_count)


def _poisson(fn: Any, natural: Natural, c: Tensor) -> Any:
    shape, rate = natural
    return dist.GammaPoisson(shape, rate / c)


def _exponential(fn: Any, natural: Natural, c: Tensor) -> Any:
    shape, rate = natural
    return GammaGamma(torch.ones_like(shape), shape, rate / c)


def _gamma(fn: Any, natural: Natural, c: Tensor) -> Any:
    shape, rate = natural
    return GammaGamma(fn.concentration, shape, rate / c)


def _inverse_gamma(fn: Any, natural: Natural, c: Tensor) -> Any:
    inverse = PowerTransform(torch.tensor(-1.0, dtype=c.dtype, device=c.device))
    return dist.TransformedDistribution(_gamma(fn, natural, c), [inverse])


def _normal(fn: Any, natural: Natural, c: Tensor) -> Any:
    shape, rate = natural
    return dist.StudentT(2 * shape, fn.loc, c * (rate / shape).sqrt())


def _log_normal(fn: Any, natural: Natural, c: Tensor) -> Any:
    return dist.TransformedDistribution(_normal(fn, natural, c), [ExpTransform()])


def _half_normal(fn: Any, natural: Natural, c: Tensor) -> Any:
    shape, rate = natural
    return dist.FoldedDistribution(
        dist.StudentT(2 * shape, torch.zeros_like(rate), c * (rate / shape).sqrt())
    )


def _weibull(fn: Any, natural: Natural, c: Tensor) -> Any:
    shape, rate = natural
    power = fn.concentration
    power_of = GammaGamma(torch.ones_like(shape), shape, rate * c**power)
    return dist.TransformedDistribution(power_of, [PowerTransform(power.reciprocal())])


def _pareto(fn: Any, natural: Natural, c: Tensor) -> Any:
    excess = _exponential(fn, natural, c)
    scale = torch.distributions.transforms.AffineTransform(torch.zeros_like(c), fn.scale)
    return dist.TransformedDistribution(excess, [ExpTransform(), scale])


def _multivariate_normal(fn: Any, natural: Natural, c: Tensor) -> Any:
    df, scatter = natural[0][..., 0, 0], natural[1]
    freedom = df - scatter.shape[-1] + 1
    spread = scatter / (c * freedom)[..., None, None]
    return dist.MultivariateStudentT(freedom, fn.loc, torch.linalg.cholesky(spread))


_WITH_GAMMA: dict[type, Predictive] = {
    dist.Poisson: _poisson,
    dist.Exponential: _exponential,
    dist.Gamma: _gamma,
    dist.InverseGamma: _inverse_gamma,
    dist.Normal: _normal,
    dist.LogNormal: _log_normal,
    dist.HalfNormal: _half_normal,
    dist.Weibull: _weibull,
    dist.Pareto: _pareto,
}

PREDICTIVE: Mapping[type, Mapping[type, Predictive]] = {
    dist.Beta: {
        dist.Bernoulli: _bernoulli,
        dist.Binomial: _binomial,
        dist.Geometric: _geometric,
        dist.NegativeBinomial: _negative_binomial,
    },
    dist.Dirichlet: {
        dist.Categorical: _categorical,
        dist.OneHotCategorical: _one_hot,
        dist.Multinomial: _multinomial,
    },
    dist.Gamma: _WITH_GAMMA,
    dist.InverseGamma: _WITH_GAMMA,
    dist.Wishart: {dist.MultivariateNormal: _multivariate_normal},
}
"""By the families of the parameter and of the likelihood; ``u`` being gamma where the parameter is inverse gamma."""
