"""Handled programs travel: they are pickled, copied and saved, and do the same afterwards."""

from __future__ import annotations

import copy
import functools
import inspect
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import sumout.distributions as dist
from sumout.effects.handled import Handled
from sumout.effects.handlers import (
    block,
    broadcast,
    condition,
    do,
    enum,
    equalize,
    lift,
    markov,
    mask,
    replay,
    scale,
    seed,
    substitute,
    trace,
    uncondition,
)
from sumout.effects.primitives import get_param_store, param, plate, sample

ONE = torch.tensor(1.0)


def model(loc: float = 0.0, *, spread: float = 1.0) -> Any:
    """Draws twice."""
    a = sample("a", dist.Normal(loc, spread))
    return sample("b", dist.Normal(a, spread))


@condition(data={"a": ONE})
@scale(scale=2.0)
def decorated(loc: float = 0.0) -> Any:
    """Observes one."""
    return model(loc)


class Model:
    """A program as a method, and as a call."""

    def __init__(self, loc: float) -> None:
        self.loc = loc

    @condition(data={"a": ONE})
    def run(self, shift: float = 0.0) -> Any:
        """Runs."""
        return model(self.loc + shift)

    @condition(data={"a": ONE})
    def __call__(self) -> Any:
        return self.run(), model


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.5))

    def forward(self, shift: float = 0.0) -> Any:
        """Runs."""
        return model(self.loc + shift)


def saved(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "oldest pickle": lambda value: pickle.loads(pickle.dumps(value, 0)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "torch.save": saved,
}
copies = pytest.mark.parametrize("way", COPIES.values(), ids=COPIES)

HANDLED: dict[str, Callable[[], Any]] = {
    "block": lambda: block(model, hide=["a"]),
    "broadcast": lambda: broadcast(model),
    "condition": lambda: condition(model, data={"a": ONE}),
    "do": lambda: do(model, data={"a": ONE}),
    "enum": lambda: enum(model, first_available_dim=-1),
    "equalize": lambda: equalize(model, sites=["a", "b"]),
    "mask": lambda: mask(model, mask=torch.tensor(True)),
    "plate": lambda: plate("data", 3)(model),
    "replay": lambda: replay(model, trace=trace(model).get_trace()),
    "scale": lambda: scale(model, scale=2.0),
    "seed": lambda: seed(model, rng_seed=1),
    "substitute": lambda: substitute(model, data={}),
    "trace": lambda: trace(model),
    "uncondition": lambda: uncondition(model),
    "nested": lambda: trace(scale(condition(model, data={"a": ONE}), scale=2.0)),
    "partial": lambda: condition(functools.partial(model, 1.0), data={"a": ONE}),
    "decorated": lambda: scale(decorated, scale=2.0),
    "method": lambda: scale(Model(0.5).run, scale=2.0),
    "module": lambda: condition(Net(), data={"a": ONE}),
}


def results(program: Any) -> dict[str, Any]:
    torch.manual_seed(7)
    recorded = trace(program).get_trace()
    return {
        name: (site.value, site["log_prob"], site.is_observed)
        for name, site in recorded.nodes.items()
        if name in "ab"
    }


@copies
@pytest.mark.parametrize("name", HANDLED)
def test_a_copy_does_the_same(name: str, way: Callable[[Any], Any]) -> None:
    handled = HANDLED[name]()
    again = way(handled)
    expected, found = results(handled), results(again)
    assert expected.keys() == found.keys()
    for site, (value, log_prob, is_observed) in expected.items():
        assert torch.equal(found[site][0], value)
        assert torch.equal(found[site][1], log_prob)
        assert found[site][2] == is_observed
    assert type(again) is type(handled)


@copies
def test_a_decorated_function_is_found_by_its_name(way: Callable[[Any], Any]) -> None:
    assert way(decorated) is decorated
    assert way(Model.run) is Model.run


@copies
def test_a_method_keeps_its_instance(way: Callable[[Any], Any]) -> None:
    bound = Model(2.0).run
    again = way(bound)
    assert again.__wrapped__.__self__.loc == 2.0
    site = trace(again).get_trace(1.0).nodes["a"]
    assert site["fn"].loc == 3.0
    assert site["is_observed"]
    # Handled once, not once more for each copy.
    assert isinstance(bound, Handled)
    assert inspect.ismethod(again.fn)


def test_a_module_is_copied_with_its_parameters() -> None:
    net = Net()
    handled = condition(net, data={"a": ONE})
    again: Any = copy.deepcopy(handled)
    with torch.no_grad():
        net.loc += 1.0
    assert trace(again).get_trace().nodes["a"]["fn"].loc == 0.5
    assert trace(handled).get_trace().nodes["a"]["fn"].loc == 1.5


def test_attributes_of_ones_own_travel_too() -> None:
    handled: Any = condition(model, data={"a": ONE})
    handled.note = "mine"
    assert pickle.loads(pickle.dumps(handled)).note == "mine"


def test_a_copy_has_data_of_its_own() -> None:
    data = {"a": ONE}
    again = copy.deepcopy(condition(model, data=data))
    data["a"] = torch.tensor(5.0)
    assert trace(again).get_trace().nodes["a"]["value"] == 1.0


def test_what_cannot_be_pickled_is_told_as_for_functions() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(scale(lambda: None, scale=2.0))


def test_names_signatures_and_docstrings() -> None:
    for handled in (condition(model, data={}), scale(condition(model, data={}), scale=2.0)):
        assert handled.__name__ == "model"
        assert handled.__qualname__ == "model"
        assert handled.__module__ == __name__
        assert handled.__doc__ == "Draws twice."
        assert inspect.signature(handled) == inspect.signature(model)
        assert inspect.unwrap(handled) is model
    assert list(inspect.signature(Model(0.0).run).parameters) == ["shift"]
    assert list(inspect.signature(Model.run).parameters) == ["self", "shift"]
    assert Model.run.__doc__ == "Runs."
    assert repr(condition(model, data={})).startswith("Handled(ConditionMessenger, <function model at ")


def test_methods_and_calls() -> None:
    for program in (Model(0.5), Model(0.5).run):
        assert trace(program).get_trace().nodes["a"]["is_observed"]
    assert trace(Model.run).get_trace(Model(0.5), shift=1.0).nodes["a"]["fn"].loc == 1.5


def test_a_module_stays_callable() -> None:
    handled = condition(Net(), data={"a": ONE})
    assert trace(handled).get_trace(shift=1.0).nodes["a"]["fn"].loc == 1.5
    assert list(inspect.signature(handled).parameters) == ["args", "kwargs"]  # torch's own


# ---------------------------------------------------------------------------------------- copies have runs of their own


def drawn(loc: float) -> Any:
    return sample("a", dist.Delta(torch.tensor(loc)))


def test_a_shallow_copy_of_a_trace_records_its_own_runs() -> None:
    handled = trace(drawn, graph_type="dense")
    handled(1.0)
    again = copy.copy(handled)
    assert type(again) is type(handled)
    assert (again.__name__, again.fn, again.msngr.graph_type) == ("drawn", drawn, "dense")
    assert len(again.trace) == 0
    again(2.0)
    assert handled.trace.nodes["a"]["value"] == 1.0
    assert again.trace.nodes["a"]["value"] == 2.0


def test_a_copy_of_an_active_trace_is_not_active() -> None:
    with block(), trace() as recorder:
        drawn(1.0)
        with block(), copy.copy(recorder) as inside:
            drawn(2.0)
        assert inside.trace.nodes["a"]["value"] == 2.0
        assert recorder.trace.nodes["a"]["value"] == 1.0


def test_and_those_of_handlers_of_params() -> None:
    p = torch.tensor(1.0)
    for handler in (lift(prior={"p": dist.Normal(0.0, 1.0)}), substitute(data={"p": p})):
        with get_param_store().scope(), handler:
            first = param("p", p)
            with block(), copy.copy(handler):
                assert param("p", p) is not first
            assert param("p", p) is first


def test_and_those_of_handlers_that_count_dims() -> None:
    def coin(name: str) -> int | None:
        with trace() as recorder:
            sample(name, dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        return recorder.trace.nodes[name].enum_dim

    handler = enum(first_available_dim=-1)
    with handler:
        assert coin("a") == -1
        with block(), copy.copy(handler):
            assert [coin("a"), coin("b")] == [-1, -2]
        assert coin("b") == -2


def test_and_those_of_handlers_by_name() -> None:
    handler = condition(data={"a": ONE})
    with pytest.warns(UserWarning, match="no sample site named 'a'"), handler:
        with block(), copy.copy(handler):
            drawn(2.0)


def test_and_those_of_chains() -> None:
    chain = markov()
    with trace() as recorder:
        with chain:
            drawn(1.0)
            with copy.copy(chain):
                sample("b", dist.Normal(0.0, 1.0))
    assert recorder.trace.nodes["b"].infer["_markov_depth"] == 2


def test_and_those_of_seeds() -> None:
    before, handler = torch.get_rng_state(), seed(rng_seed=1)
    with handler:
        inside = torch.get_rng_state()
        with copy.copy(handler):
            torch.rand(3)
        assert torch.equal(torch.get_rng_state(), inside)
    assert torch.equal(torch.get_rng_state(), before)


def test_and_those_of_plates() -> None:
    rows = plate("rows", 3)
    again = copy.copy(rows)
    with plate("columns", 2), again:
        assert again.dim == -2
    with rows:
        assert rows.dim == -1
        assert copy.copy(rows).dim == -1


def test_a_shallow_copy_keeps_what_a_class_says_of_its_state() -> None:
    class Noted(trace().__class__):  # type: ignore[misc]
        def __getstate__(self) -> dict[str, Any]:
            return {**vars(self), "note": "copied"}

    class Module(Noted, nn.Module):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            Noted.__init__(self)
            self.weight = nn.Parameter(torch.ones(2))

    for made in (Noted(), Module()):
        with made:
            drawn(1.0)
        again = copy.copy(made)
        assert again.note == "copied"
        with again:
            drawn(2.0)
        assert made.trace.nodes["a"]["value"] == 1.0
    assert again.weight is made.weight


def test_attributes_of_ones_own_are_copied() -> None:
    handled: Any = condition(model, data={"a": ONE})
    handled.note = "mine"
    again = copy.copy(handled)
    assert again.note == "mine"
    assert again.msngr is not handled.msngr
    assert again.msngr.data is handled.msngr.data  # shallow
    assert trace(again).get_trace().nodes["a"]["is_observed"]
