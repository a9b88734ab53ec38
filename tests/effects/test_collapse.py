from __future__ import annotations

import inspect
from typing import Any

import pytest

import sumout.distributions as dist
from forms import forms
from sumout.effects.handlers import CollapseMessenger, TraceMessenger, collapse
from sumout.effects.primitives import sample
from sumout.effects.stack import state
from sumout.errors import ModelError
from sumout.poutine.collapse_messenger import CollapseMessenger as Public


def model() -> Any:
    """A normal site."""
    return sample("z", dist.Normal(0.0, 1.0))


def test_entering_it_says_what_is_missing_and_what_to_do() -> None:
    for name, run in forms(collapse, model, graph_type="dense").items():
        with pytest.raises(ModelError, match=r"by conjugacy yet.*enumerate.*guide"):
            run()
        assert state.stack == [], name


def test_its_place_and_arguments() -> None:
    assert Public is CollapseMessenger
    assert issubclass(CollapseMessenger, TraceMessenger)
    handler = CollapseMessenger("dense", param_only=True)
    assert (handler.graph_type, handler.param_only) == ("dense", True)
    handled = collapse(model)
    assert inspect.signature(handled) == inspect.signature(model)
    assert handled.__doc__ == "A normal site."
