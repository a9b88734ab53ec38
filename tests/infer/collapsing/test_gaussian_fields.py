"""Gaussian Markov random fields and sparse Gaussian processes, written as programs, against dense closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, sample
from sumout.poutine import collapse

D = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}


class Field:
    """Numbers on a grid, each near zero and near its neighbours, seen with noise."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.data = torch.randn(size, size, dtype=D)
        self.near = torch.tensor(2.0, dtype=D, requires_grad=True)
        self.own = torch.tensor(0.5, dtype=D, requires_grad=True)

    def one_by_one(self) -> None:
        zero = torch.zeros((), dtype=D)
        x: dict[tuple[int, int], Any] = {}
        for i in range(self.size):
            for j in range(self.size):
                x[i, j] = sample(f"x_{i}_{j}", dist.Normal(zero, 1 / self.own))
                sample(f"y_{i}_{j}", dist.Normal(x[i, j], 1.0), obs=self.data[i, j])
                if i:
                    sample(f"v_{i}_{j}", dist.Normal(x[i, j] - x[i - 1, j], 1 / self.near), obs=zero)
                if j:
                    sample(f"h_{i}_{j}", dist.Normal(x[i, j] - x[i, j - 1], 1 / self.near), obs=zero)

    def in_plates(self) -> None:
        size = self.size
        with plate("rows", size, dim=-2), plate("columns", size, dim=-1):
            x: Any = sample("x", dist.Normal(torch.zeros((), dtype=D), 1 / self.own))
            sample("y", dist.Normal(x, 1.0), obs=self.data)
        self.neighbours(x)

    def as_one(self) -> None:
        x: Any = sample(
            "x", dist.Normal(torch.zeros(self.size, self.size, dtype=D), 1 / self.own).to_event(2)
        )
        sample("y", dist.Normal(x, 1.0).to_event(2), obs=self.data)
        self.neighbours(x)

    def neighbours(self, x: Any) -> None:
        wide, high = x[:, 1:] - x[:, :-1], x.diff(dim=0)
        sample("h", dist.Normal(wide, 1 / self.near).to_event(2), obs=torch.zeros(wide.shape, dtype=D))
        sample("v", dist.Normal(high, 1 / self.near).to_event(2), obs=torch.zeros(high.shape, dtype=D))

    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """The logarithm of the evidence, means and standard deviations."""
        eye = torch.eye(self.size, dtype=D)
        steps = torch.kron(eye, eye.diff(dim=0)), torch.kron(eye.diff(dim=0), eye)
        cells = torch.eye(self.size**2, dtype=D)
        rows = torch.cat([self.own * cells, self.near * steps[0], self.near * steps[1], cells])
        precision, vector = rows.T @ rows, self.data.reshape(-1)
        mean = torch.linalg.solve(precision, vector)
        logs = len(cells) * self.own.log() + 2 * len(steps[0]) * self.near.log()
        logs = logs - 0.5 * (len(rows) - len(cells)) * math.log(2 * math.pi)
        log_evidence = logs - 0.5 * (vector @ vector - vector @ mean) - 0.5 * torch.logdet(precision)
        deviation = torch.linalg.inv(precision).diagonal().sqrt()
        shape = self.data.shape
        return log_evidence, mean.reshape(shape), deviation.reshape(shape)


@pytest.mark.parametrize(("how", "size"), [("in_plates", 20), ("as_one", 20), ("one_by_one", 6)])
def test_a_field_on_a_grid(how: str, size: int) -> None:
    field = Field(size)
    log_evidence, mean, deviation = field.dense()
    program = collapse(getattr(field, how))
    found = infer.log_evidence(program)()
    torch.testing.assert_close(found, log_evidence, **EXACT)
    parameters = field.near, field.own
    torch.testing.assert_close(
        torch.autograd.grad(found, parameters),
        torch.autograd.grad(log_evidence, parameters, retain_graph=True),
        **EXACT,
    )
    told = infer.marginals(program)()
    if how == "one_by_one":
        cells = [told[f"x_{i}_{j}"] for i in range(size) for j in range(size)]
        means, deviations = (
            torch.stack([each.mean for each in cells]),
            torch.stack([each.stddev for each in cells]),
        )
    else:
        means, deviations = told["x"].mean, told["x"].variance.sqrt()
    torch.testing.assert_close(means.reshape(size, size), mean, **EXACT)
    torch.testing.assert_close(deviations.reshape(size, size), deviation, **EXACT)


LINKS: dict[str, Callable[[Any, Tensor, Tensor], Any]] = {
    "solve": lambda u, inner, cross: cross @ torch.linalg.solve(inner, u),
    "inverse": lambda u, inner, cross: cross @ torch.linalg.inv(inner) @ u,
    "cholesky_solve": lambda u, inner, cross: (
        cross @ torch.cholesky_solve(u.unsqueeze(-1), torch.linalg.cholesky(inner))
    ).squeeze(-1),
    "solve_triangular": lambda u, inner, cross: (
        torch.linalg.solve_triangular(torch.linalg.cholesky(inner), cross.T, upper=False).T
        @ torch.linalg.solve_triangular(torch.linalg.cholesky(inner), u.unsqueeze(-1), upper=False).squeeze(
            -1
        )
    ),
    "lu_solve": lambda u, inner, cross: (
        cross @ torch.linalg.lu_solve(*torch.linalg.lu_factor(inner), u.unsqueeze(-1))
    ).squeeze(-1),
    "tensorsolve": lambda u, inner, cross: cross @ torch.linalg.tensorsolve(inner, u),
    "weights": lambda u, inner, cross: torch.linalg.solve(inner, cross.T).T @ u,
}


@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize("how", LINKS)
def test_a_process_by_inducing_points(how: str, independent: bool) -> None:
    """Fully independent conditionals, or deterministic ones, given the process at a few points.

    Source: Quiñonero-Candela and Rasmussen, *A unifying view of sparse approximate Gaussian process regression* (2005).
    """
    x = torch.rand(40, dtype=D) * 6
    points = torch.linspace(0.0, 6.0, 7, dtype=D)
    y = x.sin() + 0.1 * torch.randn(40, dtype=D)
    width = torch.tensor(1.1, dtype=D, requires_grad=True)
    noise = torch.tensor(0.3, dtype=D, requires_grad=True)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (-0.5 * ((a.unsqueeze(-1) - b) / width) ** 2).exp()

    def parts() -> tuple[Tensor, Tensor, Tensor]:
        inner, cross = kernel(points, points) + 1e-3 * torch.eye(7, dtype=D), kernel(x, points)
        known = (cross * torch.linalg.solve(inner, cross.T).T).sum(-1)
        return inner, cross, (1.0 - known if independent else torch.zeros(40, dtype=D)) + noise**2

    def program() -> None:
        inner, cross, variance = parts()
        u: Any = sample("u", dist.MultivariateNormal(torch.zeros(7, dtype=D), inner))
        with plate("rows", 40):
            sample("y", dist.Normal(LINKS[how](u, inner, cross), variance.sqrt()), obs=y)

    inner, cross, variance = parts()
    through = torch.linalg.solve(inner, cross.T)
    covariance = cross @ through + torch.diag(variance)
    wanted = dist.MultivariateNormal(torch.zeros(40, dtype=D), covariance).log_prob(y)
    found = infer.log_evidence(collapse(program))()
    torch.testing.assert_close(found, wanted, **EXACT)
    torch.testing.assert_close(
        torch.autograd.grad(found, (width, noise)),
        torch.autograd.grad(wanted, (width, noise)),
        rtol=1e-8,
        atol=1e-8,
    )
    posterior = infer.marginals(collapse(program))()["u"]
    torch.testing.assert_close(
        posterior.mean, cross.T @ torch.linalg.solve(covariance, y), rtol=1e-8, atol=1e-8
    )


def test_a_local_site_of_a_subsample_has_the_posterior_of_one_element() -> None:
    y = torch.randn(6, dtype=D)
    rows = torch.tensor([0, 2])

    def program() -> None:
        mean: Any = sample("mean", dist.Normal(torch.zeros((), dtype=D), 1.0))
        with plate("rows", 6, subsample=rows) as chosen:
            x: Any = sample("x", dist.Normal(mean, 1.0))
            sample("y", dist.Normal(x, 1.0), obs=y[chosen])

    told = infer.marginals(collapse(program))()
    precision = 1 + 3 * 2 * 0.5  # Each of the two rows, of variance 2, counts three times.
    mean = 3 * 0.5 * y[rows].sum() / precision
    torch.testing.assert_close(told["mean"].mean, mean, **EXACT)
    torch.testing.assert_close(told["x"].mean, (mean + y[rows]) / 2, **EXACT)
    torch.testing.assert_close(told["x"].variance, torch.full((2,), 0.5 + 0.25 / precision, dtype=D), **EXACT)
