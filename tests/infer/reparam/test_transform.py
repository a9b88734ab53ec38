from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sumout.distributions as dist
from sumout.effects.handlers import condition, mask, reparam, trace
from sumout.effects.primitives import plate, sample
from sumout.errors import ModelError
from sumout.infer.reparam import LocScaleReparam, TransformReparam

CONFIG = {"x": TransformReparam()}
transforms = dist.transforms


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def elementwise(seed: int, event_dim: int) -> Any:
    base = dist.Normal(numbers(seed, 2, 3), 0.5 + numbers(seed + 1, 3))
    steps = [transforms.AffineTransform(numbers(seed + 2, 3), 1.5), transforms.ExpTransform()]
    return dist.TransformedDistribution(base, steps).to_event(event_dim)


def multivariate(seed: int, event_dim: int) -> Any:
    base = dist.Normal(torch.zeros(2, 3), 1.0).to_event(1)
    scale = torch.eye(3) + numbers(seed, 3, 3).tril()
    return dist.TransformedDistribution(
        base, [transforms.LowerCholeskyAffine(numbers(seed + 1, 2, 3), scale)]
    ).to_event(min(event_dim, 1))


def mixed(seed: int, event_dim: int) -> Any:
    """A vector transform before an elementwise one."""
    base = dist.Normal(torch.zeros(2, 4), 1.0).to_event(1)
    steps = [transforms.DiscreteCosineTransform(smooth=0.5), transforms.SoftplusTransform()]
    return dist.TransformedDistribution(base, steps).to_event(min(event_dim, 1))


@given(
    build=st.sampled_from([elementwise, multivariate, mixed]),
    seed=st.integers(0, 1000),
    event_dim=st.integers(0, 2),
)
def test_the_density_is_kept(
    density_is_kept: Any,
    observed_density_is_kept: Any,
    replayed_value_is_kept: Any,
    build: Any,
    seed: int,
    event_dim: int,
) -> None:
    def model() -> None:
        sample("x", build(seed, event_dim))

    seen = density_is_kept(model, CONFIG, "x_base")
    x, base = seen.nodes["x"]["fn"], seen.nodes["x_base"]["fn"]
    assert (x.batch_shape, x.event_shape) == (base.batch_shape, base.event_shape)
    observed_density_is_kept(model, CONFIG, "x_base")
    replayed_value_is_kept(model, CONFIG, "x_base")


def test_the_simplex(density_is_kept: Any, observed_density_is_kept: Any, in_simplex: Any) -> None:
    def model() -> None:
        base = dist.Normal(torch.tensor([0.3, -1.0, 2.0]), 0.5).to_event(1)
        fn = dist.TransformedDistribution(base, [transforms.StickBreakingTransform()])
        with plate("data", 2):
            sample("x", fn)

    seen = density_is_kept(model, CONFIG, "x_base", in_simplex)
    assert seen.nodes["x_base"]["fn"].event_shape == (3,)
    assert seen.nodes["x"]["fn"].event_shape == (4,)
    observed_density_is_kept(model, CONFIG, "x_base")


def test_events_of_more_dimensions(density_is_kept: Any, observed_density_is_kept: Any) -> None:
    """A Cholesky factor of a correlation matrix, given by its entries below the diagonal, from a vector."""
    below = torch.tril_indices(3, 3, -1)

    def model() -> None:
        base = dist.Normal(torch.tensor([0.3, -1.0, 2.0]), 0.5).to_event(1)
        with plate("data", 2):
            sample("x", dist.TransformedDistribution(base, [transforms.CorrCholeskyTransform()]))

    seen = density_is_kept(model, CONFIG, "x_base", lambda x: x[..., below[0], below[1]])
    base, x = seen.nodes["x_base"]["fn"], seen.nodes["x"]["fn"]
    assert (base.batch_shape, base.event_shape) == ((2,), (3,))
    assert (x.batch_shape, x.event_shape) == ((2,), (3, 3))
    observed_density_is_kept(model, CONFIG, "x_base")


def test_log_normal_down_to_noise(density_is_kept: Any, latent: Any) -> None:
    config = {"x": TransformReparam(), "x_base": LocScaleReparam(0.0)}

    def model() -> None:
        with plate("data", 3):
            sample("x", dist.LogNormal(torch.tensor(1.0), 2.0))

    seen = density_is_kept(model, config, "x_base_decentered")
    assert latent(seen) == ["x_base_decentered"]
    noise = seen.nodes["x_base_decentered"]["value"]
    torch.testing.assert_close(seen.nodes["x"]["value"], (1.0 + 2.0 * noise).exp())


def test_a_masked_site_is_not_scored() -> None:
    def model() -> None:
        sample("x", dist.LogNormal(torch.tensor(1.0), 2.0), obs=torch.tensor(2.0))

    assert trace(mask(reparam(model, CONFIG), mask=False)).get_trace().log_prob_sum() == 0.0


def test_a_transformation_that_is_not_bijective() -> None:
    def model() -> None:
        sample("x", dist.FoldedDistribution(dist.Normal(torch.tensor(1.0), 2.0)))

    seen = trace(condition(reparam(model, CONFIG), data={"x_base": torch.tensor(-3.0)})).get_trace()
    assert seen.nodes["x"]["value"] == 3.0
    with pytest.raises(ModelError, match="site 'x'.* not bijective, and the site is observed"):
        reparam(condition(model, data={"x": torch.tensor(3.0)}), CONFIG)()


def test_what_does_not_fit() -> None:
    with pytest.raises(ModelError, match="site 'x', which is Normal: it is not a TransformedDistribution"):
        reparam(lambda: sample("x", dist.Normal(0.0, 1.0)), CONFIG)()
    with pytest.raises(ModelError, match="site 'x', which is Weibull: its base is torch's"):
        reparam(lambda: sample("x", dist.Weibull(1.0, 1.0)), CONFIG)()
