"""Importance weights are what their definition says, draw by draw, with discrete sites summed out exactly."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings

import sumout
import sumout.distributions as dist
from posteriors import Posterior
from programs import Program, programs
from sumout import param, plate, sample
from sumout.errors import EnumerationError, ImpossibleEvidenceError, ModelError
from sumout.infer import Importance, WeightedSamples, log_evidence
from sumout.poutine import condition

EXACT = {"rtol": 1e-9, "atol": 1e-9}
X = torch.tensor([0.3, 1.4], dtype=torch.float64)
both = pytest.mark.parametrize("parallel", [False, True])


def model(x: torch.Tensor) -> None:
    mu = sample("mu", dist.Normal(torch.zeros(()).double(), 1.0))
    shift = sample("shift", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)))
    with plate("data", len(x)):
        z = sample("z", dist.Categorical(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)))
        sample("x", dist.Normal(mu + shift + 2 * z, 1.0), obs=x)


def joint(mu: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """log p(mu, x), all discrete values written out."""
    logs = []
    for shift in (0, 1):
        for zs in itertools.product(range(3), repeat=len(x)):
            log = dist.Normal(0.0, 1.0).log_prob(mu) + math.log((0.7, 0.3)[shift])
            for z, each in zip(zs, x, strict=True):
                log = log + math.log((0.5, 0.3, 0.2)[z]) + dist.Normal(mu + shift + 2 * z, 1.0).log_prob(each)
            logs.append(log)
    return torch.stack(logs).logsumexp(0)


def guide(x: torch.Tensor) -> None:
    sample("mu", dist.Normal(x.mean() / 2, 0.9))


@both
def test_each_weight_is_its_definition(parallel: bool) -> None:
    drawn = Importance(model, guide, num_samples=20, parallel=parallel).run(X)
    assert list(drawn) == ["mu"]
    mu = drawn["mu"]
    assert mu.shape == (20,)
    assert len(mu.unique()) == 20
    expected = joint(mu, X) - dist.Normal(X.mean() / 2, 0.9).log_prob(mu)
    torch.testing.assert_close(drawn.log_weights, expected, **EXACT)
    torch.testing.assert_close(drawn.log_evidence, expected.exp().mean().log(), **EXACT)
    probs = expected.softmax(0)
    torch.testing.assert_close(drawn.normalized_log_weights, probs.log(), **EXACT)
    torch.testing.assert_close(drawn.ess, 1 / (probs**2).sum(), **EXACT)
    torch.testing.assert_close(drawn.expectation(lambda mu: mu**2), (probs * mu**2).sum(), **EXACT)


@both
def test_from_the_prior(parallel: bool) -> None:
    drawn = Importance(model, num_samples=20, parallel=parallel).run(X)
    mu = drawn["mu"]
    torch.testing.assert_close(drawn.log_weights, joint(mu, X) - dist.Normal(0.0, 1.0).log_prob(mu), **EXACT)


@given(programs(max_assignments=300))
@settings(max_examples=30)
def test_without_continuous_sites_every_weight_is_the_evidence(program: Program) -> None:
    problem = program.problem()
    assume(problem.sizes)
    exact = Posterior(problem).log_z
    for parallel in (True, False):
        drawn = Importance(program, lambda: None, num_samples=3, parallel=parallel).run()
        torch.testing.assert_close(drawn.log_weights, exact.expand(3), **EXACT)


@both
def test_the_posterior_as_guide_weighs_all_alike(parallel: bool) -> None:
    """With one datum the posterior is a mixture of normals, and all weights are the evidence."""
    x = X[:1]
    shifts = torch.tensor([shift + 2.0 * z for shift in (0, 1) for z in range(3)], dtype=torch.float64)
    prior = torch.tensor([p * q for p in (0.7, 0.3) for q in (0.5, 0.3, 0.2)], dtype=torch.float64)
    logs = prior.log() + dist.Normal(shifts, 2**0.5).log_prob(x)

    def posterior(x: torch.Tensor) -> None:
        parts = dist.Normal((x - shifts) / 2, torch.full((6,), 0.5**0.5, dtype=torch.float64))
        sample("mu", dist.MixtureSameFamily(dist.Categorical(logits=logs), parts))

    drawn = Importance(model, posterior, num_samples=50, parallel=parallel).run(x)
    torch.testing.assert_close(drawn.log_weights, logs.logsumexp(0).expand(50), **EXACT)
    assert drawn.ess.item() == pytest.approx(50)


@both
def test_local_sites_scales_and_subsamples(parallel: bool) -> None:
    def local(x: torch.Tensor) -> None:
        with plate("data", 10, subsample=torch.tensor([1, 4])):
            a = sample("a", dist.Normal(torch.zeros(()).double(), 1.0))
            z = sample("z", dist.Bernoulli(torch.tensor(0.4, dtype=torch.float64)))
            sample("x", dist.Normal(a + 3 * z, 1.0), obs=x)

    def of_local(x: torch.Tensor) -> None:
        with plate("data", 10, subsample=torch.tensor([1, 4])):
            sample("a", dist.Normal(x / 2, 1.0))

    drawn = Importance(local, of_local, num_samples=6, parallel=parallel).run(X)
    a = drawn["a"]
    assert a.shape == (6, 2)
    each = torch.stack(
        [math.log(p) + dist.Normal(a + 3 * z, 1.0).log_prob(X) for z, p in ((0, 0.6), (1, 0.4))]
    ).logsumexp(0)
    each = each + dist.Normal(0.0, 1.0).log_prob(a) - dist.Normal(X / 2, 1.0).log_prob(a)
    torch.testing.assert_close(drawn.log_weights, 5 * each.sum(-1), **EXACT)


@both
def test_crossed_plates_and_sequential_sites(parallel: bool) -> None:
    x = torch.tensor([[0.9, 0.2], [0.1, 1.1]], dtype=torch.float64)

    def crossed() -> None:
        mu = sample("mu", dist.Normal(torch.zeros(()).double(), 1.0))
        rows, columns = plate("rows", 2, dim=-2), plate("columns", 2, dim=-1)
        k = sample(
            "k", dist.Bernoulli(torch.tensor(0.2, dtype=torch.float64)), infer={"enumerate": "sequential"}
        )
        with rows:
            a = sample("a", dist.Bernoulli(torch.tensor(0.4, dtype=torch.float64)))
        with columns:
            b = sample("b", dist.Bernoulli(torch.tensor(0.7, dtype=torch.float64)))
        with rows, columns:
            sample("x", dist.Normal(mu + a * b + k, 0.7), obs=x)

    def of_crossed() -> None:
        sample("mu", dist.Normal(torch.zeros(()).double(), 0.5))

    drawn = Importance(crossed, of_crossed, num_samples=4, parallel=parallel).run()
    evidence = log_evidence(
        condition(crossed, data={"k": torch.tensor(0.0, dtype=torch.float64), "mu": drawn["mu"][0]})
    )()
    other = log_evidence(
        condition(crossed, data={"k": torch.tensor(1.0, dtype=torch.float64), "mu": drawn["mu"][0]})
    )()
    log_q = dist.Normal(0.0, 0.5).log_prob(drawn["mu"][0])
    torch.testing.assert_close(drawn.log_weights[0], torch.logaddexp(evidence, other) - log_q, **EXACT)


@both
def test_sites_that_the_guide_lacks(parallel: bool) -> None:
    """They come from the prior and have no part in the weights, unless discrete sites stand before them."""

    def lacking(x: torch.Tensor) -> None:
        scale = sample("scale", dist.Gamma(torch.tensor(3.0, dtype=torch.float64), 1.0))
        mu = sample("mu", dist.Normal(torch.zeros(()).double(), 2.0))
        sample("x", dist.Normal(mu, 1.0), obs=x[0])
        sample("other", dist.Normal(mu, scale))

    delta = Importance(lacking, lambda x: sample("mu", dist.Delta(x[1])), num_samples=4, parallel=parallel)
    drawn = delta.run(X)
    assert list(drawn) == ["mu"]
    exact = dist.Normal(0.0, 2.0).log_prob(X[1]) + dist.Normal(X[1], 1.0).log_prob(X[0])
    torch.testing.assert_close(drawn.log_weights, exact.expand(4), **EXACT)

    def between(x: torch.Tensor) -> None:
        z = sample("z", dist.Bernoulli(0.5))
        u = sample("u", dist.Normal(z, 1.0))
        sample("x", dist.Normal(u, 1.0), obs=x[0])

    with pytest.raises(EnumerationError, match="'u'.*Draw it in the guide"):
        Importance(between, lambda x: None, num_samples=4, parallel=parallel).run(X)


def test_weights_have_gradients_and_samples_can_be_drawn_again() -> None:
    def fitted(x: torch.Tensor) -> None:
        sample("mu", dist.Normal(param("loc", torch.zeros(()).double()), 1.0))

    with sumout.get_param_store().scope():
        drawn = Importance(model, fitted, num_samples=8).run(X)
        loc = sumout.get_param_store()["loc"]
        (gradient,) = torch.autograd.grad(drawn.log_evidence, loc.unconstrained())
    mu = drawn["mu"].detach().requires_grad_()
    slope = torch.autograd.grad(joint(mu, X).sum(), mu)[0]  # mu = loc + noise: log q does not change
    expected = (drawn.normalized_log_weights.exp() * slope).sum()
    torch.testing.assert_close(gradient, expected.detach(), **EXACT)
    again = drawn.resample(5000, generator=torch.Generator().manual_seed(0))["mu"].detach()
    assert again.shape == (5000,)
    assert set(again.tolist()) <= set(mu.tolist())
    assert abs(again.mean() - drawn.expectation(lambda mu: mu)) < 5 * again.std() / 5000**0.5


def test_the_estimate_is_unbiased_and_the_diagnostics_tell_a_bad_guide() -> None:
    torch.manual_seed(0)
    exact = torch.trapezoid(joint(grid := torch.linspace(-12, 12, 4001).double(), X).exp(), grid)
    good = Importance(model, guide, num_samples=20_000).run(X)
    error = (good.log_weights.exp().var() / 20_000).sqrt() / exact
    assert abs(good.log_evidence.exp() / exact - 1) < 4 * error
    assert good.psis.reliable
    assert good.ess > 10_000
    assert abs(good.expectation(lambda mu: mu, smoothed=True) - good.expectation(lambda mu: mu)) < 0.01

    def narrow(x: torch.Tensor) -> None:
        sample("mu", dist.Normal(torch.tensor(-2.0, dtype=torch.float64), 0.3))

    bad = Importance(model, narrow, 5000).run(X)
    assert not bad.psis.reliable
    assert bad.ess < 500
    assert "Pareto k" in repr(bad)
    assert len(bad) == 1
    assert isinstance(bad, WeightedSamples)


def test_a_guide_that_draws_nothing_possible() -> None:
    def apart() -> None:
        x = sample("x", dist.Normal(torch.zeros(()).double(), 1.0))
        sumout.factor("above", torch.where(x > 100, 0.0, -math.inf))

    drawn = Importance(apart, num_samples=5).run()
    assert drawn.log_evidence == -math.inf
    assert repr(drawn) == "WeightedSamples(5 of x; log evidence -inf)"
    with pytest.raises(ImpossibleEvidenceError, match="All 5 weights"):
        _ = drawn.ess

    def unknown() -> None:
        x = sample("x", dist.Normal(0.0, 1.0))
        sumout.factor("nan", x / 0 * 0)

    with sumout.validation_enabled(False), pytest.raises(ModelError, match="NaN"):
        Importance(unknown, num_samples=5).run()


def test_wrong_use() -> None:
    with pytest.raises(ModelError, match="program first"):
        Importance(3)
    with pytest.raises(ModelError, match="whole number"):
        Importance(model, guide, 0)


@both
def test_what_a_guide_draws_and_the_model_lacks(parallel: bool) -> None:
    """Divided by a density that nothing stands against, the mean weight would be no evidence: with a coin, twice it."""

    def extra(x: torch.Tensor) -> None:
        guide(x)
        sample("nu", dist.Bernoulli(torch.tensor(0.3)), infer={"enumerate": None})

    with pytest.raises(ModelError, match="'nu' is in the guide but is no latent site"):
        Importance(model, extra, 3, parallel=parallel).run(X)
    with pytest.raises(ModelError, match="'x' is in the guide but is no latent site"):
        Importance(
            model, lambda x: [guide(x), sample("x", dist.Normal(x, 1.0).to_event(1))], 3, parallel=parallel
        ).run(X)

    def sometimes() -> None:
        z = sample("z", dist.Bernoulli(torch.tensor(0.5)), infer={"enumerate": "sequential"})
        if z:
            sample("w", dist.Normal(0.0, 1.0))

    def always() -> None:
        sample("w", dist.Normal(0.0, 2.0))

    wanted = "Python decides" if parallel else "'w' is in the guide but is no latent site"
    with pytest.raises(ModelError, match=wanted):
        Importance(sometimes, always, 3, parallel=parallel).run()


@both
def test_auxiliary_sites_of_a_guide(parallel: bool) -> None:
    """As automatic guides have them: the model's site is a function of one, whose Jacobian its Delta has."""

    def model() -> None:
        rate = sample("rate", dist.Gamma(torch.tensor(2.0, dtype=torch.float64), 1.0))
        sample("x", dist.Poisson(rate), obs=torch.tensor(3.0).double())

    def guide() -> None:
        u = sample("u", dist.Normal(torch.tensor(0.5).double(), 0.7), infer={"is_auxiliary": True})
        sample("rate", dist.Delta(u.exp(), log_density=-u))

    drawn = Importance(model, guide, 5, parallel=parallel).run()
    u, rate = drawn["u"], drawn["rate"]
    logs = dist.Gamma(torch.tensor(2.0).double(), 1.0).log_prob(rate) + dist.Poisson(rate).log_prob(
        torch.tensor(3.0).double()
    )
    q = dist.LogNormal(torch.tensor(0.5).double(), 0.7).log_prob(rate)
    torch.testing.assert_close(rate, u.exp())
    assert list(drawn.resample(7)) == ["rate"]  # which Predictive takes
    torch.testing.assert_close(drawn.log_weights, logs - q, **EXACT)

    def hierarchical() -> None:
        u = sample("u", dist.Normal(0.5, 0.7), infer={"is_auxiliary": True})
        sample("rate", dist.LogNormal(u, 0.5))

    with pytest.raises(
        ModelError, match="'u' of the guide is auxiliary, and no site of the model is a function"
    ):
        Importance(model, hierarchical, 5, parallel=parallel).run()


@both
def test_a_value_that_a_handler_gives_is_no_draw(parallel: bool) -> None:
    def model() -> None:
        loc = sample("loc", dist.Normal(0.0, 1.0))
        z = sample("z", dist.Bernoulli(0.5))
        sample("x", dist.Normal(loc + z, 1.0), obs=torch.tensor(1.0))

    def guide() -> None:
        sample("loc", dist.Normal(0.2, 1.2))

    drawn = sumout.poutine.trace(guide).get_trace()
    for each in (None, guide, lambda: None):
        importance = Importance(model, each, num_samples=3, parallel=parallel)
        with (
            pytest.raises(ModelError, match=r"'loc' has a value that a handler gives .*condition\("),
            sumout.poutine.replay(trace=drawn),
        ):
            importance.run()
        assert importance.run().log_weights.isfinite().all()  # and none is left behind
    certain = sumout.poutine.trace(lambda: sample("loc", dist.Delta(drawn.nodes["loc"]["value"])))
    weights = Importance(model, certain, num_samples=3, parallel=parallel).run().log_weights
    observed = condition(model, data={"loc": drawn.nodes["loc"]["value"]})
    assert torch.allclose(weights, log_evidence(observed)())


def test_decisions_on_many_samples_at_once() -> None:
    def model() -> None:
        loc = sample("loc", dist.Normal(0.0, 1.0))
        sample("x", dist.Normal(loc if loc > 0 else -loc, 1.0), obs=torch.tensor(1.0))

    with pytest.raises(ModelError, match="differs from sample to sample.*parallel=False"):
        Importance(model, num_samples=5).run()
    with pytest.raises(ModelError, match="differs from sample to sample.*parallel=False"):
        sumout.infer.Predictive(model, num_samples=5, parallel=True)()
    assert len(Importance(model, num_samples=5, parallel=False).run().log_weights) == 5
