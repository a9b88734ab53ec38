from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sumout.distributions as dist
from sumout.effects.handlers import condition, mask, reparam, trace
from sumout.effects.primitives import get_param_store, plate, sample
from sumout.errors import ModelError
from sumout.infer.reparam import LocScaleReparam

FAMILIES: dict[str, Callable[..., Any]] = {
    "Normal": dist.Normal,
    "Laplace": dist.Laplace,
    "Cauchy": dist.Cauchy,
    "Gumbel": dist.Gumbel,
    "Logistic": dist.Logistic,
    "StudentT": lambda loc, scale: dist.StudentT(2.5 + scale, loc, scale),
    "SoftLaplace": dist.SoftLaplace,
    "AsymmetricLaplace": lambda loc, scale: dist.AsymmetricLaplace(loc, scale, 0.3 + scale),
    "SoftAsymmetricLaplace": lambda loc, scale: dist.SoftAsymmetricLaplace(loc, scale, 1.5, 0.7),
    "SkewLogistic": lambda loc, scale: dist.SkewLogistic(loc, scale, 1.5),
}
SHAPES = [(), (3,), (2,), (2, 3), (1, 3)]


def numbers(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=60)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    shape=st.sampled_from(SHAPES),
    event_dim=st.integers(0, 2),
    centered=st.sampled_from([0.0, 0.25, 0.9, 1, "each", "learned"]),
    seed=st.integers(0, 1000),
)
def test_the_density_is_kept(
    density_is_kept: Any, family: str, shape: tuple[int, ...], event_dim: int, centered: Any, seed: int
) -> None:
    event_dim = min(event_dim, len(shape))
    loc, scale = 6.0 * numbers(shape, seed) - 3.0, 0.2 + 2.0 * numbers(shape, seed + 1)

    def model() -> Any:
        return sample("x", FAMILIES[family](loc, scale).to_event(event_dim))

    value = {"each": numbers(shape, seed + 2), "learned": None}.get(centered, centered)
    config = {"x": LocScaleReparam(value)}
    with get_param_store().scope() as _:
        if centered == "learned":
            reparam(model, config)()
            learned = get_param_store()["x_centered"]
            assert learned.shape == shape[len(shape) - event_dim :]
            assert (learned == 0.5).all()
            get_param_store()["x_centered"] = numbers(learned.shape, seed + 2)
        if centered == 1:
            assert trace(reparam(model, config)).get_trace().stochastic_nodes == ["x"]
            return
        seen = density_is_kept(model, config, "x_decentered")
    assert type(seen.nodes["x_decentered"]["fn"]) is type(trace(model).get_trace().nodes["x"]["fn"])


@given(centered=st.floats(0.0, 0.99), seed=st.integers(0, 1000), event_dim=st.integers(0, 2))
def test_an_observed_site(
    observed_density_is_kept: Any, replayed_value_is_kept: Any, centered: float, seed: int, event_dim: int
) -> None:
    loc, scale = numbers((2, 3), seed), 0.2 + 2.0 * numbers((3,), seed + 1)

    def model() -> Any:
        return sample("x", dist.Normal(loc, scale).to_event(event_dim))

    config = {"x": LocScaleReparam(centered)}
    observed_density_is_kept(model, config, "x_decentered")
    replayed_value_is_kept(model, config, "x_decentered")


@pytest.mark.parametrize("inside", [True, False])
def test_plates(inside: bool, density_is_kept: Any, observed_density_is_kept: Any) -> None:
    config = {"x": LocScaleReparam(0.3)}

    def plated() -> None:
        with plate("rows", 3, dim=-2), plate("columns", 2, dim=-1):
            sample("x", dist.Normal(torch.tensor([1.0, 2.0]), 3.0))

    def plated_around() -> Any:
        with plate("rows", 3, dim=-2), plate("columns", 2, dim=-1), reparam(config=config):
            return sample("x", dist.Normal(torch.tensor([1.0, 2.0]), 3.0))

    if inside:
        density_is_kept(plated, config, "x_decentered")
        observed_density_is_kept(plated, config, "x_decentered")
    else:
        seen = trace(plated_around).get_trace()
        assert seen.nodes["x_decentered"]["fn"].batch_shape == (3, 2)
        assert seen.nodes["x"]["value"].shape == (3, 2)
        x = torch.arange(6.0).reshape(3, 2)

        def observed() -> None:
            with plate("rows", 3, dim=-2), plate("columns", 2, dim=-1):
                with reparam(config=config):
                    sample("x", dist.Normal(torch.tensor([1.0, 2.0]), 3.0), obs=x)

        found = trace(observed).get_trace().log_prob_sum()
        torch.testing.assert_close(found, dist.Normal(torch.tensor([1.0, 2.0]), 3.0).log_prob(x).sum())


def test_the_auxiliary_distribution() -> None:
    fn = dist.Normal(torch.tensor(3.0), 4.0)
    seen = trace(reparam(lambda: sample("x", fn), {"x": LocScaleReparam(0.5)})).get_trace()
    decentered = seen.nodes["x_decentered"]["fn"]
    assert (decentered.loc, decentered.scale) == (1.5, 2.0)


def test_learned_centering_has_a_gradient() -> None:
    with get_param_store().scope():
        program = reparam(lambda: sample("x", dist.Normal(torch.tensor(3.0), 4.0)), {"x": LocScaleReparam()})
        given_noise = condition(program, data={"x_decentered": torch.tensor(2.0)})
        given_noise()
        centered = get_param_store()["x_centered"]
        assert centered.shape == ()
        raw = centered.unconstrained()
        given_noise().backward()
        # x = 3 + 4**(1 - c) (2 - 3 c), d/dc = -log(4) 4**(1 - c) (2 - 3 c) - 3 * 4**(1 - c); c = sigmoid(raw)
        c = torch.tensor(0.5)
        expected = (-c.new_tensor(4.0).log() * (2 - 3 * c) - 3) * 4 ** (1 - c) * c * (1 - c)
        torch.testing.assert_close(raw.grad, expected)


def test_one_reparameterizer_for_several_families() -> None:
    shared = LocScaleReparam(0.0)

    def model() -> None:
        sample("x", dist.StudentT(torch.tensor(3.0), 1.0, 2.0))
        sample("y", dist.Normal(torch.tensor(1.0), 2.0))

    program = copy.deepcopy(reparam(model, {"x": shared, "y": shared}))
    seen = trace(program).get_trace()
    assert seen.stochastic_nodes == ["x_decentered", "y_decentered"]
    assert seen.nodes["x_decentered"]["fn"].df == 3.0


def test_shape_params() -> None:
    fn = dist.StudentT(torch.tensor(7.0), 1.0, 2.0)
    seen = trace(reparam(lambda: sample("x", fn), {"x": LocScaleReparam(0.0, ["df"])})).get_trace()
    assert seen.nodes["x_decentered"]["fn"].df == 7.0


def test_stable_coordinates_are_kept() -> None:
    fn = dist.Stable(torch.tensor(1.5), 0.5, 2.0, 1.0, coords="S")
    seen = trace(reparam(lambda: sample("x", fn), {"x": LocScaleReparam(0.0)})).get_trace()
    assert seen.nodes["x_decentered"]["fn"].coords == "S"


def test_a_masked_site_is_not_scored() -> None:
    def model() -> None:
        sample("x", dist.Normal(torch.tensor(3.0), -1.0, validate_args=False), obs=torch.tensor(1.0))

    program = mask(reparam(model, {"x": LocScaleReparam(0.0)}), mask=False)
    with pytest.raises(ValueError, match="scale"):  # torch's own check of the decentered distribution
        reparam(model, {"x": LocScaleReparam(0.5)})()
    assert trace(program).get_trace().log_prob_sum() == 0.0


@pytest.mark.parametrize("centered", [-0.1, 1.5, torch.tensor([0.5, 2.0]), "half"])
def test_centering_outside_of_its_range(centered: Any) -> None:
    with pytest.raises(ModelError, match="centered="):
        LocScaleReparam(centered)


def test_shape_params_that_are_no_names() -> None:
    with pytest.raises(ModelError, match="shape_params"):
        LocScaleReparam(0.0, "df")


def test_families_that_do_not_fit() -> None:
    def fails(fn: Any, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            reparam(lambda: sample("x", fn), {"x": LocScaleReparam(0.0)})()

    fails(
        dist.Bernoulli(0.5),
        "LocScaleReparam does not fit site 'x', which is Bernoulli: it has no loc and scale",
    )
    fails(dist.LogNormal(0.0, 1.0), "TransformReparam, then LocScaleReparam at 'x_base'")
    fails(dist.Delta(torch.tensor(0.0)), "which is Delta")
