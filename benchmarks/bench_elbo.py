"""A step of training with gradients: a hidden Markov model of 10 x 40 steps, 16 states, 51 binary outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.distributions import constraints

from peers import LIBRARIES, Library

SEQUENCES, STEPS, STATES, OUTPUTS = 10, 40, 16, 51


def hidden_markov_model(library: Library) -> Callable[[Tensor], None]:
    language, dist = library.language, library.dist
    transition = torch.distributions.Dirichlet(torch.ones(STATES)).sample((STATES,))
    emission = torch.rand(STATES, OUTPUTS)

    def model(data: Tensor) -> None:
        probs_x = language.param("probs_x", transition, constraint=constraints.simplex)
        probs_y = language.param("probs_y", emission, constraint=constraints.unit_interval)
        outputs = language.plate("outputs", OUTPUTS, dim=-1)
        with language.plate("sequences", SEQUENCES, dim=-2):
            x = 0
            for t in language.markov(range(STEPS)):
                probs = probs_x[x]
                x = language.sample(f"x_{t}", dist.Categorical(probs), infer={"enumerate": "parallel"})
                with outputs:
                    language.sample(f"y_{t}", dist.Bernoulli(probs_y[x.squeeze(-1)]), obs=data[:, t])

    return model


def nothing(data: Tensor) -> None:
    """A guide: all that is hidden is summed out."""


LOSSES: dict[str, float] = {}


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_step(benchmark: BenchmarkFixture, library: Library) -> None:
    benchmark.group = "TraceEnum_ELBO step with gradients, hidden Markov model"
    library.language.clear_param_store()
    data = torch.bernoulli(torch.rand(SEQUENCES, STEPS, OUTPUTS) * 0.3)
    model = hidden_markov_model(library)
    elbo = library.infer.TraceEnum_ELBO(max_plate_nesting=2)
    LOSSES[library.name] = benchmark(elbo.loss_and_grads, model, nothing, data)
    # Each library computes the same number, or the times mean nothing.
    assert max(LOSSES.values()) == pytest.approx(min(LOSSES.values()), rel=1e-4)
