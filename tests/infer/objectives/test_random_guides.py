"""Random models with random guides of some of their sites: the bound by visiting all values, and its gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds import bound
from programs import Program, Site, programs
from sumout.infer import TraceEnum_ELBO, config_enumerate


@pytest.fixture(autouse=True, scope="module")
def _double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Program, Program]:
    """A model, and a guide that draws some of its sites in any order, each given any that were drawn before."""
    model = draw(programs(max_statements=3, max_assignments=120))
    latent = [site for site in model.sites if site.obs is None]
    chosen = draw(st.lists(st.sampled_from(latent), unique_by=lambda site: site.name)) if latent else []
    guide = Program(model.plates)
    for site in chosen:
        above = [each for each in guide.sites if each.path == site.path[: len(each.path)]]
        parents = draw(st.lists(st.sampled_from(above), unique=True, max_size=2)) if above else []
        varies = tuple(each for each in site.path if draw(st.booleans()))
        shape = [*(model.plates[each] for each in varies), *(each.size for each in parents), site.size]
        numbers = draw(st.lists(st.integers(-20, 20), min_size=math.prod(shape), max_size=math.prod(shape)))
        logits = (torch.tensor(numbers, dtype=torch.float64) / 10).reshape(shape).requires_grad_()
        names = tuple(each.name for each in parents)
        guide.statements.append(
            Site(site.name, site.path, varies, names, site.size, logits, None, site.bernoulli)
        )
    return model, guide


@settings(max_examples=25, deadline=None)
@given(pairs())
def test_the_bound_of_a_random_guide(pair: tuple[Program, Program]) -> None:
    model, guide = pair
    elbo = TraceEnum_ELBO(strict_enumeration_warning=False)
    loss = elbo.differentiable_loss(config_enumerate(model), config_enumerate(guide))
    exact = -bound(model, guide)
    torch.testing.assert_close(loss, exact, rtol=1e-9, atol=1e-10)
    leaves = [*model.parameters(), *guide.parameters()]
    for leaf, found, expected in zip(
        leaves,
        torch.autograd.grad(loss, leaves, allow_unused=True),
        torch.autograd.grad(exact, leaves, allow_unused=True),
        strict=True,
    ):
        zeros = torch.zeros_like(leaf)
        pair_of = [zeros if each is None else each for each in (found, expected)]
        torch.testing.assert_close(*pair_of, rtol=1e-9, atol=1e-10)
