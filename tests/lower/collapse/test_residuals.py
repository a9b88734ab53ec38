"""Programs in which noises are orders of magnitude apart, against exact rational arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import ModelError
from sumout.poutine import collapse

D = torch.float64


def number(x: float) -> Tensor:
    return torch.tensor(x, dtype=D)


class Exact:
    """Normal residuals of numbers, integrated in fractions."""

    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, Fraction], Fraction, Fraction]] = []
        self.places: dict[str, int] = {}

    def add(self, coefs: Mapping[str, float], const: float, deviation: float) -> None:
        for name in coefs:
            self.places.setdefault(name, len(self.places))
        own = {name: Fraction(coef) for name, coef in coefs.items()}
        self.rows.append((own, Fraction(const), Fraction(deviation) ** 2))

    def solve(self) -> tuple[float, dict[str, float], dict[str, float]]:
        """The logarithm of the evidence, posterior means and standard deviations."""
        size = len(self.places)
        table = [[Fraction(int(i + size + 1 == j)) for j in range(2 * size + 1)] for i in range(size)]
        square, log = Fraction(0), 0.0
        for coefs, const, variance in self.rows:
            entries = [(self.places[name], coef) for name, coef in coefs.items()]
            for i, a in entries:
                table[i][size] -= a * const / variance
                for j, b in entries:
                    table[i][j] += a * b / variance
            square += const**2 / variance
            log -= 0.5 * (logarithm(variance) + math.log(2 * math.pi))
        vector = [row[size] for row in table]
        for i in range(size):
            pivot = table[i][i]
            log += 0.5 * (math.log(2 * math.pi) - logarithm(pivot))
            table[i] = [each / pivot for each in table[i]]
            for j in range(size):
                if j != i and table[j][i]:
                    factor = table[j][i]
                    table[j] = [x - factor * y for x, y in zip(table[j], table[i], strict=True)]
        means = [row[size] for row in table]
        square -= sum([h * mean for h, mean in zip(vector, means, strict=True)])
        variances = [table[i][size + 1 + i] for i in range(size)]
        return (
            log - 0.5 * float(square),
            {name: float(means[place]) for name, place in self.places.items()},
            {name: math.exp(0.5 * logarithm(variances[place])) for name, place in self.places.items()},
        )


def logarithm(x: Fraction) -> float:
    return math.log(x.numerator) - math.log(x.denominator)


def check(program: Callable[[], None], exact: Exact, error: float = 1e-9) -> None:
    """Evidence, posterior means in units of their deviations, and deviations; of sites that have no plates."""
    log_evidence, means, deviations = exact.solve()
    found = float(infer.log_evidence(collapse(program))())
    assert math.isclose(found, log_evidence, rel_tol=error, abs_tol=error)
    marginals = infer.marginals(collapse(program))()
    for name, mean in means.items():
        if name in marginals:
            told = marginals[name]
            assert abs(float(told.mean) - mean) <= max(error * deviations[name], 1e-15 * abs(mean))
            assert math.isclose(float(told.stddev), deviations[name], rel_tol=error)


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-6, 1e-9, 1e-12, 1e-20])
def test_a_difference_that_is_nearly_known(noise: float) -> None:
    def program() -> None:
        x: Any = sample("x", dist.Normal(number(0.0), 1.0))
        z: Any = sample("z", dist.Normal(number(0.0), 1.0))
        sample("same", dist.Normal(x - z, noise), obs=number(0.0))
        sample("y", dist.Normal(z, 1.0), obs=number(1.0))

    exact = Exact()
    exact.add({"x": 1}, 0, 1)
    exact.add({"z": 1}, 0, 1)
    exact.add({"x": 1, "z": -1}, 0, noise)
    exact.add({"z": 1}, -1, 1)
    check(program, exact)


@pytest.mark.parametrize(("noise", "prior"), [(1.0, 1e6), (1e-8, 1.0), (1e-8, 1e6), (1e-3, 1e6)])
def test_walks(noise: float, prior: float) -> None:
    y = torch.randn(12, dtype=D).cumsum(0)

    def program() -> None:
        x: Any = number(0.0)
        for t, each in enumerate(y):
            x = sample(f"x_{t}", dist.Normal(x, 1.0 if t else prior))
            sample(f"y_{t}", dist.Normal(x, noise), obs=each)

    exact = Exact()
    for t, each in enumerate(y):
        exact.add({f"x_{t}": 1, f"x_{t - 1}": -1} if t else {"x_0": 1}, 0, 1.0 if t else prior)
        exact.add({f"x_{t}": 1}, -float(each), noise)
    check(program, exact)


@pytest.mark.parametrize("noise", [1e-4, 1e-8])
def test_a_line_that_bends_a_little(noise: float) -> None:
    """A local linear trend whose level and slope hardly change, from a vague prior."""
    y = torch.randn(10, dtype=D) + torch.arange(10)

    def program() -> None:
        level: Any = sample("level_0", dist.Normal(number(0.0), 1e6))
        slope: Any = sample("slope_0", dist.Normal(number(0.0), 1e6))
        sample("y_0", dist.Normal(level, 1.0), obs=y[0])
        for t in range(1, 10):
            level, slope = (
                sample(f"level_{t}", dist.Normal(level + slope, noise)),
                sample(f"slope_{t}", dist.Normal(slope, noise)),
            )
            sample(f"y_{t}", dist.Normal(level, 1.0), obs=y[t])

    exact = Exact()
    exact.add({"level_0": 1}, 0, 1e6)
    exact.add({"slope_0": 1}, 0, 1e6)
    for t in range(10):
        if t:
            exact.add({f"level_{t}": 1, f"level_{t - 1}": -1, f"slope_{t - 1}": -1}, 0, noise)
            exact.add({f"slope_{t}": 1, f"slope_{t - 1}": -1}, 0, noise)
        exact.add({f"level_{t}": 1}, -float(y[t]), 1)
    check(program, exact)


@pytest.mark.parametrize(
    ("apart", "prior", "noise", "error"),
    # What the design's own digits leave undetermined is lost: columns 1e-8 apart have 8 digits of their difference.
    [(1e-4, 1e2, 1e-2, 1e-9), (1e-8, 1.0, 1e-4, 1e-9), (1e-8, 1e6, 1e-4, 1e-6)],
)
def test_columns_that_are_nearly_the_same(apart: float, prior: float, noise: float, error: float) -> None:
    first = torch.randn(10, dtype=D)
    second = first + apart * torch.randn(10, dtype=D)
    y = 2 * first + noise * torch.randn(10, dtype=D)

    def program() -> None:
        a: Any = sample("a", dist.Normal(number(0.0), prior))
        b: Any = sample("b", dist.Normal(number(0.0), prior))
        with plate("rows", 10):
            sample("y", dist.Normal(first * a + second * b, noise), obs=y)

    exact = Exact()
    exact.add({"a": 1}, 0, prior)
    exact.add({"b": 1}, 0, prior)
    for row in range(10):
        exact.add({"a": float(first[row]), "b": float(second[row])}, -float(y[row]), noise)
    check(program, exact, error)


@pytest.mark.parametrize(("offset", "noise"), [(1e8, 1.0), (1e8, 1e-4), (1e8, 1e-8), (1e4, 1e-8)])
def test_large_numbers_in_a_hierarchy(offset: float, noise: float) -> None:
    y = offset + noise * torch.randn(6, dtype=D)
    groups = torch.tensor([0, 0, 1, 2, 2, 2])

    def program() -> None:
        mean: Any = sample("mean", dist.Normal(number(0.0), 1e9))
        with plate("groups", 3):
            x: Any = sample("x", dist.Normal(mean, 1.0))
        with plate("rows", 6):
            sample("y", dist.Normal(x[groups], noise), obs=y)

    exact = Exact()
    exact.add({"mean": 1}, 0, 1e9)
    for group in range(3):
        exact.add({f"x[{group}]": 1, "mean": -1}, 0, 1)
    for row, group in enumerate(groups):
        exact.add({f"x[{int(group)}]": 1}, -float(y[row]), noise)
    check(program, exact)
    _, means, deviations = exact.solve()
    told = infer.marginals(collapse(program))()["x"]
    for group in range(3):
        assert math.isclose(float(told.mean[group]), means[f"x[{group}]"], rel_tol=1e-15)
        assert math.isclose(float(told.stddev[group]), deviations[f"x[{group}]"], rel_tol=1e-9)


@pytest.mark.parametrize(("prior", "noise", "offset"), [(1e6, 1.0, 0.0), (1.0, 1e-6, 0.0), (1e2, 1e-3, 1e8)])
def test_vectorized_chains_as_loops(prior: float, noise: float, offset: float) -> None:
    y = offset + torch.randn(9, dtype=D).cumsum(0)
    drift = torch.tensor(1.0, dtype=D, requires_grad=True)

    def program(vectorized: bool) -> None:
        x: Any = number(offset).expand(1)
        with plate("series", 1):
            for t in poutine.markov(range(9), **({"dim": -2, "name": "time"} if vectorized else {})):
                x = sample(f"x_{t}", dist.Normal(x, prior if isinstance(t, int) and t == 0 else drift))
                sample(f"y_{t}", dist.Normal(x, number(noise)), obs=y[t].unsqueeze(-1))

    exact = Exact()
    for t, each in enumerate(y):
        exact.add(
            {f"x_{t}": 1, f"x_{t - 1}": -1} if t else {"x_0": 1}, 0.0 if t else -offset, 1.0 if t else prior
        )
        exact.add({f"x_{t}": 1}, -float(each), noise)
    log_evidence, means, deviations = exact.solve()
    grads = []
    for vectorized in (True, False):
        found = infer.log_evidence(collapse(program))(vectorized)
        assert math.isclose(float(found.detach()), log_evidence, rel_tol=1e-9)
        grads.append(torch.autograd.grad(found, drift)[0])
        told = infer.marginals(collapse(program))(vectorized)
        for name, mean in means.items():
            found = told[name].mean.detach()
            assert abs(float(found) - mean) <= max(1e-9 * deviations[name], 1e-15 * abs(mean))
            assert math.isclose(float(told[name].stddev.detach()), deviations[name], rel_tol=1e-9)
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("noise", [1e-3, 1e-8])
def test_derivatives_by_noise(noise: float) -> None:
    """Of the evidence by the logarithm of a small noise, in closed form."""
    log_noise = torch.tensor(math.log(noise), dtype=D, requires_grad=True)

    def program() -> None:
        x: Any = sample("x", dist.Normal(number(0.0), 1.0))
        z: Any = sample("z", dist.Normal(x, log_noise.exp()))
        sample("y", dist.Normal(z, 1.0), obs=number(1.5))

    found = torch.autograd.grad(infer.log_evidence(collapse(program))(), log_noise)[0]
    variance = 2 + noise**2  # y is normal with this variance, of which the derivative is 2 noise^2.
    wanted = (-0.5 / variance + 0.5 * 1.5**2 / variance**2) * 2 * noise**2
    assert math.isclose(float(found), wanted, rel_tol=1e-9, abs_tol=1e-10)


def test_second_derivatives_are_refused() -> None:
    """They would be silently zero, or those of one way to rotate the residuals."""
    weight = torch.tensor(0.5, dtype=D, requires_grad=True)

    def program(noise: float) -> None:
        x: Any = sample("x", dist.Normal(number(0.0), 1.0))
        z: Any = sample("z", dist.Normal(weight * x, noise))
        sample("y", dist.Normal(z, 1.0), obs=number(1.5))

    def second(noise: float) -> Tensor:
        found = infer.log_evidence(collapse(program))(noise)
        (first,) = torch.autograd.grad(found, weight, create_graph=True)
        return torch.autograd.grad(first, weight)[0]

    variance = 1.25 + weight**2
    exact = -0.5 * variance.log() - 0.5 * 1.5**2 / variance
    (first,) = torch.autograd.grad(exact, weight, create_graph=True)
    torch.testing.assert_close(second(0.5), torch.autograd.grad(first, weight)[0], rtol=1e-9, atol=1e-9)
    with pytest.raises(ModelError, match="Second derivatives were asked for"):
        second(1e-6)


def test_samples_of_what_is_nearly_determined() -> None:
    def program() -> None:
        x: Any = sample("x", dist.Normal(number(0.0), 1.0))
        z: Any = sample("z", dist.Normal(x, 1e-9))
        sample("y", dist.Normal(z, 1.0), obs=number(1.0))

    found = infer.posterior_samples(collapse(program), 4000)()
    x, z = found["x"], found["z"]
    assert float((z - x).abs().max()) < 1e-8
    assert abs(float((z - x).std()) / 1e-9 - 1) < 0.06
    assert abs(float(x.mean()) - 0.5) < 0.06
    assert abs(float(x.var()) - 0.5) < 0.06


def test_what_nothing_determines_is_an_error() -> None:
    def program(factor: float) -> None:
        with poutine.mask(mask=torch.tensor(False)):
            x: Any = sample("x", dist.Normal(number(0.0), 1.0))
            z: Any = sample("z", dist.Normal(number(0.0), 1.0))
        with plate("rows", 3):
            sample("y", dist.Normal(x + factor * z, 1e-6), obs=torch.ones(3, dtype=D))
        sample("w", dist.Normal(x + factor * z, 1e3), obs=number(0.0))

    with pytest.raises(
        ModelError, match=r"The integral over 'x', 'z' diverges|The integral over '[xz]' diverges"
    ):
        collapse(program)(1.0 / 3.0)


def test_elements_of_very_different_number_are_put_together() -> None:
    """Rows that pick elements of a plate: one of many, others of few, some of none."""
    generator = torch.Generator().manual_seed(0)
    index = torch.cat([torch.zeros(300, dtype=torch.long), torch.tensor([1, 1, 4, 5, 5, 5])])
    y = torch.randn(len(index), generator=generator, dtype=D)

    def program(prior: float) -> None:
        mean: Any = sample("mean", dist.Normal(number(0.0), prior))
        with plate("groups", 6):
            x: Any = sample("x", dist.Normal(mean, 1.0))
        with plate("rows", len(index)):
            sample("y", dist.Normal(x[index], 0.5), obs=y)

    for prior in (1.0, 1e7):
        exact = Exact()
        exact.add({"mean": 1}, 0, prior)
        for group in range(6):
            exact.add({f"x[{group}]": 1, "mean": -1}, 0, 1)
        for row, group in enumerate(index):
            exact.add({f"x[{int(group)}]": 1}, -float(y[row]), 0.5)
        found = infer.log_evidence(collapse(program))(prior)
        assert math.isclose(float(found), exact.solve()[0], rel_tol=1e-9)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize(("size", "noise"), [(1e6, 1e-8), (1e8, 1e-8), (1e8, 1e-10)])
def test_large_numbers_times_what_is_no_power_of_two(size: float, noise: float, vectorized: bool) -> None:
    """Products are rounded by many units of noise."""
    generator = torch.Generator().manual_seed(5)
    draws = torch.randn(8, 2, generator=generator, dtype=D)
    x = size * draws[0, 0]
    y = []
    for t in range(8):
        x = 0.9 * x + noise * draws[t, 0] if t else x
        y.append(x + noise * draws[t, 1])
    data = torch.stack(y)
    widths = torch.full((8,), noise, dtype=D)
    widths[0] = size

    def program() -> None:
        x: Any = number(0.0)
        steps = range(8)
        chain: Any = poutine.markov(steps, dim=-1, name="time") if vectorized else steps
        for t in chain:
            x = sample(f"x_{t}", dist.Normal(0.9 * x, widths[t]))
            sample(f"y_{t}", dist.Normal(x, noise), obs=data[t])

    exact = Exact()
    for t in range(8):
        exact.add({f"x_{t}": 1, f"x_{t - 1}": -0.9} if t else {"x_0": 1}, 0, noise if t else size)
        exact.add({f"x_{t}": 1}, -float(data[t]), noise)
    check(program, exact)
