"""Dawid and Skene's anesthetists: the published estimates by their algorithm, and a higher maximum."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

Load = Callable[[str], ModuleType]


def log_likelihood(gradings: Tensor, who: Tensor, prevalence: Tensor, confusion: Tensor) -> float:
    """Over all patients, one grade at a time."""
    total = 0.0
    for patient in range(gradings.shape[1]):
        chance = 0.0
        for grade in range(4):
            each = prevalence[grade].item()
            for person, given in zip(who.tolist(), gradings[:, patient].tolist(), strict=True):
                each *= confusion[person, grade, given].item()
            chance += each
        total += math.log(chance)
    return total


def test_the_published_estimates_and_a_higher_maximum(example: Load, tmp_path: Path) -> None:
    anesthetists = example("anesthetists")
    gradings = anesthetists.read_gradings()
    assert gradings.shape == (7, 45)
    counted, climbed = anesthetists.main(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    published = anesthetists.PUBLISHED
    # To the two decimals that are printed.
    torch.testing.assert_close(counted.values["prevalence"], published["prevalence"], rtol=0, atol=0.0051)
    torch.testing.assert_close(
        counted.values["confusion"][0, :3], published["confusion"], rtol=0, atol=0.0051
    )
    for found in (counted, climbed):
        by_hand = log_likelihood(
            gradings, anesthetists.WHO, found.values["prevalence"], found.values["confusion"]
        )
        assert found.log_likelihood == pytest.approx(by_hand, abs=1e-6)
    assert climbed.log_likelihood == pytest.approx(-191.569, abs=2e-3)
    assert climbed.log_likelihood > counted.log_likelihood + 1
