"""Vectorized chains of the kinds that others refuse: partial windows, and variables outside that all steps see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import sumout
import sumout.distributions as dist
from bounds import assert_same, bound
from sumout import Vindex, markov, plate, sample
from sumout.errors import EnumerationError
from sumout.infer import TraceMarkovEnum_ELBO, config_enumerate

X = torch.tensor([0.3, -1.2, 0.8, 0.1], dtype=torch.float64)
LOOP: dict[str, Any] = {"name": "time"}
AT_ONCE: dict[str, Any] = {"dim": -1, "name": "time"}


@pytest.fixture(autouse=True)
def _own_parameters() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    with sumout.get_param_store().scope():
        yield
    torch.set_default_dtype(torch.float32)


def logits(name: str, *shape: int) -> Tensor:
    seed = sum(map(ord, name)) + sum(shape)
    return sumout.param(f"{name} {shape}", torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def assert_alike(model: Callable[..., Any], guide: Callable[..., Any]) -> None:
    """The bound in every way of looping is that of all values visited."""
    exact = bound(lambda: model(LOOP), lambda: guide(LOOP))
    for of_model in (LOOP, AT_ONCE):
        for of_guide in (LOOP, AT_ONCE):
            loss = TraceMarkovEnum_ELBO().differentiable_loss(
                config_enumerate(lambda of_model=of_model: model(of_model)),
                config_enumerate(lambda of_guide=of_guide: guide(of_guide)),
            )
            assert_same(-loss, exact)
            exact = bound(lambda: model(LOOP), lambda: guide(LOOP))


def free(options: dict[str, Any]) -> None:
    """A guide whose steps depend on the step before."""
    x = torch.tensor(0)
    for t in markov(range(4), **options):
        x = sample(f"x_{t}", dist.Categorical(logits=logits("q_move", 2, 2)[x]))


def test_a_step_that_depends_on_the_one_before_the_last() -> None:
    def model(options: dict[str, Any]) -> None:
        before = x = torch.tensor(0)
        for t in markov(range(4), history=2, **options):
            row = logits("p_move", 2, 2)[before]
            before, x = x, sample(f"x_{t}", dist.Categorical(logits=row))
            sample(f"y_{t}", dist.Normal(logits("loc", 2)[x], 1.0), obs=X[t])

    assert_alike(model, free)
    assert_alike(model, lambda options: None)


def test_a_variable_outside_that_all_steps_see() -> None:
    def model(options: dict[str, Any]) -> None:
        a = sample("a", dist.Categorical(logits=logits("p_a", 2)))
        x = torch.tensor(0)
        for t in markov(range(4), **options):
            x = sample(f"x_{t}", dist.Categorical(logits=Vindex(logits("p_move", 2, 2, 2))[a, x]))
            sample(f"y_{t}", dist.Normal(Vindex(logits("loc", 2, 2))[a, x], 1.0), obs=X[t])

    def with_a(options: dict[str, Any]) -> None:
        sample("a", dist.Categorical(logits=logits("q_a", 2)))
        free(options)

    def only_a(options: dict[str, Any]) -> None:
        sample("a", dist.Categorical(logits=logits("q_a", 2)))

    for guide in (with_a, only_a, free, lambda options: None):
        assert_alike(model, guide)


def test_chains_in_a_plate() -> None:
    data = torch.stack([X, -X])

    def model(options: dict[str, Any]) -> None:
        with plate("rows", 2, dim=-2):
            x = torch.tensor(0)
            for t in markov(range(2), **options):
                x = sample(f"x_{t}", dist.Categorical(logits=logits("p_move", 2, 2)[x]))
                sample(f"y_{t}", dist.Normal(logits("loc", 2)[x], 1.0), obs=data[:, t].reshape(2, -1))

    def guide(options: dict[str, Any]) -> None:
        with plate("rows", 2, dim=-2) as i:
            x = torch.tensor(0)
            for t in markov(range(2), **options):
                rows = Vindex(logits("q_move", 2, 2, 2))[i[:, None], x]
                x = sample(f"x_{t}", dist.Categorical(logits=rows))

    assert_alike(model, guide)


def test_python_that_decides_on_a_particle() -> None:
    def model() -> None:
        z = sample("z", dist.Bernoulli(0.3))
        sample("x", dist.Normal(1.0 if z else 0.0, 1.0), obs=X[0])

    def guide() -> None:
        sample("z", dist.Bernoulli(0.5))

    elbo = TraceMarkovEnum_ELBO(num_particles=3, vectorize_particles=True, strict_enumeration_warning=False)
    with pytest.raises(EnumerationError, match="from particle to particle.*vectorize_particles=False"):
        elbo.loss(model, guide)
