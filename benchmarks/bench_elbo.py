"""A step of training with gradients: hidden Markov models of 10 x 40 steps and 16 states, with various outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def with_output(library: Library, output: str) -> tuple[Callable[[Tensor], None], Tensor]:
    """The same chain with one output a step, and its data: a category, a number, a count, or 51 bits as an event."""
    language, dist = library.language, library.dist
    transition = torch.distributions.Dirichlet(torch.ones(STATES)).sample((STATES,))
    table = torch.rand(STATES, OUTPUTS)
    steps = SEQUENCES, STEPS
    data = {
        "category": torch.randint(OUTPUTS, steps),
        "number": torch.randn(steps),
        "count": torch.poisson(torch.full(steps, 5.0)),
        "event": torch.bernoulli(torch.rand(*steps, OUTPUTS) * 0.3),
    }[output]

    def emission(table: Tensor, x: Tensor) -> Any:
        if output == "category":
            return dist.Categorical(table[x])
        if output == "number":
            return dist.Normal(table[x, 0], 1.0)
        return dist.Poisson(10 * table[x, 0]) if output == "count" else dist.Bernoulli(table[x]).to_event(1)

    def model(data: Tensor) -> None:
        probs_x = language.param("probs_x", transition, constraint=constraints.simplex)
        rows = language.param("table", table, constraint=constraints.unit_interval)
        with language.plate("sequences", SEQUENCES, dim=-1):
            x = 0
            for t in language.markov(range(STEPS)):
                x = language.sample(f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
                language.sample(f"y_{t}", emission(rows, x), obs=data[:, t])

    return model, data


def nothing(data: Tensor) -> None:
    """A guide: all that is hidden is summed out."""


LOSSES: dict[tuple[str, str], float] = {}


def run(
    benchmark: BenchmarkFixture, library: Library, name: str, model: Any, data: Tensor, nesting: int
) -> None:
    benchmark.group = f"TraceEnum_ELBO step with gradients, hidden Markov model, {name}"
    elbo = library.infer.TraceEnum_ELBO(max_plate_nesting=nesting)
    LOSSES[name, library.name] = benchmark(elbo.loss_and_grads, model, nothing, data)
    # Each library computes the same number, or the times mean nothing.
    found = [loss for (each, _), loss in LOSSES.items() if each == name]
    assert max(found) == pytest.approx(min(found), rel=1e-4)


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_step(benchmark: BenchmarkFixture, library: Library) -> None:
    library.language.clear_param_store()
    data = torch.bernoulli(torch.rand(SEQUENCES, STEPS, OUTPUTS) * 0.3)
    run(benchmark, library, "51 outputs in a plate", hidden_markov_model(library), data, nesting=2)


@pytest.mark.parametrize("output", ["category", "number", "count", "event"])
@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_step_with_one_output(benchmark: BenchmarkFixture, library: Library, output: str) -> None:
    library.language.clear_param_store()
    run(benchmark, library, output, *with_output(library, output), nesting=1)
