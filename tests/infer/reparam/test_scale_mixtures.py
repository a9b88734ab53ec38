"""StudentT, ProjectedNormal and RelaxedOneHotCategorical: the auxiliary sites integrate to the original density.

All integrals are over one variable, by the trapezoidal rule, which for smooth functions that vanish at both ends
is exact to more digits than are asked for.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sumout.distributions as dist
from sumout.effects.handlers import condition, reparam, replay, trace
from sumout.effects.primitives import plate, sample
from sumout.errors import ModelError
from sumout.infer.reparam import GumbelSoftmaxReparam, ProjectedNormalReparam, StudentTReparam

GRID = torch.linspace(-60.0, 60.0, 6001, dtype=torch.float64)
STEP = 0.02


def integral(log_density: Tensor) -> Tensor:
    """Of a density given on the grid, along the first dimension; its logarithm."""
    return log_density.logsumexp(0) + math.log(STEP)


def given_values(program: Any, **values: Tensor) -> Any:
    return trace(condition(program, data=values)).get_trace()


def vector(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------------ Student's t


@given(df=st.floats(0.5, 20.0), seed=st.integers(0, 1000), event_dim=st.integers(0, 1))
def test_student_t(df: float, seed: int, event_dim: int) -> None:
    loc, scale, x = 4.0 * vector(seed, 2) - 2.0, 0.3 + vector(seed + 1, 2), 10.0 * vector(seed + 2, 2) - 5.0
    fn = dist.StudentT(torch.tensor(df), loc, scale).to_event(event_dim)

    def model() -> None:
        with plate("grid", len(GRID), dim=-2 + event_dim):
            sample("x", fn, obs=x)

    seen = given_values(
        reparam(model, {"x": StudentTReparam()}), x_gamma=GRID.exp().unsqueeze(-1).expand(-1, 2)
    )
    gamma, normal = seen.nodes["x_gamma"], seen.nodes["x"]
    assert type(gamma["fn"]) is (dist.Gamma if event_dim == 0 else dist.Independent)
    if event_dim:
        joint = gamma["fn"].base_dist.log_prob(gamma["value"]) + normal["fn"].base_dist.log_prob(x)
    else:
        joint = gamma["log_prob"] + normal["log_prob"]
    expected = dist.StudentT(torch.tensor(df), loc, scale).log_prob(x)
    torch.testing.assert_close(
        integral(joint + GRID.unsqueeze(-1)), expected, rtol=1e-8, atol=1e-8
    )  # g = exp(t)


def test_student_t_that_is_latent_and_in_a_plate() -> None:
    def model() -> None:
        with plate("data", 40000):
            sample("x", dist.StudentT(torch.tensor(5.0), 1.0, 2.0))

    x = trace(reparam(model, {"x": StudentTReparam()})).get_trace().nodes["x"]["value"]
    # mean 1, standard deviation 2 sqrt(5/3); five standard errors
    assert abs(x.mean() - 1.0) < 5.0 * 2.0 * math.sqrt(5 / 3) / math.sqrt(40000)
    inside = ((x - 1.0).abs() < 2.0).double().mean()
    exact = 0.6367825323508773  # P(|t_5| < 1)
    assert abs(inside - exact) < 5.0 * math.sqrt(exact * (1 - exact) / 40000)


# --------------------------------------------------------------------------------------------------- projected normal


@given(dim=st.integers(2, 4), seed=st.integers(0, 1000))
def test_projected_normal(dim: int, seed: int) -> None:
    """All noise on a ray from the origin leads to one direction: p(x) = int p(noise = r x - c) r**(dim-1) dr."""
    concentration = 4.0 * vector(seed, dim) - 2.0
    direction = torch.nn.functional.normalize(vector(seed + 1, dim) - 0.5, dim=-1)
    radius = torch.linspace(0.0, 15.0, 15001, dtype=torch.float64)[1:]

    def model() -> None:
        with plate("radius", len(radius)):
            sample("x", dist.ProjectedNormal(concentration))

    noise = radius.unsqueeze(-1) * direction - concentration
    seen = given_values(reparam(model, {"x": ProjectedNormalReparam()}), x_normal=noise)
    torch.testing.assert_close(seen.nodes["x"]["value"], direction.expand(len(radius), dim))
    densities = seen.nodes["x_normal"]["log_prob"].exp() * radius ** (dim - 1)  # zero at the origin
    expected = dist.ProjectedNormal(concentration).log_prob(direction).exp()
    torch.testing.assert_close(densities.sum() * 1e-3, expected, rtol=1e-5, atol=1e-7)


def test_projected_normal_with_a_value() -> None:
    def model() -> None:
        sample("x", dist.ProjectedNormal(torch.ones(2, 5)).to_event(1))

    before = trace(model).get_trace()
    config = {"x": ProjectedNormalReparam()}
    noise = trace(reparam(replay(model, trace=before), config)).get_trace().nodes["x_normal"]
    assert noise["fn"].event_shape == (2, 5)
    again = given_values(reparam(model, config), x_normal=noise["value"])
    torch.testing.assert_close(again.nodes["x"]["value"], before.nodes["x"]["value"])


# ----------------------------------------------------------------------------------------------------- Gumbel softmax


@given(size=st.integers(2, 4), temperature=st.floats(0.3, 3.0), seed=st.integers(0, 1000))
def test_gumbel_softmax(size: int, temperature: float, seed: int) -> None:
    """Scores that differ by a constant c have one softmax: p(x) = int p(g(x, c)) |det dg / d(x, c)| dc.

    Here g is Gumbel noise, of density exp(-g - exp(-g)), from which the uniform noise is made; the determinant is
    taken of the inverse map, which the program computes, by autograd.
    """
    logits = 2.0 * vector(seed, size)
    x = (2.0 * vector(seed + 1, size)).softmax(-1)
    heat = torch.tensor(temperature)
    shift = torch.linspace(-25.0, 25.0, 501, dtype=torch.float64).unsqueeze(-1)
    gumbel = temperature * x.log() + shift - logits
    gumbel = gumbel[((gumbel > -5.0) & (gumbel < 23.0)).all(-1)]  # beyond, the integrand is below 1e-9
    gumbel.requires_grad_()

    def model() -> None:
        with plate("grid", len(gumbel)):
            sample("x", dist.RelaxedOneHotCategorical(heat, logits=logits))

    noise = (-(-gumbel).exp()).exp()
    seen = given_values(reparam(model, {"x": GumbelSoftmaxReparam()}), x_uniform=noise)
    found = seen.nodes["x"]["value"]
    torch.testing.assert_close(found, x.expand(len(gumbel), size), rtol=1e-5, atol=1e-5)
    assert (seen.nodes["x_uniform"]["log_prob"] == 0.0).all()

    chart = torch.cat([found[:, :-1], (logits + gumbel).mean(-1, keepdim=True)], -1)
    rows = [torch.autograd.grad(chart[:, k].sum(), gumbel, retain_graph=True)[0] for k in range(size)]
    log_det = torch.stack(rows, -2).slogdet()[1]
    density = (-gumbel - (-gumbel).exp()).sum(-1)
    integrated = (density - log_det).logsumexp(0) + math.log(0.1)
    expected = dist.RelaxedOneHotCategorical(heat, logits=logits).log_prob(x)
    torch.testing.assert_close(integrated, expected, rtol=1e-5, atol=1e-5)


def test_gumbel_softmax_with_a_value(replayed_value_is_kept: Any) -> None:
    def model() -> None:
        with plate("data", 3):
            sample("x", dist.RelaxedOneHotCategorical(torch.tensor(0.7), logits=vector(0, 3, 4)))

    for _ in range(20):
        replayed_value_is_kept(model, {"x": GumbelSoftmaxReparam()}, "x_uniform")


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_gumbel_softmax_at_the_ends_of_the_noise(noise: float) -> None:
    def model() -> Any:
        return sample("x", dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=torch.zeros(3)))

    logits = torch.tensor([noise, 0.5, 0.5], requires_grad=True)
    x = condition(reparam(model, {"x": GumbelSoftmaxReparam()}), data={"x_uniform": logits})()
    assert x.isfinite().all()
    x[0].backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("reparameterizer", "wrong"),
    [
        (StudentTReparam(), dist.Normal(0.0, 1.0)),
        (ProjectedNormalReparam(), dist.Normal(torch.zeros(3), 1.0).to_event(1)),
        (GumbelSoftmaxReparam(), dist.Dirichlet(torch.ones(3))),
        (
            GumbelSoftmaxReparam(),
            dist.RelaxedOneHotCategoricalStraightThrough(torch.tensor(1.0), logits=torch.zeros(2)),
        ),
    ],
)
def test_what_does_not_fit(reparameterizer: Any, wrong: Any) -> None:
    with pytest.raises(ModelError, match=f"{type(reparameterizer).__name__} does not fit site 'x', which is"):
        reparam(lambda: sample("x", wrong), {"x": reparameterizer})()


@pytest.mark.parametrize(
    ("reparameterizer", "fn"),
    [
        (ProjectedNormalReparam(), dist.ProjectedNormal(torch.ones(3))),
        (GumbelSoftmaxReparam(), dist.RelaxedOneHotCategorical(torch.tensor(1.0), logits=torch.zeros(3))),
    ],
)
def test_observed_sites_are_refused(reparameterizer: Any, fn: Any) -> None:
    with pytest.raises(ModelError, match="cannot treat the observed site 'x'"):
        reparam(lambda: sample("x", fn, obs=fn.sample()), {"x": reparameterizer})()
