"""Switching systems by moment matching: beside an independent filter (GPB2), and beside exact enumeration."""

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
from sumout import infer, markov, plate, poutine, sample
from sumout.errors import ModelError

EXACT = {"rtol": 1e-9, "atol": 1e-9}
D = torch.float64
STATES = 2
"""Of the discrete sites."""


class System:
    """x[t] = A[z[t]] x[t-1] + noise, y[t] = H x[t] + noise, z a Markov chain; x has two entries, y one."""

    def __init__(self, seed: int, steps: int, same: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=D)

        self.moves = torch.softmax(2 * normal(STATES, STATES), -1)
        self.advance = 0.5 * normal(STATES, 2, 2)
        self.noise = torch.eye(2, dtype=D) * 0.5 + 0.2 * normal(STATES, 2, 2).abs().tril()
        if same:
            self.advance, self.noise = self.advance[:1].expand(2, 2, 2), self.noise[:1].expand(2, 2, 2)
        self.seen = normal(2)
        self.blur = torch.rand(STATES, generator=generator, dtype=D) + 0.3
        self.data = 2 * normal(steps)
        if same:
            self.blur = self.blur[:1].expand(STATES)

    def program(self) -> None:
        x: Any = torch.zeros(2, dtype=D)
        z: Any = torch.tensor(0)
        for t in markov(range(len(self.data))):
            z = sample(f"z_{t}", dist.Categorical(self.moves[z]))
            loc = (self.advance[z] @ x.unsqueeze(-1)).squeeze(-1)
            x = sample(f"x_{t}", dist.MultivariateNormal(loc, scale_tril=self.noise[z]))
            sample(f"y_{t}", dist.Normal((x * self.seen).sum(-1), self.blur[z]), obs=self.data[t])

    def collapsed(self) -> Callable[..., Any]:
        found: Callable[..., Any] = poutine.collapse(self.program, approximate="moment_matching")
        return found

    def filtered(self) -> tuple[Tensor, Tensor]:
        """Log-evidence and P(z[T-1] | y) of the generalised pseudo-Bayes filter of order two, by Kalman steps."""
        mean, covariance = torch.zeros(STATES, 2, dtype=D), torch.zeros(STATES, 2, 2, dtype=D)
        weights = torch.tensor([1.0, 0.0], dtype=D)
        log_evidence = torch.zeros((), dtype=D)
        for value in self.data:
            joint = torch.zeros(STATES, STATES, dtype=D)
            means = torch.zeros(STATES, STATES, 2, dtype=D)
            spreads = torch.zeros(STATES, STATES, 2, 2, dtype=D)
            for i, j in itertools.product(range(STATES), repeat=2):
                m = self.advance[j] @ mean[i]
                p = self.advance[j] @ covariance[i] @ self.advance[j].T + self.noise[j] @ self.noise[j].T
                variance = self.seen @ p @ self.seen + self.blur[j] ** 2
                gain = p @ self.seen / variance
                innovation = value - self.seen @ m
                joint[i, j] = weights[i] * self.moves[i, j]
                joint[i, j] *= dist.Normal(0.0, variance.sqrt()).log_prob(innovation).exp()
                means[i, j] = m + gain * innovation
                spreads[i, j] = p - torch.outer(gain, self.seen @ p)
            log_evidence = log_evidence + joint.sum().log()
            joint = joint / joint.sum()
            weights = joint.sum(0)
            share = joint / weights
            mean = (share.unsqueeze(-1) * means).sum(0)
            apart = means - mean
            spreads = spreads + apart.unsqueeze(-1) * apart.unsqueeze(-2)
            covariance = (share[..., None, None] * spreads).sum(0)
        return log_evidence, weights

    def exact(self) -> Tensor:
        """The log-evidence, by all paths of the discrete sites."""
        steps = len(self.data)
        totals = []
        for path in itertools.product(range(STATES), repeat=steps):
            weight = torch.zeros((), dtype=D)
            rows = torch.zeros(steps, 2, 2 * steps, dtype=D)  # x[t] as a function of all noises.
            for t, z in enumerate(path):
                weight = weight + self.moves[path[t - 1] if t else 0, z].log()
                if t:
                    rows[t] = self.advance[z] @ rows[t - 1]
                rows[t, :, 2 * t : 2 * t + 2] = self.noise[z]
            seen = self.seen @ rows
            covariance = seen @ seen.T + self.blur[list(path)].square().diag()
            normal = dist.MultivariateNormal(torch.zeros(steps, dtype=D), covariance)
            totals.append(weight + normal.log_prob(self.data))
        return torch.stack(totals).logsumexp(0)


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=12)
def test_it_is_the_generalised_pseudo_bayes_filter_of_order_two(seed: int, steps: int) -> None:
    system = System(seed, steps)
    answer = infer.marginals(system.collapsed())()
    log_evidence, last = system.filtered()
    torch.testing.assert_close(answer.log_evidence, log_evidence, **EXACT)
    torch.testing.assert_close(answer[f"z_{steps - 1}"].probs, last, **EXACT)


@given(st.integers(0, 10_000), st.integers(1, 2))
@settings(max_examples=10)
def test_up_to_two_steps_it_is_exact(seed: int, steps: int) -> None:
    system = System(seed, steps)
    torch.testing.assert_close(infer.log_evidence(system.collapsed())(), system.exact(), **EXACT)


@given(st.integers(0, 10_000))
@settings(max_examples=6)
def test_it_is_exact_where_the_components_coincide(seed: int) -> None:
    system = System(seed, 5, same=True)
    torch.testing.assert_close(infer.log_evidence(system.collapsed())(), system.exact(), **EXACT)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_close_to_all_paths(seed: int) -> None:
    """The stated error: within 0.05 of the exact log-evidence over six steps of these systems."""
    system = System(seed, 6)
    exact = system.exact()
    found = infer.log_evidence(system.collapsed())()
    assert 0 < (found - exact).abs() < 0.05


def test_independent_choices_are_all_forgotten_and_gradients_are_those_of_differences() -> None:
    """Order one: noise of two kinds, drawn afresh in each step; by finite differences."""
    data = torch.tensor([0.3, 4.0, 0.1, -3.0, 0.5], dtype=D)

    def program(width: Tensor) -> None:
        x: Any = torch.zeros((), dtype=D)
        for t in range(len(data)):
            z = sample(f"z_{t}", dist.Bernoulli(torch.tensor(0.2, dtype=D)))
            x = sample(f"x_{t}", dist.Normal(0.9 * x, width))
            sample(f"y_{t}", dist.Normal(x, torch.where(z == 1, 5.0, 0.5)), obs=data[t])

    log_evidence = infer.log_evidence(poutine.collapse(program, approximate="moment_matching"))
    mean, variance, expected = torch.zeros((), dtype=D), torch.zeros((), dtype=D), torch.zeros((), dtype=D)
    for value in data:  # GPB1: one Gaussian for all choices.
        m, p = 0.9 * mean, 0.81 * variance + 1.0
        kinds = torch.tensor([0.25, 25.0], dtype=D)
        logs = torch.tensor([0.8, 0.2], dtype=D).log() + dist.Normal(m, (p + kinds).sqrt()).log_prob(value)
        expected = expected + logs.logsumexp(0)
        share, gain = logs.softmax(0), p / (p + kinds)
        means, spreads = m + gain * (value - m), (1 - gain) * p
        mean = (share * means).sum()
        variance = (share * (spreads + (means - mean) ** 2)).sum()
    width = torch.tensor(1.0, dtype=D, requires_grad=True)
    found = log_evidence(width)
    torch.testing.assert_close(found, expected, **EXACT)
    found.backward()
    with torch.no_grad():
        step = 1e-5
        slope = (log_evidence(width + step) - log_evidence(width - step)) / (2 * step)
    torch.testing.assert_close(width.grad, slope, rtol=1e-7, atol=1e-7)


def test_sequences_in_a_plate_are_problems_of_their_own() -> None:
    systems = [System(1, 5), System(1, 5)]
    systems[1].data = systems[1].data.flip(0)
    data = torch.stack([each.data for each in systems])
    system = systems[0]

    def program() -> None:
        with plate("sequences", 2):
            x: Any = torch.zeros(2, dtype=D)
            z: Any = torch.tensor(0)
            for t in markov(range(5)):
                z = sample(f"z_{t}", dist.Categorical(system.moves[z]))
                loc = (system.advance[z] @ x.unsqueeze(-1)).squeeze(-1)
                x = sample(f"x_{t}", dist.MultivariateNormal(loc, scale_tril=system.noise[z]))
                sample(f"y_{t}", dist.Normal((x * system.seen).sum(-1), system.blur[z]), obs=data[:, t])

    found = infer.marginals(poutine.collapse(program, approximate="moment_matching"))()
    expected = [each.filtered() for each in systems]
    torch.testing.assert_close(found.log_evidence, expected[0][0] + expected[1][0], **EXACT)
    torch.testing.assert_close(found["z_4"].probs, torch.stack([expected[0][1], expected[1][1]]), **EXACT)


def test_the_result_is_marked() -> None:
    merged = System(0, 5).collapsed()
    answer = infer.marginals(merged)()
    assert "x_0: integrated out, approximately: moment_matching" in merged.msngr.explain()  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="integrated out with approximate='moment_matching'"):
        answer["x_0"]
    exact = System(0, 2).collapsed()
    infer.log_evidence(exact)()
    assert "approximately" not in exact.msngr.explain()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="knows 'moment_matching'"):
        poutine.collapse(lambda: None, approximate="laplace")
