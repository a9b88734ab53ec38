"""Linear dynamics: given the noise of the auxiliary sites, a series is one large normal vector."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sumout.distributions as dist
from sumout.effects.handlers import condition, reparam, trace
from sumout.effects.primitives import plate, sample
from sumout.errors import ModelError
from sumout.infer.reparam import (
    LatentStableReparam,
    LinearHMMReparam,
    StableReparam,
    StudentTReparam,
    SymmetricStableReparam,
)

STEPS, HIDDEN, SEEN = 3, 2, 2


def dense(init: Any, step: Tensor, trans: Any, emit: Tensor, obs: Any) -> dist.MultivariateNormal:
    """The series as one vector: means and covariances carried along step by step.

    ``z_t = z_(t-1) step + w_t``, ``y_t = z_t emit + v_t``. The noise is given as independent normals of shape
    ``(HIDDEN,)``, ``(STEPS, HIDDEN)`` and ``(STEPS, SEEN)``.
    """
    mean, cov = init.mean, init.variance.diag()
    means, covs, cross = [], [], []
    for t in range(STEPS):
        mean = mean @ step + trans.mean[t]
        cov = step.T @ cov @ step + trans.variance[t].diag()
        means.append(mean @ emit + obs.mean[t])
        covs.append(emit.T @ cov @ emit + obs.variance[t].diag())
        cross.append(cov)
    joint = torch.zeros(STEPS, SEEN, STEPS, SEEN)
    for t in range(STEPS):
        joint[t, :, t] = covs[t]
        carried = cross[t]
        for later in range(t + 1, STEPS):
            carried = carried @ step
            joint[t, :, later] = emit.T @ carried @ emit
            joint[later, :, t] = joint[t, :, later].T
    return dist.MultivariateNormal(torch.cat(means), joint.reshape(STEPS * SEEN, STEPS * SEEN))


def matrices(seed: int, *batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    step = torch.randn(*batch, HIDDEN, HIDDEN, generator=generator)
    return step, torch.randn(*batch, HIDDEN, SEEN, generator=generator)


def student(df: float, *shape: int) -> Any:
    scale = torch.linspace(0.5, 1.5, math.prod(shape)).reshape(shape)
    return dist.StudentT(torch.tensor(df), scale - 1.0, scale).to_event(1)


def normal_given(seen: Any, name: str, fn: Any) -> Any:
    """Student's t given its gamma site; a normal as it is."""
    base = fn.base_dist
    if isinstance(base, dist.Normal):
        return base
    return dist.Normal(base.loc, base.scale * seen.nodes[name]["value"].rsqrt())


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    parts=st.sets(st.sampled_from(["init", "trans", "obs"])),
    transformed=st.booleans(),
)
def test_given_the_noise_a_series_is_normal(seed: int, parts: set[str], transformed: bool) -> None:
    torch.manual_seed(seed)
    step, emit = matrices(seed)
    normal = {
        "init": dist.Normal(torch.randn(HIDDEN), 0.7).to_event(1),
        "trans": dist.Normal(torch.randn(STEPS, HIDDEN), 0.7).to_event(1),
        "obs": dist.Normal(torch.randn(STEPS, SEEN), 0.7).to_event(1),
    }
    heavy = {"init": student(3.0, HIDDEN), "trans": student(4.0, HIDDEN), "obs": student(5.0, STEPS, SEEN)}
    noise = {part: heavy[part] if part in parts else normal[part] for part in normal}
    y = torch.randn(STEPS, SEEN)
    obs_dist = noise["obs"]
    if transformed:
        obs_dist = dist.TransformedDistribution(obs_dist, [dist.transforms.ExpTransform()])
    data = y.exp() if transformed else y

    def model() -> None:
        hmm = dist.LinearHMM(noise["init"], step, noise["trans"], emit, obs_dist, duration=STEPS)
        sample("y", hmm, obs=data)

    config = {"y": LinearHMMReparam(**{part: StudentTReparam() for part in parts})}
    seen = trace(reparam(model, config)).get_trace()
    assert seen.stochastic_nodes == [f"y_{part}_gamma" for part in ("init", "trans", "obs") if part in parts]
    for part in parts:
        site = seen.nodes[f"y_{part}_gamma"]
        assert (
            site["fn"].event_shape
            == {"init": (HIDDEN,), "trans": (STEPS, HIDDEN), "obs": (STEPS, SEEN)}[part]
        )
    given_noise = {part: normal_given(seen, f"y_{part}_gamma", fn) for part, fn in noise.items()}
    expanded = {
        part: fn.expand((STEPS, fn.batch_shape[-1])) if part != "init" else fn
        for part, fn in given_noise.items()
    }
    expected = dense(expanded["init"], step, expanded["trans"], emit, expanded["obs"]).log_prob(y.reshape(-1))
    if transformed:
        expected = expected - y.sum()
    torch.testing.assert_close(seen.nodes["y"]["log_prob"], expected, rtol=1e-6, atol=1e-6)


def test_each_step_has_noise_of_its_own() -> None:
    """Also where all steps have the same distributions and matrices."""
    step, emit = matrices(1)

    def model() -> None:
        hmm = dist.LinearHMM(
            student(3.0, HIDDEN), step, student(3.0, HIDDEN), emit, student(3.0, SEEN), duration=STEPS
        )
        sample("y", hmm)

    config = {"y": LinearHMMReparam(StudentTReparam(), StudentTReparam(), StudentTReparam())}
    seen = trace(reparam(model, config)).get_trace()
    shapes = {"init": (HIDDEN,), "trans": (STEPS, HIDDEN), "obs": (STEPS, SEEN)}
    for part, shape in shapes.items():
        assert seen.nodes[f"y_{part}_gamma"]["value"].shape == shape
    assert seen.nodes["y"]["value"].shape == (STEPS, SEEN)


def test_moments_of_a_latent_series() -> None:
    """Student's t with 6 degrees of freedom has variance 6/4 of its scale squared."""
    step, emit = 0.5 * matrices(1)[0], matrices(1)[1]
    noise = {
        "init": student(6.0, HIDDEN),
        "trans": student(6.0, STEPS, HIDDEN),
        "obs": student(6.0, STEPS, SEEN),
    }
    draws = 30000

    def model() -> Any:
        hmm = dist.LinearHMM(noise["init"], step, noise["trans"], emit, noise["obs"], duration=STEPS)
        with plate("draws", draws):
            return sample("y", hmm)

    config = {"y": LinearHMMReparam(StudentTReparam(), StudentTReparam(), StudentTReparam())}
    y = reparam(model, config)().reshape(draws, -1)
    exact = dense(
        noise["init"].base_dist, step, noise["trans"].base_dist, emit, noise["obs"].base_dist
    )  # of any noise with these means and variances the moments are the same
    error = (exact.covariance_matrix.diagonal() / draws).sqrt()
    assert ((y.mean(0) - exact.mean).abs() < 5 * error).all()
    centered = y - exact.mean
    products = centered.unsqueeze(-1) * centered.unsqueeze(-2)
    error = products.std(0) / math.sqrt(draws)
    assert ((products.mean(0) - exact.covariance_matrix).abs() < 5 * error).all()


@pytest.mark.parametrize("plate_inside", [True, False])
def test_batches_and_plates(plate_inside: bool) -> None:
    step, emit = matrices(2, 4, STEPS)
    y = torch.randn(4, STEPS, SEEN)
    hmm = dist.LinearHMM(student(3.0, HIDDEN), step, student(3.0, 4, STEPS, HIDDEN), emit, student(3.0, SEEN))
    config = {"y": LinearHMMReparam(StudentTReparam(), StudentTReparam(), StudentTReparam())}

    def model() -> None:
        with plate("series", 4):
            sample("y", hmm, obs=y)

    def around() -> None:
        with plate("series", 4), reparam(config=config):
            sample("y", hmm, obs=y)

    seen = trace(reparam(model, config) if plate_inside else around).get_trace()
    for name in ("y_init_gamma", "y_trans_gamma", "y_obs_gamma", "y"):
        assert seen.nodes[name]["log_prob"].shape == (4,)
        assert seen.nodes[name]["fn"].batch_shape == (4,)
    assert seen.nodes["y_obs_gamma"]["value"].shape == (4, STEPS, SEEN)


def test_independent_series() -> None:
    """As many series of one dimension each: the same as each by itself, given the same noise."""
    step, emit = torch.randn(SEEN, 1, HIDDEN, HIDDEN), torch.randn(SEEN, 1, HIDDEN, 1)
    y = torch.randn(STEPS, SEEN)
    init = dist.Normal(torch.zeros(SEEN, HIDDEN), 1.0).to_event(1)
    trans = dist.Normal(torch.zeros(SEEN, STEPS, HIDDEN), 1.0).to_event(1)
    obs = dist.StudentT(torch.tensor(3.0), torch.zeros(SEEN, STEPS, 1), 1.0).to_event(1)

    def together(data: Any) -> Any:
        hmm = dist.IndependentHMM(dist.LinearHMM(init, step, trans, emit, obs, duration=STEPS))
        return sample("y", hmm, obs=data)

    def apart(data: Any) -> Any:
        with plate("series", SEEN):
            hmm = dist.LinearHMM(init, step, trans, emit, obs, duration=STEPS)
            return sample("y", hmm, obs=data.T.unsqueeze(-1))

    config = {"y": LinearHMMReparam(obs=StudentTReparam())}
    seen = trace(reparam(together, config)).get_trace(y)
    gamma = seen.nodes["y_obs_gamma"]
    assert gamma["fn"].event_shape == (SEEN, STEPS, 1)
    assert seen.nodes["y"]["fn"].event_shape == (STEPS, SEEN)
    data = {"y_obs_gamma": gamma["value"]}
    other = trace(condition(reparam(apart, config), data=data)).get_trace(y)
    torch.testing.assert_close(seen.log_prob_sum(), other.log_prob_sum())
    assert trace(reparam(together, config)).get_trace(None).nodes["y"]["value"].shape == (STEPS, SEEN)


def test_stable_noise() -> None:
    init = dist.Stable(torch.tensor(1.0), 0.0, 1.0, 0.0).expand([HIDDEN]).to_event(1)
    obs = dist.Stable(torch.tensor(1.5), -0.5, 1.0, 0.0).expand([SEEN]).to_event(1)
    obs = dist.TransformedDistribution(obs, [dist.transforms.ExpTransform()])
    trans = dist.MultivariateNormal(torch.zeros(HIDDEN), torch.eye(HIDDEN))
    step, emit = matrices(3)

    def model() -> None:
        hmm = dist.LinearHMM(init, step, trans, emit, obs, duration=STEPS)
        sample("y", hmm, obs=torch.rand(STEPS, SEEN))

    config = {"y": LinearHMMReparam(init=SymmetricStableReparam(), obs=StableReparam())}
    seen = trace(reparam(model, config)).get_trace()
    assert seen.stochastic_nodes == [
        "y_init_uniform",
        "y_init_exponential",
        "y_obs_z_uniform",
        "y_obs_z_exponential",
        "y_obs_t_uniform",
        "y_obs_t_exponential",
    ]
    assert seen.log_prob_sum().isfinite()


def test_what_does_not_fit() -> None:
    normal, heavy = dist.Normal(torch.zeros(1), 1.0).to_event(1), student(3.0, 1)
    one = torch.ones(1, 1)

    def fails(fn: Any, reparameterizer: Any, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            reparam(lambda: sample("y", fn), {"y": reparameterizer})()

    hmm = dist.LinearHMM(normal, one, heavy, one, normal, duration=3)
    fails(normal, LinearHMMReparam(), "LinearHMMReparam does not fit site 'y', which is Normal")
    fails(hmm, LinearHMMReparam(), "site 'y' needs a normal distribution for trans.*and has StudentT")
    stable = dist.Stable(1.5 * torch.ones(1), 0.0).to_event(1)
    latent = dist.LinearHMM(normal, one, stable, one, normal, duration=3)
    fails(latent, LinearHMMReparam(trans=LatentStableReparam()), "for trans.*and has MaskedDistribution")
    endless = dist.LinearHMM(normal, one, normal, one, normal)
    fails(endless, LinearHMMReparam(), "it has no duration")
    with pytest.raises(ModelError, match="LinearHMMReparam has obs=3"):
        LinearHMMReparam(obs=3)
