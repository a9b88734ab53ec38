from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout.effects import Message, Messenger, Trace, handlers
from sumout.effects.handlers import condition, enum, infer_config, mask, replay, scale, trace, wrap
from sumout.effects.primitives import sample


class AddMessenger(Messenger):
    """Adds to every value."""

    def __init__(self, amount: float, times: int = 1) -> None:
        self.amount, self.times = amount, times

    def _pyro_post_sample(self, msg: Message) -> None:
        msg.value = msg.value + self.amount * self.times


add = wrap(AddMessenger)


def model(loc: float = 0.0) -> Any:
    """Observes nothing."""
    return sample("z", dist.Delta(torch.tensor(loc)))


def test_of_a_function() -> None:
    assert add(model, 2.0)(1.0) == 3
    assert add(model, amount=2.0, times=3)(loc=1.0) == 7
    handled = add(model, 2.0)
    assert inspect.signature(handled) == inspect.signature(model)
    assert handled.__doc__ == "Observes nothing."


def test_without_a_function() -> None:
    assert isinstance(add(amount=1.0), AddMessenger)
    with add(amount=1.0):
        assert model() == 1

    @add(amount=1.0)
    @add(amount=10.0)
    def decorated() -> Any:
        return model()

    assert decorated() == 11


def test_keeps_name_signature_and_docstring() -> None:
    assert add.__name__ == "add"
    assert add.__doc__ == "Adds to every value."
    assert str(inspect.signature(add)) == "(fn, amount: 'float', times: 'int' = 1)"
    assert infer_config.__name__ == "infer_config"
    assert str(inspect.signature(enum)) == "(fn=None, first_available_dim: 'int | None' = None)"
    assert next(iter(inspect.signature(condition).parameters)) == "fn"


@pytest.mark.parametrize("name", [name for name in handlers.__all__ if name.islower() and name != "wrap"])
def test_every_handler_has_a_docstring_and_pickles_by_name(name: str) -> None:
    handler = getattr(handlers, name)
    assert handler.__doc__
    assert pickle.loads(pickle.dumps(handler)) is handler


@pytest.mark.parametrize(
    ("handler", "argument", "remedy"),
    [
        (condition, {"z": 1.0}, r"condition takes a function first.*dict.*condition\(data=\.\.\.\)"),
        (replay, Trace(), r"replay\(trace=\.\.\.\)"),
        (scale, 0.5, r"float 0\.5.*scale\(scale=\.\.\.\)"),
        (mask, torch.tensor(True), r"mask\(mask=\.\.\.\)"),
        (trace, "flat", r"trace\(graph_type=\.\.\.\)"),
        (enum, -2, r"enum\(first_available_dim=\.\.\.\)"),
    ],
)
def test_something_else_than_a_function_first(handler: Any, argument: Any, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){remedy}"):
        handler(argument)


def test_a_missing_argument_is_told_by_name() -> None:
    with pytest.raises(TypeError, match="data"):
        condition(model)  # type: ignore[call-arg]
