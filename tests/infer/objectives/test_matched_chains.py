"""A model and a guide, or data, may loop over one chain in different ways: names of steps stand for each other."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch

import sumout.distributions as dist
from sumout import get_param_store, infer, markov, param, plate, poutine, sample, vectorized_markov
from sumout.errors import ModelError

LENGTH = 5
DATA = torch.linspace(-1.0, 1.0, LENGTH, dtype=torch.float64)
LOCS = torch.tensor([0.3, -0.2, 1.1, 0.4, -0.7], dtype=torch.float64)

LOOPS: dict[str, Any] = {
    "loop": lambda: markov(range(LENGTH), name="time"),
    "history 0": lambda: vectorized_markov("time", LENGTH, dim=-1, history=0),
    "history 1": lambda: vectorized_markov("time", LENGTH, dim=-1, history=1),
    "history 2": lambda: vectorized_markov("time", LENGTH, dim=-1, history=2),
}


def walk(loop: Any) -> None:
    """A random walk seen through noise; written for a history of one, which is right for longer ones too."""
    x: Any = torch.tensor(0.0, dtype=torch.float64)
    for t in loop():
        x = sample(f"x_{t}", dist.Normal(x, 1.0))
        sample(f"y_{t}", dist.Normal(x, 0.5), obs=DATA[t])


def independent(loop: Any) -> None:
    """A guide whose steps do not depend on each other; in a slice of history 0 or a loop."""
    for t in loop():
        sample(f"x_{t}", dist.Normal(LOCS[t], 0.1))


def log_joint(values: torch.Tensor) -> torch.Tensor:
    before = torch.cat([torch.zeros(1, dtype=torch.float64), values[:-1]])
    return dist.Normal(before, 1.0).log_prob(values).sum() + dist.Normal(values, 0.5).log_prob(DATA).sum()


def values_of(trace: poutine.Trace) -> torch.Tensor:
    if "x_0" in trace:
        return torch.stack([trace.nodes[f"x_{t}"]["value"] for t in range(LENGTH)])
    value: torch.Tensor = trace.nodes[f"x_slice(0, {LENGTH}, None)"]["value"]
    return value


@pytest.mark.parametrize("of_guide", ["loop", "history 0"])
@pytest.mark.parametrize("of_model", ["loop", "history 1", "history 2"])
def test_a_model_is_replayed_at_the_values_of_another_loop(of_guide: str, of_model: str) -> None:
    guide = poutine.trace(independent).get_trace(LOOPS[of_guide])
    model = poutine.trace(poutine.replay(walk, trace=guide)).get_trace(LOOPS[of_model])
    torch.testing.assert_close(model.log_prob_sum(), log_joint(values_of(guide)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("of_model", ["loop", "history 1", "history 2"])
@pytest.mark.parametrize("in_data", ["loop", "history 0", "history 1"])
def test_values_of_steps_are_observed_in_any_loop(in_data: str, of_model: str) -> None:
    if in_data == "loop":
        data = {f"x_{t}": LOCS[t] for t in range(LENGTH)}
    elif in_data == "history 0":
        data = {f"x_slice(0, {LENGTH}, None)": LOCS}
    else:
        data = {"x_0": LOCS[0], f"x_slice(1, {LENGTH}, None)": LOCS[1:]}
    if of_model == "loop" and in_data != "loop":
        with pytest.raises(ModelError, match="whose dimension of steps is not known"):
            poutine.condition(walk, data=data)(LOOPS[of_model])
        return
    trace = poutine.trace(poutine.condition(walk, data=data)).get_trace(LOOPS[of_model])
    torch.testing.assert_close(trace.log_prob_sum(), log_joint(LOCS), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("of_guide", ["loop", "history 0"])
@pytest.mark.parametrize("of_model", ["loop", "history 1"])
@pytest.mark.parametrize("objective", [infer.Trace_ELBO, infer.TraceEnum_ELBO])
def test_objectives_do_not_depend_on_how_the_chain_is_told(
    of_guide: str, of_model: str, objective: Any
) -> None:
    def model() -> None:
        kind: Any = torch.tensor(0)
        walk(LOOPS[of_model])
        for t in LOOPS[of_model]():
            stay = torch.tensor([0.3, 0.8], dtype=torch.float64)[kind.long()]
            kind = sample(f"kind_{t}", dist.Bernoulli(stay), obs=torch.ones(LENGTH, dtype=torch.float64)[t])

    def guide() -> None:
        independent(LOOPS[of_guide])

    elbo = objective(**({"strict_enumeration_warning": False} if objective is infer.TraceEnum_ELBO else {}))
    torch.manual_seed(0)
    loss = elbo.loss(model, guide)
    torch.manual_seed(0)
    drawn = poutine.trace(guide).get_trace()
    kinds = torch.tensor([0.3, *[0.8] * (LENGTH - 1)], dtype=torch.float64).log().sum()
    expected = drawn.log_prob_sum() - log_joint(values_of(drawn)) - kinds
    assert loss == pytest.approx(expected.item(), rel=1e-9)


def test_gradients_reach_the_guide() -> None:
    with get_param_store().scope():

        def guide() -> None:
            locs = param("locs", LOCS.clone())
            for t in vectorized_markov("time", LENGTH, dim=-1, history=0):
                sample(f"x_{t}", dist.Normal(locs[t], 0.1))

        torch.manual_seed(0)
        loss = infer.Trace_ELBO().differentiable_loss(lambda: walk(LOOPS["history 1"]), guide)
        (leaf,) = (each for _, each in get_param_store().named_parameters())
        (found,) = torch.autograd.grad(loss, [leaf])
        torch.manual_seed(0)
        locs = LOCS.clone().requires_grad_()
        drawn = dist.Normal(locs, 0.1).rsample()
        other = dist.Normal(locs, 0.1).log_prob(drawn).sum() - log_joint(drawn)
        (expected,) = torch.autograd.grad(other, [locs])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_steps_in_a_plate_keep_their_places() -> None:
    values = torch.randn(3, LENGTH, dtype=torch.float64)

    def model(loop: Any) -> None:
        x: Any = torch.zeros(3, 1, dtype=torch.float64)
        with plate("sequences", 3, dim=-2):
            for t in loop():
                x = sample(f"x_{t}", dist.Normal(0.5 * x, 1.0))

    one_by_one = {f"x_{t}": values[:, t, None] for t in range(LENGTH)}
    at_once = {"x_0": values[:, :1], f"x_slice(1, {LENGTH}, None)": values[:, 1:]}
    expected = (
        poutine.trace(poutine.condition(model, data=one_by_one)).get_trace(LOOPS["loop"]).log_prob_sum()
    )
    for data, loop in itertools.product((one_by_one, at_once), ("loop", "history 1", "history 2")):
        if data is one_by_one or loop != "loop":
            found = poutine.trace(poutine.condition(model, data=data)).get_trace(LOOPS[loop]).log_prob_sum()
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_values_for_some_steps_only_are_refused() -> None:
    data = {f"x_{t}": LOCS[t] for t in range(LENGTH - 1)}
    with pytest.raises(ModelError, match="values are given for some only: .* x_4 is missing"):
        poutine.condition(walk, data=data)(LOOPS["history 1"])
    guide = poutine.trace(lambda: sample("x_0", dist.Normal(0.0, 1.0))).get_trace()
    with pytest.raises(ModelError, match="some only"):
        poutine.replay(walk, trace=guide)(LOOPS["history 1"])


def test_an_observed_step_is_not_replayed() -> None:
    guide = poutine.trace(poutine.condition(independent, data={"x_2": LOCS[2]})).get_trace(LOOPS["loop"])
    with pytest.raises(ModelError, match="'x_2', which is observed"):
        poutine.replay(walk, trace=guide)(LOOPS["history 1"])


def test_the_marginals_of_a_chain_with_observed_steps() -> None:
    """A chain of states of which all but one family is observed, told in both ways."""
    move = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)

    def model(loop: Any) -> None:
        x = w = torch.tensor(0)
        for t in loop():
            x = sample(f"x_{t}", dist.Categorical(move[x]))
            w = sample(f"w_{t}", dist.Categorical(move[torch.maximum(x, w)]))

    data = {f"w_{t}": torch.tensor(t % 2) for t in range(LENGTH)}
    conditioned = poutine.condition(model, data=data)
    one_by_one, at_once = (infer.marginals(conditioned)(LOOPS[loop]) for loop in ("loop", "history 1"))
    torch.testing.assert_close(at_once.log_evidence, one_by_one.log_evidence, rtol=1e-12, atol=1e-12)
    for name in one_by_one:
        torch.testing.assert_close(at_once[name].probs, one_by_one[name].probs, rtol=1e-10, atol=1e-12)


# --------------------------------------------------------------------------- handlers that choose by name


def coins(loop: Any) -> None:
    """A chain of states and what is seen of them."""
    move = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=torch.float64)
    x: Any = torch.tensor(0)
    for t in loop():
        x = sample(f"x_{t}", dist.Categorical(move[x]))
        sample(f"y_{t}", dist.Normal(x.double(), 1.0), obs=DATA[t])


ALL_X = {f"x_{t}": torch.tensor(t % 2) for t in range(LENGTH)}


def in_both(handled: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The evidence of the loop and of the chain at once."""
    one_by_one, at_once = (infer.log_evidence(handled)(LOOPS[loop]) for loop in ("loop", "history 1"))
    return one_by_one, at_once


def test_an_intervention_on_all_steps() -> None:
    expected, found = in_both(poutine.do(coins, data=ALL_X))
    by_hand = dist.Normal(torch.arange(LENGTH).remainder(2).double(), 1.0).log_prob(DATA).sum()
    torch.testing.assert_close(expected, by_hand, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, by_hand, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["x_0", "x_3"])
def test_an_intervention_on_some_steps_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="for some only"):
        infer.log_evidence(poutine.do(coins, data={name: torch.tensor(1)}))(LOOPS["history 1"])


def test_a_block_around_all_steps() -> None:
    hidden = [f"y_{t}" for t in range(LENGTH)]
    expected, found = in_both(poutine.block(coins, hide=hidden))
    torch.testing.assert_close(expected, torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    shown = [f"x_{t}" for t in range(LENGTH)]
    torch.testing.assert_close(*in_both(poutine.block(coins, expose=shown)), rtol=0, atol=1e-12)


def test_a_block_around_some_steps_is_refused() -> None:
    with pytest.raises(ModelError, match="some are named and some are not: 'y_1' is"):
        infer.log_evidence(poutine.block(coins, hide=["y_1"]))(LOOPS["history 1"])


def test_equal_steps_are_refused() -> None:
    with pytest.raises(ModelError, match="equalize names some"):
        infer.log_evidence(poutine.equalize(coins, sites=["x_3", "x_4"]))(LOOPS["history 1"])


def test_steps_reparameterized_by_name() -> None:
    """A walk at given noises is the same in both loops, if the noise of every step is given."""
    config = {f"x_{t}": infer.reparam.LocScaleReparam(0.0) for t in range(LENGTH)}
    shared = dict.fromkeys(config, infer.reparam.LocScaleReparam(0.0))
    noises = {f"x_{t}_decentered": LOCS[t] for t in range(LENGTH)}

    def observed(loop: Any) -> None:
        for t in loop():
            x = sample(f"x_{t}", dist.Normal(torch.ones(()).double(), 2.0))
            sample(f"y_{t}", dist.Normal(x, 0.5), obs=DATA[t])

    handled = poutine.condition(poutine.reparam(observed, config=shared), data=noises)
    expected, found = (
        poutine.trace(handled).get_trace(LOOPS[loop]).log_prob_sum() for loop in ("loop", "history 1")
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ModelError, match="reparameterizers of their own"):
        poutine.reparam(observed, config=config)(LOOPS["history 1"])


@pytest.mark.parametrize(
    "loop",
    [lambda: markov(range(LENGTH)), lambda: markov(range(LENGTH), name="zeit")],
    ids=["unnamed", "other"],
)
def test_chains_of_other_names_are_not_matched_and_that_is_said(loop: Any) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        infer.Trace_ELBO().loss(lambda: walk(loop), lambda: independent(LOOPS["history 0"]))
    extra, lacking = (str(each.message) for each in told)
    assert "'x_slice(0, 5, None)' is in the guide but is no latent site" in extra
    assert "drawn from the prior: ['x_0', 'x_1', 'x_2', 'x_3', 'x_4']" in lacking


def test_a_guide_with_more_steps_is_told() -> None:
    def guide() -> None:
        for t in vectorized_markov("time", LENGTH + 1, dim=-1, history=0):
            sample(f"x_{t}", dist.Normal(torch.zeros(LENGTH + 1)[t], 0.1))

    with pytest.warns(UserWarning, match="Site 'x_5' is in the guide"):
        infer.Trace_ELBO().loss(lambda: walk(LOOPS["history 1"]), guide)


@pytest.mark.parametrize("of_model", ["loop", "history 1"])
def test_names_with_several_numbers(of_model: str) -> None:
    def model() -> None:
        for t in LOOPS[of_model]():
            sample(f"x0_{t}_1", dist.Normal(0.0, 1.0), obs=None)

    def guide() -> None:
        for t in LOOPS["history 0"]():
            sample(f"x0_{t}_1", dist.Normal(LOCS[t], 0.1))

    drawn = poutine.trace(guide).get_trace()
    trace = poutine.trace(poutine.replay(model, trace=drawn)).get_trace()
    values = drawn.nodes["x0_slice(0, 5, None)_1"]["value"]
    torch.testing.assert_close(
        torch.as_tensor(trace.log_prob_sum()),
        dist.Normal(0.0, 1.0).log_prob(values).sum(),
        rtol=1e-12,
        atol=1e-12,
    )


def test_steps_of_a_chain_are_not_independent_for_score_functions() -> None:
    """The exact expectation of the estimated gradient, over all values of a guide's discrete steps."""
    move = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    logits = torch.tensor([0.3, -0.4, 0.8], dtype=torch.float64)

    def model() -> None:
        x: Any = torch.tensor(0)
        for t in vectorized_markov("time", 3, dim=-1):
            x = sample(f"x_{t}", dist.Categorical(move[x.long()]))
            sample(f"y_{t}", dist.Normal(x.double(), 1.0), obs=DATA[:3][t])

    def guide() -> None:
        logit = param("logit", logits.clone())
        sample("x_0", dist.Bernoulli(logits=logit[0]))
        for t in markov(range(1, 3), dim=-1, name="time", history=0):
            sample(f"x_{t}", dist.Bernoulli(logits=logit[t]))

    def log_joint_of(states: torch.Tensor) -> torch.Tensor:
        before = torch.cat([torch.zeros(1, dtype=torch.long), states[:-1]])
        return move[before, states].log().sum() + dist.Normal(states.double(), 1.0).log_prob(DATA[:3]).sum()

    with get_param_store().scope():
        guide()
        leaf = dict(get_param_store().named_parameters())["logit"]
        found = torch.zeros(3, dtype=torch.float64)
        expected = torch.zeros((), dtype=torch.float64)
        probs = logits.clone().requires_grad_()
        for states in itertools.product((0, 1), repeat=3):
            values = torch.tensor(states)
            log_q = dist.Bernoulli(logits=probs).log_prob(values.double()).sum()
            expected = expected + log_q.exp() * (log_joint_of(values) - log_q)
            data = {"x_0": values[0].double(), "x_slice(1, 3, None)": values[1:].double()}
            fixed = poutine.Trace()
            for name, value in data.items():
                fixed.add_node(name, name=name, type="sample", value=value, fn=None, infer={})
            loss = infer.Trace_ELBO().differentiable_loss(model, poutine.replay(guide, trace=fixed))
            (gradient,) = torch.autograd.grad(-loss, [leaf])
            found += log_q.exp().detach() * gradient
        (exact,) = torch.autograd.grad(expected, [probs])
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-10)
