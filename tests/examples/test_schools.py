"""Eight schools: the published quantiles, and the evidence of tau by its closed form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch

Load = Callable[[str], ModuleType]


def test_quantiles_are_the_published_ones(example: Load, tmp_path: Path) -> None:
    schools = example("schools")
    found = schools.main(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 20_000
    published = torch.tensor(list(schools.PUBLISHED.values())).double()
    apart = (found.quantiles - published).abs()
    # Published from 200 draws: a median may be off by about one, the ends of the tails by much more.
    assert apart[:, 2].max() < 1.0
    assert apart[:, [1, 3]].max() < 1.6
    assert apart[:, [0, 4]].median() < 2.0


def test_the_evidence_of_tau(example: Load) -> None:
    """Gelman and others (2013), equation 5.21, up to a constant."""
    schools = example("schools")
    effect, error = schools.read_schools()
    tau = torch.tensor([[0.5], [5.0], [15.0]]).double()
    record = schools.poutine.trace(schools.model).get_trace(tau, effect, error)
    found = record.nodes["_collapsed_mean"]["fn"].log_factor.reshape(-1)
    precision = 1 / (error**2 + tau**2)
    mean = (precision * effect).sum(-1, keepdim=True) / precision.sum(-1, keepdim=True)
    log_density = -0.5 * precision.sum(-1).log()
    log_density = log_density + (0.5 * precision.log() - 0.5 * precision * (effect - mean) ** 2).sum(-1)
    torch.testing.assert_close(found - found[0], log_density - log_density[0], rtol=0, atol=1e-5)
