from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from forms import forms, in_threads
from sumout.effects import Messenger, NonlocalExit
from sumout.effects.handlers import block, condition, enum, escape, replay, scale, seed, trace
from sumout.effects.primitives import get_param_store, param, plate, sample
from sumout.effects.stack import state
from sumout.errors import ModelError


def model(loc: float = 0.0) -> Any:
    """Two normal sites."""
    a = sample("a", dist.Normal(loc, 1.0))
    return a, sample("b", dist.Normal(a, 1.0))


def at_b(site: Any) -> bool:
    return site["name"] == "b"


def left(run: Any, *args: Any) -> NonlocalExit:
    with pytest.raises(NonlocalExit) as caught:
        run(*args)
    return caught.value


def test_leaves_at_the_chosen_site_before_it_has_a_value() -> None:
    site = left(escape(model, at_b)).site
    assert (site.name, site.type, site.value, site.is_observed) == ("b", "sample", None, False)
    assert isinstance(site.fn, dist.Normal)


def test_in_every_form() -> None:
    for name, run in forms(escape, model, escape_fn=at_b).items():
        for _ in range(2):
            assert left(run).site.name == "b", name
            assert state.stack == []
    assert inspect.signature(escape(model, at_b)) == inspect.signature(model)
    assert escape(model, at_b).__doc__ == "Two normal sites."


def test_nothing_chosen_changes_nothing() -> None:
    seeded = seed(model, rng_seed=1)
    assert escape(seeded, escape_fn=lambda site: False)() == seeded()


def test_params_are_not_asked_for() -> None:
    asked = []

    def program() -> None:
        param("p", torch.tensor(1.0))
        with plate("data", 4, subsample_size=2):
            sample("z", dist.Normal(0.0, 1.0))
        sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    with get_param_store().scope():
        escape(program, escape_fn=lambda site: asked.append(site["name"]))()
    assert asked == ["data", "z", "x"]


def test_the_site_is_as_the_handlers_inside_left_it() -> None:
    def program() -> None:
        with plate("data", 3), scale(scale=2.0):
            sample("b", dist.Normal(0.0, 1.0), infer={"mark": 1})

    site = left(escape(program, at_b)).site
    assert site.fn.batch_shape == (3,)
    assert site.scale == 2
    assert site.infer == {"mark": 1}
    assert [frame.name for frame in site.cond_indep_stack] == ["data"]


def test_handlers_outside_do_not_see_the_site() -> None:
    outside = trace(escape(model, at_b))
    left(outside)
    assert "a" in outside.trace
    assert "b" not in outside.trace
    with enum(first_available_dim=-1), trace() as tracer:
        left(escape(lambda: sample("b", dist.Bernoulli(0.5), infer={"enumerate": "parallel"}), at_b))
    assert "b" not in tracer.trace


def test_a_settled_site_is_left_too() -> None:
    before = trace(model).get_trace()
    site = left(escape(replay(model, trace=before), at_b)).site
    assert site.value is before.nodes["b"].value
    observed = condition(model, data={"b": torch.tensor(1.0)})
    assert left(escape(observed, at_b)).site.is_observed


def test_a_hidden_site_is_not_left() -> None:
    assert escape(block(model, hide=["b"]), at_b)()[1] is not None
    assert left(block(escape(model, at_b))).site.name == "b"


def test_reset_stack_lets_handlers_forget_up_to_one_that_hides_the_site() -> None:
    forgot = []

    class Forget(Messenger):
        def __init__(self, name: str) -> None:
            self.name = name

        def _reset(self) -> None:
            forgot.append(self.name)

    with Forget("outermost"), block(hide=["b"]), Forget("around"):
        left(escape(model, at_b)).reset_stack()
    assert forgot == ["around"]
    with Forget("outermost"), block(hide=["a"]), Forget("around"):
        left(escape(model, at_b)).reset_stack()
    assert forgot[1:] == ["around", "outermost"]


def test_what_is_no_function() -> None:
    with pytest.raises(ModelError, match="escape_fn is a function of a site, not 'b'"):
        escape(model, escape_fn="b")  # type: ignore[arg-type]


def test_one_handler_in_two_threads() -> None:
    handled = escape(model, at_b)

    def run() -> Any:
        return left(handled).site.name

    assert in_threads(run, run) == ["b", "b"]
