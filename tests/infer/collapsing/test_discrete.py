"""Enumerated sites that choose among the parameters of collapsed ones: mixtures and switching models, exactly."""

from __future__ import annotations

import itertools
import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import MemoryLimitError, ModelError
from sumout.settings import settings as switches

EXACT = {"rtol": 1e-9, "atol": 1e-9}
D = torch.float64


def normal(loc: Tensor, covariance: Tensor, data: Tensor) -> Tensor:
    found: Tensor = dist.MultivariateNormal(loc, covariance).log_prob(data)
    return found


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_global_and_local_choices(seed: int) -> None:
    """A global choice of the prior's mean, a local one of the noise, a Gaussian site for each element."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(2, generator=generator, dtype=D) + 0.2
    means = torch.randn(2, generator=generator, dtype=D)
    noise = torch.rand(2, generator=generator, dtype=D) + 0.3
    data = torch.randn(3, generator=generator, dtype=D)

    def program() -> None:
        w = sample("w", dist.Categorical(weights))
        mu: Any = sample("mu", dist.Normal(means[w], 1.0))
        with plate("rows", 3):
            z = sample("z", dist.Categorical(weights))
            x: Any = sample("x", dist.Normal(0.5, 1.0))
            sample("y", dist.Normal(2 * x, noise[z]), obs=data)
            sample("u", dist.Normal(mu, 1.0), obs=data + 1)

    probs = weights / weights.sum()
    joint = torch.empty(2, 2, 2, 2, dtype=D)
    for w, *zs in itertools.product(range(2), repeat=4):
        total = probs[w].log() + normal(
            means[w].expand(3), torch.ones(3, 3, dtype=D) + torch.eye(3, dtype=D), data + 1
        )
        for row, z in enumerate(zs):
            total = total + probs[z].log()
            total = total + dist.Normal(1.0, (4 + noise[z] ** 2).sqrt()).log_prob(data[row])
        joint[(w, *zs)] = total
    exact = joint.logsumexp((0, 1, 2, 3))
    answer = infer.marginals(poutine.collapse(program))()
    torch.testing.assert_close(answer.log_evidence, exact, **EXACT)
    posterior = (joint - exact).exp()
    torch.testing.assert_close(answer["w"].probs, posterior.sum((1, 2, 3)), **EXACT)
    for row in range(3):
        others = [each for each in range(4) if each != row + 1]
        torch.testing.assert_close(answer["z"].probs[row], posterior.sum(others), **EXACT)


@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(max_examples=25)
def test_switching_chains(seed: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    moves = torch.rand(2, 2, generator=generator, dtype=D) + 0.2
    moves = moves / moves.sum(-1, keepdim=True)
    decay = torch.rand(2, generator=generator, dtype=D)
    data = torch.randn(steps, generator=generator, dtype=D)

    def program() -> None:
        x: Any = torch.tensor(0.0, dtype=D)
        z: Any = torch.tensor(0)
        for t in range(steps):
            z = sample(f"z{t}", dist.Categorical(moves[z]))
            x = sample(f"x{t}", dist.Normal(decay[z] * x, 1.0))
            sample(f"y{t}", dist.Normal(x, 0.5), obs=data[t])

    totals = []
    for path in itertools.product(range(2), repeat=steps):
        weight = torch.zeros((), dtype=D)
        rows = torch.zeros(steps, steps, dtype=D)
        for t, z in enumerate(path):
            weight = weight + moves[path[t - 1] if t else 0, z].log()
            rows[t] = decay[z] * rows[t - 1] if t else 0.0
            rows[t, t] = 1.0
        covariance = rows @ rows.T + 0.25 * torch.eye(steps, dtype=D)
        totals.append(weight + normal(torch.zeros(steps, dtype=D), covariance, data))
    exact = torch.stack(totals).logsumexp(0)
    torch.testing.assert_close(infer.log_evidence(poutine.collapse(program))(), exact, **EXACT)


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_conjugate_sites_with_choices(seed: int) -> None:
    """A choice among exposures, and one among elements of a delayed site."""
    generator = torch.Generator().manual_seed(seed)
    exposure = torch.rand(2, generator=generator, dtype=D) + 0.5
    counts = torch.poisson(2 * torch.ones(3, dtype=D), generator=generator)

    def program() -> None:
        with plate("groups", 2):
            rate: Any = sample("rate", dist.Gamma(torch.tensor([1.0, 2.0], dtype=D), 1.5))
        z: Any = sample("z", dist.Bernoulli(torch.tensor(0.3, dtype=D)))
        which: Any = sample("which", dist.Bernoulli(torch.tensor(0.6, dtype=D)))
        with plate("rows", 3):
            sample("y", dist.Poisson(rate[which.long()] * exposure[z.long()]), obs=counts)

    totals = []
    for z, which in itertools.product(range(2), repeat=2):
        a = torch.tensor(1.0 + which, dtype=D)
        c = exposure[z]
        total = torch.tensor([0.7, 0.3][z] * [0.4, 0.6][which], dtype=D).log()
        total = total + torch.lgamma(a + counts.sum()) - torch.lgamma(a) + a * math.log(1.5)
        total = (
            total
            - (a + counts.sum()) * (1.5 + 3 * c).log()
            + counts.sum() * c.log()
            - torch.lgamma(counts + 1).sum()
        )
        totals.append(total)
    exact = torch.stack(totals).logsumexp(0)
    torch.testing.assert_close(infer.log_evidence(poutine.collapse(program))(), exact, **EXACT)


def test_a_choice_in_a_plate_that_ties_a_global_site_is_refused() -> None:
    def program(family: Any) -> Any:
        def run() -> None:
            x: Any = sample("x", family)
            with plate("rows", 3):
                z: Any = sample("z", dist.Bernoulli(0.5))
                if isinstance(family, dist.Normal):
                    sample("y", dist.Normal(x * z, 1.0), obs=torch.zeros(3))
                else:
                    sample("y", dist.Poisson(x * (1 + z)), obs=torch.zeros(3))

        return run

    for family in (dist.Normal(0.0, 1.0), dist.Gamma(1.0, 1.0)):
        with pytest.raises(ModelError, match=r"Site 'x' is integrated out.*site 'z'.*plate 'rows'"):
            infer.log_evidence(poutine.collapse(program(family)))()


def test_long_switching_chains_are_refused_before_memory_is_taken() -> None:
    def program(steps: int) -> None:
        x: Any = torch.tensor(0.0)
        for t in range(steps):
            z: Any = sample(f"z{t}", dist.Bernoulli(0.5))
            x = sample(f"x{t}", dist.Normal(z + x, 1.0))

    query = infer.log_evidence(poutine.collapse(program))
    with pytest.raises(ModelError, match=r"'x0' is integrated out.*their joint values"):
        query(40)
    with (
        switches.override(memory_limit=2**16),
        pytest.raises(MemoryLimitError, match=r"all their joint values"),
    ):
        query(15)
