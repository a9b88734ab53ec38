"""Chains that take many steps at once: the loop's protocol, what it leaves on sites, and what it refuses."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout import (
    deterministic,
    factor,
    get_param_store,
    markov,
    param,
    plate,
    poutine,
    sample,
    vectorized_markov,
)
from sumout.effects.stack import state
from sumout.effects.steps import ChainStep, Steps
from sumout.errors import ModelError, PlateError
from sumout.infer import config_enumerate
from sumout.poutine import get_mask, get_plates


def as_lists(chain: Any) -> list[Any]:
    return [t if isinstance(t, int) else t.tolist() for t in chain]


@pytest.mark.parametrize(
    ("size", "history", "steps"),
    [
        (5, 1, [0, [0, 1, 2, 3], [1, 2, 3, 4]]),
        (5, 2, [0, 1, [0, 1, 2], [1, 2, 3], [2, 3, 4]]),
        (4, 0, [[0, 1, 2, 3]]),
        (2, 1, [0, [0], [1]]),
        (1, 1, [0]),
        (2, 3, [0, 1]),
    ],
)
def test_first_steps_come_one_by_one_and_all_others_at_once(
    size: int, history: int, steps: list[Any]
) -> None:
    assert as_lists(vectorized_markov("time", size, dim=-1, history=history)) == steps
    assert as_lists(vectorized_markov(name="time", size=size, history=history)) == steps
    assert as_lists(markov(range(size), history=history, dim=-1, name="time")) == steps
    later = [t + 3 if isinstance(t, int) else [each + 3 for each in t] for t in steps]
    assert as_lists(markov(range(3, 3 + size), history=history, dim=-1, name="time")) == later


def test_a_chain_can_be_looped_over_again() -> None:
    chain = vectorized_markov("time", 3)
    assert as_lists(chain) == as_lists(chain) == [0, [0, 1], [1, 2]]


def test_a_name_alone_leaves_a_loop_a_loop() -> None:
    assert list(markov(range(3), name="time")) == [0, 1, 2]


def test_steps_are_index_tensors_that_print_as_slices() -> None:
    steps = Steps.of(1, 3)
    assert f"x_{steps}" == "x_{}".format(steps) == "x_" + str(steps) == "x_slice(1, 3, None)"  # noqa: UP032
    assert isinstance(steps, torch.Tensor)
    assert type(steps + 1) is type(steps[:1]) is type(torch.where(steps > 1, steps, 0)) is torch.Tensor
    assert torch.equal(torch.arange(10.0)[steps], torch.tensor([1.0, 2.0]))
    assert torch.equal(
        torch.arange(20.0).reshape(2, 10)[..., steps], torch.tensor([[1.0, 2.0], [11.0, 12.0]])
    )
    for same in (copy.deepcopy(steps), copy.copy(steps), pickle.loads(pickle.dumps(steps))):
        assert f"{same}" == "slice(1, 3, None)"
        assert torch.equal(same, steps)


def test_sites_lie_in_a_frame_along_the_dimension_of_the_steps() -> None:
    def chain_of_coins() -> None:
        for t in vectorized_markov("time", 4, dim=-2):
            x = sample(f"x_{t}", dist.Bernoulli(0.5 if isinstance(t, int) else 0.2 + 0.5 * x))  # noqa: F821
            data = torch.arange(4.0)[t]
            sample(f"y_{t}", dist.Normal(x, 1.0), obs=data if isinstance(t, int) else data[:, None])

    handled = poutine.enum(config_enumerate(chain_of_coins), first_available_dim=-3)
    trace = poutine.trace(handled).get_trace()
    steps = ["0", "slice(0, 3, None)", "slice(1, 4, None)"]
    assert [name for name in trace if not name.startswith("_")] == [
        f"{site}_{step}" for step in steps for site in "xy"
    ]
    at_once = trace.nodes["x_slice(1, 4, None)"]
    assert [(frame.name, frame.dim, frame.size) for frame in at_once["cond_indep_stack"]] == [("time", -2, 3)]
    assert trace.nodes["x_0"]["cond_indep_stack"] == ()
    assert at_once["value"].shape[-2:] == (1, 1)
    assert at_once["fn"].batch_shape[-2:] == (3, 1)


def test_dim_is_the_rightmost_that_is_free() -> None:
    dims = []
    with plate("sequences", 2):
        for t in vectorized_markov("time", 3):
            if not isinstance(t, int):
                outer, inner = get_plates()
                dims.append((outer.name, outer.dim, inner.name, inner.dim, inner.size))
    assert dims == [("sequences", -1, "time", -2, 2)] * 2


def test_steps_that_are_looked_back_at_do_not_count() -> None:
    data = torch.tensor([0.5, -1.0, 2.0, 0.3], dtype=torch.float64)

    def model(loop: Any) -> list[Any]:
        masks = []
        before: Any = torch.tensor(0.0, dtype=torch.float64)
        for t in loop:
            before = sample(f"y_{t}", dist.Normal(0.5 * before, 1.0), obs=data[t])
            factor(f"f_{t}", 0.1 * before)
            deterministic(f"d_{t}", before)
            masks.append(get_mask())
        return masks

    at_once = poutine.trace(model).get_trace(vectorized_markov("time", 4))
    one_by_one = poutine.trace(model).get_trace(markov(range(4)))
    torch.testing.assert_close(at_once.log_prob_sum(), one_by_one.log_prob_sum())
    assert model(vectorized_markov("time", 4)) == [None, False, None]
    assert at_once.nodes["y_slice(0, 3, None)"]["log_prob_sum"] == 0


def test_with_history_zero_the_chain_is_a_plate() -> None:
    def model() -> torch.Tensor:
        for t in vectorized_markov("time", 3, history=0):
            x = sample(f"x_{t}", dist.Normal(0.0, 1.0))
        return x

    trace = poutine.trace(model).get_trace()
    assert trace.nodes["_RETURN"]["value"].shape == (3,)
    assert trace.nodes["x_slice(0, 3, None)"]["log_prob"].shape == (3,)


def test_params_inside_are_left_whole() -> None:
    with get_param_store().scope():
        for _ in vectorized_markov("time", 3):
            assert param("weights", torch.ones(7), event_dim=0).shape == (7,)


def test_the_step_is_told_on_sites() -> None:
    def model() -> None:
        for t in markov(range(2), name="time"):
            sample(f"x_{t}", dist.Normal(0.0, 1.0))

    trace = poutine.trace(model).get_trace()
    assert trace.nodes["x_1"]["infer"]["_chain"] == ChainStep("time", 1, 2)


# ------------------------------------------------------------------------------------------------ refusals


def test_bad_arguments_are_said() -> None:
    with pytest.raises(ModelError, match="name and a size"):
        vectorized_markov()
    with pytest.raises(ModelError, match="size 0"):
        vectorized_markov("time", 0)
    with pytest.raises(ModelError, match="no name"):
        markov(range(3), dim=-1)
    with pytest.raises(ModelError, match="keep=True"):
        markov(range(3), keep=True, dim=-1, name="time")
    with pytest.raises(ModelError, match="counts upwards by one"):
        markov(range(0, 6, 2), dim=-1, name="time")
    with pytest.raises(ModelError, match="loops over list"):
        markov([1, 2, 3], dim=-1, name="time")
    with pytest.raises(ModelError, match="is no loop"), markov(dim=-1, name="time"):
        pass
    with pytest.raises(ValueError, match="history=-1"):
        vectorized_markov("time", 3, history=-1)


def test_a_name_without_its_step_is_said() -> None:
    def model() -> None:
        for t in vectorized_markov("time", 3):
            sample("x" if isinstance(t, int) else f"x_{t[0]}", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    with pytest.raises(ModelError, match="chain 'time' does not name its step"):
        poutine.trace(model).get_trace()


def test_one_vectorized_chain_does_not_lie_in_another() -> None:
    with pytest.raises(ModelError, match="'inner' lies in another"):
        for _ in vectorized_markov("outer", 3):
            for _ in vectorized_markov("inner", 3):
                pass
    assert state.stack == []


def test_data_of_another_size_are_said() -> None:
    def model() -> None:
        for t in vectorized_markov("time", 5, dim=-1):
            sample(
                f"y_{t}",
                dist.Normal(0.0, 1.0),
                obs=torch.zeros(3) if not isinstance(t, int) else torch.tensor(0.0),
            )

    with pytest.raises(PlateError, match="plate 'time' of size 4"):
        poutine.trace(model).get_trace()


def test_values_of_steps_agree() -> None:
    def model(back: torch.Tensor) -> None:
        for t in vectorized_markov("time", 4):
            chain = torch.tensor([1.0, 2.0, 3.0, 4.0])[t]
            sample(f"x_{t}", dist.Normal(0.0, 1.0), obs=back if f"{t}" == "slice(0, 3, None)" else chain)

    poutine.trace(model).get_trace(torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(ModelError, match=r"'x_slice\(0, 3, None\)' looks back at other values"):
        poutine.trace(model).get_trace(torch.tensor([1.0, 2.0, 3.5]))


@pytest.mark.parametrize("stop_at", [0, 1, 2])
@pytest.mark.parametrize("how", ["raise", "break"])
def test_everything_is_put_back_when_the_loop_is_left_early(stop_at: int, how: str) -> None:
    def leave() -> None:
        for number, _ in enumerate(vectorized_markov("time", 5)):
            if number == stop_at:
                if how == "raise":
                    raise KeyError
                break

    if how == "raise":
        with pytest.raises(KeyError):
            leave()
    else:
        leave()
    assert state.stack == []
    assert state.dims._names == {}
    assert len(as_lists(vectorized_markov("time", 5))) == 3
