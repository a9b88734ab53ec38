"""Pyro's NUTS on potentials of programs: closed-form posteriors, discrete sites summed out, and those sites afterwards.

Errors are stated in standard errors of the chain's means (its effective sample size is Pyro's estimate).
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as pyro_dist
import pytest
import torch
from pyro.infer.mcmc import MCMC, NUTS
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.stats import effective_sample_size

import sumout.distributions as dist
from sumout import plate, sample
from sumout.infer import Potential, Predictive, potential_fn

pytestmark = pytest.mark.filterwarnings("ignore")  # Those of another library.


def f64(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers if len(numbers) > 1 else numbers[0], dtype=torch.float64)


def draws(potential: Potential, count: int = 250, warmup: int = 100) -> dict[str, torch.Tensor]:
    pyro.set_rng_seed(0)
    kernel = NUTS(potential_fn=potential, transforms=potential.transforms)
    mcmc = MCMC(
        kernel,
        num_samples=count,
        warmup_steps=warmup,
        initial_params=potential.initial_params,
        disable_progbar=True,
    )
    mcmc.run()
    return mcmc.get_samples()


def check_mean(values: torch.Tensor, exact: torch.Tensor | float, errors: float = 5.0) -> None:
    size = effective_sample_size(values.unsqueeze(0), chain_dim=0, sample_dim=1)
    standard_error = values.std(0) / size.clamp(min=10).sqrt()
    assert ((values.mean(0) - exact).abs() < errors * standard_error).all()


def test_a_normal_mean() -> None:
    x = f64(1.0, 2.5, 0.3, 1.9)

    def model(x: torch.Tensor) -> None:
        loc = sample("loc", dist.Normal(f64(0.0), 2.0))
        with plate("data", len(x)):
            sample("x", dist.Normal(loc, 1.0), obs=x)

    loc = draws(potential_fn(model, x))["loc"]
    precision = 1 / 4 + 4
    mean, variance = x.sum() / precision, 1 / precision
    check_mean(loc, mean)
    check_mean((loc - mean) ** 2, variance)


def test_a_probability_and_a_rate() -> None:
    def model() -> None:
        p = sample("p", dist.Beta(f64(2.0), 3.0))
        rate = sample("rate", dist.Gamma(f64(3.0), 2.0))
        sample("k", dist.Binomial(10, p), obs=f64(7.0))
        sample("n", dist.Poisson(rate), obs=f64(4.0))

    found = draws(potential_fn(model))
    check_mean(found["p"], 9 / 15)
    check_mean(found["p"] ** 2, 9 / 15 * 10 / 16)
    check_mean(found["rate"], 7 / 3)
    check_mean(found["rate"] ** 2, 7 * 8 / 9)


def test_a_mixture_weight_with_discrete_sites_before_and_after() -> None:
    """One weight with a beta prior; components known. All is known by writing the assignments out."""
    x = f64(-0.4, 0.9, 2.2, 1.0, 3.1)

    def model(x: torch.Tensor) -> None:
        weight = sample("weight", dist.Beta(f64(2.0), 2.0))
        with plate("data", len(x)):
            z = sample("z", dist.Bernoulli(weight))
            sample("x", dist.Normal(2 * z, 1.0), obs=x)

    states = torch.cartesian_prod(*[torch.arange(2.0).double()] * 5)
    ones = states.sum(-1)
    logs = dist.Normal(2 * states, 1.0).log_prob(x).sum(-1)
    logs = (
        logs + torch.lgamma(2 + ones) + torch.lgamma(7 - ones)
    )  # Beta(2 + ones, 2 + 5 - ones), unnormalised
    probs = logs.softmax(0)
    mean = (probs * (2 + ones) / 9).sum()
    found = draws(potential_fn(model, x))
    check_mean(found["weight"], mean)
    after = Predictive(model, found, parallel=True, infer_discrete=True)(x)
    assert after["z"].shape == (250, 5)
    check_mean(after["z"], (probs.unsqueeze(-1) * states).sum(0))
    # Pairs too: they depend on each other through the weight alone.
    check_mean(after["z"][:, 0] * after["z"][:, 1], (probs * states[:, 0] * states[:, 1]).sum())


def test_crossed_plates() -> None:
    """A mean under a grid of binary rows and columns, which Pyro refuses; exact by a sum on a grid of numbers."""
    x = f64(0.2, 1.9, -0.4, 0.8).reshape(2, 2)

    def model(x: torch.Tensor) -> None:
        loc = sample("loc", dist.Normal(f64(0.0), 1.0))
        rows, columns = plate("rows", 2, dim=-2), plate("columns", 2, dim=-1)
        with rows:
            a = sample("a", dist.Bernoulli(f64(0.4)))
        with columns:
            b = sample("b", dist.Bernoulli(f64(0.7)))
        with rows, columns:
            sample("x", dist.Normal(loc + a - b, 0.8), obs=x)

    grid = torch.linspace(-6, 6, 2001).double()
    density = 0
    for bits in torch.cartesian_prod(*[torch.arange(2.0).double()] * 4):
        a, b = bits[:2].reshape(2, 1), bits[2:]
        log = torch.where(a == 1, 0.4, 0.6).log().sum() + torch.where(b == 1, 0.7, 0.3).log().sum()
        at = dist.Normal(grid.reshape(-1, 1, 1) + a - b, 0.8).log_prob(x).sum((-1, -2))
        density = density + (log + at + dist.Normal(0.0, 1.0).log_prob(grid)).exp()
    mean = (grid * density).sum() / density.sum()
    check_mean(draws(potential_fn(model, x))["loc"], mean)


def test_potentials_of_pyro() -> None:
    """The same model in Pyro, with its own enumeration: equal at every point."""

    def tell(ppl, families):
        def model(x: torch.Tensor) -> None:
            weights = ppl.sample("weights", families.Dirichlet(torch.ones(3).double()))
            with ppl.plate("components", 3):
                locs = ppl.sample("locs", families.Normal(f64(0.0), 5.0))
            spread = ppl.sample("spread", families.LogNormal(f64(0.0), 1.0))
            with ppl.plate("data", len(x)):
                z = ppl.sample("z", families.Categorical(weights), infer={"enumerate": "parallel"})
                ppl.sample("x", families.Normal(locs[z], spread), obs=x)

        return model

    import sumout

    x = f64(0.3, 1.8, -2.0, 4.4)
    ours = potential_fn(tell(sumout, dist), x)
    pyro.clear_param_store()
    initial, theirs, _, _ = initialize_model(tell(pyro, pyro_dist), (x,), max_plate_nesting=1)
    assert {name: u.shape for name, u in initial.items()} == {
        name: u.shape for name, u in ours.initial_params.items()
    }
    for number in range(5):
        torch.manual_seed(number)
        params = {name: 2 * torch.randn_like(u) for name, u in initial.items()}
        torch.testing.assert_close(ours(params), theirs(params), rtol=1e-10, atol=1e-10)
    assert math.isfinite(ours(params))
