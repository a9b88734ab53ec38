"""Growth of the United States: the likelihood of two chains as of one over pairs, and what is read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import oracles

Load = Callable[[str], ModuleType]


def test_it_is_a_hidden_markov_model_over_pairs_of_states(example: Load, tmp_path: Path) -> None:
    growth = example("growth")
    when, series = growth.read_growth()
    assert (float(when[0]), float(when[-1]), len(when)) == (1959.25, 2009.5, 202)
    fits = growth.main(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 20_000
    values = fits["two chains"].values

    def steps(stays: Tensor) -> Tensor:
        return torch.stack([torch.stack([stays[0], 1 - stays[0]]), torch.stack([1 - stays[1], stays[1]])])

    pairs = torch.kron(steps(values["phase_stays"]), steps(values["times_stay"]))
    means, spreads = values["mean"].repeat_interleave(2), values["spread"].repeat(2)
    likelihood = torch.distributions.Normal(means, spreads).log_prob(series[:, None])
    log_evidence, posterior, _ = oracles.forward_backward(
        torch.full((4,), 0.25).double().log(), pairs.log(), likelihood
    )
    assert fits["two chains"].log_likelihood == pytest.approx(log_evidence.item(), abs=1e-8)
    slow, rough = growth.read_back(series)
    torch.testing.assert_close(slow, posterior[:, :2].sum(-1), rtol=0, atol=1e-9)
    torch.testing.assert_close(rough, posterior[:, 1::2].sum(-1), rtol=0, atol=1e-9)

    # Growth is calm from within a year of the published break on, and most quarters agree with the NBER.
    assert abs(growth.turned_calm(when, rough) - growth.CALM_SINCE) <= 1
    assert ((slow > 0.5) == growth.in_recession(when)).double().mean() > 0.8
    assert fits["two chains"].log_likelihood == pytest.approx(-512.434, abs=1e-3)
    assert fits["one chain"].log_likelihood == pytest.approx(-528.457, abs=1e-3)


def test_recessions_by_the_middle_of_the_quarter(example: Load) -> None:
    growth = example("growth")
    quarters = torch.tensor([2007.75, 2008.0, 2009.25, 2009.5, 2001.0, 2001.25]).double()
    assert growth.in_recession(quarters).tolist() == [False, True, True, False, False, True]
