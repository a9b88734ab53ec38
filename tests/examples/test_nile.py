"""The Nile: the published variances, and the diffuse likelihood by a Kalman filter of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from torch import Tensor

Load = Callable[[str], ModuleType]


def diffuse(flow: Tensor, noise: float, drift: float) -> float:
    """Log-likelihood of the flows after the first: Durbin and Koopman (2012), section 2.9, with variances given."""
    level, variance, total = float(flow[0]), noise, 0.0
    for value in flow[1:].tolist():
        variance += drift
        innovation, spread = value - level, variance + noise
        total -= 0.5 * (math.log(2 * math.pi * spread) + innovation**2 / spread)
        level += variance / spread * innovation
        variance *= noise / spread
    return total


def test_it_finds_the_published_variances(example: Load, tmp_path: Path) -> None:
    nile = example("nile")
    years, flow = nile.read_flow()
    assert (int(years[0]), int(years[-1]), float(flow.sum())) == (1871, 1970, 91935.0)
    found = nile.main(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 20_000
    noise, drift = (float(found.values[name].square()) for name in ("noise", "drift"))
    assert noise == pytest.approx(15099, abs=1.0)
    assert drift == pytest.approx(1469.1, abs=0.5)
    assert found.log_likelihood == pytest.approx(diffuse(flow, noise, drift), abs=1e-8)
    assert found.log_likelihood == pytest.approx(diffuse(flow, 15099.0, 1469.1), abs=1e-6)
    assert found.log_likelihood == pytest.approx(-632.5456, abs=1e-4)
