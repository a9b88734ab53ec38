"""What is observed, masked, scaled or subsampled beside delayed sites."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import ModelError
from sumout.poutine import collapse

D = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def t(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=D)


@pytest.mark.parametrize(
    ("prior", "likelihood", "wrong"),
    [
        (dist.Gamma(t(2.0), 1.0), lambda x: dist.Poisson(x), -1.0),
        (dist.Gamma(t(2.0), 1.0), lambda x: dist.Poisson(x), 0.5),
        (dist.Gamma(t(2.0), 1.0), lambda x: dist.Pareto(t(2.0), x), 1.0),
        (dist.Beta(t(2.0), 1.0), lambda x: dist.Bernoulli(x), 2.0),
        (dist.Beta(t(2.0), 1.0), lambda x: dist.Binomial(3, x), 5.0),
        (dist.Normal(t(2.0), 1.0), lambda x: dist.LogNormal(x, 1.0), -1.0),
        (dist.Normal(t(2.0), 1.0), lambda x: dist.Normal(x, 1.0), math.nan),
        (dist.Dirichlet(t([2.0, 1.0])), lambda x: dist.Categorical(x), 7.0),
    ],
)
def test_values_outside_of_the_support_are_errors(prior: Any, likelihood: Any, wrong: float) -> None:
    def program(masked: bool = False) -> None:
        x: Any = sample("x", prior)
        with poutine.mask(mask=torch.tensor(not masked)):
            sample("y", likelihood(x), obs=t(wrong))

    with pytest.raises(ModelError, match=r"Site 'y' observes a value outside of the support"):
        collapse(program)()
    torch.testing.assert_close(infer.log_evidence(collapse(program))(masked=True), t(0.0))


def test_logarithms_of_missing_data() -> None:
    y = t([1.5, math.nan, 0.3])
    there = torch.tensor([True, False, True])

    def program() -> None:
        x: Any = sample("x", dist.Normal(t(0.0), 1.0))
        with plate("rows", 3), poutine.mask(mask=there):
            sample("y", dist.LogNormal(x, 0.5), obs=y)

    covariance = torch.ones(2, 2, dtype=D) + 0.25 * torch.eye(2, dtype=D)
    logs = y[there].log()
    exact = dist.MultivariateNormal(torch.zeros(2, dtype=D), covariance).log_prob(logs) - logs.sum()
    torch.testing.assert_close(infer.log_evidence(collapse(program))(), exact, **EXACT)


@pytest.mark.parametrize("what", ["mask", "scale", "mask of the distribution"])
def test_masks_and_scales_that_are_delayed_are_errors(what: str) -> None:
    def program() -> None:
        x: Any = sample("x", dist.Normal(t(0.0), 1.0))
        fn = dist.Normal(x, 1.0)
        with (
            poutine.mask(mask=x > 0 if what == "mask" else True),
            poutine.scale(scale=x.exp() if what == "scale" else 1.0),
        ):
            sample("y", fn.mask(x > 0) if what.startswith("mask of") else fn, obs=t(1.0))

    with pytest.raises(ModelError, match=r"delayed"):
        collapse(program)()


def test_tensor_scales_of_rows_that_are_a_subsample() -> None:
    y, weight = t([1.0, 3.0]), t([0.5, 2.0])

    def program(gaussian: bool) -> None:
        x: Any = sample("x", dist.Normal(t(0.0), 1.0) if gaussian else dist.Gamma(t(2.0), 1.0))
        with plate("rows", 6, subsample=torch.arange(2)), poutine.scale(scale=weight):
            sample("y", dist.Normal(x, 1.0) if gaussian else dist.Poisson(x), obs=y)

    power = 3 * weight
    n, total = power.sum(), (power * y).sum()
    exact = torch.lgamma(2 + total) - (2 + total) * (1 + n).log() - (power * torch.lgamma(y + 1)).sum()
    torch.testing.assert_close(infer.log_evidence(collapse(program))(gaussian=False), exact, **EXACT)
    square = (power * y**2).sum() - total**2 / (1 + n)
    exact = -0.5 * (n * math.log(2 * math.pi) + (1 + n).log() + square)
    torch.testing.assert_close(infer.log_evidence(collapse(program))(gaussian=True), exact, **EXACT)


@pytest.mark.parametrize("gaussian", [False, True])
def test_a_subsample_that_is_looped_over_is_the_vectorized_one(gaussian: bool) -> None:
    def pair(of: str, shape: list[int]) -> None:
        prior = dist.Normal(t(0.0), 1.0) if gaussian else dist.Gamma(t(2.0), 1.0)
        x: Any = sample(f"x{of}", prior.expand(shape))
        sample(f"y{of}", dist.Normal(x, 1.0) if gaussian else dist.Poisson(x), obs=torch.ones(shape, dtype=D))

    def looped() -> None:
        for turn in plate("rows", 6, subsample=torch.arange(2)):
            pair(str(turn), [])

    def vectorized() -> None:
        with plate("rows", 6, subsample=torch.arange(2)):
            pair("", [2])

    torch.testing.assert_close(
        infer.log_evidence(collapse(looped))(), infer.log_evidence(collapse(vectorized))(), **EXACT
    )


@pytest.mark.parametrize("gaussian", [False, True])
def test_elements_of_a_subsample_that_are_used_outside_of_it_are_errors(gaussian: bool) -> None:
    def program() -> None:
        with plate("groups", 6, subsample=torch.arange(2)):
            x: Any = sample(
                "x", (dist.Normal(t(0.0), 1.0) if gaussian else dist.Gamma(t(2.0), 1.0)).expand([2])
            )
        sample("y", dist.Normal(x[0], 1.0) if gaussian else dist.Poisson(x[0]), obs=t(1.0))

    with pytest.raises(ModelError, match=r"Site 'y' is outside of plate 'groups', which is a subsample"):
        collapse(program)()


def test_turns_of_a_subsampled_loop_that_are_tied_together_are_errors() -> None:
    def program() -> None:
        x: Any = t(0.0)
        for turn in plate("rows", 6, subsample=torch.arange(2)):
            x = sample(f"x{turn}", dist.Normal(x, 1.0))
            sample(f"y{turn}", dist.Normal(x, 1.0), obs=t(1.0))

    with pytest.raises(ModelError, match=r"Plate 'rows' is a subsample that the program loops over"):
        collapse(program)()


def test_a_delayed_value_that_is_observed() -> None:
    """Two normal variables that are to be equal, up to noise."""

    def program() -> None:
        x: Any = sample("x", dist.Normal(t(0.0), 1.0))
        z: Any = sample("z", dist.Normal(t(0.5), 1.0))
        sample("y", dist.Normal(z, 1.0), obs=x)

    exact = dist.Normal(t(0.5), math.sqrt(3.0)).log_prob(t(0.0))
    torch.testing.assert_close(infer.log_evidence(collapse(program))(), exact, **EXACT)


@pytest.mark.parametrize("where", ["factor", "mean", "bound of a context"])
def test_values_after_their_context_are_errors(where: str) -> None:
    def program() -> None:
        with collapse():
            x: Any = sample("x", dist.Normal(t(0.0), 1.0))
        if where == "mean":
            sample("y", dist.Normal(x, 1.0), obs=t(1.0))
        elif where == "factor":
            sample("y", dist.Normal(0.0, 1.0), obs=x)
        else:
            with collapse():
                sample("y", dist.Normal(x, 1.0), obs=t(1.0))

    with pytest.raises(ModelError, match=r"delayed"):
        infer.log_evidence(program)()


def test_coefficients_that_are_zero_or_one_by_chance_keep_their_gradients() -> None:
    """Second derivatives, too: the evidence as a function of a coefficient is that of the closed form."""
    y = t([0.4, -1.0, 2.0])
    weight = torch.tensor(0.0, dtype=D, requires_grad=True)

    def program() -> None:
        with plate("rows", 3):
            x: Any = sample("x", dist.Normal(torch.zeros(3, dtype=D), 1.0))
            sample("y", dist.Normal(x + weight * x.roll(1), 0.5), obs=y)

    design = torch.eye(3, dtype=D) + weight * torch.eye(3, dtype=D).roll(1, 0)
    covariance = design @ design.T + 0.25 * torch.eye(3, dtype=D)
    exact = dist.MultivariateNormal(torch.zeros(3, dtype=D), covariance).log_prob(y)
    found = infer.log_evidence(collapse(program))()
    (got,) = torch.autograd.grad(found, weight, create_graph=True)
    (wanted,) = torch.autograd.grad(exact, weight, create_graph=True)
    torch.testing.assert_close(got, wanted, **EXACT)
    torch.testing.assert_close(*[torch.autograd.grad(each, weight)[0] for each in (got, wanted)], **EXACT)


@pytest.mark.parametrize("how", [lambda p, w: w * p, lambda p, w: p + (w - 1), lambda p, w: p**w])
def test_a_learned_factor_of_a_probability_is_refused_where_it_happens_to_be_one(how: Any) -> None:
    weight = torch.tensor(1.0, dtype=D, requires_grad=True)

    def program() -> None:
        p: Any = sample("p", dist.Beta(t(2.0), 1.0))
        sample("y", dist.Bernoulli(how(p, weight)), obs=t(1.0))

    with pytest.raises(ModelError, match=r"Site 'y' \(Bernoulli\) depends on the delayed site 'p'"):
        collapse(program)()
