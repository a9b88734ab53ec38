"""Two regimes of the Nile: the published change, and how far moment matching is from all sequences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

Load = Callable[[str], ModuleType]


def test_the_new_regime_begins_when_it_is_published_to(example: Load, tmp_path: Path) -> None:
    switching = example("switching")
    years, flow = switching.read_flow()
    found = switching.read(flow)
    new = years[found.new > 0.5]
    assert new.tolist() == list(range(switching.FIRST_OF_THE_NEW, 1971))
    assert found.mean[:28].mean() - found.mean[28:].mean() == pytest.approx(245, abs=20)
    switching.draw(years, flow, found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 20_000


def test_it_is_close_to_all_sequences(example: Load) -> None:
    switching = example("switching")
    _, flow = switching.read_flow()
    ours, exact = switching.error(flow[26:31])
    assert 0 < abs(ours - exact) < 1e-4
    ours, exact = switching.error(flow[27:29])
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-9)
