"""Smoothed weights against figures of another implementation, and what must hold of them whatever the fit."""

from __future__ import annotations

import math

import pytest
import torch

from sumout.errors import ModelError
from sumout.infer import psis
from sumout.infer.sampling.psis import fit_pareto, pareto_quantile


def of_tail(count: int, k: float) -> torch.Tensor:
    """Log-weights at evenly spread quantiles of a Pareto distribution whose tail has shape ``k``."""
    return -k * torch.log1p(-(torch.arange(count, dtype=torch.float64) + 0.5) / count)


REFERENCE = {
    (400, 0.6): (
        0.5769386166438929,
        [-6.8610772470419, -6.4444375297161, -4.6299846100869, -3.5531661479876, -2.9164192333624],
    ),
    (100, -0.3): (
        -0.43936689347406904,
        [-4.3452179986703, -4.5546734910473, -5.0498777523377, -5.6036257594872, -5.9332094460876],
    ),
    (2500, 1.2): (
        1.1367223634731265,
        [-11.055162001584, -10.22314531289, -4.47272730181, -2.3716989003101, -1.1225993787779],
    ),
}


@pytest.mark.parametrize(("count", "k"), REFERENCE)
def test_another_implementation_gives_the_same(count: int, k: float) -> None:
    """Figures of arviz-stats 0.8 (which takes as many weights for the tail where the square root is whole)."""
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    smoothed = psis(of_tail(count, k)[shuffled] + 100.0)
    fitted, found = REFERENCE[count, k]
    assert smoothed.pareto_k == pytest.approx(fitted, rel=1e-9)
    in_order = smoothed.log_weights[shuffled.argsort()]
    places = torch.tensor([0, count // 2, count - 10, count - 2, count - 1])
    torch.testing.assert_close(
        in_order[places], torch.tensor(found, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("k", [-0.5, 0.2, 0.7])
def test_the_fit_finds_the_shape_of_exact_quantiles(k: float) -> None:
    """Of quantiles of the distribution itself, up to the prior, which is worth ten data at 0.5."""
    probs = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    shape, scale = fit_pareto(pareto_quantile(probs, k, 3.0))
    assert shape == pytest.approx((20_000 * k + 5) / 20_010, abs=2e-3)
    assert scale == pytest.approx(3.0, rel=5e-3)


def test_quantiles() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    probs = torch.tensor([0.0, 0.1, 0.5, 0.99], dtype=torch.float64)
    for k in (-0.7, 0.0, 0.4):
        expected = scipy_stats.genpareto.ppf(probs.numpy(), k, scale=2.0)
        torch.testing.assert_close(pareto_quantile(probs, k, 2.0), torch.from_numpy(expected))


def test_what_always_holds() -> None:
    logs = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2
    smoothed = psis(logs)
    assert smoothed.log_weights.logsumexp(0).item() == pytest.approx(0.0, abs=1e-12)
    assert smoothed.threshold == pytest.approx(1 - 1 / 3)
    assert psis(logs.float()).log_weights.dtype == torch.float32
    # The order stays, and only the tail of 3 sqrt(1000) changes.
    order = logs.argsort()
    assert (smoothed.log_weights[order].diff() >= -1e-12).all()
    body = order[: 1000 - 95]
    shift = smoothed.log_weights[body] - logs[body]
    torch.testing.assert_close(shift, shift[:1].expand(905))
    # Weights are known up to a factor.
    torch.testing.assert_close(psis(logs - 1e5).log_weights, smoothed.log_weights, atol=1e-9, rtol=0)
    assert smoothed.ess == pytest.approx(float(1 / (2 * smoothed.log_weights).exp().sum()))
    assert 1 < smoothed.ess < 1000


def test_a_tail_of_zero_weights_and_small_numbers() -> None:
    assert psis(torch.zeros(100)).pareto_k == -math.inf
    torch.testing.assert_close(psis(torch.zeros(100)).log_weights.exp(), torch.full((100,), 0.01))
    assert psis(torch.randn(20)).pareto_k == math.inf  # four weights make no tail
    assert not psis(torch.randn(20)).reliable
    impossible = torch.cat([torch.full((500,), -math.inf), torch.zeros(3)])
    assert psis(impossible).log_weights.exp().sum().item() == pytest.approx(1)
    assert psis(impossible).ess == pytest.approx(3)
    assert not psis(impossible).reliable


def test_a_smaller_effective_number_takes_more_of_the_tail() -> None:
    logs = of_tail(2500, 0.5)
    assert psis(logs, r_eff=0.25).pareto_k != psis(logs).pareto_k


def test_wrong_weights() -> None:
    with pytest.raises(ModelError, match="shape"):
        psis(torch.zeros(3, 3))
    with pytest.raises(ModelError, match="NaN"):
        psis(torch.tensor([0.0, math.nan]))
    with pytest.raises(ModelError, match="zero"):
        psis(torch.full((10,), -math.inf))
