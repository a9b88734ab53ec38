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
from sumout.execute import filtering
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


@given(
    st.integers(0, 10_000),
    st.integers(0, 17),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([None, (1, True), (3, True), (2, False), (4, False)]),
)
@settings(max_examples=60)
def test_blocks_beside_one_joint_normal(
    seed: int, steps: int, size: int, history: int, even: bool, blocks: tuple[int, bool] | None
) -> None:
    """All variables in one precision matrix; for two groups of two series that are affine in two other variables."""
    generator = torch.Generator().manual_seed(seed)

    def link(count: int, entries: int, even: bool) -> Link:
        root = torch.randn(2, 1 if even else count, entries, entries, generator=generator, dtype=D)
        vector = torch.randn(2, 2, 3, count, entries, generator=generator, dtype=D)
        return Link(root @ root.mT + torch.eye(entries, dtype=D), vector)

    first = link(1, history * size, True)
    elements = link(steps, (history + 1) * size, even) if steps else None
    total = size * (steps + history)
    joint, linear = torch.zeros(2, total, total, dtype=D), torch.zeros(2, 2, 3, total, dtype=D)
    joint[:, : history * size, : history * size] += first.precision[:, 0]
    linear[..., : history * size] += first.vector[..., 0, :]
    for t in range(steps):
        assert elements is not None
        here = slice(t * size, (t + history + 1) * size)
        joint[:, here, here] += elements.precision[:, 0 if even else t]
        linear[..., here] += elements.vector[..., t, :]
    with pytest.MonkeyPatch.context() as patch:
        if blocks is not None:
            patch.setattr(filtering, "schedule", lambda *_: blocks)
        squares, log_normalizer = chain(first, elements, size, history)
    expected = linear @ torch.linalg.inv(joint).unsqueeze(1) @ linear.mT
    torch.testing.assert_close(squares, expected, **EXACT)
    expected = 0.5 * (total * torch.log(torch.tensor(2 * torch.pi, dtype=D)) - joint.logdet())
    torch.testing.assert_close(log_normalizer, expected, **EXACT)


def test_what_repeats_itself_is_found_by_strides_and_has_derivatives_of_its_own_size() -> None:
    x = torch.arange(6.0, dtype=D).reshape(3, 2).requires_grad_()

    def repeated(x: Tensor) -> Tensor:
        return compact((2 * x).expand(4, 3, 2).transpose(0, 1))

    assert repeated(x).shape == (3, 1, 2)
    assert compact(x) is x
    assert torch.autograd.gradcheck(repeated, x)
    assert torch.autograd.gradgradcheck(lambda x: repeated(x) ** 3, x)
