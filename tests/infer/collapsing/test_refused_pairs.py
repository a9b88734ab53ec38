"""What is not conjugate names the site, its family, how it depends on which other, and the nearest known form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import ModelError
from sumout.lower.collapse.refusals import NotConjugateError
from sumout.poutine import collapse

ONE = torch.tensor(1.0)
PRIORS: dict[str, Callable[[], Any]] = {
    "Beta": lambda: dist.Beta(2.0, 1.0),
    "Dirichlet": lambda: dist.Dirichlet(torch.ones(3)),
    "Gamma": lambda: dist.Gamma(2.0, 1.0),
    "InverseGamma": lambda: dist.InverseGamma(2.0, 1.0),
    "Normal": lambda: dist.Normal(0.0, 1.0),
    "Pareto": lambda: dist.Pareto(1.0, 2.0),
    "Wishart": lambda: dist.Wishart(torch.tensor(4.0), torch.eye(2)),
}
Make = Callable[[Any], Any]

CASES: list[tuple[str, str, Make, str, str]] = [
    (
        "Gamma",
        "Poisson",
        lambda x: dist.Poisson(x + 1),
        "rate is an affine",
        "Poisson with rate a multiple of x",
    ),
    (
        "Gamma",
        "Poisson",
        lambda x: dist.Poisson(x.exp()),
        "rate .*'exp'",
        "Poisson with rate a multiple of x",
    ),
    (
        "Gamma",
        "Poisson",
        lambda x: dist.Poisson(x**2),
        r"rate .*x \*\* 2",
        "Poisson with rate a multiple of x",
    ),
    (
        "Gamma",
        "Normal",
        lambda x: dist.Normal(0.0, x),
        "scale is x",
        r"Normal with scale a multiple of x.rsqrt\(\)",
    ),
    ("Gamma", "Gamma", lambda x: dist.Gamma(x, 1.0), "concentration", "Gamma with rate a multiple of x"),
    (
        "Gamma",
        "NegativeBinomial",
        lambda x: dist.NegativeBinomial(x, 0.3),
        "total_count",
        "prior that is Beta",
    ),
    (
        "Gamma",
        "ZeroInflatedPoisson",
        lambda x: dist.ZeroInflatedPoisson(x, gate=ONE / 2),
        "x",
        r"Poisson\(rate",
    ),
    ("Gamma", "StudentT", lambda x: dist.StudentT(3.0, 0.0, x.rsqrt()), r"x.rsqrt\(\)", r"Normal\(scale"),
    ("Gamma", "Weibull", lambda x: dist.Weibull(x, ONE * 2), "scale is x", r"Weibull with .* x.rsqrt\(\)"),
    ("InverseGamma", "Normal", lambda x: dist.Normal(0.0, x), "scale is x", r"multiple of x.sqrt\(\)"),
    (
        "InverseGamma",
        "Poisson",
        lambda x: dist.Poisson(x),
        "rate is x",
        "Poisson with rate a multiple of 1 / x",
    ),
    ("Beta", "Bernoulli", lambda x: dist.Bernoulli(0.5 * x), "multiple of x", "probs x or 1 - x"),
    ("Beta", "Bernoulli", lambda x: dist.Bernoulli(logits=x), "logits is x", "probs x or 1 - x"),
    ("Beta", "Geometric", lambda x: dist.Geometric(x**2), "probs", "Geometric with probs x or 1 - x"),
    ("Beta", "Normal", lambda x: dist.Normal(x, 1.0), "loc is x", r"Bernoulli\(probs"),
    ("Dirichlet", "Categorical", lambda x: dist.Categorical(logits=x.log()), "'log'", "probs all of x"),
    ("Dirichlet", "Categorical", lambda x: dist.Categorical(x @ torch.eye(3)), "probs", "probs all of x"),
    ("Dirichlet", "Bernoulli", lambda x: dist.Bernoulli(x[0]), "probs", "prior that is Beta"),
    ("Normal", "Poisson", lambda x: dist.Poisson(x.exp()), "'exp'", "prior that is Gamma or InverseGamma"),
    ("Normal", "Normal", lambda x: dist.Normal(x.sin(), 1.0), "loc .*'sin'", "loc an affine function of it"),
    (
        "Normal",
        "Normal",
        lambda x: dist.Normal(0.0, x.exp()),
        "scale .*'exp'",
        "loc an affine function of it",
    ),
    ("Normal", "Bernoulli", lambda x: dist.Bernoulli(logits=x), "logits is x", "prior that is Beta"),
    ("Pareto", "Uniform", lambda x: dist.Uniform(-1.0, x), "high is x", "Uniform with high"),
    (
        "Wishart",
        "MultivariateNormal",
        lambda x: dist.MultivariateNormal(torch.zeros(2), x),
        "covariance_matrix is x",
        "MultivariateNormal with precision_matrix a multiple of x",
    ),
]


@pytest.mark.parametrize(("prior", "family", "make", "how", "nearest"), CASES)
def test_each_pair(prior: str, family: str, make: Make, how: str, nearest: str) -> None:
    def program() -> None:
        fn = make(sample("x", PRIORS[prior]()))
        sample("y", fn, obs=torch.ones(fn.event_shape) if family != "Categorical" else torch.tensor(1))

    told = rf"Site 'y' \({family}\) depends on the delayed site 'x' \({prior}\): .*{how}.*{nearest}"
    with pytest.raises(NotConjugateError, match=told) as raised:
        collapse(program)()
    assert raised.value.sites == {"x"}
    assert "infer={'collapse': False}" in str(raised.value)
    if prior == "Wishart":
        return  # torch warns of each plain draw of it.
    # Left to sampling, it says the same.
    lenient = collapse(program, strict=False)
    lenient()
    assert "x: left alone" in lenient.msngr.explain()
    assert f"Site 'y' ({family})" in lenient.msngr.explain()


@pytest.mark.parametrize("join", [lambda x, w: x + w, lambda x, w: x * w])
def test_two_sites_in_one_parameter(join: Callable[[Any, Any], Any]) -> None:
    def program() -> None:
        x, w = sample("x", dist.Gamma(2.0, 1.0)), sample("w", dist.Gamma(1.0, 1.0))
        sample("y", dist.Poisson(join(x, w)), obs=ONE)

    with pytest.raises(
        NotConjugateError, match=r"'y' \(Poisson\) depends on .*'x' \(Gamma\) and 'w' \(Gamma\).*alone"
    ):
        collapse(program)()


def test_sums_over_a_plate() -> None:
    def program() -> None:
        with plate("rows", 3):
            x: Any = sample("x", dist.Gamma(torch.ones(3), 1.0))
        sample("y", dist.Poisson(x.sum()), obs=ONE)

    with pytest.raises(
        NotConjugateError, match=r"'y' \(Poisson\).*'x' \(Gamma\).*affine.*rate a multiple of x"
    ):
        collapse(program)()


def test_chains_of_rates() -> None:
    """A rate with a rate as its prior is conjugate to that one, but not to what is observed of it."""

    def program() -> None:
        x: Any = sample("x", dist.Gamma(2.0, 1.0))
        w: Any = sample("w", dist.Gamma(2.0, x))
        sample("y", dist.Poisson(w), obs=ONE)

    with pytest.raises(NotConjugateError, match=r"'w' \(Gamma\).*'x' \(Gamma\)"):
        collapse(program)()


@pytest.mark.parametrize("family", [dist.HalfCauchy(1.0), dist.LogNormal(0.0, 1.0)])
def test_priors_without_a_conjugate_family(family: Any) -> None:
    """By default they are left alone; marked, they are an error, or are left alone and told of."""

    def program() -> None:
        x: Any = sample("x", family, infer={"collapse": True})
        sample("y", dist.Normal(0.0, x), obs=ONE)

    with pytest.raises(
        ModelError, match=rf"Site 'x' is marked .*{type(family).__name__}.*Families that are: Beta"
    ):
        collapse(program)()
    lenient = collapse(program, strict=False)
    lenient()
    assert f"It is {type(family).__name__}" in lenient.msngr.explain()


def test_masked_priors() -> None:
    def program() -> None:
        with poutine.scale(scale=2.0):
            x: Any = sample("x", dist.Gamma(2.0, 1.0))
        sample("y", dist.Poisson(x), obs=ONE)

    with pytest.raises(ModelError, match=r"Site 'x' is delayed, and masked or scaled"):
        infer.log_evidence(collapse(program))()


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (dist.Poisson, torch.tensor(1.5)),
        (dist.Poisson, torch.tensor(-1.0)),
        (dist.Poisson, torch.tensor(torch.inf)),
        (dist.Poisson, torch.tensor([1.0, torch.nan])),
        (dist.Exponential, torch.tensor(-0.1)),
        (lambda x: dist.Gamma(2.0, x), torch.tensor(torch.nan)),
    ],
)
def test_data_outside_of_the_support(make: Make, value: torch.Tensor) -> None:
    def program() -> None:
        x = sample("x", dist.Gamma(2.0, 1.0))
        with plate("rows", value.numel()):
            sample("y", make(x), obs=value.expand(value.numel()))

    with pytest.raises(ModelError, match="Site 'y' observes a value outside of the support"):
        infer.log_evidence(collapse(program))()


@pytest.mark.parametrize("value", [4.0, -1.0, 1.5])
def test_counts_beyond_the_trials(value: float) -> None:
    def program() -> None:
        x = sample("x", dist.Beta(2.0, 1.0))
        with plate("rows", 2):
            trials = torch.tensor([5.0, 3.0])
            sample("y", dist.Binomial(trials, x), obs=torch.tensor([4.0, value]))

    with pytest.raises(ModelError, match="Site 'y' observes a value outside of the support of Binomial"):
        infer.log_evidence(collapse(program))()
