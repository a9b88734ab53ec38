"""Pumps: the posterior means that BUGS publishes, and one marginal by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

Load = Callable[[str], ModuleType]


def test_posterior_means_are_those_of_bugs(example: Load, tmp_path: Path) -> None:
    pumps = example("pumps")
    hours, failures = pumps.read_pumps()
    assert (len(hours), float(failures.sum())) == (10, 75.0)
    found = pumps.main(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    for mean, published in zip(found.mean.tolist(), pumps.PUBLISHED, strict=True):
        digits = len(published.replace(".", "").lstrip("0"))
        assert mean == pytest.approx(float(published), rel=0.6 / 10 ** (digits - 1))
    # A finer grid changes nothing that is shown.
    torch.testing.assert_close(pumps.posterior(120).mean, found.mean, rtol=1e-4, atol=0)


def test_the_evidence_of_a_grid_point_is_negative_binomial(example: Load) -> None:
    pumps = example("pumps")
    hours, failures = pumps.read_pumps()
    shape, rate = torch.tensor([[0.7], [1.3]]).double(), torch.tensor([[0.9], [2.0]]).double()
    record = pumps.poutine.trace(pumps.model).get_trace(shape, rate, hours, failures)
    by_hand = torch.distributions.NegativeBinomial(shape, probs=hours / (hours + rate)).log_prob(failures)
    found = record.nodes["_collapsed_failing"]["fn"].log_factor
    torch.testing.assert_close(found.reshape(-1), by_hand.sum(-1), rtol=0, atol=1e-9)
