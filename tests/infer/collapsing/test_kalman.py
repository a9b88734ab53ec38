"""Collapsed chains beside a textbook's Kalman filter and Rauch-Tung-Striebel smoother, which knows covariances only.

A chain that looks back further has the steps in sight as its state there, and an unknown number that all steps read is
one more state, which never moves.

Source: Anderson and Moore, *Optimal Filtering* (1979), sections 3.1 and 7.4.
"""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import ModelError
from sumout.infer.collapsing import recorded

EXACT = {"rtol": 1e-9, "atol": 1e-9}
D = torch.float64


class System:
    """``x[t] = sum of moves[t, k] x[t - 1 - k] + push drift + noise`` and ``y[t] = looks[t] x[t] + noise``."""

    def __init__(self, seed: int, steps: int, series: int, history: int, even: bool, gaps: bool) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=D)

        count = 1 if even else steps
        self.steps, self.series, self.history = steps, series, history
        self.moves = (0.4 * normal(count, history, 2, 2)).requires_grad_()
        self.noise = (torch.eye(2, dtype=D) + 0.2 * normal(count, 2, 2).abs().tril()).requires_grad_()
        self.looks = normal(count, 2).requires_grad_()
        self.blur = (0.5 + normal(count).abs()).requires_grad_()
        self.push = normal(2).requires_grad_()
        self.data = normal(steps, series)
        self.seen = torch.rand(steps, series, generator=generator) > (0.3 if gaps else -1.0)

    @property
    def parameters(self) -> list[Tensor]:
        return [self.moves, self.noise, self.looks, self.blur, self.push]

    def at(self, table: Tensor, t: Any) -> Tensor:
        """What belongs to a step; to many, with a dimension for the series behind."""
        if isinstance(t, int):
            return table[min(t, len(table) - 1)]
        return table[t].unsqueeze(1) if len(table) > 1 else table

    def program(self, vectorized: bool, drifts: bool) -> None:
        drift = sample("drift", dist.Normal(torch.tensor(0.5, dtype=D), 2.0)) if drifts else 0.0
        past: list[Any] = [torch.zeros(2, dtype=D)] * self.history
        steps = range(self.steps)
        chain: Any = poutine.markov(steps, dim=-2, name="time", history=self.history) if vectorized else steps
        with plate("series", self.series, dim=-1):
            for t in chain:
                moves = self.at(self.moves, t)
                loc = self.push * drift
                for lag, x in enumerate(past):
                    loc = loc + (moves[..., lag, :, :] @ x.unsqueeze(-1)).squeeze(-1)
                x = sample(f"x_{t}", dist.MultivariateNormal(loc, scale_tril=self.at(self.noise, t)))
                past = [x, *past[:-1]]
                seen = dist.Normal((self.at(self.looks, t) * x).sum(-1), self.at(self.blur, t))
                if not bool(self.seen.all()):
                    seen = seen.mask(self.seen[t])
                sample(f"y_{t}", seen, obs=self.data[t])

    def smoothed(self, series: int, drifts: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The log-likelihood of one series, and means and covariances of all states, by the textbook."""
        size = 2 * self.history + 1
        mean, covariance = torch.zeros(size, dtype=D), torch.zeros(size, size, dtype=D)
        if drifts:
            mean = torch.cat([mean[:-1], torch.full((1,), 0.5, dtype=D)])
            covariance = torch.diag(
                torch.cat([torch.zeros(size - 1, dtype=D), torch.full((1,), 4.0, dtype=D)])
            )
        total = torch.zeros((), dtype=D)
        predicted, filtered, ways = [], [], []
        for t in range(self.steps):
            top = torch.cat([*self.at(self.moves, t), self.push.unsqueeze(-1)], -1)
            down = torch.eye(size, dtype=D)[: 2 * self.history - 2]
            way = torch.cat([top, down, torch.eye(size, dtype=D)[-1:]])
            noise = torch.nn.functional.pad(self.at(self.noise, t).tril(), (0, size - 2, 0, size - 2))
            mean, covariance = way @ mean, way @ covariance @ way.mT + noise @ noise.mT
            predicted.append((mean, covariance))
            if self.seen[t, series]:
                look = torch.nn.functional.pad(self.at(self.looks, t), (0, size - 2))
                spread = look @ covariance @ look + self.at(self.blur, t) ** 2
                off = self.data[t, series] - look @ mean
                total = total - 0.5 * (off**2 / spread + spread.log() + math.log(2 * math.pi))
                gain = covariance @ look / spread
                mean, covariance = mean + gain * off, covariance - spread * torch.outer(gain, gain)
            filtered.append((mean, covariance))
            ways.append(way)
        found = [filtered[-1]]
        for t in reversed(range(self.steps - 1)):
            mean, covariance = filtered[t]
            gain = covariance @ ways[t + 1].mT @ torch.linalg.pinv(predicted[t + 1][1], hermitian=True)
            found.append(
                (
                    mean + gain @ (found[-1][0] - predicted[t + 1][0]),
                    covariance + gain @ (found[-1][1] - predicted[t + 1][1]) @ gain.mT,
                )
            )
        means = torch.stack([each[:2] for each, _ in found[::-1]])
        return total, means, torch.stack([each[:2, :2] for _, each in found[::-1]])


SYSTEMS = {
    "seed": st.integers(0, 10_000),
    "steps": st.integers(4, 12),
    "series": st.integers(1, 3),
    "history": st.integers(1, 3),
    "even": st.booleans(),
    "gaps": st.booleans(),
}


@given(vectorized=st.booleans(), **SYSTEMS)
@settings(max_examples=12)
def test_evidence_gradients_and_smoothed_states(vectorized: bool, **kind: Any) -> None:
    system = System(**kind)
    expected = [system.smoothed(number, False) for number in range(system.series)]
    total = torch.stack([each for each, _, _ in expected]).sum()
    collapsed = poutine.collapse(system.program)
    found = infer.log_evidence(collapsed)(vectorized, False)
    torch.testing.assert_close(found, total, **EXACT)
    used = system.parameters[:-1]  # Nothing is pushed.
    for ours, theirs in zip(torch.autograd.grad(found, used), torch.autograd.grad(total, used), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    smoothed = infer.marginals(collapsed)(vectorized, False)
    for t in range(system.steps):
        here = smoothed[f"x_{t}"]
        torch.testing.assert_close(here.mean, torch.stack([means[t] for _, means, _ in expected]), **EXACT)
        wanted = torch.stack([covariances[t] for _, _, covariances in expected])
        torch.testing.assert_close(here.covariance_matrix, wanted, **EXACT)


@given(vectorized=st.booleans(), **{**SYSTEMS, "series": st.just(1)})
@settings(max_examples=12)
def test_an_unknown_that_all_steps_read(vectorized: bool, **kind: Any) -> None:
    system = System(**kind)
    total, means, covariances = system.smoothed(0, True)
    collapsed = poutine.collapse(system.program)
    found = infer.log_evidence(collapsed)(vectorized, True)
    torch.testing.assert_close(found, total, **EXACT)
    grads = [torch.autograd.grad(each, system.parameters) for each in (found, total)]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    smoothed = infer.marginals(collapsed)(vectorized, True)
    for t in range(system.steps):
        torch.testing.assert_close(smoothed[f"x_{t}"].mean[0], means[t], **EXACT)
        torch.testing.assert_close(smoothed[f"x_{t}"].covariance_matrix[0], covariances[t], **EXACT)


@given(**SYSTEMS)
@settings(max_examples=8)
def test_an_unknown_that_several_series_have_in_common(**kind: Any) -> None:
    system = System(**kind)
    collapsed = poutine.collapse(system.program)
    values = [infer.log_evidence(collapsed)(vectorized, True) for vectorized in (True, False)]
    torch.testing.assert_close(*values, **EXACT)
    grads = [torch.autograd.grad(each, system.parameters) for each in values]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_second_derivatives() -> None:
    system = System(seed=1, steps=7, series=2, history=1, even=True, gaps=False)

    def evidence(transition: Tensor) -> Tensor:
        system.moves = transition
        found: Tensor = infer.log_evidence(poutine.collapse(system.program))(True, False)
        return found

    given_at = system.moves.detach().requires_grad_()
    assert torch.autograd.gradgradcheck(evidence, given_at)


@pytest.mark.parametrize("vectorized", [True, False])
def test_samples_and_the_most_probable_path(vectorized: bool) -> None:
    system = System(seed=3, steps=6, series=2, history=2, even=True, gaps=True)
    collapsed = poutine.collapse(system.program)
    expected = [system.smoothed(number, False) for number in range(2)]
    best = infer.map_assignment(collapsed)(vectorized, False)
    torch.manual_seed(0)
    drawn = infer.posterior_samples(collapsed, 20_000)(vectorized, False)
    for t in range(system.steps):
        mean = torch.stack([means[t] for _, means, _ in expected]).detach()
        torch.testing.assert_close(best[f"x_{t}"], mean, **EXACT)
        deviations = torch.stack([each[t].diagonal().sqrt() for _, _, each in expected]).detach()
        error = (drawn[f"x_{t}"].mean(0) - mean) / deviations * math.sqrt(20_000)
        assert float(error.abs().max()) < 4.5
        spread = drawn[f"x_{t}"].std(0) / deviations
        assert float((spread - 1).abs().max()) < 4.5 / math.sqrt(2 * 20_000)


@given(**SYSTEMS)
@settings(max_examples=8)
def test_large_chains_have_no_draws(**kind: Any) -> None:
    system = System(**kind)
    collapsed = poutine.collapse(system.program)
    expected = infer.log_evidence(collapsed)(True, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "_MANY", 0)
        torch.testing.assert_close(infer.log_evidence(collapsed)(True, True), expected, **EXACT)


def test_a_vectorized_chain_does_not_switch() -> None:
    def program() -> None:
        x: Any = torch.zeros(())
        for t in poutine.markov(range(4), dim=-1, name="time"):
            z = sample(f"z_{t}", dist.Bernoulli(torch.tensor(0.5)), infer={"enumerate": "parallel"})
            x = sample(f"x_{t}", dist.Normal((0.2 + 0.5 * z) * x, 1.0))
            sample(f"y_{t}", dist.Normal(x, 1.0), obs=torch.ones(4)[t])

    with pytest.raises(
        ModelError, match=r"the vectorized chain 'time' also depend on site 'z_slice.*moment_matching"
    ):
        infer.log_evidence(poutine.collapse(program))()


@pytest.mark.parametrize("seen_twice", [False, True])
def test_steps_that_are_only_looked_back_at(seen_twice: bool) -> None:
    """Shocks that act a step later: the states do not depend on each other, and observations tie them."""

    def program(vectorized: bool) -> None:
        shock: Any = torch.tensor(0.0, dtype=D)
        steps = range(5)
        chain: Any = poutine.markov(steps, dim=-1, name="time") if vectorized else steps
        for t in chain:
            before = shock
            shock = sample(f"x_{t}", dist.Normal(torch.tensor(0.5, dtype=D), 1.5))
            here = shock + 0.4 * before if seen_twice else before
            sample(f"y_{t}", dist.Normal(here, 0.7), obs=torch.linspace(-1, 2, 5, dtype=D)[t])

    looped, at_once = [infer.marginals(poutine.collapse(program))(vectorized) for vectorized in (False, True)]
    torch.testing.assert_close(at_once.log_evidence, looped.log_evidence, **EXACT)
    for t in range(5):
        torch.testing.assert_close(at_once[f"x_{t}"].mean, looped[f"x_{t}"].mean, **EXACT)
        torch.testing.assert_close(at_once[f"x_{t}"].stddev, looped[f"x_{t}"].stddev, **EXACT)


def test_conjugate_steps_that_are_looked_back_at_are_refused() -> None:
    def program() -> None:
        rate: Any = torch.tensor(1.0, dtype=D)
        for t in poutine.markov(range(5), dim=-1, name="time"):
            before = rate
            rate = sample(f"rate_{t}", dist.Gamma(torch.tensor(2.0, dtype=D), 1.5))
            sample(f"count_{t}", dist.Poisson(before), obs=torch.ones(5, dtype=D)[t])

    with pytest.raises(ModelError, match="look back at site 'rate_slice.*' .*Loop step by step"):
        infer.log_evidence(poutine.collapse(program))()
