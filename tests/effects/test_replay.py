from __future__ import annotations

from typing import Any

import pytest
import torch

import sumout.distributions as dist
from forms import forms
from sumout.effects.handlers import condition, enum, replay, trace
from sumout.effects.primitives import get_param_store, markov, param, plate, sample
from sumout.errors import ModelError, ReplayError


def model() -> Any:
    a = sample("a", dist.Normal(0.0, 1.0))
    b = sample("b", dist.Normal(a, 1.0))
    sample("x", dist.Normal(b, 1.0), obs=torch.tensor(0.5))
    return b


def test_gives_the_values_of_the_trace() -> None:
    before = trace(model).get_trace()
    after = trace(replay(model, trace=before)).get_trace()
    for name in ("a", "b"):
        assert after.nodes[name]["value"] is before.nodes[name]["value"]
    assert not after.nodes["a"]["is_observed"]
    assert after.log_prob_sum() == before.log_prob_sum()


def test_sites_that_are_not_in_the_trace_are_drawn() -> None:
    before = trace(model).get_trace()
    before.remove_node("b")
    after = trace(replay(model, trace=before)).get_trace()
    assert after.nodes["a"]["value"] is before.nodes["a"]["value"]
    assert after.nodes["b"]["value"] is not None


def test_observed_sites_keep_their_observation() -> None:
    before = trace(model).get_trace()
    observed = condition(model, data={"a": torch.tensor(3.0)})
    assert trace(replay(observed, trace=before)).get_trace().nodes["a"]["value"] == 3


def test_a_site_observed_in_the_trace_alone_is_an_error() -> None:
    before = trace(condition(model, data={"a": torch.tensor(3.0)})).get_trace()
    with pytest.raises(
        ModelError, match="'a' must be sampled in the replayed trace, where it is an observed site"
    ):
        replay(model, trace=before)()
    before = trace(lambda: param("a", torch.tensor(1.0))).get_trace()
    with pytest.raises(ModelError, match="where it is a param site"):
        replay(model, trace=before)()


def test_which_is_also_the_runtime_error_that_programs_for_pyro_catch() -> None:
    before = trace(condition(model, data={"a": torch.tensor(3.0)})).get_trace()
    with pytest.raises(RuntimeError, match="'a' must be sampled in the replayed trace"):
        replay(model, trace=before)()
    with pytest.raises(ReplayError):
        replay(model, trace=before)()
    before = trace(lambda: param("a", torch.tensor(1.0))).get_trace()
    with pytest.raises(RuntimeError, match="where it is a param site"):
        replay(model, trace=before)()


def test_what_is_no_trace_is_told_where_it_is_given() -> None:
    handler = trace(model)
    before = handler.get_trace()
    wrong: Any
    for wrong, message in (
        (before.nodes, "takes a Trace and was given Nodes. Take the trace itself"),
        (handler, "was given TraceHandler. Take the .trace"),
        (handler.msngr, "was given TraceMessenger. Take the .trace"),
        ({"a": torch.tensor(1.0)}, r"was given dict.*condition\(model, data="),
        ("a", "was given str"),
    ):
        with pytest.raises(ModelError, match=message):
            replay(model, trace=wrong)
        with pytest.raises(ValueError, match="takes a Trace"):
            replay(trace=wrong)
    wrong = "p"
    with pytest.raises(ModelError, match="replay takes values by name of site and was given str"):
        replay(model, params=wrong)
    wrong = before
    with pytest.raises(ModelError, match="params are values by name and it was given a Trace"):
        replay(model, params=wrong)
    with get_param_store().scope():
        param("p", torch.tensor(1.0))
        assert replay(lambda: param("p"), params=get_param_store())() == 1.0


def test_infer_is_merged_and_copied() -> None:
    def guide() -> None:
        sample("a", dist.Normal(0.0, 1.0), infer={"from": "guide", "guide": [1]})

    def program() -> None:
        sample("a", dist.Normal(0.0, 1.0), infer={"from": "model", "model": 2})

    before = trace(guide).get_trace()
    infer = trace(replay(program, trace=before)).get_trace().nodes["a"]["infer"]
    assert infer == {"from": "guide", "guide": [1], "model": 2}
    assert before.nodes["a"]["infer"] == {"from": "guide", "guide": [1]}
    infer["new"] = 1
    assert "new" not in before.nodes["a"]["infer"]


def test_the_marks_of_markov_are_those_of_the_new_run() -> None:
    def chain() -> None:
        for t in markov(range(3)):
            sample(f"z_{t}", dist.Bernoulli(0.5))

    def no_chain() -> None:
        for t in range(3):
            sample(f"z_{t}", dist.Bernoulli(0.5))

    marked = trace(chain).get_trace()
    plain = trace(no_chain).get_trace()
    assert "_markov_scope" in marked.nodes["z_1"]["infer"]
    assert trace(replay(no_chain, trace=marked)).get_trace().nodes["z_1"]["infer"] == {}
    again = trace(replay(chain, trace=plain)).get_trace()
    assert again.nodes["z_1"]["infer"].keys() == marked.nodes["z_1"]["infer"].keys()


def test_enumerated_values_keep_the_meaning_of_their_dims() -> None:
    def mixture() -> None:
        z = sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.5))

    before = trace(enum(mixture, first_available_dim=-1)).get_trace()
    after = trace(replay(mixture, trace=before)).get_trace()
    for name in ("z", "x"):
        assert after.nodes[name].enum_dim == before.nodes[name].enum_dim
        assert after.nodes[name].enum_dims == before.nodes[name].enum_dims
        assert torch.equal(after.nodes[name]["log_prob"], before.nodes[name]["log_prob"])


def test_the_choice_of_a_subsample_is_replayed() -> None:
    def program() -> None:
        with plate("data", 100, subsample_size=5):
            sample("x", dist.Normal(0.0, 1.0))

    before = trace(program).get_trace()
    after = trace(replay(program, trace=before)).get_trace()
    assert torch.equal(after.nodes["data"]["value"], before.nodes["data"]["value"])


def test_params() -> None:
    def program() -> Any:
        return param("p", torch.tensor(1.0), constraint=torch.distributions.constraints.positive)

    with get_param_store().scope():
        program()
        value = get_param_store()["p"]
        assert trace(replay(program, params={"p": value})).get_trace().nodes["p"]["value"] is value
        with pytest.raises(ModelError, match=r"'p'.*unconstrained"):
            replay(program, params={"p": torch.tensor(1.0)})()


def test_needs_something_to_replay() -> None:
    with pytest.raises(ModelError, match="trace or from params"):
        replay(model)


def test_an_empty_trace_replays_nothing() -> None:
    before = trace(lambda: None).get_trace()
    assert replay(model, trace=before)() is not None


@pytest.mark.parametrize(
    "form", ["function", "decorator", "context manager", "copy", "copy of a handled program"]
)
def test_in_all_forms(form: str) -> None:
    before = trace(model).get_trace()
    after = trace(forms(replay, model, trace=before)[form]).get_trace()
    assert torch.equal(after.nodes["b"]["value"], before.nodes["b"]["value"])
    assert after.log_prob_sum() == before.log_prob_sum()


def test_nothing_carried_leaves_the_sites_infer_their_own() -> None:
    before = trace(model).get_trace()
    after = trace(replay(model, trace=before)).get_trace()
    after.nodes["a"]["infer"]["new"] = 1
    assert before.nodes["a"]["infer"] == {}
    assert trace(replay(model, trace=before)).get_trace().nodes["a"]["infer"] == {}
