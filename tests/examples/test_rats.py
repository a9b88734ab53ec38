"""Rats: the posterior means and standard deviations that BUGS publishes, and the evidence of a grid point by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

Load = Callable[[str], ModuleType]


def test_figures_are_those_of_bugs(example: Load, tmp_path: Path) -> None:
    rats = example("rats")
    assert float(rats.read_weights().mean()) == pytest.approx(242.6533, abs=1e-4)
    found = rats.main(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 20_000
    for name, accuracy in (("intercept", (0.06, 0.08)), ("slope", (0.006, 0.006)), ("noise", (0.06, 0.006))):
        for ours, published, within in zip(found.values[name], rats.PUBLISHED[name], accuracy, strict=True):
            assert ours == pytest.approx(published, abs=within)


def test_the_evidence_of_a_grid_point(example: Load) -> None:
    rats = example("rats")
    weight = rats.read_weights()
    noise, levels, slopes = (torch.tensor(each).double().reshape(1, 1, 1) for each in (6.0, 14.0, 0.5))
    record = rats.poutine.trace(rats.model).get_trace(noise, levels, slopes, weight)
    found = record.nodes["_collapsed_level"]["fn"].log_factor.reshape(())
    # All 150 weights as one normal vector: noise, and the products of the prior's variances with the design.
    line = torch.stack([torch.ones(5).double(), rats.DAYS - rats.MIDDLE], -1)
    same = torch.eye(len(weight)).double()
    own = line @ torch.diag(torch.tensor([14.0, 0.5]).double() ** 2) @ line.T
    common = 1e6 * line @ line.T
    covariance = torch.kron(same, own + 36 * torch.eye(5).double()) + torch.kron(
        torch.ones_like(same), common
    )
    exact = torch.distributions.MultivariateNormal(torch.zeros(150).double(), covariance).log_prob(
        weight.flatten()
    )
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-5)
