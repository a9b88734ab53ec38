from __future__ import annotations

from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout.effects.handlers import enum, trace
from sumout.effects.primitives import plate, sample
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
