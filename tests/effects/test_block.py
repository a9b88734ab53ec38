from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout.effects import Message
from sumout.effects.handlers import BlockMessenger, block, condition, trace
from sumout.effects.primitives import param, sample
from sumout.errors import ModelError

ALL = {"a", "b", "x", "p"}


def model() -> None:
    param("p", torch.tensor(1.0))
    a = sample("a", dist.Normal(0.0, 1.0))
    sample("b", dist.Normal(a, 1.0))
    sample("x", dist.Normal(a, 1.0), obs=torch.tensor(0.0))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({}, set()),
        ({"hide_all": True}, set()),
        ({"expose_all": True}, ALL),
        ({"hide_all": False}, ALL),
        ({"hide_fn": lambda msg: msg["name"] == "a"}, {"b", "x", "p"}),
        ({"expose_fn": lambda msg: msg["name"] == "a"}, {"a"}),
        ({"hide_fn": lambda msg: None, "hide": ["a"]}, ALL),
        ({"hide": ["a", "p"]}, {"b", "x"}),
        ({"hide": []}, ALL),
        ({"expose": ["a", "p"]}, {"a", "p"}),
        ({"expose": []}, set()),
        ({"hide_types": ["sample"]}, {"x", "p"}),
        ({"hide_types": ["observe"]}, {"a", "b", "p"}),
        ({"hide_types": ["param"]}, {"a", "b", "x"}),
        ({"expose_types": ["sample"]}, {"a", "b"}),
        ({"expose_types": ["observe", "param"]}, {"x", "p"}),
        ({"hide": ["a"], "hide_types": ["param"]}, {"b", "x"}),
        ({"hide": ["a"], "expose_types": ["sample"]}, {"b"}),
        ({"hide": ["a"], "expose": ["x"]}, {"x"}),
        ({"expose": ["a"], "expose_types": ["param"]}, {"a", "p"}),
        ({"expose": ["a"], "hide_types": ["param"]}, {"a", "b", "x"}),
        ({"expose": ["a"], "hide_types": ["sample"]}, {"x", "p"}),
    ],
)
def test_what_is_seen_outside(arguments: dict[str, Any], shown: set[str]) -> None:
    with trace() as outside, block(**arguments), trace() as inside:
        model()
    assert set(outside.trace) == shown
    assert set(inside.trace) == ALL


def test_as_a_function_of_a_function() -> None:
    assert set(trace(block(model, hide=["a"])).get_trace()) == {"_INPUT", "b", "x", "p", "_RETURN"}


@pytest.mark.filterwarnings("ignore:condition found no sample site")  # that is the point here
def test_handlers_outside_do_not_act_on_hidden_sites() -> None:
    with (
        condition(data={"a": torch.tensor(3.0), "b": torch.tensor(4.0)}),
        block(hide=["a"]),
        trace() as inside,
    ):
        model()
    assert inside.trace.nodes["a"]["value"] != 3
    assert inside.trace.nodes["b"]["value"] == 4


def test_hides() -> None:
    blocker = BlockMessenger(hide=["a"])
    assert blocker.hides(Message(type="sample", name="a"))
    assert not blocker.hides(Message(type="sample", name="b"))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"hide_fn": bool, "expose_fn": bool}, "hide_fn or expose_fn"),
        ({"hide": ["a", "b"], "expose": ["a"]}, r"same name: \['a'\]"),
        ({"hide_types": ["param"], "expose_types": ["param"]}, r"same type: \['param'\]"),
    ],
)
def test_contradictions(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        block(**arguments)


def test_expose_all_speaks_louder_than_the_default() -> None:
    assert not BlockMessenger(expose_all=True).hides(Message(type="sample", name="a"))
    assert inspect.signature(block).parameters["hide_all"].default is True


def test_a_function_decides_alone() -> None:
    blocker = BlockMessenger(hide_fn=lambda site: site["name"] == "a", hide=["b"], expose=["b"])
    assert blocker.hides(Message(type="sample", name="a"))
    assert not blocker.hides(Message(type="sample", name="b"))
