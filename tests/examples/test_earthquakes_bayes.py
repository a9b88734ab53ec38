"""Bayesian parameters of the earthquakes: the potential by hand, and a short chain around the published rates."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

import oracles
from sumout import infer

Load = Callable[[str], ModuleType]


def test_the_posterior_is_prior_times_the_forward_recursion(example: Load) -> None:
    """At two points, the potential's difference is that of the log-joint with the Jacobians."""
    bayes = example("earthquakes_bayes")
    _, counts = bayes.read_counts()
    potential = infer.potential_fn(bayes.model, counts)
    back = potential.transforms  # from constrained to unconstrained

    def log_joint(increments: torch.Tensor, transition: torch.Tensor) -> torch.Tensor:
        distributions = torch.distributions
        prior = distributions.Gamma(torch.tensor(2.0).double(), 0.2).log_prob(increments).sum()
        prior = prior + distributions.Dirichlet(torch.ones(3).double()).log_prob(transition).sum()
        initial = bayes.stationary_distribution(transition)
        likelihood = distributions.Poisson(increments.cumsum(-1)).log_prob(counts[:, None])
        log_evidence, _, _ = oracles.forward_backward(initial.log(), transition.log(), likelihood)
        for name, value in (("increments", increments), ("transition", transition)):
            prior = prior - back[name].log_abs_det_jacobian(value, back[name](value)).sum()
        return prior + log_evidence

    for seed in range(2):
        torch.manual_seed(seed)
        values = {
            "increments": 5 + 5 * torch.rand(3).double(),
            "transition": torch.rand(3, 3).double().softmax(-1),
        }
        point = {name: back[name](value) for name, value in values.items()}
        assert potential(point).item() == pytest.approx(-log_joint(**values).item(), rel=1e-10)


def test_a_short_chain_is_around_the_published_rates(example: Load, tmp_path: Path) -> None:
    bayes = example("earthquakes_bayes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the sampler
        posterior = bayes.main(tmp_path / "picture.png", warmup=40, samples=50)
    assert (tmp_path / "picture.png").stat().st_size > 20_000
    assert posterior.effective > 5
    away = (posterior.rate.mean(0) - torch.tensor(bayes.PUBLISHED).double()) / posterior.rate.std(0)
    assert bool((away.abs() < 1).all())
    assert bool((posterior.transition.diagonal(dim1=-2, dim2=-1).mean(0) > 0.5).all())
