"""The statements outside of handlers and under a recorder."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

import sumout.distributions as dist
from sumout.effects.handlers import IndepMessenger, trace
from sumout.effects.primitives import (
    barrier,
    deterministic,
    enable_validation,
    factor,
    get_param_store,
    is_validation_enabled,
    module,
    param,
    plate,
    sample,
    set_rng_seed,
    subsample,
    validation_enabled,
)
from sumout.errors import ModelError
from sumout.settings import settings


def test_outside_of_handlers_a_value_is_drawn() -> None:
    set_rng_seed(3)
    value = sample("x", dist.Normal(torch.zeros(2), 1.0))
    set_rng_seed(3)
    assert torch.equal(value, dist.Normal(torch.zeros(2), 1.0).rsample())


def test_any_function_can_be_sampled_from() -> None:
    assert sample("x", lambda low, high: low + high, 1, high=2) == 3
    with trace() as run:
        assert sample("x", lambda low, high: low + high, 1, high=2) == 3
    assert run.trace.nodes["x"].args == (1,)
    assert run.trace.nodes["x"].kwargs == {"high": 2}


def test_outside_of_handlers_an_observation_is_given_back_with_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match="observe a value outside of inference at x"):
        assert sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(2.0)).item() == 2.0


def test_what_the_caller_says_of_inference_is_not_changed() -> None:
    infer = {"enumerate": "parallel"}
    with trace() as run:
        sample("x", dist.Bernoulli(0.5), infer=infer)
    run.trace.nodes["x"].infer["more"] = 1
    assert infer == {"enumerate": "parallel"}


def test_what_cannot_be_called_is_named() -> None:
    with pytest.raises(ModelError, match=r"'x' samples from torch\.distributions\.normal\.Normal.*sumout"):
        sample("x", torch.distributions.Normal(0.0, 1.0))


def test_a_partly_observed_site_is_split_in_two() -> None:
    observed, mask = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([True, False, True])
    with trace() as run, plate("data", 3):
        value = sample("x", dist.Normal(torch.zeros(()).double(), 1.0), obs=observed, obs_mask=mask)
    nodes = run.trace.nodes
    assert [name for name in nodes if name.startswith("x")] == ["x_observed", "x_unobserved", "x"]
    assert torch.equal(value[mask], observed[mask])
    assert torch.equal(value[~mask], nodes["x_unobserved"].value[~mask])
    expected = dist.Normal(torch.zeros(()).double(), 1.0).log_prob(value).sum()
    torch.testing.assert_close(run.trace.log_prob_sum(), expected, rtol=1e-14, atol=0)


def test_a_partly_observed_site_with_event_dimensions() -> None:
    mask = torch.tensor([True, False])
    fn = dist.MultivariateNormal(torch.zeros(2, 3), torch.eye(3))
    with trace():
        value = sample("x", fn, obs=torch.ones(2, 3), obs_mask=mask)
    assert torch.equal(value[0], torch.ones(3))
    assert not (value[1] == 1).any()


def test_a_mask_of_more_elements_than_the_distribution() -> None:
    """Each of them is an element of the site."""
    data, mask = torch.arange(3.0).double(), torch.tensor([[True, False, True], [False, False, True]])
    fn = dist.Normal(torch.zeros(3).double(), 1.0)
    with trace() as run:
        value = sample("x", fn, obs=data, obs_mask=mask)
    assert value.shape == (2, 3)
    assert torch.equal(value[mask], data.expand(2, 3)[mask])
    assert len(set(value[~mask].tolist())) == 3
    assert run.trace.nodes["x_unobserved"].value.shape == (2, 3)
    torch.testing.assert_close(run.trace.log_prob_sum(), fn.log_prob(value).sum(), rtol=1e-14, atol=0)


def test_a_mask_of_a_scalar_distribution() -> None:
    fn = dist.Dirichlet(torch.ones(3))
    mask = torch.tensor([[True], [False]])
    with trace() as run, plate("data", 2, dim=-3):
        value = sample("x", fn, obs=torch.ones(3) / 3, obs_mask=mask)
    assert value.shape == (2, 2, 1, 3)
    assert run.trace.nodes["x_unobserved"].fn.batch_shape == (2, 2, 1)
    assert (value[:, 0] == torch.ones(3) / 3).all()
    assert len(set(value[:, 1].reshape(-1).tolist())) == 6


def test_along_plates_a_mask_leaves_the_distribution_as_it_is() -> None:
    mask = torch.tensor([[True, False, True], [False, False, True]])
    with trace() as run, plate("rows", 2, dim=-2), plate("columns", 3, dim=-1):
        sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(()), obs_mask=mask)
    assert run.trace.nodes["x_unobserved"].plain_fn.batch_shape == ()
    assert run.trace.nodes["x_unobserved"].value.shape == (2, 3)
    with trace() as run, plate("columns", 3, dim=-1):
        sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(()), obs_mask=mask)
    assert run.trace.nodes["x_unobserved"].plain_fn.batch_shape == (2, 1)
    assert run.trace.nodes["x_unobserved"].value.shape == (2, 3)
    for open_ended in (plate("columns", dim=-1), IndepMessenger("columns", 3)):
        with trace() as run, open_ended:  # which expand nothing
            sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(()), obs_mask=mask[0])
        assert run.trace.nodes["x_unobserved"].value.shape == (3,)


def test_a_mask_of_another_shape_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"'x' has obs_mask of shape \(4,\).*batch shape \(3,\)"), trace():
        sample("x", dist.Normal(torch.zeros(3), 1.0), obs=torch.zeros(3), obs_mask=torch.ones(4).bool())


def test_a_factor_is_its_logarithm_in_the_density() -> None:
    with trace() as run, plate("data", 3):
        factor("f", torch.tensor(-1.5).double())
        factor("g", torch.arange(3).double())
    assert run.trace.log_prob_sum().item() == pytest.approx(-4.5 + 3, abs=1e-15)
    assert run.trace.nodes["f"].is_observed
    assert run.trace.nodes["f"].infer["is_auxiliary"]


def test_a_deterministic_value_has_no_part_in_the_density() -> None:
    x = torch.tensor([1.0, 2.0])
    with trace() as run:
        assert deterministic("twice", 2 * x) is run.trace.nodes["twice"].value
        deterministic("batch", x, event_dim=0)
    assert run.trace.log_prob_sum() == 0.0
    assert run.trace.nodes["twice"].fn.event_shape == (2,)
    assert run.trace.nodes["batch"].fn.batch_shape == (2,)
    assert deterministic("twice", x) is x


def test_a_module_lends_its_parameters() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    with get_param_store().scope():
        assert module("net", net) is net
        names = [f"net$$${layer}.{kind}" for layer in (0, 1) for kind in ("weight", "bias")]
        assert list(get_param_store()) == names
        assert param("net$$$0.weight") is net[0].weight


def test_a_module_takes_tensors_of_the_store_when_asked_to() -> None:
    with get_param_store().scope():
        module("net", torch.nn.Sequential(torch.nn.Linear(2, 1)))
        kept, other = param("net$$$0.weight"), torch.nn.Sequential(torch.nn.Linear(2, 1))
        with pytest.warns(UserWarning, match="'net' has other parameters than.*update_module_params=True"):
            module("net", other)
        assert other[0].weight is not kept
        module("net", other, update_module_params=True)
        assert other[0].weight is kept


def test_a_frozen_parameter_is_left_out_with_a_warning() -> None:
    net = torch.nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    with get_param_store().scope():
        with pytest.warns(UserWarning, match="bias was not registered"):
            module("net", net)
        assert list(get_param_store()) == ["net$$$weight"]
        module("other", net.eval())


def test_a_class_is_no_module() -> None:
    with pytest.raises(ModelError, match="takes an instance"):
        module("net", torch.nn.Linear)  # type: ignore[type-var]
    with pytest.raises(ModelError, match="divides names"):
        module("a$$$b", torch.nn.Linear(1, 1))


def test_data_pass_through_unchanged_outside() -> None:
    data = torch.arange(3)
    assert barrier(data) is data
    assert subsample(data, event_dim=0) is data
    with pytest.raises(ModelError, match="event_dim=-1"):
        subsample(data, event_dim=-1)


def test_one_seed_for_all_generators() -> None:
    def draw() -> tuple[float, float, float]:
        return torch.rand(()).item(), np.random.rand(), random.random()

    set_rng_seed(5)
    first = draw()
    set_rng_seed(5)
    assert draw() == first


def test_validation_is_one_switch() -> None:
    assert is_validation_enabled()
    with validation_enabled(False):
        assert not settings.validation
        assert not dist.is_validation_enabled()
        with pytest.raises(ZeroDivisionError), validation_enabled(True):
            assert dist.is_validation_enabled()
            _ = 1 / 0
        assert not is_validation_enabled()
    assert dist.is_validation_enabled()
    enable_validation(False)
    try:
        assert not is_validation_enabled()
    finally:
        enable_validation(True)
