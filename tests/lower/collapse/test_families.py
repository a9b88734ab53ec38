"""Families with matrices, bounds and low rank, against closed forms and quadrature."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import ModelError
from sumout.infer.collapsing.posterior import posterior
from sumout.poutine import collapse

D = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}
A = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=D)


def t(*values: float) -> Tensor:
    return torch.tensor(values if len(values) > 1 else values[0], dtype=D)


def posterior_of(program: Any, name: str) -> Any:
    sites = poutine.trace(collapse(program)).get_trace().nodes
    return posterior(sites[f"_collapsed_{name}"].infer["_integral"], name)


@pytest.mark.parametrize("scale", [0.2, 3.0])
def test_uniform_with_a_pareto_bound(scale: float) -> None:
    """The largest observation that is not masked counts; against the integral in closed form, with gradients."""
    y = t(0.3, 9.0, 0.7, 0.1)
    kept = torch.tensor([True, False, True, True])
    powers = t(1.0, 2.0, 2.0, 0.5)
    hyper = torch.tensor([scale, 2.0], dtype=D, requires_grad=True)

    def program() -> None:
        bound: Any = sample("bound", dist.Pareto(hyper[0], hyper[1]))
        with plate("rows", 4), poutine.mask(mask=kept), poutine.scale(scale=powers):
            sample("y", dist.Uniform(0.0, 2 * bound), obs=y)

    lowest = torch.maximum(hyper[0], t(0.35))
    n = 3.5
    exact = hyper[1].log() + hyper[1] * hyper[0].log() - n * math.log(2.0)
    exact = exact - (hyper[1] + n).log() - (hyper[1] + n) * lowest.log()
    found = infer.log_evidence(collapse(program))()
    torch.testing.assert_close(found, exact, **EXACT)
    for got, wanted in zip(torch.autograd.grad(found, hyper), torch.autograd.grad(exact, hyper), strict=True):
        torch.testing.assert_close(got, wanted, **EXACT)
    known = posterior_of(program, "bound")
    torch.testing.assert_close(known.scale, lowest)
    torch.testing.assert_close(known.alpha, hyper[1] + n)


def test_uniform_bounds_in_groups() -> None:
    group = torch.tensor([0, 1, 1, 0, 1])
    y = t(0.5, 2.0, 3.0, 1.5, 0.1)

    def program() -> None:
        with plate("groups", 3):
            bound: Any = sample("bound", dist.Pareto(t(1.0, 1.0, 4.0), 2.0))
        with plate("rows", 5):
            sample("y", dist.Uniform(torch.zeros(5, dtype=D), bound[group]), obs=y)

    exact = torch.zeros((), dtype=D)
    for least, count in ((1.5, 2), (3.0, 3)):
        exact = exact + math.log(2.0) - math.log(2.0 + count) - (2.0 + count) * math.log(least)
    torch.testing.assert_close(infer.log_evidence(collapse(program))(), exact, **EXACT)


def test_a_uniform_from_elsewhere_is_refused() -> None:
    for low in (t(-1.0), torch.zeros((), dtype=D, requires_grad=True)):

        def program(low: Tensor = low) -> None:
            sample("y", dist.Uniform(low, sample("bound", dist.Pareto(t(1.0), 2.0))), obs=t(0.5))

        with pytest.raises(
            ModelError, match=r"Site 'y' \(Uniform\) depends on the delayed site 'bound' \(Pareto\)"
        ):
            collapse(program)()


def test_normal_vectors_with_a_wishart_precision() -> None:
    """One observation after the other, each predicted by a Student distribution (Murphy 2007, section 5.4)."""
    y = torch.randn(5, 2, dtype=D)
    times = t(1.0, 2.0, 0.5, 1.0, 3.0)
    loc = t(0.1, 0.2)
    scatter = A.clone().requires_grad_()

    def program() -> None:
        precision: Any = sample("precision", dist.Wishart(t(4.0), precision_matrix=scatter))
        with plate("rows", 5):
            fn = dist.MultivariateNormal(loc, precision_matrix=times[:, None, None] * precision)
            sample("y", fn, obs=y)

    exact, df, state = torch.zeros((), dtype=D), 4.0, scatter
    for row, c in zip(y, times, strict=True):
        spread = torch.linalg.cholesky(state / (c * (df - 1)))
        exact = exact + dist.MultivariateStudentT(t(df - 1), loc, spread).log_prob(row)
        state = state + c * torch.outer(row - loc, row - loc)
        df += 1
    found = infer.log_evidence(collapse(program))()
    torch.testing.assert_close(found, exact, **EXACT)
    (got,), (wanted,) = torch.autograd.grad(found, scatter), torch.autograd.grad(exact, scatter)
    torch.testing.assert_close(got, wanted, **EXACT)
    known = posterior_of(program, "precision")
    torch.testing.assert_close(known.df, t(9.0))
    torch.testing.assert_close(known.precision_matrix, state, **EXACT)


def test_a_part_of_a_wishart_matrix_is_refused() -> None:
    for part in (lambda w: w.flip(-1).flip(-2), lambda w: w * t(1.0, 2.0)[:, None] * t(1.0, 2.0)):

        def program(part: Any = part) -> None:
            precision: Any = sample("precision", dist.Wishart(t(4.0), precision_matrix=A))
            sample(
                "y", dist.MultivariateNormal(t(0.0, 0.0), precision_matrix=part(precision)), obs=t(0.0, 1.0)
            )

        with pytest.raises(ModelError, match=r"depends on the delayed site 'precision' \(Wishart\)"):
            collapse(program)()


@pytest.mark.parametrize("kind", ["covariance_matrix", "precision_matrix", "scale_tril"])
@pytest.mark.parametrize("inverse", [False, True])
def test_normal_vectors_with_an_unknown_scale(kind: str, inverse: bool) -> None:
    """However the scale is given, it is one Student distribution."""
    y = torch.randn(3, 2, dtype=D)

    def program() -> None:
        unit: Any = sample("unit", (dist.InverseGamma if inverse else dist.Gamma)(t(2.0), 1.5))
        mean: Any = sample("mean", dist.Normal(0.0, 2 * (unit.sqrt() if inverse else unit.rsqrt())))
        made = {
            "covariance_matrix": A * unit if inverse else A / unit,
            "precision_matrix": A.inverse() / unit if inverse else A.inverse() * unit,
            "scale_tril": torch.linalg.cholesky(A) * (unit.sqrt() if inverse else unit.rsqrt()),
        }[kind]
        with plate("rows", 3):
            loc = torch.stack([mean, 2 * mean])
            sample("y", dist.MultivariateNormal(loc, **{kind: made}), obs=y)

    direction = t(1.0, 2.0).repeat(3)
    covariance = torch.block_diag(A, A, A) + 4 * torch.outer(direction, direction)  # type: ignore[no-untyped-call]
    root = torch.linalg.cholesky(covariance * 1.5 / 2.0)
    exact = dist.MultivariateStudentT(t(4.0), torch.zeros(6, dtype=D), root).log_prob(y.reshape(-1))
    torch.testing.assert_close(infer.log_evidence(collapse(program))(), exact, **EXACT)


def test_low_rank_covariances() -> None:
    y = torch.randn(2, dtype=D)
    factor, diagonal = t(1.0, 0.5).unsqueeze(-1), t(1.0, 2.0)

    def program() -> None:
        x: Any = sample("x", dist.LowRankMultivariateNormal(t(0.0, 1.0), factor, diagonal))
        sample("y", dist.LowRankMultivariateNormal(x, factor, diagonal), obs=y)

    covariance = 2 * (factor @ factor.mT + diagonal.diag())
    exact = dist.MultivariateNormal(t(0.0, 1.0), covariance).log_prob(y)
    torch.testing.assert_close(infer.log_evidence(collapse(program))(), exact, **EXACT)


def test_counts_of_events_that_differ() -> None:
    """Binomial with counts of trials by row, Multinomial and OneHotCategorical in events."""
    trials = t(3.0, 1.0, 7.0)
    y = t(1.0, 1.0, 5.0)
    hot = torch.eye(3, dtype=D)[torch.tensor([[0, 2], [1, 1], [2, 2]])]

    def program() -> None:
        p: Any = sample("p", dist.Beta(t(1.5), 2.0))
        q: Any = sample("q", dist.Dirichlet(t(1.0, 2.0, 0.5)))
        with plate("rows", 3):
            sample("y", dist.Binomial(trials, p), obs=y)
            sample("hot", dist.OneHotCategorical(q.expand(3, 2, 3)).to_event(1), obs=hot)

    exact = torch.zeros((), dtype=D)
    a, b = 1.5, 2.0
    for n, k in zip(trials, y, strict=True):
        exact = exact + dist.BetaBinomial(t(a), t(b), n).log_prob(k)
        a, b = a + float(k), b + float(n - k)
    state = t(1.0, 2.0, 0.5)
    for each in hot.reshape(-1, 3):
        exact = exact + ((state * each).sum() / state.sum()).log()
        state = state + each
    torch.testing.assert_close(infer.log_evidence(collapse(program))(), exact, **EXACT)


def test_normal_vectors_with_unknown_mean_and_precision() -> None:
    """Normal-Wishart, one observation after the other (Murphy 2007, section 8), with a hierarchy of means in groups."""
    y = torch.randn(6, 2, dtype=D)
    times = t(1.0, 2.0, 0.5, 1.0, 3.0, 1.0)
    design = t(1.0, 2.0, -1.0, 0.5, 1.0, 0.0)
    start = t(0.1, 0.2)
    scatter = A.clone().requires_grad_()

    def program() -> None:
        precision: Any = sample("precision", dist.Wishart(t(4.0), precision_matrix=scatter))
        mean: Any = sample("mean", dist.MultivariateNormal(start, precision_matrix=0.5 * precision))
        with plate("rows", 6):
            own: Any = sample(
                "own", dist.MultivariateNormal(mean * design[:, None], precision_matrix=2 * precision)
            )
            sample(
                "y", dist.MultivariateNormal(own, precision_matrix=times[:, None, None] * precision), obs=y
            )

    # Given the precision, entries of the residuals have the covariance of one entry times its inverse.
    inner = 2 * torch.outer(design, design) + torch.diag(0.5 + 1 / times)
    residual = y - torch.outer(design, start)
    df, total = 4.0, scatter + residual.mT @ torch.linalg.solve(inner, residual)
    exact = -6 * math.log(math.pi) - torch.logdet(inner)
    exact = exact + torch.mvlgamma(t((df + 6) / 2), 2) - torch.mvlgamma(t(df / 2), 2)
    exact = exact + df / 2 * torch.logdet(scatter) - (df + 6) / 2 * torch.logdet(total)
    found = infer.log_evidence(collapse(program))()
    torch.testing.assert_close(found, exact, **EXACT)
    (got,), (wanted,) = torch.autograd.grad(found, scatter), torch.autograd.grad(exact, scatter)
    torch.testing.assert_close(got, wanted, **EXACT)
    known = posterior_of(program, "precision")
    torch.testing.assert_close(known.df, t(10.0))
    torch.testing.assert_close(known.precision_matrix, total, **EXACT)
    mean = posterior_of_group(program, "precision", "mean")
    gain = 2 * torch.linalg.solve(inner, design)
    torch.testing.assert_close(mean.loc, start + gain @ residual, **EXACT)
    torch.testing.assert_close(mean.df, t(9.0))
    wanted = (2 - 2 * gain @ design) * total / 9
    torch.testing.assert_close(mean.scale_tril @ mean.scale_tril.mT, wanted, **EXACT)


def posterior_of_group(program: Any, first: str, name: str) -> Any:
    sites = poutine.trace(collapse(program)).get_trace().nodes
    (integral,) = [site.infer["_integral"] for site in sites.values() if site.infer.get("_integral")]
    assert first in integral.latents
    return posterior(integral, name)


def test_entries_that_are_mixed_under_an_unknown_precision_are_refused() -> None:
    def program() -> None:
        precision: Any = sample("precision", dist.Wishart(t(4.0), precision_matrix=A))
        mean: Any = sample("mean", dist.MultivariateNormal(t(0.0, 0.0), precision_matrix=precision))
        sample("y", dist.MultivariateNormal(mean.flip(-1), precision_matrix=precision), obs=t(0.0, 1.0))

    with pytest.raises(ModelError, match=r"depends on the delayed site"):
        collapse(program)()
