"""A prior times a conjugate likelihood is the posterior times the evidence, at every point."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sumout
import sumout.distributions as dist
from sumout.effects.handlers import condition, mask, reparam, trace
from sumout.effects.primitives import plate, sample
from sumout.errors import ModelError
from sumout.infer import SVI, Trace_ELBO
from sumout.infer.reparam import ConjugateReparam


def betabinomial(seed: int) -> tuple[Any, Any, Any]:
    """Prior, likelihood as a distribution over the latent variable, evidence of the data; and a program."""
    torch.manual_seed(seed)
    a, b, total = torch.rand(3) + 0.2, torch.rand(3) + 0.2, torch.tensor(10.0)
    count = torch.randint(0, 11, (3,)).double()

    def model() -> None:
        with plate("data", 3):
            z = sample("z", dist.Beta(a, b))
            sample("x", dist.Binomial(total, z), obs=count)

    evidence = dist.BetaBinomial(a, b, total).log_prob(count)
    return model, dist.Beta(1 + count, 1 + total - count), (evidence, dist.Beta(a + count, b + total - count))


def gammapoisson(seed: int) -> tuple[Any, Any, Any]:
    torch.manual_seed(seed)
    a, b = torch.rand(3) + 0.2, torch.rand(3) + 0.2
    count = torch.randint(0, 8, (3,)).double()

    def model() -> None:
        with plate("data", 3):
            z = sample("z", dist.Gamma(a, b))
            sample("x", dist.Poisson(z), obs=count)

    evidence = dist.GammaPoisson(a, b).log_prob(count)
    return model, dist.Gamma(1 + count, torch.ones(3)), (evidence, dist.Gamma(a + count, b + 1))


def dirichletmultinomial(seed: int) -> tuple[Any, Any, Any]:
    torch.manual_seed(seed)
    a = torch.rand(3, 4) + 0.2
    count = torch.multinomial(torch.ones(3, 4), 4 * 3, replacement=True)
    count = torch.nn.functional.one_hot(count, 4).sum(-2).double()

    def model() -> None:
        with plate("data", 3):
            z = sample("z", dist.Dirichlet(a))
            sample("x", dist.Multinomial(12, probs=z), obs=count)

    evidence = dist.DirichletMultinomial(a, 12).log_prob(count)
    return model, dist.Dirichlet(1 + count), (evidence, dist.Dirichlet(a + count))


@given(pair=st.sampled_from([betabinomial, gammapoisson, dirichletmultinomial]), seed=st.integers(0, 1000))
def test_the_weight_times_the_likelihood_is_the_evidence(pair: Any, seed: int) -> None:
    model, likelihood, (evidence, posterior) = pair(seed)
    seen = trace(reparam(model, {"z": ConjugateReparam(likelihood)})).get_trace()
    assert "z_updated" not in seen
    assert seen.observation_nodes == ["z", "x"]
    z = seen.nodes["z"]["value"]
    torch.testing.assert_close(seen.nodes["z"]["log_prob"] + seen.nodes["x"]["log_prob"], evidence)
    # p(z) p(x | z) = u(z) p(x), with the posterior u: so u is what the site was drawn from
    original = trace(condition(model, data={"z": z})).get_trace()
    joint = original.nodes["z"]["log_prob"] + original.nodes["x"]["log_prob"]
    torch.testing.assert_close(joint, posterior.log_prob(z) + evidence)
    torch.testing.assert_close(
        seen.nodes["z"]["log_prob"], original.nodes["z"]["log_prob"] - posterior.log_prob(z)
    )


def test_an_inexact_likelihood_is_weighted() -> None:
    """The joint density p(z) p(x | z) is that of the draw times the weight and the likelihood."""
    prior, guide = dist.Beta(torch.tensor(0.7), 1.5), dist.Beta(torch.tensor(3.0), 2.0)
    updated = dist.Beta(torch.tensor(0.7 + 3.0 - 1.0), 1.5 + 2.0 - 1.0)

    def model() -> None:
        sample("z", prior)

    seen = trace(reparam(model, {"z": ConjugateReparam(guide)})).get_trace()
    z = seen.nodes["z"]["value"]
    torch.testing.assert_close(seen.nodes["z"]["log_prob"], prior.log_prob(z) - updated.log_prob(z))


def test_the_draw_is_from_the_posterior() -> None:
    model, likelihood, (_, posterior) = gammapoisson(3)

    def many() -> None:
        with plate("draws", 20000, dim=-2):
            model()

    z = trace(reparam(many, {"z": ConjugateReparam(likelihood)})).get_trace().nodes["z"]["value"]
    bound = 5.0 * (posterior.variance / 20000).sqrt()  # five standard errors
    assert ((z.mean(0) - posterior.mean).abs() < bound).all()


def test_the_guide_sees_the_programs_arguments() -> None:
    def model(count: Any, total: Any = 10.0) -> Any:
        z = sample("z", dist.Beta(torch.tensor(0.5), 1.5))
        sample("x", dist.Binomial(total, z), obs=count)

    def guide(count: Any, total: Any = 10.0) -> Any:
        return dist.Beta(1 + count, 1 + total - count)

    config = {"z": ConjugateReparam(guide)}
    count = torch.tensor(2.0)
    expected = dist.BetaBinomial(torch.tensor(0.5), 1.5, 12.0).log_prob(count)
    found = trace(reparam(model, config)).get_trace(count, total=12.0).log_prob_sum()
    torch.testing.assert_close(found, expected)
    with pytest.raises(ModelError, match=r"site 'z' computes its guide.*reparam\(model, config="):
        with reparam(config=config):
            model(count)


def test_nothing_is_left_for_a_guide_to_do() -> None:
    model, likelihood, (evidence, _) = dirichletmultinomial(1)
    exact = reparam(model, {"z": ConjugateReparam(likelihood)})
    svi = SVI(exact, lambda: None, sumout.optim.Adam({}), Trace_ELBO())
    for _ in range(2):
        assert svi.evaluate_loss() == pytest.approx(-evidence.sum().item())


def test_an_observed_site_stays_as_it_is() -> None:
    model, likelihood, _ = betabinomial(0)
    data = {"z": torch.tensor(0.3)}
    plain = trace(condition(model, data=data)).get_trace()
    seen = trace(reparam(condition(model, data=data), {"z": ConjugateReparam(likelihood)})).get_trace()
    assert seen.log_prob_sum() == plain.log_prob_sum()


def test_a_masked_site_is_not_scored() -> None:
    model, likelihood, _ = betabinomial(0)
    seen = trace(mask(reparam(model, {"z": ConjugateReparam(likelihood)}), mask=False)).get_trace()
    assert seen.log_prob_sum() == 0.0


def test_what_does_not_fit() -> None:
    def fails(prior: Any, guide: Any, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            reparam(lambda: sample("z", prior), {"z": ConjugateReparam(guide)})()

    beta = dist.Beta(1.0, 1.0)
    fails(
        dist.Normal(0.0, 1.0), beta, "site 'z', which is Normal: there is no conjugate update of it by Beta"
    )
    fails(beta, dist.Gamma(1.0, 1.0), "no conjugate update of it by Gamma")
    fails(beta, lambda: 3, "guide of ConjugateReparam at site 'z' gave 3")
    fails(dist.Categorical(torch.ones(3)), dist.Categorical(torch.ones(3)), "site 'z'")
