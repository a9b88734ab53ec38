"""Sites integrated out beside those who do one such model well, and beside the lines that one would write by hand.

The log-likelihood of linear Gaussian state space models with gradients of all their matrices; collapsed rates and
probabilities of a million rows. All in double precision, on one thread; all peers find the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

D = torch.float64
SHAPES = {
    "1 x 1000 steps, 4 states, 2 observed": (1, 1000, 4, 2),
    "64 x 200 steps, 8 states, 4 observed": (64, 200, 8, 4),
    "1 x 10000 steps, 2 states, 1 observed": (1, 10_000, 2, 1),
}
ROWS = 10**6
FOUND: dict[str, list[float]] = {}

Matrices = tuple[Tensor, ...]
"""Transition, emission, the Cholesky factors of both noises, and the data, shape (steps, batch, observed)."""


def matrices(batch: int, steps: int, states: int, observed: int) -> Matrices:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=D)

    transition = torch.eye(states, dtype=D) * 0.9 + 0.05 * normal(states, states)
    found = (
        transition,
        normal(observed, states),
        0.5 * torch.eye(states, dtype=D),
        torch.eye(observed, dtype=D),
    )
    return (*[each.requires_grad_() for each in found], normal(steps, batch, observed))


# ------------------------------------------------------------------------------------- state space models


def sumouts() -> Callable[..., Tensor]:
    import sumout.distributions as dist
    from sumout import infer, plate, poutine, sample

    def model(transition: Tensor, emission: Tensor, moves: Tensor, blurs: Tensor, data: Tensor) -> None:
        state: Any = torch.zeros(len(transition), dtype=D)
        with plate("series", data.shape[1], dim=-1):
            for t in poutine.markov(range(len(data)), dim=-2, name="time"):
                state = sample(f"state_{t}", dist.MultivariateNormal(state @ transition.mT, scale_tril=moves))
                seen = dist.MultivariateNormal(state @ emission.mT, scale_tril=blurs)
                sample(f"seen_{t}", seen, obs=data[t])

    log_evidence: Callable[..., Tensor] = infer.log_evidence(poutine.collapse(model))
    return log_evidence


def pyros() -> Callable[..., Tensor]:
    import pyro.distributions as dist

    def log_likelihood(
        transition: Tensor, emission: Tensor, moves: Tensor, blurs: Tensor, data: Tensor
    ) -> Tensor:
        steps, size = len(data), len(transition)
        zero = torch.zeros(size, dtype=D)
        # Its first state comes before the first transition, which forgets it here.
        matrices = torch.cat(
            [torch.zeros(1, size, size, dtype=D), transition.mT.expand(steps - 1, size, size)]
        )
        noise = dist.MultivariateNormal(zero.expand(steps, size), scale_tril=moves)
        seen = dist.MultivariateNormal(torch.zeros(len(emission), dtype=D), scale_tril=blurs)
        start = dist.MultivariateNormal(zero, scale_tril=moves)
        chain = dist.GaussianHMM(start, matrices, noise, emission.mT, seen)
        return chain.log_prob(data.transpose(0, 1)).sum()

    return log_likelihood


def funsors() -> Callable[..., Tensor]:
    import funsor

    funsor.set_backend("torch")
    import funsor.ops as ops
    import funsor.pyro.convert as convert
    import pyro.distributions as dist
    from funsor.domains import Bint
    from funsor.sum_product import sequential_sum_product

    def log_likelihood(
        transition: Tensor, emission: Tensor, moves: Tensor, blurs: Tensor, data: Tensor
    ) -> Tensor:
        steps, size = len(data), len(transition)
        noise = dist.MultivariateNormal(torch.zeros(size, dtype=D), scale_tril=moves)
        blur = dist.MultivariateNormal(torch.zeros(len(emission), dtype=D), scale_tril=blurs)
        step = convert.matrix_and_mvn_to_funsor(transition.mT, noise, (), "before", "after")
        look = convert.matrix_and_mvn_to_funsor(emission.mT, blur, (), "after", "seen")
        start = convert.dist_to_funsor(noise)(value="after")
        start = start + look(seen=convert.tensor_to_funsor(data[0], ("series",), 1))
        later = step + look(seen=convert.tensor_to_funsor(data[1:].transpose(0, 1), ("series", "time"), 1))
        time = funsor.Variable("time", Bint[steps - 1])
        product = sequential_sum_product(ops.logaddexp, ops.add, later, time, {"before": "after"})
        total = (start(after="before") + product).reduce(ops.logaddexp, frozenset({"before", "after"}))
        return convert.funsor_to_tensor(total, 1, ("series",)).sum()

    return log_likelihood


def by_hand() -> Callable[..., Tensor]:
    def log_likelihood(
        transition: Tensor, emission: Tensor, moves: Tensor, blurs: Tensor, data: Tensor
    ) -> Tensor:
        batch, observed = data.shape[1:]
        mean = torch.zeros(batch, len(transition), dtype=D)
        covariance = torch.zeros_like(transition)
        noise, blur = moves @ moves.mT, blurs @ blurs.mT
        total = torch.zeros((), dtype=D)
        for value in data:
            mean = mean @ transition.mT
            covariance = transition @ covariance @ transition.mT + noise
            root = torch.linalg.cholesky(emission @ covariance @ emission.mT + blur)
            innovation = value - mean @ emission.mT
            white = torch.linalg.solve_triangular(root, innovation.mT, upper=False)
            constant = root.diagonal().log().sum() + 0.5 * observed * math.log(2 * math.pi)
            total = total - 0.5 * white.square().sum() - batch * constant
            gain = torch.cholesky_solve(emission @ covariance, root)
            mean = mean + innovation @ gain
            covariance = covariance - covariance @ emission.mT @ gain
        return total

    return log_likelihood


FILTERS: dict[str, Callable[[], Callable[..., Tensor]]] = {
    "sumout": sumouts,
    "pyro, GaussianHMM": pyros,
    "funsor, sequential_sum_product": funsors,
    "torch, loop by hand": by_hand,
}


@pytest.mark.parametrize("peer", FILTERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_state_space(benchmark: BenchmarkFixture, shape: str, peer: str) -> None:
    *parameters, data = matrices(*SHAPES[shape])
    log_likelihood = FILTERS[peer]()
    benchmark.group = f"log-likelihood with gradients, state space model of {shape}"

    def step() -> float:
        for each in parameters:
            each.grad = None
        found = log_likelihood(*parameters, data)
        found.backward()
        return found.item()

    rounds = 2 if "hand" in peer else 7
    FOUND.setdefault(shape, []).append(benchmark.pedantic(step, rounds=rounds, warmup_rounds=1))
    assert max(FOUND[shape]) == pytest.approx(min(FOUND[shape]), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_state_space_dynamax(benchmark: BenchmarkFixture, shape: str) -> None:
    """A filter compiled for a processor, with the gradients of the same matrices."""
    pytest.importorskip("dynamax")
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    from dynamax.linear_gaussian_ssm import lgssm_filter
    from dynamax.linear_gaussian_ssm.inference import make_lgssm_params

    *parameters, data = matrices(*SHAPES[shape])
    arrays = [jnp.asarray(each.detach().numpy()) for each in parameters]
    seen = jnp.asarray(data.transpose(0, 1).numpy())

    def log_likelihood(arrays: Any) -> Any:
        transition, emission, moves, blurs = arrays
        noise = moves @ moves.T
        known = make_lgssm_params(
            jnp.zeros(len(transition)), noise, transition, noise, emission, blurs @ blurs.T
        )
        return jax.vmap(lambda each: lgssm_filter(known, each).marginal_loglik)(seen).sum()

    compiled = jax.jit(jax.value_and_grad(log_likelihood))
    benchmark.group = f"log-likelihood with gradients, state space model of {shape}"

    def step() -> float:
        value, gradients = compiled(arrays)
        jax.block_until_ready(gradients)
        return float(value)

    FOUND.setdefault(shape, []).append(benchmark.pedantic(step, rounds=7, warmup_rounds=2))
    assert max(FOUND[shape]) == pytest.approx(min(FOUND[shape]), rel=1e-9)


# -------------------------------------------------------------------------------------------- million rows


def rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    parameters = torch.tensor([2.0, 3.0], dtype=D, requires_grad=True)
    successes = torch.randint(0, 11, (ROWS,), generator=generator).to(D)
    hours = torch.rand(ROWS, generator=generator, dtype=D) + 0.5
    return parameters, successes, torch.full((ROWS,), 10.0, dtype=D), hours


def beta_binomial() -> Callable[..., Tensor]:
    import sumout.distributions as dist
    from sumout import infer, plate, poutine, sample

    def model(parameters: Tensor, successes: Tensor, trials: Tensor, hours: Tensor) -> None:
        with plate("rows", len(successes)):
            chance = sample("chance", dist.Beta(parameters[0], parameters[1]))
            sample("successes", dist.Binomial(trials, chance), obs=successes)

    log_evidence: Callable[..., Tensor] = infer.log_evidence(poutine.collapse(model))
    return log_evidence


def beta_binomial_by_hand() -> Callable[..., Tensor]:
    def log_likelihood(parameters: Tensor, successes: Tensor, trials: Tensor, hours: Tensor) -> Tensor:
        a, b = parameters

        def log_beta(x: Tensor, y: Tensor) -> Tensor:
            return x.lgamma() + y.lgamma() - (x + y).lgamma()

        choices = -log_beta(successes + 1, trials - successes + 1) - (trials + 1).log()
        return (choices + log_beta(a + successes, b + trials - successes) - log_beta(a, b)).sum()

    return log_likelihood


def gamma_poisson() -> Callable[..., Tensor]:
    import sumout.distributions as dist
    from sumout import infer, plate, poutine, sample

    def model(parameters: Tensor, successes: Tensor, trials: Tensor, hours: Tensor) -> None:
        with plate("rows", len(successes)):
            rate = sample("rate", dist.Gamma(parameters[0], parameters[1]))
            sample("count", dist.Poisson(rate * hours), obs=successes)

    log_evidence: Callable[..., Tensor] = infer.log_evidence(poutine.collapse(model))
    return log_evidence


def gamma_poisson_by_hand() -> Callable[..., Tensor]:
    def log_likelihood(parameters: Tensor, successes: Tensor, trials: Tensor, hours: Tensor) -> Tensor:
        a, b = parameters
        known = successes * hours.log() - (successes + 1).lgamma() + a * b.log() - a.lgamma()
        return (known + (a + successes).lgamma() - (a + successes) * (b + hours).log()).sum()

    return log_likelihood


def one_rate() -> Callable[..., Tensor]:
    import sumout.distributions as dist
    from sumout import infer, plate, poutine, sample

    def model(parameters: Tensor, successes: Tensor, trials: Tensor, hours: Tensor) -> None:
        rate = sample("rate", dist.Gamma(parameters[0], parameters[1]))
        with plate("rows", len(successes)):
            sample("count", dist.Poisson(rate * hours), obs=successes)

    log_evidence: Callable[..., Tensor] = infer.log_evidence(poutine.collapse(model))
    return log_evidence


def one_rate_by_hand() -> Callable[..., Tensor]:
    def log_likelihood(parameters: Tensor, successes: Tensor, trials: Tensor, hours: Tensor) -> Tensor:
        a, b = parameters
        total, time = successes.sum(), hours.sum()
        known = (successes * hours.log() - (successes + 1).lgamma()).sum()
        return known + a * b.log() - a.lgamma() + (a + total).lgamma() - (a + total) * (b + time).log()

    return log_likelihood


COUNTS: dict[str, dict[str, Callable[[], Callable[..., Tensor]]]] = {
    "beta-binomial": {"sumout": beta_binomial, "torch, by hand": beta_binomial_by_hand},
    "gamma-Poisson": {"sumout": gamma_poisson, "torch, by hand": gamma_poisson_by_hand},
    "gamma-Poisson, one rate": {"sumout": one_rate, "torch, by hand": one_rate_by_hand},
}


@pytest.mark.parametrize("peer", ["sumout", "torch, by hand"])
@pytest.mark.parametrize("model", COUNTS)
def test_rows(benchmark: BenchmarkFixture, model: str, peer: str) -> None:
    parameters, *data = rows()
    log_likelihood = COUNTS[model][peer]()
    benchmark.group = f"collapsed {model} of a million rows, with gradients"

    def step() -> float:
        parameters.grad = None
        found = log_likelihood(parameters, *data)
        found.backward()
        return found.item()

    FOUND.setdefault(model, []).append(benchmark.pedantic(step, rounds=5, warmup_rounds=1))
    assert max(FOUND[model]) == pytest.approx(min(FOUND[model]), rel=1e-9)
