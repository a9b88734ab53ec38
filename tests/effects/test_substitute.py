from __future__ import annotations

import copy
import pickle
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sumout
import sumout.distributions as dist
from forms import forms, in_threads
from sumout import infer, optim
from sumout.distributions import constraints
from sumout.effects.handlers import lift, replay, substitute, trace
from sumout.effects.primitives import get_param_store, module, param, plate, sample
from sumout.errors import ModelError
from sumout.settings import settings


@pytest.fixture(autouse=True)
def _params_of_each_test() -> Any:
    with get_param_store().scope():
        yield


def model() -> Any:
    rate = param("rate", torch.tensor(2.0), constraint=constraints.positive)
    return rate, sample("x", dist.Exponential(rate))


@pytest.mark.parametrize(
    "form", ["function", "decorator", "context manager", "copy", "copy of a handled program"]
)
def test_gives_a_param_its_value(form: str) -> None:
    recorded = trace(forms(substitute, model, data={"rate": torch.tensor(0.25)})[form]).get_trace()
    rate, x = recorded.nodes["_RETURN"]["value"]
    assert rate == 0.25
    assert recorded.nodes["rate"]["value"] is rate
    assert recorded.nodes["rate"]["type"] == "param"
    assert recorded.nodes["x"]["fn"].rate == 0.25
    assert recorded.nodes["x"]["value"] is x
    assert list(get_param_store()) == []  # the store is not asked


def test_params_that_are_not_named_are_left_alone() -> None:
    def both() -> Any:
        return param("a", torch.tensor(1.0)), param("b", torch.tensor(2.0))

    a, b = substitute(both, data={"b": 5.0})()
    assert (a, b) == (1.0, 5.0)
    assert list(get_param_store()) == ["a"]
    a, b = substitute(both, data={"a": None, "b": 5.0})()
    assert (a, b) == (1.0, 5.0)


def test_sample_sites_are_left_alone() -> None:
    def program() -> Any:
        param("x", torch.tensor(1.0))
        return sample("z", dist.Delta(torch.tensor(3.0)))

    with pytest.warns(UserWarning, match="substitute found no param site named 'z'"):
        assert substitute(program, data={"z": 1.0})() == 3.0


def test_numbers_take_the_type_of_the_initial_value() -> None:
    def program() -> Any:
        return param("a", torch.tensor(0.5, dtype=torch.float64))

    for number in (0.3, 1, np.float64(0.3)):
        value = substitute(program, data={"a": number})()
        assert value.dtype == torch.float64
        assert value == number
    assert substitute(lambda: param("a"), data={"a": 0.3})().dtype == torch.float32
    assert substitute(lambda: param("a", lambda: torch.ones(2)), data={"a": 0.3})() == torch.tensor(0.3)


def test_what_is_no_tensor_or_number() -> None:
    with pytest.raises(ModelError, match="param 'rate' is of type str"):
        substitute(model, data={"rate": "fast"})()  # type: ignore[dict-item]
    with pytest.raises(ModelError, match="substitute takes values by name of site and was given float"):
        substitute(model, data=0.5)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="given a Trace; use replay"):
        substitute(model, data=trace(model).get_trace())  # type: ignore[arg-type]


def test_a_value_outside_of_the_constraint() -> None:
    outside = substitute(model, data={"rate": torch.tensor(-1.0)})
    wanted = re.escape("param 'rate' lies outside of its constraint GreaterThan(lower_bound=0.0): -1.0")
    with pytest.raises(ModelError, match=wanted):
        outside()

    def simplex() -> Any:
        return param("p", torch.ones(3) / 3, constraint=constraints.simplex)

    substitute(simplex, data={"p": torch.tensor([0.5, 0.25, 0.25])})()
    with pytest.raises(ModelError, match="'p' lies outside"):
        substitute(simplex, data={"p": torch.tensor([0.5, 0.5, 0.25])})()
    with settings.override(validation=False):
        assert substitute(simplex, data={"p": torch.tensor([0.5, 0.5, 0.25])})().sum() == 1.25


def test_the_value_has_an_unconstrained_side() -> None:
    value = torch.tensor(0.25)
    recorded = trace(substitute(model, data={"rate": value})).get_trace()
    unconstrained = [recorded.nodes[name]["value"].unconstrained() for name in recorded.param_nodes]
    assert torch.allclose(unconstrained[0].exp(), value)
    assert not hasattr(value, "unconstrained")  # the given tensor is as it was
    stored = get_param_store().setdefault("own", torch.tensor(1.0))
    assert substitute(lambda: param("own"), data={"own": stored})() is stored


def test_statements_of_one_name_get_one_tensor() -> None:
    def program() -> Any:
        first = param("rate", torch.tensor(1.0), constraint=constraints.positive)
        return first, param("rate")

    first, second = substitute(program, data={"rate": 0.5})()
    assert first is second
    assert torch.allclose(second.unconstrained(), torch.tensor(0.5).log())


def test_a_gradient_reaches_the_given_tensor() -> None:
    value = torch.tensor(0.5, requires_grad=True)
    rate, _ = substitute(model, data={"rate": value})()
    (rate**2).backward()
    assert value.grad == 1.0
    assert not rate.unconstrained().requires_grad


@pytest.mark.parametrize("constraint", [constraints.positive, constraints.real])
def test_training_leaves_it_alone(constraint: Any) -> None:
    """The other param is trained to where it should go, given the fixed one: loc + shift fits the data's mean."""
    data = torch.tensor([3.0, 4.0, 5.0])

    def program() -> None:
        shift = param("shift", torch.tensor(0.5), constraint=constraint)
        loc = param("loc", torch.tensor(0.0))
        with plate("data", 3):
            sample("x", dist.Normal(loc + shift, 1.0), obs=data)

    fixed = torch.tensor(3.0, requires_grad=True)
    handled = substitute(program, data={"shift": fixed})
    adam = optim.Adam({"lr": 0.1})
    infer.SVI(handled, lambda: None, adam, infer.Trace_ELBO()).run(300)
    assert fixed == 3.0
    assert abs(get_param_store()["loc"].item() - 1.0) < 1e-3
    assert list(get_param_store()) == ["loc"]
    assert list(adam.get_state()) == ["loc"]


def test_the_outer_of_two_holds() -> None:
    assert substitute(substitute(model, data={"rate": 1.0}), data={"rate": 2.0})()[0] == 2.0


def test_with_replay_and_lift() -> None:
    model()
    stored = get_param_store()["rate"]
    assert replay(substitute(model, data={"rate": 1.0}), params={"rate": stored})()[0] is stored
    lifted = trace(lift(model, prior={"rate": dist.Gamma(1.0, 1.0)})).get_trace()
    assert lifted.nodes["rate"]["type"] == "sample"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a param that lift made a sample site is no param any more
        outside = trace(substitute(lift(model, prior={"rate": dist.Gamma(1.0, 1.0)}), data={"rate": 1.0}))
        assert outside.get_trace().nodes["rate"]["type"] == "sample"


def test_in_a_subsampled_plate() -> None:
    def program() -> Any:
        with plate("data", 4, subsample=torch.tensor([1, 3])):
            return param("local", torch.zeros(4), event_dim=0)

    values = torch.arange(4.0)
    local = substitute(program, data={"local": values})()
    assert local.tolist() == [1.0, 3.0]
    assert torch.equal(local.unconstrained(), values)


@pytest.mark.parametrize("name", ["bias", "net$$$bias"])
def test_params_of_modules(name: str) -> None:
    def program() -> Any:
        return module("net", nn.Linear(2, 1), update_module_params=True)(torch.zeros(2))

    assert substitute(program, data={name: torch.tensor([7.0])})() == 7.0


def test_is_copied_and_pickled() -> None:
    handler = substitute(data={"rate": torch.tensor(0.5)})
    for again in (copy.deepcopy(handler), pickle.loads(pickle.dumps(handler))):
        assert again(model)()[0] == 0.5
    value = pickle.loads(pickle.dumps(trace(handler(model)).get_trace().nodes["rate"]["value"]))
    assert value == 0.5
    assert torch.allclose(value.unconstrained(), torch.tensor(0.5).log())


def test_threads() -> None:
    handled = substitute(model, data={"rate": torch.tensor(0.5)})
    assert [rate.item() for rate, _ in in_threads(*[handled] * 4)] == [0.5] * 4


def test_the_example_of_the_specification() -> None:
    def program() -> Any:
        a = sumout.param("a", torch.tensor(0.5))
        return sumout.sample("x", dist.Bernoulli(probs=a))

    recorded = trace(substitute(program, data={"a": 0.3})).get_trace()
    assert recorded.nodes["x"]["fn"].probs == torch.tensor(0.3)
