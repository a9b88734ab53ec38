"""Most probable values of collapsed sites: the derivative of the joint density vanishes there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import ModelError
from sumout.poutine import collapse

D = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}
ROWS = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=D)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=D)


def wishart() -> None:
    matrix: Any = sample("matrix", dist.Wishart(number(4.0), torch.eye(2, dtype=D)))
    with plate("rows", 6):
        sample("y", dist.MultivariateNormal(torch.zeros(2, dtype=D), precision_matrix=matrix), obs=ROWS)


def normal_wishart() -> None:
    matrix: Any = sample("matrix", dist.Wishart(number(4.0), torch.eye(2, dtype=D)))
    mean: Any = sample("mean", dist.MultivariateNormal(torch.ones(2, dtype=D), precision_matrix=0.5 * matrix))
    each: Any = sample("each", dist.MultivariateNormal(mean, precision_matrix=2 * matrix))
    with plate("rows", 6):
        sample("y", dist.MultivariateNormal(each, precision_matrix=matrix), obs=ROWS)


def chosen_in_groups() -> None:
    z: Any = sample("z", dist.Categorical(torch.tensor([0.4, 0.6], dtype=D)))
    with plate("groups", 2):
        df = torch.tensor([4.0, 5.0], dtype=D)[z]
        matrix: Any = sample("matrix", dist.Wishart(df, torch.eye(2, dtype=D)))
        mean: Any = sample(
            "mean", dist.MultivariateNormal(torch.ones(2, dtype=D), precision_matrix=0.5 * matrix)
        )
        with plate("rows", 3, dim=-2):
            sample("y", dist.MultivariateNormal(mean, precision_matrix=matrix), obs=ROWS.reshape(3, 2, 2))


@pytest.mark.parametrize("program", [wishart, normal_wishart, chosen_in_groups])
def test_unknown_precision_matrices(program: Callable[[], None]) -> None:
    best = infer.map_assignment(collapse(program))()
    leaves = {name: value.clone() for name, value in best.items()}
    continuous = [value.requires_grad_() for value in leaves.values() if value.is_floating_point()]
    nodes = poutine.trace(poutine.condition(program, data=leaves)).get_trace().nodes
    total = torch.stack([site["log_prob_sum"] for site in nodes.values() if site["type"] == "sample"]).sum()
    torch.testing.assert_close(best.log_prob, total.detach(), **EXACT)
    for slope in torch.autograd.grad(total, continuous):
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-9)
    assert {"matrix"} <= set(best)


def test_the_best_discrete_choice_is_that_of_the_joint_density() -> None:
    tops = []
    for z in range(2):
        given_z = poutine.condition(chosen_in_groups, data={"z": torch.tensor(z)})
        tops.append(infer.map_assignment(collapse(given_z))().log_prob)
    best = infer.map_assignment(collapse(chosen_in_groups))()
    assert int(best["z"]) == int(torch.stack(tops).argmax())
    torch.testing.assert_close(best.log_prob, torch.stack(tops).amax(), **EXACT)


def test_a_bound_is_most_probably_the_largest_value() -> None:
    y = torch.tensor([0.5, 1.7, 0.2], dtype=D)

    def program() -> None:
        bound: Any = sample("bound", dist.Pareto(number(1.0), 2.0))
        with plate("rows", 3):
            sample("y", dist.Uniform(number(0.0), bound), obs=y)

    best = infer.map_assignment(collapse(program))()
    torch.testing.assert_close(best["bound"], number(1.7), **EXACT)
    wanted = dist.Pareto(number(1.0), 2.0).log_prob(number(1.7)) - 3 * math.log(1.7)
    torch.testing.assert_close(best.log_prob, wanted, **EXACT)
    assert "bound  1.7" in str(best)


def test_a_matrix_without_a_largest_density_is_refused() -> None:
    def program() -> None:
        matrix: Any = sample("matrix", dist.Wishart(number(2.0), torch.eye(2, dtype=D)))
        sample("y", dist.MultivariateNormal(torch.zeros(2, dtype=D), precision_matrix=matrix), obs=ROWS[0])

    with pytest.raises(
        ModelError, match=r"Site 'matrix' has no most probable value: .* Wishart with df of its size"
    ):
        infer.map_assignment(collapse(program))()


Y = torch.tensor([0.5, 1.7, 0.2], dtype=D)


def levels() -> tuple[Any, Any]:
    rate: Any = sample("rate", dist.Gamma(number(6.0), 2.0))
    x: Any = sample("x", dist.Normal(number(0.0), 0.5))
    with plate("rows", 3):
        sample("wait", dist.Exponential(rate), obs=Y)
        sample("y", dist.Normal(x, 1.0), obs=Y)
    return rate, x


def with_predictions() -> None:
    rate, x = levels()
    with plate("new", 2):
        z: Any = sample("z", dist.Bernoulli(number(0.4)))
        n: Any = sample("n", dist.Poisson(rate * (1 + z)))
        sample("level", dist.Normal(x + z, 1 + z))
        sample("after", dist.Normal(n, 1.0))
    sample("coin", dist.Bernoulli(torch.sigmoid(x)))


def test_predictions_whose_mode_tells_of_others_are_left_out() -> None:
    """Not so normal ones: each at its mean costs what its scale does, whatever its mean is."""

    def without() -> None:
        _, x = levels()
        with plate("new", 2):
            z: Any = sample("z", dist.Bernoulli(number(0.4)))
            sample("level", dist.Normal(x + z, 1 + z))

    best, plain = (
        infer.map_assignment(collapse(with_predictions))(),
        infer.map_assignment(collapse(without))(),
    )
    torch.testing.assert_close(best.log_prob, plain.log_prob, **EXACT)
    assert set(best) == set(plain) == {"rate", "x", "z", "level"}
    for name, value in plain.items():
        torch.testing.assert_close(best[name], value, **EXACT)
    torch.testing.assert_close(best["level"], best["x"] + best["z"], **EXACT)
    data = dict(best.items())
    total = poutine.trace(poutine.condition(without, data=data)).get_trace().log_prob_sum()
    torch.testing.assert_close(best.log_prob, total, **EXACT)
    assert set(best.left_out) == {"n", "after", "coin"}
    with pytest.raises(
        ModelError, match=r"Site 'n' \(Poisson\).*prediction, and no part of the most probable"
    ):
        best["n"]
    assert "coin   left out: a prediction" in str(best)
    assert not plain.left_out


def test_predictions_beside_sequential_sites() -> None:
    def program() -> None:
        k: Any = sample("k", dist.Bernoulli(number(0.2)), infer={"enumerate": "sequential"})
        rate, x = levels()
        sample("seen", dist.Normal(x + 3 * k, 1.0), obs=number(3.0))
        sample("n", dist.Poisson(rate))
        sample("level", dist.Normal(x + k, 1.0))

    best = infer.map_assignment(collapse(program))()
    assert set(best) == {"k", "rate", "x", "level"}
    assert set(best.left_out) == {"n"}
    torch.testing.assert_close(best["level"], best["x"] + best["k"], **EXACT)
