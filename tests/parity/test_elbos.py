"""The same programs in Pyro and in sumout give the same losses and the same gradients.

A program is written once, over the names that both libraries have. Guides draw from torch's generator in the
same order in both, so even estimates from random draws are compared number by number.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pyro
import pyro.infer
import pytest
import torch
from pyro import poutine as pyro_poutine
from pyro.ops.indexing import Vindex
from torch import Tensor

import sumout
import sumout.distributions as dist
from sumout.effects import handlers
from sumout.infer import config_enumerate
from sumout.infer.objectives.trace_elbo import Trace_ELBO
from sumout.infer.objectives.traceenum_elbo import TraceEnum_ELBO

constraints = dist.constraints
PRIMITIVES = ("sample", "param", "plate", "markov", "factor", "deterministic", "get_param_store")
PYRO = SimpleNamespace(
    **{name: getattr(pyro, name) for name in PRIMITIVES},
    mask=pyro_poutine.mask,
    scale=pyro_poutine.scale,
    config_enumerate=pyro.infer.config_enumerate,
    Trace_ELBO=pyro.infer.Trace_ELBO,
    TraceEnum_ELBO=pyro.infer.TraceEnum_ELBO,
)
OURS = SimpleNamespace(
    **{name: getattr(sumout, name) for name in PRIMITIVES},
    mask=handlers.mask,
    scale=handlers.scale,
    config_enumerate=config_enumerate,
    Trace_ELBO=Trace_ELBO,
    TraceEnum_ELBO=TraceEnum_ELBO,
)
ENUMERATED = {"enumerate": "parallel"}


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def start(*shape: int, seed: int = 0) -> Tensor:
    """Positive numbers to begin a parameter with, the same for both libraries."""
    return 0.2 + torch.rand(shape, generator=torch.Generator().manual_seed(seed + 17 * sum(shape)))


def simplex(*shape: int, seed: int = 0) -> Tensor:
    weights = start(*shape, seed=seed)
    return weights / weights.sum(-1, keepdim=True)


def nothing(P: SimpleNamespace) -> None:
    """The guide of a model that is summed out completely."""


def solve(P: SimpleNamespace, elbo: str, model: Callable, guide: Callable, **options) -> tuple[float, dict]:
    """Loss and gradients by name, from an empty parameter store and a fixed seed."""
    store = P.get_param_store()
    before = store.get_state()
    store.clear()
    torch.manual_seed(5)
    objective = getattr(P, elbo)(**options)
    try:
        with warnings.catch_warnings():
            if P is PYRO:
                warnings.simplefilter("ignore")
            loss = objective.loss_and_grads(lambda: model(P), lambda: guide(P))
        found = {name: leaf.grad for name, leaf in store.named_parameters()}
    finally:
        store.clear()
        store.set_state(before)
    return loss, found


def assert_same(elbo: str, model: Callable, guide: Callable = nothing, **options) -> None:
    expected, pyro_grads = solve(PYRO, elbo, model, guide, **options)
    found, our_grads = solve(OURS, elbo, model, guide, **options)
    assert found == pytest.approx(expected, rel=1e-8)
    assert set(our_grads) == set(pyro_grads) != set()
    for name, theirs in pyro_grads.items():
        ours = our_grads[name]
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8, msg=f"{{}}: {name}".format)


# ------------------------------------------------------------------------------------------------------ mixtures

POINTS = torch.tensor([-2.1, -1.9, 0.2, 1.7, 2.2, 2.4])


def mixture(P: SimpleNamespace) -> None:
    weights = P.sample("weights", dist.Dirichlet(torch.ones(3)))
    with P.plate("components", 3):
        locs = P.sample("locs", dist.Normal(P.param("prior_loc", start()), 3.0))
    scale = P.param("scale", start(3), constraint=constraints.positive)
    with P.plate("data", len(POINTS)):
        z = P.sample("z", dist.Categorical(weights), infer=ENUMERATED)
        P.sample("x", dist.Normal(locs[z], scale[z]), obs=POINTS)


def mixture_guide(P: SimpleNamespace) -> None:
    P.sample("weights", dist.Dirichlet(P.param("alpha", 1 + start(3), constraint=constraints.positive)))
    with P.plate("components", 3):
        loc = P.param("q_loc", start(3, seed=2))
        P.sample(
            "locs", dist.Normal(loc, P.param("q_scale", start(3, seed=3), constraint=constraints.positive))
        )


@pytest.mark.parametrize("particles", [1, 3])
def test_a_gaussian_mixture_with_continuous_globals_in_the_guide(particles: int) -> None:
    assert_same("TraceEnum_ELBO", mixture, mixture_guide, num_particles=particles, max_plate_nesting=1)


def test_vectorized_particles() -> None:
    def model(P: SimpleNamespace) -> None:
        loc = P.sample("loc", dist.Normal(P.param("prior_loc", start()), 3.0))
        with P.plate("data", len(POINTS)):
            z = P.sample("z", dist.Bernoulli(P.param("rate", start() / 2, constraint=constraints.unit_interval)),
                         infer=ENUMERATED)  # fmt: skip
            P.sample("x", dist.Normal(loc * (2 * z - 1), 0.5), obs=POINTS)

    def guide(P: SimpleNamespace) -> None:
        scale = P.param("q_scale", start(seed=3), constraint=constraints.positive)
        P.sample("loc", dist.Normal(P.param("q_loc", start(seed=2)), scale))

    assert_same(
        "TraceEnum_ELBO", model, guide, num_particles=5, vectorize_particles=True, max_plate_nesting=1
    )


# -------------------------------------------------------------------------------------------------------- chains


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_hidden_markov_model(length: int) -> None:
    data = torch.linspace(-1, 2, 2 * length).reshape(2, length)

    def model(P: SimpleNamespace) -> None:
        first = P.param("first", simplex(3), constraint=constraints.simplex)
        transition = P.param("transition", simplex(3, 3), constraint=constraints.simplex)
        loc = P.param("loc", start(3))
        with P.plate("sequences", 2, dim=-1):
            x = None
            for t in P.markov(range(length)):
                probs = first if x is None else transition[x]
                x = P.sample(f"x_{t}", dist.Categorical(probs), infer=ENUMERATED)
                P.sample(f"y_{t}", dist.Normal(loc[x], 1.0), obs=data[:, t])

    assert_same("TraceEnum_ELBO", model, max_plate_nesting=1)


def test_a_hidden_markov_model_of_order_two() -> None:
    data = torch.linspace(-1, 2, 6)

    def model(P: SimpleNamespace) -> None:
        transition = P.param("transition", simplex(2, 2, 2), constraint=constraints.simplex)
        loc = P.param("loc", start(2))
        before = previous = torch.tensor(0)
        for t in P.markov(range(6), history=2):
            probs = Vindex(transition)[before, previous]
            x = P.sample(f"x_{t}", dist.Categorical(probs), infer=ENUMERATED)
            P.sample(f"y_{t}", dist.Normal(Vindex(loc)[x], 1.0), obs=data[t])
            before, previous = previous, x

    assert_same("TraceEnum_ELBO", model, max_plate_nesting=0)


def test_masked_sequences_of_various_lengths() -> None:
    lengths = torch.tensor([4, 1, 3])
    data = torch.linspace(0, 1, 24).reshape(3, 4, 2).round()

    def model(P: SimpleNamespace) -> None:
        transition = P.param("transition", simplex(3, 3), constraint=constraints.simplex)
        rates = P.param("rates", start(3, 2) / 2, constraint=constraints.unit_interval)
        tones = P.plate("tones", 2, dim=-1)
        with P.plate("sequences", 3, dim=-2):
            x = 0
            for t in P.markov(range(4)):
                with P.mask(mask=(t < lengths).unsqueeze(-1)):
                    x = P.sample(f"x_{t}", dist.Categorical(transition[x]), infer=ENUMERATED)
                    with tones:
                        P.sample(f"y_{t}", dist.Bernoulli(rates[x.squeeze(-1)]), obs=data[:, t])

    assert_same("TraceEnum_ELBO", model, max_plate_nesting=2)


# -------------------------------------------------------------------------------------------------------- plates


def test_nested_plates() -> None:
    data = torch.linspace(-1, 1, 12).reshape(3, 4)

    def model(P: SimpleNamespace) -> None:
        top = P.param("top", simplex(2), constraint=constraints.simplex)
        middle = P.param("middle", simplex(2, 3), constraint=constraints.simplex)
        bottom = P.param("bottom", simplex(3, 2), constraint=constraints.simplex)
        loc = P.param("loc", start(2, 3))
        a = P.sample("a", dist.Categorical(top), infer=ENUMERATED)
        with P.plate("outer", 4, dim=-1):
            b = P.sample("b", dist.Categorical(middle[a]), infer=ENUMERATED)
            with P.plate("inner", 3, dim=-2):
                c = P.sample("c", dist.Categorical(bottom[b]), infer=ENUMERATED)
                P.sample("x", dist.Normal(Vindex(loc)[c, b], 1.0), obs=data)

    assert_same("TraceEnum_ELBO", model, max_plate_nesting=2)


def test_local_guide_sites_and_a_subsampled_plate() -> None:
    def model(P: SimpleNamespace) -> None:
        weight = P.sample("weight", dist.Beta(2.0, 3.0))
        with P.plate("data", 60, subsample=torch.tensor([7, 3, 31, 59, 0, 12])):
            shift = P.sample(
                "shift", dist.Normal(0.0, P.param("spread", start(), constraint=constraints.positive))
            )
            z = P.sample("z", dist.Bernoulli(weight), infer=ENUMERATED)
            P.sample("x", dist.Normal(2 * z + shift, 1.0), obs=POINTS)

    def guide(P: SimpleNamespace) -> None:
        a, b = P.param("ab", 1 + start(2), constraint=constraints.positive)
        P.sample("weight", dist.Beta(a, b))
        with P.plate("data", 60, subsample=torch.tensor([7, 3, 31, 59, 0, 12])):
            P.sample("shift", dist.Normal(P.param("q_loc", start(6)), P.param("q_scale", start(6, seed=1))))

    assert_same("TraceEnum_ELBO", model, guide, max_plate_nesting=1)


def test_a_scale_multiplies_the_logarithm_of_the_sum() -> None:
    def model(P: SimpleNamespace) -> None:
        rate = P.param("rate", start() / 2, constraint=constraints.unit_interval)
        with P.scale(scale=2.5):
            z = P.sample("z", dist.Bernoulli(rate), infer=ENUMERATED)
            P.sample("x", dist.Normal(P.param("loc", start()) * z, 1.0), obs=torch.tensor(0.7))
        P.sample("free", dist.Normal(rate, 1.0), obs=torch.tensor(0.1))

    assert_same("TraceEnum_ELBO", model, max_plate_nesting=0)


def test_a_factor_and_a_plate_that_is_a_loop() -> None:
    def model(P: SimpleNamespace) -> None:
        rate = P.param("rate", start() / 2, constraint=constraints.unit_interval)
        for i in P.plate("loop", 3):
            z = P.sample(f"z_{i}", dist.Bernoulli(rate), infer=ENUMERATED)
            P.factor(f"f_{i}", P.param("tilt", start()) * z * i)

    assert_same("TraceEnum_ELBO", model, max_plate_nesting=0)


# ------------------------------------------------------------------------------------------------- without sums


@pytest.mark.parametrize(
    "particles", [{}, {"num_particles": 4}, {"num_particles": 4, "vectorize_particles": True}]
)
def test_trace_elbo_with_both_kinds_of_gradients(particles: dict) -> None:
    """The score-function estimates agree too: both leave the same terms out of the costs."""

    def model(P: SimpleNamespace) -> None:
        top = P.sample(
            "top", dist.Bernoulli(P.param("rate", start() / 2, constraint=constraints.unit_interval))
        )
        loc = P.sample("loc", dist.Normal(top, 1.0))
        with P.plate("data", 12, subsample=torch.arange(6)), P.scale(scale=1.5):
            z = P.sample("z", dist.Bernoulli(0.2 + 0.5 * top))
            P.sample("x", dist.Normal(loc + z, 1.0), obs=POINTS)

    def guide(P: SimpleNamespace) -> None:
        top = P.sample("top", dist.Bernoulli(logits=P.param("top_logit", start())))
        P.sample("loc", dist.Normal(P.param("q_loc", start()) * top, P.param("q_scale", start(seed=4))))
        with P.plate("data", 12, subsample=torch.arange(6)), P.scale(scale=1.5):
            P.sample("z", dist.Bernoulli(logits=P.param("z_logits", start(6))))

    assert_same("Trace_ELBO", model, guide, max_plate_nesting=1, **particles)
