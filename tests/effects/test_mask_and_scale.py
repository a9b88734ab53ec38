from __future__ import annotations

from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout.effects.handlers import mask, scale, trace
from sumout.effects.primitives import plate, sample
from sumout.errors import ModelError
from sumout.settings import settings

DATA = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
PLAIN = -0.5 * DATA**2 - 0.5 * torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))


def model() -> None:
    with plate("data", 3):
        sample("x", dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0), obs=DATA)


def log_prob(program: Any) -> torch.Tensor:
    result: torch.Tensor = trace(program).get_trace().nodes["x"]["log_prob"]
    return result


def test_scales_multiply() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    handled = scale(scale(model, scale=weights), scale=0.5)
    assert torch.allclose(log_prob(handled), 0.5 * weights * PLAIN, atol=1e-7)


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), torch.tensor([1.0, 0.0])])
def test_a_scale_is_positive(wrong: Any) -> None:
    with pytest.raises(ModelError, match=r"positive.*mask"):
        scale(scale=wrong)


def test_a_tensor_is_looked_at_only_while_checks_are_on() -> None:
    with settings.override(validation=False):
        scale(scale=torch.tensor(-1.0))


def test_masks_are_combined() -> None:
    one, other = torch.tensor([True, True, False]), torch.tensor([True, False, True])
    handled = mask(mask(model, mask=one), mask=other)
    assert torch.allclose(log_prob(handled), torch.where(one & other, PLAIN, 0.0), atol=1e-7)
    assert torch.equal(log_prob(mask(handled, mask=False)), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(log_prob(mask(handled, mask=True)), log_prob(handled))


@pytest.mark.parametrize("wrong", [2, "yes", None, torch.tensor([1.0, 0.0])])
def test_a_mask_is_boolean(wrong: Any) -> None:
    with pytest.raises(ModelError, match="bool"):
        mask(mask=wrong)


def test_what_is_masked_may_be_nan() -> None:
    data = torch.tensor([1.0, float("nan")])

    def program() -> None:
        sample("x", dist.Normal(torch.zeros(2), 1.0, validate_args=False), obs=data)

    present = mask(program, mask=~torch.isnan(data))
    expected = dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0))
    assert torch.allclose(trace(present).get_trace().log_prob_sum(), expected)
