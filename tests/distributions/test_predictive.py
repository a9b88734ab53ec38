"""Predictive distributions against quadrature of the likelihood over the parameter; moments against samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

import sumout.distributions as dist
from sumout.distributions.conjugacy import LIKELIHOODS
from sumout.distributions.predictive import PREDICTIVE

D = torch.float64
A, B, C = [torch.tensor(each, dtype=D) for each in (2.3, 1.6, 0.5)]
K = torch.tensor(1.7, dtype=D)

BETA: list[Callable[[Tensor], Any]] = [
    dist.Bernoulli,
    lambda p: dist.Binomial(torch.tensor(8.0, dtype=D), p),
    dist.Geometric,
    lambda p: dist.NegativeBinomial(torch.tensor(2.5, dtype=D), p),
]
GAMMA: list[Callable[[Tensor], Any]] = [
    lambda u: dist.Poisson(C * u),
    lambda u: dist.Exponential(C * u),
    lambda u: dist.Gamma(K, C * u),
    lambda u: dist.InverseGamma(K, C * u),
    lambda u: dist.Normal(torch.tensor(0.3, dtype=D), C * u.rsqrt()),
    lambda u: dist.LogNormal(torch.tensor(0.3, dtype=D), C * u.rsqrt()),
    lambda u: dist.HalfNormal(C * u.rsqrt()),
    lambda u: dist.Weibull(C * u ** (-1 / K), K),
    lambda u: dist.Pareto(torch.tensor(0.6, dtype=D), C * u),
]
CASES = [("Beta", make) for make in BETA] + [("Gamma", make) for make in GAMMA]


def predictive(family: str, make: Callable[[Tensor], Any], natural: tuple[Tensor, ...]) -> Any:
    fn = make(torch.tensor(0.5, dtype=D))
    kind = getattr(dist, family)
    return PREDICTIVE[kind][type(fn)](fn, natural, torch.ones_like(C) if family == "Beta" else C)


@pytest.mark.parametrize(("family", "make"), CASES)
def test_densities(family: str, make: Callable[[Tensor], Any]) -> None:
    t = torch.linspace(-36.0, 36.0, 1441, dtype=D)
    if family == "Beta":
        x, weights, prior = t.sigmoid(), logsigmoid(t) + logsigmoid(-t), dist.Beta(A, B)
    else:
        x, weights, prior = t.exp(), t, dist.Gamma(A, B)
    binary = type(make(x)) is dist.Bernoulli
    at = torch.tensor([0.0, 1.0] if binary else [1.0, 3.0, 7.0], dtype=D)
    logs = weights + prior.log_prob(x) + make(x).log_prob(at.unsqueeze(-1))
    exact = logs.logsumexp(-1) + (t[1] - t[0]).log()
    found = predictive(family, make, (A, B))
    torch.testing.assert_close(found.log_prob(at), exact, rtol=1e-9, atol=1e-9)
    assert found.expand([3]).batch_shape == (3,)
    assert found.expand([3]).sample((2,)).shape == (2, 3)


@pytest.mark.parametrize(
    "fn",
    [
        dist.BetaNegativeBinomial(A, torch.tensor(9.0, dtype=D), K),
        dist.GammaGamma(K, torch.tensor(9.0, dtype=D), B),
    ],
)
def test_moments_of_samples(fn: Any) -> None:
    torch.manual_seed(0)
    count = 40_000
    drawn = fn.sample((count,))
    assert float((drawn.mean() - fn.mean).abs()) < 5 * float(fn.variance.sqrt()) / math.sqrt(count)
    torch.testing.assert_close(drawn.var(), fn.variance, rtol=0.1, atol=0.0)


def test_moments_that_do_not_exist() -> None:
    two = torch.tensor([0.9, 1.5, 2.5], dtype=D)
    for fn in (dist.BetaNegativeBinomial(A, two, K), dist.GammaGamma(K, two, B)):
        assert fn.mean.isinf().tolist() == [True, False, False]
        assert fn.variance.isinf().tolist() == [True, True, False]


def test_normal_vectors_with_a_wishart_precision() -> None:
    """Of one row, by Bayes' rule at any precision: likelihood times prior over posterior."""
    scatter = torch.tensor([[1.0, 0.2], [0.2, 0.8]], dtype=D)
    df, c = torch.tensor(4.5, dtype=D), torch.tensor(0.7, dtype=D)
    loc, y = torch.tensor([0.1, -0.3], dtype=D), torch.tensor([1.0, 0.5], dtype=D)
    some = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=D)
    likelihood = dist.MultivariateNormal(loc, precision_matrix=c * some)
    rest = (y - loc).unsqueeze(-1)
    after = dist.Wishart(df + 1, precision_matrix=scatter + c * rest @ rest.mT)
    exact = dist.Wishart(df, precision_matrix=scatter).log_prob(some) + likelihood.log_prob(y)
    make = PREDICTIVE[dist.Wishart][dist.MultivariateNormal]
    found = make(likelihood, (df.expand(2, 2), scatter), c).log_prob(y)
    torch.testing.assert_close(found, exact - after.log_prob(some), rtol=1e-9, atol=1e-9)


def test_what_is_conjugate_has_a_prediction_or_is_known_to_have_none() -> None:
    none = {
        kind: {each.__name__ for each in rules if each not in PREDICTIVE.get(kind, {})}
        for kind, rules in LIKELIHOODS.items()
    }
    assert {kind.__name__: names for kind, names in none.items() if names} == {
        "Gamma": {"Laplace"},
        "InverseGamma": {"Laplace"},
        "Pareto": {"Uniform"},
    }
