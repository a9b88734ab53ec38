"""Means and scales that are both unknown, in groups, against textbook updates row by row.

A row ``y = w * mean + noise`` of a group adds ``power * w ** 2 / s ** 2`` to the precision of the group's mean, in
units of the group's own: the normal-gamma and normal-Wishart families (Murphy, *Conjugate Bayesian analysis of the
Gaussian distribution*, 2007, sections 3 and 8), with rows that have weights.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import sumout.distributions as dist
from sumout import infer, plate, poutine, sample
from sumout.errors import ModelError
from sumout.poutine import collapse

D = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-9}
GROUPS = 3
ROWS = 7


class Data(NamedTuple):
    """Rows with their groups, and what is known of them; and two rows for each group, in plates over the groups'."""

    group: Tensor
    weight: Tensor
    spread: Tensor
    power: Tensor
    there: Tensor
    y: Tensor
    own: Tensor


def data_of(seed: int, size: int = 1) -> Data:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=D)

    def positive(*shape: int) -> Tensor:
        return 0.4 + torch.rand(*shape, generator=generator, dtype=D)

    return Data(
        torch.randint(GROUPS, (ROWS,), generator=generator),
        normal(ROWS),
        positive(ROWS),
        positive(ROWS),
        torch.rand(ROWS, generator=generator) < 0.7,
        normal(ROWS, size),
        normal(2, GROUPS, size),
    )


class Update(NamedTuple):
    """Of one group: the precision and mean of its mean in units of its own, counts and sums of squares, constants."""

    precision: Tensor
    mean: Tensor
    count: Tensor
    squares: Tensor
    const: Tensor


def update(data: Data, each: int, width: Tensor, start: Tensor) -> Update:
    precision, pull = width**-2, start * width**-2
    squares = torch.outer(start, start) * width**-2
    count, const = torch.zeros((), dtype=D), -width.log()
    rows = [
        (data.weight[k], data.spread[k], data.power[k], data.y[k])
        for k in range(ROWS)
        if data.group[k] == each and data.there[k]
    ]
    one = torch.ones((), dtype=D)
    rows += [(one, one, one, row) for row in data.own[:, each]]
    for w, s, p, y in rows:
        precision = precision + p * w**2 / s**2
        pull = pull + p * w * y / s**2
        squares = squares + p * torch.outer(y, y) / s**2
        count, const = count + p, const - p * (s.log() + 0.5 * math.log(2 * math.pi))
    squares = squares - torch.outer(pull, pull) / precision
    return Update(precision, pull / precision, count, squares, const - 0.5 * precision.log())


@given(seed=st.integers(0, 10_000), inverse=st.booleans(), rooted=st.booleans())
@settings(max_examples=30)
def test_normal_gamma(seed: int, inverse: bool, rooted: bool) -> None:
    data = data_of(seed)
    hyper = torch.tensor([1.3, 0.8, 0.7, 0.2], dtype=D, requires_grad=True)
    shape = hyper[0] + torch.tensor([0.0, 0.5, 1.0], dtype=D)

    def program() -> None:
        with plate("groups", GROUPS):
            unit: Any = sample("unit", (dist.InverseGamma if inverse else dist.Gamma)(shape, hyper[1]))
            root = (
                (unit.sqrt() if rooted else unit**0.5)
                if inverse
                else unit.rsqrt()
                if rooted
                else 1 / unit.sqrt()
            )
            mean: Any = sample("mean", dist.Normal(hyper[3], hyper[2] * root))
            with plate("twice", 2, dim=-2):
                sample("own", dist.Normal(mean, root), obs=data.own[..., 0])
        seen = torch.where(data.there, data.y[:, 0], torch.tensor(math.nan, dtype=D))
        with plate("rows", ROWS), poutine.mask(mask=data.there), poutine.scale(scale=data.power):
            loc = data.weight * mean[data.group]
            sample("y", dist.Normal(loc, data.spread * root[data.group]), obs=seen)

    exact = torch.zeros((), dtype=D)
    found = infer.marginals(collapse(program))()
    for each in range(GROUPS):
        known = update(data, each, hyper[2], hyper[3:])
        a, b = shape[each], hyper[1]
        after, rate = a + known.count / 2, b + known.squares[0, 0] / 2
        exact = exact + known.const + a * b.log() - torch.lgamma(a) + torch.lgamma(after) - after * rate.log()
        torch.testing.assert_close(found["unit"].concentration[each], after, **EXACT)
        torch.testing.assert_close(found["unit"].rate[each], rate, **EXACT)
        torch.testing.assert_close(found["mean"].df[each], 2 * after, **EXACT)
        torch.testing.assert_close(found["mean"].loc[each], known.mean[0], **EXACT)
        scale = (rate / after / known.precision).sqrt()
        torch.testing.assert_close(found["mean"].scale[each], scale, **EXACT)
    evidence = infer.log_evidence(collapse(program))()
    torch.testing.assert_close(evidence, exact, **EXACT)
    (wanted,), (gradient,) = torch.autograd.grad(exact, hyper), torch.autograd.grad(evidence, hyper)
    torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-8)


def normal_wishart(data: Data, hyper: Tensor, df: Tensor, scatter: Tensor) -> Any:
    def program() -> None:
        with plate("groups", GROUPS):
            matrix: Any = sample("matrix", dist.Wishart(df, precision_matrix=scatter))
            mean: Any = sample(
                "mean", dist.MultivariateNormal(hyper[1:], precision_matrix=matrix * hyper[0] ** -2)
            )
            with plate("twice", 2, dim=-2):
                sample(
                    "own",
                    dist.MultivariateNormal(mean, precision_matrix=matrix.expand(2, 3, 2, 2)),
                    obs=data.own,
                )
        times = data.spread**-2
        with plate("rows", ROWS), poutine.mask(mask=data.there), poutine.scale(scale=data.power):
            loc = data.weight[:, None] * mean[data.group]
            fn = dist.MultivariateNormal(loc, precision_matrix=times[:, None, None] * matrix[data.group])
            sample("y", fn, obs=data.y)

    return program


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_normal_wishart(seed: int) -> None:
    data = data_of(seed, 2)
    hyper = torch.tensor([0.7, 0.2, -0.3], dtype=D, requires_grad=True)
    df = torch.tensor([3.0, 4.0, 5.5], dtype=D)
    scatter = torch.tensor([[1.0, 0.2], [0.2, 0.8]], dtype=D)
    program = normal_wishart(data, hyper, df, scatter)
    exact = torch.zeros((), dtype=D)
    found = infer.marginals(collapse(program))()
    for each in range(GROUPS):
        known = update(data, each, hyper[0], hyper[1:])
        after, total = df[each] + known.count, scatter + known.squares
        exact = exact + 2 * known.const + known.count * math.log(2.0)
        exact = exact + torch.mvlgamma(after / 2, 2) - torch.mvlgamma(df[each] / 2, 2)
        exact = exact + df[each] / 2 * torch.logdet(scatter) - after / 2 * torch.logdet(total)
        torch.testing.assert_close(found["matrix"].df[each], after, **EXACT)
        torch.testing.assert_close(found["matrix"].precision_matrix[each], total, **EXACT)
        torch.testing.assert_close(found["mean"].df[each], after - 1, **EXACT)
        torch.testing.assert_close(found["mean"].loc[each], known.mean, **EXACT)
        root = found["mean"].scale_tril[each]
        torch.testing.assert_close(root @ root.mT, total / (after - 1) / known.precision, **EXACT)
    evidence = infer.log_evidence(collapse(program))()
    torch.testing.assert_close(evidence, exact, **EXACT)
    (wanted,), (gradient,) = torch.autograd.grad(exact, hyper), torch.autograd.grad(evidence, hyper)
    torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-8)


def test_draws_of_normal_wishart() -> None:
    """Their density is the joint density less the evidence; their means are those of the marginals, within 5 errors."""
    data = data_of(5, 2)
    df = torch.tensor([3.0, 4.0, 5.5], dtype=D)
    program = normal_wishart(data, torch.tensor([0.7, 0.2, -0.3], dtype=D), df, torch.eye(2, dtype=D))
    torch.manual_seed(0)
    count = 4000
    drawn = infer.posterior_samples(collapse(program), count)()
    known = infer.marginals(collapse(program))()
    for k in range(3):
        given_ = {name: drawn[name][k] for name in ("matrix", "mean")}
        joint = poutine.trace(poutine.condition(program, data=given_)).get_trace().log_prob_sum()
        torch.testing.assert_close(drawn.log_prob[k], joint - known.log_evidence, **EXACT)
    for name in ("matrix", "mean"):
        error = drawn[name].std(0) / math.sqrt(count)
        assert bool(((drawn[name].mean(0) - known[name].mean).abs() < 5 * error).all())


def test_a_mixture_of_normal_wishart() -> None:
    """A discrete site chooses the group of all rows: as many models as there are groups."""
    y = data_of(3, 2).y

    def program(chosen: int | None = None) -> None:
        with plate("groups", 2):
            matrix: Any = sample(
                "matrix",
                dist.Wishart(torch.tensor([3.0, 6.0], dtype=D), precision_matrix=torch.eye(2, dtype=D)),
            )
            mean: Any = sample(
                "mean", dist.MultivariateNormal(torch.zeros(2, dtype=D), precision_matrix=matrix)
            )
        z: Any = sample("z", dist.Categorical(torch.tensor([0.3, 0.7], dtype=D)))
        if chosen is not None:
            z = torch.tensor(chosen)
        with plate("rows", ROWS):
            sample("y", dist.MultivariateNormal(mean[z], precision_matrix=matrix[z]), obs=y)

    one, two = [infer.log_evidence(collapse(program))(chosen) for chosen in range(2)]
    # The choice that is not used sums to one.
    joint = torch.stack([math.log(0.3) + one, math.log(0.7) + two])
    found = infer.marginals(collapse(program))()
    torch.testing.assert_close(found.log_evidence, joint.logsumexp(0), **EXACT)
    torch.testing.assert_close(found["z"].probs, joint.softmax(0), **EXACT)
    parts = [infer.marginals(collapse(program))(chosen)["mean"] for chosen in range(2)]
    at = torch.tensor([[0.1, 0.3], [0.4, -0.2]], dtype=D)
    wanted = torch.stack([part.log_prob(at) for part in parts]) + joint.log_softmax(0)[:, None]
    torch.testing.assert_close(found["mean"].log_prob(at), wanted.logsumexp(0), **EXACT)


def test_scales_of_other_groups_than_the_means_are_refused() -> None:
    def program() -> None:
        with plate("groups", GROUPS):
            unit: Any = sample("unit", dist.Gamma(torch.ones(GROUPS), 1.0))
            mean: Any = sample("mean", dist.Normal(0.0, unit.rsqrt()))
        with plate("rows", 2):
            unlike = unit[torch.tensor([1, 2])].rsqrt()
            sample("y", dist.Normal(mean[torch.tensor([0, 1])], unlike), obs=torch.zeros(2))

    with pytest.raises(ModelError, match=r"'unit' \(Gamma\).* 'mean' \(Normal\) are observed together"):
        collapse(program)()
