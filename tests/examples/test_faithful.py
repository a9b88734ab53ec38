"""Old Faithful: the published fit of the waiting times, and an independent EM algorithm in the plane."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

Load = Callable[[str], ModuleType]


def em(
    points: torch.Tensor, means: torch.Tensor, steps: int = 200
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Weights, means and log-likelihood of a mixture of normals: the textbook (Bishop, 2006, section 9.2.2)."""
    kinds = len(means)
    weights = torch.ones(kinds).double() / kinds
    covariances = torch.cov(points.T).expand(kinds, 2, 2)
    for _ in range(steps):
        normals = torch.distributions.MultivariateNormal(means, covariances)
        log_joint = weights.log() + normals.log_prob(points[:, None])
        log_likelihood = torch.logsumexp(log_joint, -1).sum().item()
        share = torch.softmax(log_joint, -1)
        count = share.sum(0)
        weights, means = count / len(points), share.T @ points / count[:, None]
        away = points[:, None] - means
        covariances = torch.einsum("nk,nki,nkj->kij", share, away, away) / count[:, None, None]
    return weights, means, log_likelihood


def test_the_data_are_all_there(example: Load) -> None:
    eruptions = example("faithful").read_eruptions()
    assert eruptions.shape == (272, 2)
    assert eruptions.sum(0).tolist() == pytest.approx([948.677, 19284])  # sums of the copy in R


def test_the_published_fit_and_an_independent_one(example: Load, tmp_path: Path) -> None:
    faithful = example("faithful")
    alone, fits = faithful.main(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 20_000
    published = faithful.PUBLISHED
    assert alone.log_likelihood == pytest.approx(published["log_likelihood"], abs=6e-4)
    assert alone.values["weights"].tolist() == pytest.approx(published["weights"], abs=6e-4)
    assert alone.values["means"].tolist() == pytest.approx(published["means"], abs=6e-3)
    assert alone.values["spread"].item() == pytest.approx(published["spread"], abs=6e-3)

    starts = torch.tensor([[2.0, 55.0], [4.3, 80.0]]).double()
    weights, means, log_likelihood = em(faithful.read_eruptions(), starts)
    order = fits[2].values["means"][:, 0].argsort()
    assert fits[2].log_likelihood == pytest.approx(log_likelihood, abs=1e-6)
    torch.testing.assert_close(fits[2].values["weights"][order], weights, rtol=0, atol=1e-4)
    torch.testing.assert_close(fits[2].values["means"][order], means, rtol=0, atol=1e-3)
    assert fits[1].log_likelihood < fits[2].log_likelihood < fits[3].log_likelihood
