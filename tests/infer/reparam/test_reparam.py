"""The base of all reparameterizers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

import sumout
import sumout.distributions as dist
from forms import in_threads
from sumout.effects.handlers import condition, reparam, trace
from sumout.effects.primitives import sample
from sumout.infer.reparam import Reparam
from sumout.infer.reparam.reparam import determined


class Inputs(Reparam):
    """Leaves the site as it is and notes the program's arguments, when all threads are there."""

    def __init__(self, parties: int = 1) -> None:
        self.seen: list[Any] = []
        self.barrier = threading.Barrier(parties)

    def apply(self, msg: Any) -> Any:
        self.barrier.wait(timeout=60)
        self.seen.append(self.args_kwargs)
        return msg


def test_each_thread_sees_its_own_arguments() -> None:
    inputs = Inputs(2)
    program = reparam(lambda number: sample("x", dist.Normal(0.0, 1.0)), {"x": inputs})
    in_threads(lambda: program(1), lambda: program(2))
    assert sorted(inputs.seen) == [((1,), {}), ((2,), {})]
    assert inputs.args_kwargs is None


class Legacy(Reparam):
    """The form in which reparameterizers were first written."""

    def __call__(self, name: str, fn: Any, obs: Any) -> Any:
        if obs is not None:
            return fn, obs
        value = fn.loc + fn.scale * sample(f"{name}_noise", dist.Normal(torch.zeros_like(fn.loc), 1.0))
        return dist.Delta(value).mask(False), value


def test_the_old_form() -> None:
    def model() -> Any:
        return sample("x", dist.Normal(torch.tensor(3.0), 2.0))

    with pytest.warns(DeprecationWarning, match=r"Legacy defines __call__\(name, fn, obs\)"):
        seen = trace(reparam(model, {"x": Legacy()})).get_trace()
    assert seen.stochastic_nodes == ["x_noise"]
    assert seen.observation_nodes == ["x"]
    with pytest.warns(DeprecationWarning, match="Legacy"):
        seen = trace(reparam(condition(model, data={"x": torch.tensor(1.0)}), {"x": Legacy()})).get_trace()
    assert seen.observation_nodes == ["x"]


def test_wrapping_undoes_unwrapping() -> None:
    reparameterizer = Inputs()
    fn = dist.Normal(torch.zeros(2, 3), 1.0).to_event(1).to_event(1)
    plain, event_dim = reparameterizer._unwrap(fn)
    assert (type(plain), event_dim) == (dist.Normal, 2)
    assert reparameterizer._wrap(plain, event_dim).event_shape == (2, 3)
    assert reparameterizer._wrap(fn, 2) is fn


def test_a_determined_value_with_a_density() -> None:
    value = torch.arange(3.0)
    result = determined(value, 1, torch.tensor([1.0, 2.0]))
    assert result["value"] is value
    assert result["fn"].batch_shape == (2,)
    assert result["fn"].event_shape == (3,)
    assert result["fn"].log_prob(value).tolist() == [1.0, 2.0]
    assert result["fn"].log_prob(value + 1.0).tolist() == [-torch.inf, -torch.inf]


def test_all_names_are_where_they_are_in_pyro() -> None:
    import importlib

    import pyro.infer.reparam

    ours: Any = importlib.import_module("sumout.infer.reparam")
    elsewhere = {"NeuTraReparam", "StructuredReparam"}  # these train on a guide of their own
    for name in set(pyro.infer.reparam.__all__) - elsewhere:
        theirs = getattr(pyro.infer.reparam, name)
        module = theirs.__module__.replace("pyro.", "sumout.", 1)
        assert getattr(importlib.import_module(module), name) is getattr(ours, name)
        assert name in ours.__all__
        _check_signature(theirs, getattr(ours, name))
    assert sumout.poutine.reparam is reparam


def _check_signature(theirs: Any, ours: Any) -> None:
    """Every call of theirs is one of ours: the same names in the same order, with the same defaults or more."""
    import inspect

    expected = [
        each for each in inspect.signature(theirs).parameters.values() if each.kind is not each.VAR_KEYWORD
    ]
    expected = [each for each in expected if each.kind is not each.VAR_POSITIONAL]
    found = list(inspect.signature(ours).parameters.values())
    assert [each.name for each in expected] == [each.name for each in found], theirs
    for one, other in zip(expected, found, strict=True):
        assert one.kind == other.kind
        if one.default is not one.empty and not callable(one.default):
            assert one.default == other.default, (theirs, one.name)
