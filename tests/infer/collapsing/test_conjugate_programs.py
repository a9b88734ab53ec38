"""Every pair of a conjugate prior and a likelihood, against quadrature of the plain joint density.

An integral over the line of an analytic function that falls off fast is a sum over an even grid to all digits
(Trefethen and Weideman, *The exponentially convergent trapezoidal rule*, 2014): positive variables are integrated over
their logarithm, probabilities over their logit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import ModelError
from sumout.infer.collapsing.posterior import posterior

EXACT = {"rtol": 1e-9, "atol": 1e-9}
D = torch.float64
ROWS = 5


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=D)


Maker = Callable[[Any, Tensor], Any]
"""From the parameter and positive numbers, one for each row, to the likelihood."""

PROBABILITY: dict[str, Maker] = {
    "Bernoulli": lambda p, c: dist.Bernoulli(p),
    "Bernoulli of the complement": lambda p, c: dist.Bernoulli(1 - p),
    "Binomial": lambda p, c: dist.Binomial((5 * c).ceil(), p),
    "Geometric": lambda p, c: dist.Geometric(p),
    "NegativeBinomial": lambda p, c: dist.NegativeBinomial(3 * c, p),
    "NegativeBinomial of the complement": lambda p, c: dist.NegativeBinomial(3 * c, 1 - p),
}
RATE: dict[str, Maker] = {
    "Poisson": lambda r, c: dist.Poisson(r * c),
    "Exponential": lambda r, c: dist.Exponential(c * r),
    "Gamma": lambda r, c: dist.Gamma(1 + c, r / 2),
    "InverseGamma": lambda r, c: dist.InverseGamma(1 + c, r * c),
    "Normal": lambda r, c: dist.Normal(c, 2 / r.sqrt()),
    "Normal by a power": lambda r, c: dist.Normal(c, c * r**-0.5),
    "LogNormal": lambda r, c: dist.LogNormal(c, r.rsqrt()),
    "HalfNormal": lambda r, c: dist.HalfNormal((c * r).rsqrt()),
    "Laplace": lambda r, c: dist.Laplace(c, r.reciprocal() * c),
    "Weibull": lambda r, c: dist.Weibull(c * r**-0.5, torch.tensor(2.0, dtype=D)),
    "Pareto": lambda r, c: dist.Pareto(c, r * 2),
}
INVERSE_RATE: dict[str, Maker] = {
    "Normal": lambda v, c: dist.Normal(c, v.sqrt() * 2),
    "Exponential": lambda v, c: dist.Exponential(c / v),
    "Gamma": lambda v, c: dist.Gamma(1 + c, 2 / v),
    "Poisson": lambda v, c: dist.Poisson(c / v),
    "Laplace": lambda v, c: dist.Laplace(c, v),
    "Weibull": lambda v, c: dist.Weibull(v**0.5, torch.tensor(2.0, dtype=D)),
}
PRIORS: dict[str, tuple[Callable[[Tensor, Tensor], Any], dict[str, Maker]]] = {
    "Beta": (dist.Beta, PROBABILITY),
    "Gamma": (dist.Gamma, RATE),
    "InverseGamma": (dist.InverseGamma, INVERSE_RATE),
}
PAIRS = [(prior, likelihood) for prior, (_, rules) in PRIORS.items() for likelihood in rules]


def grid(prior: str) -> tuple[Tensor, Tensor]:
    """Points of the support, and the logarithms of their weights."""
    t = torch.linspace(-36.0, 36.0, 8001, dtype=D)
    step = (t[1] - t[0]).log()
    if prior == "Beta":
        return t.sigmoid(), step + torch.nn.functional.logsigmoid(t) + torch.nn.functional.logsigmoid(-t)
    return t.exp(), step + t


def quadrature(prior: str, log_joint: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The logarithm of the integral, and the mean."""
    x, weights = grid(prior)
    logs = weights + log_joint(x)
    total = logs.logsumexp(0)
    return total, (x * (logs - total).exp()).sum()


@pytest.mark.parametrize(("prior", "likelihood"), PAIRS)
@given(a=st.floats(0.7, 4.0), b=st.floats(0.7, 4.0), seed=st.integers(0, 10_000))
@settings(max_examples=8)
def test_evidence_posterior_and_gradients(prior: str, likelihood: str, a: float, b: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    family, rules = PRIORS[prior]
    make = rules[likelihood]
    c = 0.3 + torch.rand(ROWS, generator=generator, dtype=D)
    mask = torch.rand(ROWS, generator=generator) < 0.7
    power = torch.tensor([1.0, 2.0, 0.5], dtype=D)[torch.randint(3, (ROWS,), generator=generator)]
    hyper = torch.tensor([a, b], dtype=D, requires_grad=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        data = make(torch.tensor(0.6, dtype=D), c).sample()

    def program() -> None:
        x = sample("x", family(hyper[0], hyper[1]))
        with plate("rows", ROWS), poutine.mask(mask=mask), poutine.scale(scale=power):
            sample("y", make(x, c).expand([ROWS]), obs=data.expand(ROWS))

    def log_joint(x: Tensor) -> Tensor:
        rows = make(x.unsqueeze(-1), c).log_prob(data) * power * mask
        return family(hyper[0], hyper[1]).log_prob(x) + rows.sum(-1)

    exact, mean = quadrature(prior, log_joint)
    found = infer.log_evidence(poutine.collapse(program))()
    torch.testing.assert_close(found, exact, **EXACT)
    (wanted,) = torch.autograd.grad(exact, hyper, retain_graph=True)
    (gradient,) = torch.autograd.grad(found, hyper)
    torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-8)
    sites = poutine.trace(poutine.collapse(program)).get_trace().nodes
    of_x = posterior(sites["_collapsed_x"].infer["_integral"], "x")
    assert isinstance(of_x, family)  # type: ignore[arg-type]
    if prior != "InverseGamma":  # whose mean need not exist
        torch.testing.assert_close(of_x.mean, mean, **EXACT)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40)
def test_elements_of_plates_are_gathered_from_anywhere(seed: int) -> None:
    """A model of groups is as many models as there are groups."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(3, (7,), generator=generator)
    exposure = 0.5 + torch.rand(7, generator=generator, dtype=D)
    counts = torch.poisson(3 * torch.ones(7, dtype=D), generator=generator)
    waits = torch.rand(2, 3, generator=generator, dtype=D)
    shape = 1 + torch.rand(3, generator=generator, dtype=D)

    def program() -> None:
        with plate("groups", 3):
            rate = sample("rate", dist.Gamma(shape, 2.0))
            with plate("repeats", 2, dim=-2):
                sample("wait", dist.Exponential(rate), obs=waits)
        with plate("rows", 7):
            sample("count", dist.Poisson(rate[group] * exposure), obs=counts)

    total = torch.zeros((), dtype=D)
    for each in range(3):

        def log_joint(x: Tensor, each: int = each) -> Tensor:
            found = dist.Gamma(shape[each], 2.0).log_prob(x)
            here = group == each
            found = found + dist.Poisson(x.unsqueeze(-1) * exposure[here]).log_prob(counts[here]).sum(-1)
            return found + dist.Exponential(x.unsqueeze(-1)).log_prob(waits[:, each]).sum(-1)

        total = total + quadrature("Gamma", log_joint)[0]
    torch.testing.assert_close(infer.log_evidence(poutine.collapse(program))(), total, **EXACT)


@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["Categorical", "OneHotCategorical", "Multinomial"]))
@settings(max_examples=40)
def test_dirichlet(seed: int, kind: str) -> None:
    """The probability of a sequence of draws is a product of predictive ones (Blackwell and MacQueen 1973)."""
    generator = torch.Generator().manual_seed(seed)
    prior = 0.5 + 2 * torch.rand(2, 3, generator=generator, dtype=D)
    which = torch.randint(2, (6,), generator=generator)
    drawn = torch.randint(3, (6,), generator=generator)
    hot = torch.nn.functional.one_hot(drawn, 3).to(D)

    def program() -> None:
        with plate("topics", 2):
            probs = sample("probs", dist.Dirichlet(prior))
        if kind == "Multinomial":
            for topic in range(2):
                with plate(f"all {topic}", 1):
                    counts = hot[which == topic].sum(0, keepdim=True)
                    total = int(counts.sum())
                    sample(f"y{topic}", dist.Multinomial(total, probs[topic].expand(1, 3)), obs=counts)
            return
        with plate("rows", 6):
            if kind == "Categorical":
                sample("y", dist.Categorical(probs[which]), obs=drawn)
            else:
                sample("y", dist.OneHotCategorical(probs[which]), obs=hot)

    exact = torch.zeros((), dtype=D)
    for topic in range(2):
        state = prior[topic].clone()
        for each in hot[which == topic]:
            exact = exact + ((state * each).sum() / state.sum()).log()
            state = state + each
        if kind == "Multinomial":
            counts = hot[which == topic].sum(0)
            exact = exact + torch.lgamma(counts.sum() + 1) - torch.lgamma(counts + 1).sum()
    torch.testing.assert_close(infer.log_evidence(poutine.collapse(program))(), exact, **EXACT)


@given(seed=st.integers(0, 10_000), inverse=st.booleans())
@settings(max_examples=40)
def test_gaussian_sites_with_one_unknown_scale(seed: int, inverse: bool) -> None:
    """Regression in groups, each with noise of its own, against quadrature over the noise."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 2, generator=generator, dtype=D)
    y = torch.randn(4, 3, generator=generator, dtype=D)
    spread = 0.5 + torch.rand(3, generator=generator, dtype=D)

    def program() -> None:
        with plate("groups", 3):
            noise: Any = sample("noise", (dist.InverseGamma if inverse else dist.Gamma)(2.0, spread))
            unit = noise.sqrt() if inverse else noise.rsqrt()
            slopes: Any = sample("slopes", dist.Normal(0.3, 2 * unit.unsqueeze(-1).expand(3, 2)).to_event(1))
            extra: Any = sample("extra", dist.Exponential(1 / noise if inverse else noise), obs=spread)
            assert extra is spread
            with plate("rows", 4, dim=-2):
                sample("y", dist.Normal((x.unsqueeze(-2) * slopes).sum(-1), unit), obs=y)

    total = torch.zeros((), dtype=D)
    covariance = torch.eye(4, dtype=D) + 4 * x @ x.T
    for each in range(3):

        def log_joint(u: Tensor, each: int = each) -> Tensor:
            mean = x @ torch.full((2,), 0.3, dtype=D)
            normal = dist.MultivariateNormal(mean, covariance / u[:, None, None])
            found = dist.Gamma(2.0, spread[each]).log_prob(u) + dist.Exponential(u).log_prob(spread[each])
            return found + normal.log_prob(y[:, each])

        total = total + quadrature("Gamma", log_joint)[0]
    torch.testing.assert_close(infer.log_evidence(poutine.collapse(program))(), total, **EXACT)


def test_what_is_not_conjugate_says_so() -> None:
    def program(how: Callable[[Any], Any]) -> Callable[[], None]:
        def run() -> None:
            x = sample("x", dist.Gamma(2.0, 1.0))
            sample("y", how(x), obs=torch.tensor(1.0))

        return run

    for how in (
        lambda x: dist.Poisson(x + 1),
        lambda x: dist.Poisson(x.exp()),
        lambda x: dist.Normal(x, 1.0),
        lambda x: dist.Gamma(x, 1.0),
        lambda x: dist.Normal(0.0, x),
        lambda x: dist.Poisson(x * x),
    ):
        with pytest.raises(
            ModelError,
            match=r"Site 'y' \(.*\) depends on the delayed site 'x' \(Gamma\): .*(Known with Gamma|Nearest that)",
        ):
            poutine.collapse(program(how))()


@pytest.mark.parametrize(
    ("prior", "make"),
    [
        (dist.Beta(2.0, number(1.0)), lambda x: dist.Bernoulli(x)),
        (dist.Beta(2.0, number(1.0)), lambda x: dist.Geometric(x)),
        (dist.Gamma(2.0, number(1.0)), lambda x: dist.Poisson(x)),
        (dist.Gamma(2.0, number(1.0)), lambda x: dist.Normal(0.0, x.rsqrt())),
        (dist.Normal(2.0, number(1.0)), lambda x: dist.Normal(x, 0.5)),
    ],
)
def test_missing_entries_are_predictions(prior: Any, make: Callable[[Any], Any]) -> None:
    """With ``obs_mask`` what is observed counts alone, and what is missing has its predictive distribution."""
    data = torch.tensor([1.0, 1.0, 0.0], dtype=D)
    there = torch.tensor([True, False, True])

    def partly() -> None:
        x = sample("x", prior)
        with plate("rows", 3):
            sample("y", make(x), obs=data, obs_mask=there)

    def less() -> None:
        x = sample("x", prior)
        with plate("rows", 2):
            sample("y", make(x), obs=data[there])
        sample("new", make(x))

    found, wanted = infer.marginals(poutine.collapse(partly))(), infer.marginals(poutine.collapse(less))()
    torch.testing.assert_close(found.log_evidence, wanted.log_evidence, **EXACT)
    at = torch.tensor(0.0 if type(make(number(0.5))) is dist.Bernoulli else 1.0, dtype=D)
    density = found["y_unobserved"].log_prob(at)
    torch.testing.assert_close(density, wanted["new"].log_prob(at).expand(3), **EXACT)
