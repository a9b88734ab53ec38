from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout.effects.handlers import reparam, trace
from sumout.effects.primitives import deterministic, factor, get_param_store, plate, sample
from sumout.errors import ModelError
from sumout.infer.reparam import AutoReparam, LocScaleReparam, MinimalReparam, Strategy


def sites() -> dict[str, Any]:
    """One site of each kind."""
    one = torch.tensor(1.0)
    exp = dist.transforms.ExpTransform()
    return {
        "normal": dist.Normal(one, 2.0),
        "vector": dist.Normal(torch.ones(3), 2.0).to_event(1),
        "masked": dist.Normal(one, 2.0).mask(False),
        "lognormal": dist.LogNormal(one, 2.0),
        "student": dist.StudentT(3.0 * one),
        "stable": dist.Stable(1.5 * one, 0.3),
        "logstable": dist.TransformedDistribution(dist.Stable(1.5 * one, 0.3), [exp]),
        "direction": dist.ProjectedNormal(torch.ones(3)),
        "relaxed": dist.RelaxedOneHotCategorical(one, logits=torch.zeros(3)),
        "through": dist.RelaxedOneHotCategoricalStraightThrough(one, logits=torch.zeros(3)),
        "gamma": dist.Gamma(one, 1.0),
        "half": dist.HalfNormal(one),
        "weibull": dist.Weibull(one, 1.0),
        "beta": dist.Beta(one, 1.0),
        "discrete": dist.Categorical(torch.ones(3)),
        "own": dist.StableWithLogProb(1.5 * one, 0.3),
        "coords": dist.Stable(1.5 * one, 0.3, coords="S"),
    }


def model() -> None:
    for name, fn in sites().items():
        sample(name, fn)
    deterministic("fixed", torch.tensor(1.0))
    factor("factor", torch.tensor(1.0))
    with plate("plate", 10, subsample_size=2):
        sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(2))


def choices(strategy: Strategy) -> dict[str, str]:
    return {name: type(each).__name__ for name, each in strategy.config.items() if each is not None}


def test_minimal() -> None:
    strategy = MinimalReparam()
    seen = trace(strategy(model)).get_trace()
    assert choices(strategy) == {
        "stable": "LatentStableReparam",
        "logstable": "TransformReparam",
        "logstable_base": "LatentStableReparam",
        "direction": "ProjectedNormalReparam",
    }
    assert seen.log_prob_sum(lambda name, site: name not in ("own", "coords")).isfinite()


def test_auto() -> None:
    strategy = AutoReparam()
    with get_param_store().scope():
        seen = trace(strategy(model)).get_trace()
        params = set(get_param_store())
    loc_scale = [
        "normal",
        "vector",
        "masked",
        "lognormal_base",
        "student",
        "stable",
        "logstable_base",
        "direction_normal",
        "own",
        "coords",
    ]
    assert params == {f"{name}_centered" for name in loc_scale}
    assert choices(strategy) == dict.fromkeys(loc_scale, "LocScaleReparam") | {
        "lognormal": "TransformReparam",
        "logstable": "TransformReparam",
        "stable_decentered": "LatentStableReparam",
        "logstable_base_decentered": "LatentStableReparam",
        "direction": "ProjectedNormalReparam",
        "relaxed": "GumbelSoftmaxReparam",
    }
    assert seen.nodes["lognormal"]["infer"]["_deterministic"]
    assert seen.log_prob_sum(lambda name, site: not name.startswith(("own", "coords"))).isfinite()


def test_auto_with_a_given_centering() -> None:
    strategy = AutoReparam(centered=0.0)
    trace(strategy(model)).get_trace()
    assert strategy.config["normal"].centered == 0.0
    with pytest.raises(ModelError, match="centered='much'"):
        AutoReparam(centered="much")


def test_observed_sites() -> None:
    one = torch.tensor(1.0, requires_grad=True)
    exp = dist.transforms.ExpTransform()

    def observed() -> None:
        sample("normal", dist.Normal(0.0, 1.0), obs=one.detach())
        sample("lognormal", dist.LogNormal(0.0, 1.0), obs=one.detach())
        sample("symmetric", dist.Stable(1.5 * one.detach(), 0.0), obs=one.detach())
        sample("skewed", dist.Stable(1.5 * one.detach(), 0.1), obs=one.detach())
        sample("learned", dist.Stable(1.5 * one.detach(), 0.0 * one), obs=one.detach())
        log_stable = dist.TransformedDistribution(dist.Stable(1.5 * one.detach(), 0.0), [exp])
        sample("logstable", log_stable, obs=one.detach())
        sample("direction", dist.ProjectedNormal(torch.ones(3)), obs=torch.tensor([1.0, 0.0, 0.0]))

    for strategy in (MinimalReparam(), AutoReparam()):
        seen = trace(strategy(observed)).get_trace()
        assert choices(strategy) == {
            "symmetric": "SymmetricStableReparam",
            "skewed": "StableReparam",
            "learned": "StableReparam",
            "logstable": "TransformReparam",
            "logstable_base": "SymmetricStableReparam",
        }
        assert seen.log_prob_sum().isfinite()


def test_all_forms_of_a_strategy() -> None:
    @AutoReparam(centered=0.0)
    def decorated() -> None:
        sample("x", dist.Normal(torch.tensor(1.0), 2.0))

    def plain() -> None:
        sample("x", dist.Normal(torch.tensor(1.0), 2.0))

    def managed() -> None:
        with reparam(config=AutoReparam(centered=0.0)):
            plain()

    strategy = AutoReparam(centered=0.0)
    strategy(plain)()
    programs = [
        decorated,
        managed,
        reparam(plain, config=AutoReparam(centered=0.0)),
        reparam(plain, AutoReparam(centered=0.0)),
        reparam(config=AutoReparam(centered=0.0))(plain),
        strategy(plain),
        reparam(plain, config=strategy.config),
        copy.deepcopy(strategy(plain)),
    ]
    for program in programs:
        assert trace(program).get_trace().stochastic_nodes == ["x_decentered"]


def test_the_first_choice_is_kept() -> None:
    class Alternating(Strategy):
        calls = 0

        def configure(self, msg: Any) -> Any:
            self.calls += 1
            return LocScaleReparam(0.0) if self.calls == 1 else None

    strategy = Alternating()
    program = strategy(lambda: sample("x", dist.Normal(torch.tensor(1.0), 2.0)))
    for _ in range(3):
        assert trace(program).get_trace().stochastic_nodes == ["x_decentered"]
    assert strategy.calls == 2  # for x and x_decentered


def test_a_strategy_of_a_site() -> None:
    strategy = MinimalReparam()
    site = {"name": "x", "fn": dist.ProjectedNormal(torch.ones(3)), "is_observed": False}
    assert strategy(site) is strategy(site) is strategy.config["x"]


def test_two_strategies() -> None:
    """The outer one has nothing left to do where the inner one made a site deterministic."""

    def plain() -> None:
        sample("x", dist.LogNormal(torch.tensor(1.0), 2.0))

    program = AutoReparam(centered=0.0)(AutoReparam(centered=0.0)(plain))
    assert trace(program).get_trace().stochastic_nodes == ["x_base_decentered"]
