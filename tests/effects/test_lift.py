from __future__ import annotations

import inspect
import threading
from queue import LifoQueue
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from forms import forms, in_threads
from sumout.distributions import constraints
from sumout.effects import Message, Messenger, NonlocalExit
from sumout.effects.handlers import (
    block,
    condition,
    enum,
    escape,
    infer_config,
    lift,
    mask,
    queue,
    replay,
    scale,
    seed,
    trace,
)
from sumout.effects.primitives import get_param_store, markov, module, param, plate, sample
from sumout.effects.trace import Trace
from sumout.errors import ModelError
from sumout.infer import log_evidence

PRIOR = dist.Exponential(torch.tensor(0.3))


@pytest.fixture(autouse=True)
def _params_of_this_test() -> Any:
    with get_param_store().scope():
        yield


def model(loc: float = 0.0) -> Any:
    """A scale and a normal site."""
    s = param("s", torch.tensor(0.5), constraint=constraints.positive)
    return s, sample("z", dist.Normal(loc, s))


def with_sample(loc: float = 0.0) -> Any:
    s = sample("s", PRIOR)
    return s, sample("z", dist.Normal(loc, s))


def agree(one: Trace, other: Trace) -> None:
    """The same sites, but for the primitive that asked for them."""
    assert list(one) == list(other)
    for name, site in other.nodes.items():
        twin = one.nodes[name]
        assert twin.type == site.type
        if site.type == "sample":
            for key in (
                "is_observed",
                "infer",
                "cond_indep_stack",
                "scale",
                "args",
                "kwargs",
                "done",
                "stop",
            ):
                assert twin[key] == site[key], key
            assert torch.equal(twin.value, site.value)
            assert getattr(twin.fn, "batch_shape", None) == getattr(site.fn, "batch_shape", None)
            assert torch.equal(twin["log_prob"], site["log_prob"])


# ------------------------------------------------------------------------------------------- a sample site


def test_a_lifted_param_is_the_sample_site_that_it_stands_for() -> None:
    lifted = trace(seed(lift(model, prior={"s": PRIOR}), rng_seed=1)).get_trace(0.0)
    agree(lifted, trace(seed(with_sample, rng_seed=1)).get_trace(0.0))
    assert lifted.stochastic_nodes == ["s", "z"]
    assert lifted.param_nodes == []
    assert list(get_param_store()) == []


def test_in_every_form() -> None:
    for name, run in forms(lift, model, prior={"s": dist.Delta(torch.tensor(3.0))}).items():
        for _ in range(2):
            assert run(loc=1.0)[0] == 3, name
    handled = lift(model, PRIOR)
    assert inspect.signature(handled) == inspect.signature(model)
    assert handled.__doc__ == "A scale and a normal site."


def test_every_run_draws_anew() -> None:
    lifted = lift(model, prior=PRIOR)
    assert lifted()[0] != lifted()[0]


def test_a_dict_leaves_other_params_alone() -> None:
    def program() -> Any:
        return param("a", torch.tensor(1.0)), param("b", torch.tensor(2.0))

    recorded = trace(lift(program, prior={"a": PRIOR})).get_trace()
    assert (recorded.nodes["a"].type, recorded.nodes["b"].type) == ("sample", "param")
    assert recorded.nodes["b"].value == 2
    assert recorded.nodes["b"].value.unconstrained().requires_grad


def test_a_distribution_is_the_prior_of_all() -> None:
    def program() -> Any:
        return param("a", torch.tensor(1.0)), param("b")  # which has no initial value

    recorded = trace(lift(program, prior=PRIOR)).get_trace()
    assert recorded.stochastic_nodes == ["a", "b"]
    assert recorded.nodes["a"].value != recorded.nodes["b"].value


def test_the_same_param_again_has_the_same_value_and_is_no_second_site() -> None:
    def program() -> Any:
        return [param("s", torch.tensor(0.5)) for _ in range(3)]

    with trace() as outside, lift(prior=PRIOR), trace() as inside:
        values = program()
    assert values[0] is values[1] is values[2]
    for tracer in (outside, inside):
        assert tracer.trace.stochastic_nodes == ["s"]
        torch.testing.assert_close(tracer.trace.log_prob_sum(), PRIOR.log_prob(values[0]))


def test_the_same_param_again_has_the_value_from_outside() -> None:
    def program() -> Any:
        return [param("s", torch.tensor(0.5)) for _ in range(2)]

    assert condition(lift(program, prior=PRIOR), data={"s": torch.tensor(9.0)})() == [9, 9]


# ------------------------------------------------------------------------------------------------ functions


def test_a_function_by_name_is_called_as_param_is() -> None:
    calls = []

    def prior(*args: Any, **kwargs: Any) -> Tensor:
        calls.append((args, kwargs))
        return torch.tensor(7.0)

    def program() -> Any:
        param("s", torch.tensor(0.5), constraint=constraints.positive, event_dim=0)
        param("lazy", lambda: torch.tensor(0.5))
        return param("s2")

    names = ["s", "lazy", "s2"]
    recorded = trace(lift(program, prior=dict.fromkeys(names, prior))).get_trace()
    assert recorded.stochastic_nodes == names
    assert {recorded.nodes[name].value.item() for name in names} == {7}
    real = {"constraint": constraints.real, "event_dim": None}
    assert calls[0] == ((torch.tensor(0.5),), {"constraint": constraints.positive, "event_dim": 0})
    assert calls[1][0][0]() == 0.5
    assert calls[2] == ((), real)


def test_a_function_for_all_shows_its_own_sites_and_hides_the_params() -> None:
    def prior(init: Tensor, **kwargs: Any) -> Tensor:
        return sample("inner", dist.Normal(init, 1.0))

    with trace() as outside, lift(prior=prior), trace() as inside:
        s = param("s", torch.tensor(100.0))
    assert s > 90
    for tracer in (outside, inside):
        assert list(tracer.trace) == ["inner"]
        assert tracer.trace.nodes["inner"].value is s
        torch.testing.assert_close(tracer.trace.log_prob_sum(), dist.Normal(100.0, 1.0).log_prob(s))
    conditioned = condition(
        lift(lambda: param("s", torch.tensor(0.0)), prior), data={"inner": torch.tensor(2.0)}
    )
    assert conditioned() == 2


def test_a_prior_that_needs_its_own_param() -> None:
    def prior(init: Tensor, **kwargs: Any) -> Tensor:
        return param("s", init) + 1

    with pytest.raises(ModelError, match="prior of param 's' asks for that param"):
        lift(model, prior=prior)()


def test_what_is_no_prior() -> None:
    with pytest.raises(ModelError, match="not 3"):
        lift(model, prior=3)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="not Normal"):
        lift(model, prior={"s": torch.distributions.Normal(0.0, 1.0)})  # type: ignore[dict-item]


def test_names_that_no_param_had_are_reported() -> None:
    prior = {"s": PRIOR, "sz": PRIOR}
    with pytest.warns(UserWarning, match="lift found no param site named 'sz'.*'s'"):
        lift(model, prior=prior)()
    # Sites of other kinds do not count, nor do runs that are not completed.
    with pytest.warns(UserWarning, match="'z'"):
        lift(model, prior={"z": PRIOR})()
    with pytest.raises(NonlocalExit):
        escape(lift(model, prior=prior), escape_fn=lambda site: True)()


# -------------------------------------------------------------------------------------------------- modules


def test_params_of_a_module_may_be_named_without_it() -> None:
    weight = dist.Normal(torch.zeros(1, 2), 1.0).to_event(2)

    def program(x: Tensor) -> Tensor:
        return module("net", torch.nn.Linear(2, 1), update_module_params=True)(x)

    x = torch.ones(2)
    for name in ("weight", "net$$$weight"):
        recorded = trace(lift(program, prior={name: weight})).get_trace(x)
        drawn = recorded.nodes["net$$$weight"]
        assert drawn.type == "sample"
        assert recorded.nodes["net$$$bias"].type == "param"
        torch.testing.assert_close(
            recorded.nodes["_RETURN"].value, drawn.value @ x + recorded.nodes["net$$$bias"].value
        )
    both = lift(program, prior={"weight": PRIOR, "net$$$weight": weight})
    assert trace(both).get_trace(x).nodes["net$$$weight"].fn is weight


# ------------------------------------------------------------------------------------- who sees what as what


class Look(Messenger):
    """Notes what it sees before and after a site is settled."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def _pyro_sample(self, msg: Message) -> None:
        self.seen.append("sample")

    def _pyro_param(self, msg: Message) -> None:
        self.seen.append("param")

    def _pyro_post_sample(self, msg: Message) -> None:
        self.seen.append(f"sample of value {msg.value.item()}")

    def _pyro_post_param(self, msg: Message) -> None:
        self.seen.append("param with a value")


def test_outside_it_is_a_sample_site_and_inside_it_begins_as_a_param() -> None:
    with Look() as outside, lift(prior=dist.Delta(torch.tensor(2.0))), Look() as inside:
        param("s", torch.tensor(0.5))
    assert outside.seen == ["sample", "sample of value 2.0"]
    assert inside.seen == ["param", "sample of value 2.0"]


def test_the_outer_lift_finds_what_the_inner_left() -> None:
    def program() -> Any:
        return param("a", torch.tensor(1.0)), param("b", torch.tensor(2.0))

    one, two = dist.Delta(torch.tensor(10.0)), dist.Delta(torch.tensor(20.0))
    assert lift(lift(program, prior={"a": one}), prior=two)() == (10, 20)


def test_condition_and_replay() -> None:
    lifted = lift(model, prior={"s": PRIOR})
    recorded = trace(condition(lifted, data={"s": torch.tensor(2.0)})).get_trace()
    assert recorded.nodes["s"].is_observed
    assert recorded.nodes["_RETURN"].value[0] == 2
    with pytest.warns(UserWarning, match="'s'"):  # Inside, it is no sample site.
        assert (
            trace(lift(condition(model, data={"s": torch.tensor(2.0)}), PRIOR)).get_trace().nodes["s"].value
            != 2
        )
    before = trace(lifted).get_trace()
    after = trace(replay(lifted, trace=before)).get_trace()
    agree(before, after)


def test_a_param_replayed_inside_keeps_its_value_and_is_scored_by_the_prior() -> None:
    param("s", torch.tensor(2.0), constraint=constraints.positive)
    value = get_param_store()["s"]
    recorded = trace(lift(replay(model, params={"s": value}), prior={"s": PRIOR})).get_trace()
    assert recorded.nodes["s"].value is value
    assert not recorded.nodes["s"].is_observed
    torch.testing.assert_close(recorded.nodes["s"]["log_prob"], PRIOR.log_prob(value))


def test_block() -> None:
    lifted = lift(model, prior={"s": PRIOR})
    assert "s" not in trace(block(lifted, hide=["s"])).get_trace()
    assert "s" in trace(block(lifted, hide_types=["param"])).get_trace()
    with trace() as outside, lift(prior=PRIOR), block(hide_types=["param"]):
        model()
    assert list(outside.trace) == ["z"]
    assert list(get_param_store()) == ["s"]


def test_infer_is_kept_and_may_be_added_to() -> None:
    marked = infer_config(model, config_fn=lambda site: {"inside": site.type})
    lifted = infer_config(lift(marked, prior={"s": PRIOR}), config_fn=lambda site: {"outside": site.type})
    assert trace(lifted).get_trace().nodes["s"].infer == {"inside": "param", "outside": "sample"}


def test_a_discrete_prior_can_be_summed_out() -> None:
    rates = torch.tensor([1.0, 4.0]).double()
    weights = torch.tensor([0.25, 0.75]).double()

    def program() -> None:
        k = param("k", torch.tensor(0.0))
        with plate("data", 2):
            sample("x", dist.Poisson(rates[k.long()]), obs=torch.tensor([2.0, 3.0]).double())

    prior = {"k": dist.Categorical(weights)}
    likelihood = dist.Poisson(rates[:, None]).log_prob(torch.tensor([2.0, 3.0]).double()).sum(-1).exp()
    torch.testing.assert_close(log_evidence(lift(program, prior=prior))().exp(), (weights * likelihood).sum())
    partial, total = LifoQueue(), torch.tensor(0.0).double()
    partial.put(Trace())
    run = trace(queue(lift(program, prior=prior), partial))
    while not partial.empty():
        total = total + run.get_trace().log_prob_sum().exp()
    torch.testing.assert_close(total, (weights * likelihood).sum())


def test_in_a_chain_a_param_is_shared_by_the_steps() -> None:
    def program() -> None:
        x = torch.tensor(0.0)
        for t in markov(range(3)):
            x = sample(f"x{t}", dist.Normal(param("a", torch.tensor(1.0)) * x, 1.0))

    assert trace(lift(program, prior=PRIOR)).get_trace().stochastic_nodes == ["a", "x0", "x1", "x2"]


def test_a_queue_inside_begins_each_run_anew() -> None:
    seen = []

    def program() -> None:
        seen.append(param("s", torch.tensor(0.5)))
        sample("z", dist.Bernoulli(0.5))

    partial = LifoQueue()
    partial.put(Trace())
    recorded = trace(lift(queue(program, partial), prior=PRIOR)).get_trace()
    assert recorded.nodes["s"].value is seen[-1]
    assert recorded.stochastic_nodes == ["s", "z"]


# --------------------------------------------------------------------------------------------------- plates


def in_plates(statement: Any) -> Any:
    def program() -> Any:
        with (
            plate("rows", 2, dim=-2),
            scale(scale=2.0),
            plate("data", 6, subsample_size=3, dim=-1),
            mask(mask=False),
        ):
            return statement()

    return program


@pytest.mark.parametrize(
    "prior",
    [PRIOR, PRIOR.expand([3]), PRIOR.expand([2, 3]), dist.Normal(torch.zeros(3, 4), 1.0).to_event(1)],
)
def test_plates_inside_and_outside_expand_and_record(prior: Any) -> None:
    def lifted() -> Any:
        return param("s", torch.zeros(6, 4), event_dim=prior.event_dim)

    expected = trace(seed(in_plates(lambda: sample("s", prior)), rng_seed=3)).get_trace()
    assert expected.nodes["s"].value.shape[:2] == (2, 3)
    inside = trace(seed(lift(in_plates(lifted), prior={"s": prior}), rng_seed=3)).get_trace()
    outside = trace(seed(in_plates(lift(lifted, prior={"s": prior})), rng_seed=3)).get_trace()
    for recorded in (inside, outside):
        agree(recorded, expected)
        assert recorded.nodes["s"].mask is False
    assert inside.nodes["s"].fn.event_shape == prior.event_shape


def test_a_prior_that_does_not_fit_into_its_plate() -> None:
    with pytest.raises(ModelError, match="'s' has batch shape"):
        lift(in_plates(lambda: param("s", torch.zeros(()))), prior=PRIOR.expand([5]))()


# ---------------------------------------------------------------------------------------------------- state


def test_nothing_is_kept_after_an_error_or_an_exit() -> None:
    handler = lift(prior=PRIOR)

    def broken() -> None:
        param("s", torch.tensor(0.5))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        handler(broken)()
    assert handler._lifted.sites == {}
    with pytest.raises(NonlocalExit):
        escape(handler(model), escape_fn=lambda site: site.name == "s")()
    assert handler(model)()[0] is not None
    assert enum(handler(model), first_available_dim=-1)()[0].shape == ()


def test_threads_do_not_see_each_other() -> None:
    handler, ready = lift(prior=PRIOR), threading.Barrier(2)

    def program() -> Any:
        first = param("s", torch.tensor(0.5))
        ready.wait(timeout=30)
        return first, param("s", torch.tensor(0.5))

    one, two = in_threads(handler(program), handler(program))
    assert one[0] is one[1]
    assert two[0] is two[1]
    assert one[0] is not two[0]
