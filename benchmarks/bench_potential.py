"""Potential and gradient of unconstrained values, discrete sites summed out, beside Pyro's ``initialize_model``.

Compiling takes a minute or so a model, once; that is not in the times.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from peers import Library, pyro_library, sumout_library

Potential = Callable[[Mapping[str, Tensor]], Tensor]


def mixture(lib: Library) -> tuple[Callable[..., None], Tensor]:
    def model(x: Tensor) -> None:
        weights = lib.language.sample("weights", lib.dist.Dirichlet(torch.ones(3)))
        with lib.language.plate("components", 3):
            locs = lib.language.sample("locs", lib.dist.Normal(0.0, 5.0))
        spread = lib.language.sample("spread", lib.dist.LogNormal(0.0, 1.0))
        with lib.language.plate("data", len(x)):
            z = lib.language.sample("z", lib.dist.Categorical(weights), infer={"enumerate": "parallel"})
            lib.language.sample("x", lib.dist.Normal(locs[z], spread), obs=x)

    return model, torch.randn(200)


def chain(lib: Library) -> tuple[Callable[..., None], Tensor]:
    def model(x: Tensor) -> None:
        with lib.language.plate("states", 3):
            step = lib.language.sample("step", lib.dist.Dirichlet(torch.ones(3)))
            locs = lib.language.sample("locs", lib.dist.Normal(0.0, 5.0))
        z = torch.tensor(0)
        for t in lib.language.markov(range(len(x))):
            z = lib.language.sample(f"z_{t}", lib.dist.Categorical(step[z]), infer={"enumerate": "parallel"})
            lib.language.sample(f"x_{t}", lib.dist.Normal(locs[z], 1.0), obs=x[t])

    return model, torch.randn(20)


def vectorized_chain(lib: Library) -> tuple[Callable[..., None], Tensor]:
    if lib.name == "pyro":
        return chain(lib)

    def model(x: Tensor) -> None:
        with lib.language.plate("states", 3):
            step = lib.language.sample("step", lib.dist.Dirichlet(torch.ones(3)))
            locs = lib.language.sample("locs", lib.dist.Normal(0.0, 5.0))
        z = torch.tensor(0)
        for t in lib.language.markov(range(len(x)), dim=-2, name="time"):
            z = lib.language.sample(f"z_{t}", lib.dist.Categorical(step[z]), infer={"enumerate": "parallel"})
            lib.language.sample(f"x_{t}", lib.dist.Normal(locs[z], 1.0), obs=x[t].unsqueeze(-1))

    return model, torch.randn(20)


MODELS = {
    "mixture of 3, 200 data": mixture,
    "chain of 20 steps, 3 states, a loop": chain,
    "chain of 20 steps, 3 states, at once": vectorized_chain,
}


def ours(compile: bool | str) -> Callable[[Any], tuple[Potential, dict[str, Tensor]]]:
    def make(model: Any) -> tuple[Potential, dict[str, Tensor]]:
        from sumout import infer

        program, x = model(sumout_library())
        potential = infer.potential_fn(program, x, compile=compile)
        return potential, potential.initial_params

    return make


def pyros(jit: bool) -> Callable[[Any], tuple[Potential, dict[str, Tensor]]]:
    def make(model: Any) -> tuple[Potential, dict[str, Tensor]]:
        from pyro.infer.mcmc.util import initialize_model

        program, x = model(pyro_library())
        initial, potential, _, _ = initialize_model(
            program, (x,), max_plate_nesting=1, jit_compile=jit, skip_jit_warnings=True
        )
        return potential, initial

    return make


WAYS = {
    "sumout": ours(False),
    "sumout, recorded": ours("record"),
    "sumout, compiled": ours(True),
    "pyro": pyros(False),
    "pyro, jit": pyros(True),
}


def gradient_step(potential: Potential, params: dict[str, Tensor]) -> Callable[[], Tensor]:
    """What a sampler does at every point: the potential and its gradient."""
    leaves = {name: u.clone().requires_grad_() for name, u in params.items()}

    def step() -> Tensor:
        value = potential(leaves)
        torch.autograd.grad(value, list(leaves.values()))
        return value.detach()

    return step


VALUES: dict[str, list[float]] = {}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_potential_and_gradient(benchmark: BenchmarkFixture, model: str, way: str) -> None:
    benchmark.group = f"potential and gradient, {model}"
    torch.manual_seed(0)
    potential, params = WAYS[way](MODELS[model])
    fixed = {
        name: torch.linspace(-1, 1, max(1, u.numel())).reshape(u.shape) for name, u in sorted(params.items())
    }
    step = gradient_step(potential, fixed)
    began = time.perf_counter()
    step()
    benchmark.extra_info["first call, seconds"] = round(time.perf_counter() - began, 2)
    VALUES.setdefault(model, []).append(benchmark(step).item())
    assert max(VALUES[model]) == pytest.approx(min(VALUES[model]), rel=1e-4)
