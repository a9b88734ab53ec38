"""The earthquakes example finds the published likelihood, and decodes the states."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "earthquakes.py"


@pytest.fixture(scope="module")
def earthquakes() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("earthquakes", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["earthquakes"] = module  # where its dataclasses look their annotations up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["earthquakes"]


def test_the_data_are_those_of_the_book(earthquakes: ModuleType) -> None:
    years, counts = earthquakes.read_counts()
    assert (years[0], years[-1], len(counts), counts.sum().item()) == (1900, 2006, 107, 2072)


def test_the_stationary_distribution_is_left_as_it_is(earthquakes: ModuleType) -> None:
    transition = torch.rand(4, 4, dtype=torch.float64).softmax(-1)
    initial = earthquakes.stationary_distribution(transition)
    assert torch.allclose(initial @ transition, initial, atol=1e-14)
    assert initial.sum().item() == pytest.approx(1)


def test_two_states_reach_the_published_likelihood(earthquakes: ModuleType, tmp_path: Path) -> None:
    years, counts = earthquakes.read_counts()
    fit = earthquakes.fit(counts, earthquakes.Parameters.start(counts, 2, stationary=True, odds=20))
    assert fit.loss == pytest.approx(earthquakes.PUBLISHED[2, True], abs=1e-3)

    params = fit.params.sorted()
    probs, path = earthquakes.decode(counts, params)
    assert torch.allclose(probs.sum(-1), torch.ones(107, dtype=torch.float64))
    # The book: years 1942 to 1950 were busy, the last quarter of the century calm.
    assert path[years.index(1942) : years.index(1951)].tolist() == [1] * 9
    assert path[years.index(1985) :].tolist() == [0] * 22

    earthquakes.draw(years, counts, params, probs, path, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
