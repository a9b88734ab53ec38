"""DiscreteCosineReparam and HaarReparam are UnitJacobianReparam with a certain transform."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sumout.distributions as dist
from sumout.effects.handlers import reparam, trace
from sumout.effects.primitives import plate, sample
from sumout.errors import ModelError
from sumout.infer.reparam import DiscreteCosineReparam, HaarReparam, Reparam, UnitJacobianReparam

MAKE = {
    "dct": lambda dim, extra, allow: DiscreteCosineReparam(dim, extra, experimental_allow_batch=allow),
    "haar": lambda dim, extra, allow: HaarReparam(dim, extra > 0, experimental_allow_batch=allow),
    "permuted": lambda dim, extra, allow: UnitJacobianReparam(
        dist.transforms.Permute(torch.tensor([1, 2, 3, 0]), dim=dim),
        "permuted",
        experimental_allow_batch=allow,
    ),
}
reparameterizers = st.tuples(st.sampled_from(sorted(MAKE)), st.sampled_from([0.0, 1.0, -0.5]))


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def family(kind: str, seed: int, *shape: int) -> Any:
    if kind == "real":
        return dist.StudentT(5.0, numbers(seed, *shape), 0.5 + numbers(seed + 1, *shape))
    if kind == "positive":
        return dist.Gamma(1.0 + numbers(seed, *shape), 1.0 + numbers(seed + 1, *shape))
    return dist.Beta(1.0 + numbers(seed, *shape), 1.0 + numbers(seed + 1, *shape))


@settings(max_examples=60)
@given(
    which=reparameterizers,
    kind=st.sampled_from(["real", "positive", "interval"]),
    dim=st.sampled_from([-1, -2]),
    seed=st.integers(0, 1000),
)
def test_the_density_is_kept(
    density_is_kept: Any,
    observed_density_is_kept: Any,
    replayed_value_is_kept: Any,
    which: tuple[str, float],
    kind: str,
    dim: int,
    seed: int,
) -> None:
    name, extra = which
    shape = (2, 4) if dim == -1 else (4, 2)

    def model() -> None:
        sample("x", family(kind, seed, *shape).to_event(-dim))

    config = {"x": MAKE[name](dim, extra, False)}
    seen = density_is_kept(model, config, f"x_{name}")
    assert seen.nodes[f"x_{name}"]["fn"].event_shape == shape[dim:]
    observed_density_is_kept(model, config, f"x_{name}")
    replayed_value_is_kept(model, config, f"x_{name}")


@given(which=reparameterizers, kind=st.sampled_from(["real", "positive"]), seed=st.integers(0, 1000))
def test_plates_that_are_coupled(
    density_is_kept: Any,
    observed_density_is_kept: Any,
    replayed_value_is_kept: Any,
    which: tuple[str, float],
    kind: str,
    seed: int,
) -> None:
    name, extra = which

    def model() -> None:
        with plate("series", 3, dim=-2), plate("time", 4, dim=-1):
            sample("x", family(kind, seed, 4))

    config = {"x": MAKE[name](-1, extra, True)}
    seen = density_is_kept(model, config, f"x_{name}")
    site = seen.nodes[f"x_{name}"]
    assert (site["fn"].batch_shape, site["fn"].event_shape) == ((3, 1), (4,))
    assert [frame.name for frame in site["cond_indep_stack"]] == ["series"]
    x = seen.nodes["x"]
    assert (x["fn"].batch_shape, x["value"].shape) == ((3, 4), (3, 4))
    assert [frame.name for frame in x["cond_indep_stack"]] == ["series", "time"]
    observed_density_is_kept(model, config, f"x_{name}", batch=False)
    replayed_value_is_kept(model, config, f"x_{name}")


def test_one_coupled_and_one_event_dimension(density_is_kept: Any) -> None:
    def model() -> None:
        with plate("series", 3, dim=-2), plate("time", 4, dim=-1):
            sample("x", dist.Dirichlet(torch.ones(3)))

    config = {"x": DiscreteCosineReparam(dim=-2, smooth=1.0, experimental_allow_batch=True)}
    seen = density_is_kept(model, config, "x_dct", lambda value: value[..., :-1])
    site = seen.nodes["x_dct"]
    assert (site["fn"].batch_shape, site["fn"].event_shape) == ((3, 1), (4, 2))


def test_the_frequency_of_a_wave() -> None:
    time = torch.arange(8.0)
    wave = (torch.pi * 3 * (time + 0.5) / 8).cos()

    def model() -> None:
        sample("x", dist.Normal(torch.zeros(8), 1.0).to_event(1), obs=wave)

    found = trace(reparam(model, {"x": DiscreteCosineReparam()})).get_trace().nodes["x_dct"]["value"]
    torch.testing.assert_close(found, 2.0 * torch.eye(8)[3])  # norm sqrt(8 / 2)


def test_the_cosine_transform_whitens_a_random_walk() -> None:
    """Brownian noise has variance 1 / frequency**2, in the limit of low frequencies; smooth=1 undoes it."""
    size, count = 64, 4000
    walk = torch.randn(count, size).cumsum(-1)

    def model() -> None:
        sample("x", dist.Normal(torch.zeros(size), 1.0).expand([count, size]).to_event(1), obs=walk)

    config = {"x": DiscreteCosineReparam(smooth=1.0)}
    found = trace(reparam(model, config)).get_trace().nodes["x_dct"]["value"]
    spread = found[:, 4:16].std(0)
    assert spread.max() / spread.min() < 1.1  # each is known to 1 / sqrt(2 * 4000), 1.1 %
    white = trace(reparam(model, {"x": DiscreteCosineReparam()})).get_trace().nodes["x_dct"]["value"]
    spread = white[:, 4:16].std(0)
    assert spread.max() / spread.min() > 3.0


def test_haar_coefficients() -> None:
    def coefficients(reparameterizer: Reparam) -> Any:
        def model() -> None:
            x = torch.tensor([1.0, 1.0, 5.0, 3.0])
            sample("x", dist.Normal(torch.zeros(4), 1.0).to_event(1), obs=x)

        return trace(reparam(model, {"x": reparameterizer})).get_trace().nodes["x_haar"]["value"]

    root = 2.0**-0.5
    first = coefficients(HaarReparam())
    torch.testing.assert_close(first.abs(), torch.tensor([5.0, 3.0, 0.0, 2.0 * root]))
    flipped = coefficients(HaarReparam(flip=True))
    torch.testing.assert_close(flipped.abs(), torch.tensor([5.0, 3.0, 2.0 * root, 0.0]))


def test_a_handler_can_be_copied_after_a_run() -> None:
    """Nothing of a run, with its gradients, stays behind in the reparameterizer."""
    loc = torch.zeros(4, requires_grad=True)
    program = reparam(
        lambda: sample("x", dist.Normal(loc, 1.0).to_event(1)), {"x": DiscreteCosineReparam(smooth=1.0)}
    )
    program()
    copy.deepcopy(program)()


def test_one_reparameterizer_in_two_precisions() -> None:
    shared = DiscreteCosineReparam(smooth=1.0)
    for dtype in (torch.float64, torch.float32):
        fn = dist.Normal(torch.zeros(4, dtype=dtype), torch.ones(4, dtype=dtype)).to_event(1)
        x = reparam(lambda fn=fn: sample("x", fn), {"x": shared})()
        assert x.dtype == dtype


@pytest.mark.parametrize("make", [DiscreteCosineReparam, HaarReparam])
def test_a_dimension_counted_from_the_left(make: Any) -> None:
    with pytest.raises(ModelError, match=f"{make.__name__} has dim=1"):
        make(dim=1)


def test_what_does_not_fit() -> None:
    def fails(fn: Any, message: str, allow: bool = False) -> None:
        config = {"x": DiscreteCosineReparam(experimental_allow_batch=allow)}
        with pytest.raises(ModelError, match=message):
            reparam(lambda: sample("x", fn), config)()

    fails(
        dist.Normal(torch.zeros(4), 1.0), r"site 'x'.*event shape is \(\).*say experimental_allow_batch=True"
    )
    fails(dist.Normal(torch.tensor(0.0), 1.0), r"site 'x'.*batch shape is \(\)", allow=True)
    fails(dist.Bernoulli(torch.full((4,), 0.5)).to_event(1), "no bijection of its support")
