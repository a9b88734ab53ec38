"""The same programs in Pyro and in sumout give the same losses and the same gradients.

A program is written once, over the names that both libraries have. Guides draw from torch's generator in the
same order in both, so even estimates from random draws are compared number by number.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from unittest.mock import patch

import pyro
import pyro.infer
import pytest
import torch
from pyro import poutine as pyro_poutine
from pyro.ops.indexing import Vindex
from torch import Tensor

import sumout
import sumout.distributions as dist
from sumout import infer
from sumout.effects import handlers

constraints = dist.constraints
PRIMITIVES = ("sample", "param", "plate", "markov", "factor", "deterministic", "get_param_store")
OBJECTIVES = ("Trace_ELBO", "TraceEnum_ELBO", "TraceMeanField_ELBO", "TraceTMC_ELBO")
PYRO = SimpleNamespace(
    **{name: getattr(pyro, name) for name in PRIMITIVES},
    mask=pyro_poutine.mask,
    scale=pyro_poutine.scale,
    config_enumerate=pyro.infer.config_enumerate,
    **{name: getattr(pyro.infer, name) for name in OBJECTIVES},
)
OURS = SimpleNamespace(
    **{name: getattr(sumout, name) for name in PRIMITIVES},
    mask=handlers.mask,
    scale=handlers.scale,
    config_enumerate=infer.config_enumerate,
    **{name: getattr(infer, name) for name in OBJECTIVES},
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


def both_kinds(P: SimpleNamespace) -> None:
    top = P.sample("top", dist.Bernoulli(P.param("rate", start() / 2, constraint=constraints.unit_interval)))
    loc = P.sample("loc", dist.Normal(top, 1.0))
    with P.plate("data", 6, subsample=torch.arange(3)), P.scale(scale=1.5):
        z = P.sample("z", dist.Bernoulli(0.2 + 0.5 * top))
        P.sample("x", dist.Normal(loc + z, 1.0), obs=POINTS[:3])


def both_kinds_guide(P: SimpleNamespace) -> None:
    top = P.sample("top", dist.Bernoulli(logits=P.param("top_logit", start())))
    P.sample("loc", dist.Normal(P.param("q_loc", start()) * top, P.param("q_scale", start(seed=4))))
    with P.plate("data", 6, subsample=torch.arange(3)), P.scale(scale=1.5):
        P.sample("z", dist.Bernoulli(logits=P.param("z_logits", start(3))))


@pytest.mark.parametrize(
    "particles", [{}, {"num_particles": 4}, {"num_particles": 4, "vectorize_particles": True}]
)
def test_trace_elbo_of_the_same_draws(particles: dict) -> None:
    options = {"max_plate_nesting": 1, **particles}
    expected, _ = solve(PYRO, "Trace_ELBO", both_kinds, both_kinds_guide, **options)
    found, _ = solve(OURS, "Trace_ELBO", both_kinds, both_kinds_guide, **options)
    assert found == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("elbo", ["Trace_ELBO", "TraceEnum_ELBO"])
def test_score_function_gradients_have_the_same_mean(elbo: str) -> None:
    """Costs that do not depend on a draw are left out here, and not all of them there: the means are the same."""

    def means(P: SimpleNamespace) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for outcome in range(2**4):
            bits = torch.tensor([float(outcome >> place & 1) for place in range(4)])
            weight = torch.ones(())

            def told(probs: Tensor, *args: object, bits: Tensor = bits, **kwargs: object) -> Tensor:
                nonlocal weight
                value = bits[:1].reshape(probs.shape) if probs.numel() == 1 else bits[1:].reshape(probs.shape)
                weight = weight * torch.where(value == 1, probs, 1 - probs).prod()
                return value

            with patch("torch.bernoulli", told):
                options = {"max_plate_nesting": 1, "strict_enumeration_warning": False}
                _, grads = solve(P, elbo, both_kinds, both_kinds_guide, **options)
            for name, grad in grads.items():
                found[name] = found.get(name, torch.zeros(())) + weight.detach() * grad
        return found

    expected, found = means(PYRO), means(OURS)
    assert expected.keys() == found.keys()
    for name, theirs in expected.items():
        torch.testing.assert_close(found[name], theirs, rtol=1e-8, atol=1e-8, msg=f"{{}}: {name}".format)


# ------------------------------------------------------------------------------------------------- in the guide


def test_sites_enumerated_in_the_guide() -> None:
    def model(P: SimpleNamespace) -> None:
        a = P.sample("a", dist.Categorical(P.param("p_a", simplex(2), constraint=constraints.simplex)))
        with P.plate("data", 60, subsample=torch.tensor([7, 3, 31, 59, 0, 12])):
            rows = P.param("p_b", simplex(2, 3), constraint=constraints.simplex)
            b = P.sample("b", dist.Categorical(rows[a]))
            c = P.sample("c", dist.Bernoulli(P.param("p_c", start(3) / 2)[b]), infer=ENUMERATED)
            P.sample("x", dist.Normal(Vindex(P.param("loc", start(2, 3)))[a, b] + c, 1.0), obs=POINTS)

    def guide(P: SimpleNamespace) -> None:
        table = P.param("q_a", simplex(2, seed=3), constraint=constraints.simplex)
        a = P.sample("a", dist.Categorical(table), infer=ENUMERATED)
        with P.plate("data", 60, subsample=torch.tensor([7, 3, 31, 59, 0, 12])) as i:
            rows = P.param("q_b", simplex(60, 2, 3), constraint=constraints.simplex)
            P.sample("b", dist.Categorical(Vindex(rows)[i, a]), infer=ENUMERATED)

    assert_same("TraceEnum_ELBO", model, guide, max_plate_nesting=1)
    for particles in ({}, {"vectorize_particles": True}):
        assert_same("TraceEnum_ELBO", model, guide, max_plate_nesting=1, num_particles=3, **particles)


def chains(P: SimpleNamespace, history: int = 1) -> tuple[Callable, Callable]:
    data = torch.linspace(-1, 2, 5)

    def model(P: SimpleNamespace) -> None:
        transition = P.param("transition", simplex(3, 3), constraint=constraints.simplex)
        x = 0
        for t in P.markov(range(5), history=history):
            x = P.sample(f"x_{t}", dist.Categorical(transition[x]))
            P.sample(f"y_{t}", dist.Normal(P.param("loc", start(3))[x], 1.0), obs=data[t])

    def guide(P: SimpleNamespace) -> None:
        transition = P.param("q", simplex(3, 3, seed=7), constraint=constraints.simplex)
        x = 0
        for t in P.markov(range(5), history=history):
            x = P.sample(f"x_{t}", dist.Categorical(transition[x]), infer=ENUMERATED)

    return model, guide


def test_a_chain_enumerated_in_the_guide() -> None:
    model, guide = chains(OURS)
    assert_same("TraceEnum_ELBO", model, guide, max_plate_nesting=0)


def test_a_sequentially_enumerated_site_of_the_guide() -> None:
    def model(P: SimpleNamespace) -> None:
        a = P.sample("a", dist.Bernoulli(P.param("p_a", start() / 2)))
        with P.plate("data", 6):
            b = P.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
            P.sample("x", dist.Normal(b + P.param("loc", start()) * a, 1.0), obs=POINTS)

    def guide(P: SimpleNamespace) -> None:
        a = P.sample("a", dist.Bernoulli(P.param("q_a", start() / 3)), infer={"enumerate": "sequential"})
        with P.plate("data", 6):
            P.sample("b", dist.Bernoulli(0.1 + 0.3 * a + 0 * P.param("q_b", start(6))), infer=ENUMERATED)

    assert_same("TraceEnum_ELBO", model, guide, max_plate_nesting=1)


def test_draws_for_each_value_of_an_enumerated_site() -> None:
    """Pathwise: the noises come in the same order."""

    def model(P: SimpleNamespace) -> None:
        with P.plate("data", 6):
            y = P.sample("y", dist.Categorical(P.param("p_y", simplex(3), constraint=constraints.simplex)))
            z = P.sample("z", dist.Normal(P.param("m", start()), 1.0))
            P.sample("x", dist.Normal(z + P.param("loc", start(3))[y], 1.0), obs=POINTS)

    def guide(P: SimpleNamespace) -> None:
        with P.plate("data", 6):
            rows = P.param("q_y", simplex(6, 3), constraint=constraints.simplex)
            y = P.sample("y", dist.Categorical(rows), infer=ENUMERATED)
            P.sample("z", dist.Normal(P.param("q_loc", start(3))[y], P.param("q_scale", start())))

    assert_same("TraceEnum_ELBO", model, guide, max_plate_nesting=1)


# ------------------------------------------------------------------------------------------- the other objectives


def test_divergences_in_closed_form() -> None:
    def model(P: SimpleNamespace) -> None:
        rate = P.sample("rate", dist.Gamma(2.0, P.param("b", start(), constraint=constraints.positive)))
        with P.plate("data", 60, subsample=torch.tensor([7, 3, 31, 59, 0, 12])):
            z = P.sample("z", dist.Normal(rate, 1.0))
            P.sample("x", dist.Normal(z, 1.0), obs=POINTS)

    def guide(P: SimpleNamespace) -> None:
        P.sample("rate", dist.Gamma(P.param("q_a", 1 + start(), constraint=constraints.positive), 1.5))
        with P.plate("data", 60, subsample=torch.tensor([7, 3, 31, 59, 0, 12])):
            P.sample("z", dist.Normal(P.param("q_loc", start(6)), P.param("q_scale", start(6, seed=1))))

    for particles in ({}, {"num_particles": 3}, {"num_particles": 3, "vectorize_particles": True}):
        assert_same("TraceMeanField_ELBO", model, guide, max_plate_nesting=1, **particles)


@pytest.mark.parametrize("of_model", [False, True])
def test_several_samples_of_each_site(of_model: bool) -> None:
    """Of sites that do not depend on each other: there the two have one definition.

    Pyro counts a site that the model enumerates exactly twice, and divides samples of a site that depends on others by
    a density that they do not come from.
    """
    several = {"enumerate": "parallel", "num_samples": 4}

    def model(P: SimpleNamespace) -> None:
        z = P.sample("z", dist.Normal(P.param("m", start()), 1.0))
        with P.plate("data", 6):
            w = P.sample("w", dist.Normal(0.0, P.param("s", start())), infer=several if of_model else {})
            P.sample("x", dist.Normal(z + w, 1.0), obs=POINTS)

    def guide(P: SimpleNamespace) -> None:
        P.sample("z", dist.Normal(P.param("q_loc", start()), 0.7), infer=several)
        if not of_model:
            with P.plate("data", 6):
                P.sample("w", dist.Normal(P.param("q_w", start(6)), 0.6), infer=several)

    assert_same("TraceTMC_ELBO", model, guide, max_plate_nesting=1)
    for particles in ({}, {"vectorize_particles": True}):
        options = {"num_particles": 3, **particles}
        if not particles:  # Pyro adds up vectorized particles within the logarithm.
            assert_same("TraceTMC_ELBO", model, guide, max_plate_nesting=1, **options)


def test_samples_in_the_guide() -> None:
    several = {"enumerate": "parallel", "num_samples": 4, "expand": True}

    def model(P: SimpleNamespace) -> None:
        a = P.sample("a", dist.Bernoulli(P.param("p_a", start() / 2)))
        z = P.sample("z", dist.Normal(P.param("m", start()) * a, 1.0))
        P.sample("x", dist.Normal(z, 1.0), obs=POINTS[0])

    def guide(P: SimpleNamespace) -> None:
        a = P.sample("a", dist.Bernoulli(P.param("q_a", start() / 2)), infer=ENUMERATED)
        P.sample("z", dist.Normal(P.param("q_loc", start()) - a, 0.7), infer=several)

    assert_same("TraceEnum_ELBO", model, guide, max_plate_nesting=0)
