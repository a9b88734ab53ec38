"""Vectorized chains by halving, beside the same program as a loop, planned step by step; and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.effects.delayed.links import compact
from sumout.execute.filtering import Link, chain
from sumout.lower.collapse import assembly
from sumout.lower.collapse.filters import Filter

EXACT = {"rtol": 1e-9, "atol": 1e-9}
D = torch.float64
KINDS = ("constant", "by step", "by series", "masked", "two sites", "local sites")


class Chain:
    """Series in a plate; transition, noise and mask by step, by series, or the same throughout."""

    def __init__(self, seed: int, steps: int, series: int, kind: str) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=D)

        self.steps, self.series, self.kind = steps, series, kind
        lead = {"by step": (steps, 1), "by series": (1, series)}.get(kind, (1, 1))
        self.transition = (0.5 * normal(*lead, 2, 2)).requires_grad_()
        self.noise = (torch.eye(2, dtype=D) + 0.2 * normal(*lead, 2, 2).abs().tril()).requires_grad_()
        self.data = normal(steps, series)
        self.mask = torch.rand(steps, series, generator=generator) > 0.3

    @property
    def parameters(self) -> list[Tensor]:
        return [self.transition, self.noise]

    def at(self, table: Tensor, t: Any) -> Tensor:
        """What belongs to a step, or to many."""
        found = table[t] if len(table) > 1 else table[0]
        return found if isinstance(t, int) or len(table) > 1 else found.unsqueeze(0)

    def program(self, vectorized: bool) -> None:
        x: Any = torch.zeros(2, dtype=D)
        u: Any = torch.zeros((), dtype=D)
        steps: Any = range(self.steps)
        if vectorized:
            steps = poutine.markov(steps, dim=-2, name="time")
        else:
            steps = poutine.markov(steps)
        with plate("series", self.series, dim=-1):
            for t in steps:
                loc = (self.at(self.transition, t) @ x.unsqueeze(-1)).squeeze(-1)
                x = sample(f"x_{t}", dist.MultivariateNormal(loc, scale_tril=self.at(self.noise, t)))
                seen = x.sum(-1)
                if self.kind == "two sites":
                    u = sample(f"u_{t}", dist.Normal(0.7 * u + 0.1 * seen, 0.9))
                    seen = seen + u
                if self.kind == "local sites":
                    seen = seen + sample(f"e_{t}", dist.Normal(seen * 0.5, 0.4))
                with poutine.mask(
                    mask=self.mask[t] if self.kind == "masked" else torch.ones((), dtype=torch.bool)
                ):
                    sample(f"y_{t}", dist.Normal(seen, 0.8), obs=self.data[t])


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(1, 3), st.sampled_from(KINDS))
@settings(max_examples=30)
def test_it_is_the_loop(seed: int, steps: int, series: int, kind: str) -> None:
    found = Chain(seed, steps, series, kind)
    values, gradients = [], []
    for vectorized in (True, False):
        value = infer.log_evidence(poutine.collapse(found.program))(vectorized)
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, found.parameters))
    torch.testing.assert_close(values[0], values[1], **EXACT)
    for ours, other in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_these_are_filtered(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    filtered: Callable[..., Any] = assembly.filtered

    def watched(*args: Any) -> Filter | None:
        made.append(filtered(*args))
        found: Filter | None = made[-1]
        return found

    monkeypatch.setattr(assembly, "filtered", watched)
    infer.log_evidence(poutine.collapse(Chain(0, 6, 2, kind).program))(True)
    assert made
    assert all(isinstance(each, Filter) for each in made)


@given(st.integers(0, 10_000), st.integers(0, 11), st.integers(1, 3), st.booleans())
@settings(max_examples=40)
def test_halving_beside_one_joint_normal(seed: int, pairs: int, size: int, shared: bool) -> None:
    """All variables in one precision matrix."""
    generator = torch.Generator().manual_seed(seed)

    def precision(count: int, entries: int) -> Tensor:
        root = torch.randn(count, 1, entries, entries, generator=generator, dtype=D)
        return root @ root.mT + torch.eye(entries, dtype=D)

    first = Link(precision(1, size), torch.randn(1, 1, 2, size, generator=generator, dtype=D))
    elements = None
    if pairs:
        vector = torch.randn(pairs, 1, 2, 2 * size, generator=generator, dtype=D)
        elements = Link(precision(1 if shared else pairs, 2 * size), vector)
    total = size * (pairs + 1)
    joint, linear = torch.zeros(total, total, dtype=D), torch.zeros(2, total, dtype=D)
    joint[:size, :size] += first.precision[0, 0]
    linear[:, :size] += first.vector[0, 0]
    for t in range(pairs):
        assert elements is not None
        here = slice(t * size, (t + 2) * size)
        joint[here, here] += elements.precision[0 if shared else t, 0]
        linear[:, here] += elements.vector[t, 0]
    quadratic = (linear * torch.linalg.solve(joint, linear.mT).mT).sum(-1)
    expected = 0.5 * (total * torch.log(torch.tensor(2 * torch.pi, dtype=D)) - joint.logdet() + quadratic)
    torch.testing.assert_close(chain(first, elements, size)[0], expected, **EXACT)


def test_what_repeats_itself_is_found_by_strides_and_has_derivatives_of_its_own_size() -> None:
    x = torch.arange(6.0, dtype=D).reshape(3, 2).requires_grad_()

    def repeated(x: Tensor) -> Tensor:
        return compact((2 * x).expand(4, 3, 2).transpose(0, 1))

    assert repeated(x).shape == (3, 1, 2)
    assert compact(x) is x
    assert torch.autograd.gradcheck(repeated, x)
    assert torch.autograd.gradgradcheck(lambda x: repeated(x) ** 3, x)
