"""Survival of dippers: the published estimates, the likelihood by its closed form, and the picture."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

Load = Callable[[str], ModuleType]


def table(module: ModuleType) -> tuple[list[int], list[list[int]]]:
    """Birds released in each year, and how many of them were next caught in each later one."""
    with module.DATA.open(newline="") as file:
        rows = [[int(cell or 0) for cell in row] for row in list(csv.reader(file))[1:]]
    return [row[1] for row in rows], [row[2:] for row in rows]


def log_likelihood(module: ModuleType, survival: list[float], capture: list[float]) -> float:
    """The multinomials of that table, without their coefficients: Lebreton and others (1992)."""
    released, again = table(module)
    total = 0.0
    for i in range(6):
        never, path = 1.0, 1.0
        for j in range(i, 6):
            path *= survival[j]
            probability = path * capture[j]
            total += again[i][j] * math.log(probability) if again[i][j] else 0.0
            never -= probability
            path *= 1 - capture[j]
        total += (released[i] - sum(again[i])) * math.log(never)
    return total


def test_the_histories_make_the_published_table(example: Load) -> None:
    dippers = example("dippers")
    histories = dippers.read_histories()
    assert histories.shape == (294, 7)
    released, again = table(dippers)
    assert histories.sum(0)[:6].tolist() == released
    assert (histories.sum(-1) > 0).all()
    found = [[0] * 6 for _ in range(6)]
    for row in histories.long().tolist():
        seen = [t for t in range(7) if row[t]]
        for i, j in itertools.pairwise(seen):
            found[i][j - 1] += 1
    assert found == again


def test_estimates_are_the_published_ones(example: Load, tmp_path: Path) -> None:
    dippers = example("dippers")
    fits = dippers.main(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 20_000
    alike, _ = fits["all years alike"]
    for param, published in dippers.PUBLISHED.items():
        assert alike.values[param].item() == pytest.approx(published, abs=6e-4)
    own, _ = fits["each year its own"]
    for param, values in dippers.by_formula(dippers.read_histories()).items():
        torch.testing.assert_close(own.values[param][:5], values, rtol=0, atol=1e-5)
    for name, (found, _) in fits.items():
        which = [part.tolist() for part in dippers.MODELS[name]]
        survival, capture = (
            [found.values[param][k].item() for k in numbers]
            for param, numbers in zip(("survival", "capture"), which, strict=True)
        )
        assert found.log_likelihood == pytest.approx(log_likelihood(dippers, survival, capture), abs=1e-8)
    flood, _ = fits["floods apart"]
    assert flood.values["survival"].tolist() == pytest.approx([0.607, 0.469], abs=6e-4)
    assert [-2 * found.log_likelihood for found, _ in fits.values()] == pytest.approx(
        [666.838, 656.950, 660.103], abs=6e-4
    )
    # What cannot be told apart in the last interval has no standard error; the rest has one.
    _, errors = fits["each year its own"]
    assert torch.isinf(errors["survival"]).tolist() == [False] * 5 + [True]
    assert torch.isinf(errors["capture"]).tolist() == [False] * 5 + [True]


def test_standard_errors_are_the_curvature(example: Load) -> None:
    """Against differences of the closed form in survival and capture themselves."""
    dippers = example("dippers")
    found, errors = dippers.fit(dippers.read_histories(), "all years alike")
    at = [found.values["survival"].item(), found.values["capture"].item()]

    def value(shift: tuple[float, float]) -> float:
        survival, capture = at[0] + shift[0], at[1] + shift[1]
        return log_likelihood(dippers, [survival] * 6, [capture] * 6)

    h = 1e-4
    unit = ((h, 0.0), (0.0, h))
    hessian = torch.tensor(
        [
            [
                (
                    value((a[0] + b[0], a[1] + b[1]))
                    - value((a[0] - b[0], a[1] - b[1]))
                    - value((b[0] - a[0], b[1] - a[1]))
                    + value((-a[0] - b[0], -a[1] - b[1]))
                )
                / (4 * h * h)
                for b in unit
            ]
            for a in unit
        ]
    )
    expected = torch.linalg.inv(-hessian).diagonal().sqrt()
    ours = torch.cat([errors["survival"], errors["capture"]])
    torch.testing.assert_close(ours.float(), expected, rtol=1e-3, atol=0)


def test_chances_of_life_by_bayes_rule(example: Load) -> None:
    dippers = example("dippers")
    histories = dippers.read_histories()
    found, _ = dippers.fit(histories, "all years alike")
    survival, capture = found.values["survival"].item(), found.values["capture"].item()
    chances = dippers.chances_of_life(histories)
    bird = int(((histories[:, 5] == 1) & (histories[:, 6] == 0)).nonzero()[0])
    missed = survival * (1 - capture)
    assert chances[bird, 6].item() == pytest.approx(missed / (missed + 1 - survival), abs=1e-9)
    assert chances[bird, 5].item() == pytest.approx(1)
