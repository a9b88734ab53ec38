"""Stable laws, told by their characteristic functions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sumout.distributions as dist
from sumout.effects.handlers import reparam, trace
from sumout.effects.primitives import plate, sample, validation_enabled
from sumout.errors import ModelError
from sumout.infer.reparam import LatentStableReparam, StableReparam, SymmetricStableReparam
from sumout.infer.reparam.stable_noise import log_positive_stable, skew_shift, standard_stable

FREQUENCIES = torch.tensor([-2.0, -0.5, 0.2, 0.7, 1.0, 3.0], dtype=torch.float64)
DRAWS = 100_000
ERROR = 5.0 / math.sqrt(DRAWS)
"""Five standard errors of a mean of numbers in [-1, 1], as cosines and sines are."""


def characteristic(t: Tensor, stability: float, skew: float, scale: float = 1.0, loc: float = 0.0) -> Tensor:
    """E exp(i t x) of S0(stability, skew, scale, loc); Nolan (1997), equation 4."""
    size = (scale * t).abs()
    rest = 1 - stability  # tan(pi stability / 2) = cot(pi rest / 2)
    if rest == 0.0:
        term = skew * 2.0 / math.pi * t.sign() * size.log()
    else:
        term = skew / math.tan(math.pi * rest / 2) * t.sign() * (rest * size.log()).expm1()
    return (-(size**stability) * (1 + 1j * term) + 1j * loc * t).exp()


def noise(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    u = (torch.rand(count, generator=generator, dtype=torch.float64) - 0.5) * math.pi
    return u, -torch.rand(count, generator=generator, dtype=torch.float64).log1p_().log()


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


# ------------------------------------------------------------------------------------------------------- the noise


@settings(max_examples=25)
@given(stability=st.floats(0.3, 2.0) | st.sampled_from([1.0, 0.9999, 1.0001, 2.0]), skew=st.floats(-1.0, 1.0))
def test_standard_stable(stability: float, skew: float) -> None:
    x = standard_stable(number(stability), number(skew), *draws())
    found = (1j * FREQUENCIES.unsqueeze(-1) * x).exp().mean(-1)
    expected = characteristic(FREQUENCIES, stability, skew)
    assert (found - expected).abs().max() < 2 * ERROR  # of cosine and sine


@settings(max_examples=25)
@given(index=st.floats(0.15, 1.0))
def test_positive_stable(index: float) -> None:
    s = log_positive_stable(number(index), *draws()).exp()
    t = torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64)
    found = (-t.unsqueeze(-1) * s).exp().mean(-1)
    assert (found - (-(t**index)).exp()).abs().max() < ERROR / 2  # numbers in [0, 1]


def draws() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    uniform = torch.rand(2, DRAWS, generator=generator, dtype=torch.float64)
    return (uniform[0] - 0.5) * math.pi, -(1.0 - uniform[1]).log()


@settings(max_examples=40)
@given(
    stability=st.floats(0.2, 0.98) | st.floats(1.02, 2.0),
    skew=st.floats(-1.0, 1.0),
    u=st.floats(-1.57, 1.57),
    e=st.floats(0.01, 8.0),
)
def test_away_from_one_it_is_the_method_as_it_is_written(
    stability: float, skew: float, u: float, e: float
) -> None:
    """Chambers, Mallows and Stuck in the parametrization S, moved to S0: here nothing grows without bound."""
    b = skew * math.tan(math.pi * stability / 2)
    angle = math.atan(b) / stability
    inside = math.cos(u - stability * (u + angle))
    if inside <= 1e-6:
        return  # rounding of the textbook form
    z = (
        math.sin(stability * (u + angle))
        * (1 + b * b) ** (0.5 / stability)
        / math.cos(u) ** (1 / stability)
        * (inside / e) ** ((1 - stability) / stability)
    )
    found = standard_stable(number(stability), number(skew), number(u), number(e))
    assert found.item() == pytest.approx(z - b, rel=1e-6, abs=1e-6 * (1 + abs(b)))


@pytest.mark.parametrize("skew", [-1.0, 0.0, 0.4, 1.0])
def test_it_is_smooth_at_one(skew: float) -> None:
    """The derivative in the stability, just below, at and just above one; and the value in between."""
    u, e = draws()
    u, e = u[:200], e[:200]
    values, slopes = [], []
    for stability in (1 - 1e-6, 1.0, 1 + 1e-6):
        a = torch.full((200,), stability, dtype=torch.float64, requires_grad=True)
        x = standard_stable(a, number(skew), u, e)
        values.append(x.detach())
        slopes.append(torch.autograd.grad(x.sum(), a)[0])
    torch.testing.assert_close(values[1], (values[0] + values[2]) / 2, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close((values[2] - values[0]) / 2e-6, slopes[1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(slopes[0], slopes[2], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stability", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("skew", [-1.0, 0.0, 1.0])
def test_values_and_gradients_are_finite(dtype: Any, stability: float, skew: float) -> None:
    """At the ends of all parameters and of the noise."""
    half_pi = math.pi / 2
    u, e = torch.meshgrid(
        torch.tensor([-half_pi, -1.0, 0.0, 1.0, half_pi], dtype=dtype),
        torch.tensor([0.0, 1.0, 20.0], dtype=dtype),
        indexing="ij",
    )
    a = torch.tensor(stability, dtype=dtype, requires_grad=True)
    b = torch.tensor(skew, dtype=dtype, requires_grad=True)
    bulk = (u.abs() < half_pi) & (e > 0.0)  # at the ends values are of any size: tails are heavy
    x, log_s = standard_stable(a, b, u, e), log_positive_stable(a / 2, u, e)
    assert not x.isnan().any()
    assert not log_s.isnan().any()
    for value in (x[bulk], log_s[bulk]):
        assert value.isfinite().all()
        for grad in torch.autograd.grad(value.sum(), [a, b], retain_graph=True, allow_unused=True):
            assert grad is None or grad.isfinite()


@given(stability=st.floats(0.2, 0.99) | st.floats(1.01, 2.0), skew=st.floats(0.01, 1.0))
def test_the_shift_of_the_skewed_part(stability: float, skew: float) -> None:
    expected = (skew ** (1 / stability) - skew) * math.tan(math.pi * stability / 2)
    for sign in (1.0, -1.0):
        found = skew_shift(number(stability), number(sign * skew))
        assert found.item() == pytest.approx(sign * expected, rel=1e-8, abs=1e-12)


# ----------------------------------------------------------------------------------------------- the reparameterizers


def conditionally_normal(seen: Any) -> Tensor:
    """E exp(i t x) by the normals that x has given the noise."""
    normal, t = seen.nodes["x"]["fn"], FREQUENCIES.unsqueeze(-1)
    return (1j * t * normal.loc - 0.5 * (t * normal.scale) ** 2).exp().mean(-1)


def drawn(seen: Any) -> Tensor:
    return (1j * FREQUENCIES.unsqueeze(-1) * seen.nodes["x"]["value"]).exp().mean(-1)


def many(reparameterizer: Any, fn: Any, obs: Any = None) -> Any:
    def model() -> None:
        with plate("draws", DRAWS):
            sample("x", fn, obs=obs)

    return trace(reparam(model, {"x": reparameterizer})).get_trace()


LAWS = [
    (0.6, 0.0, 1.0, 0.0),
    (1.0, 0.0, 0.5, 1.0),
    (1.7, 0.0, 2.0, -1.0),
    (2.0, 0.0, 1.0, 0.5),
    (0.6, 0.8, 1.0, 0.0),
    (1.0, -0.5, 0.7, 1.0),
    (1.002, 0.9, 1.0, 0.0),
    (1.5, 1.0, 1.0, 0.3),
    (1.5, -1.0, 0.5, 0.3),
    (1.9, 0.3, 1.0, 0.0),
]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_characteristic_functions(law: tuple[float, ...], latent: Any) -> None:
    stability, skew, scale, loc = law
    fn = dist.Stable(number(stability), skew, scale, loc)
    expected = characteristic(FREQUENCIES, *law)
    seen = many(LatentStableReparam(), fn)
    assert latent(seen) == ["x_uniform", "x_exponential"]
    assert (drawn(seen) - expected).abs().max() < 2 * ERROR
    seen = many(StableReparam(), fn)
    assert latent(seen) == ["x_z_uniform", "x_z_exponential", "x_t_uniform", "x_t_exponential", "x"]
    assert (conditionally_normal(seen) - expected).abs().max() < 2 * ERROR
    assert (drawn(seen) - expected).abs().max() < 2 * ERROR
    if skew == 0.0:
        seen = many(SymmetricStableReparam(), fn)
        assert latent(seen) == ["x_uniform", "x_exponential", "x"]
        assert (conditionally_normal(seen) - expected).abs().max() < ERROR  # real numbers


def test_an_observed_site_is_normal_given_the_noise() -> None:
    """The average of the normal densities is the stable density, for Cauchy's law in closed form."""
    x = torch.tensor([-3.0, 0.0, 0.5, 4.0]).unsqueeze(-1)
    fn = dist.Stable(number(1.0), 0.0, 2.0, 1.0)
    expected = dist.Cauchy(1.0, 2.0).log_prob(x).exp().squeeze(-1)
    for reparameterizer in (SymmetricStableReparam(), StableReparam()):
        seen = many(reparameterizer, fn, obs=torch.tensor(0.5))
        normal = seen.nodes["x"]["fn"]
        densities = normal.log_prob(x).exp()
        error = densities.std(-1) / math.sqrt(DRAWS)
        assert ((densities.mean(-1) - expected).abs() < 5 * error).all()
        assert seen.nodes["x"]["is_observed"]


def test_stability_two_is_normal() -> None:
    fn = dist.Stable(number(2.0), 0.0, torch.tensor([0.5, 3.0]), 1.0)
    seen = trace(reparam(lambda: sample("x", fn), {"x": SymmetricStableReparam()})).get_trace()
    torch.testing.assert_close(seen.nodes["x"]["fn"].scale, math.sqrt(2.0) * torch.tensor([0.5, 3.0]))


@pytest.mark.parametrize("make", [LatentStableReparam, SymmetricStableReparam, StableReparam])
def test_shapes(make: Any, latent: Any) -> None:
    def model() -> None:
        with plate("data", 4):
            sample("x", dist.Stable(torch.tensor([1.2, 1.5, 1.8]), 0.0).to_event(1))

    seen = trace(reparam(model, {"x": make()})).get_trace()
    for name in [*latent(seen), "x"]:
        site = seen.nodes[name]
        assert (site["fn"].batch_shape, site["fn"].event_shape, site["value"].shape) == ((4,), (3,), (4, 3))


@pytest.mark.parametrize("make", [LatentStableReparam, SymmetricStableReparam, StableReparam])
def test_single_precision_stays(make: Any, latent: Any) -> None:
    params = [torch.tensor(each, dtype=torch.float32) for each in (1.5, 0.0, 1.0, 0.0)]
    seen = trace(reparam(lambda: sample("x", dist.Stable(*params)), {"x": make()})).get_trace()
    assert {seen.nodes[name]["value"].dtype for name in [*latent(seen), "x"]} == {torch.float32}


def test_gradients_reach_all_parameters() -> None:
    for make in (LatentStableReparam, SymmetricStableReparam, StableReparam):
        params = [number(each).requires_grad_() for each in (1.5, 0.0, 1.0, 0.0)]
        x = reparam(lambda params=params: sample("x", dist.Stable(*params)), {"x": make()})()
        grads = torch.autograd.grad(x, params, allow_unused=make is SymmetricStableReparam)
        assert all(grad is None or grad.isfinite() for grad in grads)


def test_what_does_not_fit() -> None:
    def fails(make: Any, fn: Any, message: str, obs: Any = None) -> None:
        with pytest.raises(ModelError, match=message):
            reparam(lambda: sample("x", fn, obs=obs), {"x": make()})()

    stable = dist.Stable(number(1.5), 0.5)
    for make in (LatentStableReparam, SymmetricStableReparam, StableReparam):
        fails(make, dist.Normal(0.0, 1.0), f"{make.__name__} does not fit site 'x', which is Normal")
        fails(make, dist.Stable(1.5, 0.0, coords="S"), "coords='S'")
        fails(make, dist.StableWithLogProb(1.5, 0.0), "which is StableWithLogProb")
    fails(SymmetricStableReparam, stable, "skew is not zero everywhere. Use StableReparam")
    fails(LatentStableReparam, stable, "cannot treat the observed site 'x'", obs=torch.tensor(0.0))
    with validation_enabled(False):
        reparam(lambda: sample("x", stable), {"x": SymmetricStableReparam()})()
