"""A step of training of a hidden Markov model whose steps are taken at once, beside the loop and beside Pyro's funsor
backend, which has the same statement."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.distributions import constraints

SHAPES = {
    "10 x 40 steps, 16 states, 51 outputs": (10, 40, 16, 51),
    "1 x 1000 steps, 8 states": (1, 1000, 8, 5),
}


def ours(at_once: bool) -> tuple[Any, Any, AbstractContextManager[Any]]:
    import sumout
    from sumout import distributions, infer

    language = SimpleNamespace(
        param=sumout.param,
        sample=sumout.sample,
        plate=sumout.plate,
        clear=sumout.clear_param_store,
        dist=distributions,
        steps=(lambda size: sumout.vectorized_markov("time", size, dim=-3))
        if at_once
        else (lambda size: sumout.markov(range(size))),
    )
    return language, infer.TraceEnum_ELBO(max_plate_nesting=3), nullcontext()


def pyros() -> tuple[Any, Any, AbstractContextManager[Any]]:
    import funsor

    funsor.set_backend("torch")
    import pyro.contrib.funsor
    from pyroapi import distributions, infer, pyro_backend
    from pyroapi import pyro as statements

    backend = pyro_backend("contrib.funsor")
    with backend:
        language = SimpleNamespace(
            param=statements.param,
            sample=statements.sample,
            plate=statements.plate,
            clear=statements.clear_param_store,
            dist=distributions,
            steps=lambda size: pyro.contrib.funsor.vectorized_markov(name="time", size=size, dim=-3),
        )
        return language, infer.TraceMarkovEnum_ELBO(max_plate_nesting=3), pyro_backend("contrib.funsor")


PEERS: dict[str, Callable[[], tuple[Any, Any, AbstractContextManager[Any]]]] = {
    "sumout, at once": lambda: ours(True),
    "sumout, loop": lambda: ours(False),
    "pyro.contrib.funsor, at once": pyros,
}
LOSSES: dict[str, list[float]] = {}


def hidden_markov_model(
    language: Any, steps: int, transition: Tensor, emission: Tensor
) -> Callable[[Tensor], None]:
    def model(data: Tensor) -> None:
        probs_x = language.param("probs_x", transition, constraint=constraints.simplex)
        probs_y = language.param("probs_y", emission, constraint=constraints.unit_interval)
        plate = language.plate("outputs", emission.shape[-1], dim=-1)
        with language.plate("sequences", len(data), dim=-2):
            x = torch.tensor(0)
            for t in language.steps(steps):
                x = language.sample(
                    f"x_{t}", language.dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"}
                )
                seen = data[:, t] if isinstance(t, int) else data[:, t].transpose(0, 1)
                with plate:
                    language.sample(f"y_{t}", language.dist.Bernoulli(probs_y[x.squeeze(-1)]), obs=seen)

    return model


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_step(benchmark: BenchmarkFixture, shape: str, peer: str) -> None:
    sequences, steps, states, outputs = SHAPES[shape]
    language, elbo, backend = PEERS[peer]()
    torch.manual_seed(0)
    transition = torch.distributions.Dirichlet(torch.ones(states)).sample((states,))
    emission = torch.rand(states, outputs)
    data = torch.bernoulli(torch.rand(sequences, steps, outputs) * 0.3)
    benchmark.group = f"training step with gradients, hidden Markov model of {shape}"

    def step() -> Tensor:
        loss: Tensor = elbo.differentiable_loss(model, lambda data: None, data)
        loss.backward()
        return loss.detach()

    with backend:
        language.clear()
        model = hidden_markov_model(language, steps, transition, emission)
        LOSSES.setdefault(shape, []).append(benchmark(step).item())
    assert max(LOSSES[shape]) == pytest.approx(min(LOSSES[shape]), rel=1e-4)
