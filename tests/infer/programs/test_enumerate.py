from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout.effects.handlers import enum, trace
from sumout.effects.primitives import deterministic, factor, get_param_store, param, plate, sample
from sumout.errors import ModelError
from sumout.infer import config_enumerate

COIN = dist.Bernoulli(torch.tensor([0.2, 0.3], dtype=torch.float64))


def marks(infer: dict[str, Any] | None, **kwargs: Any) -> dict[str, Any]:
    """What config_enumerate makes of a coin's infer."""

    def model() -> None:
        with plate("coins", 2):
            sample("z", COIN, infer=infer)

    recorded: dict[str, Any] = trace(config_enumerate(model, **kwargs)).get_trace().nodes["z"]["infer"]
    return recorded


@pytest.mark.parametrize(
    ("infer", "kwargs", "expected"),
    [
        (None, {}, {"enumerate": "parallel", "expand": False}),
        (None, {"default": "sequential", "expand": True}, {"enumerate": "sequential", "expand": True}),
        (None, {"default": None}, {"enumerate": None, "expand": False}),
        ({"enumerate": "sequential"}, {}, {"enumerate": "sequential", "expand": False}),
        ({"enumerate": None}, {}, {"enumerate": None, "expand": False}),
        ({"expand": True}, {}, {"enumerate": "parallel", "expand": True}),
        ({"enumerate": "parallel"}, {"expand": True}, {"enumerate": "parallel", "expand": True}),
        (
            {"num_samples": 5},
            {"num_samples": 3},
            {"enumerate": "parallel", "expand": False, "num_samples": 5, "tmc": "diagonal"},
        ),
        (
            None,
            {"num_samples": 3, "tmc": "mixture", "expand": True},
            {"enumerate": "parallel", "expand": True, "num_samples": 3, "tmc": "mixture"},
        ),
        (
            {"enumerate": "sequential", "tmc": "mixture"},
            {"num_samples": 3},
            {"enumerate": "sequential", "expand": False, "num_samples": 3, "tmc": "mixture"},
        ),
        (
            {"enumerate": None},
            {"num_samples": 3},
            {"enumerate": None, "expand": False, "num_samples": 3, "tmc": "diagonal"},
        ),
        (
            None,
            {"num_samples": 3, "default": None},
            {"enumerate": None, "expand": False, "num_samples": 3, "tmc": "diagonal"},
        ),
        ({"enumerate": "other", "mark": 1}, {}, {"enumerate": "other", "expand": False, "mark": 1}),
    ],
)
def test_what_a_site_says_of_itself_is_kept(
    infer: dict[str, Any] | None, kwargs: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert marks(infer, **kwargs) == expected


def test_a_site_can_leave_itself_out() -> None:
    @config_enumerate
    def model() -> tuple[torch.Size, torch.Size]:
        kept = sample("kept", dist.Bernoulli(0.5), infer={"enumerate": None})
        return kept.shape, sample("summed", dist.Bernoulli(0.5)).shape

    assert enum(model, first_available_dim=-1)() == ((), (2,))


def test_the_elements_of_a_subsample_are_not_replaced_by_samples() -> None:
    @config_enumerate(num_samples=3)
    def model() -> None:
        with plate("data", 4, subsample_size=2):
            sample("z", dist.Normal(0.0, 1.0))

    nodes = trace(model).get_trace().nodes
    assert nodes["data"]["infer"] == {}
    assert nodes["z"]["infer"]["num_samples"] == 3


def mixed(scale: float = 1.0) -> None:
    """Sites of all kinds."""
    sample("coin", dist.Bernoulli(0.5))
    sample("masked", dist.Categorical(torch.ones(3)).mask(False))
    sample("normal", dist.Normal(0.0, scale))
    sample("counts", dist.Poisson(3.0))
    sample("function", torch.rand, 2)
    sample("seen", dist.Bernoulli(0.5), obs=torch.tensor(1.0))
    deterministic("fixed", torch.tensor(1.0))
    factor("penalty", torch.tensor(-1.0))
    param("p", torch.tensor(1.0))


def marked(program: Any) -> set[str]:
    with get_param_store().scope():
        nodes = trace(program).get_trace().nodes
    return {name for name, site in nodes.items() if "enumerate" in site.infer}


def test_only_latent_sites_whose_values_can_be_listed_are_marked() -> None:
    assert marked(config_enumerate(mixed)) == {"coin", "masked"}
    assert marked(config_enumerate(mixed, default="sequential")) == {"coin", "masked"}


def test_for_samples_all_latent_sites_are_marked() -> None:
    sampled = {"coin", "masked", "normal", "counts", "function"}
    assert marked(config_enumerate(mixed, num_samples=3)) == sampled


def test_in_every_form() -> None:
    @config_enumerate
    def plain() -> None:
        mixed()

    @config_enumerate()
    def called() -> None:
        mixed()

    @config_enumerate(default="sequential", expand=True)
    def configured() -> None:
        """Told."""
        mixed()

    decorate = config_enumerate(default="parallel")
    for program in (plain, called, configured, decorate(mixed), decorate(mixed), config_enumerate(mixed)):
        assert marked(program) == {"coin", "masked"}
    assert configured.__doc__ == "Told."
    assert configured.__name__ == "configured"
    assert inspect.signature(decorate(mixed)) == inspect.signature(mixed)
    assert marked(mixed) == set()


def test_twice_the_inner_marks_hold() -> None:
    inner = config_enumerate(mixed, default="sequential")
    with get_param_store().scope():
        nodes = trace(config_enumerate(inner, expand=True, num_samples=2)).get_trace().nodes
    assert nodes["coin"].infer["enumerate"] == "sequential"
    assert nodes["coin"].infer["expand"] is False
    assert nodes["normal"].infer["enumerate"] == "parallel"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"default": "flat"}, "default is 'flat'"),
        ({"default": "other"}, "default is 'other'"),
        ({"expand": "yes"}, "expand is 'yes'"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"num_samples": 2.5}, "num_samples is 2.5"),
        ({"num_samples": True}, "num_samples is True"),
        ({"num_samples": 3, "default": "sequential"}, "Samples are taken in parallel"),
        ({"num_samples": 3, "tmc": "full"}, "tmc is 'full'"),
        ({"guide": "parallel"}, "takes a program first and was given 'parallel'"),
    ],
)
def test_arguments_that_do_not_exist(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        config_enumerate(**kwargs)
    with pytest.raises(ValueError, match=message):
        config_enumerate(**{"guide": mixed, **kwargs})
