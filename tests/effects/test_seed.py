from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

import sumout.distributions as dist
from sumout.effects.handlers import seed, trace
from sumout.effects.primitives import sample, set_rng_seed
from sumout.effects.random_state import get_rng_state, set_rng_state
from sumout.errors import ModelError


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.rand()), random.random()


def model() -> Any:
    return sample("z", dist.Normal(torch.zeros(5), 1.0))


def test_same_seed_same_draws() -> None:
    handled = seed(draws, rng_seed=3)
    assert handled() == handled()
    assert seed(draws, rng_seed=4)() != handled()
    set_rng_seed(3)
    assert draws() == handled()
    assert torch.equal(
        seed(model, rng_seed=1)(), trace(seed(model, rng_seed=1)).get_trace().nodes["z"]["value"]
    )


def test_the_former_state_comes_back() -> None:
    set_rng_seed(0)
    expected = draws(), draws()
    set_rng_seed(0)
    first = draws()
    with seed(rng_seed=7):
        draws()
    assert (first, draws()) == expected


def test_and_after_an_error() -> None:
    set_rng_seed(0)
    expected = draws()
    set_rng_seed(0)
    handler = seed(rng_seed=7)
    with pytest.raises(KeyError), handler:
        draws()
        raise KeyError
    assert draws() == expected


def test_a_refused_second_entry_changes_nothing() -> None:
    handler = seed(rng_seed=7)
    before = torch.get_rng_state()
    with handler:
        inside = torch.get_rng_state()
        with pytest.raises(ValueError, match="already active"), handler:
            pass
        assert torch.equal(torch.get_rng_state(), inside)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_state_can_be_put_back() -> None:
    before = get_rng_state()
    first = draws()
    set_rng_state(before)
    assert draws() == first


@pytest.mark.parametrize("wrong", [1.5, "1", None, True])
def test_a_seed_is_an_integer(wrong: Any) -> None:
    with pytest.raises(ModelError, match="integer"):
        seed(rng_seed=wrong)
