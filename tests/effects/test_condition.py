from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from forms import forms, in_threads
from sumout.effects.handlers import condition, enum, trace, uncondition
from sumout.effects.primitives import sample
from sumout.errors import ModelError


def model() -> Any:
    z = sample("z", dist.Normal(0.0, 1.0))
    return sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.5))


def test_observes_what_is_given() -> None:
    one = torch.tensor(1.0)
    recorded = trace(condition(model, data={"z": one})).get_trace()
    assert recorded.nodes["z"]["value"] is one
    assert recorded.observation_nodes == ["z", "x"]


def test_replaces_an_observation() -> None:
    assert condition(model, data={"x": torch.tensor(2.0)})() == 2


def test_none_takes_an_observation_away() -> None:
    recorded = trace(condition(model, data={"x": None})).get_trace()
    assert recorded.stochastic_nodes == ["z", "x"]
    assert recorded.nodes["x"]["value"] is not None


def test_takes_the_values_of_a_trace() -> None:
    before = trace(model).get_trace()
    before.remove_node("x")
    recorded = trace(condition(model, data=before)).get_trace()
    assert recorded.nodes["z"]["value"] is before.nodes["z"]["value"]
    assert recorded.nodes["z"]["is_observed"]


def test_a_number_is_scored_like_a_tensor() -> None:
    number = trace(condition(model, data={"z": 1.5})).get_trace()
    tensor = trace(condition(model, data={"z": torch.tensor(1.5)})).get_trace()
    assert number.nodes["z"]["value"] == 1.5
    assert number.log_prob_sum() == tensor.log_prob_sum()


def test_the_inner_condition_is_overruled_by_the_outer() -> None:
    inner = condition(model, data={"z": torch.tensor(1.0)})
    assert trace(condition(inner, data={"z": torch.tensor(2.0)})).get_trace().nodes["z"]["value"] == 2


def test_uncondition_draws_and_remembers() -> None:
    recorded = trace(uncondition(model)).get_trace()
    assert recorded.observation_nodes == []
    site = recorded.nodes["x"]
    assert site["infer"]["was_observed"] is True
    assert site["infer"]["obs"] == 0.5
    assert site["value"] != 0.5
    assert recorded.nodes["z"]["infer"] == {}


def test_uncondition_and_condition_apply_from_the_inside_out() -> None:
    data = {"z": torch.tensor(1.0)}
    assert trace(uncondition(condition(model, data=data))).get_trace().observation_nodes == []
    assert trace(condition(uncondition(model), data=data)).get_trace().observation_nodes == ["z"]


def test_what_is_conditioned_outside_of_enum_is_not_enumerated() -> None:
    def coin() -> Any:
        return sample("z", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})

    recorded = trace(condition(enum(coin, first_available_dim=-1), data={"z": torch.tensor(1.0)})).get_trace()
    site = recorded.nodes["z"]
    assert site["is_observed"]
    assert site.enum_dim is None
    assert recorded.nodes["_RETURN"]["value"] == 1.0


@pytest.mark.parametrize(
    "form", ["function", "decorator", "context manager", "copy", "copy of a handled program"]
)
@pytest.mark.parametrize("handler", [condition, uncondition])
def test_in_all_forms(handler: Any, form: str) -> None:
    arguments = {"data": {"z": torch.tensor(1.0)}} if handler is condition else {}
    handled = forms(handler, model, **arguments)[form]
    assert trace(handled).get_trace().observation_nodes == (["z", "x"] if handler is condition else [])


def test_uncondition_is_a_decorator_without_arguments() -> None:
    @uncondition
    def program(loc: float = 0.0) -> Any:
        """Observes."""
        return sample("x", dist.Normal(loc, 1.0), obs=torch.tensor(0.5))

    assert program.__doc__ == "Observes."
    assert list(inspect.signature(program).parameters) == ["loc"]
    assert program(100.0) > 50


def test_data_is_a_dict_or_a_trace() -> None:
    with pytest.raises(ModelError, match="condition takes values by name of site and was given float"):
        condition(model, data=1.0)  # type: ignore[arg-type]


def test_one_conditioned_program_in_many_threads() -> None:
    handled = trace(condition(model, data={"z": torch.tensor(2.0)}))
    assert [value.item() for value in in_threads(*[lambda: handled.get_trace().nodes["z"]["value"]] * 4)] == [
        2.0
    ] * 4
