"""Laws of the handlers that change what follows from a site or where a param comes from, and of composition."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import biject_to

import sumout.distributions as dist
from models import MODELS, Model, Program
from sumout import infer
from sumout.effects import Trace
from sumout.effects.handlers import (
    condition,
    do,
    equalize,
    escape,
    lift,
    mask,
    replay,
    scale,
    seed,
    substitute,
    trace,
    uncondition,
)
from sumout.effects.primitives import get_param_store
from sumout.effects.stack import NonlocalExit, state

models = st.sampled_from([MODELS[name] for name in sorted(MODELS)])
with_params = st.sampled_from([MODELS[name] for name in sorted(MODELS) if MODELS[name].params])
seeds = st.integers(0, 2**31)


@pytest.fixture(autouse=True)
def _params_of_these_tests() -> Iterator[None]:
    with get_param_store().scope():
        yield


def record(program: Program, rng_seed: int) -> Trace:
    return trace(seed(program, rng_seed=rng_seed)).get_trace()


def same_site(one: Any, other: Any) -> bool:
    return torch.equal(torch.as_tensor(one["value"]), torch.as_tensor(other["value"])) and torch.equal(
        one["log_prob"], other["log_prob"]
    )


def samples(recorded: Trace) -> list[str]:
    return [name for name, site in recorded.nodes.items() if site["type"] == "sample"]


# ------------------------------------------------------------------------------------------------------ do


@given(models, seeds, seeds, st.data())
def test_do_cuts(model: Model, seed_of_data: int, rng_seed: int, data: st.DataObject) -> None:
    """The site is as without the intervention; what comes after it is as if it had the given value."""
    name = data.draw(st.sampled_from(model.latent))
    other = record(model.program(), seed_of_data).nodes[name]["value"]
    natural = record(model.program(), rng_seed)
    intervened = trace(replay(do(model.program(), data={name: other}), trace=natural)).get_trace()
    as_if = trace(replay(condition(model.program(), data={name: other}), trace=natural.copy())).get_trace()
    assert list(intervened) == list(natural)
    assert same_site(intervened.nodes[name], natural.nodes[name])
    for each in samples(natural):
        if each != name:
            assert same_site(intervened.nodes[each], as_if.nodes[each])


@given(models, seeds, seeds, st.data())
def test_do_at_the_natural_value_changes_nothing(
    model: Model, seed_of_data: int, rng_seed: int, data: st.DataObject
) -> None:
    """Consistency: what would have been, had it been what it was, is what was."""
    name = data.draw(st.sampled_from(model.latent))
    natural = record(model.program(), rng_seed)
    again = record(do(model.program(), data={name: natural.nodes[name]["value"]}), rng_seed)
    assert list(again) == list(natural)
    for each in samples(natural):
        assert same_site(again.nodes[each], natural.nodes[each])


@given(models, seeds, seeds, st.data())
def test_do_and_condition_commute(model: Model, one: int, two: int, data: st.DataObject) -> None:
    """A condition sees natural values on either side of an intervention on the same site."""
    name = data.draw(st.sampled_from(model.latent))
    seen, set_to = (record(model.program(), each).nodes[name]["value"] for each in (one, two))
    inside = record(do(condition(model.program(), data={name: seen}), data={name: set_to}), one)
    outside = record(condition(do(model.program(), data={name: set_to}), data={name: seen}), one)
    for each in samples(inside):
        assert same_site(inside.nodes[each], outside.nodes[each])
        assert inside.nodes[each]["is_observed"] == outside.nodes[each]["is_observed"]


# ---------------------------------------------------------------------------------------------------- params


def priors_of(model: Model) -> dict[str, Any]:
    """Normals of the unconstrained numbers, brought to where each param of a model lives."""
    recorded, priors = record(model.program(), 0), {}
    for name in model.params:
        site = recorded.nodes[name]
        transform = biject_to(site["kwargs"].get("constraint", dist.constraints.real))
        shape = transform.inverse_shape(site["value"].shape)
        normal = dist.Normal(torch.zeros(shape, dtype=torch.float64), 1.0).to_event(len(shape))
        priors[name] = dist.TransformedDistribution(normal, transform)
    return priors


@given(with_params, seeds)
def test_lift_makes_params_samples_of_their_prior(model: Model, rng_seed: int) -> None:
    priors = priors_of(model)
    lifted = record(lift(model.program(), prior=priors), rng_seed)
    assert lifted.param_nodes == []
    values = {name: lifted.nodes[name]["value"] for name in model.params}
    for name, value in values.items():
        assert lifted.nodes[name]["type"] == "sample"
        torch.testing.assert_close(lifted.nodes[name]["log_prob"], priors[name].log_prob(value))
    # With its params fixed at what was drawn, the program is what it is under lift.
    fixed = trace(replay(substitute(model.program(), data=values), trace=lifted)).get_trace()
    for name in samples(fixed):
        torch.testing.assert_close(fixed.nodes[name]["log_prob"], lifted.nodes[name]["log_prob"])


@given(with_params, seeds)
def test_substitute_leaves_the_store_alone(model: Model, rng_seed: int) -> None:
    first = record(model.program(), rng_seed)
    before = {name: value.detach().clone() for name, value in get_param_store().items()}
    values = {name: first.nodes[name]["value"].detach().flip(0) for name in model.params}
    fixed = record(substitute(model.program(), data=values), rng_seed)
    for name in model.params:
        assert torch.equal(fixed.nodes[name]["value"], values[name])
        assert torch.equal(get_param_store()[name], before[name])


# ----------------------------------------------------------------------------------------------- composition


@given(models, seeds, st.data())
def test_the_outer_of_two_conditions_holds(model: Model, rng_seed: int, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(model.latent))
    inner, outer = (record(model.program(), rng_seed + i).nodes[name]["value"] for i in (1, 2))
    both = condition(condition(model.program(), data={name: inner}), data={name: outer})
    assert record(both, rng_seed).nodes[name]["value"] is outer


@given(models, seeds, st.data())
def test_uncondition_and_condition_do_not_commute(model: Model, rng_seed: int, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(model.latent))
    value = record(model.program(), rng_seed + 1).nodes[name]["value"]
    outside = record(uncondition(condition(model.program(), data={name: value})), rng_seed)
    inside = record(condition(uncondition(model.program()), data={name: value}), rng_seed)
    assert not outside.nodes[name]["is_observed"]
    assert inside.nodes[name]["is_observed"]


COMMUTING: dict[str, Callable[[Program], Program]] = {
    "scale": lambda program: scale(program, scale=0.5),
    "mask": lambda program: mask(program, mask=torch.tensor(True)),
    "none escape": lambda program: escape(program, escape_fn=lambda site: False),
    "none equal": lambda program: equalize(program, sites="no such site"),
    "no param": lambda program: lift(program, prior={}),
    "no value": lambda program: substitute(program, data={}),
    "no intervention": lambda program: do(program, data={}),
}


@given(models, seeds, st.permutations(sorted(COMMUTING)))
def test_handlers_that_do_not_touch_each_other_commute(model: Model, rng_seed: int, order: list[str]) -> None:
    expected = record(scale(model.program(), scale=0.5), rng_seed)
    program = model.program()
    for name in order:
        program = COMMUTING[name](program)
    found = record(program, rng_seed)
    assert list(found) == list(expected)
    for name in samples(expected):
        assert torch.equal(
            torch.as_tensor(found.nodes[name]["value"]), torch.as_tensor(expected.nodes[name]["value"])
        )
        torch.testing.assert_close(found.nodes[name]["log_prob"], expected.nodes[name]["log_prob"])


@given(models, seeds, st.data())
def test_escape_leaves_at_the_site_and_nothing_behind(
    model: Model, rng_seed: int, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(model.latent))
    with trace() as recorder, pytest.raises(NonlocalExit) as caught:
        escape(seed(model.program(), rng_seed=rng_seed), escape_fn=lambda site: site["name"] == name)()
    assert caught.value.site.name == name
    assert name not in recorder.trace
    whole = samples(record(model.program(), rng_seed))
    assert samples(recorder.trace) == list(itertools.takewhile(lambda each: each != name, whole))
    assert state.stack == []


# -------------------------------------------------------------------------------------- counterfactuals, exact


def test_a_counterfactual_by_hand() -> None:
    """Rain, a sprinkler that is used when it does not rain, wet grass: what if it had not rained, where it did?"""
    p_rain, p_used, p_wet = 0.3, (0.6, 0.1), ((0.1, 0.8), (0.7, 0.95))

    def program() -> None:
        rain = sample_("rain", p_rain)
        used = sample_("used", torch.where(rain == 1, *map(double, p_used[::-1])))
        table = torch.tensor(p_wet, dtype=torch.float64)
        sample_("wet", table[rain.long(), used.long()])

    def sample_(name: str, probs: Any) -> torch.Tensor:
        from sumout import sample

        return sample(name, dist.Bernoulli(torch.as_tensor(probs, dtype=torch.float64)))

    def double(number: float) -> torch.Tensor:
        return torch.tensor(number, dtype=torch.float64)

    one, zero = double(1.0), double(0.0)
    # Effect of treatment on the treated: without confounding that of the intervention.
    asked = condition(do(program, data={"rain": zero}), data={"rain": one})
    found = infer.marginals(asked)()
    expected = p_used[0] * p_wet[0][1] + (1 - p_used[0]) * p_wet[0][0]
    torch.testing.assert_close(found["wet"].mean, double(expected))
    torch.testing.assert_close(found.log_evidence.exp(), double(p_rain))
    # Wet grass tells of rain only where it did not have to be without.
    seen = infer.marginals(condition(do(program, data={"rain": zero}), data={"wet": one}))()
    torch.testing.assert_close(seen["rain"].mean, double(p_rain))
    plain = infer.marginals(condition(program, data={"wet": one}))()
    assert plain["rain"].mean > p_rain
