from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from forms import forms, in_threads
from sumout.effects import NonlocalExit, Trace
from sumout.effects.handlers import (
    block,
    condition,
    enum,
    equalize,
    escape,
    infer_config,
    lift,
    replay,
    scale,
    trace,
)
from sumout.effects.primitives import get_param_store, markov, param, plate, sample
from sumout.errors import ModelError, PlateError
from sumout.infer import log_evidence, marginals

P = torch.tensor([0.2, 0.3, 0.5]).double()
Q = torch.tensor([0.6, 0.3, 0.1]).double()


def model(loc: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Three normal sites."""
    x = sample("x", dist.Normal(loc, 1.0))
    y = sample("y", dist.Normal(5.0, 3.0))
    return x, y, sample("xy", dist.Normal(x + y, 1.0))


def test_the_later_site_has_the_value_of_the_first_and_no_density() -> None:
    recorded = trace(equalize(model, ["x", "y"])).get_trace()
    x, y = recorded.nodes["x"], recorded.nodes["y"]
    assert y.value is x.value
    assert (x.is_observed, y.is_observed) == (False, True)
    assert y["log_prob"] == 0
    assert y.infer["_deterministic"] is True
    expected = dist.Normal(0.0, 1.0).log_prob(x.value)
    expected += dist.Normal(2 * x.value, 1.0).log_prob(recorded.nodes["xy"].value)
    torch.testing.assert_close(recorded.log_prob_sum(), expected)


def test_keep_dist_conditions_on_being_equal() -> None:
    recorded = trace(equalize(model, ["x", "y"], keep_dist=True)).get_trace()
    x, y = recorded.nodes["x"], recorded.nodes["y"]
    assert y.value is x.value
    assert y.is_observed
    assert "_deterministic" not in y.infer
    torch.testing.assert_close(y["log_prob"], dist.Normal(5.0, 3.0).log_prob(x.value))


def test_in_every_form() -> None:
    for name, run in forms(equalize, model, sites=["x", "y"]).items():
        for _ in range(2):
            x, y, _ = run(loc=100.0)
            assert x == y > 90, name
    handled = equalize(model, "x|y")
    assert inspect.signature(handled) == inspect.signature(model)
    assert handled.__doc__ == "Three normal sites."


@pytest.mark.parametrize(
    ("sites", "equal"),
    [
        ("x", set()),  # a name alone, and not what begins with it
        (".", {"x", "y"}),
        ("x.*", {"x", "xy"}),
        (["y", "xy"], {"y", "xy"}),
        (".*", {"x", "y", "xy"}),
        ([], set()),
    ],
)
def test_names_are_patterns_of_whole_names(sites: Any, equal: set[str]) -> None:
    recorded = trace(equalize(model, sites)).get_trace()
    values = {name: recorded.nodes[name].value.item() for name in ("x", "y", "xy")}
    assert {name for name in values if list(values.values()).count(values[name]) > 1} == equal


def test_what_is_no_pattern() -> None:
    with pytest.raises(ModelError, match=r"'\(' is neither"):
        equalize(sites="(")
    with pytest.raises(ModelError, match="3 is neither"):
        equalize(sites=[3])  # type: ignore[list-item]


def test_the_type_chooses_samples_or_params() -> None:
    def program() -> Any:
        a = param("a_shift", torch.tensor(1.0))
        b = param("b_shift", torch.tensor(2.0))
        return a, b, sample("c_shift", dist.Normal(10.0, 0.1)), sample("d_shift", dist.Normal(20.0, 0.1))

    with get_param_store().scope() as scope:
        a, b, c, d = equalize(program, ".+_shift", "param")()
        assert a is b
        assert c < 15 < d
        # A param that was given a value from outside is not made.
        assert list(scope["params"]) == []
        assert list(get_param_store()) == ["a_shift"]
        recorded = trace(equalize(program, ".+_shift", type="param")).get_trace()
        assert recorded.param_nodes == ["a_shift", "b_shift"]
        assert recorded.nodes["b_shift"].value.unconstrained() is get_param_store()["a_shift"].unconstrained()
        a, b, c, d = equalize(program, ".+_shift")()
        assert (a, b) == (1, 2)
        assert c is d


def test_two_kinds_of_sites_at_once() -> None:
    def category(name: str) -> Any:
        shift = param(f"{name}_shift", torch.randn(()))
        mean = sample(f"{name}_mean", dist.Normal(0.0, 1.0))
        std = sample(f"{name}_std", dist.LogNormal(0.0, 1.0))
        return shift, mean, std

    def categories() -> Any:
        return category("one"), category("two")

    with get_param_store().scope():
        one, two = equalize(equalize(categories, ".+_std"), ".+_shift", "param")()
    assert one[0] is two[0]
    assert one[1] != two[1]
    assert one[2] is two[2]


# ----------------------------------------------------------------------------------------- with other handlers


def coins() -> None:
    a = sample("a", dist.Categorical(P), infer={"enumerate": "parallel"})
    b = sample("b", dist.Categorical(Q), infer={"enumerate": "parallel"})
    sample("s", dist.Normal((a + 2 * b).double(), 1.0), obs=torch.tensor(3.0).double())


LIKELIHOOD = dist.Normal(3.0 * torch.arange(3).double(), 1.0).log_prob(torch.tensor(3.0).double()).exp()


def test_the_evidence_of_equal_sites_is_a_sum_over_one_of_them() -> None:
    torch.testing.assert_close(log_evidence(equalize(coins, "a|b"))().exp(), (P * LIKELIHOOD).sum())
    kept = equalize(coins, "a|b", keep_dist=True)
    torch.testing.assert_close(log_evidence(kept)().exp(), (P * Q * LIKELIHOOD).sum())
    posterior = P * Q * LIKELIHOOD
    torch.testing.assert_close(marginals(kept)()["a"].probs, posterior / posterior.sum())


def test_enumeration_inside_and_outside_agree() -> None:
    outside = trace(enum(equalize(coins, "a|b", keep_dist=True), first_available_dim=-1)).get_trace()
    inside = trace(equalize(enum(coins, first_available_dim=-1), "a|b", keep_dist=True)).get_trace()
    for recorded in (outside, inside):
        assert recorded.nodes["b"].value is recorded.nodes["a"].value
        assert recorded.nodes["b"].enum_dim is None
        total = recorded.nodes["s"]["log_prob"] + recorded.nodes["a"]["log_prob"]
        total = total + recorded.nodes["b"]["log_prob"]
        torch.testing.assert_close(total.exp().sum(), (P * Q * LIKELIHOOD).sum())


def test_within_a_chain_sites_keep_the_marks_of_markov() -> None:
    def chain() -> None:
        for t in markov(range(3)):
            sample(f"z{t}", dist.Categorical(P), infer={"enumerate": "parallel"})

    recorded = trace(enum(equalize(chain, ["z1", "z2"]), first_available_dim=-1)).get_trace()
    assert recorded.nodes["z1"].value is recorded.nodes["z2"].value
    assert recorded.nodes["z2"].enum_dims[recorded.nodes["z1"].enum_dim] == "z1"


def test_a_condition_outside_on_the_first_holds_for_all() -> None:
    recorded = trace(condition(equalize(model, "x|y"), data={"x": torch.tensor(7.0)})).get_trace()
    assert recorded.nodes["y"].value == 7
    inside = trace(equalize(condition(model, data={"x": torch.tensor(7.0)}), "x|y")).get_trace()
    assert inside.nodes["y"].value == 7


def test_replay_reproduces() -> None:
    handled = equalize(model, "x|y")
    before = trace(handled).get_trace()
    after = trace(replay(handled, trace=before)).get_trace()
    assert after.nodes["y"].value is before.nodes["x"].value
    assert after.log_prob_sum() == before.log_prob_sum()


def test_hidden_sites_are_not_matched() -> None:
    x, y, _ = equalize(block(model, hide=["x"]), "x|y")()
    assert x != y
    x, y, _ = block(equalize(model, "x|y"), hide=["x"])()
    assert x == y


def test_scales_and_infer_of_the_later_site_are_kept() -> None:
    marked = infer_config(model, config_fn=lambda site: {"mark": site.name})
    recorded = trace(scale(equalize(marked, "x|y", keep_dist=True), scale=2.0)).get_trace()
    y = recorded.nodes["y"]
    assert y.infer["mark"] == "y"
    torch.testing.assert_close(y["log_prob"], 2 * dist.Normal(5.0, 3.0).log_prob(y.value))


def test_lifted_params_are_samples() -> None:
    def program() -> Any:
        return param("a", torch.tensor(1.0)), param("b", torch.tensor(2.0))

    with get_param_store().scope():
        a, b = equalize(lift(program, prior=dist.Normal(0.0, 1.0)), ".")()
    assert a is b


# --------------------------------------------------------------------------------------------------- plates


@pytest.mark.parametrize("outside", [True, False])
def test_in_plates_the_distribution_has_their_shape(outside: bool) -> None:
    def program() -> None:
        with plate("data", 3):
            x = sample("x", dist.Normal(0.0, 1.0))
            assert sample("y", dist.Normal(0.0, 1.0).expand([3])) is x

    def nested() -> None:
        x = sample("x", dist.Normal(0.0, 1.0))
        with plate("data", 3):
            assert sample("y", dist.Normal(0.0, 1.0)) is x

    for handled in (program, nested):
        if outside:
            recorded = trace(equalize(handled, "x|y")).get_trace()
        else:
            with trace() as tracer, plate("all", 2, dim=-2), equalize(sites="x|y"):
                handled()
            recorded = tracer.trace
        y = recorded.nodes["y"]
        assert y.fn.batch_shape == ((3,) if outside else (2, 3))
        assert y["log_prob"].shape == y.fn.batch_shape
        assert y["log_prob_sum"] == 0


def test_the_event_dimensions_are_those_of_the_later_site() -> None:
    def program() -> None:
        sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        sample("y", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    assert trace(equalize(program, "x|y")).get_trace().nodes["y"].fn.event_shape == (3,)


def test_a_value_that_does_not_fit_into_a_plate() -> None:
    def program() -> None:
        with plate("a", 2):
            sample("x", dist.Normal(0.0, 1.0))
        with plate("b", 3):
            sample("y", dist.Normal(0.0, 1.0))

    with pytest.raises(PlateError, match="'y'"):
        equalize(program, "x|y")()


def test_the_elements_of_a_subsample_are_not_matched() -> None:
    def program() -> Any:
        with plate("data", 10, subsample_size=3) as indices:
            return indices, sample("x", dist.Normal(0.0, 1.0)), sample("y", dist.Normal(0.0, 1.0))

    indices, x, y = equalize(program, ".*")()
    assert indices.dtype == torch.long
    assert x.is_floating_point()
    assert x is y


# ----------------------------------------------------------------------------------------------------- state


def test_each_run_starts_anew_also_after_an_error() -> None:
    handler = equalize(sites="x|y")

    def broken() -> None:
        sample("x", dist.Normal(1000.0, 1.0))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        handler(broken)()
    x, y, _ = handler(model)()
    assert x == y < 900
    assert handler(model)()[0] != x


def test_an_exit_is_forgotten() -> None:
    seen: list[Any] = []

    def program() -> None:
        with equalize(sites="x|y"):
            for _ in range(2):
                try:
                    with escape(escape_fn=lambda site: site.name == "stop"):
                        seen.append(sample("x", dist.Normal(0.0, 1.0)))
                        sample("stop", dist.Normal(0.0, 1.0))
                except NonlocalExit as exit:
                    exit.reset_stack()

    program()
    assert seen[0] != seen[1]


def test_a_site_that_was_left_has_no_value_to_give() -> None:
    handler = equalize(sites="x|y")
    with pytest.raises(NonlocalExit):
        escape(handler(model), escape_fn=lambda site: site.name == "x")()
    assert replay(handler(model), trace=Trace())()[0] is not None


def test_threads_do_not_see_each_other() -> None:
    handler, ready = equalize(sites="x|y"), threading.Barrier(2)

    def run(value: float) -> Any:
        def program() -> Any:
            x = sample("x", dist.Delta(torch.tensor(value)))
            ready.wait(timeout=30)
            return x, sample("y", dist.Normal(0.0, 1.0))

        return handler(program)

    assert in_threads(run(1.0), run(2.0)) == [(1, 1), (2, 2)]
