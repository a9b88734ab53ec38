from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

import sumout.distributions as dist
from forms import forms, in_threads
from sumout.effects.handlers import condition, enum, trace, uncondition
from sumout.effects.primitives import plate, sample
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


def test_numbers_and_arrays_of_numpy_are_tensors() -> None:
    backwards = np.arange(3.0)[::-1]
    fixed = np.arange(3)
    fixed.flags.writeable = False
    for given, expected in (
        (np.float32(0.1), torch.tensor(0.1)),
        (np.int64(2), torch.tensor(2)),
        (np.array(0.1), torch.tensor(0.1, dtype=torch.float64)),
        (backwards, torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)),
        (fixed, torch.tensor([0, 1, 2])),
    ):
        site = trace(condition(model, data={"z": given})).get_trace().nodes["z"]
        assert isinstance(site["value"], torch.Tensor)
        assert site["value"].dtype == expected.dtype
        assert torch.equal(site["value"], expected)
        assert torch.equal(site["log_prob"], dist.Normal(0.0, 1.0).log_prob(expected))
    number = trace(condition(model, data={"z": np.float64(0.5)})).get_trace()
    assert number.nodes["z"]["log_prob"] == dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.5))


@pytest.mark.parametrize(
    "wrong", [[1.0], "1.0", (1.0,), {"a": 1}, 1j, object(), np.array(["1"]), np.array([object()])]
)
def test_what_a_site_cannot_observe_is_told(wrong: Any) -> None:
    with pytest.raises(ModelError, match=f"observe at site 'z' is of type {type(wrong).__name__}.*as_tensor"):
        condition(model, data={"z": wrong})()


def test_what_is_no_distribution_may_give_anything() -> None:
    assert condition(lambda: sample("word", lambda: "a"), data={"word": "b"})() == "b"


def test_the_choice_of_a_subsample_may_be_a_list() -> None:
    def program() -> Any:
        with plate("data", 10, subsample_size=2) as chosen:
            return chosen

    assert condition(program, data={"data": [3, 5]})() == [3, 5]


def test_the_score_parts_of_a_number_are_those_of_a_tensor() -> None:
    """log_prob_sum() took numbers, compute_score_parts() did not."""

    def observed() -> None:
        sample("z", dist.Normal(0.0, 1.0), obs=1.0)

    def wide() -> None:
        sample("z", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0), obs=1)

    for program in (observed, wide, condition(model, data={"z": 1.0})):
        recorded = trace(program).get_trace()
        recorded.compute_score_parts()
        site = recorded.nodes["z"]
        exact = site["fn"].log_prob(torch.tensor(1.0, dtype=site["fn"].loc.dtype))
        for part in (site["score_parts"].log_prob, site["log_prob"]):
            assert part.dtype == exact.dtype
            assert torch.equal(part, exact)


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
