"""Chains of discrete sites with collapsed conjugate ones: forward algorithms, and what has no such form."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import MemoryLimitError, ModelError
from sumout.poutine import collapse, markov

D = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}
SHAPES = torch.tensor([1.0, 4.0], dtype=D)


def moves_of(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(2, 2, generator=generator, dtype=D) + 0.1
    return rows / rows.sum(-1, keepdim=True)


def counts_of(seed: int, steps: int) -> Tensor:
    return torch.poisson(2 * torch.ones(steps, dtype=D), generator=torch.Generator().manual_seed(seed))


def rates(moves: Tensor, counts: Tensor, vectorized: bool, plated: bool = False) -> None:
    """A rate for each step, whose prior the state of the step chooses; with ``plated``, two of them."""
    both = plate("both", 2, dim=-1)
    z: Any = torch.tensor(0)
    steps = range(len(counts))
    for t in markov(steps, dim=-2, name="time") if vectorized else markov(steps):
        z = sample(f"z_{t}", dist.Categorical(moves[z]))
        seen = counts[t].unsqueeze(-1)
        if plated:
            with both:
                rate = sample(f"rate_{t}", dist.Gamma(SHAPES[z], 1.5))
                sample(f"count_{t}", dist.Poisson(rate), obs=seen.expand(*seen.shape[:-1], 2))
        else:
            rate = sample(f"rate_{t}", dist.Gamma(SHAPES[z], 1.5))
            sample(f"count_{t}", dist.Poisson(rate), obs=seen if vectorized else counts[t])


def forward(moves: Tensor, counts: Tensor, copies: int = 1) -> Tensor:
    """The textbook's, with negative binomial emissions."""
    told = dist.GammaPoisson(SHAPES, torch.tensor(1.5, dtype=D)).log_prob(counts.unsqueeze(-1)) * copies
    state = moves[0].log() + told[0]
    for each in told[1:]:
        state = (state.unsqueeze(-1) + moves.log()).logsumexp(0) + each
    return state.logsumexp(0)


@given(seed=st.integers(0, 10_000), steps=st.integers(2, 12), vectorized=st.booleans(), plated=st.booleans())
@settings(max_examples=30)
def test_a_rate_for_each_step(seed: int, steps: int, vectorized: bool, plated: bool) -> None:
    weights, counts = moves_of(seed).requires_grad_(), counts_of(seed, steps)
    moves = weights / weights.sum(-1, keepdim=True)
    exact = forward(moves, counts, 2 if plated else 1)
    found = infer.log_evidence(collapse(rates))(moves, counts, vectorized, plated)
    torch.testing.assert_close(found, exact, **EXACT)
    (wanted,), (gradient,) = (
        torch.autograd.grad(exact, weights, retain_graph=True),
        torch.autograd.grad(found, weights),
    )
    torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("vectorized", [False, True])
def test_posteriors_step_by_step(vectorized: bool) -> None:
    moves, counts = moves_of(1), counts_of(1, 5)

    def summed() -> None:  # By hand: the states alone.
        z: Any = torch.tensor(0)
        for t in markov(range(5)):
            z = sample(f"z_{t}", dist.Categorical(moves[z]))
            sample(f"count_{t}", dist.GammaPoisson(SHAPES[z], 1.5), obs=counts[t])

    states = infer.marginals(summed)()
    found = infer.marginals(collapse(rates))(moves, counts, vectorized)
    at = torch.tensor(1.3, dtype=D)
    for t in range(5):
        probs = states[f"z_{t}"].probs
        torch.testing.assert_close(found[f"z_{t}"].probs, probs, **EXACT)
        parts = dist.Gamma(SHAPES + counts[t], 2.5).log_prob(at)
        density = found[f"rate_{t}"].log_prob(at).reshape(())
        torch.testing.assert_close(density, (probs.log() + parts).logsumexp(0), **EXACT)
    torch.manual_seed(0)
    drawn = infer.posterior_samples(collapse(rates), 3)(moves, counts, vectorized)
    for k in range(3):
        values = {name: drawn[name][k].reshape(()) for name in drawn}
        run = poutine.trace(poutine.condition(rates, data=values)).get_trace(moves, counts, False)
        torch.testing.assert_close(drawn.log_prob[k], run.log_prob_sum() - found.log_evidence, **EXACT)


@pytest.mark.parametrize("vectorized", [False, True])
def test_unknown_transitions_between_observed_states(vectorized: bool) -> None:
    """Each row of transitions is told by its own counts, one predictive probability after the other."""
    states = torch.randint(2, (12,), generator=torch.Generator().manual_seed(1))
    prior = torch.tensor([[1.0, 2.0], [3.0, 0.5]], dtype=D)

    def program() -> None:
        with plate("states", 2):
            rows: Any = sample("rows", dist.Dirichlet(prior))
        z: Any = torch.tensor(0)
        for t in markov(range(12), dim=-2, name="time") if vectorized else markov(range(12)):
            z = sample(
                f"z_{t}", dist.Categorical(rows[z]), obs=states[t].unsqueeze(-1) if vectorized else states[t]
            )

    exact, before, state = torch.zeros((), dtype=D), 0, prior.clone()
    for z in states.tolist():
        exact = exact + (state[before, z] / state[before].sum()).log()
        state[before, z] += 1
        before = z
    torch.testing.assert_close(infer.log_evidence(collapse(program))(), exact, **EXACT)
    torch.testing.assert_close(infer.marginals(collapse(program))()["rows"].concentration, state, **EXACT)


def unknown_emissions(moves: Tensor, counts: Tensor, vectorized: bool = False) -> None:
    with plate("states", 2):
        rate: Any = sample("rate", dist.Gamma(SHAPES, 1.5))
    z: Any = torch.tensor(0)
    for t in markov(range(len(counts)), dim=-2, name="time") if vectorized else markov(range(len(counts))):
        z = sample(f"z_{t}", dist.Categorical(moves[z]))
        sample(f"count_{t}", dist.Poisson(rate[z]), obs=counts[t].unsqueeze(-1) if vectorized else counts[t])


def test_unknown_emissions_of_a_short_chain() -> None:
    """One term for each path, as all steps of a state have its rate in common."""
    moves, counts = moves_of(2), counts_of(2, 6)
    totals = []
    for path in itertools.product(range(2), repeat=6):
        total = torch.zeros((), dtype=D)
        for before, z in itertools.pairwise((0, *path)):
            total = total + moves[before, z].log()
        for k in range(2):
            shape, rate = SHAPES[k], torch.tensor(1.5, dtype=D)
            for z, count in zip(path, counts, strict=True):
                if z == k:
                    total = total + dist.GammaPoisson(shape, rate).log_prob(count)
                    shape, rate = shape + count, rate + 1
        totals.append(total)
    found = infer.log_evidence(collapse(unknown_emissions))(moves, counts)
    torch.testing.assert_close(found, torch.stack(totals).logsumexp(0), **EXACT)


def unknown_moves(moves: Tensor, counts: Tensor, vectorized: bool = False) -> None:
    with plate("states", 2):
        rows: Any = sample("rows", dist.Dirichlet(torch.ones(2, dtype=D)))
    z: Any = torch.tensor(0)
    for t in markov(range(len(counts)), dim=-2, name="time") if vectorized else markov(range(len(counts))):
        z = sample(f"z_{t}", dist.Categorical(rows[z]))
        sample(
            f"count_{t}", dist.Poisson(SHAPES[z]), obs=counts[t].unsqueeze(-1) if vectorized else counts[t]
        )


@pytest.mark.parametrize(("program", "site"), [(unknown_emissions, "rate"), (unknown_moves, "rows")])
@pytest.mark.parametrize("approximate", [None, "moment_matching"])
def test_what_ties_all_steps_of_a_long_chain_is_refused(
    program: Callable[..., None], site: str, approximate: Any
) -> None:
    """No sum over states goes before the integral, and what is merged elsewhere are normal distributions."""
    asked = infer.log_evidence(collapse(program, approximate=approximate))
    with pytest.raises(
        MemoryLimitError,
        match=rf"Site '{site}' is integrated out.*40 sites that are summed out \('z_0', .*joint values.*"
        r"infer=\{'collapse': False\}.*approximate='moment_matching' is for normal sites",
    ):
        asked(moves_of(0), counts_of(0, 40))
    with pytest.raises(
        ModelError, match=rf"Site '{site}' is integrated out.*'z_slice\(1, 40, None\)'.*'time'"
    ):
        asked(moves_of(0), counts_of(0, 40), vectorized=True)
