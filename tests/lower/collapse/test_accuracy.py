"""Digits: single precision, large numbers and small noise, against exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, sample
from sumout.errors import ModelError
from sumout.poutine import collapse

D = torch.float64


def repeated(y: Tensor, noise: float, prior: float = 1000.0) -> None:
    mean: Any = sample("mean", dist.Normal(y.new_tensor(0.0), prior))
    with plate("rows", len(y)):
        sample("y", dist.Normal(mean, y.new_tensor(noise)), obs=y)


def exact(y: Tensor, noise: float, prior: float = 1000.0) -> float:
    data = [Fraction(float(each)) for each in y]
    s, p = Fraction(float(y.new_tensor(noise))), Fraction(prior)
    n = len(data)
    precision, vector = n / s**2 + 1 / p**2, sum(data) / s**2
    square = sum(each**2 for each in data) / s**2 - vector**2 / precision
    return float(
        -n * math.log(s)
        - math.log(p)
        - n / 2 * math.log(2 * math.pi)
        - math.log(precision) / 2
        - float(square) / 2
    )


@pytest.mark.parametrize(("offset", "noise"), [(0.0, 1.0), (1e4, 1.0), (1e6, 1e-3), (1e3, 1e-5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_numbers_with_small_noise(offset: float, noise: float, dtype: torch.dtype) -> None:
    y = (offset + noise * torch.randn(50, dtype=D)).to(dtype)
    found = infer.log_evidence(collapse(repeated))(y, noise)
    assert found.dtype == dtype
    tolerance = 1e-9 if dtype == D else 1e-6
    assert math.isclose(float(found), exact(y, noise), rel_tol=tolerance, abs_tol=tolerance)


def level(y: Tensor, noise: float) -> None:
    mean: Any = y.new_tensor(0.0)
    for t, each in enumerate(y):
        mean = sample(f"mean_{t}", dist.Normal(mean, y.new_tensor(1.0)))
        sample(f"y_{t}", dist.Normal(mean, y.new_tensor(noise)), obs=each)


@pytest.mark.parametrize("noise", [1.0, 2.0**-10, 2.0**-16])
def test_a_long_walk_in_single_precision(noise: float) -> None:
    """The numbers are such that both precisions have them exactly."""
    y = (torch.randn(200, dtype=D).cumsum(0) * 256).round() / 256
    query = infer.log_evidence(collapse(level))
    single = query(y.float(), noise)
    assert single.dtype == torch.float32
    steps = torch.arange(1.0, 201.0, dtype=D)
    covariance = torch.minimum(steps[:, None], steps) + noise**2 * torch.eye(200, dtype=D)
    wanted = dist.MultivariateNormal(torch.zeros(200, dtype=D), covariance).log_prob(y)
    torch.testing.assert_close(query(y, noise), wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(single, wanted.float(), rtol=1e-6, atol=1e-4)


def test_an_unknown_scale_of_numbers_far_from_zero() -> None:
    def program(y: Tensor) -> None:
        unit: Any = sample("unit", dist.Gamma(y.new_tensor(2.0), 1.0))
        mean: Any = sample("mean", dist.Normal(1e6 * (y.mean() / y.mean()), 10 * unit.rsqrt()))
        with plate("rows", len(y)):
            sample("y", dist.Normal(mean, unit.rsqrt()), obs=y)

    y = (torch.randn(40, dtype=D) * 256).round() / 256
    near, far = y + 1e6, y
    covariance = torch.eye(40, dtype=D) + 100
    student = dist.MultivariateStudentT(
        4.0, torch.zeros(40, dtype=D), torch.linalg.cholesky(covariance * 0.5)
    )
    torch.testing.assert_close(
        infer.log_evidence(collapse(program))(near), student.log_prob(far), rtol=1e-9, atol=1e-9
    )


def test_many_counts_in_single_precision() -> None:
    def program(y: Tensor) -> None:
        rate: Any = sample("rate", dist.Gamma(y.new_tensor(2.0), 1.0))
        with plate("rows", len(y)):
            sample("y", dist.Poisson(rate), obs=y)

    y = torch.poisson(torch.full((20_000,), 40.0))
    query = infer.log_evidence(collapse(program))
    torch.testing.assert_close(query(y), query(y.double()).float(), rtol=1e-6, atol=0.0)


def test_noise_whose_square_is_no_number_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"The integral over 'mean' is not finite"):
        collapse(repeated)(torch.zeros(3, dtype=D), 1e-200)


def test_a_prior_that_is_masked_out_is_an_error() -> None:
    def program() -> None:
        x: Any = sample("x", dist.Normal(0.0, 1.0).mask(False))
        z: Any = sample("z", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(z + 0 * x, 1.0), obs=torch.tensor(0.0))

    with pytest.raises(ModelError, match=r"The integral over 'x' diverges"):
        collapse(program)()


def test_vague_priors_are_no_loss() -> None:
    def program(y: Tensor) -> None:
        a: Any = sample("a", dist.Normal(torch.tensor(0.0, dtype=D), 1e5))
        b: Any = sample("b", dist.Normal(torch.tensor(0.0, dtype=D), 1e5))
        with plate("rows", len(y)):
            sample("y", dist.Normal(a + b * torch.arange(len(y), dtype=D), 1e-2), obs=y)

    y = torch.linspace(0.0, 3.0, 5, dtype=D) + 0.01 * torch.randn(5, dtype=D)
    design = torch.stack([torch.ones(5, dtype=D), torch.arange(5, dtype=D)], -1)
    # In the precision form, exactly: with fractions there is no loss.
    rows = [[Fraction(float(each)) for each in row] for row in design]
    data = [Fraction(float(each)) for each in y]
    s, p = Fraction(1e-2) ** 2, Fraction(1e5) ** 2
    aa = [[sum(r[i] * r[j] for r in rows) / s + (i == j) / p for j in range(2)] for i in range(2)]
    h = [sum(r[i] * v for r, v in zip(rows, data, strict=True)) / s for i in range(2)]
    det = aa[0][0] * aa[1][1] - aa[0][1] ** 2
    square = (h[0] ** 2 * aa[1][1] - 2 * h[0] * h[1] * aa[0][1] + h[1] ** 2 * aa[0][0]) / det
    exact = -0.5 * float(sum(v * v for v in data) / s - square) - 2.5 * math.log(2 * math.pi * s)
    exact -= 0.5 * math.log(det) + math.log(p)
    assert math.isclose(float(infer.log_evidence(collapse(program))(y)), exact, rel_tol=1e-8, abs_tol=1e-8)
