"""Collapsed sites inside objectives, samplers and potentials, with the handler and by marks: against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor
from torch.distributions import constraints

import sumout.distributions as dist
from sumout import clear_param_store, infer, optim, param, plate, poutine, sample
from sumout.effects.primitives import barrier
from sumout.errors import ModelError
from sumout.infer.collapsing.marked import with_marked_sites_collapsed
from sumout.poutine import collapse

D = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}
MARK = {"collapse": True}
Program = Callable[..., Any]


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=D)


def rows(count: int = 5) -> Tensor:
    return torch.linspace(-1.0, 2.0, count, dtype=D)


def model(data: Tensor) -> None:
    """A mean and its observations, with the two scales as params."""
    tau = param("tau", number(1.5), constraint=constraints.positive)
    sigma = param("sigma", number(0.8), constraint=constraints.positive)
    loc = sample("loc", dist.Normal(number(0.0), tau), infer=MARK)
    with plate("rows", len(data)):
        sample("y", dist.Normal(loc, sigma), obs=data)


def evidence(data: Tensor, tau: Tensor, sigma: Tensor) -> Tensor:
    count = len(data)
    covariance = tau**2 * torch.ones(count, count, dtype=D) + sigma**2 * torch.eye(count, dtype=D)
    found: Tensor = dist.MultivariateNormal(torch.zeros(count, dtype=D), covariance).log_prob(data)
    return found


def no_guide(*args: Any) -> None:
    return


ELBOS = [infer.Trace_ELBO, infer.TraceEnum_ELBO, infer.TraceMeanField_ELBO]


@pytest.mark.parametrize("elbo", ELBOS)
@pytest.mark.parametrize("program", [model, collapse(model)], ids=["marked", "handled"])
def test_bounds_are_the_evidence_with_its_gradient(elbo: Any, program: Program) -> None:
    clear_param_store()
    objective = elbo(strict_enumeration_warning=False)
    loss = objective.differentiable_loss(program, no_guide, rows())
    names = ("tau", "sigma")
    unconstrained = [param(name).unconstrained() for name in names]
    found = torch.autograd.grad(loss, unconstrained)
    leaves = [number(0.0).add(math.log(value)).requires_grad_() for value in (1.5, 0.8)]
    exact = -evidence(rows(), leaves[0].exp(), leaves[1].exp())
    torch.testing.assert_close(loss, exact, **EXACT)
    for one, other in zip(found, torch.autograd.grad(exact, leaves), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def local(data: Tensor) -> None:
    """A collapsed site, a discrete one and a continuous one, in plates."""
    rate = sample("rate", dist.Gamma(number(2.0), 1.0))
    with plate("groups", 2, dim=-2):
        z = sample("z", dist.Bernoulli(number(0.3)), infer={"enumerate": "parallel"})
        x = sample("x", dist.Normal(torch.where(z == 1, number(2.0), number(-1.0)), 1.0), infer=MARK)
        with plate("rows", 3, dim=-1):
            sample("y", dist.Normal(x, rate.rsqrt()), obs=data)


def local_evidence(data: Tensor, rate: Tensor) -> Tensor:
    total = dist.Gamma(number(2.0), 1.0).log_prob(rate)
    covariance = torch.ones(3, 3, dtype=D) + torch.eye(3, dtype=D) / rate
    parts = [
        weight.log() + dist.MultivariateNormal(torch.full((3,), loc, dtype=D), covariance).log_prob(data)
        for weight, loc in ((number(0.7), -1.0), (number(0.3), 2.0))
    ]
    return total + torch.stack(parts).logsumexp(0).sum()


def groups() -> Tensor:
    return torch.tensor([[0.5, -0.7, 0.1], [2.0, 1.5, 2.5]], dtype=D)


@pytest.mark.parametrize("particles", [None, False, True])
def test_collapsed_discrete_and_sampled_sites(particles: bool | None) -> None:
    """With a guide for the sampled site; nobody counts plates."""

    def guide(data: Tensor) -> None:
        sample("rate", dist.Delta(number(1.7)))

    objective = infer.TraceEnum_ELBO(
        num_particles=1 if particles is None else 3, vectorize_particles=bool(particles)
    )
    loss = objective.differentiable_loss(local, guide, groups())
    torch.testing.assert_close(loss, -local_evidence(groups(), number(1.7)), **EXACT)


def test_svi_finds_the_scales_of_greatest_evidence() -> None:
    clear_param_store()
    data = torch.tensor([3.0, 4.0, 3.5, 5.0, 4.2], dtype=D)
    svi = infer.SVI(model, no_guide, optim.Adam({"lr": 0.1}), loss=infer.Trace_ELBO())
    for _ in range(150):
        svi.step(data)
    # Whatever the mean: the unbiased variance of the rows, and the square of their mean less its error.
    mean, variance = data.mean(), data.var()
    torch.testing.assert_close(param("sigma").detach() ** 2, variance, rtol=2e-3, atol=0.0)
    torch.testing.assert_close(param("tau").detach() ** 2, mean**2 - variance / 5, rtol=2e-3, atol=0.0)
    clear_param_store()


@pytest.mark.parametrize("elbo", ELBOS)
@pytest.mark.parametrize("program", [model, collapse(model)], ids=["marked", "handled"])
def test_a_guide_has_no_collapsed_sites(elbo: Any, program: Program) -> None:
    def guide(data: Tensor) -> None:
        sample("loc", dist.Normal(number(0.0), 1.0))

    with pytest.raises(
        ModelError, match=r"Site 'loc' is integrated out, and a handler gives it a value.*guide"
    ):
        elbo(strict_enumeration_warning=False).loss(program, guide, rows())


def test_a_barrier_inside_training() -> None:
    """The site drawn there is one of the objective's random numbers: the bound is below the evidence, in the mean."""

    def program() -> None:
        x: Any = sample("x", dist.Normal(number(0.0), 1.0))
        sample("y", dist.Normal(x, 1.0), obs=number(1.0))
        value = barrier(x)
        sample("count", dist.Poisson((0.3 * value).exp()), obs=number(2.0))

    torch.manual_seed(0)
    objective = infer.Trace_ELBO(num_particles=150)
    found = -objective.loss(collapse(program), no_guide)
    grid = torch.linspace(-8.0, 8.0, 4001, dtype=D)
    posterior = dist.Normal(number(0.5), math.sqrt(0.5)).log_prob(grid)
    counts = dist.Poisson((0.3 * grid).exp()).log_prob(number(2.0))
    exact = dist.Normal(number(0.0), math.sqrt(2.0)).log_prob(number(1.0))
    mean = torch.trapezoid(posterior.exp() * counts, grid)
    spread = (torch.trapezoid(posterior.exp() * counts**2, grid) - mean**2).sqrt()
    assert abs(found - float(exact + mean)) < 4 * float(spread) / math.sqrt(150)


def test_importance_weights_have_the_site_integrated_out() -> None:
    clear_param_store()
    torch.manual_seed(0)
    drawn = infer.Importance(local, num_samples=4000).run(groups())
    assert set(drawn.samples) == {"rate"}
    grid = torch.linspace(1e-3, 30.0, 6001, dtype=D)
    exact = torch.trapezoid(
        torch.stack([local_evidence(groups(), rate) for rate in grid[::10]]).exp(), grid[::10]
    )
    assert abs(float(drawn.log_evidence - exact.log())) < 0.1


def test_potentials_have_the_site_integrated_out() -> None:
    u = number(0.4).requires_grad_()
    exact = -(local_evidence(groups(), u.exp()) + u)
    for program in (local, collapse(local, marked=True)):
        potential = infer.potential_fn(program, groups())
        assert set(potential.initial_params) == {"rate"}
        found = potential({"rate": u})
        torch.testing.assert_close(found, exact, **EXACT)
        one, other = (torch.autograd.grad(each, u, retain_graph=True)[0] for each in (found, exact))
        torch.testing.assert_close(one, other, **EXACT)


def test_nuts_samples_what_is_left() -> None:
    """Posterior mean of the rate by quadrature; then the collapsed and the discrete sites, given the samples."""
    torch.manual_seed(0)
    pyro.set_rng_seed(0)
    potential = infer.potential_fn(local, groups())
    kernel = NUTS(potential_fn=potential, transforms=potential.transforms, step_size=0.5)
    sampler = MCMC(
        kernel,
        num_samples=100,
        warmup_steps=50,
        initial_params=potential.initial_params,
        disable_progbar=True,
    )
    sampler.run()
    samples = {name: each.detach() for name, each in sampler.get_samples().items()}
    grid = torch.linspace(1e-3, 30.0, 601, dtype=D)
    density = torch.stack([local_evidence(groups(), rate) for rate in grid]).exp()
    mean = torch.trapezoid(density * grid, grid) / torch.trapezoid(density, grid)
    spread = (torch.trapezoid(density * grid**2, grid) / torch.trapezoid(density, grid) - mean**2).sqrt()
    assert abs(float(samples["rate"].mean() - mean)) < 5 * float(spread) / math.sqrt(30)
    found = infer.Predictive(local, samples, infer_discrete=True, parallel=True)(groups())
    assert found["x"].shape == found["z"].shape == (100, 2, 1)
    assert float(found["z"][:, 1].mean()) > 0.9 > 0.5 > float(found["z"][:, 0].mean())
    assert abs(float(found["x"][:, 1].mean() - 2.0)) < 0.3


def test_queries_collapse_marked_sites() -> None:
    clear_param_store()
    wanted = infer.marginals(collapse(model))(rows())
    found = infer.marginals(model)(rows())
    torch.testing.assert_close(found.log_evidence, wanted.log_evidence, **EXACT)
    torch.testing.assert_close(found["loc"].mean, wanted["loc"].mean, **EXACT)
    assert infer.posterior_samples(model, 3)(rows())["loc"].shape == (3,)
    assert infer.Predictive(model, num_samples=3)(rows())["loc"].shape == (3,)


def test_a_mark_on_a_family_without_conjugates_is_an_error() -> None:
    def program() -> None:
        x = sample("x", dist.StudentT(number(3.0), 0.0, 1.0), infer=MARK)
        sample("y", dist.Normal(x, 1.0), obs=number(0.0))

    with pytest.raises(ModelError, match=r"Site 'x' is marked .*StudentT, which is conjugate to nothing"):
        infer.log_evidence(program)()


def test_without_marks_a_program_is_left_alone() -> None:
    def program() -> Tensor:
        x: Tensor = sample("x", dist.Normal(number(0.0), 1.0))
        assert type(x) is Tensor
        sample("y", dist.Normal(x, 1.0), obs=number(0.0))
        return x

    torch.manual_seed(0)
    one = poutine.trace(program).get_trace().nodes
    torch.manual_seed(0)
    other = poutine.trace(with_marked_sites_collapsed(program)).get_trace().nodes
    assert list(one) == list(other)
    torch.testing.assert_close(one["x"].value, other["x"].value, rtol=0, atol=0)


def test_config_enumerate_and_marks() -> None:
    def program() -> None:
        z = sample("z", dist.Bernoulli(number(0.3)))
        x = sample("x", dist.Normal(z, number(1.0)), infer=MARK)
        sample("y", dist.Normal(x, number(1.0)), obs=number(0.4))

    exact = torch.stack(
        [
            weight.log() + dist.Normal(loc, math.sqrt(2.0)).log_prob(number(0.4))
            for weight, loc in ((number(0.7), number(0.0)), (number(0.3), number(1.0)))
        ]
    ).logsumexp(0)
    loss = infer.TraceEnum_ELBO().differentiable_loss(infer.config_enumerate(program), no_guide)
    torch.testing.assert_close(loss, -exact, **EXACT)
