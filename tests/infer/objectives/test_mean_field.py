"""TraceMeanField_ELBO: closed forms where they are right, and the bound in the mean where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sumout
import sumout.distributions as dist
from bounds import Chosen, assert_same, assert_unbiased, bound, gradients
from sumout import plate, sample
from sumout.effects.handlers import mask, scale
from sumout.infer import Trace_ELBO, TraceMeanField_ELBO

X = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _own_parameters() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    with sumout.get_param_store().scope():
        yield
    torch.set_default_dtype(torch.float32)


def param(name: str, value: Any, constraint: Any = dist.constraints.real) -> Tensor:
    return sumout.param(name, torch.as_tensor(value), constraint=constraint)


def test_divergences_need_no_draw() -> None:
    def model() -> None:
        sample("rate", dist.Gamma(2.0, 3.0))
        with plate("data", 12, subsample=torch.tensor([3, 7, 1])), scale(scale=1.5):
            with mask(mask=torch.tensor([True, False, True])):
                sample("z", dist.Normal(torch.zeros(3), param("s", 0.7)))
            sample("w", dist.Normal(torch.zeros(3, 2), 1.0).to_event(1))

    def guide() -> None:
        sample("rate", dist.Gamma(param("a", 1.3), 2.0))
        with plate("data", 12, subsample=torch.tensor([3, 7, 1])), scale(scale=1.5):
            with mask(mask=torch.tensor([True, False, True])):
                sample("z", dist.Normal(param("loc", X), 0.5))
            sample("w", dist.Normal(param("w_loc", torch.ones(3, 2)), 0.5).to_event(1))

    loss = TraceMeanField_ELBO().differentiable_loss(model, guide)
    kl = torch.distributions.kl_divergence
    gamma = kl(
        dist.Gamma(param("a", 0.0), torch.tensor(2.0)), dist.Gamma(torch.tensor(2.0), torch.tensor(3.0))
    )
    z = kl(dist.Normal(param("loc", 0.0), 0.5), dist.Normal(torch.zeros(3), param("s", 0.0)))
    w = kl(dist.Normal(param("w_loc", 0.0), 0.5), dist.Normal(torch.zeros(3, 2), 1.0)).sum(-1)
    assert_same(loss, gamma + 4 * 1.5 * (z[[0, 2]].sum() + w.sum()))


def test_given_what_was_drawn_before() -> None:
    """The noise is integrated by quadrature, which is exact as all is quadratic in it."""

    def model() -> None:
        z = sample("z", dist.Normal(0.0, 1.5))
        w = sample("w", dist.Normal(z, 1.0))
        sample("x", dist.Normal(w, 1.0), obs=X[0])

    def in_order() -> None:
        z = sample("z", dist.Normal(param("loc", 0.5), 0.8))
        sample("w", dist.Normal(param("slope", 0.4) * z, 0.6))

    def against_it() -> None:
        w = sample("w", dist.Normal(param("loc", 0.5), 0.8))
        sample("z", dist.Normal(param("slope", 0.4) * w, 0.6))

    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    weights = weights / weights.sum()
    for guide in (in_order, against_it):
        totals = []
        for elbo in (TraceMeanField_ELBO(), Trace_ELBO()):
            total = torch.zeros(())
            for first, one in zip(nodes, weights, strict=True):
                for second, two in zip(nodes, weights, strict=True):
                    noises = {"z": first, "w": second}
                    fixed = {
                        name: lambda fn, noise=noise: fn.loc + fn.scale * noise
                        for name, noise in noises.items()
                    }
                    total = total + one * two * elbo.differentiable_loss(model, Chosen(fixed)(guide))
            totals.append(total)
        assert_same(*totals)
    torch.manual_seed(0)
    spread = [TraceMeanField_ELBO(num_particles=1).loss(model, in_order) for _ in range(50)]
    plain = [Trace_ELBO().loss(model, in_order) for _ in range(50)]
    assert np.std(spread) < np.std(plain)


@pytest.mark.parametrize("guide_order", [("a", "b"), ("b", "a")])
def test_of_sites_without_derivatives_of_values(guide_order: tuple[str, str]) -> None:
    def model() -> None:
        a = sample("a", dist.Bernoulli(logits=param("p_a", 0.3)))
        with plate("data", 2):
            b = sample("b", dist.Bernoulli(logits=param("p_b", [0.4, -0.2]) + a))
            sample("x", dist.Normal(a + b, 1.0), obs=X[:2])

    def guide() -> None:
        a: Any = 0.0
        for name in guide_order:
            if name == "a":
                a = sample("a", dist.Bernoulli(logits=param("q_a", 0.6)))
            else:
                with plate("data", 2):
                    sample("b", dist.Bernoulli(logits=param("q_b", [0.9, -0.3]) + a))

    def loss(guide: Any) -> Tensor:
        return TraceMeanField_ELBO().differentiable_loss(model, guide)

    assert_unbiased(loss, guide, {"a", "b"}, -bound(model, guide))
    assert gradients(loss(guide)).keys() == {"p_a", "p_b", "q_a", "q_b"}
