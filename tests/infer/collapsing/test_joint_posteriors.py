"""Joint posteriors of several collapsed sites, and posteriors over the runs of sequentially enumerated programs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, sample
from sumout.effects.primitives import markov
from sumout.errors import EvidenceError, ModelError, PlanError
from sumout.poutine import collapse

D = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=D)


def normal(mean: Any, sd: float) -> Any:
    return dist.Normal(torch.as_tensor(mean, dtype=D), number(sd))


class Joint:
    """A normal distribution put together row by row: each is a number made of others with noise, maybe observed."""

    def __init__(self, size: int) -> None:
        self.precision, self.information = torch.zeros(size, size, dtype=D), torch.zeros(size, dtype=D)

    def add(self, row: dict[int, float], mean: float, noise: float) -> None:
        """``sum of row[i] * x[i]`` is normal with this mean and noise."""
        vector = torch.zeros(len(self.information), dtype=D)
        for place, value in row.items():
            vector[place] += value
        self.precision += torch.outer(vector, vector) / noise**2
        self.information += vector * mean / noise**2

    def check(self, found: Any, places: list[int]) -> None:
        covariance = torch.linalg.inv(self.precision)
        mean = covariance @ self.information
        torch.testing.assert_close(found.loc, mean[places], **EXACT)
        torch.testing.assert_close(found.covariance_matrix, covariance[places][:, places], **EXACT)


Y, S = torch.tensor([28.0, 8.0, -3.0, 7.0], dtype=D), torch.tensor([15.0, 10.0, 16.0, 11.0], dtype=D)


def schools() -> None:
    mu: Any = sample("mu", dist.Normal(number(0.0), 5.0))
    bias: Any = sample("bias", dist.Normal(number(1.0), 2.0))
    with plate("schools", 4):
        effect: Any = sample("effect", dist.Normal(mu, 3.0))
        sample("y", dist.Normal(effect + bias * S, S), obs=Y)


def test_global_sites_and_sites_in_a_plate_by_linear_algebra() -> None:
    exact = Joint(6)
    exact.add({0: 1.0}, 0.0, 5.0)
    exact.add({1: 1.0}, 1.0, 2.0)
    for place, (y, s) in enumerate(zip(Y.tolist(), S.tolist(), strict=True)):
        exact.add({2 + place: 1.0, 0: -1.0}, 0.0, 3.0)
        exact.add({2 + place: 1.0, 1: s}, y, s)
    groups = [("mu", "bias"), ("effect", "mu", "bias"), ("mu",)]
    found = infer.marginals(collapse(schools), groups)()
    exact.check(found["mu", "bias"], [0, 1])
    exact.check(found[("mu",)], [0])
    whole = found["effect", "mu", "bias"]
    assert (whole.batch_shape, whole.event_shape) == ((4,), (3,))
    for place in range(4):
        exact.check(
            dist.MultivariateNormal(whole.loc[place], whole.covariance_matrix[place]), [2 + place, 0, 1]
        )
    text = str(found)
    assert "MultivariateNormal  mean [-0.0661, 0.7973]  sd [4.8546, 0.6164]  corr -0." in text
    assert "effect, mu, bias  3  " in text


def test_sites_in_plates_that_cross() -> None:
    def program() -> None:
        mu: Any = sample("mu", dist.Normal(number(0.0), 1.0))
        with plate("p", 3):
            a: Any = sample("a", dist.Normal(mu, 1.0))
            sample("u", dist.Normal(a, 1.0), obs=torch.tensor([1.0, 2.0, 3.0], dtype=D))
        with plate("q", 2, dim=-2):
            b: Any = sample("b", dist.Normal(mu, 2.0))
            sample("v", dist.Normal(b, 1.0), obs=torch.tensor([[1.0], [0.0]], dtype=D))

    exact = Joint(6)
    exact.add({0: 1.0}, 0.0, 1.0)
    for place, value in enumerate([1.0, 2.0, 3.0, 1.0, 0.0]):
        exact.add({1 + place: 1.0, 0: -1.0}, 0.0, 1.0 if place < 3 else 2.0)
        exact.add({1 + place: 1.0}, value, 1.0)
    found = infer.marginals(collapse(program), [("a", "b")])()["a", "b"]
    assert found.batch_shape == (2, 3)
    for a, b in itertools.product(range(3), range(2)):
        exact.check(dist.MultivariateNormal(found.loc[b, a], found.covariance_matrix[b, a]), [1 + a, 4 + b])


def test_sites_of_elements_that_depend_on_each_other_and_events() -> None:
    """The slopes of a regression, and a vector: of each element its own entries."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(7, 3, generator=generator, dtype=D), torch.randn(7, generator=generator, dtype=D)

    def program() -> None:
        w: Any = sample("w", dist.MultivariateNormal(torch.zeros(2, dtype=D), torch.eye(2, dtype=D)))
        with plate("features", 3):
            slope: Any = sample("slope", dist.Normal(number(0.0), 1.0))
        with plate("rows", 7):
            sample("y", dist.Normal(x @ slope + x[:, :2] @ w, 0.5), obs=y)

    exact = Joint(5)
    for place in range(5):
        exact.add({place: 1.0}, 0.0, 1.0)
    for row, value in zip(x.tolist(), y.tolist(), strict=True):
        exact.add({**dict(enumerate(row[:2])), **dict(enumerate(row, 2))}, value, 0.5)
    found = infer.marginals(collapse(program), [("slope", "w")])()["slope", "w"]
    for place in range(3):
        exact.check(
            dist.MultivariateNormal(found.loc[place], found.covariance_matrix[place]), [2 + place, 0, 1]
        )


@pytest.mark.parametrize("vectorized", [False, True])
def test_pairs_of_steps_of_a_chain(vectorized: bool) -> None:
    data = torch.tensor([1.0, 2.0, 1.5, 3.0], dtype=D)

    def program() -> None:
        drift: Any = sample("drift", dist.Normal(number(0.0), 1.0))
        x: Any = number(0.0)
        for t in markov(range(4), dim=-1, name="time") if vectorized else range(4):
            x = sample(f"x_{t}", dist.Normal(x + drift, 2.0))
            sample(f"y_{t}", dist.Normal(x, 1.0), obs=data[t])

    exact = Joint(5)
    exact.add({4: 1.0}, 0.0, 1.0)
    for t in range(4):
        exact.add({t: 1.0, 4: -1.0, **({t - 1: -1.0} if t else {})}, 0.0, 2.0)
        exact.add({t: 1.0}, float(data[t]), 1.0)
    groups = [("x_0", "x_3"), ("x_2", "x_1"), ("drift", "x_2")]
    found = infer.marginals(collapse(program), groups)()
    for group in groups:
        exact.check(found[group], [4 if name == "drift" else int(name[2:]) for name in group])


@given(st.integers(0, 10_000))
@settings(max_examples=15)
def test_mixtures_where_discrete_sites_choose(seed: int) -> None:
    """Two groups that share a discrete site: dependent, though normal apart from each other given it."""
    generator = torch.Generator().manual_seed(seed)
    prior = torch.rand(2, generator=generator, dtype=D) + 0.1
    prior = prior / prior.sum()
    means = 2 * torch.randn(2, 2, generator=generator, dtype=D)

    def program() -> None:
        z: Any = sample("z", dist.Categorical(prior))
        a: Any = sample("a", dist.Normal(means[0][z], 1.0))
        sample("u", dist.Normal(a, 1.0), obs=number(0.4))
        k: Any = sample("k", dist.Bernoulli(number(0.3)))
        b: Any = sample("b", dist.Normal(means[1][z] + k, 1.0))
        c: Any = sample("c", dist.Normal(b, 1.0))
        sample("v", dist.Normal(c, 1.0), obs=number(1.4))

    found = infer.marginals(collapse(program), [("c", "a", "b")])()["c", "a", "b"]
    logs, parts = [], []
    for z, k in itertools.product(range(2), range(2)):
        one, other = float(means[0][z]), float(means[1][z]) + k
        log = prior[z].log() + math.log(0.3 if k else 0.7)
        log = log + normal(one, math.sqrt(2.0)).log_prob(number(0.4))
        logs.append(log + normal(other, math.sqrt(3.0)).log_prob(number(1.4)))
        exact = Joint(3)
        exact.add({1: 1.0}, one, 1.0)
        exact.add({1: 1.0}, 0.4, 1.0)
        exact.add({2: 1.0}, other, 1.0)
        exact.add({0: 1.0, 2: -1.0}, 0.0, 1.0)
        exact.add({0: 1.0}, 1.4, 1.0)
        covariance = torch.linalg.inv(exact.precision)
        parts.append(dist.MultivariateNormal(covariance @ exact.information, covariance))
    weights = torch.softmax(torch.stack(logs), 0)
    points = torch.randn(5, 3, generator=generator, dtype=D)
    wanted = sum(weight * part.log_prob(points).exp() for weight, part in zip(weights, parts, strict=True))
    torch.testing.assert_close(found.log_prob(points).exp(), wanted, **EXACT)


def normal_gamma() -> None:
    unit: Any = sample("unit", dist.Gamma(number(2.0), 1.0))
    mean: Any = sample("mean", dist.Normal(number(0.0), 2 * unit.rsqrt()))
    each: Any = sample("each", dist.Normal(mean, unit.rsqrt()))
    with plate("rows", 4):
        sample("y", dist.Normal(each, unit.rsqrt()), obs=torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=D))


def test_with_one_unknown_scale_it_is_a_student_distribution() -> None:
    """By quadrature over the scale, given which both are normal."""
    found = infer.marginals(collapse(normal_gamma), [("mean", "each"), "unit"])()
    assert isinstance(found["mean", "each"], dist.MultivariateStudentT)
    exact = Joint(2)
    exact.add({0: 1.0}, 0.0, 2.0)
    exact.add({0: 1.0, 1: -1.0}, 0.0, 1.0)
    for y in (1.0, 2.0, 0.5, 3.0):
        exact.add({1: 1.0}, y, 1.0)
    covariance = torch.linalg.inv(exact.precision)
    center = covariance @ exact.information
    grid = torch.linspace(1e-6, 20.0, 400_001, dtype=D)
    given_unit = dist.MultivariateNormal(center, covariance / grid[:, None, None])
    for point in (torch.tensor([1.0, 1.5], dtype=D), torch.tensor([-1.0, 3.0], dtype=D)):
        density = torch.trapezoid((given_unit.log_prob(point) + found["unit"].log_prob(grid)).exp(), grid)
        torch.testing.assert_close(found["mean", "each"].log_prob(point).exp(), density, rtol=1e-7, atol=1e-9)


def test_what_has_no_joint_distribution_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"'unit', 'mean' has no distribution in closed form: site 'unit' is Gamma"
    ):
        infer.marginals(collapse(normal_gamma), [("unit", "mean")])()
    with pytest.raises(EvidenceError, match=r"'nobody' is not summed out"):
        infer.marginals(collapse(normal_gamma), [("mean", "nobody")])()

    def chosen() -> None:
        z: Any = sample("z", dist.Bernoulli(number(0.3)))
        x: Any = sample("x", dist.Normal(z, number(1.0)))
        sample("y", dist.Normal(x, 1.0), obs=number(0.4))

    with pytest.raises(EvidenceError, match=r"'x' in .* has a density, 'z' has a table.*posterior_samples"):
        infer.marginals(collapse(chosen), [("z", "x")])()

    def two_scales() -> None:
        a: Any = sample("a", dist.Gamma(number(2.0), 1.0))
        x: Any = sample("x", dist.Normal(number(0.0), a.rsqrt()))
        sample("u", dist.Normal(x, a.rsqrt()), obs=number(0.4))
        w: Any = sample("w", dist.Normal(number(0.0), 1.0))
        sample("v", dist.Normal(w, 1.0), obs=number(0.4))

    with pytest.raises(
        ModelError, match=r"site 'x' is normal only given the scale 'a', which the others do not"
    ):
        infer.marginals(collapse(two_scales), [("x", "w")])()

    def one_dim() -> None:
        for name in ("a", "b"):
            with plate(name, 2):
                x: Any = sample(f"x{name}", dist.Normal(number(0.0), 1.0))
                sample(f"y{name}", dist.Normal(x, 1.0), obs=torch.ones(2, dtype=D))

    with pytest.raises(PlanError, match=r"both at dim -1"):
        infer.marginals(collapse(one_dim), [("xa", "xb")])()


# ------------------------------------------------------------------------------------------- over several runs


def steered(how: str) -> None:
    """Python decides on ``z``: sites and their number differ from run to run."""
    z = sample("z", dist.Categorical(torch.tensor([0.2, 0.3, 0.5], dtype=D)), infer={"enumerate": how})
    x: Any = sample("x", dist.Normal(number(float(z)), 1.0))
    if z == 2:
        w: Any = sample("w", dist.Normal(x, 1.0))
        sample("u", dist.Normal(w, 1.0), obs=number(0.7))
    else:
        k: Any = sample("k", dist.Bernoulli(number(0.3)))
        sample("y", dist.Normal(x + k, 1.0), obs=number(0.7))
    rate: Any = sample("rate", dist.Gamma(number(2.0 + float(z)), 1.0))
    with plate("rows", 2):
        sample("count", dist.Poisson(rate), obs=torch.tensor([3.0, 1.0], dtype=D))
    sample("next", dist.Poisson(rate * (1.0 + float(z))))


@pytest.mark.parametrize("how", ["sequential", "auto"])
def test_posteriors_are_mixtures_over_runs(how: str) -> None:
    logs: list[Tensor] = []
    parts: list[dict[str, list[tuple[float, Any]]]] = []
    y = number(0.7)
    for z, prior in enumerate((0.2, 0.3, 0.5)):
        shape = number(2.0 + z)
        of_rate = torch.lgamma(shape + 4) - torch.lgamma(shape) - (shape + 4) * math.log(3.0) - math.log(6.0)
        log = math.log(prior) + of_rate
        after = dist.Gamma(shape + 4, 3.0)
        following = dist.GammaPoisson(shape + 4, 3.0 / (1 + z))
        if z == 2:
            logs.append(log + normal(2.0, math.sqrt(3.0)).log_prob(y))
            x = [(1.0, normal(2 + (y - 2) / 3, math.sqrt(2 / 3)))]
        else:
            each = torch.stack(
                [math.log(p) + normal(z + k, math.sqrt(2.0)).log_prob(y) for k, p in enumerate((0.7, 0.3))]
            )
            logs.append(log + each.logsumexp(0))
            probs = torch.softmax(each, 0).tolist()
            x = [(p, normal(z + (y - z - k) / 2, math.sqrt(0.5))) for k, p in enumerate(probs)]
        parts.append({"x": x, "rate": [(1.0, after)], "next": [(1.0, following)]})
    weights = torch.softmax(torch.stack(logs), 0)
    found = infer.marginals(collapse(steered))(how)
    torch.testing.assert_close(found.log_evidence, torch.stack(logs).logsumexp(0), **EXACT)
    torch.testing.assert_close(found["z"].probs, weights, **EXACT)
    for name, point in (("x", 0.3), ("rate", 2.0), ("next", 3.0)):
        wanted = sum(
            weight * p * each.log_prob(number(point)).exp()
            for weight, of_run in zip(weights, parts, strict=True)
            for p, each in of_run[name]
        )
        torch.testing.assert_close(found[name].log_prob(number(point)).exp(), wanted, **EXACT)
    presence = found.presence  # type: ignore[attr-defined]
    torch.testing.assert_close(presence["w"], weights[2], **EXACT)
    torch.testing.assert_close(presence["x"], number(1.0), **EXACT)
    torch.testing.assert_close(found["w"].mean, 2 + 2 * (y - 2) / 3, **EXACT)
    pair = infer.marginals(collapse(steered), [("x", "w")])(how)["x", "w"]
    torch.testing.assert_close(
        pair.covariance_matrix, torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=D) / 3, **EXACT
    )
    drawn = infer.posterior_samples(collapse(steered), 50)(how)
    wanted_next = torch.where(drawn["z"] >= 0, drawn["next"], -1.0)
    assert torch.equal(wanted_next, drawn["next"])
    assert torch.equal(drawn["w"].isnan(), drawn["z"] != 2)


def test_families_that_differ_from_run_to_run_are_refused() -> None:
    def program() -> None:
        z = sample("z", dist.Bernoulli(number(0.5)), infer={"enumerate": "sequential"})
        scale: Any = sample("unit", dist.Gamma(number(2.0), 1.0)).rsqrt() if z else number(1.0)
        x: Any = sample("x", dist.Normal(number(0.0), scale))
        sample("y", dist.Normal(x, scale), obs=number(1.0))

    found = infer.marginals(collapse(program))()
    assert "x     no closed form" in str(found)
    with pytest.raises(
        ModelError, match=r"'x' is Normal of shape \(\) in one run .* StudentT .*posterior_samples"
    ):
        found["x"]
    assert set(infer.posterior_samples(collapse(program), 5)()) == {"z", "unit", "x"}
