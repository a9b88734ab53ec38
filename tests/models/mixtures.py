"""Mixtures: one discrete class for each element of a plate, and what is built of that."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.language import Program, at, model, numbers, positive, real, simplex, unit, vector

POINTS = vector(-2.1, -1.7, 0.3, 1.6, 2.4)
BITS = (numbers(4, 3, turn=2.2) > 0.5).double()


@model(
    latent=("z",), observed=("x",), discrete=("z",), max_plate_nesting=1, params=("weights", "locs", "scales")
)
def gaussian_mixture(ppl: Any) -> Program:
    """Three normals, everything a param."""

    def program() -> Any:
        weights, locs, scales = simplex(ppl, "weights", 3), real(ppl, "locs", 3), positive(ppl, "scales", 3)
        with ppl.plate("data", len(POINTS)):
            z = ppl.sample("z", ppl.dist.Categorical(weights))
            ppl.sample("x", ppl.dist.Normal(at(locs, z), at(scales, z)), obs=POINTS)

    return program


@model(
    latent=("z",),
    observed=("x",),
    discrete=("z",),
    max_plate_nesting=1,
    params=("weights", "locs", "below", "diagonals"),
)
def multivariate_mixture(ppl: Any) -> Program:
    """Normals in the plane, each with a covariance matrix of its own."""
    points = 4.0 * numbers(5, 2, turn=3.1) - 2.0

    def program() -> Any:
        weights, locs = simplex(ppl, "weights", 2), real(ppl, "locs", 2, 2)
        below, diagonals = real(ppl, "below", 2), positive(ppl, "diagonals", 2, 2)
        factors = torch.diag_embed(diagonals) + below[:, None, None] * torch.diag(torch.ones(1).double(), -1)
        with ppl.plate("data", len(points)):
            z = ppl.sample("z", ppl.dist.Categorical(weights))
            normal = ppl.dist.MultivariateNormal(at(locs, z), scale_tril=at(factors, z))
            ppl.sample("x", normal, obs=points)

    return program


@model(latent=("z",), observed=("x",), discrete=("z",), max_plate_nesting=1, params=("weights", "rates"))
def latent_classes(ppl: Any) -> Program:
    """Latent class analysis: several yes-or-no answers, independent given a person's class."""

    def program() -> Any:
        weights, rates = simplex(ppl, "weights", 3), unit(ppl, "rates", 3, 3)
        with ppl.plate("people", len(BITS)):
            z = ppl.sample("z", ppl.dist.Categorical(weights))
            ppl.sample("x", ppl.dist.Bernoulli(at(rates, z)).to_event(1), obs=BITS)

    return program


@model(
    latent=("outer", "inner"),
    observed=("x",),
    discrete=("outer", "inner"),
    max_plate_nesting=1,
    params=("weights", "table", "locs"),
)
def nested_mixture(ppl: Any) -> Program:
    """A mixture whose components are mixtures."""

    def program() -> Any:
        weights, table, locs = (
            simplex(ppl, "weights", 2),
            simplex(ppl, "table", 2, 3),
            real(ppl, "locs", 2, 3),
        )
        with ppl.plate("data", len(POINTS)):
            outer = ppl.sample("outer", ppl.dist.Categorical(weights))
            inner = ppl.sample("inner", ppl.dist.Categorical(at(table, outer)))
            ppl.sample("x", ppl.dist.Normal(at(locs, outer, inner), 0.8), obs=POINTS)

    return program


@model(
    latent=("group", "item"),
    observed=("x",),
    discrete=("group", "item"),
    max_plate_nesting=2,
    params=("weights", "table", "rates"),
)
def multilevel_classes(ppl: Any) -> Program:
    """Classes of groups, and classes of items that depend on their group's."""
    counts = torch.tensor([[0.0, 3.0], [1.0, 5.0], [2.0, 2.0]]).double()

    def program() -> Any:
        weights, table = simplex(ppl, "weights", 2), simplex(ppl, "table", 2, 2)
        rates = positive(ppl, "rates", 2)
        with ppl.plate("groups", 2, dim=-1):
            group = ppl.sample("group", ppl.dist.Categorical(weights))
            with ppl.plate("items", 3, dim=-2):
                item = ppl.sample("item", ppl.dist.Categorical(at(table, group)))
                ppl.sample("x", ppl.dist.Poisson(3.0 * at(rates, item)), obs=counts)

    return program


@model(latent=("z",), observed=("x",), discrete=("z",), max_plate_nesting=1, params=("zero", "rate"))
def zero_inflated(ppl: Any) -> Program:
    """Counts that are zero for either of two reasons."""
    counts = vector(0.0, 0.0, 3.0, 1.0, 0.0, 2.0)

    def program() -> Any:
        zero, rate = unit(ppl, "zero"), positive(ppl, "rate")
        with ppl.plate("data", len(counts)):
            z = ppl.sample("z", ppl.dist.Bernoulli(zero))
            ppl.sample("x", ppl.dist.Poisson(2.0 * rate * (1 - z) + 1e-3 * z), obs=counts)

    return program


@model(
    latent=("outlier",),
    observed=("y",),
    discrete=("outlier",),
    max_plate_nesting=1,
    params=("slope", "share", "spread"),
)
def robust_regression(ppl: Any) -> Program:
    """A line, and points that have nothing to do with it."""
    x, y = vector(-1.0, 0.0, 1.0, 2.0, 3.0), vector(-0.9, 0.2, 4.0, 2.1, 2.8)

    def program() -> Any:
        slope, share, spread = real(ppl, "slope"), unit(ppl, "share"), positive(ppl, "spread")
        with ppl.plate("data", len(x)):
            outlier = ppl.sample("outlier", ppl.dist.Bernoulli(0.5 * share))
            loc = torch.where(outlier == 1, torch.zeros_like(x), slope * x)
            ppl.sample("y", ppl.dist.Normal(loc, torch.where(outlier == 1, 5.0, spread)), obs=y)

    return program


@model(
    latent=("expert",),
    observed=("y",),
    discrete=("expert",),
    max_plate_nesting=1,
    params=("gate", "slopes"),
)
def mixture_of_experts(ppl: Any) -> Program:
    """Which line a point is on depends on where it is."""
    x, y = vector(-1.0, -0.3, 0.5, 1.5), vector(1.1, 0.2, 0.4, 2.9)

    def program() -> Any:
        gate, slopes = real(ppl, "gate", 3), real(ppl, "slopes", 3)
        with ppl.plate("data", len(x)):
            expert = ppl.sample("expert", ppl.dist.Categorical(logits=gate * x[:, None]))
            ppl.sample("y", ppl.dist.Normal(at(slopes, expert) * x, 0.5), obs=y)

    return program


@model(
    latent=("z",),
    observed=("label", "x_labelled", "x"),
    discrete=("z",),
    max_plate_nesting=1,
    params=("weights", "locs"),
)
def semi_supervised(ppl: Any) -> Program:
    """Some points come with their class, the others without."""
    labels = torch.tensor([0, 2, 1])

    def program() -> Any:
        weights, locs = simplex(ppl, "weights", 3), real(ppl, "locs", 3)
        with ppl.plate("labelled", 3):
            label = ppl.sample("label", ppl.dist.Categorical(weights), obs=labels)
            ppl.sample("x_labelled", ppl.dist.Normal(at(locs, label), 1.0), obs=POINTS[:3])
        with ppl.plate("unlabelled", 2):
            z = ppl.sample("z", ppl.dist.Categorical(weights))
            ppl.sample("x", ppl.dist.Normal(at(locs, z), 1.0), obs=POINTS[3:])

    return program


@model(
    latent=("z",),
    observed=("x", "y"),
    discrete=("z",),
    max_plate_nesting=1,
    params=("weights", "locs", "rates"),
)
def missing_outputs(ppl: Any) -> Program:
    """Two outputs an element, a number and a bit, each missing here and there."""
    bits = vector(1.0, 0.0, 0.0, 1.0, 1.0)
    has_number, has_bit = torch.tensor([1, 1, 0, 0, 1]) == 1, torch.tensor([1, 0, 1, 0, 1]) == 1

    def program() -> Any:
        weights, locs, rates = simplex(ppl, "weights", 2), real(ppl, "locs", 2), unit(ppl, "rates", 2)
        with ppl.plate("data", len(POINTS)):
            z = ppl.sample("z", ppl.dist.Categorical(weights))
            with ppl.mask(mask=has_number):
                ppl.sample("x", ppl.dist.Normal(at(locs, z), 1.0), obs=POINTS)
            with ppl.mask(mask=has_bit):
                ppl.sample("y", ppl.dist.Bernoulli(at(rates, z)), obs=bits)

    return program


def _two_normals(params: dict[str, Tensor], points: Tensor) -> Tensor:
    """The log-density of each point under a mixture of two normals of spread 1."""
    each = torch.distributions.Normal(params["locs"], 1.0).log_prob(points[:, None])
    return torch.logsumexp(params["weights"].log() + each, -1)


CHOSEN = torch.tensor([4, 0, 3])
CASE_WEIGHTS = vector(0.5, 1.0, 2.0, 1.0, 3.0)


@model(
    latent=("z",),
    observed=("x",),
    discrete=("z",),
    max_plate_nesting=1,
    params=("weights", "locs"),
    evidence=lambda params: 5 / 3 * _two_normals(params, POINTS[CHOSEN]).sum(),
)
def subsampled_mixture(ppl: Any) -> Program:
    """Three of five points are looked at, and stand for all."""

    def program() -> Any:
        weights, locs = simplex(ppl, "weights", 2), real(ppl, "locs", 2)
        with ppl.plate("data", len(POINTS), subsample=CHOSEN) as indices:
            z = ppl.sample("z", ppl.dist.Categorical(weights))
            ppl.sample("x", ppl.dist.Normal(at(locs, z), 1.0), obs=POINTS[indices])

    return program


@model(
    latent=("z",),
    observed=("x",),
    discrete=("z",),
    max_plate_nesting=1,
    params=("weights", "locs"),
    evidence=lambda params: (CASE_WEIGHTS * _two_normals(params, POINTS)).sum(),
    pyro="refuses",
)
def case_weights(ppl: Any) -> Program:
    """Each point counts as often as its weight says."""

    def program() -> Any:
        weights, locs = simplex(ppl, "weights", 2), real(ppl, "locs", 2)
        with ppl.plate("data", len(POINTS)), ppl.scale(scale=CASE_WEIGHTS):
            z = ppl.sample("z", ppl.dist.Categorical(weights))
            ppl.sample("x", ppl.dist.Normal(at(locs, z), 1.0), obs=POINTS)

    return program


@model(
    latent=("z",),
    observed=("x",),
    discrete=("z",),
    max_plate_nesting=1,
    params=("weights", "locs"),
    evidence=lambda params: 0.3 * _two_normals(params, POINTS).sum(),
)
def tempered_mixture(ppl: Any) -> Program:
    """The whole likelihood to a power."""

    def program() -> Any:
        weights, locs = simplex(ppl, "weights", 2), real(ppl, "locs", 2)
        with ppl.scale(scale=0.3), ppl.plate("data", len(POINTS)):
            z = ppl.sample("z", ppl.dist.Categorical(weights))
            ppl.sample("x", ppl.dist.Normal(at(locs, z), 1.0), obs=POINTS)

    return program


@model(latent=("z",), observed=("x",), discrete=("z",), max_plate_nesting=1, params=("sticks", "locs"))
def stick_breaking(ppl: Any) -> Program:
    """Weights by breaking a stick, cut off at four pieces."""

    def program() -> Any:
        sticks, locs = unit(ppl, "sticks", 3), real(ppl, "locs", 4)
        left = torch.cat([torch.ones(1).double(), (1 - sticks).cumprod(-1)])
        weights = torch.cat([sticks, torch.ones(1).double()]) * left
        with ppl.plate("data", len(POINTS)):
            z = ppl.sample("z", ppl.dist.Categorical(weights))
            ppl.sample("x", ppl.dist.Normal(at(locs, z), 1.0), obs=POINTS)

    return program


def _bayesian_guide(ppl: Any) -> Program:
    def program() -> Any:
        ppl.sample("weights", ppl.dist.Dirichlet(1.0 + positive(ppl, "alpha", 3)))
        with ppl.plate("components", 3):
            ppl.sample("locs", ppl.dist.Normal(real(ppl, "q_locs", 3), positive(ppl, "q_scales", 3)))

    return program


@model(
    latent=("weights", "locs", "z"),
    observed=("x",),
    discrete=("z",),
    max_plate_nesting=1,
    params=("spread",),
    guide=_bayesian_guide,
    guided=("weights", "locs"),
)
def bayesian_mixture(ppl: Any) -> Program:
    """Weights and centres with priors, and a guide for them."""

    def program() -> Any:
        spread = positive(ppl, "spread")
        weights = ppl.sample("weights", ppl.dist.Dirichlet(torch.ones(3).double()))
        with ppl.plate("components", 3):
            locs = ppl.sample("locs", ppl.dist.Normal(vector(0.0)[0], 2.0))
        with ppl.plate("data", len(POINTS)):
            z = ppl.sample("z", ppl.dist.Categorical(weights))
            ppl.sample("x", ppl.dist.Normal(at(locs, z), spread), obs=POINTS)

    return program


def _amortized_guide(ppl: Any) -> Program:
    def program() -> Any:
        slope = real(ppl, "q_slope")
        with ppl.plate("data", len(POINTS)):
            ppl.sample("shift", ppl.dist.Normal(slope * POINTS, positive(ppl, "q_scale")))

    return program


@model(
    latent=("z", "shift"),
    observed=("x",),
    discrete=("z",),
    max_plate_nesting=1,
    params=("rate",),
    guide=_amortized_guide,
    guided=("shift",),
)
def local_continuous(ppl: Any) -> Program:
    """A class and a continuous shift for each element; the guide draws the shift, the class is summed out."""

    def program() -> Any:
        rate = unit(ppl, "rate")
        with ppl.plate("data", len(POINTS)):
            z = ppl.sample("z", ppl.dist.Bernoulli(rate))
            shift = ppl.sample("shift", ppl.dist.Normal(z, 1.0))
            ppl.sample("x", ppl.dist.Normal(shift - z, 0.7), obs=POINTS)

    return program


def _enumerated_guide(ppl: Any) -> Program:
    def program() -> Any:
        table = simplex(ppl, "q_table", 4, 2)
        loc = ppl.sample("loc", ppl.dist.Normal(real(ppl, "q_loc"), 0.5))
        with ppl.plate("data", 4):
            ppl.sample("z", ppl.dist.Categorical(logits=table.log() * loc), infer={"enumerate": "parallel"})

    return program


@model(
    latent=("loc", "z", "w"),
    observed=("x",),
    discrete=("z", "w"),
    max_plate_nesting=1,
    params=("weights", "table"),
    guide=_enumerated_guide,
    guided=("loc", "z"),
)
def enumerated_guide(ppl: Any) -> Program:
    """One class is averaged over in the guide, another is summed out in the model."""

    def program() -> Any:
        weights, table = simplex(ppl, "weights", 2), simplex(ppl, "table", 2, 2)
        loc = ppl.sample("loc", ppl.dist.Normal(vector(0.0)[0], 1.0))
        with ppl.plate("data", 4):
            z = ppl.sample("z", ppl.dist.Categorical(weights))
            w = ppl.sample("w", ppl.dist.Categorical(at(table, z)))
            ppl.sample("x", ppl.dist.Normal(loc * z + w, 1.0), obs=POINTS[:4])

    return program
