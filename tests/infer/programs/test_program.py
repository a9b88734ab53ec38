"""How programs are run for exact queries: plates that only some runs show, handlers around the query."""

from __future__ import annotations

import math

import pytest
import torch

import sumout.distributions as dist
from sumout import condition, infer, plate, sample
from sumout.effects.handlers import replay, trace
from sumout.errors import EnumerationError

X = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)


def coin(depth: int) -> None:
    """A coin of bias 0.3 that shows in ``depth`` nested plates of three."""
    z = sample("z", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)))
    shown = dist.Bernoulli(0.2 + 0.6 * z)
    if depth == 0:
        sample("x", shown, obs=X[0])
    elif depth == 1:
        with plate("columns", 3):
            sample("x", shown, obs=X)
    else:
        with plate("columns", 3), plate("rows", 3):
            sample("x", shown, obs=X.expand(3, 3))


def by_hand(depth: int) -> float:
    ones, zeros = [(1, 0), (2, 1), (6, 3)][depth]
    return math.log(0.7 * 0.2**ones * 0.8**zeros + 0.3 * 0.8**ones * 0.2**zeros)


def test_other_arguments_may_need_deeper_plates() -> None:
    query = infer.log_evidence(coin)
    for depth in (0, 1, 2, 0, 1):
        assert query(depth).item() == pytest.approx(by_hand(depth), rel=1e-12)


def test_plates_that_only_an_enumerated_run_shows() -> None:
    rare = torch.tensor(1e-9, dtype=torch.float64)

    def model() -> None:
        z = sample("z", dist.Bernoulli(rare), infer={"enumerate": "sequential"})
        sample(
            "y", dist.Bernoulli(torch.where(z == 1, 0.9, rare)), obs=torch.tensor(1.0, dtype=torch.float64)
        )
        if z:  # never where z is drawn
            with plate("columns", 3):
                sample("x", dist.Bernoulli(torch.tensor(0.8, dtype=torch.float64)), obs=X)

    expected = math.log((1 - 1e-9) * 1e-9 + 1e-9 * 0.9 * 0.8**2 * 0.2)
    assert infer.log_evidence(model)().item() == pytest.approx(expected, rel=1e-12)


def test_sites_that_only_one_value_each_shows() -> None:
    """A program that decides on the shape of a value means what it means where nothing is enumerated."""

    def model() -> None:
        z = sample("z", dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)))
        if z.numel() == 1:
            sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=torch.tensor(1.0, dtype=torch.float64))
        else:
            sample("w", dist.Bernoulli(0.9 - 0.6 * z), obs=torch.tensor(1.0, dtype=torch.float64))

    expected = math.log(0.7 * 0.2 + 0.3 * 0.8)
    assert infer.log_evidence(model)().item() == pytest.approx(expected, rel=1e-12)
    loss = infer.TraceEnum_ELBO().loss(infer.config_enumerate(model), lambda: None)
    assert loss == pytest.approx(-expected, rel=1e-12)


def test_a_run_that_is_begun_anew_counts_once() -> None:
    """Values that move their dimensions are hidden in a second attempt; sequential sites stay as they are."""
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    x = torch.tensor(0.4, dtype=torch.float64)

    def model() -> None:
        z = sample("z", dist.Bernoulli(weights[1]), infer={"enumerate": "sequential"})
        w = sample("w", dist.Categorical(weights))
        pair = torch.stack([w - 1.0, w * 2.0]).reshape(2)
        sample("x", dist.Normal(pair[1] if z else pair[0], 1.0), obs=x)

    w = torch.arange(3.0, dtype=torch.float64)
    near = [(dist.Normal(loc, 1.0).log_prob(x).exp() * weights).sum() for loc in (w - 1, 2 * w)]
    expected = math.log(0.7 * near[0] + 0.3 * near[1])
    assert infer.log_evidence(model)().item() == pytest.approx(expected, rel=1e-9)


def test_a_given_nesting_that_is_too_small() -> None:
    with pytest.raises(EnumerationError, match="take up 2 dims.*Give max_plate_nesting=2"):
        infer.log_evidence(coin, max_plate_nesting=1)(2)
    assert infer.log_evidence(coin, max_plate_nesting=5)(2).item() == pytest.approx(by_hand(2), rel=1e-12)


def test_handlers_around_a_query_apply_to_its_program() -> None:
    with condition(data={"z": torch.tensor(1.0)}):
        inside = infer.log_evidence(coin)(1)
        assert list(infer.marginals(coin)(1)) == []
    assert inside.item() == pytest.approx(math.log(0.3 * 0.8**2 * 0.2), rel=1e-6)
    assert inside == infer.log_evidence(condition(coin, data={"z": torch.tensor(1.0)}))(1)


def test_the_marginal_of_a_single_name() -> None:
    found = infer.marginals(coin, "z")(0)
    assert list(found) == ["z"]
    assert found["z"].probs.item() == pytest.approx(0.3 * 0.8 / (0.3 * 0.8 + 0.7 * 0.2), rel=1e-12)


def test_a_replayed_value_is_neither_summed_out_nor_observed() -> None:
    """The error says so, and the remedy gives the joint density of value and data."""
    values = trace(coin).get_trace(0)
    with pytest.raises(
        EnumerationError, match="'z' is latent and has a value that a handler gave it.*condition"
    ):
        infer.log_evidence(replay(coin, trace=values))(0)
    observed = infer.log_evidence(condition(coin, data={"z": values.nodes["z"]["value"]}))(0)
    assert observed.item() == pytest.approx(float(values.log_prob_sum()), rel=1e-12)


def test_a_site_that_is_left_out_of_enumeration() -> None:
    def program() -> None:
        sample("z", dist.Bernoulli(0.3), infer={"enumerate": None})

    with pytest.raises(EnumerationError, match=r"'z' is latent and marked infer=\{'enumerate': None\}"):
        infer.log_evidence(program)()


def test_joint_values_of_an_event_are_not_enumerated() -> None:
    def program() -> None:
        sample("z", dist.Bernoulli(torch.tensor([0.3, 0.4])).to_event(1))

    for given in (program, replay(program, trace=trace(program).get_trace())):
        with pytest.raises(
            EnumerationError, match=r"'z' is latent with Bernoulli in an event of shape \(2,\)"
        ):
            infer.log_evidence(given)()
