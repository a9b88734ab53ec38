"""The earthquakes example finds the published likelihood, and decodes the states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture
def earthquakes(example: Callable[[str], ModuleType]) -> ModuleType:
    return example("earthquakes")


def test_the_data_are_those_of_the_book(earthquakes: ModuleType) -> None:
    years, counts = earthquakes.read_counts()
    assert (years[0], years[-1], len(counts), counts.sum().item()) == (1900, 2006, 107, 2072)


def test_the_stationary_distribution_is_left_as_it_is(earthquakes: ModuleType) -> None:
    transition = torch.rand(4, 4, dtype=torch.float64).softmax(-1)
    initial = earthquakes.stationary_distribution(transition)
    assert torch.allclose(initial @ transition, initial, atol=1e-14)
    assert initial.sum().item() == pytest.approx(1)


@pytest.mark.parametrize(("states", "stationary"), [(1, True), (2, False), (3, True)])
def test_the_published_likelihoods(earthquakes: ModuleType, states: int, stationary: bool) -> None:
    _, counts = earthquakes.read_counts()
    fit = earthquakes.fit(counts, earthquakes.Parameters.start(counts, states, stationary, odds=20))
    assert fit.loss == pytest.approx(earthquakes.PUBLISHED[states, stationary], abs=1e-3)


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
