"""Random programs of Gaussian sites, against the integral of their plain joint density.

The logarithm of a joint density that is Gaussian in the latent values is a quadratic function of them: its value, its
gradient and its Hessian at one point, taken of plain runs at chosen values, give the evidence and the posterior.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.infer.collapsing.draws import draws
from sumout.infer.collapsing.posterior import posterior

PLATES = {"p": (-1, 3), "q": (-2, 2)}
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def fixed(*shape: int) -> Tensor:
    """Data that are the same at each call."""
    return torch.linspace(-1.0, 2.0, math.prod(shape), dtype=torch.float64).sin().reshape(shape)


INSIDE: dict[str, Callable[[Any, int, int], Any]] = {
    "roll": lambda x, dim, size: x.roll(1, dim),
    "flip": lambda x, dim, size: torch.flip(x, [dim]),
    "cumsum": lambda x, dim, size: x.cumsum(dim),
    "mean": lambda x, dim, size: x.mean(dim, keepdim=True),
    "gather": lambda x, dim, size: x.index_select(dim, torch.arange(size) // 2),
    "nested gather": lambda x, dim, size: x.movedim(dim, 0)[torch.tensor([0, 0, 1])][
        torch.arange(size) % 2 * 2
    ].movedim(0, dim),
    "matmul": lambda x, dim, size: (x.movedim(dim, -1) @ fixed(size, size)).movedim(-1, dim),
    "einsum": lambda x, dim, size: torch.einsum(
        "...i,ij->...j", x.movedim(dim, -1), fixed(size, size)
    ).movedim(-1, dim),
    "where": lambda x, dim, size: torch.where(fixed(*x.shape) > 0, x, 0.25 - x.roll(1, dim)),
    "diff": lambda x, dim, size: torch.diff(x, dim=dim, prepend=torch.zeros_like(x.narrow(dim, 0, 1))),
    "shift": lambda x, dim, size: torch.cat([x.narrow(dim, 0, 1) * 0, x.narrow(dim, 0, size - 1)], dim),
    "itself": lambda x, dim, size: torch.stack([x, x]).sum(0) - (x - x),
    "outer": lambda x, dim, size: (x.unsqueeze(-1) * fixed(2)).sum(-1),
    "one by one": lambda x, dim, size: torch.stack([k * each for k, each in enumerate(x.unbind(dim))], dim),
}
"""What is done to a value along a plate in which the site that uses it lives, too."""


@dataclass(frozen=True)
class Statement:
    """One site: its plates, which earlier values it uses and how, and whether it is observed."""

    name: str
    plates: tuple[str, ...]
    event: int
    uses: tuple[tuple[str, str, float], ...]
    observed: bool
    mask: bool
    scale: float
    spread: float


@st.composite
def statements(draw: st.DrawFn) -> list[Statement]:
    found: list[Statement] = []
    for number in range(draw(st.integers(2, 6))):
        latent = [each for each in found if not each.observed]
        uses = []
        if latent:
            for each in draw(st.lists(st.sampled_from(latent), max_size=2, unique_by=lambda each: each.name)):
                how = draw(st.sampled_from(["own", "sum", "pick", *INSIDE]))
                uses.append((each.name, how, draw(st.sampled_from([-1.0, 0.5, 2.0]))))
        observed = bool(uses) and draw(st.booleans())
        found.append(
            Statement(
                f"{'y' if observed else 'x'}{number}",
                tuple(draw(st.sets(st.sampled_from(sorted(PLATES))))),
                draw(st.sampled_from([0, 0, 2])),
                tuple(uses),
                observed,
                observed and draw(st.integers(0, 3)) == 0,
                draw(st.sampled_from([1.0, 1.0, 2.0])) if observed else 1.0,
                draw(st.sampled_from([0.5, 1.0, 3.0])),
            )
        )
    return found


def fitted(value: Any, source: Statement, goal: Statement, how: str) -> Any:
    """An earlier value, of shape ``(*plates, *event)``, for use in the plates of a later site; without an event."""
    if source.event:
        value = value[..., 0] - 0.5 * value[..., 1]
    for name, (dim, size) in PLATES.items():
        if name not in source.plates:
            continue
        inside = name in goal.plates
        if how in INSIDE and inside:
            value = INSIDE[how](value, dim, size)
        elif how == "sum" or (not inside and how != "pick"):
            value = value.sum(dim, keepdim=True)
        elif how == "pick":
            value = value.index_select(dim, torch.tensor([size - 1]))
    return value


def make(program: list[Statement], seed: int, shared: Tensor | None = None) -> Callable[[], None]:
    """The program; ``shared`` are numbers that its means, coefficients and deviations depend on."""
    more = torch.zeros(3, dtype=torch.float64) if shared is None else shared
    generator = torch.Generator().manual_seed(seed)
    by_name = {each.name: each for each in program}
    data = {each.name: torch.randn(2, 3, 2, generator=generator, dtype=torch.float64) for each in program}
    kept = torch.rand(2, 3, generator=generator) < 0.6
    own = {each.name: torch.randn(2, generator=generator, dtype=torch.float64) for each in program}

    def run() -> None:
        values: dict[str, Any] = {}
        frames = {name: plate(name, size, dim=dim) for name, (dim, size) in PLATES.items()}
        for each in program:
            loc: Any = own[each.name][0] + more[0]
            spread = each.spread * more[1].exp()
            for name, how, coef in each.uses:
                loc = loc + (coef + more[2]) * fitted(values[name], by_name[name], each, how)
            shape = [size if name in each.plates else 1 for name, (_, size) in reversed(PLATES.items())]
            loc = loc + torch.zeros(shape, dtype=torch.float64)
            if not each.plates:
                loc = loc.reshape(())
            elif each.plates == ("p",):
                loc = loc.reshape(-1)
            fn: Any
            if each.event:
                zero = torch.zeros_like(spread)
                tril = torch.stack([torch.stack([spread, zero]), torch.stack([zero + 0.3, zero + 1.0])])
                fn = dist.MultivariateNormal(loc.unsqueeze(-1) + own[each.name], scale_tril=tril)
            else:
                fn = dist.Normal(loc, spread)
            obs = None
            if each.observed:
                obs = data[each.name][: shape[0], : shape[1], : max(1, each.event)]
                obs = obs.reshape(fn.batch_shape + fn.event_shape)
            mask: Any = True
            if each.mask:
                mask = kept[: shape[0], : shape[1]].reshape(fn.batch_shape)
            contexts = [frames[name] for name in ("q", "p") if name in each.plates]
            with poutine.scale(scale=each.scale), poutine.mask(mask=mask):
                values[each.name] = inside(contexts, each.name, fn, obs)

    return run


def inside(contexts: list[Any], name: str, fn: Any, obs: Any) -> Any:
    if not contexts:
        return sample(name, fn, obs=obs)
    with contexts[0]:
        return inside(contexts[1:], name, fn, obs)


class Quadratic:
    """The joint density of a program as a function of all its latent values."""

    def __init__(self, run: Callable[[], None]) -> None:
        sites = poutine.trace(run).get_trace().nodes
        self.shapes = {
            name: site.value.shape
            for name, site in sites.items()
            if site.type == "sample" and not site.is_observed and name.startswith("x")
        }
        self.run = run
        size = sum(shape.numel() for shape in self.shapes.values())
        zero = torch.zeros(size, dtype=torch.float64)
        self.precision = -torch.autograd.functional.hessian(  # type: ignore[no-untyped-call]
            self.log_joint, zero, create_graph=True
        )
        self.covariance = torch.linalg.inv(self.precision)
        center = zero
        for _ in range(2):  # The second time from near the mean, where nothing large cancels.
            point = center.requires_grad_()
            value = self.log_joint(point)
            (gradient,) = torch.autograd.grad(value, point, create_graph=True)
            self.mean = point.detach() + self.covariance @ gradient
            center = self.mean.detach()
        self.log_evidence = (
            value
            + 0.5 * gradient @ self.covariance @ gradient
            + 0.5 * size * math.log(2 * math.pi)
            - 0.5 * torch.linalg.slogdet(self.precision)[1]
        )

    def log_joint(self, point: Tensor) -> Tensor:
        data, start = {}, 0
        for name, shape in self.shapes.items():
            data[name] = point[start : start + shape.numel()].reshape(shape)
            start += shape.numel()
        total: Tensor = poutine.trace(poutine.condition(self.run, data=data)).get_trace().log_prob_sum()
        return total

    def of(self, name: str, vector: Tensor) -> Tensor:
        start = 0
        for each, shape in self.shapes.items():
            if each == name:
                return vector[start : start + shape.numel()].reshape(shape)
            start += shape.numel()
        raise KeyError(name)


def integrals(run: Callable[[], None]) -> list[Any]:
    sites = poutine.trace(poutine.collapse(run)).get_trace().nodes.values()
    return [
        site.infer["_integral"] for site in sites if site.type == "sample" and site.infer.get("_integral")
    ]


@contextmanager
def by_residuals(whether: bool) -> Iterator[None]:
    """Whether factors are kept by their residuals, as they are where quadratic forms lose digits."""
    with patch("sumout.lower.collapse.assembly.lose_digits", lambda factors: whether):
        yield


@pytest.mark.parametrize("roots", [False, True])
@given(program=statements(), seed=st.integers(0, 1000))
@settings(max_examples=60)
def test_evidence_and_posterior(roots: bool, program: list[Statement], seed: int) -> None:
    run = make(program, seed)
    exact = Quadratic(run)
    with by_residuals(roots):
        torch.testing.assert_close(infer.log_evidence(poutine.collapse(run))(), exact.log_evidence, **EXACT)
        deviation = exact.covariance.diagonal().sqrt()
        for integral in integrals(run):
            for name in integral.latents:
                found = posterior(integral, name)
                torch.testing.assert_close(found.mean, exact.of(name, exact.mean), **EXACT)
                torch.testing.assert_close(found.stddev, exact.of(name, deviation), **EXACT)


@pytest.mark.parametrize("roots", [False, True])
@given(program=statements(), seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_derivatives_by_what_the_densities_depend_on(
    roots: bool, program: list[Statement], seed: int
) -> None:
    shared = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    run = make(program, seed, shared)
    exact = Quadratic(run)
    deviation = exact.covariance.diagonal().sqrt()
    with by_residuals(roots):
        pairs = [(infer.log_evidence(poutine.collapse(run))(), exact.log_evidence)]
        for integral in integrals(run):
            for name in integral.latents:
                told = posterior(integral, name)
                pairs += [(told.mean, exact.of(name, exact.mean)), (told.stddev, exact.of(name, deviation))]
    for found, wanted in pairs:
        close(found, wanted, shared)


def close(found: Tensor, wanted: Tensor, parameters: Tensor) -> None:
    """Whether values and derivatives are the same; these in one direction."""
    weight = fixed(*found.shape)
    totals = [(each * weight).sum() for each in (found, wanted)]
    torch.testing.assert_close(found, wanted, **EXACT)
    grads = [
        torch.autograd.grad(each, parameters, retain_graph=True)[0]
        if each.requires_grad
        else torch.zeros_like(parameters)
        for each in totals
    ]
    torch.testing.assert_close(*grads, **EXACT)


@pytest.mark.parametrize("seed", range(4))
def test_samples_have_the_posterior_s_moments(seed: int) -> None:
    program = [
        Statement("x0", (), 0, (), False, False, 1.0, 2.0),
        Statement("x1", ("p",), 0, (("x0", "own", 2.0),), False, False, 1.0, 1.0),
        Statement("x2", ("p", "q"), 2, (("x1", "own", 0.5),), False, False, 1.0, 1.0),
        Statement("y3", ("q",), 0, (("x2", "sum", 0.5),), True, False, 1.0, 0.5),
        Statement("y4", ("p", "q"), 0, (("x2", "own", 0.5),), True, True, 1.0, 0.5),
    ]
    run = make(program, seed)
    exact = Quadratic(run)
    mean, precision = exact.mean.detach(), exact.precision.detach()
    torch.manual_seed(seed)
    count = 20_000
    (integral,) = integrals(run)
    found = draws(integral, count).values
    flat = torch.cat([found[name].reshape(count, -1) for name in exact.shapes], -1) - mean
    # In units in which the samples are independent and standard normal.
    white = flat @ torch.linalg.cholesky(precision)
    assert float(white.mean(0).abs().max() * math.sqrt(count)) < 4.5
    spread = white.T @ white / count - torch.eye(white.shape[1], dtype=torch.float64)
    assert float(spread.abs().max() * math.sqrt(count / 2)) < 5.0
