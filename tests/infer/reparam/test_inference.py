"""Reparameterized programs under objectives and queries: the same numbers as without, by closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout
import sumout.distributions as dist
from sumout.effects.handlers import condition, reparam, replay, trace
from sumout.effects.primitives import get_param_store, param, plate, sample
from sumout.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate, log_evidence, marginals
from sumout.infer.reparam import AutoReparam, LocScaleReparam, StudentTReparam, TransformReparam

constraints = dist.constraints
X = 1.3


def kl(loc: Tensor, scale: Tensor, other_loc: Tensor, other_scale: Tensor) -> Tensor:
    """Between two normals."""
    ratio = (scale / other_scale) ** 2
    return 0.5 * (ratio + ((loc - other_loc) / other_scale) ** 2 - 1 - ratio.log())


def elbo(mu: Tensor, sigma: Tensor, centered: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Of ``z ~ N(mu, sigma)``, ``x ~ N(z, 1)``, with ``q(z_decentered) = N(a, b)``, in closed form.

    In terms of z the guide is ``N(mu + s (a - centered mu), s b)``, ``s = sigma**(1 - centered)``; the bound does
    not change with the coordinates.
    """
    stretch = sigma ** (1 - centered)
    loc, scale = mu + stretch * (a - centered * mu), stretch * b
    likelihood = -0.5 * ((X - loc) ** 2 + scale**2) - 0.5 * math.log(2 * math.pi)
    return likelihood - kl(loc, scale, mu, sigma)


def take_grads() -> dict[str, Tensor]:
    leaves = {name: value.unconstrained() for name, value in get_param_store().items()}
    grads = {name: leaf.grad.clone() for name, leaf in leaves.items()}
    for leaf in leaves.values():
        leaf.grad = None
    return grads


def check_estimates(loss: Any, program: Any, guide: Any, expected: Any, batches: int = 25) -> set[str]:
    """The mean of the loss and of its gradients, against a closed form, within five standard errors.

    The error is that of the mean of so many independent estimates. Returns the names of the parameters.
    """
    found: list[dict[str, Tensor]] = []
    for _ in range(batches):
        value = loss.differentiable_loss(program, guide)
        value.backward()
        found.append({"loss": value.detach(), **take_grads()})
    exact = expected()
    exact.backward()
    for name, answer in {"loss": exact.detach(), **take_grads()}.items():
        each = torch.stack([estimates[name] for estimates in found])
        error = each.std(0) / math.sqrt(batches)
        assert error < 0.05, name  # so that the comparison means something
        assert abs(each.mean(0) - answer) < 5 * error + 1e-9, name
    return found[0].keys() - {"loss"}


@pytest.mark.parametrize("centered", [None, 0.0, 0.4])
def test_the_bound_and_its_gradients(centered: float | None) -> None:
    def model() -> None:
        mu, sigma = param("mu", torch.tensor(0.7)), param("sigma", torch.tensor(2.5), constraints.positive)
        z = sample("z", dist.Normal(mu, sigma))
        sample("x", dist.Normal(z, 1.0), obs=torch.tensor(X))

    def guide() -> None:
        a, b = param("a", torch.tensor(-0.3)), param("b", torch.tensor(0.6), constraints.positive)
        sample("z_decentered", dist.Normal(a, b))

    program = reparam(model, {"z": LocScaleReparam(centered)})

    def exact() -> Tensor:
        store = get_param_store()
        middle = torch.tensor(centered) if centered is not None else store["z_centered"]
        return -elbo(store["mu"], store["sigma"], middle, store["a"], store["b"])

    with get_param_store().scope():
        loss = Trace_ELBO(num_particles=1000, vectorize_particles=True, max_plate_nesting=0)
        names = check_estimates(loss, program, guide, exact)
    assert names == {"mu", "sigma", "a", "b"} | ({"z_centered"} if centered is None else set())


def test_at_the_posterior_the_bound_is_the_evidence() -> None:
    """For each draw: ``z | x`` is normal, with variance ``v = 4 / 5`` and mean ``v (mu / 4 + x)``, in z."""
    mu, sigma, centered = 0.7, 2.0, 0.3

    def model() -> None:
        z = sample("z", dist.Normal(torch.tensor(mu), sigma))
        sample("x", dist.Normal(z, 1.0), obs=torch.tensor(X))

    def guide() -> None:
        variance = 0.8
        mean = variance * (mu / 4 + X)
        stretch = sigma ** (centered - 1)
        decentered = centered * mu + stretch * (mean - mu)
        sample("z_decentered", dist.Normal(torch.tensor(decentered), stretch * math.sqrt(variance)))

    program = reparam(model, {"z": LocScaleReparam(centered)})
    evidence = dist.Normal(mu, math.sqrt(5.0)).log_prob(torch.tensor(X))
    for _ in range(3):
        assert Trace_ELBO().loss(program, guide) == pytest.approx(-evidence.item())


def test_svi_learns_in_new_coordinates() -> None:
    """Neal's funnel without data: the prior is its own posterior, and a diagonal guide can only have it in
    decentered coordinates, in which all sites are standard normal.
    """

    def model() -> None:
        y = sample("y", dist.Normal(torch.tensor(0.0), 3.0))
        with plate("x_plate", 5):
            sample("x", dist.Normal(torch.tensor(0.0), (y / 2).exp()))

    program = AutoReparam(centered=0.0)(model)

    def guide() -> None:
        loc = param("loc", torch.full((6,), 0.3))
        scale = param("scale", torch.full((6,), 0.5), constraints.positive)
        sample("y_decentered", dist.Normal(loc[0], scale[0]))
        with plate("x_plate", 5):
            sample("x_decentered", dist.Normal(loc[1:], scale[1:]))

    with get_param_store().scope():
        loss = Trace_ELBO(num_particles=20, vectorize_particles=True, max_plate_nesting=1)
        svi = SVI(program, guide, sumout.optim.Adam({"lr": 0.02}), loss)
        for _ in range(300):
            svi.step()
        store = get_param_store()
        assert (store["loc"].abs() < 0.15).all()
        assert ((store["scale"] - 1.0).abs() < 0.15).all()
        assert abs(svi.evaluate_loss()) < 0.1  # the evidence is one


# ------------------------------------------------------------------------------------------------- summing sites out

WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
LOCS = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
SCALES = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
DATA = torch.tensor([0.3, -1.2], dtype=torch.float64)


@config_enumerate
def mixture() -> None:
    z = sample("z", dist.Categorical(WEIGHTS))
    y = sample("y", dist.Normal(LOCS[z.long()], SCALES[z.long()]))
    with plate("data", 2):
        sample("x", dist.Normal(y, 1.0), obs=DATA)


def log_joint(noise: Tensor) -> Tensor:
    """log p(y_decentered, x), the class summed out by hand."""
    y = LOCS + SCALES * noise
    likelihood = dist.Normal(y.unsqueeze(-1), 1.0).log_prob(DATA).sum(-1)
    return (WEIGHTS.log() + likelihood).logsumexp(0) + dist.Normal(0.0, 1.0).log_prob(noise)


def test_an_enumerated_site_before_a_reparameterized_one() -> None:
    """The noise does not depend on the class, so that a guide need not know it."""
    program = reparam(mixture, {"y": LocScaleReparam(0.0)})
    noise = torch.tensor(0.4)

    def at_a_point() -> None:
        sample("y_decentered", dist.Delta(noise))

    loss = TraceEnum_ELBO(max_plate_nesting=1)
    assert loss.loss(program, at_a_point) == pytest.approx(-log_joint(noise).item())

    given = condition(program, data={"y_decentered": noise})
    torch.testing.assert_close(log_evidence(given)(), log_joint(noise))
    y = LOCS + SCALES * noise
    scores = WEIGHTS.log() + dist.Normal(y.unsqueeze(-1), 1.0).log_prob(DATA).sum(-1)
    torch.testing.assert_close(marginals(given)()["z"].probs, scores.softmax(0))


def test_the_bound_of_an_enumerated_program() -> None:
    """Its expectation under the guide, by quadrature; and its gradient."""
    grid = torch.linspace(-9.0, 9.0, 2001)
    values = torch.stack([log_joint(each) for each in grid])

    def guide() -> None:
        sample("y_decentered", dist.Normal(param("a", torch.tensor(0.2)), param("b", torch.tensor(0.8))))

    program = reparam(mixture, {"y": LocScaleReparam(0.0)})

    def exact() -> Tensor:
        store = get_param_store()
        log_q = dist.Normal(store["a"], store["b"]).log_prob(grid)
        return -torch.trapezoid(log_q.exp() * (values - log_q), grid)

    with get_param_store().scope():
        loss = TraceEnum_ELBO(num_particles=1000, vectorize_particles=True, max_plate_nesting=1)
        assert check_estimates(loss, program, guide, exact) == {"a", "b"}


@pytest.mark.parametrize("loss", [Trace_ELBO(), TraceEnum_ELBO(strict_enumeration_warning=False)])
def test_the_original_and_the_reparameterized_program_agree(loss: Any) -> None:
    """With the values of the original's sites: the same joint density up to the Jacobian, by the objective."""

    def model() -> None:
        y = sample("y", dist.LogNormal(torch.tensor(0.3), 0.8))
        with plate("data", 2):
            sample("x", dist.Normal(y, 1.0), obs=DATA)

    y = torch.tensor(1.7)

    def guide() -> None:
        sample("y", dist.Delta(y))

    def base_guide() -> None:
        sample("y_base", dist.Delta(y.log()))

    plain = loss.loss(model, guide)
    found = loss.loss(reparam(model, {"y": TransformReparam()}), base_guide)
    assert found == pytest.approx(plain - y.log().item())


def test_the_posterior_with_an_auxiliary_site_integrates_to_the_evidence() -> None:
    """Student's t noise: the evidence by a sum over gamma, against the density of the original program."""
    x = torch.tensor(2.0)

    def model() -> None:
        sample("x", dist.StudentT(torch.tensor(3.0), 0.5, 1.5), obs=x)

    program = reparam(model, {"x": StudentTReparam()})
    grid = torch.linspace(-30.0, 30.0, 6001)

    def given(log_gamma: Tensor) -> Any:
        return trace(condition(program, data={"x_gamma": log_gamma.exp()})).get_trace().log_prob_sum()

    values = torch.stack([given(each) for each in grid[::10]]) + grid[::10]
    found = values.logsumexp(0) + math.log(0.1)
    torch.testing.assert_close(found, trace(model).get_trace().log_prob_sum(), rtol=1e-6, atol=1e-6)


def test_a_guide_of_the_reparameterized_program_is_replayed() -> None:
    @reparam(config={"z": LocScaleReparam(0.2)})
    def model() -> Any:
        return sample("z", dist.Normal(torch.tensor(1.0), 2.0))

    before = trace(model).get_trace()
    after = trace(replay(model, trace=before)).get_trace()
    assert after.nodes["_RETURN"]["value"] == before.nodes["_RETURN"]["value"]
