"""What users ask of collapse, and get wrong or refused elsewhere; and collapse among other features of programs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout import deterministic, infer, plate, poutine, sample
from sumout.effects.primitives import markov
from sumout.errors import DuplicateSiteError, EnumerationError, ModelError
from sumout.infer.collapsing.handler import CollapseMessenger
from sumout.poutine import collapse

D = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=D)


def five() -> Tensor:
    return torch.linspace(-1.0, 2.0, 5, dtype=D)


def mean_of(data: Tensor, sigma: Any = 1.0, scale: Any = 1.0, mask: Any = True) -> None:
    loc = sample("loc", dist.Normal(number(0.0), 1.0))
    with plate("rows", len(data)), poutine.scale(scale=scale), poutine.mask(mask=mask):
        sample("y", dist.Normal(loc, sigma), obs=data)


def by_grid(log_density: Any, low: float, high: float, count: int = 400_001) -> Tensor:
    grid = torch.linspace(low, high, count, dtype=D)
    return torch.trapezoid(log_density(grid).exp(), grid).log()


def test_a_plate_of_normal_observations() -> None:
    data = five()

    def joint(loc: Tensor) -> Tensor:
        return dist.Normal(number(0.0), 1.0).log_prob(loc) + dist.Normal(loc.unsqueeze(-1), 1.0).log_prob(
            data
        ).sum(-1)

    found = infer.log_evidence(collapse(mean_of))(data)
    torch.testing.assert_close(found, by_grid(joint, -9.0, 9.0), **EXACT)
    assert round(float(found), 2) == -8.41


def test_the_same_with_wider_noise() -> None:
    data = five()
    covariance = torch.ones(5, 5, dtype=D) + 4 * torch.eye(5, dtype=D)
    exact = dist.MultivariateNormal(torch.zeros(5, dtype=D), covariance).log_prob(data)
    found = infer.log_evidence(collapse(mean_of))(data, 2.0)
    torch.testing.assert_close(found, exact, **EXACT)
    assert round(float(found), 2) == -9.24


def test_marginals_of_objectives_have_a_site_without_a_guide_integrated_out() -> None:
    def model() -> None:
        z: Any = sample("z", dist.Bernoulli(number(0.3)), infer={"enumerate": "parallel"})
        x: Any = sample("x", dist.Normal(2 * z, number(1.0)))
        sample("y", dist.Normal(x, 1.0), obs=number(1.5))

    logs = torch.tensor([0.7, 0.3], dtype=D).log()
    logs = logs + dist.Normal(torch.tensor([0.0, 2.0], dtype=D), math.sqrt(2.0)).log_prob(number(1.5))
    found = infer.TraceEnum_ELBO().compute_marginals(collapse(model), lambda: None)
    torch.testing.assert_close(found["z"].probs, torch.softmax(logs, 0)[1], **EXACT)


def test_the_same_with_scale() -> None:
    data = five()

    def joint(loc: Tensor) -> Tensor:
        rows = dist.Normal(loc.unsqueeze(-1), 1.0).log_prob(data).sum(-1)
        return dist.Normal(number(0.0), 1.0).log_prob(loc) + 2 * rows

    found = infer.log_evidence(collapse(mean_of))(data, scale=2.0)
    torch.testing.assert_close(found, by_grid(joint, -9.0, 9.0), **EXACT)
    both = infer.log_evidence(poutine.scale(collapse(mean_of), scale=2.0))(data)
    torch.testing.assert_close(both, 2 * infer.log_evidence(collapse(mean_of))(data), **EXACT)


def test_a_mask_removes_observations() -> None:
    data = five()
    found = infer.log_evidence(collapse(mean_of))(data, mask=torch.tensor(False))
    assert abs(float(found)) < 1e-12
    some = infer.log_evidence(collapse(mean_of))(data, mask=data > 0)
    torch.testing.assert_close(some, infer.log_evidence(collapse(mean_of))(data[data > 0]), **EXACT)


def test_a_plate_of_binomial_observations() -> None:
    counts, total = torch.tensor([3.0, 5.0, 7.0, 2.0], dtype=D), torch.tensor([10.0, 10.0, 9.0, 8.0], dtype=D)

    def program() -> None:
        p = sample("p", dist.Beta(number(2.0), 2.0))
        with plate("rows", 4):
            sample("y", dist.Binomial(total, p), obs=counts)

    k, n = counts.sum(), total.sum()
    exact = _log_beta(2 + k, 2 + n - k) - _log_beta(number(2.0), number(2.0))
    exact = (
        exact + (torch.lgamma(total + 1) - torch.lgamma(counts + 1) - torch.lgamma(total - counts + 1)).sum()
    )
    torch.testing.assert_close(infer.log_evidence(collapse(program))(), exact, **EXACT)


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def test_the_gradient_by_the_noise() -> None:
    data = torch.tensor([0.5, -0.2, 1.0], dtype=D)
    sigma = number(1.3).requires_grad_()
    found = infer.log_evidence(collapse(mean_of))(data, sigma)
    covariance = torch.ones(3, 3, dtype=D) + sigma**2 * torch.eye(3, dtype=D)
    exact = dist.MultivariateNormal(torch.zeros(3, dtype=D), covariance).log_prob(data)
    torch.testing.assert_close(found, exact, **EXACT)
    one, other = (torch.autograd.grad(each, sigma)[0] for each in (found, exact))
    torch.testing.assert_close(one, other, **EXACT)


def test_gamma_with_a_plate_of_poisson_and_of_exponential() -> None:
    counts, waits = torch.tensor([3.0, 0.0, 4.0], dtype=D), torch.tensor([0.5, 0.2], dtype=D)

    def program() -> None:
        rate = sample("rate", dist.Gamma(number(2.0), 1.5))
        with plate("rows", 3):
            sample("y", dist.Poisson(rate), obs=counts)
        with plate("more", 2):
            sample("wait", dist.Exponential(rate), obs=waits)

    shape, rate = 2 + counts.sum() + 2, 1.5 + 3 + waits.sum()
    exact = torch.lgamma(shape) - shape * rate.log() - torch.lgamma(number(2.0)) + 2 * math.log(1.5)
    exact = exact - torch.lgamma(counts + 1).sum()
    found = infer.marginals(collapse(program))()
    torch.testing.assert_close(found.log_evidence, exact, **EXACT)
    torch.testing.assert_close(found["rate"].concentration, shape, **EXACT)


def test_beta_with_a_plate_of_bernoulli_and_dirichlet_with_categorical() -> None:
    flips, words = torch.tensor([1.0, 1.0, 0.0], dtype=D), torch.tensor([0, 2, 2, 1])

    def program() -> None:
        p = sample("p", dist.Beta(number(2.0), 1.0))
        theta = sample("theta", dist.Dirichlet(torch.tensor([0.5, 1.0, 2.0], dtype=D)))
        with plate("flips", 3):
            sample("flip", dist.Bernoulli(p), obs=flips)
        with plate("words", 4):
            sample("word", dist.Categorical(theta), obs=words)

    exact = _log_beta(number(4.0), number(2.0)) - _log_beta(number(2.0), number(1.0))
    before = torch.tensor([0.5, 1.0, 2.0], dtype=D)
    for word in words.tolist():  # One word after the other, each by what was seen so far.
        exact = exact + (before[word] / before.sum()).log()
        before[word] += 1
    torch.testing.assert_close(infer.log_evidence(collapse(program))(), exact, **EXACT)


def test_multivariate_normal_with_multivariate_normal() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, 3, generator=generator, dtype=D)
    prior = root @ root.T + torch.eye(3, dtype=D)
    look = torch.randn(2, 3, generator=generator, dtype=D)
    y = torch.randn(2, generator=generator, dtype=D)

    def program() -> None:
        x: Any = sample("x", dist.MultivariateNormal(torch.ones(3, dtype=D), prior))
        sample("y", dist.MultivariateNormal(look @ x, torch.eye(2, dtype=D)), obs=y)

    spread = look @ prior @ look.T + torch.eye(2, dtype=D)
    exact = dist.MultivariateNormal(look @ torch.ones(3, dtype=D), spread).log_prob(y)
    found = infer.marginals(collapse(program))()
    torch.testing.assert_close(found.log_evidence, exact, **EXACT)
    gain = prior @ look.T @ torch.linalg.inv(spread)
    torch.testing.assert_close(found["x"].mean, 1 + gain @ (y - look.sum(1)), **EXACT)


def test_a_table_indexed_by_a_categorical_with_unknown_weights() -> None:
    table = torch.tensor([-1.0, 0.5, 2.0], dtype=D)
    prior = torch.tensor([1.0, 2.0, 0.5], dtype=D)

    def program() -> None:
        theta = sample("theta", dist.Dirichlet(prior))
        one: Any = sample("one", dist.Categorical(theta))
        two: Any = sample("two", dist.Categorical(theta))
        sample("y", dist.Normal(table[one], 1.0), obs=number(0.3))
        sample("u", dist.Normal(table[two], 0.5), obs=number(1.0))

    joint = torch.empty(3, 3, dtype=D)
    for one in range(3):
        for two in range(3):
            weight = prior[one] / prior.sum() * (prior[two] + (one == two)) / (prior.sum() + 1)
            joint[one, two] = weight.log()
    joint = joint + dist.Normal(table, 1.0).log_prob(number(0.3)).unsqueeze(1)
    joint = joint + dist.Normal(table, 0.5).log_prob(number(1.0))
    found = infer.marginals(collapse(program), sites=["one", "two", ("one", "two"), "theta"])()
    torch.testing.assert_close(found.log_evidence, joint.logsumexp((0, 1)), **EXACT)
    probs = torch.softmax(joint.flatten(), 0).reshape(3, 3)
    torch.testing.assert_close(found["one"].probs, probs.sum(1), **EXACT)
    torch.testing.assert_close(found["one", "two"].probs, probs, **EXACT)
    mean = sum(
        probs[one, two]
        * (prior + torch.eye(3, dtype=D)[one] + torch.eye(3, dtype=D)[two])
        / (prior.sum() + 2)
        for one in range(3)
        for two in range(3)
    )
    torch.testing.assert_close(found["theta"].mean, mean, **EXACT)


# ------------------------------------------------------------------------------------- among other features


def steered() -> None:
    """Python decides on a discrete site; a collapsed one is in some runs only."""
    z = sample("z", dist.Bernoulli(number(0.4)), infer={"enumerate": "sequential"})
    x: Any = sample("x", dist.Normal(number(1.0), 1.0)) if z else number(0.0)
    sample("y", dist.Normal(x, 1.0), obs=number(0.7))


def test_sites_in_some_runs_only() -> None:
    logs = torch.stack(
        [
            number(0.6).log() + dist.Normal(number(0.0), 1.0).log_prob(number(0.7)),
            number(0.4).log() + dist.Normal(number(1.0), math.sqrt(2.0)).log_prob(number(0.7)),
        ]
    )
    torch.testing.assert_close(infer.log_evidence(collapse(steered))(), logs.logsumexp(0), **EXACT)
    torch.testing.assert_close(
        infer.marginals(collapse(steered))()["z"].probs, torch.softmax(logs, 0)[1], **EXACT
    )
    posterior = dist.Normal(number(0.85), math.sqrt(0.5))
    found = infer.marginals(collapse(steered), "x")()
    torch.testing.assert_close(found["x"].mean, number(0.85), **EXACT)
    drawn = infer.posterior_samples(collapse(steered), 200)()
    assert torch.equal(drawn["x"].isnan(), drawn["z"] == 0)
    wanted = torch.softmax(logs, 0).log()[drawn["z"].long()]
    wanted = wanted + torch.where(drawn["z"] == 1, posterior.log_prob(drawn["x"].nan_to_num()), 0.0)
    torch.testing.assert_close(drawn.log_prob, wanted, **EXACT)
    best = infer.map_assignment(collapse(steered))()
    tops = logs + torch.stack([number(0.0), posterior.log_prob(number(0.85))])
    torch.testing.assert_close(best.log_prob, tops.amax(), **EXACT)
    assert int(best["z"]) == int(tops.argmax())


def mixed() -> None:
    x = sample("x", dist.Normal(number(0.0), 1.0))
    sample("y", dist.Normal(x, 1.0), obs=number(2.0))
    r = sample("r", dist.Gamma(number(2.0), 1.0))
    z = sample("z", dist.Bernoulli(number(0.4)))
    sample("c", dist.Poisson(r.sqrt() * (1 + z)), obs=number(3.0))


def test_what_is_left_alone_is_told() -> None:
    handler = CollapseMessenger(strict=False)
    program = handler(mixed)
    with pytest.raises(EnumerationError, match=r"Site 'r' is latent with Gamma of infinite support"):
        infer.log_evidence(program)()
    told = handler.explain().splitlines()
    assert told[0] == "x: integrated out"
    assert told[1].startswith("r: left alone. Site 'c' (Poisson) depends on the delayed site 'r' (Gamma)")

    def guide() -> None:
        sample("r", dist.Delta(number(1.5)))

    loss = infer.TraceEnum_ELBO().differentiable_loss(infer.config_enumerate(program), guide)
    exact = dist.Normal(number(0.0), math.sqrt(2.0)).log_prob(number(2.0))
    exact = exact + dist.Gamma(number(2.0), 1.0).log_prob(number(1.5))
    rates = math.sqrt(1.5) * torch.tensor([1.0, 2.0], dtype=D)
    counts = torch.tensor([0.6, 0.4], dtype=D).log() + dist.Poisson(rates).log_prob(number(3.0))
    torch.testing.assert_close(loss, -(exact + counts.logsumexp(0)), **EXACT)


def test_deterministic_sites_stay_delayed() -> None:
    def program() -> Any:
        x: Any = sample("x", dist.Normal(number(0.0), 1.0))
        twice: Any = deterministic("twice", 2 * x + 1)
        sample("y", dist.Normal(twice, 1.0), obs=number(0.3))
        return x + twice

    exact = dist.Normal(number(1.0), math.sqrt(5.0)).log_prob(number(0.3))
    torch.testing.assert_close(infer.log_evidence(collapse(program))(), exact, **EXACT)
    found = infer.Predictive(collapse(program), num_samples=4, return_sites=["x", "twice", "_RETURN"])()
    torch.testing.assert_close(found["twice"], 2 * found["x"] + 1, **EXACT)
    torch.testing.assert_close(found["_RETURN"], 3 * found["x"] + 1, **EXACT)


def test_contexts_inside_each_other() -> None:
    def program() -> None:
        mu: Any = sample("mu", dist.Normal(number(0.0), 1.0))

        def inner() -> None:
            rate = sample("rate", dist.Gamma(number(2.0), 1.0))
            sample("count", dist.Poisson(rate), obs=number(3.0))
            sample("y", dist.Normal(mu, 1.0), obs=number(0.5))

        collapse(inner)()

    exact = dist.Normal(number(0.0), math.sqrt(2.0)).log_prob(number(0.5))
    exact = exact + dist.GammaPoisson(number(2.0), 1.0).log_prob(number(3.0))
    found = infer.marginals(collapse(program))()
    torch.testing.assert_close(found.log_evidence, exact, **EXACT)
    torch.testing.assert_close(found["mu"].mean, number(0.25), **EXACT)
    torch.testing.assert_close(found["rate"].mean, number(2.5), **EXACT)


def test_a_site_that_is_kept_out_and_depends_on_one_that_is_in() -> None:
    def program() -> None:
        x: Any = sample("x", dist.Normal(number(0.0), 1.0))
        w = sample("w", dist.Normal(x, number(1.0)), infer={"collapse": False})
        sample("y", dist.Normal(w, number(1.0)), obs=number(0.5))

    with pytest.raises(
        ModelError, match=r"Site 'w' is marked .*'collapse': False.* depends on the delayed site 'x'"
    ):
        infer.log_evidence(collapse(program))()
    handler = CollapseMessenger(strict=False)
    sites = poutine.trace(handler(program)).get_trace().nodes
    assert {"x", "w", "y"} <= set(sites)
    assert "x: left alone" in handler.explain()


def test_observations_of_delayed_values() -> None:
    """The value of one site is what another observes: their densities multiply."""

    def program() -> None:
        x: Any = sample("x", dist.Normal(number(0.0), 1.0))
        sample("again", dist.Normal(number(1.0), 2.0), obs=x)

    exact = dist.Normal(number(0.0), math.sqrt(5.0)).log_prob(number(1.0))
    found = infer.marginals(collapse(program))()
    torch.testing.assert_close(found.log_evidence, exact, **EXACT)
    torch.testing.assert_close(found["x"].mean, number(0.2), **EXACT)


def test_plates_around_the_context_and_matrices_as_events() -> None:
    data = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=D)

    def inner() -> None:
        x: Any = sample("x", dist.Normal(torch.zeros(2, 2, dtype=D), 1.0).to_event(2))
        sample("y", dist.Normal(x, 1.0).to_event(2), obs=data)

    def program() -> None:
        with plate("problems", 3):
            collapse(inner)()

    found = infer.marginals(program)()["x"]
    assert (found.batch_shape, found.event_shape) == ((3,), (2, 2))
    torch.testing.assert_close(found.mean, (data / 2).expand(3, 2, 2), **EXACT)
    torch.testing.assert_close(found.variance, torch.full((3, 2, 2), 0.5, dtype=D), **EXACT)
    assert infer.posterior_samples(program, 5)()["x"].shape == (5, 3, 2, 2)


def test_too_many_discrete_sites_in_sight() -> None:
    def program() -> None:
        for t in range(70):
            z: Any = sample(f"z{t}", dist.Bernoulli(number(0.5)))
            x: Any = sample(f"x{t}", dist.Normal(z, number(1.0)))
            sample(f"y{t}", dist.Normal(x, number(1.0)), obs=number(0.3))

    with pytest.raises(EnumerationError, match=r"Site 'x0' is integrated out.*markov.*'collapse': False"):
        infer.log_evidence(collapse(program))()


def test_names_are_given_once() -> None:
    def twice() -> None:
        sample("x", dist.Normal(number(0.0), 1.0))
        sample("x", dist.Normal(number(0.0), 1.0))

    def plate_and_site() -> None:
        with plate("x", 2):
            sample("x", dist.Normal(number(0.0), 1.0))

    for program in (twice, plate_and_site):
        with pytest.raises(DuplicateSiteError, match=r"two sites or plates of the name 'x'"):
            infer.log_evidence(collapse(program))()


def test_a_prediction_that_is_scaled_is_refused() -> None:
    """A power of a density does not integrate to one; what is masked is absent."""

    def program(around: Any) -> None:
        rate = sample("rate", dist.Gamma(number(2.0), 1.0))
        with around:
            sample("new", dist.Poisson(rate))

    with pytest.raises(ModelError, match=r"Site 'new' is latent, depends on delayed sites, and is scaled"):
        infer.log_evidence(collapse(program))(poutine.scale(scale=2.0))
    assert infer.log_evidence(collapse(program))(poutine.mask(mask=torch.tensor(False))) == 0


def test_posteriors_by_discrete_sites_without_dimensions_are_refused() -> None:
    """Values of a chain that are used after its loop are hidden: the evidence is known, mixtures are not."""

    def program() -> None:
        rate: Any = sample("rate", dist.Gamma(number(2.0), 1.0))
        z: Any = torch.tensor(0)
        states = []
        for t in markov(range(3)):
            z = sample(f"z_{t}", dist.Categorical(torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=D)[z]))
            states.append(z)
        for t, state in enumerate(states):
            times = torch.tensor([1.0, 2.0], dtype=D)[state]
            sample(f"y_{t}", dist.Poisson(rate * times), obs=number(float(t)))

    found = infer.marginals(collapse(program))()
    assert "rate  no closed form" in str(found)
    for ask in (
        lambda: found["rate"],
        infer.posterior_samples(collapse(program), 3),
        infer.map_assignment(collapse(program)),
    ):
        with pytest.raises(
            ModelError, match=r"Site 'rate' is integrated out.*no tensor dimensions of their own"
        ):
            ask()
