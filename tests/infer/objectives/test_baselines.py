"""Baselines: the mean over all draws stays what it is, and a good one takes the variance away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout
import sumout.distributions as dist
from bounds import Drawn, assert_unbiased, bound, gradients
from sumout import plate, sample
from sumout.errors import EnumerationError, ModelError
from sumout.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO

X = torch.tensor([0.3, -1.2], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _own_parameters() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    with sumout.get_param_store().scope():
        yield
    torch.set_default_dtype(torch.float32)


def param(name: str, value: Any) -> Tensor:
    return sumout.param(name, torch.as_tensor(value))


def model() -> None:
    a = sample("a", dist.Bernoulli(logits=param("p_a", 0.3)))
    with plate("data", 2):
        b = sample("b", dist.Bernoulli(logits=param("p_b", [0.4, -0.2]) + a))
        sample("x", dist.Normal(a + b, 1.0), obs=X)


def guide_with(of_a: dict[str, Any], of_b: dict[str, Any]) -> Callable[[], None]:
    def guide() -> None:
        a = sample("a", dist.Bernoulli(logits=param("q_a", 0.6)), infer={"baseline": of_a})
        with plate("data", 2):
            sample("b", dist.Bernoulli(logits=param("q_b", [0.9, -0.3]) + a), infer={"baseline": of_b})

    return guide


@pytest.mark.parametrize(
    "elbo", [Trace_ELBO(), TraceEnum_ELBO(strict_enumeration_warning=False)], ids=["", "enum"]
)
def test_the_mean_is_left_alone(elbo: Any) -> None:
    told = guide_with({"baseline_value": torch.tensor(-3.0)}, {"baseline_value": torch.tensor([2.0, -1.0])})
    plain = guide_with({}, {})
    assert_unbiased(
        lambda guide: elbo.differentiable_loss(model, guide), told, {"a", "b"}, -bound(model, plain)
    )


def test_a_good_one_takes_the_variance_away() -> None:
    def likes() -> None:
        z = sample("z", dist.Bernoulli(0.5))
        sumout.factor("likes", 3 * z + 10)

    def slopes(value: float | None) -> list[float]:
        told = {} if value is None else {"baseline_value": torch.tensor(value)}

        def guide() -> None:
            sample("z", dist.Bernoulli(logits=param("logit", 0.0)), infer={"baseline": told})

        found = []
        for z in (0.0, 1.0):
            fixed = Drawn({"z"}, {"z": torch.tensor(z)})
            found.append(gradients(Trace_ELBO().differentiable_loss(likes, fixed(guide)))["logit"].item())
        return found

    plain, good = slopes(None), slopes(11.5)  # the mean of the costs
    assert sum(plain) == pytest.approx(sum(good))
    assert good[0] == pytest.approx(good[1])
    assert abs(plain[0] - plain[1]) > 10


def test_a_module_learns_the_costs() -> None:
    net = torch.nn.Linear(1, 1)

    def guide() -> None:
        told = {"nn_baseline": net, "nn_baseline_input": torch.ones(1)}
        sample("z", dist.Bernoulli(logits=param("logit", 0.0)), infer={"baseline": told})

    def likes() -> None:
        z = sample("z", dist.Bernoulli(0.5))
        sumout.factor("likes", 0 * z + 10)

    optimizer = torch.optim.Adam(net.parameters(), lr=0.3)
    for _ in range(150):
        optimizer.zero_grad()
        Trace_ELBO().loss_and_grads(likes, guide)
        optimizer.step()
    assert net(torch.ones(1)).item() == pytest.approx(10, abs=0.3)
    assert Trace_ELBO().loss(likes, guide) == pytest.approx(-10)


def test_the_running_mean_of_the_costs() -> None:
    told = {"use_decaying_avg_baseline": True, "baseline_beta": 0.5}

    def guide() -> None:
        sample("z", dist.Bernoulli(logits=param("logit", 0.0)), infer={"baseline": told})

    def likes() -> None:
        z = sample("z", dist.Bernoulli(0.5))
        sumout.factor("likes", 0 * z + 10)

    for expected in (5.0, 7.5, 8.75):
        Trace_ELBO().loss_and_grads(likes, guide)
        assert sumout.get_param_store()["_baseline of z"].item() == pytest.approx(expected)
    Trace_ELBO().loss(likes, guide)
    assert sumout.get_param_store()["_baseline of z"].item() == pytest.approx(8.75)


def test_wrong_baselines_are_told() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"value": 1.0}, "'a' has 'value'; it may have 'baseline_value'"),
        ({"baseline_value": 1.0}, "'a' is float; it is a tensor"),
        ({"baseline_value": torch.ones(2)}, "'a'"),
        ({"nn_baseline": torch.nn.Linear(1, 1)}, "'a' is a module without an input"),
    ]
    for told, message in wrong:
        with pytest.raises((ModelError, EnumerationError, ValueError), match=message):
            Trace_ELBO().loss_and_grads(model, guide_with(told, {}))

    def guide() -> None:
        a = sample("a", dist.Bernoulli(logits=param("q_a", 0.6)), infer={"enumerate": "parallel"})
        told = {"baseline_value": torch.tensor(1.0)}
        with plate("data", 2):
            sample("b", dist.Bernoulli(logits=param("q_b", [0.9, -0.3]) + a), infer={"baseline": told})

    with pytest.raises(
        EnumerationError, match="'b' of the guide has a baseline and is drawn for each value of 'a'"
    ):
        TraceEnum_ELBO().loss_and_grads(model, guide)


def test_the_second_name() -> None:
    assert TraceGraph_ELBO is Trace_ELBO
