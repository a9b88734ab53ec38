"""Posteriors, samples, modes and predictions of collapsed sites: closed forms, brute force and quadrature."""

from __future__ import annotations

import itertools
import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.effects.primitives import barrier, markov
from sumout.errors import EnumerationError, EvidenceError, ModelError
from sumout.poutine import collapse

D = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=D)


def counts() -> Tensor:
    return torch.tensor([3.0, 0.0, 5.0], dtype=D)


def pumps() -> None:
    with plate("pumps", 3):
        rate = sample("rate", dist.Gamma(number(0.8), 0.7))
        sample("y", dist.Poisson(rate * torch.tensor([1.0, 2.0, 3.0], dtype=D)), obs=counts())


def test_each_family_by_name_and_by_default() -> None:
    def program() -> None:
        bias = sample("bias", dist.Beta(number(2.0), 3.0))
        weights = sample("weights", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0], dtype=D)))
        spread = sample("spread", dist.InverseGamma(number(3.0), 2.0))
        with plate("rows", 3):
            sample("flip", dist.Bernoulli(bias), obs=torch.tensor([1.0, 1.0, 0.0], dtype=D))
            sample("word", dist.Categorical(weights), obs=torch.tensor([2, 2, 0]))
            sample("x", dist.Normal(0.0, spread.sqrt()), obs=torch.tensor([1.0, 2.0, 0.5], dtype=D))

    found = infer.marginals(collapse(program))()
    assert list(found) == ["bias", "weights", "spread"]
    torch.testing.assert_close(found["bias"].concentration1, number(4.0), **EXACT)
    torch.testing.assert_close(found["bias"].concentration0, number(4.0), **EXACT)
    torch.testing.assert_close(
        found["weights"].concentration, torch.tensor([2.0, 2.0, 5.0], dtype=D), **EXACT
    )
    torch.testing.assert_close(found["spread"].concentration, number(4.5), **EXACT)
    torch.testing.assert_close(found["spread"].rate, number(2.0 + 5.25 / 2), **EXACT)
    assert list(infer.marginals(collapse(program), sites=["weights"])()) == ["weights"]
    text = str(found)
    assert "bias     Beta  mean 0.5000  sd 0.1667" in text
    assert "InverseGamma  mean 1.3214" in text


def test_elements_of_plates_and_events() -> None:
    found = infer.marginals(collapse(pumps), "rate")()
    torch.testing.assert_close(found["rate"].concentration, 0.8 + counts(), **EXACT)
    assert "rate  2        Gamma  mean 1.5676" in str(found)

    def events() -> None:
        rate = sample("rate", dist.Gamma(torch.ones(2, dtype=D), 1.0).to_event(1))
        sample("y", dist.Poisson(rate).to_event(1), obs=torch.tensor([1.0, 3.0], dtype=D))

    rate = infer.marginals(collapse(events))()["rate"]
    assert (rate.batch_shape, rate.event_shape) == ((), (2,))
    torch.testing.assert_close(rate.mean, torch.tensor([1.0, 2.0], dtype=D), **EXACT)


def test_gaussian_sites_by_linear_algebra() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, 2, generator=generator, dtype=D)
    y = torch.randn(6, generator=generator, dtype=D)

    def program() -> None:
        w: Any = sample("w", dist.MultivariateNormal(torch.zeros(2, dtype=D), torch.eye(2, dtype=D)))
        b: Any = sample("b", dist.Normal(number(1.0), 2.0))
        with plate("rows", 6):
            sample("y", dist.Normal(x @ w + b, 0.5), obs=y)

    design = torch.cat([x, torch.ones(6, 1, dtype=D)], 1)
    prior = torch.diag(torch.tensor([1.0, 1.0, 0.25], dtype=D))
    covariance = torch.linalg.inv(prior + 4 * design.T @ design)
    mean = covariance @ (prior @ torch.tensor([0.0, 0.0, 1.0], dtype=D) + 4 * design.T @ y)
    found = infer.marginals(collapse(program))()
    torch.testing.assert_close(found["w"].mean, mean[:2], **EXACT)
    torch.testing.assert_close(found["w"].covariance_matrix, covariance[:2, :2], **EXACT)
    torch.testing.assert_close(found["b"].mean, mean[2], **EXACT)
    torch.testing.assert_close(found["b"].variance, covariance[2, 2], **EXACT)
    best = infer.map_assignment(collapse(program))()
    torch.testing.assert_close(torch.cat([best["w"], best["b"].reshape(1)]), mean, **EXACT)
    peak = dist.MultivariateNormal(mean, covariance).log_prob(mean)
    torch.testing.assert_close(best.log_prob, found.log_evidence + peak, **EXACT)
    torch.testing.assert_close(best.log_evidence, found.log_evidence, **EXACT)


@pytest.mark.parametrize("vectorized", [False, True])
def test_steps_of_chains_by_their_names(vectorized: bool) -> None:
    data = torch.tensor([1.0, 2.0, 1.5, 3.0], dtype=D)

    def program() -> None:
        x: Any = number(0.0)
        for t in markov(range(4), dim=-1, name="time") if vectorized else range(4):
            x = sample(f"x_{t}", dist.Normal(x, 2.0))
            sample(f"y_{t}", dist.Normal(x, 1.0), obs=data[t])

    walk = torch.tril(torch.ones(4, 4, dtype=D))
    prior = 4 * walk @ walk.T
    gain = prior @ torch.linalg.inv(prior + torch.eye(4, dtype=D))
    mean, covariance = gain @ data, prior - gain @ prior
    found = infer.marginals(collapse(program))()
    drawn = infer.posterior_samples(collapse(program), 5)()
    for t in range(4):
        torch.testing.assert_close(found[f"x_{t}"].mean, mean[t], **EXACT)
        torch.testing.assert_close(found[f"x_{t}"].variance, covariance[t, t], **EXACT)
        assert drawn[f"x_{t}"].shape == (5,)
    values = torch.stack([drawn[f"x_{t}"] for t in range(4)], -1)
    wanted = dist.MultivariateNormal(mean, covariance).log_prob(values)
    torch.testing.assert_close(drawn.log_prob, wanted, rtol=1e-8, atol=1e-8)


def mixture(y: Tensor, weights: Tensor, means: Tensor, noise: Tensor) -> None:
    w = sample("w", dist.Categorical(weights))
    mu: Any = sample("mu", dist.Normal(means[w], 1.0))
    sample("v", dist.Normal(mu, 0.7), obs=number(0.4))
    with plate("rows", len(y)):
        z = sample("z", dist.Categorical(weights))
        x: Any = sample("x", dist.Normal(number(0.5), 1.0))
        sample("y", dist.Normal(2 * x, noise[z]), obs=y)


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_mixtures_by_brute_force(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(2, generator=generator, dtype=D) + 0.2
    weights = weights / weights.sum()
    means = torch.randn(2, generator=generator, dtype=D)
    noise = torch.rand(2, generator=generator, dtype=D) + 0.3
    y = torch.randn(3, generator=generator, dtype=D)
    found = infer.marginals(collapse(mixture))(y, weights, means, noise)
    best = infer.map_assignment(collapse(mixture))(y, weights, means, noise)

    log_w = weights.log() + dist.Normal(means, math.sqrt(1 + 0.49)).log_prob(number(0.4))
    post = torch.softmax(log_w, 0)
    variance = 1 / (1 + 1 / number(0.49))
    center = variance * (means + 0.4 / 0.49)
    grid = torch.linspace(-3.0, 3.0, 7, dtype=D)
    density = (post * dist.Normal(center, variance.sqrt()).log_prob(grid.unsqueeze(-1)).exp()).sum(-1)
    torch.testing.assert_close(found["mu"].log_prob(grid), density.log(), **EXACT)

    log_z = weights.log() + dist.Normal(1.0, (4 + noise**2).sqrt()).log_prob(y.unsqueeze(-1))
    post_z = torch.softmax(log_z, -1)
    variances = 1 / (1 + 4 / noise**2)
    centers = variances * (0.5 + 2 * y.unsqueeze(-1) / noise**2)
    parts = dist.Normal(centers, variances.sqrt()).log_prob(grid.reshape(-1, 1, 1))
    torch.testing.assert_close(
        found["x"].log_prob(grid.unsqueeze(-1)), (post_z * parts.exp()).sum(-1).log(), **EXACT
    )

    tops = []
    for w, *zs in itertools.product(range(2), repeat=4):
        total = log_w[w] + dist.Normal(center[w], variance.sqrt()).log_prob(center[w])
        for row, z in enumerate(zs):
            total = total + log_z[row, z]
            total = total + dist.Normal(centers[row, z], variances[z].sqrt()).log_prob(centers[row, z])
        tops.append((float(total), (w, *zs)))
    top, states = max(tops)
    torch.testing.assert_close(best.log_prob, number(top), **EXACT)
    assert (int(best["w"]), *best["z"].tolist()) == states
    torch.testing.assert_close(best["mu"], center[states[0]], **EXACT)
    torch.testing.assert_close(best["x"], centers[torch.arange(3), best["z"]], **EXACT)


def test_samples_of_mixtures() -> None:
    """Frequencies and moments within four standard errors, densities exactly."""
    weights, means = torch.tensor([0.4, 0.6], dtype=D), torch.tensor([-1.0, 1.0], dtype=D)
    noise, y = torch.tensor([0.3, 1.5], dtype=D), torch.tensor([0.2, 3.0], dtype=D)
    arguments = (y, weights, means, noise)
    exact = infer.marginals(collapse(mixture))(*arguments)
    count = 20_000
    drawn = infer.posterior_samples(collapse(mixture), count, generator=torch.Generator().manual_seed(0))(
        *arguments
    )
    again = infer.posterior_samples(collapse(mixture), count, generator=torch.Generator().manual_seed(0))(
        *arguments
    )
    torch.testing.assert_close(drawn["x"], again["x"], rtol=0, atol=0)
    for name in ("mu", "x"):
        error = (exact[name].variance / count).sqrt()
        assert bool(((drawn[name].mean(0) - exact[name].mean).abs() < 4 * error).all())
        assert bool((drawn[name].var(0) / exact[name].variance - 1).abs().max() < 0.06)
    for row in range(2):
        ones = drawn["z"][:, row] == 1
        center = 1 / (1 + 4 / noise[1] ** 2) * (0.5 + 2 * y[row] / noise[1] ** 2)
        spread = (1 / (1 + 4 / noise[1] ** 2)).sqrt()
        if ones.sum() > 1000:
            assert float((drawn["x"][ones, row].mean() - center).abs() / spread * ones.sum().sqrt()) < 4
    joint = weights[drawn["w"]].log() + dist.Normal(means[drawn["w"]], 1.0).log_prob(drawn["mu"])
    joint = joint + dist.Normal(drawn["mu"], 0.7).log_prob(number(0.4))
    rows = weights[drawn["z"]].log() + dist.Normal(0.5, 1.0).log_prob(drawn["x"])
    rows = rows + dist.Normal(2 * drawn["x"], noise[drawn["z"]]).log_prob(y)
    torch.testing.assert_close(drawn.log_joint, joint + rows.sum(1), rtol=1e-8, atol=1e-8)


def regression() -> None:
    noise = sample("noise", dist.Gamma(number(2.0), 1.0))
    loc: Any = sample("loc", dist.Normal(number(0.3), 2 * noise.rsqrt()))
    with plate("rows", 4):
        sample("y", dist.Normal(loc, noise.rsqrt()), obs=torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=D))


def test_normal_gamma_by_its_textbook_form() -> None:
    """Bernardo and Smith (1994), appendix A.2: normal data, both parameters unknown."""
    y = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=D)
    prior = 0.25
    mean = (prior * 0.3 + y.sum()) / (prior + 4)
    shape = number(2.0 + 2.0)
    rate = 1 + 0.5 * ((y - y.mean()) ** 2).sum() + 0.5 * prior * 4 * (y.mean() - 0.3) ** 2 / (prior + 4)
    found = infer.marginals(collapse(regression))()
    torch.testing.assert_close(found["noise"].concentration, shape, **EXACT)
    torch.testing.assert_close(found["noise"].rate, rate, **EXACT)
    loc = found["loc"]
    assert isinstance(loc, dist.StudentT)
    torch.testing.assert_close(loc.df, 2 * shape, **EXACT)
    torch.testing.assert_close(loc.loc, mean, **EXACT)
    torch.testing.assert_close(loc.scale, (rate / (shape * (prior + 4))).sqrt(), **EXACT)
    drawn = infer.posterior_samples(collapse(regression), 50)()
    joint = dist.Gamma(number(2.0), 1.0).log_prob(drawn["noise"])
    joint = joint + dist.Normal(0.3, 2 * drawn["noise"].rsqrt()).log_prob(drawn["loc"])
    joint = joint + dist.Normal(drawn["loc"], drawn["noise"].rsqrt()).log_prob(y.unsqueeze(-1)).sum(0)
    torch.testing.assert_close(drawn.log_joint, joint, rtol=1e-8, atol=1e-8)


def test_modes_of_conjugate_families() -> None:
    def program() -> None:
        bias = sample("bias", dist.Beta(number(2.0), 3.0))
        weights = sample("weights", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0], dtype=D)))
        spread = sample("spread", dist.InverseGamma(number(3.0), 2.0))
        with plate("rows", 3):
            sample("flip", dist.Bernoulli(bias), obs=torch.tensor([1.0, 1.0, 0.0], dtype=D))
            sample("word", dist.Categorical(weights), obs=torch.tensor([2, 2, 1]))
            sample("x", dist.Normal(0.0, spread.sqrt()), obs=torch.tensor([1.0, 2.0, 0.5], dtype=D))
            rate = sample("rate", dist.Gamma(number(1.0), 0.7))
            sample("y", dist.Poisson(rate), obs=counts())

    best = infer.map_assignment(collapse(program))()
    torch.testing.assert_close(best["bias"], number(0.5), **EXACT)
    torch.testing.assert_close(best["weights"], torch.tensor([0.0, 1 / 3, 2 / 3], dtype=D) * 6 / 6, **EXACT)
    torch.testing.assert_close(best["spread"], number((2 + 5.25 / 2) / 5.5), **EXACT)
    torch.testing.assert_close(best["rate"], counts() / 1.7, **EXACT)
    values = {name: best[name] for name in ("bias", "spread")}
    conditioned = poutine.trace(
        poutine.condition(program, data={**values, "rate": best["rate"].clamp(min=1e-300)})
    )
    sites = conditioned.get_trace().nodes
    total = sum(sites[name]["log_prob_sum"] for name in ("bias", "spread", "flip", "x", "rate", "y"))
    simplex = dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0], dtype=D))
    total = total + simplex.log_prob(torch.tensor([1e-300, 1 / 3, 2 / 3], dtype=D))
    total = total + (2 * number(2 / 3).log() + number(1 / 3).log())
    torch.testing.assert_close(best.log_prob, total, rtol=1e-8, atol=1e-8)


def test_what_has_no_mode_is_refused() -> None:
    with pytest.raises(ModelError, match=r"Site 'rate' has no most probable value.*shape below 1"):
        infer.map_assignment(collapse(pumps))()


@pytest.mark.parametrize("inverse", [False, True])
def test_modes_with_an_unknown_scale(inverse: bool) -> None:
    """The gradient of the joint density vanishes there, and the density is that of the program."""
    y = torch.tensor([[1.0, 2.0, 0.5, 3.0], [0.0, 4.0, 2.0, 2.5]], dtype=D)

    def program() -> None:
        z: Any = sample("z", dist.Categorical(torch.tensor([0.3, 0.7], dtype=D)))
        with plate("groups", 2, dim=-2):
            prior = dist.InverseGamma(number(2.0), 1.0) if inverse else dist.Gamma(number(2.0), 1.0)
            noise: Any = sample("noise", prior)
            width = noise.sqrt() if inverse else noise.rsqrt()
            loc: Any = sample("loc", dist.Normal(torch.tensor([0.3, 2.0], dtype=D)[z], 2 * width))
            with plate("rows", 4, dim=-1):
                sample("y", dist.Normal(loc, width), obs=y)

    best = infer.map_assignment(collapse(program))()
    leaves = {name: best[name].clone().requires_grad_() for name in ("noise", "loc")}

    def log_joint(z: Tensor) -> Tensor:
        sites = poutine.trace(poutine.condition(program, data={**leaves, "z": z})).get_trace().nodes
        names = ("z", "noise", "loc", "y")
        return torch.stack([sites[name]["log_prob_sum"] for name in names]).sum()

    joint = log_joint(best["z"])
    torch.testing.assert_close(best.log_prob, joint.detach(), **EXACT)
    for gradient in torch.autograd.grad(joint, list(leaves.values())):
        assert float(gradient.abs().max()) < 1e-8
    assert float(log_joint(1 - best["z"]).detach()) < float(joint.detach())


def predicted(y: Tensor) -> Any:
    rate: Any = sample("rate", dist.Gamma(number(2.0), 1.5))
    bias: Any = sample("bias", dist.Beta(number(2.0), 3.0))
    weights: Any = sample("weights", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0], dtype=D)))
    loc: Any = sample("loc", dist.Normal(number(0.0), 1.0))
    with plate("rows", len(y)):
        sample("y", dist.Poisson(rate), obs=y)
        sample("u", dist.Normal(loc, 0.5), obs=y / 3)
    with plate("more", 2):
        sample("count", dist.Poisson(rate * torch.tensor([1.0, 3.0], dtype=D)))
        sample("flip", dist.Bernoulli(bias))
    sample("hits", dist.Binomial(torch.tensor(5.0, dtype=D), 1 - bias))
    sample("word", dist.Categorical(weights))
    sample("words", dist.Multinomial(4, weights))
    sample("wait", dist.Exponential(rate))
    sample("next", dist.Normal(2 * loc, 0.5))
    sample("odd", dist.Geometric(bias))
    sample("far", dist.Normal(loc.exp(), 1.0))


def test_predictions_integrate_to_one_and_have_closed_forms() -> None:
    y = torch.tensor([1.0, 4.0], dtype=D)
    found = infer.marginals(collapse(predicted))(y)

    def plain() -> None:
        rate = sample("rate", dist.Gamma(number(2.0), 1.5))
        loc = sample("loc", dist.Normal(number(0.0), 1.0))
        with plate("rows", len(y)):
            sample("y", dist.Poisson(rate), obs=y)
            sample("u", dist.Normal(loc, 0.5), obs=y / 3)

    torch.testing.assert_close(found.log_evidence, infer.log_evidence(collapse(plain))(), **EXACT)
    assert "far" not in list(found)
    rate, bias = dist.Gamma(number(7.0), 3.5), dist.Beta(number(2.0), 3.0)
    grid = torch.linspace(1e-6, 40.0, 200_001, dtype=D)
    for element, exposure in enumerate((1.0, 3.0)):
        for k in range(4):
            exact = torch.trapezoid(
                (rate.log_prob(grid) + dist.Poisson(grid * exposure).log_prob(number(k))).exp(), grid
            )
            each = found["count"].log_prob(number(k)).exp()[element]
            torch.testing.assert_close(each, exact, rtol=1e-7, atol=1e-8)
    exact = torch.trapezoid((rate.log_prob(grid) + dist.Exponential(grid).log_prob(number(0.3))).exp(), grid)
    torch.testing.assert_close(found["wait"].log_prob(number(0.3)).exp(), exact, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(found["flip"].probs, torch.full((2,), 0.4, dtype=D), **EXACT)
    unit = torch.linspace(1e-9, 1 - 1e-9, 200_001, dtype=D)
    for k in range(6):
        exact = torch.trapezoid(
            (bias.log_prob(unit) + dist.Binomial(5, 1 - unit).log_prob(number(k))).exp(), unit
        )
        torch.testing.assert_close(found["hits"].log_prob(number(k)).exp(), exact, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(found["word"].probs, torch.tensor([1.0, 2.0, 3.0], dtype=D) / 6, **EXACT)
    assert isinstance(found["words"], dist.DirichletMultinomial)
    torch.testing.assert_close(found["words"].mean, 4 * found["word"].probs, **EXACT)
    loc = found["loc"]
    torch.testing.assert_close(found["next"].mean, 2 * loc.mean, **EXACT)
    torch.testing.assert_close(found["next"].variance, 4 * loc.variance + 0.25, **EXACT)
    exact = torch.trapezoid((bias.log_prob(unit) + dist.Geometric(unit).log_prob(number(3.0))).exp(), unit)
    torch.testing.assert_close(found["odd"].log_prob(number(3.0)).exp(), exact, rtol=1e-7, atol=1e-8)
    with pytest.raises(ModelError, match=r"Site 'far' \(Normal\).*prediction.*Predictive"):
        infer.marginals(collapse(predicted), "far")(y)


def test_predictions_chosen_by_discrete_sites() -> None:
    def program() -> None:
        which: Any = sample("which", dist.Categorical(torch.tensor([0.3, 0.7], dtype=D)))
        rate: Any = sample("rate", dist.Gamma(torch.tensor([1.0, 4.0], dtype=D)[which], 1.0))
        sample("y", dist.Poisson(rate), obs=number(2.0))
        with plate("more", 2):
            sample("new", dist.Poisson(rate * torch.tensor([1.0, 2.0], dtype=D)))

    logs = torch.tensor([0.3, 0.7], dtype=D).log()
    logs = logs + dist.GammaPoisson(torch.tensor([1.0, 4.0], dtype=D), 1.0).log_prob(number(2.0))
    weights = torch.softmax(logs, 0)
    found = infer.marginals(collapse(program))()["new"]
    for element, exposure in enumerate((1.0, 2.0)):
        parts = dist.GammaPoisson(torch.tensor([3.0, 6.0], dtype=D), 2.0 / exposure)
        exact = (weights * parts.log_prob(number(1.0)).exp()).sum()
        torch.testing.assert_close(found.log_prob(number(1.0)).exp()[element], exact, **EXACT)


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_draws_from_the_posterior(parallel: bool) -> None:
    torch.manual_seed(0)
    y = torch.tensor([1.0, 4.0], dtype=D)
    count = 4000 if parallel else 300
    found = infer.Predictive(collapse(predicted), num_samples=count, parallel=parallel)(y)
    exact = infer.marginals(collapse(predicted))(y)
    for name in ("rate", "loc", "bias", "count", "flip", "hits", "next"):
        error = (exact[name].variance / count).sqrt()
        assert bool(((found[name].mean(0) - exact[name].mean).abs() < 4.5 * error).all()), name
    assert found["odd"].shape == found["far"].shape == (count,)
    assert found["words"].shape == (count, 3)
    # Both are drawn together: a prediction moves with what it depends on.
    assert float(torch.corrcoef(torch.stack([found["loc"], found["next"]]))[0, 1]) > 0.6


def test_new_data_for_drawn_sites() -> None:
    """Samples of one program's sites go into runs on other data."""
    drawn = infer.posterior_samples(collapse(predicted), 100)(torch.tensor([1.0, 4.0], dtype=D))
    names = ("rate", "loc", "bias", "weights")
    for program in (predicted, collapse(predicted)):
        found = infer.Predictive(program, {name: drawn[name] for name in names})(torch.zeros(3, dtype=D))
        assert found["count"].shape == (100, 2)


def test_discrete_and_collapsed_sites_together() -> None:
    """A choice whose probabilities are collapsed: of two values, by hand."""

    def program() -> None:
        bias: Any = sample("bias", dist.Beta(number(1.0), 2.0))
        z: Any = sample("z", dist.Bernoulli(bias))
        sample("y", dist.Normal(torch.tensor([0.0, 2.0], dtype=D)[z.long()], 1.0), obs=number(1.5))

    logs = torch.tensor([2 / 3, 1 / 3], dtype=D).log()
    logs = logs + dist.Normal(torch.tensor([0.0, 2.0], dtype=D), 1.0).log_prob(number(1.5))
    found = infer.marginals(collapse(program))()
    torch.testing.assert_close(found.log_evidence, logs.logsumexp(0), **EXACT)
    p = torch.softmax(logs, 0)[1]
    torch.testing.assert_close(found["z"].probs, p, **EXACT)
    torch.testing.assert_close(found["bias"].mean, p * 2 / 4 + (1 - p) * 1 / 4, **EXACT)
    drawn = infer.posterior_samples(collapse(program), 10)()
    wanted = torch.softmax(logs, 0).log()[drawn["z"].long()]
    ones, twos = dist.Beta(number(1.0), 3.0), dist.Beta(number(2.0), 2.0)
    wanted = wanted + torch.where(drawn["z"] == 1, twos.log_prob(drawn["bias"]), ones.log_prob(drawn["bias"]))
    torch.testing.assert_close(drawn.log_prob, wanted, **EXACT)


def test_questions_without_an_answer_are_refused() -> None:
    arguments = (
        torch.zeros(2, dtype=D),
        torch.ones(2, dtype=D),
        torch.zeros(2, dtype=D),
        torch.ones(2, dtype=D),
    )
    program = collapse(mixture)
    with pytest.raises(ModelError, match=r"entropy of all.*'mu' out"):
        infer.entropy(program)(*arguments)
    assert infer.entropy(program, "z")(*arguments).shape == (2,)
    for query in (infer.entropy(program, "x"), infer.expectation(program, "x", lambda x: x)):
        with pytest.raises(EvidenceError, match=r"'x' was integrated out by collapse"):
            query(*arguments)
    with pytest.raises(EvidenceError, match=r"'x' in \('x', 'z'\) was integrated out.*posterior_samples"):
        infer.marginals(program, [("x", "z")])(*arguments)
    for refused in (infer.k_best(program, 2), infer.max_marginals(program)):
        with pytest.raises(ModelError, match=r"collapse integrated site 'mu' out. map_assignment"):
            refused(*arguments)
    with pytest.raises(EvidenceError, match=r"'nothing' is not summed out"):
        infer.marginals(program, "nothing")(*arguments)
    with pytest.raises(ModelError, match=r"Site 'count' .*prediction, and no part"):
        infer.map_assignment(collapse(predicted))(torch.zeros(2, dtype=D))["count"]


def test_marginal_map_has_continuous_sites_integrated_out() -> None:
    weights, means = torch.tensor([0.4, 0.6], dtype=D), torch.tensor([-1.0, 1.0], dtype=D)
    noise, y = torch.tensor([0.3, 1.5], dtype=D), torch.tensor([0.2, 3.0], dtype=D)
    best = infer.marginal_map(collapse(mixture), ["z"])(y, weights, means, noise)
    logs = weights.log() + dist.Normal(1.0, (4 + noise**2).sqrt()).log_prob(y.unsqueeze(-1))
    assert best["z"].tolist() == logs.argmax(-1).tolist()


def test_a_barrier_has_no_exact_answer() -> None:
    def program() -> None:
        x: Any = sample("x", dist.Normal(number(0.0), 1.0))
        value = barrier(x)
        sample("y", dist.Poisson(value.exp()), obs=number(2.0))

    with pytest.raises(EnumerationError, match=r"Site 'x' is drawn at a barrier"):
        infer.log_evidence(collapse(program))()
    found = infer.Predictive(collapse(program), num_samples=3)()
    assert found["x"].shape == (3,)
